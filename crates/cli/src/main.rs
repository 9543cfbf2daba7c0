//! The `mainstay` binary: reads the command line, calls an operation, renders what comes out.
//!
//! Nothing is decided here. Each command is one file in `commands/`, a thin function over one operation; `render/` turns
//! values into text, `progress.rs` turns events into bars or lines, `exit.rs` turns outcomes into exit codes.

mod args;
mod commands;
mod context;
mod demo;
mod exit;
mod output;
mod progress;
mod render;

use args::Cli;
use clap::Parser;
use context::Context;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let context = Context::new(&cli.global);
    let outcome = context.watch_signals().and_then(|()| commands::run(cli.command, &context));
    exit::report(outcome, &context)
}
