//! The `mainstay` binary: reads the command line, calls an operation, renders what comes out.
//!
//! Nothing is decided here. Each command is one file in `commands/`, a thin function over one operation; `render/` turns
//! values into text, `progress.rs` turns events into bars or lines, `exit.rs` turns outcomes into exit codes.

mod args;
mod commands;
mod context;
mod demo;
mod exit;
#[cfg(test)]
mod hints;
mod output;
mod progress;
mod render;

use args::Cli;
use clap::Parser;
use context::Context;
use std::{ffi::OsString, panic, process::ExitCode};

fn main() -> ExitCode {
    // A server in recovery takes every code up to 125 for the end of the log. Whatever happens to us here is not that.
    let wrong = if is_fetch(std::env::args_os()) { Some(commands::FETCH_FAILED) } else { None };
    let ended = panic::catch_unwind(|| run(wrong));
    ended.unwrap_or_else(|panic| wrong.map_or_else(|| panic::resume_unwind(panic), ExitCode::from))
}

/// `wrong`: the code for everything that keeps the command from beginning, if it is not the usual one.
fn run(wrong: Option<u8>) -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let usual = u8::try_from(error.exit_code()).unwrap_or(1);
            exit::refuse(&error);
            return ExitCode::from(wrong.filter(|_| error.use_stderr()).unwrap_or(usual));
        }
    };
    let context = Context::new(&cli.global);
    // A server that shuts down ends its `restore_command` with SIGTERM, and expects it to die of that.
    let watching = if wrong.is_some() { Ok(()) } else { context.watch_signals() };
    let outcome = watching.and_then(|()| commands::run(cli.command, &context));
    match (&outcome, wrong) {
        (Err(failure), Some(wrong)) => {
            exit::show(failure, &context);
            ExitCode::from(wrong)
        }
        _ => exit::report(outcome, &context),
    }
}

/// Whether `wal fetch` is what was meant, even if it cannot be understood.
fn is_fetch(arguments: impl Iterator<Item = OsString>) -> bool {
    let words: Vec<OsString> = arguments.collect();
    words.windows(2).any(|pair| pair[0] == "wal" && pair[1] == "fetch")
}
