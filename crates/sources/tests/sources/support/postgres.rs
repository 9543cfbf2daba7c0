//! Real PostgreSQL servers for tests: one throw-away cluster for each test that asks for one.

use super::memory::Memory;
use mainstay_domain::{Failure, Silent, SystemClock, point::SourceRecord};
use mainstay_sources::postgres::{
    capture,
    config::PostgresConfig,
    facts::Facts,
    sandbox::{Sandbox, SandboxOptions},
    tools::{self, Purpose, Tools},
};
use std::path::PathBuf;

/// The versions that are promised.
const PROMISED: [u32; 5] = [14, 15, 16, 17, 18];

/// Every PostgreSQL that is promised, by its version: Debian's, and the trees that the set-up script fetched. One that is
/// not installed fails the test, so that the promise does not shrink in silence; fewer are tested only where
/// `MAINSTAY_POSTGRES=15,18` names them.
pub fn versions() -> Vec<Tools> {
    let mut found = tools::installed(Purpose::Server, None);
    if std::env::var_os("MAINSTAY_PG_TREES").is_none() {
        let trees = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../.setup/postgresql");
        // By the path that the servers' user can take, where the checkout is closed to others.
        let trees = trees.canonicalize().unwrap_or(trees);
        found.extend(tools::installed(Purpose::Server, Some(&trees)));
    }
    found.retain(|t| Tools::at(&t.bin_dir, Purpose::Dump).is_some());
    found.sort_by_key(|t| t.major);
    found.dedup_by_key(|t| t.major);
    let mut wanted: Vec<u32> = match std::env::var("MAINSTAY_POSTGRES") {
        Ok(named) => named.split(',').map(|major| major.trim().parse().unwrap()).collect(),
        Err(_) => PROMISED.to_vec(),
    };
    wanted.sort_unstable();
    found.retain(|t| wanted.contains(&t.major));
    let majors: Vec<u32> = found.iter().map(|t| t.major).collect();
    assert_eq!(
        majors, wanted,
        "a PostgreSQL server is not installed: run the set-up script, or name those that are in MAINSTAY_POSTGRES"
    );
    found
}

/// The version that most tests use.
pub fn default_tools() -> Tools {
    let mut found = versions();
    let at = found.iter().position(|t| t.major == 15).unwrap_or(found.len() - 1);
    found.swap_remove(at)
}

pub fn options() -> SandboxOptions {
    SandboxOptions::new(default_tools())
}

pub fn sandbox() -> Sandbox {
    Sandbox::start(&options()).unwrap()
}

/// The configuration of a database of the sandbox, as its superuser, or as another user.
pub fn config(sandbox: &Sandbox, database: &str, user: &str) -> PostgresConfig {
    let host = sandbox.socket_directory().display();
    let port = sandbox.port();
    let url = format!("postgres://{user}@/{database}?host={host}&port={port}");
    PostgresConfig {
        bin_dir: Some(sandbox.tools().bin_dir.clone()),
        ..PostgresConfig::new(url.as_str().into())
    }
}

/// The same with rules, as JSON.
pub fn with_rules(config: PostgresConfig, rules: &str) -> PostgresConfig {
    PostgresConfig { tables: serde_json::from_str(rules).unwrap(), ..config }
}

/// The key for row digests in tests.
pub const ROW_KEY: [u8; 16] = *b"row key of tests";

pub fn capture(config: &PostgresConfig, memory: &Memory) -> Result<SourceRecord, Failure> {
    capture::capture(config, memory, ROW_KEY, &SystemClock, &Silent)
}

pub fn facts(record: &SourceRecord) -> Facts {
    Facts::from_json(&record.facts).unwrap()
}

/// A table's rows as captured, in order of their text.
pub fn rows(record: &SourceRecord, memory: &Memory, schema: &str, name: &str) -> Vec<String> {
    let facts = facts(record);
    let table = facts.table(schema, name).unwrap();
    let mut bytes = Vec::new();
    for stream in &table.streams {
        bytes.extend(memory.bytes(&record.stream(stream).unwrap().content));
    }
    assert_eq!(bytes.len() as u64, table.bytes);
    let mut rows: Vec<String> =
        String::from_utf8(bytes).unwrap().split_terminator('\n').map(str::to_owned).collect();
    assert_eq!(rows.len() as u64, table.rows);
    rows.sort();
    rows
}

/// The messages about one object.
pub fn problems<'a>(record: &'a SourceRecord, object: &str) -> Vec<&'a str> {
    record.problems.iter().filter(|p| p.object == object).map(|p| p.message.as_str()).collect()
}
