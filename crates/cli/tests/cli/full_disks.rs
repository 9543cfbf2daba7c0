//! Disks that are full, too small for what is to come, read-only, or mounted within what is backed up: what the user is told, and that
//! nothing is half there.

use crate::{Place, assert_seen, databases::Shop, shop, small_config};
use mainstay_sources::postgres::sandbox::{Sandbox, SandboxOptions, server_user};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Runs a test again in mount and user namespaces of its own, where it may mount file systems; `false` outside.
fn with_own_mounts(test: &str) -> bool {
    const INSIDE: &str = "MAINSTAY_TEST_OWN_MOUNTS";
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let output = Command::new("unshare")
        // A server runs as another user where root tests, whom a namespace of users would not know.
        .args((!rustix::process::geteuid().is_root()).then_some("--map-root-user"))
        .args(["--mount", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("full_disks::{test}"), "--nocapture"])
        .env(INSIDE, "yes")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    false
}

/// A small file system in a folder of the place; it ends with the namespace.
fn small_disk(place: &Place, name: &str, size: &str) -> PathBuf {
    let at = place.at(name);
    fs::create_dir_all(&at).unwrap();
    let options = format!("mode=0700,size={size}");
    let status = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&at).status();
    assert!(status.unwrap().success());
    at
}

/// A small file system that a server's user can enter; it ends with the namespace.
fn small_disk_for_a_server(size: &str) -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix("msd").tempdir_in("/tmp").unwrap();
    let options = format!("mode=0755,size={size}");
    let status =
        Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder.path()).status();
    assert!(status.unwrap().success());
    folder
}

fn free(disk: &Path) -> u64 {
    let disk = rustix::fs::statvfs(disk).unwrap();
    disk.f_bavail * disk.f_frsize
}

/// 20,000 rows of a kilobyte.
const LARGE: &str =
    "CREATE TABLE large AS SELECT i AS id, repeat('x', 1000) AS text FROM generate_series(1, 20000) i";

/// Bytes that no compressor makes smaller.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

#[test]
fn a_full_store_is_named_with_what_is_left_and_serves_what_it_holds() {
    if !with_own_mounts("a_full_store_is_named_with_what_is_left_and_serves_what_it_holds") {
        return;
    }
    let place = Place::new();
    small_disk(&place, "store", "1m");
    fs::create_dir(place.at("uploads")).unwrap();
    fs::write(place.at("uploads/one.txt"), "first letter\n").unwrap();
    place.write("mainstay.yaml", &small_config(&place));
    place.done(&["init"]);
    place.done(&["backup", "shop"]);
    fs::write(place.at("uploads/big"), noise(3 << 20)).unwrap();
    let mut full = place.run(&["backup", "shop", "--quiet"]);
    let shelf = full.stderr.find("packs/data/").expect("the pack is named") + "packs/data/".len();
    full.stderr.replace_range(shelf..shelf + 2, "xx");
    assert_seen!(full, @"
    exit 1
    err| error: file://PLACE/store is full (packs/data/xx/<id> could not be written)
    err|  cause: No space left on device (os error 28); <size> are free there
    err| hint: Free some space, or run `mainstay prune`; nothing that was committed is affected.
    ");
    assert_eq!(place.json(&["list"], "point").len(), 1, "no point came of it");
    place.done(&["restore", "shop", "--to-dir", "back"]);
    assert_eq!(fs::read_to_string(place.at("back/one.txt")).unwrap(), "first letter\n");
}

#[test]
fn a_destination_that_is_too_small_is_refused_before_anything_is_written() {
    if !with_own_mounts("a_destination_that_is_too_small_is_refused_before_anything_is_written") {
        return;
    }
    let place = shop();
    fs::write(place.at("uploads/big"), noise(3 << 20)).unwrap();
    place.done(&["backup", "shop"]);
    let small = small_disk(&place, "small", "1m");
    let restore = ["restore", "shop", "--to-dir", "small/back", "--quiet"];
    assert_seen!(place.run(&restore), @"
    exit 14
    out| Restore uploads of shop as of <time> (point <id>) into PLACE/small/back
    out|
    out|  to create  4 files (links included), 3 folders
    out|  to overwrite  0
    out|  right already 0
    out|  to remove  0
    out|  to write <size> ( <size> free)
    out|  cannot be done: <size> are to be written and <size> are free in PLACE/small
    out|
    err| error: <size> are to be written and <size> are free in PLACE/small
    err| hint: Nothing was restored. Put that right, or choose another folder: --to-dir FOLDER.
    ");
    assert_eq!(fs::read_dir(&small).unwrap().count(), 0, "nothing was written");
}

#[test]
fn a_cache_without_room_stops_nothing_and_the_doctor_names_it() {
    if !with_own_mounts("a_cache_without_room_stops_nothing_and_the_doctor_names_it") {
        return;
    }
    let place = shop();
    let cache = small_disk(&place, ".cache", "64k");
    fs::write(cache.join("ballast"), noise(1 << 20)).unwrap_err();
    place.done(&["backup", "shop"]);
    place.done(&["restore", "shop", "--to-dir", "back"]);
    let mut found = place.run(&["doctor", "--quiet"]);
    let of_cache = found.stdout.lines().skip_while(|line| !line.contains("cache")).take(2);
    found.stdout = of_cache.collect::<Vec<_>>().join("\n");
    assert_seen!(found, @"
    exit 0
    out| attention  cache: <size> free in PLACE/.cache/mainstay: what does not fit is read anew by each command
    out|  Make room, or name another folder: `cache:` of the repository, or MAINSTAY_CACHE.
    ");
}

#[test]
fn a_destination_that_takes_no_writes_is_refused_before_anything_is_asked() {
    if !with_own_mounts("a_destination_that_takes_no_writes_is_refused_before_anything_is_asked") {
        return;
    }
    let place = shop();
    place.done(&["backup", "shop"]);
    let disk = small_disk(&place, "disk", "1m");
    let remounted = Command::new("mount").args(["-o", "remount,ro"]).arg(&disk).status();
    assert!(remounted.unwrap().success());
    assert_seen!(place.run(&["restore", "shop", "--to-dir", "disk/back", "--quiet"]), @"
    exit 14
    out| Restore uploads of shop as of <time> (point <id>) into PLACE/disk/back
    out|
    out|  to create  3 files (links included), 3 folders
    out|  to overwrite  0
    out|  right already 0
    out|  to remove  0
    out|  to write <size> ( <size> free)
    out|  cannot be done: PLACE/disk is not writable
    out|
    err| error: PLACE/disk is not writable
    err| hint: Nothing was restored. Put that right, or choose another folder: --to-dir FOLDER.
    ");
}

#[test]
fn a_disk_that_is_mounted_within_is_left_out_where_one_file_system_is_asked_for() {
    if !with_own_mounts("a_disk_that_is_mounted_within_is_left_out_where_one_file_system_is_asked_for") {
        return;
    }
    let place = shop();
    let within = small_disk(&place, "uploads/disk", "1m");
    fs::write(within.join("elsewhere.txt"), "on another disk").unwrap();
    let found = |place: &Place| place.run(&["find", "shop", "elsewhere.txt"]).code == 0;
    place.done(&["backup", "shop"]);
    assert!(found(&place), "by default all disks are one tree");
    let text = fs::read_to_string(place.at("mainstay.yaml")).unwrap();
    place.write("mainstay.yaml", &text.replace("uploads\"] }", "uploads\"], one_file_system: true }"));
    place.done(&["backup", "shop"]);
    assert!(!found(&place));
    // The folder that it is mounted on is there all the same.
    place.done(&["restore", "shop", "--to-dir", "back"]);
    assert_eq!(fs::read_dir(place.at("back/disk")).unwrap().count(), 0);
}

#[test]
fn a_server_without_room_for_the_rows_is_refused_before_anything_is_made() {
    if !with_own_mounts("a_server_without_room_for_the_rows_is_refused_before_anything_is_made") {
        return;
    }
    let shop = Shop::new();
    shop.server.connect("shop").unwrap().execute(LARGE).unwrap();
    assert_eq!(shop.run(&["backup", "shop", "--quiet"]).code, 0);
    let disk = small_disk_for_a_server("256m");
    let options = SandboxOptions { parent: Some(disk.path().to_owned()), ..Shop::options() };
    let small = Sandbox::start(&options).unwrap();
    let ballast = (free(disk.path()) - (10 << 20)).to_string();
    let filled = Command::new("fallocate").args(["-l", &ballast]).arg(disk.path().join("ballast")).status();
    assert!(filled.unwrap().success());
    let url = format!(
        "postgres://postgres@/postgres?host={}&port={}",
        small.socket_directory().display(),
        small.port()
    );
    let variables =
        [("MAINSTAY_KEY", crate::KEY), ("DATABASE_URL", &*shop.url("postgres")), ("SMALL", &*url)];
    let restore = ["restore", "shop", "--to-database", "back", "--to-url-env", "SMALL", "--yes", "--quiet"];
    let mut refused = shop.place.run_with(&restore, &variables);
    refused.stdout.clear();
    assert_seen!(refused, @"
    exit 14
    err| error: the server's disk has <size> free, and the rows alone are <size>
    err| hint: Make room, or restore to another server.
    ");
    let databases = "SELECT count(*) FROM pg_database WHERE datname = 'back'";
    assert_eq!(small.connect("postgres").unwrap().query_text(databases).unwrap().as_deref(), Some("0"));
    fs::remove_file(disk.path().join("ballast")).unwrap();
    let ran = shop.place.run_with(&restore, &variables);
    assert!(ran.code == 0 && ran.stdout.contains("Equal to what was captured"), "{}", ran.all());
}

#[test]
fn a_server_whose_disk_fills_during_a_restore_is_named_with_what_is_left_half_done() {
    if !with_own_mounts("a_server_whose_disk_fills_during_a_restore_is_named_with_what_is_left_half_done") {
        return;
    }
    let shop = Shop::new();
    // No log lies there, so that the server itself lives on.
    let disk = small_disk_for_a_server("40m");
    let place = disk.path().join("space");
    fs::create_dir(&place).unwrap();
    if let Some((uid, gid)) = server_user() {
        std::os::unix::fs::chown(&place, Some(uid), Some(gid)).unwrap();
    }
    let mut live = shop.server.connect("shop").unwrap();
    live.execute(&format!("CREATE TABLESPACE small LOCATION '{}'", place.display())).unwrap();
    live.execute(LARGE).unwrap();
    live.execute("ALTER TABLE large SET TABLESPACE small").unwrap();
    drop(live);
    assert_eq!(shop.run(&["backup", "shop", "--quiet"]).code, 0);
    let new = ["restore", "shop", "--to-database", "back", "--yes", "--quiet"];
    let full = shop.run(&new);
    assert!(full.code == 1 && !full.stdout.contains("Restored"), "{}", full.all());
    for words in [
        "error: the server has no room for what is restored",
        "No space left on device (SQLSTATE 53100)",
        "hint: Nothing more was tried. Database back is marked as not finished: DROP DATABASE \"back\" WITH (FORCE). Make room",
    ] {
        assert!(full.stderr.contains(words), "{words}\n{}", full.all());
    }
    let beside = [
        "restore",
        "shop",
        "--to-database",
        "shop",
        "--into-existing",
        "--table",
        "large",
        "--to-schema",
        "rescued",
        "--yes",
        "--quiet",
    ];
    let full = shop.run(&beside);
    assert!(full.code == 1 && full.stderr.contains("in shop are marked as not finished"), "{}", full.all());
    assert_eq!(shop.count("shop", "large"), "20000", "what lives is as it was");

    let more = Command::new("mount").args(["-o", "remount,size=200m"]).arg(disk.path()).status();
    assert!(more.unwrap().success());
    shop.server.connect("postgres").unwrap().execute("DROP DATABASE \"back\" WITH (FORCE)").unwrap();
    shop.server.connect("shop").unwrap().execute("DROP TABLE rescued.large").unwrap();
    for restore in [&new[..], &beside[..]] {
        let ran = shop.run(restore);
        assert!(ran.code == 0 && ran.stdout.contains("Equal to what was captured"), "{}", ran.all());
    }
}
