//! Proves that a restored database is what was captured: every object's text, every row, every large object.
//!
//! Definitions are read again by the same queries as at capture, rows are hashed again through the same COPY, under the same
//! session settings; nothing is taken for equal that was not looked at. What cannot be compared (texts of another major
//! version of the server, tables that may not be read) is listed as such and keeps the verdict from being
//! [`Verdict::Equal`].

mod inventory;
mod large_objects;
mod relations;
mod rows;

pub use inventory::{differences, same_version};

use super::{
    facts::{Facts, Inventory, ObjectKind, QualifiedName, Skipped},
    inspect::inspect,
    restore::{Archive, Selection, defines, read_archive},
    session,
    wire::{ConnectSpec, Connection},
};
use mainstay_domain::{Failure, Monitor, Result, point::SourceRecord, stream::Vault};
use serde::{Deserialize, Serialize};
use std::fmt;

/// How to compare.
#[derive(Debug, Clone)]
pub struct Options {
    /// Tables that are read at the same time.
    pub jobs: usize,
    /// The key of row digests: that of the repository's dedup domain.
    pub row_key: [u8; 16],
    /// What was restored, and under which names. Of a selection, rows, columns and the
    /// definitions of its views are compared; of everything, all.
    pub selection: Selection,
    /// At most this many differences are listed; the rest is counted.
    pub most: usize,
    pub left_out: LeftOut,
}

/// What the restore was asked to bring otherwise than it was: no difference, and not compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// With them, the names in all grants are others.
    pub owners: bool,
    pub privileges: bool,
    pub locale: bool,
}

impl LeftOut {
    pub fn of(options: &super::restore::Options) -> LeftOut {
        LeftOut {
            owners: !options.owners,
            privileges: !options.privileges,
            locale: options.other_locale && options.selection.is_everything(),
        }
    }

    fn explains(self, difference: &Difference) -> bool {
        match difference.what.as_str() {
            "owner" => self.owners,
            "acl" | "privileges" => self.owners || self.privileges,
            "collate" | "ctype" | "locale" | "locale_provider" | "icu_rules" => {
                self.locale && difference.kind == "database"
            }
            _ => self.privileges && difference.kind == ObjectKind::DefaultAcl.words(),
        }
    }

    fn in_words(self) -> Option<NotCompared> {
        let words = [
            (self.owners, "owners"),
            (self.owners || self.privileges, "grants"),
            (self.locale, "locale of the database"),
        ];
        let words: Vec<&str> =
            words.iter().filter(|(left_out, _)| *left_out).map(|(_, word)| *word).collect();
        let reason = "the restore was asked to bring them otherwise".to_owned();
        (!words.is_empty()).then(|| NotCompared { object: words.join(", "), reason })
    }
}

impl Options {
    pub fn new(row_key: [u8; 16]) -> Options {
        Options { jobs: 2, row_key, selection: Selection::default(), most: 200, left_out: LeftOut::default() }
    }
}

/// One thing that is not as it was captured.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Difference {
    /// `table`, `view`, `sequence`, `large object` …
    pub kind: String,
    /// `public.orders`, `public.orders.total` …
    pub object: String,
    /// `rows`, `definition`, `owner`, `acl`, `missing`, `added` …
    pub what: String,
    pub recorded: String,
    pub found: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference { kind, object, what, recorded, found } = self;
        match what.as_str() {
            "missing" => write!(f, "{kind} {object} is missing"),
            "added" => write!(f, "{kind} {object} was not there when it was captured"),
            _ => write!(f, "{kind} {object}: {what} was {} and is {}", shown(recorded), shown(found)),
        }
    }
}

/// A value in a sentence: on one line, and short.
fn shown(value: &str) -> String {
    const MOST: usize = 200;
    let line: String = value.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None if line.is_empty() => "empty".to_owned(),
        None => line,
    }
}

/// Something that could not be compared, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotCompared {
    pub object: String,
    pub reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Equal,
    /// Nothing differs, and something could not be compared.
    EqualWhereCompared,
    Different,
}

/// What a comparison found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    /// At most as many as the options allow.
    pub differences: Vec<Difference>,
    /// Differences beyond those listed.
    pub further: u64,
    pub not_compared: Vec<NotCompared>,
    /// Worth knowing, and no difference.
    pub notes: Vec<String>,
    /// Tables, rows and bytes of rows' text that were read and hashed.
    pub tables: u64,
    pub rows: u64,
    pub bytes: u64,
    /// Objects of each kind whose texts were compared.
    pub objects: std::collections::BTreeMap<String, u64>,
    pub large_objects: u64,
    pub sequences: u64,
    #[serde(skip)]
    left_out: LeftOut,
}

impl Comparison {
    pub fn verdict(&self) -> Verdict {
        match (self.differences.is_empty() && self.further == 0, self.not_compared.is_empty()) {
            (true, true) => Verdict::Equal,
            (true, false) => Verdict::EqualWhereCompared,
            (false, _) => Verdict::Different,
        }
    }

    fn differ(&mut self, found: impl IntoIterator<Item = Difference>, most: usize) {
        let left_out = self.left_out;
        for difference in found.into_iter().filter(|difference| !left_out.explains(difference)) {
            match self.differences.len() < most {
                true => self.differences.push(difference),
                false => self.further += 1,
            }
        }
    }

    fn skip(&mut self, object: impl Into<String>, reason: impl Into<String>) {
        self.not_compared.push(NotCompared { object: object.into(), reason: reason.into() });
    }
}

/// Compares a captured database with the one at `spec`.
///
/// # Errors
/// No connection, an unreadable record, cancelled. What differs is no error.
pub fn compare(
    vault: &dyn Vault,
    record: &SourceRecord,
    spec: &ConnectSpec,
    options: &Options,
    monitor: &dyn Monitor,
) -> Result<Comparison> {
    let facts = Facts::from_json(&record.facts).map_err(|e| {
        Failure::verification("the description of the captured database cannot be used").caused_by(e)
    })?;
    let archive = read_archive(vault, record, "schema")?;
    let chosen = super::restore::names(&archive, &facts, &options.selection)?;
    let mut connection = Connection::connect(spec)?;
    session::prepare(&mut connection)?;
    let found = inspect(&mut connection)?;
    let same_version = same_version(&facts, connection.server_version_num());
    let mut comparison = Comparison { left_out: options.left_out, ..Comparison::default() };
    comparison.not_compared.extend(options.left_out.in_words());

    monitor.step("definitions", None);
    if options.selection.is_everything() {
        let recorded = of_what_was_captured(&facts, &archive, &mut comparison);
        let outcome = differences(&recorded, &found, same_version);
        comparison.objects = outcome.compared;
        comparison.differ(outcome.differences, options.most);
        outcome.not_comparable.into_iter().for_each(|n| comparison.not_compared.push(n));
    } else {
        for table in &chosen.tables {
            let into = chosen.name_of(&table.schema, &table.name);
            let recorded = facts.inventory.table(&table.schema, &table.name);
            let found = found.table(&into.schema, &into.name);
            let outcome = inventory::columns(recorded, found, &into.to_string(), |text| {
                chosen.text(&table.schema, text)
            });
            comparison.differ(outcome, options.most);
        }
        let both = (&facts.inventory, &found);
        relations::compare(&mut comparison, &chosen, both, same_version, options.most);
    }
    sequences(&mut comparison, &mut connection, &chosen, options.most)?;
    monitor.done("definitions", "");

    rows::compare(&mut comparison, &facts, &chosen, spec, options, monitor)?;
    if chosen.large_objects {
        large_objects::compare(
            &mut comparison,
            vault,
            record,
            &facts,
            &mut connection,
            options.most,
            monitor,
        )?;
    } else if options.selection.is_everything() {
        large_objects::none(&mut comparison, &facts, &mut connection, options.most)?;
    }
    Ok(comparison)
}

/// What was there when it was captured, without the tables that the user of the backup might not read: nothing of them is in the
/// point, which says so.
fn of_what_was_captured(facts: &Facts, archive: &Archive, comparison: &mut Comparison) -> Inventory {
    let mut recorded = facts.inventory.clone();
    for table in &facts.tables {
        let Some(Skipped::Unreadable(reason)) = &table.skipped else { continue };
        if defines(archive, &table.schema, &table.name) {
            continue;
        }
        comparison
            .skip(format!("table {}.{}", table.schema, table.name), format!("it was not captured: {reason}"));
        recorded.tables.retain(|t| (&t.schema, &t.name) != (&table.schema, &table.name));
        let of_it = |of: &QualifiedName| (&of.schema, &of.name) == (&table.schema, &table.name);
        recorded.objects.retain(|object| !object.table.as_ref().is_some_and(of_it));
    }
    recorded
}

fn sequences(
    comparison: &mut Comparison,
    connection: &mut Connection,
    chosen: &super::restore::Names<'_>,
    most: usize,
) -> Result<()> {
    for sequence in &chosen.sequences {
        let name: QualifiedName = chosen.name_of(&sequence.schema, &sequence.name);
        let recorded = value(&sequence.last_value.to_string(), sequence.is_called);
        let found = match connection.query(&format!("SELECT last_value, is_called FROM {}", name.quoted())) {
            Ok(rows) => rows.iter().next().map(|row| value(&row.text(0), row.bool(1))),
            Err(super::wire::WireError::Server(message)) if message.code == "42P01" => None,
            Err(super::wire::WireError::Server(message)) => {
                comparison.skip(format!("sequence {name}"), message.to_string());
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        comparison.sequences += 1;
        let difference = |what: &str, found: &str| Difference {
            kind: "sequence".to_owned(),
            object: name.to_string(),
            what: what.to_owned(),
            recorded: recorded.clone(),
            found: found.to_owned(),
        };
        match found {
            None => comparison.differ([difference("missing", "")], most),
            Some(found) if found != recorded => comparison.differ([difference("value", &found)], most),
            Some(_) => {}
        }
    }
    Ok(())
}

fn value(last: &str, called: bool) -> String {
    format!("{last}{}", if called { "" } else { " (not called yet)" })
}
