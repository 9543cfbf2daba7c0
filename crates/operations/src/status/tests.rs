//! What is said of tests that did not pass.

use super::*;
use crate::testing::{NOW, open, point, proof, store};
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
        "the last restore test, of point {short} at {}, did not pass; last proven: point {short} at {}",
        now(3),
        now(2)
    );
    assert_eq!((status().concerns, proven()), (vec![told], Some(points[0].id)));
    let state = repository.state().unwrap();
    assert!(state.facts.points[&points[1].id].passed.contains_key(&ProofLevel::Restore));

    proof(&repository, points[2].id, true, now(4));
    assert_eq!((status().concerns, proven()), (vec![], Some(points[2].id)));
}
