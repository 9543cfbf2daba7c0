//! `mainstay recover`: a store and a key, and nothing else. No configuration, no cache, no server.

use crate::points::PointInfo;
use mainstay_domain::{Clock, RepositoryId, Result};
use mainstay_keys::secret::Secret;
use mainstay_repository::{Access, Repository, read_format, rescue::Spares};
use mainstay_stores::Store;
use std::{collections::BTreeMap, sync::Arc};

/// What a store says about itself before any key is used: compare it with the recovery kit.
#[derive(Debug, Clone)]
pub struct Fingerprint {
    pub repository: RepositoryId,
    pub store: String,
}

pub fn fingerprint(store: &dyn Store) -> Result<Fingerprint> {
    let format = read_format(store)?;
    Ok(Fingerprint { repository: format.repository(), store: store.describe() })
}

/// Opens a repository by its address. With `expected` (from the kit), another repository in its place is refused. `spares` stand
/// in for what the store has lost.
pub fn open(
    url: &str,
    secret: Secret,
    expected: Option<RepositoryId>,
    spares: &Spares,
    clock: Arc<dyn Clock>,
) -> Result<Repository> {
    let store: Arc<dyn Store> = mainstay_stores::open(url)?.into();
    Ok(Repository::open_with(Access { store, secret, clock, cache: None }, expected, spares)?)
}

/// Recovery points that lie in the store and that the log does not name: deleted ones that are not yet collected, or ones whose
/// entry was lost. What is left of them can be restored; `repair --adopt` takes one back.
pub fn unnamed(repository: &Repository, app: Option<&str>) -> Result<Vec<PointInfo>> {
    let found = repository.unnamed_manifests()?.into_iter().map(|(id, manifest)| PointInfo {
        id,
        summary: manifest.point.summary,
        signer: manifest.signer,
        committed_at: 0,
        holds: Vec::new(),
        proofs: BTreeMap::new(),
        passed: BTreeMap::new(),
    });
    Ok(found.filter(|point| app.is_none_or(|app| point.summary.app == app)).collect())
}
