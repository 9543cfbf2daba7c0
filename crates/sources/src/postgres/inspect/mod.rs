//! Reads what a database is made of, for the facts of a capture and for the comparison after a restore.
//!
//! Every definition is the server's own text (`pg_get_…def`) in a session that [`prepare`](super::session::prepare) set
//! up, so two databases with the same objects give the same texts. Inside a snapshot the catalogue's rows are the
//! snapshot's, but these functions look at the present: a capture locks its tables first.

mod objects;
mod tables;

use super::{
    facts::{Database, Extension, Inventory, Setting},
    wire::{Connection, WireError},
};
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;

/// Everything but rows. The session must be prepared; the caller may have a transaction open.
pub fn inspect(connection: &mut Connection) -> Result<Inventory, WireError> {
    let version = connection.server_version_num();
    let database = database(connection, version)?;
    let extensions: Vec<Extension> = fetch(
        connection,
        "SELECT extname AS name, extversion AS version, n.nspname AS schema
           FROM pg_extension e JOIN pg_namespace n ON n.oid = extnamespace ORDER BY extname COLLATE \"C\"",
    )?;
    let tables = tables::tables(connection, version)?;
    let objects = objects::objects(connection, version)?;
    let mut roles: BTreeSet<String> = named_roles(connection)?;
    roles.insert(database.owner.clone());
    roles.extend(tables.iter().map(|t| t.owner.clone()));
    roles.extend(objects.iter().filter_map(|o| o.owner.clone()));
    roles.extend(database.settings.iter().filter_map(|s| s.role.clone()));
    Ok(Inventory { database, extensions, roles: roles.into_iter().collect(), tables, objects })
}

/// Runs a query and reads each row, as a JSON object, into a `T`: column names are field names.
pub(super) fn fetch<T: DeserializeOwned>(
    connection: &mut Connection,
    sql: &str,
) -> Result<Vec<T>, WireError> {
    let rows = connection.query(&format!("SELECT to_json(r) FROM ({sql}) r"))?;
    rows.iter()
        .map(|row| {
            serde_json::from_str(&row.text(0))
                .map_err(|e| WireError::Protocol(format!("a row of the catalogue: {e}")))
        })
        .collect()
}

/// An ACL as sorted texts; NULL where it is the default for that kind of object.
pub(super) fn acl(column: &str, kind: char, owner: &str) -> String {
    format!(
        "(SELECT CASE WHEN count(*) = 0 AND {column} IS NULL
                        OR array_agg(x::text ORDER BY x::text COLLATE \"C\")
                         = (SELECT array_agg(y::text ORDER BY y::text COLLATE \"C\")
                              FROM unnest(acldefault('{kind}', {owner})) y) THEN NULL
                      ELSE COALESCE(array_agg(x::text ORDER BY x::text COLLATE \"C\"), '{{}}') END
            FROM unnest({column}) x)"
    )
}

/// The condition on a schema `n` that is neither the system's nor temporary.
pub(super) const USER_SCHEMA: &str = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'";

/// The condition that an object is no member of an extension.
pub(super) fn not_a_member(class: &str, oid: &str) -> String {
    format!(
        "NOT EXISTS (SELECT 1 FROM pg_depend x WHERE x.classid = '{class}'::regclass AND x.objid = {oid}
                        AND x.deptype = 'e')"
    )
}

fn database(connection: &mut Connection, version: u32) -> Result<Database, WireError> {
    let provider = match version {
        150_000.. => "CASE datlocprovider WHEN 'i' THEN 'icu' WHEN 'b' THEN 'builtin' ELSE 'libc' END",
        _ => "'libc'",
    };
    let locale = match version {
        170_000.. => "datlocale",
        150_000.. => "daticulocale",
        _ => "NULL::text",
    };
    let rules = if version >= 160_000 { "daticurules" } else { "NULL::text" };
    let collation_version = if version >= 150_000 { "datcollversion" } else { "NULL::text" };
    let acl = acl("datacl", 'd', "datdba");
    let sql = format!(
        "SELECT datname AS name, pg_get_userbyid(datdba) AS owner, pg_encoding_to_char(encoding) AS encoding,
                datcollate AS collate, datctype AS ctype, {provider} AS locale_provider, {locale} AS locale,
                {rules} AS icu_rules, {collation_version} AS collation_version, t.spcname AS tablespace,
                datconnlimit AS connection_limit, datistemplate AS is_template, {acl} AS acl,
                shobj_description(d.oid, 'pg_database') AS comment, ARRAY[]::text[] AS settings
           FROM pg_database d JOIN pg_tablespace t ON t.oid = dattablespace WHERE datname = current_database()"
    );
    let mut database = fetch::<Database>(connection, &sql)?
        .pop()
        .ok_or_else(|| WireError::Protocol("the database is not in pg_database".to_owned()))?;
    database.settings = settings(connection)?;
    Ok(database)
}

fn settings(connection: &mut Connection) -> Result<Vec<Setting>, WireError> {
    let rows = connection.query(
        "SELECT CASE WHEN setrole <> 0 THEN pg_get_userbyid(setrole) END, unnest(setconfig)
           FROM pg_db_role_setting WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())",
    )?;
    let mut settings: Vec<Setting> = rows
        .iter()
        .map(|row| {
            let pair = row.text(1);
            let (name, value) = pair.split_once('=').unwrap_or((&pair, ""));
            Setting { role: row.opt(0), name: name.to_owned(), value: value.to_owned() }
        })
        .collect();
    settings.sort();
    Ok(settings)
}

/// Roles that own something in this database or are granted something.
fn named_roles(connection: &mut Connection) -> Result<BTreeSet<String>, WireError> {
    let rows = connection.query(
        "SELECT DISTINCT rolname FROM pg_shdepend s JOIN pg_roles r ON r.oid = refobjid
          WHERE refclassid = 'pg_authid'::regclass
            AND (SELECT oid FROM pg_database WHERE datname = current_database())
                IN (s.dbid, CASE WHEN classid = 'pg_database'::regclass THEN objid END)",
    )?;
    Ok(rows.iter().map(|row| row.text(0)).collect())
}
