//! Packs: many sealed chunks in one object (`doc/format.md` §6).
//!
//! A pack has its own random key, sealed to the epoch's public key; a chunk is opened with the pack's key, its place and its
//! id as authenticated data, so no chunk can stand for another. [`Builder`] makes packs and proves each of them readable
//! before it lets go of it; [`Opened`] reads them.

mod build;
mod compress;
mod read;

pub use build::{Builder, Built, WriteContext};
pub use compress::{Choice, Compressor, Effort};
pub use read::Opened;
pub(crate) use read::thread_decompress as decompress;

use mainstay_domain::{ChunkId, DomainId, EpochId, PackId, RepositoryId, SessionId, stream::Pool};

pub const MAGIC: &[u8; 8] = b"MSTYPAK1";
pub const SUITE: u16 = 1;
/// Bytes before the first blob.
pub const HEADER: usize = 208;
/// What sealing adds to a payload.
pub const TAG: usize = 16;
/// Bytes of one entry of the table of contents.
const TOC_ENTRY: usize = 45;
const TYPE_CHUNK: u8 = 1;
pub(crate) const CODEC_STORED: u8 = 0;
pub(crate) const CODEC_ZSTD: u8 = 1;

/// Where a chunk lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub pack: PackId,
    pub pool: Pool,
    pub blob: Blob,
}

/// A sealed chunk within its pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blob {
    pub chunk: ChunkId,
    pub offset: u32,
    /// Sealed length, tag included.
    pub length: u32,
    pub plain_length: u32,
}

/// The clear part of a pack's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub pool: Pool,
    pub epoch: EpochId,
    pub repository: RepositoryId,
    pub session: SessionId,
    pub domain: DomainId,
    pub nonce: [u8; 16],
}

/// The object name of a pack.
pub fn object_name(pool: Pool, id: &PackId) -> String {
    let hex = id.to_string();
    format!("packs/{}/{}/{hex}", pool_name(pool), &hex[..2])
}

/// The pool and id of a pack's object name; `None` if it is not one.
pub fn parse_object_name(name: &str) -> Option<(Pool, PackId)> {
    let (pool, rest) = match name.strip_prefix("packs/")?.split_once('/')? {
        ("data", rest) => (Pool::Data, rest),
        ("tree", rest) => (Pool::Tree, rest),
        _ => return None,
    };
    let (shard, hex) = rest.split_once('/')?;
    let id: PackId = hex.parse().ok()?;
    hex.starts_with(shard).then_some((pool, id)).filter(|_| shard.len() == 2)
}

pub fn pool_name(pool: Pool) -> &'static str {
    match pool {
        Pool::Data => "data",
        Pool::Tree => "tree",
    }
}

fn pool_byte(pool: Pool) -> u8 {
    match pool {
        Pool::Data => 1,
        Pool::Tree => 2,
    }
}

fn blob_nonce(offset: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&offset.to_be_bytes());
    nonce
}

/// The table of contents has a nonce that no blob can have.
const TOC_NONCE: [u8; 12] = [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];

fn aad(repository: &RepositoryId, nonce: &[u8; 16], offset: u64, kind: u8, chunk: &ChunkId) -> [u8; 89] {
    let mut aad = [0; 89];
    aad[..32].copy_from_slice(&repository.0);
    aad[32..48].copy_from_slice(nonce);
    aad[48..56].copy_from_slice(&offset.to_be_bytes());
    aad[56] = kind;
    aad[57..].copy_from_slice(&chunk.0);
    aad
}

fn commitment(key: &[u8; 32], nonce: &[u8; 16]) -> [u8; 32] {
    let mut material = [0; 48];
    material[..32].copy_from_slice(key);
    material[32..].copy_from_slice(nonce);
    mainstay_keys::derive("mainstay v1 pack commitment", &material)
}

/// The id of a chunk's plaintext.
pub fn chunk_id(key: &[u8; 32], plain: &[u8]) -> ChunkId {
    ChunkId(*blake3::keyed_hash(key, plain).as_bytes())
}
