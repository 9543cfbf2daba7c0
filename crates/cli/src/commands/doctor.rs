//! `mainstay doctor`: is everything there that a backup and a restore will need.

use crate::{context::Context, exit::Exit};
use console::style;
use mainstay_domain::{Kind, Result};
use mainstay_operations::doctor::{self, Health};

/// Look at everything that a backup and a restore will need, and say what to do about what is missing
///
/// Exit code 14 means that a backup or a restore would fail.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_: Args, context: &Context) -> Result<Exit> {
    let config = context.config()?;
    let items = doctor::examine(&config, &context.clock());
    for item in &items {
        let mark = match item.health {
            Health::Good => style("good     ").green(),
            Health::Attention => style("attention").yellow(),
            Health::Bad => style("BAD      ").red().bold(),
        };
        context.output.line(format_args!("{mark}  {}: {}", item.subject, item.text));
        if let Some(hint) = &item.hint {
            context.output.line(format_args!("           {hint}"));
        }
        context.output.json("examined", item);
    }
    let bad = items.iter().any(|item| item.health == Health::Bad);
    Ok(if bad { Exit::With(Kind::Preflight) } else { Exit::Done })
}
