//! File trees: capture, restore, compare, and look into them.
//!
//! A capture yields the stream `listing` (`domain::listing`, `doc/format.md` *Listings*) and, with `keep_deleted`, the
//! stream `deleted`. Unchanged files are recognised by their metadata and not opened. A restore writes beneath its
//! destination only, whatever the listing says or somebody planted there. This module knows nothing of repositories: it
//! writes through `domain::stream::Sink` and reads through `domain::stream::Vault`.

mod attributes;
mod browse;
mod capture;
mod compare;
mod config;
mod deleted;
mod diff;
mod dirent;
mod error;
mod facts;
mod hardlinks;
mod leaf;
mod look;
mod merge;
mod names;
mod pool;
mod previous;
mod probe;
mod problems;
mod raw;
mod read;
mod restore;
mod roots;
mod selection;
mod sparse;
mod stat;
mod tree;
mod walk;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub(crate) use browse::{Browse, Step};
pub(crate) use leaf::Leaves;
pub(crate) use merge::adopted;
pub(crate) use problems::Problems;
pub(crate) use stat::Stat;
pub(crate) use tree::{Tree, open_in};

pub use capture::{CaptureOptions, DELETED, LISTING, capture};
pub use compare::{Aspect, Comparison, Difference, compare, compare_live};
pub use config::FilesConfig;
pub use diff::{Change, ChangeKind, diff};
pub use error::FilesError;
pub use facts::{Counts, Facts, RootFact};
pub use look::{Listed, find, ls};
pub use names::{show_at, show_path, show_typed};
pub use probe::{Probe, RootProbe, probe};
pub use read::{Hook, Moment};
pub use restore::{RestoreOptions, RestorePlan, RestoreReport, plan_restore, restore};

/// `SourceRecord::kind` of a file tree.
pub const KIND: &str = "files";
