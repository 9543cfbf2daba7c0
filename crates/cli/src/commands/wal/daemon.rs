//! `mainstay wal daemon`, and how `wal push` and `wal fetch` start it.

use crate::{context::Context, exit::Exit};
use mainstay_domain::Result;
use mainstay_operations::{
    config::Config,
    wal::daemon::{self, Asked, Status, Whereabouts, client},
};
use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

/// Keep the repository open, so that `wal push` and `wal fetch` cost PostgreSQL milliseconds
///
/// Archives what PostgreSQL has finished before it asks for it, and fetches what a server in recovery will ask for next. A push is
/// answered only when that very segment is durable in the repository. Run it as the user of the server. `wal push` and `wal fetch` do
/// the work themselves where there is no daemon; it can be stopped or killed at any moment.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The application
    app: String,
    /// Its socket [default: as the configuration says, or in the cache folder]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// End when nobody has asked for anything for a while (`wal: { idle: … }`), and belong to no terminal
    #[arg(long, hide = true)]
    until_idle: bool,
}

/// Whose archive, and where its daemon is.
#[derive(Debug, clap::Args)]
pub struct Choice {
    /// The application, where several have a source of kind cluster
    #[arg(long)]
    pub app: Option<String>,
    /// The socket of the WAL daemon [default: as the configuration says, or in the cache folder]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

impl Choice {
    pub fn whereabouts(&self, config: &Config) -> Result<Whereabouts> {
        Whereabouts::of(config, self.app.as_deref(), self.socket.as_deref())
    }
}

pub fn run(args: Args, context: &Context) -> Result<Exit> {
    if args.until_idle {
        let _ = rustix::process::setsid(); // who leads a group already is nobody's child to be stopped with
    }
    let config = context.config()?;
    let place = Whereabouts::of(&config, Some(&args.app), args.socket.as_deref())?;
    let status = daemon::run(&config, &place, args.until_idle, context.clock(), &context.progress)?;
    tell(context, &status);
    Ok(Exit::Done)
}

/// Starts a daemon where the configuration says so and nobody listens. Best effort: archiving goes on without it.
pub fn start_if_wanted(context: &Context, place: &Whereabouts, asked: &Asked<()>) {
    let (Asked::Nobody, true, Some(socket)) = (asked, place.starts_by_itself(), &place.socket) else {
        return;
    };
    let (Ok(program), Ok(Ok(config))) =
        (std::env::current_exe(), context.config_path().map(std::path::absolute))
    else {
        return;
    };
    let mut command = Command::new(program);
    command.arg("--config").arg(config).args([
        "--quiet",
        "wal",
        "daemon",
        &place.app,
        "--until-idle",
        "--socket",
    ]);
    command.arg(socket).current_dir("/");
    drop(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn());
}

/// What a daemon says of itself, if there is one.
pub fn show(context: &Context, place: &Whereabouts, config: &Config) {
    match client::status(place, config) {
        Ok(Some(status)) => tell(context, &status),
        Ok(None) => {}
        Err(failure) => {
            context.output.line(&failure.message);
            context.output.json("wal_daemon", &serde_json::json!({ "unusable": failure.message }));
        }
    }
}

fn tell(context: &Context, status: &Status) {
    context.output.line(format_args!(
        "WAL daemon (process {}): {} pushed, {} pushed ahead, of which {} were asked for since; {} fetched, {} fetched ahead, of which \
         {} were asked for since",
        status.pid,
        status.pushed,
        status.pushed_ahead,
        status.known_ahead,
        status.fetched,
        status.prefetched,
        status.known_prefetched
    ));
    context.output.json("wal_daemon", status);
}
