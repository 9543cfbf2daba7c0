//! What changed between two listings. Chunks that both have are passed over unread, so it costs what differs.

use super::{
    FilesError, LISTING,
    browse::{Browse, Step},
};
use mainstay_domain::{
    Result,
    listing::{self, Entry},
    point::SourceRecord,
    stream::Vault,
};
use std::cmp::Ordering;

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    Added,
    Removed,
    /// Another kind of file, another content, or a link that leads elsewhere.
    Content,
    /// Mode, owner, times or attributes only.
    Metadata,
}

/// One path that is not the same in both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub path: Vec<u8>,
    pub kind: ChangeKind,
    pub before: Option<Box<Entry>>,
    pub after: Option<Box<Entry>>,
}

/// The changes from `before` to `after`, in listing order, found as they are asked for. A damaged part of a listing comes
/// as an error in its place; its files then count as not listed.
pub fn diff<'a>(
    before: (&'a dyn Vault, &SourceRecord),
    after: (&'a dyn Vault, &SourceRecord),
) -> Result<impl Iterator<Item = Result<Change>> + use<'a>> {
    Ok(Diff { before: Side::new(before)?, after: Side::new(after)? })
}

struct Side<'a> {
    browse: Browse<'a>,
    directory: Vec<u8>,
    /// The entry to be compared next.
    entry: Option<Box<Entry>>,
    over: bool,
}

impl<'a> Side<'a> {
    fn new((vault, record): (&'a dyn Vault, &SourceRecord)) -> Result<Side<'a>> {
        let name = record.name.clone();
        let content = &record.stream(LISTING).ok_or(FilesError::NoListing { name })?.content;
        let browse = Browse::all(vault, content, false);
        Ok(Side { browse, directory: Vec::new(), entry: None, over: false })
    }

    /// Whether it stands between two chunks.
    fn is_between(&mut self) -> Option<mainstay_domain::ChunkId> {
        if self.entry.is_some() { None } else { self.browse.next_chunk() }
    }

    fn fill(&mut self) -> Result<()> {
        while self.entry.is_none() && !self.over {
            match self.browse.next().transpose()? {
                None => self.over = true,
                Some(Step::Directory(path)) => self.directory = path,
                Some(Step::Entry(entry)) => self.entry = Some(entry),
                Some(Step::Lost(failure)) => return Err(failure),
            }
        }
        Ok(())
    }

    fn take(&mut self) -> (Vec<u8>, Option<Box<Entry>>) {
        let entry = self.entry.take();
        let path = match &entry {
            Some(entry) if entry.name.is_empty() => Vec::new(),
            Some(entry) => listing::join(&self.directory, &entry.name),
            None => Vec::new(),
        };
        (path, entry)
    }
}

struct Diff<'a> {
    before: Side<'a>,
    after: Side<'a>,
}

impl Iterator for Diff<'_> {
    type Item = Result<Change>;

    fn next(&mut self) -> Option<Result<Change>> {
        let Diff { before, after } = self;
        loop {
            while let (Some(left), Some(right)) = (before.is_between(), after.is_between())
                && left == right
            {
                before.browse.skip_chunk();
                after.browse.skip_chunk();
            }
            if let Err(failure) = before.fill().and_then(|()| after.fill()) {
                return Some(Err(failure));
            }
            let order = match (&before.entry, &after.entry) {
                (None, None) => return None,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(left), Some(right)) => listing::compare_paths(&before.directory, &after.directory)
                    .then_with(|| left.name.cmp(&right.name)),
            };
            let change = match order {
                Ordering::Less => {
                    let (path, entry) = before.take();
                    Change { path, kind: ChangeKind::Removed, before: entry, after: None }
                }
                Ordering::Greater => {
                    let (path, entry) = after.take();
                    Change { path, kind: ChangeKind::Added, before: None, after: entry }
                }
                Ordering::Equal => {
                    let ((path, left), (_, right)) = (before.take(), after.take());
                    let (Some(left), Some(right)) = (left, right) else { continue };
                    match changed(&left, &right) {
                        Some(kind) => Change { path, kind, before: Some(left), after: Some(right) },
                        None => continue,
                    }
                }
            };
            return Some(Ok(change));
        }
    }
}

/// Numbers that only this machine's file system gives (inode, device, ctime) are no change.
fn changed(before: &Entry, after: &Entry) -> Option<ChangeKind> {
    let content = |entry: &Entry| (entry.kind, entry.size, entry.device_node, entry.target.clone());
    if content(before) != content(after) || before.content != after.content {
        return Some(ChangeKind::Content);
    }
    let metadata = |entry: &Entry| (entry.mode, entry.uid, entry.gid, entry.modified, entry.links);
    (metadata(before) != metadata(after) || before.xattrs != after.xattrs).then_some(ChangeKind::Metadata)
}
