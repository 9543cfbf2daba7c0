//! The reading threads of a capture: take jobs of a few files each, give back their entries, encoded.

use super::{
    FilesError,
    hardlinks::HardLinks,
    problems::Problems,
    read::{Hook, Reader, Reading},
    roots::Roots,
    stat::unreadable,
    walk::{Block, Found, Place, quietly},
};
use crossbeam_channel::{Receiver, Sender};
use mainstay_domain::{
    Failure, Monitor, Result, Severity,
    listing::{self, Doubt, Entry},
    monitor::Event,
    stream::Sink,
};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Some entries of a block to be read, by their index in it.
pub(crate) struct Job {
    pub id: u64,
    pub block: Arc<Block>,
    pub entries: Vec<u32>,
}

/// What readings gave: each entry of the job, encoded in `bytes`, or `None` if it has vanished.
pub(crate) struct Done {
    pub id: u64,
    pub bytes: Vec<u8>,
    pub entries: Vec<(u32, Option<Range<usize>>)>,
}

pub(crate) struct Pool<'a> {
    pub sink: &'a dyn Sink,
    pub roots: &'a Roots,
    pub hook: Option<Hook<'a>>,
    pub monitor: &'a dyn Monitor,
    pub problems: &'a Problems,
    pub links: HardLinks,
    pub stop: AtomicBool,
}

impl Pool<'_> {
    /// What one thread does, until there are no more jobs.
    pub fn work(&self, jobs: &Receiver<Job>, results: &Sender<Result<Done>>) {
        let _guard = ReportPanic(results);
        let mut reader = Reader::new(self.sink, self.monitor, self.hook, &self.links);
        // The directory opened last: the next job is likely to be in it.
        let mut opened: Option<(Arc<[u8]>, OwnedFd)> = None;
        for job in jobs {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            if results.send(self.read(&mut reader, &mut opened, job)).is_err() {
                return;
            }
        }
    }

    fn read(
        &self,
        reader: &mut Reader<'_>,
        opened: &mut Option<(Arc<[u8]>, OwnedFd)>,
        job: Job,
    ) -> Result<Done> {
        let mut done = Done { id: job.id, bytes: Vec::new(), entries: Vec::with_capacity(job.entries.len()) };
        let (mut items, mut bytes) = (0, 0);
        for index in job.entries {
            if self.monitor.cancelled() {
                return Err(FilesError::Cancelled.into());
            }
            let found = &job.block.found[index as usize];
            let recorded = job.block.name(found);
            let reading = match self.directory(opened, &job.block, found) {
                Ok((directory, name)) => {
                    reader.read(directory, name.unwrap_or(recorded), recorded, &found.stat, job.block.now)?
                }
                Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => {
                    Reading::Vanished
                }
                Err(error) => Reading::Entry {
                    entry: Box::new(unreadable(&found.stat, recorded, job.block.now)),
                    unreported: 0,
                    trouble: Some(error.into()),
                },
            };
            let range = match reading {
                Reading::Vanished => None,
                Reading::Entry { entry, unreported, trouble } => {
                    (items, bytes) = (items + 1, bytes + unreported);
                    let start = done.bytes.len();
                    listing::encode_entry(&entry, &mut done.bytes);
                    if trouble.is_some() || entry.doubt.is_some() {
                        self.doubt(job.block.path.as_ref(), &entry, trouble);
                    }
                    Some(start..done.bytes.len())
                }
            };
            done.entries.push((index, range));
        }
        self.monitor.event(Event::Advance { items, bytes });
        Ok(done)
    }

    /// The directory in which an entry lies, and its name there if that is another than the recorded one.
    fn directory<'s>(
        &'s self,
        opened: &'s mut Option<(Arc<[u8]>, OwnedFd)>,
        block: &Block,
        found: &Found,
    ) -> rustix::io::Result<(BorrowedFd<'s>, Option<&'s [u8]>)> {
        match block.place {
            Place::Roots => {
                let root = &self.roots.list[found.name as usize];
                Ok((root.parent.as_fd(), Some(&root.name)))
            }
            Place::Directory { root, below } => {
                if opened.as_ref().is_none_or(|(path, _)| !Arc::ptr_eq(path, &block.path)) {
                    *opened = None;
                    let tree = self.roots.list[root].tree.as_ref().expect("a block's root is a directory");
                    let fd = quietly(|flags| tree.directory(&block.path[below..], flags))?;
                    *opened = Some((block.path.clone(), fd));
                }
                let (_, fd) = opened.as_ref().expect("it was just opened");
                Ok((fd.as_fd(), None))
            }
        }
    }

    fn doubt(&self, directory: &[u8], entry: &Entry, trouble: Option<std::io::Error>) {
        let path = self.roots.shown(&listing::join(directory, &entry.name));
        let (severity, message) = match (entry.doubt, trouble) {
            (_, Some(error)) => (Severity::Error, format!("it cannot be read: {error}")),
            (Some(Doubt::Unreadable), None) => (Severity::Error, "it cannot be read".to_owned()),
            (_, None) => {
                (Severity::Warning, "it changed each time it was read; recorded as it came last".to_owned())
            }
        };
        self.problems.add(severity, path, message);
    }
}

/// A thread that panics must not leave the others waiting.
struct ReportPanic<'a>(&'a Sender<Result<Done>>);

impl Drop for ReportPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.0.send(Err(Failure::from(FilesError::WorkerLost)));
        }
    }
}
