//! What the captures of all trees of a cluster share: how to capture, what was counted, and which pages are still to be judged.

use super::pages::{Checking, PageHasher, Slice};
use crate::files::Problems;
use mainstay_domain::{Clock, Lsn, Monitor, Severity, stream::Sink};
use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

/// What the captures of all trees of a cluster have in common.
pub struct Shared<'a> {
    pub sink: &'a dyn Sink,
    pub hasher: PageHasher,
    /// Read every file again, whatever its metadata says.
    pub full: bool,
    /// Judge the pages' checksums.
    pub checking: Option<Checking>,
    /// No server runs on it: then nothing is left out for one.
    pub stopped: bool,
    pub threads: usize,
    pub clock: &'a dyn Clock,
    pub monitor: &'a dyn Monitor,
    pub problems: &'a Problems,
    pub tally: &'a Tally,
    pub suspects: &'a Suspects,
}

/// Pages that the end of the backup decides about: each with its file, its block and the position that it names.
#[derive(Debug, Default)]
pub struct Suspects(Mutex<Vec<(String, u32, Lsn)>>);

impl Suspects {
    /// Pages torn by the server's writing are few at a time; of garbage, this many blocks say enough.
    const KEPT: usize = 10_000;

    pub fn add(&self, shown: &str, slice: &Slice) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = Suspects::KEPT.saturating_sub(kept.len());
        kept.extend(slice.suspects.iter().take(room).map(|(block, at)| (shown.to_owned(), *block, *at)));
    }

    /// Names those that cannot have been written before the backup ended at `stop`: the log repairs none of them.
    pub fn judge(&self, stop: Lsn, problems: &Problems, tally: &Tally) {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (shown, block, _) in kept.iter().filter(|(.., written)| *written > stop) {
            add(&tally.bad_blocks, 1);
            problems.add(Severity::Error, shown, damaged(*block));
        }
        if kept.len() >= Suspects::KEPT {
            let message = "more pages have a wrong checksum than could be judged: look at the server's disk";
            problems.add(Severity::Error, "", message);
        }
    }
}

pub fn damaged(block: u32) -> String {
    format!("the checksum of block {block} is wrong: this page is damaged on the server's disk")
}

#[derive(Debug, Default)]
pub struct Tally {
    pub files: AtomicU64,
    pub directories: AtomicU64,
    pub bytes: AtomicU64,
    pub unchanged_files: AtomicU64,
    pub changed_bytes: AtomicU64,
    pub bad_blocks: AtomicU64,
}

pub fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}
