//! What a base backup records of itself, as JSON in its record: all that a restore must know before it writes a byte.

use mainstay_domain::{
    Failure, Time,
    point::SourceRecord,
    time::DAY,
    wal::{Lsn, Segment, SegmentSize},
};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

pub const FACTS_VERSION: u32 = 1;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ClusterFacts {
    pub version: u32,
    /// Which cluster this is, for ever: `pg_controldata`, "Database system identifier".
    pub system: u64,
    /// `server_version_num`.
    pub version_num: u32,
    pub version_text: String,
    pub data_directory: PathBuf,
    pub segment_size: SegmentSize,
    pub block_size: u32,
    pub data_checksums: bool,
    /// Taken from a standby.
    pub from_standby: bool,
    pub timeline: u32,
    /// Where replay begins.
    pub start: Lsn,
    /// Where the backup is consistent: replay must reach at least this.
    pub stop: Lsn,
    pub tablespaces: Vec<Tablespace>,
    /// Settings of which recovery needs at least this much, and a few that tell how it was set up.
    pub settings: Vec<(String, String)>,
    pub databases: Vec<String>,
    /// The role that initdb made: it is there whatever else was renamed or dropped.
    #[serde(default = "usual_superuser")]
    pub superuser: String,
    pub counts: Counts,
    /// How it was captured; older versions did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub captured: Option<Captured>,
    /// When every page of it was last read, and not only what had changed; older versions did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_whole: Option<Time>,
    /// When it ended, by the server's own clock, which the times of its transactions are by: this machine's may be another. Older
    /// versions did not ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_at: Option<Time>,
    /// Segments of the log that the record holds itself.
    pub wal: Vec<String>,
}

/// What is taken over unread for longer than this is read again: what rots on the server's disk changes no metadata and no log.
const READ_WHOLE_EVERY: i64 = 7 * DAY;

/// When everything was last read, as the backup before says; `None` if that is so long ago that it is time to do it again, or is not
/// known.
pub(super) fn read_recently(previous: &SourceRecord, now: Time) -> Option<Time> {
    let facts = ClusterFacts::from_json(&previous.facts).ok()?;
    // A clock that was set back says nothing of how long ago it was.
    facts.read_whole.filter(|at| (0..READ_WHOLE_EVERY).contains(&now.since(*at)))
}

fn usual_superuser() -> String {
    "postgres".to_owned()
}

/// How the bytes of a base backup were come by. The record is whole in any case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Captured {
    /// Read from the data directory.
    Files,
    /// Sent by the server, every file whole; why not less, where it might have been.
    Whole { why: Option<String> },
    /// Sent by the server: what its log changed since this position, where the backup before began.
    Increment { since: Lsn },
}

impl std::fmt::Display for Captured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Captured::Files => f.write_str("read from the data directory"),
            Captured::Whole { why: None } => f.write_str("sent by the server as a whole"),
            Captured::Whole { why: Some(why) } => write!(f, "sent by the server as a whole: {why}"),
            Captured::Increment { since } => {
                write!(f, "sent by the server: what changed since {since}, laid over the backup before")
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tablespace {
    pub oid: u32,
    pub name: String,
    pub location: PathBuf,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub files: u64,
    pub directories: u64,
    pub bytes: u64,
    /// Taken over from the backup before without being read.
    pub unchanged_files: u64,
    /// Bytes of frames and patches that differed from the backup before.
    pub changed_bytes: u64,
    pub bad_blocks: u64,
}

/// Settings of the primary that a server in recovery must not be below.
pub const RECOVERY_SETTINGS: [&str; 5] = [
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
];

impl ClusterFacts {
    pub fn from_json(json: &str) -> Result<ClusterFacts, Failure> {
        let facts: ClusterFacts = serde_json::from_str(json).map_err(|error| {
            Failure::verification("the description of a base backup cannot be read").caused_by(error)
        })?;
        if facts.version > FACTS_VERSION {
            return Err(Failure::usage("a later version of Mainstay made this base backup")
                .hint("Restore it with that version or a newer one."));
        }
        Ok(facts)
    }

    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("facts have only texts as keys")
    }

    pub fn major(&self) -> u32 {
        self.version_num / 10_000
    }

    /// The segments from where replay begins to where the backup is consistent.
    pub fn segments(&self) -> impl Iterator<Item = Segment> + '_ {
        let last = Segment::ending(self.timeline, self.stop, self.segment_size);
        std::iter::successors(
            Some(Segment::holding(self.timeline, self.start, self.segment_size)),
            |segment| Some(segment.next(self.segment_size)),
        )
        .take_while(move |segment| *segment <= last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_read_again_when_that_was_last_done_a_week_ago() {
        let record = |read_whole: Option<Time>| {
            let facts = format!(
                r#"{{"version":1,"system":1,"version_num":180000,"version_text":"","data_directory":"/d","segment_size":16777216,
                    "block_size":8192,"data_checksums":true,"from_standby":false,"timeline":1,"start":"0/1","stop":"0/2",
                    "tablespaces":[],"settings":[],"databases":[],"counts":{{"files":0,"directories":0,"bytes":0,"unchanged_files":0,
                    "changed_bytes":0,"bad_blocks":0}},"wal":[]{}}}"#,
                read_whole
                    .map(|at| format!(r#","read_whole":{}"#, serde_json::to_string(&at).unwrap()))
                    .unwrap_or_default()
            );
            SourceRecord {
                name: String::new(),
                kind: super::super::KIND.into(),
                state: mainstay_domain::point::State::Complete,
                started: Time(0),
                finished: Time(0),
                consistent_at: None,
                streams: Vec::new(),
                facts,
                problems: Vec::new(),
                bytes: 0,
                items: 0,
                partial: false,
            }
        };
        let begun = Time(1_700_000_000_000_000_000);
        let read = record(Some(begun));
        assert_eq!(read_recently(&read, begun.plus(7 * DAY - 1)), Some(begun));
        assert_eq!(read_recently(&read, begun.plus(7 * DAY)), None);
        assert_eq!(read_recently(&read, begun.plus(-1)), None, "the clock was set back");
        assert_eq!(read_recently(&record(None), begun), None, "it is not known");
    }
}
