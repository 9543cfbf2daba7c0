//! The settings that a server in recovery must not be below, as the log tells them: each time that a primary was started with other
//! ones, it wrote them down.

use mainstay_domain::Lsn;
use mainstay_sources::postgres::{
    cluster::{ClusterFacts, facts::RECOVERY_SETTINGS, restore::Settings},
    wal::{Mark, Scanner},
};
use std::sync::{Mutex, PoisonError};

/// The highest values that were seen, by whichever thread.
#[derive(Default)]
pub(super) struct Limits(Mutex<[u32; RECOVERY_SETTINGS.len()]>);

impl Limits {
    /// Looks through a segment that begins at `start`.
    pub fn see(&self, start: Lsn, content: &[u8]) {
        Scanner::default().feed(start, content, |mark| {
            if let Mark::Limits { limits: found, .. } = mark {
                let mut limits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                limits.iter_mut().zip(found).for_each(|(limit, found)| *limit = found.max(*limit));
            }
        });
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
