//! Brings a base backup back as a data directory, ready for recovery.
//!
//! Order: the directory loses its control file first, so that nothing half restored can be started; then the files, the
//! tablespaces, the log that the backup needs, what the server said at its end, the instructions for recovery; and the control
//! file last of all, when everything else is on disk.

use super::{
    BACKUP_LABEL, CONFIG, CONTROL, ClusterFacts, LISTING, TABLESPACE, TABLESPACE_MAP, WAL, control, exclude,
    facts::RECOVERY_SETTINGS,
};
use crate::files::{self, RestoreOptions, RestoreReport};
use mainstay_domain::{
    Failure, Kind, Lsn, Monitor, Result, Severity, Time,
    point::{Problem, SourceRecord, State, Stream},
    stream::{Content, Vault},
};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs, io,
    os::unix::fs::{MetadataExt, OpenOptionsExt, chown},
    path::{Path, PathBuf},
};

/// Where recovery is to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// As soon as the cluster is consistent: the end of the base backup.
    Immediate,
    /// The end of the archived log.
    Latest,
    /// The last transaction that ended at or before this time.
    Time(Time),
    Lsn(Lsn),
    /// Up to and with this transaction.
    Xid(u64),
    /// A named restore point.
    Name(String),
}

/// What the server does once it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Action {
    /// Ends recovery and takes writes, on a timeline of its own.
    #[default]
    Promote,
    /// Stays in recovery and answers queries.
    Pause,
    Shutdown,
}

/// Names and values of settings.
pub type Settings = Vec<(String, String)>;

/// How recovery goes.
#[derive(Debug, Clone)]
pub struct Recovery {
    pub target: Target,
    pub timeline: u32,
    /// What the server runs to get a segment: with `%f` and `%p`.
    pub restore_command: String,
    pub action: Action,
    /// Follow the archive for ever, as a warm standby, over every failover.
    pub standby: bool,
    /// Of a standby: where it streams from, besides (`primary_conninfo`).
    pub primary: Option<String>,
    /// Archive as its configuration says, once recovery is over: it takes the original's place.
    pub archive: bool,
}

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
    pub sync: bool,
    /// Restore a base backup that is known to be damaged, too.
    pub accept_partial: bool,
}

impl Options {
    pub fn new(destination: PathBuf) -> Options {
        Options {
            destination,
            tablespaces: BTreeMap::new(),
            recovery: None,
            delta: false,
            sync: true,
            accept_partial: false,
        }
    }

    /// Where a tablespace goes: where it was said; where the cluster that is put back has it; or beside the destination.
    pub fn tablespace(&self, oid: u32) -> PathBuf {
        let own = || self.delta.then(|| self.linked(oid)).flatten();
        self.tablespaces
            .get(&oid)
            .cloned()
            .or_else(own)
            .unwrap_or_else(|| beside(&self.destination, "tablespaces").join(oid.to_string()))
    }

    /// Where the cluster in the destination has a tablespace.
    fn linked(&self, oid: u32) -> Option<PathBuf> {
        fs::read_link(self.destination.join("pg_tblspc").join(oid.to_string())).ok()
    }
}

/// `<destination>-<what>`.
fn beside(destination: &Path, what: &str) -> PathBuf {
    let mut name = destination.file_name().unwrap_or_default().to_owned();
    name.push("-");
    name.push(what);
    destination.with_file_name(name)
}

/// The same, or with the first number that is free: what is there is somebody's.
fn free_beside(destination: &Path, what: &str) -> PathBuf {
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

/// What was done.
#[derive(Debug, Clone)]
pub struct Report {
    pub state: State,
    pub files: u64,
    pub bytes: u64,
    /// Files that were right already.
    pub kept: u64,
    pub removed: u64,
    /// Files without content, which is none to start a server on.
    pub without_content: u64,
    pub problems: Vec<Problem>,
    pub notices: Vec<String>,
}

/// Looks at the record and the destination, and refuses what cannot be.
///
/// # Errors
/// `Refused`: the destination holds something else, or a server runs on it.
pub fn plan(record: &SourceRecord, options: &Options) -> Result<Plan> {
    let facts = ClusterFacts::from_json(&record.facts)?;
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
        // Of what is in a tablespace's directory, only the cluster's own link says whose it is.
        let own = options.delta && options.linked(*oid).as_ref() == Some(directory);
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
        _ => {}
    }

    // The files.
    monitor.step("files", Some(record.bytes));
    let mut report = Report {
        state: State::Complete,
        files: 0,
        bytes: 0,
        kept: 0,
        removed: 0,
        without_content: 0,
        problems: Vec::new(),
        notices: Vec::new(),
    };
    if let Some(kept) = &set_aside {
        report.notices.push(format!(
            "the log of the cluster that was here is kept in {}: it may hold what was not archived; remove it when all is well",
            kept.display()
        ));
    }
    restore_tree(vault, record, LISTING, data, Vec::new(), options, &mut report, monitor)?;
    for (oid, _, path) in &plan.tablespaces {
        // In a folder that is in use, other clusters' and versions' directories stand beside ours.
        let part = match options.delta && path.exists() {
            true => vec![version_directory(vault, record, &plan.facts)?],
            false => Vec::new(),
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
        let map: String = plan.tablespaces.iter().fold(String::new(), |mut map, (oid, _, path)| {
            let shown = path.display().to_string();
            let escaped = shown.replace('\\', "\\\\").replace('\n', "\\\n").replace('\r', "\\\r");
            let _ = writeln!(map, "{oid} {escaped}");
            map
        });
        writing.bytes(map.as_bytes(), &data.join(TABLESPACE_MAP))?;
    }
    let raised = bring_log(data)?;
    writing.configure(data, &plan, options.recovery.as_ref(), &raised)?;

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

#[allow(clippy::too_many_arguments)] // each is a part of the restore that it belongs to
fn restore_tree(
    vault: &dyn Vault,
    record: &SourceRecord,
    stream: &str,
    destination: &Path,
    paths: Vec<String>,
    options: &Options,
    report: &mut Report,
    monitor: &dyn Monitor,
) -> Result<()> {
    let tree = as_files(record, stream)?;
    let restoring = RestoreOptions {
        destination: destination.to_owned(),
        paths,
        delete: options.delta,
        check_content: options.delta,
        sync: options.sync,
        ..RestoreOptions::default()
    };
    let RestoreReport { state, files, bytes, kept, removed, without_content, problems, notices, .. } =
        files::restore(vault, &tree, &restoring, monitor)?;
    report.state = report.state.max(state);
    report.files += files;
    report.bytes += bytes;
    report.kept += kept;
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

/// A copy that lives beside its original must not archive into the same place, and must not take what the original's
/// subscriptions are sent: its publishers would believe that the original has it.
const BESIDE_ITS_ORIGINAL: &str = "archive_mode = 'off'\nmax_logical_replication_workers = '0'\n";

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
            .hint("It may hold log that was not archived. Move it away by hand, and try again.")
            .caused_by(error)
    })?;
    Ok(Some(kept))
}

/// Writes single files, for the owner of the data directory.
struct Writing<'a> {
    vault: &'a dyn Vault,
    uid: u32,
    gid: u32,
    sync: bool,
}

impl Writing<'_> {
    fn stream(&self, content: &Content, path: &Path) -> Result<()> {
        self.write(path, &mut |out| self.vault.copy(content, out).map(drop))
    }

    fn bytes(&self, bytes: &[u8], path: &Path) -> Result<()> {
        self.write(path, &mut |out| {
            out.write_all(bytes)
                .map_err(|error| Failure::failed("the file could not be written").caused_by(error))
        })
    }

    /// Under a temporary name first: a file stands there whole or not at all.
    fn write(&self, path: &Path, fill: &mut dyn FnMut(&mut dyn io::Write) -> Result<()>) -> Result<()> {
        let failed = |error: io::Error| {
            Failure::failed(format!("{} cannot be written", path.display())).caused_by(error)
        };
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".mainstay-new");
        let temporary = PathBuf::from(temporary);
        let mut options = fs::OpenOptions::new();
        options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32);
        let mut file = options.open(&temporary).map_err(failed)?;
        fill(&mut file)?;
        if rustix::process::geteuid().is_root() {
            chown(&temporary, Some(self.uid), Some(self.gid)).map_err(failed)?;
        }
        if self.sync {
            file.sync_all().map_err(failed)?;
        }
        fs::rename(&temporary, path).map_err(failed)?;
        if let (true, Some(parent)) = (self.sync, path.parent()) {
            fs::File::open(parent).and_then(|directory| directory.sync_all()).map_err(failed)?;
        }
        Ok(())
    }

    /// Settings for recovery, and what a data directory without its own configuration needs to start at all.
    fn configure(
        &self,
        data: &Path,
        plan: &Plan,
        recovery: Option<&Recovery>,
        raised: &[(String, String)],
    ) -> Result<()> {
        for (name, text) in [
            (
                "postgresql.conf",
                "# The configuration of this server was elsewhere; see the directory beside this one.\n",
            ),
            ("pg_hba.conf", "local all all peer\n"),
            ("pg_ident.conf", ""),
        ] {
            let path = data.join(name);
            if !path.exists() {
                self.bytes(text.as_bytes(), &path)?;
            }
        }
        let auto = data.join("postgresql.auto.conf");
        let kept = match fs::read(&auto) {
            Ok(kept) => kept,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                return Err(Failure::failed(format!("{} cannot be read", auto.display())).caused_by(error));
            }
        };
        let mut text = format!("{BEGIN}\n");
        let settings = recovery.iter().flat_map(|recovery| recovery.settings(&plan.facts));
        for (name, value) in settings.chain(raised.iter().cloned()) {
            let _ = writeln!(text, "{name} = '{}'", value.replace('\'', "''"));
        }
        if recovery.is_none_or(|recovery| !recovery.archive) {
            text += BESIDE_ITS_ORIGINAL;
        }
        let _ = writeln!(text, "{END}");
        self.bytes(&[without_ours(&kept), text.into_bytes()].concat(), &auto)?;
        let Some(recovery) = recovery else { return Ok(()) };
        let signal = if recovery.standby { "standby.signal" } else { "recovery.signal" };
        self.bytes(b"", &data.join(signal))
    }
}

/// Gives a file to whom its directory belongs, where we may.
pub fn give_to_owner_of(directory: &Path, path: &Path) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    fs::metadata(directory).and_then(|owner| chown(path, Some(owner.uid()), Some(owner.gid()))).map_err(
        |error| Failure::failed(format!("{} cannot be given to its owner", path.display())).caused_by(error),
    )
}

/// What recovery needs stands between these. What names a target has no meaning once recovery is over; `archive_mode`,
/// `max_logical_replication_workers` and the `max_…` that recovery must not be below stay in force until they are reset.
const BEGIN: &str = "# Begin of what mainstay restore wrote. When recovery is over, reset what shall not stay: ALTER SYSTEM RESET.";
const END: &str = "# End of what mainstay restore wrote.";

/// The settings of a cluster without those of an earlier recovery. Any byte may stand in them.
///
/// `ALTER SYSTEM` leaves comments out when it writes the file anew: so what only recovery reads is known by its name too, and
/// two targets would keep the server from starting. All else is the cluster's own.
fn without_ours(settings: &[u8]) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut ours = false;
    for line in settings.split_inclusive(|byte| *byte == b'\n') {
        let text = line.trim_ascii();
        ours |= text == BEGIN.as_bytes();
        if !ours && !is_of_recovery(text) {
            kept.extend_from_slice(line);
        }
        ours &= text != END.as_bytes();
    }
    if kept.last().is_some_and(|byte| *byte != b'\n') {
        kept.push(b'\n');
    }
    kept
}

/// A setting that only a server in recovery reads.
fn is_of_recovery(line: &[u8]) -> bool {
    let end = line.iter().position(|byte| *byte == b'=').unwrap_or(line.len());
    let name = line[..end].trim_ascii();
    let known: [&[u8]; 4] =
        [b"restore_command", b"archive_cleanup_command", b"recovery_end_command", b"primary_conninfo"];
    known.contains(&name) || name.starts_with(b"recovery_target")
}

impl Recovery {
    /// The settings, in the order in which they are written.
    pub fn settings(&self, facts: &ClusterFacts) -> Vec<(String, String)> {
        let mut settings: Vec<(String, String)> = Vec::new();
        let mut set = |name: &str, value: String| settings.push((name.to_owned(), value));
        // A server in recovery must not be below the primary in these, whatever its own configuration says.
        for (name, value) in
            facts.settings.iter().filter(|(name, _)| RECOVERY_SETTINGS.contains(&name.as_str()))
        {
            set(name, value.clone());
        }
        set("restore_command", self.restore_command.clone());
        // Those of the original's configuration would work on what belongs to the original.
        set("archive_cleanup_command", String::new());
        set("recovery_end_command", String::new());
        if self.standby {
            set("recovery_target_timeline", "latest".to_owned());
            if let Some(primary) = &self.primary {
                set("primary_conninfo", primary.clone());
            }
            return settings;
        }
        set("recovery_target_timeline", self.timeline.to_string());
        set("recovery_target_inclusive", "on".into());
        match &self.target {
            Target::Immediate => set("recovery_target", "immediate".into()),
            Target::Latest => {}
            Target::Time(time) => set("recovery_target_time", postgres_time(*time)),
            Target::Lsn(lsn) => set("recovery_target_lsn", lsn.to_string()),
            Target::Xid(xid) => set("recovery_target_xid", xid.to_string()),
            Target::Name(name) => set("recovery_target_name", name.clone()),
        }
        let action = match self.action {
            Action::Promote => "promote",
            Action::Pause => "pause",
            Action::Shutdown => "shutdown",
        };
        if self.target != Target::Latest {
            set("recovery_target_action", action.into());
        }
        settings
    }
}

/// As PostgreSQL reads it, with all six digits that it keeps.
pub fn postgres_time(time: Time) -> String {
    jiff::Timestamp::from_microsecond(time.0.div_euclid(1000))
        .map(|stamp| stamp.strftime("%Y-%m-%d %H:%M:%S%.6f+00").to_string())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_clusters_own_settings_nothing_is_lost_and_of_an_earlier_recovery_nothing_stays() {
        let own = b"# Do not edit this file manually!\narchive_mode = 'on'\nwork_mem = '\xe4\xff'\nmax_connections = '7'";
        let earlier = format!("\n{BEGIN}\nmax_connections = '500'\n{BESIDE_ITS_ORIGINAL}{END}\n");
        let all = [&own[..], earlier.as_bytes(), b"port = '5433'\n"].concat();
        assert_eq!(without_ours(&all), [&own[..], b"\nport = '5433'\n"].concat());
        // ALTER SYSTEM wrote the file anew: its comments are gone.
        let anew = b"restore_command = 'false'\nrecovery_target_xid = '7'\narchive_mode = 'on'\n";
        assert_eq!(without_ours(anew), b"archive_mode = 'on'\n");
        assert_eq!(without_ours(own), [&own[..], b"\n"].concat());
    }
}
