//! `mainstay verify`: is it there, is it intact, does it decode, does it come back.

use crate::{access, points::PointInfo, prove, repair};
use mainstay_domain::{
    Failure, Kind, Monitor, PointId, Result, Severity,
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
    monitor: &dyn Monitor,
) -> Result<Report> {
    let depth = match level {
        ProofLevel::Objects => Depth::Objects,
        ProofLevel::Packs => Depth::Packs,
        ProofLevel::Data | ProofLevel::Restore => Depth::Data,
    };
    crate::scratch_folder::remove_all_leftovers(monitor);
    let ids: Vec<_> = points.iter().map(|point| point.id).collect();
    monitor.step("check", None);
    let report = check::check(repository, &ids, depth, access::threads(), monitor)?;
    if monitor.cancelled() {
        return Err(Failure::new(Kind::Cancelled, "the check was stopped")
            .hint("Nothing was recorded about the recovery points."));
    }
    monitor.done("check", "");
    repair::note_lost(repository, &report, monitor);
    if depth > Depth::Objects {
        repair::note_found(repository, monitor)?;
    }
    // The deepest look that was taken: the others follow from it, and a log entry for each point is enough.
    record(repository, &ids, level, &report, monitor);
    Ok(report)
}

pub(crate) fn level(depth: Depth) -> ProofLevel {
    match depth {
        Depth::Objects => ProofLevel::Objects,
        Depth::Packs => ProofLevel::Packs,
        Depth::Data => ProofLevel::Data,
    }
}

/// Writes down of each point whether it was found whole. Best effort: what was found matters more to whoever asked, and a store
/// that takes no writes is looked at all the same.
pub(crate) fn record(
    repository: &Repository,
    points: &[PointId],
    level: ProofLevel,
    report: &Report,
    monitor: &dyn Monitor,
) {
    for point in points.iter().filter(|point| !report.gone.contains(point)) {
        let passed = !report.findings.iter().any(|f| f.points.contains(point));
        let at = repository.clock().now();
        let proof = Proof { at, level, passed, restore_millis: 0, report: String::new() };
        if let Err(error) = repository.record_proof(*point, proof) {
            let text = format!("the log could not be told what was found ({error}); it is known here only");
            return monitor.notice(Severity::Warning, &text);
        }
    }
}

#[cfg(test)]
mod tests;
