//! Restoring files.

use super::{How, heading, lacking};
use crate::{
    commands::point::Chosen,
    context::Context,
    exit::Exit,
    render::{confirm, count},
};
use mainstay_domain::{ByteSize, Failure, Kind, Result, point::State};
use mainstay_operations::hooks::Around;
use mainstay_operations::restore;
use mainstay_sources::{
    files::{RestoreOptions, RestorePlan, RestoreReport},
    postgres::cluster::stopped,
};
use std::path::absolute;

pub fn run(how: &How, context: &Context, hooks: &Around<'_>, chosen: &Chosen, source: &str) -> Result<Exit> {
    let destination = how.files.to_dir.clone().unwrap_or_default();
    let destination = absolute(&destination).map_err(|error| {
        Failure::usage(format!("{} is no folder", destination.display())).caused_by(error)
    })?;
    let options = RestoreOptions {
        destination,
        paths: how.files.path.clone(),
        delete: how.files.delete,
        check_content: how.files.check_content,
        sync: true,
        deleted: how.files.deleted,
        ..RestoreOptions::default()
    };
    let opened = restore::open(&chosen.repository, &chosen.info, source)?;
    let plan =
        lacking::plan(context, &opened, how.dry_run, || opened.plan_files(&options, &context.progress))?;
    heading(context, chosen, source, &options.destination.display().to_string());
    let is_lacking = lacking::show(context, &opened, how.dry_run)?;
    show_plan(context, &plan);
    if how.dry_run {
        return Ok(match plan.obstacles.is_empty() {
            true => lacking::exit(is_lacking),
            false => Exit::With(Kind::Preflight),
        });
    }
    refuse(&plan)?;
    // A stopped cluster's safety copy goes back as files: never under a server that runs.
    if options.destination.join("PG_VERSION").is_file() {
        stopped::refuse_running(&options.destination)?;
    }
    if plan.replace > 0 || plan.removal_count > 0 || plan.conflict_count > 0 {
        let what = format!("overwrite or remove what is in {}", options.destination.display());
        confirm::typed(context, how.yes, &what, "overwrite")?;
    }
    hooks.begin(&context.progress)?;
    let report = opened.restore_files(&options, &context.progress)?;
    context.progress.finish();
    show_report(context, &report);
    Ok(if report.state == State::Complete { Exit::Done } else { Exit::With(Kind::Incomplete) })
}

fn refuse(plan: &RestorePlan) -> Result<()> {
    match plan.obstacles.as_slice() {
        [] => Ok(()),
        obstacles => Err(Failure::preflight(obstacles.join("; "))
            .hint("Nothing was restored. Put that right, or choose another folder: --to-dir FOLDER.")),
    }
}

fn show_plan(context: &Context, plan: &RestorePlan) {
    let out = &context.output;
    let folders = count(plan.directories, "folder");
    out.line(format_args!("  to create     {} (links included), {folders}", count(plan.create, "file")));
    out.line(format_args!("  to overwrite  {}", plan.replace));
    out.line(format_args!("  right already {}", plan.keep));
    out.line(format_args!("  to remove     {}", plan.removal_count));
    out.line(format_args!("  to write      {} ({} free)", ByteSize(plan.bytes), ByteSize(plan.free_bytes)));
    for (mark, names, all) in [
        ("overwrite", &plan.replaced, plan.replace),
        ("remove", &plan.removals, plan.removal_count),
        ("in the way", &plan.conflicts, plan.conflict_count),
    ] {
        for name in names.iter().take(10) {
            out.line(format_args!("  {mark}: {name}"));
        }
        if all > 10 {
            out.line(format_args!("  {mark}: and {} more", all - 10));
        }
    }
    for obstacle in &plan.obstacles {
        out.line(format_args!("  cannot be done: {obstacle}"));
    }
    for notice in &plan.notices {
        out.line(format_args!("  note: {notice}"));
    }
    out.line("");
    out.json("plan", plan);
}

fn show_report(context: &Context, report: &RestoreReport) {
    let out = &context.output;
    let RestoreReport { files, directories, kept, removed, .. } = report;
    out.line(format_args!(
        "Restored {} ({}) and {}; {kept} right already, {removed} removed.",
        count(*files, "file"),
        ByteSize(report.bytes),
        count(*directories, "folder")
    ));
    for problem in &report.problems {
        out.line(format_args!("  not restored: {}: {}", problem.object, problem.message));
    }
    for notice in &report.notices {
        out.line(format_args!("  note: {notice}"));
    }
    out.json(
        "restored",
        &serde_json::json!({
            "state": report.state, "files": files, "directories": directories, "bytes": report.bytes, "kept": kept,
            "symlinks": report.symlinks, "hard_links": report.hard_links, "specials": report.specials,
            "removed": removed, "failed": report.failed, "problems": report.problems, "notices": report.notices,
        }),
    );
}
