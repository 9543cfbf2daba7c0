//! A table of a moment takes the place of the living one, on the command line.

use crate::clusters::{Bank, newest};

#[test]
fn a_table_of_a_moment_takes_the_living_ones_place_and_the_old_one_goes_when_it_is_told_to() {
    let bank = Bank::new(newest());
    let sql = |text: &str| bank.server.connect("postgres").unwrap().execute(text).unwrap();
    sql("CREATE TABLE accounts (id int PRIMARY KEY, owner text);
         CREATE TABLE bookings (id int PRIMARY KEY, account int REFERENCES accounts, cents int);
         CREATE VIEW sums AS SELECT account, sum(cents) AS cents FROM bookings GROUP BY account;
         INSERT INTO accounts SELECT n, 'owner ' || n FROM generate_series(1, 10) n;
         INSERT INTO bookings SELECT n, 1 + n % 10, n FROM generate_series(1, 100) n");
    bank.done(&["backup", "bank"]);
    sql("INSERT INTO bookings VALUES (101, 1, 5)");
    let moment = bank.sql("SELECT clock_timestamp()");
    sql(
        "DELETE FROM bookings WHERE id > 40; UPDATE bookings SET cents = 0 WHERE id <= 3; INSERT INTO bookings VALUES (500, 1, 1)",
    );
    bank.archive_all();

    let back = ["restore", "bank", "--source", "db", "--at", &moment, "--to-database", "postgres", "--yes"];
    let ran = bank.run(&[&back[..], &["--table", "bookings", "--swap"]].concat());
    assert_eq!(ran.code, 0, "{}", ran.all());
    let counts = "public.bookings: 1 row only in the living one, 61 rows only in the restored one, 3 in both with other values.";
    assert!(ran.stdout.contains(counts), "{}", ran.all());
    assert!(ran.stdout.contains("follows: view public.sums"), "{}", ran.all());
    assert_eq!(bank.sql("SELECT count(*) || ' ' || sum(cents) FROM bookings"), "101 5055");
    assert_eq!(bank.sql("SELECT sum(cents) FROM sums"), "5055");

    let line = ran.stdout.lines().find(|line| line.contains("--drop-old")).unwrap();
    let kept = line.rsplit(' ').next().unwrap();
    assert_eq!(bank.sql(&format!("SELECT count(*) FROM {kept}.bookings")), "41");
    bank.done(&["restore", "bank", "--to-database", "postgres", "--drop-old", kept, "--yes"]);
    assert_eq!(bank.sql("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'mainstay%'"), "0");
    assert_eq!(bank.sql("SELECT sum(cents) FROM sums"), "5055");

    // A parent goes back only with those that refer to it: they are named.
    sql(
        "DELETE FROM bookings WHERE account = 3; UPDATE accounts SET id = 30 WHERE id = 3; INSERT INTO bookings VALUES (600, 30, 1)",
    );
    let ran = bank.run(&[&back[..], &["--table", "accounts", "--swap"]].concat());
    assert!(ran.code == 13 && ran.stderr.contains("1 rows of public.bookings refer"), "{}", ran.all());
    assert_eq!(bank.sql("SELECT count(*) FROM accounts WHERE id = 30"), "1", "nothing is changed");
    let ran = bank.run(
        &[&back[..], &["--table", "accounts", "--table", "bookings", "--to-schema", "x", "--swap"]].concat(),
    );
    assert_eq!(ran.code, 0, "{}", ran.all());
    assert_eq!(bank.sql("SELECT sum(cents) FROM sums"), "5055");
}
