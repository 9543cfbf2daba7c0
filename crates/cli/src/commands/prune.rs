//! `mainstay prune`: give up the points that no rule keeps, then give back the space that nothing needs.

use super::point::repositories;
use crate::{
    context::Context,
    exit::Exit,
    render::{self, confirm, count, plain, table::Table, time},
};
use mainstay_domain::{ByteSize, Result, retention::Decision, time::Span};
use mainstay_operations::{
    access,
    prune::{self, GRACE, PATIENCE, Plan},
};
use mainstay_repository::collect::{Collected, Waiting};
use serde_json::json;

/// Give up recovery points that no policy keeps, and give back their space
///
/// Every point is listed with the rule that keeps it, or why nothing does. Held points, the newest complete point and the
/// last proven one always stay. Space is given back in two steps: what nothing needs is condemned, and deleted once every backup
/// that began before has ended, so that a backup that runs at the same time loses nothing. Where none runs, one prune does both;
/// otherwise a later one deletes. A backup that was killed counts as running until it has shown nothing new for 6 hours. Archived WAL that lies before every base backup that is
/// left goes at once.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this repository of the configuration
    #[arg(long, value_name = "NAME")]
    repository: Option<String>,
    /// Keep every point at least this long after a newer one took its place
    #[arg(long, value_name = "TIME", default_value_t = GRACE)]
    grace: Span,
    /// This machine's clock is right, though it is more than a day ahead of the newest recovery point: decide by it
    #[arg(long)]
    accept_clock: bool,
    /// Show what would be done and why, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

pub fn run(args: Args, context: &Context) -> Result<Exit> {
    let config = context.config()?;
    let chosen: Vec<_> = match &args.repository {
        Some(name) => vec![access::repository_named(&config, name)?],
        None => repositories(&config).collect(),
    };
    for named in chosen {
        let repository = access::open(&config, &named, context.clock())?;
        let now = context.clock().now();
        let plan = prune::plan(&config, named.name, &repository, now, args.grace, args.accept_clock)?;
        show(context, named.name, &plan);
        if args.dry_run {
            context.output.line(format_args!(
                "Nothing was done. Nothing needs {} ({}) as it is; what only given-up points need comes on top.",
                count(plan.garbage.condemned_objects as u64, "object"),
                ByteSize(plan.garbage.condemned_bytes)
            ));
            show_waiting(context, &plan.garbage.waiting_for);
            continue;
        }
        if plan.dropped().next().is_some() {
            confirm::typed(context, args.yes, "give up these recovery points", "prune")?;
        }
        let by = super::whoami();
        let pruned = prune::execute(&repository, &plan, &by, &context.progress)?;
        context.progress.finish();
        show_collected(context, &pruned.collected);
        if pruned.wal.files > 0 {
            context.output.line(format_args!(
                "Deleted {} of archived WAL ({}).",
                count(pruned.wal.files as u64, "file"),
                ByteSize(pruned.wal.bytes)
            ));
            context.output.json("pruned_log", &pruned.wal);
        }
    }
    Ok(Exit::Done)
}

fn show(context: &Context, name: &str, plan: &Plan) {
    let out = &context.output;
    let mut table = Table::new(&["POINT", "FINISHED", "APP", "POLICY", "", "WHY", "GOES"]);
    for Decision { point, keep, reasons, goes_at } in &plan.decisions {
        let summary = plan.points.get(point).map(|info| &info.summary);
        let why: Vec<_> = reasons.iter().map(ToString::to_string).collect();
        table.row([
            point.short(),
            summary.map(|s| time::local_short(s.finished)).unwrap_or_default(),
            summary.map(|s| plain(&s.app)).unwrap_or_default(),
            summary.map(|s| plain(&render::point::made_by(s))).unwrap_or_default(),
            if *keep { "keep".to_owned() } else { "GIVE UP".to_owned() },
            plain(&why.join("; ")),
            match (keep, goes_at) {
                (false, _) => "now".to_owned(),
                (true, Some(at)) => time::local_short(*at),
                (true, None) => String::new(),
            },
        ]);
    }
    let given_up = plan.dropped().count();
    let kept = plan.decisions.len() - given_up;
    out.line(format_args!(
        "Repository {name}: {} kept, {given_up} given up.\n",
        count(kept as u64, "recovery point")
    ));
    if !table.is_empty() {
        out.line(format_args!("{}\n", table.render()));
    }
    if !plan.clock_keeps.is_empty() {
        out.line(format_args!(
            "{} would go by this machine's clock and no later than the newest recovery point tells, so nothing goes for it \
             yet.\nThey go after the next backup; if the clock is right, `--accept-clock` says so.\n",
            count(plan.clock_keeps.len() as u64, "recovery point"),
        ));
        out.json("kept_by_clock", &json!({ "points": plan.clock_keeps, "judged_at": plan.now }));
    }
    for (point, holds) in &plan.expired {
        for (id, hold) in holds {
            out.line(format_args!(
                "The hold on {} ({}: {}) has run out and is released.",
                point.short(),
                hold.kind,
                hold.reason
            ));
            out.json("expired_hold", &json!({ "point": point, "hold": id, "until": hold.until }));
        }
    }
    for log in &plan.log {
        let going = count(log.going_files as u64, "file");
        let staying = count(log.staying_files as u64, "file");
        out.line(match &log.all_stays {
            Some(why) => {
                format!("Archived WAL of cluster {}: all of it stays ({staying}), because {why}.", log.system)
            }
            None => format!(
                "Archived WAL of cluster {}: {going} ({}) before the oldest base backup go, {staying} stay.",
                log.system,
                ByteSize(log.going_bytes)
            ),
        });
        out.json("log", log);
    }
    for decision in &plan.decisions {
        out.json("decision", decision);
    }
}

fn show_collected(context: &Context, collected: &Collected) {
    let out = &context.output;
    out.line(format_args!(
        "Deleted {} ({}).",
        count(collected.deleted_objects as u64, "object"),
        ByteSize(collected.deleted_bytes)
    ));
    if collected.condemned_objects > 0 && !collected.waiting_for.is_empty() {
        out.line(format_args!(
            "Condemned {} ({}): they are deleted when every backup that began before has ended.",
            count(collected.condemned_objects as u64, "object"),
            ByteSize(collected.condemned_bytes)
        ));
    }
    if !collected.fenced.is_empty() {
        out.line(format_args!(
            "Ended {} that had shown nothing new for {}.",
            count(collected.fenced.len() as u64, "session"),
            Span { nanoseconds: PATIENCE }
        ));
    }
    show_waiting(context, &collected.waiting_for);
    for stranger in &collected.strangers {
        out.line(format_args!("  not ours, and left alone: {stranger}"));
    }
    out.json(
        "pruned",
        &json!({
            "deleted_objects": collected.deleted_objects, "deleted_bytes": collected.deleted_bytes,
            "condemned_objects": collected.condemned_objects, "condemned_bytes": collected.condemned_bytes,
            "waiting_for": collected.waiting_for.len(), "sessions": collected.waiting_for.iter().map(|waiting| json!({
                "session": waiting.session, "since": waiting.since, "objects": waiting.objects, "bytes": waiting.bytes,
                "until": waiting.until,
            })).collect::<Vec<_>>(),
            "fenced": collected.fenced.len(), "strangers": collected.strangers,
        }),
    );
}

/// Backups that are at work or were killed: nobody can tell but by waiting.
fn show_waiting(context: &Context, waiting: &[Waiting]) {
    if waiting.is_empty() {
        return;
    }
    let out = &context.output;
    out.line(format_args!(
        "Waiting for {} that began and has not ended: a backup that runs, or one that was killed. What it stored stays until then.",
        count(waiting.len() as u64, "session")
    ));
    for Waiting { session, since, objects, bytes, until } in waiting {
        let since = since.map_or_else(String::new, |since| format!(" began {},", time::local(since)));
        let stored = format!("{} ({})", count(*objects, "pack"), ByteSize(*bytes));
        let until = match until {
            Some(until) if *until <= context.clock().now() => {
                "the next prune ends it, unless it has stored more by then".to_owned()
            }
            Some(until) => {
                format!("a prune after {} ends it, unless it has stored more by then", time::local(*until))
            }
            None => format!(
                "a prune ends it that comes {} after the next one, unless it has stored more by then",
                Span { nanoseconds: PATIENCE }
            ),
        };
        out.line(format_args!("  {}:{since} stored {stored}; {until}.", session.short()));
    }
}
