//! `mainstay restore`: a source of a recovery point, or all of them, back into folders and databases. The plan is shown first.

mod all;
mod cluster;
mod command;
mod configuration;
mod database;
mod files;
mod lacking;
mod merge;
mod redis;
mod replace;
mod swap;
mod table_back;

use super::point::{self, Chosen};
use crate::{context::Context, exit::Exit, output};
use mainstay_domain::{Failure, Result};
use mainstay_operations::{
    access,
    config::{Config, SourceConfig},
    hooks::Around,
    points, restore,
};
use mainstay_sources::postgres::{
    config::PostgresConfig,
    secret::{SecretFrom, SecretText},
    wire::ConnectSpec,
};
use std::{ffi::OsString, path::PathBuf};

/// Bring back files, a database, or all of a recovery point
///
/// What is restored goes beside what lives: into a folder, or into a new database. Nothing that exists is changed unless the
/// plan says so and you confirm it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The application, as the configuration names it
    app: String,
    #[command(flatten)]
    how: How,
}

/// What to restore and where to: the same for `recover`.
#[derive(Debug, Clone, clap::Args)]
pub struct How {
    /// Which recovery point: latest, latest-complete, the beginning of an id, or a time (the last at or before it)
    #[arg(long, short, default_value = "latest")]
    pub point: String,
    /// Which source, where the point has several of the kind
    #[arg(long, short)]
    source: Option<String>,
    /// Every source: files, configuration, clusters, Redis and outputs each below a folder of its own in --to-dir, a database into
    /// --to-database [default: <its name>_restored, on its own server]
    #[arg(long, requires = "to_dir", conflicts_with_all = ["source", "path", "deleted", "to_command", "replace", "no_backup", "drop_old",
        "into_existing", "table", "schema", "to_schema", "merge", "swap", "to_table", "mask", "at", "lsn", "xid", "name", "immediate",
        "timeline", "tablespace", "delta", "standby", "wal", "action", "manifest", "start", "key_prefix", "from_database"])]
    all: bool,
    /// Show the plan and what stands against it, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    database: Database,
    #[command(flatten)]
    cluster: cluster::Cluster,
    #[command(flatten)]
    redis: redis::Redis,
}

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Files")]
struct Files {
    /// The folder to restore into; made if it is not there
    #[arg(long, value_name = "FOLDER")]
    to_dir: Option<PathBuf>,
    /// Only what this path or pattern names ('letters/**', 'a/b.png'), written as `mainstay ls` shows it; may be repeated
    #[arg(long, value_name = "PATTERN", requires = "to_dir")]
    path: Vec<OsString>,
    /// Remove what the recovery point does not have
    #[arg(long, requires = "to_dir")]
    delete: bool,
    /// Compare the content of files whose size and time are right already
    #[arg(long, requires = "to_dir")]
    check_content: bool,
    /// Give a command's output to this shell command as its input, instead of writing it to a file
    #[arg(long, value_name = "COMMAND", conflicts_with_all = ["to_dir", "to_database", "to_url_env"])]
    to_command: Option<String>,
    /// Restore files that were deleted before this point was made, and are still kept
    #[arg(long, requires = "to_dir", conflicts_with = "delete")]
    deleted: bool,
}

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Databases")]
struct Database {
    /// The database to restore into; it must not exist, unless --into-existing is given
    #[arg(long, value_name = "NAME")]
    to_database: Option<String>,
    /// The environment variable that holds the address of another server [default: the source's own]; without --to-database,
    /// that of the Redis to load keys into
    #[arg(long, value_name = "VARIABLE")]
    to_url_env: Option<String>,
    /// Put the restored database in the place of the one that lives; the old one is kept under a dated name
    #[arg(long, group = "overwrites", conflicts_with_all = ["to_dir", "to_database"])]
    replace: bool,
    /// Replace even by a recovery point that lacks something, or restore a cluster from one; the plan lists what would be lost
    #[arg(long, conflicts_with = "to_database")]
    accept_partial: bool,
    /// Do not back the current state up before it is replaced (--replace, --delta)
    #[arg(long, alias = "no-safety-backup", requires = "overwrites")]
    no_backup: bool,
    /// Drop the database that an earlier replacement kept under this name; with --to-database, the schema in it that an earlier
    /// swap kept
    #[arg(long, value_name = "NAME", conflicts_with_all = ["to_dir", "replace", "table", "schema"])]
    drop_old: Option<String>,
    /// Put tables beside what lives in a database that exists
    #[arg(long, requires = "to_database")]
    into_existing: bool,
    /// Only this table, view or sequence: schema.name; may be repeated
    #[arg(long, value_name = "TABLE", requires = "to_database", conflicts_with = "to_dir")]
    table: Vec<String>,
    /// Only this schema; may be repeated
    #[arg(long, value_name = "SCHEMA", requires = "to_database", conflicts_with = "to_dir")]
    schema: Vec<String>,
    /// Put what is restored into this schema, which is made if it is not there
    #[arg(long, value_name = "SCHEMA", requires = "to_database")]
    to_schema: Option<String>,
    /// Then put lost rows of the tables back into the living ones, by primary key
    #[arg(long, value_name = "HOW", requires = "table", conflicts_with_all = ["no_compare", "replace"])]
    merge: Option<merge::Merge>,
    /// Then let the tables take the place of the living ones, with all that hangs on those; the old ones are kept in a dated schema
    #[arg(long, requires = "table", conflicts_with_all = ["merge", "no_compare", "replace", "to_table"])]
    swap: bool,
    /// Of the rows put back, only those for which this SQL condition holds
    #[arg(long = "where", value_name = "CONDITION", requires = "merge")]
    only_rows: Option<String>,
    /// In a cluster: the database that the tables are in [default: the one restored into]
    #[arg(long, value_name = "NAME", requires = "table")]
    source_database: Option<String>,
    /// Give the one table that is restored another name
    #[arg(long, value_name = "NAME", requires = "table")]
    to_table: Option<String>,
    /// Connections that load rows and build indexes at the same time
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: u16,
    /// All objects belong to the user that restores
    #[arg(long)]
    no_owners: bool,
    /// Leave grants out
    #[arg(long)]
    no_privileges: bool,
    /// Use the server's default where it does not know the recorded locale
    #[arg(long)]
    other_locale: bool,
    /// Mask the copy as the configuration says under this name, before it gets its own name; or, of a cluster, before it is opened (--start)
    #[arg(long, value_name = "NAME", conflicts_with_all = ["into_existing", "no_compare", "replace", "merge", "swap"])]
    mask: Option<String>,
    /// Do not compare the restored rows and objects with what was captured
    #[arg(long)]
    no_compare: bool,
}

pub fn run(args: Args, context: &Context) -> Result<Exit> {
    let config = context.config()?;
    if let Some(kept) = &args.how.database.drop_old {
        if args.how.database.to_database.is_some() {
            return swap::drop_old(&args.how, context, &config, &args.app, kept);
        }
        return replace::drop_old(&args.how, context, &config, &args.app, kept);
    }
    // Says at once what is missing, before the repository is opened.
    if !args.how.all {
        args.how.kind()?;
    }
    let mut chosen = point::choose_of(context, &config, &args.app, &args.how.point)?;
    args.how.settle_latest(&mut chosen)?;
    restore_point(&args.how, context, Some(&config), &chosen)
}

/// Restores what `how` says from a point that was chosen. Without a configuration a database needs `--to-url-env`.
pub fn restore_point(how: &How, context: &Context, config: Option<&Config>, chosen: &Chosen) -> Result<Exit> {
    if how.all {
        return all::run(how, context, config, chosen);
    }
    let kind = how.kind()?;
    how.refuse_mask_without_copy()?;
    let source = match &how.source {
        Some(source) => source.clone(),
        None => restore::only_source(&chosen.info, kind)?,
    };
    with_hooks(context, config, chosen, &source, |hooks| {
        restore_source(how, context, hooks, config, chosen, &source)
    })
}

/// Puts what the application wants to be done around a restore around `restore`, and says what became of it.
fn with_hooks(
    context: &Context,
    config: Option<&Config>,
    chosen: &Chosen,
    what: &str,
    restore: impl FnOnce(&Around<'_>) -> Result<Exit>,
) -> Result<Exit> {
    let app = &chosen.info.summary.app;
    let wanted = config.and_then(|config| config.apps.get(app)?.hooks.as_ref());
    let hooks = Around::new(wanted, app, chosen.info.id.to_string(), what);
    let outcome = restore(&hooks);
    let (ran, ended) = hooks.end(outcome_of(&outcome), &context.progress);
    context.progress.finish();
    for hook in &ran {
        let said = hook.failure.as_deref().unwrap_or("done");
        context.output.line(format_args!("  {}: {said}", hook.hook));
        context.output.json("hook", hook);
    }
    // What the restore itself says comes first.
    outcome.and_then(|exit| ended.map(|()| exit))
}

/// One source, by the restore of its kind.
fn restore_source(
    how: &How,
    context: &Context,
    hooks: &Around<'_>,
    config: Option<&Config>,
    chosen: &Chosen,
    source: &str,
) -> Result<Exit> {
    let is = |kind: &str| chosen.info.summary.sources.iter().any(|s| s.name == source && s.kind == kind);
    dispatch(how, context, hooks, config, chosen, source, how.kind()?, is("cluster"), &is)
}

/// In one word, for a hook.
fn outcome_of(outcome: &Result<Exit>) -> &'static str {
    match outcome {
        Ok(Exit::Done | Exit::Code(0)) => "done",
        Ok(Exit::With(kind)) => crate::exit::name(*kind),
        Ok(Exit::Code(_)) => "failed",
        Err(failure) => crate::exit::name(failure.kind),
    }
}

#[allow(clippy::too_many_arguments)] // what every kind of restore may need
fn dispatch(
    how: &How,
    context: &Context,
    hooks: &Around<'_>,
    config: Option<&Config>,
    chosen: &Chosen,
    source: &str,
    kind: &str,
    of_cluster: bool,
    is: &dyn Fn(&str) -> bool,
) -> Result<Exit> {
    match (kind, how.database.replace, config) {
        (_, false, _) if of_cluster && how.database.to_database.is_some() => {
            table_back::run(how, context, hooks, config, chosen, source)
        }
        (_, false, _) if is("config") && how.database.to_database.is_some() => {
            configuration::import(how, context, hooks, config, chosen, source)
        }
        ("files", ..) if is("config") => configuration::run(how, context, hooks, chosen, source),
        ("files" | "command", ..) if is("command") => command::run(how, context, hooks, chosen, source),
        ("command", ..) => Err(Failure::usage(format!(
            "{source} is no command's output, which alone can be given to a command"
        ))
        .hint("`mainstay show POINT` lists the kinds of a point's sources.")),
        ("files" | "redis", ..) if is("redis") => redis::run(how, context, hooks, config, chosen, source),
        ("redis", ..) => Err(Failure::usage(format!(
            "{source} is no Redis, and it is not said which database to restore into"
        ))
        .hint("Add --to-database NAME.")),
        ("files" | "cluster", ..) if of_cluster => cluster::run(how, context, hooks, config, chosen, source),
        ("cluster", ..) => {
            Err(Failure::usage(format!("{source} is no cluster, so it cannot be restored to a moment"))
                .hint("`mainstay show POINT` lists the kinds of a point's sources."))
        }
        ("files", ..) => files::run(how, context, hooks, chosen, source),
        (_, false, _) => database::run(how, context, hooks, config, chosen, source),
        (_, true, Some(config)) => replace::run(how, context, hooks, config, chosen, source),
        (_, true, None) => {
            Err(Failure::usage("a database is replaced only where the configuration knows it")
                .hint("Restore beside it: --to-database NAME --to-url-env VARIABLE."))
        }
    }
}

impl How {
    /// The latest point may have been made of other sources, or without this one: then it is not what was meant.
    pub fn settle_latest(&self, chosen: &mut Chosen) -> Result<()> {
        let Some(source) = self.source.as_deref().filter(|_| self.point == "latest") else { return Ok(()) };
        if let Some(better) = points::newest_complete(&chosen.repository, &chosen.info, source)? {
            output::note(format_args!(
                "The newest recovery point ({}) does not hold {source}: taking the newest that has it complete, {} as of {}.",
                chosen.info.id.short(),
                better.id.short(),
                crate::render::time::local(better.summary.finished),
            ));
            chosen.info = better;
        }
        Ok(())
    }

    /// A mask that nobody would apply is worse than none.
    fn refuse_mask_without_copy(&self) -> Result<()> {
        match self.database.mask.is_none() || self.database.to_database.is_some() || self.cluster.starts() {
            true => Ok(()),
            false => Err(Failure::usage("a mask is for a database that is made anew, or for a cluster that is started")
                .hint("Add --to-database NAME; or, for a cluster, --start --port PORT: it is masked before anybody can connect to it.")),
        }
    }

    /// Whether it is said where to restore to.
    pub fn has_destination(&self) -> bool {
        self.files.to_dir.is_some()
            || self.database.to_database.is_some()
            || self.database.to_url_env.is_some()
            || self.files.to_command.is_some()
    }

    /// What says beside `--to-dir` where to restore to.
    fn second_destination(&self) -> Option<&'static str> {
        let database = self.database.to_database.as_ref().map(|_| "--to-database");
        database.or(self.database.to_url_env.as_ref().map(|_| "--to-url-env"))
    }

    /// The kind of source that goes to such a destination.
    fn kind(&self) -> Result<&'static str> {
        if let (Some(_), Some(option)) = (&self.files.to_dir, self.second_destination()) {
            return Err(Failure::usage(format!(
                "--to-dir and {option} were both given, and each says where to restore one source to"
            ))
            .hint("Leave one of them out; or restore all sources of the point, each to where it belongs: --all."));
        }
        match (&self.files.to_dir, &self.database.to_database, self.database.replace) {
            (Some(_), ..) | (None, Some(_), _) if self.cluster.is_wanted() => Ok("cluster"),
            (Some(_), ..) => Ok("files"),
            (None, Some(_), _) | (None, None, true) => Ok("postgres"),
            (None, None, false) if self.files.to_command.is_some() => Ok("command"),
            (None, None, false) if self.database.to_url_env.is_some() => Ok("redis"),
            (None, None, false) => Err(Failure::usage("it is not said where to restore to")
                .hint("Add --to-dir FOLDER for files, or --to-database NAME or --replace for a database.")),
        }
    }
}

/// What every part of a restore is given.
fn heading(context: &Context, chosen: &Chosen, source: &str, destination: &str) {
    context.output.line(format_args!(
        "Restore {source} of {} as of {} (point {}) into {destination}\n",
        chosen.info.summary.app,
        crate::render::time::local(chosen.info.summary.finished),
        chosen.info.id.short(),
    ));
}

/// The server that a restore goes to: `--to-url-env`, or where the source lives.
fn connect_spec(how: &How, config: Option<&Config>, app: &str, source: &str) -> Result<ConnectSpec> {
    if let Some(variable) = &how.database.to_url_env {
        return PostgresConfig::new(SecretText::From(SecretFrom::Env(variable.clone()))).connect_spec();
    }
    let configured = config.and_then(|config| config.apps.get(app)?.sources.get(source));
    match configured {
        Some(SourceConfig::Postgres(postgres)) => postgres.connect_spec(),
        Some(SourceConfig::Cluster(cluster)) => cluster.connect_spec(),
        _ => Err(Failure::usage(format!(
            "it is not known on which server {source} of {app} shall be restored"
        ))
        .hint("Name the variable that holds its address: --to-url-env VARIABLE.")),
    }
}

/// The only database of an application.
fn only_database(config: &Config, app: &str) -> Result<String> {
    let sources = &access::app_of(config, app)?.sources;
    let mut databases = sources.iter().filter(|(_, source)| matches!(source, SourceConfig::Postgres(_)));
    match (databases.next(), databases.next()) {
        (Some((name, _)), None) => Ok(name.clone()),
        (None, _) => Err(Failure::usage(format!("{app} has no database"))),
        (Some(_), Some(_)) => {
            Err(Failure::usage(format!("{app} has several databases")).hint("Say which: --source NAME."))
        }
    }
}
