//! What can be reached from which base backup, and what is said where it cannot.

use crate::clusters::{Bank, ids, newest};
use mainstay_domain::Lsn;
use std::{fs, os::unix::fs::symlink, path::PathBuf};

#[test]
fn a_name_is_looked_for_from_the_newest_base_backup_back() {
    let bank = Bank::new(newest());
    let early = bank.sql("INSERT INTO ledger VALUES (1) RETURNING pg_current_xact_id()");
    bank.done(&["backup", "bank"]);
    bank.sql("SELECT pg_create_restore_point('again')");
    let between = bank.sql("INSERT INTO ledger VALUES (2) RETURNING pg_current_xact_id()");
    bank.done(&["backup", "bank"]);
    bank.sql("INSERT INTO ledger VALUES (3)");
    bank.sql("SELECT pg_create_restore_point('again')");
    bank.sql("INSERT INTO ledger VALUES (4)");
    bank.archive_all();

    assert_eq!(ids(&bank.restored(&["--name", "again"])), "3 3", "the later one, from the later base backup");
    assert_eq!(ids(&bank.restored(&["--xid", &between])), "2 2");
    // Recovery cannot stop before the first base backup ends.
    let ran = bank.run(&["restore", "bank", "--source", "db", "--to-dir", "never", "--xid", &early]);
    assert!(ran.code == 14 && ran.stderr.contains("cannot be reached"), "{}", ran.all());
}

#[test]
fn the_latest_is_refused_where_a_gap_comes_before_it() {
    let bank = Bank::new(newest());
    bank.done(&["backup", "bank"]);
    for id in 1..=4 {
        bank.sql(&format!("INSERT INTO ledger VALUES ({id})"));
        bank.archive_all();
    }
    let archived = archived(&bank, |name| name.len() == 24);
    fs::remove_file(&archived[archived.len() - 2]).unwrap();
    let latest = ["restore", "bank", "--source", "db", "--to-dir", "never", "--at", "latest"];
    let ran = bank.run(&latest);
    assert!(ran.code == 14 && ran.stderr.contains("the archive has a gap"), "{}", ran.all());
    let (_, rest) = ran.stderr.split_once("--lsn ").unwrap();
    let lsn = rest.split([' ', '.']).next().unwrap();
    let server = bank.restored(&["--lsn", lsn]);
    assert_eq!(ids(&server), "2 2", "all that lies before the gap");

    // A base backup after the gap reaches the end, and the window begins with it.
    bank.done(&["backup", "bank"]);
    let ran = bank.done(&[&latest[..], &["--dry-run"]].concat());
    assert!(!ran.stdout.contains("gap"), "{}", ran.all());
    assert_eq!(ids(&bank.restored(&["--at", "latest"])), "4 4");
}

#[test]
fn a_position_is_in_reach_where_all_of_a_record_is_archived_and_the_way_to_a_gap_leads_to_such_a_one() {
    let bank = Bank::with(newest(), &["--wal-segsize=1"]);
    bank.done(&["backup", "bank"]);
    // No segment is switched away from: each ends within a record, which goes on in the next.
    let mut session = bank.server.connect("postgres").unwrap();
    for id in 1..=120 {
        session.execute(&format!("INSERT INTO ledger VALUES ({id})")).unwrap();
        session.query("SELECT pg_logical_emit_message(true, 'filler', repeat('x', 50000))").unwrap();
    }
    bank.archive_all();
    let archived = archived(&bank, |name| name.len() == 24);
    assert!(archived.len() > 5, "{archived:?}");
    fs::remove_file(&archived[archived.len() - 3]).unwrap();

    let ran = bank.run(&["restore", "bank", "--source", "db", "--to-dir", "never", "--at", "latest"]);
    let (_, rest) = ran.stderr.split_once("--lsn ").unwrap_or_else(|| panic!("{}", ran.all()));
    let lsn = rest.split([' ', '.']).next().unwrap();
    let server = bank.restored(&["--lsn", lsn]);
    let last: u32 = ids(&server).split(' ').next().unwrap().parse().unwrap();
    assert!((1..120).contains(&last), "{last}");

    // The record after that begins in the archive, and only a server would find that it does not end there.
    let next = Lsn(lsn.parse::<Lsn>().unwrap().0 + 1).to_string();
    let ran = bank.run(&["restore", "bank", "--source", "db", "--to-dir", "never", "--lsn", &next]);
    assert!(
        ran.code == 14 && ran.stderr.contains(&format!("position {next} cannot be reached")),
        "{}",
        ran.all()
    );
}

#[test]
fn a_complete_base_backup_is_preferred_and_an_incomplete_one_wants_consent() {
    let bank = Bank::new(newest());
    bank.done(&["backup", "bank"]);
    bank.sql("INSERT INTO ledger VALUES (1)");
    symlink("/nowhere/at/all", bank.server.data_directory().join("lost")).unwrap();
    let ran = bank.run(&["backup", "bank"]);
    assert_eq!(ran.code, 3, "{}", ran.all());
    bank.sql("INSERT INTO ledger VALUES (2)");
    bank.archive_all();

    assert_eq!(ids(&bank.restored(&["--at", "latest"])), "2 2");
    let own = ["restore", "bank", "--source", "db", "--to-dir", "never", "--immediate"];
    let ran = bank.run(&own);
    assert!(ran.code == 13 && ran.stderr.contains("the base backup is incomplete (lost: "), "{}", ran.all());
    assert!(!bank.place.at("never").exists());
    assert_eq!(ids(&bank.restored(&["--immediate", "--accept-partial"])), "1 1");
    let ran = bank.run(&[&own[..6], &["--timeline", "1"]].concat());
    assert!(ran.code == 2 && ran.stderr.contains("a timeline is followed to a target"), "{}", ran.all());
}

#[test]
fn a_damaged_history_stands_in_the_way_of_its_own_timeline_only() {
    let bank = Bank::new(newest());
    bank.done(&["backup", "bank"]);
    bank.sql("INSERT INTO ledger VALUES (1)");
    bank.archive_all();
    let history = bank.segment("00000002.history");
    fs::write(&history, "1\t0/1000000\tno recovery target specified\n").unwrap();
    bank.give(&history);
    bank.done(&["wal", "push", history.to_str().unwrap()]);
    let stored = archived(&bank, |name| name.ends_with(".history")).remove(0);
    let mut bytes = fs::read(&stored).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&stored, bytes).unwrap();

    let status = bank.done(&["wal", "status"]);
    assert!(status.stdout.contains("it is not known where timeline 2 came from"), "{}", status.all());
    let ran = bank.run(&["restore", "bank", "--source", "db", "--to-dir", "never", "--at", "latest"]);
    assert!(ran.code == 4 && ran.stderr.contains("where timeline 2 came from"), "{}", ran.all());
    let server = bank.restored(&["--at", "latest", "--timeline", "1"]);
    assert_eq!(ids(&server), "1 1");
    server.connect("postgres").unwrap().execute("CHECKPOINT").unwrap();
    let timeline = server
        .connect("postgres")
        .unwrap()
        .query_text("SELECT timeline_id FROM pg_control_checkpoint()")
        .unwrap();
    assert_eq!(timeline.as_deref(), Some("3"), "the number is taken");
    assert_eq!(ids(&bank.restored(&["--immediate"])), "0 0");
}

#[test]
fn log_of_a_timeline_whose_history_is_missing_is_not_passed_over() {
    let bank = Bank::new(newest());
    bank.done(&["backup", "bank"]);
    bank.sql("INSERT INTO ledger VALUES (1)");
    let name = bank.sql("SELECT pg_walfile_name(pg_current_wal_lsn())");
    bank.archive_all();
    // What a server pushed after a promotion whose history never came.
    let later = bank.place.at(&name.replacen("00000001", "00000002", 1));
    fs::copy(bank.segment(&name), &later).unwrap();
    bank.give(&later);
    bank.done(&["wal", "push", later.to_str().unwrap()]);

    let latest = ["restore", "bank", "--source", "db", "--to-dir", "never", "--at", "latest"];
    let ran = bank.run(&latest);
    assert!(ran.code == 4 && ran.stderr.contains("where timeline 2 came from"), "{}", ran.all());
    assert!(ran.stderr.contains("00000002.history") && ran.stderr.contains("--timeline N"), "{}", ran.all());
    assert_eq!(ids(&bank.restored(&["--at", "latest", "--timeline", "1"])), "1 1");

    let history = bank.place.write("00000002.history", "1\t0/1000000\tno recovery target specified\n");
    let beside = bank.segment("00000002.history");
    fs::copy(&history, &beside).unwrap();
    bank.give(&beside);
    bank.done(&["wal", "push", beside.to_str().unwrap()]);
    let ran = bank.run(&[&latest[..], &["--dry-run"]].concat());
    assert!(!ran.stderr.contains("came from"), "{}", ran.all());
}

/// Files of the archive, by name.
fn archived(bank: &Bank, wanted: fn(&str) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![bank.place.at("store/wal")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.retain(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(wanted));
    found.sort_by_key(|path| path.file_name().unwrap().to_owned());
    found
}
