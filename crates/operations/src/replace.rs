//! `mainstay restore --replace`: a living database gives way to a restored one.
//!
//! The current state is backed up first (unless that is refused), the point is restored beside what lives, compared, and
//! swapped in by rename; the old one is kept under a dated name until it is let go. Of these steps only the swap touches what
//! lives, and it happens wholly or not at all.

use crate::{backup, config::Config, points::PointInfo, restore::Opened};
use mainstay_domain::{
    Clock, Failure, Kind, Monitor, PointId, Result,
    point::{SAFETY_COPY, State},
    time::{DAY, Span},
};
use mainstay_sources::postgres::{
    compare,
    replace::{self, HalfDone, Options, Plan, Replaced},
    restore as database,
    wire::ConnectSpec,
};
use std::{sync::Arc, time::Duration};

/// How long sessions may take to end after they were told to.
const WAIT: Duration = Duration::from_secs(30);
/// How long the safety copy is kept: time enough to notice that the replaced state had something after all.
const SAFETY_COPY_KEPT: Span = Span { nanoseconds: 30 * DAY };

/// What the replacement is made of.
pub struct Request<'a> {
    pub opened: &'a Opened<'a>,
    /// The server, and the database to administer from.
    pub server: ConnectSpec,
    /// The database that gives way.
    pub live: String,
    pub restore: database::Options,
    pub row_key: [u8; 16],
    /// Replace even by a point that lacks something.
    pub accept_partial: bool,
}

impl Request<'_> {
    fn options(&self, clock: &dyn Clock) -> Options {
        Options {
            restore: self.restore.clone(),
            compare: compare::Options::new(self.row_key),
            accept_partial: self.accept_partial,
            wait: WAIT,
            now: clock.now(),
        }
    }

    /// Settles what an earlier replacement left half done. Comes first: until then the living database may let nobody in.
    pub fn settle(&self) -> Result<Vec<HalfDone>> {
        replace::settle(&self.server, &self.live)
    }

    /// Looks at everything, changes nothing.
    pub fn plan(&self, clock: &dyn Clock) -> Result<Plan> {
        let Opened { reader, record, .. } = self.opened;
        replace::plan(reader, record, &self.server, &self.live, &self.options(clock))
    }

    /// Restores beside, compares, swaps.
    pub fn replace(&self, clock: &dyn Clock, monitor: &dyn Monitor) -> Result<Replaced> {
        let Opened { reader, record, .. } = self.opened;
        replace::replace(reader, record, &self.server, &self.live, &self.options(clock), monitor)
    }
}

/// Backs the current state of one source up, before it is replaced by `point`: a safety copy, which `latest` does not mean. An
/// incomplete one is refused: it is the way back.
pub fn back_up_first(
    config: &Config,
    point: &PointInfo,
    source: &str,
    clock: Arc<dyn Clock>,
    monitor: &dyn Monitor,
) -> Result<PointId> {
    let label = (SAFETY_COPY.to_owned(), format!("restore of {}", point.id.short()));
    let request = backup::Request {
        app: point.summary.app.clone(),
        sources: vec![source.to_owned()],
        labels: [label].into(),
        keep: Some(SAFETY_COPY_KEPT),
        ..backup::Request::default()
    };
    let refused = |why: String| {
        Failure::new(Kind::Refused, format!("the current state could not be backed up first: {why}"))
            .hint("Nothing was replaced. If the current state is of no worth, say so with --no-backup.")
    };
    let outcome = backup::backup(config, &request, clock, monitor)
        .map_err(|f| refused(f.message.clone()).caused_by(f))?;
    // What lacks something, or was not read back as it was written, is no way back.
    match (outcome.failure(), outcome.summary.state) {
        (None, _) => Ok(outcome.point),
        (Some(_), State::Complete) => Err(refused(format!(
            "recovery point {} was not read back as it was written",
            outcome.point.short()
        ))),
        (Some(_), state) => Err(refused(format!("recovery point {} is {state}", outcome.point.short()))),
    }
}
