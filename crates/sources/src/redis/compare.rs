//! Compares a server that was started on what was captured with the capture itself, key by key.
//!
//! Each key of the RDB file, or of the records, must be in the server, with its type and its lifetime; the server must have no
//! others; and the numbers must be those that were counted at capture. That each value is the one that was captured rests on the
//! file's checksum, on the server's own check of every value as it loads it, and, of records, on the checksum within each DUMP.
//! A key whose time has come is gone from any server, and counts as right.

use super::{
    client::{Client, Value},
    error::RedisError,
    facts::{Census, Form, RedisFacts},
    info::Info,
    rdb::{self, Entry, RdbError},
    restore::{self, DUMP},
    sandbox::Sandbox,
};
use mainstay_domain::{Clock, Failure, Kind, Monitor, Result, point::SourceRecord, stream::Vault};

/// Keys whose requests are under way at a time.
const BATCH: usize = 256;
/// Differences that are named; the rest is counted.
const NAMED: usize = 20;
/// Milliseconds that may pass between the server's answer and our look at the clock.
const SLACK: u64 = 60_000;

/// What came out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Keys that were captured and looked for.
    pub keys: u64,
    /// Those among them that have expired since.
    pub expired: u64,
    pub differences: Vec<String>,
    pub further: u64,
    pub not_compared: Vec<String>,
}

impl Comparison {
    pub fn is_equal(&self) -> bool {
        self.differences.is_empty()
    }

    fn differs(&mut self, text: String) {
        if self.differences.len() < NAMED {
            self.differences.push(text);
        } else {
            self.further += 1;
        }
    }
}

/// Compares a server that holds what was captured, and nothing that was written since.
pub fn compare(
    vault: &dyn Vault,
    record: &SourceRecord,
    sandbox: &Sandbox,
    clock: &dyn Clock,
    monitor: &dyn Monitor,
) -> Result<Comparison> {
    let facts = RedisFacts::from_json(&record.facts)?;
    let mut client = sandbox.connect()?;
    let mut looking = Looking {
        client: &mut client,
        clock,
        monitor,
        database: None,
        waiting: Vec::new(),
        found: Comparison::default(),
        census: Census::default(),
    };
    match facts.form {
        Form::Rdb => {
            let mut file = restore::open(&sandbox.directory().join(DUMP))?;
            let walked = rdb::walk(&mut file, &mut |entry| looking.take(entry).map_err(Stop::Failure));
            match walked {
                Ok(_) => {}
                Err(Stop::Rdb(RdbError::UnknownType(kind))) => looking.found.not_compared.push(format!(
                    "its keys one by one: values of type {kind} are not known to this version"
                )),
                Err(Stop::Rdb(error)) => {
                    return Err(Failure::verification(format!("the restored RDB file: {error}")));
                }
                Err(Stop::Failure(failure)) => return Err(failure),
            }
        }
        // One that was found twice is looked for twice, and is there.
        Form::Keys => restore::each_record(vault, record, &mut |record| {
            let kind = "";
            looking.take(Entry { database: record.database, key: record.key, kind, expires: record.expires })
        })?,
    }
    looking.settle()?;
    let (mut found, census) = (looking.found, looking.census);
    let complete = found.not_compared.is_empty();
    if complete && let Some(captured) = &facts.census {
        compare_counts(&mut found, captured, &census, facts.form);
        for (database, there) in Info::ask(&mut client)?.keyspace() {
            let captured = census.databases.get(&database).map_or(0, |count| count.keys);
            if there > captured {
                found.differs(format!("database {database}: {there} keys, and {captured} were captured"));
            }
        }
    }
    Ok(found)
}

/// What was counted at capture, and what is in the repository now.
fn compare_counts(found: &mut Comparison, captured: &Census, census: &Census, form: Form) {
    for (number, count) in &captured.databases {
        let now = census.databases.get(number).copied().unwrap_or_default();
        if now != *count {
            found.differs(format!("database {number}: {count:?} when it was captured, and {now:?} now"));
        }
    }
    if form == Form::Rdb && captured.types != census.types {
        found
            .differs(format!("types: {:?} when it was captured, and {:?} now", captured.types, census.types));
    }
}

/// Why a walk ended.
enum Stop {
    Rdb(RdbError),
    Failure(Failure),
}

impl From<RdbError> for Stop {
    fn from(error: RdbError) -> Stop {
        Stop::Rdb(error)
    }
}

struct Looking<'a> {
    client: &'a mut Client,
    clock: &'a dyn Clock,
    monitor: &'a dyn Monitor,
    database: Option<u32>,
    waiting: Vec<Entry>,
    found: Comparison,
    census: Census,
}

impl Looking<'_> {
    fn take(&mut self, entry: Entry) -> Result<()> {
        if self.database != Some(entry.database) {
            self.settle()?;
            self.client.select(entry.database)?;
            self.database = Some(entry.database);
        }
        self.census.count(entry.database, entry.kind, entry.expires.is_some());
        self.client.send(&[b"TYPE", &entry.key])?;
        self.client.send(&[b"PTTL", &entry.key])?;
        self.waiting.push(entry);
        if self.waiting.len() >= BATCH { self.settle() } else { Ok(()) }
    }

    fn settle(&mut self) -> Result<()> {
        self.client.flush()?;
        for entry in std::mem::take(&mut self.waiting) {
            let (kind, left) = (self.client.receive()?, self.client.receive()?);
            let now = u64::try_from(self.clock.now().0 / 1_000_000).unwrap_or(0);
            self.found.keys += 1;
            self.monitor.advance(1, 0);
            if let Value::Error(message) = kind {
                return Err(RedisError::Refused { command: "TYPE".to_owned(), message }.into());
            }
            let kind = kind.text().unwrap_or_default();
            let name = String::from_utf8_lossy(&entry.key).into_owned();
            let what = format!("database {} key {name:?}", entry.database);
            let due = entry.expires.is_some_and(|at| at <= now);
            match (kind.as_str(), left.integer()) {
                ("none", _) if due => self.found.expired += 1,
                ("none", _) => self.found.differs(format!("{what} is missing")),
                // A module names its own types, and records do not say theirs.
                (kind, _) if kind != entry.kind && !matches!(entry.kind, "" | "module") => {
                    self.found.differs(format!("{what} is a {kind}, and was a {}", entry.kind));
                }
                (_, Some(left)) if (left >= 0) != entry.expires.is_some() && left != -2 => {
                    self.found.differs(format!("{what}: its lifetime is not as it was captured"));
                }
                (_, Some(left @ 0..)) if !near(entry.expires, now, left) => {
                    self.found.differs(format!("{what}: it expires at another time than was captured"));
                }
                _ => {}
            }
        }
        if self.monitor.cancelled() {
            return Err(Failure::new(Kind::Cancelled, "the comparison was stopped"));
        }
        Ok(())
    }
}

fn near(expires: Option<u64>, now: u64, left: i64) -> bool {
    expires.is_none_or(|at| (now + left.unsigned_abs()).abs_diff(at) <= SLACK)
}
