//! What a session knows of where chunks lie: the index as it was at its beginning, and what it has stored since.
//!
//! Memory is bounded: when the records of stored packs reach [`FLUSH_RECORDS`], they become an index segment (after their
//! packs, before any manifest), and are from then on found through the local file like all others.

use crate::{
    envelope::Writer,
    error::Result,
    index::{Cache, PackNumber, Record, Segment, View, object_name, seal_segment},
    pack::Blob,
    session::pipeline::create_settled,
};
use mainstay_domain::{ChunkId, DomainId, ObjectId, PackId, stream::Pool};
use mainstay_stores::Store;
use std::{
    collections::{BTreeSet, HashSet},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};

/// Records kept in memory before they become a segment: about 6 MB of them.
const FLUSH_RECORDS: usize = 120_000;
const SHARDS: usize = 64;

pub struct IndexWriter {
    pub view: Arc<View>,
    pub cache: Arc<Cache>,
    store: Arc<dyn Store>,
    writer: Arc<Writer>,
    domain: DomainId,
    /// Chunks handed to the pipeline whose segment is not yet written.
    pending: Vec<Mutex<HashSet<ChunkId>>>,
    buffer: Mutex<Segment>,
    written: Mutex<Written>,
    reused: Mutex<BTreeSet<PackNumber>>,
    last_reused: AtomicU64,
}

/// What a session has added to the store.
#[derive(Debug, Clone, Default)]
pub struct Written {
    pub packs: Vec<(PackId, Pool)>,
    pub index: Vec<ObjectId>,
}

impl IndexWriter {
    pub fn new(
        view: Arc<View>,
        cache: Arc<Cache>,
        store: Arc<dyn Store>,
        writer: Arc<Writer>,
        domain: DomainId,
    ) -> Self {
        IndexWriter {
            view,
            cache,
            store,
            writer,
            domain,
            pending: (0..SHARDS).map(|_| Mutex::default()).collect(),
            buffer: Mutex::default(),
            written: Mutex::default(),
            reused: Mutex::default(),
            last_reused: AtomicU64::new(u64::MAX),
        }
    }

    /// Whether the chunk must be stored: `false` if it is stored already or on its way. Each new chunk is claimed once.
    pub fn claim(&self, chunk: &ChunkId) -> Result<bool> {
        let shard = &self.pending[chunk.0[0] as usize % SHARDS];
        if lock(shard).contains(chunk) {
            return Ok(false);
        }
        if let Some(found) = self.view.find(chunk)? {
            self.reuse(found.pack);
            return Ok(false);
        }
        Ok(lock(shard).insert(*chunk))
    }

    /// Marks the chunk's pack as needed by this session's point; `false` if the chunk is in no pack to be relied on.
    pub fn adopt(&self, chunk: &ChunkId) -> Result<bool> {
        match self.view.pack_of(chunk)? {
            Some(pack) => {
                self.reuse(pack);
                Ok(true)
            }
            None => Ok(lock(&self.pending[chunk.0[0] as usize % SHARDS]).contains(chunk)),
        }
    }

    fn reuse(&self, pack: PackNumber) {
        let number = pack.get();
        if self.last_reused.swap(number, Ordering::Relaxed) != number {
            lock(&self.reused).insert(pack);
        }
    }

    /// Takes the records of a pack that is durable now.
    pub fn stored(&self, pack: PackId, pool: Pool, blobs: Vec<Blob>) -> Result<()> {
        lock(&self.written).packs.push((pack, pool));
        let full = {
            let mut buffer = lock(&self.buffer);
            let number = buffer.packs.len() as u32;
            buffer.packs.push((pack, pool));
            buffer.records.extend(blobs.into_iter().map(|blob| Record {
                chunk: blob.chunk,
                pack: number,
                offset: blob.offset,
                length: blob.length,
                plain_length: blob.plain_length,
            }));
            (buffer.records.len() >= FLUSH_RECORDS).then(|| std::mem::take(&mut *buffer))
        };
        full.map_or(Ok(()), |segment| self.write_segment(segment))
    }

    /// Writes what is left as a last segment.
    pub fn flush(&self) -> Result<()> {
        let rest = std::mem::take(&mut *lock(&self.buffer));
        if rest.records.is_empty() { Ok(()) } else { self.write_segment(rest) }
    }

    fn write_segment(&self, mut segment: Segment) -> Result<()> {
        segment.sort();
        let (id, bytes) = seal_segment(&segment, self.domain, &self.writer);
        create_settled(&*self.store, &object_name(&id), &bytes)?;
        drop(bytes);
        // Findable first, then no longer pending: a chunk is at no moment in neither.
        self.view.add(self.cache.keep(id, &segment)?);
        for record in &segment.records {
            lock(&self.pending[record.chunk.0[0] as usize % SHARDS]).remove(&record.chunk);
        }
        lock(&self.written).index.push(id);
        Ok(())
    }

    pub fn written(&self) -> Written {
        lock(&self.written).clone()
    }

    /// Every pack that this session's point needs, sorted.
    pub fn reach(&self) -> Vec<PackId> {
        let mut packs: BTreeSet<PackId> = lock(&self.written).packs.iter().map(|(id, _)| *id).collect();
        packs.extend(lock(&self.reused).iter().map(|number| self.view.pack(*number).0));
        packs.into_iter().collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
