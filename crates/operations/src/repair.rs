//! `mainstay repair`: what is wrong with a repository is written down, so that it heals or can go on.
//!
//! Packs that are lost are named in the log: the next backup stores their chunks again. Entries of the log that are in doubt are
//! shown, with what might go with them, and acknowledged by a person. Nothing here deletes anything.

use crate::{
    access::{self, Named},
    config::Config,
};
use mainstay_domain::{Clock, Failure, Kind, Monitor, PackId, PointId, Result, Severity, point::Summary};
use mainstay_repository::{
    Repository,
    check::{self, Depth, Report},
    log::Doubt,
    read_format,
    rescue::Spares,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// What a look at every pack that recovery points need has shown.
#[derive(Debug)]
pub struct Repaired {
    pub report: Report,
    /// Packs that points need and that cannot be had elsewhere.
    pub lost: BTreeSet<PackId>,
    /// Packs that are lost, and all that points need of them lies elsewhere.
    pub made_good: BTreeSet<PackId>,
    /// Packs that were lost and are whole again.
    pub found: BTreeSet<PackId>,
}

/// Reads every pack that a recovery point needs, and writes down which are lost and which are whole again.
pub fn packs(repository: &Repository, monitor: &dyn Monitor) -> Result<Repaired> {
    let state = repository.refreshed_state()?;
    let points: Vec<_> = state.facts.points.keys().copied().collect();
    monitor.step("check", None);
    let report = check::check(repository, &points, Depth::Packs, access::threads(), monitor)?;
    let (lost, made_good) = (report.lost_packs(), report.made_good.clone());
    let found = check::whole_packs(repository, state.facts.lost.unwrap_or_default(), monitor)?;
    monitor.done("check", "");
    repository.record_lost(&(&lost | &made_good), &found)?;
    Ok(Repaired { report, lost, made_good, found })
}

/// Writes down what a check has found to be lost. Best effort: the finding itself is what matters to whoever asked.
pub(crate) fn note_lost(repository: &Repository, report: &Report, monitor: &dyn Monitor) {
    let lost = report.lost_packs();
    // By the mark of a lost pack the copies are kept that make it good.
    let all = &lost | &report.made_good;
    if all.is_empty() {
        return;
    }
    let text = match repository.record_lost(&all, &BTreeSet::new()) {
        Ok(_) if lost.is_empty() => return,
        Ok(_) => format!(
            "{} cannot be relied on: the next backup stores what lay there again",
            packs_in_words(lost.len())
        ),
        Err(error) => {
            format!("the log could not be told which packs are lost ({error}); run `mainstay repair --packs`")
        }
    };
    monitor.notice(Severity::Warning, &text);
}

/// Takes the mark off packs that were lost and are whole again. Best effort, as [`note_lost`].
pub(crate) fn note_found(repository: &Repository, monitor: &dyn Monitor) -> Result<()> {
    let lost = repository.refreshed_state()?.facts.lost.unwrap_or_default();
    let found = check::whole_packs(repository, lost, monitor)?;
    if !found.is_empty() {
        // Left as it is, the next backup stores again what lies there already: nothing worse.
        drop(repository.record_lost(&BTreeSet::new(), &found));
    }
    Ok(())
}

fn packs_in_words(number: usize) -> String {
    if number == 1 { "1 pack".to_owned() } else { format!("{number} packs") }
}

/// Puts back what the store has lost and a recovery kit holds, and names it. `None`: another repository lies in the store.
pub fn from_kit(
    config: &Config,
    named: &Named<'_>,
    spares: &Spares,
    clock: Arc<dyn Clock>,
) -> Result<Option<Vec<String>>> {
    let of_kit = spares.format()?.map(|format| format.repository());
    let found = read_format(&*access::store_of(config, named)?);
    if found.is_ok_and(|format| Some(format.repository()) != of_kit) {
        return Ok(None);
    }
    Ok(Some(access::open_with(config, named, spares, clock)?.put_back(spares)?))
}

/// What somebody must know before the doubts about a log are acknowledged.
#[derive(Debug)]
pub struct Doubts {
    /// By the n of the entry.
    pub entries: BTreeMap<u64, Doubt>,
    /// Recovery points that lie in the store and are not in the log: dropped ones that are not yet collected, or ones whose entry
    /// is among those in doubt. A prune gives them up once nothing is in doubt any more.
    pub unnamed: Vec<(PointId, Summary)>,
}

pub fn doubts(repository: &Repository) -> Result<Doubts> {
    let (_, entries) = repository.doubts()?;
    let unnamed = match entries.is_empty() {
        true => Vec::new(),
        false => repository
            .unnamed_manifests()?
            .into_iter()
            .map(|(id, manifest)| (id, manifest.point.summary))
            .collect(),
    };
    Ok(Doubts { entries, unnamed })
}

/// Whether a recovery point lies in the store that is not live and whose id begins with `prefix`.
pub fn has_adoptable(repository: &Repository, prefix: &str) -> Result<bool> {
    repository.refreshed_state()?;
    let prefix = prefix.to_ascii_lowercase();
    Ok(repository.unnamed_manifests()?.iter().any(|(id, _)| id.to_string().starts_with(&prefix)))
}

/// Takes the recovery point back into the log whose id begins with `prefix`, and that lies in the store and is not live.
pub fn adopt(repository: &Repository, prefix: &str) -> Result<(PointId, Summary)> {
    repository.certain_state()?;
    let prefix = prefix.to_ascii_lowercase();
    let mut found = repository.unnamed_manifests()?;
    found.retain(|(id, _)| id.to_string().starts_with(&prefix));
    let several = found.len() > 1;
    match found.pop() {
        Some((id, manifest)) if !several => {
            repository.adopt_point(id)?;
            Ok((id, manifest.point.summary))
        }
        Some(_) => {
            Err(Failure::usage(format!("{prefix:?} is the beginning of several such recovery points"))
                .hint("Write more of it."))
        }
        None => Err(Failure::new(
            Kind::NoRepository,
            format!("no recovery point that the log does not name has an id that begins with {prefix:?}"),
        )
        .hint("`mainstay list` shows those that the log names.")),
    }
}

/// Acknowledges these doubts and no others. Says how many are left: what a later version wrote, only a later version can settle.
pub fn acknowledge(repository: &Repository, doubts: &Doubts) -> Result<usize> {
    let entries: Vec<_> = doubts.entries.keys().copied().collect();
    repository.acknowledge(&entries)?;
    Ok(repository.doubts()?.1.len())
}
