//! One of every kind of file, captured, restored and compared.

use super::{
    super::{testing::*, *},
    assert_same, into, names, restored,
};
use mainstay_domain::{
    Silent,
    listing::{Entry, FileKind},
};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, lsetxattr, makedev, mknodat};
use std::{
    ffi::OsStr,
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink},
        net::UnixListener,
    },
    path::Path,
    process::Command,
    time::{Duration, UNIX_EPOCH},
};

/// Makes the tree; what needs root only as root.
fn zoo(root: &Path) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    let at = |name: &[u8]| root.join(OsStr::from_bytes(name));
    fs::write(at(b"plain"), "hello").unwrap();
    fs::write(at(b"empty"), "").unwrap();
    fs::write(at(b"new\nline"), "1").unwrap();
    fs::write(at(b"not \xff\xfe utf-8"), "2").unwrap();
    fs::write(at(b"-rf \"quotes' $x"), "3").unwrap();
    fs::write(at(&[b'n'; 255]), "long").unwrap();
    fs::create_dir_all(at(b"dir/sub/empty dir")).unwrap();
    fs::create_dir_all(at(b"dir.d")).unwrap();
    fs::create_dir_all(at(b"dir-")).unwrap();
    fs::write(at(b"dir/sub/file"), "x").unwrap();
    fs::write(at(b"big"), (0..40u32 << 18).flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>()).unwrap();
    let deep: std::path::PathBuf = std::iter::repeat_n("deeper", 200).collect();
    fs::create_dir_all(root.join(&deep)).unwrap();
    fs::write(root.join(&deep).join("bottom"), "end").unwrap();
    symlink("plain", at(b"link")).unwrap();
    symlink("/nowhere/\u{1F600}", at(b"dangling")).unwrap();
    symlink("..", at(b"dir/up")).unwrap();
    fs::hard_link(at(b"plain"), at(b"dir/hard")).unwrap();
    fs::hard_link(at(b"plain"), at(b"dir/sub/hard")).unwrap();
    let sparse = fs::File::create(at(b"sparse")).unwrap();
    sparse.set_len(50 << 20).unwrap();
    sparse.write_all_at(b"middle", 20 << 20).unwrap();
    let ends_with_data = fs::File::create(at(b"sparse2")).unwrap();
    ends_with_data.write_all_at(b"end", 3 << 20).unwrap();
    mknodat(CWD, at(b"fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    drop(UnixListener::bind(at(b"socket")).unwrap());
    lsetxattr(at(b"plain"), "user.note", b"\x00binary\xff", XattrFlags::empty()).unwrap();
    lsetxattr(at(b"dir"), "user.on.directory", b"", XattrFlags::empty()).unwrap();
    for (name, acl) in [("plain", "u:12345:rw-,g:54321:r--"), ("dir/sub", "d:u:12345:rwx")] {
        let status = Command::new("setfacl").arg("-m").arg(acl).arg(at(name.as_bytes())).status();
        assert!(status.unwrap().success());
    }
    if is_root {
        for (name, uid, gid) in [("plain", 12345, 54321), ("link", 7, 8), ("dir", 1, 2), ("fifo", 3, 4)] {
            std::os::unix::fs::lchown(at(name.as_bytes()), Some(uid), Some(gid)).unwrap();
        }
        let mode = Mode::RUSR | Mode::WUSR;
        mknodat(CWD, at(b"null"), FileType::CharacterDevice, mode, makedev(1, 3)).unwrap();
        mknodat(CWD, at(b"loop"), FileType::BlockDevice, mode, makedev(7, 200)).unwrap();
        fs::write(at(b"setuid"), "#!").unwrap();
        chown(at(b"setuid"), Some(4242), Some(4242)).unwrap();
    } else {
        fs::write(at(b"setuid"), "#!").unwrap();
    }
    for (name, mode) in
        [("setuid", 0o4755), ("dir", 0o2770), ("dir/sub", 0o1777), ("dir/sub/empty dir", 0o500), ("empty", 0)]
    {
        fs::set_permissions(at(name.as_bytes()), fs::Permissions::from_mode(mode)).unwrap();
    }
    let times = [("plain", 123_456_789_012_345_678), ("dir", 1), ("dir/sub/file", 4_102_444_800_000_000_001)];
    for (name, nanoseconds) in times {
        let time = UNIX_EPOCH + Duration::from_nanos(nanoseconds);
        fs::File::open(at(name.as_bytes())).unwrap().set_modified(time).unwrap();
    }
    is_root
}

#[test]
fn every_kind_of_file_comes_back_as_it_was() {
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let is_root = zoo(source.path());
    let memory = Memory::default();
    let record = backup(&memory, &config(source.path()), None);
    assert_eq!(record.problems, []);
    let report = restored(&memory, &record, &into(target.path()));
    let mut expected = names(source.path());
    expected.retain(|name| name != "socket");
    assert_eq!(names(target.path()), expected);
    let comparison = assert_same(&memory, &record, target.path());
    assert_eq!((comparison.not_compared, comparison.sockets), (0, 1));
    assert_eq!((report.hard_links, report.symlinks, report.specials), (2, 3, if is_root { 3 } else { 1 }));
    assert!(report.notices.iter().any(|notice| notice.contains("sockets")), "{:?}", report.notices);

    // And by other eyes than our own.
    let meta = |name: &str| fs::symlink_metadata(target.path().join(name)).unwrap();
    assert_eq!(meta("plain").ino(), meta("dir/sub/hard").ino());
    assert_eq!(meta("plain").nlink(), 3);
    assert_eq!(meta("setuid").mode() & 0o7777, 0o4755);
    assert_eq!(meta("dir").mtime_nsec(), 1);
    assert!(meta("sparse").blocks() * 512 < 1 << 20, "holes stay holes");
    assert_eq!(meta("sparse").len(), 50 << 20);
    let listed = |root: &Path| {
        let command = "find . -type d -o -type l -o -type f | sort | while read -r f; do getfacl -ncp \"$f\" 2>/dev/null; done; \
                       getfattr -Rhd -m user. . | sort";
        let output = Command::new("sh").arg("-c").arg(command).current_dir(root).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(listed(target.path()), listed(source.path()));
}

#[test]
fn the_comparison_names_each_kind_of_difference() {
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let is_root = zoo(source.path());
    let memory = Memory::default();
    let record = backup(&memory, &config(source.path()), None);
    restored(&memory, &record, &into(target.path()));
    let at = |name: &str| target.path().join(name);
    let keep_time = |name: &str, change: &dyn Fn(&Path)| {
        let path = at(name);
        let (file, directory) = (fs::metadata(&path).unwrap(), fs::metadata(path.parent().unwrap()).unwrap());
        change(&path);
        fs::File::open(&path).unwrap().set_modified(file.modified().unwrap()).unwrap();
        fs::File::open(path.parent().unwrap()).unwrap().set_modified(directory.modified().unwrap()).unwrap();
    };
    keep_time("big", &|path| {
        fs::File::options().write(true).open(path).unwrap().write_all_at(b"!", 12_345_678).unwrap();
    });
    keep_time("sparse", &|path| {
        fs::File::options().write(true).open(path).unwrap().write_all_at(b"!", 40 << 20).unwrap();
    });
    keep_time("dir.d", &|path| fs::set_permissions(path, fs::Permissions::from_mode(0o711)).unwrap());
    keep_time("empty", &|path| fs::write(path, "not").unwrap());
    keep_time("dir/sub", &|path| {
        fs::remove_file(path.join("hard")).unwrap();
        fs::copy(at("plain"), path.join("hard")).unwrap();
        fs::write(path.join("surplus"), "").unwrap();
        fs::remove_file(path.join("file")).unwrap();
    });
    fs::remove_file(at("link")).unwrap();
    symlink("elsewhere", at("link")).unwrap();
    fs::remove_file(at("fifo")).unwrap();
    fs::write(at("fifo"), "").unwrap();
    lsetxattr(at("new\nline"), "user.extra", b"1", XattrFlags::empty()).unwrap();
    if is_root {
        std::os::unix::fs::lchown(at("dangling"), Some(99), None).unwrap();
    }
    let comparison = compare(&memory, &record, target.path(), &Silent).unwrap();
    let found: Vec<(String, Aspect)> =
        comparison.differences.iter().map(|d| (d.path.clone(), d.aspect)).collect();
    for (path, aspect) in [
        ("big", Aspect::Content),
        ("sparse", Aspect::Content),
        ("dir.d", Aspect::Mode),
        ("empty", Aspect::Size),
        ("dir/sub/hard", Aspect::HardLinks),
        ("dir/sub/surplus", Aspect::Extra),
        ("dir/sub/file", Aspect::Missing),
        ("link", Aspect::Target),
        ("fifo", Aspect::Kind),
        ("new\\x0aline", Aspect::Xattrs),
        (".", Aspect::Modified),
    ] {
        assert!(found.contains(&(path.to_owned(), aspect)), "{path} {aspect:?} in {found:#?}");
    }
    assert_eq!(found.iter().any(|(path, aspect)| path == "dangling" && *aspect == Aspect::Owner), is_root);
    assert_eq!(comparison.difference_count as usize, comparison.differences.len());
}

#[test]
fn a_second_backup_of_the_zoo_takes_everything_over() {
    let source = tempfile::tempdir().unwrap();
    zoo(source.path());
    let memory = Memory::default();
    let first = backup(&memory, &config(source.path()), None);
    let second = backup(&memory, &config(source.path()), Some(&first));
    assert_eq!(second.stream(LISTING), first.stream(LISTING));
    let kinds = |record| -> Vec<FileKind> {
        entries(&memory, record, LISTING).into_iter().map(|(_, entry): (Vec<u8>, Entry)| entry.kind).collect()
    };
    assert_eq!(kinds(&second), kinds(&first));
}
