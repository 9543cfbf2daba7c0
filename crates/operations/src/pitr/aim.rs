//! Finds the target in the log: the last segment that is needed, the last transaction kept, the first undone.

use super::{
    Resolved, Window,
    base::{Base, before_all, choose_base, ended, leads_on},
    follow::{Break, end_of_log, follow},
};
use crate::wal::each::each;
use mainstay_domain::{
    Failure, Kind, Lsn, Result, Silent, Time,
    wal::{Segment, WalFile},
};
use mainstay_repository::wal::Ends;
use mainstay_sources::postgres::{
    cluster::restore::Target,
    wal::{Mark, Scanner},
};
use std::{collections::BTreeSet, sync::PoisonError};

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
        if let Target::Time(time) = self.target {
            return self.meet_at_time(time, bases, all, source);
        }
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

    /// From the newest base backup that ended before the moment and leads to it: clocks differ, and one that seems to have ended before
    /// may hold what was written after.
    fn meet_at_time(&mut self, time: Time, bases: &[&Base], all: &[&Base], source: &str) -> Result<()> {
        let mut before = bases.iter().rev().filter(|base| ended(base) <= time).peekable();
        if before.peek().is_none() {
            return Err(before_all(all[0], source));
        }
        for base in before {
            self.begin_with(base, all)?;
            if self.aim_at_time(time)? {
                return Ok(());
            }
        }
        Err(Failure::preflight(format!(
            "no base backup leads to {time}: each that ended before holds a transaction that ended later by the server's clock"
        ))
        .hint("The server's clock was set, or differs from this machine's. Give a later time, or a position: --lsn."))
    }

    /// Begins with this base backup, and all log that follows it.
    fn begin_with(&mut self, base: &Base, all: &[&Base]) -> Result<()> {
        let (segments, broken) = follow(&self.holdings, &self.ancestry, &base.facts, &self.known_damage())?;
        let (gap, damaged) = match broken {
            None => (None, None),
            Some(Break::Missing(segment)) => (Some(segment.to_string()), None),
            Some(Break::Damaged(segment)) => (None, Some(segment.to_string())),
        };
        let mut oldest = base;
        for older in all.iter().rev().filter(|older| older.facts.stop < base.facts.stop) {
            if !leads_on(&self.holdings, &self.ancestry, older, oldest) {
                break;
            }
            oldest = older;
        }
        self.window = Window {
            from: ended(oldest),
            to: self.last_end(&segments)?,
            to_lsn: end_of_log(&self.holdings, &segments, &self.ancestry, &base.facts)?,
            timeline: self.ancestry.timeline,
            gap,
            damaged,
        };
        (self.base, self.facts, self.segments) = (base.point.clone(), base.facts.clone(), segments);
        Ok(())
    }

    /// Makes sure that the target is there, and leaves only the segments that lead to it.
    fn aim(&mut self) -> Result<()> {
        match self.target.clone() {
            Target::Immediate => self.segments.clear(),
            Target::Latest => {
                self.refuse_break()?;
                self.last_kept = self.window.to;
            }
            Target::Lsn(lsn) => self.aim_at_position(lsn)?,
            Target::Time(_) | Target::Xid(_) | Target::Name(_) => {}
        }
        Ok(())
    }

    /// The end of the log is not where it breaks off: who asks for the latest must not get less without a word.
    fn refuse_break(&self) -> Result<()> {
        let text = match (&self.window.gap, &self.window.damaged) {
            (None, None) => return Ok(()),
            (Some(gap), _) => format!("the archive has a gap: {gap} is missing"),
            (None, Some(segment)) => format!("{segment} is damaged in the archive"),
        };
        Err(Failure::preflight(format!("{text}, and what comes after it cannot be reached")).hint(format!(
            "{} A base backup that was made after it can be restored by itself: --point ID --immediate.",
            self.way_to_the_end()?
        )))
    }

    /// How to get as far as the log goes before it breaks off.
    fn way_to_the_end(&self) -> Result<String> {
        let at = match self.window.to {
            Some(time) => format!(" (the last transaction before it ended at {time})"),
            None => String::new(),
        };
        Ok(match self.last_record()? {
            Some(lsn) => format!("Up to there it goes with --lsn {lsn}{at}."),
            None => {
                let base = self.base.id.short();
                format!("Before that there is only the base backup itself: --point {base} --immediate.")
            }
        })
    }

    /// Where the last record begins that is whole in these segments: mostly in the last one, unless one record fills all of that.
    fn last_record(&self) -> Result<Option<Lsn>> {
        for begin in (0..self.segments.len()).rev() {
            let mut scanner = Scanner::default();
            for segment in &self.segments[begin..] {
                self.scan(&mut scanner, *segment, &mut |_| {})?;
            }
            if let Some(lsn) = scanner.last_record() {
                return Ok(Some(lsn).filter(|lsn| *lsn >= self.facts.stop));
            }
        }
        Ok(None)
    }

    /// PostgreSQL stops at the first record that begins at the position or later: there must be one, and all of it.
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
    /// there. It cannot stop before the end of the base backup: then this is not the one to begin with.
    fn aim_at_time(&mut self, time: Time) -> Result<bool> {
        let mut scanner = Scanner::default();
        let (mut kept, mut lost) = (None, None);
        let mut needed = self.segments.len();
        let begin = self.first_worth_reading(time)?;
        for (index, segment) in self.segments.iter().enumerate().skip(begin) {
            self.scan(&mut scanner, *segment, &mut |mark| {
                if let Mark::End { at, time: ended, .. } = mark
                    && at >= self.facts.start
                    && lost.is_none()
                {
                    match ended <= time {
                        true => kept = Some(ended),
                        false => lost = Some((at, ended)),
                    }
                }
            })?;
            if lost.is_some() {
                needed = index + 1;
                break;
            }
        }
        let Some((at, ended)) = lost else {
            return Err(self.out_of_reach(&time.to_string()));
        };
        if at < self.facts.stop {
            return Ok(false);
        }
        self.segments.truncate(needed);
        (self.last_kept, self.first_lost) = (kept, Some(ended));
        Ok(true)
    }

    /// Looks for the mark between the end of the base backup and `until`. PostgreSQL stops at the first one that it comes to, and
    /// cannot stop before the end of the base backup: then this is not the one to begin with.
    fn aim_at_mark(&mut self, is: &dyn Fn(&Mark) -> bool, until: Option<Lsn>) -> Result<bool> {
        let mut scanner = Scanner::default();
        let mut found = None;
        let (mut kept, mut lost) = (None, None);
        for (index, segment) in self.segments.iter().enumerate() {
            let beyond = found.is_some();
            if !beyond && until.is_some_and(|until| segment.start(self.facts.segment_size) >= until) {
                break;
            }
            let read = self.scan(&mut scanner, *segment, &mut |mark| {
                let ended = if let Mark::End { time, .. } = &mark { Some(*time) } else { None };
                match found {
                    // Not replayed at all before this.
                    None if is(&mark) && mark.at() >= self.facts.start => {
                        found = Some((index, mark.at()));
                        kept = ended.or(kept);
                    }
                    None => kept = ended.or(kept),
                    Some(_) => lost = lost.or(ended),
                }
            });
            // One segment more is looked into for what comes next. It is not needed: what is wrong with it is no matter here.
            if beyond || lost.is_some() {
                break;
            }
            read?;
        }
        let within = |at: Lsn| at >= self.facts.stop && until.is_none_or(|until| at < until);
        let Some((index, _)) = found.filter(|(_, at)| within(*at)) else { return Ok(false) };
        self.segments.truncate(index + 1);
        (self.last_kept, self.first_lost) = (kept, lost);
        Ok(true)
    }

    fn scan(&self, scanner: &mut Scanner, segment: Segment, visit: &mut dyn FnMut(Mark)) -> Result<()> {
        let bytes = self.sound(segment)?;
        scanner.feed(segment.start(self.facts.segment_size), &bytes, visit);
        Ok(())
    }

    /// When the last transaction ended that ends in these segments.
    fn last_end(&self, segments: &[Segment]) -> Result<Option<Time>> {
        for segment in segments.iter().rev() {
            if let Some(ends) = self.ends(*segment)? {
                return Ok(Some(ends.last));
            }
        }
        Ok(None)
    }

    pub(super) fn ends(&self, segment: Segment) -> Result<Option<Ends>> {
        self.noting_damage(segment, self.holdings.ends(segment))
    }

    /// The content of a segment that is there.
    fn sound(&self, segment: Segment) -> Result<Vec<u8>> {
        let file = WalFile::Segment(segment);
        let content = self.noting_damage(segment, self.holdings.content(&file))?;
        content.ok_or_else(|| {
            Failure::verification(format!("{file} was in the archive a moment ago and is gone"))
        })
    }

    /// Remembers a segment that turned out to be damaged: the log ends before it, and the way is sought anew.
    fn noting_damage<T>(&self, segment: Segment, read: Result<T>) -> Result<T> {
        if matches!(&read, Err(failure) if matches!(failure.kind, Kind::Verification | Kind::Refused)) {
            self.damage.lock().unwrap_or_else(PoisonError::into_inner).insert(segment);
        }
        read
    }

    pub(super) fn known_damage(&self) -> BTreeSet<Segment> {
        self.damage.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads all that replay needs: what is damaged is to be known before anything is written.
    pub(super) fn read_all(&self) -> Result<()> {
        each(&self.segments, self.facts.segment_size, &Silent, &|segment| match self.sound(*segment) {
            // Noted; others may be damaged, too.
            Err(_) if self.known_damage().contains(segment) => Ok(()),
            read => read.map(drop),
        })
    }

    fn out_of_reach(&self, what: &str) -> Failure {
        let Window { from, to, to_lsn, timeline, gap, damaged } = &self.window;
        let until = match to {
            Some(to) => format!("the last transaction at {to} ({to_lsn})"),
            None => format!("{to_lsn}"),
        };
        let way = match (gap, damaged) {
            (None, None) => "As far as it goes: --at latest.".to_owned(),
            (gap, damaged) => {
                let broken = match (gap, damaged) {
                    (Some(gap), _) => format!("The archive has a gap: {gap} is missing."),
                    (None, damaged) => {
                        format!("In the archive {} is damaged.", damaged.as_deref().unwrap_or("a segment"))
                    }
                };
                match self.way_to_the_end() {
                    Ok(way) => format!("{broken} {way}"),
                    Err(_) => broken, // noted, and sought anew
                }
            }
        };
        Failure::preflight(format!("{what} cannot be reached on timeline {timeline}"))
            .hint(format!("Reachable: from {from} to {until}. {way}"))
    }
}
