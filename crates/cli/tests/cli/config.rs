//! `mainstay config`.

use crate::{Place, small_config};
use insta::assert_snapshot;

#[test]
fn a_right_configuration_is_said_to_be_right() {
    let place = Place::new();
    place.write("mainstay.yaml", &small_config(&place));
    assert_snapshot!(place.run(&["config", "check"]).all(), @"
    exit 0
    out| mainstay.yaml is right: 1 application, 1 source, 1 repository, 1 store
    ");
}

#[test]
fn without_a_configuration_it_says_where_it_looked_and_what_to_do() {
    assert_snapshot!(Place::new().run(&["config", "check"]).all(), @"
    exit 2
    err| error: there is no configuration file (looked for mainstay.yaml, /etc/mainstay/mainstay.yaml)
    err| hint: Write one with `mainstay init`, or name yours with --config or MAINSTAY_CONFIG.
    ");
}

#[test]
fn a_misspelt_key_is_named_with_line_column_and_the_right_word() {
    let place = Place::new();
    place.write("mainstay.yaml", &small_config(&place).replace("repository:", "repositroy:"));
    assert_snapshot!(place.run(&["config", "check"]).all(), @"
    exit 2
    err| error: mainstay.yaml:8:5: unknown key `repositroy`, expected `repository`, `environment`, `sources`, `release`, `migration`, `max_skew`, `hooks`, `masks` or `policies`
    err| hint: Did you mean `repository`?
    ");
}

#[test]
fn names_that_refer_to_nothing_are_listed() {
    let place = Place::new();
    let text = small_config(&place)
        .replace("stores: [local]", "stores: [lokal]")
        .replace("repository: main", "repository: mian");
    place.write("mainstay.yaml", &text);
    assert_snapshot!(place.run(&["config", "check"]).all(), @r#"
    exit 2
    err| error: mainstay.yaml is not usable
    err|   repositories.main.stores[0]: there is no store named "lokal" (did you mean "local"?)
    err|   apps.shop.repository: there is no repository named "mian" (did you mean "main"?)
    err| hint: `mainstay config schema` prints what is allowed; doc/reference/config.md explains it.
    "#);
}

#[test]
fn the_configuration_is_found_by_option_by_variable_and_in_the_folder() {
    let place = Place::new();
    place.write("here.yaml", &small_config(&place));
    assert_eq!(place.run(&["config", "check", "--config", "here.yaml"]).code, 0);
    assert_eq!(place.run_with(&["config", "check"], &[("MAINSTAY_CONFIG", "here.yaml")]).code, 0);
    assert_eq!(place.run(&["--config", "there.yaml", "config", "check"]).code, 2);
}

#[test]
fn what_is_shown_is_a_configuration() {
    let place = Place::new();
    place.write("mainstay.yaml", &small_config(&place));
    let shown = place.run(&["config", "show"]);
    assert_eq!(shown.code, 0, "{}", shown.all());
    place.write("mainstay.yaml", &shown.stdout.replace("PLACE", place.path().to_str().unwrap()));
    assert_eq!(place.run(&["config", "show"]).stdout, shown.stdout);
}

#[test]
fn errors_are_json_lines_where_json_was_asked_for() {
    let place = Place::new();
    let ran = place.run(&["config", "check", "--json"]);
    let line: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((line["v"].as_u64(), line["type"].as_str()), (Some(1), Some("error")));
    assert_eq!((line["kind"].as_str(), line["exit_code"].as_u64()), (Some("usage"), Some(2)));
}
