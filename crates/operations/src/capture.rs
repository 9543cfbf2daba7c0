//! Capturing the sources of an application into one session.

use crate::{config::SourceConfig, points};
use mainstay_domain::{
    Clock, Failure, Kind, Monitor, Result, Severity, Within,
    point::{Problem, SourceRecord, State},
    stream::Vault,
};
use mainstay_repository::{Repository, Session};
use mainstay_sources::{command, configuration, files, postgres, redis};

/// Whether a source can be captured at all, before anything is written.
pub fn probe(source: &SourceConfig, clock: &dyn Clock, monitor: &dyn Monitor) -> Result<()> {
    match source {
        SourceConfig::Files(config) => Ok(config.validate()?),
        SourceConfig::Cluster(config) => postgres::cluster::probe(config).map(drop),
        SourceConfig::Postgres(config) => postgres::capture::probe(config, clock, monitor).map(drop),
        SourceConfig::Redis(config) => redis::probe(config).map(drop),
        SourceConfig::Config(config) => config.validate(),
        SourceConfig::Command(config) => command::probe(config),
    }
}

/// A source, and why it cannot be captured if a probe said so.
pub struct Probed<'c> {
    pub name: &'c str,
    pub source: &'c SourceConfig,
    pub refused: Option<Failure>,
}

/// Captures every source, all at once, and returns their records in the order of `sources`.
///
/// A source that fails, or was refused by its probe, gives a record that says so. `Err` only if the session itself cannot go on: the store failed, or the
/// user stopped it.
pub fn all(
    session: &Session<'_>,
    repository: &Repository,
    app: &str,
    sources: Vec<Probed<'_>>,
    full: bool,
    clock: &dyn Clock,
    monitor: &dyn Monitor,
) -> Result<Vec<SourceRecord>> {
    let names: Vec<_> = sources.iter().map(|probed| (probed.name, probed.source.kind())).collect();
    let outcomes: Vec<Result<SourceRecord>> = std::thread::scope(|scope| {
        let running: Vec<_> = sources
            .into_iter()
            .map(|Probed { name, source, refused }| {
                scope.spawn(move || match refused {
                    Some(failure) => Err(failure),
                    None => one(session, repository, app, name, source, full, clock, monitor),
                })
            })
            .collect();
        running
            .into_iter()
            .map(|thread| {
                thread.join().unwrap_or_else(|_| Err(Failure::failed("a capturing thread panicked")))
            })
            .collect()
    });
    session.check().map_err(Failure::from)?;
    let mut records = Vec::new();
    for ((name, kind), outcome) in names.into_iter().zip(outcomes) {
        match outcome {
            Ok(record) => records.push(record),
            Err(failure) if failure.kind == Kind::Cancelled => return Err(failure),
            Err(failure) => records.push(failed(name, kind, &failure, clock)),
        }
    }
    for record in &records {
        for problem in &record.problems {
            let object =
                if problem.object.is_empty() { String::new() } else { format!(" {}", problem.object) };
            monitor.notice(problem.severity, &format!("{}{object}: {}", record.name, problem.message));
        }
    }
    Ok(records)
}

#[allow(clippy::too_many_arguments)] // one call, from the loop above
fn one(
    session: &Session<'_>,
    repository: &Repository,
    app: &str,
    name: &str,
    source: &SourceConfig,
    full: bool,
    clock: &dyn Clock,
    monitor: &dyn Monitor,
) -> Result<SourceRecord> {
    let monitor: &dyn Monitor = &Within::new(monitor, name);
    match source {
        SourceConfig::Files(config) => {
            let previous = previous_record(repository, app, name, monitor);
            // What was there the last time is the best guess at what is there now.
            monitor.step("files", previous.as_ref().map(|record| record.bytes));
            let vault: &dyn Vault = session.reader();
            let options = files::CaptureOptions { full, ..files::CaptureOptions::new(clock) };
            let record = files::capture(
                name,
                config,
                session,
                previous.as_ref().map(|record| (vault, record)),
                &options,
                monitor,
            )?;
            monitor.done("files", "");
            Ok(record)
        }
        SourceConfig::Cluster(config) => {
            let previous = previous_record(repository, app, name, monitor);
            let vault: &dyn Vault = session.reader();
            let options = postgres::cluster::Options {
                page_key: repository.keyring().current().page_key(),
                full,
                previous: previous.as_ref().map(|record| (vault, record)),
                clock,
            };
            let record = postgres::cluster::capture(config, session, &options, monitor)?;
            Ok(SourceRecord { name: name.to_owned(), ..record })
        }
        SourceConfig::Postgres(config) => {
            let row_key = repository.keyring().current().row_key();
            let record = postgres::capture::capture(config, session, row_key, clock, monitor)?;
            Ok(SourceRecord { name: name.to_owned(), ..record })
        }
        SourceConfig::Redis(config) => {
            let record = redis::capture(config, session, clock, monitor)?;
            Ok(SourceRecord { name: name.to_owned(), ..record })
        }
        SourceConfig::Config(config) => {
            let previous = previous_record(repository, app, name, monitor);
            monitor.step("config", previous.as_ref().map(|record| record.bytes));
            let vault: &dyn Vault = session.reader();
            let previous = previous.as_ref().map(|record| (vault, record));
            let options = files::CaptureOptions { full, ..files::CaptureOptions::new(clock) };
            let record = configuration::capture(name, config, session, previous, &options, monitor)?;
            monitor.done("config", "");
            Ok(record)
        }
        SourceConfig::Command(config) => {
            let record = command::capture(config, session, clock, monitor)?;
            Ok(SourceRecord { name: name.to_owned(), ..record })
        }
    }
}

/// What this source left in the newest point that has it. Without it everything is read again, so trouble is only told.
fn previous_record(
    repository: &Repository,
    app: &str,
    name: &str,
    monitor: &dyn Monitor,
) -> Option<SourceRecord> {
    let found = points::newest_with_source(repository, app, name).and_then(|point| match point {
        Some(point) => Ok(Some(repository.manifest(&point.id).map_err(Failure::from)?)),
        None => Ok(None),
    });
    match found {
        Ok(manifest) => manifest?.point.sources.into_iter().find(|record| record.name == name),
        Err(failure) => {
            let text = format!(
                "{name}: the previous recovery point cannot be read ({failure}); everything is read again"
            );
            monitor.notice(Severity::Warning, &text);
            None
        }
    }
}

fn failed(name: &str, kind: &str, failure: &Failure, clock: &dyn Clock) -> SourceRecord {
    let mut message = failure.with_causes();
    if let Some(hint) = &failure.hint {
        message = format!("{message}. {hint}");
    }
    let now = clock.now();
    SourceRecord {
        name: name.into(),
        kind: kind.into(),
        state: State::Failed,
        started: now,
        finished: now,
        consistent_at: None,
        streams: Vec::new(),
        facts: "{}".into(),
        problems: vec![Problem { severity: Severity::Error, object: String::new(), message }],
        bytes: 0,
        items: 0,
        partial: false,
    }
}
