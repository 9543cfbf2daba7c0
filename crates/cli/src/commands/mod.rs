//! One file per command: its arguments, its help, and a thin function over one operation.

mod backup;
mod completion;
mod config;
mod delete;
mod diff;
mod doctor;
mod find;
mod hold;
mod init;
mod key;
mod list;
mod ls;
mod parse;
mod point;
mod prune;
mod recover;
mod repair;
mod restore;
mod show;
mod status;
mod verify;
mod wal;

pub use mainstay_operations::wal::FETCH_FAILED;

use crate::{context::Context, demo, exit::Exit};
use clap::Subcommand;
use mainstay_domain::Result;

#[derive(Debug, Subcommand)]
pub enum Command {
    Init(init::Args),
    Backup(backup::Args),
    List(list::Args),
    Show(show::Args),
    Ls(ls::Args),
    Find(find::Args),
    Diff(diff::Args),
    Restore(Box<restore::Args>),
    Verify(verify::Args),
    Status(status::Args),
    Doctor(doctor::Args),
    Delete(delete::Args),
    Prune(prune::Args),
    Hold(hold::Args),
    Key(key::Args),
    Recover(Box<recover::Args>),
    Repair(repair::Args),
    Wal(wal::Args),
    Config(config::Args),
    Demo(demo::Args),
    Completion(completion::Args),
}

pub fn run(command: Command, context: &Context) -> Result<Exit> {
    match command {
        Command::Init(args) => init::run(args, context),
        Command::Backup(args) => backup::run(args, context),
        Command::List(args) => list::run(args, context),
        Command::Show(args) => show::run(args, context),
        Command::Ls(args) => ls::run(args, context),
        Command::Find(args) => find::run(args, context),
        Command::Diff(args) => diff::run(args, context),
        Command::Doctor(args) => doctor::run(args, context),
        Command::Restore(args) => restore::run(*args, context),
        Command::Verify(args) => verify::run(args, context),
        Command::Status(args) => status::run(args, context),
        Command::Prune(args) => prune::run(args, context),
        Command::Recover(args) => recover::run(*args, context),
        Command::Delete(args) => delete::run(args, context),
        Command::Hold(args) => hold::run(args, context),
        Command::Key(args) => key::run(args, context),
        Command::Repair(args) => repair::run(args, context),
        Command::Wal(args) => wal::run(args, context),
        Command::Config(args) => config::run(args, context),
        Command::Demo(args) => demo::run(args, context),
        Command::Completion(args) => completion::run(args, context),
    }
}

/// Who is doing this, for the repository's log: the login name, or the number of the user.
fn whoami() -> String {
    let named = ["SUDO_USER", "USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    named
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()))
}
