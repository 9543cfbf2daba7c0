//! Runs the command and stores what it writes.
//!
//! A second thread ends the command, with all that it started, when its time is over or the user stops; a third keeps the end of
//! what it says on its standard error.

use super::{
    KIND, OUTPUT,
    config::{CommandConfig, CommandLine},
};
use crate::configuration::secrets::hide_line;
use mainstay_domain::{
    ByteSize, Clock, Failure, Kind, Monitor, Result,
    point::{SourceRecord, State, Stream},
    stream::{Pool, Sink},
};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};
use std::{
    collections::VecDeque,
    io::{self, Read},
    process::{Child, ChildStderr, ExitStatus, Stdio},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

pub const FACTS_VERSION: u32 = 1;
/// Bytes of its complaints that are kept.
const COMPLAINT: usize = 2 << 10;
/// Between two looks at the clock, and at whether the user wants to stop.
const LOOK: Duration = Duration::from_millis(20);

/// What a record says of the command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandFacts {
    pub version: u32,
    /// Its program, without arguments.
    pub program: String,
    /// The file that a restore makes of it.
    pub name: String,
    pub bytes: u64,
    /// BLAKE3 of the output, in hexadecimal.
    pub hash: String,
    pub milliseconds: u64,
}

impl CommandFacts {
    pub fn from_json(json: &str) -> Result<CommandFacts> {
        let facts: CommandFacts = serde_json::from_str(json).map_err(|error| {
            Failure::verification("the description of a command's output cannot be read").caused_by(error)
        })?;
        match facts.version > FACTS_VERSION || !super::config::is_file_name(&facts.name) {
            true => Err(Failure::verification("the description of a command's output cannot be used")
                .hint("Was it made by a later version of Mainstay?")),
            false => Ok(facts),
        }
    }
}

/// Whether the command can be run at all; it is not run.
pub fn probe(config: &CommandConfig) -> Result<()> {
    config.validate()?;
    let CommandLine::Program(words) = &config.run else { return Ok(()) };
    let program = words.first().map_or("", String::as_str);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = match program.contains('/') {
        true => std::path::Path::new(program).is_file(),
        false => std::env::split_paths(&path).any(|folder| folder.join(program).is_file()),
    };
    match found {
        true => Ok(()),
        false => Err(Failure::preflight(format!("the program {program} is not there"))
            .hint("Install it, or write its path.")),
    }
}

/// Captures the output. The record has no name yet: the caller knows what this source is called.
///
/// # Errors
/// `Failed`, with the end of what the command said, if it failed, took too long, or wrote too little or too much.
pub fn capture(
    config: &CommandConfig,
    sink: &dyn Sink,
    clock: &dyn Clock,
    monitor: &dyn Monitor,
) -> Result<SourceRecord> {
    probe(config)?;
    let started = clock.now();
    monitor.step("command", None);
    let unstarted =
        |error: io::Error| Failure::preflight(format!("{} cannot be started", config.run)).caused_by(error);
    let mut child = config
        .run
        .prepare()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(unstarted)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let most = config.max_size.map_or(u64::MAX, |size| size.0);
    let mut output = Output { from: stdout, bytes: 0, most, hasher: blake3::Hasher::new(), monitor };
    let leash = Leash::new(child, Duration::from_nanos(config.timeout.nanoseconds.unsigned_abs()));
    let (stored, status, complaint) = thread::scope(|scope| {
        let complaint = scope.spawn(move || last_words(stderr));
        let watch = scope.spawn(|| leash.watch(monitor));
        let stored = sink.put_reader(Pool::Data, &mut output);
        if stored.is_err() {
            leash.end(Ended::Useless);
        }
        output.from = None;
        let status = leash.wait();
        let ended = watch.join();
        (
            stored,
            status.and_then(|status| Ok((status, ended.map_err(|_| io::Error::other("panicked"))?))),
            complaint.join(),
        )
    });
    let complaint = complaint.unwrap_or_default();
    let (status, ended) = status.map_err(unstarted)?;
    let failed = |what: String| {
        let said = if complaint.is_empty() { String::new() } else { format!(": {complaint}") };
        Failure::failed(format!("{} {what}{said}", config.run))
    };
    match ended {
        Some(Ended::Stopped) => return Err(Failure::new(Kind::Cancelled, "the command was stopped")),
        Some(Ended::TimeOver) => {
            return Err(failed(format!("was ended after {}: it took too long", config.timeout))
                .hint("Find out why, or give it more time with `timeout:`."));
        }
        _ => {}
    }
    if output.bytes > most {
        return Err(failed(format!("was ended: it wrote more than {}", ByteSize(most)))
            .hint("Allow more with `max_size:`, if that is right."));
    }
    let content = stored?;
    if !status.success() {
        return Err(failed(format!("failed ({status})")).hint("Run it by hand, as the same user."));
    }
    if output.bytes < config.min_size.0 {
        return Err(failed(format!(
            "wrote {} and ended well; at least {} were expected",
            ByteSize(output.bytes),
            config.min_size
        ))
        .hint("Allow less with `min_size:`, if that is right."));
    }
    monitor.done("command", "");
    let finished = clock.now();
    let facts = CommandFacts {
        version: FACTS_VERSION,
        program: config.run.to_string(),
        name: config.name.clone(),
        bytes: output.bytes,
        hash: output.hasher.finalize().to_hex().to_string(),
        milliseconds: u64::try_from(finished.since(started) / 1_000_000).unwrap_or(0),
    };
    Ok(SourceRecord {
        name: String::new(),
        kind: KIND.into(),
        state: State::Complete,
        started,
        finished,
        consistent_at: None,
        streams: vec![Stream { name: OUTPUT.into(), content }],
        facts: serde_json::to_string(&facts).expect("facts are numbers and texts"),
        problems: Vec::new(),
        bytes: facts.bytes,
        items: 1,
        partial: false,
    })
}

/// What the command writes, counted and hashed; an error as soon as it is too much.
struct Output<'a, R> {
    from: Option<R>,
    bytes: u64,
    most: u64,
    hasher: blake3::Hasher,
    monitor: &'a dyn Monitor,
}

impl<R: Read> Read for Output<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(from) = &mut self.from else { return Ok(0) };
        let read = from.read(buffer)?;
        self.bytes += read as u64;
        self.hasher.update(&buffer[..read]);
        self.monitor.advance(0, read as u64);
        if self.bytes > self.most { Err(io::Error::other("too much")) } else { Ok(read) }
    }
}

/// Why a command was ended by us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    TimeOver,
    Stopped,
    /// Nobody takes its output any more.
    Useless,
}

/// The running command. Its process group is only signalled while it has not been waited for: afterwards the number may be
/// another's.
pub(super) struct Leash {
    state: Mutex<(Child, bool)>,
    until: Option<Instant>,
}

impl Leash {
    pub(super) fn new(child: Child, timeout: Duration) -> Leash {
        Leash { state: Mutex::new((child, false)), until: Instant::now().checked_add(timeout) }
    }

    fn end(&self, why: Ended) -> Ended {
        let state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !state.1
            && let Some(pid) = i32::try_from(state.0.id()).ok().and_then(Pid::from_raw)
        {
            let _ = kill_process_group(pid, Signal::KILL); // it may have ended by itself
        }
        why
    }

    /// Ends the command when its time is over, or the user stops; returns when it has ended.
    pub(super) fn watch(&self, monitor: &dyn Monitor) -> Option<Ended> {
        loop {
            if self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner).1 {
                return None;
            }
            if monitor.cancelled() {
                return Some(self.end(Ended::Stopped));
            }
            if self.until.is_some_and(|until| Instant::now() >= until) {
                return Some(self.end(Ended::TimeOver));
            }
            thread::park_timeout(LOOK); // between two looks
        }
    }

    pub(super) fn wait(&self) -> io::Result<ExitStatus> {
        loop {
            {
                let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                match state.0.try_wait() {
                    Ok(None) => {}
                    outcome => {
                        state.1 = true;
                        return outcome
                            .and_then(|status| status.ok_or_else(|| io::Error::other("no status")));
                    }
                }
            }
            thread::park_timeout(LOOK); // between two looks
        }
    }
}

/// The end of what it says, on one line, without what looks like a secret.
fn last_words(stderr: Option<ChildStderr>) -> String {
    let mut kept = VecDeque::new();
    let mut buffer = [0; 4096];
    if let Some(mut stderr) = stderr {
        while let Ok(read @ 1..) = stderr.read(&mut buffer) {
            kept.extend(&buffer[..read]);
            kept.drain(..kept.len().saturating_sub(COMPLAINT));
        }
    }
    let bytes: Vec<u8> = kept.into();
    let text = String::from_utf8_lossy(&bytes);
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(hide_line).collect::<Vec<_>>().join("; ")
}

/// What a command answers, of at most 64 KiB; it has a minute for it.
pub fn ask(line: &CommandLine) -> Result<String> {
    const LONGEST: u64 = 64 << 10;
    let unstarted =
        |error: io::Error| Failure::preflight(format!("{line} cannot be started")).caused_by(error);
    let mut command = line.prepare();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(unstarted)?;
    let stdout = child.stdout.take();
    let leash = Leash::new(child, Duration::from_secs(60));
    let (read, status, text) = thread::scope(|scope| {
        scope.spawn(|| leash.watch(&mainstay_domain::Silent));
        let mut text = Vec::new();
        let read = stdout.map_or(Ok(0), |stdout| stdout.take(LONGEST).read_to_end(&mut text));
        (read, leash.wait(), text)
    });
    read.map_err(unstarted)?;
    match status.map_err(unstarted)? {
        status if status.success() => Ok(String::from_utf8_lossy(&text).into_owned()),
        status => Err(Failure::failed(format!("{line} failed ({status})"))),
    }
}
