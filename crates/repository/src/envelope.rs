//! Sealed and signed objects: the common shape of index segments, manifests and proofs.
//!
//! `magic ‖ u16 suite ‖ u16 0 ‖ u32 epoch ‖ repository (32) ‖ context (16)` is the clear header (64 bytes) and the authenticated
//! data of every sealed section; then the sections; then the signer and its signature over all of it.

use crate::{
    error::{RepositoryError, Result},
    trust::Roles,
};
use mainstay_domain::{EpochId, HostId, RepositoryId};
use mainstay_keys::{
    hpke,
    sign::{self, Signer},
};

pub const HEADER: usize = 64;
const SUITE: u16 = 1;
const SIGNATURE: usize = 16 + 64;

/// The fixed words of one kind of object.
pub struct Envelope {
    pub magic: &'static [u8; 8],
    pub info: &'static [u8],
    pub signature: &'static str,
    /// The signature is over the hash of the bytes.
    pub hashed: bool,
    /// Of these roles a host needs one to write such an object.
    pub signers: Roles,
}

/// Whoever seals: needs public keys and its own signing key only.
pub struct Writer {
    pub repository: RepositoryId,
    pub epoch: EpochId,
    pub data_public: [u8; 32],
    pub index_public: [u8; 32],
    pub signer: Signer,
}

/// Whoever opens: the private keys it has, and whom it believes.
pub struct Unsealer<'a> {
    pub repository: RepositoryId,
    pub keys: &'a dyn PrivateKeys,
    pub signers: &'a dyn Signers,
}

pub trait PrivateKeys: Sync {
    fn data_private(&self, epoch: EpochId) -> Option<&[u8; 32]>;
    fn index_private(&self, epoch: EpochId) -> Option<&[u8; 32]>;
}

/// The verify keys of those who may write objects into this repository.
pub trait Signers: Sync {
    /// `None` if the host is not known, or has none of the roles.
    fn verify_key(&self, host: &HostId, roles: Roles) -> Option<[u8; 32]>;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyRole {
    Data,
    Index,
}

impl Envelope {
    pub fn header(&self, context: &[u8; 16], writer: &Writer) -> Vec<u8> {
        let mut out = Vec::with_capacity(1024);
        out.extend_from_slice(self.magic);
        out.extend_from_slice(&SUITE.to_be_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&writer.epoch.0.to_be_bytes());
        out.extend_from_slice(&writer.repository.0);
        out.extend_from_slice(context);
        out
    }

    /// Appends a section sealed to the epoch's public key of that role.
    pub fn seal_section(&self, out: &mut Vec<u8>, role: KeyRole, info: &[u8], plain: &[u8], writer: &Writer) {
        let public = match role {
            KeyRole::Data => &writer.data_public,
            KeyRole::Index => &writer.index_public,
        };
        let sealed = hpke::seal(public, info, &out[..HEADER], plain);
        out.extend_from_slice(&sealed.enc);
        out.extend_from_slice(&(sealed.ciphertext.len() as u32).to_be_bytes());
        out.extend_from_slice(&sealed.ciphertext);
    }

    pub fn sign(&self, out: &mut Vec<u8>, signer: &Signer) {
        let signature = signer.sign(&self.signed(out));
        out.extend_from_slice(&signer.host().0);
        out.extend_from_slice(&signature);
    }

    /// What a signature is over: the bytes, or of large objects their hash.
    fn signed(&self, message: &[u8]) -> Vec<u8> {
        match self.hashed {
            true => [self.signature.as_bytes(), blake3::hash(message).as_bytes()].concat(),
            false => [self.signature.as_bytes(), message].concat(),
        }
    }

    pub fn seal_to_index(&self, context: &[u8; 16], plain: &[u8], writer: &Writer) -> Vec<u8> {
        let mut out = self.header(context, writer);
        self.seal_section(&mut out, KeyRole::Index, self.info, plain, writer);
        self.sign(&mut out, &writer.signer);
        out
    }

    pub fn open_from_index(&self, bytes: &[u8], reader: &Unsealer<'_>, what: &str) -> Result<Vec<u8>> {
        let verified = self.verify(bytes, reader, what)?;
        let (plain, _) = verified.section(HEADER, KeyRole::Index, self.info, reader)?;
        Ok(plain)
    }

    /// Opens the first section of an object of which only the beginning was read. Its signature is not looked at: what this
    /// says is for showing and for comparing, not for restoring.
    pub fn section_of_head(
        &self,
        head: &[u8],
        what: &str,
        role: KeyRole,
        reader: &Unsealer<'_>,
    ) -> Result<(Vec<u8>, usize)> {
        if head.len() < HEADER || &head[..8] != self.magic || head[16..48] != reader.repository.0 {
            return Err(RepositoryError::damaged(what, "it does not begin as such an object"));
        }
        Verified { message: head, what, signer: HostId([0; 16]) }.section(HEADER, role, self.info, reader)
    }

    /// Checks header, signature and the signer's role. Nothing in an object is looked at before that.
    pub fn verify<'b>(&self, bytes: &'b [u8], reader: &Unsealer<'_>, what: &'b str) -> Result<Verified<'b>> {
        if bytes.len() < HEADER + SIGNATURE || &bytes[..8] != self.magic {
            return Err(RepositoryError::damaged(what, "it does not begin as such an object"));
        }
        let suite = u16::from_be_bytes([bytes[8], bytes[9]]);
        if suite != SUITE {
            return Err(RepositoryError::Newer { what: what.into(), version: suite.into() });
        }
        if bytes[16..48] != reader.repository.0 {
            return Err(RepositoryError::damaged(what, "it belongs to another repository"));
        }
        let (message, tail) = bytes.split_at(bytes.len() - SIGNATURE);
        let host = HostId(tail[..16].try_into().expect("16 bytes"));
        let signature: [u8; 64] = tail[16..].try_into().expect("64 bytes");
        let untrusted = || RepositoryError::Untrusted { what: what.into() };
        let key = reader.signers.verify_key(&host, self.signers).ok_or_else(untrusted)?;
        sign::verify(&key, &self.signed(message), &signature)
            .map_err(|_| RepositoryError::damaged(what, "its signature is broken"))?;
        Ok(Verified { message, what, signer: host })
    }
}

/// An object whose signature holds.
pub struct Verified<'b> {
    message: &'b [u8],
    what: &'b str,
    pub signer: HostId,
}

impl Verified<'_> {
    pub fn epoch(&self) -> EpochId {
        EpochId(u32::from_be_bytes(self.message[12..16].try_into().expect("four bytes")))
    }

    pub fn context(&self) -> [u8; 16] {
        self.message[48..64].try_into().expect("16 bytes")
    }

    /// Opens the section that begins at `at`; also returns where the next one begins.
    pub fn section(
        &self,
        at: usize,
        role: KeyRole,
        info: &[u8],
        reader: &Unsealer<'_>,
    ) -> Result<(Vec<u8>, usize)> {
        let damaged = |why| RepositoryError::damaged(self.what, why);
        let end = self.section_end(at)?;
        let enc: [u8; 32] = self.message[at..at + 32].try_into().expect("32 bytes");
        let private = match role {
            KeyRole::Data => reader.keys.data_private(self.epoch()),
            KeyRole::Index => reader.keys.index_private(self.epoch()),
        };
        let private = private.ok_or(RepositoryError::WrongKey)?;
        let plain = hpke::open(private, &enc, info, &self.message[..HEADER], &self.message[at + 36..end])
            .map_err(|_| damaged("its seal is broken"))?;
        Ok((plain, end))
    }

    /// Where the section that begins at `at` ends.
    pub fn section_end(&self, at: usize) -> Result<usize> {
        let damaged = || RepositoryError::damaged(self.what, "it is cut short");
        let length = self.message.get(at + 32..at + 36).ok_or_else(damaged)?;
        let end = at + 36 + u32::from_be_bytes(length.try_into().expect("four bytes")) as usize;
        if end > self.message.len() { Err(damaged()) } else { Ok(end) }
    }
}
