//! `mainstay config`.

use crate::{Place, shop, small_config};
use insta::assert_snapshot;
use std::fs;

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
fn what_is_no_configuration_is_said_of_the_line_and_not_of_the_parser() {
    let place = Place::new();
    let right = small_config(&place);
    let mut said = String::new();
    for (from, to) in [
        ("version: 1", "version: one"),
        ("last: 3", "last: -3"),
        ("keep: { last: 3 }", "keep: 3"),
        ("  shop:", "\tshop:"),
        ("version: 1", "version: 1\nversion: 1"),
        ("uploads: {", "- uploads: {"),
        ("stores: [local]", "stores: local"),
        ("url: ", "url: [one, two] # "),
        ("{ url: ", "{ url: } # "),
        ("\"0 3 * * *\"", "\"0 3 * * *"),
        ("\"0 3 * * *\"", "* 3 * * *"),
        ("\"0 3 * * *\"", "\"0 25 * * *\""),
        ("stores: [local]", "stores: [local"),
        ("    repository: main\n", ""),
        ("    repository:", "   repository:"),
        ("uploads: {", "uploads: { redis: { url: { env: URL } }, "),
        ("uploads: {", "uploads: {} # "),
        ("uploads: {", "uploads: # "),
        ("stores: [local]", "stores: [local], verify_after: pack"),
        ("stores: [local]", "stores: [local], pack_size: big"),
        ("files: {", "files: { one_file_system: maybe, "),
        ("{ files: {", "{ postgres: { url: { env: URL }, tables: [{ match: 3 }] } } # "),
        ("{ env: MAINSTAY_KEY }", "hunter2"),
        ("url: \"file://", "url: \"$STORE"),
    ] {
        assert!(right.contains(from), "{from}");
        place.write("mainstay.yaml", &right.replacen(from, to, 1));
        let ran = place.run(&["config", "check"]);
        assert_eq!(ran.code, 2, "{to}");
        let lines = ran.stderr.lines().filter(|line| !line.contains("`mainstay config schema` prints"));
        said.extend(lines.map(|line| format!("{line}\n")));
    }
    assert_snapshot!(said, @r#"
    error: mainstay.yaml:1:10: `version` must be a whole number, 0 or more, not `one`
    error: mainstay.yaml:12:55: `last` must be a whole number, 0 or more, not `-3`
    error: mainstay.yaml:12:47: `keep` must be a group of keys: { key: value }, or a line `key: value` for each, not `3`
    error: mainstay.yaml:7:2: a tab stands here; lines are indented by blanks
    error: mainstay.yaml:2:1: duplicate key: version
    error: mainstay.yaml:10:7: here must stand a group of keys: { key: value }, or a line `key: value` for each, not a list
    error: mainstay.yaml:5:47: `stores` must be a list: [one, two], or a line `- one` for each, not `local`
    error: mainstay.yaml:3:17: `url` must be one value, not `[one, two]`
    error: mainstay.yaml:3:15: a value is missing here
    error: mainstay.yaml:12:28: a quotation mark is opened here and not closed
    error: mainstay.yaml:12:28: what begins with * or & must stand in quotes: "* 3 * * *"
    error: mainstay.yaml:12:28: "0 25 * * *" is not a schedule (minute 0-59, hour 0-23, day of month 1-31, month 1-12, day of week 0-7; *, lists, ranges, steps and names such as MON)
    error: mainstay.yaml:5:47: `}` stands here, but `[` is to be closed first
    error: mainstay.yaml:10:5: `repository` is missing in the group of keys that ends here
    error: mainstay.yaml:9:12: a `key:` cannot stand here: indent it as the lines around it, or quote a value with `: ` in it
    error: mainstay.yaml:10:49: one kind stands here already; a second one needs a name of its own
    error: mainstay.yaml:10:17: here must stand one kind with its keys, such as { files: { paths: [/srv] } }
    error: mainstay.yaml:10:14: a word is missing here: `postgres`, `cluster`, `files`, `redis`, `config` or `command`
    error: mainstay.yaml:5:70: unknown word `pack`, expected `none`, `objects`, `packs` or `data`
    hint: Did you mean `packs`?
    error: mainstay.yaml:5:67: "big" is not a size (write a number and a unit, such as 500MB, 16MiB or 2G)
    error: mainstay.yaml:10:44: `one_file_system` must be true or false, not `maybe`
    error: mainstay.yaml:10:67: `match` must be one text, or a list of texts, not `3`
    error: mainstay.yaml:5:16: the secret itself does not belong here; name the place that holds it: { env: NAME }, { file: PATH } or { command: … }
    error: mainstay.yaml is not usable
      stores.local.url: is no address: "$STOREPLACE/store" (variables are not filled in here)
    "#);
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

#[test]
fn without_compression_bytes_are_stored_as_they_are_and_come_back_equal() {
    let place = shop();
    let config = fs::read_to_string(place.at("mainstay.yaml")).unwrap();
    let text: String = (0..40_000).map(|line| format!("line {line}\n")).collect();
    fs::write(place.at("uploads/large.txt"), &text).unwrap();
    let plain = config.replace("stores: [local] }", "stores: [local], compression: { algorithm: none } }");
    assert_ne!(plain, config);
    place.write("mainstay.yaml", &plain);
    place.done(&["backup", "shop"]);
    let stored: u64 =
        place.files("store/packs/data").iter().map(|pack| fs::metadata(pack).unwrap().len()).sum();
    assert!(stored > text.len() as u64, "{stored} of {}", text.len());
    place.done(&["verify", "shop", "--level", "data"]);
    place.done(&["restore", "shop", "--to-dir", "back"]);
    assert_eq!(fs::read_to_string(place.at("back/large.txt")).unwrap(), text);

    // Compressed again from now on, beside what is there.
    place.write("mainstay.yaml", &config);
    fs::write(place.at("uploads/more.txt"), text.replace("line", "more")).unwrap();
    let new =
        place.json(&["backup", "shop"], "backup").remove(0)["summary"]["stored_bytes"].as_u64().unwrap();
    assert!(new < text.len() as u64 / 2, "{new}");
    place.done(&["verify", "shop", "--level", "restore"]);
}
