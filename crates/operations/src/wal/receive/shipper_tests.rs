//! What counts as durable, and what is taken for the same log.

use super::*;
use crate::testing::{open, open_over, store};
use mainstay_domain::Silent;
use mainstay_stores::{FailingStore, Fault, Verb};
use std::sync::{Arc, atomic::AtomicUsize};

const SYSTEM: u64 = 7_000_000_000_000_000_001;

fn size() -> SegmentSize {
    SegmentSize::try_from(1 << 20).unwrap()
}

fn segment() -> Segment {
    Segment::holding(1, Lsn(5 << 20), size())
}

fn start() -> Lsn {
    segment().start(size())
}

fn after(bytes: usize) -> Lsn {
    Lsn(start().0 + bytes as u64)
}

fn log(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 251) as u8).collect()
}

fn shipping(known: Option<(u32, Vec<u8>)>, synchronous: &AtomicBool) -> Shipping<'_> {
    let (_, waker) = UnixStream::pair().unwrap();
    Shipping::new(segment(), size(), known, Duration::from_secs(3600), synchronous, waker)
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "it does not come true: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

#[test]
fn nothing_is_durable_before_the_store_has_taken_it() {
    let memory = store();
    let (away, attempts) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let failing = FailingStore::new(memory.clone(), {
        let (away, attempts) = (away.clone(), attempts.clone());
        move |attempt| {
            let ours = attempt.verb == Verb::Create && attempt.name.contains('@');
            attempts.fetch_add(usize::from(ours), Ordering::SeqCst);
            (ours && away.load(Ordering::SeqCst)).then_some(Fault::Full)
        }
    });
    let repository = open_over(Arc::new(failing));
    let archive = Archive::of(&repository, SYSTEM);
    let synchronous = AtomicBool::new(true);
    let (shipping, log) = (shipping(None, &synchronous), log(10_000));
    std::thread::scope(|scope| {
        scope.spawn(|| ship(&shipping, &archive, &Silent));
        shipping.take(start(), &log[..4000], after(4000)).unwrap();
        until("it tries", || attempts.load(Ordering::SeqCst) > 0);
        shipping.take(after(4000), &log[4000..], after(10_000)).unwrap();
        assert_eq!(shipping.durable(), start());
        away.store(false, Ordering::SeqCst);
        until("all of it is durable", || shipping.durable() == after(10_000));
        shipping.close();
    });
    let repository = open(&memory);
    let found = Archive::of(&repository, SYSTEM).beginning(segment()).unwrap();
    assert!(found.unwrap() == log);
    assert_eq!(shipping.counts().fragments, 2, "what came while the store was away went with the next one");
}

#[test]
fn fragments_wait_for_more_unless_somebody_waits_for_them() {
    let memory = store();
    let repository = open(&memory);
    let archive = Archive::of(&repository, SYSTEM);
    let synchronous = AtomicBool::new(false);
    let (shipping, log) = (shipping(None, &synchronous), log(9000));
    std::thread::scope(|scope| {
        scope.spawn(|| ship(&shipping, &archive, &Silent));
        shipping.take(start(), &log[..3000], after(3000)).unwrap();
        // The server asks.
        shipping.hurry();
        until("what was asked for is durable", || shipping.durable() == after(3000));
        // It waits for us, but has more to send before it can.
        synchronous.store(true, Ordering::SeqCst);
        shipping.take(after(3000), &log[3000..6000], after(9000)).unwrap();
        shipping.take(after(6000), &log[6000..], after(9000)).unwrap();
        until("all of it is durable", || shipping.durable() == after(9000));
        shipping.close();
    });
    assert_eq!(shipping.counts().fragments, 2);
}

#[test]
fn what_comes_again_counts_when_it_was_compared_and_other_log_is_refused() {
    let (synchronous, log) = (AtomicBool::new(true), log(5000));
    let shipping_known = || shipping(Some((2, log.clone())), &synchronous);
    let same = shipping_known();
    same.take(start(), &log[..2000], after(2000)).unwrap();
    assert_eq!(same.durable(), after(2000), "fragments hold more, but the server has not sent it again");
    same.take(after(2000), &log[2000..], after(5000)).unwrap();
    assert_eq!(same.durable(), after(5000));

    let other = shipping_known();
    let mut changed = log.clone();
    changed[3000] ^= 1;
    other.take(start(), &changed[..3000], after(5000)).unwrap();
    let refused = other.take(after(3000), &changed[3000..], after(5000)).unwrap_err();
    assert_eq!(refused.kind, Kind::Refused, "{refused}");
    assert!(other.take(after(4000), b"x", after(5000)).is_err(), "a hole in what comes");
}

#[test]
fn thousands_of_small_fragments_are_gathered_and_lead_on() {
    let memory = store();
    let repository = open(&memory);
    let archive = Archive::of(&repository, SYSTEM);
    let synchronous = AtomicBool::new(true);
    let (shipping, log) = (shipping(None, &synchronous), log(200 * 50));
    std::thread::scope(|scope| {
        scope.spawn(|| ship(&shipping, &archive, &Silent));
        for (number, bytes) in log.chunks(50).enumerate() {
            shipping.take(after(number * 50), bytes, after(number * 50 + 50)).unwrap();
            until("it is durable", || shipping.durable() == after(number * 50 + 50));
        }
        shipping.close();
    });
    // The small ones that are gathered are not needed, nor asked for.
    for name in memory.names().iter().filter(|name| name.contains("@000000") && name.ends_with("3")) {
        let number: u32 = name.rsplit('@').next().unwrap().parse().unwrap();
        if number < 60 {
            memory.overwrite(name, b"damaged");
        }
    }
    assert!(archive.beginning(segment()).unwrap().unwrap() == log);
}
