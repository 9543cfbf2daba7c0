//! What is asked on a terminal, and what becomes of the answers. `script` (part of every Debian) makes the terminal.

use crate::{KEY, Place, Ran, databases::Shop, shop};
use std::{
    fs,
    io::Write,
    process::{Child, Stdio},
};

/// Runs on a terminal on which `typed` is typed. Both outputs come as one.
fn on_a_terminal(place: &Place, arguments: &[&str], typed: &str) -> Ran {
    let mut child = start(place, arguments);
    child.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
    place.ran(child.wait_with_output().unwrap())
}

/// The same, with the address of a database.
fn beside_a_database(shop: &Shop, arguments: &[&str], typed: &str) -> Ran {
    let mut child = start_with(&shop.place, arguments, &[("DATABASE_URL", &shop.url("postgres"))]);
    child.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
    shop.place.ran(child.wait_with_output().unwrap())
}

fn start(place: &Place, arguments: &[&str]) -> Child {
    start_with(place, arguments, &[])
}

fn start_with(place: &Place, arguments: &[&str], variables: &[(&str, &str)]) -> Child {
    let line = format!("'{}' {}", env!("CARGO_BIN_EXE_mainstay"), arguments.join(" "));
    let mut command = place.command("script", &["-qec", &line, "/dev/null"]);
    command
        .env("MAINSTAY_KEY", KEY)
        .env("TERM", "dumb")
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn a_configuration_is_written_from_answers() {
    let place = Place::new();
    let uploads = place.at("my uploads");
    fs::create_dir(&uploads).unwrap();
    fs::write(uploads.join("one.txt"), "one\n").unwrap();
    let ran = on_a_terminal(&place, &["init"], "shop\n-\nmy uploads\n-\nstore\nthe.key\n");
    assert_eq!(ran.code, 0, "{}", ran.all());
    let written = fs::read_to_string(place.at("mainstay.yaml")).unwrap();
    let folder = place.path().display();
    for part in [
        format!("local: {{ url: \"file://{folder}/store\" }}"),
        format!("key: {{ file: \"{folder}/the.key\" }}"),
        "  shop:\n    repository: main\n".to_owned(),
        format!("paths: [\"{folder}/my uploads\"]"),
    ] {
        assert!(written.contains(&part), "{part}\n{written}");
    }
    assert!(!written.contains("postgres"), "{written}");
    place.done(&["backup", "shop"]);
    place.done(&["restore", "shop", "--to-dir", "back"]);
    assert_eq!(fs::read_to_string(place.at("back/one.txt")).unwrap(), "one\n");
}

#[test]
fn the_same_is_written_from_options() {
    let place = Place::new();
    fs::create_dir(place.at("uploads")).unwrap();
    let options =
        ["--app", "shop", "--files", "uploads", "--store", "store", "--postgres-url-env", "SHOP_URL"];
    place.done(&[&["init"], &options[..]].concat());
    let written = fs::read_to_string(place.at("mainstay.yaml")).unwrap();
    let paths = format!("paths: [\"{}/uploads\"]", place.path().display());
    for part in ["db: { postgres: { url: { env: \"SHOP_URL\" } } }", &paths, "mainstay.key"] {
        assert!(written.contains(part), "{part}\n{written}");
    }
    let again = place.run(&[&["init"], &options[..]].concat());
    assert_eq!(again.code, 2, "{}", again.all());
    assert_eq!(fs::read_to_string(place.at("mainstay.yaml")).unwrap(), written, "nothing is overwritten");
}

#[test]
fn nothing_is_written_where_nothing_is_to_be_protected() {
    let place = Place::new();
    let ran = on_a_terminal(&place, &["init"], "shop\n-\n-\n");
    assert_eq!(ran.code, 2, "{}", ran.all());
    assert!(place.files(".").is_empty());
}

#[test]
fn only_the_right_word_deletes() {
    let place = shop();
    for _ in 0..2 {
        place.done(&["backup", "shop"]);
    }
    let ran = on_a_terminal(&place, &["delete", "shop"], "yes\n");
    assert!(ran.code == 2 && ran.stdout.contains("nothing was done"), "{}", ran.all());
    assert_eq!(place.json(&["list"], "point").len(), 2);
    let ran = on_a_terminal(&place, &["delete", "shop"], "delete\n");
    assert_eq!(ran.code, 0, "{}", ran.all());
    assert_eq!(place.json(&["list"], "point").len(), 1);
    let nobody = place.run(&["delete", "shop"]);
    assert!(nobody.code == 2 && nobody.stderr.contains("--yes"), "{}", nobody.all());
}

#[test]
fn only_the_right_word_prunes() {
    let place = shop();
    for _ in 0..5 {
        place.done(&["backup", "shop", "--policy", "nightly"]);
    }
    let ran = on_a_terminal(&place, &["prune", "--grace", "0s"], "yes\n");
    assert!(ran.code == 2 && ran.stdout.contains("nothing was done"), "{}", ran.all());
    assert_eq!(place.json(&["list"], "point").len(), 5);
    let ran = on_a_terminal(&place, &["prune", "--grace", "0s"], "prune\n");
    assert_eq!(ran.code, 0, "{}", ran.all());
    assert_eq!(place.json(&["list"], "point").len(), 3);
}

#[test]
fn a_living_database_is_replaced_and_the_old_one_dropped_only_by_name() {
    let shop = Shop::new();
    assert_eq!(shop.run(&["backup", "shop"]).code, 0);
    let orders = |database: &str| {
        let mut session = shop.server.connect(database).unwrap();
        session.query_text("SELECT count(*) FROM orders").unwrap().unwrap()
    };
    shop.server.connect("shop").unwrap().execute("DELETE FROM orders").unwrap();
    let replace = ["restore", "shop", "--replace"];
    let ran = beside_a_database(&shop, &replace, "yes\n");
    assert!(ran.code == 2 && ran.stdout.contains("nothing was done"), "{}", ran.all());
    assert_eq!(orders("shop"), "0");
    let ran = beside_a_database(&shop, &replace, "shop\n");
    assert_eq!(ran.code, 0, "{}", ran.all());
    assert_eq!(orders("shop"), "1000");

    let line = ran.stdout.lines().find(|line| line.contains("--drop-old")).unwrap();
    let kept = line.split_whitespace().last().unwrap();
    let drop_old = ["restore", "shop", "--drop-old", kept];
    let ran = beside_a_database(&shop, &drop_old, "shop\n");
    assert!(ran.code == 2 && ran.stdout.contains("nothing was done"), "{}", ran.all());
    assert_eq!(orders(kept), "0");
    let ran = beside_a_database(&shop, &drop_old, &format!("{kept}\n"));
    assert_eq!(ran.code, 0, "{}", ran.all());
    assert!(shop.server.connect(kept).is_err(), "it is gone");
}
