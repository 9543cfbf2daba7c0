//! What a writer does: a session after the other, each with a crash possible at every point.

use super::{
    Done, Model, Phase, Sent, Step, World, Writer,
    names::{bit, members, pack_id, point_id, segment_id, session_id},
};
use mainstay_repository::log::{
    Event,
    event::{Begin, Commit, Fence},
};

impl Model<'_> {
    /// The number of the session that a writer is at, or would begin next.
    pub(super) fn session_of(&self, world: &World, writer: usize) -> u8 {
        1 + writer as u8 * self.bounds.sessions + world.writers[writer].session
    }

    pub(super) fn writer_steps(&mut self, world: &World, w: usize, out: &mut Vec<(Step, World)>) {
        let writer = world.writers[w];
        let signer = w as u8 + 1;
        if let Some(ghost) = writer.ghost {
            if let Some((mut next, _)) = self.land(world, ghost) {
                next.writers[w].ghost = None;
                out.push((Step::GhostLands { writer: w }, next));
            }
            if !ghost.free {
                // Its place is taken: it can never land, and may be forgotten.
                let mut next = *world;
                next.writers[w].ghost = None;
                return self.writer_steps(&next, w, out);
            }
        }
        if writer.session == self.bounds.sessions {
            return;
        }
        let s = self.session_of(world, w);
        let over = |mut next: World| {
            next.writers[w] =
                Writer { session: writer.session + 1, phase: Phase::Idle, sent: None, ghost: writer.ghost };
            next
        };

        // A crash at any point: all is forgotten but what is in flight.
        if writer.phase != Phase::Idle {
            let mut next = over(*world);
            next.writers[w].ghost = writer.sent.or(writer.ghost);
            if next.manifests & bit(s) == 0 {
                next.refs[usize::from(s)] = 0;
            }
            out.push((Step::Crash { writer: w }, next));
        }

        match writer.phase {
            Phase::Idle => {
                let begin = Event::Begin(Begin { session: session_id(s), wal_floor: None });
                if self.bounds.writers_in_flight {
                    let mut next = *world;
                    next.writers[w].sent = Some(self.send(begin, signer));
                    next.writers[w].phase = Phase::Beginning;
                    out.push((Step::Send { writer: w, what: "Begin" }, next));
                } else {
                    let (next, _) = self.append(world, begin, signer);
                    self.begun(&next, w, s, out);
                }
            }
            Phase::Beginning => {
                let sent = writer.sent.expect("a writer that begins has sent its Begin");
                match self.land(world, sent) {
                    Some((next, _)) => self.begun(&next, w, s, out),
                    None => {
                        // Another was faster: a new place for the same event.
                        let mut next = *world;
                        next.writers[w].sent = Some(Sent { free: true, ..sent });
                        out.push((Step::Send { writer: w, what: "Begin" }, next));
                    }
                }
            }
            Phase::Working { done } => {
                let mut next = *world;
                let own = world.refs[usize::from(s)] & bit(s) != 0;
                let abort = Event::Fence(Fence { session: session_id(s) });
                match done {
                    Done::Nothing if own => {
                        next.packs |= bit(s);
                        next.ever_packs |= bit(s);
                        next.writers[w].phase = Phase::Working { done: Done::Pack };
                        out.push((Step::StorePack { writer: w }, next));
                    }
                    Done::Pack => {
                        if !self.bounds.fine {
                            next.manifests |= bit(s);
                            next.ever_manifests |= bit(s);
                        }
                        next.segments |= bit(s);
                        next.ever_segments |= bit(s);
                        let done = if self.bounds.fine { Done::Segment } else { Done::Manifest };
                        next.writers[w].phase = Phase::Working { done };
                        out.push((Step::StoreSegment { writer: w }, next));
                    }
                    Done::Nothing | Done::Segment => {
                        next.manifests |= bit(s);
                        next.ever_manifests |= bit(s);
                        next.writers[w].phase = Phase::Working { done: Done::Manifest };
                        out.push((Step::StoreManifest { writer: w }, next));
                    }
                    Done::Manifest => {
                        // It does not even look whether it was fenced: the fold has to.
                        let commit = Event::Commit(Commit {
                            session: session_id(s),
                            point: point_id(s),
                            index: if own { vec![segment_id(s)] } else { Vec::new() },
                            summary: None,
                        });
                        if self.bounds.writers_in_flight {
                            next.writers[w].sent = Some(self.send(commit, signer));
                            next.writers[w].phase = Phase::Committing;
                            out.push((Step::Send { writer: w, what: "Commit" }, next));
                        } else {
                            let (next, counted) = self.append(world, commit, signer);
                            let step = if counted {
                                Step::Committed { writer: w }
                            } else {
                                Step::Refused { writer: w }
                            };
                            out.push((step, over(next)));
                        }
                    }
                }
                // A clean end.
                let (next, _) = self.append(world, abort, signer);
                out.push((Step::Abort { writer: w }, over(next)));
            }
            Phase::Committing => {
                let sent = writer.sent.expect("a writer that commits has sent its Commit");
                match self.land(world, sent) {
                    Some((next, counted)) => {
                        let step =
                            if counted { Step::Committed { writer: w } } else { Step::Refused { writer: w } };
                        out.push((step, over(next)));
                    }
                    None => {
                        let mut next = *world;
                        next.writers[w].sent = Some(Sent { free: true, ..sent });
                        out.push((Step::Send { writer: w, what: "Commit" }, next));
                    }
                }
            }
        }
    }

    /// The Begin has landed: the session decides on what it sees there, and on nothing later.
    fn begun(&mut self, world: &World, w: usize, s: u8, out: &mut Vec<(Step, World)>) {
        let view = self.state(world);
        let known = view.live_index().fold(0, |set, segment| set | world.names(segment));
        let begin = view.facts.sessions[&session_id(s)].begin;
        let usable = members(known).filter(|p| self.rules.may_deduplicate(&view, begin, &pack_id(*p)));
        for refs in usable.map(bit).chain([bit(s)]) {
            let mut next = *world;
            next.refs[usize::from(s)] = refs;
            next.writers[w].sent = None;
            next.writers[w].phase = Phase::Working { done: Done::Nothing };
            out.push((Step::Begun { writer: w, refs }, next));
        }
    }
}
