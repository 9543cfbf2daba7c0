//! What an operation reports while it runs: bars on a terminal, a line a minute elsewhere, events with `--json`, nothing
//! with `--quiet`.

use crate::{
    args::Global,
    output,
    render::{plain, time},
};
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
    /// Steps that run, the innermost last. An advance counts for the latest of its source, and for the one around all sources.
    steps: Vec<Step>,
}

struct Step {
    /// With the source's name in front, where it is one source's.
    name: String,
    source: Option<String>,
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

    fn step(&self, source: Option<&str>, name: &str, total_bytes: Option<u64>) {
        let now = Instant::now();
        let mut state = self.state();
        let name = full_name(source, name);
        let total_bytes = total_bytes.filter(|total| *total > 0);
        let bar = match self.face {
            Face::Bars => Some(state.bars.get_or_insert_default().add(bar(&name, total_bytes))),
            Face::Json => {
                event(json!({ "type": "step", "name": name, "total_bytes": total_bytes }));
                None
            }
            Face::Lines | Face::Silent => None,
        };
        state.steps.push(Step {
            name,
            source: source.map(str::to_owned),
            total_bytes,
            bytes: 0,
            items: 0,
            started: now,
            shown: now,
            bar,
        });
    }

    fn done(&self, source: Option<&str>, name: &str, note: &str) {
        let mut state = self.state();
        let name = &full_name(source, name);
        let Some(at) = state.steps.iter().rposition(|step| step.name == *name) else { return };
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

    fn advance(&self, source: Option<&str>, items: u64, bytes: u64) {
        let mut state = self.state();
        for at in concerned(&state.steps, source) {
            let step = &mut state.steps[at];
            step.items += items;
            step.bytes += bytes;
            match self.face {
                Face::Bars => step.redraw(),
                Face::Lines if step.shown.elapsed() >= LINES_APART => {
                    step.shown = Instant::now();
                    output::note(step.line(step.started.elapsed()));
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
    }

    fn notice(&self, source: Option<&str>, severity: Severity, text: &str) {
        let text = &plain(&full_name(source, text));
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

impl Progress {
    fn render(&self, source: Option<&str>, event_now: &Event<'_>) {
        match *event_now {
            Event::Within { source, event } => self.render(Some(source), event),
            Event::Step { name, total_bytes } => self.step(source, name, total_bytes),
            Event::StepDone { name, note } => self.done(source, name, note),
            Event::Advance { items, bytes } => self.advance(source, items, bytes),
            Event::Notice { severity, text } => self.notice(source, severity, text),
            Event::Estimate { done } => {
                if self.face == Face::Json {
                    event(json!({ "type": "estimate", "done": done }));
                }
            }
        }
    }
}

impl Monitor for Progress {
    fn event(&self, event: Event<'_>) {
        self.render(None, &event);
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
    /// `db: tables: 1.20 GiB of 3.00 GiB (40 %), 120 MiB/s, 15 s left`. A total is an estimate: once more has come than was
    /// expected, nothing is foretold any more.
    fn line(&self, elapsed: Duration) -> String {
        let seconds = elapsed.as_secs_f64().max(0.001);
        let rate = self.bytes as f64 / seconds;
        let done = ByteSize(self.bytes);
        let rate_text = ByteSize(rate as u64);
        match self.total_bytes {
            Some(total) if total >= self.bytes && self.bytes > 0 => {
                let percent = (self.bytes as f64 / total as f64 * 100.0) as u64;
                let left = time::length(((total - self.bytes) as f64 / rate * 1e9) as i64);
                let total = ByteSize(total);
                format!("{}: {done} of {total} ({percent} %), {rate_text}/s, {left} left", self.name)
            }
            _ if self.bytes > 0 => format!("{}: {done}, {} items, {rate_text}/s", self.name, self.items),
            _ => format!("{}: {} items, {seconds:.0} s", self.name, self.items),
        }
    }

    fn redraw(&mut self) {
        let Some(bar) = &self.bar else { return };
        if self.total_bytes.is_some_and(|total| self.bytes > total) {
            self.total_bytes = None;
            bar.unset_length();
            bar.set_style(bar_style(None));
        }
        bar.set_position(self.bytes);
        if self.items > 0 {
            bar.set_message(format!("{} items", self.items));
        }
    }
}

fn full_name(source: Option<&str>, name: &str) -> String {
    source.map_or_else(|| name.to_owned(), |source| format!("{source}: {name}"))
}

/// Which steps an advance counts for: the latest of its source, and the latest that is no source's.
fn concerned(steps: &[Step], source: Option<&str>) -> Vec<usize> {
    let latest = |source: Option<&str>| steps.iter().rposition(|step| step.source.as_deref() == source);
    let own = source.and_then(|source| latest(Some(source)));
    own.into_iter().chain(latest(None)).collect()
}

fn bar(name: &str, total_bytes: Option<u64>) -> ProgressBar {
    let bar = total_bytes.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
    let bar = bar.with_style(bar_style(total_bytes)).with_prefix(name.to_owned());
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

fn bar_style(total_bytes: Option<u64>) -> ProgressStyle {
    let template = match total_bytes {
        Some(_) => {
            "{spinner} {prefix} {wide_bar} {percent:>3} %  {binary_bytes}/{binary_total_bytes}  \
             {binary_bytes_per_sec}  {eta} left  {msg}"
        }
        None => "{spinner} {prefix}  {binary_bytes}  {binary_bytes_per_sec}  {elapsed}  {msg}",
    };
    ProgressStyle::with_template(template).expect("the template is well formed")
}

/// An event line on standard output. Results follow it there, through [`crate::output::Output`].
fn event(mut fields: Value) {
    fields["v"] = json!(1);
    drop(writeln!(std::io::stdout().lock(), "{fields}"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_domain::Within;

    const MIB: u64 = 1 << 20;

    fn lines() -> Progress {
        Progress { face: Face::Lines, state: Mutex::default(), cancelled: Arc::default() }
    }

    /// What a line would say of each step after this time.
    fn said(progress: &Progress, seconds: u64) -> Vec<String> {
        progress.state().steps.iter().map(|step| step.line(Duration::from_secs(seconds))).collect()
    }

    #[test]
    fn a_line_says_how_far_how_fast_and_how_long_it_will_take() {
        let progress = lines();
        let monitor: &dyn Monitor = &progress;
        monitor.step("read back", Some(400 * MIB));
        assert_eq!(said(&progress, 3), ["read back: 0 items, 3 s"]);
        monitor.advance(3, 100 * MIB);
        assert_eq!(
            said(&progress, 30),
            ["read back: 100 MiB of 400 MiB (25 %), 3.33 MiB/s, 1 min 30 s left"]
        );
        monitor.advance(9, 300 * MIB);
        assert_eq!(said(&progress, 100), ["read back: 400 MiB of 400 MiB (100 %), 4.00 MiB/s, 0 ms left"]);
        monitor.advance(1, MIB);
        assert_eq!(
            said(&progress, 100),
            ["read back: 401 MiB, 13 items, 4.01 MiB/s"],
            "more than was expected"
        );
    }

    #[test]
    fn where_no_total_is_known_none_is_foretold() {
        let progress = lines();
        let monitor: &dyn Monitor = &progress;
        monitor.step("files", Some(0));
        monitor.advance(12, 5 * MIB);
        assert_eq!(said(&progress, 5), ["files: 5.00 MiB, 12 items, 1.00 MiB/s"]);
    }

    #[test]
    fn sources_that_are_at_work_at_once_are_told_apart() {
        let progress = lines();
        let monitor: &dyn Monitor = &progress;
        let (db, files) = (Within::new(monitor, "db"), Within::new(monitor, "files"));
        let (db, files): (&dyn Monitor, &dyn Monitor) = (&db, &files);
        monitor.step("capture", None);
        db.step("tables", Some(10 * MIB));
        files.step("files", Some(20 * MIB));
        db.advance(1, 5 * MIB);
        files.advance(2, 5 * MIB);
        assert_eq!(
            said(&progress, 1),
            [
                "capture: 10.0 MiB, 3 items, 10.0 MiB/s",
                "db: tables: 5.00 MiB of 10.0 MiB (50 %), 5.00 MiB/s, 1.0 s left",
                "files: files: 5.00 MiB of 20.0 MiB (25 %), 5.00 MiB/s, 3.0 s left",
            ]
        );
        files.done("files", "");
        files.advance(0, MIB);
        assert_eq!(said(&progress, 1)[1], "db: tables: 5.00 MiB of 10.0 MiB (50 %), 5.00 MiB/s, 1.0 s left");
    }
}
