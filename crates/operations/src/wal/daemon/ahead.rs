//! Push-ahead: what PostgreSQL has finished and not asked for yet is archived in parallel, so that its next push learns only that
//! its segment is durable.
//!
//! Nothing is acknowledged here that is not in the repository: what is remembered is that this very file (name, inode, size, times)
//! was archived, and it counts only while the file is that file and the object is there. A segment that could not be archived ahead
//! is not remembered; its own push meets the error.

use super::{
    turns::{Found, Turns},
    words::Identity,
};
use crate::wal::Incoming;
use mainstay_domain::{Failure, Result, wal::WalFile};
use mainstay_repository::{
    Repository,
    wal::{Archive, Put},
};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// How many segments may be archived before they are asked for.
const DEPTH: usize = 16;
/// Larger segments wait for their own push: each that is worked on is held in memory about four times.
const LARGEST: u64 = 64 << 20;

#[derive(Default)]
pub struct Ahead {
    turns: Turns<PathBuf, Durable>,
    pub pushed: AtomicU64,
    pub pushed_ahead: AtomicU64,
    pub known_ahead: AtomicU64,
}

/// A file that was archived, as it was when it was read.
struct Durable {
    identity: Identity,
    file: WalFile,
    system: u64,
}

impl Ahead {
    /// Archives the file, or finds that it was archived. Returns only when it is durable.
    ///
    /// # Errors
    /// If the file is not the one that the caller sees under this path: it may live in another container.
    pub fn push(&self, repository: &Repository, path: &PathBuf, seen: Identity) -> Result<Put> {
        if Identity::of(path).ok() != Some(seen) {
            return Err(Failure::failed(format!("{} is another file here", path.display())));
        }
        self.plan(path);
        let turn = match self.turns.take(path) {
            Found::Done(durable) if durable.is(seen) && durable.is_there(repository)? => {
                self.known_ahead.fetch_add(1, Relaxed);
                return Ok(Put::Known);
            }
            Found::Done(_) => None,
            Found::Turn(turn) => Some(turn),
        };
        let put = Incoming::read(path)?.put(repository)?;
        drop(turn);
        self.pushed.fetch_add(1, Relaxed);
        Ok(put)
    }

    /// Archives what is planned, until closed.
    pub fn work(&self, repository: &Repository) {
        while let Some(turn) = self.turns.next() {
            if let Some(durable) = push_ahead(repository, turn.key()) {
                self.pushed_ahead.fetch_add(1, Relaxed);
                turn.keep(durable);
            }
        }
    }

    pub fn close(&self) {
        self.turns.close();
    }

    /// Plans what PostgreSQL will ask for next. The folder is listed once for many pushes: with a long backlog that takes its time.
    fn plan(&self, asked: &PathBuf) {
        if self.turns.is_behind() {
            return;
        }
        if let (Some(folder), Some(name)) = (asked.parent(), asked.file_name().and_then(|name| name.to_str()))
        {
            let next = ready_after(folder, name).into_iter().map(|next| folder.join(next)).collect();
            self.turns.plan(asked, next);
        }
    }
}

impl Durable {
    fn is(&self, seen: Identity) -> bool {
        self.identity == seen
    }

    /// A store can lose what was there a moment ago, or be another one by now.
    fn is_there(&self, repository: &Repository) -> Result<bool> {
        Ok(Archive::of(repository, self.system).has(&self.file)?)
    }
}

fn push_ahead(repository: &Repository, path: &Path) -> Option<Durable> {
    let identity = Identity::of(path).ok()?;
    if identity.bytes > LARGEST {
        return None;
    }
    let incoming = Incoming::read(path).ok()?;
    // Renamed to a later segment's name, or written to, while it was read: then it was not ready.
    if Identity::of(path).ok() != Some(identity) || !is_ready(path) {
        return None;
    }
    let (file, system) = (incoming.file.clone(), incoming.system);
    incoming.put(repository).ok()?;
    Some(Durable { identity, file, system })
}

fn status_of(folder: &Path, name: &str) -> PathBuf {
    folder.join("archive_status").join(format!("{name}.ready"))
}

/// Whether PostgreSQL says that a segment is finished and is to be archived.
fn is_ready(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    path.parent().zip(name).is_some_and(|(folder, name)| status_of(folder, name).exists())
}

/// The segments that are finished and come after this one, in the order in which PostgreSQL hands them over: by name.
fn ready_after(folder: &Path, asked: &str) -> BTreeSet<String> {
    let mut next = BTreeSet::new();
    for entry in fs::read_dir(folder.join("archive_status")).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().and_then(|name| name.strip_suffix(".ready")) else { continue };
        if name > asked && matches!(name.parse(), Ok(WalFile::Segment(_))) {
            next.insert(name.to_owned());
            if next.len() > DEPTH {
                next.pop_last();
            }
        }
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_finished_segments_that_come_next_are_planned() {
        let folder = tempfile::tempdir().unwrap();
        let status = folder.path().join("archive_status");
        fs::create_dir(&status).unwrap();
        let segment = |number: u32| format!("{:024X}", (1u128 << 64) + u128::from(number));
        for number in 1..40 {
            fs::write(status.join(format!("{}.ready", segment(number))), "").unwrap();
        }
        for other in [format!("{}.done", segment(50)), "00000002.history.ready".into(), "x.ready".into()] {
            fs::write(status.join(other), "").unwrap();
        }
        fs::remove_file(status.join(format!("{}.ready", segment(6)))).unwrap();
        let next = ready_after(folder.path(), &segment(4));
        let expected: Vec<String> = [5].into_iter().chain(7..22).map(segment).collect();
        assert_eq!(next.into_iter().collect::<Vec<_>>(), expected);
        assert!(is_ready(&folder.path().join(segment(5))) && !is_ready(&folder.path().join(segment(6))));
    }
}
