//! `mainstay wal`: what PostgreSQL's `archive_command` and `restore_command` call, and what the archive holds.
//!
//! A push is done when the file is durable, and not before. A fetch tells apart what is not there (the end of the log, for
//! PostgreSQL) from what could not be had: for a server in recovery the difference is that between waiting and opening early.

pub mod check;
pub mod daemon;
pub mod disown;
pub(crate) mod each;
pub mod histories;
pub mod open;
pub mod patience;
pub mod receive;
pub mod retention;
pub mod slots;

use crate::{
    access::{self, Named},
    config::{Config, SourceConfig},
    points,
};
use mainstay_domain::{
    Clock, Failure, Kind, Lsn, Result, Time,
    wal::{Segment, SegmentSize, WalFile},
};
use mainstay_repository::{
    Repository, RepositoryError,
    wal::{Archive, Archived, Ends, Put},
};
use mainstay_sources::postgres::{
    cluster::control,
    wal::{Ancestry, Scanner, check_segment},
};
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write,
    path::Path,
    sync::Arc,
};

/// The repository of an application, or of the only one that has a cluster.
pub fn repository_for<'c>(config: &'c Config, app: Option<&str>) -> Result<Named<'c>> {
    if let Some(app) = app {
        return access::repository_of(config, app);
    }
    let has_cluster = |sources: &BTreeMap<String, SourceConfig>| {
        sources.values().any(|source| matches!(source, SourceConfig::Cluster(_)))
    };
    let mut apps = config.apps.iter().filter(|(_, app)| has_cluster(&app.sources));
    match (apps.next(), apps.next()) {
        (Some((name, _)), None) => access::repository_of(config, name),
        (None, _) => Err(Failure::usage("no application of the configuration has a source of kind cluster")
            .hint("Add one, or say whose repository: --app NAME.")),
        (Some(_), Some(_)) => Err(Failure::usage("several applications have a source of kind cluster")
            .hint("Say which: --app NAME.")),
    }
}

/// Archives the file at `path`, which PostgreSQL gives relative to the data directory that is the working directory.
pub fn push(config: &Config, app: Option<&str>, path: &Path, clock: Arc<dyn Clock>) -> Result<Put> {
    let incoming = Incoming::read(path)?;
    incoming.put(&access::open(config, &repository_for(config, app)?, clock)?)
}

/// The same for a person who knows that what is archived under its name is damaged: that is removed.
pub fn push_in_place_of_damage(
    config: &Config,
    app: Option<&str>,
    path: &Path,
    clock: Arc<dyn Clock>,
) -> Result<Put> {
    let Incoming { file, system, content } = Incoming::read(path)?;
    let repository = access::open(config, &repository_for(config, app)?, clock)?;
    let ends = ends_in(&file, &content);
    Ok(Archive::of(&repository, system).put_in_place_of_damage(&file, &content, ends)?)
}

/// A file that is to be archived, read and found to be what its name says.
struct Incoming {
    file: WalFile,
    system: u64,
    content: Vec<u8>,
}

impl Incoming {
    fn read(path: &Path) -> Result<Incoming> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let file: WalFile = name.parse().map_err(|error| Failure::usage(format!("{error}")))?;
        if let WalFile::Fragment(..) = file {
            return Err(Failure::usage(format!("{file} is no file of a server")));
        }
        let content = fs::read(path).map_err(|error| {
            Failure::failed(format!("{} cannot be read", path.display()))
                .hint("PostgreSQL runs archive_command in its data directory; by hand, give the whole path.")
                .caused_by(error)
        })?;
        let system = system_of(path, &file, &content)?;
        if let WalFile::Segment(segment) | WalFile::Partial(segment) = &file {
            check_segment(*segment, &content, system)?;
        }
        Ok(Incoming { file, system, content })
    }

    /// Returns only when it is durable.
    fn put(self, repository: &Repository) -> Result<Put> {
        let ends = ends_in(&self.file, &self.content);
        let put = Archive::of(repository, self.system).put(&self.file, &self.content, ends);
        put.map_err(|error| match Failure::from(error) {
            failure if failure.kind == Kind::Verification => failure.hint(format!(
                "What is archived under this name cannot be read. PostgreSQL keeps its own file. When you have looked into the store: \
                 `mainstay wal push --replace-damaged PATH`, with the path of {}.",
                self.file
            )),
            failure => failure,
        })
    }
}

/// Which cluster a file belongs to: a segment says so itself, and must agree with the data directory where that can be seen.
fn system_of(path: &Path, file: &WalFile, content: &[u8]) -> Result<u64> {
    let beside = path
        .parent()
        .and_then(Path::parent)
        .map(|data| if data.as_os_str().is_empty() { Path::new(".") } else { data });
    let directory = beside.filter(|data| data.join("global/pg_control").exists());
    let own = directory.map(control::read).transpose()?.map(|control| control.system);
    let said = match file {
        WalFile::Segment(_) | WalFile::Partial(_) => {
            mainstay_sources::postgres::wal::SegmentHeader::parse(content).map(|header| header.system)
        }
        WalFile::History(_) | WalFile::Backup(..) | WalFile::Fragment(..) => None,
    };
    own.or(said).ok_or_else(|| {
        Failure::usage(format!("it is not known which cluster {file} belongs to"))
            .hint("Give the path of the file in the data directory's pg_wal.")
    })
}

/// When transactions ended that end in this segment.
fn ends_in(file: &WalFile, content: &[u8]) -> Option<Ends> {
    let WalFile::Segment(segment) = file else { return None };
    let size = SegmentSize::try_from(content.len() as u64).ok()?;
    let mut ends: Option<Ends> = None;
    Scanner::default().feed(segment.start(size), content, |mark| {
        let Some(time) = mark.time() else { return };
        ends = Some(ends.map_or(Ends { first: time, last: time }, |ends| Ends {
            first: ends.first.min(time),
            last: ends.last.max(time),
        }));
    });
    ends
}

/// Fetches a file for a server in recovery into `path`. `false`: it is not in the archive.
pub fn fetch(
    config: &Config,
    app: Option<&str>,
    name: &str,
    path: &Path,
    clock: Arc<dyn Clock>,
) -> Result<bool> {
    // Names that are no files of the log are asked for too, by some tools; they are not there.
    let Ok(file) = name.parse::<WalFile>() else { return Ok(false) };
    if let WalFile::Fragment(..) = file {
        return Ok(false);
    }
    let named = repository_for(config, app)?;
    let repository = access::open(config, &named, clock)?;
    let system = control_of(path)?.system;
    match open::content_for_sure(&repository, system, &file)? {
        // The server itself makes it durable, if it keeps it.
        Some(content) => write(path, &content, false).map(|()| true),
        None => Ok(false),
    }
}

/// Which cluster is in recovery: that of the working directory, or the one to which the file goes.
fn control_of(path: &Path) -> Result<control::Control> {
    control::read(Path::new(".")).or_else(|failure| match path.parent().and_then(Path::parent) {
        Some(data) => control::read(data),
        None => Err(failure),
    })
}

/// Writes a file whole or not at all; if it is to be `durable`, only its directory's own entry is left to the caller.
pub(crate) fn write(path: &Path, content: &[u8], durable: bool) -> Result<()> {
    let failed = |error| Failure::failed(format!("{} cannot be written", path.display())).caused_by(error);
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".mainstay-new");
    let written = || -> std::io::Result<()> {
        let mut file = fs::File::create(&temporary)?;
        file.write_all(content)?;
        if durable {
            file.sync_all()?;
        }
        fs::rename(&temporary, path)
    };
    written().map_err(failed)
}

/// What is archived of one cluster.
#[derive(Debug, Clone, Serialize)]
pub struct ClusterStatus {
    pub system: u64,
    pub timelines: Vec<TimelineStatus>,
    pub stored_bytes: u64,
}

#[derive(Debug, Clone, Serialize)]
pub struct TimelineStatus {
    pub timeline: u32,
    /// Where it came from: the timeline before and the position.
    pub from: Option<String>,
    pub segments: usize,
    pub first: Option<String>,
    pub last: Option<String>,
    /// Segments that are missing on its line of history before its last one. What is missing on a timeline that it came from is
    /// told there.
    pub missing: Vec<String>,
    /// The timeline that branched off from it before its last segment: it is another history from there on.
    pub went_on: Option<u32>,
    /// Why it is not known where it came from, if its history is damaged.
    pub damaged: Option<String>,
    /// The segment that is still written to, if fragments of it are archived, and up to where.
    pub open: Option<String>,
    pub open_to: Option<Lsn>,
    /// When the last transaction ended that is archived.
    pub last_end: Option<Time>,
    pub stored_bytes: u64,
}

/// What a repository's archives hold.
pub fn status(repository: &Repository) -> Result<Vec<ClusterStatus>> {
    let systems = mainstay_repository::wal::systems(repository)?;
    let bases = check::bases_of(repository, &points::list(repository, None)?)?;
    let of = |system: u64| bases.get(&system).map_or(&[][..], |bases| &bases.0);
    let mut found = Vec::new();
    for system in systems {
        found.push(Holdings::read_in_part(repository, system)?.status(of(system))?);
    }
    Ok(found)
}

/// What is damaged says nothing.
fn unless_damaged<T>(read: Result<Option<T>, RepositoryError>) -> Result<Option<T>> {
    match read {
        Err(error) if error.is_damage() => Ok(None),
        other => Ok(other?),
    }
}

fn unknown_history(timeline: u32, why: &str) -> Failure {
    Failure::verification(format!("it is not known where timeline {timeline} came from: {why}")).hint(format!(
        "Push {timeline:08X}.history again from a server that has it in pg_wal, when the damaged one is removed; or follow another \
         timeline: --timeline N."
    ))
}

fn missing_history(timeline: u32) -> Failure {
    let name = WalFile::History(timeline);
    Failure::verification(format!(
        "it is not known where timeline {timeline} came from: its log is archived, and {name} is not"
    ))
    .hint(format!(
        "Push it from a server that has it in pg_wal: `mainstay wal push PATH`, with the path of {name}; or say which timeline is meant: \
         --timeline N."
    ))
}

/// The files of one cluster's archive, as they were when it was listed.
#[derive(Clone)]
pub struct Holdings<'r> {
    pub archive: Archive<'r>,
    pub system: u64,
    pub segment_size: SegmentSize,
    files: Vec<Archived>,
    segments: BTreeSet<Segment>,
    histories: BTreeMap<u32, Ancestry>,
    /// Histories that cannot be read, and why.
    damaged: BTreeMap<u32, String>,
}

impl<'r> Holdings<'r> {
    /// # Errors
    /// If the history of any timeline cannot be read: where it came from is not known then.
    pub fn read(repository: &'r Repository, system: u64) -> Result<Holdings<'r>> {
        let holdings = Holdings::read_in_part(repository, system)?;
        match holdings.damaged.iter().next() {
            None => Ok(holdings),
            Some((timeline, why)) => Err(unknown_history(*timeline, why)),
        }
    }

    /// The same for who asks for one line of history: that of another one may be damaged.
    pub fn read_in_part(repository: &'r Repository, system: u64) -> Result<Holdings<'r>> {
        let archive = Archive::of(repository, system);
        let files = archive.list()?;
        let mut segments = BTreeSet::new();
        let (mut histories, mut damaged) = (BTreeMap::new(), BTreeMap::new());
        let mut segment_size = None;
        for archived in &files {
            match &archived.file {
                WalFile::Segment(segment) => {
                    if segment_size.is_none() {
                        // One that is damaged does not hide what the others say.
                        segment_size = unless_damaged(archive.head(&archived.file))?.map(|head| head.bytes);
                    }
                    segments.insert(*segment);
                }
                WalFile::History(timeline) => {
                    let read = archive.get(&archived.file).map_err(Failure::from);
                    let text = match read {
                        Ok(text) => text.unwrap_or_default(),
                        Err(failure) if failure.kind == Kind::Verification => {
                            damaged.insert(*timeline, failure.message);
                            continue;
                        }
                        Err(failure) => return Err(failure),
                    };
                    match Ancestry::parse(*timeline, &String::from_utf8_lossy(&text)) {
                        Some(ancestry) => drop(histories.insert(*timeline, ancestry)),
                        None => {
                            let why = format!("{} of cluster {system} makes no sense", archived.file);
                            damaged.insert(*timeline, why);
                        }
                    }
                }
                WalFile::Partial(_) | WalFile::Backup(..) | WalFile::Fragment(..) => {}
            }
        }
        let segment_size = match segment_size {
            Some(bytes) => bytes.try_into().ok(),
            None => open::size_said_by_fragments(&archive, &files)?,
        };
        let segment_size = segment_size.unwrap_or(SegmentSize::DEFAULT);
        Ok(Holdings { archive, system, segment_size, files, segments, histories, damaged })
    }

    /// Refuses to take a timeline for one that came from nowhere, only because its history cannot be read.
    pub fn known_ancestry(&self, timeline: u32) -> Result<Ancestry> {
        match self.damaged.get(&timeline) {
            Some(why) => Err(unknown_history(timeline, why)),
            None => Ok(self.ancestry(timeline)),
        }
    }

    /// Refuses to go by what is known where a timeline after this one is archived that may have come from it: its history is not there.
    pub fn refuse_unknown_after(&self, timeline: u32) -> Result<()> {
        let is_unknown = |later: &u32| {
            *later > timeline && !self.histories.contains_key(later) && !self.damaged.contains_key(later)
        };
        match self.timelines().into_iter().find(is_unknown) {
            Some(unknown) => Err(missing_history(unknown)),
            None => Ok(()),
        }
    }

    /// The timelines whose histories cannot be read.
    pub fn damaged(&self) -> impl Iterator<Item = u32> + '_ {
        self.damaged.keys().copied()
    }

    pub fn has(&self, segment: Segment) -> bool {
        self.segments.contains(&segment)
    }

    /// The same, asked of the store where the listing does not show it: a listing may lag.
    pub fn has_by_now(&self, segment: Segment) -> Result<bool> {
        Ok(self.has(segment) || self.archive.has(&WalFile::Segment(segment))?)
    }

    pub fn segments(&self) -> impl Iterator<Item = Segment> + '_ {
        self.segments.iter().copied()
    }

    pub fn files(&self) -> &[Archived] {
        &self.files
    }

    /// A timeline's history, as far as it is archived.
    pub fn ancestry(&self, timeline: u32) -> Ancestry {
        self.histories.get(&timeline).cloned().unwrap_or_else(|| Ancestry::root(timeline))
    }

    /// Every timeline of which something is archived, in order.
    pub fn timelines(&self) -> Vec<u32> {
        let of_segments = self.begun().map(|segment| segment.timeline);
        of_segments
            .chain(self.histories.keys().copied())
            .chain(self.damaged())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }

    /// When the last transaction ended in the archived segments up to `last` of its timeline.
    pub fn last_end(&self, timeline: u32, up_to: Option<Segment>) -> Result<Option<Time>> {
        let of_timeline: Vec<Segment> = self.begun().filter(|s| s.timeline == timeline).collect();
        let counting = of_timeline.into_iter().rev();
        for segment in counting.filter(|segment| up_to.is_none_or(|last| *segment <= last)) {
            if let Some(ends) = self.ends_if_sound(segment)? {
                return Ok(Some(ends.last));
            }
        }
        Ok(None)
    }

    /// The same of one segment where trouble is no reason to give up what others say.
    fn ends_if_sound(&self, segment: Segment) -> Result<Option<Ends>> {
        match self.ends(segment) {
            Err(failure) if matches!(failure.kind, Kind::Verification | Kind::Refused) => Ok(None),
            other => other,
        }
    }

    fn status(&self, bases: &[check::Base]) -> Result<ClusterStatus> {
        let timelines = self.timelines().into_iter().map(|timeline| self.timeline(timeline, bases));
        let timelines = timelines.collect::<Result<_>>()?;
        Ok(ClusterStatus {
            system: self.system,
            timelines,
            stored_bytes: self.files.iter().map(|file| file.stored_bytes).sum(),
        })
    }

    /// The timeline that branched off from this one, although this one went on: segments are archived that lie beyond.
    pub fn went_on(&self, timeline: u32) -> Option<u32> {
        let size = self.segment_size;
        let last = self.begun().filter(|segment| segment.timeline == timeline).last()?;
        let left = |ancestry: &Ancestry| {
            let switch = ancestry.switches.last().filter(|switch| switch.from == timeline);
            switch.is_some_and(|switch| {
                last.number(size) > Segment::ending(timeline, switch.at, size).number(size)
            })
        };
        self.histories.values().find(|ancestry| left(ancestry)).map(|ancestry| ancestry.timeline)
    }

    /// What a replay along this line of history would lack, from the base backup on that was made last before all that is archived of
    /// it. The segment within which a timeline branches off is the new timeline's; the old one needs none.
    fn missing(&self, timeline: u32, own: &[Segment], bases: &[check::Base]) -> Vec<Segment> {
        const ENOUGH: usize = 1000;
        let (size, ancestry) = (self.segment_size, self.ancestry(timeline));
        let Some(last) = own.last() else { return Vec::new() };
        let on_line = own.iter().chain(&self.segments).filter(|s| ancestry.segment(**s, size) == **s);
        let Some(first) = on_line.min_by_key(|segment| segment.number(size)).copied() else {
            return Vec::new();
        };
        // What comes before the first archived segment is missing only to a base backup; an older one has the newer one after it.
        let ends = bases
            .iter()
            .filter(|(.., facts)| ancestry.includes(facts.timeline, facts.stop))
            .map(|(.., facts)| Segment::holding(facts.timeline, facts.stop, size))
            .filter(|segment| segment.number(size) < first.number(size));
        let mut at = ends.max_by_key(|segment| segment.number(size)).unwrap_or(first);
        let mut ends: BTreeMap<u32, u64> = BTreeMap::new();
        for segment in &self.segments {
            let end = ends.entry(segment.timeline).or_default();
            *end = segment.number(size).max(*end);
        }
        let mut missing = Vec::new();
        while at.number(size) < last.number(size) && missing.len() < ENOUGH {
            let wanted = ancestry.segment(at, size);
            let told_there = wanted.timeline != timeline
                && ends.get(&wanted.timeline).is_some_and(|end| wanted.number(size) < *end);
            if !told_there && !self.has(wanted) {
                missing.push(wanted);
            }
            at = at.next(size);
        }
        missing
    }

    fn timeline(&self, timeline: u32, bases: &[check::Base]) -> Result<TimelineStatus> {
        let own: Vec<Segment> = self.segments.iter().filter(|s| s.timeline == timeline).copied().collect();
        let begun: Vec<Segment> = self.begun().filter(|s| s.timeline == timeline).collect();
        let missing = self.missing(timeline, &begun, bases).iter().map(ToString::to_string).collect();
        let open = self.open_segment(timeline);
        let reach = open.map(|segment| self.reach(segment));
        let from =
            self.ancestry(timeline).switches.last().map(|switch| format!("{} at {}", switch.from, switch.at));
        let stored = self.files.iter().filter(|archived| archived.file.timeline() == timeline);
        Ok(TimelineStatus {
            timeline,
            from,
            segments: own.len(),
            first: own.first().map(ToString::to_string),
            last: own.last().map(ToString::to_string),
            missing,
            went_on: self.went_on(timeline),
            damaged: self.damaged.get(&timeline).cloned(),
            open: open.map(|segment| segment.to_string()),
            open_to: match reach {
                Some(Ok(reach)) => reach,
                // Told as what it is, and no reason not to tell the rest.
                Some(Err(failure)) if failure.kind != Kind::Failed => None,
                Some(Err(failure)) => return Err(failure),
                None => None,
            },
            last_end: self.last_end(timeline, None)?,
            stored_bytes: stored.map(|archived| archived.stored_bytes).sum(),
        })
    }
}

/// What PostgreSQL is to do after a fetch that failed: not take it for the end of the log.
pub const FETCH_FAILED: u8 = 126;
/// What it is to understand as "not there".
pub const NOT_THERE: u8 = 1;

/// The exit code of a push that failed: PostgreSQL counts it and tries again. Above 125 it would not count.
pub fn push_exit_code(kind: Kind) -> u8 {
    kind.exit_code().clamp(1, 125)
}
