//! A place for streams that no repository shall hold: one file that nobody else sees, and where its chunks lie.
//!
//! What is taken out of a recovered cluster on its way into a living database passes through here. Bytes are hashed when they
//! are written and when they are read; the file has no name and is gone with this value.

use mainstay_domain::{
    ChunkId, Failure, Result,
    stream::{Content, KeyOrder, Marks, Piece, PieceWriter, Pool, Sink, Vault},
};
use std::{
    collections::HashMap,
    fs::File,
    io::{Read, Write},
    os::unix::fs::FileExt,
    path::Path,
    sync::{Mutex, PoisonError},
};

/// Plain streams are cut into pieces of this many bytes.
const PIECE: u64 = 1 << 20;

pub struct Scratch {
    file: File,
    places: Mutex<Places>,
}

#[derive(Default)]
struct Places {
    end: u64,
    chunks: HashMap<ChunkId, (u64, u32)>,
}

fn id_of(bytes: &[u8]) -> ChunkId {
    ChunkId(*blake3::hash(bytes).as_bytes())
}

impl Scratch {
    pub fn within(folder: &Path) -> Result<Scratch> {
        let file = tempfile::tempfile_in(folder).map_err(|error| {
            Failure::preflight(format!("no scratch file can be made in {}", folder.display()))
                .caused_by(error)
        })?;
        Ok(Scratch { file, places: Mutex::default() })
    }
}

impl Sink for Scratch {
    fn put(&self, _: Pool, chunk: &[u8]) -> Result<ChunkId> {
        let id = id_of(chunk);
        let at = {
            let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
            if places.chunks.contains_key(&id) {
                return Ok(id);
            }
            let at = places.end;
            places.end += chunk.len() as u64;
            places.chunks.insert(id, (at, chunk.len() as u32));
            at
        };
        self.file
            .write_all_at(chunk, at)
            .map_err(|error| Failure::failed("the scratch file cannot be written").caused_by(error))?;
        Ok(id)
    }

    fn put_reader(&self, pool: Pool, reader: &mut dyn Read) -> Result<Content> {
        let mut content = Content::default();
        let mut chunk = Vec::new();
        loop {
            chunk.clear();
            reader
                .take(PIECE)
                .read_to_end(&mut chunk)
                .map_err(|error| Failure::failed("a stream could not be read").caused_by(error))?;
            if chunk.is_empty() {
                return Ok(content);
            }
            content.pieces.push(Piece::plain(self.put(pool, &chunk)?, chunk.len() as u64));
        }
    }

    fn begin(&self, pool: Pool) -> Box<dyn PieceWriter + '_> {
        Box::new(Writer { scratch: self, pool, content: Content::default() })
    }

    fn join(&self, pieces: &mut dyn Iterator<Item = Piece>) -> Result<Content> {
        Ok(Content { level: 0, pieces: pieces.collect() })
    }

    fn adopt(&self, _: &Content) -> Result<bool> {
        Ok(false)
    }
}

struct Writer<'s> {
    scratch: &'s Scratch,
    pool: Pool,
    content: Content,
}

impl PieceWriter for Writer<'_> {
    fn piece(&mut self, chunk: &[u8], marks: Marks) -> Result<()> {
        let Marks { rows, digest, key } = marks;
        let plain = Piece::plain(self.scratch.put(self.pool, chunk)?, chunk.len() as u64);
        self.content.pieces.push(Piece { rows, digest, key, ..plain });
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Content> {
        Ok(self.content)
    }
}

impl Vault for Scratch {
    fn get(&self, chunk: &ChunkId) -> Result<Vec<u8>> {
        let place = self.places.lock().unwrap_or_else(PoisonError::into_inner).chunks.get(chunk).copied();
        let (at, length) = place
            .ok_or_else(|| Failure::verification("a chunk is not in the scratch file that should be"))?;
        let mut bytes = vec![0; length as usize];
        self.file
            .read_exact_at(&mut bytes, at)
            .map_err(|error| Failure::failed("the scratch file cannot be read").caused_by(error))?;
        match id_of(&bytes) == *chunk {
            true => Ok(bytes),
            false => Err(Failure::verification("the scratch file does not give back what was written to it")),
        }
    }

    fn pieces<'a>(&'a self, content: &Content) -> Box<dyn Iterator<Item = Result<Piece>> + Send + 'a> {
        Box::new(content.pieces.clone().into_iter().map(Ok))
    }

    fn pieces_from<'a>(
        &'a self,
        content: &Content,
        _: &[u8],
        _: KeyOrder,
    ) -> Box<dyn Iterator<Item = Result<Piece>> + Send + 'a> {
        self.pieces(content)
    }

    fn copy(&self, content: &Content, out: &mut dyn Write) -> Result<u64> {
        let mut written = 0;
        for piece in &content.pieces {
            let bytes = match piece.chunk {
                Some(_) => self.piece(piece)?,
                None => vec![0; piece.bytes as usize],
            };
            out.write_all(&bytes)
                .map_err(|error| Failure::failed("writing out what was read failed").caused_by(error))?;
            written += bytes.len() as u64;
        }
        Ok(written)
    }
}
