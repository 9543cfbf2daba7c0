//! Recovery points and what is in them.

use super::{plain, table::Table};
use console::style;
use mainstay_domain::{
    ByteSize, Severity, Time,
    point::{Proof, ProofLevel, SourceRecord, SourceSummary, State, Summary},
};
use mainstay_operations::points::PointInfo;

/// The state as a word, in its colour.
pub fn state(state: State) -> String {
    match state {
        State::Complete => style("complete").green().to_string(),
        State::Incomplete => style("INCOMPLETE").yellow().bold().to_string(),
        State::Failed => style("FAILED").red().bold().to_string(),
    }
}

/// Why there is such a point: the policy that asked for it, or a person, or a restore on its way.
pub fn made_by(summary: &Summary) -> String {
    match &summary.policy {
        _ if summary.is_safety_copy() => "safety copy".to_owned(),
        Some(policy) => policy.clone(),
        None => "by hand".to_owned(),
    }
}

/// One line for each source.
pub fn sources(sources: &[SourceSummary]) -> Table {
    let mut table = Table::new(&["SOURCE", "KIND", "STATE", ">ITEMS", ">SIZE", ""]);
    for source in sources {
        table.row([
            plain(&source.name),
            plain(&source.kind),
            state(source.state),
            source.items.to_string(),
            ByteSize(source.bytes).to_string(),
            if source.partial {
                "partial: something is left out on purpose".to_owned()
            } else {
                String::new()
            },
        ]);
    }
    table
}

/// What went wrong with a source, a line for each problem.
pub fn problems(record: &SourceRecord) -> Vec<String> {
    let line = |problem: &mainstay_domain::point::Problem| {
        let mark = match problem.severity {
            Severity::Info => style("note").cyan(),
            Severity::Warning => style("warning").yellow().bold(),
            Severity::Error => style("missing").red().bold(),
        };
        let object = if problem.object.is_empty() { String::new() } else { format!(" {}", problem.object) };
        format!("  {mark}: {}", plain(&format!("{}{object}: {}", record.name, problem.message)))
    };
    record.problems.iter().map(line).collect()
}

/// `restored 2 h 10 min ago`, the deepest level that passed, or `never`; of a later check that did not pass, that.
pub fn proven(point: &PointInfo, now: Time) -> String {
    let ago = |proof: &Proof| super::time::relative(proof.at, now);
    // Only what looks as deep can take it back.
    let stands =
        |failed: &&Proof| !point.passed.values().any(|p| p.level >= failed.level && p.at > failed.at);
    let failed =
        point.proofs.values().filter(|proof| !proof.passed).filter(stands).max_by_key(|proof| proof.at);
    if let Some(proof) = failed {
        return format!("{} {}", style("NOT PASSED").red().bold(), ago(proof));
    }
    match point.passed.values().max_by_key(|proof| proof.level) {
        Some(proof) if proof.level == ProofLevel::Restore => format!("restored {}", ago(proof)),
        Some(proof) => format!("{} {}", proof.level, ago(proof)),
        None => "never".to_owned(),
    }
}
