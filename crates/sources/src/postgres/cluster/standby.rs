//! What a data directory says of the standby that runs on it, to the command that fetches for it.
//!
//! While `restore_command` runs, the server sees nothing else: neither that it is to be promoted nor that its own main process is gone.
//! Source: PostgreSQL, `src/include/access/xlog.h` (the files' names) and `xlogarchive.c`.

use super::control;
use crate::postgres::postmaster;
use std::path::{Path, PathBuf};

/// The directory for which a file is fetched to `path`: the working directory, or the one to which the file goes.
pub fn directory_of(path: &Path) -> Option<PathBuf> {
    let beside = path.parent().and_then(Path::parent).map(Path::to_owned);
    let all = [Some(PathBuf::from(".")), beside];
    all.into_iter().flatten().find(|data| control::read(data).is_ok())
}

/// Whether a standby runs on it: a server whose recovery never ends by itself.
pub fn runs_on(data: &Path) -> bool {
    let server = postmaster::read(data);
    data.join("standby.signal").exists() && server.is_some_and(|server| postmaster::is_alive(server.pid))
}

/// Whether somebody has asked for it to be promoted (`pg_ctl promote`, `pg_promote()`), and it has not seen that yet.
pub fn is_to_be_promoted(data: &Path) -> bool {
    data.join("promote").exists()
}
