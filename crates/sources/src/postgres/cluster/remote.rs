//! A base backup of a server elsewhere: the same record as of a data directory (`capture`), made of what the server streams.
//!
//! The server reads its files one after the other, leaves out what belongs to it alone, and sends the control file last and then
//! the log; it reads a page that looks torn again before it sends it. Pages, frames and patches, and what counts as damage, are the
//! same as for a directory. Entries come in the server's order, and are held until they can be written in ours: what is held does
//! not grow with the files' size, only with their number.

use super::{
    BACKUP_LABEL, CONTROL, ClusterConfig, LISTING, Options, Server, TABLESPACE, TABLESPACE_MAP, WAL,
    basis::{self, Basis},
    capture::{counts, facts_of, put_bytes, record_of},
    entries,
    exclude::{self, Place, RelationFile},
    facts::{Captured, Tablespace, read_recently},
    increment::{self, Changes, is_ground},
    old::OldFiles,
    pages::{Checking, FRAME, PageHasher, SLICE},
    read::{self, Part},
    server::{clock_of, connect, timeline_of_label},
    shared::{Shared, Suspects, Tally, add},
    tar::{Archives, Kind, Member},
};
use crate::{
    files::{Leaves, Problems, show_path},
    postgres::{
        replication::{Extent, Files, Session, Trouble},
        wal::check_header,
        wire::{ConnectSpec, ServerMessage},
    },
};
use mainstay_domain::{
    Failure, Monitor, Result, Severity,
    listing::{self, Entry, FileKind, FileTime},
    point::{SourceRecord, Stream},
    stream::{Content, PAGE, Pool, Sink},
    wal::WalFile,
};
use std::{
    collections::BTreeMap,
    io::Read as _,
    path::Path,
    sync::{Arc, atomic::Ordering},
};

/// The first version that streams a base backup in this way.
const FIRST: u32 = 15;
/// The largest file that is held whole: the backup's label, the tablespaces' map, the control file.
const LARGEST_HELD: u64 = 64 << 20;

/// What a cluster says of itself; an error if its server does not let itself be backed up over the replication protocol.
pub fn probe(config: &ClusterConfig) -> Result<Server> {
    let spec = config.connect_spec()?;
    let server = Server::ask(&mut connect(&spec)?)?;
    if server.version_num / 10_000 < FIRST {
        return Err(Failure::preflight(format!(
            "base backups over the replication protocol need PostgreSQL {FIRST} or later, and this server is {}",
            server.version_num / 10_000
        ))
        .hint("Run Mainstay on the server's own machine, where it can read the data directory."));
    }
    let identity = session(&spec)?.identify().map_err(Trouble::into_failure)?;
    if identity.system != server.system {
        return Err(Failure::preflight("the replication session leads to another cluster than the address")
            .hint("Give the address of the server itself, not of a pooler or balancer."));
    }
    Ok(server)
}

fn session(spec: &ConnectSpec) -> Result<Session> {
    // Not the name that the receiver of the log has, for which a server may wait.
    Session::open(spec, "mainstay_backup").map_err(Trouble::into_failure)
}

/// See [`capture`](super::capture()).
pub fn capture(
    config: &ClusterConfig,
    server: &Server,
    sink: &dyn Sink,
    options: &Options<'_>,
    monitor: &dyn Monitor,
) -> Result<SourceRecord> {
    let spec = config.connect_spec()?;
    monitor.step("base backup", None);
    let found = basis::find(options, server, &mut session(&spec)?, sink)?;
    let why = match found {
        Ok(basis) => match stream(&spec, sink, options, monitor, Ok(&basis)) {
            Ok(record) => return Ok(record),
            Err(Ended::Failed(failure)) => return Err(failure),
            Err(Ended::Refused(failure)) => {
                let mut why = failure.message.clone();
                if let Some(hint) = &failure.hint {
                    why = format!("{why}. {hint}");
                }
                let message = format!("the server sends the base backup as a whole: {why}");
                monitor.notice(Severity::Info, &message);
                Some(why)
            }
        },
        Err(why) => why,
    };
    stream(&spec, sink, options, monitor, Err(why)).map_err(|ended| match ended {
        Ended::Refused(failure) | Ended::Failed(failure) => failure,
    })
}

/// Why a backup ended early.
enum Ended {
    /// The server does not build on the backup before, or what is stored of it cannot be read: a whole one will do.
    Refused(Failure),
    Failed(Failure),
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Ended {
        Ended::Failed(failure)
    }
}

impl From<Trouble> for Ended {
    fn from(trouble: Trouble) -> Ended {
        Ended::Failed(trouble.into_failure())
    }
}

/// Captures what the server streams: what changed since a backup, or everything.
fn stream(
    spec: &ConnectSpec,
    sink: &dyn Sink,
    options: &Options<'_>,
    monitor: &dyn Monitor,
    basis: Result<&Basis<'_>, Option<String>>,
) -> Result<SourceRecord, Ended> {
    let started = options.clock.now();
    // While this session lives, its slot keeps the log that the server sends at the end.
    let mut keeper = session(spec)?;
    let slot = format!("mainstay_backup_{}", keeper.process_id());
    if let Err(trouble) = keeper.create_temporary_slot(&slot) {
        let message = format!(
            "the WAL that the backup needs is not held by a slot ({}); if the server removes it first, the backup fails",
            trouble.into_failure()
        );
        monitor.notice(Severity::Info, &message);
    }
    let mut streaming = session(spec)?;
    let label = format!("mainstay {started}");
    let not_built_on = |trouble| match trouble {
        Trouble::Gone(failure) => Ended::Refused(failure),
        // What is stored of the backup before makes no sense.
        Trouble::Other(failure) if failure.kind == mainstay_domain::Kind::Verification => {
            Ended::Refused(failure)
        }
        other => other.into(),
    };
    let (extent, captured) = match &basis {
        Ok(basis) => {
            streaming.upload_manifest(|out| basis.write_manifest(out)).map_err(not_built_on)?;
            (Extent::Changed, Captured::Increment { since: basis.since() })
        }
        Err(why) => (Extent::Whole, Captured::Whole { why: why.clone() }),
    };
    // Until the server has read its own log up to here, and summarized it, it sends nothing, and says so every ten seconds.
    let mut hear = |said: &ServerMessage| {
        monitor.notice(Severity::Info, &format!("the server says: {}", said.message));
    };
    let mut backup = match basis {
        Ok(_) => streaming.base_backup(&label, extent, &mut hear).map_err(not_built_on)?,
        Err(_) => streaming.base_backup(&label, extent, &mut hear)?,
    };
    if let Ok(basis) = &basis
        && backup.timeline != basis.timeline
    {
        let message = "the server went over to another timeline before the backup began";
        return Err(Ended::Refused(Failure::failed(message)));
    }
    // What was made until now is in none of the log that will be replayed.
    let mut server = Server::ask(&mut connect(spec)?)?;
    server.tablespaces = known_tablespaces(&server, &backup.tablespaces)?;

    let (start, begun_on) = (backup.start, backup.timeline);
    let problems = Problems::default();
    let tally = Tally::default();
    let suspects = Suspects::default();
    let judged = server.data_checksums && server.block_size as usize == PAGE;
    let shared = Shared {
        sink,
        hasher: PageHasher::new(&options.page_key),
        full: options.full,
        stopped: false,
        checking: judged.then_some(Checking { since: start }),
        threads: 1,
        clock: options.clock,
        monitor,
        problems: &problems,
        tally: &tally,
        suspects: &suspects,
    };

    // The files, as they come.
    let mut taken = Taken::default();
    let mut streams = Vec::new();
    let mut archives = Archives::new(&mut backup);
    while let Some(tablespace) = archives.next_archive()? {
        let name = match tablespace {
            Some(oid) => format!("{TABLESPACE}{oid}"),
            None => LISTING.to_owned(),
        };
        let mut archive = Archive {
            shared: &shared,
            server: &server,
            tablespace,
            old: OldFiles::of(options.previous, &name, basis.is_ok()),
            increment: basis.is_ok(),
            blocks: BTreeMap::new(),
            owner: None,
            taken: &mut taken,
        };
        archive.read(&mut archives).map_err(|failure| match failure.kind {
            mainstay_domain::Kind::Verification if basis.is_ok() => Ended::Refused(failure),
            _ => Ended::Failed(failure),
        })?;
        let Archive { blocks, owner, .. } = archive;
        streams.push(Stream { name, content: write_listing(sink, blocks, owner, options)? });
    }
    drop(archives);

    // The end, and whether all has come.
    let finished = backup.finish()?;
    let stopped_at = clock_of(&mut connect(spec)?)?;
    if finished.timeline != begun_on {
        return Err(Failure::failed(format!(
            "the standby went over from timeline {begun_on} to {} during its backup",
            finished.timeline
        ))
        .hint("Another server was promoted meanwhile: run the backup again.")
        .into());
    }
    all_has_come(&finished.listed, &taken.files)?;
    suspects.judge(finished.stop, &problems, &tally);
    if finished.damaged && tally.bad_blocks.load(Ordering::Relaxed) == 0 {
        problems.add(
            Severity::Error,
            "",
            "the server found pages with wrong checksums while it read its files",
        );
    }
    for notice in streaming.take_notices().iter().filter(|notice| notice.severity == "WARNING") {
        // Pages that are wrong are named already.
        if !notice.message.contains("checksum") {
            problems.add(Severity::Warning, "", notice.message.clone());
        }
    }

    let lacks = |what: &str| {
        Failure::failed(format!("the server's base backup lacks {what}")).hint("Run the backup again.")
    };
    let mut keep = |name: String, content: Content| streams.push(Stream { name, content });
    keep(
        CONTROL.into(),
        put_bytes(sink, taken.control.as_deref().ok_or_else(|| lacks("the control file"))?)?,
    );
    let label = taken.label.as_deref().ok_or_else(|| lacks("its label"))?;
    let timeline = timeline_of_label(&String::from_utf8_lossy(label))
        .ok_or_else(|| Failure::failed("the server's backup label names no timeline"))?;
    keep(BACKUP_LABEL.into(), put_bytes(sink, &label_of_whole(label))?);
    if let Some(map) = taken.map.as_deref().filter(|map| !map.is_empty()) {
        keep(TABLESPACE_MAP.into(), put_bytes(sink, map)?);
    }
    let mut facts = facts_of(&server, Path::new(""), timeline, start, finished.stop);
    facts.stopped_at = Some(stopped_at);
    for segment in facts.segments().collect::<Vec<_>>() {
        let file = WalFile::Segment(segment);
        let content = taken.log.remove(&file).ok_or_else(|| lacks(&format!("the WAL segment {segment}")))?;
        keep(format!("{WAL}{segment}"), content);
        facts.wal.push(segment.to_string());
    }
    for (file, content) in taken.log.iter().filter(|(file, _)| matches!(file, WalFile::History(_))) {
        keep(format!("{WAL}{file}"), content.clone());
    }
    for path in server.config_files.iter().filter(|path| !path.starts_with(&facts.data_directory)) {
        let message = "this configuration file is not in the backup: it lies outside of the data directory, and the replication \
                       protocol does not bring it";
        problems.add(Severity::Warning, path.display().to_string(), message);
    }
    drop(keeper);
    monitor.done("base backup", &format!("{} to {}", facts.start, facts.stop));
    facts.counts = counts(&tally);
    // What the server sends as a whole it has read.
    let before = options.previous.filter(|_| basis.is_ok());
    facts.read_whole = before.and_then(|(_, record)| read_recently(record, started)).or(Some(started));
    facts.captured = Some(captured);
    Ok(record_of(streams, &facts, problems, started, options.clock.now()))
}

/// The tablespaces that the backup has, with their names.
fn known_tablespaces(server: &Server, streamed: &[(u32, String)]) -> Result<Vec<Tablespace>> {
    streamed
        .iter()
        .map(|(oid, location)| match server.tablespaces.iter().find(|space| space.oid == *oid) {
            Some(space) => Ok(space.clone()),
            None if Path::new(location).is_absolute() => {
                // Dropped in between.
                Ok(Tablespace { oid: *oid, name: oid.to_string(), location: location.into() })
            }
            None => {
                Err(Failure::preflight(format!("the tablespace {oid} lies in the data directory itself"))
                    .hint("Such a cluster can be backed up from its data directory only: method: files."))
            }
        })
        .collect()
}

/// What is no entry of a listing.
#[derive(Default)]
struct Taken {
    control: Option<Vec<u8>>,
    label: Option<Vec<u8>>,
    map: Option<Vec<u8>>,
    log: BTreeMap<WalFile, Content>,
    /// The files that came, by their paths in the server's manifest.
    files: Files,
}

/// The backup label of an incremental backup, as that of a whole one: a server does not start on one that says otherwise, and all is
/// there. Source: PostgreSQL, `src/bin/pg_combinebackup/backup_label.c`.
fn label_of_whole(label: &[u8]) -> Vec<u8> {
    label
        .split_inclusive(|byte| *byte == b'\n')
        .filter(|line| !line.starts_with(b"INCREMENTAL FROM "))
        .flatten()
        .copied()
        .collect()
}

/// The blocks of a listing, in its order: a directory's path in parts, and its entries by name, encoded.
type Blocks = BTreeMap<Vec<Vec<u8>>, BTreeMap<Vec<u8>, Box<[u8]>>>;

/// One archive on its way into a listing.
struct Archive<'a, 'v> {
    shared: &'a Shared<'a>,
    server: &'a Server,
    tablespace: Option<u32>,
    old: OldFiles<'v>,
    /// Of files that the backup before has, only what changed may come.
    increment: bool,
    blocks: Blocks,
    /// Whose the files are.
    owner: Option<(u32, u32)>,
    taken: &'a mut Taken,
}

impl Archive<'_, '_> {
    fn read(&mut self, archives: &mut Archives<'_, '_>) -> Result<()> {
        self.blocks.insert(Vec::new(), BTreeMap::new());
        while let Some(member) = archives.next_member()? {
            if self.shared.monitor.cancelled() {
                return Err(Failure::new(mainstay_domain::Kind::Cancelled, "the base backup was stopped"));
            }
            if member.kind == Kind::File {
                let path = match self.tablespace {
                    Some(oid) => [format!("pg_tblspc/{oid}/").as_bytes(), &member.path].concat(),
                    None => member.path.clone(),
                };
                self.taken.files.add(&path, member.size);
            }
            self.member(&member, archives)?;
        }
        Ok(())
    }

    fn member(&mut self, member: &Member, archives: &mut Archives<'_, '_>) -> Result<()> {
        let in_tablespace = self.tablespace.is_some();
        let (directory, sent_name) = split_path(&member.path);
        let in_relations = exclude::place_of(directory, in_tablespace) == Place::Relations;
        let may_be_part = self.increment && in_relations && member.kind == Kind::File;
        let part_of = may_be_part.then(|| increment::real_name(sent_name)).flatten();
        let name = part_of.unwrap_or(sent_name);
        let top = directory.is_empty() && !in_tablespace;
        match (top, member.kind, name) {
            (true, Kind::File, b"backup_label") => {
                self.taken.label = Some(held(member, archives)?);
                return Ok(());
            }
            (true, Kind::File, b"tablespace_map") => {
                self.taken.map = Some(held(member, archives)?);
                return Ok(());
            }
            _ => {}
        }
        if !in_tablespace && member.path == exclude::CONTROL.as_bytes() {
            self.taken.control = Some(held(member, archives)?);
            return Ok(());
        }
        if !in_tablespace && directory == b"pg_wal" && member.kind == Kind::File {
            return self.log(name, member, archives);
        }
        let first = member.path.split(|byte| *byte == b'/').next().unwrap_or_default();
        let emptied = !in_tablespace && !directory.is_empty() && exclude::is_emptied(first);
        // Below the log's directory the server expects two others.
        let kept = !emptied || first == b"pg_wal" && directory == b"pg_wal" && member.kind == Kind::Directory;
        let left_out = exclude::is_left_out(directory, name, in_tablespace)
            || !in_tablespace && directory == b"pg_tblspc"
            || member.kind == Kind::Symlink;
        if !kept || left_out {
            return Ok(());
        }
        let mut entry = entry_of(member, name);
        match member.kind {
            Kind::Directory => {
                add(&self.shared.tally.directories, 1);
                self.blocks.entry(parts(&member.path)).or_default();
            }
            _ if part_of.is_some() => self.changes(member, directory, &mut entry, archives)?,
            _ => {
                let relation = in_relations.then(|| RelationFile::parse(name)).flatten();
                self.file(member, directory, relation, &mut entry, archives)?;
            }
        }
        self.owner.get_or_insert((entry.uid, entry.gid));
        self.put(directory, &entry);
        Ok(())
    }

    fn put(&mut self, directory: &[u8], entry: &Entry) {
        put_entry(&mut self.blocks, parts(directory), entry);
    }

    /// A relation file of which the server sends what changed.
    fn changes(
        &mut self,
        member: &Member,
        directory: &[u8],
        entry: &mut Entry,
        archives: &mut Archives<'_, '_>,
    ) -> Result<()> {
        let shared = self.shared;
        let shown = show_path(&listing::join(directory, &entry.name));
        let Some((vault, old)) = self.old.take(directory, &entry.name).filter(|(_, old)| is_ground(old))
        else {
            return Err(Failure::verification(format!("{shown} cannot be found in the backup before")));
        };
        add(&shared.tally.files, 1);
        let mut read = |out: &mut [u8]| archives.read(out);
        let changes = Changes::read(member.size, &mut read).map_err(|failure| failure.during(&shown))?;
        increment::lay_over(shared, vault, &old, &changes, &mut read, entry, &shown)
            .map_err(|failure| failure.during(&shown))?;
        shared.monitor.advance(1, entry.size);
        Ok(())
    }

    fn file(
        &mut self,
        member: &Member,
        directory: &[u8],
        relation: Option<RelationFile>,
        entry: &mut Entry,
        archives: &mut Archives<'_, '_>,
    ) -> Result<()> {
        let (shared, size) = (self.shared, member.size);
        add(&shared.tally.files, 1);
        add(&shared.tally.bytes, size);
        if size == 0 {
            entry.content = Some(Content::default());
            return Ok(());
        }
        let sliced = relation.is_some() && size > FRAME as u64;
        let length = if sliced { SLICE } else { size };
        let count = size.div_ceil(length) as usize;
        let old = sliced.then(|| self.old.take(directory, &entry.name)).flatten();
        let mut before = old.and_then(|(vault, old)| entries::before(vault, &old, count));
        let shown = show_path(&member.path);
        let mut slices = Vec::with_capacity(count);
        for slot in 0..count {
            let offset = slot as u64 * length;
            let part = Part { relation, sliced, offset, length: length.min(size - offset) };
            let before = before.as_mut().map(|slices| std::mem::take(&mut slices[slot]));
            let mut come = 0;
            // What the server sent cannot be asked for again; it has looked twice at a page that seemed torn.
            let mut fill = |out: &mut [u8], at: u64| match at < come {
                true => Ok(()),
                false => {
                    come = at + out.len() as u64;
                    archives.read(out)
                }
            };
            let stored = read::store(shared, &part, before.as_ref(), &mut fill);
            slices.push(stored.map_err(|failure| failure.during(&shown))?);
            shared.monitor.advance(u64::from(slot == 0), part.length);
        }
        entries::finish(shared, entry, slices.into_iter(), &shown)
    }

    /// A file of the log: a segment, or where a timeline came from.
    fn log(&mut self, name: &[u8], member: &Member, archives: &mut Archives<'_, '_>) -> Result<()> {
        let file = std::str::from_utf8(name).ok().and_then(|name| name.parse().ok());
        let content = match &file {
            Some(WalFile::Segment(segment)) => {
                let mut head = vec![0; member.size.min(64) as usize];
                archives.read(&mut head)?;
                check_header(*segment, &head, member.size, self.server.system)?;
                let mut reader = head.chain(archives.rest());
                self.shared.sink.put_reader(Pool::Data, &mut reader)?
            }
            Some(WalFile::History(_)) => put_bytes(self.shared.sink, &held(member, archives)?)?,
            _ => return Ok(()),
        };
        self.taken.log.extend(file.map(|file| (file, content)));
        Ok(())
    }
}

/// A small file's bytes.
fn held(member: &Member, archives: &mut Archives<'_, '_>) -> Result<Vec<u8>> {
    if member.size > LARGEST_HELD {
        let shown = show_path(&member.path);
        return Err(Failure::failed(format!(
            "{shown} has {} bytes in the server's base backup",
            member.size
        )));
    }
    let mut bytes = vec![0; member.size as usize];
    archives.read(&mut bytes)?;
    Ok(bytes)
}

fn split_path(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

fn parts(path: &[u8]) -> Vec<Vec<u8>> {
    match path {
        b"" => Vec::new(),
        path => path.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect(),
    }
}

/// What an archive says of a file. Its metadata prove nothing to a later backup, which has other ones to compare with.
pub(super) fn entry_of(member: &Member, name: &[u8]) -> Box<Entry> {
    let modified = FileTime { seconds: member.modified, nanoseconds: 0 };
    Box::new(Entry {
        name: name.to_vec(),
        kind: if member.kind == Kind::Directory { FileKind::Directory } else { FileKind::Regular },
        mode: member.mode,
        uid: member.uid,
        gid: member.gid,
        size: member.size,
        modified,
        changed: modified,
        inode: 0,
        device: 0,
        links: None,
        device_node: None,
        target: None,
        xattrs: None,
        content: None,
        doubt: None,
        fresh: Some(true),
        deleted: None,
        pages: None,
    })
}

fn put_entry(blocks: &mut Blocks, directory: Vec<Vec<u8>>, entry: &Entry) {
    let mut encoded = Vec::new();
    listing::encode_entry(entry, &mut encoded);
    blocks.entry(directory).or_default().insert(entry.name.clone(), encoded.into());
}

/// Writes the listing, when all of an archive has come. The root itself is in no archive: it is like what lies in it.
fn write_listing(
    sink: &dyn Sink,
    mut blocks: Blocks,
    owner: Option<(u32, u32)>,
    options: &Options<'_>,
) -> Result<Content> {
    let (uid, gid) = owner.unwrap_or_default();
    let root = Member {
        path: Vec::new(),
        kind: Kind::Directory,
        mode: 0o700,
        uid,
        gid,
        size: 0,
        modified: options.clock.now().0 / mainstay_domain::time::SECOND,
    };
    put_entry(&mut blocks, Vec::new(), &entry_of(&root, b""));
    let mut leaves = Leaves::new(sink);
    for (path, entries) in blocks {
        let path: Arc<[u8]> = path.join(&b'/').into();
        leaves.directory(&path, true);
        for (name, encoded) in entries {
            leaves.entry(&name, &encoded)?;
        }
    }
    leaves.finish()
}

/// Holds what came against the server's own list.
fn all_has_come(listed: &Files, came: &Files) -> Result<()> {
    if listed == came {
        return Ok(());
    }
    Err(Failure::failed(format!(
        "the server's manifest of the base backup lists {} files, and not the {} that came, in their sizes",
        listed.count, came.count
    ))
    .hint("Run the backup again."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_label_of_an_increment_becomes_that_of_a_whole_backup() {
        let whole =
            "START WAL LOCATION: 0/6000028 (file 000000010000000000000006)\nLABEL: x\nSTART TIMELINE: 1\n";
        let sent = format!("{whole}INCREMENTAL FROM LSN: 0/2000028\nINCREMENTAL FROM TLI: 1\n");
        assert_eq!(label_of_whole(sent.as_bytes()), whole.as_bytes());
        assert_eq!(label_of_whole(whole.as_bytes()), whole.as_bytes());
    }
}
