//! What a restore would do, as a value: for `--dry-run`, for the question before it begins, and for the restore itself.

use super::{
    Options, Target,
    archive::Archive,
    chosen::{self, Chosen, RELATIONS, Selection, Stage, defines},
    read_archive, unfinished,
};
use crate::postgres::{
    facts::{Facts, ObjectKind, Skipped, TableData},
    wire::{Connection, Host, WireError, quote_ident, quote_literal},
};
use mainstay_domain::{ByteSize, Failure, Kind, Result, point::SourceRecord, stream::Vault};
use serde::Serialize;
use std::collections::BTreeSet;

const INVALID_PARAMETER: &str = "22023";

/// What a restore would do, and what stands against it.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// The database that receives, and the server as messages name it.
    pub database: String,
    pub server: String,
    pub server_version: String,
    pub recorded_version: String,
    /// The database is made; otherwise it is there.
    pub creates_database: bool,
    /// In order of size, largest first.
    pub tables: Vec<PlannedTable>,
    pub rows: u64,
    pub bytes: u64,
    pub large_objects: u64,
    /// Roles that the database needs and the server lacks.
    pub missing_roles: Vec<String>,
    /// Extensions that the database needs and the server cannot install.
    pub missing_extensions: Vec<String>,
    /// What the database's security labels are of, and the server has not loaded.
    pub missing_label_providers: Vec<String>,
    /// What is good to know.
    pub notices: Vec<String>,
    /// Why it cannot be done; empty if it can.
    pub refusals: Vec<Refusal>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedTable {
    pub from: String,
    pub into: String,
    pub rows: u64,
    pub bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    pub message: String,
    pub hint: String,
}

impl Plan {
    /// The failure that stands for all refusals; the first gives the hint.
    pub fn refuse(&self) -> Result<()> {
        let Some(first) = self.refusals.first() else { return Ok(()) };
        let all: Vec<&str> = self.refusals.iter().map(|r| r.message.as_str()).collect();
        Err(Failure::new(Kind::Preflight, all.join("; ")).hint(first.hint.clone()))
    }

    fn against(&mut self, message: String, hint: &str) {
        self.refusals.push(Refusal { message, hint: hint.to_owned() });
    }
}

/// Plans a restore: connects, looks, changes nothing.
pub fn plan(vault: &dyn Vault, record: &SourceRecord, target: &Target, options: &Options) -> Result<Plan> {
    let facts = Facts::from_json(&record.facts).map_err(|e| {
        Failure::verification("the description of the captured database cannot be used").caused_by(e)
    })?;
    let archive = read_archive(vault, record, "schema")?;
    examine(record, &facts, &archive, target, options)
}

pub(super) fn examine(
    record: &SourceRecord,
    facts: &Facts,
    archive: &Archive,
    target: &Target,
    options: &Options,
) -> Result<Plan> {
    let chosen = chosen::choose(archive, facts, &options.selection)?;
    let mut connection = Connection::connect(&target.server)?;
    // In the order in which their rows come.
    let mut in_order = chosen.tables.clone();
    in_order.sort_by_key(|t| (t.priority, std::cmp::Reverse(t.bytes)));
    let tables: Vec<PlannedTable> = in_order
        .iter()
        .map(|t| PlannedTable {
            from: format!("{}.{}", t.schema, t.name),
            into: chosen.name_of(archive, &t.schema, &t.name).to_string(),
            rows: t.rows,
            bytes: t.bytes,
        })
        .collect();
    let mut plan = Plan {
        database: target.database.clone(),
        server: target.server.describe(),
        server_version: connection.parameter("server_version").unwrap_or_default().to_owned(),
        recorded_version: facts.server.version.clone(),
        creates_database: !target.into_existing,
        rows: tables.iter().map(|t| t.rows).sum(),
        bytes: tables.iter().map(|t| t.bytes).sum(),
        tables,
        large_objects: if chosen.large_objects { facts.large_objects.count } else { 0 },
        missing_roles: Vec::new(),
        missing_extensions: Vec::new(),
        missing_label_providers: Vec::new(),
        notices: Vec::new(),
        refusals: Vec::new(),
    };
    the_database(&mut plan, &mut connection, target)?;
    the_server(&mut plan, &mut connection, facts, target, &chosen)?;
    the_record(&mut plan, record, archive, facts, &chosen);
    the_selection(&mut plan, archive, facts, &chosen, &options.selection);
    if options.roles && chosen.everything {
        the_roles(&mut plan, &mut connection, target)?;
    }
    if target.into_existing && plan.refusals.is_empty() {
        conflicts(&mut plan, archive, target, &chosen)?;
    }
    Ok(plan)
}

fn the_database(plan: &mut Plan, connection: &mut Connection, target: &Target) -> Result<()> {
    let name = quote_literal(&target.database);
    let rows = connection.query(&format!(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = {name}),
                rolcreatedb OR rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user"
    ))?;
    let (exists, may_create) = rows.iter().next().map_or((false, false), |row| (row.bool(0), row.bool(1)));
    match (target.into_existing, exists) {
        (false, true) => {
            let rest = unfinished::of(connection, &target.database)?;
            let failure = unfinished::exists(&target.database, rest.as_ref());
            plan.against(failure.message, failure.hint.as_deref().unwrap_or_default());
        }
        (true, false) => plan.against(
            format!("database {} does not exist", target.database),
            "Leave out that it exists, and it is made.",
        ),
        (true, true) => {
            if let Some(rest) = unfinished::of(connection, &target.database)? {
                plan.notices.push(rest.to_string());
            }
        }
        (false, false) if !may_create => plan.against(
            format!("{} may not create a database", target.server.user),
            "Give it CREATEDB, or create the database and restore into it.",
        ),
        _ => {}
    }
    Ok(())
}

fn the_server(
    plan: &mut Plan,
    connection: &mut Connection,
    facts: &Facts,
    target: &Target,
    chosen: &Chosen<'_>,
) -> Result<()> {
    let mut names = |sql: &str| -> Result<BTreeSet<String>> {
        Ok(connection.query(sql)?.iter().map(|row| row.text(0)).collect())
    };
    let roles = names("SELECT rolname FROM pg_catalog.pg_roles")?;
    plan.missing_roles = facts.inventory.roles.iter().filter(|r| !roles.contains(*r)).cloned().collect();
    let extensions = names("SELECT name FROM pg_catalog.pg_available_extensions")?;
    let wanted: BTreeSet<String> = chosen
        .in_stage(Stage::PreData)
        .filter(|c| c.entry.kind == "EXTENSION")
        .map(|c| String::from_utf8_lossy(&c.entry.tag).into_owned())
        .collect();
    plan.missing_extensions = wanted.difference(&extensions).cloned().collect();
    if !plan.missing_extensions.is_empty() {
        plan.against(
            format!("the server has no extension {}", plan.missing_extensions.join(", ")),
            "Install it on the server (the package of the extension, for the server's version).",
        );
    }
    plan.missing_label_providers = missing_label_providers(connection, facts)?;
    let major = connection.server_version_num() / 10_000;
    if major < facts.server.major() {
        plan.notices.push(format!(
            "the server is of version {major}, older than the captured one ({}): it may refuse some objects",
            facts.server.major()
        ));
    }
    if let Some(free) = free_space(connection, target)? {
        // Tables with their indexes take about as much as their rows' text, seldom more than twice that.
        if free < plan.bytes {
            plan.against(
                format!(
                    "the server's disk has {} free, and the rows alone are {}",
                    ByteSize(free),
                    ByteSize(plan.bytes)
                ),
                "Make room, or restore to another server.",
            );
        }
    }
    Ok(())
}

/// Without them the restore goes on: what they own belongs to the user, and what they may do, nobody may.
fn the_roles(plan: &mut Plan, connection: &mut Connection, target: &Target) -> Result<()> {
    let sql = "SELECT rolcreaterole OR rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user";
    if !plan.missing_roles.is_empty() && connection.query_text(sql)?.as_deref() != Some("t") {
        plan.notices.push(format!(
            "{} may not make roles (CREATEROLE), so these will be missing, and what they own will be its own: {}",
            target.server.user,
            plan.missing_roles.join(", ")
        ));
    }
    Ok(())
}

/// No catalogue names the providers. A label for what does not exist is refused for one of two reasons, and nothing is changed.
fn missing_label_providers(connection: &mut Connection, facts: &Facts) -> Result<Vec<String>> {
    // "dummy of table public.orders"
    let labels = facts.inventory.objects_of(ObjectKind::SecurityLabel);
    let providers: BTreeSet<&str> =
        labels.filter_map(|label| label.identity.split_once(" of ")).map(|(provider, _)| provider).collect();
    let mut missing = Vec::new();
    for provider in providers {
        let nothing = "pg_catalog.\"there is none of this name\"";
        let sql = format!("SECURITY LABEL FOR {} ON TABLE {nothing} IS NULL", quote_ident(provider));
        match connection.execute(&sql) {
            Err(WireError::Server(message)) if message.code == INVALID_PARAMETER => {
                missing.push(provider.to_owned());
            }
            Ok(_) | Err(WireError::Server(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(missing)
}

/// Bytes free where the server keeps its data; `None` unless it is on this machine and lets us see.
fn free_space(connection: &mut Connection, target: &Target) -> Result<Option<u64>> {
    if !matches!(target.server.host, Host::Socket(_)) {
        return Ok(None);
    }
    let sql = "SELECT setting FROM pg_catalog.pg_settings WHERE name = 'data_directory'";
    let Some(directory) = connection.query_text(sql)? else { return Ok(None) };
    Ok(rustix::fs::statvfs(directory.as_str()).ok().map(|s| s.f_bavail.saturating_mul(s.f_frsize)))
}

fn the_record(plan: &mut Plan, record: &SourceRecord, archive: &Archive, facts: &Facts, chosen: &Chosen<'_>) {
    if record.state != mainstay_domain::point::State::Complete {
        plan.notices.push(format!("the recovery point is {}", record.state));
    }
    let list = |condition: &dyn Fn(&Option<Skipped>, &Option<String>) -> bool| -> Vec<&TableData> {
        facts.tables.iter().filter(|t| condition(&t.skipped, &t.filter)).collect()
    };
    let names = |tables: &[&TableData]| -> String {
        let names: Vec<String> = tables.iter().map(|t| format!("{}.{}", t.schema, t.name)).collect();
        names.join(", ")
    };
    let without_rows = list(&|skipped, _| {
        matches!(skipped, Some(Skipped::Excluded | Skipped::Unreadable(_) | Skipped::Dropped))
    });
    let (empty, missing): (Vec<&TableData>, Vec<&TableData>) =
        without_rows.into_iter().partition(|t| defines(archive, &t.schema, &t.name));
    if !empty.is_empty() && chosen.everything {
        plan.notices
            .push(format!("rows were not captured, so these tables will be empty: {}", names(&empty)));
    }
    if !missing.is_empty() && chosen.everything {
        plan.notices
            .push(format!("these tables were not captured, and will be missing: {}", names(&missing)));
    }
    let some = list(&|_, filter| filter.is_some());
    if !some.is_empty() && chosen.everything {
        plan.notices.push(format!("only some rows were captured of {}", names(&some)));
    }
    if chosen.everything && facts.inventory.objects_of(ObjectKind::Subscription).next().is_some() {
        plan.notices.push("subscriptions come back disabled and without a slot of their own".to_owned());
    }
    if chosen.everything && !plan.missing_label_providers.is_empty() {
        let names = plan.missing_label_providers.join(", ");
        plan.notices.push(format!(
            "security labels of {names} will be missing: the server has not loaded what provides them (shared_preload_libraries)"
        ));
    }
    if !chosen.everything && !plan.missing_roles.is_empty() {
        plan.notices.push("roles that are missing are made only when everything is restored".to_owned());
    }
}

/// What the recovery point lacks of the tables that were asked for by name.
fn the_selection(
    plan: &mut Plan,
    archive: &Archive,
    facts: &Facts,
    chosen: &Chosen<'_>,
    selection: &Selection,
) {
    for table in facts.tables.iter().filter(|t| chosen.is_named(t)) {
        let name = format!("{}.{}", table.schema, table.name);
        let defined = defines(archive, &table.schema, &table.name);
        // A partition of one that was may be missing from the rest.
        let asked = selection.tables.iter().any(|t| t.schema == table.schema && t.name == table.name);
        match (&table.skipped, &table.filter) {
            (Some(Skipped::Unreadable(reason)), _) if !defined && asked => plan.against(
                format!("table {name} is not in this recovery point: {reason}"),
                "Choose a point that was made by a user who may read it.",
            ),
            (Some(Skipped::Unreadable(reason)), _) => {
                plan.notices
                    .push(format!("the rows of {name} were not captured ({reason}): it will be empty"));
            }
            (Some(Skipped::Excluded | Skipped::Dropped), _) => {
                plan.notices
                    .push(format!("the rows of {name} were left out when it was captured: it will be empty"));
            }
            (None, Some(filter)) => {
                plan.notices.push(format!("of {name}, only rows with {filter} were captured"))
            }
            _ => {}
        }
    }
}

/// Names that are taken where something new would go.
fn conflicts(plan: &mut Plan, archive: &Archive, target: &Target, chosen: &Chosen<'_>) -> Result<()> {
    let mut connection = Connection::connect(&target.server.with_database(&target.database))?;
    let rows = connection.query(
        "SELECT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace
          WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'",
    )?;
    let there: BTreeSet<(String, String)> = rows.iter().map(|row| (row.text(0), row.text(1))).collect();
    let taken: BTreeSet<String> = chosen
        .entries
        .iter()
        .filter(|c| !c.borrowed && (RELATIONS.contains(&c.entry.kind.as_str()) || c.entry.kind == "INDEX"))
        .map(|c| chosen.name_of(archive, &archive.text(&c.entry.schema), &archive.text(&c.entry.tag)))
        .filter(|name| there.contains(&(name.schema.clone(), name.name.clone())))
        .map(|name| name.to_string())
        .collect();
    let unfinished = unfinished::tables_in(&mut connection)?;
    if taken.is_empty() {
        // Beside what lives, another restore may leave as much again.
        plan.notices.extend(unfinished.iter().map(|rest| format!("{rest}. {}", rest.hint())));
        return Ok(());
    }
    const SHOWN: usize = 5;
    let names: Vec<String> = taken.iter().take(SHOWN).cloned().collect();
    let more = taken.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    if !unfinished.is_empty() {
        let rests: Vec<String> = unfinished.iter().map(ToString::to_string).collect();
        let hints: Vec<String> = unfinished.iter().map(unfinished::UnfinishedTables::hint).collect();
        plan.against(
            format!(
                "database {} already has {}{more}; {}",
                target.database,
                names.join(", "),
                rests.join("; ")
            ),
            &hints.join(" "),
        );
        return Ok(());
    }
    plan.against(
        format!("database {} already has {}{more}", target.database, names.join(", ")),
        "Nothing that exists is overwritten: restore into another schema (--to-schema) or database.",
    );
    Ok(())
}
