//! Stores that lie, are full, or refuse; destinations without room; a database that is away.

use crate::{KEY, Place, Ran, shop, small_config};
use std::{
    fs::{self, Permissions},
    os::unix::fs::{FileExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Runs with a limit on the size of files: what lies behind it looks full. A file system of its own would need privileges.
fn with_file_limit(place: &Place, kib: usize, arguments: &[&str]) -> Ran {
    let script = format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"", kib * 2);
    let program = env!("CARGO_BIN_EXE_mainstay");
    let all = [&["-c", &script, program], arguments].concat();
    place.ran(place.command("sh", &all).env("MAINSTAY_KEY", KEY).output().unwrap())
}

/// A large file that does not compress.
fn add_noise(place: &Place, length: usize) {
    let mut noise = std::io::Read::take(fs::File::open("/dev/urandom").unwrap(), length as u64);
    std::io::copy(&mut noise, &mut fs::File::create(place.at("uploads/large")).unwrap()).unwrap();
}

pub(crate) fn flip_a_byte(path: &Path) {
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let (at, mut byte) = (file.metadata().unwrap().len() / 2, [0]);
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

/// A backup of which one pack is harmed as soon as it is there, before anything is read back.
fn harmed_between(verify_after: &str, harm: impl Fn(&Path)) -> Ran {
    let place = shop();
    let text = fs::read_to_string(place.at("mainstay.yaml")).unwrap();
    let more = format!("stores: [local], pack_size: 16MiB, verify_after: {verify_after} }}");
    place.write("mainstay.yaml", &text.replace("stores: [local] }", &more));
    add_noise(&place, 64 << 20);
    let mut child = place.start(&["backup", "shop"]);
    let deadline = Instant::now() + Duration::from_secs(120);
    let pack = loop {
        if let Some(pack) = place.files("store/packs/data").into_iter().find(|path| is_a_pack(path)) {
            break pack;
        }
        assert!(child.try_wait().unwrap().is_none() && Instant::now() < deadline, "no pack was written");
        std::thread::yield_now();
    };
    harm(&pack);
    place.ran(child.wait_with_output().unwrap())
}

#[test]
fn what_is_read_back_is_what_verify_after_says() {
    let remove = |pack: &Path| fs::remove_file(pack).unwrap();
    // By its objects a missing pack is found, one with other bytes is not looked into.
    let ran = harmed_between("objects", remove);
    assert!(ran.code == 4 && ran.stdout.contains("READ BACK WRONG"), "{}", ran.all());
    let ran = harmed_between("objects", flip_a_byte);
    assert!(ran.code == 0 && ran.stdout.contains("objects"), "{}", ran.all());
    let ran = harmed_between("none", remove);
    assert!(ran.code == 0 && !ran.stdout.contains("read back"), "{}", ran.all());
}

#[test]
fn a_store_that_keeps_other_bytes_than_it_was_given_is_found_out_by_the_backup() {
    let place = shop();
    let text = fs::read_to_string(place.at("mainstay.yaml")).unwrap().replace("last: 3", "last: 1");
    place.write("mainstay.yaml", &text.replace("stores: [local] }", "stores: [local], pack_size: 16MiB }"));
    place.done(&["backup", "shop", "--policy", "nightly"]);
    let earlier = place.files("store/packs/data");
    add_noise(&place, 64 << 20);
    let mut child = place.start(&["backup", "shop", "--policy", "nightly"]);
    let deadline = Instant::now() + Duration::from_secs(120);
    let pack = loop {
        // A pack gets its name when it is whole.
        let is_new = |path: &PathBuf| is_a_pack(path) && !earlier.contains(path);
        if let Some(pack) = place.files("store/packs/data").into_iter().find(is_new) {
            break pack;
        }
        assert!(child.try_wait().unwrap().is_none() && Instant::now() < deadline, "no pack was written");
        std::thread::yield_now();
    };
    flip_a_byte(&pack);
    let ran = place.ran(child.wait_with_output().unwrap());
    assert_eq!(ran.code, 4, "{}", ran.all());
    let name = pack.file_name().unwrap().to_str().unwrap();
    for said in [name, "READ BACK WRONG"] {
        assert!(ran.stdout.contains(said), "{said}\n{}", ran.all());
    }
    assert!(ran.stderr.contains("problem: packs/data/"), "{}", ran.all());
    assert!(
        ran.stdout
            .contains("make another one, which stores again what it needs of that: mainstay backup shop"),
        "it says what to do\n{}",
        ran.all()
    );
    let points = place.json(&["list"], "point");
    let proofs = |point: usize| points[point]["proofs"].clone();
    assert_eq!((proofs(1)["packs"]["passed"].clone(), points.len()), (false.into(), 2), "{points:?}");
    assert_eq!(proofs(0), serde_json::json!({}), "it is said of that point alone");
    // So it takes no good point's place.
    place.done(&["prune", "--yes", "--grace", "0s"]);
    assert_eq!(place.json(&["list"], "point").len(), 2);
    place.done(&["backup", "shop", "--policy", "nightly"]);
    place.done(&["prune", "--yes", "--grace", "0s"]);
    assert_eq!(place.json(&["list"], "point").len(), 1, "a whole one does");
    place.done(&["verify", "shop", "--point", "latest", "--level", "data"]);
    place.done(&["verify", "shop", "--level", "restore"]);
}

/// A whole object, and no temporary file.
fn is_a_pack(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.len() == 64)
}

#[test]
fn a_store_without_room_fails_the_backup_and_harms_no_earlier_point() {
    let place = shop();
    place.done(&["backup", "shop"]);
    add_noise(&place, 8 << 20);
    let ran = with_file_limit(&place, 1024, &["backup", "shop", "--quiet"]);
    assert_eq!(ran.code, 1, "{}", ran.all());
    assert!(ran.stderr.contains("is full") && ran.stderr.contains("mainstay prune"), "{}", ran.all());
    assert_eq!(place.json(&["list"], "point").len(), 1);
    assert_eq!(place.json(&["prune", "--yes"], "pruned")[0]["waiting_for"], 0, "its session was ended");
    place.done(&["backup", "shop"]);
    place.done(&["verify", "shop", "--level", "data"]);
}

#[test]
fn a_store_that_cannot_be_written_to_says_so_and_can_still_be_read() {
    let place = shop();
    place.done(&["backup", "shop"]);
    let log = place.at("store/log");
    // Nobody may write into a file that stands where a folder should be, not even an administrator.
    fs::rename(place.at("store/packs"), place.at("store/packs.away")).unwrap();
    fs::write(place.at("store/packs"), "").unwrap();
    fs::write(place.at("uploads/new"), "new").unwrap();
    let ran = place.run(&["backup", "shop", "--quiet"]);
    assert_eq!(ran.code, 1, "{}", ran.all());
    assert!(ran.stderr.contains("packs/"), "{}", ran.all());
    fs::remove_file(place.at("store/packs")).unwrap();
    fs::rename(place.at("store/packs.away"), place.at("store/packs")).unwrap();
    assert!(log.exists() && place.json(&["list"], "point").len() == 1);
    place.done(&["backup", "shop"]);
}

#[test]
fn a_destination_without_room_is_an_incomplete_restore_that_names_what_is_missing() {
    let place = shop();
    add_noise(&place, 8 << 20);
    place.done(&["backup", "shop"]);
    let ran = with_file_limit(&place, 1024, &["restore", "shop", "--to-dir", "back", "--quiet"]);
    assert!([1, 3].contains(&ran.code), "{}", ran.all());
    assert!(ran.all().contains("large") && ran.all().contains("File too large"), "{}", ran.all());
    place.done(&["restore", "shop", "--to-dir", "back", "--yes"]);
    assert_eq!(fs::read(place.at("back/large")).unwrap(), fs::read(place.at("uploads/large")).unwrap());
}

#[test]
fn a_destination_that_is_a_file_is_refused_before_anything_is_done() {
    let place = shop();
    place.done(&["backup", "shop"]);
    place.write("back", "mine");
    let ran = place.run(&["restore", "shop", "--to-dir", "back", "--yes", "--quiet"]);
    assert_eq!(ran.code, 14, "{}", ran.all());
    assert!(ran.stderr.contains("back"), "{}", ran.all());
    assert_eq!(fs::read_to_string(place.at("back")).unwrap(), "mine");
}

#[test]
fn a_restore_test_without_room_leaves_the_earlier_proof() {
    let place = shop();
    add_noise(&place, 8 << 20);
    place.done(&["backup", "shop"]);
    place.done(&["verify", "shop", "--level", "restore"]);
    let before = place.json(&["list"], "point");
    let ran = with_file_limit(&place, 1024, &["verify", "shop", "--level", "restore", "--quiet"]);
    assert_eq!(ran.code, 14, "{}", ran.all());
    assert!(ran.stdout.contains("NOT RUN") && ran.stdout.contains("earlier proofs stand"), "{}", ran.all());
    assert_eq!(place.json(&["list"], "point"), before);
}

#[test]
fn a_database_that_is_away_does_not_keep_the_files_from_being_backed_up() {
    let place = Place::new();
    fs::create_dir(place.at("uploads")).unwrap();
    fs::write(place.at("uploads/one.txt"), "one\n").unwrap();
    let db = "    sources:\n      db: { postgres: { url: { env: DATABASE_URL } } }\n";
    place.write("mainstay.yaml", &small_config(&place).replace("    sources:\n", db));
    place.done(&["init"]);
    let with = |arguments: &[&str]| {
        let url = "postgres://postgres@127.0.0.1:1/shop";
        place.run_with(arguments, &[("MAINSTAY_KEY", KEY), ("DATABASE_URL", url)])
    };
    let ran = with(&["backup", "shop"]);
    assert_eq!(ran.code, 3, "{}", ran.all());
    for said in [
        "shop is INCOMPLETE",
        "db       postgres  FAILED",
        "uploads  files     complete",
        "Connection refused",
    ] {
        assert!(ran.stdout.contains(said), "{said}\n{}", ran.all());
    }
    place.done(&["restore", "shop", "--source", "uploads", "--to-dir", "back"]);
    assert_eq!(fs::read_to_string(place.at("back/one.txt")).unwrap(), "one\n");
    assert_eq!(
        with(&["verify", "shop", "--level", "restore"]).code,
        3,
        "what is there is proven, and no more"
    );
    let ran = with(&["restore", "shop", "--to-database", "shop_restored"]);
    assert_eq!(ran.code, 10, "{}", ran.all());
    assert!(ran.stderr.contains("holds nothing of source db"), "{}", ran.all());

    let ran = with(&["backup", "shop", "--source", "db"]);
    assert_eq!(ran.code, 14, "{}", ran.all());
    assert_eq!(place.json(&["list"], "point").len(), 1, "nothing was captured, and no point made");
    assert_eq!(place.json(&["prune", "--yes"], "pruned")[0]["waiting_for"], 0);
}
