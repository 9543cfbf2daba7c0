//! What an application has done around a restore.

use crate::{Place, shop};
use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    time::{Duration, Instant},
};

/// The application with these hooks.
fn with(place: &Place, hooks: &str) {
    let text = fs::read_to_string(place.at("mainstay.yaml")).unwrap();
    let text = text.split("    hooks:").next().unwrap();
    place.write("mainstay.yaml", &format!("{text}    hooks: {{ {hooks} }}\n"));
}

fn said(place: &Place) -> String {
    let said = fs::read_to_string(place.at("said")).unwrap_or_default();
    let _ = fs::remove_file(place.at("said"));
    said
}

/// Both say that they ran, and what they are told.
const TELL: &str = r#"before_restore: "echo before $MAINSTAY_APP $MAINSTAY_SOURCE $MAINSTAY_OUTCOME ${MAINSTAY_KEY:-no key} >> said", after_restore: "echo after $MAINSTAY_OUTCOME >> said""#;

#[test]
fn what_was_begun_before_a_restore_is_ended_after_it_however_it_went() {
    let place = shop();
    place.done(&["backup", "shop"]);
    with(&place, TELL);
    let restore = |to: &str, more: &[&str]| place.run(&[&["restore", "shop", "--to-dir", to], more].concat());
    let ran = restore("one", &[]);
    assert!(ran.code == 0 && ran.stdout.contains("after_restore: done"), "{}", ran.all());
    assert_eq!(said(&place), "before shop uploads begun no key\nafter done\n");
    // Nothing is begun that is only looked at, or refused.
    assert_eq!(restore("two", &["--dry-run"]).code, 0);
    assert_eq!(restore("two", &["--path", "no/such/file"]).code, 2);
    let planned = said(&place);
    assert!(planned.is_empty() || planned.ends_with("after usage\n"), "{planned}");
    // A restore that fails.
    let pack = place.files("store/packs/data").pop().unwrap();
    fs::remove_file(pack).unwrap();
    let ran = restore("three", &[]);
    assert!(ran.code != 0, "{}", ran.all());
    let failed = said(&place);
    assert!(
        failed.starts_with("before") && !failed.contains("after done") && failed.contains("after "),
        "{failed}\n{}",
        ran.all()
    );
    // A first command that fails: nothing is restored, and what it may have turned on is turned off.
    with(&place, r#"before_restore: "exit 3", after_restore: "echo after $MAINSTAY_OUTCOME >> said""#);
    let ran = restore("four", &[]);
    assert!(ran.code == 1 && ran.stderr.contains("before_restore"), "{}", ran.all());
    assert_eq!(said(&place), "after failed\n");
    assert!(!place.at("four").exists());
}

#[test]
fn a_restore_that_is_stopped_still_ends_what_it_began() {
    let place = shop();
    place.done(&["backup", "shop"]);
    // The first command says that it runs, and waits to be stopped.
    with(
        &place,
        r#"before_restore: "echo before >> said; sleep 600", after_restore: "echo after $MAINSTAY_OUTCOME >> said""#,
    );
    let child = place.start(&["restore", "shop", "--to-dir", "one"]);
    let deadline = Instant::now() + Duration::from_secs(60);
    while !place.at("said").exists() {
        assert!(Instant::now() < deadline, "the first command does not run");
        std::thread::park_timeout(Duration::from_millis(10));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let ran = place.ran(child.wait_with_output().unwrap());
    assert_eq!(ran.code, 130, "{}", ran.all());
    assert_eq!(said(&place), "before\nafter cancelled\n");
}

#[test]
fn a_restore_is_over_when_the_application_answers() {
    let place = shop();
    place.done(&["backup", "shop"]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // It is not well at first.
    let server = std::thread::spawn(move || {
        for answer in ["HTTP/1.1 503 Not yet\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"] {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]).unwrap(); // else closing would break off the answer
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    with(&place, &format!("wait_ready: {{ http: \"http://127.0.0.1:{port}/health\", timeout: 30s }}"));
    let ran = place.run(&["restore", "shop", "--to-dir", "one"]);
    assert!(ran.code == 0 && ran.stdout.contains("wait_ready: done"), "{}", ran.all());
    server.join().unwrap();
    with(&place, "wait_ready: { command: \"false\", timeout: 1s }");
    let ran = place.run(&["restore", "shop", "--to-dir", "two"]);
    assert!(ran.code == 1 && ran.stderr.contains("was not ready within"), "{}", ran.all());
    assert!(place.at("two").exists(), "it is restored all the same");
    with(&place, "wait_ready: { tcp: \"x:1\", http: \"http://x\" }");
    let ran = place.run(&["restore", "shop", "--to-dir", "three"]);
    assert!(ran.code == 2 && ran.stderr.contains("exactly one of command, tcp and http"), "{}", ran.all());
}
