//! Checking what is stored, at three depths. Nothing is changed.
//!
//! *Objects*: everything that the recovery points need is there, in its full size. *Packs*: and its bytes are those that its name promises (no
//! key needed, so a copy can scrub itself). *Data*: and every chunk can be opened, decompressed and hashes to its id, and every
//! stream leads only to chunks that are there. At each depth the signed proofs that the log names are looked at as well: a lost one
//! harms no point, and is no proof any more. Whether a restore works is a question for `operations::verify`.

mod elsewhere;
mod lacking;
mod packs;
mod walk;
mod written;

pub use elsewhere::{Harm, known_harm};
pub use lacking::{Lacking, lacking};
pub use packs::whole_packs;
pub(crate) use packs::{not_there, of_no_kind, packs_are_there};
pub use written::check_written;

use crate::{
    error::{RepositoryError, Result},
    index::{Found, View, object_name as index_name},
    log::Facts,
    manifest, proof,
    reader::Reader,
    repository::Repository,
};
use mainstay_domain::{ChunkId, Failure, Kind, Monitor, ObjectId, PackId, PointId};
use packs::check_packs;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use walk::Walk;

/// How much is looked at. Each depth includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    Objects,
    Packs,
    Data,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The object's name in the store, or what else is wrong.
    pub object: String,
    pub problem: String,
    /// The pack, if the object is one.
    pub pack: Option<PackId>,
    /// The recovery points that need it. None of an index segment whose packs are all named by others as well.
    pub points: Vec<PointId>,
}

#[derive(Debug, Clone, Default)]
pub struct Report {
    pub points: usize,
    pub objects: usize,
    pub bytes: u64,
    pub findings: Vec<Finding>,
    /// Packs that are missing or damaged and harm no point: everything that is needed of them lies elsewhere as well.
    pub made_good: BTreeSet<PackId>,
    /// Where too much was written to read all of it back: how much was.
    pub sample: Option<Sample>,
    /// Points that were given up while they were looked at: nothing is said about them.
    pub gone: BTreeSet<PointId>,
}

/// Packs that were read, of those that were to be; the others were only looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    pub read: usize,
    pub of: usize,
}

impl Report {
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    /// The packs that were found missing or damaged, but for those that are made good.
    pub fn lost_packs(&self) -> BTreeSet<PackId> {
        self.findings.iter().filter_map(|finding| finding.pack).collect()
    }
}

/// Checks the given recovery points, reading with `threads` threads.
pub fn check(
    repository: &Repository,
    points: &[PointId],
    depth: Depth,
    threads: usize,
    monitor: &dyn Monitor,
) -> Result<Report> {
    let mut report = Report { points: points.len(), ..Report::default() };
    let before = repository.state()?.facts;
    // In the order in which they were made, neighbours need the same packs.
    let mut points = points.to_vec();
    points.sort_by_key(|id| (before.points.get(id).map(|live| live.committed_at), *id));
    let mut needs = Needs::default();
    let mut damaged = HashSet::new();
    for (number, id) in (0..).zip(&points) {
        go_on(monitor)?;
        report.objects += 1;
        match repository.manifest(id) {
            Ok(manifest) => manifest.reach.packs.iter().for_each(|pack| add_need(&mut needs, *pack, number)),
            Err(error) if error.is_damage() => {
                report.findings.push(finding(manifest::object_name(id), &error, &[*id]));
                damaged.insert(*id);
            }
            Err(error) => return Err(error),
        }
    }
    check_index(repository, &needs, &points, monitor, &mut report)?;
    check_packs(repository, &needs, &points, depth, threads, monitor, &mut report)?;
    elsewhere::weigh(repository, &needs, &points, depth, monitor, &mut report)?;
    if depth == Depth::Data {
        let broken = report.lost_packs();
        let (view, cache) = repository.view(&repository.live_index()?, HashSet::new())?;
        let reader = Reader::new(repository, view.clone());
        for id in points.iter().filter(|id| !damaged.contains(*id)) {
            let walk = || {
                let manifest = repository.manifest(id)?;
                let reach = &manifest.reach.packs;
                // A point that was taken back has packs that no segment names yet.
                crate::salvage::index_from_reach(repository, &view, &cache, reach)?;
                let mut visit = |chunk: &ChunkId| is_there(&view, chunk, reach, &broken);
                Walk::new(&reader, monitor, &mut visit).point(&manifest)
            };
            match walk() {
                Ok(_) => {}
                Err(error) if error.is_damage() => {
                    report.findings.push(finding(manifest::object_name(id), &error, &[*id]))
                }
                Err(error) => return Err(error),
            }
        }
    }
    check_proofs(repository, &before, &points, monitor, &mut report)?;
    forget_what_went(repository, &before, &mut report)?;
    Ok(report)
}

/// The log says that a proof was made; the signed report says what was found. The findings name no point: what a point needs to
/// come back is all there without it.
fn check_proofs(
    repository: &Repository,
    facts: &Facts,
    points: &[PointId],
    monitor: &dyn Monitor,
    report: &mut Report,
) -> Result<()> {
    let live = points.iter().filter_map(|id| facts.points.get(id));
    let proofs = live.flat_map(|point| point.proofs.values().chain(point.passed.values()));
    // Looks short of a restore have no report.
    let names: BTreeSet<&str> = proofs.map(|proof| &*proof.report).filter(|name| !name.is_empty()).collect();
    for name in names {
        go_on(monitor)?;
        report.objects += 1;
        match proof::check(repository, name) {
            Ok(()) => {}
            Err(error) if error.is_damage() => report.findings.push(finding(name.to_owned(), &error, &[])),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// For each pack the points that need it, as runs of their numbers: neighbours mostly need the same packs, and memory must not
/// grow with points times packs.
type Needs = BTreeMap<PackId, Vec<(u32, u32)>>;

fn add_need(needs: &mut Needs, pack: PackId, point: u32) {
    let runs = needs.entry(pack).or_default();
    match runs.last_mut() {
        Some((_, last)) if *last == point || *last + 1 == point => *last = point,
        _ => runs.push((point, point)),
    }
}

fn points_of(runs: &[(u32, u32)], points: &[PointId]) -> impl Iterator<Item = PointId> {
    runs.iter().flat_map(|(first, last)| &points[*first as usize..=*last as usize]).copied()
}

/// A collection at the same time may have given up points, and deleted what only they needed. Whatever is missing then is
/// no damage.
fn forget_what_went(repository: &Repository, before: &Facts, report: &mut Report) -> Result<()> {
    let now = repository.refreshed_state()?.facts;
    report.gone = before.points.keys().filter(|id| !now.points.contains_key(id)).copied().collect();
    let segments: BTreeSet<String> =
        before.segments.keys().filter(|id| !now.segments.contains_key(id)).map(index_name).collect();
    let gone = &report.gone;
    report.findings.retain_mut(|finding| {
        let was_needed = !finding.points.is_empty();
        finding.points.retain(|id| !gone.contains(id));
        let is_over = was_needed && finding.points.is_empty();
        !(is_over || segments.contains(&finding.object))
    });
    Ok(())
}

/// A damaged segment may have named anything, and concerns the points that need a pack which no other names: until the index is
/// rewritten they are found by looking into their packs.
fn check_index(
    repository: &Repository,
    needs: &Needs,
    points: &[PointId],
    monitor: &dyn Monitor,
    report: &mut Report,
) -> Result<()> {
    let before = report.findings.len();
    let mut named = HashSet::new();
    for id in &repository.live_index()? {
        go_on(monitor)?;
        named.extend(check_segment(repository, id, &[], report)?);
    }
    let damaged = &mut report.findings[before..];
    if damaged.is_empty() {
        return Ok(());
    }
    let unnamed = needs.iter().filter(|(pack, _)| !named.contains(*pack));
    let concerned: BTreeSet<PointId> = unnamed.flat_map(|(_, runs)| points_of(runs, points)).collect();
    for finding in damaged {
        finding.points = concerned.iter().copied().collect();
    }
    Ok(())
}

/// Checks a segment, and returns the packs that it names: none if it is damaged.
fn check_segment(
    repository: &Repository,
    id: &ObjectId,
    points: &[PointId],
    report: &mut Report,
) -> Result<Vec<PackId>> {
    report.objects += 1;
    let name = index_name(id);
    let bytes = repository.store().read(&name).map_err(RepositoryError::from);
    match bytes.and_then(|bytes| repository.open_segment(id, &bytes)) {
        Ok(segment) => Ok(segment.packs.into_iter().map(|(pack, _)| pack).collect()),
        Err(error) if error.is_damage() => {
            report.findings.push(finding(name, &error, points));
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

/// An error once the user wants to stop: half a check must not pass for a whole one.
fn go_on(monitor: &dyn Monitor) -> Result<()> {
    if monitor.cancelled() {
        let stopped = "the check was stopped before it had seen everything";
        return Err(Failure::new(Kind::Cancelled, stopped).into());
    }
    Ok(())
}

fn finding(object: String, error: &RepositoryError, points: &[PointId]) -> Finding {
    Finding { object, problem: error.to_string(), pack: None, points: points.to_vec() }
}

/// Whether the chunk can be read; an error if it is nowhere, or in a pack that the point does not hold on to. `broken`: packs
/// that are reported already, once and not again for each chunk.
fn is_there(view: &View, chunk: &ChunkId, reach: &[PackId], broken: &BTreeSet<PackId>) -> Result<bool> {
    let Found { pack, .. } = view.find(chunk)?.ok_or(RepositoryError::MissingChunk(*chunk))?;
    let (pack, _) = view.pack(pack);
    if reach.binary_search(&pack).is_err() {
        let held = view.places(chunk)?.iter().any(|place| reach.binary_search(&place.pack).is_ok());
        if !held {
            return Err(RepositoryError::damaged(
                format!("chunk {}", chunk.short()),
                "its pack is not among those that the point keeps",
            ));
        }
    }
    Ok(!broken.contains(&pack))
}
