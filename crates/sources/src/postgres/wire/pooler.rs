//! Poolers that share one server session among several clients.
//!
//! With transaction pooling, two statements of one "session" may run in different server processes: settings, snapshots
//! and locks do not hold, and a capture would be wrong without an error. So it is found out beforehand and refused.

use super::{Connection, error::WireError};

/// Checks that each of two fresh connections to the same server has a server process of its own, and keeps it.
///
/// While `second` holds a transaction open, `first` must still be in the process that it had before, and `second` in
/// another. A transaction pooler with one idle server session hands it from one to the other; one with several, or in
/// turn, gives `first` a different one.
pub fn refuse_transaction_pooler(first: &mut Connection, second: &mut Connection) -> Result<(), WireError> {
    let process = |connection: &mut Connection| connection.query_text("SELECT pg_catalog.pg_backend_pid()");
    let before = process(first)?;
    // The database may be set to end what waits for a moment; only this transaction is touched, whoever it belongs to.
    second.execute("BEGIN; SET LOCAL idle_in_transaction_session_timeout = 0").map_err(
        |error| match error.code() {
            // Statement pooling.
            Some("08P01") => WireError::Pooler(explain(first)),
            _ => error,
        },
    )?;
    let other = process(second)?;
    let after = [process(first)?, process(first)?];
    second.execute("COMMIT")?;
    // One that deals its sessions out in turn may come round to the first by chance; not once more.
    let at_last = process(first)?;
    if other == before || at_last != before || after.iter().any(|p| *p != before) {
        return Err(WireError::Pooler(explain(first)));
    }
    Ok(())
}

fn explain(connection: &Connection) -> String {
    format!(
        "{} is a connection pooler that shares server sessions between clients (transaction pooling); one consistent \
         snapshot cannot be taken through it",
        connection.spec().describe()
    )
}
