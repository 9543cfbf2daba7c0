//! All sources of a recovery point: one plan, one question, one report. Each goes by the restore of its own kind.
//!
//! Nothing is begun unless every one of them can be. Once begun, one that fails does not keep the others back; and what the point
//! does not have is named, so that nobody takes the rest for the whole.

use super::{How, restore_source, with_hooks};
use crate::{
    commands::point::Chosen,
    context::Context,
    exit::{self, Exit},
    output,
    render::{confirm, count, failure, plain, point, table::Table, time},
};
use mainstay_domain::{
    ByteSize, Failure, Kind, Monitor, Result, Time,
    point::{SourceRecord, State},
};
use mainstay_operations::{access, config::Config, hooks::Around, points};
use mainstay_sources::postgres::facts::Facts;
use serde_json::json;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf, absolute},
};

/// One source, and where it goes.
struct Part {
    record: SourceRecord,
    how: How,
    into: String,
}

/// What became of it.
struct Done<'p> {
    part: &'p Part,
    result: Result<(), Kind>,
    took: i64,
}

pub fn run(how: &How, context: &Context, config: Option<&Config>, chosen: &Chosen) -> Result<Exit> {
    let given = how.files.to_dir.clone().unwrap_or_default();
    let base = absolute(&given)
        .map_err(|error| Failure::usage(format!("{} is no folder", given.display())).caused_by(error))?;
    let records = chosen.repository.manifest(&chosen.info.id)?.point.sources;
    let (empty, mut whole): (Vec<_>, Vec<_>) = records.into_iter().partition(holds_nothing);
    whole.sort_by_key(|record| rank(&record.kind));
    let parts = parts(how, &base, whole)?;
    let mut lacking: Vec<String> =
        empty.iter().map(|record| format!("{}: it could not be captured then", record.name)).collect();
    lacking.extend(left_out(config, chosen)?);

    show_parts(context, chosen, &base, &parts, &lacking);
    if parts.is_empty() {
        return Err(Failure::new(
            Kind::NoRepository,
            "this recovery point holds nothing that can be restored",
        )
        .hint("Take another one: --point latest-complete."));
    }
    let refused = plan(context, config, chosen, &parts)?;
    if how.dry_run {
        return Ok(if refused.is_empty() { Exit::Done } else { Exit::With(Kind::Preflight) });
    }
    if !refused.is_empty() {
        return Err(Failure::preflight(format!("this cannot be restored: {}", refused.join(", "))).hint(
            "Nothing was restored. Put that right, or restore the others one by one: --source NAME in place of --all.",
        ));
    }
    if fs::read_dir(&base).is_ok_and(|mut entries| entries.next().is_some()) {
        let what = format!("restore all of this into {}, which is not empty", base.display());
        confirm::typed(context, how.yes, &what, &chosen.info.summary.app)?;
    }
    let names = parts.iter().map(|part| part.record.name.as_str()).collect::<Vec<_>>().join(",");
    with_hooks(context, config, chosen, &names, |hooks| {
        hooks.begin(&context.progress)?;
        let done = carry_out(context, config, chosen, &parts);
        Ok(show_done(context, &parts, &done, &lacking))
    })
}

/// What the application starts with comes first: settings, then databases, then what is large or can wait.
fn rank(kind: &str) -> u8 {
    match kind {
        "config" => 0,
        "postgres" | "cluster" => 1,
        "redis" => 2,
        "files" => 3,
        _ => 4,
    }
}

fn holds_nothing(record: &SourceRecord) -> bool {
    record.state == State::Failed && record.streams.is_empty()
}

/// Where each source goes, said as its own restore would be told.
fn parts(how: &How, base: &Path, records: Vec<SourceRecord>) -> Result<Vec<Part>> {
    let databases = records.iter().filter(|record| record.kind == "postgres").count();
    if databases != 1 && how.database.to_database.is_some() {
        return Err(Failure::usage(format!(
            "--to-database names one database, and the point has {databases}"
        ))
        .hint("Leave it out: each is restored as <its name>_restored."));
    }
    let mut names = BTreeSet::new();
    let part = |record: SourceRecord| {
        let mut own = How { all: false, source: Some(record.name.clone()), yes: true, ..how.clone() };
        let into = if record.kind == "postgres" {
            let name = match &how.database.to_database {
                Some(name) => name.clone(),
                None => beside(&record)?,
            };
            if !names.insert(name.clone()) {
                return Err(Failure::usage(format!("two databases of the point would become {name}"))
                    .hint("Restore them one by one: --source NAME --to-database NAME."));
            }
            own.files.to_dir = None;
            own.database.to_database = Some(name.clone());
            format!("database {name}")
        } else {
            let folder: PathBuf = base.join(&record.name);
            own.database.to_database = None;
            own.database.to_url_env = None;
            let shown = folder.display().to_string();
            own.files.to_dir = Some(folder);
            shown
        };
        Ok(Part { record, how: own, into })
    };
    records.into_iter().map(part).collect()
}

/// The name of a database beside its original.
fn beside(record: &SourceRecord) -> Result<String> {
    let facts = Facts::from_json(&record.facts)
        .map_err(|error| Failure::from(error).during(format_args!("source {}", record.name)))?;
    Ok(format!("{}_restored", facts.inventory.database.name))
}

/// Sources of the application that this point does not have: a policy may capture only some.
fn left_out(config: Option<&Config>, chosen: &Chosen) -> Result<Vec<String>> {
    let app = &chosen.info.summary.app;
    let Some(config) = config else { return Ok(Vec::new()) };
    let has = |source: &String| chosen.info.summary.sources.iter().any(|s| s.name == *source);
    let mut said = Vec::new();
    for source in access::app_of(config, app)?.sources.keys().filter(|source| !has(source)) {
        let newest = points::newest_with_source(&chosen.repository, app, source)?;
        said.push(match newest {
            Some(other) => {
                format!("{source}: not in this point; the newest that has it is {}", other.id.short())
            }
            None => format!("{source}: in no recovery point"),
        });
    }
    Ok(said)
}

fn show_parts(context: &Context, chosen: &Chosen, base: &Path, parts: &[Part], lacking: &[String]) {
    let out = &context.output;
    out.line(format_args!(
        "Restore all of {} as of {} (point {}), below {}\n",
        chosen.info.summary.app,
        time::local(chosen.info.summary.finished),
        chosen.info.id.short(),
        base.display()
    ));
    let mut table = Table::new(&["SOURCE", "KIND", "STATE", ">SIZE", "INTO"]);
    for part in parts {
        let record = &part.record;
        table.row([
            plain(&record.name),
            plain(&record.kind),
            point::state(record.state),
            ByteSize(record.bytes).to_string(),
            part.into.clone(),
        ]);
    }
    out.line(table.render());
    lacking.iter().for_each(|what| out.line(format_args!("  not included: {}", plain(what))));
    out.line("");
    out.json(
        "all_plan",
        &json!({
            "point": chosen.info.id, "not_included": lacking,
            "sources": parts.iter().map(|part| json!({
                "source": part.record.name, "kind": part.record.kind, "state": part.record.state, "bytes": part.record.bytes,
                "into": part.into,
            })).collect::<Vec<_>>(),
        }),
    );
}

/// Shows the plan of each; returns which cannot be done.
fn plan<'p>(
    context: &Context,
    config: Option<&Config>,
    chosen: &Chosen,
    parts: &'p [Part],
) -> Result<Vec<&'p str>> {
    let mut refused = Vec::new();
    for part in parts {
        let looked = How { dry_run: true, ..part.how.clone() };
        let name = part.record.name.as_str();
        let hooks = Around::within(&chosen.info.summary.app, name, &|| {});
        match restore_source(&looked, context, &hooks, config, chosen, name) {
            Ok(Exit::Done) => {}
            Ok(_) => refused.push(name),
            Err(failure) if failure.kind == Kind::Cancelled => return Err(failure),
            Err(failure) => {
                output::note(failure::text(&failure.during(name)));
                refused.push(name);
            }
        }
        context.progress.finish();
    }
    Ok(refused)
}

/// One after the other; after a Ctrl-C no further one is begun.
fn carry_out<'p>(
    context: &Context,
    config: Option<&Config>,
    chosen: &Chosen,
    parts: &'p [Part],
) -> Vec<Done<'p>> {
    let mut done = Vec::new();
    for part in parts {
        let begun = context.clock().now();
        let result = match context.progress.cancelled() {
            true => Err(Kind::Cancelled),
            false => carry_out_one(context, config, chosen, part),
        };
        done.push(Done { part, result, took: since(context, begun) });
    }
    done
}

fn since(context: &Context, begun: Time) -> i64 {
    context.clock().now().since(begun)
}

fn carry_out_one(
    context: &Context,
    config: Option<&Config>,
    chosen: &Chosen,
    part: &Part,
) -> Result<(), Kind> {
    let out = &context.output;
    let name = part.record.name.as_str();
    let speak = || {
        out.hush(false);
        out.line(format_args!("{}:", plain(name)));
    };
    let hooks = Around::within(&chosen.info.summary.app, name, &speak);
    // Its plan was shown.
    out.hush(true);
    let outcome = restore_source(&part.how, context, &hooks, config, chosen, name);
    out.hush(false);
    context.progress.finish();
    match outcome {
        // What the point lacks of it did not come back.
        Ok(Exit::Done) if part.record.state != State::Complete => Err(Kind::Incomplete),
        Ok(Exit::Done | Exit::Code(0)) => Ok(()),
        Ok(Exit::With(kind)) => Err(kind),
        Ok(Exit::Code(_)) => Err(Kind::Failed),
        Err(failure) => {
            let kind = failure.kind;
            output::note(failure::text(&failure.during(name)));
            Err(kind)
        }
    }
}

fn show_done(context: &Context, parts: &[Part], done: &[Done<'_>], lacking: &[String]) -> Exit {
    let out = &context.output;
    let mut table = Table::new(&["SOURCE", "RESULT", ">TOOK", "INTO"]);
    for Done { part, result, took } in done {
        let result = result.err().map_or("restored", exit::name);
        table.row([plain(&part.record.name), result.to_owned(), time::length(*took), part.into.clone()]);
        out.json(
            "all_restored",
            &json!({
                "source": part.record.name, "into": part.into, "result": result, "milliseconds": took / 1_000_000,
            }),
        );
    }
    out.line(format_args!("\n{}\n", table.render()));
    lacking.iter().for_each(|what| out.line(format_args!("  not included: {}", plain(what))));
    let well = done.iter().filter(|one| one.result.is_ok()).count();
    match worst(done.iter().filter_map(|one| one.result.err()), lacking) {
        None => {
            out.line(format_args!("Restored {}: all there is.", count(parts.len() as u64, "source")));
            Exit::Done
        }
        Some(kind) => {
            let all = count((parts.len() + lacking.len()) as u64, "source");
            out.line(format_args!("Restored {well} of {all} whole. The others are named above."));
            Exit::With(kind)
        }
    }
}

/// The kind that the whole ends with. What the user stopped says most, then what came back other than it was, what did not come back,
/// what came back in part.
fn worst(kinds: impl Iterator<Item = Kind>, lacking: &[String]) -> Option<Kind> {
    let weight = |kind: &Kind| match kind {
        Kind::Cancelled => 4,
        Kind::Incomplete => 1,
        Kind::Verification => 3,
        _ => 2,
    };
    let lacks = (!lacking.is_empty()).then_some(Kind::Incomplete);
    // Others were restored: that nothing was done is true of the one source only.
    let kinds = kinds.map(|kind| match kind {
        Kind::Preflight | Kind::Usage => Kind::Failed,
        kind => kind,
    });
    // The first of the worst.
    kinds.chain(lacks).fold(None, |worst: Option<Kind>, kind| match worst {
        Some(so_far) if weight(&so_far) >= weight(&kind) => Some(so_far),
        _ => Some(kind),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_of_all_sources_is_what_the_restore_ends_with() {
        let none: [String; 0] = [];
        let of = |kinds: &[Kind]| worst(kinds.iter().copied(), &none);
        assert_eq!(of(&[]), None);
        assert_eq!(
            worst([].into_iter(), &["uploads: in no recovery point".to_owned()]),
            Some(Kind::Incomplete)
        );
        assert_eq!(
            of(&[Kind::Incomplete, Kind::Preflight, Kind::Busy]),
            Some(Kind::Failed),
            "it is not true of all"
        );
        assert_eq!(of(&[Kind::Failed, Kind::Verification, Kind::Incomplete]), Some(Kind::Verification));
        assert_eq!(of(&[Kind::Verification, Kind::Cancelled]), Some(Kind::Cancelled));
    }
}
