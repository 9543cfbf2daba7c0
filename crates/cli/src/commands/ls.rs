//! `mainstay ls`: what is in a recovery point, without restoring it.

use super::point;
use crate::{
    context::Context,
    exit::Exit,
    render::{self, entry, table::Table},
};
use mainstay_domain::{ByteSize, Result, point::SourceRecord};
use mainstay_operations::restore::{self, Opened};
use mainstay_sources::{
    command::{self, CommandFacts},
    configuration,
    files::{self, show_path},
    postgres::{cluster, facts::Facts},
    redis::{self, RedisFacts},
};
use serde_json::json;
use std::ffi::OsString;

/// List what a recovery point holds: files and folders, or tables
#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(help = point::HELP)]
    point: String,
    /// A path in the files source, written as it is listed; its folder's content is listed [default: the top]
    #[arg(default_value = "")]
    path: OsString,
    /// Which source, where the point has several; without it and without a path, each source is listed
    #[arg(long, short)]
    source: Option<String>,
    /// Everything below the path, too
    #[arg(long, short)]
    recursive: bool,
}

pub fn run(args: Args, context: &Context) -> Result<Exit> {
    let config = context.config()?;
    let chosen = point::choose(context, &config, &args.point)?;
    let sources: Vec<String> = match (&args.source, args.path.is_empty()) {
        (Some(source), _) => vec![source.clone()],
        (None, false) => vec![restore::only_source(&chosen.info, files::KIND)?],
        (None, true) => chosen.info.summary.sources.iter().map(|source| source.name.clone()).collect(),
    };
    for source in &sources {
        let opened = restore::open(&chosen.repository, &chosen.info, source)?;
        if sources.len() > 1 {
            context.output.line(format_args!("{source} ({}):", opened.record.kind));
        }
        match opened.record.kind.as_str() {
            files::KIND => list_files(&args, context, &opened, &opened.record)?,
            // Its data directory; what lies in tablespaces is not shown.
            cluster::KIND => {
                let directory = cluster::restore::as_files(&opened.record, cluster::LISTING)?;
                list_files(&args, context, &opened, &directory)?;
            }
            redis::KIND => list_keyspaces(context, &opened.record)?,
            configuration::KIND => list_configuration(&args, context, &opened)?,
            command::KIND => {
                let facts = CommandFacts::from_json(&opened.record.facts)?;
                context.output.line(format_args!(
                    "{}  {}",
                    ByteSize(facts.bytes),
                    render::plain(&facts.name)
                ));
                context.output.json("output", &json!({ "source": opened.record.name, "output": facts }));
            }
            _ => list_tables(context, &opened.record)?,
        }
        if sources.len() > 1 {
            context.output.line("");
        }
    }
    Ok(Exit::Done)
}

fn list_files(args: &Args, context: &Context, opened: &Opened<'_>, record: &SourceRecord) -> Result<()> {
    for listed in files::ls(&opened.reader, record, &args.path, args.recursive)? {
        let listed = listed?;
        context.output.line(entry::line(&listed.entry, &show_path(&listed.path)));
        context.output.json("entry", &entry::json(&opened.record.name, &listed));
    }
    Ok(())
}

/// The files of a configuration, and the names of its tables. What stands in either is not shown.
fn list_configuration(args: &Args, context: &Context, opened: &Opened<'_>) -> Result<()> {
    if opened.record.stream(files::LISTING).is_some() {
        list_files(args, context, opened, &opened.record)?;
    }
    let tables = configuration::tables(&opened.record)?;
    if tables.is_empty() || !args.path.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&["TABLE", ">ROWS", ">SIZE"]);
    for fact in &tables {
        table.row([render::plain(&fact.name), fact.rows.to_string(), ByteSize(fact.bytes).to_string()]);
        context.output.json("table", &json!({ "source": opened.record.name, "table": fact.name, "rows": fact.rows, "bytes": fact.bytes }));
    }
    context.output.line(table.render());
    Ok(())
}

/// The databases of a Redis. Its keys may tell much of its users, and are not listed.
fn list_keyspaces(context: &Context, record: &SourceRecord) -> Result<()> {
    let Some(census) = RedisFacts::from_json(&record.facts)?.census else {
        context.output.line("Its keys were not counted.");
        return Ok(());
    };
    let mut table = Table::new(&["DATABASE", ">KEYS", ">EXPIRING"]);
    for (number, count) in &census.databases {
        table.row([number.to_string(), count.keys.to_string(), count.expires.to_string()]);
        context.output.json(
            "keyspace",
            &json!({ "source": record.name, "database": number, "keys": count.keys, "expires": count.expires }),
        );
    }
    context.output.line(table.render());
    Ok(())
}

fn list_tables(context: &Context, record: &SourceRecord) -> Result<()> {
    let facts = Facts::from_json(&record.facts).map_err(|error| {
        mainstay_domain::Failure::verification("the description of the captured database cannot be used")
            .caused_by(error)
    })?;
    let mut table = Table::new(&["TABLE", ">ROWS", ">SIZE", ""]);
    for data in &facts.tables {
        let name = format!("{}.{}", data.schema, data.name);
        let left_out = match (&data.skipped, &data.filter) {
            (Some(_), _) => "not captured".to_owned(),
            (None, Some(filter)) => format!("only rows with {filter}"),
            (None, None) => String::new(),
        };
        table.row([name.clone(), data.rows.to_string(), ByteSize(data.bytes).to_string(), left_out]);
        context.output.json(
            "table",
            &json!({
                "source": record.name, "table": name, "rows": data.rows, "bytes": data.bytes, "filter": data.filter,
                "captured": data.skipped.is_none(),
            }),
        );
    }
    context.output.line(table.render());
    Ok(())
}
