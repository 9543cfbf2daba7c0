//! Throw-away clusters: private, without consequences, and gone afterwards, whatever happens to us.

use crate::support;
use mainstay_sources::postgres::sandbox::{Sandbox, SandboxOptions};
use std::{
    io::{BufRead, BufReader, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

#[test]
fn a_sandbox_listens_on_a_private_socket_alone_and_archives_nothing() {
    let sandbox = support::sandbox();
    let mut db = sandbox.connect("postgres").unwrap();
    let mut setting = |name: &str| db.query_text(&format!("SHOW {name}")).unwrap().unwrap();
    assert_eq!(setting("listen_addresses"), "");
    assert_eq!(setting("archive_mode"), "off");
    assert_eq!(setting("autovacuum"), "off");
    assert_eq!(setting("fsync"), "off");
    for directory in [sandbox.socket_directory(), sandbox.data_directory().parent().unwrap()] {
        assert_eq!(std::fs::metadata(directory).unwrap().permissions().mode() & 0o777, 0o700);
    }
}

#[test]
fn nothing_is_left_when_it_is_dropped() {
    let sandbox = support::sandbox();
    let (data, sockets) = (sandbox.data_directory(), sandbox.socket_directory().to_owned());
    let spec = sandbox.spec("postgres");
    let _session = sandbox.connect("postgres").unwrap();
    sandbox.stop();
    assert!(!data.exists() && !sockets.exists());
    assert!(mainstay_sources::postgres::wire::Connection::connect(&spec).is_err());
}

#[test]
fn a_long_path_does_not_stop_it() {
    let parent = tempfile::tempdir().unwrap();
    std::fs::set_permissions(parent.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let deep = parent.path().join("a-rather-long-name-for-a-directory".repeat(5));
    std::fs::create_dir(&deep).unwrap();
    let sandbox =
        Sandbox::start(&SandboxOptions { parent: Some(deep.clone()), ..support::options() }).unwrap();
    assert!(sandbox.data_directory().starts_with(&deep));
    assert!(sandbox.connect("postgres").is_ok());
}

#[test]
fn a_server_that_cannot_start_says_why() {
    let error = Sandbox::start(&support::options().setting("shared_buffers", "all of it")).unwrap_err();
    assert!(error.to_string().contains("shared_buffers"), "{error}");
    let error = Sandbox::start(&SandboxOptions { locale: "xx_XX".into(), ..support::options() }).unwrap_err();
    assert!(error.to_string().contains("initdb failed"), "{error}");
}

#[test]
fn locale_and_encoding_are_those_that_were_asked_for() {
    let options = SandboxOptions { encoding: "LATIN1".into(), ..support::options() };
    let sandbox = Sandbox::start(&options).unwrap();
    let mut db = sandbox.connect("postgres").unwrap();
    assert_eq!(db.query_text("SHOW server_encoding").unwrap().as_deref(), Some("LATIN1"));
}

const CHILD: &str = "MAINSTAY_TEST_SANDBOX_CHILD";

/// Run by the test below, in a process of its own: starts a sandbox, says where, and waits to be killed.
#[test]
fn start_a_sandbox_for_the_test_that_kills_us() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let sandbox = support::sandbox();
    let mut out = std::io::stderr();
    writeln!(out, "SANDBOX {} {}", sandbox.data_directory().display(), sandbox.socket_directory().display())
        .unwrap();
    loop {
        std::thread::park();
    }
}

#[test]
fn a_sandbox_ends_when_its_owner_is_killed() {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "postgres_sandbox::start_a_sandbox_for_the_test_that_kills_us", "--nocapture"])
        .env(CHILD, "1")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let line = lines.map(Result::unwrap).find(|line| line.starts_with("SANDBOX ")).unwrap();
    let mut words = line.split(' ').skip(1);
    let data = Path::new(words.next().unwrap()).to_owned();
    let sockets = Path::new(words.next().unwrap()).to_owned();
    assert!(data.join("postmaster.pid").exists());
    child.kill().unwrap();
    child.wait().unwrap();
    let started = Instant::now();
    while data.exists() || sockets.join(".s.PGSQL.5432").exists() {
        assert!(started.elapsed() < Duration::from_secs(30), "it goes on without us");
        std::thread::yield_now();
    }
}
