//! Sealing to a public key: HPKE base mode (RFC 9180) with DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM.

use crate::Tampered;
use hpke::{
    Deserializable, Kem as _, OpModeR, OpModeS, Serializable, aead::AesGcm256, kdf::HkdfSha256,
    kem::X25519HkdfSha256, single_shot_open, single_shot_seal,
};
use rand_core::{OsRng, TryRngCore};
use zeroize::Zeroizing;

type Kem = X25519HkdfSha256;
type Public = <Kem as hpke::Kem>::PublicKey;
type Private = <Kem as hpke::Kem>::PrivateKey;

/// What [`seal`] makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The encapsulated key.
    pub enc: [u8; 32],
    /// As long as the plaintext and 16 bytes more.
    pub ciphertext: Vec<u8>,
}

pub fn seal(public: &[u8; 32], info: &[u8], aad: &[u8], plaintext: &[u8]) -> Sealed {
    let public = Public::from_bytes(public).expect("any 32 bytes are an X25519 public key");
    let (enc, ciphertext) = single_shot_seal::<AesGcm256, HkdfSha256, Kem, _>(
        &OpModeS::Base,
        &public,
        info,
        plaintext,
        aad,
        &mut OsRng.unwrap_err(),
    )
    .expect("sealing to a key that this system made cannot fail");
    Sealed { enc: enc.to_bytes().into(), ciphertext }
}

pub fn open(
    private: &[u8; 32],
    enc: &[u8; 32],
    info: &[u8],
    aad: &[u8],
    ciphertext: &[u8],
) -> Result<Vec<u8>, Tampered> {
    let private = Private::from_bytes(private).map_err(|_| Tampered)?;
    let enc = <Kem as hpke::Kem>::EncappedKey::from_bytes(enc).map_err(|_| Tampered)?;
    single_shot_open::<AesGcm256, HkdfSha256, Kem>(&OpModeR::Base, &private, &enc, info, ciphertext, aad)
        .map_err(|_| Tampered)
}

/// A new pair: private, public.
pub fn generate() -> (Zeroizing<[u8; 32]>, [u8; 32]) {
    let (private, public) = Kem::gen_keypair(&mut OsRng.unwrap_err());
    (Zeroizing::new(private.to_bytes().into()), public.to_bytes().into())
}

pub fn public_of(private: &[u8; 32]) -> [u8; 32] {
    let private = Private::from_bytes(private).expect("any 32 bytes are an X25519 private key");
    Kem::sk_to_pk(&private).to_bytes().into()
}
