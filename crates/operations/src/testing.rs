//! A repository in memory with points that hold nothing, for tests of what becomes of points.

use crate::points::{self, PointInfo};
use mainstay_domain::{
    Clock, PointId, Time,
    point::{Point, Proof, ProofLevel, SourceRecord, SourceSummary, State, Stream, Summary},
    stream::{Pool, Sink},
    time::MINUTE,
};
use mainstay_keys::secret::Secret;
use mainstay_repository::{
    Access, Committed, Repository, RepositoryError, Session, Tuning, stream::Chunking,
};
use mainstay_stores::{MemoryStore, Store};
use std::sync::Arc;

/// When everything happens in these tests.
pub const NOW: Time = Time(1_767_225_600_000_000_000);

/// An application of which prune keeps one point.
pub const CONFIG: &str = "version: 1
stores:
  local: { url: \"file:///nowhere\" }
repositories:
  main: { key: { env: KEY }, stores: [local] }
apps:
  shop:
    repository: main
    sources:
      uploads: { files: { paths: [\"/nowhere\"] } }
    policies:
      nightly: { keep: { last: 1 } }
";

struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> Time {
        NOW
    }
}

/// A store with a new repository in it.
pub fn store() -> MemoryStore {
    let store = MemoryStore::new();
    Repository::init(&access(&store), "test", Chunking::default()).unwrap();
    store
}

/// One more process that works on it.
pub fn open(store: &MemoryStore) -> Repository {
    Repository::open(access(store), None).unwrap()
}

/// The same, over a store that fails on purpose.
pub fn open_over(store: Arc<dyn Store>) -> Repository {
    try_open_over(store).unwrap()
}

pub fn try_open_over(store: Arc<dyn Store>) -> Result<Repository, RepositoryError> {
    Repository::open(Access { store, ..access(&MemoryStore::new()) }, None)
}

fn access(store: &MemoryStore) -> Access {
    let store = Arc::new(store.clone());
    Access { store, secret: Secret::Key([7; 32]), clock: Arc::new(Stopped), cache: None }
}

/// Commits a point of `shop` that is `minutes` old.
pub fn point(repository: &Repository, state: State, policy: Option<&str>, minutes: i64) -> PointInfo {
    labelled(repository, state, policy, minutes, &[])
}

/// The same, with labels that only have names.
pub fn labelled(
    repository: &Repository,
    state: State,
    policy: Option<&str>,
    minutes: i64,
    labels: &[&str],
) -> PointInfo {
    commit(repository, state, policy, minutes, labels, &["uploads"], false)
}

/// The same, of other sources than `uploads`.
pub fn with_sources(
    repository: &Repository,
    state: State,
    policy: Option<&str>,
    minutes: i64,
    sources: &[&str],
) -> PointInfo {
    commit(repository, state, policy, minutes, &[], sources, false)
}

/// A complete one that leaves something out of each of its sources on purpose.
pub fn with_parts(repository: &Repository, minutes: i64, sources: &[&str]) -> PointInfo {
    commit(repository, State::Complete, None, minutes, &[], sources, true)
}

fn commit(
    repository: &Repository,
    state: State,
    policy: Option<&str>,
    minutes: i64,
    labels: &[&str],
    sources: &[&str],
    partial: bool,
) -> PointInfo {
    let source = |name: &&str| SourceSummary {
        name: (*name).to_owned(),
        kind: "files".into(),
        state,
        bytes: 0,
        items: 0,
        partial,
    };
    let mut summary = summary(state, policy, minutes);
    summary.sources = sources.iter().map(source).collect();
    summary.labels = labels.iter().map(|name| ((*name).to_owned(), String::new())).collect();
    let session = Session::begin(repository, Tuning::default()).unwrap();
    let id = session.commit(|_| of(summary, Vec::new())).unwrap().point;
    points::list(repository, None).unwrap().into_iter().find(|point| point.id == id).unwrap()
}

fn summary(state: State, policy: Option<&str>, minutes: i64) -> Summary {
    let at = NOW.plus(-minutes * MINUTE);
    Summary {
        app: "shop".into(),
        environment: "test".into(),
        policy: policy.map(Into::into),
        host: "here".into(),
        started: at,
        finished: at,
        sequence: 1,
        state,
        sources: Vec::new(),
        stored_bytes: 0,
        labels: Default::default(),
        next_expected: None,
        keep_until: None,
    }
}

fn of(summary: Summary, sources: Vec<SourceRecord>) -> Point {
    Point { summary, sources, previous: None, supersedes: None, tool: "test".into() }
}

/// Commits a complete point of `uploads` that holds `bytes`.
pub fn holding(repository: &Repository, policy: Option<&str>, minutes: i64, bytes: &[u8]) -> Committed {
    let tuning = Tuning { level: Some(1), pack_bytes: 64 << 10, ..Tuning::default() };
    let session = Session::begin(repository, tuning).unwrap();
    let content = session.put_reader(Pool::Data, &mut &*bytes).unwrap();
    let mut summary = summary(State::Complete, policy, minutes);
    let source = SourceRecord {
        name: "uploads".into(),
        kind: "bytes".into(),
        state: State::Complete,
        started: summary.started,
        finished: summary.finished,
        consistent_at: None,
        streams: vec![Stream { name: "bytes".into(), content }],
        facts: "{}".into(),
        problems: Vec::new(),
        bytes: bytes.len() as u64,
        items: 1,
        partial: false,
    };
    summary.sources = vec![source.in_brief()];
    session.commit(|_| of(summary, vec![source])).unwrap()
}

/// A complete point of a policy, whose sources each took so many minutes and all of it as many as is said first.
pub fn lasting(repository: &Repository, policy: &str, minutes: i64, sources: &[(&str, i64)]) -> PointInfo {
    let mut summary = summary(State::Complete, Some(policy), minutes);
    summary.finished = NOW;
    let source = |(name, took): &(&str, i64)| SourceRecord {
        name: (*name).into(),
        kind: "bytes".into(),
        state: State::Complete,
        started: summary.started,
        finished: summary.started.plus(took * MINUTE),
        consistent_at: None,
        streams: Vec::new(),
        facts: "{}".into(),
        problems: Vec::new(),
        bytes: 0,
        items: 0,
        partial: false,
    };
    let sources: Vec<_> = sources.iter().map(source).collect();
    summary.sources = sources.iter().map(SourceRecord::in_brief).collect();
    let session = Session::begin(repository, Tuning::default()).unwrap();
    let id = session.commit(|_| of(summary, sources)).unwrap().point;
    points::list(repository, None).unwrap().into_iter().find(|point| point.id == id).unwrap()
}

/// Records what a restore test of a point found.
pub fn proof(repository: &Repository, point: PointId, passed: bool, at: Time) {
    let proof = Proof { at, level: ProofLevel::Restore, passed, restore_millis: 1, report: String::new() };
    repository.record_proof(point, proof).unwrap();
}

/// The points that are left, as another process sees them.
pub fn left(store: &MemoryStore) -> Vec<PointId> {
    points::list(&open(store), None).unwrap().into_iter().map(|point| point.id).collect()
}
