//! What commands say to people when all goes well.

use crate::{Place, assert_seen, databases::Shop, shop, small_config};
use std::fs;

#[test]
fn a_new_repository_comes_with_a_kit_that_is_to_be_kept_elsewhere() {
    let place = Place::new();
    fs::create_dir(place.at("uploads")).unwrap();
    place.write("mainstay.yaml", &small_config(&place));
    assert_seen!(place.run(&["init"]), @"
    exit 0
    out| Repository <id> is made in file://PLACE/store.
    out| Its recovery kit is mainstay-main-recovery-kit.txt (mainstay-main-recovery-kit.html for printing).
    out|
    out| The key is in the environment variable MAINSTAY_KEY. Without it nothing can ever be restored: keep a copy
    out| of it, and the kit, somewhere else than this machine and its backups, and apart from each other.
    out|
    out| Next: mainstay backup shop
    ");
}

#[test]
fn prune_says_of_each_point_why_it_stays_or_goes() {
    let place = shop();
    for _ in 0..4 {
        place.done(&["backup", "shop", "--policy", "nightly"]);
    }
    place.done(&["hold", "add", "shop", "--reason", "case 17", "--kind", "legal"]);
    assert_seen!(place.run(&["prune", "--dry-run", "--grace", "0s", "--quiet"]), @"
    exit 0
    out| Repository main: 3 recovery points kept, 1 given up.
    out|
    out| POINT  FINISHED  APP  POLICY  WHY  GOES
    out| <id>  <time>  shop  nightly  GIVE UP  no rule of policy nightly keeps it; superseded by <id> on <time>  now
    out| <id>  <time>  shop  nightly  keep  last 3 of 3 of policy nightly
    out| <id>  <time>  shop  nightly  keep  last 2 of 3 of policy nightly
    out| <id>  <time>  shop  nightly  keep  held (legal) by uid <uid> until released; the newest complete point; last 1 of 3 of policy nightly
    out|
    out| Nothing was done. Nothing needs 0 objects ( <size>) as it is; what only given-up points need comes on top.
    ");
    assert_seen!(place.run(&["prune", "--yes", "--grace", "0s", "--quiet"]), @"
    exit 0
    out| Repository main: 3 recovery points kept, 1 given up.
    out|
    out| POINT  FINISHED  APP  POLICY  WHY  GOES
    out| <id>  <time>  shop  nightly  GIVE UP  no rule of policy nightly keeps it; superseded by <id> on <time>  now
    out| <id>  <time>  shop  nightly  keep  last 3 of 3 of policy nightly
    out| <id>  <time>  shop  nightly  keep  last 2 of 3 of policy nightly
    out| <id>  <time>  shop  nightly  keep  held (legal) by uid <uid> until released; the newest complete point; last 1 of 3 of policy nightly
    out|
    out| Deleted 1 object ( <size>).
    ");
}

#[test]
fn a_hold_is_told_when_it_is_made_listed_and_released() {
    let place = shop();
    place.done(&["backup", "shop"]);
    let add = ["hold", "add", "shop", "--reason", "case 17", "--kind", "legal", "--for", "30d"];
    assert_seen!(place.run(&add), @"
    exit 0
    out| Recovery point <id> is held (legal: case 17).
    ");
    assert_seen!(place.run(&["hold", "list", "shop"]), @"
    exit 0
    out| HOLD  KIND  REASON  BY  SINCE  UNTIL
    out| <id>  legal  case 17  uid <uid>  <time>  <time>
    ");
    assert_seen!(place.run(&["hold", "release", "shop", "--reason", "closed"]), @"
    exit 0
    out| 1 released; retention decides about <id> again.
    ");
    assert_seen!(place.run(&["hold", "list", "shop"]), @"
    exit 0
    out| There is no hold on it.
    ");
}

#[test]
fn keys_are_told_when_they_are_let_in_listed_and_shut_out() {
    let place = shop();
    place.write("two.key", &"ab".repeat(32));
    assert_seen!(place.run(&["key", "add", "--label", "two", "--key-file", "two.key"]), @r#"
    exit 0
    out| "two" opens the repository now.
    out| The recovery kit is out of date. Print a new one: mainstay key kit --output FILE
    "#);
    assert_seen!(place.run(&["key", "list"]), @"
    exit 0
    out| KEY  LABEL  KIND  EPOCH  SINCE
    out| <id>  first key of main  key  1  <time>
    out| <id>  two  key  1  <time>
    ");
    assert_seen!(place.run(&["key", "remove", "two", "--yes"]), @r#"
    exit 0
    out| "two" opens the repository no more.
    out| The recovery kit is out of date. Print a new one: mainstay key kit --output FILE
    "#);
}

#[test]
fn the_configuration_is_shown_with_all_that_it_leaves_to_defaults() {
    assert_seen!(shop().run(&["config", "show"]), @"
    exit 0
    out| version: 1
    out| stores:
    out|  local:
    out|  url: file://PLACE/store
    out| repositories:
    out|  main:
    out|  key:
    out|  env: MAINSTAY_KEY
    out|  stores:
    out|  - local
    out|  copies_required: 1
    out|  compression:
    out|  algorithm: zstd
    out|  pack_size: <id>
    out|  verify_after: packs
    out| apps:
    out|  shop:
    out|  repository: main
    out|  environment: production
    out|  sources:
    out|  uploads:
    out|  files:
    out|  paths:
    out|  - PLACE/uploads
    out|  one_file_system: false
    out|  cachedir_tag: false
    out|  policies:
    out|  nightly:
    out|  schedule: 0 3 * * *
    out|  keep:
    out|  last: 3
    ");
}

#[test]
fn each_depth_of_a_check_says_what_it_looked_at_and_the_list_how_deep_that_was() {
    let place = shop();
    place.done(&["backup", "shop"]);
    assert_seen!(place.run(&["verify", "shop", "--level", "objects", "--quiet"]), @"
    exit 0
    out| Intact at level objects: 1 recovery point of shop, 4 objects, <size> read.
    ");
    assert_seen!(place.run(&["verify", "shop", "--level", "packs", "--quiet"]), @"
    exit 0
    out| Intact at level packs: 1 recovery point of shop, 4 objects, <size> read.
    ");
    assert_seen!(place.run(&["verify", "shop", "--level", "data", "--quiet"]), @"
    exit 0
    out| Intact at level data: 1 recovery point of shop, 4 objects, <size> read.
    ");
    assert_seen!(place.run(&["list"]), @"
    exit 0
    out| POINT  FINISHED  APP  POLICY  STATE  SIZE  NEW  PROVEN  HELD
    out| <id>  <time>  shop  by hand  complete <size> <size>  data <while>
    ");
    place.done(&["verify", "shop", "--level", "restore"]);
    place.done(&["verify", "shop", "--level", "objects"]);
    assert_seen!(place.run(&["list"]), @"
    exit 0
    out| POINT  FINISHED  APP  POLICY  STATE  SIZE  NEW  PROVEN  HELD
    out| <id>  <time>  shop  by hand  complete <size> <size>  restored <while>
    ");
}

#[test]
fn the_plan_of_a_replacement_says_what_gives_way_and_what_comes() {
    let shop = Shop::new();
    assert_eq!(shop.run(&["backup", "shop"]).code, 0);
    shop.server.connect("shop").unwrap().execute("DELETE FROM orders WHERE id > 10").unwrap();
    assert_seen!(shop.run(&["restore", "shop", "--replace", "--dry-run", "--quiet"]), @"
    exit 0
    out| Restore db of shop as of <time> (point <id>) into the place of the database shop
    out|
    out|  database  shop_restored_<date>, made anew
    out|  server  PostgreSQL <version> (captured from <version>)
    out|  to load  2 tables, 1100 rows, <size>, 0 large objects
    out|
    out|  LARGEST TABLES  ROWS  SIZE
    out|  public.orders  1000 <size>
    out|  public.customers  100 <size>
    out|
    out|  the living one  shop, <size>, backed up first
    out|  sessions  0 would be ended
    out|  swap  both databases are renamed in one transaction; the old one is kept as shop_before_<date>
    out|
    ");
}
