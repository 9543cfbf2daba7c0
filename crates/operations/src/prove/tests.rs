//! What tells of the point, and what of the machine that tested it.

use super::*;
use std::io;

#[test]
fn only_what_tells_of_the_point_is_a_failed_proof() {
    let source = SourceSummary {
        name: "db".into(),
        kind: "postgres".into(),
        state: State::Complete,
        bytes: 1,
        items: 1,
        partial: false,
    };
    let full = || io::Error::from_raw_os_error(28);
    for (failure, verdict) in [
        (Failure::preflight("no PostgreSQL 15 was found"), Verdict::NotRun),
        (Failure::failed("writing \"a\" failed").caused_by(full()), Verdict::NotRun),
        (Failure::failed("pg_restore: could not extend file: No space left on device"), Verdict::NotRun),
        (Failure::failed("out of memory (SQLSTATE 53200)"), Verdict::NotRun),
        (Failure::failed("syntax error (SQLSTATE 42601)"), Verdict::Failed),
        (
            Failure::failed("the server went away").caused_by(io::Error::from(io::ErrorKind::UnexpectedEof)),
            Verdict::Failed,
        ),
        (Failure::verification("packs/data/00/00 is damaged"), Verdict::Failed),
        (Failure::verification("packs/data/00/00 is damaged").caused_by(full()), Verdict::Failed),
        (Failure::failed("this version cannot restore sources of kind x"), Verdict::Failed),
    ] {
        assert_eq!(could_not(&source, &failure).verdict, verdict, "{failure}");
    }
}

#[test]
fn files_that_did_not_fit_are_no_differences() {
    let report = |problem: &str| SourceReport {
        differences: vec!["letters/two.txt missing".into()],
        problems: vec![problem.into()],
        ..empty("uploads", "files", Verdict::Failed)
    };
    let judged = |problem| not_for_want_of_room(report(problem)).verdict;
    let mut two = report("letters/two.txt: No space left on device (os error 28)");
    two.problems.push("letters/one.txt: its content is damaged".into());
    assert_eq!(not_for_want_of_room(two).verdict, Verdict::Failed, "one cause does not hide another");
    assert_eq!(judged("letters/two.txt: No space left on device (os error 28)"), Verdict::NotRun);
    assert_eq!(judged("letters/two.txt: its content is damaged"), Verdict::Failed);
}
