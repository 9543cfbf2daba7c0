//! Whether an archive holds two histories of a cluster: an old primary, a copy or a restore that went on beside the one that is backed up.
//!
//! The newest base backup decides which one a restore follows. Where something is written on another one, that may be the wrong one, and
//! somebody must be told.

use super::{Holdings, check};
use crate::{pitr::others, points::PointInfo};
use mainstay_domain::{Result, Time};
use mainstay_repository::Repository;

/// What there is to say of the clusters of these points, in sentences: on which other line of history something was written since the base
/// backup before the newest one. What an old primary left behind that stopped before is no concern.
pub fn concerns(repository: &Repository, points: &[PointInfo]) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for (system, bases) in check::bases_of(repository, points)? {
        let Some((point, _, facts)) = bases.0.last() else { continue };
        let before = bases.0.len().checked_sub(2).map(|before| bases.0[before].1);
        let since = before.unwrap_or(Time(i64::MIN));
        let holdings = Holdings::read_in_part(repository, system)?;
        let others = others(&holdings, &holdings.ancestry(facts.timeline), since)?;
        if others.is_empty() {
            continue;
        }
        let named: Vec<String> = others.iter().map(ToString::to_string).collect();
        found.push(format!(
            "the archive of cluster {system} has two histories: the newest base backup, {}, is of timeline {}, and beside it there is {}. A \
             restore follows the base backup: if that is of the wrong server, make one of the right one, and stop the other",
            point.short(),
            facts.timeline,
            named.join("; ")
        ));
    }
    Ok(found)
}
