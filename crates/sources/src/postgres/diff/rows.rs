//! Matches the rows of two sides by key, in bounded memory.

use super::{Options, check, common};
use crate::postgres::{
    facts::{CopyColumn, Facts, ObjectKind, QualifiedName, TableData},
    restore::sql,
    rows::RowHasher,
};
use mainstay_domain::{Monitor, Result};
use serde::Serialize;
use std::collections::{BTreeSet, HashMap};

/// Rows that are matched in one round: about 100 bytes of memory each.
const ROUND: u64 = 500_000;

/// Characters of a value that are shown.
const SHOWN: usize = 120;

/// One side: gives all rows that may differ, as often as asked.
pub(super) trait Side {
    /// At most so many rows, as far as known.
    fn expected(&self) -> u64;
    /// Calls `each` with every row, without its newline.
    fn rows(&mut self, each: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()>;
}

/// How the rows of one table changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableDiff {
    pub schema: String,
    pub name: String,
    pub rows_before: u64,
    pub rows_after: u64,
    /// The compared columns: those that both have.
    pub columns: Vec<String>,
    /// The columns by which rows are the same; empty: rows have no key, and are the same only if equal.
    pub key: Vec<String>,
    pub added: u64,
    pub removed: u64,
    pub changed: u64,
    /// Some of the changes, of each kind; none of a table that is sensitive.
    pub samples: Vec<RowChange>,
    pub sensitive: bool,
    /// Columns that only one of the two has, and that were left out of the comparison.
    pub other_columns: Vec<String>,
}

impl TableDiff {
    pub(super) fn is_empty(&self) -> bool {
        self.added + self.removed + self.changed == 0 && self.other_columns.is_empty()
    }
}

/// A change of one row. Values are as COPY writes them (`\N` for NULL), shortened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "change")]
pub enum RowChange {
    Added { row: Vec<String> },
    Removed { row: Vec<String> },
    Changed { key: Vec<String>, columns: Vec<ColumnChange> },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ColumnChange {
    pub column: String,
    pub before: String,
    pub after: String,
}

/// Where the compared columns stand in the rows of each side.
#[derive(Debug)]
pub(super) struct Layout {
    schema: String,
    name: String,
    /// Compared columns.
    columns: Vec<String>,
    before: Vec<usize>,
    after: Vec<usize>,
    /// Positions in `columns`.
    key: Vec<usize>,
    other_columns: Vec<String>,
}

impl Layout {
    pub fn new(facts: &Facts, table: &TableData, after: &[CopyColumn]) -> Layout {
        let columns = common(&table.columns, after);
        let places = |all: &[CopyColumn]| -> Vec<usize> {
            columns.iter().filter_map(|name| all.iter().position(|c| c.name == *name)).collect()
        };
        let key: Option<Vec<usize>> = primary_key(facts, table)
            .map(|names| names.iter().map(|name| columns.iter().position(|c| c == name)).collect())
            .unwrap_or_default();
        let other_columns = table.columns.iter().chain(after).map(|c| &c.name);
        let mut other_columns: Vec<String> =
            other_columns.filter(|c| !columns.contains(c)).cloned().collect();
        other_columns.dedup();
        Layout {
            schema: table.schema.clone(),
            name: table.name.clone(),
            before: places(&table.columns),
            after: places(after),
            key: key.unwrap_or_default(),
            columns,
            other_columns,
        }
    }

    /// The compared fields of a row.
    fn fields<'r>(&self, row: &'r [u8], before: bool) -> Vec<&'r [u8]> {
        let all: Vec<&[u8]> = row.split(|b| *b == b'\t').collect();
        let places = if before { &self.before } else { &self.after };
        places.iter().map(|at| all.get(*at).copied().unwrap_or_default()).collect()
    }
}

/// The columns of a table's primary key; of a partition that of its root.
fn primary_key(facts: &Facts, table: &TableData) -> Option<Vec<String>> {
    let inventory = &facts.inventory;
    let mut of = QualifiedName { schema: table.schema.clone(), name: table.name.clone() };
    loop {
        let found = inventory
            .objects_of(ObjectKind::Constraint)
            .filter(|o| o.table.as_ref() == Some(&of))
            .find_map(|o| o.definition.strip_prefix("PRIMARY KEY "));
        if let Some(list) = found {
            return Some(sql::names_in_parentheses(&crate::postgres::wire::text::encode(list)));
        }
        of = inventory.table(&of.schema, &of.name)?.inherits.first()?.clone();
    }
}

pub(super) struct Comparing<'a> {
    pub layout: &'a Layout,
    pub options: &'a Options,
    pub monitor: &'a dyn Monitor,
    pub sensitive: bool,
}

/// What is known of one key.
#[derive(Default)]
struct Seen {
    before: Option<u128>,
    after: Option<u128>,
    /// Of rows without a key: how many more there are after than before.
    surplus: i64,
}

/// A row of one side, hashed.
struct Hashed {
    key: u128,
    row: u128,
}

impl Comparing<'_> {
    pub fn run(&self, before: &mut dyn Side, after: &mut dyn Side) -> Result<TableDiff> {
        let layout = self.layout;
        let mut found = TableDiff {
            schema: layout.schema.clone(),
            name: layout.name.clone(),
            rows_before: 0,
            rows_after: 0,
            columns: layout.columns.clone(),
            key: layout.key.iter().map(|at| layout.columns[*at].clone()).collect(),
            added: 0,
            removed: 0,
            changed: 0,
            samples: Vec::new(),
            sensitive: self.sensitive,
            other_columns: layout.other_columns.clone(),
        };
        let mut wanted = Wanted::default();
        let rounds = before.expected().max(after.expected()).div_ceil(ROUND).max(1);
        for round in 0..rounds {
            let mut seen: HashMap<u128, Seen> = HashMap::new();
            let mine = |key: u128| key % u128::from(rounds) == u128::from(round);
            self.each(before, true, &mut |row| {
                if mine(row.key) {
                    let entry = seen.entry(row.key).or_default();
                    entry.before = Some(row.row);
                    entry.surplus -= 1;
                }
            })?;
            self.each(after, false, &mut |row| {
                if mine(row.key) {
                    let entry = seen.entry(row.key).or_default();
                    entry.after = Some(row.row);
                    entry.surplus += 1;
                    if entry.surplus == 0 && entry.before == entry.after {
                        seen.remove(&row.key);
                    }
                }
            })?;
            self.settle(seen, &mut found, &mut wanted);
        }
        if !self.sensitive {
            self.show(before, after, &wanted, &mut found)?;
        }
        Ok(found)
    }

    /// Counts what is left of a round.
    fn settle(&self, seen: HashMap<u128, Seen>, found: &mut TableDiff, wanted: &mut Wanted) {
        let most = self.options.samples;
        // The smallest hashes: whoever asks twice is shown the same rows.
        let want = |set: &mut BTreeSet<u128>, key: u128| {
            set.insert(key);
            if set.len() > most {
                set.pop_last();
            }
        };
        for (key, seen) in seen {
            if self.layout.key.is_empty() {
                let times = seen.surplus.unsigned_abs();
                match seen.surplus > 0 {
                    true => (found.added, ()) = (found.added + times, want(&mut wanted.added, key)),
                    false => (found.removed, ()) = (found.removed + times, want(&mut wanted.removed, key)),
                }
                continue;
            }
            match (seen.before, seen.after) {
                (None, _) => (found.added, ()) = (found.added + 1, want(&mut wanted.added, key)),
                (_, None) => (found.removed, ()) = (found.removed + 1, want(&mut wanted.removed, key)),
                _ => (found.changed, ()) = (found.changed + 1, want(&mut wanted.changed, key)),
            }
        }
    }

    fn each(&self, side: &mut dyn Side, before: bool, each: &mut dyn FnMut(Hashed)) -> Result<()> {
        let mut count = 0_u64;
        side.rows(&mut |row| {
            count += 1;
            if count.is_multiple_of(10_000) {
                check(self.monitor)?;
                self.monitor.advance(10_000, 0);
            }
            each(self.hash(row, before));
            Ok(())
        })
    }

    fn hash(&self, row: &[u8], before: bool) -> Hashed {
        let fields = self.layout.fields(row, before);
        let hash = |fields: &mut dyn Iterator<Item = &[u8]>| {
            let mut hasher = RowHasher::new(&self.options.row_key);
            for field in fields {
                hasher.part(field, false);
                hasher.part(b"\t", false);
            }
            hasher.part(b"", true).unwrap_or_default()
        };
        let row = hash(&mut fields.iter().copied());
        match self.layout.key.is_empty() {
            true => Hashed { key: row, row },
            false => Hashed { key: hash(&mut self.layout.key.iter().map(|at| fields[*at])), row },
        }
    }

    /// Reads the rows to be shown.
    fn show(
        &self,
        before: &mut dyn Side,
        after: &mut dyn Side,
        wanted: &Wanted,
        found: &mut TableDiff,
    ) -> Result<()> {
        if wanted.is_empty() {
            return Ok(());
        }
        let mut old: HashMap<u128, Vec<Vec<u8>>> = HashMap::new();
        let keep = |row: &[u8], before: bool| -> Vec<Vec<u8>> {
            self.layout.fields(row, before).into_iter().map(<[u8]>::to_vec).collect()
        };
        before.rows(&mut |row| {
            let key = self.hash(row, true).key;
            if wanted.changed.contains(&key) || wanted.removed.contains(&key) {
                old.insert(key, keep(row, true));
            }
            Ok(())
        })?;
        let mut new: HashMap<u128, Vec<Vec<u8>>> = HashMap::new();
        after.rows(&mut |row| {
            let key = self.hash(row, false).key;
            if wanted.changed.contains(&key) || wanted.added.contains(&key) {
                new.insert(key, keep(row, false));
            }
            Ok(())
        })?;
        let shown = |row: &[Vec<u8>]| row.iter().map(|field| shorten(field)).collect::<Vec<_>>();
        for (key, row) in &old {
            match new.get(key) {
                None => found.samples.push(RowChange::Removed { row: shown(row) }),
                Some(other) => {
                    let columns = self.layout.columns.iter().zip(row.iter().zip(other));
                    let columns = columns.filter(|(_, (a, b))| a != b).map(|(column, (a, b))| ColumnChange {
                        column: column.clone(),
                        before: shorten(a),
                        after: shorten(b),
                    });
                    let key = self.layout.key.iter().map(|at| shorten(&row[*at])).collect();
                    found.samples.push(RowChange::Changed { key, columns: columns.collect() });
                }
            }
        }
        let added = new.iter().filter(|(key, _)| !old.contains_key(*key));
        found.samples.extend(added.map(|(_, row)| RowChange::Added { row: shown(row) }));
        found.samples.sort_by_key(order);
        Ok(())
    }
}

/// Changed, then removed, then added; each in the order of its text.
fn order(change: &RowChange) -> (u8, Vec<String>) {
    match change {
        RowChange::Changed { key, .. } => (0, key.clone()),
        RowChange::Removed { row } => (1, row.clone()),
        RowChange::Added { row } => (2, row.clone()),
    }
}

fn shorten(field: &[u8]) -> String {
    let text = String::from_utf8_lossy(field);
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into_owned(),
    }
}

/// Keys of the rows to be shown.
#[derive(Default)]
struct Wanted {
    added: BTreeSet<u128>,
    removed: BTreeSet<u128>,
    changed: BTreeSet<u128>,
}

impl Wanted {
    fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}
