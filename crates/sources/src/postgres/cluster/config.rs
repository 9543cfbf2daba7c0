//! How a whole cluster is configured as a source.

use crate::postgres::{
    secret::SecretText,
    wire::{ConnectSpec, process_environment},
};
use mainstay_domain::{
    Failure,
    time::{MINUTE, Span},
};
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
    /// How `mainstay wal push` and `mainstay wal fetch` find their daemon.
    #[serde(default)]
    pub wal: WalConfig,
}

/// The daemon that makes archiving faster. Without it everything works, too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WalConfig {
    /// Whether the first `wal push` or `wal fetch` starts it.
    #[serde(default)]
    pub daemon: StartDaemon,
    /// Its socket. By default in the cache folder, under a name made of the path of this file and the application's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
    /// After how long without a request it ends, if it was started by itself.
    #[serde(default = "ten_minutes")]
    pub idle: Span,
}

/// Who starts the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StartDaemon {
    /// You do: `mainstay wal daemon`.
    #[default]
    Manual,
    /// The first push or fetch that finds none.
    Auto,
}

impl Default for WalConfig {
    fn default() -> WalConfig {
        WalConfig { daemon: StartDaemon::default(), socket: None, idle: ten_minutes() }
    }
}

fn ten_minutes() -> Span {
    Span { nanoseconds: 10 * MINUTE }
}

impl ClusterConfig {
    pub fn new(url: SecretText) -> ClusterConfig {
        ClusterConfig { url, data_directory: None, bin_dir: None, parallel: 0, wal: WalConfig::default() }
    }

    /// What can be said to be wrong without a connection.
    pub fn validate(&self) -> Result<(), Failure> {
        if self.wal.socket.as_deref().is_some_and(|path| !path.is_absolute()) {
            return Err(Failure::usage("wal.socket must be an absolute path"));
        }
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
