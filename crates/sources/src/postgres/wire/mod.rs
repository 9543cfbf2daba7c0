//! A blocking PostgreSQL client: sessions, simple statements with text results, COPY in both directions.
//!
//! Written for one purpose, moving whole tables at the speed of the server: COPY rows are handed over from the read buffer
//! without an allocation per row. Statements use the simple query protocol; values go into the text through
//! [`quote_literal`]. A [`Connection`] belongs to one thread; a [`Canceller`] ends its work from another.

mod answers;
mod both;
mod conninfo;
mod copy;
mod error;
mod pooler;
mod quote;
mod rows;
mod spec;
mod startup;
mod stream;
pub(super) mod text;
mod tls;

pub use answers::Answers;
pub use both::{Begun, CopyBoth, Frame};
pub(crate) use conninfo::percent_decode;
pub use copy::CopyIn;
pub use error::{ServerMessage, WireError};
pub use pooler::refuse_transaction_pooler;
pub use quote::{quote_ident, quote_literal, quote_qualified};
pub use rows::{Row, Rows};
pub use spec::{ConnectSpec, Environment, Host, TlsMode, process_environment};
pub(crate) use stream::Stream;
pub(crate) use tls::{TlsFailure, handshake};

use std::{collections::BTreeMap, fmt, ops::Range, sync::Arc, time::Duration};
use stream::{Breaker, Wire};

/// Where a session stands between statements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionState {
    Idle,
    Open,
    /// Only ROLLBACK helps.
    Failed,
}

/// A session with a server.
pub struct Connection {
    wire: Wire,
    spec: ConnectSpec,
    parameters: BTreeMap<String, String>,
    process_id: i32,
    secret_key: Vec<u8>,
    encrypted: bool,
    transaction: TransactionState,
    notices: Vec<ServerMessage>,
    breaker: Arc<Breaker>,
    /// A transfer was left half way: the next statement would read its rest.
    broken: bool,
}

/// At most this many notices are kept until somebody takes them.
const MAX_NOTICES: usize = 100;

impl Connection {
    /// Opens a session.
    ///
    /// # Errors
    /// `Connect` or `Refused`, each with a hint for what users commonly get wrong.
    pub fn connect(spec: &ConnectSpec) -> Result<Connection, WireError> {
        let session = startup::open(spec)?;
        let breaker = Arc::new(session.wire.stream.breaker().map_err(WireError::Lost)?);
        Ok(Connection {
            wire: session.wire,
            spec: spec.clone(),
            parameters: session.parameters.into_iter().collect(),
            process_id: session.process_id,
            secret_key: session.secret_key,
            encrypted: session.encrypted,
            transaction: TransactionState::Idle,
            notices: Vec::new(),
            breaker,
            broken: false,
        })
    }

    /// Bounds how long an answer may stay away; what waits longer fails as a lost connection. `None`, as after
    /// [`connect`](Connection::connect), waits as long as it takes.
    pub fn set_patience(&mut self, patience: Option<Duration>) -> Result<(), WireError> {
        self.wire.stream.set_timeout(patience).map_err(WireError::Lost)
    }

    pub fn spec(&self) -> &ConnectSpec {
        &self.spec
    }

    /// What the server reported: `server_version`, `server_encoding`, `TimeZone` …
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// `server_version_num`, from the reported version: 150014 for 15.14, 180000 for `18beta1`.
    pub fn server_version_num(&self) -> u32 {
        let text = self.parameter("server_version").unwrap_or_default();
        let mut numbers =
            text.split(|c: char| !c.is_ascii_digit()).map(|digits| digits.parse::<u32>().unwrap_or(0));
        let major = numbers.next().unwrap_or(0);
        let release = text.trim_start_matches(|c: char| c.is_ascii_digit()).starts_with('.');
        let minor = if release { numbers.next().unwrap_or(0) } else { 0 };
        if major < 10 { major * 10_000 + minor * 100 } else { major * 10_000 + minor }
    }

    pub fn encrypted(&self) -> bool {
        self.encrypted
    }

    /// The server process, as the handshake named it. A pooler names one of its own.
    pub fn process_id(&self) -> i32 {
        self.process_id
    }

    pub fn transaction(&self) -> TransactionState {
        self.transaction
    }

    /// The notices since they were last taken.
    pub fn take_notices(&mut self) -> Vec<ServerMessage> {
        std::mem::take(&mut self.notices)
    }

    /// Runs one or several statements and returns the rows of the last one that has any.
    pub fn query(&mut self, sql: &str) -> Result<Rows, WireError> {
        Ok(self.run(sql)?.0)
    }

    /// Runs one or several statements; returns how many rows the last one touched.
    pub fn execute(&mut self, sql: &str) -> Result<u64, WireError> {
        Ok(self.run(sql)?.1)
    }

    /// The first column of the first row.
    pub fn query_text(&mut self, sql: &str) -> Result<Option<String>, WireError> {
        Ok(self.query(sql)?.iter().next().and_then(|row| row.opt(0)))
    }

    /// As [`Connection::execute`], for statements in the session's `client_encoding`, which need not be UTF-8.
    pub fn execute_bytes(&mut self, sql: &[u8]) -> Result<u64, WireError> {
        Ok(self.run_bytes(sql)?.1)
    }

    fn run(&mut self, sql: &str) -> Result<(Rows, u64), WireError> {
        self.run_bytes(&text::encode(sql))
    }

    fn run_bytes(&mut self, sql: &[u8]) -> Result<(Rows, u64), WireError> {
        self.send_query(sql)?;
        let mut rows = Rows::default();
        let mut touched = 0;
        let mut error: Option<ServerMessage> = None;
        loop {
            let (tag, range) = match (self.next_message(), &mut error) {
                (Ok(message), _) => message,
                // A server that ends the session says why, and goes.
                (Err(WireError::Lost(_)), Some(last_words)) => {
                    self.broken = true;
                    return Err(WireError::Server(Box::new(std::mem::take(last_words))));
                }
                (Err(lost), _) => return Err(lost),
            };
            let body = self.wire.body(range);
            match tag {
                b'T' => rows = Rows::described(body)?,
                b'D' => rows.push(body)?,
                b'C' => touched = rows::touched(body),
                b'E' => error = Some(ServerMessage::parse(body)),
                b'I' => {}
                b'G' | b'H' | b'W' => {
                    self.broken = true;
                    return Err(WireError::protocol("a COPY began where a statement was expected"));
                }
                b'Z' => return error.map_or(Ok((rows, touched)), |e| Err(WireError::Server(Box::new(e)))),
                tag => return Err(self.confused(tag)),
            }
        }
    }

    fn send_query(&mut self, sql: &[u8]) -> Result<(), WireError> {
        if self.broken {
            return Err(WireError::protocol("the connection was left in the middle of a transfer"));
        }
        let mut message = Vec::with_capacity(sql.len() + 6);
        message.push(b'Q');
        let length =
            u32::try_from(sql.len() + 5).map_err(|_| WireError::protocol("a statement of over 4 GB"))?;
        message.extend(length.to_be_bytes());
        message.extend_from_slice(sql);
        message.push(0);
        self.wire.send(&message)
    }

    /// The next message that is not about the session as such. Losing the connection breaks it for good.
    fn next_message(&mut self) -> Result<(u8, Range<usize>), WireError> {
        let (tag, length) = self.header()?;
        let range = self.wire.take(length)?;
        if tag == b'Z' {
            self.transaction = match self.wire.body(range.clone()) {
                b"I" => TransactionState::Idle,
                b"T" => TransactionState::Open,
                _ => TransactionState::Failed,
            };
        }
        Ok((tag, range))
    }

    /// The next header, after whatever may come at any time: notices, parameters, notifications.
    #[inline]
    fn header(&mut self) -> Result<(u8, usize), WireError> {
        loop {
            let (tag, length) = self.wire.header()?;
            if !matches!(tag, b'N' | b'S' | b'A') {
                return Ok((tag, length));
            }
            self.absorb(tag, length)?;
        }
    }

    /// Takes note of a message that may come at any time.
    fn absorb(&mut self, tag: u8, length: usize) -> Result<(), WireError> {
        let range = self.wire.take(length)?;
        self.heed(tag, range);
        Ok(())
    }

    fn heed(&mut self, tag: u8, range: Range<usize>) {
        let body = self.wire.body(range);
        match tag {
            b'N' if self.notices.len() < MAX_NOTICES => self.notices.push(ServerMessage::parse(body)),
            b'S' => {
                let mut texts = body.split(|b| *b == 0).map(|t| String::from_utf8_lossy(t).into_owned());
                if let (Some(name), Some(value)) = (texts.next(), texts.next()) {
                    self.parameters.insert(name, value);
                }
            }
            _ => {}
        }
    }

    fn confused(&mut self, tag: u8) -> WireError {
        self.broken = true;
        WireError::protocol(format!("message {:?} out of place", tag as char))
    }

    /// A handle with which another thread ends what this connection is doing.
    pub fn canceller(&self) -> Canceller {
        Canceller {
            spec: self.spec.clone(),
            process_id: self.process_id,
            secret_key: self.secret_key.clone(),
            encrypted: self.encrypted,
            breaker: self.breaker.clone(),
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({:?}, process {})", self.spec, self.process_id)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if !self.broken {
            // Terminate; a server that is gone needs none.
            let _ = self.wire.send(&[b'X', 0, 0, 0, 4]);
        }
    }
}

/// Ends the work of a [`Connection`] from another thread.
#[derive(Clone)]
pub struct Canceller {
    spec: ConnectSpec,
    process_id: i32,
    secret_key: Vec<u8>,
    encrypted: bool,
    breaker: Arc<Breaker>,
}

impl Canceller {
    /// Asks the server to cancel the statement that runs; the session goes on. Whether it took effect shows there.
    pub fn cancel(&self) -> Result<(), WireError> {
        let mut stream = startup::channel(&self.spec, self.encrypted)?;
        let length = u32::try_from(12 + self.secret_key.len()).expect("a cancel key has at most 256 bytes");
        let mut message = length.to_be_bytes().to_vec();
        message.extend([0x04, 0xd2, 0x16, 0x2e]); // CancelRequest
        message.extend(self.process_id.to_be_bytes());
        message.extend_from_slice(&self.secret_key);
        std::io::Write::write_all(&mut stream, &message).map_err(WireError::Lost)
    }

    /// Breaks the connection off: a thread that waits on it gets an error at once.
    pub fn break_off(&self) {
        self.breaker.break_off();
    }
}

impl fmt::Debug for Canceller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Canceller(process {})", self.process_id)
    }
}
