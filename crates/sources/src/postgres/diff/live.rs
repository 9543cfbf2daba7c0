//! The living side: read in one transaction, so that all tables are of one instant.

use super::{
    Diff, Options, check, objects, pieces,
    rows::{Comparing, Layout, Side},
    values,
};
use crate::postgres::{
    facts::{CopyColumn, Facts, SequenceValue, TableData, TableKind},
    inspect::inspect,
    rows::{RowHasher, RowSum, copy_out_sql},
    session,
    wire::{ConnectSpec, Connection, WireError},
};
use mainstay_domain::{Failure, Monitor, Result, point::SourceRecord, stream::Vault};

/// A table of a living database.
struct Live<'c> {
    connection: &'c mut Connection,
    sql: String,
    rows: u64,
}

impl Side for Live<'_> {
    fn expected(&self) -> u64 {
        self.rows
    }

    fn rows(&mut self, each: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut begun: Vec<u8> = Vec::new();
        self.connection.copy_out(&self.sql, |bytes, ends| {
            if !ends {
                begun.extend_from_slice(bytes);
                return Ok(());
            }
            let strip = |row: &[u8]| row.len() - usize::from(row.ends_with(b"\n"));
            if begun.is_empty() {
                return each(&bytes[..strip(bytes)]);
            }
            begun.extend_from_slice(bytes);
            each(&begun[..strip(&begun)])?;
            begun.clear();
            Ok(())
        })?;
        Ok(())
    }
}

pub(super) fn diff(
    vault: &dyn Vault,
    record: &SourceRecord,
    spec: &ConnectSpec,
    options: &Options,
    monitor: &dyn Monitor,
) -> Result<Diff> {
    let facts = Facts::from_json(&record.facts)?;
    let mut connection = Connection::connect(spec)?;
    session::prepare(&mut connection)?;
    connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")?;
    let inventory = inspect(&mut connection)?;
    let mut diff = objects(&facts, &inventory, connection.server_version_num());
    let there = sequences(&mut connection, &facts)?;
    values(&mut diff, &facts.sequences, &there);

    monitor.step("rows", Some(facts.tables.iter().map(|t| t.bytes).sum()));
    for table in facts.tables.iter().filter(|t| options.wants(t)) {
        check(monitor)?;
        if matches!(table.kind, TableKind::Partitioned | TableKind::Foreign) {
            continue;
        }
        let Some(live) = inventory.table(&table.schema, &table.name) else { continue }; // named as missing
        if let Some(reason) = &table.skipped {
            diff.skip(table, format!("they are not in the recovery point ({reason:?})"));
            continue;
        }
        let columns: Vec<CopyColumn> = live
            .copy_columns()
            .map(|c| CopyColumn { name: c.name.clone(), r#type: c.r#type.clone() })
            .collect();
        let sql = statement(&facts, table, &columns);
        connection.execute("SAVEPOINT one_table")?;
        let sum = match sum(&mut connection, &sql, options, monitor) {
            Ok(sum) => sum,
            Err(WireError::Server(message)) => {
                connection.execute("ROLLBACK TO one_table")?;
                diff.skip(table, message.to_string());
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let same_columns = columns == table.columns;
        if same_columns && sum == (RowSum { rows: table.rows, bytes: table.bytes, digest: table.digest }) {
            diff.same_tables += 1;
            continue;
        }
        let layout = Layout::new(&facts, table, &columns);
        let mut before = pieces::whole(vault, record, table)?;
        let mut after = Live { connection: &mut connection, sql, rows: sum.rows };
        let comparing = Comparing { layout: &layout, options, monitor, sensitive: options.hides(table) };
        let mut found = comparing.run(&mut before, &mut after)?;
        (found.rows_before, found.rows_after) = (table.rows, sum.rows);
        match found.is_empty() {
            true => diff.same_tables += 1,
            false => diff.tables.push(found),
        }
    }
    monitor.done("rows", "");
    connection.execute("COMMIT")?;
    Ok(diff)
}

/// The rows that the recovery point would hold if it were made now: of a filtered table, those that pass.
fn statement(facts: &Facts, table: &TableData, columns: &[CopyColumn]) -> String {
    let extension =
        facts.inventory.table(&table.schema, &table.name).and_then(|t| t.extension_condition.clone());
    let condition = match (extension.filter(|c| !c.trim().is_empty()), &table.filter) {
        (Some(condition), _) => Some(condition),
        (None, Some(filter)) => Some(format!("WHERE ({filter}\n)")),
        (None, None) => None,
    };
    let encoding = facts.session.get("client_encoding").map_or("UTF8", String::as_str);
    let columns = columns.iter().map(|c| c.name.as_str());
    copy_out_sql(&table.schema, &table.name, columns, condition.as_deref(), encoding)
}

fn sum(
    connection: &mut Connection,
    sql: &str,
    options: &Options,
    monitor: &dyn Monitor,
) -> Result<RowSum, WireError> {
    let mut hasher = RowHasher::new(&options.row_key);
    let mut sum = RowSum::default();
    let mut unreported = 0;
    connection.copy_out(sql, |bytes, ends| {
        sum.bytes += bytes.len() as u64;
        if let Some(hash) = hasher.part(bytes, ends) {
            sum.rows += 1;
            sum.digest = sum.digest.wrapping_add(hash);
        }
        unreported += bytes.len();
        if unreported > 1 << 20 {
            monitor.advance(0, std::mem::take(&mut unreported) as u64);
            check(monitor)?;
        }
        Ok(())
    })?;
    Ok(sum)
}

fn sequences(connection: &mut Connection, facts: &Facts) -> Result<Vec<SequenceValue>> {
    let mut values = Vec::new();
    for sequence in &facts.sequences {
        connection.execute("SAVEPOINT one_sequence")?;
        match connection.query(&format!("SELECT last_value, is_called FROM {}", sequence.quoted())) {
            Ok(rows) => {
                for row in &rows {
                    values.push(SequenceValue {
                        last_value: row.int(0)?,
                        is_called: row.bool(1),
                        ..sequence.clone()
                    });
                }
            }
            // Gone, which is said elsewhere, or not ours to read.
            Err(WireError::Server(_)) => {
                connection.execute("ROLLBACK TO one_sequence")?;
            }
            Err(error) => return Err(Failure::from(error)),
        }
    }
    Ok(values)
}
