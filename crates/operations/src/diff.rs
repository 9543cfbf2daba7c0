//! `mainstay diff`: what changed between two recovery points, or between a point and what lives now.
//!
//! Files are compared entry by entry; against what lives, by kind, size, time, mode and owner. A database's objects are compared
//! by their texts, its tables by row count and digest, and the rows of those that differ by primary key: between two points only
//! chunks are read that the two do not share, of a living database every row.

use crate::{
    config::{AppConfig, SourceConfig},
    restore::Opened,
};
use mainstay_domain::{ByteSize, Failure, Monitor, Result};
use mainstay_sources::{
    command::{self, CommandFacts},
    configuration,
    files::{self, Aspect, ChangeKind},
    postgres::{
        cluster,
        config::{Rules, partition_ancestors},
        diff as database,
        facts::{Facts, QualifiedName},
    },
    redis::{self, Census, RedisFacts},
};
use serde::Serialize;
use std::collections::BTreeSet;

pub use mainstay_sources::postgres::diff::{RowChange, TableDiff};

/// Differences of living files that are named; the rest is counted.
const MOST_FILES: usize = 100_000;

/// What became of one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Became {
    Added,
    Removed,
    Changed,
}

/// One object that is not the same in both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    pub source: String,
    /// A path, a table, or another object of a database.
    pub object: String,
    pub became: Became,
    /// What changed, in a few words; empty where `became` says all.
    pub detail: String,
}

/// The rows of one table that are not the same in both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rows {
    pub source: String,
    #[serde(flatten)]
    pub table: TableDiff,
}

/// Something that could not be compared, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NotCompared {
    pub source: String,
    pub object: String,
    pub reason: String,
}

/// What a comparison comes upon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    Difference(Difference),
    Rows(Rows),
    NotCompared(NotCompared),
}

/// How to compare.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The key of row digests: that of the repository's dedup domain.
    pub row_key: [u8; 16],
    /// Changed rows of each kind that are shown of a table.
    pub samples: usize,
}

impl Options {
    /// Values of what the configuration calls sensitive today are not shown, even if it did not when it was captured.
    fn of_database(&self, config: Option<&SourceConfig>, facts: &Facts) -> Result<database::Options> {
        let mut options = database::Options { samples: self.samples, ..database::Options::new(self.row_key) };
        if let Some(SourceConfig::Postgres(config)) = config {
            let rules = Rules::new(config)?;
            let tables = facts.inventory.tables.iter();
            options.sensitive = tables
                .map(|table| {
                    let name = QualifiedName { schema: table.schema.clone(), name: table.name.clone() };
                    (rules.policy(&name, &partition_ancestors(&facts.inventory, table)), name)
                })
                .filter(|(policy, _)| policy.sensitive)
                .map(|(_, name)| name)
                .collect();
        }
        Ok(options)
    }
}

/// Calls `visit` with each difference of one source between two points, in the source's own order. `app`: the application as
/// it is configured today, if it is.
pub fn points(
    app: Option<&AppConfig>,
    before: &Opened<'_>,
    after: &Opened<'_>,
    options: Options,
    monitor: &dyn Monitor,
    visit: &mut dyn FnMut(Finding) -> Result<()>,
) -> Result<()> {
    let source = after.record.name.clone();
    if before.record.kind != after.record.kind {
        return Err(Failure::usage(format!(
            "source {source} is of another kind in the other recovery point"
        )));
    }
    let uncaptured = |opened: &Opened<'_>| opened.record.streams.is_empty();
    let reason = match (uncaptured(before), uncaptured(after), after.record.kind == cluster::KIND) {
        (true, ..) => Some("it was not captured in the earlier point"),
        (_, true, _) => Some("it was not captured in the later point"),
        (.., true) => Some(
            "a whole cluster changes all the time; compare a database of it, as a source of kind postgres",
        ),
        _ => None,
    };
    if let Some(reason) = reason {
        return visit(Finding::NotCompared(NotCompared {
            source,
            object: "all of it".into(),
            reason: reason.into(),
        }));
    }
    match after.record.kind.as_str() {
        redis::KIND => return keyspaces(before, after, visit),
        configuration::KIND => return settings(before, after, visit),
        command::KIND => return outputs(before, after, visit),
        _ => {}
    }
    if after.record.kind != files::KIND {
        let (old, new) = (facts(before)?, facts(after)?);
        let options = options.of_database(app.and_then(|app| app.sources.get(&source)), &old)?;
        let (before, after) = ((&before.reader as _, &before.record), (&after.reader as _, &after.record));
        let found = database::diff(before, after, &options, monitor)?;
        return told(&source, found, &old, Some(&new), visit);
    }
    let homes = files::Facts::of(&after.record);
    for change in files::diff((&before.reader, &before.record), (&after.reader, &after.record))? {
        let change = change?;
        let (became, detail) = match change.kind {
            ChangeKind::Added => (Became::Added, ""),
            ChangeKind::Removed => (Became::Removed, ""),
            ChangeKind::Content => (Became::Changed, "content"),
            ChangeKind::Metadata => (Became::Changed, "mode, owner, time or attributes"),
        };
        let object = homes.at_home(&files::show_at(&change.path));
        let detail = detail.to_owned();
        visit(Finding::Difference(Difference { source: source.clone(), object, became, detail }))?;
    }
    Ok(())
}

/// Calls `visit` with each difference between a source of a point and what lives now.
pub fn live(
    app: &AppConfig,
    opened: &Opened<'_>,
    options: Options,
    monitor: &dyn Monitor,
    visit: &mut dyn FnMut(Finding) -> Result<()>,
) -> Result<()> {
    let source = opened.record.name.clone();
    let config = app.sources.get(&source);
    match config {
        Some(SourceConfig::Command(_)) => {
            visit(not_compared(&source, "output", "the command is not run; compare two recovery points"))
        }
        Some(SourceConfig::Config(config)) => {
            if !config.tables.is_empty() {
                visit(not_compared(
                    &source,
                    "tables",
                    "they are not asked for; compare two recovery points",
                ))?;
            }
            match opened.record.stream(files::LISTING) {
                Some(_) => live_files(opened, visit, monitor),
                None => Ok(()),
            }
        }
        Some(SourceConfig::Files(_)) => live_files(opened, visit, monitor),
        Some(SourceConfig::Postgres(postgres)) => {
            let facts = facts(opened)?;
            let options = options.of_database(config, &facts)?;
            let spec = postgres.connect_spec()?;
            let found = database::diff_live(&opened.reader, &opened.record, &spec, &options, monitor)?;
            told(&source, found, &facts, None, visit)
        }
        Some(SourceConfig::Redis(_)) => visit(not_compared(
            &source,
            "keys",
            "a Redis that lives changes all the time; compare two recovery points",
        )),
        Some(SourceConfig::Cluster(_)) => {
            Err(Failure::usage(format!("{source} is a whole cluster, which changes all the time"))
                .hint("Compare a database of it: add a source of kind postgres."))
        }
        None => Err(Failure::usage(format!("the configuration has no source named {source:?} any more"))
            .hint("Compare two recovery points instead, or put it back.")),
    }
}

/// What lives in the place of captured files.
fn live_files(
    opened: &Opened<'_>,
    visit: &mut dyn FnMut(Finding) -> Result<()>,
    monitor: &dyn Monitor,
) -> Result<()> {
    let source = opened.record.name.clone();
    let found = files::compare_live(&opened.reader, &opened.record, false, MOST_FILES, monitor)?;
    let listed = found.differences.len() as u64;
    let homes = files::Facts::of(&opened.record);
    // One line for each path, whatever is different in it.
    for of_one in found.differences.chunk_by(|a, b| a.path == b.path) {
        let became = match of_one.iter().map(|d| d.aspect).min() {
            Some(Aspect::Missing) => Became::Removed,
            Some(Aspect::Extra) => Became::Added,
            _ => Became::Changed,
        };
        let words = of_one.iter().filter(|d| !matches!(d.aspect, Aspect::Missing | Aspect::Extra));
        let words: Vec<String> = words
            .map(|d| match d.detail.as_str() {
                "" => d.aspect.to_string(),
                detail => format!("{}: {detail}", d.aspect),
            })
            .collect();
        let (source, object, detail) = (source.clone(), homes.at_home(&of_one[0].path), words.join("; "));
        visit(Finding::Difference(Difference { source, object, became, detail }))?;
    }
    match found.difference_count.saturating_sub(listed) {
        0 => Ok(()),
        more => visit(Finding::Difference(Difference {
            source,
            object: format!("{more} more differences"),
            became: Became::Changed,
            detail: "not listed".to_owned(),
        })),
    }
}

fn not_compared(source: &str, object: &str, reason: &str) -> Finding {
    Finding::NotCompared(NotCompared {
        source: source.to_owned(),
        object: object.to_owned(),
        reason: reason.to_owned(),
    })
}

/// Two captures of a configuration, line by line, without what looks like a secret.
fn settings(
    before: &Opened<'_>,
    after: &Opened<'_>,
    visit: &mut dyn FnMut(Finding) -> Result<()>,
) -> Result<()> {
    let source = &after.record.name;
    let found = configuration::diff::diff((&before.reader, &before.record), (&after.reader, &after.record))?;
    let homes = files::Facts::of(&after.record);
    for change in found {
        let (became, detail) = match change.kind {
            ChangeKind::Added => (Became::Added, String::new()),
            ChangeKind::Removed => (Became::Removed, String::new()),
            ChangeKind::Content if change.lines.is_empty() => (Became::Changed, "content".to_owned()),
            ChangeKind::Content => (Became::Changed, change.lines.join("  ")),
            ChangeKind::Metadata => (Became::Changed, "mode, owner, time or attributes".to_owned()),
        };
        visit(Finding::Difference(Difference {
            source: source.clone(),
            object: homes.at_home(&change.object),
            became,
            detail,
        }))?;
    }
    Ok(())
}

/// Two outputs of a command.
fn outputs(
    before: &Opened<'_>,
    after: &Opened<'_>,
    visit: &mut dyn FnMut(Finding) -> Result<()>,
) -> Result<()> {
    let facts = |opened: &Opened<'_>| CommandFacts::from_json(&opened.record.facts);
    let (was, is) = (facts(before)?, facts(after)?);
    if was.hash == is.hash {
        return Ok(());
    }
    let detail = format!("{}, now {}", ByteSize(was.bytes), ByteSize(is.bytes));
    let (source, object) = (after.record.name.clone(), is.name);
    visit(Finding::Difference(Difference { source, object, became: Became::Changed, detail }))
}

/// Two captures of a Redis: how many keys each database has.
fn keyspaces(
    before: &Opened<'_>,
    after: &Opened<'_>,
    visit: &mut dyn FnMut(Finding) -> Result<()>,
) -> Result<()> {
    let source = &after.record.name;
    let census = |opened: &Opened<'_>| RedisFacts::from_json(&opened.record.facts).map(|facts| facts.census);
    let (Some(was), Some(is)) = (census(before)?, census(after)?) else {
        return visit(not_compared(source, "keys", "they could not be counted when they were captured"));
    };
    let numbers: BTreeSet<u32> = was.databases.keys().chain(is.databases.keys()).copied().collect();
    for number in numbers {
        let keys = |census: &Census| census.databases.get(&number).map(|count| count.keys);
        let (became, detail) = match (keys(&was), keys(&is)) {
            (Some(was), Some(is)) if was == is => continue,
            (Some(was), Some(is)) => (Became::Changed, format!("keys: {was}, now {is}")),
            (Some(was), None) => (Became::Removed, format!("keys: {was}")),
            (None, is) => (Became::Added, format!("keys: {}", is.unwrap_or(0))),
        };
        let object = format!("database {number}");
        visit(Finding::Difference(Difference { source: source.clone(), object, became, detail }))?;
    }
    visit(not_compared(source, "values of keys", "only the numbers of keys are compared"))
}

fn facts(opened: &Opened<'_>) -> Result<Facts> {
    Facts::from_json(&opened.record.facts).map_err(|error| {
        Failure::verification("the description of the captured database cannot be used").caused_by(error)
    })
}

/// Tells what was found in a database: objects first, then rows, then what could not be compared.
fn told(
    source: &str,
    found: database::Diff,
    before: &Facts,
    after: Option<&Facts>,
    visit: &mut dyn FnMut(Finding) -> Result<()>,
) -> Result<()> {
    // How much goes or comes with a table.
    let rows = |facts: Option<&Facts>, kind: &str, object: &str| {
        let mut tables = facts.filter(|_| kind == "table").into_iter().flat_map(|facts| &facts.tables);
        let table = tables.find(|table| format!("{}.{}", table.schema, table.name) == object);
        table.filter(|table| table.skipped.is_none()).map_or_else(String::new, |table| match table.rows {
            1 => "1 row".to_owned(),
            rows => format!("{rows} rows"),
        })
    };
    for object in found.objects {
        let name = format!("{} {}", object.kind, object.object);
        let (became, detail) = match object.what.as_str() {
            "missing" => (Became::Removed, rows(Some(before), &object.kind, &object.object)),
            "added" => (Became::Added, rows(after, &object.kind, &object.object)),
            _ => {
                let text = object.to_string();
                let detail = text.strip_prefix(&name).unwrap_or(&text).trim_start_matches(": ");
                (Became::Changed, detail.to_owned())
            }
        };
        visit(Finding::Difference(Difference { source: source.to_owned(), object: name, became, detail }))?;
    }
    for table in found.tables {
        visit(Finding::Rows(Rows { source: source.to_owned(), table }))?;
    }
    for skipped in found.not_compared {
        let (object, reason) = (skipped.object, skipped.reason);
        visit(Finding::NotCompared(NotCompared { source: source.to_owned(), object, reason }))?;
    }
    Ok(())
}
