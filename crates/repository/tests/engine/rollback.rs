//! A store that was restored from an older copy of itself is noticed by whoever remembers more, and only goes on when told to.

use crate::support::*;
use mainstay_domain::{Failure, Kind, Silent};
use mainstay_repository::{
    Access, Repository,
    check::{Depth, check},
    collect::collect,
};
use mainstay_stores::{MemoryStore, Store};
use std::sync::Arc;

#[test]
fn a_store_put_back_to_yesterday_is_read_and_not_written_until_that_is_accepted() {
    let cache = tempfile::tempdir().unwrap();
    let opened = |memory: &MemoryStore| {
        let store: Arc<dyn Store> = Arc::new(memory.clone());
        Repository::open(Access { cache: Some(cache.path().to_owned()), ..access(store) }, None).unwrap()
    };
    let memory = MemoryStore::new();
    create(&(Arc::new(memory.clone()) as Arc<dyn Store>));
    let old = back_up(&opened(&memory), &[("a", noise(1, 100_000))]).point;
    let yesterday = memory.snapshot();
    let lost = back_up(&opened(&memory), &[("a", noise(1, 100_000)), ("b", noise(2, 100_000))]).point;

    let repository = opened(&yesterday);
    assert!(repository.was_rolled_back());
    let before = yesterday.names();
    let refused = [
        try_back_up(&repository, &[("a", noise(3, 1000))]).err().unwrap(),
        repository.drop_point(old, "test", "no").unwrap_err(),
        collect(&repository, 0, &Silent).unwrap_err(),
    ];
    for error in refused {
        let failure = Failure::from(error);
        assert_eq!(failure.kind, Kind::Refused, "{failure}");
        assert!(failure.hint.unwrap().contains("repair --accept-rollback"));
    }
    assert_eq!(yesterday.names(), before);
    assert!(read(&repository, &old, 0).unwrap() == noise(1, 100_000), "restores work");
    assert!(opened(&yesterday).was_rolled_back(), "it is not forgotten");

    opened(&yesterday).accept_rollback().unwrap();
    let repository = opened(&yesterday);
    assert!(!repository.was_rolled_back());
    let new = back_up(&repository, &[("b", noise(2, 100_000))]);
    assert!(new.stored_bytes > 100_000, "what the store has lost is stored again");
    let points: Vec<_> = repository.refreshed_state().unwrap().facts.points.into_keys().collect();
    assert!(points.len() == 2 && !points.contains(&lost));
    collect(&repository, 0, &Silent).unwrap();
    assert_eq!(check(&opened(&yesterday), &points, Depth::Data, 1, &Silent).unwrap().findings, []);
}
