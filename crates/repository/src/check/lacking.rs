//! What a restore of one source would not get: asked before it begins, so that a plan does not promise what is lost.
//!
//! Packs are looked for by name, and no chunk is read unless one of them is lost. Only then is the source followed, chunk by chunk,
//! for what lies nowhere else: a lost pack whose content was stored again takes nothing away.

use super::{go_on, packs::locate, walk::Walk};
use crate::{error::Result, index::View, pack, reader::Reader, repository::Repository};
use mainstay_domain::{ChunkId, Monitor, PackId, point::SourceRecord};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

/// A stream of a source of which something cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lacking {
    pub stream: String,
    /// The packs in which it lay, by their object names. None if a list led to what cannot be found.
    pub packs: Vec<String>,
}

/// The streams of a source of which something lies in lost packs and nowhere else.
///
/// `reach`: the packs that the source's point needs. Those that the log knows as lost are; with `look`, each is looked for in the
/// store as well, on `threads` threads. What is in them is not read.
pub fn lacking(
    reader: &Reader<'_>,
    reach: &[PackId],
    source: &SourceRecord,
    look: bool,
    threads: usize,
    monitor: &dyn Monitor,
) -> Result<Vec<Lacking>> {
    let (repository, view) = (reader.repository(), reader.view());
    let mut lost = repository.state()?.facts.lost.unwrap_or_default();
    if look {
        let known = |pack: &&PackId| !lost.contains(pack);
        let unknown: Vec<PackId> = reach.iter().filter(known).copied().collect();
        lost.extend(missing(repository, view, &unknown, threads, monitor)?);
    }
    if !reach.iter().any(|pack| lost.contains(pack)) {
        return Ok(Vec::new());
    }
    let mut there: HashMap<PackId, bool> = reach.iter().map(|pack| (*pack, !lost.contains(pack))).collect();
    let mut found = Vec::new();
    for stream in &source.streams {
        let mut packs = BTreeSet::new();
        let mut visit = |chunk: &ChunkId| {
            let places = view.places(chunk)?;
            for place in &places {
                // A copy that was stored again lies in a pack which this point does not name.
                let is_there = match there.get(&place.pack) {
                    Some(is_there) => *is_there,
                    None => !lost.contains(&place.pack) && is_there(repository, view, &place.pack)?,
                };
                there.insert(place.pack, is_there);
                if is_there {
                    return Ok(true);
                }
            }
            packs.extend(places.iter().map(|place| pack::object_name(place.pool, &place.pack)));
            Ok(false)
        };
        let walked = Walk::new(reader, monitor, &mut visit).stream(stream);
        let is_whole = match walked {
            Ok(()) => packs.is_empty(),
            Err(error) if error.is_damage() => false,
            Err(error) => return Err(error),
        };
        if !is_whole {
            found.push(Lacking { stream: stream.name.clone(), packs: packs.into_iter().collect() });
        }
    }
    Ok(found)
}

/// Those of the packs that are not in the store.
fn missing(
    repository: &Repository,
    view: &View,
    packs: &[PackId],
    threads: usize,
    monitor: &dyn Monitor,
) -> Result<Vec<PackId>> {
    let next = AtomicUsize::new(0);
    let outcome = Mutex::new(Ok(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, packs.len().max(1)) {
            scope.spawn(|| {
                while let Some(pack) = packs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let looked = go_on(monitor).and_then(|()| is_there(repository, view, pack));
                    let mut outcome = outcome.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                    match (looked, &mut *outcome) {
                        (Ok(false), Ok(missing)) => missing.push(*pack),
                        (Ok(_), Ok(_)) => {}
                        (Err(error), Ok(_)) => *outcome = Err(error),
                        (_, Err(_)) => return,
                    }
                }
            });
        }
    });
    outcome.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn is_there(repository: &Repository, view: &View, pack: &PackId) -> Result<bool> {
    if let Some(pool) = view.pool_of(pack) {
        return Ok(repository.store().stat(&pack::object_name(pool, pack))?.is_some());
    }
    match locate(repository, pack) {
        Ok(_) => Ok(true),
        Err((_, error)) if error.is_damage() => Ok(false),
        Err((_, error)) => Err(error),
    }
}
