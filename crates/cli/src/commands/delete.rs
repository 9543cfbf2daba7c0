//! `mainstay delete`: give up recovery points by hand.

use super::point::{self, Chosen};
use crate::{
    context::Context,
    exit::Exit,
    render::{confirm, plain, point::state, table::Table, time},
};
use mainstay_domain::{ByteSize, Result};
use mainstay_operations::{manage, points::PointInfo};
use mainstay_repository::Repository;
use serde_json::json;

/// Delete recovery points
///
/// Refuses points that are held, and the last complete or last proven one of an application. The space is given back by
/// `mainstay prune`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(help = point::HELP, required = true)]
    points: Vec<String>,
    /// Why; kept in the repository's log
    #[arg(long, default_value = "deleted by hand")]
    reason: String,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

pub fn run(args: Args, context: &Context) -> Result<Exit> {
    let config = context.config()?;
    let chosen = args
        .points
        .iter()
        .map(|words| point::choose(context, &config, words))
        .collect::<Result<Vec<Chosen>>>()?;
    let mut table = Table::new(&["POINT", "FINISHED", "APP", "STATE", ">SIZE"]);
    for Chosen { info, .. } in &chosen {
        let summary = &info.summary;
        table.row([
            info.id.short(),
            time::local_short(summary.finished),
            plain(&summary.app),
            state(summary.state),
            ByteSize(summary.bytes()).to_string(),
        ]);
    }
    context.output.line(format_args!("To be deleted:\n\n{}\n", table.render()));
    confirm::typed(context, args.yes, "delete them", "delete")?;
    let by = super::whoami();
    let configured =
        |app: &str, source: &str| config.apps.get(app).is_some_and(|app| app.sources.contains_key(source));
    for (repository, points) in by_repository(&chosen) {
        manage::delete(repository, &points, &configured, &by, &args.reason, context.clock().now(), |info| {
            context.output.line(format_args!("Recovery point {} is deleted.", info.id.short()));
            context.output.json("deleted", &json!({ "point": info.id }));
        })?;
    }
    Ok(Exit::Done)
}

/// Points of the same repository go together, so that none is judged as if the others stayed.
fn by_repository(chosen: &[Chosen]) -> Vec<(&Repository, Vec<PointInfo>)> {
    let mut together: Vec<(&Repository, Vec<PointInfo>)> = Vec::new();
    for Chosen { repository, info } in chosen {
        match together.iter_mut().find(|(other, _)| other.id() == repository.id()) {
            Some((_, points)) => points.push(info.clone()),
            None => together.push((repository, vec![info.clone()])),
        }
    }
    together
}
