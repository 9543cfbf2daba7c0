//! The ceiling that backups of files are measured against: read, cut, hash, compress, seal, decode, write, on two threads,
//! with nothing else that a repository is (no log, no index, no manifest, no metadata, no fsync, no order).
//!
//! `cargo run --release -p mainstay-repository --example bare_pipeline -- LEVEL OUT DIR…`
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use mainstay_keys::aead::AeadKey;
use mainstay_repository::stream::{Chunker, Chunking};
use std::{
    collections::HashSet,
    fs,
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

const THREADS: usize = 2;
const PACK: usize = 16 << 20;
const KEY: [u8; 32] = [7; 32];

/// Regular files, each inode once.
fn walk(directory: &Path, seen: &mut HashSet<u64>, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            walk(&entry.path(), seen, files);
        } else if kind.is_file() && seen.insert(entry.metadata().unwrap().ino()) {
            files.push(entry.path());
        }
    }
}

struct Pack {
    bytes: Vec<u8>,
    blobs: Vec<(usize, usize, usize, blake3::Hash)>,
}

struct Worker<'a> {
    out: &'a Path,
    known: &'a Mutex<HashSet<blake3::Hash>>,
    number: &'a AtomicUsize,
    stored: &'a AtomicU64,
    zstd: zstd::bulk::Compressor<'static>,
    unzstd: zstd::bulk::Decompressor<'static>,
    cipher: AeadKey,
    scratch: Vec<u8>,
    sealed: Vec<u8>,
    pack: Pack,
}

fn nonce(offset: usize) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&(offset as u64).to_be_bytes());
    nonce
}

impl Worker<'_> {
    fn chunk(&mut self, plain: &[u8]) {
        let hash = blake3::keyed_hash(&KEY, plain);
        if !self.known.lock().unwrap().insert(hash) {
            return;
        }
        self.scratch.clear();
        self.scratch.reserve(zstd::zstd_safe::compress_bound(plain.len()));
        self.zstd.compress_to_buffer(plain, &mut self.scratch).unwrap();
        let start = self.pack.bytes.len();
        self.pack.bytes.extend_from_slice(&self.scratch);
        self.cipher.seal(nonce(start), hash.as_bytes(), &mut self.pack.bytes, start);
        self.pack.blobs.push((start, self.pack.bytes.len(), plain.len(), hash));
        if self.pack.bytes.len() >= PACK {
            self.finish();
        }
    }

    fn finish(&mut self) {
        for (start, end, length, hash) in self.pack.blobs.drain(..) {
            self.sealed.clear();
            self.sealed.extend_from_slice(&self.pack.bytes[start..end]);
            let payload = self.cipher.open(nonce(start), hash.as_bytes(), &mut self.sealed).unwrap();
            self.scratch.clear();
            self.scratch.reserve(length);
            self.unzstd.decompress_to_buffer(payload, &mut self.scratch).unwrap();
            assert!(blake3::keyed_hash(&KEY, &self.scratch) == hash);
        }
        let _name = blake3::hash(&self.pack.bytes);
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        fs::write(self.out.join(number.to_string()), &self.pack.bytes).unwrap();
        self.stored.fetch_add(self.pack.bytes.len() as u64, Ordering::Relaxed);
        self.pack.bytes.clear();
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let level = arguments[0].parse().unwrap();
    let out = PathBuf::from(&arguments[1]);
    fs::create_dir_all(&out).unwrap();
    let begun = Instant::now();
    let (mut files, mut seen) = (Vec::new(), HashSet::new());
    arguments[2..].iter().for_each(|directory| walk(Path::new(directory), &mut seen, &mut files));
    let (next, number, stored, total) =
        (AtomicUsize::new(0), AtomicUsize::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let known = Mutex::new(HashSet::new());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let chunker = Chunker::new(Chunking::default(), 7);
                let mut worker = Worker {
                    out: &out,
                    known: &known,
                    number: &number,
                    stored: &stored,
                    zstd: zstd::bulk::Compressor::new(level).unwrap(),
                    unzstd: zstd::bulk::Decompressor::new().unwrap(),
                    cipher: AeadKey::new(&KEY),
                    scratch: Vec::new(),
                    sealed: Vec::new(),
                    pack: Pack { bytes: Vec::with_capacity(PACK + (5 << 20)), blobs: Vec::new() },
                };
                let mut bytes = Vec::new();
                while let Some(path) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let Ok(mut file) = fs::File::open(path) else { continue };
                    bytes.clear();
                    file.read_to_end(&mut bytes).unwrap();
                    total.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                    let mut rest = &bytes[..];
                    while !rest.is_empty() {
                        let length = chunker.cut(rest);
                        worker.chunk(&rest[..length]);
                        rest = &rest[length..];
                    }
                }
                worker.finish();
            });
        }
    });
    println!(
        "{} MB as {} MiB in {:.2} s",
        total.into_inner() / 1_000_000,
        stored.into_inner() >> 20,
        begun.elapsed().as_secs_f64()
    );
}
