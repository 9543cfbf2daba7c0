//! Reads the archives that `pg_dump -Fc` writes: the head, the table of contents, the large objects.
//!
//! A table of contents holds every object of a database as the statements that make it, its owner, and what it depends on.
//! Reading it ourselves, instead of handing the archive to `pg_restore`, means that every statement runs on our own
//! connection and is judged by its own error code, that objects can be chosen and renamed one by one, and that neither a
//! matching `pg_restore` nor a child process with a password is needed. The layout is that of PostgreSQL's
//! `src/bin/pg_dump/pg_backup_archiver.c` and `pg_backup_custom.c`, versions 1.14 (PostgreSQL 12) to 1.16 (17, 18), without
//! compression, which is how the capture writes it. Text stays bytes: it is in the archive's own encoding.

use crate::postgres::wire::text;
use mainstay_domain::{Failure, Kind};
use std::{collections::HashMap, io::Read};

/// When an entry is restored: before the rows, with them, after them. `Unplaced` entries (comments, privileges) follow what
/// they depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    Unplaced,
    PreData,
    Data,
    PostData,
}

/// One object, or one thing to do to an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Unique in its archive.
    pub id: u32,
    /// `TABLE`, `FUNCTION`, `FK CONSTRAINT`, `ACL` …, in the words of pg_dump.
    pub kind: String,
    /// The object's name, unquoted; of functions with their arguments; of constraints, triggers and the like
    /// "table name"; of comments and privileges "kind name".
    pub tag: Vec<u8>,
    pub schema: Vec<u8>,
    pub owner: Vec<u8>,
    pub section: Section,
    /// The statements that make it.
    pub definition: Vec<u8>,
    /// The statement that would drop it; empty for what has no existence of its own.
    pub drop: Vec<u8>,
    /// `None`: the object has no storage. Empty: the database's default.
    pub tablespace: Option<Vec<u8>>,
    pub access_method: Option<Vec<u8>>,
    /// `pg_class.relkind` of relations, where the archive tells it (PostgreSQL 17 and later).
    pub relkind: Option<u8>,
    pub dependencies: Vec<u32>,
}

/// Head and table of contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archive {
    pub database: String,
    /// Of the server that was dumped, as it calls itself.
    pub server_version: String,
    pub dump_version: String,
    /// The encoding of every text in it, as PostgreSQL names it: `UTF8`, `LATIN1`, `SQL_ASCII` …
    pub encoding: String,
    /// In the order in which pg_restore would take them.
    pub entries: Vec<Entry>,
    /// Where in `entries` each id is.
    by_id: HashMap<u32, usize>,
}

/// What is wrong with an archive.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("it does not begin like an archive of pg_dump")]
    Magic,
    #[error("its layout is version {0}.{1}, and this program reads 1.14 to 1.16")]
    Version(u8, u8),
    #[error("it is compressed, or not in the custom format")]
    Format,
    #[error("it is malformed: {0}")]
    Malformed(&'static str),
    #[error("it could not be read")]
    Read(#[from] std::io::Error),
}

impl Archive {
    /// A name as Unicode. The capture writes archives in UTF-8 (and in SQL_ASCII, where no encoding is known), so that names
    /// here are those of the catalogue.
    pub fn text(&self, name: &[u8]) -> String {
        match self.encoding.as_str() {
            "LATIN1" => name.iter().map(|byte| char::from(*byte)).collect(),
            _ => text::decode(name),
        }
    }

    /// A name in the archive's encoding: the inverse of [`Archive::text`].
    pub fn bytes(&self, name: &str) -> Vec<u8> {
        match self.encoding.as_str() {
            "LATIN1" => name.chars().map(|c| u8::try_from(c).unwrap_or(b'?')).collect(),
            _ => text::encode(name).into_owned(),
        }
    }

    pub fn entry(&self, id: u32) -> Option<&Entry> {
        self.by_id.get(&id).map(|at| &self.entries[*at])
    }

    /// How messages name an entry: `TABLE public.orders`.
    pub fn describe(&self, entry: &Entry) -> String {
        let tag = self.text(&entry.tag);
        match &entry.schema[..] {
            b"" => format!("{} {tag}", entry.kind),
            schema => format!("{} {}.{tag}", entry.kind, self.text(schema)),
        }
    }
}

impl From<ArchiveError> for Failure {
    fn from(error: ArchiveError) -> Failure {
        let failure = Failure::new(Kind::Verification, "the recorded archive of pg_dump cannot be used");
        let failure = match &error {
            ArchiveError::Version(..) => {
                failure.hint("A newer version of Mainstay wrote this recovery point: restore with that one.")
            }
            _ => failure,
        };
        failure.caused_by(error)
    }
}

/// The longest string that is believed, in bytes: PostgreSQL makes no longer ones.
const LONGEST_STRING: u64 = 1 << 30;

/// The first byte of a data block.
const TABLE_ROWS: u8 = 1;
const LARGE_OBJECTS: u8 = 3;

/// Reads an archive once, from its beginning to its end.
pub struct Reader<R> {
    input: R,
    minor: u8,
    /// Within a block of large objects.
    in_large_objects: bool,
}

impl<R: Read> Reader<R> {
    /// Reads head and table of contents. What follows is read by [`Reader::next_large_object`].
    pub fn open(mut input: R) -> Result<(Reader<R>, Archive), ArchiveError> {
        let mut head = [0; 11];
        input.read_exact(&mut head).map_err(|_| ArchiveError::Magic)?;
        let [m @ .., major, minor, _revision, int_size, offset_size, format] = head;
        if m != *b"PGDMP" {
            return Err(ArchiveError::Magic);
        }
        if major != 1 || !(14..=16).contains(&minor) {
            return Err(ArchiveError::Version(major, minor));
        }
        let mut reader = Reader { input, minor, in_large_objects: false };
        if int_size != 4 || offset_size != 8 || format != 1 {
            return Err(ArchiveError::Format);
        }
        // From 1.15 a byte names the algorithm; before, an integer the level.
        let compression = if minor >= 15 { i64::from(reader.byte()?) } else { reader.int()? };
        if compression != 0 {
            return Err(ArchiveError::Format);
        }
        for _field_of_the_date in 0..7 {
            reader.int()?;
        }
        let mut archive = Archive {
            database: reader.lossy()?,
            server_version: reader.lossy()?,
            dump_version: reader.lossy()?,
            encoding: "UTF8".to_owned(),
            entries: Vec::new(),
            by_id: HashMap::new(),
        };
        for _ in 0..reader.int()? {
            let entry = reader.entry()?;
            match entry.kind.as_str() {
                // `SET client_encoding = 'UTF8';`
                "ENCODING" => {
                    let quoted = entry.definition.split(|b| *b == b'\'').nth(1);
                    let name = quoted.ok_or(ArchiveError::Malformed("it does not name its encoding"))?;
                    archive.encoding = String::from_utf8_lossy(name).into_owned();
                }
                // Both are what every session of ours has: standard strings, an empty search path.
                "STDSTRINGS" | "SEARCHPATH" => {}
                _ => archive.entries.push(entry),
            }
        }
        archive.by_id = archive.entries.iter().enumerate().map(|(at, entry)| (entry.id, at)).collect();
        Ok((reader, archive))
    }

    fn entry(&mut self) -> Result<Entry, ArchiveError> {
        let id = self.id()?;
        let _has_data = self.int()?;
        let (_class, _oid) = (self.string()?, self.string()?);
        let tag = self.string()?.unwrap_or_default();
        let kind = self.lossy()?;
        let section = match self.int()? {
            1 => Section::Unplaced,
            2 => Section::PreData,
            3 => Section::Data,
            4 => Section::PostData,
            _ => return Err(ArchiveError::Malformed("an entry is in an unknown section")),
        };
        let definition = self.string()?.unwrap_or_default();
        let drop = self.string()?.unwrap_or_default();
        let _copy = self.string()?;
        let schema = self.string()?.unwrap_or_default();
        let tablespace = self.string()?;
        let access_method = self.string()?;
        let relkind = match self.minor {
            16.. => u8::try_from(self.int()?).ok().filter(|k| *k != 0),
            _ => None,
        };
        let owner = self.string()?.unwrap_or_default();
        let _with_oids = self.string()?;
        let mut dependencies = Vec::new();
        while let Some(number) = self.string()? {
            let number = std::str::from_utf8(&number).ok().and_then(|n| n.parse().ok());
            dependencies.push(number.ok_or(ArchiveError::Malformed("a dependency is not a number"))?);
        }
        // State and offset of the data block: it is found by reading on, so neither is needed.
        let _ = (self.byte()?, self.bytes::<8>()?);
        Ok(Entry {
            id,
            kind,
            tag,
            schema,
            owner,
            section,
            definition,
            drop,
            tablespace,
            access_method,
            relkind,
            dependencies,
        })
    }

    /// Goes on to the next large object of the archive and returns its OID. Its content comes from [`Reader::content`],
    /// which must be read to its end before the next one.
    pub fn next_large_object(&mut self) -> Result<Option<u32>, ArchiveError> {
        loop {
            if self.in_large_objects {
                match self.int()? {
                    0 => self.in_large_objects = false,
                    // An OID above 2^31 was written as a negative integer.
                    oid => return Ok(Some(oid as i32 as u32)),
                }
            }
            let mut block = [0];
            if self.input.read(&mut block)? == 0 {
                return Ok(None);
            }
            self.int()?;
            match block[0] {
                LARGE_OBJECTS => self.in_large_objects = true,
                TABLE_ROWS => while self.content()?.is_some() {},
                _ => return Err(ArchiveError::Malformed("a data block of an unknown kind")),
            }
        }
    }

    /// The next part of the current large object; `None` at its end.
    pub fn content(&mut self) -> Result<Option<Vec<u8>>, ArchiveError> {
        match u64::try_from(self.int()?) {
            Ok(0) => Ok(None),
            Ok(length) => self.take(length).map(Some),
            Err(_) => Err(ArchiveError::Malformed("a part of negative length")),
        }
    }

    fn byte(&mut self) -> Result<u8, ArchiveError> {
        self.bytes::<1>().map(|[byte]| byte)
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], ArchiveError> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// A sign byte, then four bytes, little end first.
    fn int(&mut self) -> Result<i64, ArchiveError> {
        let [sign, value @ ..] = self.bytes::<5>()?;
        let value = i64::from(u32::from_le_bytes(value));
        Ok(if sign == 0 { value } else { -value })
    }

    fn id(&mut self) -> Result<u32, ArchiveError> {
        u32::try_from(self.int()?).map_err(|_| ArchiveError::Malformed("an entry has a negative number"))
    }

    fn string(&mut self) -> Result<Option<Vec<u8>>, ArchiveError> {
        match u64::try_from(self.int()?) {
            Ok(length) => self.take(length).map(Some),
            Err(_) => Ok(None),
        }
    }

    fn lossy(&mut self) -> Result<String, ArchiveError> {
        Ok(String::from_utf8_lossy(&self.string()?.unwrap_or_default()).into_owned())
    }

    fn take(&mut self, length: u64) -> Result<Vec<u8>, ArchiveError> {
        if length > LONGEST_STRING {
            return Err(ArchiveError::Malformed("a string longer than a gigabyte"));
        }
        let mut taken = Vec::new();
        self.input.by_ref().take(length).read_to_end(&mut taken)?;
        match taken.len() as u64 == length {
            true => Ok(taken),
            false => Err(ArchiveError::Malformed("it ends in the middle")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_archive_is_refused_with_the_reason() {
        let open = |bytes: &[u8]| Reader::open(bytes).map(|_| ()).unwrap_err().to_string();
        assert_eq!(open(b"CREATE TABLE x();"), "it does not begin like an archive of pg_dump");
        assert_eq!(open(b"PGDMP"), "it does not begin like an archive of pg_dump");
        assert_eq!(
            open(b"PGDMP\x01\x11\x00\x04\x08\x01"),
            "its layout is version 1.17, and this program reads 1.14 to 1.16"
        );
        assert_eq!(
            open(b"PGDMP\x01\x10\x00\x04\x08\x01\x01"),
            "it is compressed, or not in the custom format"
        );
    }

    /// A head, one entry, one large object.
    fn small_archive() -> Vec<u8> {
        let int = |n: u32| [&[0][..], &n.to_le_bytes()].concat();
        let text = |s: &str| [&int(s.len() as u32)[..], s.as_bytes()].concat();
        let texts = |all: &[&str]| all.iter().flat_map(|s| text(s)).collect::<Vec<u8>>();
        [
            b"PGDMP\x01\x10\x00\x04\x08\x01\x00".to_vec(),
            [0; 35].to_vec(), // the date
            texts(&["db", "17", "17"]),
            int(1),
            [int(7), int(0), texts(&["0", "0", "t", "TABLE"]), int(2)].concat(),
            texts(&["CREATE TABLE t ()", "DROP TABLE t", "", "public", "", "heap"]),
            [int(114), texts(&["mara", "false", "3"]), vec![1, 1, 0, 0, 0]].concat(),
            vec![3, 0, 0, 0, 0, 0, 0, 0, 0], // where its data is: it has none
            [vec![LARGE_OBJECTS], int(9), int(42), text("content"), int(0), int(0)].concat(),
        ]
        .concat()
    }

    #[test]
    fn an_archive_is_read_to_its_end() {
        let bytes = small_archive();
        let (mut reader, archive) = Reader::open(&bytes[..]).unwrap();
        let entry = archive.entry(7).unwrap();
        assert_eq!(archive.describe(entry), "TABLE public.t");
        assert_eq!(
            (entry.section, entry.relkind, &entry.dependencies[..]),
            (Section::PreData, Some(b'r'), &[3][..])
        );
        assert_eq!(reader.next_large_object().unwrap(), Some(42));
        assert_eq!(reader.content().unwrap().unwrap(), b"content");
        assert_eq!(reader.content().unwrap(), None);
        assert_eq!(reader.next_large_object().unwrap(), None);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(damage in proptest::collection::vec((0..400_usize, 0..=255_u8), 0..20)) {
            let mut bytes = small_archive();
            for (at, byte) in damage {
                if let Some(place) = bytes.get_mut(at) {
                    *place = byte;
                }
            }
            if let Ok((mut reader, _)) = Reader::open(&bytes[..]) {
                while let Ok(Some(_)) = reader.next_large_object() {
                    while let Ok(Some(_)) = reader.content() {}
                }
            }
        }
    }

    #[test]
    fn a_string_of_absurd_length_is_damage_and_takes_no_memory() {
        let mut bytes = b"PGDMP\x01\x10\x00\x04\x08\x01\x00".to_vec();
        bytes.extend([0; 35]);
        bytes.extend([0, 0xff, 0xff, 0xff, 0xff]);
        let error = Reader::open(&bytes[..]).map(|_| ()).unwrap_err();
        assert_eq!(error.to_string(), "it is malformed: a string longer than a gigabyte");
    }
}
