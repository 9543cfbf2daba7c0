//! Work that is done once, although a plan and a request may both ask for it.
//!
//! A key is planned, then somebody's turn, then done: its result is kept until it is taken or no plan wants it any more. Whoever
//! asks for a key whose turn somebody has waits for the result; whoever asks for one that is only planned gets the turn. A turn
//! that ends without a result (an error, a panic) leaves the key to the next who asks. Holds no more than the last plan names.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

pub struct Turns<K: Ord + Clone, R> {
    state: Mutex<State<K, R>>,
    changed: Condvar,
}

struct State<K, R> {
    wanted: BTreeSet<K>,
    planned: VecDeque<K>,
    working: BTreeSet<K>,
    done: BTreeMap<K, R>,
    closed: bool,
}

/// What a request for a key finds.
pub enum Found<'t, K: Ord + Clone, R> {
    Done(R),
    Turn(Turn<'t, K, R>),
}

impl<K: Ord + Clone, R> Default for Turns<K, R> {
    fn default() -> Self {
        let state = State {
            wanted: BTreeSet::new(),
            planned: VecDeque::new(),
            working: BTreeSet::new(),
            done: BTreeMap::new(),
            closed: false,
        };
        Turns { state: Mutex::new(state), changed: Condvar::new() }
    }
}

impl<K: Ord + Clone, R> Turns<K, R> {
    /// The result of a key, waited for if it is being worked on; or the turn to make it.
    pub fn take(&self, key: &K) -> Found<'_, K, R> {
        let mut state = self.state();
        loop {
            if let Some(result) = state.done.remove(key) {
                return Found::Done(result);
            }
            if !state.working.contains(key) {
                state.planned.retain(|planned| planned != key);
                return Found::Turn(self.turn(&mut state, key.clone()));
            }
            state = self.wait(state);
        }
    }

    /// The turn of what is planned next, waited for; `None` once closed.
    pub fn next(&self) -> Option<Turn<'_, K, R>> {
        let mut state = self.state();
        loop {
            if state.closed {
                return None;
            }
            if let Some(key) = state.planned.pop_front() {
                return Some(self.turn(&mut state, key));
            }
            state = self.wait(state);
        }
    }

    /// Replaces the plan: what comes `next`, in this order, after what is asked for `now`. Other results are given up.
    pub fn plan(&self, now: &K, next: Vec<K>) {
        let mut state = self.state();
        state.wanted = next.iter().chain([now]).cloned().collect();
        let State { wanted, planned, working, done, .. } = &mut *state;
        done.retain(|key, _| wanted.contains(key));
        *planned = next.into_iter().filter(|key| !done.contains_key(key) && !working.contains(key)).collect();
        self.changed.notify_all();
    }

    /// Gives up what is planned and not begun.
    pub fn stop_planned(&self) {
        self.state().planned.clear();
    }

    /// Whether something planned still waits for its turn.
    pub fn is_behind(&self) -> bool {
        !self.state().planned.is_empty()
    }

    /// Ends [`next`](Turns::next) for everybody.
    pub fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }

    fn turn(&self, state: &mut State<K, R>, key: K) -> Turn<'_, K, R> {
        state.working.insert(key.clone());
        Turn { turns: self, key }
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State<K, R>>) -> MutexGuard<'s, State<K, R>> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State<K, R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to work on a key; everybody else waits until it is dropped.
pub struct Turn<'t, K: Ord + Clone, R> {
    turns: &'t Turns<K, R>,
    key: K,
}

impl<K: Ord + Clone, R> Turn<'_, K, R> {
    pub fn key(&self) -> &K {
        &self.key
    }

    /// Keeps the result for whoever asks, if the plan still names the key.
    pub fn keep(self, result: R) {
        let mut state = self.turns.state();
        if state.wanted.contains(&self.key) {
            state.done.insert(self.key.clone(), result);
        }
    }
}

impl<K: Ord + Clone, R> Drop for Turn<'_, K, R> {
    fn drop(&mut self) {
        self.turns.state().working.remove(&self.key);
        self.turns.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(turns: &Turns<u32, u32>, key: u32) -> Turn<'_, u32, u32> {
        match turns.take(&key) {
            Found::Turn(turn) => turn,
            Found::Done(_) => panic!("{key} is not done"),
        }
    }

    #[test]
    fn a_result_is_given_once_and_only_while_the_plan_wants_it() {
        let turns = Turns::default();
        turns.plan(&0, vec![1, 2, 3]);
        turns.next().unwrap().keep(10);
        turns.next().unwrap().keep(20);
        assert!(matches!(turns.take(&1), Found::Done(10)));
        drop(turn(&turns, 1));
        turns.plan(&0, vec![3, 4]);
        drop(turn(&turns, 2));
        assert_eq!(*turns.next().unwrap().key(), 3);
        turn(&turns, 9).keep(90);
        drop(turn(&turns, 9));
    }

    #[test]
    fn who_asks_for_what_is_only_planned_gets_the_turn_and_nobody_else_does() {
        let turns = Turns::<u32, u32>::default();
        turns.plan(&0, vec![1, 2]);
        let _one = turn(&turns, 1);
        assert_eq!(*turns.next().unwrap().key(), 2);
        assert!(!turns.is_behind());
    }

    #[test]
    fn who_asks_while_another_works_gets_that_result() {
        let turns = Turns::default();
        turns.plan(&0, vec![1]);
        let working = turns.next().unwrap();
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| matches!(turns.take(&1), Found::Done(10)));
            working.keep(10);
            assert!(asked.join().unwrap());
        });
    }

    #[test]
    fn a_turn_that_fails_leaves_the_key_to_the_next() {
        let turns = Turns::<u32, u32>::default();
        turns.plan(&0, vec![1]);
        drop(turns.next().unwrap());
        drop(turn(&turns, 1));
        turns.close();
        assert!(turns.next().is_none());
    }
}
