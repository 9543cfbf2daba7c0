//! What a plan says of packs that are lost: a dry run does not promise what a restore cannot keep.

use crate::{assert_seen, databases::Shop, shop};
use std::{fs, path::PathBuf};

/// In the output, all shelves of packs by one name.
fn one_shelf(mut ran: crate::Ran) -> crate::Ran {
    for kind in ["packs/data/", "packs/tree/"] {
        let begins: Vec<usize> = ran.stdout.match_indices(kind).map(|(at, _)| at + kind.len()).collect();
        begins.into_iter().for_each(|begin| ran.stdout.replace_range(begin..begin + 2, "xx"));
    }
    ran
}

#[test]
fn a_dry_run_of_files_names_what_lay_in_a_lost_pack_and_the_restore_brings_the_rest() {
    let place = shop();
    place.done(&["backup", "shop"]);
    let earlier = place.files("store/packs/data");
    fs::write(place.at("uploads/late.txt"), "late").unwrap();
    place.done(&["backup", "shop"]);
    place.done(&["restore", "shop", "--to-dir", "back", "--dry-run"]);
    let later: Vec<PathBuf> = place.files("store/packs/data");
    let lost =
        later.iter().find(|path| !earlier.contains(path)).expect("the second backup has a pack of its own");
    let kept = fs::read(lost).unwrap();
    fs::remove_file(lost).unwrap();

    let dry_run = ["restore", "shop", "--to-dir", "back", "--dry-run", "--quiet"];
    assert_seen!(one_shelf(place.run(&dry_run)), @"
    exit 4
    out| Restore uploads of shop as of <time> (point <id>) into PLACE/back
    out|
    out|  cannot be read whole: listing (lost: packs/data/xx/<id>)
    out|  The rest can be restored, and what does not come is named then; `mainstay verify shop` says which points are whole.
    out|
    out|  to create  4 files (links included), 3 folders
    out|  to overwrite  0
    out|  right already 0
    out|  to remove  0
    out|  to write <size> ( <size> free)
    out|
    ");
    let lines = place.run(&[&dry_run[..], &["--json"]].concat()).stdout;
    let line = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let lacking: Vec<_> = line.filter(|line| line["type"] == "lacking").collect();
    assert!(lacking.len() == 1 && lacking[0]["packs"].as_array().unwrap().len() == 1, "{lines}");
    assert!(!place.at("back").exists(), "a dry run changes nothing");
    let restored = place.run(&["restore", "shop", "--to-dir", "back", "--yes", "--quiet"]);
    assert_eq!(restored.code, 3, "{}", restored.all());
    assert!(
        !place.at("back/late.txt").exists() && restored.stdout.contains("late.txt"),
        "{}",
        restored.all()
    );

    // The pack is there again and nobody has read it: the log knows it as lost.
    assert_eq!(place.run(&["verify", "shop"]).code, 4);
    fs::write(lost, kept).unwrap();
    let known = place.run(&dry_run);
    assert!(known.code == 4 && known.stdout.contains("cannot be read whole"), "{}", known.all());
    place.done(&["verify", "shop", "--level", "packs"]);
    place.done(&dry_run);
}

#[test]
fn what_was_stored_again_is_missed_by_no_dry_run() {
    let place = shop();
    place.done(&["backup", "shop"]);
    for pack in place.files("store/packs/data") {
        fs::remove_file(pack).unwrap();
    }
    let first = &place.json(&["list"], "point")[0];
    let id = first["id"].as_str().unwrap().to_owned();
    assert_eq!(place.run(&["backup", "shop"]).code, 4, "its reading back finds what is gone");
    place.done(&["backup", "shop"]);
    place.done(&["restore", "shop", "--point", &id, "--to-dir", "back", "--dry-run"]);
}

#[test]
fn a_dry_run_of_a_database_names_what_lay_in_a_lost_pack() {
    let shop = Shop::new();
    assert_eq!(shop.run(&["backup", "shop"]).code, 0);
    let earlier = shop.place.files("store/packs/data");
    let more = "INSERT INTO orders SELECT i, 1, 1 FROM generate_series(1001, 1010) i";
    shop.server.connect("shop").unwrap().execute(more).unwrap();
    assert_eq!(shop.run(&["backup", "shop"]).code, 0);
    for pack in shop.place.files("store/packs/data").iter().filter(|path| !earlier.contains(path)) {
        fs::remove_file(pack).unwrap();
    }
    let dry_run = ["restore", "shop", "--to-database", "back", "--dry-run", "--quiet"];
    // With the rows the archive of the definitions may be lost: then there is no plan, and the reason is named all the same.
    let seen = one_shelf(shop.run(&dry_run));
    let line = "cannot be read whole: table/public.orders/0 (lost: packs/data/xx/";
    assert!(seen.code == 4 && seen.stdout.contains(line), "{}", seen.all());
    let replace = shop.run(&["restore", "shop", "--replace", "--dry-run", "--quiet"]);
    assert!(replace.code == 4 && replace.stdout.contains("cannot be read whole"), "{}", replace.all());
    // The older point needs none of it.
    let older = &shop.points()[0];
    let ran = shop.run(&[&dry_run[..], &["--point", older]].concat());
    assert_eq!(ran.code, 0, "{}", ran.all());
}
