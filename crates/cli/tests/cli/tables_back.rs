//! Tables that are taken back to a moment: what is left where it breaks off, and what they are beside the living ones.

use crate::{
    Ran,
    clusters::{Bank, newest},
};
use std::{fs, os::unix::fs::PermissionsExt, path::Path};

/// The same with temporary files in a folder of the test's own.
fn within(bank: &Bank, temporary: &Path, arguments: &[&str]) -> Ran {
    let output = bank.command(arguments).env("TMPDIR", temporary).output().unwrap();
    bank.place.ran(output)
}

fn recoveries(temporary: &Path) -> usize {
    let entries = fs::read_dir(temporary).unwrap().flatten();
    entries.filter(|entry| entry.file_name().to_str().unwrap().starts_with("mainstay-recovery-")).count()
}

#[test]
fn a_recovery_that_was_killed_is_named_by_the_doctor_and_goes_with_the_next_one() {
    let bank = Bank::new(newest());
    bank.sql("INSERT INTO ledger VALUES (1)");
    bank.done(&["backup", "bank"]);
    bank.archive_all();
    let temporary = bank.place.at("tmp");
    fs::create_dir(&temporary).unwrap();
    bank.give(&temporary);
    let back = [
        "restore",
        "bank",
        "--source",
        "db",
        "--at",
        "latest",
        "--to-database",
        "postgres",
        "--table",
        "ledger",
        "--yes",
    ];
    // Its own hook kills it, when the table was taken out of the recovered cluster.
    let config = fs::read_to_string(bank.place.at("mainstay.yaml")).unwrap();
    let killing = config.replace(
        "bank: { repository: main,",
        "bank: { repository: main, hooks: { before_restore: \"kill -9 $PPID\" },",
    );
    assert_ne!(killing, config);
    let other = bank.place.write("killing.yaml", &killing);
    fs::set_permissions(&other, fs::Permissions::from_mode(0o644)).unwrap();
    let killed = [&["--config", other.to_str().unwrap()], &back[..]].concat();
    let output = bank.command(&killed).env("TMPDIR", &temporary).output().unwrap();
    assert!(output.status.code().is_none(), "it was killed: {output:?}");
    assert_eq!(recoveries(&temporary), 1);

    let ran = within(&bank, &temporary, &["doctor"]);
    assert!(
        ran.all().contains("mainstay-recovery-") && ran.all().contains("holds what was restored"),
        "{}",
        ran.all()
    );
    assert_eq!(recoveries(&temporary), 1, "a doctor changes nothing");
    let ran = within(&bank, &temporary, &back);
    assert!(ran.code == 0 && recoveries(&temporary) == 0, "{}", ran.all());
}

#[test]
fn a_table_beside_is_no_child_of_the_living_parent() {
    let bank = Bank::new(newest());
    bank.server
        .connect("postgres")
        .unwrap()
        .execute(
            "CREATE TABLE payments (id int, cents int);
             CREATE TABLE card_payments (card text) INHERITS (payments);
             INSERT INTO card_payments SELECT n, n, 'x' FROM generate_series(1, 100) n",
        )
        .unwrap();
    bank.done(&["backup", "bank"]);
    bank.archive_all();
    let back = ["restore", "bank", "--source", "db", "--at", "latest", "--to-database", "postgres", "--yes"];
    let ran = bank.run(&[&back[..], &["--table", "card_payments", "--to-schema", "then"]].concat());
    assert!(ran.code == 0 && ran.stdout.contains("Equal to what was captured: 100 rows"), "{}", ran.all());
    assert_eq!(bank.sql("SELECT count(*) || ' ' || sum(cents) FROM \"then\".card_payments"), "100 5050");
    assert_eq!(bank.sql("SELECT count(*) FROM payments"), "100", "no row is read twice");
    // Parent and child together are a family of their own.
    bank.done(
        &[&back[..], &["--table", "payments", "--table", "card_payments", "--to-schema", "both"]].concat(),
    );
    assert_eq!(
        bank.sql("SELECT count(*) || ' ' || (SELECT count(*) FROM payments) FROM \"both\".payments"),
        "100 100"
    );
    // In the living one's place it is the parent's child again.
    let ran = bank.run(&[&back[..], &["--table", "card_payments", "--swap"]].concat());
    assert_eq!(ran.code, 0, "{}", ran.all());
    assert_eq!(bank.sql("SELECT count(*) || ' ' || sum(cents) FROM payments"), "100 5050");
}

#[test]
fn what_stands_against_a_merge_is_said_before_a_server_is_recovered() {
    let bank = Bank::new(newest());
    bank.sql("CREATE TABLE keyless (n int)");
    bank.sql("INSERT INTO ledger VALUES (1), (2)");
    bank.done(&["backup", "bank"]);
    bank.archive_all();
    let temporary = bank.place.at("tmp");
    fs::create_dir(&temporary).unwrap();
    bank.give(&temporary);
    let back = ["restore", "bank", "--source", "db", "--at", "latest", "--to-database", "postgres", "--yes"];
    let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'mainstay%'";
    for (more, says) in [
        (&["--table", "keyless", "--merge", "missing"][..], "it has no primary key"),
        (&["--table", "ledger", "--merge", "missing", "--where", "id >"], "makes no sense for public.ledger"),
        (&["--table", "ledger", "--merge", "missing", "--where", "id > 'x'::date"], "makes no sense"),
        (&["--table", "nobody", "--merge", "missing"], "public.nobody is not in the database postgres"),
        (&["--table", "nobody", "--swap"], "public.nobody is not in the database postgres"),
    ] {
        // A recovery would say so.
        let ran = within(&bank, &temporary, &[&back[..], more].concat());
        assert!(ran.code == 2 && ran.stderr.contains(says), "{more:?}\n{}", ran.all());
        assert!(!ran.all().contains("recovery"), "{more:?}\n{}", ran.all());
        assert_eq!(bank.sql(schemas), "0", "{more:?}");
    }
    // One that may have been dropped since is looked for.
    let ran = bank.run(&[&back[..], &["--table", "nobody"]].concat());
    assert!(ran.code == 2 && ran.stderr.contains("It had: public.keyless, public.ledger."), "{}", ran.all());
    assert_eq!(bank.sql(schemas), "0");
}

#[test]
fn what_was_put_beside_the_living_ones_is_dropped_by_the_command_that_is_told() {
    let bank = Bank::new(newest());
    bank.sql("CREATE TABLE gone (n int)");
    bank.sql("INSERT INTO ledger VALUES (1), (2)");
    bank.done(&["backup", "bank"]);
    bank.archive_all();
    bank.sql("DROP TABLE gone");
    let back = ["restore", "bank", "--source", "db", "--at", "latest", "--to-database", "postgres", "--yes"];
    let merged = ["--table", "ledger", "--merge", "missing"];
    // One with an error that only the merge itself meets.
    let refused = ["--table", "ledger", "--merge", "missing", "--where", "id / 0 > 1"];
    for (more, code) in [(&merged[..], 0), (&refused, 1), (&["--table", "gone"], 0)] {
        let ran = bank.run(&[&back[..], more].concat());
        assert_eq!(ran.code, code, "{}", ran.all());
        let said = ran.all();
        let told = said.split("mainstay restore ").nth(1).unwrap().lines().next().unwrap();
        assert!(told.contains("--drop-old mainstay_"), "{said}");
        let words: Vec<&str> =
            ["restore"].into_iter().chain(told.split_whitespace()).chain(["--yes"]).collect();
        bank.done(&words);
        assert_eq!(bank.sql("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'mainstay%'"), "0");
    }
    // A schema that somebody made is nobody's to drop.
    bank.sql("CREATE SCHEMA mainstay_mine");
    let drop = ["restore", "bank", "--to-database", "postgres", "--drop-old", "mainstay_mine", "--yes"];
    assert_eq!(bank.run(&drop).code, 2);
}
