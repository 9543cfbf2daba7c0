//! The threads that read a cluster's files: each takes a slice of a file, stores it, and hands back what it is stored as.

use super::{
    exclude::RelationFile,
    pages::{Before, Slice, capture_slice},
    shared::Shared,
};
use crossbeam_channel::{Receiver, Sender};
use mainstay_domain::{
    Failure, Kind, Result,
    stream::{Content, PAGE, Piece, Pool, Sink},
};
use rustix::{fd::OwnedFd, io::Errno};
use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Blocks of a relation's segment file: one gigabyte.
pub(super) const SEGMENT_BLOCKS: u32 = 131_072;

/// A slice of a file to be read, or a file that is read at once.
pub struct Job {
    /// Which pending entry, and which of its slices.
    pub id: u64,
    pub slot: usize,
    pub file: Arc<File>,
    pub offset: u64,
    pub length: u64,
    pub before: Option<Before>,
}

/// A file that is being captured.
pub struct File {
    pub fd: OwnedFd,
    pub relation: Option<RelationFile>,
    pub sliced: bool,
    pub shown: String,
}

pub enum Read {
    Slice(Slice),
    Whole(Content, Slice),
    Unreadable(io::Error),
}

pub struct Done {
    pub id: u64,
    pub slot: usize,
    pub read: Result<Read>,
}

pub fn work(shared: &Shared<'_>, jobs: &Receiver<Job>, results: &Sender<Done>, stop: &AtomicBool) {
    for job in jobs {
        if stop.load(Ordering::Relaxed) {
            continue; // drained, so that the walk does not wait for room
        }
        let (id, slot) = (job.id, job.slot);
        let length = job.length;
        let read = match shared.monitor.cancelled() {
            true => Err(Failure::new(Kind::Cancelled, "the base backup was stopped")),
            // A thread that ended without a word would leave the walk waiting for what it was reading.
            false => catch_unwind(AssertUnwindSafe(|| read(shared, job)))
                .unwrap_or_else(|_| Err(Failure::failed("a reading thread panicked"))),
        };
        shared.monitor.advance(u64::from(slot == 0), length);
        if results.send(Done { id, slot, read }).is_err() {
            return;
        }
    }
}

/// Reads a job's bytes and stores them. The outer error ends the backup.
fn read(shared: &Shared<'_>, job: Job) -> Result<Read> {
    let file = &job.file;
    let mut trouble = None;
    let mut fill = |out: &mut [u8], at: u64| {
        fill_from(&file.fd, out, job.offset + at).map_err(|error| {
            trouble = Some(io::Error::from(error));
            Failure::failed("a file of the cluster could not be read")
        })
    };
    let part = Part { relation: file.relation, sliced: file.sliced, offset: job.offset, length: job.length };
    let captured = store(shared, &part, job.before.as_ref(), &mut fill);
    match (captured, trouble) {
        (_, Some(error)) => Ok(Read::Unreadable(error)),
        (captured, None) => captured.map_err(|failure| failure.during(&file.shown)),
    }
}

/// A file, or a slice of one.
pub struct Part {
    pub relation: Option<RelationFile>,
    pub sliced: bool,
    pub offset: u64,
    pub length: u64,
}

/// Stores a part of a file. `fill` gives the bytes at an offset of the part, and may be asked again for a page that looks torn.
pub fn store(
    shared: &Shared<'_>,
    part: &Part,
    before: Option<&Before>,
    fill: &mut dyn FnMut(&mut [u8], u64) -> Result<()>,
) -> Result<Read> {
    let Some(relation) = part.relation else { return plain(shared.sink, part.length, fill) };
    let first = relation.segment * SEGMENT_BLOCKS + (part.offset / PAGE as u64) as u32;
    let slice =
        capture_slice(shared.sink, &shared.hasher, part.length, first, before, shared.checking, fill)?;
    Ok(if part.sliced { Read::Slice(slice) } else { whole(slice) })
}

/// A relation file of one frame: nothing is kept of its pages.
fn whole(mut slice: Slice) -> Read {
    let content = Content { level: 0, pieces: std::mem::take(&mut slice.frames) };
    Read::Whole(content, slice)
}

/// A file that is no relation.
fn plain(sink: &dyn Sink, length: u64, fill: &mut dyn FnMut(&mut [u8], u64) -> Result<()>) -> Result<Read> {
    const SMALL: u64 = 64 << 10;
    let changed = Slice { changed_bytes: length, ..Slice::default() };
    if length <= SMALL {
        let mut bytes = vec![0; length as usize];
        fill(&mut bytes, 0)?;
        let piece = Piece::plain(sink.put(Pool::Data, &bytes)?, length);
        return Ok(Read::Whole(Content { level: 0, pieces: vec![piece] }, changed));
    }
    struct Source<'f> {
        fill: &'f mut dyn FnMut(&mut [u8], u64) -> Result<()>,
        at: u64,
        length: u64,
    }
    impl io::Read for Source<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let count = (out.len() as u64).min(self.length - self.at) as usize;
            (self.fill)(&mut out[..count], self.at).map_err(io::Error::other)?;
            self.at += count as u64;
            Ok(count)
        }
    }
    let content = sink.put_reader(Pool::Data, &mut Source { fill, at: 0, length })?;
    Ok(Read::Whole(content, changed))
}

/// Fills `out` from an offset of the file; with zeros where the file has become shorter.
fn fill_from(fd: &OwnedFd, out: &mut [u8], at: u64) -> rustix::io::Result<()> {
    let mut length = 0;
    while length < out.len() {
        match rustix::io::pread(fd, &mut out[length..], at + length as u64) {
            Ok(0) => {
                out[length..].fill(0);
                return Ok(());
            }
            Ok(count) => length += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
