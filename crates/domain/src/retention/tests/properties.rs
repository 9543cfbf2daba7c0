//! What must hold for any points whatever, and for years of them.

use super::*;
use proptest::prelude::*;

/// Years of hourly runs, pruned every day: what is left is what the rules would choose from all that ever was.
#[test]
fn pruning_every_day_for_years_keeps_what_pruning_once_would() {
    let keep = Keep {
        last: Some(2),
        hourly: Some(30),
        daily: Some(7),
        weekly: Some(5),
        monthly: Some(12),
        yearly: Some(3),
        within: None,
    };
    let zone = TimeZone::get("Europe/Berlin").unwrap();
    let policies = policies(keep.clone());
    let chosen = |samples: &[Sample], now: Time| -> BTreeSet<PointId> {
        let decisions = run_in(samples, &policies, now, &zone);
        let by_rule = |d: &&Decision| d.reasons.iter().any(|r| matches!(r, Reason::Rule { .. }));
        decisions.iter().filter(by_rule).map(|d| d.point).collect()
    };
    let (mut ever, mut live): (Vec<Sample>, Vec<Sample>) = Default::default();
    for today in 0..4 * 365 {
        for hour in 0..24 {
            let mut point = sample(today * DAY + hour * HOUR + 15 * MINUTE);
            // Now and then one fails.
            if (today * 24 + hour) % 97 == 0 {
                point = point.state(State::Incomplete);
            }
            ever.push(point.clone());
            live.push(point);
        }
        let now = at_day(today + 1);
        let decisions = run_in(&live, &policies, now, &zone);
        live.retain(|point| decision(&decisions, point).keep);
        assert!(live.len() <= 24 * 3 + 2 + 30 + 7 + 5 + 12 + 3 + 2, "day {today}: {}", live.len());
        if today % 181 == 180 || today == 4 * 365 - 1 {
            assert_eq!(chosen(&live, now), chosen(&ever, now), "day {today}");
        }
    }
    let left: Vec<String> = chosen(&live, at_day(4 * 365))
        .iter()
        .map(|id| {
            Rule::Monthly.slot(live.iter().find(|s| s.id == *id).unwrap().summary.started, &zone).unwrap()
        })
        .collect();
    let months: BTreeSet<&String> = left.iter().collect();
    // Twelve months, and the years 2027 and 2028 by their Decembers, of which one is among the twelve.
    assert_eq!(months.len(), 12 + 1 + 1, "{months:?}");
}

fn samples() -> impl Strategy<Value = Vec<Sample>> {
    let one = (
        0i64..2000,
        0u8..3,
        0u8..3,
        prop::sample::select(vec![State::Complete, State::Complete, State::Incomplete, State::Failed]),
        prop::option::weighted(0.15, 0i64..120),
        prop::option::weighted(0.1, prop::option::of(0i64..120)),
        prop::option::weighted(0.15, (0i64..110, any::<bool>())),
        0i64..200,
    );
    prop::collection::vec(one, 0..40).prop_map(|all| {
        let mut samples = Vec::new();
        for (at, (hours, policy, signer, state, until, hold, proof, minutes)) in all.into_iter().enumerate() {
            let mut point = sample(hours * HOUR + at as i64 * MINUTE / 100).state(state);
            point.summary.policy = [Some("nightly"), Some("gone"), None][policy as usize].map(str::to_owned);
            point.summary.finished = point.summary.started.plus(minutes * MINUTE);
            point.summary.keep_until = until.map(at_day);
            point.signer = HostId([signer; 16]);
            point.id.0[31] = at as u8;
            if let Some(until) = hold {
                point = point.held(until.map(at_day));
            }
            if let Some((at, passed)) = proof {
                point = point.proven(at_day(at), ProofLevel::Restore, passed);
            }
            samples.push(point);
        }
        samples
    })
}

fn keeps() -> impl Strategy<Value = Keep> {
    let count = || prop::option::of(0u32..5);
    let within = prop::option::of((1i64..40).prop_map(|days| Span { nanoseconds: days * DAY }));
    (count(), count(), count(), count(), count(), count(), within).prop_map(
        |(last, hourly, daily, weekly, monthly, yearly, within)| Keep {
            last,
            hourly,
            daily,
            weekly,
            monthly,
            yearly,
            within,
        },
    )
}

proptest! {
    #[test]
    fn what_must_stay_stays(samples in samples(), keep in keeps(), today in 0i64..120) {
        let now = at_day(today);
        let decisions = run(&samples, keep, now);
        prop_assert_eq!(decisions.len(), samples.len());
        let stays = |sample: &Sample| decision(&decisions, sample).keep;
        let past = |s: &&Sample| s.summary.started <= now && s.summary.finished <= now;
        let age = |s: &&Sample| (s.summary.started, s.summary.finished, s.id);
        for sample in &samples {
            let decision = decision(&decisions, sample);
            prop_assert!(!decision.reasons.is_empty());
            prop_assert!(!decision.reasons.contains(&Reason::Undecided));
            let held = sample.holds.iter().any(|hold| hold.until.is_none_or(|until| until > now));
            let promised = sample.summary.keep_until.is_some_and(|until| until > now);
            let manual = sample.summary.policy.is_none() && sample.summary.keep_until.is_none();
            let gone = sample.summary.policy.as_deref() == Some("gone");
            if held || promised || manual || gone || !past(&sample) {
                prop_assert!(decision.keep, "{:?}", decision);
            }
            if decision.keep {
                prop_assert!(decision.goes_at.is_none_or(|at| at > now), "{:?}", decision);
            } else {
                prop_assert!(decision.goes_at.is_some_and(|at| at <= now), "{:?}", decision);
                // A complete, younger peer that stays or was there for the whole grace.
                let superseded = samples.iter().filter(past).any(|other| {
                    other.summary.state == State::Complete
                        && other.signer == sample.signer
                        && age(&other) > age(&sample)
                        && other.summary.finished.plus(GRACE.nanoseconds) <= now
                });
                prop_assert!(superseded, "{:?}", decision);
            }
        }
        for signer in 0..3 {
            for policy in [Some("nightly"), Some("gone"), None] {
                let newest = samples
                    .iter()
                    .filter(past)
                    .filter(|s| s.signer == HostId([signer; 16]) && s.summary.state == State::Complete)
                    .filter(|s| policy.is_none() || s.summary.policy.as_deref() == policy)
                    .max_by_key(age);
                prop_assert!(newest.is_none_or(stays), "newest of {signer} {policy:?}");
            }
        }
        let proven = |s: &&Sample| s.passed.get(&ProofLevel::Restore).is_some_and(|p| p.at <= now);
        let newest_proven = samples.iter().filter(past).filter(proven).max_by_key(age);
        prop_assert!(newest_proven.is_none_or(stays));
        let last_proven = samples.iter().filter(past).filter(proven).max_by_key(|s| (s.passed[&ProofLevel::Restore].at, age(s)));
        prop_assert!(last_proven.is_none_or(stays));
    }

    #[test]
    fn the_order_of_the_points_does_not_matter(
        (samples, shuffled) in samples().prop_flat_map(|s| (Just(s.clone()), Just(s).prop_shuffle())),
        keep in keeps(),
        today in 0i64..120,
    ) {
        let now = at_day(today);
        let decisions = run(&samples, keep.clone(), now);
        prop_assert_eq!(&run(&shuffled, keep.clone(), now), &decisions);
        let doubled: Vec<Sample> = samples.iter().chain(&shuffled).cloned().collect();
        prop_assert_eq!(&run(&doubled, keep, now), &decisions);
    }

    #[test]
    fn once_carried_out_nothing_more_is_asked_for(samples in samples(), keep in keeps(), today in 0i64..120) {
        let now = at_day(today);
        let decisions = run(&samples, keep.clone(), now);
        let left: Vec<Sample> = samples.into_iter().filter(|s| decision(&decisions, s).keep).collect();
        prop_assert!(run(&left, keep, now).iter().all(|d| d.keep));
    }

    #[test]
    fn more_generous_rules_never_let_more_go(samples in samples(), keep in keeps(), today in 0i64..120) {
        let now = at_day(today);
        prop_assume!(!keep.is_empty());
        let more = Keep { daily: Some(keep.daily.unwrap_or(0) + 2), ..keep.clone() };
        let (before, after) = (run(&samples, keep, now), run(&samples, more, now));
        for sample in &samples {
            prop_assert!(decision(&after, sample).keep >= decision(&before, sample).keep);
        }
    }

    #[test]
    fn garbage_of_another_signer_changes_nothing(samples in samples(), garbage in samples(), keep in keeps(), today in 0i64..120) {
        let now = at_day(today);
        let strangers = garbage.into_iter().enumerate().map(|(at, mut point)| {
            point.signer = HostId([9; 16]);
            point.proofs.clear();
            point.passed.clear();
            point.id.0[30] = 1 + at as u8;
            point
        });
        let together: Vec<Sample> = samples.iter().cloned().chain(strangers).collect();
        let (alone, mixed) = (run(&samples, keep.clone(), now), run(&together, keep, now));
        for sample in &samples {
            prop_assert!(decision(&mixed, sample).keep >= decision(&alone, sample).keep, "{:?}", decision(&mixed, sample));
        }
    }

    #[test]
    fn any_times_are_survived(times in prop::collection::vec((any::<i64>(), any::<i64>()), 0..10), keep in keeps(), now in any::<i64>()) {
        let points: Vec<Sample> = times.into_iter().enumerate().map(|(at, (started, finished))| {
            let mut point = sample(0).with_id(at as u8);
            (point.summary.started, point.summary.finished) = (Time(started), Time(finished));
            point
        }).collect();
        run(&points, keep, Time(now));
    }
}
