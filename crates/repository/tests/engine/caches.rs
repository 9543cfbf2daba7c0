//! The cache holds nothing that is not in the store: whatever becomes of it, backups and restores go on.

use crate::support::*;
use mainstay_domain::{PointId, Silent};
use mainstay_repository::{
    Access, Repository,
    check::{Depth, check},
    collect::collect,
};
use mainstay_stores::{MemoryStore, Store};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

fn opened(store: &Arc<dyn Store>, cache: &Path) -> Repository {
    Repository::open(Access { cache: Some(cache.to_owned()), ..access(store.clone()) }, None).unwrap()
}

fn repository_with_points() -> (Arc<dyn Store>, Vec<PointId>) {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    create(&store);
    let points = (0..3).map(|seed| back_up(&open(&store), &[("a", noise(seed, 50_000))]).point).collect();
    (store, points)
}

/// All is there, what is known is recognised, and a new point is whole.
fn works(store: &Arc<dyn Store>, cache: &Path, case: &str) {
    let repository = opened(store, cache);
    let known = back_up(&repository, &[("a", noise(2, 50_000))]);
    assert_eq!(known.stored_bytes, 0, "{case}: it is known");
    let new = back_up(&repository, &[("a", noise(99, 50_000))]);
    let again = back_up(&opened(store, cache), &[("a", noise(99, 50_000))]);
    assert_eq!(again.stored_bytes, 0, "{case}: it is known by now");
    assert!(read(&opened(store, cache), &new.point, 0).unwrap() == noise(99, 50_000), "{case}");
    let points: Vec<_> = repository.refreshed_state().unwrap().facts.points.into_keys().collect();
    assert_eq!(
        check(&opened(store, cache), &points, Depth::Data, 1, &Silent).unwrap().findings,
        [],
        "{case}"
    );
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(file, target).unwrap();
    }
}

#[test]
fn a_damaged_cache_is_made_again() {
    for damage in ["cut", "flipped", "emptied"] {
        let (store, points) = repository_with_points();
        let cache = tempfile::tempdir().unwrap();
        read(&opened(&store, cache.path()), &points[0], 0).unwrap();
        assert!(files(cache.path()).len() >= 3);
        for file in files(cache.path()) {
            let mut bytes = fs::read(&file).unwrap();
            match damage {
                "cut" => bytes.truncate(bytes.len() / 2),
                "flipped" => {
                    let middle = bytes.len() / 2;
                    bytes[middle] ^= 1;
                }
                _ => bytes.clear(),
            }
            fs::write(&file, bytes).unwrap();
        }
        works(&store, cache.path(), damage);
    }
}

#[test]
fn a_cache_that_is_deleted_under_an_open_repository_is_made_again() {
    let (store, points) = repository_with_points();
    let cache = tempfile::tempdir().unwrap();
    let repository = opened(&store, cache.path());
    read(&repository, &points[0], 0).unwrap();
    fs::remove_dir_all(cache.path()).unwrap();
    assert!(read(&repository, &points[1], 0).unwrap() == noise(1, 50_000));
    assert_eq!(back_up(&repository, &[("a", noise(1, 50_000))]).stored_bytes, 0);
    works(&store, cache.path(), "deleted");
}

#[test]
fn a_cache_of_another_repository_leads_nobody_astray() {
    let (ours, points) = repository_with_points();
    let (theirs, _) = repository_with_points();
    let caches = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    back_up(&opened(&theirs, caches[1].path()), &[("a", noise(77, 50_000))]);
    read(&opened(&ours, caches[0].path()), &points[0], 0).unwrap();
    // Somebody has put the files of theirs where ours look for them.
    let root = |cache: &Path| fs::read_dir(cache).unwrap().next().unwrap().unwrap().path();
    copy(&root(caches[1].path()), &root(caches[0].path()));
    let session = back_up(&opened(&ours, caches[0].path()), &[("a", noise(77, 50_000))]);
    assert!(session.stored_bytes > 50_000, "what only theirs holds is stored");
    works(&ours, caches[0].path(), "foreign");
    works(&theirs, caches[1].path(), "shared root");
}

#[test]
fn a_cache_of_yesterday_leads_nobody_to_what_was_deleted() {
    let (store, points) = repository_with_points();
    let [cache, yesterday] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let repository = opened(&store, cache.path());
    read(&repository, &points[0], 0).unwrap();
    copy(cache.path(), yesterday.path());
    repository.drop_point(points[0], "test", "to be deleted").unwrap();
    assert!(collect(&repository, 0, &Silent).unwrap().deleted_objects > 0);
    let again = back_up(&opened(&store, yesterday.path()), &[("a", noise(0, 50_000))]);
    assert!(again.stored_bytes > 50_000, "what was deleted is stored again");
    assert!(read(&opened(&store, yesterday.path()), &again.point, 0).unwrap() == noise(0, 50_000));
    works(&store, yesterday.path(), "stale");
}

#[test]
fn a_cache_that_cannot_be_made_is_done_without() {
    let (store, _) = repository_with_points();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a file");
    fs::write(&file, b"in the way").unwrap();
    works(&store, &file.join("cache"), "no directory");
    assert_eq!(fs::read(&file).unwrap(), b"in the way");
}

/// Runs the test again in a mount namespace of its own, and gives it an empty folder there; `None` outside.
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

fn mount(arguments: &[&str], at: &Path) {
    assert!(Command::new("mount").args(arguments).arg(at).status().unwrap().success());
}

#[test]
fn a_cache_on_a_full_or_read_only_disk_fails_no_backup_and_no_restore() {
    let test = "caches::a_cache_on_a_full_or_read_only_disk_fails_no_backup_and_no_restore";
    let Some(directory) = with_own_mounts(test) else { return };
    mount(&["-t", "tmpfs", "-o", "mode=0700,size=64k", "tmpfs"], &directory);
    let (store, points) = repository_with_points();
    read(&opened(&store, &directory), &points[0], 0).unwrap();
    fs::write(directory.join("ballast"), vec![7; 64 << 10]).unwrap_err();
    works(&store, &directory, "full");

    fs::remove_file(directory.join("ballast")).unwrap();
    let (store, points) = repository_with_points();
    read(&opened(&store, &directory), &points[0], 0).unwrap();
    mount(&["-o", "remount,ro"], &directory);
    works(&store, &directory, "read-only");
}
