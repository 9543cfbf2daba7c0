//! Writing the index anew: without what is garbage or dead, whole again where segments are damaged, and in fewer objects.

use super::garbage::{Garbage, needed_packs, reach_of};
use crate::{
    error::{RepositoryError, Result},
    index::{self, LIVE_SEGMENTS_BEFORE_MERGE, Record, Segment, seal_segment},
    log::State,
    repository::Repository,
    session::create_settled,
};
use mainstay_domain::{ObjectId, PackId};
use std::collections::{BTreeSet, HashSet};

/// A segment of the index; `None` if it is damaged or lost.
pub(super) fn read_segment(repository: &Repository, id: &ObjectId) -> Result<Option<Segment>> {
    let bytes = repository.store().read(&index::object_name(id)).map_err(RepositoryError::from);
    match bytes.and_then(|bytes| repository.open_segment(id, &bytes)) {
        Ok(segment) => Ok(Some(segment)),
        Err(error) if error.is_damage() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Segments to condemn because they name packs that are garbage or dead, because they are damaged, or because there are too
/// many, and the merged ones that take their place (stored already).
pub(super) fn rewrite_index(
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
