//! `mainstay verify`: is it there, is it intact, does it decode, does it come back.

use crate::{access, points::PointInfo, prove, repair, wal};
use mainstay_domain::{
    Failure, Kind, Monitor, PointId, Result, Severity,
    point::{Proof, ProofLevel},
};
use mainstay_repository::{
    Repository,
    check::{self, Depth, Finding, Report},
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
    let mut report = check::check(repository, &ids, depth, access::threads(), monitor)?;
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
    // Of the archived log: no point is worse for what is wrong there, but the way from it to later moments.
    let log = wal::check::check(repository, points, depth > Depth::Objects, monitor)?;
    add_log(&mut report, log, monitor);
    Ok(report)
}

/// What was found in the archived log, beside what was found in the points. A gap that a base backup was made after is known and made up
/// for as far as it can be: it is told, and no reason to fail for as long as the older ones are kept.
pub(crate) fn add_log(report: &mut Report, log: wal::check::Report, monitor: &dyn Monitor) {
    report.objects += log.files;
    report.bytes += log.bytes;
    for broken in log.broken {
        match broken.is_closed() {
            true => monitor.notice(Severity::Warning, &broken.to_string()),
            false => report.findings.push(Finding {
                object: format!("wal {}", broken.file),
                problem: broken.to_string(),
                pack: None,
                points: Vec::new(),
            }),
        }
    }
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
