//! A database's life on the command line. What is in a database is tested in `crates/sources`; here, what the user sees.

use crate::{KEY, Place, Ran, assert_seen, small_config};
use mainstay_sources::postgres::{
    sandbox::{Sandbox, SandboxOptions},
    tools::{self, Purpose},
};

/// A small database in a server of its own, and a place that is configured to protect it.
struct Shop {
    place: Place,
    server: Sandbox,
}

impl Shop {
    fn new() -> Shop {
        let installed = tools::installed(Purpose::Server, None);
        let tools =
            installed.into_iter().max_by_key(|tools| tools.major).expect("`make setup` installs PostgreSQL");
        let server = Sandbox::start(&SandboxOptions::new(tools)).unwrap();
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

    fn url(&self, user: &str) -> String {
        format!(
            "postgres://{user}@/shop?host={}&port={}",
            self.server.socket_directory().display(),
            self.server.port()
        )
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        self.run_as("postgres", arguments)
    }

    fn run_as(&self, user: &str, arguments: &[&str]) -> Ran {
        self.place.run_with(arguments, &[("MAINSTAY_KEY", KEY), ("DATABASE_URL", &self.url(user))])
    }

    fn count(&self, database: &str, table: &str) -> String {
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
fn a_table_that_may_not_be_read_makes_the_point_incomplete_and_is_named() {
    let shop = Shop::new();
    let sql = "CREATE ROLE clerk LOGIN; GRANT SELECT ON customers TO clerk";
    shop.server.connect("shop").unwrap().execute(sql).unwrap();
    let ran = shop.run_as("clerk", &["backup", "shop", "--quiet"]);
    assert_eq!(ran.code, 3, "{}", ran.all());
    assert!(ran.stdout.contains("INCOMPLETE") && ran.stdout.contains("public.orders"), "{}", ran.all());
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
fn what_changed_in_a_database_is_listed_table_by_table() {
    let shop = Shop::new();
    assert_eq!(shop.run(&["backup", "shop"]).code, 0);
    let change = "DELETE FROM orders WHERE id > 990; CREATE TABLE later (i int)";
    shop.server.connect("shop").unwrap().execute(change).unwrap();
    assert_seen!(shop.run(&["diff", "shop", "--live", "--quiet"]), @"
    exit 0
    out| + db: table public.later
    out| ~ db: table public.orders  (number of rows was 1000 and is 990)
    out|
    out| 2 differences.
    ");
    assert_seen!(shop.run(&["ls", "shop"]), @"
    exit 0
    out| TABLE  ROWS  SIZE
    out| public.customers  100 <size>
    out| public.orders  1000 <size>
    ");
}

#[test]
fn without_its_address_the_database_is_not_looked_for() {
    let shop = Shop::new();
    assert_seen!(shop.place.run(&["backup", "shop"]), @"
    exit 2
    err| error: source db: the environment variable DATABASE_URL is not set
    err| hint: It holds the address of the database: postgres://user:password@host:5432/database.
    ");
}

#[test]
fn a_server_that_is_away_is_said_to_be_away() {
    let Shop { place, server } = Shop::new();
    let url = "postgres://postgres@127.0.0.1:1/shop";
    drop(server);
    let ran = place.run_with(&["backup", "shop"], &[("MAINSTAY_KEY", KEY), ("DATABASE_URL", url)]);
    assert_seen!(ran, @"
    exit 14
    err| error: source db: cannot connect to postgres://postgres@127.0.0.1:1/shop: Connection refused (os error 111)
    err| hint: Nobody listens there: is the server running, does listen_addresses cover this address, is the port right?
    ");
}
