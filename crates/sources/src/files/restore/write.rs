//! File contents: written in order by one thread, or, if big, in slices by several.

use super::{
    jobs::Jobs,
    worker::{Done, Item, Job, Node, Opened, Trouble, Worker},
};
use mainstay_domain::{
    Result,
    listing::Entry,
    monitor::Event,
    stream::{Piece, Vault},
};
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{Advice, AtFlags, fadvise, ftruncate, unlinkat},
};
use std::{
    num::NonZeroU64,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

/// Files from this size on are written in slices by several threads.
pub(crate) const BIG: u64 = 32 << 20;
const SLICE: u64 = 16 << 20;

/// Writes pieces from `offset` on; returns where they end, and whether in a hole. Holes are left out, so that a file that ends in one
/// is too short yet. That is for who knows that nothing lies behind them: the slices of a file are written in any order.
pub(crate) fn write_pieces(
    vault: &dyn Vault,
    fd: impl AsFd,
    offset: u64,
    pieces: impl Iterator<Item = Result<Piece>>,
) -> Done<(u64, bool)> {
    let fd = fd.as_fd();
    let mut at = offset;
    let mut ends_in_hole = false;
    for piece in pieces {
        let piece = piece?;
        let end = at.checked_add(piece.bytes).ok_or_else(|| Trouble::Entry("it is too long".to_owned()))?;
        ends_in_hole = piece.chunk.is_none();
        if piece.chunk.is_some() {
            write_all(fd, &vault.piece(&piece)?, at)?;
        }
        at = end;
    }
    Ok((at, ends_in_hole))
}

pub(crate) fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8], mut at: u64) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(fd, bytes, at) {
            Ok(written) => {
                bytes = &bytes[written..];
                at += written as u64;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Has the disk begin to write what was written to a file, so that it works while the next is decoded and not only in the end,
/// when all of it is waited for. (Of `DONTNEED` this is what Linux does first; pages being written stay in the cache.) Only
/// advice: nothing depends on it.
fn start_writing_back(fd: impl AsFd, offset: u64, bytes: u64) {
    if let Some(bytes) = NonZeroU64::new(bytes) {
        let _ = fadvise(fd, offset, Some(bytes), Advice::DontNeed);
    }
}

/// A big file on its way.
pub(crate) struct Big {
    /// Held until the file is done.
    node: Arc<Node>,
    entry: Box<Entry>,
    /// Something is there that gives way.
    replaces: bool,
    fd: OwnedFd,
    temporary: Vec<u8>,
    /// Slices not done yet, and one for who makes them.
    open: AtomicUsize,
    end: AtomicU64,
    trouble: Mutex<Option<Trouble>>,
}

impl Worker<'_> {
    /// Opens a big file and hands out its slices. Called by the thread that reads the listing; `directory` is the node's.
    pub fn big(&self, directory: BorrowedFd<'_>, node: &Arc<Node>, item: Item, jobs: &Jobs) {
        let Item { entry, existing } = item;
        let (fd, temporary) = match self.temporary(directory) {
            Ok(opened) => opened,
            Err(error) => return self.written(&mut None, node, &entry, Err(error.into())),
        };
        node.hold();
        let content = entry.content.clone().unwrap_or_default();
        let file = Arc::new(Big {
            node: node.clone(),
            entry,
            replaces: existing.is_some(),
            fd,
            temporary,
            open: AtomicUsize::new(1),
            end: AtomicU64::new(0),
            trouble: Mutex::new(None),
        });
        let (mut at, mut start, mut slice) = (0u64, 0, Vec::new());
        let send = |start: u64, slice: &mut Vec<Piece>| {
            file.open.fetch_add(1, Ordering::Relaxed);
            let pieces = std::mem::take(slice);
            jobs.send(Job::Slice { file: file.clone(), offset: start, pieces });
        };
        for piece in self.vault.pieces(&content) {
            match piece {
                Ok(piece) => {
                    at = at.saturating_add(piece.bytes);
                    slice.push(piece);
                    if at - start >= SLICE {
                        send(start, &mut slice);
                        start = at;
                    }
                }
                Err(failure) => {
                    file.fail(failure.into());
                    break;
                }
            }
            if self.is_stopped() || file.failed() {
                break;
            }
        }
        if !slice.is_empty() {
            send(start, &mut slice);
        }
        file.end.store(at, Ordering::Relaxed);
        self.slice_done(&mut None, &file);
    }

    pub fn slice(&self, opened: &mut Opened, file: &Arc<Big>, offset: u64, pieces: Vec<Piece>) {
        if !self.is_stopped() && !file.failed() {
            let bytes = pieces.iter().map(|piece| piece.bytes).sum();
            match write_pieces(self.vault, &file.fd, offset, pieces.into_iter().map(Ok)) {
                Ok(_) => {
                    start_writing_back(&file.fd, offset, bytes);
                    self.monitor.event(Event::Advance { items: 0, bytes });
                }
                Err(trouble) => file.fail(trouble),
            }
        }
        self.slice_done(opened, file);
    }

    /// The last to finish gives the file its name, or removes it.
    fn slice_done(&self, opened: &mut Opened, file: &Arc<Big>) {
        if file.open.fetch_sub(1, Ordering::AcqRel) != 1 {
            return;
        }
        let trouble = file.trouble.lock().unwrap_or_else(PoisonError::into_inner).take();
        let done = self.open(opened, &file.node).map_err(Trouble::from).and_then(|directory| {
            let end = file.end.load(Ordering::Relaxed);
            let completed = match trouble {
                Some(trouble) => Err(trouble),
                None if self.is_stopped() => Err(Trouble::Entry("the restore was stopped".to_owned())),
                None => ftruncate(&file.fd, end).map_err(Trouble::from).and_then(|()| {
                    if file.replaces {
                        self.keep_safe(&file.fd)?;
                    }
                    self.complete(directory, file.node.plain, &file.fd, &file.entry, &file.temporary, end)
                }),
            };
            if completed.is_err() {
                let _ = unlinkat(directory, &file.temporary[..], AtFlags::empty());
            }
            completed
        });
        self.written(opened, &file.node, &file.entry, done.map(Some));
        self.monitor.event(Event::Advance { items: 1, bytes: 0 });
        self.release(file.node.clone());
    }
}

impl Big {
    fn fail(&self, trouble: Trouble) {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(trouble);
    }

    fn failed(&self) -> bool {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::testing::Memory;
    use mainstay_domain::stream::{Pool, Sink};
    use std::os::unix::fs::FileExt;

    #[test]
    fn a_slice_that_ends_in_a_hole_leaves_alone_what_others_have_written_behind_it() {
        let memory = Memory::default();
        let data = |bytes: &[u8]| Piece::plain(memory.put(Pool::Data, bytes).unwrap(), bytes.len() as u64);
        let hole = |bytes| Piece { chunk: None, bytes, ..Piece::default() };
        let slices = [(0, vec![data(b"first"), hole(SLICE - 5)]), (SLICE, vec![hole(100), data(b"second")])];
        for order in [[0, 1], [1, 0]] {
            let file = tempfile::tempfile().unwrap();
            for slice in order {
                let (offset, pieces) = slices[slice].clone();
                assert!(write_pieces(&memory, &file, offset, pieces.into_iter().map(Ok)).is_ok());
            }
            let mut second = [0; 6];
            file.read_exact_at(&mut second, SLICE + 100).unwrap();
            assert_eq!(&second, b"second");
        }
    }
}
