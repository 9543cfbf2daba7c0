//! The behaviour that every store owes its callers (see the contract on `Store`), run over each of them.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

use mainstay_stores::{FailingStore, Listed, LocalStore, MemoryStore, RecordingStore, Store, StoreError};
use std::{ops::ControlFlow, sync::Barrier};

/// Runs each promise over each store, every time on an empty one.
macro_rules! promises {
    ($($promise:ident),* $(,)?) => {
        mod local {$(
            #[test]
            fn $promise() {
                let directory = tempfile::tempdir().unwrap();
                super::$promise(&super::LocalStore::new(directory.path().join("made/on/demand")));
            }
        )*}
        mod memory {$(
            #[test]
            fn $promise() {
                super::$promise(&super::MemoryStore::new());
            }
        )*}
        mod recording {$(
            #[test]
            fn $promise() {
                super::$promise(&super::RecordingStore::new(super::MemoryStore::new()));
            }
        )*}
        mod failing_without_faults {$(
            #[test]
            fn $promise() {
                super::$promise(&super::FailingStore::faultless(super::MemoryStore::new()));
            }
        )*}
        mod behind_pointers {$(
            #[test]
            fn $promise() {
                let store: Box<dyn super::Store> = Box::new(std::sync::Arc::new(super::MemoryStore::new()));
                super::$promise(&store);
            }
        )*}
    };
}

promises![
    what_was_created_is_read_back,
    what_exists_is_never_replaced,
    what_is_not_there_is_not_found,
    a_range_ends_where_the_object_ends,
    an_object_may_be_empty_or_large,
    a_listing_shows_each_object_below_its_prefix_once,
    a_listing_stops_when_its_visitor_has_seen_enough,
    a_visitor_may_call_the_store,
    deleting_is_repeatable_and_frees_the_name,
    a_bad_name_is_refused_by_every_verb,
    of_many_writers_of_one_name_exactly_one_wins,
    writers_of_many_names_do_not_disturb_each_other,
];

fn list(store: &dyn Store, prefix: &str) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    store
        .list(prefix, &mut |Listed { name, bytes }| {
            found.push((name, bytes));
            ControlFlow::Continue(())
        })
        .unwrap();
    found.sort();
    found
}

fn names(store: &dyn Store, prefix: &str) -> Vec<String> {
    list(store, prefix).into_iter().map(|(name, _)| name).collect()
}

fn what_was_created_is_read_back(store: &dyn Store) {
    store.create("packs/data/ab/one", b"some bytes\0\xff").unwrap();
    assert_eq!(store.read("packs/data/ab/one").unwrap(), b"some bytes\0\xff");
    assert_eq!(store.stat("packs/data/ab/one").unwrap(), Some(12));
    assert_eq!(store.read_range("packs/data/ab/one", 5, 5).unwrap(), b"bytes");
}

fn what_exists_is_never_replaced(store: &dyn Store) {
    store.create("log/1", b"first").unwrap();
    for bytes in [&b"other"[..], b"first"] {
        let error = store.create("log/1", bytes).unwrap_err();
        assert!(error.already_exists(), "{error:?}: even the same bytes are told apart from a first create");
        assert!(error.to_string().contains("log/1"));
    }
    assert_eq!(store.read("log/1").unwrap(), b"first");
    assert_eq!(names(store, ""), ["log/1"]);
}

fn what_is_not_there_is_not_found(store: &dyn Store) {
    assert_eq!(list(store, ""), [], "an empty store is no error");
    store.create("packs/data/ab/one", b"x").unwrap();
    for missing in ["format", "packs/data/ab/two", "packs/data/ab", "packs/data/ab/one/more"] {
        assert!(store.read(missing).unwrap_err().is_not_found(), "{missing}");
        assert!(store.read_range(missing, 0, 1).unwrap_err().is_not_found(), "{missing}");
        assert_eq!(store.stat(missing).unwrap(), None, "{missing}");
        store.delete(missing).ok();
    }
    assert_eq!(names(store, ""), ["packs/data/ab/one"]);
    assert_eq!(list(store, "packs/tree/"), []);
}

fn a_range_ends_where_the_object_ends(store: &dyn Store) {
    store.create("o", b"0123456789").unwrap();
    for (offset, length, expected) in [
        (0, 10, &b"0123456789"[..]),
        (0, 0, b""),
        (8, 100, b"89"),
        (10, 1, b""),
        (11, 1, b""),
        (u64::MAX, usize::MAX, b""),
        (3, usize::MAX, b"3456789"),
    ] {
        assert_eq!(store.read_range("o", offset, length).unwrap(), expected, "{offset} {length}");
    }
}

fn an_object_may_be_empty_or_large(store: &dyn Store) {
    store.create("empty", b"").unwrap();
    assert_eq!(store.read("empty").unwrap(), b"");
    assert_eq!(store.stat("empty").unwrap(), Some(0));
    let large: Vec<u8> = (0..20_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    store.create("large", &large).unwrap();
    assert!(store.read("large").unwrap() == large);
    assert!(store.read_range("large", 19_999_990, 100).unwrap() == large[19_999_990..]);
}

fn a_listing_shows_each_object_below_its_prefix_once(store: &dyn Store) {
    let all = ["format", "log/1", "log/2", "packs/data/ab/x", "packs/data/cd/y", "packs-old/z"];
    for (bytes, name) in all.iter().enumerate() {
        store.create(name, &vec![0; bytes]).unwrap();
    }
    let mut sorted = all.to_vec();
    sorted.sort();
    assert_eq!(names(store, ""), sorted);
    assert_eq!(list(store, "log/"), [("log/1".to_owned(), 1), ("log/2".to_owned(), 2)]);
    assert_eq!(names(store, "packs/"), ["packs/data/ab/x", "packs/data/cd/y"]);
    assert_eq!(names(store, "packs/data/cd/"), ["packs/data/cd/y"]);
    assert_eq!(names(store, "nothing/here/"), [] as [&str; 0]);
}

fn a_listing_stops_when_its_visitor_has_seen_enough(store: &dyn Store) {
    for name in ["a/1", "a/2", "b/1"] {
        store.create(name, b"").unwrap();
    }
    let mut seen = 0;
    let visit = &mut |_| {
        seen += 1;
        if seen == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    store.list("", visit).unwrap();
    assert_eq!(seen, 2);
}

fn a_visitor_may_call_the_store(store: &dyn Store) {
    for name in ["a/1", "a/2", "a/3"] {
        store.create(name, b"").unwrap();
    }
    store
        .list("a/", &mut |listed| {
            store.delete(&listed.name).unwrap();
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(list(store, ""), []);
}

fn deleting_is_repeatable_and_frees_the_name(store: &dyn Store) {
    store.create("keys/1/a", b"old").unwrap();
    store.create("keys/1/b", b"stays").unwrap();
    store.delete("keys/1/a").unwrap();
    store.delete("keys/1/a").unwrap();
    store.delete("never/was/there").unwrap();
    assert!(store.read("keys/1/a").unwrap_err().is_not_found());
    store.create("keys/1/a", b"new").unwrap();
    assert_eq!(store.read("keys/1/a").unwrap(), b"new");
    assert_eq!(names(store, ""), ["keys/1/a", "keys/1/b"]);
}

fn a_bad_name_is_refused_by_every_verb(store: &dyn Store) {
    for bad in ["", "../outside", "/etc/passwd", "a//b", "a/../../b", ".tmp/x", "a\nb", "a/"] {
        let refused =
            |error: StoreError| assert!(matches!(error, StoreError::BadName { .. }), "{bad:?}: {error:?}");
        refused(store.create(bad, b"").unwrap_err());
        refused(store.read(bad).unwrap_err());
        refused(store.read_range(bad, 0, 1).unwrap_err());
        refused(store.stat(bad).unwrap_err());
        refused(store.delete(bad).unwrap_err());
    }
    for bad in ["..", "../", "/", "a", "./"] {
        let error = store.list(bad, &mut |_| ControlFlow::Continue(())).unwrap_err();
        assert!(matches!(error, StoreError::BadName { .. }), "{bad:?}: {error:?}");
    }
}

fn of_many_writers_of_one_name_exactly_one_wins(store: &dyn Store) {
    const WRITERS: usize = 8;
    for round in 0..20 {
        let name = format!("log/{round:020}");
        let start = Barrier::new(WRITERS);
        let winners: Vec<usize> = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..WRITERS)
                .map(|writer| {
                    let (name, start) = (&name, &start);
                    scope.spawn(move || {
                        start.wait();
                        match store.create(name, format!("writer {writer}").as_bytes()) {
                            Ok(()) => Some(writer),
                            Err(error) if error.already_exists() => None,
                            Err(error) => panic!("{error:?}"),
                        }
                    })
                })
                .collect();
            writers.into_iter().filter_map(|writer| writer.join().unwrap()).collect()
        });
        assert_eq!(winners.len(), 1, "round {round}: {winners:?}");
        assert_eq!(store.read(&name).unwrap(), format!("writer {}", winners[0]).as_bytes());
    }
}

fn writers_of_many_names_do_not_disturb_each_other(store: &dyn Store) {
    std::thread::scope(|scope| {
        for writer in 0..4 {
            scope.spawn(move || {
                for number in 0..25 {
                    let name = format!("packs/data/{number:02}/{writer}");
                    store.create(&name, name.as_bytes()).unwrap();
                    assert_eq!(store.read(&name).unwrap(), name.as_bytes());
                }
            });
        }
    });
    assert_eq!(list(store, "packs/").len(), 100);
}
