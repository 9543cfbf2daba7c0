//! A store in a folder of this machine (a disk, a mounted share).
//!
//! `create` writes a temporary file in the same file system, fsyncs it, renames it to its name without replacing anything,
//! and fsyncs the directory; directories it has to make are made durable first. So an object appears whole or not at all,
//! exactly one of several writers of a name wins, and what was reported as written survives a power cut. A crash leaves at
//! most a temporary file, which a later writer removes (`temporary.rs`). Files are made with mode 0600, directories 0700.
//!
//! Names beginning with a dot belong to the store itself and are no objects. Symbolic links, devices and FIFOs inside the
//! folder are not objects either: they are neither listed nor followed. The folder is made by the first `create`.

mod temporary;

use crate::{Listed, Store, StoreError, name};
use mainstay_domain::ByteSize;
use rustix::{
    fs::{CWD, RenameFlags},
    io::Errno,
};
use std::{
    collections::HashSet,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, ErrorKind, Read, Write},
    ops::ControlFlow,
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, Once},
};
use temporary::Temporary;

/// How often a write is begun anew when somebody removes our temporary file or a directory under our hands.
const ATTEMPTS: usize = 3;

/// The folder that `mkfs` makes at the top of ext4 and XFS file systems; only root can enter it.
const LOST_AND_FOUND: &str = "lost+found";

pub struct LocalStore {
    root: PathBuf,
    /// Makes the names in a directory durable; a test puts one in its place that fails.
    sync_directory: fn(&Path) -> io::Result<()>,
    /// Directories known to exist and to be recorded durably in their parents.
    durable: Mutex<HashSet<PathBuf>>,
    /// Leftovers of crashed writers are looked for once, before the first write.
    tidied: Once,
}

impl LocalStore {
    /// Does no input or output: a folder that does not exist is an empty store until something is created in it.
    pub fn new(root: impl Into<PathBuf>) -> LocalStore {
        LocalStore { root: root.into(), sync_directory, durable: Mutex::default(), tidied: Once::new() }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn temporary_directory(&self) -> PathBuf {
        self.root.join(temporary::DIRECTORY)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<Written, io::Error> {
        let target = self.path(name);
        let parent = target.parent().expect("an object lies below the root");
        self.ensure_directory(parent)?;
        if fs::symlink_metadata(&target).is_ok() {
            return Ok(self.already_there(parent));
        }
        let temporary_directory = self.temporary_directory();
        self.ensure_directory(&temporary_directory)?;
        self.tidied.call_once(|| temporary::remove_leftovers(&temporary_directory));

        let temporary = Temporary::create(&temporary_directory)?;
        let placed = temporary.file().write_all(bytes).and_then(|()| temporary.file().sync_all());
        let placed = placed.and_then(|()| place(&temporary, &target));
        match placed {
            Ok(true) => Ok(match (self.sync_directory)(parent) {
                Ok(()) => Written::Created,
                Err(error) => Written::Unclear(error),
            }),
            Ok(false) => {
                temporary.remove();
                Ok(self.already_there(parent))
            }
            Err(error) => {
                temporary.remove();
                Err(error)
            }
        }
    }

    /// Makes `directory` and its parents where they are missing, and makes sure that each survives a power cut: also one
    /// that another process made a moment ago and has not made durable yet.
    fn ensure_directory(&self, directory: &Path) -> io::Result<()> {
        if self.durable().contains(directory) {
            return Ok(());
        }
        let mut missing = Vec::new();
        let mut next = Some(directory);
        while let Some(ancestor) = next {
            // Above the root only what has to be made is ours to care for.
            let known = match ancestor.starts_with(&self.root) {
                true => self.durable().contains(ancestor),
                false => ancestor.as_os_str().is_empty() || ancestor.is_dir(),
            };
            if known {
                break;
            }
            missing.push(ancestor);
            next = ancestor.parent();
        }
        for ancestor in missing.into_iter().rev() {
            match DirBuilder::new().mode(0o700).create(ancestor) {
                Ok(()) => {}
                Err(_) if ancestor.is_dir() => {}
                Err(error) => return Err(error),
            }
            if let Some(parent) = ancestor.parent()
                && let Err(error) = (self.sync_directory)(parent)
                // The root's own parent may be closed to us, which is no reason to refuse a root that is there.
                && !(ancestor == self.root && error.kind() == ErrorKind::PermissionDenied)
            {
                return Err(error);
            }
            self.durable().insert(ancestor.to_owned());
        }
        Ok(())
    }

    /// The one who made it may not have come to the fsync yet, or has failed at it, and the caller may build on its being
    /// there.
    fn already_there(&self, parent: &Path) -> Written {
        match (self.sync_directory)(parent) {
            Ok(()) => Written::AlreadyExists,
            Err(error) => Written::Unclear(error),
        }
    }

    fn durable(&self) -> std::sync::MutexGuard<'_, HashSet<PathBuf>> {
        self.durable.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Opens an object: a regular file, whatever somebody may have put in its place.
    fn open(&self, name: &str) -> Result<(File, u64), StoreError> {
        name::check(self, name)?;
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let opened = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(self.path(name));
        let file = opened.map_err(|error| self.error(name, error))?;
        let metadata = file.metadata().map_err(|error| self.error(name, error))?;
        if !metadata.is_file() {
            return Err(self.not_found(name));
        }
        Ok((file, metadata.len()))
    }

    fn not_found(&self, name: &str) -> StoreError {
        StoreError::NotFound { store: self.describe(), name: name.to_owned() }
    }

    /// With what is left there, which is what its reader looks up next.
    fn with_room(&self, source: io::Error) -> io::Error {
        let left = match rustix::fs::statvfs(&self.root) {
            Ok(of) if of.f_files > 0 && of.f_favail == 0 => "no more files can be made there".to_owned(),
            Ok(of) => format!("{} are free there", ByteSize(of.f_bavail.saturating_mul(of.f_frsize))),
            Err(_) => return source,
        };
        io::Error::new(source.kind(), format!("{source}; {left}"))
    }

    fn error(&self, name: &str, source: io::Error) -> StoreError {
        let (store, name) = (self.describe(), name.to_owned());
        match source.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => StoreError::NotFound { store, name },
            Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => {
                StoreError::Full { store, name, source: self.with_room(source) }
            }
            Some(Errno::ROFS | Errno::ACCESS | Errno::PERM) => StoreError::Denied { store, name, source },
            _ => StoreError::Unavailable { store, name, source },
        }
    }
}

/// How a write ended, where it did not plainly fail.
enum Written {
    Created,
    AlreadyExists,
    /// It is there, but whether it survives a power cut is not known.
    Unclear(io::Error),
}

/// Gives the temporary file its name; `false` if the name is taken.
fn place(temporary: &Temporary, target: &Path) -> io::Result<bool> {
    match rustix::fs::renameat_with(CWD, temporary.path(), CWD, target, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        // NFS and some FUSE file systems cannot; a hard link refuses a name that is taken, too.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => link(temporary, target),
        Err(error) => Err(error.into()),
    }
}

fn link(temporary: &Temporary, target: &Path) -> io::Result<bool> {
    let linked = fs::hard_link(temporary.path(), target);
    // Over NFS the answer to a link may be lost, and the repeated call finds our own link (open(2), O_EXCL).
    let ours = temporary.file().metadata()?.nlink() == 2;
    match linked {
        Err(error) if !ours && error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) if !ours => Err(error),
        _ => {
            temporary.remove();
            Ok(true)
        }
    }
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    match File::open(directory)?.sync_all() {
        // Some network file systems have no such call for directories; they write names through.
        Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => Ok(()),
        result => result,
    }
}

impl Store for LocalStore {
    fn create(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        name::check(self, name)?;
        let mut attempt = 1;
        loop {
            match self.write(name, bytes) {
                Ok(Written::Created) => return Ok(()),
                Ok(Written::AlreadyExists) => {
                    return Err(StoreError::AlreadyExists { store: self.describe(), name: name.to_owned() });
                }
                Ok(Written::Unclear(source)) => {
                    return Err(StoreError::Unclear {
                        store: self.describe(),
                        name: name.to_owned(),
                        source,
                    });
                }
                // Somebody removed a directory or the temporary file: what was known about directories is void.
                Err(error) if error.kind() == ErrorKind::NotFound && attempt < ATTEMPTS => {
                    self.durable().clear();
                    attempt += 1;
                }
                Err(error) => {
                    return Err(match self.error(name, error) {
                        StoreError::NotFound { store, name } => {
                            let source = io::Error::from(ErrorKind::NotADirectory);
                            StoreError::Unavailable { store, name, source }
                        }
                        error => error,
                    });
                }
            }
        }
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, StoreError> {
        let (mut file, size) = self.open(name)?;
        let mut bytes = Vec::new();
        let reserved = bytes.try_reserve_exact(usize::try_from(size).unwrap_or(usize::MAX));
        reserved.map_err(io::Error::from).map_err(|error| self.error(name, error))?;
        file.read_to_end(&mut bytes).map_err(|error| self.error(name, error))?;
        Ok(bytes)
    }

    fn read_range(&self, name: &str, offset: u64, length: usize) -> Result<Vec<u8>, StoreError> {
        let (file, size) = self.open(name)?;
        let there = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; length.min(there)];
        let mut filled = 0;
        while filled < bytes.len() {
            match file.read_at(&mut bytes[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.error(name, error)),
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    fn stat(&self, name: &str) -> Result<Option<u64>, StoreError> {
        name::check(self, name)?;
        match fs::symlink_metadata(self.path(name)) {
            Ok(metadata) => Ok(metadata.is_file().then_some(metadata.len())),
            Err(error) => match self.error(name, error) {
                StoreError::NotFound { .. } => Ok(None),
                error => Err(error),
            },
        }
    }

    fn list(&self, prefix: &str, visit: &mut dyn FnMut(Listed) -> ControlFlow<()>) -> Result<(), StoreError> {
        name::check_prefix(self, prefix)?;
        let mut pending = vec![prefix.to_owned()];
        while let Some(prefix) = pending.pop() {
            let entries = match fs::read_dir(self.path(&prefix)) {
                Ok(entries) => entries,
                Err(error) => match self.error(&prefix, error) {
                    StoreError::NotFound { .. } => continue,
                    error => return Err(error),
                },
            };
            for entry in entries {
                let entry = entry.map_err(|error| self.error(&prefix, error))?;
                let Some(component) = entry.file_name().to_str().map(str::to_owned) else { continue };
                if !name::is_valid_component(&component) || prefix.is_empty() && component == LOST_AND_FOUND {
                    continue;
                }
                let name = format!("{prefix}{component}");
                // It may be deleted while we look; then it is not there.
                let metadata = match entry.metadata() {
                    Ok(metadata) => metadata,
                    Err(error) => match self.error(&name, error) {
                        StoreError::NotFound { .. } => continue,
                        error => return Err(error),
                    },
                };
                if metadata.is_dir() {
                    pending.push(name + "/");
                } else if metadata.is_file() && visit(Listed { name, bytes: metadata.len() }).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        name::check(self, name)?;
        let path = self.path(name);
        match fs::remove_file(&path).map_err(|error| self.error(name, error)) {
            Ok(()) => {}
            Err(StoreError::NotFound { .. }) => return Ok(()),
            Err(error) => return Err(error),
        }
        let parent = path.parent().expect("an object lies below the root");
        (self.sync_directory)(parent).map_err(|source| StoreError::Unclear {
            store: self.describe(),
            name: name.to_owned(),
            source,
        })
    }

    fn describe(&self) -> String {
        crate::address::of_path(&self.root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_renaming_cannot_refuse_a_taken_name_linking_does() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("object");
        for (bytes, placed) in [(b"first", true), (b"other", false)] {
            let temporary = Temporary::create(directory.path()).unwrap();
            temporary.file().write_all(bytes).unwrap();
            assert_eq!(link(&temporary, &target).unwrap(), placed);
            temporary.remove();
        }
        assert_eq!(fs::read(&target).unwrap(), b"first");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_whose_answer_was_lost_is_recognised_as_our_own() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("object");
        let temporary = Temporary::create(directory.path()).unwrap();
        fs::hard_link(temporary.path(), &target).unwrap();
        assert!(link(&temporary, &target).unwrap());
        assert!(!temporary.path().exists());
    }
    #[test]
    fn an_object_whose_directory_could_not_be_made_durable_is_believed_only_once_it_could() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = LocalStore::new(directory.path());
        store.create("log/0", b"makes the directory").unwrap();
        store.sync_directory = |_| Err(io::Error::other("the disk does not answer"));
        for _ in 0..3 {
            // It is there from the first time on, and must not pass for durable by being there.
            let answer = store.create("log/1", b"entry").unwrap_err();
            assert!(matches!(answer, StoreError::Unclear { .. }), "{answer}");
            assert_eq!(store.stat("log/1").unwrap(), Some(5));
        }
        store.sync_directory = sync_directory;
        assert!(store.create("log/1", b"entry").unwrap_err().already_exists());
    }

    #[test]
    fn a_directory_that_could_not_be_made_durable_is_tried_again() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = LocalStore::new(directory.path());
        store.sync_directory = |_| Err(io::Error::other("the disk does not answer"));
        store.create("packs/data/00/one", b"bytes").unwrap_err();
        assert!(store.durable().is_empty(), "nothing is known to be durable");
        store.sync_directory = sync_directory;
        store.create("packs/data/00/one", b"bytes").unwrap();
    }
}
