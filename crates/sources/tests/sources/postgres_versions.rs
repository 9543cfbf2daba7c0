//! Tools, servers and libraries of other versions than those that a database was made by.

use crate::{memory, restoring, support, zoo};
use mainstay_domain::{Silent, SystemClock, point::State};
use mainstay_sources::postgres::{
    capture,
    compare::{self, Verdict, compare},
    config::PostgresConfig,
    restore::{Options, restore},
    sandbox::{Sandbox, SandboxOptions},
};
use memory::Memory;
use restoring::{captured, shown, target};

const SHOP: &str = r#"
CREATE TABLE customers (id int PRIMARY KEY, name text UNIQUE);
INSERT INTO customers SELECT i, 'customer ' || i FROM generate_series(1, 100) i;
CREATE TABLE orders (id serial PRIMARY KEY, customer int REFERENCES customers, at date NOT NULL) PARTITION BY RANGE (id);
CREATE TABLE orders_1 PARTITION OF orders FOR VALUES FROM (1) TO (1000);
INSERT INTO orders (customer, at) SELECT 1 + i % 100, '2026-01-01' FROM generate_series(1, 500) i;
CREATE MATERIALIZED VIEW per_customer AS SELECT customer, count(*) FROM orders GROUP BY 1;
CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE PUBLICATION all_orders FOR TABLE customers;
SELECT lo_from_bytea(4711, 'a large object');
ALTER DATABASE shop SET statement_timeout = '7min';
"#;

/// A newer pg_dump writes settings that an older server refuses (`transaction_timeout`), and `\restrict` for psql.
#[test]
fn what_a_newer_pg_dump_wrote_of_an_older_server_comes_back_to_it_equal() {
    let versions = support::versions();
    let (oldest, newest) = (versions.first().unwrap(), versions.last().unwrap());
    let sandbox = Sandbox::start(&SandboxOptions::new(oldest.clone())).unwrap();
    sandbox.connect("postgres").unwrap().execute("CREATE DATABASE shop").unwrap();
    sandbox.connect("shop").unwrap().execute(SHOP).unwrap();
    let memory = Memory::default();
    let config = PostgresConfig {
        bin_dir: Some(newest.bin_dir.clone()),
        ..support::config(&sandbox, "shop", "postgres")
    };
    let record = support::capture(&config, &memory).unwrap();
    assert_eq!(record.state, State::Complete, "{:?}", record.problems);
    let facts = support::facts(&record);
    assert_eq!(
        (facts.server.major(), facts.server.pg_dump.contains(&newest.major.to_string())),
        (oldest.major, true)
    );
    if newest.major > oldest.major {
        let said = format!(
            "the schema was written by a newer pg_dump ({}) than the server ({})",
            newest.major, oldest.major
        );
        assert!(record.problems.iter().any(|p| p.message.starts_with(&said)), "{:?}", record.problems);
    }
    let report =
        restore(&memory, &record, &target(&sandbox, "back", false), &Options::default(), &Silent).unwrap();
    assert_eq!(
        (report.state, report.rows, report.large_objects),
        (State::Complete, 600, 1),
        "{:?}",
        report.problems
    );
    let options = compare::Options::new(support::ROW_KEY);
    let comparison = compare(&memory, &record, &sandbox.spec("back"), &options, &Silent).unwrap();
    assert_eq!(comparison.verdict(), Verdict::Equal, "{comparison:?}");
}

/// As after an upgrade of the operating system.
#[test]
fn a_collation_of_another_version_than_the_systems_is_told_by_the_probe_the_backup_and_the_comparison() {
    let sandbox = support::sandbox();
    let mut admin = sandbox.connect("postgres").unwrap();
    admin
        .execute("CREATE DATABASE shop TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en' LOCALE 'C'")
        .unwrap();
    let mut shop = sandbox.connect("shop").unwrap();
    shop.execute(SHOP).unwrap();
    shop.execute("CREATE COLLATION unused (provider = icu, locale = 'de'); CREATE COLLATION german (provider = icu, locale = 'de')").unwrap();
    shop.execute("CREATE TABLE words (w text COLLATE german PRIMARY KEY)").unwrap();
    let config = support::config(&sandbox, "shop", "postgres");
    let told = || -> Vec<String> {
        let memory = Memory::default();
        let probed = capture::probe(&config, &SystemClock, &Silent).unwrap().problems;
        let record = support::capture(&config, &memory).unwrap();
        let of = |problems: &[mainstay_domain::point::Problem]| -> Vec<String> {
            problems.iter().filter(|p| p.object == "sorting of text").map(|p| p.message.clone()).collect()
        };
        assert_eq!(of(&probed), of(&record.problems));
        of(&record.problems)
    };
    assert_eq!(told(), Vec::<String>::new());
    let memory = Memory::default();
    let before = support::capture(&config, &memory).unwrap();
    admin.execute("UPDATE pg_database SET datcollversion = '1.0' WHERE datname = 'shop'").unwrap();
    shop.execute("UPDATE pg_collation SET collversion = '1.0' WHERE collname IN ('german', 'unused')")
        .unwrap();
    let told = told();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told[0].starts_with("the indexes are of version 1.0 of the collation, and the system has "),
        "{told:?}"
    );
    assert!(
        told[0].ends_with("REINDEX DATABASE, then ALTER DATABASE \"shop\" REFRESH COLLATION VERSION"),
        "{told:?}"
    );
    assert!(told[1].starts_with("what uses the collation public.german is of its version 1.0"), "{told:?}");
    let options = compare::Options::new(support::ROW_KEY);
    let comparison = compare(&memory, &before, &sandbox.spec("shop"), &options, &Silent).unwrap();
    assert!(
        comparison
            .not_compared
            .iter()
            .any(|n| n.object == "sorting of text" && n.reason.contains("and 1.0 here")),
        "{comparison:?}"
    );
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
