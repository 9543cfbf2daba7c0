//! Where receiving begins: where what is archived ends, on the line of history that the server is on.

use super::super::{Holdings, retention};
use mainstay_domain::{
    Failure, Kind, Monitor, Result, Severity,
    wal::{Lsn, Segment, SegmentSize, WalFile},
};
use mainstay_repository::{
    Repository,
    wal::{Archive, Put},
};
use mainstay_sources::postgres::{
    replication::{Identity, Session, Trouble},
    wal::Ancestry,
};
use std::collections::BTreeSet;

/// Trouble with the archive. A store that is away comes back; what is wrong with what it holds does not mend itself.
pub fn of_archive(error: impl Into<Failure>) -> Trouble {
    let failure = error.into();
    match failure.kind {
        Kind::Failed => Trouble::Passing(failure),
        _ => Trouble::Other(failure),
    }
}

/// The server's line of history. Its history files, and those of the timelines before, are archived first: a segment of a timeline
/// of which nobody knows where it came from is of little use.
pub fn line_of_history(
    session: &mut Session,
    archive: &Archive<'_>,
    timeline: u32,
    monitor: &dyn Monitor,
) -> Result<Ancestry, Trouble> {
    if timeline == 1 {
        return Ok(Ancestry::root(1));
    }
    let text = session.history(timeline)?;
    let ancestry = Ancestry::parse(timeline, &String::from_utf8_lossy(&text)).ok_or_else(|| {
        Failure::failed(format!("the server's history of timeline {timeline} makes no sense"))
    })?;
    for switch in ancestry.switches.iter().filter(|switch| switch.from > 1) {
        match session.history(switch.from) {
            Ok(text) => {
                let _: Put = archive.put(&WalFile::History(switch.from), &text, None).map_err(of_archive)?;
            }
            // A server that was made from a base backup need not have those of its ancestors.
            Err(Trouble::Gone(_)) => {
                let text = format!(
                    "the server has no history of timeline {}: its own tells all that is needed",
                    switch.from
                );
                monitor.notice(Severity::Info, &text);
            }
            Err(trouble) => return Err(trouble),
        }
    }
    archive.put(&WalFile::History(timeline), &text, None).map_err(of_archive)?;
    Ok(ancestry)
}

/// The segments to begin with, best first. A later one is for when the server does not have the log of an earlier one any more; it is
/// there only if nothing is cut off by that: neither what is archived, nor a base backup.
pub fn beginnings(
    repository: &Repository,
    identity: &Identity,
    ancestry: &Ancestry,
    size: SegmentSize,
    slot_start: Option<Lsn>,
) -> Result<Vec<Segment>> {
    let holdings = Holdings::read_in_part(repository, identity.system)?;
    let next = match after_archived(holdings.segments(), ancestry, size) {
        Some(next) => Some(next),
        None => after_base(repository, identity, ancestry, size)?,
    };
    if let Some(next) = next {
        // Beyond it there are fragments only where a gap was accepted before.
        let open = last_of_line(holdings.begun(), ancestry, size);
        let open = open.filter(|open| open.number(size) > next.number(size) && !holdings.has(*open));
        return Ok([next].into_iter().chain(open).collect());
    }
    let places = [slot_start, Some(identity.flushed)];
    let mut found: Vec<Segment> = Vec::new();
    for lsn in places.into_iter().flatten().filter(|lsn| *lsn <= identity.flushed) {
        let segment = ancestry.segment(Segment::holding(identity.timeline, lsn, size), size);
        if !found.contains(&segment) {
            found.push(segment);
        }
    }
    Ok(found)
}

/// The segment within which the newest base backup of this line ends: that one is of no use without the log that follows.
fn after_base(
    repository: &Repository,
    identity: &Identity,
    ancestry: &Ancestry,
    size: SegmentSize,
) -> Result<Option<Segment>> {
    let bases = retention::live_bases(repository, &BTreeSet::new())?;
    let of_line = bases
        .iter()
        .filter(|facts| facts.system == identity.system && ancestry.includes(facts.timeline, facts.stop));
    let stop = of_line.map(|facts| facts.stop).filter(|stop| *stop <= identity.flushed).max();
    Ok(stop.map(|stop| ancestry.segment(Segment::holding(identity.timeline, stop, size), size)))
}

/// The segment that follows the last one that is archived whole on this line of history.
fn after_archived(
    archived: impl Iterator<Item = Segment>,
    ancestry: &Ancestry,
    size: SegmentSize,
) -> Option<Segment> {
    let last = last_of_line(archived, ancestry, size)?;
    Some(ancestry.segment(last.next(size), size))
}

fn last_of_line(
    segments: impl Iterator<Item = Segment>,
    ancestry: &Ancestry,
    size: SegmentSize,
) -> Option<Segment> {
    let on_line = segments.filter(|segment| ancestry.segment(*segment, size) == *segment);
    on_line.max_by_key(|segment| segment.number(size))
}

/// What to say where the server does not have the log that comes next.
pub fn gap(segment: Segment, cause: Failure) -> Failure {
    Failure::new(
        Kind::Refused,
        format!("the server does not have the WAL from {segment} on any more: the archive would have a gap"),
    )
    .hint(
        "Nothing after a gap can be reached from before it. If an archive_command or another receiver can still bring the segments, \
         let it. Else accept the gap, and make a new base backup at once: mainstay wal receive APP --accept-gap.",
    )
    .caused_by(cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: SegmentSize = SegmentSize::DEFAULT;

    #[test]
    fn receiving_goes_on_after_the_last_segment_of_the_servers_own_line() {
        let segments =
            |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect::<Vec<Segment>>();
        let after = |names: &[&str], ancestry: &Ancestry| {
            after_archived(segments(names).into_iter(), ancestry, SIZE).map(|segment| segment.to_string())
        };
        let root = Ancestry::root(1);
        let two = Ancestry::parse(2, "1\t0/5000110\tfailover").unwrap();
        assert_eq!(after(&[], &root), None);
        let names = ["000000010000000000000003", "000000010000000000000004"];
        assert_eq!(after(&names, &root).as_deref(), Some("000000010000000000000005"));
        // Within the next one the server went over to timeline 2, whose file has all of it.
        assert_eq!(after(&names, &two).as_deref(), Some("000000020000000000000005"));
        // What the old primary archived after that is not on the line.
        let stray = ["000000010000000000000004", "000000010000000000000005", "000000010000000000000006"];
        assert_eq!(after(&stray, &two).as_deref(), Some("000000020000000000000005"));
    }
}
