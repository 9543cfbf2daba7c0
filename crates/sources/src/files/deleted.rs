//! Keeps what has vanished: the stream of deleted files.
//!
//! It is a listing like any other, of entries that carry the time at which they were first missed. It is made anew with
//! every backup, from the one before and what is missed now, and an entry leaves it when its time is over. A name may
//! stand in it several times, by time: each is a version that was deleted.

use super::{leaf::Leaves, merge::adopted, previous::Previous, problems::Problems, raw::content_into};
use mainstay_domain::{
    Result, Severity, Time, listing,
    listing::Entry,
    stream::{Content, Sink},
};
use std::{cmp::Ordering, sync::Arc};

pub(crate) struct Deleted<'a> {
    sink: &'a dyn Sink,
    problems: &'a Problems,
    old: Previous<'a>,
    leaves: Option<Leaves<'a>>,
    directory: Option<Arc<[u8]>>,
    now: Time,
    /// What was deleted before this is let go.
    since: Time,
    kept: u64,
    encoded: Vec<u8>,
}

impl<'a> Deleted<'a> {
    pub fn new(
        sink: &'a dyn Sink,
        problems: &'a Problems,
        old: Previous<'a>,
        now: Time,
        since: Time,
    ) -> Deleted<'a> {
        Deleted {
            sink,
            problems,
            old,
            leaves: None,
            directory: None,
            now,
            since,
            kept: 0,
            encoded: Vec::new(),
        }
    }

    /// Adds an entry of the listing before that is not in the new one. Comes in listing order.
    pub fn missed(&mut self, directory: &Arc<[u8]>, raw: &[u8]) -> Result<()> {
        let mut entry: Entry = minicbor::decode(raw).map_err(super::raw::malformed)?;
        if entry.name.is_empty() {
            return Ok(()); // the root's own metadata
        }
        self.carry_over(Some((directory, &entry)))?;
        entry.deleted = Some(self.now);
        self.write(directory, &entry)
    }

    pub fn finish(mut self) -> Result<(Option<Content>, u64)> {
        self.carry_over(None)?;
        let content = self.leaves.map(Leaves::finish).transpose()?;
        Ok((content, self.kept))
    }

    /// Writes what the stream before holds up to `until`, but for what is too old and for `until`'s own last version,
    /// which is about to be written with the new time.
    fn carry_over(&mut self, until: Option<(&Arc<[u8]>, &Entry)>) -> Result<()> {
        loop {
            self.old.enter_any();
            let Some((directory, scanned)) = self.old.entry() else { return Ok(()) };
            let order = until.map_or(Ordering::Less, |(until, entry)| {
                listing::compare_paths(directory, until)
                    .then_with(|| self.old.name(scanned).cmp(&entry.name[..]))
            });
            if order == Ordering::Greater {
                return Ok(());
            }
            let entry: Entry =
                minicbor::decode(self.old.bytes(&scanned.whole)).map_err(super::raw::malformed)?;
            let again = order == Ordering::Equal
                && until.is_some_and(|(_, until)| {
                    (until.kind, until.size, until.modified, &until.content, &until.target)
                        == (entry.kind, entry.size, entry.modified, &entry.content, &entry.target)
                });
            if !again && entry.deleted.is_some_and(|deleted| deleted >= self.since) {
                let directory = match &self.directory {
                    Some(current) if current[..] == *directory => current.clone(),
                    _ => Arc::from(directory),
                };
                self.write(&directory, &entry)?;
            }
            self.old.advance();
        }
    }

    fn write(&mut self, directory: &Arc<[u8]>, entry: &Entry) -> Result<()> {
        if let Some(content) = &entry.content
            && !adopted(self.sink, content)?
        {
            let path = super::names::show_path(&listing::join(directory, &entry.name));
            let message = "it was deleted, and its content is no longer in the repository";
            self.problems.add(Severity::Warning, path, message);
            return Ok(());
        }
        let leaves = self.leaves.get_or_insert_with(|| Leaves::new(self.sink));
        if self.directory.as_ref().is_none_or(|current| current[..] != directory[..]) {
            leaves.directory(directory, false);
            self.directory = Some(directory.clone());
        }
        self.encoded.clear();
        listing::encode_entry(entry, &mut self.encoded);
        leaves.entry(&entry.name, &self.encoded)?;
        self.kept += 1;
        Ok(())
    }
}

/// Whether stored bytes decode to the same content; for reporting silent changes.
pub(crate) fn same_content(a: &[u8], b: &[u8]) -> bool {
    let (mut left, mut right) = (Content::default(), Content::default());
    a == b || content_into(a, &mut left).is_ok() && content_into(b, &mut right).is_ok() && left == right
}
