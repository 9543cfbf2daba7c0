//! Which recovery points are kept, and why: pure decisions over plain values.
//!
//! [`decide`] looks at all points of a repository or of one application and says of each whether it stays, with the reasons in
//! plain words and, where it can be known, when it goes. It reads no clock, changes nothing, and gives the same answer in
//! whatever order the points come. Who carries a decision out asks the log again: a hold placed meanwhile wins there.
//!
//! What the rules of a policy count is kept apart by application, policy and signer, so that nobody's points push out those
//! of another. Only complete points count that are not known to be damaged, and a safety copy (the state that a restore replaced) takes no other's place. Whatever the rules say, these stay:
//!
//! - a point with a hold, and a manual one until its own end;
//! - the newest complete point of each source, application, policy and signer, and an incomplete one until a complete one follows: a
//!   backup of some sources takes no place of one that holds others, and one that leaves a part of a source out (row filters,
//!   excluded tables) none of one that has all of it. The same goes for the places that rules give: a point competes with those
//!   that have at least what it has;
//! - the point last proven by a restore, of each source, and of all of it;
//! - what was superseded less than `grace` ago;
//! - what cannot be judged: points dated in the future, and points of a policy that is no longer configured or has no rules.

mod keep;
mod reason;

pub use keep::{Keep, Rule};
pub use reason::Reason;

use crate::{
    HostId, PointId, Time,
    point::{Hold, Proof, ProofLevel, State, Summary},
    time::Span,
};
use jiff::tz::TimeZone;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// A recovery point, as far as retention needs to know it.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    pub point: PointId,
    pub summary: &'a Summary,
    /// Who signed it.
    pub signer: HostId,
    pub holds: &'a [Hold],
    /// The latest of each level.
    pub proofs: &'a BTreeMap<ProofLevel, Proof>,
    /// The last of each level that passed.
    pub passed: &'a BTreeMap<ProofLevel, Proof>,
    /// Known to be damaged: it needs what is lost, or a look at it failed and none passed since. It takes no other's place.
    pub damaged: bool,
}

/// What becomes of a point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decision {
    pub point: PointId,
    pub keep: bool,
    /// Never empty. Of a point that goes: why nothing keeps it.
    pub reasons: Vec<Reason>,
    /// When it goes if nothing new happens; `None` where that cannot be known, or is never. Of a point that goes now: since
    /// when it has been free to go.
    pub goes_at: Option<Time>,
}

/// Decides about every point. `policies` are those of the configuration; `zone` is where its hours and days are counted.
///
/// The decisions come in order of application, time and id.
pub fn decide(
    points: &[Candidate<'_>],
    policies: &BTreeMap<String, Keep>,
    now: Time,
    grace: Span,
    zone: &TimeZone,
) -> Vec<Decision> {
    let mut points = points.to_vec();
    points.sort_by(|a, b| (&a.summary.app, age_order(a)).cmp(&(&b.summary.app, age_order(b))));
    points.dedup_by_key(|candidate| candidate.point);
    let ruled = chosen_by_rules(&points, policies, now, zone);
    let proven = last_proven(&points, now);
    let successors = Successors::new(&points, now);
    let judge = |point: &Candidate<'_>| {
        let mut verdict = Verdict::default();
        holds(point, now, &mut verdict);
        if is_future(point, now) {
            verdict.keep(Reason::Future { started: point.summary.started }, None);
        }
        let successor = successors.of(point);
        if successor.is_none() && !is_future(point, now) {
            let state = point.summary.state;
            let (sources, whole) = successors.newest_of(point);
            match (is_complete(point), point.damaged) {
                (true, _) if sources.iter().any(String::is_empty) => verdict.keep(Reason::Newest, None),
                (true, _) => {
                    if !sources.is_empty() {
                        verdict.keep(Reason::NewestOf { sources }, None);
                    }
                    if !whole.is_empty() {
                        verdict.keep(Reason::NewestWhole { sources: whole }, None);
                    }
                }
                (false, true) => verdict.keep(Reason::NothingWholeSince, None),
                (false, false) => verdict.keep(Reason::NothingCompleteSince { state }, None),
            }
        }
        if proven.contains(&point.point) {
            verdict.keep(Reason::LastProven, None);
        }
        by_policy(point, policies, &ruled, now, &mut verdict);
        own_end(point, now, &mut verdict);
        if let Some(successor) = successor {
            superseded(point, successor, now, grace, &mut verdict);
        }
        verdict.decide(point.point)
    };
    points.iter().map(judge).collect()
}

/// The reasons found so far, those to keep and those to let go, with the end of each.
#[derive(Default)]
struct Verdict {
    keep: Vec<(Reason, Option<Time>)>,
    go: Vec<(Reason, Time)>,
}

impl Verdict {
    /// `until`: when this reason ends, if that can be known.
    fn keep(&mut self, reason: Reason, until: Option<Time>) {
        self.keep.push((reason, until));
    }

    /// `since`: when this reason began.
    fn go(&mut self, reason: Reason, since: Time) {
        self.go.push((reason, since));
    }

    /// Any reason to keep wins; without any reason at all a point is kept, too.
    fn decide(self, point: PointId) -> Decision {
        if self.keep.is_empty() && !self.go.is_empty() {
            let since = self.go.iter().map(|(_, since)| *since).max();
            let reasons = self.go.into_iter().map(|(reason, _)| reason).collect();
            return Decision { point, keep: false, reasons, goes_at: since };
        }
        // It goes when the last reason has ended, provided that every one ends at a known time.
        let ends: Option<Vec<Time>> = self.keep.iter().map(|(_, until)| *until).collect();
        let goes_at = ends.and_then(|ends| ends.into_iter().max());
        let mut reasons: Vec<Reason> = self.keep.into_iter().map(|(reason, _)| reason).collect();
        if reasons.is_empty() {
            reasons.push(Reason::Undecided);
        }
        Decision { point, keep: true, reasons, goes_at }
    }
}

fn holds(point: &Candidate<'_>, now: Time, verdict: &mut Verdict) {
    for hold in point.holds.iter().filter(|hold| hold.until.is_none_or(|until| until > now)) {
        let (kind, by) = (hold.kind.clone(), hold.by.clone());
        verdict.keep(Reason::Held { kind, by, until: hold.until }, hold.until);
    }
}

fn by_policy(
    point: &Candidate<'_>,
    policies: &BTreeMap<String, Keep>,
    ruled: &Ruled,
    now: Time,
    verdict: &mut Verdict,
) {
    let Some(policy) = point.summary.policy.clone() else { return };
    match policies.get(&policy) {
        None => verdict.keep(Reason::PolicyGone { policy }, None),
        Some(keep) if keep.is_empty() => verdict.keep(Reason::NoRules { policy }, None),
        Some(keep) => {
            for reason in ruled.get(&point.point).into_iter().flatten() {
                verdict.keep(reason.clone(), None);
            }
            if let Some(span) = keep.within.filter(|_| is_complete(point)) {
                let until = point.summary.started.plus(span.nanoseconds);
                if until > now {
                    verdict.keep(Reason::Within { policy, span, until }, Some(until));
                }
            }
        }
    }
}

/// A manual point stays until its own end, for ever if it has none; an end that a policy's point has counts as well.
fn own_end(point: &Candidate<'_>, now: Time, verdict: &mut Verdict) {
    match point.summary.keep_until {
        Some(until) if until > now => verdict.keep(Reason::Until { until }, Some(until)),
        None if point.summary.policy.is_none() => verdict.keep(Reason::Manual, None),
        _ => {}
    }
}

/// Something complete has followed: from `grace` after that on, a point may go.
fn superseded(point: &Candidate<'_>, (since, by): Finished, now: Time, grace: Span, verdict: &mut Verdict) {
    let state = point.summary.state;
    let until = since.plus(grace.nanoseconds.max(0));
    if until > now {
        // Worth saying only where nothing keeps it for longer.
        if verdict.keep.iter().all(|(_, end)| end.is_some_and(|end| end < until)) {
            verdict.keep(Reason::Grace { by, until }, Some(until));
        }
        return;
    }
    match (&point.summary.policy, point.summary.keep_until) {
        (None, Some(end)) if end <= now => verdict.go(Reason::EndReached { until: end }, end.max(until)),
        (None, _) => {}
        (Some(_), _) if point.damaged => verdict.go(Reason::WholeSince { by, since }, until),
        (Some(_), _) if !is_complete(point) => verdict.go(Reason::CompleteSince { state, by, since }, until),
        (Some(policy), _) => {
            verdict.go(Reason::NoRuleKeepsIt { policy: policy.clone(), by, since }, until);
        }
    }
}

/// What a point holds: its sources by name, and the whole, under no name, which every point has.
fn holdings<'a>(point: &Candidate<'a>) -> Vec<&'a str> {
    let held = point.summary.sources.iter().filter(|source| source.state != State::Failed);
    let mut names: Vec<&str> = held.map(|source| source.name.as_str()).collect();
    names.push("");
    names
}

/// The same, each with how much of it, and twice where all of it is held: a part is less than the whole, and the whole is a part.
fn extents<'a>(point: &Candidate<'a>) -> Vec<(&'a str, Extent)> {
    // A safety copy is a state that was given up, which any later point follows; of a stopped cluster it holds sources that no
    // backup ever has.
    if point.summary.is_safety_copy() {
        return vec![("", Extent::Part)];
    }
    let sources = &point.summary.sources;
    let whole = sources.iter().filter(|source| source.state == State::Complete && !source.partial);
    let whole = whole.map(|source| (source.name.as_str(), Extent::Whole));
    holdings(point).into_iter().map(|name| (name, Extent::Part)).chain(whole).collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Extent {
    Part,
    Whole,
}

/// A source, and how much of it.
type Holding<'a> = (&'a str, Extent);

/// Since when each point has not been the newest complete one any more of anything that it holds, and because of which other point.
///
/// What makes a point dispensable is, for each of its sources, a younger complete point with as much of that source, of the same application
/// and signer, and of the same policy if the point has a policy. Of several the one that was there first counts; of several sources
/// the last to be followed.
struct Successors<'a> {
    /// Complete points, oldest first, each with the first to be finished of it and all younger ones.
    peers: BTreeMap<Peers<'a>, Vec<(Age, Finished)>>,
}

/// Application, policy (`None`: any), signer, source and how much of it.
type Peers<'a> = (&'a str, Option<&'a str>, HostId, (&'a str, Extent));
type Age = (Time, Time, PointId);
type Finished = (Time, PointId);

impl<'a> Successors<'a> {
    fn new(points: &[Candidate<'a>], now: Time) -> Self {
        let mut peers: BTreeMap<_, Vec<_>> = BTreeMap::new();
        let counts = |point: &&Candidate<'_>| {
            is_complete(point) && !is_future(point, now) && !point.summary.is_safety_copy()
        };
        for point in points.iter().filter(counts) {
            let policy = point.summary.policy.as_deref();
            let entry = (age_order(point), (point.summary.finished, point.point));
            // Every point is a peer of the manual ones.
            for policy in [None].into_iter().chain(policy.map(Some)) {
                for extent in extents(point) {
                    let group = (point.summary.app.as_str(), policy, point.signer, extent);
                    peers.entry(group).or_default().push(entry);
                }
            }
        }
        for group in peers.values_mut() {
            for at in (1..group.len()).rev() {
                group[at - 1].1 = group[at - 1].1.min(group[at].1);
            }
        }
        Successors { peers }
    }

    /// What took its place, as soon as all of it was taken.
    fn of(&self, point: &Candidate<'_>) -> Option<Finished> {
        let followed: Option<Vec<Finished>> =
            extents(point).into_iter().map(|extent| self.of_extent(point, extent)).collect();
        followed?.into_iter().max()
    }

    /// Its sources of which nothing complete is newer, and those of which only parts are.
    fn newest_of(&self, point: &Candidate<'_>) -> (Vec<String>, Vec<String>) {
        let newest = extents(point).into_iter().filter(|extent| self.of_extent(point, *extent).is_none());
        let (parts, wholes): (Vec<_>, Vec<_>) = newest.partition(|(_, extent)| *extent == Extent::Part);
        let parts: Vec<String> = parts.into_iter().map(|(name, _)| name.to_owned()).collect();
        let wholes = wholes.into_iter().map(|(name, _)| name.to_owned());
        let wholes = wholes.filter(|name| !parts.contains(name)).collect();
        (parts, wholes)
    }

    fn of_extent(&self, point: &Candidate<'_>, extent: (&str, Extent)) -> Option<Finished> {
        let summary = point.summary;
        let group =
            self.peers.get(&(summary.app.as_str(), summary.policy.as_deref(), point.signer, extent))?;
        let younger = group.partition_point(|(age, _)| *age <= age_order(point));
        group.get(younger).map(|(_, first)| *first)
    }
}

type Ruled = BTreeMap<PointId, Vec<Reason>>;

/// What the counting rules choose: of each of the latest hours, days … in which there is a point at all, the newest.
fn chosen_by_rules(
    points: &[Candidate<'_>],
    policies: &BTreeMap<String, Keep>,
    now: Time,
    zone: &TimeZone,
) -> Ruled {
    // Each point competes with those alone that have at least what it has: one with some of the sources, or with a part of one, takes
    // no place from one with more, or with others.
    type Group<'a> = Vec<(BTreeSet<Holding<'a>>, &'a Candidate<'a>)>;
    let mut groups: BTreeMap<(&str, &str, HostId), Group<'_>> = BTreeMap::new();
    for point in points.iter().filter(|point| is_complete(point) && !is_future(point, now)) {
        if let Some(policy) = &point.summary.policy {
            let group = groups.entry((&point.summary.app, policy, point.signer)).or_default();
            group.push((extents(point).into_iter().collect(), point));
        }
    }
    let mut chosen = Ruled::new();
    for ((_, policy, _), group) in groups {
        let Some(keep) = policies.get(policy) else { continue };
        let kinds: BTreeSet<_> = group.iter().map(|(has, _)| has).collect();
        for kind in kinds {
            let peers: Vec<_> = group.iter().rev().filter(|(has, _)| has.is_superset(kind)).collect();
            for (rule, of) in keep.counts() {
                let mut seen = BTreeSet::new();
                for (has, point) in &peers {
                    let slot = rule.slot(point.summary.started, zone);
                    // Without a calendar every point is a slot of its own.
                    if slot.as_ref().is_some_and(|slot| seen.contains(slot)) {
                        continue;
                    }
                    seen.insert(slot.clone().unwrap_or_else(|| point.point.to_string()));
                    let nth = seen.len() as u32;
                    if nth > of {
                        break;
                    }
                    // One with more has its place, or a better one, among its own kind.
                    if has == kind {
                        let reason = Reason::Rule { policy: policy.to_owned(), rule, nth, of, slot };
                        chosen.entry(point.point).or_default().push(reason);
                    }
                }
            }
        }
    }
    chosen
}

/// Of each application and each source the newest point that a restore has proven, and the one that was proven last.
///
/// A later test that fails does not undo a proof: what failed may have been the test. But nobody should have to rely on such a
/// point either, so the same is asked once more of those that passed their latest test.
fn last_proven(points: &[Candidate<'_>], now: Time) -> BTreeSet<PointId> {
    let mut last = last_of(points, now, |point| point.passed.get(&ProofLevel::Restore));
    let latest = |point: &Candidate<'_>| point.proofs.get(&ProofLevel::Restore).is_some_and(|p| p.passed);
    last.extend(last_of(points, now, |point| {
        point.passed.get(&ProofLevel::Restore).filter(|_| latest(point))
    }));
    last
}

fn last_of<'a>(
    points: &'a [Candidate<'a>],
    now: Time,
    proof: impl Fn(&Candidate<'a>) -> Option<&'a Proof>,
) -> BTreeSet<PointId> {
    // The proof of a point says nothing about what it does not hold of a source.
    type Proven<'a> = Vec<(Time, &'a Candidate<'a>)>;
    let mut proven: BTreeMap<(&str, Holding<'_>), Proven<'_>> = BTreeMap::new();
    for point in points {
        if let Some(proof) = proof(point) {
            for extent in extents(point) {
                proven.entry((&point.summary.app, extent)).or_default().push((proof.at, point));
            }
        }
    }
    let mut last = BTreeSet::new();
    for of_source in proven.values() {
        let credible = || of_source.iter().filter(|(at, point)| *at <= now && !is_future(point, now));
        last.extend(credible().max_by_key(|(_, point)| age_order(point)).map(|(_, point)| point.point));
        last.extend(
            credible().max_by_key(|(at, point)| (*at, age_order(point))).map(|(_, point)| point.point),
        );
        // A proof from the future cannot be ranked, so it neither counts nor is lost.
        last.extend(of_source.iter().filter(|(at, _)| *at > now).map(|(_, point)| point.point));
    }
    last
}

/// Complete when it was made, and as far as is known still whole.
fn is_complete(point: &Candidate<'_>) -> bool {
    point.summary.state == State::Complete && !point.damaged
}

/// Made by a clock that was wrong then, or judged by one that is wrong now.
fn is_future(point: &Candidate<'_>, now: Time) -> bool {
    point.summary.started > now || point.summary.finished > now
}

/// A point is as old as its beginning: that is the state which it holds, and it does not move with the load of the day.
fn age_order(point: &Candidate<'_>) -> Age {
    (point.summary.started, point.summary.finished, point.point)
}

#[cfg(test)]
mod tests;
