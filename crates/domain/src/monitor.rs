//! How the core reports what it is doing. The terminal, the web page and the tests each render it; the core prints nothing.

use crate::Time;

/// How much a notice matters to the person who reads it.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    minicbor::Encode,
    minicbor::Decode,
    serde::Serialize,
)]
#[serde(rename_all = "lowercase")]
#[cbor(index_only)]
pub enum Severity {
    /// Worth knowing.
    #[n(0)]
    Info,
    /// Something is not as it should be; the result is whole.
    #[n(1)]
    Warning,
    /// Part of the result is missing.
    #[n(2)]
    Error,
}

/// What happens, in the order in which it happens.
#[derive(Debug, Clone)]
pub enum Event<'a> {
    /// A step of the operation begins. `total_bytes` where it is known beforehand.
    Step { name: &'a str, total_bytes: Option<u64> },
    /// The step named is over.
    StepDone { name: &'a str, note: &'a str },
    /// Work of the current step: counts since the last report, not totals.
    Advance { items: u64, bytes: u64 },
    /// Something to tell.
    Notice { severity: Severity, text: &'a str },
    /// When the result of the run is expected, where that can be said.
    Estimate { done: Time },
    /// Something that happens in one of several sources at work at the same time.
    Within { source: &'a str, event: &'a Event<'a> },
}

/// Receives what happens. Called from many threads; must not block for long.
pub trait Monitor: Send + Sync {
    fn event(&self, event: Event<'_>);

    /// Asked often by long loops: the user wants to stop.
    fn cancelled(&self) -> bool {
        false
    }
}

impl dyn Monitor + '_ {
    pub fn step(&self, name: &str, total_bytes: Option<u64>) {
        self.event(Event::Step { name, total_bytes });
    }
    pub fn done(&self, name: &str, note: &str) {
        self.event(Event::StepDone { name, note });
    }
    pub fn advance(&self, items: u64, bytes: u64) {
        self.event(Event::Advance { items, bytes });
    }
    pub fn notice(&self, severity: Severity, text: &str) {
        self.event(Event::Notice { severity, text });
    }
}

/// Reports as one of several sources at work at the same time, so that their steps and their progress can be told apart.
pub struct Within<'m> {
    monitor: &'m dyn Monitor,
    source: &'m str,
}

impl<'m> Within<'m> {
    pub fn new(monitor: &'m dyn Monitor, source: &'m str) -> Self {
        Within { monitor, source }
    }
}

impl Monitor for Within<'_> {
    fn event(&self, event: Event<'_>) {
        self.monitor.event(Event::Within { source: self.source, event: &event });
    }

    fn cancelled(&self) -> bool {
        self.monitor.cancelled()
    }
}

/// Reports to nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Monitor for Silent {
    fn event(&self, _: Event<'_>) {}
}
