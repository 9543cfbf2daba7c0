//! A whole recovery point at once.

use crate::{Place, assert_seen, databases::Shop};
use std::fs;

/// A database, a folder and a command's output.
fn shop() -> Shop {
    let shop = Shop::new();
    let folder = shop.place.path().display().to_string();
    fs::create_dir(shop.place.at("uploads")).unwrap();
    fs::write(shop.place.at("uploads/letter.txt"), "a letter\n").unwrap();
    let config = fs::read_to_string(shop.place.at("mainstay.yaml")).unwrap();
    let more = format!(
        "DATABASE_URL }} }} }}
      uploads: {{ files: {{ paths: [\"{folder}/uploads\"] }} }}
      users: {{ command: {{ run: \"echo one\", name: users.txt }} }}
    hooks: {{ before_restore: \"echo before $MAINSTAY_SOURCE >> hooks\", after_restore: \"echo $MAINSTAY_OUTCOME >> hooks\" }}"
    );
    shop.place.write("mainstay.yaml", &config.replace("DATABASE_URL } } }", &more));
    let ran = shop.run(&["backup", "shop", "--quiet"]);
    assert_eq!(ran.code, 0, "{}", ran.all());
    shop
}

#[test]
fn all_of_a_point_comes_back_by_one_plan_each_source_to_a_place_of_its_own() {
    let shop = shop();
    let all = ["restore", "shop", "--all", "--to-dir", "back", "--quiet"];
    let planned = shop.run(&[&all[..], &["--dry-run"]].concat());
    assert_eq!(planned.code, 0, "{}", planned.all());
    assert!(!shop.place.at("back").exists() && !shop.place.at("hooks").exists(), "a dry run changes nothing");

    assert_seen!(shop.run(&all), @"
    exit 0
    out| Restore all of shop as of <time> (point <id>), below PLACE/back
    out|
    out| SOURCE  KIND  STATE  SIZE  INTO
    out| db  postgres  complete <size>  database shop_restored
    out| uploads  files  complete <size>  PLACE/back/uploads
    out| users  command  complete <size>  PLACE/back/users
    out|
    out| Restore db of shop as of <time> (point <id>) into the database shop_restored
    out|
    out|  database  shop_restored, made anew
    out|  server  PostgreSQL <version> (captured from <version>)
    out|  to load  2 tables, 1100 rows, <size>, 0 large objects
    out|
    out|  LARGEST TABLES  ROWS  SIZE
    out|  public.orders  1000 <size>
    out|  public.customers  100 <size>
    out|
    out| Restore uploads of shop as of <time> (point <id>) into PLACE/back/uploads
    out|
    out|  to create  1 file (links included), 0 folders
    out|  to overwrite  0
    out|  right already 0
    out|  to remove  0
    out|  to write <size> ( <size> free)
    out|
    out| Restore users of shop as of <time> (point <id>) into PLACE/back/users
    out|
    out|  to write  PLACE/back/users/users.txt ( <size>)
    out|
    out| db:
    out| Restored 2 tables with 1100 rows ( <size>) and 0 large objects into shop_restored.
    out| Equal to what was captured: 1100 rows of 2 tables by digest, 14 definitions, 0 sequences, 0 large objects.
    out| uploads:
    out| Restored 1 file ( <size>) and 0 folders; 0 right already, 0 removed.
    out| users:
    out| Restored PLACE/back/users/users.txt ( <size>).
    out|
    out| SOURCE  RESULT  TOOK  INTO
    out| db  restored  <while>  database shop_restored
    out| uploads  restored  <while>  PLACE/back/uploads
    out| users  restored  <while>  PLACE/back/users
    out|
    out| Restored 3 sources: all there is.
    out|  before_restore: done
    out|  after_restore: done
    ");
    assert_eq!(shop.count("shop_restored", "orders"), "1000");
    assert_eq!(fs::read_to_string(shop.place.at("back/users/users.txt")).unwrap(), "one\n");
    let files = shop.place.files("back/uploads");
    assert!(files.iter().any(|file| file.ends_with("letter.txt")), "{files:?}");
    assert_eq!(fs::read_to_string(shop.place.at("hooks")).unwrap(), "before db,uploads,users\ndone\n");

    let again = shop.run(&[&all[..], &["--to-database", "shop_again"]].concat());
    assert_eq!(again.code, 14, "the output is there already\n{}", again.all());
    let made = "SELECT count(*) FROM pg_database WHERE datname = 'shop_again'";
    let made = shop.server.connect("postgres").unwrap().query_text(made).unwrap();
    assert_eq!(made.as_deref(), Some("0"), "nothing is begun unless all of it can be");
}

#[test]
fn what_a_point_does_not_have_is_named_and_one_source_that_fails_keeps_no_other_back() {
    let shop = shop();
    let ran = shop.run(&["backup", "shop", "--source", "uploads", "--source", "db", "--quiet"]);
    assert_eq!(ran.code, 0, "{}", ran.all());
    // Something gets in the way when all is planned.
    let config = fs::read_to_string(shop.place.at("mainstay.yaml")).unwrap();
    let in_the_way = "mkdir back; echo here first > back/uploads; echo before";
    shop.place.write("mainstay.yaml", &config.replace("echo before", in_the_way));
    assert_seen!(shop.run(&["restore", "shop", "--all", "--to-dir", "back", "--quiet"]), @"
    exit 1
    out| Restore all of shop as of <time> (point <id>), below PLACE/back
    out|
    out| SOURCE  KIND  STATE  SIZE  INTO
    out| db  postgres  complete <size>  database shop_restored
    out| uploads  files  complete <size>  PLACE/back/uploads
    out|  not included: users: not in this point; the newest that has it is <id>
    out|
    out| Restore db of shop as of <time> (point <id>) into the database shop_restored
    out|
    out|  database  shop_restored, made anew
    out|  server  PostgreSQL <version> (captured from <version>)
    out|  to load  2 tables, 1100 rows, <size>, 0 large objects
    out|
    out|  LARGEST TABLES  ROWS  SIZE
    out|  public.orders  1000 <size>
    out|  public.customers  100 <size>
    out|
    out| Restore uploads of shop as of <time> (point <id>) into PLACE/back/uploads
    out|
    out|  to create  1 file (links included), 0 folders
    out|  to overwrite  0
    out|  right already 0
    out|  to remove  0
    out|  to write <size> ( <size> free)
    out|
    out| db:
    out| Restored 2 tables with 1100 rows ( <size>) and 0 large objects into shop_restored.
    out| Equal to what was captured: 1100 rows of 2 tables by digest, 14 definitions, 0 sequences, 0 large objects.
    out|
    out| SOURCE  RESULT  TOOK  INTO
    out| db  restored  <while>  database shop_restored
    out| uploads  preflight  <while>  PLACE/back/uploads
    out|
    out|  not included: users: not in this point; the newest that has it is <id>
    out| Restored 1 of 3 sources whole. The others are named above.
    out|  before_restore: done
    out|  after_restore: done
    err| error: uploads: PLACE/back/uploads is not a directory that can be opened
    err| hint: Nothing was restored. Put that right, or choose another folder: --to-dir FOLDER.
    ");
    assert_eq!(shop.count("shop_restored", "orders"), "1000", "the other source came back");
    assert_eq!(fs::read_to_string(shop.place.at("back/uploads")).unwrap(), "here first\n");
    let hooks = fs::read_to_string(shop.place.at("hooks")).unwrap();
    assert!(hooks.ends_with("failed\n"), "{hooks}");
}

#[test]
fn a_store_and_a_key_bring_everything_back_to_another_server() {
    let shop = shop();
    let elsewhere = Place::new();
    let store = shop.place.at("store").display().to_string();
    let recover = ["recover", "--store", &store, "--all", "--to-dir", "back", "--quiet"];
    let at = |arguments: &[&str]| {
        elsewhere.run_with(arguments, &[("MAINSTAY_KEY", crate::KEY), ("SERVER", &shop.url("postgres"))])
    };
    let nowhere = at(&recover);
    assert!(nowhere.code == 14 && nowhere.stderr.contains("--to-url-env"), "{}", nowhere.all());
    assert!(!elsewhere.at("back").exists());
    let ran = at(&[&recover[..], &["--to-url-env", "SERVER", "--to-database", "shop_again"]].concat());
    assert_eq!(ran.code, 0, "{}", ran.all());
    assert_eq!(shop.count("shop_again", "orders"), "1000");
    assert!(elsewhere.at("back/users/users.txt").is_file());
}
