//! Golden repositories: what earlier versions wrote, byte by byte, which every later version must read.
//!
//! To add one (for a new format version, or a new kind of object): raise [`NEWEST`], list it in [`GOLDEN`], and run the
//! tests once with `MAINSTAY_WRITE_GOLDEN=1`; the failure tells the fingerprint to write down. A repository that is there is
//! never written again.

use crate::sample::{self, KEY, PASSPHRASE};
use mainstay_domain::{
    PointId, Silent,
    listing::{Item, decode_items},
    point::{ProofLevel, Summary},
    stream::{Content, Vault},
};
use mainstay_keys::secret::Secret;
use mainstay_repository::{
    Repository,
    check::{Depth, check},
    proof,
};
use mainstay_stores::{MemoryStore, Store};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Every golden repository with the fingerprint of its names and bytes.
const GOLDEN: &[(&str, &str)] = &[("v1", "b9a77332eeef06e7e5ce34c084b25a0d")];
const NEWEST: &str = "v1";

pub fn names() -> impl Iterator<Item = &'static str> {
    GOLDEN.iter().map(|(name, _)| *name)
}

pub fn directory(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(version)
}

#[test]
fn every_golden_repository_is_listed_and_as_it_was_written() {
    if std::env::var_os("MAINSTAY_WRITE_GOLDEN").is_some() && !directory(NEWEST).exists() {
        let memory = MemoryStore::new();
        let store: Arc<dyn Store> = Arc::new(memory.clone());
        sample::write(&store);
        dump(&memory, &directory(NEWEST));
    }
    let mut found: Vec<_> = fs::read_dir(directory("."))
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    found.sort();
    assert_eq!(found, names().collect::<Vec<_>>());
    for (name, fingerprint) in GOLDEN {
        assert_eq!(fingerprint_of(&load(&directory(name))), *fingerprint, "{name}");
    }
}

#[test]
fn every_golden_repository_opens_checks_and_reads_back() {
    for name in names() {
        let memory = load(&directory(name));
        let store: Arc<dyn Store> = Arc::new(memory);
        for secret in [Secret::Key(KEY), Secret::Passphrase(PASSPHRASE.into())] {
            let repository = Repository::open(sample::access(&store, secret), None).unwrap();
            is_the_sample(&repository);
        }
    }
}

#[test]
fn a_repository_written_today_is_the_sample_too() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    sample::write(&store);
    is_the_sample(&sample::open(&store));
}

/// Everything that [`sample::write`] wrote can be read, and is what it was.
fn is_the_sample(repository: &Repository) {
    let state = repository.state().unwrap();
    assert!(state.doubts.is_empty(), "{:?}", state.doubts);
    let points = live(repository);
    let ids: Vec<_> = points.iter().map(|(id, _)| *id).collect();
    let sequences: Vec<_> = points.iter().map(|(_, summary)| summary.sequence).collect();
    assert_eq!(sequences, [1, 2], "the dropped ones are gone");
    let report = check(repository, &ids, Depth::Data, 2, &Silent).unwrap();
    assert_eq!(report.findings, []);
    for (id, summary) in &points {
        assert_eq!((summary.app.as_str(), summary.policy.as_deref()), ("shop", Some("nightly")));
        assert_eq!(summary.labels["release"], format!("1.{}", summary.sequence));
        is_the_point(repository, id, summary.sequence);
    }
    let (first, second) = (&ids[0], &ids[1]);
    let facts = |id| &state.facts.points[id];
    let held = [first, second].map(|id| facts(id).holds.len());
    assert_eq!(held, [1, 0], "one hold is left of many");
    let hold = facts(first).holds.values().next().unwrap().text.clone().unwrap();
    assert_eq!((hold.kind.as_str(), hold.reason.as_str()), ("legal", "an audit"));
    let proof = &facts(second).proofs[&ProofLevel::Restore];
    assert_eq!((proof.level, proof.passed, proof.restore_millis), (ProofLevel::Restore, true, 1234));
    assert_eq!(proof::read(repository, &proof.report).unwrap(), "{\"restored\": true}");
    assert!(state.last_checkpoint.is_some(), "a checkpoint is part of it");
    assert_eq!(repository.manifest(second).unwrap().point.previous, Some(*first));
}

pub fn live(repository: &Repository) -> Vec<(PointId, Summary)> {
    let state = repository.state().unwrap();
    let facts = &state.facts;
    let mut points: Vec<_> = facts.points.iter().map(|(id, p)| (*id, p.summary.clone().unwrap())).collect();
    points.sort_by_key(|(_, summary)| summary.sequence);
    points
}

fn is_the_point(repository: &Repository, id: &PointId, n: u64) {
    let manifest = repository.manifest(id).unwrap();
    let reader = repository.reader_for(&manifest).unwrap();
    let copy = |content: &Content| {
        let mut bytes = Vec::new();
        reader.copy(content, &mut bytes).unwrap();
        bytes
    };
    let [uploads, db] = &manifest.point.sources[..] else { panic!("two sources") };
    let mut found = Vec::new();
    let mut contents = BTreeMap::new();
    let mut directory = Vec::new();
    for piece in reader.pieces(&uploads.stream("listing").unwrap().content) {
        for item in decode_items(&reader.get(&piece.unwrap().chunk.unwrap()).unwrap()) {
            let item = item.unwrap();
            match &item {
                Item::Directory(path) if found.contains(&item) => assert_eq!(*path, directory, "goes on"),
                Item::Directory(path) => {
                    directory = path.clone();
                    found.push(item);
                }
                Item::Entry(entry) => {
                    let path = mainstay_domain::listing::join(&directory, &entry.name);
                    contents.extend(entry.content.clone().map(|content| (path, content)));
                    found.push(item);
                }
            }
        }
    }
    assert!(found == sample::items(n, &|path, _| contents[path].clone()));
    for (path, bytes) in sample::files(n) {
        assert!(copy(&contents[path]) == bytes, "{}", String::from_utf8_lossy(path));
    }

    let bundle = repository.keyring().current();
    for (name, parts) in sample::tables() {
        for (part, pieces) in parts.iter().enumerate() {
            let content = &db.stream(&format!("table/{name}/{part}")).unwrap().content;
            let rows = pieces.concat();
            assert!(copy(content) == rows, "{name}");
            assert_eq!((content.rows(), content.digest()), sample::digest(&bundle.row_key(), &rows));
        }
    }
    let many = &db.stream("table/public.many/0").unwrap().content;
    assert_eq!(many.level, 2, "lists of lists are part of it");
    assert!(copy(many) == sample::many(&bundle.chunk_id_key()));
}

pub fn dump(memory: &MemoryStore, directory: &Path) {
    for (name, bytes) in memory.objects() {
        let path = directory.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

pub fn load(directory: &Path) -> MemoryStore {
    let memory = MemoryStore::new();
    let mut folders = vec![directory.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(directory).unwrap().to_str().unwrap();
                memory.overwrite(name, &fs::read(&path).unwrap());
            }
        }
    }
    memory
}

fn fingerprint_of(memory: &MemoryStore) -> String {
    let mut hasher = blake3::Hasher::new();
    for (name, bytes) in memory.objects() {
        hasher.update(name.as_bytes()).update(&[0]).update(blake3::hash(&bytes).as_bytes());
    }
    hasher.finalize().to_hex()[..32].to_owned()
}
