//! What a restore of a cluster says: the plan before, and what was done and comes next.

use crate::{
    context::Context,
    render::{count, plain, time},
};
use mainstay_domain::{ByteSize, time::SECOND};
use mainstay_operations::{
    pitr::{Resolved, masked},
    points,
};
use mainstay_sources::postgres::cluster::{
    ClusterFacts,
    restore::{Options, Report, Target},
    start::{Reached, Started},
};

/// What is restored, to which moment.
pub fn heading_to(context: &Context, resolved: &Resolved<'_>, source: &str, destination: &str) {
    let base = &resolved.base;
    let to = match &resolved.target {
        Target::Immediate => format!("as of {}", time::local(base.summary.finished)),
        Target::Latest => "to the end of the archived WAL".to_owned(),
        Target::Time(at) if at.0 % SECOND == 0 => format!("to {}", time::local(*at)),
        Target::Time(at) => format!("to {}", time::precise(*at)),
        Target::Lsn(lsn) => format!("to the position {lsn}"),
        Target::Xid(xid) => format!("to the end of transaction {xid}"),
        Target::Name(name) => format!("to the restore point {}", plain(name)),
    };
    let (app, id) = (&base.summary.app, base.id.short());
    context.output.line(format_args!("Restore {source} of {app} {to} (point {id}) into {destination}\n"));
}

/// Where the recovery goes, and what is the last that it keeps.
pub fn show_resolved(context: &Context, resolved: &Resolved<'_>) {
    let out = &context.output;
    let window = &resolved.window;
    out.line(format_args!("  timeline      {}", window.timeline));
    let to = window.to.map(time::local).unwrap_or_else(|| window.to_lsn.to_string());
    out.line(format_args!("  reachable     {} to {to}", time::local(window.from)));
    if let Some(gap) = &window.gap {
        out.line(format_args!("  gap           {gap} is missing: what comes after it cannot be reached"));
    }
    if let Some(segment) = &window.damaged {
        out.line(format_args!(
            "  damaged       {segment} of the archived WAL: what comes after it cannot be reached"
        ));
    }
    for other in &resolved.others {
        out.line(format_args!(
            "  not followed  {other}: another history (--timeline {} follows it)",
            other.timeline
        ));
    }
    if let Some(kept) = resolved.last_kept {
        out.line(format_args!("  last kept     the transaction that ended at {}", time::precise(kept)));
    }
    if let Some(lost) = resolved.first_lost {
        out.line(format_args!("  first undone  the transaction that ended at {}", time::precise(lost)));
    }
    out.line(format_args!("  to replay     {}", count(resolved.segments.len() as u64, "segment")));
}

pub(super) fn show_plan(
    context: &Context,
    resolved: Option<&Resolved<'_>>,
    plan: &mainstay_sources::postgres::cluster::restore::Plan,
    base: &points::PointInfo,
) {
    let out = &context.output;
    let facts = &plan.facts;
    out.line(format_args!(
        "  base backup   {} of {} ({}), PostgreSQL {}",
        base.id.short(),
        time::local(base.summary.finished),
        ByteSize(plan.bytes),
        facts.version_num / 10_000
    ));
    if let Some(resolved) = resolved {
        show_resolved(context, resolved);
    }
    for (oid, name, path) in &plan.tablespaces {
        out.line(format_args!("  tablespace    {name} ({oid}) to {}", path.display()));
    }
    for problem in &plan.problems {
        out.line(format_args!("  damaged       {}: {}", problem.object, problem.message));
    }
    out.line("");
    out.json(
        "plan",
        &serde_json::json!({
            "base": base.id, "bytes": plan.bytes, "destination": plan.destination,
            "window": resolved.map(|r| &r.window), "last_kept": resolved.and_then(|r| r.last_kept),
            "first_undone": resolved.and_then(|r| r.first_lost),
            "segments": resolved.map(|r| r.segments.len()),
            "other_histories": resolved.map(|r| &r.others),
        }),
    );
}

pub(super) fn show_report(context: &Context, options: &Options, report: &Report) {
    let out = &context.output;
    out.line(format_args!(
        "Restored {} ({}); {} right already, {} removed.",
        count(report.files, "file"),
        ByteSize(report.bytes),
        report.kept,
        report.removed
    ));
    if report.kept_bytes > 0 {
        out.line(format_args!("  {} kept, {} written.", ByteSize(report.kept_bytes), ByteSize(report.bytes)));
    }
    for notice in &report.notices {
        out.line(format_args!("  note: {notice}"));
    }
    let recovery = options.recovery.as_ref();
    if recovery.is_some_and(|recovery| recovery.standby) {
        out.line("  note: a standby: it archives, as its configuration says, only when it has been promoted (pg_ctl promote);");
        out.line(
            "        the user who runs it must be able to read this configuration and the repository's key",
        );
    } else if recovery.is_some_and(|recovery| !recovery.archive) {
        out.line(
            "  note: it does not archive (archive_mode = off), runs no subscriptions (max_logical_replication_workers = 0) and waits for no",
        );
        out.line("        standby (synchronous_standby_names = ''), because it may be a copy beside its original; if it takes the original's place:");
        out.line(
            "        ALTER SYSTEM RESET archive_mode; ALTER SYSTEM RESET max_logical_replication_workers; \
             ALTER SYSTEM RESET synchronous_standby_names; and restart it",
        );
    }
    out.json(
        "restored",
        &serde_json::json!({
            "state": report.state, "files": report.files, "bytes": report.bytes, "kept": report.kept,
            "kept_bytes": report.kept_bytes,
            "removed": report.removed, "notices": report.notices,
        }),
    );
}

pub(super) fn show_masked(context: &Context, databases: &[masked::InDatabase]) {
    let out = &context.output;
    for in_database in databases {
        for table in &in_database.tables {
            out.line(format_args!(
                "  masked: {} of {} in {} ({})",
                table.columns.join(", "),
                table.table,
                in_database.database,
                count(table.rows, "row")
            ));
            out.json(
                "masked",
                &serde_json::json!({
                    "database": in_database.database, "table": table.table, "columns": table.columns, "rows": table.rows,
                }),
            );
        }
    }
}

pub(super) fn show_next(context: &Context, options: &Options, facts: &ClusterFacts) {
    context.output.line(format_args!(
        "\nNext, as the user that owns it, with the programs of PostgreSQL {}:\n  pg_ctl -D {} -o '-p 5433' -w start",
        facts.major(),
        options.destination.display()
    ));
}

pub(super) fn show_started(context: &Context, options: &Options, started: &Started, facts: &ClusterFacts) {
    let out = &context.output;
    let state = match started.reached {
        Reached::Promoted => "has reached its target and takes writes",
        Reached::Paused => {
            "has reached its target and is read-only: SELECT pg_wal_replay_resume() makes it take writes"
        }
        Reached::Stopped => "has reached its target and has stopped",
        Reached::Standby => "follows the archive and answers queries",
    };
    out.line(format_args!("\nThe server on {} {state}.", options.destination.display()));
    if started.reached != Reached::Stopped {
        let socket = started.socket_directory.as_ref().map(|socket| socket.display().to_string());
        let host = socket.or_else(|| started.address.clone()).unwrap_or_else(|| "localhost".to_owned());
        let database =
            facts.databases.iter().find(|name| *name != "template1").map_or("postgres", String::as_str);
        out.line(format_args!(
            "  connect     psql -h {host} -p {} -U {} {database}",
            started.port, facts.superuser
        ));
        out.line(format_args!(
            "  stop        pg_ctl -D {} stop, as user {}",
            options.destination.display(),
            user(started.uid)
        ));
    }
    out.line(format_args!("  its log     {}", started.log.display()));
    out.json("started", started);
}

/// The name of a user as this machine knows it, or the number.
fn user(uid: u32) -> String {
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let of = |line: &str| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number.parse() == Ok(uid)).then(|| name.to_owned())
    };
    accounts.lines().find_map(of).unwrap_or_else(|| uid.to_string())
}
