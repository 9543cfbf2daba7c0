//! The keys that a process holds for one repository: what its secret opened.

use crate::{
    envelope::PrivateKeys,
    error::{RepositoryError, Result},
};
use mainstay_domain::EpochId;
use mainstay_keys::{
    bundle::Bundle,
    recipient::{self, Recipient},
    secret::Secret,
};
use mainstay_stores::Store;
use std::{collections::BTreeMap, ops::ControlFlow};

pub struct Keyring {
    bundles: BTreeMap<EpochId, Bundle>,
}

impl Keyring {
    pub fn new(bundle: Bundle) -> Keyring {
        Keyring { bundles: BTreeMap::from([(EpochId(bundle.epoch), bundle)]) }
    }

    /// Opens every epoch that `secret` is a recipient of.
    pub fn unlock(store: &dyn Store, root: &[u8; 32], secret: &Secret) -> Result<Keyring> {
        let mut bundles = BTreeMap::new();
        for (_, recipient) in recipients(store, root)? {
            let epoch = EpochId(recipient.epoch());
            if !bundles.contains_key(&epoch)
                && let Ok(bundle) = recipient.unwrap_with(secret)
            {
                bundles.insert(epoch, bundle);
            }
        }
        if bundles.is_empty() { Err(RepositoryError::WrongKey) } else { Ok(Keyring { bundles }) }
    }

    pub fn epochs(&self) -> impl Iterator<Item = EpochId> + '_ {
        self.bundles.keys().copied()
    }

    /// The newest epoch's bundle: what new packs are sealed to.
    pub fn current(&self) -> &Bundle {
        self.bundles.values().next_back().expect("a keyring is never empty")
    }
}

/// The recipients of a repository by object name. Those that cannot be parsed or are not signed by the root are left out: they
/// cannot open anything, and must not keep a good key from working.
pub fn recipients(store: &dyn Store, root: &[u8; 32]) -> Result<Vec<(String, Recipient)>> {
    let mut names = Vec::new();
    store.list("keys/", &mut |listed| {
        names.push(listed.name);
        ControlFlow::Continue(())
    })?;
    names.sort();
    let mut found = Vec::new();
    for name in names {
        let bytes = store.read(&name)?;
        if let Ok(recipient) = recipient::parse(&bytes, root) {
            found.push((name, recipient));
        }
    }
    Ok(found)
}

impl PrivateKeys for Keyring {
    fn data_private(&self, epoch: EpochId) -> Option<&[u8; 32]> {
        self.bundles.get(&epoch).map(|b| &b.data_private)
    }
    fn index_private(&self, epoch: EpochId) -> Option<&[u8; 32]> {
        self.bundles.get(&epoch).map(|b| &b.index_private)
    }
}
