//! Reads one file so that what is recorded is what it held at one instant, or says that it may not be.
//!
//! A file is looked at before and after it is read; if anything differs it is read again, [`ATTEMPTS`] times in all, and
//! then recorded as it came last, with a doubt. At most the size first seen is read, so a file that keeps growing ends.

use super::{
    attributes,
    hardlinks::{HardLinks, Turn, renamed},
    sparse,
    stat::Stat,
    stat::unreadable,
    tree::open_in,
    walk::quietly,
};
use mainstay_domain::{
    ChunkId, Failure, Monitor, Result, Time,
    listing::{Doubt, Entry, FileKind},
    stream::{Content, Piece, Pool, Sink},
};
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{AtFlags, Mode, OFlags, fstat, readlinkat, statat},
    io::Errno,
};
use std::io::Read;

/// Readings of a file that changes under the reader.
pub(crate) const ATTEMPTS: u32 = 3;

/// Files up to this size are one chunk, read at once: below every repository's smallest cut, so cutting by content would
/// make the same of them.
pub(crate) const SMALL: u64 = 64 << 10;

/// Progress of a big file is reported in steps of this many bytes.
const REPORTED: u64 = 8 << 20;

/// A moment at which a test may change the file being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Before it is opened.
    Found,
    /// Read, but not looked at again yet.
    Read,
}

/// Called with the name of each file at each [`Moment`]; tests put their changes here.
pub type Hook<'a> = &'a (dyn Fn(Moment, &[u8]) + Sync);

pub(crate) struct Reader<'a> {
    sink: &'a dyn Sink,
    monitor: &'a dyn Monitor,
    hook: Option<Hook<'a>>,
    links: &'a HardLinks,
    attributes: attributes::Reader,
    buffer: Vec<u8>,
}

/// What became of one name.
#[derive(Debug)]
pub(crate) enum Reading {
    Entry {
        entry: Box<Entry>,
        /// Bytes whose progress was not reported yet.
        unreported: u64,
        trouble: Option<std::io::Error>,
    },
    /// It is gone.
    Vanished,
}

impl<'a> Reader<'a> {
    pub fn new(
        sink: &'a dyn Sink,
        monitor: &'a dyn Monitor,
        hook: Option<Hook<'a>>,
        links: &'a HardLinks,
    ) -> Reader<'a> {
        let attributes = attributes::Reader::default();
        Reader { sink, monitor, hook, links, attributes, buffer: Vec::new() }
    }

    /// Reads `name` in `directory` (an empty name: the directory itself), which looked like `stat` a while ago.
    pub fn read(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &[u8],
        recorded: &[u8],
        stat: &Stat,
        now: Time,
    ) -> Result<Reading> {
        let mut stat = *stat;
        let mut attempt = 1;
        let mut shared = None;
        if stat.kind == FileKind::Regular && stat.links > 1 {
            match self.links.turn(&stat) {
                Turn::Read(reading) => shared = Some(reading),
                Turn::Known(entry) => {
                    let (entry, unreported) = renamed(entry, recorded);
                    return Ok(Reading::Entry { entry, unreported, trouble: None });
                }
            }
        }
        loop {
            self.tell(Moment::Found, recorded);
            let tried = match stat.kind {
                FileKind::Regular => self.regular(directory, name, recorded, &stat, now)?,
                _ => self.other(directory, name, recorded, &stat, now),
            };
            let (mut entry, unreported, later) = match tried {
                Ok(done) => done,
                Err(Errno::NOENT) => return Ok(Reading::Vanished),
                Err(error) => match look(directory, name) {
                    Err(Errno::NOENT) => return Ok(Reading::Vanished),
                    // It became something else (a link, a socket).
                    Ok(newer) if newer.kind != stat.kind && attempt < ATTEMPTS => {
                        stat = newer;
                        attempt += 1;
                        continue;
                    }
                    _ => return Ok(failed(&stat, recorded, now, error)),
                },
            };
            if stat.same_state(&later) {
                if let Some(shared) = shared {
                    shared.known(&stat, &entry);
                }
                return Ok(Reading::Entry { entry, unreported, trouble: None });
            }
            if attempt == ATTEMPTS {
                entry.doubt = Some(Doubt::ChangedWhileRead);
                return Ok(Reading::Entry { entry, unreported, trouble: None });
            }
            attempt += 1;
            stat = later;
        }
    }

    fn tell(&self, moment: Moment, name: &[u8]) {
        if let Some(hook) = self.hook {
            hook(moment, name);
        }
    }

    /// The entry, the bytes not yet reported, and how it looks afterwards. The outer error ends the backup.
    #[allow(clippy::type_complexity)]
    fn regular(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &[u8],
        recorded: &[u8],
        stat: &Stat,
        now: Time,
    ) -> Result<std::result::Result<(Box<Entry>, u64, Stat), Errno>> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let fd = match quietly(|quiet| open_in(directory, name, flags | quiet, Mode::empty())) {
            Ok(fd) => fd,
            Err(error) => return Ok(Err(error)),
        };
        let mut entry = Box::new(stat.entry(recorded, now));
        let (content, unreported) = match self.content(&fd, stat)? {
            Ok(read) => read,
            Err(error) => return Ok(Err(error)),
        };
        self.tell(Moment::Read, recorded);
        let later = match fstat(&fd) {
            Ok(later) => Stat::new(&later),
            Err(error) => return Ok(Err(error)),
        };
        match self.attributes.of_file(&fd) {
            Ok(xattrs) => entry.xattrs = xattrs,
            Err(error) => return Ok(Err(error)),
        }
        entry.size = content.bytes();
        entry.content = Some(content);
        Ok(Ok((entry, unreported, later)))
    }

    fn content(&mut self, fd: &OwnedFd, stat: &Stat) -> Result<std::result::Result<(Content, u64), Errno>> {
        if stat.size == 0 {
            return Ok(Ok((Content::default(), 0)));
        }
        if stat.size <= SMALL {
            return match read_whole(fd, &mut self.buffer, stat.size as usize) {
                Ok([]) => Ok(Ok((Content::default(), 0))),
                Ok(bytes) => {
                    let length = bytes.len() as u64;
                    let chunk = self.sink.put(Pool::Data, bytes)?;
                    Ok(Ok((one_piece(chunk, length), length)))
                }
                Err(error) => Ok(Err(error)),
            };
        }
        let mut source = Source { fd, monitor: self.monitor, left: stat.size, unreported: 0, error: None };
        let content = if stat.allocated < stat.size {
            sparse::put(self.sink, &mut source, stat.size)
        } else {
            self.sink.put_reader(Pool::Data, &mut source)
        };
        match (content, source.error) {
            (_, Some(Trouble::Cancelled)) => Err(super::FilesError::Cancelled.into()),
            (_, Some(Trouble::Errno(error))) => Ok(Err(error)),
            (Ok(content), None) => Ok(Ok((content, source.unreported))),
            (Err(failure), None) => Err(failure),
        }
    }

    fn other(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &[u8],
        recorded: &[u8],
        stat: &Stat,
        now: Time,
    ) -> std::result::Result<(Box<Entry>, u64, Stat), Errno> {
        let mut entry = Box::new(stat.entry(recorded, now));
        if stat.kind == FileKind::Symlink {
            let target = readlinkat(directory, name, std::mem::take(&mut self.buffer))?;
            entry.target = Some(target.as_bytes().to_vec());
            self.buffer = target.into_bytes();
        }
        let xattrs = self.attributes.of_name(directory, if name.is_empty() { b"." } else { name });
        self.tell(Moment::Read, recorded);
        let mut later = look(directory, name)?;
        entry.xattrs = match xattrs {
            // It is there, so it is `/proc` that is not: nobody can say what attributes it has.
            Err(Errno::NOENT) => None,
            xattrs => xattrs?,
        };
        if stat.kind == FileKind::Directory && later.kind == FileKind::Directory {
            // Files come and go in a directory; that is no reason to read its attributes again.
            later = *stat;
        }
        Ok((entry, 0, later))
    }
}

fn failed(stat: &Stat, recorded: &[u8], now: Time, error: Errno) -> Reading {
    let entry = Box::new(unreadable(stat, recorded, now));
    Reading::Entry { entry, unreported: 0, trouble: Some(error.into()) }
}

fn look(directory: BorrowedFd<'_>, name: &[u8]) -> std::result::Result<Stat, Errno> {
    let stat = match name {
        b"" => fstat(directory)?,
        name => statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?,
    };
    Ok(Stat::new(&stat))
}

pub(crate) fn one_piece(chunk: ChunkId, bytes: u64) -> Content {
    Content { level: 0, pieces: vec![Piece::plain(chunk, bytes)] }
}

fn read_whole<'b>(
    fd: &OwnedFd,
    buffer: &'b mut Vec<u8>,
    size: usize,
) -> std::result::Result<&'b [u8], Errno> {
    if buffer.len() < size {
        buffer.resize(SMALL as usize, 0);
    }
    let mut length = 0;
    while length < size {
        match rustix::io::read(fd, &mut buffer[length..size]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(&buffer[..length])
}

enum Trouble {
    Errno(Errno),
    Cancelled,
}

/// A file as the sink reads it: ends at the size first seen, reports progress, and keeps its error, so that a file that
/// cannot be read is told from a sink that cannot write.
pub(crate) struct Source<'a> {
    fd: &'a OwnedFd,
    monitor: &'a dyn Monitor,
    left: u64,
    unreported: u64,
    error: Option<Trouble>,
}

impl Source<'_> {
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Sets how many bytes may still be read from where the file stands.
    pub fn limit(&mut self, bytes: u64) {
        self.left = bytes;
    }

    pub fn fail(&mut self, error: Errno) -> Failure {
        self.error = Some(Trouble::Errno(error));
        Failure::failed("a file could not be read")
    }
}

impl Read for Source<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let wanted = out.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        if self.monitor.cancelled() {
            self.error = Some(Trouble::Cancelled);
            return Err(std::io::Error::other("cancelled"));
        }
        loop {
            match rustix::io::read(self.fd, &mut out[..wanted]) {
                Ok(read) => {
                    self.left -= read as u64;
                    self.unreported += read as u64;
                    if self.unreported >= REPORTED {
                        self.monitor.event(mainstay_domain::monitor::Event::Advance {
                            items: 0,
                            bytes: std::mem::take(&mut self.unreported),
                        });
                    }
                    return Ok(read);
                }
                Err(Errno::INTR) => {}
                Err(error) => {
                    self.error = Some(Trouble::Errno(error));
                    return Err(error.into());
                }
            }
        }
    }
}
