//! Compares a tree on disk with what is recorded, to the last byte: the proof that a restore is whole.

mod pass;

use super::{FilesError, LISTING, config::Rules, facts::Facts, names::show_at, tree::Tree};
use crossbeam_channel::bounded;
use mainstay_domain::{
    Failure, Monitor, Result,
    monitor::Event,
    point::SourceRecord,
    stream::{Content, Vault},
};
use pass::Pass;
use rustix::{fd::OwnedFd, io::Errno};
use std::{
    fmt,
    os::unix::ffi::OsStrExt,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

/// Differences that are named after a restore; all are counted.
const NAMED: usize = 100;

/// In what a file is not as recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Aspect {
    Missing,
    Extra,
    Kind,
    Size,
    Content,
    Target,
    Device,
    Mode,
    Owner,
    Modified,
    Xattrs,
    /// Names that were one file are several, or the other way round.
    HardLinks,
    /// It could not be read or looked at.
    Unreadable,
}

impl fmt::Display for Aspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Aspect::Missing => "is missing",
            Aspect::Extra => "is not recorded",
            Aspect::Kind => "is of another kind",
            Aspect::Size => "has another size",
            Aspect::Content => "has another content",
            Aspect::Target => "leads elsewhere",
            Aspect::Device => "is another device",
            Aspect::Mode => "has another mode",
            Aspect::Owner => "has another owner",
            Aspect::Modified => "has another modification time",
            Aspect::Xattrs => "has other attributes",
            Aspect::HardLinks => "is linked differently",
            Aspect::Unreadable => "cannot be compared",
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Difference {
    /// From the source's root, as people read it.
    pub path: String,
    pub aspect: Aspect,
    /// What was expected and what is there, where that helps.
    pub detail: String,
}

/// What a comparison found.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Comparison {
    pub entries: u64,
    /// Of file contents read and compared.
    pub bytes: u64,
    /// In path order; a bounded list.
    pub differences: Vec<Difference>,
    pub difference_count: u64,
    /// Recorded without content, and (without privileges) devices: there is nothing to compare.
    pub not_compared: u64,
    /// Noted when they were captured, and never restored.
    pub sockets: u64,
}

impl Comparison {
    pub fn is_equal(&self) -> bool {
        self.difference_count == 0
    }
}

/// A file whose bytes are to be compared.
pub(crate) struct Job {
    path: Vec<u8>,
    content: Content,
    fd: OwnedFd,
}

pub(crate) struct Comparer<'a> {
    vault: &'a dyn Vault,
    monitor: &'a dyn Monitor,
    found: Mutex<(Vec<Difference>, u64)>,
    bytes: AtomicU64,
    failure: Mutex<Option<Failure>>,
    stop: AtomicBool,
    /// At most so many differences are named.
    most: usize,
    /// Read files whose size and time are as recorded.
    check_content: bool,
    /// Owners and devices can only be right if the restore was privileged.
    privileged: bool,
}

/// Compares `directory` with the record: kinds, sizes, modes, owners (as root), times, link targets, attributes, hard
/// links and every byte. What differs is a result, not an error; errors are of the vault.
pub fn compare(
    vault: &dyn Vault,
    record: &SourceRecord,
    directory: &Path,
    monitor: &dyn Monitor,
) -> Result<Comparison> {
    let tree = Tree::open(directory).map_err(|error| unopened(directory, error.into()))?;
    let part = Part { prefix: Vec::new(), place: Place::Directory(tree), rules: None };
    Comparer::new(vault, monitor, true).run(record, vec![part])
}

/// Compares what lies now where the record was captured with the record. Unless `check_content`, a file of the recorded
/// size and time counts as unchanged. What the source's rules exclude is no difference. At most `most` differences are named.
pub fn compare_live(
    vault: &dyn Vault,
    record: &SourceRecord,
    check_content: bool,
    most: usize,
    monitor: &dyn Monitor,
) -> Result<Comparison> {
    let facts = Facts::of(record);
    let mut parts = Vec::new();
    for root in &facts.roots {
        let prefix = root.label.clone().unwrap_or_default().into_bytes();
        let unopened = |error| unopened(&root.path, error);
        let place = match (root.path.is_file(), root.path.parent(), root.path.file_name()) {
            (true, Some(parent), Some(name)) => {
                Place::File(Tree::open(parent).map_err(|e| unopened(e.into()))?, name.as_bytes().to_vec())
            }
            _ => Place::Directory(Tree::open(&root.path).map_err(|e| unopened(e.into()))?),
        };
        let rules = Rules::from_patterns(&facts.exclude, &facts.include)?;
        parts.push(Part { prefix, place, rules: Some(rules) });
    }
    let comparer = Comparer { most, ..Comparer::new(vault, monitor, check_content) };
    comparer.run(record, parts)
}

fn unopened(path: &Path, error: std::io::Error) -> Failure {
    FilesError::Io { action: "opening", path: path.display().to_string(), error }.into()
}

/// A part of the listing, and where it is on disk.
pub(crate) struct Part {
    /// The directory (or file) of the listing that is compared.
    pub prefix: Vec<u8>,
    pub place: Place,
    /// What is no difference if it is there.
    pub rules: Option<Rules>,
}

pub(crate) enum Place {
    Directory(Tree),
    /// A name in a directory.
    File(Tree, Vec<u8>),
}

impl<'a> Comparer<'a> {
    fn new(vault: &'a dyn Vault, monitor: &'a dyn Monitor, check_content: bool) -> Comparer<'a> {
        Comparer {
            vault,
            monitor,
            most: NAMED,
            check_content,
            found: Mutex::default(),
            bytes: AtomicU64::new(0),
            failure: Mutex::new(None),
            stop: AtomicBool::new(false),
            privileged: rustix::process::geteuid().is_root(),
        }
    }

    fn run(self, record: &SourceRecord, parts: Vec<Part>) -> Result<Comparison> {
        let name = record.name.clone();
        let content = &record.stream(LISTING).ok_or(FilesError::NoListing { name })?.content;
        let threads = thread::available_parallelism().map_or(2, usize::from).clamp(2, 16);
        let mut result = thread::scope(|scope| {
            let (send, jobs) = bounded::<Job>(64);
            for _ in 0..threads {
                let (jobs, comparer) = (jobs.clone(), &self);
                scope.spawn(move || {
                    let mut buffer = Vec::new();
                    for job in jobs {
                        comparer.content(&job, &mut buffer);
                    }
                });
            }
            drop(jobs);
            let mut result = Comparison::default();
            for part in &parts {
                Pass::new(&self, part, &send).run(content, &mut result)?;
            }
            Ok::<_, Failure>(result)
        })?;
        if let Some(failure) = self.failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(failure);
        }
        let (mut differences, count) = self.found.into_inner().unwrap_or_else(PoisonError::into_inner);
        differences.sort_by(|a, b| (&a.path, a.aspect).cmp(&(&b.path, b.aspect)));
        result.differences = differences;
        result.difference_count = count;
        result.bytes = self.bytes.into_inner();
        Ok(result)
    }

    fn differs(&self, path: &[u8], aspect: Aspect, detail: impl Into<String>) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.1 += 1;
        if found.0.len() < self.most {
            found.0.push(Difference { path: show_at(path), aspect, detail: detail.into() });
        }
    }

    fn content(&self, job: &Job, buffer: &mut Vec<u8>) {
        if self.stop.load(Ordering::Relaxed) {
            return;
        }
        match same_bytes(self.vault, &job.content, &job.fd, buffer) {
            Ok(true) => {}
            Ok(false) => self.differs(&job.path, Aspect::Content, ""),
            Err(failure) if super::browse::is_damage(&failure) => {
                self.differs(&job.path, Aspect::Unreadable, failure.to_string());
            }
            Err(failure) => {
                self.stop.store(true, Ordering::Relaxed);
                self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
            }
        }
        let bytes = job.content.bytes();
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.monitor.event(Event::Advance { items: 1, bytes });
    }
}

/// Whether an open file holds exactly the recorded bytes. Reads both side by side; `buffer` is kept between calls.
pub(crate) fn same_bytes(
    vault: &dyn Vault,
    content: &Content,
    fd: &OwnedFd,
    buffer: &mut Vec<u8>,
) -> Result<bool> {
    const HOLE: u64 = 1 << 20;
    let mut at = 0;
    for piece in vault.pieces(content) {
        let piece = piece?;
        let expected = piece.chunk.is_some().then(|| vault.piece(&piece)).transpose()?;
        let Some(end) = u64::checked_add(at, piece.bytes) else { return Ok(false) };
        while at < end {
            let (want, wanted) = match &expected {
                Some(bytes) => (bytes.len(), Some(&bytes[..])),
                None => ((end - at).min(HOLE) as usize, None),
            };
            buffer.resize(want, 0);
            let mut length = 0;
            while length < want {
                match rustix::io::pread(fd, &mut buffer[length..], at + length as u64) {
                    Ok(0) => return Ok(false),
                    Ok(read) => length += read,
                    Err(Errno::INTR) => {}
                    Err(error) => {
                        return Err(Failure::verification(format!("the file cannot be read: {error}")));
                    }
                }
            }
            let same = match wanted {
                Some(bytes) => bytes == &buffer[..],
                None => buffer.iter().all(|byte| *byte == 0),
            };
            if !same {
                return Ok(false);
            }
            at += want as u64;
        }
    }
    let mut one = [0];
    Ok(matches!(rustix::io::pread(fd, &mut one, at), Ok(0)))
}
