//! Checking what is stored, at three depths. Nothing is changed.
//!
//! *Objects*: everything that the recovery points need is there, in its full size. *Packs*: and its bytes are those that its name promises (no
//! key needed, so a copy can scrub itself). *Data*: and every chunk can be opened, decompressed and hashes to its id, and every
//! stream leads only to chunks that are there. Whether a restore works is a question for `operations::verify`.

use crate::{
    error::{RepositoryError, Result},
    index::{Found, object_name as index_name},
    log::Facts,
    manifest::{self, Manifest},
    pack::{self, Blob, HEADER, Opened, chunk_id},
    reader::Reader,
    repository::Repository,
    session::Committed,
};
use mainstay_domain::{
    ChunkId, Failure, Kind, Monitor, ObjectId, PackId, PointId,
    listing::{Item, decode_items},
    point::SourceRecord,
    stream::{Content, Pool, Vault},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

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
    /// The recovery points that need it. None of an index segment whose packs are all named by others as well.
    pub points: Vec<PointId>,
}

#[derive(Debug, Clone, Default)]
pub struct Report {
    pub points: usize,
    pub objects: usize,
    pub bytes: u64,
    pub findings: Vec<Finding>,
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

    /// The packs that were found missing or damaged.
    pub fn lost_packs(&self) -> BTreeSet<PackId> {
        let packs = self.findings.iter().filter_map(|f| pack::parse_object_name(&f.object));
        packs.map(|(_, id)| id).collect()
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
                Walk { reader: &reader, monitor, seen: HashSet::new(), broken: &broken, reach }
                    .point(&manifest)
            };
            match walk() {
                Ok(()) => {}
                Err(error) if error.is_damage() => {
                    report.findings.push(finding(manifest::object_name(id), &error, &[*id]))
                }
                Err(error) => return Err(error),
            }
        }
    }
    forget_what_went(repository, &before, &mut report)?;
    Ok(report)
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

/// Those of the packs that are there and whole.
pub fn whole_packs(
    repository: &Repository,
    packs: impl IntoIterator<Item = PackId>,
    monitor: &dyn Monitor,
) -> Result<BTreeSet<PackId>> {
    let mut whole = BTreeSet::new();
    for pack in packs {
        go_on(monitor)?;
        match check_pack(repository, &pack, Depth::Packs) {
            Ok(_) => drop(whole.insert(pack)),
            Err((_, error)) if error.is_damage() => {}
            Err((_, error)) => return Err(error),
        }
    }
    Ok(whole)
}

/// An error that names the first of the packs that is not there.
pub(crate) fn packs_are_there(repository: &Repository, packs: &[PackId]) -> Result<()> {
    packs.iter().try_for_each(|pack| locate(repository, pack).map(drop).map_err(|(_, error)| error))
}

/// Whether what a session has committed is there and whole.
///
/// The packs that it wrote are read at the depth asked for; of more than `limit` bytes only a random sample, which has all
/// trees, and the first and the last pack of data. All others that the point needs are looked for.
pub fn check_written(
    repository: &Repository,
    committed: &Committed,
    depth: Depth,
    limit: u64,
    threads: usize,
    monitor: &dyn Monitor,
) -> Result<Report> {
    let point = committed.point;
    let mut report = Report { points: 1, objects: 1, ..Report::default() };
    let manifest = match repository.manifest(&point) {
        Ok(manifest) => manifest,
        Err(error) if error.is_damage() => {
            report.findings.push(finding(manifest::object_name(&point), &error, &[point]));
            return Ok(report);
        }
        Err(error) => return Err(error),
    };
    let written = &committed.written.packs;
    let chosen = match committed.stored_bytes > limit && depth > Depth::Objects {
        false => written.iter().map(|(id, _)| *id).collect(),
        true => {
            // Packs are about equally large.
            let room =
                (written.len() as u128 * u128::from(limit) / u128::from(committed.stored_bytes)) as usize;
            let chosen = sample(written, room, &mut |below| {
                (u64::from_le_bytes(mainstay_keys::random()) % below as u64) as usize
            });
            report.sample = Some(Sample { read: chosen.len(), of: written.len() });
            chosen
        }
    };
    let (new, old): (Vec<_>, Vec<_>) = manifest.reach.packs.iter().partition(|pack| chosen.contains(*pack));
    let needs = |packs: Vec<&PackId>| packs.into_iter().map(|pack| (*pack, vec![(0, 0)])).collect();
    check_packs(repository, &needs(new), &[point], depth, threads, monitor, &mut report)?;
    check_packs(repository, &needs(old), &[point], Depth::Objects, threads, monitor, &mut report)?;
    for id in &committed.written.index {
        check_segment(repository, id, &[point], &mut report)?;
    }
    let facts = repository.refreshed_state()?.facts;
    // A collection may have replaced a segment already, and deleted it.
    let replaced =
        committed.written.index.iter().filter(|id| !facts.segments.contains_key(id)).map(index_name);
    let replaced: Vec<_> = replaced.collect();
    report.findings.retain(|finding| !replaced.contains(&finding.object));
    // What was found lost after this session had begun, it may have relied on, and it may lie there in its full size.
    for pack in facts.lost.iter().flatten() {
        let name = locate(repository, pack).map_or_else(|(name, _)| name, |(name, ..)| name);
        if manifest.reach.packs.binary_search(pack).is_ok()
            && !report.findings.iter().any(|finding| finding.object == name)
        {
            let known = RepositoryError::damaged(&name, "it was found to be lost");
            report.findings.push(finding(name, &known, &[point]));
        }
    }
    Ok(report)
}

/// All trees, the first and the last pack of data, and others at random until there are `room`. `random` gives a number below
/// its argument.
fn sample(packs: &[(PackId, Pool)], room: usize, random: &mut dyn FnMut(usize) -> usize) -> BTreeSet<PackId> {
    let of = |pool| packs.iter().filter(move |(_, p)| *p == pool).map(|(id, _)| *id);
    let mut chosen: BTreeSet<PackId> = of(Pool::Tree).collect();
    let mut data: Vec<PackId> = of(Pool::Data).collect();
    chosen.extend(data.first().into_iter().chain(data.last()));
    while chosen.len() < room && !data.is_empty() {
        chosen.insert(data.swap_remove(random(data.len())));
    }
    chosen
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

fn check_packs(
    repository: &Repository,
    needs: &Needs,
    points: &[PointId],
    depth: Depth,
    threads: usize,
    monitor: &dyn Monitor,
    report: &mut Report,
) -> Result<()> {
    let packs: Vec<_> = needs.iter().collect();
    let named = |runs: &[(u32, u32)]| -> Vec<PointId> { points_of(runs, points).collect() };
    let next = AtomicUsize::new(0);
    let outcome = Mutex::new((std::mem::take(report), Ok(())));
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, packs.len().max(1)) {
            scope.spawn(|| {
                while let Some((pack, runs)) = packs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let checked = go_on(monitor).map(|()| check_pack(repository, pack, depth));
                    let mut outcome = outcome.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                    let checked = match checked {
                        Ok(checked) => checked,
                        Err(stopped) => {
                            outcome.1 = Err(stopped);
                            return;
                        }
                    };
                    outcome.0.objects += 1;
                    match checked {
                        Ok(bytes) => {
                            outcome.0.bytes += bytes;
                            monitor.advance(1, bytes);
                        }
                        Err((name, error)) if error.is_damage() => {
                            outcome.0.findings.push(finding(name, &error, &named(runs)))
                        }
                        Err((_, error)) => {
                            outcome.1 = Err(error);
                            return;
                        }
                    }
                }
            });
        }
    });
    let (found, result) = outcome.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    *report = found;
    report.findings.sort_by(|a, b| a.object.cmp(&b.object));
    result
}

/// An error once the user wants to stop: half a check must not pass for a whole one.
fn go_on(monitor: &dyn Monitor) -> Result<()> {
    if monitor.cancelled() {
        let stopped = "the check was stopped before it had seen everything";
        return Err(Failure::new(Kind::Cancelled, stopped).into());
    }
    Ok(())
}

/// Checks one pack and returns the bytes read.
fn check_pack(repository: &Repository, id: &PackId, depth: Depth) -> Result<u64, (String, RepositoryError)> {
    let (name, pool, size) = locate(repository, id)?;
    let within = |error| (name.clone(), error);
    if depth == Depth::Objects {
        // Its last bytes are its table of contents, which opens: so it is as long as it was.
        crate::salvage::contents(repository, pool, id, size).map_err(within)?;
        return Ok(size);
    }
    let bytes = repository.store().read(&name).map_err(|error| within(error.into()))?;
    if blake3::hash(&bytes).as_bytes() != &id.0 {
        return Err(within(RepositoryError::damaged(&name, "its bytes are not those its name promises")));
    }
    if depth == Depth::Data {
        check_blobs(repository, &name, &bytes).map_err(within)?;
    }
    Ok(bytes.len() as u64)
}

/// The pack's object name, whichever pool it is in.
fn locate(repository: &Repository, id: &PackId) -> Result<(String, Pool, u64), (String, RepositoryError)> {
    for pool in [Pool::Data, Pool::Tree] {
        let name = pack::object_name(pool, id);
        match repository.store().stat(&name) {
            Ok(Some(size)) => return Ok((name, pool, size)),
            Ok(None) => {}
            Err(error) => return Err((name, error.into())),
        }
    }
    let name = pack::object_name(Pool::Data, id);
    Err((name.clone(), RepositoryError::damaged(name, "it is not there")))
}

fn check_blobs(repository: &Repository, name: &str, bytes: &[u8]) -> Result<()> {
    let header = bytes.get(..HEADER).ok_or_else(|| RepositoryError::damaged(name, "it is too short"))?;
    let opened = Opened::open(header, &repository.id(), repository.keyring(), name)?;
    let key = repository.keyring().current().chunk_id_key();
    let mut reader = opened.reader();
    for blob in contents(&opened, bytes, name)? {
        let sealed = bytes
            .get(blob.offset as usize..)
            .and_then(|rest| rest.get(..blob.length as usize))
            .ok_or_else(|| RepositoryError::damaged(name, "a chunk lies outside of it"))?;
        if chunk_id(&key, reader.decode(&blob, sealed)?) != blob.chunk {
            return Err(RepositoryError::damaged(name, "a chunk in it is not what its id promises"));
        }
    }
    Ok(())
}

fn contents(opened: &Opened, object: &[u8], name: &str) -> Result<Vec<Blob>> {
    let damaged = || RepositoryError::damaged(name, "its table of contents is not where it should be");
    let (rest, tail) = object.split_last_chunk::<4>().ok_or_else(damaged)?;
    let start = rest
        .len()
        .checked_sub(u32::from_be_bytes(*tail) as usize)
        .filter(|s| *s >= HEADER)
        .ok_or_else(damaged)?;
    opened.contents(rest[start..].to_vec(), name)
}

fn finding(object: String, error: &RepositoryError, points: &[PointId]) -> Finding {
    Finding { object, problem: error.to_string(), points: points.to_vec() }
}

const REMEMBERED_CHUNKS: usize = 500_000;

/// Follows everything that a recovery point refers to.
struct Walk<'a, 'r> {
    reader: &'a Reader<'r>,
    monitor: &'a dyn Monitor,
    seen: HashSet<ChunkId>,
    /// Packs already known to be damaged: reported once, not again for each chunk.
    broken: &'a BTreeSet<PackId>,
    reach: &'a [PackId],
}

impl Walk<'_, '_> {
    fn point(&mut self, manifest: &Manifest) -> Result<()> {
        for source in &manifest.point.sources {
            self.source(source)?;
        }
        Ok(())
    }

    fn source(&mut self, source: &SourceRecord) -> Result<()> {
        for stream in &source.streams {
            let is_listing = stream.is_listing();
            for piece in self.reader.pieces(&stream.content) {
                for chunk in piece?.chunks() {
                    if self.is_there(chunk)? && is_listing {
                        self.listing(chunk)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn listing(&mut self, chunk: &ChunkId) -> Result<()> {
        let bytes = self.reader.get(chunk)?;
        for item in decode_items(&bytes) {
            let item = item.map_err(|_| {
                RepositoryError::damaged(format!("listing chunk {}", chunk.short()), "it is malformed")
            })?;
            if let Item::Entry(entry) = item {
                for content in entry.content.iter().chain(&entry.pages) {
                    self.content(content)?;
                }
            }
        }
        Ok(())
    }

    fn content(&mut self, content: &Content) -> Result<()> {
        for piece in self.reader.pieces(content) {
            for chunk in piece?.chunks() {
                self.is_there(chunk)?;
            }
        }
        Ok(())
    }

    /// Whether the chunk can be read; an error if it is nowhere, or in a pack that the point does not hold on to.
    fn is_there(&mut self, chunk: &ChunkId) -> Result<bool> {
        if !self.seen.insert(*chunk) {
            return Ok(true);
        }
        go_on(self.monitor)?;
        if self.seen.len() > REMEMBERED_CHUNKS {
            self.seen.clear(); // looking twice costs time; remembering all would cost memory without bound
        }
        let view = self.reader.view();
        let Found { pack, .. } = view.find(chunk)?.ok_or(RepositoryError::MissingChunk(*chunk))?;
        let (pack, _) = view.pack(pack);
        if self.reach.binary_search(&pack).is_err() {
            let held = view.places(chunk)?.iter().any(|place| self.reach.binary_search(&place.pack).is_ok());
            if !held {
                return Err(RepositoryError::damaged(
                    format!("chunk {}", chunk.short()),
                    "its pack is not among those that the point keeps",
                ));
            }
        }
        Ok(!self.broken.contains(&pack))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_the_trees_the_ends_and_as_many_others_as_there_is_room_for() {
        let pack = |n: u8, pool| (PackId([n; 32]), pool);
        let mut packs: Vec<_> = (0..100).map(|n| pack(n, Pool::Data)).collect();
        packs.extend((200..203).map(|n| pack(n, Pool::Tree)));
        let mut state = 1u64;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % below
        };
        let mut seen = BTreeSet::new();
        for room in [0, 5, 30, 103, 500] {
            let chosen = sample(&packs, room, &mut random);
            assert_eq!(chosen.len(), room.clamp(5, 103));
            for n in [0, 99, 200, 201, 202] {
                assert!(chosen.contains(&PackId([n; 32])), "{n}");
            }
            assert!(chosen.iter().all(|id| packs.iter().any(|(p, _)| p == id)));
        }
        for _ in 0..100 {
            seen.extend(sample(&packs, 30, &mut random));
        }
        assert_eq!(seen.len(), 103, "each is chosen in the end");
        assert!(sample(&[], 10, &mut random).is_empty());
    }
}
