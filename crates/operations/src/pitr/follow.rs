//! How far the archived log goes on from a base backup without a gap.

use crate::wal::Holdings;
use mainstay_domain::{Lsn, Result, wal::Segment};
use mainstay_sources::postgres::{cluster::ClusterFacts, wal::Ancestry};
use std::collections::BTreeSet;

/// Where the log cannot be followed further although there is more of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Break {
    Missing(Segment),
    Damaged(Segment),
}

/// The archived segments from where a base backup begins on, as far as they follow one another; and where they break off, if
/// later ones are there. `damaged`: segments that were found to be.
pub(crate) fn follow(
    holdings: &Holdings<'_>,
    ancestry: &Ancestry,
    facts: &ClusterFacts,
    damaged: &BTreeSet<Segment>,
) -> Result<(Vec<Segment>, Option<Break>)> {
    let size = facts.segment_size;
    let mut segments = Vec::new();
    let mut number = Segment::holding(facts.timeline, facts.start, size);
    loop {
        let wanted = ancestry.segment(number, size);
        if damaged.contains(&wanted) {
            // The base backup may have its own copy.
            if !is_whole_in_record(facts, wanted) {
                return Ok((segments, Some(Break::Damaged(wanted))));
            }
        } else if holdings.has_by_now(wanted)? {
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
            if unsound {
                return Ok((segments, Some(Break::Damaged(wanted))));
            }
            let later = holdings.begun().any(|segment| {
                segment.number(size) > wanted.number(size) && ancestry.segment(segment, size) == segment
            });
            return Ok((segments, later.then_some(Break::Missing(wanted))));
        }
        number = number.next(size);
    }
}

/// The record holds its last segment as it was at the backup's end: what came later in it is in the archive or nowhere.
pub(crate) fn is_whole_in_record(facts: &ClusterFacts, segment: Segment) -> bool {
    segment.end(facts.segment_size) <= facts.stop && facts.wal.contains(&segment.to_string())
}

/// Where the log that can be replayed ends.
pub(super) fn end_of_log(
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
