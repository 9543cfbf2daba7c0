//! Puts relation files right where they lie: of a file whose pages have hashes, only pages that differ are read from the repository and
//! written.
//!
//! The file is changed in place, which nothing but the restore of a cluster may do: its directory has no control file meanwhile, so
//! nobody can start a server on what is half put right. A file with several names is never written to: the other name may be
//! somebody's copy.

use super::{
    Tally, count,
    metadata::apply_to_file,
    worker::{Done, Item, Trouble, Worker},
    write::write_all,
};
use crate::{
    files::{compare::same_bytes, tree::open_in},
    postgres::cluster::pages::{HASH, PageHasher},
};
use mainstay_domain::{
    Result,
    listing::{Entry, FileKind},
    stream::{Content, PAGE, Piece, Vault, patched_pages},
};
use rustix::{
    fd::{AsFd, BorrowedFd},
    fs::{Mode, OFlags, ftruncate},
    io::Errno,
};
use std::sync::atomic::Ordering;

impl Worker<'_> {
    /// Whether a file may be put right where it lies.
    pub fn can_patch(&self, item: &Item) -> bool {
        let Item { entry, existing } = item;
        self.options.page_key.is_some()
            && entry.kind == FileKind::Regular
            && entry.links.is_none()
            && entry.content.is_some()
            && existing.as_ref().is_some_and(|there| {
                there.kind == FileKind::Regular
                    && there.links == 1
                    && (entry.pages.is_some() || there.size == entry.size)
            })
    }

    /// Puts a file right where it lies. `false`: it must be written anew.
    pub fn patch(&self, directory: BorrowedFd<'_>, entry: &Entry) -> Done<bool> {
        let (Some(key), Some(content)) = (&self.options.page_key, &entry.content) else { return Ok(false) };
        let flags = if entry.pages.is_some() { OFlags::RDWR } else { OFlags::RDONLY };
        let Ok(fd) = open_in(directory, &entry.name, flags | OFlags::NONBLOCK, Mode::empty()) else {
            return Ok(false); // not ours to write to: it can still give way to another
        };
        let Some(pages) = &entry.pages else {
            if !same_bytes(self.vault, content, &fd, &mut Vec::new()).unwrap_or(false) {
                return Ok(false);
            }
            return self.right(&fd, entry, (entry.size, 0));
        };
        let Some(hashes) = hashes(self.vault, content, pages) else { return Ok(false) };
        let hasher = PageHasher::new(key);
        let Some(patched) = put_right(self.vault, &hasher, content, &hashes, fd.as_fd())? else {
            return Ok(false);
        };
        if patched.0 + patched.1 != entry.size {
            let message =
                format!("its content has {} bytes where {} were recorded", patched.0 + patched.1, entry.size);
            return Err(Trouble::Entry(message));
        }
        self.right(&fd, entry, patched)
    }

    /// The file is right: it gets its length and its metadata. `kept` and `written` are bytes.
    fn right(&self, fd: &impl AsFd, entry: &Entry, (kept, written): (u64, u64)) -> Done<bool> {
        let fd = fd.as_fd();
        let Tally { bytes, kept_bytes, .. } = self.tally;
        let longer = u64::try_from(rustix::fs::fstat(fd)?.st_size).unwrap_or(0) != entry.size;
        if longer {
            ftruncate(fd, entry.size)?;
        }
        apply_to_file(fd, entry, false, self.tally)?;
        if self.options.sync && (longer || written > 0) {
            rustix::fs::fsync(fd)?;
        }
        count(if longer || written > 0 { &self.tally.files } else { &self.tally.kept });
        bytes.fetch_add(written, Ordering::Relaxed);
        kept_bytes.fetch_add(kept, Ordering::Relaxed);
        Ok(true)
    }
}

/// The hashes of the pages of all frames; `None` if they cannot be had, or are not of this content.
fn hashes(vault: &dyn Vault, content: &Content, pages: &Content) -> Option<Vec<u8>> {
    let expected = vault
        .pieces(content)
        .try_fold(0u64, |sum, piece| Some(sum + piece.ok()?.bytes.div_ceil(PAGE as u64) * HASH as u64))?;
    let mut hashes = Vec::new();
    vault.copy(pages, &mut hashes).ok()?;
    (hashes.len() as u64 == expected).then_some(hashes)
}

/// Goes through the frames; returns the bytes that were right and those that were written, or `None` if the file cannot be read.
fn put_right(
    vault: &dyn Vault,
    hasher: &PageHasher,
    content: &Content,
    hashes: &[u8],
    fd: BorrowedFd<'_>,
) -> Done<Option<(u64, u64)>> {
    let (mut kept, mut written, mut at, mut known) = (0, 0, 0u64, hashes);
    let mut frame = Vec::new();
    for piece in vault.pieces(content) {
        let piece = piece?;
        let length =
            usize::try_from(piece.bytes).map_err(|_| Trouble::Entry("a frame is too long".to_owned()))?;
        let (own, rest) = known.split_at(length.div_ceil(PAGE) * HASH);
        known = rest;
        let Ok(there) = read(fd, &mut frame, length, at) else { return Ok(None) };
        let wrong = wrong_pages(vault, hasher, &piece, own, &frame[..there])?;
        let right =
            if wrong.is_empty() || piece.chunk.is_none() { vec![0; length] } else { vault.piece(&piece)? };
        let mut pages = wrong.iter().copied().peekable();
        let mut bytes = 0;
        while let Some(first) = pages.next() {
            let mut end = first + 1;
            while pages.next_if_eq(&end).is_some() {
                end += 1;
            }
            let run = first * PAGE..(end * PAGE).min(length);
            bytes += run.len() as u64;
            write_all(fd, &right[run.clone()], at + run.start as u64)?;
        }
        written += bytes;
        kept += piece.bytes - bytes;
        at += piece.bytes;
    }
    Ok(Some((kept, written)))
}

/// Reads up to `length` bytes; returns how many are there.
fn read(fd: BorrowedFd<'_>, frame: &mut Vec<u8>, length: usize, at: u64) -> rustix::io::Result<usize> {
    frame.resize(length, 0);
    let mut there = 0;
    while there < length {
        match rustix::io::pread(fd, &mut frame[there..length], at + there as u64) {
            Ok(0) => break,
            Ok(read) => there += read,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(there)
}

/// Pages of a frame that are not as recorded. Those that a patch lies over are held against the patch, the others against the hashes of
/// the chunk's pages.
fn wrong_pages(
    vault: &dyn Vault,
    hasher: &PageHasher,
    piece: &Piece,
    hashes: &[u8],
    there: &[u8],
) -> Result<Vec<usize>> {
    let length = piece.bytes as usize;
    let patch = piece.patch.as_ref().map(|patch| vault.get(patch)).transpose()?;
    let patched = match &patch {
        Some(patch) => patched_pages(patch).ok_or_else(|| {
            mainstay_domain::Failure::verification("a patch of pages does not have the form of one")
        })?,
        None => Vec::new(),
    };
    let is_right = |page: usize| {
        let range = page * PAGE..((page + 1) * PAGE).min(length);
        let Some(own) = there.get(range) else { return false };
        if piece.chunk.is_none() {
            return own.iter().all(|byte| *byte == 0);
        }
        match patched.iter().find(|(number, _)| usize::from(*number) == page) {
            Some((_, right)) => own == *right,
            None => hasher.hash(own)[..] == hashes[page * HASH..][..HASH],
        }
    };
    Ok((0..length.div_ceil(PAGE)).filter(|page| !is_right(*page)).collect())
}
