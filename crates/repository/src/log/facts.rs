//! What the log says, as values: live points, segments, sessions, and what is condemned, swept, dead or lost.
//!
//! [`Facts`] are the same for every host and are the clear half of a checkpoint; what only a key opens is beside them, and left out
//! when they are written down.

use super::event::Details;
use mainstay_domain::{
    HoldId, HostId, ObjectId, PackId, PointId, SessionId, Time,
    point::{Hold, Proof, ProofLevel, Summary},
};
use minicbor::{Decode, Encode};
use std::collections::{BTreeMap, BTreeSet};

/// A recovery point that was committed and not dropped.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct LivePoint {
    /// n of its Commit.
    #[n(0)]
    pub committed_at: u64,
    /// When the Commit was written, by its writer's clock.
    #[n(1)]
    pub time: Time,
    #[n(2)]
    pub session: SessionId,
    #[n(3)]
    pub signer: HostId,
    /// The segments that its session wrote. They may have been merged into others since.
    #[n(4)]
    pub index: Vec<ObjectId>,
    #[n(5)]
    pub holds: BTreeMap<HoldId, PlacedHold>,
    /// `None` without the key that opens it.
    #[cbor(skip)]
    pub summary: Option<Summary>,
    /// The latest of each level; empty without the key.
    #[cbor(skip)]
    pub proofs: BTreeMap<ProofLevel, Proof>,
    /// The last of each level that passed, whatever came after it.
    #[cbor(skip)]
    pub passed: BTreeMap<ProofLevel, Proof>,
}

impl LivePoint {
    pub(super) fn record(&mut self, proof: Proof) {
        if proof.passed {
            self.passed.insert(proof.level, proof.clone());
        }
        self.proofs.insert(proof.level, proof);
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PlacedHold {
    /// n of the Hold.
    #[n(0)]
    pub placed_at: u64,
    #[cbor(skip)]
    pub text: Option<Hold>,
}

/// A session that has neither committed nor been fenced.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct OpenSession {
    #[n(0)]
    pub signer: HostId,
    /// n of its Begin.
    #[n(1)]
    pub begin: u64,
    #[cbor(n(2), with = "minicbor::bytes")]
    pub wal_floor: Option<Vec<u8>>,
    #[n(3)]
    pub observed: Option<Observed>,
}

/// How far a collection saw a session to be: the earliest one that saw as many objects as the latest did.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Observed {
    /// n of the Condemn.
    #[n(0)]
    pub at: u64,
    #[n(1)]
    pub time: Time,
    #[n(2)]
    pub objects: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct Objects {
    #[n(0)]
    pub packs: BTreeSet<PackId>,
    #[n(1)]
    pub index: BTreeSet<ObjectId>,
    #[n(2)]
    pub manifests: BTreeSet<PointId>,
}

/// What every host can read of a log's state, and the clear half of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct Facts {
    #[n(0)]
    pub points: BTreeMap<PointId, LivePoint>,
    /// Every index segment that may be read, with the n up to which it is *clean*: it names no pack that was swept under
    /// a Condemn of that n or an earlier one.
    #[n(1)]
    pub segments: BTreeMap<ObjectId, u64>,
    #[n(2)]
    pub sessions: BTreeMap<SessionId, OpenSession>,
    /// Outstanding Condemns, by their n.
    #[n(3)]
    pub condemned: BTreeMap<u64, Objects>,
    /// Sweeps whose deletions are not known to be finished, by their n.
    #[n(4)]
    pub sweeps: BTreeMap<u64, Objects>,
    /// Swept packs that a segment may still name, by the n of their Condemn.
    #[n(5)]
    pub dead: BTreeMap<u64, BTreeSet<PackId>>,
    /// Packs that were found missing or damaged; `None` if there are none.
    #[n(6)]
    pub lost: Option<BTreeSet<PackId>>,
    /// Entries beyond the end of the log that an administrator has acknowledged: they have no effect when the log gets there.
    /// `None` if there are none.
    #[n(7)]
    pub strays: Option<BTreeSet<u64>>,
}

impl Facts {
    /// Was this entry acknowledged before the log had come so far?
    pub fn is_stray(&self, n: u64) -> bool {
        self.strays.as_ref().is_some_and(|strays| strays.contains(&n))
    }
}

pub(super) fn restore_details(facts: &mut Facts, mut details: Details) {
    for (id, point) in &mut facts.points {
        point.summary = details.summaries.remove(id);
        for (id, hold) in &mut point.holds {
            hold.text = details.holds.remove(id);
        }
        for proof in details.proofs.remove(id).unwrap_or_default() {
            point.record(proof);
        }
    }
}

/// Equal as far as a host without private keys can tell.
pub(super) fn same_in_clear(one: &Facts, other: &Facts) -> bool {
    let bytes = |facts: &Facts| minicbor::to_vec(facts).expect("writing to a Vec cannot fail");
    bytes(one) == bytes(other)
}
