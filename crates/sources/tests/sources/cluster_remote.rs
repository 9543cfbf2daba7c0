//! Base backups over the replication protocol: the same record as of the data directory, from wherever the server is.

use crate::{
    clusters::{
        self, KEY, Later, SUM, caught_up, execute, facts, fill, following, program, standby_mode, text,
    },
    memory, support,
};
use mainstay_domain::{
    Failure, Kind, Silent,
    point::{SourceRecord, State},
};
use mainstay_sources::postgres::{
    cluster::{self, ClusterConfig, Method, restore},
    sandbox::{Sandbox, SandboxOptions},
    tools::Tools,
};
use memory::Memory;
use std::{
    fs,
    os::unix::fs::{FileExt, MetadataExt, chown},
    path::Path,
};

/// Those that can stream a base backup.
fn versions() -> Vec<Tools> {
    support::versions().into_iter().filter(|tools| tools.major >= 15).collect()
}

fn config(server: &Sandbox, method: Method) -> ClusterConfig {
    ClusterConfig { method, ..clusters::config(server) }
}

fn capture_by(
    server: &Sandbox,
    memory: &Memory,
    previous: Option<&SourceRecord>,
    method: Method,
) -> Result<SourceRecord, Failure> {
    let options = cluster::Options {
        page_key: KEY,
        full: false,
        previous: previous.map(|record| (memory as _, record)),
        clock: &Later,
    };
    cluster::capture(&config(server, method), memory, &options, &Silent)
}

fn capture(server: &Sandbox, memory: &Memory, previous: Option<&SourceRecord>) -> SourceRecord {
    capture_by(server, memory, previous, Method::Replication).unwrap()
}

fn restored(
    options: SandboxOptions,
    memory: &Memory,
    record: &SourceRecord,
    asked: &restore::Options,
) -> Sandbox {
    Sandbox::start_on(&options, &|data: &Path| {
        let options = restore::Options {
            sync: false,
            accept_partial: true,
            tablespaces: asked.tablespaces.clone(),
            recovery: asked.recovery.clone(),
            ..restore::Options::new(data.to_owned())
        };
        restore::restore(memory, record, &options, &mut |_| Ok(Vec::new()), &Silent)
            .map_err(std::io::Error::other)?;
        Ok(())
    })
    .unwrap()
}

fn started(options: SandboxOptions, memory: &Memory, record: &SourceRecord) -> Sandbox {
    restored(options, memory, record, &restore::Options::new("".into()))
}

/// Looks through every table and index, stops the server in order, and reads every page.
fn sound(server: &Sandbox) -> Result<(), String> {
    let (host, port) = (server.socket_directory().to_str().unwrap().to_owned(), server.port().to_string());
    execute(server, "CREATE EXTENSION IF NOT EXISTS amcheck");
    program(
        server,
        "pg_amcheck",
        &["-h", &host, "-p", &port, "-U", "postgres", "--heapallindexed", "postgres"],
    )?;
    let data = server.data_directory();
    let data = data.to_str().unwrap();
    program(server, "pg_ctl", &["-D", data, "-m", "fast", "-w", "stop"])?;
    program(server, "pg_checksums", &["-D", data, "--check"]).map(drop)
}

#[test]
fn what_is_streamed_comes_back_as_it_was_and_the_next_backup_stores_what_changed() {
    for tools in versions() {
        let major = tools.major;
        let options = SandboxOptions::new(tools).initdb("--data-checksums");
        let server = Sandbox::start(&options).unwrap();
        fill(&server);
        let memory = Memory::default();
        let first = capture(&server, &memory, None);
        assert_eq!(first.state, State::Complete, "{major}: {:?}", first.problems);

        execute(&server, "UPDATE ledger SET balance = 1 WHERE id % 5000 = 7");
        let before = text(&server, SUM);
        let second = capture(&server, &memory, Some(&first));
        assert_eq!(second.state, State::Complete, "{major}: {:?}", second.problems);
        let changed = |record: &SourceRecord| facts(record).counts.changed_bytes;
        assert!(
            changed(&second) + (2 << 20) < changed(&first),
            "{major}: {} and {} bytes differed",
            changed(&first),
            changed(&second)
        );
        // What a backup of the directory left is built on as well, and the other way round.
        let third = capture_by(&server, &memory, Some(&second), Method::Files).unwrap();
        assert!(changed(&third) < changed(&first), "{major}");
        let fourth = capture(&server, &memory, Some(&third));
        assert_eq!((third.state, fourth.state), (State::Complete, State::Complete), "{major}");

        for record in [&second, &fourth] {
            let restored = started(options.clone(), &memory, record);
            assert_eq!(text(&restored, SUM), before, "{major}");
            assert_eq!(text(&restored, "SELECT count(*) FROM scratch"), "0", "{major}");
            sound(&restored).unwrap_or_else(|said| panic!("{major}: {said}"));
        }
    }
}

#[test]
fn tablespaces_and_what_changes_meanwhile_come_back_too() {
    let tools = versions().pop().unwrap();
    let server =
        Sandbox::start(&SandboxOptions::new(tools.clone()).setting("full_page_writes", "on")).unwrap();
    fill(&server);
    let space = tempfile::tempdir().unwrap();
    let owner = fs::metadata(server.data_directory()).unwrap();
    chown(space.path(), Some(owner.uid()), Some(owner.gid())).unwrap();
    execute(&server, &format!("CREATE TABLESPACE elsewhere LOCATION '{}'", space.path().display()));
    execute(
        &server,
        "CREATE TABLE away TABLESPACE elsewhere AS SELECT n, repeat('y', 100) t FROM generate_series(1, 9000) n",
    );
    let memory = Memory::default();
    let whole = capture(&server, &memory, None);
    execute(&server, "UPDATE away SET t = 'changed' WHERE n = 77");
    let record = std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            for _ in 0..20 {
                execute(&server, "UPDATE ledger SET balance = balance + 1 WHERE id % 10 = 1");
            }
        });
        let record = capture(&server, &memory, Some(&whole));
        writing.join().unwrap();
        record
    });
    assert_eq!(record.state, State::Complete, "{:?}", record.problems);
    let found = facts(&record);
    let target = tempfile::tempdir().unwrap();
    chown(target.path(), Some(owner.uid()), Some(owner.gid())).unwrap();
    let asked = restore::Options {
        tablespaces: [(found.tablespaces[0].oid, target.path().join("sent"))].into(),
        ..restore::Options::new("".into())
    };
    let restored = restored(SandboxOptions::new(tools), &memory, &record, &asked);
    let counted =
        text(&restored, "SELECT count(*) || ' ' || count(*) FILTER (WHERE t = 'changed') FROM away");
    assert_eq!(counted, "9000 1");
    assert_eq!(text(&restored, "SELECT count(*) FROM ledger"), "20000");
    // All rows that one statement changed were changed alike.
    assert_eq!(text(&restored, "SELECT count(DISTINCT balance) FROM ledger WHERE id % 10 = 1"), "1");
}

#[test]
fn a_damaged_page_is_named_and_the_backup_goes_on() {
    let tools = support::default_tools();
    let options = SandboxOptions::new(tools).initdb("--data-checksums");
    let server = Sandbox::start(&options).unwrap();
    fill(&server);
    let path = text(&server, "SELECT pg_relation_filepath('ledger')");
    let file =
        fs::OpenOptions::new().read(true).write(true).open(server.data_directory().join(&path)).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 33 * 8192 + 5000).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], 33 * 8192 + 5000).unwrap();
    let record = capture(&server, &Memory::default(), None);
    assert_eq!(
        (record.state, facts(&record).counts.bad_blocks),
        (State::Incomplete, 1),
        "{:?}",
        record.problems
    );
    let said: Vec<_> = record.problems.iter().filter(|problem| problem.object == path).collect();
    assert!(said.len() == 1 && said[0].message.contains("block 33 is wrong"), "{:?}", record.problems);
}

#[test]
fn a_standby_streams_a_base_backup_though_its_primary_is_idle() {
    let tools = support::default_tools();
    let primary =
        Sandbox::start(&SandboxOptions::new(tools.clone()).setting("full_page_writes", "on")).unwrap();
    fill(&primary);
    let memory = Memory::default();
    let of_primary = capture(&primary, &memory, None);
    let options = following(SandboxOptions::new(tools.clone()), &primary);
    let asked = restore::Options { recovery: Some(standby_mode()), ..restore::Options::new("".into()) };
    let second = restored(options, &memory, &of_primary, &asked);
    caught_up(&second, &primary);

    let record = capture(&second, &memory, Some(&of_primary));
    assert!(facts(&record).from_standby && record.state == State::Complete, "{:?}", record.problems);
    let again = started(SandboxOptions::new(tools), &memory, &record);
    assert_eq!(text(&again, SUM), text(&primary, SUM));
}

#[test]
fn a_server_that_is_too_old_or_does_not_allow_it_is_refused_with_the_reason() {
    let too_old = support::versions().into_iter().find(|tools| tools.major == 14);
    if let Some(tools) = too_old {
        let server = Sandbox::start(&SandboxOptions::new(tools)).unwrap();
        let refused = capture_by(&server, &Memory::default(), None, Method::Replication).unwrap_err();
        assert!(
            refused.kind == Kind::Preflight && refused.message.contains("need PostgreSQL 15"),
            "{refused}"
        );
    }
    let options = SandboxOptions {
        hba: Some("local all all trust\n".into()),
        ..SandboxOptions::new(support::default_tools())
    };
    let server = Sandbox::start(&options).unwrap();
    let refused = capture_by(&server, &Memory::default(), None, Method::Replication).unwrap_err();
    assert!(refused.hint.as_deref().unwrap_or_default().contains("pg_hba.conf"), "{refused}");
}
