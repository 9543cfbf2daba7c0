//! The company: founded, at work, destroyed, and described by fingerprints that owe nothing to Mainstay.

use super::{
    remove_folder,
    services::{Cache, Settings},
    uploads,
};
use mainstay_domain::{Failure, Result};
use mainstay_sources::postgres::{
    sandbox::Sandbox,
    wire::{Connection, quote_literal},
};
use std::{
    collections::BTreeMap,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

const DATABASE: &str = "company";

pub struct Company {
    pub sandbox: Sandbox,
    pub cache: Option<Cache>,
    pub uploads: PathBuf,
    pub settings: Settings,
}

/// Rows and the sum of their hashes, for each table, and for the sequences and large objects.
pub type Tables = BTreeMap<String, (u64, String)>;

/// What was founded.
pub struct Made {
    pub tables: usize,
    pub rows: u64,
    pub files: uploads::Made,
}

/// What the company's data looks like from outside: two that are equal hold the same.
#[derive(Debug, PartialEq, Eq)]
pub struct Fingerprint {
    tables: Tables,
    /// Kind, mode, time, size, links and content, for each path; and whether the configuration is there.
    files: BTreeMap<PathBuf, u64>,
    configured: bool,
    /// What Redis holds.
    keys: BTreeMap<Vec<u8>, u64>,
}

impl Company {
    /// As an application would be given it.
    pub fn url(&self) -> String {
        let folder = self.sandbox.socket_directory().display();
        format!("postgres://postgres@/{DATABASE}?host={folder}&port={}", self.sandbox.port())
    }

    /// As a backup of the whole server is given it.
    pub fn server_url(&self) -> String {
        let folder = self.sandbox.socket_directory().display();
        format!("postgres://postgres@/postgres?host={folder}&port={}", self.sandbox.port())
    }

    pub fn version(&self) -> Result<String> {
        let mut connection = self.sandbox.connect("postgres")?;
        let version = connection.query_text("SHOW server_version")?.unwrap_or_default();
        Ok(format!("PostgreSQL {}", version.split(' ').next().unwrap_or_default()))
    }

    pub fn found(&self) -> Result<Made> {
        self.sandbox.connect("postgres")?.execute(&format!("CREATE DATABASE {DATABASE}"))?;
        self.sandbox.connect(DATABASE)?.execute(include_str!("company.sql"))?;
        fs::create_dir(&self.uploads)
            .and_then(|()| uploads::make(&self.uploads))
            .map_err(|error| Failure::failed("the company's files could not be made").caused_by(error))?;
        self.settings.make()?;
        let fingerprint = self.fingerprint()?;
        Ok(Made {
            tables: fingerprint.tables(),
            rows: fingerprint.rows(),
            files: uploads::count(&self.uploads).map_err(unreadable)?,
        })
    }

    /// A day's changes.
    pub fn work(&self) -> Result<()> {
        let mut connection = self.sandbox.connect(DATABASE)?;
        connection.execute(
            "UPDATE shop.orders SET status = 'paid' WHERE placed_at >= '2026-11-01' AND status = 'placed';
             INSERT INTO ops.incidents VALUES (201, 'high', '2026-11-20 03:12+00', NULL, 'Disk of the database server is failing');
             INSERT INTO clinic.prescriptions SELECT 15000 + i, i, 'Drug 7', '5 mg', '8 hours' FROM generate_series(1, 40) i",
        )?;
        let letter = self.uploads.join("letters/2026/11/letter-091.txt");
        fs::write(letter, "Please order a new disk for the database server.\n")
            .map_err(|error| Failure::failed("the letter could not be written").caused_by(error))
    }

    /// Has the server archive its log.
    pub fn archive_with(&self, command: &str) -> Result<()> {
        let mut connection = self.sandbox.connect("postgres")?;
        connection.execute(&format!("ALTER SYSTEM SET archive_command = {}", quote_literal(command)))?;
        connection.execute("SELECT pg_reload_conf()")?;
        Ok(())
    }

    /// The server's clock.
    pub fn now(&self) -> Result<String> {
        let asked = "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US+00')";
        Ok(self.sandbox.connect(DATABASE)?.query_text(asked)?.unwrap_or_default())
    }

    /// All prescriptions are deleted, and work goes on. Returns how many there were.
    pub fn mistake(&self) -> Result<u64> {
        let mut connection = self.sandbox.connect(DATABASE)?;
        let deleted = connection.execute("DELETE FROM clinic.prescriptions")?;
        connection.execute(
            "INSERT INTO ops.incidents VALUES (202, 'high', '2026-11-20 14:02+00', NULL, 'Prescriptions are empty')",
        )?;
        Ok(deleted)
    }

    /// Ends the current segment of the log, and waits until it is archived. A server that lives does so by itself
    /// (`archive_timeout`).
    pub fn archive_all(&self) -> Result<()> {
        let mut connection = self.sandbox.connect("postgres")?;
        let segment = connection.query_text("SELECT pg_walfile_name(pg_switch_wal())")?.unwrap_or_default();
        let archived = format!("SELECT last_archived_wal >= '{segment}' FROM pg_stat_archiver");
        await_true(&self.sandbox, &archived, "its WAL was archived")
    }

    /// Drops what was restored beside the living tables.
    pub fn forget_what_was_restored(&self) -> Result<()> {
        self.sandbox.connect(DATABASE)?.execute(
            "DO $$ DECLARE name text; BEGIN
               FOR name IN SELECT nspname FROM pg_namespace WHERE nspname LIKE 'mainstay\\_%' LOOP
                 EXECUTE format('DROP SCHEMA %I CASCADE', name);
               END LOOP;
             END $$",
        )?;
        Ok(())
    }

    pub fn destroy(&self) -> Result<()> {
        self.sandbox.connect("postgres")?.execute(&format!("DROP DATABASE {DATABASE} WITH (FORCE)"))?;
        if let Some(cache) = &self.cache {
            cache.lose()?;
        }
        self.settings.lose()?;
        remove_folder(&self.uploads)
    }

    pub fn tables(&self) -> Result<Tables> {
        tables(&mut self.sandbox.connect(DATABASE)?)
    }

    /// The company's tables on another server, once it has recovered.
    pub fn tables_of(&self, server: &Sandbox) -> Result<Tables> {
        await_true(server, "SELECT NOT pg_is_in_recovery()", "it had recovered")?;
        tables(&mut server.connect(DATABASE)?)
    }

    pub fn fingerprint(&self) -> Result<Fingerprint> {
        let mut files = BTreeMap::new();
        tree(&self.uploads, Path::new(""), &mut files).map_err(unreadable)?;
        Ok(Fingerprint {
            tables: self.tables()?,
            files,
            configured: Settings::are_in(&self.settings.0),
            keys: self.cache.as_ref().map(Cache::keys).transpose()?.unwrap_or_default(),
        })
    }
}

/// Asks a server until it says yes.
fn await_true(server: &Sandbox, question: &str, what: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut connection = server.connect("postgres")?;
    while connection.query_text(question)?.as_deref() != Some("t") {
        if Instant::now() > deadline {
            let text =
                format!("a minute went by before {what}. The server's log ends with:\n{}", server.log_tail());
            return Err(Failure::failed(text));
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn unreadable(error: io::Error) -> Failure {
    Failure::failed("the company's files could not be read").caused_by(error)
}

/// Rows and a hash of each table, whatever the order of its rows.
fn tables(connection: &mut Connection) -> Result<Tables> {
    connection.execute("SET TimeZone = 'UTC'; SET extra_float_digits = 3; SET bytea_output = 'hex'")?;
    let names = connection.query_text(
        "SELECT string_agg(format('%I.%I', nspname, relname), E'\\n' ORDER BY 1) FROM pg_class c
         JOIN pg_namespace n ON n.oid = relnamespace
         WHERE nspname IN ('shop', 'clinic', 'ops') AND relkind IN ('r', 'p', 'm') AND NOT relispartition",
    )?;
    let mut queries: Vec<(String, String)> = Vec::new();
    for name in names.unwrap_or_default().lines() {
        // Large objects have other numbers after a restore; what is in them is compared below.
        let row = if name == "clinic.documents" { "(id, patient_id, title)::text" } else { "t::text" };
        queries.push((name.to_owned(), format!("SELECT {row} AS row FROM {name} t")));
    }
    queries.push((
        "large objects".to_owned(),
        "SELECT id || md5(lo_get(content)) AS row FROM clinic.documents".to_owned(),
    ));
    queries.push((
        "sequences".to_owned(),
        "SELECT format('%s.%s %s', schemaname, sequencename, last_value) AS row FROM pg_sequences".to_owned(),
    ));
    let mut found = BTreeMap::new();
    for (name, rows) in queries {
        let sum = format!(
            "SELECT count(*) || ' ' || coalesce(sum(hashtextextended(row, 7)::numeric), 0) FROM ({rows}) AS rows"
        );
        let answer = connection.query_text(&sum)?.unwrap_or_default();
        let (count, hash) = answer.split_once(' ').unwrap_or_default();
        found.insert(name, (count.parse().unwrap_or_default(), hash.to_owned()));
    }
    Ok(found)
}

/// A hash of everything about each path below `root`.
fn tree(root: &Path, below: &Path, found: &mut BTreeMap<PathBuf, u64>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(below))? {
        let path = below.join(entry?.file_name());
        let full = root.join(&path);
        let metadata = fs::symlink_metadata(&full)?;
        let mut hasher = DefaultHasher::new();
        (metadata.mode(), metadata.uid(), metadata.gid(), metadata.mtime(), metadata.mtime_nsec())
            .hash(&mut hasher);
        if metadata.is_dir() {
            tree(root, &path, found)?;
        } else if metadata.is_symlink() {
            fs::read_link(&full)?.hash(&mut hasher);
        } else {
            (metadata.len(), metadata.nlink(), fs::read(&full)?).hash(&mut hasher);
            xattr::get(&full, "user.mainstay.origin").ok().flatten().hash(&mut hasher);
        }
        found.insert(path, hasher.finish());
    }
    Ok(())
}

impl Fingerprint {
    fn counted(&self) -> impl Iterator<Item = (&String, &(u64, String))> {
        self.tables.iter().filter(|(name, _)| name.contains('.'))
    }

    pub fn tables(&self) -> usize {
        self.counted().count()
    }

    pub fn rows(&self) -> u64 {
        self.counted().map(|(_, (rows, _))| rows).sum()
    }

    pub fn large_objects(&self) -> u64 {
        self.tables.get("large objects").map_or(0, |(count, _)| *count)
    }

    pub fn files(&self) -> usize {
        self.files.len()
    }

    pub fn keys(&self) -> usize {
        self.keys.len()
    }

    /// What differs, for a message.
    pub fn difference(&self, other: &Fingerprint) -> String {
        let files = self.files.iter().filter(|(path, hash)| other.files.get(*path) != Some(hash));
        let keys = self.keys.iter().filter(|(name, value)| other.keys.get(*name) != Some(value));
        let settings = (self.configured != other.configured).then(|| "the configuration".to_owned());
        let names: Vec<_> = files
            .map(|(path, _)| path.display().to_string())
            .chain(keys.map(|(name, _)| format!("key {}", String::from_utf8_lossy(name))))
            .chain(settings)
            .take(20)
            .collect();
        format!(
            "what came back is not what was lost: {} {}",
            difference(&self.tables, &other.tables),
            names.join(", ")
        )
    }
}

/// The names of tables that differ.
pub fn difference(before: &Tables, after: &Tables) -> String {
    let names: Vec<&str> = before
        .iter()
        .filter(|(name, rows)| after.get(*name) != Some(rows))
        .map(|(name, _)| &**name)
        .collect();
    names.join(", ")
}
