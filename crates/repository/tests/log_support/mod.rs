//! Hosts with keys and roles, and events to write, for the tests of the log.

#![allow(clippy::unwrap_used, dead_code)]

use mainstay_domain::{
    Clock, EpochId, HostId, ObjectId, PackId, RepositoryId, Time,
    point::{Hold, Proof, ProofLevel, SourceSummary, State as PointState, Summary},
};
use mainstay_keys::{hpke, sign::Signer};
use mainstay_repository::log::{
    Event, Hint, Log, LogContext, Role, State, Trusted,
    entry::{self, Body},
    event::{Begin, Commit, Condemn, DropPoint, PlaceHold, Proved, Reason, ReleaseHold, Sweep},
};
use mainstay_stores::{MemoryStore, Store};
use std::{collections::BTreeMap, sync::Arc};

pub const APP: &str = "the-shop-that-nobody-may-know";

/// An id made of a small number.
pub trait Id {
    fn from_number(n: u16) -> Self;
}

macro_rules! numbered {
    ($($id:ident $length:literal),*) => {$(
        impl Id for mainstay_domain::$id {
            fn from_number(n: u16) -> Self {
                let mut bytes = [0; $length];
                bytes[..2].copy_from_slice(&n.to_be_bytes());
                mainstay_domain::$id(bytes)
            }
        }
    )*};
}
numbered!(SessionId 16, HoldId 16, Incarnation 16, PackId 32, ObjectId 32, PointId 32, RepositoryId 32);

pub fn id<T: Id>(n: u16) -> T {
    T::from_number(n)
}

pub fn begin(s: u16) -> Event {
    Event::Begin(Begin { session: id(s), wal_floor: None })
}

pub fn commit(s: u16, point: u16) -> Event {
    let (session, point_id) = (id(s), id(point));
    Event::Commit(Commit { session, point: point_id, index: vec![id(point)], summary: Some(summary(point)) })
}

pub fn drop_point(point: u16) -> Event {
    let reason = Reason { by: "alice".into(), why: "retention".into() };
    Event::Drop(DropPoint { point: id(point), reason: Some(reason) })
}

pub fn condemn(state: &State, pack: u16) -> Event {
    Event::Condemn(Condemn { tail: state.head, packs: vec![id(pack)], ..Condemn::default() })
}

pub fn sweep(state: &State, condemn: u64, pack: u16) -> Event {
    Event::Sweep(Sweep { tail: state.head, condemn, packs: vec![id(pack)], ..Sweep::default() })
}

pub fn hold(hold: u16, point: u16) -> Event {
    let text = Hold {
        kind: "legal".into(),
        reason: "case 12".into(),
        by: "alice".into(),
        since: Time(3),
        until: None,
    };
    Event::Hold(PlaceHold { hold: id(hold), point: id(point), text: Some(text) })
}

pub fn release(hold: u16) -> Event {
    let reason = Reason { by: "bob".into(), why: "closed".into() };
    Event::Release(ReleaseHold { hold: id(hold), reason: Some(reason) })
}

pub fn proved(point: u16) -> Event {
    tested(point, true)
}

pub fn tested(point: u16, passed: bool) -> Event {
    let proof = Proof {
        at: Time(9),
        level: ProofLevel::Restore,
        passed,
        restore_millis: 1200,
        report: "proofs/x".into(),
    };
    Event::Proved(Proved { point: id(point), proof: Some(proof) })
}

pub fn summary(sequence: u16) -> Summary {
    Summary {
        app: APP.into(),
        environment: "production".into(),
        policy: Some("nightly".into()),
        host: "web-1".into(),
        started: Time(1_000_000_000),
        finished: Time(2_000_000_000),
        sequence: sequence.into(),
        state: PointState::Complete,
        sources: vec![SourceSummary {
            name: "db".into(),
            kind: "postgres".into(),
            state: PointState::Complete,
            bytes: 1 << 20,
            items: 5000,
            partial: false,
        }],
        stored_bytes: 1 << 18,
        labels: BTreeMap::new(),
        next_expected: None,
        keep_until: None,
    }
}

struct Fixed;

impl Clock for Fixed {
    fn now(&self) -> Time {
        Time(1_700_000_000_000_000_000)
    }
}

/// Who is trusted with what.
struct Roles(BTreeMap<HostId, ([u8; 32], Vec<Role>)>);

impl Trusted for Roles {
    fn verify_key(&self, host: &HostId) -> Option<[u8; 32]> {
        self.0.get(host).map(|(key, _)| *key)
    }
    fn may(&self, host: &HostId, role: Role) -> bool {
        self.0.get(host).is_some_and(|(_, roles)| roles.contains(&role))
    }
}

/// Hosts 0 and 1 may everything; there are narrower ones; every other number is a stranger.
pub struct Hosts {
    pub repository: RepositoryId,
    trust: Arc<Roles>,
    index_private: [u8; 32],
}

impl Hosts {
    pub const BACKUP_ONLY: usize = 2;
    pub const VERIFY_ONLY: usize = 3;
    /// May everything, and has no private key.
    pub const KEYLESS: usize = 4;

    pub fn new() -> Hosts {
        let all = vec![Role::Backup, Role::Verify, Role::Prune, Role::Admin];
        let roles = [all.clone(), all.clone(), vec![Role::Backup], vec![Role::Verify], all];
        let trusted = roles.into_iter().enumerate().map(|(host, roles)| {
            let signer = signer(host);
            (signer.host(), (signer.verify_key(), roles))
        });
        Hosts { repository: id(1), trust: Arc::new(Roles(trusted.collect())), index_private: [42; 32] }
    }

    pub fn may(&self, host: usize, role: Role) -> bool {
        self.trust.may(&signer(host).host(), role)
    }

    pub fn context(&self, host: usize) -> LogContext {
        let private = (host != Hosts::KEYLESS).then_some(self.index_private);
        LogContext {
            repository: self.repository,
            epoch: EpochId(1),
            index_public: hpke::public_of(&self.index_private),
            index_private: Box::new(move |epoch| private.filter(|_| epoch == EpochId(1))),
            signer: signer(host),
            trust: self.trust.clone(),
            clock: Arc::new(Fixed),
            delay: Box::new(|_| {}),
        }
    }

    pub fn create(&self, store: &MemoryStore) {
        Log::create(store, &self.context(0)).unwrap();
    }

    pub fn open(&self, store: &MemoryStore, host: usize) -> Log {
        self.open_over(Arc::new(store.clone()), host, None).unwrap()
    }

    pub fn open_over(
        &self,
        store: Arc<dyn Store>,
        host: usize,
        hint: Option<Hint>,
    ) -> Result<Log, mainstay_repository::RepositoryError> {
        Log::open(store, self.context(host), hint)
    }

    /// The entry that this host would put after the hint's, whatever it may.
    pub fn forge(&self, after: Hint, event: Event, host: usize) -> Vec<u8> {
        let body = Body {
            repository: self.repository,
            incarnation: after.incarnation,
            n: after.n + 1,
            previous: after.hash,
            time: Fixed.now(),
            event,
            last_checkpoint: None,
        };
        entry::encode(&body, EpochId(1), &hpke::public_of(&self.index_private), &signer(host))
    }
}

/// The hint of whoever saw the log end before entry `n`.
pub fn hint_before(store: &MemoryStore, n: u64) -> Hint {
    let bytes = store.read(&entry::object_name(n - 1)).unwrap();
    let incarnation = entry::parse(&bytes).ok().unwrap().body.incarnation;
    Hint { n: n - 1, hash: entry::hash(&bytes), incarnation }
}

pub fn signer(host: usize) -> Signer {
    Signer::from_seed(&[host as u8 + 1; 32])
}

/// Packs and segments, to tell the types apart in tests of the fold.
pub type Packs = Vec<PackId>;
pub type Segments = Vec<ObjectId>;
