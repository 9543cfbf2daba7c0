//! The command line as a whole: what every command understands, and the list of commands.

use crate::commands::Command;
use clap::{Args, Parser};
use std::path::PathBuf;

/// Backs up web applications, and proves that they come back.
#[derive(Debug, Parser)]
#[command(
    name = "mainstay",
    version,
    max_term_width = 100,
    disable_help_subcommand = true,
    after_help = "Start with `mainstay init`, or see it at work with `mainstay demo`."
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options for every command")]
pub struct Global {
    /// The configuration file [default: ./mainstay.yaml, then /etc/mainstay/mainstay.yaml]
    #[arg(long, global = true, value_name = "FILE", env = "MAINSTAY_CONFIG", hide_env_values = true)]
    pub config: Option<PathBuf>,
    /// Write results and events as JSON Lines on standard output; everything else goes to standard error
    #[arg(long, global = true)]
    pub json: bool,
    /// Show no progress
    #[arg(long, short, global = true)]
    pub quiet: bool,
}
