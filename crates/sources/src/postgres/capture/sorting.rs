//! Whether text still sorts as when the indexes were built. An index that was built under other rules finds rows no more and
//! lets duplicates in: rows are captured as they lie, and a unique constraint may then refuse them at the restore.

use super::verdict::Verdict;
use crate::postgres::wire::{Connection, WireError, quote_ident};
use mainstay_domain::Severity;

/// Warns of a database, or of collations that its objects use, of another version than the system's library now has.
pub(super) fn look(connection: &mut Connection, verdict: &mut Verdict) -> Result<(), WireError> {
    let object = "sorting of text";
    if connection.server_version_num() >= 150_000 {
        let rows = connection.query(
            "SELECT datname, datcollversion, pg_database_collation_actual_version(oid) FROM pg_database
              WHERE datname = current_database() AND datcollversion <> pg_database_collation_actual_version(oid)",
        )?;
        for row in &rows {
            let text = format!(
                "the indexes are of version {} of the collation, and the system has {}: they may find rows no more, and let \
                 duplicates in. REINDEX DATABASE, then ALTER DATABASE {} REFRESH COLLATION VERSION",
                row.text(1),
                row.text(2),
                quote_ident(&row.text(0))
            );
            verdict.notes(Severity::Warning, object, text);
        }
    }
    let rows = connection.query(
        "SELECT format('%I.%I', n.nspname, c.collname), c.collversion, pg_collation_actual_version(c.oid)
           FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace
          WHERE c.collversion <> pg_collation_actual_version(c.oid)
            AND EXISTS (SELECT FROM pg_depend WHERE refclassid = 'pg_collation'::regclass AND refobjid = c.oid)
          ORDER BY 1",
    )?;
    for row in &rows {
        let name = row.text(0);
        let text = format!(
            "what uses the collation {name} is of its version {}, and the system has {}: REINDEX it, then ALTER COLLATION {name} \
             REFRESH VERSION",
            row.text(1),
            row.text(2)
        );
        verdict.notes(Severity::Warning, object, text);
    }
    Ok(())
}
