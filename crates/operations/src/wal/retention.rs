//! Which archived files of the log no base backup needs any more, and their deletion.
//!
//! Replay from a base backup reads the segments from the one that it starts in on, along one line of history. So a segment
//! may go when every live base backup that leads to its timeline starts in a later one. That is a comparison of places in the
//! log of one cluster, never of names: timelines sort by nothing, and after `pg_upgrade` a cluster is another one.
//! What is not understood (a manifest that cannot be read, segments of two sizes, a cluster without a live base backup)
//! keeps everything. Histories are kept always.

use super::Holdings;
use crate::points;
use mainstay_domain::{
    Failure, Kind, Monitor, Result,
    point::State,
    wal::{Lsn, Segment, SegmentSize, WalFile},
};
use mainstay_repository::{
    Repository,
    wal::{Archive, Archived},
};
use mainstay_sources::postgres::{
    cluster::{ClusterFacts, KIND},
    wal::Ancestry,
};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Where the replay of a live base backup begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Start {
    pub timeline: u32,
    pub lsn: Lsn,
}

/// What becomes of one cluster's archive.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    pub system: u64,
    /// Files that go, in the order in which they do.
    #[serde(skip)]
    pub going: Vec<Archived>,
    pub going_files: usize,
    pub going_bytes: u64,
    pub staying_files: usize,
    /// Why all of it stays, if that is not because base backups need it.
    pub all_stays: Option<String>,
}

/// Decides about the archive of every cluster in a repository. `without`: points that are given up, too. What cannot be read may
/// need anything, and keeps everything.
pub fn plan(repository: &Repository, without: &BTreeSet<mainstay_domain::PointId>) -> Result<Vec<Plan>> {
    let systems = mainstay_repository::wal::systems(repository)?;
    if systems.is_empty() {
        return Ok(Vec::new());
    }
    let bases = live_bases(repository, without);
    systems
        .into_iter()
        .map(|system| {
            let read = bases.as_ref().map_err(ToString::to_string).and_then(|bases| {
                let holdings = Holdings::read(repository, system).map_err(|failure| failure.to_string())?;
                let of_cluster: Vec<&ClusterFacts> =
                    bases.iter().filter(|facts| facts.system == system).collect();
                Ok(plan_of(&holdings, &of_cluster))
            });
            match read {
                Ok(plan) => Ok(plan),
                Err(why) => {
                    let files = Archive::of(repository, system).list()?;
                    Ok(Plan {
                        system,
                        going: Vec::new(),
                        going_files: 0,
                        going_bytes: 0,
                        staying_files: files.len(),
                        all_stays: Some(format!("what needs it cannot be read ({why})")),
                    })
                }
            }
        })
        .collect()
}

pub(super) fn live_bases(
    repository: &Repository,
    without: &BTreeSet<mainstay_domain::PointId>,
) -> Result<Vec<ClusterFacts>> {
    let mut bases = Vec::new();
    for point in points::list(repository, None)?.into_iter().filter(|point| !without.contains(&point.id)) {
        let is_base = |kind: &str, state: State| kind == KIND && state != State::Failed;
        if !point.summary.sources.iter().any(|source| is_base(&source.kind, source.state)) {
            continue;
        }
        let manifest = repository.manifest(&point.id).map_err(Failure::from)?;
        for record in manifest.point.sources.iter().filter(|record| is_base(&record.kind, record.state)) {
            bases.push(ClusterFacts::from_json(&record.facts)?);
        }
    }
    Ok(bases)
}

fn plan_of(holdings: &Holdings<'_>, bases: &[&ClusterFacts]) -> Plan {
    let all_stays: Option<&str> = if bases.is_empty() {
        Some("no base backup of it is left")
    } else if bases.iter().any(|facts| facts.segment_size != holdings.segment_size) {
        Some("its segments have changed their size")
    } else {
        None
    };
    let starts: Vec<Start> =
        bases.iter().map(|facts| Start { timeline: facts.timeline, lsn: facts.start }).collect();
    let size = holdings.segment_size;
    let mut going: Vec<Archived> = match all_stays {
        Some(_) => Vec::new(),
        None => holdings
            .files()
            .iter()
            .filter(|archived| {
                is_superseded(&archived.file, &holdings.segments)
                    || is_expendable(&archived.file, &starts, &holdings.histories, size)
            })
            .cloned()
            .collect(),
    };
    // From the beginning on: a deletion that breaks off leaves no hole in the middle.
    going.sort_by_key(|archived| place(&archived.file).map(|segment| (segment.number(size), segment)));
    Plan {
        system: holdings.system,
        going_files: going.len(),
        going_bytes: going.iter().map(|archived| archived.stored_bytes).sum(),
        staying_files: holdings.files().len() - going.len(),
        going,
        all_stays: all_stays.map(str::to_owned),
    }
}

/// The segment that a file is, or goes with.
fn place(file: &WalFile) -> Option<Segment> {
    match file {
        WalFile::Segment(segment)
        | WalFile::Partial(segment)
        | WalFile::Backup(segment, _)
        | WalFile::Fragment(segment, _) => Some(*segment),
        WalFile::History(_) => None,
    }
}

/// Whether a file is a fragment of a segment that is archived whole.
fn is_superseded(file: &WalFile, whole: &BTreeSet<Segment>) -> bool {
    matches!(file, WalFile::Fragment(segment, _) if whole.contains(segment))
}

/// Whether no replay from any of these starts reads a file.
pub fn is_expendable(
    file: &WalFile,
    starts: &[Start],
    histories: &BTreeMap<u32, Ancestry>,
    size: SegmentSize,
) -> bool {
    let Some(segment) = place(file) else { return false };
    // A base backup that is known to be on another line of history does not read this timeline. Where nothing is known of where
    // a timeline came from, or none leads to it, all count.
    let line = match histories.get(&segment.timeline) {
        Some(ancestry) => Some(ancestry.clone()),
        None if segment.timeline == 1 => Some(Ancestry::root(1)),
        None => None,
    };
    let leading: Vec<&Start> = starts
        .iter()
        .filter(|start| line.as_ref().is_some_and(|line| line.includes(start.timeline, start.lsn)))
        .collect();
    let counting = if leading.is_empty() { starts.iter().collect() } else { leading };
    !counting.is_empty()
        && counting.iter().all(|start| {
            segment.number(size) < Segment::holding(start.timeline, start.lsn, size).number(size)
        })
}

/// What was deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Deleted {
    pub files: usize,
    pub bytes: u64,
}

/// Carries plans out. The points may have changed since they were made, so each archive is judged again on those that live
/// now: what goes was shown, and goes by now as well.
///
/// # Errors
/// `Verification` while anything in the repository's log is in doubt, for that may be a base backup; `Cancelled`.
pub fn execute(repository: &Repository, shown: &[Plan], monitor: &dyn Monitor) -> Result<Deleted> {
    let mut deleted = Deleted::default();
    if shown.iter().all(|plan| plan.going.is_empty()) {
        return Ok(deleted);
    }
    repository.certain_state()?;
    for by_now in plan(repository, &BTreeSet::new())? {
        let archive = Archive::of(repository, by_now.system);
        for archived in in_both(shown, &by_now) {
            if monitor.cancelled() {
                return Err(Failure::new(Kind::Cancelled, "stopped before all archived WAL was deleted"));
            }
            archive.remove(archived)?;
            deleted.files += 1;
            deleted.bytes += archived.stored_bytes;
        }
    }
    Ok(deleted)
}

/// What goes by a plan made now and was shown in one made before.
fn in_both<'p>(shown: &[Plan], by_now: &'p Plan) -> Vec<&'p Archived> {
    let key = |archived: &Archived| (archived.file.clone(), archived.host);
    let shown: BTreeSet<_> = shown
        .iter()
        .filter(|plan| plan.system == by_now.system)
        .flat_map(|plan| plan.going.iter().map(key))
        .collect();
    by_now.going.iter().filter(|archived| shown.contains(&key(archived))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: SegmentSize = SegmentSize::DEFAULT;

    fn start(timeline: u32, lsn: &str) -> Start {
        Start { timeline, lsn: lsn.parse().unwrap() }
    }

    fn histories(texts: &[(u32, &str)]) -> BTreeMap<u32, Ancestry> {
        texts.iter().map(|(timeline, text)| (*timeline, Ancestry::parse(*timeline, text).unwrap())).collect()
    }

    fn goes(file: &str, starts: &[Start], known: &[(u32, &str)]) -> bool {
        is_expendable(&file.parse().unwrap(), starts, &histories(known), SIZE)
    }

    #[test]
    fn what_lies_before_the_oldest_base_backup_of_its_line_goes_and_nothing_else() {
        let two = "1\t0/5000110\tfailover";
        let three = "1\t0/5000110\tfailover\n2\t0/9000000\tfailover";
        let stray = "1\t0/3000000\ta restore that nobody kept";
        /// A file, the live base backups, the histories that are archived, and whether the file goes.
        type Case<'a> = (&'a str, &'a [Start], &'a [(u32, &'a str)], bool);
        let cases: &[Case<'_>] = &[
            // One timeline: before the segment that it starts in, whatever comes after.
            ("000000010000000000000003", &[start(1, "0/4000028")], &[], true),
            ("000000010000000000000004", &[start(1, "0/4000028")], &[], false),
            ("000000010000000000000009", &[start(1, "0/4000028")], &[], false),
            ("000000010000000000000003", &[start(1, "0/4000028"), start(1, "0/3000028")], &[], false),
            ("000000010000000000000002", &[start(1, "0/4000028"), start(1, "0/3000028")], &[], true),
            // What belongs to a segment goes with it; histories never.
            ("000000010000000000000003.partial", &[start(1, "0/4000028")], &[], true),
            ("000000010000000000000003.00000028.backup", &[start(1, "0/4000028")], &[], true),
            ("000000010000000000000004.00000028.backup", &[start(1, "0/4000028")], &[], false),
            ("00000002.history", &[start(3, "0/FF000000")], &[(2, two), (3, three)], false),
            // A base backup before the failover leads on to the later timelines.
            ("000000010000000000000004", &[start(1, "0/4000028")], &[(2, two)], false),
            ("000000020000000000000005", &[start(1, "0/4000028")], &[(2, two)], false),
            ("000000030000000000000009", &[start(1, "0/4000028")], &[(2, two), (3, three)], false),
            // Only one after it is left: the names on timeline 1 sort before, and on timeline 3 after; places decide.
            ("000000010000000000000005", &[start(2, "0/7000028")], &[(2, two)], true),
            ("000000020000000000000006", &[start(2, "0/7000028")], &[(2, two)], true),
            ("000000020000000000000007", &[start(2, "0/7000028")], &[(2, two)], false),
            ("000000030000000000000009", &[start(2, "0/7000028")], &[(2, two), (3, three)], false),
            // Timeline 1 went on without us: nothing reads it, and it stays until everybody is past that place.
            ("000000010000000000000008", &[start(2, "0/7000028")], &[(2, two)], false),
            // A base backup on a stray timeline does not hold what is not on its line.
            (
                "000000020000000000000006",
                &[start(2, "0/7000028"), start(4, "0/4000028")],
                &[(2, two), (4, stray)],
                true,
            ),
            (
                "000000040000000000000004",
                &[start(2, "0/7000028"), start(4, "0/4000028")],
                &[(2, two), (4, stray)],
                false,
            ),
            (
                "000000040000000000000003",
                &[start(2, "0/7000028"), start(4, "0/4000028")],
                &[(2, two), (4, stray)],
                true,
            ),
            // Without its history a timeline may have come from anywhere.
            ("000000020000000000000006", &[start(1, "0/4000028"), start(2, "0/7000028")], &[], false),
            ("000000020000000000000003", &[start(1, "0/4000028"), start(2, "0/7000028")], &[], true),
            // Without a base backup nothing goes.
            ("000000010000000000000001", &[], &[], false),
        ];
        for (file, starts, known, expected) in cases {
            assert_eq!(goes(file, starts, known), *expected, "{file} with {starts:?}");
        }
    }

    #[test]
    fn what_was_not_in_the_plan_is_not_deleted_nor_what_is_needed_by_now() {
        let plan = |system, numbers: std::ops::Range<u64>| {
            let going: Vec<Archived> = numbers
                .map(|number| Archived {
                    file: WalFile::Segment(Segment::holding(1, Lsn(number << 24), SIZE)),
                    host: mainstay_domain::HostId([1; 16]),
                    stored_bytes: 1,
                })
                .collect();
            let (going_files, going_bytes) = (going.len(), going.len() as u64);
            Plan { system, going, going_files, going_bytes, staying_files: 0, all_stays: None }
        };
        let files = |shown: &[Plan], now: &Plan| -> Vec<String> {
            in_both(shown, now).iter().map(|archived| archived.file.to_string()).collect()
        };
        let both = ["000000010000000000000003", "000000010000000000000004"];
        assert_eq!(files(&[plan(7, 1..5)], &plan(7, 3..9)), both);
        assert!(files(&[plan(8, 1..5)], &plan(7, 3..9)).is_empty(), "another cluster's");
        assert!(files(&[], &plan(7, 3..9)).is_empty());
    }

    #[test]
    fn fragments_go_when_their_segment_is_archived_whole_or_nobody_reads_it() {
        let (third, fourth) = ("000000010000000000000003@00000007", "000000010000000000000004@00000000");
        let whole: BTreeSet<Segment> = ["000000010000000000000003".parse().unwrap()].into();
        let superseded = |name: &str| is_superseded(&name.parse().unwrap(), &whole);
        assert!(superseded(third) && !superseded(fourth));
        assert!(
            !superseded("000000020000000000000003@00000007"),
            "another timeline's segment is another one"
        );
        assert!(!superseded("000000010000000000000003"), "the segment itself stays");
        assert!(goes(third, &[start(1, "0/4000028")], &[]));
        assert!(!goes(fourth, &[start(1, "0/4000028")], &[]));
    }

    #[test]
    fn nothing_goes_that_a_replay_from_any_live_base_backup_reads() {
        // Every line of history of a small world, each base backup in it, and all that its replay reads.
        let texts = [
            (2, "1\t0/5000110\tx"),
            (3, "1\t0/5000110\tx\n2\t0/9000000\tx"),
            (4, "1\t0/3000020\tx"),
            (5, "1\t0/5000110\tx\n2\t0/7500000\tx"),
        ];
        let known = histories(&texts);
        let lines: Vec<Ancestry> =
            std::iter::once(Ancestry::root(1)).chain(known.values().cloned()).collect();
        let everything = (1..=5).flat_map(|timeline| {
            (1..12).map(move |number| Segment::holding(timeline, Lsn(number << 24), SIZE))
        });
        let all: Vec<Segment> = everything.collect();
        let starts: Vec<Start> = (1..=5)
            .flat_map(|timeline| (1..12).map(move |n| Start { timeline, lsn: Lsn((n << 24) + 0x28) }))
            .filter(|start| lines.iter().any(|line| line.includes(start.timeline, start.lsn)))
            .collect();
        for one in &starts {
            for other in &starts {
                let live = [*one, *other];
                for line in &lines {
                    for begin in live.iter().filter(|start| line.includes(start.timeline, start.lsn)) {
                        let first = Segment::holding(begin.timeline, begin.lsn, SIZE);
                        for number in
                            all.iter().filter(|s| s.timeline == 1 && s.number(SIZE) >= first.number(SIZE))
                        {
                            let read = line.segment(*number, SIZE);
                            let gone = is_expendable(&WalFile::Segment(read), &live, &known, SIZE);
                            assert!(!gone, "{read} is read from {begin:?} to timeline {}", line.timeline);
                        }
                    }
                }
            }
        }
    }
}
