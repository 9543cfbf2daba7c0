//! A living database is replaced in one step, by what was compared before, and with the way back.

use crate::{memory, support};
use mainstay_domain::{Kind, Silent, Time, point::SourceRecord};
use mainstay_sources::postgres::{
    compare,
    replace::{self, HalfDone, Method, Options, half_done, replace, settle},
    restore,
    sandbox::{Sandbox, SandboxOptions},
    tools::Tools,
    wire::{ConnectSpec, Connection},
};
use memory::Memory;
use std::time::{Duration, Instant};

const SHOP: &str = r#"
CREATE TABLE customers (id int PRIMARY KEY, name text);
INSERT INTO customers SELECT i, 'c' || i FROM generate_series(1, 100) i;
CREATE SCHEMA sales;
CREATE TABLE sales.orders (id serial PRIMARY KEY, customer int REFERENCES customers);
INSERT INTO sales.orders (customer) SELECT 1 + i % 100 FROM generate_series(1, 300) i;
CREATE VIEW sales.per_customer AS SELECT customer, count(*) FROM sales.orders JOIN public.customers c ON c.id = customer GROUP BY 1;
ALTER DATABASE shop SET statement_timeout = '7min';
"#;

fn options() -> Options {
    Options {
        restore: restore::Options::default(),
        compare: compare::Options::new(support::ROW_KEY),
        accept_partial: false,
        wait: Duration::from_secs(20),
        now: Time(1_795_178_618_000_000_000), // 2026-11-20T12:43:38Z
    }
}

fn shop(sandbox: &Sandbox) -> (Memory, SourceRecord) {
    sandbox.connect("postgres").unwrap().execute("CREATE DATABASE shop").unwrap();
    sandbox.connect("shop").unwrap().execute(SHOP).unwrap();
    let memory = Memory::default();
    let record = support::capture(&support::config(sandbox, "shop", "postgres"), &memory).unwrap();
    (memory, record)
}

fn text(spec: &ConnectSpec, sql: &str) -> String {
    Connection::connect(spec).unwrap().query_text(sql).unwrap().unwrap_or_default()
}

fn databases(sandbox: &Sandbox) -> String {
    let sql = "SELECT string_agg(datname || CASE WHEN datallowconn THEN '' ELSE ' (closed)' END, ' ' ORDER BY datname)
                 FROM pg_database WHERE datname LIKE 'shop%'";
    text(&sandbox.spec("postgres"), sql)
}

#[test]
fn the_restored_database_takes_the_place_of_the_living_one_and_the_old_one_is_kept() {
    let sandbox = support::sandbox();
    let (memory, record) = shop(&sandbox);
    let server = sandbox.spec("postgres");
    let mut user = sandbox.connect("shop").unwrap();
    user.execute("DELETE FROM sales.orders; ALTER DATABASE shop SET statement_timeout = '1min'").unwrap();

    let plan = replace::plan(&memory, &record, &server, "shop", &options()).unwrap();
    assert_eq!(
        plan.method,
        Method::Databases {
            beside: "shop_restored_20261120_124338".to_owned(),
            kept: "shop_before_20261120_124338".to_owned()
        }
    );
    assert_eq!(plan.sessions, 1);
    assert_eq!(plan.reverted, ["settings: statement_timeout = 1min goes back to statement_timeout = 7min"]);
    assert_eq!(databases(&sandbox), "shop", "a plan changes nothing");

    let replaced = replace(&memory, &record, &server, "shop", &options(), &Silent).unwrap();
    assert_eq!(
        (replaced.sessions_ended, &replaced.kept[..]),
        (1, &["shop_before_20261120_124338".to_owned()][..])
    );
    user.execute("SELECT 1").unwrap_err();
    assert_eq!(databases(&sandbox), "shop shop_before_20261120_124338");
    assert_eq!(text(&sandbox.spec("shop"), "SELECT count(*) FROM sales.orders"), "300");
    assert_eq!(text(&sandbox.spec("shop"), "SHOW statement_timeout"), "7min");
    assert_eq!(text(&sandbox.spec("shop_before_20261120_124338"), "SELECT count(*) FROM sales.orders"), "0");
    assert_eq!(
        text(&server, "SELECT count(*) FROM pg_shdescription WHERE description LIKE '%mainstay%'"),
        "0"
    );

    // The way back, and letting go.
    assert_eq!(replace::kept(&server, "shop").unwrap(), ["shop_before_20261120_124338"]);
    replace::swap_back(&server, "shop", "shop_before_20261120_124338", "shop_aside", Duration::from_secs(20))
        .unwrap();
    assert_eq!(text(&sandbox.spec("shop"), "SELECT count(*) FROM sales.orders"), "0");
    assert_eq!(replace::let_go(&server, "shop", "shop_aside").unwrap_err().kind, Kind::Refused);
    replace::swap_back(&server, "shop", "shop_aside", "shop_before_20261120_124338", Duration::from_secs(20))
        .unwrap();
    replace::let_go(&server, "shop", "shop_before_20261120_124338").unwrap();
    assert_eq!(databases(&sandbox), "shop");
}

#[test]
fn what_differs_from_what_was_captured_replaces_nothing() {
    let sandbox = support::sandbox();
    let (memory, record) = shop(&sandbox);
    memory.lose(&record.stream("table/sales.orders/0").unwrap().content.pieces[0].chunk.unwrap());
    let server = sandbox.spec("postgres");
    let failure = replace(&memory, &record, &server, "shop", &options(), &Silent).unwrap_err();
    assert_eq!(failure.kind, Kind::Incomplete);
    assert_eq!(
        failure.message,
        "the restore beside shop is not complete: table sales.orders: its rows are not restored: this chunk is missing"
    );
    assert_eq!(databases(&sandbox), "shop shop_restored_20261120_124338");
    assert_eq!(text(&sandbox.spec("shop"), "SELECT count(*) FROM sales.orders"), "300");
    let plan = replace::plan(&memory, &record, &server, "shop", &options()).unwrap();
    let left = "database shop_restored_20261120_124338 is of an earlier replacement that did not come to its end: look at it, then drop it";
    assert!(plan.restore.notices.iter().any(|notice| notice == left), "{:?}", plan.restore.notices);
}

#[test]
fn a_partial_point_replaces_nothing_unless_what_would_be_lost_is_accepted() {
    let sandbox = support::sandbox();
    sandbox.connect("postgres").unwrap().execute("CREATE DATABASE shop").unwrap();
    sandbox.connect("shop").unwrap().execute(SHOP).unwrap();
    let memory = Memory::default();
    let config = support::with_rules(
        support::config(&sandbox, "shop", "postgres"),
        r#"[{"match": "sales.orders", "where": "id <= 10"}]"#,
    );
    let record = support::capture(&config, &memory).unwrap();
    let server = sandbox.spec("postgres");
    let failure = replace(&memory, &record, &server, "shop", &options(), &Silent).unwrap_err();
    assert_eq!(failure.kind, Kind::Refused);
    assert_eq!(
        failure.message,
        "this recovery point does not hold all of the database: rows of sales.orders without id <= 10"
    );
    assert_eq!(databases(&sandbox), "shop");
    let accepting = Options { accept_partial: true, ..options() };
    replace(&memory, &record, &server, "shop", &accepting, &Silent).unwrap();
    assert_eq!(text(&sandbox.spec("shop"), "SELECT count(*) FROM sales.orders"), "10");
}

/// The mark that a swap puts on the restored database.
fn mark(admin: &mut Connection, beside: &str) {
    let mark = r#"{"mainstay_replaces":"shop","keeps_as":"shop_old","comment":"the ''new'' one"}"#;
    admin.execute(&format!("COMMENT ON DATABASE {beside} IS '{mark}'")).unwrap();
}

fn comment(sandbox: &Sandbox, database: &str) -> String {
    let sql =
        format!("SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = '{database}'");
    text(&sandbox.spec("postgres"), &sql)
}

#[test]
fn a_crash_at_any_point_of_the_swap_is_settled_by_the_next_run() {
    let sandbox = support::sandbox();
    let server = sandbox.spec("postgres");
    let mut admin = sandbox.connect("postgres").unwrap();
    ["shop", "shop_new", "other"]
        .iter()
        .for_each(|d| assert!(admin.execute(&format!("CREATE DATABASE {d}")).is_ok()));
    let undone =
        |closed| HalfDone::NotSwapped { live: "shop".to_owned(), beside: "shop_new".to_owned(), closed };

    // Killed after the mark; and after the living one was closed.
    mark(&mut admin, "shop_new");
    assert_eq!(half_done(&server, "shop").unwrap(), [undone(false)]);
    assert_eq!(settle(&server, "other").unwrap(), [], "it is about another database");
    assert_eq!(settle(&server, "shop").unwrap(), [undone(false)]);
    mark(&mut admin, "shop_new");
    admin.execute("ALTER DATABASE shop WITH ALLOW_CONNECTIONS false").unwrap();
    assert_eq!(half_done(&server, "shop").unwrap(), [undone(true)]);
    assert_eq!(databases(&sandbox), "shop (closed) shop_new", "looking changes nothing");
    assert_eq!(settle(&server, "shop").unwrap(), [undone(true)]);
    assert_eq!(databases(&sandbox), "shop shop_new");
    assert_eq!(comment(&sandbox, "shop_new"), "the 'new' one");
    assert_eq!(settle(&server, "shop").unwrap(), []);

    // Between the renames: cannot be, as both are one transaction; a hand may have done it.
    mark(&mut admin, "shop_new");
    admin.execute("ALTER DATABASE shop RENAME TO shop_old").unwrap();
    let vacant = HalfDone::Vacant {
        live: "shop".to_owned(),
        beside: "shop_new".to_owned(),
        kept: "shop_old".to_owned(),
    };
    assert_eq!(settle(&server, "shop").unwrap(), [vacant]);
    assert_eq!(databases(&sandbox), "shop shop_old");
    assert_eq!(comment(&sandbox, "shop"), "the 'new' one");
    assert_eq!(settle(&server, "shop").unwrap(), []);
}

#[test]
fn a_replacement_that_was_killed_before_the_swap_is_settled_before_the_next_one_looks_at_anything() {
    let sandbox = support::sandbox();
    let (memory, record) = shop(&sandbox);
    let server = sandbox.spec("postgres");
    let mut admin = sandbox.connect("postgres").unwrap();
    admin.execute("CREATE DATABASE shop_new").unwrap();
    mark(&mut admin, "shop_new");
    admin.execute("ALTER DATABASE shop WITH ALLOW_CONNECTIONS false").unwrap();

    let plan = replace::plan(&memory, &record, &server, "shop", &options()).unwrap();
    assert_eq!(
        plan.half_done.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "a replacement of shop broke off before the swap: shop lets no sessions in, and shop_new is beside it"
        ]
    );
    assert_eq!(databases(&sandbox), "shop (closed) shop_new", "a plan changes nothing");
    replace(&memory, &record, &server, "shop", &options(), &Silent).unwrap();
    assert_eq!(databases(&sandbox), "shop shop_before_20261120_124338 shop_new", "all let sessions in");
    assert_eq!(text(&sandbox.spec("shop"), "SELECT count(*) FROM sales.orders"), "300");
}

#[test]
fn a_swap_that_is_going_on_is_not_taken_for_one_that_broke_off() {
    let sandbox = support::sandbox();
    let server = sandbox.spec("postgres");
    let mut admin = sandbox.connect("postgres").unwrap();
    ["shop", "shop_new"].iter().for_each(|d| assert!(admin.execute(&format!("CREATE DATABASE {d}")).is_ok()));
    mark(&mut admin, "shop_new");
    let lock = "SELECT pg_advisory_lock(hashtext('mainstay replaces'), hashtext('shop'))";
    admin.query(lock).unwrap();
    let failure = settle(&server, "shop").unwrap_err();
    assert_eq!(
        (failure.kind, failure.message.as_str()),
        (Kind::Busy, "another replacement of shop is going on")
    );
    drop(admin);
    assert_eq!(settle(&server, "shop").unwrap().len(), 1);
}

#[test]
fn a_mark_that_somebody_else_forged_is_not_believed() {
    let sandbox = support::sandbox();
    let mut admin = sandbox.connect("postgres").unwrap();
    for sql in [
        "CREATE ROLE owner LOGIN CREATEDB",
        "CREATE ROLE stranger LOGIN CREATEDB",
        "CREATE DATABASE shop_old OWNER owner",
        "CREATE DATABASE shop_new OWNER stranger",
    ] {
        admin.execute(sql).unwrap();
    }
    mark(&mut admin, "shop_new");
    assert_eq!(
        settle(&sandbox.spec("postgres"), "shop").unwrap(),
        [],
        "a stranger's database does not become shop"
    );
    admin.execute("CREATE DATABASE shop OWNER owner").unwrap();
    let owner = ConnectSpec { user: "owner".to_owned(), ..sandbox.spec("postgres") };
    assert_eq!(settle(&owner, "shop").unwrap(), [], "it does not stand in the owner's way");
}

#[test]
fn a_plain_owner_replaces_their_database_on_old_and_new_servers() {
    for tools in support::versions().into_iter().filter(|tools| [14, 17].contains(&tools.major)) {
        as_plain_owner(tools);
    }
}

fn as_plain_owner(tools: Tools) {
    let sandbox = Sandbox::start(&SandboxOptions::new(tools)).unwrap();
    let mut admin = sandbox.connect("postgres").unwrap();
    for sql in [
        "CREATE ROLE owner LOGIN CREATEDB",
        "CREATE DATABASE shop OWNER owner",
        "COMMENT ON DATABASE shop IS 'what we ''live'' on'",
    ] {
        admin.execute(sql).unwrap();
    }
    let owner = |database: &str| ConnectSpec { user: "owner".to_owned(), ..sandbox.spec(database) };
    Connection::connect(&owner("shop")).unwrap().execute(SHOP).unwrap();
    let memory = Memory::default();
    let record = support::capture(&support::config(&sandbox, "shop", "owner"), &memory).unwrap();
    let mut user = Connection::connect(&owner("shop")).unwrap();
    user.execute("DELETE FROM sales.orders").unwrap();

    let replaced = replace(&memory, &record, &owner("postgres"), "shop", &options(), &Silent).unwrap();
    assert_eq!(replaced.method.kept(), ["shop_before_20261120_124338"]);
    assert_eq!(replaced.sessions_ended, 1);
    assert_eq!(text(&owner("shop"), "SELECT count(*) FROM sales.orders"), "300");
    assert_eq!(comment(&sandbox, "shop"), "what we 'live' on");
    assert_eq!(databases(&sandbox), "shop shop_before_20261120_124338");
    replace::let_go(&owner("postgres"), "shop", "shop_before_20261120_124338").unwrap();
    assert_eq!(databases(&sandbox), "shop");
}

#[test]
fn what_is_accepted_is_what_the_point_lacks_and_never_damage() {
    let sandbox = support::sandbox();
    sandbox.connect("postgres").unwrap().execute("CREATE DATABASE shop").unwrap();
    sandbox.connect("shop").unwrap().execute(SHOP).unwrap();
    let config = support::with_rules(
        support::config(&sandbox, "shop", "postgres"),
        r#"[{"match": "public.customers", "where": "id <= 50"}]"#,
    );
    let server = sandbox.spec("postgres");
    let accepting = Options { accept_partial: true, ..options() };

    let memory = Memory::default();
    let record = support::capture(&config, &memory).unwrap();
    memory.lose(&record.stream("table/sales.orders/0").unwrap().content.pieces[0].chunk.unwrap());
    let failure = replace(&memory, &record, &server, "shop", &accepting, &Silent).unwrap_err();
    assert_eq!(failure.kind, Kind::Incomplete, "{failure}");
    assert!(failure.message.contains("sales.orders: its rows are not restored"), "{failure}");
    assert_eq!(text(&sandbox.spec("shop"), "SELECT count(*) FROM sales.orders"), "300");
    sandbox.connect("postgres").unwrap().execute("DROP DATABASE shop_restored_20261120_124338").unwrap();

    // Rows that are not those of the digest.
    let memory = Memory::default();
    let record = support::capture(&config, &memory).unwrap();
    let other_key = Options { compare: compare::Options::new([9; 16]), ..accepting.clone() };
    let failure = replace(&memory, &record, &server, "shop", &other_key, &Silent).unwrap_err();
    assert_eq!(failure.kind, Kind::Verification, "{failure}");
    assert_eq!(text(&sandbox.spec("shop"), "SELECT count(*) FROM customers"), "100");
    sandbox.connect("postgres").unwrap().execute("DROP DATABASE shop_restored_20261120_124338").unwrap();

    // What the point lacks, and the foreign key that follows from it.
    let replaced = replace(&memory, &record, &server, "shop", &accepting, &Silent).unwrap();
    assert_eq!(replaced.restored.not_captured, ["table public.customers"]);
    assert_eq!(replaced.restored.not_valid.len(), 1);
    assert_eq!(text(&sandbox.spec("shop"), "SELECT count(*) FROM customers"), "50");
}

#[test]
fn a_table_that_could_not_be_read_is_lost_only_where_that_is_accepted() {
    let sandbox = support::sandbox();
    let mut admin = sandbox.connect("postgres").unwrap();
    for sql in ["CREATE ROLE clerk LOGIN", "CREATE DATABASE shop"] {
        admin.execute(sql).unwrap();
    }
    let sql = "CREATE TABLE open (id int PRIMARY KEY); CREATE TABLE secret (id int PRIMARY KEY, t text);
               INSERT INTO secret VALUES (1, 'x'); GRANT SELECT ON open TO clerk";
    sandbox.connect("shop").unwrap().execute(sql).unwrap();
    let memory = Memory::default();
    let record = support::capture(&support::config(&sandbox, "shop", "clerk"), &memory).unwrap();
    let server = sandbox.spec("postgres");
    let failure = replace(&memory, &record, &server, "shop", &options(), &Silent).unwrap_err();
    assert_eq!(failure.kind, Kind::Refused);
    assert!(failure.message.contains("all rows of public.secret"), "{failure}");
    let accepting = Options { accept_partial: true, ..options() };
    replace(&memory, &record, &server, "shop", &accepting, &Silent).unwrap();
    assert_eq!(text(&sandbox.spec("shop"), "SELECT to_regclass('secret') IS NULL"), "t");
}

#[test]
fn when_the_second_rename_fails_all_is_as_it_was() {
    let sandbox = support::sandbox();
    let (memory, record) = shop(&sandbox);
    let server = sandbox.spec("postgres");
    // The name under which the old one would be kept is taken.
    sandbox.connect("postgres").unwrap().execute("CREATE DATABASE shop_before_20261120_124338").unwrap();
    replace(&memory, &record, &server, "shop", &options(), &Silent).unwrap_err();
    assert_eq!(
        databases(&sandbox),
        "shop shop_before_20261120_124338 shop_restored_20261120_124338",
        "none of them closed"
    );
    assert_eq!(settle(&server, "shop").unwrap(), []);
}

#[test]
fn where_the_database_may_not_be_renamed_its_schemas_are_swapped() {
    let sandbox = support::sandbox();
    let mut admin = sandbox.connect("postgres").unwrap();
    for sql in ["CREATE ROLE tenant LOGIN", "CREATE DATABASE shop", "GRANT ALL ON DATABASE shop TO tenant"] {
        admin.execute(sql).unwrap();
    }
    let mut shop = sandbox.connect("shop").unwrap();
    shop.execute("ALTER SCHEMA public OWNER TO tenant; CREATE EXTENSION citext").unwrap();
    let tenant = ConnectSpec { user: "tenant".to_owned(), ..sandbox.spec("shop") };
    let sql = SHOP.replace(
        "ALTER DATABASE shop SET statement_timeout = '7min';",
        "CREATE TABLE public.mail (m citext);",
    );
    Connection::connect(&tenant).unwrap().execute(&sql).unwrap();
    let memory = Memory::default();
    let record = support::capture(&support::config(&sandbox, "shop", "tenant"), &memory).unwrap();
    shop.execute("DELETE FROM sales.orders; ALTER EXTENSION citext SET SCHEMA public").unwrap();

    let server = ConnectSpec { user: "tenant".to_owned(), ..sandbox.spec("postgres") };
    let plan = replace::plan(&memory, &record, &server, "shop", &options()).unwrap();
    assert!(
        matches!(&plan.method, Method::Schemas { schemas, .. } if schemas == &["public", "sales"]),
        "{:?}",
        plan.method
    );
    // An extension that is another's cannot be moved along: then nothing is swapped.
    let failure = replace(&memory, &record, &server, "shop", &options(), &Silent).unwrap_err();
    assert!(
        failure.message.starts_with("swapping the schemas: must be owner of extension citext"),
        "{}",
        failure.message
    );
    assert_eq!(text(&tenant, "SELECT count(*) FROM sales.orders"), "0");
    shop.execute(
        "DROP SCHEMA public_restored_20261120_124338 CASCADE; DROP SCHEMA sales_restored_20261120_124338 CASCADE;
         CREATE SCHEMA extensions; ALTER EXTENSION citext SET SCHEMA extensions; GRANT USAGE ON SCHEMA extensions TO tenant",
    )
    .unwrap();
    let memory = Memory::default();
    shop.execute("INSERT INTO sales.orders (customer) SELECT 1 FROM generate_series(1, 300)").unwrap();
    let record = support::capture(&support::config(&sandbox, "shop", "tenant"), &memory).unwrap();
    shop.execute("DELETE FROM sales.orders").unwrap();

    let replaced = replace(&memory, &record, &server, "shop", &options(), &Silent).unwrap();
    assert_eq!(replaced.kept, ["public_before_20261120_124338", "sales_before_20261120_124338"]);
    assert_eq!(text(&tenant, "SELECT count(*) FROM sales.orders"), "300");
    assert_eq!(text(&tenant, "SELECT count(*) FROM sales_before_20261120_124338.orders"), "0");
    assert_eq!(
        text(
            &tenant,
            "SELECT confrelid::regclass FROM pg_constraint WHERE conrelid = 'sales.orders'::regclass AND contype = 'f'"
        ),
        "customers",
        "the key refers to what came back with it"
    );
    assert_eq!(text(&tenant, "SELECT count FROM sales.per_customer"), "300");
}

/// A subscription to another database, a slot that somebody reads, jobs of pg_cron, a tablespace.
#[test]
fn what_belongs_to_the_old_database_is_named_in_the_plan_and_stays_with_it() {
    let sandbox = Sandbox::start(
        &support::options().setting("wal_level", "logical").setting("max_logical_replication_workers", "4"),
    )
    .unwrap();
    let mut admin = sandbox.connect("postgres").unwrap();
    for sql in [
        "CREATE DATABASE wholesale",
        "SET allow_in_place_tablespaces = on",
        "CREATE TABLESPACE fast LOCATION ''",
    ] {
        admin.execute(sql).unwrap();
    }
    let wholesale = "CREATE TABLE news (id int PRIMARY KEY); INSERT INTO news VALUES (1); CREATE PUBLICATION news FOR TABLE news";
    let mut publisher = sandbox.connect("wholesale").unwrap();
    publisher.execute(wholesale).unwrap();
    publisher.query("SELECT pg_create_logical_replication_slot('to_shop', 'pgoutput')").unwrap();
    shop(&sandbox);
    let mut living = sandbox.connect("shop").unwrap();
    let conninfo = format!(
        "host={} port={} dbname=wholesale user=postgres",
        sandbox.socket_directory().display(),
        sandbox.port()
    );
    living
        .execute(&format!(
            "CREATE TABLE news (id int PRIMARY KEY); CREATE PUBLICATION orders FOR TABLE sales.orders;
             CREATE SUBSCRIPTION news CONNECTION '{conninfo}' PUBLICATION news WITH (create_slot = false, slot_name = 'to_shop')"
        ))
        .unwrap();
    living.query("SELECT pg_create_logical_replication_slot('readers', 'pgoutput')").unwrap();
    let until = |spec: &ConnectSpec, truth: &str| {
        let deadline = Instant::now() + Duration::from_secs(60);
        while text(spec, truth) != "t" {
            assert!(Instant::now() < deadline, "it never became true: {truth}");
        }
    };
    until(&sandbox.spec("shop"), "SELECT count(*) = 1 FROM news");
    drop(living);
    admin.execute("CREATE SCHEMA cron; CREATE TABLE cron.job (jobid bigint, database text)").unwrap();
    admin.execute("INSERT INTO cron.job VALUES (1, 'shop'), (2, 'other'), (3, 'shop')").unwrap();
    let memory = Memory::default();
    let record = support::capture(&support::config(&sandbox, "shop", "postgres"), &memory).unwrap();

    let server = sandbox.spec("postgres");
    let plan = replace::plan(&memory, &record, &server, "shop", &options()).unwrap();
    assert_eq!(
        plan.left_behind,
        [
            "replication slot readers stays with the old database: make it anew and start its readers over",
            "subscription news stays with the old database, where it goes on; in the new one it is disabled",
            "2 jobs of pg_cron run in the database of this name: the next time, in the new one",
        ]
    );
    let replaced = replace(&memory, &record, &server, "shop", &options(), &Silent).unwrap();
    assert_eq!(replaced.notices, plan.left_behind);
    let kept = sandbox.spec(&replaced.kept[0]);
    assert_eq!(
        text(&server, "SELECT database FROM pg_replication_slots WHERE slot_name = 'readers'"),
        kept.database
    );
    let mine = "SELECT subenabled || ' ' || COALESCE(subslotname, 'no slot') FROM pg_subscription
                 WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())";
    assert_eq!(text(&kept, mine), "true to_shop");
    assert!(text(&sandbox.spec("shop"), mine).starts_with("false"), "two would take turns at one slot");
    assert_eq!(text(&sandbox.spec("shop"), "SELECT pubname FROM pg_publication"), "orders");
    publisher.execute("INSERT INTO news VALUES (2)").unwrap();
    until(&kept, "SELECT count(*) = 2 FROM news");
    assert_eq!(text(&sandbox.spec("shop"), "SELECT count(*) FROM news"), "1");

    // With the old one goes its slot, and not the one that its publisher keeps.
    replace::let_go(&server, "shop", &kept.database).unwrap();
    assert_eq!(text(&server, "SELECT string_agg(slot_name, ' ') FROM pg_replication_slots"), "to_shop");
}

#[test]
fn a_database_in_a_tablespace_comes_back_there_and_where_there_is_none_by_default() {
    let sandbox = support::sandbox();
    let mut admin = sandbox.connect("postgres").unwrap();
    for sql in ["SET allow_in_place_tablespaces = on", "CREATE TABLESPACE fast LOCATION ''"] {
        admin.execute(sql).unwrap();
    }
    let (memory, _) = shop(&sandbox);
    admin.execute("ALTER DATABASE shop SET TABLESPACE fast").unwrap();
    let record = support::capture(&support::config(&sandbox, "shop", "postgres"), &memory).unwrap();
    let server = sandbox.spec("postgres");
    let of = |database: &str| {
        let sql = format!(
            "SELECT spcname FROM pg_database d JOIN pg_tablespace t ON t.oid = dattablespace WHERE datname = '{database}'"
        );
        text(&server, &sql)
    };
    replace(&memory, &record, &server, "shop", &options(), &Silent).unwrap();
    assert_eq!(of("shop"), "fast");
    replace::let_go(&server, "shop", "shop_before_20261120_124338").unwrap();

    admin.execute("ALTER TABLESPACE fast RENAME TO faster").unwrap();
    let plan = replace::plan(&memory, &record, &server, "shop", &options()).unwrap();
    assert_eq!(plan.reverted, ["tablespace: faster goes back to fast"]);
    let replaced = replace(&memory, &record, &server, "shop", &options(), &Silent).unwrap();
    let told = replaced.restored.problems.iter().map(|p| p.message.as_str());
    assert!(
        told.clone().any(|m| m == "the server does not have its tablespace fast: it lies in the default one"),
        "{:?}",
        told.collect::<Vec<_>>()
    );
    assert_eq!(of("shop"), "pg_default");
}

/// Neither is among the servers' own extensions: their marks are put into the catalogue.
#[test]
fn pg_cron_in_the_database_and_labels_that_nobody_provides_refuse_a_replacement_before_it_begins() {
    let sandbox = support::sandbox();
    let (memory, record) = shop(&sandbox);
    let server = sandbox.spec("postgres");
    let mut living = sandbox.connect("shop").unwrap();
    living
        .execute(
            "SET allow_system_table_mods = on;
             INSERT INTO pg_seclabel VALUES ('customers'::regclass, 'pg_class'::regclass, 0, 'selinux', 'secret')",
        )
        .unwrap();
    let labelled = Memory::default();
    let with_label = support::capture(&support::config(&sandbox, "shop", "postgres"), &labelled).unwrap();
    let refused = |memory: &Memory, record: &SourceRecord| {
        let failure = replace(memory, record, &server, "shop", &options(), &Silent).unwrap_err();
        assert_eq!((failure.kind, databases(&sandbox).as_str()), (Kind::Refused, "shop"), "{failure}");
        failure.message
    };
    assert_eq!(
        refused(&labelled, &with_label),
        "the server has not loaded selinux, of which shop had security labels"
    );
    // Beside, the rest comes back, and what is missing is said before and after.
    let target =
        restore::Target { server: server.clone(), database: "beside".to_owned(), into_existing: false };
    let plan = restore::plan(&labelled, &with_label, &target, &restore::Options::default()).unwrap();
    assert!(
        plan.notices.iter().any(|n| n.starts_with("security labels of selinux will be missing")),
        "{:?}",
        plan.notices
    );
    let report =
        restore::restore(&labelled, &with_label, &target, &restore::Options::default(), &Silent).unwrap();
    let errors: Vec<String> = report.errors().map(|p| format!("{}: {}", p.object, p.message)).collect();
    assert!(errors.len() == 1 && errors[0].contains("\"selinux\" is not loaded"), "{errors:?}");
    assert_eq!(report.rows, 400);

    living
        .execute("INSERT INTO pg_extension SELECT 90000, 'pg_cron', extowner, extnamespace, false, '1.6', NULL, NULL FROM pg_extension")
        .unwrap();
    assert_eq!(
        refused(&memory, &record),
        "pg_cron keeps its jobs in shop, and cannot be made in a database of another name"
    );
}
