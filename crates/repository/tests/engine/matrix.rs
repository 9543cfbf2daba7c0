//! The damage matrix: every kind of object, every kind of damage, every operation. Damage is found and named, never restored, and
//! never spreads: what does not need the damaged object is listed, restored, verified, backed up beside, kept by a prune, and
//! recovered with the kit.

use crate::{
    damage::{Damage, apply, spares},
    support::*,
};
use mainstay_domain::{
    Failure, Kind, PointId, Silent, Time,
    point::{Proof, ProofLevel},
    stream::Pool,
    wal::WalFile,
};
use mainstay_repository::{
    Repository, Session,
    check::{Depth, check},
    collect::collect,
    log::entry,
    manifest, pack, proof,
    rescue::FIRST_ENTRY,
    wal::Archive,
};
use mainstay_stores::{MemoryStore, Store};
use std::sync::Arc;

const SYSTEM: u64 = 7_000_000_000_000_000_001;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Object {
    DataPack,
    TreePack,
    Index,
    Manifest,
    LogEntry,
    Checkpoint,
    /// An entry that a checkpoint stands for by now.
    OldEntry,
    Proof,
    Wal,
    Trust,
    Key,
    Format,
}

/// Two points that share nothing, the second one after a checkpoint; what a third had is garbage.
struct Sample {
    memory: MemoryStore,
    points: [(PointId, Vec<u8>); 2],
    wal: [(WalFile, Vec<u8>); 2],
    /// Each with the point that needs it to come back.
    objects: Vec<(Object, String, Option<usize>)>,
}

fn over(memory: &MemoryStore) -> Arc<dyn Store> {
    Arc::new(memory.clone())
}

fn prepared(seed: u64) -> Sample {
    let memory = MemoryStore::new();
    create(&over(&memory));
    let repository = open(&over(&memory));
    let made = [1, 2].map(|n| {
        if n == 2 {
            let gone = back_up(&repository, &[("s", noise(seed + 9, 100_000))]);
            repository.drop_point(gone.point, "test", "to make garbage").unwrap();
            while repository.state().unwrap().last_checkpoint.is_none() {
                Session::begin(&repository, tuning()).unwrap().abandon();
                back_up(&repository, &[]);
            }
        }
        // Long enough for a list of its chunks, which lies in a pack of trees.
        let bytes = noise(seed + n, 500_000);
        (back_up(&repository, &[("s", bytes.clone())]), bytes)
    });
    let wal = ["000000010000000000000003", "000000010000000000000004"].map(|name| {
        let file: WalFile = name.parse().unwrap();
        let content = [name.as_bytes(), &noise(seed, 50_000)].concat();
        Archive::of(&repository, SYSTEM).put(&file, &content, None).unwrap();
        (file, content)
    });
    let mut objects = Vec::new();
    let state = repository.state().unwrap();
    for (owner, (made, _)) in made.iter().enumerate() {
        for (object, wanted) in [(Object::DataPack, Pool::Data), (Object::TreePack, Pool::Tree)] {
            let (id, pool) = made.written.packs.iter().find(|(_, pool)| *pool == wanted).unwrap();
            objects.push((object, pack::object_name(*pool, id), Some(owner)));
        }
        objects.push((Object::Index, format!("index/{}", made.written.index[0]), None));
        objects.push((Object::Manifest, manifest::object_name(&made.point), Some(owner)));
        let at = Time(owner as i64 + 1);
        let report = proof::store(&repository, &format!("{{\"point\": \"{}\"}}", made.point), at).unwrap();
        objects.push((Object::Proof, report.clone(), None));
        let restored = Proof { at, level: ProofLevel::Restore, passed: true, restore_millis: 1, report };
        repository.record_proof(made.point, restored).unwrap();
    }
    let [first, second] = [0, 1].map(|owner: usize| state.facts.points[&made[owner].0.point].committed_at);
    let checkpoint = state.last_checkpoint.unwrap();
    assert!(0 < first && first < checkpoint && checkpoint < second);
    for (object, n) in [
        (Object::OldEntry, 0),
        (Object::OldEntry, first),
        (Object::Checkpoint, checkpoint),
        (Object::LogEntry, second - 1),
        (Object::LogEntry, second),
    ] {
        objects.push((object, entry::object_name(n), None));
    }
    for name in memory.names() {
        let object = match name.split('/').next().unwrap() {
            "format" => Object::Format,
            "trust" => Object::Trust,
            "keys" => Object::Key,
            "wal" => Object::Wal,
            _ => continue,
        };
        objects.push((object, name, None));
    }
    let points = made.map(|(made, bytes)| (made.point, bytes));
    Sample { memory, points, wal, objects }
}

/// The damaged store, if such a damage can be done to such an object.
fn damaged(
    sample: &Sample,
    foreign: &Sample,
    object: Object,
    name: &str,
    damage: Damage,
) -> Option<MemoryStore> {
    let copy = sample.memory.snapshot();
    match damage {
        Damage::Swap if matches!(object, Object::Trust | Object::Key | Object::Format) => return None,
        Damage::Duplicate if matches!(object, Object::Format | Object::Wal) => return None,
        Damage::Foreign => {
            let nth = sample.objects.iter().position(|(_, other, _)| other == name).unwrap();
            copy.overwrite(name, &foreign.memory.objects()[&foreign.objects[nth].1]);
        }
        _ => apply(&copy, name, damage),
    }
    Some(copy)
}

/// Lost or not believed, the store has to be put right with the kit before anything is written to it.
fn needs_the_kit(object: Object, damage: Damage) -> bool {
    match object {
        Object::Format | Object::Trust => true,
        Object::Key => damage != Damage::Duplicate,
        _ => false,
    }
}

fn goes_on(sample: &Sample, foreign: &Sample, objects: &[Object]) {
    let kit = spares(&sample.memory);
    let (mut cases, mut spoiled) = (0, 0);
    for (object, name, owner) in sample.objects.iter().filter(|(object, ..)| objects.contains(object)) {
        for damage in Damage::EACH {
            let Some(memory) = damaged(sample, foreign, *object, name, damage) else { continue };
            let case = format!("{damage:?} of {object:?} {name}");
            cases += 1;
            let store = over(&memory);
            let needs_kit = needs_the_kit(*object, damage);

            // Opening, listing, what the log says.
            let repository = match Repository::open(access(store.clone()), None) {
                Ok(repository) => repository,
                Err(error) => {
                    assert!(matches!(object, Object::Format | Object::Key), "{case}: {error}");
                    let failure = Failure::from(error);
                    assert_eq!(failure.kind, Kind::Verification, "{case}: {failure}");
                    if *object == Object::Format && damage == Damage::Foreign {
                        // It says that this is another repository, until a person takes it away.
                        let refused = Repository::open_with(access(store.clone()), None, &kit).err().unwrap();
                        assert_eq!(Failure::from(refused).kind, Kind::Usage, "{case}");
                        memory.delete(name).unwrap();
                    }
                    Repository::open_with(access(store.clone()), None, &kit)
                        .unwrap_or_else(|error| panic!("{case}: {error}"))
                }
            };
            let state = repository.state().unwrap();
            let n = name.strip_prefix("log/").map(|n| n.parse::<u64>().unwrap());
            let in_doubt = match object {
                Object::LogEntry | Object::Checkpoint => n.filter(|_| damage != Damage::Duplicate),
                _ => None,
            };
            assert!(in_doubt.is_none_or(|n| state.doubts.contains_key(&n)), "{case}: {:?}", state.doubts);
            let of_log = matches!(object, Object::LogEntry | Object::Checkpoint | Object::OldEntry);
            assert_eq!(
                !state.doubts.is_empty(),
                in_doubt.is_some() || of_log && damage == Damage::Duplicate,
                "{case}"
            );
            let is_listed = |id: &PointId| state.facts.points.contains_key(id);
            assert!(
                *object == Object::LogEntry || sample.points.iter().all(|(id, _)| is_listed(id)),
                "{case}"
            );
            assert!(is_listed(&sample.points[0].0), "{case}: a checkpoint names it");
            assert_eq!(!repository.impairments().is_empty(), *object == Object::Trust, "{case}");

            // Restoring: right, or an error for whoever needs what is damaged.
            let restores = |repository: &Repository, when: &str| -> Vec<bool> {
                let restore = |(nth, (id, bytes)): (usize, &(PointId, Vec<u8>))| match read(repository, id, 0)
                {
                    Ok(restored) => {
                        assert!(restored == *bytes, "{case}, {when}: wrong bytes");
                        true
                    }
                    Err(failure) => {
                        assert_eq!(failure.kind, Kind::Verification, "{case}, {when}: {failure}");
                        assert_eq!(*owner, Some(nth), "{case}, {when}: {failure}");
                        false
                    }
                };
                sample.points.iter().enumerate().map(restore).collect()
            };
            let whole = restores(&repository, "at first");
            spoiled += usize::from(whole.contains(&false));
            for (file, content) in &sample.wal {
                let archive = Archive::of(&repository, SYSTEM);
                let is_it = *object == Object::Wal && name.contains(&file.to_string());
                match archive.get(file) {
                    Ok(Some(found)) => assert!(!is_it && found == *content, "{case}: {file}"),
                    Ok(None) => assert!(is_it && damage == Damage::Remove, "{case}: {file}"),
                    Err(error) => assert!(is_it && error.is_damage(), "{case}: {file}: {error}"),
                }
            }

            // Verifying, at each depth.
            // Another pack of this repository in its place has a table of contents that opens.
            let takes_reading = [Damage::Flip, Damage::Swap].contains(&damage);
            let live: Vec<PointId> =
                sample.points.iter().map(|(id, _)| *id).filter(|id| is_listed(id)).collect();
            for depth in [Depth::Objects, Depth::Packs, Depth::Data] {
                let report = check(&repository, &live, depth, 1, &Silent).unwrap();
                let is_named = report.findings.iter().any(|finding| finding.object == *name);
                let to_be_found = damage != Damage::Duplicate
                    && match object {
                        Object::DataPack | Object::TreePack => depth > Depth::Objects || !takes_reading,
                        Object::Index | Object::Manifest | Object::Proof => true,
                        _ => false,
                    };
                // Of a pack that is not there nobody may know the kind; then it is named by its id.
                let by_id = name.rsplit('/').next().unwrap();
                let is_named =
                    is_named || report.findings.iter().any(|finding| finding.object.ends_with(by_id));
                assert_eq!(is_named, to_be_found, "{case}, {depth:?}: {:?}", report.findings);
                for finding in &report.findings {
                    let named = finding.points.iter().all(|id| {
                        *object == Object::Index || owner.is_some_and(|owner| sample.points[owner].0 == *id)
                    });
                    assert!(named && to_be_found, "{case}, {depth:?}: {finding:?}");
                }
            }

            // Backing up beside it, after the kit has put right what it can.
            if needs_kit {
                let put_back = repository.put_back(&kit).unwrap_or_else(|error| panic!("{case}: {error}"));
                let stays = *object == Object::Trust && damage == Damage::Duplicate;
                assert_eq!(put_back, if stays { vec![] } else { vec![name.clone()] }, "{case}");
                if stays {
                    continue; // a trust list of somebody else's, which only a person can judge
                }
            }
            let added = noise(77, 60_000);
            let new = try_back_up(&open(&store), &[("s", added.clone())])
                .unwrap_or_else(|error| panic!("{case}: {error}"));
            assert!(read(&open(&store), &new.point, 0).unwrap() == added, "{case}");
            assert!(restores(&open(&store), "after a backup").starts_with(&whole), "{case}");

            // Pruning: nothing in doubt, and never what a point needs.
            let before = memory.names();
            for _ in 0..3 {
                let _ = collect(&open(&store), 0, &Silent);
            }
            if !state.doubts.is_empty() {
                let gone: Vec<_> = before.iter().filter(|name| !memory.names().contains(name)).collect();
                assert!(gone.is_empty(), "{case}: {gone:?}");
            }
            assert!(restores(&open(&store), "after a prune").starts_with(&whole), "{case}");
            assert!(read(&open(&store), &new.point, 0).unwrap() == added, "{case}: after a prune");

            // Recovering with nothing but the store, the key and the kit.
            let recovered = Repository::open_with(access(store.clone()), None, &kit).unwrap();
            assert!(restores(&recovered, "recovered").starts_with(&whole), "{case}");
        }
    }
    let may_spoil =
        sample.objects.iter().any(|(object, _, owner)| objects.contains(object) && owner.is_some());
    assert_eq!(spoiled > 0, may_spoil, "{spoiled} of {cases} cases made a point unreadable");
    assert!(cases >= 5);
}

fn both() -> (Sample, Sample) {
    let (sample, foreign) = (prepared(100), prepared(200));
    assert!(sample.objects.iter().map(|o| o.0).eq(foreign.objects.iter().map(|o| o.0)));
    (sample, foreign)
}

#[test]
fn damage_to_a_pack_harms_the_point_that_needs_it_and_nothing_else() {
    let (sample, foreign) = both();
    goes_on(&sample, &foreign, &[Object::DataPack, Object::TreePack]);
}

#[test]
fn damage_to_a_manifest_harms_its_point_and_nothing_else() {
    let (sample, foreign) = both();
    goes_on(&sample, &foreign, &[Object::Manifest]);
}

#[test]
fn damage_to_the_index_a_proof_or_archived_log_harms_no_point() {
    let (sample, foreign) = both();
    goes_on(&sample, &foreign, &[Object::Index, Object::Proof, Object::Wal]);
}

#[test]
fn damage_to_the_log_hides_no_byte_and_lets_nothing_go() {
    let (sample, foreign) = both();
    goes_on(&sample, &foreign, &[Object::LogEntry, Object::Checkpoint, Object::OldEntry]);
    assert_eq!(sample.objects.iter().filter(|(_, name, _)| name == FIRST_ENTRY).count(), 1);
}

#[test]
fn damage_to_what_opens_a_repository_is_mended_by_the_kit() {
    let (sample, foreign) = both();
    goes_on(&sample, &foreign, &[Object::Trust, Object::Key, Object::Format]);
}
