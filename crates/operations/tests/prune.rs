//! Giving points up, on a repository in memory and at any time that a test likes.

#![allow(clippy::unwrap_used)]

use mainstay_domain::{
    Clock, Kind, PackId, PointId, Silent, Time,
    point::{Point, ProofLevel, SourceRecord, State, Stream, Summary},
    stream::{Pool, Sink},
    time::{DAY, Span},
};
use mainstay_keys::secret::Secret;
use mainstay_operations::{config::Config, manage, points, prune, verify};
use mainstay_repository::{Access, Repository, Session, Tuning, log::entry::object_name, stream::Chunking};
use mainstay_stores::{MemoryStore, Store};
use std::{
    collections::BTreeSet,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

const CONFIG: &str = r#"
version: 1
stores:
  local: { url: "file:///nowhere" }
repositories:
  main: { key: { env: MAINSTAY_KEY }, stores: [local] }
apps:
  shop:
    repository: main
    sources:
      uploads: { files: { paths: [/nowhere] } }
    policies:
      nightly: { schedule: "0 3 * * *", keep: { last: 1 } }
"#;

/// A day later each time that a backup is made.
struct Calendar(AtomicI64);

impl Clock for Calendar {
    fn now(&self) -> Time {
        Time(self.0.load(Ordering::Relaxed))
    }
}

struct Shop {
    memory: MemoryStore,
    clock: Arc<Calendar>,
    repository: Repository,
}

impl Shop {
    fn new() -> Shop {
        let memory = MemoryStore::new();
        let clock = Arc::new(Calendar(AtomicI64::new(1_700_000_000_000_000_000)));
        let access = || Access {
            store: Arc::new(memory.clone()),
            secret: Secret::Key([7; 32]),
            clock: clock.clone(),
            cache: None,
        };
        let chunking = Chunking { minimum: 1 << 10, average: 4 << 10, maximum: 16 << 10 };
        Repository::init(&access(), "test", chunking).unwrap();
        let repository = Repository::open(access(), None).unwrap();
        Shop { memory, clock, repository }
    }

    fn back_up(&self, sequence: u64) -> PointId {
        let at = Time(self.clock.0.fetch_add(DAY, Ordering::Relaxed) + DAY);
        let tuning = Tuning { level: Some(1), ..Tuning::default() };
        let session = Session::begin(&self.repository, tuning).unwrap();
        let content = session.put_reader(Pool::Data, &mut &sequence.to_be_bytes().repeat(1000)[..]).unwrap();
        let source = SourceRecord {
            name: "uploads".into(),
            kind: "bytes".into(),
            state: State::Complete,
            started: at,
            finished: at,
            consistent_at: None,
            streams: vec![Stream { name: "bytes".into(), content }],
            facts: "{}".into(),
            problems: Vec::new(),
            bytes: 8000,
            items: 1,
            partial: false,
        };
        let summary = Summary {
            app: "shop".into(),
            environment: "production".into(),
            policy: Some("nightly".into()),
            host: "here".into(),
            started: at,
            finished: at,
            sequence,
            state: State::Complete,
            sources: Vec::new(),
            stored_bytes: 0,
            labels: Default::default(),
            next_expected: None,
            keep_until: None,
        };
        let point =
            Point { summary, sources: vec![source], previous: None, supersedes: None, tool: "test".into() };
        session.commit(|_| point).unwrap().point
    }

    fn plan(&self) -> mainstay_domain::Result<prune::Plan> {
        self.plan_by(Span { nanoseconds: 0 }, false)
    }

    fn plan_by(&self, grace: Span, accept_clock: bool) -> mainstay_domain::Result<prune::Plan> {
        let config = Config::parse(CONFIG, Path::new("mainstay.yaml")).unwrap();
        prune::plan(&config, "main", &self.repository, self.clock.now(), grace, accept_clock)
    }

    fn info(&self, id: PointId) -> points::PointInfo {
        points::list(&self.repository, None).unwrap().into_iter().find(|p| p.id == id).unwrap()
    }

    fn hold(&self, id: PointId, days: i64) {
        let span = Span { nanoseconds: days * DAY };
        manage::hold(
            &self.repository,
            &self.info(id),
            "incident",
            "a look",
            "alice",
            Some(span),
            &*self.clock,
        )
        .unwrap();
    }

    fn live(&self) -> Vec<PointId> {
        points::list(&self.repository, None).unwrap().into_iter().map(|point| point.id).collect()
    }
}

#[test]
fn a_hold_that_ran_out_is_released_in_the_open_and_its_point_goes() {
    let shop = Shop::new();
    let first = shop.back_up(1);
    shop.hold(first, 2);
    let second = shop.back_up(2);
    let held = shop.plan().unwrap();
    assert_eq!((held.dropped().count(), held.expired.len()), (0, 0), "the hold keeps it");
    let third = shop.back_up(3);
    let fourth = shop.back_up(4);

    let plan = shop.plan().unwrap();
    let holds = &plan.expired[&first];
    assert_eq!(holds.len(), 1, "the plan says that the hold is released");
    prune::execute(&shop.repository, &plan, "bob", &Silent).unwrap();
    assert_eq!(shop.live(), [fourth]);
    assert!([first, second, third].iter().all(|gone| plan.dropped().any(|d| d.point == *gone)));
}

#[test]
fn nothing_goes_because_the_clock_was_set_forward_until_somebody_says_that_it_is_right() {
    let shop = Shop::new();
    let first = shop.back_up(1);
    let second = shop.back_up(2);
    let third = shop.back_up(3);
    shop.hold(second, 30);
    let grace = Span { nanoseconds: 3 * DAY };
    let ids = |points: &[PointId]| points.iter().copied().collect();
    let dropped = |plan: &prune::Plan| plan.dropped().map(|d| d.point).collect::<BTreeSet<_>>();
    assert_eq!(dropped(&shop.plan_by(grace, false).unwrap()), ids(&[]));

    // By the clock it is a year later: the hold would have run out, and all but the newest would be free to go.
    shop.clock.0.fetch_add(365 * DAY, Ordering::Relaxed);
    let jumped = shop.plan_by(grace, false).unwrap();
    assert_eq!(dropped(&jumped), ids(&[]));
    assert_eq!(jumped.clock_keeps, ids(&[first, second]));
    assert!(jumped.expired.is_empty(), "no hold runs out by that clock");
    prune::execute(&shop.repository, &jumped, "bob", &Silent).unwrap();
    // What a prune writes does not vouch for its own clock.
    let again = shop.plan_by(grace, false).unwrap();
    assert_eq!(dropped(&again), ids(&[]));
    let refused = manage::delete(
        &shop.repository,
        &[shop.info(second)],
        &|_, _| true,
        "bob",
        "by hand",
        shop.clock.now(),
        |_| {},
    );
    assert_eq!(refused.unwrap_err().kind, Kind::Refused, "it is held");
    assert_eq!(shop.live(), [first, second, third]);

    let accepted = shop.plan_by(grace, true).unwrap();
    assert_eq!((dropped(&accepted), accepted.clock_keeps.len()), (ids(&[first, second]), 0));
    prune::execute(&shop.repository, &accepted, "bob", &Silent).unwrap();
    assert_eq!(shop.live(), [third]);
}

#[test]
fn a_clock_within_a_day_of_the_newest_point_is_believed() {
    let shop = Shop::new();
    let points = [shop.back_up(1), shop.back_up(2)];
    let grace = Span { nanoseconds: DAY };
    shop.clock.0.fetch_add(DAY, Ordering::Relaxed);
    let plan = shop.plan_by(grace, false).unwrap();
    assert_eq!(plan.dropped().map(|d| d.point).collect::<Vec<_>>(), points[..1]);
    assert!(plan.clock_keeps.is_empty());
}

#[test]
fn a_hold_that_was_placed_after_the_plan_wins() {
    let shop = Shop::new();
    let points = [shop.back_up(1), shop.back_up(2)];
    let plan = shop.plan().unwrap();
    assert_eq!(plan.dropped().map(|d| d.point).collect::<Vec<_>>(), [points[0]]);
    shop.hold(points[0], 30);
    prune::execute(&shop.repository, &plan, "bob", &Silent).unwrap();
    assert_eq!(shop.live(), points);
}

#[test]
fn a_point_whose_hold_ran_out_can_be_deleted_by_hand_and_a_held_one_cannot() {
    let shop = Shop::new();
    let points = [shop.back_up(1), shop.back_up(2), shop.back_up(3)];
    shop.hold(points[0], 1);
    shop.hold(points[1], 30);
    let later = shop.clock.now().plus(2 * DAY);
    let delete = |id: PointId| {
        manage::delete(&shop.repository, &[shop.info(id)], &|_, _| true, "bob", "by hand", later, |_| {})
    };
    delete(points[0]).unwrap();
    assert_eq!(delete(points[1]).unwrap_err().kind, Kind::Refused);
    assert_eq!(shop.live(), points[1..]);
}

#[test]
fn a_point_that_needs_a_lost_pack_takes_no_others_place_before_or_after_the_plan() {
    let shop = Shop::new();
    let [first, second] = [shop.back_up(1), shop.back_up(2)];
    let planned = shop.plan().unwrap();
    assert_eq!(planned.dropped().map(|d| d.point).collect::<Vec<_>>(), [first]);

    let packs = |id: &PointId| -> BTreeSet<PackId> {
        shop.repository.manifest(id).unwrap().reach.packs.into_iter().collect()
    };
    let lost = &packs(&second) - &packs(&first);
    assert!(!lost.is_empty());
    shop.repository.record_lost(&lost, &Default::default()).unwrap();
    prune::execute(&shop.repository, &planned, "bob", &Silent).unwrap();
    assert_eq!(shop.live(), [first, second], "the plan did not know yet");
    assert_eq!(shop.plan().unwrap().dropped().count(), 0);

    let third = shop.back_up(3);
    let plan = shop.plan().unwrap();
    prune::execute(&shop.repository, &plan, "bob", &Silent).unwrap();
    assert_eq!(shop.live(), [third], "a whole one takes the place of both");
}

#[test]
fn a_damaged_index_segment_keeps_only_those_points_from_counting_whose_packs_it_named() {
    let shop = Shop::new();
    let [first, second] = [shop.back_up(1), shop.back_up(2)];
    let segment = |id: &PointId| {
        let state = shop.repository.state().unwrap();
        format!("index/{}", state.facts.points[id].index[0])
    };
    let look = |level| {
        let all = points::list(&shop.repository, None).unwrap();
        let report = verify::check(&shop.repository, &all, level, &Silent).unwrap();
        let passed = [first, second].map(|id| shop.info(id).proofs[&level].passed);
        (report.findings.into_iter().map(|f| (f.object, f.points)).collect::<Vec<_>>(), passed)
    };
    shop.memory.overwrite(&segment(&second), b"damage");
    for level in [ProofLevel::Objects, ProofLevel::Packs, ProofLevel::Data] {
        assert_eq!(look(level), (vec![(segment(&second), vec![second])], [true, false]), "{level:?}");
    }
    assert_eq!(shop.plan().unwrap().dropped().count(), 0, "it takes no other's place");

    // The next collection makes the segment anew from the packs, when it rewrites the index.
    let third = shop.back_up(3);
    manage::delete(
        &shop.repository,
        &[shop.info(third)],
        &|_, _| true,
        "bob",
        "so that something goes",
        shop.clock.now(),
        |_| {},
    )
    .unwrap();
    for _ in 0..2 {
        mainstay_repository::collect::collect(&shop.repository, 0, &Silent).unwrap();
    }
    assert_eq!(look(ProofLevel::Data), (vec![], [true, true]));
    assert_eq!(shop.plan().unwrap().dropped().map(|d| d.point).collect::<Vec<_>>(), [first]);
}

#[test]
fn nothing_is_planned_or_deleted_while_the_log_is_in_doubt() {
    let shop = Shop::new();
    let points = [shop.back_up(1), shop.back_up(2), shop.back_up(3)];
    let plan = shop.plan().unwrap();
    // An entry by nobody, where the next one will stand.
    let next = object_name(shop.repository.state().unwrap().head + 1);
    shop.memory.create(&next, b"what may this have said?").unwrap();
    let all = points::list(&shop.repository, None).unwrap();
    let refused = [
        shop.plan().unwrap_err(),
        prune::execute(&shop.repository, &plan, "bob", &Silent).unwrap_err(),
        manage::delete(&shop.repository, &all[..1], &|_, _| true, "bob", "by hand", shop.clock.now(), |_| {})
            .unwrap_err(),
    ];
    for failure in refused {
        assert_eq!(failure.kind, Kind::Refused, "{failure}");
        assert!(failure.hint.as_deref().unwrap().contains("repair --acknowledge"), "{failure:?}");
    }
    assert_eq!(shop.live(), points);
}
