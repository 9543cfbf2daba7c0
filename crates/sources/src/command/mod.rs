//! What any command writes to its standard output, as a source: for data that has a tool of its own to dump it.
//!
//! A command that fails, writes too little or too much, or takes too long fails its source: half an output is no backup.

mod capture;
mod config;
mod restore;
mod run;

pub use capture::{CommandFacts, ask, capture, probe};
pub use config::{CommandConfig, CommandLine};
pub use restore::{compare, plan, to_command, to_directory};
pub use run::run;

/// `SourceRecord::kind` of a command's output.
pub const KIND: &str = "command";

/// The one stream of a record: the output, byte for byte.
pub const OUTPUT: &str = "output";
