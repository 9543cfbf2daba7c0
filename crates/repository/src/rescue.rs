//! A repository that has lost small objects of its own, and still holds its recovery points.
//!
//! Without the log, every manifest that can be read counts as a recovery point; without the trust list, nobody but who holds the
//! repository key is believed. Such a repository is *impaired*: it is read and never written to, because what the lost objects
//! said (what was dropped, condemned, held, revoked) is not known. `format`, `trust/*`, `keys/*` and `log/0` are repeated in
//! the recovery kit: from there they are taken as *spares*, each proved by a signature, and put back by `repair --kit`.

use crate::{
    error::{RepositoryError, Result},
    format::{self, Format},
    index,
    log::{Facts, facts::LivePoint},
    repository::Repository,
    trust::{self, Trust},
};
use mainstay_keys::recipient;
use mainstay_stores::{Store, StoreError};
use std::{collections::BTreeMap, ops::ControlFlow};

/// The first entry of the log, which the recovery kit repeats with the other small objects.
pub const FIRST_ENTRY: &str = "log/00000000000000000000";

/// Objects from a recovery kit, by name. None of them is believed before its signature is checked.
#[derive(Debug, Clone, Default)]
pub struct Spares(BTreeMap<String, Vec<u8>>);

impl Spares {
    pub fn new(objects: impl IntoIterator<Item = (String, Vec<u8>)>) -> Spares {
        Spares(objects.into_iter().collect())
    }

    pub(crate) fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.get(name).map(Vec::as_slice)
    }

    pub(crate) fn below(&self, prefix: &str) -> impl Iterator<Item = (&str, &[u8])> {
        let matching = self.0.iter().filter(move |(name, _)| name.starts_with(prefix));
        matching.map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
    }

    /// What the kit says the repository is.
    pub fn format(&self) -> Result<Option<Format>> {
        self.get(format::NAME).map(Format::decode).transpose()
    }
}

/// The `format` object of the store, or the spare one where the store's is lost or damaged.
pub(crate) fn format_or_spare(store: &dyn Store, spares: &Spares) -> Result<(Format, bool)> {
    let lost = match crate::repository::read_format(store) {
        Ok(format) => return Ok((format, false)),
        Err(error @ (RepositoryError::NoRepository { .. } | RepositoryError::Damaged { .. })) => error,
        Err(error) => return Err(error),
    };
    if crate::repository::is_empty(store)? {
        return Err(lost); // a kit makes no repository
    }
    match spares.format()? {
        Some(format) => Ok((format, true)),
        None if matches!(lost, RepositoryError::NoRepository { .. }) => {
            match crate::repository::half_made(store)? {
                Some(half_made) => Err(half_made),
                None if holds_repository(store)? => {
                    Err(RepositoryError::FormatLost { store: store.describe() })
                }
                None => Err(lost),
            }
        }
        None => Err(RepositoryError::FormatLost { store: store.describe() }),
    }
}

/// Something lies where a repository keeps its log or its points: there was one here.
fn holds_repository(store: &dyn Store) -> Result<bool> {
    let mut holds = false;
    for prefix in ["log/", "manifests/"] {
        store.list(prefix, &mut |_| {
            holds = true;
            ControlFlow::Break(())
        })?;
    }
    Ok(holds)
}

/// The newest trust list that can be believed, and what is wrong if it may not be the newest that there was.
///
/// Versions follow one another without gaps, so it is found without a listing.
pub(crate) fn newest_trust(
    store: &dyn Store,
    spares: &Spares,
    format: &Format,
    holders: impl FnOnce() -> Trust,
) -> Result<(Trust, Option<String>)> {
    let mut newest = None;
    for version in 1.. {
        let name = trust::object_name(version);
        let decode = |bytes: &[u8]| Trust::decode(bytes, format.root(), &format.repository(), version);
        let stored = match store.read(&name) {
            Ok(bytes) => Some(decode(&bytes)),
            Err(StoreError::NotFound { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        match (stored, spares.get(&name)) {
            (Some(Ok(trust)), _) => newest = Some(trust),
            (_, Some(spare)) => newest = Some(decode(spare)?),
            // It may have been a revocation.
            (Some(Err(error)), None) if error.is_damage() => {
                return Ok((newest.unwrap_or_else(holders), Some(error.to_string())));
            }
            (Some(Err(error)), None) => return Err(error),
            (None, None) if version == 1 => {} // a later one says all
            (None, None) => break,
        }
    }
    match newest {
        Some(trust) => Ok((trust, None)),
        None => Ok((holders(), Some(format!("{} is missing", trust::object_name(1))))),
    }
}

impl Repository {
    /// What the log would say, as far as it can be known without it: every manifest that can be read is a recovery point, and
    /// any index segment that can be read may be looked into.
    pub(crate) fn facts_without_log(&self) -> Result<Facts> {
        let mut facts = Facts::default();
        let mut found = Vec::new();
        self.for_each_manifest(&|_| true, &mut |id, manifest| {
            let live = LivePoint {
                committed_at: 0,
                time: manifest.point.summary.finished,
                session: manifest.session,
                signer: manifest.signer,
                index: manifest.reach.index,
                holds: BTreeMap::new(),
                summary: Some(manifest.point.summary),
                proofs: BTreeMap::new(),
                passed: BTreeMap::new(),
            };
            found.push((id, live));
        })?;
        found.sort_by_key(|(id, live)| (live.time, *id));
        for (order, (id, live)) in (1..).zip(found) {
            facts.points.insert(id, LivePoint { committed_at: order, ..live });
        }
        self.store().list("index/", &mut |listed| {
            let id = listed.name.strip_prefix("index/").and_then(|id| id.parse().ok());
            facts.segments.extend(id.filter(|id| index::object_name(id) == listed.name).map(|id| (id, 0)));
            ControlFlow::Continue(())
        })?;
        Ok(facts)
    }

    /// Puts objects back that the store has lost or that are damaged there, and returns their names. What the store has whole
    /// stays as it is.
    ///
    /// A key that is not in the store may have been removed on purpose: it comes back only if nothing else in the store opens
    /// the repository for the key at hand.
    pub fn put_back(&self, spares: &Spares) -> Result<Vec<String>> {
        let store = &**self.store();
        let mut restored = Vec::new();
        // A log of nothing but its beginning names no point, and a collection would take all that is there for garbage.
        let others_follow = self.log().has_entries_behind(0)?;
        // `format` last, as when a repository is made: until then a crash leaves what was there.
        let (first, last): (Vec<_>, Vec<_>) =
            spares.0.iter().partition(|(name, _)| name.as_str() != format::NAME);
        for (name, bytes) in first.into_iter().chain(last) {
            if !self.is_ours(name, bytes) || (name == FIRST_ENTRY && !others_follow) {
                continue;
            }
            match store.read(name) {
                Ok(stored) if self.is_ours(name, &stored) => continue,
                Ok(_) => store.delete(name)?, // it opens nothing: its signature is broken
                Err(StoreError::NotFound { .. })
                    if name.starts_with("keys/") && !self.keyring().opened_by_spare(name) =>
                {
                    continue;
                }
                Err(StoreError::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            crate::session::create_settled(store, name, bytes)?;
            restored.push(name.clone());
        }
        Ok(restored)
    }

    /// Whether these are the bytes of such an object of this repository.
    fn is_ours(&self, name: &str, bytes: &[u8]) -> bool {
        let root = self.format().root();
        if name == format::NAME {
            return Format::decode(bytes).is_ok_and(|format| format.repository() == self.id());
        }
        if name == FIRST_ENTRY {
            return self.log().is_first_entry(bytes);
        }
        if let Some(version) = name.strip_prefix("trust/").and_then(|n| n.parse().ok()) {
            return trust::object_name(version) == name
                && Trust::decode(bytes, root, &self.id(), version).is_ok();
        }
        name.starts_with("keys/")
            && recipient::parse(bytes, root).is_ok_and(|recipient| recipient.name() == name)
    }
}
