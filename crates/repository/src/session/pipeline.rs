//! The way of a chunk from the caller's hands to a durable pack.
//!
//! `submit` (any thread) → compressors (bounded by bytes in flight) → the pool's open pack → sealed, decoded again and hashed
//! by the compressor that filled it → uploader (bounded by one waiting pack) → `on_stored`. The first failure stops all of it
//! and is what every later call reports.

use super::spare::Spare;
use crate::{
    error::{RepositoryError, Result},
    pack::{Blob, Builder, Built, Choice, Compressor, Effort, WriteContext, object_name},
};
use crossbeam_channel::{Receiver, Sender, bounded};
use mainstay_domain::{ChunkId, Failure, PackId, stream::Pool};
use mainstay_stores::{Store, StoreError};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

/// Sizes that bound memory and shape packs.
#[derive(Debug, Clone, Copy)]
pub struct Tuning {
    /// Whether chunks are compressed at all.
    pub compress: bool,
    /// zstd level, 1 to 19; `None`: 1 or 3, whichever pays for what is stored.
    pub level: Option<i32>,
    /// A pack is finished when it reaches this many bytes.
    pub pack_bytes: usize,
    /// Threads that compress.
    pub compressors: usize,
    /// Plaintext bytes that may wait for a compressor.
    pub in_flight: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, |n| n.get());
        Tuning {
            compress: true,
            level: None,
            pack_bytes: 16 << 20,
            compressors: cores.clamp(2, 8),
            in_flight: 16 << 20,
        }
    }
}

/// What is told about each pack once it is durable.
pub type OnStored = Box<dyn Fn(PackId, Pool, Vec<Blob>) -> Result<()> + Send + Sync>;

struct Job {
    pool: Pool,
    chunk: ChunkId,
    plain: Vec<u8>,
    effort: Effort,
}

thread_local! {
    /// What pays for the chunks of this thread.
    static CHOICE: Arc<Choice> = Arc::default();
}

pub struct Pipeline {
    shared: Arc<Shared>,
    jobs: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
    uploader: Option<JoinHandle<()>>,
}

struct Shared {
    context: WriteContext,
    tuning: Tuning,
    open: [Mutex<Builder>; 2],
    budget: Budget,
    spare: Spare,
    failed: AtomicBool,
    failure: Mutex<Option<Failure>>,
    stored_bytes: AtomicU64,
    /// `None` once nothing more will be uploaded.
    uploads: Mutex<Option<Sender<Built>>>,
}

impl Pipeline {
    pub fn start(
        store: Arc<dyn Store>,
        context: WriteContext,
        tuning: Tuning,
        on_stored: OnStored,
    ) -> Pipeline {
        let (jobs, incoming) = bounded::<Job>(4096);
        let (uploads, finished) = bounded::<Built>(1);
        let shared = Arc::new(Shared {
            context,
            tuning,
            open: [Pool::Data, Pool::Tree].map(|pool| Mutex::new(Builder::new(pool, Vec::new()))),
            budget: Budget { left: Mutex::new(tuning.in_flight), changed: Condvar::new() },
            spare: Spare::new(tuning.in_flight),
            failed: AtomicBool::new(false),
            failure: Mutex::new(None),
            stored_bytes: AtomicU64::new(0),
            uploads: Mutex::new(Some(uploads)),
        });
        let threads = (0..tuning.compressors.max(1))
            .map(|_| {
                let (shared, incoming) = (shared.clone(), incoming.clone());
                std::thread::spawn(move || shared.compress_all(&incoming))
            })
            .collect();
        let uploader = {
            let shared = shared.clone();
            std::thread::spawn(move || shared.upload_all(&*store, &finished, &on_stored))
        };
        Pipeline { shared, jobs: Some(jobs), threads, uploader: Some(uploader) }
    }

    /// Hands a copy of a chunk over; waits while too much is in flight.
    pub fn submit(&self, pool: Pool, chunk: ChunkId, plain: &[u8]) -> Result<()> {
        let cost = self.shared.cost(plain.len());
        self.shared.budget.take(cost);
        let effort = match self.shared.tuning {
            Tuning { compress: false, .. } => Effort::None,
            Tuning { level: Some(_), .. } => Effort::Given,
            Tuning { level: None, .. } => CHOICE.with(Choice::next),
        };
        let jobs = self.jobs.as_ref().expect("jobs are closed only by close");
        let sent = self.shared.check().and_then(|()| {
            jobs.send(Job { pool, chunk, plain: self.shared.spare.copy(plain), effort })
                .map_err(|_| RepositoryError::Session("the session has ended".into()))
        });
        if sent.is_err() {
            self.shared.budget.give_back(cost); // other callers wait for this room, and must learn of the failure
        }
        sent
    }

    pub fn check(&self) -> Result<()> {
        self.shared.check()
    }

    /// Waits until everything handed over is durable. Returns the bytes added to the store.
    pub fn finish(mut self) -> Result<u64> {
        self.close();
        match lock(&self.shared.failure).take() {
            Some(failure) => Err(failure.into()),
            None => Ok(self.shared.stored_bytes.load(Ordering::Acquire)),
        }
    }

    fn close(&mut self) {
        self.jobs.take();
        for thread in self.threads.drain(..) {
            self.shared.joined(thread);
        }
        let flushed = [0, 1].iter().try_for_each(|slot| self.shared.finish_pack(*slot));
        self.shared.note(flushed);
        lock(&self.shared.uploads).take();
        if let Some(uploader) = self.uploader.take() {
            self.shared.joined(uploader);
        }
    }
}

impl Drop for Pipeline {
    /// An abandoned session stops its threads; what it wrote is garbage that a collector removes.
    fn drop(&mut self) {
        if self.uploader.is_some() {
            self.shared.note(Err(RepositoryError::Session("the session was abandoned".into())));
            self.close();
        }
    }
}

impl Shared {
    fn compress_all(&self, incoming: &Receiver<Job>) {
        let mut compressor = Compressor::new(self.tuning.level);
        for job in incoming {
            let cost = self.cost(job.plain.len());
            if !self.failed.load(Ordering::Acquire) {
                // A panic must end the session, not this thread: callers wait for the room that it gives back.
                let compressed = catch_unwind(AssertUnwindSafe(|| self.compress(&mut compressor, job)));
                self.note(compressed.unwrap_or_else(|_| {
                    Err(RepositoryError::Session("a compressing thread panicked".into()))
                }));
            }
            self.budget.give_back(cost);
        }
    }

    fn compress(&self, compressor: &mut Compressor, job: Job) -> Result<()> {
        let staged = compressor.stage(job.chunk, &job.plain, &job.effort);
        let slot = slot_of(job.pool);
        let full = {
            let mut open = lock(&self.open[slot]);
            open.push(staged);
            (open.bytes() >= self.tuning.pack_bytes)
                .then(|| std::mem::replace(&mut *open, Builder::new(job.pool, self.spare.pack())))
        };
        self.spare.give_back(job.plain);
        full.map_or(Ok(()), |builder| self.seal_and_send(builder))
    }

    fn finish_pack(&self, slot: usize) -> Result<()> {
        let pool = if slot == 0 { Pool::Data } else { Pool::Tree };
        let builder = std::mem::replace(&mut *lock(&self.open[slot]), Builder::new(pool, Vec::new()));
        if builder.is_empty() || self.failed.load(Ordering::Acquire) {
            Ok(())
        } else {
            self.seal_and_send(builder)
        }
    }

    fn seal_and_send(&self, builder: Builder) -> Result<()> {
        let (built, staged) = builder.finish(&self.context, self.spare.pack())?;
        self.spare.give_back_pack(staged);
        let uploads = lock(&self.uploads).clone();
        let uploads = uploads.expect("uploads close after the compressors have ended");
        uploads.send(built).map_err(|_| RepositoryError::Session("the uploader has ended".into()))
    }

    fn upload_all(&self, store: &dyn Store, finished: &Receiver<Built>, on_stored: &OnStored) {
        for built in finished {
            if self.failed.load(Ordering::Acquire) {
                continue; // drain, so that no compressor waits for room
            }
            let name = object_name(built.pool, &built.id);
            let stored = create_settled(store, &name, &built.bytes).and_then(|()| {
                self.stored_bytes.fetch_add(built.bytes.len() as u64, Ordering::AcqRel);
                self.spare.give_back_pack(built.bytes);
                on_stored(built.id, built.pool, built.blobs)
            });
            self.note(stored);
        }
    }

    fn cost(&self, bytes: usize) -> usize {
        bytes.min(self.tuning.in_flight)
    }

    /// Keeps the first failure.
    fn note(&self, result: Result<()>) {
        if let Err(error) = result {
            lock(&self.failure).get_or_insert_with(|| error.into());
            self.failed.store(true, Ordering::Release);
        }
    }

    fn check(&self) -> Result<()> {
        if !self.failed.load(Ordering::Acquire) {
            return Ok(());
        }
        let message =
            lock(&self.failure).as_ref().map_or_else(|| "the session failed".into(), |f| f.message.clone());
        Err(RepositoryError::Session(message))
    }

    fn joined(&self, thread: JoinHandle<()>) {
        if thread.join().is_err() {
            self.note(Err(RepositoryError::Session("a writing thread panicked".into())));
        }
    }
}

/// How often one create is sent while its answer stays unclear.
const SENDS: usize = 4;

/// Creates a content-named object. One that is already there has the same bytes: its name says so. An unclear answer is
/// settled by sending the same again: an object that can be seen may still vanish in a power cut, and the store answers for
/// its lasting only with `Ok` or `AlreadyExists`.
pub fn create_settled(store: &dyn Store, name: &str, bytes: &[u8]) -> Result<()> {
    let mut unclear = None;
    for _ in 0..SENDS {
        match store.create(name, bytes) {
            Ok(()) | Err(StoreError::AlreadyExists { .. }) => return Ok(()),
            Err(error @ StoreError::Unclear { .. }) => unclear = Some(error),
            Err(error) => return Err(unclear.unwrap_or(error).into()),
        }
    }
    Err(unclear.expect("every answer was unclear").into())
}

/// Bytes that may still be taken; waiting callers are woken when some come back.
struct Budget {
    left: Mutex<usize>,
    changed: Condvar,
}

impl Budget {
    fn take(&self, bytes: usize) {
        let mut left = lock(&self.left);
        while *left < bytes {
            left = self.changed.wait(left).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        *left -= bytes;
    }

    fn give_back(&self, bytes: usize) {
        *lock(&self.left) += bytes;
        self.changed.notify_all();
    }
}

fn slot_of(pool: Pool) -> usize {
    match pool {
        Pool::Data => 0,
        Pool::Tree => 1,
    }
}

/// A panicking thread is reported as the session's failure; its locks stay usable so that the others can end.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
