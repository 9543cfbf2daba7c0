//! Holds on recovery points, and giving points up by hand.

use crate::{points::PointInfo, prune::CLOCK_AHEAD};
use mainstay_domain::{
    Clock, Failure, HoldId, Kind, PointId, Result, Silent, Time,
    point::{Hold, Proof, ProofLevel, SourceSummary, State},
    time::Span,
};
use mainstay_repository::{
    Repository, check,
    log::{
        State as LogState,
        facts::{LivePoint, PlacedHold},
    },
};
use std::collections::BTreeSet;

/// Keeps a point until the hold is released (or runs out), whatever retention says.
pub fn hold(
    repository: &Repository,
    point: &PointInfo,
    kind: &str,
    reason: &str,
    by: &str,
    span: Option<Span>,
    clock: &dyn Clock,
) -> Result<HoldId> {
    let since = clock.now();
    let until = span.map(|span| since.plus(span.nanoseconds));
    let hold = Hold { kind: kind.into(), reason: reason.into(), by: by.into(), since, until };
    Ok(repository.hold(point.id, hold)?)
}

/// The holds on a point.
pub fn holds(repository: &Repository, point: &PointInfo) -> Result<Vec<(HoldId, Hold)>> {
    let state = repository.state()?;
    let live = state.facts.points.get(&point.id);
    Ok(live
        .into_iter()
        .flat_map(|p| &p.holds)
        .filter_map(|(id, hold)| Some((*id, hold.text.clone()?)))
        .collect())
}

/// Releases every hold on a point, or the one whose id begins with `prefix`.
pub fn release(
    repository: &Repository,
    point: &PointInfo,
    prefix: Option<&str>,
    by: &str,
    why: &str,
) -> Result<usize> {
    let holds = holds(repository, point)?;
    let chosen: Vec<_> =
        holds.iter().filter(|(id, _)| prefix.is_none_or(|p| id.to_string().starts_with(p))).collect();
    if chosen.is_empty() {
        return Err(Failure::usage(format!("there is no such hold on recovery point {}", point.id.short()))
            .hint("`mainstay show POINT` lists the holds on it."));
    }
    for (id, _) in &chosen {
        repository.release_hold(*id, by, why)?;
    }
    Ok(chosen.len())
}

/// The holds on a point that have run out by `now`. They keep nothing any more, and are released before the point goes.
pub fn expired_holds(repository: &Repository, point: &PointInfo, now: Time) -> Result<Vec<(HoldId, Hold)>> {
    let holds = holds(repository, point)?;
    Ok(holds.into_iter().filter(|(_, hold)| hold.until.is_some_and(|until| until <= now)).collect())
}

/// The time by which may be judged what goes: this machine's, but not far beyond the newest Commit. A clock that was set forward
/// would let holds run out and make good points look old.
pub(crate) fn vouched(state: &LogState, local: Time) -> Time {
    let newest = state.facts.points.values().map(|point| point.time).max();
    newest.map_or(local, |newest| local.min(newest.plus(CLOCK_AHEAD)))
}

/// Gives up points by hand, and tells `dropped` of each that is gone. Refuses, before anything is done, if one is held, or if
/// none that is complete, or none that is proven, would be left; and judges each again on the state that its Drop follows.
///
/// `configured`: whether an application still has a source of this name. What is not backed up any more needs no last point.
pub fn delete(
    repository: &Repository,
    chosen: &[PointInfo],
    configured: &dyn Fn(&str, &str) -> bool,
    by: &str,
    why: &str,
    local: Time,
    mut dropped: impl FnMut(&PointInfo),
) -> Result<()> {
    let together: BTreeSet<PointId> = chosen.iter().map(|point| point.id).collect();
    let state = repository.certain_state()?;
    let now = vouched(&state, local);
    let broken = need_what_is_lost(repository, &state)?;
    for point in &together {
        expendable(&state, point, &together, &broken, now, configured)?;
    }
    let mut left = together.clone();
    for point in chosen {
        if left.remove(&point.id) {
            give_up(repository, point.id, by, why, now, |state| {
                expendable(state, &point.id, &together, &broken, now, configured)
            })?;
            dropped(point);
        }
    }
    Ok(())
}

/// Drops a point if `judge` agrees, then and in the state that the Drop follows. A hold that has run out is released first, in
/// the open: the log knows no clock.
pub(crate) fn give_up(
    repository: &Repository,
    point: PointId,
    by: &str,
    why: &str,
    now: Time,
    mut judge: impl FnMut(&LogState) -> Result<()>,
) -> Result<()> {
    let state = repository.refreshed_state()?;
    judge(&state)?;
    let holds = state.facts.points.get(&point).into_iter().flat_map(|live| &live.holds);
    for (id, _) in holds.filter(|(_, hold)| !holds_still(hold, now)) {
        repository.release_hold(*id, by, "expired")?;
    }
    Ok(repository.drop_point_if(point, by, why, |state| Ok(judge(state)?))?)
}

/// Points that need something which is known to be lost and lies nowhere else.
pub(crate) fn need_what_is_lost(repository: &Repository, state: &LogState) -> Result<BTreeSet<PointId>> {
    let mut broken = BTreeSet::new();
    if state.facts.lost.is_none() {
        return Ok(broken);
    }
    for id in state.facts.points.keys() {
        match repository.manifest(id) {
            Ok(_) => {}
            Err(error) if error.is_damage() => drop(broken.insert(*id)),
            Err(error) => return Err(error.into()),
        }
    }
    broken.extend(check::known_harm(repository, state, &Silent)?.into_values().flatten());
    Ok(broken)
}

/// A look at what lies in the store failed, and none as deep has passed since. A restore test that failed says less: it may have
/// been the test.
pub(crate) fn was_found_damaged(point: &LivePoint) -> bool {
    let passed_since = |failed: &Proof| {
        point.passed.iter().any(|(level, passed)| *level >= failed.level && passed.at > failed.at)
    };
    let looks = point.proofs.range(..ProofLevel::Restore).map(|(_, proof)| proof);
    looks.into_iter().any(|proof| !proof.passed && !passed_since(proof))
}

/// Whether `point` may go in this state, if the points of `together` go as well; `broken` are those that need what is lost. The
/// reason if not.
pub(crate) fn expendable(
    state: &LogState,
    point: &PointId,
    together: &BTreeSet<PointId>,
    broken: &BTreeSet<PointId>,
    now: Time,
    configured: &dyn Fn(&str, &str) -> bool,
) -> Result<()> {
    let refused = |message: String, hint: &str| Err(Failure::new(Kind::Refused, message).hint(hint));
    let short = point.short();
    let live = state.facts.points.get(point);
    let Some((live, app)) = live.and_then(|live| Some((live, &live.summary.as_ref()?.app))) else {
        return Err(Failure::new(
            Kind::NoRepository,
            format!("recovery point {short} is not there any more"),
        )
        .hint("`mainstay list` shows those that are."));
    };
    if let Some(hold) = live.holds.values().find(|hold| holds_still(hold, now)) {
        let why = hold.text.as_ref().map_or("for a reason that this key does not open".into(), |text| {
            format!("{}: {}", text.kind, text.reason)
        });
        return refused(
            format!("recovery point {short} is held ({why})"),
            "Release the hold first: `mainstay hold release POINT --reason WHY`.",
        );
    }
    let others = || {
        // A safety copy is a state that was given up, and no backup to rely on.
        let counts =
            |other: &LivePoint| other.summary.as_ref().is_some_and(|s| s.app == *app && !s.is_safety_copy());
        state
            .facts
            .points
            .iter()
            .filter(move |(id, other)| !together.contains(*id) && *id != point && counts(other))
    };
    let complete = |p: &LivePoint| p.summary.as_ref().is_some_and(|s| s.state == State::Complete);
    // What is damaged is no other's reason to go; it may go itself once a whole one is there.
    let whole = |id: &PointId, p: &LivePoint| !broken.contains(id) && !was_found_damaged(p);
    if complete(live) && !others().any(|(id, other)| complete(other) && whole(id, other)) {
        return refused(
            format!("recovery point {short} is the last complete one of {app}"),
            "Make a new backup first.",
        );
    }
    // What some other point has of the application says nothing of what it does not have: other sources, or the rest of one.
    let sources = live.summary.as_ref().map(|summary| summary.sources.as_slice()).unwrap_or_default();
    let last = sources.iter().find(|source| {
        source.state == State::Complete
            && configured(app, &source.name)
            && !others().any(|(id, other)| has(other, source) && whole(id, other))
    });
    if let (Some(source), true) = (last, complete(live)) {
        let name = &source.name;
        let partial = others().any(|(id, other)| has_part(other, name) && whole(id, other));
        return match partial {
            false => refused(
                format!("recovery point {short} is the last one of {app} with a complete {name}"),
                "Make a new backup of it first.",
            ),
            true => refused(
                format!(
                    "recovery point {short} is the last one of {app} with all of {name}; the others leave a part out"
                ),
                "Make a new backup of it first, without the rules that leave something out.",
            ),
        };
    }
    let proven = |p: &LivePoint| p.passed.contains_key(&ProofLevel::Restore);
    if proven(live) && !others().any(|(_, other)| proven(other)) {
        return refused(
            format!("recovery point {short} is the last proven one of {app}"),
            "Prove another one first: `mainstay verify APP --level restore`.",
        );
    }
    let last = sources.iter().find(|source| {
        source.state == State::Complete
            && configured(app, &source.name)
            && !others().any(|(_, other)| proven(other) && has(other, source))
    });
    if let (Some(source), true) = (last, proven(live)) {
        return refused(
            format!("recovery point {short} is the last proven one of {app} with {}", source.name),
            "Prove another one that has it first: `mainstay verify APP --point POINT --level restore`.",
        );
    }
    Ok(())
}

/// Whether a point has as much of a source as another point's `source`: one that leaves something out on purpose has less than all.
fn has(point: &LivePoint, source: &SourceSummary) -> bool {
    complete_of(point, &source.name).any(|held| source.partial || !held.partial)
}

fn has_part(point: &LivePoint, source: &str) -> bool {
    complete_of(point, source).next().is_some()
}

fn complete_of<'p>(point: &'p LivePoint, source: &str) -> impl Iterator<Item = &'p SourceSummary> {
    let sources = point.summary.as_ref().map(|summary| summary.sources.as_slice()).unwrap_or_default();
    sources.iter().filter(move |held| held.name == source && held.state == State::Complete)
}

/// Whether a hold has not run out. One whose end cannot be read has not.
fn holds_still(hold: &PlacedHold, now: Time) -> bool {
    hold.text.as_ref().and_then(|text| text.until).is_none_or(|until| until > now)
}

#[cfg(test)]
mod tests;
