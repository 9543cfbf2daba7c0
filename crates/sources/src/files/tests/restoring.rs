//! What a restore does to an empty and to a lived-in destination.

use super::{
    super::{testing::*, *},
    assert_same, assert_same_below, into, names, restore_with, restored, tree, write,
};
use mainstay_domain::{Kind, Silent, point::State};
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    sync::atomic::Ordering,
};

#[test]
fn what_is_right_already_is_left_alone() {
    let source = tree(&[("a", "one"), ("b", "two"), ("d/c", "three")]);
    let memory = Memory::default();
    let record = backup(&memory, &config(source.path()), None);
    let target = tempfile::tempdir().unwrap();
    restored(&memory, &record, &into(target.path()));
    let inode = |name: &str| fs::metadata(target.path().join(name)).unwrap().ino();
    let (a, b) = (inode("a"), inode("b"));
    write(target.path(), "b", "changed");
    write(target.path(), "mine", "stays");
    let report = restored(&memory, &record, &into(target.path()));
    assert_eq!((report.kept, report.files), (2, 1));
    assert_eq!(inode("a"), a);
    assert_ne!(inode("b"), b, "replaced by rename, never written over");
    assert_eq!(fs::read_to_string(target.path().join("mine")).unwrap(), "stays");
}

#[test]
fn content_is_compared_when_asked() {
    let source = tree(&[("a", "one")]);
    symlink("one", source.path().join("link")).unwrap();
    let memory = Memory::default();
    let record = backup(&memory, &config(source.path()), None);
    let target = tempfile::tempdir().unwrap();
    restored(&memory, &record, &into(target.path()));
    let path = target.path().join("a");
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, "eno").unwrap();
    fs::File::open(&path).unwrap().set_modified(modified).unwrap();
    assert_eq!(restored(&memory, &record, &into(target.path())).kept, 2, "size and time are trusted");
    let link = target.path().join("link");
    let time = fs::symlink_metadata(&link).unwrap().modified().unwrap();
    fs::remove_file(&link).unwrap();
    symlink("eno", &link).unwrap();
    let mut touch = std::process::Command::new("touch");
    touch.arg("-hd").arg(format!("@{}", nanoseconds(time))).arg(&link);
    assert!(touch.status().unwrap().success());
    assert_eq!(restored(&memory, &record, &into(target.path())).kept, 2);
    let options = RestoreOptions { check_content: true, ..into(target.path()) };
    assert_eq!(restored(&memory, &record, &options).files, 1);
    assert_same_below(&memory, &record, target.path());
}

#[test]
fn after_a_restore_that_did_not_end_content_is_compared_and_the_folder_shows_no_trace() {
    let source = tree(&[("a", "one"), ("b", "two")]);
    let memory = Memory::default();
    let record = backup(&memory, &config(source.path()), None);
    let target = tempfile::tempdir().unwrap();
    let mark = target.path().join(".mainstay-restore-unfinished");
    let options = RestoreOptions { sync: true, delete: true, ..into(target.path()) };
    // It was stopped: the mark is there.
    struct Stopped;
    impl mainstay_domain::Monitor for Stopped {
        fn event(&self, _: mainstay_domain::monitor::Event<'_>) {}
        fn cancelled(&self) -> bool {
            true
        }
    }
    restore(&memory, &record, &options, &Stopped).unwrap_err();
    assert!(mark.exists());
    // Power was lost: a file's size and time are right, and its content is not.
    for (name, recorded) in [("a", "one"), ("b", "two")] {
        let modified = fs::metadata(source.path().join(name)).unwrap().modified().unwrap();
        fs::write(target.path().join(name), vec![0; recorded.len()]).unwrap();
        fs::File::open(target.path().join(name)).unwrap().set_modified(modified).unwrap();
    }
    let report = restored(&memory, &record, &options);
    assert_eq!((report.files, report.kept), (2, 0), "{:?}", report.notices);
    assert!(report.notices.iter().any(|notice| notice.contains("had not ended")), "{:?}", report.notices);
    assert!(!mark.exists());
    assert_same_below(&memory, &record, target.path());
    let again = restored(&memory, &record, &options);
    assert_eq!((again.files, again.kept, again.removed), (0, 2, 0), "{:?}", again.notices);
    assert!(again.notices.is_empty(), "{:?}", again.notices);
}

#[test]
fn each_path_that_is_named_must_be_there() {
    let source = tree(&[("d/a", "1"), ("d/b", "2"), ("e/c", "3")]);
    let memory = Memory::default();
    let record = backup(&memory, &config(source.path()), None);
    let target = tempfile::tempdir().unwrap();
    let plan = |paths: &[&str]| {
        let paths = paths.iter().map(|path| path.into()).collect();
        plan_restore(&memory, &record, &RestoreOptions { paths, ..into(target.path()) }, &Silent)
    };
    // Also where one lies within another.
    for paths in [&["d"][..], &["d", "d/a"], &["d/*", "d/b", "d"], &["**/c", "e"], &["e/c", "d/a"]] {
        plan(paths).unwrap();
    }
    for paths in [&["d/**", "nope"][..], &["d", "d/nope"], &["*.jpg", "e/c"]] {
        let failure = plan(paths).unwrap_err();
        let unmet = paths.iter().find(|path| path.contains("nope") || path.contains("jpg")).unwrap();
        assert!(failure.message.contains(unmet) && !failure.message.contains("d/**"), "{failure}");
    }
}

#[test]
fn a_new_folder_gets_the_mode_that_was_recorded_whether_or_not_the_disk_is_waited_for() {
    let source = tree(&[("a", "one")]);
    fs::set_permissions(source.path(), fs::Permissions::from_mode(0o710)).unwrap();
    let memory = Memory::default();
    let record = backup(&memory, &config(source.path()), None);
    for sync in [false, true] {
        let target = tempfile::tempdir().unwrap();
        let new = target.path().join("new");
        restored(&memory, &record, &RestoreOptions { sync, ..into(&new) });
        assert_eq!(fs::metadata(&new).unwrap().permissions().mode() & 0o7777, 0o710, "sync: {sync}");
    }
}

#[test]
fn delete_removes_the_rest_but_not_what_the_source_excludes() {
    let source = tree(&[("a", "1"), ("d/b", "2"), ("d/cache/x", "3")]);
    let memory = Memory::default();
    let config = FilesConfig { exclude: vec!["**/cache/**".into(), "*.log".into()], ..config(source.path()) };
    let record = backup(&memory, &config, None);
    let target = tree(&[
        ("extra", ""),
        ("more/deep/file", ""),
        ("d/also", ""),
        ("d/cache/live", "live"),
        ("app.log", "log"),
    ]);
    let options = RestoreOptions { delete: true, ..into(target.path()) };
    let before = names(target.path());
    let plan = plan_restore(&memory, &record, &options, &Silent).unwrap();
    assert_eq!(plan.removals, ["extra", "more", "d/also"]);
    assert_eq!((plan.create, plan.removal_count, plan.protected), (2, 3, 2));
    assert_eq!(names(target.path()), before, "a plan changes nothing");
    let report = restored(&memory, &record, &options);
    assert_eq!(names(target.path()), ["a", "app.log", "d", "d/b", "d/cache", "d/cache/live"]);
    assert_eq!(report.removed, 5);
}

#[test]
fn nothing_is_deleted_when_something_could_not_be_restored() {
    let source = tree(&[("a", "good"), ("b", "bad")]);
    let memory = Memory::default();
    let record = backup(&memory, &config(source.path()), None);
    memory.damage(|chunk| chunk == b"bad");
    let target = tree(&[("extra", "")]);
    let options = RestoreOptions { delete: true, ..into(target.path()) };
    let report = restore_with(&memory, &record, &options).unwrap();
    assert_eq!(report.state, State::Incomplete);
    assert_eq!(names(target.path()), ["a", "extra"]);
    assert!(report.notices.iter().any(|notice| notice.contains("nothing was deleted")));
}

#[test]
fn a_damaged_file_is_named_and_all_others_are_restored() {
    let big = "0123456789abcdef".repeat(3 << 20);
    let source = tree(&[("a", "good"), ("d/b", "bad"), ("d/c", "good too"), ("big", &big)]);
    let memory = Memory::default();
    let record = backup(&memory, &config(source.path()), None);
    assert_eq!(memory.damage(|chunk| chunk == b"bad"), 1);
    let target = tempfile::tempdir().unwrap();
    let report = restore_with(&memory, &record, &into(target.path())).unwrap();
    assert_eq!((report.state, report.failed), (State::Incomplete, 1));
    assert!(report.problems[0].object == "d/b" && report.problems[0].message.contains("damaged"));
    assert_eq!(names(target.path()), ["a", "big", "d", "d/c"], "and nothing half-written");
    assert_eq!(fs::read_to_string(target.path().join("big")).unwrap(), big);
    // The chunk of which the big file is made.
    assert_eq!(memory.damage(|chunk| chunk.len() == 64 << 10), 1);
    let report = restore_with(&memory, &record, &into(&target.path().join("again"))).unwrap();
    assert_eq!(report.failed, 2);
    assert_eq!(names(&target.path().join("again")), ["a", "d", "d/c"]);
}

#[test]
fn a_damaged_part_of_the_listing_loses_only_its_own_files() {
    let files: Vec<String> = (0..5000).map(|n| format!("d{:02}/some-file-{n}", n / 100)).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|name| (name.as_str(), "x")).collect();
    let source = tree(&files);
    let memory = Memory::default();
    let record = backup(&memory, &config(source.path()), None);
    let pieces = memory.pieces_of(&record.streams[0].content);
    assert!(pieces.len() > 4);
    let lost = memory.chunk(&pieces[2].chunk.unwrap());
    memory.damage(|chunk| chunk == lost);
    let target = tempfile::tempdir().unwrap();
    let report = restore_with(&memory, &record, &into(target.path())).unwrap();
    assert_eq!(report.state, State::Incomplete);
    let restored = names(target.path()).iter().filter(|name| name.contains('/')).count() as u64;
    assert_eq!(restored, 5000 - pieces[2].rows);
    // The first part names the directories: without it they are made all the same.
    let lost = memory.chunk(&pieces[0].chunk.unwrap());
    memory.damage(|chunk| chunk == lost);
    let target = tempfile::tempdir().unwrap();
    let report = restore_with(&memory, &record, &into(target.path())).unwrap();
    assert_eq!(report.failed, 2);
    let restored = names(target.path()).iter().filter(|name| name.contains('/')).count() as u64;
    assert!(restored >= 5000 - pieces[0].rows - pieces[2].rows);
}

#[test]
fn a_path_or_a_glob_restores_its_part_and_reads_no_more() {
    let files: Vec<String> =
        (0..20_000).map(|n| format!("d{:02}/e{}/file-{n}.txt", n / 500, n % 3)).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|name| (name.as_str(), name.as_str())).collect();
    let source = tree(&files);
    let memory = Memory::default();
    let record = backup(&memory, &config(source.path()), None);
    let pieces = memory.pieces_of(&record.streams[0].content).len() as u64;
    assert!(pieces > 10, "{pieces}");
    let absolute = source.path().join("d07/e1").display().to_string();
    for (pattern, expected, most) in [
        ("d07/e1/file-3505.txt", 1, 6),
        ("d07/e1", 166, 166 + 8),
        (&absolute, 166, 166 + 8),
        ("d07/e1/**", 166, 166 + 8),
        ("d07/*/file-350?.txt", 10, 20),
        ("**/file-3505.txt", 1, pieces + 1),
        ("d0[78]/e2", 334, pieces + 334),
    ] {
        let target = tempfile::tempdir().unwrap();
        let gets = memory.gets.load(Ordering::Relaxed);
        let options = RestoreOptions { paths: vec![pattern.into()], ..into(target.path()) };
        let report = restored(&memory, &record, &options);
        assert_eq!(report.files, expected, "{pattern}");
        let read = memory.gets.load(Ordering::Relaxed) - gets;
        assert!(read <= most, "{pattern}: {read} chunks read");
        let names = names(target.path());
        let files: Vec<&String> = names.iter().filter(|name| name.ends_with(".txt")).collect();
        assert_eq!(files.len() as u64, expected);
        for name in files {
            assert_eq!(&fs::read_to_string(target.path().join(name)).unwrap(), name);
        }
    }
}

#[test]
fn several_paths_restore_together_with_the_metadata_of_what_lies_above() {
    let source = tree(&[("a/b/c", "1"), ("a/x", "2"), ("z/y", "3"), ("other", "4")]);
    let past = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
    for path in ["a", "a/b"] {
        fs::File::open(source.path().join(path)).unwrap().set_modified(past).unwrap();
    }
    let memory = Memory::default();
    let record = backup(&memory, &config(source.path()), None);
    let target = tempfile::tempdir().unwrap();
    let paths = vec!["z".into(), "a/b/c".into(), "/a/x/".into()];
    restored(&memory, &record, &RestoreOptions { paths, ..into(target.path()) });
    assert_eq!(names(target.path()), ["a", "a/b", "a/b/c", "a/x", "z", "z/y"]);
    for path in ["a", "a/b"] {
        assert_eq!(fs::metadata(target.path().join(path)).unwrap().modified().unwrap(), past, "{path}");
    }
}

#[test]
fn a_pattern_that_matches_nothing_is_said_so() {
    let source = tree(&[("a", "1")]);
    let memory = Memory::default();
    let record = backup(&memory, &config(source.path()), None);
    let target = tempfile::tempdir().unwrap();
    let options = RestoreOptions { paths: vec!["no/such".into()], ..into(target.path()) };
    assert_eq!(restore_with(&memory, &record, &options).unwrap_err().kind, Kind::Usage);
    assert_eq!(plan_restore(&memory, &record, &options, &Silent).unwrap_err().kind, Kind::Usage);
    let glob = RestoreOptions { paths: vec!["*.x".into()], delete: true, ..into(target.path()) };
    assert_eq!(restore_with(&memory, &record, &glob).unwrap_err().kind, Kind::Usage);
}

#[test]
fn directories_and_files_that_are_in_each_others_way_change_places() {
    let source = tree(&[("was-dir", "now a file"), ("was-file/inside", "x"), ("was-full-dir", "y")]);
    let memory = Memory::default();
    let record = backup(&memory, &config(source.path()), None);
    let target = tree(&[("was-file", "old"), ("was-full-dir/precious", "keep")]);
    fs::create_dir(target.path().join("was-dir")).unwrap();
    let plan = plan_restore(&memory, &record, &into(target.path()), &Silent).unwrap();
    assert_eq!(plan.conflicts, ["was-dir", "was-full-dir"]);
    let report = restore_with(&memory, &record, &into(target.path())).unwrap();
    assert_eq!((report.state, report.failed), (State::Incomplete, 1));
    assert!(report.problems[0].message.contains("in the way"));
    assert_eq!(
        names(target.path()),
        ["was-dir", "was-file", "was-file/inside", "was-full-dir", "was-full-dir/precious"]
    );
    restored(&memory, &record, &RestoreOptions { delete: true, ..into(target.path()) });
    assert_same(&memory, &record, target.path());
}

#[test]
fn links_planted_in_the_destination_lead_nowhere() {
    let source = tree(&[("d/file", "content"), ("e/f/file", "content"), ("x", "content")]);
    let memory = Memory::default();
    let record = backup(&memory, &config(source.path()), None);
    let outside = tree(&[("f/file", "precious"), ("file", "precious"), ("x", "precious")]);
    let target = tempfile::tempdir().unwrap();
    symlink(outside.path(), target.path().join("d")).unwrap();
    symlink(outside.path(), target.path().join("e")).unwrap();
    symlink(outside.path().join("x"), target.path().join("x")).unwrap();
    // Asked for something below the link, the link itself is not ours to replace.
    let only = RestoreOptions { paths: vec!["e/f".into()], ..into(target.path()) };
    let report = restore_with(&memory, &record, &only).unwrap();
    assert_eq!((report.state, report.failed), (State::Incomplete, 1), "{:?}", report.problems);
    restored(&memory, &record, &into(target.path()));
    assert_same_below(&memory, &record, target.path());
    for name in ["f/file", "file", "x"] {
        assert_eq!(fs::read_to_string(outside.path().join(name)).unwrap(), "precious");
    }
}

#[test]
fn deleted_files_come_back_in_their_latest_version() {
    let source = tree(&[("d/a", "first"), ("d/e/b", "x"), ("stays", "")]);
    let memory = Memory::default();
    let config = FilesConfig { keep_deleted: Some("90d".parse().unwrap()), ..config(source.path()) };
    let mut record = backup_at(&memory, &config, None, &Later(10));
    fs::remove_file(source.path().join("d/a")).unwrap();
    record = backup_at(&memory, &config, Some(&record), &Later(20));
    write(source.path(), "d/a", "second");
    record = backup_at(&memory, &config, Some(&record), &Later(30));
    fs::remove_dir_all(source.path().join("d")).unwrap();
    record = backup_at(&memory, &config, Some(&record), &Later(40));
    let target = tempfile::tempdir().unwrap();
    restored(&memory, &record, &RestoreOptions { deleted: true, ..into(target.path()) });
    assert_eq!(names(target.path()), ["d", "d/a", "d/e", "d/e/b"]);
    assert_eq!(fs::read_to_string(target.path().join("d/a")).unwrap(), "second");
    let target = tempfile::tempdir().unwrap();
    let one = RestoreOptions { deleted: true, paths: vec!["d/e/b".into()], ..into(target.path()) };
    restored(&memory, &record, &one);
    assert_eq!(names(target.path()), ["d", "d/e", "d/e/b"]);
}

#[test]
fn hard_links_of_which_only_some_are_asked_for_share_what_there_is() {
    let source = tree(&[("a/one", "x")]);
    fs::create_dir(source.path().join("b")).unwrap();
    for name in ["b/two", "b/three"] {
        fs::hard_link(source.path().join("a/one"), source.path().join(name)).unwrap();
    }
    let memory = Memory::default();
    let record = backup(&memory, &config(source.path()), None);
    let target = tempfile::tempdir().unwrap();
    restored(&memory, &record, &RestoreOptions { paths: vec!["b".into()], ..into(target.path()) });
    let meta = |name: &str| fs::metadata(target.path().join(name)).unwrap();
    assert_eq!((meta("b/two").ino(), meta("b/two").nlink()), (meta("b/three").ino(), 2));
    // Into a tree in which they are separate files, they become one again.
    fs::remove_file(target.path().join("b/three")).unwrap();
    fs::copy(target.path().join("b/two"), target.path().join("b/three")).unwrap();
    restored(&memory, &record, &into(target.path()));
    assert_same_below(&memory, &record, target.path());
}

#[test]
fn what_a_killed_restore_left_is_cleared_away() {
    let source = tree(&[("d/a", "1")]);
    let memory = Memory::default();
    let record = backup(&memory, &config(source.path()), None);
    // No process has this number: pid_max is at most 2^22.
    let own =
        [".mainstay-restore-4999999-notes", ".mainstay-restore-4999999", ".mainstay-restore-04999999-0"];
    let target = tree(&[("d/.mainstay-restore-4999999-0", "half"), ("d/other", "")]);
    own.iter().for_each(|name| fs::write(target.path().join("d").join(name), "a user's").unwrap());
    restored(&memory, &record, &into(target.path()));
    let mut expected: Vec<String> = own.iter().map(|name| format!("d/{name}")).collect();
    expected.extend(["d", "d/a", "d/other"].map(str::to_owned));
    expected.sort();
    assert_eq!(names(target.path()), expected);
}

#[test]
fn a_destination_that_cannot_be_one_is_refused_before_anything() {
    let source = tree(&[("a", "1")]);
    let memory = Memory::default();
    let record = backup(&memory, &config(source.path()), None);
    let file = source.path().join("a");
    for destination in [file.clone(), file.join("below")] {
        let failure = restore_with(&memory, &record, &into(&destination)).unwrap_err();
        assert_eq!(failure.kind, Kind::Preflight, "{failure}");
        let plan = plan_restore(&memory, &record, &into(&destination), &Silent).unwrap();
        if destination == file {
            assert_eq!(plan.obstacles.len(), 1, "{:?}", plan.obstacles);
        }
    }
}

#[test]
fn the_plan_counts_what_there_is_to_do() {
    let source = tree(&[("a", "12345"), ("b", "123"), ("d/c", "1")]);
    let memory = Memory::default();
    let record = backup(&memory, &config(source.path()), None);
    let target = tempfile::tempdir().unwrap();
    restored(&memory, &record, &into(target.path()));
    write(target.path(), "a", "another");
    fs::remove_file(target.path().join("d/c")).unwrap();
    let plan = plan_restore(&memory, &record, &into(target.path()), &Silent).unwrap();
    assert_eq!((plan.entries, plan.create, plan.replace, plan.keep, plan.bytes), (4, 1, 1, 1, 6));
    assert_eq!(plan.replaced, ["a"]);
    assert!(plan.free_bytes > 0 && plan.obstacles.is_empty());
    let nowhere = plan_restore(&memory, &record, &into(&target.path().join("new/dir")), &Silent).unwrap();
    assert!(!nowhere.destination_exists && nowhere.obstacles.is_empty());
    assert_eq!(nowhere.create, 3);
}

#[test]
fn several_roots_are_restored_beside_each_other() {
    let source = tree(&[("up/a/x", "1"), ("etc/app.conf", "2")]);
    let config = FilesConfig {
        paths: vec![source.path().join("up"), source.path().join("etc/app.conf")],
        ..FilesConfig::default()
    };
    let memory = Memory::default();
    let record = backup(&memory, &config, None);
    let target = tempfile::tempdir().unwrap();
    restored(&memory, &record, &into(target.path()));
    assert_same(&memory, &record, target.path());
    let target = tempfile::tempdir().unwrap();
    let paths = vec![source.path().join("up/a").into()];
    let report = restored(&memory, &record, &RestoreOptions { paths, ..into(target.path()) });
    assert_eq!(report.files, 1);
}

/// The test runs itself again in a mount namespace of its own, where a tmpfs of 4 MiB is the destination.
#[test]
fn a_full_disk_stops_the_restore_and_leaves_nothing_half_written() {
    const SMALL_DISK: &str = "MAINSTAY_TEST_SMALL_DISK";
    let Some(disk) = std::env::var_os(SMALL_DISK).map(std::path::PathBuf::from) else {
        let disk = tempfile::tempdir().unwrap();
        let name = format!(
            "{}::a_full_disk_stops_the_restore_and_leaves_nothing_half_written",
            module_path!().split_once("::").unwrap().1
        );
        let namespaces = if rustix::process::geteuid().is_root() { "-m" } else { "-rm" };
        let script = "mount -t tmpfs -o size=4m none \"$1\" && exec \"$2\" --exact \"$3\" --nocapture";
        let output = std::process::Command::new("unshare")
            .args([namespaces, "sh", "-c", script, "sh"])
            .arg(disk.path())
            .arg(std::env::current_exe().unwrap())
            .arg(name)
            .env(SMALL_DISK, disk.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let ran = output.status.success() && text.contains("1 passed");
        assert!(ran, "{text}{}", String::from_utf8_lossy(&output.stderr));
        return;
    };
    let big = "x".repeat(3 << 20);
    let source = tree(&[("a", "1"), ("b", &big), ("c", &big)]);
    let memory = Memory::default();
    let record = backup(&memory, &config(source.path()), None);
    let plan = plan_restore(&memory, &record, &into(&disk), &Silent).unwrap();
    assert_eq!(plan.obstacles.len(), 1, "{plan:?}");
    let failure = restore_with(&memory, &record, &into(&disk)).unwrap_err();
    assert!(failure.message.contains("cannot take more"), "{failure}");
    let left = names(&disk);
    assert!(left.iter().all(|name| ["a", "b", "c"].contains(&name.as_str())), "{left:?}");
}

#[test]
fn nothing_is_inherited_from_where_a_tree_is_restored_to() {
    let source = tree(&[("a", "1"), ("d/b", "2")]);
    let memory = Memory::default();
    let record = backup(&memory, &config(source.path()), None);
    let target = tempfile::tempdir().unwrap();
    let status = std::process::Command::new("setfacl")
        .args(["-m", "d:u:12345:rwx,u:12345:rwx"])
        .arg(target.path())
        .status();
    assert!(status.unwrap().success());
    restored(&memory, &record, &into(target.path()));
    assert_same(&memory, &record, target.path());
}

#[test]
fn a_directory_that_is_lived_in_keeps_its_own_mode() {
    use std::os::unix::fs::PermissionsExt;
    let source = tree(&[("a", "1")]);
    fs::set_permissions(source.path(), fs::Permissions::from_mode(0o750)).unwrap();
    let memory = Memory::default();
    let record = backup(&memory, &config(source.path()), None);
    let target = tree(&[("mine", "")]);
    fs::set_permissions(target.path(), fs::Permissions::from_mode(0o711)).unwrap();
    let mode = || fs::metadata(target.path()).unwrap().permissions().mode() & 0o7777;
    restored(&memory, &record, &into(target.path()));
    assert_eq!(mode(), 0o711);
    restored(&memory, &record, &RestoreOptions { delete: true, ..into(target.path()) });
    assert_eq!(mode(), 0o750, "with --delete it becomes what was recorded");
    assert_same(&memory, &record, target.path());
}

/// Seconds since the epoch with nine decimals, as `touch` reads them.
fn nanoseconds(time: std::time::SystemTime) -> String {
    let since = time.duration_since(std::time::UNIX_EPOCH).unwrap();
    format!("{}.{:09}", since.as_secs(), since.subsec_nanos())
}

#[test]
fn restoring_twice_changes_nothing_the_second_time() {
    let source = tree(&[("a", "1"), ("d/b", "2")]);
    symlink("a", source.path().join("link")).unwrap();
    let memory = Memory::default();
    let record = backup(&memory, &config(source.path()), None);
    let target = tempfile::tempdir().unwrap();
    restored(&memory, &record, &into(target.path()));
    let changed = |name: &str| {
        let meta = fs::symlink_metadata(target.path().join(name)).unwrap();
        (meta.ctime(), meta.ctime_nsec(), meta.ino())
    };
    let before = ["a", "d/b", "link"].map(changed);
    let report = restored(&memory, &record, &into(target.path()));
    assert_eq!((report.kept, report.files, report.symlinks), (3, 0, 0));
    assert_eq!(["a", "d/b", "link"].map(changed), before);
    assert_same(&memory, &record, target.path());
}

#[test]
fn a_file_that_comes_last_is_gone_until_everything_else_is_there() {
    let source =
        tree(&[("a", "one"), ("global/pg_control", "control"), ("global/other", "two"), ("z/b", "three")]);
    let memory = Memory::default();
    let record = backup(&memory, &config(source.path()), None);
    let target = tempfile::tempdir().unwrap();
    let options = RestoreOptions {
        last: Some("global/pg_control".to_owned()),
        delete: true,
        sync: true,
        ..into(target.path())
    };
    let control = target.path().join("global/pg_control");
    write(target.path(), "global/pg_control", "of what was there");
    write(target.path(), "stray", "goes");
    struct Stopped;
    impl mainstay_domain::Monitor for Stopped {
        fn event(&self, _: mainstay_domain::monitor::Event<'_>) {}
        fn cancelled(&self) -> bool {
            true
        }
    }
    restore(&memory, &record, &options, &Stopped).unwrap_err();
    assert!(!control.exists(), "nothing half restored has it");
    let report = restored(&memory, &record, &options);
    assert!(report.notices.iter().all(|notice| !notice.contains("left out")), "{report:?}");
    assert_same(&memory, &record, target.path());
    // Again over what is right: it goes and comes back.
    restored(&memory, &record, &options);
    assert_same(&memory, &record, target.path());
    // Something else cannot be read: it stays away.
    assert!(memory.damage(|chunk| chunk == b"three") > 0);
    fs::remove_file(target.path().join("z/b")).unwrap();
    let report = restore(&memory, &record, &options, &Silent).unwrap();
    assert!(report.state == State::Incomplete && !control.exists(), "{report:?}");
}

#[test]
fn a_plan_counts_the_folders_that_the_restore_makes() {
    let source =
        tree(&[("a/b/c/x.txt", "1"), ("a/b/y.txt", "2"), ("a/z.jpg", "3"), ("d/e/w.txt", "4"), ("v", "")]);
    fs::create_dir_all(source.path().join("empty/within")).unwrap();
    let memory = Memory::default();
    let config = FilesConfig { keep_deleted: Some("90d".parse().unwrap()), ..config(source.path()) };
    let first = backup(&memory, &config, None);
    for gone in ["a/b", "d/e"] {
        fs::remove_dir_all(source.path().join(gone)).unwrap();
    }
    let second = backup(&memory, &config, Some(&first));
    write(source.path(), "d/e/w.txt", "again");
    let third = backup(&memory, &config, Some(&second));
    fs::remove_file(source.path().join("d/e/w.txt")).unwrap();
    let fourth = backup(&memory, &config, Some(&third));
    /// What is restored, whether with the deleted, which paths; the folders that are there; how many are then made.
    type Case<'a> = (&'a mainstay_domain::point::SourceRecord, bool, &'a [&'a str], &'a [&'a str], u64);
    let cases: [Case<'_>; 8] = [
        (&first, false, &[], &[], 7),
        (&first, false, &[], &["a/b", "empty"], 4),
        (&first, false, &["**/*.txt"], &[], 5),
        (&first, false, &["**/*.txt"], &["a"], 4),
        (&first, false, &["a/b/c"], &[], 3),
        (&first, false, &["a/**", "empty/**"], &[], 5),
        (&fourth, true, &[], &[], 5),
        (&fourth, true, &["a/b/y.txt"], &["a"], 1),
    ];
    for (record, deleted, paths, there, expected) in cases {
        let target = tempfile::tempdir().unwrap();
        for folder in there {
            fs::create_dir_all(target.path().join(folder)).unwrap();
        }
        let paths = paths.iter().map(|path| path.into()).collect();
        let options = RestoreOptions { paths, deleted, ..into(target.path()) };
        let plan = plan_restore(&memory, record, &options, &Silent).unwrap();
        let report = restored(&memory, record, &options);
        let case = (&options.paths, there, deleted);
        assert_eq!((plan.directories, plan.create), (report.directories, report.files), "{case:?}");
        assert_eq!(plan.directories, expected, "{case:?}");
    }
}
