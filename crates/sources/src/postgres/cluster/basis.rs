//! Whether the server can send only what changed since the backup before, and that backup's manifest for it.
//!
//! The server judges by the positions that the manifest names, and knows nothing else of that backup. What it cannot know is judged
//! here: whether its history is the one in which that backup was made, and whether files were rewritten without a word in the log.

use super::{
    ClusterFacts, LISTING, Options, Server, TABLESPACE, WAL,
    exclude::{self, Place},
    facts::read_recently,
    increment::is_ground,
    manifest::ManifestWriter,
};
use crate::{
    files::{Browse, Step, adopted},
    postgres::{
        replication::{Session, Trouble},
        wal::Ancestry,
    },
};
use mainstay_domain::{
    Failure, Kind, Lsn, Result,
    listing::{self, Entry},
    point::{SourceRecord, State},
    stream::{PAGE, Sink, Vault},
    wal::WalFile,
};
use std::io::{self, Write};

/// The first version that summarizes its log.
const FIRST: u32 = 17;

/// A backup that an increment is built on.
pub struct Basis<'a> {
    pub vault: &'a dyn Vault,
    pub record: &'a SourceRecord,
    facts: ClusterFacts,
    /// The timeline that the server is on, whose history is the one of the record.
    pub timeline: u32,
}

/// The basis of the next backup, or why there is none; a server or a repository that has nothing to build on needs no reason.
pub fn find<'a>(
    options: &Options<'a>,
    server: &Server,
    session: &mut Session,
    sink: &dyn Sink,
) -> Result<Result<Basis<'a>, Option<String>>> {
    let none = |why: &str| Ok(Err(Some(why.to_owned())));
    let Some((vault, record)) = options.previous else { return Ok(Err(None)) };
    if server.version_num / 10_000 < FIRST {
        return Ok(Err(None));
    }
    if options.full {
        return none("everything was to be read again");
    }
    let summarizes = session.setting("summarize_wal").map_err(Trouble::into_failure)? == "on";
    if summarizes && read_recently(record, options.clock.now()).is_none() {
        return none("everything is read again once a week");
    }
    if !summarizes {
        return none("summarize_wal is off on the server");
    }
    let Ok(facts) = ClusterFacts::from_json(&record.facts) else {
        return none("the description of the backup before cannot be read");
    };
    if record.state != State::Complete {
        return none("the backup before is not complete");
    }
    if facts.system != server.system {
        return none("the backup before is of another cluster");
    }
    if [facts.block_size, server.block_size].iter().any(|size| *size as usize != PAGE) {
        return none("the server's pages have an unusual size");
    }
    // Which block of a relation a file begins with, and how long it may be, follow from it (`--with-segsize`).
    if session.setting("segment_size").map_err(Trouble::into_failure)? != "1GB" {
        return none("the server's tables lie in files of an unusual size");
    }
    // They are switched while the server is down: every page is written anew then, and the log has nothing of it.
    if facts.data_checksums != server.data_checksums {
        return none("the server's data checksums were switched since the backup before");
    }
    let basis = Basis { vault, record, facts, timeline: 0 };
    let identity = session.identify().map_err(Trouble::into_failure)?;
    if identity.flushed < basis.facts.stop {
        return none("the server's WAL has not come to where the backup before ended");
    }
    let history = match identity.timeline {
        1 => Ancestry::root(1),
        timeline => {
            let Ok(text) = session.history(timeline) else {
                return none("the server does not have the history of its timeline");
            };
            match Ancestry::parse(timeline, &String::from_utf8_lossy(&text)) {
                Some(history) => history,
                None => return none("the history of the server's timeline cannot be read"),
            }
        }
    };
    let before = basis.history();
    if !goes_on(&history, before.as_ref(), basis.facts.timeline, basis.facts.stop) {
        return none("the backup before was made in another history than the server's");
    }
    // A repository in which nothing may be relied on takes everything anew.
    let mut first = None;
    let looked = basis.each_file(&mut |_, entry| {
        first = entry.content.clone().filter(|content| entry.size > 0 && !content.pieces.is_empty());
        Ok(first.is_none())
    });
    match looked {
        Err(failure) if failure.kind == Kind::Verification => {
            return none("what is stored of the backup before makes no sense");
        }
        looked => looked?,
    }
    match first {
        Some(content) if adopted(sink, &content)? => Ok(Ok(Basis { timeline: identity.timeline, ..basis })),
        _ => none("what is stored of the backup before cannot be relied on"),
    }
}

/// Whether what was made on `timeline` up to `stop` is part of a server's history. Two servers that were promoted each for itself
/// count their timelines alike: so the histories are compared, too, where the record holds its own.
fn goes_on(server: &Ancestry, before: Option<&Ancestry>, timeline: u32, stop: Lsn) -> bool {
    let same = before.is_none_or(|before| {
        let told = server.switches.iter().zip(&before.switches);
        before.switches.len() <= server.switches.len()
            && told.into_iter().all(|(now, then)| (now.from, now.at) == (then.from, then.at))
    });
    same && server.includes(timeline, stop)
}

impl Basis<'_> {
    /// From where on the server is to look for changes.
    pub fn since(&self) -> Lsn {
        self.facts.start
    }

    /// The history of the record's timeline, if the record holds it.
    fn history(&self) -> Option<Ancestry> {
        let timeline = self.facts.timeline;
        let stream = self.record.stream(&format!("{WAL}{}", WalFile::History(timeline)))?;
        let mut text = Vec::new();
        self.vault.copy(&stream.content, &mut text).ok()?;
        Ancestry::parse(timeline, &String::from_utf8_lossy(&text))
    }

    /// Writes the record's manifest: of the files on which an increment may be built, since the server sends all others whole.
    pub fn write_manifest(&self, out: &mut dyn Write) -> Result<()> {
        let unsent = |error: io::Error| {
            Failure::failed("the manifest could not be sent to the server").caused_by(error)
        };
        let mut writer = ManifestWriter::begin(out, Some(self.facts.system)).map_err(unsent)?;
        self.each_file(&mut |path, entry| {
            writer.file(path, entry.size, None).map_err(unsent)?;
            Ok(true)
        })?;
        writer.finish(Some((self.facts.timeline, self.facts.start, self.facts.stop))).map_err(unsent)
    }

    /// Calls `each` with every file on which an increment may be built and its path in the server's manifest, until it says `false`.
    /// What a damaged part of a listing named is passed over.
    fn each_file(&self, each: &mut dyn FnMut(&[u8], &Entry) -> Result<bool>) -> Result<()> {
        for stream in &self.record.streams {
            let tablespace = stream.name.strip_prefix(TABLESPACE);
            let below = match tablespace {
                Some(oid) => format!("pg_tblspc/{oid}/"),
                None if stream.name == LISTING => String::new(),
                None => continue,
            };
            let mut directory = Vec::new();
            for step in Browse::all(self.vault, &stream.content, false) {
                match step? {
                    Step::Directory(path) => directory = path,
                    Step::Entry(entry)
                        if exclude::place_of(&directory, tablespace.is_some()) == Place::Relations
                            && is_ground(&entry) =>
                    {
                        let path = [below.as_bytes(), &listing::join(&directory, &entry.name)].concat();
                        if !each(&path, &entry)? {
                            return Ok(());
                        }
                    }
                    Step::Entry(_) | Step::Lost(_) => {}
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_of_another_history_is_none_to_build_on() {
        let parse = |timeline, text: &str| Ancestry::parse(timeline, text).unwrap();
        let at = |text: &str| text.parse::<Lsn>().unwrap();
        let server = parse(3, "1\t0/5000000\tx\n2\t0/9000000\ty\n");
        let of_second = parse(2, "1\t0/5000000\tx\n");
        assert!(goes_on(&server, None, 1, at("0/4000000")));
        assert!(
            !goes_on(&server, None, 1, at("0/5000001")),
            "it ended after the server had left its timeline"
        );
        assert!(goes_on(&server, Some(&of_second), 2, at("0/8000000")));
        let other_second = parse(2, "1\t0/4000000\tx\n");
        assert!(!goes_on(&server, Some(&other_second), 2, at("0/8000000")), "another's second timeline");
        assert!(!goes_on(&of_second, Some(&server), 3, at("0/9000001")), "the server went back");
    }
}
