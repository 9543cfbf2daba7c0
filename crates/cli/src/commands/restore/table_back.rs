//! Taking tables back to a moment, out of a whole cluster.

use super::{
    How, cluster, connect_spec,
    database::{self, qualified, show_comparison, show_masked, show_plan, show_report},
};
use crate::{
    commands::point::Chosen,
    context::Context,
    exit::Exit,
    render::{confirm, time},
};
use mainstay_domain::{Failure, Kind, Result};
use mainstay_operations::hooks::Around;
use mainstay_operations::{config::Config, pitr::start, restore, staging, table_back};
use mainstay_sources::postgres::{
    merge,
    restore::{Options, Selection, Target},
    swap,
    wire::ConnectSpec,
};

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
    let app = &chosen.info.summary.app;
    if wanted.table.is_empty() {
        return Err(Failure::usage("it is not said which tables of the cluster shall be taken back")
            .hint("Name them: --table public.orders. A whole cluster goes into a folder: --to-dir."));
    }
    if !how.cluster.target_given() {
        return Err(
            Failure::usage("it is not said to which moment").hint("Add --at TIME, --lsn, --xid or --name.")
        );
    }
    let mask = wanted.mask.as_deref().map(|name| staging::mask_named(config, app, name)).transpose()?;
    let resolved = cluster::resolve(how, chosen, source)?;
    let opened = restore::open(&chosen.repository, &resolved.base, source)?;
    let spec = connect_spec(how, config, app, source)?;
    let now = context.clock().now();
    let beside = wanted.to_table.is_none() && wanted.to_schema.is_none();
    let selection = Selection {
        tables: wanted.table.iter().map(|name| qualified(name)).collect(),
        // Never into the place of what lives.
        to_schema: beside
            .then(|| format!("mainstay_{}", time::compact(now)))
            .or_else(|| wanted.to_schema.clone()),
        to_table: wanted.to_table.clone(),
        ..Selection::default()
    };
    let options = Options {
        jobs: usize::from(wanted.jobs),
        selection: selection.clone(),
        owners: !wanted.no_owners,
        privileges: !wanted.no_privileges,
        roles: false,
        other_locale: true,
        ..Options::default()
    };
    let target =
        Target { server: spec.with_database("postgres"), database: database.clone(), into_existing: true };

    cluster::heading_to(context, &resolved, source, &format!("the database {database}"));
    cluster::show_resolved(context, &resolved);
    let living = spec.with_database(&database);
    look_at_living(how, context, &living, &selection)?;
    if how.dry_run {
        return Ok(Exit::Done);
    }
    let folder = table_back::folder(&context.progress)?;
    let bin_dir = start::bin_dir(config, &chosen.info, source);
    let recovered =
        table_back::recover(&opened, &resolved, bin_dir.as_deref(), folder.path(), &context.progress)?;
    let row_key = chosen.repository.keyring().current().row_key();
    let from = wanted.source_database.as_deref().unwrap_or(&database);
    if let Some(mask) = &mask {
        let masked = recovered.mask(from, &selection.tables, mask, &context.progress)?;
        context.progress.finish();
        show_masked(context, &masked);
    }
    let taken = recovered.take(from, &selection.tables, row_key, &*context.clock(), &context.progress)?;
    let plan = taken.plan(&target, &options)?;
    context.progress.finish();
    show_plan(context, &plan);
    plan.refuse()?;
    confirm::typed(context, how.yes, &format!("add this to the database {database}"), &database)?;
    hooks.begin(&context.progress)?;
    let put = taken.put(&target, &options, row_key, &context.progress);
    context.progress.finish();
    let own_schema = selection.to_schema.as_deref().filter(|_| beside);
    let put = put.and_then(|(report, comparison)| {
        if let Some(schema) = own_schema {
            swap::mark_beside(&living, schema)?;
        }
        show_report(context, &report);
        show_comparison(context, &comparison);
        database::conclude(how, context, app, &living, &selection, report.state, Some(comparison.verdict()))
    });
    let Some(schema) = own_schema else { return put };
    let let_go =
        format!("mainstay restore {app} --source {source} --to-database {database} --drop-old {schema}");
    match put {
        // What a swap has exchanged does not lie there any more.
        Ok(exit) => {
            if !how.database.swap {
                context
                    .output
                    .line(format_args!("When the schema {schema} is not needed any more: {let_go}"));
            }
            Ok(exit)
        }
        Err(failure) => {
            // Best effort: without the mark it is dropped by hand.
            let _ = swap::mark_beside(&living, schema);
            let hint = failure.hint.clone().map(|hint| format!("{hint} ")).unwrap_or_default();
            Err(failure
                .hint(format!("{hint}What was restored lies in the schema {schema}; to drop it: {let_go}")))
        }
    }
}

/// What stands against putting rows into the living tables is said before hours of recovery, and not after them.
fn look_at_living(how: &How, context: &Context, living: &ConnectSpec, selection: &Selection) -> Result<()> {
    let wanted = &how.database;
    let merging = wanted.merge.is_some();
    let condition = wanted.only_rows.as_deref();
    let missing = match merge::refuse_early(living, &selection.tables, merging, condition) {
        Err(failure) if how.dry_run && failure.kind != Kind::Usage => {
            let text = format!("  not looked at  the living tables: {failure}");
            context.output.line(text);
            return Ok(());
        }
        looked => looked?,
    };
    let names: Vec<String> = missing.iter().map(ToString::to_string).collect();
    match (names.is_empty(), merging || wanted.swap) {
        (true, _) => Ok(()),
        (false, true) => Err(Failure::usage(format!(
            "{} is not in the database {}: there is nothing to merge with, or to swap",
            names.join(", "),
            living.database
        ))
        .hint("Leave --merge and --swap out: then it is restored beside what lives. Or look at its name.")),
        (false, false) => {
            context.output.line(format_args!(
                "  not there now {}: it is looked for in the recovered cluster",
                names.join(", ")
            ));
            Ok(())
        }
    }
}
