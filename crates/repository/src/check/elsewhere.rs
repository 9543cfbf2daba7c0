//! What is lost and lies elsewhere as well: a lost pack harms only the points that need a chunk of it which is in no whole pack.
//!
//! A backup stores again what it captures and finds in no pack to be relied on. From then on the older points live on such
//! copies, and are whole. The lost pack stays known as lost nevertheless: by that mark the collector keeps the copies, which stand
//! on no older point's list, and no session relies on the pack (`doc/consistency.md`, *Lost packs*).

use super::{Depth, Needs, Report, go_on, packs, points_of, walk::Walk};
use crate::{error::Result, index::View, log::State, pack, reader::Reader, repository::Repository};
use mainstay_domain::{ChunkId, Monitor, PackId, PointId};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

/// Of each lost pack the points that need something of it which lies nowhere else. A pack that harms no point is not among them.
pub type Harm = BTreeMap<PackId, BTreeSet<PointId>>;

/// What the packs that the log knows as lost do harm to, by the index alone: whether the copies are whole is for [`super::check`]
/// to see. A point whose manifest cannot be read is not among those harmed.
pub fn known_harm(repository: &Repository, state: &State, monitor: &dyn Monitor) -> Result<Harm> {
    let Some(lost) = &state.facts.lost else { return Ok(Harm::new()) };
    let mut needed = Harm::new();
    for id in state.facts.points.keys() {
        go_on(monitor)?;
        match repository.manifest(id) {
            Ok(manifest) => {
                for pack in manifest.reach.packs.iter().filter(|pack| lost.contains(pack)) {
                    needed.entry(*pack).or_default().insert(*id);
                }
            }
            Err(error) if error.is_damage() => {}
            Err(error) => return Err(error),
        }
    }
    if needed.is_empty() {
        return Ok(needed);
    }
    let view = index(repository)?;
    harm(repository, &view, needed, &mut |pack| Ok(!lost.contains(pack)), monitor)
}

/// Takes back what was found of packs whose content lies elsewhere, and names those that are not there by their kind.
pub(super) fn weigh(
    repository: &Repository,
    needs: &Needs,
    points: &[PointId],
    depth: Depth,
    monitor: &dyn Monitor,
    report: &mut Report,
) -> Result<()> {
    let broken = report.lost_packs();
    if broken.is_empty() {
        return Ok(());
    }
    let view = index(repository)?;
    name_by_kind(&view, report);
    let known = repository.state()?.facts.lost.unwrap_or_default();
    let mut looked_at: HashMap<PackId, bool> = HashMap::new();
    let mut is_whole = |pack: &PackId| {
        if broken.contains(pack) || known.contains(pack) {
            return Ok(false);
        }
        if needs.contains_key(pack) {
            return Ok(true); // looked at, and nothing was found
        }
        if let Some(whole) = looked_at.get(pack) {
            return Ok(*whole);
        }
        let whole = match packs::check_pack(repository, pack, depth) {
            Ok(_) => true,
            Err((_, error)) if error.is_damage() => false,
            Err((_, error)) => return Err(error),
        };
        looked_at.insert(*pack, whole);
        Ok(whole)
    };
    let needed = broken.iter().map(|pack| {
        (*pack, needs.get(pack).map(|runs| points_of(runs, points).collect()).unwrap_or_default())
    });
    let harm = harm(repository, &view, needed.collect(), &mut is_whole, monitor)?;
    report.findings.retain_mut(|finding| match &finding.pack {
        None => true,
        Some(pack) => match harm.get(pack) {
            Some(points) => {
                finding.points.retain(|id| points.contains(id));
                true
            }
            None => {
                report.made_good.insert(*pack);
                false
            }
        },
    });
    Ok(())
}

/// Names each pack that is not there by the place where it was, if the index knows of what kind it is.
pub(super) fn name_missing(repository: &Repository, report: &mut Report) -> Result<()> {
    if report.lost_packs().is_empty() {
        return Ok(());
    }
    name_by_kind(&*index(repository)?, report);
    Ok(())
}

fn name_by_kind(view: &View, report: &mut Report) {
    for finding in &mut report.findings {
        if let Some(pack) = finding.pack.filter(|pack| finding.object == packs::of_no_kind(pack))
            && let Some(pool) = view.pool_of(&pack)
        {
            finding.object = pack::object_name(pool, &pack);
            finding.problem = packs::not_there(&finding.object).to_string();
        }
    }
}

/// The segments that can be read and nothing else: a copy that no segment names is kept by nobody. Nor is one in a pack that was
/// swept, which a segment may name still.
fn index(repository: &Repository) -> Result<Arc<View>> {
    let swept: HashSet<PackId> = repository.state()?.facts.dead.into_values().flatten().collect();
    let (view, ..) = repository.strict_view(&repository.live_index()?, swept)?;
    Ok(Arc::new(view))
}

/// More chunks that lie nowhere else than are worth weighing one by one.
const MOST_ALONE: usize = 500_000;

/// Half an id: it may take one chunk for another, and then a point is called damaged that is not.
fn half(chunk: &ChunkId) -> [u8; 16] {
    *chunk.0.first_chunk().expect("an id is longer than its half")
}

/// `needed`: the lost packs, each with the points that need it. `is_whole`: whether another pack can be read.
fn harm(
    repository: &Repository,
    view: &Arc<View>,
    needed: Harm,
    is_whole: &mut dyn FnMut(&PackId) -> Result<bool>,
    monitor: &dyn Monitor,
) -> Result<Harm> {
    // Chunks that lie in lost packs and nowhere else.
    let mut alone: HashMap<[u8; 16], BTreeSet<PackId>> = HashMap::new();
    view.for_each(&mut |pack, _, blob| {
        go_on(monitor)?;
        if !needed.contains_key(&pack) || alone.len() > MOST_ALONE {
            return Ok(());
        }
        for place in view.places(&blob.chunk)? {
            if !needed.contains_key(&place.pack) && is_whole(&place.pack)? {
                return Ok(());
            }
        }
        alone.entry(half(&blob.chunk)).or_default().insert(pack);
        Ok(())
    })?;
    if alone.len() > MOST_ALONE {
        return Ok(needed);
    }
    // What lay in a pack that no segment names cannot be known.
    let lacking: HashSet<PackId> = alone.values().flatten().copied().collect();
    let mut suspects: BTreeMap<PointId, Vec<PackId>> = BTreeMap::new();
    for (pack, points) in needed.iter().filter(|(pack, _)| !view.has_pack(pack) || lacking.contains(pack)) {
        for point in points {
            suspects.entry(*point).or_default().push(*pack);
        }
    }
    let mut harm = Harm::new();
    let reader = Reader::new(repository, view.clone());
    for (point, of_point) in suspects {
        go_on(monitor)?;
        let mut met = BTreeSet::new();
        let mut visit = |chunk: &ChunkId| {
            let packs = alone.get(&half(chunk));
            met.extend(packs.into_iter().flatten());
            Ok(packs.is_none())
        };
        let is_known = of_point.iter().all(|pack| view.has_pack(pack));
        let manifest = repository.manifest(&point)?;
        match Walk::new(&reader, monitor, &mut visit).point(&manifest) {
            Ok(true) if is_known => {}
            Ok(_) => met = of_point.into_iter().collect(),
            Err(error) if error.is_damage() => met = of_point.into_iter().collect(),
            Err(error) => return Err(error),
        }
        for pack in met {
            harm.entry(pack).or_default().insert(point);
        }
    }
    Ok(harm)
}
