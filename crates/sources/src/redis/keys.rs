//! Key by key: what is captured where a server gives no snapshot. A sequence of CBOR records (`doc/format.md`, *Streams*), each
//! the array [database, key, milliseconds since 1970 at which it expires or null, what DUMP says].
//!
//! Keys are found by SCAN: one that is there from beginning to end is found, one that comes or goes meanwhile may be, and one may
//! be found twice (the manual page of SCAN); the later record counts.
//!
//! The server holds every answer in memory until we have read it, and so do we until it is stored: keys are asked for by their sizes, so that
//! no more than a few MiB are on the way, or one key that is larger.

use super::{
    client::{Client, Value},
    error::RedisError,
    facts::Census,
    info::Info,
};
use mainstay_domain::{
    Clock, Failure, Kind, Monitor, Result, Severity,
    point::Problem,
    stream::{Content, Pool, Sink},
};
use std::{
    collections::VecDeque,
    io::{self, BufRead, Read},
};

/// Keys that one SCAN asks for, and how much of requests is sent before their answers are read.
const SCANNED: &str = "500";
const REQUESTED: usize = 32 << 10;
/// How many bytes of values are asked for before the first is read.
const ON_THE_WAY: u64 = 4 << 20;
/// How many keys at most where the server does not say how large they are.
const UNMEASURED: u64 = 16;
/// A record is as large as its value.
const MAX_RECORD: usize = (512 << 20) + (1 << 20);

/// One key, as it was captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub database: u32,
    pub key: Vec<u8>,
    pub expires: Option<u64>,
    pub dump: Vec<u8>,
}

/// What was stored.
pub(super) struct Stored {
    pub content: Content,
    pub census: Census,
    /// Keys that could not be read, and why.
    pub problems: Vec<Problem>,
}

/// Reads every key that can be read.
pub(super) fn store(
    client: &mut Client,
    info: &Info,
    sink: &dyn Sink,
    clock: &dyn Clock,
    monitor: &dyn Monitor,
) -> Result<Stored> {
    let mut scan = Scan {
        databases: info.keyspace().into_keys().collect(),
        client,
        clock,
        monitor,
        current: None,
        found: VecDeque::new(),
        measured: VecDeque::new(),
        unmeasured: 1,
        ready: Vec::new(),
        at: 0,
        census: Census::default(),
        unreadable: 0,
        reason: String::new(),
        failure: None,
    };
    let stored = sink.put_reader(Pool::Data, &mut scan);
    if let Some(failure) = scan.failure.take() {
        return Err(failure);
    }
    let content = stored?;
    let mut problems = Vec::new();
    if scan.unreadable > 0 {
        let message = format!("{} keys could not be read: {}", scan.unreadable, scan.reason);
        problems.push(Problem { severity: Severity::Error, object: String::new(), message });
    }
    Ok(Stored { content, census: scan.census, problems })
}

/// The records, as a reader.
struct Scan<'a> {
    databases: VecDeque<u32>,
    client: &'a mut Client,
    clock: &'a dyn Clock,
    monitor: &'a dyn Monitor,
    /// The database that is scanned, and where; `None` between two.
    current: Option<(u32, Vec<u8>)>,
    /// Keys that were found and not yet measured.
    found: VecDeque<Vec<u8>>,
    /// Keys that were not yet read, with the bytes that they take in the server, if it says so.
    measured: VecDeque<(Vec<u8>, Option<u64>)>,
    /// How many keys of unknown size are asked for next; as many as those before allow.
    unmeasured: u64,
    ready: Vec<u8>,
    at: usize,
    census: Census,
    unreadable: u64,
    reason: String,
    failure: Option<Failure>,
}

impl Scan<'_> {
    /// Brings the next records, or nothing at the end.
    fn advance(&mut self) -> Result<bool> {
        loop {
            if self.monitor.cancelled() {
                return Err(Failure::new(Kind::Cancelled, "reading the keys was stopped"));
            }
            let database = match (&self.current, self.found.is_empty() && self.measured.is_empty()) {
                (Some((database, _)), false) => *database,
                (Some((database, cursor)), true) => {
                    let (database, cursor) = (*database, cursor.clone());
                    let (keys, next) = scan(self.client, &cursor, None)?;
                    self.found.extend(keys);
                    self.current = Some((database, next));
                    database
                }
                (None, _) => {
                    let Some(database) = self.databases.pop_front() else { return Ok(false) };
                    self.client.select(database)?;
                    let (keys, next) = scan(self.client, b"0", None)?;
                    self.found.extend(keys);
                    self.current = Some((database, next));
                    database
                }
            };
            self.read_some(database)?;
            let all_read = self.found.is_empty() && self.measured.is_empty();
            if all_read && self.current.as_ref().is_some_and(|(_, cursor)| cursor == b"0") {
                self.current = None;
            }
            if !self.ready.is_empty() {
                return Ok(true);
            }
        }
    }

    /// Asks how large the next keys are that were found. A server may know no such command, or not let us: then it is not known.
    fn measure(&mut self) -> Result<()> {
        let (mut asked, mut bytes) = (Vec::new(), 0);
        while bytes < REQUESTED
            && let Some(key) = self.found.pop_front()
        {
            bytes += key.len() + 100;
            // All elements of a value: a sample of small ones says nothing of a large one.
            self.client.send(&[b"MEMORY", b"USAGE", &key, b"SAMPLES", b"0"])?;
            asked.push(key);
        }
        self.client.flush()?;
        for key in asked {
            let size = match self.client.receive()? {
                Value::Nil => Some(0), // it is gone
                answer => answer.integer().and_then(|size| u64::try_from(size).ok()),
            };
            self.measured.push_back((key, size));
        }
        Ok(())
    }

    /// The keys that are asked for next.
    fn next_keys(&mut self) -> Vec<Vec<u8>> {
        let (mut keys, mut requested, mut bytes) = (Vec::new(), 0, 0_u64);
        while let Some((key, size)) = self.measured.front() {
            let size = size.unwrap_or(ON_THE_WAY / self.unmeasured.max(1));
            bytes = bytes.saturating_add(size);
            requested += 3 * key.len() + 100;
            if !keys.is_empty() && (bytes > ON_THE_WAY || requested > REQUESTED) {
                break;
            }
            keys.extend(self.measured.pop_front().map(|(key, _)| key));
        }
        keys
    }

    /// Reads a bounded number of the keys that were found.
    fn read_some(&mut self, database: u32) -> Result<()> {
        if self.measured.is_empty() {
            self.measure()?;
        }
        let asked = self.next_keys();
        for key in &asked {
            for command in [&b"DUMP"[..], b"PTTL", b"TYPE"] {
                self.client.send(&[command, key])?;
            }
        }
        let mut largest = 1;
        self.client.flush()?;
        for key in asked {
            let (dump, lifetime, kind) =
                (self.client.receive()?, self.client.receive()?, self.client.receive()?);
            let (dump, left) = match (dump, lifetime) {
                (Value::Nil, _) | (_, Value::Integer(-2)) => continue, // it is gone
                (Value::Bulk(dump), Value::Integer(left)) => (dump, left),
                // Without its lifetime it would come back to live for ever.
                (Value::Error(message), _) | (_, Value::Error(message)) => {
                    self.unreadable += 1;
                    self.reason = message;
                    continue;
                }
                (other, _) => return Err(RedisError::Protocol(format!("{other:?} to DUMP")).into()),
            };
            let now = self.clock.now().0 / 1_000_000;
            let expires = (left >= 0).then(|| u64::try_from(now + left).ok()).flatten();
            self.census.count(database, &kind.text().unwrap_or_default(), expires.is_some());
            self.monitor.advance(1, dump.len() as u64);
            largest = largest.max(dump.len() as u64);
            encode(&mut self.ready, &Record { database, key, expires, dump });
        }
        self.unmeasured = (ON_THE_WAY / largest).clamp(1, (2 * self.unmeasured).min(UNMEASURED));
        Ok(())
    }
}

impl Read for Scan<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.ready.len() {
            (self.ready, self.at) = (Vec::new(), 0);
            match self.advance() {
                Ok(true) => {}
                Ok(false) => return Ok(0),
                Err(failure) => {
                    self.failure = Some(failure);
                    return Err(io::Error::other("the keys could not be read"));
                }
            }
        }
        let length = buffer.len().min(self.ready.len() - self.at);
        buffer[..length].copy_from_slice(&self.ready[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}

/// One step of a scan of the selected database: keys, and the cursor of the next step, which is `0` at the end.
pub(super) fn scan(
    client: &mut Client,
    cursor: &[u8],
    pattern: Option<&[u8]>,
) -> Result<(Vec<Vec<u8>>, Vec<u8>), RedisError> {
    let mut words = vec![b"SCAN", cursor, b"COUNT", SCANNED.as_bytes()];
    if let Some(pattern) = pattern {
        words.extend([b"MATCH", pattern]);
    }
    let answer = client.command(&words)?;
    let Value::Array(parts) = answer else { return Err(RedisError::Protocol(format!("{answer:?} to SCAN"))) };
    match <[Value; 2]>::try_from(parts) {
        Ok([Value::Bulk(next), Value::Array(keys)]) => {
            let bytes = |key| match key {
                Value::Bulk(key) => Some(key),
                _ => None,
            };
            Ok((keys.into_iter().filter_map(bytes).collect(), next))
        }
        _ => Err(RedisError::Protocol("an answer to SCAN without a cursor".to_owned())),
    }
}

fn encode(out: &mut Vec<u8>, record: &Record) {
    let mut encoder = minicbor::Encoder::new(out);
    let written = encoder
        .array(4)
        .and_then(|e| e.u32(record.database))
        .and_then(|e| e.bytes(&record.key))
        .and_then(|e| match record.expires {
            Some(at) => e.u64(at),
            None => e.null(),
        })
        .and_then(|e| e.bytes(&record.dump));
    written.map(drop).expect("memory takes everything");
}

/// The next record of the sequence; `None` at its end.
pub(super) fn decode(reader: &mut dyn BufRead) -> Result<Option<Record>> {
    let damaged = || Failure::verification("a record of the captured keys is not as it was written");
    if reader.fill_buf().map_err(unreadable)?.is_empty() {
        return Ok(None);
    }
    let mut head = [0; 1];
    reader.read_exact(&mut head).map_err(unreadable)?;
    if head != [0x84] {
        return Err(damaged());
    }
    let database = number(reader, 0)?.and_then(|n| u32::try_from(n).ok()).ok_or_else(damaged)?;
    let key = string(reader)?.ok_or_else(damaged)?;
    let expires = number(reader, 0)?;
    let dump = string(reader)?.ok_or_else(damaged)?;
    Ok(Some(Record { database, key, expires, dump }))
}

fn unreadable(error: io::Error) -> Failure {
    Failure::verification("the captured keys end in the middle of a record").caused_by(error)
}

/// An unsigned number, or the length of a byte string (RFC 8949, 3.1), by its major type; `None` for null.
fn number(reader: &mut dyn BufRead, major: u8) -> Result<Option<u64>> {
    let mut head = [0; 1];
    reader.read_exact(&mut head).map_err(unreadable)?;
    let [head] = head;
    if head == 0xf6 {
        return Ok(None);
    }
    let mut bytes = [0; 8];
    let more = match head & 0x1f {
        small @ 0..24 => return Ok((head >> 5 == major).then_some(u64::from(small))),
        24 => 1,
        25 => 2,
        26 => 4,
        27 => 8,
        _ => 0,
    };
    if more == 0 || head >> 5 != major {
        return Err(Failure::verification("a record of the captured keys is not as it was written"));
    }
    reader.read_exact(&mut bytes[8 - more..]).map_err(unreadable)?;
    Ok(Some(u64::from_be_bytes(bytes)))
}

fn string(reader: &mut dyn BufRead) -> Result<Option<Vec<u8>>> {
    let Some(length) = number(reader, 2)?.filter(|length| *length <= MAX_RECORD as u64) else {
        return Ok(None);
    };
    let mut bytes = Vec::new();
    reader.take(length).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok((bytes.len() as u64 == length).then_some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_as_they_were_written_and_damaged_ones_not_at_all() {
        let records = [
            Record { database: 0, key: b"a".into(), expires: None, dump: vec![1; 300] },
            Record { database: 700, key: vec![0xff; 30], expires: Some(1_700_000_000_123), dump: vec![] },
        ];
        let mut bytes = Vec::new();
        records.iter().for_each(|record| encode(&mut bytes, record));
        let mut reader = &bytes[..];
        for record in &records {
            assert_eq!(decode(&mut reader).unwrap().as_ref(), Some(record));
        }
        assert_eq!(decode(&mut reader).unwrap(), None);
        let first = bytes.len() - 46;
        for length in (1..bytes.len()).filter(|length| *length != first) {
            let mut cut = &bytes[..length];
            let mut outcome = decode(&mut cut);
            while let Ok(Some(_)) = outcome {
                outcome = decode(&mut cut);
            }
            assert!(outcome.is_err(), "cut at {length} of {}", bytes.len());
        }
    }
}
