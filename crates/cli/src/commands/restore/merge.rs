//! Rows that were lost, from a table that was restored beside the living one.

use super::How;
use crate::{context::Context, render::count};
use mainstay_domain::Result;
use mainstay_sources::postgres::{
    facts::QualifiedName,
    merge::{self, Merged, Pair},
    restore::Selection,
    wire::ConnectSpec,
};

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum Merge {
    /// Rows whose primary key is not there are added
    Missing,
    /// And rows that are there get their old values back
    Upsert,
}

impl Merge {
    pub fn way(self) -> merge::How {
        match self {
            Merge::Missing => merge::How::Missing,
            Merge::Upsert => merge::How::Upsert,
        }
    }
}

/// Merges what was restored beside, if that was asked for.
pub fn run(how: &How, context: &Context, spec: &ConnectSpec, selection: &Selection) -> Result<()> {
    let Some(wanted) = how.database.merge else { return Ok(()) };
    let pairs: Vec<Pair> = selection.tables.iter().map(|live| pair(live, selection)).collect();
    let out = &context.output;
    for merged in merge::merge(spec, &pairs, wanted.way(), how.database.only_rows.as_deref())? {
        say(context, &merged);
    }
    for pair in &pairs {
        out.line(format_args!("  {} stays beside it until you drop it", pair.beside));
    }
    Ok(())
}

/// What was done to one table.
pub fn say(context: &Context, merged: &Merged) {
    let out = &context.output;
    out.line(format_args!("Put {} back into {}.", count(merged.rows, "row"), merged.table));
    if !merged.triggers.is_empty() && merged.rows > 0 {
        out.line(format_args!("  note: its triggers fired for each: {}", merged.triggers.join(", ")));
    }
    out.json("merged", merged);
}

pub fn pair(live: &QualifiedName, selection: &Selection) -> Pair {
    let beside = QualifiedName {
        schema: selection.schema_for(&live.schema),
        name: selection.to_table.clone().unwrap_or_else(|| live.name.clone()),
    };
    Pair { live: live.clone(), beside }
}
