//! A file tree as it is recorded: one ordered stream of entries (`doc/format.md`, *Listings*).
//!
//! The stream is a sequence of directory blocks in depth-first order: the path of a directory, then its entries in byte
//! order of their names; then the block of its first subdirectory, and so on. So a listing is written and compared in one
//! pass, and a single path is found by its key.

use crate::{Time, stream::Content};
use std::{cmp::Ordering, fmt};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, minicbor::Encode, minicbor::Decode)]
#[cbor(index_only)]
pub enum FileKind {
    #[n(0)]
    Regular,
    #[n(1)]
    Directory,
    #[n(2)]
    Symlink,
    #[n(3)]
    Fifo,
    #[n(4)]
    CharDevice,
    #[n(5)]
    BlockDevice,
    #[n(6)]
    Socket,
}

/// Seconds and nanoseconds since the epoch: wider than [`Time`], because file systems hold any date.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, minicbor::Encode, minicbor::Decode,
)]
pub struct FileTime {
    #[n(0)]
    pub seconds: i64,
    #[n(1)]
    pub nanoseconds: u32,
}

impl fmt::Display for FileTime {
    /// RFC 3339 in UTC with the digits that tell two times apart; a date beyond the calendar as seconds since the epoch.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match i32::try_from(self.nanoseconds).map(|rest| jiff::Timestamp::new(self.seconds, rest)) {
            Ok(Ok(time)) => write!(f, "{time}"),
            _ => write!(f, "{}.{:09} s since 1970", self.seconds, self.nanoseconds),
        }
    }
}

/// Why the recorded content may not be what the file held at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, minicbor::Encode, minicbor::Decode)]
#[cbor(index_only)]
pub enum Doubt {
    /// It changed each time it was read; what is recorded is the last reading.
    #[n(0)]
    ChangedWhileRead,
    /// It could not be read; there is no content.
    #[n(1)]
    Unreadable,
}

#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct Xattr {
    #[cbor(n(0), with = "minicbor::bytes")]
    pub name: Vec<u8>,
    #[cbor(n(1), with = "minicbor::bytes")]
    pub value: Vec<u8>,
}

/// One name in one directory.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Entry {
    /// Any bytes but `/` and NUL; never `.` or `..`. Empty for the root directory itself, in the root's block only.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub name: Vec<u8>,
    #[n(1)]
    pub kind: FileKind,
    /// Permission bits with set-uid, set-gid and sticky: `st_mode & 0o7777`.
    #[n(2)]
    pub mode: u32,
    #[n(3)]
    pub uid: u32,
    #[n(4)]
    pub gid: u32,
    /// Bytes; for symlinks the length of the target.
    #[n(5)]
    pub size: u64,
    #[n(6)]
    pub modified: FileTime,
    #[n(7)]
    pub changed: FileTime,
    #[n(8)]
    pub inode: u64,
    #[n(9)]
    pub device: u64,
    /// Number of hard links where it is more than one: entries with the same device and inode are one file.
    #[n(10)]
    pub links: Option<u64>,
    /// Device number (`st_rdev`) of a device node.
    #[n(11)]
    pub device_node: Option<u64>,
    #[cbor(n(12), with = "minicbor::bytes")]
    pub target: Option<Vec<u8>>,
    /// Extended attributes in byte order of their names; POSIX ACLs are `system.posix_acl_*`.
    #[n(13)]
    pub xattrs: Option<Vec<Xattr>>,
    /// Of regular files. Holes of sparse files are pieces without a chunk.
    #[n(14)]
    pub content: Option<Content>,
    #[n(15)]
    pub doubt: Option<Doubt>,
    /// It was modified less than two seconds before it was read, so its metadata does not prove it unchanged; or pages in it are
    /// damaged, and whoever takes it over must judge them again.
    #[n(16)]
    pub fresh: Option<bool>,
    /// In a listing of deleted files: when it was first missed.
    #[n(17)]
    pub deleted: Option<Time>,
    /// Of a relation file: the hashes of the pages of its frames' chunks, before patches; see `sources::postgres::cluster`.
    #[n(18)]
    pub pages: Option<Content>,
}

/// An item of a listing's chunk: each chunk begins with a `Directory`, and entries belong to the directory before them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// Path from the source's root, components joined by `/`, empty for the root itself. CBOR byte string.
    Directory(Vec<u8>),
    /// CBOR map. Boxed: most of a listing is entries, and they are large.
    Entry(Box<Entry>),
}

/// Appends an item to a listing chunk.
pub fn encode_item(item: &Item, out: &mut Vec<u8>) {
    match item {
        Item::Directory(path) => encode_directory(path, out),
        Item::Entry(entry) => encode_entry(entry, out),
    }
}

pub fn encode_directory(path: &[u8], out: &mut Vec<u8>) {
    minicbor::Encoder::new(out).bytes(path).expect("writing to a Vec cannot fail");
}

pub fn encode_entry(entry: &Entry, out: &mut Vec<u8>) {
    minicbor::encode(entry, out).expect("writing to a Vec cannot fail");
}

/// The items of one listing chunk. Stops after the first malformed one.
pub fn decode_items(chunk: &[u8]) -> impl Iterator<Item = Result<Item, minicbor::decode::Error>> + '_ {
    let mut decoder = minicbor::Decoder::new(chunk);
    let mut broken = false;
    std::iter::from_fn(move || {
        if broken || decoder.position() >= chunk.len() {
            return None;
        }
        let item = match decoder.datatype() {
            Ok(minicbor::data::Type::Bytes) => decoder.bytes().map(|path| Item::Directory(path.to_vec())),
            Ok(_) => decoder.decode::<Entry>().map(|entry| Item::Entry(Box::new(entry))),
            Err(error) => Err(error),
        };
        broken = item.is_err();
        Some(item)
    })
}

/// The key of an entry: its directory's path, NUL, its name. A directory's own block has an empty name.
pub fn key(directory: &[u8], name: &[u8]) -> Vec<u8> {
    [directory, b"\0", name].concat()
}

/// Directory and name of a [`key`].
pub fn split_key(key: &[u8]) -> (&[u8], &[u8]) {
    match key.iter().position(|b| *b == 0) {
        Some(at) => (&key[..at], &key[at + 1..]),
        None => (key, b""),
    }
}

/// Listing order of two keys: directories depth first (component by component), then names.
pub fn compare_keys(a: &[u8], b: &[u8]) -> Ordering {
    let ((dir_a, name_a), (dir_b, name_b)) = (split_key(a), split_key(b));
    compare_paths(dir_a, dir_b).then_with(|| name_a.cmp(name_b))
}

/// Depth-first order of two directory paths: as if `/` sorted before every other byte.
pub fn compare_paths(a: &[u8], b: &[u8]) -> Ordering {
    let common = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    let rank = |byte: Option<&u8>| match byte {
        None => 0,
        Some(b'/') => 1,
        Some(other) => 2 + u16::from(*other),
    };
    rank(a.get(common)).cmp(&rank(b.get(common)))
}

/// Path of `name` in `directory`.
pub fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_depth_first_whatever_bytes_sort_below_the_slash() {
        let mut paths = vec![&b"a.b"[..], b"a/b", b"a", b"", b"a-", b"a/b/c", b"b"];
        paths.sort_by(|a, b| compare_paths(a, b));
        assert_eq!(paths, [&b""[..], b"a", b"a/b", b"a/b/c", b"a-", b"a.b", b"b"]);
    }

    #[test]
    fn a_time_is_shown_as_a_date_however_far_away_it_is() {
        let shown = |seconds, nanoseconds| FileTime { seconds, nanoseconds }.to_string();
        assert_eq!(shown(1_795_000_000, 5), "2026-11-18T11:06:40.000000005Z");
        assert_eq!(shown(-1, 0), "1969-12-31T23:59:59Z");
        assert_eq!(shown(i64::MAX, 1), "9223372036854775807.000000001 s since 1970");
    }

    #[test]
    fn a_chunk_of_items_survives_its_encoding() {
        let entry = Entry {
            name: b"na\nme\xff".to_vec(),
            kind: FileKind::Regular,
            mode: 0o4755,
            uid: 1000,
            gid: 0,
            size: 3,
            modified: FileTime { seconds: -1, nanoseconds: 999_999_999 },
            changed: FileTime::default(),
            inode: 7,
            device: 1,
            links: Some(2),
            device_node: None,
            target: None,
            xattrs: Some(vec![Xattr { name: b"user.x".to_vec(), value: vec![0, 255] }]),
            content: Some(Content::default()),
            doubt: Some(Doubt::ChangedWhileRead),
            fresh: Some(true),
            deleted: Some(Time(5)),
            pages: None,
        };
        let items = vec![Item::Directory(b"d/e".to_vec()), Item::Entry(Box::new(entry))];
        let mut chunk = Vec::new();
        items.iter().for_each(|item| encode_item(item, &mut chunk));
        assert_eq!(decode_items(&chunk).collect::<Result<Vec<_>, _>>().unwrap(), items);
        assert!(decode_items(&chunk[..chunk.len() - 1]).any(|item| item.is_err()), "a cut chunk is noticed");
    }
}
