//! COPY, out and in.
//!
//! Out: each CopyData message of the server is one row in text format (and of a base backup, one block); it is handed over
//! from the read buffer, whole unless it is larger than the buffer. In: rows are gathered into messages of
//! [`MESSAGE`] bytes, since the server does not care where they are cut.

use super::{
    Connection,
    error::{ServerMessage, WireError},
    rows,
};
use mainstay_domain::Failure;

/// Bytes of one CopyData message that we send.
const MESSAGE: usize = 256 << 10;

impl Connection {
    /// Runs `COPY … TO STDOUT`. `each` gets the bytes of a row, newline included; the flag is false while a row larger than
    /// the buffer goes on. Returns the row count that the server states at the end.
    ///
    /// When `each` fails the transfer stops, and the connection can only be dropped.
    pub fn copy_out(
        &mut self,
        sql: &str,
        mut each: impl FnMut(&[u8], bool) -> Result<(), Failure>,
    ) -> Result<u64, WireError> {
        self.send_query(&super::text::encode(sql))?;
        let (tag, range) = self.next_message()?;
        match tag {
            b'H' => {}
            b'E' => {
                let error = ServerMessage::parse(self.wire.body(range));
                return Err(self.after_error(error));
            }
            tag => return Err(self.confused(tag)),
        }
        self.broken = true; // until the end was reached
        loop {
            let (tag, length) = self.header()?;
            if tag == b'd' {
                if let Err(failure) = self.wire.pass(length, &mut each)? {
                    self.breaker.break_off();
                    return Err(WireError::Caller(failure));
                }
                continue;
            }
            let range = self.wire.take(length)?;
            match tag {
                b'c' => break,
                b'E' => {
                    let error = ServerMessage::parse(self.wire.body(range));
                    return Err(self.after_error(error));
                }
                tag => return Err(self.confused(tag)),
            }
        }
        self.finish_copy()
    }

    /// Runs `COPY … FROM STDIN`: what `feed` writes is sent. Returns the rows that the server took.
    ///
    /// When `feed` fails, the server is told so and undoes the COPY; the session goes on.
    pub fn copy_in(
        &mut self,
        sql: &str,
        feed: impl FnOnce(&mut CopyIn<'_>) -> Result<(), Failure>,
    ) -> Result<u64, WireError> {
        self.copy_in_bytes(&super::text::encode(sql), feed)
    }

    /// As [`Connection::copy_in`], for a statement in the session's `client_encoding`, which need not be UTF-8.
    pub fn copy_in_bytes(
        &mut self,
        sql: &[u8],
        feed: impl FnOnce(&mut CopyIn<'_>) -> Result<(), Failure>,
    ) -> Result<u64, WireError> {
        self.send_query(sql)?;
        let (tag, range) = self.next_message()?;
        match tag {
            b'G' => {}
            b'E' => {
                let error = ServerMessage::parse(self.wire.body(range));
                return Err(self.after_error(error));
            }
            tag => return Err(self.confused(tag)),
        }
        self.broken = true;
        let mut copy = CopyIn { connection: self, buffer: new_message(), failed: None };
        let fed = feed(&mut copy);
        let CopyIn { buffer, failed, .. } = copy;
        if let Some(error) = failed {
            // The server has given up and is ready again, once it has skipped what was under way.
            return Err(match error {
                WireError::Server(message) => self.after_error(*message),
                error => error,
            });
        }
        match fed {
            Ok(()) => {
                let mut buffer = buffer;
                seal(&mut buffer);
                buffer.extend([b'c', 0, 0, 0, 4]);
                self.wire.send(&buffer)?;
                self.finish_copy()
            }
            Err(failure) => {
                self.wire.send(&[b'f', 0, 0, 0, 5, 0])?; // CopyFail
                match self.finish_copy() {
                    Err(WireError::Server(_)) | Ok(_) => Err(WireError::Caller(failure)),
                    Err(error) => Err(error),
                }
            }
        }
    }

    /// Reads to the end of the statement.
    pub(super) fn finish_copy(&mut self) -> Result<u64, WireError> {
        let mut touched = 0;
        let mut error = None;
        loop {
            let (tag, range) = match (self.next_message(), error) {
                (Ok(message), earlier) => {
                    error = earlier;
                    message
                }
                // A session that the server ends: this is the reason, and the connection stays broken.
                (Err(WireError::Lost(_)), Some(reason)) => return Err(WireError::Server(Box::new(reason))),
                (Err(lost), _) => return Err(lost),
            };
            match tag {
                b'C' => touched = rows::touched(self.wire.body(range)),
                b'E' => error = Some(ServerMessage::parse(self.wire.body(range))),
                b'Z' => break,
                tag => return Err(self.confused(tag)),
            }
        }
        self.broken = false;
        error.map_or(Ok(touched), |e| Err(WireError::Server(Box::new(e))))
    }

    /// After an error: the rest of the statement, and the error.
    pub(super) fn after_error(&mut self, error: ServerMessage) -> WireError {
        match self.finish_copy() {
            Ok(_) | Err(WireError::Server(_)) => WireError::Server(Box::new(error)),
            Err(lost) if error.severity == "ERROR" => lost,
            Err(_) => WireError::Server(Box::new(error)), // FATAL: the server explained itself and went
        }
    }
}

/// Where the rows of a COPY FROM STDIN are written.
pub struct CopyIn<'a> {
    connection: &'a mut Connection,
    /// A CopyData message: five bytes for its header, then rows.
    buffer: Vec<u8>,
    failed: Option<WireError>,
}

fn new_message() -> Vec<u8> {
    let mut buffer = Vec::with_capacity(MESSAGE + 5);
    buffer.extend([b'd', 0, 0, 0, 0]);
    buffer
}

/// Writes the length into the message's header.
fn seal(buffer: &mut [u8]) {
    let length = u32::try_from(buffer.len() - 1).expect("a message is bounded by MESSAGE");
    buffer[1..5].copy_from_slice(&length.to_be_bytes());
}

impl CopyIn<'_> {
    /// Sends bytes; they may begin and end anywhere.
    ///
    /// # Errors
    /// When the server has already refused the data, or is gone; `copy_in` then returns the reason.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        while !bytes.is_empty() {
            let room = MESSAGE + 5 - self.buffer.len();
            let (now, rest) = bytes.split_at(room.min(bytes.len()));
            self.buffer.extend_from_slice(now);
            bytes = rest;
            if self.buffer.len() == MESSAGE + 5 {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Failure> {
        seal(&mut self.buffer);
        let outcome = self.connection.wire.send(&self.buffer);
        self.buffer.truncate(5);
        outcome.and_then(|()| self.listen()).map_err(|error| {
            let text = error.to_string();
            self.failed = Some(error);
            Failure::failed(text)
        })
    }
}

impl CopyIn<'_> {
    /// Hears what the server has said meanwhile, without waiting: an error is best heard early (a broken row at the start
    /// of 100 GB), and notices that nobody reads would make the server wait for us.
    fn listen(&mut self) -> Result<(), WireError> {
        while self.connection.wire.has_news() {
            let (tag, length) = self.connection.wire.header()?;
            match tag {
                b'N' | b'S' | b'A' => self.connection.absorb(tag, length)?,
                b'E' => {
                    let range = self.connection.wire.take(length)?;
                    let error = ServerMessage::parse(self.connection.wire.body(range));
                    return Err(WireError::Server(Box::new(error)));
                }
                tag => return Err(self.connection.confused(tag)),
            }
        }
        Ok(())
    }
}

impl std::io::Write for CopyIn<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        CopyIn::write(self, bytes).map_err(std::io::Error::other)?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
