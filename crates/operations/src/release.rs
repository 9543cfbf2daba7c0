//! Which release of the application runs, and how far its schema is migrated: labels of a recovery point, so that a restore can be
//! matched with the code that fits it.
//!
//! What cannot be found out is told and left out. It stops no backup: data without a label is worth more than no data.

use crate::config::{AppConfig, MigrationConfig, ReleaseConfig};
use mainstay_domain::{Failure, Monitor, Result, Severity};
use mainstay_sources::{
    command,
    postgres::wire::{ConnectSpec, Connection, process_environment},
};
use std::collections::BTreeMap;

const RELEASE: &str = "release";
const MIGRATION: &str = "migration";
/// A label is a word, not a text.
const LONGEST: usize = 200;

/// The labels of a point: those given, and what the application says where they do not.
pub fn labels(
    app: &AppConfig,
    given: &BTreeMap<String, String>,
    monitor: &dyn Monitor,
) -> BTreeMap<String, String> {
    let mut labels = given.clone();
    let mut add = |name: &str, found: &dyn Fn() -> Option<Result<String>>| {
        if labels.contains_key(name) {
            return;
        }
        match found() {
            Some(Ok(value)) => drop(labels.insert(name.to_owned(), value)),
            Some(Err(failure)) => {
                let text = format!("the {name} of the application is not known: {}", failure.message);
                monitor.notice(Severity::Warning, &text);
            }
            None => {}
        }
    };
    add(RELEASE, &|| app.release.as_ref().map(release));
    add(MIGRATION, &|| app.migration.as_ref().map(migration));
    labels
}

fn release(config: &ReleaseConfig) -> Result<String> {
    let text = match config {
        ReleaseConfig::Command(line) => command::ask(line)?,
        ReleaseConfig::Env(name) => process_environment(name)
            .ok_or_else(|| Failure::usage(format!("the environment variable {name} is not set")))?,
        ReleaseConfig::File(path) => std::fs::read_to_string(path)
            .map_err(|error| Failure::usage(format!("{} cannot be read ({error})", path.display())))?,
    };
    word(&text)
}

fn migration(config: &MigrationConfig) -> Result<String> {
    let spec = ConnectSpec::parse(&config.url.resolve(&process_environment)?, &process_environment)?;
    let mut connection = Connection::connect(&spec)?;
    connection.execute("BEGIN READ ONLY")?;
    let answer = connection.query_text(&config.query)?;
    word(&answer.unwrap_or_default())
}

/// The first line, if it says anything.
fn word(text: &str) -> Result<String> {
    let line: String = text.lines().next().unwrap_or("").trim().chars().take(LONGEST).collect();
    if line.is_empty() { Err(Failure::failed("the answer is empty")) } else { Ok(line) }
}
