//! Finds the target in the log: the last segment that is needed, the last transaction kept, the first undone.

use super::{
    Resolved, Window,
    base::{Base, before_all, choose_base, ended, leads_on},
    follow::{end_of_log, ends_of, follow, last_end},
};
use mainstay_domain::{
    Failure, Lsn, Result, Time,
    wal::{Segment, WalFile},
};
use mainstay_sources::postgres::{
    cluster::restore::Target,
    wal::{Mark, Scanner},
};

/// Whether a mark is the one that is sought.
type IsMark = Box<dyn Fn(&Mark) -> bool>;
impl Resolved<'_> {
    /// Meets the target from one of `bases`; `all` are those that lie on this line of history.
    pub(super) fn meet(&mut self, bases: &[&Base], all: &[&Base], source: &str) -> Result<()> {
        let sought: Option<(String, IsMark)> = match self.target.clone() {
            Target::Xid(xid) => {
                let is = move |mark: &Mark| matches!(mark, Mark::End { xid: found, .. } if u64::from(*found) == xid & 0xffff_ffff);
                Some((format!("the end of transaction {xid}"), Box::new(is)))
            }
            Target::Name(name) => {
                let what = format!("the restore point {name:?}");
                let is = move |mark: &Mark| matches!(mark, Mark::RestorePoint { name: found, .. } if *found == name);
                Some((what, Box::new(is)))
            }
            Target::Immediate | Target::Latest | Target::Time(_) | Target::Lsn(_) => None,
        };
        let Some((what, is)) = sought else {
            let base = choose_base(bases, &self.target).ok_or_else(|| before_all(all[0], source))?;
            self.begin_with(base, all)?;
            return self.aim();
        };
        // Where it lies is found by looking: after the newest base backup, then between each and the next.
        let mut until = None;
        for base in bases.iter().rev() {
            self.begin_with(base, all)?;
            if self.aim_at_mark(&*is, until)? {
                return Ok(());
            }
            until = Some(base.facts.stop);
        }
        if let Some(newest) = bases.last() {
            self.begin_with(newest, all)?;
        }
        Err(self.out_of_reach(&what))
    }

    /// Begins with this base backup, and all log that follows it.
    fn begin_with(&mut self, base: &Base, all: &[&Base]) -> Result<()> {
        let (segments, gap) = follow(&self.holdings, &self.ancestry, &base.facts)?;
        let mut oldest = base;
        for older in all.iter().rev().filter(|older| older.facts.stop < base.facts.stop) {
            if !leads_on(&self.holdings, &self.ancestry, older, oldest) {
                break;
            }
            oldest = older;
        }
        self.window = Window {
            from: ended(oldest),
            to: last_end(&self.holdings, &segments)?,
            to_lsn: end_of_log(&self.holdings, &segments, &self.ancestry, &base.facts)?,
            timeline: self.ancestry.timeline,
            gap,
        };
        (self.base, self.facts, self.segments) = (base.point.clone(), base.facts.clone(), segments);
        Ok(())
    }

    /// Makes sure that the target is there, and leaves only the segments that lead to it.
    fn aim(&mut self) -> Result<()> {
        match self.target.clone() {
            Target::Immediate => self.segments.clear(),
            Target::Latest => {
                self.refuse_gap()?;
                self.last_kept = self.window.to;
            }
            Target::Lsn(lsn) => self.aim_at_position(lsn)?,
            Target::Time(time) => self.aim_at_time(time)?,
            Target::Xid(_) | Target::Name(_) => {}
        }
        Ok(())
    }

    /// The end of the log is not where a gap is: who asks for the latest must not get less without a word.
    fn refuse_gap(&self) -> Result<()> {
        let Some(gap) = &self.window.gap else { return Ok(()) };
        let mut scanner = Scanner::default();
        if let Some(last) = self.segments.last() {
            self.scan(&mut scanner, *last, &mut |_| {})?;
        }
        let at = match self.window.to {
            Some(time) => format!(" (the last transaction before it ended at {time})"),
            None => String::new(),
        };
        let way = match scanner.last_record() {
            Some(lsn) => format!("Up to the gap it goes with --lsn {lsn}{at}."),
            None => format!("Give a time before the gap with --at{at}."),
        };
        Err(Failure::preflight(format!("the archive has a gap: {gap} is missing, and what comes after it cannot be reached"))
            .hint(format!("{way} A base backup that was made after the gap can be restored by itself: --point ID --immediate.")))
    }

    /// PostgreSQL stops at the first record that begins at the position or later: there must be one.
    fn aim_at_position(&mut self, lsn: Lsn) -> Result<()> {
        let size = self.facts.segment_size;
        let begin = self.segments.partition_point(|segment| segment.end(size) <= lsn);
        let mut scanner = Scanner::default();
        for index in begin..self.segments.len() {
            self.scan(&mut scanner, self.segments[index], &mut |_| {})?;
            if scanner.last_record().is_some_and(|begins| begins >= lsn) {
                self.segments.truncate(index + 1);
                return Ok(());
            }
        }
        Err(self.out_of_reach(&format!("position {lsn}")))
    }

    /// PostgreSQL stops before the first transaction that ended later: there must be one, or it would not know that it is
    /// there.
    fn aim_at_time(&mut self, time: Time) -> Result<()> {
        let mut scanner = Scanner::default();
        let (mut kept, mut lost) = (None, None);
        let mut needed = self.segments.len();
        let begin = self.first_worth_reading(time)?;
        for (index, segment) in self.segments.iter().enumerate().skip(begin) {
            self.scan(&mut scanner, *segment, &mut |mark| {
                if let Mark::End { time: ended, .. } = mark {
                    match ended <= time {
                        true if lost.is_none() => kept = Some(ended),
                        false if lost.is_none() => lost = Some(ended),
                        _ => {}
                    }
                }
            })?;
            if lost.is_some() {
                needed = index + 1;
                break;
            }
        }
        if lost.is_none() {
            return Err(self.out_of_reach(&time.to_string()));
        }
        self.segments.truncate(needed);
        (self.last_kept, self.first_lost) = (kept, lost);
        Ok(())
    }

    /// The last segment in which everything ended before `time`: what it and the later ones hold decides.
    fn first_worth_reading(&self, time: Time) -> Result<usize> {
        let (mut low, mut high) = (0, self.segments.len());
        while low < high {
            let middle = low + (high - low) / 2;
            // Segments without any end say nothing: the next one that has some decides.
            let mut at = middle;
            let mut ends = None;
            while at < high && ends.is_none() {
                ends = ends_of(&self.holdings, self.segments[at])?;
                at += 1;
            }
            match ends {
                Some(ends) if ends.last <= time => low = at,
                _ => high = middle,
            }
        }
        // Times are not quite in order: one segment more, and the record that may reach into it.
        Ok(low.saturating_sub(2))
    }

    /// Looks for the mark between the end of the base backup and `until`. PostgreSQL stops at the first one that it comes to, and
    /// cannot stop before the end of the base backup: then this is not the one to begin with.
    fn aim_at_mark(&mut self, is: &dyn Fn(&Mark) -> bool, until: Option<Lsn>) -> Result<bool> {
        let mut scanner = Scanner::default();
        let mut found = None;
        for (index, segment) in self.segments.iter().enumerate() {
            if until.is_some_and(|until| segment.start(self.facts.segment_size) >= until) {
                break;
            }
            self.scan(&mut scanner, *segment, &mut |mark| {
                // Not replayed at all before this.
                if is(&mark) && mark.at() >= self.facts.start {
                    found.get_or_insert((index, mark.at(), mark.time()));
                }
            })?;
            if found.is_some() {
                break;
            }
        }
        let within = |at: Lsn| at >= self.facts.stop && until.is_none_or(|until| at < until);
        let Some((index, _, time)) = found.filter(|(_, at, _)| within(*at)) else { return Ok(false) };
        self.segments.truncate(index + 1);
        self.last_kept = time;
        Ok(true)
    }

    fn scan(&self, scanner: &mut Scanner, segment: Segment, visit: &mut dyn FnMut(Mark)) -> Result<()> {
        let file = WalFile::Segment(segment);
        let bytes = self.holdings.content(&file)?.ok_or_else(|| {
            Failure::verification(format!("{file} was in the archive a moment ago and is gone"))
        })?;
        scanner.feed(segment.start(self.facts.segment_size), &bytes, visit);
        Ok(())
    }

    fn out_of_reach(&self, what: &str) -> Failure {
        let Window { from, to, to_lsn, timeline, gap } = &self.window;
        let until = match to {
            Some(to) => format!("the last transaction at {to} ({to_lsn})"),
            None => format!("{to_lsn}"),
        };
        let gap =
            gap.as_ref().map(|gap| format!(" The archive has a gap: {gap} is missing.")).unwrap_or_default();
        Failure::preflight(format!("{what} cannot be reached on timeline {timeline}"))
            .hint(format!("Reachable: from {from} to {until}.{gap} As far as it goes: --at latest."))
    }
}
