//! Packs, one by one: whether each is there, and whether it is what its name and its chunks' ids promise.

use super::{Depth, Finding, Needs, Report, finding, go_on, points_of};
use crate::{
    error::{RepositoryError, Result},
    pack::{self, Blob, HEADER, Opened, chunk_id},
    repository::Repository,
};
use mainstay_domain::{Monitor, PackId, PointId, stream::Pool};
use std::{
    collections::BTreeSet,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Those of the packs that are there and whole.
pub fn whole_packs(
    repository: &Repository,
    packs: impl IntoIterator<Item = PackId>,
    monitor: &dyn Monitor,
) -> Result<BTreeSet<PackId>> {
    let mut whole = BTreeSet::new();
    for pack in packs {
        go_on(monitor)?;
        match check_pack(repository, &pack, Depth::Packs) {
            Ok(_) => drop(whole.insert(pack)),
            Err((_, error)) if error.is_damage() => {}
            Err((_, error)) => return Err(error),
        }
    }
    Ok(whole)
}

/// An error that names the first of the packs that is not there.
pub(crate) fn packs_are_there(repository: &Repository, packs: &[PackId]) -> Result<()> {
    packs.iter().try_for_each(|pack| locate(repository, pack).map(drop).map_err(|(_, error)| error))
}

pub(super) fn check_packs(
    repository: &Repository,
    needs: &Needs,
    points: &[PointId],
    depth: Depth,
    threads: usize,
    monitor: &dyn Monitor,
    report: &mut Report,
) -> Result<()> {
    let packs: Vec<_> = needs.iter().collect();
    let named = |runs: &[(u32, u32)]| -> Vec<PointId> { points_of(runs, points).collect() };
    let next = AtomicUsize::new(0);
    let outcome = Mutex::new((std::mem::take(report), Ok(())));
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, packs.len().max(1)) {
            scope.spawn(|| {
                while let Some((pack, runs)) = packs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let checked = go_on(monitor).map(|()| check_pack(repository, pack, depth));
                    let mut outcome = outcome.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                    let checked = match checked {
                        Ok(checked) => checked,
                        Err(stopped) => {
                            outcome.1 = Err(stopped);
                            return;
                        }
                    };
                    outcome.0.objects += 1;
                    match checked {
                        Ok(bytes) => {
                            outcome.0.bytes += bytes;
                            monitor.advance(1, bytes);
                        }
                        Err((name, error)) if error.is_damage() => outcome
                            .0
                            .findings
                            .push(Finding { pack: Some(**pack), ..finding(name, &error, &named(runs)) }),
                        Err((_, error)) => {
                            outcome.1 = Err(error);
                            return;
                        }
                    }
                }
            });
        }
    });
    let (found, result) = outcome.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    *report = found;
    report.findings.sort_by(|a, b| a.object.cmp(&b.object));
    result
}

/// Checks one pack and returns the bytes read.
pub(super) fn check_pack(
    repository: &Repository,
    id: &PackId,
    depth: Depth,
) -> Result<u64, (String, RepositoryError)> {
    let (name, pool, size) = locate(repository, id)?;
    let within = |error| (name.clone(), error);
    if depth == Depth::Objects {
        // Its last bytes are its table of contents, which opens: so it is as long as it was.
        crate::salvage::contents(repository, pool, id, size).map_err(within)?;
        return Ok(size);
    }
    let bytes = repository.store().read(&name).map_err(|error| within(error.into()))?;
    if blake3::hash(&bytes).as_bytes() != &id.0 {
        return Err(within(RepositoryError::damaged(&name, "its bytes are not those its name promises")));
    }
    if depth == Depth::Data {
        check_blobs(repository, &name, &bytes).map_err(within)?;
    }
    Ok(bytes.len() as u64)
}

/// The pack's object name, whichever pool it is in.
pub(super) fn locate(
    repository: &Repository,
    id: &PackId,
) -> Result<(String, Pool, u64), (String, RepositoryError)> {
    for pool in [Pool::Data, Pool::Tree] {
        let name = pack::object_name(pool, id);
        match repository.store().stat(&name) {
            Ok(Some(size)) => return Ok((name, pool, size)),
            Ok(None) => {}
            Err(error) => return Err((name, error.into())),
        }
    }
    let name = of_no_kind(id);
    Err((name.clone(), not_there(&name)))
}

/// What a pack is called that is not there, where nobody knows whether it was one of data or of trees.
pub(crate) fn of_no_kind(id: &PackId) -> String {
    format!("pack {id}")
}

pub(crate) fn not_there(name: &str) -> RepositoryError {
    RepositoryError::damaged(name, "it is not there")
}

fn check_blobs(repository: &Repository, name: &str, bytes: &[u8]) -> Result<()> {
    let header = bytes.get(..HEADER).ok_or_else(|| RepositoryError::damaged(name, "it is too short"))?;
    let opened = Opened::open(header, &repository.id(), repository.keyring(), name)?;
    let key = repository.keyring().current().chunk_id_key();
    let mut reader = opened.reader();
    for blob in contents(&opened, bytes, name)? {
        let sealed = bytes
            .get(blob.offset as usize..)
            .and_then(|rest| rest.get(..blob.length as usize))
            .ok_or_else(|| RepositoryError::damaged(name, "a chunk lies outside of it"))?;
        if chunk_id(&key, reader.decode(&blob, sealed)?) != blob.chunk {
            return Err(RepositoryError::damaged(name, "a chunk in it is not what its id promises"));
        }
    }
    Ok(())
}

fn contents(opened: &Opened, object: &[u8], name: &str) -> Result<Vec<Blob>> {
    let damaged = || RepositoryError::damaged(name, "its table of contents is not where it should be");
    let (rest, tail) = object.split_last_chunk::<4>().ok_or_else(damaged)?;
    let start = rest
        .len()
        .checked_sub(u32::from_be_bytes(*tail) as usize)
        .filter(|s| *s >= HEADER)
        .ok_or_else(damaged)?;
    opened.contents(rest[start..].to_vec(), name)
}
