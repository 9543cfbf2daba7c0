//! What is said over the socket of the WAL daemon: a line of JSON each way, and after `Content` so many bytes.
//!
//! The daemon has two things to say that count: *this very file is durable*, and *here are the bytes* (or the file). Everything else, a refusal
//! and an absent file included, is `Declined`: the command then does the work itself, and what it finds is the truth. So no
//! answer can fail a push, and none can be taken for the end of the log.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    fs,
    io::{self, BufRead, Read, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

/// Of this program, and of these words.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "/2");
/// How often the daemon says that it is at work.
pub const BEAT: Duration = Duration::from_secs(1);
/// How long the other side may be silent.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// More than any line that is meant.
const LONGEST_LINE: u64 = 64 << 10;

#[derive(Debug, Serialize, Deserialize)]
pub struct Call {
    pub version: String,
    /// Hash of the configuration and the application: another one may mean another repository.
    pub configuration: String,
    pub ask: Ask,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Ask {
    Push { path: PathBuf, identity: Identity },
    Fetch { file: String, system: u64, to: Destination },
    Status,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// Not yet.
    Working,
    /// The file is durable in the repository; now made, so many bytes, or there already.
    Durable {
        stored: Option<u64>,
    },
    /// So many bytes follow.
    Content {
        bytes: u64,
    },
    /// It is where it was to go: this very file.
    Placed {
        bytes: u64,
        inode: u64,
    },
    Status(Status),
    Declined {
        why: String,
    },
}

/// What a daemon has done since it was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub pid: u32,
    /// Files archived when PostgreSQL asked.
    pub pushed: u64,
    /// Segments archived before it asked.
    pub pushed_ahead: u64,
    /// Pushes answered without reading the file, because it was archived ahead.
    pub known_ahead: u64,
    /// Segments fetched when a server asked.
    pub fetched: u64,
    /// Segments fetched before it asked.
    pub prefetched: u64,
    /// Fetches answered from those.
    pub known_prefetched: u64,
    /// And of those, without a copy: the file only got its name.
    pub placed: u64,
    /// Requests that the command had to do itself.
    pub declined: u64,
}

/// Which file at which moment: as long as nothing of this changes, it is the one that was read. PostgreSQL writes to no segment
/// that it has handed to the archiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    device: u64,
    inode: u64,
    pub bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    pub fn of(path: &Path) -> io::Result<Identity> {
        let found = fs::metadata(path)?;
        Ok(Identity {
            device: found.dev(),
            inode: found.ino(),
            bytes: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}

/// Where a segment is to go, as the caller sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    pub path: PathBuf,
    /// Device and inode of its folder.
    directory: (u64, u64),
}

impl Destination {
    /// `path` is absolute.
    pub fn of(path: &Path) -> io::Result<Destination> {
        let directory = fs::metadata(path.parent().unwrap_or(path))?;
        Ok(Destination { path: path.to_owned(), directory: (directory.dev(), directory.ino()) })
    }

    pub fn folder(&self) -> Option<&Path> {
        self.path.parent()
    }

    /// Whether this process sees the same folder there: the caller may live in another container.
    pub fn is_here(&self) -> bool {
        Destination::of(&self.path).is_ok_and(|here| here == *self)
    }
}

/// Whether words from a process of this user may be believed: one's own, or root's, who could do as it likes anyway.
pub fn trusted(peer: u32, own: u32) -> bool {
    peer == own || peer == 0
}

pub fn say(to: &mut impl Write, words: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(words)?;
    line.push(b'\n');
    to.write_all(&line)
}

pub fn hear<W: DeserializeOwned>(from: &mut impl BufRead) -> io::Result<W> {
    let mut line = Vec::new();
    from.take(LONGEST_LINE).read_until(b'\n', &mut line)?;
    match line.last() {
        Some(b'\n') => Ok(serde_json::from_slice(&line)?),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_is_not_believed() {
        assert!(trusted(26, 26) && trusted(0, 26) && trusted(0, 0));
        assert!(!trusted(27, 26) && !trusted(26, 0));
    }

    #[test]
    fn a_line_that_breaks_off_or_never_ends_is_no_answer() {
        assert!(hear::<Answer>(&mut &b"\"Working\"\n"[..]).is_ok());
        assert!(hear::<Answer>(&mut &b"\"Working\""[..]).is_err());
        assert!(hear::<Answer>(&mut &b""[..]).is_err());
        assert!(hear::<Answer>(&mut &vec![b' '; 1 << 20][..]).is_err());
    }

    #[test]
    fn a_file_that_was_written_to_is_another_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("000000010000000000000001");
        fs::write(&path, "before").unwrap();
        let before = Identity::of(&path).unwrap();
        assert_eq!(before, Identity::of(&path).unwrap());
        fs::write(&path, "longer than before").unwrap();
        assert_ne!(before, Identity::of(&path).unwrap());
        // Another file in its place, with its times.
        let other = folder.path().join("other");
        fs::write(&other, "before").unwrap();
        fs::rename(&other, &path).unwrap();
        assert_ne!(before, Identity::of(&path).unwrap());
    }
}
