//! How an application's servers stand with their log: whether the archiver works, and who keeps how much in replication slots for whom.

use crate::{
    access,
    config::{Config, SourceConfig},
};
use mainstay_domain::{Failure, Result};
use mainstay_sources::postgres::{
    cluster::ClusterConfig,
    replication::{Slot, slots},
    wal::{Archiver, archiver},
    wire::{ConnectSpec, Connection},
};
use serde::Serialize;
use std::time::Duration;

/// Nobody waits long for a server that is away, only to hear how its slots stand.
const PATIENCE: Duration = Duration::from_secs(3);

/// The slots of one source's server.
#[derive(Debug, Clone, Serialize)]
pub struct ServerSlots {
    pub app: String,
    pub source: String,
    /// The slot that `wal receive` uses.
    pub ours: String,
    pub slots: Vec<Slot>,
    pub archiver: Option<Archiver>,
    /// What is not as it should be, in sentences.
    pub concerns: Vec<String>,
    /// Why the server could not be asked.
    pub unknown: Option<String>,
}

/// The slots of every cluster of an application.
pub fn of_app(config: &Config, app: &str) -> Result<Vec<ServerSlots>> {
    let sources = access::app_of(config, app)?.sources.iter();
    Ok(sources
        .filter_map(|(name, source)| match source {
            SourceConfig::Cluster(cluster) => Some(of_server(app, name, cluster)),
            _ => None,
        })
        .collect())
}

/// The same of the application that is meant, or of all that have a cluster.
pub fn of_apps(config: &Config, app: Option<&str>) -> Result<Vec<ServerSlots>> {
    let mut found = Vec::new();
    for name in config.apps.keys().filter(|name| app.is_none_or(|app| app == *name)) {
        found.extend(of_app(config, name)?);
    }
    Ok(found)
}

/// Those of one source.
pub fn of_server(app: &str, source: &str, cluster: &ClusterConfig) -> ServerSlots {
    let asked = ask(cluster);
    let (told, unknown) = match asked {
        Ok(asked) => (asked, None),
        Err(failure) => ((Vec::new(), None), Some(failure.message)),
    };
    let (slots, archiver) = told;
    ServerSlots {
        app: app.to_owned(),
        source: source.to_owned(),
        ours: cluster.slot(app, source),
        concerns: archiver
            .iter()
            .filter_map(|archiver| Some(format!("{source}: {}", archiver.concern()?)))
            .chain(slots.iter().filter_map(|slot| slot.concern(cluster.slot_warn)))
            .collect(),
        slots,
        archiver,
        unknown,
    }
}

fn ask(cluster: &ClusterConfig) -> Result<(Vec<Slot>, Option<Archiver>)> {
    let spec = cluster.connect_spec()?;
    let spec = ConnectSpec { connect_timeout: spec.connect_timeout.min(PATIENCE), ..spec };
    let mut connection = Connection::connect(&spec).map_err(Failure::from)?;
    connection.set_patience(Some(PATIENCE))?;
    let found = slots::slots(&mut connection)?;
    Ok((found, Some(archiver(&mut connection)?)))
}
