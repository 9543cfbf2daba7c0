//! `mainstay wal disown`: what the wrong one of two servers has archived leaves the archive, so that the right one can archive its own.
//!
//! A clone of a machine, or an old primary, that archives first takes the names of its segments; the primary's are then refused, for
//! nothing is ever overwritten. Which of the two is right a person must say. What goes is written into a folder first, durably, as the files that they were:
//! archived again from there (`wal push`), it is as before.

use super::{Holdings, write};
use crate::access;
use crate::config::Config;
use mainstay_domain::{
    Clock, Failure, Kind, Monitor, Result, Time,
    wal::{Segment, WalFile},
};
use mainstay_repository::{Repository, wal::Archived};
use mainstay_sources::postgres::cluster::ClusterFacts;
use serde::Serialize;
use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::Path,
    sync::Arc,
};

/// What is to go: everything on a timeline from a segment on, or all of it with its history.
#[derive(Debug, Serialize)]
pub struct Plan {
    pub system: u64,
    pub timeline: u32,
    #[serde(skip)]
    going: Vec<Archived>,
    pub files: usize,
    pub bytes: u64,
    pub first: String,
    pub last: String,
    /// When the last transaction in it ended: the right server's own must be known to be others.
    pub last_end: Option<Time>,
    /// Base backups that begin in what goes: they are of the same server, or of no use without it.
    pub base_backups: usize,
}

/// The repository whose archive is meant.
pub fn open(config: &Config, app: Option<&str>, clock: Arc<dyn Clock>) -> Result<Repository> {
    access::open(config, &super::repository_for(config, app)?, clock)
}

/// Finds what goes with `file`. `system`: the cluster, where the repository has the log of several.
///
/// # Errors
/// `Usage`: there is no such file, or several clusters have one.
pub fn plan(repository: &Repository, file: &str, system: Option<u64>) -> Result<Plan> {
    let file: WalFile = file.parse().map_err(|error| Failure::usage(format!("{error}")))?;
    let from: Option<Segment> = match &file {
        WalFile::Segment(segment) => Some(*segment),
        WalFile::History(_) => None,
        WalFile::Partial(_) | WalFile::Backup(..) | WalFile::Fragment(..) => {
            return Err(Failure::usage(format!("{file} goes with its segment"))
                .hint("Give the name of a segment (24 digits), or of a .history file."));
        }
    };
    let mut found = Vec::new();
    for known in mainstay_repository::wal::systems(repository)? {
        if system.is_some_and(|system| system != known) {
            continue;
        }
        let holdings = Holdings::read_in_part(repository, known)?;
        if holdings.files().iter().any(|archived| is_of(&archived.file, &file)) {
            found.push(holdings);
        }
    }
    let holdings = match (found.pop(), found.is_empty()) {
        (Some(holdings), true) => holdings,
        (None, _) => {
            return Err(Failure::usage(format!("{file} is not in the archive"))
                .hint("`mainstay wal status` shows what is."));
        }
        (Some(_), false) => {
            return Err(Failure::usage(format!("several clusters have archived {file}"))
                .hint("Say which one is meant: --system N, as `mainstay wal status` shows it."));
        }
    };
    let (size, timeline) = (holdings.segment_size, file.timeline());
    let goes = |archived: &Archived| {
        archived.file.timeline() == timeline
            && match (&archived.file, from) {
                (WalFile::History(_), from) => from.is_none(),
                (_, None) => true,
                (
                    WalFile::Segment(segment)
                    | WalFile::Partial(segment)
                    | WalFile::Backup(segment, _)
                    | WalFile::Fragment(segment, _),
                    Some(from),
                ) => segment.number(size) >= from.number(size),
            }
    };
    let mut going: Vec<Archived> =
        holdings.files().iter().filter(|archived| goes(archived)).cloned().collect();
    // The last one first: what a removal that breaks off leaves has no hole.
    going.reverse();
    let bases = super::retention::live_bases(repository, &BTreeSet::new())?;
    let begins_there = |facts: &&ClusterFacts| {
        facts.system == holdings.system
            && facts.timeline == timeline
            && from.is_none_or(|from| facts.stop > from.start(size))
    };
    let name = |archived: Option<&Archived>| archived.map(|file| file.file.to_string()).unwrap_or_default();
    Ok(Plan {
        system: holdings.system,
        timeline,
        files: going.len(),
        bytes: going.iter().map(|archived| archived.stored_bytes).sum(),
        first: name(going.last()),
        last: name(going.first()),
        last_end: holdings.last_end(timeline, None)?,
        base_backups: bases.iter().filter(begins_there).count(),
        going,
    })
}

/// Whether an archived file is the one that is named, or a piece of it.
fn is_of(archived: &WalFile, named: &WalFile) -> bool {
    archived == named
        || matches!((archived, named), (WalFile::Fragment(of, _), WalFile::Segment(segment)) if of == segment)
}

/// Writes what goes into a new folder, and takes it out of the archive.
///
/// # Errors
/// Before anything is removed, if any of it cannot be read or written.
pub fn carry_out(repository: &Repository, plan: &Plan, keep_in: &Path, monitor: &dyn Monitor) -> Result<()> {
    repository.certain_state()?;
    let failed = |error: io::Error| {
        Failure::failed(format!("{} cannot be made", keep_in.display()))
            .hint("Give a folder that does not exist yet, with room for what goes.")
            .caused_by(error)
    };
    DirBuilder::new().mode(0o700).create(keep_in).map_err(failed)?;
    let holdings = Holdings::read_in_part(repository, plan.system)?;
    monitor.step("keep", Some(plan.bytes));
    let mut kept = BTreeSet::new();
    for archived in &plan.going {
        if monitor.cancelled() {
            return Err(Failure::new(Kind::Cancelled, "stopped before anything was removed"));
        }
        // Fragments are kept as the segment that they are the beginning of.
        let file = match &archived.file {
            WalFile::Fragment(segment, _) => WalFile::Segment(*segment),
            file => file.clone(),
        };
        if kept.insert(file.clone()) {
            let content = holdings.content(&file)?.ok_or_else(|| {
                Failure::verification(format!(
                    "{file} is listed in the archive and cannot be read; nothing was removed"
                ))
                .hint("`mainstay verify APP --level data` says what is wrong with it.")
            })?;
            // A beginning must not be taken for a whole segment when it is pushed again.
            let name = match &file {
                WalFile::Segment(segment) if !holdings.has(*segment) => WalFile::Partial(*segment),
                file => file.clone(),
            };
            write(&keep_in.join(name.to_string()), &content, true)?;
        }
        monitor.advance(1, archived.stored_bytes);
    }
    fs::File::open(keep_in).and_then(|folder| folder.sync_all()).map_err(failed)?;
    monitor.done("keep", "");
    for archived in &plan.going {
        holdings.archive.remove(archived)?;
    }
    Ok(())
}
