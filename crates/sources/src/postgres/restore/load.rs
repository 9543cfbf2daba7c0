//! Rows, by COPY, straight from the repository.
//!
//! While a connection sends one chunk, the next ones are fetched and decoded. A table that was made by this restore is filled
//! in one transaction that begins with TRUNCATE, so that its rows are frozen and, where the server's WAL level allows, written
//! without WAL. Rows that the server refuses are tried once more when all others are in: a check that reads another table may
//! hold then. A partition that refuses rows (its bounds hash or collate differently here) gets them, in the second round,
//! through the root. When which runs is [`schedule`](super::schedule)'s matter.

use super::{Work, chosen::Chosen, vault};
use crate::postgres::{
    facts::{QualifiedName, TableData, TableKind},
    wire::{Connection, WireError, quote_ident, quote_literal},
};
use crossbeam_channel::bounded;
use mainstay_domain::{
    Failure, Kind, Result, Severity,
    stream::{Content, Vault},
};
use std::{
    collections::{HashMap, HashSet},
    thread,
};

/// Chunks that are decoded ahead of a connection.
const AHEAD: usize = 4;

/// Below this many bytes, freezing rows costs more than it saves.
const WORTH_FREEZING: u64 = 1 << 20;

/// What was loaded in all.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Loaded {
    pub tables: u64,
    pub rows: u64,
    pub bytes: u64,
}

/// Rows that go over one connection in one COPY: a table, or a part of one.
#[derive(Debug, Clone)]
pub(super) struct Load<'a> {
    pub table: &'a TableData,
    /// The entry that made the table; `None` for an extension's.
    pub entry: Option<u32>,
    stream: &'a str,
    into: QualifiedName,
    pub bytes: u64,
    /// TRUNCATE first, and freeze.
    alone: bool,
    /// The table was not made here, and may have triggers.
    of_extension: bool,
}

/// What came of one load.
pub(super) enum Outcome {
    Rows(u64),
    /// The server took none of them.
    Refused(WireError),
    /// Reading them failed.
    Unreadable(Failure),
}

/// All loads. Tables that could not be made are named and left out.
pub(super) fn loads<'a>(work: &Work<'a>, chosen: &Chosen<'a>, failed: &HashSet<u32>) -> Vec<Load<'a>> {
    let entries: HashMap<(String, String), u32> = chosen
        .entries
        .iter()
        .map(|c| c.entry)
        .filter(|e| e.kind == "TABLE")
        .map(|e| ((work.archive.text(&e.schema), work.archive.text(&e.tag)), e.id))
        .collect();
    let mut loads = Vec::new();
    for table in &chosen.tables {
        let entry = entries.get(&(table.schema.clone(), table.name.clone())).copied();
        if !table.streams.is_empty() && entry.is_some_and(|id| failed.contains(&id)) {
            let text = "its rows are not restored, because the table could not be made";
            work.problem(Severity::Error, object(table), text);
            continue;
        }
        let of_extension =
            work.facts.inventory.table(&table.schema, &table.name).is_some_and(|t| t.extension.is_some());
        for stream in &table.streams {
            let bytes = work.record.stream(stream).map_or(0, |s| s.content.bytes());
            loads.push(Load {
                table,
                entry,
                stream,
                into: chosen.name_of(work.archive, &table.schema, &table.name),
                bytes,
                // An extension's table holds what the extension put there.
                alone: table.streams.len() == 1 && !of_extension && bytes >= WORTH_FREEZING,
                of_extension,
            });
        }
    }
    loads
}

/// How messages name a table.
pub(super) fn object(table: &TableData) -> String {
    format!("table {}.{}", table.schema, table.name)
}

impl<'a> Load<'a> {
    /// For the second round, after the server refused it.
    pub fn again(mut self, work: &Work<'_>, chosen: &Chosen<'_>) -> Load<'a> {
        if self.table.kind == TableKind::Partition {
            let root = root(work, self.table);
            self.into = chosen.name_of(work.archive, &root.schema, &root.name);
        }
        // A sibling's rows may be in it by now.
        self.alone = false;
        self
    }

    fn statement(&self, work: &Work<'_>) -> String {
        let columns: Vec<String> = self.table.columns.iter().map(|c| quote_ident(&c.name)).collect();
        let columns = if columns.is_empty() { String::new() } else { format!(" ({})", columns.join(", ")) };
        let mut options = Vec::new();
        if let Some(encoding) = work.facts.session.get("client_encoding") {
            options.push(format!("ENCODING {}", quote_literal(encoding)));
        }
        if self.alone {
            options.push("FREEZE".to_owned());
        }
        let options =
            if options.is_empty() { String::new() } else { format!(" WITH ({})", options.join(", ")) };
        format!("COPY {}{columns} FROM STDIN{options}", self.into.quoted())
    }

    /// Runs it on a session of the archive's encoding.
    ///
    /// # Errors
    /// A lost connection, a cancelled restore. All else is in the outcome.
    pub fn run(&self, work: &Work<'_>, connection: &mut Connection) -> Result<Outcome> {
        let mut begin = "BEGIN".to_owned();
        if self.alone {
            begin.push_str(&format!("; TRUNCATE ONLY {}", self.into.quoted()));
        }
        if self.of_extension {
            // Where we may: only a superuser can keep its triggers quiet.
            begin.push_str(
                "; SELECT pg_catalog.set_config('session_replication_role', 'replica', true)
                    WHERE pg_catalog.current_setting('is_superuser') = 'on'",
            );
        }
        match connection.execute_bytes(&work.archive.bytes(&begin)) {
            Ok(_) => {}
            Err(error @ WireError::Server(_)) => {
                connection.execute("ROLLBACK")?;
                return Ok(Outcome::Refused(error));
            }
            Err(error) => return Err(error.into()),
        }
        let content = match vault::content(work.record, self.stream) {
            Ok(content) => content,
            Err(failure) => {
                connection.execute("ROLLBACK")?;
                return Ok(Outcome::Unreadable(failure));
            }
        };
        let copied = thread::scope(|scope| {
            let (send, chunks) = bounded::<Result<Vec<u8>>>(AHEAD);
            scope.spawn(move || fetch(work.vault, content, &send));
            connection.copy_in_bytes(&work.archive.bytes(&self.statement(work)), |out| {
                for chunk in chunks {
                    let chunk = chunk?;
                    work.check_cancelled()?;
                    out.write(&chunk)?;
                    work.monitor.advance(0, chunk.len() as u64);
                }
                Ok(())
            })
        });
        match copied {
            Ok(rows) => match connection.execute("COMMIT") {
                Ok(_) => Ok(Outcome::Rows(rows)),
                Err(error @ WireError::Server(_)) => Ok(Outcome::Refused(error)),
                Err(error) => Err(error.into()),
            },
            Err(error) => {
                if connection.execute("ROLLBACK").is_err() {
                    // A session that was ended says why before it goes.
                    return Err(match error {
                        WireError::Caller(failure) => failure,
                        error => work.broken_off(error),
                    });
                }
                match error {
                    WireError::Caller(failure) if failure.kind == Kind::Cancelled => Err(failure),
                    WireError::Caller(failure) => Ok(Outcome::Unreadable(failure)),
                    error if work.is_full(&error) => Err(work.broken_off(error)),
                    error @ WireError::Server(_) => Ok(Outcome::Refused(error)),
                    error => Err(error.into()),
                }
            }
        }
    }
}

/// The top of the partition tree.
fn root(work: &Work<'_>, table: &TableData) -> QualifiedName {
    let mut name = QualifiedName { schema: table.schema.clone(), name: table.name.clone() };
    while let Some(parent) =
        work.facts.inventory.table(&name.schema, &name.name).and_then(|t| t.inherits.first())
    {
        name = parent.clone();
    }
    name
}

/// Reads chunks ahead, until all are sent or nobody wants them.
fn fetch(vault: &dyn Vault, content: &Content, send: &crossbeam_channel::Sender<Result<Vec<u8>>>) {
    for piece in vault.pieces(content) {
        let chunk = piece.and_then(|piece| match piece.chunk {
            Some(chunk) => vault.get(&chunk),
            None => Err(Failure::verification("a table's rows have a hole")),
        });
        let failed = chunk.is_err();
        if send.send(chunk).is_err() || failed {
            return;
        }
    }
}

/// Counts what came of the loads.
#[derive(Default)]
pub(super) struct Tally<'a> {
    rows: HashMap<(&'a str, &'a str), u64>,
    /// Tables of which something is missing, and that are named.
    named: HashSet<(&'a str, &'a str)>,
}

impl<'a> Tally<'a> {
    /// `last`: there is no further round.
    pub fn take(&mut self, work: &Work<'_>, load: &Load<'a>, outcome: &Outcome, last: bool) {
        let key = (load.table.schema.as_str(), load.table.name.as_str());
        let text = match outcome {
            Outcome::Rows(rows) => {
                *self.rows.entry(key).or_default() += rows;
                return;
            }
            Outcome::Refused(_) if !last => return,
            Outcome::Refused(error) => error.to_string(),
            Outcome::Unreadable(failure) => format!("its rows are not restored: {}", failure.with_causes()),
        };
        work.problem(Severity::Error, object(load.table), text);
        self.named.insert(key);
    }

    /// The sum; a table that got another number of rows than were captured is named.
    pub fn finish(self, work: &Work<'_>, chosen: &Chosen<'_>) -> Loaded {
        let mut loaded = Loaded::default();
        for table in &chosen.tables {
            let key = (table.schema.as_str(), table.name.as_str());
            let Some(rows) = self.rows.get(&key) else { continue };
            if *rows != table.rows && !self.named.contains(&key) {
                let text = format!("{} rows were captured and {rows} loaded", table.rows);
                work.problem(Severity::Error, object(table), text);
            }
            loaded.rows += rows;
            loaded.tables += 1;
            loaded.bytes += table.bytes;
        }
        loaded
    }
}

/// Sets every chosen sequence to its recorded value.
pub(super) fn sequences(work: &Work<'_>, connection: &mut Connection, chosen: &Chosen<'_>) -> Result<()> {
    for sequence in &chosen.sequences {
        let name = chosen.name_of(work.archive, &sequence.schema, &sequence.name);
        let sql = format!(
            "SELECT pg_catalog.setval({}, {}, {})",
            quote_literal(&name.quoted()),
            sequence.last_value,
            sequence.is_called
        );
        match connection.execute_bytes(&work.archive.bytes(&sql)) {
            Ok(_) => {}
            Err(WireError::Server(message)) => {
                let object = format!("sequence {}.{}", sequence.schema, sequence.name);
                work.problem(Severity::Error, object, message.to_string());
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
