//! Reads RDB files: whether one is whole (magic, end, checksum), and which keys are in it. Values are passed over, not decoded:
//! what a value says is the server's to know.
//!
//! The format is that of Redis's `rdb.c` (no other description is kept up to date) and of Valkey's. A type of value that is not
//! known here ends the walk, not the check: the bytes are stored and verified all the same.

use crc::{CRC_64_REDIS, Crc, Digest, Table};
use std::{
    collections::BTreeMap,
    io::{self, Read},
};

static CRC: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_REDIS);

/// Bytes behind everything that the checksum covers.
const CHECKSUM: usize = 8;
const EOF: u8 = 0xff;
/// A key is held in memory, and so may not be larger than Redis allows.
const MAX_STRING: u64 = 512 << 20;

#[derive(Debug, thiserror::Error)]
pub(super) enum RdbError {
    #[error("it does not begin as an RDB file")]
    Magic,
    #[error("it ends too early, after {0} bytes")]
    Truncated(u64),
    #[error("its checksum is {found:016x} and not {recorded:016x}")]
    Checksum { found: u64, recorded: u64 },
    #[error("it is damaged: {0}")]
    Malformed(&'static str),
    /// Not an error of the file.
    #[error("values of type {0} are not known to this version")]
    UnknownType(u8),
    #[error("cannot be read")]
    Io(#[source] io::Error),
}

/// Passes bytes through, and tells at their end whether they were a whole RDB file.
pub(super) struct Check {
    digest: Digest<'static, u64, Table<16>>,
    head: Vec<u8>,
    /// The last bytes, which the checksum does not cover yet.
    tail: Vec<u8>,
    last_covered: u8,
    bytes: u64,
}

/// A whole RDB file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Whole {
    pub bytes: u64,
    /// `None`: the server was told to make none (`rdbchecksum no`).
    pub checksum: Option<u64>,
    pub version: u32,
}

impl Check {
    pub fn new() -> Check {
        Check { digest: CRC.digest(), head: Vec::new(), tail: Vec::new(), last_covered: 0, bytes: 0 }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.head.extend(bytes.iter().take(9_usize.saturating_sub(self.head.len())));
        self.tail.extend_from_slice(bytes);
        let covered = self.tail.len().saturating_sub(CHECKSUM);
        if covered > 0 {
            self.digest.update(&self.tail[..covered]);
            self.last_covered = self.tail[covered - 1];
            self.tail.drain(..covered);
        }
    }

    pub fn finish(self) -> Result<Whole, RdbError> {
        let version = version(&self.head)?;
        let recorded: [u8; CHECKSUM] =
            self.tail.as_slice().try_into().map_err(|_| RdbError::Truncated(self.bytes))?;
        if self.last_covered != EOF {
            return Err(RdbError::Truncated(self.bytes));
        }
        let checksum = match (self.digest.finalize(), u64::from_le_bytes(recorded)) {
            (_, 0) => None,
            (found, recorded) if found == recorded => Some(found),
            (found, recorded) => return Err(RdbError::Checksum { found, recorded }),
        };
        Ok(Whole { bytes: self.bytes, checksum, version })
    }
}

/// `REDIS0011`, or `VALKEY080` from Valkey 9 on. Files before version 5 (Redis 2.6) have no checksum and are not taken.
fn version(head: &[u8]) -> Result<u32, RdbError> {
    let digits =
        head.strip_prefix(b"REDIS").or_else(|| head.strip_prefix(b"VALKEY")).ok_or(RdbError::Magic)?;
    let number = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
    number.filter(|version| *version >= 5).ok_or(RdbError::Magic)
}

/// One key, as it stands in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub database: u32,
    pub key: Vec<u8>,
    /// As the command TYPE names it.
    pub kind: &'static str,
    /// Milliseconds since 1970.
    pub expires: Option<u64>,
}

/// What the file says of itself, besides its keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// `redis-ver`, `ctime`, `used-mem` and others.
    pub aux: BTreeMap<String, String>,
    /// Libraries of functions.
    pub functions: u64,
}

/// Calls `visit` with each key. Reads to the end marker and no further.
pub(super) fn walk<E: From<RdbError>>(
    reader: &mut dyn Read,
    visit: &mut dyn FnMut(Entry) -> Result<(), E>,
) -> Result<Said, E> {
    let mut walker = Walker { reader, bytes: 0, valkey: false };
    walker.run(visit)
}

struct Walker<'r> {
    reader: &'r mut dyn Read,
    bytes: u64,
    valkey: bool,
}

/// A length, or the encoding of a string that is shorter written otherwise.
enum Length {
    Plain(u64),
    Encoded(u8),
}

/// A value's type byte (`rdb.h`, RDB_TYPE_*).
fn kind_of(byte: u8, valkey: bool) -> Option<&'static str> {
    Some(match byte {
        0 => "string",
        1 | 10 | 14 | 18 => "list",
        2 | 11 | 20 => "set",
        3 | 5 | 12 | 17 => "zset",
        4 | 9 | 13 | 16 => "hash",
        22 if valkey => "hash",
        24 | 25 if !valkey => "hash",
        15 | 19 | 21 => "stream",
        7 => "module",
        _ => return None,
    })
}

impl Walker<'_> {
    fn run<E: From<RdbError>>(&mut self, visit: &mut dyn FnMut(Entry) -> Result<(), E>) -> Result<Said, E> {
        let head: [u8; 9] = self.array()?;
        version(&head)?;
        self.valkey = head.starts_with(b"VALKEY");
        let mut said = Said::default();
        let (mut database, mut expires) = (0, None);
        loop {
            match self.byte()? {
                EOF => return Ok(said),
                0xfe => database = self.plain()? as u32,
                0xfd => expires = Some(u64::from(u32::from_le_bytes(self.array()?)) * 1000),
                0xfc => expires = Some(u64::from_le_bytes(self.array()?)),
                0xfb => self.plains(2)?,
                0xfa => {
                    let (name, value) = (self.string()?, self.string()?);
                    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
                    said.aux.insert(text(name), text(value));
                }
                0xf9 => drop(self.byte()?),
                0xf8 => self.plains(1)?,
                0xf7 => {
                    self.plains(3)?;
                    self.module()?;
                }
                0xf5 => {
                    self.skip_string()?;
                    said.functions += 1;
                }
                0xf4 => self.plains(3)?,
                byte => {
                    let kind = kind_of(byte, self.valkey).ok_or(RdbError::UnknownType(byte))?;
                    let key = self.string()?;
                    self.skip_value(byte)?;
                    visit(Entry { database, key, kind, expires: expires.take() })?;
                }
            }
        }
    }

    fn skip_value(&mut self, kind: u8) -> Result<(), RdbError> {
        match kind {
            0 | 9 | 10 | 11 | 12 | 13 | 16 | 17 | 20 => self.skip_string(),
            1 | 2 | 14 => self.each(|w| w.skip_string()),
            3 => self.each(|w| {
                w.skip_string()?;
                match w.byte()? {
                    253..=255 => Ok(()), // not a number, and the infinities
                    length => w.skip(u64::from(length)),
                }
            }),
            4 => self.each(|w| w.skip_strings(2)),
            5 => self.each(|w| {
                w.skip_string()?;
                w.skip(8)
            }),
            7 => {
                self.plain()?;
                self.module()
            }
            15 | 19 | 21 => self.skip_stream(kind),
            18 => self.each(|w| {
                w.plain()?;
                w.skip_string()
            }),
            // Hashes whose fields expire one by one: Valkey's, and Redis's two.
            22 => self.each(|w| {
                w.skip_strings(2)?;
                w.skip(8)
            }),
            24 => {
                self.skip(8)?;
                self.each(|w| {
                    w.plain()?;
                    w.skip_strings(2)
                })
            }
            25 => {
                self.skip(8)?;
                self.skip_string()
            }
            other => Err(RdbError::UnknownType(other)),
        }
    }

    fn skip_stream(&mut self, kind: u8) -> Result<(), RdbError> {
        self.each(|w| w.skip_strings(2))?; // list packs, each under its first id
        self.plains(if kind >= 19 { 8 } else { 3 })?;
        self.each(|w| {
            w.skip_string()?;
            w.plains(if kind >= 19 { 3 } else { 2 })?;
            w.each(|w| {
                w.skip(16 + 8)?;
                w.plains(1)
            })?;
            w.each(|w| {
                w.skip_string()?;
                w.skip(if kind >= 21 { 16 } else { 8 })?;
                w.each(|w| w.skip(16))
            })
        })
    }

    /// The parts of a module's value, each of which says what it is.
    fn module(&mut self) -> Result<(), RdbError> {
        loop {
            match self.plain()? {
                0 => return Ok(()),
                1 | 2 => self.plains(1)?,
                3 => self.skip(4)?,
                4 => self.skip(8)?,
                5 => self.skip_string()?,
                _ => return Err(RdbError::Malformed("a part of a module's value is of no known kind")),
            }
        }
    }

    fn each(&mut self, mut one: impl FnMut(&mut Self) -> Result<(), RdbError>) -> Result<(), RdbError> {
        (0..self.plain()?).try_for_each(|_| one(self))
    }

    fn length(&mut self) -> Result<Length, RdbError> {
        let first = self.byte()?;
        Ok(match (first >> 6, first) {
            (0, _) => Length::Plain(u64::from(first & 0x3f)),
            (1, _) => Length::Plain((u64::from(first & 0x3f) << 8) | u64::from(self.byte()?)),
            (2, 0x80) => Length::Plain(u64::from(u32::from_be_bytes(self.array()?))),
            (2, 0x81) => Length::Plain(u64::from_be_bytes(self.array()?)),
            (3, _) => Length::Encoded(first & 0x3f),
            _ => return Err(RdbError::Malformed("a length is written in no known way")),
        })
    }

    fn plain(&mut self) -> Result<u64, RdbError> {
        match self.length()? {
            Length::Plain(length) => Ok(length),
            Length::Encoded(_) => Err(RdbError::Malformed("a string in place of a length")),
        }
    }

    fn plains(&mut self, count: usize) -> Result<(), RdbError> {
        (0..count).try_for_each(|_| self.plain().map(drop))
    }

    fn skip_string(&mut self) -> Result<(), RdbError> {
        let length = match self.length()? {
            Length::Plain(length) => length,
            Length::Encoded(encoding @ 0..=2) => 1 << encoding,
            Length::Encoded(3) => {
                let packed = self.plain()?;
                self.plain()?;
                packed
            }
            Length::Encoded(_) => return Err(RdbError::Malformed("a string is encoded in no known way")),
        };
        self.skip(length)
    }

    fn skip_strings(&mut self, count: usize) -> Result<(), RdbError> {
        (0..count).try_for_each(|_| self.skip_string())
    }

    /// A string whose bytes matter: a key.
    fn string(&mut self) -> Result<Vec<u8>, RdbError> {
        Ok(match self.length()? {
            Length::Plain(length) => self.vector(length)?,
            Length::Encoded(0) => i8::from_le_bytes(self.array()?).to_string().into_bytes(),
            Length::Encoded(1) => i16::from_le_bytes(self.array()?).to_string().into_bytes(),
            Length::Encoded(2) => i32::from_le_bytes(self.array()?).to_string().into_bytes(),
            Length::Encoded(3) => {
                let (packed, unpacked) = (self.plain()?, self.plain()?);
                let packed = self.vector(packed)?;
                lzf(&packed, unpacked).ok_or(RdbError::Malformed("a compressed string"))?
            }
            Length::Encoded(_) => return Err(RdbError::Malformed("a string is encoded in no known way")),
        })
    }

    fn vector(&mut self, length: u64) -> Result<Vec<u8>, RdbError> {
        if length > MAX_STRING {
            return Err(RdbError::Malformed("a key of more than 512 MiB"));
        }
        let mut bytes = Vec::new();
        let read = (&mut self.reader).take(length).read_to_end(&mut bytes).map_err(RdbError::Io)? as u64;
        self.bytes += read;
        if read < length { Err(RdbError::Truncated(self.bytes)) } else { Ok(bytes) }
    }

    fn skip(&mut self, length: u64) -> Result<(), RdbError> {
        let passed = io::copy(&mut (&mut self.reader).take(length), &mut io::sink()).map_err(RdbError::Io)?;
        self.bytes += passed;
        if passed < length { Err(RdbError::Truncated(self.bytes)) } else { Ok(()) }
    }

    fn byte(&mut self) -> Result<u8, RdbError> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RdbError> {
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => RdbError::Truncated(self.bytes),
            _ => RdbError::Io(error),
        })?;
        self.bytes += N as u64;
        Ok(bytes)
    }
}

/// Unpacks what LZF packed (liblzf, `lzf_d.c`): runs of bytes as they are, and copies of what came up to 8 KiB before.
fn lzf(packed: &[u8], length: u64) -> Option<Vec<u8>> {
    let mut out: Vec<u8> = Vec::new();
    let mut rest = packed;
    while let Some((control, after)) = rest.split_first() {
        rest = after;
        let control = usize::from(*control);
        if control < 32 {
            let (run, after) = rest.split_at_checked(control + 1)?;
            out.extend_from_slice(run);
            rest = after;
        } else {
            let mut copied = control >> 5;
            if copied == 7 {
                let (more, after) = rest.split_first()?;
                copied += usize::from(*more);
                rest = after;
            }
            let (low, after) = rest.split_first()?;
            rest = after;
            let back = (((control & 0x1f) << 8) | usize::from(*low)) + 1;
            let start = out.len().checked_sub(back)?;
            // What is copied may reach into what the copy makes.
            for at in start..start + copied + 2 {
                out.push(*out.get(at)?);
            }
        }
        if out.len() as u64 > length {
            return None;
        }
    }
    (out.len() as u64 == length).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Version 11, one string `key` in database 2 that expires, and its end.
    fn small() -> Vec<u8> {
        let mut file = b"REDIS0011\xfe\x02\xfb\x01\x01\xfc".to_vec();
        file.extend(1_700_000_000_123_u64.to_le_bytes());
        file.extend(b"\x00\x03key\x05value\xff");
        let sum = CRC.checksum(&file);
        file.extend(sum.to_le_bytes());
        file
    }

    fn check(file: &[u8]) -> Result<Whole, RdbError> {
        let mut check = Check::new();
        file.chunks(5).for_each(|part| check.update(part));
        check.finish()
    }

    #[test]
    fn a_whole_file_is_told_from_one_that_was_cut_or_changed_anywhere() {
        let file = small();
        assert_eq!(check(&file).unwrap().version, 11);
        for length in 0..file.len() {
            assert!(check(&file[..length]).is_err(), "cut at {length}");
        }
        for at in 0..file.len() {
            let mut changed = file.clone();
            changed[at] ^= 0x10;
            assert!(check(&changed).is_err(), "changed at {at}");
        }
        let mut unsummed = file.clone();
        let end = unsummed.len() - CHECKSUM;
        unsummed[end..].fill(0);
        assert_eq!(check(&unsummed).unwrap().checksum, None);
    }

    #[test]
    fn keys_are_found_with_database_type_and_expiry() {
        let mut found = Vec::new();
        walk::<RdbError>(&mut &small()[..], &mut |entry| {
            found.push(entry);
            Ok(())
        })
        .unwrap();
        let expected =
            Entry { database: 2, key: b"key".into(), kind: "string", expires: Some(1_700_000_000_123) };
        assert_eq!(found, [expected]);
    }

    #[test]
    fn a_hostile_file_is_refused_and_never_more() {
        let nothing = &mut |_: Entry| Ok::<(), RdbError>(());
        for file in [
            &b"REDIS0011\x06\x01k"[..],                           // a type that is not known
            b"REDIS0011\x00\xc3\x02\xff\xff\xff",                 // compressed, and not
            b"REDIS0011\x00\x81\xff\xff\xff\xff\xff\xff\xff\xff", // endless
            b"REDIS0011\x01\x01k\x81\xff\xff\xff\xff\xff\xff\xff\xff",
            b"REDIS0003\xff",
            b"HTTP/1.1 400",
            b"",
        ] {
            assert!(walk(&mut &file[..], nothing).is_err(), "{file:?}");
        }
    }

    #[test]
    fn a_compressed_key_is_unpacked() {
        // A run of one, then a copy of nine from one before.
        assert_eq!(lzf(b"\x00a\xe0\x00\x00", 10).unwrap(), b"aaaaaaaaaa");
        assert!(lzf(b"\x00a\xe0\x00\x00", 9).is_none());
        assert!(lzf(b"\x20\x05", 3).is_none(), "a copy from before the beginning");
        assert!(lzf(b"\x05a", 6).is_none());
    }
}
