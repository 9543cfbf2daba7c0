//! How a whole cluster is configured as a source.

use crate::postgres::{
    secret::SecretText,
    wire::{ConnectSpec, process_environment},
};
use mainstay_domain::{
    ByteSize, Failure,
    time::{MINUTE, SECOND, Span},
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
    /// How base backups are made.
    #[serde(default)]
    pub method: Method,
    /// How `mainstay wal receive` receives its WAL.
    #[serde(default)]
    pub receive: ReceiveConfig,
    /// How much WAL a replication slot may make the server keep before `wal status` and `status` warn.
    #[serde(default = "four_gib")]
    pub slot_warn: ByteSize,
    /// How `mainstay wal push` and `mainstay wal fetch` find their daemon.
    #[serde(default)]
    pub wal: WalConfig,
}

/// How base backups are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// From the data directory where it can be read, else over the replication protocol.
    #[default]
    Auto,
    /// From the data directory: several threads, and what did not change is not even read.
    Files,
    /// Over the replication protocol, from wherever the server is; PostgreSQL 15 and later.
    Replication,
}

/// How WAL is received while it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReceiveConfig {
    /// The replication slot that keeps the WAL for us; made if it is not there. By default `mainstay_<application>_<source>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<String>,
    /// The name by which `synchronous_standby_names` calls us.
    #[serde(default = "mainstay")]
    pub application_name: String,
    /// How often what has come of the open segment is archived. While the server waits for us, it is at once.
    #[serde(default = "five_seconds")]
    pub fragment_every: Span,
}

impl Default for ReceiveConfig {
    fn default() -> ReceiveConfig {
        ReceiveConfig { slot: None, application_name: mainstay(), fragment_every: five_seconds() }
    }
}

fn mainstay() -> String {
    "mainstay".to_owned()
}

fn five_seconds() -> Span {
    Span { nanoseconds: 5 * SECOND }
}

fn four_gib() -> ByteSize {
    ByteSize(4 << 30)
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
        ClusterConfig {
            url,
            data_directory: None,
            bin_dir: None,
            parallel: 0,
            method: Method::default(),
            receive: ReceiveConfig::default(),
            slot_warn: four_gib(),
            wal: WalConfig::default(),
        }
    }

    /// What can be said to be wrong without a connection.
    pub fn validate(&self) -> Result<(), Failure> {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if let Some(slot) = &self.receive.slot
            && !((1..=63).contains(&slot.len()) && slot.chars().all(fits))
        {
            return Err(Failure::usage(format!(
                "receive.slot is {slot:?}; a slot's name has 1 to 63 lower-case letters, digits and underscores"
            )));
        }
        if self.receive.fragment_every < (Span { nanoseconds: SECOND }) {
            return Err(Failure::usage("receive.fragment_every must be at least 1s"));
        }
        if self.wal.socket.as_deref().is_some_and(|path| !path.is_absolute()) {
            return Err(Failure::usage("wal.socket must be an absolute path"));
        }
        match self.parallel {
            0..=64 => Ok(()),
            many => Err(Failure::usage(format!("parallel is {many}; it must be from 0 to 64"))),
        }
    }

    /// The name of the slot that the WAL of this source is received through.
    pub fn slot(&self, app: &str, source: &str) -> String {
        const LONGEST: usize = 63;
        let clean = |c: char| match c.to_ascii_lowercase() {
            c if c.is_ascii_lowercase() || c.is_ascii_digit() => c,
            _ => '_',
        };
        let usual = || format!("mainstay_{app}_{source}").chars().map(clean).take(LONGEST).collect();
        self.receive.slot.clone().unwrap_or_else(usual)
    }

    /// Fetches the address, with what the PG* environment adds.
    pub fn connect_spec(&self) -> Result<ConnectSpec, Failure> {
        ConnectSpec::parse(&self.url.resolve(&process_environment)?, &process_environment)
    }

    pub(crate) fn threads(&self) -> usize {
        match self.parallel {
            0 => all_threads(),
            threads => threads as usize,
        }
    }
}

/// One for each processor.
pub(crate) fn all_threads() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slots_name_is_one_that_the_server_takes() {
        let mut config = ClusterConfig::new("postgres://localhost/".into());
        assert_eq!(config.slot("Shop.EU", "db-1"), "mainstay_shop_eu_db_1");
        assert_eq!(config.slot(&"x".repeat(100), "db").len(), 63);
        for (slot, sound) in [("mine_2", true), ("Mine", false), ("", false), ("a-b", false)] {
            config.receive.slot = Some(slot.to_owned());
            assert_eq!(config.validate().is_ok(), sound, "{slot:?}");
        }
    }
}
