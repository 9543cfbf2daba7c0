//! What changed between two recovery points of a database, or since one of them: objects, counts, rows by primary key.
//!
//! Tables whose row count and digest are the same are not read. Of the others only those chunks are read that the two do not
//! share. Rows are matched in rounds, each over a part of the keys, so that memory stays bounded however much changed; of the
//! changes a few are shown, and all are counted. Rows of tables marked as sensitive are counted and never shown.

mod live;
mod pieces;
mod rows;

pub use rows::{RowChange, TableDiff};

use super::{
    compare::{Difference, NotCompared, differences},
    facts::{Facts, QualifiedName, SequenceValue, TableData},
    wire::ConnectSpec,
};
use mainstay_domain::{Failure, Kind, Monitor, Result, point::SourceRecord, stream::Vault};
use rows::{Comparing, Layout};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone)]
pub struct Options {
    /// The key of row digests: that of the repository's dedup domain.
    pub row_key: [u8; 16],
    /// Changes of each kind that are shown of a table.
    pub samples: usize,
    /// Only these tables; empty: all.
    pub tables: Vec<QualifiedName>,
    /// Tables whose values are not shown, besides those that were sensitive when they were captured.
    pub sensitive: Vec<QualifiedName>,
}

impl Options {
    pub fn new(row_key: [u8; 16]) -> Options {
        Options { row_key, samples: 5, tables: Vec::new(), sensitive: Vec::new() }
    }

    fn wants(&self, table: &TableData) -> bool {
        self.tables.is_empty() || has(&self.tables, table)
    }

    fn hides(&self, table: &TableData) -> bool {
        table.sensitive || has(&self.sensitive, table)
    }
}

fn has(names: &[QualifiedName], table: &TableData) -> bool {
    names.iter().any(|t| t.schema == table.schema && t.name == table.name)
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct Diff {
    /// Objects, settings and sequences that differ.
    pub objects: Vec<Difference>,
    pub not_compared: Vec<NotCompared>,
    /// Tables whose rows differ, by name.
    pub tables: Vec<TableDiff>,
    /// Tables whose rows are the same.
    pub same_tables: u64,
}

impl Diff {
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.tables.is_empty()
    }

    fn skip(&mut self, table: &TableData, reason: impl Into<String>) {
        let object = format!("rows of {}.{}", table.schema, table.name);
        self.not_compared.push(NotCompared { object, reason: reason.into() });
    }
}

/// What changed from one recovery point to another.
///
/// # Errors
/// A record that cannot be read; a damaged chunk (`Verification`); cancelled.
pub fn diff(
    before: (&dyn Vault, &SourceRecord),
    after: (&dyn Vault, &SourceRecord),
    options: &Options,
    monitor: &dyn Monitor,
) -> Result<Diff> {
    let (old, new) = (Facts::from_json(&before.1.facts)?, Facts::from_json(&after.1.facts)?);
    let mut diff = objects(&old, &new.inventory, new.server.version_num);
    values(&mut diff, &old.sequences, &new.sequences);
    monitor.step("rows", None);
    for table in old.tables.iter().filter(|t| options.wants(t)) {
        check(monitor)?;
        let Some(other) = new.table(&table.schema, &table.name) else { continue };
        if table.streams.is_empty() && other.streams.is_empty() {
            continue;
        }
        let unread = [table, other].into_iter().find_map(|t| t.skipped.as_ref());
        if let Some(reason) = unread {
            diff.skip(table, format!("they are not in both recovery points ({reason:?})"));
            continue;
        }
        let same = table.rows == other.rows && table.digest == other.digest && table.columns == other.columns;
        if same {
            diff.same_tables += 1;
            continue;
        }
        let layout = Layout::new(&old, table, &other.columns);
        let (mut a, mut b) = pieces::unshared((before.0, before.1, table), (after.0, after.1, other))?;
        let comparing = Comparing {
            layout: &layout,
            options,
            monitor,
            sensitive: options.hides(table) || other.sensitive,
        };
        let mut found = comparing.run(&mut a, &mut b)?;
        (found.rows_before, found.rows_after) = (table.rows, other.rows);
        match found.is_empty() {
            true => diff.same_tables += 1,
            false => diff.tables.push(found),
        }
    }
    monitor.done("rows", "");
    Ok(diff)
}

/// What changed since a recovery point, in the database at `spec`. It is read as of one instant.
pub fn diff_live(
    vault: &dyn Vault,
    record: &SourceRecord,
    spec: &ConnectSpec,
    options: &Options,
    monitor: &dyn Monitor,
) -> Result<Diff> {
    live::diff(vault, record, spec, options, monitor)
}

fn objects(old: &Facts, new: &super::facts::Inventory, version_num: u32) -> Diff {
    let outcome = differences(&old.inventory, new, super::compare::same_version(old, version_num));
    Diff { objects: outcome.differences, not_compared: outcome.not_comparable, ..Diff::default() }
}

/// Values of sequences that both have.
fn values(diff: &mut Diff, before: &[SequenceValue], after: &[SequenceValue]) {
    let new: BTreeMap<_, _> = after.iter().map(|s| ((&s.schema, &s.name), s)).collect();
    for old in before {
        let Some(new) = new.get(&(&old.schema, &old.name)) else { continue };
        let value = |s: &SequenceValue| {
            format!("{}{}", s.last_value, if s.is_called { "" } else { " (not called yet)" })
        };
        if value(old) != value(new) {
            diff.objects.push(Difference {
                kind: "sequence".to_owned(),
                object: format!("{}.{}", old.schema, old.name),
                what: "value".to_owned(),
                recorded: value(old),
                found: value(new),
            });
        }
    }
}

/// The columns that both have, in the order of the first.
fn common(first: &[super::facts::CopyColumn], second: &[super::facts::CopyColumn]) -> Vec<String> {
    let there: BTreeSet<&String> = second.iter().map(|c| &c.name).collect();
    first.iter().map(|c| &c.name).filter(|name| there.contains(name)).cloned().collect()
}

fn check(monitor: &dyn Monitor) -> Result<()> {
    match monitor.cancelled() {
        true => Err(Failure::new(Kind::Cancelled, "the comparison was stopped")),
        false => Ok(()),
    }
}
