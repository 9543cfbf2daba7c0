//! Bad input and bad days: what the user is told, and with which exit code.

use crate::{KEY, Place, assert_seen, shop, small_config};
use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

#[test]
fn a_missing_key_is_named() {
    let place = shop();
    assert_seen!(place.run_with(&["list"], &[]), @"
    exit 2
    err| error: the environment variable MAINSTAY_KEY is not set
    err| hint: Set it to the repository's key. For a new repository, make one with `mainstay key generate`; MAINSTAY_KEY must be there in scheduled runs, too.
    ");
}

#[test]
fn a_wrong_key_says_so_at_once() {
    let place = shop();
    assert_seen!(place.run_with(&["list"], &[("MAINSTAY_KEY", &"ab".repeat(32))]), @"
    exit 12
    err| error: repository main: the key does not open this repository
    err| hint: Check which key the configuration names. The recovery kit lists the recipients whose keys open it.
    ");
}

#[test]
fn where_there_is_no_repository_it_says_how_to_make_one() {
    let place = Place::new();
    place.write("mainstay.yaml", &small_config(&place));
    assert_seen!(place.run(&["backup", "shop"]), @"
    exit 10
    err| error: repository main: there is no repository in file://PLACE/store
    err| hint: Is its disk mounted, and the address right? A new repository is made with `mainstay init`.
    ");
}

#[test]
fn an_unknown_application_is_answered_with_those_there_are() {
    let place = shop();
    assert_seen!(place.run(&["backup", "shpo"]), @r#"
    exit 2
    err| error: the configuration has no application named "shpo"
    err| hint: There is: shop.
    "#);
    assert_seen!(place.run(&["backup", "shop", "--source", "upload"]), @r#"
    exit 2
    err| error: shop has no source named "upload"
    err| hint: There is: uploads.
    "#);
    assert_seen!(place.run(&["backup", "shop", "--policy", "weekly"]), @r#"
    exit 2
    err| error: shop has no policy named "weekly"
    err| hint: There is: nightly.
    "#);
}

#[test]
fn an_application_without_points_says_what_to_do() {
    let place = shop();
    assert_seen!(place.run(&["restore", "shop", "--to-dir", "x"]), @"
    exit 10
    err| error: shop has no recovery point yet
    err| hint: Make one: `mainstay backup shop`.
    ");
    assert_seen!(place.run(&["list"]), @"
    exit 0
    out| There is no recovery point yet. Make one: mainstay backup APP
    ");
}

#[test]
fn a_restore_without_a_destination_asks_for_one() {
    assert_seen!(shop().run(&["restore", "shop"]), @"
    exit 2
    err| error: it is not said where to restore to
    err| hint: Add --to-dir FOLDER for files, or --to-database NAME or --replace for a database.
    ");
}

#[test]
fn a_second_init_never_touches_the_first() {
    let place = shop();
    fs::remove_file(place.at("mainstay-main-recovery-kit.txt")).unwrap();
    place.done(&["backup", "shop"]);
    let again = place.run(&["init"]);
    assert_ne!(again.code, 0);
    assert_seen!(again, @"
    exit 2
    err| error: there is already a repository in file://PLACE/store
    err| hint: Use it as it is; `mainstay init` never overwrites a repository.
    ");
    place.done(&["verify", "shop"]);
}

#[test]
fn an_init_that_is_refused_leaves_nothing_behind() {
    let place = shop();
    fs::rename(place.at("mainstay.yaml"), place.at("first.yaml")).unwrap();
    let names = || {
        let mut names: Vec<_> =
            fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    for (store, files) in [("store", "uploads"), ("other", "nowhere"), ("uploads/backups", "uploads")] {
        let ran = place.run(&["init", "--app", "shop", "--files", files, "--store", store]);
        assert_eq!(ran.code, 2, "{}", ran.all());
        assert!(ran.stderr.contains("hint: "), "{}", ran.all());
        assert_eq!(names(), before, "{}", ran.all());
    }
}

#[test]
fn a_damaged_pack_is_found_named_and_not_restored() {
    let place = shop();
    place.done(&["backup", "shop"]);
    let packs = files_below(&place.at("store/packs/data"));
    let mut bytes = fs::read(&packs[0]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let mut permissions = fs::metadata(&packs[0]).unwrap().permissions();
    #[allow(clippy::permissions_set_readonly_false)] // a file of this test alone
    permissions.set_readonly(false);
    fs::set_permissions(&packs[0], permissions).unwrap();
    fs::write(&packs[0], bytes).unwrap();

    let found = place.run(&["verify", "shop", "--level", "packs", "--quiet"]);
    let name = packs[0].file_name().unwrap().to_str().unwrap();
    assert_eq!(found.code, 4, "{}", found.all());
    assert!(found.stdout.contains(name), "the pack is named\n{}", found.all());
    let restored = place.run(&["restore", "shop", "--to-dir", "back"]);
    assert!([3, 4].contains(&restored.code), "{}", restored.all());
}

#[test]
fn a_key_file_that_everybody_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let key = place.write("the.key", KEY);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    place.write("mainstay.yaml", &small_config(&place).replace("env: MAINSTAY_KEY", "file: the.key"));
    assert_seen!(place.run(&["init"]), @"
    exit 2
    err| error: the.key can be used by everybody on this machine (mode 0644)
    err| hint: Take that right away: chmod 600 the.key
    ");
}

#[test]
fn the_second_interrupt_ends_it_at_once() {
    let place = Place::new();
    let slow = "command: \"touch started; exec sleep 300\"";
    place.write("mainstay.yaml", &small_config(&place).replace("env: MAINSTAY_KEY", slow));
    let mut child = Command::new(env!("CARGO_BIN_EXE_mainstay"))
        .arg("list")
        .current_dir(place.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !place.at("started").exists() {
        assert!(Instant::now() < deadline, "the key command did not start");
        std::thread::yield_now();
    }
    let pid = child.id().to_string();
    // The first is only noted; each further one ends the process, so that one that comes early cannot make the test hang.
    let status = loop {
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < deadline, "it still runs");
        std::thread::yield_now();
    };
    assert_eq!((status.code(), status.signal()), (Some(130), None));
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files_below(&path)) } else { found.push(path) }
    }
    found
}

#[test]
fn a_cache_that_is_lost_or_holds_something_else_changes_nothing() {
    let place = shop();
    place.done(&["backup", "shop"]);
    let cached = place.files(".cache/mainstay");
    assert!(!cached.is_empty());
    for file in &cached {
        fs::write(file, "something else").unwrap();
    }
    place.done(&["backup", "shop"]);
    place.done(&["verify", "shop", "--level", "data"]);
    fs::remove_dir_all(place.at(".cache")).unwrap();
    fs::write(place.at(".cache"), "no folder").unwrap();
    place.done(&["backup", "shop"]);
    fs::remove_file(place.at(".cache")).unwrap();
    let other = shop();
    other.done(&["backup", "shop"]);
    // One machine, two repositories, one cache.
    let cache = other.at(".cache").display().to_string();
    let ran = place.run_with(&["backup", "shop"], &[("MAINSTAY_KEY", KEY), ("XDG_CACHE_HOME", &cache)]);
    assert_eq!(ran.code, 0, "{}", ran.all());
    assert_eq!(place.json(&["verify", "shop", "--level", "restore"], "proof")[0]["verdict"], "passed");
    assert_eq!(other.json(&["list"], "point").len(), 1);
}

#[test]
fn no_name_can_break_a_line_or_write_to_the_terminal() {
    let place = shop();
    fs::write(place.at("uploads/letters/two\nlines \u{1b}[31mred\r.txt"), "x").unwrap();
    let label = "note=first\nsecond \u{1b}[31m";
    place.done(&["backup", "shop", "--label", label]);
    let commands: [&[&str]; 6] = [
        &["ls", "shop", "letters"],
        &["find", "shop", "*lines*"],
        &["show", "shop"],
        &["list"],
        &["restore", "shop", "--to-dir", "uploads", "--dry-run"],
        &["diff", "shop", "--live"],
    ];
    fs::write(place.at("uploads/letters/two\nlines \u{1b}[31mred\r.txt"), "changed").unwrap();
    for arguments in commands {
        let ran = place.run(arguments);
        assert_eq!(ran.code, 0, "{}", ran.all());
        let broken = |c: char| c.is_control() && c != '\n';
        assert!(
            !ran.stdout.contains(broken) && !ran.stderr.contains(broken),
            "{arguments:?}\n{:?}",
            ran.stdout
        );
        let torn = |line: &str| line.starts_with("lines ") || line.starts_with("second ");
        assert!(!ran.stdout.lines().any(torn), "{arguments:?}\n{}", ran.stdout);
    }
}

#[test]
fn a_configuration_that_is_no_yaml_is_named_with_the_place() {
    let place = Place::new();
    place.write("mainstay.yaml", &small_config(&place).replace("stores: [local] }", "stores: [local }"));
    let ran = place.run(&["config", "check"]);
    assert_eq!(ran.code, 2, "{}", ran.all());
    assert!(ran.stderr.contains("mainstay.yaml:5:"), "{}", ran.all());
}

#[test]
fn a_repository_of_a_newer_version_is_left_alone() {
    use std::os::unix::fs::PermissionsExt;
    let place = shop();
    let path = place.at("store/format");
    let mut bytes = fs::read(&path).unwrap();
    // Magic, length, the head of a map; then its first key, 0, and the version.
    let at = 8 + 4 + 1;
    assert_eq!(bytes[at..at + 2], [0, 1], "{bytes:02x?}");
    bytes[at + 1] = 2;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&path, bytes).unwrap();
    let before = place.files("store");
    let listed = place.run(&["list"]);
    for arguments in [&["backup", "shop"][..], &["prune", "--yes"]] {
        assert_eq!(place.run(arguments).all(), listed.all());
    }
    assert_seen!(listed, @"
    exit 2
    err| error: repository main: format was written by a newer version of Mainstay (format 2)
    err| hint: Use a version of Mainstay at least as new as the one that wrote it.
    ");
    assert_eq!(place.files("store"), before);
}

#[test]
fn a_backup_of_one_source_takes_no_place_of_one_of_all() {
    let place = Place::new();
    let folder = place.path().display().to_string();
    fs::create_dir(place.at("a")).unwrap();
    fs::create_dir(place.at("b")).unwrap();
    place.write("a/one", "1");
    place.write("b/two", "2");
    place.write(
        "mainstay.yaml",
        &format!(
            "version: 1
stores: {{ local: {{ url: \"file://{folder}/store\" }} }}
repositories: {{ main: {{ key: {{ env: MAINSTAY_KEY }}, stores: [local] }} }}
apps:
  shop:
    repository: main
    sources: {{ a: {{ files: {{ paths: [\"{folder}/a\"] }} }}, b: {{ files: {{ paths: [\"{folder}/b\"] }} }} }}
    policies: {{ nightly: {{ schedule: \"0 3 * * *\", keep: {{ last: 1 }} }} }}
"
        ),
    );
    place.done(&["init"]);
    place.done(&["backup", "shop", "--policy", "nightly"]);
    let full = place.json(&["list", "shop"], "point")[0]["id"].as_str().unwrap().to_owned();
    place.done(&["backup", "shop", "--policy", "nightly", "--source", "a"]);
    place.done(&["prune", "--grace", "0s", "--yes"]);
    assert_seen!(place.run(&["delete", &full, "--yes"]), @"
    exit 13
    out| To be deleted:
    out|
    out| POINT  FINISHED  APP  STATE  SIZE
    out| <id>  <time>  shop  complete <size>
    out|
    err| error: recovery point <id> is the last one of shop with a complete b
    err| hint: Make a new backup of it first.
    ");
    place.done(&["restore", "shop", "--source", "b", "--to-dir", "back"]);
    assert_eq!(fs::read_to_string(place.at("back/two")).unwrap(), "2");

    // A source that the configuration has no more can be let go of.
    let config = fs::read_to_string(place.at("mainstay.yaml")).unwrap();
    let b = format!(", b: {{ files: {{ paths: [\"{folder}/b\"] }} }}");
    assert!(config.contains(&b));
    place.write("mainstay.yaml", &config.replace(&b, ""));
    place.done(&["delete", &full, "--yes"]);
}

#[test]
fn a_store_whose_disk_is_not_mounted_is_left_as_it_is() {
    for folder_is_there in [true, false] {
        let place = shop();
        fs::rename(place.at("store"), place.at("elsewhere")).unwrap();
        if folder_is_there {
            fs::create_dir(place.at("store")).unwrap();
        }
        let doctor = place.run(&["doctor"]);
        assert_ne!(doctor.code, 0);
        assert!(doctor.stdout.contains("Is its disk mounted"), "{}", doctor.all());
        assert!(!doctor.stdout.contains("can be written"), "{}", doctor.all());
        let backup = place.run(&["backup", "shop", "--quiet"]);
        assert_eq!(backup.code, 10);
        assert!(backup.stderr.contains("Is its disk mounted"), "{}", backup.all());
        let left = fs::read_dir(place.at("store")).map(|entries| entries.count());
        assert_eq!(left.ok(), folder_is_there.then_some(0), "nothing was made");
    }
}
