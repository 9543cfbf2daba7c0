//! Proving a command's output: it is restored into a scratch directory, and is byte for byte what the command wrote.

use super::{SourceReport, Verdict, empty, millis};
use crate::restore::Opened;
use mainstay_domain::{Clock, Failure, Result};
use mainstay_sources::command;
use std::path::Path;

pub(super) fn prove(opened: &Opened<'_>, scratch: &Path, clock: &dyn Clock) -> Result<SourceReport> {
    let record = &opened.record;
    let destination = scratch.join(&record.name);
    let path = opened.plan_output(&destination)?;
    let begun = clock.now();
    let bytes = opened.restore_output(&destination)?;
    let restored_at = clock.now();
    let difference = command::compare(record, &path)?;
    let compared_at = clock.now();
    std::fs::remove_dir_all(&destination)
        .map_err(|error| Failure::failed("the restored output could not be removed").caused_by(error))?;
    let verdict = if difference.is_none() { Verdict::Passed } else { Verdict::Failed };
    Ok(SourceReport {
        compared: "the output: every byte, by its hash when it was captured".into(),
        differences: difference.into_iter().collect(),
        restore_millis: millis(restored_at.since(begun)),
        compare_millis: millis(compared_at.since(restored_at)),
        bytes,
        items: 1,
        environment: "a scratch directory".into(),
        ..empty(&record.name, &record.kind, verdict)
    })
}
