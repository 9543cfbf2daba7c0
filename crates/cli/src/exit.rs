//! From an outcome to an exit code, and from a failure to what its reader sees.
//!
//! The codes are [`Kind::exit_code`]; `doc/reference/exit-codes.md` is generated and compared by a test.

use crate::{
    context::Context,
    output::{self, Output},
    render::failure,
};
use mainstay_domain::{Failure, Kind, Result};
use std::process::ExitCode;

/// How a command ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All of it was done.
    Done,
    /// It ran to its end, and its result is one that scripts must notice: an incomplete point, a failed verification.
    With(Kind),
    /// It ran under a protocol of somebody else's, who reads this code.
    Code(u8),
}

/// The name of a kind in JSON lines.
pub fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Failed => "failed",
        Kind::Usage => "usage",
        Kind::Incomplete => "incomplete",
        Kind::Verification => "verification",
        Kind::Objective => "objective",
        Kind::NoRepository => "no_repository",
        Kind::Busy => "busy",
        Kind::WrongKey => "wrong_key",
        Kind::Refused => "refused",
        Kind::Preflight => "preflight",
        Kind::Cancelled => "cancelled",
    }
}

/// Shows a failure, and gives the process its exit code.
pub fn report(outcome: Result<Exit>, context: &Context) -> ExitCode {
    context.progress.finish();
    match outcome {
        Ok(Exit::Done) => ExitCode::SUCCESS,
        Ok(Exit::With(kind)) => {
            // What it is about was said before; a program still finds the end where every failure has it.
            let ended = Failure::new(kind, "not all of it is well: the lines before say what is not");
            context.output.json("error", &failure::json(&ended));
            ExitCode::from(kind.exit_code())
        }
        Ok(Exit::Code(code)) => ExitCode::from(code),
        Err(error) => {
            show(&error, context);
            ExitCode::from(error.kind.exit_code())
        }
    }
}

/// What cannot be understood of the command line; a program that asked for JSON gets it there, too.
pub fn refuse(error: &clap::Error) {
    let _ = error.print();
    let mut options = std::env::args_os().take_while(|word| word != "--");
    if !error.use_stderr() || !options.any(|word| word == "--json") {
        return;
    }
    let rendered = error.render().to_string();
    let (said, more) = rendered.split_once("\n\n").unwrap_or((&rendered, ""));
    let said: Vec<&str> = said.trim_start_matches("error: ").lines().map(str::trim).collect();
    let more: Vec<&str> = more.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let failure = Failure::usage(said.join(" ")).hint(more.join("\n"));
    Output::new(true).json("error", &failure::json(&failure));
}

/// What its reader sees of a failure.
pub fn show(error: &Failure, context: &Context) {
    output::note(failure::text(error));
    context.output.json("error", &failure::json(error));
}
