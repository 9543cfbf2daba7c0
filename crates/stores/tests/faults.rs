//! The stores for tests are themselves tested: a simulation is worth as much as the faults that it is fed.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

use mainstay_stores::{
    FailingStore, Fault, MemoryStore, RecordingStore, Rule, Store, StoreError, Verb, script,
};
use std::ops::ControlFlow;

fn names(store: &dyn Store) -> Vec<String> {
    let mut found = Vec::new();
    store
        .list("", &mut |listed| {
            found.push(listed.name);
            ControlFlow::Continue(())
        })
        .unwrap();
    found.sort();
    found
}

fn at(verb: Verb, prefix: &str, nth: usize, fault: Fault) -> Rule {
    Rule { verb: Some(verb), prefix: prefix.to_owned(), nth, fault }
}

#[test]
fn a_record_names_every_call_with_its_size_and_outcome() {
    let store = RecordingStore::new(MemoryStore::new());
    store.create("log/1", b"hello").unwrap();
    store.create("log/1", b"again").unwrap_err();
    store.read("log/1").unwrap();
    store.read_range("log/1", 1, 2).unwrap();
    store.stat("log/1").unwrap();
    names(&store);
    store.delete("log/1").unwrap();
    store.read("log/1").unwrap_err();
    let shown: Vec<String> = store.take().iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "create log/1 5",
            "create log/1 5 failed",
            "read log/1 5",
            "read_range log/1 2",
            "stat log/1 5",
            "list  1",
            "delete log/1 0",
            "read log/1 0 failed",
        ]
    );
    assert_eq!(store.calls(), []);
}

#[test]
fn a_fault_strikes_the_call_that_the_script_names_and_no_other() {
    let memory = MemoryStore::new();
    let rules = [
        at(Verb::Create, "log/", 1, Fault::Unavailable),
        at(Verb::Create, "packs/", 0, Fault::LostAnswer { took_effect: true }),
        at(Verb::Create, "packs/", 1, Fault::LostAnswer { took_effect: false }),
        at(Verb::Delete, "", 0, Fault::DeniedAfterEffect),
    ];
    let store = FailingStore::new(memory.clone(), script(rules));
    store.create("log/1", b"").unwrap();
    assert!(matches!(store.create("log/2", b"").unwrap_err(), StoreError::Unavailable { .. }));
    store.create("log/2", b"").unwrap();
    assert!(matches!(store.create("packs/a", b"").unwrap_err(), StoreError::Unclear { .. }));
    assert!(matches!(store.create("packs/b", b"").unwrap_err(), StoreError::Unclear { .. }));
    assert!(matches!(store.delete("log/1").unwrap_err(), StoreError::Denied { .. }));
    assert_eq!(memory.names(), ["log/2", "packs/a"]);
    assert_eq!(store.calls(), 6);
}

#[test]
fn a_dead_process_does_nothing_more() {
    for took_effect in [false, true] {
        let memory = MemoryStore::new();
        let store = FailingStore::dying_at(memory.clone(), 1, took_effect);
        store.create("1", b"").unwrap();
        store.create("2", b"").unwrap_err();
        assert!(store.is_dead());
        store.create("3", b"").unwrap_err();
        store.delete("1").unwrap_err();
        store.clone().read("1").unwrap_err();
        assert_eq!(memory.names(), if took_effect { vec!["1", "2"] } else { vec!["1"] });
    }
}

#[test]
fn space_runs_out_at_the_byte() {
    let store = FailingStore::faultless(MemoryStore::new()).with_space(10);
    store.create("1", &[0; 6]).unwrap();
    assert!(matches!(store.create("2", &[0; 5]).unwrap_err(), StoreError::Full { .. }));
    store.create("3", &[0; 4]).unwrap();
    assert!(matches!(store.create("4", &[0; 1]).unwrap_err(), StoreError::Full { .. }));
}

#[test]
fn a_listing_lags_behind_creates_and_deletes_while_reads_do_not() {
    let store = FailingStore::faultless(MemoryStore::new()).with_lagging_lists(3);
    store.create("old", b"").unwrap();
    for _ in 0..3 {
        store.stat("old").unwrap();
    }
    store.create("new", b"").unwrap();
    store.delete("old").unwrap();
    assert_eq!(names(&store), ["old"], "the new one is hidden, the deleted one still shown");
    assert_eq!(store.stat("new").unwrap(), Some(0));
    assert_eq!(store.stat("old").unwrap(), None);
    assert_eq!(names(&store), ["new"], "by now the create is seen, and so is the delete");
}

#[test]
fn a_snapshot_keeps_what_was_there() {
    let store = MemoryStore::new();
    store.create("a", b"then").unwrap();
    let then = store.snapshot();
    store.overwrite("a", b"now");
    store.create("b", b"").unwrap();
    assert_eq!(then.read("a").unwrap(), b"then");
    assert_eq!(then.names(), ["a"]);
    assert_eq!(store.clone().read("a").unwrap(), b"now", "a clone is the same store");
}

#[test]
fn a_power_cut_takes_what_was_not_sent_again_until_the_store_answered() {
    let memory = MemoryStore::new();
    let rules = ["log/1", "log/2"].map(|name| at(Verb::Create, name, 0, Fault::NotDurable));
    let store = FailingStore::new(memory.clone(), script(rules));
    for name in ["log/1", "log/2"] {
        assert!(matches!(store.create(name, b"entry"), Err(StoreError::Unclear { .. })));
        assert_eq!(store.stat(name).unwrap(), Some(5));
    }
    assert!(store.create("log/2", b"entry").unwrap_err().already_exists());
    store.cut_power();
    assert_eq!(memory.names(), ["log/2"]);
}
