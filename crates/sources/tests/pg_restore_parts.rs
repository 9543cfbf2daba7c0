//! Single tables and schemas come back beside what lives there; what goes wrong is named; nothing is overwritten.

#![allow(clippy::unwrap_used, clippy::print_stderr)] // a test that cannot go on fails; what it must leave out, it says

#[path = "support/memory.rs"]
mod memory;
#[path = "support/postgres.rs"]
mod support;
#[path = "support/zoo.rs"]
mod zoo;

use mainstay_domain::{
    Kind, Severity, Silent,
    point::{SourceRecord, State},
};
use mainstay_sources::postgres::{
    compare::{self, Verdict, compare},
    facts::QualifiedName,
    restore::{Options, Report, Selection, Target, plan, restore},
    sandbox::{Sandbox, SandboxOptions},
    wire::Connection,
};
use memory::Memory;

fn name(schema: &str, name: &str) -> QualifiedName {
    QualifiedName { schema: schema.to_owned(), name: name.to_owned() }
}

fn target(sandbox: &Sandbox, database: &str, into_existing: bool) -> Target {
    Target { server: sandbox.spec("postgres"), database: database.to_owned(), into_existing }
}

fn selecting(selection: Selection) -> Options {
    Options { selection, ..Options::default() }
}

fn shown(report: &Report) -> String {
    report.problems.iter().map(|p| format!("{:?} {}: {}\n", p.severity, p.object, p.message)).collect()
}

fn captured(sandbox: &Sandbox, database: &str) -> (Memory, SourceRecord) {
    let memory = Memory::default();
    let record = support::capture(&support::config(sandbox, database, "postgres"), &memory).unwrap();
    (memory, record)
}

fn database(sandbox: &Sandbox, name: &str, sql: &str) -> Connection {
    sandbox.connect("postgres").unwrap().execute(&format!("CREATE DATABASE {name}")).unwrap();
    let mut connection = sandbox.connect(name).unwrap();
    connection.execute(sql).unwrap();
    connection
}

const SHOP: &str = r#"
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.note := ''touched''; RETURN NEW; END';
CREATE TABLE customers (id int PRIMARY KEY, name text);
INSERT INTO customers SELECT i, 'c' || i FROM generate_series(1, 100) i;
CREATE TABLE orders (id serial PRIMARY KEY, customer int REFERENCES customers, mood mood DEFAULT 'ok', note text, at date);
CREATE INDEX orders_at ON orders (at);
ALTER TABLE orders CLUSTER ON orders_at;
CREATE TRIGGER touch BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION touch();
ALTER TABLE orders DISABLE TRIGGER touch;
INSERT INTO orders (customer, note, at) SELECT 1 + i % 100, 'n' || i, '2024-01-01'::date + i FROM generate_series(1, 500) i;
ALTER TABLE orders ENABLE TRIGGER touch;
ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON orders USING (customer = 1);
CREATE STATISTICS related ON customer, at FROM orders;
CREATE VIEW recent AS SELECT * FROM orders WHERE at > '2025-01-01';
CREATE TABLE events (d date, v int) PARTITION BY RANGE (d);
CREATE TABLE events_2024 PARTITION OF events FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE TABLE events_rest PARTITION OF events DEFAULT;
INSERT INTO events SELECT '2024-06-01'::date + i, i FROM generate_series(1, 400) i;
CREATE INDEX ON events (d);
"#;

#[test]
fn what_is_critical_is_planned_loaded_and_reported_before_what_is_nice_however_large() {
    let sandbox = support::sandbox();
    let filled = |table: &str, rows: u32| {
        format!(
            "CREATE TABLE {table} (n int CHECK (pg_catalog.current_database() <> 'elsewhere'));
             INSERT INTO {table} SELECT 1 FROM generate_series(1, {rows});"
        )
    };
    let sql = [filled("a_nice", 20_000), filled("b_plain", 1_000), filled("c_critical", 10)].concat();
    database(&sandbox, "shop", &sql);
    let rules = r#"[{"match": "public.a_nice", "priority": "nice", "expect": {"min_rows": 30000}},
                    {"match": "public.b_plain", "expect": {"min_rows": 30000}},
                    {"match": "public.c_critical", "priority": "critical", "expect": {"min_rows": 30000}}]"#;
    let config = support::with_rules(support::config(&sandbox, "shop", "postgres"), rules);
    let memory = Memory::default();
    let record = support::capture(&config, &memory).unwrap();
    let by_class = ["public.c_critical", "public.b_plain", "public.a_nice"];
    let reported: Vec<&str> = record.problems.iter().map(|p| p.object.as_str()).collect();
    assert_eq!(reported, by_class);

    let into = target(&sandbox, "back", false);
    let options = Options { jobs: 1, ..Options::default() };
    let planned = plan(&memory, &record, &into, &options).unwrap();
    let tables: Vec<&str> = planned.tables.iter().map(|t| t.from.as_str()).collect();
    assert_eq!(tables, by_class);
    restore(&memory, &record, &into, &options, &Silent).unwrap();
    let loaded = "SELECT string_agg(t, ' ' ORDER BY x) FROM (
        SELECT 'nice' t, min(xmin::text::bigint) x FROM a_nice UNION ALL
        SELECT 'plain', min(xmin::text::bigint) FROM b_plain UNION ALL
        SELECT 'critical', min(xmin::text::bigint) FROM c_critical) loaded";
    let mut back = sandbox.connect("back").unwrap();
    assert_eq!(back.query_text(loaded).unwrap().as_deref(), Some("critical plain nice"));

    // Tables that take no rows here are named in the same order.
    let report = restore(&memory, &record, &target(&sandbox, "elsewhere", false), &options, &Silent).unwrap();
    let refused: Vec<&str> = report.errors().map(|p| p.object.as_str()).collect();
    assert_eq!(refused, ["table public.c_critical", "table public.b_plain", "table public.a_nice"]);
}

#[test]
fn a_table_comes_back_into_another_schema_beside_the_living_one() {
    let sandbox = support::sandbox();
    let mut live = database(&sandbox, "shop", SHOP);
    let (memory, record) = captured(&sandbox, "shop");
    live.execute("UPDATE orders SET note = 'spoilt'; DELETE FROM orders WHERE id > 400").unwrap();

    let selection = Selection {
        tables: vec![name("public", "orders")],
        to_schema: Some("restored".to_owned()),
        ..Selection::default()
    };
    let options = selecting(selection.clone());
    let report = restore(&memory, &record, &target(&sandbox, "shop", true), &options, &Silent).unwrap();
    assert_eq!(report.state, State::Complete, "{}", shown(&report));
    assert_eq!(report.rows, 500);
    let comparing = compare::Options { selection, ..compare::Options::new(support::ROW_KEY) };
    let comparison = compare(&memory, &record, &sandbox.spec("shop"), &comparing, &Silent).unwrap();
    assert_eq!(comparison.verdict(), Verdict::Equal, "{:?}", comparison.differences);

    let mut text = |sql: &str| live.query_text(sql).unwrap().unwrap_or_default();
    assert_eq!(
        text("SELECT count(*) FROM orders WHERE note = 'spoilt'"),
        "400",
        "the living table is as it was"
    );
    assert_eq!(
        text("SELECT count(*) FROM pg_indexes WHERE schemaname = 'restored' AND tablename = 'orders'"),
        "2"
    );
    assert_eq!(text("SELECT count(*) FROM pg_policies WHERE schemaname = 'restored'"), "1");
    assert_eq!(
        text(
            "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'restored.orders'::regclass AND contype = 'f'"
        ),
        "FOREIGN KEY (customer) REFERENCES customers(id)"
    );
    assert_eq!(
        text(
            "SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE adrelid = 'restored.orders'::regclass AND adnum = 1"
        ),
        "nextval('restored.orders_id_seq'::regclass)",
        "it counts on with a sequence of its own"
    );
    assert_eq!(text("SELECT nextval('restored.orders_id_seq')"), "501");
    assert_eq!(
        text(
            "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'restored.orders'::regclass AND NOT tgisinternal"
        ),
        "1"
    );
    assert_eq!(
        text("SELECT count(*) FROM pg_statistic_ext WHERE stxnamespace = 'restored'::regnamespace"),
        "1"
    );
}

#[test]
fn a_table_comes_back_under_another_name_in_its_own_schema() {
    let sandbox = support::sandbox();
    let mut live = database(&sandbox, "shop", SHOP);
    let (memory, record) = captured(&sandbox, "shop");
    let selection = Selection {
        tables: vec![name("public", "orders")],
        to_table: Some("orders_yesterday".to_owned()),
        ..Selection::default()
    };
    let report =
        restore(&memory, &record, &target(&sandbox, "shop", true), &selecting(selection), &Silent).unwrap();
    assert_eq!(report.state, State::Complete, "{}", shown(&report));
    let mut text = |sql: &str| live.query_text(sql).unwrap().unwrap_or_default();
    assert_eq!(text("SELECT count(*) FROM orders_yesterday"), "500");
    assert_eq!(
        text(
            "SELECT string_agg(indexname, ' ' ORDER BY indexname) FROM pg_indexes WHERE tablename = 'orders_yesterday'"
        ),
        "orders_yesterday_at orders_yesterday_pkey"
    );
    assert_eq!(text("SELECT count(*) FROM orders"), "500");
}

#[test]
fn a_view_without_its_table_is_missing_and_not_equal() {
    let sandbox = support::sandbox();
    let sql = "CREATE MATERIALIZED VIEW mine AS SELECT id FROM orders; CREATE SEQUENCE counter;
               CREATE VIEW two AS SELECT 2 AS two";
    database(&sandbox, "shop", SHOP).execute(sql).unwrap();
    let (memory, record) = captured(&sandbox, "shop");
    let restored = |into: &str, names: &[&str]| {
        let selection =
            Selection { tables: names.iter().map(|n| name("public", n)).collect(), ..Selection::default() };
        let options = selecting(selection.clone());
        let report = restore(&memory, &record, &target(&sandbox, into, false), &options, &Silent).unwrap();
        let comparing = compare::Options { selection, ..compare::Options::new(support::ROW_KEY) };
        let comparison = compare(&memory, &record, &sandbox.spec(into), &comparing, &Silent).unwrap();
        (report, comparison)
    };
    let (report, comparison) = restored("partly", &["recent", "mine", "counter", "two"]);
    assert_eq!(report.state, State::Incomplete, "{}", shown(&report));
    assert_eq!(comparison.verdict(), Verdict::Different);
    let differences: Vec<String> = comparison.differences.iter().map(ToString::to_string).collect();
    assert_eq!(differences, ["materialized view public.mine is missing", "view public.recent is missing"]);
    assert_eq!(comparison.objects["view"], 2);

    let (report, comparison) =
        restored("whole", &["recent", "mine", "counter", "two", "orders", "customers"]);
    assert_eq!(report.state, State::Complete, "{}", shown(&report));
    assert_eq!(comparison.verdict(), Verdict::Equal, "{:?}", comparison);
    sandbox.connect("whole").unwrap().execute("DROP VIEW two; CREATE VIEW two AS SELECT 3 AS two").unwrap();
    let selection = Selection { tables: vec![name("public", "two")], ..Selection::default() };
    let comparing = compare::Options { selection, ..compare::Options::new(support::ROW_KEY) };
    let comparison = compare(&memory, &record, &sandbox.spec("whole"), &comparing, &Silent).unwrap();
    assert_eq!(comparison.differences[0].what, "definition", "{comparison:?}");
}

#[test]
fn a_partitioned_table_brings_its_partitions() {
    let sandbox = support::sandbox();
    let mut live = database(&sandbox, "shop", SHOP);
    let (memory, record) = captured(&sandbox, "shop");
    let selection = Selection {
        tables: vec![name("public", "events")],
        to_schema: Some("Beside It".to_owned()),
        ..Selection::default()
    };
    let report =
        restore(&memory, &record, &target(&sandbox, "shop", true), &selecting(selection), &Silent).unwrap();
    assert_eq!(report.state, State::Complete, "{}", shown(&report));
    let mut text = |sql: &str| live.query_text(sql).unwrap().unwrap_or_default();
    assert_eq!(text("SELECT count(*) FROM \"Beside It\".events"), "400");
    assert_eq!(text("SELECT count(*) FROM pg_partition_tree('\"Beside It\".events')"), "3");
    assert_eq!(
        text("SELECT count(*) FROM pg_inherits WHERE inhparent = '\"Beside It\".events_d_idx'::regclass"),
        "2"
    );
}

#[test]
fn a_schema_comes_back_whole_and_under_another_name() {
    let sandbox = Sandbox::start(&support::options().setting("wal_level", "logical")).unwrap();
    zoo::load_plain(&sandbox, "zoo");
    let (memory, record) = captured(&sandbox, "zoo");
    for schema in ["cons", "views", "parts", "types", "fn", "Mixed Case", "columns", "trig", "priv"] {
        let selection = Selection {
            schemas: vec![schema.to_owned()],
            to_schema: Some(format!("{schema} back")),
            ..Selection::default()
        };
        let options = selecting(selection.clone());
        let report = restore(&memory, &record, &target(&sandbox, "zoo", true), &options, &Silent).unwrap();
        // What is written in a function's body keeps the names that it has.
        let errors: Vec<_> =
            report.errors().filter(|p| !p.message.contains("there.is_no_such_table")).collect();
        assert!(errors.is_empty(), "{schema}: {}", shown(&report));
        let comparing = compare::Options { selection, ..compare::Options::new(support::ROW_KEY) };
        let comparison = compare(&memory, &record, &sandbox.spec("zoo"), &comparing, &Silent).unwrap();
        assert_eq!(comparison.verdict(), Verdict::Equal, "{schema}: {:?}", comparison.differences);
    }
}

#[test]
fn a_selection_comes_back_into_a_new_database_with_what_it_needs() {
    let sandbox = support::sandbox();
    database(&sandbox, "shop", SHOP);
    let (memory, record) = captured(&sandbox, "shop");
    let selection = Selection { tables: vec![name("public", "orders")], ..Selection::default() };
    let report =
        restore(&memory, &record, &target(&sandbox, "part", false), &selecting(selection), &Silent).unwrap();
    // The table that its foreign key refers to was not asked for.
    let errors: Vec<_> = report.errors().map(|p| p.object.as_str()).collect();
    assert_eq!(errors, ["FK CONSTRAINT public.orders orders_customer_fkey"], "{}", shown(&report));
    let mut part = sandbox.connect("part").unwrap();
    assert_eq!(part.query_text("SELECT count(mood) FROM orders").unwrap().unwrap(), "500");
}

#[test]
fn everything_comes_back_into_a_database_that_somebody_else_made() {
    let sandbox = support::sandbox();
    database(&sandbox, "shop", SHOP);
    let (memory, record) = captured(&sandbox, "shop");
    database(&sandbox, "given", "SELECT 1");
    let report =
        restore(&memory, &record, &target(&sandbox, "given", true), &Options::default(), &Silent).unwrap();
    assert_eq!(report.state, State::Complete, "{}", shown(&report));
    let comparing = compare::Options::new(support::ROW_KEY);
    let comparison = compare(&memory, &record, &sandbox.spec("given"), &comparing, &Silent).unwrap();
    assert_eq!(comparison.verdict(), Verdict::Equal, "{:?}", comparison.differences);
}

#[test]
fn nothing_that_exists_is_overwritten() {
    let sandbox = support::sandbox();
    let mut live = database(&sandbox, "shop", SHOP);
    let (memory, record) = captured(&sandbox, "shop");
    let failure = restore(&memory, &record, &target(&sandbox, "shop", false), &Options::default(), &Silent);
    let failure = failure.unwrap_err();
    assert_eq!((failure.kind, failure.message.as_str()), (Kind::Preflight, "database shop exists already"));

    let selection = Selection { tables: vec![name("public", "orders")], ..Selection::default() };
    let options = selecting(selection);
    let failure = restore(&memory, &record, &target(&sandbox, "shop", true), &options, &Silent).unwrap_err();
    assert_eq!(failure.kind, Kind::Preflight);
    assert_eq!(
        failure.message,
        "database shop already has public.orders, public.orders_at, public.orders_id_seq"
    );
    assert_eq!(live.query_text("SELECT count(*) FROM orders").unwrap().unwrap(), "500");

    let failure =
        restore(&memory, &record, &target(&sandbox, "nowhere", true), &options, &Silent).unwrap_err();
    assert_eq!(failure.message, "database nowhere does not exist");
    let selection = Selection { tables: vec![name("public", "ordres")], ..Selection::default() };
    let failure = plan(&memory, &record, &target(&sandbox, "x", false), &selecting(selection)).unwrap_err();
    assert_eq!(
        (failure.kind, failure.message.as_str()),
        (Kind::Usage, "table public.ordres is not in this recovery point")
    );
}

#[test]
fn a_plan_says_what_would_be_done_and_does_nothing() {
    let sandbox = support::sandbox();
    database(&sandbox, "shop", SHOP);
    let (memory, record) = captured(&sandbox, "shop");
    let plan = plan(&memory, &record, &target(&sandbox, "copy", false), &Options::default()).unwrap();
    assert!(plan.creates_database && plan.refusals.is_empty());
    assert_eq!((plan.rows, plan.tables[0].from.as_str()), (1000, "public.orders"));
    let exists = "SELECT count(*) FROM pg_database WHERE datname = 'copy'";
    assert_eq!(sandbox.connect("postgres").unwrap().query_text(exists).unwrap().unwrap(), "0");
}

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
fn a_recovery_point_of_an_older_server_comes_back_on_a_newer_one() {
    let mut tools = support::versions();
    let (oldest, newest) = (tools.remove(0), tools.pop());
    let Some(newest) = newest else { return }; // one version only
    let old = Sandbox::start(&SandboxOptions::new(oldest).setting("wal_level", "logical")).unwrap();
    let new = Sandbox::start(&SandboxOptions::new(newest).setting("wal_level", "logical")).unwrap();
    zoo::load_plain(&old, "zoo");
    let (memory, record) = captured(&old, "zoo");
    let report =
        restore(&memory, &record, &target(&new, "zoo", false), &Options::default(), &Silent).unwrap();
    assert_eq!(report.state, State::Complete, "{}", shown(&report));
    let comparing = compare::Options::new(support::ROW_KEY);
    let comparison = compare(&memory, &record, &new.spec("zoo"), &comparing, &Silent).unwrap();
    let differences: Vec<String> = comparison.differences.iter().map(ToString::to_string).collect();
    assert_eq!(comparison.verdict(), Verdict::EqualWhereCompared, "{}", differences.join("\n"));
}

/// Field trap: minor releases such as 15.20 count versions in `pg_attribute.attoptions`; other releases' pg_dump writes them out.
#[test]
fn a_table_whose_columns_carry_the_servers_own_options_comes_back() {
    let sandbox = support::sandbox();
    let mut live = database(
        &sandbox,
        "shop",
        "CREATE TABLE items (id int PRIMARY KEY, name text, price int); INSERT INTO items VALUES (1, 'cup', 5)",
    );
    live.execute("ALTER TABLE items ALTER COLUMN price SET (n_distinct = -0.5)").unwrap();
    live.execute(
        "UPDATE pg_catalog.pg_attribute SET attoptions = coalesce(attoptions, '{}') || '{pg_attver=2}' \
         WHERE attrelid = 'items'::regclass AND attname IN ('name', 'price')",
    )
    .unwrap();
    let (memory, record) = captured(&sandbox, "shop");
    let report =
        restore(&memory, &record, &target(&sandbox, "back", false), &Options::default(), &Silent).unwrap();
    assert_eq!(report.state, State::Complete, "{}", shown(&report));
    let mut back = sandbox.connect("back").unwrap();
    let sql = "SELECT array_to_string(attoptions, ',') FROM pg_attribute WHERE attname = 'price'";
    assert_eq!(back.query_text(sql).unwrap().as_deref(), Some("n_distinct=-0.5"));
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
