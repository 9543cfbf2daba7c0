//! A replica's full synchronisation: asked for, framed, verified while it streams into the repository, its keys counted.
//!
//! The server announces its snapshot with a length, or, when it sends it without a file of its own (`repl-diskless-sync`), with a
//! mark of 40 random characters that follows the last byte (Redis, `replication.c`). It sends line ends while it prepares.

use super::{
    client::{Client, Value},
    error::RedisError,
    facts::Census,
    rdb::{self, Check, Entry, RdbError, Said, Whole},
};
use crate::postgres::wire::Stream;
use crossbeam_channel::{Receiver, Sender, bounded};
use mainstay_domain::{
    Clock, Failure, Kind, Monitor, Result, Time,
    stream::{Content, Pool, Sink},
};
use std::{
    io::{self, BufReader, Read},
    thread,
};

/// Bytes that pass from the connection to the repository at a time, and how many such parts wait between them.
const BLOCK: usize = 256 << 10;
const WAITING: usize = 8;
const MARK: usize = 40;

/// The replication stream's place at which the snapshot was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Position {
    pub id: String,
    pub offset: u64,
}

/// A synchronisation that the server has agreed to.
pub(super) struct Snapshot {
    stream: BufReader<Stream>,
    frame: Frame,
    /// `None` from servers that know only SYNC (before 2.8).
    pub position: Option<Position>,
    /// When the server said that its snapshot begins.
    pub at: Time,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Frame {
    Bytes(u64),
    Mark([u8; MARK]),
}

/// What was stored.
pub(super) struct Stored {
    pub content: Content,
    pub whole: Whole,
    pub census: Census,
    /// `None`: there is something in it that this version cannot pass over, so nothing was counted.
    pub said: Option<Said>,
}

impl Snapshot {
    /// Asks as a replica of `version` does that knows nothing. `Err` with `is_forbidden`: this service has no replication for us.
    pub fn request(mut client: Client, version: &str, clock: &dyn Clock) -> Result<Snapshot, RedisError> {
        // None is needed: an older server says that it does not know them. But a Valkey since version 9 takes a replica that names no
        // version for an old one, and breaks off at what such a one could not read.
        for (name, value) in [("capa", "eof"), ("rdb-only", "1"), ("version", version)] {
            match client.ask(&["REPLCONF", name, value]) {
                Ok(_) | Err(RedisError::Refused { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        client.send(&[b"PSYNC", b"?", b"-1"])?;
        client.flush()?;
        let answer = said(&mut client)?;
        let words: Vec<&str> = answer.split(' ').collect();
        let position = match words.as_slice() {
            ["+FULLRESYNC", id, offset, ..] => {
                Some(Position { id: (*id).to_owned(), offset: offset.parse().unwrap_or(0) })
            }
            _ if answer.starts_with("-ERR unknown command") => {
                client.send(&[b"SYNC"])?;
                client.flush()?;
                None
            }
            _ => return Err(refused("PSYNC", &answer)),
        };
        let at = clock.now();
        let announced = said(&mut client)?;
        let frame = Frame::read(&announced).ok_or_else(|| refused("SYNC", &announced))?;
        Ok(Snapshot { stream: client.into_stream(), frame, position, at })
    }

    /// Stores the file that comes.
    ///
    /// # Errors
    /// `Verification` if it is not a whole RDB file, `Failed` if the server breaks off, `Cancelled`.
    pub fn store(self, sink: &dyn Sink, monitor: &dyn Monitor) -> Result<Stored> {
        let (sender, receiver) = bounded(WAITING);
        thread::scope(|scope| {
            let reading = scope.spawn(move || self.read(sender, monitor));
            let content = sink.put_reader(Pool::Data, &mut Parts { receiver, part: Vec::new(), at: 0 });
            let read = reading.join().unwrap_or_else(|_| Err(Failure::failed("a reading thread panicked")));
            match (content, read) {
                // What the server did comes first, unless it was only that nobody took its bytes any more.
                (Ok(content), Ok((whole, census, said))) => Ok(Stored { content, whole, census, said }),
                (Err(failure), Err(other)) if is_broken_pipe(&other) => Err(failure),
                (_, Err(failure)) | (Err(failure), Ok(_)) => Err(failure),
            }
        })
    }

    /// Reads to the end and hands on; returns what came by.
    fn read(
        self,
        sender: Sender<io::Result<Vec<u8>>>,
        monitor: &dyn Monitor,
    ) -> Result<(Whole, Census, Option<Said>)> {
        let framed = Framed::new(self.stream, self.frame);
        let mut tee = Tee { from: framed, to: &sender, check: Check::new(), monitor };
        let read = tee.walk();
        let outcome = match read {
            Ok((census, said)) => tee.check.finish().map(|whole| (whole, census, said)).map_err(not_whole),
            Err(failure) => Err(failure),
        };
        if outcome.is_err() {
            // Else the repository would take the end of a broken stream for the end of the file.
            let _ = sender.send(Err(io::Error::other("the snapshot was broken off")));
        }
        outcome
    }
}

fn not_whole(error: RdbError) -> Failure {
    Failure::verification(format!("the snapshot that the server sent is not whole: {error}"))
        .hint("Nothing of it is kept. Run the backup again; if it happens again, look into the server's log.")
}

fn is_broken_pipe(failure: &Failure) -> bool {
    let source = std::error::Error::source(failure).and_then(|error| error.downcast_ref::<io::Error>());
    source.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn refused(command: &str, answer: &str) -> RedisError {
    match answer.strip_prefix('-') {
        Some(message) => RedisError::Refused { command: command.to_owned(), message: message.to_owned() },
        None => {
            RedisError::Protocol(format!("{:?} to {command}", answer.chars().take(80).collect::<String>()))
        }
    }
}

/// The next line that says something: until then the server only shows that it lives.
fn said(client: &mut Client) -> Result<String, RedisError> {
    loop {
        let line = client.line()?;
        if !line.is_empty() {
            return Ok(line);
        }
    }
}

impl Frame {
    fn read(line: &str) -> Option<Frame> {
        let rest = line.strip_prefix('$')?;
        match rest.strip_prefix("EOF:") {
            Some(mark) => Some(Frame::Mark(mark.as_bytes().try_into().ok()?)),
            None => rest.parse().ok().map(Frame::Bytes),
        }
    }
}

/// The bytes of the file, and none of what follows them on the connection.
struct Framed<R> {
    from: R,
    frame: Frame,
    /// Read and not yet handed on: where a mark is awaited, its length is held back.
    held: Vec<u8>,
    ended: bool,
}

impl<R: Read> Framed<R> {
    fn new(from: R, frame: Frame) -> Framed<R> {
        Framed { from, frame, held: Vec::new(), ended: false }
    }

    fn until_mark(&mut self, mark: [u8; MARK], buffer: &mut [u8]) -> io::Result<usize> {
        while !self.ended && self.held.len() <= MARK {
            let before = self.held.len();
            self.held.resize(before + BLOCK, 0);
            let read = self.from.read(&mut self.held[before..])?;
            self.held.truncate(before + read);
            if read == 0 {
                return Err(broken_off());
            }
            let from = before.saturating_sub(MARK);
            let found = self.held[from..].windows(MARK).position(|window| window == mark);
            if let Some(at) = found {
                self.held.truncate(from + at);
                self.ended = true;
            }
        }
        let ready = if self.ended { self.held.len() } else { self.held.len() - MARK };
        let length = ready.min(buffer.len());
        buffer[..length].copy_from_slice(&self.held[..length]);
        self.held.drain(..length);
        Ok(length)
    }
}

fn broken_off() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the server broke its snapshot off")
}

impl<R: Read> Read for Framed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.frame {
            Frame::Bytes(0) => Ok(0),
            Frame::Bytes(left) => {
                let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let read = self.from.read(&mut buffer[..wanted])?;
                if read == 0 && wanted > 0 {
                    return Err(broken_off());
                }
                self.frame = Frame::Bytes(left - read as u64);
                Ok(read)
            }
            Frame::Mark(mark) => self.until_mark(mark, buffer),
        }
    }
}

/// Reads for the walk through the file, and passes the same bytes to the repository.
struct Tee<'a, R> {
    from: Framed<R>,
    to: &'a Sender<io::Result<Vec<u8>>>,
    check: Check,
    monitor: &'a dyn Monitor,
}

impl<R: Read> Tee<'_, R> {
    fn walk(&mut self) -> Result<(Census, Option<Said>)> {
        let mut census = Census::default();
        let mut count = |entry: Entry| {
            census.count(entry.database, entry.kind, entry.expires.is_some());
            Ok::<(), RdbError>(())
        };
        let said = {
            let mut buffered = BufReader::with_capacity(BLOCK, &mut *self);
            rdb::walk(&mut buffered, &mut count)
        };
        let said = match said {
            Ok(said) => Some(said),
            Err(RdbError::UnknownType(_)) => None,
            Err(RdbError::Io(error)) => return Err(self.failure(error)),
            Err(error) => return Err(not_whole(error)),
        };
        // What the walk has not looked at: the checksum, or all that follows what it does not know.
        io::copy(self, &mut io::sink()).map_err(|error| self.failure(error))?;
        Ok((census, said))
    }

    fn failure(&self, error: io::Error) -> Failure {
        if self.monitor.cancelled() {
            return Failure::new(Kind::Cancelled, "the snapshot was stopped");
        }
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::failed("the snapshot was not taken").caused_by(error),
            _ => RedisError::Lost(error).into(),
        }
    }
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.monitor.cancelled() {
            return Err(io::Error::other("stopped"));
        }
        let read = self.from.read(buffer)?;
        if read > 0 {
            self.check.update(&buffer[..read]);
            self.monitor.advance(0, read as u64);
            let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "nobody takes the snapshot any more");
            self.to.send(Ok(buffer[..read].to_vec())).map_err(gone)?;
        }
        Ok(read)
    }
}

/// The receiving end, as a reader.
struct Parts {
    receiver: Receiver<io::Result<Vec<u8>>>,
    part: Vec<u8>,
    at: usize,
}

impl Read for Parts {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.part.len() {
            match self.receiver.recv() {
                Ok(part) => (self.part, self.at) = (part?, 0),
                Err(_) => return Ok(0),
            }
        }
        let length = buffer.len().min(self.part.len() - self.at);
        buffer[..length].copy_from_slice(&self.part[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}

/// Whether the server takes part in replication with us: an answer that starts none.
pub(super) fn is_offered(client: &mut Client) -> Result<bool, RedisError> {
    // COMMAND INFO of a command that is renamed away or forbidden is nil; where COMMAND itself is, only trying tells.
    match client.ask(&["COMMAND", "INFO", "PSYNC"]) {
        Ok(Value::Array(found)) => Ok(found.iter().any(|one| *one != Value::Nil)),
        Ok(_) | Err(RedisError::Refused { .. }) => Ok(true),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives one byte more with each read, so that marks are cut in every place.
    struct Growing<'a>(&'a [u8], usize);

    impl Read for Growing<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 += 1;
            let length = self.1.min(self.0.len()).min(buffer.len());
            buffer[..length].copy_from_slice(&self.0[..length]);
            self.0 = &self.0[length..];
            Ok(length)
        }
    }

    #[test]
    fn a_marked_snapshot_ends_at_its_mark_however_it_arrives() {
        let frame = Frame::read(&format!("$EOF:{}", "7".repeat(MARK))).unwrap();
        let mark = "7".repeat(MARK);
        for length in [0, 1, 39, 40, 41, 500] {
            let file: Vec<u8> = (0..length).map(|n| (n % 50) as u8).collect();
            let sent = [&file[..], mark.as_bytes(), b"*1\r\n$4\r\nPING\r\n"].concat();
            for start in 0..45 {
                let mut found = Vec::new();
                Framed::new(Growing(&sent, start), frame.clone()).read_to_end(&mut found).unwrap();
                assert_eq!(found, file, "{length} bytes, first read {start}");
            }
            let cut = &sent[..length + MARK - 1];
            assert!(Framed::new(Growing(cut, 0), frame.clone()).read_to_end(&mut Vec::new()).is_err());
        }
    }

    #[test]
    fn a_counted_snapshot_ends_at_its_length_and_a_short_one_is_an_error() {
        let framed = |sent: &'static [u8]| Framed::new(sent, Frame::read("$5").unwrap());
        let mut found = Vec::new();
        framed(b"12345*1\r\n").read_to_end(&mut found).unwrap();
        assert_eq!(found, b"12345");
        assert!(framed(b"1234").read_to_end(&mut found).is_err());
        assert_eq!(Frame::read("-ERR no"), None);
        assert_eq!(Frame::read("$EOF:short"), None);
    }
}
