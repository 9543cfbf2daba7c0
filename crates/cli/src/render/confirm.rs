//! Asking before something is taken away: the plan is shown first, then its name must be typed out.

use crate::context::Context;
use console::style;
use dialoguer::{Input, theme::SimpleTheme};
use mainstay_domain::{Failure, Kind, Monitor, Result};
use std::io::ErrorKind;

/// Returns if the user typed `word`, or said `--yes`. Where nobody can be asked, says what to do.
pub fn typed(context: &Context, yes: bool, what: &str, word: &str) -> Result<()> {
    if yes {
        return Ok(());
    }
    if !context.interactive() {
        let message = format!("{what} needs a confirmation, and there is no terminal to ask on");
        return Err(Failure::usage(message).hint("Look at the plan, then run it again with --yes."));
    }
    if context.progress.cancelled() {
        return Err(stopped());
    }
    let prompt = format!("To {what}, type {}", style(word).bold());
    if answer(&prompt, "")? == word {
        Ok(())
    } else {
        Err(Failure::usage("that is not what was asked for; nothing was done")
            .hint(format!("To {what}, it must be {word:?}.")))
    }
}

fn stopped() -> Failure {
    Failure::new(Kind::Cancelled, "stopped at a question; nothing was done")
}

/// What somebody types, without blanks around it. `default` is what an empty answer means.
pub fn answer(prompt: &str, default: &str) -> Result<String> {
    let input = Input::<String>::with_theme(&SimpleTheme).with_prompt(prompt).allow_empty(true);
    let input = if default.is_empty() { input } else { input.default(default.to_owned()) };
    let typed = input.interact_text().map_err(|dialoguer::Error::IO(error)| match error.kind() {
        ErrorKind::Interrupted => stopped(),
        _ => Failure::failed("the answer could not be read").caused_by(error),
    })?;
    Ok(typed.trim().to_owned())
}
