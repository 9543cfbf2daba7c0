//! A machine whose memory cannot be relied on.

use super::*;
use crate::{Access, stream::Chunking};
use mainstay_domain::{Clock, Kind, Time, point::State};
use mainstay_keys::secret::Secret;
use mainstay_stores::MemoryStore;

struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> Time {
        Time(1_700_000_000_000_000_000)
    }
}

fn access(memory: &MemoryStore) -> Access {
    let store = Arc::new(memory.clone());
    Access { store, secret: Secret::Key([7; 32]), clock: Arc::new(Stopped), cache: None }
}

fn point() -> Point {
    let summary = mainstay_domain::point::Summary {
        app: "shop".into(),
        environment: String::new(),
        policy: None,
        host: String::new(),
        started: Time(0),
        finished: Time(0),
        sequence: 1,
        state: State::Complete,
        sources: Vec::new(),
        stored_bytes: 0,
        labels: Default::default(),
        next_expected: None,
        keep_until: None,
    };
    Point { summary, sources: Vec::new(), previous: None, supersedes: None, tool: String::new() }
}

#[test]
fn a_byte_that_goes_wrong_between_reading_and_sealing_is_never_committed_and_never_leaves_the_machine() {
    for pool in [Pool::Data, Pool::Tree] {
        let memory = MemoryStore::new();
        Repository::init(&access(&memory), "test", Chunking::default()).unwrap();
        let repository = Repository::open(access(&memory), None).unwrap();
        let session = Session::begin(&repository, Tuning::default()).unwrap();
        let good = session.put(pool, b"what was read, and stays as it was").unwrap();

        let mut chunk = b"what was read".to_vec();
        let id = chunk_id(&session.chunk_id_key, &chunk);
        assert!(session.index.claim(&id).unwrap());
        chunk[3] ^= 0x10; // by nobody
        session.pipeline.submit(pool, id, &chunk).unwrap();

        let failure = Failure::from(session.commit(|_| point()).unwrap_err());
        assert_eq!(failure.kind, Kind::Failed);
        assert!(failure.hint.as_deref().is_some_and(|hint| hint.contains("memory")), "{failure:?}");
        let state = repository.refreshed_state().unwrap();
        assert!(state.facts.points.is_empty() && state.facts.sessions.is_empty(), "ended without a point");
        let stored = |prefix| memory.names().iter().filter(|name| name.starts_with(prefix)).count();
        assert_eq!((stored("packs/"), stored("index/"), stored("manifests/")), (0, 0, 0));

        // It may have been a single time; what was not stored is not taken for known.
        let session = Session::begin(&repository, Tuning::default()).unwrap();
        chunk[3] ^= 0x10;
        assert_eq!(session.put(pool, &chunk).unwrap(), id);
        assert_ne!(good, id);
        session.commit(|_| point()).unwrap();
        assert_eq!(repository.reader().unwrap().get(&id).unwrap(), chunk);
    }
}
