//! A throw-away server: for restore tests, for turning one form of a capture into another, and for the tests of this project.
//!
//! It listens on a Unix socket in a private directory and nowhere else, keeps nothing (no snapshots, no append-only file), and is
//! gone when it is dropped, or when this process dies: a shell watches a pipe that only we hold.

use super::{address::Address, client::Client, error::RedisError};
use mainstay_domain::{Failure, Result};
use std::{
    fs,
    io::{self, Read, Seek, SeekFrom},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    time::{Duration, Instant},
};

const PROGRAMS: [&str; 2] = ["redis-server", "valkey-server"];
const PLACES: [&str; 4] = ["/usr/bin", "/usr/local/bin", "/opt/redis/bin", "/opt/valkey/bin"];
/// How long it may take until it answers; how long it then loads is its own affair.
const DEADLINE: Duration = Duration::from_secs(30);

/// Runs the server in the background and ends it when standard input closes; then removes what is left.
const WATCH: &str = r#"
home=$1; shift
"$@" </dev/null >"$home/log" 2>&1 &
server=$!
read -r _
kill -KILL $server 2>/dev/null
wait $server
rm -rf "$home" 2>/dev/null
exit 0
"#;

/// The server's program: what the configuration names, or the first that is installed.
///
/// # Errors
/// `Preflight` if there is none: that says something of this machine, and nothing of what was captured.
pub fn program(configured: Option<&Path>) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = match configured {
        Some(program) => Some(program.to_owned()).filter(|program| program.is_file()),
        None => std::env::split_paths(&path)
            .chain(PLACES.iter().map(PathBuf::from))
            .flat_map(|folder| PROGRAMS.map(|name| folder.join(name)))
            .find(|program| program.is_file()),
    };
    found.ok_or_else(|| {
        let what = configured.map_or_else(
            || "no redis-server and no valkey-server is installed".to_owned(),
            |program| format!("{} is not there", program.display()),
        );
        Failure::preflight(what)
            .hint("Install one (apt-get install redis-server); it need not run as a service.")
    })
}

/// Redis since 6.2, and Valkey: `Redis server v=7.0.15 sha=…`.
fn knows_sanitizing(program: &Path) -> bool {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let numbers =
        text.split("v=").nth(1).map(|rest| rest.split(['.', ' ']).map_while(|part| part.parse().ok()));
    numbers.is_some_and(|numbers| numbers.collect::<Vec<u32>>() >= vec![6, 2])
}

/// A running server.
#[derive(Debug)]
pub struct Sandbox {
    /// Holds the data, the socket and the log; removed on drop.
    home: tempfile::TempDir,
    /// What it says of its version.
    pub version: String,
    watcher: Child,
    /// While this is open, the server runs.
    leash: Option<ChildStdin>,
}

impl Sandbox {
    /// Starts a server, and waits until it has loaded the RDB file that `fill` wrote to the path that it is given (an empty
    /// server, if it wrote none).
    pub fn start_on(program: &Path, fill: &mut dyn FnMut(&Path) -> Result<()>) -> Result<Sandbox> {
        Sandbox::start_with(program, &[], fill)
    }

    /// The same with further settings, which win over our own.
    pub fn start_with(
        program: &Path,
        settings: &[(&str, &str)],
        fill: &mut dyn FnMut(&Path) -> Result<()>,
    ) -> Result<Sandbox> {
        let unprepared = |error: io::Error| {
            Failure::preflight("a throw-away Redis could not be prepared").caused_by(error)
        };
        let home = tempfile::Builder::new().prefix("msr").tempdir_in(short_place()).map_err(unprepared)?;
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o700)).map_err(unprepared)?;
        fill(&home.path().join(super::restore::DUMP))?;

        let mut command = Command::new("/bin/sh");
        command.args(["-c", WATCH, "mainstay-sandbox"]).arg(home.path()).arg(program);
        let socket = home.path().join("socket");
        let home_text = home.path().to_string_lossy();
        let fixed = [
            ("port", "0"),
            ("unixsocket", &socket.to_string_lossy()),
            ("unixsocketperm", "700"),
            ("dir", &home_text),
            ("dbfilename", super::restore::DUMP),
            ("save", ""),
            ("appendonly", "no"),
            ("databases", "10000"),
            ("daemonize", "no"),
            ("maxmemory-policy", "noeviction"),
        ];
        for (name, value) in fixed.iter().chain(settings) {
            command.arg(format!("--{name}")).arg(value);
        }
        if knows_sanitizing(program) {
            // What a value says of itself is looked at before it is believed.
            command.args(["--sanitize-dump-payload", "yes"]);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir(home.path());
        // A group of its own: Ctrl-C in the terminal is for us, and we end the server in order.
        command.process_group(0).env_clear().env("LC_ALL", "C").env("TZ", "UTC");
        let mut watcher = command.spawn().map_err(unprepared)?;
        let leash = watcher.stdin.take();
        let mut sandbox = Sandbox { home, version: String::new(), watcher, leash };
        sandbox.version = sandbox.await_ready()?;
        Ok(sandbox)
    }

    pub fn address(&self) -> Address {
        Address::socket(&self.socket())
    }

    pub fn connect(&self) -> Result<Client, RedisError> {
        Client::connect(&self.address())
    }

    pub fn socket(&self) -> PathBuf {
        self.home.path().join("socket")
    }

    /// Where it keeps its files.
    pub fn directory(&self) -> &Path {
        self.home.path()
    }

    /// The end of the server's log, for a message.
    pub fn log_tail(&self) -> String {
        let read = || -> io::Result<String> {
            let mut file = fs::File::open(self.home.path().join("log"))?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(2048)))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        read().unwrap_or_default()
    }

    /// Waits until it has loaded, and returns its version.
    fn await_ready(&mut self) -> Result<String> {
        let started = Instant::now();
        let mut loads = false;
        loop {
            let log = self.log_tail();
            if let Some(failure) = gave_up(&log) {
                return Err(failure);
            }
            if let Ok(mut client) = self.connect()
                && let Ok(info) = super::info::Info::ask(&mut client)
            {
                if !info.is_loading() {
                    return Ok(info.server().version);
                }
                loads = true;
            }
            let ended = matches!(self.watcher.try_wait(), Ok(Some(_)) | Err(_));
            if ended || (!loads && started.elapsed() > DEADLINE) {
                return Err(Failure::preflight(format!(
                    "the throw-away Redis did not start: {}",
                    log.lines().last().unwrap_or("").trim()
                )));
            }
            std::thread::park_timeout(Duration::from_millis(5)); // between two looks
        }
    }

    /// Stops the server and removes its files.
    pub fn stop(self) {}
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.leash = None;
        let _ = self.watcher.wait(); // the watcher ends when the server has
    }
}

/// What its log says of why it will not run: the file is of a later version, needs a module, or is damaged.
fn gave_up(log: &str) -> Option<Failure> {
    let line = |words: &str| log.lines().find(|line| line.contains(words)).map(|line| line.trim().to_owned());
    // A Valkey's file begins otherwise since version 9.
    if let Some(line) =
        line("Can't handle RDB format version").or_else(|| line("Wrong signature trying to load DB"))
    {
        return Some(
            Failure::preflight(format!(
                "the Redis that is installed here cannot read what was captured: {line}"
            ))
            .hint("Install the captured product, in that version or a newer one, or name its program with `server:`."),
        );
    }
    if let Some(line) = line("Can't load module")
        .or_else(|| line("module I can't load"))
        .or_else(|| line("no matching module"))
    {
        return Some(
            Failure::preflight(format!("the captured data needs a module that is not here: {line}"))
                .hint("Install the module, and name a program that loads it with `server:`."),
        );
    }
    if let Some(line) = line("Fatal error loading the DB")
        .or_else(|| line("Terminating server after rdb file reading failure"))
        .or_else(|| line("Internal error in RDB"))
    {
        return Some(Failure::verification(format!("the server could not load what was captured: {line}")));
    }
    let fatal = line("FATAL CONFIG FILE ERROR").or_else(|| line("Failed listening"))?;
    Some(Failure::preflight(format!(
        "the throw-away Redis did not start: {fatal} {}",
        log.lines().last().unwrap_or("")
    )))
}

/// The path of a socket has room for about 100 bytes.
fn short_place() -> PathBuf {
    let temporary = std::env::temp_dir();
    if temporary.as_os_str().len() <= 60 { temporary } else { PathBuf::from("/tmp") }
}
