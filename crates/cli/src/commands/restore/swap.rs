//! Restored tables beside living ones: how they differ, and the exchange of their places.

use super::{How, connect_spec, merge::pair};
use crate::{
    context::Context,
    exit::Exit,
    render::{confirm, count},
};
use mainstay_domain::{Failure, Result};
use mainstay_operations::{
    access,
    config::{Config, SourceConfig},
};
use mainstay_sources::postgres::{
    merge::Pair,
    restore::Selection,
    swap::{self, Plan},
    wire::ConnectSpec,
};

fn pairs(selection: &Selection) -> Vec<Pair> {
    selection.tables.iter().map(|live| pair(live, selection)).collect()
}

/// Shows in what the restored tables differ from the living ones.
pub fn show_counts(context: &Context, spec: &ConnectSpec, selection: &Selection) -> Result<()> {
    let out = &context.output;
    for counted in swap::count(spec, &pairs(selection))? {
        let differing = match counted.differing {
            Some(differing) => format!("{differing} in both with other values"),
            None => "no primary key to tell changed rows by".to_owned(),
        };
        out.line(format_args!(
            "{}: {} only in the living one, {} only in the restored one, {differing}.",
            counted.table,
            count(counted.only_living.unsigned_abs(), "row"),
            count(counted.only_restored.unsigned_abs(), "row")
        ));
        out.json("counted", &counted);
    }
    Ok(())
}

/// Swaps what was restored beside, if that was asked for.
pub fn run(how: &How, context: &Context, app: &str, spec: &ConnectSpec, selection: &Selection) -> Result<()> {
    if !how.database.swap {
        return Ok(());
    }
    let pairs = pairs(selection);
    let kept = swap::kept_schema(context.clock().now());
    let plan = swap::plan(spec, &pairs, &kept)?;
    show_plan(context, &plan);
    plan.refuse()?;
    let database = &spec.database;
    let what = format!("swap {} in the database {database}", plan.tables.join(", "));
    confirm::typed(context, how.yes, &what, database)?;
    let done = swap::swap(spec, &pairs, &kept)?;
    let out = &context.output;
    out.line(format_args!(
        "{} swapped, in one transaction. What was there is kept in the schema {kept}.",
        count(pairs.len() as u64, "table")
    ));
    out.line(format_args!(
        "When it is not needed any more: mainstay restore {app} --to-database {database} --drop-old {kept}"
    ));
    out.json("swapped", &done);
    Ok(())
}

fn show_plan(context: &Context, plan: &Plan) {
    let out = &context.output;
    out.line(format_args!(
        "\n  to swap       {}; the old is kept in the schema {}",
        plan.tables.join(", "),
        plan.kept
    ));
    for what in &plan.follows {
        out.line(format_args!("  follows: {what}"));
    }
    for notice in &plan.notices {
        out.line(format_args!("  note: {notice}"));
    }
    for refusal in &plan.refusals {
        out.line(format_args!("  cannot be done: {}. {}", refusal.message, refusal.hint));
    }
    out.line("");
    out.json("swap_plan", plan);
}

/// Drops a schema of old tables.
pub fn drop_old(how: &How, context: &Context, config: &Config, app: &str, kept: &str) -> Result<Exit> {
    let database = how.database.to_database.clone().unwrap_or_default();
    let source = match &how.source {
        Some(source) => source.clone(),
        None => only_server(config, app)?,
    };
    let spec = connect_spec(how, Some(config), app, &source)?.with_database(&database);
    confirm::typed(context, how.yes, &format!("drop the old tables in {kept}"), kept)?;
    let dropped = swap::let_go(&spec, kept)?;
    context.output.line(format_args!("Dropped: {}.", dropped.join(", ")));
    context.output.json("dropped", &serde_json::json!({ "schema": kept, "tables": dropped }));
    Ok(Exit::Done)
}

/// The only PostgreSQL of an application.
fn only_server(config: &Config, app: &str) -> Result<String> {
    let sources = &access::app_of(config, app)?.sources;
    let is_server =
        |source: &SourceConfig| matches!(source, SourceConfig::Postgres(_) | SourceConfig::Cluster(_));
    let mut servers = sources.iter().filter(|(_, source)| is_server(source));
    match (servers.next(), servers.next()) {
        (Some((name, _)), None) => Ok(name.clone()),
        (None, _) => Err(Failure::usage(format!("{app} has no database"))),
        (Some(_), Some(_)) => {
            Err(Failure::usage(format!("{app} has several databases")).hint("Say which: --source NAME."))
        }
    }
}
