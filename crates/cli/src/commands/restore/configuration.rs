//! Restoring a configuration: its files as any files, and its tables as files of JSON lines beside them; or the rows of its
//! tables back into tables that live.

use super::{How, files, heading, merge};
use crate::{
    commands::point::Chosen,
    context::Context,
    exit::Exit,
    render::{confirm, count},
};
use mainstay_domain::{ByteSize, Failure, Result};
use mainstay_operations::hooks::Around;
use mainstay_operations::{
    config::{Config, SourceConfig},
    restore,
};
use mainstay_sources::{files::LISTING, postgres::wire::ConnectSpec};
use std::path::absolute;

pub fn run(how: &How, context: &Context, hooks: &Around<'_>, chosen: &Chosen, source: &str) -> Result<Exit> {
    let opened = restore::open(&chosen.repository, &chosen.info, source)?;
    let folder = how.files.to_dir.clone().unwrap_or_default();
    let destination = absolute(&folder)
        .map_err(|error| Failure::usage(format!("{} is no folder", folder.display())).caused_by(error))?;
    // A restore of chosen files asks for no tables.
    let wanted = how.files.path.is_empty();
    let tables = if wanted { opened.plan_tables(&destination)? } else { Vec::new() };
    let exit = match opened.record.stream(LISTING) {
        Some(_) => files::run(how, context, hooks, chosen, source)?,
        None => Exit::Done,
    };
    let out = &context.output;
    for (name, path) in &tables {
        let word = if how.dry_run { "to write" } else { "table" };
        out.line(format_args!("  {word}: {name} to {}", path.display()));
        out.json("table", &serde_json::json!({ "table": name, "path": path }));
    }
    if how.dry_run || tables.is_empty() {
        return Ok(exit);
    }
    hooks.begin(&context.progress)?;
    let bytes = opened.restore_tables(&destination)?;
    out.line(format_args!("Restored {} ({}).", count(tables.len() as u64, "table"), ByteSize(bytes)));
    Ok(exit)
}

/// Rows of captured tables, back into a database.
pub fn import(
    how: &How,
    context: &Context,
    hooks: &Around<'_>,
    config: Option<&Config>,
    chosen: &Chosen,
    source: &str,
) -> Result<Exit> {
    let opened = restore::open(&chosen.repository, &chosen.info, source)?;
    let wanted = &how.database;
    let plan = opened.plan_import(&wanted.table, wanted.to_schema.as_deref(), wanted.to_table.as_deref())?;
    let mut spec = server(how, config, &chosen.info.summary.app, source)?;
    spec.database = wanted.to_database.clone().unwrap_or_default();

    heading(context, chosen, source, &format!("the database {}", spec.database));
    let out = &context.output;
    for import in &plan {
        let rows = count(import.rows, "row");
        out.line(format_args!("  {}: {rows} into {}", import.captured, import.into));
    }
    out.line("");
    if how.dry_run {
        return Ok(Exit::Done);
    }
    confirm::typed(context, how.yes, "put these rows into the database", &spec.database)?;
    hooks.begin(&context.progress)?;
    for merged in opened.import(&spec, &plan, wanted.merge.map(merge::Merge::way))? {
        merge::say(context, &merged);
    }
    Ok(Exit::Done)
}

/// `--to-url-env`, or where the tables were captured.
fn server(how: &How, config: Option<&Config>, app: &str, source: &str) -> Result<ConnectSpec> {
    let configured = config.and_then(|config| config.apps.get(app)?.sources.get(source));
    match configured {
        Some(SourceConfig::Config(of)) if how.database.to_url_env.is_none() && !of.tables.is_empty() => {
            of.tables[0].connect_spec()
        }
        _ => super::connect_spec(how, config, app, source),
    }
}
