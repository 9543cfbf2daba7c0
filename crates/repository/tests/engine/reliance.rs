//! What a session relies on: nothing that was swept, is nobody's, or was found lost; and what may be given up: nothing while the
//! log is in doubt.

use crate::support::*;
use mainstay_domain::{
    Failure, Kind, PackId, Silent,
    stream::{Pool, Sink},
};
use mainstay_repository::{
    Repository, Session,
    check::{Depth, check, check_written, whole_packs},
    collect::collect,
    log::{Doubt, entry::object_name},
    pack,
};
use mainstay_stores::{FailingStore, Fault, MemoryStore, Store, Verb};
use std::{collections::BTreeSet, sync::Arc};

fn prepared() -> (MemoryStore, Arc<dyn Store>, Repository) {
    let memory = MemoryStore::new();
    let store: Arc<dyn Store> = Arc::new(memory.clone());
    let repository = create(&store);
    (memory, store, repository)
}

fn damage(memory: &MemoryStore, prefix: &str) {
    let objects = memory.objects();
    for (name, bytes) in objects.iter().filter(|(name, _)| name.starts_with(prefix)) {
        memory.overwrite(name, &bytes[..bytes.len() / 2]);
    }
}

#[test]
fn a_pack_that_is_swept_and_not_yet_deleted_is_not_relied_on() {
    let (memory, store, repository) = prepared();
    let first = back_up(&repository, &[("a", noise(1, 100_000)), ("b", noise(2, 100_000))]);
    back_up(&repository, &[("b", noise(2, 100_000))]);
    repository.drop_point(first.point, "test", "to be swept").unwrap();
    let undeletable = FailingStore::new(memory.clone(), |attempt| {
        (attempt.verb == Verb::Delete).then_some(Fault::Unavailable)
    });
    let collector = Repository::open(access(Arc::new(undeletable)), None).unwrap();
    collect(&collector, 0, &Silent).unwrap_err();
    let facts = open(&store).state().unwrap().facts;
    assert_eq!(facts.sweeps.len(), 1, "swept, and nothing deleted");
    assert!(facts.dead.is_empty(), "the one segment that is left was made without them");

    // With the index damaged, chunks are found by looking into the packs, and the swept ones still lie there.
    damage(&memory, "index/");
    let again = back_up(&open(&store), &[("a", noise(1, 100_000))]);
    assert!(again.stored_bytes > 100_000);
    collect(&open(&store), 0, &Silent).unwrap();
    let swept: Vec<_> =
        facts.sweeps.values().flat_map(|o| &o.packs).map(|id| pack::object_name(Pool::Data, id)).collect();
    assert!(!swept.is_empty() && swept.iter().all(|name| !memory.names().contains(name)));
    assert!(read(&open(&store), &again.point, 0).unwrap() == noise(1, 100_000));
}

#[test]
fn packs_that_no_readable_segment_names_are_read_and_not_relied_on() {
    let (memory, store, repository) = prepared();
    let first = back_up(&repository, &[("a", noise(1, 100_000))]);
    let orphan = Session::begin(&repository, tuning()).unwrap();
    orphan.put_reader(Pool::Data, &mut noise(2, 100_000).as_slice()).unwrap();
    orphan.abandon();
    damage(&memory, "index/");
    let repository = open(&store);
    let session = Session::begin(&repository, tuning()).unwrap();
    let content = &repository.manifest(&first.point).unwrap().point.sources[0].streams[0].content;
    let mut bytes = Vec::new();
    mainstay_domain::stream::Vault::copy(session.reader(), content, &mut bytes).unwrap();
    assert!(bytes == noise(1, 100_000), "an earlier point is read in spite of the damage");
    assert!(!session.adopt(content).unwrap(), "and not relied on");
    session.abandon();
    let again = back_up(&repository, &[("a", noise(1, 100_000)), ("b", noise(2, 100_000))]);
    assert!(again.stored_bytes > 200_000);
}

#[test]
fn what_lay_in_a_lost_pack_is_stored_again_by_the_next_backup() {
    let (memory, store, repository) = prepared();
    let first = back_up(&repository, &[("a", noise(1, 300_000))]);
    let lost = first.written.packs[0].0;
    let name = memory.names().into_iter().find(|name| name.ends_with(&lost.to_string())).unwrap();
    let bytes = memory.objects()[&name].clone();
    memory.delete(&name).unwrap();

    // Nobody knows yet: the next backup relies on it, reads back, and finds that it is gone.
    let repository = open(&store);
    let second = back_up(&repository, &[("a", noise(1, 300_000))]);
    assert_eq!(second.stored_bytes, 0);
    let report = check_written(&repository, &second, Depth::Packs, u64::MAX, 1, &Silent).unwrap();
    assert_eq!(report.lost_packs(), BTreeSet::from([lost]));
    assert!(repository.record_lost(&report.lost_packs(), &BTreeSet::new()).unwrap());
    assert!(!repository.record_lost(&report.lost_packs(), &BTreeSet::new()).unwrap(), "it is known");

    let repository = open(&store);
    let third = back_up(&repository, &[("a", noise(1, 300_000))]);
    assert!(
        third.stored_bytes > 0 && third.stored_bytes < 200_000,
        "only what was lost: {}",
        third.stored_bytes
    );
    let report = check(&repository, &[third.point], Depth::Data, 1, &Silent).unwrap();
    assert_eq!(report.findings, []);
    assert!(!third.reach.packs.contains(&lost));
    for point in [first.point, second.point, third.point] {
        assert!(read(&open(&store), &point, 0).unwrap() == noise(1, 300_000), "older points profit from it");
    }

    let known =
        |repository: &Repository| repository.refreshed_state().unwrap().facts.lost.unwrap_or_default();
    assert!(whole_packs(&repository, known(&repository), &Silent).unwrap().is_empty());
    memory.overwrite(&name, &bytes);
    let found = whole_packs(&repository, known(&repository), &Silent).unwrap();
    assert_eq!(found, BTreeSet::from([lost]));
    repository.record_lost(&BTreeSet::new(), &found).unwrap();
    assert_eq!(known(&open(&store)), BTreeSet::<PackId>::new());
}

#[test]
fn a_lost_pack_is_forgotten_when_no_point_needs_it() {
    for left in [None, Some(&b"not even a header"[..])] {
        let (memory, store, repository) = prepared();
        let first = back_up(&repository, &[("a", noise(1, 100_000))]);
        let second = back_up(&repository, &[("a", noise(2, 100_000))]);
        let lost = first.written.packs[0].0;
        let name = memory.names().into_iter().find(|name| name.ends_with(&lost.to_string())).unwrap();
        match left {
            None => memory.delete(&name).unwrap(),
            Some(bytes) => memory.overwrite(&name, bytes),
        }
        repository.record_lost(&[lost].into(), &BTreeSet::new()).unwrap();
        collect(&repository, 0, &Silent).unwrap();
        assert!(repository.state().unwrap().facts.lost.is_some(), "the first point names it");
        repository.drop_point(first.point, "test", "lost anyway").unwrap();
        collect(&repository, 0, &Silent).unwrap();
        assert_eq!(repository.state().unwrap().facts.lost, None);
        assert!(!memory.names().contains(&name));
        assert!(read(&open(&store), &second.point, 0).unwrap() == noise(2, 100_000));
        assert!(back_up(&open(&store), &[("a", noise(1, 100_000))]).stored_bytes > 100_000);
    }
}

/// A repository with so many log entries, of which some are gone.
fn with_gap(gap: std::ops::RangeInclusive<u64>) -> (Arc<dyn Store>, u64, mainstay_domain::PointId) {
    let (memory, store, repository) = prepared();
    let point = back_up(&repository, &[("a", noise(1, 20_000))]).point;
    while repository.state().unwrap().head < 60 {
        back_up(&repository, &[("a", noise(1, 20_000))]);
    }
    let head = repository.state().unwrap().head;
    for n in gap {
        memory.delete(&object_name(head - n)).unwrap();
    }
    (store, head, point)
}

#[test]
fn lost_neighbours_do_not_pass_for_the_end_of_the_log() {
    for lost in 1..=15 {
        let (store, head, _) = with_gap(1..=lost);
        let state = open(&store).state().unwrap();
        assert_eq!(state.head, head, "{lost} entries are lost before the last");
        assert!(state.doubts.len() as u64 == lost && state.doubts.values().all(|d| *d == Doubt::Missing));
    }
}

#[test]
fn a_gap_that_no_probe_crosses_is_found_before_anything_is_given_up() {
    let (store, head, point) = with_gap(1..=30);
    let repository = open(&store);
    assert!(repository.state().unwrap().head < head, "the gap is wider than the search");
    let before: usize = repository.refreshed_state().unwrap().facts.points.len();
    let collected = collect(&repository, 0, &Silent).unwrap();
    assert_eq!((collected.deleted_objects, collected.condemned_objects), (0, 0));
    assert!(before > 0 && repository.state().unwrap().head == head);
    let failure = Failure::from(open(&store).certain_state().unwrap_err());
    assert_eq!(failure.kind, Kind::Refused);
    assert!(repository.drop_point(point, "test", "in doubt").is_err());
}

#[test]
fn nothing_is_given_up_while_the_log_is_in_doubt_until_that_is_acknowledged() {
    let (store, _, point) = with_gap(3..=4);
    let repository = open(&store);
    let failure = Failure::from(repository.drop_point(point, "test", "in doubt").unwrap_err());
    assert_eq!(failure.kind, Kind::Refused);
    assert!(failure.hint.unwrap().contains("repair --acknowledge"));
    assert!(repository.state().unwrap().facts.points.contains_key(&point));
    let doubts: Vec<u64> = repository.state().unwrap().doubts.into_keys().collect();
    assert_eq!(doubts.len(), 2);
    repository.acknowledge(&doubts).unwrap();
    repository.certain_state().unwrap();
    repository.drop_point(point, "test", "no doubt").unwrap();
    assert!(!open(&store).state().unwrap().facts.points.contains_key(&point));
}

#[test]
fn a_point_whose_commit_was_lost_can_be_taken_back() {
    let (memory, store, repository) = prepared();
    let first = back_up(&repository, &[("a", noise(1, 100_000))]);
    let commit = repository.state().unwrap().head;
    let second = back_up(&repository, &[("a", noise(1, 100_000)), ("b", noise(2, 100_000))]);
    memory.delete(&object_name(commit)).unwrap();
    let repository = open(&store);
    assert!(repository.adopt_point(first.point).is_err(), "not while anything is in doubt");
    repository.acknowledge(&[commit]).unwrap();
    assert!(!repository.state().unwrap().facts.points.contains_key(&first.point));
    repository.adopt_point(first.point).unwrap();

    // Garbage of a third, so that the index is rewritten: what the point needs is named again, and nothing of it goes.
    let third = back_up(&repository, &[("a", noise(3, 100_000))]);
    repository.drop_point(third.point, "test", "garbage").unwrap();
    collect(&open(&store), 0, &Silent).unwrap();
    let repository = open(&store);
    let points = [first.point, second.point];
    assert_eq!(check(&repository, &points, Depth::Data, 1, &Silent).unwrap().findings, []);
    assert!(read(&repository, &first.point, 0).unwrap() == noise(1, 100_000));
    assert_eq!(back_up(&repository, &[("a", noise(1, 100_000))]).stored_bytes, 0, "it is known again");
}

#[test]
fn a_point_of_which_something_is_given_up_or_gone_is_not_taken_back() {
    let (_, store, repository) = prepared();
    let first = back_up(&repository, &[("a", noise(1, 100_000))]);
    back_up(&repository, &[("a", noise(2, 100_000))]);
    repository.drop_point(first.point, "test", "given up").unwrap();
    let waiting = Session::begin(&open(&store), tuning()).map(|session| session.id()).unwrap();
    collect(&repository, i64::MAX, &Silent).unwrap();
    let refused = |expected: Kind| {
        let failure = Failure::from(open(&store).adopt_point(first.point).unwrap_err());
        assert_eq!(failure.kind, expected, "{failure}");
        let state = open(&store).state().unwrap();
        assert!(!state.facts.points.contains_key(&first.point));
        assert!(state.facts.sessions.keys().all(|id| *id == waiting), "its session is over");
    };
    assert_eq!(open(&store).state().unwrap().facts.condemned.len(), 1, "condemned, not swept");
    refused(Kind::Refused);

    let (memory, store, repository) = prepared();
    let point = back_up(&repository, &[("a", noise(1, 100_000))]);
    repository.drop_point(point.point, "test", "given up").unwrap();
    let pack = memory.names().into_iter().find(|name| name.starts_with("packs/")).unwrap();
    memory.delete(&pack).unwrap();
    assert_eq!(Failure::from(open(&store).adopt_point(point.point).unwrap_err()).kind, Kind::Verification);
}
