//! Rows, and what comes after rows (indexes, constraints, triggers, policies …), on several connections at once.
//!
//! Rows come first: those of critical tables before those of important and nice ones, so that what matters most is there
//! when the rest breaks off; among equals, those that make the most work. An index, or a constraint that is one, may be
//! built as soon as its table has its rows; everything that checks other tables or reacts to rows waits until all rows are in. An entry may begin
//! when all that it depends on is done. Two entries that change the same table never run together: only the building of
//! indexes shares a table.

use super::{
    Work,
    chosen::{Chosen, ChosenEntry, RELATIONS, Stage},
    load::{Load, Loaded, Outcome, Tally, loads},
    maker::Maker,
};
use crate::postgres::facts::Priority;
use mainstay_domain::{Failure, Result};
use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet, VecDeque},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

struct Item<'a> {
    chosen: &'a ChosenEntry<'a>,
    /// Entries of this stage that must be done before.
    needs: Vec<u32>,
    tables: Vec<u32>,
    /// It builds an index: it may begin before the rows of other tables are in.
    builds: bool,
    /// It may share its tables with others that do.
    shares: bool,
    /// Of the most important of its tables.
    priority: Priority,
    /// Work, measured in bytes of rows that would take as long to load.
    weight: u64,
}

enum Job<'a> {
    Load(Load<'a>, Round),
    Make(Item<'a>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Round {
    First,
    Second,
}

struct Board<'a> {
    loads: VecDeque<Load<'a>>,
    round: Round,
    loading: usize,
    /// Refused in the first round.
    refused: Vec<Load<'a>>,
    /// Loads that are still to be done, by the entry of their table.
    without_rows: HashMap<u32, usize>,
    tally: Tally<'a>,
    open: Vec<Item<'a>>,
    /// Entries under way: id, tables, whether it shares them.
    making: Vec<(u32, Vec<u32>, bool)>,
    undone: HashSet<u32>,
    stopped: bool,
}

impl<'a> Board<'a> {
    fn rows_done(&self) -> bool {
        self.loads.is_empty() && self.loading == 0 && self.refused.is_empty()
    }

    fn over(&self) -> bool {
        self.stopped || (self.rows_done() && self.open.is_empty())
    }

    /// What may begin now.
    fn next(&mut self, work: &Work<'_>, chosen: &Chosen<'_>) -> Option<Job<'a>> {
        if self.loads.is_empty() && self.loading == 0 && !self.refused.is_empty() {
            self.round = Round::Second;
            self.loads =
                std::mem::take(&mut self.refused).into_iter().map(|l| l.again(work, chosen)).collect();
        }
        if let Some(load) = self.loads.pop_front() {
            self.loading += 1;
            return Some(Job::Load(load, self.round));
        }
        let rows_done = self.rows_done();
        let free = |item: &Item<'_>| {
            self.making.iter().all(|(_, tables, shares)| {
                (item.shares && *shares) || !item.tables.iter().any(|t| tables.contains(t))
            })
        };
        let ready = |item: &Item<'_>| !item.needs.iter().any(|id| self.undone.contains(id));
        let filled = |item: &Item<'_>| {
            rows_done || (item.builds && !item.tables.iter().any(|t| self.without_rows.contains_key(t)))
        };
        let at = self.open.iter().position(|item| filled(item) && ready(item) && free(item));
        let at = at.or_else(|| {
            // Circular dependencies: any order is as good as another.
            (rows_done && self.making.is_empty() && !self.open.is_empty()).then_some(0)
        })?;
        let item = self.open.remove(at);
        self.making.push((item.chosen.entry.id, item.tables.clone(), item.shares));
        Some(Job::Make(item))
    }

    fn loaded(&mut self, work: &Work<'_>, load: Load<'a>, round: Round, outcome: &Outcome) {
        self.loading -= 1;
        self.tally.take(work, &load, outcome, round == Round::Second);
        if round == Round::First && matches!(outcome, Outcome::Refused(_)) {
            self.refused.push(load);
            return;
        }
        if let Some(left) = load.entry.and_then(|id| self.without_rows.get_mut(&id)) {
            *left -= 1;
        }
        self.without_rows.retain(|_, left| *left > 0);
    }

    fn made(&mut self, id: u32) {
        self.making.retain(|(making, ..)| *making != id);
        self.undone.remove(&id);
    }
}

/// Loads all rows and makes all that comes after them.
pub(super) fn rows_and_after<'a>(work: &'a Work<'a>, maker: &mut Maker<'a>) -> Result<Loaded> {
    let chosen = maker.chosen;
    let (items, mut loads) = (items(work, chosen), loads(work, chosen, &maker.failed));
    // What a table's indexes will cost counts, too: they can only begin when its rows are in.
    let mut after: HashMap<u32, u64> = HashMap::new();
    for item in items.iter().filter(|i| i.builds) {
        for table in &item.tables {
            *after.entry(*table).or_default() += item.weight;
        }
    }
    let weight = |l: &Load<'_>| l.bytes + l.entry.and_then(|id| after.get(&id)).copied().unwrap_or(0);
    loads.sort_by_key(|l| (l.table.priority, Reverse(weight(l))));
    let mut without_rows: HashMap<u32, usize> = HashMap::new();
    for id in loads.iter().filter_map(|l| l.entry) {
        *without_rows.entry(id).or_default() += 1;
    }
    work.monitor.step("rows", Some(loads.iter().map(|l| l.bytes).sum()));
    if loads.is_empty() {
        work.monitor.done("rows", "");
        work.monitor.step("indexes and constraints", None);
    }
    let workers = work.options.jobs.clamp(1, (items.len() + loads.len()).max(1));
    let board = Mutex::new(Board {
        loads: loads.into(),
        round: Round::First,
        loading: 0,
        refused: Vec::new(),
        without_rows,
        tally: Tally::default(),
        undone: items.iter().map(|i| i.chosen.entry.id).collect(),
        open: items,
        making: Vec::new(),
        stopped: false,
    });
    let changed = Condvar::new();
    let failed_before = maker.failed.clone();
    let failed: Vec<HashSet<u32>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..workers)
            .map(|_| {
                scope.spawn(|| {
                    let made = work.connect_for_archive().and_then(|c| Maker::on(work, chosen, c));
                    let outcome = made.and_then(|mut maker| {
                        maker.failed = failed_before.clone();
                        work_off(&mut maker, &board, &changed)?;
                        Ok(maker.failed)
                    });
                    if outcome.is_err() {
                        lock(&board).stopped = true;
                        changed.notify_all();
                    }
                    outcome
                })
            })
            .collect();
        let joined: Vec<Result<HashSet<u32>, Failure>> =
            threads.into_iter().map(|t| t.join().expect("a worker does not panic")).collect();
        joined.into_iter().collect::<Result<Vec<_>>>()
    })?;
    maker.failed.extend(failed.into_iter().flatten());
    let board = board.into_inner().unwrap_or_else(PoisonError::into_inner);
    work.monitor.done("indexes and constraints", "");
    Ok(board.tally.finish(work, chosen))
}

fn lock<'b, 'a>(board: &'b Mutex<Board<'a>>) -> MutexGuard<'b, Board<'a>> {
    board.lock().unwrap_or_else(PoisonError::into_inner)
}

fn work_off<'a>(maker: &mut Maker<'a>, board: &Mutex<Board<'a>>, changed: &Condvar) -> Result<()> {
    let work = maker.work;
    loop {
        let mut locked = lock(board);
        let job = loop {
            if locked.over() {
                return Ok(());
            }
            if let Some(job) = locked.next(work, maker.chosen) {
                break job;
            }
            locked = changed.wait(locked).unwrap_or_else(PoisonError::into_inner);
        };
        drop(locked);
        work.check_cancelled()?;
        match job {
            Job::Load(load, round) => {
                let outcome = load.run(work, &mut maker.connection)?;
                let mut locked = lock(board);
                locked.loaded(work, load, round, &outcome);
                if locked.rows_done() {
                    work.monitor.done("rows", "");
                    work.monitor.step("indexes and constraints", None);
                }
            }
            Job::Make(item) => {
                maker.make(item.chosen)?;
                lock(board).made(item.chosen.entry.id);
            }
        }
        changed.notify_all();
    }
}

/// What an entry costs beside loading its table's rows, in tenths. Measured on a few tables; only the order hangs on it.
fn cost(chosen: &ChosenEntry<'_>) -> u64 {
    let has = |word: &[u8]| chosen.entry.definition.windows(word.len()).any(|w| w == word);
    match chosen.entry.kind.as_str() {
        "INDEX" | "CONSTRAINT" if has(b"USING gin ") => 15,
        "INDEX" | "CONSTRAINT" if has(b"USING gist ") || has(b"USING spgist ") => 20,
        "INDEX" | "CONSTRAINT" => 3,
        _ => 1,
    }
}

fn items<'a>(work: &'a Work<'a>, chosen: &'a Chosen<'a>) -> Vec<Item<'a>> {
    let of_stage: HashSet<u32> = chosen.in_stage(Stage::PostData).map(|c| c.entry.id).collect();
    let tables: HashMap<(&str, &str), (Priority, u64)> = work
        .facts
        .tables
        .iter()
        .map(|t| ((t.schema.as_str(), t.name.as_str()), (t.priority, t.bytes)))
        .collect();
    let relations: HashMap<u32, (Priority, u64)> = work
        .archive
        .entries
        .iter()
        .filter(|e| RELATIONS.contains(&e.kind.as_str()))
        .map(|e| {
            let (schema, name) = (work.archive.text(&e.schema), work.archive.text(&e.tag));
            (e.id, tables.get(&(schema.as_str(), name.as_str())).copied().unwrap_or((Priority::Nice, 0)))
        })
        .collect();
    let mut items: Vec<Item<'a>> = chosen
        .entries
        .iter()
        .filter(|c| c.stage == Stage::PostData)
        .map(|c| {
            let dependencies = &c.entry.dependencies;
            let tables: Vec<u32> =
                dependencies.iter().copied().filter(|id| relations.contains_key(id)).collect();
            Item {
                needs: dependencies.iter().copied().filter(|id| of_stage.contains(id)).collect(),
                priority: tables.iter().map(|id| relations[id].0).min().unwrap_or(Priority::Nice),
                weight: tables.iter().map(|id| relations[id].1).max().unwrap_or(0) * cost(c) / 10,
                tables,
                builds: matches!(c.entry.kind.as_str(), "INDEX" | "CONSTRAINT"),
                shares: c.entry.kind == "INDEX",
                chosen: c,
            }
        })
        .collect();
    // Stable: among equals, and for what no table weighs, the archive's order.
    items.sort_by_key(|item| (item.priority, Reverse(item.weight)));
    items
}
