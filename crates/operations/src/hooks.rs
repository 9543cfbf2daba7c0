//! What an application wants to be done around a restore: a command before it and one after it, and a check that it is ready again.
//!
//! The second command runs whenever the first one was begun: also when that failed, when the restore failed, and when it was stopped by
//! Ctrl-C. It turns off what the first one turned on. (A second Ctrl-C ends this program at once, and a killed one runs nothing.)

use crate::config::{Hooks, Ready};
use mainstay_domain::{Failure, Kind, Monitor, Result, Silent, time::Span};
use mainstay_sources::command;
use serde::Serialize;
use std::{
    cell::{Cell, RefCell},
    io::{Read, Write},
    net::{TcpStream, ToSocketAddrs},
    time::{Duration, Instant},
};

/// How long one attempt of a check may take.
const ATTEMPT: Duration = Duration::from_secs(5);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(200);

/// What became of one of them.
#[derive(Debug, Clone, Serialize)]
pub struct Ran {
    pub hook: &'static str,
    /// `None`: it was done.
    pub failure: Option<String>,
    pub milliseconds: u64,
}

/// The hooks of one restore.
pub struct Around<'a> {
    hooks: Option<&'a Hooks>,
    app: &'a str,
    point: String,
    source: &'a str,
    at_begin: Option<&'a dyn Fn()>,
    begun: Cell<bool>,
    ran: RefCell<Vec<Ran>>,
}

impl<'a> Around<'a> {
    pub fn new(hooks: Option<&'a Hooks>, app: &'a str, point: String, source: &'a str) -> Around<'a> {
        Around { hooks, app, point, source, at_begin: None, begun: Cell::new(false), ran: RefCell::default() }
    }

    /// Of one source among several, around all of which the hooks run: it only says when its work begins.
    pub fn within(app: &'a str, source: &'a str, at_begin: &'a dyn Fn()) -> Around<'a> {
        Around { at_begin: Some(at_begin), ..Around::new(None, app, String::new(), source) }
    }

    /// To be called when everything is planned and agreed to, before the first thing is changed. Does nothing the second time.
    ///
    /// # Errors
    /// The first command failed: nothing is restored.
    pub fn begin(&self, monitor: &dyn Monitor) -> Result<()> {
        if self.begun.replace(true) {
            return Ok(());
        }
        if let Some(tell) = self.at_begin {
            tell();
        }
        let Some(line) = self.hooks.and_then(|hooks| hooks.before_restore.as_ref()) else { return Ok(()) };
        self.timed("before_restore", || {
            let timeout = self.timeout();
            command::run(line, &self.environment("begun"), timeout, monitor)
        })
        .map_err(|failure| failure.during("before_restore").hint("Nothing was restored."))
    }

    /// To be called at the end, however it ended. Returns what ran, and the first failure of what was to follow.
    pub fn end(&self, outcome: &'static str, monitor: &dyn Monitor) -> (Vec<Ran>, Result<()>) {
        if !self.begun.get() {
            return (Vec::new(), Ok(()));
        }
        let mut ended = Ok(());
        if let Some(line) = self.hooks.and_then(|hooks| hooks.after_restore.as_ref()) {
            // Not to be stopped by what stopped the restore.
            ended = self
                .timed("after_restore", || {
                    command::run(line, &self.environment(outcome), self.timeout(), &Silent)
                })
                .map_err(|failure| failure.during("after_restore"));
        }
        let ready = self.hooks.and_then(|hooks| hooks.wait_ready.as_ref());
        if let (Ok(()), Some(ready), "done") = (&ended, ready, outcome) {
            ended = self.timed("wait_ready", || self.wait(ready, monitor));
        }
        (self.ran.take(), ended)
    }

    fn timeout(&self) -> Span {
        self.hooks.map_or(Span { nanoseconds: 0 }, |hooks| hooks.timeout)
    }

    /// What a command is told. Nothing secret is in it.
    fn environment<'e>(&'e self, outcome: &'e str) -> [(&'e str, &'e str); 4] {
        [
            ("MAINSTAY_APP", self.app),
            ("MAINSTAY_POINT", &self.point),
            ("MAINSTAY_SOURCE", self.source),
            ("MAINSTAY_OUTCOME", outcome),
        ]
    }

    fn timed(&self, hook: &'static str, run: impl FnOnce() -> Result<()>) -> Result<()> {
        let begun = Instant::now();
        let done = run();
        let failure = done.as_ref().err().map(|failure| failure.message.clone());
        let milliseconds = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.ran.borrow_mut().push(Ran { hook, failure, milliseconds });
        done
    }

    fn wait(&self, ready: &Ready, monitor: &dyn Monitor) -> Result<()> {
        let limit = Duration::from_nanos(ready.timeout.nanoseconds.unsigned_abs());
        let begun = Instant::now();
        loop {
            let Err(last) = self.attempt(ready, monitor) else { return Ok(()) };
            if monitor.cancelled() {
                return Err(Failure::new(Kind::Cancelled, "the wait for the application was stopped"));
            }
            if begun.elapsed() >= limit {
                return Err(Failure::failed(format!(
                    "{} is restored, and was not ready within {}: {last}",
                    self.app, ready.timeout
                ))
                .hint("Look at the application's own log."));
            }
            std::thread::park_timeout(PAUSE); // between two looks
        }
    }

    fn attempt(&self, ready: &Ready, monitor: &dyn Monitor) -> Result<(), String> {
        if let Some(line) = &ready.command {
            return command::run(line, &self.environment("done"), ready.timeout, monitor)
                .map_err(|failure| failure.message);
        }
        if let Some(address) = &ready.tcp {
            return connect(address).map(drop);
        }
        ready.http.as_deref().map_or(Ok(()), answers)
    }
}

fn connect(address: &str) -> Result<TcpStream, String> {
    let failed = |error: std::io::Error| format!("{address}: {error}");
    let mut last = format!("{address} has no address");
    for place in address.to_socket_addrs().map_err(failed)? {
        match TcpStream::connect_timeout(&place, ATTEMPT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = failed(error),
        }
    }
    Err(last)
}

/// Whether an address of http answers, with a status of 2xx or 3xx.
fn answers(url: &str) -> Result<(), String> {
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let address = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let failed = |error: std::io::Error| format!("{url}: {error}");
    let mut stream = connect(&address)?;
    stream
        .set_read_timeout(Some(ATTEMPT))
        .and_then(|()| stream.set_write_timeout(Some(ATTEMPT)))
        .map_err(failed)?;
    let asked = format!("GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(asked.as_bytes()).map_err(failed)?;
    let mut answer = Vec::new();
    // What came before the connection broke is an answer, too.
    let read = stream.take(64).read_to_end(&mut answer);
    if answer.is_empty() {
        read.map_err(failed)?;
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split_whitespace().nth(1).unwrap_or("nothing").to_owned();
    match status.as_bytes() {
        [b'2' | b'3', _, _] => Ok(()),
        _ => Err(format!("{url} answers {status}")),
    }
}
