//! Temporary files of a local store: one per write, locked (`flock`) by their writer as long as it lives.
//!
//! The kernel releases the lock when the writer dies, however it dies. So a file that can be locked by somebody else has no
//! writer, and may be removed; where locks do not work, nothing is removed. A file is given away only by its owner or by
//! whoever holds its lock, and a writer that finds its new file locked or gone takes another.

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Lies in the store's folder, so in its file system (unless somebody mounted something in between).
pub(super) const DIRECTORY: &str = ".tmp";

pub(super) struct Temporary {
    path: PathBuf,
    file: File,
}

impl Temporary {
    pub(super) fn create(directory: &Path) -> io::Result<Temporary> {
        loop {
            let mut random = [0; 12];
            getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
            let random: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
            let path = directory.join(format!("{}-{random}", std::process::id()));
            let file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error),
            };
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                // Between our open and our lock, somebody may have taken it for a leftover.
                Ok(()) if file.metadata()?.nlink() == 0 => continue,
                Err(Errno::WOULDBLOCK) => continue,
                // Without locks (some network file systems) nobody removes leftovers either.
                Ok(()) | Err(_) => return Ok(Temporary { path, file }),
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Takes the name away. If that fails it is a leftover, and a later writer's to remove.
    pub(super) fn remove(&self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Removes the files whose writer is gone. What cannot be examined or removed stays.
pub(super) fn remove_leftovers(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        let Ok(file) = OpenOptions::new().write(true).open(entry.path()) else { continue };
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leftover_is_removed_only_when_its_writer_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let alive = Temporary::create(directory.path()).unwrap();
        let gone = Temporary::create(directory.path()).unwrap().path().to_owned();
        assert!(gone.exists(), "a dropped writer leaves its file, as a crashed one does");
        remove_leftovers(directory.path());
        assert!(alive.path().exists());
        assert!(!gone.exists());
    }
}
