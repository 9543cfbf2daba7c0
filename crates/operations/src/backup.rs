//! `mainstay backup`: one recovery point of one application.
//!
//! The order is the safety argument. Everything that can be known to fail is probed before anything is written; a source that
//! fails does not take the others with it, and what it could not give is said in the point itself; the point exists only when
//! all that it needs is durable; and what was written is read back before anybody is told that it worked.

use crate::{
    access::{self, app_of},
    capture,
    config::{AppConfig, Config, SourceConfig},
    points, repair,
};
use mainstay_domain::{
    Clock, Failure, Kind, Monitor, PointId, Result, Severity, Time,
    point::{Point, SourceRecord, SourceSummary, State, Summary},
    time::Span,
};
use mainstay_repository::{
    Committed, Repository, Session,
    check::{self, Report},
};
use std::{collections::BTreeMap, sync::Arc};

/// Of more new bytes than this, a random sample is read back.
const READ_BACK_LIMIT: u64 = 4 << 30;

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct Request {
    pub app: String,
    /// Whose sources and retention apply; `None` for a backup by hand.
    pub policy: Option<String>,
    /// Only these sources; empty: those of the policy, or all.
    pub sources: Vec<String>,
    /// Read everything again, whatever its metadata says.
    pub full: bool,
    pub labels: BTreeMap<String, String>,
    /// How long a backup by hand is kept; `None`: until it is deleted.
    pub keep: Option<Span>,
}

/// What came out.
#[derive(Debug)]
pub struct Outcome {
    pub point: PointId,
    pub summary: Summary,
    pub sources: Vec<SourceRecord>,
    pub committed: Committed,
    /// The reading back; `None` if the configuration asks for none.
    pub verified: Option<Report>,
}

impl Outcome {
    /// The kind of failure that the run as a whole is, if it is one.
    pub fn failure(&self) -> Option<Kind> {
        match (&self.verified, self.summary.state) {
            (Some(report), _) if !report.is_clean() => Some(Kind::Verification),
            (_, State::Failed) => Some(Kind::Failed),
            (_, State::Incomplete) => Some(Kind::Incomplete),
            (_, State::Complete) => None,
        }
    }
}

pub fn backup(
    config: &Config,
    request: &Request,
    clock: Arc<dyn Clock>,
    monitor: &dyn Monitor,
) -> Result<Outcome> {
    let app = app_of(config, &request.app)?;
    let sources = choose_sources(app, request)?;
    let named = access::repository_of(config, &request.app)?;

    monitor.step("probe", None);
    let started = clock.now();
    for (name, source) in &sources {
        capture::probe(source).map_err(|failure| failure.during(format_args!("source {name}")))?;
    }
    let repository = access::open(config, &named, clock.clone())?;
    let previous = points::newest(&repository, &request.app)?;
    monitor.done("probe", "");

    monitor.step("capture", None);
    let session = Session::begin(&repository, access::tuning(named.config)).map_err(Failure::from)?;
    let captured =
        capture::all(&session, &repository, &request.app, &sources, request.full, &*clock, monitor);
    let records = match captured {
        Ok(records) if records.iter().any(|record| !record.streams.is_empty()) => records,
        Ok(records) => {
            session.abandon();
            return Err(nothing_captured(&records));
        }
        Err(failure) => {
            session.abandon();
            return Err(failure);
        }
    };
    monitor.done("capture", "");

    monitor.step("commit", None);
    let mut summary = summarise(
        app,
        request,
        &records,
        started,
        previous.as_ref().map_or(0, |p| p.summary.sequence),
        &*clock,
    );
    summary.next_expected = next_expected(app, request, summary.finished);
    let mut committed_summary = summary.clone();
    let committed = session
        .commit(|stored_bytes| {
            summary.stored_bytes = stored_bytes;
            summary.finished = clock.now();
            committed_summary = summary.clone();
            Point {
                summary,
                sources: records.clone(),
                previous: previous.as_ref().map(|p| p.id),
                supersedes: None,
                tool: env!("CARGO_PKG_VERSION").into(),
            }
        })
        .map_err(Failure::from)?;
    monitor.done("commit", &committed.point.short());

    let verified = read_back(&repository, named.config.verify_after, &committed, monitor)?;
    Ok(Outcome { point: committed.point, summary: committed_summary, sources: records, committed, verified })
}

/// The sources that the request, or its policy, names.
fn choose_sources<'c>(app: &'c AppConfig, request: &Request) -> Result<Vec<(&'c str, &'c SourceConfig)>> {
    let policy = match &request.policy {
        None => None,
        Some(name) => Some(app.policies.get(name).ok_or_else(|| {
            let known: Vec<_> = app.policies.keys().map(String::as_str).collect();
            Failure::usage(format!("{} has no policy named {name:?}", request.app)).hint(format!(
                "There is: {}.",
                if known.is_empty() { "none".into() } else { known.join(", ") }
            ))
        })?),
    };
    let wanted = match (&request.sources, policy) {
        (sources, Some(policy)) if sources.is_empty() => &policy.sources,
        (sources, _) => sources,
    };
    for name in wanted {
        if !app.sources.contains_key(name) {
            let known: Vec<_> = app.sources.keys().map(String::as_str).collect();
            return Err(Failure::usage(format!("{} has no source named {name:?}", request.app))
                .hint(format!("There is: {}.", known.join(", "))));
        }
    }
    let chosen = |name: &String| wanted.is_empty() || wanted.contains(name);
    Ok(app
        .sources
        .iter()
        .filter(|(name, _)| chosen(name))
        .map(|(name, source)| (name.as_str(), source))
        .collect())
}

/// When every source failed there is nothing to commit: the first reason is the run's failure.
fn nothing_captured(records: &[SourceRecord]) -> Failure {
    let reasons: Vec<_> = records
        .iter()
        .flat_map(|record| record.problems.iter().map(move |p| format!("{}: {}", record.name, p.message)))
        .take(5)
        .collect();
    Failure::failed(format!("nothing could be captured ({})", reasons.join("; ")))
        .hint("No recovery point was made; the earlier ones are as they were.")
}

fn summarise(
    app: &AppConfig,
    request: &Request,
    records: &[SourceRecord],
    started: Time,
    last_sequence: u64,
    clock: &dyn Clock,
) -> Summary {
    let in_brief = |record: &SourceRecord| SourceSummary {
        name: record.name.clone(),
        kind: record.kind.clone(),
        state: record.state,
        bytes: record.bytes,
        items: record.items,
        partial: record.partial,
    };
    let now = clock.now();
    Summary {
        app: request.app.clone(),
        environment: app.environment.clone(),
        policy: request.policy.clone(),
        host: host_name(),
        started,
        finished: now,
        sequence: last_sequence + 1,
        state: records.iter().map(|record| record.state).max().unwrap_or(State::Failed),
        sources: records.iter().map(in_brief).collect(),
        stored_bytes: 0,
        labels: request.labels.clone(),
        next_expected: None,
        keep_until: request.keep.filter(|_| request.policy.is_none()).map(|span| now.plus(span.nanoseconds)),
    }
}

fn next_expected(app: &AppConfig, request: &Request, after: Time) -> Option<Time> {
    let policy = app.policies.get(request.policy.as_ref()?)?;
    policy.schedule.as_ref()?.next(after, &policy.zone().ok()?)
}

/// Reads back what this session wrote, at the depth that the configuration asks for.
fn read_back(
    repository: &Repository,
    verify: crate::config::VerifyAfter,
    committed: &Committed,
    monitor: &dyn Monitor,
) -> Result<Option<Report>> {
    let Some(depth) = access::depth(verify) else { return Ok(None) };
    monitor.step("read back", Some(committed.stored_bytes));
    let report =
        check::check_written(repository, committed, depth, READ_BACK_LIMIT, access::threads(), monitor)?;
    for finding in &report.findings {
        monitor.notice(Severity::Error, &format!("{}: {}", finding.object, finding.problem));
    }
    repair::note_lost(repository, &report, monitor);
    monitor.done("read back", "");
    Ok(Some(report))
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
