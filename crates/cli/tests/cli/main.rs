//! What users see: the real binary is run, and its output compared with what stands here.

// The lint knows tests by their attribute; the helpers here are tests, too.
#![allow(clippy::unwrap_used)]

mod broken_log;
mod clusters;
mod config;
mod database_mishaps;
mod database_options;
mod databases;
mod demo;
mod files;
mod full_disks;
mod hooks;
mod interrupts;
mod key;
mod kills;
mod lacking;
mod ledger;
mod liars;
mod masking;
mod mishaps;
mod reach;
mod read_only;
mod receiving;
mod redis;
mod reference;
mod repair;
mod restore_all;
mod retention;
mod returning;
mod said;
mod settings;
mod standbys;
mod started;
mod swapping;
mod tables_back;
mod terminal;
mod timelines;
mod usage;
mod wal_daemon;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

/// A folder of its own for one test, and the binary run in it with nothing in its environment.
pub(crate) struct Place {
    folder: tempfile::TempDir,
}

/// What a run printed and returned.
pub(crate) struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// Where the set-up script put PostgreSQL of all versions, by the path that the servers' user can take, too.
pub(crate) fn trees() -> PathBuf {
    fs::canonicalize(concat!(env!("CARGO_MANIFEST_DIR"), "/../../.setup/postgresql"))
        .expect("`make setup` makes it")
}

impl Place {
    pub fn new() -> Self {
        Place { folder: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file that only its owner can change.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// Runs with the tests' key, quietly.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with(arguments, &[("MAINSTAY_KEY", KEY)])
    }

    /// Runs what must succeed, and returns what it printed.
    pub fn done(&self, arguments: &[&str]) -> String {
        let ran = self.run(arguments);
        assert_eq!(ran.code, 0, "{arguments:?}\n{}", ran.all());
        ran.stdout
    }

    /// Runs with `--json`, and returns the lines of one type.
    pub fn json(&self, arguments: &[&str], kind: &str) -> Vec<serde_json::Value> {
        let printed = self.done(&[arguments, &["--json"]].concat());
        let lines = printed.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines.filter(|line| line["type"] == kind).collect()
    }

    /// Writes, reads or looks at a file below.
    pub fn at(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub fn run_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Ran {
        let output =
            self.command(env!("CARGO_BIN_EXE_mainstay"), arguments).envs(variables.iter().copied()).output();
        self.ran(output.unwrap())
    }

    /// A process that runs here, with nothing in its environment.
    pub fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(self.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path())
            .env("MAINSTAY_PG_TREES", trees())
            .env("TZ", "UTC");
        command
    }

    /// The binary, where every user can run it: a checkout in root's home is closed to the user of the servers.
    pub fn program(&self) -> PathBuf {
        let built = Path::new(env!("CARGO_BIN_EXE_mainstay"));
        let open =
            |folder: &Path| fs::metadata(folder).is_ok_and(|found| found.permissions().mode() & 0o1 != 0);
        if built.ancestors().skip(1).all(open) {
            return built.to_owned();
        }
        let here = self.at("program/mainstay");
        if !here.exists() {
            fs::create_dir(self.at("program")).unwrap();
            fs::hard_link(built, &here).or_else(|_| fs::copy(built, &here).map(drop)).unwrap();
        }
        here
    }

    /// Starts the binary with the tests' key, to be met while it is at work.
    pub fn start(&self, arguments: &[&str]) -> Child {
        let mut command = self.command(env!("CARGO_BIN_EXE_mainstay"), arguments);
        command.env("MAINSTAY_KEY", KEY).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    pub fn ran(&self, output: Output) -> Ran {
        let text = |bytes| String::from_utf8(bytes).unwrap().replace(self.path().to_str().unwrap(), "PLACE");
        Ran { code: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Every file below a folder; none if it is not there.
    pub fn files(&self, folder: &str) -> Vec<PathBuf> {
        let (mut found, mut folders) = (Vec::new(), vec![self.at(folder)]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() { folders.push(path) } else { found.push(path) }
            }
        }
        found.sort();
        found
    }
}

impl Ran {
    /// Exit code, standard output and standard error as one text, for a snapshot.
    pub fn all(&self) -> String {
        let mut text = format!("exit {}\n", self.code);
        for (name, part) in [("out", &self.stdout), ("err", &self.stderr)] {
            for line in part.lines() {
                text.push_str(format!("{name}| {line}").trim_end());
                text.push('\n');
            }
        }
        text
    }
}

/// The key that the tests use.
pub(crate) const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// A place with a folder of uploads, a configuration and a repository.
pub(crate) fn shop() -> Place {
    let place = Place::new();
    let uploads = place.path().join("uploads");
    fs::create_dir_all(uploads.join("letters/2026")).unwrap();
    fs::create_dir(uploads.join("images")).unwrap();
    fs::write(uploads.join("letters/2026/one.txt"), "first letter\n").unwrap();
    fs::write(uploads.join("letters/two.txt"), "second letter\n").unwrap();
    fs::write(uploads.join("images/logo.png"), vec![7; 100_000]).unwrap();
    place.write("mainstay.yaml", &small_config(&place));
    place.done(&["init"]);
    place
}

/// Checks a snapshot in which ids, times, sizes and lengths of time are replaced by words.
#[macro_export]
macro_rules! assert_seen {
    ($ran:expr, @$expected:literal) => {
        insta::with_settings!({ filters => vec![
            (r"[0-9a-f]{64}", "<id>"),
            (r"\b[0-9a-f]{8}\b", "<id>"),
            (r"\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d(\.\d+)? \+00:00)?", "<time>"),
            (r"\d{8}_\d{6}", "<date>"),
            (r"\b[0-9A-F]+/[0-9A-F]{5,8}\b", "<lsn>"),
            (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "<time>"),
            (r"\b\d+(\.\d+)? (ms|s)\b( ago)?", "<while>"),
            (r" *\b\d+(\.\d+)? (B|KiB|MiB|GiB|TiB)\b", " <size>"),
            (r"uid \d+", "uid <uid>"),
            (r"on host +\S+", "on host <host>"),
            (r"Redis \d+\.\d+\.\d+", "Redis <version>"),
            (r"(PostgreSQL|captured from) \d+\.\d+( \(Debian [^)]*\))?", "$1 <version>"),
            (r" {2,}", "  "),
        ] }, { insta::assert_snapshot!($ran.all(), @$expected) })
    };
}

/// A configuration of one application with one folder, kept in `PLACE/store`.
pub(crate) fn small_config(place: &Place) -> String {
    let folder = place.path().display();
    format!(
        "version: 1
stores:
  local: {{ url: \"file://{folder}/store\" }}
repositories:
  main: {{ key: {{ env: MAINSTAY_KEY }}, stores: [local] }}
apps:
  shop:
    repository: main
    sources:
      uploads: {{ files: {{ paths: [\"{folder}/uploads\"] }} }}
    policies:
      nightly: {{ schedule: \"0 3 * * *\", keep: {{ last: 3 }} }}
"
    )
}
