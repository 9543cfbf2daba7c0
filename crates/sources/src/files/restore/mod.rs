//! Restores a file tree, or part of it, beneath a directory.
//!
//! The calling thread reads the listing and makes directories in its order (`layout`); workers write files, several at
//! once, and slices of big ones (`worker`, `write`). A file is written under a temporary name and renamed when it is
//! whole, so none stands half-written under its own name. A directory gets its owner, mode and times when all that lies
//! below it is done. Nothing outside the destination is touched: see `tree`. What lies in the destination already and is
//! right is left; with `delete`, what the recovery point does not have is removed at the end, if all else went well.

mod decide;
mod jobs;
mod layout;
mod links;
mod metadata;
mod pages;
mod plan;
mod remove;
mod unfinished;
mod worker;
mod write;

pub use plan::{RestorePlan, plan_restore};
pub(crate) use remove::is_protected;

use super::browse::Step;
use super::{
    DELETED, FilesError, LISTING,
    facts::Facts,
    problems::Problems,
    selection::{Filter, Selected},
    tree::Tree,
};
use jobs::{Closing, Jobs};
use layout::Layout;
use mainstay_domain::{
    Failure, Monitor, Result, Severity,
    point::{Problem, SourceRecord, State},
    stream::{Content, Vault},
};
use rustix::fd::AsFd;
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    thread,
};
use worker::Worker;

/// What to restore, to where and how.
#[derive(Debug, Clone, Default)]
pub struct RestoreOptions {
    /// Made if it does not exist.
    pub destination: PathBuf,
    /// Paths from the source's root (or as on the captured machine) and globs, as they are typed; none: everything.
    pub paths: Vec<OsString>,
    /// Remove what the recovery point does not have: in whole directories only, and nothing that the source excludes.
    pub delete: bool,
    /// Paths from the root that `delete` leaves where they are, without a word: somebody else's business.
    pub keep: Vec<String>,
    /// Compare the content of files whose size and time are right already, instead of trusting them.
    pub check_content: bool,
    /// Wait until everything is on disk.
    pub sync: bool,
    /// From the stream of deleted files, the latest version of each.
    pub deleted: bool,
    /// Put relation files right where they lie: the key of their pages' hashes.
    pub page_key: Option<[u8; 32]>,
    /// Threads that write; 0: by the machine.
    pub threads: usize,
    /// A file without which the rest is of no use to anybody (the control file of a cluster, say), by its path from the root: it is
    /// removed before anything is written, and comes back when everything else is on disk.
    pub last: Option<String>,
}

/// What a restore did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreReport {
    pub state: State,
    pub directories: u64,
    /// Files written.
    pub files: u64,
    /// Bytes of their content, holes included.
    pub bytes: u64,
    /// Files that were right already.
    pub kept: u64,
    /// Bytes of files that were put right where they lie, and did not have to be written.
    pub kept_bytes: u64,
    pub symlinks: u64,
    pub hard_links: u64,
    pub specials: u64,
    pub removed: u64,
    /// Files that could not be read when they were captured, and were not restored.
    pub without_content: u64,
    /// What could not be restored, named (a bounded list; the last line counts the rest).
    pub problems: Vec<Problem>,
    pub failed: u64,
    /// What was left out or done differently, one sentence each.
    pub notices: Vec<String>,
}

/// Counters of a running restore.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub directories: AtomicU64,
    pub files: AtomicU64,
    pub bytes: AtomicU64,
    pub kept: AtomicU64,
    pub kept_bytes: AtomicU64,
    pub symlinks: AtomicU64,
    pub hard_links: AtomicU64,
    pub specials: AtomicU64,
    pub removed: AtomicU64,
    pub sockets: AtomicU64,
    /// Recorded without content, because it could not be read when it was captured.
    pub without_content: AtomicU64,
    /// Owner not set for want of privileges.
    pub owners: AtomicU64,
    /// Set-user-id and set-group-id bits left out, because the owner could not be set.
    pub set_id: AtomicU64,
    /// Attributes that the file system or our rights do not allow.
    pub xattrs: AtomicU64,
    pub devices: AtomicU64,
    pub protected: AtomicU64,
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Tally {
    fn notices(&self) -> Vec<String> {
        let privileged = rustix::process::geteuid().is_root();
        let why = if privileged { "the file system refuses it" } else { "run as root for it" };
        let mut notices = Vec::new();
        let mut say = |counter: &AtomicU64, text: &str| {
            let count = counter.load(Ordering::Relaxed);
            if count > 0 {
                notices.push(format!("{count} {text}"));
            }
        };
        say(
            &self.owners,
            &format!("entries belong to the user who restored them: the owner could not be set ({why})"),
        );
        say(
            &self.set_id,
            "files were restored without their set-user-id or set-group-id bit, because the owner is another",
        );
        say(&self.xattrs, "extended attributes could not be set");
        say(&self.devices, &format!("device nodes were not made ({why})"));
        say(&self.sockets, "sockets were not restored: they belong to running processes");
        say(&self.protected, "files that the source excludes were left in place");
        notices
    }
}

/// The stream that is restored from, its facts, and the filter compiled.
pub(crate) struct Sought<'a> {
    pub content: &'a Content,
    pub facts: Facts,
    pub filter: Filter,
    pub versions: bool,
}

impl<'a> Sought<'a> {
    pub fn new(
        record: &'a SourceRecord,
        options: &RestoreOptions,
    ) -> std::result::Result<Sought<'a>, FilesError> {
        let name = record.name.clone();
        let stream = match options.deleted {
            true => record.stream(DELETED).ok_or(FilesError::NoDeleted { name })?,
            false => record.stream(LISTING).ok_or(FilesError::NoListing { name })?,
        };
        let facts = Facts::of(record);
        let filter = Filter::new(&options.paths, &facts)?;
        if options.delete && options.deleted {
            return Err(FilesError::DeleteNeedsDirectories("deleted files".into()));
        }
        if let (true, Some(pattern)) = (options.delete, filter.first_glob()) {
            return Err(FilesError::DeleteNeedsDirectories(pattern));
        }
        Ok(Sought { content: &stream.content, facts, filter, versions: options.deleted })
    }

    pub fn steps(&self, vault: &'a dyn Vault) -> Selected<'_> {
        Selected::new(vault, self.content, self.versions, &self.filter)
    }
}

/// Restores what `options` say. See [`RestoreReport::state`]: `Incomplete` if something could not be restored (it is
/// named, and not left in place half-written); an error if the restore had to stop.
pub fn restore(
    vault: &dyn Vault,
    record: &SourceRecord,
    options: &RestoreOptions,
    monitor: &dyn Monitor,
) -> Result<RestoreReport> {
    if let Some(last) = &options.last {
        return restore_with_last(vault, record, options, last, monitor);
    }
    restore_all_but(vault, record, options, None, monitor)
}

/// See [`RestoreOptions::last`].
fn restore_with_last(
    vault: &dyn Vault,
    record: &SourceRecord,
    options: &RestoreOptions,
    last: &str,
    monitor: &dyn Monitor,
) -> Result<RestoreReport> {
    let path = options.destination.join(last);
    // Durable before anything else is changed: after a power cut it must not be there beside half of the rest.
    let removed = std::fs::remove_file(&path).and_then(|()| match path.parent().filter(|_| options.sync) {
        Some(parent) => std::fs::File::open(parent)?.sync_all(),
        None => Ok(()),
    });
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Failure::from(FilesError::Io {
                action: "removing",
                path: path.display().to_string(),
                error,
            }));
        }
        _ => {}
    }
    let rest = RestoreOptions { last: None, ..options.clone() };
    let mut report = restore_all_but(vault, record, &rest, Some(last), monitor)?;
    if report.state != State::Complete {
        report.notices.push(format!("{last} was left out, because not everything else could be restored"));
        return Ok(report);
    }
    // The folders on the way to it keep the times that they have got.
    let on_the_way =
        || path.ancestors().skip(1).take_while(|folder| folder.starts_with(&options.destination));
    let times: Vec<_> = on_the_way()
        .filter_map(|folder| Some((folder, std::fs::metadata(folder).ok()?.modified().ok()?)))
        .collect();
    let only = RestoreOptions { paths: vec![last.into()], delete: false, ..rest };
    let RestoreReport { state, files, bytes, problems, failed, .. } =
        restore_all_but(vault, record, &only, None, monitor)?;
    for (folder, modified) in times {
        std::fs::File::open(folder).and_then(|folder| folder.set_modified(modified)).map_err(|error| {
            FilesError::Io { action: "writing to", path: folder.display().to_string(), error }
        })?;
    }
    report.state = report.state.max(state);
    report.files += files;
    report.bytes += bytes;
    report.problems.extend(problems);
    report.failed += failed;
    Ok(report)
}

/// Leaves one file out.
fn restore_all_but(
    vault: &dyn Vault,
    record: &SourceRecord,
    options: &RestoreOptions,
    but: Option<&str>,
    monitor: &dyn Monitor,
) -> Result<RestoreReport> {
    let sought = Sought::new(record, options)?;
    let tree = open_destination(&options.destination)?;
    let unfinished = options.sync
        && unfinished::begin(tree.root().as_fd())
            .map_err(|error| io_failure("writing to", &options.destination, error))?;
    let options = &RestoreOptions { check_content: options.check_content || unfinished, ..options.clone() };
    let (tally, problems) = (Tally::default(), Problems::default());
    let worker = Worker::new(vault, &tree, options, &tally, &problems, monitor);
    let threads = match options.threads {
        0 => thread::available_parallelism().map_or(4, |n| usize::from(n) + 2).min(16),
        threads => threads,
    };
    let jobs = Jobs::new(threads);
    let laid_out = thread::scope(|scope| {
        let _closing = Closing(&jobs);
        for number in 0..threads {
            let (jobs, worker) = (&jobs, &worker);
            scope.spawn(move || {
                let _closing = Closing(jobs);
                worker.work(jobs, number);
            });
        }
        let mut directory = Vec::new();
        let is_wanted = |step: &Result<Step>| match step {
            Ok(Step::Directory(path)) => {
                directory.clone_from(path);
                true
            }
            Ok(Step::Entry(entry)) => but.is_none_or(|but| {
                let name = [&directory[..], b"/", &entry.name[..]].concat();
                name.strip_prefix(b"/").unwrap_or(&name) != but.as_bytes()
            }),
            Ok(Step::Lost(_)) | Err(_) => true,
        };
        Layout::new(&worker, &sought, &jobs).run(sought.steps(vault).filter(is_wanted))
    });
    worker.finish()?;
    let selected = laid_out?;
    if selected == 0 && !sought.filter.is_everything() {
        return Err(FilesError::NothingMatches(sought.filter.shown()).into());
    }
    let mut notices = tally.notices();
    if unfinished {
        notices.push(
            "an earlier restore into this folder had not ended: the content of what was there was compared"
                .to_owned(),
        );
    }
    if options.delete {
        if problems.count(Severity::Error) == 0 {
            remove::remove_extras(vault, &sought, &tree, &options.keep, &tally, &problems)?;
        } else {
            notices.push("nothing was deleted, because not everything could be restored".to_owned());
        }
    }
    if options.sync {
        rustix::fs::syncfs(tree.root())
            .and_then(|()| unfinished::end(tree.root().as_fd()))
            .map_err(|error| io_failure("syncing", &options.destination, error))?;
    }
    if record.state != State::Complete {
        notices.push("what the backup of this source lacked is named by `mainstay show POINT`".to_owned());
    }
    let failed = problems.count(Severity::Error);
    let lacking = tally.without_content.load(Ordering::Relaxed);
    let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    Ok(RestoreReport {
        state: if failed + lacking == 0 { State::Complete } else { State::Incomplete },
        directories: value(&tally.directories),
        files: value(&tally.files),
        bytes: value(&tally.bytes),
        kept: value(&tally.kept),
        kept_bytes: value(&tally.kept_bytes),
        symlinks: value(&tally.symlinks),
        hard_links: value(&tally.hard_links),
        specials: value(&tally.specials),
        removed: value(&tally.removed),
        without_content: value(&tally.without_content),
        problems: problems.into_list(),
        failed,
        notices,
    })
}

/// The destination may be reached through links: its path is the user's. It is made if it is not there.
fn open_destination(path: &Path) -> Result<Tree> {
    let unusable =
        |reason: String| Failure::from(FilesError::Destination { path: path.display().to_string(), reason });
    std::fs::create_dir_all(path).map_err(|error| unusable(error.to_string()))?;
    let tree = Tree::open(path).map_err(|error| unusable(error.to_string()))?;
    let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    rustix::fs::accessat(tree.root(), ".", access, rustix::fs::AtFlags::EACCESS)
        .map_err(|error| unusable(error.to_string()))?;
    Ok(tree)
}

fn io_failure(action: &'static str, path: &Path, error: rustix::io::Errno) -> Failure {
    FilesError::Io { action, path: path.display().to_string(), error: error.into() }.into()
}
