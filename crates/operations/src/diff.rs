//! `mainstay diff`: what changed between two recovery points, or between a point and what lives now.
//!
//! Files are compared entry by entry; a database's tables by their recorded row counts and digests, its definitions by their
//! recorded texts. Against what lives, files are looked at by size and time, and every row of the database is read.

use crate::{
    config::{AppConfig, SourceConfig},
    restore::Opened,
};
use mainstay_domain::{Failure, Monitor, Result};
use mainstay_sources::{
    files::{self, ChangeKind},
    postgres::{self, facts::Facts},
};
use serde::Serialize;
use std::collections::BTreeMap;

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

/// Calls `visit` with each difference of one source between two points, in the source's own order.
pub fn points(
    before: &Opened<'_>,
    after: &Opened<'_>,
    visit: &mut dyn FnMut(Difference) -> Result<()>,
) -> Result<()> {
    let source = after.record.name.clone();
    if before.record.kind != after.record.kind {
        return Err(Failure::usage(format!(
            "source {source} is of another kind in the other recovery point"
        )));
    }
    if after.record.kind != files::KIND {
        let (before, after) = (facts(before)?, facts(after)?);
        return databases(&source, &before, &after).into_iter().try_for_each(visit);
    }
    for change in files::diff((&before.reader, &before.record), (&after.reader, &after.record))? {
        let change = change?;
        let (became, detail) = match change.kind {
            ChangeKind::Added => (Became::Added, ""),
            ChangeKind::Removed => (Became::Removed, ""),
            ChangeKind::Content => (Became::Changed, "content"),
            ChangeKind::Metadata => (Became::Changed, "mode, owner, time or attributes"),
        };
        let object = files::show_path(&change.path);
        visit(Difference { source: source.clone(), object, became, detail: detail.to_owned() })?;
    }
    Ok(())
}

/// Calls `visit` with each difference between a source of a point and what lives now.
pub fn live(
    app: &AppConfig,
    opened: &Opened<'_>,
    row_key: [u8; 16],
    monitor: &dyn Monitor,
    visit: &mut dyn FnMut(Difference) -> Result<()>,
) -> Result<()> {
    let source = opened.record.name.clone();
    let changed = |object: String, detail: String| Difference {
        source: source.clone(),
        object,
        became: match detail.as_str() {
            "missing" => Became::Removed,
            "added" => Became::Added,
            _ => Became::Changed,
        },
        detail,
    };
    match app.sources.get(&source) {
        Some(SourceConfig::Files(_)) => {
            let found = files::compare_live(&opened.reader, &opened.record, false, monitor)?;
            let listed = found.differences.len() as u64;
            for d in found.differences {
                let detail = match d.detail.as_str() {
                    "" => d.aspect.to_string(),
                    detail => format!("{}: {detail}", d.aspect),
                };
                visit(changed(d.path, detail))?;
            }
            more(found.difference_count.saturating_sub(listed), &changed, visit)
        }
        Some(SourceConfig::Postgres(config)) => {
            let options = postgres::compare::Options::new(row_key);
            let spec = config.connect_spec()?;
            let found = postgres::compare::compare(&opened.reader, &opened.record, &spec, &options, monitor)?;
            for d in found.differences {
                let object = format!("{} {}", d.kind, d.object);
                let detail = match d.what.as_str() {
                    "missing" | "added" => d.what,
                    _ => d.to_string().trim_start_matches(&object).trim_start_matches(": ").to_owned(),
                };
                visit(changed(object, detail))?;
            }
            more(found.further, &changed, visit)
        }
        None => Err(Failure::usage(format!("the configuration has no source named {source:?} any more"))
            .hint("Compare two recovery points instead, or put it back.")),
    }
}

fn more(
    count: u64,
    changed: &dyn Fn(String, String) -> Difference,
    visit: &mut dyn FnMut(Difference) -> Result<()>,
) -> Result<()> {
    if count == 0 { Ok(()) } else { visit(changed(format!("{count} more objects"), "not listed".to_owned())) }
}

fn facts(opened: &Opened<'_>) -> Result<Facts> {
    Facts::from_json(&opened.record.facts).map_err(|error| {
        Failure::verification("the description of the captured database cannot be used").caused_by(error)
    })
}

/// Every definition and every table's rows, by kind and name: the text that stands for it.
fn databases(source: &str, before: &Facts, after: &Facts) -> Vec<Difference> {
    let mut differences = Vec::new();
    let (old, new) = (described(before), described(after));
    let mut add = |object: &str, became, detail: String| {
        differences.push(Difference { source: source.to_owned(), object: object.to_owned(), became, detail });
    };
    for (object, was) in &old {
        match new.get(object) {
            None => add(object, Became::Removed, String::new()),
            Some(is) if is.text != was.text => add(object, Became::Changed, is.since(was)),
            Some(_) => {}
        }
    }
    for object in new.keys().filter(|object| !old.contains_key(*object)) {
        add(object, Became::Added, String::new());
    }
    differences
}

struct Described {
    text: String,
    rows: Option<u64>,
}

impl Described {
    fn since(&self, was: &Described) -> String {
        match (was.rows, self.rows) {
            (Some(was), Some(is)) if was == is => format!("{is} rows, with other content"),
            (Some(was), Some(is)) => format!("{was} rows, now {is}"),
            _ => "definition".to_owned(),
        }
    }
}

fn described(facts: &Facts) -> BTreeMap<String, Described> {
    let rows = facts.tables.iter().map(|table| {
        let text = format!("{} {:x}", table.rows, table.digest);
        (format!("table {}.{}", table.schema, table.name), Described { text, rows: Some(table.rows) })
    });
    let definitions = facts.inventory.tables.iter().map(|table| {
        let text = serde_json::to_string(table).unwrap_or_default();
        (format!("structure of {}.{}", table.schema, table.name), Described { text, rows: None })
    });
    let objects = facts.inventory.objects.iter().map(|object| {
        let text = serde_json::to_string(object).unwrap_or_default();
        (format!("{} {}", object.kind, object.identity), Described { text, rows: None })
    });
    rows.chain(definitions).chain(objects).collect()
}
