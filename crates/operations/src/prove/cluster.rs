//! Proving a base backup: it is restored into a sandbox, recovers by its own log and by what was archived after it (to the next base
//! backup, or to the end), and every table and index in every database is looked through by PostgreSQL's own `pg_amcheck`.
//!
//! Archived log that cannot be replayed to there is a difference: the point is restored without it, and the report names what is broken.

use super::{SourceReport, Verdict, bin_dir, environment, millis};
use crate::{
    config::Config,
    pitr::{self, Log, Request, Resolved},
    points,
    restore::Opened,
    table_back,
    wal::check,
};
use mainstay_domain::{Clock, Failure, Kind, Monitor, Result, Silent, point::State};
use mainstay_repository::Repository;
use mainstay_sources::postgres::{
    cluster::{
        ClusterFacts,
        restore::{self, Target},
    },
    sandbox::{Sandbox, SandboxOptions},
    tools::{self, Purpose, Tools},
};
use std::{cell::Cell, path::Path};

/// Whoever reaches the sandbox's private socket is us.
const TRUST: &str = "local all all trust\n";

pub(super) fn prove(
    config: Option<&Config>,
    repository: &Repository,
    opened: &Opened<'_>,
    scratch: &Path,
    clock: &dyn Clock,
    monitor: &dyn Monitor,
) -> Result<SourceReport> {
    let facts = ClusterFacts::from_json(&opened.record.facts)?;
    let tools = tools::find(Purpose::Server, facts.major(), bin_dir(config, opened).as_deref())?;
    let options = SandboxOptions { deadline: table_back::RECOVERY, ..sandbox_for(tools, &facts, scratch) };
    let mut differences = Vec::new();
    let mut not_compared = Vec::new();
    let log = match log_after(repository, opened, &facts) {
        Ok(log) => log,
        // Several lines of history could be meant, and nothing is wrong with any; or the log has a gap that a base backup was made after.
        Err(failure)
            if failure.kind == Kind::Usage
                || failure.kind == Kind::Preflight && only_closed_gaps(repository, opened)? =>
        {
            not_compared.push(format!("the archived WAL was not replayed: {}", said(&failure)));
            None
        }
        Err(failure) if matches!(failure.kind, Kind::Verification | Kind::Preflight) => {
            differences.push(format!("the archived WAL was not replayed: {}", said(&failure)));
            None
        }
        Err(failure) => return Err(failure),
    };

    let begun = clock.now();
    let failure: Cell<Option<Failure>> = Cell::new(None);
    let fill = |data: &Path| {
        restore_into(opened, &facts, log.as_ref(), data, monitor).map_err(|error| {
            let text = error.to_string();
            failure.set(Some(error));
            std::io::Error::other(text)
        })
    };
    let sandbox =
        Sandbox::start_on(&options, &fill).map_err(|error| failure.take().unwrap_or_else(|| error.into()))?;
    table_back::wait_for_the_end(&sandbox, monitor)?;
    let restored_at = clock.now();
    compare_databases(&sandbox, &facts, &mut differences)?;
    let mut compared = match &log {
        Some(log) => format!(
            "recovered to {}, by {} archived segments",
            log.window.to_lsn.min(match log.target {
                Target::Lsn(lsn) => lsn,
                _ => log.window.to_lsn,
            }),
            log.segments.len()
        ),
        None => format!("recovered to {}, the end of the base backup", facts.stop),
    };
    compared += &format!("; {} databases", facts.databases.len());
    match amcheck(&sandbox, &facts, clock, monitor)? {
        Checked::Clean => compared += ", every table and index by pg_amcheck",
        Checked::Damage(text) => {
            compared += ", tables and indexes by pg_amcheck";
            differences.extend(text.lines().take(50).map(str::to_owned));
        }
        Checked::Impossible(why) => not_compared.push(why),
    }
    let compared_at = clock.now();
    let environment = environment(&sandbox);
    sandbox.stop();
    let verdict = match (differences.is_empty(), not_compared.is_empty(), opened.record.state) {
        (false, ..) => Verdict::Failed,
        (true, true, State::Complete) => Verdict::Passed,
        _ => Verdict::Partial,
    };
    Ok(SourceReport {
        source: opened.record.name.clone(),
        kind: opened.record.kind.clone(),
        verdict,
        compared,
        differences,
        not_compared,
        problems: Vec::new(),
        restore_millis: millis(restored_at.since(begun)),
        compare_millis: millis(compared_at.since(restored_at)),
        bytes: opened.record.bytes,
        items: opened.record.items,
        environment,
    })
}

/// A sandbox in `folder` for a cluster that was made elsewhere.
pub(crate) fn sandbox_for(tools: Tools, facts: &ClusterFacts, folder: &Path) -> SandboxOptions {
    SandboxOptions {
        parent: Some(folder.to_owned()),
        hba: Some(TRUST.to_owned()),
        superuser: facts.superuser.clone(),
        ..SandboxOptions::new(tools)
    }
    // What is not installed here, or belongs to the original's place, must not keep it from starting.
    .setting("shared_preload_libraries", "")
    .setting("session_preload_libraries", "")
    .setting("local_preload_libraries", "")
    .setting("ssl", "off")
}

/// The archived log that leads on from a base backup: to where the next one of its source begins, or to the end. `None`: there is none.
fn log_after<'r>(
    repository: &'r Repository,
    opened: &Opened<'_>,
    facts: &ClusterFacts,
) -> Result<Option<Resolved<'r>>> {
    let (own, source) = (&opened.point, &opened.record.name);
    let points = points::list(repository, Some(&own.summary.app))?;
    let next = pitr::next_base(repository, &points, own, source)?;
    let request = match &next {
        Some(next) => Request { target: Target::Lsn(next.start), timeline: Some(next.timeline) },
        None => Request { target: Target::Latest, timeline: None },
    };
    let log = pitr::resolve(repository, std::slice::from_ref(own), source, &request)?;
    Ok((!log.segments.is_empty() && log.window.to_lsn > facts.stop).then_some(log))
}

/// Whether all that is broken in the log is known and made up for.
fn only_closed_gaps(repository: &Repository, opened: &Opened<'_>) -> Result<bool> {
    let points = points::list(repository, Some(&opened.point.summary.app))?;
    let broken = check::check(repository, &points, true, &Silent)?.broken;
    Ok(broken.iter().all(check::Broken::is_closed))
}

fn said(failure: &Failure) -> String {
    match &failure.hint {
        Some(hint) => format!("{}. {hint}", failure.message),
        None => failure.message.clone(),
    }
}

fn restore_into(
    opened: &Opened<'_>,
    facts: &ClusterFacts,
    log: Option<&Resolved<'_>>,
    data: &Path,
    monitor: &dyn Monitor,
) -> Result<()> {
    let inside = |oid: u32| data.join("mainstay_tablespaces").join(oid.to_string());
    let options = restore::Options {
        tablespaces: facts.tablespaces.iter().map(|space| (space.oid, inside(space.oid))).collect(),
        sync: false,
        // Damage that is known makes the proof a partial one.
        accept_partial: true,
        recovery: log.map(table_back::recovery_of),
        ..restore::Options::new(data.to_owned())
    };
    match log {
        Some(log) => pitr::restore(opened, log, &options, Log::Brought, monitor).map(drop),
        None => opened.restore_cluster(&options, monitor).map(drop),
    }
}

fn compare_databases(sandbox: &Sandbox, facts: &ClusterFacts, differences: &mut Vec<String>) -> Result<()> {
    let mut connection = sandbox.connect("template1").map_err(Failure::from)?;
    let rows = connection.query("SELECT datname FROM pg_database WHERE datallowconn ORDER BY datname")?;
    let found: Vec<String> = rows.iter().map(|row| row.text(0)).collect();
    for database in facts.databases.iter().filter(|database| !found.contains(database)) {
        differences.push(format!("database {database} is missing"));
    }
    Ok(())
}

enum Checked {
    Clean,
    /// What `pg_amcheck` says of it.
    Damage(String),
    Impossible(String),
}

/// Looks through everything, in every database.
fn amcheck(
    sandbox: &Sandbox,
    facts: &ClusterFacts,
    clock: &dyn Clock,
    monitor: &dyn Monitor,
) -> Result<Checked> {
    let program = sandbox.tools().program("pg_amcheck");
    if !program.exists() {
        return Ok(Checked::Impossible(format!(
            "tables and indexes: {} is not installed",
            program.display()
        )));
    }
    let mut command = tools::command(&program, Some(&sandbox.spec("template1")));
    command.args(["--all", "--install-missing", "--jobs", "2"]);
    let until = clock.now().plus(LONGEST);
    let stop = || monitor.cancelled() || clock.now() > until;
    let (status, said) = tools::run_until(command, &stop)?;
    match status {
        None if monitor.cancelled() => Err(super::stopped()),
        None => Ok(Checked::Impossible("tables and indexes: pg_amcheck did not end within a day".to_owned())),
        Some(status) => Ok(judged(status.code(), said, facts.major())),
    }
}

/// So long may `pg_amcheck` take.
const LONGEST: i64 = mainstay_domain::time::DAY;

/// What the exit code of `pg_amcheck` says. 2 is damage, whatever else went wrong: in another database, say.
fn judged(code: Option<i32>, said: String, major: u32) -> Checked {
    let of_extension =
        said.contains("could not open extension control file") || said.contains("is not available");
    match code {
        Some(0) => Checked::Clean,
        Some(2) => Checked::Damage(said),
        _ if of_extension => Checked::Impossible(format!(
            "tables and indexes: the extension amcheck of PostgreSQL {major} is not installed (postgresql-contrib)"
        )),
        _ => Checked::Impossible(format!("tables and indexes: pg_amcheck could not look: {said}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_in_one_database_is_not_hidden_by_what_another_one_lacks() {
        let said =
            "heap table \"a.public.t\", block 3: xmin is wrong\nextension \"amcheck\" is not available";
        assert!(matches!(judged(Some(2), said.into(), 15), Checked::Damage(_)));
        assert!(matches!(judged(Some(1), said.into(), 15), Checked::Impossible(_)));
        assert!(matches!(judged(Some(0), String::new(), 15), Checked::Clean));
        assert!(matches!(judged(None, String::new(), 15), Checked::Impossible(_)));
    }
}
