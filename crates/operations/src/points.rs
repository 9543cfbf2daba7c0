//! Recovery points: listing them, finding the one that a person means, and reading what it holds.

use mainstay_domain::{
    Failure, HostId, Kind, PointId, Result, Time,
    point::{Hold, Proof, ProofLevel, State, Summary},
};
use mainstay_repository::{Repository, RepositoryError};
use std::collections::BTreeMap;

/// A live recovery point, as a list shows it.
#[derive(Debug, Clone, serde::Serialize)]
pub struct PointInfo {
    pub id: PointId,
    #[serde(flatten)]
    pub summary: Summary,
    #[serde(skip)]
    pub signer: HostId,
    /// Its place in the log: what "newest" means, whatever clocks say.
    #[serde(skip)]
    pub committed_at: u64,
    pub holds: Vec<Hold>,
    /// The latest of each level.
    pub proofs: BTreeMap<ProofLevel, Proof>,
    /// The last of each level that passed.
    pub passed: BTreeMap<ProofLevel, Proof>,
}

impl PointInfo {
    /// Whether it holds a state that a restore replaced: `latest` never means it.
    pub fn is_safety_copy(&self) -> bool {
        self.summary.is_safety_copy()
    }

    /// When it was last proven by a real restore.
    pub fn proven(&self) -> Option<&Proof> {
        self.passed.get(&ProofLevel::Restore)
    }

    /// The latest restore test, if it did not pass.
    pub fn not_passed(&self) -> Option<&Proof> {
        self.proofs.get(&ProofLevel::Restore).filter(|proof| !proof.passed)
    }
}

/// Every live recovery point, in the order in which they were committed; of one application if `app` is given.
pub fn list(repository: &Repository, app: Option<&str>) -> Result<Vec<PointInfo>> {
    let state = repository.state()?;
    let mut points: Vec<_> = state
        .facts
        .points
        .iter()
        .filter_map(|(id, point)| {
            let summary = point.summary.clone()?;
            let holds = point.holds.values().filter_map(|hold| hold.text.clone()).collect();
            Some(PointInfo {
                id: *id,
                summary,
                signer: point.signer,
                committed_at: point.committed_at,
                holds,
                proofs: point.proofs.clone(),
                passed: point.passed.clone(),
            })
        })
        .filter(|point| app.is_none_or(|app| point.summary.app == app))
        .collect();
    points.sort_by_key(|point| point.committed_at);
    Ok(points)
}

/// The newest point of an application, whatever its state.
pub fn newest(repository: &Repository, app: &str) -> Result<Option<PointInfo>> {
    Ok(list(repository, Some(app))?.pop())
}

/// The newest point in which this source left something to build on.
pub fn newest_with_source(repository: &Repository, app: &str, source: &str) -> Result<Option<PointInfo>> {
    let has = |point: &PointInfo| {
        point.summary.sources.iter().any(|s| s.name == source && s.state != State::Failed)
    };
    Ok(list(repository, Some(app))?.into_iter().rev().find(has))
}

/// The point that `words` mean: `latest`, `latest-complete`, the beginning of an id, or a time (the last point at or before
/// it). Safety copies hold what was given up: only their ids mean them, unless there is nothing else.
pub fn find(repository: &Repository, app: &str, words: &str) -> Result<PointInfo> {
    let points = list(repository, Some(app))?;
    if points.is_empty() {
        return Err(crate::access::no_points(app));
    }
    let regular: Vec<_> = points.iter().filter(|point| !point.is_safety_copy()).collect();
    let regular = if regular.is_empty() { points.iter().collect() } else { regular };
    match words {
        "latest" => {
            let usable = |point: &&&PointInfo| point.summary.state != State::Failed;
            let newest = regular.iter().rev().find(usable).or(regular.last());
            Ok((*newest.expect("there is at least one")).clone())
        }
        "latest-complete" => {
            let complete = regular.iter().rev().find(|point| point.summary.state == State::Complete);
            complete.map(|point| (*point).clone()).ok_or_else(|| {
                Failure::new(Kind::NoRepository, format!("{app} has no complete recovery point")).hint(
                    "`mainstay list` shows the incomplete ones, and `mainstay show POINT` what they lack.",
                )
            })
        }
        _ => match time_of(words) {
            Some(time) => at_or_before(&regular, time, app).cloned(),
            None => by_prefix(&points, words).cloned(),
        },
    }
}

/// What `latest` means for one source: the newest point that has it complete, where `latest` does not have it. `None`: it stays
/// with `latest`, which has at least a part of it and says so, or no point has it complete.
pub fn newest_complete(
    repository: &Repository,
    latest: &PointInfo,
    source: &str,
) -> Result<Option<PointInfo>> {
    let has = |point: &PointInfo, enough: fn(State) -> bool| {
        point.summary.sources.iter().any(|s| s.name == source && enough(s.state))
    };
    if has(latest, |state| state != State::Failed) {
        return Ok(None);
    }
    let is_complete = |point: &PointInfo| has(point, |state| state == State::Complete);
    let points = list(repository, Some(&latest.summary.app))?;
    Ok(points.into_iter().rev().find(|point| is_complete(point) && !point.is_safety_copy()))
}

/// The instant that words name: RFC 3339, with a space for the T if you like; without an offset, in the machine's own zone.
pub fn time_of(words: &str) -> Option<Time> {
    let looks_like_a_time = words.len() >= 10 && words.as_bytes()[4] == b'-';
    if !looks_like_a_time {
        return None;
    }
    let timestamp = words.parse::<jiff::Timestamp>().ok();
    let civil = || {
        words
            .parse::<jiff::civil::DateTime>()
            .ok()?
            .to_zoned(jiff::tz::TimeZone::system())
            .ok()
            .map(|z| z.timestamp())
    };
    timestamp.or_else(civil).map(Time::from_jiff)
}

fn at_or_before<'p>(points: &[&'p PointInfo], time: Time, app: &str) -> Result<&'p PointInfo> {
    let before =
        points.iter().copied().rev().find(|p| p.summary.finished <= time && p.summary.state != State::Failed);
    before.ok_or_else(|| {
        let first = points.first().map_or(time, |p| p.summary.finished);
        Failure::new(Kind::NoRepository, format!("{app} has no recovery point at or before {time}"))
            .hint(format!("The oldest is of {first}."))
    })
}

fn by_prefix<'p>(points: &'p [PointInfo], prefix: &str) -> Result<&'p PointInfo> {
    let matching: Vec<_> =
        points.iter().filter(|p| p.id.to_string().starts_with(&prefix.to_ascii_lowercase())).collect();
    match matching.as_slice() {
        [point] => Ok(point),
        [] => Err(RepositoryError::NoSuchPoint(prefix.into()).into()),
        several => {
            let ids: Vec<_> = several.iter().map(|p| p.id.short()).collect();
            Err(RepositoryError::AmbiguousPoint(prefix.into(), ids.join(", ")).into())
        }
    }
}
