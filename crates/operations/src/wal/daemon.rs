//! `mainstay wal daemon`: keeps a repository open, so that a push or a fetch costs PostgreSQL milliseconds.
//!
//! It only makes faster what `wal push` and `wal fetch` do by themselves when it is not there. A push is answered when that very
//! file is durable in the repository: there is no other spool. What follows is archived ahead (`ahead`), or fetched ahead
//! (`prefetch`). It can be killed at any moment: nothing is acknowledged that is not done, and nothing lies about.
//!
//! Before each answer it looks whether the store still holds the repository that it has opened, with the same hosts; if not, the command
//! does the work. If it holds another one, or the configuration or the program is another one by now, the daemon ends.

mod ahead;
pub mod client;
mod prefetch;
mod socket;
mod spool;
mod turns;
mod words;

pub use client::Asked;
pub use words::Status;

use super::{control_of, repository_for};
use crate::{
    access,
    config::{Config, SourceConfig},
};
use ahead::Ahead;
use mainstay_domain::{Clock, Failure, Monitor, Result, Severity, time::SECOND, wal::WalFile};
use mainstay_repository::{Repository, wal::Put};
use mainstay_sources::postgres::cluster::{StartDaemon, WalConfig};
use prefetch::{Fetched, Prefetch};
use rustix::event::Timespec;
use socket::Place;
use std::{
    fs,
    io::{self, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
        mpsc::{RecvTimeoutError, sync_channel},
    },
    thread,
};
use words::{Answer, Ask, Call};

/// Threads that archive ahead, and as many that fetch ahead.
const WORKERS: usize = 2;
/// Requests at the same time; who comes then does the work without us.
const MOST_REQUESTS: usize = 8;
/// How often it is looked whether somebody wants us to end.
const A_WHILE: Timespec = Timespec { tv_sec: 0, tv_nsec: 250_000_000 };
const WHILES_PER_SECOND: i64 = 4;

/// Where an application's daemon is to be found, and whether a push may start it.
#[derive(Debug)]
pub struct Whereabouts {
    pub app: String,
    /// `None` where no folder for it is known: then there is no daemon.
    pub socket: Option<PathBuf>,
    pub wal: WalConfig,
}

impl Whereabouts {
    /// `socket`: where it is said to be, on the command line.
    pub fn of(config: &Config, app: Option<&str>, socket: Option<&Path>) -> Result<Whereabouts> {
        let named = repository_for(config, app)?;
        let has_cluster = |name: &String| wal_config(config, name).is_some();
        let app =
            app.map(str::to_owned).or_else(|| config.apps.keys().find(|name| has_cluster(name)).cloned());
        let app = app.expect("repository_for has found an application with a cluster");
        let wal = wal_config(config, &app).cloned().unwrap_or_default();
        let said = socket.map(Path::to_owned).or_else(|| wal.socket.clone());
        let usual = || {
            let cache = named.config.cache.clone().or_else(access::default_cache)?;
            let path = fs::canonicalize(config.path()).ok()?;
            let of_both = [path.as_os_str().as_encoded_bytes(), b"\0", app.as_bytes()].concat();
            Some(cache.join(format!("wal-{}.sock", &blake3::hash(&of_both).to_hex()[..16])))
        };
        Ok(Whereabouts { socket: said.or_else(usual), app, wal })
    }

    /// Whether a push or a fetch that finds nobody may start it.
    pub fn starts_by_itself(&self) -> bool {
        self.socket.is_some() && self.wal.daemon == StartDaemon::Auto
    }
}

fn wal_config<'c>(config: &'c Config, app: &str) -> Option<&'c WalConfig> {
    config.apps.get(app)?.sources.values().find_map(|source| match source {
        SourceConfig::Cluster(cluster) => Some(&cluster.wal),
        _ => None,
    })
}

/// As [`wal::push`](super::push), by the daemon where there is one.
pub fn push(
    config: &Config,
    place: &Whereabouts,
    path: &Path,
    clock: Arc<dyn Clock>,
) -> Result<(Put, Asked<()>)> {
    match client::push(place, config, path) {
        Asked::Done(put) => Ok((put, Asked::Done(()))),
        Asked::Declined(why) => {
            super::push(config, Some(&place.app), path, clock).map(|put| (put, Asked::Declined(why)))
        }
        Asked::Nobody => super::push(config, Some(&place.app), path, clock).map(|put| (put, Asked::Nobody)),
    }
}

/// As [`wal::fetch`](super::fetch), by the daemon where there is one. That a file is not there is never its word.
pub fn fetch(
    config: &Config,
    place: &Whereabouts,
    name: &str,
    path: &Path,
    clock: Arc<dyn Clock>,
) -> Result<(bool, Asked<()>)> {
    let asked = match name.parse() {
        Ok(file @ WalFile::Segment(_)) => client::fetch(place, config, &file, control_of(path)?.system, path),
        _ => Asked::Declined(format!("{name} is no segment")),
    };
    let asked = match asked {
        Asked::Done(Fetched::Content(content)) => {
            return super::write(path, &content, false).map(|()| (true, Asked::Done(())));
        }
        Asked::Done(Fetched::Placed { .. }) => return Ok((true, Asked::Done(()))),
        Asked::Declined(why) => Asked::Declined(why),
        Asked::Nobody => Asked::Nobody,
    };
    Ok((super::fetch(config, Some(&place.app), name, path, clock)?, asked))
}

/// Listens until the user stops it, until it was idle for long enough, or until it is out of date. Returns what it has done.
///
/// # Errors
/// `Busy` if there is a daemon already.
pub fn run(
    config: &Config,
    place: &Whereabouts,
    until_idle: bool,
    clock: Arc<dyn Clock>,
    monitor: &dyn Monitor,
) -> Result<Status> {
    let Some(path) = &place.socket else {
        return Err(Failure::usage("it is not known where the WAL daemon's socket is to be")
            .hint("Say it: --socket PATH, or `wal: { socket: PATH }` in the cluster's configuration."));
    };
    let claimed = Place::claim(path)?;
    let unreadable =
        |error| Failure::failed(format!("{} cannot be read", config.path().display())).caused_by(error);
    let configuration = client::configuration(config, place).map_err(unreadable)?;
    let repository = access::open(config, &repository_for(config, Some(&place.app))?, clock)?;
    let socket = claimed.listen()?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let daemon = Daemon::new(config, place, &repository, configuration);
    monitor.notice(Severity::Info, &format!("the WAL daemon of {} listens on {}", place.app, path.display()));

    let idle_whiles = until_idle.then_some(place.wal.idle.nanoseconds / SECOND * WHILES_PER_SECOND);
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| daemon.ahead.work(&repository));
            scope.spawn(|| daemon.prefetch.work(&repository, folder));
        }
        let mut whiles = 0;
        let ended = loop {
            if monitor.cancelled()
                || daemon.outdated.load(Relaxed)
                || idle_whiles.is_some_and(|most| whiles >= most)
            {
                break Ok(());
            }
            match socket.next(A_WHILE) {
                Ok(Some(stream)) if daemon.requests.fetch_add(1, Relaxed) < MOST_REQUESTS => {
                    whiles = 0;
                    scope.spawn(|| {
                        // Whoever hung up does the work without us.
                        drop(daemon.converse(stream));
                        daemon.requests.fetch_sub(1, Relaxed);
                    });
                }
                Ok(Some(_)) => drop(daemon.requests.fetch_sub(1, Relaxed)),
                Ok(None) => whiles += 1,
                Err(failure) => break Err(failure),
            }
        };
        socket.close();
        daemon.ahead.close();
        daemon.prefetch.close();
        ended
    })?;
    Ok(daemon.status())
}

struct Daemon<'d> {
    config: &'d Config,
    place: &'d Whereabouts,
    repository: &'d Repository,
    configuration: String,
    ahead: Ahead,
    prefetch: Prefetch,
    declined: AtomicU64,
    requests: AtomicUsize,
    /// It is to end, so that one that is up to date can take its place.
    outdated: AtomicBool,
}

/// An answer, and the bytes that follow it.
type Reply = (Answer, Vec<u8>);

impl<'d> Daemon<'d> {
    fn new(
        config: &'d Config,
        place: &'d Whereabouts,
        repository: &'d Repository,
        configuration: String,
    ) -> Self {
        Daemon {
            config,
            place,
            repository,
            configuration,
            ahead: Ahead::default(),
            prefetch: Prefetch::default(),
            declined: AtomicU64::new(0),
            requests: AtomicUsize::new(0),
            outdated: AtomicBool::new(false),
        }
    }

    /// Hears one call and answers it; says that it is at work as long as it is.
    fn converse(&self, stream: UnixStream) -> io::Result<()> {
        stream.set_read_timeout(Some(words::PATIENCE))?;
        stream.set_write_timeout(Some(words::PATIENCE))?;
        let call: Call = words::hear(&mut BufReader::new(&stream))?;
        let (send, receive) = sync_channel(1);
        thread::scope(|scope| {
            let one_user = socket::is_own_user(&stream);
            scope.spawn(move || drop(send.send(self.answer(call, one_user))));
            loop {
                match receive.recv_timeout(words::BEAT) {
                    Ok((answer, content)) => {
                        words::say(&mut &stream, &answer)?;
                        return (&stream).write_all(&content);
                    }
                    Err(RecvTimeoutError::Timeout) => words::say(&mut &stream, &Answer::Working)?,
                    Err(RecvTimeoutError::Disconnected) => return Err(io::ErrorKind::BrokenPipe.into()),
                }
            }
        })
    }

    /// `one_user`: whoever calls runs as the user that we are.
    fn answer(&self, call: Call, one_user: bool) -> Reply {
        let answered = self.check(&call).and_then(|()| match &call.ask {
            Ask::Status => Ok((Answer::Status(self.status()), Vec::new())),
            Ask::Push { path, identity } => self.current().and_then(|()| {
                let stored = match self.ahead.push(self.repository, path, *identity)? {
                    Put::Stored(bytes) => Some(bytes),
                    Put::Known => None,
                    // For the command to say.
                    Put::KeptFirst => {
                        return Err(Failure::failed("another .partial of that name is archived"));
                    }
                };
                Ok((Answer::Durable { stored }, Vec::new()))
            }),
            Ask::Fetch { file, system, to } => self.current().and_then(|()| {
                let segment = file.parse().map_err(|_| Failure::usage(format!("{file} is no segment")))?;
                let to = Some(to).filter(|to| one_user && to.is_here());
                match self.prefetch.fetch(self.repository, *system, segment, to)? {
                    Some(Fetched::Content(content)) => {
                        Ok((Answer::Content { bytes: content.len() as u64 }, content))
                    }
                    Some(Fetched::Placed { bytes, inode }) => {
                        Ok((Answer::Placed { bytes, inode }, Vec::new()))
                    }
                    None => Err(Failure::failed(format!("{file} is not there"))),
                }
            }),
        });
        answered.unwrap_or_else(|failure| {
            self.declined.fetch_add(1, Relaxed);
            (Answer::Declined { why: failure.message }, Vec::new())
        })
    }

    /// Whether caller and daemon are of one version and mean the same repository.
    fn check(&self, call: &Call) -> Result<()> {
        if call.version != words::VERSION {
            self.outdated.store(true, Relaxed);
            return Err(Failure::failed(format!("the daemon is of version {}", words::VERSION)));
        }
        if call.configuration != self.configuration {
            let now = client::configuration(self.config, self.place).ok();
            if now.as_ref() != Some(&self.configuration) {
                self.outdated.store(true, Relaxed);
            }
            return Err(Failure::failed("the daemon has another configuration"));
        }
        Ok(())
    }

    /// Whether the store still holds what was opened.
    fn current(&self) -> Result<()> {
        if self.repository.is_current()? {
            return Ok(());
        }
        // It comes back as it was, perhaps in a moment; if not, that is seen then.
        if self.repository.is_away()? {
            return Err(Failure::failed("the store holds no repository now"));
        }
        self.outdated.store(true, Relaxed);
        Err(Failure::failed("the repository is not the one that the daemon has opened"))
    }

    fn status(&self) -> Status {
        Status {
            pid: std::process::id(),
            pushed: self.ahead.pushed.load(Relaxed),
            pushed_ahead: self.ahead.pushed_ahead.load(Relaxed),
            known_ahead: self.ahead.known_ahead.load(Relaxed),
            fetched: self.prefetch.fetched.load(Relaxed),
            prefetched: self.prefetch.prefetched.load(Relaxed),
            known_prefetched: self.prefetch.known_prefetched.load(Relaxed),
            placed: self.prefetch.placed.load(Relaxed),
            declined: self.declined.load(Relaxed),
        }
    }
}
