//! The command line as a whole.

use crate::{Place, shop};
use insta::assert_snapshot;
use std::fs;

#[test]
fn a_misspelt_command_is_a_usage_error_with_a_suggestion() {
    assert_snapshot!(Place::new().run(&["confg"]).all(), @"
    exit 2
    err| error: unrecognized subcommand 'confg'
    err| hint: A similar subcommand exists: 'config'.
    err| It is used as `mainstay [OPTIONS] <COMMAND>`; `mainstay --help` explains it.
    ");
}

#[test]
fn a_misunderstood_option_is_said_like_every_other_failure() {
    let place = Place::new();
    let mut said = String::new();
    for line in [
        &["restore", "shop", "--poin", "latest"][..],
        &["restore"],
        &["restore", "shop", "--jobs", "many"],
        &["verify", "shop", "--level", "deep"],
        &["restore", "shop", "--to-dir", "a", "--merge", "missing", "--replace"],
    ] {
        let ran = place.run(line);
        assert_eq!((ran.code, &*ran.stdout), (2, ""), "{}", ran.all());
        said.push_str(&ran.stderr);
    }
    assert_snapshot!(said, @"
    error: unexpected argument '--poin' found
    hint: A similar argument exists: '--point'.
    It is used as `mainstay restore --point <POINT> <APP>`; `mainstay restore --help` explains it.
    error: the following required arguments were not provided: <APP>
    hint: It is used as `mainstay restore <APP>`; `mainstay restore --help` explains it.
    error: invalid value 'many' for '--jobs <N>': not a whole number
    hint: `mainstay restore --help` says what is allowed.
    error: invalid value 'deep' for '--level <LEVEL>' [possible values: objects, packs, data, restore]
    hint: `mainstay verify --help` says what is allowed.
    error: the argument '--to-dir <FOLDER>' cannot be used with '--replace'
    hint: It is used as `mainstay restore --table <TABLE> --to-dir <FOLDER> --merge <HOW> <APP>`; `mainstay restore --help` explains it.
    ");
}

#[test]
fn whoever_asked_for_json_gets_every_failure_as_its_last_line() {
    let last = |place: &Place, arguments: &[&str], code: i32| -> serde_json::Value {
        let ran = place.run(arguments);
        assert_eq!(ran.code, code, "{}", ran.all());
        let line: serde_json::Value = serde_json::from_str(ran.stdout.lines().last().unwrap()).unwrap();
        assert_eq!(
            (&line["type"], &line["exit_code"], &line["v"]),
            (&"error".into(), &code.into(), &1.into())
        );
        line
    };
    let empty = Place::new();
    let misspelt = last(&empty, &["--json", "confg"], 2);
    assert_eq!(misspelt["message"], "unrecognized subcommand 'confg'");
    assert!(misspelt["hint"].as_str().unwrap().contains("'config'"), "{misspelt}");
    assert_eq!(last(&empty, &["backup", "--json"], 2)["kind"], "usage");
    assert_eq!(last(&empty, &["list", "--json", "--no-such"], 2)["kind"], "usage");
    last(&empty, &["list", "--json"], 2);
    let text = empty.run(&["confg", "--", "--json"]);
    assert_eq!((text.code, &*text.stdout), (2, ""), "a value is no option");
    // Commands that run to their end, and find something wrong.
    let place = shop();
    place.done(&["backup", "shop"]);
    for file in place.files("store/packs") {
        fs::remove_file(&file).unwrap();
        fs::write(file, "damaged").unwrap();
    }
    assert_eq!(last(&place, &["verify", "shop", "--level", "packs", "--json"], 4)["kind"], "verification");
}

#[test]
fn a_shell_can_be_taught_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let ran = Place::new().run(&["completion", shell]);
        assert_eq!(ran.code, 0);
        for command in ["backup", "restore", "verify"] {
            assert!(ran.stdout.contains(command), "{shell} knows nothing of {command}");
        }
    }
}
