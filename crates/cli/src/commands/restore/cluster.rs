//! Restoring a whole cluster: to the end of a base backup, or to a point in time.

mod shown;

use super::{How, lacking};
use crate::{commands::point::Chosen, context::Context, exit::Exit, render::confirm};
use mainstay_domain::{Failure, Lsn, Result};
use mainstay_operations::hooks::Around;
use mainstay_operations::{
    config::Config,
    pitr::{self, Log, Request, Resolved, masked, start},
    points, restore, safety, staging,
};
use mainstay_sources::postgres::cluster::{
    CONTROL_FILE,
    restore::{Action, Options, Recovery, Target, refuse_partial},
};
pub use shown::{heading_to, show_resolved};
use shown::{show_masked, show_next, show_plan, show_report, show_started};
use std::path::{Path, PathBuf, absolute};

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Clusters, to a point in time")]
pub struct Cluster {
    /// To just before the first transaction that ended after this time ('2026-11-20 14:02:31+01'), or to the end: latest
    #[arg(long, value_name = "TIME", conflicts_with_all = ["lsn", "xid", "name", "immediate"])]
    at: Option<String>,
    /// To a position in the write-ahead log (WAL)
    #[arg(long, value_name = "LSN", conflicts_with_all = ["xid", "name", "immediate"])]
    lsn: Option<Lsn>,
    /// To the end of a transaction
    #[arg(long, value_name = "XID", conflicts_with_all = ["name", "immediate"])]
    xid: Option<u64>,
    /// To a named restore point (pg_create_restore_point)
    #[arg(long, value_name = "NAME", conflicts_with = "immediate")]
    name: Option<String>,
    /// To the end of the base backup that --point names
    #[arg(long, requires = "to_dir")]
    immediate: bool,
    /// The timeline to follow, where the archive has several
    #[arg(long, value_name = "N")]
    timeline: Option<u32>,
    /// Where a tablespace goes: OID=FOLDER; may be repeated [default: beside the data directory]
    #[arg(long, value_name = "OID=FOLDER", requires = "to_dir", value_parser = tablespace)]
    tablespace: Vec<(u32, PathBuf)>,
    /// Put a stopped cluster back: write only files that differ, and remove the rest
    #[arg(long, group = "overwrites", requires = "to_dir")]
    delta: bool,
    /// As a warm standby: it follows the archive, and takes over when it is promoted
    #[arg(long, requires = "to_dir", conflicts_with_all = ["at", "lsn", "xid", "name", "immediate", "timeline"])]
    standby: bool,
    /// Of a standby: the variable with the address of the primary, from which it streams as well
    #[arg(long, value_name = "VARIABLE", requires = "standby")]
    primary_url_env: Option<String>,
    /// How the server gets the WAL: all of it beforehand, or each file as it comes to it
    #[arg(long, value_name = "HOW", requires = "to_dir", default_value = "copy")]
    wal: WalArg,
    /// What the server does when it has reached the target
    #[arg(long, value_name = "ACTION", requires = "to_dir", default_value = "promote")]
    action: ActionArg,
    /// Write a backup_manifest too, by which PostgreSQL's pg_verifybackup checks the directory
    #[arg(long, requires = "to_dir")]
    manifest: bool,
    /// Start a server on what was restored, wait until it has reached the target, and leave it running
    #[arg(long, requires_all = ["to_dir", "port"])]
    start: bool,
    /// Where the started server listens
    #[arg(long, value_name = "PORT", requires = "start", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum ActionArg {
    /// Take writes, on a timeline of its own
    Promote,
    /// Stay in recovery and answer queries
    Pause,
    /// Stop
    Shutdown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum WalArg {
    /// Into pg_wal, before the server starts
    Copy,
    /// With `mainstay wal fetch`: for windows that are larger than the disk
    Fetch,
}

impl Cluster {
    /// Whether something was said that only a cluster understands.
    pub fn is_wanted(&self) -> bool {
        self.target_given()
            || self.immediate
            || self.standby
            || self.wal == WalArg::Fetch
            || self.timeline.is_some()
            || self.delta
            || self.start
            || self.manifest
            || !self.tablespace.is_empty()
    }

    /// Whether what is restored is started by us.
    pub fn starts(&self) -> bool {
        self.start
    }

    pub fn target_given(&self) -> bool {
        self.at.is_some() || self.lsn.is_some() || self.xid.is_some() || self.name.is_some()
    }

    fn target(&self) -> Result<Target> {
        Ok(match (&self.at, self.lsn, self.xid, &self.name) {
            (Some(at), ..) if at == "latest" => Target::Latest,
            (Some(at), ..) => Target::Time(points::time_of(at).ok_or_else(|| {
                Failure::usage(format!("{at:?} is no time"))
                    .hint("Write it as 2026-11-20 14:02:31+01, or latest. Without an offset it is this machine's own time.")
            })?),
            (_, Some(lsn), ..) => Target::Lsn(lsn),
            (_, _, Some(xid), _) => Target::Xid(xid),
            (.., Some(name)) => Target::Name(name.clone()),
            _ => Target::Immediate,
        })
    }
}

fn tablespace(text: &str) -> Result<(u32, PathBuf), String> {
    let (oid, folder) = text.split_once('=').ok_or("write it as OID=FOLDER")?;
    let oid = oid.parse().map_err(|_| format!("{oid:?} is no oid of a tablespace"))?;
    let folder = PathBuf::from(folder);
    if folder.is_absolute() {
        Ok((oid, folder))
    } else {
        Err("the folder must be an absolute path".to_owned())
    }
}

pub fn run(
    how: &How,
    context: &Context,
    hooks: &Around<'_>,
    config: Option<&Config>,
    chosen: &Chosen,
    source: &str,
) -> Result<Exit> {
    let given = how.files.to_dir.clone().unwrap_or_default();
    let destination = absolute(&given)
        .map_err(|error| Failure::usage(format!("{} is no folder", given.display())).caused_by(error))?;
    if how.cluster.timeline.is_some() && !how.cluster.target_given() {
        return Err(Failure::usage("a timeline is followed to a target, and none was given")
            .hint("Add one: --at latest goes to the end of the timeline."));
    }
    let mut options = Options {
        tablespaces: how.cluster.tablespace.iter().cloned().collect(),
        delta: how.cluster.delta,
        page_key: how.cluster.delta.then(|| chosen.repository.keyring().current().page_key()),
        manifest: how.cluster.manifest,
        accept_partial: how.database.accept_partial,
        ..Options::new(destination)
    };

    let resolved = resolve(how, chosen, source)?;
    let base = &resolved.base;
    let log = match how.cluster.standby || how.cluster.wal == WalArg::Fetch {
        true => Log::Fetched,
        false => Log::Brought,
    };
    options.recovery = Some(recovery(how, context, chosen, &resolved, log)?);
    let opened = restore::open(&chosen.repository, base, source)?;
    let plan = mainstay_sources::postgres::cluster::restore::plan(&opened.record, &options)?;

    heading_to(context, &resolved, source, &options.destination.display().to_string());
    let to_a_moment = how.cluster.target_given().then_some(&resolved);
    let is_lacking = lacking::show(context, &opened, how.dry_run)?;
    show_plan(context, to_a_moment, &plan, base);
    if how.dry_run {
        return Ok(lacking::exit(is_lacking));
    }
    refuse_partial(&opened.record, &options)?;
    let mask = how.database.mask.as_deref();
    let mask = mask.map(|name| staging::mask_named(config, &base.summary.app, name)).transpose()?;
    if let (Some(_), Some(recovery)) = (&mask, &options.recovery) {
        masked::refuse_unmaskable(recovery)?;
        if options.delta {
            return Err(
                Failure::usage("a masked copy does not take its original's place").hint("Leave --delta out.")
            );
        }
    }
    options.closed = mask.is_some();
    let port = how.cluster.port.filter(|_| how.cluster.start);
    let bin_dir = || start::bin_dir(config, base, source);
    let starter = port.map(|port| start::prepare(&plan.facts, bin_dir(), port)).transpose()?;
    if options.delta {
        if !how.database.no_backup {
            say_without_way_back(context, &options.destination);
        }
        confirm::typed(
            context,
            how.yes,
            &format!("overwrite {}", options.destination.display()),
            "overwrite",
        )?;
    }
    hooks.begin(&context.progress)?;
    if options.delta && !how.database.no_backup {
        keep_way_back(context, config, chosen, base, source, &options.destination)?;
    }
    let report = pitr::restore(&opened, &resolved, &options, log, &context.progress)?;
    context.progress.finish();
    show_report(context, &options, &report);
    match (starter, &mask) {
        (Some(starter), Some(mask)) => {
            let (started, databases) =
                starter.start_masked(&options, &plan.facts, mask, &context.progress)?;
            context.progress.finish();
            show_masked(context, &databases);
            show_started(context, &options, &started, &plan.facts);
        }
        (Some(starter), None) => {
            let started = starter.start(&options, &context.progress)?;
            context.progress.finish();
            show_started(context, &options, &started, &plan.facts);
        }
        (None, _) => show_next(context, &options, &plan.facts),
    }
    Ok(Exit::Done)
}

/// Says before it is asked that nothing of what is there will be kept.
fn say_without_way_back(context: &Context, data: &Path) {
    let is_empty = std::fs::read_dir(data).is_ok_and(|mut entries| entries.next().is_none());
    if data.exists() && !is_empty && !data.join(CONTROL_FILE).exists() {
        context.output.line(format_args!(
            "  note: no safety copy is made of {}: it has no control file, so it is what a restore that broke off has left, or no \
             cluster. What is in it and not in the base backup is overwritten and removed.\n",
            data.display()
        ));
    }
}

/// Backs a stopped cluster up that is about to be overwritten. What an interrupted restore left has no control file: it is no cluster, and
/// what was there before was backed up then.
fn keep_way_back(
    context: &Context,
    config: Option<&Config>,
    chosen: &Chosen,
    base: &points::PointInfo,
    source: &str,
    data: &Path,
) -> Result<()> {
    if !data.join(CONTROL_FILE).exists() {
        return Ok(());
    }
    let (repository, clock) = (&chosen.repository, context.clock());
    let copy = safety::back_up_stopped(repository, config, base, source, data, &*clock, &context.progress)?;
    context.progress.finish();
    let (app, point, days) = (&base.summary.app, copy.point, safety::KEPT_DAYS);
    let out = &context.output;
    let all = if copy.trees.len() > 1 { ", all of it" } else { "" };
    out.line(format_args!(
        "The stopped cluster is recovery point {}: a safety copy, kept for {days} days; `latest` does not mean it. The way back{all}:",
        point.short()
    ));
    for tree in &copy.trees {
        // What lies beside it in a tablespace's folder is another cluster's.
        let only = tree.only.as_ref().map(|only| format!(" --path {only}")).unwrap_or_default();
        out.line(format_args!(
            "  mainstay restore {app} --point {} --source {} --to-dir {}{only} --delete --check-content",
            point.short(),
            tree.source,
            tree.root.display()
        ));
    }
    out.line(format_args!(""));
    let sources: Vec<&str> = copy.trees.iter().map(|tree| tree.source.as_str()).collect();
    out.json(
        "safety_copy",
        &serde_json::json!({ "point": point, "source": safety::name_of_stopped(source), "sources": sources }),
    );
    Ok(())
}

/// Which base backup and which segments lead to the moment that is asked for; without one, to the end of the point's own base
/// backup.
pub fn resolve<'c>(how: &How, chosen: &'c Chosen, source: &str) -> Result<Resolved<'c>> {
    if !how.cluster.target_given() {
        return pitr::end_of_backup(&chosen.repository, &chosen.info, source);
    }
    if how.point != "latest" {
        return Err(Failure::usage("a recovery point and a moment were given, and each says where to restore to").hint(
            "To the moment: leave --point out; the base backup before it is found by itself. To the end of the point's own base \
             backup: --immediate in place of the moment.",
        ));
    }
    let points = points::list(&chosen.repository, Some(&chosen.info.summary.app))?;
    let request = Request { target: how.cluster.target()?, timeline: how.cluster.timeline };
    pitr::resolve(&chosen.repository, &points, source, &request)
}

fn recovery(
    how: &How,
    context: &Context,
    chosen: &Chosen,
    resolved: &Resolved<'_>,
    log: Log,
) -> Result<Recovery> {
    let standby = how.cluster.standby;
    let primary = how.cluster.primary_url_env.as_ref().map(|variable| {
        std::env::var(variable).map_err(|_| {
            Failure::usage(format!("the variable {variable} is not set"))
                .hint("It holds the primary's address: postgres://replicator:…@primary/postgres.")
        })
    });
    Ok(Recovery {
        target: resolved.target.clone(),
        timeline: resolved.ancestry.timeline,
        restore_command: match log {
            // Everything that replay needs lies in pg_wal: the archive is not asked.
            Log::Brought => "false".to_owned(),
            Log::Fetched => fetch_command(context, &chosen.info.summary.app)?,
        },
        action: match how.cluster.action {
            ActionArg::Promote => Action::Promote,
            ActionArg::Pause => Action::Pause,
            ActionArg::Shutdown => Action::Shutdown,
        },
        standby,
        primary: primary.transpose()?,
        archive: how.cluster.delta || standby,
    })
}

/// This program with this configuration, as the server's shell runs it.
fn fetch_command(context: &Context, app: &str) -> Result<String> {
    let program = std::env::current_exe()
        .map_err(|error| Failure::failed("it is not known where this program lies").caused_by(error))?;
    let config = absolute(context.config_path()?)
        .map_err(|error| Failure::failed("it is not known where the configuration lies").caused_by(error))?;
    Ok(format!(
        "{} --config {} --quiet wal fetch --app {} %f %p",
        for_the_server(&program.to_string_lossy()),
        for_the_server(&config.to_string_lossy()),
        for_the_server(app)
    ))
}

/// One word for a shell, in a setting in which the server replaces what follows a per cent sign.
fn for_the_server(word: &str) -> String {
    format!("'{}'", word.replace('%', "%%").replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::for_the_server;

    #[test]
    fn a_word_stays_one_word_for_the_server_and_its_shell() {
        assert_eq!(for_the_server("/opt/main stay"), "'/opt/main stay'");
        assert_eq!(for_the_server("it's 100%"), r"'it'\''s 100%%'");
        assert_eq!(for_the_server("$(x)"), "'$(x)'");
    }
}
