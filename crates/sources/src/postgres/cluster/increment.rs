//! Relation files of an incremental base backup (PostgreSQL 17 and later): what the server sends of them is laid over what is stored of
//! them since the backup before, so that the new record is a whole base backup all the same.
//!
//! The server names the blocks that its log changed since that backup began. Frames without such a block are taken over unread, as
//! are files without one. Source: PostgreSQL, `src/backend/backup/basebackup_incremental.c` for the format, and
//! `src/bin/pg_combinebackup/reconstruct.c` for what it means: a block that is not sent is that of the backup before if it lies before
//! the length that the server states, and zeros if it lies beyond, or if the file was shorter then.

use super::{
    entries,
    exclude::{Fork, RelationFile},
    pages::{self, FRAME, FRAME_PAGES, HASH, MOST_PATCHED, SLICE_FRAMES, Slice},
    read::{Read, SEGMENT_BLOCKS},
    shared::{Shared, add},
};
use crate::files::adopted;
use mainstay_domain::{
    Failure, Result,
    listing::{Entry, FileKind},
    stream::{Content, PAGE, Piece, Pool, Vault, encode_patch, patched_pages},
};
use std::collections::BTreeMap;

/// A file's name begins with this if only its changed blocks are sent.
const PREFIX: &[u8] = b"INCREMENTAL.";
const MAGIC: u32 = 0xd3ae_1f0d;

/// The name of the relation file of which `name` is the changed blocks.
pub fn real_name(name: &[u8]) -> Option<&[u8]> {
    name.strip_prefix(PREFIX).filter(|name| RelationFile::parse(name).is_some())
}

/// Whether an increment may be built on what is stored of a file. The free space maps are not in the log; the visibility maps were
/// not in the log of older minor releases wherever a page's bits were cleared, and an index-only scan believes them. Both are sent
/// whole: they are small.
pub fn is_ground(entry: &Entry) -> bool {
    let relation = RelationFile::parse(&entry.name);
    entry.kind == FileKind::Regular
        && entry.content.is_some()
        && entry.doubt.is_none()
        && entry.size.is_multiple_of(PAGE as u64)
        && relation.is_some_and(|file| !file.temporary && matches!(file.fork, Fork::Main | Fork::Init))
}

/// What an incremental file begins with.
#[derive(Debug, PartialEq, Eq)]
pub struct Changes {
    /// The blocks that follow, ascending.
    blocks: Vec<u32>,
    /// Blocks that the file has at least: up to here, what is not sent is as it was.
    least: u32,
}

impl Changes {
    /// Reads it from a member of `size` bytes; the first block comes next.
    pub fn read(size: u64, read: &mut dyn FnMut(&mut [u8]) -> Result<()>) -> Result<Changes> {
        let malformed = || {
            Failure::failed("an incremental file of the server makes no sense").hint("Run the backup again.")
        };
        let mut head = [0; 12];
        if size < head.len() as u64 {
            return Err(malformed());
        }
        read(&mut head)?;
        let words = |bytes: &[u8]| -> Vec<u32> {
            bytes
                .chunks_exact(4)
                .map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]]))
                .collect()
        };
        let [magic, count, least] = words(&head)[..] else { return Err(malformed()) };
        if magic != MAGIC || count > SEGMENT_BLOCKS {
            return Err(malformed());
        }
        let mut header = head.len() + 4 * count as usize;
        if count > 0 {
            header = header.next_multiple_of(PAGE);
        }
        if size != (header + count as usize * PAGE) as u64 {
            return Err(malformed());
        }
        let mut rest = vec![0; header - head.len()];
        read(&mut rest)?;
        let blocks = words(&rest[..4 * count as usize]);
        let ascending = blocks.windows(2).all(|pair| pair[0] < pair[1]);
        if !ascending || blocks.last().is_some_and(|last| *last >= SEGMENT_BLOCKS) {
            return Err(malformed());
        }
        // Some servers state a length that is not this segment's, but the relation's up to its end.
        Ok(Changes { blocks, least: least.min(SEGMENT_BLOCKS) })
    }

    /// Blocks of the file that it makes.
    fn length(&self) -> u32 {
        self.blocks.last().map_or(0, |last| last + 1).max(self.least)
    }
}

/// Writes into `entry` what the file `old` is with the changes laid over it; `read` gives the blocks that were sent, in order.
///
/// # Errors
/// `Verification`: what is stored of the file cannot be read.
pub fn lay_over(
    shared: &Shared<'_>,
    vault: &dyn Vault,
    old: &Entry,
    changes: &Changes,
    read: &mut dyn FnMut(&mut [u8]) -> Result<()>,
    entry: &mut Entry,
    shown: &str,
) -> Result<()> {
    let length = changes.length();
    let old_length = u32::try_from(old.size / PAGE as u64).unwrap_or(SEGMENT_BLOCKS);
    entry.size = u64::from(length) * PAGE as u64;
    add(&shared.tally.bytes, entry.size);
    let Some(content) = &old.content else {
        return Err(Failure::verification("a file of the backup before has no content"));
    };
    let same = changes.blocks.is_empty() && length == old_length;
    if same && adopted(shared.sink, content)? && is_adopted(shared, old.pages.as_ref())? {
        (entry.content, entry.pages) = (old.content.clone(), old.pages.clone());
        add(&shared.tally.unchanged_files, 1);
        return Ok(());
    }
    if length == 0 {
        entry.content = Some(Content::default());
        return Ok(());
    }
    let sliced = entry.size > FRAME as u64;
    let slices = (length as usize).div_ceil(SLICE_FRAMES * FRAME_PAGES);
    let ground = Ground::new(vault, old, content)?;
    let mut before = match sliced && ground.in_frames() {
        true => entries::before(vault, old, slices),
        false => None,
    };
    let relation = RelationFile::parse(&entry.name).map_or(0, |file| file.segment);
    let mut laying = Laying {
        shared,
        ground,
        changes,
        next: 0,
        kept: changes.least.min(old_length),
        first_block: relation * SEGMENT_BLOCKS,
        read,
    };
    let mut made = Vec::with_capacity(slices);
    for slot in 0..slices {
        let before = before.as_mut().map(|slices| std::mem::take(&mut slices[slot]));
        let mut slice = Slice::default();
        for frame in 0..SLICE_FRAMES {
            let at = ((slot * SLICE_FRAMES + frame) * FRAME_PAGES) as u32;
            if at < length {
                let count = (length - at).min(FRAME_PAGES as u32);
                let known = before.as_ref().and_then(|before| {
                    pages::known_frame(before, (frame * FRAME) as u64, count as usize * PAGE)
                });
                let piece = laying.frame(at, count, known, &mut slice)?;
                slice.frames.push(piece);
            }
        }
        made.push(match sliced {
            true => Read::Slice(slice),
            false => {
                let pieces = std::mem::take(&mut slice.frames);
                Read::Whole(Content { level: 0, pieces }, slice)
            }
        });
    }
    entries::finish(shared, entry, made.into_iter(), shown)
}

fn is_adopted(shared: &Shared<'_>, content: Option<&Content>) -> Result<bool> {
    content.map_or(Ok(true), |content| adopted(shared.sink, content))
}

/// The bytes of a file as they are stored.
struct Ground<'v> {
    vault: &'v dyn Vault,
    pieces: Vec<Piece>,
    /// Where each piece begins.
    starts: Vec<u64>,
}

impl<'v> Ground<'v> {
    fn new(vault: &'v dyn Vault, old: &Entry, content: &Content) -> Result<Ground<'v>> {
        let pieces: Vec<Piece> = vault.pieces(content).collect::<Result<_>>()?;
        let mut end = 0_u64;
        let mut starts = Vec::with_capacity(pieces.len());
        for piece in &pieces {
            starts.push(end);
            end = end.saturating_add(piece.bytes);
        }
        match end == old.size {
            true => Ok(Ground { vault, pieces, starts }),
            false => {
                Err(Failure::verification("a file of the backup before is not as long as it was recorded"))
            }
        }
    }

    fn in_frames(&self) -> bool {
        self.starts.iter().enumerate().all(|(number, start)| *start == (number * FRAME) as u64)
    }

    /// Fills `out` with the bytes from an offset on, all of which are there.
    fn fill(&self, out: &mut [u8], at: u64) -> Result<()> {
        let end = at + out.len() as u64;
        let first = self.starts.partition_point(|start| *start <= at).saturating_sub(1);
        for (piece, start) in self.pieces[first..].iter().zip(&self.starts[first..]) {
            if *start >= end {
                break;
            }
            let from = at.max(*start);
            let to = end.min(start + piece.bytes);
            if from >= to {
                continue;
            }
            let place = &mut out[(from - at) as usize..(to - at) as usize];
            match piece.chunk {
                Some(_) => {
                    let bytes = self.vault.piece(piece)?;
                    place.copy_from_slice(&bytes[(from - start) as usize..(to - start) as usize]);
                }
                None => place.fill(0),
            }
        }
        Ok(())
    }
}

/// One file on its way.
struct Laying<'a, 'v> {
    shared: &'a Shared<'a>,
    ground: Ground<'v>,
    changes: &'a Changes,
    /// Which of the sent blocks comes next.
    next: usize,
    /// Blocks before this are as they were, unless they are sent.
    kept: u32,
    /// The file's first block in its relation.
    first_block: u32,
    read: &'a mut dyn FnMut(&mut [u8]) -> Result<()>,
}

impl Laying<'_, '_> {
    /// Stores the frame of `count` blocks from `at` on.
    fn frame(
        &mut self,
        at: u32,
        count: u32,
        known: Option<(&Piece, &[u8])>,
        slice: &mut Slice,
    ) -> Result<Piece> {
        let sent = self.sent(at, count, slice)?;
        if let Some((old, old_hashes)) = known
            && at + count <= self.kept
            && let Some(piece) = self.patched(old, old_hashes, &sent, slice)?
        {
            slice.hashes.extend_from_slice(old_hashes);
            return Ok(piece);
        }
        // Anew.
        let mut frame = vec![0; count as usize * PAGE];
        let kept = self.kept.saturating_sub(at).min(count) as usize;
        if sent.len() < count as usize {
            self.ground.fill(&mut frame[..kept * PAGE], u64::from(at) * PAGE as u64)?;
        }
        for (number, page) in &sent {
            frame[usize::from(*number) * PAGE..][..PAGE].copy_from_slice(page);
        }
        let chunk = self.shared.sink.put(Pool::Data, &frame)?;
        slice.hashes.extend(frame.chunks(PAGE).flat_map(|page| self.shared.hasher.hash(page)));
        slice.changed_bytes += frame.len() as u64;
        Ok(Piece::plain(chunk, frame.len() as u64))
    }

    /// The blocks that were sent of a frame, judged, by their number in it.
    fn sent(&mut self, at: u32, count: u32, slice: &mut Slice) -> Result<Vec<(u16, Vec<u8>)>> {
        let mut sent = Vec::new();
        while let Some(block) = self.changes.blocks.get(self.next).filter(|block| **block < at + count) {
            let mut page = vec![0; PAGE];
            (self.read)(&mut page)?;
            if let Some(checking) = self.shared.checking {
                // What the server sent cannot be asked for again; it has looked twice at a page that seemed torn.
                let mut again = |_: &mut [u8], _: u64| Ok(());
                pages::check(&mut page, self.first_block + block, checking, 0, &mut again, slice)?;
            }
            sent.push(((block - at) as u16, page));
            self.next += 1;
        }
        Ok(sent)
    }

    /// The old frame with what was sent laid over it as a patch; `None` if it is to be stored anew.
    fn patched(
        &self,
        old: &Piece,
        old_hashes: &[u8],
        sent: &[(u16, Vec<u8>)],
        slice: &mut Slice,
    ) -> Result<Option<Piece>> {
        let sink = self.shared.sink;
        let one = |piece: &Piece| adopted(sink, &Content { level: 0, pieces: vec![piece.clone()] });
        if sent.is_empty() {
            return Ok(if one(old)? { Some(old.clone()) } else { None });
        }
        // A patch never lies on a patch: the pages of the old one are in the new one too.
        let patch = old.patch.as_ref().map(|patch| self.ground.vault.get(patch)).transpose()?;
        let mut over: BTreeMap<u16, &[u8]> = match &patch {
            Some(patch) => patched_pages(patch)
                .ok_or_else(|| Failure::verification("a patch of pages is not as it was recorded"))?
                .into_iter()
                .collect(),
            None => BTreeMap::new(),
        };
        for (number, page) in sent {
            match self.shared.hasher.hash(page)[..] == old_hashes[usize::from(*number) * HASH..][..HASH] {
                true => over.remove(number),
                false => over.insert(*number, page),
            };
        }
        let base = Piece { patch: None, ..old.clone() };
        if over.len() > MOST_PATCHED || !one(&base)? {
            return Ok(None);
        }
        if over.is_empty() {
            return Ok(Some(base));
        }
        slice.changed_bytes += (over.len() * PAGE) as u64;
        let laid: Vec<(u16, &[u8])> = over.into_iter().collect();
        Ok(Some(Piece { patch: Some(sink.put(Pool::Data, &encode_patch(&laid))?), ..base }))
    }
}

#[cfg(test)]
#[path = "increment_tests.rs"]
mod tests;
