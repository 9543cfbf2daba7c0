//! The listing of the base backup before, read in step with the new one.

use crate::files::Stat;
use mainstay_domain::{
    Result,
    listing::{self, Entry, Item, decode_items},
    stream::{Content, Piece, Vault},
};
use std::{cmp::Ordering, collections::VecDeque};

pub struct OldListing<'v> {
    vault: Option<&'v dyn Vault>,
    pieces: Box<dyn Iterator<Item = Result<Piece>> + Send + 'v>,
    directory: Vec<u8>,
    /// Entries of the chunk at hand, each with its directory.
    ahead: VecDeque<(Vec<u8>, Box<Entry>)>,
}

impl<'v> OldListing<'v> {
    pub fn none() -> OldListing<'v> {
        OldListing {
            vault: None,
            pieces: Box::new(std::iter::empty()),
            directory: Vec::new(),
            ahead: VecDeque::new(),
        }
    }

    pub fn new(vault: &'v dyn Vault, content: &Content) -> OldListing<'v> {
        OldListing { vault: Some(vault), pieces: vault.pieces(content), ..OldListing::none() }
    }

    /// The earlier entry of a path. Paths are asked for in listing order; what lies before is passed over. A part that cannot be
    /// read counts as not there: its files are stored anew.
    pub fn take(&mut self, directory: &[u8], name: &[u8]) -> Option<Box<Entry>> {
        loop {
            while let Some((at, entry)) = self.ahead.front() {
                match listing::compare_paths(at, directory).then_with(|| entry.name[..].cmp(name)) {
                    Ordering::Less => drop(self.ahead.pop_front()),
                    Ordering::Equal => return self.ahead.pop_front().map(|(_, entry)| entry),
                    Ordering::Greater => return None,
                }
            }
            if !self.read_on() {
                return None;
            }
        }
    }

    /// Reads the next chunk that can be read; `false` at the end.
    fn read_on(&mut self) -> bool {
        loop {
            let next = self.pieces.next().and_then(|piece| piece.ok()?.chunk);
            let (Some(chunk), Some(vault)) = (next, self.vault) else { return false };
            let Ok(bytes) = vault.get(&chunk) else { continue };
            for item in decode_items(&bytes).map_while(std::result::Result::ok) {
                match item {
                    Item::Directory(path) => self.directory = path,
                    Item::Entry(entry) => self.ahead.push_back((self.directory.clone(), entry)),
                }
            }
            return true;
        }
    }

    pub fn vault(&self) -> Option<&'v dyn Vault> {
        self.vault
    }
}

/// Whether size, times and inode prove that a file is as it was recorded. Nothing proves it of a file that was fresh then.
pub fn is_unchanged(old: &Entry, now: &Stat) -> bool {
    old.content.is_some()
        && old.doubt.is_none()
        && old.fresh.is_none()
        && (old.kind, old.size, old.modified, old.changed, old.inode)
            == (now.kind, now.size, now.modified, now.changed, now.inode)
}
