//! The wire client against real servers.

use crate::support;
use mainstay_domain::Failure;

#[test]
fn statements_answer_with_rows_counts_and_errors_that_leave_the_session_usable() {
    let sandbox = support::sandbox();
    let mut db = sandbox.connect("postgres").unwrap();
    assert!(db.server_version_num() >= 140_000);
    let rows = db.query("SELECT 1 AS a, NULL AS b, 'ü' AS c; SELECT 2, 't'::bool").unwrap();
    let row = rows.iter().next().unwrap();
    assert_eq!((row.int(0).unwrap(), row.bool(1)), (2, true));
    let error = db.query("SELECT 1/0").unwrap_err();
    assert!(error.is("22012"), "{error}");
    assert_eq!(db.execute("CREATE TABLE t AS SELECT generate_series(1, 7)").unwrap(), 7);
    assert_eq!(db.query_text("SELECT NULL").unwrap(), None);
    db.execute("DO $$BEGIN RAISE NOTICE 'hello'; END$$").unwrap();
    assert_eq!(db.take_notices()[0].message, "hello");
}

#[test]
fn rows_copied_out_and_in_again_are_the_same_bytes() {
    let sandbox = support::sandbox();
    let mut db = sandbox.connect("postgres").unwrap();
    db.execute(
        "CREATE TABLE a (n int, t text);
         INSERT INTO a SELECT n, repeat(chr(9) || 'x' || chr(10) || n, n % 50) FROM generate_series(1, 20000) n;
         INSERT INTO a VALUES (0, repeat('wide', 500000)), (-1, NULL);
         CREATE TABLE b (LIKE a)",
    )
    .unwrap();
    let (mut bytes, mut rows, mut parts) = (Vec::new(), 0_u64, 0_u64);
    let counted = db
        .copy_out("COPY a TO STDOUT", |row, ends| {
            bytes.extend_from_slice(row);
            rows += u64::from(ends);
            parts += 1;
            assert!(!ends || row.last() == Some(&b'\n'));
            Ok(())
        })
        .unwrap();
    assert_eq!((counted, rows), (20002, 20002));
    assert!(parts > rows, "the row of 2 MB came in parts");
    let taken =
        db.copy_in("COPY b FROM STDIN", |copy| bytes.chunks(1_000_003).try_for_each(|part| copy.write(part)));
    assert_eq!(taken.unwrap(), 20002);
    let differ = db.query_text("SELECT count(*) FROM (TABLE a EXCEPT ALL TABLE b) d").unwrap();
    assert_eq!(differ.as_deref(), Some("0"));
}

#[test]
fn a_refused_copy_says_why_and_the_session_goes_on() {
    let sandbox = support::sandbox();
    let mut db = sandbox.connect("postgres").unwrap();
    db.execute("CREATE TABLE a (n int)").unwrap();
    let row = b"1\n".repeat(1 << 20);
    let error = db
        .copy_in("COPY a FROM STDIN", |copy| {
            copy.write(b"no number\n")?;
            (0..20).try_for_each(|_| copy.write(&row))
        })
        .unwrap_err();
    assert!(error.is("22P02"), "{error:?}");
    let error = db.copy_in("COPY a FROM STDIN", |_| Err(Failure::failed("the reader broke"))).unwrap_err();
    assert_eq!(error.to_string(), "the reader broke");
    let error = db.copy_out("COPY missing TO STDOUT", |_, _| Ok(())).unwrap_err();
    assert!(error.is("42P01"), "{error:?}");
    let error = db.copy_out("COPY (SELECT 1/(5-n) FROM generate_series(1, 9) n) TO STDOUT", |_, _| Ok(()));
    assert!(error.unwrap_err().is("22012"));
    assert_eq!(db.query_text("SELECT count(*) FROM a").unwrap().as_deref(), Some("0"));
}

#[test]
fn a_statement_is_cancelled_from_another_thread() {
    let sandbox = support::sandbox();
    let mut db = sandbox.connect("postgres").unwrap();
    let canceller = db.canceller();
    let mut watcher = sandbox.connect("postgres").unwrap();
    let pid = db.process_id();
    let thread = std::thread::spawn(move || {
        let active = format!("SELECT state = 'active' FROM pg_stat_activity WHERE pid = {pid}");
        while watcher.query_text(&active).unwrap().as_deref() != Some("t") {}
        canceller.cancel().unwrap();
    });
    assert!(db.query("SELECT pg_sleep(60)").unwrap_err().is("57014"));
    thread.join().unwrap();
    assert_eq!(db.query_text("SELECT 1").unwrap().as_deref(), Some("1"));
}

#[test]
fn notices_during_a_copy_do_not_stop_it() {
    let sandbox = support::sandbox();
    let mut db = sandbox.connect("postgres").unwrap();
    db.execute(
        "CREATE TABLE a (n int);
         CREATE FUNCTION chatter() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
             RAISE NOTICE '%', repeat('x', 500); RETURN NEW; END$$;
         CREATE TRIGGER t BEFORE INSERT ON a FOR EACH ROW EXECUTE FUNCTION chatter()",
    )
    .unwrap();
    // The server says far more than it hears.
    let rows = b"1\n".repeat(200_000);
    assert_eq!(db.copy_in("COPY a FROM STDIN", |copy| copy.write(&rows)).unwrap(), 200_000);
    assert_eq!(db.take_notices().len(), 100, "only so many are kept");
}
