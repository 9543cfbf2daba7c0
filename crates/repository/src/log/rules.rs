//! The log's decisions, one small pure function each, with the reason above it.
//!
//! They are methods of a trait for one purpose: the exhaustive search of the protocol (`tests/log_model/`) runs on these
//! very functions, and shows that it would notice a mistake by breaking them one at a time. Everything else uses
//! [`Protocol`], which breaks none.

use super::{
    event::{Commit, Condemn, DropPoint, Event, Sweep},
    facts::OpenSession,
    state::State,
};
use mainstay_domain::{HostId, ObjectId, PackId, SessionId, Time};
use std::{collections::BTreeSet, fmt};

/// What a host may do, as the root-signed trust list says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Writes recovery points.
    Backup,
    /// Writes proofs.
    Verify,
    /// Drops points and deletes what nothing needs.
    Prune,
    /// Everything.
    Admin,
}

/// Why an entry that is well-formed and permitted has no effect. No cause for alarm: it lost a race, or came too late.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ignored {
    AlreadyOpen,
    SessionExists(SessionId),
    SessionOver(SessionId),
    AnothersSession(SessionId),
    NamesCondemned,
    StaleTail { computed_on: u64 },
    StaleMerge { made_on: u64 },
    InDoubt,
    CondemnsLivePoint,
    NoSuchCondemn(u64),
    OlderSessionOpen(SessionId),
    MoreThanCondemned,
    NoSuchSweep(u64),
    NoSuchPoint,
    PointHeld,
    HoldExists,
    NoSuchHold,
    Note,
    Acknowledged,
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ignored::AlreadyOpen => f.write_str("the log is open already"),
            Ignored::SessionExists(session) => write!(f, "session {} has already begun", session.short()),
            Ignored::SessionOver(session) => {
                write!(f, "session {} is not open (never begun, committed, or fenced)", session.short())
            }
            Ignored::AnothersSession(session) => {
                write!(f, "session {} belongs to another host", session.short())
            }
            Ignored::NamesCondemned => {
                f.write_str("it names objects that were condemned before its session began")
            }
            Ignored::StaleTail { computed_on } => {
                write!(
                    f,
                    "it was computed on the state of entry {computed_on}, which is not the one before it"
                )
            }
            Ignored::StaleMerge { made_on } => {
                write!(f, "its merged segments were made on the state of entry {made_on}, not of its own")
            }
            Ignored::InDoubt => f.write_str("earlier entries are in doubt"),
            Ignored::CondemnsLivePoint => f.write_str("it condemns the manifest of a live recovery point"),
            Ignored::NoSuchCondemn(n) => write!(f, "no Condemn {n} is outstanding"),
            Ignored::OlderSessionOpen(session) => {
                write!(f, "session {}, begun before the Condemn, is still open", session.short())
            }
            Ignored::MoreThanCondemned => f.write_str("it names more than was condemned"),
            Ignored::NoSuchSweep(n) => write!(f, "no Sweep {n} is unfinished"),
            Ignored::NoSuchPoint => f.write_str("that recovery point is not live"),
            Ignored::PointHeld => f.write_str("that recovery point is held"),
            Ignored::HoldExists => f.write_str("that hold exists already"),
            Ignored::NoSuchHold => f.write_str("there is no such hold"),
            Ignored::Note => f.write_str("it is a note of a later version"),
            Ignored::Acknowledged => {
                f.write_str("what stands in its place was acknowledged as without effect")
            }
        }
    }
}

/// What the fold, a writer and a collector ask before they act. See the module's description for why this is a trait.
pub trait Rules: Sync {
    /// May a session whose Begin is entry `begin` refer to this pack instead of storing its chunks again?
    ///
    /// A Sweep waits only for sessions begun before its Condemn. Whoever began later must therefore treat condemned packs as
    /// absent from the start, and swept ones for as long as they may still lie in the store or an index segment may name
    /// them. Lost ones are absent for everybody. While anything in the log is in doubt, a Condemn or a Sweep may be what
    /// could not be read: then every pack counts as absent.
    fn may_deduplicate(&self, state: &State, begin: u64, pack: &PackId) -> bool {
        let facts = &state.facts;
        state.doubts.is_empty()
            && !facts.condemned.range(..begin).any(|(_, condemned)| condemned.packs.contains(pack))
            && !facts.sweeps.values().any(|swept| swept.packs.contains(pack))
            && !facts.dead.values().chain(&facts.lost).any(|packs| packs.contains(pack))
    }

    /// May a pack of this name be put into the store (by a repair or a copy from another store)?
    ///
    /// A collector that knows it as condemned may delete it at any later moment. Packs that a session makes itself have
    /// names that were never used before.
    fn may_upload(&self, state: &State, pack: &PackId) -> bool {
        let facts = &state.facts;
        !facts.condemned.values().chain(facts.sweeps.values()).any(|objects| objects.packs.contains(pack))
            && !facts.dead.values().any(|packs| packs.contains(pack))
    }

    /// Does this Commit make a recovery point?
    ///
    /// Only for a session that is open: the first of Commit and Fence wins, because a Sweep no longer waits for a session
    /// that was fenced. Only by the host that began it. And not if it names a manifest or a segment that was condemned
    /// before the session began, since the Sweep need not wait for it.
    fn commit_counts(&self, state: &State, commit: &Commit, signer: &HostId) -> Result<(), Ignored> {
        let session =
            state.facts.sessions.get(&commit.session).ok_or(Ignored::SessionOver(commit.session))?;
        if session.signer != *signer {
            return Err(Ignored::AnothersSession(commit.session));
        }
        let doomed = (state.facts.condemned.range(..session.begin))
            .map(|(_, condemned)| condemned)
            .chain(state.facts.sweeps.values())
            .any(|objects| {
                objects.manifests.contains(&commit.point)
                    || commit.index.iter().any(|segment| objects.index.contains(segment))
            });
        if doomed { Err(Ignored::NamesCondemned) } else { Ok(()) }
    }

    /// Does this Condemn, found as entry `n`, count?
    fn condemn_counts(&self, state: &State, condemn: &Condemn, n: u64) -> Result<(), Ignored> {
        self.condemn_is_current(condemn, n)?;
        if !state.doubts.is_empty() {
            return Err(Ignored::InDoubt);
        }
        if condemn.manifests.iter().any(|point| state.facts.points.contains_key(point)) {
            return Err(Ignored::CondemnsLivePoint);
        }
        self.merge_is_current(condemn)
    }

    /// What a Condemn lists was unreferenced in the state of entry `tail`, and may be needed by what was written since.
    ///
    /// Nothing is lost by a stale one, because the Sweep works out anew what is needed (the search shows it). But sessions
    /// would store again what they could have relied on, so it is void, and its writer computes another.
    fn condemn_is_current(&self, condemn: &Condemn, n: u64) -> Result<(), Ignored> {
        if condemn.tail + 1 == n { Ok(()) } else { Err(Ignored::StaleTail { computed_on: condemn.tail }) }
    }

    /// A merged segment must have been made on the very state on which its Condemn was computed, and stored for this attempt.
    ///
    /// One from an earlier state names packs that have been given up since, and would pass for clean of them. And until the
    /// Condemn that brings it in it is nobody's: another collection may have taken it for an orphan and swept it.
    fn merge_is_current(&self, condemn: &Condemn) -> Result<(), Ignored> {
        if condemn.added_index.is_empty() || condemn.merged_on == condemn.tail {
            Ok(())
        } else {
            Err(Ignored::StaleMerge { made_on: condemn.merged_on })
        }
    }

    /// Up to which Condemn is a segment clean that is merged by entry `n`: which swept packs does it surely not name?
    ///
    /// It names neither what that entry condemns nor what was dead before. It does name what other outstanding Condemns
    /// list, because that may yet be given back.
    fn merged_is_clean_to(&self, state: &State, n: u64) -> u64 {
        state.facts.condemned.keys().next().map_or(n, |first| first - 1)
    }

    /// Does this Sweep, found as entry `n`, count? Only what a counted Sweep names is ever deleted.
    fn sweep_counts(&self, state: &State, sweep: &Sweep, n: u64) -> Result<(), Ignored> {
        let condemned =
            state.facts.condemned.get(&sweep.condemn).ok_or(Ignored::NoSuchCondemn(sweep.condemn))?;
        if !state.doubts.is_empty() {
            return Err(Ignored::InDoubt);
        }
        self.sweep_is_current(sweep, n)?;
        self.older_sessions_ended(state, sweep.condemn)?;
        let within = sweep.packs.iter().all(|pack| condemned.packs.contains(pack))
            && sweep.index.iter().all(|segment| condemned.index.contains(segment))
            && sweep.manifests.iter().all(|point| condemned.manifests.contains(point));
        if within { Ok(()) } else { Err(Ignored::MoreThanCondemned) }
    }

    /// A late commit may have landed since the list was computed, and what it needs must not be on the list.
    fn sweep_is_current(&self, sweep: &Sweep, n: u64) -> Result<(), Ignored> {
        if sweep.tail + 1 == n { Ok(()) } else { Err(Ignored::StaleTail { computed_on: sweep.tail }) }
    }

    /// Whoever began before a Condemn may have deduplicated against what it condemns, and may still commit.
    fn older_sessions_ended(&self, state: &State, condemn: u64) -> Result<(), Ignored> {
        match state.facts.sessions.iter().find(|(_, session)| session.begin < condemn) {
            Some((id, _)) => Err(Ignored::OlderSessionOpen(*id)),
            None => Ok(()),
        }
    }

    /// What may finally be deleted of an outstanding Condemn, given the state at the tail. `None` if it is not outstanding.
    ///
    /// `referenced`: does any live recovery point need this pack? It must know every live point's list: if one of them cannot
    /// be read, nothing may be swept. `names`: the packs that a segment of [`State::readable_index`] names.
    ///
    /// Sessions begun before the Condemn may have committed after it: what they reference is given back. And with it
    /// every condemned segment that names a referenced pack which no other segment names: without it nobody could find
    /// the pack's chunks.
    fn to_sweep(
        &self,
        state: &State,
        condemn: u64,
        referenced: &dyn Fn(&PackId) -> bool,
        names: &dyn Fn(&ObjectId) -> Vec<PackId>,
    ) -> Option<Sweep> {
        let condemned = state.facts.condemned.get(&condemn)?;
        let findable: BTreeSet<PackId> = state.live_index().flat_map(names).collect();
        let needed = |segment: &ObjectId| {
            // A segment that was never committed is nobody's only record of anything.
            state.facts.segments.contains_key(segment)
                && names(segment).iter().any(|pack| referenced(pack) && !findable.contains(pack))
        };
        Some(Sweep {
            tail: state.head,
            condemn,
            packs: condemned.packs.iter().filter(|pack| !referenced(pack)).copied().collect(),
            index: condemned.index.iter().filter(|segment| !needed(segment)).copied().collect(),
            manifests: (condemned.manifests.iter())
                .filter(|point| !state.facts.points.contains_key(point))
                .copied()
                .collect(),
        })
    }

    /// Should a collector that now sees `seen_now` objects of this session end it?
    ///
    /// Only if an earlier collection, at least `patience` nanoseconds ago, saw exactly as many. Nothing depends on this
    /// being right: a session that was fenced wrongly fails and is run again. So the clock may be wrong too.
    fn may_fence(&self, session: &OpenSession, seen_now: u64, now: Time, patience: i64) -> bool {
        session
            .observed
            .as_ref()
            .is_some_and(|earlier| earlier.objects == seen_now && now.since(earlier.time) >= patience)
    }

    /// May this recovery point be given up? Not while a hold is on it: an expired hold is released first, in the open.
    fn drop_counts(&self, state: &State, drop: &DropPoint) -> Result<(), Ignored> {
        match state.facts.points.get(&drop.point) {
            None => Err(Ignored::NoSuchPoint),
            Some(point) if !point.holds.is_empty() => Err(Ignored::PointHeld),
            Some(_) => Ok(()),
        }
    }

    /// May this state be written down as a checkpoint?
    ///
    /// Readers begin at a checkpoint and see nothing before it, so it must lose nothing: not what an entry in doubt might
    /// have said, nor what was sealed and could not be opened here.
    fn may_checkpoint(&self, state: &State) -> bool {
        state.doubts.is_empty()
            && state
                .facts
                .points
                .values()
                .all(|point| point.summary.is_some() && point.holds.values().all(|hold| hold.text.is_some()))
    }
}

/// The rules as they are.
#[derive(Debug, Clone, Copy, Default)]
pub struct Protocol;

impl Rules for Protocol {}

/// May this host write this event? `may` answers for the host's roles at the entry's place in the log.
///
/// A Checkpoint replaces all that was said before, and a Fence or an Incarnate ends other hosts' work: these are for hosts
/// that may delete anyway. Everyone may end a session of its own.
pub fn permitted(state: &State, event: &Event, signer: &HostId, may: &dyn Fn(Role) -> bool) -> bool {
    let any = |roles: &[Role]| roles.iter().any(|role| may(*role));
    match event {
        Event::Open | Event::Acknowledge(_) => may(Role::Admin),
        Event::Begin(_) | Event::Commit(_) => any(&[Role::Backup, Role::Admin]),
        Event::Hold(_) => any(&[Role::Backup, Role::Prune, Role::Admin]),
        Event::Proved(_) => any(&[Role::Verify, Role::Admin]),
        // Whoever says so wrongly makes others store again what is there; nothing is deleted for it.
        Event::Lost(_) => any(&[Role::Backup, Role::Verify, Role::Prune, Role::Admin]),
        Event::Fence(fence) => {
            any(&[Role::Prune, Role::Admin])
                || state.facts.sessions.get(&fence.session).is_some_and(|open| open.signer == *signer)
        }
        Event::Incarnate(_)
        | Event::Condemn(_)
        | Event::Sweep(_)
        | Event::Abandon(_)
        | Event::Swept(_)
        | Event::Drop(_)
        | Event::Release(_)
        | Event::Checkpoint(_) => any(&[Role::Prune, Role::Admin]),
        // What it needs is not known here; that it is unknown is a doubt of its own.
        Event::Unknown { .. } => true,
    }
}
