//! Tests of the file source as a whole, against a repository in memory.

mod capturing;
mod history;
mod hostile;
mod looking;
mod restoring;
mod unprivileged;
mod zoo;

use super::{testing::*, *};
use mainstay_domain::{
    Result, Silent,
    point::{SourceRecord, State},
};
use std::{fs, path::Path};

/// A scratch directory with these files in it.
fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
    let scratch = tempfile::tempdir().unwrap();
    for (path, text) in files {
        write(scratch.path(), path, text);
    }
    scratch
}

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn into(destination: &Path) -> RestoreOptions {
    RestoreOptions { destination: destination.to_owned(), ..RestoreOptions::default() }
}

fn restore_with(memory: &Memory, record: &SourceRecord, options: &RestoreOptions) -> Result<RestoreReport> {
    restore(memory, record, options, &Silent)
}

/// Restores without any trouble.
fn restored(memory: &Memory, record: &SourceRecord, options: &RestoreOptions) -> RestoreReport {
    let report = restore_with(memory, record, options).unwrap();
    assert_eq!((report.state, &report.problems[..]), (State::Complete, &[][..]));
    report
}

/// The tree is as recorded, to the last byte.
fn assert_same(memory: &Memory, record: &SourceRecord, directory: &Path) -> Comparison {
    let comparison = compare(memory, record, directory, &Silent).unwrap();
    assert_eq!(comparison.differences, []);
    comparison
}

/// The same, of what lies below a directory that was lived in and keeps its own time and mode.
fn assert_same_below(memory: &Memory, record: &SourceRecord, directory: &Path) {
    let mut comparison = compare(memory, record, directory, &Silent).unwrap();
    comparison.differences.retain(|difference| difference.path != ".");
    assert_eq!(comparison.differences, []);
}

/// All names in a tree, sorted.
fn names(root: &Path) -> Vec<String> {
    fn visit(directory: &Path, below: &Path, list: &mut Vec<String>) {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let path = below.join(entry.file_name());
            list.push(path.to_string_lossy().into_owned());
            if entry.file_type().unwrap().is_dir() {
                visit(&entry.path(), &path, list);
            }
        }
    }
    let mut list = Vec::new();
    visit(root, Path::new(""), &mut list);
    list.sort();
    list
}
