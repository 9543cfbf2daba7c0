//! The socket, plain or encrypted, and the one buffer through which everything from the server is read.
//!
//! Frames (tag, length, body) are parsed in place. A frame larger than the buffer is either handed on in parts (rows of a
//! COPY) or makes the buffer grow for its time (everything else, up to [`MAX_FRAME`]).

use super::error::WireError;
use rustls::{ClientConnection, StreamOwned};
use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    ops::Range,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

/// What one `read` may fetch, in bytes.
const BUFFER: usize = 256 << 10;
/// Bytes of a frame's tag and length.
const HEADER: usize = 5;
/// The largest frame that is held in memory whole. Rows of a COPY pass in parts, up to the protocol's own limit.
const MAX_FRAME: usize = 256 << 20;

pub(crate) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    /// Bounds the next reads and writes; `None` waits as long as it takes.
    pub fn set_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Stream::Unix(s) => s.set_read_timeout(timeout).and_then(|()| s.set_write_timeout(timeout)),
            Stream::Tcp(s) => s.set_read_timeout(timeout).and_then(|()| s.set_write_timeout(timeout)),
            Stream::Tls(s) => {
                s.sock.set_read_timeout(timeout).and_then(|()| s.sock.set_write_timeout(timeout))
            }
        }
    }

    /// Whether reads and writes wait.
    pub fn set_blocking(&self, blocking: bool) -> io::Result<()> {
        match self {
            Stream::Unix(s) => s.set_nonblocking(!blocking),
            Stream::Tcp(s) => s.set_nonblocking(!blocking),
            Stream::Tls(s) => s.sock.set_nonblocking(!blocking),
        }
    }

    /// A second handle on the socket, for breaking the connection from another thread.
    pub fn breaker(&self) -> io::Result<Breaker> {
        Ok(match self {
            Stream::Unix(s) => Breaker::Unix(s.try_clone()?),
            Stream::Tcp(s) => Breaker::Tcp(s.try_clone()?),
            Stream::Tls(s) => Breaker::Tcp(s.sock.try_clone()?),
        })
    }

    /// Whether the server has said something that nobody has read. Not known, so false, when encrypted.
    fn has_news(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let news = |fd: PollFd<'_>| matches!(poll(&mut [fd], Some(&now)), Ok(n) if n > 0);
        match self {
            Stream::Unix(s) => news(PollFd::new(s, PollFlags::IN)),
            Stream::Tcp(s) => news(PollFd::new(s, PollFlags::IN)),
            Stream::Tls(_) => false,
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Unix(s) => s.as_fd(),
            Stream::Tcp(s) => s.as_fd(),
            Stream::Tls(s) => s.sock.as_fd(),
        }
    }
}

/// See [`Stream::breaker`].
#[derive(Debug)]
pub(crate) enum Breaker {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Breaker {
    pub fn break_off(&self) {
        // An error means that the connection is gone already.
        let _ = match self {
            Breaker::Unix(s) => s.shutdown(Shutdown::Both),
            Breaker::Tcp(s) => s.shutdown(Shutdown::Both),
        };
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(s) => s.read(buf),
            Stream::Tcp(s) => s.read(buf),
            Stream::Tls(s) => s.read(buf),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(s) => s.write(buf),
            Stream::Tcp(s) => s.write(buf),
            Stream::Tls(s) => s.write(buf),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Unix(s) => s.flush(),
            Stream::Tcp(s) => s.flush(),
            Stream::Tls(s) => s.flush(),
        }
    }
}

/// A stream with its read buffer: bytes `start..end` are read and not yet used.
pub(super) struct Wire {
    pub stream: Stream,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Wire {
    pub fn new(stream: Stream) -> Wire {
        Wire { stream, buffer: vec![0; BUFFER], start: 0, end: 0 }
    }

    /// Gives the stream back for encryption. Nothing may have been read ahead: bytes sent before the handshake are an
    /// attack (CVE-2021-23222).
    pub fn into_stream(self) -> Result<Stream, WireError> {
        if self.start != self.end {
            return Err(WireError::protocol("bytes before the TLS handshake"));
        }
        Ok(self.stream)
    }

    /// Whether a frame has at least begun to arrive.
    pub fn has_news(&self) -> bool {
        self.start < self.end || self.stream.has_news()
    }

    pub fn send(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        self.stream.write_all(bytes).and_then(|()| self.stream.flush()).map_err(WireError::Lost)
    }

    /// Reads until at least `wanted` bytes are there.
    fn fill(&mut self, wanted: usize) -> Result<(), WireError> {
        if self.end - self.start >= wanted {
            return Ok(());
        }
        self.make_room(wanted);
        while self.end - self.start < wanted {
            self.read_some()?;
        }
        Ok(())
    }

    /// Reads what is there. Of a stream that does not block, it is an error if nothing is.
    fn read_some(&mut self) -> Result<(), WireError> {
        match self.stream.read(&mut self.buffer[self.end..]) {
            Ok(0) => Err(WireError::Lost(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the server closed the connection",
            ))),
            Ok(n) => {
                self.end += n;
                Ok(())
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(e) => Err(WireError::Lost(e)),
        }
    }

    /// Makes the buffer long enough for `wanted` bytes in a row.
    fn make_room(&mut self, wanted: usize) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.buffer.len() > BUFFER && wanted <= BUFFER {
                self.buffer = vec![0; BUFFER]; // a giant has passed
            }
        } else if self.start + wanted.max(BUFFER / 4) > self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        }
    }

    /// The next frame if all of it has arrived; the stream must not block.
    pub fn poll_frame(&mut self) -> Result<Option<(u8, Range<usize>)>, WireError> {
        loop {
            let there = self.end - self.start;
            let mut wanted = HEADER;
            if there >= HEADER {
                let (tag, length) = self.parse_header()?;
                if length > MAX_FRAME {
                    return Err(WireError::protocol(format!("a message of {length} bytes")));
                }
                wanted += length;
                if there >= wanted {
                    self.start += wanted;
                    return Ok(Some((tag, self.start - length..self.start)));
                }
            }
            self.make_room(wanted);
            match self.read_some() {
                Ok(()) => {}
                Err(WireError::Lost(error)) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// Tag and length of the body of the frame at hand, whose first bytes are there.
    #[inline]
    fn parse_header(&self) -> Result<(u8, usize), WireError> {
        let head = &self.buffer[self.start..self.start + HEADER];
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if !(4..=i32::MAX as usize).contains(&length) {
            return Err(WireError::protocol(format!("a message of {length} bytes")));
        }
        Ok((head[0], length - 4))
    }

    /// One byte outside any frame: the answer to an SSLRequest.
    pub fn byte(&mut self) -> Result<u8, WireError> {
        self.fill(1)?;
        self.start += 1;
        Ok(self.buffer[self.start - 1])
    }

    /// The next frame's tag and the length of its body; the body is still to be read.
    #[inline]
    pub fn header(&mut self) -> Result<(u8, usize), WireError> {
        self.fill(HEADER)?;
        let parsed = self.parse_header()?;
        self.start += HEADER;
        Ok(parsed)
    }

    /// The whole body of the frame whose header was read; valid (see [`Wire::body`]) until the next call.
    pub fn take(&mut self, length: usize) -> Result<Range<usize>, WireError> {
        if length > MAX_FRAME {
            return Err(WireError::protocol(format!("a message of {length} bytes")));
        }
        self.fill(length)?;
        let range = self.start..self.start + length;
        self.start += length;
        Ok(range)
    }

    pub fn body(&self, range: Range<usize>) -> &[u8] {
        &self.buffer[range]
    }

    /// Hands the body of the frame whose header was read to `each`: whole if it fits the buffer, else in parts. The flag
    /// says that the body ends with this part.
    #[inline]
    pub fn pass<E>(
        &mut self,
        length: usize,
        each: &mut impl FnMut(&[u8], bool) -> Result<(), E>,
    ) -> Result<Result<(), E>, WireError> {
        if self.end - self.start >= length || length <= BUFFER {
            let range = self.take(length)?;
            return Ok(each(&self.buffer[range], true));
        }
        let mut left = length;
        while left > 0 {
            self.fill(left.min(BUFFER))?;
            let part = left.min(self.end - self.start);
            left -= part;
            let range = self.start..self.start + part;
            self.start += part;
            if let Err(e) = each(&self.buffer[range], left == 0) {
                return Ok(Err(e));
            }
        }
        Ok(Ok(()))
    }
}
