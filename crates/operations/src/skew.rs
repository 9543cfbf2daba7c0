//! How far apart the sources of one point were captured. Each is the state of an instant where it has one, and else of the time
//! that its reading took; from the earliest of these moments to the latest, things that belong together may not fit.

use mainstay_domain::{
    Severity, Time,
    point::{Problem, SourceRecord},
    time::Span,
};

/// When a source's state was, at the earliest and at the latest.
fn moments(record: &SourceRecord) -> (Time, Time) {
    record.consistent_at.map_or((record.started, record.finished), |at| (at, at))
}

/// Nanoseconds from the earliest moment of any source to the latest of any; `None` of fewer than two that were captured.
pub fn of(records: &[SourceRecord]) -> Option<Span> {
    let captured: Vec<_> = records.iter().filter(|record| !record.streams.is_empty()).map(moments).collect();
    let first = captured.iter().map(|(from, _)| *from).min()?;
    let last = captured.iter().map(|(_, to)| *to).max()?;
    (captured.len() > 1).then(|| Span { nanoseconds: last.since(first) })
}

/// Where the sources lie further apart than they may, says so at the one that was captured last.
pub fn judge(records: &mut [SourceRecord], most: Option<Span>) -> Option<String> {
    let (found, most) = (of(records)?, most?);
    if found <= most {
        return None;
    }
    let captured = |record: &&mut SourceRecord| !record.streams.is_empty();
    let last = records.iter_mut().filter(captured).max_by_key(|record| moments(record).1)?;
    let message = format!(
        "the sources of this point lie {} s apart, and max_skew is {most}: what belongs together may not fit",
        found.nanoseconds / mainstay_domain::time::SECOND
    );
    let problem = Problem { severity: Severity::Warning, object: String::new(), message: message.clone() };
    last.problems.push(problem);
    Some(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_domain::{
        point::{State, Stream},
        stream::Content,
        time::SECOND,
    };

    fn record(started: i64, finished: i64, consistent_at: Option<i64>) -> SourceRecord {
        SourceRecord {
            name: "any".into(),
            kind: "files".into(),
            state: State::Complete,
            started: Time(started * SECOND),
            finished: Time(finished * SECOND),
            consistent_at: consistent_at.map(|at| Time(at * SECOND)),
            streams: vec![Stream { name: "listing".into(), content: Content::default() }],
            facts: "{}".into(),
            problems: Vec::new(),
            bytes: 0,
            items: 0,
            partial: false,
        }
    }

    fn seconds(records: &[SourceRecord]) -> Option<i64> {
        of(records).map(|span| span.nanoseconds / SECOND)
    }

    #[test]
    fn an_instant_counts_by_itself_and_a_reading_by_its_whole_time() {
        assert_eq!(seconds(&[record(0, 100, Some(2)), record(0, 100, Some(5))]), Some(3));
        assert_eq!(seconds(&[record(0, 100, Some(2)), record(10, 40, None)]), Some(38));
        assert_eq!(seconds(&[record(0, 100, None)]), None, "one source fits itself");
        let failed = SourceRecord { streams: Vec::new(), ..record(500, 600, None) };
        assert_eq!(seconds(&[record(0, 1, Some(0)), record(0, 1, Some(1)), failed]), Some(1));
    }

    #[test]
    fn only_a_skew_beyond_the_limit_is_a_problem_and_stands_at_the_last_source() {
        let mut records = [record(0, 9, Some(2)), record(0, 9, Some(8))];
        let limit = |seconds: i64| Some(Span { nanoseconds: seconds * SECOND });
        assert_eq!(judge(&mut records, None), None);
        assert_eq!(judge(&mut records, limit(6)), None);
        assert!(judge(&mut records, limit(5)).unwrap().contains("6 s apart"));
        assert_eq!((records[0].problems.len(), records[1].problems.len()), (0, 1));
    }
}
