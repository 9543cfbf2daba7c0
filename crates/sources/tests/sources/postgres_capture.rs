//! A capture of a database holds all of it, as of one instant, and says what it holds.

use crate::{memory, support};
use mainstay_domain::point::State;
use mainstay_sources::postgres::{
    config::PostgresConfig,
    facts::Skipped,
    rows::{RowHasher, RowSum},
    sandbox::{Sandbox, SandboxOptions},
    session,
    wire::Connection,
};
use memory::Memory;
use std::sync::atomic::{AtomicBool, Ordering};
use support::{ROW_KEY, capture, config, facts, rows};

/// The sum over the rows that a statement copies.
fn sum(db: &mut Connection, sql: &str) -> RowSum {
    let mut hasher = RowHasher::new(&ROW_KEY);
    let mut sum = RowSum::default();
    db.copy_out(sql, |bytes, ends| {
        sum.bytes += bytes.len() as u64;
        if let Some(hash) = hasher.part(bytes, ends) {
            sum.rows += 1;
            sum.digest = sum.digest.wrapping_add(hash);
        }
        Ok(())
    })
    .unwrap();
    sum
}

const COMPANY: &str = r#"
CREATE SCHEMA shop;
CREATE TABLE shop.customers (id int PRIMARY KEY, name text, born date, score float8, raw bytea, at timestamptz, i interval);
INSERT INTO shop.customers SELECT n, 'name ' || n, '2000-01-01'::date + n, n / 3.0, decode(to_hex(n + 4096), 'hex'),
       '2024-03-31 01:30+01'::timestamptz + n * interval '1 hour', n * interval '25 hours' FROM generate_series(1, 5000) n;
CREATE TABLE shop.orders (id bigserial PRIMARY KEY, customer int REFERENCES shop.customers, total numeric,
       twice numeric GENERATED ALWAYS AS (total * 2) STORED, dropped int, note text);
ALTER TABLE shop.orders DROP COLUMN dropped;
INSERT INTO shop.orders (customer, total, note) SELECT 1 + n % 5000, n, E'tab\tnewline\nbackslash\\ ' || n FROM generate_series(1, 20000) n;
CREATE TABLE shop.none ();
INSERT INTO shop.none DEFAULT VALUES; INSERT INTO shop.none DEFAULT VALUES;
CREATE TABLE shop.events (d date, v int) PARTITION BY RANGE (d);
CREATE TABLE shop.events_2024 PARTITION OF shop.events FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE TABLE shop.events_rest PARTITION OF shop.events DEFAULT;
INSERT INTO shop.events SELECT '2024-06-01'::date + n, n FROM generate_series(1, 1000) n;
CREATE TABLE shop.parent (a int); CREATE TABLE shop.child (b int) INHERITS (shop.parent);
INSERT INTO shop.parent VALUES (1); INSERT INTO shop.child VALUES (2, 3);
CREATE UNLOGGED TABLE shop.cache (k text); INSERT INTO shop.cache VALUES ('x');
CREATE TABLE "Odd.Name/ü" ("q""uote" int, "Mixed Case" text); INSERT INTO "Odd.Name/ü" VALUES (1, 'ä');
CREATE MATERIALIZED VIEW shop.mv AS SELECT count(*) FROM shop.orders;
CREATE SEQUENCE shop.numbers START 10; SELECT nextval('shop.numbers');
CREATE SEQUENCE shop.fresh START 7;
SELECT lo_from_bytea(0, 'a large object');
"#;

fn company() -> Sandbox {
    let sandbox = support::sandbox();
    sandbox.connect("postgres").unwrap().execute("CREATE DATABASE shop").unwrap();
    sandbox.connect("shop").unwrap().execute(COMPANY).unwrap();
    sandbox
}

#[test]
fn every_table_is_captured_with_its_rows_bytes_and_digest() {
    let sandbox = company();
    let memory = Memory::default();
    let record = capture(&config(&sandbox, "shop", "postgres"), &memory).unwrap();
    assert_eq!((record.state, record.partial), (State::Complete, false), "{:?}", record.problems);
    assert!(record.problems.is_empty(), "{:?}", record.problems);
    let facts = facts(&record);

    let names: Vec<_> = facts.tables.iter().map(|t| format!("{}.{}", t.schema, t.name)).collect();
    assert_eq!(
        names,
        [
            "public.Odd.Name/ü",
            "shop.cache",
            "shop.child",
            "shop.customers",
            "shop.events_2024",
            "shop.events_rest",
            "shop.none",
            "shop.orders",
            "shop.parent",
        ]
    );
    let mut db = sandbox.connect("shop").unwrap();
    session::prepare(&mut db).unwrap();
    for table in &facts.tables {
        let columns: Vec<_> =
            table.columns.iter().map(|c| format!("\"{}\"", c.name.replace('"', "\"\""))).collect();
        let list = if columns.is_empty() { String::new() } else { format!(" ({})", columns.join(",")) };
        let live = sum(&mut db, &format!("COPY {}{list} TO STDOUT", table.quoted()));
        assert_eq!(
            (table.rows, table.bytes, table.digest),
            (live.rows, live.bytes, live.digest),
            "{}",
            table.name
        );
        for stream in &table.streams {
            let content = &record.stream(stream).unwrap().content;
            assert_eq!((content.rows(), content.digest()), (table.rows, table.digest));
        }
    }
    let orders = facts.table("shop", "orders").unwrap();
    let columns: Vec<_> = orders.columns.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(columns, ["id", "customer", "total", "note"], "neither the generated nor the dropped column");
    assert_eq!(rows(&record, &memory, "shop", "parent"), ["1"], "not the child's rows");
    assert_eq!(rows(&record, &memory, "shop", "none"), ["", ""]);
    assert_eq!(record.items, facts.tables.iter().map(|t| t.rows).sum::<u64>());

    let values: Vec<_> =
        facts.sequences.iter().map(|s| (s.name.as_str(), s.last_value, s.is_called)).collect();
    assert_eq!(values, [("fresh", 7, false), ("numbers", 10, true), ("orders_id_seq", 20000, true)]);
    assert_eq!(facts.large_objects.count, 1);
    let blobs = memory.bytes(&record.stream("blobs").unwrap().content);
    assert!(blobs.starts_with(b"PGDMP"));
    assert!(blobs.windows(14).any(|w| w == b"a large object"));
    let schema = memory.bytes(&record.stream("schema").unwrap().content);
    assert!(schema.starts_with(b"PGDMP") && !schema.windows(14).any(|w| w == b"a large object"));
    assert!(!blobs.windows(9).any(|w| w == b"customers"), "the large objects alone");
    let globals = memory.bytes(&record.stream("globals").unwrap().content);
    assert!(String::from_utf8(globals).unwrap().contains("CREATE ROLE postgres"));
    assert!(facts.role_passwords && facts.snapshot.lsn.is_some() && facts.server.system_identifier.is_some());
    assert_eq!(record.consistent_at, Some(facts.snapshot.at));
}

#[test]
fn a_capture_of_an_unchanged_database_adds_next_to_nothing() {
    let sandbox = company();
    let memory = Memory::default();
    let config = config(&sandbox, "shop", "postgres");
    let first = capture(&config, &memory).unwrap();
    let chunks = memory.chunk_count();
    let second = capture(&config, &memory).unwrap();
    // The archives carry the time at which they were made.
    assert!(memory.chunk_count() <= chunks + 3);
    assert_eq!(facts(&first).tables, facts(&second).tables);
}

#[test]
fn it_works_on_every_version() {
    for tools in support::versions() {
        let sandbox = Sandbox::start(&SandboxOptions::new(tools.clone())).unwrap();
        sandbox.connect("postgres").unwrap().execute("CREATE DATABASE shop").unwrap();
        sandbox.connect("shop").unwrap().execute(COMPANY).unwrap();
        let memory = Memory::default();
        let record = capture(&config(&sandbox, "shop", "postgres"), &memory)
            .unwrap_or_else(|e| panic!("PostgreSQL {}: {e}", tools.major));
        assert_eq!(record.state, State::Complete, "PostgreSQL {}: {:?}", tools.major, record.problems);
        let facts = facts(&record);
        assert_eq!(facts.server.major(), tools.major);
        assert_eq!(facts.large_objects.stream.as_deref(), Some("blobs"));
        assert_eq!(facts.table("shop", "orders").unwrap().rows, 20000);
    }
}

#[test]
fn all_tables_are_of_one_instant_while_others_write() {
    let sandbox = support::sandbox();
    let mut db = sandbox.connect("postgres").unwrap();
    db.execute(
        "CREATE TABLE a (v bigint, pad text); CREATE TABLE b (v bigint); CREATE TABLE c (v bigint);
         INSERT INTO a SELECT 0, repeat('x', 1000) FROM generate_series(1, 20000);
         INSERT INTO b VALUES (0); INSERT INTO c VALUES (0)",
    )
    .unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut writer = sandbox.connect("postgres").unwrap();
        let _stops = StopOnDrop(&stop);
        let stop = &stop;
        scope.spawn(move || {
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                n += 1;
                // Always: b = c, and as many further rows in a.
                let step = format!(
                    "BEGIN; UPDATE b SET v = {n}; INSERT INTO a VALUES ({n}, 'n'); UPDATE c SET v = {n}; COMMIT"
                );
                writer.execute(&step).unwrap();
            }
        });
        for _ in 0..3 {
            let memory = Memory::default();
            let record = capture(&config(&sandbox, "postgres", "postgres"), &memory).unwrap();
            let (b, c) = (rows(&record, &memory, "public", "b"), rows(&record, &memory, "public", "c"));
            assert_eq!(b, c);
            assert_eq!(
                facts(&record).table("public", "a").unwrap().rows,
                20000 + b[0].parse::<u64>().unwrap()
            );
        }
    });
}

/// Ends the writer also when an assertion fails.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_giant_table_is_read_in_parts_that_together_are_the_table() {
    let sandbox = support::sandbox();
    let mut db = sandbox.connect("postgres").unwrap();
    db.execute(
        "CREATE TABLE giant (n int, pad text); CREATE TABLE small (n int);
         INSERT INTO giant SELECT n, repeat('x', 1900) FROM generate_series(1, 70000) n;
         DELETE FROM giant WHERE n % 7 = 0",
    )
    .unwrap();
    let memory = Memory::default();
    let record = capture(&config(&sandbox, "postgres", "postgres"), &memory).unwrap();
    let facts = facts(&record);
    let giant = facts.table("public", "giant").unwrap();
    assert_eq!(giant.streams, ["table/public.giant/0", "table/public.giant/1"]);
    session::prepare(&mut db).unwrap();
    let live = sum(&mut db, "COPY public.giant TO STDOUT");
    assert_eq!((giant.rows, giant.bytes, giant.digest), (live.rows, live.bytes, live.digest));
    let halves: Vec<u64> = giant.streams.iter().map(|s| record.stream(s).unwrap().content.rows()).collect();
    assert!(halves.iter().all(|rows| *rows > 20_000), "{halves:?}");
}

#[test]
fn a_prepared_session_keeps_the_guards_that_no_row_would_show_on_every_version() {
    for tools in support::versions() {
        let major = tools.major;
        let sandbox = Sandbox::start(&SandboxOptions::new(tools)).unwrap();
        let mut db = sandbox.connect("postgres").unwrap();
        db.execute("SET lc_monetary = 'C.UTF-8'; SET synchronize_seqscans = on").unwrap();
        session::prepare(&mut db).unwrap();
        for (name, value) in [
            ("lc_monetary", "C"),
            ("synchronize_seqscans", "off"),
            // CVE-2024-7348; the fixed minor versions know it.
            ("restrict_nonsystem_relation_kind", "view, foreign-table"),
        ] {
            let shown = db.query_text(&format!("SHOW {name}")).unwrap();
            assert_eq!(shown.as_deref(), Some(value), "{name} of PostgreSQL {major}");
        }
    }
}

#[test]
fn rows_have_the_same_text_whatever_the_database_is_set_to() {
    let sandbox = company();
    let memory = Memory::default();
    let config = config(&sandbox, "shop", "postgres");
    let before = facts(&capture(&config, &memory).unwrap());
    sandbox
        .connect("shop")
        .unwrap()
        .execute(
            "ALTER DATABASE shop SET DateStyle = 'SQL, DMY'; ALTER DATABASE shop SET IntervalStyle = 'iso_8601';
             ALTER DATABASE shop SET TimeZone = 'Asia/Tokyo'; ALTER DATABASE shop SET bytea_output = 'escape';
             ALTER DATABASE shop SET extra_float_digits = -5; ALTER DATABASE shop SET search_path = shop;
             ALTER DATABASE shop SET statement_timeout = '1ms'; ALTER DATABASE shop SET lock_timeout = '1ms';
             ALTER DATABASE shop SET default_transaction_isolation = 'read committed';
             ALTER DATABASE shop SET client_encoding = 'LATIN1'; ALTER DATABASE shop SET quote_all_identifiers = on;
             ALTER DATABASE shop SET idle_in_transaction_session_timeout = '1ms';
             ALTER DATABASE shop SET standard_conforming_strings = off; ALTER DATABASE shop SET xmlbinary = 'hex'",
        )
        .unwrap();
    let after = facts(&capture(&config, &memory).unwrap());
    assert_eq!(before.tables, after.tables);
    assert_eq!(before.session, after.session);
    assert_eq!(before.inventory.objects, after.inventory.objects);
}

#[test]
fn other_encodings_travel_as_they_lie() {
    for (encoding, bytes) in [("LATIN1", &b"\xfc"[..]), ("SQL_ASCII", b"\xfc\xff"), ("EUC_JP", b"\xc6\xfc")] {
        let sandbox =
            Sandbox::start(&SandboxOptions { encoding: encoding.into(), ..support::options() }).unwrap();
        let mut db = sandbox.connect("postgres").unwrap();
        db.execute("SET client_encoding = 'SQL_ASCII'; CREATE TABLE t (x text)").unwrap();
        let literal: String = bytes.iter().map(|b| format!("\\x{b:02x}")).collect();
        db.execute(&format!("INSERT INTO t VALUES (E'{literal}')")).unwrap();
        let memory = Memory::default();
        let record = capture(&config(&sandbox, "postgres", "postgres"), &memory).unwrap();
        assert_eq!(record.state, State::Complete, "{encoding}: {:?}", record.problems);
        assert_eq!(facts(&record).session["client_encoding"], encoding);
        let content = &record.stream("table/public.t/0").unwrap().content;
        assert_eq!(memory.bytes(content), [bytes, b"\n"].concat(), "{encoding}");
    }
}

#[test]
fn a_row_of_two_hundred_megabytes_passes_in_bounded_pieces() {
    let sandbox = support::sandbox();
    let mut db = sandbox.connect("postgres").unwrap();
    db.execute("CREATE TABLE big (t text); INSERT INTO big SELECT repeat('0123456789', 20 << 20); INSERT INTO big VALUES ('x')")
        .unwrap();
    let memory = Memory::default();
    let record = capture(&config(&sandbox, "postgres", "postgres"), &memory).unwrap();
    let facts = facts(&record);
    let big = facts.table("public", "big").unwrap();
    assert_eq!((big.rows, big.bytes), (2, (200 << 20) + 1 + 2));
    let content = &record.stream(&big.streams[0]).unwrap().content;
    assert!(content.pieces.iter().all(|p| p.bytes <= 4 << 20));
    assert!(memory.chunk_count() < 20, "the pieces of a repetitive row are the same piece");
}

#[test]
fn extension_tables_are_captured_as_far_as_the_extension_says() {
    // No extension with configuration tables ships with PostgreSQL: mark tables as members by hand.
    let sandbox = support::sandbox();
    let mut db = sandbox.connect("postgres").unwrap();
    db.execute(
        "SET allow_system_table_mods = on;
         CREATE TABLE plain (n int); CREATE TABLE conf (n int); INSERT INTO plain VALUES (1);
         INSERT INTO conf SELECT generate_series(1, 10);
         ALTER EXTENSION plpgsql ADD TABLE plain; ALTER EXTENSION plpgsql ADD TABLE conf;
         UPDATE pg_extension SET extconfig = ARRAY['conf'::regclass::oid], extcondition = ARRAY['WHERE n > 7']
          WHERE extname = 'plpgsql'",
    )
    .unwrap();
    let memory = Memory::default();
    let record = capture(&config(&sandbox, "postgres", "postgres"), &memory).unwrap();
    assert_eq!(record.state, State::Complete, "{:?}", record.problems);
    assert_eq!(facts(&record).table("public", "plain").unwrap().skipped, Some(Skipped::Extension));
    assert_eq!(rows(&record, &memory, "public", "conf"), ["10", "8", "9"]);
}

#[test]
fn the_configuration_says_where_the_address_comes_from() {
    let text = r#"{"url": {"env": "MAINSTAY_TEST_NOT_SET"}}"#;
    let config: PostgresConfig = serde_json::from_str(text).unwrap();
    let error = capture(&config, &Memory::default()).unwrap_err();
    assert_eq!(error.to_string(), "the environment variable MAINSTAY_TEST_NOT_SET is not set");
}

#[test]
fn a_standby_can_be_captured_in_place_of_its_primary() {
    let primary = Sandbox::start(&support::options().setting("wal_level", "replica")).unwrap();
    let mut db = primary.connect("postgres").unwrap();
    db.execute("CREATE TABLE t (n serial); INSERT INTO t SELECT FROM generate_series(1, 1000)").unwrap();
    let standby = Sandbox::start_on(&support::options(), &|data| {
        let backup = std::process::Command::new(primary.tools().program("pg_basebackup"))
            .args([
                "--write-recovery-conf",
                "--wal-method=stream",
                "--checkpoint=fast",
                "--no-sync",
                "--pgdata",
            ])
            .arg(data)
            .envs(primary.spec("postgres").child_environment())
            .env_remove("PGDATABASE")
            .output()?;
        assert!(backup.status.success(), "{}", String::from_utf8_lossy(&backup.stderr));
        Ok(())
    })
    .unwrap();
    let memory = Memory::default();
    let record = capture(&config(&standby, "postgres", "postgres"), &memory).unwrap();
    assert_eq!(record.state, State::Complete, "{:?}", record.problems);
    let facts = facts(&record);
    assert!(facts.server.in_recovery && facts.snapshot.lsn.is_some());
    assert_eq!(facts.table("public", "t").unwrap().rows, 1000);
}
