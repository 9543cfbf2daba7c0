//! The folder of a restore test, or of a recovery out of which tables are taken: locked (`flock`) by its process as long as that lives.
//!
//! What is restored lies there in the clear. A process that ends in order removes its folder; one that is killed
//! leaves it, and the kernel gives its lock back. So a folder that somebody else can lock has no owner any more, and goes with the
//! next look at any recovery point, and `doctor` names it. Where locks do not work, or the folder is another user's, it stays.

use mainstay_domain::{Failure, Monitor, Result, Severity};
use rustix::{
    fs::{FlockOperation, OFlags, flock},
    io::Errno,
};
use std::{
    fs::{self, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// What the folder is for, by the beginning of its name.
const TEST: &str = "mainstay-restore-test-";
const RECOVERY: &str = "mainstay-recovery-";

pub struct ScratchFolder {
    folder: tempfile::TempDir,
    _lock: File,
}

impl ScratchFolder {
    /// A new folder in the system's temporary directory, after those that were left behind there are removed.
    pub fn new(monitor: &dyn Monitor) -> Result<ScratchFolder> {
        ScratchFolder::named(TEST, "restore test", monitor)
    }

    /// The same for a recovery.
    pub fn for_recovery(monitor: &dyn Monitor) -> Result<ScratchFolder> {
        ScratchFolder::named(RECOVERY, "recovery", monitor)
    }

    fn named(prefix: &str, what: &str, monitor: &dyn Monitor) -> Result<ScratchFolder> {
        let parent = std::env::temp_dir();
        remove_leftovers(&parent, monitor);
        ScratchFolder::within(&parent, prefix).map_err(|error| {
            Failure::preflight(format!("no directory for the {what} could be made")).caused_by(error)
        })
    }

    fn within(parent: &Path, prefix: &str) -> io::Result<ScratchFolder> {
        loop {
            // The user that runs a throw-away server passes through; what is restored lies in folders closed to all others.
            let folder = tempfile::Builder::new()
                .prefix(prefix)
                .permissions(Permissions::from_mode(0o711))
                .tempdir_in(parent)?;
            let lock = open(folder.path())?;
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                // Between its making and our lock, somebody may have taken it for a leftover.
                Ok(()) if !folder.path().exists() => continue,
                Err(Errno::WOULDBLOCK) => continue,
                // Without locks nobody removes leftovers either.
                Ok(()) | Err(_) => return Ok(ScratchFolder { folder, _lock: lock }),
            }
        }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn close(self) -> Result<()> {
        self.folder.close().map_err(|error| {
            Failure::failed("what was restored for a while could not be removed")
                .hint("Remove the folder by hand: what was restored may still lie in it.")
                .caused_by(error)
        })
    }
}

fn open(folder: &Path) -> io::Result<File> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW;
    OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(folder)
}

/// Removes what restore tests and recoveries that were killed have left in the system's temporary directory.
pub fn remove_all_leftovers(monitor: &dyn Monitor) {
    remove_leftovers(&std::env::temp_dir(), monitor);
}

/// The same, only named.
pub fn leftovers() -> Vec<PathBuf> {
    abandoned(&std::env::temp_dir()).map(|(path, _)| path).collect()
}

/// The folders of ours that have no process any more, each with its lock: nobody else takes it for abandoned meanwhile.
fn abandoned(parent: &Path) -> impl Iterator<Item = (PathBuf, File)> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let name = entry.file_name();
        let name = name.to_str()?;
        if ![TEST, RECOVERY].iter().any(|prefix| name.starts_with(prefix)) {
            return None;
        }
        let folder = open(&entry.path()).ok()?;
        let ours = folder.metadata().is_ok_and(|m| m.uid() == rustix::process::geteuid().as_raw());
        let locked = ours && flock(&folder, FlockOperation::NonBlockingLockExclusive).is_ok();
        locked.then(|| (entry.path(), folder))
    })
}

fn remove_leftovers(parent: &Path, monitor: &dyn Monitor) {
    for (path, _lock) in abandoned(parent) {
        match remove(&path) {
            Ok(()) => monitor.notice(
                Severity::Info,
                &format!("removed {}, which a process that was killed had left", path.display()),
            ),
            // Somebody else is at it: another look, or the shell that ends a throw-away server.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => monitor.notice(
                Severity::Warning,
                &format!(
                    "{} was left by a process that was killed, holds what was restored, and cannot be removed: {error}",
                    path.display()
                ),
            ),
        }
    }
}

/// Removes what was restored, read-only folders too.
pub fn remove(folder: &Path) -> io::Result<()> {
    // Without looking at modes first: where it is enough, no mode is changed of what another user may have exchanged.
    if fs::remove_dir_all(folder).is_ok() {
        return Ok(());
    }
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        fs::set_permissions(&folder, Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    fs::remove_dir_all(folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_domain::Silent;

    #[test]
    fn a_folder_is_removed_only_when_its_process_is_gone() {
        let parent = tempfile::tempdir().unwrap();
        let alive = ScratchFolder::within(parent.path(), TEST).unwrap();
        fs::write(alive.path().join("file"), "restored").unwrap();
        let ScratchFolder { folder, _lock } = ScratchFolder::within(parent.path(), RECOVERY).unwrap();
        let gone = folder.keep();
        drop(_lock); // as a process that is killed leaves it
        let closed = gone.join("files/read-only");
        fs::create_dir_all(&closed).unwrap();
        fs::write(closed.join("file"), "restored").unwrap();
        fs::set_permissions(&closed, Permissions::from_mode(0o555)).unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        fs::write(elsewhere.path().join("file"), "not ours").unwrap();
        let link = parent.path().join(format!("{RECOVERY}link"));
        std::os::unix::fs::symlink(elsewhere.path(), &link).unwrap();
        let other = parent.path().join("mainstay-other");
        fs::create_dir(&other).unwrap();

        remove_leftovers(parent.path(), &Silent);
        assert!(!gone.exists());
        assert!(alive.path().join("file").exists());
        assert!(elsewhere.path().join("file").exists() && other.exists());
        let path = alive.path().to_owned();
        alive.close().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_tree_with_read_only_folders_is_removed() {
        let scratch = tempfile::tempdir().unwrap();
        let top = scratch.path().join("files");
        let closed = top.join("a/b");
        fs::create_dir_all(&closed).unwrap();
        fs::write(closed.join("file"), "x").unwrap();
        for folder in [&closed, &top.join("a"), &top] {
            fs::set_permissions(folder, Permissions::from_mode(0o555)).unwrap();
        }
        remove(&top).unwrap();
        assert!(!top.exists());
    }
}
