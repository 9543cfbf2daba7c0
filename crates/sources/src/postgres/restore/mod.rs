//! Brings a captured database back: whole into a new database, or some of its tables and schemas beside what lives.
//!
//! The order is pg_restore's, and is the safety argument: the roles that are missing; the database; everything that must be
//! there before rows (pre-data); rows, in parallel; large objects; sequences; everything that checks, finds or reacts to rows
//! (post-data), in parallel; privileges; materialized views; event triggers; the properties of the database. Nothing that
//! exists is ever changed, dropped or overwritten: a new database must be new, a new table must be new. From when it is made
//! until all of this is done, a new database is marked as [`unfinished`]; and so is each new table in a database that lives.
//!
//! The recorded SQL was written by `pg_dump` on behalf of the captured server. It runs on our own connection, statement by
//! statement, and never passes through a shell or `psql`. What fails is named; one failure does not stop the rest, but the
//! result is then not [`State::Complete`].

pub mod archive;
mod blobs;
mod chosen;
mod database;
mod globals;
mod internal_options;
mod judge;
mod load;
mod maker;
mod plan;
mod renaming;
mod schedule;
pub mod sql;
pub(super) mod unfinished;
mod vault;

pub(super) use archive::Archive;
pub(super) use blobs::oids as large_object_ids;
pub use chosen::Selection;
pub(super) use chosen::{defines, named};
pub use plan::{Plan, PlannedTable, Refusal, plan};
pub use unfinished::{Unfinished, UnfinishedTables, unfinished, unfinished_tables};
pub(super) use vault::{open_archive, read_archive};

use super::{
    facts::{Facts, Priority, QualifiedName, SequenceValue, Skipped, TableData},
    session,
    wire::{ConnectSpec, Connection, WireError, quote_ident, quote_literal},
};
use mainstay_domain::{
    Failure, Monitor, Result, Severity,
    point::{Problem, SourceRecord, State},
    stream::Vault,
};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

pub(super) const DISK_FULL: &str = "53100";

/// Where a restore goes.
#[derive(Debug, Clone)]
pub struct Target {
    /// The server, and in `database` the one to connect to for creating the new one (usually `postgres`).
    pub server: ConnectSpec,
    /// The database that receives.
    pub database: String,
    /// It exists, and what is restored goes beside what lives there. Otherwise it must not exist.
    pub into_existing: bool,
}

#[derive(Debug, Clone)]
pub struct Options {
    /// Connections that load rows and build indexes at the same time.
    pub jobs: usize,
    pub selection: Selection,
    /// Objects get their recorded owners. Otherwise all belong to the user that restores.
    pub owners: bool,
    pub privileges: bool,
    /// Roles that are missing are made from the recorded ones, without passwords that were not captured.
    pub roles: bool,
    /// Where the recorded locale is not known to the server, its default is used in place of a refusal.
    pub other_locale: bool,
    /// What is restored, in words: for the mark on a database that is not finished.
    pub of: String,
    /// The caller has more to do to the new database, and takes the mark off himself.
    pub stays_marked: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            jobs: 2,
            selection: Selection::default(),
            owners: true,
            privileges: true,
            roles: true,
            other_locale: false,
            of: "a captured database".to_owned(),
            stays_marked: false,
        }
    }
}

/// What a restore did.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Report {
    pub database: String,
    /// `Complete`: all that was chosen is there. `Incomplete`: the rest is there, and `problems` names what is not.
    pub state: State,
    pub problems: Vec<Problem>,
    pub tables: u64,
    pub rows: u64,
    /// Of the rows' text.
    pub bytes: u64,
    pub large_objects: u64,
    pub roles_created: Vec<String>,
    /// Those of them that have the password back which they had: as it is stored, it was captured.
    pub roles_with_password: Vec<String>,
    /// Objects of which the recovery point itself lacks something, named in `problems`: `table public.orders`.
    pub not_captured: Vec<String>,
    /// Foreign keys that the rows break, now NOT VALID.
    pub not_valid: Vec<String>,
}

impl Report {
    /// The problems that make the result less than whole.
    pub fn errors(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter().filter(|p| p.severity == Severity::Error)
    }
}

/// Tables and sequences of a selection, and the names that a restore gives them.
pub(super) struct Names<'a> {
    archive: &'a Archive,
    chosen: chosen::Chosen<'a>,
    pub tables: Vec<&'a TableData>,
    pub sequences: Vec<&'a SequenceValue>,
    pub large_objects: bool,
}

impl Names<'_> {
    pub fn name_of(&self, schema: &str, name: &str) -> QualifiedName {
        self.chosen.name_of(self.archive, schema, name)
    }

    /// The relations that are restored, and whose rows or value were not captured: the archive's kind, and the name there.
    pub fn without_rows(&self) -> impl Iterator<Item = (&str, QualifiedName)> {
        let relations = self
            .chosen
            .entries
            .iter()
            .filter(|chosen| !chosen.borrowed && chosen::RELATIONS.contains(&chosen.entry.kind.as_str()));
        relations
            .map(|chosen| {
                let text = |bytes: &[u8]| self.archive.text(bytes);
                let name =
                    QualifiedName { schema: text(&chosen.entry.schema), name: text(&chosen.entry.tag) };
                (chosen.entry.kind.as_str(), name)
            })
            .filter(|(_, name)| {
                let is = |schema: &String, of: &String| (schema, of) == (&name.schema, &name.name);
                !self.tables.iter().any(|t| is(&t.schema, &t.name))
                    && !self.sequences.iter().any(|s| is(&s.schema, &s.name))
            })
    }

    /// A text that names objects, with the names that they get.
    pub fn text(&self, schema: &str, text: &str) -> String {
        let bytes = |text: &str| self.archive.bytes(text);
        self.archive.text(&self.chosen.renames.apply(&bytes(text), &bytes(schema)))
    }
}

pub(super) fn names<'a>(archive: &'a Archive, facts: &'a Facts, selection: &Selection) -> Result<Names<'a>> {
    let chosen = chosen::choose(archive, facts, selection)?;
    Ok(Names {
        archive,
        tables: chosen.tables.clone(),
        sequences: chosen.sequences.clone(),
        large_objects: chosen.large_objects,
        chosen,
    })
}

/// What all parts of one restore share.
pub(super) struct Work<'a> {
    pub vault: &'a dyn Vault,
    pub record: &'a SourceRecord,
    pub facts: &'a Facts,
    pub archive: &'a Archive,
    pub options: &'a Options,
    /// The database that receives.
    pub spec: ConnectSpec,
    pub monitor: &'a dyn Monitor,
    /// The database lives: each table that is made carries a mark until all is done.
    pub marks_tables: bool,
    problems: Mutex<Vec<Problem>>,
    not_captured: Mutex<Vec<String>>,
    not_valid: Mutex<Vec<String>>,
}

impl Work<'_> {
    /// A session of the restore: rows and definitions mean here what they meant when they were captured.
    pub fn connect(&self) -> Result<Connection> {
        let mut connection = Connection::connect(&self.spec)?;
        session::prepare(&mut connection)?;
        // Materialized views may read any view; and a crash in the middle is repaired by doing all again.
        let reset = "SELECT pg_catalog.set_config(name, reset_val, false) FROM pg_catalog.pg_settings
                      WHERE name = 'restrict_nonsystem_relation_kind'";
        connection.query(reset)?;
        connection.execute("SET synchronous_commit = off")?;
        Ok(connection)
    }

    /// A session that takes the statements of the archive as they are.
    pub fn connect_for_archive(&self) -> Result<Connection> {
        let mut connection = self.connect()?;
        let encoding = quote_literal(&self.archive.encoding);
        connection.execute(&format!("SET client_encoding = {encoding}"))?;
        Ok(connection)
    }

    pub fn problem(&self, severity: Severity, object: impl Into<String>, message: impl Into<String>) {
        let problem = Problem { severity, object: object.into(), message: message.into() };
        if severity > Severity::Info {
            self.monitor.notice(severity, &format!("{}: {}", problem.object, problem.message));
        }
        self.problems.lock().unwrap_or_else(PoisonError::into_inner).push(problem);
    }

    /// A problem that lies in the recovery point: it never had what is missing.
    fn lacks(&self, severity: Severity, object: String, message: String) {
        self.not_captured.lock().unwrap_or_else(PoisonError::into_inner).push(object.clone());
        self.problem(severity, object, message);
    }

    /// Whether the recovery point lacks rows on purpose, or the restore brings only some tables.
    pub fn rows_left_out(&self) -> bool {
        self.record.partial
            || !self.options.selection.is_everything()
            || self.facts.tables.iter().any(|t| {
                (t.filter.is_some() && self.is_users(t))
                    || matches!(t.skipped, Some(Skipped::Excluded | Skipped::Unreadable(_)))
            })
    }

    /// Tables whose rows the recovery point lacks come back empty, or with some of their rows.
    fn name_what_was_not_captured(&self, chosen: &chosen::Chosen<'_>) {
        for table in &self.facts.tables {
            let object = format!("table {}.{}", table.schema, table.name);
            let brought = chosen.everything
                || chosen.is_named(table)
                || self.options.selection.schemas.contains(&table.schema);
            // Who asks for a table by name wants its rows; a rule that leaves them out of the whole is known.
            let named = if chosen.is_named(table) { Severity::Error } else { Severity::Warning };
            match (&table.skipped, &table.filter) {
                _ if !brought => {}
                (Some(Skipped::Unreadable(reason)), _) => {
                    self.lacks(Severity::Error, object, format!("its rows were not captured: {reason}"));
                }
                (Some(Skipped::Excluded | Skipped::Dropped), _) => {
                    self.lacks(named, object, "its rows were left out when it was captured".to_owned());
                }
                (Some(Skipped::Foreign | Skipped::Extension), _) => {}
                (None, Some(filter)) if self.is_users(table) => {
                    self.lacks(named, object, format!("only rows with {filter} were captured"));
                }
                _ => {}
            }
        }
    }

    /// Not an extension's own table, of which only the user's rows are ever captured.
    fn is_users(&self, table: &TableData) -> bool {
        self.facts.inventory.table(&table.schema, &table.name).is_none_or(|t| t.extension.is_none())
    }

    /// Whether the server has no room: what comes next would fail for the same reason, and may take the server down.
    pub fn is_full(&self, error: &WireError) -> bool {
        error.code() == Some(DISK_FULL)
    }

    /// Why the restore ends in the middle, and what that leaves.
    pub fn broken_off(&self, error: WireError) -> Failure {
        let full = self.is_full(&error);
        let database = &self.spec.database;
        let next = match self.marks_tables {
            true => format!(
                "The tables that it made in {database} are marked as not finished: the same command names them, with what drops them"
            ),
            false => format!(
                "Database {database} is marked as not finished: DROP DATABASE {} WITH (FORCE)",
                quote_ident(database)
            ),
        };
        match full {
            true => Failure::failed("the server has no room for what is restored")
                .caused_by(error)
                .hint(format!("Nothing more was tried. {next}. Make room where its data directory or its tablespaces lie, then restore again.")),
            false => Failure::failed("the server ended the restore's session")
                .caused_by(error)
                .hint(format!("Nothing more was tried. See the server's log for the reason. {next}; then restore again.")),
        }
    }

    pub fn left_not_valid(&self, constraint: String) {
        self.not_valid.lock().unwrap_or_else(PoisonError::into_inner).push(constraint);
    }

    pub fn check_cancelled(&self) -> Result<()> {
        match self.monitor.cancelled() {
            true => Err(Failure::new(mainstay_domain::Kind::Cancelled, "the restore was stopped")
                .hint("What it made so far is still there (a new database, or new tables, marked as not finished): drop it before you begin again.")),
            false => Ok(()),
        }
    }
}

/// Restores what `options` choose from one captured database.
///
/// # Errors
/// Nothing was made: the plan refuses (`Preflight`), the record or its schema cannot be read (`Verification`). Something may
/// have been made: no connection, no permission to create the database, cancelled. Single objects and tables that fail are in
/// the report.
pub fn restore(
    vault: &dyn Vault,
    record: &SourceRecord,
    target: &Target,
    options: &Options,
    monitor: &dyn Monitor,
) -> Result<Report> {
    let facts = Facts::from_json(&record.facts).map_err(|e| {
        Failure::verification("the description of the captured database cannot be used").caused_by(e)
    })?;
    let archive = read_archive(vault, record, "schema")?;
    let plan = plan::examine(record, &facts, &archive, target, options)?;
    plan.refuse()?;
    let chosen = chosen::choose(&archive, &facts, &options.selection)?;

    let work = Work {
        vault,
        record,
        facts: &facts,
        archive: &archive,
        options,
        spec: target.server.with_database(&target.database),
        monitor,
        marks_tables: target.into_existing,
        problems: Mutex::default(),
        not_captured: Mutex::default(),
        not_valid: Mutex::default(),
    };
    work.name_what_was_not_captured(&chosen);
    for notice in &plan.notices {
        work.problem(Severity::Info, "", notice.clone());
    }
    let mut roles = globals::Made::default();
    if options.roles {
        roles = globals::create_missing_roles(&work, target)?;
    }
    if !target.into_existing {
        database::create(&work, target)?;
    }
    let mut maker = maker::Maker::new(&work, &chosen)?;
    monitor.step("objects", None);
    maker.pre_data()?;
    monitor.done("objects", "");

    let loaded = schedule::rows_and_after(&work, &mut maker)?;
    let large_objects = if chosen.large_objects { blobs::load(&work, &mut maker)? } else { 0 };
    load::sequences(&work, &mut maker.connection, &chosen)?;
    if options.privileges {
        maker.privileges()?;
    }
    maker.refresh_materialized_views()?;
    maker.event_triggers()?;
    if !target.into_existing {
        database::properties(&work, target)?;
    }
    // Everything before was committed without waiting for the disk: this waits for all of it.
    maker.connection.execute("SET synchronous_commit = on; SELECT pg_catalog.txid_current()")?;
    maker.take_marks_off()?;
    if !target.into_existing && !options.stays_marked {
        database::finished(&work, target)?;
    }

    let mut problems = work.problems.into_inner().unwrap_or_else(PoisonError::into_inner);
    let priorities: HashMap<String, Priority> =
        facts.tables.iter().map(|t| (load::object(t), t.priority)).collect();
    problems.sort_by_key(|p| priorities.get(&p.object).copied().unwrap_or_default());
    let state = match problems.iter().any(|p| p.severity == Severity::Error) {
        true => State::Incomplete,
        false => State::Complete,
    };
    Ok(Report {
        database: target.database.clone(),
        state,
        problems,
        tables: loaded.tables,
        rows: loaded.rows,
        bytes: loaded.bytes,
        large_objects,
        roles_created: roles.created,
        roles_with_password: roles.with_password,
        not_captured: work.not_captured.into_inner().unwrap_or_else(PoisonError::into_inner),
        not_valid: work.not_valid.into_inner().unwrap_or_else(PoisonError::into_inner),
    })
}
