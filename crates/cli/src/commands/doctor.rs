//! `mainstay doctor`: is everything there that a backup and a restore will need.

use crate::{context::Context, exit::Exit, render::plain};
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
        context.output.line(format_args!("{mark}  {}: {}", plain(&item.subject), plain(&item.text)));
        if let Some(hint) = &item.hint {
            context.output.line(format_args!("           {}", plain(hint)));
        }
        context.output.json("examined", item);
    }
    let of = |health| items.iter().filter(|item| item.health == health).count();
    context.output.line(match (of(Health::Bad), of(Health::Attention)) {
        (0, 0) => "\nAll is as it should be.".to_owned(),
        (0, look) => format!("\nBackups and restores will work; {look} to look at."),
        (bad, look) => format!("\nBackups or restores will FAIL: {bad} to mend, {look} to look at."),
    });
    let bad = of(Health::Bad) > 0;
    Ok(if bad { Exit::With(Kind::Preflight) } else { Exit::Done })
}
