//! An application's configuration: files and tables, captured, compared and brought back.

use crate::{memory, support};
use mainstay_domain::{Kind, Silent, SystemClock, point::SourceRecord, point::State};
use mainstay_sources::{
    configuration::{self, ConfigurationConfig, Table, diff::Changed},
    files::{CaptureOptions, ChangeKind, RestoreOptions},
    postgres::{merge::How, sandbox::Sandbox},
};
use memory::Memory;
use std::{fs, path::Path};

fn table(server: &Sandbox, table: Option<&str>, query: Option<&str>, name: Option<&str>) -> Table {
    let url = format!("postgres://postgres@/postgres?host={}", server.socket_directory().display());
    let owned = |text: Option<&str>| text.map(str::to_owned);
    Table { url: url.as_str().into(), table: owned(table), query: owned(query), name: owned(name) }
}

fn capture(config: &ConfigurationConfig, memory: &Memory) -> SourceRecord {
    let options = CaptureOptions::new(&SystemClock);
    configuration::capture("settings", config, memory, None, &options, &Silent).unwrap()
}

fn changes(memory: &Memory, before: &SourceRecord, after: &SourceRecord) -> Vec<Changed> {
    configuration::diff::diff((memory, before), (memory, after)).unwrap()
}

#[test]
fn files_and_tables_come_back_and_a_comparison_hides_their_secrets() {
    let server = support::sandbox();
    let mut session = server.connect("postgres").unwrap();
    session
        .execute(
            "CREATE TABLE settings (name text PRIMARY KEY, value jsonb, note text);
             INSERT INTO settings VALUES ('theme', '\"dark\"', E'two\\nlines, \"quotes\" and a \\\\ backslash'),
                ('smtp_password', '\"hunter2\"', NULL);
             CREATE SCHEMA \"Odd\"; CREATE TABLE \"Odd\".\"Flags\" (flag text, on_since timestamptz);",
        )
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let env = folder.path().join(".env");
    let site = folder.path().join("site.conf");
    fs::write(&env, "APP_ENV=production\nDB_PASSWORD=hunter2\n").unwrap();
    fs::write(&site, "listen 443 ssl;\n").unwrap();
    let config = ConfigurationConfig {
        files: vec![env.clone(), site],
        tables: vec![
            table(&server, Some("public.settings"), None, None),
            table(&server, Some("Odd.Flags"), None, None),
            table(&server, None, Some("SELECT name FROM settings WHERE value IS NOT NULL;"), Some("names")),
        ],
        ..ConfigurationConfig::default()
    };
    let memory = Memory::default();
    let before = capture(&config, &memory);
    assert_eq!(
        (before.kind.as_str(), before.state),
        (configuration::KIND, State::Complete),
        "{:?}",
        before.problems
    );
    let facts = configuration::tables(&before).unwrap();
    assert_eq!(facts.iter().map(|table| table.rows).collect::<Vec<_>>(), [2, 0, 2]);

    // Back: the files, and the tables beside them.
    let back = tempfile::tempdir().unwrap();
    let options = RestoreOptions { destination: back.path().to_owned(), ..RestoreOptions::default() };
    mainstay_sources::files::restore(&memory, &before, &options, &Silent).unwrap();
    configuration::restore_tables(&memory, &before, back.path()).unwrap();
    assert!(configuration::verify_tables(&before, back.path()).unwrap().is_empty());
    let text = fs::read_to_string(back.path().join("public.settings.jsonl")).unwrap();
    let rows: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows[1]["note"], "two\nlines, \"quotes\" and a \\ backslash");
    assert_eq!(rows[0]["value"], "hunter2", "what is stored is whole");
    let refused = configuration::restore_tables(&memory, &before, back.path()).unwrap_err();
    assert_eq!(refused.kind, Kind::Preflight);
    assert!(found(back.path(), "DB_PASSWORD=hunter2"));

    // Changed: told line by line, without the secrets.
    fs::write(&env, "APP_ENV=staging\nDB_PASSWORD=hunter3\n").unwrap();
    session.execute("UPDATE settings SET value = '\"hunter3\"' WHERE name = 'smtp_password'").unwrap();
    session.execute("UPDATE settings SET value = '\"light\"' WHERE name = 'theme'").unwrap();
    let after = capture(&config, &memory);
    let found = changes(&memory, &before, &after);
    let said = format!("{found:?}");
    assert!(!said.contains("hunter"), "{said}");
    assert!(said.contains("- APP_ENV=production") && said.contains("+ DB_PASSWORD=(hidden)"), "{said}");
    assert!(said.contains("light"), "{said}");
    assert!(found.iter().all(|change| change.kind == ChangeKind::Content), "{said}");
    assert!(changes(&memory, &after, &after).is_empty());
}

/// Whether a file below holds the text.
fn found(folder: &Path, text: &str) -> bool {
    fs::read_dir(folder).unwrap().flatten().any(|entry| {
        let path = entry.path();
        if path.is_dir() { found(&path, text) } else { fs::read_to_string(path).unwrap().contains(text) }
    })
}

#[test]
fn a_table_that_cannot_be_read_is_named_and_leaves_the_record_incomplete() {
    let server = support::sandbox();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(".env"), "A=1\n").unwrap();
    let mut config = ConfigurationConfig {
        files: vec![folder.path().join(".env")],
        tables: vec![table(&server, Some("public.absent"), None, None)],
        ..ConfigurationConfig::default()
    };
    let record = capture(&config, &Memory::default());
    assert_eq!(record.state, State::Incomplete);
    assert_eq!(support::problems(&record, "public.absent").len(), 1, "{:?}", record.problems);
    config.files.clear();
    assert_eq!(capture(&config, &Memory::default()).state, State::Failed);
}

#[test]
fn a_query_of_a_configuration_changes_nothing() {
    let server = support::sandbox();
    let mut session = server.connect("postgres").unwrap();
    session.execute("CREATE TABLE kept (a int); INSERT INTO kept VALUES (1)").unwrap();
    let query = "WITH gone AS (DELETE FROM kept RETURNING *) SELECT * FROM gone";
    let tables = vec![table(&server, None, Some(query), Some("bad"))];
    let config = ConfigurationConfig { tables, ..ConfigurationConfig::default() };
    assert_eq!(capture(&config, &Memory::default()).state, State::Failed);
    assert_eq!(session.query_text("SELECT count(*) FROM kept").unwrap().unwrap(), "1");
}

#[test]
fn captured_tables_go_back_into_empty_ones_or_beside_what_lives() {
    let server = support::sandbox();
    let mut session = server.connect("postgres").unwrap();
    session
        .execute(
            "CREATE TYPE mood AS ENUM ('calm', 'busy');
             CREATE TABLE kinds (kind text PRIMARY KEY);
             CREATE TABLE settings (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, kind text REFERENCES kinds,
               value jsonb, note text, at timestamptz, raw bytea, moods mood[], price numeric, twice numeric GENERATED ALWAYS AS (price * 2) STORED);
             INSERT INTO kinds VALUES ('a'), ('b');
             INSERT INTO settings (kind, value, note, at, raw, moods, price) VALUES
               ('a', '{\"n\": 1.50}', E'two\\nlines, \"quotes\" and a \\\\ backslash', '2026-03-29 02:30+01', '\\x00ff', '{calm,busy}', 12345678901234567890.123),
               ('b', 'true', NULL, 'infinity', NULL, '{}', 'NaN')",
        )
        .unwrap();
    let config = ConfigurationConfig {
        // The child before its parent, as nobody should have to care.
        tables: vec![
            table(&server, Some("settings"), None, None),
            table(&server, Some("public.kinds"), None, None),
            table(&server, None, Some("SELECT kind FROM kinds"), Some("names")),
        ],
        ..ConfigurationConfig::default()
    };
    let memory = Memory::default();
    let record = capture(&config, &memory);
    let plan = configuration::plan_import(&record, &[], None, None).unwrap();
    let into: Vec<String> = plan.iter().map(|import| import.into.to_string()).collect();
    assert_eq!(into, ["public.settings", "public.kinds"]);
    let spec = server.spec("postgres");
    let import = |how| configuration::import(&memory, &record, &spec, &plan, how);
    let rows = "SELECT string_agg(s::text, ' ' ORDER BY id) FROM settings s";
    let before = session.query_text(rows).unwrap();

    let full = import(None).unwrap_err();
    assert!(full.message.contains("public.") && full.message.contains("has rows"), "{}", full.message);

    session.execute("TRUNCATE kinds, settings").unwrap();
    let filled = import(None).unwrap();
    assert_eq!(
        filled.iter().map(|m| (m.table.as_str(), m.rows)).collect::<Vec<_>>(),
        [("public.kinds", 2), ("public.settings", 2)]
    );
    assert_eq!(session.query_text(rows).unwrap(), before);

    session
        .execute("DELETE FROM settings WHERE id = 1; UPDATE settings SET note = 'mine' WHERE id = 2")
        .unwrap();
    assert_eq!(import(Some(How::Missing)).unwrap()[1].rows, 1);
    assert_eq!(
        session.query_text("SELECT note FROM settings WHERE id = 2").unwrap().as_deref(),
        Some("mine")
    );
    assert_eq!(import(Some(How::Upsert)).unwrap()[1].rows, 1);
    assert_eq!(session.query_text(rows).unwrap(), before);

    // What does not fit changes nothing, in no table.
    session.execute("TRUNCATE kinds, settings; ALTER TABLE settings ADD CHECK (kind <> 'b')").unwrap();
    import(None).unwrap_err();
    assert_eq!(session.query_text("SELECT count(*) FROM kinds").unwrap().as_deref(), Some("0"));
    session.execute("ALTER TABLE settings ALTER COLUMN note TYPE integer USING NULL").unwrap();
    let unfit = import(None).unwrap_err();
    assert!(unfit.message.contains("public.settings"), "{}", unfit.message);

    // What a query said goes where one says.
    let query = ["names".to_owned()];
    assert_eq!(configuration::plan_import(&record, &query, None, None).unwrap_err().kind, Kind::Usage);
    let plan = configuration::plan_import(&record, &query, None, Some("kinds")).unwrap();
    assert_eq!(configuration::import(&memory, &record, &spec, &plan, None).unwrap()[0].rows, 2);
    assert_eq!(
        configuration::plan_import(&record, &["nothing".to_owned()], None, None).unwrap_err().kind,
        Kind::Usage
    );
}
