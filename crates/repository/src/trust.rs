//! Who may write what: the root-signed list of hosts (`doc/format.md` §3).

use crate::{
    envelope::Signers,
    error::{RepositoryError, Result},
    signed,
};
use mainstay_domain::{DomainId, HostId, RepositoryId, Time};
use mainstay_keys::sign::{self, Signer};
use minicbor::{Decode, Encode};

const MAGIC: &[u8; 8] = b"MSTYTRS1";
const CONTEXT: &str = "mainstay v1 trust\0";

/// What a host may do. Bits, as they are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Roles(#[n(0)] pub u32);

impl Roles {
    pub const BACKUP: Roles = Roles(1);
    pub const VERIFY: Roles = Roles(2);
    pub const PRUNE: Roles = Roles(4);
    pub const ADMIN: Roles = Roles(8);
    pub const ALL: Roles = Roles(15);

    pub fn contains(self, other: Roles) -> bool {
        self.0 & other.0 == other.0
    }

    pub fn overlaps(self, other: Roles) -> bool {
        self.0 & other.0 != 0
    }

    pub const fn and(self, other: Roles) -> Roles {
        Roles(self.0 | other.0)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct TrustedHost {
    #[cbor(n(0), with = "minicbor::bytes")]
    pub verify_key: [u8; 32],
    #[n(1)]
    pub name: String,
    #[n(2)]
    pub roles: Roles,
    /// For write-only hosts: their own dedup domain.
    #[n(4)]
    pub domain: Option<DomainId>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Trust {
    #[n(0)]
    repository: RepositoryId,
    #[n(1)]
    pub version: u32,
    #[n(2)]
    pub time: Time,
    #[n(3)]
    pub hosts: Vec<TrustedHost>,
}

pub fn object_name(version: u32) -> String {
    format!("trust/{version:010}")
}

impl Trust {
    pub fn first(repository: RepositoryId, time: Time, host: TrustedHost) -> Trust {
        Trust { repository, version: 1, time, hosts: vec![host] }
    }

    /// Nobody but the holders of the repository key: what is believed where the list itself is lost.
    pub fn of_holders(
        repository: RepositoryId,
        time: Time,
        keys: impl IntoIterator<Item = [u8; 32]>,
    ) -> Trust {
        let host = |verify_key| TrustedHost {
            verify_key,
            name: "holders of the repository key".into(),
            roles: Roles::ALL,
            domain: None,
        };
        Trust { repository, version: 0, time, hosts: keys.into_iter().map(host).collect() }
    }

    pub fn encode(&self, root: &Signer) -> Vec<u8> {
        signed::encode(MAGIC, CONTEXT, &minicbor::to_vec(self).expect("writing to a Vec cannot fail"), root)
    }

    pub fn decode(bytes: &[u8], root: &[u8; 32], repository: &RepositoryId, version: u32) -> Result<Trust> {
        let what = object_name(version);
        let body = signed::body(bytes, MAGIC, &what)?;
        signed::verify(bytes, CONTEXT, root, &what)?;
        let trust: Trust =
            minicbor::decode(body).map_err(|_| RepositoryError::damaged(&what, "it cannot be parsed"))?;
        if trust.repository != *repository || trust.version != version {
            return Err(RepositoryError::damaged(&what, "it was written for another place"));
        }
        Ok(trust)
    }

    pub fn host(&self, id: &HostId) -> Option<&TrustedHost> {
        self.hosts.iter().find(|host| sign::host_of(&host.verify_key) == *id)
    }

    pub fn may(&self, id: &HostId, roles: Roles) -> bool {
        self.host(id).is_some_and(|host| host.roles.contains(roles))
    }
}

impl Signers for Trust {
    fn verify_key(&self, host: &HostId, roles: Roles) -> Option<[u8; 32]> {
        self.host(host).filter(|h| h.roles.overlaps(roles)).map(|h| h.verify_key)
    }
}
