//! Bad days of a capture: missing rights, locks, vanishing tables, lost sessions. Nothing is skipped in silence, nothing hangs.

use crate::{memory, support};
use mainstay_domain::{
    ChunkId, Failure, Kind, Monitor, Severity, SystemClock,
    monitor::Event,
    point::State,
    stream::{Content, Piece, PieceWriter, Pool, Sink},
    time::Span,
};
use mainstay_sources::postgres::{
    capture as postgres_capture, config::PostgresConfig, facts::Skipped, sandbox::Sandbox,
};
use memory::Memory;
use std::{
    io::Read,
    sync::{
        Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};
use support::{ROW_KEY, capture, config, facts, problems, rows, with_rules};

/// A database of an application that is no superuser.
fn application() -> Sandbox {
    let sandbox = support::sandbox();
    let mut db = sandbox.connect("postgres").unwrap();
    db.execute("CREATE ROLE app LOGIN; CREATE ROLE other LOGIN").unwrap();
    db.execute("CREATE DATABASE app OWNER app").unwrap();
    let mut db = sandbox.connect("app").unwrap();
    db.execute(
        "GRANT ALL ON SCHEMA public TO app, other;
         SET ROLE app; CREATE TABLE mine (n serial); INSERT INTO mine SELECT nextval('mine_n_seq') FROM generate_series(1, 5);
         CREATE TABLE secured (n int); INSERT INTO secured VALUES (1), (2);
         ALTER TABLE secured ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON secured USING (n = 1);",
    )
    .unwrap();
    sandbox
}

#[test]
fn the_plain_owner_of_a_database_captures_all_of_it() {
    let sandbox = application();
    let memory = Memory::default();
    let record = capture(&config(&sandbox, "app", "app"), &memory).unwrap();
    assert_eq!(record.state, State::Complete, "{:?}", record.problems);
    // The owner is not subject to its own row security.
    assert_eq!(rows(&record, &memory, "public", "secured"), ["1", "2"]);
    let facts = facts(&record);
    assert!(!facts.role_passwords);
    assert_eq!(problems(&record, "role passwords").len(), 1);
    assert_eq!(facts.sequences[0].last_value, 5);
    assert!(record.stream("globals").is_some());
}

#[test]
fn what_may_not_be_read_is_named_with_the_consequence_of_its_priority() {
    let sandbox = application();
    let mut db = sandbox.connect("app").unwrap();
    db.execute(
        "SET ROLE other; CREATE TABLE theirs (n int); INSERT INTO theirs VALUES (1);
         CREATE SCHEMA AUTHORIZATION other; ",
    )
    .unwrap_err();
    db.execute(
        "RESET ROLE; CREATE SCHEMA hidden AUTHORIZATION other; SET ROLE other; CREATE TABLE hidden.h (n int);
         CREATE TABLE public.theirs (n int); CREATE SEQUENCE public.their_numbers; SELECT lo_create(0);
         CREATE TABLE public.filtered (n int); INSERT INTO filtered VALUES (1); GRANT SELECT ON filtered TO app;
         ALTER TABLE filtered ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON filtered USING (false)",
    )
    .unwrap();
    let plain = config(&sandbox, "app", "app");
    let memory = Memory::default();
    let record = capture(&plain, &memory).unwrap();
    assert_eq!(record.state, State::Incomplete);
    assert_eq!(
        problems(&record, "public.theirs"),
        [
            "this table is not captured: app has no SELECT privilege on it",
            "its definition is not captured either; whoever owns it allows both by: GRANT SELECT ON public.theirs TO app",
        ]
    );
    assert!(problems(&record, "hidden.h")[0].contains("no USAGE privilege on its schema"));
    let both = "GRANT USAGE ON SCHEMA hidden TO app; GRANT SELECT ON hidden.h TO app";
    assert!(problems(&record, "hidden.h")[1].ends_with(both), "{:?}", record.problems);
    assert!(problems(&record, "public.filtered")[0].contains("row-level security would hide rows from app"));
    assert!(problems(&record, "public.their_numbers")[0].contains("no SELECT privilege"));
    let grant = "GRANT SELECT ON SEQUENCE public.their_numbers TO app";
    assert!(problems(&record, "public.their_numbers")[1].ends_with(grant), "{:?}", record.problems);
    assert!(problems(&record, "large objects")[0].contains("1 of 1 may not be read by app"));
    assert_eq!(facts(&record).unread.len(), 5);
    assert_eq!(rows(&record, &memory, "public", "mine").len(), 5, "the rest is there");

    let state = |rules: &str| capture(&with_rules(plain.clone(), rules), &Memory::default()).unwrap().state;
    assert_eq!(state(r#"[{"match": "public.theirs", "priority": "critical"}]"#), State::Failed);
    let nice =
        with_rules(plain.clone(), r#"[{"match": ["*.theirs", "hidden.*", "filtered"], "priority": "nice"}]"#);
    let record = capture(&nice, &Memory::default()).unwrap();
    let of_tables: Vec<_> = record.problems.iter().filter(|p| p.object == "public.theirs").collect();
    assert!(of_tables.iter().all(|p| p.severity == Severity::Warning), "{of_tables:?}");
}

/// Holds a lock on a table until told otherwise.
fn locked(sandbox: &Sandbox, table: &str) -> mainstay_sources::postgres::wire::Connection {
    let mut holder = sandbox.connect("app").unwrap();
    holder.execute(&format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")).unwrap();
    holder
}

/// Notes what it is told; runs something at the first notice; stops when it should.
#[derive(Default)]
struct Watching {
    notices: Mutex<Vec<String>>,
    #[allow(clippy::type_complexity)]
    at_notice: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    #[allow(clippy::type_complexity)]
    at_step: Mutex<Option<(&'static str, Box<dyn FnOnce() + Send>)>>,
    stop: AtomicBool,
}

impl Monitor for Watching {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Notice { text, .. } => {
                self.notices.lock().unwrap().push(text.to_owned());
                if let Some(action) = self.at_notice.lock().unwrap().take() {
                    action();
                }
            }
            Event::Step { name, .. } => {
                let mut at_step = self.at_step.lock().unwrap();
                if at_step.as_ref().is_some_and(|(wanted, _)| *wanted == name) {
                    let (_, action) = at_step.take().unwrap();
                    action();
                }
            }
            _ => {}
        }
    }
    fn cancelled(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

fn watched(
    config: &PostgresConfig,
    memory: &Memory,
    watching: &Watching,
) -> Result<mainstay_domain::point::SourceRecord, Failure> {
    postgres_capture::capture(config, memory, ROW_KEY, &SystemClock, watching)
}

#[test]
fn a_lock_that_is_released_is_waited_for_and_told_of() {
    let sandbox = application();
    let mut holder = locked(&sandbox, "mine");
    let watching = Watching::default();
    *watching.at_notice.lock().unwrap() = Some(Box::new(move || {
        holder.execute("COMMIT").unwrap();
    }));
    let record = watched(&config(&sandbox, "app", "postgres"), &Memory::default(), &watching).unwrap();
    assert_eq!(record.state, State::Complete);
    let notice = watching.notices.lock().unwrap()[0].clone();
    assert!(notice.starts_with("waiting for table public.mine, which is locked by process "), "{notice}");
    assert!(notice.contains("user postgres, idle in transaction"), "{notice}");
}

#[test]
fn a_lock_that_stays_ends_the_capture_with_the_name_of_its_holder() {
    let sandbox = application();
    let _holder = locked(&sandbox, "mine");
    let config =
        PostgresConfig { lock_wait: Span { nanoseconds: 300_000_000 }, ..config(&sandbox, "app", "app") };
    let failure = capture(&config, &Memory::default()).unwrap_err();
    assert_eq!(failure.kind, Kind::Busy);
    assert!(failure.message.starts_with("table public.mine stays locked by process "), "{failure}");
}

#[test]
fn a_table_dropped_while_it_is_waited_for_is_simply_not_there() {
    let sandbox = application();
    sandbox.connect("app").unwrap().execute("CREATE TABLE victim (n int)").unwrap();
    let mut holder = locked(&sandbox, "victim");
    let watching = Watching::default();
    *watching.at_notice.lock().unwrap() = Some(Box::new(move || {
        holder.execute("DROP TABLE victim; CREATE TABLE heir (n int); COMMIT").unwrap();
    }));
    let record = watched(&config(&sandbox, "app", "postgres"), &Memory::default(), &watching).unwrap();
    assert_eq!(record.state, State::Complete, "{:?}", record.problems);
    let facts = facts(&record);
    assert!(facts.table("public", "victim").is_none() && facts.table("public", "heir").is_some());
}

/// A store that calls back once the schema is dumped, and lets no table begin before.
struct AfterSchema<'a> {
    memory: &'a Memory,
    action: Mutex<Option<Box<dyn FnOnce() + Send + 'a>>>,
    over: (Mutex<bool>, Condvar),
}

impl Sink for AfterSchema<'_> {
    fn put(&self, pool: Pool, chunk: &[u8]) -> mainstay_domain::Result<ChunkId> {
        self.memory.put(pool, chunk)
    }
    fn put_reader(&self, pool: Pool, reader: &mut dyn Read) -> mainstay_domain::Result<Content> {
        let content = self.memory.put_reader(pool, reader)?;
        if let Some(action) = self.action.lock().unwrap().take() {
            action();
            *self.over.0.lock().unwrap() = true;
            self.over.1.notify_all();
        }
        Ok(content)
    }
    fn join(&self, pieces: &mut dyn Iterator<Item = Piece>) -> mainstay_domain::Result<Content> {
        self.memory.join(pieces)
    }
    fn begin(&self, pool: Pool) -> Box<dyn PieceWriter + '_> {
        let over = self.over.0.lock().unwrap();
        drop(self.over.1.wait_while(over, |over| !*over).unwrap());
        self.memory.begin(pool)
    }
    fn adopt(&self, content: &Content) -> mainstay_domain::Result<bool> {
        self.memory.adopt(content)
    }
}

/// A migration that asks for an exclusive lock, and returns when it waits for it.
fn queue_migration<'s>(sandbox: &Sandbox, scope: &'s std::thread::Scope<'s, '_>) {
    let mut migration = sandbox.connect("app").unwrap();
    let mut observer = sandbox.connect("app").unwrap();
    scope.spawn(move || migration.execute("ALTER TABLE mine ADD COLUMN later int").unwrap());
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'mine'::regclass";
    while observer.query_text(waiting).unwrap().as_deref() != Some("1") {}
}

#[test]
fn an_exclusive_lock_asked_for_meanwhile_does_not_lose_the_table() {
    let sandbox = application();
    let mut db = sandbox.connect("app").unwrap();
    db.execute("CREATE TABLE larger AS SELECT generate_series(1, 10000) n").unwrap();
    let config = PostgresConfig { parallel: 1, ..config(&sandbox, "app", "postgres") };
    let memory = Memory::default();
    std::thread::scope(|scope| {
        let action = || queue_migration(&sandbox, scope);
        let over = (Mutex::new(false), Condvar::new());
        let sink = AfterSchema { memory: &memory, action: Mutex::new(Some(Box::new(action))), over };
        // The worker is at `larger`; the lock that it then asks for on `mine` would have to wait behind the migration.
        let record =
            postgres_capture::capture(&config, &sink, ROW_KEY, &SystemClock, &mainstay_domain::Silent)
                .unwrap();
        assert_eq!(record.state, State::Complete, "{:?}", record.problems);
        assert_eq!(rows(&record, &memory, "public", "mine").len(), 5);
    });
}

#[test]
fn a_migration_that_comes_before_the_schema_is_dumped_ends_the_capture_in_time() {
    let sandbox = application();
    let config = PostgresConfig {
        lock_wait: Span { nanoseconds: 500_000_000 },
        ..config(&sandbox, "app", "postgres")
    };
    std::thread::scope(|scope| {
        let watching = Watching::default();
        let (go, gone) = std::sync::mpsc::channel();
        let (queued, is_queued) = std::sync::mpsc::channel();
        *watching.at_step.lock().unwrap() = Some((
            "tables",
            Box::new(move || {
                go.send(()).unwrap();
                is_queued.recv().unwrap();
            }),
        ));
        let sandbox = &sandbox;
        scope.spawn(move || {
            gone.recv().unwrap();
            queue_migration(sandbox, scope);
            queued.send(()).unwrap();
        });
        let failure = watched(&config, &Memory::default(), &watching).unwrap_err();
        assert_eq!(failure.kind, Kind::Busy, "{failure}");
        assert!(failure.message.contains("LOCK TABLE") && failure.hint.is_some(), "{failure}");
    });
}

#[test]
fn a_full_store_ends_everything_at_once_with_the_stores_own_words() {
    let sandbox = application();
    sandbox
        .connect("app")
        .unwrap()
        .execute("CREATE TABLE much AS SELECT repeat('x', 1000) t FROM generate_series(1, 50000); CREATE TABLE much2 AS TABLE much")
        .unwrap();
    let memory = Memory::default();
    memory.room.store(3_000_000, Ordering::Relaxed);
    let failure = capture(&config(&sandbox, "app", "postgres"), &memory).unwrap_err();
    assert!(failure.to_string().contains("no space left in the store"), "{failure}");
    let mut db = sandbox.connect("app").unwrap();
    let left = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
    while db.query_text(left).unwrap().as_deref() != Some("0") {} // the sessions end with it
}

#[test]
fn a_cancelled_capture_ends_at_once() {
    let sandbox = application();
    sandbox.connect("app").unwrap().execute("CREATE TABLE t AS SELECT generate_series(1, 1000) n").unwrap();
    let watching = Watching::default();
    watching.stop.store(true, Ordering::Relaxed);
    // A filter that would take an hour.
    let config = with_rules(
        config(&sandbox, "app", "postgres"),
        r#"[{"match": "public.t", "where": "pg_sleep(3.6) IS NOT NULL"}]"#,
    );
    let failure = watched(&config, &Memory::default(), &watching).unwrap_err();
    assert_eq!(failure.kind, Kind::Cancelled, "{failure}");
}

#[test]
fn a_session_that_the_server_ends_fails_the_capture() {
    let sandbox = application();
    let watching = Watching::default();
    let mut db = sandbox.connect("app").unwrap();
    *watching.at_step.lock().unwrap() = Some((
        "tables",
        Box::new(move || {
            db.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
              WHERE application_name = 'mainstay' AND state = 'idle in transaction'",
            )
            .unwrap();
        }),
    ));
    let failure = watched(&config(&sandbox, "app", "app"), &Memory::default(), &watching).unwrap_err();
    assert_eq!(failure.kind, Kind::Failed, "{failure}");
}

#[test]
fn a_row_that_the_server_cannot_send_names_its_table() {
    let sandbox = application();
    let mut db = sandbox.connect("app").unwrap();
    // Four bytes of text for each byte of bytea: over the server's limit of 1 GB for one row.
    db.execute(
        "CREATE TABLE huge (b bytea); INSERT INTO huge SELECT convert_to(repeat('x', 600000000), 'UTF8')",
    )
    .unwrap();
    let memory = Memory::default();
    let record = capture(&config(&sandbox, "app", "postgres"), &memory).unwrap();
    assert_eq!(record.state, State::Incomplete);
    assert!(matches!(facts(&record).table("public", "huge").unwrap().skipped, Some(Skipped::Unreadable(_))));
    assert_eq!(problems(&record, "public.huge").len(), 1, "{:?}", record.problems);
    assert_eq!(rows(&record, &memory, "public", "mine").len(), 5);
}

#[test]
fn a_missing_or_older_pg_dump_is_named_with_what_to_install() {
    let sandbox = application();
    let empty = tempfile::tempdir().unwrap();
    let config = PostgresConfig { bin_dir: Some(empty.path().to_owned()), ..config(&sandbox, "app", "app") };
    let failure = capture(&config, &Memory::default()).unwrap_err();
    assert_eq!(failure.kind, Kind::Preflight);
    let major = sandbox.tools().major;
    assert!(
        failure.message.ends_with(&format!("pg_dump of PostgreSQL {major} is needed and not installed")),
        "{failure}"
    );
    for program in ["pg_dump", "pg_dumpall"] {
        let path = empty.path().join(program);
        std::fs::write(&path, "#!/bin/sh\necho 'pg_dump (PostgreSQL) 13.9'\n").unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let failure = capture(&config, &Memory::default()).unwrap_err();
    assert!(failure.message.contains("the newest one here is of version 13"), "{failure}");
    assert!(failure.hint.unwrap().contains(&format!("postgresql-client-{major}")));
    // One that dies half way: what it wrote is not taken for a dump.
    for program in ["pg_dump", "pg_dumpall"] {
        let text = format!(
            "#!/bin/sh\n[ \"$1\" = --version ] && echo 'pg_dump (PostgreSQL) {major}.0' && exit\necho half; echo oops >&2; exit 3\n"
        );
        std::fs::write(empty.path().join(program), text).unwrap();
    }
    let failure = capture(&config, &Memory::default()).unwrap_err();
    assert_eq!(failure.message, "dumping the schema: pg_dump ended with status 3: oops");
}
