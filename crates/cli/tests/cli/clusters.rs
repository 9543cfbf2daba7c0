//! A whole server on the command line: base backups, its log, and the way back to a moment.

use crate::{KEY, Place, Ran};
use mainstay_sources::postgres::{
    sandbox::{Sandbox, SandboxOptions},
    tools::{self, Purpose, Tools},
};
use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// A server that archives into a repository, and a ledger in it. All of it belongs to the user that runs the server.
pub(crate) struct Bank {
    pub place: Place,
    pub server: Sandbox,
    pub tools: Tools,
    /// Its `archive_command`.
    pub push: String,
}

pub(crate) fn newest() -> Tools {
    let installed = tools::installed(Purpose::Server, None);
    installed.into_iter().max_by_key(|tools| tools.major).expect("`make setup` installs PostgreSQL")
}

impl Bank {
    pub fn new(tools: Tools) -> Bank {
        Bank::with(tools, &[])
    }

    /// The same with further arguments of `initdb`.
    pub fn with(tools: Tools, initdb: &[&str]) -> Bank {
        Bank::with_settings(tools, initdb, &[])
    }

    /// The same with further settings, which win over these.
    pub fn with_settings(tools: Tools, initdb: &[&str], settings: &[(&str, &str)]) -> Bank {
        let place = Place::new();
        let config = place.at("mainstay.yaml");
        let push = format!(
            "env MAINSTAY_KEY={KEY} HOME={} {} --config {} --quiet wal push %p",
            place.path().display(),
            place.program().display(),
            config.display()
        );
        let options = SandboxOptions::new(tools.clone())
            .setting("archive_mode", "on")
            .setting("archive_command", &push)
            .setting("full_page_writes", "on")
            .setting("wal_level", "replica");
        let options = initdb.iter().fold(options, |options, argument| options.initdb(argument));
        let options = settings.iter().fold(options, |options, (name, value)| options.setting(name, value));
        let server = Sandbox::start(&options).unwrap();
        place.write(
            "mainstay.yaml",
            &format!(
                "version: 1
stores: {{ local: {{ url: \"file://{}/store\" }} }}
repositories: {{ main: {{ key: {{ env: MAINSTAY_KEY }}, stores: [local] }} }}
apps: {{ bank: {{ repository: main, sources: {{ db: {{ cluster: {{ url: \"postgres://postgres@/postgres?host={}&port={}\" }} }} }} }} }}
",
                place.path().display(),
                server.socket_directory().display(),
                server.port()
            ),
        );
        let bank = Bank { place, server, tools, push };
        for path in [bank.place.path(), &config] {
            let (uid, gid) = bank.owner();
            chown(path, Some(uid), Some(gid)).unwrap();
        }
        let created = "CREATE TABLE ledger (id int PRIMARY KEY, note text)";
        bank.server.connect("postgres").unwrap().execute(created).unwrap();
        assert_eq!(bank.run(&["init"]).code, 0);
        bank
    }

    pub fn owner(&self) -> (u32, u32) {
        let found = fs::metadata(self.server.data_directory()).unwrap();
        (found.uid(), found.gid())
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        let output = self.command(arguments).output().unwrap();
        self.place.ran(output)
    }

    /// The binary, as the user that runs the server.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.place.program());
        command
            .args(arguments)
            .current_dir(self.place.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.place.path())
            .env("MAINSTAY_KEY", KEY)
            .env("MAINSTAY_PG_TREES", crate::trees())
            .env("TZ", "UTC");
        if rustix::process::geteuid().is_root() {
            let (uid, gid) = self.owner();
            command.uid(uid).gid(gid);
        }
        command
    }

    pub fn done(&self, arguments: &[&str]) -> Ran {
        let ran = self.run(arguments);
        assert_eq!(ran.code, 0, "{arguments:?}\n{}", ran.all());
        ran
    }

    pub fn sql(&self, sql: &str) -> String {
        self.server.connect("postgres").unwrap().query_text(sql).unwrap().unwrap_or_default()
    }

    /// Makes the server archive what it has, and waits until it did.
    pub fn archive_all(&self) {
        archive_all(&self.server);
    }

    /// A server that is started on what a restore with these arguments brings. PostgreSQL's own programs look through it: each file before
    /// the start, and every table and index when it is where it was sent.
    pub fn restored(&self, arguments: &[&str]) -> Sandbox {
        let server = Sandbox::start_on(&SandboxOptions::new(self.tools.clone()), &|data: &Path| {
            // The sandbox's own folder is private to its server's user, which is who restores.
            let to = data.to_str().unwrap();
            let ran = self.run(
                &[&["restore", "bank", "--source", "db", "--to-dir", to, "--manifest"], arguments].concat(),
            );
            assert_eq!(ran.code, 0, "{arguments:?}\n{}", ran.all());
            self.checked("pg_verifybackup", &[to]);
            Ok(())
        })
        .unwrap();
        out_of_recovery(&server);
        let (sockets, port) = (server.socket_directory().display().to_string(), server.port().to_string());
        let connection = ["-h", &sockets, "-p", &port, "-U", "postgres"];
        self.checked("pg_amcheck", &[&connection[..], &["--all", "--install-missing"]].concat());
        server
    }

    /// A program of the server's version that finds nothing wrong.
    pub fn checked(&self, program: &str, arguments: &[&str]) {
        let mut command = Command::new(self.tools.program(program));
        command.args(arguments).current_dir("/");
        if rustix::process::geteuid().is_root() {
            let (uid, gid) = self.owner();
            command.uid(uid).gid(gid);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{program} {arguments:?}\n{output:?}");
    }

    /// Restarts the server. It must be stopped by whoever asked for that: it is not the sandbox's child any more.
    pub fn restart(&self) -> Restarted<'_> {
        self.pg_ctl("restart");
        Restarted(self)
    }

    /// Stops the server; its directory stays.
    pub fn stop(&self) {
        self.pg_ctl("stop");
    }

    /// Starts a server where it was, on what lies in the directory by now. It archives nothing.
    pub fn start_again(&self) -> Restarted<'_> {
        self.start_again_with("-c archive_mode=off")
    }

    /// The same with these settings.
    pub fn start_again_with(&self, settings: &str) -> Restarted<'_> {
        let (sockets, port) = (self.server.socket_directory().display().to_string(), self.server.port());
        self.pg_ctl_with(
            "start",
            &["-o", &format!("-p {port} -k {sockets} -c listen_addresses='' {settings}")],
        );
        Restarted(self)
    }

    fn pg_ctl(&self, action: &str) {
        self.pg_ctl_with(action, &[]);
    }

    fn pg_ctl_with(&self, action: &str, more: &[&str]) {
        let mut command = Command::new(self.tools.program("pg_ctl"));
        command.arg("-D").arg(self.server.data_directory()).args(["-m", "fast", "-w", "-l", "/dev/null"]);
        command.args(more).arg(action);
        if rustix::process::geteuid().is_root() {
            let (uid, gid) = self.owner();
            command.uid(uid).gid(gid);
        }
        // Not a pipe of ours, which the server would hold open.
        command.stdout(std::process::Stdio::null()).current_dir("/");
        assert!(command.status().unwrap().success(), "pg_ctl {action}");
    }

    /// Gives a file to the user that runs the server.
    pub fn give(&self, path: &Path) {
        let (uid, gid) = self.owner();
        chown(path, Some(uid), Some(gid)).unwrap();
    }

    pub fn segment(&self, name: &str) -> PathBuf {
        self.server.data_directory().join("pg_wal").join(name)
    }
}

/// A server that runs until this is dropped.
pub(crate) struct Restarted<'b>(&'b Bank);

impl Drop for Restarted<'_> {
    fn drop(&mut self) {
        self.0.pg_ctl("stop");
    }
}

/// Makes a server archive what it has, and waits until it did.
pub(crate) fn archive_all(server: &Sandbox) {
    let mut session = server.connect("postgres").unwrap();
    let last = session.query_text("SELECT pg_walfile_name(pg_switch_wal())").unwrap().unwrap();
    until(
        server,
        &format!("SELECT coalesce(last_archived_wal, '') COLLATE \"C\" >= '{last}' FROM pg_stat_archiver"),
    );
}

/// Waits: a server answers as soon as it is consistent; it is where it was sent when it is no longer in recovery.
pub(crate) fn out_of_recovery(server: &Sandbox) {
    until(server, "SELECT NOT pg_is_in_recovery()");
}

/// Waits for what a query says.
pub(crate) fn until(server: &Sandbox, sql: &str) {
    let mut session = server.connect("postgres").unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while session.query_text(sql).unwrap().as_deref() != Some("t") {
        assert!(Instant::now() < deadline, "it does not come true: {sql}\n{}", server.log_tail());
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

pub(crate) fn ids(server: &Sandbox) -> String {
    let sql = "SELECT count(*) || ' ' || coalesce(max(id), 0) FROM ledger";
    server.connect("postgres").unwrap().query_text(sql).unwrap().unwrap()
}

#[test]
fn every_moment_between_base_backups_can_be_returned_to() {
    let bank = Bank::new(newest());
    let mut moments = Vec::new();
    let mut session = bank.server.connect("postgres").unwrap();
    let mut write = |from: i32, to: i32, moments: &mut Vec<(i32, String)>| {
        for id in from..=to {
            session.execute(&format!("INSERT INTO ledger VALUES ({id}, repeat('x', 1000))")).unwrap();
            if id % 97 == 0 {
                moments.push((id, session.query_text("SELECT clock_timestamp()").unwrap().unwrap()));
            }
        }
    };
    write(1, 200, &mut moments);
    bank.done(&["backup", "bank"]);
    let before = moments.len();
    write(201, 700, &mut moments);
    bank.done(&["backup", "bank"]);
    write(701, 1000, &mut moments);
    session.execute("DELETE FROM ledger").unwrap();
    bank.archive_all();

    for (id, moment) in moments.iter().skip(before).step_by(2) {
        let server = bank.restored(&["--at", moment]);
        assert_eq!(ids(&server), format!("{id} {id}"), "at {moment}");
    }
    assert_eq!(ids(&bank.restored(&["--at", "latest"])), "0 0");
    // A base backup by itself, without the archive.
    assert_eq!(ids(&bank.restored(&["--immediate"])), "700 700");
}

#[test]
fn positions_transactions_and_names_are_targets_too() {
    /// The server's configuration files read both signs otherwise than SQL.
    const NAME: &str = r"before O'Brien\s mistake";
    let bank = Bank::new(newest());
    bank.done(&["backup", "bank"]);
    let mut session = bank.server.connect("postgres").unwrap();
    session.execute("INSERT INTO ledger VALUES (1)").unwrap();
    session.execute("BEGIN; INSERT INTO ledger VALUES (2)").unwrap();
    let xid = session.query_text("SELECT pg_current_xact_id()").unwrap().unwrap();
    session.execute("COMMIT").unwrap();
    let now = "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US')";
    let after_two = session.query_text(now).unwrap().unwrap();
    session.execute("INSERT INTO ledger VALUES (3)").unwrap();
    let lsn = session.query_text("SELECT pg_current_wal_insert_lsn()").unwrap().unwrap();
    session.execute("INSERT INTO ledger VALUES (4)").unwrap();
    session.query("SELECT pg_create_restore_point('before O''Brien\\s mistake')").unwrap();
    let after_four = session.query_text(now).unwrap().unwrap();
    session.execute("DELETE FROM ledger").unwrap();
    bank.archive_all();

    assert_eq!(ids(&bank.restored(&["--xid", &xid])), "2 2");
    assert_eq!(ids(&bank.restored(&["--lsn", &lsn])), "3 3");
    assert_eq!(ids(&bank.restored(&["--name", NAME])), "4 4");

    // The plan names the target, and the transactions on both sides of it.
    let planned = |target: &[&str]| {
        let restore = ["restore", "bank", "--source", "db", "--to-dir", "never", "--dry-run"];
        bank.run(&[&restore[..], target].concat())
    };
    for (target, between, headline) in [
        (["--xid", xid.as_str()], &after_two, format!("to the end of transaction {xid} (point")),
        (["--name", NAME], &after_four, format!("to the restore point {NAME} (point")),
    ] {
        let shown = planned(&target);
        assert!(shown.code == 0 && shown.stdout.contains(&headline), "{}", shown.all());
        let lines = planned(&[&target[..], &["--json"]].concat()).stdout;
        let plan = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let plan = plan.into_iter().find(|line| line["type"] == "plan").unwrap();
        let (kept, undone) = (plan["last_kept"].as_str().unwrap(), plan["first_undone"].as_str().unwrap());
        assert!(kept <= between.as_str() && between.as_str() < undone, "{between} in {plan}");
    }
    let both = planned(&["--name", NAME, "--point", "latest-complete"]);
    assert!(both.code == 2 && both.stderr.contains("each says where to restore to"), "{}", both.all());
}

#[test]
fn what_is_out_of_reach_is_refused_with_what_can_be_reached() {
    let bank = Bank::new(newest());
    bank.done(&["backup", "bank"]);
    bank.sql("INSERT INTO ledger VALUES (1)");
    bank.archive_all();
    let to = ["--to-dir", "never"];
    for (target, says) in [
        (["--at", "2090-01-01 00:00:00Z"], "cannot be reached on timeline 1"),
        (["--at", "2001-01-01 00:00:00Z"], "no base backup of db ended before that"),
        (["--lsn", "FFFF/0"], "cannot be reached on timeline 1"),
        (["--name", "nobody made it"], "the restore point \"nobody made it\" cannot be reached"),
        (["--xid", "4000000000"], "cannot be reached"),
    ] {
        let ran = bank.run(&[&["restore", "bank", "--source", "db"], &to[..], &target[..]].concat());
        assert!(ran.code == 14 && ran.stderr.contains(says), "{target:?}\n{}", ran.all());
        assert!(!bank.place.at("never").exists());
    }
    let ran = bank.run(&["restore", "bank", "--source", "db", "--to-dir", "never", "--at", "half past two"]);
    assert!(ran.code == 2 && ran.stderr.contains("is no time"), "{}", ran.all());

    // A gap ends the window, and is said.
    for id in 2..5 {
        bank.sql(&format!("INSERT INTO ledger VALUES ({id})"));
        bank.archive_all();
    }
    let archived = archived(&bank);
    let middle = &archived[archived.len() - 2];
    fs::remove_file(middle).unwrap();
    let ran =
        bank.run(&["restore", "bank", "--source", "db", "--to-dir", "never", "--at", "2090-01-01 00:00:00Z"]);
    let name = middle.file_name().unwrap().to_str().unwrap();
    assert!(ran.stderr.contains(&format!("The archive has a gap: {name} is missing")), "{}", ran.all());
    let status = bank.done(&["wal", "status"]);
    assert!(status.stdout.contains(&format!("timeline 1 has a gap of 1: {name}")), "{}", status.all());
}

/// The segments in the archive, in order.
pub(crate) fn archived(bank: &Bank) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![bank.place.at("store/wal")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.retain(|path| path.file_name().is_some_and(|name| name.len() == 24));
    found.sort_by_key(|path| path.file_name().unwrap().to_owned());
    found
}

#[test]
fn the_archive_takes_a_file_once_and_tells_absence_from_damage() {
    let bank = Bank::new(newest());
    bank.sql("INSERT INTO ledger VALUES (1)");
    let name = bank.sql("SELECT pg_walfile_name(pg_current_wal_lsn())");
    bank.archive_all();
    let path = bank.segment(&name);
    let path = path.to_str().unwrap();
    bank.done(&["wal", "push", path]);

    // Another content under the same name: from a copy of this machine, say.
    let copy = bank.place.at(&name);
    let mut bytes = fs::read(path).unwrap();
    bytes[100_000] ^= 1;
    fs::write(&copy, &bytes).unwrap();
    let ran = bank.run(&["wal", "push", copy.to_str().unwrap()]);
    assert!(ran.code == 13 && ran.stderr.contains("is in the archive already"), "{}", ran.all());
    // As the last segment of a timeline that was left twice: nobody reads it, and the archiver is not stuck.
    let partial = bank.place.at(&format!("{name}.partial"));
    fs::copy(path, &partial).unwrap();
    bank.give(&partial);
    bank.done(&["wal", "push", partial.to_str().unwrap()]);
    fs::write(&partial, &bytes).unwrap();
    let ran = bank.done(&["wal", "push", partial.to_str().unwrap()]);
    assert!(ran.stderr.contains("another .partial of that name is"), "{}", ran.all());
    // A segment that is not what its name says, and one that is too short.
    let other = bank.place.at("0000000100000000000000AA");
    fs::copy(path, &other).unwrap();
    let (uid, gid) = bank.owner();
    chown(&other, Some(uid), Some(gid)).unwrap();
    let ran = bank.run(&["wal", "push", other.to_str().unwrap()]);
    assert!(ran.code == 13 && ran.stderr.contains("it holds the WAL from"), "{}", ran.all());
    fs::write(&copy, &bytes[..1 << 20]).unwrap();
    let ran = bank.run(&["wal", "push", copy.to_str().unwrap()]);
    assert!(ran.code == 13 && ran.stderr.contains("has 1048576 bytes"), "{}", ran.all());

    let data = bank.server.data_directory();
    let target = data.join("pg_wal/FETCHED");
    let fetch = |name: &str| bank.run(&["wal", "fetch", name, target.to_str().unwrap()]);
    assert_eq!(fetch(&name).code, 0);
    assert_eq!(fs::read(&target).unwrap(), fs::read(path).unwrap());
    assert_eq!(fetch("0000000100000000000000EE").code, 1, "not there");
    assert_eq!(fetch("00000007.history").code, 1);

    let stored = archived(&bank).into_iter().find(|path| path.ends_with(&name)).unwrap();
    let mut damaged = fs::read(&stored).unwrap();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(&stored, damaged).unwrap();
    let ran = fetch(&name);
    assert!(ran.code == 126 && ran.stderr.contains("damaged"), "never the end of the log\n{}", ran.all());

    // PostgreSQL's own copy takes its place, when a person says so.
    let ran = bank.run(&["wal", "push", path]);
    assert!(ran.code == 4 && ran.stderr.contains("--replace-damaged"), "{}", ran.all());
    bank.done(&["wal", "push", "--replace-damaged", path]);
    assert_eq!(fetch(&name).code, 0);
}

#[test]
fn a_base_backup_is_proven_by_a_server_that_starts_on_it() {
    let bank = Bank::new(newest());
    bank.sql("INSERT INTO ledger SELECT n, 'note' FROM generate_series(1, 5000) n");
    bank.done(&["backup", "bank"]);
    let ran = bank.run(&["verify", "bank", "--level", "restore"]);
    assert!(ran.code == 0 && ran.stdout.contains("every table and index by pg_amcheck"), "{}", ran.all());

    let listed = bank.done(&["ls", "bank"]).stdout;
    assert!(listed.contains("PG_VERSION") && listed.contains("base"), "{listed}");

    // A later backup stores what changed, and is a whole one all the same.
    bank.sql("UPDATE ledger SET note = 'other' WHERE id = 77");
    bank.done(&["backup", "bank"]);
    bank.done(&["verify", "bank", "--level", "data"]);
    let server = bank.restored(&["--point", "latest"]);
    let note =
        server.connect("postgres").unwrap().query_text("SELECT note FROM ledger WHERE id = 77").unwrap();
    assert_eq!(note.as_deref(), Some("other"));
}

#[test]
fn one_table_is_taken_back_to_a_moment_and_its_lost_rows_into_the_living_one() {
    let bank = Bank::new(newest());
    let sql = |text: &str| bank.server.connect("postgres").unwrap().execute(text).unwrap();
    sql("CREATE TABLE accounts (id int PRIMARY KEY, owner text);
         CREATE TABLE bookings (id int PRIMARY KEY, account int REFERENCES accounts, cents int,
                                note json DEFAULT '[]');
         INSERT INTO accounts SELECT n, 'owner ' || n FROM generate_series(1, 10) n;
         INSERT INTO bookings SELECT n, 1 + n % 10, n FROM generate_series(1, 1000) n");
    bank.done(&["backup", "bank"]);
    sql("INSERT INTO bookings VALUES (1001, 1, 5)");
    let moment = bank.sql("SELECT clock_timestamp()");
    sql("DELETE FROM bookings WHERE id > 500");
    sql("DELETE FROM accounts WHERE id = 1 AND NOT EXISTS (SELECT FROM bookings WHERE account = 1)");
    sql("INSERT INTO bookings VALUES (2000, 2, 77); UPDATE bookings SET cents = -1 WHERE id = 1");
    bank.archive_all();

    let back = ["restore", "bank", "--source", "db", "--at", &moment, "--to-database", "postgres", "--yes"];
    let ran = bank.run(&[&back[..], &["--table", "bookings", "--to-table", "bookings_then"]].concat());
    assert!(ran.code == 0 && ran.stdout.contains("Equal to what was captured: 1001 rows"), "{}", ran.all());
    assert_eq!(bank.sql("SELECT count(*) FROM bookings_then"), "1001");
    assert_eq!(bank.sql("SELECT count(*) FROM bookings"), "501", "what lives is as it was");

    let ran = bank.run(
        &[&back[..], &["--table", "bookings", "--merge", "missing", "--where", "cents % 2 = 0"]].concat(),
    );
    assert!(ran.code == 0 && ran.stdout.contains("Put 250 rows back into public.bookings"), "{}", ran.all());
    assert_eq!(
        bank.sql("SELECT count(*) || ' ' || sum(cents) FILTER (WHERE id = 1) FROM bookings"),
        "751 -1"
    );

    let both = ["--table", "bookings", "--table", "accounts", "--merge", "upsert", "--to-schema", "then"];
    let ran = bank.run(&[&back[..], &both].concat());
    assert_eq!(ran.code, 0, "{}", ran.all());
    assert_eq!(
        bank.sql("SELECT count(*) || ' ' || sum(cents) FILTER (WHERE id = 1) FROM bookings"),
        "1002 1"
    );
    let ran = bank.run(&[&back[..], &["--table", "nobody", "--to-schema", "x"]].concat());
    assert!(ran.code == 2 && ran.stderr.contains("nobody"), "{}", ran.all());
}

#[test]
fn a_server_elsewhere_that_knows_what_changed_sends_only_that_and_the_point_says_so() {
    let trees = crate::trees();
    let mut found = tools::installed(Purpose::Server, None);
    found.extend(tools::installed(Purpose::Server, Some(&trees)));
    let tools = found.into_iter().filter(|tools| tools.major >= 17).min_by_key(|tools| tools.major).unwrap();
    let bank = Bank::with_settings(tools, &["--data-checksums"], &[("summarize_wal", "on")]);
    let text = fs::read_to_string(bank.place.at("mainstay.yaml")).unwrap();
    let text = text.replace("cluster: { ", "cluster: { method: replication, ");
    bank.give(&bank.place.write("mainstay.yaml", &text));
    bank.sql("INSERT INTO ledger SELECT n, repeat(md5(n::text), 4) FROM generate_series(1, 20000) n");
    bank.done(&["backup", "bank"]);
    let shown = bank.done(&["show", "bank"]).stdout;
    assert!(shown.contains("db: sent by the server as a whole; consistent from 0/"), "{shown}");

    for round in 0..3 {
        bank.sql(&format!("UPDATE ledger SET note = 'round {round}' WHERE id % 5000 = {round}"));
        bank.done(&["backup", "bank"]);
        let shown = bank.done(&["show", "bank"]).stdout;
        assert!(shown.contains("db: sent by the server: what changed since 0/"), "{shown}");
    }
    bank.done(&["verify", "bank", "--level", "restore"]);
    let restored = bank.restored(&[]);
    let counted = "SELECT string_agg(note || ' ' || n, ', ' ORDER BY note) FROM
        (SELECT note, count(*) n FROM ledger WHERE note LIKE 'round%' GROUP BY note) AS counted";
    let told = restored.connect("postgres").unwrap().query_text(counted).unwrap().unwrap();
    assert_eq!(told, "round 0 4, round 1 4, round 2 4");
    bank.sql("UPDATE ledger SET note = 'again' WHERE id = 3");
    bank.done(&["backup", "bank", "--full"]);
    let shown = bank.done(&["show", "bank"]).stdout;
    assert!(shown.contains("as a whole: everything was to be read again"), "{shown}");
}
