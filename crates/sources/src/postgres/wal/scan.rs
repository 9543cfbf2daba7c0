//! Finds the ends of transactions, and restore points, in a stretch of the log.
//!
//! Source: PostgreSQL, `xlogrecord.h`, `xact.h` (`xl_xact_commit`: the time first), `xlogreader.c` for how records lie across
//! pages. Records are followed by their lengths; a record whose link to the one before is wrong, a page that is not of this
//! place, or a length of zero is where the log ends.

use mainstay_domain::{Time, wal::Lsn};

const PAGE: u64 = 8192;
const SHORT_HEADER: u64 = 24;
const LONG_HEADER: u64 = super::header::LONG_HEADER as u64;
const RECORD_HEADER: usize = 24;
const FLAG_CONTINUES: u16 = 1;
const FLAG_LONG: u16 = 2;

const RM_XLOG: u8 = 0;
const RM_XACT: u8 = 1;
const XLOG_RESTORE_POINT: u8 = 0x70;
/// `xl_parameter_change`: five numbers first.
const XLOG_PARAMETER_CHANGE: u8 = 0x60;
const XACT_OPMASK: u8 = 0x70;
const XACT_COMMIT: u8 = 0x00;
const XACT_ABORT: u8 = 0x20;
const XACT_COMMIT_PREPARED: u8 = 0x30;
const XACT_ABORT_PREPARED: u8 = 0x40;
const XACT_ENDS: [u8; 4] = [XACT_COMMIT, XACT_ABORT, XACT_COMMIT_PREPARED, XACT_ABORT_PREPARED];
/// What an end may carry besides its time, in this order but for the last (`XACT_XINFO_HAS_…`).
const XACT_HAS_INFO: u8 = 0x80;
const HAS_DATABASE: u32 = 1 << 0;
const HAS_SUBTRANSACTIONS: u32 = 1 << 1;
const HAS_RELATION_FILES: u32 = 1 << 2;
const HAS_DROPPED_STATISTICS: u32 = 1 << 8;
const HAS_INVALIDATIONS: u32 = 1 << 3;
const HAS_PREPARED: u32 = 1 << 4;
const HAS_NAME: u32 = 1 << 7;
const HAS_ORIGIN: u32 = 1 << 5;
const FIRST_NORMAL_XID: u32 = 3;

/// Microseconds from 1970 to 2000, where PostgreSQL's times begin.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

/// Something that recovery can stop at, or that it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    /// The end of a transaction. The position is where its record begins.
    End {
        at: Lsn,
        xid: u32,
        time: Time,
        committed: bool,
    },
    RestorePoint {
        at: Lsn,
        name: String,
        time: Time,
    },
    /// The primary was started with other limits: those of [`RECOVERY_SETTINGS`](crate::postgres::cluster::facts), in that order,
    /// of which a server in recovery needs as much from here on.
    Limits {
        at: Lsn,
        limits: [u32; 5],
    },
}

impl Mark {
    /// Where its record begins.
    pub fn at(&self) -> Lsn {
        match self {
            Mark::End { at, .. } | Mark::RestorePoint { at, .. } | Mark::Limits { at, .. } => *at,
        }
    }

    pub fn time(&self) -> Option<Time> {
        match self {
            Mark::End { time, .. } | Mark::RestorePoint { time, .. } => Some(*time),
            Mark::Limits { .. } => None,
        }
    }
}

/// Reads a log piece by piece: segments, in order. Holds at most one record.
#[derive(Debug, Default)]
pub struct Scanner {
    /// Where the next byte to be fed belongs; `None` before the first.
    at: Option<Lsn>,
    /// A record that is not whole yet: where it began, and what is there of it.
    record: Option<(Lsn, u64, Vec<u8>)>,
    /// Bytes of a record that are passed over: one that began before the first byte fed, or one that is of no interest.
    passing: u64,
    /// The last one that was begun: the next one names it as the one before.
    last: Option<Lsn>,
    /// The last one of which the end was fed, too.
    whole: Option<Lsn>,
    /// The log of this stretch ends here: what follows in it is not part of the log.
    ended: bool,
}

impl Scanner {
    /// Feeds whole pages that begin at `start`. If that is not where the last ones ended, begins anew.
    pub fn feed(&mut self, start: Lsn, bytes: &[u8], mut visit: impl FnMut(Mark)) {
        // What was switched away from ends early; the next segment goes on as if nothing were missing.
        if self.at != Some(start) || self.ended {
            *self = Scanner { at: Some(start), whole: self.whole, ..Scanner::default() };
        }
        let mut first = self.last.is_none() && self.record.is_none() && self.passing == 0;
        for page in bytes.chunks_exact(PAGE as usize) {
            let at = self.at.unwrap_or(start);
            if !self.ended {
                self.page(at, page, std::mem::take(&mut first), &mut visit);
            }
            self.at = Some(Lsn(at.0 + PAGE));
        }
    }

    /// Where the last record begins that is whole in what was fed. One that goes on beyond, as the last of a segment mostly does, is
    /// none that a server could replay.
    pub fn last_record(&self) -> Option<Lsn> {
        self.whole
    }

    /// Whether what was fed ends within a record that is looked for, or whose kind is not known yet.
    pub fn is_within_a_record(&self) -> bool {
        self.record.is_some()
    }

    fn page(&mut self, start: Lsn, page: &[u8], first: bool, visit: &mut impl FnMut(Mark)) {
        let flags = u16_at(page, 2);
        if u64_at(page, 8) != start.0 || page[1] != 0xd1 {
            self.ended = true;
            return;
        }
        let header = if flags & FLAG_LONG != 0 { LONG_HEADER } else { SHORT_HEADER };
        let continues = flags & FLAG_CONTINUES != 0;
        let remaining = u64::from(u32_at(page, 16));
        if first && continues {
            self.passing = remaining;
        } else if !continues && (self.record.is_some() || self.passing > 0) {
            // A record was cut off by a crash, and written anew from here on.
            (self.record, self.passing, self.last) = (None, 0, None);
        }
        let mut at = header;
        while at < PAGE && !self.ended {
            let left = PAGE - at;
            if self.passing > 0 {
                let passed = self.passing.min(left);
                self.passing -= passed;
                at += passed;
                at = at.next_multiple_of(8);
                if self.passing == 0 {
                    self.whole = self.last.or(self.whole); // `None`: it began before the first byte fed
                }
                continue;
            }
            if let Some((begun, length, bytes)) = &mut self.record {
                let take = (*length - bytes.len() as u64).min(left);
                bytes.extend_from_slice(&page[at as usize..(at + take) as usize]);
                at += take;
                let (begun, length) = (*begun, *length);
                if bytes.len() as u64 == length {
                    visit_record(begun, bytes, visit);
                    at = at.next_multiple_of(8);
                    (self.record, self.whole) = (None, Some(begun));
                } else if bytes.len() >= RECORD_HEADER && !is_wanted(bytes) {
                    // Its header lay across two pages: only now is it seen to be of no interest.
                    self.passing = length - bytes.len() as u64;
                    self.record = None;
                }
                continue;
            }
            self.begin(Lsn(start.0 + at), &page[at as usize..]);
        }
    }

    /// A record begins at `lsn`; `rest` is what its page has of it.
    fn begin(&mut self, lsn: Lsn, rest: &[u8]) {
        let length = u64::from(u32_at(rest, 0));
        if length < RECORD_HEADER as u64 {
            self.ended = true;
            return;
        }
        if let Some(header) = rest.get(..RECORD_HEADER) {
            let previous = u64_at(header, 8);
            if self.last.is_some_and(|last| last.0 != previous) {
                self.ended = true;
                return;
            }
            self.last = Some(lsn);
            if !is_wanted(header) {
                self.passing = length;
                return;
            }
        } else {
            // Its header goes on in the next page: kept until it is known what it is.
            self.last = Some(lsn);
        }
        self.record = Some((lsn, length, Vec::new()));
    }
}

fn is_wanted(header: &[u8]) -> bool {
    let (info, manager) = (header[16], header[17]);
    match manager {
        RM_XACT => XACT_ENDS.contains(&(info & XACT_OPMASK)),
        RM_XLOG => matches!(info & 0xf0, XLOG_RESTORE_POINT | XLOG_PARAMETER_CHANGE),
        _ => false,
    }
}

fn visit_record(at: Lsn, record: &[u8], visit: &mut impl FnMut(Mark)) {
    if !is_wanted(record) {
        return;
    }
    let Some(data) = main_data(record) else { return };
    if record[17] == RM_XLOG && record[16] & 0xf0 == XLOG_PARAMETER_CHANGE {
        if let Some(numbers) = data.first_chunk::<20>() {
            visit(Mark::Limits { at, limits: std::array::from_fn(|number| u32_at(numbers, 4 * number)) });
        }
        return;
    }
    let Some(time) = data.first_chunk().map(|bytes| time_of(i64::from_ne_bytes(*bytes))) else { return };
    if record[17] == RM_XLOG {
        let name = data[8..].split(|b| *b == 0).next().unwrap_or_default();
        visit(Mark::RestorePoint { at, name: String::from_utf8_lossy(name).into_owned(), time });
        return;
    }
    let operation = record[16] & XACT_OPMASK;
    let committed = matches!(operation, XACT_COMMIT | XACT_COMMIT_PREPARED);
    // The session that ends a prepared transaction is another one, whose own number stands in the record's header.
    let prepared = matches!(operation, XACT_COMMIT_PREPARED | XACT_ABORT_PREPARED);
    let xid = match prepared {
        true => prepared_xid(record[16], data, committed),
        false => Some(u32_at(record, 4)),
    };
    if let Some(xid) = xid {
        visit(Mark::End { at, xid, time, committed });
    }
}

/// Which prepared transaction a record ends (`ParseCommitRecord`, `ParseAbortRecord` in `xactdesc.c`): what may stand before
/// its number is passed over by its length.
fn prepared_xid(info: u8, data: &[u8], committed: bool) -> Option<u32> {
    let word = |at: usize| Some(u32_at(data.get(at..at.checked_add(4)?)?, 0));
    let mut at = 8;
    if info & XACT_HAS_INFO == 0 {
        return None;
    }
    let has = word(at)?;
    at += 4;
    if has & HAS_DATABASE != 0 {
        at += 8;
    }
    // Subtransactions and files: a count, then so many of a size.
    for (flag, size) in [(HAS_SUBTRANSACTIONS, 4), (HAS_RELATION_FILES, 12)] {
        if has & flag != 0 {
            at = (word(at)? as usize).checked_mul(size)?.checked_add(at + 4)?;
        }
    }
    let lists = [(HAS_DROPPED_STATISTICS, true), (HAS_INVALIDATIONS, committed)];
    let sizes_of_statistics = [12, 16]; // until and from PostgreSQL 18 on
    // The two sizes are told apart by where the record then ends: its number is followed by the name it was prepared under.
    sizes_of_statistics.into_iter().find_map(|statistics| {
        let mut at = at;
        for (flag, possible) in lists {
            if possible && has & flag != 0 {
                let size = if flag == HAS_DROPPED_STATISTICS { statistics } else { 16 };
                at = (word(at)? as usize).checked_mul(size)?.checked_add(at + 4)?;
            }
        }
        let xid = word(at).filter(|xid| *xid >= FIRST_NORMAL_XID && has & HAS_PREPARED != 0)?;
        let mut end = at + 4;
        if has & HAS_NAME != 0 {
            end += data.get(end..)?.iter().position(|byte| *byte == 0)? + 1;
        }
        end += if has & HAS_ORIGIN != 0 { 16 } else { 0 };
        (end == data.len()).then_some(xid)
    })
}

/// The main data of a record without blocks: it comes last, after its own short header.
fn main_data(record: &[u8]) -> Option<&[u8]> {
    let mut at = RECORD_HEADER;
    loop {
        let id = *record.get(at)?;
        let (length, header) = match id {
            255 => (usize::from(*record.get(at + 1)?), 2),
            254 => (u32_at(record.get(at + 1..at + 5)?, 0) as usize, 5),
            253 => {
                at += 3;
                continue;
            }
            252 => {
                at += 5;
                continue;
            }
            _ => return None,
        };
        return record.get(at + header..at + header + length);
    }
}

/// From PostgreSQL's microseconds. A time that ours cannot hold is the last one that it can.
fn time_of(microseconds: i64) -> Time {
    Time(microseconds.saturating_add(POSTGRES_EPOCH).saturating_mul(1000))
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(*bytes[at..].first_chunk().expect("the caller's slice is long enough"))
}
