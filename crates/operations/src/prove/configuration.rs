//! Proving a configuration: its files as any files, and its tables by rows and bytes.

use super::{SourceReport, Verdict, empty, millis, prove_files};
use crate::restore::Opened;
use mainstay_domain::{Clock, Failure, Monitor, Result, point::State};
use mainstay_sources::{configuration, files};
use std::path::Path;

pub(super) fn prove(
    opened: &Opened<'_>,
    scratch: &Path,
    clock: &dyn Clock,
    monitor: &dyn Monitor,
) -> Result<SourceReport> {
    let record = &opened.record;
    let whole = if record.state == State::Complete { Verdict::Passed } else { Verdict::Partial };
    let mut report = match record.stream(files::LISTING) {
        Some(_) => prove_files(opened, scratch, clock, monitor)?,
        None => SourceReport {
            environment: "a scratch directory".into(),
            ..empty(&record.name, &record.kind, whole)
        },
    };
    let tables = configuration::tables(record)?;
    if tables.is_empty() {
        return Ok(report);
    }
    let destination = scratch.join(format!("{}.tables", record.name));
    let begun = clock.now();
    let bytes = opened.restore_tables(&destination)?;
    let restored_at = clock.now();
    let differences = configuration::verify_tables(record, &destination)?;
    let compared_at = clock.now();
    std::fs::remove_dir_all(&destination)
        .map_err(|error| Failure::failed("the restored tables could not be removed").caused_by(error))?;
    if !differences.is_empty() {
        report.verdict = Verdict::Failed;
    }
    report.differences.extend(differences);
    let rows: u64 = tables.iter().map(|table| table.rows).sum();
    let of_tables = format!("{rows} rows of {} tables, each a JSON object", tables.len());
    report.compared = match record.stream(files::LISTING) {
        Some(_) => format!("{}; {of_tables}", report.compared),
        None => of_tables,
    };
    report.restore_millis += millis(restored_at.since(begun));
    report.compare_millis += millis(compared_at.since(restored_at));
    report.bytes += bytes;
    report.items += rows;
    Ok(report)
}
