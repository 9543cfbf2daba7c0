//! Restoring what a command wrote: into a file, or into the input of another command.

use super::{How, heading, lacking};
use crate::{
    commands::point::Chosen,
    context::Context,
    exit::Exit,
    render::{confirm, plain},
};
use mainstay_domain::{ByteSize, Failure, Result};
use mainstay_operations::hooks::Around;
use mainstay_operations::restore;
use std::path::absolute;

pub fn run(how: &How, context: &Context, hooks: &Around<'_>, chosen: &Chosen, source: &str) -> Result<Exit> {
    let opened = restore::open(&chosen.repository, &chosen.info, source)?;
    let size = ByteSize(opened.record.bytes);
    let out = &context.output;
    if let Some(command) = &how.files.to_command {
        heading(context, chosen, source, &format!("the input of: {}", plain(command)));
        let is_lacking = lacking::show(context, &opened, how.dry_run)?;
        out.line(format_args!("  to give       {size}\n"));
        out.json("plan", &serde_json::json!({ "command": command, "bytes": opened.record.bytes }));
        if how.dry_run {
            return Ok(lacking::exit(is_lacking));
        }
        confirm::typed(context, how.yes, "give it to this command", "run")?;
        hooks.begin(&context.progress)?;
        let bytes = opened.feed_output(command)?;
        context.progress.finish();
        out.line(format_args!("Gave it {}; it ended well.", ByteSize(bytes)));
        out.json("restored", &serde_json::json!({ "bytes": bytes }));
        return Ok(Exit::Done);
    }
    let folder = how.files.to_dir.clone().unwrap_or_default();
    let destination = absolute(&folder)
        .map_err(|error| Failure::usage(format!("{} is no folder", folder.display())).caused_by(error))?;
    let path = opened.plan_output(&destination)?;
    heading(context, chosen, source, &destination.display().to_string());
    let is_lacking = lacking::show(context, &opened, how.dry_run)?;
    out.line(format_args!("  to write      {} ({size})\n", path.display()));
    out.json("plan", &serde_json::json!({ "path": path, "bytes": opened.record.bytes }));
    if how.dry_run {
        return Ok(lacking::exit(is_lacking));
    }
    hooks.begin(&context.progress)?;
    let bytes = opened.restore_output(&destination)?;
    context.progress.finish();
    out.line(format_args!("Restored {} ({}).", path.display(), ByteSize(bytes)));
    out.json("restored", &serde_json::json!({ "path": path, "bytes": bytes }));
    Ok(Exit::Done)
}
