//! The `format` object: what a repository is, said once and never changed (`doc/format.md` §2).

use crate::{
    error::{RepositoryError, Result},
    signed,
    stream::Chunking,
};
use mainstay_domain::{RepositoryId, Time};
use mainstay_keys::sign::Signer;
use minicbor::{Decode, Encode};

pub const NAME: &str = "format";
const MAGIC: &[u8; 8] = b"MSTYFMT1";
const CONTEXT: &str = "mainstay v1 format\0";
const VERSION: u32 = 1;
const SUITE: u16 = 1;
/// Incompatible and read-only feature bits that this version knows: none yet.
const KNOWN_INCOMPATIBLE: u64 = 0;
const KNOWN_READ_ONLY: u64 = 0;

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Format {
    #[n(0)]
    version: u32,
    #[n(1)]
    suite: u16,
    #[cbor(n(2), with = "minicbor::bytes")]
    root: [u8; 32],
    #[n(3)]
    pub created: Time,
    #[n(4)]
    incompatible: u64,
    #[n(5)]
    read_only: u64,
    #[n(6)]
    ignorable: u64,
    #[n(7)]
    chunking: [u32; 3],
}

impl Format {
    pub fn new(root: [u8; 32], created: Time, chunking: Chunking) -> Format {
        let Chunking { minimum, average, maximum } = chunking;
        Format {
            version: VERSION,
            suite: SUITE,
            root,
            created,
            incompatible: 0,
            read_only: 0,
            ignorable: 0,
            chunking: [minimum as u32, average as u32, maximum as u32],
        }
    }

    pub fn root(&self) -> &[u8; 32] {
        &self.root
    }

    pub fn repository(&self) -> RepositoryId {
        repository_id(&self.root)
    }

    pub fn chunking(&self) -> Chunking {
        let [minimum, average, maximum] = self.chunking.map(|n| n as usize);
        Chunking { minimum, average, maximum }
    }

    /// A writer of this version would break something that it does not know of.
    pub fn is_read_only(&self) -> bool {
        self.read_only & !KNOWN_READ_ONLY != 0
    }

    pub fn encode(&self, root: &Signer) -> Vec<u8> {
        signed::encode(MAGIC, CONTEXT, &minicbor::to_vec(self).expect("writing to a Vec cannot fail"), root)
    }

    /// Parses and checks. The signature proves that whoever made it held the root key that it names; whether that is *your*
    /// root key is for the caller to compare with the fingerprint it knows.
    pub fn decode(bytes: &[u8]) -> Result<Format> {
        let body = signed::body(bytes, MAGIC, NAME)?;
        let format: Format = minicbor::decode(body).map_err(|_| match version_of(body) {
            Some(version) if version != u64::from(VERSION) => {
                RepositoryError::Newer { what: NAME.into(), version }
            }
            _ => RepositoryError::damaged(NAME, "it cannot be parsed"),
        })?;
        if format.version != VERSION || format.suite != SUITE {
            return Err(RepositoryError::Newer { what: NAME.into(), version: format.version.into() });
        }
        signed::verify(bytes, CONTEXT, &format.root, NAME)?;
        if format.incompatible & !KNOWN_INCOMPATIBLE != 0 {
            return Err(RepositoryError::Newer { what: NAME.into(), version: format.version.into() });
        }
        if !format.chunking().is_sane() {
            return Err(RepositoryError::damaged(NAME, "its chunk sizes are out of bounds"));
        }
        Ok(format)
    }
}

pub fn repository_id(root: &[u8; 32]) -> RepositoryId {
    RepositoryId(*blake3::hash(root).as_bytes())
}

fn version_of(body: &[u8]) -> Option<u64> {
    let mut decoder = minicbor::Decoder::new(body);
    let entries = decoder.map().ok()??;
    for _ in 0..entries {
        if decoder.u64().ok()? == 0 {
            return decoder.u64().ok();
        }
        decoder.skip().ok()?;
    }
    None
}
