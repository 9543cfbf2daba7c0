//! Damage and gaps in the archived log: who says so, and what can be reached all the same.

use crate::clusters::{Bank, archived, ids, newest, until};
use std::{fs, path::Path};

/// A row in each segment; the moment before each.
fn write_rows(bank: &Bank, rows: std::ops::RangeInclusive<i32>) -> Vec<String> {
    let mut moments = Vec::new();
    for id in rows {
        moments.push(bank.sql("SELECT clock_timestamp()"));
        bank.sql(&format!("INSERT INTO ledger VALUES ({id})"));
        bank.archive_all();
    }
    moments
}

/// Changes bytes of a stored object from an offset on.
fn damage(path: &Path, from: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[from..from + 20].iter_mut().for_each(|byte| *byte ^= 0x55);
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_damaged_segment_is_found_named_and_harms_no_moment_before_it() {
    let bank = Bank::new(newest());
    bank.done(&["backup", "bank"]);
    let moments = write_rows(&bank, 1..=6);
    let ran = bank.done(&["verify", "bank", "--level", "restore"]);
    assert!(ran.stdout.contains("archived segments; "), "the log was replayed\n{}", ran.all());
    bank.done(&["verify", "bank"]);

    let stored = archived(&bank);
    let fourth = &stored[stored.len() - 3];
    let name = fourth.file_name().unwrap().to_str().unwrap().to_owned();
    let middle = fs::metadata(fourth).unwrap().len() as usize / 2;
    // In its content, and then in what it says of itself.
    for place in [middle, 100] {
        damage(fourth, place);
        for level in ["packs", "data", "restore"] {
            let ran = bank.run(&["verify", "bank", "--level", level]);
            assert!(ran.code == 4 && ran.stdout.contains(&name), "{level}\n{}", ran.all());
        }
        let ran = bank.run(&["verify", "bank", "--level", "data"]);
        assert!(ran.stdout.contains("no base backup was made since: make one now"), "{}", ran.all());

        // Between the second and the third row, of which the log is whole.
        assert_eq!(ids(&bank.restored(&["--at", &moments[2]])), "2 2");
        for target in ["latest", &moments[5], &moments[3], "2090-01-01 00:00:00Z"] {
            let ran = bank.run(&[
                "restore",
                "bank",
                "--source",
                "db",
                "--to-dir",
                "never",
                "--at",
                target,
                "--dry-run",
            ]);
            assert!(ran.code == 14 && ran.stderr.contains(&name), "{target}\n{}", ran.all());
            assert!(ran.stderr.contains("Up to there it goes with --lsn "), "{target}\n{}", ran.all());
            let lsn = ran.stderr.split("--lsn ").nth(1).unwrap().split_whitespace().next().unwrap();
            if target == "latest" {
                assert_eq!(ids(&bank.restored(&["--lsn", lsn])), "3 3");
            }
        }
    }

    // A backup reads back the log that nobody has read since the last one; from it on, it goes again.
    let ran = bank.run(&["backup", "bank"]);
    assert!(ran.code == 4 && ran.all().contains(&name), "{}", ran.all());
    write_rows(&bank, 7..=8);
    assert_eq!(ids(&bank.restored(&["--at", "latest"])), "8 8");
    let ran = bank.done(&["verify", "bank", "--level", "restore"]);
    assert!(ran.stdout.contains("passed"), "of the new base backup\n{}", ran.all());
    let ran = bank.run(&["verify", "bank"]);
    assert!(ran.code == 4 && ran.stdout.contains("from base backup "), "{}", ran.all());
    bank.done(&["backup", "bank"]);

    // The server may have its own copy still.
    let own = bank.segment(&name);
    if own.exists() {
        bank.done(&["wal", "push", "--replace-damaged", own.to_str().unwrap()]);
        bank.done(&["verify", "bank"]);
    }
}

#[test]
fn a_missing_segment_and_a_damaged_history_are_findings_of_every_check() {
    let bank = Bank::new(newest());
    bank.done(&["backup", "bank"]);
    write_rows(&bank, 1..=4);
    let stored = archived(&bank);
    let third = &stored[stored.len() - 2];
    let name = third.file_name().unwrap().to_str().unwrap();
    let kept = fs::read(third).unwrap();
    fs::remove_file(third).unwrap();
    for level in ["objects", "packs", "restore"] {
        let ran = bank.run(&["verify", "bank", "--level", level]);
        assert!(
            ran.code == 4 && ran.stdout.contains(&format!("{name} is missing")),
            "{level}\n{}",
            ran.all()
        );
    }
    // Whatever else there is to say of it (it was never proven, say): the gap is said until a base backup is made after it.
    let concerned = |bank: &Bank| {
        let ran = bank.run(&["status", "--check"]);
        assert_eq!(ran.code, 5, "{}", ran.all());
        ran.stdout.contains(&format!("{name} is missing. Recovery along this timeline ends at "))
    };
    assert!(concerned(&bank));
    fs::write(third, kept).unwrap();
    bank.done(&["verify", "bank"]);
    assert!(!concerned(&bank));
    fs::remove_file(third).unwrap();
    // It is told when the backup is read back, and harms none but the older one.
    let first = bank.done(&["list", "--json"]);
    let first: serde_json::Value = serde_json::from_str(first.stdout.lines().next().unwrap()).unwrap();
    let ran = bank.done(&["backup", "bank"]);
    assert!(ran.all().contains(&format!("{name} is missing")), "{}", ran.all());
    assert!(!concerned(&bank));
    let ran = bank.done(&["verify", "bank"]);
    assert!(ran.stderr.contains(&format!("{name} is missing")), "{}", ran.all());
    bank.done(&["verify", "bank", "--level", "restore"]);
    let ran = bank.run(&["verify", "bank", "--level", "restore", "--point", first["id"].as_str().unwrap()]);
    assert!(ran.code == 3 && ran.stdout.contains("the archived WAL was not replayed"), "{}", ran.all());
}

#[test]
fn an_archiver_that_fails_is_said_by_status_and_by_wal_status() {
    let bank = Bank::with_settings(newest(), &[], &[("archive_command", "false")]);
    bank.done(&["backup", "bank"]);
    until(&bank.server, "SELECT failed_count > 0 FROM pg_stat_archiver");
    let name = bank.sql("SELECT last_failed_wal FROM pg_stat_archiver");
    for arguments in [&["wal", "status"][..], &["status"]] {
        let ran = bank.done(arguments);
        assert!(
            ran.stdout.contains(&format!("archiver fails: {name} could not be archived")),
            "{}",
            ran.all()
        );
    }
    assert_eq!(bank.run(&["status", "--check"]).code, 5);
    assert!(bank.run(&["doctor"]).all().contains("archiver fails"));

    let well = Bank::new(newest());
    well.archive_all();
    let ran = well.done(&["wal", "status"]);
    assert!(ran.stdout.contains("last archived 0000000100000000000000"), "{}", ran.all());
    assert!(!ran.stdout.contains("archiver fails"), "{}", ran.all());
    let off = Bank::with_settings(newest(), &[], &[("archive_command", "")]);
    let ran = off.done(&["wal", "status"]);
    assert!(ran.stdout.contains("archive_command is empty: nothing is archived"), "{}", ran.all());
}
