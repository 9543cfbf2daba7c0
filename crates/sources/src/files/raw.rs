//! Entries of an earlier listing as they lie in its chunks: looked at without taking them apart.
//!
//! A backup in which nothing changed spends its time here, so nothing is allocated for an entry and an unchanged one is
//! copied as it is.

use super::stat::Stat;
use mainstay_domain::{
    ChunkId, Failure, Kind,
    listing::{FileKind, FileTime},
    stream::{Content, Piece},
};
use minicbor::{Decoder, data::Type, decode::Error};
use std::ops::Range;

/// Where an entry lies in its chunk, and what of it decides whether it changed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scanned {
    pub whole: Range<usize>,
    pub name: Range<usize>,
    /// The value of key 14.
    pub content: Option<Range<usize>>,
    kind: u8,
    mode: u32,
    uid: u32,
    gid: u32,
    size: u64,
    modified: FileTime,
    changed: FileTime,
    inode: u64,
    device: u64,
    links: u64,
    node: u64,
    doubtful: bool,
    fresh: bool,
    pub deleted: Option<i64>,
}

pub(crate) enum Token {
    /// A directory's path.
    Directory(Range<usize>),
    Entry(Scanned),
}

/// How much an old entry still says about a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Match {
    /// All of it: the old entry can be copied.
    Whole,
    /// The content and attributes, not every number (the file system's device number changed).
    Content,
    /// Nothing.
    Changed,
}

impl Scanned {
    /// Compares with what the file looks like now. Size, mtime, ctime and inode prove a file unchanged, if it was not
    /// fresh: whatever writes to a file or changes its metadata sets ctime, and nothing can set it back.
    pub fn matches(&self, now: &Stat) -> Match {
        let directory = now.kind == FileKind::Directory;
        let same = self.kind == now.kind as u8
            && (self.size == now.size || directory)
            && self.modified == now.modified
            && self.changed == now.changed
            && self.inode == now.inode
            && !self.fresh
            && !self.doubtful
            && (self.content.is_some() || now.kind != FileKind::Regular);
        if !same {
            return Match::Changed;
        }
        let links = if now.links > 1 && !directory { now.links } else { 0 };
        let node = if now.is_device() { now.node } else { 0 };
        let whole = (self.mode, self.uid, self.gid, self.device, self.links, self.node)
            == (now.mode, now.uid, now.gid, now.device, links, node);
        if whole { Match::Whole } else { Match::Content }
    }

    pub fn is(&self, kind: FileKind) -> bool {
        self.kind == kind as u8
    }
}

/// Reads the item at `at`; returns it and where the next one begins.
pub(crate) fn scan(chunk: &[u8], at: usize) -> Result<(Token, usize), Error> {
    let mut d = Decoder::new(chunk);
    d.set_position(at);
    if d.datatype()? == Type::Bytes {
        let path = byte_string(&mut d)?;
        let next = d.position();
        return Ok((Token::Directory(path), next));
    }
    let mut entry = Scanned::default();
    let fields = d.map()?.ok_or_else(|| Error::message("a map of unknown length"))?;
    let mut named = false;
    for _ in 0..fields {
        match d.u32()? {
            0 => {
                entry.name = byte_string(&mut d)?;
                named = true;
            }
            1 => entry.kind = d.u8()?,
            2 => entry.mode = d.u32()?,
            3 => entry.uid = d.u32()?,
            4 => entry.gid = d.u32()?,
            5 => entry.size = d.u64()?,
            6 => entry.modified = time(&mut d)?,
            7 => entry.changed = time(&mut d)?,
            8 => entry.inode = d.u64()?,
            9 => entry.device = d.u64()?,
            10 => entry.links = optional(&mut d, |d| d.u64())?.unwrap_or(0),
            11 => entry.node = optional(&mut d, |d| d.u64())?.unwrap_or(0),
            14 => {
                let start = d.position();
                if d.datatype()? != Type::Null {
                    skip_content(&mut d)?;
                    entry.content = Some(start..d.position());
                } else {
                    d.skip()?;
                }
            }
            15 => entry.doubtful = optional(&mut d, |d| d.u8())?.is_some(),
            16 => entry.fresh = optional(&mut d, |d| d.bool())?.unwrap_or(false),
            17 => entry.deleted = optional(&mut d, |d| d.i64())?,
            _ => d.skip()?,
        }
    }
    if !named {
        return Err(Error::message("an entry without a name"));
    }
    let next = d.position();
    entry.whole = at..next;
    Ok((Token::Entry(entry), next))
}

fn byte_string(d: &mut Decoder<'_>) -> Result<Range<usize>, Error> {
    let length = d.bytes()?.len();
    Ok(d.position() - length..d.position())
}

fn time(d: &mut Decoder<'_>) -> Result<FileTime, Error> {
    match d.array()? {
        Some(2) => Ok(FileTime { seconds: d.i64()?, nanoseconds: d.u32()? }),
        _ => Err(Error::message("a time is two numbers")),
    }
}

fn optional<'b, T>(
    d: &mut Decoder<'b>,
    read: impl FnOnce(&mut Decoder<'b>) -> Result<T, Error>,
) -> Result<Option<T>, Error> {
    if d.datatype()? == Type::Null {
        d.skip()?;
        return Ok(None);
    }
    read(d).map(Some)
}

/// Passes over a content without building it: `skip` of the decoder is for any CBOR and slower.
fn skip_content(d: &mut Decoder<'_>) -> Result<(), Error> {
    let wrong = || Error::message("a content is a level and pieces");
    if d.array()? != Some(2) {
        return Err(wrong());
    }
    d.u8()?;
    for _ in 0..d.array()?.ok_or_else(wrong)? {
        let fields = d.array()?.ok_or_else(wrong)?;
        for _ in 0..fields {
            match d.datatype()? {
                Type::Bytes => drop(d.bytes()?),
                Type::Null => d.null()?,
                _ => drop(d.u64()?),
            }
        }
    }
    Ok(())
}

/// Decodes a content into one that is used again and again, so that the usual one allocates nothing.
pub(crate) fn content_into(bytes: &[u8], content: &mut Content) -> Result<(), Error> {
    let mut d = Decoder::new(bytes);
    let wrong = || Error::message("a content is a level and pieces");
    if d.array()? != Some(2) {
        return Err(wrong());
    }
    content.level = d.u8()?;
    content.pieces.clear();
    for _ in 0..d.array()?.ok_or_else(wrong)? {
        let start = d.position();
        match d.array()? {
            Some(2) => {
                let chunk = match d.datatype()? {
                    Type::Null => {
                        d.null()?;
                        None
                    }
                    _ => Some(ChunkId::from_slice(d.bytes()?).ok_or_else(wrong)?),
                };
                let bytes = d.u64()?;
                content.pieces.push(Piece { chunk, bytes, ..Piece::default() });
            }
            _ => {
                d.set_position(start);
                content.pieces.push(d.decode()?);
            }
        }
    }
    Ok(())
}

/// A listing chunk that was authenticated and still makes no sense.
pub(crate) fn malformed(error: Error) -> Failure {
    Failure::new(Kind::Verification, "a listing is malformed").caused_by(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_domain::{
        Time,
        listing::{self, Doubt, Entry, Xattr, decode_items},
    };
    use proptest::prelude::*;

    fn entry(links: Option<u64>, fresh: Option<bool>) -> Entry {
        Entry {
            name: b"name".to_vec(),
            kind: FileKind::Regular,
            mode: 0o644,
            uid: 1000,
            gid: 70_000,
            size: 300,
            modified: FileTime { seconds: -5, nanoseconds: 7 },
            changed: FileTime { seconds: 1 << 40, nanoseconds: 999_999_999 },
            inode: 1 << 33,
            device: 2049,
            links,
            device_node: None,
            target: None,
            xattrs: Some(vec![Xattr { name: b"user.a".to_vec(), value: vec![1; 300] }]),
            content: Some(Content {
                level: 0,
                pieces: vec![
                    Piece::plain(ChunkId([7; 32]), 200),
                    Piece::hole(50),
                    Piece { rows: 3, key: b"k".to_vec(), ..Piece::plain(ChunkId([8; 32]), 50) },
                ],
            }),
            doubt: None,
            fresh,
            deleted: Some(Time(-3)),
            pages: None,
        }
    }

    fn stat_of(entry: &Entry) -> Stat {
        Stat {
            kind: entry.kind,
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            size: entry.size,
            allocated: 0,
            modified: entry.modified,
            changed: entry.changed,
            inode: entry.inode,
            device: entry.device,
            links: entry.links.unwrap_or(1),
            node: 0,
        }
    }

    fn scanned(entry: &Entry) -> (Vec<u8>, Scanned) {
        let mut chunk = Vec::new();
        listing::encode_directory(b"dir", &mut chunk);
        let start = chunk.len();
        listing::encode_entry(entry, &mut chunk);
        let (Token::Directory(path), next) = scan(&chunk, 0).unwrap() else { panic!("a directory") };
        assert_eq!((&chunk[path], next), (&b"dir"[..], start));
        let (Token::Entry(scanned), end) = scan(&chunk, start).unwrap() else { panic!("an entry") };
        assert_eq!(end, chunk.len());
        (chunk, scanned)
    }

    #[test]
    fn a_scanned_entry_says_what_the_decoded_one_says() {
        let entry = entry(Some(2), None);
        let (chunk, scanned) = scanned(&entry);
        assert_eq!(&chunk[scanned.name.clone()], entry.name);
        assert_eq!(scanned.matches(&stat_of(&entry)), Match::Whole);
        assert_eq!(scanned.deleted, Some(-3));
        let mut content = Content::default();
        content_into(&chunk[scanned.content.clone().unwrap()], &mut content).unwrap();
        assert_eq!(Some(content), entry.content);
        let again: Entry = minicbor::decode(&chunk[scanned.whole]).unwrap();
        assert_eq!(again, entry);
    }

    #[test]
    fn only_what_is_proven_unchanged_is_taken_over() {
        let plain = entry(None, None);
        let (_, old) = scanned(&plain);
        let now = stat_of(&plain);
        let later = FileTime { seconds: 9, nanoseconds: 0 };
        for (now, expected) in [
            (now, Match::Whole),
            (Stat { device: 99, ..now }, Match::Content),
            (Stat { links: 2, ..now }, Match::Content),
            (Stat { size: 301, ..now }, Match::Changed),
            (Stat { modified: later, ..now }, Match::Changed),
            (Stat { changed: later, ..now }, Match::Changed),
            (Stat { inode: 1, ..now }, Match::Changed),
            (Stat { kind: FileKind::Fifo, ..now }, Match::Changed),
        ] {
            assert_eq!(old.matches(&now), expected, "{now:?}");
        }
        let (_, fresh) = scanned(&entry(None, Some(true)));
        assert_eq!(fresh.matches(&now), Match::Changed, "it may have changed in the same instant");
        let doubtful = Entry { doubt: Some(Doubt::Unreadable), content: None, ..plain };
        let (_, doubtful) = scanned(&doubtful);
        assert_eq!(doubtful.matches(&now), Match::Changed);
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = scan(&bytes, 0);
            let _ = content_into(&bytes, &mut Content::default());
            decode_items(&bytes).for_each(drop);
        }

        #[test]
        fn no_damaged_entry_makes_a_decoder_panic(at in 0usize..600, bit in 0u8..8, cut in 0usize..600) {
            let mut chunk = Vec::new();
            listing::encode_entry(&entry(Some(2), Some(true)), &mut chunk);
            let at = at % chunk.len();
            chunk[at] ^= 1 << bit;
            chunk.truncate(cut.max(1));
            let _ = scan(&chunk, 0);
            decode_items(&chunk).for_each(drop);
        }
    }
}
