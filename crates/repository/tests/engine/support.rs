//! A repository in memory, and a source that needs no source.

use mainstay_domain::{
    Clock, Failure, PointId, Time,
    point::{Point, SourceRecord, State, Stream, Summary},
    stream::{Pool, Sink, Vault},
};
use mainstay_keys::secret::Secret;
use mainstay_repository::{Access, Repository, Session, Tuning, stream::Chunking};
use mainstay_stores::Store;
use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

/// A clock that moves a second each time it is asked, whoever asks: it goes on when a repository is opened again.
pub struct Ticking;

static NOW: AtomicI64 = AtomicI64::new(1_700_000_000_000_000_000);

impl Clock for Ticking {
    fn now(&self) -> Time {
        Time(NOW.fetch_add(1_000_000_000, Ordering::Relaxed))
    }
}

pub const CHUNKING: Chunking = Chunking { minimum: 1 << 10, average: 4 << 10, maximum: 16 << 10 };

pub fn tuning() -> Tuning {
    Tuning { compress: true, level: Some(1), pack_bytes: 64 << 10, compressors: 2, in_flight: 1 << 20 }
}

pub fn access(store: Arc<dyn Store>) -> Access {
    let clock = Arc::new(Ticking);
    Access { store, secret: Secret::Key([7; 32]), clock, cache: None }
}

pub fn create(store: &Arc<dyn Store>) -> Repository {
    Repository::init(&access(store.clone()), "test", CHUNKING).unwrap();
    open(store)
}

pub fn open(store: &Arc<dyn Store>) -> Repository {
    Repository::open(access(store.clone()), None).unwrap()
}

/// Bytes that do not compress and are the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

pub fn summary(app: &str, sequence: u64, at: Time) -> Summary {
    Summary {
        app: app.into(),
        environment: "test".into(),
        policy: None,
        host: "here".into(),
        started: at,
        finished: at,
        sequence,
        state: State::Complete,
        sources: Vec::new(),
        stored_bytes: 0,
        labels: Default::default(),
        next_expected: None,
        keep_until: None,
    }
}

/// Captures named byte strings as streams of one source.
pub fn back_up(repository: &Repository, streams: &[(&str, Vec<u8>)]) -> mainstay_repository::Committed {
    try_back_up(repository, streams).unwrap()
}

pub fn try_back_up(
    repository: &Repository,
    streams: &[(&str, Vec<u8>)],
) -> Result<mainstay_repository::Committed, mainstay_repository::RepositoryError> {
    let session = Session::begin(repository, tuning())?;
    let mut stored = Vec::new();
    for (name, bytes) in streams {
        match session.put_reader(Pool::Data, &mut bytes.as_slice()) {
            Ok(content) => stored.push(Stream { name: (*name).into(), content }),
            Err(failure) => {
                session.abandon();
                return Err(failure.into());
            }
        }
    }
    let at = repository.clock().now();
    session.commit(|_| point(at, stored))
}

pub fn point(at: Time, streams: Vec<Stream>) -> Point {
    let source = SourceRecord {
        name: "bytes".into(),
        kind: "bytes".into(),
        state: State::Complete,
        started: at,
        finished: at,
        consistent_at: None,
        streams,
        facts: "{}".into(),
        problems: Vec::new(),
        bytes: 0,
        items: 0,
        partial: false,
    };
    Point {
        summary: summary("app", 1, at),
        sources: vec![source],
        previous: None,
        supersedes: None,
        tool: "test".into(),
    }
}

/// The bytes of a point's stream, read as a restore does: from its manifest alone.
pub fn read(repository: &Repository, point: &PointId, stream: usize) -> Result<Vec<u8>, Failure> {
    let manifest = repository.manifest(point).map_err(Failure::from)?;
    let reader = repository.reader_for(&manifest).map_err(Failure::from)?;
    let mut out = Vec::new();
    reader.copy(&manifest.point.sources[0].streams[stream].content, &mut out)?;
    Ok(out)
}
