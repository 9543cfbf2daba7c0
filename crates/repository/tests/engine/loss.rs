//! What is known to be lost: which copies must stay, what is said of a point that needs it, and what no damage is.

use crate::support::*;
use mainstay_domain::{
    PackId, Silent,
    point::Stream,
    stream::{Pool, Sink},
};
use mainstay_repository::{
    Repository, Session,
    check::{Depth, Finding, check, check_written, known_harm},
    collect::collect,
    pack,
};
use mainstay_stores::{Listed, MemoryStore, Store, StoreError};
use std::{collections::BTreeSet, ops::ControlFlow, sync::Arc};

fn prepared() -> (MemoryStore, Arc<dyn Store>) {
    let memory = MemoryStore::new();
    let store: Arc<dyn Store> = Arc::new(memory.clone());
    create(&store);
    (memory, store)
}

fn lose(memory: &MemoryStore, packs: &[PackId]) {
    for name in packs.iter().flat_map(|id| [Pool::Data, Pool::Tree].map(|pool| pack::object_name(pool, id))) {
        memory.delete(&name).unwrap();
    }
}

#[test]
fn the_copy_that_a_lost_pack_lives_on_stays_as_long_as_a_point_needs_it() {
    let (memory, store) = prepared();
    let bytes = noise(1, 100_000);
    let first = back_up(&open(&store), &[("a", bytes.clone())]);
    lose(&memory, &first.reach.packs);
    let lost: BTreeSet<_> = first.reach.packs.iter().copied().collect();
    open(&store).record_lost(&lost, &BTreeSet::new()).unwrap();
    let second = back_up(&open(&store), &[("a", bytes.clone())]);
    assert!(second.stored_bytes > 100_000, "stored again");
    back_up(&open(&store), &[("b", noise(2, 50_000))]);
    open(&store).drop_point(second.point, "test", "it has expired").unwrap();
    for _ in 0..3 {
        collect(&open(&store), 0, &Silent).unwrap();
    }
    assert!(read(&open(&store), &first.point, 0).unwrap() == bytes);
    open(&store).drop_point(first.point, "test", "it has expired").unwrap();
    collect(&open(&store), 0, &Silent).unwrap();
    let left = memory.names();
    assert!(
        second.reach.packs.iter().all(|id| !left.contains(&pack::object_name(Pool::Data, id))),
        "not for ever"
    );
}

#[test]
fn a_lost_pack_harms_only_the_points_that_need_what_lies_nowhere_else() {
    let (memory, store) = prepared();
    let (kept, gone) = (noise(1, 20_000), noise(2, 20_000));
    let first = back_up(&open(&store), &[("a", kept.clone()), ("b", gone.clone())]);
    let second = back_up(&open(&store), &[("a", kept.clone()), ("c", noise(3, 9_000))]).point;
    let both = [first.point, second];
    lose(&memory, &first.reach.packs);
    let look = |depth| check(&open(&store), &both, depth, 1, &Silent).unwrap();
    let harm = || known_harm(&open(&store), &open(&store).state().unwrap(), &Silent).unwrap();
    let report = look(Depth::Packs);
    assert!(report.findings.iter().any(|finding| finding.points == both), "{:?}", report.findings);
    open(&store).record_lost(&report.lost_packs(), &BTreeSet::new()).unwrap();
    assert_eq!(harm().into_values().flatten().collect::<BTreeSet<_>>(), both.into());

    // What only the first point has cannot be captured any more.
    let third = back_up(&open(&store), &[("a", kept.clone())]);
    assert!(third.stored_bytes > 20_000, "nobody relies on what is lost");
    for depth in [Depth::Objects, Depth::Packs, Depth::Data] {
        let report = look(depth);
        assert!(!report.findings.is_empty());
        assert!(
            report.findings.iter().all(|finding| finding.points == [first.point]),
            "{:?}",
            report.findings
        );
    }
    assert_eq!(harm().into_values().flatten().collect::<Vec<_>>(), [first.point]);

    // The point that brought the copies may go; the second lives on, and no later one relies on what is lost.
    open(&store).drop_point(first.point, "test", "it is damaged").unwrap();
    open(&store).drop_point(third.point, "test", "it has expired").unwrap();
    for _ in 0..3 {
        collect(&open(&store), 0, &Silent).unwrap();
    }
    let report = check(&open(&store), &[second], Depth::Data, 1, &Silent).unwrap();
    assert_eq!(report.findings, []);
    assert!(!report.made_good.is_empty() && harm().is_empty());
    assert!(read(&open(&store), &second, 0).unwrap() == kept);
    let fourth = back_up(&open(&store), &[("a", kept), ("b", gone)]);
    assert!(fourth.reach.packs.iter().all(|pack| !first.reach.packs.contains(pack)));

    // Copies that are damaged make nothing good.
    lose(&memory, &third.reach.packs);
    lose(&memory, &fourth.reach.packs);
    assert!(!check(&open(&store), &[second], Depth::Objects, 1, &Silent).unwrap().is_clean());
}

#[test]
fn a_lost_pack_of_which_a_point_needs_the_list_of_its_chunks_alone_harms_it() {
    let (_, store) = prepared();
    let bytes = noise(1, 1_000_000);
    let first = back_up(&open(&store), &[("a", bytes.clone())]);
    let manifest = open(&store).manifest(&first.point).unwrap();
    assert!(manifest.point.sources[0].streams[0].content.level > 0, "the case is there");
    let of_pool = |pool| first.written.packs.iter().filter(move |(_, p)| *p == pool).map(|(id, _)| *id);
    assert!(of_pool(Pool::Data).count() > 1);
    // It is found damaged, and what was read of it may be whole the next time.
    let lists: BTreeSet<_> = of_pool(Pool::Tree).collect();
    open(&store).record_lost(&lists, &BTreeSet::new()).unwrap();
    let harm = || known_harm(&open(&store), &open(&store).state().unwrap(), &Silent).unwrap();
    let harmed = harm();
    assert_eq!(harmed.keys().copied().collect::<BTreeSet<_>>(), lists);
    assert!(harmed.values().all(|points| *points == [first.point].into()));

    let second = back_up(&open(&store), &[("a", bytes)]);
    assert_eq!(second.written.packs.iter().filter(|(_, pool)| *pool == Pool::Data).count(), 0);
    assert_eq!(harm(), Default::default(), "the list is stored again");
}

#[test]
fn a_copy_in_a_pack_that_was_swept_makes_nothing_good() {
    let (_, store) = prepared();
    let (same, other) = (noise(1, 100_000), noise(2, 100_000));
    let repository = open(&store);
    // Neither knows of the other: both store it.
    let sessions = [(); 2].map(|()| Session::begin(&repository, tuning()).unwrap());
    sessions[1].put_reader(Pool::Data, &mut other.as_slice()).unwrap();
    let [first, second] = sessions.map(|session| {
        let content = session.put_reader(Pool::Data, &mut same.as_slice()).unwrap();
        let stream = Stream { name: "a".into(), content };
        session.commit(|_| point(repository.clock().now(), vec![stream])).unwrap()
    });
    // What it stored besides keeps its index segment, which names the swept pack too.
    let third = back_up(&open(&store), &[("other", other)]);
    open(&store).drop_point(second.point, "test", "it has expired").unwrap();
    for _ in 0..3 {
        collect(&open(&store), 0, &Silent).unwrap();
    }
    let live = open(&store).state().unwrap().facts.dead.into_values().flatten().count();
    assert!(live > 0 && third.stored_bytes < 100_000, "the case is there");
    let lost: BTreeSet<_> = first.reach.packs.iter().copied().collect();
    open(&store).record_lost(&lost, &BTreeSet::new()).unwrap();
    let harm = known_harm(&open(&store), &open(&store).state().unwrap(), &Silent).unwrap();
    assert_eq!(harm.into_values().flatten().collect::<BTreeSet<_>>(), [first.point].into());
}

#[test]
fn a_backup_that_relies_on_what_is_known_to_be_lost_is_not_read_back_right() {
    let (_, store) = prepared();
    let bytes = noise(1, 100_000);
    let first = back_up(&open(&store), &[("a", bytes.clone())]);
    let repository = open(&store);
    let session = Session::begin(&repository, tuning()).unwrap();
    let lost: BTreeSet<_> = first.reach.packs.iter().copied().collect();
    // Another host meets the damage while this one is at work; the packs lie there in their full size.
    open(&store).record_lost(&lost, &BTreeSet::new()).unwrap();
    session.put_reader(Pool::Data, &mut bytes.as_slice()).unwrap();
    let committed = session.commit(|_| point(repository.clock().now(), Vec::new())).unwrap();
    assert_eq!(committed.stored_bytes, 0, "it relies on the first");
    let report = check_written(&repository, &committed, Depth::Packs, u64::MAX, 1, &Silent).unwrap();
    assert_eq!(report.lost_packs(), lost);
}

/// Keeps other bytes than it was given, of objects whose name begins so: a wire, a disk or a memory that flips a bit.
struct Flipping(MemoryStore, &'static str);

impl Store for Flipping {
    fn create(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let mut bytes = bytes.to_vec();
        if name.starts_with(self.1) {
            let at = bytes.len() / 2;
            bytes[at] ^= 1;
        }
        self.0.create(name, &bytes)
    }
    fn read(&self, name: &str) -> Result<Vec<u8>, StoreError> {
        self.0.read(name)
    }
    fn read_range(&self, name: &str, offset: u64, length: usize) -> Result<Vec<u8>, StoreError> {
        self.0.read_range(name, offset, length)
    }
    fn stat(&self, name: &str) -> Result<Option<u64>, StoreError> {
        self.0.stat(name)
    }
    fn list(&self, prefix: &str, visit: &mut dyn FnMut(Listed) -> ControlFlow<()>) -> Result<(), StoreError> {
        self.0.list(prefix, visit)
    }
    fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.0.delete(name)
    }
    fn describe(&self) -> String {
        "a store that flips bits".into()
    }
}

#[test]
fn a_byte_that_goes_wrong_after_sealing_is_found_by_reading_back_or_never_committed() {
    for kind in ["packs/data/", "packs/tree/", "index/", "manifests/", "log/"] {
        let (memory, _) = prepared();
        let earlier =
            back_up(&open(&(Arc::new(memory.clone()) as Arc<dyn Store>)), &[("a", noise(1, 20_000))]);
        let flipping: Arc<dyn Store> = Arc::new(Flipping(memory.clone(), kind));
        let repository = open(&flipping);
        let found = match try_back_up(&repository, &[("a", noise(2, 1_000_000))]) {
            Err(_) => "not committed",
            Ok(committed) => {
                match check_written(&repository, &committed, Depth::Packs, u64::MAX, 1, &Silent) {
                    Ok(report) if report.is_clean() => "not found",
                    Ok(report) => {
                        let named = |finding: &Finding| finding.points == [committed.point];
                        assert!(report.findings.iter().all(named), "{kind}: {:?}", report.findings);
                        "found"
                    }
                    Err(_) => "refused",
                }
            }
        };
        assert_eq!(found, if kind == "log/" { "not committed" } else { "found" }, "{kind}");
        let plain: Arc<dyn Store> = Arc::new(memory);
        assert!(read(&open(&plain), &earlier.point, 0).unwrap() == noise(1, 20_000), "{kind}");
    }
}

#[test]
fn the_index_that_a_backup_wrote_is_read_back_too() {
    let (memory, store) = prepared();
    let repository = open(&store);
    let committed = back_up(&repository, &[("a", noise(1, 100_000))]);
    let name = format!("index/{}", committed.written.index[0]);
    let whole = memory.objects()[&name].clone();
    memory.overwrite(&name, &whole[..whole.len() / 2]);
    let look =
        || check_written(&repository, &committed, Depth::Objects, u64::MAX, 1, &Silent).unwrap().findings;
    assert_eq!(look().iter().map(|finding| &finding.object).collect::<Vec<_>>(), [&name]);
    memory.overwrite(&name, &whole);
    assert_eq!(look(), []);
}

#[test]
fn what_a_collection_at_the_same_time_took_away_is_no_damage() {
    let (_, store) = prepared();
    let gone = back_up(&open(&store), &[("a", noise(1, 100_000))]).point;
    let stays = back_up(&open(&store), &[("b", noise(2, 100_000))]).point;
    // It has read the log, and looks at the points only now.
    let checker = open(&store);
    open(&store).drop_point(gone, "test", "expired").unwrap();
    collect(&open(&store), 0, &Silent).unwrap();
    let report = check(&checker, &[gone, stays], Depth::Data, 1, &Silent).unwrap();
    assert_eq!(report.findings, []);
    assert_eq!(report.gone, [gone].into());
}

#[test]
fn a_point_that_was_taken_back_is_whole_and_gets_its_index_again() {
    let (memory, store) = prepared();
    let bytes = noise(1, 100_000);
    let first = back_up(&open(&store), &[("a", bytes.clone())]).point;
    let commit = open(&store).state().unwrap().facts.points[&first].committed_at;
    back_up(&open(&store), &[("b", noise(2, 100_000))]);
    memory.delete(&format!("log/{commit:020}")).unwrap();
    open(&store).acknowledge(&[commit]).unwrap();
    open(&store).adopt_point(first).unwrap();
    let unnamed = |repository: &Repository| {
        let reader = repository.reader().unwrap();
        let reach = repository.manifest(&first).unwrap().reach.packs;
        reach.iter().filter(|pack| !reader.view().has_pack(pack)).count()
    };
    assert!(unnamed(&open(&store)) > 0);
    let look = || check(&open(&store), &[first], Depth::Data, 1, &Silent).unwrap().findings;
    assert_eq!(look(), [], "no segment names its packs, and nothing is wrong with it");
    for _ in 0..2 {
        collect(&open(&store), 0, &Silent).unwrap();
    }
    assert_eq!(unnamed(&open(&store)), 0);
    assert_eq!(look(), []);
    assert!(read(&open(&store), &first, 0).unwrap() == bytes);
}

#[test]
fn a_check_remembers_runs_of_points_and_names_each_that_needs_what_is_damaged() {
    let (memory, store) = prepared();
    let shared = noise(1, 100_000);
    let mut needing = Vec::new();
    for n in 0..6 {
        let other = noise(10 + n, 2_000);
        let streams = if n % 3 == 2 { vec![("b", other)] } else { vec![("a", shared.clone()), ("b", other)] };
        let point = back_up(&open(&store), &streams).point;
        needing.extend((n % 3 != 2).then_some(point));
    }
    let repository = open(&store);
    let lost = repository.manifest(&needing[0]).unwrap().reach.packs;
    let common: Vec<_> = lost
        .into_iter()
        .filter(|id| repository.manifest(&needing[3]).unwrap().reach.packs.contains(id))
        .take(1)
        .collect();
    lose(&memory, &common);
    let all: Vec<_> = repository.state().unwrap().facts.points.into_keys().collect();
    let report = check(&repository, &all, Depth::Packs, 2, &Silent).unwrap();
    let named: BTreeSet<_> = report.findings[0].points.iter().copied().collect();
    assert_eq!((report.findings.len(), named), (1, needing.into_iter().collect()));
}
