//! Reading the log from a store: where it ends, where to begin, and which of its entries can be relied on.
//!
//! Entries have consecutive numbers and are never removed, so the head is found by probing, not by LIST, which may lag: a
//! listing can only show that there is more. An
//! entry counts only if it was signed by a trusted host with the role for it, for this repository, place and
//! incarnation, after the entry before it. Any other is a [`Doubt`]: it is passed over, and remembered.

use super::{
    chain::LogContext,
    doubt::Doubt,
    entry::{self, Body, EntryHash, PREFIX, Parsed, Seal, object_name},
    event::Event,
    facts::Facts,
    rules::permitted,
    state::{Stamp, State},
};
use crate::error::{RepositoryError, Result};
use mainstay_stores::{Store, StoreError};
use std::{
    collections::BTreeSet,
    ops::ControlFlow,
    sync::atomic::{AtomicUsize, Ordering},
};

/// Entries fetched ahead of the fold: bounds memory, and the number of requests under way at once.
const WINDOW: u64 = 64;
const FETCHERS: usize = 8;
/// Bounds the memory that a listing takes.
const MAX_LISTED: usize = 10_000;
/// Missing entries behind which another one is still taken for a part of the log.
pub(super) const MAX_GAP: u64 = 4096;
/// How many objects that only bear the names of entries, next to each other, are looked at one by one.
const MAX_STRAYS: usize = 64;
/// How many entries before the head may be unusable before the search for a checkpoint gives up and starts from entry 0.
const CHECKPOINT_SEARCH: u64 = 32;

/// How far the search for the head looks beyond the first entry that is missing. Lost neighbours must not pass for the end of
/// the log: one who opens it looks wide, one who follows it from a head that it has just seen looks one further.
pub(super) const WIDE: u64 = 16;
pub(super) const NEXT: u64 = 2;

/// The largest n whose entry is there, at or after `from` (which is there). Doubles the step, then halves the interval, then
/// looks `reach` entries ahead for what lies behind a gap (damage). What it cannot see that way, a hint or a listing does.
///
/// The steps may land on objects far beyond the end that only bear the names of entries. Whoever took one for the head would append
/// behind it, and everybody who follows the log from a head that he has seen, before it. So what lies behind a gap that `reach`
/// does not cross is the head only if an entry that was written for its very place is among it.
///
/// `facts`: what is known so far. Strays that it names end no gap: they are there only for a log that has come to them.
pub(super) fn find_head(
    store: &dyn Store,
    context: &LogContext,
    from: u64,
    reach: u64,
    facts: &Facts,
) -> Result<u64> {
    // Nothing from `limit` on is looked at.
    let (mut base, mut limit) = (from, u64::MAX);
    let mut listed = false;
    loop {
        let head = search_head(store, base, reach, facts, limit)?;
        if head == base {
            return Ok(head);
        }
        match judge(store, context, head, base)? {
            Belongs::Yes | Belongs::Unclear => return Ok(head),
            Belongs::No { first, .. } => limit = first,
        }
        // Behind it the log may yet go on, farther than any probe looks.
        if !std::mem::replace(&mut listed, true)
            && let Some(ours) = last_listed_of_ours(store, context, base)?
        {
            (base, limit) = (ours, u64::MAX);
        }
    }
}

/// Whether objects that are named as entries and lie behind a gap are a part of the log.
pub(super) enum Belongs {
    Yes,
    /// Not one of those that lie near each other, from `first` to `last`, was written for its place.
    No {
        first: u64,
        last: u64,
    },
    /// Too many lie there to look at each. They are taken for a part of the log: it then has entries in doubt, instead of fewer.
    Unclear,
}

/// Judges what is named as entry `n` by everything that lies around it with no gap of [`WIDE`] between. `head` is an entry before.
pub(super) fn judge(store: &dyn Store, context: &LogContext, n: u64, head: u64) -> Result<Belongs> {
    if is_ours(store, context, n)? {
        return Ok(Belongs::Yes);
    }
    let mut looked_at = 1;
    let mut first = n;
    let mut before = n;
    while before > first.saturating_sub(WIDE).max(head) {
        before -= 1;
        if before == head {
            return Ok(Belongs::Yes);
        }
        if store.stat(&object_name(before))?.is_some() {
            first = before;
            looked_at += 1;
            if is_ours(store, context, first)? {
                return Ok(Belongs::Yes);
            }
        }
        if looked_at > MAX_STRAYS {
            return Ok(Belongs::Unclear);
        }
    }
    let mut last = n;
    let mut after = n;
    while after < last.saturating_add(WIDE) {
        after += 1;
        if store.stat(&object_name(after))?.is_some() {
            last = after;
            looked_at += 1;
            if is_ours(store, context, last)? {
                return Ok(Belongs::Yes);
            }
        }
        if looked_at > MAX_STRAYS {
            return Ok(Belongs::Unclear);
        }
    }
    Ok(Belongs::No { first, last })
}

/// Whether entry `n` is there, by a trusted host and for this very place.
fn is_ours(store: &dyn Store, context: &LogContext, n: u64) -> Result<bool> {
    let Some(bytes) = read_entry(store, n)? else { return Ok(false) };
    let parsed = verified(&bytes, context);
    Ok(parsed.is_ok_and(|parsed| parsed.body.n == n && parsed.body.repository == context.repository))
}

/// Of the entries behind `n` that a listing shows, the last one that was written for its place.
fn last_listed_of_ours(store: &dyn Store, context: &LogContext, n: u64) -> Result<Option<u64>> {
    let near = |found: &u64| *found <= n.saturating_add(MAX_GAP);
    for found in listed_behind(store, n)?.into_iter().filter(near).rev() {
        if is_ours(store, context, found)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn search_head(store: &dyn Store, from: u64, reach: u64, facts: &Facts, limit: u64) -> Result<u64> {
    let there = |n: u64| -> Result<bool> {
        if n >= limit {
            return Ok(false);
        }
        let mut first = n;
        while facts.is_stray(first) && first > from + 1 {
            first -= 1;
        }
        for n in first..=n {
            if store.stat(&object_name(n))?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    };
    let mut low = from;
    'search: loop {
        let mut step = 1;
        while there(low + step)? {
            low += step;
            step *= 2;
        }
        let mut high = low + step;
        while low + 1 < high {
            let middle = low + (high - low) / 2;
            if there(middle)? { low = middle } else { high = middle }
        }
        for beyond in low + 2..=low + reach {
            if there(beyond)? {
                low = beyond;
                continue 'search;
            }
        }
        return Ok(low);
    }
}

/// Entries behind `n` that a listing shows, the first [`MAX_LISTED`] of them; it may lag, and show too few.
pub(super) fn listed_behind(store: &dyn Store, n: u64) -> Result<BTreeSet<u64>> {
    let mut behind = BTreeSet::new();
    store.list(PREFIX, &mut |listed| {
        behind.extend(entry::parse_object_name(&listed.name).filter(|found| *found > n));
        if behind.len() > MAX_LISTED {
            behind.pop_last();
        }
        ControlFlow::Continue(())
    })?;
    Ok(behind)
}

/// The entry's bytes; `None` if it is not there.
pub(super) fn read_entry(store: &dyn Store, n: u64) -> Result<Option<Vec<u8>>> {
    match store.read(&object_name(n)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Hands over the entries from `first` to `last` in order, fetching several at once.
pub(super) fn for_each_entry(
    store: &dyn Store,
    first: u64,
    last: u64,
    mut visit: impl FnMut(u64, Option<Vec<u8>>),
) -> Result<()> {
    let mut from = first;
    while from <= last {
        let to = last.min(from + WINDOW - 1);
        for (n, bytes) in (from..=to).zip(fetch(store, from, to)?) {
            visit(n, bytes);
        }
        from = to + 1;
    }
    Ok(())
}

fn fetch(store: &dyn Store, from: u64, to: u64) -> Result<Vec<Option<Vec<u8>>>> {
    let count = (to - from + 1) as usize;
    if count < FETCHERS {
        return (from..=to).map(|n| read_entry(store, n)).collect();
    }
    let next = AtomicUsize::new(0);
    let work = || {
        let mut fetched = Vec::new();
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            if i >= count {
                return fetched;
            }
            fetched.push((i, read_entry(store, from + i as u64)));
        }
    };
    let mut all: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..FETCHERS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("reading does not panic")).collect()
    });
    all.sort_by_key(|(i, _)| *i);
    all.into_iter().map(|(_, read)| read).collect()
}

/// Checks everything about an entry that can be checked, and opens its sealed part if there is a key for it.
///
/// `state`: that of the entries before, where it is known. `previous`: the hash of the entry before, where that was intact.
pub(super) fn examine(
    bytes: &[u8],
    n: u64,
    context: &LogContext,
    state: Option<&State>,
    previous: Option<EntryHash>,
) -> Result<(Stamp, Body, Seal), Doubt> {
    let mut parsed = verified(bytes, context)?;
    let body = &parsed.body;
    if body.repository != context.repository {
        return Err(Doubt::Foreign("repository"));
    }
    if body.n != n {
        return Err(Doubt::Foreign("place"));
    }
    if state.is_some_and(|state| state.incarnation != body.incarnation) {
        return Err(Doubt::Foreign("incarnation"));
    }
    if previous.is_some_and(|previous| previous != body.previous) {
        return Err(Doubt::BrokenChain);
    }
    let signer = parsed.signer;
    let empty = State::open(body.incarnation);
    let may = |role| context.trust.may(&signer, role);
    if !permitted(state.unwrap_or(&empty), &body.event, &signer, &may) {
        return Err(Doubt::Forbidden { signer, event: body.event.name() });
    }
    let seal = parsed.unseal(|epoch| (context.index_private)(epoch));
    Ok((Stamp { n, time: parsed.body.time, signer }, parsed.body, seal))
}

/// Parsed, and signed by a trusted host.
fn verified<'b>(bytes: &'b [u8], context: &LogContext) -> Result<Parsed<'b>, Doubt> {
    let parsed = entry::parse(bytes)?;
    let key = context.trust.verify_key(&parsed.signer).ok_or(Doubt::UnknownSigner(parsed.signer))?;
    parsed.verify(&key)?;
    Ok(parsed)
}

/// Are these entry's bytes surely the ones that the next entry's writer saw? If they may have been altered, the next entry is
/// not to blame for a hash that does not match.
pub(super) fn is_intact(doubt: Option<&Doubt>) -> bool {
    match doubt {
        // What was written for another place may have been put here later.
        Some(
            Doubt::Missing
            | Doubt::Malformed(_)
            | Doubt::BadSignature(_)
            | Doubt::UnknownSigner(_)
            | Doubt::Foreign(_),
        ) => false,
        None
        | Some(
            Doubt::BrokenChain
            | Doubt::Forbidden { .. }
            | Doubt::UnknownEvent { .. }
            | Doubt::CheckpointDiffers
            | Doubt::Beyond,
        ) => true,
    }
}

/// The state to fold from, and the hash of its last entry: the newest checkpoint that can be relied on, or entry 0.
pub(super) fn start(store: &dyn Store, context: &LogContext, head: u64) -> Result<(State, EntryHash)> {
    // Every entry names the last checkpoint before it. One that cannot be relied on may name anything, so the search goes
    // back to one that can; to begin at an older checkpoint, or at entry 0, only costs time.
    for n in (head.saturating_sub(CHECKPOINT_SEARCH)..=head).rev() {
        let Some(bytes) = read_entry(store, n)? else { continue };
        let Ok(parsed) = verified(&bytes, context) else { continue };
        if parsed.body.n != n {
            continue;
        }
        if let Event::Checkpoint(_) = parsed.body.event
            && let Some(found) = from_checkpoint(&bytes, n, context)
        {
            return Ok(found);
        }
        match parsed.body.last_checkpoint.filter(|checkpoint| *checkpoint < n) {
            None => break,
            Some(checkpoint) => {
                let bytes = read_entry(store, checkpoint)?;
                if let Some(found) = bytes.and_then(|bytes| from_checkpoint(&bytes, checkpoint, context)) {
                    return Ok(found);
                }
            }
        }
    }
    let Some(bytes) = read_entry(store, 0)? else {
        return Err(RepositoryError::damaged(object_name(0), "the log has no beginning"));
    };
    match examine(&bytes, 0, context, None, None) {
        Ok((_, Body { event: Event::Open, incarnation, .. }, _)) => {
            Ok((State::open(incarnation), entry::hash(&bytes)))
        }
        _ => {
            Err(RepositoryError::damaged(object_name(0), "it is not the beginning of this repository's log"))
        }
    }
}

fn from_checkpoint(bytes: &[u8], n: u64, context: &LogContext) -> Option<(State, EntryHash)> {
    match examine(bytes, n, context, None, None) {
        // Whoever has the key must be able to open it: the log before it says what it should have said.
        Ok((_, Body { event: Event::Checkpoint(checkpoint), incarnation, .. }, seal))
            if seal != Seal::Broken && checkpoint.tail + 1 == n =>
        {
            Some((State::from_checkpoint(n, incarnation, *checkpoint), entry::hash(bytes)))
        }
        _ => None,
    }
}
