//! A recovery point: what was captured, from where, when, and how whole it is.

use crate::{PointId, Severity, Time, stream::Content};
use minicbor::{Decode, Encode};
use serde::Serialize;
use std::{collections::BTreeMap, fmt};

/// How whole a recovery point, or one source in it, is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize)]
#[serde(rename_all = "lowercase")]
#[cbor(index_only)]
pub enum State {
    /// Everything that was asked for is there.
    #[n(0)]
    Complete,
    /// Something is missing; what, is listed.
    #[n(1)]
    Incomplete,
    /// Something without which the rest is of no use is missing.
    #[n(2)]
    Failed,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            State::Complete => "complete",
            State::Incomplete => "incomplete",
            State::Failed => "failed",
        })
    }
}

/// Something that went wrong with one object (a file, a table) of a source.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Problem {
    #[n(0)]
    pub severity: Severity,
    /// The object, as its owner names it; empty for the source as a whole.
    #[n(1)]
    pub object: String,
    #[n(2)]
    pub message: String,
}

/// One stream of a source.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Stream {
    /// Unique within its source: `listing`, `schema`, `table/public.orders/0`.
    #[n(0)]
    pub name: String,
    #[n(1)]
    pub content: Content,
}

/// What one source contributed to a recovery point.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SourceRecord {
    #[n(0)]
    pub name: String,
    /// `files` or `postgres`; further kinds as they come.
    #[n(1)]
    pub kind: String,
    #[n(2)]
    pub state: State,
    #[n(3)]
    pub started: Time,
    #[n(4)]
    pub finished: Time,
    /// The instant whose state this is, where the source has one (the snapshot of a database).
    #[n(5)]
    pub consistent_at: Option<Time>,
    #[n(6)]
    pub streams: Vec<Stream>,
    /// What was captured, as the source's own JSON document: versions, tables with counts and digests, roots, rules.
    #[n(7)]
    pub facts: String,
    #[n(8)]
    pub problems: Vec<Problem>,
    /// Bytes as the user counts them (file sizes, rows' text), before deduplication and compression.
    #[n(9)]
    pub bytes: u64,
    /// Files or rows.
    #[n(10)]
    pub items: u64,
    /// Something was left out on purpose (row filters, excluded tables), so that it must not replace the whole.
    #[n(11)]
    pub partial: bool,
}

impl Stream {
    /// Whether it is a listing of files, with contents of their own: `listing`, `listing/<what>`, `deleted`.
    pub fn is_listing(&self) -> bool {
        self.name == "listing" || self.name == "deleted" || self.name.starts_with("listing/")
    }
}

impl SourceRecord {
    pub fn stream(&self, name: &str) -> Option<&Stream> {
        self.streams.iter().find(|s| s.name == name)
    }

    /// What the point's summary says of it.
    pub fn in_brief(&self) -> SourceSummary {
        SourceSummary {
            name: self.name.clone(),
            kind: self.kind.clone(),
            state: self.state,
            bytes: self.bytes,
            items: self.items,
            partial: self.partial,
        }
    }
}

/// A recovery point: the sealed part of its manifest.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Point {
    #[n(0)]
    pub summary: Summary,
    #[n(1)]
    pub sources: Vec<SourceRecord>,
    /// The previous recovery point of the same application that this writer knew of.
    #[n(2)]
    pub previous: Option<PointId>,
    /// A point that this one replaces (after an erasure).
    #[n(3)]
    pub supersedes: Option<PointId>,
    /// The version of Mainstay that wrote it.
    #[n(4)]
    pub tool: String,
}

/// What a list of points shows, and all that retention needs. Kept in the log beside the point's id.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Summary {
    #[n(0)]
    pub app: String,
    #[n(1)]
    pub environment: String,
    /// The policy that asked for it; `None` for a manual one.
    #[n(2)]
    pub policy: Option<String>,
    /// The machine's own name for itself.
    #[n(3)]
    pub host: String,
    #[n(4)]
    pub started: Time,
    #[n(5)]
    pub finished: Time,
    /// Counts from 1 for each application, one more than the last that the writer saw.
    #[n(6)]
    pub sequence: u64,
    #[n(7)]
    pub state: State,
    #[n(8)]
    pub sources: Vec<SourceSummary>,
    /// Bytes that this session added to a store.
    #[n(9)]
    pub stored_bytes: u64,
    /// Free words of the user: `--label release=1.4.2`.
    #[n(10)]
    pub labels: BTreeMap<String, String>,
    /// When the next one was expected, for noticing that points are missing.
    #[n(11)]
    pub next_expected: Option<Time>,
    /// A manual point's own end (`--keep 30d`), whatever the policies say.
    #[n(12)]
    pub keep_until: Option<Time>,
}

/// Labels that begin so are the program's own; users give others.
pub const OWN_LABELS: &str = "mainstay.";

/// The label of a safety copy: what lived before a restore took its place, backed up on the way. Its value says which restore.
pub const SAFETY_COPY: &str = "mainstay.before";

impl Summary {
    /// Whether it holds a state that was given up. It is the way back from a restore; it is never what "the latest" means, and
    /// it supersedes no other point.
    pub fn is_safety_copy(&self) -> bool {
        self.labels.contains_key(SAFETY_COPY)
    }

    pub fn bytes(&self) -> u64 {
        self.sources.iter().map(|s| s.bytes).fold(0, u64::saturating_add)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct SourceSummary {
    #[n(0)]
    pub name: String,
    #[n(1)]
    pub kind: String,
    #[n(2)]
    pub state: State,
    #[n(3)]
    pub bytes: u64,
    #[n(4)]
    pub items: u64,
    #[n(5)]
    pub partial: bool,
}

/// A reason to keep a point that no policy overrides.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Hold {
    /// `legal`, `incident`, `migration`, or the user's own word.
    #[n(0)]
    pub kind: String,
    #[n(1)]
    pub reason: String,
    #[n(2)]
    pub by: String,
    #[n(3)]
    pub since: Time,
    /// `None`: until released.
    #[n(4)]
    pub until: Option<Time>,
}

/// That a point was restored and compared, and what came out.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Proof {
    #[n(0)]
    pub at: Time,
    #[n(1)]
    pub level: ProofLevel,
    #[n(2)]
    pub passed: bool,
    /// Milliseconds that the restore itself took: the measured part of the recovery time.
    #[n(3)]
    pub restore_millis: u64,
    /// Name of the signed report in the store.
    #[n(4)]
    pub report: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize)]
#[serde(rename_all = "lowercase")]
#[cbor(index_only)]
pub enum ProofLevel {
    #[n(0)]
    Objects,
    #[n(1)]
    Packs,
    #[n(2)]
    Data,
    #[n(3)]
    Restore,
}

impl fmt::Display for ProofLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            ProofLevel::Objects => "objects",
            ProofLevel::Packs => "packs",
            ProofLevel::Data => "data",
            ProofLevel::Restore => "restore",
        })
    }
}
