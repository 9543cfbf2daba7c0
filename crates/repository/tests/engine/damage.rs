//! The damage matrix: each kind of object, each kind of damage. Damage is found and named, never restored in silence, and what
//! does not depend on the damaged object still comes back.

use crate::support::*;
use mainstay_domain::{Failure, Kind, PointId, Silent};
use mainstay_repository::{
    Repository,
    check::{Depth, check, check_written},
};
use mainstay_stores::{MemoryStore, Store};
use std::sync::Arc;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Damage {
    Flip,
    Truncate,
    Empty,
    Remove,
    /// The bytes of another object of the same kind.
    Swap,
}

const ALL: [Damage; 5] = [Damage::Flip, Damage::Truncate, Damage::Empty, Damage::Remove, Damage::Swap];

fn apply(memory: &MemoryStore, name: &str, damage: Damage) {
    let objects = memory.objects();
    let mut bytes = objects[name].to_vec();
    match damage {
        Damage::Flip => {
            let at = bytes.len() / 2;
            bytes[at] ^= 0x10;
        }
        Damage::Truncate => bytes.truncate(bytes.len() * 2 / 3),
        Damage::Empty => bytes.clear(),
        Damage::Remove => return memory.delete(name).unwrap(),
        Damage::Swap => {
            let kind = name.split('/').next().unwrap();
            let other =
                objects.keys().find(|n| *n != name && n.starts_with(kind)).expect("two objects of each kind");
            bytes = objects[other].to_vec();
        }
    }
    memory.overwrite(name, &bytes);
}

/// Two points that share nothing.
fn prepared() -> (MemoryStore, [(PointId, Vec<u8>); 2]) {
    let memory = MemoryStore::new();
    let store: Arc<dyn Store> = Arc::new(memory.clone());
    let repository = create(&store);
    let (one, two) = (noise(1, 120_000), noise(2, 120_000));
    let first = back_up(&repository, &[("s", one.clone())]).point;
    let second = back_up(&repository, &[("s", two.clone())]).point;
    (memory, [(first, one), (second, two)])
}

#[test]
fn damage_to_a_pack_or_manifest_is_named_and_spoils_only_what_needs_it() {
    let (memory, points) = prepared();
    let names: Vec<_> = memory
        .names()
        .into_iter()
        .filter(|n| n.starts_with("packs/") || n.starts_with("manifests/"))
        .collect();
    assert!(names.len() >= 4);
    for name in &names {
        for damage in ALL {
            let copy = memory.snapshot();
            apply(&copy, name, damage);
            let store: Arc<dyn Store> = Arc::new(copy);
            let repository = open(&store);
            let ids: Vec<_> = points.iter().map(|(id, _)| *id).collect();
            let report = check(&repository, &ids, Depth::Packs, 1, &Silent).unwrap();
            let named: Vec<_> = report
                .findings
                .iter()
                .filter(|f| f.object == *name || name.ends_with(&f.object[f.object.len() - 64..]))
                .collect();
            assert_eq!(named.len(), 1, "{damage:?} of {name}: {:?}", report.findings);
            assert_eq!(named[0].points.len(), 1, "one point needs it");
            for (id, bytes) in &points {
                match read(&repository, id, 0) {
                    Ok(restored) => {
                        assert!(restored == *bytes, "{damage:?} of {name}: wrong bytes");
                        // A flip in the table of contents alone leaves the chunks as they were.
                    }
                    Err(failure) => {
                        assert_eq!(failure.kind, Kind::Verification, "{damage:?} of {name}: {failure}");
                        assert_eq!(named[0].points, [*id], "{damage:?} of {name} spoils another point");
                    }
                }
            }
        }
    }
}

#[test]
fn a_damaged_index_is_made_again_from_the_packs() {
    let (memory, points) = prepared();
    let names: Vec<_> = memory.names().into_iter().filter(|n| n.starts_with("index/")).collect();
    assert_eq!(names.len(), 2);
    for name in &names {
        for damage in ALL {
            let copy = memory.snapshot();
            apply(&copy, name, damage);
            let store: Arc<dyn Store> = Arc::new(copy);
            let repository = open(&store);
            for (id, bytes) in &points {
                assert!(read(&repository, id, 0).unwrap() == *bytes, "{damage:?} of {name}");
            }
            let report = check(&repository, &[points[0].0], Depth::Objects, 1, &Silent).unwrap();
            assert!(report.findings.iter().any(|f| f.object == *name), "{damage:?} of {name} is not named");
        }
    }
}

#[test]
fn a_damaged_index_is_replaced_by_the_next_collection() {
    for damage in ALL {
        let (memory, points) = prepared();
        let store: Arc<dyn Store> = Arc::new(memory.clone());
        let repository = open(&store);
        let third = back_up(&repository, &[("s", noise(3, 120_000))]).point;
        repository.drop_point(third, "test", "to make garbage").unwrap();
        let names: Vec<_> = memory.names().into_iter().filter(|n| n.starts_with("index/")).collect();
        for name in &names[..2] {
            apply(&memory, name, damage);
        }
        let repository = open(&store);
        let collected = mainstay_repository::collect::collect(&repository, 0, &Silent).unwrap();
        assert!(collected.deleted_bytes > 120_000, "{damage:?}: {collected:?}");
        let ids: Vec<_> = points.iter().map(|(id, _)| *id).collect();
        let report = check(&open(&store), &ids, Depth::Data, 1, &Silent).unwrap();
        assert_eq!(report.findings, [], "{damage:?}");
        for (id, bytes) in &points {
            assert!(read(&open(&store), id, 0).unwrap() == *bytes);
            assert_eq!(
                back_up(&open(&store), &[("s", bytes.clone())]).stored_bytes,
                0,
                "{damage:?}: it is known again"
            );
        }
        let again = mainstay_repository::collect::collect(&open(&store), 0, &Silent).unwrap();
        assert_eq!((again.condemned_objects, again.deleted_objects), (0, 0), "{damage:?}");
    }
}

#[test]
fn a_damaged_index_over_a_lost_pack_is_replaced_once_the_loss_is_known() {
    let (memory, points) = prepared();
    let store: Arc<dyn Store> = Arc::new(memory.clone());
    let repository = open(&store);
    let third = back_up(&repository, &[("s", noise(3, 120_000))]).point;
    repository.drop_point(third, "test", "to make garbage").unwrap();
    let lost = repository.manifest(&points[0].0).unwrap().reach.packs[0];
    for name in memory.names() {
        if name.starts_with("index/") {
            memory.overwrite(&name, b"gone");
        } else if name.ends_with(&lost.to_string()) {
            memory.delete(&name).unwrap();
        }
    }
    let collect = || mainstay_repository::collect::collect(&open(&store), 0, &Silent);
    let failure = Failure::from(collect().unwrap_err());
    assert_eq!(failure.kind, Kind::Verification, "nothing is deleted while it is not known what is needed");
    open(&store).record_lost(&[lost].into(), &Default::default()).unwrap();
    assert!(collect().unwrap().deleted_bytes > 120_000);
    assert_eq!(collect().unwrap().condemned_objects, 0);
    assert!(read(&open(&store), &points[1].0, 0).unwrap() == points[1].1);
}

#[test]
fn a_damaged_log_never_makes_a_backup_or_a_deletion_go_wrong() {
    let (memory, points) = prepared();
    let names: Vec<_> = memory.names().into_iter().filter(|n| n.starts_with("log/")).collect();
    for name in &names {
        for damage in ALL {
            let copy = memory.snapshot();
            apply(&copy, name, damage);
            let store: Arc<dyn Store> = Arc::new(copy.clone());
            let Ok(repository) = Repository::open(access(store.clone()), None) else { continue };
            let _ = mainstay_repository::collect::collect(&repository, 0, &Silent);
            // Whatever the log still says: the manifests and packs of both points are there and intact.
            for (id, bytes) in &points {
                assert!(read(&repository, id, 0).unwrap() == *bytes, "{damage:?} of {name}");
            }
        }
    }
}

#[test]
fn a_key_that_does_not_fit_says_so_at_once() {
    let (memory, _) = prepared();
    let store: Arc<dyn Store> = Arc::new(memory);
    let wrong =
        mainstay_repository::Access { secret: mainstay_keys::secret::Secret::Key([8; 32]), ..access(store) };
    let failure = Failure::from(Repository::open(wrong, None).err().unwrap());
    assert_eq!(failure.kind, Kind::WrongKey);
}

#[test]
fn of_more_than_can_be_read_back_a_sample_is_and_the_rest_is_looked_for() {
    let memory = MemoryStore::new();
    let repository = create(&(Arc::new(memory.clone()) as Arc<dyn Store>));
    let committed = back_up(&repository, &[("a", noise(1, 2_000_000))]);
    let check = |limit| check_written(&repository, &committed, Depth::Packs, limit, 1, &Silent).unwrap();
    let all = check(committed.stored_bytes);
    assert_eq!((all.sample, all.bytes), (None, committed.stored_bytes));

    let some = check(committed.stored_bytes / 4);
    let sample = some.sample.unwrap();
    assert_eq!(sample.of, committed.written.packs.len());
    assert!((2..sample.of / 3).contains(&sample.read), "{sample:?}");
    assert_eq!(some.objects, all.objects, "every one was looked for");
    assert!(some.is_clean());

    let (missing, _) = committed.written.packs[committed.written.packs.len() / 2];
    let name = memory.names().into_iter().find(|name| name.ends_with(&missing.to_string())).unwrap();
    memory.delete(&name).unwrap();
    assert_eq!(
        check(0).lost_packs().into_iter().collect::<Vec<_>>(),
        [missing],
        "a missing one is always found"
    );
}
