//! `mainstay status`: at a glance, for each application: how recent, how whole, how proven.

use crate::{
    config::{Config, PolicyConfig},
    damage,
    points::{self, PointInfo},
    wal::{self, histories, slots},
};
use mainstay_domain::{
    PointId, Result, Silent, Time,
    point::{ProofLevel, SourceRecord, SourceSummary, State, Summary},
    time::{DAY, HOUR, MINUTE},
};
use mainstay_repository::{Repository, check};
use serde::Serialize;

/// How an application stands.
#[derive(Debug, Clone, Serialize)]
pub struct AppStatus {
    pub app: String,
    pub repository: String,
    pub points: usize,
    /// The newest point, whatever its state.
    pub newest: Option<PointInfo>,
    pub newest_complete: Option<PointInfo>,
    /// The newest point that a real restore proved.
    pub newest_proven: Option<PointInfo>,
    /// Of each source of the configuration.
    pub sources: Vec<SourceStatus>,
    /// What is not as it should be, in sentences.
    pub concerns: Vec<String>,
}

/// How one source stands: a point that leaves it out says nothing about it.
#[derive(Debug, Clone, Serialize)]
pub struct SourceStatus {
    pub source: String,
    /// The newest point that has it complete, and when that was finished.
    pub newest_complete: Option<PointId>,
    pub finished: Option<Time>,
    /// When a point that has it complete was last proven by a restore.
    pub proven_at: Option<Time>,
}

/// The oldest a newest complete point may be where no schedule says otherwise.
const STALE: i64 = DAY;
/// How long a backup may take that was due, before it counts as missing.
const LATE: i64 = HOUR / 2;
/// A proof older than this says little about today.
const PROOF_STALE: i64 = 35 * DAY;

/// The status of one application, judged from what lies in storage.
pub fn of_app(config: &Config, repository: &Repository, app: &str, now: Time) -> Result<AppStatus> {
    let points = points::list(repository, Some(app))?;
    // A state that was given up says nothing about how fresh the backups are.
    let regular = || points.iter().rev().filter(|point| !point.is_safety_copy());
    let newest = regular().next().cloned();
    let newest_complete = regular().find(|p| p.summary.state == State::Complete).cloned();
    // One that did not pass since is of use only where there is no better.
    let proven = |sure: bool| {
        let counts = |p: &&PointInfo| p.proven().is_some() && !(sure && p.not_passed().is_some());
        regular().find(counts).cloned()
    };
    let newest_proven = proven(true).or_else(|| proven(false));
    let mut concerns = Vec::new();
    match &newest_complete {
        None if points.is_empty() => {
            concerns.push(format!("there is no recovery point yet; make one: mainstay backup {app}"));
        }
        None => concerns.push(format!(
            "there is no complete recovery point; what the newest one lacks: mainstay show {app}"
        )),
        Some(point) => concerns.extend(freshness(config, app, &points, point, now)),
    }
    if let (Some(newest), Some(complete)) = (&newest, &newest_complete)
        && newest.summary.state != State::Complete
    {
        concerns.push(format!(
            "the newest recovery point is {} (what it lacks: mainstay show {app}); the newest complete one is {}, finished {}",
            newest.summary.state,
            complete.id.short(),
            ago(complete.summary.finished, now)
        ));
    }
    concerns.extend(failed_test(&points, now));
    concerns.extend(slow_runs(config, repository, app, &points)?);
    match newest_proven.as_ref().and_then(|point| point.proven()) {
        None if !points.is_empty() => concerns.push(format!(
            "no recovery point was ever proven by a restore; do it now: mainstay verify {app} --level restore"
        )),
        Some(proof) if now.since(proof.at) > PROOF_STALE => concerns.push(format!(
            "the last proof is {} days old; make a new one: mainstay verify {app} --level restore",
            now.since(proof.at) / DAY
        )),
        _ => {}
    }
    let sources: Vec<SourceStatus> = config
        .apps
        .get(app)
        .into_iter()
        .flat_map(|app| app.sources.keys())
        .map(|source| of_source(Wanted::of(config, app, source), regular()))
        .collect();
    if let Some(newest) = &newest_complete {
        let since_proof = newest_proven.as_ref().and_then(|point| point.proven()).map(|proof| proof.at);
        for source in &sources {
            concerns.extend(source_left_out(config, app, source, &points, newest, now));
            concerns.extend(source_unproven(app, source, since_proof, now));
        }
    }
    concerns.extend(
        damage::of(repository)?
            .into_iter()
            .map(|wrong| format!("{}: {}. {}", wrong.object, wrong.text, wrong.hint)),
    );
    concerns.extend(wal::check::open_gaps(repository, &points)?.iter().map(ToString::to_string));
    concerns.extend(histories::concerns(repository, &points)?);
    concerns.extend(slots::of_app(config, app)?.into_iter().flat_map(|server| server.concerns));
    let harm = check::known_harm(repository, &repository.state()?, &Silent)?;
    let of_app = |id| points.iter().any(|point| point.id == id);
    let lost = harm.values().filter(|needed_by| needed_by.iter().any(|id| of_app(*id))).count();
    if lost > 0 {
        concerns.push(format!(
            "packs that recovery points need are lost: {lost}; what is still there is stored again by: mainstay backup {app}"
        ));
    }
    let repository = config.apps.get(app).map_or_else(String::new, |a| a.repository.clone());
    Ok(AppStatus {
        app: app.into(),
        repository,
        points: points.len(),
        newest,
        newest_complete,
        newest_proven,
        sources,
        concerns,
    })
}

/// How long ago, in the unit that matters. Whoever reads it is in a zone of their own.
fn ago(time: Time, now: Time) -> String {
    format!("{} ago", lasting(now.since(time).max(0)))
}

fn lasting(nanoseconds: i64) -> String {
    let (number, unit) = match nanoseconds {
        n if n >= 2 * DAY => (n / DAY, "day"),
        n if n >= 2 * HOUR => (n / HOUR, "hour"),
        n => (n / MINUTE, "minute"),
    };
    format!("{number} {unit}{}", if number == 1 { "" } else { "s" })
}

/// Of each scheduled policy the newest point, if it took longer to make than there is between two.
fn slow_runs(
    config: &Config,
    repository: &Repository,
    app: &str,
    points: &[PointInfo],
) -> Result<Vec<String>> {
    let mut said = Vec::new();
    for (name, policy) in config.apps.get(app).into_iter().flat_map(|app| &app.policies) {
        let of_policy = |point: &&PointInfo| point.summary.policy.as_deref() == Some(name.as_str());
        let Some(point) = points.iter().rev().find(of_policy) else { continue };
        if is_slow(policy, &point.summary).is_some() {
            let manifest = repository.manifest(&point.id)?;
            said.extend(too_slow(name, policy, &point.summary, &manifest.point.sources));
        }
    }
    Ok(said)
}

/// How long there is from one run of a policy to the next, if this one took longer.
fn is_slow(policy: &PolicyConfig, summary: &Summary) -> Option<i64> {
    let (schedule, zone) = (policy.schedule.as_ref()?, policy.zone().ok()?);
    let next = schedule.next(summary.started, &zone)?;
    let between = schedule.next(next, &zone)?.since(next);
    (summary.finished.since(summary.started) > between).then_some(between)
}

/// Says that a run took longer than its policy leaves between two, and what in it took longest.
pub fn too_slow(
    name: &str,
    policy: &PolicyConfig,
    summary: &Summary,
    sources: &[SourceRecord],
) -> Option<String> {
    let between = is_slow(policy, summary)?;
    let took = summary.finished.since(summary.started);
    let of_source = |source: &SourceRecord| source.finished.since(source.started);
    let longest = match sources.iter().max_by_key(|source| of_source(source)) {
        // The sources are captured at the same time: none of them was what it waited for.
        Some(source) if of_source(source) < took / 2 => "storing it, after all sources were read".to_owned(),
        Some(source) => format!("the source {}, {}", source.name, lasting(of_source(source))),
        None => "storing it".to_owned(),
    };
    Some(format!(
        "the last backup of the policy {name} took {}, and the next is due every {}; what took longest was {longest}",
        lasting(took),
        lasting(between)
    ))
}

/// `newest_first`: the points of the application.
fn of_source<'a>(wanted: Wanted<'_>, newest_first: impl Iterator<Item = &'a PointInfo>) -> SourceStatus {
    let with: Vec<_> = newest_first.filter(|point| wanted.is_in(point)).collect();
    SourceStatus {
        source: wanted.source.to_owned(),
        newest_complete: with.first().map(|point| point.id),
        finished: with.first().map(|point| point.summary.finished),
        proven_at: with.iter().filter_map(|point| Some(point.proven()?.at)).max(),
    }
}

/// What a point must have of a source to count: all of it, unless the configuration leaves something out.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    source: &'a str,
    or_part: bool,
}

impl<'a> Wanted<'a> {
    fn of(config: &Config, app: &str, source: &'a str) -> Self {
        let configured = config.apps.get(app).and_then(|app| app.sources.get(source));
        Wanted { source, or_part: configured.is_some_and(|source| source.leaves_something_out()) }
    }

    fn is_in(&self, point: &PointInfo) -> bool {
        let counts = |s: &SourceSummary| s.state == State::Complete && (self.or_part || !s.partial);
        point.summary.sources.iter().any(|s| s.name == self.source && counts(s))
    }
}

/// A source that the newer points leave out, for longer than it should be.
fn source_left_out(
    config: &Config,
    app: &str,
    status: &SourceStatus,
    points: &[PointInfo],
    newest: &PointInfo,
    now: Time,
) -> Option<String> {
    let SourceStatus { source, newest_complete, finished, .. } = status;
    let wanted = Wanted::of(config, app, source);
    let (Some(id), Some(finished)) = (newest_complete, finished) else {
        return Some(format!(
            "no recovery point has {source} complete; make one: mainstay backup {app} --source {source}"
        ));
    };
    if *id == newest.id {
        return None; // what is said of that point is said of it
    }
    let policies = config.apps.get(app).into_iter().flat_map(|app| &app.policies);
    let of_source = |names: &[String]| names.is_empty() || names.contains(source);
    let mut scheduled = policies
        .filter(|(_, policy)| of_source(&policy.sources))
        .filter_map(|(name, policy)| Some((name, policy.schedule.as_ref()?, policy.zone().ok()?)))
        .peekable();
    let is_late = if scheduled.peek().is_none() {
        now.since(*finished) > STALE
    } else {
        // Late by a policy that has gone on without it: one that has not gone on at all is said to be late itself.
        scheduled.any(|(name, schedule, zone)| {
            let made: Vec<_> = points
                .iter()
                .rev()
                .filter(|point| point.summary.policy.as_deref() == Some(name))
                .filter(|point| point.summary.state == State::Complete)
                .collect();
            let with = made.iter().find(|point| wanted.is_in(point));
            let went_on = made.first().is_some_and(|first| !wanted.is_in(first));
            let since = with.map_or(*finished, |point| point.summary.finished.max(*finished));
            went_on && schedule.next(since, &zone).is_some_and(|expected| now.since(expected) > LATE)
        })
    };
    is_late.then(|| {
        format!(
            "the newest recovery point with {source} complete is {}, finished {}; newer ones leave it out: mainstay backup {app} \
             --source {source}",
            id.short(),
            ago(*finished, now)
        )
    })
}

/// A source that no restore has proven for long, though others of the application were.
fn source_unproven(app: &str, status: &SourceStatus, of_app: Option<Time>, now: Time) -> Option<String> {
    let is_recent = |at: Option<Time>| at.is_some_and(|at| now.since(at) <= PROOF_STALE);
    let SourceStatus { source, newest_complete: Some(id), proven_at, .. } = status else { return None };
    if !is_recent(of_app) || is_recent(*proven_at) {
        return None; // said of the application, or nothing to say
    }
    let what = proven_at.map_or_else(
        || format!("{source} was never proven by a restore"),
        |at| format!("the last proof of {source} is {} days old", now.since(at) / DAY),
    );
    Some(format!("{what}; do it now: mainstay verify {app} --point {} --level restore", id.short()))
}

/// The latest restore test of all did not pass: what it was of, and what stood before it.
fn failed_test(points: &[PointInfo], now: Time) -> Option<String> {
    let tests = |point: &PointInfo| point.proofs.get(&ProofLevel::Restore).map(|proof| (proof.at, point.id));
    let (_, id) = points.iter().filter_map(tests).max()?;
    let point = points.iter().find(|point| point.id == id)?;
    let failed = point.not_passed()?;
    let before = points.iter().filter_map(|p| Some((p.proven()?.at, p.id))).max();
    let before = before.map_or("no point was proven before".to_owned(), |(at, id)| {
        format!("last proven: point {}, {}", id.short(), ago(at, now))
    });
    let (id, when) = (id.short(), ago(failed.at, now));
    Some(format!("the last restore test, of point {id} {when}, did not pass; {before}"))
}

/// What is late: each policy with a schedule by its own newest complete point, and everything by its age where no schedule says
/// what to expect.
fn freshness(config: &Config, app: &str, points: &[PointInfo], newest: &PointInfo, now: Time) -> Vec<String> {
    let policies = config.apps.get(app).into_iter().flat_map(|app| &app.policies);
    let scheduled: Vec<_> = policies
        .filter_map(|(name, policy)| Some((name, policy.schedule.as_ref()?, policy.zone().ok()?)))
        .collect();
    let mut late = Vec::new();
    for (name, schedule, zone) in &scheduled {
        let of_policy = |point: &&PointInfo| {
            point.summary.state == State::Complete && point.summary.policy.as_deref() == Some(name.as_str())
        };
        let last = points.iter().rev().find(of_policy);
        // Without any, it is due from the first point of the application on.
        let since = last.or(points.first()).map_or(now, |point| point.summary.finished);
        let Some(expected) = schedule.next(since, zone) else { continue };
        if now.since(expected) > LATE {
            late.push(match last {
                Some(_) => format!(
                    "a backup of the policy {name} was expected {} and is not there: is the timer or cron job running, and what \
                     did it say?",
                    ago(expected, now)
                ),
                None => format!(
                    "the policy {name} has a schedule and has made no complete recovery point: run it as: \
                     mainstay backup {app} --policy {name}"
                ),
            });
        }
    }
    let age = now.since(newest.summary.finished);
    if scheduled.is_empty() && age > STALE {
        late.push(format!(
            "the newest complete recovery point is {} hours old; make one: mainstay backup {app}",
            age / (DAY / 24)
        ));
    }
    late
}

#[cfg(test)]
mod tests;
