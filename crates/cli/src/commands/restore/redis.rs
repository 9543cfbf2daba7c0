//! Restoring a Redis: into a folder that a server starts on, or into a server that lives.

use super::{How, heading, lacking};
use crate::{
    commands::point::Chosen,
    context::Context,
    exit::Exit,
    render::{confirm, count, plain},
};
use mainstay_domain::{ByteSize, Failure, Kind, Result};
use mainstay_operations::hooks::Around;
use mainstay_operations::{
    config::{Config, SourceConfig},
    restore,
};
use mainstay_sources::{
    postgres::secret::{SecretFrom, SecretText},
    redis::{
        RedisConfig, RedisFacts,
        restore::{LiveOptions, Options},
    },
};
use std::path::{Path, PathBuf, absolute};

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Redis")]
pub struct Redis {
    /// Put this before the name of each key that is loaded into the server of --to-url-env
    #[arg(long, value_name = "PREFIX", requires = "to_url_env", conflicts_with = "to_database")]
    key_prefix: Option<String>,
    /// Load only this one of the captured databases
    #[arg(long, value_name = "NUMBER", requires = "to_url_env", conflicts_with = "to_database")]
    from_database: Option<u32>,
}

pub fn run(
    how: &How,
    context: &Context,
    hooks: &Around<'_>,
    config: Option<&Config>,
    chosen: &Chosen,
    source: &str,
) -> Result<Exit> {
    let configured = config.and_then(|config| config.apps.get(&chosen.info.summary.app)?.sources.get(source));
    let server = match configured {
        Some(SourceConfig::Redis(redis)) => redis.server.clone(),
        _ => None,
    };
    match (&how.files.to_dir, &how.database.to_url_env) {
        (Some(folder), _) => to_folder(how, context, hooks, chosen, source, folder, server),
        (None, Some(variable)) => to_server(how, context, hooks, chosen, source, variable, server),
        (None, None) => Err(Failure::usage("it is not said where to restore the Redis to")
            .hint("Add --to-dir FOLDER, or --to-url-env VARIABLE for a server that lives.")),
    }
}

fn to_folder(
    how: &How,
    context: &Context,
    hooks: &Around<'_>,
    chosen: &Chosen,
    source: &str,
    folder: &Path,
    server: Option<PathBuf>,
) -> Result<Exit> {
    let destination = absolute(folder)
        .map_err(|error| Failure::usage(format!("{} is no folder", folder.display())).caused_by(error))?;
    let options = Options { destination, server };
    let opened = restore::open(&chosen.repository, &chosen.info, source)?;
    let plan = opened.plan_redis(&options)?;
    let facts = RedisFacts::from_json(&opened.record.facts)?;
    let out = &context.output;
    heading(context, chosen, source, &options.destination.display().to_string());
    let is_lacking = lacking::show(context, &opened, how.dry_run)?;
    out.line(format_args!("  captured from  {}", plain(&facts.product())));
    out.line(format_args!("  to write       {} ({})", plan.dump.display(), ByteSize(plan.bytes)));
    if let Some(folder) = &plan.append_only {
        out.line(format_args!(
            "                 {}, as the server keeps an append-only file",
            folder.display()
        ));
    }
    plan.obstacles.iter().for_each(|what| out.line(format_args!("  cannot be done: {what}")));
    out.line("");
    out.json("plan", &plan);
    if how.dry_run {
        return Ok(match plan.obstacles.is_empty() {
            true => lacking::exit(is_lacking),
            false => Exit::With(Kind::Preflight),
        });
    }
    hooks.begin(&context.progress)?;
    opened.restore_redis(&options, &context.progress)?;
    context.progress.finish();
    match plan.keys {
        Some(keys) => out.line(format_args!("Restored {} ({}).", count(keys, "key"), ByteSize(plan.bytes))),
        None => out.line(format_args!("Restored {}.", ByteSize(plan.bytes))),
    }
    out.line("\nNext: stop the server, move what is in its folder (CONFIG GET dir) out of the way, put this there, give it to");
    out.line("the server's user, and start it.");
    match (&plan.append_only, facts.persistence.append_only) {
        (Some(_), _) => {
            out.line(
                "It loads the append-only file where `appendonly yes` is set, and dump.rdb where it is not.",
            );
        }
        (None, true) => {
            out.line("With `appendonly yes` it would ignore dump.rdb and start empty: start it with `--appendonly no`, look");
            out.line("whether the keys are there, and then say CONFIG SET appendonly yes.");
        }
        (None, false) => {}
    }
    out.json("restored", &plan);
    Ok(Exit::Done)
}

fn to_server(
    how: &How,
    context: &Context,
    hooks: &Around<'_>,
    chosen: &Chosen,
    source: &str,
    variable: &str,
    server: Option<PathBuf>,
) -> Result<Exit> {
    let target = RedisConfig::new(SecretText::From(SecretFrom::Env(variable.to_owned()))).address()?;
    let options = LiveOptions {
        prefix: how.redis.key_prefix.clone().unwrap_or_default().into_bytes(),
        database: how.redis.from_database,
        server,
    };
    let opened = restore::open(&chosen.repository, &chosen.info, source)?;
    let plan = opened.plan_redis_load(&target, &options)?;
    let out = &context.output;
    heading(context, chosen, source, &plan.server);
    let is_lacking = lacking::show(context, &opened, how.dry_run)?;
    for (from, into, keys) in &plan.databases {
        let keys = keys.map_or_else(|| "all keys".to_owned(), |keys| count(keys, "key"));
        let prefix = match &how.redis.key_prefix {
            Some(prefix) => format!(", each name after {:?}", plain(prefix)),
            None => String::new(),
        };
        out.line(format_args!("  database {from}     {keys} into database {into}{prefix}"));
    }
    plan.obstacles.iter().for_each(|what| out.line(format_args!("  cannot be done: {}", plain(what))));
    plan.notices.iter().for_each(|what| out.line(format_args!("  note: {what}")));
    out.line("");
    out.json("plan", &plan);
    if how.dry_run {
        return Ok(match plan.obstacles.is_empty() {
            true => lacking::exit(is_lacking),
            false => Exit::With(Kind::Preflight),
        });
    }
    if plan.obstacles.is_empty() {
        confirm::typed(context, how.yes, &format!("load keys into {}", plan.server), "load")?;
    }
    hooks.begin(&context.progress)?;
    let loaded = opened.load_redis(&target, &options, &context.progress)?;
    context.progress.finish();
    out.line(format_args!("Loaded {}.", count(loaded, "key")));
    out.json("restored", &serde_json::json!({ "keys": loaded }));
    Ok(Exit::Done)
}
