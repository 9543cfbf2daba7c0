//! The fold is pure, checkpoints lose nothing, and entries that were written once are read for ever.

#![allow(clippy::unwrap_used)]

#[path = "log_support/mod.rs"]
mod support;

use mainstay_domain::{EpochId, HostId, PackId, PointId, Time, point::ProofLevel};
use mainstay_keys::hpke;
use mainstay_repository::log::{
    Event, Protocol, Rules, State,
    entry::{self, Body, Seal},
    event::{
        Abandon, Acknowledge, Begin, Condemn, DropPoint, Fence, Incarnate, Lost, Proved, ReleaseHold, Sweep,
        Swept,
    },
    state::Stamp,
};
use proptest::prelude::*;
use std::collections::BTreeSet;
use support::{begin, commit, drop_point, hold, id, proved, release, signer, tested};

/// What may be written next, sensible or not; numbers are taken modulo what there is.
#[derive(Debug, Clone)]
enum Move {
    Begin(u16),
    Commit(u16, u16),
    Fence(u16),
    Condemn { packs: Vec<u16>, index: Vec<u16>, manifests: Vec<u16>, merge: bool, observed: u64, stale: bool },
    Sweep { which: usize, but: u16, stale: bool },
    Abandon(usize),
    Swept(usize),
    Drop(u16),
    Hold(u16, u16),
    Release(u16),
    Proved(u16, bool),
    Checkpoint,
    Incarnate(u16),
    Acknowledge(u64),
    Lost { packs: Vec<u16>, found: Vec<u16> },
    Unknown(u32),
}

fn moves() -> impl Strategy<Value = Move> {
    let small = 0u16..6;
    let some = || prop::collection::vec(0u16..6, 0..4);
    prop_oneof![
        6 => small.clone().prop_map(Move::Begin),
        6 => (small.clone(), small.clone()).prop_map(|(s, p)| Move::Commit(s, p)),
        2 => small.clone().prop_map(Move::Fence),
        5 => (some(), some(), some(), any::<bool>(), 0u64..3, prop::bool::weighted(0.1)).prop_map(
            |(packs, index, manifests, merge, observed, stale)| Move::Condemn {
                packs, index, manifests, merge, observed, stale
            }
        ),
        5 => (0usize..4, 0u16..6, prop::bool::weighted(0.1))
            .prop_map(|(which, but, stale)| Move::Sweep { which, but, stale }),
        1 => (0usize..4).prop_map(Move::Abandon),
        3 => (0usize..4).prop_map(Move::Swept),
        2 => small.clone().prop_map(Move::Drop),
        2 => (small.clone(), small.clone()).prop_map(|(h, p)| Move::Hold(h, p)),
        1 => small.clone().prop_map(Move::Release),
        2 => (small.clone(), any::<bool>()).prop_map(|(p, passed)| Move::Proved(p, passed)),
        2 => Just(Move::Checkpoint),
        1 => small.prop_map(Move::Incarnate),
        1 => (0u64..40).prop_map(Move::Acknowledge),
        2 => (some(), some()).prop_map(|(packs, found)| Move::Lost { packs, found }),
        1 => prop_oneof![Just(100u32), Just(300)].prop_map(Move::Unknown),
    ]
}

fn nth(keys: impl Iterator<Item = u64>, n: usize) -> u64 {
    let keys: Vec<u64> = keys.collect();
    keys.get(n % keys.len().max(1)).copied().unwrap_or(99)
}

fn ids<T: support::Id>(numbers: &[u16]) -> Vec<T> {
    numbers.iter().map(|n| id(*n)).collect()
}

fn event(state: &State, step: &Move) -> Event {
    let facts = &state.facts;
    match step {
        Move::Begin(s) => {
            Event::Begin(Begin { session: id(*s), wal_floor: (s % 2 == 0).then(|| vec![1, 2]) })
        }
        Move::Commit(s, p) => commit(*s, *p),
        Move::Fence(s) => Event::Fence(Fence { session: id(*s) }),
        Move::Condemn { packs, index, manifests, merge, observed, stale } => Event::Condemn(Condemn {
            tail: state.head.saturating_sub(u64::from(*stale)),
            packs: ids(packs),
            index: ids(index),
            manifests: ids(manifests),
            added_index: if *merge { vec![id(100 + state.head as u16)] } else { Vec::new() },
            observed: facts.sessions.keys().map(|session| (*session, *observed)).collect(),
            merged_on: state.head,
        }),
        Move::Sweep { which, but, stale } => {
            let condemn = nth(facts.condemned.keys().copied(), *which);
            let kept: PackId = id(*but);
            let names = |_: &_| vec![kept];
            let sweep = Protocol.to_sweep(state, condemn, &|pack| *pack == kept, &names);
            let mut sweep = sweep.unwrap_or_else(|| Sweep { condemn, ..Sweep::default() });
            sweep.tail = state.head.saturating_sub(u64::from(*stale));
            Event::Sweep(sweep)
        }
        Move::Abandon(which) => {
            Event::Abandon(Abandon { condemn: nth(facts.condemned.keys().copied(), *which) })
        }
        Move::Swept(which) => Event::Swept(Swept { sweep: nth(facts.sweeps.keys().copied(), *which) }),
        Move::Drop(p) => drop_point(*p),
        Move::Hold(h, p) => hold(*h, *p),
        Move::Release(h) => release(*h),
        Move::Proved(p, passed) => tested(*p, *passed),
        Move::Checkpoint => Event::Checkpoint(Box::new(state.checkpoint())),
        Move::Incarnate(i) => Event::Incarnate(Incarnate { incarnation: id(*i) }),
        Move::Acknowledge(n) => Event::Acknowledge(Acknowledge { entries: vec![*n] }),
        Move::Lost { packs, found } => Event::Lost(Lost { packs: ids(packs), found: ids(found) }),
        Move::Unknown(tag) => Event::Unknown { tag: *tag },
    }
}

fn fold(state: &mut State, event: &Event) -> bool {
    let n = state.head + 1;
    let signer = HostId([7; 16]);
    state.apply(&Stamp { n, time: Time(n as i64), signer }, event).is_ok()
}

/// The same event after it was written and read back, with its sealed part.
fn stored(event: &Event) -> Event {
    let mut read: Event = minicbor::decode(&minicbor::to_vec(event).unwrap()).unwrap();
    if let Some(sealed) = event.sealed_part() {
        read.set_sealed_part(&sealed).unwrap();
    }
    read
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn folding_from_a_checkpoint_is_folding_from_the_beginning(
        steps in prop::collection::vec(moves(), 1..60),
        at in any::<prop::sample::Index>(),
    ) {
        let at = at.index(steps.len());
        let mut state = State::open(id(1));
        let mut from_checkpoint: Option<State> = None;
        for (i, step) in steps.iter().enumerate() {
            let counts_here = !state.facts.is_stray(state.head + 1);
            if i >= at && from_checkpoint.is_none() && counts_here && Protocol.may_checkpoint(&state) {
                let event = stored(&Event::Checkpoint(Box::new(state.checkpoint())));
                prop_assert!(fold(&mut state, &event));
                prop_assert!(state.doubts.is_empty(), "a true checkpoint is no cause for doubt");
                let Event::Checkpoint(checkpoint) = event else { unreachable!() };
                from_checkpoint = Some(State::from_checkpoint(state.head, state.incarnation, *checkpoint));
            }
            let event = event(&state, step);
            prop_assert_eq!(&stored(&event), &event);
            if let Some(other) = &mut from_checkpoint {
                prop_assert_eq!(&*other, &state);
                fold(other, &event);
            }
            fold(&mut state, &event);
        }
        if let Some(other) = from_checkpoint {
            prop_assert_eq!(other, state);
        }
    }

    #[test]
    fn the_fold_gives_up_points_and_packs_only_as_the_rules_say(
        steps in prop::collection::vec(moves(), 1..80),
    ) {
        let mut state = State::open(id(1));
        for step in &steps {
            let before = state.clone();
            let event = event(&state, step);
            let counted = fold(&mut state, &event);
            let (was, is) = (&before.facts, &state.facts);
            prop_assert_eq!(state.head, before.head + 1);
            if !counted {
                prop_assert_eq!(was, is, "an entry that does not count changes nothing");
            }
            let gone: Vec<&PointId> = was.points.keys().filter(|p| !is.points.contains_key(p)).collect();
            match &event {
                Event::Drop(drop) => prop_assert!(gone.iter().all(|point| **point == drop.point)),
                _ => prop_assert!(gone.is_empty()),
            }
            prop_assert!(gone.iter().all(|point| was.points[*point].holds.is_empty()));
            if is.sweeps.len() > was.sweeps.len() {
                prop_assert!(before.doubts.is_empty(), "nothing is deleted while in doubt");
                let (n, objects) = is.sweeps.last_key_value().unwrap();
                prop_assert_eq!(*n, state.head);
                let Event::Sweep(sweep) = &event else { panic!("only a Sweep sweeps") };
                let condemned = &was.condemned[&sweep.condemn];
                prop_assert!(objects.packs.is_subset(&condemned.packs));
                prop_assert!(was.sessions.values().all(|session| session.begin > sweep.condemn));
            }
            for objects in is.condemned.values() {
                prop_assert!(objects.manifests.iter().all(|point| !is.points.contains_key(point)));
            }
            // Whoever begins now relies on nothing that is condemned or may be named though it is gone.
            let begin = state.head + 1;
            let given_up = is.condemned.values().chain(is.sweeps.values()).flat_map(|o| &o.packs);
            let gone = is.dead.values().chain(&is.lost).flatten();
            let doomed: BTreeSet<PackId> = given_up.chain(gone).copied().collect();
            prop_assert!(doomed.iter().all(|pack| !Protocol.may_deduplicate(&state, begin, pack)));
            prop_assert_eq!(doomed, state.absent_for(begin), "one rule, asked in two ways");
        }
    }

    #[test]
    fn any_bytes_are_an_entry_or_a_doubt(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = entry::parse(&bytes);
        let _ = entry::parse(&[b"MSTYLOG1", &bytes[..]].concat());
    }
}

#[test]
fn a_failed_test_stands_beside_the_proof_before_it() {
    let mut state = State::open(id(1));
    for event in [begin(1), commit(1, 1), proved(1), tested(1, false)] {
        assert!(fold(&mut state, &event));
    }
    let written = stored(&Event::Checkpoint(Box::new(state.checkpoint())));
    let Event::Checkpoint(checkpoint) = written else { unreachable!() };
    let again = State::from_checkpoint(state.head, state.incarnation, *checkpoint);
    for state in [state, again] {
        let point = &state.facts.points[&id::<PointId>(1)];
        let passed = [&point.proofs, &point.passed].map(|proofs| proofs[&ProofLevel::Restore].passed);
        assert_eq!(passed, [false, true]);
    }
}

const GOLDEN: &str = include_str!("log_support/entries-v1.txt");

/// One event of each kind.
fn samples() -> Vec<Event> {
    let mut state = State::open(id(1));
    let condemn = Condemn {
        tail: 2,
        packs: vec![id(7)],
        index: vec![id(8)],
        manifests: vec![id(9)],
        added_index: vec![id(10)],
        observed: vec![(id(3), 12)],
        merged_on: 2,
    };
    let sweep = Sweep { tail: 5, condemn: 3, packs: vec![id(7)], index: vec![id(8)], manifests: vec![id(9)] };
    let history = [
        begin(1),
        commit(1, 1),
        Event::Condemn(condemn.clone()),
        begin(3),
        hold(5, 1),
        Event::Sweep(sweep.clone()),
        proved(1),
    ];
    for event in &history {
        fold(&mut state, event);
    }
    vec![
        Event::Open,
        Event::Incarnate(Incarnate { incarnation: id(2) }),
        Event::Begin(Begin { session: id(1), wal_floor: Some(b"floor".to_vec()) }),
        commit(1, 1),
        Event::Fence(Fence { session: id(1) }),
        Event::Condemn(condemn),
        Event::Sweep(sweep),
        Event::Abandon(Abandon { condemn: 3 }),
        Event::Swept(Swept { sweep: 6 }),
        drop_point(1),
        hold(5, 1),
        release(5),
        proved(1),
        Event::Checkpoint(Box::new(state.checkpoint())),
        Event::Acknowledge(Acknowledge { entries: vec![4, 7] }),
        Event::Lost(Lost { packs: vec![id(7)], found: vec![id(9)] }),
        Event::Unknown { tag: 99 },
    ]
}

fn body(event: Event) -> Body {
    Body {
        repository: id(1),
        incarnation: id(2),
        n: 42,
        previous: [3; 32],
        time: Time(1_700_000_000_000_000_000),
        event,
        last_checkpoint: Some(12),
    }
}

/// Entries of format version 1, each with the name of its event, in hexadecimal. Where this fails, old logs are not read any more.
#[test]
fn entries_of_version_1_are_read_and_their_clear_part_is_written_the_same() {
    let signer = signer(0);
    let private = [42; 32];
    let samples = samples();
    let lines: Vec<(&str, &str)> = GOLDEN.lines().filter_map(|line| line.split_once(": ")).collect();
    assert_eq!(
        lines.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
        samples.iter().map(Event::name).collect::<Vec<_>>(),
        "one of each kind"
    );
    for ((name, text), event) in lines.into_iter().zip(samples) {
        let bytes = hex::decode(text).unwrap();
        let mut parsed = entry::parse(&bytes).unwrap();
        parsed.verify(&signer.verify_key()).unwrap();
        let sealed = parsed.unseal(|epoch| (epoch == EpochId(1)).then_some(private));
        assert_eq!(sealed, if event.sealed_part().is_some() { Seal::Opened } else { Seal::Absent }, "{name}");
        assert_eq!(parsed.body, body(event.clone()), "{name}");

        let written = entry::encode(&body(event), EpochId(1), &hpke::public_of(&private), &signer);
        let clear = 12 + u32::from_be_bytes(bytes[8..12].try_into().unwrap()) as usize;
        assert_eq!(written[..clear], bytes[..clear], "{name}");
        assert_eq!(written.len(), bytes.len(), "{name}");
        if sealed == Seal::Absent {
            assert_eq!(written, bytes, "{name}");
        }
    }
}

/// A version that adds a field to an event must not make this one blind to the event.
#[test]
fn fields_of_a_later_version_are_passed_over() {
    let mut bytes = Vec::new();
    let mut encoder = minicbor::Encoder::new(&mut bytes);
    encoder.array(2).unwrap().u32(4).unwrap().map(2).unwrap();
    encoder.u32(0).unwrap().bytes(&[5; 16]).unwrap();
    encoder.u32(9).unwrap().array(1).unwrap().str("why").unwrap();
    let event: Event = minicbor::decode(&bytes).unwrap();
    assert_eq!(event, Event::Fence(Fence { session: mainstay_domain::SessionId([5; 16]) }));
}

#[test]
fn a_checkpoint_that_says_something_else_puts_the_log_in_doubt() {
    let mut state = State::open(id(1));
    fold(&mut state, &begin(1));
    fold(&mut state, &commit(1, 1));
    let mut false_one = state.checkpoint();
    false_one.facts.points.clear();
    fold(&mut state, &Event::Checkpoint(Box::new(false_one)));
    assert_eq!(state.doubts.len(), 1);
    assert!(state.facts.points.contains_key(&id::<PointId>(1)));
}

#[test]
fn a_session_is_fenced_only_after_two_collections_without_progress() {
    let mut state = State::open(id(1));
    fold(&mut state, &begin(1));
    let seen = |state: &State, objects| {
        Event::Condemn(Condemn { tail: state.head, observed: vec![(id(1), objects)], ..Condemn::default() })
    };
    let may =
        |state: &State, objects, at| Protocol.may_fence(&state.facts.sessions[&id(1)], objects, Time(at), 10);
    assert!(!may(&state, 0, 1000), "nobody has looked before");
    let event = seen(&state, 4);
    fold(&mut state, &event); // entry 2, at time 2
    assert!(!may(&state, 5, 1000), "it has made progress");
    assert!(!may(&state, 4, 11), "too soon");
    assert!(may(&state, 4, 12));
    let event = seen(&state, 4);
    fold(&mut state, &event);
    assert!(may(&state, 4, 12), "the first look without progress since counts");
    let event = seen(&state, 5);
    fold(&mut state, &event); // entry 4
    assert!(!may(&state, 5, 13));
    assert!(may(&state, 5, 14));
}

#[test]
fn an_expired_or_unknown_hold_or_point_is_nobodys_to_release_or_drop() {
    let mut state = State::open(id(1));
    for event in [
        Event::Release(ReleaseHold { hold: id(1), reason: None }),
        Event::Drop(DropPoint { point: id(1), reason: None }),
        Event::Proved(Proved { point: id(1), proof: None }),
    ] {
        assert!(!fold(&mut state, &event), "{}", event.name());
    }
}

#[test]
fn a_lost_pack_is_absent_until_it_is_found_or_swept() {
    let mut state = State::open(id(1));
    let lost = |packs: &[u16], found: &[u16]| Event::Lost(Lost { packs: ids(packs), found: ids(found) });
    let relied_on = |state: &State, pack| Protocol.may_deduplicate(state, state.head + 1, &id(pack));
    fold(&mut state, &lost(&[1, 2, 3], &[]));
    assert!([1, 2, 3].iter().all(|pack| !relied_on(&state, *pack)) && relied_on(&state, 4));
    fold(&mut state, &lost(&[], &[2]));
    assert!(relied_on(&state, 2));
    let event = Event::Condemn(Condemn { tail: state.head, packs: ids(&[1, 3]), ..Condemn::default() });
    fold(&mut state, &event);
    let event = Protocol.to_sweep(&state, state.head, &|_| false, &|_| Vec::new()).unwrap();
    fold(&mut state, &Event::Sweep(event));
    assert_eq!(state.facts.lost, None, "a swept pack is nobody's loss");
    assert!(!relied_on(&state, 1));
}
