//! Segments that were fetched ahead, in files without a name: no other program finds them, and they vanish with this process.
//!
//! Where it can be, such a file lies in the folder for which it was fetched. There it only needs to be given its name, and nothing is
//! copied; elsewhere it is read and sent. Either way its content is hashed again first: PostgreSQL would take a wrong byte for the
//! end of the log.

use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat};
use std::{
    fs::File,
    io::{self, Read, Seek, Write},
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::Path,
};

#[derive(Debug)]
pub struct Spooled {
    file: File,
    bytes: u64,
    hash: blake3::Hash,
}

impl Spooled {
    /// Writes it into a file of the folder `near`, to be named there, or else of `folder`.
    pub fn write(near: Option<&Path>, folder: &Path, content: &[u8]) -> io::Result<Spooled> {
        let write = |mut file: File| file.write_all(content).map(|()| file);
        let beside = near.map(|near| unnamed_in(near).and_then(write));
        let file = match beside {
            Some(Ok(file)) => file,
            _ => write(tempfile::tempfile_in(folder)?)?,
        };
        Ok(Spooled { file, bytes: content.len() as u64, hash: blake3::hash(content) })
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Its content, unless that is not what was written: then it is to be fetched again.
    pub fn read(mut self) -> Option<Vec<u8>> {
        let mut content = Vec::with_capacity(self.bytes as usize);
        self.file.rewind().ok()?;
        self.file.read_to_end(&mut content).ok()?;
        (blake3::hash(&content) == self.hash).then_some(content)
    }

    /// Gives the file this name, if there is none; returns its inode. Where that cannot be, the file comes back.
    pub fn place(mut self, path: &Path) -> Result<u64, Spooled> {
        let inode = self.file.metadata().map(|file| file.ino());
        match inode {
            Ok(inode) if self.is_right() && self.link(path).is_ok() => Ok(inode),
            _ => Err(self),
        }
    }

    fn link(&self, path: &Path) -> rustix::io::Result<()> {
        // By its name in /proc, as open(2) says: only the superuser may link a descriptor as such.
        let own = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        linkat(CWD, own, CWD, path, AtFlags::SYMLINK_FOLLOW)
    }

    fn is_right(&mut self) -> bool {
        let mut hasher = blake3::Hasher::new();
        let mut part = vec![0; 256 << 10];
        let mut read = || -> io::Result<blake3::Hash> {
            self.file.rewind()?;
            loop {
                match self.file.read(&mut part)? {
                    0 => return Ok(hasher.finalize()),
                    length => hasher.update(&part[..length]),
                };
            }
        };
        read().is_ok_and(|hash| hash == self.hash)
    }

    #[cfg(test)]
    pub fn file(&self) -> &File {
        &self.file
    }
}

/// A file that can be given a name later.
fn unnamed_in(folder: &Path) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    Ok(rustix::fs::open(folder, flags, Mode::RUSR | Mode::WUSR)?.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::FileExt};

    #[test]
    fn a_segment_takes_its_name_where_it_lies_and_replaces_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (path, elsewhere) = (folder.path().join("RECOVERYXLOG"), tempfile::tempdir().unwrap());
        let spool = |near| Spooled::write(near, elsewhere.path(), b"the log").unwrap();
        let inode = spool(Some(folder.path())).place(&path).expect("it lies there");
        assert_eq!(
            (fs::metadata(&path).unwrap().ino(), fs::read(&path).unwrap()),
            (inode, b"the log".to_vec())
        );

        fs::write(&path, "what PostgreSQL has").unwrap();
        let back = spool(Some(folder.path())).place(&path).expect_err("the name is taken");
        assert_eq!(back.read().unwrap(), b"the log");
        assert_eq!(fs::read(&path).unwrap(), b"what PostgreSQL has");
        fs::remove_file(&path).unwrap();

        let changed = spool(Some(folder.path()));
        changed.file().write_all_at(b"x", 2).unwrap();
        assert!(changed.place(&path).expect_err("it is not what was written").read().is_none());
        let gone = folder.path().join("gone/RECOVERYXLOG");
        assert_eq!(spool(None).place(&gone).unwrap_err().read().unwrap(), b"the log");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "and nothing lies about");
    }
}
