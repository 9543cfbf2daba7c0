//! The error that crosses crate boundaries.
//!
//! Inside a crate, each operation has its own rich error enum. At a seam it becomes a [`Failure`]: one of a handful of
//! kinds that tell the caller what to do, a sentence that says what happened to what, and a hint that says what to do next.

use std::{error::Error, fmt};

/// What a caller can do about a failure. Each kind has one exit code (`doc/reference/exit-codes.md`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The work could not be done; nothing more specific is known.
    Failed,
    /// The command line or the configuration is wrong.
    Usage,
    /// Part of the work was done and the rest is named.
    Incomplete,
    /// Bytes are missing, damaged or not what was recorded.
    Verification,
    /// A recovery objective was missed.
    Objective,
    /// There is no repository (or no recovery point) where one was expected.
    NoRepository,
    /// Somebody else holds what is needed; trying again later can succeed.
    Busy,
    /// The key does not open this repository.
    WrongKey,
    /// A hold, a lock or a role forbids it.
    Refused,
    /// A condition checked before the work began does not hold (space, versions, permissions, connections).
    Preflight,
    /// The user stopped it.
    Cancelled,
}

impl Kind {
    /// The process exit code, as listed in `doc/reference/exit-codes.md`.
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::Incomplete => 3,
            Kind::Verification => 4,
            Kind::Objective => 5,
            Kind::NoRepository => 10,
            Kind::Busy => 11,
            Kind::WrongKey => 12,
            Kind::Refused => 13,
            Kind::Preflight => 14,
            Kind::Cancelled => 130,
        }
    }
}

/// A failure as its reader sees it: what happened, and what to do next.
#[derive(Debug)]
pub struct Failure {
    pub kind: Kind,
    /// One sentence, lower case, no full stop: what happened, to what.
    pub message: String,
    /// What the reader can do about it, as a full sentence.
    pub hint: Option<String>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Failure { kind, message: message.into(), hint: None, source: None }
    }

    pub fn failed(message: impl Into<String>) -> Self {
        Failure::new(Kind::Failed, message)
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Failure::new(Kind::Usage, message)
    }

    pub fn verification(message: impl Into<String>) -> Self {
        Failure::new(Kind::Verification, message)
    }

    pub fn preflight(message: impl Into<String>) -> Self {
        Failure::new(Kind::Preflight, message)
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Attaches the cause. The message must not repeat the cause's text: the renderer prints the chain.
    pub fn caused_by(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What caused it, the nearest first. One that only repeats what stands before it is left out.
    pub fn causes(&self) -> Vec<String> {
        let mut causes: Vec<String> = Vec::new();
        let mut next = self.source();
        while let Some(error) = next {
            let text = error.to_string();
            if causes.last().unwrap_or(&self.message) != &text {
                causes.push(text);
            }
            next = error.source();
        }
        causes
    }

    /// Message and causes in one line: `the store is away: connection refused`.
    pub fn with_causes(&self) -> String {
        [vec![self.message.clone()], self.causes()].concat().join(": ")
    }

    /// Puts `what` in front: the step or the object during which this happened.
    pub fn during(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|e| e as &(dyn Error + 'static))
    }
}
