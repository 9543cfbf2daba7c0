//! `kill -9` of what works on a database, in the middle of its work: what it leaves is named, and the next run is clean.

use crate::{KEY, Ran, databases::Shop};
use mainstay_sources::postgres::wire::Connection;
use std::{
    fs,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// While the gate is closed, whoever looks at row 600 of the orders waits in the server.
const GATE: &str = "CREATE FUNCTION gate(id int) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
        IF id = 600 AND EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = 'postgres' AND datconnlimit = 77)
        THEN PERFORM pg_catalog.pg_sleep(600); END IF; RETURN true; END $$";
const CLOSE: &str = "ALTER DATABASE postgres CONNECTION LIMIT 77";
const OPEN: &str = "ALTER DATABASE postgres CONNECTION LIMIT -1";

/// A run of the program, killed at the latest when the test ends.
pub(crate) struct Running(Child);

impl Running {
    pub fn start(shop: &Shop, arguments: &[&str]) -> Running {
        let mut command = shop.place.command(env!("CARGO_BIN_EXE_mainstay"), arguments);
        command.env("MAINSTAY_KEY", KEY).env("DATABASE_URL", shop.url("postgres"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Running(command.spawn().unwrap())
    }

    fn kill(mut self) {
        self.0.kill().unwrap(); // SIGKILL
        self.0.wait().unwrap();
    }

    /// The process id of its child of this name.
    fn child(&self, name: &str) -> String {
        let of = |pid: &str| {
            // "pid (name) state parent …"
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let (called, rest) = stat.split_once(" (")?.1.rsplit_once(") ")?;
            Some((called.to_owned(), rest.split(' ').nth(1)?.parse::<u32>().ok()?))
        };
        let pids =
            fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().into_string().ok());
        let mut children = pids.filter(|pid| of(pid) == Some((name.to_owned(), self.0.id())));
        children.next().unwrap_or_else(|| panic!("it has no child {name}"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until a query of one truth value says so.
fn until(observer: &mut Connection, truth: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while observer.query_text(truth).unwrap().as_deref() != Some("t") {
        assert!(Instant::now() < deadline, "it never became true: {truth}");
    }
}

/// At the gate, in a database whose name is like this.
fn at_the_gate(observer: &mut Connection, database: &str) {
    until(
        observer,
        &format!(
            "SELECT count(*) > 0 FROM pg_stat_activity
              WHERE datname LIKE '{database}' AND application_name = 'mainstay' AND wait_event = 'PgSleep'"
        ),
    );
}

/// The server needs a moment to see that its client is gone.
fn nobody_is_in(observer: &mut Connection, database: &str) {
    until(
        observer,
        &format!(
            "SELECT count(*) = 0 FROM pg_stat_activity WHERE datname LIKE '{database}' AND usesysid IS NOT NULL"
        ),
    );
}

fn gated(more: &str) -> (Shop, Connection) {
    let shop = Shop::new();
    shop.server.connect("shop").unwrap().execute(&format!("{GATE}; {more}")).unwrap();
    let observer = shop.server.connect("postgres").unwrap();
    (shop, observer)
}

fn done(ran: Ran) -> Ran {
    assert_eq!(ran.code, 0, "{}", ran.all());
    ran
}

const COMMENT: &str = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = 'back'";

#[test]
fn a_database_whose_restore_was_killed_says_so_wherever_it_is_met() {
    let (shop, mut observer) =
        gated("ALTER TABLE orders ADD CHECK (gate(id)); COMMENT ON DATABASE shop IS 'it''s live'");
    done(shop.run(&["backup", "shop"]));
    let id = shop.points()[0][..8].to_owned();
    let restore = ["restore", "shop", "--to-database", "back", "--yes", "--quiet"];
    observer.execute(CLOSE).unwrap();
    let running = Running::start(&shop, &restore);
    at_the_gate(&mut observer, "back");

    let said = format!("database back is of a restore that is not finished (db of shop, point {id})");
    let while_it_runs = shop.run(&restore);
    assert_eq!(while_it_runs.code, 14, "{}", while_it_runs.all());
    assert!(
        while_it_runs.stderr.contains(&said) && while_it_runs.stderr.contains("wait for its end"),
        "{}",
        while_it_runs.all()
    );
    running.kill();
    nobody_is_in(&mut observer, "back");

    let again = shop.run(&restore);
    assert_eq!(again.code, 14, "{}", again.all());
    let command = "DROP DATABASE \"back\" WITH (FORCE)";
    assert!(again.stderr.contains(&said) && again.stderr.contains(command), "{}", again.all());
    let doctor = shop.run(&["doctor"]);
    assert!(doctor.stdout.contains(&said) && doctor.stdout.contains(command), "{}", doctor.all());
    // Whoever points the application and its backups at it learns what it is.
    let url = shop.url("postgres").replace("/shop?", "/back?");
    let backup = shop.run_at(&url, &["backup", "shop", "--quiet"]);
    assert_eq!(backup.code, 3, "{}", backup.all());
    assert!(backup.stdout.contains("of a restore that is not finished"), "{}", backup.all());

    observer.execute(command).unwrap();
    observer.execute(OPEN).unwrap();
    // Whoever may make a database may mark it, and take the mark off.
    observer.execute("CREATE ROLE clerk LOGIN CREATEDB").unwrap();
    let point = ["--point", &id, "--no-owners", "--no-compare"];
    done(shop.run_as("clerk", &[&restore[..], &point].concat()));
    assert_eq!(shop.count("back", "orders"), "1000");
    assert_eq!(observer.query_text(COMMENT).unwrap().as_deref(), Some("it's live"));
    let doctor = shop.run(&["doctor"]);
    assert!(!doctor.stdout.contains("not finished"), "{}", doctor.all());
}

const INTO_SHOP: [&str; 12] = [
    "restore",
    "shop",
    "--to-database",
    "shop",
    "--into-existing",
    "--table",
    "orders",
    "--table",
    "customers",
    "--to-schema",
    "rescued",
    "--yes",
];

#[test]
fn tables_whose_restore_into_a_living_database_was_killed_say_so_until_they_are_dropped() {
    let (shop, mut observer) =
        gated("ALTER TABLE orders ADD CHECK (gate(id)); COMMENT ON TABLE orders IS 'what is sold'");
    done(shop.run(&["backup", "shop"]));
    let id = shop.points()[0][..8].to_owned();
    observer.execute(CLOSE).unwrap();
    let running = Running::start(&shop, &INTO_SHOP);
    at_the_gate(&mut observer, "shop");
    let said = format!(
        "tables rescued.customers, rescued.orders are of a restore that is not finished (db of shop, point {id})"
    );
    let while_it_runs = shop.run(&INTO_SHOP);
    assert_eq!(while_it_runs.code, 14, "{}", while_it_runs.all());
    assert!(
        while_it_runs.stderr.contains(&said) && while_it_runs.stderr.contains("wait for its end"),
        "{}",
        while_it_runs.all()
    );
    running.kill();
    nobody_is_in(&mut observer, "shop");

    let command = "DROP TABLE rescued.customers, rescued.orders";
    let again = shop.run(&INTO_SHOP);
    assert_eq!(again.code, 14, "{}", again.all());
    assert!(again.stderr.contains(&said) && again.stderr.contains(command), "{}", again.all());
    let doctor = shop.run(&["doctor"]);
    assert!(doctor.stdout.contains(&said) && doctor.stdout.contains(command), "{}", doctor.all());
    observer.execute(OPEN).unwrap();
    // Elsewhere they are in nobody's way, and are named.
    let merge = ["--into-existing", "--table", "orders", "--merge", "missing", "--yes"];
    let merged = done(shop.run(&[&["restore", "shop", "--to-database", "shop"], &merge[..]].concat()));
    assert!(merged.stdout.contains(&said) && merged.stdout.contains(command), "{}", merged.all());

    let mut live = shop.server.connect("shop").unwrap();
    live.execute(command).unwrap();
    done(shop.run(&INTO_SHOP));
    assert_eq!(shop.count("shop", "rescued.orders"), "1000");
    let comments = "SELECT string_agg(relname || ': ' || obj_description(oid, 'pg_class'), ', ')
                      FROM pg_class WHERE relnamespace = 'rescued'::regnamespace AND relkind = 'r'";
    assert_eq!(live.query_text(comments).unwrap().as_deref(), Some("orders: what is sold"));
    let doctor = shop.run(&["doctor"]);
    assert!(!doctor.stdout.contains("not finished"), "{}", doctor.all());
}

#[test]
fn a_restore_whose_session_the_server_ends_is_not_said_to_be_complete() {
    let (shop, mut observer) = gated("ALTER TABLE orders ADD CHECK (gate(id))");
    done(shop.run(&["backup", "shop"]));
    observer.execute(CLOSE).unwrap();
    let new = ["restore", "shop", "--to-database", "back", "--yes"];
    for (restore, database, left) in [
        (&new[..], "back", "DROP DATABASE \"back\" WITH (FORCE)"),
        (&INTO_SHOP[..], "shop", "The tables that it made in shop are marked as not finished"),
    ] {
        let mut running = Running::start(&shop, restore);
        at_the_gate(&mut observer, database);
        observer
            .query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
            .unwrap();
        let (mut out, mut err) = (String::new(), String::new());
        std::io::Read::read_to_string(&mut running.0.stdout.take().unwrap(), &mut out).unwrap();
        std::io::Read::read_to_string(&mut running.0.stderr.take().unwrap(), &mut err).unwrap();
        assert_eq!(running.0.wait().unwrap().code(), Some(1), "{out}{err}");
        for words in ["the server ended the restore's session", "due to administrator command", left] {
            assert!(err.contains(words), "{words}\n{out}{err}");
        }
        assert!(!out.contains("Restored") && !out.contains("Equal"), "{out}{err}");
        let doctor = shop.run(&["doctor"]);
        assert!(doctor.stdout.contains("of a restore that is not finished"), "{}", doctor.all());
        nobody_is_in(&mut observer, database);
    }
}

#[test]
fn a_copy_whose_masking_was_killed_says_that_it_is_not_finished() {
    let (shop, mut observer) = gated("");
    let config = fs::read_to_string(shop.place.at("mainstay.yaml")).unwrap();
    let masks = "    masks: { staging: { public.orders.total: \"CASE WHEN public.gate(id) THEN 0 END\" } }\n";
    shop.place.write("mainstay.yaml", &(config + masks));
    done(shop.run(&["backup", "shop"]));
    let copy = ["restore", "shop", "--to-database", "back", "--mask", "staging", "--yes", "--quiet"];
    observer.execute(CLOSE).unwrap();
    let running = Running::start(&shop, &copy);
    at_the_gate(&mut observer, "back_unmasked_%");
    running.kill();
    nobody_is_in(&mut observer, "back_unmasked_%");
    let doctor = shop.run(&["doctor"]);
    assert!(doctor.stdout.contains("database back_unmasked_"), "{}", doctor.all());
    assert!(doctor.stdout.contains("is of a restore that is not finished"), "{}", doctor.all());

    observer.execute(OPEN).unwrap();
    done(shop.run(&copy));
    assert_eq!(shop.count("back", "orders WHERE total = 0"), "1000");
    assert_eq!(observer.query_text(COMMENT).unwrap(), None, "a copy that is masked carries no mark");
}

#[test]
fn a_backup_that_is_killed_among_its_rows_leaves_no_point_and_nobody_in_the_database() {
    let (shop, mut observer) = gated("");
    shop.configure("tables: [{ match: public.orders, where: \"public.gate(id)\" }]");
    observer.execute(CLOSE).unwrap();
    let running = Running::start(&shop, &["backup", "shop"]);
    at_the_gate(&mut observer, "shop");
    running.kill();
    nobody_is_in(&mut observer, "shop");
    assert_eq!(shop.points(), Vec::<String>::new());

    observer.execute(OPEN).unwrap();
    done(shop.run(&["backup", "shop"]));
    assert_eq!(shop.points().len(), 1);
    done(shop.run(&["verify", "shop", "--level", "data"]));
    done(shop.run(&["restore", "shop", "--to-database", "back", "--yes"]));
}

#[test]
fn a_backup_whose_pg_dump_is_killed_fails_and_says_so() {
    let (shop, mut observer) = gated("");
    // pg_dump reads this, and nobody else.
    let mut holder = shop.server.connect("shop").unwrap();
    holder.execute("BEGIN; LOCK TABLE pg_catalog.pg_transform IN ACCESS EXCLUSIVE MODE").unwrap();
    let mut running = Running::start(&shop, &["backup", "shop", "--quiet"]);
    until(
        &mut observer,
        "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%pg_transform%'",
    );
    let pid = running.child("pg_dump");
    assert!(Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
    let (mut out, mut err) = (String::new(), String::new());
    std::io::Read::read_to_string(&mut running.0.stdout.take().unwrap(), &mut out).unwrap();
    std::io::Read::read_to_string(&mut running.0.stderr.take().unwrap(), &mut err).unwrap();
    assert_eq!(running.0.wait().unwrap().code(), Some(1), "{out}{err}");
    assert!(err.contains("pg_dump was killed"), "{out}{err}");
    assert_eq!(shop.points(), Vec::<String>::new());

    drop(holder);
    nobody_is_in(&mut observer, "shop");
    done(shop.run(&["backup", "shop"]));
    assert_eq!(shop.points().len(), 1);
    done(shop.run(&["verify", "shop", "--level", "data"]));
}
