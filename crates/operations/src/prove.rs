//! `mainstay verify --level restore`: brings a recovery point up in a sandbox, compares all of it with what was captured, tears
//! the sandbox down, and writes a signed proof into the repository.
//!
//! The sandbox is a directory, and a PostgreSQL or a Redis of its own (a Unix socket, archiving off); nothing of it outlives the proof. A
//! proof says *partial*, never *passed*, when something could not be compared. A test that could not run (no PostgreSQL of that
//! version, no room) says something of this machine and nothing of the point: it leaves no proof.

mod cluster;
mod command;
mod configuration;
mod kept;
mod redis;

pub(crate) use cluster::sandbox_for;
pub use kept::{Kept, kept};

use crate::{
    config::{Config, SourceConfig},
    points::PointInfo,
    restore::{self, Opened},
    scratch_folder::{self, ScratchFolder},
};
use mainstay_domain::{
    Clock, Failure, Kind, Monitor, PointId, Result, Severity, Time,
    point::{Proof, ProofLevel, SourceSummary, State},
};
use mainstay_repository::{Repository, proof};
use mainstay_sources::{
    files,
    postgres::{
        self,
        compare::Verdict as DatabaseVerdict,
        facts::Facts,
        restore::{Options, Target},
        sandbox::{Sandbox, SandboxOptions},
        tools::{self, Purpose},
    },
};
use serde::Serialize;
use std::{
    fmt,
    fs::DirBuilder,
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

/// The name of the database that a proof restores into.
const DATABASE: &str = "mainstay_proof";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Everything was restored and compared, and is equal.
    Passed,
    /// Nothing differs, and something could not be restored or compared.
    Partial,
    /// This machine could not do the test; nothing is known, and nothing is recorded.
    #[serde(rename = "not_run")]
    NotRun,
    Failed,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Verdict::Passed => "passed",
            Verdict::Partial => "partial",
            Verdict::NotRun => "not run",
            Verdict::Failed => "failed",
        })
    }
}

/// What a restore test found: the signed report.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub version: u32,
    pub point: PointId,
    pub app: String,
    /// The moment whose state was restored.
    pub captured: Time,
    pub state: State,
    pub tested: Time,
    pub host: String,
    pub store: String,
    pub tool: String,
    pub verdict: Verdict,
    pub sources: Vec<SourceReport>,
    /// Milliseconds that restoring took: of all sources, without comparing.
    pub restore_millis: u64,
    pub total_millis: u64,
}

#[derive(Debug, Clone, Serialize)]
pub struct SourceReport {
    pub source: String,
    pub kind: String,
    pub verdict: Verdict,
    /// What was compared, in a sentence.
    pub compared: String,
    pub differences: Vec<String>,
    pub not_compared: Vec<String>,
    pub problems: Vec<String>,
    pub restore_millis: u64,
    pub compare_millis: u64,
    pub bytes: u64,
    pub items: u64,
    /// The version of what it was restored into.
    pub environment: String,
}

/// Restores and compares every source of a point, and records the proof. A source that cannot be restored at all is a failed
/// proof, not an error. No proof if the test could not run, or was stopped.
pub fn prove(
    config: Option<&Config>,
    repository: &Repository,
    point: &PointInfo,
    clock: &dyn Clock,
    monitor: &dyn Monitor,
) -> Result<(Report, Option<Proof>)> {
    let scratch = ScratchFolder::new(monitor)?;
    let begun = clock.now();
    let mut sources = Vec::new();
    for source in &point.summary.sources {
        let step = format!("prove {}", source.name);
        // Files are read back twice: as they are restored and as they are compared. A database's steps have totals of their own.
        monitor.step(&step, (source.kind == "files").then(|| source.bytes.saturating_mul(2)));
        let proven = restore::open(repository, point, &source.name)
            .and_then(|opened| prove_source(config, repository, &opened, scratch.path(), clock, monitor));
        let report = match proven {
            // What was stopped half way looks like a failure, and is none.
            _ if monitor.cancelled() => return Err(stopped()),
            Ok(report) => not_for_want_of_room(report),
            Err(failure) if failure.kind == Kind::Cancelled => return Err(failure),
            Err(failure) => could_not(source, &failure),
        };
        monitor.done(&step, &report.verdict.to_string());
        sources.push(report);
    }
    scratch.close()?;
    let tested = clock.now();
    let whole = match point.summary.state {
        State::Complete => Verdict::Passed,
        State::Incomplete | State::Failed => Verdict::Partial,
    };
    let report = Report {
        version: 1,
        point: point.id,
        app: point.summary.app.clone(),
        captured: point.summary.finished,
        state: point.summary.state,
        tested,
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        store: repository.store().describe(),
        tool: env!("CARGO_PKG_VERSION").into(),
        verdict: sources.iter().map(|s| s.verdict).max().unwrap_or(Verdict::Partial).max(whole),
        restore_millis: sources.iter().map(|s| s.restore_millis).sum(),
        total_millis: millis(tested.since(begun)),
        sources,
    };
    let proof = match report.verdict {
        Verdict::NotRun => None,
        Verdict::Passed | Verdict::Partial | Verdict::Failed => Some(record(repository, point, &report)?),
    };
    Ok((report, proof))
}

fn stopped() -> Failure {
    Failure::new(Kind::Cancelled, "the restore test was stopped")
        .hint("Nothing was recorded; what was restored for it is removed.")
}

fn record(repository: &Repository, point: &PointInfo, report: &Report) -> Result<Proof> {
    let text = serde_json::to_string(report)
        .map_err(|error| Failure::failed("the report could not be written as JSON").caused_by(error))?;
    let name = proof::store(repository, &text, report.tested)?;
    let proof = Proof {
        at: report.tested,
        level: ProofLevel::Restore,
        passed: report.verdict == Verdict::Passed,
        restore_millis: report.restore_millis,
        report: name,
    };
    repository.record_proof(point.id, proof.clone())?;
    Ok(proof)
}

fn prove_source(
    config: Option<&Config>,
    repository: &Repository,
    opened: &Opened<'_>,
    scratch: &Path,
    clock: &dyn Clock,
    monitor: &dyn Monitor,
) -> Result<SourceReport> {
    if opened.record.streams.is_empty() {
        return Ok(nothing_captured(opened));
    }
    match opened.record.kind.as_str() {
        "files" => prove_files(opened, scratch, clock, monitor),
        "postgres" => prove_database(config, repository, opened, scratch, clock, monitor),
        "cluster" => cluster::prove(config, repository, opened, scratch, clock, monitor),
        "redis" => redis::prove(config, opened, clock, monitor),
        "config" => configuration::prove(opened, scratch, clock, monitor),
        "command" => command::prove(opened, scratch, clock),
        other => Err(Failure::failed(format!("this version cannot restore sources of kind {other}"))),
    }
}

fn prove_files(
    opened: &Opened<'_>,
    scratch: &Path,
    clock: &dyn Clock,
    monitor: &dyn Monitor,
) -> Result<SourceReport> {
    let closed = scratch.join("files");
    DirBuilder::new().mode(0o700).create(&closed).map_err(|error| {
        Failure::preflight("no directory for the restored files could be made").caused_by(error)
    })?;
    let destination = closed.join(&opened.record.name);
    let begun = clock.now();
    let options =
        files::RestoreOptions { destination: destination.clone(), ..files::RestoreOptions::default() };
    let restored = opened.restore_files(&options, monitor)?;
    let restored_at = clock.now();
    let comparison = files::compare(&opened.reader, &opened.record, &destination, monitor)?;
    let compared_at = clock.now();
    scratch_folder::remove(&closed)
        .map_err(|error| Failure::failed("the restored files could not be removed").caused_by(error))?;
    let mut differences: Vec<String> = comparison
        .differences
        .iter()
        .map(|d| format!("{} {} {}", d.path, d.aspect, d.detail).trim_end().to_owned())
        .collect();
    if comparison.difference_count > differences.len() as u64 {
        differences.push(format!("and {} more", comparison.difference_count - differences.len() as u64));
    }
    let not_compared = match comparison.not_compared {
        0 => Vec::new(),
        count => {
            vec![format!(
                "{count} entries have nothing to compare (no content, or devices without privileges)"
            )]
        }
    };
    let verdict = match (comparison.is_equal(), comparison.not_compared, opened.record.state) {
        (false, ..) => Verdict::Failed,
        (true, 0, State::Complete) => Verdict::Passed,
        (true, ..) => Verdict::Partial,
    };
    Ok(SourceReport {
        source: opened.record.name.clone(),
        kind: opened.record.kind.clone(),
        verdict,
        compared: format!(
            "{} entries: kind, size, mode, times, links, attributes and every byte",
            comparison.entries
        ),
        differences,
        not_compared,
        problems: restored.problems.iter().map(|p| format!("{}: {}", p.object, p.message)).collect(),
        restore_millis: millis(restored_at.since(begun)),
        compare_millis: millis(compared_at.since(restored_at)),
        bytes: comparison.bytes,
        items: comparison.entries,
        environment: "a scratch directory".into(),
    })
}

fn prove_database(
    config: Option<&Config>,
    repository: &Repository,
    opened: &Opened<'_>,
    scratch: &Path,
    clock: &dyn Clock,
    monitor: &dyn Monitor,
) -> Result<SourceReport> {
    let facts = Facts::from_json(&opened.record.facts).map_err(|error| {
        Failure::verification("the description of the captured database cannot be used").caused_by(error)
    })?;
    let sandbox = start_sandbox(config, opened, &facts, scratch)?;
    let begun = clock.now();
    let target = Target { server: sandbox.spec("postgres"), database: DATABASE.into(), into_existing: false };
    let options = Options { other_locale: true, ..Options::default() };
    let (restored, _) = opened.restore_database(&target, &options, None, monitor)?;
    let restored_at = clock.now();
    let row_key = repository.keyring().current().row_key();
    let compare = postgres::compare::Options::new(row_key);
    let spec = sandbox.spec(DATABASE);
    let comparison = postgres::compare::compare(&opened.reader, &opened.record, &spec, &compare, monitor)?;
    let compared_at = clock.now();
    let environment = environment(&sandbox);
    sandbox.stop();
    let verdict = match (comparison.verdict(), restored.state, opened.record.state) {
        (DatabaseVerdict::Different, _, _) => Verdict::Failed,
        // Of a point that lacks something, no more than the rest can come back; whether it did, the comparison says.
        (_, State::Incomplete | State::Failed, State::Complete) => Verdict::Failed,
        (DatabaseVerdict::Equal, State::Complete, State::Complete) => Verdict::Passed,
        _ => Verdict::Partial,
    };
    let mut differences: Vec<String> = comparison.differences.iter().map(ToString::to_string).collect();
    if comparison.further > 0 {
        differences.push(format!("and {} more", comparison.further));
    }
    let objects: u64 = comparison.objects.values().sum();
    Ok(SourceReport {
        source: opened.record.name.clone(),
        kind: opened.record.kind.clone(),
        verdict,
        compared: format!(
            "{} rows of {} tables, {objects} definitions, {} sequences, {} large objects",
            comparison.rows, comparison.tables, comparison.sequences, comparison.large_objects
        ),
        differences,
        not_compared: comparison.not_compared.iter().map(|n| format!("{}: {}", n.object, n.reason)).collect(),
        problems: restored
            .problems
            .iter()
            .filter(|p| p.severity > Severity::Info)
            .map(|p| format!("{}: {}", p.object, p.message))
            .collect(),
        restore_millis: millis(restored_at.since(begun)),
        compare_millis: millis(compared_at.since(restored_at)),
        bytes: comparison.bytes,
        items: comparison.rows,
        environment,
    })
}

/// A PostgreSQL of the captured major version, from where the configuration says or where the distribution puts it.
fn start_sandbox(
    config: Option<&Config>,
    opened: &Opened<'_>,
    facts: &Facts,
    scratch: &Path,
) -> Result<Sandbox> {
    let bin_dir = bin_dir(config, opened);
    let tools = tools::find(Purpose::Server, facts.server.major(), bin_dir.as_deref())?;
    let options = SandboxOptions { parent: Some(scratch.to_owned()), ..SandboxOptions::new(tools) };
    Sandbox::start(&options).map_err(|error| {
        Failure::preflight("a throw-away PostgreSQL for the restore test could not be started")
            .caused_by(error)
    })
}

/// Where the configuration says that the server's programs are.
fn bin_dir(config: Option<&Config>, opened: &Opened<'_>) -> Option<PathBuf> {
    match config?.apps.get(&opened.point.summary.app)?.sources.get(&opened.record.name)? {
        SourceConfig::Postgres(postgres) => postgres.bin_dir.clone(),
        SourceConfig::Cluster(cluster) => cluster.bin_dir.clone(),
        SourceConfig::Files(_)
        | SourceConfig::Redis(_)
        | SourceConfig::Config(_)
        | SourceConfig::Command(_) => None,
    }
}

/// `postgres (PostgreSQL) 15.20 (Debian …)`: from the number on.
fn environment(sandbox: &Sandbox) -> String {
    let version = &sandbox.tools().version;
    let number = version.split_once(") ").map_or(version.as_str(), |(_, number)| number);
    format!("a throw-away PostgreSQL {number}")
}

/// What a backup could not capture cannot be restored either: known since then, and no news about what it did capture.
fn nothing_captured(opened: &Opened<'_>) -> SourceReport {
    let record = &opened.record;
    let why = record.problems.iter().map(|problem| format!("not captured: {}", problem.message));
    SourceReport { not_compared: why.collect(), ..empty(&record.name, &record.kind, Verdict::Partial) }
}

fn could_not(source: &SourceSummary, failure: &Failure) -> SourceReport {
    let mut problem = failure.with_causes();
    let verdict = match failure.kind {
        Kind::Verification => Verdict::Failed,
        _ if is_of_this_machine(failure) || speaks_of_room(&problem) => Verdict::NotRun,
        _ => Verdict::Failed,
    };
    if let Some(hint) = &failure.hint {
        problem = format!("{problem}. {hint}");
    }
    SourceReport { problems: vec![problem], ..empty(&source.name, &source.kind, verdict) }
}

fn empty(source: &str, kind: &str, verdict: Verdict) -> SourceReport {
    SourceReport {
        source: source.into(),
        kind: kind.into(),
        verdict,
        compared: "nothing".into(),
        differences: Vec::new(),
        not_compared: Vec::new(),
        problems: Vec::new(),
        restore_millis: 0,
        compare_millis: 0,
        bytes: 0,
        items: 0,
        environment: String::new(),
    }
}

/// Whether a failure tells of where the test ran and not of what was tested: a condition that did not hold beforehand, or an
/// answer of the operating system. What is damaged, missing or refused by PostgreSQL is neither; nor is a server that goes
/// away while it reads what was restored.
fn is_of_this_machine(failure: &Failure) -> bool {
    use io::ErrorKind as E;
    let mut cause = std::error::Error::source(failure);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            let gone = [E::ConnectionReset, E::ConnectionAborted, E::BrokenPipe, E::UnexpectedEof];
            return !gone.contains(&error.kind());
        }
        cause = error.source();
    }
    failure.kind == Kind::Preflight
}

/// A restore that ran out of room goes on with what does fit, and its differences are no differences.
fn not_for_want_of_room(mut report: SourceReport) -> SourceReport {
    let room_alone =
        !report.problems.is_empty() && report.problems.iter().all(|problem| speaks_of_room(problem));
    if report.verdict == Verdict::Failed && room_alone {
        report.verdict = Verdict::NotRun;
    }
    report
}

/// The words of the C library, which PostgreSQL repeats, and PostgreSQL's class of states for a lack of resources.
fn speaks_of_room(text: &str) -> bool {
    [
        "No space left on device",
        "Disk quota exceeded",
        "File too large",
        "Read-only file system",
        "SQLSTATE 53",
    ]
    .iter()
    .any(|words| text.contains(words))
}

fn millis(nanoseconds: i64) -> u64 {
    u64::try_from(nanoseconds / 1_000_000).unwrap_or(0)
}

#[cfg(test)]
mod tests;
