//! Looks at a source without reading rows: can it be reached, is it what it seems, would a capture be whole?

use super::{
    dumps, leader,
    plan::{self, Plan},
    verdict::{self, Verdict},
};
use crate::postgres::{
    config::{PostgresConfig, Rules},
    facts::Priority,
    inspect,
    tools::{self, Purpose},
};
use mainstay_domain::{
    ByteSize, Failure,
    point::{Problem, State},
};

/// What a capture would find.
#[derive(Debug, Clone)]
pub struct Probe {
    /// The address, without secrets.
    pub target: String,
    /// As the server says it.
    pub server_version: String,
    pub database: String,
    pub encrypted: bool,
    pub pg_dump: String,
    /// Tables whose rows would be captured.
    pub tables: u64,
    /// On disk, indexes left out: an estimate of what is to be read.
    pub estimate: ByteSize,
    /// The state that a capture would have, as far as can be seen.
    pub state: State,
    pub problems: Vec<Problem>,
}

/// Connects, checks versions, tools and rights, and plans. Takes no lock on any table for longer than a moment.
///
/// # Errors
/// As [`capture`](super::capture()).
pub fn probe(config: &PostgresConfig) -> Result<Probe, Failure> {
    config.validate()?;
    let rules = Rules::new(config)?;
    let spec = config.connect_spec()?;
    let (mut connection, _, session) = leader::open(&spec)?;
    let tools =
        tools::find(Purpose::Dump, connection.server_version_num() / 10_000, config.bin_dir.as_deref())?;
    spec.children_can_verify()?;
    connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; SET LOCAL lock_timeout = '10s'")?;
    let inventory = inspect::inspect(&mut connection)?;
    let listed = leader::list(&mut connection)?;
    let measures = plan::measure(&mut connection, &listed)?;
    let encoding = session.get("client_encoding").cloned().unwrap_or_default();
    let planned: Plan = plan::plan(config, &rules, &inventory, &listed, &measures, &encoding, &spec.user);
    plan::try_filters(&mut connection, &planned)?;
    let broken = plan::broken_references(&mut connection, &planned)?;
    let (objects, hidden) = dumps::count_large_objects(&mut connection)?;
    let mut verdict = Verdict::default();
    // Nothing is copied yet: only what was expected of tables cannot be judged.
    verdict::tables(&mut verdict, config, &rules, &inventory, &planned, &broken, false);
    if hidden > 0 {
        let reason = format!("{hidden} of {objects} may not be read by {}", spec.user);
        verdict.unread(Priority::Important, "set of large objects", "large objects", reason);
    }
    Ok(Probe {
        target: spec.describe(),
        server_version: connection.parameter("server_version").unwrap_or_default().to_owned(),
        database: inventory.database.name.clone(),
        encrypted: connection.encrypted(),
        pg_dump: tools.version,
        tables: planned.tables.iter().filter(|t| t.data.skipped.is_none()).count() as u64,
        estimate: ByteSize(planned.bytes),
        state: verdict.state(),
        problems: verdict.problems,
    })
}
