//! Where in the log a moment lies, by what is noted of each segment: when its transactions ended.
//!
//! A server's clock may be set while it runs, and then the times of its transactions are not in order. PostgreSQL stops before
//! the *first* transaction that ended after the moment, whatever comes later; so segments are looked at from the base backup on,
//! and none is passed over because a later one says something else.

use super::Resolved;
use crate::wal::each::each;
use mainstay_domain::{Result, Silent, Time};
use mainstay_repository::wal::Ends;
use std::sync::{Mutex, PoisonError};

/// So many segments are asked about at the same time: the moment mostly lies not far from the base backup.
const ASKED: usize = 64;

impl Resolved<'_> {
    /// The first segment that must be read to find where `time` lies, among those that follow the base backup.
    pub(super) fn first_worth_reading(&self, time: Time) -> Result<usize> {
        let mut ends = Vec::new();
        for batch in self.segments.chunks(ASKED) {
            let known = Mutex::new(vec![None; batch.len()]);
            let numbered: Vec<usize> = (0..batch.len()).collect();
            each(&numbered, self.facts.segment_size, &Silent, &|number| {
                let found = self.ends(batch[*number])?;
                known.lock().unwrap_or_else(PoisonError::into_inner)[*number] = found;
                Ok(())
            })?;
            ends.extend(known.into_inner().unwrap_or_else(PoisonError::into_inner));
            if ends.iter().any(|ends| is_beyond(ends, time)) {
                break;
            }
        }
        Ok(begin_at(&ends, time))
    }
}

fn is_beyond(ends: &Option<Ends>, time: Time) -> bool {
    ends.is_some_and(|ends| ends.last > time)
}

/// Where reading begins: with the last segment before the first one that goes beyond `time` in which something ended. What ended there
/// is kept; and a record that lies across the end of a segment is in the notes of neither.
fn begin_at(ends: &[Option<Ends>], time: Time) -> usize {
    let beyond = ends.iter().position(|ends| is_beyond(ends, time)).unwrap_or(ends.len());
    ends[..beyond].iter().rposition(Option::is_some).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where reading begins, of segments in which transactions ended from and until these times.
    fn begin(segments: &[Option<(i64, i64)>], time: i64) -> usize {
        let ends = |(first, last)| Ends { first: Time(first), last: Time(last) };
        let noted: Vec<Option<Ends>> = segments.iter().map(|segment| segment.map(ends)).collect();
        begin_at(&noted, Time(time))
    }

    #[test]
    fn reading_begins_before_the_first_segment_that_goes_beyond_the_moment() {
        let in_order = [Some((1, 9)), Some((10, 19)), None, Some((20, 29)), Some((30, 39))];
        assert_eq!(begin(&in_order, 25), 1, "what ended last before it is kept");
        assert_eq!(begin(&in_order, 19), 1);
        assert_eq!(begin(&in_order, 35), 3);
        assert_eq!(begin(&in_order, 5), 0);
        assert_eq!(
            begin(&in_order, 39),
            4,
            "the end of the log may have a record that lies across two segments"
        );
        assert_eq!(begin(&[], 5), 0);
        assert_eq!(begin(&[None, None], 5), 0);
    }

    #[test]
    fn a_clock_that_was_set_back_hides_nothing_of_what_ended_later_than_the_moment() {
        // An hour ahead in the third segment, and put right: PostgreSQL comes to 95 before it comes to anything after 45.
        let jumped =
            [Some((10, 19)), Some((20, 29)), Some((90, 99)), Some((30, 39)), Some((40, 49)), Some((50, 59))];
        assert_eq!(begin(&jumped, 45), 1);
        assert_eq!(begin(&jumped, 35), 1);
        assert_eq!(begin(&jumped, 15), 0);
        // Set back within a segment, whose last transaction is not its latest.
        assert_eq!(begin(&[Some((10, 19)), Some((20, 90)), Some((30, 39)), Some((40, 49))], 45), 0);
    }
}
