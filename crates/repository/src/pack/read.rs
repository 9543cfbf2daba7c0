//! Reading packs. Nothing leaves here that was not authenticated; the caller compares the chunk's hash with its id.

use super::*;
use crate::{
    envelope::PrivateKeys,
    error::{RepositoryError, Result},
};
use mainstay_keys::{aead::AeadKey, hpke};
use zeroize::Zeroizing;

/// A pack whose key was unsealed.
pub struct Opened {
    pub header: Header,
    cipher: AeadKey,
}

impl Header {
    /// Parses the clear part. `what` names the object in errors.
    pub fn parse(bytes: &[u8], what: &str) -> Result<Header> {
        if bytes.len() < HEADER || &bytes[..8] != MAGIC {
            return Err(RepositoryError::damaged(what, "it does not begin as a pack"));
        }
        let suite = u16::from_be_bytes([bytes[8], bytes[9]]);
        if suite != SUITE {
            return Err(RepositoryError::Newer { what: what.into(), version: suite.into() });
        }
        let pool = match bytes[10] {
            1 => Pool::Data,
            2 => Pool::Tree,
            _ => return Err(RepositoryError::damaged(what, "its pool is unknown")),
        };
        Ok(Header {
            pool,
            epoch: EpochId(u32::from_be_bytes(array(bytes, 12))),
            repository: RepositoryId(array(bytes, 16)),
            session: SessionId(array(bytes, 48)),
            domain: DomainId(array(bytes, 64)),
            nonce: array(bytes, 80),
        })
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the slice has N bytes")
}

impl Opened {
    /// Unseals the pack's key from its first [`HEADER`] bytes.
    pub fn open(
        header_bytes: &[u8],
        repository: &RepositoryId,
        keys: &dyn PrivateKeys,
        what: &str,
    ) -> Result<Opened> {
        let header = Header::parse(header_bytes, what)?;
        if header.repository != *repository {
            return Err(RepositoryError::damaged(what, "it belongs to another repository"));
        }
        let private = keys.data_private(header.epoch).ok_or(RepositoryError::WrongKey)?;
        let key = hpke::open(
            private,
            &array(header_bytes, 96),
            b"mainstay v1 pack",
            &header_bytes[..96],
            &header_bytes[128..176],
        )
        .map_err(|_| RepositoryError::damaged(what, "its key cannot be unsealed"))?;
        let key: Zeroizing<[u8; 32]> = match key.as_slice().try_into() {
            Ok(key) => Zeroizing::new(key),
            Err(_) => return Err(RepositoryError::damaged(what, "its key has a wrong length")),
        };
        if commitment(&key, &header.nonce)[..] != header_bytes[176..208] {
            return Err(RepositoryError::damaged(what, "its key is not the one it commits to"));
        }
        Ok(Opened::with_key(header, &key))
    }

    pub(super) fn with_key(header: Header, key: &[u8; 32]) -> Opened {
        Opened { header, cipher: AeadKey::new(key) }
    }

    pub fn reader(&self) -> BlobReader<'_> {
        BlobReader { opened: self, sealed: Vec::new(), plain: Vec::new() }
    }

    /// Opens and decompresses one blob into a fresh buffer.
    pub fn decode(&self, blob: &Blob, sealed: Vec<u8>) -> Result<Vec<u8>> {
        let mut reader = BlobReader { opened: self, sealed, plain: Vec::new() };
        reader.open_in_place(blob)?;
        reader.decompress(blob)?;
        Ok(reader.plain)
    }

    /// The table of contents, from its sealed bytes: those before the last four of the object, which tell their number.
    pub fn contents(&self, mut sealed: Vec<u8>, what: &str) -> Result<Vec<Blob>> {
        let damaged = || RepositoryError::damaged(what, "its table of contents cannot be read");
        let aad = aad(&self.header.repository, &self.header.nonce, 0, 0, &ChunkId::default());
        let toc = self.cipher.open(TOC_NONCE, &aad, &mut sealed).map_err(|_| damaged())?;
        let entries = toc.get(4..).ok_or_else(damaged)?;
        if entries.len() != u32::from_be_bytes(array(toc, 0)) as usize * TOC_ENTRY {
            return Err(damaged());
        }
        let number = |entry: &[u8], at| u32::from_be_bytes(array(entry, at));
        Ok(entries
            .chunks_exact(TOC_ENTRY)
            .filter(|entry| entry[44] == TYPE_CHUNK)
            .map(|entry| Blob {
                chunk: ChunkId(array(entry, 0)),
                offset: number(entry, 32),
                length: number(entry, 36),
                plain_length: number(entry, 40),
            })
            .collect())
    }
}

/// Opens blobs of one pack, using its buffers again.
pub struct BlobReader<'p> {
    opened: &'p Opened,
    sealed: Vec<u8>,
    plain: Vec<u8>,
}

impl BlobReader<'_> {
    /// The plaintext of a blob. Its hash is not yet compared with its id.
    pub fn decode(&mut self, blob: &Blob, sealed: &[u8]) -> Result<&[u8]> {
        self.sealed.clear();
        self.sealed.extend_from_slice(sealed);
        self.open_in_place(blob)?;
        self.decompress(blob)?;
        Ok(&self.plain)
    }

    fn open_in_place(&mut self, blob: &Blob) -> Result<()> {
        let header = &self.opened.header;
        let offset = u64::from(blob.offset);
        let aad = aad(&header.repository, &header.nonce, offset, TYPE_CHUNK, &blob.chunk);
        let length = match self.opened.cipher.open(blob_nonce(offset), &aad, &mut self.sealed) {
            Ok(payload) => payload.len(),
            Err(_) => return Err(damaged_chunk(blob, "its seal is broken")),
        };
        self.sealed.truncate(length);
        Ok(())
    }

    fn decompress(&mut self, blob: &Blob) -> Result<()> {
        let limit = blob.plain_length as usize;
        if limit > mainstay_domain::stream::MAX_CHUNK {
            return Err(damaged_chunk(blob, "it claims to be larger than a chunk can be"));
        }
        self.plain.clear();
        match self.sealed.split_first() {
            Some((&CODEC_STORED, data)) => self.plain.extend_from_slice(data),
            Some((&CODEC_ZSTD, data)) => {
                self.plain.reserve(limit);
                thread_decompress(data, &mut self.plain)
                    .map_err(|_| damaged_chunk(blob, "it cannot be decompressed"))?;
            }
            _ => return Err(damaged_chunk(blob, "its codec is unknown")),
        }
        if self.plain.len() != limit {
            return Err(damaged_chunk(blob, "its length is not what was recorded"));
        }
        Ok(())
    }
}

fn damaged_chunk(blob: &Blob, why: &'static str) -> RepositoryError {
    RepositoryError::damaged(format!("chunk {}", blob.chunk.short()), why)
}

/// Decompresses into the spare capacity of `out`, with a context kept by each thread.
pub(crate) fn thread_decompress(data: &[u8], out: &mut Vec<u8>) -> std::io::Result<usize> {
    thread_local! {
        static CONTEXT: std::cell::RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { std::cell::RefCell::new(None) };
    }
    CONTEXT.with_borrow_mut(|context| match context {
        Some(zstd) => zstd.decompress_to_buffer(data, out),
        None => {
            let mut zstd = zstd::bulk::Decompressor::new()?;
            let written = zstd.decompress_to_buffer(data, out);
            *context = Some(zstd);
            written
        }
    })
}
