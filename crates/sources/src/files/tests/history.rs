//! Random trees, random operations: every backup of a history restores to what the tree was, and what was deleted is
//! findable. The model is a map.

use super::{
    super::{testing::*, *},
    assert_same, into, restored,
};
use mainstay_domain::point::SourceRecord;
use proptest::prelude::*;
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

#[derive(Debug, Clone)]
enum Operation {
    Write(String, Vec<u8>),
    Append(String),
    Remove(String),
    Link(String, String),
    Rename(String, String),
    Mode(String, u32),
    Backup,
    FullBackup,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Model {
    File(Vec<u8>),
    Directory,
    Link(String),
}

fn path() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["a", "a.b", "a-", "b", "\u{e4}", "c d", "e\nf"]);
    prop::collection::vec(name, 1..4).prop_map(|parts| parts.join("/"))
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        6 => (path(), prop::collection::vec(any::<u8>(), 0..50)).prop_map(|(p, b)| Operation::Write(p, b)),
        2 => path().prop_map(Operation::Append),
        3 => path().prop_map(Operation::Remove),
        1 => (path(), path()).prop_map(|(p, t)| Operation::Link(p, t)),
        2 => (path(), path()).prop_map(|(a, b)| Operation::Rename(a, b)),
        1 => (path(), 0u32..0o1000).prop_map(|(p, m)| Operation::Mode(p, m | 0o700)),
        3 => Just(Operation::Backup),
        1 => Just(Operation::FullBackup),
    ]
}

/// What the tree is, by way of the standard library.
fn model(root: &Path) -> BTreeMap<String, Model> {
    fn visit(directory: &Path, below: &str, map: &mut BTreeMap<String, Model>) {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{below}{}", entry.file_name().to_str().unwrap());
            let kind = entry.file_type().unwrap();
            let model = if kind.is_dir() {
                visit(&entry.path(), &format!("{name}/"), map);
                Model::Directory
            } else if kind.is_symlink() {
                Model::Link(fs::read_link(entry.path()).unwrap().to_str().unwrap().to_owned())
            } else {
                Model::File(fs::read(entry.path()).unwrap())
            };
            map.insert(name, model);
        }
    }
    let mut map = BTreeMap::new();
    visit(root, "", &mut map);
    map
}

fn apply(root: &Path, operation: &Operation) {
    // Whatever the tree does not allow does not happen.
    let at = |path: &str| root.join(path);
    let _ = match operation {
        Operation::Write(path, bytes) => {
            let _ = fs::create_dir_all(at(path).parent().unwrap());
            fs::write(at(path), bytes)
        }
        Operation::Append(path) => fs::read(at(path)).and_then(|mut bytes| {
            bytes.extend_from_slice(b"more");
            fs::write(at(path), bytes)
        }),
        Operation::Remove(path) => fs::remove_file(at(path)).or_else(|_| fs::remove_dir_all(at(path))),
        Operation::Link(path, target) => symlink(target, at(path)),
        Operation::Rename(from, to) => fs::rename(at(from), at(to)),
        Operation::Mode(path, mode) if !at(path).is_symlink() => {
            fs::set_permissions(at(path), fs::Permissions::from_mode(*mode))
        }
        _ => Ok(()),
    };
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn every_backup_of_a_history_restores_to_what_was(operations in prop::collection::vec(operation(), 1..60)) {
        let source = tempfile::tempdir().unwrap();
        let memory = Memory::default();
        let config = FilesConfig { keep_deleted: Some("90d".parse().unwrap()), ..config(source.path()) };
        let mut history: Vec<(SourceRecord, BTreeMap<String, Model>)> = Vec::new();
        let mut ever: BTreeMap<String, Vec<Model>> = BTreeMap::new();
        for operation in operations.iter().chain([&Operation::Backup]) {
            apply(source.path(), operation);
            if matches!(operation, Operation::Backup | Operation::FullBackup) {
                let now = model(source.path());
                let previous = history.last().map(|(record, _)| (&memory as &dyn mainstay_domain::stream::Vault, record));
                let full = matches!(operation, Operation::FullBackup);
                // Not ten seconds on: everything is fresh, as in life.
                let options = CaptureOptions { full, ..CaptureOptions::new(&mainstay_domain::SystemClock) };
                let record = capture("files", &config, &memory, previous, &options, &mainstay_domain::Silent).unwrap();
                prop_assert_eq!(&record.problems, &[]);
                for (path, model) in &now {
                    ever.entry(path.clone()).or_default().push(model.clone());
                }
                history.push((record, now));
            }
        }
        for (record, expected) in &history {
            let target = tempfile::tempdir().unwrap();
            restored(&memory, record, &into(target.path()));
            prop_assert_eq!(&model(target.path()), expected);
            assert_same(&memory, record, target.path());
        }
        // Over each other, with deletion: as good as new.
        let target = tempfile::tempdir().unwrap();
        for (record, expected) in history.iter().rev() {
            let options = RestoreOptions { delete: true, check_content: true, ..into(target.path()) };
            restored(&memory, record, &options);
            prop_assert_eq!(&model(target.path()), expected);
        }
        // Every path that a backup once held is in the newest, or among the deleted.
        let (newest, now) = history.last().unwrap();
        let deleted = paths(&memory, newest, DELETED);
        for path in ever.keys() {
            let shown = show_path(path.as_bytes());
            prop_assert!(now.contains_key(path) || deleted.contains(&shown), "{} in {:?}", shown, deleted);
        }
    }
}
