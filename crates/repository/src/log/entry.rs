//! One entry as it lies in the store (`doc/format.md` §5, `doc/consistency.md`).
//!
//! `MSTYLOG1` ‖ u32 length ‖ body ‖ u32 length ‖ sealed section ‖ signer (16) ‖ signature (64). The body is in the clear: every host
//! must be able to follow the protocol. The sealed section is `u32 epoch ‖ encapsulated key ‖ ciphertext` to the epoch's
//! index key, with the body as authenticated data.

use super::{doubt::Doubt, event::Event};
use mainstay_domain::{EpochId, HostId, Incarnation, RepositoryId, Time};
use mainstay_keys::{
    hpke,
    sign::{self, Signer},
};
use minicbor::{Decode, Encode};

const MAGIC: &[u8; 8] = b"MSTYLOG1";
const CONTEXT: &[u8] = b"mainstay v1 log\0";
const INFO: &[u8] = b"mainstay v1 log";
const TAIL: usize = 16 + 64;

pub const PREFIX: &str = "log/";

/// The name of entry `n`.
pub fn object_name(n: u64) -> String {
    format!("{PREFIX}{n:020}")
}

/// The n of an object that is named as an entry.
pub fn parse_object_name(name: &str) -> Option<u64> {
    let n = name.strip_prefix(PREFIX)?.parse().ok()?;
    (object_name(n) == name).then_some(n)
}

/// BLAKE3 of an entry's bytes: what the next one names as its previous.
pub type EntryHash = [u8; 32];

pub fn hash(bytes: &[u8]) -> EntryHash {
    *blake3::hash(bytes).as_bytes()
}

/// The clear part.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Body {
    #[n(0)]
    pub repository: RepositoryId,
    #[n(1)]
    pub incarnation: Incarnation,
    #[n(2)]
    pub n: u64,
    #[cbor(n(3), with = "minicbor::bytes")]
    pub previous: EntryHash,
    #[n(4)]
    pub time: Time,
    #[n(5)]
    pub event: Event,
    /// n of the last checkpoint before this entry.
    #[n(6)]
    pub last_checkpoint: Option<u64>,
}

/// Encodes, seals and signs. `index_public` is that of `epoch`.
pub fn encode(body: &Body, epoch: EpochId, index_public: &[u8; 32], signer: &Signer) -> Vec<u8> {
    let clear = minicbor::to_vec(body).expect("writing to a Vec cannot fail");
    let sealed = body.event.sealed_part().map_or(Vec::new(), |plain| {
        let sealed = hpke::seal(index_public, INFO, &clear, &plain);
        [&epoch.0.to_be_bytes()[..], &sealed.enc, &sealed.ciphertext].concat()
    });
    let mut out = Vec::with_capacity(16 + clear.len() + sealed.len() + TAIL);
    out.extend_from_slice(MAGIC);
    for part in [&clear, &sealed] {
        out.extend_from_slice(&(part.len() as u32).to_be_bytes());
        out.extend_from_slice(part);
    }
    let signature = signer.sign(&[CONTEXT, &out].concat());
    out.extend_from_slice(&signer.host().0);
    out.extend_from_slice(&signature);
    out
}

/// An entry that was parsed; its signature is not yet checked.
pub struct Parsed<'b> {
    pub body: Body,
    pub signer: HostId,
    clear: &'b [u8],
    sealed: &'b [u8],
    message: &'b [u8],
    signature: [u8; 64],
}

pub fn parse(bytes: &[u8]) -> Result<Parsed<'_>, Doubt> {
    let (message, tail) =
        bytes.split_at_checked(bytes.len().wrapping_sub(TAIL)).ok_or(Doubt::Malformed("it is too short"))?;
    let rest = message.strip_prefix(MAGIC).ok_or(Doubt::Malformed("it does not begin as an entry"))?;
    let (clear, rest) = part(rest)?;
    let (sealed, rest) = part(rest)?;
    if !rest.is_empty() {
        return Err(Doubt::Malformed("its length is not what it says"));
    }
    Ok(Parsed {
        body: minicbor::decode(clear).map_err(|_| Doubt::Malformed("it cannot be parsed"))?,
        signer: HostId(tail[..16].try_into().expect("16 bytes")),
        clear,
        sealed,
        message,
        signature: tail[16..].try_into().expect("64 bytes"),
    })
}

fn part(bytes: &[u8]) -> Result<(&[u8], &[u8]), Doubt> {
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or(Doubt::Malformed("it is cut short"))?;
    rest.split_at_checked(u32::from_be_bytes(*length) as usize).ok_or(Doubt::Malformed("it is cut short"))
}

impl Parsed<'_> {
    pub fn verify(&self, key: &[u8; 32]) -> Result<(), Doubt> {
        let signed = [CONTEXT, self.message].concat();
        sign::verify(key, &signed, &self.signature).map_err(|_| Doubt::BadSignature(self.signer))
    }

    /// Puts the sealed part into the event, if `private` has the key of its epoch. A seal that is broken is no doubt about
    /// what the protocol needs: the signature holds, and the part stays unknown.
    pub fn unseal(&mut self, private: impl Fn(EpochId) -> Option<[u8; 32]>) -> Seal {
        if self.sealed.is_empty() {
            return Seal::Absent;
        }
        let Some((epoch, rest)) = self.sealed.split_first_chunk::<4>() else { return Seal::Broken };
        let Some((enc, ciphertext)) = rest.split_first_chunk::<32>() else { return Seal::Broken };
        let Some(key) = private(EpochId(u32::from_be_bytes(*epoch))) else { return Seal::NoKey };
        let Ok(plain) = hpke::open(&key, enc, INFO, self.clear, ciphertext) else { return Seal::Broken };
        match self.body.event.set_sealed_part(&plain) {
            Ok(()) => Seal::Opened,
            Err(_) => Seal::Broken,
        }
    }
}

/// What became of an entry's sealed section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seal {
    Absent,
    NoKey,
    Opened,
    Broken,
}
