//! Puts the log that replay needs into a restored data directory; or, where it is left in the archive, reads what a server must know
//! of it beforehand.

use super::{Resolved, limits::Limits};
use crate::wal::{each::each, write};
use mainstay_domain::{
    Failure, Kind, Monitor, Result, Severity,
    wal::{Segment, WalFile},
};
use mainstay_sources::postgres::cluster::restore::{self as files, Settings};
use std::path::Path;

impl Resolved<'_> {
    /// Puts what replay needs into a restored data directory's `pg_wal`.
    ///
    /// Returns the settings of which replay needs more than the base backup knew: a server that finds itself below them in the
    /// middle of its recovery stops there and waits.
    pub fn bring_log(&self, data: &Path, sync: bool, monitor: &dyn Monitor) -> Result<Settings> {
        let folder = data.join("pg_wal");
        monitor.step("wal", Some(self.segments.len() as u64 * self.facts.segment_size.bytes()));
        // All of them, strays too: the new timeline takes the first number that no history has, and must not take one of
        // a timeline that is archived.
        let histories =
            self.holdings.files().iter().filter(|archived| matches!(archived.file, WalFile::History(_)));
        let histories: Vec<WalFile> = histories.map(|archived| archived.file.clone()).collect();
        let wanted: Vec<WalFile> = histories
            .into_iter()
            .chain(self.segments.iter().map(|segment| WalFile::Segment(*segment)))
            .collect();
        let limits = Limits::default();
        each(&wanted, self.facts.segment_size, monitor, &|file| {
            let content = self.brought(file)?;
            if let WalFile::Segment(segment) = file {
                self.see_limits(&limits, *segment, &content)?;
            }
            let path = folder.join(file.to_string());
            write(&path, &content, sync)?;
            monitor.advance(1, content.len() as u64);
            files::give_to_owner_of(&folder, &path)
        })?;
        if sync {
            std::fs::File::open(&folder).and_then(|directory| directory.sync_all()).map_err(|error| {
                Failure::failed(format!("{} cannot be made durable", folder.display())).caused_by(error)
            })?;
        }
        monitor.done("wal", "");
        Ok(limits.beyond(&self.facts))
    }

    /// The same settings where the server fetches the log by itself. A `standby` goes on for ever, over every failover: of it they are
    /// those of everything that is archived by now.
    pub fn limits_of_fetched(&self, standby: bool, monitor: &dyn Monitor) -> Result<Settings> {
        let size = self.facts.segment_size;
        let first = Segment::holding(self.facts.timeline, self.facts.start, size).number(size);
        let wanted: Vec<Segment> = match standby {
            true => self.holdings.begun().filter(|segment| segment.number(size) >= first).collect(),
            false => self.segments.clone(),
        };
        monitor.step("limits", Some(wanted.len() as u64 * size.bytes()));
        let limits = Limits::default();
        each(&wanted, size, monitor, &|segment| {
            match self.brought(&WalFile::Segment(*segment)) {
                Ok(content) => self.see_limits(&limits, *segment, &content)?,
                // It may never come to that one: it may lie on another line of history, or stream what it holds from its primary.
                Err(failure) if standby && failure.kind == Kind::Verification => monitor.notice(
                    Severity::Warning,
                    &format!(
                        "{segment} cannot be looked through for what the server must be set to: {failure}"
                    ),
                ),
                Err(failure) => return Err(failure),
            }
            monitor.advance(1, size.bytes());
            Ok(())
        })?;
        monitor.done("limits", "");
        Ok(limits.beyond(&self.facts))
    }

    fn see_limits(&self, limits: &Limits, segment: Segment, content: &[u8]) -> Result<()> {
        let size = self.facts.segment_size;
        // Of its own timeline, or of the one that branches off there: whichever is there, the record goes on in it.
        let next = [segment.next(size), self.ancestry.segment(segment.next(size), size)];
        limits.see(segment.start(size), content, &|| {
            for next in next {
                match self.holdings.content(&WalFile::Segment(next)) {
                    Ok(None) => {}
                    // What is damaged is said where it is needed.
                    Err(failure) if failure.kind == Kind::Verification => {}
                    other => return other,
                }
            }
            Ok(None)
        })
    }

    fn brought(&self, file: &WalFile) -> Result<Vec<u8>> {
        // Of a damaged history the name alone is of use: it keeps the server from taking its number for a new timeline.
        if self.holdings.damaged().any(|timeline| *file == WalFile::History(timeline)) {
            return Ok(b"# damaged in the archive\n".to_vec());
        }
        self.holdings.content(file)?.ok_or_else(|| {
            Failure::verification(format!("{file} was in the archive a moment ago and is gone"))
        })
    }
}
