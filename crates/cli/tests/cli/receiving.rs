//! The log received while it is written: nothing of it is acknowledged that is not in the repository, and nothing that was
//! acknowledged is lost.

use crate::{
    Ran,
    clusters::{Bank, ids, newest, until},
    timelines::{has, insert, moment, promote, standby, with_key_file},
};
use mainstay_sources::postgres::sandbox::Sandbox;
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// `wal receive` at work.
struct Receiver<'b> {
    bank: &'b Bank,
    child: Option<Child>,
}

impl<'b> Receiver<'b> {
    fn start(bank: &'b Bank, arguments: &[&str]) -> Receiver<'b> {
        let mut command = bank.command(&[arguments, &["wal", "receive", "bank"]].concat());
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Receiver { bank, child: Some(child) }
    }

    /// The same; what it says can be read in a file while it runs.
    fn start_telling(bank: &'b Bank, told: &Path) -> Receiver<'b> {
        let mut command = bank.command(&["wal", "receive", "bank"]);
        let told = fs::File::create(told).unwrap();
        let child = command.stdout(Stdio::piped()).stderr(told).spawn().unwrap();
        Receiver { bank, child: Some(child) }
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// Asks it to end, and returns what it said.
    fn stop(mut self) -> Ran {
        self.signal("-TERM");
        let ran = self.bank.place.ran(self.child.take().unwrap().wait_with_output().unwrap());
        assert_eq!(ran.code, 0, "{}", ran.all());
        ran
    }

    /// Ends it without a word.
    fn kill(mut self) {
        self.signal("-KILL");
        self.child.take().unwrap().wait().unwrap();
    }

    /// Waits for its end.
    fn ended(mut self) -> Ran {
        self.bank.place.ran(self.child.take().unwrap().wait_with_output().unwrap())
    }
}

impl Drop for Receiver<'_> {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A server that archives nothing by itself, and keeps its log for the test to compare with.
fn bank() -> Bank {
    let settings = [("archive_mode", "off"), ("wal_keep_size", "1GB"), ("synchronous_commit", "on")];
    often(Bank::with_settings(newest(), &[], &settings))
}

/// The same, with fragments every second.
fn often(bank: Bank) -> Bank {
    let text = fs::read_to_string(bank.place.at("mainstay.yaml")).unwrap();
    let text = text.replace("cluster: { ", "cluster: { receive: { fragment_every: 1s }, ");
    bank.give(&bank.place.write("mainstay.yaml", &text));
    bank
}

/// Everything that the server has written so far is acknowledged.
fn caught_up(server: &Sandbox) {
    let now = server.connect("postgres").unwrap().query_text("SELECT pg_current_wal_flush_lsn()").unwrap();
    let acknowledged = format!(
        "SELECT coalesce(bool_or(flush_lsn >= '{}'), false) FROM pg_stat_replication WHERE application_name = 'mainstay'",
        now.unwrap()
    );
    until(server, &acknowledged);
}

fn json(bank: &Bank, arguments: &[&str], kind: &str) -> serde_json::Value {
    let ran = bank.done(&[arguments, &["--json"]].concat());
    let lines = ran.stdout.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.rev().find(|line| line["type"] == kind).unwrap()
}

/// Every segment that is archived whole is what lies in the server's `pg_wal`. Returns how many there are.
fn same_as_the_servers(bank: &Bank, server: &Sandbox) -> usize {
    let mut compared = 0;
    for path in bank.place.files("store/wal") {
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.len() != 24 {
            continue;
        }
        let to = bank.place.at("fetched");
        let config = bank.place.at("mainstay.yaml");
        let (config, path) = (config.to_str().unwrap(), to.to_str().unwrap());
        let mut fetch = bank.command(&["--config", config, "wal", "fetch", name, path]);
        assert!(fetch.current_dir(server.data_directory()).status().unwrap().success(), "{name}");
        let theirs = fs::read(server.data_directory().join("pg_wal").join(name)).unwrap();
        assert!(fs::read(&to).unwrap() == theirs, "{name}");
        compared += 1;
    }
    compared
}

#[test]
fn the_log_is_received_byte_for_byte_and_goes_on_without_a_gap_after_a_kill() {
    let bank = bank();
    let receiver = Receiver::start(&bank, &[]);
    until(&bank.server, "SELECT count(*) = 1 FROM pg_stat_replication WHERE application_name = 'mainstay'");
    bank.done(&["backup", "bank"]);
    insert(&bank.server, 1);
    bank.sql("SELECT pg_switch_wal()");
    insert(&bank.server, 2);
    caught_up(&bank.server);
    receiver.kill();
    let slots = json(&bank, &["wal", "status"], "slots");
    assert_eq!(slots["ours"], "mainstay_bank_db");
    let slot = &slots["slots"][0];
    assert!(slot["name"] == "mainstay_bank_db", "{slots}");

    // What is written meanwhile is kept by the slot, and shown as its lag.
    for id in 3..6 {
        insert(&bank.server, id);
        bank.sql("SELECT pg_switch_wal()");
    }
    insert(&bank.server, 6);
    let slots = json(&bank, &["wal", "status"], "slots");
    let slot = &slots["slots"][0];
    assert!(slot["retained_bytes"].as_u64().unwrap() >= 3 << 24 && slot["active"] == false, "{slots}");

    let receiver = Receiver::start(&bank, &[]);
    caught_up(&bank.server);
    assert!(same_as_the_servers(&bank, &bank.server) >= 4);
    let cluster = json(&bank, &["wal", "status"], "wal");
    assert_eq!(cluster["timelines"][0]["missing"], serde_json::json!([]), "{cluster}");
    let at = moment(&bank.server);
    insert(&bank.server, 7);
    caught_up(&bank.server);
    let ran = receiver.stop();
    assert!(ran.stderr.contains("receiving timeline 1"), "{}", ran.all());

    // The open segment is in fragments only, and can be returned to, to its end and within it.
    let cluster = json(&bank, &["wal", "status"], "wal");
    assert!(cluster["timelines"][0]["open_to"].is_string(), "{cluster}");
    assert_eq!(ids(&bank.restored(&["--at", "latest"])), "7 7");
    assert_eq!(ids(&bank.restored(&["--at", &at])), "6 6");

    // When it is whole, its fragments are of no use.
    let receiver = Receiver::start(&bank, &[]);
    bank.sql("SELECT pg_switch_wal()");
    insert(&bank.server, 8);
    caught_up(&bank.server);
    receiver.stop();
    bank.done(&["prune", "--yes"]);
    let whole: Vec<_> = bank.place.files("store/wal");
    let names: Vec<_> = whole.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    for name in names.iter().filter_map(|name| name.split_once('@')) {
        assert!(!names.contains(&name.0), "{names:?}");
    }
    assert_eq!(ids(&bank.restored(&["--at", "latest"])), "8 8");
}

#[test]
fn a_standby_follows_by_fragments_and_the_receiver_follows_its_promotion() {
    let bank = bank();
    let config = with_key_file(&bank);
    let receiver = Receiver::start(&bank, &[]);
    until(&bank.server, "SELECT count(*) = 1 FROM pg_stat_replication WHERE application_name = 'mainstay'");
    insert(&bank.server, 1);
    bank.done(&["backup", "bank"]);
    insert(&bank.server, 2);
    caught_up(&bank.server);

    // No segment is whole since the base backup.
    let second = standby(&bank, &config);
    has(&second, 2);
    insert(&bank.server, 3);
    has(&second, 3);
    receiver.stop();

    let text = fs::read_to_string(bank.place.at("mainstay.yaml")).unwrap();
    let (theirs, ours) = (bank.server.socket_directory(), second.socket_directory());
    let text = text.replace(theirs.to_str().unwrap(), ours.to_str().unwrap());
    bank.give(&bank.place.write("second.yaml", &text));
    let second_config = bank.place.at("second.yaml");
    let receiver = Receiver::start(&bank, &["--config", second_config.to_str().unwrap()]);
    until(&second, "SELECT count(*) = 1 FROM pg_stat_replication WHERE application_name = 'mainstay'");
    promote(&second);
    let mut session = second.connect("postgres").unwrap();
    // Else the end of the log is what the server has flushed, and not what it has acknowledged.
    session.execute("SET synchronous_commit = on").unwrap();
    session.execute("INSERT INTO ledger VALUES (4)").unwrap();
    session.execute("SELECT pg_switch_wal()").unwrap();
    session.execute("INSERT INTO ledger VALUES (5)").unwrap();
    caught_up(&second);
    let ran = receiver.stop();
    assert!(ran.stderr.contains("receiving timeline 2"), "{}", ran.all());
    let cluster = json(&bank, &["wal", "status"], "wal");
    let timelines = cluster["timelines"].as_array().unwrap();
    assert!(timelines.iter().all(|timeline| timeline["missing"] == serde_json::json!([])), "{cluster}");
    assert_eq!(timelines.last().unwrap()["from"].as_str().unwrap().split(' ').next(), Some("1"), "{cluster}");
    assert_eq!(ids(&bank.restored(&["--at", "latest"])), "5 5");
    assert_eq!(ids(&bank.restored(&["--at", "latest", "--timeline", "1"])), "3 3");
}

/// Kills the postmaster as a machine that dies would; what is left of the server ends by itself.
fn kill_the_server(server: &Sandbox) {
    let lines = fs::read_to_string(server.data_directory().join("postmaster.pid")).unwrap();
    let pid = lines.lines().next().unwrap().to_owned();
    assert!(Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
}

/// Whatever becomes of the test's own thread, its clients must not write on for ever.
struct EndsTheClients<'a>(&'a AtomicBool);

impl Drop for EndsTheClients<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn no_acknowledged_commit_is_lost_with_a_primary_that_waits_for_the_repository() {
    let settings =
        [("archive_mode", "off"), ("synchronous_commit", "on"), ("fsync", "on"), ("max_wal_size", "64MB")];
    let bank = Bank::with_settings(newest(), &[], &settings);
    // Nothing is taken from the server's disk, not even the base backup.
    let text = fs::read_to_string(bank.place.at("mainstay.yaml")).unwrap();
    let text = text.replace("cluster: { ", "cluster: { method: replication, ");
    bank.give(&bank.place.write("mainstay.yaml", &text));
    let receiver = Receiver::start(&bank, &[]);
    until(&bank.server, "SELECT count(*) = 1 FROM pg_stat_replication WHERE application_name = 'mainstay'");
    bank.done(&["backup", "bank"]);
    bank.sql("ALTER SYSTEM SET synchronous_standby_names = 'mainstay'");
    bank.sql("SELECT pg_reload_conf()");
    until(&bank.server, "SELECT bool_or(sync_state = 'sync') FROM pg_stat_replication");

    // Clients that note each commit as soon as it is acknowledged, and the server killed under them.
    const CLIENTS: u32 = 6;
    let (acknowledged, over) = (Mutex::new(Vec::new()), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (bank, acknowledged, over) = (&bank, &acknowledged, &over);
            scope.spawn(move || {
                let mut session = bank.server.connect("postgres").unwrap();
                for id in (client..).step_by(CLIENTS as usize) {
                    let sql = format!("INSERT INTO ledger VALUES ({id}, repeat('x', 3000))");
                    if over.load(Ordering::Relaxed) || session.execute(&sql).is_err() {
                        break;
                    }
                    acknowledged.lock().unwrap().push(id);
                }
            });
        }
        let _ends = EndsTheClients(&over);
        let deadline = Instant::now() + Duration::from_secs(120);
        while acknowledged.lock().unwrap().len() < 2000 && Instant::now() < deadline {
            std::thread::park_timeout(Duration::from_millis(5));
        }
        kill_the_server(&bank.server);
    });
    let acknowledged = acknowledged.into_inner().unwrap();
    assert!(acknowledged.len() >= 2000, "only {} commits in two minutes", acknowledged.len());
    receiver.kill();

    let restored = bank.restored(&["--at", "latest"]);
    let rows = restored.connect("postgres").unwrap().query("SELECT id FROM ledger").unwrap();
    let there: std::collections::HashSet<u32> = rows.iter().map(|row| row.text(0).parse().unwrap()).collect();
    let lost: Vec<_> = acknowledged.iter().filter(|id| !there.contains(id)).collect();
    assert!(
        lost.is_empty(),
        "{} of {} acknowledged commits are lost: {lost:?}",
        lost.len(),
        acknowledged.len()
    );
}

#[test]
fn a_gap_is_refused_unless_it_is_accepted_and_a_slot_that_keeps_too_much_is_told_of() {
    let settings = [
        ("archive_mode", "off"),
        ("synchronous_commit", "on"),
        ("max_wal_size", "32MB"),
        ("min_wal_size", "32MB"),
    ];
    let bank = often(Bank::with_settings(newest(), &[], &settings));
    let text = fs::read_to_string(bank.place.at("mainstay.yaml")).unwrap();
    let text = text.replace("cluster: { ", "cluster: { slot_warn: 1MiB, ");
    bank.give(&bank.place.write("mainstay.yaml", &text));
    let receiver = Receiver::start(&bank, &[]);
    until(&bank.server, "SELECT count(*) = 1 FROM pg_stat_replication WHERE application_name = 'mainstay'");
    bank.done(&["backup", "bank"]);
    bank.sql("SELECT pg_switch_wal()");
    insert(&bank.server, 1);
    caught_up(&bank.server);
    receiver.stop();

    // Its receiver is away.
    bank.sql("SELECT pg_switch_wal()");
    insert(&bank.server, 2);
    let ran = bank.done(&["wal", "status"]);
    assert!(ran.stdout.contains("nobody receives from it"), "{}", ran.all());
    let ran = bank.run(&["status", "--check"]);
    assert!(ran.code == 5 && ran.stdout.contains("the replication slot mainstay_bank_db"), "{}", ran.all());

    // Somebody drops the slot, and the server recycles what it kept.
    until(&bank.server, "SELECT NOT active FROM pg_replication_slots");
    bank.sql("SELECT pg_drop_replication_slot('mainstay_bank_db')");
    for id in 3..8 {
        insert(&bank.server, id);
        bank.sql("SELECT pg_switch_wal()");
        bank.sql("CHECKPOINT");
    }
    let ran = Receiver::start(&bank, &[]).ended();
    assert!(ran.code == 13 && ran.stderr.contains("the archive would have a gap"), "{}", ran.all());

    let mut command = bank.command(&["wal", "receive", "bank", "--accept-gap"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let receiver = Receiver { bank: &bank, child: Some(child) };
    insert(&bank.server, 8);
    bank.sql("SELECT pg_switch_wal()");
    insert(&bank.server, 9);
    caught_up(&bank.server);
    let ran = receiver.stop();
    assert!(ran.stderr.contains("the archive has a gap from"), "{}", ran.all());
    let cluster = json(&bank, &["wal", "status"], "wal");
    assert_ne!(cluster["timelines"][0]["missing"], serde_json::json!([]), "{cluster}");
}

#[test]
fn log_that_is_gone_between_the_newest_base_backup_and_the_first_start_is_a_gap() {
    let settings = [
        ("archive_mode", "off"),
        ("synchronous_commit", "on"),
        ("max_wal_size", "32MB"),
        ("min_wal_size", "32MB"),
    ];
    let bank = often(Bank::with_settings(newest(), &[], &settings));
    bank.done(&["backup", "bank"]);
    for id in 1..8 {
        insert(&bank.server, id);
        bank.sql("SELECT pg_switch_wal()");
        bank.sql("CHECKPOINT");
    }
    let ran = Receiver::start(&bank, &[]).ended();
    assert!(ran.code == 13 && ran.stderr.contains("the archive would have a gap"), "{}", ran.all());
    assert_eq!(bank.sql("SELECT count(*) FROM pg_replication_slots"), "0", "none keeps log for nobody");

    let mut command = bank.command(&["wal", "receive", "bank", "--accept-gap"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let receiver = Receiver { bank: &bank, child: Some(child) };
    until(&bank.server, "SELECT count(*) = 1 FROM pg_stat_replication WHERE application_name = 'mainstay'");
    insert(&bank.server, 8);
    caught_up(&bank.server);
    let ran = receiver.stop();
    assert!(ran.stderr.contains("the archive has a gap from"), "{}", ran.all());
    let cluster = json(&bank, &["wal", "status"], "wal");
    assert_ne!(cluster["timelines"][0]["missing"], serde_json::json!([]), "{cluster}");

    // From a base backup of now on it goes again.
    let receiver = Receiver::start(&bank, &[]);
    bank.done(&["backup", "bank"]);
    insert(&bank.server, 9);
    caught_up(&bank.server);
    receiver.stop();
    assert_eq!(ids(&bank.restored(&["--at", "latest"])), "9 9");
}

#[test]
fn a_store_that_is_away_when_it_connects_again_is_waited_for() {
    let bank = bank();
    let told = bank.place.write("told", "");
    let receiver = Receiver::start_telling(&bank, &told);
    bank.done(&["backup", "bank"]);
    insert(&bank.server, 1);
    caught_up(&bank.server);

    let archive = bank.place.at("store/wal");
    let permissions = |mode| fs::set_permissions(&archive, fs::Permissions::from_mode(mode)).unwrap();
    permissions(0o000);
    bank.sql("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active");
    let deadline = Instant::now() + Duration::from_secs(60);
    let denied =
        |text: &str| text.lines().any(|line| line.contains("store") && line.contains("connecting again"));
    while !denied(&fs::read_to_string(&told).unwrap()) {
        assert!(Instant::now() < deadline, "{}", fs::read_to_string(&told).unwrap());
        std::thread::park_timeout(Duration::from_millis(20));
    }
    permissions(0o755);
    insert(&bank.server, 2);
    caught_up(&bank.server);
    receiver.stop();
    assert_eq!(ids(&bank.restored(&["--at", "latest"])), "2 2");
}

#[test]
fn a_server_that_does_not_answer_the_watch_keeps_nobody_from_stopping() {
    let bank = bank();
    let receiver = Receiver::start(&bank, &[]);
    until(&bank.server, "SELECT count(*) = 1 FROM pg_stat_replication WHERE application_name = 'mainstay'");
    // It looks at the server, and keeps its session.
    let looks = "SELECT count(*) > 0 FROM pg_stat_activity
                  WHERE query LIKE '%pg_replication_slots%' AND state = 'idle' AND pid <> pg_backend_pid()";
    until(&bank.server, looks);
    let mut session = bank.server.connect("postgres").unwrap();
    // Whoever asks for the slots waits for this one.
    session.execute("BEGIN; LOCK TABLE pg_replication_slots IN ACCESS EXCLUSIVE MODE").unwrap();
    let waits =
        "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND relation = 'pg_replication_slots'::regclass";
    let deadline = Instant::now() + Duration::from_secs(60);
    while session.query_text(waits).unwrap().as_deref() != Some("t") {
        assert!(Instant::now() < deadline, "nobody asks");
        std::thread::park_timeout(Duration::from_millis(5));
    }
    receiver.stop();
}

#[test]
fn a_slot_that_the_server_gave_up_is_made_anew() {
    let settings = [("synchronous_commit", "on"), ("max_wal_size", "32MB"), ("min_wal_size", "32MB")];
    let bank = often(Bank::with_settings(newest(), &[], &settings));
    let receiver = Receiver::start(&bank, &[]);
    until(&bank.server, "SELECT count(*) = 1 FROM pg_stat_replication WHERE application_name = 'mainstay'");
    bank.done(&["backup", "bank"]);
    insert(&bank.server, 1);
    caught_up(&bank.server);
    receiver.stop();
    until(&bank.server, "SELECT NOT active FROM pg_replication_slots");
    // Only now: a base backup has a slot of its own, which such a server would give up, too.
    bank.sql("ALTER SYSTEM SET max_slot_wal_keep_size = '16MB'");
    bank.sql("SELECT pg_reload_conf()");
    until(&bank.server, "SELECT current_setting('max_slot_wal_keep_size') = '16MB'");
    // The archive_command goes on meanwhile: there is no gap.
    for id in 2..9 {
        insert(&bank.server, id);
        bank.archive_all();
        bank.sql("CHECKPOINT");
    }
    until(&bank.server, "SELECT wal_status = 'lost' FROM pg_replication_slots");
    let ran = bank.done(&["wal", "status"]);
    assert!(ran.stdout.contains("it keeps nothing any more"), "{}", ran.all());

    let receiver = Receiver::start(&bank, &[]);
    insert(&bank.server, 9);
    caught_up(&bank.server);
    assert_eq!(bank.sql("SELECT active || ' ' || wal_status FROM pg_replication_slots"), "true reserved");
    let ran = receiver.stop();
    assert!(ran.stderr.contains("is made anew"), "{}", ran.all());
    assert!(!bank.done(&["wal", "status"]).stdout.contains("keeps nothing any more"));
    assert_eq!(ids(&bank.restored(&["--at", "latest"])), "9 9");
}
