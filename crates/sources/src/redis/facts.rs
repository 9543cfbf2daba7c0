//! What a capture of a Redis server records of it, as JSON in its record: enough to restore it, and to count it again.

use mainstay_domain::Failure;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub const FACTS_VERSION: u32 = 1;

/// How the data lies in the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// An RDB file: the state of one instant.
    Rdb,
    /// Key by key: each key is of the moment at which it was read.
    Keys,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RedisFacts {
    pub version: u32,
    pub form: Form,
    pub server: Server,
    /// The replication stream's id, and the offset in it whose state this is; none for `keys`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replication_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replication_offset: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rdb: Option<RdbFacts>,
    /// `None`: the file holds a type of value that was not known, so that its keys could not be counted.
    pub census: Option<Census>,
    /// Libraries of functions in an RDB file; they are not in `keys`.
    #[serde(default)]
    pub functions: u64,
    pub persistence: Persistence,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// `redis` or `valkey`.
    pub product: String,
    pub version: String,
    /// `standalone`, `cluster` or `sentinel`.
    pub mode: String,
    /// `master` or `slave`, in the server's own words.
    pub role: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RdbFacts {
    pub version: u32,
    pub bytes: u64,
    /// CRC-64, in hexadecimal; none where the server makes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
}

/// How many keys there are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Census {
    pub databases: BTreeMap<u32, Count>,
    /// By type, as the command TYPE names them.
    pub types: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    pub keys: u64,
    /// Those among them that expire.
    pub expires: u64,
}

impl Census {
    pub fn count(&mut self, database: u32, kind: &str, expires: bool) {
        let count = self.databases.entry(database).or_default();
        count.keys += 1;
        count.expires += u64::from(expires);
        match self.types.get_mut(kind) {
            Some(number) => *number += 1,
            None => drop(self.types.insert(kind.to_owned(), 1)),
        }
    }

    pub fn keys(&self) -> u64 {
        self.databases.values().map(|count| count.keys).sum()
    }
}

/// How the server itself keeps its data: what it would have lost if it had died at that moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Persistence {
    /// The setting `save`; none where the server does not show its settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub save: Option<String>,
    pub append_only: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub append_directory: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub append_file: Option<String>,
    /// Seconds since 1970 of the last snapshot that the server made for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_save: Option<u64>,
    pub last_save_ok: bool,
    pub last_append_ok: bool,
}

impl RedisFacts {
    pub fn from_json(json: &str) -> Result<RedisFacts, Failure> {
        let facts: RedisFacts = serde_json::from_str(json).map_err(|error| {
            Failure::verification("the description of a captured Redis server cannot be read")
                .caused_by(error)
        })?;
        if facts.version > FACTS_VERSION {
            return Err(Failure::usage("a later version of Mainstay captured this Redis server")
                .hint("Restore it with that version or a newer one."));
        }
        Ok(facts)
    }

    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("facts have only numbers and texts as keys")
    }

    /// The name and version of the server, for people.
    pub fn product(&self) -> String {
        let name = if self.server.product == "valkey" { "Valkey" } else { "Redis" };
        format!("{name} {}", self.server.version)
    }

    pub fn major(&self) -> u32 {
        self.server.version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0)
    }
}
