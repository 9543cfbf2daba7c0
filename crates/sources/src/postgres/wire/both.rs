//! COPY in both directions at once: how a replication session streams the log (PostgreSQL manual, *Streaming Replication
//! Protocol*).
//!
//! Whoever receives has two things to wait for: what the server sends, and its own reasons to say something. So the socket does
//! not block while it streams, and [`CopyBoth::next`] also ends its wait when another descriptor can be read.

use super::{
    Connection,
    error::{ServerMessage, WireError},
    rows::Rows,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{os::fd::BorrowedFd, time::Duration};

/// What a server answers to a command that may begin a stream.
pub enum Begun<'c> {
    Streaming(CopyBoth<'c>),
    /// There was nothing to stream.
    Rows(Rows),
}

/// What [`CopyBoth::next`] comes back with.
#[derive(Debug)]
pub enum Frame<'a> {
    Data(&'a [u8]),
    /// Nothing came in time, or there is another reason to look up.
    Quiet,
    /// The server has sent everything: [`CopyBoth::finish`] returns what it has to say about that.
    Ended,
}

/// A stream in both directions.
pub struct CopyBoth<'c> {
    connection: &'c mut Connection,
}

impl Connection {
    /// Runs a command that begins a stream in both directions.
    pub fn copy_both(&mut self, command: &str) -> Result<Begun<'_>, WireError> {
        self.send_query(&super::text::encode(command))?;
        let (tag, range) = self.next_message()?;
        match tag {
            b'W' => {
                self.broken = true; // until the end was reached
                self.wire.stream.set_blocking(false).map_err(WireError::Lost)?;
                Ok(Begun::Streaming(CopyBoth { connection: self }))
            }
            b'T' => {
                let rows = Rows::described(self.wire.body(range))?;
                self.rest_of_rows(rows).map(Begun::Rows)
            }
            b'C' => self.rest_of_rows(Rows::default()).map(Begun::Rows),
            b'E' => {
                let error = ServerMessage::parse(self.wire.body(range));
                Err(self.after_error(error))
            }
            tag => Err(self.confused(tag)),
        }
    }

    /// Reads to the end of the command, past what is still being streamed.
    fn rest_of_rows(&mut self, mut rows: Rows) -> Result<Rows, WireError> {
        let mut error = None;
        loop {
            let (tag, range) = self.next_message()?;
            let body = self.wire.body(range);
            match tag {
                b'T' => rows = Rows::described(body)?,
                b'D' => rows.push(body)?,
                b'E' => error = Some(ServerMessage::parse(body)),
                b'd' | b'c' | b'C' => {}
                b'Z' => break,
                tag => return Err(self.confused(tag)),
            }
        }
        self.broken = false;
        error.map_or(Ok(rows), |error| Err(WireError::Server(Box::new(error))))
    }
}

impl CopyBoth<'_> {
    /// The next data of the server. Waits at most `patience`, and not when `wake` can be read.
    pub fn next(&mut self, wake: BorrowedFd<'_>, patience: Duration) -> Result<Frame<'_>, WireError> {
        let mut waited = false;
        loop {
            let Some((tag, range)) = self.connection.wire.poll_frame()? else {
                let server = PollFd::new(&self.connection.wire.stream, PollFlags::IN);
                let wake = PollFd::from_borrowed_fd(wake, PollFlags::IN);
                if waited || !wait(&mut [server, wake], patience)? {
                    return Ok(Frame::Quiet);
                }
                waited = true;
                continue;
            };
            match tag {
                b'd' => return Ok(Frame::Data(self.connection.wire.body(range))),
                b'N' | b'S' | b'A' => self.connection.heed(tag, range),
                b'c' => return Ok(Frame::Ended),
                b'E' => {
                    let error = ServerMessage::parse(self.connection.wire.body(range));
                    self.connection.wire.stream.set_blocking(true).map_err(WireError::Lost)?;
                    return Err(self.connection.after_error(error));
                }
                // A server that shuts down ends the command, and goes.
                b'C' | b'Z' => {
                    let closed = std::io::Error::other("the server ended the stream");
                    return Err(WireError::Lost(closed));
                }
                tag => return Err(self.connection.confused(tag)),
            }
        }
    }

    /// Lets the server wait: until `wake` can be read, or `patience` is over.
    pub fn pause(&self, wake: BorrowedFd<'_>, patience: Duration) -> Result<(), WireError> {
        wait(&mut [PollFd::from_borrowed_fd(wake, PollFlags::IN)], patience).map(drop)
    }

    /// Sends data.
    pub fn send(&mut self, payload: &[u8]) -> Result<(), WireError> {
        let length = u32::try_from(payload.len() + 4).expect("what a receiver says is short");
        let mut message = vec![b'd'];
        message.extend(length.to_be_bytes());
        message.extend_from_slice(payload);
        self.say(&message)
    }

    /// Ends the stream from our side, reads to the end of the command, and returns the rows that the server ends with.
    pub fn finish(self) -> Result<Rows, WireError> {
        let connection = self.connection;
        connection.wire.stream.set_blocking(true).map_err(WireError::Lost)?;
        connection.wire.send(&[b'c', 0, 0, 0, 4])?;
        connection.rest_of_rows(Rows::default())
    }

    fn say(&mut self, message: &[u8]) -> Result<(), WireError> {
        let wire = &mut self.connection.wire;
        wire.stream.set_blocking(true).map_err(WireError::Lost)?;
        wire.send(message)?;
        wire.stream.set_blocking(false).map_err(WireError::Lost)
    }
}

/// Waits for any of these; whether the first of them has something to say.
fn wait(wanted: &mut [PollFd<'_>], patience: Duration) -> Result<bool, WireError> {
    let patience = Timespec {
        tv_sec: i64::try_from(patience.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: patience.subsec_nanos().into(),
    };
    match poll(wanted, Some(&patience)) {
        Ok(_) => Ok(!wanted[0].revents().is_empty()),
        // A signal: a reason to look up.
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(WireError::Lost(error.into())),
    }
}
