//! AES-256-GCM (NIST SP 800-38D) with 96-bit nonces that the caller keeps unique under each key.

use crate::Tampered;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

/// A key that seals and opens. Its bytes cannot be read back.
pub struct AeadKey(LessSafeKey);

impl std::fmt::Debug for AeadKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AeadKey(…)")
    }
}

impl AeadKey {
    pub fn new(key: &[u8; 32]) -> AeadKey {
        AeadKey(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("the key has 32 bytes")))
    }

    /// Encrypts `in_out[from..]` in place and appends the 16-byte tag.
    pub fn seal(&self, nonce: [u8; 12], aad: &[u8], in_out: &mut Vec<u8>, from: usize) {
        let tag = self
            .0
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(aad),
                &mut in_out[from..],
            )
            .expect("less than 64 GiB is sealed at once");
        in_out.extend_from_slice(tag.as_ref());
    }

    /// Decrypts in place and returns the plaintext; `in_out` ends with the tag.
    pub fn open<'a>(
        &self,
        nonce: [u8; 12],
        aad: &[u8],
        in_out: &'a mut [u8],
    ) -> Result<&'a mut [u8], Tampered> {
        self.0
            .open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(aad), in_out)
            .map_err(|_| Tampered)
    }
}
