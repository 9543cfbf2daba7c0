//! Writes a listing: cuts the stream of items into chunks where the names say so, so that what did not change makes the
//! same chunks again, whatever happened before it.

use mainstay_domain::{
    Result, listing,
    stream::{Content, Marks, PieceWriter, Pool, Sink},
};
use std::sync::Arc;

/// A chunk is cut after an entry whose name hashes well once it has this many bytes …
const ENOUGH: usize = 32 << 10;
/// … and after any entry once it has this many.
const MOST: usize = 256 << 10;
/// One entry of 512 is a place to cut.
const MASK: u64 = (1 << 9) - 1;

pub(crate) struct Leaves<'a> {
    writer: Box<dyn PieceWriter + 'a>,
    chunk: Vec<u8>,
    rows: u64,
    key: Vec<u8>,
    directory: Arc<[u8]>,
    directory_hash: u64,
    /// The chunk holds nothing of the current directory yet, not even its path.
    unannounced: bool,
}

impl<'a> Leaves<'a> {
    pub fn new(sink: &'a dyn Sink) -> Leaves<'a> {
        Leaves {
            writer: sink.begin(Pool::Tree),
            chunk: Vec::new(),
            rows: 0,
            key: Vec::new(),
            directory: Arc::from(&b""[..]),
            directory_hash: 0,
            unannounced: true,
        }
    }

    /// Begins the block of a directory, or goes on with it. A directory without entries is recorded too.
    pub fn directory(&mut self, path: &Arc<[u8]>, beginning: bool) {
        self.unannounced |= self.directory != *path;
        self.directory = path.clone();
        self.directory_hash = hash(0, path);
        if beginning {
            self.announce(b"");
        }
    }

    fn announce(&mut self, first_name: &[u8]) {
        if self.chunk.is_empty() {
            self.chunk.reserve(ENOUGH * 3);
            self.key = listing::key(&self.directory, first_name);
        }
        listing::encode_directory(&self.directory, &mut self.chunk);
        self.unannounced = false;
    }

    /// Adds an entry of the current directory, already encoded.
    pub fn entry(&mut self, name: &[u8], encoded: &[u8]) -> Result<()> {
        if self.chunk.is_empty() || self.unannounced {
            self.announce(name);
        }
        if self.rows == 0 && self.key.starts_with(&self.directory) {
            // The first entry of the chunk names it, unless an empty directory came before.
            let own = listing::key(&self.directory, b"");
            if self.key == own {
                self.key.extend_from_slice(name);
            }
        }
        self.chunk.extend_from_slice(encoded);
        self.rows += 1;
        let length = self.chunk.len();
        if length >= MOST || length >= ENOUGH && hash(self.directory_hash, name) & MASK == 0 {
            self.cut()?;
        }
        Ok(())
    }

    fn cut(&mut self) -> Result<()> {
        let marks =
            Marks { rows: std::mem::take(&mut self.rows), digest: 0, key: std::mem::take(&mut self.key) };
        self.unannounced = true;
        self.writer.piece(&self.chunk, marks)?;
        self.chunk.clear();
        Ok(())
    }

    pub fn finish(mut self) -> Result<Content> {
        if !self.chunk.is_empty() {
            self.cut()?;
        }
        self.writer.finish()
    }
}

/// A quick hash, the same on every machine and in every version (multiply and fold, eight bytes at a time). Where chunks
/// are cut depends on it and nothing else does.
fn hash(seed: u64, bytes: &[u8]) -> u64 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut state = seed ^ (bytes.len() as u64).wrapping_mul(FACTOR);
    let mut words = bytes.chunks_exact(8);
    let mut mix = |word: u64| {
        let product = u128::from(state ^ word) * u128::from(FACTOR);
        state = (product as u64) ^ ((product >> 64) as u64);
    };
    for word in &mut words {
        mix(u64::from_le_bytes(word.try_into().expect("chunks of eight")));
    }
    let mut last = [0; 8];
    last[..words.remainder().len()].copy_from_slice(words.remainder());
    mix(u64::from_le_bytes(last));
    mix(FACTOR.rotate_left(32));
    state
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cutting_hash_is_spread_and_never_changes() {
        assert_eq!(hash(hash(0, b"dir"), b"name"), hash(hash(0, b"dir"), b"name"));
        let hits = (0..100_000).filter(|n| hash(1, format!("IMG_{n:05}.jpg").as_bytes()) & MASK == 0).count();
        assert!((120..280).contains(&hits), "about one of 512: {hits}");
    }
}
