//! The exact calls of what changes who may open a repository, and what is in it.

#![allow(clippy::unwrap_used)]

use mainstay_domain::{
    Clock, Time,
    point::{Point, State, Summary},
};
use mainstay_keys::secret::Secret;
use mainstay_operations::{keys, manage, points};
use mainstay_repository::{Access, Repository, Session, Tuning, stream::Chunking};
use mainstay_stores::{MemoryStore, RecordingStore};
use std::sync::Arc;

struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> Time {
        Time(1_767_225_600_000_000_000)
    }
}

/// A repository in which two points of `shop` are.
fn prepared() -> (RecordingStore<MemoryStore>, Repository) {
    let recording = RecordingStore::new(MemoryStore::new());
    let access = || Access {
        store: Arc::new(recording.clone()),
        secret: Secret::Key([7; 32]),
        clock: Arc::new(Stopped),
        cache: None,
    };
    Repository::init(&access(), "first", Chunking::default()).unwrap();
    let repository = Repository::open(access(), None).unwrap();
    for sequence in 1..3 {
        let at = Stopped.now().plus(sequence as i64 - 9);
        let summary = Summary {
            app: "shop".into(),
            environment: "production".into(),
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
        };
        let session = Session::begin(&repository, Tuning::default()).unwrap();
        let point =
            Point { summary, sources: Vec::new(), previous: None, supersedes: None, tool: "test".into() };
        session.commit(|_| point).unwrap();
    }
    recording.take();
    (recording, repository)
}

/// Each call by its verb and the kind of object.
fn exactly(recording: &RecordingStore<MemoryStore>) -> Vec<String> {
    let kind = |name: &str| name.split('/').next().unwrap().to_owned();
    recording.take().iter().map(|call| format!("{} {}", call.verb, kind(&call.name))).collect()
}

#[test]
fn adding_a_key_writes_one_object_and_removing_it_deletes_that_one() {
    let (recording, repository) = prepared();
    let second = Secret::Key([9; 32]);
    assert!(keys::add(&repository, &second, "second", &Stopped).unwrap().is_none());
    assert_eq!(exactly(&recording), ["list keys", "read keys", "create keys"]);
    assert!(keys::add(&repository, &second, "again", &Stopped).unwrap().is_some());
    assert_eq!(exactly(&recording), ["list keys", "read keys", "read keys"]);
    assert_eq!(keys::remove(&repository, "second").unwrap().label, "second");
    assert_eq!(exactly(&recording), ["list keys", "read keys", "read keys", "delete keys"]);
}

#[test]
fn a_hold_is_an_entry_and_so_is_its_end() {
    let (recording, repository) = prepared();
    let point = points::list(&repository, None).unwrap().remove(0);
    assert_eq!(exactly(&recording), [] as [&str; 0]);
    manage::hold(&repository, &point, "legal", "case 17", "ann", None, &Stopped).unwrap();
    assert_eq!(exactly(&recording), ["read log", "stat log", "stat log", "create log"]);
    assert_eq!(manage::release(&repository, &point, None, "ann", "closed").unwrap(), 1);
    assert_eq!(exactly(&recording), ["read log", "stat log", "stat log", "create log"]);
}

#[test]
fn deleting_a_point_writes_an_entry_after_a_thorough_look_at_the_log_and_deletes_nothing() {
    let (recording, repository) = prepared();
    let point = points::list(&repository, None).unwrap().remove(0);
    manage::delete(&repository, &[point], &|_, _| true, "ann", "by hand", Stopped.now(), |_| {}).unwrap();
    let look = ["read log", "stat log", "stat log"];
    let thorough = ["read log", "stat log", "stat log", "list log"];
    assert_eq!(exactly(&recording), [&thorough[..], &look, &look, &["create log"], &look].concat());
}
