//! Looking into a recovery point without restoring it: one directory, everything below one, or what a pattern finds.
//! All of them read as they go, and only the chunks they need.

use super::{
    DELETED, FilesError, LISTING,
    browse::{Browse, Step, lookup, split_path},
    facts::Facts,
    names::{self, Glob},
    selection::from_root,
};
use mainstay_domain::{
    Result,
    listing::{self, Entry, FileKind},
    point::SourceRecord,
    stream::{Content, Vault},
};
use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

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
/// entry of a file. `path`: from the source's root, or as on the captured machine, as [`names`] has it typed; empty for the
/// root.
///
/// A part of the listing that is damaged comes as an error in its place; what comes after it is still listed.
pub fn ls<'a>(
    vault: &'a dyn Vault,
    record: &'a SourceRecord,
    path: impl AsRef<OsStr>,
    recursive: bool,
) -> Result<Box<dyn Iterator<Item = Result<Listed>> + 'a>> {
    let content = stream(record, false)?;
    let typed = path.as_ref();
    let path = names::typed_path(names::trim(&from_root(typed.as_bytes(), &Facts::of(record))));
    if !path.is_empty() {
        let (directory, name) = split_path(&path);
        let found = lookup(vault, content, false, directory, name)?;
        match found.into_iter().next() {
            None => return Err(FilesError::NothingMatches(vec![names::show_typed(typed)]).into()),
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
/// whole paths; anything is looked for anywhere in the path as it stands, too. With `deleted`, among the deleted files; their entries
/// say when they were first missed, and a path that was deleted several times comes several times.
pub fn find<'a>(
    vault: &'a dyn Vault,
    record: &'a SourceRecord,
    query: impl AsRef<OsStr>,
    deleted: bool,
) -> Result<Box<dyn Iterator<Item = Result<Listed>> + 'a>> {
    let content = stream(record, deleted)?;
    let query = Query::new(query.as_ref().as_bytes())?;
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

struct Query {
    part: Vec<u8>,
    glob: Option<Glob>,
    /// The glob is for names, not for whole paths.
    of_names: bool,
}

impl Query {
    fn new(typed: &[u8]) -> std::result::Result<Query, FilesError> {
        let text = names::trim_start(typed);
        let glob = names::has_wildcards(text).then(|| Glob::new(text)).transpose()?;
        Ok(Query { part: names::typed_path(text), glob, of_names: !typed.contains(&b'/') })
    }

    fn finds(&self, path: &[u8], name: &[u8]) -> bool {
        let by_glob =
            self.glob.as_ref().is_some_and(|glob| glob.is_match(if self.of_names { name } else { path }));
        by_glob
            || self.part.is_empty()
            || path.windows(self.part.len()).any(|window| window == &self.part[..])
    }
}
