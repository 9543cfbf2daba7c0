//! A writing session: begins in the log, stores chunks, and commits one recovery point, or leaves nothing but garbage.
//!
//! **Order.** Begin → packs, each decoded again before it leaves → index segments, each after its packs → manifest → Commit. A
//! crash anywhere leaves objects that no point refers to, and that a collector removes after the session was fenced.
//!
//! **What it relies on.** Chunks of packs that a readable index segment named and that were not condemned, swept or lost at its
//! Begin. A collector that condemns packs later
//! waits for this session to end before it deletes any of them.

mod index_writer;
mod pipeline;
mod spare;

pub use index_writer::Written;
pub use pipeline::Tuning;
pub(crate) use pipeline::create_settled;

use crate::{
    error::{RepositoryError, Result},
    history::SessionViews,
    manifest::{self, Reach},
    pack::{WriteContext, chunk_id},
    reader::Reader,
    repository::Repository,
    stream::{Chunker, ListBuilder},
};
use index_writer::IndexWriter;
use mainstay_domain::{
    ChunkId, Failure, PointId, SessionId,
    point::Point,
    stream::{Content, MAX_CHUNK, Marks, Piece, PieceWriter, Pool, Sink, Vault},
};
use pipeline::Pipeline;
use std::{io::Read, sync::Arc};
use zeroize::Zeroizing;

pub struct Session<'r> {
    repository: &'r Repository,
    id: SessionId,
    chunk_id_key: Zeroizing<[u8; 32]>,
    chunker: Chunker,
    index: Arc<IndexWriter>,
    pipeline: Pipeline,
    reader: Reader<'r>,
}

/// A recovery point that is in the log.
#[derive(Debug, Clone)]
pub struct Committed {
    pub point: PointId,
    /// What this session added.
    pub written: Written,
    /// Every pack that the point needs, reused ones included.
    pub reach: Reach,
    pub stored_bytes: u64,
}

impl<'r> Session<'r> {
    /// Begins: the log entry is written, the index is brought up to date.
    pub fn begin(repository: &'r Repository, tuning: Tuning) -> Result<Session<'r>> {
        let id = SessionId(mainstay_keys::random());
        repository.begin_session(id)?;
        let SessionViews { relied_on, readable, cache } = repository.session_views(id)?;
        let bundle = repository.keyring().current();
        let writer = repository.writer();
        let index = Arc::new(IndexWriter::new(
            relied_on,
            cache,
            repository.store().clone(),
            writer,
            bundle.domain_id(),
        ));
        let context = WriteContext {
            repository: repository.id(),
            session: id,
            domain: bundle.domain_id(),
            epoch: mainstay_domain::EpochId(bundle.epoch),
            data_public: bundle.data_public(),
            chunk_id_key: Zeroizing::new(bundle.chunk_id_key()),
        };
        let stored = index.clone();
        let pipeline = Pipeline::start(
            repository.store().clone(),
            context,
            tuning,
            Box::new(move |pack, pool, blobs| stored.stored(pack, pool, blobs)),
        );
        Ok(Session {
            repository,
            id,
            chunk_id_key: Zeroizing::new(bundle.chunk_id_key()),
            chunker: Chunker::new(repository.format().chunking(), bundle.chunker_seed()),
            index,
            pipeline,
            reader: Reader::new(repository, readable),
        })
    }

    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Reads earlier recovery points.
    pub fn reader(&self) -> &Reader<'r> {
        &self.reader
    }

    /// Makes everything durable and commits the point. `complete` fills in what is only known then: the bytes stored.
    pub fn commit(self, complete: impl FnOnce(u64) -> Point) -> Result<Committed> {
        let Session { repository, id, index, pipeline, .. } = self;
        let outcome = (|| {
            let stored_bytes = pipeline.finish()?;
            index.flush()?;
            let written = index.written();
            let reach = Reach { packs: index.reach(), index: written.index.clone() };
            let point = complete(stored_bytes);
            let (point_id, bytes) = manifest::seal(&reach, &point, &id, &repository.writer());
            create_settled(&**repository.store(), &manifest::object_name(&point_id), &bytes)?;
            repository.commit_session(id, point_id, &reach, &point.summary)?;
            Ok(Committed { point: point_id, written, reach, stored_bytes })
        })();
        if outcome.is_err() {
            repository.end_session(id);
        }
        outcome
    }

    /// Ends the session without a recovery point.
    pub fn abandon(self) {
        let Session { repository, id, pipeline, .. } = self;
        drop(pipeline);
        repository.end_session(id);
    }

    /// Whether the session can go on: the first failure of its store, if there was one.
    pub fn check(&self) -> Result<()> {
        self.pipeline.check()
    }

    fn store_chunk(&self, pool: Pool, plain: &[u8]) -> Result<ChunkId> {
        if plain.len() > MAX_CHUNK {
            return Err(RepositoryError::ChunkTooLarge(plain.len()));
        }
        let id = chunk_id(&self.chunk_id_key, plain);
        if self.index.claim(&id)? {
            self.pipeline.submit(pool, id, plain)?;
        }
        Ok(id)
    }

    fn list_builder(&self) -> ListBuilder<impl FnMut(Vec<u8>) -> mainstay_domain::Result<ChunkId> + '_> {
        ListBuilder::new(|list: Vec<u8>| Ok(self.store_chunk(Pool::Tree, &list)?))
    }
}

/// An error of the reader or of the store, kept apart until it is reported.
enum ReadOrStore {
    Read(std::io::Error),
    Store(Failure),
}

impl From<std::io::Error> for ReadOrStore {
    fn from(error: std::io::Error) -> Self {
        ReadOrStore::Read(error)
    }
}

impl Sink for Session<'_> {
    fn put(&self, pool: Pool, chunk: &[u8]) -> mainstay_domain::Result<ChunkId> {
        Ok(self.store_chunk(pool, chunk)?)
    }

    fn put_reader(&self, pool: Pool, reader: &mut dyn Read) -> mainstay_domain::Result<Content> {
        let mut list = self.list_builder();
        let result = self.chunker.chunks::<ReadOrStore>(reader, |chunk| {
            let bytes = chunk.len() as u64;
            let stored = self.store_chunk(pool, chunk).map_err(|error| ReadOrStore::Store(error.into()))?;
            list.push(Piece::plain(stored, bytes)).map_err(ReadOrStore::Store)
        });
        match result {
            Ok(()) => list.finish(),
            Err(ReadOrStore::Store(failure)) => Err(failure),
            Err(ReadOrStore::Read(error)) => {
                Err(Failure::failed("reading what was to be backed up failed").caused_by(error))
            }
        }
    }

    fn begin(&self, pool: Pool) -> Box<dyn PieceWriter + '_> {
        Box::new(SessionStream { session: self, pool, list: self.list_builder() })
    }

    fn join(&self, pieces: &mut dyn Iterator<Item = Piece>) -> mainstay_domain::Result<Content> {
        let mut list = self.list_builder();
        for piece in pieces {
            list.push(piece)?;
        }
        list.finish()
    }

    fn adopt(&self, content: &Content) -> mainstay_domain::Result<bool> {
        for chunk in content.pieces.iter().flat_map(Piece::chunks) {
            if !self.index.adopt(chunk)? {
                return Ok(false);
            }
        }
        if content.level > 0 {
            return self.adopt_lists(content);
        }
        Ok(true)
    }
}

impl Session<'_> {
    /// Adopts what the list chunks lead to, and the list chunks between.
    fn adopt_lists(&self, content: &Content) -> mainstay_domain::Result<bool> {
        for list in &content.pieces {
            let Some(chunk) = &list.chunk else { continue };
            let bytes = self.reader.get(chunk)?;
            let pieces = crate::stream::decode_list(&bytes)
                .map_err(|_| Failure::verification(format!("list chunk {} is malformed", chunk.short())))?;
            if !self.adopt(&Content { level: content.level - 1, pieces })? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

struct SessionStream<'s, 'r, F> {
    session: &'s Session<'r>,
    pool: Pool,
    list: ListBuilder<F>,
}

impl<F: FnMut(Vec<u8>) -> mainstay_domain::Result<ChunkId> + Send> PieceWriter for SessionStream<'_, '_, F> {
    fn piece(&mut self, chunk: &[u8], marks: Marks) -> mainstay_domain::Result<()> {
        let bytes = chunk.len() as u64;
        let stored = self.session.store_chunk(self.pool, chunk)?;
        let Marks { rows, digest, key } = marks;
        self.list.push(Piece { chunk: Some(stored), bytes, rows, digest, key, patch: None })
    }

    fn finish(self: Box<Self>) -> mainstay_domain::Result<Content> {
        self.list.finish()
    }
}

#[cfg(test)]
mod tests;
