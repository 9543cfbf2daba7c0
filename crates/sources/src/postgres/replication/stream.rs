//! The log as it streams in, and what its receiver says of it.

use super::session::{Trouble, lsn};
use crate::postgres::wire::{CopyBoth, Frame, Rows, WireError};
use mainstay_domain::{Failure, Result, Time, wal::Lsn};
use std::{os::fd::BorrowedFd, time::Duration};

/// Microseconds from 1970 to 2000, where PostgreSQL's times begin.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

/// A timeline that another one follows: its number, and where it begins.
pub type Next = Option<(u32, Lsn)>;

/// What the server answers to the wish for a stream.
pub enum Streamed<'s> {
    Log(LogStream<'s>),
    /// The timeline has no more.
    Nothing(Next),
}

/// What comes in.
#[derive(Debug)]
pub enum Message<'a> {
    Log {
        start: Lsn,
        /// Up to where the server had log to send when it sent this.
        end_there: Lsn,
        bytes: &'a [u8],
    },
    /// The server is there.
    Alive {
        end_there: Lsn,
        /// It wants to hear from us at once.
        reply: bool,
    },
    Quiet,
    /// The timeline ends here: [`LogStream::finish`] says what follows.
    Ended,
}

/// What the receiver says.
#[derive(Debug, Clone, Copy)]
pub struct Status {
    /// Up to where the log is durable here. It is said to be written only as far, too: the server takes the one for the other
    /// with `synchronous_commit = remote_write`.
    pub durable: Lsn,
    pub now: Time,
    /// Ask for an answer.
    pub reply: bool,
}

pub struct LogStream<'s> {
    both: CopyBoth<'s>,
}

impl<'s> LogStream<'s> {
    pub(super) fn new(both: CopyBoth<'s>) -> LogStream<'s> {
        LogStream { both }
    }

    /// What the server sends next. Waits at most `patience`, and not when `wake` can be read.
    pub fn next(&mut self, wake: BorrowedFd<'_>, patience: Duration) -> Result<Message<'_>, Trouble> {
        match self.both.next(wake, patience)? {
            Frame::Data(data) => Ok(read(data)?),
            Frame::Quiet => Ok(Message::Quiet),
            Frame::Ended => Ok(Message::Ended),
        }
    }

    /// Lets the server wait until `wake` can be read, or `patience` is over.
    pub fn pause(&self, wake: BorrowedFd<'_>, patience: Duration) -> Result<(), Trouble> {
        Ok(self.both.pause(wake, patience)?)
    }

    pub fn tell(&mut self, status: &Status) -> Result<(), Trouble> {
        Ok(self.both.send(&written(status))?)
    }

    /// Ends the stream. Says which timeline follows, if this one has ended.
    pub fn finish(self) -> Result<Next, Trouble> {
        Ok(next_timeline(&self.both.finish()?)?)
    }
}

/// `StandbyStatusUpdate`: nothing is applied here, so nothing is said of that.
fn written(status: &Status) -> Vec<u8> {
    let mut message = vec![b'r'];
    for position in [status.durable, status.durable, Lsn(0)] {
        message.extend(position.0.to_be_bytes());
    }
    message.extend((status.now.0 / 1000 - POSTGRES_EPOCH).to_be_bytes());
    message.push(status.reply.into());
    message
}

fn read(data: &[u8]) -> Result<Message<'_>, WireError> {
    let long = |at: usize| data.get(at..)?.first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
    let message = match data.first() {
        // XLogData: start, end, time, log.
        Some(b'w') => data
            .get(25..)
            .and_then(|bytes| Some(Message::Log { start: Lsn(long(1)?), end_there: Lsn(long(9)?), bytes })),
        // Primary keepalive: end, time, whether it wants an answer.
        Some(b'k') => data
            .get(17)
            .and_then(|reply| Some(Message::Alive { end_there: Lsn(long(1)?), reply: *reply != 0 })),
        _ => None,
    };
    message
        .ok_or_else(|| WireError::Protocol("a message of the stream of WAL that makes no sense".to_owned()))
}

pub(super) fn next_timeline(rows: &Rows) -> Result<Next> {
    let Some(row) = rows.iter().next() else { return Ok(None) };
    let timeline = row.text(0).parse().map_err(|_| Failure::failed("the server names no next timeline"))?;
    Ok(Some((timeline, lsn(&row.text(1))?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_those_of_the_protocol() {
        let mut data = vec![b'w'];
        for number in [0x1_0000_0028_u64, 0x1_0000_0030, 7] {
            data.extend(number.to_be_bytes());
        }
        data.extend(b"log");
        let Message::Log { start, end_there, bytes } = read(&data).unwrap() else { panic!("it is log") };
        assert_eq!((start, end_there, bytes), (Lsn(0x1_0000_0028), Lsn(0x1_0000_0030), &b"log"[..]));
        let alive = [&[b'k'][..], &9_u64.to_be_bytes(), &7_u64.to_be_bytes(), &[1]].concat();
        assert!(matches!(read(&alive).unwrap(), Message::Alive { end_there: Lsn(9), reply: true }));
        for broken in [&b""[..], b"k", b"w12345678", b"x"] {
            assert!(read(broken).is_err(), "{broken:?}");
        }
        let status = Status { durable: Lsn(5), now: Time(946_684_800_000_001_000), reply: true };
        let said = written(&status);
        assert_eq!(said.len(), 34);
        assert_eq!((said[8], said[16], said[24], said[32], said[33]), (5, 5, 0, 1, 1));
    }
}
