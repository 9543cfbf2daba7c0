//! Files with several names are read once: the names met later get the content that the first one gave.

use super::stat::Stat;
use mainstay_domain::{listing::Entry, stream::Content};
use std::{
    collections::HashMap,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

/// Files remembered at once, because not all their names were met. Beyond that they are read again, which is only slower.
const REMEMBERED: usize = 1 << 16;

type Key = (u64, u64);

enum Group {
    /// A thread reads it; whoever meets another name waits.
    Reading,
    Known {
        stat: Stat,
        entry: Box<Entry>,
        seen: u64,
    },
}

#[derive(Default)]
pub(crate) struct HardLinks {
    groups: Mutex<HashMap<Key, Group>>,
    settled: Condvar,
}

/// What to do with a name.
pub(crate) enum Turn<'a> {
    /// Read it, and tell.
    Read(Reading<'a>),
    /// The same file, in the same state, was read under another name: its entry there.
    Known(Box<Entry>),
}

/// The right to read a file, and the duty to tell; dropped without that, the next name is read.
pub(crate) struct Reading<'a> {
    links: Option<&'a HardLinks>,
    key: Key,
}

impl HardLinks {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Group>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn turn(&self, stat: &Stat) -> Turn<'_> {
        let key = (stat.device, stat.inode);
        let mut groups = self.lock();
        loop {
            let full = groups.len() >= REMEMBERED;
            match groups.get_mut(&key) {
                // Whoever reads holds no other file back, so this ends.
                Some(Group::Reading) => {
                    groups = self.settled.wait(groups).unwrap_or_else(PoisonError::into_inner);
                }
                Some(Group::Known { stat: known, entry, seen }) if known.same_state(stat) => {
                    *seen += 1;
                    if *seen < stat.links {
                        return Turn::Known(entry.clone());
                    }
                    let Some(Group::Known { entry, .. }) = groups.remove(&key) else { continue };
                    return Turn::Known(entry);
                }
                None if full => return Turn::Read(Reading { links: None, key }),
                _ => {
                    groups.insert(key, Group::Reading);
                    return Turn::Read(Reading { links: Some(self), key });
                }
            }
        }
    }
}

impl Reading<'_> {
    /// The file was read, in the state `stat`, without a doubt.
    pub fn known(mut self, stat: &Stat, entry: &Entry) {
        if let Some(links) = self.links.take() {
            let known = Group::Known { stat: *stat, entry: Box::new(entry.clone()), seen: 1 };
            links.lock().insert(self.key, known);
            links.settled.notify_all();
        }
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        if let Some(links) = self.links {
            links.lock().remove(&self.key);
            links.settled.notify_all();
        }
    }
}

/// The entry of another name of the same file.
pub(crate) fn renamed(mut entry: Box<Entry>, name: &[u8]) -> (Box<Entry>, u64) {
    entry.name = name.to_vec();
    let bytes = entry.content.as_ref().map_or(0, Content::bytes);
    (entry, bytes)
}
