//! The log over stores that lose answers, are rolled back, damaged, written to by strangers, or overwrite.

#![allow(clippy::unwrap_used)]

#[path = "log_support/mod.rs"]
mod support;

use mainstay_domain::{Kind, PackId, PointId, SessionId};
use mainstay_repository::log::{
    Doubt, Event, Hint, Protocol, Role, Rules,
    entry::{self, object_name},
    event::{Acknowledge, Begin, Checkpoint, Condemn, Fence, Incarnate},
};
use mainstay_stores::{FailingStore, Fault, MemoryStore, RecordingStore, Store, StoreError, Verb};
use std::{ops::ControlFlow, sync::Arc};
use support::{Hosts, begin, commit, condemn, drop_point, id, sweep};

fn with_log() -> (Hosts, MemoryStore) {
    let hosts = Hosts::new();
    let store = MemoryStore::new();
    hosts.create(&store);
    (hosts, store)
}

#[test]
fn what_one_host_appends_another_reads() {
    let (hosts, store) = with_log();
    let mut one = hosts.open(&store, 0);
    let mut other = hosts.open(&store, 1);
    one.append(|_| Ok(begin(1))).unwrap();
    one.append(|_| Ok(commit(1, 1))).unwrap();
    other.refresh().unwrap();
    assert_eq!(other.state(), one.state());
    assert_eq!(other.state().facts.points[&id::<PointId>(1)].summary, Some(support::summary(1)));
}

#[test]
fn whoever_is_second_decides_again_on_the_new_state() {
    let (hosts, store) = with_log();
    let mut one = hosts.open(&store, 0);
    let mut other = hosts.open(&store, 1);
    let mut asked = Vec::new();
    let n = one
        .append(|state| {
            if asked.is_empty() {
                other.append(|_| Ok(begin(1))).unwrap();
            }
            asked.push((state.head, state.facts.sessions.len()));
            Ok(Event::Condemn(Condemn { tail: state.head, packs: vec![id(7)], ..Condemn::default() }))
        })
        .unwrap();
    assert_eq!(asked, [(0, 0), (1, 1)]);
    assert_eq!(n, 2);
    assert!(one.state().facts.condemned.contains_key(&2), "it was computed on the state before it");
}

#[test]
fn an_entry_without_effect_is_an_error_for_its_writer() {
    let (hosts, store) = with_log();
    let mut log = hosts.open(&store, 0);
    log.append(|_| Ok(begin(1))).unwrap();
    log.append(|_| Ok(Event::Fence(Fence { session: id(1) }))).unwrap();
    let error = mainstay_domain::Failure::from(log.append(|_| Ok(commit(1, 1))).unwrap_err());
    assert!(error.message.contains("ended by a collector"), "{error}");
    assert!(log.state().facts.points.is_empty());
}

#[test]
fn a_lost_answer_is_settled_whether_or_not_the_create_took_effect() {
    for took_effect in [true, false] {
        let (hosts, store) = with_log();
        let mut answers = 0;
        let flaky = FailingStore::new(store.clone(), move |attempt| {
            // Two of three answers to a create are lost.
            let lost = attempt.verb == Verb::Create && {
                answers += 1;
                answers % 3 != 0
            };
            lost.then_some(Fault::LostAnswer { took_effect })
        });
        let mut log = hosts.open_over(Arc::new(flaky), 0, None).unwrap();
        for s in 1..6 {
            log.begin(Begin { session: id(s), wal_floor: None }).unwrap();
            log.append(|_| Ok(commit(s, s))).unwrap();
        }
        assert_eq!(log.state().head, 10, "each entry is there once");
        assert_eq!(hosts.open(&store, 1).state(), log.state());
    }
}

#[test]
fn a_create_that_stays_unclear_is_an_error_and_does_no_harm_when_it_arrives() {
    let (hosts, store) = with_log();
    let flaky = FailingStore::new(store.clone(), |attempt| {
        (attempt.verb == Verb::Create).then_some(Fault::LostAnswer { took_effect: false })
    });
    let recording = RecordingStore::new(flaky);
    let mut log = hosts.open_over(Arc::new(recording), 0, None).unwrap();
    assert!(log.append(|_| Ok(begin(1))).is_err());
    let mut other = hosts.open(&store, 1);
    other.append(|_| Ok(begin(2))).unwrap();
    assert!(other.state().doubts.is_empty());
}

/// A store that replaces what is there: some answer yes to a conditional create and overwrite.
struct Overwriting(MemoryStore);

impl Store for Overwriting {
    fn create(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.0.delete(name)?;
        self.0.create(name, bytes)
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
    fn list(
        &self,
        prefix: &str,
        visit: &mut dyn FnMut(mainstay_stores::Listed) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.0.list(prefix, visit)
    }
    fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.0.delete(name)
    }
    fn describe(&self) -> String {
        "an overwriting store".into()
    }
}

#[test]
fn a_store_that_overwrites_is_found_out_by_every_session() {
    let (hosts, store) = with_log();
    let mut log = hosts.open_over(Arc::new(Overwriting(store)), 0, None).unwrap();
    let error = log.begin(Begin { session: id(1), wal_floor: None }).unwrap_err();
    let failure = mainstay_domain::Failure::from(error);
    assert_eq!(failure.kind, Kind::Preflight);
    assert!(failure.hint.unwrap().contains("Only one machine may write"));
}

#[test]
fn a_store_rolled_back_is_noticed_and_not_written_to_until_that_is_accepted() {
    let (hosts, store) = with_log();
    let mut log = hosts.open(&store, 0);
    log.append(|_| Ok(begin(1))).unwrap();
    let yesterday = store.snapshot();
    log.append(|_| Ok(commit(1, 1))).unwrap();
    let hint = log.hint();

    let mut again = hosts.open_over(Arc::new(yesterday.clone()), 0, Some(hint)).unwrap();
    assert!(again.was_rolled_back());
    assert_eq!(again.hint(), hint, "the notice is not lost by being read");
    let refused = mainstay_domain::Failure::from(again.append(|_| Ok(begin(2))).unwrap_err());
    assert_eq!(refused.kind, Kind::Refused);

    again.incarnate().unwrap();
    assert!(!again.was_rolled_back());
    assert!(again.state().facts.sessions.is_empty(), "what they wrote since the snapshot is gone");
    again.append(|_| Ok(begin(2))).unwrap();
    let late = hosts.open_over(Arc::new(yesterday), 1, Some(hint)).unwrap();
    assert!(!late.was_rolled_back(), "another host has accepted it already");
}

#[test]
fn a_store_rolled_back_under_an_open_log_is_noticed_before_the_next_entry() {
    let (hosts, store) = with_log();
    let mut log = hosts.open(&store, 0);
    log.append(|_| Ok(begin(1))).unwrap();
    store.delete(&object_name(1)).unwrap();
    assert_eq!(
        mainstay_domain::Failure::from(log.append(|_| Ok(commit(1, 1))).unwrap_err()).kind,
        Kind::Refused
    );
}

/// Everything stops that could delete or rely on something, and goes on after an administrator has looked.
fn puts_in_doubt(store: &MemoryStore, hosts: &Hosts, n: u64, expected: impl Fn(&Doubt) -> bool) {
    let mut log = hosts.open(store, 0);
    let doubt = log.state().doubts.get(&n).unwrap_or_else(|| panic!("entry {n} is in doubt")).clone();
    assert!(expected(&doubt), "{doubt:?}");
    let head = log.append(|_| Ok(begin(0x50))).unwrap();
    assert!(!Protocol.may_deduplicate(log.state(), head, &id::<PackId>(1)));
    assert!(log.append(|state| Ok(condemn(state, 1))).is_err(), "nothing is condemned while in doubt");
    log.append(|_| Ok(Event::Acknowledge(Acknowledge { entries: vec![n] }))).unwrap();
    assert!(Protocol.may_deduplicate(log.state(), head, &id::<PackId>(1)));
    log.append(|state| Ok(condemn(state, 1))).unwrap();
}

#[test]
fn an_entry_by_a_stranger_changes_nothing_and_blocks_deletion() {
    let (hosts, store) = with_log();
    hosts.open(&store, 0).append(|_| Ok(begin(1))).unwrap();
    let log = hosts.open(&store, 0);
    let bytes = hosts.forge(log.hint(), Event::Fence(Fence { session: id(1) }), 9);
    store.create(&object_name(2), &bytes).unwrap();
    assert!(hosts.open(&store, 0).state().facts.sessions.contains_key(&id::<SessionId>(1)));
    puts_in_doubt(&store, &hosts, 2, |doubt| matches!(doubt, Doubt::UnknownSigner(_)));
}

#[test]
fn a_host_cannot_do_what_it_has_no_role_for() {
    let (hosts, store) = with_log();
    let mut log = hosts.open(&store, 0);
    log.append(|_| Ok(begin(1))).unwrap();
    log.append(|_| Ok(commit(1, 1))).unwrap();
    // It refuses by itself …
    let mut writer = hosts.open(&store, Hosts::BACKUP_ONLY);
    assert!(writer.append(|_| Ok(drop_point(1))).is_err());
    assert_eq!(writer.state().head, 2);
    // … and if it does not, nobody follows.
    for (n, event) in [
        drop_point(1),
        Event::Checkpoint(Box::new(Checkpoint { tail: 3, ..log.state().checkpoint() })),
        Event::Incarnate(Incarnate { incarnation: id(9) }),
    ]
    .into_iter()
    .enumerate()
    {
        let bytes = hosts.forge(hosts.open(&store, 0).hint(), event, Hosts::BACKUP_ONLY);
        store.create(&object_name(3 + n as u64), &bytes).unwrap();
    }
    let log = hosts.open(&store, 0);
    assert_eq!(log.state().doubts.len(), 3);
    assert!(log.state().facts.points.contains_key(&id::<PointId>(1)));
    // What it may do is not impeded.
    writer.append(|_| Ok(begin(2))).unwrap();
    writer.append(|_| Ok(Event::Fence(Fence { session: id(2) }))).unwrap();
}

#[test]
fn an_event_of_a_later_version_blocks_deletion_unless_it_is_a_note() {
    let (hosts, store) = with_log();
    let mut log = hosts.open(&store, 0);
    log.append(|_| Ok(Event::Unknown { tag: 200 })).unwrap_err(); // without effect, as notes are
    assert!(log.state().doubts.is_empty());
    log.append(|_| Ok(Event::Unknown { tag: 77 })).unwrap();
    log.append(|_| Ok(Event::Acknowledge(Acknowledge { entries: vec![2] }))).unwrap();
    let log = hosts.open(&store, 0);
    assert_eq!(
        log.state().doubts.get(&2),
        Some(&Doubt::UnknownEvent { tag: 77 }),
        "only a later version can tell"
    );
}

#[test]
fn a_damaged_entry_is_found_wherever_a_bit_flips_and_the_rest_still_counts() {
    let (hosts, store) = with_log();
    let mut log = hosts.open(&store, 0);
    for s in 1..4 {
        log.append(|_| Ok(begin(s))).unwrap();
        log.append(|_| Ok(commit(s, s))).unwrap();
    }
    let name = object_name(3);
    let good = store.read(&name).unwrap();
    for position in 0..good.len() {
        let mut bad = good.clone();
        bad[position] ^= 0x10;
        store.overwrite(&name, &bad);
        let log = hosts.open(&store, 0);
        assert_eq!(log.state().doubts.keys().collect::<Vec<_>>(), [&3], "byte {position}");
        assert!(log.state().facts.points.contains_key(&id::<PointId>(3)), "byte {position}");
        assert!(!log.state().facts.points.contains_key(&id::<PointId>(2)), "its Begin cannot be read");
    }
    for length in 0..good.len() {
        store.overwrite(&name, &good[..length]);
        assert_eq!(hosts.open(&store, 0).state().doubts.len(), 1, "cut to {length} bytes");
    }
    store.overwrite(&name, &good);
    assert_eq!(hosts.open(&store, 0).state(), log.state());
}

#[test]
fn a_missing_entry_is_noticed_even_where_the_search_for_the_head_stops() {
    for missing in [3, 5, 9] {
        let (hosts, store) = with_log();
        let mut log = hosts.open(&store, 0);
        for s in 1..=10 {
            log.append(|_| Ok(begin(s))).unwrap();
        }
        store.delete(&object_name(missing)).unwrap();
        let found = hosts.open(&store, 0);
        assert_eq!(found.state().head, 10);
        puts_in_doubt(&store, &hosts, missing, |doubt| *doubt == Doubt::Missing);
    }
}

/// A store with a few points and an object that is named as an entry far beyond them.
fn with_stray(n: u64) -> (Hosts, MemoryStore) {
    let (hosts, store) = with_log();
    grow(&hosts, &store, 3);
    store.create(&object_name(n), b"whoever put it there").unwrap();
    (hosts, store)
}

#[test]
fn an_entry_far_beyond_the_end_blocks_deletion_until_it_is_acknowledged_and_a_checkpoint_keeps_that() {
    for n in [5000, u64::MAX] {
        let (hosts, store) = with_stray(n);
        let mut log = hosts.open(&store, 0);
        let refused = mainstay_domain::Failure::from(log.refresh_thoroughly().unwrap_err());
        assert_eq!(refused.kind, Kind::Refused);
        assert!(refused.message.contains(&format!("log entry {n} is in doubt")), "{refused}");
        assert!(refused.hint.unwrap().contains("repair --acknowledge"));
        assert_eq!(log.survey().unwrap(), [n].into());

        log.append(|_| Ok(Event::Acknowledge(Acknowledge { entries: vec![n] }))).unwrap();
        log.refresh_thoroughly().unwrap();
        grow_from(&hosts, &store, 4, 60);
        let mut later = hosts.open(&store, 1);
        assert!(later.state().last_checkpoint.is_some_and(|checkpoint| checkpoint > log.state().head));
        later.refresh_thoroughly().unwrap();
        assert!(later.state().doubts.is_empty());
        let second = if n == 5000 { 6000 } else { 5000 };
        store.create(&object_name(second), b"another").unwrap();
        assert_eq!(later.survey().unwrap(), [second].into(), "only what was looked at is acknowledged");
    }
}

#[test]
fn whoever_opens_the_log_without_a_hint_appends_where_those_do_who_followed_it() {
    // The search for the head doubles its steps, and lands on what only bears the name of an entry.
    for (head, stray) in [(33, 63), (9_000, 16_383)] {
        let (hosts, store) = with_log();
        for n in 1..head {
            store.create(&object_name(n), b"damaged, and a part of the log").unwrap();
        }
        let mut followed = hosts.open(&store, 0);
        followed.append(|_| Ok(begin(1))).unwrap();
        store.create(&object_name(stray), b"whoever put it there").unwrap();

        let mut opened = hosts.open(&store, 1);
        assert_eq!(opened.state(), followed.state(), "head {head}");
        assert_eq!(opened.append(|_| Ok(begin(2))).unwrap(), head + 1);
        assert_eq!(followed.append(|_| Ok(begin(3))).unwrap(), head + 2);
        assert_eq!(
            opened.survey().unwrap(),
            [stray].into(),
            "and nothing is given up before somebody has looked"
        );
        assert_eq!(opened.state(), followed.state());
    }
}

#[test]
fn objects_next_to_each_other_that_only_bear_the_names_of_entries_are_no_part_of_the_log() {
    for strays in [vec![62, 63], vec![63, 64, 65], vec![60, 63, 70], (40 + 20..40 + 50).collect()] {
        let (hosts, store) = with_log();
        let mut followed = hosts.open(&store, 0);
        for s in 1..=33 {
            followed.append(|_| Ok(begin(s))).unwrap();
        }
        for n in &strays {
            store.create(&object_name(*n), b"whoever put it there").unwrap();
        }
        let mut opened = hosts.open(&store, 1);
        assert_eq!(opened.state(), followed.state(), "{strays:?}");
        assert_eq!(opened.append(|_| Ok(begin(40))).unwrap(), 34);
        assert_eq!(followed.append(|_| Ok(begin(41))).unwrap(), 35);
        assert_eq!(opened.survey().unwrap(), strays.iter().copied().collect());
        assert!(opened.refresh_thoroughly().is_err(), "nothing is given up before somebody has looked");
        assert_eq!(opened.state(), followed.state());
    }
}

#[test]
fn a_log_that_goes_on_behind_damaged_entries_is_never_read_short() {
    // Of 70 entries these are lost, and those damaged; the search for the head lands on 63.
    for (lost, damaged) in [
        (34..62, vec![62, 63]),
        (34..61, vec![61, 62, 63]),
        (34..62, (62..=69).collect()),
        (34..60, vec![60, 63, 68, 70]),
    ] {
        let (hosts, store) = with_log();
        let mut log = hosts.open(&store, 0);
        for s in 1..=70 {
            log.append(|_| Ok(begin(s))).unwrap();
        }
        for n in lost {
            store.delete(&object_name(n)).unwrap();
        }
        for n in damaged {
            store.overwrite(&object_name(n), b"damage");
        }
        let opened = hosts.open(&store, 1);
        assert_eq!(opened.state().head, 70);
        assert!(opened.state().doubts.keys().any(|n| *n == 63));
    }

    // Behind a second gap that no probe crosses.
    let (hosts, store) = with_log();
    let mut log = hosts.open(&store, 0);
    for s in 1..=100 {
        log.append(|_| Ok(begin(s))).unwrap();
    }
    for n in (34..100).filter(|n| ![62, 63].contains(n)) {
        store.delete(&object_name(n)).unwrap();
    }
    for n in [62, 63] {
        store.overwrite(&object_name(n), b"damage");
    }
    let opened = hosts.open(&store, 1);
    assert_eq!(opened.state().head, 100);
    assert!(opened.state().doubts.keys().copied().eq(34..100));

    // More of them than anybody looks at, and nothing behind.
    let (hosts, store) = with_log();
    for n in 40..240 {
        store.create(&object_name(n), b"damage").unwrap();
    }
    let mut opened = hosts.open(&store, 1);
    opened.refresh_thoroughly().unwrap();
    assert!(opened.state().doubts.keys().copied().eq(1..240), "nothing is given up");
}

#[test]
fn an_entry_behind_lost_ones_is_the_head_if_it_was_written_for_its_place() {
    let (hosts, store) = with_log();
    let mut log = hosts.open(&store, 0);
    for s in 1..=33 {
        log.append(|_| Ok(begin(s))).unwrap();
    }
    let before = Hint { n: 62, hash: [7; 32], incarnation: log.hint().incarnation };
    store.create(&object_name(63), &hosts.forge(before, begin(63), 0)).unwrap();
    let opened = hosts.open(&store, 1);
    assert_eq!(opened.state().head, 63);
    assert!(opened.state().doubts.keys().copied().eq(34..63), "{:?}", opened.state().doubts);
}

#[test]
fn the_log_goes_on_over_an_acknowledged_entry_that_it_comes_to() {
    // The search for the head, which doubles its steps, would run into 7 and 15, and looks 16 entries ahead.
    for is_there in [true, false] {
        let (hosts, store) = with_log();
        let mut log = hosts.open(&store, 0);
        log.append(|_| Ok(begin(1))).unwrap();
        let strays = [7, 8, 15];
        log.append(|_| Ok(Event::Acknowledge(Acknowledge { entries: strays.to_vec() }))).unwrap();
        for n in strays.into_iter().filter(|_| is_there) {
            store.create(&object_name(n), b"whoever put it there").unwrap();
        }
        for s in 2..20 {
            let other = hosts.open(&store, 1);
            assert_eq!(other.state(), log.state(), "nothing beyond the end is taken for a part of it");
            let n = log.append(|_| Ok(begin(s))).unwrap();
            assert!(!strays.contains(&n), "what stands there has no effect");
            assert!(log.state().facts.sessions.contains_key(&id::<SessionId>(s)));
            log.refresh_thoroughly().unwrap();
        }
        assert!(log.state().doubts.is_empty());
        assert_eq!(log.state().head, 2 + 18 + 3);
        assert_eq!(hosts.open(&store, 1).state(), log.state());
        // Nothing that is put into its place later takes effect.
        let fence = Event::Fence(Fence { session: id(19) });
        let bytes = hosts.forge(support::hint_before(&store, 15), fence, 0);
        store.overwrite(&object_name(15), &bytes);
        assert_eq!(hosts.open(&store, 1).state(), log.state());
    }
}

#[test]
fn an_entry_moved_copied_or_of_another_repository_does_not_count() {
    let (hosts, store) = with_log();
    let mut log = hosts.open(&store, 0);
    log.append(|_| Ok(begin(1))).unwrap();
    let copy = store.read(&object_name(1)).unwrap();
    store.create(&object_name(2), &copy).unwrap();
    puts_in_doubt(&store, &hosts, 2, |doubt| *doubt == Doubt::Foreign("place"));

    let (hosts, store) = with_log();
    let hint = hosts.open(&store, 0).hint();
    let mut stale = hint;
    stale.hash = [9; 32];
    store.create(&object_name(1), &hosts.forge(stale, begin(1), 0)).unwrap();
    puts_in_doubt(&store, &hosts, 1, |doubt| *doubt == Doubt::BrokenChain);

    let (hosts, store) = with_log();
    let mut other = hosts.open(&store, 0).hint();
    other.incarnation = id(0x77);
    store.create(&object_name(1), &hosts.forge(other, begin(1), 0)).unwrap();
    puts_in_doubt(&store, &hosts, 1, |doubt| *doubt == Doubt::Foreign("incarnation"));
}

#[test]
fn an_entry_in_the_place_of_another_takes_no_effect_from_the_one_behind_it() {
    let (hosts, store) = with_log();
    let mut log = hosts.open(&store, 0);
    for s in 1..4 {
        log.append(|_| Ok(begin(s))).unwrap();
        log.append(|_| Ok(commit(s, s))).unwrap();
    }
    // The Begin of the second session, by that of the first; the Begin of the third follows a Commit that was put there.
    for (n, by, lost) in [(3, 1, vec![2]), (4, 2, vec![2]), (2, 4, vec![1])] {
        let copy = store.snapshot();
        copy.overwrite(&object_name(n), &store.read(&object_name(by)).unwrap());
        let opened = hosts.open(&copy, 0);
        assert_eq!(opened.state().doubts.keys().collect::<Vec<_>>(), [&n]);
        let live = &opened.state().facts.points;
        for point in 1..4 {
            assert_eq!(live.contains_key(&id::<PointId>(point)), !lost.contains(&point), "{n}: {point}");
        }
    }
}

#[test]
fn another_repositorys_log_is_refused() {
    let (_, store) = with_log();
    let mut stranger = Hosts::new();
    stranger.repository = id(0x99);
    let error = stranger.open_over(Arc::new(store), 0, None).err().unwrap();
    assert!(error.to_string().contains("not the beginning of this repository's log"), "{error}");
}

/// Ends when `n` points are live, with whatever checkpoints came due.
fn grow(hosts: &Hosts, store: &MemoryStore, n: u16) {
    grow_from(hosts, store, 1, n);
}

fn grow_from(hosts: &Hosts, store: &MemoryStore, first: u16, n: u16) {
    let mut log = hosts.open(store, 0);
    for s in first..=n {
        log.append(|_| Ok(begin(s))).unwrap();
        log.append(|_| Ok(commit(s, s))).unwrap();
        log.checkpoint_if_due().unwrap();
    }
}

#[test]
fn a_log_of_a_thousand_points_is_opened_by_a_handful_of_calls_and_no_listing() {
    let (hosts, store) = with_log();
    grow(&hosts, &store, 1000);
    let recording = Arc::new(RecordingStore::new(store));
    let log = hosts.open_over(recording.clone(), 0, None).unwrap();
    assert_eq!(log.state().facts.points.len(), 1000);
    let calls = recording.take();
    let count = |verb| calls.iter().filter(|call| call.verb == verb).count();
    assert!(count(Verb::Stat) <= 40, "{} probes for the head", count(Verb::Stat));
    assert!(count(Verb::Read) <= 2 + 64, "{} entries read", count(Verb::Read));
    assert_eq!(count(Verb::List), 0);

    let hint = log.hint();
    hosts.open_over(recording.clone(), 0, Some(hint)).unwrap();
    let probes = recording.take().iter().filter(|call| call.verb == Verb::Stat).count();
    assert_eq!(
        probes, 16,
        "the hint tells where the head is, and only what might lie behind a gap is looked for"
    );
}

#[test]
fn a_checkpoint_is_as_good_as_the_log_before_it() {
    let (hosts, store) = with_log();
    grow(&hosts, &store, 60);
    let log = hosts.open(&store, 0);
    let checkpoint = log.state().last_checkpoint.expect("one came due");
    assert!(store.stat(&object_name(checkpoint)).unwrap().is_some());

    // Without any readable checkpoint the fold begins at entry 0.
    let damaged = store.snapshot();
    for (name, bytes) in store.objects() {
        let body = entry::parse(&bytes).ok().unwrap().body;
        if matches!(body.event, Event::Checkpoint(_)) {
            damaged.overwrite(&name, b"nothing");
        }
    }
    let from_the_beginning = hosts.open(&damaged, 0);
    assert_eq!(from_the_beginning.state().facts, log.state().facts);
    assert!(!from_the_beginning.state().doubts.is_empty());
}

#[test]
fn an_unreadable_head_does_not_hide_the_checkpoint() {
    let (hosts, store) = with_log();
    grow(&hosts, &store, 60);
    let head = hosts.open(&store, 0).state().head;
    for n in head + 1..head + 4 {
        store.create(&object_name(n), b"garbage").unwrap();
    }
    let recording = Arc::new(RecordingStore::new(store));
    let log = hosts.open_over(recording.clone(), 0, None).unwrap();
    assert_eq!(log.state().facts.points.len(), 60);
    assert_eq!(log.state().doubts.len(), 3);
    let reads = recording.take().iter().filter(|call| call.verb == Verb::Read).count();
    assert!(reads < 70, "{reads} entries read");
}

#[test]
fn a_host_without_keys_follows_the_protocol_and_reads_nothing_of_users() {
    let (hosts, store) = with_log();
    grow(&hosts, &store, 60);
    let keyed = hosts.open(&store, 0);
    let keyless = hosts.open(&store, Hosts::KEYLESS);
    let bytes = |log: &mainstay_repository::log::Log| minicbor::to_vec(&log.state().facts).unwrap();
    assert_eq!(bytes(&keyless), bytes(&keyed));
    assert_eq!(keyless.state().last_checkpoint, keyed.state().last_checkpoint);
    assert!(keyless.state().facts.points.values().all(|point| point.summary.is_none()));
    assert!(keyed.state().facts.points.values().all(|point| point.summary.is_some()));
    for (name, bytes) in store.objects() {
        let found = bytes.windows(support::APP.len()).any(|window| window == support::APP.as_bytes());
        assert!(!found, "{name} shows the application's name");
    }
}

#[test]
fn no_checkpoint_is_written_by_a_host_that_may_not_or_cannot_read_everything() {
    let (hosts, store) = with_log();
    let mut log = hosts.open(&store, 0);
    for s in 1..40 {
        log.append(|_| Ok(begin(s))).unwrap();
        log.append(|_| Ok(commit(s, s))).unwrap();
    }
    for host in [Hosts::BACKUP_ONLY, Hosts::KEYLESS] {
        let mut other = hosts.open(&store, host);
        other.checkpoint_if_due().unwrap();
        assert_eq!(other.state().last_checkpoint, None);
    }
    log.checkpoint_if_due().unwrap();
    assert!(log.state().last_checkpoint.is_some());
    assert!(log.state().doubts.is_empty());
}

#[test]
fn many_hosts_at_once_make_one_history() {
    let (hosts, store) = with_log();
    std::thread::scope(|scope| {
        for thread in 0..4u16 {
            let (hosts, store) = (&hosts, &store);
            scope.spawn(move || {
                let mut log = hosts.open(store, usize::from(thread % 2));
                for i in 0..10 {
                    let s = 100 * (thread + 1) + i;
                    log.begin(Begin { session: id(s), wal_floor: None }).unwrap();
                    log.append(|_| Ok(commit(s, s))).unwrap();
                }
            });
        }
    });
    let log = hosts.open(&store, 0);
    assert_eq!(log.state().head, 80);
    assert_eq!(log.state().facts.points.len(), 40);
    assert!(log.state().doubts.is_empty());
}

#[test]
fn a_sweep_waits_for_sessions_begun_before_its_condemn() {
    let (hosts, store) = with_log();
    let mut log = hosts.open(&store, 0);
    log.append(|_| Ok(begin(1))).unwrap();
    let c = log.append(|state| Ok(condemn(state, 7))).unwrap();
    let later = log.append(|_| Ok(begin(2))).unwrap();
    assert!(Protocol.may_deduplicate(log.state(), 1, &id::<PackId>(7)));
    assert!(!Protocol.may_deduplicate(log.state(), later, &id::<PackId>(7)));
    assert!(log.append(|state| Ok(sweep(state, c, 7))).is_err());
    log.append(|_| Ok(commit(1, 1))).unwrap();
    log.append(|state| Ok(sweep(state, c, 7))).unwrap();
    assert!(!Protocol.may_upload(log.state(), &id::<PackId>(7)));
}

#[test]
fn a_held_point_is_not_dropped() {
    let (hosts, store) = with_log();
    let mut log = hosts.open(&store, 0);
    log.append(|_| Ok(begin(1))).unwrap();
    log.append(|_| Ok(commit(1, 1))).unwrap();
    log.append(|_| Ok(support::hold(5, 1))).unwrap();
    let refused = mainstay_domain::Failure::from(log.append(|_| Ok(drop_point(1))).unwrap_err());
    assert_eq!(refused.kind, Kind::Refused);
    log.append(|_| Ok(support::release(5))).unwrap();
    log.append(|_| Ok(drop_point(1))).unwrap();
    assert!(log.append(|_| Ok(drop_point(1))).is_err(), "it is gone");
}

#[test]
fn roles_say_what_each_host_may_write() {
    let (hosts, store) = with_log();
    assert!(hosts.may(0, Role::Admin));
    let mut verifier = hosts.open(&store, Hosts::VERIFY_ONLY);
    assert!(verifier.append(|_| Ok(begin(1))).is_err());
    let mut log = hosts.open(&store, 0);
    log.append(|_| Ok(begin(1))).unwrap();
    log.append(|_| Ok(commit(1, 1))).unwrap();
    verifier.append(|_| Ok(support::proved(1))).unwrap();
    log.refresh().unwrap();
    assert_eq!(log.state().facts.points[&id::<PointId>(1)].proofs.len(), 1);
}
