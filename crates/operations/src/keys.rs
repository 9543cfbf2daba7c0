//! Who can open a repository: listing, adding and removing recipients, and the recovery kit.

use mainstay_domain::{Clock, Failure, Kind, Result, Time};
use mainstay_keys::{
    recipient::{self, Recipient},
    secret::Secret,
};
use mainstay_repository::{Repository, keyring};

/// One who can open the repository.
#[derive(Debug, Clone, serde::Serialize)]
pub struct RecipientInfo {
    pub id: String,
    pub label: String,
    pub kind: &'static str,
    pub epoch: u32,
    pub created: Time,
    #[serde(skip)]
    object: String,
}

/// Everyone who can open a repository, in the order in which they were let in.
pub fn list(repository: &Repository) -> Result<Vec<RecipientInfo>> {
    let recipients = keyring::recipients(&**repository.store(), repository.format().root())?;
    let mut listed: Vec<_> =
        recipients.into_iter().map(|(object, recipient)| describe(object, &recipient)).collect();
    listed.sort_by_key(|recipient| recipient.created);
    Ok(listed)
}

fn describe(object: String, recipient: &Recipient) -> RecipientInfo {
    RecipientInfo {
        id: recipient.id(),
        label: recipient.label().to_owned(),
        kind: match recipient.kind() {
            recipient::RecipientKind::Key => "key",
            recipient::RecipientKind::Passphrase => "passphrase",
            recipient::RecipientKind::PublicKey => "public key",
            recipient::RecipientKind::Kms => "kms",
        },
        epoch: recipient.epoch(),
        created: recipient.created(),
        object,
    }
}

/// Lets another key or passphrase open the repository: everything in it, old and new. Changes nothing where it does so already, and
/// says under which label.
pub fn add(
    repository: &Repository,
    secret: &Secret,
    label: &str,
    clock: &dyn Clock,
) -> Result<Option<RecipientInfo>> {
    let bundle = repository.keyring().current();
    let known = keyring::recipients(&**repository.store(), repository.format().root())?;
    let opened =
        |recipient: &Recipient| recipient.epoch() == bundle.epoch && recipient.unwrap_with(secret).is_ok();
    if let Some((object, recipient)) = known.into_iter().find(|(_, recipient)| opened(recipient)) {
        return Ok(Some(describe(object, &recipient)));
    }
    let root = bundle.root().ok_or_else(|| {
        Failure::new(Kind::Refused, "this key does not hold the root key, which must sign a new recipient")
            .hint("Use the key that the repository was made with, or the one kept offline.")
    })?;
    let wrapped = recipient::wrap(bundle, secret, repository.id(), label, clock.now(), &root);
    let (name, bytes) =
        wrapped.map_err(|error| Failure::failed("the key could not be added").caused_by(error))?;
    repository.store().create(&name, &bytes)?;
    Ok(None)
}

/// Removes the recipient whose id begins with `prefix` (or whose label it is). The last one cannot be removed.
///
/// Whoever held that key and a copy of its recipient object can still open what was stored until now: only a rotation protects
/// what comes.
pub fn remove(repository: &Repository, prefix: &str) -> Result<RecipientInfo> {
    let all = list(repository)?;
    let matching: Vec<_> = all.iter().filter(|r| r.id.starts_with(prefix) || r.label == prefix).collect();
    let [chosen] = matching.as_slice() else {
        let known: Vec<_> = all.iter().map(|r| format!("{} ({})", &r.id[..8], r.label)).collect();
        let how_many = if matching.is_empty() { "no key matches" } else { "several keys match" };
        return Err(
            Failure::usage(format!("{how_many} {prefix:?}")).hint(format!("There is: {}.", known.join(", ")))
        );
    };
    if all.iter().filter(|r| r.epoch == chosen.epoch).count() == 1 {
        return Err(Failure::new(Kind::Refused, "this is the last key that opens the repository")
            .hint("Add another one first: `mainstay key add --label NAME --key-file FILE`."));
    }
    repository.store().delete(&chosen.object)?;
    Ok((*chosen).clone())
}
