//! Replacing a living database, and letting the old one go.

use super::{How, connect_spec, database, heading, lacking};
use crate::{
    commands::point::Chosen,
    context::Context,
    exit::Exit,
    render::{confirm, count},
};
use mainstay_domain::{ByteSize, Failure, Kind, Result, point::State};
use mainstay_operations::hooks::Around;
use mainstay_operations::{
    config::Config,
    replace::Request,
    restore,
    safety::{KEPT_DAYS, back_up_first},
};
use mainstay_sources::postgres::{
    replace::{self, HalfDone, Method, Plan, Replaced},
    restore::Options,
};
use serde_json::json;

pub fn run(
    how: &How,
    context: &Context,
    hooks: &Around<'_>,
    config: &Config,
    chosen: &Chosen,
    source: &str,
) -> Result<Exit> {
    let wanted = &how.database;
    if !wanted.table.is_empty() || !wanted.schema.is_empty() {
        return Err(Failure::usage("a database is replaced as a whole").hint(
            "Restore single tables beside it: --to-database NAME --into-existing --table T --to-schema S.",
        ));
    }
    let spec = connect_spec(how, Some(config), &chosen.info.summary.app, source)?;
    let opened = restore::open(&chosen.repository, &chosen.info, source)?;
    let request = Request {
        opened: &opened,
        server: spec.with_database("postgres"),
        live: spec.database.clone(),
        restore: Options {
            jobs: usize::from(wanted.jobs),
            owners: !wanted.no_owners,
            privileges: !wanted.no_privileges,
            other_locale: wanted.other_locale,
            ..Options::default()
        },
        row_key: chosen.repository.keyring().current().row_key(),
        accept_partial: wanted.accept_partial,
        now: context.clock().now(),
    };
    // First of all, and before anything is asked: the application may stand before a closed door.
    if !how.dry_run {
        show_settled(context, &request.settle()?);
    }
    let plan = lacking::plan(context, &opened, how.dry_run, || request.plan())?;
    heading(context, chosen, source, &format!("the place of the database {}", request.live));
    let is_lacking = lacking::show(context, &opened, how.dry_run)?;
    show_plan(context, &plan, wanted.no_backup);
    if how.dry_run {
        return Ok(plan
            .refuse()
            .map_or_else(|failure| Exit::With(failure.kind), |()| lacking::exit(is_lacking)));
    }
    plan.refuse()?;
    confirm::typed(context, how.yes, &format!("replace the database {}", request.live), &request.live)?;
    hooks.begin(&context.progress)?;
    if !wanted.no_backup {
        let point = back_up_first(config, &chosen.info, source, context.clock(), &context.progress)?;
        context.output.line(format_args!(
            "The current state is recovery point {}: a safety copy, kept for {KEPT_DAYS} days; `latest` does not mean it.",
            point.short()
        ));
    }
    let replaced = request.replace(&context.progress)?;
    context.progress.finish();
    show(context, &request.live, source, &chosen.info.summary.app, &replaced);
    Ok(if replaced.restored.state == State::Complete { Exit::Done } else { Exit::With(Kind::Incomplete) })
}

/// Drops a database that an earlier replacement kept.
pub fn drop_old(how: &How, context: &Context, config: &Config, app: &str, kept: &str) -> Result<Exit> {
    let source = match &how.source {
        Some(source) => source.clone(),
        None => super::only_database(config, app)?,
    };
    let spec = connect_spec(how, Some(config), app, &source)?;
    let server = spec.with_database("postgres");
    show_settled(context, &replace::settle(&server, &spec.database)?);
    if !replace::kept(&server, &spec.database)?.iter().any(|name| name == kept) {
        let all = replace::kept(&server, &spec.database)?;
        let hint = match all.as_slice() {
            [] => "None is kept there.".to_owned(),
            names => format!("There is: {}.", names.join(", ")),
        };
        return Err(Failure::usage(format!("no old database {kept} of {} is kept", spec.database)).hint(hint));
    }
    confirm::typed(context, how.yes, &format!("drop the old database {kept}"), kept)?;
    replace::let_go(&server, &spec.database, kept)?;
    context.output.line(format_args!("The old database {kept} is dropped."));
    context.output.json("dropped", &json!({ "database": kept }));
    Ok(Exit::Done)
}

/// What an earlier replacement had left half done, and what became of it.
fn show_settled(context: &Context, settled: &[HalfDone]) {
    for half in settled {
        let now = match half {
            HalfDone::NotSwapped { live, beside, .. } => {
                format!("{live} is as it was, and open. Look at {beside}, then drop it.")
            }
            HalfDone::Vacant { live, .. } => {
                format!("what was restored has taken its place: {live} is open.")
            }
        };
        context.output.line(format_args!("Settled: {half}. Now {now}\n"));
        context.output.json("settled", half);
    }
}

fn show_plan(context: &Context, plan: &Plan, no_backup: bool) {
    let out = &context.output;
    for half in &plan.half_done {
        out.line(format_args!("  to be settled first: {half}"));
    }
    database::show_plan(context, &plan.restore);
    let first = if no_backup { "not backed up first" } else { "backed up first" };
    out.line(format_args!("  the living one  {}, {}, {first}", plan.live, ByteSize(plan.live_bytes)));
    out.line(format_args!("  sessions        {} would be ended", plan.sessions));
    let by = match &plan.method {
        Method::Databases { .. } => "both databases are renamed in one transaction",
        Method::Schemas { .. } => "the schemas are renamed in one transaction",
    };
    out.line(format_args!(
        "  swap            {by}; the old one is kept as {}",
        plan.method.kept().join(", ")
    ));
    for (mark, lines) in
        [("would be lost", &plan.lost), ("goes back", &plan.reverted), ("stays behind", &plan.left_behind)]
    {
        for line in lines {
            out.line(format_args!("  {mark}: {line}"));
        }
    }
    for refusal in &plan.refusals {
        out.line(format_args!("  cannot be done: {}. {}", refusal.message, refusal.hint));
    }
    out.line("");
    out.json("replace_plan", plan);
}

fn show(context: &Context, live: &str, source: &str, app: &str, replaced: &Replaced) {
    let out = &context.output;
    database::show_report(context, &replaced.restored);
    database::show_comparison(context, &replaced.comparison);
    let kept = replaced.kept.join(", ");
    out.line(format_args!(
        "\n{live} is replaced; {} ended. The old one is kept as {kept}.",
        count(replaced.sessions_ended, "session")
    ));
    if let Method::Databases { .. } = replaced.method {
        out.line(format_args!(
            "When it is not needed any more: mainstay restore {app} --source {source} --drop-old {kept}"
        ));
    }
    for notice in &replaced.notices {
        out.line(format_args!("  to be done by hand: {notice}"));
    }
    out.json("replaced", replaced);
}
