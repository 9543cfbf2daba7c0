//! Brings a base backup back as a data directory, ready for recovery.
//!
//! Order: the directory loses its control file first, so that nothing half restored can be started; then the files, the
//! tablespaces, the log that the backup needs, what the server said at its end, the instructions for recovery; and the control
//! file last of all, when everything else is on disk.
mod manifest;
mod plan;
mod recovery;
mod spaces;
mod writing;

pub use plan::{Options, Plan, plan, refuse_partial};
pub use recovery::{Action, Recovery, Target, open_up, postgres_time};
pub use writing::give_to_owner_of;

use super::{
    BACKUP_LABEL, CONFIG, CONTROL, ClusterFacts, LISTING, TABLESPACE, TABLESPACE_MAP, WAL, control, exclude,
};
use crate::files::{self, RestoreOptions, RestoreReport};
use mainstay_domain::{
    Failure, Kind, Monitor, Result, Severity,
    point::{Problem, SourceRecord, State, Stream},
    stream::{Content, Vault},
};
use plan::beside;
pub(super) use plan::free_beside;
use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};
use writing::Writing;

/// Names and values of settings.
pub type Settings = Vec<(String, String)>;

/// What was done.
#[derive(Debug, Clone)]
pub struct Report {
    pub state: State,
    pub files: u64,
    pub bytes: u64,
    /// Files that were right already.
    pub kept: u64,
    /// Bytes of files that were put right where they lie, and did not have to be written.
    pub kept_bytes: u64,
    pub removed: u64,
    /// Files without content, which is none to start a server on.
    pub without_content: u64,
    pub problems: Vec<Problem>,
    pub notices: Vec<String>,
}

/// Restores. The plan's checks are made again. `bring_log` is called with the data directory when the files are there and the
/// control file is not: what replay needs beyond the record's own log is put into `pg_wal` then. It returns settings that this log
/// needs higher than the base backup has them.
pub fn restore(
    vault: &dyn Vault,
    record: &SourceRecord,
    options: &Options,
    bring_log: &mut dyn FnMut(&Path) -> Result<Settings>,
    monitor: &dyn Monitor,
) -> Result<Report> {
    refuse_partial(record, options)?;
    let plan = plan(record, options)?;
    let data = &options.destination;
    let set_aside = if options.delta { set_log_aside(data)? } else { None };
    let unwritten = |path: &Path| {
        let text = format!("{} cannot be written", path.display());
        move |error: io::Error| Failure::failed(text).caused_by(error)
    };
    let control = data.join(exclude::CONTROL);
    match fs::remove_file(&control) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(unwritten(&control)(error)),
        // Files are changed where they lie: after a power cut, no control file must come back beside such ones.
        Ok(()) if options.sync => writing::sync_directory_of(&control).map_err(unwritten(&control))?,
        _ => {}
    }

    // The files.
    monitor.step("files", Some(record.bytes));
    let mut report = Report {
        state: State::Complete,
        files: 0,
        bytes: 0,
        kept: 0,
        kept_bytes: 0,
        removed: 0,
        without_content: 0,
        problems: Vec::new(),
        notices: Vec::new(),
    };
    if let Some(kept) = &set_aside {
        report.notices.push(format!(
            "the WAL of the cluster that was here is kept in {}: it may hold what was not archived; remove it when all is well",
            kept.display()
        ));
    }
    // The links stay, or are made at once: whoever repeats what breaks off from here on must find the same tablespaces.
    let links = plan.tablespaces.iter().map(|(oid, ..)| spaces::link(*oid)).collect();
    restore_tree(vault, record, LISTING, data, Part::AllBut(links), options, &mut report, monitor)?;
    spaces::make_links(&plan, data)?;
    for (oid, _, path) in &plan.tablespaces {
        // In a folder that is in use, other clusters' and versions' directories stand beside ours.
        let part = match options.delta && path.exists() {
            true => Part::Only(version_directory(vault, record, &plan.facts)?),
            false => Part::AllBut(Vec::new()),
        };
        restore_tree(
            vault,
            record,
            &format!("{TABLESPACE}{oid}"),
            path,
            part,
            options,
            &mut report,
            monitor,
        )?;
    }
    monitor.done("files", "");
    if report.without_content > 0 {
        let count = report.without_content;
        return Err(Failure::new(Kind::Incomplete, format!("{count} files of the cluster could not be read when it was backed up, and are missing"))
            .hint("The directory has no control file and cannot be started. Restore another base backup: `mainstay list` shows which are complete."));
    }
    if report.state != State::Complete {
        let first =
            report.problems.first().map(|p| format!("{}: {}", p.object, p.message)).unwrap_or_default();
        return Err(Failure::new(Kind::Incomplete, format!("not every file could be restored ({first})"))
            .hint("The directory has no control file and cannot be started. Put right what was in the way and try again."));
    }

    // What makes them a cluster that recovers.
    let owner = fs::metadata(data).map_err(unwritten(data))?;
    let writing = Writing { vault, uid: owner.uid(), gid: owner.gid(), sync: options.sync };
    for stream in &record.streams {
        if let Some(segment) = stream.name.strip_prefix(WAL) {
            writing.stream(&stream.content, &data.join("pg_wal").join(segment))?;
        } else if let (Some(path), Some(config)) = (stream.name.strip_prefix(CONFIG), &plan.config) {
            let name = path.trim_start_matches('/').replace('/', "_");
            fs::create_dir_all(config).map_err(unwritten(config))?;
            writing.stream(&stream.content, &config.join(name))?;
        }
    }
    writing.stream(wanted(record, BACKUP_LABEL)?, &data.join(BACKUP_LABEL))?;
    if !plan.tablespaces.is_empty() {
        writing.bytes(spaces::map(&plan).as_bytes(), &data.join(TABLESPACE_MAP))?;
    }
    let raised = bring_log(data)?;
    writing.configure(data, &plan, options.recovery.as_ref(), &raised, options.closed)?;
    if options.manifest {
        let manifest = manifest::manifest(vault, record, &plan, data, monitor)?;
        writing.bytes(&manifest, &manifest::path(data))?;
    }

    writing.stream(wanted(record, CONTROL)?, &control)?;
    if let Some(config) = &plan.config {
        report.notices.push(format!(
            "the configuration files that were outside of the data directory are in {}",
            config.display()
        ));
    }
    Ok(report)
}

fn wanted<'r>(record: &'r SourceRecord, name: &str) -> Result<&'r Content> {
    record
        .stream(name)
        .map(|stream| &stream.content)
        .ok_or_else(|| Failure::verification(format!("the base backup has no {name}")))
}

/// The directory of this cluster's in the folder of a tablespace.
fn version_directory(vault: &dyn Vault, record: &SourceRecord, facts: &ClusterFacts) -> Result<String> {
    let mut bytes = Vec::new();
    vault.copy(wanted(record, CONTROL)?, &mut bytes)?;
    let control = control::parse(&bytes)
        .ok_or_else(|| Failure::verification("the base backup's pg_control is too short"))?;
    Ok(exclude::version_directory(facts.major(), control.catalog))
}

/// What of a tree is put right.
enum Part {
    /// A directory at its top, and nothing beside it.
    Only(String),
    /// Everything; what lies at these paths is left.
    AllBut(Vec<String>),
}

#[allow(clippy::too_many_arguments)] // each is a part of the restore that it belongs to
fn restore_tree(
    vault: &dyn Vault,
    record: &SourceRecord,
    stream: &str,
    destination: &Path,
    part: Part,
    options: &Options,
    report: &mut Report,
    monitor: &dyn Monitor,
) -> Result<()> {
    let tree = as_files(record, stream)?;
    let (paths, keep) = match part {
        Part::Only(directory) => (vec![directory.into()], Vec::new()),
        Part::AllBut(keep) => (Vec::new(), keep),
    };
    let restoring = RestoreOptions {
        destination: destination.to_owned(),
        paths,
        delete: options.delta,
        keep,
        check_content: options.delta,
        page_key: options.page_key.filter(|_| options.delta),
        sync: options.sync,
        ..RestoreOptions::default()
    };
    let RestoreReport {
        state,
        files,
        bytes,
        kept,
        kept_bytes,
        removed,
        without_content,
        problems,
        notices,
        ..
    } = files::restore(vault, &tree, &restoring, monitor)?;
    report.state = report.state.max(state);
    report.files += files;
    report.bytes += bytes;
    report.kept += kept;
    report.kept_bytes += kept_bytes;
    report.removed += removed;
    report.without_content += without_content;
    report.problems.extend(problems.into_iter().filter(|p| p.severity > Severity::Info));
    report.notices.extend(notices);
    Ok(())
}

/// A listing of the cluster as a file source's record, which the machinery for files understands.
pub fn as_files(record: &SourceRecord, stream: &str) -> Result<SourceRecord> {
    let content = wanted(record, stream)?.clone();
    Ok(SourceRecord {
        kind: files::KIND.into(),
        streams: vec![Stream { name: files::LISTING.into(), content }],
        facts: files::Facts::of_tree(Path::new("/")).to_json(),
        problems: Vec::new(),
        ..record.clone()
    })
}

/// Puts the log of a stopped cluster beside its directory: the newest of it may be nowhere else.
fn set_log_aside(data: &Path) -> Result<Option<PathBuf>> {
    let log = data.join("pg_wal");
    let is_segment = |entry: fs::DirEntry| {
        entry.file_name().to_str().is_some_and(|name| name.parse::<mainstay_domain::wal::WalFile>().is_ok())
    };
    let has_log = fs::read_dir(&log).is_ok_and(|entries| entries.flatten().any(is_segment));
    if !has_log {
        return Ok(None);
    }
    let free = (1..).map(|number| beside(data, &format!("pg_wal-{number}"))).find(|path| !path.exists());
    let kept = free.expect("numbers do not end");
    fs::rename(&log, &kept).map_err(|error| {
        Failure::new(Kind::Refused, format!("{} cannot be set aside as {}", log.display(), kept.display()))
            .hint("It may hold WAL that was not archived. Move it away by hand, and try again.")
            .caused_by(error)
    })?;
    Ok(Some(kept))
}
