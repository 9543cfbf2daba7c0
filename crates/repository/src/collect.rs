//! The collector: finds what no recovery point needs, condemns it, and deletes it once nobody can rely on it any more.
//!
//! Two phases, each one entry in the log (`doc/consistency.md`). [`collect`] does what can be done now: finishes sweeps that
//! another collector left, sweeps condemns whose older sessions have all ended, and condemns what is garbage by now. It may be
//! killed at any moment and started again by anybody; it never waits for a running backup, and no backup waits for it.
//!
//! What cannot be attributed to this repository is left alone and reported.

use crate::{
    error::{RepositoryError, Result},
    index::{self, LIVE_SEGMENTS_BEFORE_MERGE, Record, Segment, seal_segment},
    log::{
        Event, Protocol, Rules, State,
        event::{Condemn, Fence, Sweep, Swept},
    },
    manifest::{self, Reach},
    pack::{self, HEADER, Header},
    repository::Repository,
    session::create_settled,
};
use mainstay_domain::{Failure, Monitor, ObjectId, PackId, PointId, SessionId, Severity, Time, stream::Pool};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    ops::ControlFlow,
};

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

/// What lies in the store.
#[derive(Default)]
struct Inventory {
    packs: HashMap<PackId, (Pool, u64)>,
    index: HashMap<ObjectId, u64>,
    manifests: HashMap<PointId, u64>,
    strangers: Vec<String>,
}

/// Packs, segments and manifests that nothing needs.
#[derive(Default)]
struct Garbage {
    packs: Vec<PackId>,
    index: Vec<ObjectId>,
    manifests: Vec<PointId>,
    observed: Vec<(SessionId, u64)>,
    /// What the packs of open sessions take, which are no garbage yet.
    held: BTreeMap<SessionId, u64>,
    bytes: u64,
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

/// The packs that live points need. One that cannot be read means that nothing may be deleted.
fn needed_packs(repository: &Repository, state: &State) -> Result<HashSet<PackId>> {
    let mut needed = HashSet::new();
    for id in state.facts.points.keys() {
        needed.extend(reach_of(repository, id)?.packs);
    }
    let lost: HashSet<PackId> =
        state.facts.lost.iter().flatten().filter(|pack| needed.contains(pack)).copied().collect();
    if !lost.is_empty() {
        needed.extend(copies_of(repository, state, &lost)?);
    }
    Ok(needed)
}

fn reach_of(repository: &Repository, id: &PointId) -> Result<Reach> {
    let bytes = repository.store().read(&manifest::object_name(id)).map_err(RepositoryError::from);
    bytes.and_then(|bytes| manifest::open_reach(id, &bytes, &repository.unsealer())).map_err(|error| {
        if !error.is_damage() {
            return error;
        }
        let short = id.short();
        let message =
            format!("nothing is deleted: what recovery point {short} needs cannot be known, {error}");
        Failure::verification(message)
            .hint(format!("Give it up with `mainstay delete {short}`; the others are as they were."))
            .into()
    })
}

/// Packs in which chunks of these packs lie as well. Where a pack is lost, the points that need it live on such copies, which
/// stand on nobody's list once the point that brought them is gone.
fn copies_of(repository: &Repository, state: &State, lost: &HashSet<PackId>) -> Result<HashSet<PackId>> {
    // Half an id finds every copy; that it may find more keeps a pack for longer.
    let half = |record: &Record| record.chunk.0.first_chunk::<16>().copied();
    let mut chunks = HashSet::new();
    let visit = |of_lost: bool, visit: &mut dyn FnMut(&Record, PackId)| -> Result<()> {
        for id in state.readable_index() {
            let Some(segment) = read_segment(repository, id)? else { continue };
            let is_lost: Vec<bool> = segment.packs.iter().map(|(pack, _)| lost.contains(pack)).collect();
            for record in segment.records.iter().filter(|record| is_lost[record.pack as usize] == of_lost) {
                visit(record, segment.packs[record.pack as usize].0);
            }
        }
        Ok(())
    };
    visit(true, &mut |record, _| chunks.extend(half(record)))?;
    let mut copies = HashSet::new();
    visit(false, &mut |record, pack| {
        if half(record).is_some_and(|half| chunks.contains(&half)) {
            copies.insert(pack);
        }
    })?;
    Ok(copies)
}

fn take_inventory(repository: &Repository) -> Result<Inventory> {
    let mut inventory = Inventory::default();
    for prefix in ["packs/", "index/", "manifests/"] {
        repository.store().list(prefix, &mut |listed| {
            let id = listed.name.strip_prefix(prefix).unwrap_or_default();
            let known = match prefix {
                "packs/" => pack::parse_object_name(&listed.name).map(|(pool, id)| {
                    inventory.packs.insert(id, (pool, listed.bytes));
                }),
                "index/" => id.parse().ok().map(|id| {
                    inventory.index.insert(id, listed.bytes);
                }),
                _ => id.parse().ok().map(|id| {
                    inventory.manifests.insert(id, listed.bytes);
                }),
            };
            if known.is_none() {
                inventory.strangers.push(listed.name);
            }
            ControlFlow::Continue(())
        })?;
    }
    Ok(inventory)
}

fn find_garbage(repository: &Repository, state: &State, inventory: &Inventory) -> Result<Garbage> {
    let facts = &state.facts;
    let needed = needed_packs(repository, state)?;
    let known: HashSet<PackId> = facts
        .condemned
        .values()
        .chain(facts.sweeps.values())
        .flat_map(|objects| objects.packs.iter().copied())
        .collect();
    let mut garbage = Garbage::default();
    let mut seen: BTreeMap<SessionId, u64> = facts.sessions.keys().map(|id| (*id, 0)).collect();
    for (id, (pool, bytes)) in &inventory.packs {
        if needed.contains(id) || known.contains(id) {
            continue;
        }
        match session_of(repository, &pack::object_name(*pool, id))? {
            Some(session) if seen.contains_key(&session) => {
                *seen.entry(session).or_default() += 1;
                *garbage.held.entry(session).or_default() += bytes;
            }
            Some(_) => {
                garbage.packs.push(*id);
                garbage.bytes += bytes;
            }
            None => {} // damaged, or not ours: not for us to delete
        }
    }
    // A lost pack that nothing needs any more goes from the index and the log, and what is left of it from the store.
    let found: HashSet<PackId> = garbage.packs.iter().copied().collect();
    let is_done = |id: &PackId| needed.contains(id) || known.contains(id) || found.contains(id);
    garbage.packs.extend(facts.lost.iter().flatten().filter(|id| !is_done(id)));
    // Segments and manifests that nobody has committed may be an open session's: if it commits, its Commit takes them back,
    // and until it has ended nothing of this is swept.
    let outstanding = || facts.condemned.values().chain(facts.sweeps.values());
    let is_known =
        |id: &ObjectId| facts.segments.contains_key(id) || outstanding().any(|o| o.index.contains(id));
    garbage.index = inventory.index.keys().filter(|id| !is_known(id)).copied().collect();
    let is_known =
        |id: &PointId| facts.points.contains_key(id) || outstanding().any(|o| o.manifests.contains(id));
    garbage.manifests = inventory.manifests.keys().filter(|id| !is_known(id)).copied().collect();
    garbage.bytes += garbage.index.iter().filter_map(|id| inventory.index.get(id)).sum::<u64>();
    garbage.bytes += garbage.manifests.iter().filter_map(|id| inventory.manifests.get(id)).sum::<u64>();
    garbage.packs.sort();
    garbage.index.sort();
    garbage.manifests.sort();
    garbage.observed = seen.into_iter().collect();
    Ok(garbage)
}

/// The session that wrote a pack; `None` if the object is not a pack of this repository or cannot be read as one.
fn session_of(repository: &Repository, name: &str) -> Result<Option<SessionId>> {
    let header = match repository.store().read_range(name, 0, HEADER) {
        Ok(bytes) => Header::parse(&bytes, name),
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    Ok(header.ok().filter(|h| h.repository == repository.id()).map(|h| h.session))
}

/// A segment of the index; `None` if it is damaged or lost.
fn read_segment(repository: &Repository, id: &ObjectId) -> Result<Option<Segment>> {
    let bytes = repository.store().read(&index::object_name(id)).map_err(RepositoryError::from);
    match bytes.and_then(|bytes| repository.open_segment(id, &bytes)) {
        Ok(segment) => Ok(Some(segment)),
        Err(error) if error.is_damage() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Segments to condemn because they name packs that are garbage or dead, because they are damaged, or because there are too
/// many, and the merged ones that take their place (stored already).
fn rewrite_index(
    repository: &Repository,
    state: &State,
    garbage: &Garbage,
) -> Result<(Vec<ObjectId>, Vec<ObjectId>)> {
    let unwanted: HashSet<PackId> =
        garbage.packs.iter().chain(state.facts.dead.values().flatten()).copied().collect();
    let live: BTreeSet<ObjectId> = state.live_index().copied().collect();
    let merge_all = live.len() > LIVE_SEGMENTS_BEFORE_MERGE;
    if unwanted.is_empty() && !merge_all && !has_unnamed(repository, state, &live)? {
        return Ok((Vec::new(), Vec::new()));
    }
    let mut replaced = Vec::new();
    let mut damaged = Vec::new();
    let mut named = HashSet::new();
    let mut merged = Merged { repository, segment: Segment::default(), stored: Vec::new() };
    for id in live {
        let Some(segment) = read_segment(repository, &id)? else {
            damaged.push(id);
            continue;
        };
        named.extend(segment.packs.iter().map(|(pack, _)| *pack));
        if !merge_all && !segment.packs.iter().any(|(pack, _)| unwanted.contains(pack)) {
            continue;
        }
        replaced.push(id);
        merged.add(segment, &unwanted)?;
    }
    // What live points need and nothing names (a damaged segment may have named anything, and a point that was taken back
    // names only its packs) is found by looking into the packs.
    let lost = state.facts.lost.clone().unwrap_or_default();
    let mut unnamed: Vec<_> = needed_packs(repository, state)?.difference(&named).copied().collect();
    unnamed.retain(|pack| !lost.contains(pack));
    unnamed.sort();
    for packs in unnamed.chunks(crate::salvage::PACKS_AT_ONCE) {
        merged.add(crate::salvage::segment_of(repository, packs)?, &unwanted)?;
    }
    replaced.extend(damaged);
    Ok((replaced, merged.finish()?))
}

/// Whether a point that was taken back needs packs that no segment names.
fn has_unnamed(repository: &Repository, state: &State, live: &BTreeSet<ObjectId>) -> Result<bool> {
    let taken_back: Vec<_> =
        state.facts.points.iter().filter(|(_, point)| point.index.is_empty()).map(|(id, _)| id).collect();
    if taken_back.is_empty() {
        return Ok(false);
    }
    let (view, _, _) = repository.strict_view(live, HashSet::new())?;
    for id in taken_back {
        let reach = reach_of(repository, id)?;
        let is_lost = |pack| state.facts.lost.as_ref().is_some_and(|lost| lost.contains(pack));
        if reach.packs.iter().any(|pack| !view.has_pack(pack) && !is_lost(pack)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Gathers segments into larger ones, and stores each that is large enough.
struct Merged<'r> {
    repository: &'r Repository,
    segment: Segment,
    stored: Vec<ObjectId>,
}

impl Merged<'_> {
    fn add(&mut self, segment: Segment, unwanted: &HashSet<PackId>) -> Result<()> {
        append_without(&mut self.segment, segment, unwanted);
        if self.segment.records.len() >= MERGED_RECORDS { self.store() } else { Ok(()) }
    }

    fn store(&mut self) -> Result<()> {
        self.stored.push(store_segment(self.repository, std::mem::take(&mut self.segment))?);
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<ObjectId>> {
        if !self.segment.records.is_empty() {
            self.store()?;
        }
        Ok(self.stored)
    }
}

/// Records of a merged segment: about 24 MB of them in memory at a time.
const MERGED_RECORDS: usize = 500_000;

fn append_without(merged: &mut Segment, segment: Segment, unwanted: &HashSet<PackId>) {
    let numbers: Vec<Option<u32>> = segment
        .packs
        .iter()
        .map(|(id, pool)| {
            (!unwanted.contains(id)).then(|| {
                merged.packs.push((*id, *pool));
                merged.packs.len() as u32 - 1
            })
        })
        .collect();
    merged.records.extend(
        segment.records.into_iter().filter_map(|r| numbers[r.pack as usize].map(|pack| Record { pack, ..r })),
    );
}

fn store_segment(repository: &Repository, mut segment: Segment) -> Result<ObjectId> {
    segment.sort();
    let domain = repository.keyring().current().domain_id();
    let (id, bytes) = seal_segment(&segment, domain, &repository.writer());
    create_settled(&**repository.store(), &index::object_name(&id), &bytes)?;
    Ok(id)
}
