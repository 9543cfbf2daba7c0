//! Looking into a listing, finding in it, and telling two apart.

use super::{
    super::{testing::*, *},
    tree, write,
};
use mainstay_domain::{Kind, Result};
use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    sync::atomic::Ordering,
};

fn shown(listed: impl Iterator<Item = Result<Listed>>) -> Vec<String> {
    listed.map(|listed| show_path(&listed.unwrap().path)).collect()
}

#[test]
fn one_directory_is_listed_and_what_lies_below_it_when_asked() {
    let source = tree(&[("a/b/x", "1"), ("a/c", "2"), ("a.d/y", "3"), ("e", "4")]);
    let memory = Memory::default();
    let record = backup(&memory, &config(source.path()), None);
    let absolute = source.path().join("a").display().to_string();
    for (path, recursive, expected) in [
        ("", false, &["a", "a.d", "e"][..]),
        ("a", false, &["a/b", "a/c"]),
        ("/a/", true, &["a/b", "a/c", "a/b/x"]),
        (&absolute, false, &["a/b", "a/c"]),
        ("a/c", false, &["a/c"]),
        ("", true, &["a", "a.d", "e", "a/b", "a/c", "a/b/x", "a.d/y"]),
    ] {
        assert_eq!(shown(ls(&memory, &record, path, recursive).unwrap()), expected, "{path:?}");
    }
    let failure = ls(&memory, &record, "no/such", false).map(drop).unwrap_err();
    assert_eq!(failure.kind, Kind::Usage);
}

#[test]
fn files_are_found_by_glob_or_by_a_part_of_their_path() {
    let source = tree(&[("photos/2024/cat.jpg", "1"), ("photos/dog.jpg", "2"), ("notes/category.txt", "3")]);
    let memory = Memory::default();
    let config = FilesConfig { keep_deleted: Some("90d".parse().unwrap()), ..config(source.path()) };
    let first = backup(&memory, &config, None);
    for (query, expected) in [
        ("*.jpg", &["photos/dog.jpg", "photos/2024/cat.jpg"][..]),
        ("photos/*.jpg", &["photos/dog.jpg"]),
        ("**/2024/**", &["photos/2024/cat.jpg"]),
        ("cat", &["notes/category.txt", "photos/2024/cat.jpg"]),
        ("2024/c", &["photos/2024/cat.jpg"]),
        ("nothing", &[]),
    ] {
        assert_eq!(shown(find(&memory, &first, query, false).unwrap()), expected, "{query}");
    }
    assert_eq!(find(&memory, &first, "x", true).map(drop).unwrap_err().kind, Kind::Failed);
    fs::remove_file(source.path().join("photos/dog.jpg")).unwrap();
    let second = backup(&memory, &config, Some(&first));
    let found: Vec<Listed> = find(&memory, &second, "*.jpg", true).unwrap().map(|f| f.unwrap()).collect();
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0].path[..], found[0].entry.deleted), (&b"photos/dog.jpg"[..], Some(second.started)));
}

#[test]
fn a_difference_is_found_without_reading_what_is_the_same() {
    let files: Vec<String> = (0..20_000).map(|n| format!("d{:02}/file-{n}.txt", n / 500)).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|name| (name.as_str(), "x")).collect();
    let source = tree(&files);
    let memory = Memory::default();
    let first = backup(&memory, &config(source.path()), None);
    write(source.path(), "d07/added", "new");
    write(source.path(), "d11/file-5600.txt", "changed");
    fs::remove_file(source.path().join("d20/file-10100.txt")).unwrap();
    fs::set_permissions(source.path().join("d33/file-16600.txt"), fs::Permissions::from_mode(0o600)).unwrap();
    let second = backup(&memory, &config(source.path()), Some(&first));
    let gets = memory.gets.load(Ordering::Relaxed);
    let changes: Vec<Change> =
        diff((&memory, &first), (&memory, &second)).unwrap().map(|change| change.unwrap()).collect();
    let read = memory.gets.load(Ordering::Relaxed) - gets;
    let found: Vec<(String, ChangeKind)> =
        changes.iter().map(|change| (show_path(&change.path), change.kind)).collect();
    let expected = [
        ("d07", ChangeKind::Metadata),
        ("d20", ChangeKind::Metadata),
        ("d07/added", ChangeKind::Added),
        ("d11/file-5600.txt", ChangeKind::Content),
        ("d20/file-10100.txt", ChangeKind::Removed),
        ("d33/file-16600.txt", ChangeKind::Metadata),
    ]
    .map(|(path, kind)| (path.to_owned(), kind));
    assert_eq!(found, expected);
    let pieces = memory.pieces_of(&first.streams[0].content).len() as u64;
    assert!(read <= 16 && pieces > 20, "{read} chunks read, of {pieces} on each side");
    assert_eq!(diff((&memory, &first), (&memory, &first)).unwrap().count(), 0);
}

#[test]
fn a_damaged_part_of_a_listing_is_an_error_in_its_place() {
    let files: Vec<String> = (0..3000).map(|n| format!("file-{n}.txt")).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|name| (name.as_str(), "x")).collect();
    let source = tree(&files);
    let memory = Memory::default();
    let record = backup(&memory, &config(source.path()), None);
    let pieces = memory.pieces_of(&record.streams[0].content);
    let lost = memory.chunk(&pieces[1].chunk.unwrap());
    memory.damage(|chunk| chunk == lost);
    let (good, bad): (Vec<_>, Vec<_>) = ls(&memory, &record, "", false).unwrap().partition(Result::is_ok);
    assert_eq!((good.len() as u64, bad.len()), (3000 - pieces[1].rows, 1));
}

#[test]
fn a_probe_says_what_is_missing_and_what_is_named_twice() {
    let source = tree(&[("a/x", "1")]);
    let config = |names: &[&str]| FilesConfig {
        paths: names.iter().map(|name| source.path().join(name)).collect(),
        ..FilesConfig::default()
    };
    let probed = probe(&config(&["a", "none"])).unwrap();
    assert_eq!((probed.roots.len(), probed.problems.len()), (1, 1));
    assert!(probed.roots[0].directory);
    let failure = probe(&config(&["", "a"])).unwrap_err();
    assert!(failure.kind == Kind::Usage && failure.message.contains("below another"), "{failure}");
}

#[test]
fn what_lies_there_now_is_compared_with_what_was_captured() {
    let source = tree(&[("up/a", "1"), ("up/cache/x", "2"), ("etc/app.conf", "3"), ("up/b", "4")]);
    let config = FilesConfig {
        paths: vec![source.path().join("up"), source.path().join("etc/app.conf")],
        exclude: vec!["cache/**".into()],
        ..FilesConfig::default()
    };
    let memory = Memory::default();
    let record = backup(&memory, &config, None);
    let live = |check| compare_live(&memory, &record, check, 100, &mainstay_domain::Silent).unwrap();
    assert!(live(true).is_equal(), "{:?}", live(true).differences);
    write(source.path(), "up/cache/y", "excluded");
    write(source.path(), "up/new", "5");
    write(source.path(), "etc/app.conf", "changed");
    let modified = fs::metadata(source.path().join("up/b")).unwrap().modified().unwrap();
    write(source.path(), "up/b", "!");
    fs::File::open(source.path().join("up/b")).unwrap().set_modified(modified).unwrap();
    let found = |check| -> Vec<(String, Aspect)> {
        let short = |path: &str| path.rsplit('-').next().unwrap().to_owned();
        live(check).differences.iter().map(|found| (short(&found.path), found.aspect)).collect()
    };
    let mut expected = vec![
        ("app.conf".to_owned(), Aspect::Size),
        ("app.conf".to_owned(), Aspect::Modified),
        ("up/new".to_owned(), Aspect::Extra),
    ];
    assert_eq!(found(false), expected);
    expected.insert(2, ("up/b".to_owned(), Aspect::Content));
    assert_eq!(found(true), expected);
}

#[test]
fn a_path_that_leads_to_a_name_that_is_no_text_keeps_its_rules() {
    let scratch = tempfile::tempdir().unwrap();
    let real = scratch.path().join(OsStr::from_bytes(b"caf\xe9"));
    fs::create_dir(&real).unwrap();
    std::os::unix::fs::symlink(&real, scratch.path().join("link")).unwrap();
    let config = FilesConfig { exclude: vec!["cache".into()], ..config(&scratch.path().join("link")) };
    let record = backup(&Memory::default(), &config, None);
    assert_eq!(Facts::of(&record).exclude, ["cache"], "{}", record.facts);
}
