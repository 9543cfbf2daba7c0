//! `mainstay key`.

use crate::Place;
use std::{fs, os::unix::fs::MetadataExt};

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
