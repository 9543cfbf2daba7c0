//! `mainstay restore --mask`: a copy of a database for those who must not see what is in the original.
//!
//! It is restored and compared under a name that nobody is told, masked there, and gets its own name only then. If anything goes
//! wrong before that, it is dropped: a copy that is masked by halves is none. If it is killed, what it leaves is marked as not
//! finished until it has its own name.

use crate::{config::Config, restore::Opened};
use mainstay_domain::{Clock, Failure, Kind, Monitor, Result, point::State};
use mainstay_sources::postgres::{
    compare::{Comparison, Verdict},
    facts::Facts,
    mask::{self, Mask, Masked},
    restore::{Options, Report, Target},
};

/// What was made.
pub struct Copy {
    pub report: Report,
    pub comparison: Comparison,
    pub masked: Vec<Masked>,
}

/// The mask of this name, for what was captured.
///
/// # Errors
/// `Usage`: there is none. `Refused`: it names what is not there.
pub fn mask_of(config: Option<&Config>, opened: &Opened<'_>, name: &str) -> Result<Mask> {
    let mask = mask_named(config, &opened.point.summary.app, name)?;
    mask.fits(&Facts::from_json(&opened.record.facts)?)?;
    Ok(mask)
}

/// The mask of this name, for what is looked at only when it is restored.
///
/// # Errors
/// `Usage`: there is none.
pub fn mask_named(config: Option<&Config>, app: &str, name: &str) -> Result<Mask> {
    let masks = config.and_then(|config| config.apps.get(app)).map(|app| &app.masks);
    let Some(columns) = masks.and_then(|masks| masks.get(name)) else {
        let known: Vec<&str> = masks.into_iter().flat_map(|masks| masks.keys().map(String::as_str)).collect();
        return Err(Failure::usage(format!("{app} has no mask named {name:?}")).hint(
            match known.is_empty() {
                true => "Write one into the configuration: apps.NAME.masks.".to_owned(),
                false => format!("There is: {}.", known.join(", ")),
            },
        ));
    };
    Mask::new(columns)
}

/// Makes a masked copy of a database, under the name that `target` says.
///
/// # Errors
/// Whatever the error: there is no copy.
pub fn copy(
    opened: &Opened<'_>,
    target: &Target,
    options: &Options,
    mask: &Mask,
    row_key: [u8; 16],
    clock: &dyn Clock,
    monitor: &dyn Monitor,
) -> Result<Copy> {
    opened.plan_database(target, options)?.refuse()?;
    let hidden = Target { database: hidden_name(&target.database, clock), ..target.clone() };
    let made = make(opened, &hidden, options, mask, row_key, monitor).and_then(|mut copy| {
        mask::open(&target.server, &hidden.database, &target.database)?;
        copy.report.database.clone_from(&target.database);
        Ok(copy)
    });
    made.map_err(|failure| match mask::discard(&target.server, &hidden.database) {
        Ok(()) => failure,
        Err(error) => failure.during(format!(
            "the copy {} is not masked and could not be dropped ({}): drop it by hand",
            hidden.database, error.message
        )),
    })
}

fn make(
    opened: &Opened<'_>,
    hidden: &Target,
    options: &Options,
    mask: &Mask,
    row_key: [u8; 16],
    monitor: &dyn Monitor,
) -> Result<Copy> {
    let unmasked = Options { stays_marked: true, ..options.clone() };
    let (report, comparison) = opened.restore_database(hidden, &unmasked, Some(row_key), monitor)?;
    let incomplete = || Failure::new(Kind::Incomplete, "the restore is not complete, so no copy was made");
    if report.state != State::Complete {
        let first = report.errors().next().map(|problem| format!("{}: {}", problem.object, problem.message));
        return Err(incomplete().hint(first.unwrap_or_default()));
    }
    // Afterwards it is not what was captured any more, and is not meant to be.
    let comparison = comparison.ok_or_else(incomplete)?;
    if comparison.verdict() == Verdict::Different {
        let first = comparison.differences.first().map(ToString::to_string).unwrap_or_default();
        return Err(Failure::verification(format!("what was restored is not what was captured: {first}"))
            .hint("No copy was made. Restore another point."));
    }
    if monitor.cancelled() {
        return Err(Failure::new(Kind::Cancelled, "the restore was stopped"));
    }
    monitor.step("mask", None);
    let masked = mask::apply(&hidden.server.with_database(&hidden.database), mask)?;
    monitor.done("mask", "");
    Ok(Copy { report, comparison, masked })
}

/// A name that nobody is told. Names have at most 63 bytes.
fn hidden_name(database: &str, clock: &dyn Clock) -> String {
    let mut end = database.len().min(24);
    while !database.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}_unmasked_{:x}", &database[..end], clock.now().0)
}
