//! Two repositories under one folder, and other things that are not a repository's: named, never deleted.

use crate::support::*;
use mainstay_domain::{Failure, Kind, Silent};
use mainstay_repository::{Repository, collect::collect};
use mainstay_stores::{LocalStore, Store};
use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

fn local(folder: &Path) -> Arc<dyn Store> {
    Arc::new(LocalStore::new(folder))
}

/// Every file below, with its bytes.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.display().to_string(), fs::read(&path).unwrap());
        }
    }
    found
}

/// Gives a point up and collects until nothing is left to do; returns what was found to be somebody else's.
fn give_up_and_collect(store: &Arc<dyn Store>) -> Vec<String> {
    let repository = open(store);
    let first = back_up(&repository, &[("a", noise(1, 100_000))]).point;
    let second = back_up(&repository, &[("a", noise(2, 100_000))]).point;
    repository.drop_point(first, "test", "no longer needed").unwrap();
    assert!(collect(&repository, 0, &Silent).unwrap().deleted_bytes > 90_000);
    let collected = collect(&repository, 0, &Silent).unwrap();
    assert!(read(&open(store), &second, 0).unwrap() == noise(2, 100_000));
    collected.strangers
}

#[test]
fn a_repository_within_anothers_folder_is_named_where_it_is_in_the_way_and_never_deleted() {
    for within in ["inner", "packs/data", "packs/data/ab", "index", "manifests"] {
        let folder = tempfile::tempdir().unwrap();
        let outer = local(folder.path());
        create(&outer);
        let inner = local(&folder.path().join(within));
        create(&inner);
        let point = back_up(&open(&inner), &[("a", noise(5, 100_000))]).point;
        let before = files(&folder.path().join(within));

        let strangers = give_up_and_collect(&outer);
        let after = files(&folder.path().join(within));
        let gone: Vec<_> = before.keys().filter(|name| !after.contains_key(*name)).collect();
        assert_eq!(gone, Vec::<&String>::new(), "within {within}");
        assert!(before.iter().all(|(name, bytes)| after[name] == *bytes));
        if within != "inner" {
            let object = format!("{within}/format");
            assert!(strangers.contains(&object), "within {within}: {strangers:?}");
        }
        assert!(read(&open(&inner), &point, 0).unwrap() == noise(5, 100_000));

        // And the other way about.
        let before = files(folder.path());
        give_up_and_collect(&inner);
        let after = files(folder.path());
        let inside = folder.path().join(within).display().to_string() + "/";
        let gone: Vec<_> =
            before.keys().filter(|name| !after.contains_key(*name) && !name.starts_with(&inside)).collect();
        assert_eq!(gone, Vec::<&String>::new(), "within {within}");
    }
}

#[test]
fn a_pack_of_another_repository_is_nobodys_garbage() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [ours, theirs] = folders.each_ref().map(|folder| local(folder.path()));
    create(&ours);
    create(&theirs);
    let written = back_up(&open(&theirs), &[("a", noise(5, 100_000))]).written;
    for (id, pool) in &written.packs {
        let name = mainstay_repository::pack::object_name(*pool, id);
        ours.create(&name, &theirs.read(&name).unwrap()).unwrap();
    }
    give_up_and_collect(&ours);
    for (id, pool) in &written.packs {
        assert!(ours.stat(&mainstay_repository::pack::object_name(*pool, id)).unwrap().is_some());
    }
}

#[test]
fn a_repository_is_made_only_where_nothing_else_lies() {
    let folder = tempfile::tempdir().unwrap();
    create(&local(&folder.path().join("inner")));
    let error = Repository::init(&access(local(folder.path())), "test", CHUNKING).err().unwrap();
    let failure = Failure::from(error);
    assert_eq!(failure.kind, Kind::Usage);
    assert!(failure.message.contains("holds other things"), "{failure}");
}
