//! What changed, between two recovery points or since one, is told object by object and row by row.

use crate::{memory, support};
use mainstay_domain::{Silent, point::SourceRecord};
use mainstay_sources::postgres::{
    diff::{Diff, Options, RowChange, TableDiff, diff, diff_live},
    facts::QualifiedName,
    sandbox::{Sandbox, SandboxOptions},
    wire::Connection,
};
use memory::Memory;

const SHOP: &str = r#"
CREATE TABLE items (id int, kind text, price numeric, PRIMARY KEY (kind, id));
INSERT INTO items SELECT i, 'k' || i % 3, i FROM generate_series(1, 20000) i;
CREATE TABLE notes (t text);
INSERT INTO notes SELECT 'note ' || i % 10 FROM generate_series(1, 100) i;
CREATE TABLE still (a int PRIMARY KEY);
INSERT INTO still SELECT generate_series(1, 1000);
CREATE TABLE persons (id int PRIMARY KEY, name text);
INSERT INTO persons VALUES (1, 'Ann'), (2, 'Bob');
CREATE TABLE events (d date, v int, PRIMARY KEY (d, v)) PARTITION BY RANGE (d);
CREATE TABLE events_2024 PARTITION OF events FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
INSERT INTO events SELECT '2024-01-01'::date + i, i FROM generate_series(1, 300) i;
CREATE VIEW cheap AS SELECT * FROM items WHERE price < 10;
CREATE SEQUENCE numbers;
"#;

const CHANGES: &str = r#"
UPDATE items SET price = price + 1 WHERE id BETWEEN 100 AND 102;
DELETE FROM items WHERE id = 7;
INSERT INTO items VALUES (30000, 'k9', NULL), (30001, E'k\t9', 1);
INSERT INTO notes VALUES ('note 1'), ('new');
DELETE FROM notes WHERE ctid = (SELECT min(ctid) FROM notes WHERE t = 'note 2');
UPDATE persons SET name = 'Secret' WHERE id = 1;
INSERT INTO events VALUES ('2024-12-31', 1);
CREATE OR REPLACE VIEW cheap AS SELECT * FROM items WHERE price < 5;
SELECT nextval('numbers');
"#;

fn shop() -> (Sandbox, Connection) {
    shop_on(&support::options())
}

fn shop_on(options: &SandboxOptions) -> (Sandbox, Connection) {
    let sandbox = Sandbox::start(options).unwrap();
    sandbox.connect("postgres").unwrap().execute("CREATE DATABASE shop").unwrap();
    let mut shop = sandbox.connect("shop").unwrap();
    shop.execute(SHOP).unwrap();
    (sandbox, shop)
}

fn captured(sandbox: &Sandbox, memory: &Memory) -> SourceRecord {
    let config = support::config(sandbox, "shop", "postgres");
    let config = support::with_rules(config, r#"[{"match": "public.persons", "sensitive": true}]"#);
    support::capture(&config, memory).unwrap()
}

fn table<'d>(diff: &'d Diff, name: &str) -> &'d TableDiff {
    diff.tables.iter().find(|t| t.name == name).unwrap()
}

fn counts(table: &TableDiff) -> (u64, u64, u64) {
    (table.added, table.removed, table.changed)
}

fn expect(diff: &Diff) {
    let objects: Vec<String> = diff.objects.iter().map(ToString::to_string).collect();
    assert_eq!(objects.len(), 2, "{objects:?}");
    assert!(objects[0].starts_with("view public.cheap: definition was"), "{objects:?}");
    assert_eq!(objects[1], "sequence public.numbers: value was 1 (not called yet) and is 1");
    assert_eq!(diff.same_tables, 1);
    let names: Vec<&str> = diff.tables.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["events_2024", "items", "notes", "persons"]);

    let items = table(diff, "items");
    assert_eq!((counts(items), items.rows_before, items.rows_after), ((2, 1, 3), 20000, 20001));
    assert_eq!(items.key, ["kind", "id"]);
    let RowChange::Changed { key, columns } = &items.samples[0] else { panic!("{:?}", items.samples) };
    assert_eq!(key, &["k0", "102"]);
    assert_eq!((&*columns[0].column, &*columns[0].before, &*columns[0].after), ("price", "102", "103"));
    assert_eq!(items.samples[3], RowChange::Removed { row: ["7", "k1", "7"].map(str::to_owned).into() });
    assert_eq!(items.samples[5], RowChange::Added { row: ["30001", "k\\t9", "1"].map(str::to_owned).into() });
    // Without a key, equal rows are counted.
    let notes = table(diff, "notes");
    assert_eq!((counts(notes), notes.key.len()), ((2, 1, 0), 0));
    // A partition has the key of its root.
    assert_eq!(
        (counts(table(diff, "events_2024")), &table(diff, "events_2024").key[..]),
        ((1, 0, 0), &["d".to_owned(), "v".to_owned()][..])
    );
    // What is sensitive is counted, not shown.
    assert_eq!((counts(table(diff, "persons")), table(diff, "persons").samples.len()), ((0, 0, 1), 0));
}

#[test]
fn points_differ_from_one_another_and_from_what_lives_by_what_was_changed_on_every_version() {
    let options = Options::new(support::ROW_KEY);
    let items = QualifiedName { schema: "public".to_owned(), name: "items".to_owned() };
    let only = Options { tables: vec![items], ..options.clone() };
    let mut older: Option<(Memory, SourceRecord)> = None;
    for tools in support::versions() {
        let major = tools.major;
        let (sandbox, mut shop) = shop_on(&SandboxOptions::new(tools));
        let memory = Memory::default();
        let before = captured(&sandbox, &memory);
        let live = |record: &SourceRecord, options: &Options| {
            diff_live(&memory, record, &sandbox.spec("shop"), options, &Silent).unwrap()
        };
        let none = live(&before, &options);
        assert!(none.is_empty() && none.same_tables == 5, "{major}: {none:?}");
        shop.execute(CHANGES).unwrap();
        expect(&live(&before, &options));
        let after = captured(&sandbox, &memory);
        let between =
            |options: &Options| diff((&memory, &before), (&memory, &after), options, &Silent).unwrap();
        expect(&between(&options));
        let none = diff((&memory, &after), (&memory, &after), &options, &Silent).unwrap();
        assert!(none.is_empty() && none.same_tables == 5, "{major}: {none:?}");
        for found in [live(&before, &only), between(&only)] {
            assert_eq!((found.tables.len(), counts(table(&found, "items"))), (1, (2, 1, 3)), "{major}");
        }
        // After an upgrade the rows are what they were.
        if let Some((memory_then, then)) = &older {
            let found = diff((memory_then, then), (&memory, &after), &options, &Silent).unwrap();
            assert_eq!((found.tables.len(), found.same_tables), (0, 5), "{major}: {:?}", found.tables);
        }
        older = Some((memory, after));
    }
}

#[test]
fn chunks_that_both_have_are_not_read() {
    let (sandbox, mut shop) = shop();
    shop.execute("CREATE TABLE big (id int PRIMARY KEY, v text); INSERT INTO big SELECT i, repeat(md5(i::text), 10) FROM generate_series(1, 20000) i").unwrap();
    let memory = Memory::default();
    let before = captured(&sandbox, &memory);
    shop.execute("INSERT INTO big VALUES (0, 'new')").unwrap();
    let after = captured(&sandbox, &memory);
    // Of the shared chunks, none is there to be read.
    let chunks = |record: &SourceRecord| -> Vec<_> {
        let stream = record.stream("table/public.big/0").unwrap();
        stream.content.pieces.iter().filter_map(|p| p.chunk).collect()
    };
    let (old, new) = (chunks(&before), chunks(&after));
    let shared: Vec<_> = old.iter().filter(|chunk| new.contains(chunk)).collect();
    assert!(shared.len() >= 3, "{} of {}", shared.len(), old.len());
    shared.into_iter().for_each(|chunk| memory.lose(chunk));
    let options = Options::new(support::ROW_KEY);
    let found = diff((&memory, &before), (&memory, &after), &options, &Silent).unwrap();
    assert_eq!(counts(table(&found, "big")), (1, 0, 0));
}

#[test]
fn a_table_that_got_another_column_is_compared_by_those_it_still_has() {
    let (sandbox, mut shop) = shop();
    let memory = Memory::default();
    let record = captured(&sandbox, &memory);
    shop.execute(
        "ALTER TABLE items ADD COLUMN colour text DEFAULT 'red'; UPDATE items SET price = 0 WHERE id = 5",
    )
    .unwrap();
    let options = Options::new(support::ROW_KEY);
    let found = diff_live(&memory, &record, &sandbox.spec("shop"), &options, &Silent).unwrap();
    let items = table(&found, "items");
    assert_eq!((counts(items), &items.other_columns[..]), ((0, 0, 1), &["colour".to_owned()][..]));
}
