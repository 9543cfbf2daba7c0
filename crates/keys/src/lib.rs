//! Where keys come from, how they are wrapped, and the few primitives that everything sealed or signed is made with.

pub mod aead;
pub mod bundle;
pub mod hpke;
pub mod kit;
pub mod recipient;
pub mod secret;
pub mod sign;
pub mod source;

/// The bytes are not what was sealed or signed, or the key is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the seal or signature is broken")]
pub struct Tampered;

/// BLAKE3's key-derivation mode: a key for one purpose from secret material.
pub fn derive(context: &str, material: &[u8]) -> [u8; 32] {
    blake3::derive_key(context, material)
}

/// Random bytes from the operating system.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}
