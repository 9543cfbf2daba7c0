//! What the options of a restore into a database do, each against what happens without it.

use crate::{KEY, Ran, databases::Shop, kills::Running};
use mainstay_sources::postgres::{
    sandbox::{Sandbox, SandboxOptions},
    tools::{self, Purpose, Tools},
};
use std::time::{Duration, Instant};

fn done(ran: Ran) -> String {
    assert_eq!(ran.code, 0, "{}", ran.all());
    ran.stdout
}

/// A shop that was backed up, after this was done in it.
fn backed_up(sql: &str) -> Shop {
    let shop = Shop::new();
    shop.server.connect("shop").unwrap().execute(sql).unwrap();
    done(shop.run(&["backup", "shop", "--quiet"]));
    shop
}

fn restore(shop: &Shop, database: &str, options: &[&str]) -> Ran {
    let base = ["restore", "shop", "--to-database", database, "--yes", "--quiet"];
    shop.run(&[&base[..], options].concat())
}

fn ask(shop: &Shop, database: &str, sql: &str) -> String {
    shop.server.connect(database).unwrap().query_text(sql).unwrap().unwrap_or_default()
}

#[test]
fn of_a_schema_that_is_named_all_comes_and_of_others_nothing() {
    let shop = backed_up(
        "CREATE SCHEMA sales; CREATE TABLE sales.offers (id int PRIMARY KEY); CREATE SCHEMA hr; CREATE TABLE hr.staff (id int);
         INSERT INTO sales.offers VALUES (1), (2); CREATE VIEW sales.every AS SELECT * FROM sales.offers",
    );
    let said = done(restore(&shop, "back", &["--schema", "sales"]));
    assert!(said.contains("Restored 1 tables with 2 rows"), "{said}");
    let relations = "SELECT string_agg(oid::regclass::text, ' ' ORDER BY oid::regclass::text) FROM pg_class
                      WHERE relkind IN ('r', 'v') AND relnamespace::regnamespace::text IN ('public', 'sales', 'hr')";
    assert_eq!(ask(&shop, "back", relations), "sales.every sales.offers");
    done(restore(&shop, "two", &["--schema", "sales", "--schema", "hr"]));
    assert_eq!(ask(&shop, "two", relations), "hr.staff sales.every sales.offers");
}

#[test]
fn owners_and_grants_come_back_unless_they_are_left_out_and_that_is_no_difference() {
    let shop = backed_up(
        "CREATE ROLE clerk; CREATE ROLE reader; ALTER TABLE orders OWNER TO clerk; GRANT SELECT ON customers TO reader;
         ALTER DATABASE shop OWNER TO clerk; GRANT CREATE ON DATABASE shop TO reader",
    );
    let state = |database: &str| {
        let sql = "SELECT pg_get_userbyid(c.relowner) || ' ' || has_table_privilege('reader', 'customers', 'SELECT')
                       || ' ' || pg_get_userbyid(d.datdba) || ' ' || has_database_privilege('reader', d.oid, 'CREATE')
                     FROM pg_class c, pg_database d WHERE c.oid = 'orders'::regclass AND datname = current_database()";
        ask(&shop, database, sql)
    };
    let cases = [
        ("as_it_was", &[][..], "clerk true clerk true"),
        ("no_owners", &["--no-owners"], "postgres true postgres true"),
        ("no_grants", &["--no-privileges"], "clerk false clerk false"),
        ("neither", &["--no-owners", "--no-privileges"], "postgres false postgres false"),
    ];
    for (name, options, expected) in cases {
        let said = done(restore(&shop, name, options));
        assert_eq!(state(name), expected, "{name}");
        let compared = if options.is_empty() {
            "Equal to what was captured"
        } else {
            "Equal where it could be compared"
        };
        assert!(said.contains(compared), "{name}: {said}");
    }
    done(shop.run(&["restore", "shop", "--replace", "--no-owners", "--no-backup", "--yes", "--quiet"]));
    assert_eq!(state("shop"), "postgres true postgres true");
}

#[test]
fn what_is_not_compared_is_not_said_to_be_equal() {
    let shop = backed_up("");
    let said = done(restore(&shop, "compared", &[]));
    assert!(said.contains("Equal to what was captured: 1100 rows"), "{said}");
    let said = done(restore(&shop, "unseen", &["--no-compare"]));
    assert!(said.contains("with 1100 rows") && !said.contains("Equal"), "{said}");
}

#[test]
fn as_many_tables_are_loaded_at_once_as_there_are_jobs() {
    // Whoever loads a row stays at it.
    let tables: String = (0..6)
        .map(|n| format!("CREATE TABLE t{n} (id int CHECK (stay(id))); INSERT INTO t{n} VALUES (1);"))
        .collect();
    let shop = backed_up(&format!(
        "CREATE FUNCTION stay(id int) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
            IF current_database() <> 'shop' THEN PERFORM pg_catalog.pg_sleep(600); END IF; RETURN true; END $$; {tables}"
    ));
    let mut observer = shop.server.connect("postgres").unwrap();
    for (jobs, database) in [("1", "one"), ("5", "five")] {
        let arguments = [
            "restore",
            "shop",
            "--to-database",
            database,
            "--yes",
            "--quiet",
            "--jobs",
            jobs,
            "--schema",
            "public",
        ];
        let _running = Running::start(&shop, &arguments);
        let loading = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND wait_event = 'PgSleep'"
        );
        let sessions = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND query LIKE 'COPY %'"
        );
        let deadline = Instant::now() + Duration::from_secs(60);
        while observer.query_text(&loading).unwrap().as_deref() != Some(jobs) {
            assert!(Instant::now() < deadline, "{jobs} tables are never loaded at once");
        }
        assert_eq!(observer.query_text(&sessions).unwrap().as_deref(), Some(jobs));
    }
}

/// The server of this version that the set-up script fetched, or Debian's.
fn of_version(major: u32) -> Tools {
    let trees = &crate::trees();
    let mut found = tools::installed(Purpose::Server, Some(trees));
    found.extend(tools::installed(Purpose::Server, None));
    found.into_iter().find(|tools| tools.major == major).expect("`make setup` fetches PostgreSQL 14 to 18")
}

#[test]
fn a_locale_that_the_server_does_not_know_is_refused_unless_its_own_is_accepted() {
    let shop = Shop::on(&SandboxOptions::new(of_version(17)));
    let mut admin = shop.server.connect("postgres").unwrap();
    admin
        .execute("CREATE DATABASE built TEMPLATE template0 LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C'")
        .unwrap();
    shop.server.connect("built").unwrap().execute("CREATE TABLE words AS SELECT 'a' AS word").unwrap();
    let url = shop.url("postgres").replace("/shop?", "/built?");
    done(shop.run_at(&url, &["backup", "shop", "--quiet"]));

    let older = Sandbox::start(&SandboxOptions::new(of_version(15))).unwrap();
    let there = format!(
        "postgres://postgres@/postgres?host={}&port={}",
        older.socket_directory().display(),
        older.port()
    );
    let restore = |options: &[&str]| {
        let base = ["restore", "shop", "--to-url-env", "OLDER", "--to-database", "back", "--yes", "--quiet"];
        let variables = [("MAINSTAY_KEY", KEY), ("DATABASE_URL", url.as_str()), ("OLDER", there.as_str())];
        shop.place.run_with(&[&base[..], options].concat(), &variables)
    };
    let refused = restore(&[]);
    assert_eq!(refused.code, 14, "{}", refused.all());
    assert!(
        refused.stderr.contains("cannot create a database with the recorded locale"),
        "{}",
        refused.all()
    );
    assert!(older.connect("back").is_err(), "nothing was made");
    let accepted = restore(&["--other-locale"]);
    assert_eq!(accepted.code, 0, "{}", accepted.all());
    assert!(
        accepted.stdout.contains("does not know C.UTF-8 (provider builtin); its own locale is used"),
        "{}",
        accepted.all()
    );
    let rows = older.connect("back").unwrap().query_text("SELECT count(*) FROM words").unwrap();
    assert_eq!(rows.as_deref(), Some("1"));
}
