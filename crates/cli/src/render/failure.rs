//! A failure as its reader sees it: what happened, why, what to do next.

use super::plain;
use crate::exit;
use console::style;
use mainstay_domain::Failure;
use serde::Serialize;

/// `error: …`, then the causes, then `hint: …`.
pub fn text(failure: &Failure) -> String {
    let mut text = format!("{} {}", style("error:").for_stderr().red().bold(), lines(&failure.message));
    for cause in failure.causes() {
        text.push_str(&format!("\n  cause: {}", lines(&cause).replace('\n', "\n         ")));
    }
    if let Some(hint) = &failure.hint {
        text.push_str(&format!("\n{} {}", style("hint:").for_stderr().cyan().bold(), lines(hint)));
    }
    text
}

/// A message may have several lines of its own; what it repeats of others must do no more than that.
fn lines(text: &str) -> String {
    text.split('\n').map(plain).collect::<Vec<_>>().join("\n")
}

#[derive(Debug, Serialize)]
pub struct Json {
    kind: &'static str,
    exit_code: u8,
    message: String,
    causes: Vec<String>,
    hint: Option<String>,
}

pub fn json(failure: &Failure) -> Json {
    Json {
        kind: exit::name(failure.kind),
        exit_code: failure.kind.exit_code(),
        message: failure.message.clone(),
        causes: failure.causes(),
        hint: failure.hint.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn causes_stand_in_order_and_are_not_repeated() {
        console::set_colors_enabled_stderr(false);
        let inner = Failure::failed("the store is away").caused_by(io::Error::other("connection refused"));
        let outer = Failure::preflight("nothing was done").caused_by(inner).hint("Try again.");
        assert_eq!(
            text(&outer),
            "error: nothing was done\n  cause: the store is away\n  cause: connection refused\nhint: Try again."
        );
        let same = Failure::failed("it broke").caused_by(io::Error::other("it broke"));
        assert_eq!(text(&same), "error: it broke");
    }
}
