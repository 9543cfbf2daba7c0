//! The decoders, shared with the property tests of the repository.

#[path = "../crates/repository/tests/format/targets.rs"]
mod targets;

pub use targets::*;
