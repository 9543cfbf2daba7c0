//! Swapping schemas within a database, in one transaction: where databases may not be renamed.

use crate::postgres::wire::{ConnectSpec, Connection, quote_ident, quote_literal};
use mainstay_domain::{Failure, Result};

/// Renames each `schema` to `schema + kept_suffix`, and `schema + suffix` to `schema`. Extensions stay in the schema of that
/// name: they move to the new one.
pub(super) fn swap(spec: &ConnectSpec, schemas: &[String], suffix: &str, kept_suffix: &str) -> Result<()> {
    let mut connection = Connection::connect(spec)?;
    let mut sql = "BEGIN; SET LOCAL lock_timeout = '10s';".to_owned();
    for schema in schemas {
        let extensions = connection.query(&format!(
            "SELECT extname FROM pg_catalog.pg_extension JOIN pg_catalog.pg_namespace n ON n.oid = extnamespace
              WHERE nspname = {}",
            quote_literal(schema)
        ))?;
        let now = quote_ident(schema);
        let kept = quote_ident(&format!("{schema}{kept_suffix}"));
        let restored = quote_ident(&format!("{schema}{suffix}"));
        let there =
            format!("SELECT count(*) FROM pg_catalog.pg_namespace WHERE nspname = {}", quote_literal(schema));
        if connection.query_text(&there)?.as_deref() == Some("1") {
            sql.push_str(&format!("ALTER SCHEMA {now} RENAME TO {kept};"));
        }
        sql.push_str(&format!("ALTER SCHEMA {restored} RENAME TO {now};"));
        for row in &extensions {
            sql.push_str(&format!("ALTER EXTENSION {} SET SCHEMA {now};", quote_ident(&row.text(0))));
        }
    }
    sql.push_str("COMMIT");
    connection.execute(&sql).map_err(|error| {
        let _ = connection.execute("ROLLBACK");
        Failure::from(error)
            .during("swapping the schemas")
            .hint("Nothing was swapped. What was restored is beside: drop it before you try again.")
    })?;
    Ok(())
}
