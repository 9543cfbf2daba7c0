//! Small numbers for everything that has an id, sets of them, and entries numbered without gaps.

use super::Set;
use mainstay_domain::{HostId, ObjectId, PackId, PointId, SessionId};
use mainstay_repository::log::State;

pub fn bit(s: u8) -> Set {
    1 << s
}

pub fn members(set: Set) -> impl Iterator<Item = u8> {
    (0..8).filter(move |s| set & bit(*s) != 0)
}

pub fn subsets(set: Set) -> impl Iterator<Item = Set> {
    // The usual walk through the subsets of a mask, from all of it down to none.
    let mut next = Some(set);
    std::iter::from_fn(move || {
        let current = next?;
        next = if current == 0 { None } else { Some((current - 1) & set) };
        Some(current)
    })
}

pub fn session_id(s: u8) -> SessionId {
    SessionId([s; 16])
}

pub fn pack_id(s: u8) -> PackId {
    PackId([s; 32])
}

pub fn pack_of(pack: &PackId) -> u8 {
    pack.0[0]
}

pub fn point_id(s: u8) -> PointId {
    PointId([s; 32])
}

pub fn point_of(point: &PointId) -> u8 {
    point.0[0]
}

pub fn segment_id(s: u8) -> ObjectId {
    let mut id = [0; 32];
    (id[0], id[1]) = (1, s);
    ObjectId(id)
}

pub fn merged_id(number: u8) -> ObjectId {
    let mut id = [0; 32];
    (id[0], id[1]) = (2, number);
    ObjectId(id)
}

/// `Ok`: a session's segment. `Err`: a merged one.
pub fn segment_of(segment: &ObjectId) -> Result<u8, u8> {
    if segment.0[0] == 1 { Ok(segment.0[1]) } else { Err(segment.0[1]) }
}

/// An entry that never was.
pub const NO_ENTRY: u64 = u64::MAX / 2;

/// The state with its entries numbered anew, without gaps. All that the rules ask of numbers is their order, so worlds that
/// differ only in how many entries without effect lie in between become one. Returns the old numbers, in order.
pub fn renumbered(mut state: State) -> (State, Vec<u64>) {
    let facts = &mut state.facts;
    let mut numbers: Vec<u64> = facts.sessions.values().map(|session| session.begin).collect();
    numbers.extend(facts.condemned.keys());
    numbers.extend(facts.sweeps.keys());
    numbers.extend(facts.dead.keys());
    numbers.extend(facts.segments.values());
    numbers.push(0);
    numbers.sort_unstable();
    numbers.dedup();
    let new = |n: u64| rank(&numbers, n);
    for session in facts.sessions.values_mut() {
        session.begin = new(session.begin);
        if let Some(observed) = &mut session.observed {
            observed.at = 0; // told to users only
        }
    }
    facts.condemned = std::mem::take(&mut facts.condemned).into_iter().map(|(n, o)| (new(n), o)).collect();
    facts.sweeps = std::mem::take(&mut facts.sweeps).into_iter().map(|(n, o)| (new(n), o)).collect();
    facts.dead = std::mem::take(&mut facts.dead).into_iter().map(|(n, packs)| (new(n), packs)).collect();
    facts.segments.values_mut().for_each(|clean_to| *clean_to = new(*clean_to));
    facts.points.values_mut().for_each(|point| point.committed_at = 0); // told to users only
    state.head = numbers.len() as u64;
    (state, numbers)
}

/// The new number of an entry: of the latest known one up to it.
pub fn rank(numbers: &[u64], n: u64) -> u64 {
    numbers.partition_point(|known| *known <= n) as u64 - 1
}

pub fn host(signer: u8) -> HostId {
    HostId([signer; 16])
}
