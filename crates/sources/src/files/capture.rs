//! Captures a file tree: the new listing is merged with the one before, and only what changed is read.
//!
//! Three kinds of threads: walkers look at the tree ahead (`walk`), readers read what changed (`read`), and the calling
//! thread merges, in listing order. A directory block waits in a window until its readings are back; then it is written.
//! Everything between the threads is bounded by the walk's and the window's number of entries, whatever the tree.

use super::{
    FilesError,
    config::{FilesConfig, Rules},
    deleted::Deleted,
    facts::Facts,
    hardlinks::HardLinks,
    merge::{Merge, WINDOW},
    pool::Pool,
    previous::{self, Previous},
    problems::Problems,
    read::Hook,
    roots::Roots,
    walk::{AHEAD, Settings, Walk},
};
use crossbeam_channel::{bounded, unbounded};
use mainstay_domain::{
    Clock, Monitor, Result, Severity,
    point::{SourceRecord, State, Stream},
    stream::{Content, Sink, Vault},
};
use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

/// Name of the stream that holds the listing.
pub const LISTING: &str = "listing";
/// Name of the stream of deleted files.
pub const DELETED: &str = "deleted";

/// How to capture.
pub struct CaptureOptions<'a> {
    /// Read every file again, whatever its metadata says.
    pub full: bool,
    pub clock: &'a dyn Clock,
    /// Threads of each kind; 0: as many as the machine has processors.
    pub threads: usize,
    /// Called at moments of each file's reading; for tests.
    pub hook: Option<Hook<'a>>,
}

impl<'a> CaptureOptions<'a> {
    pub fn new(clock: &'a dyn Clock) -> CaptureOptions<'a> {
        CaptureOptions { full: false, clock, threads: 0, hook: None }
    }

    fn threads(&self) -> usize {
        match self.threads {
            0 => thread::available_parallelism().map_or(2, usize::from).clamp(2, 16),
            threads => threads,
        }
    }
}

/// Captures what `config` names, and returns the record under `name`.
///
/// `previous`: the newest record of this source that has a listing, and the vault that holds it. An error means that
/// nothing was captured (the sink failed, the user stopped it); troubles with single files are problems of the record.
pub fn capture(
    name: &str,
    config: &FilesConfig,
    sink: &dyn Sink,
    previous: Option<(&dyn Vault, &SourceRecord)>,
    options: &CaptureOptions<'_>,
    monitor: &dyn Monitor,
) -> Result<SourceRecord> {
    config.validate()?;
    let rules = Rules::new(config)?;
    let problems = Problems::default();
    let started = options.clock.now();
    let roots = Roots::open(config, &problems);
    let mut record = SourceRecord {
        name: name.to_owned(),
        kind: super::KIND.to_owned(),
        state: State::Failed,
        started,
        finished: started,
        consistent_at: None,
        streams: Vec::new(),
        facts: String::new(),
        problems: Vec::new(),
        bytes: 0,
        items: 0,
        partial: false,
    };
    let mut facts = Facts::new(config, &roots);
    if !roots.list.is_empty() {
        let stream = |name| previous.and_then(|(vault, record)| Some((vault, &record.stream(name)?.content)));
        let walk = Walk::new(Settings {
            roots: &roots,
            rules: &rules,
            one_file_system: config.one_file_system,
            ahead: AHEAD,
            cachedir_tag: config.cachedir_tag,
            clock: options.clock,
            problems: &problems,
        });
        let stop = AtomicBool::new(false);
        let hook = options.hook;
        let links = HardLinks::default();
        let pool = Pool { sink, roots: &roots, hook, monitor, problems: &problems, links, stop };
        let captured = thread::scope(|scope| {
            let threads = options.threads();
            for _ in 0..threads {
                scope.spawn(|| walk.work());
            }
            let (jobs, to_do) = bounded(WINDOW * 2);
            // As many as the jobs, and those are bounded by the window.
            let (send, results) = unbounded();
            for _ in 0..threads {
                let (pool, to_do, send) = (&pool, to_do.clone(), send.clone());
                scope.spawn(move || pool.work(&to_do, &send));
            }
            drop((to_do, send));
            let old = cursor(scope, stream(LISTING), &problems);
            let deleted = config.keep_deleted.map(|span| {
                let since = started.plus(-span.nanoseconds);
                Deleted::new(sink, &problems, cursor(scope, stream(DELETED), &problems), started, since)
            });
            let merge = Merge::new(&pool, options.full, old, deleted, jobs, results);
            let captured = merge.run(&walk);
            pool.stop.store(true, Ordering::Relaxed);
            walk.stop();
            captured
        })?;
        if walk.is_lost() {
            return Err(FilesError::WorkerLost.into());
        }
        facts.counts = captured.counts;
        facts.most_ahead = walk.most_ahead() as u64;
        record.streams.push(Stream { name: LISTING.into(), content: captured.listing });
        if let Some(content) = captured.deleted {
            record.streams.push(Stream { name: DELETED.into(), content });
        }
        record.bytes = facts.counts.bytes;
        record.items = facts.counts.items();
        record.state = match problems.count(Severity::Error) {
            _ if !roots.missing.is_empty() => State::Failed,
            0 => State::Complete,
            _ => State::Incomplete,
        };
    }
    record.facts = facts.to_json();
    record.problems = problems.into_list();
    record.finished = options.clock.now();
    Ok(record)
}

/// A cursor over a stream of the record before, whose chunks a thread of its own fetches.
fn cursor<'s, 'e>(
    scope: &'s thread::Scope<'s, 'e>,
    stream: Option<(&'e dyn Vault, &'e Content)>,
    problems: &'e Problems,
) -> Previous<'e> {
    let chunks = stream.map(|(vault, content)| {
        let (send, chunks) = bounded(previous::FETCHED);
        scope.spawn(move || previous::fetch(vault, content, &send, problems));
        chunks
    });
    Previous::new(chunks, problems)
}
