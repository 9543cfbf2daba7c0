//! Which timeline came from which, and where: the `.history` files.
//!
//! Source: PostgreSQL, `src/backend/access/transam/timeline.c`: a line for each ancestor, `<timeline>\t<position>\t<reason>`;
//! lines that begin with `#` are comments.

use mainstay_domain::wal::{Lsn, Segment, SegmentSize};

/// The timeline `from` ends at `at`, where the next one branched off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switch {
    pub from: u32,
    pub at: Lsn,
    pub reason: String,
}

/// A timeline and where it came from, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ancestry {
    pub timeline: u32,
    pub switches: Vec<Switch>,
}

impl Ancestry {
    /// A timeline that came from nowhere: the first one.
    pub fn root(timeline: u32) -> Ancestry {
        Ancestry { timeline, switches: Vec::new() }
    }

    /// Reads a `.history` file. `None`: it is none.
    pub fn parse(timeline: u32, text: &str) -> Option<Ancestry> {
        let mut switches: Vec<Switch> = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let mut fields = line.splitn(3, char::is_whitespace);
            let from: u32 = fields.next()?.parse().ok()?;
            let at: Lsn = fields.next()?.parse().ok()?;
            let ascending = switches.last().is_none_or(|last| last.from < from && last.at <= at);
            if !ascending || from >= timeline {
                return None;
            }
            switches.push(Switch { from, at, reason: fields.next().unwrap_or_default().trim().to_owned() });
        }
        Some(Ancestry { timeline, switches })
    }

    /// The timeline on which this line of history has the log at `lsn`.
    pub fn timeline_at(&self, lsn: Lsn) -> u32 {
        self.switches.iter().find(|switch| lsn < switch.at).map_or(self.timeline, |switch| switch.from)
    }

    /// The segment of this line of history that has the place of `number` in the log, whatever that one's timeline. Where a
    /// timeline branches off within a segment, the new timeline's file has all of it.
    pub fn segment(&self, number: Segment, size: SegmentSize) -> Segment {
        number.on(self.timeline_at(Lsn(number.end(size).0.saturating_sub(1))))
    }

    /// Whether a position on a timeline is part of this line of history.
    pub fn includes(&self, timeline: u32, lsn: Lsn) -> bool {
        let mut begins = Lsn(0);
        for switch in &self.switches {
            if switch.from == timeline {
                return begins <= lsn && lsn <= switch.at;
            }
            begins = switch.at;
        }
        timeline == self.timeline && begins <= lsn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_file_tells_which_timeline_holds_a_position() {
        let text =
            "1\t0/5000110\tno recovery target specified\n\n2\t0/9000000\tbefore 2026-11-20 14:02:31+00\n";
        let history = Ancestry::parse(3, text).unwrap();
        let at = |text: &str| history.timeline_at(text.parse().unwrap());
        assert_eq!((at("0/4000000"), at("0/5000110"), at("0/8FFFFFF"), at("0/9000000")), (1, 2, 2, 3));
        let segment = |name: &str| history.segment(name.parse().unwrap(), SegmentSize::DEFAULT).to_string();
        assert_eq!(segment("000000010000000000000004"), "000000010000000000000004");
        assert_eq!(segment("000000010000000000000005"), "000000020000000000000005", "it branches off within");
        assert_eq!(segment("000000010000000000000009"), "000000030000000000000009");
        assert!(history.includes(1, "0/5000000".parse().unwrap()));
        assert!(!history.includes(1, "0/6000000".parse().unwrap()), "timeline 1 went on without us");
        assert!(history.includes(2, "0/8000000".parse().unwrap()));
        assert!(!history.includes(2, "0/5000000".parse().unwrap()), "timeline 2 had not begun");
        assert!(history.includes(3, "0/9000001".parse().unwrap()));
        for wrong in ["x", "1", "1\tz", "3\t0/1\tself", "2\t0/5\n1\t0/6"] {
            assert!(Ancestry::parse(3, wrong).is_none(), "{wrong}");
        }
    }
}
