//! `mainstay prune`: gives up the points that no rule keeps, then collects what nothing needs any more.
//!
//! The plan is a value that explains every keep and every delete; it is what `--dry-run` shows and what is then carried out.

use crate::{
    config::{AppConfig, Config},
    manage,
    points::{self, PointInfo},
    wal,
};
use mainstay_domain::{
    Failure, HoldId, Kind, Monitor, PointId, Result, Severity, Time,
    point::Hold,
    retention::{self, Decision, Keep, Reason},
    time::{DAY, HOUR, Span},
};
use mainstay_repository::{
    Repository,
    collect::{self, Collected},
    log::State as LogState,
};
use std::collections::{BTreeMap, BTreeSet};

/// Nothing goes sooner than this after it was superseded.
pub const GRACE: Span = Span { nanoseconds: 3 * DAY };
/// How far this machine's clock may be ahead of everything that the repository has recorded and still decide what goes.
pub const CLOCK_AHEAD: i64 = DAY;
/// A session that showed no progress for this long between two collections counts as dead.
pub const PATIENCE: i64 = 6 * HOUR;

/// What would be given up, and what is kept, and why.
#[derive(Debug, Clone)]
pub struct Plan {
    pub points: BTreeMap<PointId, PointInfo>,
    pub decisions: Vec<Decision>,
    /// Holds that have run out on points that are given up: they are released first.
    pub expired: BTreeMap<PointId, Vec<(HoldId, Hold)>>,
    pub garbage: Collected,
    /// What becomes of archived log, once those points are given up.
    pub log: Vec<wal::retention::Plan>,
    /// The time that all of this was judged at.
    pub now: Time,
    /// Points that would go by this machine's clock, and stay because nothing that was recorded vouches for it.
    pub clock_keeps: BTreeSet<PointId>,
}

impl Plan {
    pub fn dropped(&self) -> impl Iterator<Item = &Decision> {
        self.decisions.iter().filter(|decision| !decision.keep)
    }
}

/// Decides about every point of every application of the configuration that lives in `repository`. Refuses while anything in
/// its log is in doubt: what cannot be read may have been a hold, or a newer point.
///
/// A clock that was set forward makes everything look old. So nothing is judged later than [`CLOCK_AHEAD`] after the newest
/// Commit, unless somebody says (`accept_clock`) that the clock is right: what would go by then stays, and goes after the next
/// backup. Commits alone vouch for a time: what a prune writes says only what its own clock says.
pub fn plan(
    config: &Config,
    name: &str,
    repository: &Repository,
    local: Time,
    grace: Span,
    accept_clock: bool,
) -> Result<Plan> {
    let state = repository.certain_state()?;
    refuse_when_clocks_differ(repository, local)?;
    let now = if accept_clock { local } else { manage::vouched(&state, local) };
    let all = points::list(repository, None)?;
    let mut damaged = manage::need_what_is_lost(repository, &state)?;
    let found_damaged = state.facts.points.iter().filter(|(_, point)| manage::was_found_damaged(point));
    damaged.extend(found_damaged.map(|(id, _)| *id));
    let mut decisions = Vec::new();
    let mut goes_by_clock = BTreeSet::new();
    for (app_name, app) in config.apps.iter().filter(|(_, app)| app.repository == name) {
        let of_app: Vec<_> = all.iter().filter(|p| p.summary.app == *app_name).collect();
        decisions.extend(decide(app, &of_app, &damaged, now, grace)?);
        if now < local {
            let by_clock = decide(app, &of_app, &damaged, local, grace)?;
            goes_by_clock.extend(by_clock.iter().filter(|d| !d.keep).map(|d| d.point));
        }
    }
    let points: BTreeMap<_, _> = all.into_iter().map(|point| (point.id, point)).collect();
    let mut expired = BTreeMap::new();
    for point in decisions.iter().filter(|decision| !decision.keep).map(|decision| &points[&decision.point]) {
        let holds = manage::expired_holds(repository, point, now)?;
        if !holds.is_empty() {
            expired.insert(point.id, holds);
        }
    }
    let given_up =
        decisions.iter().filter(|decision| !decision.keep).map(|decision| decision.point).collect();
    let log = wal::retention::plan(repository, &given_up)?;
    let clock_keeps = &goes_by_clock - &given_up;
    let garbage = collect::preview(repository, PATIENCE)?;
    Ok(Plan { points, decisions, expired, garbage, log, now, clock_keeps })
}

fn decide(
    app: &AppConfig,
    points: &[&PointInfo],
    damaged: &BTreeSet<PointId>,
    now: Time,
    grace: Span,
) -> Result<Vec<Decision>> {
    let policies: BTreeMap<String, Keep> =
        app.policies.iter().map(|(name, p)| (name.clone(), p.keep.clone())).collect();
    let zone = match app.policies.values().next() {
        Some(policy) => policy.zone().map_err(Failure::usage)?,
        None => jiff::tz::TimeZone::UTC,
    };
    let candidates: Vec<_> = points
        .iter()
        .map(|point| retention::Candidate {
            point: point.id,
            summary: &point.summary,
            signer: point.signer,
            holds: &point.holds,
            proofs: &point.proofs,
            passed: &point.passed,
            damaged: damaged.contains(&point.id),
        })
        .collect();
    let mut decisions = retention::decide(&candidates, &policies, now, grace, &zone);
    for decision in &mut decisions {
        for reason in &mut decision.reasons {
            // `delete` lets go what nothing can follow any more; here somebody has to say so.
            if let Reason::NewestOf { sources } = reason
                && sources.iter().all(|source| !app.sources.contains_key(source))
            {
                let sources = std::mem::take(sources);
                *reason = Reason::NewestOfRemoved { sources, point: decision.point };
            }
        }
    }
    Ok(decisions)
}

/// What became of a plan.
#[derive(Debug)]
pub struct Pruned {
    pub collected: Collected,
    pub wal: wal::retention::Deleted,
}

/// Carries a plan out: gives the points up, collects, and deletes archived WAL. The log may have moved on since, so each point is
/// judged again on the state that its Drop follows; one that must stay by now stays, and `monitor` is told.
pub fn execute(repository: &Repository, plan: &Plan, by: &str, monitor: &dyn Monitor) -> Result<Pruned> {
    let now = plan.now;
    let broken = manage::need_what_is_lost(repository, &repository.certain_state()?)?;
    let together: BTreeSet<PointId> = plan.dropped().map(|decision| decision.point).collect();
    for decision in plan.dropped() {
        if monitor.cancelled() {
            return Err(Failure::new(Kind::Cancelled, "stopped before all points were given up"));
        }
        let point = decision.point;
        let why: Vec<String> = decision.reasons.iter().map(ToString::to_string).collect();
        let mut stays = None;
        let given_up = manage::give_up(repository, point, by, &why.join("; "), now, |state| {
            still_goes(state, plan, &point, &together, &broken, now)
                .inspect_err(|failure| stays = Some(failure.message.clone()))
        });
        match (given_up, stays) {
            (Ok(()), _) => {}
            (Err(_), Some(why)) => {
                monitor.notice(
                    Severity::Warning,
                    &format!("not given up, because since the plan was made {why}"),
                );
            }
            (Err(failure), None) => return Err(failure),
        }
    }
    let collected = collect::collect(repository, PATIENCE, monitor)?;
    Ok(Pruned { collected, wal: wal::retention::execute(repository, &plan.log, monitor)? })
}

fn still_goes(
    state: &LogState,
    plan: &Plan,
    point: &PointId,
    together: &BTreeSet<PointId>,
    broken: &BTreeSet<PointId>,
    now: Time,
) -> Result<()> {
    manage::expendable(state, point, together, broken, now, &|_, _| true)?;
    let planned = plan.points.get(point).map(|info| &info.proofs);
    if state.facts.points.get(point).map(|live| &live.proofs) == planned {
        return Ok(());
    }
    Err(Failure::new(Kind::Refused, format!("recovery point {} has been tested", point.short()))
        .hint("Run `mainstay prune` again: it decides anew."))
}

/// A clock that is behind would take the newest points for dated in the future.
fn refuse_when_clocks_differ(repository: &Repository, now: Time) -> Result<()> {
    let newest = repository.state()?.facts.points.values().map(|point| point.time).max();
    match newest {
        Some(newest) if newest.since(now) > HOUR => Err(Failure::new(
            Kind::Refused,
            format!("this machine's clock ({now}) is behind the newest recovery point ({newest})"),
        )
        .hint("Set the clock right; nothing is given up while it is wrong.")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
