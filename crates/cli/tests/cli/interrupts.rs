//! Runs that are stopped, killed, or meet one another, as processes of their own.

use crate::{Place, shop};
use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const MIB: usize = 1 << 20;
/// Enough for many packs: a run is met while it is at work.
const LARGE: usize = 160 * MIB;

/// A shop with a large file, small packs, and everything read back.
fn large_shop() -> Place {
    let place = shop();
    let config = fs::read_to_string(place.at("mainstay.yaml")).unwrap();
    let config =
        config.replace("stores: [local] }", "stores: [local], pack_size: 16MiB, verify_after: data }");
    place.write("mainstay.yaml", &config);
    add_noise(&place, "large", LARGE);
    place
}

/// A file that neither compresses nor repeats.
fn add_noise(place: &Place, name: &str, length: usize) {
    let mut noise = File::open("/dev/urandom").unwrap().take(length as u64);
    std::io::copy(&mut noise, &mut File::create(place.at("uploads").join(name)).unwrap()).unwrap();
}

/// Waits for a condition while the process runs; `false` if it ended first.
fn wait_for(child: &mut Child, condition: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !condition() {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        assert!(Instant::now() < deadline, "the condition never held");
        std::thread::yield_now();
    }
    true
}

fn interrupt(child: &Child) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
}

fn points(place: &Place) -> Vec<serde_json::Value> {
    place.json(&["list"], "point")
}

/// No session is open, a backup succeeds, and all of it is intact.
fn goes_on_cleanly(place: &Place) {
    let pruned = place.json(&["prune", "--yes"], "pruned");
    assert_eq!(pruned[0]["waiting_for"], 0, "the session was ended");
    place.done(&["backup", "shop"]);
    place.done(&["verify", "shop", "--level", "data"]);
}

#[test]
fn an_interrupted_backup_leaves_no_point_and_no_session() {
    let place = large_shop();
    let mut child = place.start(&["backup", "shop"]);
    assert!(
        wait_for(&mut child, || !place.files("store/packs").is_empty()),
        "it ended before a pack was there"
    );
    interrupt(&child);
    let ran = place.ran(child.wait_with_output().unwrap());
    assert_eq!(ran.code, 130, "{}", ran.all());
    assert!(points(&place).is_empty());
    goes_on_cleanly(&place);
}

#[test]
fn a_backup_that_is_interrupted_while_it_reads_back_says_that_the_point_is_there() {
    let place = large_shop();
    let mut child = place.start(&["backup", "shop"]);
    let mut told = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("commit") {
        assert_ne!(told.read_line(&mut said).unwrap(), 0, "it ended before its commit: {said}");
    }
    interrupt(&child);
    told.read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{said}");
    let point = &points(&place)[0];
    let short = &point["id"].as_str().unwrap()[..8];
    assert!(said.contains(&format!("recovery point {short} was committed and not read back")), "{said}");
    assert_eq!(point["proofs"], serde_json::json!({}), "nothing passes that was not looked at");
    place.done(&["verify", "shop", "--point", short, "--level", "data"]);
    goes_on_cleanly(&place);
}

#[test]
fn an_interrupted_check_or_restore_test_proves_nothing() {
    let place = large_shop();
    place.done(&["backup", "shop"]);
    for level in ["data", "restore"] {
        let mut child = place.start(&["verify", "shop", "--level", level, "--json"]);
        let mut events = BufReader::new(child.stdout.take().unwrap());
        let mut said = String::new();
        while !said.contains("\"step\"") {
            assert_ne!(events.read_line(&mut said).unwrap(), 0, "it ended before it began: {said}");
        }
        interrupt(&child);
        events.read_to_string(&mut said).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130), "{level}: {said}");
        assert_eq!(points(&place)[0]["proofs"], serde_json::json!({}), "{level}");
    }
    goes_on_cleanly(&place);
}

/// What was restored lies there in the clear.
#[test]
fn what_a_killed_restore_test_leaves_goes_with_the_next_look() {
    let place = large_shop();
    place.done(&["backup", "shop"]);
    fs::create_dir(place.at("tmp")).unwrap();
    let verify = |level: &str| {
        let program = env!("CARGO_BIN_EXE_mainstay");
        let mut command = place.command(program, &["verify", "shop", "--level", level, "--quiet"]);
        command.env("MAINSTAY_KEY", crate::KEY).env("TMPDIR", place.at("tmp"));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    for level in ["objects", "restore"] {
        let mut child = verify("restore").spawn().unwrap();
        assert!(wait_for(&mut child, || !place.files("tmp").is_empty()), "it ended before it wrote a file");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!place.files("tmp").is_empty());
        let ran = place.ran(verify(level).output().unwrap());
        assert_eq!(ran.code, 0, "{}", ran.all());
        assert_eq!(fs::read_dir(place.at("tmp")).unwrap().count(), 0, "{level}");
    }
}

#[test]
fn an_interrupted_restore_is_finished_by_the_next_one() {
    let place = large_shop();
    place.done(&["backup", "shop"]);
    let mut child = place.start(&["restore", "shop", "--to-dir", "back"]);
    assert!(wait_for(&mut child, || !place.files("back").is_empty()), "it ended before it wrote a file");
    interrupt(&child);
    let ran = place.ran(child.wait_with_output().unwrap());
    assert_eq!(ran.code, 130, "{}", ran.all());
    place.done(&["restore", "shop", "--to-dir", "back", "--yes"]);
    for name in ["large", "letters/two.txt"] {
        let same = fs::read(place.at("uploads").join(name)).unwrap()
            == fs::read(place.at("back").join(name)).unwrap();
        assert!(same, "{name}");
    }
    assert_eq!(
        place.files("back").len(),
        place.files("uploads").len(),
        "nothing of the first attempt is left"
    );
}

#[test]
fn two_backups_at_once_both_count() {
    let place = large_shop();
    let mut children = [(); 2].map(|()| place.start(&["backup", "shop"]));
    assert!(wait_for(&mut children[0], || place.files("store/packs").len() > 1));
    for child in children {
        let ran = place.ran(child.wait_with_output().unwrap());
        assert_eq!(ran.code, 0, "{}", ran.all());
    }
    let points = points(&place);
    assert_eq!(points.len(), 2);
    for point in &points {
        let id = point["id"].as_str().unwrap();
        place.done(&["verify", "shop", "--point", id, "--level", "restore"]);
    }
    goes_on_cleanly(&place);
}

#[test]
fn a_prune_beside_a_backup_takes_nothing_that_it_needs() {
    let place = large_shop();
    place.done(&["backup", "shop", "--policy", "nightly"]);
    // From here on garbage that a backup would like to use again.
    let first = points(&place)[0]["id"].as_str().unwrap().to_owned();
    add_noise(&place, "small", MIB);
    place.done(&["backup", "shop", "--source", "uploads"]);
    fs::rename(place.at("uploads/large"), place.at("kept")).unwrap();
    place.done(&["backup", "shop"]);
    fs::rename(place.at("kept"), place.at("uploads/large")).unwrap();
    let second = points(&place)[1]["id"].as_str().unwrap().to_owned();
    place.done(&["delete", &first, &second, "--yes"]);

    add_noise(&place, "larger", LARGE);
    let begun = place.files("store/log").len();
    let mut backup = place.start(&["backup", "shop", "--full"]);
    assert!(wait_for(&mut backup, || place.files("store/log").len() > begun));
    while backup.try_wait().unwrap().is_none() {
        place.done(&["prune", "--yes", "--grace", "0s"]);
    }
    let ran = place.ran(backup.wait_with_output().unwrap());
    assert_eq!(ran.code, 0, "{}", ran.all());
    for _ in 0..2 {
        place.done(&["prune", "--yes", "--grace", "0s"]);
        place.done(&["verify", "shop", "--level", "data"]);
    }
    place.done(&["verify", "shop", "--level", "restore"]);
}

/// Drops, Condemn, Sweep, deletions, Swept: killed as soon as so many entries are there, or so many packs are gone.
#[test]
fn a_prune_that_is_killed_at_any_moment_harms_nothing() {
    let place = shop();
    let config = fs::read_to_string(place.at("mainstay.yaml")).unwrap().replace("last: 3", "last: 1");
    place.write("mainstay.yaml", &config);
    let mut met = 0;
    for round in 0..8 {
        for name in ["one", "two", "three"] {
            add_noise(&place, name, MIB / 2);
            place.done(&["backup", "shop", "--policy", "nightly"]);
        }
        let (entries, packs) = (place.files("store/log").len(), place.files("store/packs").len());
        let mut child = place.start(&["prune", "--yes", "--grace", "0s"]);
        let half_done = || match round % 2 {
            0 => place.files("store/log").len() > entries + round,
            _ => place.files("store/packs").len() < packs - round / 2,
        };
        met += usize::from(wait_for(&mut child, half_done));
        child.kill().unwrap();
        let ran = child.wait_with_output().unwrap();
        for point in points(&place) {
            let id = point["id"].as_str().unwrap();
            let checked = place.run(&["verify", "shop", "--point", id, "--level", "data", "--quiet"]);
            let said = String::from_utf8_lossy(&ran.stderr);
            assert_eq!(checked.code, 0, "round {round}: {}\n{said}", checked.all());
        }
        // Sessions to come rely on nothing that the next collection takes.
        place.done(&["backup", "shop", "--policy", "nightly", "--full"]);
        place.done(&["verify", "shop", "--level", "data"]);
    }
    assert!(met > 0, "every prune was over before it could be killed");
    let prune = || place.json(&["prune", "--yes", "--grace", "0s"], "pruned")[0].clone();
    prune();
    prune();
    let nothing_left = prune();
    assert_eq!(
        (&nothing_left["deleted_objects"], &nothing_left["condemned_objects"]),
        (&0.into(), &0.into())
    );
    assert_eq!(nothing_left["waiting_for"], 0);
    assert_eq!(points(&place).len(), 1);
    place.done(&["verify", "shop", "--level", "restore"]);
}

#[test]
fn a_backup_that_is_killed_at_any_moment_harms_nothing() {
    let place = large_shop();
    fs::remove_file(place.at("uploads/large")).unwrap();
    place.done(&["backup", "shop"]);
    for round in 0..10 {
        add_noise(&place, &format!("noise {round}"), 24 * MIB);
        let before = place.files("store").len();
        let mut child = place.start(&["backup", "shop"]);
        // Begin, Begin again, packs, index, manifest, Commit: killed as soon as so many objects are there.
        wait_for(&mut child, || place.files("store").len() >= before + round);
        child.kill().unwrap();
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        child.wait().unwrap();
        for point in points(&place) {
            let id = point["id"].as_str().unwrap();
            let ran = place.run(&["verify", "shop", "--point", id, "--level", "data", "--quiet"]);
            assert_eq!(ran.code, 0, "round {round}: {}\n{said}", ran.all());
        }
    }
    place.done(&["backup", "shop"]);
    place.done(&["verify", "shop", "--level", "data"]);
    place.done(&["prune", "--yes"]);
    place.done(&["verify", "shop", "--level", "restore"]);
}

#[test]
fn a_prune_says_what_killed_backups_left_and_until_when_it_waits() {
    let place = large_shop();
    for killed in 1..=2 {
        let packs = place.files("store/packs").len();
        let mut child = place.start(&["backup", "shop"]);
        assert!(
            wait_for(&mut child, || place.files("store/packs").len() > packs),
            "it ended before it could be killed"
        );
        child.kill().unwrap();
        child.wait().unwrap();
        let preview = place.done(&["prune", "--dry-run"]);
        assert!(preview.contains(&format!("Waiting for {killed} session")), "{preview}");
    }
    let preview = place.done(&["prune", "--dry-run"]);
    assert!(preview.contains("a prune ends it that comes 6h after the next one"), "{preview}");
    let pruned = place.done(&["prune", "--yes"]);
    assert!(pruned.contains("Waiting for 2 sessions") && pruned.contains("; a prune after 2"), "{pruned}");
    assert!(place.done(&["prune", "--dry-run"]).contains("; a prune after 2"));
}
