//! Standard output: text for people, or JSON Lines for programs. Never both.
//!
//! Every JSON line is an object with `v` (the version of these lines, 1) and `type`; `doc/reference/json.md` lists them.
//! A reader that goes away (`mainstay list | head`) is no failure of ours: output stops, the work goes on.

use serde::Serialize;
use serde_json::{Value, json};
use std::{
    fmt::Display,
    io::{self, Write},
    sync::atomic::{AtomicBool, Ordering},
};

/// The version of the JSON lines. Grows when a line changes its meaning, not when one gains a field.
const JSON_VERSION: u32 = 1;

/// Where results go.
#[derive(Debug)]
pub struct Output {
    json: bool,
    closed: AtomicBool,
    hushed: AtomicBool,
}

impl Output {
    pub fn new(json: bool) -> Self {
        Output { json, closed: AtomicBool::new(false), hushed: AtomicBool::new(false) }
    }

    pub fn is_json(&self) -> bool {
        self.json
    }

    /// A line for people; nothing where JSON was asked for.
    pub fn line(&self, text: impl Display) {
        if !self.json {
            self.write(format_args!("{text}"));
        }
    }

    /// A line for programs; nothing where text was asked for. `value` must serialise to an object.
    pub fn json(&self, kind: &str, value: &impl Serialize) {
        if self.json {
            let mut line = json!({ "v": JSON_VERSION, "type": kind });
            match (line.as_object_mut(), serde_json::to_value(value)) {
                (Some(line), Ok(Value::Object(fields))) => line.extend(fields),
                _ => debug_assert!(false, "a line of type {kind} says nothing"),
            }
            self.write(line);
        }
    }

    /// A document that is the same for both: a schema, a completion script, a page of YAML.
    pub fn document(&self, text: impl Display) {
        self.write(text);
    }

    /// Says nothing until it is told otherwise: what comes was shown before.
    pub fn hush(&self, on: bool) {
        self.hushed.store(on, Ordering::Relaxed);
    }

    fn write(&self, text: impl Display) {
        if self.closed.load(Ordering::Relaxed) || self.hushed.load(Ordering::Relaxed) {
            return;
        }
        let mut stdout = io::stdout().lock();
        if writeln!(stdout, "{text}").and_then(|()| stdout.flush()).is_err() {
            self.closed.store(true, Ordering::Relaxed);
        }
    }
}

/// A line on standard error. Nothing is done about an error there: there is nowhere left to report it.
pub fn note(text: impl Display) {
    drop(writeln!(io::stderr().lock(), "{text}"));
}
