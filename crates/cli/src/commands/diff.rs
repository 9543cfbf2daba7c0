//! `mainstay diff`: what changed between two recovery points, or since a point.

use super::point::{self, Chosen};
use crate::{context::Context, exit::Exit, render::count};
use console::style;
use mainstay_domain::{Failure, Result};
use mainstay_operations::{
    access::app_of,
    diff::{self, Became, Difference},
    restore,
};

/// Show what changed between two recovery points, or between one and what lives now
///
/// Files are compared by their entries, tables by row counts and digests, definitions by their texts.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(help = point::HELP)]
    before: String,
    #[arg(help = "The later recovery point, named in the same way", required_unless_present = "live")]
    after: Option<String>,
    /// Compare with what lives now instead
    #[arg(long, conflicts_with = "after")]
    live: bool,
    /// Only this source
    #[arg(long, short)]
    source: Option<String>,
}

pub fn run(args: Args, context: &Context) -> Result<Exit> {
    let config = context.config()?;
    let before = point::choose(context, &config, &args.before)?;
    let after = args.after.as_ref().map(|words| point::choose(context, &config, words)).transpose()?;
    let mut found = 0;
    let mut visit = |difference: Difference| {
        show(context, &difference);
        found += 1;
        Ok(())
    };
    for source in sources(&before, after.as_ref(), args.source.as_deref())? {
        let opened = restore::open(&before.repository, &before.info, &source)?;
        match &after {
            Some(after) => {
                let later = restore::open(&after.repository, &after.info, &source)?;
                diff::points(&opened, &later, &mut visit)?;
            }
            None => {
                let app = app_of(&config, &before.info.summary.app)?;
                let row_key = before.repository.keyring().current().row_key();
                diff::live(app, &opened, row_key, &context.progress, &mut visit)?;
            }
        }
    }
    context.progress.finish();
    let word =
        if found == 0 { "Nothing differs.".to_owned() } else { format!("\n{}.", count(found, "difference")) };
    context.output.line(word);
    Ok(Exit::Done)
}

/// The sources to compare: the one that is named, or all that both points have.
fn sources(before: &Chosen, after: Option<&Chosen>, named: Option<&str>) -> Result<Vec<String>> {
    let of = |chosen: &Chosen| chosen.info.summary.sources.iter().map(|s| s.name.clone()).collect::<Vec<_>>();
    let both: Vec<_> =
        of(before).into_iter().filter(|name| after.is_none_or(|after| of(after).contains(name))).collect();
    match named {
        Some(name) if both.iter().any(|source| source == name) => Ok(vec![name.to_owned()]),
        Some(name) => Err(Failure::usage(format!("there is no source named {name:?} in both"))
            .hint(format!("There is: {}.", both.join(", ")))),
        None => Ok(both),
    }
}

fn show(context: &Context, difference: &Difference) {
    let Difference { source, object, became, detail } = difference;
    let mark = match became {
        Became::Added => style("+").green(),
        Became::Removed => style("-").red(),
        Became::Changed => style("~").yellow(),
    };
    let detail = match (became, detail.as_str()) {
        (Became::Added | Became::Removed, _) | (_, "") => String::new(),
        (Became::Changed, detail) => format!("  ({detail})"),
    };
    context.output.line(format_args!("{mark} {source}: {object}{detail}"));
    context.output.json("difference", difference);
}
