//! `mainstay key`.

use crate::{KEY, Place, Ran, shop, small_config};
use std::{
    fs::{self, Permissions},
    io::Write,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::Stdio,
};

#[test]
fn each_key_is_64_hexadecimal_digits_and_new() {
    let place = Place::new();
    let [first, second] = [(); 2].map(|()| place.run(&["key", "generate"]).stdout.trim().to_owned());
    assert_eq!(first.len(), 64);
    assert!(first.bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert_ne!(first, second);
}

#[test]
fn a_key_file_is_private_and_never_overwritten() {
    let place = Place::new();
    let ran = place.run(&["key", "generate", "--output", "the.key"]);
    assert_eq!((ran.code, ran.stdout.contains("the.key")), (0, true), "{}", ran.all());
    let path = place.path().join("the.key");
    let key = fs::read_to_string(&path).unwrap();
    assert_eq!((fs::metadata(&path).unwrap().mode() & 0o777, key.trim().len()), (0o600, 64));
    assert!(!ran.all().contains(key.trim()), "a key in a file is not shown as well");

    let again = place.run(&["key", "generate", "--output", "the.key"]);
    assert_eq!(again.code, 1);
    insta::assert_snapshot!(again.all(), @"
    exit 1
    err| error: the.key could not be written
    err|   cause: File exists (os error 17)
    err| hint: Nothing is overwritten; name another file.
    ");
    assert_eq!(fs::read_to_string(&path).unwrap(), key);
}

const PHRASE: &str = " correct horse battery staple";

/// Types what a kit says for one secret, in a shell on a machine that has the binary and nothing else. `more` is added to the last
/// command.
fn type_what_it_says(kit: &str, way: &str, secret: &str, more: &str) -> (Place, Ran) {
    let from = kit.find(&format!("with {way}:\n")).unwrap_or_else(|| panic!("no {way} in\n{kit}"));
    let lines: Vec<_> = kit[from..]
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with("    "))
        .map(|line| line.strip_prefix("    ").unwrap())
        .collect();
    assert!(lines.len() >= 2, "{lines:?}");
    let elsewhere = Place::new();
    let folder = Path::new(env!("CARGO_BIN_EXE_mainstay")).parent().unwrap().display().to_string();
    let path = format!("{folder}:{}", std::env::var("PATH").unwrap());
    let script = format!("{}{more}", lines.join("\n"));
    let mut shell = elsewhere.command("sh", &["-c", &script]);
    let mut child = shell
        .env("PATH", path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(format!("{secret}\n").as_bytes()).unwrap();
    let ran = elsewhere.ran(child.wait_with_output().unwrap());
    (elsewhere, ran)
}

fn recovers(kit: &str, way: &str, secret: &str) {
    let (elsewhere, ran) = type_what_it_says(kit, way, secret, "");
    assert_eq!(ran.code, 0, "{}\n{kit}", ran.all());
    let fingerprint: Vec<_> = ran.stdout.lines().skip(1).take(2).map(str::trim).collect();
    assert!(fingerprint.iter().all(|line| line.len() == 39 && kit.contains(line)), "{}\n{kit}", ran.all());
    assert!(ran.stdout.contains("shop"), "it lists what there is\n{}", ran.all());
    assert!(elsewhere.files(".").is_empty(), "it leaves nothing behind");
    let (elsewhere, ran) = type_what_it_says(kit, way, secret, " --to-dir back");
    assert_eq!(ran.code, 0, "{}", ran.all());
    assert_eq!(fs::read_to_string(elsewhere.at("back/letters/two.txt")).unwrap(), "second letter\n");
}

/// As paper shows it.
fn in_groups(key: &str) -> String {
    key.as_bytes().chunks(4).map(|group| std::str::from_utf8(group).unwrap()).collect::<Vec<_>>().join(" ")
}

#[test]
fn whoever_types_what_the_kit_says_has_everything_back() {
    let place = shop();
    place.done(&["backup", "shop"]);
    let first = fs::read_to_string(place.at("mainstay-main-recovery-kit.txt")).unwrap();
    recovers(&first, "the key", KEY);
    recovers(&first, "the key", &in_groups(KEY));
    assert!(!first.contains("MAINSTAY_PASSPHRASE"), "nobody has a passphrase yet\n{first}");

    let added = place.run_with(
        &["key", "add", "--label", "safe", "--passphrase-env", "PHRASE"],
        &[("MAINSTAY_KEY", KEY), ("PHRASE", PHRASE)],
    );
    assert!(added.code == 0 && added.stdout.contains("mainstay key kit --output"), "{}", added.all());
    place.done(&["key", "kit", "--output", "second.txt"]);
    let second = fs::read_to_string(place.at("second.txt")).unwrap();
    assert!(place.at("second.html").exists());
    recovers(&second, "the key", KEY);
    recovers(&second, "the passphrase", PHRASE);
    assert_eq!(
        place.done(&["key", "kit"]).trim(),
        second.trim().replace(place.path().to_str().unwrap(), "PLACE")
    );

    let (_, wrong) = type_what_it_says(&second, "the passphrase", "another", "");
    assert_eq!(wrong.code, 12, "{}", wrong.all());
    let removed = place.done(&["key", "remove", "safe", "--yes"]);
    assert!(removed.contains("out of date"), "{removed}");
}

#[test]
fn where_only_a_passphrase_opens_it_the_kit_says_what_to_type_with_that() {
    let place = Place::new();
    fs::create_dir_all(place.at("uploads/letters")).unwrap();
    fs::write(place.at("uploads/letters/two.txt"), "second letter\n").unwrap();
    let config = small_config(&place).replace("{ env: MAINSTAY_KEY }", "{ passphrase: { env: PHRASE } }");
    place.write("mainstay.yaml", &config);
    for arguments in [&["init"][..], &["backup", "shop"]] {
        let ran = place.run_with(arguments, &[("PHRASE", PHRASE)]);
        assert_eq!(ran.code, 0, "{}", ran.all());
    }
    let kit = fs::read_to_string(place.at("mainstay-main-recovery-kit.txt")).unwrap();
    assert!(!kit.contains("with the key:"), "{kit}");
    recovers(&kit, "the passphrase", PHRASE);
}

#[test]
fn a_passphrase_may_come_from_a_command() {
    let place = shop();
    place.done(&["backup", "shop"]);
    fs::write(place.at("phrase"), PHRASE).unwrap();
    place.done(&["key", "add", "--label", "vault", "--passphrase-command", "cat phrase"]);
    let arguments = ["recover", "--store", "store", "--passphrase-command", "cat phrase"];
    let ran = place.run_with(&arguments, &[]);
    assert!(ran.code == 0 && ran.stdout.contains("shop"), "{}", ran.all());
    let wrong = place.run_with(&["recover", "--store", "store", "--passphrase-command", "echo another"], &[]);
    assert_eq!(wrong.code, 12, "{}", wrong.all());
    let both =
        place.run(&["recover", "--store", "store", "--key-env", "K", "--passphrase-command", "cat phrase"]);
    assert_eq!(both.code, 2, "{}", both.all());
}

#[test]
fn a_fingerprint_is_taken_as_it_is_printed() {
    let place = shop();
    let shown = place.done(&["recover", "--store", "store"]);
    let printed = shown.lines().skip(1).take(2).map(str::trim).collect::<Vec<_>>().join(" ");
    let again = place.done(&["recover", "--store", "store", "--fingerprint", &printed]);
    assert!(again.contains("It is the one that was asked for."), "{again}");
}

#[test]
fn a_key_that_opens_the_repository_already_is_not_added_again() {
    let place = shop();
    place.write("second.key", &"ab".repeat(32));
    let add = |label| place.done(&["key", "add", "--label", label, "--key-file", "second.key"]);
    assert!(add("safe").contains("opens the repository now"));
    let before = place.files("store/keys");
    assert_eq!(before.len(), 2);
    let again = add("another name");
    assert!(again.contains("already, as \"safe\"") && again.contains("Nothing was changed"), "{again}");
    assert_eq!(place.files("store/keys"), before);
}

#[test]
fn a_key_may_come_from_a_command_and_a_passphrase_from_a_file_of_ones_own() {
    let place = shop();
    place.done(&["backup", "shop"]);
    place.write("phrase", &format!("{PHRASE}\n"));
    place.write("the.key", KEY);
    place.done(&["key", "add", "--label", "safe", "--passphrase-file", "phrase"]);
    for way in [["--passphrase-file", "phrase"], ["--key-command", "cat the.key"]] {
        let ran = place.run_with(&[&["recover", "--store", "store"], &way[..]].concat(), &[]);
        assert!(ran.code == 0 && ran.stdout.contains("shop"), "{way:?}\n{}", ran.all());
    }
    let wrong = ["recover", "--store", "store", "--key-command", "tr 0 1 < the.key"];
    assert_eq!(place.run_with(&wrong, &[]).code, 12);
    let failed = place.run_with(&["recover", "--store", "store", "--key-command", "exit 3"], &[]);
    assert!(failed.code == 1 && failed.stderr.contains("exit status: 3"), "{}", failed.all());
    fs::set_permissions(place.at("phrase"), Permissions::from_mode(0o644)).unwrap();
    let seen = place.run_with(&["recover", "--store", "store", "--passphrase-file", "phrase"], &[]);
    assert!(seen.code != 0 && seen.stderr.contains("phrase"), "others can read it\n{}", seen.all());
}

#[test]
fn the_kit_and_the_cache_are_for_their_owner_alone() {
    let place = shop();
    place.done(&["backup", "shop"]);
    place.done(&["list"]);
    place.done(&["key", "kit", "--output", "again.txt"]);
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    for kit in
        ["mainstay-main-recovery-kit.txt", "mainstay-main-recovery-kit.html", "again.txt", "again.html"]
    {
        assert_eq!(mode(&place.at(kit)), 0o600, "{kit}");
    }
    // Nobody else comes past its folders.
    let cached = place.files(".cache/mainstay");
    assert!(!cached.is_empty());
    for file in cached {
        let folders = file.ancestors().skip(1).take_while(|folder| *folder != place.at(".cache"));
        folders.for_each(|folder| assert_eq!(mode(folder), 0o700, "{}", folder.display()));
    }
}
