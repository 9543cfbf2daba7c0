//! Base backups of clusters in which something is not as it should be.

use crate::{
    clusters::{KEY, Later, SUM, capture, config, facts, fill, text},
    memory, support,
};
use mainstay_domain::{
    ChunkId, Failure, Kind, Result, Silent,
    listing::{self, Doubt, Entry, Item},
    point::{SourceRecord, State, Stream},
    stream::{Content, Piece, PieceWriter, Pool, Sink, Vault},
};
use mainstay_sources::postgres::{
    cluster::{self, ClusterConfig, Method, facts::Tablespace, restore},
    sandbox::{Sandbox, SandboxOptions},
    secret::SecretText,
};
use memory::Memory;
use std::{os::unix::fs::MetadataExt, path::Path};

/// A server that is started on what a record holds.
fn started(server: SandboxOptions, memory: &Memory, record: &SourceRecord) -> Sandbox {
    Sandbox::start_on(&server, &|data: &Path| {
        let options = restore::Options { sync: false, ..restore::Options::new(data.to_owned()) };
        restore::restore(memory, record, &options, &mut |_| Ok(Vec::new()), &Silent)
            .map_err(std::io::Error::other)?;
        Ok(())
    })
    .unwrap()
}

/// A relation's file.
fn file_of(server: &Sandbox, relation: &str) -> std::path::PathBuf {
    server.data_directory().join(text(server, &format!("SELECT pg_relation_filepath('{relation}')")))
}

/// Overwrites bytes of a file, as a disk might.
fn damage(path: &Path, at: u64, bytes: &[u8]) {
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, bytes, at).unwrap();
}

fn with_checksums() -> Sandbox {
    Sandbox::start(&support::options().initdb("--data-checksums")).unwrap()
}

#[test]
fn damage_that_stays_is_named_by_every_backup() {
    let server = with_checksums();
    fill(&server);
    let memory = Memory::default();
    let (large, small) = (file_of(&server, "ledger"), file_of(&server, "pg_class"));
    damage(&large, 3 * 8192 + 5000, b"rot");
    damage(&small, 8192 + 5000, b"rot");
    let mut previous = None;
    for run in 0..3 {
        let record = capture(&server, &memory, previous.as_ref());
        assert_eq!(record.state, State::Incomplete, "run {run}");
        let named: Vec<&str> = record.problems.iter().map(|problem| problem.object.as_str()).collect();
        for path in [&large, &small] {
            let inside = path.strip_prefix(server.data_directory()).unwrap().to_str().unwrap();
            assert!(named.contains(&inside), "run {run}: {:?}", record.problems);
        }
        assert!(previous.is_none() || facts(&record).counts.unchanged_files > 100, "run {run}");
        previous = Some(record);
    }
}

#[test]
fn garbage_that_claims_to_be_new_is_damage_too() {
    let server = with_checksums();
    fill(&server);
    let path = file_of(&server, "ledger");
    damage(&path, 2 * 8192, &[0xff; 8192]);
    let memory = Memory::default();
    let record = capture(&server, &memory, None);
    assert_eq!(record.state, State::Incomplete);
    assert!(
        record.problems.iter().any(|problem| problem.message.contains("block 2")),
        "{:?}",
        record.problems
    );
    assert_eq!(facts(&record).counts.bad_blocks, 1);
}

/// Moves a file or directory of a stopped place elsewhere, and leaves a link.
fn move_away(from: &Path, to: &Path) {
    let moved = std::process::Command::new("mv").args([from, to]).status().unwrap();
    assert!(moved.success());
    std::os::unix::fs::symlink(to, from).unwrap();
}

#[test]
fn what_links_in_the_data_directory_lead_to_is_captured_in_their_place() {
    let server = Sandbox::start(&support::options()).unwrap();
    fill(&server);
    let elsewhere = tempfile::tempdir_in(server.data_directory().parent().unwrap()).unwrap();
    std::fs::set_permissions(elsewhere.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let data = server.data_directory();
    let database = data
        .join(format!("base/{}", text(&server, "SELECT oid FROM pg_database WHERE datname = 'postgres'")));
    // Open files stay what they are: the server does not notice.
    move_away(&database, &elsewhere.path().join("database"));
    move_away(&data.join("pg_ident.conf"), &elsewhere.path().join("ident"));
    move_away(&data.join("pg_stat_tmp"), &elsewhere.path().join("stat"));
    std::fs::write(elsewhere.path().join("stat/left"), b"out").unwrap();
    std::os::unix::fs::symlink(&data, data.join("itself")).unwrap();
    std::os::unix::fs::symlink("pg_hba.conf", data.join("beside")).unwrap();
    let memory = Memory::default();
    let looped = capture(&server, &memory, None);
    assert_eq!(looped.state, State::Incomplete);
    let problem = |record: &SourceRecord, object: &str| {
        record.problems.iter().find(|problem| problem.object == object).map(|problem| problem.message.clone())
    };
    assert!(
        problem(&looped, "itself").unwrap().contains("a directory that it is in itself"),
        "{:?}",
        looped.problems
    );

    std::fs::remove_file(data.join("itself")).unwrap();
    let before = text(&server, SUM);
    for previous in [None, Some(&looped)] {
        let record = capture(&server, &memory, previous);
        assert_eq!(record.state, State::Complete, "{:?}", record.problems);
        assert!(problem(&record, "pg_ident.conf").unwrap().contains("captured in its place"));
        let restored = started(support::options(), &memory, &record);
        assert_eq!(text(&restored, SUM), before);
        let at = |path: &Path| restored.data_directory().join(path.strip_prefix(&data).unwrap());
        assert!(at(&database).symlink_metadata().unwrap().is_dir());
        assert!(at(&data.join("pg_ident.conf")).symlink_metadata().unwrap().is_file());
        assert!(at(&data.join("pg_stat_tmp")).symlink_metadata().unwrap().is_dir());
        assert!(!at(&data.join("pg_stat_tmp/left")).exists());
        assert!(at(&data.join("beside")).symlink_metadata().unwrap().is_symlink());
    }

    std::fs::remove_file(elsewhere.path().join("ident")).unwrap();
    let dangling = capture(&server, &memory, None);
    assert_eq!(dangling.state, State::Incomplete);
    assert!(problem(&dangling, "pg_ident.conf").unwrap().contains("which cannot be read"));
}

/// A repository with a mistake in it.
struct Panicking<'m>(&'m Memory);

impl Sink for Panicking<'_> {
    fn put(&self, pool: Pool, chunk: &[u8]) -> Result<ChunkId> {
        assert!(pool != Pool::Data, "a mistake");
        self.0.put(pool, chunk)
    }
    fn put_reader(&self, pool: Pool, reader: &mut dyn std::io::Read) -> Result<Content> {
        self.0.put_reader(pool, reader)
    }
    fn begin(&self, pool: Pool) -> Box<dyn PieceWriter + '_> {
        self.0.begin(pool)
    }
    fn join(&self, pieces: &mut dyn Iterator<Item = Piece>) -> Result<Content> {
        self.0.join(pieces)
    }
    fn adopt(&self, content: &Content) -> Result<bool> {
        self.0.adopt(content)
    }
}

#[test]
fn a_thread_that_panics_ends_the_backup_and_not_its_progress() {
    let server = Sandbox::start(&support::options()).unwrap();
    let memory = Memory::default();
    let options = cluster::Options { page_key: KEY, full: false, previous: None, clock: &Later };
    let failed = cluster::capture(&config(&server), &Panicking(&memory), &options, &Silent).unwrap_err();
    assert!(failed.message.contains("a reading thread panicked"), "{failed}");
}

/// A folder of the server's own, beside its data.
fn folder_for(server: &Sandbox, name: &str) -> std::path::PathBuf {
    let folder = server.data_directory().parent().unwrap().join(name);
    std::fs::create_dir(&folder).unwrap();
    let owner = std::fs::metadata(server.data_directory()).unwrap();
    std::os::unix::fs::chown(&folder, Some(owner.uid()), Some(owner.gid())).unwrap();
    folder
}

#[test]
fn of_a_tablespace_only_the_clusters_own_version_is_captured_and_put_back() {
    let server = Sandbox::start(&support::options()).unwrap();
    let folder = folder_for(&server, "fast");
    let mut session = server.connect("postgres").unwrap();
    session.execute(&format!("CREATE TABLESPACE fast LOCATION '{}'", folder.display())).unwrap();
    session.execute("CREATE TABLE there TABLESPACE fast AS SELECT generate_series(1, 1000) AS n").unwrap();
    session.execute("CHECKPOINT").unwrap();
    let other = folder.join("PG_99_209901011/1");
    std::fs::create_dir_all(&other).unwrap();
    std::fs::write(other.join("1"), vec![7; 3_000_000]).unwrap();
    let memory = Memory::default();
    let record = capture(&server, &memory, None);
    assert_eq!(record.state, State::Complete, "{:?}", record.problems);
    let oid = facts(&record).tablespaces[0].oid;

    // Into a data directory that has the tablespace where its own link says, and another version's beside it.
    let place = tempfile::tempdir().unwrap();
    let (data, space) = (place.path().join("data"), place.path().join("space"));
    let mut options = restore::Options { sync: false, ..restore::Options::new(data.clone()) };
    options.tablespaces.insert(oid, space.clone());
    restore::restore(&memory, &record, &options, &mut |_| Ok(Vec::new()), &Silent).unwrap();
    assert!(!space.join("PG_99_209901011").exists(), "what is another version's is not in the backup");
    let own = std::fs::read_dir(&space).unwrap().next().unwrap().unwrap().path();
    std::fs::create_dir_all(space.join("PG_99_209901011/1")).unwrap();
    std::fs::write(own.join("stray"), b"stray").unwrap();
    options.delta = true;
    restore::restore(&memory, &record, &options, &mut |_| Ok(Vec::new()), &Silent).unwrap();
    assert!(
        space.join("PG_99_209901011/1").exists(),
        "another version's directory is nobody else's to remove"
    );
    assert!(!own.join("stray").exists());
}

#[test]
fn tablespaces_stay_where_they_are_when_a_restore_is_repeated_that_broke_off_or_was_never_started() {
    let server = Sandbox::start(&support::options()).unwrap();
    let folder = folder_for(&server, "fast");
    let mut session = server.connect("postgres").unwrap();
    session.execute(&format!("CREATE TABLESPACE fast LOCATION '{}'", folder.display())).unwrap();
    session.execute("CREATE TABLE there TABLESPACE fast AS SELECT generate_series(1, 1000) AS n").unwrap();
    let memory = Memory::default();
    let record = capture(&server, &memory, None);
    let oid = facts(&record).tablespaces[0].oid;
    let place = tempfile::tempdir().unwrap();
    let (data, space) = (place.path().join("data"), place.path().join("space"));
    let mut options = restore::Options { sync: false, ..restore::Options::new(data.clone()) };
    options.tablespaces.insert(oid, space.clone());
    let restore = |options: &restore::Options, breaks_off: bool| {
        let mut bring_log = |_: &Path| match breaks_off {
            true => Err(Failure::failed("the archive is away")),
            false => Ok(Vec::new()),
        };
        restore::restore(&memory, &record, options, &mut bring_log, &Silent).map(drop)
    };

    // Nobody says any more where the tablespace goes, and no server has started on what is there.
    restore(&options, true).unwrap_err();
    options = restore::Options { delta: true, ..restore::Options { tablespaces: [].into(), ..options } };
    let link = data.join(format!("pg_tblspc/{oid}"));
    for breaks_off in [false, true, true, false, false] {
        let own = std::fs::read_dir(&space).unwrap().next().unwrap().unwrap().path();
        std::fs::write(own.join("stray"), b"stray").unwrap();
        assert_eq!(restore(&options, breaks_off).is_err(), breaks_off);
        assert_eq!(std::fs::read_link(&link).unwrap(), space);
        assert!(!own.join("stray").exists(), "what is there was put right");
        assert!(!place.path().join("data-tablespaces").exists());
    }
    // Without the links, the map that no server has gone by yet says it.
    std::fs::remove_file(&link).unwrap();
    restore(&options, false).unwrap();
    assert_eq!(std::fs::read_link(&link).unwrap(), space);
    // Where it says something else, it is believed.
    let moved = place.path().join("moved");
    std::fs::rename(&space, &moved).unwrap();
    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(&moved, &link).unwrap();
    std::fs::remove_file(data.join("tablespace_map")).unwrap();
    restore(&options, false).unwrap();
    assert!(std::fs::read_link(&link).unwrap() == moved && !space.exists());
}

#[test]
fn a_tablespace_whose_folder_cannot_be_seen_is_no_empty_one() {
    let server = Sandbox::start(&support::options()).unwrap();
    let folder = folder_for(&server, "fast");
    server
        .connect("postgres")
        .unwrap()
        .execute(&format!("CREATE TABLESPACE fast LOCATION '{}'", folder.display()))
        .unwrap();
    std::fs::rename(&folder, folder.with_extension("away")).unwrap();
    let options = cluster::Options { page_key: KEY, full: false, previous: None, clock: &Later };
    let failed = cluster::capture(&config(&server), &Memory::default(), &options, &Silent).unwrap_err();
    assert!(failed.message.contains("the tablespace fast cannot be read"), "{failed}");
    std::fs::rename(folder.with_extension("away"), &folder).unwrap();
}

#[test]
fn a_user_without_the_right_to_know_the_data_directory_can_be_told_it() {
    let server = Sandbox::start(&support::options()).unwrap();
    let mut session = server.connect("postgres").unwrap();
    let functions = match support::default_tools().major {
        15.. => "pg_backup_start(text, boolean), pg_backup_stop(boolean)",
        _ => "pg_start_backup(text, boolean, boolean), pg_stop_backup(boolean, boolean)",
    };
    session
        .execute(&format!(
            "CREATE ROLE little LOGIN REPLICATION; GRANT EXECUTE ON FUNCTION {functions} TO little"
        ))
        .unwrap();
    let url = format!("postgres://little@localhost/postgres?host={}", server.socket_directory().display());
    let mut config =
        ClusterConfig { method: Method::Files, ..ClusterConfig::new(SecretText::Plain(url.into())) };
    let refused = cluster::probe(&config).unwrap_err();
    assert!(refused.message.contains("may not know where the data directory is"), "{refused}");
    assert!(refused.hint.unwrap_or_default().contains("pg_read_all_settings"));
    config.data_directory = Some(server.data_directory());
    let memory = Memory::default();
    let options = cluster::Options { page_key: KEY, full: false, previous: None, clock: &Later };
    let record = cluster::capture(&config, &memory, &options, &Silent).unwrap();
    assert_eq!(record.state, State::Complete, "{:?}", record.problems);
    // The first way of the hint is one, too.
    session.execute("GRANT pg_read_all_settings TO little").unwrap();
    config.data_directory = None;
    cluster::probe(&config).unwrap();
}

#[test]
fn a_configuration_that_names_its_originals_place_does_not_lead_the_copy_there() {
    let server = Sandbox::start(&support::options()).unwrap();
    fill(&server);
    let data = server.data_directory();
    let sum = text(&server, SUM);
    let mut session = server.connect("postgres").unwrap();
    session.execute("CREATE ROLE helper SUPERUSER LOGIN").unwrap();
    let pid_file = data.parent().unwrap().join("external.pid");
    let (shown, pid) = (data.display(), pid_file.display());
    let lines = format!(
        "data_directory = '{shown}'\nhba_file = '{shown}/pg_hba.conf'\nident_file = '{shown}/pg_ident.conf'\n\
         external_pid_file = '{pid}'\nlog_destination = 'syslog'\n"
    );
    let mut conf = std::fs::OpenOptions::new().append(true).open(data.join("postgresql.conf")).unwrap();
    std::io::Write::write_all(&mut conf, lines.as_bytes()).unwrap();
    // Nor need its superuser be called as usual.
    let url = format!("postgres://helper@localhost/postgres?host={}", server.socket_directory().display());
    let mut helper = mainstay_sources::postgres::wire::Connection::connect(
        &ClusterConfig::new(SecretText::Plain(url.clone().into())).connect_spec().unwrap(),
    )
    .unwrap();
    helper.execute("ALTER ROLE postgres RENAME TO boss").unwrap();
    let memory = Memory::default();
    let options = cluster::Options { page_key: KEY, full: false, previous: None, clock: &Later };
    let config = ClusterConfig::new(SecretText::Plain(url.into()));
    let record = cluster::capture(&config, &memory, &options, &Silent).unwrap();

    let superuser = facts(&record).superuser;
    assert_eq!(superuser, "boss");
    let restored = started(SandboxOptions { superuser, ..support::options() }, &memory, &record);
    assert_eq!(text(&restored, "SHOW data_directory"), restored.data_directory().display().to_string());
    assert!(text(&restored, "SHOW hba_file").starts_with(restored.data_directory().to_str().unwrap()));
    assert_eq!(text(&restored, "SHOW max_logical_replication_workers"), "0");
    assert_eq!(text(&restored, SUM), sum);
    assert!(!pid_file.exists());
}

/// The record as if one of its files had been unreadable.
fn without_content(memory: &Memory, record: &SourceRecord, name: &[u8]) -> SourceRecord {
    let mut record = record.clone();
    let stream = record.streams.iter_mut().find(|stream| stream.name == cluster::LISTING).unwrap();
    for piece in &mut stream.content.pieces {
        let bytes = memory.get(&piece.chunk.unwrap()).unwrap();
        let mut changed = Vec::new();
        for item in listing::decode_items(&bytes).map(std::result::Result::unwrap) {
            match item {
                Item::Entry(entry) if entry.name == name => {
                    let doubt = Some(Doubt::Unreadable);
                    listing::encode_entry(&Entry { content: None, doubt, ..*entry }, &mut changed);
                }
                item => listing::encode_item(&item, &mut changed),
            }
        }
        piece.bytes = changed.len() as u64;
        piece.chunk = Some(memory.put(Pool::Tree, &changed).unwrap());
    }
    record
}

#[test]
fn an_incomplete_base_backup_is_restored_only_if_that_is_accepted_and_never_without_a_file() {
    let server = with_checksums();
    fill(&server);
    damage(&file_of(&server, "ledger"), 2 * 8192, &[0xff; 8192]);
    let memory = Memory::default();
    let record = capture(&server, &memory, None);
    let place = tempfile::tempdir().unwrap();
    let restored = |record: &SourceRecord, name: &str, accept_partial: bool| {
        let data = place.path().join(name);
        let options = restore::Options { sync: false, accept_partial, ..restore::Options::new(data.clone()) };
        let done = restore::restore(&memory, record, &options, &mut |_| Ok(Vec::new()), &Silent);
        (done, data.join("global/pg_control").exists())
    };
    let (refused, _) = restored(&record, "refused", false);
    let refused = refused.unwrap_err();
    assert_eq!(refused.kind, Kind::Refused);
    assert!(refused.message.contains("block 2"), "{refused}");
    assert!(!place.path().join("refused").exists(), "nothing was begun");
    let (accepted, started) = restored(&record, "accepted", true);
    accepted.unwrap();
    assert!(started);

    let lacking = without_content(&memory, &record, b"pg_filenode.map");
    let (failed, started) = restored(&lacking, "lacking", true);
    assert_eq!(failed.unwrap_err().kind, Kind::Incomplete);
    assert!(!started, "no server can be started on it");
}

#[test]
fn nothing_of_somebody_elses_is_in_the_way_of_a_restore() {
    let server = Sandbox::start(&support::options()).unwrap();
    let memory = Memory::default();
    let record = capture(&server, &memory, None);
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let options = |name: &str| restore::Options::new(at(name));

    // Two tablespaces in one folder would be one.
    let mut facts = facts(&record);
    let mut two = record.clone();
    let mut same = options("new");
    for oid in [1, 2] {
        facts.tablespaces.push(Tablespace { oid, name: format!("space{oid}"), location: at("there") });
        two.streams.push(Stream { name: format!("listing/{oid}"), content: Content::default() });
        same.tablespaces.insert(oid, at("space"));
    }
    two.facts = facts.to_json();
    let refused = restore::plan(&two, &same).unwrap_err();
    assert!(refused.kind == Kind::Usage && refused.message.contains("1 and 2 would both go to"), "{refused}");

    // A delta restore removes what it does not know: a folder must be a cluster to be put right.
    std::fs::create_dir(at("home")).unwrap();
    std::fs::write(at("home/PG_VERSION"), "15").unwrap();
    let delta = restore::Options { delta: true, ..options("home") };
    assert_eq!(restore::plan(&record, &delta).unwrap_err().kind, Kind::Refused);
    std::fs::create_dir(at("home/global")).unwrap();
    std::fs::create_dir(at("home/base")).unwrap();
    restore::plan(&record, &delta).unwrap(); // as an interrupted restore leaves it

    let mut with_config = record.clone();
    with_config.streams.push(Stream { name: "config//etc/x.conf".into(), content: Content::default() });
    let config = |name: &str| restore::plan(&with_config, &options(name)).unwrap().config.unwrap();
    assert_eq!(config("new"), at("new-config"));
    std::fs::write(at("new-config"), "mine").unwrap();
    assert_eq!(config("new"), at("new-config-1"));
}
