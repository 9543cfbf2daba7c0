//! The server's own programs: where they are, whether they fit a server, and how they are run.
//!
//! Dumping schemas, roles and large objects is left to the `pg_dump` that belongs to the server. It must be as new as the
//! server: an older one refuses, and would not know the newer objects. Children get their connection through the
//! environment, with everything else that begins with PG cleared; nothing secret is ever an argument.

use super::wire::ConnectSpec;
use mainstay_domain::Failure;
use std::{
    collections::BTreeSet,
    fmt,
    io::{self, Read},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

/// Where PostgreSQL's programs of one major version are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tools {
    pub bin_dir: PathBuf,
    pub major: u32,
    /// As `--version` says it: `pg_dump (PostgreSQL) 15.14`.
    pub version: String,
}

/// Which programs are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// `pg_dump`, `pg_dumpall`.
    Dump,
    /// `pg_restore`.
    Restore,
    /// `initdb`, `postgres`: a whole server.
    Server,
}

impl Purpose {
    fn programs(self) -> &'static [&'static str] {
        match self {
            Purpose::Dump => &["pg_dump", "pg_dumpall"],
            Purpose::Restore => &["pg_restore"],
            Purpose::Server => &["postgres", "initdb"],
        }
    }

    fn package(self, major: u32) -> String {
        match self {
            Purpose::Dump | Purpose::Restore => format!("postgresql-client-{major}"),
            Purpose::Server => format!("postgresql-{major}"),
        }
    }
}

impl Tools {
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin_dir.join(name)
    }

    /// The programs in `bin_dir`; `None` if one of those wanted is missing there.
    pub fn at(bin_dir: &Path, purpose: Purpose) -> Option<Tools> {
        if !purpose.programs().iter().all(|name| bin_dir.join(name).is_file()) {
            return None;
        }
        let first = purpose.programs().first()?;
        let output = Command::new(bin_dir.join(first)).arg("--version").stdin(Stdio::null()).output().ok()?;
        let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let major = version
            .split(|c: char| !c.is_ascii_digit())
            .find(|digits| !digits.is_empty())
            .and_then(|digits| digits.parse().ok())?;
        Some(Tools { bin_dir: bin_dir.to_owned(), major, version })
    }
}

/// Where to look, besides what is configured: the search path, and the places that distributions use.
fn places(path: Option<&std::ffi::OsStr>, trees: Option<&Path>) -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> = path.map(|path| std::env::split_paths(path).collect()).unwrap_or_default();
    let roots = [
        (trees.map(Path::to_owned), ""),
        (Some("/usr/lib/postgresql".into()), ""),
        (Some("/usr".into()), "pgsql-"),
        (Some("/usr/local".into()), "pgsql-"),
        (Some("/opt".into()), "postgresql"),
        (Some("/opt/homebrew/opt".into()), "postgresql@"),
        (Some("/usr/local/opt".into()), "postgresql@"),
        (Some("/Library/PostgreSQL".into()), ""),
    ];
    for (root, prefix) in roots {
        let Some(entries) = root.and_then(|root| std::fs::read_dir(root).ok()) else { continue };
        let found: BTreeSet<PathBuf> = entries
            .filter_map(Result::ok)
            .filter(|e| e.file_name().to_str().is_some_and(|name| name.starts_with(prefix)))
            .map(|e| e.path().join("bin"))
            .filter(|bin| bin.is_dir())
            .collect();
        places.extend(found);
    }
    places
}

/// Every installation that has the programs for `purpose`. `bin_dir`, where configured, is the only place looked at; it
/// may also be the directory above several `<major>/bin`. `MAINSTAY_PG_TREES` names such a directory too.
pub fn installed(purpose: Purpose, bin_dir: Option<&Path>) -> Vec<Tools> {
    let places = match bin_dir {
        Some(dir) if dir.join(purpose.programs()[0]).is_file() => vec![dir.to_owned()],
        Some(dir) => places(None, Some(dir)).into_iter().filter(|place| place.starts_with(dir)).collect(),
        None => {
            let trees = std::env::var_os("MAINSTAY_PG_TREES").map(PathBuf::from);
            places(std::env::var_os("PATH").as_deref(), trees.as_deref())
        }
    };
    let mut found: Vec<Tools> = Vec::new();
    for place in places {
        // Where the programs themselves are: a search path has links to them. Debian's /usr/bin/pg_dump is a wrapper that
        // chooses a version for itself, and so of no use here.
        let name = purpose.programs()[0];
        let Ok(program) = place.join(name).canonicalize() else { continue };
        let (Some(place), true) = (program.parent().map(Path::to_owned), program.ends_with(name)) else {
            continue;
        };
        if found.iter().any(|t| t.bin_dir == place) {
            continue;
        }
        found.extend(Tools::at(&place, purpose));
    }
    found
}

/// The programs to use with a server of this major version: the same version if there is one, else the next newer.
/// Servers in throw-away clusters ([`Purpose::Server`]) must be of the very version.
///
/// # Errors
/// `Preflight`, naming what to install.
pub fn find(purpose: Purpose, major: u32, bin_dir: Option<&Path>) -> Result<Tools, Failure> {
    choose(purpose, major, installed(purpose, bin_dir)).map_err(|failure| match bin_dir {
        Some(dir) => failure.during(format_args!("looking in {}", dir.display())),
        None => failure,
    })
}

fn choose(purpose: Purpose, major: u32, found: Vec<Tools>) -> Result<Tools, Failure> {
    let newest = found.iter().map(|t| t.major).max();
    let fits = |t: &Tools| t.major == major || (t.major > major && purpose != Purpose::Server);
    if let Some(tools) = found.into_iter().filter(fits).min_by_key(|t| t.major) {
        return Ok(tools);
    }
    let wanted = purpose.programs()[0];
    let message = match newest {
        Some(other) => {
            format!("{wanted} of PostgreSQL {major} is needed and the newest one here is of version {other}")
        }
        None => format!("{wanted} of PostgreSQL {major} is needed and not installed"),
    };
    Err(Failure::preflight(message).hint(format!(
        "Install it (Debian, Ubuntu: apt-get install {}), or name its directory as bin_dir.",
        purpose.package(major)
    )))
}

/// At most this much of what a child writes to standard error is kept, in bytes: the start and the end of it.
const STDERR_KEPT: usize = 16 << 10;

/// A child whose standard output is read as it comes. Killed when dropped.
pub struct Running {
    child: Child,
    name: String,
    stderr: Option<JoinHandle<Vec<u8>>>,
    killer: Killer,
}

/// Kills a child from another thread.
#[derive(Clone)]
pub struct Killer(Arc<Mutex<Option<rustix::process::Pid>>>);

impl Killer {
    /// Ends the child, if it still runs.
    pub fn kill(&self) {
        let pid = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pid) = pid {
            // It may have ended just now: then there is nothing to do.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }

    /// The child was waited for: its number may belong to another process from now on.
    fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl fmt::Debug for Killer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Killer")
    }
}

/// A command with a clean environment: nothing that begins with PG but what `spec` says, messages in English.
pub fn command(program: &Path, spec: Option<&ConnectSpec>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("PG")) {
            command.env_remove(&name);
        }
    }
    command.env("LC_MESSAGES", "C").env_remove("LC_ALL").env_remove("LANGUAGE");
    if let Some(spec) = spec {
        command.envs(spec.child_environment());
    }
    command
}

/// Starts a child with its standard output piped to us. `stdin` is closed unless `command` says otherwise beforehand.
pub fn start(mut command: Command) -> Result<Running, Failure> {
    let name = Path::new(command.get_program())
        .file_name()
        .map_or_else(|| "child".to_owned(), |name| name.to_string_lossy().into_owned());
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| Failure::failed(format!("{name} cannot be started")).caused_by(e))?;
    let stderr = child.stderr.take().map(|pipe| std::thread::spawn(move || keep_ends(pipe)));
    let killer = Killer(Arc::new(Mutex::new(Some(rustix::process::Pid::from_child(&child)))));
    Ok(Running { child, name, stderr, killer })
}

impl Running {
    /// What the child writes to standard output. It must be read to its end before [`Running::finish`].
    ///
    /// # Panics
    /// If taken twice.
    pub fn stdout(&mut self) -> ChildStdout {
        self.child.stdout.take().expect("standard output is taken once")
    }

    pub fn killer(&self) -> Killer {
        self.killer.clone()
    }

    /// Waits for the child's end, and makes a failure of any status but 0. Returns what it wrote to standard error.
    pub fn finish(mut self) -> Result<String, Failure> {
        let status = self
            .wait()
            .map_err(|e| Failure::failed(format!("{} cannot be waited for", self.name)).caused_by(e))?;
        let said = self.stderr.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        let said = String::from_utf8_lossy(&said).trim().to_owned();
        if status.success() {
            return Ok(said);
        }
        let how = match status.code() {
            Some(code) => format!("ended with status {code}"),
            None => "was killed".to_owned(),
        };
        let first = if said.is_empty() { "it said nothing".to_owned() } else { said };
        Err(Failure::failed(format!("{} {how}: {first}", self.name)))
    }

    fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait();
        self.killer.forget();
        status
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.stderr.is_some() {
            let _ = self.child.kill();
            let _ = self.wait();
        }
    }
}

/// How often a child that runs is looked after.
const LOOK: Duration = Duration::from_millis(100);

/// Runs a child to its end; of what it says on both its outputs, the beginning and the end are kept. When `stop` says so it is
/// killed, and there is no status.
pub fn run_until(
    command: Command,
    stop: &(dyn Fn() -> bool + Sync),
) -> Result<(Option<ExitStatus>, String), Failure> {
    let mut running = start(command)?;
    let (stdout, killer) = (running.stdout(), running.killer());
    let stopped = AtomicBool::new(false);
    let mut said = std::thread::scope(|scope| {
        let (ended, watched) = mpsc::channel::<()>();
        let stopped = &stopped;
        scope.spawn(move || {
            while let Err(mpsc::RecvTimeoutError::Timeout) = watched.recv_timeout(LOOK) {
                if stop() {
                    stopped.store(true, Ordering::Relaxed);
                    return killer.kill();
                }
            }
        });
        let said = keep_ends(stdout);
        drop(ended);
        said
    });
    let status = running
        .wait()
        .map_err(|e| Failure::failed(format!("{} cannot be waited for", running.name)).caused_by(e))?;
    said.extend(running.stderr.take().and_then(|thread| thread.join().ok()).unwrap_or_default());
    let status = (!stopped.load(Ordering::Relaxed)).then_some(status);
    Ok((status, String::from_utf8_lossy(&said).trim().to_owned()))
}

/// Reads to the end; of much, keeps the first and the last half of [`STDERR_KEPT`].
fn keep_ends(mut pipe: impl Read) -> Vec<u8> {
    let (mut kept, mut tail, mut lost) = (Vec::new(), Vec::new(), 0_usize);
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = pipe.read(&mut buffer) {
        let (head, rest) = buffer[..n].split_at(n.min(STDERR_KEPT / 2 - kept.len()));
        kept.extend_from_slice(head);
        tail.extend_from_slice(rest);
        let surplus = tail.len().saturating_sub(STDERR_KEPT / 2);
        lost += surplus;
        tail.drain(..surplus);
    }
    if lost > 0 {
        kept.extend(format!("\n… {lost} bytes left out …\n").into_bytes());
    }
    kept.extend(tail);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tools(major: u32) -> Tools {
        Tools { bin_dir: format!("/pg/{major}").into(), major, version: String::new() }
    }

    #[test]
    fn the_same_version_is_preferred_and_an_older_one_refused() {
        let pick = |purpose, major, found: &[u32]| {
            choose(purpose, major, found.iter().map(|m| tools(*m)).collect()).map(|t| t.major)
        };
        assert_eq!(pick(Purpose::Dump, 15, &[14, 18, 15]).unwrap(), 15);
        assert_eq!(pick(Purpose::Dump, 15, &[14, 18, 17]).unwrap(), 17);
        let error = pick(Purpose::Dump, 17, &[14, 15]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "pg_dump of PostgreSQL 17 is needed and the newest one here is of version 15"
        );
        assert!(error.hint.unwrap().contains("apt-get install postgresql-client-17"));
        assert!(pick(Purpose::Dump, 17, &[]).is_err());
        assert!(pick(Purpose::Server, 15, &[16]).is_err());
    }

    #[test]
    fn a_child_that_is_stopped_has_no_status_and_one_that_ends_has_its_own() {
        let shell = |script: &str| {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", script]);
            command
        };
        let (status, said) = run_until(shell("echo out; echo err >&2; exit 2"), &|| false).unwrap();
        assert_eq!((status.and_then(|s| s.code()), said.as_str()), (Some(2), "out\nerr"));
        let (status, _) = run_until(shell("exec sleep 1000"), &|| true).unwrap();
        assert_eq!(status, None);
    }

    #[test]
    fn of_a_flood_on_standard_error_both_ends_are_kept() {
        let text: String = (0..100_000).map(|n| format!("{n}\n")).collect();
        let kept = String::from_utf8(keep_ends(text.as_bytes())).unwrap();
        assert!(kept.len() < STDERR_KEPT + 100);
        assert!(kept.starts_with("0\n1\n") && kept.ends_with("99999\n") && kept.contains("left out"));
    }
}
