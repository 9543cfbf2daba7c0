//! The settings that a server in recovery must not be below, as the log tells them: each time that a primary was started with other
//! ones, it wrote them down.

use mainstay_domain::{Lsn, Result, stream::PAGE};
use mainstay_sources::postgres::{
    cluster::{ClusterFacts, facts::RECOVERY_SETTINGS, restore::Settings},
    wal::{Mark, Scanner},
};
use std::sync::{Mutex, PoisonError};

/// The highest values that were seen, by whichever thread.
#[derive(Default)]
pub(super) struct Limits(Mutex<[u32; RECOVERY_SETTINGS.len()]>);

impl Limits {
    /// Looks through a segment that begins at `start`. `next` brings the one that follows, if there is one: a record may begin in this one and
    /// end there.
    pub fn see(&self, start: Lsn, content: &[u8], next: &dyn Fn() -> Result<Option<Vec<u8>>>) -> Result<()> {
        let raise = |mark| {
            if let Mark::Limits { limits: found, .. } = mark {
                let mut limits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                limits.iter_mut().zip(found).for_each(|(limit, found)| *limit = found.max(*limit));
            }
        };
        let mut scanner = Scanner::default();
        scanner.feed(start, content, raise);
        if scanner.is_within_a_record()
            && let Some(rest) = next()?
        {
            // Such a record is a few dozen bytes: what is longer is of another kind.
            let rest = &rest[..rest.len().min(2 * PAGE)];
            scanner.feed(Lsn(start.0 + content.len() as u64), rest, raise);
        }
        Ok(())
    }

    /// Those that are higher than at the time of the base backup.
    pub fn beyond(self, facts: &ClusterFacts) -> Settings {
        let known = |name: &str| {
            let found = facts.settings.iter().find(|(known, _)| known == name);
            found.and_then(|(_, value)| value.parse::<u32>().ok()).unwrap_or_default()
        };
        let limits = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        let grown = RECOVERY_SETTINGS.iter().zip(limits).filter(|(name, limit)| *limit > known(name));
        grown.map(|(name, limit)| ((*name).to_owned(), limit.to_string())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMED: [u32; 5] = [500, 8, 10, 0, 64];

    /// A log page at `at` with these bytes in it; `left`: how many of them belong to a record that began before.
    fn page(at: u64, left: u32, bytes: &[u8]) -> Vec<u8> {
        let mut page = vec![0; PAGE];
        page[..2].copy_from_slice(&0xd116_u16.to_ne_bytes());
        page[2] = u8::from(left > 0);
        page[8..16].copy_from_slice(&at.to_ne_bytes());
        page[16..20].copy_from_slice(&left.to_ne_bytes());
        page[24..24 + bytes.len()].copy_from_slice(bytes);
        page
    }

    /// A record of a resource manager, with this as its main data.
    fn record(length: usize, previous: u64, info: u8, manager: u8, data: &[u8]) -> Vec<u8> {
        let mut record = vec![0; length];
        record[..4].copy_from_slice(&(length as u32).to_ne_bytes());
        record[8..16].copy_from_slice(&previous.to_ne_bytes());
        (record[16], record[17]) = (info, manager);
        if !data.is_empty() {
            (record[24], record[25]) = (255, data.len() as u8);
            record[26..26 + data.len()].copy_from_slice(data);
        }
        record
    }

    #[test]
    fn limits_that_are_written_across_the_end_of_a_segment_are_seen() {
        let start = 1 << 24;
        let fits = PAGE - 24;
        let data: Vec<u8> = NAMED.iter().flat_map(|number| number.to_ne_bytes()).collect();
        // Also with its header cut, where it is not yet known what it is.
        for on_the_first in [8, 16, 32, 40] {
            let filler = record(fits - on_the_first, 0, 0, 10, &[]);
            let change = record(26 + data.len(), start + 24, 0x60, 0, &data);
            let (first, rest) = change.split_at(on_the_first);
            let this = page(start, 0, &[&filler[..], first].concat());
            let next = page(start + PAGE as u64, rest.len() as u32, rest);
            let seen = |next: Option<Vec<u8>>| {
                let limits = Limits::default();
                limits.see(Lsn(start), &this, &|| Ok(next.clone())).unwrap();
                limits.0.into_inner().unwrap()
            };
            assert_eq!(seen(Some(next)), NAMED, "{on_the_first} bytes of it in the first");
            assert_eq!(seen(None), [0; 5], "the log ends there");
        }
    }
}
