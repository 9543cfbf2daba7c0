//! PostgreSQL's write-ahead log in names and numbers: positions, timelines, and the files that an archive keeps.
//!
//! Source of the layout: PostgreSQL, `src/include/access/xlog_internal.h` (`XLogFileName` and its neighbours).

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// A position in the log, in bytes from its beginning (`pg_lsn`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff))
    }
}

/// A text that is no name or number of the write-ahead log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {what}")]
pub struct NotOfTheLog {
    text: String,
    what: &'static str,
}

fn wrong(text: &str, what: &'static str) -> NotOfTheLog {
    NotOfTheLog { text: text.to_owned(), what }
}

impl FromStr for Lsn {
    type Err = NotOfTheLog;

    fn from_str(text: &str) -> Result<Lsn, NotOfTheLog> {
        let half = |digits: &str| {
            let sound = (1..=8).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
            sound.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
        };
        let parsed = text.split_once('/').and_then(|(high, low)| Some(half(high)? << 32 | half(low)?));
        parsed.map(Lsn).ok_or_else(|| wrong(text, "position in the write-ahead log, such as 0/16B3748"))
    }
}

impl Serialize for Lsn {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Lsn {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Lsn, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Bytes of a segment: a power of two from 1 MiB to 1 GiB, chosen when the cluster is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct SegmentSize(u64);

impl SegmentSize {
    pub const DEFAULT: SegmentSize = SegmentSize(16 << 20);

    pub fn bytes(self) -> u64 {
        self.0
    }

    /// Segments for each value of the middle eight digits of a segment's name.
    fn per_id(self) -> u64 {
        (1 << 32) / self.0
    }
}

impl TryFrom<u64> for SegmentSize {
    type Error = NotOfTheLog;

    fn try_from(bytes: u64) -> Result<SegmentSize, NotOfTheLog> {
        let sound = bytes.is_power_of_two() && (1 << 20..=1 << 30).contains(&bytes);
        sound.then_some(SegmentSize(bytes)).ok_or_else(|| wrong(&bytes.to_string(), "size of a segment"))
    }
}

impl From<SegmentSize> for u64 {
    fn from(size: SegmentSize) -> u64 {
        size.0
    }
}

/// One segment of the log on one timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Segment {
    pub timeline: u32,
    /// The last 16 digits of the name: high half, then the number within it.
    name: u64,
}

impl Segment {
    /// The segment that holds `lsn`.
    pub fn holding(timeline: u32, lsn: Lsn, size: SegmentSize) -> Segment {
        Segment::numbered(timeline, lsn.0 / size.0, size)
    }

    /// The segment that holds the byte before `lsn`: the last one that a log up to `lsn` needs.
    pub fn ending(timeline: u32, lsn: Lsn, size: SegmentSize) -> Segment {
        Segment::holding(timeline, Lsn(lsn.0.saturating_sub(1)), size)
    }

    fn numbered(timeline: u32, number: u64, size: SegmentSize) -> Segment {
        Segment { timeline, name: ((number / size.per_id()) << 32) | (number % size.per_id()) }
    }

    /// Counts from the beginning of the log.
    pub fn number(self, size: SegmentSize) -> u64 {
        ((self.name >> 32) * size.per_id()).saturating_add(self.name & 0xffff_ffff)
    }

    pub fn start(self, size: SegmentSize) -> Lsn {
        Lsn(self.number(size).saturating_mul(size.0))
    }

    pub fn end(self, size: SegmentSize) -> Lsn {
        Lsn((self.number(size) + 1).saturating_mul(size.0))
    }

    pub fn next(self, size: SegmentSize) -> Segment {
        Segment::numbered(self.timeline, self.number(size) + 1, size)
    }

    pub fn on(self, timeline: u32) -> Segment {
        Segment { timeline, ..self }
    }

    /// The middle eight digits: what an archive sorts segments into folders by.
    pub fn group(self) -> String {
        format!("{:08X}", self.name >> 32)
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:08X}{:016X}", self.timeline, self.name))
    }
}

impl FromStr for Segment {
    type Err = NotOfTheLog;

    fn from_str(text: &str) -> Result<Segment, NotOfTheLog> {
        let upper = |b: u8| b.is_ascii_digit() || (b'A'..=b'F').contains(&b);
        let parsed = (text.len() == 24 && text.bytes().all(upper)).then(|| {
            let timeline = u32::from_str_radix(&text[..8], 16).ok()?;
            Some(Segment { timeline, name: u64::from_str_radix(&text[8..], 16).ok()? })
        });
        parsed.flatten().ok_or_else(|| wrong(text, "name of a segment"))
    }
}

/// A file that PostgreSQL hands to its `archive_command` or asks of its `restore_command`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WalFile {
    Segment(Segment),
    /// A segment that a promotion cut short.
    Partial(Segment),
    /// Where a timeline came from.
    History(u32),
    /// A note about a base backup: the segment it begins in, and its name's offset.
    Backup(Segment, u32),
    /// A piece of a segment that was still written to when it was archived, by its number. PostgreSQL knows none; whoever
    /// receives the log while it is written makes them.
    Fragment(Segment, u32),
}

impl WalFile {
    pub fn timeline(&self) -> u32 {
        match self {
            WalFile::Segment(segment)
            | WalFile::Partial(segment)
            | WalFile::Backup(segment, _)
            | WalFile::Fragment(segment, _) => segment.timeline,
            WalFile::History(timeline) => *timeline,
        }
    }
}

impl fmt::Display for WalFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WalFile::Segment(segment) => write!(f, "{segment}"),
            WalFile::Partial(segment) => write!(f, "{segment}.partial"),
            WalFile::History(timeline) => write!(f, "{timeline:08X}.history"),
            WalFile::Backup(segment, offset) => write!(f, "{segment}.{offset:08X}.backup"),
            WalFile::Fragment(segment, number) => write!(f, "{segment}@{number:08}"),
        }
    }
}

impl FromStr for WalFile {
    type Err = NotOfTheLog;

    fn from_str(text: &str) -> Result<WalFile, NotOfTheLog> {
        let number =
            |digits: &str| (digits.len() == 8).then(|| u32::from_str_radix(digits, 16).ok()).flatten();
        let parts: Vec<&str> = text.split('.').collect();
        let fragment = |text: &str| {
            let (segment, number) = text.split_once('@')?;
            Some(WalFile::Fragment(segment.parse().ok()?, number.parse().ok()?))
        };
        let parsed = match parts.as_slice() {
            [text] if text.contains('@') => fragment(text),
            [segment] => segment.parse().ok().map(WalFile::Segment),
            [segment, "partial"] => segment.parse().ok().map(WalFile::Partial),
            [timeline, "history"] => number(timeline).map(WalFile::History),
            [segment, offset, "backup"] => segment
                .parse()
                .ok()
                .zip(number(offset))
                .map(|(segment, offset)| WalFile::Backup(segment, offset)),
            _ => None,
        };
        // A name is taken as it is written by PostgreSQL, or not at all.
        parsed
            .filter(|file| file.to_string() == text)
            .ok_or_else(|| wrong(text, "file of the write-ahead log"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_positions_are_those_of_postgresql() {
        let size = SegmentSize::DEFAULT;
        let lsn: Lsn = "16/B374D848".parse().unwrap();
        assert_eq!((lsn.0, lsn.to_string()), (0x16_B374_D848, "16/B374D848".to_owned()));
        let segment = Segment::holding(2, lsn, size);
        assert_eq!(segment.to_string(), "0000000200000016000000B3");
        assert_eq!((segment.start(size), segment.group()), (Lsn(0x16_B300_0000), "00000016".to_owned()));
        let last: Segment = "0000000100000016000000FF".parse().unwrap();
        assert_eq!(last.next(size).to_string(), "000000010000001700000000");
        assert_eq!(Segment::ending(1, last.end(size), size), last);
        let small = SegmentSize::try_from(1 << 20).unwrap();
        assert_eq!(Segment::holding(1, Lsn(0xFFF0_0000), small).to_string(), "000000010000000000000FFF");
        assert!(SegmentSize::try_from(3 << 20).is_err());
    }

    #[test]
    fn a_name_beyond_the_end_of_the_log_is_no_reason_to_fall_over() {
        let (size, name) = (SegmentSize::DEFAULT, "00000001FFFFFFFFFFFFFFFF".parse::<Segment>().unwrap());
        assert_eq!((name.start(size), name.end(size)), (Lsn(u64::MAX), Lsn(u64::MAX)));
        assert_eq!(name.to_string(), "00000001FFFFFFFFFFFFFFFF");
    }

    #[test]
    fn only_what_postgresql_writes_is_a_file_of_the_log() {
        for name in [
            "000000010000000000000003",
            "000000010000000000000003.partial",
            "00000002.history",
            "000000010000000000000003.00000028.backup",
            "000000010000000000000003@00000012",
        ] {
            assert_eq!(name.parse::<WalFile>().unwrap().to_string(), name);
        }
        for name in [
            "",
            "../../etc/passwd",
            "00000001000000000000000a",
            "2.history",
            "000000010000000000000003.gz",
            "000000010000000000000003@12",
        ] {
            assert!(name.parse::<WalFile>().is_err(), "{name}");
        }
        for text in ["", "0", "0/", "G/0", "0/123456789", "+1/0"] {
            assert!(text.parse::<Lsn>().is_err(), "{text}");
        }
    }
}
