//! What a backup has just written, read back before anybody is told that it worked.

use super::{
    Depth, Finding, Report, Sample, check_segment, elsewhere, finding,
    packs::{check_packs, locate},
};
use crate::{
    error::{RepositoryError, Result},
    index::object_name as index_name,
    manifest,
    repository::Repository,
    session::Committed,
};
use mainstay_domain::{Monitor, PackId, stream::Pool};
use std::collections::BTreeSet;

/// Whether what a session has committed is there and whole.
///
/// The packs that it wrote are read at the depth asked for; of more than `limit` bytes only a random sample, which has all
/// trees, and the first and the last pack of data. All others that the point needs are looked for.
pub fn check_written(
    repository: &Repository,
    committed: &Committed,
    depth: Depth,
    limit: u64,
    threads: usize,
    monitor: &dyn Monitor,
) -> Result<Report> {
    let point = committed.point;
    let mut report = Report { points: 1, objects: 1, ..Report::default() };
    let manifest = match repository.manifest(&point) {
        Ok(manifest) => manifest,
        Err(error) if error.is_damage() => {
            report.findings.push(finding(manifest::object_name(&point), &error, &[point]));
            return Ok(report);
        }
        Err(error) => return Err(error),
    };
    let written = &committed.written.packs;
    let chosen = match committed.stored_bytes > limit && depth > Depth::Objects {
        false => written.iter().map(|(id, _)| *id).collect(),
        true => {
            // Packs are about equally large.
            let room =
                (written.len() as u128 * u128::from(limit) / u128::from(committed.stored_bytes)) as usize;
            let chosen = sample(written, room, &mut |below| {
                (u64::from_le_bytes(mainstay_keys::random()) % below as u64) as usize
            });
            report.sample = Some(Sample { read: chosen.len(), of: written.len() });
            chosen
        }
    };
    let (new, old): (Vec<_>, Vec<_>) = manifest.reach.packs.iter().partition(|pack| chosen.contains(*pack));
    let needs = |packs: Vec<&PackId>| packs.into_iter().map(|pack| (*pack, vec![(0, 0)])).collect();
    check_packs(repository, &needs(new), &[point], depth, threads, monitor, &mut report)?;
    check_packs(repository, &needs(old), &[point], Depth::Objects, threads, monitor, &mut report)?;
    elsewhere::name_missing(repository, &mut report)?;
    for id in &committed.written.index {
        check_segment(repository, id, &[point], &mut report)?;
    }
    let facts = repository.refreshed_state()?.facts;
    // A collection may have replaced a segment already, and deleted it.
    let replaced =
        committed.written.index.iter().filter(|id| !facts.segments.contains_key(id)).map(index_name);
    let replaced: Vec<_> = replaced.collect();
    report.findings.retain(|finding| !replaced.contains(&finding.object));
    // What was found lost after this session had begun, it may have relied on, and it may lie there in its full size.
    for pack in facts.lost.iter().flatten() {
        let name = locate(repository, pack).map_or_else(|(name, _)| name, |(name, ..)| name);
        if manifest.reach.packs.binary_search(pack).is_ok()
            && !report.findings.iter().any(|finding| finding.pack == Some(*pack))
        {
            let known = RepositoryError::damaged(&name, "it was found to be lost");
            report.findings.push(Finding { pack: Some(*pack), ..finding(name, &known, &[point]) });
        }
    }
    Ok(report)
}

/// All trees, the first and the last pack of data, and others at random until there are `room`. `random` gives a number below
/// its argument.
fn sample(packs: &[(PackId, Pool)], room: usize, random: &mut dyn FnMut(usize) -> usize) -> BTreeSet<PackId> {
    let of = |pool| packs.iter().filter(move |(_, p)| *p == pool).map(|(id, _)| *id);
    let mut chosen: BTreeSet<PackId> = of(Pool::Tree).collect();
    let mut data: Vec<PackId> = of(Pool::Data).collect();
    chosen.extend(data.first().into_iter().chain(data.last()));
    while chosen.len() < room && !data.is_empty() {
        chosen.insert(data.swap_remove(random(data.len())));
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_the_trees_the_ends_and_as_many_others_as_there_is_room_for() {
        let pack = |n: u8, pool| (PackId([n; 32]), pool);
        let mut packs: Vec<_> = (0..100).map(|n| pack(n, Pool::Data)).collect();
        packs.extend((200..203).map(|n| pack(n, Pool::Tree)));
        let mut state = 1u64;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % below
        };
        let mut seen = BTreeSet::new();
        for room in [0, 5, 30, 103, 500] {
            let chosen = sample(&packs, room, &mut random);
            assert_eq!(chosen.len(), room.clamp(5, 103));
            for n in [0, 99, 200, 201, 202] {
                assert!(chosen.contains(&PackId([n; 32])), "{n}");
            }
            assert!(chosen.iter().all(|id| packs.iter().any(|(p, _)| p == id)));
        }
        for _ in 0..100 {
            seen.extend(sample(&packs, 30, &mut random));
        }
        assert_eq!(seen.len(), 103, "each is chosen in the end");
        assert!(sample(&[], 10, &mut random).is_empty());
    }
}
