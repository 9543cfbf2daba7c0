//! The base backups that a recovery may begin with.

use super::follow::is_whole_in_record;
use crate::{points::PointInfo, wal::Holdings};
use mainstay_domain::{Failure, Result, Time, point::State, wal::Segment};
use mainstay_repository::Repository;
use mainstay_sources::postgres::{
    cluster::{ClusterFacts, KIND, restore::Target},
    wal::Ancestry,
};

/// A base backup that a recovery may begin with.
pub(crate) struct Base {
    pub point: PointInfo,
    pub facts: ClusterFacts,
    /// Nothing in it is damaged.
    pub complete: bool,
    /// When the server confirmed its end: by the server's own clock, which its transactions go by, where that is known.
    pub consistent_at: Time,
}

/// The base backups of a source, oldest first. A damaged manifest is passed over: an older base backup does as well.
pub(crate) fn bases(repository: &Repository, points: &[PointInfo], source: &str) -> Result<Vec<Base>> {
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
            let facts = ClusterFacts::from_json(&record.facts)?;
            found.push(Base {
                point: point.clone(),
                complete: record.state == State::Complete,
                consistent_at: facts.stopped_at.or(record.consistent_at).unwrap_or(record.finished),
                facts,
            });
        }
    }
    Ok(found)
}

/// The end of a base backup in time: where its own recovery can end at the earliest.
pub(super) fn ended(base: &Base) -> Time {
    base.consistent_at
}
/// Whether the log leads from one base backup to a later one without a gap.
pub(super) fn leads_on(holdings: &Holdings<'_>, ancestry: &Ancestry, from: &Base, to: &Base) -> bool {
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

/// The newest base backup that ends before the target.
pub(super) fn choose_base<'b>(bases: &[&'b Base], target: &Target) -> Option<&'b Base> {
    let fits = |base: &&&Base| match target {
        Target::Time(time) => ended(base) <= *time,
        Target::Lsn(lsn) => base.facts.stop <= *lsn,
        Target::Xid(_) | Target::Name(_) | Target::Immediate | Target::Latest => true,
    };
    bases.iter().rev().find(fits).copied()
}

pub(super) fn before_all(oldest: &Base, source: &str) -> Failure {
    Failure::preflight(format!("no base backup of {source} ended before that"))
        .hint(format!("The oldest one ended at {}: nothing before it can be reached.", ended(oldest)))
}

/// The first base backup of a source after that of `point`, if the log leads from one to the other.
pub(crate) fn next_base(
    repository: &Repository,
    points: &[PointInfo],
    point: &PointInfo,
    source: &str,
) -> Result<Option<ClusterFacts>> {
    let later: Vec<PointInfo> =
        points.iter().filter(|other| other.committed_at >= point.committed_at).cloned().collect();
    let mut bases = bases(repository, &later, source)?.into_iter();
    let Some(own) = bases.next().filter(|base| base.point.id == point.id) else { return Ok(None) };
    let holdings = Holdings::read_in_part(repository, own.facts.system)?;
    let follows = |base: &Base| {
        base.facts.system == own.facts.system
            && base.facts.start >= own.facts.stop
            && holdings.ancestry(base.facts.timeline).includes(own.facts.timeline, own.facts.stop)
    };
    Ok(bases.find(follows).map(|base| base.facts))
}
