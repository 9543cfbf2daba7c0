//! A configuration and a command's output on the command line, with the labels and the skew of a point.

use crate::{KEY, Place, assert_seen};
use mainstay_sources::postgres::sandbox::{Sandbox, SandboxOptions};
use std::fs;

fn shop() -> Place {
    let place = Place::new();
    let folder = place.path().display().to_string();
    fs::write(place.at(".env"), "APP_ENV=production\nDB_PASSWORD=hunter2\n").unwrap();
    fs::write(place.at("VERSION"), "1.4.2\n").unwrap();
    place.write(
        "mainstay.yaml",
        &format!(
            "version: 1
stores: {{ local: {{ url: \"file://{folder}/store\" }} }}
repositories: {{ main: {{ key: {{ env: MAINSTAY_KEY }}, stores: [local] }} }}
apps:
  shop:
    repository: main
    release: {{ file: {folder}/VERSION }}
    max_skew: 0s
    sources:
      settings: {{ config: {{ files: [\"{folder}/.env\"] }} }}
      users: {{ command: {{ run: \"echo one; env | grep MAINSTAY_ || echo two\", name: users.txt }} }}
"
        ),
    );
    place.done(&["init"]);
    place
}

#[test]
fn settings_and_outputs_are_backed_up_shown_compared_restored_and_proved() {
    let place = shop();
    let backed_up = place.run(&["backup", "shop"]);
    assert_eq!(backed_up.code, 0, "{}", backed_up.all());
    let shown = place.done(&["show", "shop"]);
    assert!(shown.contains("release=1.4.2") && shown.contains("between the sources"), "{shown}");
    assert!(shown.contains("max_skew is 0s"), "{shown}");
    assert_seen!(place.run(&["ls", "shop", "--source", "users"]), @"
    exit 0
    out| <size>  users.txt
    ");
    assert_seen!(place.run(&["verify", "shop", "--level", "restore"]), @"
    exit 0
    out| Restore test of shop, point <id> as of <time>: passed
    out|
    out| SOURCE  RESULT  RESTORED IN  COMPARED IN  SIZE  INTO
    out| settings  passed  <while>  <while> <size>  a scratch directory
    out| users  passed  <while>  <while> <size>  a scratch directory
    out|
    out|  settings: compared 1 entries: kind, size, mode, times, links, attributes and every byte
    out|  users: compared the output: every byte, by its hash when it was captured
    out|
    out| Recovery took <while>, measured now. The signed proof is kept in the repository.
    err| files (<while>)
    err| prove settings: passed (<while>)
    err| prove users: passed (<while>)
    ");

    assert_seen!(place.run(&["restore", "shop", "--source", "users", "--to-dir", "back"]), @"
    exit 0
    out| Restore users of shop as of <time> (point <id>) into PLACE/back
    out|
    out|  to write  PLACE/back/users.txt ( <size>)
    out|
    out| Restored PLACE/back/users.txt ( <size>).
    ");
    assert_eq!(fs::read_to_string(place.at("back/users.txt")).unwrap(), "one\ntwo\n");
    assert_eq!(place.run(&["restore", "shop", "--source", "users", "--to-dir", "back"]).code, 14);
    place.done(&["restore", "shop", "--to-command", "cat > fed", "--yes"]);
    assert_eq!(fs::read_to_string(place.at("fed")).unwrap(), "one\ntwo\n");
    place.done(&["restore", "shop", "--source", "settings", "--to-dir", "etc"]);
    assert!(place.files("etc").iter().any(|path| fs::read_to_string(path).unwrap().contains("hunter2")));

    let first = place.json(&["list", "shop"], "point")[0]["id"].as_str().unwrap().to_owned();
    fs::write(place.at(".env"), "APP_ENV=staging\nDB_PASSWORD=hunter3\n").unwrap();
    place.done(&["backup", "shop", "--label", "release=mine"]);
    assert!(place.done(&["show", "shop"]).contains("release=mine"));
    let differing = place.done(&["diff", &first, "shop"]);
    for shown in
        ["- APP_ENV=production", "+ APP_ENV=staging", "- DB_PASSWORD=(hidden)", "+ DB_PASSWORD=(hidden)"]
    {
        assert!(differing.contains(shown), "{differing}");
    }
    assert!(!differing.contains("hunter"), "{differing}");
    assert!(
        differing.contains("~ settings: PLACE/.env  (- APP_ENV"),
        "by the name that its owner knows\n{differing}"
    );
}

#[test]
fn a_failed_command_leaves_the_point_incomplete_and_says_why() {
    let place = shop();
    let config = fs::read_to_string(place.at("mainstay.yaml")).unwrap();
    place.write("mainstay.yaml", &config.replace("echo one;", "echo no route to the directory >&2; exit 4;"));
    let ran = place.run_with(&["backup", "shop"], &[("MAINSTAY_KEY", KEY)]);
    assert_eq!(ran.code, 3, "{}", ran.all());
    let said = ran.stdout.lines().find(|line| line.contains("no route to the directory")).unwrap_or_default();
    assert!(
        said.contains("users") && said.contains("the shell command that begins with echo"),
        "{}",
        ran.all()
    );
}

#[test]
fn rows_of_captured_tables_go_back_into_a_database() {
    let server = Sandbox::start(&SandboxOptions::new(crate::clusters::newest())).unwrap();
    let mut session = server.connect("postgres").unwrap();
    session.execute("CREATE TABLE flags (name text PRIMARY KEY, is_on bool); INSERT INTO flags VALUES ('a', true), ('b', false)").unwrap();
    let place = Place::new();
    let url = format!("postgres://postgres@/postgres?host={}", server.socket_directory().display());
    let source = format!("{{ config: {{ tables: [{{ url: \"{url}\", table: public.flags }}] }} }}");
    place.write(
        "mainstay.yaml",
        &format!(
            "version: 1
stores: {{ local: {{ url: \"file://{}/store\" }} }}
repositories: {{ main: {{ key: {{ env: MAINSTAY_KEY }}, stores: [local] }} }}
apps: {{ shop: {{ repository: main, sources: {{ settings: {source} }} }} }}
",
            place.path().display()
        ),
    );
    place.done(&["init"]);
    place.done(&["backup", "shop"]);
    let restore = ["restore", "shop", "--source", "settings", "--to-database", "postgres", "--yes"];
    assert_seen!(place.run(&restore), @"
    exit 14
    out| Restore settings of shop as of <time> (point <id>) into the database postgres
    out|
    out|  public.flags: 2 rows into public.flags
    out|
    err| error: public.flags has rows
    err| hint: Nothing was changed. --merge missing adds those that are not there; --merge upsert also gives the others their old values back.
    ");
    session.execute("DELETE FROM flags WHERE name = 'a'").unwrap();
    assert_seen!(place.run(&[&restore[..], &["--table", "public.flags", "--merge", "missing"]].concat()), @"
    exit 0
    out| Restore settings of shop as of <time> (point <id>) into the database postgres
    out|
    out|  public.flags: 2 rows into public.flags
    out|
    out| Put 1 row back into public.flags.
    ");
    assert_eq!(session.query_text("SELECT count(*) FROM flags").unwrap().as_deref(), Some("2"));
}
