//! From an outcome to an exit code, and from a failure to what its reader sees.
//!
//! The codes are [`Kind::exit_code`]; `doc/reference/exit-codes.md` is generated and compared by a test.

use crate::{
    args::Cli,
    context::Context,
    output::{self, Output},
    render::failure,
};
use clap::{CommandFactory, error::ErrorKind};
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
    if !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = error.print();
    }
    if !error.use_stderr() {
        return;
    }
    let failure = misunderstood(&error.render().to_string());
    if error.kind() != ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        output::note(failure::text(&failure));
    }
    if std::env::args_os().take_while(|word| word != "--").any(|word| word == "--json") {
        Output::new(true).json("error", &failure::json(&failure));
    }
}

/// What the parser of the command line says, in the form that every failure has.
fn misunderstood(rendered: &str) -> Failure {
    let (said, more) = rendered.split_once("\n\n").unwrap_or((rendered, ""));
    let said: Vec<&str> = said.trim_start_matches("error: ").lines().map(str::trim).collect();
    let mut hints = Vec::new();
    for line in more.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Some(tip) = line.strip_prefix("tip: ") {
            let mut letters = tip.chars();
            let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
            hints.push(format!("{first}{}.", letters.as_str()));
        } else if let Some(usage) = line.strip_prefix("Usage: ") {
            let command: Vec<&str> = usage
                .split(' ')
                .take_while(|word| {
                    word.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') && !word.starts_with('-')
                })
                .collect();
            hints.push(format!("It is used as `{usage}`; `{} --help` explains it.", command.join(" ")));
        } else if !line.starts_with("For more information") {
            hints.push(line.to_owned());
        }
    }
    if hints.is_empty() {
        let cli = Cli::command();
        let mut words = std::env::args_os().skip(1);
        let command = words.find_map(|word| Some(cli.find_subcommand(&word)?.get_name().to_owned()));
        let command = command.map_or_else(String::new, |command| format!("{command} "));
        hints.push(format!("`{} {command}--help` says what is allowed.", cli.get_name()));
    }
    // What the standard library says of a number.
    let said = said.join(" ").replace("invalid digit found in string", "not a whole number");
    Failure::usage(said).hint(hints.join("\n"))
}

/// What its reader sees of a failure.
pub fn show(error: &Failure, context: &Context) {
    output::note(failure::text(error));
    context.output.json("error", &failure::json(error));
}
