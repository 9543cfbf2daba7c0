//! Reads a listing back, trusting nothing in it.
//!
//! A listing may come from a hostile writer. What leaves this module has names that are single components, entries in
//! ascending order without repetition, and directories in listing order; anything else is an error of kind
//! `Verification`. A chunk that is damaged is reported in its place, and what comes after it is still read.

use super::{names::show_path, tree::is_plain_name};
use mainstay_domain::{
    ChunkId, Failure, Kind, Result,
    listing::{self, Entry, FileKind},
    stream::{Content, Piece, Vault},
};
use minicbor::{Decoder, data::Type};
use std::{cmp::Ordering, iter::Peekable};

/// What comes next in a listing.
#[derive(Debug)]
pub(crate) enum Step {
    /// A directory begins (or goes on in the next chunk).
    Directory(Vec<u8>),
    /// An entry of that directory.
    Entry(Box<Entry>),
    /// A chunk cannot be read: what it listed is not known.
    Lost(Failure),
}

/// One pass over a listing, or over the part of it below one directory.
pub(crate) struct Browse<'a> {
    vault: &'a dyn Vault,
    pieces: Peekable<Box<dyn Iterator<Item = Result<Piece>> + Send + 'a>>,
    chunk: Vec<u8>,
    at: usize,
    directory: Option<Vec<u8>>,
    last_name: Option<Vec<u8>>,
    /// A stream of deleted files: a name may stand in it several times.
    versions: bool,
    /// Only this directory and what lies below it.
    below: Vec<u8>,
    over: bool,
}

impl<'a> Browse<'a> {
    /// From the beginning to the end.
    pub fn all(vault: &'a dyn Vault, content: &Content, versions: bool) -> Browse<'a> {
        Browse::new(vault, vault.pieces(content), versions, Vec::new())
    }

    /// Only `directory` and what lies below it; reads only the chunks that hold it.
    pub fn below(vault: &'a dyn Vault, content: &Content, versions: bool, directory: &[u8]) -> Browse<'a> {
        if directory.is_empty() {
            return Browse::all(vault, content, versions);
        }
        let key = listing::key(directory, b"");
        let pieces = vault.pieces_from(content, &key, listing::compare_keys);
        Browse::new(vault, pieces, versions, directory.to_vec())
    }

    fn new(
        vault: &'a dyn Vault,
        pieces: Box<dyn Iterator<Item = Result<Piece>> + Send + 'a>,
        versions: bool,
        below: Vec<u8>,
    ) -> Browse<'a> {
        Browse {
            vault,
            pieces: pieces.peekable(),
            chunk: Vec::new(),
            at: 0,
            directory: None,
            last_name: None,
            versions,
            below,
            over: false,
        }
    }

    /// The chunk that comes next, if the one before was read to its end.
    pub fn next_chunk(&mut self) -> Option<ChunkId> {
        if self.at < self.chunk.len() {
            return None;
        }
        self.pieces.peek().and_then(|piece| piece.as_ref().ok()?.chunk)
    }

    /// Passes over the chunk that comes next.
    pub fn skip_chunk(&mut self) {
        self.pieces.next();
        self.last_name = None;
    }

    fn step(&mut self) -> Result<Option<Step>> {
        while !self.over {
            if self.at >= self.chunk.len() {
                let Some(piece) = self.pieces.next() else { return Ok(None) };
                let chunk = match piece.and_then(|piece| match piece.chunk {
                    Some(chunk) => self.vault.get(&chunk),
                    None => Err(self.malformed("it has a hole")),
                }) {
                    Ok(chunk) => chunk,
                    Err(failure) if is_damage(&failure) => return Ok(Some(Step::Lost(failure))),
                    Err(failure) => return Err(failure),
                };
                (self.chunk, self.at) = (chunk, 0);
                continue;
            }
            let mut decoder = Decoder::new(&self.chunk);
            decoder.set_position(self.at);
            let is_directory = decoder.datatype().is_ok_and(|datatype| datatype == Type::Bytes);
            if is_directory {
                let path = decoder.bytes().map_err(|_| self.malformed("an item is cut off"))?.to_vec();
                self.at = decoder.position();
                if self.enter(&path)? {
                    return Ok(Some(Step::Directory(path)));
                }
            } else {
                if self.at == 0 {
                    return Err(self.malformed("a chunk does not begin with a directory"));
                }
                let entry: Entry = decoder
                    .decode()
                    .map_err(|error| self.malformed("an entry cannot be decoded").caused_by(error))?;
                self.at = decoder.position();
                if self.check(&entry)? {
                    return Ok(Some(Step::Entry(Box::new(entry))));
                }
            }
        }
        Ok(None)
    }

    /// Checks a directory's path against the one before; whether the caller wants it.
    fn enter(&mut self, path: &[u8]) -> Result<bool> {
        if !path.is_empty() && !path.split(|b| *b == b'/').all(is_plain_name) {
            return Err(self.malformed("a directory's path is none"));
        }
        if let Some(current) = &self.directory {
            match listing::compare_paths(current, path) {
                Ordering::Equal => return Ok(self.is_wanted()),
                Ordering::Greater => return Err(self.malformed("directories are out of order")),
                Ordering::Less => {}
            }
        }
        self.directory = Some(path.to_vec());
        self.last_name = None;
        let wanted = self.is_wanted();
        if !wanted && listing::compare_paths(path, &self.below) == Ordering::Greater {
            self.over = true;
        }
        Ok(wanted)
    }

    fn is_wanted(&self) -> bool {
        self.directory.as_ref().is_some_and(|directory| is_within(directory, &self.below))
    }

    fn check(&mut self, entry: &Entry) -> Result<bool> {
        let in_root = self.directory.as_ref().is_some_and(Vec::is_empty);
        let is_root = entry.name.is_empty() && in_root && entry.kind == FileKind::Directory;
        if !is_root && !is_plain_name(&entry.name) {
            return Err(self.malformed("a name is none"));
        }
        if let Some(last) = &self.last_name {
            let order = last.cmp(&entry.name);
            if order == Ordering::Greater || order == Ordering::Equal && !self.versions {
                return Err(self.malformed("names are out of order"));
            }
        }
        if (entry.kind == FileKind::Symlink) != entry.target.is_some() && entry.doubt.is_none() {
            return Err(self.malformed("a link and its target do not belong together"));
        }
        let pieces = entry.content.iter().flat_map(|content| &content.pieces);
        if pieces.map(|piece| piece.bytes).try_fold(0, u64::checked_add).is_none() {
            return Err(self.malformed("a file is longer than any"));
        }
        if entry.content.is_some() && entry.kind != FileKind::Regular {
            return Err(self.malformed("something that is no file has content"));
        }
        self.last_name.get_or_insert_default().clone_from(&entry.name);
        Ok(self.is_wanted())
    }

    fn malformed(&self, what: &'static str) -> Failure {
        let at = show_path(self.directory.as_deref().unwrap_or_default());
        super::FilesError::Malformed { at, what }.into()
    }
}

impl Iterator for Browse<'_> {
    type Item = Result<Step>;

    fn next(&mut self) -> Option<Result<Step>> {
        if self.over {
            return None;
        }
        let step = self.step();
        if !matches!(step, Ok(Some(_))) {
            self.over = true;
        }
        step.transpose()
    }
}

/// Bytes are missing or damaged; other chunks may be whole.
pub(crate) fn is_damage(failure: &Failure) -> bool {
    failure.kind == Kind::Verification
}

/// Whether `path` is `directory` or lies below it.
pub(crate) fn is_within(path: &[u8], directory: &[u8]) -> bool {
    directory.is_empty()
        || path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

/// Directory and name of a path; the root has neither.
pub(crate) fn split_path(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

/// Every entry of a name in a directory (of a listing one at most), reading only the chunks that may hold it.
pub(crate) fn lookup(
    vault: &dyn Vault,
    content: &Content,
    versions: bool,
    directory: &[u8],
    name: &[u8],
) -> Result<Vec<Entry>> {
    let key = listing::key(directory, name);
    let pieces = vault.pieces_from(content, &key, listing::compare_keys);
    let mut browse = Browse::new(vault, pieces, versions, Vec::new());
    let mut at = Vec::new();
    let mut found = Vec::new();
    while let Some(step) = browse.step()? {
        match step {
            Step::Directory(path) => {
                if listing::compare_paths(&path, directory) == Ordering::Greater {
                    break;
                }
                at = path;
            }
            Step::Entry(entry) if at == directory => match entry.name[..].cmp(name) {
                Ordering::Less => {}
                Ordering::Equal => found.push(*entry),
                Ordering::Greater => break,
            },
            Step::Entry(_) => {}
            Step::Lost(failure) => return Err(failure),
        }
    }
    Ok(found)
}
