//! Damage, rows that were not captured, roles that are missing, encodings: what can be is brought back, and the rest is named.

use crate::{memory, restoring, support, zoo};
use mainstay_domain::{Kind, Severity, Silent, point::State};
use mainstay_sources::postgres::{
    compare::{self, Verdict, compare},
    restore::{Options, Selection, plan, restore},
};
use memory::Memory;
use restoring::{SHOP, captured, database, name, selecting, shown, target};

#[test]
fn damage_in_one_table_is_named_and_the_rest_comes_back() {
    let sandbox = support::sandbox();
    database(&sandbox, "shop", SHOP);
    let (memory, record) = captured(&sandbox, "shop");
    let stream = record.stream("table/public.customers/0").unwrap();
    memory.lose(&stream.content.pieces[0].chunk.unwrap());
    let report =
        restore(&memory, &record, &target(&sandbox, "back", false), &Options::default(), &Silent).unwrap();
    assert_eq!(report.state, State::Incomplete);
    let errors: Vec<_> = report.errors().map(|p| (p.object.as_str(), p.message.as_str())).collect();
    assert_eq!(errors[0], ("table public.customers", "its rows are not restored: this chunk is missing"));
    assert_eq!(errors[1].0, "FK CONSTRAINT public.orders orders_customer_fkey");
    assert_eq!(report.not_valid, ["FK CONSTRAINT public.orders orders_customer_fkey"]);
    assert_eq!(errors.len(), 2, "{}", shown(&report));
    let mut back = sandbox.connect("back").unwrap();
    assert_eq!(back.query_text("SELECT count(*) FROM orders").unwrap().unwrap(), "500");
    let comparison =
        compare(&memory, &record, &sandbox.spec("back"), &compare::Options::new(support::ROW_KEY), &Silent);
    let comparison = comparison.unwrap();
    assert_eq!(comparison.verdict(), Verdict::Different);
    assert!(
        comparison
            .differences
            .iter()
            .any(|d| d.to_string() == "table public.customers: number of rows was 100 and is 0")
    );
}

#[test]
fn damaged_roles_and_large_objects_are_named_and_a_damaged_schema_ends_it() {
    let sandbox = support::sandbox();
    database(
        &sandbox,
        "shop",
        "CREATE TABLE t (a int); INSERT INTO t VALUES (1); SELECT lo_from_bytea(7, 'x')",
    );
    let (memory, record) = captured(&sandbox, "shop");
    let lose = |stream: &str| {
        memory.lose(&record.stream(stream).unwrap().content.pieces[0].chunk.unwrap());
    };
    lose("blobs");
    lose("globals");
    let report =
        restore(&memory, &record, &target(&sandbox, "back", false), &Options::default(), &Silent).unwrap();
    let errors: Vec<_> = report.errors().map(|p| p.object.as_str()).collect();
    assert_eq!(
        (report.state, &errors[..]),
        (State::Incomplete, &["roles", "large objects"][..]),
        "{}",
        shown(&report)
    );
    assert_eq!(report.rows, 1);
    lose("schema");
    let failure = restore(&memory, &record, &target(&sandbox, "no", false), &Options::default(), &Silent);
    assert_eq!(failure.unwrap_err().kind, Kind::Verification);
}

#[test]
fn a_foreign_key_that_a_filter_breaks_comes_back_not_valid_and_is_named() {
    let sandbox = support::sandbox();
    database(&sandbox, "shop", SHOP);
    let memory = Memory::default();
    let config = support::config(&sandbox, "shop", "postgres");
    let config = support::with_rules(config, r#"[{"match": "public.customers", "where": "id <= 50"}]"#);
    let record = support::capture(&config, &memory).unwrap();
    assert!(record.partial);
    let report =
        restore(&memory, &record, &target(&sandbox, "back", false), &Options::default(), &Silent).unwrap();
    assert_eq!(report.state, State::Complete, "{}", shown(&report));
    assert_eq!(report.not_valid, ["FK CONSTRAINT public.orders orders_customer_fkey"]);
    let told = report.problems.iter().filter(|p| p.severity == Severity::Warning).map(|p| p.object.as_str());
    assert_eq!(
        told.collect::<Vec<_>>(),
        ["table public.customers", "FK CONSTRAINT public.orders orders_customer_fkey"]
    );
    let mut back = sandbox.connect("back").unwrap();
    let valid = "SELECT convalidated FROM pg_constraint WHERE conname = 'orders_customer_fkey'";
    assert_eq!(back.query_text(valid).unwrap().unwrap(), "f");
    back.execute("INSERT INTO orders (customer) VALUES (99)").unwrap_err();
}

#[test]
fn a_table_that_was_left_out_filtered_or_unreadable_is_never_said_to_be_back() {
    let sandbox = support::sandbox();
    let mut live = database(&sandbox, "shop", SHOP);
    live.execute(
        "CREATE ROLE clerk LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO clerk; REVOKE ALL ON events_2024, customers FROM clerk;
         CREATE TABLE log (t text); INSERT INTO log VALUES ('a'); GRANT SELECT ON log TO clerk; ALTER ROLE clerk BYPASSRLS",
    )
    .unwrap();
    let config = support::with_rules(
        support::config(&sandbox, "shop", "clerk"),
        r#"[{"match": "log", "exclude": true}, {"match": "orders", "where": "id <= 10"}]"#,
    );
    let memory = Memory::default();
    let record = support::capture(&config, &memory).unwrap();
    let selecting = |table: &str, into: &str| Options {
        roles: false,
        ..selecting(Selection {
            tables: vec![name("public", table)],
            to_schema: Some(into.to_owned()),
            ..Selection::default()
        })
    };
    let into = target(&sandbox, "shop", true);
    for (table, message) in [
        ("log", "its rows were left out when it was captured"),
        ("orders", "only rows with id <= 10 were captured"),
        ("events", "its rows were not captured: clerk has no SELECT privilege on it"),
    ] {
        let options = selecting(table, &format!("of_{table}"));
        let planned = plan(&memory, &record, &into, &options).unwrap();
        assert!(
            table == "events" || planned.notices.iter().any(|n| n.contains(table)),
            "{:?}",
            planned.notices
        );
        let report = restore(&memory, &record, &into, &options, &Silent).unwrap();
        assert_eq!(report.state, State::Incomplete, "{table}\n{}", shown(&report));
        assert!(report.errors().any(|p| p.message.contains(message)), "{table}\n{}", shown(&report));
    }
    let failure =
        restore(&memory, &record, &into, &selecting("customers", "of_customers"), &Silent).unwrap_err();
    assert_eq!(failure.kind, Kind::Preflight);
    assert!(
        failure.message.contains("table public.customers is not in this recovery point: clerk has no SELECT"),
        "{failure}"
    );
}

#[test]
fn missing_roles_are_made_on_another_server_and_existing_ones_left_alone() {
    let here = support::sandbox();
    zoo::roles(&here);
    database(
        &here,
        "shop",
        "CREATE TABLE t (a int); ALTER TABLE t OWNER TO zoo_app; GRANT SELECT ON t TO zoo_readers;
         ALTER ROLE zoo_app PASSWORD 'secret'; CREATE ROLE stranger",
    );
    let (memory, record) = captured(&here, "shop");
    let there = support::sandbox();
    let mut admin = there.connect("postgres").unwrap();
    admin.execute("CREATE ROLE zoo_readers LOGIN").unwrap();
    let report =
        restore(&memory, &record, &target(&there, "shop", false), &Options::default(), &Silent).unwrap();
    assert_eq!(report.state, State::Complete, "{}", shown(&report));
    assert_eq!(report.roles_created, ["zoo_app"]);
    assert_eq!(report.roles_with_password, ["zoo_app"]);
    let roles =
        "SELECT string_agg(rolname || CASE WHEN rolcanlogin THEN ' login' ELSE '' END, ', ' ORDER BY rolname)
                   FROM pg_roles WHERE rolname ~ '^zoo|stranger'";
    assert_eq!(admin.query_text(roles).unwrap().unwrap(), "zoo_app login, zoo_readers login");
    let rest = "SELECT rolpassword LIKE 'SCRAM-%' AND rolconnlimit = 20 AND pg_has_role('zoo_app', 'zoo_readers', 'member')
                  FROM pg_authid WHERE rolname = 'zoo_app'";
    assert_eq!(admin.query_text(rest).unwrap().unwrap(), "t");
    let mut shop = there.connect("shop").unwrap();
    let owner = "SELECT pg_get_userbyid(relowner) || ' ' || relacl::text FROM pg_class WHERE relname = 't'";
    assert_eq!(
        shop.query_text(owner).unwrap().unwrap(),
        "zoo_app {zoo_app=arwdDxt/zoo_app,zoo_readers=r/zoo_app}"
    );
}

#[test]
fn databases_of_other_encodings_come_back_byte_for_byte() {
    let sandbox = support::sandbox();
    let mut admin = sandbox.connect("postgres").unwrap();
    for (database, encoding, file) in
        [("ascii", "SQL_ASCII", "sql_ascii.sql"), ("latin", "LATIN1", "latin1.sql")]
    {
        admin
            .execute(&format!("CREATE DATABASE {database} TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'"))
            .unwrap();
        zoo::run_file(&sandbox, database, "postgres", file);
        let (memory, record) = captured(&sandbox, database);
        let back = format!("{database}_back");
        let report =
            restore(&memory, &record, &target(&sandbox, &back, false), &Options::default(), &Silent).unwrap();
        assert_eq!(report.state, State::Complete, "{database}: {}", shown(&report));
        let comparing = compare::Options::new(support::ROW_KEY);
        let comparison = compare(&memory, &record, &sandbox.spec(&back), &comparing, &Silent).unwrap();
        assert_eq!(comparison.verdict(), Verdict::Equal, "{database}: {:?}", comparison.differences);
        zoo::assert_same_dump(
            &zoo::dump(&sandbox, database, "postgres"),
            &zoo::dump(&sandbox, &back, "postgres"),
        );
        // A table with a name beyond ASCII, on its own.
        if database == "latin" {
            let selection = Selection {
                tables: vec![name("public", "été")],
                to_schema: Some("là".to_owned()),
                ..Selection::default()
            };
            let options = selecting(selection);
            let report =
                restore(&memory, &record, &target(&sandbox, "latin", true), &options, &Silent).unwrap();
            assert_eq!(report.state, State::Complete, "{}", shown(&report));
            let mut latin = sandbox.connect("latin").unwrap();
            latin.execute("SET client_encoding = 'UTF8'").unwrap();
            assert_eq!(latin.query_text("SELECT count(*) FROM \"là\".\"été\"").unwrap().unwrap(), "3");
        }
    }
}

#[test]
fn names_beyond_ascii_survive_whatever_the_encoding() {
    let sandbox = support::sandbox();
    let mut admin = sandbox.connect("postgres").unwrap();
    for (database, encoding) in
        [("cyrillic", "WIN1251"), ("central", "LATIN2"), ("japanese", "EUC_JP"), ("unknown", "SQL_ASCII")]
    {
        let sql = format!(
            "CREATE DATABASE {database} TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'"
        );
        admin.execute(&sql).unwrap();
        let mut live = sandbox.connect(database).unwrap();
        // What no encoding knows stands for itself: Latin 1 in the one case, as an application would have sent it.
        let (schema, table, column) = match encoding {
            "WIN1251" => ("Схема", "Заказы", "Имя"),
            "LATIN2" => ("źródło", "Łódź", "żółw"),
            "EUC_JP" => ("倉庫", "注文", "名前"),
            _ => ("caf\u{f7e9}", "\u{f7c9}t\u{f7e9}", "\u{f7ff}"),
        };
        let client = if encoding == "SQL_ASCII" { "SQL_ASCII" } else { "UTF8" };
        live.execute(&format!("SET client_encoding = '{client}'")).unwrap();
        live.execute(&format!(
            "CREATE SCHEMA \"{schema}\"; CREATE TABLE \"{schema}\".\"{table}\" (id int PRIMARY KEY, \"{column}\" text DEFAULT '{table}');
             INSERT INTO \"{schema}\".\"{table}\" VALUES (1, '{column}'), (2, '{table}');
             CREATE VIEW \"{schema}\".\"{table}{table}\" AS SELECT \"{column}\" FROM \"{schema}\".\"{table}\";
             COMMENT ON TABLE \"{schema}\".\"{table}\" IS '{column}'"
        ))
        .unwrap();
        let (memory, record) = captured(&sandbox, database);
        let facts = support::facts(&record);
        assert_eq!(facts.table(schema, table).unwrap().rows, 2, "{encoding}");
        let back = format!("{database}_back");
        let report =
            restore(&memory, &record, &target(&sandbox, &back, false), &Options::default(), &Silent).unwrap();
        assert_eq!(report.state, State::Complete, "{encoding}: {}", shown(&report));
        let comparison = compare(
            &memory,
            &record,
            &sandbox.spec(&back),
            &compare::Options::new(support::ROW_KEY),
            &Silent,
        )
        .unwrap();
        assert_eq!(comparison.verdict(), Verdict::Equal, "{encoding}: {:?}", comparison.differences);
        assert_eq!(comparison.rows, 2, "{encoding}");
        zoo::assert_same_dump(
            &zoo::dump(&sandbox, database, "postgres"),
            &zoo::dump(&sandbox, &back, "postgres"),
        );

        // The one table, beside the living one.
        let selection = Selection {
            tables: vec![name(schema, table)],
            to_schema: Some(column.to_owned()),
            ..Selection::default()
        };
        let report =
            restore(&memory, &record, &target(&sandbox, database, true), &selecting(selection), &Silent)
                .unwrap();
        assert_eq!((report.state, report.rows), (State::Complete, 2), "{encoding}: {}", shown(&report));
        let count = live.query_text(&format!("SELECT count(*) FROM \"{column}\".\"{table}\"")).unwrap();
        assert_eq!(count.as_deref(), Some("2"), "{encoding}");
    }
}

/// The mark on an unfinished database is a comment, and carries the one that belongs there.
#[test]
fn a_comment_that_the_server_cannot_hold_is_named_and_the_database_is_finished_without_it() {
    let sandbox = support::sandbox();
    let mut admin = sandbox.connect("postgres").unwrap();
    admin
        .execute("CREATE DATABASE ascii TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'")
        .unwrap();
    let mut ascii = sandbox.connect("ascii").unwrap();
    ascii.execute("SET client_encoding = 'SQL_ASCII'").unwrap();
    ascii.execute("COMMENT ON DATABASE ascii IS 'caf\u{f7e9}'").unwrap();
    let (memory, record) = captured(&sandbox, "ascii");
    let report =
        restore(&memory, &record, &target(&sandbox, "back", false), &Options::default(), &Silent).unwrap();
    assert_eq!(report.state, State::Complete, "{}", shown(&report));
    assert!(report.problems.iter().any(|p| p.object == "comment of the database"), "{}", shown(&report));
    let comment = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = 'back'";
    assert_eq!(admin.query_text(comment).unwrap(), None);
}
