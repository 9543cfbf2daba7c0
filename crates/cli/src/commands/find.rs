//! `mainstay find`: where a file is, in which recovery points, deleted ones too.

use crate::{
    context::Context,
    exit::Exit,
    render::{entry, time},
};
use mainstay_domain::{Failure, Kind, Result};
use mainstay_operations::{access, points, restore};
use mainstay_sources::files::{self, DELETED, show_path};
use serde_json::json;
use std::ffi::OsString;

/// Find files by name or pattern
///
/// Looks in the latest recovery point, or with --all in every one, newest first.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The application, as the configuration names it
    app: String,
    /// A part of the path; or a pattern, for names ('*.pdf') or, with a slash, for whole paths ('letters/**/*.pdf')
    pattern: OsString,
    /// Only in this recovery point: latest, latest-complete, the beginning of an id, or a time
    #[arg(long, short, conflicts_with = "all")]
    point: Option<String>,
    /// Only in this source
    #[arg(long, short)]
    source: Option<String>,
    /// Look in every recovery point
    #[arg(long)]
    all: bool,
    /// Look among deleted files that are still kept (keep_deleted)
    #[arg(long)]
    deleted: bool,
}

pub fn run(args: Args, context: &Context) -> Result<Exit> {
    let config = context.config()?;
    let repository = access::open(&config, &access::repository_of(&config, &args.app)?, context.clock())?;
    super::point::warn_of_damage(&repository)?;
    let chosen = if args.all {
        let mut all = points::list(&repository, Some(&args.app))?;
        all.reverse();
        all
    } else {
        vec![points::find(&repository, &args.app, args.point.as_deref().unwrap_or("latest"))?]
    };
    let mut found = 0;
    for info in &chosen {
        let of_files = info.summary.sources.iter().filter(|source| source.kind == files::KIND);
        for source in of_files.filter(|source| args.source.as_ref().is_none_or(|name| *name == source.name)) {
            let opened = restore::open(&repository, info, &source.name)?;
            if args.deleted && opened.record.stream(DELETED).is_none() {
                continue;
            }
            for listed in files::find(&opened.reader, &opened.record, &args.pattern, args.deleted)? {
                let listed = listed?;
                let gone =
                    listed.entry.deleted.map(|at| format!("  (deleted before {})", time::local_short(at)));
                context.output.line(format_args!(
                    "{}  {}{}",
                    info.id.short(),
                    entry::line(&listed.entry, &show_path(&listed.path)),
                    gone.unwrap_or_default()
                ));
                context
                    .output
                    .json("found", &json!({ "point": info.id, "entry": entry::json(&source.name, &listed) }));
                found += 1;
            }
        }
    }
    if found == 0 {
        let hint = match (args.all, args.deleted) {
            (false, false) => {
                "Look in every recovery point with --all, or among deleted files with --deleted."
            }
            _ => "Try a shorter part of its name.",
        };
        return Err(Failure::new(
            Kind::Failed,
            format!("nothing matches \"{}\"", files::show_typed(&args.pattern)),
        )
        .hint(hint));
    }
    Ok(Exit::Done)
}
