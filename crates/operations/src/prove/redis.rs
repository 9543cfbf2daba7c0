//! Proving a captured Redis: a throw-away server loads it, and every key is looked up in it.

use super::{SourceReport, Verdict, millis};
use crate::{
    config::{Config, SourceConfig},
    restore::Opened,
};
use mainstay_domain::{Clock, Monitor, Result, point::State};
use mainstay_sources::redis::{self, RedisFacts};
use std::path::PathBuf;

pub(super) fn prove(
    config: Option<&Config>,
    opened: &Opened<'_>,
    clock: &dyn Clock,
    monitor: &dyn Monitor,
) -> Result<SourceReport> {
    let record = &opened.record;
    let facts = RedisFacts::from_json(&record.facts)?;
    let program = server(config, opened);
    // What this machine lacks is known before anything is read.
    redis::program(program.as_deref())?;
    let begun = clock.now();
    let sandbox = redis::restore::sandbox(&opened.reader, record, program.as_deref(), monitor)?;
    let restored_at = clock.now();
    let comparison = redis::compare(&opened.reader, record, &sandbox, clock, monitor)?;
    let compared_at = clock.now();
    let environment = format!("a throw-away Redis {}", sandbox.version);
    sandbox.stop();
    let verdict = match (comparison.is_equal(), comparison.not_compared.is_empty(), record.state) {
        (false, ..) => Verdict::Failed,
        (true, true, State::Complete) => Verdict::Passed,
        _ => Verdict::Partial,
    };
    let mut differences = comparison.differences;
    if comparison.further > 0 {
        differences.push(format!("and {} more", comparison.further));
    }
    let expired = match comparison.expired {
        0 => String::new(),
        expired => format!("; {expired} have expired since"),
    };
    let databases = facts.census.map_or(0, |census| census.databases.len());
    Ok(SourceReport {
        source: record.name.clone(),
        kind: record.kind.clone(),
        verdict,
        compared: format!(
            "{} keys of {databases} databases: name, type and lifetime{expired}",
            comparison.keys
        ),
        differences,
        not_compared: comparison.not_compared,
        problems: Vec::new(),
        restore_millis: millis(restored_at.since(begun)),
        compare_millis: millis(compared_at.since(restored_at)),
        bytes: record.bytes,
        items: comparison.keys,
        environment,
    })
}

/// Where the configuration says that the server's program is.
fn server(config: Option<&Config>, opened: &Opened<'_>) -> Option<PathBuf> {
    match config?.apps.get(&opened.point.summary.app)?.sources.get(&opened.record.name)? {
        SourceConfig::Redis(redis) => redis.server.clone(),
        _ => None,
    }
}
