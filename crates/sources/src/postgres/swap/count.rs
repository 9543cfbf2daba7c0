//! In what a living table and the restored one beside it differ.

use crate::postgres::{
    merge::Pair,
    session,
    wire::{ConnectSpec, Connection, quote_ident, quote_literal, quote_qualified},
};
use mainstay_domain::Result;
use serde::Serialize;

/// Rows, told apart by the primary key; without one, by all that is in them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub table: String,
    /// Would be gone after a swap.
    pub only_living: i64,
    /// Would be back.
    pub only_restored: i64,
    /// In both, with other values; `None` where there is no primary key to tell.
    pub differing: Option<i64>,
}

/// Counts, for each pair of which both are there.
pub fn count(spec: &ConnectSpec, pairs: &[Pair]) -> Result<Vec<Counts>> {
    let mut connection = Connection::connect(spec)?;
    session::prepare(&mut connection)?;
    let mut counted = Vec::new();
    for pair in pairs {
        if super::oid(&mut connection, &pair.live)?.is_some()
            && super::oid(&mut connection, &pair.beside)?.is_some()
        {
            counted.push(count_one(&mut connection, pair)?);
        }
    }
    Ok(counted)
}

fn count_one(connection: &mut Connection, pair: &Pair) -> Result<Counts> {
    let live = quote_qualified(&pair.live.schema, &pair.live.name);
    let beside = quote_qualified(&pair.beside.schema, &pair.beside.name);
    let regclass = |name: &str| format!("{}::pg_catalog.regclass", quote_literal(name));
    let rows = connection.query(&format!(
        "SELECT a.attname, coalesce(a.attnum = ANY (i.indkey), false) FROM pg_catalog.pg_attribute a
           JOIN pg_catalog.pg_attribute b ON b.attrelid = {} AND b.attname = a.attname AND b.attnum > 0 AND NOT b.attisdropped
           LEFT JOIN pg_catalog.pg_index i ON i.indrelid = a.attrelid AND i.indisprimary
          WHERE a.attrelid = {} AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
        regclass(&beside),
        regclass(&live)
    ))?;
    let (mut key, mut others) = (Vec::new(), Vec::new());
    for row in &rows {
        let name = quote_ident(&row.text(0));
        if row.bool(1) { key.push(name) } else { others.push(name) }
    }
    if key.is_empty() {
        let side = |name: &str| {
            let texts: Vec<String> =
                others.iter().map(|column| format!("{column}::pg_catalog.text")).collect();
            format!("SELECT {} FROM {name}", texts.join(", "))
        };
        let mut less = |from: &str, what: &str| -> Result<i64> {
            let sql = format!("SELECT count(*) FROM ({} EXCEPT ALL {}) less", side(from), side(what));
            Ok(connection.query(&sql)?.iter().next().map_or(Ok(0), |row| row.int(0))?)
        };
        let (only_living, only_restored) = (less(&live, &beside)?, less(&beside, &live)?);
        return Ok(Counts { table: pair.live.to_string(), only_living, only_restored, differing: None });
    }
    let on: Vec<String> = key.iter().map(|column| format!("l.{column} = b.{column}")).collect();
    let differs: Vec<String> = others
        .iter()
        .map(|column| format!("l.{column}::pg_catalog.text IS DISTINCT FROM b.{column}::pg_catalog.text"))
        .collect();
    let differs = if differs.is_empty() { "false".to_owned() } else { differs.join(" OR ") };
    let first = &key[0];
    let counted = connection.query(&format!(
        "SELECT count(*) FILTER (WHERE b.{first} IS NULL), count(*) FILTER (WHERE l.{first} IS NULL),
                count(*) FILTER (WHERE l.{first} IS NOT NULL AND b.{first} IS NOT NULL AND ({differs}))
           FROM {live} l FULL JOIN {beside} b ON {}",
        on.join(" AND ")
    ))?;
    let value = |at: usize| counted.iter().next().map_or(Ok(0), |row| row.int(at));
    Ok(Counts {
        table: pair.live.to_string(),
        only_living: value(0)?,
        only_restored: value(1)?,
        differing: Some(value(2)?),
    })
}
