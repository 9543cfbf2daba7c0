//! `mainstay demo`: a small company is backed up, destroyed, restored, and shown to be equal.
//!
//! Every step runs this same binary as a user would, and shows the command and what it prints. That what came back is equal
//! is shown twice: by Mainstay's own proof, and by fingerprints that the demo takes itself, in SQL and from the files, before
//! the loss and after the restore. It needs a PostgreSQL server to be installed, starts a throw-away one of its own, touches
//! nothing else, and leaves nothing behind.

mod company;
mod images;
mod shell;
mod uploads;

use crate::{context::Context, exit::Exit, render::time};
use company::Company;
use mainstay_domain::{ByteSize, Failure, Kind, Result};
use mainstay_sources::postgres::{
    sandbox::{Sandbox, SandboxOptions},
    tools::{self, Purpose},
};
use shell::Shell;
use std::{fs, path::PathBuf};

/// Show Mainstay at work: back up, destroy and restore a small company, and prove that it came back
///
/// Needs an installed PostgreSQL server (14 or later), of which it starts a throw-away one.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder of PostgreSQL's programs, where they are not in one of the usual places
    #[arg(long, value_name = "FOLDER")]
    postgres_bin: Option<PathBuf>,
    /// Leave the demo's folder in place at the end
    #[arg(long)]
    keep: bool,
}

pub fn run(args: Args, context: &Context) -> Result<Exit> {
    let begun = context.clock().now();
    let folder = tempfile::Builder::new()
        .prefix("mainstay-demo-")
        .tempdir()
        .map_err(|error| Failure::failed("no temporary folder could be made").caused_by(error))?;
    let tools =
        tools::installed(Purpose::Server, args.postgres_bin.as_deref()).into_iter().max_by_key(|t| t.major);
    let tools = tools.filter(|tools| tools.major >= 14).ok_or_else(|| {
        Failure::preflight("the demo needs a PostgreSQL server, version 14 or later")
            .hint("Install one (Debian: apt-get install postgresql; from the sources: make setup), or name its folder with --postgres-bin.")
    })?;
    let sandbox = Sandbox::start(&SandboxOptions::new(tools))?;
    let company = Company { sandbox, uploads: folder.path().join("uploads") };
    let shell =
        Shell::new(&folder.path().canonicalize().unwrap_or(folder.path().to_owned()), &company.url())?;

    play(&company, &shell)?;

    shell.say(&format!("\nDone in {}.", time::length(context.clock().now().since(begun))));
    if args.keep {
        shell.say(&format!("The demo's folder is left in {}.", folder.keep().display()));
    }
    Ok(Exit::Done)
}

/// The story, step by step.
fn play(company: &Company, shell: &Shell) -> Result<()> {
    shell.title("A small company");
    let made = company.found()?;
    shell.say(&format!(
        "Harbour Clinic: a database ({}) of {} rows in {} tables, and {} files ({}) in {} folders.",
        company.version()?,
        made.rows,
        made.tables,
        made.files.files,
        ByteSize(made.files.bytes),
        made.files.folders
    ));

    shell.title("Say what to protect, and make a repository");
    shell.run(&[
        "init",
        "--app",
        "clinic",
        "--postgres-url-env",
        "DATABASE_URL",
        "--files",
        "uploads",
        "--store",
        "store",
    ])?;

    shell.title("The first backup");
    shell.run(&["backup", "clinic", "--label", "release=1.4.2"])?;

    shell.title(
        "A working day: some orders are paid, a letter is written; and the evening's backup stores only that",
    );
    company.work()?;
    let before = company.fingerprint()?;
    shell.run(&["backup", "clinic", "--policy", "nightly"])?;
    shell.run(&["list"])?;
    shell.run(&["show", "clinic"])?;

    shell.title("Disaster: the database is dropped, the folder is deleted");
    company.destroy()?;
    shell.say("DROP DATABASE company;\nrm -r uploads");

    shell.title("Restore: first one letter that somebody waits for, then everything");
    shell.run(&["restore", "clinic", "--to-dir", "desk", "--path", "letters/2026/04/letter-003.pdf"])?;
    shell.run(&["restore", "clinic", "--to-database", "company", "--yes"])?;
    shell.run(&["restore", "clinic", "--to-dir", "uploads"])?;

    shell.title("Is it the same? Fingerprints that were taken before the loss, in SQL and from the files, taken again");
    let after = company.fingerprint()?;
    if before != after {
        return Err(Failure::new(Kind::Verification, before.difference(&after)));
    }
    shell.say(&format!(
        "Equal: {} rows in {} tables, {} large objects, {} files and folders with modes, times and links.",
        after.rows(),
        after.tables(),
        after.large_objects(),
        after.files()
    ));

    shell.title("Proof: restore into a throw-away PostgreSQL, compare everything with what was captured, sign the result");
    shell.run(&["verify", "clinic", "--level", "restore"])?;
    shell.run(&["status"])?;
    Ok(())
}

/// Removes a folder and all in it; what is not there needs no removing.
fn remove_folder(path: &std::path::Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::failed(format!("{} could not be removed", path.display())).caused_by(error))
        }
        _ => Ok(()),
    }
}
