//! Asking before something is taken away: the plan is shown first, then its name must be typed out.

use crate::context::Context;
use console::style;
use dialoguer::{Input, theme::SimpleTheme};
use mainstay_domain::{Failure, Result};

/// Returns if the user typed `word`, or said `--yes`. Where nobody can be asked, says what to do.
pub fn typed(context: &Context, yes: bool, what: &str, word: &str) -> Result<()> {
    if yes {
        return Ok(());
    }
    if !context.interactive() {
        let message = format!("{what} needs a confirmation, and there is no terminal to ask on");
        return Err(Failure::usage(message).hint("Look at the plan, then run it again with --yes."));
    }
    let prompt = format!("To {what}, type {}", style(word).bold());
    let typed: String =
        Input::with_theme(&SimpleTheme).with_prompt(prompt).allow_empty(true).interact_text().map_err(
            |error| Failure::failed("the confirmation could not be read").caused_by(error.to_string()),
        )?;
    if typed.trim() == word {
        Ok(())
    } else {
        Err(Failure::usage("that is not what was asked for; nothing was done")
            .hint(format!("To {what}, it must be {word:?}.")))
    }
}
