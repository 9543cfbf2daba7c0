//! The log of real servers, read here and by PostgreSQL's own `pg_waldump`.

use crate::support;
use mainstay_domain::wal::{Lsn, Segment, SegmentSize};
use mainstay_sources::postgres::{
    sandbox::{Sandbox, SandboxOptions},
    tools::Tools,
    wal::{Mark, Scanner, SegmentHeader, check_segment},
};
use std::{fs, process::Command};

/// A server's log, with everything in it that ends a transaction in some way.
struct Log {
    server: Sandbox,
    segments: Vec<Segment>,
    size: SegmentSize,
}

fn log_of(tools: Tools, megabytes: u64) -> Log {
    let options = SandboxOptions::new(tools)
        .initdb(&format!("--wal-segsize={megabytes}"))
        .setting("max_prepared_transactions", "9")
        .setting("wal_keep_size", "1GB")
        .setting("wal_level", "logical");
    let server = Sandbox::start(&options).unwrap();
    let mut session = server.connect("postgres").unwrap();
    let mut run = |sql: &str| session.execute(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    run("CREATE TABLE t (id int, filler text)");
    for round in 0..4 {
        for id in 0..150 {
            run(&format!("INSERT INTO t VALUES ({id}, repeat('x', {}))", 1 + id * 37 % 900));
        }
        run("BEGIN; INSERT INTO t VALUES (-1); ROLLBACK");
        // More subtransactions than a session remembers by itself.
        let savepoints: String =
            (0..80).map(|n| format!("SAVEPOINT s{n}; INSERT INTO t VALUES ({n});")).collect();
        run(&format!("BEGIN; {savepoints} COMMIT"));
        run(&format!("BEGIN; {savepoints} ROLLBACK TO s40; INSERT INTO t VALUES (1); ROLLBACK"));
        // Prepared, with all that a record may carry in front of the transaction's number.
        for (number, end) in ["COMMIT", "ROLLBACK"].into_iter().enumerate() {
            let name = format!("prepared {round} {number}");
            run(&format!(
                "CREATE TABLE gone{number} (id serial PRIMARY KEY, t text); INSERT INTO gone{number} (t) VALUES ('a')"
            ));
            run(&format!(
                "BEGIN; {savepoints} DROP TABLE gone{number}; CREATE TABLE new{number} (id int); PREPARE TRANSACTION '{name}'"
            ));
            run("INSERT INTO t VALUES (2)");
            run(&format!("{end} PREPARED '{name}'"));
            run(&format!("BEGIN; INSERT INTO t VALUES (3); PREPARE TRANSACTION '{name}'"));
            run(&format!("{end} PREPARED '{name}'"));
            run(&format!("DROP TABLE IF EXISTS gone{number}, new{number}"));
        }
        run(&format!("SELECT pg_create_restore_point('point {round}')"));
        // A record over several segments of the smallest size, and one over several pages.
        run("SELECT pg_logical_emit_message(false, 'big', repeat('y', 3500000))");
        run("SELECT pg_logical_emit_message(true, 'small', repeat('y', 50000))");
        run("SELECT pg_switch_wal()");
    }
    run("INSERT INTO t VALUES (9)");
    run("CHECKPOINT");
    let size = SegmentSize::try_from(megabytes << 20).unwrap();
    let last: Lsn = text(&server, "SELECT pg_current_wal_flush_lsn()").parse().unwrap();
    let mut segments: Vec<Segment> = fs::read_dir(server.data_directory().join("pg_wal"))
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .filter(|segment: &Segment| segment.start(size) < last)
        .collect();
    segments.sort();
    Log { server, segments, size }
}

fn text(server: &Sandbox, sql: &str) -> String {
    server.connect("postgres").unwrap().query_text(sql).unwrap().unwrap_or_default()
}

impl Log {
    fn bytes(&self, segment: Segment) -> Vec<u8> {
        fs::read(self.server.data_directory().join("pg_wal").join(segment.to_string())).unwrap()
    }

    fn marks(&self) -> Vec<Mark> {
        let mut scanner = Scanner::default();
        let mut marks = Vec::new();
        for segment in &self.segments {
            scanner.feed(segment.start(self.size), &self.bytes(*segment), |mark| marks.push(mark));
        }
        marks
    }

    /// What PostgreSQL's own reader says, in the same words as [`shown`].
    fn by_pg_waldump(&self, manager: &str) -> Vec<String> {
        let all = self.dumped(*self.segments.last().unwrap(), &[&format!("--rmgr={manager}")]);
        all.lines().filter_map(reworded).collect()
    }

    /// What PostgreSQL's own reader shows of the log up to the end of a segment.
    fn dumped(&self, last: Segment, options: &[&str]) -> String {
        let ends = [self.segments[0], last].map(|segment| segment.to_string());
        let output = Command::new(self.server.tools().program("pg_waldump"))
            .args(options)
            .arg("-p")
            .arg(self.server.data_directory().join("pg_wal"))
            .args(ends)
            .env("TZ", "UTC")
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

/// `0/16B3748 731 COMMIT 2026-11-20 14:02:31.123456`
fn reworded(line: &str) -> Option<String> {
    let field = |before: &str, until: char| Some(line.split_once(before)?.1.split_once(until)?.0.trim());
    let at: Lsn = field("lsn: ", ',')?.parse().ok()?;
    let description = line.split_once("desc: ")?.1;
    let (what, rest) = description.split_once(' ')?;
    match what {
        "PARAMETER_CHANGE" => {
            let words = [
                "max_connections=",
                "max_worker_processes=",
                "max_wal_senders=",
                "max_prepared_xacts=",
                "max_locks_per_xact=",
            ];
            let numbers: Vec<u32> =
                words.iter().map(|word| field(word, ' ').unwrap().parse().unwrap()).collect();
            Some(format!("{at} PARAMETER_CHANGE {numbers:?}"))
        }
        "RESTORE_POINT" => Some(format!("{at} RESTORE_POINT {}", rest.trim())),
        "COMMIT" | "ABORT" => Some(format!("{at} {} {what} {}", field("tx: ", ',')?, rest.get(..26)?)),
        "COMMIT_PREPARED" | "ABORT_PREPARED" => {
            let (xid, time) = rest.split_once(": ")?;
            Some(format!("{at} {xid} {} {}", what.trim_end_matches("_PREPARED"), time.get(..26)?))
        }
        _ => None,
    }
}

fn shown(mark: &Mark) -> String {
    match mark {
        Mark::Limits { at, limits } => format!("{at} PARAMETER_CHANGE {limits:?}"),
        Mark::RestorePoint { at, name, .. } => format!("{at} RESTORE_POINT {name}"),
        Mark::End { at, xid, time, committed } => {
            let end = if *committed { "COMMIT" } else { "ABORT" };
            let time = jiff::Timestamp::from_nanosecond(time.0.into()).unwrap();
            format!("{at} {xid} {end} {}", time.strftime("%Y-%m-%d %H:%M:%S%.6f"))
        }
    }
}

#[test]
fn every_end_of_a_transaction_is_seen_as_pg_waldump_sees_it() {
    for tools in support::versions() {
        let major = tools.major;
        for megabytes in [1, 16] {
            let log = log_of(tools.clone(), megabytes);
            let (points, ends): (Vec<Mark>, Vec<Mark>) =
                log.marks().into_iter().partition(|mark| !matches!(mark, Mark::End { .. }));
            let expected = log.by_pg_waldump("Transaction");
            assert!(expected.len() > 600, "{major}: {} ends", expected.len());
            let seen: Vec<String> = ends.iter().map(shown).collect();
            if let Some(at) = (0..expected.len()).find(|at| seen.get(*at) != expected.get(*at)) {
                panic!("PostgreSQL {major}, {megabytes} MB: {:?} and not {:?}", seen.get(at), expected[at]);
            }
            assert_eq!(seen.len(), expected.len(), "{major}: more than there are");
            let points: Vec<String> = points.iter().map(shown).collect();
            assert_eq!(points, log.by_pg_waldump("XLOG"), "{major}");
        }
    }
}

#[test]
fn the_last_record_of_a_stretch_is_the_last_one_that_pg_waldump_can_read_in_it() {
    for tools in support::versions() {
        let major = tools.major;
        let log = log_of(tools, 1);
        let mut scanner = Scanner::default();
        let (_, closed) = log.segments.split_last().unwrap();
        for segment in closed {
            scanner.feed(segment.start(log.size), &log.bytes(*segment), |_| {});
            let shown = log.dumped(*segment, &[]);
            let last = shown.lines().last().and_then(|line| line.split_once("lsn: ")?.1.split_once(','));
            let last: Lsn = last.unwrap().0.parse().unwrap();
            assert_eq!(scanner.last_record(), Some(last), "PostgreSQL {major}, up to the end of {segment}");
        }
    }
}

#[test]
fn each_segment_says_which_place_of_which_cluster_it_is() {
    for tools in support::versions() {
        let log = log_of(tools, 1);
        let system: u64 =
            text(&log.server, "SELECT system_identifier FROM pg_control_system()").parse().unwrap();
        for segment in &log.segments {
            let bytes = log.bytes(*segment);
            let header = check_segment(*segment, &bytes, system).unwrap();
            assert_eq!((header.start, header.segment_size), (segment.start(log.size), log.size));
            assert!(check_segment(segment.next(log.size), &bytes, system).is_err(), "another place");
            assert!(check_segment(*segment, &bytes, system + 1).is_err(), "another cluster");
            assert!(check_segment(*segment, &bytes[..bytes.len() / 2], system).is_err(), "half of it");
            let mut other_pages = bytes.clone();
            other_pages[36..40].copy_from_slice(&65536u32.to_ne_bytes());
            let refused = check_segment(*segment, &other_pages, system).unwrap_err();
            assert!(refused.message.contains("pages of 65536 bytes in its WAL"), "{refused}");
            assert!(
                check_segment(segment.on(2), &bytes, system).is_ok(),
                "copied when timeline 2 branched off"
            );
        }
        assert!(SegmentHeader::parse(&[0; 8192]).is_none());
    }
}

#[test]
fn a_scan_that_begins_anywhere_sees_what_ends_there() {
    let log = log_of(support::default_tools(), 1);
    let all = log.marks();
    for (index, first) in log.segments.iter().enumerate() {
        let mut scanner = Scanner::default();
        let mut marks = Vec::new();
        for segment in &log.segments[index..] {
            scanner.feed(segment.start(log.size), &log.bytes(*segment), |mark| marks.push(mark));
        }
        // A record that began before it is not to be had; everything that begins in it is.
        let begins = first.start(log.size);
        let at = |mark: &Mark| match mark {
            Mark::End { at, .. } | Mark::RestorePoint { at, .. } | Mark::Limits { at, .. } => *at,
        };
        let expected: Vec<Mark> = all.iter().filter(|mark| at(mark) >= begins).cloned().collect();
        assert_eq!(marks, expected, "from {first}");
    }
}
