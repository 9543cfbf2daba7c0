//! Where each sequence stands.
//!
//! Sequences are not transactional: they are read after the snapshot was taken, so that they are never behind the rows.

use crate::postgres::{
    facts::{QualifiedName, SequenceValue},
    inspect::{USER_SCHEMA, not_a_member},
    wire::{Connection, WireError, quote_literal},
};

/// Sequences read by one statement.
const BATCH: usize = 200;

/// What stands where, and what could not be read.
pub(super) type Sequences = (Vec<SequenceValue>, Vec<Unreadable>);

/// A sequence that could not be read, why, and what its owner would type to allow it, if that is what is wanting.
pub(super) type Unreadable = (QualifiedName, String, Option<String>);

/// Reads all sequences but temporary ones and those that an extension has not marked as configuration.
pub(super) fn read(connection: &mut Connection) -> Result<Sequences, WireError> {
    let rows = connection.query(&format!(
        "SELECT n.nspname, c.relname, has_schema_privilege(n.oid, 'USAGE') AND has_sequence_privilege(c.oid, 'SELECT'),
                concat_ws('; ', CASE WHEN NOT has_schema_privilege(n.oid, 'USAGE')
                                     THEN format('GRANT USAGE ON SCHEMA %I TO %I', n.nspname, current_user) END,
                                CASE WHEN NOT has_sequence_privilege(c.oid, 'SELECT')
                                     THEN format('GRANT SELECT ON SEQUENCE %I.%I TO %I', n.nspname, c.relname, current_user) END)
           FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
          WHERE c.relkind = 'S' AND c.relpersistence <> 't' AND {USER_SCHEMA}
            AND ({} OR EXISTS (SELECT 1 FROM pg_extension e WHERE c.oid = ANY (e.extconfig)))
          ORDER BY n.nspname COLLATE \"C\", c.relname COLLATE \"C\"",
        not_a_member("pg_class", "c.oid")
    ))?;
    let mut unreadable = Vec::new();
    let mut names = Vec::new();
    for row in &rows {
        let name = QualifiedName { schema: row.text(0), name: row.text(1) };
        if row.bool(2) {
            names.push(name);
        } else {
            unreadable.push((name, "no SELECT privilege on it".to_owned(), Some(row.text(3))));
        }
    }
    let mut values = Vec::with_capacity(names.len());
    for batch in names.chunks(BATCH) {
        connection.execute("SAVEPOINT mainstay")?;
        match read_batch(connection, batch) {
            Ok(found) => values.extend(found),
            Err(WireError::Server(_)) => {
                // One of them was dropped since the snapshot, or is locked away: the others one by one.
                for name in batch {
                    connection.execute("ROLLBACK TO mainstay; SAVEPOINT mainstay")?;
                    match read_batch(connection, std::slice::from_ref(name)) {
                        Ok(found) => values.extend(found),
                        Err(WireError::Server(message)) => {
                            unreadable.push((name.clone(), message.to_string(), None))
                        }
                        Err(error) => return Err(error),
                    }
                }
                connection.execute("ROLLBACK TO mainstay")?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok((values, unreadable))
}

fn read_batch(connection: &mut Connection, names: &[QualifiedName]) -> Result<Vec<SequenceValue>, WireError> {
    let selects: Vec<String> = names
        .iter()
        .map(|name| {
            let (schema, bare) = (quote_literal(&name.schema), quote_literal(&name.name));
            format!("SELECT {schema}::text, {bare}::text, last_value, is_called FROM {}", name.quoted())
        })
        .collect();
    let rows = connection.query(&selects.join(" UNION ALL "))?;
    rows.iter()
        .map(|row| {
            Ok(SequenceValue {
                schema: row.text(0),
                name: row.text(1),
                last_value: row.int(2)?,
                is_called: row.bool(3),
            })
        })
        .collect()
}
