//! How a whole cluster is configured as a source.

use crate::postgres::{
    secret::SecretText,
    wire::{ConnectSpec, process_environment},
};
use mainstay_domain::Failure;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A PostgreSQL server with all of its databases, captured as files (a base backup), for point-in-time recovery.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterConfig {
    /// The address of any of its databases, for a user who may run backups:
    /// postgres://postgres@localhost/postgres?host=/var/run/postgresql
    pub url: SecretText,
    /// Where its data directory is, if that is another path for Mainstay than for the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_directory: Option<PathBuf>,
    /// The directory of the server's programs, where it is not in one of the usual places.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bin_dir: Option<PathBuf>,
    /// How many threads read files; 0: one for each processor.
    #[serde(default)]
    pub parallel: u32,
}

impl ClusterConfig {
    pub fn new(url: SecretText) -> ClusterConfig {
        ClusterConfig { url, data_directory: None, bin_dir: None, parallel: 0 }
    }

    /// What can be said to be wrong without a connection.
    pub fn validate(&self) -> Result<(), Failure> {
        match self.parallel {
            0..=64 => Ok(()),
            many => Err(Failure::usage(format!("parallel is {many}; it must be from 0 to 64"))),
        }
    }

    /// Fetches the address, with what the PG* environment adds.
    pub fn connect_spec(&self) -> Result<ConnectSpec, Failure> {
        ConnectSpec::parse(&self.url.resolve(&process_environment)?, &process_environment)
    }

    pub(crate) fn threads(&self) -> usize {
        match self.parallel {
            0 => std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 16),
            threads => threads as usize,
        }
    }
}
