//! Redis and Valkey as a source: a client of our own, the snapshot that a replica would be given, and the ways back.
//!
//! [`capture()`] asks the server for a full synchronisation, as a replica does (and `redis-cli --rdb`), and stores the RDB file
//! that comes: one instant of the whole server, its checksum verified and its keys counted on the way. Where a service refuses
//! that, it reads key by key (SCAN, DUMP), which is no instant, and says so. [`restore`] writes what a server starts on, or loads
//! it into one that lives; [`compare()`] looks each key up in a throw-away server.

mod address;
mod capture;
mod client;
mod compare;
mod config;
mod error;
mod facts;
mod info;
mod keys;
mod rdb;
pub mod restore;
mod sandbox;
mod snapshot;

pub use address::Address;
pub use capture::{Probe, capture, probe};
pub use client::{Client, Value};
pub use compare::{Comparison, compare};
pub use config::{RedisConfig, SnapshotBy};
pub use error::RedisError;
pub use facts::{Census, Count, Form, RedisFacts};
pub use sandbox::{Sandbox, program};

/// `SourceRecord::kind` of a Redis or Valkey server.
pub const KIND: &str = "redis";

/// Streams of a record: an RDB file, byte for byte; or the records of `keys`. Exactly one of the two.
pub const RDB: &str = "rdb";
pub const KEYS: &str = "keys";
