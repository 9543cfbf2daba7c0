//! Holds on recovery points, and giving points up by hand.

use crate::points::PointInfo;
use mainstay_domain::{
    Clock, Failure, HoldId, Kind, PointId, Result, Time,
    point::{Hold, State},
    time::Span,
};
use mainstay_repository::Repository;

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
            .hint("`mainstay show` lists the holds on it."));
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

/// Gives up points by hand. Refuses, before anything is done, if one is held, or is the only complete or only proven one.
pub fn delete(
    repository: &Repository,
    all: &[PointInfo],
    chosen: &[PointInfo],
    by: &str,
    why: &str,
    now: Time,
) -> Result<()> {
    repository.certain_state()?;
    for point in chosen {
        refuse_if_needed(all, chosen, point, now)?;
    }
    for point in chosen {
        give_up(repository, point.id, &expired_holds(repository, point, now)?, by, why)?;
    }
    Ok(())
}

/// Releases the holds that have run out, in the open, and gives the point up. A hold placed meanwhile wins.
pub(crate) fn give_up(
    repository: &Repository,
    point: PointId,
    expired: &[(HoldId, Hold)],
    by: &str,
    why: &str,
) -> Result<()> {
    for (hold, _) in expired {
        repository.release_hold(*hold, by, "expired")?;
    }
    Ok(repository.drop_point(point, by, why)?)
}

fn refuse_if_needed(all: &[PointInfo], chosen: &[PointInfo], point: &PointInfo, now: Time) -> Result<()> {
    let refused = |message: String, hint: &str| Err(Failure::new(Kind::Refused, message).hint(hint));
    if let Some(hold) = point.holds.iter().find(|hold| hold.until.is_none_or(|until| until > now)) {
        return refused(
            format!("recovery point {} is held ({}: {})", point.id.short(), hold.kind, hold.reason),
            "Release the hold first: `mainstay hold release`.",
        );
    }
    let others = || {
        all.iter()
            .filter(|other| other.summary.app == point.summary.app && chosen.iter().all(|c| c.id != other.id))
    };
    let complete = |p: &PointInfo| p.summary.state == State::Complete;
    if complete(point) && !others().any(complete) {
        return refused(
            format!("recovery point {} is the last complete one of {}", point.id.short(), point.summary.app),
            "Make a new backup first.",
        );
    }
    if point.proven().is_some() && !others().any(|p| p.proven().is_some()) {
        return refused(
            format!("recovery point {} is the last proven one of {}", point.id.short(), point.summary.app),
            "Prove another one first: `mainstay verify --level restore`.",
        );
    }
    Ok(())
}
