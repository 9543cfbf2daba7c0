//! The process dies before and after every storage operation, or an answer is lost: of a prune, and of what a backup does after its
//! Commit. Every point that was not given up stays whole, and the next run finishes what was begun.

use crate::{
    backup,
    config::{Config, VerifyAfter},
    prune,
    testing::{CONFIG, NOW, holding, left, open, store, try_open_over},
};
use mainstay_domain::{
    PointId, Silent,
    point::Hold,
    stream::Pool,
    time::{MINUTE, Span},
};
use mainstay_repository::{
    Committed, Repository,
    check::{Depth, check},
    pack,
};
use mainstay_stores::{Attempt, FailingStore, Fault, MemoryStore, Verb};
use std::{collections::BTreeSet, path::Path, sync::Arc};

fn plan(repository: &Repository) -> prune::Plan {
    let config = Config::parse(CONFIG, Path::new("mainstay.yaml")).unwrap();
    prune::plan(&config, "main", repository, NOW, Span { nanoseconds: MINUTE }, false).unwrap()
}

/// Bytes that do not compress.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// Four points that share something with each other, of which the newest is to stay. A hold on the first has run out.
fn prepared() -> (MemoryStore, Vec<Committed>) {
    let memory = store();
    let repository = open(&memory);
    let made = (1..5).map(|n| {
        let bytes = [noise(n, 50_000), noise(n + 1, 50_000)].concat();
        holding(&repository, Some("nightly"), 100 - 10 * n as i64, &bytes)
    });
    let made: Vec<_> = made.collect();
    let (since, until) = (NOW.plus(-9), Some(NOW.plus(-1)));
    let hold = Hold { kind: "legal".into(), reason: "case 17".into(), by: "ann".into(), since, until };
    repository.hold(made[0].point, hold).unwrap();
    (memory, made)
}

fn all_whole(memory: &MemoryStore, case: &str) {
    let repository = open(memory);
    let points: Vec<PointId> = repository.state().unwrap().facts.points.into_keys().collect();
    assert_eq!(check(&repository, &points, Depth::Data, 1, &Silent).unwrap().findings, [], "{case}");
}

/// What is live is whole, and another prune leaves the newest point and what it needs, nothing else.
fn another_prune_ends_it(memory: &MemoryStore, made: &[Committed], case: &str) {
    let newest = made.last().unwrap();
    let live = left(memory);
    assert!(live.contains(&newest.point), "{case}: the newest point is gone");
    assert!(live.iter().all(|id| made.iter().any(|made| made.point == *id)), "{case}");
    all_whole(memory, case);
    let repository = open(memory);
    prune::execute(&repository, &plan(&repository), "me", &Silent).unwrap();
    assert_eq!(left(memory), [newest.point], "{case}");
    all_whole(memory, case);
    let packs = memory.names().into_iter().filter(|name| name.starts_with("packs/"));
    let packs: BTreeSet<String> = packs.map(|name| name.rsplit('/').next().unwrap().to_owned()).collect();
    let needed = newest.reach.packs.iter().map(ToString::to_string).collect();
    assert_eq!(packs, needed, "{case}: garbage is left");
}

#[test]
fn a_crash_at_any_storage_operation_of_a_prune_loses_nothing_and_the_next_one_ends_it() {
    let (memory, made) = prepared();
    let plan = plan(&open(&memory));
    assert_eq!((plan.dropped().count(), plan.expired.len()), (3, 1));
    for took_effect in [false, true] {
        for at in 0.. {
            let copy = memory.snapshot();
            let failing = FailingStore::dying_at(copy.clone(), at, took_effect);
            let outcome = try_open_over(Arc::new(failing.clone()))
                .map_err(Into::into)
                .and_then(|repository| prune::execute(&repository, &plan, "me", &Silent));
            another_prune_ends_it(&copy, &made, &format!("died at {at}, took effect: {took_effect}"));
            if !failing.is_dead() {
                assert!(outcome.unwrap().collected.deleted_objects > 0);
                assert!(at > 40, "the prune made {at} calls, which is too few to be true");
                break;
            }
        }
    }
}

#[test]
fn a_lost_answer_to_any_write_of_a_prune_loses_nothing_and_the_next_one_ends_it() {
    let (memory, made) = prepared();
    let plan = plan(&open(&memory));
    for took_effect in [false, true] {
        for verb in [Verb::Create, Verb::Delete] {
            for nth in 0.. {
                let copy = memory.snapshot();
                let met = Arc::new(std::sync::atomic::AtomicUsize::new(0));
                let seen = met.clone();
                let lose = move |attempt: &Attempt<'_>| {
                    let hit = attempt.verb == verb
                        && seen.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == nth;
                    hit.then_some(Fault::LostAnswer { took_effect })
                };
                let repository = try_open_over(Arc::new(FailingStore::new(copy.clone(), lose))).unwrap();
                let outcome = prune::execute(&repository, &plan, "me", &Silent);
                let case = format!("answer to {verb} {nth} lost, took effect: {took_effect}");
                if verb == Verb::Create {
                    assert!(outcome.is_ok(), "{case}: the same create settles it");
                }
                another_prune_ends_it(&copy, &made, &case);
                if met.load(std::sync::atomic::Ordering::Relaxed) <= nth {
                    assert!(nth > 6, "{nth} is too few to be true");
                    break;
                }
            }
        }
    }
}

#[test]
fn a_crash_while_a_backup_is_read_back_leaves_its_point_and_harms_no_other() {
    let (memory, made) = prepared();
    let newest = made.last().unwrap();
    for is_damaged in [false, true] {
        let memory = memory.snapshot();
        if is_damaged {
            let (id, pool) = newest.written.packs.iter().find(|(_, pool)| *pool == Pool::Data).unwrap();
            memory.overwrite(&pack::object_name(*pool, id), b"not what was stored");
        }
        for took_effect in [false, true] {
            for at in 0.. {
                let copy = memory.snapshot();
                let failing = FailingStore::dying_at(copy.clone(), at, took_effect);
                let outcome =
                    try_open_over(Arc::new(failing.clone())).map_err(Into::into).and_then(|repository| {
                        backup::read_back(&repository, VerifyAfter::Data, newest, &Silent)
                    });
                let case = format!("died at {at}, took effect: {took_effect}, damaged: {is_damaged}");
                let repository = open(&copy);
                assert_eq!(left(&copy).len(), made.len(), "{case}");
                assert!(repository.state().unwrap().doubts.is_empty(), "{case}");
                let all: Vec<_> = made.iter().map(|made| made.point).collect();
                let report = check(&repository, &all, Depth::Data, 1, &Silent).unwrap();
                let named: BTreeSet<_> = report.findings.iter().flat_map(|found| &found.points).collect();
                assert_eq!(named, is_damaged.then_some(&newest.point).into_iter().collect(), "{case}");
                let again = backup::read_back(&repository, VerifyAfter::Data, newest, &Silent).unwrap();
                assert_eq!(again.unwrap().is_clean(), !is_damaged, "{case}");
                assert_eq!(repository.state().unwrap().facts.lost.is_some(), is_damaged, "{case}");
                if !failing.is_dead() {
                    assert!(outcome.is_ok());
                    break;
                }
            }
        }
    }
}
