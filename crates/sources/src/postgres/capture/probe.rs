//! Looks at a source without reading rows: can it be reached, is it what it seems, would a capture be whole?

use super::{
    dumps,
    leader::Leader,
    plan::{self, Plan},
    sorting,
    verdict::{self, Verdict},
};
use crate::postgres::{
    config::{PostgresConfig, Rules},
    facts::Priority,
    tools::{self, Purpose},
    wire::Connection,
};
use mainstay_domain::{
    ByteSize, Clock, Failure, Monitor,
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

/// Connects, checks versions, tools and rights, and plans. Locks the tables as a capture would, for a moment: who stands in
/// the way for longer than `lock_wait` is named now.
///
/// # Errors
/// As [`capture`](super::capture()).
pub fn probe(config: &PostgresConfig, clock: &dyn Clock, monitor: &dyn Monitor) -> Result<Probe, Failure> {
    config.validate()?;
    let rules = Rules::new(config)?;
    let spec = config.connect_spec()?;
    let version = Connection::connect(&spec)?.server_version_num();
    let tools = tools::find(Purpose::Dump, version / 10_000, config.bin_dir.as_deref())?;
    spec.children_can_verify()?;
    let leader = Leader::take(&spec, config.lock_wait, clock, monitor)?;
    let Leader { mut connection, session, inventory, listed, .. } = leader;
    let measures = plan::measure(&mut connection, &listed)?;
    let encoding = session.get("client_encoding").cloned().unwrap_or_default();
    let planned: Plan = plan::plan(config, &rules, &inventory, &listed, &measures, &encoding, &spec.user);
    plan::try_filters(&mut connection, &planned)?;
    let broken = plan::broken_references(&mut connection, &planned)?;
    let (objects, hidden) = dumps::count_large_objects(&mut connection)?;
    let mut verdict = Verdict::default();
    // Nothing is copied yet: only what was expected of tables cannot be judged.
    verdict::database(&mut verdict, &inventory.database);
    sorting::look(&mut connection, &mut verdict)?;
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
        problems: verdict.into_problems(),
    })
}
