//! The archive of the write-ahead log: a file is there once, whole, or not at all, and is never mistaken for another.

use crate::support::*;
use mainstay_domain::{
    Failure, Kind,
    wal::{Segment, WalFile},
};
use mainstay_repository::{
    RepositoryError,
    wal::{Archive, Put, fragments::Fragment, systems},
};
use mainstay_stores::{FailingStore, Fault, MemoryStore, RecordingStore, Store, StoreError, Verb};
use std::sync::Arc;

const SYSTEM: u64 = 7_000_000_000_000_000_001;

fn file(name: &str) -> WalFile {
    name.parse().unwrap()
}

fn segment() -> WalFile {
    file("000000010000000000000003")
}

fn fresh() -> (MemoryStore, Arc<dyn Store>) {
    let memory = MemoryStore::new();
    let store: Arc<dyn Store> = Arc::new(memory.clone());
    create(&store);
    (memory, store)
}

/// The names of the archive's objects.
fn archived(memory: &MemoryStore) -> Vec<String> {
    memory.names().into_iter().filter(|name| name.starts_with("wal/")).collect()
}

#[test]
fn the_same_file_again_is_known_and_another_one_under_its_name_is_refused() {
    let (memory, store) = fresh();
    let repository = open(&store);
    let archive = Archive::of(&repository, SYSTEM);
    let content = noise(1, 100_000);
    assert!(
        matches!(archive.put(&segment(), &content, None).unwrap(), Put::Stored(bytes) if bytes > 100_000)
    );
    assert_eq!(archive.put(&segment(), &content, None).unwrap(), Put::Known);
    let refused = Failure::from(archive.put(&segment(), &noise(2, 100_000), None).unwrap_err());
    assert!(refused.kind == Kind::Refused && refused.hint.is_some(), "{refused}");
    assert!(archive.get(&segment()).unwrap().unwrap() == content, "nothing was overwritten");
    assert_eq!(archived(&memory).len(), 1);
    assert_eq!(archive.head(&segment()).unwrap().unwrap().bytes, 100_000);
}

#[test]
fn of_two_partial_segments_under_one_name_the_first_is_kept_and_no_archiver_is_stuck() {
    let (memory, store) = fresh();
    let repository = open(&store);
    let archive = Archive::of(&repository, SYSTEM);
    let partial = file("000000010000000000000003.partial");
    let (first, second) = (noise(1, 50_000), noise(2, 50_000));
    assert!(matches!(archive.put(&partial, &first, None).unwrap(), Put::Stored(_)));
    assert_eq!(archive.put(&partial, &second, None).unwrap(), Put::KeptFirst);
    assert_eq!(archive.put(&partial, &first, None).unwrap(), Put::Known);
    assert!(archive.get(&partial).unwrap().unwrap() == first);
    // Damage is still told.
    let name = archived(&memory).remove(0);
    let mut bytes = store.read(&name).unwrap();
    bytes[25_000] ^= 1;
    memory.overwrite(&name, &bytes);
    assert!(archive.put(&partial, &second, None).is_err());
}

#[test]
fn every_kind_of_file_is_kept_under_a_name_of_its_own_and_clusters_apart() {
    let (_, store) = fresh();
    let repository = open(&store);
    let names = [
        "000000010000000000000003",
        "000000010000000000000003.partial",
        "000000010000000000000003.00000028.backup",
        "00000002.history",
        "000000020000000000000003",
    ];
    for system in [SYSTEM, SYSTEM + 1] {
        let archive = Archive::of(&repository, system);
        for name in names {
            let content = [name.as_bytes(), &system.to_be_bytes()].concat();
            archive.put(&file(name), &content, None).unwrap();
        }
    }
    assert_eq!(systems(&repository).unwrap(), [SYSTEM, SYSTEM + 1]);
    let archive = Archive::of(&repository, SYSTEM);
    let mut listed: Vec<String> =
        archive.list().unwrap().iter().map(|archived| archived.file.to_string()).collect();
    listed.sort();
    let mut expected = names.map(str::to_owned);
    expected.sort();
    assert_eq!(listed, expected);
    for name in names {
        let content = archive.get(&file(name)).unwrap().unwrap();
        assert_eq!(content, [name.as_bytes(), &SYSTEM.to_be_bytes()].concat());
    }
    assert_eq!(archive.get(&file("00000003.history")).unwrap(), None);
}

#[test]
fn damage_is_an_error_and_never_absence_nor_success() {
    let (memory, store) = fresh();
    let repository = open(&store);
    let archive = Archive::of(&repository, SYSTEM);
    let content = noise(1, 50_000);
    archive.put(&segment(), &content, None).unwrap();
    let name = archived(&memory).remove(0);
    let whole = store.read(&name).unwrap();
    for (at, length) in [(0, whole.len()), (30, whole.len()), (70, whole.len()), (150, whole.len())]
        .into_iter()
        .chain([(25_000, whole.len()), (whole.len() - 1, whole.len()), (0, whole.len() - 1), (0, 10), (0, 0)])
    {
        let mut bytes = whole[..length].to_vec();
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1;
        }
        memory.overwrite(&name, &bytes);
        let case = format!("byte {at} of {length}");
        assert!(archive.get(&segment()).unwrap_err().is_damage(), "{case}");
        // PostgreSQL removes its own copy on our word: what is there must be whole.
        assert!(archive.put(&segment(), &content, None).is_err(), "{case}: the archive has nothing of use");
    }
    memory.overwrite(&name, &whole);
    assert_eq!(archive.put(&segment(), &content, None).unwrap(), Put::Known);
}

#[test]
fn a_damaged_copy_is_replaced_when_a_person_says_so_and_nothing_else_is() {
    let (memory, store) = fresh();
    let repository = open(&store);
    let archive = Archive::of(&repository, SYSTEM);
    let (content, other) = (noise(1, 50_000), noise(2, 50_000));
    archive.put(&segment(), &content, None).unwrap();
    let name = archived(&memory).remove(0);
    let refused = |content: &[u8]| {
        let error = archive.put_in_place_of_damage(&segment(), content, None).unwrap_err();
        assert_eq!(Failure::from(error).kind, Kind::Refused);
    };
    assert_eq!(archive.put_in_place_of_damage(&segment(), &content, None).unwrap(), Put::Known);
    refused(&other);
    let whole = store.read(&name).unwrap();
    let mut damaged = whole.clone();
    damaged[25_000] ^= 1;
    memory.overwrite(&name, &damaged);
    refused(&other);
    assert_eq!(store.read(&name).unwrap(), damaged, "what is damaged says still that it was another file");
    for damage in [&damaged[..], &whole[..10], &[]] {
        memory.overwrite(&name, damage);
        let put = archive.put_in_place_of_damage(&segment(), &content, None).unwrap();
        assert!(matches!(put, Put::Stored(_)));
        assert!(archive.get(&segment()).unwrap().unwrap() == content);
    }
    let new = file("000000010000000000000004");
    assert!(matches!(archive.put_in_place_of_damage(&new, &content, None).unwrap(), Put::Stored(_)));
}

#[test]
fn an_object_in_anothers_place_is_not_taken_for_it() {
    let (memory, store) = fresh();
    let repository = open(&store);
    let archive = Archive::of(&repository, SYSTEM);
    archive.put(&segment(), &noise(1, 1000), None).unwrap();
    archive.put(&file("000000010000000000000004"), &noise(2, 1000), None).unwrap();
    Archive::of(&repository, SYSTEM + 1).put(&segment(), &noise(3, 1000), None).unwrap();
    let names = archived(&memory);
    for other in &names[1..] {
        memory.overwrite(&names[0], &store.read(other).unwrap());
        let error = archive.get(&segment()).unwrap_err();
        assert!(error.to_string().contains("written for another place"), "{other}: {error}");
    }
    // A file in a folder that is not its own is not where it would be looked for.
    let stray = names[1].replace("/00000001/", "/00000002/");
    store.create(&stray, &store.read(&names[1]).unwrap()).unwrap();
    assert_eq!(archive.list().unwrap().len(), 2);
}

#[test]
fn an_object_of_an_unknown_signer_is_not_believed() {
    let (memory, store) = fresh();
    let repository = open(&store);
    let archive = Archive::of(&repository, SYSTEM);
    archive.put(&segment(), &noise(1, 1000), None).unwrap();
    let name = archived(&memory).remove(0);
    let mut bytes = store.read(&name).unwrap();
    let signer = bytes.len() - 80;
    bytes[signer..signer + 16].fill(9);
    memory.overwrite(&name, &bytes);
    assert!(matches!(archive.get(&segment()), Err(RepositoryError::Untrusted { .. })));
    // And what a stranger lays into the archive under his own name is not seen at all.
    let host = name.split('/').nth(1).unwrap();
    store.create(&name.replace(host, &"09".repeat(16)).replace("003", "005"), &bytes).unwrap();
    assert!(!archive.has(&file("000000010000000000000005")).unwrap());
    assert_eq!(archive.list().unwrap().len(), 1);
}

#[test]
fn a_fetch_is_one_read_and_needs_no_listing_and_a_push_one_create() {
    let (_, memory) = fresh();
    let recording = RecordingStore::new(memory);
    let store: Arc<dyn Store> = Arc::new(recording.clone());
    let repository = open(&store);
    let archive = Archive::of(&repository, SYSTEM);
    recording.take();
    archive.put(&segment(), &noise(1, 1000), None).unwrap();
    let calls: Vec<Verb> = recording.take().iter().map(|call| call.verb).collect();
    assert_eq!(calls, [Verb::Read, Verb::Create], "it asks whether the file is known, and makes it");
    archive.get(&segment()).unwrap();
    let calls: Vec<Verb> = recording.take().iter().map(|call| call.verb).collect();
    assert_eq!(calls, [Verb::Read]);
}

#[test]
fn a_crash_or_a_lost_answer_at_any_call_leaves_the_file_whole_or_absent_and_the_next_push_succeeds() {
    let (memory, _) = fresh();
    let content = noise(1, 30_000);
    let faults = [
        Fault::Die { took_effect: false },
        Fault::Die { took_effect: true },
        Fault::LostAnswer { took_effect: false },
        Fault::LostAnswer { took_effect: true },
        Fault::Unavailable,
        Fault::Full,
        Fault::NotDurable,
    ];
    for fault in faults {
        for nth in 0..4 {
            let case = format!("{fault:?} at call {nth} of the archive");
            let copy = memory.snapshot();
            let mut seen = 0;
            let failing = FailingStore::new(copy.clone(), move |attempt| {
                let ours = attempt.name.starts_with("wal/");
                seen += usize::from(ours);
                (ours && seen == nth + 1).then_some(fault)
            });
            let store: Arc<dyn Store> = Arc::new(failing.clone());
            let repository = open(&store);
            let acknowledged = Archive::of(&repository, SYSTEM).put(&segment(), &content, None).is_ok();
            failing.cut_power();

            let store: Arc<dyn Store> = Arc::new(copy.clone());
            let repository = open(&store);
            let archive = Archive::of(&repository, SYSTEM);
            match archive.get(&segment()).unwrap() {
                Some(there) => assert!(there == content, "{case}"),
                None => assert!(!acknowledged, "{case}: acknowledged, and not there"),
            }
            archive.put(&segment(), &content, None).unwrap_or_else(|error| panic!("{case}: {error}"));
            assert!(archive.get(&segment()).unwrap().unwrap() == content, "{case}");
            assert_eq!(archived(&copy).len(), 1, "{case}");
        }
    }
}

#[test]
fn a_store_that_does_not_answer_is_not_an_archive_without_the_file() {
    let (memory, store) = fresh();
    Archive::of(&open(&store), SYSTEM).put(&segment(), &noise(1, 1000), None).unwrap();
    let failing =
        FailingStore::new(memory, |attempt| attempt.name.starts_with("wal/").then_some(Fault::Unavailable));
    let store: Arc<dyn Store> = Arc::new(failing);
    let repository = open(&store);
    let error = Archive::of(&repository, SYSTEM).get(&segment()).unwrap_err();
    assert!(matches!(error, RepositoryError::Store(StoreError::Unavailable { .. })), "{error}");
}

const OPEN: &str = "000000010000000000000003";

fn open_segment() -> Segment {
    OPEN.parse().unwrap()
}

/// Archives `bytes[from..to]` as fragment `number`.
fn ship(
    archive: &Archive<'_>,
    number: u32,
    after: Option<u32>,
    bytes: &[u8],
    from: usize,
    to: usize,
) -> bool {
    let fragment =
        Fragment { segment: open_segment(), number, from: from as u64, after, bytes: &bytes[from..to] };
    archive.ship(&fragment).unwrap()
}

#[test]
fn fragments_lead_back_to_the_segments_beginning_and_one_that_gathers_past_the_small_ones() {
    let (memory, store) = fresh();
    let repository = open(&store);
    let archive = Archive::of(&repository, SYSTEM);
    let log = noise(7, 50_000);
    assert_eq!(archive.beginning(open_segment()).unwrap(), None);
    let mut at = 0;
    for number in 0..37 {
        assert!(ship(&archive, number, number.checked_sub(1), &log, at, at + 1000));
        at += 1000;
        assert!(archive.beginning(open_segment()).unwrap().unwrap() == log[..at], "{number}");
    }
    assert!(ship(&archive, 36, Some(35), &log, 36_000, 37_000), "the same again is the same");
    assert!(
        !ship(&archive, 36, Some(35), &log, 36_000, 37_500),
        "another one under its number is not taken for it"
    );
    // One that gathers all of them; then those are not asked for any more.
    assert!(ship(&archive, 37, None, &log, 0, at));
    assert!(ship(&archive, 38, Some(37), &log, at, at + 500));
    for number in 1..37 {
        memory.overwrite(&fragment_named(&memory, number), b"damaged");
    }
    assert!(archive.beginning(open_segment()).unwrap().unwrap() == log[..at + 500]);
    assert_eq!(archive.own_beginning(open_segment()).unwrap().unwrap().0, 38);
    // They are no segment, and are listed as what they are.
    assert_eq!(archive.get(&file(OPEN)).unwrap(), None);
    assert!(archive.list().unwrap().iter().all(|archived| matches!(archived.file, WalFile::Fragment(..))));
    archive.remove_fragments(open_segment(), 39, &|| true).unwrap();
    assert!(archived(&memory).is_empty());
}

fn fragment_named(memory: &MemoryStore, number: u32) -> String {
    archived(memory).into_iter().find(|name| name.ends_with(&format!("@{number:08}"))).unwrap()
}

#[test]
fn a_fragment_that_is_damaged_or_lost_is_an_error_and_never_a_shorter_log() {
    let (memory, store) = fresh();
    let repository = open(&store);
    let archive = Archive::of(&repository, SYSTEM);
    let log = noise(8, 10_000);
    for number in 0..10 {
        let at = number as usize * 1000;
        ship(&archive, number, number.checked_sub(1), &log, at, at + 1000);
    }
    for number in 0..10 {
        let name = fragment_named(&memory, number);
        let whole = store.read(&name).unwrap();
        let mut bytes = whole.clone();
        bytes[500] ^= 1;
        memory.overwrite(&name, &bytes);
        assert!(archive.beginning(open_segment()).unwrap_err().is_damage(), "{number} damaged");
        store.delete(&name).unwrap();
        // What nothing follows has left no trace.
        match archive.beginning(open_segment()) {
            Ok(found) => assert!(number == 9 && found.unwrap() == log[..9000], "{number} lost"),
            Err(error) => assert!(error.is_damage(), "{number}: {error}"),
        }
        memory.overwrite(&name, &whole);
        // In anothers place it is nothing.
        let other = fragment_named(&memory, (number + 1) % 10);
        memory.overwrite(&name, &store.read(&other).unwrap());
        assert!(archive.beginning(open_segment()).unwrap_err().is_damage(), "{number} replaced");
        memory.overwrite(&name, &whole);
    }
    assert!(archive.beginning(open_segment()).unwrap().unwrap() == log);
}

#[test]
fn a_shipped_fragment_is_durable_whatever_the_store_answered() {
    let (memory, _) = fresh();
    let log = noise(9, 5000);
    for fault in [
        Fault::Die { took_effect: false },
        Fault::Die { took_effect: true },
        Fault::LostAnswer { took_effect: true },
        Fault::LostAnswer { took_effect: false },
        Fault::Unavailable,
        Fault::Full,
        Fault::NotDurable,
    ] {
        let copy = memory.snapshot();
        let mut seen = 0;
        let failing = FailingStore::new(copy.clone(), move |attempt| {
            seen += usize::from(attempt.name.contains('@'));
            (attempt.name.contains('@') && seen == 1).then_some(fault)
        });
        let store: Arc<dyn Store> = Arc::new(failing.clone());
        let repository = open(&store);
        let fragment = Fragment { segment: open_segment(), number: 0, from: 0, after: None, bytes: &log };
        let acknowledged = Archive::of(&repository, SYSTEM).ship(&fragment).is_ok_and(|ours| ours);
        failing.cut_power();
        let store: Arc<dyn Store> = Arc::new(copy);
        let repository = open(&store);
        let found = Archive::of(&repository, SYSTEM).beginning(open_segment()).unwrap();
        match found {
            Some(found) => assert!(found == log, "{fault:?}"),
            None => assert!(!acknowledged, "{fault:?}: acknowledged, and not there"),
        }
    }
}
