//! `mainstay list`: the recovery points that there are.

use super::point::{repositories, warn_of_damage};
use crate::{
    context::Context,
    exit::Exit,
    render::{plain, point, table::Table, time},
};
use mainstay_domain::{ByteSize, Result};
use mainstay_operations::{
    access,
    points::{self, PointInfo},
};

/// List recovery points, oldest first
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only those of this application
    app: Option<String>,
    /// Only the newest N
    #[arg(long, short = 'n', value_name = "N")]
    last: Option<usize>,
}

pub fn run(args: Args, context: &Context) -> Result<Exit> {
    let config = context.config()?;
    let chosen: Vec<_> = match &args.app {
        Some(app) => vec![access::repository_of(&config, app)?],
        None => repositories(&config).collect(),
    };
    let mut found = Vec::new();
    for named in chosen {
        let repository = access::open(&config, &named, context.clock())?;
        warn_of_damage(&repository)?;
        found.extend(points::list(&repository, args.app.as_deref())?);
    }
    found.sort_by_key(|point| point.summary.finished);
    let skipped = args.last.map_or(0, |last| found.len().saturating_sub(last));
    show(context, &found[skipped..]);
    Ok(Exit::Done)
}

/// A line for each point.
pub fn show(context: &Context, found: &[PointInfo]) {
    if found.is_empty() {
        context.output.line("There is no recovery point yet. Make one: mainstay backup APP");
    } else {
        show_as(context, found, "point");
    }
}

/// The same, under the name that they have in JSON.
pub fn show_as(context: &Context, found: &[PointInfo], name: &str) {
    let now = context.clock().now();
    let mut table =
        Table::new(&["POINT", "FINISHED", "APP", "POLICY", "STATE", ">SIZE", ">NEW", "PROVEN", "HELD"]);
    for info in found {
        let summary = &info.summary;
        table.row([
            info.id.short(),
            time::local_short(summary.finished),
            plain(&summary.app),
            plain(&point::made_by(summary)),
            point::state(summary.state),
            ByteSize(summary.bytes()).to_string(),
            ByteSize(summary.stored_bytes).to_string(),
            point::proven(info, now),
            info.holds.iter().map(|hold| plain(&hold.kind)).collect::<Vec<_>>().join(", "),
        ]);
        context.output.json(name, info);
    }
    context.output.line(table.render());
}
