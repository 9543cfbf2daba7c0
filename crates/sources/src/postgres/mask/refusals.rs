//! What cannot be masked safely, and is refused before anything is changed: nothing may keep what is masked, carry it elsewhere, or turn the
//! masking into nothing.

use super::{Column, How, Relative};
use crate::postgres::{
    facts::QualifiedName,
    wire::{Connection, Row, quote_literal, quote_qualified},
};
use mainstay_domain::{Failure, Kind, Result};

/// What is written into a foreign table changes the server where its rows are; into a view, other tables.
pub(super) fn refuse_elsewhere(relative: &Relative) -> Result<()> {
    match relative.kind.as_str() {
        "r" | "p" => Ok(()),
        _ => Err(Failure::new(
            Kind::Refused,
            format!("{} has no rows of its own: masking it would change those of others", relative.table),
        )
        .hint("Mask the tables in which the rows are. If it is a foreign partition, detach it in the original first.")),
    }
}

/// By what tables refer to each other, nothing may become something else: the other side would refer to nothing.
pub(super) fn refuse_key(connection: &mut Connection, column: &Column, name: &str) -> Result<()> {
    let keys = connection.query(&format!(
        "SELECT conname, conrelid = a.attrelid AND a.attnum = ANY (conkey) FROM pg_catalog.pg_constraint
           JOIN pg_catalog.pg_attribute a ON a.attrelid = {}::pg_catalog.regclass AND a.attname = {}
          WHERE contype = 'f' AND (conrelid = a.attrelid AND a.attnum = ANY (conkey) OR confrelid = a.attrelid AND a.attnum = ANY (confkey))",
        quote_literal(name),
        quote_literal(&column.column)
    ))?;
    // Nobody has to refer to anything.
    let forbidden = keys.iter().find(|key| column.how != How::Null || !key.bool(1));
    match forbidden {
        None => Ok(()),
        Some(key) => Err(Failure::new(
            Kind::Refused,
            format!("{}.{} is part of the foreign key {}", column.table, column.column, key.text(0)),
        )
        .hint("Mask other columns: what tables refer to each other by must stay.")),
    }
}

/// `quiet`: those that fire always are left, and those for replicas.
pub(super) fn refuse_triggers(connection: &mut Connection, relative: &Relative, quiet: bool) -> Result<()> {
    let silent = if quiet { "'D', 'O'" } else { "'D'" };
    let triggers = connection.query(&format!(
        "SELECT tgname FROM pg_catalog.pg_trigger WHERE tgrelid = {}::pg_catalog.regclass AND NOT tgisinternal AND tgenabled NOT IN ({silent})",
        quote_literal(&relative.quoted())
    ))?;
    let names: Vec<String> = triggers.iter().map(|row| row.text(0)).collect();
    let hint = match quiet {
        true => {
            "They fire even where triggers are turned off (ENABLE ALWAYS, ENABLE REPLICA): disable them in the original, or mask other tables."
        }
        false => "Restore as a user who may set session_replication_role.",
    };
    match names.is_empty() {
        true => Ok(()),
        false => Err(Failure::new(
            Kind::Refused,
            format!("{} has triggers that would see what is masked: {}", relative.table, names.join(", ")),
        )
        .hint(hint)),
    }
}

/// A rule puts other statements in the place of ours, or beside it: the masking would change nothing and succeed, or old values would be
/// written elsewhere. Rules belong to the table that a statement names alone, and not to its heirs. `quiet` as for triggers.
pub(super) fn refuse_rules(connection: &mut Connection, table: &QualifiedName, quiet: bool) -> Result<()> {
    let silent = if quiet { "'D', 'O'" } else { "'D'" };
    let rules = connection.query(&format!(
        "SELECT rulename FROM pg_catalog.pg_rewrite WHERE ev_class = {}::pg_catalog.regclass AND ev_type = '2' AND ev_enabled NOT IN ({silent}) ORDER BY 1",
        quote_literal(&quote_qualified(&table.schema, &table.name))
    ))?;
    let names: Vec<String> = rules.iter().map(|row| row.text(0)).collect();
    let hint = match quiet {
        true => {
            "They apply even where rules are turned off (ENABLE ALWAYS, ENABLE REPLICA): disable them in the original, or mask other tables."
        }
        false => "Restore as a user who may set session_replication_role.",
    };
    match names.is_empty() {
        true => Ok(()),
        false => Err(Failure::new(
            Kind::Refused,
            format!("{table} has rules that change what an UPDATE of it does: {}", names.join(", ")),
        )
        .hint(hint)),
    }
}

/// A prepared transaction keeps its locks and the row versions that were there when it began, for as long as nobody ends it: a masked table
/// could not be rewritten, or would keep its old rows.
pub(super) fn refuse_prepared(connection: &mut Connection) -> Result<()> {
    let prepared = connection.query(
        "SELECT gid, prepared::pg_catalog.text FROM pg_catalog.pg_prepared_xacts WHERE database = pg_catalog.current_database() ORDER BY prepared",
    )?;
    let shown = |row: &Row| format!("{} (of {})", quote_literal(&row.text(0)), row.text(1));
    let shown: Vec<String> = prepared.iter().map(shown).collect();
    match shown.is_empty() {
        true => Ok(()),
        false => Err(Failure::new(
            Kind::Refused,
            format!("the database has prepared transactions, which keep old rows: {}", shown.join(", ")),
        )
        .hint(
            "End them in the original (COMMIT PREPARED or ROLLBACK PREPARED, with the name that is shown), and restore a moment after that; or              one at which there was none.",
        )),
    }
}
