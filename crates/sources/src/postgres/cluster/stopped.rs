//! A stopped cluster as it lies there, before a restore overwrites it: the way back.
//!
//! It is no base backup: nothing of it needs to be replayed but what a server does by itself when it starts. Everything is taken, the log
//! too, and what a base backup leaves out for a running server; so the records are those of file trees, and are restored as such. Pages
//! are cut as in base backups, so that what those hold already is not stored a second time.

use super::{
    LISTING, Options, TABLESPACE, config, control, exclude,
    old::OldListing,
    pages::PageHasher,
    shared::{Shared, Suspects, Tally},
    tree,
};
use crate::files::{self, Problems};
use mainstay_domain::{
    Failure, Kind, Monitor, Result, Severity,
    point::{SourceRecord, State, Stream},
    stream::Sink,
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
};

/// A part of a stopped cluster, captured as a source of files.
#[derive(Debug, Clone)]
pub struct Tree {
    pub source: String,
    pub root: PathBuf,
    /// Of a tablespace, the directory that is this cluster's: those of others may stand beside it.
    pub only: Option<String>,
}

/// Refuses a data directory on which files are not to be read or changed: its server would not know.
///
/// # Errors
/// `Refused`: a server runs on it, or was killed there.
pub fn refuse_running(data: &Path) -> Result<()> {
    if !data.join("postmaster.pid").exists() {
        return Ok(());
    }
    Err(Failure::new(Kind::Refused, format!("a server runs on {}, or was killed there", data.display()))
        .hint("Stop the server first: pg_ctl stop -D the directory."))
}

/// Captures the data directory and then each tablespace, under `name` and `name-tablespace-OID`.
///
/// # Errors
/// `Refused`: a server runs on it, or was killed there. Else what could not be read.
pub fn capture(
    name: &str,
    data: &Path,
    sink: &dyn Sink,
    options: &Options<'_>,
    monitor: &dyn Monitor,
) -> Result<(Vec<Tree>, Vec<SourceRecord>)> {
    refuse_running(data)?;
    monitor.step("stopped cluster", None);
    let mut records = vec![tree_of(name.to_owned(), data, None, LISTING, sink, options, monitor)?];
    let mut trees = vec![Tree { source: name.to_owned(), root: data.to_owned(), only: None }];
    let version = version_directory(data)?;
    for (oid, place) in tablespaces(data)? {
        let stream = format!("{TABLESPACE}{oid}");
        let name = format!("{name}-tablespace-{oid}");
        records.push(tree_of(name.clone(), &place, Some(&version), &stream, sink, options, monitor)?);
        trees.push(Tree { source: name, root: place, only: Some(version.clone()) });
    }
    monitor.done("stopped cluster", "");
    Ok((trees, records))
}

fn tree_of(
    name: String,
    root: &Path,
    version: Option<&str>,
    stream: &str,
    sink: &dyn Sink,
    options: &Options<'_>,
    monitor: &dyn Monitor,
) -> Result<SourceRecord> {
    let started = options.clock.now();
    let (problems, tally, suspects) = (Problems::default(), Tally::default(), Suspects::default());
    let shared = Shared {
        sink,
        hasher: PageHasher::new(&options.page_key),
        full: options.full,
        // Damage is no reason to refuse the way back to it.
        checking: None,
        stopped: true,
        threads: config::all_threads(),
        clock: options.clock,
        monitor,
        problems: &problems,
        tally: &tally,
        suspects: &suspects,
    };
    let old = options.previous.and_then(|(vault, record)| Some((vault, record.stream(stream)?)));
    let old = old.map_or_else(OldListing::none, |(vault, stream)| OldListing::new(vault, &stream.content));
    let content = tree::capture(&shared, root, version, old)?;
    let finished = options.clock.now();
    Ok(SourceRecord {
        name,
        kind: files::KIND.to_owned(),
        state: if problems.count(Severity::Error) == 0 { State::Complete } else { State::Incomplete },
        started,
        finished,
        consistent_at: Some(finished),
        streams: vec![Stream { name: files::LISTING.to_owned(), content }],
        facts: files::Facts::of_tree(root).to_json(),
        problems: problems.into_list(),
        bytes: tally.bytes.load(Ordering::Relaxed),
        items: tally.files.load(Ordering::Relaxed) + tally.directories.load(Ordering::Relaxed),
        partial: false,
    })
}

/// The directory that is this cluster's in a tablespace.
fn version_directory(data: &Path) -> Result<String> {
    let path = data.join("PG_VERSION");
    let major = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
    let major = major.ok_or_else(|| Failure::preflight(format!("{} tells no version", path.display())))?;
    Ok(exclude::version_directory(major, control::read(data)?.catalog))
}

/// Where its tablespaces lie, as its links say. One inside of the data directory is captured with that.
fn tablespaces(data: &Path) -> Result<Vec<(u32, PathBuf)>> {
    let folder = data.join("pg_tblspc");
    let unread = |error| Failure::preflight(format!("{} cannot be read", folder.display())).caused_by(error);
    let mut found = Vec::new();
    for entry in fs::read_dir(&folder).map_err(unread)? {
        let entry = entry.map_err(unread)?;
        let oid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let (Some(oid), true) = (oid, entry.file_type().is_ok_and(|kind| kind.is_symlink())) {
            found.push((oid, fs::canonicalize(entry.path()).map_err(unread)?));
        }
    }
    found.sort();
    Ok(found)
}
