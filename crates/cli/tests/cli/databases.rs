//! A database's life on the command line. What is in a database is tested in `crates/sources`; here, what the user sees.

use crate::{KEY, Place, Ran, assert_seen, small_config};
use mainstay_sources::postgres::{
    sandbox::{Sandbox, SandboxOptions},
    tools::{self, Purpose},
};
use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A small database in a server of its own, and a place that is configured to protect it.
pub(crate) struct Shop {
    pub place: Place,
    pub server: Sandbox,
}

impl Shop {
    pub fn new() -> Shop {
        Shop::on(&Shop::options())
    }

    /// The newest server that there is.
    pub fn options() -> SandboxOptions {
        let installed = tools::installed(Purpose::Server, None);
        let newest = installed.into_iter().max_by_key(|tools| tools.major);
        SandboxOptions::new(newest.expect("`make setup` installs PostgreSQL"))
    }

    pub fn on(options: &SandboxOptions) -> Shop {
        let server = Sandbox::start(options).unwrap();
        server.connect("postgres").unwrap().execute("CREATE DATABASE shop").unwrap();
        let sql = "CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL);
                   CREATE TABLE orders (id int PRIMARY KEY, customer int NOT NULL REFERENCES customers, total numeric);
                   INSERT INTO customers SELECT i, 'customer ' || i FROM generate_series(1, 100) i;
                   INSERT INTO orders SELECT i, 1 + i % 100, i * 1.5 FROM generate_series(1, 1000) i";
        server.connect("shop").unwrap().execute(sql).unwrap();
        let place = Place::new();
        let source = format!("files: {{ paths: [\"{}/uploads\"] }}", place.path().display());
        let config = small_config(&place)
            .replace(&source, "postgres: { url: { env: DATABASE_URL } }")
            .replace("uploads:", "db:");
        place.write("mainstay.yaml", &config);
        let shop = Shop { place, server };
        assert_eq!(shop.run(&["init"]).code, 0);
        shop
    }

    pub fn url(&self, user: &str) -> String {
        format!(
            "postgres://{user}@/shop?host={}&port={}",
            self.server.socket_directory().display(),
            self.server.port()
        )
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        self.run_as("postgres", arguments)
    }

    pub fn run_as(&self, user: &str, arguments: &[&str]) -> Ran {
        self.run_at(&self.url(user), arguments)
    }

    /// With this address of the database.
    pub fn run_at(&self, url: &str, arguments: &[&str]) -> Ran {
        self.place.run_with(arguments, &[("MAINSTAY_KEY", KEY), ("DATABASE_URL", url)])
    }

    /// Adds to the configuration of the database.
    pub fn configure(&self, more: &str) {
        let config = std::fs::read_to_string(self.place.at("mainstay.yaml")).unwrap();
        let configured = config.replace("DATABASE_URL } }", &format!("DATABASE_URL }}, {more} }}"));
        assert_ne!(config, configured);
        self.place.write("mainstay.yaml", &configured);
    }

    /// The ids of all recovery points, oldest first.
    pub fn points(&self) -> Vec<String> {
        let listed = self.run(&["list", "--json"]).stdout;
        let id = |line: &str| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_str().map(str::to_owned)
        };
        listed.lines().filter_map(id).collect()
    }

    pub fn count(&self, database: &str, table: &str) -> String {
        let query = format!("SELECT count(*) FROM {table}");
        self.server.connect(database).unwrap().query_text(&query).unwrap().unwrap()
    }
}

#[test]
fn a_database_comes_back_beside_the_one_that_lives() {
    let shop = Shop::new();
    let ran = shop.run(&["backup", "shop", "--quiet"]);
    assert_eq!(ran.code, 0, "{}", ran.all());
    let ran = shop.run(&["restore", "shop", "--to-database", "shop_restored", "--yes", "--quiet"]);
    assert!(ran.code == 0 && ran.stdout.contains("Equal to what was captured"), "{}", ran.all());
    assert_eq!(shop.count("shop_restored", "orders"), "1000");

    let again = shop.run(&["restore", "shop", "--to-database", "shop_restored", "--yes", "--quiet"]);
    assert_eq!(again.code, 14, "a database that exists is not overwritten\n{}", again.all());
}

#[test]
fn a_proven_database_is_shown_as_proven_until_a_damaged_pack_fails_its_next_proof() {
    let shop = Shop::new();
    assert_eq!(shop.run(&["backup", "shop"]).code, 0);
    let prove = || shop.run(&["verify", "shop", "--level", "restore", "--quiet"]);
    let ran = prove();
    assert!(ran.code == 0 && ran.stdout.contains("passed"), "{}", ran.all());
    assert_seen!(shop.run(&["list"]), @"
    exit 0
    out| POINT  FINISHED  APP  POLICY  STATE  SIZE  NEW  PROVEN  HELD
    out| <id>  <time>  shop  by hand  complete <size> <size>  restored <while>
    ");
    let seen = shop.run(&["show", "shop"]);
    for words in ["restore: passed", "its signature holds", "db passed: compared"] {
        assert!(seen.stdout.contains(words), "{words}\n{}", seen.all());
    }
    assert_seen!(seen, @"
    exit 0
    out| point  <id>
    out| application  shop (production)
    out| state  complete
    out| finished  <time> (<while>)
    out| took  <while>
    out| made by  hand
    out| on host <host>
    out| size <size>, of which <size> were new
    out| proof  restore: passed <while>, restored in <while>
    out|  report signed on host <host> its signature holds
    out|  db passed: compared 1100 rows of 2 tables, 14 definitions, 0 sequences, 0 large objects
    out|
    out| SOURCE  KIND  STATE  ITEMS  SIZE
    out| db  postgres  complete  1100 <size>
    out|  db: one snapshot of <time>, at <lsn> of the WAL
    ");

    for pack in shop.place.files("store/packs/data") {
        crate::liars::flip_a_byte(&pack);
    }
    let ran = prove();
    assert!(ran.code == 4 && ran.stdout.contains("FAILED"), "{}", ran.all());
    assert_seen!(shop.run(&["list"]), @"
    exit 0
    out| POINT  FINISHED  APP  POLICY  STATE  SIZE  NEW  PROVEN  HELD
    out| <id>  <time>  shop  by hand  complete <size> <size>  NOT PASSED <while>
    ");
    let seen = shop.run(&["show", "shop"]);
    for words in ["restore: DID NOT PASS", "restore: passed", "db failed: compared"] {
        assert!(seen.stdout.contains(words), "{words}\n{}", seen.all());
    }
    let status = shop.run(&["status", "--check"]);
    assert_eq!(status.code, 5, "{}", status.all());
    assert!(status.stdout.contains("did not pass; last proven: point"), "{}", status.all());
}

#[test]
fn one_table_comes_back_into_a_schema_of_its_own() {
    let shop = Shop::new();
    assert_eq!(shop.run(&["backup", "shop"]).code, 0);
    shop.server.connect("shop").unwrap().execute("DELETE FROM orders").unwrap();
    let into = ["restore", "shop", "--to-database", "shop", "--into-existing", "--table", "public.orders"];
    let ran = shop.run(&[&into[..], &["--to-schema", "rescued", "--yes"]].concat());
    assert_eq!(ran.code, 0, "{}", ran.all());
    assert_eq!(
        (shop.count("shop", "rescued.orders"), shop.count("shop", "orders")),
        ("1000".into(), "0".into())
    );
}

#[test]
fn a_living_database_gives_way_to_a_restored_one_and_is_kept() {
    let shop = Shop::new();
    assert_eq!(shop.run(&["backup", "shop"]).code, 0);
    let lost = "DELETE FROM orders; CREATE TABLE made_since (i int)";
    shop.server.connect("shop").unwrap().execute(lost).unwrap();

    let plan = shop.run(&["restore", "shop", "--replace", "--dry-run"]);
    assert_eq!((plan.code, shop.count("shop", "orders")), (0, "0".into()), "{}", plan.all());
    let refused = shop.run(&["restore", "shop", "--replace"]);
    assert_eq!(refused.code, 2, "it asks first\n{}", refused.all());

    let ran = shop.run(&["restore", "shop", "--replace", "--yes", "--quiet"]);
    assert_eq!(ran.code, 0, "{}", ran.all());
    assert_eq!(shop.count("shop", "orders"), "1000");
    let points = shop.run(&["list", "--json"]).stdout;
    assert_eq!(points.lines().count(), 2, "the state before was backed up first\n{points}");
    assert!(shop.run(&["list"]).stdout.contains("safety copy"));
    let beside = ["restore", "shop", "--to-database", "shop_again", "--yes", "--quiet"];
    let again = shop.run(&beside);
    assert!(
        again.code == 0 && shop.count("shop_again", "orders") == "1000",
        "latest is not what was broken\n{}",
        again.all()
    );

    let drop_old =
        ran.stdout.lines().find(|line| line.contains("--drop-old")).expect("it says how to drop the old one");
    let kept = drop_old.split_whitespace().last().unwrap();
    let planned = format!("; the old one is kept as {kept}\n");
    assert!(ran.stdout.contains(&planned), "it is called as the plan said\n{}", ran.all());
    assert_eq!(shop.count(kept, "orders"), "0", "the old one is kept as it was");
    assert_eq!(shop.count(kept, "made_since"), "0");
    let ran = shop.run(&["restore", "shop", "--drop-old", kept, "--yes"]);
    assert_eq!(ran.code, 0, "{}", ran.all());
    assert!(shop.server.connect(kept).is_err(), "it is gone");
    assert_eq!(
        shop.run(&["restore", "shop", "--drop-old", "shop", "--yes"]).code,
        2,
        "only what was kept is dropped"
    );
}

#[test]
fn a_replacement_that_is_killed_before_its_swap_leaves_nothing_that_the_next_one_does_not_put_right() {
    let shop = Shop::new();
    assert_eq!(shop.run(&["backup", "shop"]).code, 0);
    shop.server.connect("shop").unwrap().execute("DELETE FROM orders").unwrap();
    // Whoever comments on a database keeps it from being renamed until the end of the transaction.
    let mut other = shop.server.connect("postgres").unwrap();
    other.execute("BEGIN; COMMENT ON DATABASE shop IS 'wait'").unwrap();
    let mut replacing = Command::new(env!("CARGO_BIN_EXE_mainstay"));
    replacing.args(["restore", "shop", "--replace", "--yes", "--quiet"]).current_dir(shop.place.path());
    replacing
        .env("MAINSTAY_KEY", KEY)
        .env("DATABASE_URL", shop.url("postgres"))
        .env("HOME", shop.place.path());
    let replacing = Writing(replacing.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap());

    let mut observer = shop.server.connect("postgres").unwrap();
    let swaps = "SELECT count(*) > 0 FROM pg_stat_activity, pg_database d WHERE d.datname = 'shop' AND NOT d.datallowconn
                    AND application_name = 'mainstay' AND wait_event_type = 'Lock'";
    let deadline = Instant::now() + Duration::from_secs(60);
    while observer.query_text(swaps).unwrap().as_deref() != Some("t") {
        assert!(Instant::now() < deadline, "it does not come to the swap");
    }
    drop(replacing); // kill -9
    let end = "SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity WHERE application_name = 'mainstay' AND wait_event_type = 'Lock'";
    observer.query(end).unwrap();
    other.execute("ROLLBACK").unwrap();
    assert!(shop.server.connect("shop").is_err(), "nobody gets in");

    let ran = shop.run(&["restore", "shop", "--replace", "--yes", "--quiet"]);
    assert!(
        ran.code == 0 && ran.stdout.contains("Settled: a replacement of shop broke off"),
        "{}",
        ran.all()
    );
    assert_eq!(shop.count("shop", "orders"), "1000");
    let kept = "SELECT string_agg(datname, ' ') FROM pg_database WHERE datname LIKE 'shop_before_%' AND datallowconn";
    let kept = observer.query_text(kept).unwrap().unwrap();
    assert_eq!(shop.count(&kept, "orders"), "0", "what lived is kept");
}

#[test]
fn what_a_killed_replacement_left_is_said_and_settled_before_anything_is_asked() {
    let shop = Shop::new();
    assert_eq!(shop.run(&["backup", "shop"]).code, 0);
    let mut admin = shop.server.connect("postgres").unwrap();
    let mark = r#"{"mainstay_replaces":"shop","keeps_as":"shop_old","comment":null}"#;
    admin.execute("CREATE DATABASE shop_new").unwrap();
    admin.execute(&format!("COMMENT ON DATABASE shop_new IS '{mark}'")).unwrap();
    admin.execute("ALTER DATABASE shop WITH ALLOW_CONNECTIONS false").unwrap();

    let said = "a replacement of shop broke off before the swap: shop lets no sessions in, and shop_new is beside it";
    let ran = shop.run(&["doctor"]);
    assert!(ran.stdout.contains(said), "{}", ran.all());
    let ran = shop.run(&["backup", "shop"]);
    assert!(ran.code == 14 && ran.stderr.contains("begin it again"), "{}", ran.all());
    let ran = shop.run(&["restore", "shop", "--replace", "--dry-run"]);
    assert!(ran.code == 0 && ran.stdout.contains(said), "{}", ran.all());
    assert!(shop.server.connect("shop").is_err(), "a dry run changes nothing");
    let ran = shop.run(&["restore", "shop", "--replace"]);
    assert!(ran.code == 2 && ran.stdout.contains(said), "it asks first\n{}", ran.all());
    assert_eq!(shop.count("shop", "orders"), "1000", "open again, though nobody said yes");
}

#[test]
fn a_row_of_200_mb_is_backed_up_restored_and_compared_within_256_mib() {
    let shop = Shop::new();
    let sql = "CREATE TABLE big (id int PRIMARY KEY, t text);
               INSERT INTO big SELECT 1, string_agg(md5(i::text), '') FROM generate_series(1, 6600000) i";
    shop.server.connect("shop").unwrap().execute(sql).unwrap();
    // The limit is on memory of its own, not on mapped files: what goes over it is refused by the kernel.
    let limited = |arguments: &str| {
        let mut command = Command::new("sh");
        let script =
            format!("ulimit -d 262144 && exec {} {arguments} --quiet", env!("CARGO_BIN_EXE_mainstay"));
        command.arg("-c").arg(script).current_dir(shop.place.path());
        command
            .env("MAINSTAY_KEY", KEY)
            .env("DATABASE_URL", shop.url("postgres"))
            .env("HOME", shop.place.path());
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, out, err) = limited("backup shop");
    assert_eq!(code, Some(0), "{out}{err}");
    let (code, out, err) = limited("restore shop --to-database back --yes");
    assert!(code == Some(0) && out.contains("Equal to what was captured: 1101 rows"), "{out}{err}");
    assert_eq!(shop.count("back", "big WHERE length(t) = 211200000"), "1");
}

/// A program that is ended with the test.
struct Writing(Child);

impl Drop for Writing {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn what_pgbench_writes_during_a_backup_comes_back_as_of_one_instant() {
    let shop = Shop::new();
    let bench = |arguments: &[&str]| {
        let mut command = Command::new(shop.server.tools().program("pgbench"));
        command.args(arguments).env("PGHOST", shop.server.socket_directory()).env("PGUSER", "postgres");
        command.env("PGPORT", shop.server.port().to_string()).env("PGDATABASE", "shop");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    assert!(bench(&["-i", "-q", "-s", "4"]).status().unwrap().success());
    let writing = Writing(bench(&["-n", "-c", "4", "-T", "600"]).spawn().unwrap());
    let history = |database: &str| shop.count(database, "pgbench_history").parse::<u64>().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while history("shop") == 0 {
        assert!(Instant::now() < deadline, "pgbench writes nothing");
    }
    let before = history("shop");
    let ran = shop.run(&["backup", "shop", "--quiet"]);
    assert_eq!(ran.code, 0, "{}", ran.all());
    let after = history("shop");
    drop(writing);

    let ran = shop.run(&["restore", "shop", "--to-database", "benched", "--yes", "--quiet"]);
    assert!(ran.code == 0 && ran.stdout.contains("Equal to what was captured"), "{}", ran.all());
    let restored = history("benched");
    assert!(
        before <= restored && restored < after,
        "{before} then {restored} then {after}: it wrote meanwhile"
    );
    let sums = "SELECT concat_ws(' ', (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(bbalance) FROM pgbench_branches),
                       (SELECT sum(tbalance) FROM pgbench_tellers), (SELECT sum(delta) FROM pgbench_history))";
    let sums = shop.server.connect("benched").unwrap().query_text(sums).unwrap().unwrap();
    let sums: Vec<&str> = sums.split(' ').collect();
    assert!(sums.len() == 4 && sums.iter().all(|sum| *sum == sums[0]), "{sums:?}");
}

#[test]
fn what_changed_in_a_database_is_listed_row_by_row() {
    let shop = Shop::new();
    assert_eq!(shop.run(&["backup", "shop"]).code, 0);
    let first = shop.points()[0].clone();
    let change = "DELETE FROM orders WHERE id > 997; UPDATE orders SET total = 0 WHERE id = 5; CREATE TABLE later (i int);
                  ALTER TABLE customers ALTER name DROP NOT NULL;
                  INSERT INTO customers VALUES (101, NULL), (102, E'a\\tb \\x1b[31m'); INSERT INTO later VALUES (1)";
    shop.server.connect("shop").unwrap().execute(change).unwrap();
    assert_seen!(shop.run(&["diff", "shop", "--live", "--quiet"]), @r#"
    exit 0
    out| ~ db: column public.customers.name  (not_null was true and is false)
    out| + db: table public.later
    out| ~ db: rows of public.customers  (100 rows, now 102: 2 added)
    out|  + id=101  name=NULL
    out|  + id=102  name=a\tb \u{1b}[31m
    out| ~ db: rows of public.orders  (1000 rows, now 997: 1 changed, 3 removed)
    out|  ~ id=5  total: 7.5 → 0
    out|  - id=1000  customer=1  total=1500.0
    out|  - id=998  customer=99  total=1497.0
    out|  - id=999  customer=100  total=1498.5
    out|
    out| 4 differences.
    "#);
    assert_eq!(shop.run(&["backup", "shop"]).code, 0);
    assert_seen!(shop.run(&["diff", &first, "shop", "--rows", "0", "--quiet"]), @"
    exit 0
    out| ~ db: column public.customers.name  (not_null was true and is false)
    out| + db: table public.later  (1 row)
    out| ~ db: rows of public.customers  (100 rows, now 102: 2 added)
    out|  and 2 more
    out| ~ db: rows of public.orders  (1000 rows, now 997: 1 changed, 3 removed)
    out|  and 4 more
    out|
    out| 4 differences.
    ");
    assert_seen!(shop.run(&["diff", "shop", "shop", "--quiet"]), @"
    exit 0
    out| Nothing differs.
    ");
    let lines = shop.run(&["diff", &first, "shop", "--json"]).stdout;
    let rows: Vec<serde_json::Value> = lines
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .filter(|line| line["type"] == "rows" && line["name"] == "orders")
        .collect();
    assert_eq!(
        (&rows[0]["removed"], &rows[0]["changed"], &rows[0]["key"][0]),
        (&3.into(), &1.into(), &"id".into())
    );
    assert_seen!(shop.run(&["ls", "shop"]), @"
    exit 0
    out| TABLE  ROWS  SIZE
    out| public.customers  102 <size>
    out| public.later  1 <size>
    out| public.orders  997 <size>
    ");
}

#[test]
fn values_of_a_table_that_is_sensitive_are_counted_and_never_shown() {
    let shop = Shop::new();
    assert_eq!(shop.run(&["backup", "shop"]).code, 0);
    let first = shop.points()[0].clone();
    let change = "UPDATE customers SET name = 'Mallory' WHERE id = 7";
    shop.server.connect("shop").unwrap().execute(change).unwrap();
    // Since the backup was made, somebody has noticed.
    shop.configure("tables: [{ match: public.customers, sensitive: true }]");
    let ran = shop.run(&["diff", "shop", "--live", "--quiet"]);
    assert_seen!(ran, @"
    exit 0
    out| ~ db: rows of public.customers  (100 rows: 1 changed, sensitive, so that no values are shown)
    out|
    out| 1 difference.
    ");
    assert_eq!(shop.run(&["backup", "shop"]).code, 0);
    let between = shop.run(&["diff", &first, "shop", "--json"]).stdout;
    assert!(between.contains("customers") && !between.contains("Mallory"), "{between}");
}

#[test]
fn lost_rows_of_a_logical_backup_are_merged_without_a_schema_to_name() {
    let shop = Shop::new();
    assert_eq!(shop.run(&["backup", "shop", "--quiet"]).code, 0);
    let mut session = shop.server.connect("shop").unwrap();
    session.execute("DELETE FROM orders WHERE id <= 10; UPDATE orders SET total = 0 WHERE id = 500").unwrap();
    let merge =
        ["restore", "shop", "--to-database", "shop", "--into-existing", "--table", "orders", "--merge"];
    let ran = shop.run(&[&merge[..], &["missing", "--yes", "--quiet"]].concat());
    assert!(ran.code == 0 && ran.stdout.contains("Put 10 rows back into public.orders."), "{}", ran.all());
    let ran = shop.run(
        &[&merge[..], &["upsert", "--where", "id = 500", "--to-schema", "second", "--yes", "--quiet"]]
            .concat(),
    );
    assert!(ran.code == 0 && ran.stdout.contains("Put 1 row back into public.orders."), "{}", ran.all());
    assert_eq!(shop.count("shop", "orders"), "1000");

    // Tables do not go into a folder.
    let ran = shop.run(&["restore", "shop", "--to-dir", "back", "--table", "orders"]);
    assert_eq!(ran.code, 2, "{}", ran.all());
}
