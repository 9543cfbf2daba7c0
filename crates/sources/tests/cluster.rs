//! Base backups of running servers, restored into other servers.
#![allow(clippy::unwrap_used)] // in tests

#[path = "support/memory.rs"]
mod memory;
#[path = "support/postgres.rs"]
mod support;

use mainstay_domain::{Clock, Silent, SystemClock, Time, point::SourceRecord, point::State};
use mainstay_sources::postgres::{
    cluster::{self, ClusterConfig, ClusterFacts, restore},
    sandbox::{Sandbox, SandboxOptions},
    secret::SecretText,
};
use memory::Memory;
use std::path::Path;

const KEY: [u8; 32] = [3; 32];

/// Ten seconds on: files written just now are not fresh to it.
struct Later;

impl Clock for Later {
    fn now(&self) -> Time {
        SystemClock.now().plus(10 * mainstay_domain::time::SECOND)
    }
}

fn config(server: &Sandbox) -> ClusterConfig {
    let url = format!("postgres://postgres@localhost/postgres?host={}", server.socket_directory().display());
    ClusterConfig::new(SecretText::Plain(url.into()))
}

fn capture(server: &Sandbox, memory: &Memory, previous: Option<&SourceRecord>) -> SourceRecord {
    let options = cluster::Options {
        page_key: KEY,
        full: false,
        previous: previous.map(|record| (memory as _, record)),
        clock: &Later,
    };
    cluster::capture(&config(server), memory, &options, &Silent).unwrap()
}

fn facts(record: &SourceRecord) -> ClusterFacts {
    ClusterFacts::from_json(&record.facts).unwrap()
}

/// A server that is started on what a record holds.
fn started(server: SandboxOptions, memory: &Memory, record: &SourceRecord) -> Sandbox {
    Sandbox::start_on(&server, &|data: &Path| {
        let options = restore::Options { sync: false, ..restore::Options::new(data.to_owned()) };
        restore::restore(memory, record, &options, &mut |_| Ok(()), &Silent)
            .map_err(std::io::Error::other)?;
        Ok(())
    })
    .unwrap()
}

fn text(server: &Sandbox, sql: &str) -> String {
    server.connect("postgres").unwrap().query_text(sql).unwrap().unwrap_or_default()
}

/// Runs pgbench's tables in, so that there is something to change.
fn fill(server: &Sandbox) {
    server
        .connect("postgres")
        .unwrap()
        .execute(
            "CREATE TABLE ledger (id int PRIMARY KEY, balance int, filler text);
             INSERT INTO ledger SELECT n, 0, repeat(md5(n::text), 4) FROM generate_series(1, 20000) n;
             CREATE UNLOGGED TABLE scratch AS SELECT generate_series(1, 1000) AS n;
             CREATE INDEX ON ledger (balance); CHECKPOINT",
        )
        .unwrap();
}

const SUM: &str = "SELECT count(*) || ' ' || sum(hashtext(ledger::text)::bigint) FROM ledger";

#[test]
fn every_version_comes_back_as_it_was_and_the_next_backup_stores_what_changed() {
    for tools in support::versions() {
        let major = tools.major;
        let server = Sandbox::start(&SandboxOptions::new(tools.clone())).unwrap();
        fill(&server);
        let memory = Memory::default();
        let first = capture(&server, &memory, None);
        assert_eq!(first.state, State::Complete, "{major}: {:?}", first.problems);

        server
            .connect("postgres")
            .unwrap()
            .execute("UPDATE ledger SET balance = 1 WHERE id % 5000 = 7")
            .unwrap();
        let before = text(&server, SUM);
        let second = capture(&server, &memory, Some(&first));
        let (all, changed) = (facts(&second).counts.bytes, facts(&second).counts.changed_bytes);
        assert!(changed < all / 4, "{major}: {changed} of {all} bytes differed");
        assert!(facts(&second).counts.unchanged_files > 100, "{major}");

        let restored = started(SandboxOptions::new(tools), &memory, &second);
        assert_eq!(text(&restored, SUM), before, "{major}");
        assert_eq!(
            text(&restored, "SELECT count(*) FROM scratch"),
            "0",
            "{major}: unlogged tables are emptied"
        );
        assert_eq!(text(&restored, "SELECT pg_is_in_recovery()"), "f");
    }
}
