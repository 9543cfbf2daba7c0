//! Point-in-time recovery: from "14:02:31" to a base backup, a timeline and the segments between, before anything is written.
//!
//! PostgreSQL finds out that a target cannot be reached when it has replayed everything and found no end; here it is known
//! beforehand, from the archive alone: which stretch can be reached, which transaction is the last one before the target, and
//! on which timeline. Nothing is guessed: where two timelines would do, both are named and the choice is asked for.

mod aim;
mod base;
mod bring;
mod follow;
mod limits;
mod lines;
pub mod masked;
mod moment;
pub mod start;

pub(crate) use base::next_base;
pub(crate) use follow::{Break, follow, is_whole_in_record};
pub use lines::{Other, others};

use crate::{points::PointInfo, restore::Opened, wal::Holdings};
use base::{Base, bases, ended};
use lines::{choose_line, lines_of_history};
use mainstay_domain::{Failure, Kind, Lsn, Monitor, Result, Time, wal::Segment};
use mainstay_repository::Repository;
use mainstay_sources::postgres::{
    cluster::{
        ClusterFacts,
        restore::{self as files, Target},
    },
    wal::Ancestry,
};
use serde::Serialize;
use std::{collections::BTreeSet, path::Path, sync::Mutex};

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
    /// The segment before which it ends because that is damaged.
    pub damaged: Option<String>,
}

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
    /// Lines of history with later log that this one does not have.
    pub others: Vec<Other>,
    /// Archived segments that were found to be damaged.
    damage: Mutex<BTreeSet<Segment>>,
}

impl std::fmt::Debug for Holdings<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Holdings({})", self.system)
    }
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
    let mut resolved = choose_line(&holdings, &lines, met)?;
    resolved.others = others(&holdings, &resolved.ancestry, Time(i64::MIN))?;
    Ok(resolved)
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
            damaged: None,
        },
        ancestry,
        last_kept: None,
        first_lost: None,
        segments: Vec::new(),
        target: target.clone(),
        holdings,
        others: Vec::new(),
        damage: Mutex::default(),
    };
    loop {
        let known = resolved.known_damage();
        let met = resolved.meet_from_best(&on_line, source);
        // Of a target that is out of reach, too: what is said to be in reach is read.
        resolved.read_all()?;
        // With a segment that turned out to be damaged the log ends earlier: the target may be met before it all the same.
        if resolved.known_damage() == known {
            return met.map(|()| resolved);
        }
    }
}

impl Resolved<'_> {
    /// Begins with a base backup in which nothing is damaged, if the log leads on from there; else with any.
    fn meet_from_best(&mut self, on_line: &[&Base], source: &str) -> Result<()> {
        let complete: Vec<&Base> = on_line.iter().filter(|base| base.complete).copied().collect();
        if complete.len() < on_line.len()
            && !complete.is_empty()
            && let Ok(()) = self.meet(&complete, on_line, source)
        {
            return Ok(());
        }
        self.meet(on_line, on_line, source)
    }
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
        damaged: None,
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
        others: Vec::new(),
        damage: Mutex::default(),
    })
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
        Log::Fetched => {
            let standby = options.recovery.as_ref().is_some_and(|recovery| recovery.standby);
            resolved.limits_of_fetched(standby, monitor)
        }
    };
    files::restore(&opened.reader, &opened.record, options, &mut bring_log, monitor)
}
