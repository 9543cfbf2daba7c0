//! Segments of which only the beginning is archived: the one that the server writes to, as fragments hold it.
//!
//! To whoever replays, such a segment is one like the others, filled up with zeros, at which the log ends: PostgreSQL and our own
//! reader take a record of length zero for that. A segment that cannot be put together is an error and never a shorter one.

use super::{Holdings, ends_in};
use mainstay_domain::{
    Failure, Kind, Result,
    wal::{Lsn, Segment, SegmentSize, WalFile},
};
use mainstay_repository::{
    Repository,
    wal::{Archive, Ends},
};
use mainstay_sources::postgres::wal::SegmentHeader;

/// A file of the archive; of a segment that is not archived whole what there is, filled up with zeros.
pub fn content_of(archive: &Archive<'_>, file: &WalFile) -> Result<Option<Vec<u8>>> {
    if let Some(content) = archive.get(file)? {
        return Ok(Some(content));
    }
    let WalFile::Segment(segment) = file else { return Ok(None) };
    match archive.beginning(*segment) {
        Ok(Some(bytes)) => padded(*segment, bytes),
        // The whole segment may have taken the place of its fragments a moment ago.
        Ok(None) => Ok(archive.get(file)?),
        Err(error) => match archive.get(file)? {
            Some(content) => Ok(Some(content)),
            None => Err(error.into()),
        },
    }
}

/// As [`content_of`] for a server in recovery, to which `None` is the end of the log: a store that goes away between two requests holds
/// nothing, and has said nothing.
pub fn content_for_sure(repository: &Repository, system: u64, file: &WalFile) -> Result<Option<Vec<u8>>> {
    match content_of(&Archive::of(repository, system), file)? {
        None if !repository.is_current()? => Err(Failure::failed(format!(
            "the repository went away, or another host came to it, while {file} was looked for"
        ))
        .hint("Run the command again.")),
        content => Ok(content),
    }
}

/// `None`: too little of it to tell anything.
fn padded(segment: Segment, mut bytes: Vec<u8>) -> Result<Option<Vec<u8>>> {
    if bytes.len() < mainstay_sources::postgres::wal::header::LONG_HEADER {
        return Ok(None);
    }
    let size = SegmentHeader::parse(&bytes).map(|header| header.segment_size.bytes());
    let Some(size) = size.filter(|size| bytes.len() as u64 <= *size) else {
        return Err(Failure::verification(format!(
            "the fragments of {segment} do not begin as a segment does"
        ))
        .hint("Nothing of it can be replayed. A restore to a moment before it works: --at TIME."));
    };
    bytes.resize(size as usize, 0);
    Ok(Some(bytes))
}

/// The size of segments where none is archived whole yet.
pub(super) fn size_said_by_fragments(
    archive: &Archive<'_>,
    files: &[mainstay_repository::wal::Archived],
) -> Result<Option<SegmentSize>> {
    let first = files.iter().find_map(|archived| match &archived.file {
        WalFile::Fragment(segment, _) => Some(*segment),
        _ => None,
    });
    let Some(segment) = first else { return Ok(None) };
    match archive.beginning(segment) {
        Ok(bytes) => Ok(bytes.and_then(|bytes| Some(SegmentHeader::parse(&bytes)?.segment_size))),
        Err(error) if error.is_damage() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Holdings<'_> {
    /// See [`content_of`].
    pub fn content(&self, file: &WalFile) -> Result<Option<Vec<u8>>> {
        content_of(&self.archive, file)
    }

    /// Up to where a segment is archived of which the end is not; `None` if there is nothing of it.
    pub fn reach(&self, segment: Segment) -> Result<Option<Lsn>> {
        let bytes = self.archive.beginning(segment)?;
        let start = segment.start(self.segment_size);
        Ok(bytes.filter(|bytes| !bytes.is_empty()).map(|bytes| Lsn(start.0 + bytes.len() as u64)))
    }

    /// The same where trouble is no reason to give up what lies before.
    pub fn reach_if_sound(&self, segment: Segment) -> Result<Option<Lsn>> {
        match self.reach(segment) {
            Err(failure) if matches!(failure.kind, Kind::Verification | Kind::Refused) => Ok(None),
            other => other,
        }
    }

    /// When transactions ended that end in what is archived of a segment.
    pub fn ends(&self, segment: Segment) -> Result<Option<Ends>> {
        let file = WalFile::Segment(segment);
        match self.archive.head(&file)? {
            Some(head) => Ok(head.ends),
            None => Ok(self.content(&file)?.and_then(|content| ends_in(&file, &content))),
        }
    }

    /// Every segment of which something is archived, in order.
    pub fn begun(&self) -> impl Iterator<Item = Segment> + '_ {
        let of_fragments = self.files.iter().filter_map(|archived| match &archived.file {
            WalFile::Fragment(segment, _) => Some(*segment),
            _ => None,
        });
        let all: std::collections::BTreeSet<Segment> =
            of_fragments.chain(self.segments.iter().copied()).collect();
        all.into_iter()
    }

    /// The last segment of a timeline, if only its beginning is archived.
    pub fn open_segment(&self, timeline: u32) -> Option<Segment> {
        let last = self.begun().filter(|segment| segment.timeline == timeline).last()?;
        (!self.has(last)).then_some(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use std::ops::ControlFlow;

    #[test]
    fn a_store_that_goes_away_does_not_say_that_the_log_ends() {
        let store = testing::store();
        let repository = testing::open(&store);
        let file: WalFile = "000000010000000000000001".parse().unwrap();
        assert_eq!(content_for_sure(&repository, 7, &file).unwrap(), None);
        // As where a disk is not mounted any more.
        let mut names = Vec::new();
        let collect = &mut |listed: mainstay_stores::Listed| {
            names.push(listed.name);
            ControlFlow::Continue(())
        };
        repository.store().list("", collect).unwrap();
        names.iter().for_each(|name| repository.store().delete(name).unwrap());
        assert_eq!(content_for_sure(&repository, 7, &file).unwrap_err().kind, Kind::Failed);
    }
}
