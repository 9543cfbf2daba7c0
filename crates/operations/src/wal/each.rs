//! Work on many archived files by several threads, which hold no more of them at a time than memory allows.

use mainstay_domain::{Failure, Kind, Monitor, Result, wal::SegmentSize};
use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

/// Bytes of segments that are held at the same time.
const HELD: u64 = 128 << 20;

/// Does something with each, until one fails: that failure is the outcome.
pub(crate) fn each<T: Sync>(
    wanted: &[T],
    size: SegmentSize,
    monitor: &dyn Monitor,
    work: &(dyn Fn(&T) -> Result<()> + Sync),
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let outcome = Mutex::new(Ok(()));
    // Each thread holds a segment; one has up to 1 GiB.
    let threads = crate::access::threads().min((HELD / size.bytes()) as usize).max(1);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(item) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let done = match monitor.cancelled() {
                        true => Err(Failure::new(Kind::Cancelled, "it was stopped")),
                        false => work(item),
                    };
                    if let Err(failure) = done {
                        let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
                        if outcome.is_ok() {
                            *outcome = Err(failure);
                        }
                        next.store(wanted.len(), Ordering::Relaxed);
                    }
                }
            });
        }
    });
    outcome.into_inner().unwrap_or_else(PoisonError::into_inner)
}
