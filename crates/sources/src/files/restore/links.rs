//! Hard links: the first name of a file carries its content, and the others are linked to it once it is there.

use super::worker::{Item, Node};
use mainstay_domain::listing::Entry;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// A name that waits for the first one. It holds its directory open (`Node::hold`).
pub(crate) struct Waiting {
    pub node: Arc<Node>,
    pub item: Item,
}

enum Group {
    /// Somebody writes the first name.
    Writing(Vec<Waiting>),
    Done(First),
}

/// Where the file lies, and what it is there.
#[derive(Clone)]
pub(crate) struct First {
    pub node: Arc<Node>,
    pub name: Vec<u8>,
    /// Device and inode in the destination.
    pub identity: (u64, u64),
}

/// What to do with one name of a file that has several.
pub(crate) enum Turn {
    /// Write it; then call `Links::done` or `Links::failed`.
    Write(Item),
    Link(First, Item),
    /// It will be dealt with by whoever writes the first one.
    Later,
}

/// One entry for each file with several names of which not all were seen.
#[derive(Default)]
pub(crate) struct Links {
    groups: Mutex<HashMap<(u64, u64), (u64, Group)>>,
}

impl Links {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(u64, u64), (u64, Group)>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn turn(&self, node: &Arc<Node>, item: Item) -> Turn {
        let mut groups = self.lock();
        let (key, names) = (key(&item.entry), item.entry.links.unwrap_or(1));
        match groups.get_mut(&key) {
            None => {
                groups.insert(key, (1, Group::Writing(Vec::new())));
                Turn::Write(item)
            }
            Some((seen, Group::Writing(waiting))) => {
                *seen += 1;
                node.hold();
                waiting.push(Waiting { node: node.clone(), item });
                Turn::Later
            }
            Some((seen, Group::Done(first))) => {
                *seen += 1;
                let first = first.clone();
                if *seen >= names {
                    groups.remove(&key);
                }
                Turn::Link(first, item)
            }
        }
    }

    /// The first name is there; returns those that waited for it.
    pub fn done(&self, entry: &Entry, first: First) -> Vec<Waiting> {
        let mut groups = self.lock();
        let key = key(entry);
        let Some((seen, group)) = groups.get_mut(&key) else { return Vec::new() };
        let waited = std::mem::replace(group, Group::Done(first));
        if *seen >= entry.links.unwrap_or(1) {
            groups.remove(&key);
        }
        match waited {
            Group::Writing(waiting) => waiting,
            Group::Done(_) => Vec::new(),
        }
    }

    /// The first name could not be written: the next one has to be. Returns those that waited.
    pub fn failed(&self, entry: &Entry) -> Vec<Waiting> {
        match self.lock().remove(&key(entry)) {
            Some((_, Group::Writing(waiting))) => waiting,
            _ => Vec::new(),
        }
    }
}

fn key(entry: &Entry) -> (u64, u64) {
    (entry.device, entry.inode)
}
