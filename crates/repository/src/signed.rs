//! Root-signed objects: `magic ‖ u32 length ‖ CBOR ‖ signature`.

use crate::error::{RepositoryError, Result};
use mainstay_keys::sign::{self, Signer};

const SIGNATURE: usize = 64;

pub fn encode(magic: &[u8; 8], context: &str, body: &[u8], root: &Signer) -> Vec<u8> {
    let mut out = Vec::with_capacity(12 + body.len() + SIGNATURE);
    out.extend_from_slice(magic);
    out.extend_from_slice(&(body.len() as u32).to_be_bytes());
    out.extend_from_slice(body);
    let signature = root.sign(&[context.as_bytes(), &out].concat());
    out.extend_from_slice(&signature);
    out
}

/// The CBOR, not yet verified.
pub fn body<'b>(bytes: &'b [u8], magic: &[u8; 8], what: &str) -> Result<&'b [u8]> {
    if bytes.len() >= 8 && bytes[..7] == magic[..7] && bytes[7] != magic[7] {
        return Err(RepositoryError::Newer {
            what: what.into(),
            version: bytes[7].wrapping_sub(b'0').into(),
        });
    }
    if bytes.len() < 12 + SIGNATURE || &bytes[..8] != magic {
        return Err(RepositoryError::damaged(what, "it does not begin as such an object"));
    }
    let length = u32::from_be_bytes(bytes[8..12].try_into().expect("four bytes")) as usize;
    if bytes.len() != 12 + length + SIGNATURE {
        return Err(RepositoryError::damaged(what, "its length is not what it says"));
    }
    Ok(&bytes[12..12 + length])
}

pub fn verify(bytes: &[u8], context: &str, root: &[u8; 32], what: &str) -> Result<()> {
    let (message, signature) = bytes.split_at(bytes.len() - SIGNATURE);
    let signature: [u8; 64] = signature.try_into().expect("64 bytes");
    sign::verify(root, &[context.as_bytes(), message].concat(), &signature)
        .map_err(|_| RepositoryError::damaged(what, "its signature is broken"))
}
