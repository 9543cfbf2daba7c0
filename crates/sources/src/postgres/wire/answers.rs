//! A command with several answers in a row: results, then a COPY, then results again. A replication session answers
//! `BASE_BACKUP` so.

use super::{
    Connection,
    error::{ServerMessage, WireError},
    rows::Rows,
};
use std::ops::Range;

/// The answers to one command, taken one after the other.
pub struct Answers<'c> {
    connection: &'c mut Connection,
    /// Where the last data lie in the buffer.
    last: Range<usize>,
}

impl Connection {
    /// Sends a command whose answers are to be taken in order.
    pub fn ask(&mut self, command: &str) -> Result<Answers<'_>, WireError> {
        self.send_query(&super::text::encode(command))?;
        self.broken = true; // until the end was reached
        Ok(Answers { connection: self, last: 0..0 })
    }
}

impl Answers<'_> {
    /// The next result.
    pub fn rows(&mut self) -> Result<Rows, WireError> {
        let mut rows = Rows::default();
        loop {
            let (tag, range) = self.connection.next_message()?;
            let body = self.connection.wire.body(range);
            match tag {
                b'T' => rows = Rows::described(body)?,
                b'D' => rows.push(body)?,
                b'C' => return Ok(rows),
                b'E' => return Err(failed(body)),
                tag => return Err(self.connection.confused(tag)),
            }
        }
    }

    /// As [`Answers::rows`], for a result that may take its time: what the server says meanwhile is heard, and not kept.
    pub fn rows_heard(&mut self, hear: &mut dyn FnMut(&ServerMessage)) -> Result<Rows, WireError> {
        let mut rows = Rows::default();
        loop {
            let (tag, length) = self.connection.wire.header()?;
            let range = self.connection.wire.take(length)?;
            let body = self.connection.wire.body(range.clone());
            match tag {
                b'N' => hear(&ServerMessage::parse(body)),
                b'S' | b'A' => self.connection.heed(tag, range),
                b'T' => rows = Rows::described(body)?,
                b'D' => rows.push(body)?,
                b'C' => return Ok(rows),
                b'E' => return Err(failed(body)),
                tag => return Err(self.connection.confused(tag)),
            }
        }
    }

    /// The beginning of a COPY, whose data follow.
    pub fn copy(&mut self) -> Result<(), WireError> {
        let (tag, range) = self.connection.next_message()?;
        match tag {
            b'H' => Ok(()),
            b'E' => Err(failed(self.connection.wire.body(range))),
            tag => Err(self.connection.confused(tag)),
        }
    }

    /// The next message of the COPY; `None` at its end.
    pub fn data(&mut self) -> Result<Option<&[u8]>, WireError> {
        let (tag, range) = self.connection.next_message()?;
        match tag {
            b'd' => {
                self.last = range.clone();
                Ok(Some(self.connection.wire.body(range)))
            }
            b'c' => Ok(None),
            b'E' => Err(failed(self.connection.wire.body(range))),
            tag => Err(self.connection.confused(tag)),
        }
    }

    /// The data that [`Answers::data`] returned last, from an offset on; valid until the next call.
    pub fn last_data(&self, from: usize) -> &[u8] {
        &self.connection.wire.body(self.last.clone())[from..]
    }

    /// Reads to the end of the command.
    pub fn finish(self) -> Result<(), WireError> {
        self.connection.finish_copy().map(drop)
    }
}

/// The rest of the command is not read: the connection is of no further use.
fn failed(body: &[u8]) -> WireError {
    WireError::Server(Box::new(ServerMessage::parse(body)))
}
