//! From an outcome to an exit code, and from a failure to what its reader sees.
//!
//! The codes are [`Kind::exit_code`]; `doc/reference/exit-codes.md` is generated from [`CODES`].

use crate::{context::Context, output, render::failure};
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
        Ok(Exit::With(kind)) => ExitCode::from(kind.exit_code()),
        Ok(Exit::Code(code)) => ExitCode::from(code),
        Err(error) => {
            show(&error, context);
            ExitCode::from(error.kind.exit_code())
        }
    }
}

/// What its reader sees of a failure.
pub fn show(error: &Failure, context: &Context) {
    output::note(failure::text(error));
    context.output.json("error", &failure::json(error));
}
