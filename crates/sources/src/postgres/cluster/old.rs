//! The listing of the base backup before, read in step with the new one, or a directory at a time.

use crate::files::{Browse, Stat, Step};
use mainstay_domain::{
    Result,
    listing::{self, Entry, Item, decode_items},
    point::SourceRecord,
    stream::{Content, Piece, Vault},
};
use std::{
    cmp::Ordering,
    collections::{HashMap, VecDeque},
};

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

/// Relation files of the backup before, of one directory at a time: so they come in the server's archives.
pub struct OldFiles<'v> {
    listing: Option<(&'v dyn Vault, &'v Content)>,
    /// Those without page hashes, too.
    all: bool,
    directory: Option<Vec<u8>>,
    /// Encoded: they may be many.
    files: HashMap<Vec<u8>, Box<[u8]>>,
}

impl<'v> OldFiles<'v> {
    pub fn of(previous: Option<(&'v dyn Vault, &'v SourceRecord)>, name: &str, all: bool) -> OldFiles<'v> {
        let listing = previous.and_then(|(vault, record)| Some((vault, &record.stream(name)?.content)));
        OldFiles { listing, all, directory: None, files: HashMap::new() }
    }

    pub fn take(&mut self, directory: &[u8], name: &[u8]) -> Option<(&'v dyn Vault, Entry)> {
        let (vault, content) = self.listing?;
        if self.directory.as_deref() != Some(directory) {
            self.directory = Some(directory.to_vec());
            self.files.clear();
            let mut here = false;
            // What cannot be read counts as not there: it is stored anew.
            for step in Browse::below(vault, content, false, directory).map_while(Result::ok) {
                match step {
                    Step::Directory(path) => here = path == directory,
                    Step::Entry(entry) if here && (self.all || entry.pages.is_some()) => {
                        let mut encoded = Vec::new();
                        listing::encode_entry(&entry, &mut encoded);
                        self.files.insert(entry.name, encoded.into());
                    }
                    Step::Entry(_) | Step::Lost(_) => {}
                }
            }
        }
        let encoded = self.files.remove(name)?;
        Some((vault, minicbor::decode(&encoded).ok()?))
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
