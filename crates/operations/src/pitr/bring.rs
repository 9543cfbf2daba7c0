//! Puts the log that replay needs into a restored data directory.

use super::Resolved;
use crate::wal::write;
use mainstay_domain::{Failure, Kind, Monitor, Result, wal::WalFile};
use mainstay_sources::postgres::{
    cluster::{facts::RECOVERY_SETTINGS, restore as files},
    wal::{Mark, Scanner},
};
use std::path::Path;

/// Bytes of segments that are held at the same time while they are brought.
const HELD: u64 = 128 << 20;

impl Resolved<'_> {
    /// Puts what replay needs into a restored data directory's `pg_wal`.
    ///
    /// Returns the settings of which replay needs more than the base backup knew: a server that finds itself below them in the
    /// middle of its recovery stops there and waits.
    pub fn bring_log(&self, data: &Path, sync: bool, monitor: &dyn Monitor) -> Result<Vec<(String, String)>> {
        let folder = data.join("pg_wal");
        let size = self.facts.segment_size.bytes();
        monitor.step("log", Some(self.segments.len() as u64 * size));
        // All of them, strays too: the new timeline takes the first number that no history has, and must not take one of
        // a timeline that is archived.
        let histories =
            self.holdings.files().iter().filter(|archived| matches!(archived.file, WalFile::History(_)));
        let histories: Vec<WalFile> = histories.map(|archived| archived.file.clone()).collect();
        let wanted: Vec<WalFile> = histories
            .into_iter()
            .chain(self.segments.iter().map(|segment| WalFile::Segment(*segment)))
            .collect();
        let next = std::sync::atomic::AtomicUsize::new(0);
        let limits = std::sync::Mutex::new([0; RECOVERY_SETTINGS.len()]);
        let outcome = std::sync::Mutex::new(Ok(()));
        std::thread::scope(|scope| {
            // Each thread holds a segment; one has up to 1 GiB.
            for _ in 0..crate::access::threads().min((HELD / size) as usize).max(1) {
                scope.spawn(|| {
                    while let Some(file) = wanted.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
                    {
                        let done = self.bring(file, &folder, sync, &limits, monitor);
                        if let Err(failure) = done {
                            let mut outcome = outcome.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                            if outcome.is_ok() {
                                *outcome = Err(failure);
                            }
                            next.store(wanted.len(), std::sync::atomic::Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        outcome.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())?;
        if sync {
            std::fs::File::open(&folder).and_then(|directory| directory.sync_all()).map_err(|error| {
                Failure::failed(format!("{} cannot be made durable", folder.display())).caused_by(error)
            })?;
        }
        monitor.done("log", "");
        let limits = limits.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        let known = |name: &str| {
            let found = self.facts.settings.iter().find(|(known, _)| known == name);
            found.and_then(|(_, value)| value.parse::<u32>().ok()).unwrap_or_default()
        };
        let grown = RECOVERY_SETTINGS.iter().zip(limits).filter(|(name, limit)| *limit > known(name));
        Ok(grown.map(|(name, limit)| ((*name).to_owned(), limit.to_string())).collect())
    }

    fn bring(
        &self,
        file: &WalFile,
        folder: &Path,
        sync: bool,
        limits: &std::sync::Mutex<[u32; RECOVERY_SETTINGS.len()]>,
        monitor: &dyn Monitor,
    ) -> Result<()> {
        if monitor.cancelled() {
            return Err(Failure::new(Kind::Cancelled, "the restore was stopped"));
        }
        // Of a damaged history the name alone is of use: it keeps the server from taking its number for a new timeline.
        let name_only = self.holdings.damaged().any(|timeline| *file == WalFile::History(timeline));
        let content = match name_only {
            true => b"# damaged in the archive\n".to_vec(),
            false => self.holdings.content(file)?.ok_or_else(|| {
                Failure::verification(format!("{file} was in the archive a moment ago and is gone"))
            })?,
        };
        let path = folder.join(file.to_string());
        if let WalFile::Segment(segment) = file {
            Scanner::default().feed(segment.start(self.facts.segment_size), &content, |mark| {
                if let Mark::Limits { limits: found, .. } = mark {
                    let mut limits = limits.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                    limits.iter_mut().zip(found).for_each(|(limit, found)| *limit = found.max(*limit));
                }
            });
        }
        write(&path, &content, sync)?;
        monitor.advance(1, content.len() as u64);
        files::give_to_owner_of(folder, &path)
    }
}
