//! What goes in comes out, once, whoever opens the repository next.

use crate::support::*;
use mainstay_domain::{
    Silent,
    stream::{Pool, Sink},
};
use mainstay_repository::{
    Session,
    check::{Depth, check},
    collect::collect,
};
use mainstay_stores::{MemoryStore, Store};
use std::sync::Arc;

#[test]
fn what_was_stored_comes_back_and_is_stored_once() {
    let memory = MemoryStore::new();
    let store: Arc<dyn Store> = Arc::new(memory.clone());
    let repository = create(&store);
    let streams = [("a", noise(1, 900_000)), ("b", noise(2, 10)), ("empty", Vec::new())];
    let first = back_up(&repository, &streams);
    let second = back_up(&repository, &streams);
    assert!(first.stored_bytes > 900_000);
    assert_eq!(second.stored_bytes, 0, "all of it was known");

    let repository = open(&store);
    for committed in [&first, &second] {
        for (n, (_, bytes)) in streams.iter().enumerate() {
            assert!(read(&repository, &committed.point, n).unwrap() == *bytes);
        }
    }
    let points: Vec<_> = repository.state().unwrap().facts.points.keys().copied().collect();
    let report = check(&repository, &points, Depth::Data, 2, &Silent).unwrap();
    assert_eq!(report.findings, []);
    assert!(report.bytes > 900_000);
}

#[test]
fn what_no_point_needs_is_collected_and_nothing_else() {
    let memory = MemoryStore::new();
    let store: Arc<dyn Store> = Arc::new(memory.clone());
    let repository = create(&store);
    let first = back_up(&repository, &[("a", noise(1, 300_000))]);
    let second = back_up(&repository, &[("b", noise(2, 300_000))]);
    let before: u64 = memory.objects().values().map(|o| o.len() as u64).sum();
    repository.drop_point(first.point, "test", "no longer needed").unwrap();
    let collected = collect(&repository, 0, &Silent).unwrap();
    assert!(collected.deleted_bytes > 300_000, "{collected:?}");
    let after: u64 = memory.objects().values().map(|o| o.len() as u64).sum();
    assert!(after < before - 250_000);
    let repository = open(&store);
    assert!(read(&repository, &second.point, 0).unwrap() == noise(2, 300_000));
    let report = check(&repository, &[second.point], Depth::Data, 2, &Silent).unwrap();
    assert_eq!(report.findings, []);
    assert_eq!(
        collect(&repository, 0, &Silent).unwrap().deleted_objects,
        0,
        "a second collection finds nothing"
    );
}

#[test]
fn two_writers_at_once_may_store_a_chunk_twice_and_each_point_knows_its_own() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    create(&store);
    let cache = tempfile::tempdir().unwrap();
    let opened = || {
        let access =
            mainstay_repository::Access { cache: Some(cache.path().to_owned()), ..access(store.clone()) };
        mainstay_repository::Repository::open(access, None).unwrap()
    };
    // Both sessions begin before either has committed, so neither knows what the other stores.
    let (one, two) = (opened(), opened());
    let sessions = [Session::begin(&one, tuning()).unwrap(), Session::begin(&two, tuning()).unwrap()];
    let points: Vec<_> = sessions
        .into_iter()
        .map(|session| {
            let content = session.put_reader(Pool::Data, &mut noise(5, 200_000).as_slice()).unwrap();
            let stream = mainstay_domain::point::Stream { name: "s".into(), content };
            session.commit(|_| point(mainstay_domain::Time(0), vec![stream])).unwrap().point
        })
        .collect();
    for n in 0..12 {
        back_up(&opened(), &[("filler", noise(100 + n, 3_000))]); // so that the local index is merged
    }
    let repository = opened();
    let report = check(&repository, &points, Depth::Data, 1, &Silent).unwrap();
    assert_eq!(report.findings, []);
    // Without the first point's packs the second still reads.
    repository.drop_point(points[0], "test", "twin").unwrap();
    collect(&repository, 0, &Silent).unwrap();
    assert!(read(&opened(), &points[1], 0).unwrap() == noise(5, 200_000));
}

#[test]
fn a_point_whose_source_is_named_like_a_way_out_of_its_folder_is_not_opened() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let repository = create(&store);
    let at = repository.clock().now();
    let committed = |name: &str| {
        let session = Session::begin(&repository, tuning()).unwrap();
        let mut point = point(at, Vec::new());
        point.sources[0].name = name.into();
        session.commit(|_| point).unwrap().point
    };
    for name in ["", ".", "..", "../a", "/etc", "a/b", "a/", "./a", "a\0b"] {
        let refused = repository.manifest(&committed(name)).map(|_| ()).unwrap_err();
        assert!(refused.to_string().contains("leads out"), "{name:?}: {refused}");
    }
    for name in ["db", ".env", "db-tablespace-16384-stopped", "..."] {
        assert!(repository.manifest(&committed(name)).is_ok(), "{name:?}");
    }
}
