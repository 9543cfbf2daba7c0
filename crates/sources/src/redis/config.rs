//! How a Redis or Valkey server is configured as a source.

use super::address::Address;
use crate::postgres::{secret::SecretText, wire::process_environment};
use mainstay_domain::Failure;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A Redis or Valkey server with all of its databases.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RedisConfig {
    /// Its address: redis://user:password@host:6379, rediss://… with TLS, or unix:///run/redis/redis.sock. Better from the
    /// environment than in this file.
    pub url: SecretText,
    /// How it is read: as a replica reads it, key by key, or as the server allows.
    #[serde(default)]
    pub snapshot: SnapshotBy,
    /// The program redis-server or valkey-server for restore tests, where it is not in one of the usual places.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<PathBuf>,
}

/// How the data is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SnapshotBy {
    /// By replication; key by key where the server refuses that, and then marked as not being one instant.
    #[default]
    Auto,
    /// By replication, or not at all.
    Replication,
    /// Key by key (SCAN and DUMP): for services that break replication links. It is not one instant.
    Scan,
}

impl RedisConfig {
    pub fn new(url: SecretText) -> RedisConfig {
        RedisConfig { url, snapshot: SnapshotBy::Auto, server: None }
    }

    /// What can be said to be wrong without a connection. An address from elsewhere is not fetched.
    pub fn validate(&self) -> Result<(), Failure> {
        if let SecretText::Plain(text) = &self.url {
            Address::parse(text)?;
        }
        match &self.server {
            Some(path) if !path.is_absolute() => {
                Err(Failure::usage(format!("server {} is no absolute path", path.display())))
            }
            _ => Ok(()),
        }
    }

    /// Fetches the address.
    pub fn address(&self) -> Result<Address, Failure> {
        let fetched = self.url.resolve(&process_environment).map_err(|failure| {
            let unset = failure.message.ends_with("is not set");
            match unset {
                true => failure.hint("It holds the address of the server: redis://user:password@host:6379."),
                false => failure,
            }
        });
        Address::parse(&fetched?)
    }
}
