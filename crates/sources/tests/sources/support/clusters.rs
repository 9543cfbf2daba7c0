//! A cluster to be backed up: how it is captured and asked, and what is in it.

use super::memory::Memory;
use mainstay_domain::{Clock, Silent, SystemClock, Time, point::SourceRecord};
use mainstay_sources::postgres::{
    cluster::{
        self, ClusterConfig, ClusterFacts,
        restore::{self, Recovery, Target},
    },
    sandbox::{Sandbox, SandboxOptions},
    secret::SecretText,
};
use std::{
    os::unix::{fs::MetadataExt, process::CommandExt},
    process::Command,
};

pub const KEY: [u8; 32] = [3; 32];

/// Ten seconds on: files written just now are not fresh to it.
pub struct Later;

impl Clock for Later {
    fn now(&self) -> Time {
        SystemClock.now().plus(10 * mainstay_domain::time::SECOND)
    }
}

pub fn config(server: &Sandbox) -> ClusterConfig {
    let url = format!("postgres://postgres@localhost/postgres?host={}", server.socket_directory().display());
    ClusterConfig::new(SecretText::Plain(url.into()))
}

pub fn options<'a>(memory: &'a Memory, previous: Option<&'a SourceRecord>) -> cluster::Options<'a> {
    let previous = previous.map(|record| (memory as _, record));
    cluster::Options { page_key: KEY, full: false, previous, clock: &Later }
}

/// A base backup as the configuration has it without a word about the way.
pub fn capture(server: &Sandbox, memory: &Memory, previous: Option<&SourceRecord>) -> SourceRecord {
    cluster::capture(&config(server), memory, &options(memory, previous), &Silent).unwrap()
}

pub fn facts(record: &SourceRecord) -> ClusterFacts {
    ClusterFacts::from_json(&record.facts).unwrap()
}

pub fn text(server: &Sandbox, sql: &str) -> String {
    server.connect("postgres").unwrap().query_text(sql).unwrap().unwrap_or_default()
}

pub fn execute(server: &Sandbox, sql: &str) {
    server.connect("postgres").unwrap().execute(sql).unwrap();
}

/// Waits until a query says true.
pub fn until(server: &Sandbox, sql: &str) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while text(server, sql) != "t" {
        assert!(std::time::Instant::now() < deadline, "it does not come true: {sql}\n{}", server.log_tail());
        std::thread::park_timeout(std::time::Duration::from_millis(20));
    }
}

/// Runs one of the server's programs as the user that owns its data, which it finds by PGDATA; what it printed, or why it failed.
pub fn program(server: &Sandbox, name: &str, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(server.tools().program(name));
    command.env("PGDATA", server.data_directory()).args(arguments).current_dir("/");
    if rustix::process::geteuid().is_root() {
        let owner = std::fs::metadata(server.data_directory()).unwrap();
        command.uid(owner.uid()).gid(owner.gid());
    }
    let output = command.output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    if output.status.success() { Ok(said) } else { Err(said) }
}

/// Settings of a standby that streams from `primary`.
pub fn following(options: SandboxOptions, primary: &Sandbox) -> SandboxOptions {
    let address =
        format!("host={} port={} user=postgres", primary.socket_directory().display(), primary.port());
    options.setting("primary_conninfo", &address).setting("hot_standby", "on")
}

/// The recovery of a standby without an archive, which goes on until it is promoted.
pub fn standby_mode() -> Recovery {
    Recovery {
        target: Target::Latest,
        timeline: 1,
        restore_command: "false".into(),
        action: restore::Action::Promote,
        standby: true,
        primary: None,
        archive: false,
    }
}

/// Waits until a standby has replayed what its primary has written.
pub fn caught_up(standby: &Sandbox, primary: &Sandbox) {
    let all = text(primary, "SELECT pg_current_wal_flush_lsn()");
    until(standby, &format!("SELECT pg_last_wal_replay_lsn() >= '{all}'"));
}

/// Something to back up and to change.
pub fn fill(server: &Sandbox) {
    execute(
        server,
        "CREATE TABLE ledger (id int PRIMARY KEY, balance int, filler text);
         INSERT INTO ledger SELECT n, 0, repeat(md5(n::text), 4) FROM generate_series(1, 20000) n;
         CREATE UNLOGGED TABLE scratch AS SELECT generate_series(1, 1000) AS n;
         CREATE INDEX ON ledger (balance); CHECKPOINT",
    );
}

pub const SUM: &str = "SELECT count(*) || ' ' || sum(hashtext(ledger::text)::bigint) FROM ledger";
