//! The words that every other crate shares: ids, sizes, times, error kinds, and the shape of a recovery point.
//!
//! This crate imports nothing of ours, performs no input or output, and reads neither clock nor environment. What two
//! crates must agree on (a file's entry in a listing, the pieces of a stream, the traits through which a source hands its
//! bytes to the repository) is defined here once; how it lies on storage is written down in `doc/format.md`.

pub mod failure;
pub mod id;
pub mod listing;
pub mod monitor;
pub mod point;
pub mod retention;
pub mod size;
pub mod stream;
pub mod time;
pub mod wal;

pub use failure::{Failure, Kind, Result};
pub use id::{
    ChunkId, DomainId, EpochId, HoldId, HostId, Incarnation, ObjectId, PackId, PointId, RepositoryId,
    SessionId,
};
pub use monitor::{Monitor, Severity, Silent, Within};
pub use size::ByteSize;
pub use time::{Clock, SystemClock, Time};
pub use wal::Lsn;
