//! A database of every kind of object comes back equal: by our own comparison, and by what `pg_dump` says of both.

use crate::{memory, support, zoo};
use mainstay_domain::{Silent, point::State};
use mainstay_sources::postgres::{
    compare::{self, Comparison, Verdict, compare},
    diff::{self, diff_live},
    restore::{Options, Report, Target, restore},
    sandbox::{Sandbox, SandboxOptions},
    tools::Tools,
};
use memory::Memory;

fn start(tools: Tools) -> Sandbox {
    Sandbox::start(&SandboxOptions::new(tools).setting("wal_level", "logical")).unwrap()
}

fn show(report: &Report) -> String {
    report.problems.iter().map(|p| format!("{:?} {}: {}\n", p.severity, p.object, p.message)).collect()
}

fn shown(comparison: &Comparison) -> String {
    let differences = comparison.differences.iter().map(|d| format!("{d}\n"));
    let skipped =
        comparison.not_compared.iter().map(|n| format!("not compared: {}: {}\n", n.object, n.reason));
    differences.chain(skipped).collect()
}

#[test]
fn the_zoo_comes_back_equal_for_a_superuser() {
    for tools in support::versions() {
        let major = tools.major;
        let sandbox = start(tools);
        zoo::load(&sandbox, "zoo");
        // Tables of a session: they are its own, and gone with it.
        let mut session = sandbox.connect("zoo").unwrap();
        session
            .execute("CREATE TEMPORARY TABLE passing AS SELECT 1; CREATE TEMPORARY SEQUENCE of_session")
            .unwrap();
        let memory = Memory::default();
        let record = support::capture(&support::config(&sandbox, "zoo", "postgres"), &memory).unwrap();
        assert_eq!(record.state, State::Complete, "{major}: {:?}", record.problems);

        let target = Target {
            server: sandbox.spec("postgres"),
            database: "zoo_back".to_owned(),
            into_existing: false,
        };
        let report = restore(&memory, &record, &target, &Options::default(), &Silent).unwrap();
        assert_eq!(report.state, State::Complete, "{major}:\n{}", show(&report));

        let spec = sandbox.spec("zoo_back");
        let comparison =
            compare(&memory, &record, &spec, &compare::Options::new(support::ROW_KEY), &Silent).unwrap();
        assert_eq!(comparison.verdict(), Verdict::Equal, "{major}:\n{}", shown(&comparison));
        assert_eq!(comparison.large_objects, 55);
        // Of the copy, rows may lie in other partitions: the hashes of an enum's values are each database's own.
        let original = sandbox.spec("zoo");
        let options = diff::Options::new(support::ROW_KEY);
        let diff = diff_live(&memory, &record, &original, &options, &Silent).unwrap();
        assert!(diff.is_empty() && diff.same_tables > 50, "{major}: {diff:?}");

        zoo::assert_same_dump(
            &zoo::dump(&sandbox, "zoo", "postgres"),
            &zoo::dump(&sandbox, "zoo_back", "postgres"),
        );
    }
}

#[test]
fn the_zoo_of_a_plain_owner_comes_back_equal() {
    for tools in support::versions() {
        let major = tools.major;
        let sandbox = start(tools);
        zoo::load_plain(&sandbox, "zoo");
        let memory = Memory::default();
        let record = support::capture(&support::config(&sandbox, "zoo", "zoo_owner"), &memory).unwrap();
        assert_eq!(record.state, State::Complete, "{major}: {:?}", record.problems);

        let server = mainstay_sources::postgres::wire::ConnectSpec {
            user: "zoo_owner".to_owned(),
            ..sandbox.spec("postgres")
        };
        let target = Target { server: server.clone(), database: "zoo_back".to_owned(), into_existing: false };
        let report = restore(&memory, &record, &target, &Options::default(), &Silent).unwrap();
        assert_eq!(report.state, State::Complete, "{major}:\n{}", show(&report));

        let spec = server.with_database("zoo_back");
        let comparison =
            compare(&memory, &record, &spec, &compare::Options::new(support::ROW_KEY), &Silent).unwrap();
        assert_eq!(comparison.verdict(), Verdict::Equal, "{major}:\n{}", shown(&comparison));

        zoo::assert_same_dump(
            &zoo::dump(&sandbox, "zoo", "zoo_owner"),
            &zoo::dump(&sandbox, "zoo_back", "zoo_owner"),
        );
    }
}
