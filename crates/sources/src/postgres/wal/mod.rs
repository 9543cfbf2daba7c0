//! PostgreSQL's write-ahead log as files: what a segment says of itself, and the commits that are in it.
//!
//! Only as much of the format is read here as recovery targets need: page headers, record headers, the times of commits and
//! aborts, and named restore points. Replaying is PostgreSQL's.

pub mod archiver;
pub mod header;
pub mod scan;
pub mod timelines;

pub use archiver::{Archiver, archiver};
pub use header::{SegmentHeader, check_header, check_segment};
pub use scan::{Mark, Scanner};
pub use timelines::{Ancestry, Switch};
