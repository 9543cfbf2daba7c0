//! Proving a base backup: it is restored into a sandbox, recovers by its own log, and every table and index in every database
//! is looked through by PostgreSQL's own `pg_amcheck`.

use super::{SourceReport, Verdict, bin_dir, environment, millis};
use crate::{config::Config, restore::Opened};
use mainstay_domain::{Clock, Failure, Monitor, Result, point::State};
use mainstay_sources::postgres::{
    cluster::{ClusterFacts, restore},
    sandbox::{Sandbox, SandboxOptions},
    tools::{self, Purpose},
};
use std::{cell::Cell, path::Path};

/// Whoever reaches the sandbox's private socket is us.
const TRUST: &str = "local all all trust\n";

pub(super) fn prove(
    config: Option<&Config>,
    opened: &Opened<'_>,
    scratch: &Path,
    clock: &dyn Clock,
    monitor: &dyn Monitor,
) -> Result<SourceReport> {
    let facts = ClusterFacts::from_json(&opened.record.facts)?;
    let tools = tools::find(Purpose::Server, facts.major(), bin_dir(config, opened).as_deref())?;
    let options = SandboxOptions {
        parent: Some(scratch.to_owned()),
        hba: Some(TRUST.to_owned()),
        superuser: facts.superuser.clone(),
        ..SandboxOptions::new(tools)
    }
    // What is not installed here, or belongs to the original's place, must not keep it from starting.
    .setting("shared_preload_libraries", "")
    .setting("session_preload_libraries", "")
    .setting("local_preload_libraries", "")
    .setting("ssl", "off");

    let begun = clock.now();
    let failure: Cell<Option<Failure>> = Cell::new(None);
    let fill = |data: &Path| {
        restore_into(opened, &facts, data, monitor).map_err(|error| {
            let text = error.to_string();
            failure.set(Some(error));
            std::io::Error::other(text)
        })
    };
    let sandbox =
        Sandbox::start_on(&options, &fill).map_err(|error| failure.take().unwrap_or_else(|| error.into()))?;
    let restored_at = clock.now();
    let mut differences = Vec::new();
    let mut not_compared = Vec::new();
    compare_databases(&sandbox, &facts, &mut differences)?;
    let checked = amcheck(&sandbox, &facts)?;
    match checked {
        Checked::Clean => {}
        Checked::Damage(text) => differences.extend(text.lines().take(50).map(str::to_owned)),
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
        compared: format!(
            "recovered to {}; {} databases, every table and index by pg_amcheck",
            facts.stop,
            facts.databases.len()
        ),
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

fn restore_into(opened: &Opened<'_>, facts: &ClusterFacts, data: &Path, monitor: &dyn Monitor) -> Result<()> {
    let inside = |oid: u32| data.join("mainstay_tablespaces").join(oid.to_string());
    let options = restore::Options {
        tablespaces: facts.tablespaces.iter().map(|space| (space.oid, inside(space.oid))).collect(),
        sync: false,
        ..restore::Options::new(data.to_owned())
    };
    opened.restore_cluster(&options, monitor).map(drop)
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

/// Looks through everything, in every database. Its exit code is 2 for damage.
fn amcheck(sandbox: &Sandbox, facts: &ClusterFacts) -> Result<Checked> {
    let program = sandbox.tools().program("pg_amcheck");
    if !program.exists() {
        return Ok(Checked::Impossible(format!(
            "tables and indexes: {} is not installed",
            program.display()
        )));
    }
    let mut command = tools::command(&program, Some(&sandbox.spec("template1")));
    command.args(["--all", "--install-missing", "--jobs", "2"]);
    let output = command.output().map_err(|error| {
        Failure::preflight(format!("{} cannot be run", program.display())).caused_by(error)
    })?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).trim().to_owned();
    let of_extension =
        said.contains("could not open extension control file") || said.contains("is not available");
    Ok(match output.status.code() {
        Some(0) => Checked::Clean,
        _ if of_extension => Checked::Impossible(format!(
            "tables and indexes: the extension amcheck of PostgreSQL {} is not installed (postgresql-contrib)",
            facts.major()
        )),
        Some(2) => Checked::Damage(said),
        _ => Checked::Impossible(format!("tables and indexes: pg_amcheck could not look: {said}")),
    })
}
