//! A repository in memory for tests: chunks in a map under their BLAKE3, cut every 64 KiB. It can lose and damage chunks,
//! and counts what was asked of it.

use mainstay_domain::{
    ChunkId, Clock, Failure, Result, Silent, Time, listing,
    point::SourceRecord,
    stream::{Content, KeyOrder, Marks, Piece, PieceWriter, Pool, Sink, Vault},
    time::SECOND,
};
use std::{
    collections::{HashMap, HashSet},
    io::{Read, Write},
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{CaptureOptions, FilesConfig, capture};

#[derive(Default)]
pub struct Memory {
    chunks: Mutex<HashMap<ChunkId, Vec<u8>>>,
    damaged: Mutex<HashSet<ChunkId>>,
    /// Chunks put, known or not.
    pub puts: AtomicU64,
    /// Chunks read.
    pub gets: AtomicU64,
    pub adopted: AtomicU64,
}

impl Memory {
    /// Makes every read of a chunk that `which` names fail, and adoption of it too.
    pub fn damage(&self, which: impl Fn(&[u8]) -> bool) -> usize {
        let chunks = self.chunks.lock().unwrap();
        let hit: Vec<ChunkId> = chunks.iter().filter(|(_, c)| which(c)).map(|(id, _)| *id).collect();
        let count = hit.len();
        self.damaged.lock().unwrap().extend(hit);
        count
    }

    pub fn chunk(&self, id: &ChunkId) -> Vec<u8> {
        self.chunks.lock().unwrap()[id].clone()
    }

    /// Reads a stream to its end, as its level-0 pieces.
    pub fn pieces_of(&self, content: &Content) -> Vec<Piece> {
        self.pieces(content).collect::<Result<_>>().unwrap()
    }

    pub fn bytes_of(&self, content: &Content) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.copy(content, &mut bytes).unwrap();
        bytes
    }

    /// Lists of many pieces become list chunks of 100, so that tests see levels.
    fn collapse(&self, mut content: Content) -> Result<Content> {
        while content.pieces.len() > 100 {
            let mut upper = Content { level: content.level + 1, pieces: Vec::new() };
            for pieces in content.pieces.chunks(100) {
                let id = self.put(Pool::Tree, &minicbor::to_vec(pieces).unwrap())?;
                upper.pieces.push(Piece {
                    chunk: Some(id),
                    bytes: pieces.iter().map(|p| p.bytes).sum(),
                    rows: pieces.iter().map(|p| p.rows).sum(),
                    digest: 0,
                    key: pieces[0].key.clone(),
                    patch: None,
                });
            }
            content = upper;
        }
        Ok(content)
    }
}

impl Sink for Memory {
    fn put(&self, _: Pool, chunk: &[u8]) -> Result<ChunkId> {
        self.puts.fetch_add(1, Ordering::Relaxed);
        let id = ChunkId(*blake3::hash(chunk).as_bytes());
        self.chunks.lock().unwrap().insert(id, chunk.to_vec());
        Ok(id)
    }

    fn put_reader(&self, pool: Pool, reader: &mut dyn Read) -> Result<Content> {
        let mut content = Content::default();
        loop {
            let mut chunk = Vec::new();
            Read::take(&mut *reader, 64 << 10)
                .read_to_end(&mut chunk)
                .map_err(|error| Failure::failed("the reader failed").caused_by(error))?;
            if chunk.is_empty() {
                return self.collapse(content);
            }
            let bytes = chunk.len() as u64;
            content.pieces.push(Piece::plain(self.put(pool, &chunk)?, bytes));
        }
    }

    fn begin(&self, pool: Pool) -> Box<dyn PieceWriter + '_> {
        Box::new(Writer { memory: self, pool, content: Content::default() })
    }

    fn join(&self, pieces: &mut dyn Iterator<Item = Piece>) -> Result<Content> {
        self.collapse(Content { level: 0, pieces: pieces.collect() })
    }

    fn adopt(&self, content: &Content) -> Result<bool> {
        self.adopted.fetch_add(1, Ordering::Relaxed);
        let chunks = self.chunks.lock().unwrap();
        let damaged = self.damaged.lock().unwrap();
        Ok(content
            .pieces
            .iter()
            .filter_map(|p| p.chunk)
            .all(|id| chunks.contains_key(&id) && !damaged.contains(&id)))
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
        self.memory.collapse(self.content)
    }
}

impl Vault for Memory {
    fn get(&self, chunk: &ChunkId) -> Result<Vec<u8>> {
        self.gets.fetch_add(1, Ordering::Relaxed);
        if self.damaged.lock().unwrap().contains(chunk) {
            return Err(Failure::verification(format!("chunk {} is damaged", chunk.short())));
        }
        let chunks = self.chunks.lock().unwrap();
        chunks.get(chunk).cloned().ok_or_else(|| Failure::verification(format!("no chunk {}", chunk.short())))
    }

    fn pieces<'a>(&'a self, content: &Content) -> Box<dyn Iterator<Item = Result<Piece>> + Send + 'a> {
        if content.level == 0 {
            return Box::new(content.pieces.clone().into_iter().map(Ok));
        }
        let level = content.level - 1;
        Box::new(content.pieces.clone().into_iter().flat_map(move |piece| {
            let list = self
                .get(&piece.chunk.unwrap())
                .map(|bytes| Content { level, pieces: minicbor::decode(&bytes).unwrap() });
            match list {
                Ok(content) => self.pieces(&content),
                Err(failure) => Box::new(std::iter::once(Err(failure))),
            }
        }))
    }

    fn pieces_from<'a>(
        &'a self,
        content: &Content,
        key: &[u8],
        order: KeyOrder,
    ) -> Box<dyn Iterator<Item = Result<Piece>> + Send + 'a> {
        let pieces: Vec<Piece> = self.pieces(content).map(|p| p.unwrap()).collect();
        let after = pieces.iter().position(|piece| order(&piece.key, key).is_gt()).unwrap_or(pieces.len());
        Box::new(pieces.into_iter().skip(after.saturating_sub(1)).map(Ok))
    }

    fn copy(&self, content: &Content, out: &mut dyn Write) -> Result<u64> {
        let mut written = 0;
        for piece in self.pieces(content) {
            let piece = piece?;
            let bytes = match piece.chunk {
                Some(_) => self.piece(&piece)?,
                None => vec![0; piece.bytes as usize],
            };
            out.write_all(&bytes).map_err(|error| Failure::failed("the writer failed").caused_by(error))?;
            written += bytes.len() as u64;
        }
        Ok(written)
    }
}

/// The machine's clock, moved: files made just now are not fresh to it.
pub struct Later(pub i64);

impl Clock for Later {
    fn now(&self) -> Time {
        mainstay_domain::SystemClock.now().plus(self.0 * SECOND)
    }
}

pub const TEN_SECONDS_ON: Later = Later(10);

pub fn config(path: &Path) -> FilesConfig {
    FilesConfig { paths: vec![path.to_owned()], ..FilesConfig::default() }
}

/// Captures with the clock ten seconds on.
pub fn backup(memory: &Memory, config: &FilesConfig, previous: Option<&SourceRecord>) -> SourceRecord {
    backup_at(memory, config, previous, &TEN_SECONDS_ON)
}

pub fn backup_at(
    memory: &Memory,
    config: &FilesConfig,
    previous: Option<&SourceRecord>,
    clock: &dyn Clock,
) -> SourceRecord {
    let previous = previous.map(|record| (memory as &dyn Vault, record));
    capture("files", config, memory, previous, &CaptureOptions::new(clock), &Silent).unwrap()
}

/// Every entry of a stream with its path.
pub fn entries(memory: &Memory, record: &SourceRecord, stream: &str) -> Vec<(Vec<u8>, listing::Entry)> {
    let Some(stream) = record.stream(stream) else { return Vec::new() };
    let mut directory = Vec::new();
    let mut list = Vec::new();
    for piece in memory.pieces_of(&stream.content) {
        let mut rows = 0;
        for item in listing::decode_items(&memory.chunk(&piece.chunk.unwrap())) {
            match item.unwrap() {
                listing::Item::Directory(path) => directory = path,
                listing::Item::Entry(entry) => {
                    rows += 1;
                    list.push((listing::join(&directory, &entry.name), *entry));
                }
            }
        }
        assert_eq!(rows, piece.rows);
    }
    list
}

pub fn paths(memory: &Memory, record: &SourceRecord, stream: &str) -> Vec<String> {
    entries(memory, record, stream).iter().map(|(path, _)| super::show_path(path)).collect()
}
