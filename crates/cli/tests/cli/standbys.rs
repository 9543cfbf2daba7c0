//! A warm standby whose archive is away: it waits, and neither shuts down nor opens without it.

use crate::{
    clusters::{Bank, newest},
    timelines::{has, insert, standby, with_key_file},
};
use mainstay_sources::postgres::sandbox::Sandbox;
use std::{
    fs,
    os::unix::process::CommandExt,
    process::{Command, ExitStatus},
    time::{Duration, Instant},
};

const WAITS: &str = "the standby waits for its archive";

/// A primary with one row, and a standby that has it.
fn pair() -> (Bank, Sandbox) {
    let bank = Bank::new(newest());
    let config = with_key_file(&bank);
    insert(&bank.server, 1);
    bank.done(&["backup", "bank"]);
    bank.archive_all();
    let standby = standby(&bank, &config);
    has(&standby, 1);
    (bank, standby)
}

fn take_away(bank: &Bank) {
    fs::rename(bank.place.at("store"), bank.place.at("away")).unwrap();
}

fn put_back(bank: &Bank) {
    fs::rename(bank.place.at("away"), bank.place.at("store")).unwrap();
}

fn log(server: &Sandbox) -> String {
    fs::read_to_string(server.data_directory().parent().unwrap().join("log")).unwrap_or_default()
}

fn until(server: &Sandbox, what: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !what() {
        assert!(Instant::now() < deadline, "it does not come true\n{}", log(server));
        std::thread::park_timeout(Duration::from_millis(20)); // between two looks
    }
}

fn pg_ctl(bank: &Bank, server: &Sandbox, arguments: &[&str]) -> ExitStatus {
    let mut command = Command::new(bank.tools.program("pg_ctl"));
    command.arg("-D").arg(server.data_directory()).args(arguments).current_dir("/");
    if rustix::process::geteuid().is_root() {
        let (uid, gid) = bank.owner();
        command.uid(uid).gid(gid);
    }
    command.output().unwrap().status
}

#[test]
fn a_standby_whose_store_is_away_waits_and_goes_on_when_it_is_back() {
    let (bank, standby) = pair();
    take_away(&bank);
    until(&standby, || log(&standby).contains(WAITS));
    has(&standby, 1); // it answers meanwhile
    put_back(&bank);
    insert(&bank.server, 2);
    bank.archive_all();
    has(&standby, 2);
    assert!(!log(&standby).contains("FATAL"), "{}", log(&standby));

    // And it can be shut down while it waits.
    let before = log(&standby).matches(WAITS).count();
    take_away(&bank);
    until(&standby, || log(&standby).matches(WAITS).count() > before);
    assert!(
        pg_ctl(&bank, &standby, &["-m", "fast", "-w", "-t", "60", "stop"]).success(),
        "{}",
        log(&standby)
    );
}

#[test]
fn a_standby_that_is_promoted_while_its_archive_is_away_does_not_open_without_it() {
    let (bank, standby) = pair();
    let data = standby.data_directory();
    take_away(&bank);
    until(&standby, || log(&standby).contains(WAITS));
    pg_ctl(&bank, &standby, &["-W", "promote"]);
    until(&standby, || !data.join("postmaster.pid").exists());
    let said = log(&standby);
    assert!(said.contains("is to be promoted, and its archive cannot be read"), "{said}");
    assert!(data.join("standby.signal").exists(), "it is still a standby\n{said}");
}
