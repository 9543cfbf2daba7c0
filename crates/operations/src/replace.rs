//! `mainstay restore --replace`: a living database gives way to a restored one.
//!
//! The current state is backed up first (unless that is refused), the point is restored beside what lives, compared, and
//! swapped in by rename; the old one is kept under a dated name until it is let go. Of these steps only the swap touches what
//! lives, and it happens wholly or not at all.

use crate::restore::Opened;
use mainstay_domain::{Monitor, Result, Time};
use mainstay_sources::postgres::{
    compare,
    replace::{self, HalfDone, Options, Plan, Replaced},
    restore as database,
    wire::ConnectSpec,
};
use std::time::Duration;

/// How long sessions may take to end after they were told to.
const WAIT: Duration = Duration::from_secs(30);

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
    /// From which the names are made, so that what is done is called as the plan says.
    pub now: Time,
}

impl Request<'_> {
    fn options(&self) -> Options {
        Options {
            restore: database::Options { of: self.opened.in_words(), ..self.restore.clone() },
            compare: compare::Options::new(self.row_key),
            accept_partial: self.accept_partial,
            wait: WAIT,
            now: self.now,
        }
    }

    /// Settles what an earlier replacement left half done. Comes first: until then the living database may let nobody in.
    pub fn settle(&self) -> Result<Vec<HalfDone>> {
        replace::settle(&self.server, &self.live)
    }

    /// Looks at everything, changes nothing.
    pub fn plan(&self) -> Result<Plan> {
        let Opened { reader, record, .. } = self.opened;
        replace::plan(reader, record, &self.server, &self.live, &self.options())
    }

    /// Restores beside, compares, swaps.
    pub fn replace(&self, monitor: &dyn Monitor) -> Result<Replaced> {
        let Opened { reader, record, .. } = self.opened;
        replace::replace(reader, record, &self.server, &self.live, &self.options(), monitor)
    }
}
