//! The session that holds the snapshot: found, locked, exported, and kept open to the end.
//!
//! The tables are locked *before* the snapshot is taken (LOCK TABLE takes none), so that what the catalogue functions say
//! of them, which is always the present, is the snapshot's state too. If the tables have changed between listing and
//! snapshot, it begins again. While it waits for one table it holds no lock on any other: a migration must not run into a
//! deadlock because of a backup.

use super::abort;
use crate::postgres::{
    facts::{Inventory, QualifiedName, Snapshot},
    inspect::{self, USER_SCHEMA},
    session,
    wire::{ConnectSpec, Connection, WireError, quote_literal, refuse_transaction_pooler},
};
use mainstay_domain::{
    Clock, Failure, Kind, Monitor, Severity, Time,
    time::{SECOND, Span},
};
use std::collections::BTreeMap;

/// A table as it was locked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    pub oid: u64,
    pub name: QualifiedName,
    /// Why it cannot be locked and read, if so.
    pub denied: Option<String>,
    /// What its owner would type to allow it; empty if nothing is wanting.
    pub grant: String,
}

pub(super) struct Leader {
    pub connection: Connection,
    /// For `SET TRANSACTION SNAPSHOT` and `pg_dump --snapshot`.
    pub snapshot_id: String,
    pub snapshot: Snapshot,
    pub session: BTreeMap<String, String>,
    pub system_identifier: Option<String>,
    pub in_recovery: bool,
    pub inventory: Inventory,
    pub listed: Vec<Listed>,
}

/// How often the tables may change under our hands before we go on regardless.
const ATTEMPTS: u32 = 20;
/// Tables locked by one statement.
const BATCH: usize = 500;

/// Opens two sessions, makes sure that they are the server's own, and prepares the first.
pub(super) fn open(
    spec: &ConnectSpec,
) -> Result<(Connection, Connection, BTreeMap<String, String>), Failure> {
    let mut first = Connection::connect(spec)?;
    let mut second = Connection::connect(spec)?;
    refuse_transaction_pooler(&mut first, &mut second)?;
    let version = first.server_version_num();
    if version < 140_000 {
        let text = first.parameter("server_version").unwrap_or("?").to_owned();
        return Err(Failure::preflight(format!("the server is PostgreSQL {text}"))
            .hint("PostgreSQL 14 and newer can be backed up."));
    }
    let session = session::prepare(&mut first)?;
    session::prepare(&mut second)?;
    Ok((first, second, session))
}

impl Leader {
    /// Takes the snapshot.
    ///
    /// # Errors
    /// `Busy` if a table stays locked for longer than `lock_wait`, naming it and who holds the lock.
    pub fn take(
        spec: &ConnectSpec,
        lock_wait: Span,
        clock: &dyn Clock,
        monitor: &dyn Monitor,
    ) -> Result<Leader, Failure> {
        let (mut connection, mut helper, session) = open(spec)?;
        // Not every user may ask.
        let system_identifier =
            connection.query_text("SELECT system_identifier FROM pg_control_system()").unwrap_or_default();
        let in_recovery = connection.query_text("SELECT pg_is_in_recovery()")?.as_deref() == Some("t");
        let deadline = clock.now().plus(lock_wait.nanoseconds);
        let mut attempt = 0;
        let (listed, snapshot_id, snapshot) = loop {
            attempt += 1;
            let listed = list(&mut connection)?;
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")?;
            // Short: whoever waits for us and we for them would be a deadlock, found after one second.
            connection.execute("SET LOCAL lock_timeout = '300ms'")?;
            match lock(&mut connection, &listed)? {
                Locked::All => {}
                Locked::Changed if attempt <= ATTEMPTS => {
                    connection.execute("ROLLBACK")?;
                    continue;
                }
                Locked::Changed => {
                    return Err(Failure::new(
                        Kind::Busy,
                        "tables are created and dropped faster than they can be locked",
                    )
                    .hint("Try again when the migration is over."));
                }
                Locked::Conflict(table) => {
                    connection.execute("ROLLBACK")?;
                    await_lock(&mut helper, &table, deadline, clock, monitor)?;
                    attempt -= 1; // bounded by the deadline
                    continue;
                }
            }
            connection.execute("SET LOCAL lock_timeout = 0")?;
            let (id, snapshot) = export(&mut connection, in_recovery)?;
            if list(&mut connection)? == listed || attempt > ATTEMPTS {
                break (listed, id, snapshot);
            }
            connection.execute("ROLLBACK")?;
        };
        let inventory = inspect::inspect(&mut connection)?;
        Ok(Leader {
            connection,
            snapshot_id,
            snapshot,
            session,
            system_identifier,
            in_recovery,
            inventory,
            listed,
        })
    }

    /// The end: the snapshot must have been there all the time.
    pub fn release(mut self) -> Result<(), Failure> {
        let still = self.connection.execute("COMMIT");
        still.map(|_| ()).map_err(|e| Failure::from(e).during("the session that held the snapshot"))
    }
}

/// Every table that has, or may have, rows of its own, or heads a partition tree; and whether we may read it.
pub(super) fn list(connection: &mut Connection) -> Result<Vec<Listed>, WireError> {
    let rows = connection.query(&format!(
        "SELECT c.oid, n.nspname, c.relname, has_schema_privilege(n.oid, 'USAGE'),
                has_table_privilege(c.oid, 'SELECT'), current_user,
                concat_ws('; ', CASE WHEN NOT has_schema_privilege(n.oid, 'USAGE')
                                     THEN format('GRANT USAGE ON SCHEMA %I TO %I', n.nspname, current_user) END,
                                CASE WHEN NOT has_table_privilege(c.oid, 'SELECT')
                                     THEN format('GRANT SELECT ON %I.%I TO %I', n.nspname, c.relname, current_user) END)
           FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
          WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND {USER_SCHEMA} ORDER BY c.oid"
    ))?;
    rows.iter()
        .map(|row| {
            let denied = match (row.bool(3), row.bool(4)) {
                (false, _) => Some(format!("{} has no USAGE privilege on its schema", row.text(5))),
                (true, false) => Some(format!("{} has no SELECT privilege on it", row.text(5))),
                (true, true) => None,
            };
            let name = QualifiedName { schema: row.text(1), name: row.text(2) };
            Ok(Listed { oid: row.int(0)?.unsigned_abs(), name, denied, grant: row.text(6) })
        })
        .collect()
}

enum Locked {
    All,
    /// A table is gone, or its rights have changed.
    Changed,
    Conflict(QualifiedName),
}

fn lock(connection: &mut Connection, listed: &[Listed]) -> Result<Locked, Failure> {
    let readable: Vec<&QualifiedName> =
        listed.iter().filter(|t| t.denied.is_none()).map(|t| &t.name).collect();
    for batch in readable.chunks(BATCH) {
        match lock_tables(connection, batch) {
            Ok(()) => continue,
            Err(error) if error.is("53200") => return Err(too_many_locks(error)),
            Err(WireError::Server(_)) => {}
            Err(error) => return Err(error.into()),
        }
        // One of them: which?
        connection.execute("ROLLBACK TO mainstay")?;
        for table in batch {
            if let Err(error) = lock_tables(connection, &[table]) {
                return match error.code() {
                    Some("55P03") => Ok(Locked::Conflict((*table).clone())),
                    Some("42P01" | "3F000" | "42501" | "XX000" | "42809") => Ok(Locked::Changed),
                    Some("53200") => Err(too_many_locks(error)),
                    _ => Err(Failure::from(error).during(format_args!("locking table {table}"))),
                };
            }
        }
        // It was in the way for a moment only.
        return Ok(Locked::Changed);
    }
    Ok(Locked::All)
}

fn lock_tables(connection: &mut Connection, tables: &[&QualifiedName]) -> Result<(), WireError> {
    let names: Vec<String> = tables.iter().map(|t| format!("ONLY {}", t.quoted())).collect();
    connection.execute("SAVEPOINT mainstay")?;
    connection.execute(&format!("LOCK TABLE {} IN ACCESS SHARE MODE", names.join(", ")))?;
    // The lock stays. No snapshot can be exported from within a savepoint.
    connection.execute("RELEASE mainstay")?;
    Ok(())
}

fn too_many_locks(error: WireError) -> Failure {
    Failure::from(error).during("locking the tables").hint(
        "The server has too little room for locks: raise max_locks_per_transaction above the number of tables \
         divided by max_connections, and restart it.",
    )
}

/// Waits until the table can be locked, holding nothing.
fn await_lock(
    helper: &mut Connection,
    table: &QualifiedName,
    deadline: Time,
    clock: &dyn Clock,
    monitor: &dyn Monitor,
) -> Result<(), Failure> {
    let holders = lock_holders(helper, table)?;
    monitor.notice(Severity::Warning, &format!("waiting for table {table}, which is locked by {holders}"));
    loop {
        if monitor.cancelled() {
            return Err(abort::cancelled());
        }
        let left = deadline.since(clock.now());
        if left <= 0 {
            let holders = lock_holders(helper, table)?;
            return Err(Failure::new(Kind::Busy, format!("table {table} stays locked by {holders}"))
                .hint("Wait for that session to end, or end it with pg_terminate_backend; lock_wait says how long to wait."));
        }
        let timeout = (left / 1_000_000).clamp(1, 1000);
        helper.execute(&format!("BEGIN; SET LOCAL lock_timeout = {timeout}"))?;
        let outcome = helper.execute(&format!("LOCK TABLE ONLY {} IN ACCESS SHARE MODE", table.quoted()));
        helper.execute("ROLLBACK")?;
        match outcome {
            Err(error) if error.is("55P03") => {}
            // Locked, or gone: the list will tell.
            Ok(_) | Err(WireError::Server(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Who stands in the way, in words.
fn lock_holders(helper: &mut Connection, table: &QualifiedName) -> Result<String, WireError> {
    let rows = helper.query(&format!(
        "SELECT DISTINCT l.pid, COALESCE(NULLIF(a.application_name, ''), 'no name'), a.usename, a.state
           FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)
          WHERE l.relation = (SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                               WHERE n.nspname = {} AND c.relname = {}) AND l.mode = 'AccessExclusiveLock' AND l.granted
            AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())",
        quote_literal(&table.schema),
        quote_literal(&table.name)
    ))?;
    let holders: Vec<String> = rows
        .iter()
        .map(|row| {
            let state = row.opt(3).map(|s| format!(", {s}")).unwrap_or_default();
            format!("process {} ({}, user {}{state})", row.text(0), row.text(1), row.text(2))
        })
        .collect();
    Ok(if holders.is_empty() { "another session".to_owned() } else { holders.join(", ") })
}

/// Takes the snapshot, and says of what moment and WAL position it is.
fn export(connection: &mut Connection, in_recovery: bool) -> Result<(String, Snapshot), WireError> {
    let lsn = if in_recovery { "pg_last_wal_replay_lsn()" } else { "pg_current_wal_lsn()" };
    let rows = connection.query(&format!(
        "SELECT pg_export_snapshot(), (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, {lsn}"
    ))?;
    let row = rows.iter().next().ok_or_else(|| WireError::Protocol("no snapshot".to_owned()))?;
    let at = Time(row.int(1)?.saturating_mul(SECOND / 1_000_000));
    Ok((row.text(0), Snapshot { at, lsn: row.opt(2) }))
}
