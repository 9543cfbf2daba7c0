//! A Redis on the command line: backed up, looked at, restored both ways, proved.

use crate::{KEY, Place, assert_seen};
use mainstay_sources::redis::{self, Sandbox};

/// A repository, and a server with a few keys in it.
fn cache() -> (Place, Sandbox) {
    let server = server();
    let mut client = server.connect().unwrap();
    for n in 0..20 {
        client.ask(&["SET", &format!("session:{n}"), "x", "EX", "86400"]).unwrap();
    }
    client.ask(&["RPUSH", "queue", "a", "b"]).unwrap();
    client.select(2).unwrap();
    client.ask(&["SET", "other", "1"]).unwrap();
    let place = Place::new();
    place.write("mainstay.yaml", &config(&place));
    place.done(&["init"]);
    (place, server)
}

fn server() -> Sandbox {
    let settings = [("repl-diskless-sync-delay", "0"), ("save", "3600 1")];
    Sandbox::start_with(&redis::program(None).unwrap(), &settings, &mut |_| Ok(())).unwrap()
}

fn config(place: &Place) -> String {
    format!(
        "version: 1
stores: {{ local: {{ url: \"file://{}/store\" }} }}
repositories: {{ main: {{ key: {{ env: MAINSTAY_KEY }}, stores: [local] }} }}
apps: {{ shop: {{ repository: main, sources: {{ cache: {{ redis: {{ url: {{ env: REDIS_URL }} }} }} }} }} }}
",
        place.path().display()
    )
}

fn url(server: &Sandbox) -> String {
    format!("unix://{}", server.socket().display())
}

#[test]
fn a_redis_is_backed_up_listed_restored_and_proved() {
    let (place, server) = cache();
    let url = url(&server);
    let run = |arguments: &[&str]| place.run_with(arguments, &[("MAINSTAY_KEY", KEY), ("REDIS_URL", &url)]);
    let backed_up = run(&["backup", "shop"]);
    assert_eq!(backed_up.code, 0, "{}", backed_up.all());
    assert_seen!(run(&["ls", "shop"]), @"
    exit 0
    out| DATABASE  KEYS  EXPIRING
    out| 0  21  20
    out| 2  1  0
    ");
    assert_seen!(run(&["verify", "shop", "--level", "restore"]), @"
    exit 0
    out| Restore test of shop, point <id> as of <time>: passed
    out|
    out| SOURCE  RESULT  RESTORED IN  COMPARED IN  SIZE  INTO
    out| cache  passed  <while>  <while> <size>  a throw-away Redis <version>
    out|
    out|  cache: compared 22 keys of 2 databases: name, type and lifetime
    out|
    out| Recovery took <while>, measured now. The signed proof is kept in the repository.
    err| prove cache: passed (<while>)
    ");
    assert_seen!(run(&["restore", "shop", "--source", "cache", "--to-dir", "back"]), @"
    exit 0
    out| Restore cache of shop as of <time> (point <id>) into PLACE/back
    out|
    out|  captured from  Redis <version>
    out|  to write  PLACE/back/dump.rdb ( <size>)
    out|
    out| Restored 22 keys ( <size>).
    out|
    out| Next: stop the server, move what is in its folder (CONFIG GET dir) out of the way, put this there, give it to
    out| the server's user, and start it.
    err| redis (<while>)
    ");
    assert!(place.at("back/dump.rdb").is_file());

    // Again into the same folder: refused, and nothing is touched.
    assert_eq!(run(&["restore", "shop", "--source", "cache", "--to-dir", "back"]).code, 14);
    // What lives is not overwritten.
    let live = run(&["restore", "shop", "--to-url-env", "REDIS_URL", "--yes"]);
    assert_eq!(live.code, 14, "{}", live.all());
    let prefixed = run(&[
        "restore",
        "shop",
        "--to-url-env",
        "REDIS_URL",
        "--key-prefix",
        "old:",
        "--from-database",
        "2",
        "--yes",
    ]);
    assert_eq!(prefixed.code, 0, "{}", prefixed.all());
    let mut client = server.connect().unwrap();
    client.select(2).unwrap();
    assert_eq!(client.ask(&["GET", "old:other"]).unwrap().text().unwrap(), "1");

    let first = place.json(&["list", "shop"], "point")[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(run(&["backup", "shop"]).code, 0);
    assert_seen!(run(&["diff", &first, "shop"]), @"
    exit 0
    out| ~ cache: database 2  (keys: 1, now 2)
    out| ? cache: values of keys  (not compared: only the numbers of keys are compared)
    out|
    out| 1 difference.
    ");
    let checked = run(&["doctor"]);
    assert!(checked.stdout.contains("read by replication"), "{}", checked.all());
}

#[test]
fn a_restore_test_without_a_redis_server_says_so_and_leaves_no_proof() {
    let (place, server) = cache();
    let configured = config(&place).replace("REDIS_URL }", "REDIS_URL }, server: /nonexistent/redis-server");
    place.write("mainstay.yaml", &configured);
    let url = url(&server);
    let run = |arguments: &[&str]| place.run_with(arguments, &[("MAINSTAY_KEY", KEY), ("REDIS_URL", &url)]);
    assert_eq!(run(&["backup", "shop"]).code, 0);
    let verified = run(&["verify", "shop", "--level", "restore"]);
    assert!(verified.stdout.contains("not run"), "{}", verified.all());
    let shown = run(&["show", "shop"]).stdout;
    assert!(shown.contains("never restored") && shown.contains("as of offset "), "{shown}");
}

#[test]
fn a_redis_that_does_not_answer_fails_the_backup_and_names_no_password() {
    let place = Place::new();
    place.write("mainstay.yaml", &config(&place));
    place.done(&["init"]);
    let url = "unix://app:hunter2@/nonexistent/redis.sock";
    let failed = place.run_with(&["backup", "shop"], &[("MAINSTAY_KEY", KEY), ("REDIS_URL", url)]);
    assert_eq!(failed.code, 14, "{}", failed.all());
    assert!(!failed.all().contains("hunter2") && failed.stderr.contains("nonexistent"), "{}", failed.all());
}
