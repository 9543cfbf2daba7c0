//! A restored cluster that is started, and left running where its recovery was to end.

use crate::{
    Ran,
    clusters::{Bank, newest},
};
use mainstay_sources::postgres::{
    tools::{self, Purpose, Tools},
    wire::{ConnectSpec, Connection},
};
use std::{
    fs,
    net::TcpListener,
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

pub(crate) fn oldest() -> Tools {
    let installed = tools::installed(Purpose::Server, Some(&crate::trees()));
    installed.into_iter().min_by_key(|tools| tools.major).expect("`make setup` installs PostgreSQL")
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub(crate) fn connect(port: u16) -> Connection {
    Connection::connect(&ConnectSpec::socket(Path::new("/tmp"), port, "postgres", "postgres")).unwrap()
}

fn rows(port: u16) -> Option<String> {
    connect(port).query_text("SELECT count(*) FROM ledger").unwrap()
}

/// Ends what a test started, also when it fails.
pub(crate) struct Stopped<'b>(pub &'b Bank, pub PathBuf);

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        let mut command = Command::new(self.0.tools.program("pg_ctl"));
        command.arg("-D").arg(&self.1).args(["-m", "immediate", "-w", "stop"]);
        if rustix::process::geteuid().is_root() {
            let (uid, gid) = self.0.owner();
            command.uid(uid).gid(gid);
        }
        let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/").status();
    }
}

pub(crate) fn bank(tools: Tools) -> Bank {
    let bank = Bank::new(tools);
    // Where copies listen, whatever the distribution's default is.
    bank.sql("ALTER SYSTEM SET unix_socket_directories = '/tmp'");
    bank
}

/// Two rows, a moment, and one row more that it undoes.
fn history(bank: &Bank) -> String {
    bank.done(&["backup", "bank"]);
    bank.sql("INSERT INTO ledger VALUES (1), (2)");
    let moment = bank.sql("SELECT clock_timestamp()");
    bank.sql("INSERT INTO ledger VALUES (3)");
    bank.archive_all();
    moment
}

pub(crate) fn start(bank: &Bank, to: &Path, port: u16, more: &[&str]) -> Ran {
    let (to, port) = (to.to_str().unwrap().to_owned(), port.to_string());
    let base = ["restore", "bank", "--source", "db", "--to-dir", &to, "--start", "--port", &port];
    bank.run(&[&base[..], more].concat())
}

#[test]
fn a_started_cluster_stands_at_the_moment_and_says_how_to_reach_it() {
    // The words that a server says of itself are those of its version.
    for tools in [oldest(), newest()] {
        stands_at_the_moment(&bank(tools));
    }
}

fn stands_at_the_moment(bank: &Bank) {
    let moment = history(bank);
    for (name, action, read_only) in [("promoted", "promote", "f"), ("paused", "pause", "t")] {
        let (to, port) = (bank.place.at(name), free_port());
        let _stopped = Stopped(bank, to.clone());
        let ran = start(bank, &to, port, &["--at", &moment, "--action", action]);
        assert!(ran.code == 0, "{}", ran.all());
        assert!(ran.stdout.contains(&format!("psql -h /tmp -p {port} -U postgres")), "{}", ran.all());
        assert_eq!(rows(port).as_deref(), Some("2"), "{action}");
        let sql = "SELECT pg_is_in_recovery()";
        assert_eq!(connect(port).query_text(sql).unwrap().as_deref(), Some(read_only), "{action}");
    }
    let to = bank.place.at("stopped");
    let ran = start(bank, &to, free_port(), &["--at", &moment, "--action", "shutdown"]);
    assert!(ran.code == 0 && ran.stdout.contains("has stopped"), "{}", ran.all());
    assert!(!to.join("postmaster.pid").exists());
}

#[test]
fn whoever_starts_a_cluster_it_runs_as_the_user_that_owns_it() {
    let bank = bank(newest());
    history(&bank);
    let (to, port) = (bank.place.at("copy"), free_port());
    let _stopped = Stopped(&bank, to.clone());
    let (text, number) = (to.to_str().unwrap(), port.to_string());
    let arguments = [
        "restore", "bank", "--source", "db", "--to-dir", text, "--at", "latest", "--start", "--port", &number,
    ];
    let ran = bank.place.run_with(&arguments, &[("MAINSTAY_KEY", crate::KEY)]);
    assert!(ran.code == 0, "{}", ran.all());
    assert_eq!(rows(port).as_deref(), Some("3"));
    assert_eq!(fs::metadata(to.join("postmaster.pid")).unwrap().uid(), bank.owner().0);
}

#[test]
fn what_keeps_a_started_cluster_from_its_target_is_shown_in_its_own_words() {
    let bank = bank(newest());
    bank.sql("ALTER SYSTEM SET shared_preload_libraries = 'not_to_be_found'");
    history(&bank);
    let to = bank.place.at("copy");
    let _stopped = Stopped(&bank, to.clone());
    // A port that somebody has is refused before anything is written.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let ran = start(&bank, &to, taken.local_addr().unwrap().port(), &["--at", "latest"]);
    assert!(ran.code == 14 && ran.stderr.contains("cannot be used"), "{}", ran.all());
    assert!(!to.exists());

    let ran = start(&bank, &to, free_port(), &["--at", "latest"]);
    assert!(ran.code == 1, "{}", ran.all());
    assert!(ran.stderr.contains("not_to_be_found") && ran.stderr.contains("FATAL"), "{}", ran.all());
    assert!(to.join("global/pg_control").exists(), "the files are in place");
}

#[test]
fn a_started_standby_follows_its_primary_beyond_what_is_archived() {
    let bank = bank(newest());
    let config = crate::timelines::with_key_file(&bank);
    history(&bank);
    let (to, port) = (bank.place.at("standby"), free_port());
    let _stopped = Stopped(&bank, to.clone());
    let (text, number) = (to.to_str().unwrap(), port.to_string());
    let restore = [
        "--config",
        &config,
        "restore",
        "bank",
        "--source",
        "db",
        "--to-dir",
        text,
        "--standby",
        "--start",
        "--port",
        &number,
        "--primary-url-env",
        "PRIMARY",
    ];
    let ran = bank.run(&restore);
    assert!(ran.code == 2 && ran.stderr.contains("the variable PRIMARY is not set"), "{}", ran.all());
    assert!(!to.exists(), "nothing was restored");
    let primary = format!(
        "host={} port={} user=postgres",
        bank.server.socket_directory().display(),
        bank.server.port()
    );
    let ran = bank.place.ran(bank.command(&restore).env("PRIMARY", primary).output().unwrap());
    assert!(ran.code == 0 && ran.stdout.contains("follows the archive and answers queries"), "{}", ran.all());
    // In a segment that is not archived yet.
    bank.sql("INSERT INTO ledger VALUES (4)");
    let follows = "SELECT count(*) = 1 FROM pg_stat_replication WHERE state = 'streaming'";
    crate::clusters::until(&bank.server, follows);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while rows(port).as_deref() != Some("4") {
        assert!(std::time::Instant::now() < deadline, "the standby does not follow");
        std::thread::park_timeout(std::time::Duration::from_millis(20));
    }
}
