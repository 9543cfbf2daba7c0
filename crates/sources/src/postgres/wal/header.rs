//! The long header that a segment begins with: which cluster wrote it, and for which place in the log.
//!
//! Source: PostgreSQL, `src/include/access/xlog_internal.h` (`XLogLongPageHeaderData`).

use mainstay_domain::{
    Failure, Kind, Result,
    wal::{Lsn, Segment, SegmentSize},
};

pub const LONG_HEADER: usize = 40;
/// The size of a page in every package; who builds a server can choose another (`--with-wal-blocksize`).
const PAGE: u32 = 8192;
const FLAG_LONG: u16 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Tells the version of PostgreSQL: 0xD10D for 14, 0xD110 for 15, 0xD113 for 16, 0xD116 for 17, 0xD118 for 18.
    pub magic: u16,
    pub timeline: u32,
    pub start: Lsn,
    pub system: u64,
    pub segment_size: SegmentSize,
    pub page_size: u32,
}

impl SegmentHeader {
    /// `None`: this is not how a segment begins.
    pub fn parse(bytes: &[u8]) -> Option<SegmentHeader> {
        let head: &[u8; LONG_HEADER] = bytes.first_chunk()?;
        let short = |at: usize| u16::from_ne_bytes([head[at], head[at + 1]]);
        let word = |at: usize| u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let long = |at: usize| {
            let bytes: &[u8; 8] = head[at..].first_chunk()?;
            Some(u64::from_ne_bytes(*bytes))
        };
        if short(2) & FLAG_LONG == 0 || short(0) & 0xff00 != 0xd100 {
            return None;
        }
        Some(SegmentHeader {
            magic: short(0),
            timeline: word(4),
            start: Lsn(long(8)?),
            system: long(24)?,
            segment_size: SegmentSize::try_from(u64::from(word(32))).ok()?,
            page_size: word(36),
        })
    }
}

/// Makes sure that a file is the segment that its name says, of this cluster.
///
/// The timeline in a header may be older than the name's: the first segment of a new timeline begins with what was there
/// before it branched off.
pub fn check_segment(name: Segment, bytes: &[u8], system: u64) -> Result<SegmentHeader> {
    check_header(name, bytes, bytes.len() as u64, system)
}

/// The same of a file that has `length` bytes and begins with these.
pub fn check_header(name: Segment, bytes: &[u8], length: u64, system: u64) -> Result<SegmentHeader> {
    let wrong = |why: String| {
        Failure::new(Kind::Refused, format!("{name} is not taken: {why}"))
            .hint("Nothing was archived. Look whether archive_command names the right file, and this server's own configuration.")
    };
    let header =
        SegmentHeader::parse(bytes).ok_or_else(|| wrong("it does not begin as a segment does".into()))?;
    if header.system != system {
        return Err(wrong(format!("it was written by another cluster ({}, not {system})", header.system)));
    }
    if header.page_size != PAGE {
        return Err(wrong(format!(
            "its server was built with pages of {} bytes in its WAL, and only those of {PAGE} can be read",
            header.page_size
        )));
    }
    if length != header.segment_size.bytes() {
        return Err(wrong(format!(
            "it has {length} bytes where segments of this cluster have {}",
            header.segment_size.bytes()
        )));
    }
    if header.start != name.start(header.segment_size) {
        return Err(wrong(format!("it holds the WAL from {} on", header.start)));
    }
    if header.timeline > name.timeline {
        return Err(wrong(format!("it is of timeline {}", header.timeline)));
    }
    Ok(header)
}
