//! Replaces a living database by a restored one, with the way back kept open.
//!
//! The restored database is made beside the living one and compared; only then are sessions ended and both renamed, in one
//! transaction: nobody ever sees neither or both. The old one stays under a dated name until it is let go. While that goes
//! on, the restored database carries a mark (its comment), so that what a crash left half done is found and settled by the
//! next run, before it looks at anything ([`settle`]). Where databases may not be renamed, schemas are swapped in one
//! transaction.

mod databases;
mod lacking;
mod plan;
mod schemas;

pub use databases::{HalfDone, half_done, kept, let_go, settle, swap_back};
pub use plan::{Method, Plan, plan};

use super::{
    compare::{self, Comparison, compare},
    facts::Facts,
    restore::{self, Report, Target, restore},
    wire::ConnectSpec,
};
use lacking::Lacking;
use mainstay_domain::{Failure, Kind, Monitor, Result, Time, point::SourceRecord, stream::Vault};
use serde::Serialize;
use std::time::Duration;

#[derive(Debug, Clone)]
pub struct Options {
    pub restore: restore::Options,
    pub compare: compare::Options,
    /// Replace even by a recovery point that lacks something; the plan lists what. It accepts nothing else: what the point
    /// has must come back whole and equal.
    pub accept_partial: bool,
    /// How long to wait for sessions to end after they were told to.
    pub wait: Duration,
    /// What the dated names say.
    pub now: Time,
}

/// What a replacement did.
#[derive(Debug, Clone, Serialize)]
pub struct Replaced {
    pub method: Method,
    /// Where the old one is: a database, or schemas of the same database.
    pub kept: Vec<String>,
    pub sessions_ended: u64,
    pub restored: Report,
    pub comparison: Comparison,
    /// What else is to be done by hand.
    pub notices: Vec<String>,
}

/// Replaces the database `live` on the server of `server` (whose own database is the one to administer from).
///
/// # Errors
/// Nothing was changed: the plan refuses (`Preflight`, `Refused`). The restored database stands beside the living one, which is
/// as it was: the restore is not complete, the comparison found differences (`Verification`), sessions do not end (`Busy`).
pub fn replace(
    vault: &dyn Vault,
    record: &SourceRecord,
    server: &ConnectSpec,
    live: &str,
    options: &Options,
    monitor: &dyn Monitor,
) -> Result<Replaced> {
    settle(server, live)?;
    let plan = plan(vault, record, server, live, options)?;
    plan.refuse()?;
    let (target, selection) = match &plan.method {
        Method::Databases { beside, .. } => (
            Target { server: server.clone(), database: beside.clone(), into_existing: false },
            Default::default(),
        ),
        Method::Schemas { schemas, suffix, .. } => {
            let selection = restore::Selection {
                schemas: schemas.clone(),
                schema_suffix: Some(suffix.clone()),
                ..restore::Selection::default()
            };
            (Target { server: server.clone(), database: live.to_owned(), into_existing: true }, selection)
        }
    };
    let restoring = restore::Options { selection: selection.clone(), ..options.restore.clone() };
    let restored = restore(vault, record, &target, &restoring, monitor)?;
    let beside = plan.method.beside();
    let untouched =
        format!("{live} is as it was, and what was restored is in {beside}: look at it, then drop it.");
    let facts = Facts::from_json(&record.facts)?;
    let lacking = Lacking::of(&facts, &restored, options.accept_partial);
    if let Some(first) = lacking.errors(&restored).next() {
        return Err(Failure::new(
            Kind::Incomplete,
            format!("the restore beside {live} is not complete: {}: {}", first.object, first.message),
        )
        .hint(untouched));
    }
    // Each difference is looked at: one that is not listed cannot be explained.
    let left_out = compare::LeftOut::of(&options.restore);
    let comparing = compare::Options { selection, most: usize::MAX, left_out, ..options.compare.clone() };
    let spec = server.with_database(&target.database);
    let comparison = compare(vault, record, &spec, &comparing, monitor)?;
    if let Some(first) = lacking.differences(&comparison).next() {
        return Err(Failure::verification(format!("what was restored is not what was captured: {first}"))
            .hint(untouched));
    }
    if monitor.cancelled() {
        return Err(Failure::new(Kind::Cancelled, "the replacement was stopped").hint(untouched));
    }
    monitor.step("swap", None);
    let sessions_ended = match &plan.method {
        Method::Databases { beside, kept } => databases::swap(server, live, beside, kept, options.wait)?,
        Method::Schemas { schemas, suffix, kept_suffix } => {
            schemas::swap(&spec, schemas, suffix, kept_suffix)?;
            0
        }
    };
    monitor.done("swap", "");
    Ok(Replaced {
        kept: plan.method.kept(),
        method: plan.method,
        sessions_ended,
        restored,
        comparison,
        notices: plan.left_behind,
    })
}
