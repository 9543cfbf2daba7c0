//! A repository of a later version is refused, or only read, and says what to do.

use crate::support::*;
use mainstay_domain::{Failure, Kind, Silent};
use mainstay_repository::{Repository, collect::collect, format};
use mainstay_stores::{MemoryStore, Store};
use std::sync::Arc;

/// The format object with another body, signed as it should be.
fn with_format(
    memory: &MemoryStore,
    repository: &Repository,
    change: impl Fn(&mut Vec<u8>),
) -> Arc<dyn Store> {
    let copy = memory.snapshot();
    let object = copy.read(format::NAME).unwrap();
    let length = u32::from_be_bytes(object[8..12].try_into().unwrap()) as usize;
    let mut body = object[12..12 + length].to_vec();
    change(&mut body);
    let mut object = [&b"MSTYFMT1"[..], &(body.len() as u32).to_be_bytes(), &body].concat();
    let root = repository.keyring().current().root().unwrap();
    let signature = root.sign(&[b"mainstay v1 format\0", &object[..]].concat());
    object.extend_from_slice(&signature);
    copy.overwrite(format::NAME, &object);
    Arc::new(copy)
}

/// Sets feature bit 0 of the fields 4 (incompatible), 5 (read-only) or 6 (ignorable), which are all 0 now.
fn with_bit(field: u8) -> impl Fn(&mut Vec<u8>) {
    move |body| {
        let at = body.windows(7).position(|w| w == [4, 0, 5, 0, 6, 0, 7]).unwrap();
        body[at + 1 + 2 * usize::from(field - 4)] = 1;
    }
}

#[test]
fn a_repository_of_a_newer_format_is_refused_with_what_to_do() {
    let memory = MemoryStore::new();
    let repository = create(&(Arc::new(memory.clone()) as Arc<dyn Store>));
    let version: fn(&mut Vec<u8>) = |body| {
        assert_eq!(body[1..3], [0, 1], "version 1");
        body[2] = 2;
    };
    for store in [with_format(&memory, &repository, version), with_format(&memory, &repository, with_bit(4))]
    {
        let failure = Failure::from(Repository::open(access(store), None).err().unwrap());
        assert_eq!(failure.kind, Kind::Usage);
        assert!(failure.message.contains("newer version of Mainstay"), "{failure}");
        assert!(failure.hint.unwrap().contains("at least as new"));
    }
}

#[test]
fn a_repository_that_only_a_newer_version_may_write_to_is_read_and_not_written() {
    let memory = MemoryStore::new();
    let repository = create(&(Arc::new(memory.clone()) as Arc<dyn Store>));
    let point = back_up(&repository, &[("a", noise(1, 100_000))]).point;
    let store = with_format(&memory, &repository, with_bit(5));
    let repository = open(&store);
    assert!(read(&repository, &point, 0).unwrap() == noise(1, 100_000));
    let before = names(&*store);
    let refused = [
        try_back_up(&repository, &[("a", noise(2, 1000))]).err().unwrap(),
        repository.drop_point(point, "test", "no").unwrap_err(),
        collect(&repository, 0, &Silent).unwrap_err(),
        repository.accept_rollback().unwrap_err(),
    ];
    for error in refused {
        let failure = Failure::from(error);
        assert_eq!(failure.kind, Kind::Usage);
        assert!(failure.hint.unwrap().contains("at least as new"));
    }
    assert_eq!(names(&*store), before, "nothing was written or deleted");
}

#[test]
fn a_feature_that_may_be_ignored_is_no_reason_to_stop() {
    let memory = MemoryStore::new();
    let repository = create(&(Arc::new(memory.clone()) as Arc<dyn Store>));
    back_up(&open(&with_format(&memory, &repository, with_bit(6))), &[("a", noise(1, 1000))]);
}

fn names(store: &dyn Store) -> Vec<String> {
    let mut found = Vec::new();
    let mut note = |listed: mainstay_stores::Listed| {
        found.push(listed.name);
        std::ops::ControlFlow::Continue(())
    };
    store.list("", &mut note).unwrap();
    found.sort();
    found
}
