//! The safety copy: what lives is backed up before a restore takes its place. It is the way back, so one that lacks something is refused, and
//! nothing is overwritten then.

use crate::{
    access,
    backup::{self, host_name, read_back},
    config::{Config, VerifyAfter},
    points::{self, PointInfo},
};
use mainstay_domain::{
    Clock, Failure, Kind, Monitor, PointId, Result,
    point::{Point, SAFETY_COPY, SourceRecord, State, Summary},
    stream::Vault,
    time::{DAY, Span},
};
use mainstay_repository::{Repository, Session, Tuning};
use mainstay_sources::postgres::cluster::{
    Options,
    stopped::{self, Tree},
};
use std::{path::Path, sync::Arc};

/// How long it is kept: time enough to notice that the replaced state had something after all.
pub const KEPT_DAYS: i64 = 7;
const KEPT: Span = Span { nanoseconds: KEPT_DAYS * DAY };

fn label(point: &PointInfo) -> (String, String) {
    (SAFETY_COPY.to_owned(), format!("restore of {}", point.id.short()))
}

fn refused(why: impl std::fmt::Display) -> Failure {
    Failure::new(Kind::Refused, format!("the current state could not be backed up first: {why}"))
        .hint("Nothing was replaced. If the current state is of no worth, say so with --no-backup.")
}

/// Backs the current state of one source up, before it is replaced by `point`.
pub fn back_up_first(
    config: &Config,
    point: &PointInfo,
    source: &str,
    clock: Arc<dyn Clock>,
    monitor: &dyn Monitor,
) -> Result<PointId> {
    let request = backup::Request {
        app: point.summary.app.clone(),
        sources: vec![source.to_owned()],
        labels: [label(point)].into(),
        keep: Some(KEPT),
        ..backup::Request::default()
    };
    let outcome = backup::backup(config, &request, clock, monitor)
        .map_err(|f| refused(f.message.clone()).caused_by(f))?;
    // What lacks something, or was not read back as it was written, is no way back.
    match (outcome.failure(), outcome.summary.state) {
        (None, _) => Ok(outcome.point),
        (Some(_), State::Complete) => Err(refused(not_read_back(outcome.point))),
        (Some(_), state) => Err(refused(format!("recovery point {} is {state}", outcome.point.short()))),
    }
}

fn not_read_back(point: PointId) -> String {
    format!("recovery point {} was not read back as it was written", point.short())
}

/// What a stopped cluster is captured under: it is no base backup, and must not be taken for one.
pub fn name_of_stopped(source: &str) -> String {
    format!("{source}-stopped")
}

/// Whether a source is what a stopped cluster's data directory was captured under.
pub fn is_stopped(source: &str) -> bool {
    source.ends_with("-stopped")
}

/// A stopped cluster that was backed up.
pub struct StoppedCopy {
    pub point: PointId,
    /// The data directory and each tablespace: all of them are the way back.
    pub trees: Vec<Tree>,
}

/// Backs a stopped cluster in `data` up, before `point` is restored over it.
pub fn back_up_stopped(
    repository: &Repository,
    config: Option<&Config>,
    point: &PointInfo,
    source: &str,
    data: &Path,
    clock: &dyn Clock,
    monitor: &dyn Monitor,
) -> Result<StoppedCopy> {
    copy_stopped(repository, config, point, source, data, clock, monitor).map_err(|failure| {
        match failure.kind {
            Kind::Cancelled | Kind::Refused => failure,
            _ => refused(failure.message.clone()).caused_by(failure),
        }
    })
}

fn copy_stopped(
    repository: &Repository,
    config: Option<&Config>,
    point: &PointInfo,
    source: &str,
    data: &Path,
    clock: &dyn Clock,
    monitor: &dyn Monitor,
) -> Result<StoppedCopy> {
    let app = &point.summary.app;
    let named = config.and_then(|config| access::repository_of(config, app).ok());
    let (tuning, depth) = match &named {
        Some(named) => (access::tuning(named.config), named.config.verify_after),
        None => (Tuning::default(), VerifyAfter::default()),
    };
    // Pages that its base backup has are there already.
    let base = repository.manifest(&point.id).map_err(Failure::from)?.point;
    let base = base.sources.into_iter().find(|record| record.name == source);
    let last = points::newest(repository, app)?;
    let started = clock.now();
    let session = Session::begin(repository, tuning).map_err(Failure::from)?;
    let vault: &dyn Vault = session.reader();
    let options = Options {
        page_key: repository.keyring().current().page_key(),
        full: false,
        previous: base.as_ref().map(|record| (vault, record)),
        clock,
    };
    let captured = stopped::capture(&name_of_stopped(source), data, &session, &options, monitor)
        .and_then(|captured| session.check().map_err(Failure::from).map(|()| captured));
    let (trees, records) = match captured {
        Ok((trees, records)) if records.iter().all(|record| record.state == State::Complete) => {
            (trees, records)
        }
        other => {
            session.abandon();
            let lacking = other?.1.into_iter().flat_map(|record| record.problems).next();
            let lacking = lacking.map(|problem| format!("{}: {}", problem.object, problem.message));
            return Err(refused(lacking.unwrap_or_else(|| "not all of it could be read".to_owned())));
        }
    };
    let committed = session
        .commit(|stored_bytes| {
            let finished = clock.now();
            Point {
                summary: Summary {
                    app: app.clone(),
                    environment: point.summary.environment.clone(),
                    policy: None,
                    host: host_name(),
                    started,
                    finished,
                    sequence: last.as_ref().map_or(0, |last| last.summary.sequence) + 1,
                    state: State::Complete,
                    sources: records.iter().map(SourceRecord::in_brief).collect(),
                    stored_bytes,
                    labels: [label(point)].into(),
                    next_expected: None,
                    keep_until: Some(finished.plus(KEPT.nanoseconds)),
                },
                sources: records.clone(),
                previous: last.as_ref().map(|last| last.id),
                supersedes: None,
                tool: env!("CARGO_PKG_VERSION").into(),
            }
        })
        .map_err(Failure::from)?;
    match read_back(repository, depth, &committed, monitor)? {
        Some(report) if !report.is_clean() => Err(refused(not_read_back(committed.point))),
        _ => Ok(StoppedCopy { point: committed.point, trees }),
    }
}
