//! What a user is told about a key that is not there, and what nobody is told about one that is.

use super::*;
use std::{fs, os::unix::fs::PermissionsExt, path::Path};

const HEX: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

fn spec(json: &str) -> KeySpec {
    serde_json::from_str(json).unwrap()
}

/// An environment with one variable, KEY.
fn key_is(value: &str) -> impl Fn(&str) -> Option<OsString> + '_ {
    move |name| (name == "KEY").then(|| value.into())
}

fn refusal(result: Result<Secret, KeyError>) -> String {
    let failure = Failure::from(result.unwrap_err());
    let shown = format!("{failure} | {}", failure.hint.as_deref().unwrap());
    assert!(
        !shown.contains(HEX) && !shown.contains("00112233") && !format!("{failure:?}").contains("00112233"),
        "{shown}"
    );
    shown
}

fn file(folder: &Path, content: &str, mode: u32) -> KeySpec {
    let path = folder.join("key");
    let _ = fs::remove_file(&path);
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    KeySpec::Key(Place::File(path))
}

fn text(secret: Result<Secret, KeyError>) -> String {
    match &secret.unwrap() {
        Secret::Key(key) => hex::encode(key),
        Secret::Passphrase(text) => String::from_utf8(text.clone()).unwrap(),
    }
}

#[test]
fn a_key_comes_from_a_variable_a_file_or_a_command() {
    let folder = tempfile::tempdir().unwrap();
    for with_newline in [HEX.to_owned(), format!("{HEX}\n"), format!("{HEX}\r\n")] {
        assert_eq!(text(spec(r#"{"env": "KEY"}"#).read_with(&key_is(&with_newline))), HEX);
        assert_eq!(text(file(folder.path(), &with_newline, 0o600).read()), HEX);
    }
    assert_eq!(text(spec(&format!(r#"{{"command": "echo {HEX}"}}"#)).read()), HEX);
    assert_eq!(text(spec(&format!(r#"{{"command": ["printf", "%s", "{HEX}"]}}"#)).read()), HEX);
}

#[test]
fn a_passphrase_is_taken_as_it_is() {
    let word = "  correct horse; battery staple \n";
    let env = spec(r#"{"passphrase": {"env": "KEY"}}"#);
    assert_eq!(text(env.read_with(&key_is(word))), "  correct horse; battery staple ");
    assert_eq!(text(env.read_with(&key_is(HEX))), HEX, "even one that looks like a key");
    assert!(matches!(env.read_with(&key_is(HEX)), Ok(Secret::Passphrase(_))));
    assert_eq!(text(spec(r#"{"passphrase": {"command": ["echo", "pass word"]}}"#).read()), "pass word");
    assert!(refusal(env.read_with(&key_is("\n"))).starts_with("the environment variable KEY is empty | "));
}

#[test]
fn a_missing_variable_is_named_with_what_to_do() {
    let message = refusal(spec(r#"{"env": "KEY"}"#).read_with(&|_| None));
    assert!(message.starts_with("the environment variable KEY is not set | "), "{message}");
    assert!(message.contains("mainstay key generate"));
}

#[test]
fn what_is_no_key_is_said_to_be_none_without_showing_it() {
    let env = spec(r#"{"env": "KEY"}"#);
    let message = refusal(env.read_with(&key_is(&HEX[..62])));
    assert!(message.starts_with("the environment variable KEY holds no key (62 characters) | "), "{message}");
    let message = refusal(env.read_with(&key_is(&HEX.replace('f', "g"))));
    assert!(message.contains("not all hexadecimal"), "{message}");
    let message = refusal(env.read_with(&key_is(&HEX.repeat(100))));
    assert!(message.contains("holds more than 4096 bytes"), "{message}");
    refusal(env.read_with(&key_is(&format!("{HEX}\n\n"))));
    refusal(env.read_with(&|_| Some(OsString::from_vec(vec![0xff; 64]))));
}

#[test]
fn a_key_file_that_others_can_use_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (mode, allowed) in
        [(0o600, true), (0o400, true), (0o640, true), (0o604, false), (0o602, false), (0o644, false)]
    {
        let result = file(folder.path(), HEX, mode).read();
        assert_eq!(result.is_ok(), allowed, "{mode:o}");
        if !allowed {
            let message = refusal(result);
            assert!(message.contains(&format!("(mode {mode:04o})")), "{message}");
            assert!(
                message.contains(&format!("chmod 600 {}", folder.path().join("key").display())),
                "{message}"
            );
        }
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let message = refusal(spec(r#"{"file": "/nowhere/key"}"#).read());
    assert!(message.starts_with("/nowhere/key could not be read | "), "{message}");
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
    refusal(KeySpec::Key(Place::File(folder.path().to_owned())).read());
    refusal(file(folder.path(), "", 0o600).read());
}

#[test]
fn a_command_that_fails_shows_its_complaint_and_never_its_output() {
    let message = refusal(
        spec(&format!(r#"{{"command": "echo {HEX}; echo 'no such\n\u001b[31mentry' >&2; exit 3"}}"#)).read(),
    );
    assert!(
        message.starts_with("the command `echo …` gave no key: exit status: 3: no such; [31mentry | "),
        "{message}"
    );
    let message = refusal(spec(r#"{"command": ["false", "--token=00112233"]}"#).read());
    assert!(message.starts_with("the command `false …` gave no key: exit status: 1 | "), "{message}");
    let message = refusal(spec(r#"{"command": ["/nowhere/tool"]}"#).read());
    assert!(message.starts_with("the command `/nowhere/tool …` could not be started | "), "{message}");
}

#[test]
fn a_command_can_neither_fill_our_memory_nor_stall_us() {
    assert!(matches!(spec(r#"{"command": "yes"}"#).read(), Err(KeyError::TooLong { .. })));
    assert!(
        matches!(spec(r#"{"command": "cat"}"#).read(), Err(KeyError::Empty { .. })),
        "its standard input is empty"
    );
    let noisy = format!(r#"{{"command": "yes complaint | head -c 1000000 >&2; echo {HEX}"}}"#);
    assert_eq!(text(spec(&noisy).read()), HEX);
}

#[test]
fn words_of_a_list_reach_the_program_without_a_shell() {
    assert_eq!(
        text(spec(r#"{"passphrase": {"command": ["echo", "$HOME; `id` 'x'"]}}"#).read()),
        "$HOME; `id` 'x'"
    );
}

#[test]
fn a_specification_is_one_place_and_nothing_else() {
    for wrong in [
        r#"{}"#,
        r#"{"env": "A", "file": "b"}"#,
        r#"{"evn": "A"}"#,
        r#"{"command": []}"#,
        r#"{"command": " "}"#,
        r#"{"command": {"sh": "x"}}"#,
        r#"{"passphrase": "open sesame"}"#,
        r#"{"passphrase": {"passphrase": {"env": "A"}}}"#,
        r#"["A"]"#,
    ] {
        let error = serde_json::from_str::<KeySpec>(wrong).unwrap_err().to_string();
        assert!(!error.contains("sesame"), "{error}");
    }
}

#[test]
fn a_key_written_into_the_configuration_is_not_repeated_in_the_error() {
    for written_out in [format!("\"{HEX}\""), "123456".to_owned(), format!(r#"{{"passphrase": "{HEX}"}}"#)] {
        let error = serde_json::from_str::<KeySpec>(&written_out).unwrap_err().to_string();
        assert!(error.contains("does not belong here") && error.contains("{ env: NAME }"), "{error}");
        assert!(!error.contains("001122") && !error.contains("123456"), "{error}");
    }
}

#[test]
fn a_specification_is_shown_as_it_was_written() {
    for json in [
        r#"{"env":"KEY"}"#,
        r#"{"file":"/etc/mainstay/key"}"#,
        r#"{"command":["pass","show","backup"]}"#,
        r#"{"passphrase":{"command":"pass show backup"}}"#,
    ] {
        assert_eq!(serde_json::to_string(&spec(json)).unwrap(), json);
    }
}

#[test]
fn the_schema_shows_each_place() {
    let schema = serde_json::to_string(&schemars::schema_for!(KeySpec)).unwrap();
    for word in ["env", "file", "command", "passphrase"] {
        assert!(schema.contains(&format!("\"{word}\"")), "{schema}");
    }
}
