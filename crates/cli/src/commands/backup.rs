//! `mainstay backup`: one recovery point of an application.

use super::parse;
use crate::{
    context::Context,
    exit::Exit,
    output,
    render::{point, time},
};
use mainstay_domain::{ByteSize, Result, time::Span};
use mainstay_operations::{
    backup::{self, Outcome, Request},
    status,
};
use mainstay_repository::check::Sample;
use serde_json::json;

/// Make a recovery point of an application
///
/// Captures every source together, stores what is new, and reads back what it wrote. Exit code 3 means that the point is
/// incomplete: it is kept, what is missing is named, and it never counts as a good one.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The application, as the configuration names it
    app: String,
    /// The policy whose sources and retention apply; without one the point is kept until it is deleted
    #[arg(long, short)]
    policy: Option<String>,
    /// Capture only this source; may be repeated
    #[arg(long, short, value_name = "SOURCE")]
    source: Vec<String>,
    /// Read everything again, whatever its metadata says
    #[arg(long)]
    full: bool,
    /// Words of your own to find it by; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse::label)]
    label: Vec<(String, String)>,
    /// How long to keep a point made by hand: 30d, 12w, 1y
    #[arg(long, value_name = "TIME", conflicts_with = "policy")]
    keep: Option<Span>,
}

pub fn run(args: Args, context: &Context) -> Result<Exit> {
    let config = context.config()?;
    let request = Request {
        app: args.app,
        policy: args.policy,
        sources: args.source,
        full: args.full,
        labels: args.label.into_iter().collect(),
        keep: args.keep,
    };
    let outcome = backup::backup(&config, &request, context.clock(), &context.progress)?;
    context.progress.finish();
    show(context, &outcome);
    let slow = outcome.summary.policy.as_ref().and_then(|name| {
        let policy = config.apps.get(&outcome.summary.app)?.policies.get(name)?;
        status::too_slow(name, policy, &outcome.summary, &outcome.sources)
    });
    if let Some(slow) = slow {
        output::note(format_args!("warning: {slow}"));
    }
    Ok(outcome.failure().map_or(Exit::Done, Exit::With))
}

fn show(context: &Context, outcome: &Outcome) {
    let summary = &outcome.summary;
    let took = summary.finished.since(summary.started);
    context.output.line(format_args!(
        "Recovery point {} of {} is {}.\n",
        outcome.point.short(),
        summary.app,
        point::state(summary.state)
    ));
    context.output.line(point::sources(&summary.sources).render());
    for record in &outcome.sources {
        for line in point::problems(record) {
            context.output.line(line);
        }
    }
    context.output.line(format_args!(
        "\n{} read, {} new in the repository, {}{}",
        ByteSize(summary.bytes()),
        ByteSize(summary.stored_bytes),
        time::length(took),
        match &outcome.verified {
            None => String::new(),
            Some(report) if report.is_clean() => match report.sample {
                None => format!("; {} objects read back and right", report.objects),
                Some(Sample { read, of }) => format!(
                    "; {} objects are there, a sample of {read} of {of} new packs read back and right",
                    report.objects
                ),
            },
            Some(report) => format!("; READ BACK WRONG: {} findings", report.findings.len()),
        }
    ));
    for finding in outcome.verified.iter().flat_map(|report| &report.findings) {
        context.output.line(format_args!("  {}: {}", finding.object, finding.problem));
    }
    if outcome.verified.as_ref().is_some_and(|report| !report.is_clean()) {
        context.output.line(format_args!(
            "\nThe store has not kept what this point needs, of this backup or of an earlier one: do not rely on it. Find out why\n\
             (disk, memory, file system), then make another one, which stores again what it needs of that: mainstay backup {}",
            summary.app
        ));
    }
    context.output.json(
        "backup",
        &json!({
            "point": outcome.point,
            "summary": summary,
            "problems": outcome.sources.iter().map(|s| (&s.name, &s.problems)).collect::<std::collections::BTreeMap<_, _>>(),
            "verified": outcome.verified.as_ref().map(|report| json!({
                "objects": report.objects, "bytes": report.bytes, "clean": report.is_clean(),
                "sample": report.sample.map(|sample| json!({ "read": sample.read, "of": sample.of })),
                "findings": report.findings.iter().map(|f| json!({ "object": f.object, "problem": f.problem })).collect::<Vec<_>>(),
            })),
        }),
    );
}
