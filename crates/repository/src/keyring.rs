//! The keys that a process holds for one repository: what its secret opened.

use crate::{
    envelope::PrivateKeys,
    error::{RepositoryError, Result},
    rescue::Spares,
};
use mainstay_domain::EpochId;
use mainstay_keys::{
    bundle::Bundle,
    recipient::{self, Recipient},
    secret::Secret,
};
use mainstay_stores::Store;
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

pub struct Keyring {
    bundles: BTreeMap<EpochId, Bundle>,
    /// Objects that the store has lost, and that a recovery kit gave instead: what they opened, nothing in the store opens.
    spare: BTreeSet<String>,
}

impl Keyring {
    pub fn new(bundle: Bundle) -> Keyring {
        Keyring { bundles: BTreeMap::from([(EpochId(bundle.epoch), bundle)]), spare: BTreeSet::new() }
    }

    /// Opens every epoch that `secret` is a recipient of, with what the store holds before what a recovery kit holds.
    pub fn unlock(store: &dyn Store, root: &[u8; 32], secret: &Secret, spares: &Spares) -> Result<Keyring> {
        let Stored { intact, damaged } = stored_recipients(store, root)?;
        let nothing_there = intact.is_empty();
        let from_kit =
            spares.below("keys/").filter(|(name, _)| !intact.iter().any(|(there, _)| there == name));
        let from_kit = from_kit.filter_map(|(name, bytes)| {
            Some((name.to_owned(), recipient::parse(bytes, root).ok().filter(|r| r.name() == name)?))
        });
        let from_kit: Vec<_> = from_kit.collect();
        let mut keyring = Keyring { bundles: BTreeMap::new(), spare: BTreeSet::new() };
        let stored = intact.into_iter().map(|found| (found, false));
        for ((name, recipient), is_spare) in stored.chain(from_kit.into_iter().map(|found| (found, true))) {
            let epoch = EpochId(recipient.epoch());
            if !keyring.bundles.contains_key(&epoch)
                && let Ok(bundle) = recipient.unwrap_with(secret)
            {
                keyring.bundles.insert(epoch, bundle);
                keyring.spare.extend(is_spare.then_some(name));
            }
        }
        match keyring.bundles.is_empty() {
            false => Ok(keyring),
            true if damaged.is_empty() && !nothing_there => Err(RepositoryError::WrongKey),
            true => Err(RepositoryError::KeysLost { store: store.describe(), damaged }),
        }
    }

    /// Whether a recovery kit's copy of this object opened what nothing in the store does.
    pub fn opened_by_spare(&self, name: &str) -> bool {
        self.spare.contains(name)
    }

    /// What signs for the holders of each epoch's key.
    pub fn verify_keys(&self) -> impl Iterator<Item = [u8; 32]> + '_ {
        self.bundles.values().map(|bundle| bundle.signer().verify_key())
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
    Ok(stored_recipients(store, root)?.intact)
}

struct Stored {
    intact: Vec<(String, Recipient)>,
    damaged: Vec<String>,
}

fn stored_recipients(store: &dyn Store, root: &[u8; 32]) -> Result<Stored> {
    let mut names = Vec::new();
    store.list("keys/", &mut |listed| {
        names.push(listed.name);
        ControlFlow::Continue(())
    })?;
    names.sort();
    let mut found = Stored { intact: Vec::new(), damaged: Vec::new() };
    for name in names {
        match recipient::parse(&store.read(&name)?, root) {
            Ok(recipient) => found.intact.push((name, recipient)),
            Err(_) => found.damaged.push(name),
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
