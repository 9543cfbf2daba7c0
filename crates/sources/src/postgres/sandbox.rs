//! A throw-away PostgreSQL cluster: for restore tests, for the demo, and for the tests of this project.
//!
//! It listens on a Unix socket in a private directory (on TCP only when asked to), archives nothing, has no durability
//! worth the name (`fsync` off) and is gone when it is dropped, or when this process dies: a shell watches a pipe that
//! only we hold. PostgreSQL refuses to run as root: then it runs as `postgres`, or `nobody`, in directories given to them.

use super::{
    postmaster::{self, Status},
    tools::{self, Purpose, Tools},
    wire::{ConnectSpec, Connection, Host, WireError},
};
use mainstay_domain::Failure;
use std::{
    fs,
    io::{self, Read, Seek, SeekFrom},
    net::TcpListener,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    time::{Duration, Instant},
};

/// How to make a cluster.
#[derive(Debug, Clone)]
pub struct SandboxOptions {
    pub tools: Tools,
    /// Where the data goes, in a directory of its own that is removed at the end. `None`: the system's temporary directory.
    pub parent: Option<PathBuf>,
    /// `UTF8` unless said otherwise.
    pub encoding: String,
    /// Collation and character class; `C` unless said otherwise.
    pub locale: String,
    /// `libc`, `icu`, `builtin` and its locale, where the version knows it.
    pub provider: Option<(String, String)>,
    /// Further arguments of `initdb`.
    pub initdb: Vec<String>,
    /// Also listen on a free port of 127.0.0.1.
    pub tcp: bool,
    /// Further settings (`name`, `value`), which win over our own.
    pub settings: Vec<(String, String)>,
    /// The whole of `pg_hba.conf`; unless given, everybody who can reach the socket is trusted.
    pub hba: Option<String>,
    /// The name of its superuser: of a cluster that `start_on` brings, that of the role that initdb made there.
    pub superuser: String,
    /// How long the start may take.
    pub deadline: Duration,
}

impl SandboxOptions {
    pub fn new(tools: Tools) -> SandboxOptions {
        SandboxOptions {
            tools,
            parent: None,
            encoding: "UTF8".to_owned(),
            locale: "C".to_owned(),
            provider: None,
            initdb: Vec::new(),
            tcp: false,
            settings: Vec::new(),
            hba: None,
            superuser: "postgres".to_owned(),
            deadline: Duration::from_secs(60),
        }
    }

    /// For a server version that is installed.
    pub fn version(major: u32, bin_dir: Option<&Path>) -> Result<SandboxOptions, Failure> {
        Ok(SandboxOptions::new(tools::find(Purpose::Server, major, bin_dir)?))
    }

    pub fn initdb(mut self, argument: &str) -> SandboxOptions {
        self.initdb.push(argument.to_owned());
        self
    }

    pub fn setting(mut self, name: &str, value: &str) -> SandboxOptions {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    #[error("cannot prepare {}", path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error("initdb failed: {0}")]
    Init(String),
    #[error("the throw-away PostgreSQL did not start: {0}")]
    Start(String),
    #[error("{program} cannot be run")]
    Spawn { program: String, source: io::Error },
}

impl From<SandboxError> for Failure {
    fn from(error: SandboxError) -> Failure {
        let text = error.to_string();
        match error {
            SandboxError::Directory { source, .. } => Failure::preflight(text)
                .hint("Name another directory, in a place that the user of the sandbox can enter.")
                .caused_by(source),
            SandboxError::Spawn { source, .. } => Failure::preflight(text).caused_by(source),
            SandboxError::Init(_) | SandboxError::Start(_) => Failure::failed(text),
        }
    }
}

/// A running cluster.
#[derive(Debug)]
pub struct Sandbox {
    tools: Tools,
    /// Holds `data` and the log; removed on drop.
    home: tempfile::TempDir,
    sockets: tempfile::TempDir,
    port: u16,
    superuser: String,
    watcher: Child,
    /// While this is open, the server runs.
    leash: Option<ChildStdin>,
}

type Fill<'a> = &'a dyn Fn(&Path) -> io::Result<()>;

/// The user that runs the server when we are root.
#[derive(Debug, Clone, Copy)]
struct Account {
    uid: u32,
    gid: u32,
}

/// Runs the server in the background and ends it when standard input closes; then removes what is left.
const WATCH: &str = r#"
home=$1 sockets=$2; shift 2
"$@" </dev/null >"$home/log" 2>&1 &
server=$!
read -r _
kill -QUIT $server 2>/dev/null
wait $server
rm -rf "$home" "$sockets" 2>/dev/null
exit 0
"#;

impl Sandbox {
    /// Makes a cluster, starts it, and returns when it answers.
    pub fn start(options: &SandboxOptions) -> Result<Sandbox, SandboxError> {
        Sandbox::begin(options, None)
    }

    /// Starts a cluster whose data directory `fill` brings (a base backup, say) into the path that it is given, which does
    /// not exist yet. Files of ours are given to the user that runs the server.
    pub fn start_on(
        options: &SandboxOptions,
        fill: &dyn Fn(&Path) -> io::Result<()>,
    ) -> Result<Sandbox, SandboxError> {
        Sandbox::begin(options, Some(fill))
    }

    fn begin(options: &SandboxOptions, fill: Option<Fill<'_>>) -> Result<Sandbox, SandboxError> {
        let account = account();
        let temporary = std::env::temp_dir();
        let home = private_directory(options.parent.as_deref().unwrap_or(&temporary), account)?;
        // The path of a socket has room for about 100 bytes.
        let short = if temporary.as_os_str().len() <= 60 { temporary.as_path() } else { Path::new("/tmp") };
        let sockets = private_directory(short, account)?;

        let data = home.path().join("data");
        match fill {
            None => init(options, home.path(), account)?,
            Some(fill) => fill(&data)
                .and_then(|()| forget_postmaster(&data))
                .and_then(|()| give(&data, account))
                .map_err(|source| SandboxError::Directory { path: data.clone(), source })?,
        }
        if let Some(hba) = &options.hba {
            let path = data.join("pg_hba.conf");
            fs::write(&path, hba).map_err(|source| SandboxError::Directory { path, source })?;
        }
        // Kept until the moment before the server takes it; a clash shows as a failed start.
        let port = match options.tcp {
            true => TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).map_or(5432, |a| a.port()),
            false => 5432,
        };
        let mut command = Command::new("/bin/sh");
        command.args(["-c", WATCH, "mainstay-sandbox"]).arg(home.path()).arg(sockets.path());
        command.arg(options.tools.program("postgres")).arg("-D").arg(&data);
        let inside = |name: &str| data.join(name).to_string_lossy().into_owned();
        let fixed = [
            // A configuration that was brought may name those of its original, and would win over -D.
            ("data_directory", data.to_string_lossy().into_owned()),
            ("hba_file", inside("pg_hba.conf")),
            ("ident_file", inside("pg_ident.conf")),
            ("external_pid_file", String::new()),
            ("log_destination", "stderr".to_owned()),
            ("unix_socket_directories", sockets.path().to_string_lossy().into_owned()),
            ("port", port.to_string()),
            ("listen_addresses", if options.tcp { "127.0.0.1" } else { "" }.to_owned()),
            ("fsync", "off".to_owned()),
            ("synchronous_commit", "off".to_owned()),
            ("full_page_writes", "off".to_owned()),
            ("autovacuum", "off".to_owned()),
            ("archive_mode", "off".to_owned()),
            ("max_logical_replication_workers", "0".to_owned()),
            ("max_wal_size", "4GB".to_owned()),
            ("shared_buffers", "64MB".to_owned()),
            ("logging_collector", "off".to_owned()),
            ("lc_messages", "C".to_owned()),
            ("dynamic_shared_memory_type", "posix".to_owned()),
        ];
        for (name, value) in fixed {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        for (name, value) in &options.settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        clean(&mut command, account);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir(home.path());
        // A group of its own: Ctrl-C in the terminal is for us, and we end the server in order.
        command.process_group(0);
        let mut watcher = command
            .spawn()
            .map_err(|source| SandboxError::Spawn { program: "/bin/sh".to_owned(), source })?;
        let leash = watcher.stdin.take();
        let (tools, superuser) = (options.tools.clone(), options.superuser.clone());
        let sandbox = Sandbox { tools, home, sockets, port, superuser, watcher, leash };
        sandbox.await_ready(options.deadline)?;
        Ok(sandbox)
    }

    /// The superuser's way in, over the socket.
    pub fn spec(&self, database: &str) -> ConnectSpec {
        ConnectSpec::socket(self.sockets.path(), self.port, &self.superuser, database)
    }

    /// The same over TCP; only if `tcp` was asked for.
    pub fn tcp_spec(&self, database: &str) -> ConnectSpec {
        ConnectSpec { host: Host::Tcp("127.0.0.1".to_owned()), ..self.spec(database) }
    }

    pub fn connect(&self, database: &str) -> Result<Connection, WireError> {
        Connection::connect(&self.spec(database))
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn socket_directory(&self) -> &Path {
        self.sockets.path()
    }

    pub fn data_directory(&self) -> PathBuf {
        self.home.path().join("data")
    }

    pub fn tools(&self) -> &Tools {
        &self.tools
    }

    /// The end of the server's log, for a message.
    pub fn log_tail(&self) -> String {
        let read = || -> io::Result<String> {
            let mut file = fs::File::open(self.home.path().join("log"))?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(4096)))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        read().unwrap_or_default()
    }

    /// Waits until the postmaster says in its lock file that it takes sessions, as `pg_ctl -w` does. Trying to connect would not
    /// do: between a socket that is there and sessions that are taken, the server refuses.
    fn await_ready(&self, deadline: Duration) -> Result<(), SandboxError> {
        let started = Instant::now();
        let data = self.data_directory();
        let mut seen = false;
        loop {
            let state = postmaster::read(&data);
            if matches!(state.as_ref().map(|state| state.status), Some(Status::Ready | Status::Standby)) {
                return Ok(());
            }
            let there = state.is_some();
            let log = self.log_tail();
            let gave_up = (seen && !there) || log.contains("FATAL:");
            seen |= there;
            if gave_up || started.elapsed() > deadline {
                return Err(SandboxError::Start(log.trim().to_owned()));
            }
            std::thread::park_timeout(Duration::from_millis(10)); // between two looks
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

fn init(options: &SandboxOptions, home: &Path, account: Option<Account>) -> Result<(), SandboxError> {
    let program = options.tools.program("initdb");
    let mut command = Command::new(&program);
    command.args(["-U", &options.superuser, "--auth=trust", "--no-sync", "--no-instructions"]);
    command.arg("-D").arg(home.join("data"));
    command.arg(format!("--encoding={}", options.encoding)).arg(format!("--locale={}", options.locale));
    if let Some((provider, locale)) = &options.provider {
        command.arg(format!("--locale-provider={provider}"));
        match provider.as_str() {
            "icu" => command.arg(format!("--icu-locale={locale}")),
            "builtin" => command.arg(format!("--builtin-locale={locale}")),
            _ => &mut command,
        };
    }
    command.args(&options.initdb);
    clean(&mut command, account);
    let output = command
        .stdin(Stdio::null())
        .current_dir(home)
        .output()
        .map_err(|source| SandboxError::Spawn { program: program.display().to_string(), source })?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let start = said.len().saturating_sub(2000);
    let start = (start..said.len()).find(|at| said.is_char_boundary(*at)).unwrap_or(said.len());
    Err(SandboxError::Init(said[start..].trim().to_owned()))
}

/// No PG* variables, messages in English, and the account's rights.
fn clean(command: &mut Command, account: Option<Account>) {
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("PG")) {
            command.env_remove(&name);
        }
    }
    command.env("LC_ALL", "C").env("TZ", "UTC");
    if let Some(account) = account {
        command.uid(account.uid).gid(account.gid);
    }
}

/// The user and the group that servers run as, if that is somebody else than ourselves: PostgreSQL refuses to run as root.
pub fn server_user() -> Option<(u32, u32)> {
    account().map(|account| (account.uid, account.gid))
}

/// Whom to run as: nobody else unless we are root.
fn account() -> Option<Account> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let find = |name: &str| {
        users.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            (fields.first() == Some(&name))
                .then(|| {
                    Some(Account { uid: fields.get(2)?.parse().ok()?, gid: fields.get(3)?.parse().ok()? })
                })
                .flatten()
        })
    };
    find("postgres").or_else(|| find("nobody")).or(Some(Account { uid: 65534, gid: 65534 }))
}

/// A copied lock file would speak of a server elsewhere.
fn forget_postmaster(data: &Path) -> io::Result<()> {
    match fs::remove_file(data.join("postmaster.pid")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes the account the owner of a directory and all that is in it.
fn give(path: &Path, account: Option<Account>) -> io::Result<()> {
    let Some(Account { uid, gid }) = account else { return Ok(()) };
    std::os::unix::fs::lchown(path, Some(uid), Some(gid))?;
    if path.symlink_metadata()?.is_dir() {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(path)? {
            give(&entry?.path(), account)?;
        }
    }
    Ok(())
}

/// A new directory that only the server's user (and root) can enter.
fn private_directory(parent: &Path, account: Option<Account>) -> Result<tempfile::TempDir, SandboxError> {
    let failed = |source| SandboxError::Directory { path: parent.to_owned(), source };
    let directory = tempfile::Builder::new().prefix("msb").tempdir_in(parent).map_err(failed)?;
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).map_err(failed)?;
    if let Some(Account { uid, gid }) = account {
        std::os::unix::fs::chown(directory.path(), Some(uid), Some(gid)).map_err(failed)?;
    }
    Ok(directory)
}
