//! `mainstay restore --start --mask`: a whole server as a staging copy, masked before anybody can connect to it.
//!
//! It recovers on a socket in a folder that nobody else can enter; there every database that has a table of the mask is masked; the log that
//! held the old rows is given up; and only then is it started where it is to be. Whatever goes wrong before that, or the user stopping it: the
//! server is stopped, and loses its control file. A process that is killed can do neither; for that the directory is closed from before
//! its control file comes until it is masked ([`open_up`]), and nobody starts by mistake what is masked by halves.

use super::start::Starter;
use crate::scratch_folder::ScratchFolder;
use mainstay_domain::{Failure, Kind, Monitor, Result};
use mainstay_sources::postgres::{
    cluster::{
        ClusterFacts,
        restore::{Action, Options, Recovery, Target, open_up},
        start::{self, Started},
    },
    mask::{self, Mask, Masked},
    wire::{ConnectSpec, Connection},
};
use serde::Serialize;
use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::Path,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

/// What was masked in a database.
#[derive(Debug, Clone, Serialize)]
pub struct InDatabase {
    pub database: String,
    pub tables: Vec<Masked>,
}

/// Makes sure that the recovery is one that a mask can follow.
///
/// # Errors
/// `Usage`: the server would not take writes.
pub fn refuse_unmaskable(recovery: &Recovery) -> Result<()> {
    let takes_writes = recovery.target == Target::Latest || recovery.action == Action::Promote;
    match takes_writes && !recovery.standby {
        true => Ok(()),
        false => Err(Failure::usage("only a server that takes writes can be masked")
            .hint("Leave --standby and --action out.")),
    }
}

impl Starter {
    /// Starts what was restored with these options as a masked copy.
    ///
    /// # Errors
    /// Whatever the error: no server runs, and what was restored cannot be started.
    pub fn start_masked(
        &self,
        options: &Options,
        facts: &ClusterFacts,
        mask: &Mask,
        monitor: &dyn Monitor,
    ) -> Result<(Started, Vec<InDatabase>)> {
        let data = &options.destination;
        let masked = self
            .mask(options, facts, mask, monitor)
            .and_then(|masked| open_up(data).map(|()| masked))
            .map_err(|failure| close(data, failure))?;
        Ok((self.start(options, monitor)?, masked))
    }

    fn mask(
        &self,
        options: &Options,
        facts: &ClusterFacts,
        mask: &Mask,
        monitor: &dyn Monitor,
    ) -> Result<Vec<InDatabase>> {
        let recovery = options.recovery.as_ref();
        let recovery =
            recovery.ok_or_else(|| Failure::usage("a cluster without instructions is not started"))?;
        refuse_unmaskable(recovery)?;
        let data = &options.destination;
        let scratch = ScratchFolder::for_recovery(monitor)?;
        let folder = scratch.path().join("s");
        private_folder(&folder, data).map_err(|error| {
            Failure::preflight(format!("{} cannot be made", folder.display())).caused_by(error)
        })?;
        let started = start::start_privately(&self.tools, data, &folder, recovery, monitor);
        let masked = started.and_then(|started| {
            let spec = ConnectSpec::socket(&folder, started.port, &facts.superuser, "template1");
            monitor.step("mask", None);
            let masked = interruptibly(&spec, monitor, || in_all(&spec, mask, monitor))?;
            forget_log(&spec)?;
            monitor.done("mask", "");
            Ok(masked)
        });
        // It may run although it was not waited for to the end.
        let runs = data.join("postmaster.pid").exists();
        let stopped = if runs { start::stop(&self.tools, data) } else { Ok(()) };
        let masked = masked?;
        stopped?;
        scratch.close()?;
        Ok(masked)
    }
}

/// How long masking may take.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// Between two looks whether the user wants to stop.
const LOOK: Duration = Duration::from_millis(200);

/// Works on a server that is ours alone, for as long as it may take and the user wants it to: then all that works on it is ended there, however
/// long its statement would still take.
pub(crate) fn interruptibly<T>(
    spec: &ConnectSpec,
    monitor: &dyn Monitor,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let (done, is_done) = mpsc::channel::<()>();
    let late = AtomicBool::new(false);
    let begun = Instant::now();
    let worked = thread::scope(|scope| {
        let late = &late;
        scope.spawn(move || {
            // Ends when the other end is dropped.
            while let Err(mpsc::RecvTimeoutError::Timeout) = is_done.recv_timeout(LOOK) {
                late.fetch_or(begun.elapsed() > LONGEST, Ordering::Relaxed);
                if monitor.cancelled() || late.load(Ordering::Relaxed) {
                    end_all_sessions(spec);
                }
            }
        });
        let worked = work();
        drop(done);
        worked
    });
    match worked {
        Err(failure) if monitor.cancelled() => {
            Err(Failure::new(Kind::Cancelled, "the masking was stopped").caused_by(failure))
        }
        Err(failure) if late.into_inner() => {
            Err(Failure::failed("the masking did not come to its end within a day").caused_by(failure))
        }
        worked => worked,
    }
}

/// Best effort: it is tried again until nobody works on it.
fn end_all_sessions(spec: &ConnectSpec) {
    let sql = "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
                WHERE backend_type = 'client backend' AND pid <> pg_catalog.pg_backend_pid()";
    if let Ok(mut connection) = Connection::connect(spec) {
        let _ = connection.query(sql);
    }
}

/// Masks every database that has a table of the mask.
fn in_all(spec: &ConnectSpec, mask: &Mask, monitor: &dyn Monitor) -> Result<Vec<InDatabase>> {
    let mut connection = Connection::connect(spec)?;
    let rows =
        connection.query("SELECT datname, datallowconn FROM pg_catalog.pg_database ORDER BY datname")?;
    drop(connection);
    let (mut found, mut masked) = (Vec::new(), Vec::new());
    for row in &rows {
        let database = row.text(0);
        if !row.bool(1) {
            if database == "template0" {
                continue;
            }
            return Err(Failure::new(
                Kind::Refused,
                format!("the database {database} lets nobody in, so it cannot be masked"),
            )
            .hint("Let connections to it be made in the original, or make the copy from a source of kind postgres."));
        }
        if monitor.cancelled() {
            return Err(Failure::new(Kind::Cancelled, "the masking was stopped"));
        }
        let spec = spec.with_database(&database);
        let here = mask.found_in(&spec)?;
        if let Some(mask) = mask.only(&here) {
            let tables =
                mask::apply(&spec, &mask).map_err(|failure| failure.during(format!("masking {database}")))?;
            masked.push(InDatabase { database, tables });
        }
        found.extend(here);
    }
    mask.refuse_missing(&found)?;
    Ok(masked)
}

/// What the log held of the old rows goes with the next checkpoint after a switch.
fn forget_log(spec: &ConnectSpec) -> Result<()> {
    let mut connection = Connection::connect(spec)?;
    for _ in 0..2 {
        connection.query("SELECT pg_catalog.pg_switch_wal()")?;
        connection.execute("CHECKPOINT")?;
    }
    Ok(())
}

/// A folder that only the server's user can enter, which is the owner of the data directory.
fn private_folder(folder: &Path, data: &Path) -> std::io::Result<()> {
    let owner = fs::metadata(data)?;
    fs::create_dir(folder)?;
    fs::set_permissions(folder, Permissions::from_mode(0o700))?;
    match rustix::process::geteuid().is_root() {
        true => chown(folder, Some(owner.uid()), Some(owner.gid())),
        false => Ok(()),
    }
}

/// Leaves nothing that somebody could start, and says so.
fn close(data: &Path, failure: Failure) -> Failure {
    let hint = match fs::remove_file(data.join("global/pg_control")) {
        Ok(()) => "It has no control file any more, so that nobody starts it.",
        Err(_) => "Do not start it.",
    };
    let text = format!("what was restored into {} is not masked, and no server runs on it", data.display());
    failure.during(text).hint(format!("{hint} Remove the directory, put the mask right, and restore again."))
}
