//! Hashes every row of a database again, and compares with what was captured.

use super::{Comparison, Difference, Options};
use crate::postgres::{
    facts::{Facts, QualifiedName, TableData, TableKind},
    restore::Names,
    rows::{RowHasher, RowSum, copy_out_sql},
    session,
    wire::{ConnectSpec, Connection, WireError},
};
use crossbeam_channel::bounded;
use mainstay_domain::{Failure, Kind, Monitor, Result};
use std::{collections::BTreeMap, sync::Mutex, thread};

/// What one table was found to hold.
enum Found {
    Sum(RowSum),
    /// It is not there, or may not be read.
    Refused {
        missing: bool,
        text: String,
    },
}

pub(super) fn compare(
    comparison: &mut Comparison,
    facts: &Facts,
    names: &Names<'_>,
    spec: &ConnectSpec,
    options: &Options,
    monitor: &dyn Monitor,
) -> Result<()> {
    let mut tables: Vec<&TableData> = names.tables.iter().copied().filter(|t| holds_rows(t)).collect();
    tables.sort_by_key(|t| std::cmp::Reverse(t.bytes));
    monitor.step("rows", Some(tables.iter().map(|t| t.bytes).sum()));
    let found = read(&tables, facts, names, spec, options, monitor)?;

    // Leaves of one partition tree may have exchanged rows, where the bounds hash or collate otherwise.
    let mut trees: BTreeMap<QualifiedName, (RowSum, RowSum, bool)> = BTreeMap::new();
    for (table, found) in &found {
        if let (TableKind::Partition, Found::Sum(sum)) = (table.kind, found) {
            let tree = trees.entry(root(facts, table)).or_default();
            tree.0.add(recorded(table));
            tree.1.add(*sum);
            tree.2 |= *sum != recorded(table);
        }
    }
    let exchanged = |table: &TableData| {
        let tree = (table.kind == TableKind::Partition).then(|| trees.get(&root(facts, table))).flatten();
        tree.is_some_and(|(recorded, found, differ)| *differ && recorded == found)
    };
    for (table, found) in &found {
        let name = names.name_of(&table.schema, &table.name).to_string();
        let difference = |what: &str, recorded: String, found: String| Difference {
            kind: "table".to_owned(),
            object: name.clone(),
            what: what.to_owned(),
            recorded,
            found,
        };
        match found {
            Found::Sum(sum) => {
                comparison.tables += 1;
                comparison.rows += sum.rows;
                comparison.bytes += sum.bytes;
                let was = recorded(table);
                if *sum == was || exchanged(table) {
                    continue;
                }
                let found = match sum.rows == was.rows {
                    true => difference("content of rows", digest(was.digest), digest(sum.digest)),
                    false => difference("number of rows", was.rows.to_string(), sum.rows.to_string()),
                };
                comparison.differ([found], options.most);
            }
            Found::Refused { missing: true, .. } => {
                comparison.differ([difference("missing", String::new(), String::new())], options.most);
            }
            Found::Refused { text, .. } => comparison.skip(format!("rows of {name}"), text.clone()),
        }
    }
    for (root, (.., differ)) in trees.iter().filter(|(_, (a, b, _))| a == b) {
        if *differ {
            comparison.notes.push(format!(
                "rows of {root} lie in other partitions than they did; together they are the same"
            ));
        }
    }
    monitor.done("rows", "");
    Ok(())
}

fn digest(digest: u128) -> String {
    format!("{digest:032x}")
}

fn holds_rows(table: &TableData) -> bool {
    table.skipped.is_none() && !matches!(table.kind, TableKind::Partitioned | TableKind::Foreign)
}

fn recorded(table: &TableData) -> RowSum {
    RowSum { rows: table.rows, bytes: table.bytes, digest: table.digest }
}

fn root(facts: &Facts, table: &TableData) -> QualifiedName {
    let mut name = QualifiedName { schema: table.schema.clone(), name: table.name.clone() };
    while let Some(parent) = facts.inventory.table(&name.schema, &name.name).and_then(|t| t.inherits.first())
    {
        name = parent.clone();
    }
    name
}

fn read<'a>(
    tables: &[&'a TableData],
    facts: &Facts,
    names: &Names<'_>,
    spec: &ConnectSpec,
    options: &Options,
    monitor: &dyn Monitor,
) -> Result<Vec<(&'a TableData, Found)>> {
    let (send, queue) = bounded(tables.len());
    tables.iter().for_each(|table| send.send(*table).expect("the queue has room for all"));
    drop(send);
    let found: Mutex<Vec<(&TableData, Found)>> = Mutex::default();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..options.jobs.clamp(1, tables.len().max(1)))
            .map(|_| {
                let (queue, found) = (queue.clone(), &found);
                scope.spawn(move || -> Result<()> {
                    let mut connection = Connection::connect(spec)?;
                    session::prepare(&mut connection)?;
                    for table in queue {
                        let sum = sum(&mut connection, table, facts, names, options, monitor)?;
                        found.lock().expect("no worker panics").push((table, sum));
                    }
                    Ok(())
                })
            })
            .collect();
        workers.into_iter().try_for_each(|w| w.join().expect("a worker does not panic"))
    })?;
    let mut found = found.into_inner().expect("no worker panics");
    found.sort_by(|(a, _), (b, _)| (&a.schema, &a.name).cmp(&(&b.schema, &b.name)));
    Ok(found)
}

fn sum(
    connection: &mut Connection,
    table: &TableData,
    facts: &Facts,
    names: &Names<'_>,
    options: &Options,
    monitor: &dyn Monitor,
) -> Result<Found> {
    let name = names.name_of(&table.schema, &table.name);
    // The table of an extension holds rows of the extension's own; of any other, all rows are compared.
    let inventory = facts.inventory.table(&table.schema, &table.name);
    let condition = inventory.and_then(|t| t.extension_condition.as_deref()).filter(|c| !c.trim().is_empty());
    let columns = table.columns.iter().map(|c| c.name.as_str());
    let encoding = facts.session.get("client_encoding").map_or("UTF8", String::as_str);
    let sql = copy_out_sql(&name.schema, &name.name, columns, condition, encoding);
    let mut hasher = RowHasher::new(&options.row_key);
    let mut sum = RowSum::default();
    let mut unreported = 0;
    let copied = connection.copy_out(&sql, |bytes, ends| {
        sum.bytes += bytes.len() as u64;
        if let Some(hash) = hasher.part(bytes, ends) {
            sum.rows += 1;
            sum.digest = sum.digest.wrapping_add(hash);
        }
        unreported += bytes.len();
        if unreported > 1 << 20 {
            monitor.advance(0, std::mem::take(&mut unreported) as u64);
            if monitor.cancelled() {
                return Err(Failure::new(Kind::Cancelled, "the comparison was stopped"));
            }
        }
        Ok(())
    });
    monitor.advance(1, unreported as u64);
    match copied {
        Ok(_) => Ok(Found::Sum(sum)),
        Err(WireError::Server(message)) => {
            Ok(Found::Refused { missing: message.code == "42P01", text: message.to_string() })
        }
        Err(error) => Err(error.into()),
    }
}
