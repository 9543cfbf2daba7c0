//! Prefetch: after a segment was fetched, those that follow it on its timeline are fetched and verified before a server in recovery
//! asks for them.
//!
//! They wait in files without a name, which no other program finds and which vanish with this process; their content is hashed
//! again before it is handed out. Bounded in number and bytes. Only what follows on the same timeline is fetched: which timeline
//! comes next is PostgreSQL's to say. That a segment is not there is never remembered.

use super::turns::{Found, Turns};
use mainstay_domain::{
    Result,
    wal::{Segment, SegmentSize, WalFile},
};
use mainstay_repository::{Repository, wal::Archive};
use std::{
    fs::File,
    io::{self, Read, Seek, Write},
    path::Path,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// How many segments are fetched before they are asked for, and how many bytes.
const DEPTH: u64 = 8;
const MOST_BYTES: u64 = 128 << 20;

/// A segment of a cluster.
type Key = (u64, Segment);

#[derive(Default)]
pub struct Prefetch {
    turns: Turns<Key, Spooled>,
    pub fetched: AtomicU64,
    pub prefetched: AtomicU64,
    pub known_prefetched: AtomicU64,
}

impl Prefetch {
    /// A segment whole, as it was archived; `None` if it is not there.
    pub fn fetch(&self, repository: &Repository, system: u64, segment: Segment) -> Result<Option<Vec<u8>>> {
        let key = (system, segment);
        let turn = match self.turns.take(&key) {
            Found::Done(spooled) => match spooled.read() {
                Some(content) => {
                    self.known_prefetched.fetch_add(1, Relaxed);
                    self.plan(key, content.len() as u64);
                    return Ok(Some(content));
                }
                None => None,
            },
            Found::Turn(turn) => Some(turn),
        };
        let content = get(repository, key)?;
        drop(turn);
        if let Some(content) = &content {
            self.fetched.fetch_add(1, Relaxed);
            self.plan(key, content.len() as u64);
        }
        Ok(content)
    }

    /// Fetches what is planned, until closed.
    pub fn work(&self, repository: &Repository, folder: &Path) {
        while let Some(turn) = self.turns.next() {
            let content = get(repository, *turn.key()).ok().flatten();
            match content.and_then(|content| Spooled::write(folder, &content).ok()) {
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

fn get(repository: &Repository, (system, segment): Key) -> Result<Option<Vec<u8>>> {
    Ok(Archive::of(repository, system).get(&WalFile::Segment(segment))?)
}

/// A segment in a file without a name.
struct Spooled {
    file: File,
    hash: blake3::Hash,
}

impl Spooled {
    fn write(folder: &Path, content: &[u8]) -> io::Result<Spooled> {
        let mut file = tempfile::tempfile_in(folder)?;
        file.write_all(content)?;
        Ok(Spooled { file, hash: blake3::hash(content) })
    }

    /// Its content, unless that is not what was written: then it is fetched again.
    fn read(mut self) -> Option<Vec<u8>> {
        let mut content = Vec::new();
        self.file.rewind().ok()?;
        self.file.read_to_end(&mut content).ok()?;
        (blake3::hash(&content) == self.hash).then_some(content)
    }
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
        let fetch = |number: u64| prefetch.fetch(&repository, SYSTEM, segment(number)).unwrap();
        assert_eq!(fetch(1), Some(content(1)));
        work(&prefetch, &repository);
        assert_eq!(prefetch.prefetched.load(Relaxed), 3, "and not what is not there");

        assert_eq!(fetch(2), Some(content(2)));
        assert_eq!(prefetch.known_prefetched.load(Relaxed), 1);
        let Found::Done(spooled) = prefetch.turns.take(&(SYSTEM, segment(3))) else { panic!("3 is spooled") };
        spooled.file.write_all_at(b"x", 1000).unwrap();
        prefetch.turns.plan(&(SYSTEM, segment(3)), Vec::new());
        let Found::Turn(turn) = prefetch.turns.take(&(SYSTEM, segment(3))) else { panic!("it was taken") };
        turn.keep(spooled);
        assert_eq!(fetch(3), Some(content(3)));
        assert_eq!(prefetch.known_prefetched.load(Relaxed), 1, "fetched from the store again");

        // It comes to be there later: nothing has remembered that it was not.
        assert_eq!(fetch(5), None);
        let file = WalFile::Segment(segment(5));
        Archive::of(&repository, SYSTEM).put(&file, &content(5), None).unwrap();
        assert_eq!(fetch(5), Some(content(5)));
    }
}
