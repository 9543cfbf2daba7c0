//! Masks for a staging copy: columns lose what is about persons before anybody can open the copy under its name.
//!
//! Hashes are keyed by a value that exists only in the session which masks: the same text becomes the same hash in every table of one copy,
//! and nobody can try out guesses. Old row versions and the planner's statistics hold the old values, too: masked tables are
//! rewritten and analyzed anew, and materialized views refreshed.

mod refusals;

use super::{
    facts::{Facts, QualifiedName},
    restore::unfinished::take_off,
    session,
    wire::{ConnectSpec, Connection, Row, quote_ident, quote_literal, quote_qualified},
};
use mainstay_domain::{Failure, Kind, Result};
use refusals::{refuse_elsewhere, refuse_key, refuse_prepared, refuse_rules, refuse_triggers};
use serde::Serialize;
use std::collections::BTreeMap;

/// The setting of the session in which the key of the hashes is kept.
const KEY: &str = "mainstay.mask_key";

/// No mail goes there (RFC 2606).
const NOWHERE: &str = "@example.invalid";

/// What becomes of a column.
#[derive(Debug, Clone, PartialEq, Eq)]
enum How {
    /// A keyed hash, in a column of text or uuid.
    Hash,
    Null,
    /// An address of mail that goes nowhere.
    Email,
    /// The same text or number in every row.
    Fixed(String),
    /// A SQL expression over the columns of the row.
    Expression(String),
}

#[derive(Debug, Clone)]
struct Column {
    table: QualifiedName,
    column: String,
    how: How,
}

/// What is to be masked.
#[derive(Debug, Clone)]
pub struct Mask(Vec<Column>);

/// What was done to one table.
#[derive(Debug, Clone, Serialize)]
pub struct Masked {
    pub table: String,
    pub columns: Vec<String>,
    pub rows: u64,
}

impl Mask {
    /// From the configuration: `schema.table.column` and what becomes of it.
    ///
    /// # Errors
    /// `Usage`: a name has not three parts, or nothing is said.
    pub fn new(columns: &BTreeMap<String, String>) -> Result<Mask> {
        let mut parsed = Vec::new();
        for (name, how) in columns {
            let parts: Vec<&str> = name.split('.').collect();
            let [schema, table, column] = parts[..] else {
                return Err(Failure::usage(format!("{name:?} names no column"))
                    .hint("Write schema.table.column, such as public.users.email."));
            };
            let how = match how.trim() {
                "hash" => How::Hash,
                "null" => How::Null,
                "email" => How::Email,
                "" => return Err(Failure::usage(format!("it is not said what becomes of {name}"))),
                other => match other.strip_prefix("fixed:") {
                    Some(value) => How::Fixed(value.to_owned()),
                    None => How::Expression(other.to_owned()),
                },
            };
            let table = QualifiedName { schema: schema.to_owned(), name: table.to_owned() };
            parsed.push(Column { table, column: column.to_owned(), how });
        }
        match parsed.is_empty() {
            true => Err(Failure::usage("the mask names no column")),
            false => Ok(Mask(parsed)),
        }
    }

    /// Whether all of it fits what was captured: a column that is not there any more is perhaps one with another name.
    ///
    /// # Errors
    /// `Refused`, with every column that cannot be masked so.
    pub fn fits(&self, facts: &Facts) -> Result<()> {
        let wrong: Vec<String> = self.0.iter().filter_map(|column| column.against(facts)).collect();
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(Failure::new(Kind::Refused, wrong.join("; "))
                .hint("Nothing was restored. Put the mask right in the configuration.")),
        }
    }

    /// What of it is about these tables; `None`: nothing.
    pub fn only(&self, tables: &[QualifiedName]) -> Option<Mask> {
        let own: Vec<Column> =
            self.0.iter().filter(|column| tables.contains(&column.table)).cloned().collect();
        (!own.is_empty()).then_some(Mask(own))
    }

    /// The tables of it that a database has. A foreign table or a view of that name has no rows of its own.
    pub fn found_in(&self, spec: &ConnectSpec) -> Result<Vec<QualifiedName>> {
        let mut connection = Connection::connect(spec)?;
        let mut found = Vec::new();
        for table in self.tables().into_keys() {
            let name = quote_literal(&quote_qualified(&table.schema, &table.name));
            let kind = connection.query_text(&format!(
                "SELECT relkind FROM pg_catalog.pg_class WHERE oid = pg_catalog.to_regclass({name})"
            ))?;
            if matches!(kind.as_deref(), Some("r" | "p")) {
                found.push(table.clone());
            }
        }
        Ok(found)
    }

    /// What of it is about these tables of a database, or about one that they are partitions or heirs of, or that is theirs.
    pub fn reaching(&self, spec: &ConnectSpec, tables: &[QualifiedName]) -> Result<Option<Mask>> {
        let mut found = self.found_in(spec)?;
        let mut connection = Connection::connect(spec)?;
        let mut failed = Ok(());
        found.retain(|table| {
            let name = quote_qualified(&table.schema, &table.name);
            match family(&mut connection, &name) {
                Ok(family) => family.iter().any(|relative| tables.contains(&relative.table)),
                Err(failure) => {
                    failed = Err(failure);
                    false
                }
            }
        });
        failed.map(|()| self.only(&found))
    }

    /// Makes sure that each of its tables is one of these.
    ///
    /// # Errors
    /// `Refused`, with those that are not: what is not there any more has perhaps another name now.
    pub fn refuse_missing(&self, found: &[QualifiedName]) -> Result<()> {
        let missing: Vec<String> = self
            .tables()
            .into_keys()
            .filter(|table| !found.contains(table))
            .map(ToString::to_string)
            .collect();
        match missing.is_empty() {
            true => Ok(()),
            false => Err(Failure::new(
                Kind::Refused,
                format!("the mask names tables that are not there: {}", missing.join(", ")),
            )
            .hint("Put the mask right in the configuration.")),
        }
    }

    fn tables(&self) -> BTreeMap<&QualifiedName, Vec<&Column>> {
        let mut tables: BTreeMap<&QualifiedName, Vec<&Column>> = BTreeMap::new();
        self.0.iter().for_each(|column| tables.entry(&column.table).or_default().push(column));
        tables
    }
}

fn is_text(kind: &str) -> bool {
    kind == "text" || kind == "citext" || kind.ends_with(".citext") || kind.starts_with("character")
}

impl Column {
    fn against(&self, facts: &Facts) -> Option<String> {
        let shown = format!("{}.{}", self.table, self.column);
        let Some(table) = facts.inventory.table(&self.table.schema, &self.table.name) else {
            return Some(format!("table {} of the mask is not in this recovery point", self.table));
        };
        let Some(column) = table.columns.iter().find(|column| column.name == self.column) else {
            return Some(format!("column {shown} of the mask is not in this recovery point"));
        };
        let kind = column.r#type.as_str();
        match &self.how {
            _ if column.generated.is_some() => {
                Some(format!("{shown} is generated: mask the columns that it comes from"))
            }
            How::Null if column.not_null => Some(format!("{shown} may not be null")),
            How::Hash if !is_text(kind) && kind != "uuid" => {
                Some(format!("{shown} is {kind}, of which there is no hash: write an expression"))
            }
            How::Email if !is_text(kind) => Some(format!("{shown} is {kind}, and cannot hold an address")),
            _ => None,
        }
    }

    /// What is assigned to it, given its type and the length of its text.
    fn value(&self, kind: &str, length: Option<i64>) -> String {
        let name = quote_ident(&self.column);
        let hash = format!(
            "pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(pg_catalog.current_setting('{KEY}') || {name}::pg_catalog.text, 'UTF8')), 'hex')"
        );
        let cut = |text: String| match length {
            Some(length) => format!("pg_catalog.left({text}, {length})"),
            None => text,
        };
        let value = match &self.how {
            How::Hash if kind == "uuid" => format!("pg_catalog.left({hash}, 32)::pg_catalog.uuid"),
            How::Hash => cut(hash),
            How::Null => return "NULL".to_owned(),
            How::Email => {
                // So that the end, by which it goes nowhere, has room.
                let digits = length.map_or(16, |length| (length - NOWHERE.len() as i64).clamp(4, 16));
                cut(format!("(pg_catalog.left({hash}, {digits}) || '{NOWHERE}')"))
            }
            How::Fixed(value) => quote_literal(value),
            How::Expression(expression) => return format!("({expression})"),
        };
        // What was not known stays unknown.
        format!("CASE WHEN {name} IS NULL THEN NULL ELSE {value} END")
    }
}

/// Masks a database that nobody uses yet.
///
/// # Errors
/// Whatever the error: the database may hold what was to be masked, and must not be opened.
pub fn apply(spec: &ConnectSpec, mask: &Mask) -> Result<Vec<Masked>> {
    let mut connection = Connection::connect(spec)?;
    session::prepare(&mut connection)?;
    refuse_prepared(&mut connection)?;
    // Twice 122 random bits; never in a statement of ours, and gone with the session.
    connection.query(&format!(
        "SELECT pg_catalog.set_config('{KEY}', pg_catalog.gen_random_uuid()::text || pg_catalog.gen_random_uuid()::text, false) IS NULL"
    ))?;
    // Triggers and rules would carry what they see into other tables. Who may not turn them off must not have any.
    let quiet = connection.execute("SET session_replication_role = replica").is_ok();
    let mut masked = Vec::new();
    connection.execute("BEGIN")?;
    for (table, columns) in mask.tables() {
        let name = quote_qualified(&table.schema, &table.name);
        for relative in family(&mut connection, &name)?.iter().filter(|relative| !relative.above) {
            refuse_elsewhere(relative)?;
            refuse_triggers(&mut connection, relative, quiet)?;
        }
        refuse_rules(&mut connection, table, quiet)?;
        let mut set = Vec::new();
        for column in &columns {
            refuse_key(&mut connection, column, &name)?;
            let found = connection.query(&format!(
                "SELECT pg_catalog.format_type(atttypid, NULL), CASE WHEN atttypmod > 4 AND atttypid IN ('pg_catalog.varchar'::pg_catalog.regtype, 'pg_catalog.bpchar'::pg_catalog.regtype) THEN atttypmod - 4 END
                   FROM pg_catalog.pg_attribute WHERE attrelid = {}::pg_catalog.regclass AND attname = {} AND NOT attisdropped",
                quote_literal(&name),
                quote_literal(&column.column)
            ))?;
            let Some(row) = found.iter().next() else {
                return Err(Failure::verification(format!(
                    "column {}.{} of the mask is not there",
                    table, column.column
                )));
            };
            let length = row.opt(1).and_then(|length| length.parse().ok());
            set.push(format!("{} = {}", quote_ident(&column.column), column.value(&row.text(0), length)));
        }
        let during = |error| Failure::from(error).during(format!("masking {table}"));
        // So that it is the rows that are counted which are masked.
        connection.execute(&format!("LOCK TABLE {name} IN SHARE ROW EXCLUSIVE MODE")).map_err(during)?;
        let there =
            connection.query_text(&format!("SELECT pg_catalog.count(*) FROM {name}")).map_err(during)?;
        let rows = connection.execute(&format!("UPDATE {name} SET {}", set.join(", "))).map_err(during)?;
        refuse_left_out(table, rows, there.and_then(|there| there.parse().ok()))?;
        let columns = columns.iter().map(|column| column.column.clone()).collect();
        masked.push(Masked { table: table.to_string(), columns, rows });
    }
    connection.execute("COMMIT")?;
    connection.execute("RESET session_replication_role")?;
    for table in mask.tables().keys() {
        let family = family(&mut connection, &quote_qualified(&table.schema, &table.name))?;
        // The planner knows values of a table's heirs under its own name, too: so it comes after them.
        let (rewritten, analyzed): (Vec<_>, Vec<_>) =
            family.iter().partition(|relative| !relative.above && relative.kind == "r");
        for relative in rewritten {
            connection.execute(&format!("VACUUM (FULL, ANALYZE) {}", relative.quoted()))?;
        }
        for relative in analyzed {
            connection.execute(&format!("ANALYZE {}", relative.quoted()))?;
        }
    }
    // What lies on other servers was not masked, and must not come from there now.
    session::allow_other_relations(&mut connection, "foreign-table")?;
    refresh(&mut connection)?;
    Ok(masked)
}

/// Whatever it is that keeps an UPDATE from rows: they hold what was to be masked.
fn refuse_left_out(table: &QualifiedName, masked: u64, there: Option<u64>) -> Result<()> {
    match there {
        Some(there) if there == masked => Ok(()),
        _ => Err(Failure::verification(format!(
            "{masked} rows of {table} were masked, and it has {}",
            there.map_or("an unknown number".to_owned(), |there| there.to_string())
        ))
        .hint("Look for what keeps an UPDATE from changing them, in the original.")),
    }
}

/// A table, or one that it inherits from or that inherits from it (as partitions do).
struct Relative {
    table: QualifiedName,
    kind: String,
    /// It inherits from this one; else what is written into it is written into this one, too.
    above: bool,
}

impl Relative {
    fn quoted(&self) -> String {
        quote_qualified(&self.table.schema, &self.table.name)
    }
}

/// A table and its relatives, the lowest first.
fn family(connection: &mut Connection, name: &str) -> Result<Vec<Relative>> {
    let own = format!("{}::pg_catalog.regclass::pg_catalog.oid", quote_literal(name));
    let rows = connection.query(&format!(
        "WITH RECURSIVE
           below AS (SELECT {own} AS oid, 0 AS level
             UNION SELECT inhrelid, level - 1 FROM pg_catalog.pg_inherits JOIN below ON inhparent = below.oid),
           above AS (SELECT {own} AS oid, 0 AS level
             UNION SELECT inhparent, level + 1 FROM pg_catalog.pg_inherits JOIN above ON inhrelid = above.oid),
           family AS (SELECT oid, min(level) AS level FROM below GROUP BY oid
             UNION ALL SELECT oid, max(level) FROM above WHERE level > 0 GROUP BY oid)
         SELECT n.nspname, c.relname, c.relkind, family.level > 0 FROM family
           JOIN pg_catalog.pg_class c ON c.oid = family.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          ORDER BY family.level, 1, 2"
    ))?;
    let relative = |row: &Row| Relative {
        table: QualifiedName { schema: row.text(0), name: row.text(1) },
        kind: row.text(2),
        above: row.bool(3),
    };
    Ok(rows.iter().map(relative).collect())
}

/// Refreshes every materialized view, those that read others after them. One that reads a foreign table, through whatever views, would be
/// filled from another server, with what nobody has masked: it is emptied, and whoever wants it so refreshes it.
fn refresh(connection: &mut Connection) -> Result<()> {
    let views = connection.query(
        "WITH RECURSIVE reads AS (
           SELECT DISTINCT r.ev_class AS reader, d.refobjid AS read FROM pg_catalog.pg_rewrite r
             JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = r.oid
              AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid <> r.ev_class),
         depth AS (
           SELECT oid, 0 AS level FROM pg_catalog.pg_class WHERE relkind IN ('v', 'm')
           UNION SELECT reads.reader, depth.level + 1 FROM depth JOIN reads ON reads.read = depth.oid WHERE depth.level < 100),
         elsewhere AS (
           SELECT oid FROM pg_catalog.pg_class WHERE relkind = 'f'
           UNION SELECT edges.above FROM elsewhere JOIN (
             SELECT reader AS above, read AS below FROM reads
             UNION ALL SELECT inhparent, inhrelid FROM pg_catalog.pg_inherits) AS edges ON edges.below = elsewhere.oid)
         SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), c.oid IN (SELECT oid FROM elsewhere) FROM pg_catalog.pg_class c
           JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace JOIN depth ON depth.oid = c.oid
          WHERE c.relkind = 'm' AND c.relispopulated GROUP BY 1, 2 ORDER BY max(depth.level), 1",
    )?;
    for view in &views {
        let name = view.text(0);
        let how = if view.bool(1) { " WITH NO DATA" } else { "" };
        connection
            .execute(&format!("REFRESH MATERIALIZED VIEW {name}{how}; ANALYZE {name}"))
            .map_err(|error| Failure::from(error).during(format!("refreshing {name}")))?;
    }
    Ok(())
}

/// Gives the masked database its name, and takes off the mark that it is not finished: from now on it can be opened.
pub fn open(server: &ConnectSpec, hidden: &str, name: &str) -> Result<()> {
    let mut admin = Connection::connect(server)?;
    let rename = format!("ALTER DATABASE {} RENAME TO {}", quote_ident(hidden), quote_ident(name));
    let finished = take_off(&mut admin, hidden, name)?.map(|sql| format!("; {sql}")).unwrap_or_default();
    admin.execute(&format!("BEGIN; {rename}{finished}; COMMIT"))?;
    Ok(())
}

/// Drops a database that could not be masked.
pub fn discard(server: &ConnectSpec, hidden: &str) -> Result<()> {
    let mut admin = Connection::connect(server)?;
    admin.execute(&format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quote_ident(hidden)))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(name: &str, how: &str) -> Result<Mask> {
        Mask::new(&[(name.to_owned(), how.to_owned())].into())
    }

    #[test]
    fn a_mask_says_a_column_and_what_becomes_of_it() {
        let how = |text: &str| mask("public.users.email", text).unwrap().0.remove(0).how;
        assert_eq!(how("hash"), How::Hash);
        assert_eq!(how("fixed:a b"), How::Fixed("a b".into()));
        assert_eq!(how("'user ' || id"), How::Expression("'user ' || id".into()));
        for (name, text) in [("users.email", "hash"), ("a.b.c.d", "hash"), ("public.users.email", " ")] {
            assert_eq!(mask(name, text).unwrap_err().kind, Kind::Usage, "{name} {text}");
        }
        assert!(Mask::new(&BTreeMap::new()).is_err());
    }
    #[test]
    fn a_masking_that_reached_fewer_rows_than_there_are_is_none() {
        let table = QualifiedName { schema: "public".into(), name: "users".into() };
        assert!(refuse_left_out(&table, 3, Some(3)).is_ok());
        for there in [Some(4), None] {
            assert_eq!(refuse_left_out(&table, 3, there).unwrap_err().kind, Kind::Verification);
        }
    }
}
