//! A store whose file system has become read-only, as the kernel makes one that it no longer trusts.

use crate::{assert_seen, shop};
use std::{fs, process::Command};

const NAME: &str = "read_only::a_store_that_became_read_only_is_named_and_serves_what_it_holds";
const INSIDE: &str = "MAINSTAY_TEST_OWN_MOUNTS";

fn mount(arguments: &[&str]) {
    assert!(Command::new("mount").args(arguments).status().unwrap().success(), "{arguments:?}");
}

#[test]
fn a_store_that_became_read_only_is_named_and_serves_what_it_holds() {
    if std::env::var_os(INSIDE).is_none() {
        // Again, in namespaces in which this process may mount.
        let mut again = Command::new("unshare");
        again.args(["--map-root-user", "--mount", "--"]).arg(std::env::current_exe().unwrap());
        let output = again.args(["--exact", NAME, "--nocapture"]).env(INSIDE, "yes").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    let place = shop();
    place.done(&["backup", "shop"]);
    let store = place.at("store").display().to_string();
    mount(&["--bind", &store, &store]);
    mount(&["-o", "remount,bind,ro", &store]);

    fs::write(place.at("uploads/letters/three.txt"), "third letter\n").unwrap();
    assert_seen!(place.run(&["backup", "shop", "--quiet"]), @"
    exit 1
    err| error: file://PLACE/store refuses access to log/00000000000000000003
    err|  cause: Read-only file system (os error 30)
    err| hint: Check that the user who runs mainstay may read and write there (read-only file system? permissions?).
    ");
    assert_eq!(place.json(&["list"], "point").len(), 1, "no point came of it");
    place.done(&["restore", "shop", "--to-dir", "back"]);
    assert_eq!(fs::read_to_string(place.at("back/letters/two.txt")).unwrap(), "second letter\n");

    mount(&["-o", "remount,bind,rw", &store]);
    place.done(&["backup", "shop"]);
    assert_eq!(place.json(&["list"], "point").len(), 2);
}
