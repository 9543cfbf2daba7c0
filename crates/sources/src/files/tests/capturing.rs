//! What a capture records, and what it leaves unread.

use super::{
    super::{testing::*, *},
    tree, write,
};
use mainstay_domain::{
    Kind, Severity, Silent,
    listing::{self, Doubt, FileKind},
    point::State,
    stream::{Sink, Vault},
};
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    sync::atomic::{AtomicU32, Ordering},
};

#[test]
fn a_tree_is_recorded_in_listing_order_with_its_content() {
    let scratch = tree(&[("b", "1"), ("a/x", "22"), ("a/c/y", "333"), ("a-/z", "4444")]);
    let memory = Memory::default();
    let record = backup(&memory, &config(scratch.path()), None);
    assert_eq!(record.state, State::Complete, "{:?}", record.problems);
    assert_eq!((record.items, record.bytes), (7, 10));
    assert_eq!(
        paths(&memory, &record, LISTING),
        ["", "a", "a-", "b", "a/c", "a/x", "a/c/y", "a-/z"],
        "depth first, names in byte order, the root itself first"
    );
    for (path, entry) in entries(&memory, &record, LISTING) {
        if let Some(content) = &entry.content {
            let on_disk = fs::read(scratch.path().join(show_path(&path))).unwrap();
            assert_eq!(memory.bytes_of(content), on_disk);
        }
    }
}

#[test]
fn an_unchanged_tree_is_not_read_and_makes_the_same_listing() {
    let names: Vec<String> = (0..3000).map(|n| format!("d{}/file{n}", n % 7)).collect();
    let files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), name.as_str())).collect();
    let scratch = tree(&files);
    let memory = Memory::default();
    let config = config(scratch.path());
    let first = backup(&memory, &config, None);
    let (puts, opened) = (memory.puts.load(Ordering::Relaxed), AtomicU32::new(0));
    let hook = |_: Moment, _: &[u8]| {
        opened.fetch_add(1, Ordering::Relaxed);
    };
    let options = CaptureOptions { hook: Some(&hook), ..CaptureOptions::new(&TEN_SECONDS_ON) };
    let vault: &dyn Vault = &memory;
    let second = capture("files", &config, &memory, Some((vault, &first)), &options, &Silent).unwrap();
    assert_eq!(opened.load(Ordering::Relaxed), 0, "nothing is opened");
    assert_eq!(first.stream(LISTING), second.stream(LISTING));
    let pieces = memory.pieces_of(&first.streams[0].content).len() as u64;
    assert_eq!(memory.puts.load(Ordering::Relaxed) - puts, pieces, "only the listing is put again");
    assert_eq!(Facts::of(&second).counts.unchanged, 3008);
}

#[test]
fn a_change_in_one_place_leaves_the_rest_of_the_listing_as_it_is() {
    let names: Vec<String> = (0..6000).map(|n| format!("d{}/file{n}", n / 100)).collect();
    let files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "same")).collect();
    let scratch = tree(&files);
    let memory = Memory::default();
    let first = backup(&memory, &config(scratch.path()), None);
    write(scratch.path(), "d30/aaa-new", "new");
    let second = backup(&memory, &config(scratch.path()), Some(&first));
    let ids = |record: &mainstay_domain::point::SourceRecord| {
        memory.pieces_of(&record.streams[0].content).iter().map(|p| p.chunk.unwrap()).collect::<Vec<_>>()
    };
    let (old, new) = (ids(&first), ids(&second));
    let fresh = new.iter().filter(|id| !old.contains(id)).count();
    assert!(old.len() > 6, "{}", old.len());
    assert!(fresh <= 3, "{fresh} of {} pieces are new", new.len());
}

#[test]
fn a_file_modified_less_than_two_seconds_before_is_read_again() {
    let scratch = tree(&[("a", "one")]);
    let memory = Memory::default();
    let config = config(scratch.path());
    let first = backup_at(&memory, &config, None, &Later(0));
    assert_eq!(entries(&memory, &first, LISTING)[1].1.fresh, Some(true));
    let modified = fs::metadata(scratch.path().join("a")).unwrap().modified().unwrap();
    // The same size and mtime; ctime moves, but the point is that nobody had to trust it.
    fs::write(scratch.path().join("a"), "two").unwrap();
    fs::File::options().write(true).open(scratch.path().join("a")).unwrap().set_modified(modified).unwrap();
    let second = backup(&memory, &config, Some(&first));
    let content = entries(&memory, &second, LISTING)[1].1.content.clone().unwrap();
    assert_eq!(memory.bytes_of(&content), b"two");
    let third = backup(&memory, &config, Some(&second));
    assert_eq!(entries(&memory, &third, LISTING)[1].1.fresh, None);
}

#[test]
fn content_that_the_repository_lost_is_read_again() {
    let scratch = tree(&[("a", "lost"), ("b", "kept")]);
    let memory = Memory::default();
    let first = backup(&memory, &config(scratch.path()), None);
    assert_eq!(memory.damage(|chunk| chunk == b"lost"), 1);
    let second = backup(&memory, &config(scratch.path()), Some(&first));
    assert_eq!(second.state, State::Complete);
    assert_eq!(Facts::of(&second).counts.unchanged, 2, "the root and b");
}

#[test]
fn full_reads_everything_and_names_what_changed_in_silence() {
    let scratch = tree(&[("a", "good"), ("b", "same")]);
    let memory = Memory::default();
    let config = config(scratch.path());
    let mut first = backup(&memory, &config, None);
    // As if a had held something else while its metadata was the same.
    let stream = entries(&memory, &first, LISTING);
    let mut chunk = Vec::new();
    listing::encode_directory(b"", &mut chunk);
    for (_, mut entry) in stream {
        if entry.name == b"a" {
            entry.content = Some(memory_content(&memory, b"evil"));
        }
        listing::encode_entry(&entry, &mut chunk);
    }
    first.streams[0].content = memory_content(&memory, &chunk);
    first.streams[0].content.pieces[0].rows = 3;
    let options = CaptureOptions { full: true, ..CaptureOptions::new(&TEN_SECONDS_ON) };
    let vault: &dyn Vault = &memory;
    let second = capture("files", &config, &memory, Some((vault, &first)), &options, &Silent).unwrap();
    assert_eq!(Facts::of(&second).counts.unchanged, 0);
    let [problem] = &second.problems[..] else { panic!("{:?}", second.problems) };
    assert_eq!(problem.severity, Severity::Warning);
    assert!(problem.object.ends_with("/a") && problem.message.contains("content is another"));
}

fn memory_content(memory: &Memory, bytes: &[u8]) -> mainstay_domain::stream::Content {
    use mainstay_domain::stream::Pool;
    memory.put_reader(Pool::Data, &mut &bytes[..]).unwrap()
}

#[test]
fn a_file_that_changes_once_while_it_is_read_is_read_again() {
    let scratch = tree(&[("a", "before")]);
    let path = scratch.path().join("a");
    let count = AtomicU32::new(0);
    let hook = |moment: Moment, name: &[u8]| {
        if moment == Moment::Read && name == b"a" && count.fetch_add(1, Ordering::Relaxed) == 0 {
            fs::write(&path, "afterwards").unwrap();
        }
    };
    let memory = Memory::default();
    let options = CaptureOptions { hook: Some(&hook), ..CaptureOptions::new(&TEN_SECONDS_ON) };
    let record = capture("files", &config(scratch.path()), &memory, None, &options, &Silent).unwrap();
    assert_eq!(record.state, State::Complete);
    assert!(record.problems.is_empty(), "{:?}", record.problems);
    let entry = &entries(&memory, &record, LISTING)[1].1;
    assert_eq!((entry.size, entry.doubt), (10, None));
    assert_eq!(memory.bytes_of(entry.content.as_ref().unwrap()), b"afterwards");
}

#[test]
fn a_file_that_changes_each_time_is_recorded_with_a_doubt_and_reported() {
    let scratch = tree(&[("a", "x")]);
    let path = scratch.path().join("a");
    let count = AtomicU32::new(0);
    let hook = |moment: Moment, name: &[u8]| {
        if moment == Moment::Read && name == b"a" {
            let n = count.fetch_add(1, Ordering::Relaxed);
            fs::write(&path, "x".repeat(2 + n as usize)).unwrap();
        }
    };
    let memory = Memory::default();
    let config = config(scratch.path());
    let options = CaptureOptions { hook: Some(&hook), ..CaptureOptions::new(&TEN_SECONDS_ON) };
    let record = capture("files", &config, &memory, None, &options, &Silent).unwrap();
    assert_eq!(count.load(Ordering::Relaxed), 3);
    assert_eq!(record.state, State::Complete, "what was read is whole, if not of one instant");
    assert_eq!(record.problems[0].severity, Severity::Warning);
    let entry = &entries(&memory, &record, LISTING)[1].1;
    assert_eq!(entry.doubt, Some(Doubt::ChangedWhileRead));
    assert_eq!(entry.size, entry.content.as_ref().unwrap().bytes(), "the size is that of what was read");
    let next = backup(&memory, &config, Some(&record));
    assert_eq!(entries(&memory, &next, LISTING)[1].1.doubt, None, "and it is read again next time");
}

#[test]
fn a_file_that_vanishes_before_it_is_opened_is_absent_and_nothing_is_wrong() {
    let scratch = tree(&[("a", "1"), ("b", "2")]);
    let path = scratch.path().join("a");
    let hook = |moment: Moment, name: &[u8]| {
        if moment == Moment::Found && name == b"a" {
            fs::remove_file(&path).unwrap();
        }
    };
    let memory = Memory::default();
    let options = CaptureOptions { hook: Some(&hook), ..CaptureOptions::new(&TEN_SECONDS_ON) };
    let record = capture("files", &config(scratch.path()), &memory, None, &options, &Silent).unwrap();
    assert_eq!(record.state, State::Complete);
    assert_eq!(paths(&memory, &record, LISTING), ["", "b"]);
}

#[test]
fn a_file_that_becomes_a_link_or_a_directory_is_recorded_as_what_it_became() {
    for directory in [false, true] {
        let scratch = tree(&[("a", "1")]);
        let path = scratch.path().join("a");
        let count = AtomicU32::new(0);
        let hook = |moment: Moment, name: &[u8]| {
            if moment == Moment::Found && name == b"a" && count.fetch_add(1, Ordering::Relaxed) == 0 {
                fs::remove_file(&path).unwrap();
                if directory {
                    fs::create_dir(&path).unwrap()
                } else {
                    symlink("/etc/shadow", &path).unwrap()
                }
            }
        };
        let memory = Memory::default();
        let options = CaptureOptions { hook: Some(&hook), ..CaptureOptions::new(&TEN_SECONDS_ON) };
        let record = capture("files", &config(scratch.path()), &memory, None, &options, &Silent).unwrap();
        let entry = &entries(&memory, &record, LISTING)[1].1;
        let kind = if directory { FileKind::Directory } else { FileKind::Symlink };
        assert_eq!((entry.kind, entry.content.is_none()), (kind, true), "{:?}", record.problems);
    }
}

#[test]
fn a_missing_root_is_a_failed_source_that_says_which() {
    let scratch = tree(&[("a", "1")]);
    let memory = Memory::default();
    let missing = scratch.path().join("none");
    let record = backup(&memory, &config(&missing), None);
    assert_eq!((record.state, record.streams.len()), (State::Failed, 0));
    assert_eq!(record.problems[0].object, missing.display().to_string());
    let both = FilesConfig { paths: vec![missing, scratch.path().into()], ..FilesConfig::default() };
    let record = backup(&memory, &both, None);
    assert_eq!(record.state, State::Failed);
    assert_eq!(record.items, 2, "what is there is captured all the same");
    assert_eq!(Facts::of(&record).missing.len(), 1);
}

#[test]
fn several_roots_stand_beside_each_other_under_readable_names() {
    let scratch = tree(&[("up/a/x", "1"), ("etc/app.conf", "2")]);
    let paths_of = |names: &[&str]| names.iter().map(|name| scratch.path().join(name)).collect();
    let memory = Memory::default();
    let config = FilesConfig { paths: paths_of(&["up", "etc/app.conf"]), ..FilesConfig::default() };
    let record = backup(&memory, &config, None);
    assert_eq!(record.state, State::Complete, "{:?}", record.problems);
    let labels: Vec<String> = Facts::of(&record).roots.iter().map(|r| r.label.clone().unwrap()).collect();
    assert!(labels[0].ends_with("-up") && labels[1].ends_with("-etc-app.conf"), "{labels:?}");
    let up = &labels[0];
    let mut expected = vec![labels[1].clone(), up.clone(), format!("{up}/a"), format!("{up}/a/x")];
    expected.sort();
    let mut listed = paths(&memory, &record, LISTING);
    listed.sort();
    assert_eq!(listed, expected);
    let again = backup(&memory, &config, Some(&record));
    assert_eq!(Facts::of(&again).counts.unchanged, 4);
    assert_eq!(again.stream(LISTING), record.stream(LISTING));
}

#[test]
fn a_single_file_can_be_a_source() {
    let scratch = tree(&[("app.conf", "x")]);
    let memory = Memory::default();
    let record = backup(&memory, &config(&scratch.path().join("app.conf")), None);
    assert_eq!((record.state, record.items), (State::Complete, 1), "{:?}", record.problems);
}

#[test]
fn excluded_files_and_cache_directories_are_left_out() {
    const TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n# more";
    let scratch = tree(&[
        ("keep/a.jpg", "1"),
        ("keep/cache/b", "2"),
        ("keep/x.tmp", "3"),
        ("tagged/CACHEDIR.TAG", TAG),
        ("tagged/c", "4"),
        ("false/CACHEDIR.TAG", "no"),
        ("false/d", "5"),
    ]);
    let memory = Memory::default();
    let config = FilesConfig {
        exclude: vec!["**/cache/**".into(), "*.tmp".into()],
        cachedir_tag: true,
        ..config(scratch.path())
    };
    let record = backup(&memory, &config, None);
    let expected = [
        "",
        "false",
        "keep",
        "tagged",
        "false/CACHEDIR.TAG",
        "false/d",
        "keep/a.jpg",
        "keep/cache",
        "tagged/CACHEDIR.TAG",
    ];
    assert_eq!(paths(&memory, &record, LISTING), expected);
    let only =
        FilesConfig { include: vec!["*.jpg".into(), "tagged/".into()], ..testing::config(scratch.path()) };
    let record = backup(&memory, &only, None);
    let files: Vec<String> = entries(&memory, &record, LISTING)
        .iter()
        .filter(|(_, entry)| entry.kind == FileKind::Regular)
        .map(|(path, _)| show_path(path))
        .collect();
    assert_eq!(files, ["keep/a.jpg", "tagged/CACHEDIR.TAG", "tagged/c"]);
}

#[test]
fn the_access_time_of_what_is_read_is_left_alone() {
    let scratch = tree(&[("a", "1"), ("d/b", "2")]);
    let long_ago = fs::FileTimes::new().set_accessed(std::time::UNIX_EPOCH);
    for path in ["a", "d", "d/b"] {
        fs::File::open(scratch.path().join(path)).unwrap().set_times(long_ago).unwrap();
    }
    backup(&Memory::default(), &config(scratch.path()), None);
    for path in ["a", "d", "d/b"] {
        assert_eq!(fs::metadata(scratch.path().join(path)).unwrap().atime(), 0, "{path}");
    }
}

#[test]
fn a_large_directory_and_a_deep_tree_keep_their_order_and_the_walk_its_bound() {
    let scratch = tempfile::tempdir().unwrap();
    for n in 0..10_000 {
        fs::write(scratch.path().join(format!("f{n}")), "").unwrap();
        if n % 10 == 0 {
            fs::create_dir(scratch.path().join(format!("d{n}"))).unwrap();
        }
    }
    let deep: std::path::PathBuf = std::iter::repeat_n("deep", 400).collect();
    fs::create_dir_all(scratch.path().join(&deep)).unwrap();
    fs::write(scratch.path().join(&deep).join("bottom"), "x").unwrap();
    let memory = Memory::default();
    let first = backup(&memory, &config(scratch.path()), None);
    assert_eq!(first.items, 10_000 + 1_000 + 400 + 1);
    let listed = entries(&memory, &first, LISTING);
    let keys: Vec<Vec<u8>> = listed
        .iter()
        .map(|(path, entry)| {
            let directory = &path[..path.len() - entry.name.len()];
            listing::key(directory.strip_suffix(b"/").unwrap_or(directory), &entry.name)
        })
        .collect();
    assert!(keys.is_sorted_by(|a, b| listing::compare_keys(a, b).is_lt()));
    assert!(Facts::of(&first).most_ahead <= (1 << 16) + 2 * 4097);
    let second = backup(&memory, &config(scratch.path()), Some(&first));
    assert_eq!(second.stream(LISTING), first.stream(LISTING));
}

#[test]
fn sparse_files_are_stored_as_data_and_holes() {
    use std::os::unix::fs::FileExt;
    let scratch = tempfile::tempdir().unwrap();
    let file = fs::File::create(scratch.path().join("sparse")).unwrap();
    file.set_len(64 << 20).unwrap();
    file.write_all_at(&[7; 5000], 8 << 20).unwrap();
    file.write_all_at(&vec![8; 300_000], 32 << 20).unwrap();
    for n in 0..100 {
        file.write_all_at(&[9; 10], (40 << 20) + n * (128 << 10)).unwrap();
    }
    let memory = Memory::default();
    let record = backup(&memory, &config(scratch.path()), None);
    let entry = &entries(&memory, &record, LISTING)[1].1;
    let content = entry.content.as_ref().unwrap();
    assert!(content.level > 0, "a hundred extents are put into a list");
    assert_eq!((entry.size, content.bytes()), (64 << 20, 64 << 20));
    let pieces = memory.pieces_of(content);
    let data: u64 = pieces.iter().filter(|p| p.chunk.is_some()).map(|p| p.bytes).sum();
    assert!(data < 2 << 20, "{data} bytes of data");
    assert_eq!(memory.bytes_of(content), fs::read(scratch.path().join("sparse")).unwrap());
}

#[test]
fn stopping_stops_and_says_so() {
    struct Stopped;
    impl mainstay_domain::Monitor for Stopped {
        fn event(&self, _: mainstay_domain::monitor::Event<'_>) {}
        fn cancelled(&self) -> bool {
            true
        }
    }
    let scratch = tree(&[("a", "1")]);
    let options = CaptureOptions::new(&TEN_SECONDS_ON);
    let failure =
        capture("files", &config(scratch.path()), &Memory::default(), None, &options, &Stopped).unwrap_err();
    assert_eq!(failure.kind, Kind::Cancelled);
}

#[test]
fn what_is_deleted_stays_findable_for_its_time_and_no_longer() {
    let scratch = tree(&[("a", "1"), ("d/x", "2"), ("d/e/y", "3"), ("k", "5")]);
    let memory = Memory::default();
    let config = FilesConfig { keep_deleted: Some("90d".parse().unwrap()), ..config(scratch.path()) };
    const DAY: i64 = 86_400;
    let first = backup_at(&memory, &config, None, &Later(10));
    assert!(first.stream(DELETED).is_none(), "nothing was deleted yet");
    fs::remove_dir_all(scratch.path().join("d")).unwrap();
    let second = backup_at(&memory, &config, Some(&first), &Later(DAY));
    assert_eq!(paths(&memory, &second, DELETED), ["d", "d/e", "d/x", "d/e/y"]);
    fs::remove_file(scratch.path().join("a")).unwrap();
    let third = backup_at(&memory, &config, Some(&second), &Later(2 * DAY));
    assert_eq!(paths(&memory, &third, DELETED), ["a", "d", "d/e", "d/x", "d/e/y"]);
    write(scratch.path(), "a", "again");
    let fourth = backup_at(&memory, &config, Some(&third), &Later(3 * DAY));
    fs::remove_file(scratch.path().join("a")).unwrap();
    let fifth = backup_at(&memory, &config, Some(&fourth), &Later(4 * DAY));
    let versions: Vec<Vec<u8>> = entries(&memory, &fifth, DELETED)
        .iter()
        .filter(|(path, _)| path == b"a")
        .map(|(_, entry)| memory.bytes_of(entry.content.as_ref().unwrap()))
        .collect();
    assert_eq!(versions, [b"1".to_vec(), b"again".to_vec()], "each deleted version stays");
    let sixth = backup_at(&memory, &config, Some(&fifth), &Later(91 * DAY + 60));
    assert_eq!(paths(&memory, &sixth, DELETED), ["a", "a"], "d's ninety days are over, a's are not");
    let seventh = backup_at(&memory, &config, Some(&sixth), &Later(95 * DAY));
    assert!(seventh.stream(DELETED).is_none());
}

#[test]
fn a_file_that_comes_and_goes_unchanged_is_kept_once_with_the_latest_time() {
    let scratch = tree(&[("a", "1"), ("b", "2")]);
    let away = tempfile::tempdir_in(scratch.path().parent().unwrap()).unwrap();
    let memory = Memory::default();
    let config = FilesConfig { keep_deleted: Some("90d".parse().unwrap()), ..config(scratch.path()) };
    let mut record = backup_at(&memory, &config, None, &Later(10));
    for round in 1..4 {
        fs::rename(scratch.path().join("a"), away.path().join("a")).unwrap();
        record = backup_at(&memory, &config, Some(&record), &Later(round * 1000));
        fs::rename(away.path().join("a"), scratch.path().join("a")).unwrap();
        record = backup_at(&memory, &config, Some(&record), &Later(round * 1000 + 500));
    }
    let deleted = entries(&memory, &record, DELETED);
    assert_eq!(deleted.len(), 1);
    let age = mainstay_domain::Clock::now(&Later(3000)).since(deleted[0].1.deleted.unwrap());
    assert!(age.abs() < 60 * mainstay_domain::time::SECOND);
}

#[test]
fn what_a_new_rule_excludes_counts_as_deleted() {
    let scratch = tree(&[("a.log", "1"), ("b", "2")]);
    let memory = Memory::default();
    let mut config = FilesConfig { keep_deleted: Some("90d".parse().unwrap()), ..config(scratch.path()) };
    let first = backup(&memory, &config, None);
    config.exclude = vec!["*.log".into()];
    let second = backup(&memory, &config, Some(&first));
    assert_eq!(paths(&memory, &second, DELETED), ["a.log"]);
}

#[test]
fn modes_are_recorded_with_all_their_bits() {
    let scratch = tree(&[("a", "1")]);
    fs::set_permissions(scratch.path().join("a"), fs::Permissions::from_mode(0o4755)).unwrap();
    let memory = Memory::default();
    let record = backup(&memory, &config(scratch.path()), None);
    assert_eq!(entries(&memory, &record, LISTING)[1].1.mode, 0o4755);
}

#[test]
fn files_of_a_root_that_is_missing_for_once_are_not_lost_sight_of() {
    let scratch = tree(&[("mounted/a", "1"), ("other/b", "2")]);
    let memory = Memory::default();
    let config = FilesConfig {
        paths: ["mounted", "other"].map(|name| scratch.path().join(name)).into(),
        keep_deleted: Some("90d".parse().unwrap()),
        ..FilesConfig::default()
    };
    let first = backup(&memory, &config, None);
    fs::rename(scratch.path().join("mounted"), scratch.path().join("away")).unwrap();
    let second = backup(&memory, &config, Some(&first));
    assert_eq!(second.state, State::Failed);
    assert!(paths(&memory, &second, DELETED).iter().any(|path| path.ends_with("-mounted/a")));
    fs::rename(scratch.path().join("away"), scratch.path().join("mounted")).unwrap();
    let third = backup(&memory, &config, Some(&second));
    assert_eq!((third.state, third.items), (State::Complete, 4));
}

/// Fails at the nth chunk.
struct Failing {
    memory: Memory,
    after: AtomicU32,
}

impl mainstay_domain::stream::Sink for Failing {
    fn put(
        &self,
        pool: mainstay_domain::stream::Pool,
        chunk: &[u8],
    ) -> mainstay_domain::Result<mainstay_domain::ChunkId> {
        if self.after.fetch_sub(1, Ordering::Relaxed) == 0 {
            return Err(mainstay_domain::Failure::new(Kind::Busy, "the store is full"));
        }
        self.memory.put(pool, chunk)
    }
    fn put_reader(
        &self,
        pool: mainstay_domain::stream::Pool,
        reader: &mut dyn std::io::Read,
    ) -> mainstay_domain::Result<mainstay_domain::stream::Content> {
        self.memory.put_reader(pool, reader)
    }
    fn begin(
        &self,
        pool: mainstay_domain::stream::Pool,
    ) -> Box<dyn mainstay_domain::stream::PieceWriter + '_> {
        self.memory.begin(pool)
    }
    fn join(
        &self,
        pieces: &mut dyn Iterator<Item = mainstay_domain::stream::Piece>,
    ) -> mainstay_domain::Result<mainstay_domain::stream::Content> {
        self.memory.join(pieces)
    }
    fn adopt(&self, content: &mainstay_domain::stream::Content) -> mainstay_domain::Result<bool> {
        self.memory.adopt(content)
    }
}

#[test]
fn a_sink_that_fails_ends_the_capture_with_its_failure() {
    let names: Vec<String> = (0..3000).map(|n| format!("d{}/file{n}", n % 7)).collect();
    let files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), name.as_str())).collect();
    let scratch = tree(&files);
    for after in [0, 1, 1500, 2999] {
        let sink = Failing { memory: Memory::default(), after: AtomicU32::new(after) };
        let options = CaptureOptions::new(&TEN_SECONDS_ON);
        let captured = capture("files", &config(scratch.path()), &sink, None, &options, &Silent);
        assert_eq!(captured.unwrap_err().kind, Kind::Busy);
    }
}

#[test]
fn a_file_with_several_names_is_read_once() {
    let scratch = tree(&[("a/one", "the same bytes")]);
    for n in 0..50 {
        fs::hard_link(scratch.path().join("a/one"), scratch.path().join(format!("name{n}"))).unwrap();
    }
    let opened = AtomicU32::new(0);
    let hook = |moment: Moment, name: &[u8]| {
        if moment == Moment::Read && (name == b"one" || name.starts_with(b"name")) {
            opened.fetch_add(1, Ordering::Relaxed);
        }
    };
    let memory = Memory::default();
    let options = CaptureOptions { hook: Some(&hook), threads: 4, ..CaptureOptions::new(&TEN_SECONDS_ON) };
    let record = capture("files", &config(scratch.path()), &memory, None, &options, &Silent).unwrap();
    assert_eq!(opened.load(Ordering::Relaxed), 1);
    for (_, entry) in entries(&memory, &record, LISTING) {
        if entry.kind == FileKind::Regular {
            assert_eq!(memory.bytes_of(entry.content.as_ref().unwrap()), b"the same bytes");
            assert_eq!(entry.links, Some(51));
        }
    }
}
