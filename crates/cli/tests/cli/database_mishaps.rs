//! Bad days of a database, as the user reads of them. How they are survived is tested in `crates/sources`.

use crate::{KEY, Ran, assert_seen, databases::Shop};
use mainstay_sources::postgres::{
    sandbox::{Sandbox, SandboxOptions},
    tools::{self, Purpose},
};
use std::{
    fs,
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Of what a restore prints, what is said of single objects.
fn told(ran: Ran) -> Ran {
    let marks = ["note:", "problem:", "cannot be done:", "left NOT VALID:"];
    let lines =
        ran.stdout.lines().filter(|line| marks.iter().any(|mark| line.trim_start().starts_with(mark)));
    Ran { stdout: lines.collect::<Vec<_>>().join("\n"), ..ran }
}

/// The same with the numbers of processes, ports and versions in words.
fn worded(ran: Ran) -> Ran {
    let replace = |text: String| {
        let mut words: Vec<String> = Vec::new();
        for word in text.split(' ') {
            let number = word.trim_matches(|c: char| !c.is_ascii_digit());
            let before = words.last().map_or("", String::as_str);
            let named = ["process", "PostgreSQL", "version"].contains(&before) && !number.is_empty();
            let install = word.contains("postgresql-client-");
            words.push(match (named || install, word.contains("127.0.0.1:")) {
                (true, _) => word.replace(number, "N"),
                (_, true) => {
                    let (host, rest) = word.split_once("127.0.0.1:").unwrap_or_default();
                    let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
                    format!("{host}127.0.0.1:PORT{rest}")
                }
                _ => word.to_owned(),
            });
        }
        words.join(" ")
    };
    Ran { code: ran.code, stdout: replace(ran.stdout), stderr: replace(ran.stderr) }
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

#[test]
fn a_wrong_password_is_said_to_be_wrong_and_not_repeated() {
    let hba = "local all postgres trust\nhost all all 127.0.0.1/32 scram-sha-256\n".to_owned();
    let shop = Shop::on(&SandboxOptions { tcp: true, hba: Some(hba), ..Shop::options() });
    let role = "CREATE ROLE clerk LOGIN PASSWORD 'the right one'";
    shop.server.connect("shop").unwrap().execute(role).unwrap();
    let url = |password: &str| format!("postgres://clerk{password}@127.0.0.1:{}/shop", shop.server.port());
    assert_seen!(worded(shop.run_at(&url(":hunter2"), &["backup", "shop"])), @r#"
    exit 14
    err| error: source db: postgres://clerk@127.0.0.1:PORT/shop refused the connection: password authentication failed for user "clerk" (SQLSTATE 28P01)
    err| hint: The password (or the user name) is wrong: check the url, PGPASSWORD or the password file.
    "#);
    assert_seen!(worded(shop.run_at(&url(""), &["backup", "shop"])), @"
    exit 14
    err| error: source db: cannot connect to postgres://clerk@127.0.0.1:PORT/shop: the server asks for a password and there is none
    err| hint: Put it in the url, PGPASSWORD or a password file.
    ");
}

#[test]
fn a_table_that_may_not_be_read_makes_the_point_incomplete_and_is_named() {
    let shop = Shop::new();
    let sql = "CREATE ROLE clerk LOGIN; GRANT SELECT ON customers TO clerk";
    shop.server.connect("shop").unwrap().execute(sql).unwrap();
    assert_seen!(shop.run_as("clerk", &["backup", "shop", "--quiet"]), @"
    exit 3
    out| Recovery point <id> of shop is INCOMPLETE.
    out|
    out| SOURCE  KIND  STATE  ITEMS  SIZE
    out| db  postgres  INCOMPLETE  100 <size>
    out|  missing: db public.orders: this table is not captured: clerk has no SELECT privilege on it
    out|  note: db role passwords: only a superuser may read them: set the passwords anew after a restore to another server
    out|  warning: db public.orders: its definition is not captured either; whoever owns it allows both by: GRANT SELECT ON public.orders TO clerk
    out|
    out| <size> read, <size> new in the repository, <while>; 3 objects read back and right
    ");
    let restore = ["restore", "shop", "--to-database", "back", "--table", "orders", "--yes", "--quiet"];
    assert_seen!(told(shop.run(&restore)), @"
    exit 14
    out|  note: the recovery point is incomplete
    out|  cannot be done: table public.orders is not in this recovery point: clerk has no SELECT privilege on it. Choose a point that was made by a user who may read it.
    err| error: table public.orders is not in this recovery point: clerk has no SELECT privilege on it
    err| hint: Choose a point that was made by a user who may read it.
    ");
    // What is in it comes back, and is equal to what was captured.
    assert_seen!(told(shop.run(&["restore", "shop", "--to-database", "back", "--yes", "--quiet"])), @"
    exit 3
    out|  note: the recovery point is incomplete
    out|  note: these tables were not captured, and will be missing: public.orders
    out|  problem: table public.orders: its rows were not captured: clerk has no SELECT privilege on it
    ");
    assert_seen!(told(shop.run(&["verify", "shop", "--level", "restore", "--quiet"])), @"
    exit 3
    out|  problem: table public.orders: its rows were not captured: clerk has no SELECT privilege on it
    ");
}

#[test]
fn a_critical_table_that_may_not_be_read_fails_the_point() {
    let shop = Shop::new();
    shop.configure("tables: [{ match: public.orders, priority: critical }]");
    let sql = "CREATE ROLE clerk LOGIN; GRANT SELECT ON customers TO clerk";
    shop.server.connect("shop").unwrap().execute(sql).unwrap();
    let unread = shop.run_as("clerk", &["backup", "shop"]);
    assert_eq!(unread.code, 1, "{}", unread.all());
    assert!(
        unread.stdout.contains("is FAILED") && unread.stdout.contains("public.orders"),
        "{}",
        unread.all()
    );
}

#[test]
fn a_table_that_was_left_out_comes_back_empty_and_is_said_to() {
    let shop = Shop::new();
    shop.configure("tables: [{ match: public.customers, exclude: true }]");
    assert_eq!(shop.run(&["backup", "shop"]).code, 0);
    let restore = ["restore", "shop", "--to-database", "back", "--table", "customers", "--yes", "--quiet"];
    assert_seen!(told(shop.run(&restore)), @"
    exit 3
    out|  note: the rows of public.customers were left out when it was captured: it will be empty
    out|  problem: table public.customers: its rows were left out when it was captured
    ");
}

#[test]
fn a_missing_or_older_pg_dump_is_named_with_what_to_install() {
    let shop = Shop::new();
    shop.configure("bin_dir: nowhere");
    assert_seen!(worded(shop.run(&["backup", "shop"])), @"
    exit 14
    err| error: source db: looking in nowhere: pg_dump of PostgreSQL N is needed and not installed
    err| hint: Install it (Debian, Ubuntu: apt-get install postgresql-client-N), or name its directory as bin_dir.
    ");

    let trees = &crate::trees();
    let oldest = tools::installed(Purpose::Dump, Some(trees)).into_iter().min_by_key(|tools| tools.major);
    let oldest = oldest.expect("`make setup` fetches PostgreSQL 14 to 18");
    assert!(oldest.major < shop.server.tools().major);
    let config = fs::read_to_string(shop.place.at("mainstay.yaml")).unwrap();
    std::os::unix::fs::symlink(&oldest.bin_dir, shop.place.at("old")).unwrap();
    shop.place.write("mainstay.yaml", &config.replace("bin_dir: nowhere", "bin_dir: old"));
    assert_seen!(worded(shop.run(&["backup", "shop"])), @"
    exit 14
    err| error: source db: looking in old: pg_dump of PostgreSQL N is needed and the newest one here is of version N
    err| hint: Install it (Debian, Ubuntu: apt-get install postgresql-client-N), or name its directory as bin_dir.
    ");
}

#[test]
fn a_table_that_stays_locked_is_named_with_who_holds_it() {
    let shop = Shop::new();
    shop.configure("lock_wait: 1s");
    let mut migration = shop.server.connect("shop").unwrap();
    migration.execute("SET application_name = 'migrate'; BEGIN; LOCK TABLE orders").unwrap();
    assert_seen!(worded(shop.run(&["backup", "shop", "--quiet"])), @"
    exit 11
    err| error: source db: table public.orders stays locked by process N (migrate, user postgres, idle in transaction)
    err| hint: Wait for that session to end, or end it with pg_terminate_backend; lock_wait says how long to wait.
    ");
    migration.execute("ROLLBACK").unwrap();
    assert_eq!(shop.run(&["backup", "shop"]).code, 0, "afterwards all is well");
}

#[test]
fn tables_that_are_dropped_and_altered_during_a_backup_are_captured_as_they_are_then() {
    let shop = Shop::new();
    let mut migration = shop.server.connect("shop").unwrap();
    migration.execute("BEGIN; DROP TABLE orders; ALTER TABLE customers ADD note text DEFAULT 'x'").unwrap();
    let mut observer = shop.server.connect("postgres").unwrap();
    let ran = std::thread::scope(|scope| {
        let backup = scope.spawn(|| shop.run(&["backup", "shop", "--quiet"]));
        let waiting =
            "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = 'shop' AND wait_event_type = 'Lock'";
        let deadline = Instant::now() + Duration::from_secs(60);
        while observer.query_text(waiting).unwrap().as_deref() != Some("t") {
            assert!(Instant::now() < deadline, "the backup does not wait for the migration");
        }
        migration.execute("COMMIT").unwrap();
        backup.join().unwrap()
    });
    assert_eq!(ran.code, 0, "{}", ran.all());
    assert_seen!(shop.run(&["ls", "shop"]), @"
    exit 0
    out| TABLE  ROWS  SIZE
    out| public.customers  100 <size>
    ");
    let ran = shop.run(&["restore", "shop", "--to-database", "back", "--yes", "--quiet"]);
    assert!(ran.code == 0 && ran.stdout.contains("Equal to what was captured"), "{}", ran.all());
    assert_eq!(shop.count("back", "customers WHERE note = 'x'"), "100");
}

/// A PgBouncer in front of a server; ended when dropped.
struct Bouncer {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Bouncer {
    fn start(server: &Sandbox, mode: &str) -> Bouncer {
        let folder = tempfile::Builder::new().prefix("pgb").tempdir_in("/tmp").unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let text = format!(
            "[databases]\n* = user=postgres host={} port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = any\npool_mode = {mode}\n",
            server.socket_directory().display(),
            server.port()
        );
        let file = folder.path().join("pgbouncer.ini");
        fs::write(&file, text).unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let places = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"];
        let program = places.iter().map(Path::new).find(|path| path.exists());
        let mut command = Command::new(program.expect("`make setup` installs PgBouncer"));
        if rustix::process::geteuid().is_root() {
            command.arg("-u").arg("postgres");
        }
        let child = command.arg("-q").arg(&file).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let bouncer = Bouncer { child, port, _folder: folder };
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "PgBouncer does not listen");
        }
        bouncer
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_transaction_pooler_in_the_way_is_named() {
    let shop = Shop::new();
    let bouncer = Bouncer::start(&shop.server, "transaction");
    let url = format!("postgres://postgres@127.0.0.1:{}/shop?sslmode=disable", bouncer.port);
    assert_seen!(worded(shop.run_at(&url, &["backup", "shop"])), @"
    exit 14
    err| error: source db: postgres://postgres@127.0.0.1:PORT/shop is a connection pooler that shares server sessions between clients (transaction pooling); one consistent snapshot cannot be taken through it
    err| hint: Give the address of the server itself, or of a pool in session mode (with Supabase: port 5432 in place of 6543; with PgBouncer: pool_mode = session, or the server's own port).
    ");
}

/// An authority of our own, and a server with a certificate of it that lets nobody in without TLS.
fn over_tls() -> (Shop, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let openssl = |arguments: &str| {
        let mut command = Command::new("openssl");
        let output = command.args(arguments.split_whitespace()).current_dir(folder.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(&format!("req -x509 {key} -days 2 -subj /CN=authority -keyout ca.key -out ca.crt"));
    openssl(&format!("req -new {key} -subj /CN=db.test -keyout server.key -out server.csr"));
    fs::write(path("names"), "subjectAltName=DNS:db.test").unwrap();
    openssl(
        "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.crt",
    );
    if rustix::process::geteuid().is_root() {
        // The server runs as another user then.
        let passwd = fs::read_to_string("/etc/passwd").unwrap();
        let line =
            passwd.lines().find(|line| line.starts_with("postgres:")).expect("the package makes a user");
        let uid = line.split(':').nth(2).unwrap().parse().unwrap();
        std::os::unix::fs::chown(path("server.key"), Some(uid), None).unwrap();
    }
    fs::set_permissions(path("server.key"), fs::Permissions::from_mode(0o600)).unwrap();
    let hba = "local all all trust\nhostssl all all 127.0.0.1/32 trust\n".to_owned();
    let options = SandboxOptions { tcp: true, hba: Some(hba), ..Shop::options() }
        .setting("ssl", "on")
        .setting("ssl_cert_file", &path("server.crt"))
        .setting("ssl_key_file", &path("server.key"));
    (Shop::on(&options), folder)
}

#[test]
fn the_systems_authorities_are_good_enough_for_us_and_for_pg_dump_and_nobody_elses_are() {
    let (shop, authority) = over_tls();
    let port = shop.server.port();
    let url =
        |host: &str| format!("postgres://postgres@{host}:{port}/shop?hostaddr=127.0.0.1&sslrootcert=system");
    let ca = authority.path().join("ca.crt");
    let backup = |url: &str, system: &Path| {
        let system = system.to_str().unwrap();
        let variables = [("MAINSTAY_KEY", KEY), ("DATABASE_URL", url), ("SSL_CERT_FILE", system)];
        shop.place.run_with(&["backup", "shop", "--quiet"], &variables)
    };
    let ran = backup(&url("db.test"), &ca);
    assert_eq!(ran.code, 0, "{}", ran.all());
    let elsewhere = backup(&url("elsewhere.test"), &ca);
    assert!(elsewhere.code == 14 && elsewhere.stderr.contains("for another host"), "{}", elsewhere.all());
    let unknown = shop.run_at(&url("db.test"), &["backup", "shop", "--quiet"]);
    assert!(unknown.code == 14 && unknown.stderr.contains("is not one of the system's"), "{}", unknown.all());
    assert_seen!(worded(shop.run_at(&format!("{}&sslmode=require", url("db.test")), &["backup", "shop"])), @"
    exit 2
    err| error: source db: sslmode=require is too weak for sslrootcert=system
    err| hint: Use sslmode=verify-full, or leave sslmode out.
    ");
}
