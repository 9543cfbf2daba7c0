//! The company: founded, at work, destroyed, and described by fingerprints that owe nothing to Mainstay.

use super::{remove_folder, uploads};
use mainstay_domain::{Failure, Result};
use mainstay_sources::postgres::{sandbox::Sandbox, wire::Connection};
use std::{
    collections::BTreeMap,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

const DATABASE: &str = "company";

pub struct Company {
    pub sandbox: Sandbox,
    pub uploads: PathBuf,
}

/// What was founded.
pub struct Made {
    pub tables: usize,
    pub rows: u64,
    pub files: uploads::Made,
}

/// What the company's data looks like from outside: two that are equal hold the same.
#[derive(Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// Rows and the sum of their hashes, for each table and for the sequences and large objects.
    tables: BTreeMap<String, (u64, String)>,
    /// Kind, mode, time, size, links and content, for each path.
    files: BTreeMap<PathBuf, u64>,
}

impl Company {
    /// As an application would be given it.
    pub fn url(&self) -> String {
        let folder = self.sandbox.socket_directory().display();
        format!("postgres://postgres@/{DATABASE}?host={folder}&port={}", self.sandbox.port())
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

    pub fn destroy(&self) -> Result<()> {
        self.sandbox.connect("postgres")?.execute(&format!("DROP DATABASE {DATABASE} WITH (FORCE)"))?;
        remove_folder(&self.uploads)
    }

    pub fn fingerprint(&self) -> Result<Fingerprint> {
        let mut connection = self.sandbox.connect(DATABASE)?;
        let mut files = BTreeMap::new();
        tree(&self.uploads, Path::new(""), &mut files).map_err(unreadable)?;
        Ok(Fingerprint { tables: tables(&mut connection)?, files })
    }
}

fn unreadable(error: io::Error) -> Failure {
    Failure::failed("the company's files could not be read").caused_by(error)
}

/// Rows and a hash of each table, whatever the order of its rows.
fn tables(connection: &mut Connection) -> Result<BTreeMap<String, (u64, String)>> {
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

    /// What differs, for a message.
    pub fn difference(&self, other: &Fingerprint) -> String {
        let tables = self.tables.iter().filter(|(name, rows)| other.tables.get(*name) != Some(rows));
        let files = self.files.iter().filter(|(path, hash)| other.files.get(*path) != Some(hash));
        let names: Vec<_> = tables
            .map(|(name, _)| name.clone())
            .chain(files.map(|(path, _)| path.display().to_string()))
            .take(20)
            .collect();
        format!("what came back is not what was lost: {}", names.join(", "))
    }
}
