//! Restoring a configuration: its files as any files, and its tables as files of JSON lines beside them.

use super::{How, files};
use crate::{commands::point::Chosen, context::Context, exit::Exit, render::count};
use mainstay_domain::{ByteSize, Failure, Result};
use mainstay_operations::restore;
use mainstay_sources::files::LISTING;
use std::path::absolute;

pub fn run(how: &How, context: &Context, chosen: &Chosen, source: &str) -> Result<Exit> {
    let opened = restore::open(&chosen.repository, &chosen.info, source)?;
    let folder = how.files.to_dir.clone().unwrap_or_default();
    let destination = absolute(&folder)
        .map_err(|error| Failure::usage(format!("{} is no folder", folder.display())).caused_by(error))?;
    // A restore of chosen files asks for no tables.
    let wanted = how.files.path.is_empty();
    let tables = if wanted { opened.plan_tables(&destination)? } else { Vec::new() };
    let exit = match opened.record.stream(LISTING) {
        Some(_) => files::run(how, context, chosen, source)?,
        None => Exit::Done,
    };
    let out = &context.output;
    for (name, path) in &tables {
        let word = if how.dry_run { "to write" } else { "table" };
        out.line(format_args!("  {word}: {name} to {}", path.display()));
        out.json("table", &serde_json::json!({ "table": name, "path": path }));
    }
    if how.dry_run || tables.is_empty() {
        return Ok(exit);
    }
    let bytes = opened.restore_tables(&destination)?;
    out.line(format_args!("Restored {} ({}).", count(tables.len() as u64, "table"), ByteSize(bytes)));
    Ok(exit)
}
