//! A folder's life: backed up, listed, lost, restored, verified, pruned, recovered.

use crate::{KEY, Place, assert_seen, shop};
use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
};

#[test]
fn a_backup_says_what_it_captured_and_that_it_was_read_back() {
    let place = shop();
    assert_seen!(place.run(&["backup", "shop", "--quiet"]), @"
    exit 0
    out| Recovery point <id> of shop is complete.
    out|
    out| SOURCE  KIND  STATE  ITEMS  SIZE
    out| uploads  files  complete  6 <size>
    out|
    out| <size> read, <size> new in the repository, <while>; 4 objects read back and right
    ");
    assert_seen!(place.run(&["list"]), @"
    exit 0
    out| POINT  FINISHED  APP  POLICY  STATE  SIZE  NEW  PROVEN  HELD
    out| <id>  <time>  shop  by hand  complete <size> <size>  never
    ");
    assert_seen!(place.run(&["show", "shop"]), @"
    exit 0
    out| point  <id>
    out| application  shop (production)
    out| state  complete
    out| finished  <time> (<while>)
    out| took  <while>
    out| made by  hand
    out| on host <host>
    out| size <size>, of which <size> were new
    out| proof  never restored; try: mainstay verify shop --level restore
    out|
    out| SOURCE  KIND  STATE  ITEMS  SIZE
    out| uploads  files  complete  6 <size>
    ");
    assert_seen!(place.run(&["status"]), @"
    exit 0
    out| APP  POINTS  NEWEST  STATE  PROVEN  RECOVERY TAKES
    out| shop  1  <while>  complete  never  not measured
    out|
    out| ! shop: no recovery point was ever proven by a restore; do it now: mainstay verify shop --level restore
    ");
    place.done(&["verify", "shop", "--level", "restore"]);
    let well = place.done(&["status", "--check"]);
    assert!(well.contains("All is as it should be."), "{well}");
}

#[test]
fn the_latest_of_one_source_is_the_newest_point_that_has_it_complete() {
    let place = shop();
    let text = fs::read_to_string(place.at("mainstay.yaml")).unwrap();
    let letters = place.at("uploads/letters");
    let more = format!("sources:\n      letters: {{ files: {{ paths: [\"{}\"] }} }}", letters.display());
    place.write("mainstay.yaml", &text.replace("sources:", &more));
    place.done(&["backup", "shop"]);
    place.done(&["backup", "shop", "--source", "letters"]);
    let restore = |source: &str| {
        place.run(&["restore", "shop", "--source", source, "--to-dir", "back", "--dry-run", "--quiet"])
    };
    assert_seen!(restore("uploads"), @"
    exit 0
    out| Restore uploads of shop as of <time> (point <id>) into PLACE/back
    out|
    out|  to create  3 files (links included), 3 folders
    out|  to overwrite  0
    out|  right already 0
    out|  to remove  0
    out|  to write <size> ( <size> free)
    out|
    err| The newest recovery point (<id>) does not hold uploads: taking the newest that has it complete, <id> as of <time>.
    ");
    let of_latest = restore("letters");
    assert!(of_latest.code == 0 && of_latest.stderr.is_empty(), "{}", of_latest.all());
    assert_seen!(restore("images"), @r#"
    exit 10
    err| error: recovery point <id> has no source named "images"
    err| hint: It has: letters.
    "#);
    let point = place.json(&["list"], "point")[1]["id"].as_str().unwrap().to_owned();
    let named =
        ["restore", "shop", "--source", "uploads", "--point", &point, "--to-dir", "back", "--dry-run"];
    assert_ne!(place.run(&named).code, 0, "a point that was named is the one that was meant");
    place.done(&["restore", "shop", "--source", "uploads", "--to-dir", "back", "--yes"]);
    assert_eq!(fs::read(place.at("back/images/logo.png")).unwrap(), vec![7; 100_000]);
    place.done(&["recover", "--store", "store", "--source", "uploads", "--to-dir", "again", "--yes"]);
    assert!(place.at("again/images/logo.png").exists());
}

#[test]
fn a_lost_folder_comes_back() {
    let place = shop();
    place.done(&["backup", "shop"]);
    fs::remove_dir_all(place.at("uploads")).unwrap();
    let folder = place.at("uploads");
    assert_seen!(place.run(&["restore", "shop", "--to-dir", folder.to_str().unwrap(), "--quiet"]), @"
    exit 0
    out| Restore uploads of shop as of <time> (point <id>) into PLACE/uploads
    out|
    out|  to create  3 files (links included), 3 folders
    out|  to overwrite  0
    out|  right already 0
    out|  to remove  0
    out|  to write <size> ( <size> free)
    out|
    out| Restored 3 files ( <size>) and 3 folders; 0 right already, 0 removed.
    ");
    assert_eq!(fs::read_to_string(place.at("uploads/letters/2026/one.txt")).unwrap(), "first letter\n");
    assert_eq!(fs::read(place.at("uploads/images/logo.png")).unwrap(), vec![7; 100_000]);
}

#[test]
fn a_part_is_restored_by_path_or_pattern_and_a_dry_run_writes_nothing() {
    let place = shop();
    place.done(&["backup", "shop"]);
    let ran =
        place.run(&["restore", "shop", "--to-dir", "part", "--path", "letters/**", "--dry-run", "--quiet"]);
    assert_seen!(ran, @"
    exit 0
    out| Restore uploads of shop as of <time> (point <id>) into PLACE/part
    out|
    out|  to create  2 files (links included), 2 folders
    out|  to overwrite  0
    out|  right already 0
    out|  to remove  0
    out|  to write <size> ( <size> free)
    out|
    ");
    assert!(!place.at("part").exists());
    place.done(&["restore", "shop", "--to-dir", "part", "--path", "letters/**"]);
    assert!(place.at("part/letters/2026/one.txt").exists());
    assert!(!place.at("part/images").exists());
}

#[test]
fn what_lives_is_overwritten_only_after_a_confirmation() {
    let place = shop();
    place.done(&["backup", "shop"]);
    fs::write(place.at("uploads/letters/two.txt"), "changed since\n").unwrap();
    let ran = place.run(&["restore", "shop", "--to-dir", "uploads", "--quiet"]);
    assert_seen!(ran, @"
    exit 2
    out| Restore uploads of shop as of <time> (point <id>) into PLACE/uploads
    out|
    out|  to create  0 files (links included), 0 folders
    out|  to overwrite  1
    out|  right already 2
    out|  to remove  0
    out|  to write <size> ( <size> free)
    out|  overwrite: letters/two.txt
    out|
    err| error: overwrite or remove what is in PLACE/uploads needs a confirmation, and there is no terminal to ask on
    err| hint: Look at the plan, then run it again with --yes.
    ");
    assert_eq!(fs::read_to_string(place.at("uploads/letters/two.txt")).unwrap(), "changed since\n");
    place.done(&["restore", "shop", "--to-dir", "uploads", "--yes"]);
    assert_eq!(fs::read_to_string(place.at("uploads/letters/two.txt")).unwrap(), "second letter\n");
}

#[test]
fn a_restore_test_leaves_a_proof_that_the_list_shows() {
    let place = shop();
    place.done(&["backup", "shop"]);
    assert_seen!(place.run(&["verify", "shop", "--level", "restore", "--quiet"]), @"
    exit 0
    out| Restore test of shop, point <id> as of <time>: passed
    out|
    out| SOURCE  RESULT  RESTORED IN  COMPARED IN  SIZE  INTO
    out| uploads  passed  <while>  <while> <size>  a scratch directory
    out|
    out|  uploads: compared 7 entries: kind, size, mode, times, links, attributes and every byte
    out|
    out| Recovery took <while>, measured now. The signed proof is kept in the repository.
    ");
    let points = place.json(&["list"], "point");
    assert_eq!(points[0]["proofs"]["restore"]["passed"], true);
    for level in ["objects", "packs", "data"] {
        place.done(&["verify", "shop", "--level", level]);
    }
}

#[test]
fn a_signed_proof_is_shown_and_a_lost_one_is_said_until_a_new_one_is_made() {
    let place = shop();
    place.done(&["backup", "shop"]);
    place.done(&["verify", "shop", "--level", "restore"]);
    let said = place.done(&["show", "shop"]);
    for words in ["its signature holds", "uploads passed: compared 7 entries"] {
        assert!(said.contains(words), "{said}");
    }
    let proofs = place.files("store/proofs");
    let [proof] = proofs.as_slice() else { panic!("{proofs:?}") };
    let name = proof.file_name().unwrap().to_str().unwrap();
    let mut bytes = fs::read(proof).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::remove_file(proof).unwrap();
    for (word, damaged) in [("MISSING", None), ("DAMAGED", Some(bytes))] {
        if let Some(bytes) = damaged {
            fs::write(proof, bytes).unwrap();
        }
        let said = place.done(&["show", "shop"]);
        assert!(said.contains(&format!("its signed report is {word}")), "{said}");
        assert!(said.contains("prove it again: mainstay verify shop"), "{said}");
        let ran = place.run(&["verify", "shop", "--level", "objects", "--quiet"]);
        assert_eq!(ran.code, 4, "{}", ran.all());
        assert!(ran.stdout.contains(name) && ran.stdout.contains("harms no recovery point"), "{}", ran.all());
        let ran = place.run(&["repair", "--packs", "--quiet"]);
        assert!(ran.code == 4 && ran.stdout.contains("harms no recovery point"), "{}", ran.all());
        let ran = place.run(&["doctor"]);
        assert!(
            ran.code == 0 && ran.stdout.contains("the signed report of the restore test of"),
            "{}",
            ran.all()
        );
    }
    place.done(&["verify", "shop", "--level", "restore"]);
    place.done(&["verify", "shop", "--level", "objects"]);
}

#[test]
fn a_deleted_file_comes_back_after_the_point_that_had_it_was_collected() {
    let place = shop();
    let text = fs::read_to_string(place.at("mainstay.yaml")).unwrap();
    place.write("mainstay.yaml", &text.replace("uploads\"] }", "uploads\"], keep_deleted: 90d }"));
    place.done(&["backup", "shop"]);
    let first = place.json(&["list"], "point")[0]["id"].as_str().unwrap().to_owned();
    fs::remove_file(place.at("uploads/letters/two.txt")).unwrap();
    place.done(&["backup", "shop"]);
    place.done(&["delete", &first, "--yes"]);
    place.done(&["prune", "--yes", "--grace", "0s"]);
    assert_eq!(place.json(&["list"], "point").len(), 1);
    let found = place.done(&["find", "shop", "two.txt", "--deleted"]);
    assert!(found.contains("letters/two.txt") && found.contains("deleted before"), "{found}");
    place.done(&["restore", "shop", "--to-dir", "back", "--deleted", "--yes"]);
    let back = place.files("back");
    let back = back.iter().find(|path| path.ends_with("letters/two.txt")).expect("it came back");
    assert_eq!(fs::read_to_string(back).unwrap(), "second letter\n");
    place.done(&["verify", "shop", "--level", "data"]);
}

#[test]
fn a_held_point_stays_until_it_is_released() {
    let place = shop();
    for _ in 0..2 {
        place.done(&["backup", "shop"]);
    }
    let points = place.json(&["list"], "point");
    let oldest = points[0]["id"].as_str().unwrap();
    place.done(&["hold", "add", oldest, "--reason", "case 17", "--kind", "legal"]);
    let refused = place.run(&["delete", oldest, "--yes", "--quiet"]);
    assert_eq!(refused.code, 13, "{}", refused.all());
    assert!(refused.stderr.contains("legal: case 17"), "{}", refused.all());
    place.done(&["hold", "release", oldest, "--reason", "closed"]);
    place.done(&["delete", oldest, "--yes"]);
    assert_eq!(place.json(&["list"], "point").len(), 1);
}

#[test]
fn one_hold_of_several_is_released_and_one_may_have_its_time() {
    let place = shop();
    place.done(&["backup", "shop"]);
    place.done(&["hold", "add", "shop", "--reason", "case 17", "--for", "30d"]);
    place.done(&["hold", "add", "shop", "--reason", "case 18"]);
    let holds = place.json(&["hold", "list", "shop"], "hold");
    let of = |reason: &str| holds.iter().find(|hold| hold["detail"]["reason"] == reason).unwrap();
    let time = |value: &serde_json::Value| value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let timed = &of("case 17")["detail"];
    let lasts = time(&timed["until"]).duration_since(time(&timed["since"]));
    assert_eq!(lasts.as_hours(), 30 * 24, "{timed}");
    assert_eq!(of("case 18")["detail"]["until"], serde_json::Value::Null);

    let second = of("case 18")["hold"].as_str().unwrap();
    place.done(&["hold", "release", "shop", "--reason", "closed", "--hold", &second[..8]]);
    let left = place.json(&["hold", "list", "shop"], "hold");
    assert!(left.len() == 1 && left[0]["detail"]["reason"] == "case 17", "{left:?}");
    assert_eq!(place.run(&["delete", "shop", "--yes"]).code, 13, "the other still holds it");
    let unknown = place.run(&["hold", "release", "shop", "--reason", "x", "--hold", second]);
    assert_ne!(unknown.code, 0, "{}", unknown.all());
}

#[test]
fn pruning_explains_each_decision_and_keeps_the_newest() {
    let place = shop();
    for _ in 0..5 {
        place.done(&["backup", "shop", "--policy", "nightly"]);
    }
    let decisions = place.json(&["prune", "--dry-run", "--grace", "0s"], "decision");
    let kept = decisions.iter().filter(|decision| decision["keep"] == true).count();
    assert_eq!((decisions.len(), kept), (5, 3), "{decisions:?}");
    assert_eq!(place.json(&["list"], "point").len(), 5, "a dry run deletes nothing");
    place.done(&["prune", "--grace", "0s", "--yes"]);
    assert_eq!(place.json(&["list"], "point").len(), 3);
    place.done(&["verify", "shop", "--level", "data"]);
}

#[test]
fn a_store_and_a_key_are_enough_to_recover() {
    let place = shop();
    place.done(&["backup", "shop"]);
    let elsewhere = Place::new();
    let store = place.at("store");
    let arguments = ["recover", "--store", store.to_str().unwrap()];
    let ran = elsewhere.run(&arguments);
    assert!(ran.code == 0 && ran.stdout.contains("Repository fingerprint:"), "{}", ran.all());
    elsewhere.done(&[&arguments[..], &["--to-dir", "back"]].concat());
    assert_eq!(fs::read_to_string(elsewhere.at("back/letters/two.txt")).unwrap(), "second letter\n");

    let nobody = "0".repeat(64);
    let other = [&arguments[..], &["--fingerprint", &nobody]].concat();
    assert_ne!(elsewhere.run(&other).code, 0, "another fingerprint is refused");
}

#[test]
fn the_recovery_kit_names_the_repository_and_holds_no_key() {
    let place = shop();
    let kit = fs::read_to_string(place.at("mainstay-main-recovery-kit.txt")).unwrap();
    let id = place.json(&["recover", "--store", "store"], "repository")[0]["repository"]
        .as_str()
        .unwrap()
        .to_owned();
    let unspaced: String = kit.split_whitespace().collect();
    assert!(
        id[..].as_bytes().chunks(28).all(|part| unspaced.contains(std::str::from_utf8(part).unwrap())),
        "{kit}"
    );
    assert!(kit.contains("mainstay recover --store") && !kit.contains(KEY), "{kit}");
    for object in ["format", "trust/", "keys/"] {
        assert!(kit.contains(object), "{object}\n{kit}");
    }
}

#[test]
fn another_key_can_be_let_in_and_shut_out() {
    let place = shop();
    place.done(&["backup", "shop"]);
    let with = |arguments: &[&str]| {
        place.run_with(arguments, &[("MAINSTAY_KEY", KEY), ("PHRASE", "correct horse battery staple")])
    };
    assert_eq!(with(&["key", "add", "--label", "safe", "--passphrase-env", "PHRASE"]).code, 0);
    let by_phrase = ["recover", "--store", "store", "--passphrase-env", "PHRASE"];
    assert_eq!(with(&by_phrase).code, 0);
    assert_eq!(place.json(&["key", "list"], "key").len(), 2);
    place.done(&["key", "remove", "safe", "--yes"]);
    assert_eq!(with(&by_phrase).code, 12);
}

#[test]
fn a_point_can_be_looked_into_without_restoring_it() {
    let place = shop();
    place.done(&["backup", "shop"]);
    let paths = |lines: Vec<serde_json::Value>| {
        lines.iter().map(|line| line["path"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(paths(place.json(&["ls", "shop"], "entry")), ["images", "letters"]);
    assert_eq!(paths(place.json(&["ls", "shop", "letters"], "entry")), ["letters/2026", "letters/two.txt"]);
    assert_eq!(place.json(&["ls", "shop", "-r"], "entry").len(), 6);
    assert_eq!(place.run(&["ls", "shop", "nowhere"]).code, 2);
    let shown = place.done(&["ls", "shop", "letters"]);
    assert!(shown.contains("drwxr-xr-x") && shown.contains("letters/two.txt"), "{shown}");
}

#[test]
fn a_file_is_found_in_every_point_that_has_it() {
    let place = shop();
    place.done(&["backup", "shop"]);
    fs::remove_file(place.at("uploads/letters/two.txt")).unwrap();
    place.done(&["backup", "shop"]);
    assert_eq!(place.json(&["find", "shop", "*.txt"], "found").len(), 1);
    assert_eq!(place.json(&["find", "shop", "*.txt", "--all"], "found").len(), 3);
    assert_seen!(place.run(&["find", "shop", "two"]), @r#"
    exit 1
    err| error: nothing matches "two"
    err| hint: Look in every recovery point with --all, or among deleted files with --deleted.
    "#);
    assert_eq!(place.json(&["find", "shop", "two", "--all"], "found").len(), 1);
}

#[test]
fn what_changed_between_points_and_since_is_listed() {
    let place = shop();
    place.done(&["backup", "shop"]);
    let first = place.json(&["list"], "point")[0]["id"].as_str().unwrap().to_owned();
    fs::remove_file(place.at("uploads/letters/two.txt")).unwrap();
    fs::write(place.at("uploads/letters/2026/one.txt"), "the first letter, again\n").unwrap();
    fs::write(place.at("uploads/letters/2026/three.txt"), "a third letter\n").unwrap();
    place.done(&["backup", "shop"]);
    assert_seen!(place.run(&["diff", &first, "shop", "--quiet"]), @"
    exit 0
    out| ~ uploads: letters  (mode, owner, time or attributes)
    out| ~ uploads: letters/2026  (mode, owner, time or attributes)
    out| - uploads: letters/two.txt
    out| ~ uploads: letters/2026/one.txt  (content)
    out| + uploads: letters/2026/three.txt
    out|
    out| 5 differences.
    ");
    assert_seen!(place.run(&["diff", "shop", "--live", "--quiet"]), @"
    exit 0
    out| Nothing differs.
    ");
    fs::write(place.at("uploads/images/new.png"), "x").unwrap();
    fs::write(place.at("uploads/letters/2026/one.txt"), "changed\n").unwrap();
    fs::set_permissions(place.at("uploads"), fs::Permissions::from_mode(0o711)).unwrap();
    assert_seen!(place.run(&["diff", "shop", "--live", "--quiet"]), @"
    exit 0
    out| ~ uploads: .  (has another mode: 0711, not 0755)
    out| + uploads: images/new.png
    out| ~ uploads: letters/2026/one.txt  (has another size: 8, not 24; has another modification time: <time>, not <time>)
    out|
    out| 3 differences.
    ");
    place.done(&["backup", "shop"]);
    let root = place.json(&["diff", &first, "shop"], "difference").remove(0);
    assert!(root["object"] == "." && root["became"] == "changed", "{root}");
}

#[test]
fn the_doctor_finds_nothing_wrong_where_all_is_well() {
    let place = shop();
    assert_eq!(place.run(&["doctor"]).code, 0);
    fs::remove_dir_all(place.at("uploads")).unwrap();
    let ran = place.run(&["doctor"]);
    assert!(ran.code == 14 && ran.stdout.contains("uploads"), "{}", ran.all());
}

#[test]
fn a_name_of_any_bytes_is_found_listed_and_restored_as_it_is_shown_or_as_it_is() {
    let place = shop();
    let strange = |folder: &str, name: &[u8]| place.at(folder).join(OsStr::from_bytes(name));
    fs::create_dir(strange("uploads", b"caf\xe9")).unwrap();
    for name in [&b"caf\xe9/five*stars\n\xff"[..], b"caf\xe9/back\\slash", b"caf\xe9/plain"] {
        fs::write(strange("uploads", name), name).unwrap();
    }
    place.done(&["backup", "shop"]);
    assert_eq!(
        names(&place.done(&["ls", "shop", "caf\\xe9"])),
        ["caf\\xe9/back\\x5cslash", "caf\\xe9/five*stars\\x0a\\xff", "caf\\xe9/plain"]
    );
    let raw = |arguments: &[&OsStr]| {
        let output = place
            .command(env!("CARGO_BIN_EXE_mainstay"), &[])
            .args(arguments)
            .env("MAINSTAY_KEY", KEY)
            .output();
        let ran = place.ran(output.unwrap());
        assert_eq!(ran.code, 0, "{arguments:?}\n{}", ran.all());
        ran.stdout
    };
    let folder = OsStr::from_bytes(b"caf\xe9");
    assert_eq!(names(&raw(&["ls".as_ref(), "shop".as_ref(), folder])).len(), 3);
    assert_eq!(
        names(&raw(&["find".as_ref(), "shop".as_ref(), folder])).len(),
        4,
        "the folder, and what is in it"
    );
    for listed in names(&place.done(&["find", "shop", "caf\\xe9/"])) {
        assert_eq!(names(&place.done(&["find", "shop", &listed])), [&*listed], "typed back");
        let back = format!("back {listed}").replace('/', " ");
        place.done(&["restore", "shop", "--to-dir", &back, "--path", &listed, "--yes"]);
        assert_eq!(place.files(&back).len(), 1, "{listed}");
    }
    let path = [b"--path=", folder.as_bytes(), b"/*s*"].concat();
    raw(&[
        "restore".as_ref(),
        "shop".as_ref(),
        "--to-dir=raw".as_ref(),
        OsStr::from_bytes(&path),
        "--yes".as_ref(),
    ]);
    for name in [&b"caf\xe9/five*stars\n\xff"[..], b"caf\xe9/back\\slash"] {
        assert_eq!(fs::read(strange("raw", name)).unwrap(), name);
    }
    assert!(!strange("raw", b"caf\xe9/plain").exists());
    assert_seen!(place.run(&["restore", "shop", "--to-dir", "none", "--path", "caf\\xe8", "--yes"]), @r#"
    exit 2
    err| error: nothing in the recovery point matches "caf\xe8"
    err| hint: Paths are relative to the source's root; `mainstay ls POINT` and `mainstay find APP PATTERN` show them.
    "#);
    fs::create_dir(strange("", b"other\xff")).unwrap();
    let init =
        [&b"init"[..], b"--app=other", b"--store=elsewhere", b"--files=other\xff"].map(OsStr::from_bytes);
    let mut elsewhere = place.command(env!("CARGO_BIN_EXE_mainstay"), &["--config", "other.yaml"]);
    let ran = place.ran(elsewhere.args(init).env("MAINSTAY_KEY", KEY).output().unwrap());
    assert_seen!(ran, @r#"
    exit 2
    err| error: the name of PLACE/other\xff is no UTF-8, and a configuration cannot hold it
    err| hint: Name the folder above it, whose files may have any name, or a link that leads to it.
    "#);
}

/// The paths at the ends of lines.
fn names(listed: &str) -> Vec<String> {
    listed.lines().map(|line| line.rsplit("  ").next().unwrap().to_owned()).collect()
}
