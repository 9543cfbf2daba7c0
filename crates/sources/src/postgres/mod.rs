//! PostgreSQL as a source: a wire client of our own, the server's tools, throw-away clusters, the logical capture of a
//! database and the physical one of a whole [`cluster`].
//!
//! A logical capture is one consistent snapshot of one database: schema and large objects by the server's own `pg_dump`, table
//! data by parallel COPY with a digest per row, and [`facts`] about everything, so that a restore can be *proved* equal.
//! Nothing here knows of repositories: bytes go through `domain::stream::Sink`.

pub mod capture;
pub mod cluster;
pub mod compare;
pub mod config;
pub mod diff;
pub mod facts;
pub mod inspect;
pub mod mask;
pub mod merge;
mod postmaster;
pub mod replace;
pub mod replication;
pub mod restore;
pub mod rows;
pub mod sandbox;
pub mod secret;
pub mod session;
pub mod swap;
pub mod tools;
pub mod wal;
pub mod wire;
