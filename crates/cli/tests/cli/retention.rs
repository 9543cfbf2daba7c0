//! What stays and what goes, as the user is told.

use crate::shop;
use std::fs;

#[test]
fn the_last_point_of_a_source_that_left_the_configuration_is_kept_and_it_is_said_who_lets_it_go() {
    let place = shop();
    let config = fs::read_to_string(place.at("mainstay.yaml")).unwrap();
    fs::create_dir(place.at("old")).unwrap();
    let old =
        format!("      old: {{ files: {{ paths: [\"{}/old\"] }} }}\n    policies:", place.path().display());
    place.write("mainstay.yaml", &config.replacen("    policies:", &old, 1));
    place.done(&["backup", "shop", "--policy", "nightly"]);
    let id = place.json(&["list"], "point")[0]["id"].as_str().unwrap().to_owned();
    place.write("mainstay.yaml", &config);
    place.done(&["backup", "shop", "--policy", "nightly"]);
    let why = format!(
        "the newest complete one of old, which is no longer in the configuration: `mainstay delete {}` lets it go",
        &id[..8]
    );
    let planned = place.done(&["prune", "--dry-run", "--grace", "0s"]);
    assert!(planned.contains(&why), "{planned}");
    place.done(&["delete", &id[..8], "--yes"]);
    place.done(&["prune", "--yes"]);
}
