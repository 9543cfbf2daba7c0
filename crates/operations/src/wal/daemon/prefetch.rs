//! Prefetch: after a segment was fetched, those that follow it on its timeline are fetched and verified before a server in recovery
//! asks for them.
//!
//! They wait in files without a name (`spool`). Bounded in number and bytes. Only what follows on the same timeline is fetched: which timeline
//! comes next is PostgreSQL's to say. That a segment is not there is never remembered.

use super::{
    spool::Spooled,
    turns::{Found, Turns},
    words::Destination,
};
use mainstay_domain::{
    Result,
    wal::{Segment, SegmentSize, WalFile},
};
use mainstay_repository::{Repository, wal::Archive};
use std::{
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// How many segments are fetched before they are asked for, and how many bytes.
const DEPTH: u64 = 8;
const MOST_BYTES: u64 = 128 << 20;

/// A segment of a cluster.
type Key = (u64, Segment);

#[derive(Default)]
pub struct Prefetch {
    turns: Turns<Key, Spooled>,
    /// The folder to which the last segment went.
    near: Mutex<Option<PathBuf>>,
    pub fetched: AtomicU64,
    pub prefetched: AtomicU64,
    pub known_prefetched: AtomicU64,
    pub placed: AtomicU64,
}

/// A segment that was there.
#[derive(Debug, PartialEq, Eq)]
pub enum Fetched {
    Content(Vec<u8>),
    /// It lies where it was to go.
    Placed {
        bytes: u64,
        inode: u64,
    },
}

impl Prefetch {
    /// A segment whole, as it was archived; `None` if it is not there. `destination`: where it may be put.
    pub fn fetch(
        &self,
        repository: &Repository,
        system: u64,
        segment: Segment,
        destination: Option<&Destination>,
    ) -> Result<Option<Fetched>> {
        let key = (system, segment);
        *self.near.lock().unwrap_or_else(PoisonError::into_inner) =
            destination.and_then(Destination::folder).map(Path::to_owned);
        let turn = match self.turns.take(&key) {
            Found::Done(spooled) => {
                let bytes = spooled.bytes();
                if let Some(fetched) = hand_out(spooled, destination) {
                    self.known_prefetched.fetch_add(1, Relaxed);
                    self.placed.fetch_add(u64::from(matches!(fetched, Fetched::Placed { .. })), Relaxed);
                    self.plan(key, bytes);
                    return Ok(Some(fetched));
                }
                None
            }
            Found::Turn(turn) => Some(turn),
        };
        let content = get(repository, key)?;
        drop(turn);
        if let Some(content) = &content {
            self.fetched.fetch_add(1, Relaxed);
            self.plan(key, content.len() as u64);
        }
        Ok(content.map(Fetched::Content))
    }

    /// Fetches what is planned, until closed.
    pub fn work(&self, repository: &Repository, folder: &Path) {
        while let Some(turn) = self.turns.next() {
            let content = get(repository, *turn.key()).ok().flatten();
            let near = self.near.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let spool = |content: Vec<u8>| Spooled::write(near.as_deref(), folder, &content).ok();
            match content.and_then(spool) {
                Some(spooled) => {
                    self.prefetched.fetch_add(1, Relaxed);
                    turn.keep(spooled);
                }
                // The end, or trouble: what lies behind it is not needed before it. Who asks for it meets it.
                None => self.turns.stop_planned(),
            }
        }
    }

    pub fn close(&self) {
        self.turns.close();
    }

    fn plan(&self, (system, segment): Key, bytes: u64) {
        if let Ok(size) = SegmentSize::try_from(bytes) {
            let following = std::iter::successors(Some(segment), |segment| Some(segment.next(size))).skip(1);
            let depth = (MOST_BYTES / size.bytes()).clamp(1, DEPTH) as usize;
            let next = following.take(depth).map(|segment| (system, segment)).collect();
            self.turns.plan(&(system, segment), next);
        }
    }
}

fn hand_out(spooled: Spooled, destination: Option<&Destination>) -> Option<Fetched> {
    let bytes = spooled.bytes();
    let spooled = match destination {
        Some(destination) => match spooled.place(&destination.path) {
            Ok(inode) => return Some(Fetched::Placed { bytes, inode }),
            Err(spooled) => spooled,
        },
        None => spooled,
    };
    spooled.read().map(Fetched::Content)
}

fn get(repository: &Repository, (system, segment): Key) -> Result<Option<Vec<u8>>> {
    Ok(Archive::of(repository, system).get(&WalFile::Segment(segment))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use std::os::unix::fs::FileExt;

    const SYSTEM: u64 = 7;

    fn content(number: u8) -> Vec<u8> {
        vec![number; 1 << 20]
    }

    fn segment(number: u64) -> Segment {
        format!("{:024X}", (1u128 << 64) + u128::from(number)).parse().unwrap()
    }

    /// Does what is planned, as a thread of the daemon would.
    fn work(prefetch: &Prefetch, repository: &Repository) {
        let folder = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| prefetch.work(repository, folder.path()));
            while prefetch.turns.is_behind() {
                std::thread::yield_now();
            }
            prefetch.close();
        });
    }

    #[test]
    fn what_follows_is_fetched_and_a_spooled_file_that_was_changed_is_never_handed_out() {
        let store = testing::store();
        let repository = testing::open(&store);
        for number in 1..=4 {
            let file = WalFile::Segment(segment(number));
            Archive::of(&repository, SYSTEM).put(&file, &content(number as u8), None).unwrap();
        }
        let prefetch = Prefetch::default();
        let fetch = |number: u64| prefetch.fetch(&repository, SYSTEM, segment(number), None).unwrap();
        assert_eq!(fetch(1), Some(Fetched::Content(content(1))));
        work(&prefetch, &repository);
        assert_eq!(prefetch.prefetched.load(Relaxed), 3, "and not what is not there");

        assert_eq!(fetch(2), Some(Fetched::Content(content(2))));
        assert_eq!(prefetch.known_prefetched.load(Relaxed), 1);
        let Found::Done(spooled) = prefetch.turns.take(&(SYSTEM, segment(3))) else { panic!("3 is spooled") };
        spooled.file().write_all_at(b"x", 1000).unwrap();
        prefetch.turns.plan(&(SYSTEM, segment(3)), Vec::new());
        let Found::Turn(turn) = prefetch.turns.take(&(SYSTEM, segment(3))) else { panic!("it was taken") };
        turn.keep(spooled);
        assert_eq!(fetch(3), Some(Fetched::Content(content(3))));
        assert_eq!(prefetch.known_prefetched.load(Relaxed), 1, "fetched from the store again");

        // It comes to be there later: nothing has remembered that it was not.
        assert_eq!(fetch(5), None);
        let file = WalFile::Segment(segment(5));
        Archive::of(&repository, SYSTEM).put(&file, &content(5), None).unwrap();
        assert_eq!(fetch(5), Some(Fetched::Content(content(5))));
    }
}
