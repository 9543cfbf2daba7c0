//! What collectors do, and a user who drops points.

use super::{
    CARELESS_SWEEPS, COLLECTOR, Collector, Model, Sent, Set, Step, World,
    names::{bit, members, merged_id, pack_id, pack_of, point_id, point_of, segment_id, segment_of, subsets},
};
use mainstay_domain::{ObjectId, Time};
use mainstay_repository::log::{
    Event, State,
    event::{Abandon, Condemn, DropPoint, Fence, Sweep, Swept},
};

impl Model<'_> {
    pub(super) fn collector_steps(&mut self, world: &World, c: usize, out: &mut Vec<(Step, World)>) {
        let collector = world.collectors[c];
        if let Some(sent) = collector.sent {
            match self.land(world, sent) {
                Some((mut next, _)) => {
                    next.collectors[c].sent = None;
                    out.push((Step::Lands { collector: c }, next));
                }
                None => {
                    // It should compute anew. A careless one sends the same again, at a place that is free.
                    let mut next = *world;
                    next.collectors[c].sent = Some(Sent { free: true, ..sent });
                    out.push((Step::SendsAgain { collector: c }, next));
                }
            }
            let mut next = *world;
            next.collectors[c] = Collector::default();
            out.push((Step::GivesUp { collector: c }, next));
            return;
        }
        let state = self.state(world);
        if world.condemns < self.bounds.condemns {
            self.condemns(world, c, &state, out);
        }
        for condemn in state.facts.condemned.keys() {
            if self.bounds.careless && world.careless_sweeps == CARELESS_SWEEPS {
                break;
            }
            if let Some(next) = self.send_sweep(world, c, &state, *condemn) {
                out.push((Step::ComputeSweep { collector: c, condemn: *condemn }, next));
            }
        }
    }

    fn send_sweep(&mut self, world: &World, c: usize, state: &State, condemn: u64) -> Option<World> {
        let sweep = self.sweep(world, state, condemn)?;
        let mut next = *world;
        next.careless_sweeps += u8::from(self.bounds.careless);
        next.collectors[c].sent = Some(self.send(Event::Sweep(sweep), COLLECTOR));
        Some(next)
    }

    /// What a collector would sweep of this Condemn now, if the rules let it.
    pub(super) fn sweep(&self, world: &World, state: &State, condemn: u64) -> Option<Sweep> {
        let needed = world.referenced(state);
        let sweep =
            self.rules.to_sweep(state, condemn, &|pack| needed & bit(pack_of(pack)) != 0, &|segment| {
                world.names_ids(segment)
            })?;
        let counts = self.rules.sweep_counts(state, &sweep, state.head + 1).is_ok();
        (counts || self.bounds.careless).then_some(sweep)
    }

    fn condemns(&mut self, world: &World, c: usize, state: &State, out: &mut Vec<(Step, World)>) {
        // What LIST shows is given by the sessions whose objects it shows, and whether it shows deleted ones.
        let all = world.ever_packs | world.ever_segments | world.ever_manifests;
        let mut lists = vec![(all, false)];
        if self.bounds.lagging_list {
            lists = subsets(all).map(|seen| (seen, false)).chain([(all, true)]).collect();
        }
        let mut done = Vec::new();
        for (seen, deleted_too) in lists {
            let plain = self.condemn(world, state, seen, deleted_too, None);
            let merged = world.collectors[c].merged;
            let with_merged = merged
                .map(|merged| self.condemn(world, state, seen, deleted_too, Some(merged)))
                .filter(|condemn| self.rules.merge_is_current(condemn).is_ok());
            for condemn in [Some(plain), with_merged].into_iter().flatten() {
                if done.contains(&condemn) {
                    continue;
                }
                done.push(condemn.clone());
                let mut next = *world;
                next.condemns += 1;
                let step =
                    Step::ComputeCondemn { collector: c, seen, merged: !condemn.added_index.is_empty() };
                next.collectors[c] =
                    Collector { sent: Some(self.send(Event::Condemn(condemn), COLLECTOR)), merged: None };
                out.push((step, next));
            }
        }
        if world.merges < self.bounds.merges && world.collectors[c].merged.is_none() {
            let next = self.store_merged(world, state, c);
            let names = next.merged_names[usize::from(world.merges)];
            out.push((Step::StoreMerged { collector: c, names }, next));
        }
    }

    /// A merged segment of all live ones, without what nothing needs as of now.
    fn store_merged(&self, world: &World, state: &State, c: usize) -> World {
        let mut next = *world;
        let number = world.merges;
        let dead = state.facts.dead.values().flatten().fold(0, |set, pack| set | bit(pack_of(pack)));
        let known = state.live_index().fold(0, |set, segment| set | world.names(segment));
        let outstanding = (state.facts.condemned.values().flat_map(|objects| &objects.packs))
            .fold(0, |set, pack| set | bit(pack_of(pack)));
        // What this collector is about to condemn; packs that are condemned already stay named, they may be given back.
        let unneeded = known & !world.referenced(state) & !outstanding;
        next.merged_names[usize::from(number)] = known & !dead & !unneeded;
        next.merged |= bit(number);
        next.merges += 1;
        next.collectors[c].merged = Some((number, state.head as u8));
        next
    }

    /// All that a collector which sees these objects would condemn.
    pub(super) fn condemn(
        &self,
        world: &World,
        state: &State,
        seen: Set,
        deleted_too: bool,
        merged: Option<(u8, u8)>,
    ) -> Condemn {
        let listed = |there: Set, ever: Set| seen & if deleted_too { ever } else { there };
        let known = state.live_index().fold(0, |set, segment| set | world.names(segment));
        let doomed = |pick: fn(&mainstay_repository::log::facts::Objects) -> Set| {
            let facts = &state.facts;
            facts.condemned.values().chain(facts.sweeps.values()).fold(0, |set, objects| set | pick(objects))
        };
        let packs = (known | listed(world.packs, world.ever_packs))
            & !world.referenced(state)
            & !doomed(|o| o.packs.iter().fold(0, |set, pack| set | bit(pack_of(pack))));
        let live_manifests = state.facts.points.keys().fold(0, |set, point| set | bit(point_of(point)));
        let manifests = listed(world.manifests, world.ever_manifests)
            & !live_manifests
            & !doomed(|o| o.manifests.iter().fold(0, |set, point| set | bit(point_of(point))));
        let orphans = members(listed(world.segments, world.ever_segments)).map(segment_id);
        let mut index: Vec<ObjectId> = orphans
            .chain(members(world.merged).map(merged_id).filter(|_| seen != 0))
            .filter(|segment| !state.facts.segments.contains_key(segment))
            .filter(|segment| merged.is_none_or(|(number, _)| *segment != merged_id(number)))
            .filter(|segment| {
                let facts = &state.facts;
                !facts.condemned.values().chain(facts.sweeps.values()).any(|o| o.index.contains(segment))
            })
            .collect();
        if merged.is_some() {
            index.extend(state.live_index());
        }
        let observed = state.facts.sessions.keys().map(|id| {
            let there = listed(world.packs, world.ever_packs) & bit(id.0[0]) != 0;
            (*id, u64::from(there))
        });
        Condemn {
            tail: state.head,
            packs: members(packs).map(pack_id).collect(),
            manifests: members(manifests).map(point_id).collect(),
            index,
            added_index: merged.iter().map(|(number, _)| merged_id(*number)).collect(),
            observed: observed.collect(),
            merged_on: merged.map_or(0, |(_, on)| on.into()),
        }
    }

    /// Anyone may carry out what a counted Sweep says, and say so when all of it is gone.
    pub(super) fn deletions(&mut self, world: &World, out: &mut Vec<(Step, World)>) {
        let state = self.state(world);
        for (n, objects) in &state.facts.sweeps {
            let pack = objects.packs.iter().map(pack_of).find(|p| world.packs & bit(*p) != 0);
            let point = objects.manifests.iter().map(point_of).find(|p| world.manifests & bit(*p) != 0);
            let segment = objects.index.iter().find(|segment| world.has_segment(segment));
            if let Some(pack) = pack {
                let next = World { packs: world.packs & !bit(pack), ..*world };
                out.push((Step::DeletePack { pack }, next));
            } else if let Some(point) = point {
                let next = World { manifests: world.manifests & !bit(point), ..*world };
                out.push((Step::DeleteManifest { point }, next));
            } else if let Some(segment) = segment {
                let mut next = *world;
                match segment_of(segment) {
                    Ok(s) => next.segments &= !bit(s),
                    Err(number) => next.merged &= !bit(number),
                }
                out.push((Step::DeleteSegment { segment: segment_of(segment) }, next));
            } else {
                let (next, _) = self.append(world, Event::Swept(Swept { sweep: *n }), COLLECTOR);
                out.push((Step::SweptDone { sweep: *n }, next));
            }
        }
    }

    pub(super) fn fences_and_abandons(&mut self, world: &World, out: &mut Vec<(Step, World)>) {
        let state = self.state(world);
        for (id, session) in &state.facts.sessions {
            let s = id.0[0];
            let most = u64::from(world.ever_packs & bit(s) != 0);
            let least = if self.bounds.lagging_list { 0 } else { most };
            if (least..=most).any(|seen| self.rules.may_fence(session, seen, Time(0), 0)) {
                let (next, _) = self.append(world, Event::Fence(Fence { session: *id }), COLLECTOR);
                out.push((Step::FenceSession { session: s }, next));
            }
        }
        if world.abandons < self.bounds.abandons {
            for condemn in state.facts.condemned.keys() {
                let event = Event::Abandon(Abandon { condemn: *condemn });
                let (mut next, _) = self.append(world, event, COLLECTOR);
                next.abandons += 1;
                out.push((Step::AbandonCondemn { condemn: *condemn }, next));
            }
        }
    }

    pub(super) fn drops(&mut self, world: &World, out: &mut Vec<(Step, World)>) {
        if world.drops == self.bounds.drops {
            return;
        }
        for point in self.state(world).facts.points.keys() {
            let event = Event::Drop(DropPoint { point: *point, reason: None });
            let (mut next, _) = self.append(world, event, COLLECTOR);
            next.drops += 1;
            out.push((Step::DropLive { point: point_of(point) }, next));
        }
    }
}
