//! Random histories against a model: whatever is backed up, dropped, collected, interrupted and reopened, every live point gives
//! back its bytes, and only those points are live that the model says.

use crate::support::*;
use mainstay_domain::{PointId, Silent};
use mainstay_repository::{
    Session,
    check::{Depth, check},
    collect::collect,
};
use mainstay_stores::{MemoryStore, Store};
use proptest::prelude::*;
use std::{collections::BTreeMap, sync::Arc};

#[derive(Debug, Clone)]
enum Step {
    /// Streams by the seed of their bytes: equal seeds share chunks.
    BackUp(Vec<(u64, usize)>),
    /// A session that stores something and goes away without a word.
    Vanish(u64),
    DropPoint(usize),
    Collect,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop::collection::vec((0u64..12, 0usize..60_000), 1..4).prop_map(Step::BackUp),
        1 => (0u64..20).prop_map(Step::Vanish),
        2 => (0usize..8).prop_map(Step::DropPoint),
        2 => Just(Step::Collect),
        1 => Just(Step::Reopen),
    ]
}

const NAMES: [&str; 3] = ["a", "b", "c"];

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn every_live_point_gives_back_what_was_put_in(steps in prop::collection::vec(step(), 1..16)) {
        let memory = MemoryStore::new();
        let store: Arc<dyn Store> = Arc::new(memory.clone());
        let mut repository = create(&store);
        let mut model: BTreeMap<PointId, Vec<Vec<u8>>> = BTreeMap::new();
        for step in steps {
            match step {
                Step::BackUp(seeds) => {
                    let bytes: Vec<_> = seeds.iter().map(|(seed, length)| noise(*seed, *length)).collect();
                    let streams: Vec<_> = NAMES.iter().copied().zip(bytes.iter().cloned()).collect();
                    model.insert(back_up(&repository, &streams).point, bytes);
                }
                Step::Vanish(seed) => {
                    use mainstay_domain::stream::{Pool, Sink};
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
        for (point, streams) in &model {
            for (n, bytes) in streams.iter().take(NAMES.len()).enumerate() {
                prop_assert!(read(&repository, point, n).unwrap() == *bytes);
            }
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
