//! A blocking client: RESP2 (https://redis.io/docs/latest/develop/reference/protocol-spec/), one connection, one thread.
//!
//! It exists because a replica's synchronisation is not a command with an answer: after it, the connection is a stream of bytes
//! ([`Client::into_stream`]).

use super::{
    address::{Address, Place},
    error::RedisError,
};
use crate::postgres::wire::{Stream, TlsFailure, handshake};
use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    os::unix::net::UnixStream,
    time::Duration,
};

/// How long an answer may take. A server that prepares a snapshot says every second that it lives.
const PATIENCE: Duration = Duration::from_secs(120);
/// The largest value that is held in memory; Redis's own limit.
const MAX_BULK: i64 = 512 << 20;
/// The most elements of an array, and the deepest nesting, that any command of ours brings.
const MAX_ARRAY: i64 = 1 << 24;
const MAX_DEPTH: u32 = 8;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A status, such as `OK`.
    Status(String),
    Error(String),
    Integer(i64),
    Bulk(Vec<u8>),
    Array(Vec<Value>),
    Nil,
}

impl Value {
    /// As text, if it is one.
    pub fn text(&self) -> Option<String> {
        match self {
            Value::Status(text) => Some(text.clone()),
            Value::Bulk(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => None,
        }
    }
    pub fn integer(&self) -> Option<i64> {
        match self {
            Value::Integer(number) => Some(*number),
            _ => None,
        }
    }
}

/// A connection that has been let in.
pub struct Client {
    stream: BufReader<Stream>,
}

impl Client {
    /// Connects, encrypts and authenticates as the address says, in database 0 unless it names another.
    pub fn connect(address: &Address) -> Result<Client, RedisError> {
        let mut client = Client { stream: BufReader::with_capacity(64 << 10, open(address)?) };
        match (&address.user, &address.password) {
            (Some(user), Some(password)) => {
                client.command(&[b"AUTH", user.as_bytes(), password.as_bytes()])?;
            }
            (None, Some(password)) => {
                client.command(&[b"AUTH", password.as_bytes()])?;
            }
            (_, None) => {}
        }
        if let Some(database) = address.database.filter(|database| *database != 0) {
            client.select(database)?;
        }
        Ok(client)
    }

    pub fn select(&mut self, database: u32) -> Result<(), RedisError> {
        self.command(&[b"SELECT", database.to_string().as_bytes()]).map(drop)
    }

    /// Sends a command and waits for its answer.
    pub fn command(&mut self, words: &[&[u8]]) -> Result<Value, RedisError> {
        self.send(words)?;
        self.flush()?;
        match self.receive()? {
            Value::Error(message) => Err(refused(words, message)),
            value => Ok(value),
        }
    }

    /// The same for words that are texts.
    pub fn ask(&mut self, words: &[&str]) -> Result<Value, RedisError> {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        self.command(&words)
    }

    /// Sends without waiting: each takes one [`Client::receive`] later, in order.
    pub fn send(&mut self, words: &[&[u8]]) -> Result<(), RedisError> {
        let mut request = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            request.extend(format!("${}\r\n", word.len()).into_bytes());
            request.extend_from_slice(word);
            request.extend(b"\r\n");
        }
        self.stream.get_mut().write_all(&request).map_err(RedisError::Lost)
    }

    pub fn flush(&mut self) -> Result<(), RedisError> {
        self.stream.get_mut().flush().map_err(RedisError::Lost)
    }

    /// The next answer. An error of the server is a value here: one of many commands may fail.
    pub fn receive(&mut self) -> Result<Value, RedisError> {
        self.value(0)
    }

    fn value(&mut self, depth: u32) -> Result<Value, RedisError> {
        let line = self.line()?;
        let (tag, rest) =
            line.split_at_checked(1).ok_or_else(|| RedisError::Protocol("an empty line".into()))?;
        let number = || {
            rest.parse::<i64>().map_err(|_| RedisError::Protocol(format!("{rest:?} in place of a number")))
        };
        match tag {
            "+" => Ok(Value::Status(rest.to_owned())),
            "-" => Ok(Value::Error(rest.to_owned())),
            ":" => Ok(Value::Integer(number()?)),
            "$" => match number()? {
                -1 => Ok(Value::Nil),
                length @ 0..=MAX_BULK => {
                    let mut bytes = vec![0; length as usize + 2];
                    self.stream.read_exact(&mut bytes).map_err(RedisError::Lost)?;
                    bytes.truncate(length as usize);
                    Ok(Value::Bulk(bytes))
                }
                length => Err(RedisError::Protocol(format!("a value of {length} bytes"))),
            },
            "*" => match number()? {
                -1 => Ok(Value::Nil),
                length @ 0..=MAX_ARRAY if depth < MAX_DEPTH => {
                    (0..length).map(|_| self.value(depth + 1)).collect::<Result<_, _>>().map(Value::Array)
                }
                length => Err(RedisError::Protocol(format!("an array of {length}"))),
            },
            _ => Err(RedisError::Protocol(format!("{:?}", line.chars().take(20).collect::<String>()))),
        }
    }

    /// The next line, without its end.
    pub(super) fn line(&mut self) -> Result<String, RedisError> {
        const LONGEST: u64 = 64 << 10;
        let mut line = Vec::new();
        (&mut self.stream).take(LONGEST).read_until(b'\n', &mut line).map_err(RedisError::Lost)?;
        match line.pop() {
            Some(b'\n') => {
                line.pop_if(|last| *last == b'\r');
                Ok(String::from_utf8_lossy(&line).into_owned())
            }
            Some(_) => Err(RedisError::Protocol("a line without end".into())),
            None => Err(RedisError::Lost(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the server closed the connection",
            ))),
        }
    }

    /// What follows on the connection, as bytes.
    pub(super) fn into_stream(self) -> BufReader<Stream> {
        self.stream
    }
}

fn refused(words: &[&[u8]], message: String) -> RedisError {
    // The first word alone: the others may be a password, or a user's data.
    let command = String::from_utf8_lossy(words.first().unwrap_or(&&b""[..])).into_owned();
    RedisError::Refused { command, message }
}

fn open(address: &Address) -> Result<Stream, RedisError> {
    let failed = |reason: String, hint: Option<&str>| RedisError::Connect {
        target: address.describe(),
        reason,
        hint: hint.map(str::to_owned),
    };
    let stream = match &address.place {
        Place::Socket(path) => Stream::Unix(UnixStream::connect(path).map_err(|error| {
            let hint = match error.kind() {
                io::ErrorKind::NotFound => "No server has this socket: is it running, and is the path right?",
                io::ErrorKind::ConnectionRefused => {
                    "The socket is there and nobody listens: the server is down."
                }
                _ => "May this user open the socket (unixsocketperm, membership in the group redis)?",
            };
            failed(error.to_string(), Some(hint))
        })?),
        Place::Tcp { host, port } => {
            let socket = connect(host, *port, address.connect_timeout).map_err(|error| {
                failed(error.to_string(), Some("Is the server running, and are host and port right?"))
            })?;
            match address.tls {
                None => Stream::Tcp(socket),
                Some(mode) => {
                    set_timeout(&Stream::Tcp(socket.try_clone().map_err(RedisError::Lost)?), PATIENCE)?;
                    let spec = address.tls_spec(host, mode);
                    let secured = handshake(&spec, socket).map_err(|TlsFailure { reason, hint }| {
                        let other =
                            "Does the server speak TLS on this port? For one that does not: redis://.";
                        failed(reason, Some(hint.as_deref().unwrap_or(other)))
                    })?;
                    Stream::Tls(Box::new(secured))
                }
            }
        }
    };
    set_timeout(&stream, PATIENCE)?;
    Ok(stream)
}

fn set_timeout(stream: &Stream, timeout: Duration) -> Result<(), RedisError> {
    stream.set_timeout(Some(timeout)).map_err(RedisError::Lost)
}

fn connect(host: &str, port: u16, timeout: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(socket) => {
                // Both are improvements, not needs: a connection without them works.
                let _ = socket.set_nodelay(true);
                let _ = rustix::net::sockopt::set_socket_keepalive(&socket, true);
                return Ok(socket);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}
