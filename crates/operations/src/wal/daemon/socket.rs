//! The daemon's socket: one daemon at a time, and nobody else's words.
//!
//! A lock beside the socket says whose it is; it ends with its process, however that ends, so a socket without a daemon is
//! replaced and one with a daemon never. The socket is made under another name, closed to others, and then renamed into place.

use super::words;
use mainstay_domain::{Failure, Kind, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io,
    os::unix::{
        fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

/// The right to listen at a place.
pub struct Place {
    path: PathBuf,
    _lock: File,
}

impl Place {
    /// # Errors
    /// `Busy` if another daemon has it.
    pub fn claim(path: &Path) -> Result<Place> {
        let failed = |error: io::Error| {
            Failure::failed(format!("the socket {} cannot be made", path.display()))
                .hint("Name another place in a folder that this user may write to: --socket PATH, or `wal: { socket: PATH }`.")
                .caused_by(error)
        };
        if let Some(folder) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        }
        let lock = beside(path, "lock");
        let lock = OpenOptions::new().create(true).append(true).mode(0o600).open(&lock).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Place { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => {
                Err(Failure::new(Kind::Busy, format!("another WAL daemon listens on {}", path.display()))
                    .hint("One is enough: `mainstay wal status` shows what it does."))
            }
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    pub fn listen(self) -> Result<Socket> {
        let new = beside(&self.path, "new");
        let listen = || -> io::Result<UnixListener> {
            remove(&new)?;
            let listener = UnixListener::bind(&new)?;
            fs::set_permissions(&new, Permissions::from_mode(0o600))?;
            fs::rename(&new, &self.path)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let listener = listen().map_err(|error| {
            Failure::failed(format!("it is not possible to listen on {}", self.path.display()))
                .hint("A socket's whole path has at most 107 bytes. Name another one: --socket PATH.")
                .caused_by(error)
        })?;
        Ok(Socket { place: self, listener })
    }
}

fn beside(path: &Path, what: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(what);
    name.into()
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

pub struct Socket {
    place: Place,
    listener: UnixListener,
}

impl Socket {
    /// The next who calls, and may; `None` if nobody does for a while.
    pub fn next(&self, a_while: Timespec) -> Result<Option<UnixStream>> {
        let failed = |error: io::Error| {
            Failure::failed(format!("it is not possible to listen on {} any more", self.place.path.display()))
                .caused_by(error)
        };
        match poll(&mut [PollFd::new(&self.listener, PollFlags::IN)], Some(&a_while)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(None),
            Ok(_) => {}
            Err(error) => return Err(failed(error.into())),
        }
        let stream = match self.listener.accept() {
            Ok((stream, _)) => stream,
            // Whoever called has hung up.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionAborted) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(failed(error)),
        };
        stream.set_nonblocking(false).map_err(failed)?;
        Ok(is_ours(&stream).then_some(stream))
    }

    /// Nobody finds it from now on.
    pub fn close(self) {
        drop(fs::remove_file(&self.place.path)); // what is left is replaced by the next
    }
}

/// Whether the other side runs as the user that we are: what we make is its own.
pub fn is_own_user(stream: &UnixStream) -> bool {
    let peer = rustix::net::sockopt::socket_peercred(stream);
    peer.is_ok_and(|peer| peer.uid == rustix::process::geteuid())
}

/// Whether the other side runs as a user whose words may be believed.
pub fn is_ours(stream: &UnixStream) -> bool {
    let peer = rustix::net::sockopt::socket_peercred(stream);
    let own = rustix::process::geteuid().as_raw();
    peer.is_ok_and(|peer| words::trusted(peer.uid.as_raw(), own))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

    #[test]
    fn a_second_daemon_is_told_and_a_dead_ones_socket_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wal.sock");
        // As a process leaves it that was killed.
        drop(UnixListener::bind(&path).unwrap());
        assert!(UnixStream::connect(&path).is_err());
        let socket = Place::claim(&path).unwrap().listen().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Place::claim(&path).err().unwrap().kind, Kind::Busy);
        let _caller = UnixStream::connect(&path).unwrap();
        assert!(socket.next(AT_ONCE).unwrap().is_some());
        assert!(socket.next(AT_ONCE).unwrap().is_none());
        socket.close();
        assert!(!path.exists());
        Place::claim(&path).unwrap().listen().unwrap();
    }
}
