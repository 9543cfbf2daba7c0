//! Redis servers, captured and brought back: real ones, each on a Unix socket of its own.

use crate::{certificates, memory};
use certificates::Certificates;
use mainstay_domain::{
    ChunkId, Failure, Kind, Silent, SystemClock,
    point::{SourceRecord, State},
    stream::{Content, Piece, PieceWriter, Pool, Sink},
};
use mainstay_sources::redis::{
    self, Address, Client, Form, RedisConfig, RedisFacts, Sandbox, SnapshotBy, Value,
    restore::{self, LiveOptions, Options},
};
use memory::Memory;
use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    net::TcpListener,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

/// Lets the tests ask for DEBUG DIGEST.
const DIGESTS: (&str, &str) = ("enable-debug-command", "yes");

/// Debian's Redis, and the Valkey that the set-up script fetched.
fn programs() -> [PathBuf; 2] {
    let valkey = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.setup/valkey/valkey-server");
    assert!(valkey.is_file(), "no Valkey is installed: run the set-up script");
    [redis::program(None).unwrap(), valkey]
}

/// A Redis with these settings.
fn server(settings: &[(&str, &str)]) -> Sandbox {
    server_of(&redis::program(None).unwrap(), settings)
}

fn server_of(program: &Path, settings: &[(&str, &str)]) -> Sandbox {
    // Else it waits five seconds for other replicas.
    let settings = [&[("repl-diskless-sync-delay", "0"), DIGESTS], settings].concat();
    Sandbox::start_with(program, &settings, &mut |_| Ok(())).unwrap()
}

fn config(server: &Sandbox) -> RedisConfig {
    RedisConfig::new(format!("unix://{}", server.socket().display()).as_str().into())
}

fn capture(config: &RedisConfig, memory: &Memory) -> Result<SourceRecord, Failure> {
    redis::capture(config, memory, &SystemClock, &Silent)
}

fn facts(record: &SourceRecord) -> RedisFacts {
    RedisFacts::from_json(&record.facts).unwrap()
}

fn ask(client: &mut Client, line: &str) -> Value {
    client.ask(&line.split(' ').collect::<Vec<_>>()).unwrap()
}

/// Keys of every type and encoding, in three databases. Whether there is a function, too: not every server is built with Lua.
fn fill(server: &Sandbox) -> bool {
    let mut client = server.connect().unwrap();
    let client = &mut client;
    for n in 0..300 {
        ask(client, &format!("SET session:{n} value-of-{n} EX 3600"));
        ask(client, &format!("RPUSH list:big element-{n}-{}", "x".repeat(200)));
        ask(client, &format!("SADD set:texts member-{n}"));
        ask(client, &format!("SADD set:numbers {n}"));
        ask(client, &format!("ZADD zset:big {n}.25 member-{n}"));
        ask(client, &format!("HSET hash:big field-{n} value-{}", "y".repeat(100)));
        ask(client, &format!("XADD stream {}-1 field value-{n}", n + 1));
    }
    for line in [
        "SET number 12345",
        "SET long -9000000000000",
        "RPUSH list:small a b c",
        "SADD set:small a b",
        "ZADD zset:small 1 a +inf b -inf c",
        "HSET hash:small a 1 b 2",
        "PFADD hyper a b c d",
        "SETBIT bits 1000 1",
        "GEOADD places 13.36 38.11 Palermo",
        "XGROUP CREATE stream workers 0",
        "XREADGROUP GROUP workers one COUNT 3 STREAMS stream >",
    ] {
        ask(client, line);
    }
    // Compressed, both as a key and as a value.
    ask(client, &format!("SET {} {}", "repeated".repeat(20), "z".repeat(5000)));
    client.command(&[b"SET", b"\x00\xff binary\r\n", b"\x00\r\n\xfe"]).unwrap();
    let library = "#!lua name=mylib\nredis.register_function('f', function() return 1 end)";
    let functions = client.command(&[b"FUNCTION", b"LOAD", library.as_bytes()]).is_ok();
    // Fields that expire one by one are new in Valkey 9.
    let _ = client.ask(&["HEXPIRE", "hash:small", "3600", "FIELDS", "1", "a"]);
    client.select(3).unwrap();
    ask(client, "SET other 1 PX 86400000");
    client.select(9).unwrap();
    ask(client, "SET other 2");
    functions
}

/// The server's own digest over every key, value and expiry of all databases. What DUMP says depends on the order in a hash table.
fn contents(server: &Sandbox) -> String {
    ask(&mut server.connect().unwrap(), "DEBUG DIGEST").text().unwrap()
}

/// Every key with what DUMP says of it and whether it expires; for small values.
fn contents_of(client: &mut Client, databases: &[u32]) -> BTreeMap<(u32, Vec<u8>), (Vec<u8>, bool)> {
    let mut found = BTreeMap::new();
    for database in databases {
        client.select(*database).unwrap();
        let Value::Array(keys) = ask(client, "KEYS *") else { panic!("no keys") };
        for key in keys {
            let Value::Bulk(key) = key else { panic!("no key") };
            let Value::Bulk(dump) = client.command(&[b"DUMP", &key]).unwrap() else { panic!("no value") };
            let left = client.command(&[b"PTTL", &key]).unwrap().integer().unwrap();
            found.insert((*database, key), (dump, left >= 0));
        }
    }
    found
}

fn options(folder: &Path) -> Options {
    Options { destination: folder.to_owned(), server: None }
}

/// A server that is started on a folder, as an operator would.
fn started(folder: &Path, settings: &[(&str, &str)]) -> Sandbox {
    started_by(&redis::program(None).unwrap(), folder, settings)
}

fn started_by(program: &Path, folder: &Path, settings: &[(&str, &str)]) -> Sandbox {
    let folder = folder.to_str().unwrap();
    let settings = [&[("dir", folder), DIGESTS], settings].concat();
    Sandbox::start_with(program, &settings, &mut |_| Ok(())).unwrap()
}

#[test]
fn a_snapshot_brings_every_key_back_whether_sent_with_a_length_or_a_mark() {
    for program in programs() {
        for diskless in ["no", "yes"] {
            let original = server_of(&program, &[("repl-diskless-sync", diskless)]);
            let functions = fill(&original);
            let memory = Memory::default();
            let record = capture(&config(&original), &memory).unwrap();
            let facts = facts(&record);
            assert_eq!((record.state, facts.form), (State::Complete, Form::Rdb), "{:?}", record.problems);
            assert!(program.ends_with(format!("{}-server", facts.server.product)));
            assert!(record.consistent_at.is_some() && facts.replication_offset.is_some());
            let census = facts.census.clone().unwrap();
            assert_eq!(census.databases[&3].keys, 1);
            assert_eq!((census.databases[&0].expires, census.types["string"]), (300, 308));
            assert_eq!((census.types["stream"], facts.functions), (1, u64::from(functions)));
            assert_eq!(record.items, census.keys());

            let folder = tempfile::tempdir().unwrap();
            restore::to_directory(&memory, &record, &options(folder.path()), &Silent).unwrap();
            let restored = started_by(&program, folder.path(), &[]);
            assert_eq!(contents(&restored), contents(&original), "diskless {diskless}");
            if functions {
                let mut client = restored.connect().unwrap();
                assert_eq!(ask(&mut client, "FCALL f 0"), Value::Integer(1));
            }
            let sandbox = restore::sandbox(&memory, &record, Some(&program), &Silent).unwrap();
            let found = redis::compare(&memory, &record, &sandbox, &SystemClock, &Silent).unwrap();
            assert!(found.is_equal() && found.not_compared.is_empty(), "{found:?}");
            assert_eq!(found.keys, record.items);
        }
    }
}

#[test]
fn a_redis_that_is_older_than_what_was_captured_says_that_it_cannot_test_it() {
    let [redis, valkey] = programs();
    let original = server_of(&valkey, &[]);
    fill(&original);
    let memory = Memory::default();
    let record = capture(&config(&original), &memory).unwrap();
    let failure = restore::sandbox(&memory, &record, Some(&redis), &Silent).unwrap_err();
    assert_eq!(failure.kind, Kind::Preflight, "{failure:?}");
}

#[test]
fn a_server_with_an_append_only_file_starts_on_what_was_restored() {
    let original = server(&[("appendonly", "yes")]);
    fill(&original);
    let memory = Memory::default();
    let record = capture(&config(&original), &memory).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let plan = restore::to_directory(&memory, &record, &options(folder.path()), &Silent).unwrap();
    assert!(plan.append_only.is_some());
    let restored = started(folder.path(), &[("appendonly", "yes")]);
    assert_eq!(contents(&restored), contents(&original));
    // And it is a folder that the server goes on with.
    let mut client = restored.connect().unwrap();
    ask(&mut client, "SET afterwards 1");
    drop(client);
    restored.stop();
    let again = started(folder.path(), &[("appendonly", "yes")]);
    assert_eq!(ask(&mut again.connect().unwrap(), "GET afterwards").text().unwrap(), "1");
}

#[test]
fn where_replication_is_forbidden_keys_are_read_one_by_one_and_the_record_says_so() {
    let original = server(&[]);
    fill(&original);
    let mut client = original.connect().unwrap();
    ask(&mut client, "ACL SETUSER backup on >hunter2 ~* +info +select +scan +dump +pttl +type");
    let url = format!("unix://backup:hunter2@{}", original.socket().display());
    let config = RedisConfig::new(url.as_str().into());
    let memory = Memory::default();
    let record = capture(&config, &memory).unwrap();
    let facts = facts(&record);
    assert_eq!((record.state, facts.form, record.consistent_at), (State::Complete, Form::Keys, None));
    assert!(record.problems.iter().any(|problem| problem.message.contains("not the state of one instant")));
    assert!(!format!("{record:?}").contains("hunter2"));

    let folder = tempfile::tempdir().unwrap();
    restore::to_directory(&memory, &record, &options(folder.path()), &Silent).unwrap();
    let restored = started(folder.path(), &[]);
    assert_eq!(contents(&restored), contents(&original));

    // Asked for replication and nothing else, it refuses instead.
    let strict = RedisConfig { snapshot: SnapshotBy::Replication, ..config };
    let failure = capture(&strict, &memory).unwrap_err();
    assert!(failure.message.contains("NOPERM") && failure.hint.is_some(), "{failure:?}");
}

/// Asks for as much as it is given, and keeps nothing.
#[derive(Default)]
struct Gulping {
    memory: Memory,
    largest: AtomicUsize,
}

impl Sink for Gulping {
    fn put_reader(&self, _: Pool, reader: &mut dyn Read) -> Result<Content, Failure> {
        let mut buffer = vec![0; 128 << 20];
        loop {
            match reader.read(&mut buffer).map_err(|e| Failure::failed("the reader failed").caused_by(e))? {
                0 => return Ok(Content::default()),
                read => self.largest.fetch_max(read, Ordering::Relaxed),
            };
        }
    }
    fn put(&self, pool: Pool, chunk: &[u8]) -> Result<ChunkId, Failure> {
        self.memory.put(pool, chunk)
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

/// Bytes that DUMP does not make smaller.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

fn memory_of(client: &mut Client, what: &str) -> u64 {
    let text = ask(client, "INFO memory").text().unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':')).unwrap();
    line.trim().parse().unwrap()
}

#[test]
fn large_keys_are_read_a_few_mebibytes_at_a_time_by_us_and_by_the_server() {
    const MIB: usize = 1 << 20;
    let original = server(&[]);
    let mut client = original.connect().unwrap();
    let value = noise(MIB);
    for n in 0..80 {
        client.command(&[b"SET", format!("large:{n}").as_bytes(), &value]).unwrap();
        // Small elements around a large one: a sample of them says that it is small.
        let list = format!("hash:{n}");
        for field in 0..20 {
            client.command(&[b"HSET", list.as_bytes(), format!("{field}").as_bytes(), b"small"]).unwrap();
        }
        client.command(&[b"HSET", list.as_bytes(), b"large", &value]).unwrap();
    }
    client.command(&[b"SET", b"largest", &noise(12 * MIB)]).unwrap();
    ask(&mut client, "ACL SETUSER backup on nopass ~* +info +select +scan +dump +pttl +type");
    let before = memory_of(&mut client, "used_memory_peak");
    let socket = original.socket();
    for (user, largest) in [("default", 13 * MIB), ("backup", 17 * MIB)] {
        let login = if user == "default" { String::new() } else { format!("{user}:any@") };
        let url = format!("unix://{login}{}", socket.display());
        let config = RedisConfig { snapshot: SnapshotBy::Scan, ..RedisConfig::new(url.as_str().into()) };
        let sink = Gulping::default();
        let record = redis::capture(&config, &sink, &SystemClock, &Silent).unwrap();
        assert_eq!((record.items, record.state), (161, State::Complete), "{user}");
        let seen = sink.largest.into_inner();
        assert!((12 * MIB..largest).contains(&seen), "{user}: {seen} bytes at once");
    }
    let more = memory_of(&mut client, "used_memory_peak") - before;
    assert!(more < 40 * MIB as u64, "the server needed {more} bytes for its answers");
}

#[test]
fn a_key_that_may_not_be_read_leaves_the_record_incomplete() {
    let original = server(&[]);
    fill(&original);
    let mut client = original.connect().unwrap();
    ask(&mut client, "ACL SETUSER backup on nopass ~session:* +info +select +scan +dump +pttl +type");
    let url = format!("unix://backup:any@{}", original.socket().display());
    let record = capture(&RedisConfig::new(url.as_str().into()), &Memory::default()).unwrap();
    assert_eq!(record.state, State::Incomplete);
    assert_eq!(record.items, 300);
    assert!(record.problems.iter().any(|problem| problem.message.contains("could not be read")));
}

#[test]
fn a_wrong_password_is_named_without_being_shown() {
    let original = server(&[]);
    ask(&mut original.connect().unwrap(), "CONFIG SET requirepass right");
    for (login, needle) in [(":hunter2@", "WRONGPASS"), ("", "NOAUTH")] {
        let url = format!("unix://{login}{}", original.socket().display());
        let failure = redis::probe(&RedisConfig::new(url.as_str().into())).unwrap_err();
        assert_eq!(failure.kind, Kind::Preflight);
        assert!(failure.message.contains(needle), "{failure:?}");
        assert!(!format!("{failure:?}").contains("hunter2"), "{failure:?}");
    }
}

#[test]
fn a_comparison_finds_a_key_that_is_missing_added_or_changed() {
    for by in [SnapshotBy::Replication, SnapshotBy::Scan] {
        let original = server(&[]);
        fill(&original);
        let memory = Memory::default();
        let record = capture(&RedisConfig { snapshot: by, ..config(&original) }, &memory).unwrap();
        let restored = restore::sandbox(&memory, &record, None, &Silent).unwrap();
        let compare = || redis::compare(&memory, &record, &restored, &SystemClock, &Silent).unwrap();
        let found = compare();
        assert_eq!((found.differences.len(), found.keys), (0, record.items), "{by:?} {found:?}");
        let mut client = restored.connect().unwrap();
        for (change, undo, needle) in [
            ("RENAME number elsewhere", "RENAME elsewhere number", "number"),
            ("PERSIST session:7", "EXPIRE session:7 3600", "lifetime"),
            ("EXPIRE session:7 100", "EXPIRE session:7 3600", "another time"),
            ("SET added 1", "DEL added", "keys, and"),
        ] {
            ask(&mut client, change);
            let found = compare();
            let said = found.differences.join("; ");
            assert!(!found.is_equal() && said.contains(needle), "{by:?} {change}: {said}");
            ask(&mut client, undo);
        }
        assert!(compare().is_equal());
    }
}

#[test]
fn keys_that_have_expired_since_do_not_count_as_lost() {
    let original = server(&[]);
    let mut client = original.connect().unwrap();
    // The server does not look for such keys, so that its file holds one whose time has come.
    ask(&mut client, "DEBUG SET-ACTIVE-EXPIRE 0");
    ask(&mut client, "SET stays 1");
    ask(&mut client, "SET goes 1 PX 1");
    let memory = Memory::default();
    let record = capture(&config(&original), &memory).unwrap();
    let restored = restore::sandbox(&memory, &record, None, &Silent).unwrap();
    let found = redis::compare(&memory, &record, &restored, &SystemClock, &Silent).unwrap();
    assert!(found.is_equal() && found.keys == 2 && found.expired == 1, "{found:?}");
}

#[test]
fn a_living_server_is_loaded_under_a_prefix_or_into_an_empty_database_and_nothing_is_overwritten() {
    let original = server(&[]);
    let mut client = original.connect().unwrap();
    ask(&mut client, "SET a 1");
    ask(&mut client, "SET b 2 EX 5000");
    ask(&mut client, "RPUSH c x y z");
    let memory = Memory::default();
    let record = capture(&config(&original), &memory).unwrap();
    let socket = original.socket();
    let address = |query: &str| Address::parse(&format!("unix://{}{query}", socket.display())).unwrap();
    let plain = LiveOptions { prefix: Vec::new(), database: None, server: None };
    let load = |address: &Address, options: &LiveOptions| {
        restore::to_server(&memory, &record, address, options, &Silent)
    };

    let failure = load(&address(""), &plain).unwrap_err();
    assert!(failure.kind == Kind::Preflight && failure.message.contains("not empty"), "{failure:?}");

    assert_eq!(load(&address("?db=5"), &plain).unwrap(), 3);
    let (there, here) = (contents_of(&mut client, &[5]), contents_of(&mut client, &[0]));
    assert_eq!(there.values().collect::<Vec<_>>(), here.values().collect::<Vec<_>>());

    let prefixed = LiveOptions { prefix: b"old*:".into(), ..plain };
    assert_eq!(load(&address(""), &prefixed).unwrap(), 3);
    client.select(0).unwrap();
    assert_eq!(client.command(&[b"GET", b"old*:a"]).unwrap().text().unwrap(), "1");
    assert!(client.command(&[b"TTL", b"old*:b"]).unwrap().integer().unwrap() > 4000);
    let failure = load(&address(""), &prefixed).unwrap_err();
    assert!(failure.message.contains("this prefix already"), "{failure:?}");
}

#[test]
fn a_restore_overwrites_no_file_and_leaves_nothing_of_what_is_damaged() {
    let original = server(&[]);
    fill(&original);
    let memory = Memory::default();
    let record = capture(&config(&original), &memory).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let dump = folder.path().join("dump.rdb");
    fs::write(&dump, "mine").unwrap();
    let failure = restore::to_directory(&memory, &record, &options(folder.path()), &Silent).unwrap_err();
    assert_eq!(failure.kind, Kind::Preflight);
    assert_eq!(fs::read(&dump).unwrap(), b"mine");

    fs::remove_file(&dump).unwrap();
    let content = &record.stream(redis::RDB).unwrap().content;
    memory.lose(&content.pieces[0].chunk.unwrap());
    let failure = restore::to_directory(&memory, &record, &options(folder.path()), &Silent).unwrap_err();
    assert_eq!(failure.kind, Kind::Verification);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_store_that_is_full_ends_the_snapshot_with_its_own_words() {
    let original = server(&[]);
    fill(&original);
    let memory = Memory::default();
    memory.room.store(1, std::sync::atomic::Ordering::Relaxed);
    capture(&config(&original), &memory).unwrap_or_else(|failure| {
        panic!("one chunk has room: {failure:?}");
    });
    let failure = capture(&config(&original), &memory).unwrap_err();
    assert!(failure.message.contains("no space left"), "{failure:?}");
}

#[test]
fn what_endangers_the_data_is_said_in_the_record() {
    let original = server(&[("save", "")]);
    let record = capture(&config(&original), &Memory::default()).unwrap();
    assert!(record.problems.iter().any(|problem| problem.message.contains("nothing on disk")));
    assert_eq!(record.state, State::Complete, "it is whole all the same");
}

/// A Redis that also listens on a port, with TLS and a password; and the port. `clients`: whether they must have certificates.
fn with_tls(certificates: &Certificates, clients: &str) -> (Sandbox, u16) {
    // Kept until the moment before the server takes it.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let file = |name: &str| certificates.path(name).to_str().unwrap().to_owned();
    let settings = [
        ("tls-port", port.to_string()),
        ("tls-cert-file", file("server.crt")),
        ("tls-key-file", file("server.key")),
        ("tls-ca-cert-file", file("ca.crt")),
        ("tls-auth-clients", clients.to_owned()),
        ("bind", "127.0.0.1".to_owned()),
    ];
    let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let server = server(&settings);
    fill(&server);
    let mut client = server.connect().unwrap();
    ask(&mut client, "ACL SETUSER backup on >hunter2 +@all ~*");
    (server, port)
}

#[test]
fn over_tls_a_server_is_believed_only_with_the_certificate_of_its_name() {
    let certificates = Certificates::make();
    certificates.issue("server", "localhost", "subjectAltName=DNS:localhost");
    let (server, port) = with_tls(&certificates, "no");
    let at = |host: &str, parameters: &str| {
        let config =
            RedisConfig::new(format!("rediss://backup:hunter2@{host}:{port}/?{parameters}").as_str().into());
        let memory = Memory::default();
        let record = capture(&config, &memory)?;
        Ok::<_, Failure>((record, memory))
    };
    let ca = |name: &str| format!("sslrootcert={}", certificates.path(name).display());

    let (record, memory) = at("localhost", &ca("ca.crt")).unwrap();
    assert_eq!(record.state, State::Complete, "{:?}", record.problems);
    let folder = tempfile::tempdir().unwrap();
    restore::to_directory(&memory, &record, &options(&folder.path().join("back")), &Silent).unwrap();
    assert_eq!(contents(&started(&folder.path().join("back"), &[])), contents(&server));

    // Another name, another authority, none that anybody knows.
    for (host, parameters) in
        [("127.0.0.1", ca("ca.crt")), ("localhost", ca("other.crt")), ("localhost", String::new())]
    {
        let refused = at(host, &parameters).map(|_| ()).unwrap_err();
        assert_eq!(refused.kind, Kind::Preflight, "{host} {parameters}: {refused}");
        assert!(
            refused.message.contains("certificate") || refused.to_string().contains("certificate"),
            "{refused}"
        );
        assert!(!format!("{refused:?}").contains("hunter2"), "{refused:?}");
    }
    // Unless one asks for less.
    at("127.0.0.1", &format!("sslmode=verify-ca&{}", ca("ca.crt"))).unwrap();
    at("127.0.0.1", "sslmode=require").unwrap();
}

#[test]
fn a_server_that_wants_a_certificate_of_ours_gets_it() {
    let certificates = Certificates::make();
    certificates.issue("server", "localhost", "subjectAltName=DNS:localhost");
    let (_server, port) = with_tls(&certificates, "yes");
    let file = |name: &str| certificates.path(name).display().to_string();
    let with = |parameters: &str| {
        let url =
            format!("rediss://backup:hunter2@localhost:{port}/?sslrootcert={}{parameters}", file("ca.crt"));
        capture(&RedisConfig::new(url.as_str().into()), &Memory::default())
    };
    with("").unwrap_err();
    let record = with(&format!("&sslcert={}&sslkey={}", file("client.crt"), file("client.key"))).unwrap();
    assert_eq!(record.state, State::Complete, "{:?}", record.problems);
}
