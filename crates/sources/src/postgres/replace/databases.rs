//! Swapping by rename: two databases exchange their places in one transaction.
//!
//! Order, and what a crash leaves: the mark on the restored database (nothing else has happened: [`settle`] takes it off);
//! no new sessions for the living one (settle lets them in again); its sessions end; one transaction renames both, lets
//! sessions in, and takes off the mark (all or nothing, by PostgreSQL).

use super::plan::{BEFORE, base};
use crate::postgres::wire::{ConnectSpec, Connection, WireError, quote_ident, quote_literal};
use mainstay_domain::{Failure, Kind, Result};
use std::time::{Duration, Instant};

/// The setting that marks a restored database which is about to take another's place. Its value is that name, then the
/// name under which the old one will be kept.
const REPLACES: &str = "mainstay.replaces";
const KEEPS_AS: &str = "mainstay.keeps_as";

const IN_USE: &str = "55006";

/// What was found half done, and is settled now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// The swap had not happened; the living database lets sessions in again, and the restored one is still beside it.
    Undone { live: String, beside: String },
    /// The old one was moved away already; the restored one has taken its place now.
    Finished { live: String, kept: String },
}

/// Renames `live` to `kept` and `beside` to `live`. Returns how many sessions were ended.
pub(super) fn swap(
    server: &ConnectSpec,
    live: &str,
    beside: &str,
    kept: &str,
    wait: Duration,
) -> Result<u64> {
    let mut admin = Connection::connect(server)?;
    let of_beside = quote_ident(beside);
    admin.execute(&format!("ALTER DATABASE {of_beside} SET {REPLACES} = {}", quote_literal(live)))?;
    admin.execute(&format!("ALTER DATABASE {of_beside} SET {KEEPS_AS} = {}", quote_literal(kept)))?;
    let swapped = lock_out(&mut admin, &[live, beside], wait).and_then(|ended| {
        exchange(&mut admin, live, beside, kept)?;
        Ok(ended)
    });
    swapped.inspect_err(|_| {
        // As it was; if even that fails, the next run settles it.
        let _ = admin.execute("ROLLBACK");
        let _ = undo(&mut admin, live, beside);
    })
}

/// Lets no new sessions into the first database and ends those of all.
fn lock_out(admin: &mut Connection, databases: &[&str], wait: Duration) -> Result<u64> {
    let live = databases.first().copied().unwrap_or_default();
    admin.execute(&format!("ALTER DATABASE {} WITH ALLOW_CONNECTIONS false", quote_ident(live)))?;
    let names: Vec<String> = databases.iter().map(|d| quote_literal(d)).collect();
    let sessions = format!(
        "FROM pg_catalog.pg_stat_activity WHERE datname IN ({}) AND pid <> pg_catalog.pg_backend_pid()",
        names.join(", ")
    );
    let begun = Instant::now();
    let mut ended: i64 = 0;
    loop {
        let told = admin.query(&format!("SELECT count(pg_catalog.pg_terminate_backend(pid)) {sessions}"));
        let told = told.map_err(|error| match error.code() {
            Some("42501") => {
                Failure::new(Kind::Preflight, format!("the sessions of {live} may not be ended"))
                    .hint("Grant pg_signal_backend to this user, or stop the application.")
                    .caused_by(error)
            }
            _ => error.into(),
        })?;
        let there = told.iter().next().map_or(Ok(0), |row| row.int(0))?;
        ended = ended.max(there);
        if there == 0 {
            return Ok(ended.unsigned_abs());
        }
        if begun.elapsed() > wait {
            return Err(Failure::new(Kind::Busy, format!("{there} sessions of {live} do not end"))
                .hint("It is open again and as it was. Stop the application, then try again."));
        }
        std::thread::park_timeout(Duration::from_millis(50)); // between two looks at the server
    }
}

/// Both renames, the way in, and the end of the mark: one transaction.
fn exchange(admin: &mut Connection, live: &str, beside: &str, kept: &str) -> Result<()> {
    let [live, beside, kept] = [live, beside, kept].map(quote_ident);
    let sql = format!(
        "BEGIN;
         ALTER DATABASE {live} RENAME TO {kept};
         ALTER DATABASE {beside} RENAME TO {live};
         ALTER DATABASE {kept} WITH ALLOW_CONNECTIONS true;
         ALTER DATABASE {live} WITH ALLOW_CONNECTIONS true;
         ALTER DATABASE {live} RESET {REPLACES};
         ALTER DATABASE {live} RESET {KEEPS_AS};
         COMMIT"
    );
    match admin.execute(&sql) {
        Ok(_) => Ok(()),
        Err(WireError::Server(message)) if message.code == IN_USE => {
            Err(Failure::new(Kind::Busy, format!("a database is in use: {message}"))
                .hint("A prepared transaction or another program holds it. It is open again and as it was."))
        }
        Err(error) => Err(Failure::from(error).during("renaming")),
    }
}

fn undo(admin: &mut Connection, live: &str, beside: &str) -> Result<()> {
    let [live, beside] = [live, beside].map(quote_ident);
    admin.execute(&format!("ALTER DATABASE {live} WITH ALLOW_CONNECTIONS true"))?;
    admin.execute(&format!("ALTER DATABASE {beside} RESET {REPLACES}"))?;
    admin.execute(&format!("ALTER DATABASE {beside} RESET {KEEPS_AS}"))?;
    Ok(())
}

/// Finishes or undoes what a crash left half done on this server. Called before every replacement.
pub fn settle(server: &ConnectSpec) -> Result<Vec<Settled>> {
    let mut admin = Connection::connect(server)?;
    let marked = admin.query(&format!(
        "SELECT d.datname,
                (SELECT pg_catalog.substr(c, {}) FROM pg_catalog.unnest(setconfig) c WHERE c LIKE '{REPLACES}=%'),
                (SELECT pg_catalog.substr(c, {}) FROM pg_catalog.unnest(setconfig) c WHERE c LIKE '{KEEPS_AS}=%')
           FROM pg_catalog.pg_db_role_setting s JOIN pg_catalog.pg_database d ON d.oid = setdatabase
          WHERE setrole = 0 AND EXISTS (SELECT FROM pg_catalog.unnest(setconfig) c WHERE c LIKE '{REPLACES}=%')",
        REPLACES.len() + 2,
        KEEPS_AS.len() + 2
    ))?;
    let mut settled = Vec::new();
    for row in &marked {
        let (beside, live, kept) = (row.text(0), row.text(1), row.text(2));
        let exists = |admin: &mut Connection, name: &str| -> Result<bool> {
            let sql = format!(
                "SELECT count(*) FROM pg_catalog.pg_database WHERE datname = {}",
                quote_literal(name)
            );
            Ok(admin.query_text(&sql)?.as_deref() == Some("1"))
        };
        if exists(&mut admin, &live)? {
            undo(&mut admin, &live, &beside)?;
            settled.push(Settled::Undone { live, beside });
        } else if exists(&mut admin, &kept)? {
            lock_out(&mut admin, &[&beside], Duration::from_secs(10))?;
            let (b, l, k) = (quote_ident(&beside), quote_ident(&live), quote_ident(&kept));
            admin.execute(&format!(
                "BEGIN; ALTER DATABASE {b} RENAME TO {l}; ALTER DATABASE {l} WITH ALLOW_CONNECTIONS true;
                 ALTER DATABASE {k} WITH ALLOW_CONNECTIONS true;
                 ALTER DATABASE {l} RESET {REPLACES}; ALTER DATABASE {l} RESET {KEEPS_AS}; COMMIT"
            ))?;
            settled.push(Settled::Finished { live, kept });
        }
        // Neither: not our doing. It is left as it is.
    }
    Ok(settled)
}

/// The way back: the kept database takes its old place, and the one that replaced it is kept as `aside`.
pub fn swap_back(server: &ConnectSpec, live: &str, kept: &str, aside: &str, wait: Duration) -> Result<u64> {
    swap(server, live, kept, aside, wait)
}

/// What replaced databases are kept of `live`, newest first.
pub fn kept(server: &ConnectSpec, live: &str) -> Result<Vec<String>> {
    let mut admin = Connection::connect(server)?;
    let rows = admin.query("SELECT datname FROM pg_catalog.pg_database ORDER BY datname DESC")?;
    Ok(rows.iter().map(|row| row.text(0)).filter(|name| is_kept(name, live)).collect())
}

/// `live_before_20261120_124338`.
pub(super) fn is_kept(name: &str, live: &str) -> bool {
    let dated = name.rsplit_once(BEFORE).filter(|(begin, _)| *begin == base(live, BEFORE));
    dated.is_some_and(|(_, date)| {
        date.len() == 15
            && date.bytes().enumerate().all(|(at, b)| if at == 8 { b == b'_' } else { b.is_ascii_digit() })
    })
}

/// Drops a database that was kept after a replacement.
///
/// # Errors
/// `Refused` for a name that no replacement gave.
pub fn let_go(server: &ConnectSpec, live: &str, kept: &str) -> Result<()> {
    if !is_kept(kept, live) {
        return Err(Failure::new(
            Kind::Refused,
            format!("{kept} is not a database that was kept when {live} was replaced"),
        )
        .hint("Only such a one is dropped here."));
    }
    let mut admin = Connection::connect(server)?;
    // Its subscriptions go first, without their slots: those belong to the database that took its place.
    let mut old = Connection::connect(&server.with_database(kept))?;
    let own = "SELECT subname FROM pg_catalog.pg_subscription
                WHERE subdbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())";
    if let Ok(rows) = old.query(own) {
        for row in &rows {
            let name = quote_ident(&row.text(0));
            old.execute(&format!("ALTER SUBSCRIPTION {name} DISABLE"))?;
            old.execute(&format!("ALTER SUBSCRIPTION {name} SET (slot_name = NONE)"))?;
            old.execute(&format!("DROP SUBSCRIPTION {name}"))?;
        }
    }
    drop(old);
    lock_out(&mut admin, &[kept], Duration::from_secs(30))?;
    admin.execute(&format!("DROP DATABASE {}", quote_ident(kept)))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_replacement_kept_may_be_let_go() {
        assert!(is_kept("shop_before_20261120_124338", "shop"));
        for other in [
            "shop",
            "shop_before_x",
            "shop_before_20261120",
            "sho_before_20261120_124338",
            "shop2_before_20261120_124338",
        ] {
            assert!(!is_kept(other, "shop"), "{other}");
        }
    }
}
