//! Captures a server: a replica's snapshot where it gives one, key by key where it does not.

use super::{
    KEYS, KIND, RDB,
    client::Client,
    config::{RedisConfig, SnapshotBy},
    facts::{FACTS_VERSION, Form, RdbFacts, RedisFacts, Server},
    info::Info,
    keys,
    snapshot::{self, Snapshot},
};
use mainstay_domain::{
    Clock, Failure, Monitor, Result, Severity,
    point::{Problem, SourceRecord, State, Stream},
};
use std::collections::BTreeMap;

/// What was found out without reading any data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    pub server: Server,
    /// By database.
    pub keys: BTreeMap<u32, u64>,
    /// It says that it gives snapshots; access rules may still forbid it.
    pub replication: bool,
    pub problems: Vec<Problem>,
}

/// Whether the server can be captured.
pub fn probe(config: &RedisConfig) -> Result<Probe> {
    config.validate()?;
    let mut client = Client::connect(&config.address()?)?;
    let info = ask(&mut client)?;
    let replication = snapshot::is_offered(&mut client)?;
    if config.snapshot == SnapshotBy::Replication && !replication {
        return Err(Failure::preflight("the server gives no snapshot: it does not know PSYNC")
            .hint("Managed services often do not. `snapshot: auto` reads key by key then."));
    }
    Ok(Probe { server: info.server(), keys: info.keyspace(), replication, problems: info.problems() })
}

/// Asks, and refuses what cannot be captured.
fn ask(client: &mut Client) -> Result<Info> {
    let info = Info::ask(client)?;
    if info.server().mode == "sentinel" {
        return Err(Failure::preflight("this is a Sentinel, which holds no data")
            .hint("Give the address of a server that it watches."));
    }
    if info.is_loading() {
        return Err(Failure::preflight("the server is still loading its data")
            .hint("Run the backup again when it is ready."));
    }
    Ok(info)
}

/// Captures the server. The record has no name yet: the caller knows what this source is called.
///
/// # Errors
/// `Preflight` (no connection, no rights), `Verification` (a snapshot that is not whole), `Cancelled`, or what broke it off.
pub fn capture(
    config: &RedisConfig,
    sink: &dyn mainstay_domain::stream::Sink,
    clock: &dyn Clock,
    monitor: &dyn Monitor,
) -> Result<SourceRecord> {
    config.validate()?;
    let started = clock.now();
    let address = config.address()?;
    let mut client = Client::connect(&address)?;
    let info = ask(&mut client)?;
    let mut problems = info.problems();
    let mut facts = RedisFacts {
        version: FACTS_VERSION,
        form: Form::Rdb,
        server: info.server(),
        replication_id: None,
        replication_offset: None,
        rdb: None,
        census: None,
        functions: 0,
        persistence: info.persistence(),
    };

    monitor.step("redis", None);
    let requested = match config.snapshot {
        SnapshotBy::Scan => None,
        // On a connection of its own: it ends with the snapshot.
        by => match Snapshot::request(Client::connect(&address)?, &info.server().version, clock) {
            Err(error) if error.is_forbidden() && by == SnapshotBy::Auto => {
                problems.push(not_an_instant(&error.to_string()));
                None
            }
            requested => Some(requested?),
        },
    };
    let (stream, consistent_at) = match requested {
        Some(snapshot) => {
            let (position, at) = (snapshot.position.clone(), snapshot.at);
            let stored = snapshot.store(sink, monitor)?;
            facts.replication_id = position.as_ref().map(|position| position.id.clone());
            facts.replication_offset = position.as_ref().map(|position| position.offset);
            facts.rdb = Some(RdbFacts {
                version: stored.whole.version,
                bytes: stored.whole.bytes,
                checksum: stored.whole.checksum.map(|sum| format!("{sum:016x}")),
            });
            if stored.whole.checksum.is_none() {
                let message =
                    "the server makes no checksum (rdbchecksum no): what it sent is stored as it came";
                problems.push(warning(message.to_owned()));
            }
            match stored.said {
                Some(said) => {
                    facts.functions = said.functions;
                    facts.census = Some(stored.census);
                }
                None => problems.push(warning(
                    "its snapshot holds a type of value that this version does not know: it is whole, and its keys were not counted".to_owned(),
                )),
            }
            (Stream { name: RDB.into(), content: stored.content }, Some(at))
        }
        None => {
            if config.snapshot == SnapshotBy::Scan {
                problems.push(not_an_instant("the configuration says `snapshot: scan`"));
            }
            facts.form = Form::Keys;
            let stored = keys::store(&mut client, &info, sink, clock, monitor)?;
            facts.census = Some(stored.census);
            problems.extend(stored.problems);
            (Stream { name: KEYS.into(), content: stored.content }, None)
        }
    };
    let counted =
        facts.census.as_ref().map_or_else(|| info.keyspace().values().sum(), |census| census.keys());
    monitor.done("redis", &format!("{counted} keys"));
    let lacking = problems.iter().any(|problem| problem.severity == Severity::Error);
    Ok(SourceRecord {
        name: String::new(),
        kind: KIND.into(),
        state: if lacking { State::Incomplete } else { State::Complete },
        started,
        finished: clock.now(),
        consistent_at,
        bytes: stream.content.bytes(),
        streams: vec![stream],
        facts: facts.to_json(),
        problems,
        items: counted,
        partial: false,
    })
}

fn not_an_instant(why: &str) -> Problem {
    warning(format!(
        "read key by key ({why}), so that it is not the state of one instant: keys that belong together may not fit"
    ))
}

fn warning(message: String) -> Problem {
    Problem { severity: Severity::Warning, object: String::new(), message }
}

impl Probe {
    /// What a snapshot will be, for people.
    pub fn describe(&self) -> String {
        let name = if self.server.product == "valkey" { "Valkey" } else { "Redis" };
        let way = if self.replication { "by replication" } else { "key by key: it gives no snapshot" };
        let keys: u64 = self.keys.values().sum();
        format!("{name} {} ({}), {keys} keys, read {way}", self.server.version, self.server.role)
    }
}
