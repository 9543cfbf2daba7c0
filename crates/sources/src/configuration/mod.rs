//! An application's configuration: files (captured as `crate::files` does), and tables of its database as readable JSON lines.
//!
//! Everything is stored in full, since the repository is encrypted. What is *shown* of it, in a comparison, goes through
//! [`secrets`]: values that look like passwords, keys or tokens are hidden.

mod capture;
mod config;
pub mod diff;
mod facts;
mod import;
mod restore;
pub mod secrets;

pub use capture::capture;
pub use config::{ConfigurationConfig, Table};
pub use facts::{TableFact, tables};
pub use import::{Import, import, plan_import};
pub use restore::{plan_tables, restore_tables, verify_tables};

/// `SourceRecord::kind` of a configuration.
pub const KIND: &str = "config";

/// A table's stream, before its name: a line for each row, each a JSON object, in the order of their texts.
pub const TABLE: &str = "table/";
