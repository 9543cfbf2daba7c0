//! What a log says: a pure fold over its entries.
//!
//! [`State::apply`] takes one entry after the other and never looks at a store, a key or a clock. Two hosts that fold the same
//! entries reach the same [`Facts`], with or without private keys. A checkpoint is the facts written down, so folding
//! from it gives what folding from the beginning gives (`tests/log_state.rs`).

use super::{
    doubt::Doubt,
    event::{Checkpoint, Condemn, Details, Event, FIRST_NOTE_TAG, Sweep},
    facts::{Facts, LivePoint, Objects, Observed, OpenSession, PlacedHold, restore_details, same_in_clear},
    rules::{Ignored, Protocol, Rules},
};
use mainstay_domain::{HostId, Incarnation, ObjectId, PackId, Time};
use std::collections::{BTreeMap, BTreeSet};

/// Where and by whom an entry was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    pub n: u64,
    pub time: Time,
    pub signer: HostId,
}

/// The state after entry `head`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    pub head: u64,
    pub incarnation: Incarnation,
    pub last_checkpoint: Option<u64>,
    pub facts: Facts,
    /// By the n of the entry.
    pub doubts: BTreeMap<u64, Doubt>,
}

impl State {
    /// After entry 0.
    pub fn open(incarnation: Incarnation) -> State {
        State {
            head: 0,
            incarnation,
            last_checkpoint: None,
            facts: Facts::default(),
            doubts: BTreeMap::new(),
        }
    }

    /// After a checkpoint that is entry `n`: as good as the log before it.
    pub fn from_checkpoint(n: u64, incarnation: Incarnation, checkpoint: Checkpoint) -> State {
        let mut facts = checkpoint.facts;
        if let Some(details) = checkpoint.details {
            restore_details(&mut facts, details);
        }
        State { head: n, incarnation, last_checkpoint: Some(n), facts, doubts: BTreeMap::new() }
    }

    /// The event that writes this state down. It counts only as the next entry.
    pub fn checkpoint(&self) -> Checkpoint {
        let mut facts = self.facts.clone();
        let mut details = Details::default();
        for (id, point) in &mut facts.points {
            details.summaries.extend(point.summary.take().map(|summary| (*id, summary)));
            for (hold, placed) in &mut point.holds {
                details.holds.extend(placed.text.take().map(|text| (*hold, text)));
            }
            let (latest, passed) = (std::mem::take(&mut point.proofs), std::mem::take(&mut point.passed));
            if !latest.is_empty() {
                // In the order in which they are to be recorded again.
                let before = passed.into_values().filter(|proof| latest.get(&proof.level) != Some(proof));
                let all = before.chain(latest.values().cloned()).collect();
                details.proofs.insert(*id, all);
            }
        }
        Checkpoint { tail: self.head, facts, details: Some(details) }
    }

    /// Index segments that a session begun now may rely on to its end. Segments never name everything that exists: ask
    /// [`Rules::may_deduplicate`] for each pack.
    pub fn live_index(&self) -> impl Iterator<Item = &ObjectId> {
        let condemned =
            |segment: &ObjectId| self.facts.condemned.values().any(|objects| objects.index.contains(segment));
        self.facts.segments.keys().filter(move |segment| !condemned(segment))
    }

    /// Index segments in which a reader finds every pack of every live point. One may be deleted while it is being read:
    /// then the log has moved on, and the reader refreshes and asks again.
    pub fn readable_index(&self) -> impl Iterator<Item = &ObjectId> {
        self.facts.segments.keys()
    }

    /// Packs that a session with this Begin treats as absent. Complete only while [`State::doubts`] is empty; ask
    /// [`Rules::may_deduplicate`].
    pub fn absent_for(&self, begin: u64) -> BTreeSet<PackId> {
        let condemned = self.facts.condemned.range(..begin).map(|(_, objects)| objects);
        let given_up = condemned.chain(self.facts.sweeps.values()).flat_map(|objects| &objects.packs);
        let gone = self.facts.dead.values().chain(&self.facts.lost).flatten();
        given_up.chain(gone).copied().collect()
    }

    /// Folds the next entry, by the rules as they are.
    pub fn apply(&mut self, stamp: &Stamp, event: &Event) -> Result<(), Ignored> {
        self.apply_by(&Protocol, stamp, event)
    }

    /// Folds an entry that cannot be relied on: it has no effect but to be remembered.
    pub fn apply_doubtful(&mut self, n: u64, doubt: Doubt) {
        self.head = n;
        if !self.facts.is_stray(n) {
            self.doubts.insert(n, doubt);
        }
    }

    /// Folds the next entry. `Err`: it has no effect, and this is why.
    pub fn apply_by(&mut self, rules: &dyn Rules, stamp: &Stamp, event: &Event) -> Result<(), Ignored> {
        let n = stamp.n;
        debug_assert_eq!(n, self.head + 1, "entries are folded in order");
        let outcome = self.effect(rules, stamp, event);
        self.head = n;
        outcome
    }

    fn effect(&mut self, rules: &dyn Rules, stamp: &Stamp, event: &Event) -> Result<(), Ignored> {
        let n = stamp.n;
        if self.facts.is_stray(n) {
            return Err(Ignored::Acknowledged);
        }
        let facts = &mut self.facts;
        match event {
            Event::Open => return Err(Ignored::AlreadyOpen),
            Event::Incarnate(incarnate) => {
                // What sessions wrote after the snapshot was taken is gone: none of them may commit.
                facts.sessions.clear();
                self.incarnation = incarnate.incarnation;
            }
            Event::Begin(begin) => {
                if facts.sessions.contains_key(&begin.session) {
                    return Err(Ignored::SessionExists(begin.session));
                }
                let wal_floor = begin.wal_floor.clone();
                let session = OpenSession { signer: stamp.signer, begin: n, wal_floor, observed: None };
                facts.sessions.insert(begin.session, session);
            }
            Event::Commit(commit) => {
                rules.commit_counts(self, commit, &stamp.signer)?;
                let facts = &mut self.facts;
                let begin = facts.sessions.remove(&commit.session).map_or(n, |session| session.begin);
                // A collector may have seen them before they were committed, and taken them for an orphan's. No Sweep may
                // name them any more.
                for objects in facts.condemned.values_mut() {
                    objects.manifests.remove(&commit.point);
                    objects.index.retain(|segment| !commit.index.contains(segment));
                }
                for segment in &commit.index {
                    // It names packs that this session made, and those were condemned by nobody before it began.
                    facts.segments.entry(*segment).or_insert(begin);
                }
                facts.points.entry(commit.point).or_insert_with(|| LivePoint {
                    committed_at: n,
                    time: stamp.time,
                    session: commit.session,
                    signer: stamp.signer,
                    index: commit.index.clone(),
                    holds: BTreeMap::new(),
                    summary: commit.summary.clone(),
                    proofs: BTreeMap::new(),
                    passed: BTreeMap::new(),
                });
            }
            Event::Fence(fence) => {
                if facts.sessions.remove(&fence.session).is_none() {
                    return Err(Ignored::SessionOver(fence.session));
                }
            }
            Event::Condemn(condemn) => {
                rules.condemn_counts(self, condemn, n)?;
                let clean_to = rules.merged_is_clean_to(self, n);
                self.condemn(stamp, condemn, clean_to);
            }
            Event::Sweep(sweep) => {
                rules.sweep_counts(self, sweep, n)?;
                self.sweep(n, sweep);
            }
            Event::Abandon(abandon) => {
                if facts.condemned.remove(&abandon.condemn).is_none() {
                    return Err(Ignored::NoSuchCondemn(abandon.condemn));
                }
            }
            Event::Swept(swept) => {
                if facts.sweeps.remove(&swept.sweep).is_none() {
                    return Err(Ignored::NoSuchSweep(swept.sweep));
                }
            }
            Event::Drop(drop) => {
                rules.drop_counts(self, drop)?;
                self.facts.points.remove(&drop.point);
            }
            Event::Hold(hold) => {
                if facts.points.values().any(|point| point.holds.contains_key(&hold.hold)) {
                    return Err(Ignored::HoldExists);
                }
                let point = facts.points.get_mut(&hold.point).ok_or(Ignored::NoSuchPoint)?;
                point.holds.insert(hold.hold, PlacedHold { placed_at: n, text: hold.text.clone() });
            }
            Event::Release(release) => {
                let held = facts.points.values_mut().find_map(|point| point.holds.remove(&release.hold));
                held.ok_or(Ignored::NoSuchHold)?;
            }
            Event::Proved(proved) => {
                let point = facts.points.get_mut(&proved.point).ok_or(Ignored::NoSuchPoint)?;
                if let Some(proof) = &proved.proof {
                    point.record(proof.clone());
                }
            }
            Event::Checkpoint(checkpoint) => {
                if checkpoint.tail + 1 != n {
                    return Err(Ignored::StaleTail { computed_on: checkpoint.tail });
                }
                if !same_in_clear(facts, &checkpoint.facts) {
                    self.doubts.insert(n, Doubt::CheckpointDiffers);
                }
                self.last_checkpoint = Some(n);
            }
            Event::Acknowledge(acknowledge) => {
                for entry in &acknowledge.entries {
                    if *entry > n {
                        facts.strays.get_or_insert_default().insert(*entry);
                    }
                    // What a later version meant can only be settled by a later version.
                    if !matches!(self.doubts.get(entry), Some(Doubt::UnknownEvent { .. })) {
                        self.doubts.remove(entry);
                    }
                }
            }
            Event::Lost(lost) => {
                let mut packs = facts.lost.take().unwrap_or_default();
                packs.extend(&lost.packs);
                packs.retain(|pack| !lost.found.contains(pack));
                facts.lost = Some(packs).filter(|packs| !packs.is_empty());
            }
            Event::Unknown { tag } if *tag >= FIRST_NOTE_TAG => return Err(Ignored::Note),
            Event::Unknown { tag } => {
                self.doubts.insert(n, Doubt::UnknownEvent { tag: *tag });
            }
        }
        Ok(())
    }

    fn condemn(&mut self, stamp: &Stamp, condemn: &Condemn, clean_to: u64) {
        let n = stamp.n;
        let facts = &mut self.facts;
        for segment in &condemn.added_index {
            facts.segments.entry(*segment).or_insert(clean_to);
        }
        for (id, objects) in &condemn.observed {
            if let Some(session) = facts.sessions.get_mut(id)
                && session.observed.as_ref().is_none_or(|earlier| earlier.objects != *objects)
            {
                session.observed = Some(Observed { at: n, time: stamp.time, objects: *objects });
            }
        }
        let objects = Objects {
            packs: condemn.packs.iter().copied().collect(),
            index: condemn.index.iter().copied().collect(),
            manifests: condemn.manifests.iter().copied().collect(),
        };
        if objects != Objects::default() {
            facts.condemned.insert(n, objects);
        }
    }

    fn sweep(&mut self, n: u64, sweep: &Sweep) {
        let facts = &mut self.facts;
        facts.condemned.remove(&sweep.condemn);
        for segment in &sweep.index {
            facts.segments.remove(segment);
        }
        let packs: BTreeSet<PackId> = sweep.packs.iter().copied().collect();
        let lost = facts.lost.take().map(|lost| &lost - &packs);
        facts.lost = lost.filter(|lost| !lost.is_empty());
        facts.dead.entry(sweep.condemn).or_default().extend(&packs);
        // Once every segment is clean of them, nobody can come across these packs any more.
        let clean_to = facts.segments.values().min().copied().unwrap_or(u64::MAX);
        facts.dead.retain(|condemn, packs| *condemn > clean_to && !packs.is_empty());
        let objects = Objects {
            packs,
            index: sweep.index.iter().copied().collect(),
            manifests: sweep.manifests.iter().copied().collect(),
        };
        if objects != Objects::default() {
            facts.sweeps.insert(n, objects);
        }
    }
}
