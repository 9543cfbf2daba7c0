//! The demo as root: PostgreSQL refuses to be run by root, and who archives is the server's user. So the whole demo is
//! played by that user, with a copy of this program, in a folder that is the user's own.

use super::{Args, shell};
use crate::exit::Exit;
use mainstay_domain::{Failure, Result};
use std::{
    fs, io,
    os::unix::{fs::chown, process::CommandExt},
    path::Path,
    process::Command,
};

/// Runs the demo as the user and group, to its end.
pub fn play_as((uid, gid): (u32, u32), args: &Args) -> Result<Exit> {
    let failed = |error| {
        Failure::preflight("the demo could not be prepared for the user that runs PostgreSQL")
            .hint("Run it as an ordinary user, or set TMPDIR to a folder in which programs may run.")
            .caused_by(error)
    };
    let folder = tempfile::Builder::new().prefix("mainstay-demo-").tempdir().map_err(failed)?;
    let program = folder.path().join("mainstay");
    let own = shell::own_program()?;
    let prepared = || -> io::Result<()> {
        fs::copy(&own, &program)?;
        chown(folder.path(), Some(uid), Some(gid))
    };
    prepared().map_err(failed)?;

    let mut command = Command::new(&program);
    command.arg("demo").uid(uid).gid(gid).current_dir(folder.path());
    command.env("HOME", folder.path()).env("TMPDIR", folder.path());
    if let Some(programs) = &args.postgres_bin {
        command.arg("--postgres-bin").arg(fs::canonicalize(programs).unwrap_or_else(|_| programs.clone()));
    }
    if args.keep {
        command.arg("--keep");
    }
    let ended = command.status().map_err(failed)?;
    if args.keep {
        let _: &Path = &folder.keep();
    }
    match ended.code() {
        Some(0) => Ok(Exit::Done),
        // It has said why.
        Some(code) => Ok(Exit::Code(u8::try_from(code).unwrap_or(1))),
        None => Err(Failure::failed(format!("the demo ended with {ended}"))),
    }
}
