//! Streams: how a source hands its bytes to a repository and gets them back.
//!
//! A stream is a sequence of *pieces*; each piece is one chunk. A long sequence is itself cut into chunks of list entries
//! ("level 1"), and so on until a handful is left, so reaching any offset, row or key costs a few reads. The layout is in
//! `doc/format.md`, *Streams*. Sources know these traits and nothing of repositories; the repository implements them.

use crate::{ChunkId, Failure, Result};
use std::io::Read;

/// One entry of a stream's list: a chunk (of bytes, rows, entries, or of a lower list) and what it spans.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Piece {
    /// The chunk, or `None` for a hole: `bytes` zero bytes that are stored nowhere.
    pub chunk: Option<ChunkId>,
    /// Bytes of the stream that this spans.
    pub bytes: u64,
    /// Rows or listing entries that this spans; 0 for plain bytes.
    pub rows: u64,
    /// Sum of the row digests that this spans, modulo 2^128; 0 for plain bytes.
    pub digest: u128,
    /// The key of the first row or entry, for ordered streams; empty otherwise.
    pub key: Vec<u8>,
    /// Of a frame of a relation file: a chunk of pages that are laid over `chunk` (see [`lay_over`]).
    pub patch: Option<ChunkId>,
}

impl Piece {
    pub fn plain(chunk: ChunkId, bytes: u64) -> Piece {
        Piece { chunk: Some(chunk), bytes, ..Piece::default() }
    }
    pub fn hole(bytes: u64) -> Piece {
        Piece { bytes, ..Piece::default() }
    }

    /// The chunks that the piece needs.
    pub fn chunks(&self) -> impl Iterator<Item = &ChunkId> {
        self.chunk.iter().chain(&self.patch)
    }
}

/// Bytes of a page of a relation file, as PostgreSQL is built nearly everywhere. Files of another page size have no patches.
pub const PAGE: usize = 8 << 10;

/// A patch chunk: pages by their number in the frame, ascending.
pub fn encode_patch(pages: &[(u16, &[u8])]) -> Vec<u8> {
    let mut out = Vec::with_capacity(2 + pages.len() * (2 + PAGE));
    out.extend((pages.len() as u16).to_be_bytes());
    pages.iter().for_each(|(number, _)| out.extend(number.to_be_bytes()));
    pages.iter().for_each(|(_, page)| out.extend_from_slice(page));
    out
}

/// Lays the pages of a patch over a frame. `None`: the patch does not fit.
pub fn lay_over(frame: &mut [u8], patch: &[u8]) -> Option<()> {
    for (number, page) in patched_pages(patch)? {
        let at = usize::from(number) * PAGE;
        frame.get_mut(at..at + PAGE)?.copy_from_slice(page);
    }
    Some(())
}

/// The pages of a patch, with their numbers in the frame. `None`: it is no patch.
pub fn patched_pages(patch: &[u8]) -> Option<Vec<(u16, &[u8])>> {
    let count = usize::from(u16::from_be_bytes(*patch.first_chunk::<2>()?));
    let numbers = patch.get(2..2 + 2 * count)?;
    let pages = patch.get(2 + 2 * count..)?;
    let number = |bytes: &[u8]| u16::from_be_bytes([bytes[0], bytes[1]]);
    (pages.len() == count * PAGE)
        .then(|| numbers.chunks_exact(2).map(number).zip(pages.chunks_exact(PAGE)).collect())
}

impl<C> minicbor::Encode<C> for Piece {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        let fields = match self {
            Piece { patch: Some(_), .. } => 6,
            Piece { rows: 0, digest: 0, key, .. } if key.is_empty() => 2,
            Piece { key, .. } if key.is_empty() => 4,
            _ => 5,
        };
        e.array(fields)?.encode_with(self.chunk, ctx)?.u64(self.bytes)?;
        if fields > 2 {
            e.u64(self.rows)?.bytes(&self.digest.to_be_bytes())?;
        }
        if fields > 4 {
            e.bytes(&self.key)?;
        }
        if let Some(patch) = &self.patch {
            e.encode_with(patch, ctx)?;
        }
        Ok(())
    }
}

impl<'b, C> minicbor::Decode<'b, C> for Piece {
    fn decode(d: &mut minicbor::Decoder<'b>, ctx: &mut C) -> Result<Self, minicbor::decode::Error> {
        let malformed = |what| Err(minicbor::decode::Error::message(what));
        let fields = d.array()?;
        let mut piece = Piece { chunk: d.decode_with(ctx)?, bytes: d.u64()?, ..Piece::default() };
        match fields {
            Some(2) => {}
            Some(n @ 4..=6) => {
                piece.rows = d.u64()?;
                match d.bytes()?.try_into() {
                    Ok(digest) => piece.digest = u128::from_be_bytes(digest),
                    Err(_) => return malformed("a piece's digest is 16 bytes"),
                }
                if n >= 5 {
                    piece.key = d.bytes()?.to_vec();
                }
                if n == 6 {
                    piece.patch = Some(d.decode_with(ctx)?);
                }
            }
            _ => return malformed("a piece has 2, 4, 5 or 6 fields"),
        }
        Ok(piece)
    }
}

/// Where a sequence of bytes lies: its pieces, or the one list chunk from which they can be reached.
///
/// At level 0 the pieces are the data, in order. At level n ≥ 1 they are list chunks of level n − 1.
#[derive(Debug, Clone, PartialEq, Eq, Default, minicbor::Encode, minicbor::Decode)]
pub struct Content {
    #[n(0)]
    pub level: u8,
    #[n(1)]
    pub pieces: Vec<Piece>,
}

impl Content {
    /// Saturates: a repository may say anything.
    pub fn bytes(&self) -> u64 {
        self.pieces.iter().map(|p| p.bytes).fold(0, u64::saturating_add)
    }
    pub fn rows(&self) -> u64 {
        self.pieces.iter().map(|p| p.rows).fold(0, u64::saturating_add)
    }
    pub fn digest(&self) -> u128 {
        self.pieces.iter().fold(0, |sum, p| sum.wrapping_add(p.digest))
    }
}

/// Which packs a chunk goes to. Data and trees never share one: trees stay listable when data moves to cold storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pool {
    /// What users own: file contents, table rows, dumps.
    Data,
    /// What describes it: listings, list chunks, catalogues.
    Tree,
}

/// What a piece spans besides bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks {
    pub rows: u64,
    pub digest: u128,
    pub key: Vec<u8>,
}

/// Where a capture writes. Shared by the threads of a capture; every call may block until there is room.
pub trait Sink: Sync {
    /// Stores one chunk and returns its id. A chunk already known costs a hash and a lookup; only a new one is copied. At
    /// most [`MAX_CHUNK`] bytes.
    fn put(&self, pool: Pool, chunk: &[u8]) -> Result<ChunkId>;

    /// Reads to the end, cutting by content, and returns where the bytes lie.
    fn put_reader(&self, pool: Pool, reader: &mut dyn Read) -> Result<Content>;

    /// Begins a stream whose pieces the caller cuts (at row or entry ends).
    fn begin(&self, pool: Pool) -> Box<dyn PieceWriter + '_>;

    /// Where pieces whose chunks were all put or adopted lie, taken together.
    fn join(&self, pieces: &mut dyn Iterator<Item = Piece>) -> Result<Content>;

    /// Takes over content that an earlier recovery point stored, without reading it: `false` if any of it can no longer
    /// be relied on, and must be stored again.
    fn adopt(&self, content: &Content) -> Result<bool>;
}

/// The pieces of one stream, in order.
pub trait PieceWriter: Send {
    fn piece(&mut self, chunk: &[u8], marks: Marks) -> Result<()>;
    fn finish(self: Box<Self>) -> Result<Content>;
}

/// The largest chunk a repository takes, in bytes.
pub const MAX_CHUNK: usize = 8 << 20;

/// Where a restore reads. Shared by the threads of a restore.
///
/// Every byte that comes back was authenticated and hashed against its chunk id; damage is an error of kind
/// `Verification` that names the object, never a wrong byte.
pub trait Vault: Sync {
    fn get(&self, chunk: &ChunkId) -> Result<Vec<u8>>;

    /// The bytes of a piece that is no hole, its patch laid over it.
    fn piece(&self, piece: &Piece) -> Result<Vec<u8>> {
        let wrong = |what| Failure::verification(format!("a {what} is not as it was recorded"));
        let mut bytes = self.get(piece.chunk.as_ref().ok_or_else(|| wrong("piece without a chunk"))?)?;
        if bytes.len() as u64 != piece.bytes {
            return Err(wrong("chunk's length"));
        }
        if let Some(patch) = &piece.patch {
            lay_over(&mut bytes, &self.get(patch)?).ok_or_else(|| wrong("patch of pages"))?;
        }
        Ok(bytes)
    }

    /// The level-0 pieces of `content` in order, reading lists as they are reached.
    fn pieces<'a>(&'a self, content: &Content) -> Box<dyn Iterator<Item = Result<Piece>> + Send + 'a>;

    /// The level-0 pieces whose range may hold `key`, and all that follow: the caller stops when it has seen enough.
    fn pieces_from<'a>(
        &'a self,
        content: &Content,
        key: &[u8],
        order: KeyOrder,
    ) -> Box<dyn Iterator<Item = Result<Piece>> + Send + 'a>;

    /// Writes the bytes in order (holes as zeros); returns how many.
    fn copy(&self, content: &Content, out: &mut dyn std::io::Write) -> Result<u64>;
}

/// How keys of an ordered stream compare.
pub type KeyOrder = fn(&[u8], &[u8]) -> std::cmp::Ordering;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_changes_its_pages_and_no_others_and_one_that_does_not_fit_is_refused() {
        let mut frame = vec![1; 4 * PAGE];
        let (second, last) = ([2; PAGE], [9; PAGE]);
        let patch = encode_patch(&[(1, &second), (3, &last)]);
        lay_over(&mut frame, &patch).unwrap();
        let expected = [[1; PAGE], second, [1; PAGE], last].concat();
        assert_eq!(frame, expected);
        for wrong in [&b""[..], &patch[..patch.len() - 1], &encode_patch(&[(4, &second)])] {
            assert!(lay_over(&mut frame, wrong).is_none());
        }
    }

    #[test]
    fn a_piece_with_a_patch_survives_its_encoding() {
        let piece = Piece { patch: Some(ChunkId([3; 32])), ..Piece::plain(ChunkId([2; 32]), 5) };
        for piece in [piece, Piece::hole(7), Piece::plain(ChunkId([1; 32]), 9)] {
            let bytes = minicbor::to_vec(&piece).unwrap();
            assert_eq!(minicbor::decode::<Piece>(&bytes).unwrap(), piece);
        }
    }
}
