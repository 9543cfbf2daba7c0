//! `tools/reader.py`, written from `doc/format.md` alone, against what this code wrote: if the page and the code part ways,
//! these tests fail.

use crate::{
    golden,
    sample::{self, KEY, PASSPHRASE},
};
use mainstay_repository::log::entry::object_name;
use mainstay_stores::{LocalStore, MemoryStore, Store};
use std::{
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
};

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The Python of `make setup`, with the packages that the reader needs.
pub fn python() -> Command {
    let path = project().join(".setup/python/bin/python");
    let import = Command::new(&path).args(["-c", "import argon2, blake3, cryptography, zstandard"]).output();
    let ready = import.is_ok_and(|output| output.status.success());
    assert!(ready, "there is no Python with the packages of scripts/pins/python.txt here: run `make setup`");
    let mut command = Command::new(path);
    command.arg("-B").env_remove("MAINSTAY_KEY").env_remove("MAINSTAY_PASSPHRASE");
    command
}

fn run(store: &Path, arguments: &[&[u8]], secret: (&str, &str)) -> Output {
    let (command, rest) = arguments.split_first().unwrap();
    python()
        .arg(project().join("tools/reader.py"))
        .args([OsStr::from_bytes(command), store.as_os_str()])
        .args(rest.iter().map(|argument| OsStr::from_bytes(argument)))
        .env(secret.0, secret.1)
        .output()
        .unwrap()
}

fn key() -> (&'static str, String) {
    ("MAINSTAY_KEY", hex::encode(KEY))
}

/// What the reader prints; it must succeed, and have nothing to say but the repository's fingerprint.
fn read(store: &Path, arguments: &[&[u8]]) -> Vec<u8> {
    let (variable, key) = key();
    let output = run(store, arguments, (variable, &key));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.is_empty() || said.starts_with("repository ") && said.lines().count() == 1, "{said}");
    output.stdout
}

/// The listing of every point of the sample, but for one file whose size changes.
const LISTING: &str = "\
d2750\t1000\t33\t0\t-1\t
d2750\t1000\t33\t0\t-1\ta
d2750\t1000\t33\t0\t-1\ta.b
-0640\t1000\t33\t16\t-1\thello.txt
l0640\t1000\t33\t0\t-1\tlink -> ../no\\\\where
-0640\t1000\t33\t12000\t-1\tnoise.bin
c0640\t1000\t33\t0\t-1\tnull
p0640\t1000\t33\t0\t-1\tpipe
-0640\t1000\t33\t1500008\t-1\tsparse.img
d2750\t1000\t33\t0\t-1\ta/deep
-0640\t1000\t33\t1400\t-1\ta/na\\nme\\xff
-0640\t1000\t33\t12000\t-1\ta/deep/copy.bin
-0640\t1000\t33\t0\t-1\ta/deep/empty
";
const TABLES: &str = "\
schema\t24\t0
table/public.orders/0\t9770\t400
table/public.orders/1\t1250\t50
table/public.orders/2\t0\t0
table/sales.Zeile%2Fä/0\t2\t1
table/public.many/0\t33792\t8448
";

/// Everything in a point of the sample comes out of the other program as it went in.
fn is_the_point(store: &Path, point: &str, n: u64, chunk_id_key: &[u8; 32]) {
    let point = point.as_bytes();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    assert_eq!(text(read(store, &[b"ls", point, b"uploads"])), LISTING);
    let length = sample::many(chunk_id_key).len().to_string();
    assert_eq!(text(read(store, &[b"ls", point, b"db"])), TABLES.replace("33792", &length));
    for (path, bytes) in sample::files(n) {
        assert!(read(store, &[b"file", point, b"uploads", path]) == bytes, "{}", path.escape_ascii());
    }
    for (table, parts) in sample::tables() {
        let rows = parts.concat().concat();
        assert!(read(store, &[b"table", point, b"db", table.as_bytes()]) == rows, "{table}");
    }
    assert!(read(store, &[b"table", point, b"db", b"public.many"]) == sample::many(chunk_id_key));
}

/// The ids of the points in a list.
fn listed(output: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(output);
    text.lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect()
}

/// Both points of a sample repository in a directory, which this program opens too.
fn is_the_sample(directory: &Path) {
    let repository = sample::open(&(Arc::new(golden::load(directory)) as Arc<dyn Store>));
    let chunk_id_key = repository.keyring().current().chunk_id_key();
    let points = golden::live(&repository);
    let live: Vec<_> = points.iter().map(|(id, _)| id.to_string()).collect();
    assert_eq!(listed(&read(directory, &[b"list"])), live, "what was dropped is not shown");
    for (id, summary) in points {
        is_the_point(directory, &id.to_string(), summary.sequence, &chunk_id_key);
    }
}

#[test]
fn another_program_reads_every_golden_repository() {
    for name in golden::names() {
        is_the_sample(&golden::directory(name));
    }
}

#[test]
fn another_program_reads_what_is_written_today() {
    let folder = tempfile::tempdir().unwrap();
    sample::write(&(Arc::new(LocalStore::new(folder.path())) as Arc<dyn Store>));
    is_the_sample(folder.path());
}

#[test]
fn another_program_opens_with_the_passphrase_and_with_no_other_key() {
    let store = golden::directory("v1");
    let list = |variable, secret| run(&store, &[b"list"], (variable, secret));
    let (variable, key) = key();
    let by_key = list(variable, &key);
    let by_phrase = list("MAINSTAY_PASSPHRASE", PASSPHRASE);
    assert!(by_key.status.success() && by_key.stdout == by_phrase.stdout);
    for secret in [(variable, "08".repeat(32).as_str()), ("MAINSTAY_PASSPHRASE", "another one")] {
        let output = list(secret.0, secret.1);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(
            String::from_utf8_lossy(&output.stderr),
            "reader: the key does not open this repository\n"
        );
    }
}

#[test]
fn another_program_gives_out_nothing_that_was_tampered_with() {
    let folder = tempfile::tempdir().unwrap();
    let memory = MemoryStore::new();
    let store: Arc<dyn Store> = Arc::new(memory.clone());
    let point = sample::write(&store).to_string();
    let (variable, key) = key();
    // What the file needs, and what is said about it; the index is made again from the packs where it is damaged.
    let matters = [("format", false), ("trust/", false), ("packs/data/", false), ("packs/tree/", false)];
    for (kind, survives) in
        matters.into_iter().chain([("manifests/", false), ("keys/", false), ("index/", true)])
    {
        let damaged = memory.snapshot();
        for (name, bytes) in memory.objects() {
            if name.starts_with(kind) {
                let mut bytes = bytes.to_vec();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                damaged.overwrite(&name, &bytes);
            }
        }
        let copy = folder.path().join(kind.replace('/', "-"));
        golden::dump(&damaged, &copy);
        let output = run(&copy, &[b"file", point.as_bytes(), b"uploads", b"noise.bin"], (variable, &key));
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), survives, "{kind}: {said}");
        assert!(said.contains(kind), "{kind} is named: {said}");
        let (whole, given) = (sample::noise(1, 12_000), output.stdout);
        assert!(if survives { given == whole } else { given.is_empty() }, "{kind}");
        fs::remove_dir_all(copy).unwrap();
    }
}

/// What the log cannot say any more is not taken for deleted: the dropped point comes back, and the others stay.
#[test]
fn another_program_loses_no_point_with_a_part_of_the_log_or_all_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(LocalStore::new(folder.path()));
    sample::write(&store);
    let live = listed(&read(folder.path(), &[b"list"]));
    let mut names: Vec<_> =
        fs::read_dir(folder.path().join("log")).unwrap().map(|e| e.unwrap().path()).collect();
    names.sort();
    // The last three entries: Commit of the dropped point, its Drop, the proof.
    let drop_entry = &names[names.len() - 2];
    let (variable, key) = key();
    let list = || run(folder.path(), &[b"list"], (variable, &key));

    let stray = folder.path().join(object_name(u64::MAX));
    fs::write(&stray, b"whoever put it there").unwrap();
    assert_eq!(listed(&list().stdout), live, "what lies far beyond the end is no part of the log");
    fs::remove_file(stray).unwrap();

    let mut bytes = fs::read(drop_entry).unwrap();
    let end = bytes.len() - 1;
    bytes[end] ^= 1;
    fs::write(drop_entry, bytes).unwrap();
    let output = list();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains(drop_entry.file_name().unwrap().to_str().unwrap()), "{said}");
    let found = listed(&output.stdout);
    assert!(found.len() == 3 && found.starts_with(&live), "{found:?}");

    fs::remove_file(drop_entry).unwrap();
    assert_eq!(listed(&list().stdout), found);
    fs::remove_dir_all(folder.path().join("log")).unwrap();
    assert_eq!(listed(&list().stdout), found);
}
