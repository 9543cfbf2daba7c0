//! `mainstay wal`: archiving PostgreSQL's write-ahead log, and giving it back.

mod daemon;

use crate::{
    context::Context,
    exit::{self, Exit},
    render::{confirm, count, plain, table::Table},
};
use console::style;
use mainstay_domain::{ByteSize, Failure, Monitor, Result, Severity};
use mainstay_operations::{
    access,
    wal::{self, TimelineStatus, daemon as keeper, disown, patience, receive, slots},
};
use mainstay_repository::wal::Put;
use std::path::{Path, PathBuf};

/// Archive PostgreSQL's write-ahead log (WAL), fetch it for a recovery, and look at the archive
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Archive one file: archive_command = 'mainstay wal push %p'
    ///
    /// Succeeds only when the file is durable in the repository. The same file again is success; a different file under the
    /// same name is refused (of a .partial, the first is kept). PostgreSQL keeps what it could not archive and tries again.
    Push {
        /// The file, as PostgreSQL gives it with %p
        path: PathBuf,
        /// Remove what is archived under this name if that is a damaged copy of this file. By hand, not in archive_command
        #[arg(long)]
        replace_damaged: bool,
        #[command(flatten)]
        daemon: daemon::Choice,
    },
    /// Fetch one file for a server in recovery: restore_command = 'mainstay wal fetch %f %p'
    ///
    /// Exits with 1 when the archive does not have the file, and with 126 on every real failure: PostgreSQL takes the first for
    /// the end of the WAL, and stops at the second. For a standby it waits while the store is away.
    Fetch {
        /// The file's name, as PostgreSQL gives it with %f
        file: String,
        /// Where to write it, as PostgreSQL gives it with %p
        path: PathBuf,
        #[command(flatten)]
        daemon: daemon::Choice,
    },
    /// Receive WAL while it is written, over the replication protocol, until it is stopped
    ///
    /// Archives whole segments as `wal push` does, and fragments of the open one every few seconds; at once where the server waits
    /// for us (synchronous_standby_names). Acknowledges to the server only what is durable in the repository. A replication slot,
    /// made if it is not there, keeps the rest. Connects again when the server was away. Ctrl-C or SIGTERM archives what has come,
    /// and ends it.
    Receive {
        /// The application
        app: String,
        /// The source of kind cluster, where it has several
        #[arg(long)]
        source: Option<String>,
        /// If the server does not have the WAL any more that comes next, go on with what it has: the archive then has a gap, and a new
        /// base backup must follow
        #[arg(long)]
        accept_gap: bool,
    },
    /// Show what is archived (timelines, gaps, the last transaction), how the server's archiver stands, what replication slots make it
    /// keep, and what the WAL daemon has done
    Status {
        #[command(flatten)]
        daemon: daemon::Choice,
    },
    /// Take out of the archive what the wrong one of two servers has archived, so that the right one can archive its own
    ///
    /// A clone of a machine, or an old primary that still ran, has archived segments whose names the primary needs, and the
    /// primary's are refused. Say from which segment on (the one that is refused), or name the .history file of a whole timeline.
    /// Everything on that timeline from there on is written into a folder first; pushed again from there, it is as before. Stop the
    /// wrong server beforehand.
    Disown {
        /// The first segment that is the other server's, or the .history file of its timeline
        file: String,
        /// A new folder, into which what goes is written
        #[arg(long, value_name = "FOLDER")]
        keep_in: PathBuf,
        /// The application; needed if several have a cluster
        #[arg(long)]
        app: Option<String>,
        /// The cluster, where several have archived such a file
        #[arg(long, value_name = "N")]
        system: Option<u64>,
        /// Show what would go, and stop
        #[arg(long)]
        dry_run: bool,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    Daemon(daemon::Args),
}

pub fn run(args: Args, context: &Context) -> Result<Exit> {
    match args.action {
        Action::Push { path, replace_damaged, daemon } => {
            let pushed = context.config().and_then(|config| {
                if replace_damaged {
                    let app = daemon.app.as_deref();
                    let put = wal::push_in_place_of_damage(&config, app, &path, context.clock())?;
                    return Ok((put, keeper::Asked::Nobody));
                }
                let place = daemon.whereabouts(&config)?;
                let (put, asked) = keeper::push(&config, &place, &path, context.clock())?;
                daemon::start_if_wanted(context, &place, &asked);
                Ok((put, asked))
            });
            match pushed {
                Ok((put, asked)) => {
                    let known = put == Put::Known;
                    if put == Put::KeptFirst {
                        let text = format!(
                            "{} is not archived: another .partial of that name is, from an earlier failover or recovery, and stays. \
                             No recovery needs either.",
                            path.display()
                        );
                        let monitor: &dyn Monitor = &context.progress;
                        monitor.notice(Severity::Warning, &text);
                    }
                    let by_daemon = matches!(asked, keeper::Asked::Done(()));
                    context.output.json(
                        "archived",
                        &serde_json::json!({ "path": path, "known": known, "daemon": by_daemon }),
                    );
                    Ok(Exit::Done)
                }
                Err(failure) => Ok(failed(context, &failure, wal::push_exit_code(failure.kind))),
            }
        }
        Action::Fetch { file, path, daemon } => {
            let fetched =
                patience::fetch_patiently(&path, &mut |failure| exit::show(failure, context), || {
                    let config = context.config()?;
                    let place = daemon.whereabouts(&config)?;
                    let (found, asked) = keeper::fetch(&config, &place, &file, &path, context.clock())?;
                    daemon::start_if_wanted(context, &place, &asked);
                    Ok(found)
                });
            match fetched {
                Ok(true) => Ok(Exit::Done),
                Ok(false) => Ok(Exit::Code(wal::NOT_THERE)),
                Err(failure) => Ok(failed(context, &failure, wal::FETCH_FAILED)),
            }
        }
        Action::Receive { app, source, accept_gap } => {
            let options = receive::Options { source: source.as_deref(), accept_gap };
            let config = context.config()?;
            let received = receive::receive(&config, &app, &options, context.clock(), &context.progress)?;
            context.output.json("received", &received);
            Ok(Exit::Done)
        }
        Action::Status { daemon } => {
            let config = context.config()?;
            let named = wal::repository_for(&config, daemon.app.as_deref())?;
            show(context, &wal::status(&access::open(&config, &named, context.clock())?)?);
            daemon::show(context, &daemon.whereabouts(&config)?, &config);
            show_slots(context, &slots::of_apps(&config, daemon.app.as_deref())?);
            Ok(Exit::Done)
        }
        Action::Disown { file, keep_in, app, system, dry_run, yes } => {
            let config = context.config()?;
            let repository = disown::open(&config, app.as_deref(), context.clock())?;
            let plan = disown::plan(&repository, &file, system)?;
            show_disowned(context, &plan, &keep_in);
            if dry_run {
                return Ok(Exit::Done);
            }
            let what = format!("take {} out of the archive", count(plan.files as u64, "file"));
            confirm::typed(context, yes, &what, &file)?;
            disown::carry_out(&repository, &plan, &keep_in, &context.progress)?;
            context.progress.finish();
            context.output.line(format_args!(
                "Done. What went is in {}. The right server archives its own the next time it tries.",
                keep_in.display()
            ));
            Ok(Exit::Done)
        }
        Action::Daemon(args) => daemon::run(args, context),
    }
}

fn show_disowned(context: &Context, plan: &disown::Plan, keep_in: &Path) {
    let out = &context.output;
    out.line(format_args!(
        "Out of the archive of cluster {}, timeline {}, into {}:\n\n  files             {} ({}), {} to {}",
        plan.system,
        plan.timeline,
        keep_in.display(),
        plan.files,
        ByteSize(plan.bytes),
        plan.first,
        plan.last
    ));
    if let Some(end) = plan.last_end {
        out.line(format_args!("  last transaction  {}", crate::render::time::precise(end)));
    }
    if plan.base_backups > 0 {
        out.line(format_args!(
            "{} {} of that timeline end after it begins: of the wrong server, or of no use without this WAL. Make a new one of the right \
             server, and delete them.",
            style("!").yellow().bold(),
            count(plan.base_backups as u64, "base backup")
        ));
    }
    out.json("disowned", plan);
}

/// PostgreSQL reads the exit code; people read the server's log, where this goes.
fn failed(context: &Context, failure: &Failure, code: u8) -> Exit {
    exit::show(failure, context);
    Exit::Code(code)
}

fn show(context: &Context, clusters: &[wal::ClusterStatus]) {
    let out = &context.output;
    if clusters.is_empty() {
        out.line(
            "Nothing is archived yet. Set archive_mode = on and archive_command = 'mainstay wal push %p'.",
        );
    }
    for cluster in clusters {
        out.line(format_args!("Cluster {}, {} archived\n", cluster.system, ByteSize(cluster.stored_bytes)));
        let mut table =
            Table::new(&["TIMELINE", "FROM", ">SEGMENTS", "FIRST", "LAST", "LAST TRANSACTION", ">MISSING"]);
        for timeline in &cluster.timelines {
            table.row(row(timeline));
        }
        out.line(table.render());
        for timeline in cluster.timelines.iter().filter(|timeline| !timeline.missing.is_empty()) {
            let shown: Vec<&str> = timeline.missing.iter().take(5).map(String::as_str).collect();
            out.line(format_args!(
                "  timeline {} has a gap of {}: {}{}. Make a new base backup: nothing after the gap can be reached from before it.",
                timeline.timeline,
                timeline.missing.len(),
                shown.join(", "),
                if timeline.missing.len() > shown.len() { ", …" } else { "" }
            ));
        }
        for timeline in &cluster.timelines {
            if let (Some(open), Some(to)) = (&timeline.open, timeline.open_to) {
                out.line(format_args!(
                    "  timeline {}: {open} is still written to, and archived up to {to}",
                    timeline.timeline
                ));
            }
            if let Some(why) = &timeline.damaged {
                out.line(format_args!(
                    "  it is not known where timeline {} came from: {why}",
                    timeline.timeline
                ));
            }
            if let Some(other) = timeline.went_on {
                out.line(format_args!(
                    "  timeline {} went on after timeline {other} had branched off: from there on they are two histories, and a \
                     restore asks which one is meant.",
                    timeline.timeline
                ));
            }
        }
        out.json("wal", cluster);
    }
}

fn show_slots(context: &Context, servers: &[slots::ServerSlots]) {
    let out = &context.output;
    for server in servers {
        out.json("slots", server);
        if let Some(why) = &server.unknown {
            out.line(format_args!(
                "{}: {} cannot be asked for its archiver and its replication slots: {why}",
                server.app, server.source
            ));
        }
        if let Some(archiver) = server.archiver.as_ref().filter(|archiver| archiver.on) {
            let last = match (&archiver.last_archived, archiver.last_archived_at) {
                (Some(name), Some(at)) => format!("{name}, {}", crate::render::time::local(at)),
                _ => "nothing yet".to_owned(),
            };
            out.line(format_args!("Archiver of {}, {}: last archived {last}", server.app, server.source));
        }
        if !server.slots.is_empty() {
            let mut table = Table::new(&["SLOT", "RECEIVER", "FROM", ">KEPT", "LOG"]);
            for slot in &server.slots {
                table.row([
                    slot.name.clone(),
                    if slot.active { "connected" } else { "none" }.to_owned(),
                    slot.restart_lsn.map(|lsn| lsn.to_string()).unwrap_or_default(),
                    slot.retained_bytes.map(|bytes| ByteSize(bytes).to_string()).unwrap_or_default(),
                    slot.wal_status.clone().unwrap_or_default(),
                ]);
            }
            out.line(format_args!("Slots of {}, {}\n\n{}", server.app, server.source, table.render()));
        }
        for concern in &server.concerns {
            out.line(format_args!("{} {}", style("!").yellow().bold(), plain(concern)));
        }
    }
}

fn row(timeline: &TimelineStatus) -> [String; 7] {
    let text = |name: &Option<String>| name.clone().unwrap_or_default();
    [
        timeline.timeline.to_string(),
        text(&timeline.from),
        timeline.segments.to_string(),
        text(&timeline.first),
        text(&timeline.last),
        timeline.last_end.map(crate::render::time::local).unwrap_or_default(),
        timeline.missing.len().to_string(),
    ]
}
