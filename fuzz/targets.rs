//! The decoders, shared with the property tests of the repository and of the sources.

#[path = "../crates/sources/tests/sources/decoders.rs"]
mod decoders;
#[path = "../crates/repository/tests/format/targets.rs"]
mod targets;

pub use decoders::{cluster_facts, database_facts, dump_archive};
pub use targets::*;
