//! The engine alone: stores every regular file below a directory into a new repository, and reads it back.
//!
//! `cargo run --release -p mainstay-repository --example engine_speed -- DIR STORE [LEVEL]`
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use mainstay_domain::{
    SystemClock, Time,
    point::{Point, State, Summary},
    stream::{Content, Pool, Sink, Vault},
};
use mainstay_keys::secret::Secret;
use mainstay_repository::{Access, Repository, Session, Tuning, stream::Chunking};
use mainstay_stores::{LocalStore, Store};
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

fn walk(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            walk(&entry.path(), files);
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let level = arguments.get(3).map(|l| l.parse().unwrap());
    let mut files = Vec::new();
    walk(Path::new(&arguments[1]), &mut files);
    let store: Arc<dyn Store> = Arc::new(LocalStore::new(&arguments[2]));
    let access = || Access {
        store: store.clone(),
        secret: Secret::Key([1; 32]),
        clock: Arc::new(SystemClock),
        cache: None,
    };
    Repository::init(&access(), "speed", Chunking::default()).unwrap();
    let repository = Repository::open(access(), None).unwrap();
    let begun = Instant::now();
    let session = Session::begin(&repository, Tuning { level, ..Tuning::default() }).unwrap();
    let next = AtomicUsize::new(0);
    let contents: Mutex<Vec<Content>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(path) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let mut file = std::fs::File::open(path).unwrap();
                    let content = session.put_reader(Pool::Data, &mut file).unwrap();
                    contents.lock().unwrap().push(content);
                }
            });
        }
    });
    let at = Time(0);
    let summary = Summary {
        app: "speed".into(),
        environment: String::new(),
        policy: None,
        host: String::new(),
        started: at,
        finished: at,
        sequence: 1,
        state: State::Complete,
        sources: Vec::new(),
        stored_bytes: 0,
        labels: Default::default(),
        next_expected: None,
        keep_until: None,
    };
    let committed = session
        .commit(|_| Point {
            summary,
            sources: Vec::new(),
            previous: None,
            supersedes: None,
            tool: String::new(),
        })
        .unwrap();
    let seconds = begun.elapsed().as_secs_f64();
    let contents = contents.into_inner().unwrap();
    let total: u64 = contents.iter().map(Content::bytes).sum();
    println!("stored {} MB as {} MiB in {seconds:.2} s", total / 1_000_000, committed.stored_bytes >> 20);
    let begun = Instant::now();
    let reader = repository.reader().unwrap();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(content) = contents.get(next.fetch_add(1, Ordering::Relaxed)) {
                    reader.copy(content, &mut std::io::sink()).unwrap();
                }
            });
        }
    });
    println!("read back in {:.2} s", begun.elapsed().as_secs_f64());
}
