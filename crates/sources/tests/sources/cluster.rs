//! Base backups of running servers, restored into other servers.

use crate::{
    clusters::{KEY, Later, SUM, caught_up, config, facts, fill, following, program, standby_mode, text},
    memory, support,
};
use mainstay_domain::{
    ChunkId, Clock, Failure, Result, Silent, SystemClock, Time,
    point::{SourceRecord, State},
    stream::{Content, Piece, PieceWriter, Pool, Sink},
};
use mainstay_sources::postgres::{
    cluster::{self, ClusterConfig, restore},
    sandbox::{Sandbox, SandboxOptions},
};
use memory::Memory;
use std::{
    fs,
    io::Read,
    os::unix::fs::{FileExt, MetadataExt, chown},
    path::{Path, PathBuf},
    process::Command,
    sync::Once,
};

/// So many days on.
struct Days(i64);

impl Clock for Days {
    fn now(&self) -> Time {
        SystemClock.now().plus(self.0 * mainstay_domain::time::DAY)
    }
}

fn capture(server: &Sandbox, memory: &Memory, previous: Option<&SourceRecord>) -> SourceRecord {
    capture_at(&Later, server, memory, previous)
}

fn capture_at(
    clock: &dyn Clock,
    server: &Sandbox,
    memory: &Memory,
    previous: Option<&SourceRecord>,
) -> SourceRecord {
    let options = cluster::Options {
        page_key: KEY,
        full: false,
        previous: previous.map(|record| (memory as _, record)),
        clock,
    };
    cluster::capture(&config(server), memory, &options, &Silent).unwrap()
}

/// A folder of the user that runs the server, which others may look into.
fn folder_of(server: &Sandbox) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let owner = fs::metadata(server.data_directory()).unwrap();
    chown(folder.path(), Some(owner.uid()), Some(owner.gid())).unwrap();
    folder
}

/// Stops the server in order and lets `pg_checksums` read every page.
fn checksums_of(server: &Sandbox) -> Result<String, String> {
    program(server, "pg_ctl", &["-m", "fast", "-w", "stop"])?;
    program(server, "pg_checksums", &["--check"])
}

/// Flips a byte in the middle of a block of a relation, on disk; returns the file's path in the data directory.
fn damage(server: &Sandbox, relation: &str, block: u64) -> String {
    server.connect("postgres").unwrap().execute("CHECKPOINT").unwrap();
    let path = text(server, &format!("SELECT pg_relation_filepath('{relation}')"));
    let file = fs::OpenOptions::new().read(true).write(true).open(server.data_directory().join(&path));
    let (file, at) = (file.unwrap(), block * 8192 + 5000);
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
    path
}

/// A server that is started on what a record holds.
fn started(server: SandboxOptions, memory: &Memory, record: &SourceRecord) -> Sandbox {
    Sandbox::start_on(&server, &|data: &Path| {
        // What is damaged is looked at, too.
        let options =
            restore::Options { sync: false, accept_partial: true, ..restore::Options::new(data.to_owned()) };
        restore::restore(memory, record, &options, &mut |_| Ok(Vec::new()), &Silent)
            .map_err(std::io::Error::other)?;
        Ok(())
    })
    .unwrap()
}

/// PostgreSQL's own check of a restored directory: all of it, its log too; and it sees a byte that is wrong.
fn verified(server: &Sandbox, memory: &Memory, record: &SourceRecord, spaces: &[u32]) {
    let folder = folder_of(server);
    let data = folder.path().join("data");
    let options = restore::Options {
        sync: false,
        manifest: true,
        tablespaces: spaces.iter().map(|oid| (*oid, folder.path().join("space"))).collect(),
        ..restore::Options::new(data.clone())
    };
    restore::restore(memory, record, &options, &mut |_| Ok(Vec::new()), &Silent).unwrap();
    let verify = || {
        let mut command = Command::new(server.tools().program("pg_verifybackup"));
        let output = command.arg(&data).current_dir("/").output().unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        if output.status.success() { Ok(said) } else { Err(said) }
    };
    let said = verify().unwrap();
    assert!(said.contains("successfully verified"), "{said}");
    let base = if spaces.is_empty() { data.join("base/1") } else { folder.path().join("space") };
    let file = first_relation(&base);
    let mut bytes = fs::read(&file).unwrap();
    bytes[5000] ^= 1;
    fs::write(&file, bytes).unwrap();
    let said = verify().unwrap_err();
    assert!(said.contains("checksum mismatch for file"), "{said}");
}

/// A file of more than a page somewhere below.
fn first_relation(folder: &Path) -> PathBuf {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            match entry.metadata().unwrap() {
                found if found.is_dir() => folders.push(entry.path()),
                found if found.len() > 8192 => return entry.path(),
                _ => {}
            }
        }
    }
    panic!("no file of more than a page below {}", folder.display());
}

#[test]
fn every_version_comes_back_as_it_was_and_the_next_backup_stores_what_changed() {
    for tools in support::versions() {
        let major = tools.major;
        let server = Sandbox::start(&SandboxOptions::new(tools.clone())).unwrap();
        fill(&server);
        let memory = Memory::default();
        let first = capture(&server, &memory, None);
        assert_eq!(first.state, State::Complete, "{major}: {:?}", first.problems);

        server
            .connect("postgres")
            .unwrap()
            .execute("UPDATE ledger SET balance = 1 WHERE id % 5000 = 7")
            .unwrap();
        let before = text(&server, SUM);
        let second = capture(&server, &memory, Some(&first));
        let (all, changed) = (facts(&second).counts.bytes, facts(&second).counts.changed_bytes);
        assert!(changed < all / 4, "{major}: {changed} of {all} bytes differed");
        assert!(facts(&second).counts.unchanged_files > 100, "{major}");

        verified(&server, &memory, &second, &[]);
        let restored = started(SandboxOptions::new(tools), &memory, &second);
        assert_eq!(text(&restored, SUM), before, "{major}");
        assert_eq!(
            text(&restored, "SELECT count(*) FROM scratch"),
            "0",
            "{major}: unlogged tables are emptied"
        );
        assert_eq!(text(&restored, "SELECT pg_is_in_recovery()"), "f");
    }
}

#[test]
fn page_checksums_are_judged_as_the_server_judges_them() {
    for tools in support::versions() {
        let major = tools.major;
        let options = SandboxOptions::new(tools).initdb("--data-checksums");
        let server = Sandbox::start(&options).unwrap();
        fill(&server);
        let memory = Memory::default();
        let sound = capture(&server, &memory, None);
        assert_eq!((sound.state, facts(&sound).counts.bad_blocks), (State::Complete, 0), "{major}");
        let restored = started(options.clone(), &memory, &sound);
        checksums_of(&restored).unwrap_or_else(|said| panic!("{major}: {said}"));

        // A page of a large relation, and one of a small one; the backup goes on and names both.
        server.connect("postgres").unwrap().execute("CREATE TABLE small AS SELECT 1 AS one").unwrap();
        let damaged =
            [("ledger", 33), ("small", 0)].map(|(name, block)| (damage(&server, name, block), block));
        let record = capture(&server, &memory, Some(&sound));
        assert_eq!((record.state, facts(&record).counts.bad_blocks), (State::Incomplete, 2), "{major}");
        for (path, block) in damaged {
            let said: Vec<&str> =
                record.problems.iter().filter(|p| p.object == path).map(|p| p.message.as_str()).collect();
            assert!(
                said.len() == 1 && said[0].contains(&format!("block {block} is wrong")),
                "{major}: {path}: {:?}",
                record.problems
            );
        }
        let restored = started(options, &memory, &record);
        let said = checksums_of(&restored).unwrap_err();
        assert!(said.contains("Bad checksums:  2"), "{major}: nothing was put right in silence\n{said}");
    }
}

#[test]
fn whatever_replaced_a_file_the_next_backup_has_what_is_there_now() {
    for tools in support::versions() {
        let major = tools.major;
        let server = Sandbox::start(&SandboxOptions::new(tools.clone())).unwrap();
        fill(&server);
        let memory = Memory::default();
        let mut last = capture(&server, &memory, None);
        let copy = if major >= 15 {
            "CREATE DATABASE copy TEMPLATE postgres STRATEGY file_copy"
        } else {
            "CREATE DATABASE copy TEMPLATE postgres"
        };
        let steps = [
            // Cut off at its end and grown again, within the same file.
            "DELETE FROM ledger WHERE id > 9000; VACUUM ledger",
            "INSERT INTO ledger SELECT n, 5, repeat(md5((n * 3)::text), 4) FROM generate_series(9001, 21000) n",
            // The same table in other files.
            "VACUUM FULL ledger",
            "TRUNCATE ledger; INSERT INTO ledger SELECT n, 7, repeat(md5((n * 7)::text), 4) FROM generate_series(1, 15000) n",
            // Files that nobody wrote page by page.
            copy,
            "DROP TABLE scratch; UPDATE ledger SET balance = 8 WHERE id % 100 = 1; REINDEX TABLE ledger",
        ];
        for step in steps {
            for statement in step.split("; ") {
                server.connect("postgres").unwrap().execute(statement).unwrap();
            }
            last = capture(&server, &memory, Some(&last));
            assert_eq!(last.state, State::Complete, "{major}: {step}: {:?}", last.problems);
            let restored = started(SandboxOptions::new(tools.clone()), &memory, &last);
            assert_eq!(text(&restored, SUM), text(&server, SUM), "{major}: {step}");
            if step == copy {
                let sum = |server: &Sandbox| {
                    server.connect("copy").unwrap().query_text(SUM).unwrap().unwrap_or_default()
                };
                assert_eq!(sum(&restored), sum(&server), "{major}: {step}");
            }
        }
    }
}

#[test]
fn tablespaces_come_back_where_they_are_sent_and_the_log_wherever_it_was() {
    for tools in support::versions() {
        let major = tools.major;
        let first = Sandbox::start(&SandboxOptions::new(tools.clone())).unwrap();
        let (log, space, outside) = (folder_of(&first), folder_of(&first), folder_of(&first));
        let hba = outside.path().join("pg_hba.conf");
        fs::write(&hba, "local all all trust\n").unwrap();
        fs::write(outside.path().join("pg_ident.conf"), "").unwrap();
        drop(first);
        let options = SandboxOptions::new(tools.clone())
            .initdb(&format!("--waldir={}", log.path().join("wal").display()))
            .setting("ident_file", outside.path().join("pg_ident.conf").to_str().unwrap())
            .setting("hba_file", hba.to_str().unwrap());
        let server = Sandbox::start(&options).unwrap();
        fill(&server);
        let mut session = server.connect("postgres").unwrap();
        session
            .execute(&format!("CREATE TABLESPACE elsewhere LOCATION '{}'", space.path().display()))
            .unwrap();
        session
            .execute("CREATE TABLE away TABLESPACE elsewhere AS SELECT n, repeat('y', 100) t FROM generate_series(1, 9000) n")
            .unwrap();
        let memory = Memory::default();
        let whole = capture(&server, &memory, None);
        session.execute("UPDATE away SET t = 'changed' WHERE n = 77").unwrap();
        let record = capture(&server, &memory, Some(&whole));
        assert_eq!(record.state, State::Complete, "{major}: {:?}", record.problems);
        let oid = facts(&record).tablespaces[0].oid;

        verified(&server, &memory, &record, &[oid]);
        let target = folder_of(&server);
        let sent = target.path().join("sent");
        let plain = SandboxOptions::new(tools.clone());
        let config = std::cell::RefCell::new(PathBuf::new());
        let restored = Sandbox::start_on(&plain, &|data: &Path| {
            let options = restore::Options {
                sync: false,
                tablespaces: [(oid, sent.clone())].into(),
                ..restore::Options::new(data.to_owned())
            };
            restore::restore(&memory, &record, &options, &mut |_| Ok(Vec::new()), &Silent)
                .map_err(std::io::Error::other)?;
            *config.borrow_mut() = data.with_file_name("data-config");
            Ok(())
        })
        .unwrap();
        let changed =
            text(&restored, "SELECT count(*) || ' ' || count(*) FILTER (WHERE t = 'changed') FROM away");
        assert_eq!(changed, "9000 1", "{major}");
        let location = text(
            &restored,
            "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'elsewhere'",
        );
        assert_eq!(Path::new(&location), sent, "{major}");
        let log = fs::symlink_metadata(restored.data_directory().join("pg_wal")).unwrap();
        assert!(log.is_dir(), "{major}: no link is followed or made");
        let kept: Vec<String> = fs::read_dir(&*config.borrow())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with("pg_hba.conf"))
            .collect();
        assert_eq!(kept.len(), 1, "{major}");
        let kept = fs::read_to_string(config.borrow().join(&kept[0])).unwrap();
        assert_eq!(kept, "local all all trust\n");
    }
}

/// A standby of `primary`, made from a base backup of it.
fn standby(primary: &Sandbox, memory: &Memory, record: &SourceRecord) -> Sandbox {
    let options = following(SandboxOptions::new(primary.tools().clone()), primary);
    let server = Sandbox::start_on(&options, &|data: &Path| {
        let options = restore::Options {
            sync: false,
            recovery: Some(standby_mode()),
            ..restore::Options::new(data.to_owned())
        };
        restore::restore(memory, record, &options, &mut |_| Ok(Vec::new()), &Silent)
            .map_err(std::io::Error::other)?;
        Ok(())
    })
    .unwrap();
    caught_up(&server, primary);
    server
}

/// A repository that has something done at the first chunk that it is given.
struct Meanwhile<'a> {
    memory: &'a Memory,
    once: Once,
    act: &'a (dyn Fn() + Sync),
}

impl Sink for Meanwhile<'_> {
    fn put(&self, pool: Pool, chunk: &[u8]) -> Result<ChunkId, Failure> {
        self.once.call_once(|| (self.act)());
        self.memory.put(pool, chunk)
    }
    fn put_reader(&self, pool: Pool, reader: &mut dyn Read) -> Result<Content, Failure> {
        self.memory.put_reader(pool, reader)
    }
    fn begin(&self, pool: Pool) -> Box<dyn PieceWriter + '_> {
        self.memory.begin(pool)
    }
    fn join(&self, pieces: &mut dyn Iterator<Item = Piece>) -> Result<Content, Failure> {
        self.memory.join(pieces)
    }
    fn adopt(&self, content: &Content) -> Result<bool, Failure> {
        self.memory.adopt(content)
    }
}

#[test]
fn a_standby_is_backed_up_though_its_primary_is_idle_and_not_if_it_is_promoted_meanwhile() {
    for tools in support::versions() {
        let major = tools.major;
        let options = SandboxOptions::new(tools.clone()).setting("full_page_writes", "on");
        let primary = Sandbox::start(&options).unwrap();
        fill(&primary);
        let memory = Memory::default();
        let of_primary = capture(&primary, &memory, None);
        let second = standby(&primary, &memory, &of_primary);

        // Nothing happens on the primary any more.
        let record = capture(&second, &memory, Some(&of_primary));
        assert!(
            facts(&record).from_standby && record.state == State::Complete,
            "{major}: {:?}",
            record.problems
        );
        let restored = started(SandboxOptions::new(tools), &memory, &record);
        assert_eq!(text(&restored, SUM), text(&primary, SUM), "{major}");

        // An address that leads to the one server, and a folder that is the other's: the identifier is the same.
        for (asked, folder) in [(&primary, &second), (&second, &primary)] {
            let mixed =
                ClusterConfig { data_directory: Some(folder.data_directory().to_owned()), ..config(asked) };
            let options = cluster::Options { page_key: KEY, full: true, previous: None, clock: &Later };
            let failure = cluster::capture(&mixed, &memory, &options, &Silent).unwrap_err();
            assert!(
                failure.to_string().contains("not the data directory of the server that was asked"),
                "{major}: {failure}"
            );
        }

        let promote = || {
            let promoted = text(&second, "SELECT pg_promote()");
            assert_eq!(promoted, "t");
        };
        let sink = Meanwhile { memory: &memory, once: Once::new(), act: &promote };
        let options = cluster::Options { page_key: KEY, full: true, previous: None, clock: &Later };
        let failure = cluster::capture(&config(&second), &sink, &options, &Silent).unwrap_err();
        assert!(failure.to_string().contains("this backup is not to be used"), "{major}: {failure}");
    }
}

#[test]
fn what_changes_while_it_is_read_is_made_right_by_the_log() {
    let tools = support::default_tools();
    let server =
        Sandbox::start(&SandboxOptions::new(tools.clone()).setting("full_page_writes", "on")).unwrap();
    fill(&server);
    let memory = Memory::default();
    let first = capture(&server, &memory, None);
    let act = || {
        let mut session = server.connect("postgres").unwrap();
        for statement in [
            "UPDATE ledger SET balance = id",
            "CREATE TABLE new AS SELECT generate_series(1, 5000) AS n",
            "DELETE FROM ledger WHERE id > 15000",
            "VACUUM ledger",
            "DROP TABLE scratch",
            "CHECKPOINT",
        ] {
            session.execute(statement).unwrap();
        }
    };
    let sink = Meanwhile { memory: &memory, once: Once::new(), act: &act };
    let options =
        cluster::Options { page_key: KEY, full: false, previous: Some((&memory, &first)), clock: &Later };
    let record = cluster::capture(&config(&server), &sink, &options, &Silent).unwrap();
    let restored = started(SandboxOptions::new(tools), &memory, &record);
    assert_eq!(text(&restored, SUM), text(&server, SUM));
    assert_eq!(text(&restored, "SELECT count(*) FROM new"), "5000");
}

#[test]
fn a_delta_writes_only_pages_that_differ_and_gives_what_a_fresh_restore_gives() {
    let server = Sandbox::start(&support::options()).unwrap();
    fill(&server);
    server
        .connect("postgres")
        .unwrap()
        .execute("CREATE TABLE other AS SELECT n, repeat('z', 200) t FROM generate_series(1, 9000) n; CREATE TABLE third AS SELECT * FROM other")
        .unwrap();
    // So that a query does not touch every page.
    server.connect("postgres").unwrap().execute("VACUUM FREEZE").unwrap();
    let path = |table: &str| text(&server, &format!("SELECT pg_relation_filepath('{table}')"));
    let (ledger, other, third) = (path("ledger"), path("other"), path("third"));
    let memory = Memory::default();
    let first = capture(&server, &memory, None);
    server.connect("postgres").unwrap().execute("UPDATE ledger SET balance = 1 WHERE id % 5000 = 7").unwrap();
    let second = capture(&server, &memory, Some(&first));

    let folder = folder_of(&server);
    let (fresh, delta) = (folder.path().join("fresh"), folder.path().join("delta"));
    let into = |to: &Path, record: &SourceRecord, delta: bool| {
        let options = restore::Options {
            sync: false,
            delta,
            page_key: delta.then_some(KEY),
            ..restore::Options::new(to.to_owned())
        };
        restore::restore(&memory, record, &options, &mut |_| Ok(Vec::new()), &Silent).unwrap()
    };
    into(&fresh, &second, false);
    // The cluster as it was before, and worked on: a page that is wrong, a file too short, one too long, one with a second name.
    into(&delta, &first, false);
    let write = |name: &str, at: u64, bytes: &[u8]| {
        fs::OpenOptions::new().write(true).open(delta.join(name)).unwrap().write_all_at(bytes, at).unwrap();
    };
    let length = |name: &str| fs::metadata(delta.join(name)).unwrap().len();
    write(&ledger, 8192 * 40 + 17, b"wrong");
    write(&other, length(&other), &[7; 12_345]);
    fs::hard_link(delta.join(&third), folder.path().join("copy")).unwrap();
    write(&third, 0, b"not right");
    let cut = fs::OpenOptions::new().write(true).open(delta.join(path("ledger_pkey"))).unwrap();
    cut.set_len(100_000).unwrap();
    let inode = |name: &str| fs::metadata(delta.join(name)).unwrap().ino();
    let (before, before_third) = ((inode(&ledger), inode(&other)), inode(&third));

    let report = into(&delta, &second, true);
    assert_eq!(report.state, State::Complete, "{:?}", report.problems);
    assert_eq!((inode(&ledger), inode(&other)), before, "put right where they lie");
    assert_ne!(inode(&third), before_third, "another name of the file is not written to");
    assert_eq!(fs::read(folder.path().join("copy")).unwrap()[..9], *b"not right");
    assert!(report.kept_bytes > 5 * report.bytes, "{} kept, {} written", report.kept_bytes, report.bytes);
    assert!(tree(&fresh) == tree(&delta), "the same files, with the same content, mode and time");
    // Nothing is left to do.
    let again = into(&delta, &second, true);
    assert!(again.bytes < 300_000, "{} written: the few files that recovery wrote", again.bytes);
}

/// Every file below: its content, mode and time. What a recovery is told is written at the time of the restore.
fn tree(folder: &Path) -> std::collections::BTreeMap<PathBuf, (Vec<u8>, u32, Option<std::time::SystemTime>)> {
    let mut found = std::collections::BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(at) = folders.pop() {
        for entry in fs::read_dir(&at).unwrap().flatten() {
            let metadata = entry.metadata().unwrap();
            if metadata.is_dir() {
                folders.push(entry.path());
                continue;
            }
            let path = entry.path().strip_prefix(folder).unwrap().to_owned();
            let relation = path.starts_with("base");
            let time = relation.then(|| metadata.modified().unwrap());
            found.insert(path, (fs::read(entry.path()).unwrap(), metadata.mode(), time));
        }
    }
    found
}

#[test]
fn when_a_base_backup_ended_is_told_by_the_servers_clock_and_not_by_ours() {
    let server = support::sandbox();
    let memory = Memory::default();
    let clock = || -> i64 {
        text(&server, "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint").parse().unwrap()
    };
    let before = clock();
    let record = capture_at(&Days(-1), &server, &memory, None);
    let stopped = facts(&record).stopped_at.unwrap().0 / 1000;
    assert!(before < stopped && stopped < clock(), "{stopped}");
    assert!(record.consistent_at.unwrap().0 / 1000 < before, "ours is a day behind");
}

#[test]
fn everything_is_read_again_once_a_week_and_only_then() {
    let server = support::sandbox();
    fill(&server);
    let memory = Memory::default();
    let first = capture_at(&Days(1), &server, &memory, None);
    let second = capture_at(&Days(6), &server, &memory, Some(&first));
    assert!(facts(&second).counts.unchanged_files > 100);
    assert_eq!(facts(&second).read_whole, facts(&first).read_whole);
    let third = capture_at(&Days(9), &server, &memory, Some(&second));
    assert_eq!(facts(&third).counts.unchanged_files, 0);
    assert!(facts(&third).read_whole > facts(&second).read_whole);
    let (again, at_first) = (facts(&third).counts.changed_bytes, facts(&first).counts.changed_bytes);
    assert!(again < at_first, "what is the same is not stored again: {again} of {at_first}");
    let fourth = capture_at(&Days(10), &server, &memory, Some(&third));
    assert!(facts(&fourth).counts.unchanged_files > 100);
}
