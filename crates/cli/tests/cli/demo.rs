//! The demo is a test, too: it compares what came back by itself.

use crate::Place;
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
};

#[test]
fn the_demo_ends_with_a_proof_and_leaves_nothing_behind() {
    let place = Place::new();
    let temporary = place.at("tmp");
    fs::create_dir(&temporary).unwrap();
    // Open for the user that runs PostgreSQL when the tests run as root.
    for folder in [place.path(), &temporary] {
        fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
    }
    let ran = place.run_with(&["demo"], &[("TMPDIR", temporary.to_str().unwrap())]);
    assert_eq!(ran.code, 0, "{}", ran.all());
    for words in [
        "Equal: the 15040 rows are back",
        "Equal: every row of 25 tables",
        "Equal to what was captured",
        "502 keys.",
        "Restore test of clinic",
        "passed",
        "Done in ",
    ] {
        assert!(ran.stdout.contains(words), "{words:?} is missing\n{}", ran.all());
    }
    let left: Vec<_> = fs::read_dir(&temporary).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");
}
