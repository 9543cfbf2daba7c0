//! What the store in a folder promises beyond the common contract: durability's traces, permissions, crashes, bad disks.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

use mainstay_domain::{Failure, Kind};
use mainstay_stores::{LocalStore, Store, StoreError, open};
use std::{
    fs::{self, Permissions},
    ops::ControlFlow,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

fn names(store: &dyn Store) -> Vec<String> {
    let mut found = Vec::new();
    store
        .list("", &mut |listed| {
            found.push(listed.name);
            ControlFlow::Continue(())
        })
        .unwrap();
    found.sort();
    found
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o777
}

fn leftovers(root: &Path) -> usize {
    fs::read_dir(root.join(".tmp")).map_or(0, |entries| entries.count())
}

#[test]
fn only_the_owner_can_read_what_is_stored() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("store");
    LocalStore::new(&root).create("packs/data/ab/x", b"x").unwrap();
    assert_eq!(mode(&root.join("packs/data/ab/x")), 0o600);
    for made in ["", "packs", "packs/data", "packs/data/ab", ".tmp"] {
        assert_eq!(mode(&root.join(made)), 0o700, "{made:?}");
    }
}

#[test]
fn a_finished_write_leaves_nothing_but_its_object() {
    let directory = tempfile::tempdir().unwrap();
    let store = LocalStore::new(directory.path());
    store.create("a", b"x").unwrap();
    assert!(store.create("a", b"y").unwrap_err().already_exists());
    assert_eq!(leftovers(directory.path()), 0);
    assert_eq!(fs::metadata(directory.path().join("a")).unwrap().nlink(), 1);
}

#[test]
fn a_killed_writer_leaves_a_file_that_is_no_object_and_that_the_next_writer_removes() {
    let directory = tempfile::tempdir().unwrap();
    let temporary = directory.path().join(".tmp");
    fs::create_dir(&temporary).unwrap();
    let (gone, alive) = (temporary.join("1-dead"), temporary.join("2-alive"));
    fs::write(&gone, b"half a pack").unwrap();
    fs::write(&alive, b"half of another").unwrap();
    // Another process holds the lock of its own file, as a writer does, until we close its standard input.
    let mut writer = Command::new("flock")
        .args(["--nonblock", alive.to_str().unwrap(), "sh", "-c", "echo locked; read _"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(writer.stdout.take().unwrap()), &mut line)
        .unwrap();
    assert_eq!(line, "locked\n");

    let store = LocalStore::new(directory.path());
    assert_eq!(names(&store), [] as [&str; 0], "reading a store changes nothing and shows no leftovers");
    assert!(gone.exists());
    store.create("a", b"x").unwrap();
    assert!(!gone.exists());
    assert!(alive.exists(), "its writer still lives");

    drop(writer.stdin.take());
    writer.wait().unwrap();
    LocalStore::new(directory.path()).create("b", b"x").unwrap();
    assert!(!alive.exists());
    assert_eq!(names(&store), ["a", "b"]);
}

#[test]
fn a_folder_removed_under_a_running_writer_is_made_again() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("store");
    let store = LocalStore::new(&root);
    store.create("packs/data/ab/x", b"x").unwrap();
    fs::remove_dir_all(&root).unwrap();
    store.create("packs/data/ab/y", b"y").unwrap();
    assert_eq!(names(&store), ["packs/data/ab/y"]);
}

#[test]
fn only_regular_files_are_objects() {
    let directory = tempfile::tempdir().unwrap();
    let store = LocalStore::new(directory.path().join("store"));
    store.create("packs/x", b"x").unwrap();
    fs::write(directory.path().join("secret"), b"not ours").unwrap();
    let inside = |name: &str| directory.path().join("store").join(name);
    symlink("../secret", inside("link")).unwrap();
    symlink("..", inside("folder")).unwrap();
    assert!(Command::new("mkfifo").arg(inside("fifo")).status().unwrap().success());
    fs::create_dir(inside("lost+found")).unwrap();
    fs::write(inside("lost+found/1"), b"").unwrap();
    fs::write(inside("a name with spaces"), b"").unwrap();

    assert_eq!(names(&store), ["packs/x"]);
    for name in ["link", "fifo", "packs"] {
        assert!(store.read(name).unwrap_err().is_not_found(), "{name}: neither followed nor waited for");
        assert_eq!(store.stat(name).unwrap(), None, "{name}");
    }
    for taken in ["link", "fifo"] {
        assert!(store.create(taken, b"x").unwrap_err().already_exists(), "{taken}: what is there stays");
    }
}

#[test]
fn a_file_where_a_folder_should_be_is_named() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("log"), b"").unwrap();
    let error = LocalStore::new(directory.path()).create("log/1", b"").unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    assert!(error.to_string().contains("log/1"));
}

#[test]
fn an_address_with_odd_characters_means_the_folder_it_shows() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("50% off #1?");
    let address = LocalStore::new(&root).describe();
    open(&address).unwrap().create("a", b"x").unwrap();
    assert!(root.join("a").exists(), "{address}");
}

/// Runs a test of this file again as the user `nobody` when we are root, whom no permission stops.
fn as_ordinary_user(test: &str) -> bool {
    if rustix::process::geteuid().as_raw() != 0 {
        return true;
    }
    // nobody must be able to reach the program: a copy in a folder that everyone may enter.
    let shared = tempfile::tempdir().unwrap();
    fs::set_permissions(shared.path(), Permissions::from_mode(0o777)).unwrap();
    let program = shared.path().join("test");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    let output = Command::new("setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"])
        .arg(&program)
        .args(["--exact", test, "--nocapture"])
        .env("TMPDIR", shared.path())
        .current_dir(shared.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    false
}

#[test]
fn a_folder_without_permission_is_denied_and_nothing_changes() {
    if !as_ordinary_user("a_folder_without_permission_is_denied_and_nothing_changes") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let store = LocalStore::new(directory.path());
    store.create("packs/x", b"x").unwrap();
    let packs = directory.path().join("packs");

    fs::set_permissions(&packs, Permissions::from_mode(0o500)).unwrap();
    for error in [store.create("packs/y", b"y").unwrap_err(), store.delete("packs/x").unwrap_err()] {
        assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");
        let failure = Failure::from(error);
        assert_eq!(failure.kind, Kind::Failed);
        assert!(failure.hint.unwrap().contains("may read and write"));
    }
    assert_eq!(store.read("packs/x").unwrap(), b"x", "reading still works");
    assert_eq!(leftovers(directory.path()), 0);

    fs::set_permissions(&packs, Permissions::from_mode(0o000)).unwrap();
    let denied = |error| assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");
    denied(store.read("packs/x").unwrap_err());
    denied(store.stat("packs/x").unwrap_err());
    denied(store.list("", &mut |_| ControlFlow::Continue(())).unwrap_err());
    fs::set_permissions(&packs, Permissions::from_mode(0o700)).unwrap();
    assert_eq!(names(&store), ["packs/x"]);
}

/// Runs a test of this file again in mount and user namespaces of its own, where it may mount file systems; inside, returns
/// a folder to mount them on.
fn with_own_mounts(test: &str) -> Option<PathBuf> {
    const INSIDE: &str = "MAINSTAY_TEST_OWN_MOUNTS";
    if let Some(folder) = std::env::var_os(INSIDE) {
        return Some(folder.into());
    }
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new("unshare")
        .args(["--map-root-user", "--mount", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, folder.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    None
}

/// A small file system that ends with the namespace.
fn mount_tmpfs(at: &Path, options: &str) {
    let options = format!("mode=0700,{options}");
    let status = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at).status();
    assert!(status.unwrap().success());
}

#[test]
fn a_full_disk_is_said_to_be_full_and_what_was_there_stays() {
    let Some(directory) = with_own_mounts("a_full_disk_is_said_to_be_full_and_what_was_there_stays") else {
        return;
    };
    mount_tmpfs(&directory, "size=256k");
    let store = LocalStore::new(&directory);
    store.create("log/1", b"first").unwrap();
    let error = store.create("packs/x", &[7; 1_000_000]).unwrap_err();
    assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
    assert!(Failure::from(error).hint.unwrap().contains("Free some space"));
    assert_eq!(leftovers(&directory), 0, "the half-written file does not take the space that is left");
    store.create("log/2", b"second").unwrap();
    assert_eq!(names(&store), ["log/1", "log/2"]);
}

#[test]
fn a_disk_without_inodes_is_full_too() {
    let Some(directory) = with_own_mounts("a_disk_without_inodes_is_full_too") else { return };
    mount_tmpfs(&directory, "nr_inodes=6");
    let store = LocalStore::new(&directory);
    let error = (0..10).find_map(|n| store.create(&format!("log/{n}"), b"").err()).unwrap();
    assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
}

#[test]
fn a_store_that_becomes_read_only_is_denied_and_still_read() {
    let Some(directory) = with_own_mounts("a_store_that_becomes_read_only_is_denied_and_still_read") else {
        return;
    };
    mount_tmpfs(&directory, "size=1m");
    let store = LocalStore::new(&directory);
    store.create("log/1", b"first").unwrap();
    let remounted = Command::new("mount").args(["-o", "remount,ro"]).arg(&directory).status();
    assert!(remounted.unwrap().success());
    for store in [store, LocalStore::new(&directory)] {
        for name in ["log/2", "packs/data/ab/x"] {
            let error = store.create(name, b"second").unwrap_err();
            assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");
        }
        assert!(store.create("log/1", b"first").unwrap_err().already_exists());
        assert!(matches!(store.delete("log/1").unwrap_err(), StoreError::Denied { .. }));
        assert_eq!(store.read("log/1").unwrap(), b"first");
    }
}
