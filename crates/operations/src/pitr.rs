//! Point-in-time recovery: from "14:02:31" to a base backup, a timeline and the segments between, before anything is written.
//!
//! PostgreSQL finds out that a target cannot be reached when it has replayed everything and found no end; here it is known
//! beforehand, from the archive alone: which stretch can be reached, which transaction is the last one before the target, and
//! on which timeline. Nothing is guessed: where two timelines would do, both are named and the choice is asked for.

use crate::{
    points::PointInfo,
    restore::Opened,
    wal::{Holdings, write},
};
use mainstay_domain::{
    Failure, Kind, Lsn, Monitor, Result, Time,
    point::State,
    wal::{Segment, WalFile},
};
use mainstay_repository::{Repository, wal::Ends};
use mainstay_sources::postgres::{
    cluster::{
        ClusterFacts, KIND,
        facts::RECOVERY_SETTINGS,
        restore::{self as files, Target},
    },
    wal::{Ancestry, Mark, Scanner},
};
use serde::Serialize;
use std::{collections::BTreeSet, path::Path};

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    pub target: Target,
    /// `None`: the one that the newest base backup leads to, if there is only one.
    pub timeline: Option<u32>,
}

/// A stretch of time, or of the log, that can be restored to.
#[derive(Debug, Clone, Serialize)]
pub struct Window {
    /// The end of the oldest base backup from which the log goes on without a gap.
    pub from: Time,
    /// When the last transaction ended that is in unbroken archived log.
    pub to: Option<Time>,
    /// Where unbroken log ends.
    pub to_lsn: Lsn,
    pub timeline: u32,
    /// The first segment that is missing although later ones are there.
    pub gap: Option<String>,
}

/// Bytes of segments that are held at the same time while they are brought.
const HELD: u64 = 128 << 20;

/// How a request is met.
#[derive(Debug)]
pub struct Resolved<'r> {
    pub base: PointInfo,
    pub facts: ClusterFacts,
    pub ancestry: Ancestry,
    pub window: Window,
    /// The last transaction that is kept, and the first that is not.
    pub last_kept: Option<Time>,
    pub first_lost: Option<Time>,
    /// What replay needs beyond the base backup's own log, in order.
    pub segments: Vec<Segment>,
    pub target: Target,
    holdings: Holdings<'r>,
}

impl std::fmt::Debug for Holdings<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Holdings({})", self.system)
    }
}

/// Whether a mark is the one that is sought.
type IsMark = Box<dyn Fn(&Mark) -> bool>;

/// A base backup that a recovery may begin with.
struct Base {
    point: PointInfo,
    facts: ClusterFacts,
    /// Nothing in it is damaged.
    complete: bool,
    /// When the server confirmed its end.
    consistent_at: Time,
}

/// The base backups of a source, oldest first. A damaged manifest is passed over: an older base backup does as well.
fn bases(repository: &Repository, points: &[PointInfo], source: &str) -> Result<Vec<Base>> {
    let mut found = Vec::new();
    for point in points {
        let usable = point
            .summary
            .sources
            .iter()
            .any(|s| s.name == source && s.kind == KIND && s.state != State::Failed);
        if !usable {
            continue;
        }
        let Ok(manifest) = repository.manifest(&point.id) else { continue };
        if let Some(record) = manifest.point.sources.iter().find(|record| record.name == source) {
            found.push(Base {
                point: point.clone(),
                facts: ClusterFacts::from_json(&record.facts)?,
                complete: record.state == State::Complete,
                consistent_at: record.consistent_at.unwrap_or(record.finished),
            });
        }
    }
    Ok(found)
}

/// The end of a base backup in time: where its own recovery can end at the earliest.
fn ended(base: &Base) -> Time {
    base.consistent_at
}

/// Meets a request from what is in the repository.
///
/// # Errors
/// `NoRepository`: there is no base backup before it. `Preflight`: it is out of reach; the message says what can be reached.
/// `Usage`: several timelines would do.
pub fn resolve<'r>(
    repository: &'r Repository,
    points: &[PointInfo],
    source: &str,
    request: &Request,
) -> Result<Resolved<'r>> {
    let bases = bases(repository, points, source)?;
    let Some(newest) = bases.last() else {
        return Err(Failure::new(Kind::NoRepository, format!("there is no base backup of {source}"))
            .hint("Make one: `mainstay backup APP --source NAME`, for a source of kind cluster."));
    };
    // After pg_upgrade or initdb, another cluster has the source's name: the newest base backup says which one is meant.
    let system = newest.facts.system;
    let bases: Vec<Base> = bases.into_iter().filter(|base| base.facts.system == system).collect();
    let newest = bases.last().expect("the newest one is of its own cluster");
    let holdings = Holdings::read_in_part(repository, system)?;
    let lines = lines_of_history(&holdings, newest, request.timeline)?;
    let met = lines
        .iter()
        .map(|line| {
            let ancestry = holdings.known_ancestry(*line)?;
            along(holdings.clone(), ancestry, &bases, source, &request.target)
        })
        .collect();
    choose_line(&holdings, &lines, met)
}

/// Meets a request along one line of history.
fn along<'r>(
    holdings: Holdings<'r>,
    ancestry: Ancestry,
    bases: &[Base],
    source: &str,
    target: &Target,
) -> Result<Resolved<'r>> {
    let on_line: Vec<&Base> =
        bases.iter().filter(|b| ancestry.includes(b.facts.timeline, b.facts.stop)).collect();
    let Some(oldest) = on_line.first() else {
        return Err(Failure::preflight(format!("no base backup leads to timeline {}", ancestry.timeline))
            .hint("`mainstay wal status` shows the timelines; name another with --timeline."));
    };
    let mut resolved = Resolved {
        base: oldest.point.clone(),
        facts: oldest.facts.clone(),
        window: Window {
            from: ended(oldest),
            to: None,
            to_lsn: oldest.facts.stop,
            timeline: ancestry.timeline,
            gap: None,
        },
        ancestry,
        last_kept: None,
        first_lost: None,
        segments: Vec::new(),
        target: target.clone(),
        holdings,
    };
    // One in which nothing is damaged, if the log leads on from there; else any.
    let complete: Vec<&Base> = on_line.iter().filter(|base| base.complete).copied().collect();
    if complete.len() < on_line.len()
        && !complete.is_empty()
        && let Ok(()) = resolved.meet(&complete, &on_line, source)
    {
        return Ok(resolved);
    }
    resolved.meet(&on_line, &on_line, source)?;
    Ok(resolved)
}

/// Whether the log leads from one base backup to a later one without a gap.
fn leads_on(holdings: &Holdings<'_>, ancestry: &Ancestry, from: &Base, to: &Base) -> bool {
    let size = from.facts.segment_size;
    let last = Segment::holding(to.facts.timeline, to.facts.start, size).number(size);
    let mut segment = Segment::holding(from.facts.timeline, from.facts.start, size);
    while segment.number(size) < last {
        let wanted = ancestry.segment(segment, size);
        if !holdings.has(wanted) && !is_whole_in_record(&from.facts, wanted) {
            return false;
        }
        segment = segment.next(size);
    }
    true
}

/// The end of one base backup, without what was archived after it.
pub fn end_of_backup<'r>(
    repository: &'r Repository,
    point: &PointInfo,
    source: &str,
) -> Result<Resolved<'r>> {
    let of_source = bases(repository, std::slice::from_ref(point), source)?;
    let Some(Base { facts, consistent_at, .. }) = of_source.into_iter().next() else {
        return Err(Failure::new(
            Kind::NoRepository,
            format!("recovery point {} has no usable base backup of {source}", point.id.short()),
        )
        .hint("`mainstay list` shows the others."));
    };
    let holdings = Holdings::read_in_part(repository, facts.system)?;
    let ancestry = holdings.ancestry(facts.timeline);
    let window = Window {
        from: consistent_at,
        to: Some(consistent_at),
        to_lsn: facts.stop,
        timeline: facts.timeline,
        gap: None,
    };
    Ok(Resolved {
        base: point.clone(),
        facts,
        ancestry,
        window,
        last_kept: None,
        first_lost: None,
        segments: Vec::new(),
        target: Target::Immediate,
        holdings,
    })
}

/// The timelines that may be meant: the one that is asked for; or every end of history that the newest base backup leads to.
/// A timeline is such an end if none came from it, or if it went on after one did.
fn lines_of_history(holdings: &Holdings<'_>, newest: &Base, asked: Option<u32>) -> Result<Vec<u32>> {
    let own = newest.facts.timeline;
    let known = holdings.timelines();
    if let Some(asked) = asked {
        return match asked == own || known.contains(&asked) {
            true => Ok(vec![asked]),
            false => Err(Failure::usage(format!("nothing is archived of timeline {asked}"))
                .hint(format!("There is: {}.", numbers(&known)))),
        };
    }
    // One of which that is not known may come from here.
    if let Some(unknown) = holdings.damaged().find(|timeline| *timeline > own) {
        holdings.known_ancestry(unknown)?;
    }
    let led_to = |timeline: &u32| {
        *timeline == own || *timeline > own && holdings.ancestry(*timeline).includes(own, newest.facts.stop)
    };
    let candidates: Vec<u32> =
        known.into_iter().chain([own]).filter(led_to).collect::<BTreeSet<_>>().into_iter().collect();
    let came_from = |timeline: u32| {
        candidates
            .iter()
            .any(|other| holdings.ancestry(*other).switches.iter().any(|switch| switch.from == timeline))
    };
    let is_end = |timeline: &u32| !came_from(*timeline) || holdings.went_on(*timeline).is_some();
    Ok(candidates.iter().copied().filter(is_end).collect())
}

/// Of several lines of history one is taken only if all lead to the same: what lies before they part.
fn choose_line<'r>(
    holdings: &Holdings<'_>,
    lines: &[u32],
    mut met: Vec<Result<Resolved<'r>>>,
) -> Result<Resolved<'r>> {
    let newest = match met.pop() {
        Some(newest) if met.is_empty() => return newest,
        Some(newest) => newest,
        None => return Err(Failure::failed("the archive has no timeline")),
    };
    let same = |other: &Result<Resolved<'_>>| match (&newest, other) {
        (Ok(a), Ok(b)) => a.segments == b.segments && a.base.id == b.base.id,
        (Err(_), Err(_)) => true,
        _ => false,
    };
    if met.iter().all(same) {
        return newest;
    }
    let mut shown = Vec::new();
    for timeline in lines {
        let ended = match holdings.last_end(*timeline, None)? {
            Some(end) => format!("last transaction {end}"),
            None => "no transaction yet".to_owned(),
        };
        let from = holdings
            .ancestry(*timeline)
            .switches
            .last()
            .map(|switch| format!("from timeline {} at {}, ", switch.from, switch.at));
        shown.push(format!("{timeline} ({}{ended})", from.unwrap_or_default()));
    }
    Err(Failure::usage(format!(
        "the history of this cluster branches after its newest base backup: timelines {}",
        shown.join("; ")
    ))
    .hint("Say which one is meant: --timeline N. `mainstay wal status` shows where each came from."))
}

fn numbers(timelines: &[u32]) -> String {
    timelines.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The newest base backup that ends before the target.
fn choose_base<'b>(bases: &[&'b Base], target: &Target) -> Option<&'b Base> {
    let fits = |base: &&&Base| match target {
        Target::Time(time) => ended(base) <= *time,
        Target::Lsn(lsn) => base.facts.stop <= *lsn,
        Target::Xid(_) | Target::Name(_) | Target::Immediate | Target::Latest => true,
    };
    bases.iter().rev().find(fits).copied()
}

fn before_all(oldest: &Base, source: &str) -> Failure {
    Failure::preflight(format!("no base backup of {source} ended before that"))
        .hint(format!("The oldest one ended at {}: nothing before it can be reached.", ended(oldest)))
}

/// The archived segments from where a base backup begins on, as far as they follow one another; and the first one missing, if
/// later ones are there.
fn follow(
    holdings: &Holdings<'_>,
    ancestry: &Ancestry,
    facts: &ClusterFacts,
) -> Result<(Vec<Segment>, Option<String>)> {
    let size = facts.segment_size;
    let mut segments = Vec::new();
    let mut number = Segment::holding(facts.timeline, facts.start, size);
    loop {
        let wanted = ancestry.segment(number, size);
        if holdings.has_by_now(wanted)? {
            segments.push(wanted);
        } else if !is_whole_in_record(facts, wanted) {
            // A server that died right after its promotion leaves the log up to there in the old timeline's segment only.
            let before = wanted.on(ancestry.timeline_at(wanted.start(size)));
            if holdings.reach_if_sound(wanted)?.is_some() {
                segments.push(wanted); // its beginning: the log ends there
            } else if before != wanted
                && (holdings.has_by_now(before)? || holdings.reach_if_sound(before)?.is_some())
            {
                segments.push(before);
            }
            let unsound = segments.last() != Some(&wanted) && holdings.begun().any(|begun| begun == wanted);
            let later = unsound
                || holdings.begun().any(|segment| {
                    segment.number(size) > wanted.number(size) && ancestry.segment(segment, size) == segment
                });
            return Ok((segments, later.then(|| wanted.to_string())));
        }
        number = number.next(size);
    }
}

/// The record holds its last segment as it was at the backup's end: what came later in it is in the archive or nowhere.
fn is_whole_in_record(facts: &ClusterFacts, segment: Segment) -> bool {
    segment.end(facts.segment_size) <= facts.stop && facts.wal.contains(&segment.to_string())
}

/// Where the log that can be replayed ends.
fn end_of_log(
    holdings: &Holdings<'_>,
    segments: &[Segment],
    ancestry: &Ancestry,
    facts: &ClusterFacts,
) -> Result<Lsn> {
    let Some(last) = segments.last() else { return Ok(facts.stop) };
    let branched =
        ancestry.switches.iter().find(|switch| switch.from == last.timeline).map(|switch| switch.at);
    let reach = match holdings.has_by_now(*last)? {
        true => None,
        false => holdings.reach(*last)?,
    };
    let end = reach.unwrap_or(last.end(facts.segment_size));
    Ok(branched.map_or(end, |at| end.min(at)).max(facts.stop))
}

fn last_end(holdings: &Holdings<'_>, segments: &[Segment]) -> Result<Option<Time>> {
    for segment in segments.iter().rev() {
        if let Some(ends) = ends_of(holdings, *segment)? {
            return Ok(Some(ends.last));
        }
    }
    Ok(None)
}

fn ends_of(holdings: &Holdings<'_>, segment: Segment) -> Result<Option<Ends>> {
    holdings.ends(segment)
}

impl Resolved<'_> {
    /// Meets the target from one of `bases`; `all` are those that lie on this line of history.
    fn meet(&mut self, bases: &[&Base], all: &[&Base], source: &str) -> Result<()> {
        let sought: Option<(String, IsMark)> = match self.target.clone() {
            Target::Xid(xid) => {
                let is = move |mark: &Mark| matches!(mark, Mark::End { xid: found, .. } if u64::from(*found) == xid & 0xffff_ffff);
                Some((format!("the end of transaction {xid}"), Box::new(is)))
            }
            Target::Name(name) => {
                let what = format!("the restore point {name:?}");
                let is = move |mark: &Mark| matches!(mark, Mark::RestorePoint { name: found, .. } if *found == name);
                Some((what, Box::new(is)))
            }
            Target::Immediate | Target::Latest | Target::Time(_) | Target::Lsn(_) => None,
        };
        let Some((what, is)) = sought else {
            let base = choose_base(bases, &self.target).ok_or_else(|| before_all(all[0], source))?;
            self.begin_with(base, all)?;
            return self.aim();
        };
        // Where it lies is found by looking: after the newest base backup, then between each and the next.
        let mut until = None;
        for base in bases.iter().rev() {
            self.begin_with(base, all)?;
            if self.aim_at_mark(&*is, until)? {
                return Ok(());
            }
            until = Some(base.facts.stop);
        }
        if let Some(newest) = bases.last() {
            self.begin_with(newest, all)?;
        }
        Err(self.out_of_reach(&what))
    }

    /// Begins with this base backup, and all log that follows it.
    fn begin_with(&mut self, base: &Base, all: &[&Base]) -> Result<()> {
        let (segments, gap) = follow(&self.holdings, &self.ancestry, &base.facts)?;
        let mut oldest = base;
        for older in all.iter().rev().filter(|older| older.facts.stop < base.facts.stop) {
            if !leads_on(&self.holdings, &self.ancestry, older, oldest) {
                break;
            }
            oldest = older;
        }
        self.window = Window {
            from: ended(oldest),
            to: last_end(&self.holdings, &segments)?,
            to_lsn: end_of_log(&self.holdings, &segments, &self.ancestry, &base.facts)?,
            timeline: self.ancestry.timeline,
            gap,
        };
        (self.base, self.facts, self.segments) = (base.point.clone(), base.facts.clone(), segments);
        Ok(())
    }

    /// Makes sure that the target is there, and leaves only the segments that lead to it.
    fn aim(&mut self) -> Result<()> {
        match self.target.clone() {
            Target::Immediate => self.segments.clear(),
            Target::Latest => {
                self.refuse_gap()?;
                self.last_kept = self.window.to;
            }
            Target::Lsn(lsn) => self.aim_at_position(lsn)?,
            Target::Time(time) => self.aim_at_time(time)?,
            Target::Xid(_) | Target::Name(_) => {}
        }
        Ok(())
    }

    /// The end of the log is not where a gap is: who asks for the latest must not get less without a word.
    fn refuse_gap(&self) -> Result<()> {
        let Some(gap) = &self.window.gap else { return Ok(()) };
        let mut scanner = Scanner::default();
        if let Some(last) = self.segments.last() {
            self.scan(&mut scanner, *last, &mut |_| {})?;
        }
        let at = match self.window.to {
            Some(time) => format!(" (the last transaction before it ended at {time})"),
            None => String::new(),
        };
        let way = match scanner.last_record() {
            Some(lsn) => format!("Up to the gap it goes with --lsn {lsn}{at}."),
            None => format!("Give a time before the gap with --at{at}."),
        };
        Err(Failure::preflight(format!("the archive has a gap: {gap} is missing, and what comes after it cannot be reached"))
            .hint(format!("{way} A base backup that was made after the gap can be restored by itself: --point ID --immediate.")))
    }

    /// PostgreSQL stops at the first record that begins at the position or later: there must be one.
    fn aim_at_position(&mut self, lsn: Lsn) -> Result<()> {
        let size = self.facts.segment_size;
        let begin = self.segments.partition_point(|segment| segment.end(size) <= lsn);
        let mut scanner = Scanner::default();
        for index in begin..self.segments.len() {
            self.scan(&mut scanner, self.segments[index], &mut |_| {})?;
            if scanner.last_record().is_some_and(|begins| begins >= lsn) {
                self.segments.truncate(index + 1);
                return Ok(());
            }
        }
        Err(self.out_of_reach(&format!("position {lsn}")))
    }

    /// PostgreSQL stops before the first transaction that ended later: there must be one, or it would not know that it is
    /// there.
    fn aim_at_time(&mut self, time: Time) -> Result<()> {
        let mut scanner = Scanner::default();
        let (mut kept, mut lost) = (None, None);
        let mut needed = self.segments.len();
        let begin = self.first_worth_reading(time)?;
        for (index, segment) in self.segments.iter().enumerate().skip(begin) {
            self.scan(&mut scanner, *segment, &mut |mark| {
                if let Mark::End { time: ended, .. } = mark {
                    match ended <= time {
                        true if lost.is_none() => kept = Some(ended),
                        false if lost.is_none() => lost = Some(ended),
                        _ => {}
                    }
                }
            })?;
            if lost.is_some() {
                needed = index + 1;
                break;
            }
        }
        if lost.is_none() {
            return Err(self.out_of_reach(&time.to_string()));
        }
        self.segments.truncate(needed);
        (self.last_kept, self.first_lost) = (kept, lost);
        Ok(())
    }

    /// The last segment in which everything ended before `time`: what it and the later ones hold decides.
    fn first_worth_reading(&self, time: Time) -> Result<usize> {
        let (mut low, mut high) = (0, self.segments.len());
        while low < high {
            let middle = low + (high - low) / 2;
            // Segments without any end say nothing: the next one that has some decides.
            let mut at = middle;
            let mut ends = None;
            while at < high && ends.is_none() {
                ends = ends_of(&self.holdings, self.segments[at])?;
                at += 1;
            }
            match ends {
                Some(ends) if ends.last <= time => low = at,
                _ => high = middle,
            }
        }
        // Times are not quite in order: one segment more, and the record that may reach into it.
        Ok(low.saturating_sub(2))
    }

    /// Looks for the mark between the end of the base backup and `until`. PostgreSQL stops at the first one that it comes to, and
    /// cannot stop before the end of the base backup: then this is not the one to begin with.
    fn aim_at_mark(&mut self, is: &dyn Fn(&Mark) -> bool, until: Option<Lsn>) -> Result<bool> {
        let mut scanner = Scanner::default();
        let mut found = None;
        for (index, segment) in self.segments.iter().enumerate() {
            if until.is_some_and(|until| segment.start(self.facts.segment_size) >= until) {
                break;
            }
            self.scan(&mut scanner, *segment, &mut |mark| {
                // Not replayed at all before this.
                if is(&mark) && mark.at() >= self.facts.start {
                    found.get_or_insert((index, mark.at(), mark.time()));
                }
            })?;
            if found.is_some() {
                break;
            }
        }
        let within = |at: Lsn| at >= self.facts.stop && until.is_none_or(|until| at < until);
        let Some((index, _, time)) = found.filter(|(_, at, _)| within(*at)) else { return Ok(false) };
        self.segments.truncate(index + 1);
        self.last_kept = time;
        Ok(true)
    }

    fn scan(&self, scanner: &mut Scanner, segment: Segment, visit: &mut dyn FnMut(Mark)) -> Result<()> {
        let file = WalFile::Segment(segment);
        let bytes = self.holdings.content(&file)?.ok_or_else(|| {
            Failure::verification(format!("{file} was in the archive a moment ago and is gone"))
        })?;
        scanner.feed(segment.start(self.facts.segment_size), &bytes, visit);
        Ok(())
    }

    fn out_of_reach(&self, what: &str) -> Failure {
        let Window { from, to, to_lsn, timeline, gap } = &self.window;
        let until = match to {
            Some(to) => format!("the last transaction at {to} ({to_lsn})"),
            None => format!("{to_lsn}"),
        };
        let gap =
            gap.as_ref().map(|gap| format!(" The archive has a gap: {gap} is missing.")).unwrap_or_default();
        Failure::preflight(format!("{what} cannot be reached on timeline {timeline}")).hint(format!(
            "Reachable: from {from} to {until}.{gap} Without a target, recovery goes to the end: --at latest."
        ))
    }

    /// Puts what replay needs into a restored data directory's `pg_wal`.
    ///
    /// Returns the settings of which replay needs more than the base backup knew: a server that finds itself below them in the
    /// middle of its recovery stops there and waits.
    pub fn bring_log(&self, data: &Path, sync: bool, monitor: &dyn Monitor) -> Result<Vec<(String, String)>> {
        let folder = data.join("pg_wal");
        let size = self.facts.segment_size.bytes();
        monitor.step("log", Some(self.segments.len() as u64 * size));
        // All of them, strays too: the new timeline takes the first number that no history has, and must not take one of
        // a timeline that is archived.
        let histories =
            self.holdings.files().iter().filter(|archived| matches!(archived.file, WalFile::History(_)));
        let histories: Vec<WalFile> = histories.map(|archived| archived.file.clone()).collect();
        let wanted: Vec<WalFile> = histories
            .into_iter()
            .chain(self.segments.iter().map(|segment| WalFile::Segment(*segment)))
            .collect();
        let next = std::sync::atomic::AtomicUsize::new(0);
        let limits = std::sync::Mutex::new([0; RECOVERY_SETTINGS.len()]);
        let outcome = std::sync::Mutex::new(Ok(()));
        std::thread::scope(|scope| {
            // Each thread holds a segment; one has up to 1 GiB.
            for _ in 0..crate::access::threads().min((HELD / size) as usize).max(1) {
                scope.spawn(|| {
                    while let Some(file) = wanted.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
                    {
                        let done = self.bring(file, &folder, sync, &limits, monitor);
                        if let Err(failure) = done {
                            let mut outcome = outcome.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                            if outcome.is_ok() {
                                *outcome = Err(failure);
                            }
                            next.store(wanted.len(), std::sync::atomic::Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        outcome.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())?;
        if sync {
            std::fs::File::open(&folder).and_then(|directory| directory.sync_all()).map_err(|error| {
                Failure::failed(format!("{} cannot be made durable", folder.display())).caused_by(error)
            })?;
        }
        monitor.done("log", "");
        let limits = limits.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        let known = |name: &str| {
            let found = self.facts.settings.iter().find(|(known, _)| known == name);
            found.and_then(|(_, value)| value.parse::<u32>().ok()).unwrap_or_default()
        };
        let grown = RECOVERY_SETTINGS.iter().zip(limits).filter(|(name, limit)| *limit > known(name));
        Ok(grown.map(|(name, limit)| ((*name).to_owned(), limit.to_string())).collect())
    }

    fn bring(
        &self,
        file: &WalFile,
        folder: &Path,
        sync: bool,
        limits: &std::sync::Mutex<[u32; RECOVERY_SETTINGS.len()]>,
        monitor: &dyn Monitor,
    ) -> Result<()> {
        if monitor.cancelled() {
            return Err(Failure::new(Kind::Cancelled, "the restore was stopped"));
        }
        // Of a damaged history the name alone is of use: it keeps the server from taking its number for a new timeline.
        let name_only = self.holdings.damaged().any(|timeline| *file == WalFile::History(timeline));
        let content = match name_only {
            true => b"# damaged in the archive\n".to_vec(),
            false => self.holdings.content(file)?.ok_or_else(|| {
                Failure::verification(format!("{file} was in the archive a moment ago and is gone"))
            })?,
        };
        let path = folder.join(file.to_string());
        if let WalFile::Segment(segment) = file {
            Scanner::default().feed(segment.start(self.facts.segment_size), &content, |mark| {
                if let Mark::Limits { limits: found, .. } = mark {
                    let mut limits = limits.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                    limits.iter_mut().zip(found).for_each(|(limit, found)| *limit = found.max(*limit));
                }
            });
        }
        write(&path, &content, sync)?;
        monitor.advance(1, content.len() as u64);
        files::give_to_owner_of(folder, &path)
    }
}

/// How the server gets the archived log that it replays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Log {
    /// All of it is put into `pg_wal` beforehand: the archive is not needed while it replays.
    Brought,
    /// It fetches each file as it comes to it (`restore_command`).
    Fetched,
}

/// Restores a resolved request into a directory: files, log, and the instructions for recovery.
pub fn restore(
    opened: &Opened<'_>,
    resolved: &Resolved<'_>,
    options: &files::Options,
    log: Log,
    monitor: &dyn Monitor,
) -> Result<files::Report> {
    let mut bring_log = |data: &Path| match log {
        Log::Brought => resolved.bring_log(data, options.sync, monitor),
        Log::Fetched => Ok(Vec::new()),
    };
    files::restore(&opened.reader, &opened.record, options, &mut bring_log, monitor)
}
