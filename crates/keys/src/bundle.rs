//! The bundle: all the keys of one epoch, as a recipient unwraps them (`doc/format.md` §4).

use crate::{derive, hpke, random, sign::Signer};
use mainstay_domain::DomainId;
use minicbor::{Decode, Encode};
use zeroize::{Zeroize, ZeroizeOnDrop};

#[derive(Clone, PartialEq, Eq, Encode, Decode, Zeroize, ZeroizeOnDrop)]
#[cbor(map)]
pub struct Bundle {
    #[n(0)]
    pub epoch: u32,
    #[cbor(n(1), with = "minicbor::bytes")]
    pub data_private: [u8; 32],
    #[cbor(n(2), with = "minicbor::bytes")]
    pub index_private: [u8; 32],
    #[cbor(n(3), with = "minicbor::bytes")]
    pub domain_secret: [u8; 32],
    #[cbor(n(4), with = "minicbor::bytes")]
    pub signer_seed: [u8; 32],
    /// Absent where the root key is kept offline.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub root_seed: Option<[u8; 32]>,
}

impl std::fmt::Debug for Bundle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bundle(epoch {})", self.epoch)
    }
}

impl Bundle {
    pub fn generate(epoch: u32) -> Bundle {
        Bundle {
            epoch,
            data_private: *hpke::generate().0,
            index_private: *hpke::generate().0,
            domain_secret: random(),
            signer_seed: random(),
            root_seed: Some(random()),
        }
    }

    pub fn data_public(&self) -> [u8; 32] {
        hpke::public_of(&self.data_private)
    }

    pub fn index_public(&self) -> [u8; 32] {
        hpke::public_of(&self.index_private)
    }

    pub fn signer(&self) -> Signer {
        Signer::from_seed(&self.signer_seed)
    }

    pub fn root(&self) -> Option<Signer> {
        self.root_seed.as_ref().map(Signer::from_seed)
    }

    pub fn chunk_id_key(&self) -> [u8; 32] {
        derive("mainstay v1 chunk id", &self.domain_secret)
    }

    pub fn chunker_seed(&self) -> u64 {
        u64::from_be_bytes(self.derived("mainstay v1 chunker"))
    }

    pub fn row_key(&self) -> [u8; 16] {
        self.derived("mainstay v1 row digest")
    }

    pub fn page_key(&self) -> [u8; 32] {
        derive("mainstay v1 page hash", &self.domain_secret)
    }

    pub fn domain_id(&self) -> DomainId {
        DomainId(self.derived("mainstay v1 domain id"))
    }

    fn derived<const N: usize>(&self, context: &str) -> [u8; N] {
        derive(context, &self.domain_secret)[..N].try_into().expect("N is at most 32")
    }
}
