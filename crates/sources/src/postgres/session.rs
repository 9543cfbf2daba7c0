//! The settings that every session of ours has, whatever the server, the database or the role say.
//!
//! The text of rows, and with it their digests, depends on them; so do the texts by which objects are compared. Each
//! setting is there for a reason known from a tool that left it out.

use super::wire::{Connection, WireError, quote_ident, quote_literal};
use std::collections::BTreeMap;

/// Settings on which the text of rows depends: recorded with the digests, and the same when they are compared.
const TEXT: [(&str, &str); 10] = [
    ("DateStyle", "ISO, MDY"),
    ("IntervalStyle", "postgres"),
    ("TimeZone", "UTC"),
    ("extra_float_digits", "3"),
    ("bytea_output", "hex"),
    ("lc_monetary", "C"),
    ("xmlbinary", "base64"),
    ("xmloption", "content"),
    // The text of regclass and its kind names the schema only where the path does not reach it.
    ("search_path", ""),
    ("quote_all_identifiers", "off"),
];

/// Settings on which it depends whether all rows come, and whether they come in peace.
const CONDUCT: [(&str, &str); 8] = [
    // Row security becomes an error in place of rows that are left out in silence.
    ("row_security", "off"),
    // A scan begins at the first block, so that the same table is the same sequence of rows.
    ("synchronize_seqscans", "off"),
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("client_min_messages", "warning"),
    ("standard_conforming_strings", "on"),
    ("check_function_bodies", "off"),
];

/// Settings that only some versions know.
const WHERE_KNOWN: [(&str, &str); 4] = [
    ("idle_session_timeout", "0"),
    ("transaction_timeout", "0"),
    // A table exchanged for a view or a foreign table must not make us run its code (CVE-2024-7348).
    ("restrict_nonsystem_relation_kind", "view, foreign-table"),
    // A session whose program was killed ends soon, though it builds an index.
    (MAY_BE_REFUSED, "5s"),
];

/// Known to every server, and refused where its operating system cannot do that.
const MAY_BE_REFUSED: &str = "client_connection_check_interval";

/// Lets queries that belong to the database itself (of a materialized view, say) read other relations than tables, of all kinds but
/// `restricted`. They run as their owners, so that nobody's code becomes ours.
pub fn allow_other_relations(connection: &mut Connection, restricted: &str) -> Result<(), WireError> {
    connection.query(&format!(
        "SELECT pg_catalog.set_config(name, {}, false) FROM pg_catalog.pg_settings WHERE name = 'restrict_nonsystem_relation_kind'",
        quote_literal(restricted)
    ))?;
    // Their owners may be such as see not every row.
    connection.execute("SET row_security = on")?;
    Ok(())
}

/// Gives the session its settings. Returns those on which digests depend, with `client_encoding`: the encoding in which
/// rows are copied, the database's own.
pub fn prepare(connection: &mut Connection) -> Result<BTreeMap<String, String>, WireError> {
    let mut sql = String::new();
    for (name, value) in TEXT.iter().chain(&CONDUCT) {
        sql.push_str(&format!("SET {} = {};\n", quote_ident(name), quote_literal(value)));
    }
    let known: Vec<String> = WHERE_KNOWN.iter().map(|(name, _)| quote_literal(name)).collect();
    let known = connection.query(&format!(
        "{sql} SELECT name FROM pg_catalog.pg_settings WHERE name IN ({})",
        known.join(",")
    ))?;
    for row in &known {
        let name = row.text(0);
        if let Some((_, value)) = WHERE_KNOWN.iter().find(|(known, _)| *known == name) {
            match connection.execute(&format!("SET {} = {}", quote_ident(&name), quote_literal(value))) {
                Err(WireError::Server(_)) if name == MAY_BE_REFUSED => {}
                set => drop(set?),
            }
        }
    }
    let encoding = connection.query_text("SHOW server_encoding")?.unwrap_or_default();
    // Statements and names travel as UTF-8; rows as they lie in the database (`COPY … ENCODING`). Text of a database
    // without an encoding cannot be converted, nor checked.
    let ours = if encoding == "SQL_ASCII" { "SQL_ASCII" } else { "UTF8" };
    connection.execute(&format!("SET client_encoding = {}", quote_literal(ours)))?;
    let mut settings: BTreeMap<String, String> =
        TEXT.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    settings.insert("client_encoding".to_owned(), encoding);
    Ok(settings)
}
