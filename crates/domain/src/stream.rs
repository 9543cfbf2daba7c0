//! Streams: how a source hands its bytes to a repository and gets them back.
//!
//! A stream is a sequence of *pieces*; each piece is one chunk. A long sequence is itself cut into chunks of list entries
//! ("level 1"), and so on until a handful is left, so reaching any offset, row or key costs a few reads. The layout is in
//! `doc/format.md`, *Streams*. Sources know these traits and nothing of repositories; the repository implements them.

use crate::{ChunkId, Result};
use std::io::Read;

/// One entry of a stream's list: a chunk (of bytes, rows, entries, or of a lower list) and what it spans.
#[derive(Debug, Clone, PartialEq, Eq)]
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
}

impl Piece {
    pub fn plain(chunk: ChunkId, bytes: u64) -> Piece {
        Piece { chunk: Some(chunk), bytes, rows: 0, digest: 0, key: Vec::new() }
    }
    pub fn hole(bytes: u64) -> Piece {
        Piece { chunk: None, bytes, rows: 0, digest: 0, key: Vec::new() }
    }
}

impl<C> minicbor::Encode<C> for Piece {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        let fields = match self {
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
        Ok(())
    }
}

impl<'b, C> minicbor::Decode<'b, C> for Piece {
    fn decode(d: &mut minicbor::Decoder<'b>, ctx: &mut C) -> Result<Self, minicbor::decode::Error> {
        let malformed = |what| Err(minicbor::decode::Error::message(what));
        let fields = d.array()?;
        let mut piece =
            Piece { chunk: d.decode_with(ctx)?, bytes: d.u64()?, rows: 0, digest: 0, key: Vec::new() };
        match fields {
            Some(2) => {}
            Some(n @ (4 | 5)) => {
                piece.rows = d.u64()?;
                match d.bytes()?.try_into() {
                    Ok(digest) => piece.digest = u128::from_be_bytes(digest),
                    Err(_) => return malformed("a piece's digest is 16 bytes"),
                }
                if n == 5 {
                    piece.key = d.bytes()?.to_vec();
                }
            }
            _ => return malformed("a piece has 2, 4 or 5 fields"),
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
