//! `mainstay restore --start`: the restored cluster as a running server.
//!
//! What it takes is looked for before anything is restored: the programs of its version, and a port that nobody has.

use crate::{
    config::{Config, SourceConfig},
    points::PointInfo,
};
use mainstay_domain::{Failure, Monitor, Result};
use mainstay_sources::postgres::{
    cluster::{
        ClusterFacts,
        restore::Options,
        start::{self, Started},
    },
    tools::{self, Purpose, Tools},
};
use std::path::PathBuf;

/// What a server is started with.
#[derive(Debug)]
pub struct Starter {
    pub(super) tools: Tools,
    port: u16,
}

/// Where the configuration says that the server's programs are.
pub fn bin_dir(config: Option<&Config>, point: &PointInfo, source: &str) -> Option<PathBuf> {
    match config?.apps.get(&point.summary.app)?.sources.get(source)? {
        SourceConfig::Cluster(cluster) => cluster.bin_dir.clone(),
        _ => None,
    }
}

/// Finds what it takes.
///
/// # Errors
/// `Preflight`: the programs are not installed, or the port is taken.
pub fn prepare(facts: &ClusterFacts, bin_dir: Option<PathBuf>, port: u16) -> Result<Starter> {
    start::refuse_taken(port)?;
    Ok(Starter { tools: tools::find(Purpose::Server, facts.major(), bin_dir.as_deref())?, port })
}

impl Starter {
    /// Starts what was restored with these options, and waits until its recovery is where it was to end.
    pub fn start(&self, options: &Options, monitor: &dyn Monitor) -> Result<Started> {
        let recovery = options.recovery.as_ref();
        let recovery =
            recovery.ok_or_else(|| Failure::usage("a cluster without instructions is not started"))?;
        start::start(&self.tools, &options.destination, self.port, recovery, monitor)
    }
}
