//! Random histories against a model: whatever is backed up, dropped, collected, interrupted and reopened, every live point gives
//! back its bytes and the rows of its table, and only those points are live that the model says.

use crate::support::*;
use mainstay_domain::{
    PointId, Silent,
    point::Stream,
    stream::{Content, Marks, Pool, Sink, Vault},
};
use mainstay_repository::{
    Repository, Session,
    check::{Depth, check},
    collect::collect,
};
use mainstay_stores::{MemoryStore, Store};
use proptest::prelude::*;
use std::{collections::BTreeMap, sync::Arc};

#[derive(Debug, Clone)]
enum Step {
    /// Streams by the seed of their bytes: equal seeds share chunks. And the table, after rows were written or deleted.
    BackUp(Vec<(u64, usize)>, Vec<Change>),
    /// A session that stores something and goes away without a word.
    Vanish(u64),
    DropPoint(usize),
    Collect,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (prop::collection::vec((0u64..12, 0usize..60_000), 1..4), prop::collection::vec(change(), 0..4))
            .prop_map(|(streams, changes)| Step::BackUp(streams, changes)),
        1 => (0u64..20).prop_map(Step::Vanish),
        2 => (0usize..8).prop_map(Step::DropPoint),
        2 => Just(Step::Collect),
        1 => Just(Step::Reopen),
    ]
}

const NAMES: [&str; 3] = ["a", "b", "c"];

/// What happens to this many rows from this key on: they get this version, or go.
#[derive(Debug, Clone)]
struct Change {
    first: u16,
    rows: u16,
    version: Option<u8>,
}

fn change() -> impl Strategy<Value = Change> {
    let rows = prop_oneof![3 => 1u16..4, 1 => 100u16..600];
    (0u16..1000, rows, prop::option::weighted(0.8, 0u8..4)).prop_map(|(first, rows, version)| Change {
        first,
        rows,
        version,
    })
}

/// Versions of rows by key.
type Table = BTreeMap<u16, u8>;

fn row(key: u16, version: u8) -> Vec<u8> {
    let value = noise(u64::from(key) << 8 | u64::from(version), 40);
    format!("{key}\t{}\n", value.iter().map(|byte| format!("{byte:02x}")).collect::<String>()).into_bytes()
}

fn digest(row: &[u8]) -> u128 {
    u128::from_be_bytes(*blake3::hash(row).as_bytes().first_chunk().unwrap())
}

fn marks_of(rows: &[u8], key: &[u8]) -> Marks {
    let mut marks = Marks { key: key.to_vec(), ..Marks::default() };
    for row in rows.split_inclusive(|byte| *byte == b'\n') {
        marks.rows += 1;
        marks.digest = marks.digest.wrapping_add(digest(row));
    }
    marks
}

/// Stores a table as a capture does: cut at row ends by the rows themselves, each piece with its rows, digest and first key.
fn put_table(session: &Session<'_>, table: &Table) -> Content {
    let mut writer = session.begin(Pool::Data);
    let (mut piece, mut first) = (Vec::new(), None);
    for (key, version) in table {
        let row = row(*key, *version);
        first = first.or(Some(key.to_be_bytes()));
        piece.extend_from_slice(&row);
        if digest(&row).is_multiple_of(16) || table.last_key_value().is_some_and(|(last, _)| last == key) {
            writer.piece(&piece, marks_of(&piece, &first.take().unwrap())).unwrap();
            piece.clear();
        }
    }
    writer.finish().unwrap()
}

/// The table is the last stream.
fn back_up_with(repository: &Repository, streams: &[Vec<u8>], table: &Table) -> PointId {
    let session = Session::begin(repository, tuning()).unwrap();
    let mut stored: Vec<_> = NAMES
        .iter()
        .zip(streams)
        .map(|(name, bytes)| {
            let content = session.put_reader(Pool::Data, &mut bytes.as_slice()).unwrap();
            Stream { name: (*name).into(), content }
        })
        .collect();
    stored.push(Stream { name: "table".into(), content: put_table(&session, table) });
    let at = repository.clock().now();
    session.commit(|_| point(at, stored)).unwrap().point
}

/// Rows, digests and keys of every piece are those of its bytes, and each row is found by its key.
fn check_table(repository: &Repository, id: &PointId, table: &Table) {
    let manifest = repository.manifest(id).unwrap();
    let reader = repository.reader_for(&manifest).unwrap();
    let content = &manifest.point.sources[0].streams.last().unwrap().content;
    let all: Vec<u8> = table.iter().flat_map(|(key, version)| row(*key, *version)).collect();
    let whole = marks_of(&all, &[]);
    assert_eq!((content.rows(), content.digest()), (whole.rows, whole.digest));
    let mut found = Vec::new();
    for piece in reader.pieces(content) {
        let piece = piece.unwrap();
        let bytes = reader.piece(&piece).unwrap();
        let marks = marks_of(&bytes, &piece.key);
        assert_eq!((piece.rows, piece.digest, piece.bytes), (marks.rows, marks.digest, bytes.len() as u64));
        found.extend(bytes);
    }
    assert!(found == all);
    for (key, version) in table.iter().step_by(37) {
        let mut from = reader.pieces_from(content, &key.to_be_bytes(), |a, b| a.cmp(b));
        let bytes = reader.piece(&from.next().unwrap().unwrap()).unwrap();
        let wanted = row(*key, *version);
        assert!(bytes.split_inclusive(|byte| *byte == b'\n').any(|row| row == wanted), "row {key}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn every_live_point_gives_back_what_was_put_in(steps in prop::collection::vec(step(), 1..16)) {
        let memory = MemoryStore::new();
        let store: Arc<dyn Store> = Arc::new(memory.clone());
        let mut repository = create(&store);
        let mut model: BTreeMap<PointId, (Vec<Vec<u8>>, Table)> = BTreeMap::new();
        let mut table = Table::new();
        for step in steps {
            match step {
                Step::BackUp(seeds, changes) => {
                    let bytes: Vec<_> = seeds.iter().map(|(seed, length)| noise(*seed, *length)).collect();
                    for Change { first, rows, version } in changes {
                        for key in first..first + rows {
                            match version {
                                Some(version) => drop(table.insert(key, version)),
                                None => drop(table.remove(&key)),
                            }
                        }
                    }
                    model.insert(back_up_with(&repository, &bytes, &table), (bytes, table.clone()));
                }
                Step::Vanish(seed) => {
                    let session = Session::begin(&repository, tuning()).unwrap();
                    session.put_reader(Pool::Data, &mut noise(seed, 100_000).as_slice()).unwrap();
                    drop(session); // neither commits nor says that it ends
                }
                Step::DropPoint(n) => {
                    let chosen = model.keys().nth(n % model.len().max(1)).copied();
                    if let Some(point) = chosen {
                        repository.drop_point(point, "test", "history").unwrap();
                        model.remove(&point);
                    }
                }
                Step::Collect => drop(collect(&repository, 0, &Silent).unwrap()),
                Step::Reopen => repository = open(&store),
            }
        }
        let repository = open(&store);
        let live: Vec<_> = repository.state().unwrap().facts.points.keys().copied().collect();
        prop_assert_eq!(&live, &model.keys().copied().collect::<Vec<_>>());
        for (point, (streams, table)) in &model {
            for (n, bytes) in streams.iter().enumerate() {
                prop_assert!(read(&repository, point, n).unwrap() == *bytes);
            }
            check_table(&repository, point, table);
        }
        let report = check(&repository, &live, Depth::Data, 1, &Silent).unwrap();
        prop_assert_eq!(report.findings, vec![]);
        // Twice, and everybody's sessions are over: what is left is what the live points need.
        for _ in 0..3 {
            collect(&repository, 0, &Silent).unwrap();
        }
        let needed: std::collections::BTreeSet<_> =
            live.iter().flat_map(|id| repository.manifest(id).unwrap().reach.packs).collect();
        let packs = memory.names().into_iter().filter(|name| name.starts_with("packs/")).count();
        prop_assert_eq!(packs, needed.len());
    }
}
