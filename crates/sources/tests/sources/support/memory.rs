//! A repository in memory, as a source sees it: where a capture writes and a restore reads.

use mainstay_domain::{
    ChunkId, Failure, Result,
    stream::{Content, KeyOrder, MAX_CHUNK, Marks, Piece, PieceWriter, Pool, Sink, Vault},
};
use std::{
    collections::HashMap,
    io::{Read, Write},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

#[derive(Default)]
pub struct Memory {
    chunks: Mutex<HashMap<ChunkId, Vec<u8>>>,
    /// After so many bytes it is full; 0: never.
    pub room: AtomicU64,
    taken: AtomicU64,
}

impl Memory {
    /// The whole stream.
    pub fn bytes(&self, content: &Content) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.copy(content, &mut bytes).unwrap();
        bytes
    }

    /// Damage: the chunk is gone.
    pub fn lose(&self, chunk: &ChunkId) {
        self.chunks.lock().unwrap().remove(chunk);
    }

    /// The same of every chunk that `which` names; how many they are.
    pub fn lose_where(&self, which: impl Fn(&[u8]) -> bool) -> usize {
        let mut chunks = self.chunks.lock().unwrap();
        let before = chunks.len();
        chunks.retain(|_, chunk| !which(chunk));
        before - chunks.len()
    }

    pub fn chunk_count(&self) -> usize {
        self.chunks.lock().unwrap().len()
    }
}

impl Sink for Memory {
    fn put(&self, _: Pool, chunk: &[u8]) -> Result<ChunkId> {
        assert!(chunk.len() <= MAX_CHUNK && !chunk.is_empty());
        let room = self.room.load(Ordering::Relaxed);
        if room > 0 && self.taken.fetch_add(chunk.len() as u64, Ordering::Relaxed) > room {
            return Err(Failure::failed("no space left in the store"));
        }
        let id = ChunkId(*blake3::hash(chunk).as_bytes());
        self.chunks.lock().unwrap().insert(id, chunk.to_vec());
        Ok(id)
    }

    fn put_reader(&self, pool: Pool, reader: &mut dyn Read) -> Result<Content> {
        let mut content = Content::default();
        loop {
            let mut chunk = Vec::new();
            let failed = |e| Failure::failed("the reader failed").caused_by(e);
            reader.take(1 << 20).read_to_end(&mut chunk).map_err(failed)?;
            if chunk.is_empty() {
                return Ok(content);
            }
            let bytes = chunk.len() as u64;
            content.pieces.push(Piece::plain(self.put(pool, &chunk)?, bytes));
        }
    }

    fn begin(&self, pool: Pool) -> Box<dyn PieceWriter + '_> {
        Box::new(Writer { memory: self, pool, content: Content::default() })
    }

    fn join(&self, pieces: &mut dyn Iterator<Item = Piece>) -> Result<Content> {
        Ok(Content { level: 0, pieces: pieces.collect() })
    }

    fn adopt(&self, content: &Content) -> Result<bool> {
        let chunks = self.chunks.lock().unwrap();
        Ok(content.pieces.iter().flat_map(Piece::chunks).all(|id| chunks.contains_key(id)))
    }
}

struct Writer<'a> {
    memory: &'a Memory,
    pool: Pool,
    content: Content,
}

impl PieceWriter for Writer<'_> {
    fn piece(&mut self, chunk: &[u8], marks: Marks) -> Result<()> {
        let bytes = chunk.len() as u64;
        let chunk = Some(self.memory.put(self.pool, chunk)?);
        let Marks { rows, digest, key } = marks;
        self.content.pieces.push(Piece { chunk, bytes, rows, digest, key, patch: None });
        Ok(())
    }
    fn finish(self: Box<Self>) -> Result<Content> {
        Ok(self.content)
    }
}

impl Vault for Memory {
    fn get(&self, chunk: &ChunkId) -> Result<Vec<u8>> {
        let chunks = self.chunks.lock().unwrap();
        chunks.get(chunk).cloned().ok_or_else(|| Failure::verification("this chunk is missing"))
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
            let bytes = match &piece.chunk {
                Some(_) => self.piece(piece)?,
                None => vec![0; piece.bytes as usize],
            };
            out.write_all(&bytes).map_err(|e| Failure::failed("cannot write").caused_by(e))?;
            written += bytes.len() as u64;
        }
        Ok(written)
    }
}
