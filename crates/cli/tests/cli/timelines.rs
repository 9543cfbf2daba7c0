//! Standbys that follow the archive, failovers, and recovery along the timelines that come of them.

use crate::clusters::{Bank, archive_all, ids, newest, until};
use mainstay_sources::postgres::sandbox::{Sandbox, SandboxOptions};
use std::{fs, os::unix::fs::PermissionsExt};

/// A configuration with the key in a file, which a server's `restore_command` can read.
pub(crate) fn with_key_file(bank: &Bank) -> String {
    let key = bank.place.write("key", crate::KEY);
    let text = fs::read_to_string(bank.place.at("mainstay.yaml")).unwrap();
    let path = bank
        .place
        .write("standby.yaml", &text.replace("env: MAINSTAY_KEY", &format!("file: \"{}\"", key.display())));
    for file in [&key, &path] {
        bank.give(file);
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A standby made by `restore --standby`, which archives as the primary does once it is promoted.
pub(crate) fn standby(bank: &Bank, config: &str) -> Sandbox {
    let options = SandboxOptions::new(bank.tools.clone())
        .setting("archive_mode", "on")
        .setting("archive_command", &bank.push)
        .setting("wal_retrieve_retry_interval", "50ms");
    Sandbox::start_on(&options, &|data| {
        let to = data.to_str().unwrap();
        bank.done(&["--config", config, "restore", "bank", "--source", "db", "--to-dir", to, "--standby"]);
        Ok(())
    })
    .unwrap()
}

pub(crate) fn has(server: &Sandbox, rows: u32) {
    until(server, &format!("SELECT count(*) = {rows} FROM ledger"));
}

pub(crate) fn insert(server: &Sandbox, id: u32) {
    let sql = format!("INSERT INTO ledger VALUES ({id})");
    server.connect("postgres").unwrap().execute(&sql).unwrap();
}

/// Between two transactions of a server.
pub(crate) fn moment(server: &Sandbox) -> String {
    server.connect("postgres").unwrap().query_text("SELECT clock_timestamp()").unwrap().unwrap()
}

pub(crate) fn promote(server: &Sandbox) {
    let mut session = server.connect("postgres").unwrap();
    assert_eq!(session.query_text("SELECT pg_promote()").unwrap().as_deref(), Some("t"));
}

#[test]
fn failovers_go_on_in_the_archive_and_every_timeline_can_be_returned_to() {
    let bank = Bank::new(newest());
    let config = with_key_file(&bank);
    insert(&bank.server, 1);
    bank.done(&["backup", "bank"]);
    insert(&bank.server, 2);
    bank.archive_all();

    // A standby follows through the archive alone.
    let second = standby(&bank, &config);
    has(&second, 2);
    insert(&bank.server, 3);
    let on_first = moment(&bank.server);
    insert(&bank.server, 4);
    bank.archive_all();
    has(&second, 4);

    // It takes over; the archive goes on along its timeline; and once more, from the same base backup.
    promote(&second);
    insert(&second, 5);
    let on_second = moment(&second);
    insert(&second, 6);
    archive_all(&second);
    let third = standby(&bank, &config);
    has(&third, 6);
    promote(&third);
    insert(&third, 7);
    let on_third = moment(&third);
    insert(&third, 8);
    archive_all(&third);

    for (arguments, expected) in [
        (&["--at", &on_first][..], "3 3"),
        (&["--at", &on_second], "5 5"),
        (&["--at", &on_third], "7 7"),
        (&["--at", "latest"], "8 8"),
        (&["--at", "latest", "--timeline", "2"], "6 6"),
        (&["--at", "latest", "--timeline", "1"], "4 4"),
    ] {
        assert_eq!(ids(&bank.restored(arguments)), expected, "{arguments:?}");
    }
    let status = bank.done(&["wal", "status", "--json"]);
    let cluster: serde_json::Value =
        status.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).next().unwrap();
    let timelines = cluster["timelines"].as_array().unwrap();
    assert_eq!(timelines.len(), 3);
    for timeline in timelines {
        assert_eq!(timeline["missing"], serde_json::json!([]), "{timeline}");
        assert_eq!(timeline["went_on"], serde_json::Value::Null, "{timeline}");
    }

    // The old primary was never stopped: there are two histories from where it was left.
    for id in 101..104 {
        insert(&bank.server, id);
        bank.archive_all();
    }
    let to = bank.place.at("never");
    let ran =
        bank.run(&["restore", "bank", "--source", "db", "--to-dir", to.to_str().unwrap(), "--at", "latest"]);
    assert!(ran.code == 2 && ran.stderr.contains("branches after its newest base backup"), "{}", ran.all());
    assert!(ran.stderr.contains("timelines 1 (last transaction"), "{}", ran.all());
    assert!(ran.stderr.contains("3 (from timeline 2 at "), "{}", ran.all());
    let status = bank.done(&["wal", "status"]);
    assert!(status.stdout.contains("timeline 1 went on after timeline 2"), "{}", status.all());
    // What lies before they part is the same on both, and one of them may be named.
    assert_eq!(ids(&bank.restored(&["--at", &on_first])), "3 3");
    assert_eq!(ids(&bank.restored(&["--at", "latest", "--timeline", "1"])), "7 103");
    assert_eq!(ids(&bank.restored(&["--at", "latest", "--timeline", "3"])), "8 8");

    // A base backup of the wrong one decides, and everybody says that there is another.
    let ran = bank.done(&["backup", "bank"]);
    assert!(
        ran.all().contains("has two histories") && ran.all().contains("timeline 3 (from 2 at "),
        "{}",
        ran.all()
    );
    let ran = bank.run(&["status", "--check"]);
    assert!(ran.code == 5 && ran.stdout.contains("has two histories"), "{}", ran.all());
    let ran = bank.done(&[
        "restore",
        "bank",
        "--source",
        "db",
        "--to-dir",
        to.to_str().unwrap(),
        "--at",
        "latest",
        "--dry-run",
    ]);
    assert!(ran.stdout.contains("not followed  timeline 3 (from 2 at "), "{}", ran.all());
}

#[test]
fn log_that_no_base_backup_needs_goes_with_prune_and_recovery_still_works() {
    let bank = Bank::new(newest());
    bank.done(&["backup", "bank"]);
    let first = bank.done(&["list", "--json"]);
    for id in 1..4 {
        insert(&bank.server, id);
        bank.archive_all();
    }
    bank.done(&["backup", "bank"]);
    insert(&bank.server, 4);
    bank.archive_all();
    let files = || bank.place.files("store/wal").len();
    // What was archived before the first base backup began is of no use to anybody.
    bank.done(&["prune", "--yes"]);
    let before = files();
    let ran = bank.done(&["prune", "--yes"]);
    assert!(files() == before, "the first base backup still needs all of it\n{}", ran.all());

    let line: serde_json::Value = serde_json::from_str(first.stdout.lines().next().unwrap()).unwrap();
    let id = line["id"].as_str().or(line["point"].as_str()).unwrap().to_owned();
    bank.done(&["delete", &id, "--yes"]);
    let shown = bank.done(&["prune", "--dry-run"]);
    assert!(shown.stdout.contains("before the oldest base backup go"), "{}", shown.all());
    assert_eq!(files(), before, "a dry run deletes nothing");
    let ran = bank.done(&["prune", "--yes"]);
    assert!(ran.stdout.contains("of archived WAL") && files() < before, "{}", ran.all());
    assert_eq!(ids(&bank.restored(&["--at", "latest"])), "4 4");
    let status = bank.done(&["wal", "status"]);
    assert!(!status.stdout.contains("has a gap"), "{}", status.all());
}

#[test]
fn log_is_fetched_as_it_is_needed_where_that_is_asked_for() {
    let bank = Bank::new(newest());
    let config = with_key_file(&bank);
    bank.done(&["backup", "bank"]);
    insert(&bank.server, 1);
    let at = moment(&bank.server);
    insert(&bank.server, 2);
    bank.archive_all();
    let server = bank.restored(&["--config", &config, "--at", &at, "--wal", "fetch"]);
    assert_eq!(ids(&server), "1 1");
    let log = server.log_tail();
    assert!(log.contains("restored log file"), "{log}");
}
