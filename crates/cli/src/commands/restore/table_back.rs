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
use mainstay_domain::{Failure, Result};
use mainstay_operations::hooks::Around;
use mainstay_operations::{config::Config, pitr::start, restore, staging, table_back};
use mainstay_sources::postgres::restore::{Options, Selection, Target};

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
    let (report, comparison) = taken.put(&target, &options, row_key, &context.progress)?;
    context.progress.finish();
    show_report(context, &report);
    show_comparison(context, &comparison);
    let living = spec.with_database(&database);
    database::conclude(how, context, app, &living, &selection, report.state, Some(comparison.verdict()))
}
