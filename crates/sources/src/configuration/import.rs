//! Captured tables, put back into tables that live.
//!
//! All of them in one transaction, parents before the tables that refer to them. Rows pass through temporary tables with the
//! columns of the living ones, so PostgreSQL itself reads each value by its type.

use super::{TABLE, facts::tables};
use crate::postgres::{
    facts::QualifiedName,
    merge::{self, How, Merged, Pair},
    session,
    wire::{ConnectSpec, Connection, WireError, quote_literal, quote_qualified},
};
use mainstay_domain::{Failure, Result, point::SourceRecord, stream::Vault};

/// A captured table, and the living one that gets its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    pub captured: String,
    pub into: QualifiedName,
    pub rows: u64,
}

/// Which captured tables go where: those that are `wanted` by name (all that were captured as tables, if none is), to the table
/// they were captured from, or to `schema` and `name`.
///
/// # Errors
/// `Usage`: no such table; or one that was captured by a query, of which it is not said where it goes.
pub fn plan_import(
    record: &SourceRecord,
    wanted: &[String],
    schema: Option<&str>,
    name: Option<&str>,
) -> Result<Vec<Import>> {
    let captured = tables(record)?;
    if let Some(unknown) = wanted.iter().find(|name| captured.iter().all(|table| table.name != **name)) {
        let names: Vec<_> = captured.iter().map(|table| table.name.as_str()).collect();
        return Err(Failure::usage(format!("no table {unknown} was captured"))
            .hint(format!("These were: {}.", names.join(", "))));
    }
    let chosen = captured.iter().filter(|table| match wanted {
        [] => table.table.is_some(),
        wanted => wanted.contains(&table.name),
    });
    let mut plan = Vec::new();
    for table in chosen {
        let origin = table.table.as_deref().map(|text| text.split_once('.').unwrap_or(("public", text)));
        let Some(target) = name.or(origin.map(|(_, name)| name)) else {
            return Err(Failure::usage(format!(
                "{} was captured by a query: it is not known where its rows go",
                table.name
            ))
            .hint("Say it: --to-schema SCHEMA --to-table NAME."));
        };
        let schema = schema.or(origin.map(|(schema, _)| schema)).unwrap_or("public");
        let into = QualifiedName { schema: schema.to_owned(), name: target.to_owned() };
        plan.push(Import { captured: table.name.clone(), into, rows: table.rows });
    }
    if plan.is_empty() {
        return Err(Failure::usage("no table was captured that could be put back")
            .hint("`mainstay ls POINT` shows what a configuration holds; --to-dir brings its files back."));
    }
    if name.is_some() && plan.len() > 1 {
        return Err(
            Failure::usage("several tables cannot go into one").hint("Choose one of them with --table.")
        );
    }
    Ok(plan)
}

/// Puts the rows back. Without `how` the living tables must be empty.
///
/// # Errors
/// `Usage`: a table is not there, or a value does not fit it. `Preflight`: it has rows. Whatever the error: nothing was changed.
pub fn import(
    vault: &dyn Vault,
    record: &SourceRecord,
    spec: &ConnectSpec,
    plan: &[Import],
    how: Option<How>,
) -> Result<Vec<Merged>> {
    let mut connection = Connection::connect(spec)?;
    session::prepare(&mut connection)?;
    connection.execute("BEGIN")?;
    let mut pairs = Vec::new();
    for (number, import) in plan.iter().enumerate() {
        let beside = format!("mainstay_rows_{number}");
        load(&mut connection, vault, record, import, &beside)
            .map_err(|failure| failure.during(format_args!("reading the rows of {}", import.captured)))?;
        pairs.push(Pair {
            live: import.into.clone(),
            beside: QualifiedName { schema: "pg_temp".to_owned(), name: beside },
        });
    }
    let done = match how {
        Some(how) => merge::merge_within(&mut connection, &pairs, how, None)?,
        None => fill(&mut connection, &pairs)?,
    };
    connection.execute("COMMIT")?;
    Ok(done)
}

/// Fills a temporary table that is made like the living one.
fn load(
    connection: &mut Connection,
    vault: &dyn Vault,
    record: &SourceRecord,
    import: &Import,
    beside: &str,
) -> Result<()> {
    let live = quote_qualified(&import.into.schema, &import.into.name);
    let there = connection
        .query_text(&format!("SELECT pg_catalog.to_regclass({}) IS NOT NULL", quote_literal(&live)))?;
    if there.as_deref() != Some("t") {
        return Err(Failure::usage(format!("there is no table {}", import.into))
            .hint("Make it first, as the application's migrations do; or name another with --to-schema and --to-table."));
    }
    let stream = record.stream(&format!("{TABLE}{}", import.captured)).ok_or_else(|| {
        Failure::verification(format!("the record has no stream of the table {}", import.captured))
    })?;
    connection.execute(&format!(
        "CREATE TEMPORARY TABLE {beside}_lines (line pg_catalog.jsonb) ON COMMIT DROP;
         CREATE TEMPORARY TABLE {beside} (LIKE {live}) ON COMMIT DROP"
    ))?;
    // As it was written: see `capture`.
    let copy = format!(
        "COPY pg_temp.{beside}_lines FROM STDIN (FORMAT csv, QUOTE E'\\x01', DELIMITER E'\\x02', ENCODING 'UTF8')"
    );
    connection.copy_in(&copy, |out| vault.copy(&stream.content, out).map(|_| ()))?;
    let filled = format!(
        "INSERT INTO pg_temp.{beside} SELECT row.* FROM pg_temp.{beside}_lines,
           pg_catalog.jsonb_populate_record(NULL::pg_temp.{beside}, line) AS row"
    );
    connection.execute(&filled).map_err(|error| match error {
        WireError::Server(message) => {
            Failure::usage(format!("its rows do not fit {}: {message}", import.into))
                .hint("Nothing was changed. Restore them as a file (--to-dir), and put them in by hand.")
        }
        error => error.into(),
    })?;
    Ok(())
}

/// Into tables that are empty.
fn fill(connection: &mut Connection, pairs: &[Pair]) -> Result<Vec<Merged>> {
    for pair in pairs {
        let live = quote_qualified(&pair.live.schema, &pair.live.name);
        if connection.query_text(&format!("SELECT EXISTS (SELECT FROM {live})"))?.as_deref() == Some("t") {
            return Err(Failure::preflight(format!("{} has rows", pair.live)).hint(
                "Nothing was changed. --merge missing adds those that are not there; --merge upsert also gives the others \
                 their old values back.",
            ));
        }
    }
    merge::fill_within(connection, pairs)
}
