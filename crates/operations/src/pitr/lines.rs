//! The lines of history that an archive holds, and which of them is meant.

use super::{Resolved, base::Base};
use crate::wal::Holdings;
use mainstay_domain::{Failure, Result, Time, wal::Segment};
use mainstay_sources::postgres::wal::{Ancestry, Switch};
use serde::Serialize;
use std::collections::BTreeSet;

/// The timelines that may be meant: the one that is asked for; or every end of history that the newest base backup leads to.
/// A timeline is such an end if none came from it, or if it went on after one did.
pub(super) fn lines_of_history(
    holdings: &Holdings<'_>,
    newest: &Base,
    asked: Option<u32>,
) -> Result<Vec<u32>> {
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
    holdings.refuse_unknown_after(own)?;
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
pub(super) fn choose_line<'r>(
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

/// Another line of history in the archive, which goes on where the one that is followed does not lead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Other {
    pub timeline: u32,
    /// Where it came from: the timeline before and the position.
    pub from: Option<String>,
    pub last_end: Time,
}

impl std::fmt::Display for Other {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "timeline {}", self.timeline)?;
        if let Some(from) = &self.from {
            write!(f, " (from {from})")?;
        }
        write!(f, ", with transactions up to {}", self.last_end)
    }
}

/// The other lines of history on which something was written after `since`. What an old primary left behind that has stopped since
/// then is none.
pub fn others(holdings: &Holdings<'_>, followed: &Ancestry, since: Time) -> Result<Vec<Other>> {
    let size = holdings.segment_size;
    // Whether a timeline has log beyond the place where another one left it.
    let goes_beyond = |switch: &Switch| {
        let last = holdings.begun().filter(|segment| segment.timeline == switch.from).last();
        last.is_some_and(|last| {
            last.number(size) > Segment::ending(switch.from, switch.at, size).number(size)
        })
    };
    let mut found = Vec::new();
    for timeline in holdings.timelines().into_iter().filter(|timeline| *timeline != followed.timeline) {
        let left_behind = followed.switches.iter().find(|switch| switch.from == timeline);
        let ancestry = holdings.ancestry(timeline);
        let leads_on = ancestry.switches.iter().find(|switch| switch.from == followed.timeline);
        // What the followed one came from, up to there; or what came from it where it ends: one line, further on.
        if left_behind.or(leads_on).is_some_and(|switch| !goes_beyond(switch)) {
            continue;
        }
        if let Some(last_end) = holdings.last_end(timeline, None)?.filter(|end| *end > since) {
            let switch = ancestry.switches.last().map(|s| format!("{} at {}", s.from, s.at));
            found.push(Other { timeline, from: switch, last_end });
        }
    }
    Ok(found)
}

fn numbers(timelines: &[u32]) -> String {
    timelines.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
