//! `mainstay verify`: is it there, is it intact, does it decode, does it come back.

use super::point::{self, Chosen};
use crate::{
    context::Context,
    exit::Exit,
    render::{count, plain, table::Table, time},
};
use console::style;
use mainstay_domain::{ByteSize, Kind, Result, point::ProofLevel};
use mainstay_operations::{
    access, damage, points,
    prove::{Report, Verdict},
    verify,
};
use mainstay_repository::check::Finding;
use serde_json::json;

/// Prove that recovery points can be brought back
///
/// At level `restore`, the point is restored into a throw-away PostgreSQL and a scratch folder, all of it is compared with
/// what was captured, and a signed proof is kept in the repository. The other levels look at every point of the application
/// unless one is named. Exit code 4 means that something is wrong, 3 that something could not be compared,
/// 14 that the test could not run here.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The application, as the configuration names it
    app: String,
    /// Only this recovery point: latest, latest-complete, the beginning of an id, or a time
    #[arg(long, short)]
    point: Option<String>,
    /// How deeply
    #[arg(long, short, value_enum, default_value_t = Level::Packs)]
    level: Level,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Level {
    /// Each object is there in its full size
    Objects,
    /// The bytes of each pack are what was written
    Packs,
    /// Each chunk decrypts, decompresses and matches its id
    Data,
    /// A real restore gives back what was captured
    Restore,
}

pub fn run(args: Args, context: &Context) -> Result<Exit> {
    match args.level {
        Level::Objects => look(&args, context, ProofLevel::Objects),
        Level::Packs => look(&args, context, ProofLevel::Packs),
        Level::Data => look(&args, context, ProofLevel::Data),
        Level::Restore => restore(&args, context),
    }
}

/// What to do about the report of a restore test that is missing or damaged. There is nothing to repair in it.
pub const LOST_PROOF: &str = "A lost proof harms no recovery point, and proves none; nothing else is wrong with its point. Prove it \
    again: mainstay verify APP --point POINT --level restore";

fn look(args: &Args, context: &Context, level: ProofLevel) -> Result<Exit> {
    let config = context.config()?;
    let (repository, chosen) = match &args.point {
        Some(words) => {
            let Chosen { repository, info } = point::choose_of(context, &config, &args.app, words)?;
            (repository, vec![info])
        }
        None => {
            let repository =
                access::open(&config, &access::repository_of(&config, &args.app)?, context.clock())?;
            let all = points::list(&repository, Some(&args.app))?;
            (repository, all)
        }
    };
    let damage = damage::of(&repository)?;
    if chosen.is_empty() && damage.is_empty() {
        return Err(access::no_points(&args.app));
    }
    let mut report = verify::check(&repository, &chosen, level, &context.progress)?;
    context.progress.finish();
    // What is wrong with the repository itself concerns every point.
    report.findings.extend(damage.into_iter().map(|wrong| Finding {
        object: wrong.object,
        problem: format!("{}. {}", wrong.text, wrong.hint),
        pack: None,
        points: Vec::new(),
    }));
    let out = &context.output;
    let points = chosen.len();
    if report.is_clean() {
        out.line(format_args!(
            "Intact at level {level}: {} of {}, {}, {} read.",
            count(points as u64, "recovery point"),
            args.app,
            count(report.objects as u64, "object"),
            ByteSize(report.bytes)
        ));
    } else {
        out.line(format_args!("{}:\n", count(report.findings.len() as u64, "finding")));
    }
    for finding in &report.findings {
        let needed: Vec<_> = finding.points.iter().map(|id| id.short()).collect();
        let needed =
            if needed.is_empty() { String::new() } else { format!(" (needed by {})", needed.join(", ")) };
        out.line(format_args!("  {}: {}{needed}", plain(&finding.object), plain(&finding.problem)));
    }
    if report.findings.iter().any(|finding| finding.object.starts_with("proofs/")) {
        out.line(format_args!("\n{LOST_PROOF}"));
    }
    out.json(
        "verified",
        &json!({
            "level": level, "clean": report.is_clean(), "points": points, "objects": report.objects, "bytes": report.bytes,
            "made_good": report.made_good,
            "findings": report.findings.iter().map(|f| json!({
                "object": f.object, "problem": f.problem, "points": f.points,
            })).collect::<Vec<_>>(),
        }),
    );
    Ok(if report.is_clean() { Exit::Done } else { Exit::With(Kind::Verification) })
}

fn restore(args: &Args, context: &Context) -> Result<Exit> {
    let config = context.config()?;
    let words = args.point.as_deref().unwrap_or("latest");
    let Chosen { repository, info } = point::choose_of(context, &config, &args.app, words)?;
    let (report, _) = verify::prove(Some(&config), &repository, &info, &*context.clock(), &context.progress)?;
    context.progress.finish();
    show(context, &report);
    Ok(match report.verdict {
        Verdict::Passed => Exit::Done,
        Verdict::Partial => Exit::With(Kind::Incomplete),
        Verdict::NotRun => Exit::With(Kind::Preflight),
        Verdict::Failed => Exit::With(Kind::Verification),
    })
}

fn show(context: &Context, report: &Report) {
    let out = &context.output;
    out.line(format_args!(
        "Restore test of {}, point {} as of {}: {}\n",
        report.app,
        report.point.short(),
        time::local(report.captured),
        word(report.verdict)
    ));
    let mut table = Table::new(&["SOURCE", "RESULT", ">RESTORED IN", ">COMPARED IN", ">SIZE", "INTO"]);
    for source in &report.sources {
        table.row([
            source.source.clone(),
            word(source.verdict),
            time::length(source.restore_millis as i64 * 1_000_000),
            time::length(source.compare_millis as i64 * 1_000_000),
            ByteSize(source.bytes).to_string(),
            source.environment.clone(),
        ]);
    }
    out.line(table.render());
    out.line("");
    for source in &report.sources {
        out.line(format_args!("  {}: compared {}", source.source, source.compared));
        for (mark, lines) in [
            ("differs", &source.differences),
            ("not compared", &source.not_compared),
            ("problem", &source.problems),
        ] {
            for line in lines {
                out.line(format_args!("    {mark}: {}", plain(line)));
            }
        }
    }
    let took = time::length(report.restore_millis as i64 * 1_000_000);
    out.line(match report.verdict {
        Verdict::Passed => {
            format!("\nRecovery took {took}, measured now. The signed proof is kept in the repository.")
        }
        Verdict::Partial | Verdict::Failed => "\nThis report is kept, signed, in the repository.".to_owned(),
        Verdict::NotRun => {
            "\nNothing is known about the recovery point, and nothing was recorded: earlier proofs stand. \
                            Remove the cause and run it again."
                .to_owned()
        }
    });
    out.json("proof", report);
}

fn word(verdict: Verdict) -> String {
    match verdict {
        Verdict::Passed => style("passed").green().bold().to_string(),
        Verdict::Partial => style("PARTIAL").yellow().bold().to_string(),
        Verdict::NotRun => style("NOT RUN").yellow().bold().to_string(),
        Verdict::Failed => style("FAILED").red().bold().to_string(),
    }
}
