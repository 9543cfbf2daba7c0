//! The inventory of a database, on every version that is installed.

use crate::support;
use mainstay_sources::postgres::{
    facts::ObjectKind,
    inspect::inspect,
    sandbox::{Sandbox, SandboxOptions},
    session,
    wire::{ConnectSpec, Connection},
};

const SCHEMA: &str = r#"
CREATE ROLE reader; CREATE ROLE "Odd Role";
CREATE SCHEMA app AUTHORIZATION "Odd Role";
CREATE TYPE app.mood AS ENUM ('sad', 'it''s ok', 'happy');
CREATE DOMAIN app.positive AS int DEFAULT 1 CHECK (VALUE > 0);
CREATE TYPE app.pair AS (a int, b text COLLATE "C");
CREATE TABLE app.t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, m app.mood, n app.positive,
    twice int GENERATED ALWAYS AS (n * 2) STORED, note varchar(20) COLLATE "C" DEFAULT 'x', CHECK (id > 0));
CREATE TABLE app.child () INHERITS (app.t);
CREATE TABLE app.p (d date NOT NULL, v int) PARTITION BY RANGE (d);
CREATE TABLE app.p1 PARTITION OF app.p FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE UNLOGGED TABLE app.u ();
CREATE INDEX ON app.t (lower(note));
CREATE VIEW app.v AS SELECT id, note FROM app.t;
CREATE MATERIALIZED VIEW app.mv AS SELECT count(*) FROM app.t WITH NO DATA;
CREATE FUNCTION app.f(a int, b text DEFAULT 'q') RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE AGGREGATE app.total (int) (SFUNC = int4pl, STYPE = int, INITCOND = '0');
CREATE FUNCTION app.trg() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER tr BEFORE INSERT ON app.t FOR EACH ROW EXECUTE FUNCTION app.trg();
CREATE RULE ru AS ON DELETE TO app.u DO INSTEAD NOTHING;
ALTER TABLE app.t ENABLE ROW LEVEL SECURITY;
CREATE POLICY pol ON app.t FOR SELECT TO reader, "Odd Role" USING (id > 5);
CREATE STATISTICS app.st ON m, n FROM app.t;
CREATE SEQUENCE app.sq START 7 INCREMENT 3;
CREATE FUNCTION app.eq(app.pair, app.pair) RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE OPERATOR app.=== (LEFTARG = app.pair, RIGHTARG = app.pair, FUNCTION = app.eq);
CREATE CAST (app.pair AS text) WITH INOUT;
CREATE COLLATION app.col FROM "C";
CREATE TEXT SEARCH CONFIGURATION app.ts (COPY = simple);
CREATE FOREIGN DATA WRAPPER fw; CREATE SERVER srv FOREIGN DATA WRAPPER fw OPTIONS (host 'h');
CREATE USER MAPPING FOR reader SERVER srv OPTIONS (password 'hunter2');
CREATE FOREIGN TABLE app.ft (x int) SERVER srv OPTIONS (remote 'r');
CREATE PUBLICATION pub FOR TABLE app.t;
CREATE FUNCTION app.ev() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE EVENT TRIGGER evt ON ddl_command_end EXECUTE FUNCTION app.ev();
GRANT SELECT ON app.t TO reader; GRANT SELECT (note) ON app.t TO "Odd Role";
ALTER DEFAULT PRIVILEGES IN SCHEMA app GRANT SELECT ON TABLES TO reader;
COMMENT ON TABLE app.t IS 'a table'; COMMENT ON COLUMN app.t.note IS 'a note';
ALTER DATABASE zoo SET work_mem = '5MB'; ALTER ROLE reader IN DATABASE zoo SET jit = off;
CREATE EXTENSION IF NOT EXISTS plpgsql;
"#;

#[test]
fn every_kind_of_object_is_seen_on_every_version() {
    for tools in support::versions() {
        let major = tools.major;
        let sandbox = Sandbox::start(&SandboxOptions::new(tools)).unwrap();
        sandbox.connect("postgres").unwrap().execute("CREATE DATABASE zoo").unwrap();
        let mut db = sandbox.connect("zoo").unwrap();
        db.execute(SCHEMA).unwrap();
        let settings = session::prepare(&mut db).unwrap();
        assert_eq!(settings["client_encoding"], "UTF8");
        let found = inspect(&mut db).unwrap_or_else(|e| panic!("PostgreSQL {major}: {e}"));

        assert_eq!(found.database.name, "zoo");
        assert_eq!(found.database.settings.len(), 2);
        assert!(found.roles.iter().any(|r| r == "Odd Role") && found.roles.iter().any(|r| r == "reader"));
        let names: Vec<_> = found.tables.iter().map(|t| t.name.as_str()).collect();
        assert_eq!(names, ["child", "ft", "p", "p1", "t", "u"], "PostgreSQL {major}");
        let t = found.table("app", "t").unwrap();
        assert_eq!(t.columns.len(), 5);
        assert_eq!(t.copy_columns().count(), 4, "the generated column is computed, not copied");
        assert_eq!(t.columns[4].collation.as_deref(), Some("pg_catalog.\"C\""));
        assert_eq!(t.acl.as_ref().unwrap().len(), 2);
        assert!(t.row_security);
        assert_eq!(found.table("app", "child").unwrap().inherits[0].name, "t");
        assert!(found.table("app", "p1").unwrap().partition_bound.as_ref().unwrap().contains("2024-01-01"));
        for kind in [
            ObjectKind::Schema,
            ObjectKind::Type,
            ObjectKind::Function,
            ObjectKind::Operator,
            ObjectKind::Cast,
            ObjectKind::Collation,
            ObjectKind::TextSearch,
            ObjectKind::Sequence,
            ObjectKind::View,
            ObjectKind::MaterializedView,
            ObjectKind::Constraint,
            ObjectKind::Index,
            ObjectKind::Trigger,
            ObjectKind::Rule,
            ObjectKind::Policy,
            ObjectKind::Statistics,
            ObjectKind::ForeignServer,
            ObjectKind::Publication,
            ObjectKind::EventTrigger,
            ObjectKind::DefaultAcl,
        ] {
            assert!(found.objects_of(kind).next().is_some(), "PostgreSQL {major}: no {kind}");
        }
        let text = serde_json::to_string(&found).unwrap();
        assert!(!text.contains("hunter2"), "passwords of user mappings stay out of the facts");
        let again: mainstay_sources::postgres::facts::Inventory = serde_json::from_str(&text).unwrap();
        assert_eq!(again.objects, found.objects);

        // Whoever may not read a single row sees the same objects.
        db.execute("CREATE ROLE nobody_special LOGIN").unwrap();
        let spec = ConnectSpec { user: "nobody_special".to_owned(), ..sandbox.spec("zoo") };
        let mut plain = Connection::connect(&spec).unwrap();
        session::prepare(&mut plain).unwrap();
        let seen = inspect(&mut plain).unwrap_or_else(|e| panic!("PostgreSQL {major}: {e}"));
        assert_eq!((seen.objects, seen.tables), (found.objects, found.tables), "PostgreSQL {major}");
    }
}
