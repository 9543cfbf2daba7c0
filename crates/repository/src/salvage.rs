//! When index segments are damaged or lost: every pack carries its own table of contents, so the index is made again from them.
//!
//! For reading, and for a collector that replaces a damaged segment and looks into the packs that live points need. What else
//! lies in the store may be an orphan's or may have been swept, and no session may rely on it.

use crate::{
    error::{RepositoryError, Result},
    index::{Cache, Record, Segment, View},
    pack::{HEADER, Opened, object_name, parse_object_name},
    repository::Repository,
};
use mainstay_domain::{ObjectId, PackId, stream::Pool};
use std::{collections::HashSet, ops::ControlFlow};

/// Packs of which one salvaged segment is made: bounds the memory.
pub const PACKS_AT_ONCE: usize = 256;

/// Makes the chunks of packs that no readable segment names findable again, for this process.
///
/// Packs are found by listing, which may lag: what it misses is reported as missing chunks by whoever looks for them. Packs that
/// cannot be read are passed over; their chunks may lie in others.
pub fn index_from_packs(repository: &Repository, view: &View, cache: &Cache) -> Result<()> {
    let mut unknown = Vec::new();
    let mut seen = HashSet::new();
    repository.store().list("packs/", &mut |listed| {
        if let Some((pool, id)) = parse_object_name(&listed.name)
            && !view.has_pack(&id)
            && seen.insert(id)
        {
            unknown.push((pool, id, listed.bytes));
        }
        ControlFlow::Continue(())
    })?;
    index_packs(repository, view, cache, &unknown)
}

/// The same for the packs that one recovery point needs, without a listing.
pub fn index_from_reach(repository: &Repository, view: &View, cache: &Cache, reach: &[PackId]) -> Result<()> {
    let mut unknown = Vec::new();
    for id in reach.iter().filter(|id| !view.has_pack(id)) {
        for pool in [Pool::Data, Pool::Tree] {
            if let Some(size) = repository.store().stat(&object_name(pool, id))? {
                unknown.push((pool, *id, size));
            }
        }
    }
    index_packs(repository, view, cache, &unknown)
}

fn index_packs(
    repository: &Repository,
    view: &View,
    cache: &Cache,
    unknown: &[(Pool, PackId, u64)],
) -> Result<()> {
    for packs in unknown.chunks(PACKS_AT_ONCE) {
        let mut segment = Segment::default();
        for (pool, id, size) in packs {
            match contents(repository, *pool, id, *size) {
                Ok(records) => {
                    let number = segment.packs.len() as u32;
                    segment.packs.push((*id, *pool));
                    segment
                        .records
                        .extend(records.into_iter().map(|record| Record { pack: number, ..record }));
                }
                Err(error) if error.is_damage() => {}
                Err(error) => return Err(error),
            }
        }
        segment.sort();
        let name = ObjectId(*blake3::hash(&segment.encode()).as_bytes());
        view.add(cache.keep(name, &segment)?);
    }
    Ok(())
}

/// The records of these packs, for an index segment that takes the place of damaged ones. An error if a pack cannot be read.
pub fn segment_of(repository: &Repository, packs: &[PackId]) -> Result<Segment> {
    let mut segment = Segment::default();
    for id in packs {
        let (pool, size) = find(repository, id)?;
        let records = contents(repository, pool, id, size)?;
        let number = segment.packs.len() as u32;
        segment.packs.push((*id, pool));
        segment.records.extend(records.into_iter().map(|record| Record { pack: number, ..record }));
    }
    Ok(segment)
}

fn find(repository: &Repository, id: &PackId) -> Result<(Pool, u64)> {
    for pool in [Pool::Data, Pool::Tree] {
        if let Some(size) = repository.store().stat(&object_name(pool, id))? {
            return Ok((pool, size));
        }
    }
    Err(crate::check::not_there(&crate::check::of_no_kind(id)))
}

pub(crate) fn contents(repository: &Repository, pool: Pool, id: &PackId, size: u64) -> Result<Vec<Record>> {
    let name = object_name(pool, id);
    let damaged = |why| RepositoryError::damaged(&name, why);
    let store = repository.store();
    let opened =
        Opened::open(&store.read_range(&name, 0, HEADER)?, &repository.id(), repository.keyring(), &name)?;
    let end = size.checked_sub(4).ok_or_else(|| damaged("it is too short"))?;
    let tail = store.read_range(&name, end, 4)?;
    let length = u32::from_be_bytes(tail.try_into().map_err(|_| damaged("it is cut short"))?);
    let start = end.checked_sub(length.into()).filter(|s| *s >= HEADER as u64);
    let start = start.ok_or_else(|| damaged("its table of contents is not where it should be"))?;
    let blobs = opened.contents(store.read_range(&name, start, length as usize)?, &name)?;
    Ok(blobs
        .into_iter()
        .map(|b| Record {
            chunk: b.chunk,
            pack: 0,
            offset: b.offset,
            length: b.length,
            plain_length: b.plain_length,
        })
        .collect())
}
