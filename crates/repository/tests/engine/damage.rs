//! Damage and what mends it, case by case; all kinds of it together are in `matrix`. Damage is found and named, never restored in
//! silence, and what does not depend on the damaged object still comes back.

use crate::support::*;
use mainstay_domain::{
    Failure, Kind, PointId, Silent, Time,
    point::{Proof, ProofLevel},
};
use mainstay_repository::{
    Repository,
    check::{Depth, check, check_written},
    proof,
    rescue::{FIRST_ENTRY, Spares},
};
use mainstay_stores::{MemoryStore, Store};
use std::sync::Arc;

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Damage {
    Flip,
    Truncate,
    Empty,
    Remove,
    /// The bytes of another object of the same kind.
    Swap,
    /// The same bytes once more, under another name of its kind.
    Duplicate,
    /// The bytes of such an object of another repository; see `matrix`.
    Foreign,
}

impl Damage {
    pub const EACH: [Damage; 7] = [
        Damage::Flip,
        Damage::Truncate,
        Damage::Empty,
        Damage::Remove,
        Damage::Swap,
        Damage::Duplicate,
        Damage::Foreign,
    ];
}

const ALL: [Damage; 5] = [Damage::Flip, Damage::Truncate, Damage::Empty, Damage::Remove, Damage::Swap];

/// Another name that such an object could have.
fn another_name(memory: &MemoryStore, name: &str) -> String {
    let (folder, last) = name.rsplit_once('/').unwrap();
    match last.parse::<u64>() {
        Ok(_) if last.len() < 32 => {
            let after = memory.names().iter().filter(|n| n.starts_with(folder)).count();
            format!("{folder}/{:0width$}", if folder == "trust" { 2 } else { after }, width = last.len())
        }
        _ => format!("{folder}/{}{}", if last.starts_with("00") { "11" } else { "00" }, &last[2..]),
    }
}

pub fn apply(memory: &MemoryStore, name: &str, damage: Damage) {
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
        Damage::Duplicate => return memory.create(&another_name(memory, name), &bytes).unwrap(),
        Damage::Foreign => unreachable!("it takes another repository"),
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
            let repository = open(&store);
            let before = copy.names();
            let _ = mainstay_repository::collect::collect(&repository, 0, &Silent);
            assert!(copy.names().len() >= before.len(), "{damage:?} of {name}: nothing is given up in doubt");
            let bytes = noise(3, 120_000);
            match try_back_up(&repository, &[("s", bytes.clone()), ("known", points[0].1.clone())]) {
                Ok(new) => {
                    let again = open(&store);
                    assert!(
                        again.state().unwrap().facts.points.contains_key(&new.point),
                        "{damage:?} of {name}"
                    );
                    assert!(read(&again, &new.point, 0).unwrap() == bytes, "{damage:?} of {name}");
                    assert!(read(&again, &new.point, 1).unwrap() == points[0].1, "{damage:?} of {name}");
                    let is_in_doubt = !again.state().unwrap().doubts.is_empty();
                    assert!(
                        !is_in_doubt || new.stored_bytes > 240_000,
                        "{damage:?} of {name}: nothing is relied on"
                    );
                }
                Err(_) => assert_eq!(name, FIRST_ENTRY, "{damage:?}"),
            }
            if *name == *names.last().unwrap() && damage == Damage::Remove {
                continue; // a log that ends earlier, which nobody can tell who has not seen it
            }
            let _ = mainstay_repository::collect::collect(&open(&store), 0, &Silent);
            assert!(before.iter().all(|name| copy.names().contains(name)), "{damage:?} of {name}");
            // Whatever the log still says: the manifests and packs of both points are there and intact.
            for (id, bytes) in &points {
                assert!(read(&repository, id, 0).unwrap() == *bytes, "{damage:?} of {name}");
            }
        }
    }
}

#[test]
fn a_damaged_proof_is_named_and_never_read_and_harms_no_point() {
    let (memory, points) = prepared();
    let repository = open(&(Arc::new(memory.clone()) as Arc<dyn Store>));
    for (at, (id, _)) in (1..).zip(&points) {
        let report = proof::store(&repository, &format!("{{\"point\": \"{id}\"}}"), Time(at)).unwrap();
        let restored =
            Proof { at: Time(at), level: ProofLevel::Restore, passed: true, restore_millis: 1, report };
        repository.record_proof(*id, restored).unwrap();
    }
    let ids: Vec<_> = points.iter().map(|(id, _)| *id).collect();
    let names: Vec<_> = memory.names().into_iter().filter(|n| n.starts_with("proofs/")).collect();
    assert_eq!(names.len(), 2);
    assert_eq!(check(&repository, &ids, Depth::Objects, 1, &Silent).unwrap().findings, []);
    for name in &names {
        assert!(proof::read(&repository, name).unwrap().contains("point"));
        for damage in ALL {
            let copy = memory.snapshot();
            apply(&copy, name, damage);
            let repository = open(&(Arc::new(copy) as Arc<dyn Store>));
            assert!(proof::read(&repository, name).unwrap_err().is_damage(), "{damage:?} of {name}");
            let report = check(&repository, &ids, Depth::Objects, 1, &Silent).unwrap();
            let [found] = report.findings.as_slice() else { panic!("{damage:?}: {:?}", report.findings) };
            assert_eq!(
                (&found.object, found.points.len()),
                (name, 0),
                "{damage:?}: no point is worse for it"
            );
        }
    }
}

/// What a recovery kit repeats.
pub fn spares(memory: &MemoryStore) -> Spares {
    let small = |name: &String| {
        name == "format" || name.starts_with("trust/") || name.starts_with("keys/") || name == FIRST_ENTRY
    };
    Spares::new(
        memory.objects().into_iter().filter(|(name, _)| small(name)).map(|(name, b)| (name, b.to_vec())),
    )
}

/// Both points are read whole, and nothing can be written.
fn is_only_read(repository: &Repository, points: &[(PointId, Vec<u8>)], what: &str) {
    for (id, bytes) in points {
        assert!(read(repository, id, 0).unwrap() == *bytes, "{what}");
        assert!(repository.state().unwrap().facts.points.contains_key(id), "{what}: it is listed");
    }
    let ids: Vec<_> = points.iter().map(|(id, _)| *id).collect();
    assert_eq!(check(repository, &ids, Depth::Data, 1, &Silent).unwrap().findings, [], "{what}");
    let refused = |error: mainstay_repository::RepositoryError| Failure::from(error).kind == Kind::Refused;
    assert!(refused(try_back_up(repository, &[]).err().unwrap()), "{what}");
    assert!(refused(repository.drop_point(points[0].0, "me", "test").err().unwrap()), "{what}");
    assert!(refused(repository.certain_state().err().unwrap()), "{what}");
    assert!(refused(mainstay_repository::collect::collect(repository, 0, &Silent).err().unwrap()), "{what}");
    assert!(refused(repository.accept_rollback().err().unwrap()), "{what}");
}

#[test]
fn without_the_beginning_of_the_log_every_point_is_still_restored_and_nothing_is_written() {
    let (memory, points) = prepared();
    for damage in ALL {
        let copy = memory.snapshot();
        apply(&copy, FIRST_ENTRY, damage);
        let before = copy.objects();
        let store: Arc<dyn Store> = Arc::new(copy.clone());
        let repository = open(&store);
        assert!(repository.impairments()[0].contains("log"), "{damage:?}: {:?}", repository.impairments());
        is_only_read(&repository, &points, &format!("{damage:?}"));
        assert_eq!(copy.objects(), before);

        assert_eq!(repository.put_back(&spares(&memory)).unwrap(), [FIRST_ENTRY]);
        let repository = open(&store);
        assert_eq!(repository.impairments(), &[] as &[String]);
        back_up(&repository, &[("s", noise(3, 10_000))]);
    }
    let kit = spares(&memory);
    for name in memory.names().iter().filter(|name| name.starts_with("log/")) {
        memory.delete(name).unwrap();
    }
    let repository = open(&(Arc::new(memory.clone()) as Arc<dyn Store>));
    is_only_read(&repository, &points, "all of the log");
    assert!(repository.put_back(&kit).unwrap().is_empty(), "a log that names no point makes garbage of all");
}

#[test]
fn without_the_trust_list_every_point_is_still_restored_and_nothing_is_written() {
    let (memory, points) = prepared();
    let name = "trust/0000000001";
    for damage in [Damage::Flip, Damage::Truncate, Damage::Empty, Damage::Remove, Damage::Duplicate] {
        let copy = memory.snapshot();
        apply(&copy, name, damage);
        let store: Arc<dyn Store> = Arc::new(copy.clone());
        let repository = open(&store);
        assert!(repository.impairments()[0].contains("trust/"), "{damage:?}");
        is_only_read(&repository, &points, &format!("{damage:?}"));
        if damage != Damage::Duplicate {
            assert_eq!(repository.put_back(&spares(&memory)).unwrap(), [name], "{damage:?}");
            back_up(&open(&store), &[("s", noise(3, 10_000))]);
        }
    }
}

#[test]
fn what_says_what_a_repository_is_and_opens_it_comes_from_the_recovery_kit() {
    let (memory, points) = prepared();
    let kit = spares(&memory);
    let key = memory.names().into_iter().find(|name| name.starts_with("keys/")).unwrap();
    for name in ["format", key.as_str()] {
        for damage in [Damage::Flip, Damage::Truncate, Damage::Empty, Damage::Remove] {
            let copy = memory.snapshot();
            apply(&copy, name, damage);
            let store: Arc<dyn Store> = Arc::new(copy.clone());
            let failure = Failure::from(Repository::open(access(store.clone()), None).err().unwrap());
            assert_eq!(failure.kind, Kind::Verification, "{damage:?} of {name}: {failure}");
            assert!(failure.hint.unwrap().contains("--kit"), "{damage:?} of {name}");
            if name == key && damage != Damage::Remove {
                assert!(failure.message.contains(name), "{damage:?}: {}", failure.message);
            }
            let repository = Repository::open_with(access(store.clone()), None, &kit).unwrap();
            for (id, bytes) in &points {
                assert!(read(&repository, id, 0).unwrap() == *bytes, "{damage:?} of {name}");
            }
            assert_eq!(repository.put_back(&kit).unwrap(), [name], "{damage:?}");
            assert_eq!(copy.objects()[name], memory.objects()[name], "the very same bytes");
            back_up(&open(&store), &[("s", noise(3, 10_000))]);
        }
    }
    let copy = memory.snapshot();
    apply(&copy, &key, Damage::Duplicate);
    let store: Arc<dyn Store> = Arc::new(copy);
    back_up(&open(&store), &[("s", noise(3, 10_000))]);
}

#[test]
fn a_recovery_kit_is_believed_of_its_own_repository_only() {
    let (memory, _) = prepared();
    let (other, _) = prepared();
    let kit = spares(&other);
    let open = |memory: &MemoryStore| {
        Failure::from(Repository::open_with(access(Arc::new(memory.clone())), None, &kit).err().unwrap()).kind
    };
    assert_eq!(open(&memory), Kind::Usage, "it holds another one");
    memory.delete("format").unwrap();
    assert_eq!(open(&memory), Kind::Verification, "nothing in it is of the kit's repository");
    assert_eq!(open(&MemoryStore::new()), Kind::NoRepository, "a kit makes no repository");
}

#[test]
fn a_key_that_was_removed_does_not_come_back_with_an_old_kit() {
    let (memory, _) = prepared();
    let store: Arc<dyn Store> = Arc::new(memory.clone());
    let repository = open(&store);
    let bundle = repository.keyring().current();
    let secret = mainstay_keys::secret::Secret::Key([9; 32]);
    let root = bundle.root().unwrap();
    let at = repository.clock().now();
    let (name, bytes) =
        mainstay_keys::recipient::wrap(bundle, &secret, repository.id(), "gone", at, &root).unwrap();
    store.create(&name, &bytes).unwrap();
    let kit = spares(&memory);
    store.delete(&name).unwrap();
    assert_eq!(repository.put_back(&kit).unwrap(), [] as [String; 0]);
    assert_eq!(store.stat(&name).unwrap(), None);
}

#[test]
fn a_duplicated_object_under_another_name_changes_nothing() {
    let (memory, points) = prepared();
    let ids: Vec<_> = points.iter().map(|(id, _)| *id).collect();
    for name in memory.names() {
        let kind = name.split('/').next().unwrap();
        if !["packs", "index", "manifests", "log"].contains(&kind) {
            continue;
        }
        let copy = memory.snapshot();
        apply(&copy, &name, Damage::Duplicate);
        let store: Arc<dyn Store> = Arc::new(copy.clone());
        let repository = open(&store);
        assert_eq!(check(&repository, &ids, Depth::Data, 1, &Silent).unwrap().findings, [], "{name}");
        assert_eq!(repository.state().unwrap().doubts.is_empty(), kind != "log", "{name}");
        mainstay_repository::collect::collect(&repository, 0, &Silent).unwrap();
        let repository = open(&store);
        let found: Vec<_> = repository.state().unwrap().facts.points.into_keys().collect();
        assert!(found.len() == 2 && ids.iter().all(|id| found.contains(id)), "{name}");
        for (id, bytes) in &points {
            assert!(read(&repository, id, 0).unwrap() == *bytes, "{name}");
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
