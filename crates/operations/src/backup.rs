//! `mainstay backup`: one recovery point of one application.
//!
//! The order is the safety argument. Everything that can be known to fail is probed before anything is written; a source that
//! fails then or later does not take the others with it, and what it could not give is said in the point itself; the point exists
//! only when all that it needs is durable; and what was written is read back before anybody is told that it worked.

use crate::{
    access::{self, app_of},
    capture::{self, Probed},
    config::{AppConfig, Config, SourceConfig},
    damage, points, release, repair, skew, wal,
};
use mainstay_domain::{
    Clock, Failure, Kind, Monitor, PointId, Result, Severity, Time,
    point::{Point, SourceRecord, State, Summary},
    time::Span,
};
use mainstay_repository::{
    Committed, Repository, Session,
    check::{self, Report},
};
use mainstay_sources::postgres::facts::Priority;
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
    let probed = probe(sources, &*clock, monitor)?;
    let repository = access::open(config, &named, clock.clone())?;
    for wrong in damage::of(&repository)?.into_iter().filter(|wrong| !wrong.stops_backups) {
        monitor.notice(Severity::Warning, &format!("{}: {}. {}", wrong.object, wrong.text, wrong.hint));
    }
    let previous = points::newest(&repository, &request.app)?;
    monitor.done("probe", "");

    monitor.step("capture", None);
    let session = Session::begin(&repository, access::tuning(named.config)).map_err(Failure::from)?;
    let captured = capture::all(&session, &repository, &request.app, probed, request.full, &*clock, monitor);
    let records = match captured {
        // A source that was stopped half way may look like one that lacks something.
        Ok(_) if monitor.cancelled() => {
            session.abandon();
            return Err(Failure::new(Kind::Cancelled, "the backup was stopped before all was captured")
                .hint("No recovery point was made; the next backup uses what was stored already."));
        }
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

    let mut records = records;
    if let Some(text) = skew::judge(&mut records, app.max_skew) {
        monitor.notice(Severity::Warning, &text);
    }
    let labels = release::labels(app, &request.labels, monitor);

    monitor.step("commit", None);
    let mut summary = summarise(
        app,
        request,
        &records,
        started,
        previous.as_ref().map_or(0, |p| p.summary.sequence),
        &*clock,
    );
    summary.labels = labels;
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
    for concern in two_histories(&repository, &request.app, &records) {
        monitor.notice(Severity::Warning, &concern);
    }

    let verified = read_back(&repository, named.config.verify_after, &committed, monitor)
        .map_err(|failure| not_read_back(failure, &request.app, committed.point))?;
    Ok(Outcome { point: committed.point, summary: committed_summary, sources: records, committed, verified })
}

/// Whether a base backup that was made just now may be of the wrong one of two servers. Said if it can be found out.
fn two_histories(repository: &Repository, app: &str, records: &[SourceRecord]) -> Vec<String> {
    if !records.iter().any(|record| record.kind == mainstay_sources::postgres::cluster::KIND) {
        return Vec::new();
    }
    let points =
        repository.refreshed_state().map_err(Failure::from).and_then(|_| points::list(repository, Some(app)));
    points.and_then(|points| wal::histories::concerns(repository, &points)).unwrap_or_default()
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

/// Probes every source. One that cannot be captured keeps no other from being captured; if none can, the first one's failure is
/// the run's, and nothing is begun.
fn probe<'c>(
    sources: Vec<(&'c str, &'c SourceConfig)>,
    clock: &dyn Clock,
    monitor: &dyn Monitor,
) -> Result<Vec<Probed<'c>>> {
    let probe = |(name, source)| match capture::probe(source, clock, monitor) {
        Err(failure) if failure.kind == Kind::Cancelled => Err(failure),
        probed => Ok(Probed { name, source, refused: probed.err() }),
    };
    let mut probed = sources.into_iter().map(probe).collect::<Result<Vec<_>>>()?;
    if probed.iter().all(|source| source.refused.is_some())
        && let Some(Probed { name, refused: Some(failure), .. }) = probed.drain(..).next()
    {
        return Err(failure.during(format_args!("source {name}")));
    }
    Ok(probed)
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
    let now = clock.now();
    Summary {
        app: request.app.clone(),
        environment: app.environment.clone(),
        policy: request.policy.clone(),
        host: host_name(),
        started,
        finished: now,
        sequence: last_sequence + 1,
        state: state_of(app, records),
        sources: records.iter().map(SourceRecord::in_brief).collect(),
        stored_bytes: 0,
        labels: request.labels.clone(),
        next_expected: None,
        keep_until: request.keep.filter(|_| request.policy.is_none()).map(|span| now.plus(span.nanoseconds)),
    }
}

/// A source of which nothing could be captured leaves the point incomplete, as the others are whole. The point has failed if it
/// lacks what the user called critical, whether a table could not be read or nothing of its database: a source that was
/// captured and failed nevertheless, or that has critical tables.
fn state_of(app: &AppConfig, records: &[SourceRecord]) -> State {
    let lacks_what_is_critical = |r: &SourceRecord| {
        r.state == State::Failed && (!r.streams.is_empty() || has_critical_tables(app, &r.name))
    };
    let all = |state| records.iter().all(|record| record.state == state);
    if all(State::Failed) || records.iter().any(lacks_what_is_critical) {
        State::Failed
    } else if all(State::Complete) {
        State::Complete
    } else {
        State::Incomplete
    }
}

fn has_critical_tables(app: &AppConfig, source: &str) -> bool {
    let Some(SourceConfig::Postgres(postgres)) = app.sources.get(source) else { return false };
    postgres.tables.iter().any(|rule| rule.priority == Some(Priority::Critical))
}

fn next_expected(app: &AppConfig, request: &Request, after: Time) -> Option<Time> {
    let policy = app.policies.get(request.policy.as_ref()?)?;
    policy.schedule.as_ref()?.next(after, &policy.zone().ok()?)
}

/// Reads back what this session wrote, at the depth that the configuration asks for.
pub(crate) fn read_back(
    repository: &Repository,
    verify: crate::config::VerifyAfter,
    committed: &Committed,
    monitor: &dyn Monitor,
) -> Result<Option<Report>> {
    let Some(depth) = access::depth(verify) else { return Ok(None) };
    monitor.step("read back", Some(committed.stored_bytes));
    let mut report =
        check::check_written(repository, committed, depth, READ_BACK_LIMIT, access::threads(), monitor)?;
    let of_point = report.clone();
    // With a base backup begins the log that leads on from it; what was archived since the last one nobody has looked at.
    if depth > check::Depth::Objects {
        let points = points::list(repository, None)?;
        let since = wal::check::check_since(repository, &points, committed.point, READ_BACK_LIMIT, monitor)?;
        crate::verify::add_log(&mut report, since, monitor);
    }
    for finding in &report.findings {
        monitor.notice(Severity::Error, &format!("{}: {}", finding.object, finding.problem));
    }
    repair::note_lost(repository, &of_point, monitor);
    if !of_point.is_clean() {
        // So that it pushes no good point out.
        crate::verify::record(
            repository,
            &[committed.point],
            crate::verify::level(depth),
            &of_point,
            monitor,
        );
    }
    monitor.done("read back", "");
    Ok(Some(report))
}

/// The point is there all the same, and must not be taken for one that was never made.
fn not_read_back(failure: Failure, app: &str, point: PointId) -> Failure {
    let short = point.short();
    failure
        .during(format_args!("recovery point {short} was committed and not read back"))
        .hint(format!("Look at what was written: `mainstay verify {app} --point {short}`."))
}

pub(crate) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_fails_for_what_is_critical_however_it_came_to_be_missing() {
        let app = |rules: &str| -> AppConfig {
            let text = format!(
                r#"{{ "repository": "main", "sources": {{
                    "db": {{ "postgres": {{ "url": "postgres://db/shop", "tables": [{rules}] }} }},
                    "files": {{ "files": {{ "paths": ["/srv"] }} }} }} }}"#
            );
            serde_json::from_str(&text).unwrap()
        };
        let record = |name: &str, state: State, streams: usize| SourceRecord {
            name: name.to_owned(),
            kind: String::new(),
            state,
            started: Time(0),
            finished: Time(0),
            consistent_at: None,
            streams: vec![
                mainstay_domain::point::Stream {
                    name: String::new(),
                    content: mainstay_domain::stream::Content::default()
                };
                streams
            ],
            facts: String::new(),
            problems: Vec::new(),
            bytes: 0,
            items: 0,
            partial: false,
        };
        let critical = r#"{ "match": "orders", "priority": "critical" }"#;
        for (rules, state, streams, expected) in [
            (critical, State::Failed, 1, State::Failed),
            (critical, State::Failed, 0, State::Failed),
            ("", State::Failed, 0, State::Incomplete),
            (critical, State::Incomplete, 1, State::Incomplete),
            (critical, State::Complete, 1, State::Complete),
        ] {
            let records = [record("db", state, streams), record("files", State::Complete, 1)];
            assert_eq!(state_of(&app(rules), &records), expected, "{rules:?} {state:?} {streams}");
        }
    }
}
