//! `mainstay verify`: is it there, is it intact, does it decode, does it come back.

use crate::{access, points::PointInfo, prove, repair};
use mainstay_domain::{
    Clock, Failure, Kind, Monitor, Result,
    point::{Proof, ProofLevel},
};
use mainstay_repository::{
    Repository,
    check::{self, Depth, Report},
};

pub use prove::{Report as ProofReport, SourceReport, Verdict, prove};

/// Checks what the points need at a depth short of restoring, and records for each point that it was looked at.
pub fn check(
    repository: &Repository,
    points: &[PointInfo],
    level: ProofLevel,
    clock: &dyn Clock,
    monitor: &dyn Monitor,
) -> Result<Report> {
    let depth = match level {
        ProofLevel::Objects => Depth::Objects,
        ProofLevel::Packs => Depth::Packs,
        ProofLevel::Data | ProofLevel::Restore => Depth::Data,
    };
    let ids: Vec<_> = points.iter().map(|point| point.id).collect();
    monitor.step("check", None);
    let report = check::check(repository, &ids, depth, access::threads(), monitor)?;
    if monitor.cancelled() {
        return Err(Failure::new(Kind::Cancelled, "the check was stopped")
            .hint("Nothing was recorded about the recovery points."));
    }
    monitor.done("check", "");
    repair::note_lost(repository, &report, monitor);
    // The deepest look that was taken: the others follow from it, and a log entry for each point is enough.
    for point in points {
        let passed = !report.findings.iter().any(|f| f.points.is_empty() || f.points.contains(&point.id));
        let proof = Proof { at: clock.now(), level, passed, restore_millis: 0, report: String::new() };
        repository.record_proof(point.id, proof)?;
    }
    Ok(report)
}
