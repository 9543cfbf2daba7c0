//! Signatures: Ed25519 (RFC 8032).

use crate::Tampered;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use mainstay_domain::HostId;

/// A signing key.
pub struct Signer(Ed25519KeyPair);

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signer({})", self.host().short())
    }
}

impl Signer {
    pub fn from_seed(seed: &[u8; 32]) -> Signer {
        Signer(Ed25519KeyPair::from_seed_unchecked(seed).expect("any 32 bytes are an Ed25519 seed"))
    }

    pub fn verify_key(&self) -> [u8; 32] {
        self.0.public_key().as_ref().try_into().expect("an Ed25519 verify key has 32 bytes")
    }

    pub fn host(&self) -> HostId {
        host_of(&self.verify_key())
    }

    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).as_ref().try_into().expect("an Ed25519 signature has 64 bytes")
    }
}

/// The id of whoever signs with this key: the first 16 bytes of BLAKE3-256 of the verify key.
pub fn host_of(verify_key: &[u8; 32]) -> HostId {
    HostId(blake3::hash(verify_key).as_bytes()[..16].try_into().expect("16 bytes"))
}

pub fn verify(verify_key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> Result<(), Tampered> {
    UnparsedPublicKey::new(&ED25519, verify_key).verify(message, signature).map_err(|_| Tampered)
}
