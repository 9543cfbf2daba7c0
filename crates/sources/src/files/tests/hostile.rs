//! Listings that somebody made to break out, or that are simply wrong.

use super::{
    super::{testing::*, *},
    into, names, restore_with,
};
use mainstay_domain::{
    Kind, Silent, Time,
    listing::{self, Entry, FileKind, FileTime},
    point::{SourceRecord, State, Stream},
    stream::{Content, Marks, Piece, Pool, Sink},
};
use proptest::prelude::*;

fn entry(name: &[u8], kind: FileKind) -> Entry {
    Entry {
        name: name.to_vec(),
        kind,
        mode: 0o777,
        uid: 0,
        gid: 0,
        size: 0,
        modified: FileTime::default(),
        changed: FileTime::default(),
        inode: 1,
        device: 1,
        links: None,
        device_node: None,
        target: (kind == FileKind::Symlink).then(|| b"/etc".to_vec()),
        xattrs: None,
        content: (kind == FileKind::Regular).then(Content::default),
        doubt: None,
        fresh: None,
        deleted: None,
        pages: None,
    }
}

fn file(name: &[u8]) -> Entry {
    entry(name, FileKind::Regular)
}

fn dir(name: &[u8]) -> Entry {
    entry(name, FileKind::Directory)
}

fn link(name: &[u8]) -> Entry {
    entry(name, FileKind::Symlink)
}

fn record(memory: &Memory, chunks: Vec<Vec<u8>>) -> SourceRecord {
    let mut writer = memory.begin(Pool::Tree);
    for chunk in chunks {
        writer.piece(&chunk, Marks { rows: 1, ..Marks::default() }).unwrap();
    }
    SourceRecord {
        name: "hostile".into(),
        kind: KIND.into(),
        state: State::Complete,
        started: Time(0),
        finished: Time(0),
        consistent_at: None,
        streams: vec![Stream { name: LISTING.into(), content: writer.finish().unwrap() }],
        facts: String::new(),
        problems: Vec::new(),
        bytes: 0,
        items: 0,
        partial: false,
    }
}

type Blocks<'b> = Vec<(&'b [u8], Vec<Entry>)>;

fn listing(blocks: &[(&[u8], Vec<Entry>)]) -> Vec<u8> {
    let mut chunk = Vec::new();
    for (path, entries) in blocks {
        listing::encode_directory(path, &mut chunk);
        entries.iter().for_each(|entry| listing::encode_entry(entry, &mut chunk));
    }
    chunk
}

#[test]
fn a_listing_that_reaches_out_or_contradicts_itself_is_refused_and_nothing_lies_outside() {
    let endless = Content { level: 0, pieces: vec![Piece::hole(u64::MAX), Piece::hole(u64::MAX)] };
    let cases: Vec<(&str, Blocks<'_>)> = vec![
        ("a slash in a name", vec![(b"", vec![file(b"../evil")])]),
        ("a dot-dot", vec![(b"", vec![dir(b"..")])]),
        ("a dot", vec![(b"", vec![dir(b".")])]),
        ("an empty name below the root", vec![(b"", vec![dir(b"a")]), (b"a", vec![file(b"")])]),
        ("a NUL", vec![(b"", vec![file(b"a\0b")])]),
        ("a path that climbs", vec![(b"", vec![]), (b"../evil", vec![file(b"x")])]),
        ("an absolute path", vec![(b"", vec![]), (b"/evil", vec![file(b"x")])]),
        ("an empty component", vec![(b"", vec![dir(b"a")]), (b"a//b", vec![file(b"x")])]),
        ("the same name twice", vec![(b"", vec![file(b"a"), file(b"a")])]),
        ("a file and a directory of one name", vec![(b"", vec![file(b"a"), dir(b"a")]), (b"a", vec![])]),
        ("names out of order", vec![(b"", vec![file(b"b"), file(b"a")])]),
        ("directories out of order", vec![(b"", vec![dir(b"a"), dir(b"b")]), (b"b", vec![]), (b"a", vec![])]),
        ("files below a link", vec![(b"", vec![link(b"a")]), (b"a", vec![file(b"passwd")])]),
        ("files below a file", vec![(b"", vec![file(b"a")]), (b"a", vec![file(b"x")])]),
        ("a directory nobody named", vec![(b"", vec![]), (b"a", vec![file(b"x")])]),
        ("a directory that skips its parent", vec![(b"", vec![dir(b"a")]), (b"a/b", vec![file(b"x")])]),
        ("a link with content", vec![(b"", vec![Entry { content: Some(Content::default()), ..link(b"a") }])]),
        ("a file longer than any", vec![(b"", vec![Entry { content: Some(endless), ..file(b"a") }])]),
        ("a link to nowhere", vec![(b"", vec![Entry { target: None, ..link(b"a") }])]),
    ];
    for (what, blocks) in cases {
        let memory = Memory::default();
        let record = record(&memory, vec![listing(&blocks)]);
        let scratch = tempfile::tempdir().unwrap();
        let target = scratch.path().join("target");
        let failure = restore_with(&memory, &record, &into(&target)).map(|_| what).unwrap_err();
        assert_eq!(failure.kind, Kind::Verification, "{what}: {failure}");
        assert_eq!(
            names(scratch.path()).iter().filter(|name| !name.starts_with("target")).count(),
            0,
            "{what}"
        );
        assert!(names(scratch.path()).iter().all(|name| !name.contains("mainstay-restore")), "{what}");
    }
}

#[test]
fn entries_before_any_directory_and_bytes_that_are_no_listing_are_refused() {
    let mut headless = Vec::new();
    listing::encode_entry(&file(b"a"), &mut headless);
    let mut cut = listing(&[(b"", vec![file(b"a")])]);
    cut.truncate(cut.len() - 3);
    for chunk in [headless, cut, b"\xff\xff\xff".to_vec(), vec![0x9f; 100]] {
        let memory = Memory::default();
        let record = record(&memory, vec![chunk]);
        let scratch = tempfile::tempdir().unwrap();
        let failure = restore_with(&memory, &record, &into(scratch.path())).unwrap_err();
        assert_eq!(failure.kind, Kind::Verification);
        assert_eq!(compare(&memory, &record, scratch.path(), &Silent).unwrap_err().kind, Kind::Verification);
    }
}

#[test]
fn a_size_that_is_not_that_of_the_content_is_a_named_failure() {
    let memory = Memory::default();
    let wrong = Entry { size: 1 << 60, ..file(b"a") };
    let record = record(&memory, vec![listing(&[(b"", vec![wrong, file(b"b")])])]);
    let scratch = tempfile::tempdir().unwrap();
    let report = restore_with(&memory, &record, &into(scratch.path())).unwrap();
    assert_eq!((report.state, report.problems[0].object.as_str()), (State::Incomplete, "a"));
    assert_eq!(names(scratch.path()), ["b"]);
}

#[test]
fn a_hard_link_group_cannot_pull_in_a_file_from_elsewhere() {
    // Two entries that claim to be one file: the second becomes a link to the first, whatever else it claims.
    let memory = Memory::default();
    let one = Entry { links: Some(2), ..file(b"a") };
    let two = Entry { links: Some(2), size: 77, ..file(b"b") };
    let record = record(&memory, vec![listing(&[(b"", vec![one, two])])]);
    let scratch = tempfile::tempdir().unwrap();
    restore_with(&memory, &record, &into(scratch.path())).unwrap();
    assert!(!compare(&memory, &record, scratch.path(), &Silent).unwrap().is_equal());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_listing_of_random_bytes_ends_in_an_error_or_in_nothing(chunk in proptest::collection::vec(any::<u8>(), 1..200)) {
        let memory = Memory::default();
        let record = record(&memory, vec![chunk]);
        let scratch = tempfile::tempdir().unwrap();
        if let Err(failure) = restore_with(&memory, &record, &into(scratch.path())) {
            prop_assert_eq!(failure.kind, Kind::Verification);
        }
    }

    #[test]
    fn a_damaged_listing_never_writes_outside(at in any::<prop::sample::Index>(), with in any::<u8>()) {
        let memory = Memory::default();
        let blocks: Blocks<'_> = vec![
            (b"", vec![dir(b"aa"), dir(b"bb"), file(b"cc"), link(b"dd")]),
            (b"aa", vec![dir(b"ee"), file(b"ff")]),
            (b"aa/ee", vec![file(b"gg")]),
            (b"bb", vec![link(b"hh")]),
        ];
        let mut chunk = listing(&blocks);
        let at = at.index(chunk.len());
        chunk[at] = with;
        let record = record(&memory, vec![chunk]);
        let scratch = tempfile::tempdir().unwrap();
        let target = scratch.path().join("target");
        let _ = restore_with(&memory, &record, &into(&target));
        prop_assert!(names(scratch.path()).iter().all(|name| name.starts_with("target")));
    }
}
