//! Puts lost rows back into living tables, from tables that a restore put beside them.
//!
//! One transaction, parents before their children, so that foreign keys hold. What lives and was not lost is never deleted:
//! `missing` adds rows whose primary key is not there, `upsert` also gives rows that are there their old values back. Triggers
//! and defaults act as for any insert; values of identity columns are the old ones, generated columns are computed anew.

use super::{
    facts::QualifiedName,
    session,
    wire::{ConnectSpec, Connection, quote_ident, quote_literal, quote_qualified},
};
use mainstay_domain::{Failure, Kind, Result};
use serde::Serialize;
use std::collections::BTreeSet;

/// What happens to rows that are there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// They stay as they are.
    Missing,
    /// They get their old values.
    Upsert,
}

/// A living table, and the restored one beside it.
#[derive(Debug, Clone)]
pub struct Pair {
    pub live: QualifiedName,
    pub beside: QualifiedName,
}

/// What was done to one table.
#[derive(Debug, Clone, Serialize)]
pub struct Merged {
    pub table: String,
    /// Rows put back: added, or (with `upsert`) given their old values.
    pub rows: u64,
    /// Triggers that fire for each of them.
    pub triggers: Vec<String>,
}

/// Merges every pair, in one transaction. `condition`: only rows of the restored tables for which it holds.
///
/// # Errors
/// `Usage`: a table has no primary key, or the condition is wrong. Whatever the error: nothing was changed.
pub fn merge(spec: &ConnectSpec, pairs: &[Pair], how: How, condition: Option<&str>) -> Result<Vec<Merged>> {
    let mut connection = Connection::connect(spec)?;
    session::prepare(&mut connection)?;
    connection.execute("BEGIN")?;
    let merged = merge_within(&mut connection, pairs, how, condition)?;
    connection.execute("COMMIT")?;
    Ok(merged)
}

/// Looks at the living tables before rows for them are looked for, which may take hours: whether they are there and have keys, and whether the
/// condition is one.
///
/// # Errors
/// `Usage`: a table has no primary key, or the condition makes no sense. Returns the tables that are not there.
pub fn refuse_early(
    spec: &ConnectSpec,
    tables: &[QualifiedName],
    merging: bool,
    condition: Option<&str>,
) -> Result<Vec<QualifiedName>> {
    let mut connection = Connection::connect(spec)?;
    session::prepare(&mut connection)?;
    let mut missing = Vec::new();
    for table in tables {
        let name = quote_qualified(&table.schema, &table.name);
        let found = format!("SELECT pg_catalog.to_regclass({}) IS NOT NULL", quote_literal(&name));
        if connection.query_text(&found)?.as_deref() != Some("t") {
            missing.push(table.clone());
            continue;
        }
        if merging {
            let itself = Pair { live: table.clone(), beside: table.clone() };
            refuse_keyless(&itself, &columns(&mut connection, &itself)?)?;
        }
        let Some(condition) = condition else { continue };
        let asked = connection.query(&format!("EXPLAIN SELECT FROM {name} WHERE ({condition})"));
        match asked {
            // A column that was dropped since then may be meant.
            Err(error) if error.is("42703") => {}
            Err(error) if error.code().is_some_and(|code| ["22", "42"].contains(&&code[..2])) => {
                return Err(Failure::usage(format!("the condition {condition:?} makes no sense for {table}"))
                    .hint("Write it as in the WHERE of a query; functions and types of your own with their schemas.")
                    .caused_by(error));
            }
            Err(error) => return Err(error.into()),
            Ok(_) => {}
        }
    }
    Ok(missing)
}

fn refuse_keyless(pair: &Pair, columns: &Columns) -> Result<()> {
    match columns.key.is_empty() || columns.key.iter().any(|name| !columns.names.contains(name)) {
        false => Ok(()),
        true => Err(Failure::usage(format!(
            "the rows of {} cannot be told apart: it has no primary key that both have",
            pair.live
        ))
        .hint("Leave --merge out, and put them back by hand from the table beside it.")),
    }
}

/// [`merge`] within a transaction of the caller's.
pub(crate) fn merge_within(
    connection: &mut Connection,
    pairs: &[Pair],
    how: How,
    condition: Option<&str>,
) -> Result<Vec<Merged>> {
    let mut merged = Vec::new();
    for pair in in_order(connection, pairs)? {
        let columns = columns(connection, pair)?;
        refuse_keyless(pair, &columns)?;
        merged.push(put_back(connection, pair, &statement(pair, &columns, how, condition), condition)?);
    }
    Ok(merged)
}

/// Puts all rows into tables that are empty, within a transaction of the caller's. They need no primary key.
pub(crate) fn fill_within(connection: &mut Connection, pairs: &[Pair]) -> Result<Vec<Merged>> {
    let mut filled = Vec::new();
    for pair in in_order(connection, pairs)? {
        let columns = columns(connection, pair)?;
        filled.push(put_back(connection, pair, &insertion(pair, &columns), None)?);
    }
    Ok(filled)
}

fn regclass(name: &QualifiedName) -> String {
    format!("{}::pg_catalog.regclass", quote_literal(&quote_qualified(&name.schema, &name.name)))
}

/// Parents first. Tables that refer to each other in a circle come as they were named.
fn in_order<'p>(connection: &mut Connection, pairs: &'p [Pair]) -> Result<Vec<&'p Pair>> {
    let mut left: Vec<&Pair> = pairs.iter().collect();
    let mut ordered = Vec::new();
    let mut parents = Vec::new();
    for pair in pairs {
        let rows = connection.query(&format!(
            "SELECT n.nspname, c.relname FROM pg_catalog.pg_constraint f
               JOIN pg_catalog.pg_class c ON c.oid = f.confrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
              WHERE f.contype = 'f' AND f.conrelid = {0} AND f.confrelid <> {0}",
            regclass(&pair.live)
        ))?;
        let of: BTreeSet<QualifiedName> =
            rows.iter().map(|row| QualifiedName { schema: row.text(0), name: row.text(1) }).collect();
        parents.push((pair.live.clone(), of));
    }
    while !left.is_empty() {
        let waits = |pair: &Pair, left: &[&Pair]| {
            let of = parents.iter().find(|(name, _)| *name == pair.live).map(|(_, of)| of);
            left.iter().any(|other| other.live != pair.live && of.is_some_and(|of| of.contains(&other.live)))
        };
        let next = left.iter().position(|pair| !waits(pair, &left)).unwrap_or(0);
        ordered.push(left.remove(next));
    }
    Ok(ordered)
}

/// The columns of a table that can be written to, and those of its primary key.
struct Columns {
    names: Vec<String>,
    key: Vec<String>,
}

fn columns(connection: &mut Connection, pair: &Pair) -> Result<Columns> {
    let shared = connection.query(&format!(
        "SELECT a.attname FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_attribute b
             ON b.attrelid = {} AND b.attname = a.attname AND b.attnum > 0 AND NOT b.attisdropped
          WHERE a.attrelid = {} AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum",
        regclass(&pair.beside),
        regclass(&pair.live)
    ))?;
    let key = connection.query(&format!(
        "SELECT a.attname FROM pg_catalog.pg_index i JOIN pg_catalog.pg_attribute a
             ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
          WHERE i.indrelid = {} AND i.indisprimary ORDER BY a.attnum",
        regclass(&pair.live)
    ))?;
    Ok(Columns {
        names: shared.iter().map(|row| row.text(0)).collect(),
        key: key.iter().map(|row| row.text(0)).collect(),
    })
}

/// Runs the statement that puts one table's rows back.
fn put_back(
    connection: &mut Connection,
    pair: &Pair,
    statement: &str,
    condition: Option<&str>,
) -> Result<Merged> {
    let triggers = connection.query(&format!(
        "SELECT tgname FROM pg_catalog.pg_trigger WHERE tgrelid = {} AND NOT tgisinternal AND tgenabled <> 'D' ORDER BY tgname",
        regclass(&pair.live)
    ))?;
    let rows = connection.execute(statement).map_err(|error| {
        let text = format!("the rows of {} cannot be put back", pair.live);
        match error.code() {
            Some(code) if code.starts_with("23") => Failure::new(Kind::Failed, text)
                .hint("Nothing was changed. What they refer to may be missing too: restore those tables with them, in one command.")
                .caused_by(error),
            Some(code) if code.starts_with("42") && condition.is_some() => {
                Failure::usage(text).hint("Nothing was changed. Look at the condition.").caused_by(error)
            }
            _ => Failure::from(error).during(text),
        }
    })?;
    Ok(Merged {
        table: pair.live.to_string(),
        rows,
        triggers: triggers.iter().map(|row| row.text(0)).collect(),
    })
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| quote_ident(name)).collect::<Vec<_>>().join(", ")
}

/// All rows of the table beside, into the living one.
fn insertion(pair: &Pair, columns: &Columns) -> String {
    let live = quote_qualified(&pair.live.schema, &pair.live.name);
    let beside = quote_qualified(&pair.beside.schema, &pair.beside.name);
    let all = quoted(&columns.names);
    format!("INSERT INTO {live} AS live ({all}) OVERRIDING SYSTEM VALUE SELECT {all} FROM {beside}")
}

fn statement(pair: &Pair, columns: &Columns, how: How, condition: Option<&str>) -> String {
    let chosen = condition.map(|condition| format!(" WHERE ({condition})")).unwrap_or_default();
    let others: Vec<&String> = columns.names.iter().filter(|name| !columns.key.contains(name)).collect();
    let conflict = match how {
        How::Upsert if !others.is_empty() => {
            let set: Vec<String> =
                others.iter().map(|name| format!("{0} = EXCLUDED.{0}", quote_ident(name))).collect();
            let differs: Vec<String> = others
                .iter()
                // As text: json, xml and point have no operator to compare them with.
                .map(|name| {
                    let name = quote_ident(name);
                    format!("live.{name}::pg_catalog.text IS DISTINCT FROM EXCLUDED.{name}::pg_catalog.text")
                })
                .collect();
            format!("DO UPDATE SET {} WHERE {}", set.join(", "), differs.join(" OR "))
        }
        How::Missing | How::Upsert => "DO NOTHING".to_owned(),
    };
    format!("{}{chosen} ON CONFLICT ({}) {conflict}", insertion(pair, columns), quoted(&columns.key))
}
