//! Starts a server on a restored data directory, and leaves it running when it is where its recovery was to end.
//!
//! PostgreSQL's own `pg_ctl` starts it, as the directory's owner where we are root: the server refuses to run as root. Whether
//! it lives is read from its lock file, and how far it has come from its log: neither needs a password, whatever the restored
//! `pg_hba.conf` says.

use super::restore::{Action, Recovery, Target, free_beside};
use crate::postgres::{
    postmaster,
    tools::{self, Tools},
};
use mainstay_domain::{Failure, Kind, Monitor, Result};
use rustix::process::geteuid;
use serde::Serialize;
use std::{
    ffi::OsString,
    fs,
    net::TcpListener,
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, OpenOptionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

/// How long the server may take for its recovery: replay is as long as the log is.
const RECOVERY: Duration = Duration::from_secs(24 * 3600);
/// How long until it has at least its lock file.
const FIRST_SIGN: Duration = Duration::from_secs(60);
/// Only a part of the name of a socket in a folder of its own.
const PRIVATE_PORT: u16 = 5432;
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// Lines of the server's log that a failure shows.
const SHOWN: usize = 12;
/// Bytes of the log that are looked through for them.
const TAIL: usize = 16 << 10;

/// Where the recovery of a started server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Reached {
    /// It takes writes.
    Promoted,
    /// It answers queries, and waits to be told how to go on.
    Paused,
    /// It stopped at its target.
    Stopped,
    /// It follows its archive.
    Standby,
}

/// A server that was started.
#[derive(Debug, Clone, Serialize)]
pub struct Started {
    pub reached: Reached,
    pub port: u16,
    /// Where its Unix socket is.
    pub socket_directory: Option<PathBuf>,
    /// The first of the addresses that it listens at.
    pub address: Option<String>,
    /// What it says from its start on.
    pub log: PathBuf,
    /// The user that it runs as.
    pub uid: u32,
}

/// Makes sure that nobody has the port, before hours of restoring.
///
/// # Errors
/// `Preflight`: it is taken.
pub fn refuse_taken(port: u16) -> Result<()> {
    match TcpListener::bind(("127.0.0.1", port)) {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::preflight(format!("port {port} cannot be used for the restored server"))
            .hint("Name another one with --port.")
            .caused_by(error)),
    }
}

/// Where this recovery is to end.
fn aim(recovery: &Recovery) -> Reached {
    match (recovery.standby, &recovery.target, recovery.action) {
        (true, ..) => Reached::Standby,
        // Without a target there is nothing to stop at.
        (_, Target::Latest, _) | (_, _, Action::Promote) => Reached::Promoted,
        (_, _, Action::Pause) => Reached::Paused,
        (_, _, Action::Shutdown) => Reached::Stopped,
    }
}

/// Starts the server on `data`, and waits until its recovery is where it was to end.
///
/// # Errors
/// `Failed`, with what the server said: it did not start, or ended before that. `Cancelled`: the wait was stopped; the server goes on.
pub fn start(
    tools: &Tools,
    data: &Path,
    port: u16,
    recovery: &Recovery,
    monitor: &dyn Monitor,
) -> Result<Started> {
    start_for(tools, data, port, recovery, None, monitor)
}

/// The same for us alone: it listens on a socket in `folder`, which nobody else can enter, and trusts whoever gets there.
pub fn start_privately(
    tools: &Tools,
    data: &Path,
    folder: &Path,
    recovery: &Recovery,
    monitor: &dyn Monitor,
) -> Result<Started> {
    start_for(tools, data, PRIVATE_PORT, recovery, Some(folder), monitor)
}

/// Stops a server that was started here, and waits until it has stopped.
pub fn stop(tools: &Tools, data: &Path) -> Result<()> {
    let failed = |why: String| {
        Failure::failed(format!("the server on {} could not be stopped: {why}", data.display()))
    };
    let owner = fs::metadata(data).map_err(|error| failed(error.to_string()))?;
    let mut command = tools::command(&tools.program("pg_ctl"), None);
    command.args(["-s", "-w", "-t", "3600", "-m", "fast", "-D"]).arg(data).arg("stop");
    if geteuid().is_root() {
        command.uid(owner.uid()).gid(owner.gid());
    }
    let output =
        command.current_dir("/").stdin(Stdio::null()).output().map_err(|error| failed(error.to_string()))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

fn start_for(
    tools: &Tools,
    data: &Path,
    port: u16,
    recovery: &Recovery,
    privately: Option<&Path>,
    monitor: &dyn Monitor,
) -> Result<Started> {
    let owner = fs::metadata(data).map_err(|error| {
        Failure::failed(format!("{} cannot be looked at", data.display())).caused_by(error)
    })?;
    if owner.uid() == 0 {
        return Err(Failure::preflight(format!(
            "{} belongs to root, as whom no server runs",
            data.display()
        ))
        .hint("Give it to the user that shall run the server (chown -R), and start it as that user."));
    }
    let log = free_beside(data, "server.log");
    make_log(&log, owner.uid(), owner.gid())?;
    let aim = aim(recovery);
    monitor.step("recovery", None);
    launch(tools, data, port, aim, &log, privately, (owner.uid(), owner.gid()))?;
    let server = Waiting { data, log: &log, begun: Instant::now() };
    server.wait(aim, monitor)?;
    monitor.done("recovery", "");
    let place = postmaster::read(data);
    Ok(Started {
        reached: aim,
        port,
        socket_directory: place.as_ref().and_then(|place| place.socket_directory.clone()),
        address: place.and_then(|place| place.address),
        log,
        uid: owner.uid(),
    })
}

/// The server opens its log as its own user, who may not be allowed to make a file there.
fn make_log(log: &Path, uid: u32, gid: u32) -> Result<()> {
    let made = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(log);
    let given =
        made.and_then(|_| if geteuid().is_root() { chown(log, Some(uid), Some(gid)) } else { Ok(()) });
    given.map_err(|error| Failure::failed(format!("{} cannot be made", log.display())).caused_by(error))
}

#[allow(clippy::too_many_arguments)] // each becomes a setting
fn launch(
    tools: &Tools,
    data: &Path,
    port: u16,
    aim: Reached,
    log: &Path,
    privately: Option<&Path>,
    (uid, gid): (u32, u32),
) -> Result<()> {
    let mut settings: Vec<(&str, OsString)> = vec![
        ("port", port.to_string().into()),
        // A configuration that was brought may name those of its original, and would win over -D.
        ("data_directory", data.into()),
        ("external_pid_file", OsString::new()),
        // What it says goes to the log that we can show, in words that we know.
        ("logging_collector", "off".into()),
        ("log_destination", "stderr".into()),
        ("lc_messages", "C".into()),
        ("log_min_messages", "warning".into()),
    ];
    if matches!(aim, Reached::Paused | Reached::Standby) {
        settings.push(("hot_standby", "on".into())); // else it would stop, or say nothing of itself
    }
    if let Some(folder) = privately {
        let hba = folder.join("pg_hba.conf");
        let written = fs::write(&hba, "local all all trust\n");
        let given = written
            .and_then(|()| if geteuid().is_root() { chown(&hba, Some(uid), Some(gid)) } else { Ok(()) });
        given.map_err(|error| {
            Failure::failed(format!("{} cannot be written", hba.display())).caused_by(error)
        })?;
        settings.extend([
            ("listen_addresses", OsString::new()),
            ("unix_socket_directories", folder.into()),
            ("unix_socket_permissions", "0700".into()),
            ("hba_file", hba.into()),
            // Log that is not needed any more goes, instead of waiting under another name with what it held.
            ("wal_recycle", "off".into()),
            ("wal_keep_size", "0".into()),
        ]);
    }
    let mut options = OsString::new();
    for (name, value) in settings {
        options.push(format!(" -c {name}="));
        options.push(shell_word(&value));
    }
    let mut command = tools::command(&tools.program("pg_ctl"), None);
    command.args(["-W", "-s", "-D"]).arg(data).arg("-l").arg(log).arg("-o").arg(options).arg("start");
    if geteuid().is_root() {
        command.uid(uid).gid(gid);
    }
    let unstarted = |error| Failure::failed("pg_ctl cannot be run").caused_by(error);
    // A directory that its user can enter: ours may be closed to it.
    let output = command.current_dir("/").stdin(Stdio::null()).output().map_err(unstarted)?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said).trim().to_owned();
            Err(Failure::failed(format!("the restored server in {} did not start: {said}", data.display()))
                .hint("The files are in place. Put right what keeps it, and start it by hand."))
        }
    }
}

/// One word for the shell that pg_ctl starts the server by.
fn shell_word(word: &OsString) -> OsString {
    let mut quoted = b"'".to_vec();
    for byte in word.as_bytes() {
        match byte {
            b'\'' => quoted.extend_from_slice(b"'\\''"),
            byte => quoted.push(*byte),
        }
    }
    quoted.push(b'\'');
    std::os::unix::ffi::OsStringExt::from_vec(quoted)
}

/// What the server says when it is there (PostgreSQL 14 to 18; its lock file has the same word for a server that takes writes and
/// for one in the middle of its recovery).
fn sign_of(reached: Reached) -> &'static str {
    match reached {
        Reached::Promoted => "database system is ready to accept connections",
        Reached::Paused => "pausing at the end of recovery",
        Reached::Stopped => "shutdown at recovery target",
        Reached::Standby => "database system is ready to accept read-only connections",
    }
}

struct Waiting<'a> {
    data: &'a Path,
    log: &'a Path,
    begun: Instant,
}

impl Waiting<'_> {
    fn wait(&self, aim: Reached, monitor: &dyn Monitor) -> Result<()> {
        let mut seen = false;
        loop {
            let found = postmaster::read(self.data);
            let runs = found.as_ref().is_some_and(|found| postmaster::is_alive(found.pid));
            let reached = self.says(sign_of(aim));
            // One that was to stop has stopped when its lock file is gone, too.
            if reached && runs != (aim == Reached::Stopped) {
                return Ok(());
            }
            // Nobody can connect yet, whose mistakes would be FATAL too.
            let never = !seen && !runs && (self.says("FATAL:") || self.begun.elapsed() > FIRST_SIGN);
            if never || (seen && !runs) {
                // It may have said so between the two looks.
                return match aim == Reached::Stopped && self.says(sign_of(aim)) {
                    true => Ok(()),
                    false => Err(self.ended()),
                };
            }
            seen |= runs;
            if monitor.cancelled() {
                return Err(Failure::new(Kind::Cancelled, "the wait for the recovery was stopped").hint(
                    format!(
                        "The server goes on: look at {}; to stop it, pg_ctl -D {} stop.",
                        self.log.display(),
                        self.data.display()
                    ),
                ));
            }
            if self.begun.elapsed() > RECOVERY {
                return Err(Failure::failed("the recovery did not come to its end within a day")
                    .hint(format!("The server goes on: look at {}.", self.log.display())));
            }
            std::thread::park_timeout(LOOK); // between two looks
        }
    }

    fn says(&self, what: &str) -> bool {
        fs::read(self.log).is_ok_and(|said| String::from_utf8_lossy(&said).contains(what))
    }

    fn ended(&self) -> Failure {
        let said = fs::read(self.log).unwrap_or_default();
        let tail = String::from_utf8_lossy(&said[said.len().saturating_sub(TAIL)..]).into_owned();
        let lines: Vec<&str> = tail.lines().collect();
        let last = lines[lines.len().saturating_sub(SHOWN)..].join("\n  ");
        Failure::failed(format!(
            "the restored server in {} ended before its recovery was where it should end; it said:\n  {last}",
            self.data.display()
        ))
        .hint(format!("The files are in place, and all that it said is in {}.", self.log.display()))
    }
}
