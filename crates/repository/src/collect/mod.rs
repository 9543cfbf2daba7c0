//! The collector: finds what no recovery point needs, condemns it, and deletes it once nobody can rely on it any more.
//!
//! Two phases, each one entry in the log (`doc/consistency.md`). [`collect`] does what can be done now: finishes sweeps that
//! another collector left, sweeps condemns whose older sessions have all ended, and condemns what is garbage by now. It may be
//! killed at any moment and started again by anybody; it never waits for a running backup, and no backup waits for it.
//!
//! What cannot be attributed to this repository is left alone and reported.

mod garbage;
mod rewrite;

use crate::{
    error::{RepositoryError, Result},
    index,
    log::{
        Event, Protocol, Rules, State,
        event::{Condemn, Fence, Sweep, Swept},
    },
    manifest, pack,
    repository::Repository,
};
use garbage::{Garbage, find_garbage, needed_packs, take_inventory};
use mainstay_domain::{Monitor, ObjectId, SessionId, Severity, Time, stream::Pool};
use rewrite::{read_segment, rewrite_index};
use std::collections::HashMap;

/// What a collection did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    pub deleted_objects: usize,
    pub deleted_bytes: u64,
    /// Condemned now: deleted by a later collection, when the sessions that are running have ended.
    pub condemned_objects: usize,
    pub condemned_bytes: u64,
    pub fenced: Vec<SessionId>,
    /// Sessions that have begun and not ended: what they stored stays, and nothing that is condemned after their Begin is deleted.
    pub waiting_for: Vec<Waiting>,
    /// Objects that are not this repository's, as far as can be told. Never deleted.
    pub strangers: Vec<String>,
}

/// A session that is at work, or whose process has died.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    pub session: SessionId,
    /// By the clock of the host that began it; `None` if that entry cannot be read any more.
    pub since: Option<Time>,
    /// Packs that it has stored.
    pub objects: u64,
    pub bytes: u64,
    /// When a collection may end it, if it has stored nothing more by then. `None`: that long after the next collection, which
    /// is the first to see it as far as it is.
    pub until: Option<Time>,
}

/// Collects. `patience`: nanoseconds without progress after which a session counts as dead.
pub fn collect(repository: &Repository, patience: i64, monitor: &dyn Monitor) -> Result<Collected> {
    let mut collected = Collected::default();
    repository.check_writable()?;
    // Entries behind a gap must come to light before anything is decided; after them, everything below sees the doubt.
    repository.thoroughly_refreshed_state()?;
    finish_sweeps(repository, &mut collected, monitor)?;
    sweep_what_is_free(repository, &mut collected, monitor)?;
    condemn(repository, patience, &mut collected, monitor)?;
    sweep_what_is_free(repository, &mut collected, monitor)?;
    Ok(collected)
}

/// What [`collect`] would find, without writing anything.
pub fn preview(repository: &Repository, patience: i64) -> Result<Collected> {
    let state = repository.refreshed_state()?;
    let inventory = take_inventory(repository)?;
    let garbage = find_garbage(repository, &state, &inventory)?;
    Ok(Collected {
        condemned_objects: garbage.packs.len() + garbage.index.len() + garbage.manifests.len(),
        condemned_bytes: garbage.bytes,
        waiting_for: waiting(repository, &state, &garbage, patience)?,
        strangers: inventory.strangers,
        ..Collected::default()
    })
}

/// Deletes what sweeps in the log name and nobody has reported deleted.
fn finish_sweeps(repository: &Repository, collected: &mut Collected, monitor: &dyn Monitor) -> Result<()> {
    let state = repository.refreshed_state()?;
    if !state.doubts.is_empty() {
        return Ok(());
    }
    for (n, objects) in &state.facts.sweeps {
        let sweep = Sweep {
            packs: objects.packs.iter().copied().collect(),
            index: objects.index.iter().copied().collect(),
            manifests: objects.manifests.iter().copied().collect(),
            ..Sweep::default()
        };
        delete_swept(repository, *n, &sweep, collected, monitor)?;
    }
    Ok(())
}

/// Sweeps every outstanding condemn whose older sessions have ended.
fn sweep_what_is_free(
    repository: &Repository,
    collected: &mut Collected,
    monitor: &dyn Monitor,
) -> Result<()> {
    loop {
        let state = repository.refreshed_state()?;
        let mut outstanding = state.facts.condemned.keys().copied();
        let free = outstanding.find(|condemn| Protocol.older_sessions_ended(&state, *condemn).is_ok());
        let Some(condemn) = free.filter(|_| state.doubts.is_empty()) else { return Ok(()) };
        let mut sweep = None;
        let n = repository.append(|state| {
            let computed = compute_sweep(repository, state, condemn)?;
            sweep = Some(computed.clone());
            Ok(Event::Sweep(computed))
        })?;
        delete_swept(repository, n, &sweep.unwrap_or_default(), collected, monitor)?;
    }
}

fn compute_sweep(repository: &Repository, state: &State, condemn: u64) -> Result<Sweep> {
    let needed = needed_packs(repository, state)?;
    let mut names = HashMap::new();
    let condemned = state.facts.condemned.get(&condemn).into_iter().flat_map(|objects| &objects.index);
    let replaced: Vec<ObjectId> =
        condemned.filter(|segment| state.facts.segments.contains_key(segment)).copied().collect();
    // A replaced segment may go only if the live ones lead to every pack that is still needed. A damaged one may have named
    // any of them, and leads to none.
    if !replaced.is_empty() {
        let lost = state.facts.lost.clone().unwrap_or_default();
        for segment in replaced.iter().chain(state.live_index()) {
            let packs = match read_segment(repository, segment)? {
                Some(segment) => segment.packs.into_iter().map(|(id, _)| id).collect::<Vec<_>>(),
                None if replaced.contains(segment) => {
                    needed.iter().filter(|id| !lost.contains(id)).copied().collect()
                }
                None => Vec::new(),
            };
            names.insert(*segment, packs);
        }
    }
    Protocol
        .to_sweep(state, condemn, &|pack| needed.contains(pack), &|segment| {
            names.get(segment).cloned().unwrap_or_default()
        })
        .ok_or_else(|| RepositoryError::Session("another collector was faster".into()))
}

fn delete_swept(
    repository: &Repository,
    n: u64,
    sweep: &Sweep,
    collected: &mut Collected,
    monitor: &dyn Monitor,
) -> Result<()> {
    let packs =
        sweep.packs.iter().flat_map(|id| [Pool::Data, Pool::Tree].map(|pool| pack::object_name(pool, id)));
    let index = sweep.index.iter().map(index::object_name);
    let manifests = sweep.manifests.iter().map(manifest::object_name);
    for name in packs.chain(index).chain(manifests) {
        if let Some(bytes) = repository.store().stat(&name)? {
            repository.store().delete(&name)?;
            collected.deleted_objects += 1;
            collected.deleted_bytes += bytes;
            monitor.advance(1, bytes);
        }
    }
    // A sweep of nothing is over at once, and another collector may have reported this one.
    repository.append_if(|state| {
        Ok(state.facts.sweeps.contains_key(&n).then_some(Event::Swept(Swept { sweep: n })))
    })?;
    Ok(())
}

fn condemn(
    repository: &Repository,
    patience: i64,
    collected: &mut Collected,
    monitor: &dyn Monitor,
) -> Result<()> {
    let state = repository.refreshed_state()?;
    if !state.doubts.is_empty() {
        let (n, doubt) = state.doubts.iter().next().expect("not empty");
        monitor.notice(Severity::Warning, &format!("nothing is deleted: log entry {n} is in doubt, {doubt}"));
        return Ok(());
    }
    // Ids of sessions without progress since an earlier collection; whoever is wronged by it only has to run again.
    let inventory = take_inventory(repository)?;
    let garbage = find_garbage(repository, &state, &inventory)?;
    let now = repository.clock().now();
    for (session, seen) in &garbage.observed {
        if state
            .facts
            .sessions
            .get(session)
            .is_some_and(|open| Protocol.may_fence(open, *seen, now, patience))
        {
            repository.append(|_| Ok(Event::Fence(Fence { session: *session })))?;
            collected.fenced.push(*session);
        }
    }
    let mut outcome = (0, 0);
    let mut wanted = true;
    let mut strangers = Vec::new();
    let mut open = Garbage::default();
    repository.append_if(|state| {
        let inventory = take_inventory(repository)?;
        let garbage = find_garbage(repository, state, &inventory)?;
        let (index, added_index) = rewrite_index(repository, state, &garbage)?;
        strangers = inventory.strangers;
        open =
            Garbage { observed: garbage.observed.clone(), held: garbage.held.clone(), ..Garbage::default() };
        let condemned_index: Vec<_> = garbage.index.into_iter().chain(index).collect();
        outcome = (garbage.packs.len() + condemned_index.len() + garbage.manifests.len(), garbage.bytes);
        wanted = outcome.0 > 0 || !garbage.observed.is_empty() || !added_index.is_empty();
        Ok(wanted.then_some(Event::Condemn(Condemn {
            tail: state.head,
            packs: garbage.packs,
            index: condemned_index,
            manifests: garbage.manifests,
            added_index,
            observed: garbage.observed,
            merged_on: state.head,
        })))
    })?;
    (collected.condemned_objects, collected.condemned_bytes) = outcome;
    collected.strangers = strangers;
    collected.waiting_for = waiting(repository, &repository.state()?, &open, patience)?;
    Ok(())
}

/// The sessions of this state that are open, as far as a look at the store has seen them to be.
fn waiting(repository: &Repository, state: &State, seen: &Garbage, patience: i64) -> Result<Vec<Waiting>> {
    let waiting = seen.observed.iter().filter_map(|(id, objects)| {
        let open = state.facts.sessions.get(id)?;
        let observed = open.observed.as_ref().filter(|earlier| earlier.objects == *objects);
        Some(repository.time_of_entry(open.begin).map(|since| Waiting {
            session: *id,
            since,
            objects: *objects,
            bytes: seen.held.get(id).copied().unwrap_or_default(),
            until: observed.map(|earlier| earlier.time.plus(patience)),
        }))
    });
    waiting.collect()
}
