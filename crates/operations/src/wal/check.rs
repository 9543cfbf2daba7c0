//! What is wrong with the archived log: segments that are missing or damaged, fragments, histories; and what cannot be reached for it.
//!
//! Judged is what a replay from a live base backup would read, and nothing else: what none needs goes with the next `prune`. Gaps are found
//! by the listing alone; damage by reading, opening and hashing every file. A base backup is whole without the archive: it harms no
//! recovery point, and the way from it to later moments.

use super::{Holdings, each::each};
use crate::{
    pitr::{Break, follow, is_whole_in_record},
    points::PointInfo,
};
use mainstay_domain::{
    Failure, Kind, Lsn, Monitor, PointId, Result, Silent, Time,
    point::State,
    wal::{Segment, WalFile},
};
use mainstay_repository::{Repository, wal::Archived};
use mainstay_sources::postgres::cluster::{ClusterFacts, KIND};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// How much of a timeline's missing segments is told one by one.
const TOLD: usize = 20;

/// What a look at the archived log found.
#[derive(Debug, Default)]
pub struct Report {
    pub files: usize,
    pub bytes: u64,
    pub broken: Vec<Broken>,
    /// Of so many files only some were read.
    pub sampled_of: Option<usize>,
}

/// A place at which the archived log breaks off.
#[derive(Debug, Clone)]
pub struct Broken {
    pub system: u64,
    pub file: WalFile,
    /// It is there and cannot be read.
    pub damaged: bool,
    pub why: String,
    /// What a restore can reach before it: a position, and the last transaction.
    pub up_to: Option<(Lsn, Option<Time>)>,
    /// The base backup from which later moments can be reached.
    pub next: Option<(PointId, Time)>,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "timeline {} of cluster {}: {}", self.file.timeline(), self.system, self.why)?;
        if let Some((lsn, time)) = self.up_to {
            write!(f, ". Recovery along this timeline ends at {lsn}")?;
            if let Some(time) = time {
                write!(f, ", after the last transaction of {time}")?;
            }
            match self.next {
                Some((point, time)) => {
                    write!(f, "; from base backup {} of {time} on it goes again", point.short())?;
                }
                None => write!(f, "; no base backup was made since: make one now")?,
            }
        }
        if self.damaged && !matches!(self.file, WalFile::Fragment(..)) {
            write!(
                f,
                ". If the server still has {} in pg_wal: `mainstay wal push --replace-damaged PATH`",
                self.file
            )?;
        }
        Ok(())
    }
}

impl Broken {
    /// A gap that a base backup was made after: from that one on it goes again.
    pub fn is_closed(&self) -> bool {
        !self.damaged && self.next.is_some()
    }
}

/// A base backup: its point, when it ended, and where in the log.
pub type Base = (PointId, Time, ClusterFacts);

/// Base backups of one cluster, oldest first.
pub struct Bases(pub(super) Vec<Base>);

/// The base backups among these points, by cluster. One whose manifest cannot be read is told of elsewhere.
pub fn bases_of(repository: &Repository, points: &[PointInfo]) -> Result<BTreeMap<u64, Bases>> {
    let mut bases: BTreeMap<u64, Bases> = BTreeMap::new();
    let is_base = |kind: &str, state: State| kind == KIND && state != State::Failed;
    for point in points {
        if !point.summary.sources.iter().any(|source| is_base(&source.kind, source.state)) {
            continue;
        }
        let manifest = match repository.manifest(&point.id) {
            Ok(manifest) => manifest,
            Err(error) if error.is_damage() => continue,
            Err(error) => return Err(error.into()),
        };
        for record in manifest.point.sources.iter().filter(|record| is_base(&record.kind, record.state)) {
            let facts = ClusterFacts::from_json(&record.facts)?;
            let at = record.consistent_at.unwrap_or(record.finished);
            bases.entry(facts.system).or_insert_with(|| Bases(Vec::new())).0.push((point.id, at, facts));
        }
    }
    Ok(bases)
}

impl Bases {
    /// Whether a replay from one of them would read a segment of the archive.
    fn need(&self, holdings: &Holdings<'_>, segment: Segment) -> bool {
        let size = holdings.segment_size;
        let ancestry = holdings.ancestry(segment.timeline);
        self.0.iter().any(|(.., facts)| {
            let first = Segment::holding(facts.timeline, facts.start, size).number(size);
            ancestry.includes(facts.timeline, facts.stop)
                && first <= segment.number(size)
                && !is_whole_in_record(facts, segment)
        })
    }

    /// The first one from which moments after a segment can be reached on its timeline.
    fn beyond(&self, holdings: &Holdings<'_>, segment: Segment) -> Option<(PointId, Time)> {
        let size = holdings.segment_size;
        let later = |facts: &ClusterFacts| {
            facts.start >= segment.end(size)
                || facts.timeline == segment.timeline && is_whole_in_record(facts, segment)
        };
        let found = self.0.iter().find(|(.., facts)| later(facts));
        found.map(|(point, at, _)| (*point, *at))
    }
}

/// Looks at the log that these points' base backups need: for gaps, and with `reading` for damage.
pub fn check(
    repository: &Repository,
    points: &[PointInfo],
    reading: bool,
    monitor: &dyn Monitor,
) -> Result<Report> {
    let mut report = Report::default();
    for (system, bases) in bases_of(repository, points)? {
        let holdings = Holdings::read_in_part(repository, system)?;
        report.files += holdings.files().len();
        report.broken.extend(gaps(&holdings, &bases)?);
        if reading {
            let wanted = needed(&holdings, &bases);
            read(&holdings, &bases, &wanted, &mut report, monitor)?;
        }
    }
    report.broken.sort_by(|a, b| (a.system, &a.file).cmp(&(b.system, &b.file)));
    Ok(report)
}

/// Looks at what was archived since the base backup before `point`: what no earlier look has seen. Of more than `limit` bytes reads files
/// here and there.
pub fn check_since(
    repository: &Repository,
    points: &[PointInfo],
    point: PointId,
    limit: u64,
    monitor: &dyn Monitor,
) -> Result<Report> {
    let mut report = Report::default();
    for (system, bases) in bases_of(repository, points)? {
        let Some(at) = bases.0.iter().position(|(id, ..)| *id == point) else { continue };
        let since = &bases.0[at.saturating_sub(1)].2;
        let holdings = Holdings::read_in_part(repository, system)?;
        let size = holdings.segment_size;
        let first = Segment::holding(since.timeline, since.start, size).number(size);
        let later = |file: &WalFile| segment_of(file).is_none_or(|segment| segment.number(size) >= first);
        let all: Vec<Archived> =
            needed(&holdings, &bases).into_iter().filter(|file| later(&file.file)).collect();
        let bytes: u64 = all.iter().map(|file| file.stored_bytes).sum();
        let wanted: Vec<Archived> = match bytes > limit {
            false => all,
            true => {
                let step = bytes.div_ceil(limit.max(1)) as usize;
                let begin = usize::from(point.0[0]) % step;
                report.sampled_of = Some(all.len());
                all.into_iter().skip(begin).step_by(step).collect()
            }
        };
        report.files += wanted.len();
        let found = gaps(&holdings, &bases)?;
        report.broken.extend(found.into_iter().filter(|broken| later(&broken.file)));
        read(&holdings, &bases, &wanted, &mut report, monitor)?;
    }
    Ok(report)
}

fn segment_of(file: &WalFile) -> Option<Segment> {
    match file {
        WalFile::Segment(segment) | WalFile::Fragment(segment, _) => Some(*segment),
        WalFile::Partial(_) | WalFile::Backup(..) | WalFile::History(_) => None,
    }
}

/// The files that a replay may read: one of each name, and of the fragments of a segment one.
fn needed(holdings: &Holdings<'_>, bases: &Bases) -> Vec<Archived> {
    let mut seen = BTreeSet::new();
    let is_needed = |archived: &&Archived| match &archived.file {
        WalFile::Segment(segment) => bases.need(holdings, *segment),
        WalFile::Fragment(segment, _) => !holdings.has(*segment) && bases.need(holdings, *segment),
        // Notes, and what a promotion cut off: no restore asks for them. Histories were read to know what is needed.
        WalFile::Partial(_) | WalFile::Backup(..) | WalFile::History(_) => false,
    };
    let of_one = |archived: &Archived| match &archived.file {
        WalFile::Fragment(segment, _) => WalFile::Fragment(*segment, 0),
        file => file.clone(),
    };
    holdings.files().iter().filter(is_needed).filter(|file| seen.insert(of_one(file))).cloned().collect()
}

/// Where segments are missing that base backups need, although later ones are there.
pub fn gaps(holdings: &Holdings<'_>, bases: &Bases) -> Result<Vec<Broken>> {
    let mut found = Vec::new();
    for timeline in holdings.timelines() {
        let begun: Vec<Segment> = holdings.begun().filter(|s| s.timeline == timeline).collect();
        let mut missing: BTreeSet<Segment> =
            holdings.missing(timeline, &begun, &bases.0).into_iter().collect();
        // Between a base backup and what was archived first after it, too.
        let ancestry = holdings.ancestry(timeline);
        for (.., facts) in bases.0.iter().filter(|(.., f)| ancestry.includes(f.timeline, f.stop)) {
            if let Some(Break::Missing(segment)) = follow(holdings, &ancestry, facts, &BTreeSet::new())?.1 {
                missing.insert(segment);
            }
        }
        for segment in missing.into_iter().filter(|segment| bases.need(holdings, *segment)).take(TOLD) {
            let told = |broken: &Broken| broken.file == WalFile::Segment(segment);
            // A listing may lag behind what was archived a moment ago; and lines of history have their beginnings in common.
            if found.iter().any(told)
                || holdings.has_by_now(segment)?
                || holdings.reach_if_sound(segment)?.is_some()
            {
                continue;
            }
            found.push(broken(
                holdings,
                bases,
                WalFile::Segment(segment),
                false,
                format!("{segment} is missing"),
            )?);
        }
        if let Some(why) = holdings.damaged.get(&timeline) {
            found.push(unknown_origin(holdings, timeline, true, why));
            continue;
        }
        let is_led_to = timeline == 1
            || !holdings.ancestry(timeline).switches.is_empty()
            || bases.0.iter().any(|(.., facts)| facts.timeline == timeline);
        if !is_led_to && !begun.is_empty() {
            let why = format!("{} is missing", WalFile::History(timeline));
            found.push(unknown_origin(holdings, timeline, false, &why));
        }
    }
    Ok(found)
}

fn unknown_origin(holdings: &Holdings<'_>, timeline: u32, damaged: bool, why: &str) -> Broken {
    Broken {
        system: holdings.system,
        file: WalFile::History(timeline),
        damaged,
        why: format!(
            "{why}: it is not known where this timeline came from, and nothing on it can be reached"
        ),
        up_to: None,
        next: None,
    }
}

/// Reads files whole, and adds what is wrong with them.
fn read(
    holdings: &Holdings<'_>,
    bases: &Bases,
    wanted: &[Archived],
    report: &mut Report,
    monitor: &dyn Monitor,
) -> Result<()> {
    let total = wanted.iter().map(|file| file.stored_bytes).sum();
    monitor.step("archived WAL", Some(total));
    let damage = Mutex::new(Vec::new());
    let bytes = AtomicU64::new(0);
    each(wanted, holdings.segment_size, monitor, &|archived| {
        let file = match &archived.file {
            WalFile::Fragment(segment, _) => WalFile::Segment(*segment),
            file => file.clone(),
        };
        match holdings.content(&file) {
            Ok(_) => {}
            Err(failure) if matches!(failure.kind, Kind::Verification | Kind::Refused) => {
                damage
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push((archived.file.clone(), failure.message));
            }
            Err(failure) => return Err(failure),
        }
        bytes.fetch_add(archived.stored_bytes, Ordering::Relaxed);
        monitor.advance(1, archived.stored_bytes);
        Ok(())
    })
    .map_err(|failure| match failure.kind {
        Kind::Cancelled => Failure::new(Kind::Cancelled, "the check of the archived WAL was stopped"),
        _ => failure,
    })?;
    report.bytes += bytes.into_inner();
    for (file, why) in damage.into_inner().unwrap_or_else(PoisonError::into_inner) {
        report.broken.push(broken(holdings, bases, file, true, why)?);
    }
    monitor.done("archived WAL", "");
    Ok(())
}

fn broken(
    holdings: &Holdings<'_>,
    bases: &Bases,
    file: WalFile,
    damaged: bool,
    why: String,
) -> Result<Broken> {
    let (up_to, next) = match segment_of(&file) {
        Some(segment) => {
            let size = holdings.segment_size;
            let before = holdings.last_end_before(segment)?;
            (Some((segment.start(size), before)), bases.beyond(holdings, segment))
        }
        None => (None, None),
    };
    Ok(Broken { system: holdings.system, file, damaged, why, up_to, next })
}

impl Holdings<'_> {
    /// When the last transaction ended before a segment of a timeline's line of history.
    fn last_end_before(&self, segment: Segment) -> Result<Option<Time>> {
        let (size, ancestry) = (self.segment_size, self.ancestry(segment.timeline));
        let on_line = self.begun().filter(|s| ancestry.segment(*s, size) == *s);
        let mut before: Vec<Segment> = on_line.filter(|s| s.number(size) < segment.number(size)).collect();
        before.sort_by_key(|segment| segment.number(size));
        for earlier in before.into_iter().rev() {
            if let Some(ends) = self.ends_if_sound(earlier)? {
                return Ok(Some(ends.last));
            }
        }
        Ok(None)
    }
}

/// The gaps, by a listing alone, that no base backup was made after: what was written since then cannot be returned to.
pub fn open_gaps(repository: &Repository, points: &[PointInfo]) -> Result<Vec<Broken>> {
    let found = check(repository, points, false, &Silent)?.broken;
    Ok(found.into_iter().filter(|broken| !broken.is_closed()).collect())
}
