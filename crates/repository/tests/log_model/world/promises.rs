//! What must hold in every world, and what everyone's death must leave possible.

use super::{
    COLLECTOR, MAX_MERGES, Model, Set, World,
    names::{bit, merged_id, pack_of, point_of, segment_id, segment_of},
};
use mainstay_domain::{ObjectId, SessionId, Time};
use mainstay_repository::log::{Event, event::Fence};

impl Model<'_> {
    /// What must hold in every world.
    pub fn violation(&self, world: &World) -> Option<String> {
        let state = self.state(world);
        let facts = &state.facts;
        let findable = (state.readable_index())
            .filter(|segment| world.has_segment(segment))
            .fold(0, |set, segment| set | world.names(segment));
        for point in facts.points.keys() {
            let s = point_of(point);
            let refs = world.refs[usize::from(s)];
            if refs & !world.packs != 0 {
                return Some(format!("point {s} needs packs {refs:b}, the store has {:b}", world.packs));
            }
            if world.manifests & bit(s) == 0 {
                return Some(format!("the manifest of point {s} is gone"));
            }
            if refs & !findable != 0 {
                return Some(format!("no segment names the packs {refs:b} of point {s}"));
            }
            if world.fenced & bit(s) != 0 {
                return Some(format!("session {s} committed after its fence"));
            }
        }
        let needed = world.referenced(&state);
        let swept = facts.sweeps.values().flat_map(|objects| &objects.packs);
        if swept.chain(facts.dead.values().flatten()).any(|pack| needed & bit(pack_of(pack)) != 0) {
            return Some("a live point references a swept pack".into());
        }
        if let Some(segment) = state.live_index().find(|segment| !world.has_segment(segment)) {
            return Some(format!("live segment {:?} is gone", segment_of(segment)));
        }
        None
    }

    /// Everyone has crashed; a fresh collector with a true LIST comes twice. Is all garbage gone, and nothing else?
    pub fn healed(&mut self, world: &World) -> Result<(), String> {
        let mut world = *world;
        let live = world.referenced(&self.state(&world));
        for _ in 0..3 {
            let state = self.state(&world);
            let condemn = self.condemn(&world, &state, Set::MAX, false, None);
            world = self.append(&world, Event::Condemn(condemn), COLLECTOR).0;
            let sessions: Vec<SessionId> = (self.state(&world).facts.sessions.iter())
                .filter(|(id, session)| {
                    let seen = u64::from(world.packs & bit(id.0[0]) != 0);
                    self.rules.may_fence(session, seen, Time(0), 0)
                })
                .map(|(id, _)| *id)
                .collect();
            for session in sessions {
                world = self.append(&world, Event::Fence(Fence { session }), COLLECTOR).0;
            }
            let outstanding: Vec<u64> = self.state(&world).facts.condemned.keys().copied().collect();
            for condemn in outstanding {
                let state = self.state(&world);
                if let Some(sweep) = self.sweep(&world, &state, condemn) {
                    world = self.append(&world, Event::Sweep(sweep), COLLECTOR).0;
                }
            }
            loop {
                let mut steps = Vec::new();
                self.deletions(&world, &mut steps);
                let Some((_, next)) = steps.pop() else { break };
                world = next;
                if let Some(violation) = self.violation(&world) {
                    return Err(format!("while healing: {violation}"));
                }
            }
        }
        let state = self.state(&world);
        let facts = &state.facts;
        let manifests = facts.points.keys().fold(0, |set, point| set | bit(point_of(point)));
        let orphaned =
            |segment: ObjectId| world.has_segment(&segment) && !facts.segments.contains_key(&segment);
        let orphans = (0..8).any(|s| orphaned(segment_id(s)))
            || (0..MAX_MERGES as u8).any(|number| orphaned(merged_id(number)));
        let quiet = facts.sessions.is_empty() && facts.condemned.is_empty() && facts.sweeps.is_empty();
        if world.packs != live || world.manifests != manifests || orphans || !quiet {
            return Err(format!("garbage stays for ever: {world:?}\n{facts:#?}"));
        }
        Ok(())
    }
}
