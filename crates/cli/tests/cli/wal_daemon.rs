//! Archiving through the WAL daemon, beside it, and after its death.

use crate::clusters::{Bank, ids, newest};
use serde_json::Value;
use std::{
    fs,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A bank whose configuration says where the socket is, and more if `wal` says it. The server reads `mainstay.yaml`, the tests
/// `wal.yaml`, which is the same.
fn bank(wal: &str) -> Bank {
    let bank = Bank::new(newest());
    let text = fs::read_to_string(bank.place.at("mainstay.yaml")).unwrap();
    let wal =
        format!("\", wal: {{ socket: \"{}\"{wal} }} }} }} }} }} }}", bank.place.at("wal.sock").display());
    assert!(text.contains("\" } } } } }"), "{text}");
    configure(&bank, "mainstay.yaml", &text.replace("\" } } } } }", &wal));
    configure(&bank, "wal.yaml", &text.replace("\" } } } } }", &wal));
    bank
}

fn configure(bank: &Bank, name: &str, text: &str) {
    bank.give(&bank.place.write(name, text));
}

fn run(bank: &Bank, arguments: &[&str]) -> crate::Ran {
    bank.run(&[&["--json", "--config", "wal.yaml"], arguments].concat())
}

/// A daemon that is killed when this is dropped.
struct Daemon(Child);

impl Daemon {
    /// Started as the server's user; returns when it answers.
    fn start(bank: &Bank) -> Daemon {
        let mut command = bank.place.command(
            bank.place.program().to_str().unwrap(),
            &["--config", "wal.yaml", "wal", "daemon", "bank"],
        );
        command.env("MAINSTAY_KEY", crate::KEY).stdout(Stdio::null()).stderr(Stdio::null());
        if rustix::process::geteuid().is_root() {
            let (uid, gid) = bank.owner();
            command.uid(uid).gid(gid);
        }
        let daemon = Daemon(command.spawn().unwrap());
        let pid = daemon.0.id();
        wait(bank, "it answers", |status| status["pid"] == pid);
        daemon
    }

    /// Asks it to stop, and waits until it did.
    fn stop(mut self) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert_eq!(self.0.wait().unwrap().code(), Some(0));
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the daemon says of itself; null if there is none.
fn status(bank: &Bank) -> Value {
    let ran = run(bank, &["wal", "status"]);
    assert_eq!(ran.code, 0, "{}", ran.all());
    let lines = ran.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.into_iter().find(|line| line["type"] == "wal_daemon").unwrap_or_default()
}

fn wait(bank: &Bank, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let status = status(bank);
        if is_so(&status) {
            return status;
        }
        assert!(Instant::now() < deadline, "{what}: {status}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Makes segments that nobody has archived, because the server finds no configuration any more; their paths, in order.
fn segments(bank: &Bank, count: usize) -> Vec<PathBuf> {
    fs::remove_file(bank.place.at("mainstay.yaml")).unwrap();
    let mut paths = Vec::new();
    for id in 0..count {
        bank.sql(&format!("INSERT INTO ledger VALUES ({id}, repeat('x', 1000))"));
        paths.push(bank.segment(&bank.sql("SELECT pg_walfile_name(pg_switch_wal())")));
    }
    for path in &paths {
        let ready =
            path.with_file_name("archive_status").join(path.file_name().unwrap()).with_extension("ready");
        assert!(ready.exists(), "{}", ready.display());
    }
    paths
}

fn push(bank: &Bank, path: &std::path::Path) -> crate::Ran {
    run(bank, &["wal", "push", path.to_str().unwrap()])
}

#[test]
fn what_pgbench_writes_is_archived_through_the_daemon_and_survives_its_death() {
    let bank = bank("");
    let pgbench = |arguments: &[&str]| {
        let mut command = Command::new(bank.tools.program("pgbench"));
        command.args(["-h", bank.server.socket_directory().to_str().unwrap(), "-U", "postgres", "-n"]);
        command.args(["-p", &bank.server.port().to_string()]).args(arguments).arg("postgres");
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    assert!(pgbench(&["-i"]).wait().unwrap().success());
    let first = Daemon::start(&bank);
    bank.done(&["backup", "bank"]);

    let mut load = pgbench(&["-c", "4", "-t", "1500"]);
    for _ in 0..5 {
        bank.sql("SELECT pg_create_restore_point('so that there is something to archive')");
        bank.archive_all();
    }
    let seen = status(&bank);
    assert!(seen["pushed"].as_u64().unwrap() + seen["known_ahead"].as_u64().unwrap() >= 5, "{seen}");
    drop(first); // kill -9
    bank.sql("INSERT INTO ledger VALUES (1)");
    bank.archive_all();
    assert_eq!(status(&bank), Value::Null);
    let moment = bank.sql("SELECT clock_timestamp()");
    let _second = Daemon::start(&bank); // where the dead one's socket lies
    assert!(load.wait().unwrap().success());
    let total = |server: &mainstay_sources::postgres::sandbox::Sandbox| {
        let sql = "SELECT concat_ws(' ', (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers),
                   (SELECT sum(delta) FROM pgbench_history), (SELECT count(*) FROM pgbench_history))";
        server.connect("postgres").unwrap().query_text(sql).unwrap().unwrap()
    };
    bank.sql("INSERT INTO ledger VALUES (2)");
    bank.archive_all();
    assert!(status(&bank)["pushed"].as_u64().unwrap() >= 1);

    assert_eq!(ids(&bank.restored(&["--at", &moment])), "1 1");
    let latest = bank.restored(&["--at", "latest"]);
    assert_eq!((ids(&latest), total(&latest)), ("2 2".to_owned(), total(&bank.server)));
}

#[test]
fn a_store_that_is_away_for_a_while_costs_attempts_and_no_segment() {
    let bank = bank("");
    bank.done(&["backup", "bank"]);
    let failed = || bank.sql("SELECT failed_count FROM pg_stat_archiver").parse::<u64>().unwrap();
    let (store, away) = (bank.place.at("store"), bank.place.at("away"));
    let mut rows = 0;
    for with_daemon in [true, false] {
        let daemon = with_daemon.then(|| Daemon::start(&bank));
        rows += 1;
        bank.sql(&format!("INSERT INTO ledger VALUES ({rows})"));
        bank.archive_all();
        let before = failed();
        fs::rename(&store, &away).unwrap();
        rows += 1;
        bank.sql(&format!("INSERT INTO ledger VALUES ({rows})"));
        let name = bank.sql("SELECT pg_walfile_name(pg_switch_wal())");
        crate::clusters::until(
            &bank.server,
            &format!("SELECT failed_count > {before} FROM pg_stat_archiver"),
        );
        assert_eq!(bank.sql("SELECT last_failed_wal FROM pg_stat_archiver"), name);
        assert!(bank.segment(&name).exists(), "PostgreSQL keeps it");
        fs::rename(&away, &store).unwrap();
        rows += 1;
        bank.sql(&format!("INSERT INTO ledger VALUES ({rows})"));
        bank.archive_all();
        if let Some(daemon) = daemon {
            assert_eq!(status(&bank)["pid"], daemon.0.id(), "it did not end meanwhile");
        }
    }
    assert_eq!(ids(&bank.restored(&["--at", "latest"])), format!("{rows} {rows}"));
}

#[test]
fn a_later_push_learns_that_its_segment_was_pushed_ahead_and_a_changed_file_is_noticed() {
    let bank = bank("");
    let daemon = Daemon::start(&bank);
    let paths = segments(&bank, 5);
    let ran = push(&bank, &paths[0]);
    assert!(ran.code == 0 && ran.stdout.contains("\"daemon\":true"), "{}", ran.all());
    wait(&bank, "what follows is pushed ahead", |status| status["pushed_ahead"] == 4);

    let ran = push(&bank, &paths[1]);
    assert!(ran.code == 0 && ran.stdout.contains("\"known\":true"), "{}", ran.all());
    let after = status(&bank);
    assert_eq!((&after["known_ahead"], &after["pushed"]), (&1.into(), &1.into()), "it was not read again");

    let mut bytes = fs::read(&paths[2]).unwrap();
    bytes[100_000] ^= 1;
    fs::write(&paths[2], &bytes).unwrap();
    let ran = push(&bank, &paths[2]);
    assert!(ran.code == 13 && ran.stderr.contains("is in the archive already"), "{}", ran.all());

    // What was archived ahead and is not in the store any more is archived again.
    let name = paths[3].file_name().unwrap();
    let stored = bank.place.files("store/wal").into_iter().find(|path| path.ends_with(name)).unwrap();
    fs::remove_file(&stored).unwrap();
    assert_eq!(push(&bank, &paths[3]).code, 0);
    assert!(stored.exists());
    assert_eq!(status(&bank)["known_ahead"], 1);
    daemon.stop();
    assert!(!bank.place.at("wal.sock").exists());
    assert!(push(&bank, &paths[4]).code == 0, "and without a daemon it is known all the same");
}

#[test]
fn a_fetch_is_answered_from_what_was_fetched_ahead_and_absence_is_never_the_daemons_word() {
    let bank = bank("");
    let paths = segments(&bank, 4);
    for path in &paths[..3] {
        assert_eq!(push(&bank, path).code, 0);
    }
    let _daemon = Daemon::start(&bank);
    let target = bank.server.data_directory().join("pg_wal/FETCHED");
    let fetch = |path: &PathBuf| {
        let _ = fs::remove_file(&target);
        let name = path.file_name().unwrap().to_str().unwrap();
        run(&bank, &["wal", "fetch", name, target.to_str().unwrap()])
    };
    assert_eq!(fetch(&paths[0]).code, 0);
    wait(&bank, "what follows is fetched ahead", |status| status["prefetched"] == 2);
    for path in &paths[1..3] {
        assert_eq!(fetch(path).code, 0);
        assert!(fs::read(&target).unwrap() == fs::read(path).unwrap());
    }
    assert_eq!(status(&bank)["known_prefetched"], 2);
    assert_eq!(status(&bank)["placed"], 2, "nothing was copied: the files lay in pg_wal and got their name");
    assert_eq!(fetch(&paths[3]).code, 1, "not there");
    assert_eq!(push(&bank, &paths[3]).code, 0);
    assert_eq!(fetch(&paths[3]).code, 0, "and there from the moment on when it is");

    let name = paths[2].file_name().unwrap();
    let stored = bank.place.files("store/wal").into_iter().find(|path| path.ends_with(name)).unwrap();
    let mut damaged = fs::read(&stored).unwrap();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(&stored, damaged).unwrap();
    let ran = fetch(&paths[2]);
    assert!(ran.code == 126 && ran.stderr.contains("damaged"), "never the end of the log\n{}", ran.all());
}

#[test]
fn a_second_daemon_says_so_and_ends() {
    let bank = bank("");
    let daemon = Daemon::start(&bank);
    let ran = run(&bank, &["wal", "daemon", "bank"]);
    assert!(ran.code == 11 && ran.stderr.contains("another WAL daemon listens on"), "{}", ran.all());
    assert_eq!(status(&bank)["pid"], daemon.0.id());
}

#[test]
fn a_daemon_that_is_out_of_date_steps_aside_and_a_strange_one_costs_no_push() {
    let bank = bank("");
    let mut daemon = Daemon::start(&bank);
    let paths = segments(&bank, 3);
    let text = fs::read_to_string(bank.place.at("wal.yaml")).unwrap();
    configure(&bank, "wal.yaml", &format!("{text}# changed\n"));
    let ran = push(&bank, &paths[0]);
    assert!(ran.code == 0 && ran.stdout.contains("\"daemon\":false"), "{}", ran.all());
    assert_eq!(daemon.0.wait().unwrap().code(), Some(0), "it ends, so that another can take its place");

    // Somebody who listens and talks nonsense.
    let socket = bank.place.at("wal.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    bank.give(&socket);
    std::thread::scope(|scope| {
        scope.spawn(|| drop(listener.accept()));
        let ran = push(&bank, &paths[1]);
        assert!(ran.code == 0 && ran.stdout.contains("\"daemon\":false"), "{}", ran.all());
    });
    drop(listener);
    assert_eq!(status(&bank), Value::Null, "nobody listens any more");
}

#[test]
fn another_users_daemon_is_not_believed() {
    let bank = bank("");
    let _daemon = Daemon::start(&bank);
    // Root asks a daemon that is not root's; where the tests do not run as root, both are one user.
    let root = rustix::process::geteuid().is_root() && bank.owner().0 != 0;
    let seen = bank.place.run(&["--json", "--config", "wal.yaml", "wal", "status"]);
    assert_eq!(seen.code, 0, "{}", seen.all());
    assert_eq!(seen.stdout.contains("belongs to another user"), root, "{}", seen.all());
}

#[test]
fn the_first_push_starts_a_daemon_where_the_configuration_says_so() {
    let bank = bank(", daemon: auto, idle: 1s");
    let paths = segments(&bank, 2);
    assert_eq!(push(&bank, &paths[0]).code, 0);
    wait(&bank, "it is started", |status| status["pid"].is_u64());
    let ran = push(&bank, &paths[1]);
    assert!(ran.code == 0 && ran.stdout.contains("\"daemon\":true"), "{}", ran.all());
    // It ends by itself when nobody asks any more; looking at it would be asking.
    let deadline = Instant::now() + Duration::from_secs(60);
    while bank.place.at("wal.sock").exists() {
        assert!(Instant::now() < deadline, "it does not end");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}
