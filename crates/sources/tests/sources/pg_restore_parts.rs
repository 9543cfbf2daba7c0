//! Single tables and schemas come back beside what lives there; nothing is overwritten.

use crate::{memory, restoring, support, zoo};
use mainstay_domain::{Kind, Silent, point::State};
use mainstay_sources::postgres::{
    compare::{self, Verdict, compare},
    restore::{Options, Selection, plan, restore},
    sandbox::Sandbox,
};
use memory::Memory;
use restoring::{SHOP, captured, database, name, selecting, shown, target};

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
