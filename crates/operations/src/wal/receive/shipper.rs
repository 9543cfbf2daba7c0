//! What has come of one timeline and is on its way into the archive: the segments that are whole, and the one that is still
//! written to.
//!
//! One thread receives, one archives. *Durable* only ever moves over what the archive has confirmed, in order: whole segments
//! first, then the open one, fragment by fragment. What comes while a fragment is being stored goes with the next one, so a busy
//! server does not wait longer for it, and a slow store has fewer, larger fragments.

use super::super::ends_in;
use mainstay_domain::{
    Failure, Kind, Monitor, Result, Severity,
    wal::{Lsn, Segment, SegmentSize, WalFile},
};
use mainstay_repository::wal::{Archive, fragments::Fragment};
use mainstay_sources::postgres::wal::check_segment;
use std::{
    collections::VecDeque,
    io::Write,
    os::unix::net::UnixStream,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

/// Bytes of whole segments that may wait to be archived; one always may.
const WAITING: u64 = 64 << 20;
/// After so many fragments one is archived that holds all of them: whoever puts the segment together reads few.
const GATHER: u32 = 64;
/// Between two attempts at a store that does not take anything.
const RETRY: Duration = Duration::from_secs(1);

/// The open segment.
struct Open {
    segment: Segment,
    bytes: Vec<u8>,
    /// What fragments held of it when this began, to be compared with what comes.
    known: Vec<u8>,
    /// So much of it is in fragments.
    shipped: usize,
    /// The number of the next fragment.
    next: u32,
    /// The fragments that are not gathered yet: where the first begins, which one it follows, how many.
    run: Run,
    /// Since when something waits to be shipped.
    waiting_since: Option<Instant>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Run {
    from: usize,
    after: Option<u32>,
    count: u32,
}

impl Open {
    fn new(segment: Segment) -> Open {
        Open {
            segment,
            bytes: Vec::new(),
            known: Vec::new(),
            shipped: 0,
            next: 0,
            run: Run::default(),
            waiting_since: None,
        }
    }
}

/// A segment that has come whole.
struct Whole {
    segment: Segment,
    bytes: Vec<u8>,
    /// How many fragments there are of it.
    fragments: u32,
}

struct State {
    open: Open,
    whole: VecDeque<Whole>,
    durable: Lsn,
    /// Nothing more was to be had from the server when this came.
    caught_up: bool,
    /// The server asked: ship what there is.
    hurry: bool,
    /// Nothing more comes.
    closing: bool,
    failure: Option<Failure>,
    counts: Counts,
}

/// What was archived.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    pub segments: u64,
    pub fragments: u64,
    pub bytes: u64,
}

impl Counts {
    pub fn add(&mut self, other: Counts) {
        self.segments += other.segments;
        self.fragments += other.fragments;
        self.bytes += other.bytes;
    }
}

/// Between the thread that receives and the one that archives.
pub struct Shipping<'a> {
    state: Mutex<State>,
    news: Condvar,
    size: SegmentSize,
    fragment_every: Duration,
    /// The server waits for us before it acknowledges commits.
    synchronous: &'a AtomicBool,
    /// Written to when there is something to tell the server.
    wake: UnixStream,
}

/// What is to be archived next.
enum Work {
    Whole(Whole),
    Fragment { segment: Segment, from: usize, number: u32, after: Option<u32>, bytes: Vec<u8> },
    Nothing,
}

impl<'a> Shipping<'a> {
    /// Begins with a segment, of which fragments may be archived already: the number of the last one, and what they hold.
    pub fn new(
        segment: Segment,
        size: SegmentSize,
        known: Option<(u32, Vec<u8>)>,
        fragment_every: Duration,
        synchronous: &'a AtomicBool,
        wake: UnixStream,
    ) -> Shipping<'a> {
        let mut open = Open::new(segment);
        if let Some((last, bytes)) = known {
            (open.next, open.shipped) = (last + 1, bytes.len());
            open.run = Run { from: bytes.len(), after: (!bytes.is_empty()).then_some(last), count: 0 };
            open.known = bytes;
        }
        let state = State {
            open,
            whole: VecDeque::new(),
            durable: segment.start(size),
            caught_up: false,
            hurry: false,
            closing: false,
            failure: None,
            counts: Counts::default(),
        };
        Shipping { state: Mutex::new(state), news: Condvar::new(), size, fragment_every, synchronous, wake }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Up to where everything is durable in the archive.
    pub fn durable(&self) -> Lsn {
        self.state().durable
    }

    pub fn counts(&self) -> Counts {
        self.state().counts
    }

    pub fn has_failed(&self) -> bool {
        self.state().failure.is_some()
    }

    /// Whether what has come must be archived before more is taken.
    pub fn is_full(&self) -> bool {
        let waiting: u64 = self.state().whole.iter().map(|whole| whole.bytes.len() as u64).sum();
        waiting > 0 && waiting + self.size.bytes() > WAITING
    }

    /// The server wants to hear how far we are.
    pub fn hurry(&self) {
        let mut state = self.state();
        state.hurry = state.open.bytes.len() > state.open.shipped;
        self.news.notify_all();
    }

    /// Nothing more comes: what is here is archived, and then [`ship`] returns.
    pub fn close(&self) {
        self.state().closing = true;
        self.news.notify_all();
    }

    /// Takes what has come. `end_there`: up to where the server had something to send.
    ///
    /// # Errors
    /// `Refused` if it is not what fragments hold of the same place.
    pub fn take(&self, start: Lsn, mut bytes: &[u8], end_there: Lsn) -> Result<()> {
        let size = self.size.bytes() as usize;
        let mut state = self.state();
        let expected = state.open.segment.start(self.size).0 + state.open.bytes.len() as u64;
        if start.0 != expected {
            return Err(Failure::failed(format!(
                "the server sent WAL from {start} on where {} was expected",
                Lsn(expected)
            )));
        }
        let end = Lsn(start.0 + bytes.len() as u64);
        while !bytes.is_empty() {
            let open = &mut state.open;
            let (now, rest) = bytes.split_at(bytes.len().min(size - open.bytes.len()));
            bytes = rest;
            compare(open, now)?;
            open.bytes.extend_from_slice(now);
            if open.bytes.len() == size {
                let next = Open::new(open.segment.next(self.size));
                let whole = std::mem::replace(open, next);
                let Open { segment, bytes, next: fragments, .. } = whole;
                state.whole.push_back(Whole { segment, bytes, fragments });
            }
        }
        let open = &mut state.open;
        if open.bytes.len() > open.shipped && open.waiting_since.is_none() {
            open.waiting_since = Some(Instant::now());
        }
        state.caught_up = end >= end_there;
        self.settle(&mut state);
        self.news.notify_all();
        Ok(())
    }

    /// Durable is what the archive holds, as far as it has come again and was compared.
    fn settle(&self, state: &mut State) {
        if state.whole.is_empty() {
            let open = &state.open;
            let reach = open.segment.start(self.size).0 + open.bytes.len().min(open.shipped) as u64;
            state.durable = state.durable.max(Lsn(reach));
        }
    }

    /// Waits until something is to be archived; `None` at the end.
    fn next(&self) -> Option<Work> {
        let mut state = self.state();
        loop {
            // The first stays in its place until it is archived: nothing after it may count as durable before.
            if let Some(whole) = state.whole.front_mut() {
                let bytes = std::mem::take(&mut whole.bytes);
                return Some(Work::Whole(Whole {
                    segment: whole.segment,
                    bytes,
                    fragments: whole.fragments,
                }));
            }
            let (closing, hurry, eager) =
                (state.closing, state.hurry, state.caught_up && self.synchronous.load(Ordering::Relaxed));
            let open = &mut state.open;
            if open.bytes.len() <= open.shipped {
                if closing {
                    return None;
                }
                state = self.news.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let waited = open.waiting_since.map_or(Duration::ZERO, |since| since.elapsed());
            if closing || hurry || eager || waited >= self.fragment_every {
                let from = open.shipped;
                let work = Work::Fragment {
                    segment: open.segment,
                    from,
                    number: open.next,
                    after: if from == 0 { None } else { open.next.checked_sub(1) },
                    bytes: open.bytes[from..].to_vec(),
                };
                open.waiting_since = None;
                state.hurry = false;
                return Some(work);
            }
            let rest = self.fragment_every - waited;
            state = self.news.wait_timeout(state, rest).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// A segment is in the archive.
    fn stored(&self, segment: Segment, bytes: u64) {
        let mut state = self.state();
        if state.whole.front().is_some_and(|whole| whole.segment == segment) {
            state.whole.pop_front();
        }
        state.durable = state.durable.max(segment.end(self.size));
        state.counts.segments += 1;
        state.counts.bytes += bytes;
        self.settle(&mut state);
        self.tell(state);
    }

    /// A fragment is in the archive, under a number. What is to be gathered now.
    fn shipped(&self, segment: Segment, from: usize, length: usize, number: u32) -> Work {
        let mut state = self.state();
        state.counts.fragments += 1;
        state.counts.bytes += length as u64;
        let mut gather = Work::Nothing;
        // It may have become whole meanwhile, and another one be open.
        if state.open.segment == segment {
            let open = &mut state.open;
            open.shipped = from + length;
            open.next = number + 1;
            if open.bytes.len() > open.shipped && open.waiting_since.is_none() {
                open.waiting_since = Some(Instant::now());
            }
            match from == 0 {
                true => open.run = Run { count: 1, ..Run::default() },
                false => open.run.count += 1,
            }
            if open.run.count >= GATHER {
                let Run { from, after, .. } = open.run;
                let bytes = open.bytes[from..open.shipped].to_vec();
                gather = Work::Fragment { segment, from, number: open.next, after, bytes };
            }
        } else if let Some(whole) = state.whole.iter_mut().find(|whole| whole.segment == segment) {
            whole.fragments = number + 1;
        }
        self.settle(&mut state);
        self.tell(state);
        gather
    }

    /// The fragments since the last one that gathers are gathered.
    fn gathered(&self, segment: Segment, number: u32) {
        let mut state = self.state();
        if state.open.segment == segment {
            let open = &mut state.open;
            open.next = number + 1;
            open.run = Run { from: open.shipped, after: Some(number), count: 0 };
        } else if let Some(whole) = state.whole.iter_mut().find(|whole| whole.segment == segment) {
            whole.fragments = number + 1;
        }
    }

    fn tell(&self, state: MutexGuard<'_, State>) {
        drop(state);
        self.news.notify_all();
        // If its buffer is full, it is awake anyway.
        let _ = (&self.wake).write(&[1]);
    }

    fn fail(&self, failure: Failure) {
        let mut state = self.state();
        state.failure.get_or_insert(failure);
        self.tell(state);
    }

    /// Why nothing more can be archived.
    pub fn take_failure(&self) -> Option<Failure> {
        self.state().failure.take()
    }
}

/// Holds what comes against what fragments hold of the same place.
fn compare(open: &Open, bytes: &[u8]) -> Result<()> {
    let at = open.bytes.len();
    let Some(known) = open.known.get(at..) else { return Ok(()) };
    let both = known.len().min(bytes.len());
    if known[..both] == bytes[..both] {
        return Ok(());
    }
    Err(Failure::new(
        Kind::Refused,
        format!("the WAL that the server sends for {} is not the one that was received before", open.segment),
    )
    .hint(
        "The server was set back to an earlier state without a new timeline, or another server answers at this address. Find out \
         which one is right; a new base backup makes a fresh beginning, with: mainstay wal receive APP --accept-gap.",
    ))
}

/// Archives what comes until [`Shipping::close`], and the rest. A store that is full or away is tried again until it takes it, or
/// until the user wants to stop: the server keeps what was not acknowledged.
pub fn ship(shipping: &Shipping<'_>, archive: &Archive<'_>, monitor: &dyn Monitor) {
    std::thread::scope(|scope| {
        let (superseded, to_remove) = mpsc::channel::<(Segment, u32)>();
        scope.spawn(move || remove_superseded(archive, &to_remove, monitor));
        while let Some(work) = shipping.next() {
            let outcome = match work {
                Work::Whole(whole) => store(shipping, archive, &whole, monitor).map(|()| {
                    if whole.fragments > 0 {
                        let _ = superseded.send((whole.segment, whole.fragments));
                    }
                }),
                fragment => send(shipping, archive, fragment, monitor),
            };
            if let Err(failure) = outcome {
                shipping.fail(failure);
                break;
            }
        }
    });
}

/// The whole segment is archived; its fragments are of no more use. What stays goes with the next `prune`.
fn remove_superseded(
    archive: &Archive<'_>,
    to_remove: &mpsc::Receiver<(Segment, u32)>,
    monitor: &dyn Monitor,
) {
    for (segment, count) in to_remove {
        if monitor.cancelled() {
            continue;
        }
        if let Err(error) = archive.remove_fragments(segment, count, &|| !monitor.cancelled()) {
            let text = format!(
                "fragments of {segment} are not needed any more and cannot be removed ({error}); `mainstay prune` removes them"
            );
            monitor.notice(Severity::Info, &text);
        }
    }
}

fn store(shipping: &Shipping<'_>, archive: &Archive<'_>, whole: &Whole, monitor: &dyn Monitor) -> Result<()> {
    let file = WalFile::Segment(whole.segment);
    check_segment(whole.segment, &whole.bytes, archive.system())?;
    let ends = ends_in(&file, &whole.bytes);
    until_taken(monitor, || Ok(archive.put(&file, &whole.bytes, ends)?))?;
    shipping.stored(whole.segment, whole.bytes.len() as u64);
    monitor.advance(1, whole.bytes.len() as u64);
    Ok(())
}

/// Archives a fragment, and then the one that gathers it and those before it, if it is time for that.
fn send(shipping: &Shipping<'_>, archive: &Archive<'_>, work: Work, monitor: &dyn Monitor) -> Result<()> {
    let Work::Fragment { segment, from, number, after, bytes } = work else { return Ok(()) };
    let fragment = Fragment { segment, number, from: from as u64, after, bytes: &bytes };
    let gather = match until_taken(monitor, || Ok(archive.ship(&fragment)?))? {
        true => shipping.shipped(segment, from, bytes.len(), number),
        // Somebody else on this host made it.
        false => return Err(taken(segment)),
    };
    if let Work::Fragment { segment, from, number, after, bytes } = gather {
        let fragment = Fragment { segment, number, from: from as u64, after, bytes: &bytes };
        match until_taken(monitor, || Ok(archive.ship(&fragment)?))? {
            true => shipping.gathered(segment, number),
            false => return Err(taken(segment)),
        }
    }
    Ok(())
}

fn taken(segment: Segment) -> Failure {
    Failure::new(Kind::Busy, format!("another receiver on this host archives fragments of {segment}"))
        .hint("Run one `mainstay wal receive APP` for a server.")
}

/// Tries until the store takes it. What no second attempt can mend is returned.
fn until_taken<T>(monitor: &dyn Monitor, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let mut told = false;
    loop {
        match attempt() {
            Ok(done) => return Ok(done),
            Err(failure) if failure.kind != Kind::Failed || monitor.cancelled() => return Err(failure),
            Err(failure) => {
                if !told {
                    let text = format!(
                        "{failure}: nothing is acknowledged to the server until the store takes it; the server keeps its WAL, and its \
                         disk fills"
                    );
                    monitor.notice(Severity::Warning, &text);
                    told = true;
                }
                pause(RETRY, monitor);
            }
        }
    }
}

/// Waits, but not when the user wants to stop.
pub(super) fn pause(length: Duration, monitor: &dyn Monitor) {
    const STEP: Duration = Duration::from_millis(100);
    let begun = Instant::now();
    while begun.elapsed() < length && !monitor.cancelled() {
        std::thread::sleep(STEP.min(length));
    }
}

#[cfg(test)]
#[path = "shipper_tests.rs"]
mod tests;
