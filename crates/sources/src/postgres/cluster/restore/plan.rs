//! Where a base backup is to go, and what stands against it: looked at before anything is written.

use super::{
    super::{CONFIG, ClusterFacts, TABLESPACE, build, control},
    Recovery, spaces,
};
use mainstay_domain::{
    Failure, Kind, Result, Severity,
    point::{Problem, SourceRecord, State},
};
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

#[derive(Debug, Clone)]
pub struct Options {
    pub destination: PathBuf,
    /// Where tablespaces go, by their oid; the others go beside the destination.
    pub tablespaces: BTreeMap<u32, PathBuf>,
    /// `None`: only what the record itself holds is replayed, to the end of the backup, on the timeline of its original. Such
    /// a server writes segments that have the same names as its original's: for tests, which nobody keeps.
    pub recovery: Option<Recovery>,
    /// Put right what differs in a directory that is there, and remove the rest.
    pub delta: bool,
    /// The key of the pages' hashes: with it, a delta writes only pages that differ.
    pub page_key: Option<[u8; 32]>,
    pub sync: bool,
    /// Write a manifest, by which `pg_verifybackup` checks the directory: everything is read once more from the repository for it.
    pub manifest: bool,
    /// Restore a base backup that is known to be damaged, too.
    pub accept_partial: bool,
    /// Nobody is to start it before it is opened ([`open_up`](super::open_up)): what is in it is to be masked first.
    pub closed: bool,
}

impl Options {
    pub fn new(destination: PathBuf) -> Options {
        Options {
            destination,
            tablespaces: BTreeMap::new(),
            recovery: None,
            delta: false,
            page_key: None,
            sync: true,
            manifest: false,
            accept_partial: false,
            closed: false,
        }
    }

    /// Where a tablespace goes: where it was said; where the cluster that is put back has it; or beside the destination.
    pub fn tablespace(&self, oid: u32) -> PathBuf {
        let own = || self.delta.then(|| spaces::found(&self.destination, oid)).flatten();
        self.tablespaces
            .get(&oid)
            .cloned()
            .or_else(own)
            .unwrap_or_else(|| beside(&self.destination, "tablespaces").join(oid.to_string()))
    }
}

/// `<destination>-<what>`.
pub(super) fn beside(destination: &Path, what: &str) -> PathBuf {
    let mut name = destination.file_name().unwrap_or_default().to_owned();
    name.push("-");
    name.push(what);
    destination.with_file_name(name)
}

/// The same, or with the first number that is free: what is there is somebody's.
pub(in super::super) fn free_beside(destination: &Path, what: &str) -> PathBuf {
    let numbered = (1..).map(|number| beside(destination, &format!("{what}-{number}")));
    let mut names = std::iter::once(beside(destination, what)).chain(numbered);
    names.find(|path| path.symlink_metadata().is_err()).expect("numbers do not end")
}

/// What would be done, before anything is.
#[derive(Debug, Clone)]
pub struct Plan {
    pub facts: ClusterFacts,
    pub destination: PathBuf,
    /// Oid, name and new place of each tablespace.
    pub tablespaces: Vec<(u32, String, PathBuf)>,
    pub bytes: u64,
    /// Configuration files that were outside of the data directory, and go to this directory.
    pub config: Option<PathBuf>,
    /// What is wrong with the base backup itself: damaged pages, for example.
    pub problems: Vec<Problem>,
}

/// Looks at the record and the destination, and refuses what cannot be.
///
/// # Errors
/// `Refused`: the destination holds something else, or a server runs on it. `Preflight`: no server here can run on these files.
pub fn plan(record: &SourceRecord, options: &Options) -> Result<Plan> {
    let facts = ClusterFacts::from_json(&record.facts)?;
    build::refuse_other_machine(&facts)?;
    let spaces = facts
        .tablespaces
        .iter()
        .map(|s| (s.oid, s.name.clone(), options.tablespace(s.oid)))
        .collect::<Vec<_>>();
    for (oid, _, _) in &spaces {
        if record.stream(&format!("{TABLESPACE}{oid}")).is_none() {
            return Err(Failure::verification(format!("the base backup lacks its tablespace {oid}")));
        }
    }
    refuse_unfit(&options.destination, &facts, options.delta)?;
    for (number, (oid, _, directory)) in spaces.iter().enumerate() {
        let taken = spaces[..number].iter().find(|(.., other)| other == directory);
        if let Some((other, ..)) = taken {
            return Err(Failure::usage(format!(
                "the tablespaces {other} and {oid} would both go to {}",
                directory.display()
            ))
            .hint("Give each its own folder: --tablespace OID=FOLDER."));
        }
    }
    for (oid, _, directory) in &spaces {
        // Of what is in a tablespace's directory, only the cluster itself says whose it is.
        let own = options.delta && spaces::found(&options.destination, *oid).as_ref() == Some(directory);
        if !own {
            refuse_unfit(directory, &facts, false)?;
        }
    }
    let config = record.streams.iter().any(|stream| stream.name.starts_with(CONFIG));
    Ok(Plan {
        destination: options.destination.clone(),
        tablespaces: spaces,
        bytes: record.bytes,
        config: config.then(|| free_beside(&options.destination, "config")),
        problems: record.problems.iter().filter(|p| p.severity == Severity::Error).cloned().collect(),
        facts,
    })
}

/// Refuses a base backup in which something is damaged or missing, unless that is accepted.
pub fn refuse_partial(record: &SourceRecord, options: &Options) -> Result<()> {
    if record.state == State::Complete || options.accept_partial {
        return Ok(());
    }
    let errors: Vec<&Problem> = record.problems.iter().filter(|p| p.severity == Severity::Error).collect();
    let first = errors.first().map(|p| format!(" ({}: {})", p.object, p.message)).unwrap_or_default();
    Err(Failure::new(Kind::Refused, format!("the base backup is incomplete{first}"))
        .hint("Name another one with --point, or an earlier moment; or restore it as it is, with the damage: --accept-partial."))
}

fn refuse_unfit(directory: &Path, facts: &ClusterFacts, delta: bool) -> Result<()> {
    let refused = |why: &str, hint: &str| {
        Err(Failure::new(Kind::Refused, format!("{} {why}", directory.display())).hint(hint))
    };
    let mut entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            return Err(
                Failure::preflight(format!("{} cannot be read", directory.display())).caused_by(error)
            );
        }
    };
    if entries.next().is_none() {
        return Ok(());
    }
    if !delta {
        return refused(
            "is not empty",
            "Name a new directory; or, to put a stopped cluster back, say --delta.",
        );
    }
    if directory.join("postmaster.pid").exists() {
        return refused(
            "belongs to a server that runs, or that was killed (postmaster.pid is there)",
            "Stop the server first: pg_ctl stop -D the directory.",
        );
    }
    let version = fs::read_to_string(directory.join("PG_VERSION")).unwrap_or_default();
    if let Some(other) = version.trim().parse::<u32>().ok().filter(|other| *other != facts.major()) {
        return refused(
            &format!(
                "is the data directory of PostgreSQL {other}, and the base backup is of PostgreSQL {}",
                facts.major()
            ),
            "Name a new directory, for a server of the base backup's version. From there to another version leads pg_upgrade.",
        );
    }
    // Without a control file it may be what an interrupted restore left. All else in the folder will be removed: so a
    // PG_VERSION that lies in it is not enough to know it by.
    let looks_right = directory.join("PG_VERSION").is_file()
        && ["global", "base"].iter().all(|name| directory.join(name).is_dir());
    match control::read(directory) {
        Ok(found) if found.system != facts.system => {
            refused("is the data directory of another cluster", "Name a new directory.")
        }
        Err(_) if !looks_right => {
            refused("is not the data directory of a PostgreSQL server", "Name a new directory.")
        }
        _ => Ok(()),
    }
}
