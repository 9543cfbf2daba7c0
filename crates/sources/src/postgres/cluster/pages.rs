//! Relation files as frames: what a slice of a file is stored as, given what was stored of it before.
//!
//! A *frame* is [`FRAME_PAGES`] pages, one chunk. Of each page a keyed hash is kept beside the file, of the frame's chunk as
//! it was stored. A later capture hashes the pages that it reads: a frame in which nothing differs is the old chunk; one in
//! which a few pages differ is the old chunk with a *patch*, a chunk of just those pages; beyond a quarter the frame is
//! stored anew (refolded). So patches never lie on patches, and a page's content decides, not its LSN: truncation and
//! re-extension, reused filenodes, file-level copies and bit rot all change content.
//!
//! The hash is that of GCM (its tag over the page, with one nonce for all): universal, 128 bits, five times as fast as BLAKE3 on a
//! page. Whoever can write pages cannot aim at a collision, because neither the key nor any hash is ever to be seen: hashes lie in
//! sealed packs.

use super::checksum::{Page, judge};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use mainstay_domain::{
    Lsn, Result,
    stream::{Content, PAGE, Piece, Pool, Sink, encode_patch},
};

/// Pages of a frame: 256 KiB.
pub const FRAME_PAGES: usize = 32;
pub const FRAME: usize = FRAME_PAGES * PAGE;
/// Frames that one thread takes at a time: 32 MiB, whose hashes are one chunk of 64 KiB.
pub const SLICE_FRAMES: usize = 128;
pub const SLICE: u64 = (SLICE_FRAMES * FRAME) as u64;
/// More changed pages than this and a frame is stored anew.
pub(super) const MOST_PATCHED: usize = FRAME_PAGES / 4;
pub const HASH: usize = 16;

pub type PageKey = [u8; 32];

/// Hashes pages under a key.
pub struct PageHasher(LessSafeKey);

impl PageHasher {
    pub fn new(key: &PageKey) -> PageHasher {
        PageHasher(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("the key has 32 bytes")))
    }

    pub fn hash(&self, page: &[u8]) -> [u8; HASH] {
        // The same nonce every time: what it would give away to who sees two tags, nobody sees.
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        let tag = self.0.seal_in_place_separate_tag(nonce, Aad::from(page), &mut []);
        *tag.expect("a page is short").as_ref().first_chunk().expect("a tag has 16 bytes")
    }
}

/// What is known of a slice from an earlier capture: its frames, and the hashes of the pages of their chunks.
#[derive(Debug, Clone, Default)]
pub struct Before {
    pub frames: Vec<Piece>,
    pub hashes: Vec<u8>,
}

/// A slice that was captured.
#[derive(Debug, Default)]
pub struct Slice {
    pub frames: Vec<Piece>,
    pub hashes: Vec<u8>,
    /// Blocks of the relation whose checksum is wrong.
    pub bad_blocks: Vec<u32>,
    /// Blocks that look wrong and say that they were written while the backup ran: torn, or garbage. The end of the backup decides.
    pub suspects: Vec<(u32, Lsn)>,
    /// Bytes of frames and patches that were handed to the repository.
    pub changed_bytes: u64,
}

/// What a file's pages are to be held against.
#[derive(Debug, Clone, Copy)]
pub struct Checking {
    /// Pages written at or after this may be torn, and the log repairs them. Garbage may say so too: it is damage if it names a
    /// position that the server had not come to when the backup ended.
    pub since: Lsn,
}

/// Captures the frames of one slice. `read` fills a buffer with the bytes at an offset of the slice and may be asked again for
/// a page that looks torn; `blocks` is the number of the slice's first block in its relation.
pub fn capture_slice(
    sink: &dyn Sink,
    hasher: &PageHasher,
    length: u64,
    blocks: u32,
    before: Option<&Before>,
    checking: Option<Checking>,
    read: &mut dyn FnMut(&mut [u8], u64) -> Result<()>,
) -> Result<Slice> {
    let mut slice = Slice::default();
    let mut buffer = vec![0; FRAME.min(length as usize)];
    let mut at = 0;
    while at < length {
        let frame = &mut buffer[..FRAME.min((length - at) as usize)];
        read(frame, at)?;
        if let Some(checking) = checking {
            let first = blocks + (at / PAGE as u64) as u32;
            check(frame, first, checking, at, read, &mut slice)?;
        }
        let known = before.and_then(|before| known_frame(before, at, frame.len()));
        let (piece, stored) = store(sink, hasher, frame, known, &mut slice.hashes)?;
        slice.frames.push(piece);
        slice.changed_bytes += stored;
        at += frame.len() as u64;
    }
    Ok(slice)
}

/// The frame that an earlier capture has at this offset, if it is as long, and its hashes.
pub(super) fn known_frame(before: &Before, at: u64, length: usize) -> Option<(&Piece, &[u8])> {
    let number = (at / FRAME as u64) as usize;
    let piece =
        before.frames.get(number).filter(|piece| piece.bytes == length as u64 && piece.chunk.is_some())?;
    let start = number * FRAME_PAGES * HASH;
    let hashes = before.hashes.get(start..start + length.div_ceil(PAGE) * HASH)?;
    Some((piece, hashes))
}

/// Stores a frame as little as possible; appends the hashes of its chunk's pages. Returns the bytes handed over.
fn store(
    sink: &dyn Sink,
    hasher: &PageHasher,
    frame: &[u8],
    known: Option<(&Piece, &[u8])>,
    hashes: &mut Vec<u8>,
) -> Result<(Piece, u64)> {
    let start = hashes.len();
    frame.chunks(PAGE).for_each(|page| hashes.extend(hasher.hash(page)));
    if let Some((old, old_hashes)) = known
        && frame.len().is_multiple_of(PAGE)
    {
        let new = &hashes[start..];
        let changed: Vec<usize> = (0..frame.len() / PAGE)
            .filter(|page| new[page * HASH..][..HASH] != old_hashes[page * HASH..][..HASH])
            .collect();
        let base = Piece { patch: None, ..old.clone() };
        if changed.len() <= MOST_PATCHED && sink.adopt(&Content { level: 0, pieces: vec![base.clone()] })? {
            hashes.truncate(start);
            hashes.extend_from_slice(old_hashes);
            if changed.is_empty() {
                return Ok((base, 0));
            }
            let pages: Vec<(u16, &[u8])> =
                changed.iter().map(|page| (*page as u16, &frame[page * PAGE..][..PAGE])).collect();
            let patch = sink.put(Pool::Data, &encode_patch(&pages))?;
            return Ok((Piece { patch: Some(patch), ..base }, (changed.len() * PAGE) as u64));
        }
    }
    let chunk = sink.put(Pool::Data, frame)?;
    Ok((Piece::plain(chunk, frame.len() as u64), frame.len() as u64))
}

/// How often a page that looks wrong is read before it counts.
const LOOKS: usize = 5;

/// Judges the pages of a frame. One that looks wrong is read again, alone, before it counts.
pub(super) fn check(
    frame: &mut [u8],
    first_block: u32,
    checking: Checking,
    at: u64,
    read: &mut dyn FnMut(&mut [u8], u64) -> Result<()>,
    slice: &mut Slice,
) -> Result<()> {
    let wrong = |page: &[u8], block: u32| {
        page.first_chunk::<PAGE>().and_then(|page| match judge(page, block) {
            Page::Bad(written) => Some(written),
            Page::New | Page::Good => None,
        })
    };
    for number in 0..frame.len() / PAGE {
        let block = first_block + number as u32;
        let page = &mut frame[number * PAGE..][..PAGE];
        let mut looks = 1;
        while wrong(page, block).is_some() && looks < LOOKS {
            read(page, at + (number * PAGE) as u64)?;
            looks += 1;
        }
        match wrong(page, block) {
            Some(written) if written < checking.since => slice.bad_blocks.push(block),
            Some(written) => slice.suspects.push((block, written)),
            None => {}
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "pages_tests.rs"]
mod tests;
