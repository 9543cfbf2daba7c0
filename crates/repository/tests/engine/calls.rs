//! The exact calls that operations make: their order is the safety argument, their number is the bill.

use crate::support::*;
use mainstay_domain::point::Hold;
use mainstay_repository::check::{Depth, check};
use mainstay_stores::{Call, MemoryStore, RecordingStore, Store, Verb};
use std::{collections::BTreeSet, sync::Arc};

/// A call as `verb kind`: the first component of the object's name.
fn kinds(calls: &[Call]) -> Vec<String> {
    calls
        .iter()
        .map(|call| format!("{:?} {}", call.verb, call.name.split('/').next().unwrap_or_default()))
        .collect()
}

fn recorded() -> (Arc<RecordingStore<MemoryStore>>, Arc<dyn Store>) {
    let recording = Arc::new(RecordingStore::new(MemoryStore::new()));
    let store: Arc<dyn Store> = recording.clone();
    create(&store);
    (recording, store)
}

#[test]
fn a_backup_writes_packs_then_index_then_manifest_then_commit() {
    let (recording, store) = recorded();
    let repository = open(&store);
    recording.take();
    back_up(&repository, &[("a", noise(1, 200_000))]);
    let calls = recording.take();
    let creates: Vec<_> = kinds(&calls).into_iter().filter(|call| call.starts_with("Create")).collect();
    let first = |kind: &str| creates.iter().position(|call| call == &format!("Create {kind}")).unwrap();
    let last = |kind: &str| creates.iter().rposition(|call| call == &format!("Create {kind}")).unwrap();
    assert_eq!(
        &creates[..2],
        ["Create log", "Create log"],
        "Begin, and the probe that a second Begin is refused"
    );
    assert!(last("packs") < first("index") && last("index") < first("manifests"));
    assert_eq!(last("log"), creates.len() - 1, "Commit is the last thing");
    assert_eq!(last("manifests") + 1, last("log"));
    assert!(
        calls.iter().all(|call| call.verb != Verb::Delete && call.verb != Verb::List),
        "nothing is listed or deleted"
    );
}

#[test]
fn a_backup_without_changes_writes_a_manifest_and_three_log_entries() {
    let (recording, store) = recorded();
    back_up(&open(&store), &[("a", noise(1, 200_000))]);
    let repository = open(&store);
    recording.take();
    back_up(&repository, &[("a", noise(1, 200_000))]);
    let creates: Vec<_> =
        kinds(&recording.take()).into_iter().filter(|call| call.starts_with("Create")).collect();
    assert_eq!(creates, ["Create log", "Create log", "Create manifests", "Create log"]);
}

#[test]
fn opening_a_repository_with_many_points_takes_a_handful_of_calls() {
    let (recording, store) = recorded();
    let repository = open(&store);
    for n in 0..150 {
        back_up(&repository, &[("a", noise(n % 3, 2_000))]);
    }
    recording.take();
    let repository = open(&store);
    assert_eq!(repository.state().unwrap().facts.points.len(), 150);
    let calls = recording.take();
    let reads = calls.iter().filter(|call| call.verb == Verb::Read).count();
    assert!(reads <= 4 + 64, "{reads} objects were read");
    let listed: Vec<_> =
        calls.iter().filter(|call| call.verb == Verb::List).map(|call| call.name.clone()).collect();
    assert_eq!(listed, ["keys/"], "only recipients are found by listing");
}

/// Neighbours that are equal as one, with their number.
fn counted(calls: Vec<String>) -> Vec<String> {
    let mut runs: Vec<(String, usize)> = Vec::new();
    for call in calls {
        match runs.last_mut() {
            Some((last, count)) if *last == call => *count += 1,
            _ => runs.push((call, 1)),
        }
    }
    runs.into_iter().map(|(call, count)| format!("{count} {call}")).collect()
}

#[test]
fn a_prune_deletes_only_between_its_sweep_and_the_word_that_it_is_done() {
    let (recording, store) = recorded();
    let repository = open(&store);
    let first = back_up(&repository, &[("a", noise(1, 100_000))]);
    back_up(&repository, &[("a", noise(2, 100_000))]);
    repository.drop_point(first.point, "test", "to be collected").unwrap();
    recording.take();
    mainstay_repository::collect::collect(&repository, 0, &mainstay_domain::Silent).unwrap();
    let writes: Vec<_> = recording.take().into_iter().filter(|call| call.verb.writes()).collect();
    let garbage = first.written.packs.len();
    assert_eq!(
        counted(kinds(&writes)),
        [
            "2 Create log".to_owned(), // Condemn, Sweep
            format!("{garbage} Delete packs"),
            "1 Delete index".to_owned(),
            "1 Delete manifests".to_owned(),
            "1 Create log".to_owned(), // Swept
        ]
    );
    assert!(writes.iter().all(|call| call.ok));

    recording.take();
    mainstay_repository::collect::collect(&repository, 0, &mainstay_domain::Silent).unwrap();
    let calls = recording.take();
    assert!(calls.iter().all(|call| !call.verb.writes()), "with nothing to do, nothing is written");
    let listed: Vec<_> = calls.iter().filter(|c| c.verb == Verb::List).map(|c| c.name.as_str()).collect();
    assert_eq!(listed, ["log/", "packs/", "index/", "manifests/", "packs/", "index/", "manifests/"]);
}

#[test]
fn looking_at_what_a_prune_would_do_writes_nothing() {
    let (recording, store) = recorded();
    let repository = open(&store);
    let first = back_up(&repository, &[("a", noise(1, 100_000))]);
    repository.drop_point(first.point, "test", "to be collected").unwrap();
    recording.take();
    let seen = mainstay_repository::collect::preview(&repository, 0).unwrap();
    assert!(seen.condemned_objects > 0);
    assert!(recording.take().iter().all(|call| !call.verb.writes()));
}

/// All calls since the last time, neighbours of the same kind as one.
fn exactly(recording: &RecordingStore<MemoryStore>) -> Vec<String> {
    let calls = recording.take();
    assert!(calls.iter().all(|call| call.ok || call.verb == Verb::Read || call.verb == Verb::Create));
    counted(kinds(&calls))
}

#[test]
fn a_repository_is_made_by_four_objects_of_which_the_last_says_that_it_is_one() {
    let recording = RecordingStore::new(MemoryStore::new());
    let store: Arc<dyn Store> = Arc::new(recording.clone());
    mainstay_repository::Repository::init(&access(store), "test", CHUNKING).unwrap();
    assert_eq!(
        exactly(&recording),
        ["1 Stat format", "1 List ", "1 Create trust", "1 Create keys", "1 Create log", "1 Create format"]
    );
}

/// A repository with two points that share something.
fn with_points() -> (Arc<RecordingStore<MemoryStore>>, Arc<dyn Store>, [mainstay_repository::Committed; 2]) {
    let (recording, store) = recorded();
    let points =
        [3, 4].map(|seed| back_up(&open(&store), &[("a", noise(1, 120_000)), ("b", noise(seed, 20_000))]));
    recording.take();
    (recording, store, points)
}

#[test]
fn listing_the_points_of_a_small_repository_reads_what_opens_it_and_its_log() {
    let (recording, store, _) = with_points();
    assert_eq!(open(&store).state().unwrap().facts.points.len(), 2);
    assert_eq!(
        exactly(&recording),
        ["1 Read format", "1 List keys", "1 Read keys", "2 Read trust", "20 Stat log", "7 Read log"]
    );
}

#[test]
fn a_restore_reads_the_manifest_the_index_and_the_parts_of_packs_that_it_needs() {
    let (recording, store, points) = with_points();
    let repository = open(&store);
    recording.take();
    let content = repository.manifest(&points[1].point).unwrap().point.sources[0].streams[1].content.clone();
    assert_eq!((content.level, points[1].written.packs.len()), (0, 1), "all of it lies in one pack");
    // The header of the pack and each chunk.
    let ranges = format!("{} ReadRange packs", 1 + content.pieces.len());
    recording.take();
    assert!(read(&repository, &points[1].point, 1).unwrap() == noise(4, 20_000));
    assert_eq!(exactly(&recording), ["1 Read manifests", "2 Read index", &ranges]);
}

#[test]
fn a_check_looks_for_every_object_once_and_reads_each_pack_once_at_most() {
    let (recording, store, points) = with_points();
    let ids = [0, 1].map(|n: usize| points[n].point);
    let packs: BTreeSet<_> = points.iter().flat_map(|made| &made.reach.packs).collect();
    // Header, length and bytes of the table of contents.
    let looked_at = ["1 Stat packs", "3 ReadRange packs"].repeat(packs.len());
    let read = ["1 Stat packs", "1 Read packs"].repeat(packs.len());
    let before = ["2 Read manifests", "2 Read index"];
    let after = ["1 Read log", "2 Stat log"];
    for (depth, of_packs, then) in [
        (Depth::Objects, &looked_at, &[][..]),
        (Depth::Packs, &read, &[]),
        (Depth::Data, &read, &["2 Read index", "2 Read manifests"]),
    ] {
        let repository = open(&store);
        recording.take();
        let report = check(&repository, &ids, depth, 1, &mainstay_domain::Silent).unwrap();
        assert!(report.is_clean());
        assert_eq!(exactly(&recording), [&before[..], of_packs, then, &after].concat(), "{depth:?}");
    }
}

#[test]
fn dropping_holding_and_releasing_write_one_entry_each() {
    let (recording, store, points) = with_points();
    let repository = open(&store);
    recording.take();
    let hold = Hold {
        kind: "legal".into(),
        reason: "case 17".into(),
        by: "ann".into(),
        since: repository.clock().now(),
        until: None,
    };
    let hold = repository.hold(points[0].point, hold).unwrap();
    assert_eq!(exactly(&recording), ["1 Read log", "2 Stat log", "1 Create log"]);
    repository.release_hold(hold, "ann", "closed").unwrap();
    assert_eq!(exactly(&recording), ["1 Read log", "2 Stat log", "1 Create log"]);
    repository.drop_point(points[0].point, "ann", "expired").unwrap();
    assert_eq!(exactly(&recording), ["1 Read log", "2 Stat log", "1 Create log", "1 Read log", "2 Stat log"]);
}
