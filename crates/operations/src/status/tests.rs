//! What is said of tests that did not pass.

use super::*;
use crate::testing::{NOW, lasting, open, point, proof, store, with_parts, with_sources};
use mainstay_domain::time::HOUR;

#[test]
fn a_failed_restore_test_is_told_with_what_was_proven_before() {
    let store = store();
    let repository = open(&store);
    let points = [9, 5, 1].map(|age| point(&repository, State::Complete, None, age));
    let config = "version: 1
stores: { local: { url: \"file:///nowhere\" } }
repositories: { main: { key: { env: KEY }, stores: [local] } }
apps: { shop: { repository: main, sources: { uploads: { files: { paths: [\"/nowhere\"] } } } } }
";
    let config = Config::parse(config, std::path::Path::new("mainstay.yaml")).unwrap();
    let now = |hours: i64| NOW.plus(hours * HOUR);
    let status = || of_app(&config, &repository, "shop", now(9)).unwrap();
    let proven = || status().newest_proven.map(|point| point.id);

    proof(&repository, points[0].id, true, now(1));
    proof(&repository, points[1].id, true, now(2));
    assert_eq!((status().concerns, proven()), (vec![], Some(points[1].id)));

    proof(&repository, points[1].id, false, now(3));
    let short = points[1].id.short();
    let told = format!(
        "the last restore test, of point {short} 6 hours ago, did not pass; last proven: point {short}, 7 hours ago"
    );
    assert_eq!((status().concerns, proven()), (vec![told], Some(points[0].id)));
    let state = repository.state().unwrap();
    assert!(state.facts.points[&points[1].id].passed.contains_key(&ProofLevel::Restore));

    proof(&repository, points[2].id, true, now(4));
    assert_eq!((status().concerns, proven()), (vec![], Some(points[2].id)));
}

#[test]
fn each_scheduled_policy_is_late_by_its_own_points() {
    let store = store();
    let repository = open(&store);
    let config = "version: 1
stores: { local: { url: \"file:///nowhere\" } }
repositories: { main: { key: { env: KEY }, stores: [local] } }
apps:
  shop:
    repository: main
    sources: { uploads: { files: { paths: [\"/nowhere\"] } } }
    policies:
      hourly: { schedule: \"0 * * * *\", keep: { last: 3 } }
      nightly: { schedule: \"0 3 * * *\", keep: { last: 3 } }
";
    let config = Config::parse(config, std::path::Path::new("mainstay.yaml")).unwrap();
    let late = |hours: i64| -> Vec<bool> {
        let said = of_app(&config, &repository, "shop", NOW.plus(hours * HOUR)).unwrap().concerns;
        ["policy hourly", "policy nightly"].iter().map(|name| said.iter().any(|c| c.contains(name))).collect()
    };
    // Made by hand, two days ago: no policy has run since.
    point(&repository, State::Complete, None, 48 * 60);
    assert_eq!(late(0), [true, true]);
    point(&repository, State::Complete, Some("hourly"), 10);
    assert_eq!(late(0), [false, true], "a fresh hourly point hides no dead nightly");
    point(&repository, State::Complete, Some("nightly"), 5);
    assert_eq!(late(0), [false, false]);
    point(&repository, State::Incomplete, Some("hourly"), 0);
    assert_eq!(late(2), [true, false], "an incomplete one does not count");
    assert_eq!(late(30), [true, true]);
}

/// A point of these sources, made by hand.
fn of_sources(repository: &Repository, minutes: i64, sources: &[&str]) -> PointInfo {
    with_sources(repository, State::Complete, None, minutes, sources)
}

#[test]
fn a_source_that_newer_points_leave_out_is_named() {
    let store = store();
    let repository = open(&store);
    let config = "version: 1
stores: { local: { url: \"file:///nowhere\" } }
repositories: { main: { key: { env: KEY }, stores: [local] } }
apps:
  shop:
    repository: main
    sources:
      db: { files: { paths: [\"/nowhere\"] } }
      uploads: { files: { paths: [\"/nowhere\"] } }
    policies: {}
";
    let config = Config::parse(config, std::path::Path::new("mainstay.yaml")).unwrap();
    let status = || of_app(&config, &repository, "shop", NOW).unwrap();
    let of_db = || -> Vec<String> { status().concerns.into_iter().filter(|c| c.contains("db")).collect() };

    of_sources(&repository, 90 * 60, &["uploads"]);
    assert_eq!(of_db(), ["no recovery point has db complete; make one: mainstay backup shop --source db"]);
    let old = of_sources(&repository, 40 * 60, &["db", "uploads"]);
    let new = of_sources(&repository, 60, &["uploads"]);
    let left_out = of_db();
    assert!(
        matches!(&left_out[..], [said] if said.contains(&old.id.short()) && said.contains("newer ones leave it out")),
        "{left_out:?}"
    );
    proof(&repository, new.id, true, NOW);
    let unproven = of_db().pop().unwrap();
    assert!(unproven.starts_with("db was never proven by a restore"), "{unproven}");
    assert!(unproven.contains(&format!("--point {}", old.id.short())), "{unproven}");

    let both = of_sources(&repository, 30, &["db", "uploads"]);
    proof(&repository, both.id, true, NOW);
    assert_eq!(status().concerns, Vec::<String>::new());
}

#[test]
fn a_source_is_late_by_the_policies_that_are_to_back_it_up() {
    let store = store();
    let repository = open(&store);
    let config = "version: 1
stores: { local: { url: \"file:///nowhere\" } }
repositories: { main: { key: { env: KEY }, stores: [local] } }
apps:
  shop:
    repository: main
    sources:
      db: { files: { paths: [\"/nowhere\"] } }
      uploads: { files: { paths: [\"/nowhere\"] } }
    policies:
      hourly: { sources: [db], schedule: \"0 * * * *\", keep: { last: 3 } }
      nightly: { schedule: \"0 3 * * *\", keep: { last: 3 } }
";
    let config = Config::parse(config, std::path::Path::new("mainstay.yaml")).unwrap();
    let left_out = || -> Vec<String> {
        let said = of_app(&config, &repository, "shop", NOW).unwrap().concerns;
        said.into_iter().filter(|said| said.contains("leave it out")).collect()
    };
    let made = |policy, minutes, sources: &[&str]| {
        with_sources(&repository, State::Complete, Some(policy), minutes, sources)
    };
    made("nightly", 45 * 60, &["db", "uploads"]);
    made("hourly", 5, &["db"]);
    assert_eq!(left_out(), Vec::<String>::new(), "the nightly policy is late, and says so itself");
    // Somebody runs it with fewer sources.
    made("nightly", 20 * 60, &["db"]);
    assert!(matches!(&left_out()[..], [said] if said.contains("uploads")), "{:?}", left_out());
    made("nightly", 10, &["db", "uploads"]);
    assert_eq!(left_out(), Vec::<String>::new());
}

#[test]
fn a_part_of_a_source_stands_for_it_only_where_the_configuration_leaves_something_out() {
    let store = store();
    let repository = open(&store);
    let status = |rules: &str| {
        let config = format!(
            "version: 1
stores: {{ local: {{ url: \"file:///nowhere\" }} }}
repositories: {{ main: {{ key: {{ env: KEY }}, stores: [local] }} }}
apps:
  shop:
    repository: main
    sources:
      db: {{ postgres: {{ url: \"postgres://db/shop\", tables: [{rules}] }} }}
    policies: {{}}
"
        );
        let config = Config::parse(&config, std::path::Path::new("mainstay.yaml")).unwrap();
        let status = of_app(&config, &repository, "shop", NOW).unwrap();
        let said = status.concerns.into_iter().filter(|said| said.contains("leave it out")).count();
        (status.sources[0].newest_complete, status.sources[0].proven_at, said)
    };
    let whole = with_sources(&repository, State::Complete, None, 40 * 60, &["db"]);
    let part = with_parts(&repository, 1, &["db"]);
    proof(&repository, part.id, true, NOW);
    assert_eq!(status(""), (Some(whole.id), None, 1));
    assert_eq!(status("{ match: orders, priority: critical }"), (Some(whole.id), None, 1));
    for rule in ["{ match: log, exclude: true }", "{ match: orders, where: \"id > 7\" }"] {
        assert_eq!(status(rule), (Some(part.id), Some(NOW), 0), "{rule}");
    }
}

#[test]
fn a_proof_counts_for_35_days_and_then_a_new_one_is_asked_for() {
    let store = store();
    let repository = open(&store);
    let proven = point(&repository, State::Complete, None, 1);
    proof(&repository, proven.id, true, NOW);
    let config = "version: 1
stores: { local: { url: \"file:///nowhere\" } }
repositories: { main: { key: { env: KEY }, stores: [local] } }
apps: { shop: { repository: main, sources: { uploads: { files: { paths: [\"/nowhere\"] } } } } }
";
    let config = Config::parse(config, std::path::Path::new("mainstay.yaml")).unwrap();
    let said = |after: i64| -> Vec<String> {
        let concerns = of_app(&config, &repository, "shop", NOW.plus(after)).unwrap().concerns;
        concerns.into_iter().filter(|said| said.contains("proof")).collect()
    };
    assert_eq!(said(35 * DAY), Vec::<String>::new());
    let old = "the last proof is 36 days old; make a new one: mainstay verify shop --level restore";
    assert_eq!(said(36 * DAY), [old]);
    proof(&repository, proven.id, true, NOW.plus(36 * DAY));
    assert_eq!(said(36 * DAY), Vec::<String>::new());
}

#[test]
fn a_run_that_takes_longer_than_its_policy_leaves_is_told_with_what_took_longest() {
    let store = store();
    let repository = open(&store);
    let config = "version: 1
stores: { local: { url: \"file:///nowhere\" } }
repositories: { main: { key: { env: KEY }, stores: [local] } }
apps:
  shop:
    repository: main
    sources: { db: { files: { paths: [\"/nowhere\"] } }, uploads: { files: { paths: [\"/nowhere\"] } } }
    policies:
      hourly: { schedule: \"0 * * * *\", keep: { last: 3 } }
      nightly: { schedule: \"0 3 * * *\", keep: { last: 3 } }
";
    let config = Config::parse(config, std::path::Path::new("mainstay.yaml")).unwrap();
    let said = || -> Vec<String> {
        let concerns = of_app(&config, &repository, "shop", NOW).unwrap().concerns;
        concerns.into_iter().filter(|said| said.contains("took")).collect()
    };
    lasting(&repository, "nightly", 80, &[("db", 70), ("uploads", 5)]);
    lasting(&repository, "hourly", 60, &[("db", 50), ("uploads", 5)]);
    assert_eq!(said(), Vec::<String>::new(), "there is time for it");
    lasting(&repository, "hourly", 80, &[("db", 70), ("uploads", 5)]);
    assert_eq!(
        said(),
        [
            "the last backup of the policy hourly took 80 minutes, and the next is due every 60 minutes; what took longest was the \
          source db, 70 minutes"
        ]
    );
    lasting(&repository, "hourly", 150, &[("db", 20), ("uploads", 5)]);
    assert!(said()[0].ends_with("longest was storing it, after all sources were read"), "{:?}", said());
    lasting(&repository, "hourly", 20, &[("db", 10), ("uploads", 5)]);
    assert_eq!(said(), Vec::<String>::new(), "the next run was in time");
}
