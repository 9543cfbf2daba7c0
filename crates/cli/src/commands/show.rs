//! `mainstay show`: everything about one recovery point.

use super::point;
use crate::{
    context::Context,
    exit::Exit,
    render::{self, time},
};
use mainstay_domain::{ByteSize, Result, point::SourceRecord};
use mainstay_operations::{
    prove::{self, Kept},
    skew,
};
use mainstay_sources::{
    postgres::{
        self,
        cluster::{self, ClusterFacts},
    },
    redis::{self, RedisFacts},
};
use serde_json::{Value, json};

/// Show what a recovery point holds, what it lacks, and when it was proven
#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(help = point::HELP)]
    point: String,
}

pub fn run(args: Args, context: &Context) -> Result<Exit> {
    let config = context.config()?;
    let chosen = point::choose(context, &config, &args.point)?;
    let manifest = chosen.repository.manifest(&chosen.info.id)?;
    let (info, summary) = (&chosen.info, &chosen.info.summary);
    let out = &context.output;
    let now = context.clock().now();
    let styled = |name: &str, value: String| out.line(format_args!("{name:<13}{value}"));
    let field = |name: &str, value: String| styled(name, render::plain(&value));
    field("point", info.id.to_string());
    field("application", format!("{} ({})", summary.app, summary.environment));
    styled("state", render::point::state(summary.state));
    field(
        "finished",
        format!("{} ({})", time::local(summary.finished), time::relative(summary.finished, now)),
    );
    field("took", time::length(summary.finished.since(summary.started)));
    let made_by = match &summary.policy {
        _ if summary.is_safety_copy() => "a restore, as a safety copy: `latest` does not mean it".to_owned(),
        Some(policy) => format!("policy {policy}"),
        None => "hand".to_owned(),
    };
    field("made by", made_by);
    field("on host", summary.host.clone());
    field(
        "size",
        format!("{}, of which {} were new", ByteSize(summary.bytes()), ByteSize(summary.stored_bytes)),
    );
    if let Some(skew) = skew::of(&manifest.point.sources) {
        field("skew", format!("{} between the sources", time::length(skew.nanoseconds)));
    }
    for (name, value) in &summary.labels {
        field("label", format!("{name}={value}"));
    }
    if let Some(until) = summary.keep_until {
        field("kept until", time::local(until));
    }
    for hold in &info.holds {
        let until = hold.until.map_or("released".to_owned(), time::local);
        field("held", format!("{}: {} (by {}, until {until})", hold.kind, hold.reason, hold.by));
    }
    let before = info.passed.iter().filter(|(level, proof)| info.proofs.get(level) != Some(proof));
    let mut reports = Vec::new();
    for (level, proof) in info.proofs.iter().chain(before) {
        let word = if proof.passed { "passed" } else { "DID NOT PASS" };
        let restore = match proof.restore_millis {
            0 => String::new(),
            millis => format!(", restored in {}", time::length(millis as i64 * 1_000_000)),
        };
        field("proof", format!("{level}: {word} {}{restore}", time::relative(proof.at, now)));
        let Some(kept) = prove::kept(&chosen.repository, &info.id, proof)? else { continue };
        match &kept {
            Kept::Signed(report) => signed(report).into_iter().for_each(|line| field("", line)),
            lost => field(
                "",
                format!(
                    "{}; prove it again: mainstay verify {} --level restore",
                    lost_report(lost),
                    summary.app
                ),
            ),
        }
        reports.push(match kept {
            Kept::Signed(report) => report,
            lost => json!({ "lost": lost_report(&lost), "name": proof.report }),
        });
    }
    if info.proven().is_none() && info.not_passed().is_none() {
        field(
            "proof",
            "never restored; try: mainstay verify APP --level restore".replace("APP", &summary.app),
        );
    }
    out.line("");
    out.line(render::point::sources(&summary.sources).render());
    for record in &manifest.point.sources {
        if let Some(captured) = captured(record) {
            out.line(render::plain(&format!("  {}: {captured}", record.name)));
        }
        for line in render::point::problems(record) {
            out.line(line);
        }
    }
    let sources: Vec<_> = manifest
        .point
        .sources
        .iter()
        .map(|record| {
            json!({
                "name": record.name, "kind": record.kind, "state": record.state, "started": record.started,
                "finished": record.finished, "consistent_at": record.consistent_at, "bytes": record.bytes,
                "items": record.items, "partial": record.partial, "problems": record.problems,
                "facts": serde_json::from_str::<serde_json::Value>(&record.facts).unwrap_or_default(),
            })
        })
        .collect();
    let skew = skew::of(&manifest.point.sources).map(|skew| skew.nanoseconds / 1_000_000);
    out.json(
        "point",
        &json!({ "point": info, "sources": sources, "skew_milliseconds": skew, "reports": reports }),
    );
    Ok(Exit::Done)
}

/// What a signed report says.
fn signed(report: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let mut lines = vec![format!("report signed on host {}: its signature holds", text(&report["host"]))];
    for source in report["sources"].as_array().into_iter().flatten() {
        let [name, verdict, compared] = ["source", "verdict", "compared"].map(|key| text(&source[key]));
        lines.push(format!("{name} {verdict}: compared {compared}"));
    }
    lines
}

/// Why there is no report to show.
fn lost_report(kept: &Kept) -> String {
    match kept {
        Kept::Signed(_) => String::new(),
        Kept::Missing => "its signed report is MISSING: nothing but the log says so".to_owned(),
        Kept::Damaged(why) => format!("its signed report is DAMAGED: {why}"),
    }
}

/// The state that was captured, in the source's own measure, and how a base backup was come by.
fn captured(record: &SourceRecord) -> Option<String> {
    match record.kind.as_str() {
        cluster::KIND => {
            let facts = ClusterFacts::from_json(&record.facts).ok()?;
            let how = facts.captured.map(|captured| format!("{captured}; ")).unwrap_or_default();
            let from = if facts.from_standby { " of a standby" } else { "" };
            Some(format!(
                "{how}consistent from {} on{from}, replayed from {} on timeline {}",
                facts.stop, facts.start, facts.timeline
            ))
        }
        redis::KIND => {
            let facts = RedisFacts::from_json(&record.facts).ok()?;
            Some(format!("as of offset {} of its replication stream", facts.replication_offset?))
        }
        "postgres" => {
            let snapshot = postgres::facts::Facts::from_json(&record.facts).ok()?.snapshot;
            let at = snapshot.lsn.map(|lsn| format!(", at {lsn} of the WAL")).unwrap_or_default();
            Some(format!("one snapshot of {}{at}", time::precise(snapshot.at)))
        }
        _ => None,
    }
}
