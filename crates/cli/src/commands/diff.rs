//! `mainstay diff`: what changed between two recovery points, or since a point.

use super::point::{self, Chosen};
use crate::{context::Context, exit::Exit, render::count};
use console::{StyledObject, style};
use mainstay_domain::{Failure, Result};
use mainstay_operations::{
    access::app_of,
    diff::{self, Became, Difference, Finding, NotCompared, Options, RowChange, Rows},
    restore,
};

/// Show what changed between two recovery points, or between one and what lives now
///
/// Files are compared by their entries, definitions by their texts, tables by row counts and digests. Of tables that differ,
/// rows are matched by primary key, all are counted, and some are shown; of sensitive tables none.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(help = point::HELP)]
    before: String,
    #[arg(help = "The later recovery point, named in the same way", required_unless_present = "live")]
    after: Option<String>,
    /// Compare with what lives now instead
    #[arg(long, conflicts_with = "after")]
    live: bool,
    /// Only this source
    #[arg(long, short)]
    source: Option<String>,
    /// How many rows to show of each kind of change in a table
    #[arg(long, value_name = "N", default_value_t = 5)]
    rows: usize,
}

pub fn run(args: Args, context: &Context) -> Result<Exit> {
    let config = context.config()?;
    let before = point::choose(context, &config, &args.before)?;
    let after = args.after.as_ref().map(|words| point::choose(context, &config, words)).transpose()?;
    let (mut found, mut skipped) = (0_u64, 0_u64);
    let mut visit = |finding: Finding| {
        match &finding {
            Finding::Difference(difference) => show(context, difference),
            Finding::Rows(rows) => show_rows(context, rows),
            Finding::NotCompared(skipped) => show_not_compared(context, skipped),
        }
        match finding {
            Finding::NotCompared(_) => skipped += 1,
            Finding::Difference(_) | Finding::Rows(_) => found += 1,
        }
        Ok(())
    };
    let options = Options { row_key: before.repository.keyring().current().row_key(), samples: args.rows };
    if let (Some(after), None) = (&after, &args.source) {
        for (one, other, which) in [(&before, after, "earlier"), (after, &before, "later")] {
            let lacks = |name: &String| !names(other).contains(name);
            for source in names(one).into_iter().filter(lacks) {
                let reason = format!("only the {which} point has it");
                visit(Finding::NotCompared(NotCompared { source, object: "all of it".into(), reason }))?;
            }
        }
    }
    for source in sources(&before, after.as_ref(), args.source.as_deref())? {
        let opened = restore::open(&before.repository, &before.info, &source)?;
        match &after {
            Some(after) => {
                let later = restore::open(&after.repository, &after.info, &source)?;
                let app = config.apps.get(&before.info.summary.app);
                diff::points(app, &opened, &later, options, &context.progress, &mut visit)?;
            }
            None => {
                let app = app_of(&config, &before.info.summary.app)?;
                diff::live(app, &opened, options, &context.progress, &mut visit)?;
            }
        }
    }
    context.progress.finish();
    let word = match (found, skipped) {
        (0, 0) => "Nothing differs.".to_owned(),
        (0, _) => "Nothing differs where it could be compared.".to_owned(),
        _ => format!("\n{}.", count(found, "difference")),
    };
    context.output.line(word);
    Ok(Exit::Done)
}

fn names(chosen: &Chosen) -> Vec<String> {
    chosen.info.summary.sources.iter().map(|source| source.name.clone()).collect()
}

/// The sources to compare: the one that is named, or all that both points have.
fn sources(before: &Chosen, after: Option<&Chosen>, named: Option<&str>) -> Result<Vec<String>> {
    let both: Vec<_> = names(before)
        .into_iter()
        .filter(|name| after.is_none_or(|after| names(after).contains(name)))
        .collect();
    match named {
        Some(name) if both.iter().any(|source| source == name) => Ok(vec![name.to_owned()]),
        Some(name) => Err(Failure::usage(format!("there is no source named {name:?} in both"))
            .hint(format!("There is: {}.", both.join(", ")))),
        None => Ok(both),
    }
}

fn mark(became: Became) -> StyledObject<&'static str> {
    match became {
        Became::Added => style("+").green(),
        Became::Removed => style("-").red(),
        Became::Changed => style("~").yellow(),
    }
}

fn show(context: &Context, difference: &Difference) {
    let Difference { source, object, became, detail } = difference;
    let detail = if detail.is_empty() { String::new() } else { format!("  ({})", printable(detail)) };
    context.output.line(format_args!("{} {source}: {}{detail}", mark(*became), printable(object)));
    context.output.json("difference", difference);
}

/// A table's line, and one for each row that is shown.
fn show_rows(context: &Context, rows: &Rows) {
    let (out, table) = (&context.output, &rows.table);
    let name = printable(&format!("{}.{}", table.schema, table.name));
    let counts = match (table.rows_before, table.rows_after) {
        (was, is) if was == is => format!("{is} rows"),
        (was, is) => format!("{was} rows, now {is}"),
    };
    let all = table.changed + table.removed + table.added;
    let mut words: Vec<String> =
        [(table.changed, "changed"), (table.removed, "removed"), (table.added, "added")]
            .into_iter()
            .filter(|(number, _)| *number > 0)
            .map(|(number, word)| format!("{number} {word}"))
            .collect();
    if !table.other_columns.is_empty() {
        words.push(format!("not compared: {}", printable(&table.other_columns.join(", "))));
    }
    if table.sensitive && all > 0 {
        words.push("sensitive, so that no values are shown".to_owned());
    }
    out.line(format_args!(
        "{} {}: rows of {name}  ({counts}: {})",
        mark(Became::Changed),
        rows.source,
        words.join(", ")
    ));
    let pairs = |names: &[String], values: &[String]| {
        let pairs: Vec<String> =
            names.iter().zip(values).map(|(name, value)| format!("{name}={}", shown(value))).collect();
        printable(&pairs.join("  "))
    };
    for change in &table.samples {
        let (became, text) = match change {
            RowChange::Added { row } => (Became::Added, pairs(&table.columns, row)),
            RowChange::Removed { row } => (Became::Removed, pairs(&table.columns, row)),
            RowChange::Changed { key, columns } => {
                let columns: Vec<String> = columns
                    .iter()
                    .map(|c| format!("{}: {} → {}", c.column, shown(&c.before), shown(&c.after)))
                    .collect();
                let text = format!("{}  {}", pairs(&table.key, key), columns.join("; "));
                (Became::Changed, printable(&text))
            }
        };
        out.line(format_args!("    {} {text}", mark(became)));
    }
    let more = all.saturating_sub(table.samples.len() as u64);
    if more > 0 && !table.sensitive {
        out.line(format_args!("    and {more} more"));
    }
    out.json("rows", rows);
}

fn show_not_compared(context: &Context, skipped: &NotCompared) {
    let NotCompared { source, object, reason } = skipped;
    context.output.line(format_args!(
        "? {source}: {}  (not compared: {})",
        printable(object),
        printable(reason)
    ));
    context.output.json("not_compared", skipped);
}

/// A value as COPY writes it.
fn shown(value: &str) -> &str {
    if value == "\\N" { "NULL" } else { value }
}

/// A text from a database on a terminal: nothing in it moves the cursor.
fn printable(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut line, c| {
        match c.is_control() {
            true => line.extend(c.escape_default()),
            false => line.push(c),
        }
        line
    })
}
