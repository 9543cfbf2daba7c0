//! What was planned, and what happened until it was carried out.

use super::*;
use crate::testing::{CONFIG, NOW, left, open, point, proof, store};
use mainstay_domain::{
    Silent,
    point::{Hold, State},
    time::MINUTE,
};

fn planned(repository: &Repository) -> Plan {
    plan_at(repository, NOW).unwrap()
}

fn plan_at(repository: &Repository, now: Time) -> Result<Plan> {
    let config = Config::parse(CONFIG, std::path::Path::new("mainstay.yaml")).unwrap();
    plan(&config, "main", repository, now, Span { nanoseconds: MINUTE }, false)
}

#[test]
fn what_is_held_tested_or_alone_by_the_time_of_the_drop_stays() {
    let store = store();
    let (here, there) = (open(&store), open(&store));
    let ages = [90, 80, 70, 60, 50];
    let points = ages.map(|age| point(&here, State::Complete, Some("nightly"), age));
    let plan = planned(&here);
    assert_eq!(plan.dropped().count(), 4);

    let reason = "case 17".to_owned();
    let hold = Hold { kind: "legal".into(), reason, by: "ann".into(), since: NOW, until: None };
    there.hold(points[0].id, hold).unwrap();
    proof(&there, points[1].id, true, NOW);
    there.drop_point(points[2].id, "another prune", "the same plan").unwrap();
    execute(&here, &plan, "me", &Silent).unwrap();
    assert_eq!(left(&store), [points[0].id, points[1].id, points[4].id]);
}

#[test]
fn the_last_complete_point_stays_though_the_plan_counted_on_another() {
    let store = store();
    let (here, there) = (open(&store), open(&store));
    let points = [90, 80].map(|age| point(&here, State::Complete, Some("nightly"), age));
    let plan = planned(&here);
    assert_eq!(plan.dropped().map(|decision| decision.point).collect::<Vec<_>>(), [points[0].id]);
    there.drop_point(points[1].id, "someone", "by hand").unwrap();
    execute(&here, &plan, "me", &Silent).unwrap();
    assert_eq!(left(&store), [points[0].id]);
}

#[test]
fn a_clock_that_was_set_back_decides_nothing() {
    let store = store();
    let here = open(&store);
    point(&here, State::Complete, Some("nightly"), 90);
    assert!(plan_at(&here, NOW.plus(-HOUR)).is_ok(), "clocks differ a little");
    let refused = plan_at(&here, NOW.plus(-2 * HOUR)).unwrap_err();
    assert_eq!(refused.kind, Kind::Refused);
    assert!(refused.message.contains("clock"), "{refused}");
}
