//! Tables of points and what becomes of them.

use super::*;
use crate::point::SourceSummary;
use crate::time::{DAY, HOUR, MINUTE};

mod properties;

/// 2026-01-01T00:00:00Z, a Thursday.
const EPOCH: Time = Time(1_767_225_600_000_000_000);
const GRACE: Span = Span { nanoseconds: 3 * DAY };
const HOST: HostId = HostId([1; 16]);

/// A point with everything that it owns.
#[derive(Debug, Clone)]
struct Sample {
    id: PointId,
    summary: Summary,
    signer: HostId,
    holds: Vec<Hold>,
    proofs: BTreeMap<ProofLevel, Proof>,
    passed: BTreeMap<ProofLevel, Proof>,
    damaged: bool,
}

/// A complete point of policy `nightly` of `shop`, begun this long after the epoch, and a minute at work.
fn sample(nanoseconds: i64) -> Sample {
    let started = EPOCH.plus(nanoseconds);
    let mut id = [0; 32];
    id[..8].copy_from_slice(&started.0.to_be_bytes());
    Sample {
        id: PointId(id),
        summary: Summary {
            app: "shop".into(),
            environment: "production".into(),
            policy: Some("nightly".into()),
            host: "web1".into(),
            started,
            finished: started.plus(MINUTE),
            sequence: 1,
            state: State::Complete,
            sources: vec![],
            stored_bytes: 0,
            labels: BTreeMap::new(),
            next_expected: None,
            keep_until: None,
        },
        signer: HOST,
        holds: vec![],
        proofs: BTreeMap::new(),
        passed: BTreeMap::new(),
        damaged: false,
    }
}

fn day(n: i64) -> Sample {
    sample(n * DAY + 3 * HOUR)
}

impl Sample {
    fn state(mut self, state: State) -> Self {
        self.summary.state = state;
        self
    }
    fn policy(mut self, policy: &str) -> Self {
        self.summary.policy = Some(policy.into());
        self.with_id(policy.len() as u8)
    }
    fn manual(mut self, keep_until: Option<Time>) -> Self {
        self.summary.policy = None;
        self.summary.keep_until = keep_until;
        self.with_id(100)
    }
    fn signer(mut self, signer: u8) -> Self {
        self.signer = HostId([signer; 16]);
        self.with_id(100 + signer)
    }
    fn held(mut self, until: Option<Time>) -> Self {
        self.holds.push(Hold {
            kind: "legal".into(),
            reason: "case 7".into(),
            by: "ann".into(),
            since: EPOCH,
            until,
        });
        self
    }
    fn proven(mut self, at: Time, level: ProofLevel, passed: bool) -> Self {
        let proof = Proof { at, level, passed, restore_millis: 1, report: String::new() };
        if passed {
            self.passed.insert(level, proof.clone());
        }
        self.proofs.insert(level, proof);
        self
    }
    fn damaged(mut self) -> Self {
        self.damaged = true;
        self
    }
    fn of(mut self, sources: &[&str]) -> Self {
        let source = |name: &&str| SourceSummary {
            name: (*name).to_owned(),
            kind: "files".into(),
            state: State::Complete,
            bytes: 1,
            items: 1,
            partial: false,
        };
        self.summary.sources = sources.iter().map(source).collect();
        self
    }
    fn with_id(mut self, tag: u8) -> Self {
        self.id.0[31] = tag;
        self
    }
}

fn at_day(n: i64) -> Time {
    EPOCH.plus(n * DAY)
}

fn policies(keep: Keep) -> BTreeMap<String, Keep> {
    BTreeMap::from([("nightly".to_owned(), keep)])
}

fn run_in(
    samples: &[Sample],
    policies: &BTreeMap<String, Keep>,
    now: Time,
    zone: &TimeZone,
) -> Vec<Decision> {
    let candidates: Vec<Candidate<'_>> = samples
        .iter()
        .map(|s| Candidate {
            point: s.id,
            summary: &s.summary,
            signer: s.signer,
            holds: &s.holds,
            proofs: &s.proofs,
            passed: &s.passed,
            damaged: s.damaged,
        })
        .collect();
    decide(&candidates, policies, now, GRACE, zone)
}

fn run(samples: &[Sample], keep: Keep, now: Time) -> Vec<Decision> {
    run_in(samples, &policies(keep), now, &TimeZone::UTC)
}

fn decision<'a>(decisions: &'a [Decision], sample: &Sample) -> &'a Decision {
    decisions.iter().find(|decision| decision.point == sample.id).unwrap()
}

/// `kept: …` or `goes: …` with all reasons, and the end where one is known.
fn explain(decisions: &[Decision], sample: &Sample) -> String {
    let decision = decision(decisions, sample);
    let reasons: Vec<String> = decision.reasons.iter().map(ToString::to_string).collect();
    let end = decision.goes_at.map(|at| format!(" @ {at}")).unwrap_or_default();
    format!("{}: {}{end}", if decision.keep { "kept" } else { "goes" }, reasons.join("; "))
}

fn kept_days(samples: &[Sample], decisions: &[Decision]) -> Vec<i64> {
    let kept = samples.iter().filter(|s| decision(decisions, s).keep);
    kept.map(|s| s.summary.started.since(EPOCH).div_euclid(DAY)).collect()
}

fn last(n: u32) -> Keep {
    Keep { last: Some(n), ..Keep::default() }
}

#[test]
fn a_point_with_some_sources_takes_no_place_of_one_with_others() {
    let both = day(0).of(&["a", "b"]);
    let only_a: Vec<Sample> = (1..6).map(|n| day(n).of(&["a"])).collect();
    let samples: Vec<Sample> = [vec![both.clone()], only_a].concat();
    let decisions = run(&samples, last(1), at_day(30));
    assert_eq!(kept_days(&samples, &decisions), [0, 5]);
    let reasons = &decision(&decisions, &both).reasons;
    assert!(reasons.contains(&Reason::NewestOf { sources: vec!["b".into()] }), "{reasons:?}");

    // When each of its sources has been followed, by whichever points, only a rule keeps it: the sources as they were together.
    let samples = [samples, vec![day(6).of(&["b"])]].concat();
    let decisions = run(&samples, last(1), at_day(30));
    assert_eq!(kept_days(&samples, &decisions), [0, 5, 6]);
    let reasons = &decision(&decisions, &both).reasons;
    assert!(matches!(&reasons[..], [Reason::Rule { rule: Rule::Last, nth: 1, .. }]), "{reasons:?}");
    let a_day = Keep { within: Some("1d".parse().unwrap()), ..Keep::default() };
    let decisions = run(&samples, a_day, at_day(30));
    assert_eq!(kept_days(&samples, &decisions), [5, 6]);
    let Reason::NoRuleKeepsIt { by, .. } = &decision(&decisions, &both).reasons[0] else {
        panic!("{decisions:?}")
    };
    assert_eq!(*by, samples.last().unwrap().id, "the last of its sources to be followed");

    // Each source has the days that a rule counts.
    let samples: Vec<Sample> = (0..6).map(|n| day(n).of(if n % 2 == 0 { &["a"] } else { &["b"] })).collect();
    let two_days = Keep { daily: Some(2), ..Keep::default() };
    assert_eq!(kept_days(&samples, &run(&samples, two_days, at_day(30))), [2, 3, 4, 5]);
}

#[test]
fn a_point_with_a_part_of_a_source_takes_no_place_of_one_with_all_of_it() {
    let part = |n: i64| {
        let mut sample = day(n).of(&["db"]);
        sample.summary.sources[0].partial = true;
        sample
    };
    let whole = day(1).of(&["db"]);
    let samples = [part(0), whole.clone(), part(2), part(3), part(4)];
    let decisions = run(&samples, last(1), at_day(30));
    assert_eq!(kept_days(&samples, &decisions), [1, 4], "a whole one takes the place of a part");
    let reasons = &decision(&decisions, &whole).reasons;
    assert!(reasons.contains(&Reason::NewestWhole { sources: vec!["db".into()] }), "{reasons:?}");

    let samples = [samples.to_vec(), vec![day(5).of(&["db"])]].concat();
    assert_eq!(kept_days(&samples, &run(&samples, last(1), at_day(30))), [5]);
}

#[test]
fn points_that_lack_something_take_no_place_of_a_rule_from_those_that_have_it() {
    let part = |n: i64| {
        let mut sample = day(n).of(&["db", "uploads"]);
        sample.summary.sources[0].partial = true;
        sample
    };
    let lacking = [
        (9..15).map(part).collect::<Vec<_>>(),
        (9..15).map(|n| day(n).of(&["db"])).collect(),
        (9..15).map(|n| day(n).of(if n % 2 == 0 { &["db"] } else { &["uploads"] })).collect(),
    ];
    let rules =
        [last(3), Keep { daily: Some(3), ..Keep::default() }, Keep { weekly: Some(3), ..Keep::default() }];
    for lacking in lacking {
        for keep in &rules {
            let whole: Vec<Sample> = (0..5).map(|n| day(n * 2 - 30).of(&["db", "uploads"])).collect();
            let alone = kept_days(&whole, &run(&whole, keep.clone(), at_day(60)));
            let samples = [whole.clone(), lacking.clone()].concat();
            let decisions = run(&samples, keep.clone(), at_day(60));
            let mut kept = kept_days(&samples, &decisions);
            assert!(kept.iter().any(|day| *day > 0), "they have places of their own");
            kept.retain(|day| *day < 0);
            assert_eq!(kept, alone, "{keep:?}");
        }
    }

    // Whole ones take the places of those that lack something.
    let samples =
        [vec![day(0).of(&["db"]), part(1)], (2..5).map(|n| day(n).of(&["db", "uploads"])).collect()];
    let samples = samples.concat();
    assert_eq!(kept_days(&samples, &run(&samples, last(3), at_day(30))), [2, 3, 4]);
}

#[test]
fn the_proof_of_a_part_of_a_source_is_no_proof_of_all_of_it() {
    let proven = |n: i64| day(n).of(&["db"]).proven(at_day(n + 1), ProofLevel::Restore, true);
    let mut part = proven(4);
    part.summary.sources[0].partial = true;
    let samples = [proven(0), proven(2), part, day(6).of(&["db"])];
    assert_eq!(kept_days(&samples, &run(&samples, last(1), at_day(30))), [2, 4, 6]);
    let samples = [samples.to_vec(), vec![proven(8)]].concat();
    assert_eq!(kept_days(&samples, &run(&samples, last(1), at_day(30))), [8]);
}

#[test]
fn each_rule_keeps_the_newest_of_its_latest_hours_days_weeks_months_and_years() {
    let days: Vec<Sample> = (0..400).map(day).collect();
    let now = at_day(400); // 2027-02-05; the grace covers days 396 to 399
    for (keep, expected) in [
        (last(5), vec![395, 396, 397, 398, 399]),
        (Keep { daily: Some(6), ..Keep::default() }, vec![394, 395, 396, 397, 398, 399]),
        // Sundays 2027-01-24 and -31, and the present week.
        (Keep { weekly: Some(3), ..Keep::default() }, vec![388, 395, 396, 397, 398, 399]),
        // The last days of December and January.
        (Keep { monthly: Some(3), ..Keep::default() }, vec![364, 395, 396, 397, 398, 399]),
        (Keep { yearly: Some(9), ..Keep::default() }, vec![364, 396, 397, 398, 399]),
        (Keep { within: Some("7d".parse().unwrap()), ..Keep::default() }, (393..400).collect()),
    ] {
        assert_eq!(kept_days(&days, &run(&days, keep.clone(), now)), expected, "{keep:?}");
    }
    let hours: Vec<Sample> = (0..24 * 12).map(|half| sample(half * HOUR / 2)).collect();
    let decisions = run(&hours, Keep { hourly: Some(80), ..Keep::default() }, EPOCH.plus(6 * DAY));
    let kept: Vec<_> = decisions.iter().filter(|d| d.keep).collect();
    // The 72 hours of grace hold 144 points, and the last one before them was superseded within; of the 80 hours of the rule
    // seven lie before that.
    assert_eq!(kept.len(), 145 + 7);
}

#[test]
fn hours_and_days_without_a_point_do_not_count() {
    let days = [day(0), day(1), day(100), day(101), day(200)];
    let decisions = run(&days, Keep { daily: Some(4), ..Keep::default() }, at_day(300));
    assert_eq!(kept_days(&days, &decisions), [1, 100, 101, 200]);
}

#[test]
fn days_are_those_of_the_time_zone() {
    // 23:30 and 00:30 in Berlin: two days there, one in UTC.
    let points = [sample(DAY + 22 * HOUR + 30 * MINUTE), sample(DAY + 23 * HOUR + 30 * MINUTE)];
    let keep = policies(Keep { daily: Some(5), ..Keep::default() });
    let berlin = TimeZone::get("Europe/Berlin").unwrap();
    let kept = |zone: &TimeZone| run_in(&points, &keep, at_day(50), zone).iter().filter(|d| d.keep).count();
    assert_eq!((kept(&TimeZone::UTC), kept(&berlin)), (1, 2));
}

#[test]
fn an_hour_that_comes_twice_counts_twice() {
    // 2026-10-25 in Berlin: 02:30 comes at 00:30Z and again at 01:30Z.
    let points = [sample(297 * DAY + 30 * MINUTE), sample(297 * DAY + 90 * MINUTE)];
    let keep = policies(Keep { hourly: Some(5), ..Keep::default() });
    let decisions = run_in(&points, &keep, at_day(400), &TimeZone::get("Europe/Berlin").unwrap());
    assert_eq!(decisions.iter().filter(|d| d.keep).count(), 2);
    assert!(explain(&decisions, &points[0]).contains("(2026-10-25 02:00+02:00)"));
    assert!(explain(&decisions, &points[1]).contains("(2026-10-25 02:00+01:00)"));
}

#[test]
fn nothing_goes_before_it_was_superseded_for_some_time() {
    let points = [day(0), day(10)];
    let superseded = points[1].summary.finished;
    let just_before = run(&points, last(1), superseded.plus(GRACE.nanoseconds - 1));
    assert_eq!(
        explain(&just_before, &points[0]),
        format!(
            "kept: superseded by {} only a short time ago, stays until 2026-01-14T03:01:00Z @ 2026-01-14T03:01:00Z",
            points[1].id.short()
        )
    );
    let then = run(&points, last(1), superseded.plus(GRACE.nanoseconds));
    assert_eq!(
        explain(&then, &points[0]),
        format!(
            "goes: no rule of policy nightly keeps it; superseded by {} on 2026-01-11T03:01:00Z @ 2026-01-14T03:01:00Z",
            points[1].id.short()
        )
    );
    assert_eq!(explain(&then, &points[1]), "kept: the newest complete point; last 1 of 1 of policy nightly");
}

#[test]
fn a_long_backup_supersedes_when_it_is_finished() {
    let mut slow = day(10);
    slow.summary.finished = at_day(20);
    let points = [day(0), slow];
    assert!(decision(&run(&points, last(1), at_day(22)), &points[0]).keep);
    assert!(!decision(&run(&points, last(1), at_day(23)), &points[0]).keep);
}

#[test]
fn an_incomplete_point_counts_for_nothing_and_stays_until_a_complete_one_follows() {
    let bad = |n| day(n).state(State::Incomplete);
    let points = [day(0), bad(20), bad(21), bad(22).state(State::Failed)];
    let decisions = run(&points, last(2), at_day(100));
    assert!(decisions.iter().all(|d| d.keep), "garbage pushes nothing out");
    assert_eq!(
        explain(&decisions, &points[0]),
        "kept: the newest complete point; last 1 of 2 of policy nightly"
    );
    assert_eq!(explain(&decisions, &points[1]), "kept: incomplete, but no complete point has followed");
    assert_eq!(explain(&decisions, &points[3]), "kept: failed, but no complete point has followed");

    let mut points = points.to_vec();
    points.push(day(97));
    let within_grace = run(&points, last(2), at_day(100));
    assert!(within_grace.iter().all(|d| d.keep));
    let after = run(&points, last(2), at_day(101));
    assert_eq!(kept_days(&points, &after), [0, 97]);
    assert!(explain(&after, &points[1]).starts_with("goes: incomplete, and followed by the complete "));
}

#[test]
fn a_hold_wins_until_it_ends() {
    let points = [day(0).held(None), day(1).held(Some(at_day(60))), day(2).held(Some(at_day(40))), day(20)];
    let decisions = run(&points, last(1), at_day(50));
    assert_eq!(explain(&decisions, &points[0]), "kept: held (legal) by ann until released");
    assert_eq!(
        explain(&decisions, &points[1]),
        "kept: held (legal) by ann until 2026-03-02T00:00:00Z @ 2026-03-02T00:00:00Z"
    );
    assert!(!decision(&decisions, &points[2]).keep);
}

#[test]
fn the_last_proven_point_stays() {
    let restore = |sample: Sample, at, passed| sample.proven(at_day(at), ProofLevel::Restore, passed);
    let points = [
        restore(day(0), 9, true),
        restore(day(1), 7, true),
        restore(day(2), 10, false),
        day(3).proven(at_day(11), ProofLevel::Data, true),
        day(20),
    ];
    let decisions = run(&points, last(1), at_day(50));
    assert_eq!(explain(&decisions, &points[0]), "kept: the last point proven by a restore", "proven last");
    assert_eq!(
        explain(&decisions, &points[1]),
        "kept: the last point proven by a restore",
        "the newest proven"
    );
    assert_eq!(kept_days(&points, &decisions), [0, 1, 20], "a failed test and a lesser one prove nothing");

    let mut points = points.to_vec();
    points[4] = restore(day(20), 21, true);
    assert_eq!(kept_days(&points, &run(&points, last(1), at_day(50))), [20], "the proof has moved on");
    points[4] = restore(day(20), 60, true);
    assert_eq!(
        kept_days(&points, &run(&points, last(1), at_day(50))),
        [0, 1, 20],
        "a proof from the future proves nothing yet"
    );
}

#[test]
fn the_last_proven_point_of_each_source_stays() {
    let proven =
        |n: i64, sources: &[&str]| day(n).of(sources).proven(at_day(n + 1), ProofLevel::Restore, true);
    let samples = [proven(0, &["a", "b"]), proven(2, &["a", "b"]), proven(4, &["a"]), day(6).of(&["a", "b"])];
    let decisions = run(&samples, last(1), at_day(30));
    assert_eq!(kept_days(&samples, &decisions), [2, 4, 6]);
}

#[test]
fn a_failed_test_does_not_undo_the_proof_before_it() {
    let restore = |sample: Sample, at, passed| sample.proven(at_day(at), ProofLevel::Restore, passed);
    let tested_twice = |first, second| restore(restore(day(1), 7, first), 9, second);
    let points = [restore(day(0), 5, true), tested_twice(true, false), day(20)];
    let decisions = run(&points, last(1), at_day(50));
    assert_eq!(kept_days(&points, &decisions), [0, 1, 20], "both, since one of them may be damaged");
    let points = [restore(day(0), 5, true), tested_twice(false, true), day(20)];
    let decisions = run(&points, last(1), at_day(50));
    assert_eq!(kept_days(&points, &decisions), [1, 20], "what passed again is proven");
}

#[test]
fn a_manual_point_stays_until_its_own_end() {
    let points =
        [day(0).manual(None), day(1).manual(Some(at_day(60))), day(2).manual(Some(at_day(30))), day(20)];
    let decisions = run(&points, last(1), at_day(50));
    assert_eq!(explain(&decisions, &points[0]), "kept: made by hand and kept until deleted");
    assert_eq!(
        explain(&decisions, &points[1]),
        "kept: to be kept until 2026-03-02T00:00:00Z @ 2026-03-02T00:00:00Z"
    );
    assert_eq!(
        explain(&decisions, &points[2]),
        "goes: made by hand to be kept until 2026-01-31T00:00:00Z @ 2026-01-31T00:00:00Z"
    );
}

#[test]
fn a_manual_point_that_has_no_successor_outlives_its_end() {
    let points = [day(0), day(9).manual(Some(at_day(10)))];
    let alone = run(&points, last(1), at_day(50));
    assert_eq!(explain(&alone, &points[1]), "kept: the newest complete point");
    let mut points = points.to_vec();
    points.push(day(48));
    let young = run(&points, last(1), at_day(50));
    assert!(explain(&young, &points[1]).contains("only a short time ago, stays until 2026-02-21T03:01:00Z"));
    assert!(!decision(&run(&points, last(1), at_day(52)), &points[1]).keep);
}

#[test]
fn a_point_whose_policy_is_gone_or_says_nothing_stays_and_says_so() {
    let points =
        [day(0).policy("old"), day(1).policy("old"), day(2).policy("mute"), day(3).policy("mute"), day(20)];
    let mut policies = policies(last(1));
    policies.insert("mute".into(), Keep::default());
    let decisions = run_in(&points, &policies, at_day(50), &TimeZone::UTC);
    assert_eq!(
        explain(&decisions, &points[0]),
        "kept: its policy old is not in the configuration any more, so no rule speaks about it"
    );
    assert_eq!(
        explain(&decisions, &points[2]),
        "kept: its policy mute has no rule for keeping, so all is kept"
    );
}

#[test]
fn points_from_the_future_stay_and_push_nothing_out() {
    let points = [day(0), day(1), day(1000), day(1001), day(1002).state(State::Incomplete)];
    let decisions = run(&points, last(2), at_day(50));
    assert!(decisions.iter().all(|d| d.keep));
    assert_eq!(
        explain(&decisions, &points[2]),
        "kept: dated in the future (2028-09-27T03:00:00Z): a clock was or is wrong, so it cannot be judged"
    );
    assert_eq!(
        explain(&decisions, &points[1]),
        "kept: the newest complete point; last 1 of 2 of policy nightly"
    );
    let mut endless = day(2);
    endless.summary.finished = at_day(1000);
    let points = [day(0), endless];
    assert!(run(&points, last(1), at_day(50)).iter().all(|d| d.keep), "not even by half");
}

#[test]
fn nobodys_points_push_out_those_of_another_signer_policy_or_application() {
    let mut other_app = day(32);
    other_app.summary.app = "blog".into();
    let points = [day(0), day(30).signer(2), day(31).policy("hourly"), other_app.with_id(77)];
    let mut policies = policies(last(1));
    policies.insert("hourly".into(), last(1));
    let decisions = run_in(&points, &policies, at_day(100), &TimeZone::UTC);
    for point in &points {
        assert!(explain(&decisions, point).starts_with("kept: "), "{}", explain(&decisions, point));
        assert!(
            explain(&decisions, point).contains("the newest complete point"),
            "each is the newest of its kind"
        );
    }
}

#[test]
fn rules_add_up() {
    let days: Vec<Sample> = (0..100).map(day).collect();
    let keep = Keep { last: Some(1), daily: Some(4), weekly: Some(2), ..Keep::default() };
    let decisions = run(&days, keep, at_day(100));
    assert_eq!(
        explain(&decisions, &days[99]),
        "kept: the newest complete point; last 1 of 1 of policy nightly; daily 1 of 4 of policy nightly (2026-04-10); weekly 1 \
         of 2 of policy nightly (2026-W15)"
    );
}

#[test]
fn a_policy_is_read_strictly() {
    let read = |json| serde_json::from_str::<Keep>(json);
    let keep = read(r#"{"last": 3, "daily": 7, "within": "30d"}"#).unwrap();
    assert_eq!((keep.last, keep.daily, keep.weekly), (Some(3), Some(7), None));
    assert_eq!(keep.within, Some(Span { nanoseconds: 30 * DAY }));
    assert_eq!(serde_json::to_string(&keep).unwrap(), r#"{"last":3,"daily":7,"within":"30d"}"#);
    assert!(read("{}").unwrap().is_empty());
    for (wrong, why) in [
        (r#"{"dayly": 7}"#, "unknown field `dayly`"),
        (r#"{"daily": 0}"#, "at least 1"),
        (r#"{"daily": -1}"#, "-1"),
        (r#"{"daily": "7"}"#, "string"),
        (r#"{"within": "0d"}"#, "leave it out"),
        (r#"{"within": 30}"#, "30"),
    ] {
        let error = read(wrong).unwrap_err().to_string();
        assert!(error.contains(why), "{wrong}: {error}");
    }
    let schema = serde_json::to_value(schemars::schema_for!(Keep)).unwrap();
    assert_eq!(schema["additionalProperties"], false);
    assert_eq!(schema["properties"]["daily"]["minimum"], 1);
}

#[test]
fn a_decision_is_readable_by_programs() {
    let points = [day(0), day(10)];
    let json = serde_json::to_value(run(&points, last(1), at_day(50))).unwrap();
    assert_eq!(json[0]["keep"], false);
    assert_eq!(json[0]["reasons"][0]["reason"], "no_rule_keeps_it");
    assert_eq!(json[0]["goes_at"], "2026-01-14T03:01:00Z");
    assert_eq!(json[1]["reasons"][1]["rule"], "last");
}

#[test]
fn a_safety_copy_takes_no_other_points_place_and_goes_at_its_own_end() {
    let good = day(0).manual(Some(at_day(1)));
    let mut copy = day(1).manual(Some(at_day(31)));
    copy.summary.labels.insert(crate::point::SAFETY_COPY.into(), "restore of 1234".into());
    let points = [good, copy];
    assert!(
        explain(&run(&points, last(1), at_day(60)), &points[0]).starts_with("kept: "),
        "it is the newest that is good"
    );

    let after = day(2);
    let [good, copy] = points;
    let points = [good, copy, after];
    let decided = run(&points, last(1), at_day(20));
    assert!(explain(&decided, &points[0]).starts_with("goes: "));
    assert!(explain(&decided, &points[1]).starts_with("kept: "));
    assert!(explain(&run(&points, last(1), at_day(32)), &points[1]).starts_with("goes: "));
}

#[test]
fn a_safety_copy_of_what_no_backup_holds_goes_at_its_own_end() {
    let mut copy = day(1).manual(Some(at_day(8)));
    copy.summary.labels.insert(crate::point::SAFETY_COPY.into(), "restore of 1234".into());
    copy.summary.sources = vec![SourceSummary {
        name: "db-stopped".into(),
        kind: "postgres".into(),
        state: State::Complete,
        bytes: 0,
        items: 0,
        partial: false,
    }];
    let points = [day(0), copy, day(2)];
    assert!(explain(&run(&points, last(1), at_day(7)), &points[1]).starts_with("kept: "));
    assert!(explain(&run(&points, last(1), at_day(9)), &points[1]).starts_with("goes: "));
}

#[test]
fn a_point_that_is_known_to_be_damaged_takes_no_others_place() {
    let samples = [day(1), day(2).damaged(), day(3).damaged()];
    let keep = || Keep { last: Some(1), ..Keep::default() };
    let decisions = run(&samples, keep(), at_day(30));
    assert!(decisions.iter().all(|decision| decision.keep), "{decisions:?}");
    assert!(decision(&decisions, &samples[0]).reasons.contains(&Reason::Newest));
    assert_eq!(decision(&decisions, &samples[2]).reasons, [Reason::NothingWholeSince]);
    let samples = [day(1), day(2).damaged(), day(4)];
    let decisions = run(&samples, keep(), at_day(30));
    assert!(!decision(&decisions, &samples[1]).keep, "a whole one has followed");
}
