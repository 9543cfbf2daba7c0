//! Incremental base backups over the replication protocol (PostgreSQL 17 and later): the server sends what changed, and the record is a
//! whole base backup all the same.

use crate::{
    clusters::{self, KEY, Later, caught_up, execute, facts, following, standby_mode, text, until},
    memory, support,
};
use mainstay_domain::{
    Monitor,
    monitor::Event,
    point::{SourceRecord, State},
    stream::{Pool, Sink},
};
use mainstay_sources::postgres::{
    cluster::{self, Captured, ClusterConfig, ClusterFacts, Method, restore},
    sandbox::{Sandbox, SandboxOptions},
    tools::Tools,
};
use memory::Memory;
use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, chown},
        process::CommandExt,
    },
    path::Path,
    process::Command,
    sync::Mutex,
};

/// Keeps what it is told.
#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Monitor for Told {
    fn event(&self, event: Event<'_>) {
        if let Event::Notice { text, .. } = event {
            self.0.lock().unwrap().push(text.to_owned());
        }
    }
}

/// Those that summarize their log.
fn versions() -> Vec<Tools> {
    support::versions().into_iter().filter(|tools| tools.major >= 17).collect()
}

fn options(tools: &Tools) -> SandboxOptions {
    SandboxOptions::new(tools.clone())
        .initdb("--data-checksums")
        .setting("summarize_wal", "on")
        .setting("wal_level", "replica")
        .setting("full_page_writes", "on")
        // A commit that is not durable yet gives no hint to the next reader, who then changes every page.
        .setting("synchronous_commit", "on")
}

fn capture(server: &Sandbox, memory: &Memory, previous: Option<&SourceRecord>) -> SourceRecord {
    capture_telling(server, memory, previous, false).0
}

fn capture_telling(
    server: &Sandbox,
    memory: &Memory,
    previous: Option<&SourceRecord>,
    full: bool,
) -> (SourceRecord, Vec<String>) {
    let told = Told::default();
    let record = capture_by(server, memory, previous, full, &told);
    (record, told.0.into_inner().unwrap())
}

fn capture_by(
    server: &Sandbox,
    memory: &Memory,
    previous: Option<&SourceRecord>,
    full: bool,
    monitor: &dyn Monitor,
) -> SourceRecord {
    let config = ClusterConfig { method: Method::Replication, ..clusters::config(server) };
    let options = cluster::Options {
        page_key: KEY,
        full,
        previous: previous.map(|record| (memory as _, record)),
        clock: &Later,
    };
    let record = cluster::capture(&config, memory, &options, monitor).unwrap();
    assert_eq!(record.state, State::Complete, "{:?}", record.problems);
    record
}

/// The reason why a backup came whole; it must have one.
fn why_whole(record: &SourceRecord) -> String {
    match facts(record).captured {
        Some(Captured::Whole { why: Some(why) }) => why,
        other => panic!("{other:?}"),
    }
}

fn is_increment_on(record: &SourceRecord, before: &SourceRecord) -> bool {
    facts(record).captured == Some(Captured::Increment { since: facts(before).start })
}

/// Runs one of the server's programs as the user that owns its data.
fn program(tools: &Tools, data: &Path, name: &str, arguments: &[&str]) {
    let mut command = Command::new(tools.program(name));
    command.args(arguments).current_dir("/");
    if rustix::process::geteuid().is_root() {
        let owner = fs::metadata(data).unwrap();
        command.uid(owner.uid()).gid(owner.gid());
    }
    let output = command.output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success(), "{name} {}: {said}", tools.major);
}

/// Restores a record with a manifest, lets `pg_verifybackup` look at it, and starts a server on it.
fn restored(
    options: &SandboxOptions,
    memory: &Memory,
    record: &SourceRecord,
    asked: &restore::Options,
) -> Sandbox {
    Sandbox::start_on(options, &|data: &Path| {
        let to = restore::Options {
            sync: false,
            manifest: true,
            tablespaces: asked.tablespaces.clone(),
            recovery: asked.recovery.clone(),
            ..restore::Options::new(data.to_owned())
        };
        let memory: &Memory = memory;
        restore::restore(memory, record, &to, &mut |_| Ok(Vec::new()), &mainstay_domain::Silent)
            .map_err(std::io::Error::other)?;
        let shown = data.to_str().unwrap();
        program(&options.tools, data, "pg_verifybackup", &["--no-parse-wal", shown]);
        Ok(())
    })
    .unwrap()
}

/// Looks through every table and index, stops the server in order, and reads every page.
fn must_be_sound(server: &Sandbox) {
    let (host, port) = (server.socket_directory().to_str().unwrap().to_owned(), server.port().to_string());
    execute(server, "CREATE EXTENSION IF NOT EXISTS amcheck");
    execute(server, "CREATE EXTENSION IF NOT EXISTS pg_visibility");
    // An index-only scan believes the visibility map.
    let wrong = "SELECT count(*) FROM pg_class, pg_check_visible(oid) WHERE relkind IN ('r', 'm') AND relpersistence = 'p'";
    assert_eq!(text(server, wrong), "0", "{}: the visibility map is right", server.tools().major);
    let (tools, data) = (server.tools(), server.data_directory());
    let to = ["-h", &host, "-p", &port, "-U", "postgres"];
    program(tools, &data, "pg_amcheck", &[&to[..], &["--heapallindexed", "postgres"]].concat());
    let shown = data.to_str().unwrap();
    program(tools, &data, "pg_ctl", &["-D", shown, "-m", "fast", "-w", "stop"]);
    program(tools, &data, "pg_checksums", &["-D", shown, "--check"]);
}

/// Every row of every table, as one text.
fn everything(server: &Sandbox) -> String {
    let tables = text(
        server,
        "SELECT string_agg(quote_ident(relname), ' ' ORDER BY relname) FROM pg_class
          WHERE relkind IN ('r', 'm') AND relnamespace = 'public'::regnamespace",
    );
    tables
        .split(' ')
        .filter(|table| !table.is_empty())
        .map(|table| {
            let sum = format!(
                "SELECT count(*) || ' ' || coalesce(sum(hashtext(t::text)::bigint), 0) FROM {table} t"
            );
            format!("{table} {}\n", text(server, &sum))
        })
        .collect()
}

const FILL: &str = "
    CREATE TABLE ledger (id int PRIMARY KEY, balance int, filler text) WITH (fillfactor = 80);
    INSERT INTO ledger SELECT n, 0, repeat(md5(n::text), 4) FROM generate_series(1, 20000) n;
    CREATE INDEX ON ledger (balance);
    CREATE TABLE still AS SELECT n, repeat(md5(n::text), 4) t FROM generate_series(1, 20000) n;
    CREATE TABLE cut AS TABLE still; CREATE TABLE emptied AS TABLE still; CREATE TABLE dropped AS TABLE still;
    CREATE TABLE rewritten AS TABLE still; CREATE TABLE grown AS SELECT 1 AS n, 'x' AS t;
    CREATE UNLOGGED TABLE scratch AS TABLE still;
    VACUUM; CHECKPOINT";

#[test]
fn an_increment_is_a_whole_base_backup_whatever_happened_to_the_relations() {
    for tools in versions() {
        let major = tools.major;
        let options = options(&tools);
        let server = Sandbox::start(&options).unwrap();
        let space = tempfile::tempdir().unwrap();
        let owner = fs::metadata(server.data_directory()).unwrap();
        chown(space.path(), Some(owner.uid()), Some(owner.gid())).unwrap();
        // One statement each: some of them run in no transaction.
        let run = |sql: &str| sql.split(';').for_each(|one| execute(&server, one));
        run(FILL);
        execute(&server, &format!("CREATE TABLESPACE elsewhere LOCATION '{}'", space.path().display()));
        run(
            "CREATE TABLE away TABLESPACE elsewhere AS TABLE still; CREATE TABLE away_still TABLESPACE elsewhere AS TABLE still",
        );
        let memory = Memory::default();
        let first = capture(&server, &memory, None);
        assert_eq!(facts(&first).captured, Some(Captured::Whole { why: None }), "{major}");

        run("UPDATE ledger SET balance = 1 WHERE id % 5000 = 7; DELETE FROM cut WHERE n > 5000; VACUUM cut;
             TRUNCATE emptied; DROP TABLE dropped; CREATE TABLE made AS TABLE still; DELETE FROM rewritten WHERE n % 3 = 0;
             VACUUM FULL rewritten; INSERT INTO grown SELECT n, repeat('y', 500) FROM generate_series(1, 9000) n;
             UPDATE away SET t = 'changed' WHERE n = 77; CREATE DATABASE other; DELETE FROM scratch");
        let after_first = everything(&server);
        let second = capture(&server, &memory, Some(&first));
        assert!(is_increment_on(&second, &first), "{major}: {:?}", facts(&second).captured);
        let (whole, changed) = (facts(&first).counts, facts(&second).counts);
        assert!(
            changed.unchanged_files > whole.files / 2 && changed.changed_bytes < whole.changed_bytes / 4 * 3,
            "{major}: {whole:?} {changed:?}"
        );

        // One upon the other, while the server is at work.
        run("UPDATE ledger SET balance = 2 WHERE id % 4000 = 9; INSERT INTO cut SELECT n, 'again' FROM generate_series(1, 9000) n;
             INSERT INTO emptied SELECT n, 'again' FROM generate_series(1, 9000) n; DROP TABLE made; VACUUM ledger;
             DELETE FROM grown WHERE n > 3000; VACUUM grown");
        let after_second = everything(&server);
        let third = capture(&server, &memory, Some(&second));
        assert!(is_increment_on(&third, &second), "{major}: {:?}", facts(&third).captured);
        let fourth = std::thread::scope(|scope| {
            let writing = scope.spawn(|| {
                for _ in 0..20 {
                    execute(&server, "UPDATE ledger SET balance = balance + 1 WHERE id % 10 = 1");
                    execute(&server, "INSERT INTO grown SELECT n, 'z' FROM generate_series(1, 500) n");
                }
            });
            let record = capture(&server, &memory, Some(&third));
            writing.join().unwrap();
            record
        });
        assert!(is_increment_on(&fourth, &third), "{major}: {:?}", facts(&fourth).captured);

        for (record, expected) in
            [(&second, Some(after_first)), (&third, Some(after_second)), (&fourth, None)]
        {
            let target = tempfile::tempdir().unwrap();
            chown(target.path(), Some(owner.uid()), Some(owner.gid())).unwrap();
            let asked = restore::Options {
                tablespaces: [(facts(record).tablespaces[0].oid, target.path().join("sent"))].into(),
                ..restore::Options::new("".into())
            };
            let restored = restored(&options, &memory, record, &asked);
            match expected {
                Some(expected) => {
                    let scratch = "SELECT count(*)::text FROM scratch";
                    assert_eq!(text(&restored, scratch), "0", "{major}: what is unlogged is empty");
                    let without = |all: &str| -> Vec<String> {
                        all.lines().filter(|line| !line.starts_with("scratch ")).map(str::to_owned).collect()
                    };
                    assert_eq!(without(&everything(&restored)), without(&expected), "{major}");
                }
                // All rows that one statement changed were changed alike.
                None => assert_eq!(
                    text(&restored, "SELECT max(balance) - min(balance) <= 2 FROM ledger WHERE id % 10 = 1"),
                    "t",
                    "{major}"
                ),
            }
            must_be_sound(&restored);
        }
    }
}

#[test]
fn where_an_increment_cannot_be_had_the_backup_is_whole_and_says_why() {
    let Some(tools) = versions().pop() else { return };
    let options = options(&tools);
    let server = Sandbox::start(&options).unwrap();
    execute(&server, "CREATE TABLE t AS SELECT generate_series(1, 20000) n");
    let memory = Memory::default();
    let first = capture(&server, &memory, None);

    let (record, _) = capture_telling(&server, &memory, Some(&first), true);
    assert_eq!(why_whole(&record), "everything was to be read again");

    let incomplete = SourceRecord { state: State::Incomplete, ..first.clone() };
    assert_eq!(why_whole(&capture(&server, &memory, Some(&incomplete))), "the backup before is not complete");
    let of_another = ClusterFacts { system: 7, ..facts(&first) };
    let of_another = SourceRecord { facts: of_another.to_json(), ..first.clone() };
    assert_eq!(
        why_whole(&capture(&server, &memory, Some(&of_another))),
        "the backup before is of another cluster"
    );
    let ahead = ClusterFacts { stop: "7/0".parse().unwrap(), ..facts(&first) };
    let ahead = SourceRecord { facts: ahead.to_json(), ..first.clone() };
    let why = why_whole(&capture(&server, &memory, Some(&ahead)));
    assert!(why.contains("has not come to where the backup before ended"), "{why}");

    // The server itself refuses: it has no summary of its log from there on.
    until(&server, "SELECT count(*) > 0 FROM pg_available_wal_summaries()");
    let summaries = server.data_directory().join("pg_wal/summaries");
    fs::read_dir(&summaries).unwrap().for_each(|file| fs::remove_file(file.unwrap().path()).unwrap());
    let (record, told) = capture_telling(&server, &memory, Some(&first), false);
    let why = why_whole(&record);
    assert!(why.contains("summaries"), "{why}");
    assert!(told.iter().any(|text| text.contains("as a whole") && text.contains(&why)), "{told:?}");
    // The next one is built on that.
    assert!(is_increment_on(&capture(&server, &memory, Some(&record)), &record));

    let restored = restored(&options, &memory, &record, &restore::Options::new("".into()));
    assert_eq!(text(&restored, "SELECT count(*) FROM t"), "20000");

    let without = Sandbox::start(&SandboxOptions::new(tools)).unwrap();
    let first = capture(&without, &memory, None);
    let record = capture(&without, &memory, Some(&first));
    assert_eq!(why_whole(&record), "summarize_wal is off on the server");
}

#[test]
fn what_cannot_be_read_of_the_backup_before_is_no_ground_and_comes_whole() {
    let Some(tools) = versions().pop() else { return };
    let options = options(&tools);
    let server = Sandbox::start(&options).unwrap();
    execute(
        &server,
        "CREATE TABLE t AS SELECT n, repeat(md5(n::text), 4) f FROM generate_series(1, 20000) n",
    );
    // Otherwise the first look at the rows would change every page.
    execute(&server, "VACUUM t");
    let memory = Memory::default();
    let first = capture(&server, &memory, None);
    execute(&server, "UPDATE t SET f = 'x' WHERE n BETWEEN 1000 AND 1800");
    let row = text(&server, "SELECT md5('19000')");
    let holds_row = |chunk: &[u8]| chunk.windows(row.len()).any(|part| part == row.as_bytes());
    assert!(memory.lose_where(|chunk| chunk.len() > 100 << 10 && holds_row(chunk)) > 0);
    let record = capture(&server, &memory, Some(&first));
    let why = why_whole(&record);
    assert!(why.contains("this chunk is missing"), "{why}");
    let expected = everything(&server);
    let restored = restored(&options, &memory, &record, &restore::Options::new("".into()));
    assert_eq!(everything(&restored), expected);
    must_be_sound(&restored);
    // A listing that is none.
    let mut garbled = record.clone();
    let listing = garbled.streams.iter_mut().find(|stream| stream.name == "listing").unwrap();
    listing.content = memory.put_reader(Pool::Tree, &mut &b"\x07 is no listing"[..]).unwrap();
    let why = why_whole(&capture(&server, &memory, Some(&garbled)));
    assert!(why.contains("makes no sense"), "{why}");
}

/// Lets the process that summarizes the log go on when the server has said that it waits for it.
struct Impatient<'a>(rustix::process::Pid, &'a Told);

impl Monitor for Impatient<'_> {
    fn event(&self, event: Event<'_>) {
        if matches!(event, Event::Notice { text, .. } if text.contains("waiting for WAL summarization")) {
            rustix::process::kill_process(self.0, rustix::process::Signal::CONT).unwrap();
        }
        self.1.event(event);
    }
}

#[test]
fn while_the_server_still_summarizes_its_log_it_is_said_what_is_waited_for() {
    let Some(tools) = versions().pop() else { return };
    let server = Sandbox::start(&options(&tools)).unwrap();
    execute(&server, "CREATE TABLE t AS SELECT generate_series(1, 20000) n");
    let memory = Memory::default();
    let first = capture(&server, &memory, None);
    let process = text(&server, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walsummarizer'");
    let process = rustix::process::Pid::from_raw(process.parse().unwrap()).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::STOP).unwrap();
    execute(&server, "UPDATE t SET n = n + 1");
    let told = Told::default();
    let record = capture_by(&server, &memory, Some(&first), false, &Impatient(process, &told));
    rustix::process::kill_process(process, rustix::process::Signal::CONT).unwrap();
    assert!(is_increment_on(&record, &first), "{:?}", facts(&record).captured);
    let told = told.0.into_inner().unwrap();
    assert!(told.iter().any(|text| text.contains("the server says: still waiting")), "{told:?}");
}

#[test]
fn a_promoted_standby_goes_on_from_its_primarys_backup_and_not_from_what_it_never_had() {
    let Some(tools) = versions().pop() else { return };
    let options = options(&tools);
    let primary = Sandbox::start(&options).unwrap();
    execute(&primary, "CREATE TABLE t AS SELECT n, 'a' AS f FROM generate_series(1, 20000) n");
    let memory = Memory::default();
    let first = capture(&primary, &memory, None);
    let following = following(options.clone(), &primary);
    let asked = restore::Options { recovery: Some(standby_mode()), ..restore::Options::new("".into()) };
    let second = restored(&following, &memory, &first, &asked);
    execute(&primary, "UPDATE t SET f = 'b' WHERE n = 7; CHECKPOINT");
    let of_primary = capture(&primary, &memory, Some(&first));
    assert!(is_increment_on(&of_primary, &first));
    caught_up(&second, &primary);
    execute(&second, "SELECT pg_promote()");
    until(&second, "SELECT NOT pg_is_in_recovery()");
    execute(&second, "UPDATE t SET f = 'c' WHERE n = 8; CHECKPOINT");

    // What the old primary does from here on is in no history of the new one.
    execute(&primary, "UPDATE t SET f = 'lost' WHERE n % 100 = 1; CHECKPOINT");
    let astray = capture(&primary, &memory, Some(&of_primary));
    while text(&second, "SELECT pg_current_wal_flush_lsn()") < facts(&astray).stop.to_string() {
        execute(&second, "SELECT pg_switch_wal()");
        execute(&second, "CREATE TABLE more AS SELECT 1; DROP TABLE more");
    }
    let whole = capture(&second, &memory, Some(&astray));
    assert!(why_whole(&whole).contains("another history"), "{:?}", facts(&whole).captured);

    // What both had is good to build on, if the new one has summaries of it.
    let record = capture(&second, &memory, Some(&of_primary));
    match facts(&record).captured.unwrap() {
        Captured::Increment { since } => assert_eq!(since, facts(&of_primary).start),
        Captured::Whole { why } => assert!(why.unwrap().contains("summaries")),
        Captured::Files => unreachable!("it was asked for over the replication protocol"),
    }
    for record in [whole, record] {
        let restored = restored(&options, &memory, &record, &restore::Options::new("".into()));
        let changed = "SELECT string_agg(n || f, ' ' ORDER BY n) FROM t WHERE f <> 'a'";
        assert_eq!(text(&restored, changed), "7b 8c");
        must_be_sound(&restored);
    }
}
