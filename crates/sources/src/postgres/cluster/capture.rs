//! The order of a base backup. It is the safety argument: what the server must keep is held first, the control file is read
//! last, and only when the server has confirmed the end and the log up to it is stored is there a record.

use super::{
    BACKUP_LABEL, CONFIG, CONTROL, ClusterConfig, KIND, LISTING, Method, TABLESPACE, TABLESPACE_MAP, WAL,
    control, exclude,
    facts::{Captured, ClusterFacts, Counts, FACTS_VERSION, Tablespace, read_recently},
    old::OldListing,
    pages::{Checking, PageHasher, PageKey},
    remote,
    server::{Backup, Server, connect, timeline_of_label},
    shared::{Shared, Suspects, Tally},
    tree,
};
use crate::{files::Problems, postgres::wal::check_header};
use mainstay_domain::{
    Clock, Failure, Lsn, Monitor, Result, Severity, Silent, Time,
    point::{SourceRecord, State, Stream},
    stream::{Content, PAGE, Piece, Pool, Sink, Vault},
    wal::{Segment, WalFile},
};
use std::{
    fs,
    io::{self, Read as _, Seek as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
};

/// How to capture.
pub struct Options<'a> {
    /// The repository's key for page hashes.
    pub page_key: PageKey,
    /// Read every file again, whatever its metadata says.
    pub full: bool,
    /// The newest record of this source, and the vault that holds it.
    pub previous: Option<(&'a dyn Vault, &'a SourceRecord)>,
    pub clock: &'a dyn Clock,
}

/// What a cluster says of itself; an error if it cannot be backed up from here.
pub fn probe(config: &ClusterConfig) -> Result<Server> {
    config.validate()?;
    way(config, &Silent).map(|(_, server)| server)
}

/// How a cluster is to be backed up: from its files if that is asked for, or possible.
fn way(config: &ClusterConfig, monitor: &dyn Monitor) -> Result<(Method, Server)> {
    match config.method {
        Method::Files => Ok((Method::Files, probe_files(config)?)),
        Method::Replication => Ok((Method::Replication, remote::probe(config)?)),
        Method::Auto => match probe_files(config) {
            Ok(server) => Ok((Method::Files, server)),
            // A directory that was named is meant.
            Err(failure) if config.data_directory.is_some() => Err(failure),
            Err(failure) => match remote::probe(config) {
                Ok(server) => {
                    let text = format!("{failure}: the base backup comes over the replication protocol");
                    monitor.notice(Severity::Info, &text);
                    Ok((Method::Replication, server))
                }
                Err(other) => Err(failure.caused_by(other.during("over the replication protocol"))),
            },
        },
    }
}

fn probe_files(config: &ClusterConfig) -> Result<Server> {
    let mut connection = connect(&config.connect_spec()?)?;
    let server = Server::ask(&mut connection)?;
    let directory = directory_of(config, &server)?;
    let found = control::read(&directory)?;
    if found.system != server.system {
        return Err(Failure::preflight(format!(
            "{} belongs to another cluster ({}) than the server that was asked ({})",
            directory.display(),
            found.system,
            server.system
        ))
        .hint("Set `data_directory:` to where this machine sees the server's data directory."));
    }
    control::refuse_another_servers(&directory, &mut connection)?;
    Ok(server)
}

fn directory_of(config: &ClusterConfig, server: &Server) -> Result<PathBuf> {
    config.data_directory.clone().or_else(|| server.data_directory.clone()).ok_or_else(|| {
        Failure::preflight("this user may not know where the data directory is")
            .hint("Grant it: GRANT pg_read_all_settings TO the user; or name it: `data_directory:`.")
    })
}

/// What a tablespace's link in the data directory leads to; `None` if it was dropped meanwhile.
fn tablespace(directory: &Path, space: &Tablespace) -> Result<Option<PathBuf>> {
    let link = directory.join("pg_tblspc").join(space.oid.to_string());
    let gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    match fs::metadata(&link) {
        Ok(_) => Ok(Some(link)),
        // The server never removes a tablespace's own folder, only the link to it.
        Err(error) if gone(&error) && link.symlink_metadata().is_err_and(|error| gone(&error)) => Ok(None),
        Err(error) => Err(Failure::preflight(format!(
            "the tablespace {} cannot be read: {} leads to {}",
            space.name,
            link.display(),
            space.location.display()
        ))
        .hint("Let this machine see the folder at the path that the server has for it, and run as the server's user.")
        .caused_by(error)),
    }
}

/// Captures the cluster. The record has no name yet: the caller knows what this source is called.
///
/// # Errors
/// `Preflight` (rights, another cluster's directory), `Cancelled`, or what broke the backup. Damaged pages are no error: the
/// record is incomplete, and its problems name them.
pub fn capture(
    config: &ClusterConfig,
    sink: &dyn Sink,
    options: &Options<'_>,
    monitor: &dyn Monitor,
) -> Result<SourceRecord> {
    let started = options.clock.now();
    config.validate()?;
    if let (Method::Replication, server) = way(config, monitor)? {
        return remote::capture(config, &server, sink, options, monitor);
    }

    monitor.step("base backup", None);
    let label = format!("mainstay {started}");
    let mut backup = Backup::start(connect(&config.connect_spec()?)?, &label, monitor)?;
    // Asked again: a tablespace that was made until now is in none of the log that will be replayed.
    let server = backup.server()?;
    let directory = directory_of(config, &server)?;
    // An address with several servers behind it may have led elsewhere this time.
    backup.refuse_another_servers(&directory)?;
    let version = exclude::version_directory(server.version_num / 10_000, control::read(&directory)?.catalog);
    let problems = Problems::default();
    let tally = Tally::default();
    let suspects = Suspects::default();
    let judged = server.data_checksums && server.block_size as usize == PAGE;
    let read_whole = match options.previous {
        Some((_, record)) if !options.full => read_recently(record, started),
        _ => None,
    };
    let shared = Shared {
        sink,
        hasher: PageHasher::new(&options.page_key),
        full: read_whole.is_none(),
        stopped: false,
        checking: judged.then_some(Checking { since: backup.start }),
        threads: config.threads(),
        clock: options.clock,
        monitor,
        problems: &problems,
        tally: &tally,
        suspects: &suspects,
    };

    // The files, as they come; the control file after all others.
    let old = |name: &str| {
        let found = options.previous.and_then(|(vault, record)| Some((vault, record.stream(name)?)));
        found.map_or_else(OldListing::none, |(vault, stream)| OldListing::new(vault, &stream.content))
    };
    let mut streams = Vec::new();
    let mut keep = |name: String, content: Content| streams.push(Stream { name, content });
    keep(LISTING.into(), tree::capture(&shared, &directory, None, old(LISTING))?);
    for space in &server.tablespaces {
        let name = format!("{TABLESPACE}{}", space.oid);
        let root = tablespace(&directory, space)?.unwrap_or_else(|| {
            let message = "this tablespace was dropped during the backup, and is empty in it";
            problems.add(Severity::Info, &space.name, message);
            directory.join("pg_tblspc") // where nothing is of any version
        });
        keep(name.clone(), tree::capture(&shared, &root, Some(&version), old(&name))?);
    }
    keep(CONTROL.into(), put_bytes(sink, &control_file(&directory)?)?);

    // The end, and the log that leads to it.
    let stopped = backup.stop()?;
    suspects.judge(stopped.stop, &problems, &tally);
    let timeline = timeline_of_label(&stopped.backup_label)
        .ok_or_else(|| Failure::failed("the server's backup label names no timeline"))?;
    keep(BACKUP_LABEL.into(), put_bytes(sink, stopped.backup_label.as_bytes())?);
    if !stopped.tablespace_map.is_empty() {
        keep(TABLESPACE_MAP.into(), put_bytes(sink, stopped.tablespace_map.as_bytes())?);
    }
    let mut facts = facts_of(&server, &directory, timeline, backup.start, stopped.stop);
    facts.stopped_at = Some(stopped.at);
    for segment in facts.segments().collect::<Vec<_>>() {
        let content = put_segment(sink, &directory, segment, server.system)?;
        keep(format!("{WAL}{segment}"), content);
        facts.wal.push(segment.to_string());
    }
    // Where its timeline came from: recovery along any but the first asks for it, and no archive may have it.
    for path in history_files(&directory) {
        if let (Some(name), Ok(content)) =
            (path.file_name().and_then(|name| name.to_str()), put_file(sink, &path))
        {
            keep(format!("{WAL}{name}"), content);
        }
    }
    // While the session lives, its slot keeps that log.
    drop(backup);

    // A path of the server's is none of ours where the data directory already has another one.
    let same_paths = directory == facts.data_directory;
    for path in server.config_files.iter().filter(|path| !path.starts_with(&facts.data_directory)) {
        let shown = path.display().to_string();
        match same_paths.then(|| put_file(sink, path)) {
            Some(Ok(content)) => keep(format!("{CONFIG}{shown}"), content),
            Some(Err(failure)) => problems.add(Severity::Warning, shown, failure.message),
            None => {
                let message = "this configuration file is not in the backup: it lies outside of the data directory, which has \
                               another path here (`data_directory:`) than for the server";
                problems.add(Severity::Warning, shown, message);
            }
        }
    }
    monitor.done("base backup", &format!("{} to {}", facts.start, facts.stop));

    facts.captured = Some(Captured::Files);
    facts.read_whole = read_whole.or(Some(started));
    facts.counts = counts(&tally);
    Ok(record_of(streams, &facts, problems, started, options.clock.now()))
}

/// What a record says of the cluster, but for what was counted and the log in it.
pub(super) fn facts_of(
    server: &Server,
    directory: &Path,
    timeline: u32,
    start: Lsn,
    stop: Lsn,
) -> ClusterFacts {
    ClusterFacts {
        version: FACTS_VERSION,
        system: server.system,
        version_num: server.version_num,
        version_text: server.version_text.clone(),
        data_directory: server.data_directory.clone().unwrap_or_else(|| directory.to_owned()),
        segment_size: server.segment_size,
        block_size: server.block_size,
        data_checksums: server.data_checksums,
        from_standby: server.in_recovery,
        timeline,
        start,
        stop,
        tablespaces: server.tablespaces.clone(),
        settings: server.settings.clone(),
        databases: server.databases.clone(),
        superuser: server.superuser.clone(),
        counts: Counts::default(),
        captured: None,
        read_whole: None,
        stopped_at: None,
        wal: Vec::new(),
    }
}

/// The record of what was captured.
pub(super) fn record_of(
    streams: Vec<Stream>,
    facts: &ClusterFacts,
    problems: Problems,
    started: Time,
    finished: Time,
) -> SourceRecord {
    SourceRecord {
        name: String::new(),
        kind: KIND.into(),
        state: if problems.count(Severity::Error) == 0 { State::Complete } else { State::Incomplete },
        started,
        finished,
        consistent_at: Some(finished),
        streams,
        facts: facts.to_json(),
        problems: problems.into_list(),
        bytes: facts.counts.bytes,
        items: facts.counts.files,
        partial: false,
    }
}

pub(super) fn counts(tally: &Tally) -> Counts {
    let of = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    Counts {
        files: of(&tally.files),
        directories: of(&tally.directories),
        bytes: of(&tally.bytes),
        unchanged_files: of(&tally.unchanged_files),
        changed_bytes: of(&tally.changed_bytes),
        bad_blocks: of(&tally.bad_blocks),
    }
}

/// The control file as two readings in a row agree on it: the server writes it now and then, and a reading may see half of that.
fn control_file(directory: &Path) -> Result<Vec<u8>> {
    const ATTEMPTS: usize = 100;
    let path = directory.join(exclude::CONTROL);
    let read = || {
        fs::read(&path)
            .map_err(|error| Failure::failed(format!("{} cannot be read", path.display())).caused_by(error))
    };
    let mut last = read()?;
    for _ in 0..ATTEMPTS {
        let again = read()?;
        if again == last {
            return Ok(last);
        }
        last = again;
    }
    Err(Failure::failed(format!("{} changes all the time", path.display())).hint("Run the backup again."))
}

pub(super) fn put_bytes(sink: &dyn Sink, bytes: &[u8]) -> Result<Content> {
    if bytes.is_empty() {
        return Ok(Content::default());
    }
    let piece = Piece::plain(sink.put(Pool::Data, bytes)?, bytes.len() as u64);
    Ok(Content { level: 0, pieces: vec![piece] })
}

fn put_file(sink: &dyn Sink, path: &Path) -> Result<Content> {
    let unread = |error| Failure::failed(format!("{} cannot be read", path.display())).caused_by(error);
    put_bytes(sink, &fs::read(path).map_err(unread)?)
}

/// The `.history` files in `pg_wal`, in order.
fn history_files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory.join("pg_wal")).into_iter().flatten().flatten();
    let is_history = |path: &PathBuf| {
        let file = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
        matches!(file, Some(WalFile::History(_)))
    };
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_history).collect();
    found.sort();
    found
}

/// A segment as it lies in `pg_wal`. The last one may still be written to: what follows the backup's end in it does no harm.
///
/// Without a slot the server may recycle it at any moment, while it is read too: it gives the file another name, and writes
/// other log into it.
fn put_segment(sink: &dyn Sink, directory: &Path, segment: Segment, system: u64) -> Result<Content> {
    let path = directory.join("pg_wal").join(segment.to_string());
    let lost = |why: String| {
        Failure::failed(format!("the WAL that this backup needs is gone: {} {why}", path.display()))
            .hint("Let the server keep more of it (wal_keep_size), or give it a free replication slot, and run the backup again.")
    };
    let unread = |error: io::Error| lost("cannot be read".into()).caused_by(error);
    let mut file = fs::File::open(&path).map_err(unread)?;
    let opened = file.metadata().map_err(unread)?;
    let mut head = [0; 64];
    file.read_exact(&mut head).map_err(unread)?;
    check_header(segment, &head, opened.len(), system)
        .map_err(|failure| lost("is not what its name says".into()).caused_by(failure))?;
    file.rewind().map_err(unread)?;
    let content = sink.put_reader(Pool::Data, &mut file)?;
    let same = fs::metadata(&path).is_ok_and(|now| (now.dev(), now.ino()) == (opened.dev(), opened.ino()));
    if same { Ok(content) } else { Err(lost("was recycled while it was read".into())) }
}

#[cfg(test)]
#[path = "capture_tests.rs"]
mod tests;
