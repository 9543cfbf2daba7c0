//! What an operation reports while it runs: bars on a terminal, a line a minute elsewhere, events with `--json`, nothing
//! with `--quiet`.

use crate::{args::Global, output};
use console::style;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use mainstay_domain::{ByteSize, Monitor, Severity, monitor::Event};
use serde_json::{Value, json};
use std::{
    io::{IsTerminal, Write},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// Renders events. One for the whole process.
pub struct Progress {
    face: Face,
    state: Mutex<State>,
    cancelled: Arc<AtomicBool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Face {
    Bars,
    Lines,
    Json,
    Silent,
}

#[derive(Default)]
struct State {
    bars: Option<MultiProgress>,
    /// Steps that run, the innermost last: concurrent steps overlap, and an advance counts for the latest.
    steps: Vec<Step>,
}

struct Step {
    name: String,
    total_bytes: Option<u64>,
    bytes: u64,
    items: u64,
    started: Instant,
    shown: Instant,
    bar: Option<ProgressBar>,
}

/// Between two lines of the same step.
const LINES_APART: Duration = Duration::from_secs(60);
/// Between two progress events of the same step.
const EVENTS_APART: Duration = Duration::from_secs(1);

impl Progress {
    pub fn new(global: &Global, cancelled: Arc<AtomicBool>) -> Self {
        let face = match (global.quiet, global.json) {
            (true, _) => Face::Silent,
            (_, true) => Face::Json,
            _ if std::io::stderr().is_terminal() => Face::Bars,
            _ => Face::Lines,
        };
        Progress { face, state: Mutex::default(), cancelled }
    }

    /// Takes bars that are still there off the screen.
    pub fn finish(&self) {
        let mut state = self.state();
        for step in state.steps.drain(..) {
            if let Some(bar) = step.bar {
                bar.finish_and_clear();
            }
        }
    }

    /// A poisoned lock means that another thread panicked while it drew; the numbers are still good.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn step(&self, name: &str, total_bytes: Option<u64>) {
        let now = Instant::now();
        let mut state = self.state();
        let bar = match self.face {
            Face::Bars => Some(state.bars.get_or_insert_default().add(bar(name, total_bytes))),
            Face::Json => {
                event(json!({ "type": "step", "name": name, "total_bytes": total_bytes }));
                None
            }
            Face::Lines | Face::Silent => None,
        };
        state.steps.push(Step {
            name: name.to_owned(),
            total_bytes,
            bytes: 0,
            items: 0,
            started: now,
            shown: now,
            bar,
        });
    }

    fn done(&self, name: &str, note: &str) {
        let mut state = self.state();
        let Some(at) = state.steps.iter().rposition(|step| step.name == name) else { return };
        let step = state.steps.remove(at);
        if let Some(bar) = &step.bar {
            bar.finish_and_clear();
        }
        let line = if note.is_empty() { name.to_owned() } else { format!("{name}: {note}") };
        match self.face {
            Face::Bars => state.say(&format!("{} {line}", style("✓").for_stderr().green())),
            Face::Lines => {
                output::note(format_args!("{line} ({:.1} s)", step.started.elapsed().as_secs_f64()))
            }
            Face::Json => event(json!({
                "type": "step_done", "name": name, "note": note, "bytes": step.bytes, "items": step.items,
                "seconds": step.started.elapsed().as_secs_f64(),
            })),
            Face::Silent => {}
        }
    }

    fn advance(&self, items: u64, bytes: u64) {
        let mut state = self.state();
        let Some(step) = state.steps.last_mut() else { return };
        step.items += items;
        step.bytes += bytes;
        match self.face {
            Face::Bars => {
                if let Some(bar) = &step.bar {
                    bar.inc(bytes);
                    if step.items > 0 {
                        bar.set_message(format!("{} items", step.items));
                    }
                }
            }
            Face::Lines if step.shown.elapsed() >= LINES_APART => {
                step.shown = Instant::now();
                output::note(step.line());
            }
            Face::Json if step.shown.elapsed() >= EVENTS_APART => {
                step.shown = Instant::now();
                event(json!({
                    "type": "progress", "name": step.name, "bytes": step.bytes, "items": step.items,
                    "total_bytes": step.total_bytes, "seconds": step.started.elapsed().as_secs_f64(),
                }));
            }
            Face::Lines | Face::Json | Face::Silent => {}
        }
    }

    fn notice(&self, severity: Severity, text: &str) {
        let mark = match severity {
            Severity::Info => style("note:").for_stderr().cyan(),
            Severity::Warning => style("warning:").for_stderr().yellow().bold(),
            Severity::Error => style("problem:").for_stderr().red().bold(),
        };
        match self.face {
            Face::Bars => self.state().say(&format!("{mark} {text}")),
            Face::Lines => output::note(format_args!("{mark} {text}")),
            Face::Json => event(json!({ "type": "notice", "severity": severity, "text": text })),
            Face::Silent => {}
        }
    }
}

impl Monitor for Progress {
    fn event(&self, event_now: Event<'_>) {
        match event_now {
            Event::Step { name, total_bytes } => self.step(name, total_bytes),
            Event::StepDone { name, note } => self.done(name, note),
            Event::Advance { items, bytes } => self.advance(items, bytes),
            Event::Notice { severity, text } => self.notice(severity, text),
            Event::Estimate { done } => {
                if self.face == Face::Json {
                    event(json!({ "type": "estimate", "done": done }));
                }
            }
        }
    }

    fn cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

impl State {
    /// A line above the bars.
    fn say(&self, line: &str) {
        match &self.bars {
            Some(bars) => drop(bars.println(line)),
            None => output::note(line),
        }
    }
}

impl Step {
    /// `capture db: 1.20 GiB of 3.00 GiB (40 %), 120 MiB/s, 15 s left`
    fn line(&self) -> String {
        let seconds = self.started.elapsed().as_secs_f64().max(0.001);
        let rate = self.bytes as f64 / seconds;
        let done = ByteSize(self.bytes);
        let rate_text = ByteSize(rate as u64);
        match self.total_bytes {
            Some(total) if total > 0 && rate > 0.0 => {
                let percent = (self.bytes.min(total) as f64 / total as f64 * 100.0) as u64;
                let left = total.saturating_sub(self.bytes) as f64 / rate;
                let total = ByteSize(total);
                format!("{}: {done} of {total} ({percent} %), {rate_text}/s, {left:.0} s left", self.name)
            }
            _ if self.bytes > 0 => format!("{}: {done}, {} items, {rate_text}/s", self.name, self.items),
            _ => format!("{}: {} items, {seconds:.0} s", self.name, self.items),
        }
    }
}

fn bar(name: &str, total_bytes: Option<u64>) -> ProgressBar {
    let (bar, template) = match total_bytes {
        Some(total) => (
            ProgressBar::new(total),
            "{spinner} {prefix} {wide_bar} {percent:>3} %  {binary_bytes}/{binary_total_bytes}  \
             {binary_bytes_per_sec}  {eta} left  {msg}",
        ),
        None => (
            ProgressBar::new_spinner(),
            "{spinner} {prefix}  {binary_bytes}  {binary_bytes_per_sec}  {elapsed}  {msg}",
        ),
    };
    let style = ProgressStyle::with_template(template).expect("the template is well formed");
    let bar = bar.with_style(style).with_prefix(name.to_owned());
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// An event line on standard output. Results follow it there, through [`crate::output::Output`].
fn event(mut fields: Value) {
    fields["v"] = json!(1);
    drop(writeln!(std::io::stdout().lock(), "{fields}"));
}
