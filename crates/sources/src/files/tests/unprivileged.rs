//! What is different for a user who is not root. As root, these tests run themselves again as `nobody`.

use super::{
    super::{testing::*, *},
    assert_same, into, restore_with, tree,
};
use mainstay_domain::{Severity, Silent, listing::Doubt, point::State};
use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    process::Command,
};

const NOBODY: u32 = 65534;
const CHILD: &str = "MAINSTAY_TEST_UNPRIVILEGED";

/// Runs `body` as an unprivileged user: here, or in a process of its own that runs the named test alone.
fn unprivileged(test: &str, body: impl FnOnce()) {
    if !rustix::process::geteuid().is_root() {
        return body();
    }
    assert!(std::env::var_os(CHILD).is_none(), "the child is still root");
    let scratch = tempfile::tempdir().unwrap();
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o777)).unwrap();
    // Where it was built, an unprivileged user may not look.
    let program = scratch.path().join("test");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let name = format!("{}::{test}", module_path!().split_once("::").unwrap().1);
    let output = Command::new(&program)
        .args(["--exact", &name, "--nocapture"])
        .env(CHILD, "1")
        .env("TMPDIR", scratch.path())
        .current_dir(scratch.path())
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("1 passed"), "{name} did not run: {text}");
}

#[test]
fn what_cannot_be_read_makes_the_source_incomplete_and_is_named() {
    unprivileged("what_cannot_be_read_makes_the_source_incomplete_and_is_named", || {
        let scratch = tree(&[("open", "1"), ("closed", "2"), ("dir/x", "3"), ("halfdir/y", "4")]);
        let set = |name: &str, mode| {
            fs::set_permissions(scratch.path().join(name), fs::Permissions::from_mode(mode)).unwrap()
        };
        let memory = Memory::default();
        let config = FilesConfig { keep_deleted: Some("90d".parse().unwrap()), ..config(scratch.path()) };
        let whole = backup(&memory, &config, None);
        set("closed", 0);
        set("dir", 0);
        set("halfdir", 0o400);
        let record = backup(&memory, &config, Some(&whole));
        assert_eq!(record.state, State::Incomplete);
        let named: Vec<&str> = record
            .problems
            .iter()
            .filter(|problem| problem.severity == Severity::Error)
            .map(|problem| problem.object.rsplit('/').next().unwrap())
            .collect();
        assert_eq!(named, ["closed", "dir", "halfdir"]);
        let doubts: Vec<String> = entries(&memory, &record, LISTING)
            .iter()
            .filter(|(_, entry)| entry.doubt == Some(Doubt::Unreadable))
            .map(|(path, _)| show_path(path))
            .collect();
        assert_eq!(doubts, ["closed", "dir", "halfdir"]);
        assert_eq!(paths(&memory, &record, DELETED), ["dir/x", "halfdir/y"], "not lost sight of");
        let target = tempfile::tempdir().unwrap();
        let report = restore_with(&memory, &record, &into(target.path())).unwrap();
        assert_eq!(report.state, State::Incomplete, "{report:?}");
        assert!(
            report.problems.iter().any(|p| p.object == "closed" && p.message.contains("no content")),
            "{report:?}"
        );
        set("closed", 0o600);
        set("dir", 0o700);
        set("halfdir", 0o700);
        let again = backup(&memory, &config, Some(&record));
        assert_eq!(again.state, State::Complete);
    });
}

#[test]
fn read_only_directories_and_foreign_owners_do_not_stop_a_restore() {
    unprivileged("read_only_directories_and_foreign_owners_do_not_stop_a_restore", || {
        let scratch = tree(&[("dir/sub/x", "1"), ("dir/y", "2")]);
        let lock = |root: &std::path::Path, mode| {
            for name in ["dir/sub", "dir"] {
                fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).unwrap();
            }
        };
        lock(scratch.path(), 0o555);
        let memory = Memory::default();
        let record = backup(&memory, &config(scratch.path()), None);
        let target = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let report = restore_with(&memory, &record, &into(target.path())).unwrap();
            assert_eq!(report.problems, []);
            assert_same(&memory, &record, target.path());
            for name in ["dir/sub", "dir"] {
                fs::set_permissions(target.path().join(name), fs::Permissions::from_mode(0o755)).unwrap();
            }
            fs::remove_file(target.path().join("dir/sub/x")).unwrap();
            lock(target.path(), 0o555);
        }
        lock(scratch.path(), 0o755);
        lock(target.path(), 0o755);
    });
}

#[test]
fn without_privileges_owners_are_counted_and_set_user_id_is_not_given_away() {
    unprivileged("without_privileges_owners_are_counted_and_set_user_id_is_not_given_away", || {
        // Owned by root in the record, whoever reads it.
        let memory = Memory::default();
        let record = backup(&memory, &config(std::path::Path::new("/usr/bin/passwd")), None);
        assert_eq!(record.state, State::Complete, "{:?}", record.problems);
        let target = tempfile::tempdir().unwrap();
        let plan = plan_restore(&memory, &record, &into(target.path()), &Silent).unwrap();
        assert!(plan.notices.iter().any(|notice| notice.contains("only root")), "{plan:?}");
        let report = restore_with(&memory, &record, &into(target.path())).unwrap();
        assert_eq!(report.state, State::Complete);
        assert!(report.notices.iter().any(|notice| notice.contains("owner could not be set")), "{report:?}");
        let restored = fs::read_dir(target.path()).unwrap().next().unwrap().unwrap();
        assert_eq!(restored.metadata().unwrap().permissions().mode() & 0o6000, 0);
    });
}
