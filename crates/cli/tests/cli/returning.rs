//! What a restored cluster may and may not do to the archive and to what it replaces.

use crate::{
    Place,
    clusters::{Bank, ids, newest},
    timelines::{has, standby, with_key_file},
};
use mainstay_sources::postgres::sandbox::{Sandbox, SandboxOptions};
use std::{fs, os::unix::fs::FileExt};

fn timeline(server: &Sandbox) -> String {
    let sql = "SELECT timeline_id FROM pg_control_checkpoint()";
    server.connect("postgres").unwrap().execute("CHECKPOINT").unwrap();
    server.connect("postgres").unwrap().query_text(sql).unwrap().unwrap()
}

fn settings_of(server: &Sandbox) -> String {
    fs::read_to_string(server.data_directory().join("postgresql.auto.conf")).unwrap()
}

#[test]
fn a_restored_copy_archives_nothing_and_goes_on_along_a_timeline_that_nobody_has() {
    let bank = Bank::new(newest());
    bank.sql("INSERT INTO ledger VALUES (1)");
    bank.done(&["backup", "bank"]);
    bank.sql("INSERT INTO ledger VALUES (2)");
    bank.archive_all();
    for arguments in [&["--immediate"][..], &["--point", "latest"], &["--at", "latest"]] {
        let server = bank.restored(arguments);
        assert!(settings_of(&server).contains("archive_mode = 'off'"), "{arguments:?}");
        // Nor takes it what the original's subscriptions are sent.
        assert!(settings_of(&server).contains("max_logical_replication_workers = '0'"), "{arguments:?}");
        // Nor waits it for the original's standby.
        assert!(settings_of(&server).contains("synchronous_standby_names = ''"), "{arguments:?}");
        assert_eq!(timeline(&server), "2", "{arguments:?}");
    }
    // Another one was promoted before, and its history is archived: that number is taken.
    let history = bank.place.at("00000002.history");
    fs::write(&history, "1\t0/5000000\tno recovery target specified\n").unwrap();
    let data = bank.server.data_directory().join("pg_wal/00000002.history");
    fs::copy(&history, &data).unwrap();
    bank.give(&data);
    bank.done(&["wal", "push", data.to_str().unwrap()]);
    for arguments in [&["--immediate"][..], &["--at", "latest", "--timeline", "1"]] {
        assert_eq!(timeline(&bank.restored(arguments)), "3", "{arguments:?}");
    }
}

#[test]
fn a_delta_restore_puts_right_what_differs_and_keeps_the_log_that_was_there() {
    let bank = Bank::new(newest());
    bank.sql("INSERT INTO ledger SELECT n, repeat('x', 500) FROM generate_series(1, 2000) n");
    bank.done(&["backup", "bank"]);
    bank.sql("INSERT INTO ledger VALUES (3000)");
    bank.archive_all();
    let server = Sandbox::start_on(&SandboxOptions::new(bank.tools.clone()), &|data| {
        let restore = |more: &[&str]| {
            let base = ["restore", "bank", "--source", "db", "--to-dir", data.to_str().unwrap()];
            bank.run(&[&base[..], more].concat())
        };
        assert_eq!(restore(&["--immediate"]).code, 0);
        let ran = restore(&["--immediate"]);
        assert!(ran.code == 13 && ran.stderr.contains("is not empty"), "{}", ran.all());

        // A server runs on it, or was killed there.
        let lock = data.join("postmaster.pid");
        fs::write(&lock, "1\n").unwrap();
        let ran = restore(&["--at", "latest", "--delta", "--yes"]);
        assert!(ran.code == 13 && ran.stderr.contains("postmaster.pid is there"), "{}", ran.all());
        fs::remove_file(&lock).unwrap();

        // It is another cluster's.
        let control = data.join("global/pg_control");
        let own = fs::read(&control).unwrap();
        let mut other = own.clone();
        other[0] ^= 1;
        fs::write(&control, other).unwrap();
        let ran = restore(&["--at", "latest", "--delta", "--yes"]);
        assert!(ran.code == 13 && ran.stderr.contains("another cluster"), "{}", ran.all());
        fs::write(&control, own).unwrap();

        // A page that is wrong, a file too many, log that was never archived.
        let file = fs::read_dir(data.join("base/5")).unwrap().flatten().find(|entry| {
            entry.metadata().unwrap().len() > 65536 && !entry.file_name().to_str().unwrap().contains('.')
        });
        let file = file.unwrap().path();
        let right = fs::read(&file).unwrap();
        fs::write(&file, vec![7; right.len()]).unwrap();
        fs::write(data.join("base/5/999999"), "too many").unwrap();
        fs::write(data.join("pg_wal/0000000100000000000000EE"), "nowhere else").unwrap();
        let ran = restore(&["--at", "latest", "--delta", "--yes"]);
        assert!(ran.code == 0 && ran.stdout.contains("is kept in"), "{}", ran.all());
        assert!(fs::read(&file).unwrap() == right);
        assert!(!data.join("base/5/999999").exists());
        let kept = data.with_file_name("data-pg_wal-1");
        assert_eq!(fs::read_to_string(kept.join("0000000100000000000000EE")).unwrap(), "nowhere else");
        // It takes its original's place, and archives as that did.
        let settings = fs::read_to_string(data.join("postgresql.auto.conf")).unwrap();
        assert!(!settings.contains("archive_mode"), "{settings}");
        Ok(())
    })
    .unwrap();
    crate::clusters::out_of_recovery(&server);
    assert_eq!(ids(&server), "2001 3000");
}

#[test]
fn a_stopped_cluster_and_its_tablespaces_are_put_back_and_what_was_there_can_be_had_again() {
    let bank = Bank::new(newest());
    let space = bank.place.at("space");
    fs::create_dir(&space).unwrap();
    bank.give(&space);
    bank.sql(&format!("CREATE TABLESPACE fast LOCATION '{}'", space.display()));
    bank.sql("CREATE TABLE in_space (id int) TABLESPACE fast");
    bank.sql("INSERT INTO ledger VALUES (1)");
    bank.sql("INSERT INTO in_space SELECT generate_series(1, 5000)");
    bank.done(&["backup", "bank"]);
    bank.sql("INSERT INTO ledger VALUES (2)");
    bank.sql("DELETE FROM in_space WHERE id > 10");
    bank.sql("VACUUM in_space");
    bank.stop();
    let data = bank.server.data_directory();
    let ran = bank.done(&[
        "restore",
        "bank",
        "--source",
        "db",
        "--to-dir",
        data.to_str().unwrap(),
        "--immediate",
        "--delta",
        "--yes",
    ]);
    assert!(ran.stdout.contains("a safety copy, kept for 7 days"), "{}", ran.all());
    let said = ran.stdout.replace("PLACE", space.parent().unwrap().to_str().unwrap());
    let told = said.lines().filter(|line| line.trim_start().starts_with("mainstay restore"));
    let ways: Vec<Vec<&str>> =
        told.map(|line| line.split_whitespace().skip(1).chain(["--yes"]).collect()).collect();
    assert_eq!(ways.len(), 2, "of the data directory and of the tablespace\n{}", ran.all());
    {
        let _running = bank.start_again();
        crate::clusters::out_of_recovery(&bank.server);
        assert_eq!(ids(&bank.server), "1 1");
        assert_eq!(bank.sql("SELECT count(*) FROM in_space"), "5000");
        assert_eq!(
            bank.sql("SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'fast'"),
            space.to_str().unwrap()
        );
        let ran = bank.run(&ways[0]);
        assert!(ran.code == 13 && ran.stderr.contains("a server runs on"), "{}", ran.all());
    }
    // What the list says of it, and the way back that was told.
    let list = bank.done(&["list"]);
    assert!(list.stdout.contains("safety copy"), "{}", list.all());
    // Another cluster's part of the same folder is none of its business.
    let other = space.join("PG_9.6_201608131/5");
    fs::create_dir_all(&other).unwrap();
    ways.iter().for_each(|way| drop(bank.done(way)));
    assert!(other.exists());
    let _running = bank.start_again();
    assert_eq!(ids(&bank.server), "2 2");
    assert_eq!(bank.sql("SELECT count(*) FROM in_space"), "10");
}

#[test]
fn without_its_safety_copy_a_stopped_cluster_is_not_overwritten() {
    let bank = Bank::new(newest());
    bank.done(&["backup", "bank"]);
    bank.sql("INSERT INTO ledger VALUES (1)");
    bank.stop();
    let data = bank.server.data_directory();
    let restore = [
        "restore",
        "bank",
        "--source",
        "db",
        "--to-dir",
        data.to_str().unwrap(),
        "--immediate",
        "--delta",
        "--yes",
    ];
    // A link that leads nowhere: not all of it can be read.
    std::os::unix::fs::symlink("/nowhere/at/all", data.join("base/lost")).unwrap();
    let ran = bank.run(&restore);
    assert!(ran.code == 13 && ran.stderr.contains("could not be backed up first"), "{}", ran.all());
    assert!(
        ran.stderr.contains("/nowhere/at/all") && data.join("global/pg_control").exists(),
        "{}",
        ran.all()
    );
    let ran = bank.done(&[&restore[..], &["--no-backup"]].concat());
    assert!(!ran.stdout.contains("safety copy"), "{}", ran.all());
    let ran =
        bank.run(&["restore", "bank", "--source", "db", "--to-dir", "new", "--immediate", "--no-backup"]);
    assert_eq!(ran.code, 2, "nothing is overwritten there\n{}", ran.all());
}

#[test]
fn a_primary_that_was_given_higher_limits_is_followed_beyond_that() {
    let bank = Bank::new(newest());
    let config = with_key_file(&bank);
    bank.done(&["backup", "bank"]);
    bank.sql("INSERT INTO ledger VALUES (1)");
    // Stopped, and started again with more of everything; the server's own program, on the same directory.
    bank.sql("ALTER SYSTEM SET max_connections = 170");
    bank.sql("ALTER SYSTEM SET max_prepared_transactions = 7");
    let _running = bank.restart();
    bank.sql("INSERT INTO ledger VALUES (2)");
    bank.archive_all();
    let raised = |server: &Sandbox| {
        let settings = settings_of(server);
        assert!(settings.contains("max_connections = '170'"), "{settings}");
        assert!(settings.contains("max_prepared_transactions = '7'"), "{settings}");
    };
    // Whether the log is brought or fetched, and by one that never comes to an end.
    for how in ["copy", "fetch"] {
        let server = bank.restored(&["--config", &config, "--at", "latest", "--wal", how]);
        assert_eq!(ids(&server), "2 2", "{how}");
        raised(&server);
    }
    let server = standby(&bank, &config);
    has(&server, 2);
    raised(&server);
}

#[test]
fn a_base_backup_goes_only_where_a_server_of_its_kind_could_run() {
    let bank = Bank::new(newest());
    bank.done(&["backup", "bank"]);
    // What another version has left, stopped.
    let older = crate::started::oldest();
    assert!(older.major < bank.tools.major);
    let options = SandboxOptions::new(older.clone());
    let other = Sandbox::start(&options).unwrap();
    let data = bank.place.at("older");
    let copied = std::process::Command::new("cp").arg("-a").arg(other.data_directory()).arg(&data).status();
    assert!(copied.unwrap().success());
    fs::remove_file(data.join("postmaster.pid")).unwrap();
    let to = data.to_str().unwrap();
    let ran = bank.run(&["restore", "bank", "--source", "db", "--to-dir", to, "--delta", "--yes"]);
    let says = format!(
        "is the data directory of PostgreSQL {}, and the base backup is of PostgreSQL {}",
        older.major, bank.tools.major
    );
    assert!(ran.code == 13 && ran.stderr.contains(&says), "{}", ran.all());
    assert!(data.join("global/pg_control").exists(), "nothing was touched");
}

#[test]
fn every_page_of_a_restored_cluster_has_the_checksum_that_it_should() {
    let bank = Bank::with(newest(), &["--data-checksums"]);
    bank.sql("INSERT INTO ledger SELECT n, repeat('x', 500) FROM generate_series(1, 5000) n");
    bank.done(&["backup", "bank"]);
    bank.sql("UPDATE ledger SET note = 'y' WHERE id % 3 = 0");
    bank.archive_all();
    bank.stop();
    let data = bank.server.data_directory();
    let to = data.to_str().unwrap();
    bank.done(&["restore", "bank", "--source", "db", "--to-dir", to, "--at", "latest", "--delta", "--yes"]);
    {
        let _running = bank.start_again();
        crate::clusters::out_of_recovery(&bank.server);
        assert_eq!(bank.sql("SELECT count(*) FROM ledger WHERE note = 'y'"), "1666");
    }
    bank.checked("pg_checksums", &["--check", "-D", to]);
}

#[test]
fn it_is_said_beforehand_that_a_directory_without_a_control_file_gets_no_safety_copy() {
    let bank = Bank::new(newest());
    bank.done(&["backup", "bank"]);
    bank.stop();
    let data = bank.server.data_directory();
    let delta =
        ["restore", "bank", "--source", "db", "--to-dir", data.to_str().unwrap(), "--immediate", "--delta"];
    let said = |ran: &crate::Ran| ran.stdout.contains("no safety copy is made of");
    let ran = bank.run(&delta);
    assert!(ran.code == 2 && !said(&ran), "{}", ran.all());
    fs::remove_file(data.join("global/pg_control")).unwrap();
    let ran = bank.run(&delta);
    assert!(ran.code == 2 && said(&ran), "before it is asked\n{}", ran.all());
}

/// A snapshot of a stopped server's disk, say: the same cluster twice, and both go on.
fn clone_of(bank: &Bank) -> Sandbox {
    let archiving = SandboxOptions::new(bank.tools.clone())
        .setting("archive_mode", "on")
        .setting("archive_command", &bank.push)
        .setting("full_page_writes", "on");
    Sandbox::start_on(&archiving, &|data| {
        let copied = std::process::Command::new("cp")
            .arg("-a")
            .arg(bank.server.data_directory())
            .arg(data)
            .status()?;
        assert!(copied.success());
        Ok(())
    })
    .unwrap()
}

#[test]
fn a_clone_of_the_machine_cannot_archive_into_its_originals_archive() {
    let bank = Bank::new(newest());
    bank.sql("INSERT INTO ledger VALUES (1)");
    bank.done(&["backup", "bank"]);
    bank.archive_all();
    bank.stop();
    let clone = clone_of(&bank);
    let push = bank.push.replace('\'', "'\\''");
    let _running = bank.start_again_with(&format!("-c archive_mode=on -c archive_command='{push}'"));
    bank.sql("INSERT INTO ledger VALUES (2)");
    bank.archive_all();
    clone.connect("postgres").unwrap().execute("INSERT INTO ledger VALUES (100)").unwrap();
    clone.connect("postgres").unwrap().query("SELECT pg_switch_wal()").unwrap();
    crate::clusters::until(&clone, "SELECT failed_count > 0 FROM pg_stat_archiver");
    assert!(clone.log_tail().contains("is in the archive already"), "{}", clone.log_tail());
    bank.sql("INSERT INTO ledger VALUES (3)");
    bank.archive_all();
    assert_eq!(ids(&bank.restored(&["--at", "latest"])), "3 3");
}

#[test]
fn what_a_clone_archived_first_can_be_taken_out_and_its_original_goes_on() {
    let bank = Bank::new(newest());
    bank.sql("INSERT INTO ledger VALUES (1)");
    bank.done(&["backup", "bank"]);
    bank.archive_all();
    bank.stop();
    let clone = clone_of(&bank);
    let first = clone.connect("postgres").unwrap().query_text("SELECT pg_walfile_name(pg_current_wal_lsn())");
    let first = first.unwrap().unwrap();
    for id in 100..103 {
        let insert = format!("INSERT INTO ledger VALUES ({id})");
        clone.connect("postgres").unwrap().execute(&insert).unwrap();
        crate::clusters::archive_all(&clone);
    }
    clone.stop();
    let push = bank.push.replace('\'', "'\\''");
    let _running = bank.start_again_with(&format!("-c archive_mode=on -c archive_command='{push}'"));
    bank.sql("INSERT INTO ledger VALUES (2)");
    bank.sql("SELECT pg_switch_wal()");
    let refused = format!("SELECT last_failed_wal = '{first}' FROM pg_stat_archiver");
    crate::clusters::until(&bank.server, &refused);
    let ran = bank.run(&["wal", "push", bank.segment(&first).to_str().unwrap()]);
    assert!(ran.code == 13 && ran.stderr.contains(&format!("mainstay wal disown {first}")), "{}", ran.all());

    let keep = bank.place.at("of-the-clone");
    let disown = ["wal", "disown", &first, "--keep-in", keep.to_str().unwrap()];
    let ran = bank.run(&disown);
    assert!(ran.code == 2 && !keep.exists(), "it asks, and nobody is there to answer\n{}", ran.all());
    let ran = bank.done(&[&disown[..], &["--dry-run"]].concat());
    assert!(ran.stdout.contains("files             3") && !keep.exists(), "{}", ran.all());
    bank.done(&[&disown[..], &["--yes"]].concat());
    assert_eq!(fs::read_dir(&keep).unwrap().count(), 3);
    assert_eq!(fs::metadata(keep.join(&first)).unwrap().len(), 16 << 20);
    bank.archive_all();
    bank.sql("INSERT INTO ledger VALUES (3)");
    bank.archive_all();
    assert_eq!(ids(&bank.restored(&["--at", "latest"])), "3 3");
    bank.done(&["verify", "bank"]);
    // What is the primary's own by now, the clone's does not replace either.
    let ran = bank.run(&["wal", "push", keep.join(&first).to_str().unwrap()]);
    assert!(ran.code == 13, "{}", ran.all());
}

#[test]
fn two_clusters_that_archive_into_one_repository_are_kept_apart() {
    let bank = Bank::new(newest());
    bank.sql("INSERT INTO ledger VALUES (1)");
    bank.done(&["backup", "bank"]);
    let other = Sandbox::start(
        &SandboxOptions::new(bank.tools.clone())
            .setting("archive_mode", "on")
            .setting("archive_command", &bank.push)
            .setting("full_page_writes", "on"),
    )
    .unwrap();
    // The same names of segments from both.
    for id in 2..5 {
        bank.sql(&format!("INSERT INTO ledger VALUES ({id})"));
        bank.archive_all();
        other.connect("postgres").unwrap().execute(&format!("CREATE TABLE t{id} (id int)")).unwrap();
        crate::clusters::archive_all(&other);
    }
    let status = bank.done(&["wal", "status", "--json"]);
    assert_eq!(
        status.stdout.lines().filter(|line| line.contains("\"timelines\"")).count(),
        2,
        "{}",
        status.all()
    );
    assert_eq!(ids(&bank.restored(&["--at", "latest"])), "4 4");
}

#[test]
fn a_damaged_page_is_named_and_the_backup_says_that_it_is_not_complete() {
    let bank = Bank::with(newest(), &["--data-checksums"]);
    bank.sql("INSERT INTO ledger SELECT n, repeat('x', 500) FROM generate_series(1, 2000) n");
    bank.sql("CHECKPOINT");
    let path = bank.sql("SELECT pg_relation_filepath('ledger')");
    let file = fs::OpenOptions::new().write(true).open(bank.server.data_directory().join(&path)).unwrap();
    file.write_all_at(&[1, 2, 3], 9 * 8192 + 4000).unwrap();
    let ran = bank.run(&["backup", "bank"]);
    assert!(ran.code == 3, "{}", ran.all());
    assert!(ran.all().contains(&path) && ran.all().contains("block 9 is wrong"), "{}", ran.all());
}

#[test]
fn whatever_keeps_a_fetch_from_beginning_is_not_the_end_of_the_log() {
    let place = Place::new();
    for arguments in [&["wal", "fetch"][..], &["wal", "fetch", "--no-such-option", "a", "b"]] {
        assert_eq!(place.run(arguments).code, 126, "{arguments:?}");
    }
    let ran = place.run(&["wal", "fetch", "000000010000000000000001", "x"]);
    assert_eq!(ran.code, 126, "no configuration\n{}", ran.all());
    assert_eq!(place.run(&["wal", "fetch", "--help"]).code, 0);
    let ran = place.run(&["wal", "push"]);
    assert!((1..=125).contains(&ran.code), "PostgreSQL counts it and tries again\n{}", ran.all());
}
