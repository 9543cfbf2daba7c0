//! The logical capture of one database: one snapshot, everything in it, and what is to be known of it.
//!
//! [`capture`] is the order of things. The leader's session holds the snapshot and the locks to the end; `pg_dump` and the
//! workers read under it. One table that cannot be read is named, with the consequence that its priority has; anything
//! that breaks the whole (a session lost, a child that failed, a full store) ends everything at once.

mod abort;
mod cutter;
mod dumps;
mod leader;
mod plan;
mod probe;
mod sequences;
mod sorting;
mod verdict;
mod workers;

pub use probe::{Probe, probe};

use super::{
    config::{PostgresConfig, Rules},
    facts::{FACTS_VERSION, Facts, LargeObjects, Priority, Server, Skipped},
    tools::{self, Purpose, Tools},
    wire::{ConnectSpec, Connection},
};
use abort::Abort;
use crossbeam_channel::{RecvTimeoutError, bounded};
use dumps::Dumps;
use leader::Leader;
use mainstay_domain::{
    Clock, Failure, Monitor, Severity,
    point::{SourceRecord, Stream},
    stream::{Content, Sink},
};
use std::time::Duration;
use verdict::Verdict;
use workers::{Outcome, Queue, Shared};

/// Captures the database that `config` names into `sink`. The record has no name yet: the caller knows what this source
/// is called. `row_key` is the dedup domain's key for row digests.
///
/// # Errors
/// `Usage` (configuration, a wrong condition), `Preflight` (connection, versions, a pooler, no fitting `pg_dump`), `Busy`
/// (a table stays locked), `Cancelled`, or what broke the capture. A table that cannot be read is no error: the record's
/// state and problems tell of it.
pub fn capture(
    config: &PostgresConfig,
    sink: &dyn Sink,
    row_key: [u8; 16],
    clock: &dyn Clock,
    monitor: &dyn Monitor,
) -> Result<SourceRecord, Failure> {
    let started = clock.now();
    config.validate()?;
    let rules = Rules::new(config)?;
    let spec = config.connect_spec()?;

    // The programs, before anything is locked.
    let version = Connection::connect(&spec)?.server_version_num();
    let tools = tools::find(Purpose::Dump, version / 10_000, config.bin_dir.as_deref())?;
    spec.children_can_verify()?;

    // The snapshot, with every table locked, and what the database is made of.
    monitor.step("snapshot", None);
    let mut leader = Leader::take(&spec, config.lock_wait, clock, monitor)?;
    let (large_objects, hidden_objects) = dumps::count_large_objects(&mut leader.connection)?;
    let role_passwords = dumps::may_read_role_passwords(&mut leader.connection)?;

    // What is copied, and what is not.
    let measures = plan::measure(&mut leader.connection, &leader.listed)?;
    let encoding = leader.session.get("client_encoding").cloned().unwrap_or_default();
    let mut plan =
        plan::plan(config, &rules, &leader.inventory, &leader.listed, &measures, &encoding, &spec.user);
    plan::try_filters(&mut leader.connection, &plan)?;
    monitor.done("snapshot", &leader.snapshot_id);

    // Schema, roles, large objects and rows, at the same time.
    monitor.step("tables", Some(plan.bytes));
    let abort = Abort::default();
    let queue = Queue::new(std::mem::take(&mut plan.tasks));
    let shared = Shared { sink, row_key, monitor, abort: &abort, queue: &queue };
    let dumps = Dumps {
        tools: &tools,
        spec: &spec,
        sink,
        monitor,
        abort: &abort,
        snapshot_id: &leader.snapshot_id,
        lock_wait: config.lock_wait,
        encoding: &encoding,
        untouchable: leader.listed.iter().filter(|t| t.denied.is_some()).map(|t| t.name.clone()).collect(),
    };
    let wanted = Wanted { blobs: large_objects > 0 && hidden_objects == 0, role_passwords };
    let dumped = together(&spec, config.parallel, &dumps, wanted, &shared)?;
    workers::work_off_returned(&mut leader.connection, &shared)?;

    // What came of it.
    let mut verdict = Verdict::default();
    let mut streams = dumped.streams;
    settle(&mut plan, &queue, &mut streams);
    let (sequences, unread_sequences) = sequences::read(&mut leader.connection)?;
    let broken = plan::broken_references(&mut leader.connection, &plan)?;
    verdict::database(&mut verdict, &leader.inventory.database);
    sorting::look(&mut leader.connection, &mut verdict)?;
    verdict::tables(&mut verdict, config, &rules, &leader.inventory, &plan, &broken, true);
    for (name, reason, grant) in unread_sequences {
        verdict.unread(Priority::Important, "sequence", name.to_string(), reason);
        if let Some(grant) = grant {
            verdict.notes(Severity::Info, name.to_string(), format!("whoever owns it allows it by: {grant}"));
        }
    }
    if hidden_objects > 0 {
        let reason = format!("{hidden_objects} of {large_objects} may not be read by {}", spec.user);
        verdict.unread(Priority::Important, "set of large objects", "large objects", reason);
    }
    if let Some(reason) = dumped.no_globals {
        verdict.unread(Priority::Important, "set of roles", "roles", reason);
    } else if !dumped.role_passwords {
        let reason =
            "only a superuser may read them: set the passwords anew after a restore to another server";
        verdict.notes(Severity::Info, "role passwords", reason);
    }
    for table in leader.listed.iter().filter(|t| t.denied.is_some()) {
        let grant = &table.grant;
        let message =
            format!("its definition is not captured either; whoever owns it allows both by: {grant}");
        verdict.notes(Severity::Warning, table.name.to_string(), message);
    }
    if tools.major > version / 10_000 {
        verdict.notes(Severity::Info, "", newer_tools(&tools, version));
    }
    if dumped.fewer_workers > 0 {
        let text = format!(
            "{} of {} sessions were refused by the server; it took longer",
            dumped.fewer_workers, config.parallel
        );
        verdict.notes(Severity::Warning, "", text);
    }

    let bytes = plan.tables.iter().map(|t| t.data.bytes).sum::<u64>()
        + streams.iter().find(|s| s.name == "blobs").map_or(0, |s| s.content.bytes());
    let items = plan.tables.iter().map(|t| t.data.rows).sum();
    let partial = verdict::partial(&plan);
    let consistent_at = leader.snapshot.at;
    let facts = facts(
        &leader,
        &tools,
        plan,
        sequences,
        &dumped.names,
        large_objects,
        dumped.role_passwords,
        &verdict,
    );

    // The leader must have been there to the end: without it the locks were gone.
    leader.release()?;
    monitor.done("tables", "");
    Ok(SourceRecord {
        name: String::new(),
        kind: "postgres".to_owned(),
        state: verdict.state(),
        started,
        finished: clock.now(),
        consistent_at: Some(consistent_at),
        streams,
        facts: facts.to_json().map_err(|e| Failure::failed("the facts cannot be written").caused_by(e))?,
        problems: verdict.into_problems(),
        bytes,
        items,
        partial,
    })
}

/// Which dumps there are to make.
#[derive(Clone, Copy)]
struct Wanted {
    blobs: bool,
    role_passwords: bool,
}

/// What the dumps came to.
#[derive(Default)]
struct Dumped {
    streams: Vec<Stream>,
    names: Vec<String>,
    role_passwords: bool,
    /// Why there are no roles.
    no_globals: Option<String>,
    fewer_workers: u32,
}

impl Dumped {
    fn push(&mut self, name: &str, content: Content) {
        self.names.push(name.to_owned());
        self.streams.push(Stream { name: name.to_owned(), content });
    }
}

/// Runs the dumps and the workers side by side; the first failure stops them all.
fn together(
    spec: &ConnectSpec,
    parallel: u32,
    dumps: &Dumps<'_>,
    wanted: Wanted,
    shared: &Shared<'_>,
) -> Result<Dumped, Failure> {
    // All sessions before the first row: a refusal now costs nothing.
    let mut sessions = Vec::new();
    let mut fewer_workers = 0;
    for _ in 0..parallel {
        match workers::open(spec, dumps.snapshot_id) {
            Ok(session) => {
                shared.abort.watch_session(session.canceller());
                sessions.push(session);
            }
            Err(error) if error.is("53300") && !sessions.is_empty() => fewer_workers += 1,
            Err(error) => return Err(error.into()),
        }
    }
    let mut dumped = Ok(Dumped::default());
    std::thread::scope(|scope| {
        // Every thread holds a sender; when the last is gone, all are done.
        let (alive, over) = bounded::<()>(0);
        for session in sessions {
            let alive = alive.clone();
            scope.spawn(move || {
                let _alive = alive;
                if let Err(failure) = workers::work(session, shared) {
                    shared.abort.fail(failure);
                }
            });
        }
        let result = &mut dumped;
        scope.spawn(move || {
            let _alive = alive;
            match dump_all(dumps, wanted) {
                Ok(done) => *result = Ok(done),
                Err(failure) => shared.abort.fail(failure),
            }
        });
        while let Err(RecvTimeoutError::Timeout) = over.recv_timeout(Duration::from_millis(100)) {
            if shared.monitor.cancelled() {
                shared.abort.fail(abort::cancelled());
            }
        }
    });
    shared.abort.outcome()?;
    dumped.map(|dumped| Dumped { fewer_workers, ..dumped })
}

fn dump_all(dumps: &Dumps<'_>, wanted: Wanted) -> Result<Dumped, Failure> {
    let mut done = Dumped::default();
    done.push("schema", dumps.schema()?);
    let mut globals = dumps.globals(wanted.role_passwords);
    done.role_passwords = wanted.role_passwords && globals.is_ok();
    if globals.is_err() && wanted.role_passwords && !dumps.abort.stopped() {
        globals = dumps.globals(false);
    }
    match globals {
        Ok(content) => done.push("globals", content),
        Err(failure) if dumps.abort.stopped() => return Err(failure),
        Err(failure) => done.no_globals = Some(failure.message),
    }
    if wanted.blobs {
        done.push("blobs", dumps.blobs()?);
    }
    Ok(done)
}

/// Gathers the parts of each table. A table of which one part failed has no rows at all.
fn settle(plan: &mut plan::Plan, queue: &Queue, streams: &mut Vec<Stream>) {
    let mut done = queue.take_done();
    done.sort_by_key(|(task, _)| (task.table, task.part));
    for (task, outcome) in &done {
        let data = &mut plan.tables[task.table].data;
        match outcome {
            Outcome::Copied(..) => {}
            Outcome::Unreadable(reason) => data.skipped = Some(Skipped::Unreadable(reason.clone())),
            Outcome::Dropped => data.skipped = Some(Skipped::Dropped),
        }
    }
    for (task, outcome) in done {
        let table = &mut plan.tables[task.table];
        if table.data.skipped.is_some() {
            table.data.streams.clear();
        } else if let Outcome::Copied(content, sum) = outcome {
            table.add(sum);
            streams.push(Stream { name: table.data.streams[task.part].clone(), content });
        }
    }
}

#[allow(clippy::too_many_arguments)]
fn facts(
    leader: &Leader,
    tools: &Tools,
    plan: plan::Plan,
    sequences: Vec<super::facts::SequenceValue>,
    streams: &[String],
    large_objects: u64,
    role_passwords: bool,
    verdict: &Verdict,
) -> Facts {
    let blobs = streams.iter().find(|name| *name == "blobs").cloned();
    Facts {
        version: FACTS_VERSION,
        server: Server {
            version: leader.connection.parameter("server_version").unwrap_or_default().to_owned(),
            version_num: leader.connection.server_version_num(),
            system_identifier: leader.system_identifier.clone(),
            in_recovery: leader.in_recovery,
            pg_dump: tools.version.clone(),
        },
        snapshot: leader.snapshot.clone(),
        session: leader.session.clone(),
        inventory: leader.inventory.clone(),
        tables: plan.tables.into_iter().map(|t| t.data).collect(),
        sequences,
        large_objects: LargeObjects { count: large_objects, stream: blobs },
        unread: verdict.unread.clone(),
        streams: streams.to_vec(),
        role_passwords,
    }
}

fn newer_tools(tools: &Tools, version: u32) -> String {
    format!(
        "the schema was written by a newer pg_dump ({}) than the server ({}): a restore to that version may have to leave \
         out settings that it does not know",
        tools.major,
        version / 10_000
    )
}

impl From<super::facts::FactsError> for Failure {
    fn from(error: super::facts::FactsError) -> Failure {
        Failure::verification(error.to_string())
    }
}
