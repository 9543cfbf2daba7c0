//! Swapping by rename: two databases exchange their places in one transaction.
//!
//! Order, and what a crash leaves: the mark on the restored database (nothing else has happened: [`settle`] takes it off);
//! no new sessions for the living one (settle lets them in again); its sessions end; one transaction renames both, lets
//! sessions in, and takes off the mark (all or nothing, by PostgreSQL).
//!
//! The mark is the comment on the restored database, since its owner may write that, and only a superuser a setting of ours.
//! It carries the comment that belongs there. Whoever owns a database can forge it, so it is believed only where nothing
//! comes of it that the database's owner could not do, or that a replacement of the named database would not do anyway.

use super::plan::{BEFORE, is_dated};
use crate::postgres::restore::unfinished::comment_on;
use crate::postgres::wire::{ConnectSpec, Connection, WireError, quote_ident, quote_literal};
use mainstay_domain::{Failure, Kind, Result};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    time::{Duration, Instant},
};

/// How the comment begins that is a mark.
const MARK: &str = "{\"mainstay_replaces\":";

/// The mark on a restored database which is about to take another's place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    #[serde(rename = "mainstay_replaces")]
    live: String,
    /// The name under which the old one will be kept.
    keeps_as: String,
    /// The comment that the restored database has without the mark.
    comment: Option<String>,
}

impl Mark {
    /// The statement that makes it the comment of `database`.
    fn set(&self, database: &str) -> Result<String> {
        let text = serde_json::to_string(self)
            .map_err(|e| Failure::failed("the mark on a restored database cannot be written").caused_by(e))?;
        Ok(comment_on(database, Some(&text)))
    }

    /// The statement that puts the database's own comment back.
    fn take_off(&self, database: &str) -> String {
        comment_on(database, self.comment.as_deref())
    }
}

const IN_USE: &str = "55006";
const LOCK_NOT_AVAILABLE: &str = "55P03";

/// What a replacement that broke off left half done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum HalfDone {
    /// The swap had not happened: the restored database is still beside the living one, which may let nobody in.
    NotSwapped { live: String, beside: String, closed: bool },
    /// The old one was moved away, and the restored one is not in its place. Both renames are one transaction: a hand did it.
    Vacant { live: String, beside: String, kept: String },
}

impl fmt::Display for HalfDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HalfDone::NotSwapped { live, beside, closed: true } => write!(
                f,
                "a replacement of {live} broke off before the swap: {live} lets no sessions in, and {beside} is beside it"
            ),
            HalfDone::NotSwapped { live, beside, closed: false } => {
                write!(f, "a replacement of {live} broke off before the swap: {beside} is beside it")
            }
            HalfDone::Vacant { live, beside, kept } => write!(
                f,
                "a replacement of {live} broke off: it is kept as {kept}, and {beside} is not in its place yet"
            ),
        }
    }
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
    alone(&mut admin, live)?;
    let mark =
        Mark { live: live.to_owned(), keeps_as: kept.to_owned(), comment: comment(&mut admin, beside)? };
    admin.execute(&mark.set(beside)?)?;
    let swapped = lock_out(&mut admin, &[live, beside], wait).and_then(|ended| {
        exchange(&mut admin, &mark, beside)?;
        Ok(ended)
    });
    swapped.inspect_err(|_| {
        // As it was; if even that fails, the next run settles it.
        let _ = admin.execute("ROLLBACK");
        let _ = undo(&mut admin, &mark, beside);
    })
}

/// Waits until no other replacement of `live` swaps or settles. The lock ends with the session, however that ends.
fn alone(admin: &mut Connection, live: &str) -> Result<()> {
    let sql = format!(
        "SET lock_timeout = '5s'; SELECT pg_catalog.pg_advisory_lock(pg_catalog.hashtext('mainstay replaces'),
                pg_catalog.hashtext({}));
         RESET lock_timeout",
        quote_literal(live)
    );
    match admin.query(&sql) {
        Ok(_) => Ok(()),
        Err(error) if error.is(LOCK_NOT_AVAILABLE) => {
            Err(Failure::new(Kind::Busy, format!("another replacement of {live} is going on"))
                .hint("Wait for its end, then look again."))
        }
        Err(error) => Err(error.into()),
    }
}

/// The database's comment.
fn comment(admin: &mut Connection, database: &str) -> Result<Option<String>> {
    let sql = format!(
        "SELECT pg_catalog.shobj_description(oid, 'pg_database') FROM pg_catalog.pg_database WHERE datname = {}",
        quote_literal(database)
    );
    Ok(admin.query_text(&sql)?)
}

/// Lets no new sessions into the first database and ends those of all.
fn lock_out(admin: &mut Connection, databases: &[&str], wait: Duration) -> Result<u64> {
    let live = databases.first().copied().unwrap_or_default();
    admin.execute(&format!("ALTER DATABASE {} WITH ALLOW_CONNECTIONS false", quote_ident(live)))?;
    let names: Vec<String> = databases.iter().map(|d| quote_literal(d)).collect();
    // Autovacuum has no user, may not be ended by everybody, and is sent away by the rename itself.
    let sessions = format!(
        "FROM pg_catalog.pg_stat_activity
          WHERE datname IN ({}) AND pid <> pg_catalog.pg_backend_pid() AND usesysid IS NOT NULL",
        names.join(", ")
    );
    let begun = Instant::now();
    let mut ended: i64 = 0;
    loop {
        let told = admin.query(&format!(
            "SELECT count(pg_catalog.pg_terminate_backend(pid)), count(*) FILTER (WHERE datname = {}) {sessions}",
            quote_literal(live)
        ));
        let told = told.map_err(|error| match error.code() {
            Some("42501") => {
                Failure::new(Kind::Preflight, format!("the sessions of {live} may not be ended"))
                    .hint("Grant pg_signal_backend to this user, or stop the application.")
                    .caused_by(error)
            }
            _ => error.into(),
        })?;
        let row = told.iter().next();
        let there = row.map_or(Ok(0), |row| row.int(0))?;
        // Our own sessions with the restored one, which may be ending still, are nobody's loss.
        ended = ended.max(row.map_or(Ok(0), |row| row.int(1))?);
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
fn exchange(admin: &mut Connection, mark: &Mark, beside: &str) -> Result<()> {
    let [live, beside, kept] = [mark.live.as_str(), beside, &mark.keeps_as].map(quote_ident);
    let sql = format!(
        "BEGIN;
         ALTER DATABASE {live} RENAME TO {kept};
         ALTER DATABASE {beside} RENAME TO {live};
         ALTER DATABASE {kept} WITH ALLOW_CONNECTIONS true;
         ALTER DATABASE {live} WITH ALLOW_CONNECTIONS true;
         {};
         COMMIT",
        mark.take_off(&mark.live)
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

fn undo(admin: &mut Connection, mark: &Mark, beside: &str) -> Result<()> {
    admin.execute(&format!(
        "BEGIN; ALTER DATABASE {} WITH ALLOW_CONNECTIONS true; {}; COMMIT",
        quote_ident(&mark.live),
        mark.take_off(beside)
    ))?;
    Ok(())
}

/// What replacements of `live` left half done. Changes nothing.
pub fn half_done(server: &ConnectSpec, live: &str) -> Result<Vec<HalfDone>> {
    let mut admin = Connection::connect(server)?;
    Ok(marked(&mut admin, live)?.into_iter().map(|(_, half)| half).collect())
}

fn marked(admin: &mut Connection, live: &str) -> Result<Vec<(Mark, HalfDone)>> {
    let rows = admin.query(&format!(
        "SELECT d.datname, description, l.datallowconn
           FROM pg_catalog.pg_shdescription s
           JOIN pg_catalog.pg_database d ON d.oid = s.objoid
           LEFT JOIN pg_catalog.pg_database l ON l.datname = {}
          WHERE s.classoid = 'pg_catalog.pg_database'::pg_catalog.regclass AND NOT d.datistemplate
            AND pg_catalog.pg_has_role(d.datdba, 'MEMBER')
            AND NOT COALESCE(l.datistemplate, false) AND pg_catalog.starts_with(description, {})
          ORDER BY 1",
        quote_literal(live),
        quote_literal(MARK)
    ))?;
    let mut found = Vec::new();
    for row in &rows {
        let beside = row.text(0);
        let Ok(mark) = serde_json::from_str::<Mark>(&row.text(1)) else { continue };
        if mark.live != live {
            continue;
        }
        let half = match row.opt(2) {
            Some(open) => HalfDone::NotSwapped { live: live.to_owned(), beside, closed: open != "t" },
            None if may_succeed(admin, &beside, &mark.keeps_as)? => {
                HalfDone::Vacant { live: live.to_owned(), beside, kept: mark.keeps_as.clone() }
            }
            // Not our doing. It is left as it is.
            None => continue,
        };
        found.push((mark, half));
    }
    Ok(found)
}

/// Whether whoever wrote the mark on `beside` could have put it into the place of what is now `kept`.
fn may_succeed(admin: &mut Connection, beside: &str, kept: &str) -> Result<bool> {
    let may = admin.query_text(&format!(
        "SELECT pg_catalog.pg_has_role(b.datdba, k.datdba, 'MEMBER')
           FROM pg_catalog.pg_database b, pg_catalog.pg_database k WHERE b.datname = {} AND k.datname = {}",
        quote_literal(beside),
        quote_literal(kept)
    ))?;
    Ok(may.as_deref() == Some("t"))
}

/// Undoes, or finishes, what a crash left half done of a replacement of `live`. Comes before anything else is done or looked
/// at: the living database may let nobody in.
pub fn settle(server: &ConnectSpec, live: &str) -> Result<Vec<HalfDone>> {
    let mut admin = Connection::connect(server)?;
    if marked(&mut admin, live)?.is_empty() {
        return Ok(Vec::new());
    }
    // What looks half done may be going on.
    alone(&mut admin, live)?;
    let mut settled = Vec::new();
    for (mark, half) in marked(&mut admin, live)? {
        match &half {
            HalfDone::NotSwapped { beside, .. } => undo(&mut admin, &mark, beside)?,
            HalfDone::Vacant { beside, kept, .. } => {
                lock_out(&mut admin, &[beside], Duration::from_secs(10))?;
                let (b, l, k) = (quote_ident(beside), quote_ident(live), quote_ident(kept));
                admin.execute(&format!(
                    "BEGIN; ALTER DATABASE {b} RENAME TO {l}; ALTER DATABASE {l} WITH ALLOW_CONNECTIONS true;
                     ALTER DATABASE {k} WITH ALLOW_CONNECTIONS true; {}; COMMIT",
                    mark.take_off(live)
                ))?;
            }
        }
        settled.push(half);
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
    is_dated(name, live, BEFORE)
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
    // A run that was killed before the drop may have closed it.
    admin.execute(&format!("ALTER DATABASE {} WITH ALLOW_CONNECTIONS true", quote_ident(kept)))?;
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
    let dropped = lock_out(&mut admin, &[kept], Duration::from_secs(30)).and_then(|_| {
        admin.execute(&format!("DROP DATABASE {}", quote_ident(kept)))?;
        Ok(())
    });
    dropped.inspect_err(|_| {
        // What stays is the way back: it must be open.
        let _ = admin.execute(&format!("ALTER DATABASE {} WITH ALLOW_CONNECTIONS true", quote_ident(kept)));
    })
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
            "shop_before_20261120_124338_x",
            "shop_restored_20261120_124338",
        ] {
            assert!(!is_kept(other, "shop"), "{other}");
        }
    }
}
