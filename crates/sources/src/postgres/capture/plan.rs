//! Which tables are copied, in which parts, and which are not and why: decided before the first row.

use super::leader::Listed;
use crate::postgres::{
    config::{PostgresConfig, Rules, TablePolicy, partition_ancestors},
    facts::{CopyColumn, Inventory, QualifiedName, Skipped, Table, TableData, TableKind},
    inspect::USER_SCHEMA,
    rows::{RowSum, copy_out_sql},
    wire::{Connection, WireError, quote_ident, quote_literal},
};
use mainstay_domain::Failure;
use std::{cmp::Reverse, collections::BTreeMap, fmt::Write};

/// A part of a table smaller than this is not worth a scan of its own, in blocks.
const LEAST_BLOCKS: u64 = 8192;

/// What the server says of a table besides its definition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Measure {
    /// Of heap and TOAST.
    pub bytes: u64,
    /// Of the heap alone.
    pub blocks: u64,
    /// Row security would hide rows from us.
    pub hidden: bool,
}

/// One COPY.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Task {
    /// Index into [`Plan::tables`].
    pub table: usize,
    pub part: usize,
    pub name: QualifiedName,
    /// The statement to run.
    pub sql: String,
    /// Estimated, for order.
    pub bytes: u64,
}

/// A table with what is to be known of it at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PlannedTable {
    pub policy: TablePolicy,
    /// The partitioned tables above it.
    pub above: Vec<QualifiedName>,
    /// Rows, bytes and digest are filled in later.
    pub data: TableData,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Plan {
    pub tables: Vec<PlannedTable>,
    /// Largest first.
    pub tasks: Vec<Task>,
    /// Estimated.
    pub bytes: u64,
}

/// Asks for sizes, and for what row security would hide. Only of tables that are locked: the size of another one may
/// make us wait.
pub(super) fn measure(
    connection: &mut Connection,
    listed: &[Listed],
) -> Result<BTreeMap<QualifiedName, Measure>, WireError> {
    let readable: BTreeMap<u64, &Listed> =
        listed.iter().filter(|t| t.denied.is_none()).map(|t| (t.oid, t)).collect();
    let oids: Vec<String> = readable.keys().map(u64::to_string).collect();
    let mut measures = BTreeMap::new();
    if oids.is_empty() {
        return Ok(measures);
    }
    let rows = connection.query(&format!(
        "SELECT c.oid, CASE WHEN c.relkind = 'r' THEN pg_table_size(c.oid) ELSE 0 END,
                CASE WHEN c.relkind = 'r' THEN pg_relation_size(c.oid) / current_setting('block_size')::int ELSE 0 END,
                row_security_active(c.oid)
           FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
          WHERE {USER_SCHEMA} AND c.oid = ANY ('{{{}}}'::oid[])",
        oids.join(",")
    ))?;
    for row in &rows {
        if let Some(table) = readable.get(&row.int(0)?.unsigned_abs()) {
            let measure = Measure {
                bytes: row.int(1)?.unsigned_abs(),
                blocks: row.int(2)?.unsigned_abs(),
                hidden: row.bool(3),
            };
            measures.insert(table.name.clone(), measure);
        }
    }
    Ok(measures)
}

/// Tries each filter on its table, reading nothing.
///
/// # Errors
/// `Usage`, naming the table and what the server says of the condition.
pub(super) fn try_filters(connection: &mut Connection, plan: &Plan) -> Result<(), Failure> {
    for table in plan.tables.iter().filter(|t| t.data.skipped.is_none()) {
        let Some(filter) = &table.data.filter else { continue };
        connection.execute("SAVEPOINT mainstay")?;
        // Without parentheses and with them: so it has none of its own that are open.
        for condition in [filter.clone(), format!("({filter}\n)")] {
            let sql = format!("EXPLAIN SELECT FROM ONLY {} WHERE {condition}", table.data.quoted());
            if let Err(error) = connection.execute(&sql) {
                connection.execute("ROLLBACK TO mainstay")?;
                return Err(Failure::usage(format!(
                    "the condition {filter:?} cannot be used on table {}.{}: {error}",
                    table.data.schema, table.data.name
                ))
                .hint("Correct `where` in the rule for this table."));
            }
        }
        connection.execute("RELEASE mainstay")?;
    }
    Ok(())
}

/// Decides. Pure.
pub(super) fn plan(
    config: &PostgresConfig,
    rules: &Rules<'_>,
    inventory: &Inventory,
    listed: &[Listed],
    measures: &BTreeMap<QualifiedName, Measure>,
    encoding: &str,
    user: &str,
) -> Plan {
    let denied: BTreeMap<&QualifiedName, &String> =
        listed.iter().filter_map(|t| Some((&t.name, t.denied.as_ref()?))).collect();
    let size = |table: &QualifiedName| measures.get(table).cloned().unwrap_or_default();
    let mut plan = Plan::default();
    let mut whole: Vec<(usize, &Table, Measure, Option<String>)> = Vec::new();
    for table in inventory.tables.iter().filter(|t| t.kind != TableKind::Partitioned) {
        let name = QualifiedName { schema: table.schema.clone(), name: table.name.clone() };
        let above = partition_ancestors(inventory, table);
        let policy = rules.policy(&name, &above);
        let measure = size(&name);
        let skipped = if table.kind == TableKind::Foreign {
            Some(Skipped::Foreign)
        } else if table.extension.is_some() && table.extension_condition.is_none() {
            Some(Skipped::Extension)
        } else if policy.exclude {
            Some(Skipped::Excluded)
        } else if let Some(reason) = denied.get(&name) {
            Some(Skipped::Unreadable((*reason).clone()))
        } else if measure.hidden {
            let reason =
                format!("row-level security would hide rows from {user}, who needs BYPASSRLS or ownership");
            Some(Skipped::Unreadable(reason))
        } else {
            None
        };
        let condition = match (&table.extension_condition, &policy.filter) {
            (Some(condition), _) if !condition.trim().is_empty() => Some(condition.clone()),
            // A row filter is for tables of the user's own.
            (None, Some(filter)) => Some(format!("WHERE ({filter}\n)")),
            _ => None,
        };
        if skipped.is_none() {
            plan.bytes += measure.bytes;
            whole.push((plan.tables.len(), table, measure, condition));
        }
        plan.tables.push(PlannedTable { data: data(table, &policy, skipped), policy, above });
    }
    let share = plan.bytes / u64::from(config.parallel.max(1));
    for (index, table, measure, condition) in whole {
        let parts = parts(table, &measure, share, config.parallel);
        let name = QualifiedName { schema: table.schema.clone(), name: table.name.clone() };
        for (part, range) in ranges(measure.blocks, parts).into_iter().enumerate() {
            let condition = match (&range, &condition) {
                (Some(range), Some(more)) => {
                    Some(format!("WHERE {range} AND {}", more.strip_prefix("WHERE").unwrap_or(more)))
                }
                (Some(range), None) => Some(format!("WHERE {range}")),
                (None, condition) => condition.clone(),
            };
            let columns = table.copy_columns().map(|c| c.name.as_str());
            let sql = copy_out_sql(&table.schema, &table.name, columns, condition.as_deref(), encoding);
            plan.tables[index].data.streams.push(stream_name(&name, part));
            plan.tasks.push(Task {
                table: index,
                part,
                name: name.clone(),
                sql,
                bytes: measure.bytes / parts as u64,
            });
        }
    }
    // What matters most is read first, the largest first among equals.
    let priority = |task: &Task| plan.tables[task.table].policy.priority;
    plan.tasks.sort_by(|a, b| {
        let key = |task: &Task| (priority(task), Reverse(task.bytes));
        key(a).cmp(&key(b)).then_with(|| (&a.name, a.part).cmp(&(&b.name, b.part)))
    });
    plan
}

fn data(table: &Table, policy: &TablePolicy, skipped: Option<Skipped>) -> TableData {
    TableData {
        schema: table.schema.clone(),
        name: table.name.clone(),
        kind: table.kind,
        unlogged: table.unlogged,
        columns: table
            .copy_columns()
            .map(|c| CopyColumn { name: c.name.clone(), r#type: c.r#type.clone() })
            .collect(),
        rows: 0,
        bytes: 0,
        digest: 0,
        streams: Vec::new(),
        filter: policy.filter.clone().filter(|_| table.extension.is_none()),
        priority: policy.priority,
        sensitive: policy.sensitive,
        skipped,
    }
}

/// How many COPYs read a table. One, but for a giant that would keep its worker long after the others have ended: a COPY
/// with a condition on ctid goes through the executor and takes 13 to 18 % more of the server (PostgreSQL 15), and while one
/// worker is left, sealing what it reads still uses another core. A giant's parts are half a share, so that they even out.
/// An extension's own condition is used as it stands.
fn parts(table: &Table, measure: &Measure, share: u64, parallel: u32) -> usize {
    let heap = table.access_method.as_deref() == Some("heap");
    let worth = measure.blocks / LEAST_BLOCKS;
    if !heap || table.extension.is_some() || parallel < 2 || worth < 2 || measure.bytes <= share + share / 2 {
        return 1;
    }
    let wanted = (2 * measure.bytes).div_ceil(share.max(1)).min(2 * u64::from(parallel)).min(worth);
    usize::try_from(wanted).unwrap_or(1)
}

/// Conditions on ctid that divide the blocks; the last is open, for blocks that were added since.
fn ranges(blocks: u64, parts: usize) -> Vec<Option<String>> {
    if parts < 2 {
        return vec![None];
    }
    let bound = |n: usize| blocks * n as u64 / parts as u64;
    (0..parts)
        .map(|n| {
            let mut range = String::new();
            if n > 0 {
                let _ = write!(range, "ctid >= '({},0)'", bound(n));
            }
            if n + 1 < parts {
                let and = if n > 0 { " AND " } else { "" };
                let _ = write!(range, "{and}ctid < '({},0)'", bound(n + 1));
            }
            Some(range)
        })
        .collect()
}

/// `table/public.orders/0`. A dot or a slash in a name is written as in a URL, so that no two tables share a stream.
fn stream_name(table: &QualifiedName, part: usize) -> String {
    let safe = |name: &str| {
        let mut safe = String::with_capacity(name.len());
        for c in name.chars() {
            if matches!(c, '%' | '.' | '/') || c.is_control() {
                let _ = write!(safe, "%{:02X}", u32::from(c));
            } else {
                safe.push(c);
            }
        }
        safe
    };
    format!("table/{}.{}/{part}", safe(&table.schema), safe(&table.name))
}

/// The tables whose foreign keys lead to rows that are not captured: constraint, and from where to where.
pub(super) fn broken_references(
    connection: &mut Connection,
    plan: &Plan,
) -> Result<Vec<(QualifiedName, String)>, WireError> {
    let lacking: BTreeMap<(&str, &str), &str> = plan
        .tables
        .iter()
        .filter_map(|t| {
            let why = match (&t.data.skipped, &t.data.filter) {
                (Some(Skipped::Excluded), _) => "excluded",
                (Some(Skipped::Unreadable(_) | Skipped::Dropped), _) => "not readable",
                (None, Some(_)) => "filtered",
                _ => return None,
            };
            Some(((t.data.schema.as_str(), t.data.name.as_str()), why))
        })
        .collect();
    if lacking.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<String> = lacking
        .keys()
        .map(|(schema, name)| format!("({}, {})", quote_literal(schema), quote_literal(name)))
        .collect();
    // By the catalogue alone: a function that looks a name up needs rights on its schema, which may be what is lacking.
    let rows = connection.query(&format!(
        "SELECT k.conname, n.nspname, c.relname, fn.nspname, f.relname
           FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
           JOIN pg_class f ON f.oid = k.confrelid JOIN pg_namespace fn ON fn.oid = f.relnamespace
          WHERE k.contype = 'f' AND k.conrelid <> k.confrelid AND (fn.nspname, f.relname) IN ({})
          ORDER BY 2, 3, 1",
        names.join(",")
    ))?;
    Ok(rows
        .iter()
        .filter(|row| {
            !matches!(lacking.get(&(row.text(1).as_str(), row.text(2).as_str())), Some(&"excluded"))
        })
        .map(|row| {
            let from = QualifiedName { schema: row.text(1), name: row.text(2) };
            let to = QualifiedName { schema: row.text(3), name: row.text(4) };
            let why = lacking.get(&(to.schema.as_str(), to.name.as_str())).copied().unwrap_or("not captured");
            (from, format!("foreign key {} leads to {to}, whose rows are {why}", quote_ident(&row.text(0))))
        })
        .collect())
}

impl PlannedTable {
    /// Adds what one part turned out to be.
    pub fn add(&mut self, sum: RowSum) {
        self.data.rows += sum.rows;
        self.data.bytes += sum.bytes;
        self.data.digest = self.data.digest.wrapping_add(sum.digest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_every_block_once() {
        assert_eq!(ranges(100, 1), [None]);
        let texts: Vec<String> = ranges(100, 3).into_iter().flatten().collect();
        assert_eq!(texts, ["ctid < '(33,0)'", "ctid >= '(33,0)' AND ctid < '(66,0)'", "ctid >= '(66,0)'"]);
    }

    #[test]
    fn no_two_tables_share_a_stream() {
        let name = |schema: &str, name: &str| QualifiedName { schema: schema.into(), name: name.into() };
        assert_eq!(stream_name(&name("public", "orders"), 0), "table/public.orders/0");
        assert_ne!(stream_name(&name("a.b", "c"), 0), stream_name(&name("a", "b.c"), 0));
        assert_eq!(stream_name(&name("a", "x/y\n%"), 1), "table/a.x%2Fy%0A%25/1");
    }
}
