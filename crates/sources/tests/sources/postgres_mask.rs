//! Masks reach every row of a table, wherever PostgreSQL keeps it, and nothing beyond the copy.

use crate::support;
use mainstay_domain::Kind;
use mainstay_sources::postgres::{
    facts::QualifiedName,
    mask::{self, Mask},
    sandbox::Sandbox,
    wire::ConnectSpec,
};

fn server(sql: &str) -> Sandbox {
    let sandbox = support::sandbox();
    sandbox.connect("postgres").unwrap().execute("CREATE DATABASE shop").unwrap();
    sandbox.connect("shop").unwrap().execute(sql).unwrap();
    sandbox
}

fn ask(sandbox: &Sandbox, sql: &str) -> String {
    sandbox.connect("shop").unwrap().query_text(sql).unwrap().unwrap_or_default()
}

fn mask(columns: &[&str]) -> Mask {
    Mask::new(&columns.iter().map(|column| ((*column).to_owned(), "hash".to_owned())).collect()).unwrap()
}

fn name(table: &str) -> QualifiedName {
    QualifiedName { schema: "public".to_owned(), name: table.to_owned() }
}

/// Heirs and partitions, all analyzed.
const FAMILIES: &str = "
    CREATE TABLE people (mail text); CREATE TABLE clients (since int) INHERITS (people);
    CREATE TABLE orders (year int, mail text) PARTITION BY LIST (year);
    CREATE TABLE orders_2025 PARTITION OF orders FOR VALUES IN (2025);
    CREATE TABLE orders_2026 PARTITION OF orders FOR VALUES IN (2026);
    INSERT INTO people SELECT 'p' || n || '@real.example' FROM generate_series(1, 50) n;
    INSERT INTO clients SELECT 'c' || n || '@real.example', n FROM generate_series(1, 50) n;
    INSERT INTO orders SELECT 2025 + n % 2, 'o' || n || '@real.example' FROM generate_series(1, 100) n;
    CREATE VIEW seen AS SELECT mail FROM people; CREATE MATERIALIZED VIEW kept AS SELECT mail FROM seen;
    ANALYZE";

/// Tables in whose statistics a real value is.
const TOLD: &str = "SELECT string_agg(DISTINCT tablename, ' ' ORDER BY tablename) FROM pg_stats
    WHERE concat(most_common_vals::text, histogram_bounds::text) LIKE '%real.example%'";

#[test]
fn of_heirs_and_partitions_nothing_is_left_in_old_rows_or_in_what_the_planner_knows() {
    let sandbox = server(FAMILIES);
    assert_eq!(ask(&sandbox, TOLD), "clients kept orders orders_2025 orders_2026 people");
    let files = ["people", "clients", "orders_2025"];
    mask::apply(&sandbox.spec("shop"), &mask(&["public.people.mail", "public.orders_2025.mail"])).unwrap();
    assert_eq!(ask(&sandbox, TOLD), "orders orders_2026", "the other partition is as it was");
    ask(&sandbox, "CHECKPOINT");
    for table in files {
        let path = ask(&sandbox, &format!("SELECT pg_relation_filepath('{table}')"));
        let bytes = std::fs::read(sandbox.data_directory().join(path)).unwrap();
        assert!(!bytes.windows(12).any(|window| window == b"real.example"), "{table}");
    }
    let all = "SELECT count(*) FROM (SELECT mail FROM kept UNION ALL SELECT mail FROM orders WHERE year = 2025) AS a WHERE length(mail) = 64";
    assert_eq!(ask(&sandbox, all), "150");
    assert_eq!(
        ask(
            &sandbox,
            "SELECT count(*) FROM pg_stats WHERE tablename = 'orders' AND inherited AND concat(most_common_vals::text, histogram_bounds::text) LIKE '%o2@real%'"
        ),
        "0"
    );
}

#[test]
fn a_mask_of_a_parent_is_a_mask_of_its_partition() {
    let sandbox = server(FAMILIES);
    let both = mask(&["public.orders.mail", "public.people.mail"]);
    let spec = sandbox.spec("shop");
    let reaching = both.reaching(&spec, &[name("orders_2026"), name("clients")]).unwrap().unwrap();
    assert_eq!(mask::apply(&spec, &reaching).unwrap().len(), 2);
    assert_eq!(ask(&sandbox, "SELECT min(length(mail)) FROM orders_2026"), "64");
    let partition = mask(&["public.orders_2025.mail"]);
    assert!(partition.reaching(&spec, &[name("orders")]).unwrap().is_some());
    assert!(partition.reaching(&spec, &[name("people")]).unwrap().is_none());
}

#[test]
fn what_lies_on_another_server_is_never_masked_from_a_copy() {
    let sandbox = server(
        "CREATE FOREIGN DATA WRAPPER elsewhere; CREATE SERVER production FOREIGN DATA WRAPPER elsewhere;
         CREATE FOREIGN TABLE people (mail text) SERVER production;
         CREATE TABLE orders (year int, mail text) PARTITION BY LIST (year);
         CREATE FOREIGN TABLE orders_old PARTITION OF orders FOR VALUES IN (2025) SERVER production;
         CREATE TABLE real_people (mail text); CREATE VIEW people_seen AS SELECT mail FROM real_people",
    );
    let spec = sandbox.spec("shop");
    for column in ["public.people.mail", "public.people_seen.mail"] {
        assert!(mask(&[column]).found_in(&spec).unwrap().is_empty(), "{column}");
    }
    for column in ["public.people.mail", "public.people_seen.mail", "public.orders.mail"] {
        let failure = mask::apply(&spec, &mask(&[column])).unwrap_err();
        assert!(failure.kind == Kind::Refused && failure.message.contains("no rows of its own"), "{failure}");
    }
}

#[test]
fn a_trigger_that_cannot_be_turned_off_sees_nothing() {
    let sandbox = server(
        "CREATE TABLE people (mail text); INSERT INTO people VALUES ('a@real.example'); CREATE TABLE seen (mail text);
         CREATE FUNCTION spy() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.seen VALUES (OLD.mail); RETURN NEW; END';
         CREATE TRIGGER spy BEFORE UPDATE ON people FOR EACH ROW EXECUTE FUNCTION spy();
         ALTER TABLE people ENABLE ALWAYS TRIGGER spy",
    );
    let failure = mask::apply(&sandbox.spec("shop"), &mask(&["public.people.mail"])).unwrap_err();
    assert!(failure.kind == Kind::Refused && failure.message.contains("spy"), "{failure}");
    assert_eq!(ask(&sandbox, "SELECT count(*) FROM seen"), "0");
}

#[test]
fn what_was_kept_of_another_servers_rows_is_emptied_and_stands_in_nobodys_way() {
    let sandbox = server("CREATE TABLE people (mail text); INSERT INTO people VALUES ('a@real.example')");
    let rows = sandbox.data_directory().join("elsewhere.csv");
    let mut session = sandbox.connect("shop").unwrap();
    session
        .execute(&format!(
            "COPY people TO '{0}'; CREATE EXTENSION file_fdw; CREATE SERVER production FOREIGN DATA WRAPPER file_fdw;
             CREATE FOREIGN TABLE far (mail text) SERVER production OPTIONS (filename '{0}');
             CREATE VIEW far_seen AS SELECT * FROM far; CREATE MATERIALIZED VIEW far_kept AS SELECT * FROM far_seen;
             CREATE MATERIALIZED VIEW near_kept AS SELECT * FROM people",
            rows.display()
        ))
        .unwrap();
    assert_eq!(ask(&sandbox, "SELECT count(*) FROM far_kept"), "1");
    // It cannot be reached from where the copy is.
    std::fs::remove_file(&rows).unwrap();
    mask::apply(&sandbox.spec("shop"), &mask(&["public.people.mail"])).unwrap();
    let populated = "SELECT string_agg(relname, ' ') FROM pg_class WHERE relkind = 'm' AND relispopulated";
    assert_eq!(ask(&sandbox, populated), "near_kept");
    assert_eq!(ask(&sandbox, "SELECT min(length(mail)) FROM near_kept"), "64");
}

/// Masks a table in which a rule keeps every UPDATE from its rows, and keeps what they held.
fn with_rule(enabled: &str) -> Sandbox {
    server(&format!(
        "CREATE TABLE people (mail text); INSERT INTO people VALUES ('a@real.example'); CREATE TABLE seen (mail text);
         CREATE RULE spy AS ON UPDATE TO people DO INSTEAD INSERT INTO seen VALUES (OLD.mail); {enabled};
         GRANT ALL ON SCHEMA public TO PUBLIC; CREATE ROLE plain LOGIN; ALTER TABLE people OWNER TO plain; ALTER TABLE seen OWNER TO plain"
    ))
}

#[test]
fn a_rule_that_would_turn_the_masking_into_nothing_refuses_it() {
    let column = mask(&["public.people.mail"]);
    for enabled in ["ALWAYS", "REPLICA"] {
        let sandbox = with_rule(&format!("ALTER TABLE people ENABLE {enabled} RULE spy"));
        let failure = mask::apply(&sandbox.spec("shop"), &column).unwrap_err();
        assert!(failure.kind == Kind::Refused && failure.message.contains("rules"), "{enabled}: {failure}");
        assert_eq!(ask(&sandbox, "SELECT count(*) FROM seen"), "0", "{enabled}");
    }
    let sandbox = with_rule("SELECT 1");
    let plain = ConnectSpec { user: "plain".to_owned(), ..sandbox.spec("shop") };
    let failure = mask::apply(&plain, &column).unwrap_err();
    let hint = failure.hint.clone().unwrap_or_default();
    assert!(failure.kind == Kind::Refused && hint.contains("session_replication_role"), "{failure}");
    // Who may turn it off turns it off.
    assert_eq!(mask::apply(&sandbox.spec("shop"), &column).unwrap()[0].rows, 1);
    assert_eq!(
        ask(&sandbox, "SELECT length(mail) || ' ' || (SELECT count(*) FROM seen) FROM people"),
        "64 0"
    );
}

#[test]
fn a_prepared_transaction_refuses_the_masking_before_it_waits_for_it() {
    let options = support::options().setting("max_prepared_transactions", "2");
    let sandbox = Sandbox::start(&options).unwrap();
    sandbox.connect("postgres").unwrap().execute("CREATE DATABASE shop").unwrap();
    let mut session = sandbox.connect("shop").unwrap();
    session.execute("CREATE TABLE people (mail text); INSERT INTO people VALUES ('a@real.example')").unwrap();
    // It has no lock on the table, and would keep its old rows all the same.
    session.execute("BEGIN; CREATE TABLE other (); PREPARE TRANSACTION 'pay 7'").unwrap();
    let spec = sandbox.spec("shop");
    let failure = mask::apply(&spec, &mask(&["public.people.mail"])).unwrap_err();
    assert!(failure.kind == Kind::Refused && failure.message.contains("'pay 7'"), "{failure}");
    session.execute("ROLLBACK PREPARED 'pay 7'").unwrap();
    assert_eq!(mask::apply(&spec, &mask(&["public.people.mail"])).unwrap()[0].rows, 1);
}
