//! A cursor over an earlier listing, in step with the new one.
//!
//! A part that cannot be read any more is passed over: the files in it count as new.

use super::{
    problems::Problems,
    raw::{Scanned, Token, scan},
};
use crossbeam_channel::{Receiver, Sender};
use mainstay_domain::{
    Severity, listing,
    stream::{Content, Vault},
};
use std::cmp::Ordering;

/// Chunks fetched ahead of the cursor.
pub(crate) const FETCHED: usize = 4;

/// Fetches the chunks of a listing one after the other, until the cursor wants no more. Run on a thread of its own.
pub(crate) fn fetch(vault: &dyn Vault, content: &Content, chunks: &Sender<Vec<u8>>, problems: &Problems) {
    let lost = |failure: mainstay_domain::Failure| {
        let message =
            format!("a part of the previous listing cannot be read, its files are read again: {failure}");
        problems.add(Severity::Warning, "", message);
    };
    for piece in vault.pieces(content) {
        let chunk = match piece {
            Ok(piece) => match piece.chunk.map(|chunk| vault.get(&chunk)) {
                Some(Ok(chunk)) => chunk,
                Some(Err(failure)) => {
                    lost(failure);
                    continue;
                }
                None => continue,
            },
            Err(failure) => return lost(failure),
        };
        if chunks.send(chunk).is_err() {
            return;
        }
    }
}

/// Where the cursor stands: at an entry of a directory, at the end of a directory, or at the end.
pub(crate) struct Previous<'a> {
    chunks: Option<Receiver<Vec<u8>>>,
    problems: &'a Problems,
    chunk: Vec<u8>,
    at: usize,
    directory: Vec<u8>,
    inside: bool,
    entry: Option<Scanned>,
    next: Option<Vec<u8>>,
}

impl<'a> Previous<'a> {
    /// `None`: there is no earlier listing.
    pub fn new(chunks: Option<Receiver<Vec<u8>>>, problems: &'a Problems) -> Previous<'a> {
        let mut cursor = Previous {
            chunks,
            problems,
            chunk: Vec::new(),
            at: 0,
            directory: Vec::new(),
            inside: false,
            entry: None,
            next: None,
        };
        cursor.advance();
        cursor
    }

    /// The entry at which the cursor stands, if it is one of `directory`.
    pub fn entry_in(&self, directory: &[u8]) -> Option<&Scanned> {
        self.entry.as_ref().filter(|_| self.directory == directory)
    }

    /// The entry at which the cursor stands, and its directory.
    pub fn entry(&self) -> Option<(&[u8], &Scanned)> {
        self.entry.as_ref().map(|entry| (&self.directory[..], entry))
    }

    pub fn name(&self, entry: &Scanned) -> &[u8] {
        &self.chunk[entry.name.clone()]
    }

    pub fn bytes(&self, range: &std::ops::Range<usize>) -> &[u8] {
        &self.chunk[range.clone()]
    }

    /// Goes to `directory` if the cursor stands at the end of a directory before it and it comes next.
    pub fn enter(&mut self, directory: &[u8]) {
        while self.entry.is_none()
            && self.next.as_ref().is_some_and(|next| listing::compare_paths(next, directory).is_le())
        {
            self.enter_next();
        }
    }

    /// Whether the cursor stands at an entry of a directory that comes before `directory`. Goes on to the next directory
    /// with entries if it stands at the end of one.
    pub fn is_before(&mut self, directory: Option<&[u8]>) -> bool {
        while self.entry.is_none() && self.next.is_some() {
            if let (Some(directory), Some(next)) = (directory, &self.next)
                && listing::compare_paths(next, directory) != Ordering::Less
            {
                return false;
            }
            self.enter_next();
        }
        self.entry.is_some()
            && directory
                .is_none_or(|directory| listing::compare_paths(&self.directory, directory) == Ordering::Less)
    }

    /// Goes on to the next directory that has entries.
    pub fn enter_any(&mut self) {
        while self.entry.is_none() && self.next.is_some() {
            self.enter_next();
        }
    }

    fn enter_next(&mut self) {
        if let Some(next) = self.next.take() {
            self.directory = next;
            self.inside = true;
            self.advance();
        }
    }

    /// Goes to the next entry of the directory, or to its end.
    pub fn advance(&mut self) {
        self.entry = None;
        loop {
            if self.at >= self.chunk.len() {
                match self.chunks.as_ref().and_then(|chunks| chunks.recv().ok()) {
                    Some(chunk) => (self.chunk, self.at) = (chunk, 0),
                    None => {
                        self.chunks = None;
                        return;
                    }
                }
                continue;
            }
            match scan(&self.chunk, self.at) {
                Ok((Token::Directory(path), next)) => {
                    self.at = next;
                    let path = &self.chunk[path];
                    if !self.inside || path != self.directory {
                        self.next = Some(path.to_vec());
                        return;
                    }
                }
                Ok((Token::Entry(entry), next)) => {
                    self.at = next;
                    self.entry = Some(entry);
                    return;
                }
                Err(error) => {
                    let message = format!("a part of the previous listing is malformed: {error}");
                    self.problems.add(Severity::Warning, "", message);
                    self.at = self.chunk.len();
                }
            }
        }
    }
}
