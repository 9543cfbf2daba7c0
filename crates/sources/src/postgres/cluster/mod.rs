//! A whole PostgreSQL cluster as a source: base backups of its data directory, for recovery to a point in time.
//!
//! [`capture()`] reads the files while the server runs, between `pg_backup_start` and `pg_backup_stop`, and takes the log that
//! makes them consistent into the same record: every base backup can be restored by itself. A later one stores only the pages
//! that changed (`pages`) and is a whole base backup all the same. Where the directory cannot be read, the same record is made of what
//! the server streams (`remote`). [`restore`] brings the files back, ready for recovery.
//! Which segments of the log an archive holds, and where recovery ends, is not known here (`crate::postgres::wal`).

mod basis;
pub mod build;
mod capture;
pub mod checksum;
pub mod config;
pub mod control;
mod entries;
mod exclude;
pub mod facts;
mod increment;
mod manifest;
mod old;
pub(crate) mod pages;
mod read;
mod remote;
pub mod restore;
mod server;
mod shared;
pub mod standby;
pub mod start;
pub mod stopped;
mod tar;
mod tree;

pub use capture::{Options, capture, probe};
pub use config::{ClusterConfig, Method, ReceiveConfig, StartDaemon, WalConfig};
pub use facts::{Captured, ClusterFacts};
pub use server::Server;

/// `SourceRecord::kind` of a cluster.
pub const KIND: &str = "cluster";

/// Streams of a record: the data directory's files; a tablespace's, with its oid; the control file; what the server said at the
/// end; a segment of the log; a configuration file outside of the data directory, by its path.
pub const LISTING: &str = "listing";
const TABLESPACE: &str = "listing/";
const CONTROL: &str = "pg_control";
/// The control file in a data directory, without which nothing can be started on it.
pub const CONTROL_FILE: &str = exclude::CONTROL;
const BACKUP_LABEL: &str = "backup_label";
const TABLESPACE_MAP: &str = "tablespace_map";
const WAL: &str = "wal/";
const CONFIG: &str = "config/";
