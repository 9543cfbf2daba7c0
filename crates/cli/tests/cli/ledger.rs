//! Under load, with base backups meanwhile: whatever moment one returns to, exactly what was committed by then is there.

use crate::clusters::{Bank, newest};
use mainstay_sources::postgres::sandbox::Sandbox;
use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A transfer in order of the accounts' numbers, so that no two of them wait for each other in a circle.
const TRANSFER: &str = "\\set a random(1, 1000)
\\set b random(1, 1000)
\\set d random(1, 100)
\\set first least(:a, :b)
\\set second greatest(:a, :b)
BEGIN;
UPDATE accounts SET balance = balance - :d WHERE id = :first;
UPDATE accounts SET balance = balance + :d WHERE id = :second;
INSERT INTO transfers (giver, taker, amount) VALUES (:first, :second, :d);
COMMIT;
";

/// pgbench, ended with this.
struct Load(Child);

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn load(bank: &Bank) -> Load {
    let script = bank.place.at("transfer.sql");
    std::fs::write(&script, TRANSFER).unwrap();
    let mut command = Command::new(bank.tools.program("pgbench"));
    command.args(["-n", "-c", "4", "-T", "3600", "-f"]).arg(&script).arg("postgres");
    command.env("PGHOST", bank.server.socket_directory()).env("PGPORT", bank.server.port().to_string());
    command.env("PGUSER", "postgres").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Load(command.spawn().unwrap())
}

fn text(server: &Sandbox, sql: &str) -> String {
    server.connect("postgres").unwrap().query_text(sql).unwrap().unwrap_or_default()
}

/// What the ledger holds. Balances that do not add up to nothing tell of half a transfer.
const STATE: &str = "SELECT count(*) || ' transfers, ' || coalesce(sum(id), 0) || ', balances '
       || (SELECT sum(balance) FROM accounts) || ', off ' || (SELECT count(*) FROM accounts a WHERE balance <>
            (SELECT coalesce(sum(CASE taker WHEN a.id THEN amount ELSE 0 END - CASE giver WHEN a.id THEN amount ELSE 0 END), 0)
               FROM transfers WHERE giver = a.id OR taker = a.id))
  FROM transfers";

/// The server's clock at an instant at which nobody commits a transfer, and the ledger then.
fn moment(bank: &Bank) -> (String, String) {
    let mut session = bank.server.connect("postgres").unwrap();
    session.execute("BEGIN; LOCK TABLE transfers IN EXCLUSIVE MODE").unwrap();
    let at = session.query_text("SELECT clock_timestamp()").unwrap().unwrap();
    let state = session.query_text(STATE).unwrap().unwrap();
    session.execute("COMMIT").unwrap();
    (at, state)
}

fn await_transfers(bank: &Bank, more: u64) {
    let count = || text(&bank.server, "SELECT count(*) FROM transfers").parse::<u64>().unwrap();
    let (wanted, deadline) = (count() + more, Instant::now() + Duration::from_secs(300));
    while count() < wanted {
        assert!(Instant::now() < deadline, "pgbench writes nothing\n{}", bank.server.log_tail());
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

#[test]
fn under_load_any_moment_brings_exactly_what_was_committed_by_then() {
    // `make test-all` looks at twenty, minutes apart in work.
    let moments = std::env::var("MAINSTAY_MOMENTS").map_or(4, |n| n.parse::<usize>().unwrap());
    let between = if moments < 20 { 300 } else { 5_000 };
    let bank = Bank::new(newest());
    let made = "CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL DEFAULT 0);
                CREATE TABLE transfers (id bigserial PRIMARY KEY, giver int REFERENCES accounts, taker int REFERENCES accounts, amount int);
                CREATE INDEX ON transfers (giver); CREATE INDEX ON transfers (taker);
                INSERT INTO accounts (id) SELECT generate_series(1, 1000)";
    bank.server.connect("postgres").unwrap().execute(made).unwrap();
    let writing = load(&bank);
    await_transfers(&bank, 100);
    bank.done(&["backup", "bank"]);

    let mut seen = Vec::new();
    std::thread::scope(|scope| {
        // A second base backup, while moments are taken.
        let second = scope.spawn(|| {
            await_transfers(&bank, between);
            bank.done(&["backup", "bank"])
        });
        for number in 0..moments as u64 {
            await_transfers(&bank, between / 2 + between * (number * 7919 % 13) / 13);
            seen.push(moment(&bank));
        }
        second.join().unwrap();
    });
    drop(writing);
    bank.archive_all();

    for (at, state) in &seen {
        let server = bank.restored(&["--at", at]);
        assert_eq!(text(&server, STATE), *state, "at {at}");
        assert!(state.ends_with("balances 0, off 0"), "{state}");
    }
}
