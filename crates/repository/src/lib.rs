//! The repository: one format (`doc/format.md`), one order of events (`doc/consistency.md`).
//!
//! A [`Session`] takes what sources capture, as chunks in sealed packs, and commits one recovery point. A [`Reader`] gives it
//! back. `collect` removes what no point needs, `check` looks whether all is there and intact. All of it works over a
//! [`mainstay_stores::Store`], and nothing here knows what a source is.

pub mod check;
pub mod collect;
pub mod envelope;
mod error;
pub mod format;
pub mod hint;
mod history;
pub mod index;
pub mod keyring;
pub mod log;
pub mod manifest;
pub mod pack;
pub mod proof;
mod reader;
mod repository;
pub mod rescue;
mod salvage;
mod session;
mod signed;
pub mod stream;
pub mod trust;
pub mod wal;

pub use error::RepositoryError;
pub use reader::Reader;
pub use repository::{Access, Created, Repository, read_format};
pub use session::{Committed, Session, Tuning, Written};
