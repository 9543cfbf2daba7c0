//! The mark on a database that is being restored, or on a table that is being restored into one that lives: until it is taken off,
//! it may lack anything.
//!
//! A restore that is killed leaves a database with a good name and half its rows. The mark is its comment, since its owner may
//! write that; it is written as soon as the database is made, carries the comment that belongs there, and is taken off last.
//! Whoever owns a database can forge it: nothing is ever done because of it but to say so, and to refuse.

use crate::postgres::wire::{ConnectSpec, Connection, WireError, quote_ident, quote_literal};
use mainstay_domain::{Failure, Kind, Result};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

/// How the comment begins that is a mark.
const MARK: &str = "{\"mainstay_restore_not_finished\":";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    /// What is restored, in words.
    #[serde(rename = "mainstay_restore_not_finished")]
    of: String,
    /// The comment that the database has without the mark.
    comment: Option<String>,
}

/// A database that carries the mark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unfinished {
    pub database: String,
    /// What was restored, in words.
    pub of: String,
    /// Sessions that are in it: the restore may be going on.
    pub sessions: u64,
}

impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "database {} is of a restore that is not finished ({})", self.database, self.of)
    }
}

impl Unfinished {
    /// What to do about it.
    pub fn hint(&self) -> String {
        let drop = format!("DROP DATABASE {} WITH (FORCE)", quote_ident(&self.database));
        match self.sessions {
            0 => format!("It was broken off. Drop what it left, then restore again: {drop}"),
            n => format!(
                "Sessions in it: {n}, so that it may be going on: wait for its end. If it was broken off: {drop}"
            ),
        }
    }
}

pub(in crate::postgres) fn comment_on(database: &str, text: Option<&str>) -> String {
    let text = text.map_or_else(|| "NULL".to_owned(), quote_literal);
    format!("COMMENT ON DATABASE {} IS {text}", quote_ident(database))
}

/// The statement that marks a database.
pub(super) fn mark(database: &str, of: &str, comment: Option<&str>) -> Result<String> {
    let mark = Mark { of: of.to_owned(), comment: comment.map(str::to_owned) };
    let text = serde_json::to_string(&mark)
        .map_err(|e| Failure::failed("the mark on a new database cannot be written").caused_by(e))?;
    Ok(comment_on(database, Some(&text)))
}

/// The literal that marks a table, in ASCII alone: a database of any encoding has characters for it.
pub(super) fn table_mark(of: &str) -> Result<String> {
    let mark = Mark { of: of.to_owned(), comment: None };
    let text = serde_json::to_string(&mark)
        .map_err(|e| Failure::failed("the mark on a new table cannot be written").caused_by(e))?;
    let mut ascii = String::with_capacity(text.len());
    let mut units = [0; 2];
    for c in text.chars() {
        match c.is_ascii() {
            true => ascii.push(c),
            false => {
                c.encode_utf16(&mut units).iter().for_each(|unit| ascii.push_str(&format!("\\u{unit:04x}")))
            }
        }
    }
    Ok(quote_literal(&ascii))
}

fn read(comment: &str) -> Option<Mark> {
    comment.starts_with(MARK).then(|| serde_json::from_str(comment).ok()).flatten()
}

/// What is being restored, if a comment is a mark.
pub(in crate::postgres) fn marked(comment: Option<&str>) -> Option<String> {
    comment.and_then(read).map(|mark| mark.of)
}

/// A database's comment without the mark.
pub(in crate::postgres) fn own_comment(comment: Option<String>) -> Option<String> {
    match comment.as_deref().and_then(read) {
        Some(mark) => mark.comment,
        None => comment,
    }
}

/// The statement that puts the database's own comment back; `None` if it carries no mark.
///
/// # Errors
/// The server's.
pub(in crate::postgres) fn take_off(
    admin: &mut Connection,
    database: &str,
    named: &str,
) -> Result<Option<String>, WireError> {
    let sql = format!(
        "SELECT pg_catalog.shobj_description(oid, 'pg_database') FROM pg_catalog.pg_database WHERE datname = {}",
        quote_literal(database)
    );
    let mark = admin.query_text(&sql)?.as_deref().and_then(read);
    Ok(mark.map(|mark| comment_on(named, mark.comment.as_deref())))
}

/// The databases of a server that carry the mark.
///
/// # Errors
/// The server's.
pub fn unfinished(server: &ConnectSpec) -> Result<Vec<Unfinished>> {
    let mut admin = Connection::connect(server)?;
    Ok(all(&mut admin)?)
}

/// This database, if it carries the mark.
pub(super) fn of(admin: &mut Connection, database: &str) -> Result<Option<Unfinished>, WireError> {
    Ok(all(admin)?.into_iter().find(|unfinished| unfinished.database == database))
}

/// Tables in a database that lives which carry the mark of one restore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnfinishedTables {
    /// Quoted as in a statement.
    pub tables: Vec<String>,
    /// What was restored, in words.
    pub of: String,
    /// Our sessions in the database: the restore may be going on.
    pub sessions: u64,
}

impl fmt::Display for UnfinishedTables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 5;
        let names = self.tables.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
        match self.tables.len() {
            1 => write!(f, "table {names} is")?,
            n if n > SHOWN => write!(f, "tables {names} and {} more are", n - SHOWN)?,
            _ => write!(f, "tables {names} are")?,
        }
        write!(f, " of a restore that is not finished ({})", self.of)
    }
}

impl UnfinishedTables {
    /// What to do about it.
    pub fn hint(&self) -> String {
        let drop = format!("DROP TABLE {}", self.tables.join(", "));
        match self.sessions {
            0 => format!("It was broken off. Drop what it left, then restore again: {drop}"),
            n => format!(
                "Sessions of mainstay in the database: {n}, so that it may be going on: wait for its end. If it was broken off: {drop}"
            ),
        }
    }
}

/// The tables of a database that carry the mark, by what was restored.
///
/// # Errors
/// The server's.
pub fn unfinished_tables(database: &ConnectSpec) -> Result<Vec<UnfinishedTables>> {
    Ok(tables_in(&mut Connection::connect(database)?)?)
}

pub(super) fn tables_in(connection: &mut Connection) -> Result<Vec<UnfinishedTables>, WireError> {
    let rows = connection.query(&format!(
        "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), d.description,
                (SELECT count(*) FROM pg_catalog.pg_stat_activity a
                  WHERE a.datname = pg_catalog.current_database() AND a.application_name = 'mainstay'
                    AND a.pid <> pg_catalog.pg_backend_pid())
           FROM pg_catalog.pg_description d JOIN pg_catalog.pg_class c ON c.oid = d.objoid
           JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          WHERE d.classoid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objsubid = 0 AND c.relkind IN ('r', 'p')
            AND pg_catalog.starts_with(d.description, {})
          ORDER BY 1",
        quote_literal(MARK)
    ))?;
    let mut found: BTreeMap<String, UnfinishedTables> = BTreeMap::new();
    for row in &rows {
        let Some(mark) = read(&row.text(1)) else { continue };
        let sessions = row.int(2)?.unsigned_abs();
        let of_one = found.entry(mark.of.clone());
        let of_one = of_one.or_insert(UnfinishedTables { tables: Vec::new(), of: mark.of, sessions });
        of_one.tables.push(row.text(0));
    }
    Ok(found.into_values().collect())
}

fn all(admin: &mut Connection) -> Result<Vec<Unfinished>, WireError> {
    // Autovacuum has no user.
    let rows = admin.query(&format!(
        "SELECT datname, description,
                (SELECT count(*) FROM pg_catalog.pg_stat_activity a WHERE a.datid = d.oid AND a.usesysid IS NOT NULL)
           FROM pg_catalog.pg_database d JOIN pg_catalog.pg_shdescription s ON s.objoid = d.oid
          WHERE s.classoid = 'pg_catalog.pg_database'::pg_catalog.regclass
            AND pg_catalog.starts_with(description, {})
          ORDER BY datname",
        quote_literal(MARK)
    ))?;
    let mut found = Vec::new();
    for row in &rows {
        let Some(mark) = read(&row.text(1)) else { continue };
        found.push(Unfinished { database: row.text(0), of: mark.of, sessions: row.int(2)?.unsigned_abs() });
    }
    Ok(found)
}

/// The refusal to restore into a name that is taken.
pub(super) fn exists(database: &str, unfinished: Option<&Unfinished>) -> Failure {
    match unfinished {
        Some(rest) => Failure::new(Kind::Preflight, format!("{rest}, and exists already")).hint(rest.hint()),
        None => Failure::new(Kind::Preflight, format!("database {database} exists already"))
            .hint("Choose another name; to put single tables or schemas beside what it holds, say so; to replace it, use --replace."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_carries_the_comment_that_belongs_there_and_nothing_else_is_taken_for_one() {
        let statement = mark("a\"b", "shop, point 1a2b3c4d", Some("the 'live' shop")).unwrap();
        assert_eq!(
            statement,
            "COMMENT ON DATABASE \"a\"\"b\" IS '{\"mainstay_restore_not_finished\":\"shop, point 1a2b3c4d\",\
             \"comment\":\"the ''live'' shop\"}'"
        );
        let text = "{\"mainstay_restore_not_finished\":\"shop\",\"comment\":\"live\"}".to_owned();
        assert_eq!(marked(Some(&text)).as_deref(), Some("shop"));
        assert_eq!(own_comment(Some(text)).as_deref(), Some("live"));
        for other in ["live", "{\"mainstay_restore_not_finished\":", "{\"mainstay_replaces\":\"shop\"}"] {
            assert_eq!(own_comment(Some(other.to_owned())).as_deref(), Some(other));
            assert_eq!(marked(Some(other)), None);
        }
        assert_eq!(own_comment(None), None);
        let of_table = table_mark("Łódź 🦀").unwrap();
        assert!(of_table.is_ascii(), "{of_table}");
        let quoted = of_table.trim_start_matches(|c| c != '{').trim_end_matches('\'').replace("\\\\", "\\");
        assert_eq!(marked(Some(&quoted)).as_deref(), Some("Łódź 🦀"));
    }
}
