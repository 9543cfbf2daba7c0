//! What tests of restores begin with: a database, its capture, and where it goes.

use super::{memory::Memory, support};
use mainstay_domain::point::SourceRecord;
use mainstay_sources::postgres::{
    facts::QualifiedName,
    restore::{Options, Report, Selection, Target},
    sandbox::Sandbox,
    wire::Connection,
};

pub fn name(schema: &str, name: &str) -> QualifiedName {
    QualifiedName { schema: schema.to_owned(), name: name.to_owned() }
}

pub fn target(sandbox: &Sandbox, database: &str, into_existing: bool) -> Target {
    Target { server: sandbox.spec("postgres"), database: database.to_owned(), into_existing }
}

pub fn selecting(selection: Selection) -> Options {
    Options { selection, ..Options::default() }
}

pub fn shown(report: &Report) -> String {
    report.problems.iter().map(|p| format!("{:?} {}: {}\n", p.severity, p.object, p.message)).collect()
}

pub fn captured(sandbox: &Sandbox, database: &str) -> (Memory, SourceRecord) {
    let memory = Memory::default();
    let record = support::capture(&support::config(sandbox, database, "postgres"), &memory).unwrap();
    (memory, record)
}

pub fn database(sandbox: &Sandbox, name: &str, sql: &str) -> Connection {
    sandbox.connect("postgres").unwrap().execute(&format!("CREATE DATABASE {name}")).unwrap();
    let mut connection = sandbox.connect(name).unwrap();
    connection.execute(sql).unwrap();
    connection
}

pub const SHOP: &str = r#"
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
