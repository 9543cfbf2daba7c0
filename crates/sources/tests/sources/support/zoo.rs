//! The zoo: a database with every kind of object and value, loaded by `psql` from `zoo/*.sql`.

use mainstay_sources::postgres::sandbox::Sandbox;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Files for any owner of a database.
const PLAIN: [&str; 12] = [
    "names.sql",
    "columns.sql",
    "values.sql",
    "types.sql",
    "partitions.sql",
    "constraints.sql",
    "privileges.sql",
    "views.sql",
    "triggers.sql",
    "functions.sql",
    "large_objects.sql",
    "publications.sql",
];

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/sources/zoo")
}

/// Runs one of the zoo's files in a database.
pub fn run_file(sandbox: &Sandbox, database: &str, user: &str, file: &str) {
    let program = sandbox.tools().program("psql");
    let output = Command::new(program)
        .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", "-v"])
        .arg(format!("zoo={database}"))
        .arg("-f")
        .arg(directory().join(file))
        .env("PGHOST", sandbox.socket_directory())
        .env("PGPORT", sandbox.port().to_string())
        .env("PGUSER", user)
        .env("PGDATABASE", database)
        .env("PGOPTIONS", "-c client_min_messages=warning")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{file}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Makes the test extension known to the server; false if its directory may not be written.
fn install_extension(sandbox: &Sandbox) -> bool {
    let output = Command::new(sandbox.tools().program("pg_config")).arg("--sharedir").output();
    let bin = &sandbox.tools().bin_dir;
    let said = output.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default();
    let places = [PathBuf::from(said), bin.join("../share"), bin.join("../share/postgresql")];
    let Some(share) = places.iter().map(|p| p.join("extension")).find(|p| p.join("plpgsql.control").exists())
    else {
        return false;
    };
    let mut files = fs::read_dir(directory().join("extension")).unwrap();
    files.all(|file| {
        let file = file.unwrap().path();
        let to = share.join(file.file_name().unwrap());
        let (wanted, there) = (fs::read(&file).unwrap(), fs::read(&to).ok());
        there.as_deref() == Some(&wanted[..]) || put(&to, &wanted)
    })
}

/// Writes a file at once: another test may read it now.
fn put(to: &Path, bytes: &[u8]) -> bool {
    let temporary = to.with_extension(format!("new{}", std::process::id()));
    fs::write(&temporary, bytes).and_then(|()| fs::rename(&temporary, to)).is_ok()
}

/// A zoo of its own for a superuser.
pub fn load(sandbox: &Sandbox, database: &str) {
    roles(sandbox);
    sandbox.connect("postgres").unwrap().execute(&format!("CREATE DATABASE {database}")).unwrap();
    let major = sandbox.tools().major;
    for file in PLAIN {
        run_file(sandbox, database, "postgres", file);
    }
    since(major).for_each(|file| run_file(sandbox, database, "postgres", &file));
    run_file(sandbox, database, "postgres", "superuser/objects.sql");
    assert!(
        install_extension(sandbox),
        "the extension directory of PostgreSQL {major} may not be written: use the servers of the set-up script"
    );
    run_file(sandbox, database, "postgres", "superuser/extension.sql");
    run_file(sandbox, database, "postgres", "superuser/database.sql");
    if major >= 15 {
        run_file(sandbox, database, "postgres", "superuser/since_15.sql");
    }
    run_file(sandbox, database, "postgres", "superuser/last.sql");
}

/// The part of the zoo that a plain owner can make, in a database of theirs.
pub fn load_plain(sandbox: &Sandbox, database: &str) {
    roles(sandbox);
    let mut admin = sandbox.connect("postgres").unwrap();
    admin.execute(&format!("CREATE DATABASE {database} OWNER zoo_owner")).unwrap();
    for file in PLAIN {
        run_file(sandbox, database, "zoo_owner", file);
    }
    since(sandbox.tools().major).for_each(|file| run_file(sandbox, database, "zoo_owner", &file));
}

pub fn roles(sandbox: &Sandbox) {
    run_file(sandbox, "postgres", "postgres", "roles.sql");
}

fn since(major: u32) -> impl Iterator<Item = String> {
    (15..=major.min(18)).map(|n| format!("since_{n}.sql"))
}

/// What `pg_dump` says of a database, object by object, rows in order of their text, without what differs from run to run.
pub fn dump(sandbox: &Sandbox, database: &str, user: &str) -> String {
    let output = Command::new(sandbox.tools().program("pg_dump"))
        .args(["--no-password", "--dbname", database, "--username", user])
        .env("PGHOST", sandbox.socket_directory())
        .env("PGPORT", sandbox.port().to_string())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // Rows by their COPY: two partitions may be loaded through the same root.
    let mut rows: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut lines = Vec::new();
    let mut copying: Option<&str> = None;
    for line in text.lines() {
        match copying {
            Some(_) if line == "\\." => copying = None,
            Some(copy) => rows.entry(copy).or_default().push(line),
            None if line.starts_with("\\restrict ") || line.starts_with("\\unrestrict ") => {}
            None => {
                if line.starts_with("COPY ") && line.ends_with(" FROM stdin;") {
                    copying = Some(line);
                }
                lines.push(line);
            }
        }
    }
    // Each object is an entry under its own heading; their order follows the OIDs where nothing else decides.
    let mut entries: Vec<Vec<&str>> = vec![Vec::new()];
    for (n, line) in lines.iter().enumerate() {
        let heading = lines
            .get(n + 1)
            .is_some_and(|l| l.starts_with("-- Name: ") || l.starts_with("-- Data for Name: "));
        if *line == "--" && heading {
            entries.push(Vec::new());
        }
        entries.last_mut().unwrap().push(line);
    }
    entries.sort();
    for (copy, mut rows) in rows {
        rows.sort_unstable();
        rows.insert(0, copy);
        entries.push(rows);
    }
    entries.concat().join("\n")
}

/// Asserts that two dumps are equal, and shows where they first differ.
pub fn assert_same_dump(a: &str, b: &str) {
    let at = a.lines().zip(b.lines()).position(|(a, b)| a != b);
    let around = |text: &str, at: usize| {
        let lines: Vec<&str> = text.lines().skip(at.saturating_sub(12)).take(24).collect();
        lines.join("\n")
    };
    if let Some(at) = at {
        panic!("the dumps differ in line {at}:\n{}\n=== and ===\n{}", around(a, at), around(b, at));
    }
    assert_eq!(a.lines().count(), b.lines().count());
}
