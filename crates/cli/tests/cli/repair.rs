//! What a person settles about a repository.

use crate::{Place, assert_seen, shop};
use std::{fs, path::PathBuf};

fn below(folder: PathBuf) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(below(path)) } else { found.push(path) }
    }
    found.sort();
    found
}

#[test]
fn a_log_in_doubt_gives_nothing_up_until_somebody_has_looked() {
    let place = shop();
    place.done(&["backup", "shop"]);
    place.done(&["backup", "shop"]);
    let entries = below(place.at("store/log"));
    fs::remove_file(&entries[entries.len() - 2]).unwrap();
    place.done(&["backup", "shop"]);

    assert_seen!(place.run(&["prune", "--yes"]), @"
    exit 13
    err| error: nothing is given up: log entry 3 is in doubt, it is missing
    err| hint: Find out what happened to it, then settle it with `mainstay repair --acknowledge`.
    ");
    assert_seen!(place.run(&["delete", "shop", "--yes"]), @"
    exit 13
    out| To be deleted:
    out|
    out| POINT  FINISHED  APP  STATE  SIZE
    out| <id>  <time>  shop  complete <size>
    out|
    err| warning: log entry 3: it is missing; recovery points in the store that the log does not name: <id>. To take points back: `mainstay repair --adopt ID`; then to settle it: `mainstay repair --acknowledge`.
    err| error: nothing is given up: log entry 3 is in doubt, it is missing
    err| hint: Find out what happened to it, then settle it with `mainstay repair --acknowledge`.
    ");
    assert_seen!(place.run(&["repair", "--acknowledge"]), @"
    exit 2
    out| main: in doubt of its log is
    out|  entry 3: it is missing
    out|
    out| In the store, and not named by the log (deleted, or committed by an entry above):
    out|  <id> of shop, <time>
    out| Afterwards `mainstay repair --adopt ID` takes one back; the next prune gives up the others.
    out|
    err| error: go on without what these entries may have said needs a confirmation, and there is no terminal to ask on
    err| hint: Look at the plan, then run it again with --yes.
    ");
    assert_seen!(place.run(&["repair", "--acknowledge", "--yes"]), @"
    exit 0
    out| main: in doubt of its log is
    out|  entry 3: it is missing
    out|
    out| In the store, and not named by the log (deleted, or committed by an entry above):
    out|  <id> of shop, <time>
    out| Afterwards `mainstay repair --adopt ID` takes one back; the next prune gives up the others.
    out|
    out| main: 1 entry acknowledged.
    ");
    assert_seen!(place.run(&["repair", "--acknowledge"]), @"
    exit 0
    out| main: nothing in its log is in doubt.
    ");
    let known = place.json(&["list"], "point").len();
    let lost =
        below(place.at("store/manifests")).into_iter().map(|path| path.file_name().unwrap().to_owned());
    let named = place.done(&["list", "--json"]);
    let lost: Vec<_> =
        lost.map(|id| id.into_string().unwrap()).filter(|id| !named.contains(id.as_str())).collect();
    assert_eq!(lost.len(), 1);
    assert_seen!(place.run(&["repair", "--adopt", &lost[0]]), @"
    exit 0
    out| main: recovery point <id> of shop is back in the log.
    ");
    assert_eq!(place.json(&["list"], "point").len(), known + 1);
    place.done(&["prune", "--yes"]);
    place.done(&["verify", "shop", "--level", "data"]);
    assert_seen!(place.run(&["repair", "--adopt", &lost[0]]), @r#"
    exit 10
    err| error: no recovery point that the log does not name has an id that begins with "<id>"
    err| hint: `mainstay list` shows those that the log names.
    "#);
}

#[test]
fn an_entry_far_beyond_the_end_of_the_log_stands_in_the_way_of_a_prune_until_somebody_has_looked() {
    let place = shop();
    place.done(&["backup", "shop"]);
    fs::write(place.at("store/log/00000000000000090000"), "whoever put it there").unwrap();
    assert_seen!(place.run(&["prune", "--yes"]), @"
    exit 13
    err| error: nothing is given up: log entry 90000 is in doubt, it lies far beyond the end of the log
    err| hint: Find out where it comes from, then settle it with `mainstay repair --acknowledge`.
    ");
    let doctor = place.run(&["doctor"]).all();
    assert!(doctor.contains("log entry 90000: it lies far beyond the end of the log"), "{doctor}");
    assert_seen!(place.run(&["repair", "--acknowledge", "--yes"]), @"
    exit 0
    out| main: in doubt of its log is
    out|  entry 90000: it lies far beyond the end of the log
    out|
    out| main: 1 entry acknowledged.
    ");
    place.done(&["prune", "--yes"]);
    place.done(&["backup", "shop"]);
    place.done(&["prune", "--yes"]);
}

#[test]
fn a_backup_heals_what_a_lost_pack_took() {
    let place = shop();
    place.done(&["backup", "shop"]);
    for pack in below(place.at("store/packs/data")) {
        fs::remove_file(pack).unwrap();
    }
    // Nothing has changed, so nothing is read, and only the reading back finds what is gone.
    let first = place.run(&["backup", "shop"]);
    assert_eq!(first.code, 4, "{}", first.all());
    assert!(first.stderr.contains("the next backup stores what lay there again"), "{}", first.all());
    place.done(&["backup", "shop"]);
    place.done(&["restore", "shop", "--to-dir", "back", "--yes"]);
    let logo = below(place.at("back")).into_iter().find(|path| path.ends_with("images/logo.png")).unwrap();
    assert_eq!(fs::read(logo).unwrap(), vec![7; 100_000]);
}

#[test]
fn what_was_stored_again_is_whole_to_all_who_look_and_what_cannot_be_had_again_is_not() {
    for lost in ["data", "tree"] {
        let place = shop();
        place.done(&["backup", "shop"]);
        let before = below(place.at("store/packs"));
        fs::write(place.at("uploads/more.txt"), "more").unwrap();
        place.done(&["backup", "shop"]);
        // Of the second point: nobody can capture again which files there were at the first.
        let mut old: Vec<_> = below(place.at("store/packs").join(lost));
        old.retain(|pack| !before.contains(pack));
        fs::remove_file(&old[0]).unwrap();
        fs::remove_dir_all(place.at("cache")).ok();
        let verified = place.run(&["verify", "shop"]);
        assert_eq!(verified.code, 4, "{lost}: {}", verified.all());
        let name =
            format!("packs/{lost}/{}", old[0].parent().unwrap().file_name().unwrap().to_str().unwrap());
        assert!(verified.stdout.contains(&name), "{lost}: named by its kind: {}", verified.all());
        assert!(place.done(&["status"]).contains("are lost: 1"));

        place.done(&["backup", "shop", "--full"]);
        let status = place.done(&["status"]);
        assert!(!status.contains("lost"), "{lost}: {status}");
        for level in ["objects", "packs", "data"] {
            let verified = place.done(&["verify", "shop", "--level", level]);
            assert!(verified.contains("Intact"), "{lost}: {verified}");
        }
        let repaired = place.done(&["repair", "--packs", "--quiet"]);
        assert!(
            repaired.contains("1 pack lost, and everything that recovery points need of it lies elsewhere")
        );
        assert!(!place.run(&["doctor"]).stdout.contains("lost"));
        // The copies go away as well.
        for pack in below(place.at("store/packs")) {
            fs::remove_file(pack).unwrap();
        }
        assert_eq!(place.run(&["verify", "shop"]).code, 4);
        assert!(place.done(&["status"]).contains("are lost"));
    }
}

#[test]
fn a_pack_of_which_nobody_knows_what_it_held_is_named_without_a_kind() {
    let place = shop();
    place.done(&["backup", "shop"]);
    for folder in ["store/packs", "store/index"] {
        for object in below(place.at(folder)) {
            fs::remove_file(object).unwrap();
        }
    }
    fs::remove_dir_all(place.at("cache")).ok();
    fs::remove_dir_all(place.at(".cache")).ok();
    let verified = place.run(&["verify", "shop"]).stdout;
    assert!(verified.contains("  pack ") && !verified.contains("packs/"), "{verified}");
}

#[test]
fn repair_names_lost_packs_and_says_when_they_are_whole_again() {
    let place = shop();
    place.done(&["backup", "shop"]);
    assert_seen!(place.run(&["repair", "--packs", "--quiet"]), @"
    exit 0
    out| main: every pack that a recovery point needs is whole.
    ");
    let packs = below(place.at("store/packs/data"));
    let bytes = fs::read(&packs[0]).unwrap();
    fs::remove_file(&packs[0]).unwrap();
    let found = place.run(&["repair", "--packs", "--quiet"]);
    assert_eq!(found.code, 4);
    assert!(found.stdout.contains("main: 1 pack lost."), "{}", found.all());
    fs::write(&packs[0], &bytes).unwrap();
    place.done(&["verify", "shop", "--level", "packs"]);
    assert!(!place.done(&["status"]).contains("lost"), "whoever reads it says so");

    fs::remove_file(&packs[0]).unwrap();
    assert_eq!(place.run(&["repair", "--packs", "--quiet"]).code, 4);
    fs::write(&packs[0], bytes).unwrap();
    assert_seen!(place.run(&["repair", "--packs", "--quiet"]), @"
    exit 0
    out| main: 1 pack whole again.
    out| main: every pack that a recovery point needs is whole.
    ");
    assert_seen!(place.run(&["repair"]), @"
    exit 2
    err| error: nothing to repair was named
    err| hint: Say what: --packs, --acknowledge, --adopt ID, --accept-rollback or --kit FILE.
    ");
}

#[test]
fn a_store_put_back_to_yesterday_is_used_again_only_when_told_so() {
    let place = shop();
    place.done(&["backup", "shop"]);
    let copied = std::process::Command::new("cp")
        .args(["-a", "store", "yesterday"])
        .current_dir(place.path())
        .status()
        .unwrap();
    assert!(copied.success());
    place.done(&["backup", "shop"]);
    fs::remove_dir_all(place.at("store")).unwrap();
    fs::rename(place.at("yesterday"), place.at("store")).unwrap();

    assert_seen!(place.run(&["backup", "shop", "--quiet"]), @"
    exit 13
    err| error: file://PLACE/store has lost entries of its log that were there before: it was restored from an older copy of itself
    err| hint: Recovery points that it had meanwhile are gone from it. Find out why; restores still work. To go on from what is there, accept it: `mainstay repair --accept-rollback`.
    ");
    assert_eq!(place.run(&["prune", "--yes"]).code, 13);
    place.done(&["restore", "shop", "--to-dir", "back", "--yes"]);
    assert_seen!(place.run(&["repair", "--accept-rollback"]), @"
    exit 0
    out| main: taken as it is now. Points made since that copy are gone; make a new backup.
    ");
    place.done(&["backup", "shop"]);
    place.done(&["verify", "shop"]);
    assert_seen!(place.run(&["repair", "--accept-rollback"]), @"
    exit 0
    out| main: nothing was rolled back.
    ");
}

#[test]
fn what_a_store_has_lost_of_itself_comes_back_from_the_recovery_kit() {
    let place = shop();
    place.done(&["backup", "shop"]);
    place.done(&["key", "kit", "--output", "kit.txt"]);
    let kit = "kit.txt";
    for lost in ["store/format", "store/trust", "store/keys", "store/log"] {
        let lost = place.at(lost);
        if lost.is_dir() { fs::remove_dir_all(&lost).unwrap() } else { fs::remove_file(&lost).unwrap() }
    }
    let recover = |more: &[&str]| place.run(&[&["recover", "--store", "store"], more].concat());
    assert_seen!(recover(&[]), @"
    exit 4
    err| error: file://PLACE/store has lost the object `format`, which says what its repository is
    err| hint: The recovery kit holds a copy: restore with `mainstay recover --store URL --kit FILE`, put it back with `mainstay repair --kit FILE`.
    ");
    let listed = recover(&["--kit", kit]);
    assert_eq!(listed.code, 0, "{}", listed.all());
    assert!(listed.stdout.contains("shop") && listed.stderr.contains("only read"), "{}", listed.all());
    let restored = recover(&["--kit", kit, "--to-dir", "back", "--yes"]);
    assert_eq!(restored.code, 0, "{}", restored.all());
    assert!(place.files("back").iter().any(|path| path.ends_with("images/logo.png")));

    let put_back = place.done(&["repair", "--kit", kit]);
    assert!(
        put_back.starts_with("main: put back keys/") && put_back.contains("trust/0000000001, format."),
        "{put_back}"
    );
    assert_seen!(place.run(&["repair", "--kit", kit]), @"
    exit 0
    out| main: nothing is lost that the kit could give back.
    ");
    // Of a log that is lost as a whole the beginning would say that there is no point, and all of it is garbage.
    assert_eq!(place.run(&["backup", "shop"]).code, 13);
    place.done(&["restore", "shop", "--to-dir", "again", "--yes"]);
}

#[test]
fn a_log_that_is_lost_leaves_everything_to_be_restored_and_says_so() {
    let place = shop();
    place.done(&["backup", "shop"]);
    for entry in below(place.at("store/log")) {
        fs::write(entry, "nothing of use").unwrap();
    }
    assert_seen!(place.run(&["list"]), @"
    exit 0
    out| POINT  FINISHED  APP  POLICY  STATE  SIZE  NEW  PROVEN  HELD
    out| <id>  <time>  shop  by hand  complete <size> <size>  never
    err| warning: store: the repository is damaged and only read: its log cannot be read (log/00000000000000000000 is damaged: it is not the beginning of this repository's log). Every point is listed whose manifest can be read, also one that was deleted and is not yet collected. Restore from it what is needed, and begin a new repository.
    ");
    let status = place.done(&["status"]);
    assert!(status.contains("the repository is damaged and only read: its log cannot be read"), "{status}");
    assert_seen!(place.run(&["backup", "shop", "--quiet"]), @"
    exit 13
    err| error: nothing is written to this repository while it is damaged: its log cannot be read (log/00000000000000000000 is damaged: it is not the beginning of this repository's log)
    err| hint: Restores work. `mainstay repair --kit FILE` puts back what the recovery kit holds; without it, go on in a new repository.
    ");
    assert_eq!(place.run(&["prune", "--yes"]).code, 13);
    place.done(&["restore", "shop", "--to-dir", "back", "--yes"]);
    assert!(place.files("back").iter().any(|path| path.ends_with("images/logo.png")));
}

#[test]
fn a_point_to_be_taken_back_is_looked_for_in_every_repository() {
    let place = shop();
    let config = fs::read_to_string(place.at("mainstay.yaml")).unwrap();
    let other = format!("file://{}/other", place.path().display());
    let config =
        config.replacen("stores:\n", &format!("stores:\n  other: {{ url: \"{other}\" }}\n"), 1).replacen(
            "repositories:\n",
            "repositories:\n  another: { key: { env: MAINSTAY_KEY }, stores: [other] }\n",
            1,
        );
    place.write("mainstay.yaml", &config);
    place.done(&["init", "--repository", "another"]);
    place.done(&["backup", "shop"]);
    place.done(&["backup", "shop"]);
    let point = place.json(&["list"], "point")[0]["id"].as_str().unwrap().to_owned();
    place.done(&["delete", &point, "--yes"]);
    assert_seen!(place.run(&["repair", "--adopt", &point]), @"
    exit 0
    out| main: recovery point <id> of shop is back in the log.
    ");
    assert_eq!(place.run(&["repair", "--adopt", &point]).code, 10, "it is in none now");
}

/// Each kind of damage to the repository itself: nobody who asks is told that all is well.
#[test]
fn what_a_repository_has_lost_of_itself_is_said_by_every_command_that_believes_it() {
    type Harm = (&'static str, fn(&Place));
    fn flip(path: &PathBuf) {
        let mut bytes = fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(path, bytes).unwrap();
    }
    let harms: [Harm; 4] = [
        ("a log entry is flipped", |place| flip(&below(place.at("store/log"))[1])),
        ("a log entry is another's", |place| {
            let log = below(place.at("store/log"));
            fs::copy(log.last().unwrap(), &log[1]).unwrap();
        }),
        ("the trust list is flipped", |place| flip(&below(place.at("store/trust"))[0])),
        ("a pack is cut off", |place| {
            let pack = below(place.at("store/packs/data")).remove(0);
            fs::File::options().write(true).open(pack).unwrap().set_len(100).unwrap();
        }),
    ];
    for (harm, damage) in harms {
        let place = shop();
        place.done(&["backup", "shop"]);
        place.done(&["backup", "shop"]);
        for path in below(place.at("store")) {
            let mut permissions = fs::metadata(&path).unwrap().permissions();
            #[allow(clippy::permissions_set_readonly_false)] // files of this test alone
            permissions.set_readonly(false);
            fs::set_permissions(&path, permissions).unwrap();
        }
        damage(&place);
        fs::remove_dir_all(place.at("cache")).ok();
        let verified = place.run(&["verify", "shop", "--level", "objects"]);
        assert_eq!(verified.code, 4, "{harm}: {}", verified.all());
        if harm != "a pack is cut off" {
            for command in [
                &["list"][..],
                &["show", "shop"],
                &["find", "shop", "one"],
                &["restore", "shop", "--to-dir", "back", "--yes"],
                &["recover", "--store", "store"],
                &["recover", "--store", "store", "--to-dir", "again", "--yes"],
            ] {
                let ran = place.run(command);
                assert_eq!(ran.code, 0, "{harm}: {command:?}\n{}", ran.all());
                assert!(ran.stderr.contains("warning: "), "{harm}: {command:?}\n{}", ran.all());
            }
            let backup = place.run(&["backup", "shop"]);
            assert!(backup.code == 13 || backup.stderr.contains("warning: "), "{harm}: {}", backup.all());
            assert_eq!(backup.code == 13, harm.contains("trust"), "{harm}: {}", backup.all());
            let doctor = place.run(&["doctor"]);
            assert!(doctor.code != 0 || !harm.contains("trust"), "{harm}: {}", doctor.all());
        }
    }
}

#[test]
fn a_point_whose_manifest_is_lost_is_in_nobodys_way_once_it_is_given_up() {
    let place = shop();
    place.done(&["backup", "shop"]);
    fs::write(place.at("uploads/more.txt"), "more").unwrap();
    place.done(&["backup", "shop"]);
    let id = place.json(&["list"], "point")[0]["id"].as_str().unwrap().to_owned();
    fs::remove_file(place.at("store/manifests").join(&id)).unwrap();
    assert_seen!(place.run(&["prune", "--yes"]), @"
    exit 4
    err| error: nothing is deleted: what recovery point <id> needs cannot be known, manifests/<id> is not in file://PLACE/store
    err| hint: Give it up with `mainstay delete <id>`; the others are as they were.
    ");
    assert_eq!(place.run(&["prune", "--dry-run"]).code, 4);
    place.done(&["delete", &id[..8], "--yes"]);
    place.done(&["prune", "--yes"]);
    place.done(&["verify", "shop", "--level", "data"]);
}

#[test]
fn recover_restores_a_point_that_the_log_does_not_name() {
    let place = shop();
    place.done(&["backup", "shop"]);
    fs::write(place.at("uploads/letters/two.txt"), "another\n").unwrap();
    place.done(&["backup", "shop"]);
    let id = place.json(&["list"], "point")[0]["id"].as_str().unwrap().to_owned();
    place.done(&["delete", &id[..8], "--yes"]);
    let store = place.files("store");
    let listed = place.done(&["recover", "--store", "store"]);
    let (named, unnamed) = listed.split_once("not named by its log").expect(&listed);
    assert!(!named.contains(&id[..8]) && unnamed.contains(&id[..8]), "{listed}");
    place.done(&["recover", "--store", "store", "--point", &id[..8], "--to-dir", "back", "--yes"]);
    let letter = below(place.at("back")).into_iter().find(|path| path.ends_with("letters/two.txt")).unwrap();
    assert_eq!(fs::read_to_string(letter).unwrap(), "second letter\n");
    assert_eq!(place.files("store"), store, "nothing was written");
    place.done(&["repair", "--adopt", &id]);
    assert!(!place.done(&["recover", "--store", "store"]).contains("not named by its log"));
}
