//! The log's protocol, searched exhaustively: every order in which two writers, two collectors and a user who drops points
//! can take their steps within the bounds, with crashes, lost answers and lagging lists.
//!
//! The search runs on the production fold and rules. That it would notice a mistake is shown by making them: each rule is
//! broken once, and the search must find a world in which a recovery point has lost something.

#![allow(clippy::print_stdout, clippy::unwrap_used)] // the number of worlds searched is what one wants to read here

mod world;

use mainstay_domain::{HostId, ObjectId, PackId, Time};
use mainstay_repository::log::{
    Ignored, Protocol, Rules, State,
    event::{Commit, Condemn, Sweep},
    facts::OpenSession,
};
use world::{Bounds, Map, Model, Step, World};

/// A search that takes more than a few hundred megabytes has bounds that are too wide for a test.
const MAX_WORLDS: usize = 3_000_000;

type Needed<'a> = &'a dyn Fn(&PackId) -> bool;
type Names<'a> = &'a dyn Fn(&ObjectId) -> Vec<PackId>;

struct Found {
    worlds: usize,
    log_states: usize,
    violation: Option<String>,
}

/// Breadth first, so that the first violation is among the shortest. `heal`: also check from every world that all garbage
/// can still be collected.
fn search(rules: &dyn Rules, bounds: Bounds, heal: bool) -> Found {
    let (mut model, first) = Model::new(rules, bounds);
    let mut known: Map<World, ()> = Map::default();
    known.insert(first, ());
    let mut worlds: Vec<(World, u32, Option<Step>)> = vec![(first, 0, None)];
    let mut remains: Map<World, ()> = Map::default();
    let mut next = 0;
    let mut violation = None;
    while next < worlds.len() {
        let world = worlds[next].0;
        let mut wrong = model.violation(&world);
        if wrong.is_none() && heal && remains.insert(world.remains(), ()).is_none() {
            wrong = model.healed(&world.remains()).err();
        }
        if let Some(wrong) = wrong {
            let mut path = Vec::new();
            let mut at = next;
            while let Some(step) = worlds[at].2 {
                path.push(format!("  {step:?}"));
                at = worlds[at].1 as usize;
            }
            path.reverse();
            violation = Some(format!("{wrong}, after\n{}\n", path.join("\n")));
            break;
        }
        for (step, successor) in model.steps(&world) {
            let successor = successor.canonical(&bounds);
            if known.insert(successor, ()).is_none() {
                worlds.push((successor, next as u32, Some(step)));
            }
        }
        next += 1;
        assert!(worlds.len() < MAX_WORLDS, "the bounds are too wide");
    }
    Found { worlds: worlds.len(), log_states: model.distinct_states(), violation }
}

fn holds(name: &str, bounds: Bounds) {
    holds_by(name, &Protocol, bounds);
}

fn holds_by(name: &str, rules: &dyn Rules, bounds: Bounds) {
    let found = search(rules, bounds, true);
    println!("{name}: {} worlds, {} states of the log", found.worlds, found.log_states);
    assert!(found.violation.is_none(), "{name}: {}", found.violation.unwrap());
}

/// One writer, one collector, one point that may be dropped.
const SMALL: Bounds = Bounds {
    writers: 1,
    sessions: 1,
    collectors: 1,
    condemns: 1,
    merges: 0,
    drops: 1,
    abandons: 0,
    writers_in_flight: false,
    lagging_list: true,
    careless: false,
    fine: true,
};

#[test]
fn two_writers_and_a_collector_lose_nothing_and_all_garbage_can_go() {
    let bounds = Bounds { writers: 2, condemns: 2, lagging_list: false, fine: false, ..SMALL };
    holds("two writers, two collections", bounds);
}

#[test]
fn two_collectors_at_once_lose_nothing() {
    holds("two writers, two collectors", Bounds { writers: 2, collectors: 2, fine: false, ..SMALL });
    let longer = Bounds { collectors: 2, condemns: 2, lagging_list: false, fine: false, ..SMALL };
    holds("two collectors, two collections", longer);
}

#[test]
fn one_session_after_the_other_loses_nothing() {
    holds("two sessions, two collections", Bounds { sessions: 2, condemns: 2, fine: false, ..SMALL });
}

#[test]
fn lost_answers_and_late_creates_of_writers_lose_nothing() {
    let bounds = Bounds { condemns: 2, merges: 1, abandons: 1, writers_in_flight: true, ..SMALL };
    holds("appends in flight, merged segments, abandoned collections", bounds);
}

#[test]
fn two_writers_with_lost_answers_and_a_list_that_lags_lose_nothing() {
    let bounds = Bounds { writers: 2, writers_in_flight: true, ..SMALL };
    holds("two writers, appends in flight, a lagging list", bounds);
    let merging = Bounds { merges: 1, abandons: 1, fine: false, ..bounds };
    holds("the same, merged segments, abandoned collections", merging);
}

#[test]
fn merged_segments_lead_to_every_pack() {
    let bounds = Bounds { writers: 2, merges: 1, abandons: 1, fine: false, ..SMALL };
    holds("two writers, merged segments, abandoned collections", bounds);
}

#[test]
fn sweeps_sent_without_asking_lose_nothing() {
    holds("a careless collector", Bounds { condemns: 2, careless: true, fine: false, ..SMALL });
}

/// Whether a session is dead cannot be known. So it must not matter who is fenced when.
#[test]
fn fencing_anyone_at_any_time_loses_nothing() {
    struct FenceAnyone;
    impl Rules for FenceAnyone {
        fn may_fence(&self, _: &OpenSession, _: u64, _: Time, _: i64) -> bool {
            true
        }
    }
    holds_by("fencing anyone", &FenceAnyone, Bounds { condemns: 2, fine: false, ..SMALL });
}

/// What is condemned is only a proposal: the Sweep works out anew what is needed.
#[test]
fn condemning_on_an_old_state_loses_nothing() {
    struct CondemnLate;
    impl Rules for CondemnLate {
        fn condemn_is_current(&self, _: &Condemn, _: u64) -> Result<(), Ignored> {
            Ok(())
        }
    }
    holds_by("stale Condemns", &CondemnLate, Bounds { condemns: 2, fine: false, ..SMALL });
}

/// The search must find what is wrong with broken rules.
fn is_caught(name: &str, rules: &dyn Rules, bounds: Bounds) {
    let found = search(rules, bounds, false);
    let violation =
        found.violation.unwrap_or_else(|| panic!("{name} went unnoticed in {} worlds", found.worlds));
    println!("{name}: caught after {} worlds: {violation}", found.worlds);
}

#[test]
fn a_sweep_that_does_not_wait_for_older_sessions_is_caught() {
    struct Broken;
    impl Rules for Broken {
        fn older_sessions_ended(&self, _: &State, _: u64) -> Result<(), Ignored> {
            Ok(())
        }
    }
    is_caught("a hasty Sweep", &Broken, SMALL);
}

#[test]
fn a_session_that_relies_on_condemned_packs_is_caught() {
    struct Broken;
    impl Rules for Broken {
        fn may_deduplicate(&self, state: &State, begin: u64, pack: &PackId) -> bool {
            let mut forgetful = state.clone();
            forgetful.facts.condemned.clear();
            Protocol.may_deduplicate(&forgetful, begin, pack)
        }
    }
    is_caught("relying on condemned packs", &Broken, SMALL);
}

#[test]
fn a_session_that_relies_on_swept_packs_is_caught() {
    struct Broken;
    impl Rules for Broken {
        fn may_deduplicate(&self, state: &State, begin: u64, pack: &PackId) -> bool {
            let mut forgetful = state.clone();
            forgetful.facts.dead.clear();
            forgetful.facts.sweeps.clear();
            Protocol.may_deduplicate(&forgetful, begin, pack)
        }
    }
    is_caught("relying on swept packs", &Broken, SMALL);
}

#[test]
fn a_commit_after_the_fence_is_caught() {
    struct Broken;
    impl Rules for Broken {
        fn commit_counts(&self, _: &State, _: &Commit, _: &HostId) -> Result<(), Ignored> {
            Ok(())
        }
    }
    is_caught("a fence without effect", &Broken, SMALL);
}

#[test]
fn a_sweep_that_is_not_tied_to_its_tail_is_caught() {
    struct Broken;
    impl Rules for Broken {
        fn sweep_is_current(&self, _: &Sweep, _: u64) -> Result<(), Ignored> {
            Ok(())
        }
    }
    is_caught("a late Sweep", &Broken, Bounds { careless: true, ..SMALL });
}

#[test]
fn a_sweep_of_all_that_was_condemned_is_caught() {
    struct Broken;
    impl Rules for Broken {
        fn to_sweep(&self, state: &State, condemn: u64, _: Needed<'_>, names: Names<'_>) -> Option<Sweep> {
            Protocol.to_sweep(state, condemn, &|_| false, names)
        }
    }
    is_caught("no rescue of packs", &Broken, SMALL);
}

#[test]
fn a_sweep_of_the_only_segment_that_names_a_needed_pack_is_caught() {
    struct Broken;
    impl Rules for Broken {
        fn to_sweep(&self, state: &State, condemn: u64, needed: Needed<'_>, _: Names<'_>) -> Option<Sweep> {
            Protocol.to_sweep(state, condemn, needed, &|_| Vec::new())
        }
    }
    is_caught("no rescue of segments", &Broken, Bounds { merges: 1, ..SMALL });
}

#[test]
fn a_merged_segment_of_an_earlier_state_is_caught() {
    struct Broken;
    impl Rules for Broken {
        fn merge_is_current(&self, _: &Condemn) -> Result<(), Ignored> {
            Ok(())
        }
    }
    is_caught("a stale merge", &Broken, Bounds { merges: 1, ..SMALL });
}

#[test]
fn a_merged_segment_that_passes_for_clean_of_outstanding_condemns_is_caught() {
    struct Broken;
    impl Rules for Broken {
        fn merged_is_clean_to(&self, _: &State, n: u64) -> u64 {
            n
        }
    }
    is_caught("a merge too clean", &Broken, Bounds { condemns: 2, merges: 1, ..SMALL });
}

#[test]
fn garbage_that_nobody_may_ever_collect_is_caught() {
    struct Broken;
    impl Rules for Broken {
        fn may_fence(&self, _: &OpenSession, _: u64, _: Time, _: i64) -> bool {
            false
        }
    }
    let found = search(&Broken, SMALL, true);
    assert!(found.violation.expect("a dead session blocks collection").contains("garbage stays"));
}
