//! Making packs: stage compressed chunks, then seal them in random order, and decode the result before it leaves.
//!
//! The hazard: a bad compressor or bad memory would otherwise turn into a backup that cannot be restored. So every chunk
//! of a finished pack is opened, decompressed and hashed again from the very bytes that will be stored.

use super::{compress::Staged, *};
use crate::error::{RepositoryError, Result};
use mainstay_keys::{aead::AeadKey, hpke};
use zeroize::Zeroizing;

/// What every pack of a session has in common.
#[derive(Debug, Clone)]
pub struct WriteContext {
    pub repository: RepositoryId,
    pub session: SessionId,
    pub domain: DomainId,
    pub epoch: EpochId,
    pub data_public: [u8; 32],
    pub chunk_id_key: Zeroizing<[u8; 32]>,
}

/// A pack being filled.
pub struct Builder {
    pool: Pool,
    /// The payloads one after the other, as they came.
    staged: Vec<u8>,
    places: Vec<Place>,
}

/// Where a staged payload lies.
struct Place {
    chunk: ChunkId,
    plain_length: u32,
    payload: std::ops::Range<usize>,
}

/// A finished pack, proven readable.
pub struct Built {
    pub id: PackId,
    pub pool: Pool,
    pub bytes: Vec<u8>,
    pub blobs: Vec<Blob>,
}

impl Builder {
    /// An empty pack that gathers its payloads in `staged`, whose memory may have served before.
    pub fn new(pool: Pool, mut staged: Vec<u8>) -> Builder {
        staged.clear();
        Builder { pool, staged, places: Vec::new() }
    }

    pub fn push(&mut self, staged: Staged<'_>) {
        let start = self.staged.len();
        self.staged.extend_from_slice(staged.payload);
        let payload = start..self.staged.len();
        self.places.push(Place { chunk: staged.chunk, plain_length: staged.plain_length, payload });
    }

    /// Size of the object if it were finished now.
    pub fn bytes(&self) -> usize {
        HEADER + 4 + 4 + TAG + self.staged.len() + self.places.len() * (TAG + TOC_ENTRY)
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Seals the pack and reads it back. The object is built in `bytes`; the memory of the staged payloads comes back too.
    pub fn finish(mut self, context: &WriteContext, mut bytes: Vec<u8>) -> Result<(Built, Vec<u8>)> {
        shuffle(&mut self.places);
        let key = Zeroizing::new(mainstay_keys::random::<32>());
        let header = Header {
            pool: self.pool,
            epoch: context.epoch,
            repository: context.repository,
            session: context.session,
            domain: context.domain,
            nonce: mainstay_keys::random(),
        };
        bytes.clear();
        bytes.reserve(self.bytes());
        write_header(&header, &context.data_public, &key, &mut bytes);
        let cipher = AeadKey::new(&key);
        let mut blobs = Vec::with_capacity(self.places.len());
        for place in self.places {
            let offset = bytes.len();
            bytes.extend_from_slice(&self.staged[place.payload]);
            let aad = aad(&header.repository, &header.nonce, offset as u64, TYPE_CHUNK, &place.chunk);
            cipher.seal(blob_nonce(offset as u64), &aad, &mut bytes, offset);
            blobs.push(Blob {
                chunk: place.chunk,
                offset: offset as u32,
                length: (bytes.len() - offset) as u32,
                plain_length: place.plain_length,
            });
        }
        write_toc(&header, &cipher, &blobs, &mut bytes);
        // Not the key in memory but a cipher made anew, as a reader would.
        let opened = Opened::with_key(header, &key);
        let mut reader = opened.reader();
        for blob in &blobs {
            let sealed = &bytes[blob.offset as usize..][..blob.length as usize];
            match reader.decode(blob, sealed) {
                Ok(plain) if chunk_id(&context.chunk_id_key, plain) == blob.chunk => {}
                _ => return Err(RepositoryError::FaultyMachine),
            }
        }
        let id = PackId(*blake3::hash(&bytes).as_bytes());
        Ok((Built { id, pool: self.pool, bytes, blobs }, self.staged))
    }
}

fn write_header(header: &Header, data_public: &[u8; 32], key: &[u8; 32], out: &mut Vec<u8>) {
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&SUITE.to_be_bytes());
    out.extend_from_slice(&[pool_byte(header.pool), 0]);
    out.extend_from_slice(&header.epoch.0.to_be_bytes());
    out.extend_from_slice(&header.repository.0);
    out.extend_from_slice(&header.session.0);
    out.extend_from_slice(&header.domain.0);
    out.extend_from_slice(&header.nonce);
    let sealed = hpke::seal(data_public, b"mainstay v1 pack", &out[..96], key);
    out.extend_from_slice(&sealed.enc);
    out.extend_from_slice(&sealed.ciphertext);
    out.extend_from_slice(&commitment(key, &header.nonce));
    debug_assert_eq!(out.len(), HEADER);
}

fn write_toc(header: &Header, cipher: &AeadKey, blobs: &[Blob], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&(blobs.len() as u32).to_be_bytes());
    for blob in blobs {
        out.extend_from_slice(&blob.chunk.0);
        for number in [blob.offset, blob.length, blob.plain_length] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.push(TYPE_CHUNK);
    }
    let aad = aad(&header.repository, &header.nonce, 0, 0, &ChunkId::default());
    cipher.seal(TOC_NONCE, &aad, out, start);
    let length = (out.len() - start) as u32;
    out.extend_from_slice(&length.to_be_bytes());
}

/// Puts the blobs in random order (Fisher–Yates): the sequence of chunk sizes would tell a known file.
fn shuffle(staged: &mut [Place]) {
    // One seed, expanded: a draw per blob from the operating system would cost a call each.
    let mut stream = blake3::Hasher::new_keyed(&mainstay_keys::random()).finalize_xof();
    let mut draw = || {
        let mut bytes = [0; 8];
        stream.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    };
    for i in (1..staged.len()).rev() {
        staged.swap(i, (draw() % (i as u64 + 1)) as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::compress::Compressor, *};
    use crate::pack::compress::Effort;

    #[test]
    fn a_payload_that_is_not_the_chunk_it_is_called_makes_no_pack() {
        let mut basepoint = [0; 32];
        basepoint[0] = 9;
        let context = WriteContext {
            repository: RepositoryId::default(),
            session: SessionId::default(),
            domain: DomainId::default(),
            epoch: EpochId(1),
            data_public: basepoint,
            chunk_id_key: [7; 32].into(),
        };
        let (good, other) = (b"what was read".as_slice(), b"what was not read".as_slice());
        let finish = |called: &[u8]| {
            let mut builder = Builder::new(Pool::Data, Vec::new());
            for (name, plain) in [(other, other), (called, good)] {
                let id = chunk_id(&context.chunk_id_key, name);
                builder.push(Compressor::new(Some(1)).stage(id, plain, &Effort::Given));
            }
            builder.finish(&context, Vec::new()).map(|(built, _)| built.blobs.len())
        };
        assert_eq!(finish(good).unwrap(), 2);
        assert!(matches!(finish(b"something else"), Err(RepositoryError::FaultyMachine)));
    }
}
