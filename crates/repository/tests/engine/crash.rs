//! Nothing acknowledged is ever lost: the process dies before and after every storage operation of a backup and of a
//! collection, answers are lost, disks fill; every committed point stays whole and the next run is clean.

use crate::support::*;
use mainstay_domain::{PointId, Silent};
use mainstay_repository::{
    Repository, Session,
    check::{Depth, check},
    collect::collect,
};
use mainstay_stores::{FailingStore, Fault, MemoryStore, Store, Verb};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

const SMALL: &[(&str, u64, usize)] = &[("a", 1, 150_000), ("b", 2, 40_000)];

fn streams(list: &[(&'static str, u64, usize)]) -> Vec<(&'static str, Vec<u8>)> {
    list.iter().map(|(name, seed, length)| (*name, noise(*seed, *length))).collect()
}

fn live(repository: &Repository) -> Vec<PointId> {
    repository.refreshed_state().unwrap().facts.points.keys().copied().collect()
}

/// Every live point is whole, `must_have` are among them, and a further backup and collection work and leave no garbage.
fn assert_sound(memory: &MemoryStore, must_have: &[PointId], case: &str) {
    let store: Arc<dyn Store> = Arc::new(memory.clone());
    let repository = open(&store);
    let points = live(&repository);
    for point in must_have {
        assert!(points.contains(point), "{case}: a committed point is gone");
    }
    let report = check(&repository, &points, Depth::Data, 1, &Silent).unwrap();
    assert_eq!(report.findings, [], "{case}");
    let new = back_up(&repository, &[("after", noise(9, 30_000))]);
    collect(&repository, 0, &Silent).unwrap();
    collect(&repository, 0, &Silent).unwrap();
    let repository = open(&store);
    let points = live(&repository);
    assert!(points.contains(&new.point), "{case}");
    let report = check(&repository, &points, Depth::Data, 1, &Silent).unwrap();
    assert_eq!(report.findings, [], "{case}: after the next backup and collection");
    let needed: std::collections::BTreeSet<String> = points
        .iter()
        .flat_map(|id| repository.manifest(id).unwrap().reach.packs)
        .map(|id| id.to_string())
        .collect();
    let packs = memory.names().into_iter().filter(|name| name.starts_with("packs/"));
    for pack in packs {
        let id = pack.rsplit('/').next().unwrap().to_owned();
        assert!(needed.contains(&id), "{case}: {pack} is garbage that two collections left");
    }
}

/// A repository with two points, of which the first is dropped when `with_garbage`.
fn prepared(with_garbage: bool) -> (MemoryStore, Vec<PointId>) {
    let memory = MemoryStore::new();
    let store: Arc<dyn Store> = Arc::new(memory.clone());
    let repository = create(&store);
    let first = back_up(&repository, &[("x", noise(7, 100_000)), ("a", noise(1, 150_000))]);
    let second = back_up(&repository, &[("y", noise(8, 60_000)), ("a", noise(1, 150_000))]);
    if with_garbage {
        repository.drop_point(first.point, "test", "to make garbage").unwrap();
        (memory, vec![second.point])
    } else {
        (memory, vec![first.point, second.point])
    }
}

#[test]
fn a_crash_at_any_storage_operation_of_a_backup_loses_nothing() {
    let (memory, points) = prepared(false);
    for took_effect in [false, true] {
        for at in 0.. {
            let copy = memory.snapshot();
            let failing = FailingStore::dying_at(copy.clone(), at, took_effect);
            let store: Arc<dyn Store> = Arc::new(failing.clone());
            let outcome = mainstay_repository::Repository::open(access(store), None)
                .and_then(|repository| try_back_up(&repository, &streams(SMALL)));
            let mut must_have = points.clone();
            if let Ok(committed) = &outcome {
                must_have.push(committed.point);
            }
            assert_sound(&copy, &must_have, &format!("died at {at}, took effect: {took_effect}"));
            if !failing.is_dead() {
                assert!(outcome.is_ok());
                assert!(at > 20, "the backup made {at} calls, which is too few to be true");
                break;
            }
        }
    }
}

#[test]
fn a_crash_while_a_backup_writes_a_checkpoint_after_its_commit_loses_nothing() {
    let (memory, points) = prepared(false);
    let repository = open(&(Arc::new(memory.clone()) as Arc<dyn Store>));
    for _ in 0..21 {
        Session::begin(&repository, tuning()).unwrap().abandon();
    }
    let checkpoint = |memory: &MemoryStore| {
        open(&(Arc::new(memory.clone()) as Arc<dyn Store>)).state().unwrap().last_checkpoint
    };
    assert_eq!(checkpoint(&memory), None);
    for took_effect in [false, true] {
        let (mut written, mut not_yet) = (0, 0);
        for at in 0.. {
            let copy = memory.snapshot();
            let failing = FailingStore::dying_at(copy.clone(), at, took_effect);
            let store: Arc<dyn Store> = Arc::new(failing.clone());
            let outcome = Repository::open(access(store), None)
                .and_then(|repository| try_back_up(&repository, &streams(&SMALL[1..])));
            let case = format!("died at {at}, took effect: {took_effect}");
            let mut must_have = points.clone();
            must_have.extend(outcome.iter().map(|committed| committed.point));
            match (live(&open(&(Arc::new(copy.clone()) as Arc<dyn Store>))).len(), checkpoint(&copy)) {
                (2, None) => {}
                (3, None) => not_yet += 1,
                (3, Some(_)) => written += 1,
                other => panic!("{case}: {other:?}"),
            }
            assert_sound(&copy, &must_have, &case);
            if !failing.is_dead() {
                assert!(outcome.is_ok());
                break;
            }
        }
        assert!(not_yet > 0 && written > 0, "it died on both sides of the checkpoint: {not_yet}, {written}");
    }
}

#[test]
fn a_crash_at_any_storage_operation_of_a_collection_loses_nothing() {
    let (memory, points) = prepared(true);
    for took_effect in [false, true] {
        for at in 0.. {
            let copy = memory.snapshot();
            let failing = FailingStore::dying_at(copy.clone(), at, took_effect);
            let store: Arc<dyn Store> = Arc::new(failing.clone());
            let outcome = mainstay_repository::Repository::open(access(store), None)
                .and_then(|repository| collect(&repository, 0, &Silent));
            assert_sound(&copy, &points, &format!("died at {at}, took effect: {took_effect}"));
            if !failing.is_dead() {
                assert!(outcome.unwrap().deleted_objects > 0);
                break;
            }
        }
    }
}

#[test]
fn a_lost_answer_to_any_create_is_settled_by_looking() {
    let (memory, points) = prepared(false);
    for took_effect in [false, true] {
        for nth in 0.. {
            let copy = memory.snapshot();
            let mut creates = 0;
            let failing = FailingStore::new(copy.clone(), move |attempt| {
                let hit = attempt.verb == Verb::Create && creates == nth;
                creates += usize::from(attempt.verb == Verb::Create);
                hit.then_some(Fault::LostAnswer { took_effect })
            });
            let store: Arc<dyn Store> = Arc::new(failing);
            let repository = mainstay_repository::Repository::open(access(store), None).unwrap();
            let committed = try_back_up(&repository, &streams(SMALL)).unwrap();
            let case = format!("answer {nth} lost, took effect: {took_effect}");
            assert_sound(&copy, &[&points[..], &[committed.point]].concat(), &case);
            if nth > 14 {
                break;
            }
        }
    }
}

#[test]
fn a_lost_answer_to_any_call_of_a_collection_loses_nothing() {
    let (memory, points) = prepared(true);
    for took_effect in [false, true] {
        for verb in [Verb::Create, Verb::Delete, Verb::Read, Verb::ReadRange, Verb::Stat, Verb::List] {
            for nth in 0.. {
                let copy = memory.snapshot();
                let met = Arc::new(AtomicUsize::new(0));
                let seen = met.clone();
                let failing = FailingStore::new(copy.clone(), move |attempt| {
                    let hit = attempt.verb == verb && seen.fetch_add(1, Ordering::Relaxed) == nth;
                    hit.then_some(Fault::LostAnswer { took_effect })
                });
                let outcome = Repository::open(access(Arc::new(failing)), None)
                    .and_then(|repository| collect(&repository, 0, &Silent));
                let case = format!("answer to {verb} {nth} lost, took effect: {took_effect}");
                assert!(outcome.is_ok() || verb != Verb::Create, "{case}: the same create settles it");
                assert_sound(&copy, &points, &case);
                if met.load(Ordering::Relaxed) <= nth {
                    break;
                }
            }
        }
    }
}

#[test]
fn what_could_be_seen_but_was_not_durable_is_not_built_upon() {
    let (memory, points) = prepared(false);
    for nth in 0.. {
        let copy = memory.snapshot();
        let mut creates = 0;
        let failing = FailingStore::new(copy.clone(), move |attempt| {
            let hit = attempt.verb == Verb::Create && creates == nth;
            creates += usize::from(attempt.verb == Verb::Create);
            hit.then_some(Fault::NotDurable)
        });
        let store: Arc<dyn Store> = Arc::new(failing.clone());
        let repository = mainstay_repository::Repository::open(access(store), None).unwrap();
        let committed = try_back_up(&repository, &streams(SMALL)).unwrap();
        failing.cut_power();
        assert_sound(&copy, &[&points[..], &[committed.point]].concat(), &format!("create {nth}"));
        if nth > 14 {
            break;
        }
    }
}

#[test]
fn a_full_disk_fails_the_backup_and_harms_nothing() {
    let (memory, points) = prepared(false);
    for space in (0..260_000).step_by(13_000) {
        let copy = memory.snapshot();
        let store: Arc<dyn Store> = Arc::new(FailingStore::faultless(copy.clone()).with_space(space));
        let outcome = mainstay_repository::Repository::open(access(store), None)
            .and_then(|repository| try_back_up(&repository, &[("new", noise(77, 200_000))]));
        let mut must_have = points.clone();
        match outcome {
            Ok(committed) => must_have.push(committed.point),
            Err(error) => {
                let failure = mainstay_domain::Failure::from(error);
                assert!(failure.to_string().contains("full"), "{failure}");
            }
        }
        assert_sound(&copy, &must_have, &format!("{space} bytes of space"));
    }
}

#[test]
fn listings_that_lag_only_delay_the_collection() {
    let (memory, points) = prepared(true);
    let failing = FailingStore::faultless(memory.clone()).with_lagging_lists(60);
    let store: Arc<dyn Store> = Arc::new(failing);
    let repository = mainstay_repository::Repository::open(access(store), None).unwrap();
    let committed = try_back_up(&repository, &streams(SMALL)).unwrap();
    collect(&repository, 0, &Silent).unwrap();
    assert_sound(&memory, &[&points[..], &[committed.point]].concat(), "lagging lists");
}
