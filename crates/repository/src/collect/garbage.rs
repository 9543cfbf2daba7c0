//! What lies in the store, what of it live points need, and what is garbage.

use super::rewrite::read_segment;
use crate::{
    error::{RepositoryError, Result},
    index::Record,
    log::State,
    manifest::{self, Reach},
    pack::{self, HEADER, Header},
    repository::Repository,
};
use mainstay_domain::{Failure, ObjectId, PackId, PointId, SessionId, stream::Pool};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::ControlFlow,
};

/// What lies in the store.
#[derive(Default)]
pub(super) struct Inventory {
    pub packs: HashMap<PackId, (Pool, u64)>,
    pub index: HashMap<ObjectId, u64>,
    pub manifests: HashMap<PointId, u64>,
    pub strangers: Vec<String>,
}

/// Packs, segments and manifests that nothing needs.
#[derive(Default)]
pub(super) struct Garbage {
    pub packs: Vec<PackId>,
    pub index: Vec<ObjectId>,
    pub manifests: Vec<PointId>,
    pub observed: Vec<(SessionId, u64)>,
    /// What the packs of open sessions take, which are no garbage yet.
    pub held: BTreeMap<SessionId, u64>,
    pub bytes: u64,
}

/// The packs that live points need. One that cannot be read means that nothing may be deleted.
pub(super) fn needed_packs(repository: &Repository, state: &State) -> Result<HashSet<PackId>> {
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

pub(super) fn reach_of(repository: &Repository, id: &PointId) -> Result<Reach> {
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

pub(super) fn take_inventory(repository: &Repository) -> Result<Inventory> {
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

pub(super) fn find_garbage(repository: &Repository, state: &State, inventory: &Inventory) -> Result<Garbage> {
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
