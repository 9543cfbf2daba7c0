//! Restoring a database, or some of its tables, and comparing what came back.

use super::{How, connect_spec, heading, lacking, merge, swap};
use crate::{
    commands::point::Chosen,
    context::Context,
    exit::Exit,
    render::{confirm, count, table::Table, time},
};
use mainstay_domain::{ByteSize, Kind, Result, Severity, point::State};
use mainstay_operations::hooks::Around;
use mainstay_operations::{config::Config, restore, staging};
use mainstay_sources::postgres::{
    compare::{Comparison, Verdict},
    facts::QualifiedName,
    mask::Masked,
    restore::{Options, Plan, Report, Selection, Target},
    wire::ConnectSpec,
};
use serde_json::json;

pub fn run(
    how: &How,
    context: &Context,
    hooks: &Around<'_>,
    config: Option<&Config>,
    chosen: &Chosen,
    source: &str,
) -> Result<Exit> {
    let wanted = &how.database;
    let database = wanted.to_database.clone().unwrap_or_default();
    let spec = connect_spec(how, config, &chosen.info.summary.app, source)?;
    let target = Target {
        server: spec.with_database("postgres"),
        database: database.clone(),
        into_existing: wanted.into_existing,
    };
    let options = Options {
        jobs: usize::from(wanted.jobs),
        selection: Selection {
            schemas: wanted.schema.clone(),
            tables: wanted.table.iter().map(|name| qualified(name)).collect(),
            to_schema: wanted.to_schema.clone().or_else(|| {
                // Never into the place of what lives.
                let aside = wanted.swap || (wanted.merge.is_some() && wanted.to_table.is_none());
                aside.then(|| format!("mainstay_{}", time::compact(context.clock().now())))
            }),
            to_table: wanted.to_table.clone(),
            ..Selection::default()
        },
        owners: !wanted.no_owners,
        privileges: !wanted.no_privileges,
        other_locale: wanted.other_locale,
        ..Options::default()
    };
    let opened = restore::open(&chosen.repository, &chosen.info, source)?;
    let mask = wanted.mask.as_deref().map(|name| staging::mask_of(config, &opened, name)).transpose()?;
    let plan = lacking::plan(context, &opened, how.dry_run, || opened.plan_database(&target, &options))?;
    heading(context, chosen, source, &format!("the database {database}"));
    let is_lacking = lacking::show(context, &opened, how.dry_run)?;
    show_plan(context, &plan);
    if how.dry_run {
        return Ok(match plan.refusals.is_empty() {
            true => lacking::exit(is_lacking),
            false => Exit::With(Kind::Preflight),
        });
    }
    plan.refuse()?;
    if wanted.into_existing {
        confirm::typed(context, how.yes, &format!("add this to the database {database}"), &database)?;
    }
    hooks.begin(&context.progress)?;
    if let Some(mask) = &mask {
        let key = chosen.repository.keyring().current().row_key();
        let copy =
            staging::copy(&opened, &target, &options, mask, key, &*context.clock(), &context.progress)?;
        context.progress.finish();
        show_report(context, &copy.report);
        show_comparison(context, &copy.comparison);
        show_masked(context, &copy.masked);
        context.output.line(format_args!("Then masked, and named {database}."));
        return Ok(Exit::Done);
    }
    let row_key = (!wanted.no_compare).then(|| chosen.repository.keyring().current().row_key());
    let (report, comparison) = opened.restore_database(&target, &options, row_key, &context.progress)?;
    context.progress.finish();
    show_report(context, &report);
    if let Some(comparison) = &comparison {
        show_comparison(context, comparison);
    }
    let living = spec.with_database(&database);
    let verdict = comparison.map(|comparison| comparison.verdict());
    conclude(how, context, &chosen.info.summary.app, &living, &options.selection, report.state, verdict)
}

/// What follows when tables lie beside the living ones and were compared: rows put back, or places changed.
pub fn conclude(
    how: &How,
    context: &Context,
    app: &str,
    living: &ConnectSpec,
    selection: &Selection,
    state: State,
    verdict: Option<Verdict>,
) -> Result<Exit> {
    match (state, verdict) {
        (_, Some(Verdict::Different)) => return Ok(Exit::With(Kind::Verification)),
        (State::Complete, _) => {}
        _ => return Ok(Exit::With(Kind::Incomplete)),
    }
    // Taken back to a moment, they are counted against the living ones in any case.
    if how.cluster.is_wanted() || how.database.merge.is_some() || how.database.swap {
        swap::show_counts(context, living, selection)?;
    }
    merge::run(how, context, living, selection)?;
    swap::run(how, context, app, living, selection)?;
    Ok(Exit::Done)
}

pub fn show_masked(context: &Context, masked: &[Masked]) {
    let out = &context.output;
    for table in masked {
        out.line(format_args!(
            "  masked: {} of {} ({})",
            table.columns.join(", "),
            table.table,
            count(table.rows, "row")
        ));
        out.json("masked", table);
    }
}

/// `schema.name`; without a dot the schema is `public`. A name in double quotes may hold a dot.
pub fn qualified(text: &str) -> QualifiedName {
    let mut parts = vec![String::new()];
    let mut quoted = false;
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            '.' if !quoted && parts.len() == 1 => parts.push(String::new()),
            c => parts.iter_mut().last().into_iter().for_each(|part| part.push(c)),
        }
    }
    let name = parts.pop().unwrap_or_default();
    QualifiedName { schema: parts.pop().unwrap_or_else(|| "public".to_owned()), name }
}

/// The plan of a restore into a database.
pub fn show_plan(context: &Context, plan: &Plan) {
    let out = &context.output;
    let made = if plan.creates_database { "made anew" } else { "there already; what lives in it stays" };
    out.line(format_args!("  database      {}, {made}", plan.database));
    out.line(format_args!(
        "  server        PostgreSQL {} (captured from {})",
        plan.server_version, plan.recorded_version
    ));
    out.line(format_args!(
        "  to load       {} tables, {} rows, {}, {} large objects",
        plan.tables.len(),
        plan.rows,
        ByteSize(plan.bytes),
        plan.large_objects
    ));
    for (name, list) in
        [("roles to make", &plan.missing_roles), ("extensions missing", &plan.missing_extensions)]
    {
        if !list.is_empty() {
            out.line(format_args!("  {name}: {}", list.join(", ")));
        }
    }
    let mut table = Table::new(&["  LARGEST TABLES", ">ROWS", ">SIZE"]);
    for planned in plan.tables.iter().take(5) {
        let name = match planned.from == planned.into {
            true => format!("  {}", planned.from),
            false => format!("  {} as {}", planned.from, planned.into),
        };
        table.row([name, planned.rows.to_string(), ByteSize(planned.bytes).to_string()]);
    }
    if !table.is_empty() {
        out.line(format_args!("\n{}", table.render()));
    }
    for notice in &plan.notices {
        out.line(format_args!("  note: {notice}"));
    }
    for refusal in &plan.refusals {
        out.line(format_args!("  cannot be done: {}. {}", refusal.message, refusal.hint));
    }
    out.line("");
    out.json("plan", plan);
}

/// What was restored, and what was not.
pub fn show_report(context: &Context, report: &Report) {
    let out = &context.output;
    out.line(format_args!(
        "Restored {} tables with {} rows ({}) and {} large objects into {}.",
        report.tables,
        report.rows,
        ByteSize(report.bytes),
        report.large_objects,
        report.database
    ));
    let (with, without): (Vec<&str>, Vec<&str>) = report
        .roles_created
        .iter()
        .map(String::as_str)
        .partition(|role| report.roles_with_password.iter().any(|with| with == role));
    for (how, roles) in [("with the passwords that they had", with), ("without passwords", without)] {
        if !roles.is_empty() {
            out.line(format_args!("  roles made ({how}): {}", roles.join(", ")));
        }
    }
    for constraint in &report.not_valid {
        out.line(format_args!("  left NOT VALID: {constraint}"));
    }
    for problem in report.problems.iter().filter(|p| p.severity > Severity::Info) {
        out.line(format_args!("  problem: {}: {}", problem.object, problem.message));
    }
    out.json("restored", report);
}

/// What the comparison found, in the words that every command uses for it.
pub fn show_comparison(context: &Context, comparison: &Comparison) {
    let out = &context.output;
    let verdict = match comparison.verdict() {
        Verdict::Equal => "Equal to what was captured",
        Verdict::EqualWhereCompared => "Equal where it could be compared",
        Verdict::Different => "DIFFERENT from what was captured",
    };
    let objects: u64 = comparison.objects.values().sum();
    out.line(format_args!(
        "{verdict}: {} rows of {} tables by digest, {objects} definitions, {} sequences, {} large objects.",
        comparison.rows, comparison.tables, comparison.sequences, comparison.large_objects
    ));
    for difference in &comparison.differences {
        out.line(format_args!("  {difference}"));
    }
    if comparison.further > 0 {
        out.line(format_args!("  and {} more", comparison.further));
    }
    for skipped in &comparison.not_compared {
        out.line(format_args!("  not compared: {}: {}", skipped.object, skipped.reason));
    }
    for note in &comparison.notes {
        out.line(format_args!("  note: {note}"));
    }
    out.json("compared", &json!({ "verdict": comparison.verdict(), "comparison": comparison }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_named_as_people_write_them() {
        for (text, schema, name) in [
            ("orders", "public", "orders"),
            ("shop.orders", "shop", "orders"),
            ("shop.\"a.b\"", "shop", "a.b"),
            ("\"My Shop\".orders", "My Shop", "orders"),
        ] {
            assert_eq!(qualified(text), QualifiedName { schema: schema.into(), name: name.into() }, "{text}");
        }
    }
}
