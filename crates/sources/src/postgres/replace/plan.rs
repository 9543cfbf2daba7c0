//! What a replacement would do, and what stands against it.

use super::{
    Options,
    databases::{HalfDone, half_done},
};
use crate::postgres::{
    facts::{Database, Facts, ObjectKind, Skipped},
    inspect::inspect,
    restore::{self, Refusal, Target},
    session,
    wire::{ConnectSpec, Connection, quote_literal},
};
use mainstay_domain::{
    Failure, Kind, Result, Time,
    point::{SourceRecord, State},
    stream::Vault,
};
use serde::Serialize;

/// Between a database's name and the date of its replacement.
pub(super) const BEFORE: &str = "_before_";
const RESTORED: &str = "_restored_";

/// How the places are exchanged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "by")]
pub enum Method {
    /// Both databases are renamed: `beside` takes the place of the living one, which is kept as `kept`.
    Databases { beside: String, kept: String },
    /// Within the database: each schema with `suffix` takes the place of the one without, which gets `kept_suffix`.
    Schemas { schemas: Vec<String>, suffix: String, kept_suffix: String },
}

impl Method {
    /// Where the restored one is until then.
    pub fn beside(&self) -> String {
        match self {
            Method::Databases { beside, .. } => format!("database {beside}"),
            Method::Schemas { schemas, suffix, .. } => {
                let names: Vec<String> = schemas.iter().map(|s| format!("{s}{suffix}")).collect();
                format!("schema {}", names.join(", "))
            }
        }
    }

    /// Where the old one is afterwards.
    pub fn kept(&self) -> Vec<String> {
        match self {
            Method::Databases { kept, .. } => vec![kept.clone()],
            Method::Schemas { schemas, kept_suffix, .. } => {
                schemas.iter().map(|s| format!("{s}{kept_suffix}")).collect()
            }
        }
    }
}

#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    pub live: String,
    pub method: Method,
    pub restore: restore::Plan,
    /// Bytes on the server's disk that the living database takes now, and goes on taking until it is let go.
    pub live_bytes: u64,
    /// What an earlier replacement left half done, and would be settled before anything else.
    pub half_done: Vec<HalfDone>,
    /// Sessions that would be ended.
    pub sessions: u64,
    /// What the living database may have and the recovery point lacks.
    pub lost: Vec<String>,
    /// Properties of the database that go back to what was recorded.
    pub reverted: Vec<String>,
    /// What stays with the old database or needs a hand: slots, subscriptions, scheduled jobs, dependants.
    pub left_behind: Vec<String>,
    pub refusals: Vec<Refusal>,
}

impl Plan {
    /// The failure that stands for all refusals.
    pub fn refuse(&self) -> Result<()> {
        self.restore.refuse()?;
        let Some(first) = self.refusals.first() else { return Ok(()) };
        let all: Vec<&str> = self.refusals.iter().map(|r| r.message.as_str()).collect();
        Err(Failure::new(Kind::Refused, all.join("; ")).hint(first.hint.clone()))
    }

    fn against(&mut self, message: String, hint: &str) {
        self.refusals.push(Refusal { message, hint: hint.to_owned() });
    }
}

/// Plans the replacement of database `live`: connects, looks, changes nothing.
///
/// # Errors
/// `Usage` if `live` is the database to administer from; `Preflight` if it does not exist.
pub fn plan(
    vault: &dyn Vault,
    record: &SourceRecord,
    server: &ConnectSpec,
    live: &str,
    options: &Options,
) -> Result<Plan> {
    if server.database == live {
        return Err(Failure::usage(format!("{live} cannot be replaced from within itself"))
            .hint("Connect to another database of the server for that, such as postgres."));
    }
    let facts = Facts::from_json(&record.facts)?;
    let half = half_done(server, live)?;
    let mut admin = Connection::connect(server)?;
    let name = quote_literal(live);
    let rows = admin.query(&format!(
        "SELECT pg_catalog.pg_database_size(oid), pg_catalog.pg_has_role(datdba, 'MEMBER')
                    AND (SELECT rolcreatedb OR rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user),
                (SELECT count(*) FROM pg_catalog.pg_stat_activity a WHERE a.datid = d.oid),
                (SELECT count(*) FROM pg_catalog.pg_prepared_xacts WHERE database = datname), datallowconn
           FROM pg_catalog.pg_database d WHERE datname = {name}"
    ))?;
    let Some(row) = rows.iter().next() else {
        let missing = Failure::preflight(format!("database {live} does not exist"));
        return Err(match half.first() {
            Some(half) => missing.hint(format!("{half}. Begin without --dry-run: that is settled first.")),
            None => missing.hint("There is nothing to replace: restore it under this name."),
        });
    };
    let (live_bytes, may_rename) = (row.int(0)?.unsigned_abs(), row.bool(1));
    let (sessions, prepared, open) = (row.int(2)?.unsigned_abs(), row.int(3)?, row.bool(4));
    let method = match may_rename {
        true => Method::Databases {
            beside: free_name(&mut admin, live, RESTORED, options.now)?,
            kept: dated(live, BEFORE, options.now),
        },
        false => Method::Schemas {
            schemas: schemas(&facts, server, live)?,
            suffix: format!("{RESTORED}{}", stamp(options.now)),
            kept_suffix: format!("{BEFORE}{}", stamp(options.now)),
        },
    };
    let target = match &method {
        Method::Databases { beside, .. } => {
            Target { server: server.clone(), database: beside.clone(), into_existing: false }
        }
        Method::Schemas { .. } => {
            Target { server: server.clone(), database: live.to_owned(), into_existing: true }
        }
    };
    let mut restoring = options.restore.clone();
    if let Method::Schemas { schemas, suffix, .. } = &method {
        restoring.selection.schemas = schemas.clone();
        restoring.selection.schema_suffix = Some(suffix.clone());
    }
    let restore = restore::plan(vault, record, &target, &restoring)?;
    let mut plan = Plan {
        live: live.to_owned(),
        method,
        restore,
        live_bytes,
        half_done: half,
        sessions,
        lost: lost(record, &facts),
        reverted: Vec::new(),
        left_behind: Vec::new(),
        refusals: Vec::new(),
    };
    for name in leftovers(&mut admin, live)? {
        plan.restore.notices.push(format!(
            "database {name} is of an earlier replacement that did not come to its end: look at it, then drop it"
        ));
    }
    if prepared > 0 && may_rename {
        plan.against(
            format!("{live} has {prepared} prepared transactions, with which it cannot be renamed"),
            "Commit them or roll them back.",
        );
    }
    if let [first, ..] = &plan.restore.missing_label_providers[..] {
        plan.refusals.push(Refusal {
            message: format!("the server has not loaded {first}, of which {live} had security labels"),
            hint: "Load it (shared_preload_libraries), or restore beside, without replacing.".to_owned(),
        });
    }
    if !plan.lost.is_empty() && !options.accept_partial {
        plan.against(
            format!("this recovery point does not hold all of the database: {}", plan.lost.join("; ")),
            "Restore it beside (without replacing), or accept the loss with --accept-partial.",
        );
    }
    if !open {
        closed(&mut plan);
        return Ok(plan);
    }
    left_behind(&mut plan, &mut admin, server, live)?;
    let mut connection = Connection::connect(&server.with_database(live))?;
    session::prepare(&mut connection)?;
    if may_rename {
        plan.reverted = reverted(&facts.inventory.database, &inspect(&mut connection)?.database);
    } else {
        beyond_schemas(&mut plan, &facts);
    }
    Ok(plan)
}

/// The living database lets nobody in, so that what it would leave behind cannot be seen.
fn closed(plan: &mut Plan) {
    let live = &plan.live;
    if plan.half_done.is_empty() {
        let message = format!("{live} lets no sessions in (ALLOW_CONNECTIONS is false)");
        plan.against(message, "Open it: ALTER DATABASE … WITH ALLOW_CONNECTIONS true.");
    } else {
        let text =
            format!("what else belongs to {live} alone is seen when that is settled: it lets no sessions in");
        plan.left_behind.push(text);
    }
}

/// Databases that were restored beside `live`, and never took its place.
fn leftovers(admin: &mut Connection, live: &str) -> Result<Vec<String>> {
    let rows = admin.query("SELECT datname FROM pg_catalog.pg_database ORDER BY datname")?;
    Ok(rows.iter().map(|row| row.text(0)).filter(|name| is_dated(name, live, RESTORED)).collect())
}

/// What a replacement by this record would take away.
fn lost(record: &SourceRecord, facts: &Facts) -> Vec<String> {
    let mut lost = Vec::new();
    for table in &facts.tables {
        let name = format!("{}.{}", table.schema, table.name);
        match (&table.skipped, &table.filter) {
            (Some(Skipped::Excluded | Skipped::Dropped), _) => {
                lost.push(format!("all rows of {name} (left out)"))
            }
            (Some(Skipped::Unreadable(reason)), _) => lost.push(format!("all rows of {name} ({reason})")),
            (None, Some(filter)) => lost.push(format!("rows of {name} without {filter}")),
            _ => {}
        }
    }
    for unread in facts.unread.iter().filter(|u| u.kind != "table") {
        lost.push(format!("{} {}: {}", unread.kind, unread.object, unread.reason));
    }
    if lost.is_empty() && (record.state != State::Complete || record.partial) {
        lost.push(format!("the recovery point is {}", record.state));
    }
    lost
}

/// What follows the old database, since it belongs to that and not to its name.
fn left_behind(plan: &mut Plan, admin: &mut Connection, server: &ConnectSpec, live: &str) -> Result<()> {
    if matches!(plan.method, Method::Schemas { .. }) {
        return Ok(());
    }
    let name = quote_literal(live);
    let slots = admin.query(&format!(
        "SELECT slot_name, active FROM pg_catalog.pg_replication_slots WHERE database = {name} ORDER BY 1"
    ))?;
    for row in &slots {
        let read = if row.bool(1) { " (its reader is cut off)" } else { "" };
        let text = format!(
            "replication slot {}{read} stays with the old database: make it anew and start its readers over",
            row.text(0)
        );
        plan.left_behind.push(text);
    }
    let mut connection = Connection::connect(&server.with_database(live))?;
    let subscriptions = connection.query(
        "SELECT subname, subenabled FROM pg_catalog.pg_subscription
          WHERE subdbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())",
    );
    // Not every user may see them.
    for row in subscriptions.iter().flatten() {
        let running = if row.bool(1) { ", where it goes on" } else { "" };
        let text = format!(
            "subscription {} stays with the old database{running}; in the new one it is disabled",
            row.text(0)
        );
        plan.left_behind.push(text);
    }
    // Its script looks at the name of the database and refuses all but the one that the server is set to.
    let cron = "SELECT FROM pg_catalog.pg_extension WHERE extname = 'pg_cron'";
    if !connection.query(cron)?.is_empty() {
        plan.against(
            format!("pg_cron keeps its jobs in {live}, and cannot be made in a database of another name"),
            "Set cron.database_name to another database (postgres), restart the server, make pg_cron there and schedule its \
             jobs with cron.schedule_in_database; then DROP EXTENSION pg_cron in this one, and back it up again.",
        );
    }
    // Where it is usually kept. Not every user may see it.
    let jobs = admin.query(&format!("SELECT count(*) FROM cron.job WHERE database = {name}"));
    for row in jobs.iter().flatten().filter(|row| row.text(0) != "0") {
        let text = format!(
            "{} jobs of pg_cron run in the database of this name: the next time, in the new one",
            row.text(0)
        );
        plan.left_behind.push(text);
    }
    Ok(())
}

/// Database-level properties that the living one has otherwise than recorded.
fn reverted(recorded: &Database, live: &Database) -> Vec<String> {
    let mut reverted = Vec::new();
    let mut compare = |what: &str, was: String, is: String| {
        if was != is {
            reverted.push(format!("{what}: {is} goes back to {was}"));
        }
    };
    let shown =
        |value: &Option<Vec<String>>| value.as_ref().map_or("the default".to_owned(), |v| v.join(", "));
    compare("owner", recorded.owner.clone(), live.owner.clone());
    compare("tablespace", recorded.tablespace.clone(), live.tablespace.clone());
    compare("connection limit", recorded.connection_limit.to_string(), live.connection_limit.to_string());
    compare("privileges", shown(&recorded.acl), shown(&live.acl));
    let settings = |database: &Database| {
        let all = database.settings.iter().map(|s| match &s.role {
            Some(role) => format!("{role}: {} = {}", s.name, s.value),
            None => format!("{} = {}", s.name, s.value),
        });
        let all: Vec<String> = all.collect();
        if all.is_empty() { "none".to_owned() } else { all.join(", ") }
    };
    compare("settings", settings(recorded), settings(live));
    reverted
}

/// What a swap of schemas does not reach.
fn beyond_schemas(plan: &mut Plan, facts: &Facts) {
    let kinds = [
        ObjectKind::Publication,
        ObjectKind::Subscription,
        ObjectKind::EventTrigger,
        ObjectKind::ForeignServer,
        ObjectKind::Cast,
        ObjectKind::Language,
    ];
    for kind in kinds {
        let names: Vec<&str> = facts.inventory.objects_of(kind).map(|o| o.identity.as_str()).collect();
        if !names.is_empty() {
            plan.left_behind
                .push(format!("of the kind {kind}, what lives is left as it is: {}", names.join(", ")));
        }
    }
    if facts.large_objects.count > 0 {
        plan.left_behind.push("large objects are left as they are".to_owned());
    }
    plan.left_behind.push("settings and privileges of the database are left as they are".to_owned());
}

/// The schemas that hold what was captured. One that belongs to another and holds nothing of the user's is left out.
///
/// # Errors
/// `Preflight` if a schema with captured tables belongs to another.
fn schemas(facts: &Facts, server: &ConnectSpec, live: &str) -> Result<Vec<String>> {
    let inventory = &facts.inventory;
    let mut schemas: Vec<String> =
        inventory.objects_of(ObjectKind::Schema).map(|o| o.schema.clone()).collect();
    schemas.sort();
    schemas.dedup();
    let mut connection = Connection::connect(&server.with_database(live))?;
    let others = connection.query(
        "SELECT nspname, pg_catalog.pg_get_userbyid(nspowner) FROM pg_catalog.pg_namespace
          WHERE NOT pg_catalog.pg_has_role(nspowner, 'USAGE')",
    )?;
    for row in &others {
        let (schema, owner) = (row.text(0), row.text(1));
        let holds = inventory.tables.iter().any(|t| t.schema == schema && t.extension.is_none());
        if holds && schemas.contains(&schema) {
            return Err(Failure::preflight(format!(
                "{live} may not be renamed by {}, nor its schema {schema}, which belongs to {owner}",
                server.user
            ))
            .hint("Replace it as a user who owns the database and may create one, or as a superuser."));
        }
        schemas.retain(|s| *s != schema);
    }
    Ok(schemas)
}

/// `20261120_124338`, in UTC.
fn stamp(now: Time) -> String {
    now.to_string().chars().filter(char::is_ascii_digit).take(14).fold(String::new(), |mut text, digit| {
        if text.len() == 8 {
            text.push('_');
        }
        text.push(digit);
        text
    })
}

/// Characters of [`stamp`].
const STAMP: usize = 15;

/// As much of a name as a date leaves room for, in 63 bytes.
pub(super) fn base<'a>(name: &'a str, word: &str) -> &'a str {
    let mut end = name.len().min(63 - word.len() - STAMP);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}

/// `shop_before_20261120_124338`.
fn dated(name: &str, word: &str, now: Time) -> String {
    format!("{}{word}{}", base(name, word), stamp(now))
}

/// Whether a name is one that [`dated`] gives, perhaps with the number of [`free_name`].
pub(super) fn is_dated(name: &str, live: &str, word: &str) -> bool {
    let rest = name.strip_prefix(base(live, word)).and_then(|rest| rest.strip_prefix(word));
    let Some((stamp, number)) = rest.and_then(|rest| rest.split_at_checked(STAMP)) else { return false };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let dated =
        stamp.split_once('_').is_some_and(|(day, time)| day.len() == 8 && digits(day) && digits(time));
    dated && (number.is_empty() || number.strip_prefix('_').is_some_and(digits))
}

/// The dated name, with a number if it is taken.
fn free_name(admin: &mut Connection, name: &str, word: &str, now: Time) -> Result<String> {
    let wanted = dated(name, word, now);
    for n in 1.. {
        let candidate = if n == 1 { wanted.clone() } else { format!("{}_{n}", &wanted) };
        let sql = format!(
            "SELECT count(*) FROM pg_catalog.pg_database WHERE datname = {}",
            quote_literal(&candidate)
        );
        if admin.query_text(&sql)?.as_deref() == Some("0") {
            return Ok(candidate);
        }
    }
    unreachable!("some number is free")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dated_names_fit_and_say_when() {
        let now = Time(1_795_178_618_000_000_000);
        assert_eq!(dated("shop", BEFORE, now), "shop_before_20261120_124338");
        let long = dated(&"é".repeat(40), BEFORE, now);
        assert!(long.len() <= 63 && long.ends_with("_before_20261120_124338"), "{long}");
    }
}
