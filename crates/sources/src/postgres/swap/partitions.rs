//! A partitioned table has no rows of its own: its partitions are swapped, each with the restored one of its name, and the living parent stays
//! what it is.

use super::{Script, own::rows};
use crate::postgres::{
    facts::QualifiedName,
    merge::Pair,
    wire::{Connection, quote_literal, quote_qualified},
};
use mainstay_domain::Result;

/// Pairs of tables that have rows, in the place of pairs of partitioned ones. The restored partitions are taken off their parents, which go:
/// within a transaction of the caller's. What does not match is refused by name.
pub(super) fn flatten(connection: &mut Connection, pairs: &[Pair], script: &mut Script) -> Result<Vec<Pair>> {
    let mut flat = Vec::new();
    for pair in pairs {
        if !is_partitioned(connection, &pair.live)? || !is_partitioned(connection, &pair.beside)? {
            flat.push(pair.clone());
            continue;
        }
        let (live, beside) = (leaves(connection, &pair.live)?, leaves(connection, &pair.beside)?);
        let of_name = |all: &[Leaf], name: &str| all.iter().position(|leaf| leaf.table.name == name);
        let mut alone = Vec::new();
        for leaf in &live {
            match of_name(&beside, &leaf.table.name) {
                Some(at) => {
                    flat.push(Pair { live: leaf.table.clone(), beside: beside[at].table.clone() });
                }
                None => alone.push(leaf.table.to_string()),
            }
        }
        let gone: Vec<String> = beside
            .iter()
            .filter(|leaf| of_name(&live, &leaf.table.name).is_none())
            .map(|leaf| leaf.table.to_string())
            .collect();
        let way = "Swap those partitions alone that both have (--table PARTITION), or put the rows back with --merge.";
        if !alone.is_empty() {
            script.refuse(
                format!("{} was not there then, or not under this name: {}", parts(&alone), alone.join(", ")),
                way,
            );
        }
        if !gone.is_empty() {
            script.refuse(format!("{} is not there now: {}", parts(&gone), gone.join(", ")), way);
        }
        if alone.is_empty() && gone.is_empty() {
            for leaf in &beside {
                let table = quote_qualified(&leaf.table.schema, &leaf.table.name);
                connection.execute(&format!("ALTER TABLE {} DETACH PARTITION {table}", leaf.parent))?;
            }
            let parent = quote_qualified(&pair.beside.schema, &pair.beside.name);
            connection.execute(&format!("DROP TABLE {parent}"))?;
        }
    }
    Ok(flat)
}

fn parts(names: &[String]) -> &'static str {
    if names.len() == 1 { "a partition" } else { "each of several partitions" }
}

fn is_partitioned(connection: &mut Connection, name: &QualifiedName) -> Result<bool> {
    let name = quote_literal(&quote_qualified(&name.schema, &name.name));
    let kind = connection.query_text(&format!(
        "SELECT relkind = 'p' FROM pg_catalog.pg_class WHERE oid = pg_catalog.to_regclass({name})"
    ))?;
    Ok(kind.as_deref() == Some("t"))
}

/// A partition that has rows.
struct Leaf {
    table: QualifiedName,
    /// As it is written in a statement.
    parent: String,
}

fn leaves(connection: &mut Connection, name: &QualifiedName) -> Result<Vec<Leaf>> {
    let name = quote_literal(&quote_qualified(&name.schema, &name.name));
    let found = rows(
        connection,
        &format!(
            "SELECT n.nspname, c.relname, pg_catalog.format('%I.%I', pn.nspname, p.relname)
               FROM pg_catalog.pg_partition_tree({name}::pg_catalog.regclass) AS t
               JOIN pg_catalog.pg_class c ON c.oid = t.relid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
               JOIN pg_catalog.pg_class p ON p.oid = t.parentrelid JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace
              WHERE t.isleaf AND c.relkind <> 'p' ORDER BY 1, 2"
        ),
    )?;
    let leaf = |row: &crate::postgres::wire::Row| Leaf {
        table: QualifiedName { schema: row.text(0), name: row.text(1) },
        parent: row.text(2),
    };
    Ok(found.iter().map(leaf).collect())
}
