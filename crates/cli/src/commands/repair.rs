//! `mainstay repair`: settles what a person has to decide about a repository.

use super::point::{self, repositories};
use crate::{
    context::Context,
    exit::Exit,
    render::{confirm, count, time},
};
use mainstay_domain::{Failure, Kind, Result};
use mainstay_operations::{
    access::{self, Named},
    config::Config,
    repair,
};
use mainstay_repository::Repository;
use serde_json::json;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

/// Write down what is wrong with a repository, so that it heals or can go on
///
/// Nothing is deleted by it. Packs that are lost are stored again by the next backup, as far as their content is still there to
/// be captured.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this repository of the configuration
    #[arg(long, value_name = "NAME")]
    repository: Option<String>,
    /// Read every pack that recovery points need, and name the lost ones in the log, so that the next backup stores their content
    /// again
    #[arg(long)]
    packs: bool,
    /// Show each entry of the log that is in doubt, and go on without them: until then nothing is given up
    #[arg(long)]
    acknowledge: bool,
    /// Take a recovery point back that lies in the store and that the log does not name (its entry was lost, or it was deleted
    /// and not yet collected); may be repeated
    #[arg(long, value_name = "ID")]
    adopt: Vec<String>,
    /// The store was restored from an older copy of itself: go on with what it holds now
    #[arg(long)]
    accept_rollback: bool,
    /// Put back what the store has lost of the small objects that this recovery kit repeats: `format`, `trust/*`, `keys/*` and
    /// the beginning of the log
    #[arg(long, value_name = "FILE")]
    kit: Option<PathBuf>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

pub fn run(args: Args, context: &Context) -> Result<Exit> {
    if !(args.accept_rollback || args.acknowledge || args.packs || args.kit.is_some())
        && args.adopt.is_empty()
    {
        return Err(Failure::usage("nothing to repair was named")
            .hint("Say what: --packs, --acknowledge, --adopt ID, --accept-rollback or --kit FILE."));
    }
    let config = context.config()?;
    let chosen: Vec<_> = match &args.repository {
        Some(name) => vec![access::repository_named(&config, name)?],
        None => repositories(&config).collect(),
    };
    if let Some(file) = &args.kit {
        from_kit(context, &config, &chosen, file)?;
    }
    if !(args.accept_rollback || args.acknowledge || args.packs) && args.adopt.is_empty() {
        return Ok(Exit::Done);
    }
    let mut exit = Exit::Done;
    let mut adopted = BTreeSet::new();
    for named in &chosen {
        let name = named.name;
        let repository = access::open(&config, named, context.clock())?;
        if args.accept_rollback {
            accept_rollback(context, name, &repository)?;
        }
        if args.acknowledge && !acknowledge(context, name, &repository, args.yes)? {
            exit = Exit::With(Kind::Refused);
        }
        for prefix in &args.adopt {
            // It is in one of several; where it is in none, the last one says so.
            let is_last = chosen.last().is_some_and(|last| last.name == name);
            let is_elsewhere = adopted.contains(prefix) || !is_last;
            if is_elsewhere && !repair::has_adoptable(&repository, prefix)? {
                continue;
            }
            adopted.insert(prefix);
            let (point, summary) = repair::adopt(&repository, prefix)?;
            context.output.line(format_args!(
                "{name}: recovery point {} of {} is back in the log.",
                point.short(),
                summary.app
            ));
            context.output.json("repair", &json!({ "repository": name, "adopted": point }));
        }
        if args.packs && !packs(context, name, &repository)? {
            exit = Exit::With(Kind::Verification);
        }
    }
    Ok(exit)
}

/// Puts back what a kit holds, in the one repository that it is of.
fn from_kit(context: &Context, config: &Config, chosen: &[Named<'_>], file: &Path) -> Result<()> {
    let spares = point::spares(file)?;
    let mut refused = None;
    for named in chosen {
        let name = named.name;
        match repair::from_kit(config, named, &spares, context.clock()) {
            Ok(None) => {}
            Ok(Some(restored)) => {
                match restored.as_slice() {
                    [] => context
                        .output
                        .line(format_args!("{name}: nothing is lost that the kit could give back.")),
                    restored => {
                        context.output.line(format_args!("{name}: put back {}.", restored.join(", ")))
                    }
                }
                context.output.json("repair", &json!({ "repository": name, "put_back": restored }));
                return Ok(());
            }
            // Another one may be the kit's.
            Err(failure) => refused = refused.or(Some(failure)),
        }
    }
    Err(refused.unwrap_or_else(|| {
        Failure::usage("the kit is of none of these repositories").hint("Compare the fingerprints.")
    }))
}

fn accept_rollback(context: &Context, name: &str, repository: &Repository) -> Result<()> {
    let rolled_back = repository.was_rolled_back();
    if rolled_back {
        repository.accept_rollback()?;
        context.output.line(format_args!(
            "{name}: taken as it is now. Points made since that copy are gone; make a new backup."
        ));
    } else {
        context.output.line(format_args!("{name}: nothing was rolled back."));
    }
    context.output.json("repair", &json!({ "repository": name, "accepted_rollback": rolled_back }));
    Ok(())
}

/// Whether nothing is in doubt any more.
fn acknowledge(context: &Context, name: &str, repository: &Repository, yes: bool) -> Result<bool> {
    let out = &context.output;
    let doubts = repair::doubts(repository)?;
    if doubts.entries.is_empty() {
        out.line(format_args!("{name}: nothing in its log is in doubt."));
        return Ok(true);
    }
    out.line(format_args!("{name}: in doubt of its log is"));
    for (n, doubt) in &doubts.entries {
        out.line(format_args!("  entry {n}: {doubt}"));
    }
    if !doubts.unnamed.is_empty() {
        out.line(format_args!(
            "\nIn the store, and not named by the log (deleted, or committed by an entry above):"
        ));
    }
    for (point, summary) in &doubts.unnamed {
        out.line(format_args!(
            "  {} of {}, {}",
            point.short(),
            summary.app,
            time::local_short(summary.finished)
        ));
    }
    if !doubts.unnamed.is_empty() {
        out.line(
            "Afterwards `mainstay repair --adopt ID` takes one back; the next prune gives up the others.",
        );
    }
    out.line("");
    confirm::typed(context, yes, "go on without what these entries may have said", "acknowledge")?;
    let left = repair::acknowledge(repository, &doubts)?;
    let settled = doubts.entries.len() - left.min(doubts.entries.len());
    out.line(format_args!("{name}: {} acknowledged.", count(settled as u64, "entry")));
    if left > 0 {
        out.line(format_args!(
            "{name}: {} a later version of Mainstay wrote; use one at least as new.",
            count(left as u64, "entry")
        ));
    }
    out.json(
        "repair",
        &json!({
            "repository": name, "acknowledged": doubts.entries.keys().collect::<Vec<_>>(), "left": left,
            "unnamed_points": doubts.unnamed.iter().map(|(id, _)| id).collect::<Vec<_>>(),
        }),
    );
    Ok(left == 0)
}

/// Whether every pack is whole.
fn packs(context: &Context, name: &str, repository: &Repository) -> Result<bool> {
    let out = &context.output;
    let repaired = repair::packs(repository, &context.progress)?;
    context.progress.finish();
    for finding in &repaired.report.findings {
        out.line(format_args!("  {}: {}", finding.object, finding.problem));
    }
    if !repaired.found.is_empty() {
        out.line(format_args!("{name}: {} whole again.", count(repaired.found.len() as u64, "pack")));
    }
    if !repaired.made_good.is_empty() {
        out.line(format_args!(
            "{name}: {} lost, and everything that recovery points need of it lies elsewhere.",
            count(repaired.made_good.len() as u64, "pack")
        ));
    }
    out.line(match repaired.lost.len() {
        0 if !repaired.made_good.is_empty() => format!("{name}: every recovery point is whole."),
        0 => format!("{name}: every pack that a recovery point needs is whole."),
        lost => format!(
            "{name}: {} lost. The next backup stores again what lay there and can still be captured.",
            count(lost as u64, "pack")
        ),
    });
    if repaired.report.findings.iter().any(|finding| finding.object.starts_with("proofs/")) {
        out.line(format_args!("{name}: {}", super::verify::LOST_PROOF));
    }
    out.json(
        "repair",
        &json!({
            "repository": name, "lost": repaired.lost, "made_good": repaired.made_good, "found": repaired.found,
        }),
    );
    Ok(repaired.report.is_clean())
}
