//! What rules about tables do: leave out, filter, expect, weigh; and what is said of it.

use crate::{memory, support};
use mainstay_domain::{Kind, Severity, Silent, SystemClock, point::State};
use mainstay_sources::postgres::{
    capture::probe,
    config::{PostgresConfig, Unnamed},
    facts::{Priority, Skipped},
    sandbox::Sandbox,
};
use memory::Memory;
use support::{capture, config, facts, problems, rows, with_rules};

fn shop() -> Sandbox {
    let sandbox = support::sandbox();
    sandbox
        .connect("postgres")
        .unwrap()
        .execute(
            "CREATE TABLE customers (id int PRIMARY KEY); CREATE TABLE orders (id int PRIMARY KEY, customer int REFERENCES customers);
             CREATE TABLE lines (id int, o int REFERENCES orders); CREATE TABLE page_log (n int);
             INSERT INTO customers SELECT generate_series(1, 100); INSERT INTO orders SELECT n, n FROM generate_series(1, 100) n;
             INSERT INTO lines VALUES (1, 1); INSERT INTO page_log VALUES (1);
             CREATE TABLE events (d int) PARTITION BY RANGE (d);
             CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (0) TO (50);
             CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM (50) TO (100);
             INSERT INTO events SELECT generate_series(0, 99);
             CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w; CREATE FOREIGN TABLE far (n int) SERVER s",
        )
        .unwrap();
    sandbox
}

fn rules(sandbox: &Sandbox, rules: &str) -> PostgresConfig {
    with_rules(config(sandbox, "postgres", "postgres"), rules)
}

#[test]
fn excluded_and_filtered_tables_make_a_partial_capture_that_names_the_broken_references() {
    let sandbox = shop();
    let config = rules(
        &sandbox,
        r#"[{"match": "*_log", "exclude": true}, {"match": "customers", "where": "id <= 10 -- the first", "sensitive": true}]"#,
    );
    let memory = Memory::default();
    let record = capture(&config, &memory).unwrap();
    assert!(record.partial);
    assert_eq!(record.state, State::Complete, "as asked for: {:?}", record.problems);
    assert_eq!(rows(&record, &memory, "public", "customers").len(), 10);
    let facts = facts(&record);
    assert_eq!(facts.table("public", "page_log").unwrap().skipped, Some(Skipped::Excluded));
    let customers = facts.table("public", "customers").unwrap();
    assert!(customers.sensitive && customers.filter.as_deref() == Some("id <= 10 -- the first"));
    let said = problems(&record, "public.orders");
    assert!(
        said.iter()
            .any(|m| m.contains("orders_customer_fkey\" leads to public.customers, whose rows are filtered")),
        "{said:?}"
    );
    assert!(problems(&record, "public.lines").iter().all(|m| !m.contains("foreign key")));
    assert_eq!(facts.table("public", "far").unwrap().skipped, Some(Skipped::Foreign));
}

#[test]
fn a_condition_that_the_server_refuses_names_its_table() {
    let sandbox = shop();
    for condition in ["no_such_column = 1", "id <", "1=1) OR (1=1", "id = 1) UNION SELECT (1"] {
        let config = rules(&sandbox, &format!(r#"[{{"match": "customers", "where": "{condition}"}}]"#));
        let failure = capture(&config, &Memory::default()).unwrap_err();
        assert_eq!(failure.kind, Kind::Usage, "{failure}");
        assert!(failure.message.contains("public.customers"), "{failure}");
    }
}

#[test]
fn expectations_count_partitions_together_and_weigh_by_priority() {
    let sandbox = shop();
    let state = |text: &str| {
        let record = capture(&rules(&sandbox, text), &Memory::default()).unwrap();
        (
            record.state,
            record
                .problems
                .into_iter()
                .filter(|p| p.message.contains("expected"))
                .map(|p| p.message)
                .collect::<Vec<_>>(),
        )
    };
    assert_eq!(state(r#"[{"match": "events", "expect": {"min_rows": 100}}]"#), (State::Complete, vec![]));
    let (incomplete, said) = state(r#"[{"match": "events", "expect": {"min_rows": 101}}]"#);
    assert_eq!(incomplete, State::Incomplete);
    assert_eq!(said, ["100 rows, where at least 101 are expected"]);
    assert_eq!(
        state(r#"[{"match": "lines", "priority": "critical", "expect": {"min_rows": 2}}]"#).0,
        State::Failed
    );
    let (nice, said) = state(r#"[{"match": "lines", "priority": "nice", "expect": {"min_size": "1MB"}}]"#);
    assert_eq!((nice, said.len()), (State::Complete, 1));
}

#[test]
fn a_rule_whose_table_is_not_there_is_not_silently_kept() {
    let sandbox = shop();
    let state = |text: &str| {
        let record = capture(&rules(&sandbox, text), &Memory::default()).unwrap();
        (
            record.state,
            record
                .problems
                .iter()
                .filter(|p| p.object.contains("ordrs"))
                .map(|p| p.severity)
                .collect::<Vec<_>>(),
        )
    };
    let critical = r#"[{"match": "public.ordrs", "priority": "critical"}]"#;
    assert_eq!(state(critical), (State::Failed, vec![Severity::Error]));
    let expected = r#"[{"match": ["orders", "ordrs"], "expect": {"min_rows": 1}}]"#;
    assert_eq!(state(expected), (State::Incomplete, vec![Severity::Error]));
    assert_eq!(
        state(r#"[{"match": "ordrs", "sensitive": true}]"#),
        (State::Complete, vec![Severity::Warning])
    );
    assert_eq!(
        state(r#"[{"match": "ordrs_*", "priority": "critical"}]"#),
        (State::Complete, vec![Severity::Warning])
    );
    assert_eq!(state(r#"[{"match": "ordrs_*", "exclude": true}]"#), (State::Complete, vec![]));
    let probed = probe(&rules(&sandbox, critical), &SystemClock, &Silent).unwrap();
    assert_eq!(probed.state, State::Failed);
}

#[test]
fn tables_that_no_rule_names_are_pointed_out_and_captured() {
    let sandbox = shop();
    let mut config = rules(&sandbox, r#"[{"match": ["customers", "events"], "priority": "critical"}]"#);
    let record = capture(&config, &Memory::default()).unwrap();
    let unnamed: Vec<_> = record
        .problems
        .iter()
        .filter(|p| p.message.contains("no rule names"))
        .map(|p| (p.object.as_str(), p.severity))
        .collect();
    let info = Severity::Info;
    assert_eq!(
        unnamed,
        [("public.far", info), ("public.lines", info), ("public.orders", info), ("public.page_log", info)]
    );
    assert_eq!(facts(&record).table("public", "events_1").unwrap().priority, Priority::Critical);
    config.unnamed = Unnamed::Ignore;
    let record = capture(&config, &Memory::default()).unwrap();
    assert!(record.problems.iter().all(|p| !p.message.contains("no rule names")));
}

#[test]
fn a_probe_says_beforehand_what_a_capture_would() {
    let sandbox = shop();
    let found =
        probe(&rules(&sandbox, r#"[{"match": "customers", "exclude": true}]"#), &SystemClock, &Silent)
            .unwrap();
    assert_eq!((found.state, found.tables, found.database.as_str()), (State::Complete, 5, "postgres"));
    assert!(found.estimate.0 > 0 && found.pg_dump.starts_with("pg_dump (PostgreSQL)"));
    assert!(found.problems.iter().any(|p| p.message.contains("foreign key")));
}

#[test]
fn a_foreign_key_into_a_schema_that_is_closed_to_the_user_is_listed_and_stops_nothing() {
    let sandbox = support::sandbox();
    let mut admin = sandbox.connect("postgres").unwrap();
    for sql in ["CREATE ROLE owner LOGIN", "CREATE DATABASE shop OWNER owner"] {
        admin.execute(sql).unwrap();
    }
    let sql = "CREATE SCHEMA vault; CREATE TABLE vault.people (id int PRIMARY KEY);
               CREATE TABLE public.orders (id int PRIMARY KEY, person int REFERENCES vault.people);
               ALTER TABLE public.orders OWNER TO owner";
    sandbox.connect("shop").unwrap().execute(sql).unwrap();
    let config = config(&sandbox, "shop", "owner");
    let record = capture(&config, &Memory::default()).unwrap();
    assert_eq!(record.state, State::Incomplete);
    assert!(problems(&record, "vault.people").iter().any(|m| m.contains("no USAGE privilege")));
    let broken = problems(&record, "public.orders").concat();
    assert!(broken.contains("leads to vault.people, whose rows are not readable"), "{broken}");
    let probed = probe(&config, &SystemClock, &Silent).unwrap();
    assert_eq!(probed.state, State::Incomplete);
}
