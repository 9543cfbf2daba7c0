//! A small repository with something of everything that the format describes: files of every kind, holes, long lists, a
//! table in several parts, points that were dropped and collected, holds, proofs, a checkpoint, two recipients.
//!
//! What it holds is fixed by this file, so a repository that was written long ago can be compared with it. **Changing what
//! is written here breaks the golden repositories**: add to it only together with a new one.

use mainstay_domain::{
    Clock, PointId, Silent, Time,
    listing::{self, Entry, FileKind, FileTime, Item, Xattr},
    point::{Hold, Point, Proof, ProofLevel, SourceRecord, SourceSummary, State, Stream, Summary},
    stream::{Content, Marks, Piece, Pool, Sink},
};
use mainstay_keys::{recipient, secret::Secret};
use mainstay_repository::{
    Access, Repository, Session, Tuning, collect::collect, pack::chunk_id, proof, stream::Chunking,
};
use mainstay_stores::Store;
use siphasher::sip128::SipHasher13;
use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

pub const KEY: [u8; 32] = [7; 32];
pub const PASSPHRASE: &str = "correct horse battery staple";
const CHUNKING: Chunking = Chunking { minimum: 1 << 10, average: 2 << 10, maximum: 8 << 10 };
/// 2023-11-14T22:13:20Z.
const START: i64 = 1_700_000_000_000_000_000;
/// As many as make a list of lists of lists (a list chunk is cut at a marked piece, but not before the 128th).
const MANY: usize = 128 * 66;

/// A clock that moves a second each time it is asked.
struct Ticking(AtomicI64);

impl Clock for Ticking {
    fn now(&self) -> Time {
        Time(self.0.fetch_add(1_000_000_000, Ordering::Relaxed))
    }
}

pub fn access(store: &Arc<dyn Store>, secret: Secret) -> Access {
    let clock = Arc::new(Ticking(AtomicI64::new(START)));
    Access { store: store.clone(), secret, clock, cache: None }
}

pub fn open(store: &Arc<dyn Store>) -> Repository {
    Repository::open(access(store, Secret::Key(KEY)), None).unwrap()
}

/// Bytes that do not compress and are the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// The regular files of point `n` by path, in listing order. The path holds a newline and a byte that is not UTF-8.
pub fn files(n: u64) -> Vec<(&'static [u8], Vec<u8>)> {
    let sparse = [&b"begin"[..], &vec![0; 1_500_000], b"end"].concat();
    vec![
        (b"hello.txt", format!("Hello, point {n}.\n").into_bytes()),
        (b"noise.bin", noise(1, 12_000)),
        (b"sparse.img", sparse),
        (b"a/na\nme\xff", b"a strange name".repeat(100)),
        (b"a/deep/copy.bin", noise(1, 12_000)),
        (b"a/deep/empty", Vec::new()),
    ]
}

/// The tables: name as in the stream, and the rows of each part, in pieces.
pub fn tables() -> Vec<(&'static str, Vec<Vec<Vec<u8>>>)> {
    let row = |n: usize| format!("{n}\tcustomer {}\t\\N\t{:.2}\n", n % 97, n as f64 / 7.0);
    let rows = |from: usize, to: usize| (from..to).map(row).collect::<String>().into_bytes();
    let first = (0..10).map(|n| rows(n * 40, n * 40 + 40)).collect();
    vec![
        ("public.orders", vec![first, vec![rows(400, 450)], Vec::new()]),
        ("sales.Zeile%2Fä", vec![vec![b"1\n".to_vec()]]),
    ]
}

/// Writes the sample into an empty store, and returns its newest point. Two points live in it, 1 and 2; of point 9 nothing is
/// left, and of point 3, which was dropped, everything.
pub fn write(store: &Arc<dyn Store>) -> PointId {
    let key = access(store, Secret::Key(KEY));
    Repository::init(&key, "the key", CHUNKING).unwrap();
    let repository = open(store);
    let bundle = repository.keyring().current();
    let phrase = Secret::Passphrase(PASSPHRASE.into());
    let (id, now, root) = (repository.id(), repository.clock().now(), bundle.root().unwrap());
    let (name, bytes) = recipient::wrap(bundle, &phrase, id, "the phrase", now, &root).unwrap();
    store.create(&name, &bytes).unwrap();

    let first = back_up(&repository, 1, None);
    let collected = back_up(&repository, 9, Some(first));
    repository.drop_point(collected, "a test", "it is collected").unwrap();
    collect(&repository, 0, &Silent).unwrap();
    Session::begin(&repository, tuning()).unwrap().abandon();
    let kept = Hold {
        kind: "legal".into(),
        reason: "an audit".into(),
        by: "a test".into(),
        since: Time(START),
        until: None,
    };
    repository.hold(first, kept.clone()).unwrap();
    // Enough entries to make a checkpoint due.
    for _ in 0..20 {
        let hold = repository.hold(first, kept.clone()).unwrap();
        repository.release_hold(hold, "a test", "it is over").unwrap();
    }
    let second = back_up(&repository, 2, Some(first));
    let dropped = back_up(&repository, 3, Some(second));
    repository.drop_point(dropped, "a test", "its objects stay").unwrap();
    let report = proof::store(&repository, "{\"restored\": true}", Time(START)).unwrap();
    let proof =
        Proof { at: Time(START), level: ProofLevel::Restore, passed: true, restore_millis: 1234, report };
    repository.record_proof(second, proof).unwrap();
    second
}

fn tuning() -> Tuning {
    Tuning { compress: true, level: Some(1), pack_bytes: 1 << 20, compressors: 1, in_flight: 1 << 20 }
}

fn back_up(repository: &Repository, n: u64, previous: Option<PointId>) -> PointId {
    let session = Session::begin(repository, tuning()).unwrap();
    let at = repository.clock().now();
    let record = |name: &str, kind: &str, streams, bytes, items| SourceRecord {
        name: name.into(),
        kind: kind.into(),
        state: State::Complete,
        started: at,
        finished: at,
        consistent_at: (kind == "postgres").then_some(at),
        streams,
        facts: "{}".into(),
        problems: Vec::new(),
        bytes,
        items,
        partial: false,
    };
    let listing = listing(&session, n);
    let bytes = files(n).iter().map(|(_, bytes)| bytes.len() as u64).sum();
    let files = record("uploads", "files", vec![stream("listing", listing)], bytes, 13);
    let tables = table_streams(&session, repository);
    let (bytes, items) =
        tables.iter().fold((0, 0), |(b, r), s| (b + s.content.bytes(), r + s.content.rows()));
    let database = record("db", "postgres", tables, bytes, items);
    let brief = |s: &SourceRecord| SourceSummary {
        name: s.name.clone(),
        kind: s.kind.clone(),
        state: s.state,
        bytes: s.bytes,
        items: s.items,
        partial: s.partial,
    };
    let brief = vec![brief(&files), brief(&database)];
    let summary =
        Summary { started: at, finished: Time(at.0 + 5_000_000_000), ..summary(n, State::Complete, brief) };
    let sources = vec![files, database];
    let point = |stored_bytes| Point {
        summary: Summary { stored_bytes, ..summary },
        sources,
        previous,
        supersedes: None,
        tool: "test".into(),
    };
    session.commit(point).unwrap().point
}

pub fn summary(n: u64, state: State, sources: Vec<SourceSummary>) -> Summary {
    Summary {
        app: "shop".into(),
        environment: "test".into(),
        policy: Some("nightly".into()),
        host: "here".into(),
        started: Time(START),
        finished: Time(START),
        sequence: n,
        state,
        sources,
        stored_bytes: 0,
        labels: [("release".to_owned(), format!("1.{n}"))].into(),
        next_expected: None,
        keep_until: None,
    }
}

fn stream(name: &str, content: Content) -> Stream {
    Stream { name: name.into(), content }
}

/// What the listing of point `n` holds; `store` stores a file's bytes.
pub fn items(n: u64, store: &dyn Fn(&[u8], &[u8]) -> Content) -> Vec<Item> {
    let mut files = files(n).into_iter();
    let mut inode = 0;
    let mut item = |name: &[u8], kind: FileKind, path: &[u8]| {
        inode += 1;
        let regular = (kind == FileKind::Regular).then(|| files.next().unwrap());
        if let Some((next, _)) = &regular {
            assert_eq!(*next, path, "the order of files() is that of the listing");
        }
        Item::Entry(Box::new(Entry {
            name: name.to_vec(),
            kind,
            mode: if kind == FileKind::Directory { 0o2750 } else { 0o640 },
            uid: 1000,
            gid: 33,
            size: regular.as_ref().map_or(0, |(_, bytes)| bytes.len() as u64),
            modified: FileTime { seconds: -1, nanoseconds: 999_999_999 },
            changed: FileTime { seconds: 1_700_000_000, nanoseconds: 5 },
            inode,
            device: 1,
            links: (name == b"copy.bin").then_some(2),
            device_node: (kind == FileKind::CharDevice).then_some(0x103),
            target: (kind == FileKind::Symlink).then(|| b"../no\\where".to_vec()),
            xattrs: (name == b"hello.txt")
                .then(|| vec![Xattr { name: b"user.note".to_vec(), value: vec![0, 255] }]),
            content: regular.map(|(path, bytes)| store(path, &bytes)),
            doubt: None,
            fresh: (name == b"noise.bin").then_some(true),
            deleted: None,
            pages: None,
        }))
    };
    use FileKind::*;
    vec![
        Item::Directory(b"".to_vec()),
        item(b"", Directory, b""),
        item(b"a", Directory, b"a"),
        item(b"a.b", Directory, b"a.b"),
        item(b"hello.txt", Regular, b"hello.txt"),
        item(b"link", Symlink, b"link"),
        item(b"noise.bin", Regular, b"noise.bin"),
        item(b"null", CharDevice, b"null"),
        item(b"pipe", Fifo, b"pipe"),
        item(b"sparse.img", Regular, b"sparse.img"),
        Item::Directory(b"a".to_vec()),
        item(b"deep", Directory, b"a/deep"),
        item(b"na\nme\xff", Regular, b"a/na\nme\xff"),
        Item::Directory(b"a/deep".to_vec()),
        item(b"copy.bin", Regular, b"a/deep/copy.bin"),
        item(b"empty", Regular, b"a/deep/empty"),
        Item::Directory(b"a.b".to_vec()),
    ]
}

fn listing(session: &Session<'_>, n: u64) -> Content {
    let store = |path: &[u8], bytes: &[u8]| {
        if path != b"sparse.img" {
            return session.put_reader(Pool::Data, &mut &*bytes).unwrap();
        }
        let (begin, end) = (&bytes[..5], &bytes[bytes.len() - 3..]);
        let hole = Piece::hole((bytes.len() - 8) as u64);
        let put = |part: &[u8]| Piece::plain(session.put(Pool::Data, part).unwrap(), part.len() as u64);
        Content { level: 0, pieces: vec![put(begin), hole, put(end)] }
    };
    let mut writer = session.begin(Pool::Tree);
    let items = items(n, &store);
    // The first chunk ends within the root's block, the second at the block of `a/deep`.
    let mut directory = Vec::new();
    for part in [&items[..6], &items[6..13], &items[13..]] {
        let mut chunk = Vec::new();
        if let Item::Entry(_) = part[0] {
            listing::encode_directory(&directory, &mut chunk);
        }
        let key_directory = if let Item::Directory(path) = &part[0] { path } else { &directory }.clone();
        let mut first = None;
        let mut rows = 0;
        for item in part {
            match item {
                Item::Directory(path) => directory = path.clone(),
                Item::Entry(entry) => {
                    rows += 1;
                    first.get_or_insert_with(|| entry.name.clone());
                }
            }
            listing::encode_item(item, &mut chunk);
        }
        let key = listing::key(&key_directory, &first.unwrap_or_default());
        writer.piece(&chunk, Marks { rows, digest: 0, key }).unwrap();
    }
    writer.finish().unwrap()
}

fn table_streams(session: &Session<'_>, repository: &Repository) -> Vec<Stream> {
    let bundle = repository.keyring().current();
    let mut streams = vec![stream(
        "schema",
        session.put_reader(Pool::Data, &mut &b"CREATE TABLE orders ();\n"[..]).unwrap(),
    )];
    let mut tables = tables();
    tables.push(("public.many", vec![vec![many_row(&bundle.chunk_id_key()); MANY]]));
    for (name, parts) in tables {
        for (part, pieces) in parts.into_iter().enumerate() {
            let mut writer = session.begin(Pool::Data);
            for piece in pieces {
                let (rows, digest) = digest(&bundle.row_key(), &piece);
                writer.piece(&piece, Marks { rows, digest, key: Vec::new() }).unwrap();
            }
            streams.push(stream(&format!("table/{name}/{part}"), writer.finish().unwrap()));
        }
    }
    streams
}

/// A row after which a list chunk may be cut, so that a short stream has lists of lists.
pub fn many_row(chunk_id_key: &[u8; 32]) -> Vec<u8> {
    let row = |n: u32| format!("{n}\n").into_bytes();
    let marked = |row: &Vec<u8>| {
        let id = chunk_id(chunk_id_key, row).0;
        u16::from_be_bytes([id[0], id[1]]).is_multiple_of(512)
    };
    (0..).map(row).find(marked).unwrap()
}

pub fn many(chunk_id_key: &[u8; 32]) -> Vec<u8> {
    many_row(chunk_id_key).repeat(MANY)
}

/// Number of rows, and the sum of their digests.
pub fn digest(row_key: &[u8; 16], rows: &[u8]) -> (u64, u128) {
    let hasher = SipHasher13::new_with_key(row_key);
    let rows = rows.split_inclusive(|byte| *byte == b'\n').map(|row| hasher.hash(row).as_u128());
    rows.fold((0, 0), |(n, sum), row| (n + 1, u128::wrapping_add(sum, row)))
}
