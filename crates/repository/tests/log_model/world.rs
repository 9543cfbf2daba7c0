//! The world that is searched: a store, its log, and everyone who works on them, as small plain values.
//!
//! The log's state and the decisions are the production code (`log::State`, `log::Rules`). Actors take one step at a time,
//! in any order. A crash is an actor that takes no further step, or begins anew having forgotten everything. A lost answer
//! is a create that takes effect, or does not, without its author taking the next step: an append is first *sent*, and may
//! land at any later time while its place is free, whether or not its author still waits for it.

mod collectors;
mod names;
mod promises;
mod writers;

use mainstay_domain::{Incarnation, ObjectId, PackId, Time};
use mainstay_repository::log::{
    Event, Rules, State,
    event::{Begin, Commit},
    state::Stamp,
};
use names::{
    NO_ENTRY, bit, host, members, pack_id, point_id, point_of, rank, renumbered, segment_id, segment_of,
    session_id,
};
use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    rc::Rc,
};

/// How much may happen in one search.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub writers: usize,
    /// Sessions per writer.
    pub sessions: u8,
    /// Collectors at work at once.
    pub collectors: usize,
    /// Condemns, counted or void.
    pub condemns: u8,
    /// Merged index segments.
    pub merges: u8,
    pub drops: u8,
    pub abandons: u8,
    /// Writers' appends are in flight for a while too, and survive a writer's crash.
    pub writers_in_flight: bool,
    /// LIST leaves out what is there, and shows what was deleted.
    pub lagging_list: bool,
    /// Collectors send Sweeps without asking the rules whether these will count.
    pub careless: bool,
    /// Pack, segment and manifest are stored in three steps; otherwise the last two in one.
    pub fine: bool,
}

pub const MAX_WRITERS: usize = 2;
const MAX_SESSIONS: usize = 6;
pub const MAX_COLLECTORS: usize = 2;
const MAX_MERGES: usize = 3;
const COLLECTOR: u8 = 9;
const CARELESS_SWEEPS: u8 = 2;

/// A set of sessions, or of their packs, segments or manifests: session `s` makes at most one of each, with bit `s`.
type Set = u8;

/// An append on its way: it lands if its place is still free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sent {
    free: bool,
    event: u16,
    signer: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Phase {
    #[default]
    Idle,
    Beginning,
    /// It has stored so much; it makes a pack of its own if it refers to that.
    Working {
        done: Done,
    },
    Committing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Done {
    Nothing,
    Pack,
    Segment,
    Manifest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Writer {
    pub session: u8,
    pub phase: Phase,
    sent: Option<Sent>,
    /// What a crashed predecessor had sent.
    ghost: Option<Sent>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Collector {
    sent: Option<Sent>,
    /// A merged segment that it stored (its number), and the head before that.
    merged: Option<(u8, u8)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct World {
    pub state: u32,
    packs: Set,
    segments: Set,
    manifests: Set,
    /// Merged segments that lie in the store, and what each names.
    merged: u8,
    merged_names: [Set; MAX_MERGES],
    merges: u8,
    /// The packs that each session refers to: what its manifest says.
    refs: [Set; MAX_SESSIONS],
    /// Everything that was ever stored: what a lagging LIST may still show.
    ever_packs: Set,
    ever_segments: Set,
    ever_manifests: Set,
    writers: [Writer; MAX_WRITERS],
    collectors: [Collector; MAX_COLLECTORS],
    condemns: u8,
    drops: u8,
    abandons: u8,
    careless_sweeps: u8,
    /// Sessions whose Fence landed while they were open.
    fenced: Set,
}

#[derive(Debug, Clone, Copy)]
#[allow(dead_code)] // the fields are read by a counterexample's reader
pub enum Step {
    Send { writer: usize, what: &'static str },
    Begun { writer: usize, refs: Set },
    StorePack { writer: usize },
    StoreSegment { writer: usize },
    StoreManifest { writer: usize },
    Committed { writer: usize },
    Refused { writer: usize },
    Abort { writer: usize },
    Crash { writer: usize },
    GhostLands { writer: usize },
    StoreMerged { collector: usize, names: Set },
    ComputeCondemn { collector: usize, seen: Set, merged: bool },
    ComputeSweep { collector: usize, condemn: u64 },
    Lands { collector: usize },
    SendsAgain { collector: usize },
    GivesUp { collector: usize },
    FenceSession { session: u8 },
    AbandonCondemn { condemn: u64 },
    DeletePack { pack: u8 },
    DeleteSegment { segment: Result<u8, u8> },
    DeleteManifest { point: u8 },
    SweptDone { sweep: u64 },
    DropLive { point: u8 },
}

/// A fast hash for small keys: nobody here chooses them to collide.
#[derive(Default)]
pub struct Hash(u64);

impl Hasher for Hash {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }
    fn write_u8(&mut self, n: u8) {
        self.write_u64(n.into());
    }
    fn write_u64(&mut self, n: u64) {
        self.0 = (self.0.rotate_left(5) ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
}

type Folded = (u32, bool, Rc<Vec<u64>>);

pub type Map<K, V> = HashMap<K, V, BuildHasherDefault<Hash>>;

pub struct Model<'r> {
    pub rules: &'r dyn Rules,
    pub bounds: Bounds,
    states: Vec<Rc<State>>,
    state_ids: Map<Vec<u8>, u32>,
    events: Vec<Rc<Event>>,
    event_ids: Map<Vec<u8>, u16>,
    /// By state, event and signer: the state after it, whether it counted, and how entries were renumbered.
    folded: Map<(u32, u16, u8), Folded>,
}

impl World {
    fn names(&self, segment: &ObjectId) -> Set {
        match segment_of(segment) {
            Ok(s) => bit(s),
            Err(number) => self.merged_names[usize::from(number)],
        }
    }

    /// The packs that live points need.
    fn referenced(&self, state: &State) -> Set {
        state.facts.points.keys().fold(0, |set, point| set | self.refs[usize::from(point_of(point))])
    }

    fn names_ids(&self, segment: &ObjectId) -> Vec<PackId> {
        members(self.names(segment)).map(pack_id).collect()
    }

    fn has_segment(&self, segment: &ObjectId) -> bool {
        match segment_of(segment) {
            Ok(s) => self.segments & bit(s) != 0,
            Err(number) => self.merged & bit(number) != 0,
        }
    }

    /// Which collector is which makes no difference.
    pub fn canonical(mut self, bounds: &Bounds) -> World {
        self.collectors[..bounds.collectors].sort_unstable();
        self
    }

    /// All that a crash of everyone leaves.
    pub fn remains(&self) -> World {
        World { writers: Default::default(), collectors: Default::default(), ..*self }
    }
}

impl<'r> Model<'r> {
    /// One point is committed already: session 0 with its pack, segment and manifest.
    pub fn new(rules: &'r dyn Rules, bounds: Bounds) -> (Model<'r>, World) {
        let mut model = Model {
            rules,
            bounds,
            states: Vec::new(),
            state_ids: Map::default(),
            events: Vec::new(),
            event_ids: Map::default(),
            folded: Map::default(),
        };
        let state = model.intern(State::open(Incarnation([1; 16])));
        let mut world = World {
            state,
            packs: 1,
            segments: 1,
            manifests: 1,
            merged: 0,
            merged_names: [0; MAX_MERGES],
            merges: 0,
            refs: [1, 0, 0, 0, 0, 0],
            ever_packs: 1,
            ever_segments: 1,
            ever_manifests: 1,
            writers: Default::default(),
            collectors: Default::default(),
            condemns: 0,
            drops: 0,
            abandons: 0,
            careless_sweeps: 0,
            fenced: 0,
        };
        let begin = Event::Begin(Begin { session: session_id(0), wal_floor: None });
        let (next, _) = model.append(&world, begin, 1);
        world.state = next.state;
        let commit = Event::Commit(Commit {
            session: session_id(0),
            point: point_id(0),
            index: vec![segment_id(0)],
            summary: None,
        });
        world = model.append(&world, commit, 1).0;
        (model, world)
    }

    pub fn state(&self, world: &World) -> Rc<State> {
        self.states[world.state as usize].clone()
    }

    pub fn distinct_states(&self) -> usize {
        self.states.len()
    }

    /// Equal facts at the same place in the log are one state: this is where the search relies on the fold being pure.
    fn intern(&mut self, state: State) -> u32 {
        let key = minicbor::to_vec((state.head, &state.facts)).unwrap();
        if let Some(id) = self.state_ids.get(&key) {
            return *id;
        }
        // What a checkpoint here would say is as good as the log so far.
        let checkpoint = state.checkpoint();
        let again = State::from_checkpoint(state.head, state.incarnation, checkpoint);
        assert_eq!(again.facts, state.facts);

        let id = self.states.len() as u32;
        self.states.push(Rc::new(state));
        self.state_ids.insert(key, id);
        id
    }

    fn event(&mut self, event: Event) -> u16 {
        let key = minicbor::to_vec(&event).unwrap();
        if let Some(id) = self.event_ids.get(&key) {
            return *id;
        }
        let id = u16::try_from(self.events.len()).expect("few distinct events within the bounds");
        self.events.push(Rc::new(event));
        self.event_ids.insert(key, id);
        id
    }

    fn send(&mut self, event: Event, signer: u8) -> Sent {
        Sent { free: true, event: self.event(event), signer }
    }

    /// The conditional create takes effect, if its place is free. Also: did the entry count?
    fn land(&mut self, world: &World, sent: Sent) -> Option<(World, bool)> {
        if !sent.free {
            return None;
        }
        let mut next = *world;
        let event = self.events[usize::from(sent.event)].clone();
        if let Event::Fence(fence) = &*event {
            let s = fence.session.0[0];
            if self.state(world).facts.sessions.contains_key(&fence.session) {
                next.fenced |= bit(s);
            }
        }
        let key = (world.state, sent.event, sent.signer);
        let (state, counted, numbers) = match self.folded.get(&key) {
            Some(known) => known.clone(),
            None => {
                let mut state = (*self.states[world.state as usize]).clone();
                let stamp = Stamp { n: state.head + 1, time: Time(0), signer: host(sent.signer) };
                let counted = state.apply_by(self.rules, &stamp, &event).is_ok();
                let (state, numbers) = renumbered(state);
                let result = (self.intern(state), counted, Rc::new(numbers));
                self.folded.insert(key, result.clone());
                result
            }
        };
        next.state = state;
        for writer in &mut next.writers[..self.bounds.writers] {
            for sent in [&mut writer.sent, &mut writer.ghost].into_iter().flatten() {
                sent.free = false; // and what it says names no entry
            }
        }
        for collector in &mut next.collectors[..self.bounds.collectors] {
            if let Some((_, stored_on)) = &mut collector.merged {
                *stored_on = rank(&numbers, u64::from(*stored_on)) as u8;
            }
            if let Some(sent) = &mut collector.sent {
                sent.free = false;
                sent.event = self.overtaken(sent.event, &numbers);
            }
        }
        Some((next, counted))
    }

    /// The same event, where another entry took its place and entries have new numbers.
    fn overtaken(&mut self, event: u16, numbers: &[u64]) -> u16 {
        let mut event = (*self.events[usize::from(event)]).clone();
        match &mut event {
            Event::Condemn(condemn) => {
                condemn.tail = NO_ENTRY;
                condemn.merged_on = rank(numbers, condemn.merged_on);
            }
            Event::Sweep(sweep) => {
                sweep.tail = NO_ENTRY;
                // If that Condemn is over, no other may take its number.
                let known = sweep.condemn != NO_ENTRY && numbers.contains(&sweep.condemn);
                sweep.condemn = if known { rank(numbers, sweep.condemn) } else { NO_ENTRY };
            }
            _ => {}
        }
        self.event(event)
    }

    /// An append whose content does not depend on the state: sent and landed in one step.
    fn append(&mut self, world: &World, event: Event, signer: u8) -> (World, bool) {
        let sent = self.send(event, signer);
        self.land(world, sent).expect("the place after the head is free")
    }

    pub fn steps(&mut self, world: &World) -> Vec<(Step, World)> {
        let mut out = Vec::new();
        for writer in 0..self.bounds.writers {
            self.writer_steps(world, writer, &mut out);
        }
        for collector in 0..self.bounds.collectors {
            self.collector_steps(world, collector, &mut out);
        }
        self.deletions(world, &mut out);
        self.fences_and_abandons(world, &mut out);
        self.drops(world, &mut out);
        out
    }
}
