//! Work that cannot go on, or may not: it ends, everybody who waits for it learns of it, and half of it never passes for the whole.

use crate::support::*;
use mainstay_domain::{
    Failure, Kind, Monitor, Silent,
    monitor::Event,
    stream::{Pool, Sink},
};
use mainstay_repository::{
    Repository, Session, Tuning,
    check::{Depth, check, known_harm},
    collect::{collect, preview},
};
use mainstay_stores::{FailingStore, Fault, MemoryStore, Store, Verb};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Wants to stop at the nth time that it is asked.
struct StopAt {
    nth: usize,
    asked: AtomicUsize,
}

impl StopAt {
    fn new(nth: usize) -> StopAt {
        StopAt { nth, asked: AtomicUsize::new(0) }
    }
}

impl Monitor for StopAt {
    fn event(&self, _: Event<'_>) {}

    fn cancelled(&self) -> bool {
        self.asked.fetch_add(1, Ordering::Relaxed) >= self.nth
    }
}

#[test]
fn a_full_disk_ends_every_thread_that_stores_more_than_may_be_in_flight() {
    let memory = MemoryStore::new();
    create(&(Arc::new(memory.clone()) as Arc<dyn Store>));
    let full = FailingStore::new(memory, |attempt| {
        (attempt.verb == Verb::Create && attempt.name.starts_with("packs/")).then_some(Fault::Full)
    });
    let repository = Repository::open(access(Arc::new(full)), None).unwrap();
    let few = Tuning { pack_bytes: 16 << 10, in_flight: 32 << 10, ..tuning() };
    let session = Session::begin(&repository, few).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let session = &session;
            scope.spawn(move || {
                // Ends only because storing fails, and hangs if a failed call keeps the room that others wait for.
                let failure =
                    (0..).find_map(|n| session.put(Pool::Data, &noise(thread << 32 | n, 9_000)).err());
                assert!(failure.unwrap().to_string().contains("full"));
            });
        }
    });
    let failure = Failure::from(session.commit(|_| unreachable!("there is nothing to commit")).unwrap_err());
    assert!(failure.to_string().contains("full"), "{failure}");
    assert!(
        repository.refreshed_state().unwrap().facts.sessions.is_empty(),
        "the session is ended in the log"
    );
}

#[test]
fn a_check_that_was_stopped_is_no_clean_check() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let repository = create(&store);
    let points = [1, 2].map(|seed| back_up(&repository, &[("a", noise(seed, 100_000))]).point);
    let asked = |depth| {
        for nth in 0.. {
            match check(&repository, &points, depth, 1, &StopAt::new(nth)) {
                Ok(report) => return (nth, report),
                Err(error) => assert_eq!(Failure::from(error).kind, Kind::Cancelled, "stopped at {nth}"),
            }
        }
        unreachable!("a check ends")
    };
    let (times, report) = asked(Depth::Packs);
    assert_eq!(times, report.objects, "asked before each manifest, index segment and pack");
    let (times_of_data, report) = asked(Depth::Data);
    assert!(report.is_clean());
    assert!(times_of_data > times + 20, "asked for each chunk too");
}

#[test]
fn weighing_what_is_lost_can_be_stopped_at_any_time() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let repository = create(&store);
    let committed = back_up(&repository, &[("a", noise(1, 100_000))]);
    back_up(&repository, &[("b", noise(2, 100_000))]);
    repository.record_lost(&committed.reach.packs.into_iter().collect(), &Default::default()).unwrap();
    let state = repository.refreshed_state().unwrap();
    let mut stopped = 0;
    let harm = loop {
        match known_harm(&repository, &state, &StopAt::new(stopped)) {
            Ok(harm) => break harm,
            Err(error) => assert_eq!(Failure::from(error).kind, Kind::Cancelled, "stopped at {stopped}"),
        }
        stopped += 1;
    };
    assert!(!harm.is_empty() && stopped > 40, "asked for each chunk of the index, {stopped} times");
}

#[test]
fn a_store_that_goes_away_during_a_check_is_no_finding() {
    let memory = MemoryStore::new();
    let repository = create(&(Arc::new(memory.clone()) as Arc<dyn Store>));
    let point = back_up(&repository, &[("a", noise(1, 3_000_000))]).point;
    for nth in 0.. {
        let mut seen = 0;
        let failing = FailingStore::new(memory.clone(), move |attempt| {
            let hit = attempt.verb == Verb::ReadRange && seen == nth;
            seen += usize::from(attempt.verb == Verb::ReadRange);
            hit.then_some(Fault::Unavailable)
        });
        let repository = Repository::open(access(Arc::new(failing)), None).unwrap();
        match check(&repository, &[point], Depth::Data, 1, &mainstay_domain::Silent) {
            Ok(report) => {
                assert!(report.is_clean() && nth > 0, "{report:?}");
                break;
            }
            Err(error) => assert_eq!(Failure::from(error).kind, Kind::Failed),
        }
    }
}

#[test]
fn what_a_killed_session_stored_is_named_with_its_end_and_goes_after_that() {
    const PATIENCE: i64 = 1_000_000_000_000;
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    create(&store);
    let point = back_up(&open(&store), &[("a", noise(1, 50_000))]).point;
    let repository = open(&store);
    let session = Session::begin(&repository, tuning()).unwrap();
    let mut seed = 2;
    while preview(&open(&store), PATIENCE).unwrap().waiting_for[0].objects < 2 {
        session.put_reader(Pool::Data, &mut noise(seed, 100_000).as_slice()).unwrap();
        seed += 1;
    }
    let killed = session.id();
    drop(session); // as a killed process: it neither commits nor ends its session

    let seen = preview(&open(&store), PATIENCE).unwrap();
    assert_eq!(seen.condemned_objects, 0, "it might be at work");
    let [waiting] = &seen.waiting_for[..] else { panic!("{:?}", seen.waiting_for) };
    assert_eq!((waiting.session, waiting.until), (killed, None), "no collection has seen it yet");
    assert!(waiting.since.is_some() && waiting.objects > 0 && waiting.bytes > 60_000, "{waiting:?}");

    let collected = collect(&open(&store), PATIENCE, &Silent).unwrap();
    let until = collected.waiting_for[0].until.expect("it was seen");
    assert!(until.since(waiting.since.unwrap()) >= PATIENCE);
    assert_eq!(preview(&open(&store), PATIENCE).unwrap().waiting_for, collected.waiting_for);
    while repository.clock().now() <= until {}
    let collected = collect(&open(&store), PATIENCE, &Silent).unwrap();
    assert_eq!((&collected.fenced[..], &collected.waiting_for[..]), (&[killed][..], &[][..]));
    assert!(collected.deleted_bytes >= waiting.bytes, "{collected:?}");
    assert!(check(&open(&store), &[point], Depth::Data, 1, &Silent).unwrap().is_clean());
}
