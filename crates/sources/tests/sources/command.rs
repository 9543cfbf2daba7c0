//! Commands as sources: what they write comes back, and whatever else they do is a failure.

use crate::memory;
use mainstay_domain::{
    ByteSize, Failure, Kind, Monitor, Silent, SystemClock, monitor::Event, point::SourceRecord, time::Span,
};
use mainstay_sources::command::{self, CommandConfig, CommandFacts, CommandLine};
use memory::Memory;
use std::fs;

fn shell(text: &str) -> CommandConfig {
    CommandConfig::new(CommandLine::Shell(text.to_owned()))
}

fn capture(config: &CommandConfig, memory: &Memory) -> Result<SourceRecord, Failure> {
    command::capture(config, memory, &SystemClock, &Silent)
}

fn refused(config: &CommandConfig) -> Failure {
    capture(config, &Memory::default()).unwrap_err()
}

#[test]
fn what_a_command_writes_comes_back_byte_for_byte() {
    let memory = Memory::default();
    let config = CommandConfig { name: "numbers.txt".into(), ..shell("seq 1 300000; printf '\\0\\377'") };
    let record = capture(&config, &memory).unwrap();
    let facts = CommandFacts::from_json(&record.facts).unwrap();
    assert_eq!(
        (facts.program.as_str(), facts.bytes),
        ("the shell command that begins with seq", record.bytes)
    );
    let folder = tempfile::tempdir().unwrap();
    let (path, bytes) = command::to_directory(&memory, &record, folder.path()).unwrap();
    assert!(path.ends_with("numbers.txt") && bytes == record.bytes);
    let expected: String = (1..=300_000).map(|n| format!("{n}\n")).collect();
    assert_eq!(fs::read(&path).unwrap(), [expected.as_bytes(), b"\0\xff"].concat());
    assert_eq!(command::compare(&record, &path).unwrap(), None);
    let again = command::to_directory(&memory, &record, folder.path()).unwrap_err();
    assert_eq!(again.kind, Kind::Preflight);
    fs::write(&path, "other").unwrap();
    assert!(command::compare(&record, &path).unwrap().is_some());

    // And into another command.
    let copy = folder.path().join("copy");
    let fed = command::to_command(&memory, &record, &format!("cat > {}", copy.display())).unwrap();
    assert_eq!((fed, command::compare(&record, &copy).unwrap()), (record.bytes, None));
    assert!(command::to_command(&memory, &record, "cat > /dev/null; exit 7").is_err());
}

#[test]
fn a_program_is_started_without_a_shell() {
    let words = ["printf", "%s", "$HOME; exit 1"].map(str::to_owned);
    let memory = Memory::default();
    let record = capture(&CommandConfig::new(CommandLine::Program(words.into())), &memory).unwrap();
    assert_eq!(memory.bytes(&record.stream(command::OUTPUT).unwrap().content), b"$HOME; exit 1");
    let missing = CommandConfig::new(CommandLine::Program(vec!["no-such-program-here".into()]));
    assert_eq!(command::probe(&missing).unwrap_err().kind, Kind::Preflight);
}

#[test]
fn a_failed_command_fails_its_source_with_its_last_words_and_without_its_secrets() {
    let failure = refused(&shell(
        "echo half; echo 'connecting to postgres://app:hunter2@db/shop' >&2; echo 'no route to host' >&2; exit 3",
    ));
    assert!(
        failure.message.contains("exit status: 3") && failure.message.contains("no route to host"),
        "{failure:?}"
    );
    assert!(!format!("{failure:?}").contains("hunter2"), "{failure:?}");
    let killed = refused(&shell("echo half; kill -TERM $$"));
    assert!(killed.message.contains("signal"), "{killed:?}");
}

#[test]
fn too_little_and_too_much_are_failures() {
    let empty = refused(&shell("true"));
    assert!(empty.message.contains("at least 1 B"), "{empty:?}");
    let most = CommandConfig { max_size: Some(ByteSize(1000)), ..shell("yes") };
    let endless = refused(&most);
    assert!(endless.message.contains("more than 1000 B"), "{endless:?}");
    let allowed = CommandConfig { min_size: ByteSize(0), ..shell("true") };
    assert_eq!(capture(&allowed, &Memory::default()).unwrap().bytes, 0);
}

#[test]
fn a_command_that_takes_too_long_is_ended_with_all_that_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let pid_file = folder.path().join("pid");
    // A grandchild holds the output open.
    let text = format!("sleep 1000 & echo $! > {}; wait", pid_file.display());
    let config = CommandConfig { timeout: Span { nanoseconds: 300_000_000 }, ..shell(&text) };
    let failure = refused(&config);
    assert!(failure.message.contains("took too long"), "{failure:?}");
    let pid = fs::read_to_string(&pid_file).unwrap();
    let status = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    assert!(status.is_empty() || status.contains(") Z "), "{status}");
}

/// Stops as soon as the command has written something.
#[derive(Default)]
struct Stopper(std::sync::atomic::AtomicBool);

impl Monitor for Stopper {
    fn event(&self, event: Event<'_>) {
        if matches!(event, Event::Advance { .. }) {
            self.0.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    }
    fn cancelled(&self) -> bool {
        self.0.load(std::sync::atomic::Ordering::Relaxed)
    }
}

#[test]
fn the_user_can_stop_a_command() {
    let outcome = command::capture(
        &shell("echo begun; sleep 1000"),
        &Memory::default(),
        &SystemClock,
        &Stopper::default(),
    );
    assert_eq!(outcome.unwrap_err().kind, Kind::Cancelled);
}

#[test]
fn a_wrong_configuration_is_named() {
    for (config, needle) in [
        (shell(" "), "no command"),
        (CommandConfig { name: "../x".into(), ..shell("true") }, "no name of a file"),
        (CommandConfig { max_size: Some(ByteSize(1)), min_size: ByteSize(2), ..shell("true") }, "less than"),
        (CommandConfig { timeout: Span { nanoseconds: 0 }, ..shell("true") }, "timeout"),
    ] {
        assert!(config.validate().unwrap_err().message.contains(needle));
    }
}
