//! A staging copy: masked before anybody can open it under its name.

use crate::{
    clusters::{Bank, newest},
    databases::Shop,
    started::{Stopped, bank, connect, free_port, start},
};
use std::{
    fs,
    os::unix::process::CommandExt,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

/// The application with a mask.
fn masked(shop: &Shop, mask: &str) {
    let text = fs::read_to_string(shop.place.at("mainstay.yaml")).unwrap();
    let text = text.split("    masks:").next().unwrap();
    shop.place.write("mainstay.yaml", &format!("{text}    masks: {{ staging: {{ {mask} }} }}\n"));
}

fn databases(shop: &Shop) -> String {
    let sql = "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database WHERE datname LIKE '%staging%' OR datname LIKE '%unmasked%'";
    shop.server.connect("postgres").unwrap().query_text(sql).unwrap().unwrap_or_default()
}

#[test]
fn a_staging_copy_has_nothing_of_what_is_masked_and_the_original_all_of_it() {
    let shop = Shop::new();
    shop.server
        .connect("shop")
        .unwrap()
        .execute(
            "CREATE TABLE people (id int PRIMARY KEY, mail varchar(30) UNIQUE, phone text, born date, note text, ref uuid);
             INSERT INTO people SELECT n, 'person' || n || '@real.example', '0' || n, '2000-01-01', 'secret ' || n, gen_random_uuid() FROM generate_series(1, 300) n;
             UPDATE people SET phone = NULL WHERE id = 7;
             CREATE TABLE seen (mail text); CREATE FUNCTION spy() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.seen VALUES (OLD.mail); RETURN NEW; END';
             CREATE TRIGGER spy BEFORE UPDATE ON people FOR EACH ROW EXECUTE FUNCTION spy();
             CREATE MATERIALIZED VIEW mails AS SELECT mail FROM people; CREATE MATERIALIZED VIEW first_mail AS SELECT min(mail) AS mail FROM mails",
        )
        .unwrap();
    assert_eq!(shop.run(&["backup", "shop"]).code, 0);
    masked(
        &shop,
        "public.people.mail: email, public.people.phone: hash, public.people.born: \"date_trunc('year', born)\", public.people.note: \"fixed:it's gone\", public.people.ref: hash, public.customers.name: hash",
    );
    let ran = shop.run(&["restore", "shop", "--to-database", "staging", "--mask", "staging", "--yes"]);
    assert!(
        ran.code == 0
            && ran.stdout.contains("masked: born, mail, note, phone, ref of public.people (300 rows)"),
        "{}",
        ran.all()
    );
    assert_eq!(databases(&shop), "staging");
    let mut copy = shop.server.connect("staging").unwrap();
    let mut ask = |sql: &str| copy.query_text(sql).unwrap().unwrap_or_default();
    assert_eq!(
        ask(
            "SELECT count(DISTINCT mail) || ' ' || count(*) FILTER (WHERE mail LIKE '%@example.invalid') FROM people"
        ),
        "300 300"
    );
    assert_eq!(
        ask(
            "SELECT count(*) || ' ' || count(phone) || ' ' || min(note) FROM people WHERE length(phone) = 64 OR id = 7"
        ),
        "300 299 it's gone"
    );
    assert_eq!(ask("SELECT count(*) FROM seen"), "0", "triggers saw nothing");
    assert_eq!(ask("SELECT count(*) FROM first_mail WHERE mail LIKE '%example.invalid'"), "1");
    // Nor is it in old row versions, or in what the planner knows.
    assert_eq!(
        ask(
            "SELECT count(*) FROM pg_stats WHERE (most_common_vals::text || histogram_bounds::text) LIKE '%real.example%'"
        ),
        "0"
    );
    let file = ask("CHECKPOINT; SELECT pg_relation_filepath('people')");
    let bytes = fs::read(shop.server.data_directory().join(file)).unwrap();
    assert!(!bytes.windows(12).any(|window| window == b"real.example"), "the table's file");
    let real = shop
        .server
        .connect("shop")
        .unwrap()
        .query_text("SELECT count(*) FROM people WHERE mail LIKE '%real.example'")
        .unwrap();
    assert_eq!(real.as_deref(), Some("300"));
}

#[test]
fn a_copy_that_cannot_be_masked_is_no_copy() {
    let shop = Shop::new();
    assert_eq!(shop.run(&["backup", "shop"]).code, 0);
    let restore = || shop.run(&["restore", "shop", "--to-database", "staging", "--mask", "staging", "--yes"]);
    for (mask, code, says) in [
        (
            "public.customers.email: hash",
            13,
            "column public.customers.email of the mask is not in this recovery point",
        ),
        ("public.customers.name: \"null\"", 13, "public.customers.name may not be null"),
        ("public.orders.total: hash", 13, "is numeric, of which there is no hash"),
        ("public.orders.customer: \"customer + 1\"", 13, "is part of the foreign key orders_customer_fkey"),
        ("public.customers.name: \"no_such_function(name)\"", 1, "masking public.customers"),
        ("customers.name: hash", 2, "names no column"),
    ] {
        masked(&shop, mask);
        let ran = restore();
        assert!(ran.code == code && ran.stderr.contains(says), "{mask}\n{}", ran.all());
        assert_eq!(databases(&shop), "", "{mask}");
    }
    let ran = shop.run(&["restore", "shop", "--to-database", "staging", "--mask", "nobody"]);
    assert!(ran.code == 2, "{}", ran.all());
}

/// A cluster with people in two of its databases, and a mask.
fn people() -> Bank {
    let bank = bank(newest());
    bank.sql("CREATE DATABASE other");
    for database in ["postgres", "other"] {
        let mut session = bank.server.connect(database).unwrap();
        session.execute("CREATE TABLE people (id int PRIMARY KEY, mail text)").unwrap();
        session.execute("INSERT INTO people SELECT n, 'person' || n || '@real.example' FROM generate_series(1, 300) n").unwrap();
    }
    bank.done(&["backup", "bank"]);
    bank.sql("INSERT INTO people VALUES (301, 'late@real.example')");
    bank.archive_all();
    bank
}

fn mask_of(bank: &Bank, mask: &str) {
    let text = fs::read_to_string(bank.place.at("mainstay.yaml")).unwrap();
    let text = text
        .split(" masks:")
        .next()
        .unwrap()
        .replace("bank: { repository: main,", "bank: { repository: main, masks: { staging: { MASK } },");
    fs::write(bank.place.at("mainstay.yaml"), text.replace("MASK", mask)).unwrap();
}

/// Whether any file below a folder holds these bytes.
fn holds(folder: &Path, what: &[u8]) -> bool {
    fs::read_dir(folder).unwrap().flatten().any(|entry| match entry.file_type().unwrap().is_dir() {
        true => holds(&entry.path(), what),
        false => {
            fs::read(entry.path()).is_ok_and(|bytes| bytes.windows(what.len()).any(|window| window == what))
        }
    })
}

#[test]
fn a_whole_server_is_masked_in_every_database_before_anybody_can_connect() {
    let bank = people();
    mask_of(&bank, "public.people.mail: email");
    let (to, port) = (bank.place.at("staging"), free_port());
    let _stopped = Stopped(&bank, to.clone());
    let ran = start(&bank, &to, port, &["--at", "latest", "--mask", "staging"]);
    assert!(ran.code == 0, "{}", ran.all());
    assert!(ran.stdout.contains("masked: mail of public.people in other (300 rows)"), "{}", ran.all());
    assert!(ran.stdout.contains("masked: mail of public.people in postgres (301 rows)"), "{}", ran.all());
    let real = connect(port)
        .query_text(
            "SELECT count(*) || ' ' || count(*) FILTER (WHERE mail LIKE '%@example.invalid') FROM people",
        )
        .unwrap();
    assert_eq!(real.as_deref(), Some("301 301"));
    // Nor in the files: old rows, and the log that brought them.
    connect(port).execute("CHECKPOINT").unwrap();
    assert!(!holds(&to, b"@real.example"));
}

#[test]
fn a_server_that_cannot_be_masked_is_never_opened() {
    let bank = people();
    for (mask, code, says) in [
        ("public.people.mail: \"no_such_function(mail)\"", 1, "masking public.people"),
        (
            "public.people.mail: email, public.persons.mail: email",
            13,
            "tables that are not there: public.persons",
        ),
    ] {
        let text = fs::read_to_string(bank.place.at("mainstay.yaml")).unwrap();
        mask_of(&bank, mask);
        let (to, port) = (bank.place.at("staging"), free_port());
        let _stopped = Stopped(&bank, to.clone());
        let ran = start(&bank, &to, port, &["--at", "latest", "--mask", "staging"]);
        assert!(ran.code == code && ran.stderr.contains(says), "{mask}\n{}", ran.all());
        assert!(ran.stderr.contains("is not masked, and no server runs on it"), "{}", ran.all());
        assert!(!to.join("postmaster.pid").exists() && !to.join("global/pg_control").exists(), "{mask}");
        fs::remove_dir_all(&to).unwrap();
        fs::write(bank.place.at("mainstay.yaml"), text).unwrap();
    }
    mask_of(&bank, "public.people.mail: email");
    let to = bank.place.at("staging");
    let ran = bank.run(&[
        "restore",
        "bank",
        "--source",
        "db",
        "--to-dir",
        to.to_str().unwrap(),
        "--at",
        "latest",
        "--mask",
        "staging",
    ]);
    assert!(ran.code == 2 && ran.stderr.contains("--start --port"), "{}", ran.all());
    let ran = start(&bank, &to, free_port(), &["--immediate", "--action", "pause", "--mask", "staging"]);
    assert!(ran.code == 2 && !to.exists(), "{}", ran.all());
}

/// Begins a masked copy whose masking does not come to an end, and returns when it is in the midst of it.
fn stuck_in_masking(bank: &Bank, to: &Path, port: u16) -> std::process::Child {
    let sign = bank.place.at("masking");
    let mut session = bank.server.connect("other").unwrap();
    session.query("SELECT lo_from_bytea(4242, 'x')").unwrap();
    bank.archive_all();
    let expression = format!("lo_export(4242, '{}')::text || pg_sleep(10000)::text", sign.display());
    mask_of(bank, &format!("public.people.mail: \"{expression}\""));
    let port = port.to_string();
    let arguments =
        ["restore", "bank", "--source", "db", "--to-dir", to.to_str().unwrap(), "--start", "--port", &port];
    let mut command = bank.command(&[&arguments[..], &["--at", "latest", "--mask", "staging"]].concat());
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !sign.exists() {
        if child.try_wait().unwrap().is_some() {
            panic!("it does not mask\n{}", bank.place.ran(child.wait_with_output().unwrap()).all());
        }
        assert!(Instant::now() < deadline, "it does not mask");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    child
}

#[test]
fn masking_that_is_stopped_leaves_nothing_that_can_be_started() {
    let bank = people();
    let (to, port) = (bank.place.at("staging"), free_port());
    let _stopped = Stopped(&bank, to.clone());
    let child = stuck_in_masking(&bank, &to, port);
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let ran = bank.place.ran(child.wait_with_output().unwrap());
    assert_eq!(ran.code, 130, "{}", ran.all());
    assert!(ran.stderr.contains("is not masked, and no server runs on it"), "{}", ran.all());
    assert!(!to.join("postmaster.pid").exists() && !to.join("global/pg_control").exists());
}

#[test]
fn masking_that_is_killed_leaves_a_directory_that_no_server_starts_on() {
    let bank = people();
    let (to, port) = (bank.place.at("staging"), free_port());
    let mut child = stuck_in_masking(&bank, &to, port);
    child.kill().unwrap();
    child.wait().unwrap();
    drop(Stopped(&bank, to.clone())); // the server that was its own
    assert!(!to.join("postmaster.pid").exists() && to.join("global/pg_control").exists());

    let log = bank.place.at("start.log");
    let mut command = Command::new(bank.tools.program("pg_ctl"));
    command.arg("-D").arg(&to).arg("-l").arg(&log).args(["-w", "-o", &format!("-p {port}"), "start"]);
    if rustix::process::geteuid().is_root() {
        let (uid, gid) = bank.owner();
        command.uid(uid).gid(gid);
    }
    let _stopped = Stopped(&bank, to.clone());
    let started = command.stdout(std::process::Stdio::null()).current_dir("/").status().unwrap();
    let said = fs::read_to_string(&log).unwrap();
    assert!(!started.success() && said.contains("this copy was not masked to the end; remove it"), "{said}");
}

#[test]
fn a_table_that_is_taken_back_is_masked_before_it_leaves_the_recovered_cluster() {
    let bank = people();
    mask_of(&bank, "public.people.mail: email");
    let back = [
        "restore",
        "bank",
        "--source",
        "db",
        "--at",
        "latest",
        "--to-database",
        "postgres",
        "--to-schema",
        "seen",
        "--yes",
        "--mask",
        "staging",
    ];
    let ran = bank.run(&[&back[..], &["--table", "people"]].concat());
    assert!(
        ran.code == 0 && ran.stdout.contains("masked: mail of public.people (301 rows)"),
        "{}",
        ran.all()
    );
    assert_eq!(bank.sql("SELECT count(*) FROM seen.people WHERE mail LIKE '%@example.invalid'"), "301");
    assert_eq!(bank.sql("SELECT count(*) FROM people WHERE mail LIKE '%@real.example'"), "301");
    let ran = bank.run(&[&back[..], &["--table", "ledger"]].concat());
    assert!(ran.code == 13 && ran.stderr.contains("names none of the tables"), "{}", ran.all());
}
