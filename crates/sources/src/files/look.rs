//! Looking into a recovery point without restoring it: one directory, everything below one, or what a pattern finds.
//! All of them read as they go, and only the chunks they need.

use super::{
    DELETED, FilesError, LISTING,
    browse::{Browse, Step, lookup, split_path},
    facts::Facts,
    selection::from_root,
};
use globset::{GlobBuilder, GlobMatcher};
use mainstay_domain::{
    Result,
    listing::{self, Entry, FileKind},
    point::SourceRecord,
    stream::{Content, Vault},
};
use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path};

/// An entry and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// From the source's root, components joined by `/`.
    pub path: Vec<u8>,
    pub entry: Entry,
}

fn stream(record: &SourceRecord, deleted: bool) -> Result<&Content> {
    let name = record.name.clone();
    Ok(match deleted {
        true => &record.stream(DELETED).ok_or(FilesError::NoDeleted { name })?.content,
        false => &record.stream(LISTING).ok_or(FilesError::NoListing { name })?.content,
    })
}

/// What `path` holds, in listing order: the entries of a directory (with `recursive`, of everything below it), or the one
/// entry of a file. `path`: from the source's root, or as on the captured machine; empty for the root.
///
/// A part of the listing that is damaged comes as an error in its place; what comes after it is still listed.
pub fn ls<'a>(
    vault: &'a dyn Vault,
    record: &'a SourceRecord,
    path: &str,
    recursive: bool,
) -> Result<Box<dyn Iterator<Item = Result<Listed>> + 'a>> {
    let content = stream(record, false)?;
    let text = from_root(path, &Facts::of(record));
    let path = text.trim_start_matches("./").trim_matches('/').as_bytes().to_vec();
    if !path.is_empty() {
        let (directory, name) = split_path(&path);
        let found = lookup(vault, content, false, directory, name)?;
        match found.into_iter().next() {
            None => return Err(FilesError::NothingMatches(vec![text]).into()),
            Some(entry) if entry.kind != FileKind::Directory => {
                return Ok(Box::new(std::iter::once(Ok(Listed { path, entry }))));
            }
            Some(_) => {}
        }
    }
    Ok(Box::new(Inside {
        browse: Browse::below(vault, content, false, &path),
        at: path.clone(),
        path,
        recursive,
    }))
}

/// The entries of a directory, or of everything below it too.
struct Inside<'a> {
    browse: Browse<'a>,
    path: Vec<u8>,
    recursive: bool,
    at: Vec<u8>,
}

impl Iterator for Inside<'_> {
    type Item = Result<Listed>;

    fn next(&mut self) -> Option<Result<Listed>> {
        loop {
            match self.browse.next()? {
                Ok(Step::Directory(directory)) => {
                    if !self.recursive && directory != self.path {
                        return None;
                    }
                    self.at = directory;
                }
                Ok(Step::Entry(entry)) if entry.name.is_empty() => {}
                Ok(Step::Entry(entry)) => {
                    return Some(Ok(Listed { path: listing::join(&self.at, &entry.name), entry: *entry }));
                }
                Ok(Step::Lost(failure)) | Err(failure) => return Some(Err(failure)),
            }
        }
    }
}

/// Every entry that `query` finds, in listing order. A glob without `/` is matched against names, one with `/` against
/// whole paths; anything else is looked for anywhere in the path. With `deleted`, among the deleted files; their entries
/// say when they were first missed, and a path that was deleted several times comes several times.
pub fn find<'a>(
    vault: &'a dyn Vault,
    record: &'a SourceRecord,
    query: &str,
    deleted: bool,
) -> Result<Box<dyn Iterator<Item = Result<Listed>> + 'a>> {
    let content = stream(record, deleted)?;
    let query = Query::new(query)?;
    let mut at = Vec::new();
    Ok(Box::new(Browse::all(vault, content, deleted).filter_map(move |step| match step {
        Ok(Step::Directory(directory)) => {
            at = directory;
            None
        }
        Ok(Step::Entry(entry)) if entry.name.is_empty() => None,
        Ok(Step::Entry(entry)) => {
            let path = listing::join(&at, &entry.name);
            query.finds(&path, &entry.name).then(|| Ok(Listed { path, entry: *entry }))
        }
        Ok(Step::Lost(failure)) | Err(failure) => Some(Err(failure)),
    })))
}

enum Query {
    Name(GlobMatcher),
    Path(GlobMatcher),
    Part(Vec<u8>),
}

impl Query {
    fn new(text: &str) -> std::result::Result<Query, FilesError> {
        if !text.contains(['*', '?', '[', '{']) {
            return Ok(Query::Part(text.trim_start_matches('/').as_bytes().to_vec()));
        }
        let glob = GlobBuilder::new(text.trim_start_matches('/'))
            .literal_separator(true)
            .backslash_escape(true)
            .build()
            .map_err(|error| FilesError::Filter { pattern: text.to_owned(), error })?
            .compile_matcher();
        Ok(if text.contains('/') { Query::Path(glob) } else { Query::Name(glob) })
    }

    fn finds(&self, path: &[u8], name: &[u8]) -> bool {
        let as_path = |bytes| Path::new(OsStr::from_bytes(bytes));
        match self {
            Query::Name(glob) => glob.is_match(as_path(name)),
            Query::Path(glob) => glob.is_match(as_path(path)),
            Query::Part(part) => {
                part.is_empty() || path.windows(part.len()).any(|window| window == &part[..])
            }
        }
    }
}
