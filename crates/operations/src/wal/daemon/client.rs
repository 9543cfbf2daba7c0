//! How `wal push` and `wal fetch` ask the daemon, and go on by themselves when it is of no help.
//!
//! Whatever is wrong with a daemon (none there, killed, hung, of another version, another configuration or another user) costs
//! time at worst, never a push or a fetch.

use super::{
    prefetch::Fetched,
    words::{self, Answer, Ask, Call, Destination, Identity, Status},
};
use crate::{config::Config, wal::daemon::Whereabouts};
use mainstay_domain::{Failure, Result, wal::WalFile};
use mainstay_repository::wal::Put;
use std::{
    fs,
    io::{self, BufReader, Read},
    os::unix::{fs::MetadataExt, net::UnixStream},
    path::Path,
};

/// What came of asking.
#[derive(Debug)]
pub enum Asked<T> {
    /// The daemon has done it.
    Done(T),
    /// There is a daemon, or something that looks like one, and it was of no help.
    Declined(String),
    /// Nobody listens.
    Nobody,
}

/// Asks for a file to be archived.
pub fn push(place: &Whereabouts, config: &Config, path: &Path) -> Asked<Put> {
    let ask = || -> io::Result<Ask> {
        let path = std::path::absolute(path)?;
        Ok(Ask::Push { identity: Identity::of(&path)?, path })
    };
    ask_for(place, config, ask, |answer, _| match answer {
        Answer::Durable { stored } => Ok(stored.map_or(Put::Known, Put::Stored)),
        _ => Err(nonsense()),
    })
}

/// Asks for a file of a cluster that is to come to `path`.
pub fn fetch(
    place: &Whereabouts,
    config: &Config,
    file: &WalFile,
    system: u64,
    path: &Path,
) -> Asked<Fetched> {
    let ask = || {
        Ok(Ask::Fetch { file: file.to_string(), system, to: Destination::of(&std::path::absolute(path)?)? })
    };
    ask_for(place, config, ask, |answer, stream| match answer {
        Answer::Content { bytes } => {
            // The daemon is believed, within reason: a segment has at most 1 GiB.
            let mut content = Vec::with_capacity(bytes.min(1 << 30) as usize);
            stream.take(bytes).read_to_end(&mut content)?;
            match content.len() as u64 == bytes {
                true => Ok(Fetched::Content(content)),
                false => Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        Answer::Placed { bytes, inode } => {
            let there = fs::metadata(path)?;
            match (there.ino(), there.len()) == (inode, bytes) {
                true => Ok(Fetched::Placed { bytes, inode }),
                false => Err(nonsense()),
            }
        }
        _ => Err(nonsense()),
    })
}

/// Asks a daemon what it has done. `None`: there is none.
///
/// # Errors
/// If what listens there is no daemon of ours.
pub fn status(place: &Whereabouts, config: &Config) -> Result<Option<Status>> {
    let asked = ask_for(
        place,
        config,
        || Ok(Ask::Status),
        |answer, _| match answer {
            Answer::Status(status) => Ok(status),
            _ => Err(nonsense()),
        },
    );
    match asked {
        Asked::Done(status) => Ok(Some(status)),
        Asked::Nobody => Ok(None),
        Asked::Declined(why) => Err(Failure::failed(format!("the WAL daemon is not used: {why}"))
            .hint("Archiving goes on without it. Stop it, and start it again with this version and this configuration.")),
    }
}

fn nonsense() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "its answer makes no sense")
}

fn ask_for<T>(
    place: &Whereabouts,
    config: &Config,
    ask: impl FnOnce() -> io::Result<Ask>,
    understand: impl FnOnce(Answer, &mut BufReader<UnixStream>) -> io::Result<T>,
) -> Asked<T> {
    let Some(socket) = &place.socket else { return Asked::Nobody };
    let Ok(stream) = UnixStream::connect(socket) else { return Asked::Nobody };
    if !super::socket::is_ours(&stream) {
        return Asked::Declined(format!("{} belongs to another user", socket.display()));
    }
    let converse = || -> io::Result<Result<T, String>> {
        stream.set_read_timeout(Some(words::PATIENCE))?;
        stream.set_write_timeout(Some(words::PATIENCE))?;
        let call = Call {
            version: words::VERSION.into(),
            configuration: configuration(config, place)?,
            ask: ask()?,
        };
        words::say(&mut &stream, &call)?;
        let mut stream = BufReader::with_capacity(1 << 16, stream);
        loop {
            match words::hear(&mut stream)? {
                Answer::Working => {}
                Answer::Declined { why } => return Ok(Err(why)),
                answer => return understand(answer, &mut stream).map(Ok),
            }
        }
    };
    match converse() {
        Ok(Ok(done)) => Asked::Done(done),
        Ok(Err(why)) => Asked::Declined(why),
        Err(error) => Asked::Declined(error.to_string()),
    }
}

/// Two that say the same here mean the same repository by the same way.
pub fn configuration(config: &Config, place: &Whereabouts) -> io::Result<String> {
    let mut hash = blake3::Hasher::new();
    hash.update(place.app.as_bytes()).update(b"\0").update(&fs::read(config.path())?);
    Ok(hash.finalize().to_hex().to_string())
}
