//! Recipients: who can unwrap a repository's bundle of keys (`doc/format.md` §4).
//!
//! A recipient is an object of its own, signed by the repository's root key. Adding or removing one touches nothing else; one
//! secret is one recipient for each epoch. What is read from storage is not believed before its signature was checked, and
//! argon2's parameters are bounded even then: a hostile store must take neither our memory nor our time.

use crate::{
    Tampered,
    aead::AeadKey,
    bundle::Bundle,
    derive, random,
    secret::Secret,
    sign::{Signer, verify},
};
use mainstay_domain::{Failure, Kind, RepositoryId, Time};
use minicbor::{Decode, Encode};
use std::fmt;
use zeroize::Zeroizing;

const MAGIC: &[u8; 8] = b"MSTYKEY1";
const CONTEXT: &[u8] = b"mainstay v1 recipient\0";
const SIGNATURE: usize = 64;

/// The largest recipient that is parsed, in bytes. One has about 500.
const MAX_BYTES: usize = 64 << 10;
/// The longest label, in bytes.
const MAX_LABEL_BYTES: usize = 200;

/// What a passphrase costs to try: RFC 9106's second recommendation (64 MiB, 3 passes), on one lane.
const MEMORY_KIB: u32 = 64 << 10;
const ITERATIONS: u32 = 3;
const LANES: u32 = 1;
/// What other writers may have chosen, at most.
const MAX_MEMORY_KIB: u32 = 256 << 10;
const MAX_ITERATIONS: u32 = 16;
const MAX_LANES: u32 = 8;

/// What kind of secret unwraps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum RecipientKind {
    #[n(0)]
    Key,
    #[n(1)]
    Passphrase,
    #[n(2)]
    PublicKey,
    #[n(3)]
    Kms,
}

impl fmt::Display for RecipientKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            RecipientKind::Key => "key",
            RecipientKind::Passphrase => "passphrase",
            RecipientKind::PublicKey => "public key",
            RecipientKind::Kms => "KMS",
        })
    }
}

/// argon2id's parameters (RFC 9106).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
struct Derivation {
    #[cbor(n(0), with = "minicbor::bytes")]
    salt: [u8; 16],
    #[n(1)]
    memory_kib: u32,
    #[n(2)]
    iterations: u32,
    #[n(3)]
    lanes: u32,
}

/// One recipient, as it lies in the store.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Recipient {
    #[n(0)]
    repository: RepositoryId,
    #[n(1)]
    epoch: u32,
    #[cbor(n(2), with = "minicbor::bytes")]
    id: [u8; 16],
    #[n(3)]
    label: String,
    #[n(4)]
    kind: RecipientKind,
    #[n(5)]
    derivation: Option<Derivation>,
    #[cbor(n(6), with = "minicbor::bytes")]
    nonce: [u8; 12],
    #[cbor(n(7), with = "minicbor::bytes")]
    wrapped: Vec<u8>,
    #[n(8)]
    created: Time,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecipientError {
    #[error("this recipient is damaged: {0}")]
    Damaged(&'static str),
    #[error("this recipient was not signed by the repository's root key")]
    Unsigned,
    #[error("another key wrapped this")]
    WrongKey,
    #[error("{0:?} is no label for a key (one line of at most {MAX_LABEL_BYTES} bytes)")]
    BadLabel(String),
}

impl From<Tampered> for RecipientError {
    fn from(_: Tampered) -> Self {
        RecipientError::WrongKey
    }
}

impl From<RecipientError> for Failure {
    fn from(error: RecipientError) -> Failure {
        let (kind, hint) = match error {
            RecipientError::Damaged(_) | RecipientError::Unsigned => {
                (Kind::Verification, "The recovery kit holds a copy of each recipient.")
            }
            RecipientError::WrongKey => (
                Kind::WrongKey,
                "Check which key the configuration names; `mainstay key list` shows whose keys fit.",
            ),
            RecipientError::BadLabel(_) => {
                (Kind::Usage, "Name the holder of the key, such as `ops team 2026`.")
            }
        };
        Failure::new(kind, error.to_string()).hint(hint)
    }
}

/// What must be different for each recipient.
struct Fresh {
    id: [u8; 16],
    nonce: [u8; 12],
    salt: [u8; 16],
}

/// Wraps a bundle for whoever has `secret`. Returns the object's name and bytes.
///
/// For a passphrase this takes a tenth of a second or more, and 64 MiB of memory.
pub fn wrap(
    bundle: &Bundle,
    secret: &Secret,
    repository: RepositoryId,
    label: &str,
    now: Time,
    root: &Signer,
) -> Result<(String, Vec<u8>), RecipientError> {
    let fresh = Fresh { id: random(), nonce: random(), salt: random() };
    wrap_with(bundle, secret, repository, label, now, root, fresh)
}

fn wrap_with(
    bundle: &Bundle,
    secret: &Secret,
    repository: RepositoryId,
    label: &str,
    now: Time,
    root: &Signer,
    fresh: Fresh,
) -> Result<(String, Vec<u8>), RecipientError> {
    if label.len() > MAX_LABEL_BYTES || label.chars().any(char::is_control) {
        return Err(RecipientError::BadLabel(label.to_owned()));
    }
    let (kind, derivation) = match secret {
        Secret::Key(_) => (RecipientKind::Key, None),
        Secret::Passphrase(_) => {
            let costs = (MEMORY_KIB, ITERATIONS, LANES);
            (RecipientKind::Passphrase, Some(Derivation::new(fresh.salt, costs)))
        }
    };
    let mut recipient = Recipient {
        repository,
        epoch: bundle.epoch,
        id: fresh.id,
        label: label.to_owned(),
        kind,
        derivation,
        nonce: fresh.nonce,
        wrapped: Vec::new(),
        created: now,
    };
    let kek = recipient.wrapping_key(secret)?;
    // Room for the whole and the tag, so that no plain copy is left where a smaller vector was.
    let mut wrapped = Vec::with_capacity(512);
    minicbor::encode(bundle, &mut wrapped).expect("writing to a Vec cannot fail");
    kek.seal(recipient.nonce, &recipient.aad(), &mut wrapped, 0);
    recipient.wrapped = wrapped;
    Ok((recipient.name(), recipient.encode(root)))
}

/// Parses a recipient and checks its signature. `root` is the repository's root verify key.
pub fn parse(bytes: &[u8], root: &[u8; 32]) -> Result<Recipient, RecipientError> {
    if bytes.len() < 12 + SIGNATURE || &bytes[..8] != MAGIC {
        return Err(RecipientError::Damaged("it does not begin as one"));
    }
    if bytes.len() > MAX_BYTES {
        return Err(RecipientError::Damaged("it is too large"));
    }
    let (message, signature) = bytes.split_at(bytes.len() - SIGNATURE);
    if message.len() - 12 != u32::from_be_bytes(message[8..12].try_into().expect("four bytes")) as usize {
        return Err(RecipientError::Damaged("its length is not what it says"));
    }
    let signature = signature.try_into().expect("64 bytes");
    verify(root, &[CONTEXT, message].concat(), &signature).map_err(|_| RecipientError::Unsigned)?;
    let mut decoder = minicbor::Decoder::new(&message[12..]);
    let recipient: Recipient =
        decoder.decode().map_err(|_| RecipientError::Damaged("it cannot be parsed"))?;
    if decoder.position() != message.len() - 12 {
        return Err(RecipientError::Damaged("something follows it"));
    }
    if recipient.repository.0 != *blake3::hash(root).as_bytes() {
        return Err(RecipientError::Damaged("it belongs to another repository"));
    }
    Ok(recipient)
}

impl Recipient {
    /// The object's name.
    pub fn name(&self) -> String {
        format!("keys/{:010}/{}", self.epoch, hex::encode(self.id))
    }
    pub fn epoch(&self) -> u32 {
        self.epoch
    }
    pub fn id(&self) -> String {
        hex::encode(self.id)
    }
    pub fn label(&self) -> &str {
        &self.label
    }
    pub fn kind(&self) -> RecipientKind {
        self.kind
    }
    pub fn created(&self) -> Time {
        self.created
    }

    /// The bundle, if `secret` is the one that it was wrapped for; else `WrongKey`.
    pub fn unwrap_with(&self, secret: &Secret) -> Result<Bundle, RecipientError> {
        let key = self.wrapping_key(secret)?;
        let mut wrapped = Zeroizing::new(self.wrapped.clone());
        let plain = key.open(self.nonce, &self.aad(), &mut wrapped)?;
        let bundle: Bundle =
            minicbor::decode(plain).map_err(|_| RecipientError::Damaged("its bundle cannot be parsed"))?;
        if bundle.epoch != self.epoch {
            return Err(RecipientError::Damaged("its bundle belongs to another epoch"));
        }
        Ok(bundle)
    }

    fn wrapping_key(&self, secret: &Secret) -> Result<AeadKey, RecipientError> {
        let mut material = Zeroizing::new([0; 48]);
        match (secret, self.kind, &self.derivation) {
            (Secret::Key(key), RecipientKind::Key, None) => material[..32].copy_from_slice(key),
            (Secret::Passphrase(text), RecipientKind::Passphrase, Some(derivation)) => {
                derivation.derive(text, &mut material[..32])?;
            }
            _ => return Err(RecipientError::WrongKey),
        }
        material[32..].copy_from_slice(&self.id);
        Ok(AeadKey::new(&Zeroizing::new(derive("mainstay v1 recipient", &*material))))
    }

    fn aad(&self) -> Vec<u8> {
        let kind = match self.kind {
            RecipientKind::Key => 0u8,
            RecipientKind::Passphrase => 1,
            RecipientKind::PublicKey => 2,
            RecipientKind::Kms => 3,
        };
        [&self.repository.0[..], &self.epoch.to_be_bytes(), &self.id, &[kind]].concat()
    }

    fn encode(&self, root: &Signer) -> Vec<u8> {
        let body = minicbor::to_vec(self).expect("writing to a Vec cannot fail");
        let mut out = [&MAGIC[..], &(body.len() as u32).to_be_bytes(), &body].concat();
        let signature = root.sign(&[CONTEXT, &out].concat());
        out.extend_from_slice(&signature);
        out
    }
}

impl Derivation {
    fn new(salt: [u8; 16], (memory_kib, iterations, lanes): (u32, u32, u32)) -> Derivation {
        Derivation { salt, memory_kib, iterations, lanes }
    }

    fn derive(&self, passphrase: &[u8], out: &mut [u8]) -> Result<(), RecipientError> {
        let bounds = [
            (self.memory_kib, 8, MAX_MEMORY_KIB),
            (self.iterations, 1, MAX_ITERATIONS),
            (self.lanes, 1, MAX_LANES),
        ];
        if bounds.iter().any(|(value, least, most)| !(least..=most).contains(&value)) {
            return Err(RecipientError::Damaged("its argon2 parameters are out of bounds"));
        }
        let invalid = |_| RecipientError::Damaged("its argon2 parameters are invalid");
        let parameters = argon2::Params::new(self.memory_kib, self.iterations, self.lanes, Some(out.len()));
        argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, parameters.map_err(invalid)?)
            .hash_password_into(passphrase, &self.salt, out)
            .map_err(invalid)
    }
}

#[cfg(test)]
mod tests;
