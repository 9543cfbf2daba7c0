//! A store that fails on purpose: for simulating crashes, lost answers, full disks and lagging listings.
//!
//! Before each call a decision (a closure, or a [`script`] of [`Rule`]s) says what goes wrong. Decisions are made one at a
//! time and in order, so a simulation with one thread is repeated exactly by the same decisions.

use crate::{Listed, Store, StoreError, Verb};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    ops::ControlFlow,
    sync::{Arc, Mutex, MutexGuard},
};

/// A call that is about to be made.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    pub verb: Verb,
    /// The object, or the prefix of a list.
    pub name: &'a str,
    /// Number of calls of any kind before this one.
    pub ordinal: usize,
}

/// What goes wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails and had no effect.
    Unavailable,
    /// It fails for want of space and had no effect.
    Full,
    /// It is refused and had no effect.
    Denied,
    /// It took effect, or not; the caller only learns that the answer was lost.
    LostAnswer { took_effect: bool },
    /// A create took effect and can be seen, but does not last until it was sent again; the caller only learns that this is
    /// not clear. [`FailingStore::cut_power`] takes it away.
    NotDurable,
    /// It took effect, and the store says wrongly that it failed: what no store should do, and some do.
    DeniedAfterEffect,
    /// The process dies at this call: it took effect or not, and it and every later call fails.
    Die { took_effect: bool },
}

/// Decides about each call; `None`: nothing goes wrong.
pub type Decide = Box<dyn FnMut(&Attempt<'_>) -> Option<Fault> + Send>;

/// One line of a script: the `nth` call (from 0) of this verb whose name begins with `prefix` has this fault.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Any verb if `None`.
    pub verb: Option<Verb>,
    pub prefix: String,
    pub nth: usize,
    pub fault: Fault,
}

/// A decision that follows rules. Each rule counts for itself, and each applies once; the first that applies wins.
pub fn script(rules: impl IntoIterator<Item = Rule>) -> Decide {
    let mut rules: Vec<(Rule, usize)> = rules.into_iter().map(|rule| (rule, 0)).collect();
    Box::new(move |attempt| {
        let mut fault = None;
        for (rule, seen) in &mut rules {
            if rule.verb.is_none_or(|verb| verb == attempt.verb) && attempt.name.starts_with(&rule.prefix) {
                if *seen == rule.nth && fault.is_none() {
                    fault = Some(rule.fault);
                }
                *seen += 1;
            }
        }
        fault
    })
}

struct State {
    decide: Decide,
    ordinal: usize,
    dead: bool,
    /// Objects that a power cut takes away.
    fleeting: BTreeSet<String>,
    /// Bytes that creates may still use.
    space: Option<u64>,
    /// How many operations a listing lags behind, and the writes that it may not show yet, oldest first.
    lag: usize,
    recent: VecDeque<Change>,
}

/// A write that listings may not show yet.
struct Change {
    ordinal: usize,
    name: String,
    /// The size that a deleted object had; `None` for a created one.
    deleted: Option<u64>,
}

/// Clones share their state, as the threads of one process do.
pub struct FailingStore<S> {
    inner: S,
    state: Arc<Mutex<State>>,
}

impl<S: Clone> Clone for FailingStore<S> {
    fn clone(&self) -> Self {
        FailingStore { inner: self.inner.clone(), state: self.state.clone() }
    }
}

impl<S: Store> FailingStore<S> {
    pub fn new(inner: S, decide: impl FnMut(&Attempt<'_>) -> Option<Fault> + Send + 'static) -> Self {
        let state = State {
            decide: Box::new(decide),
            ordinal: 0,
            dead: false,
            fleeting: BTreeSet::new(),
            space: None,
            lag: 0,
            recent: VecDeque::new(),
        };
        FailingStore { inner, state: Arc::new(Mutex::new(state)) }
    }

    /// Nothing goes wrong by itself; for use with a limited space or lagging listings.
    pub fn faultless(inner: S) -> Self {
        FailingStore::new(inner, |_| None)
    }

    /// The process dies at call number `ordinal` (from 0), before or after it took effect.
    pub fn dying_at(inner: S, ordinal: usize, took_effect: bool) -> Self {
        FailingStore::new(inner, move |attempt| {
            (attempt.ordinal == ordinal).then_some(Fault::Die { took_effect })
        })
    }

    /// From now on creates of more than `bytes` in total fail with [`StoreError::Full`]; a delete gives nothing back.
    pub fn with_space(self, bytes: u64) -> Self {
        self.lock().space = Some(bytes);
        self
    }

    /// Listings hide what was created in the last `operations` calls, and still show what was deleted in them.
    pub fn with_lagging_lists(self, operations: usize) -> Self {
        self.lock().lag = operations;
        self
    }

    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// How many calls were made.
    pub fn calls(&self) -> usize {
        self.lock().ordinal
    }

    /// Whether a [`Fault::Die`] has struck.
    pub fn is_dead(&self) -> bool {
        self.lock().dead
    }

    /// What is not durable is gone.
    pub fn cut_power(&self) {
        for name in std::mem::take(&mut self.lock().fleeting) {
            let _ = self.inner.delete(&name);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Makes the call `act`, with whatever goes wrong. `bytes`: what a create wants to store.
    fn call<T>(
        &self,
        verb: Verb,
        name: &str,
        bytes: Option<u64>,
        act: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let fault = self.decide(verb, name, bytes);
        match fault {
            None => {
                let result = act();
                if verb == Verb::Create {
                    self.lock().fleeting.remove(name); // whoever is told that it exists may build on it
                }
                result
            }
            Some(fault @ Fault::NotDurable) => {
                if act().is_ok() && verb == Verb::Create {
                    self.lock().fleeting.insert(name.to_owned());
                }
                Err(self.error(name, fault))
            }
            Some(
                fault @ (Fault::LostAnswer { took_effect: true }
                | Fault::DeniedAfterEffect
                | Fault::Die { took_effect: true }),
            ) => {
                let _ = act();
                Err(self.error(name, fault))
            }
            Some(fault) => Err(self.error(name, fault)),
        }
    }

    fn decide(&self, verb: Verb, name: &str, bytes: Option<u64>) -> Option<Fault> {
        let mut state = self.lock();
        if state.dead {
            return Some(Fault::Die { took_effect: false });
        }
        let ordinal = state.ordinal;
        state.ordinal += 1;
        let mut fault = (state.decide)(&Attempt { verb, name, ordinal });
        if let (None, Some(wanted), Some(left)) = (fault, bytes, state.space) {
            match left.checked_sub(wanted) {
                Some(rest) => state.space = Some(rest),
                None => fault = Some(Fault::Full),
            }
        }
        state.dead = matches!(fault, Some(Fault::Die { .. }));
        fault
    }

    /// Remembers a write for lagging listings.
    fn remember(&self, name: &str, deleted: Option<u64>) {
        let mut state = self.lock();
        if state.lag > 0 {
            let ordinal = state.ordinal;
            state.recent.push_back(Change { ordinal, name: name.to_owned(), deleted });
        }
    }

    /// What a listing of `prefix` gets wrong now: by name, `None` for hidden, a size for still shown.
    fn lagging(&self, prefix: &str) -> BTreeMap<String, Option<u64>> {
        let mut state = self.lock();
        let (now, lag) = (state.ordinal, state.lag);
        state.recent.retain(|change| change.ordinal + lag >= now);
        let mut wrong = BTreeMap::new();
        for change in &state.recent {
            // Of several changes the listing still shows the state before the first.
            if change.name.starts_with(prefix) {
                wrong.entry(change.name.clone()).or_insert(change.deleted);
            }
        }
        wrong
    }

    fn error(&self, name: &str, fault: Fault) -> StoreError {
        let (store, name) = (self.inner.describe(), name.to_owned());
        let source = |text: &str| io::Error::other(text.to_owned());
        match fault {
            Fault::Unavailable => {
                StoreError::Unavailable { store, name, source: source("failed on purpose") }
            }
            Fault::Full => {
                StoreError::Full { store, name, source: io::Error::from(io::ErrorKind::StorageFull) }
            }
            Fault::Denied | Fault::DeniedAfterEffect => {
                StoreError::Denied { store, name, source: io::Error::from(io::ErrorKind::PermissionDenied) }
            }
            Fault::LostAnswer { .. } | Fault::NotDurable => {
                StoreError::Unclear { store, name, source: source("answer lost on purpose") }
            }
            Fault::Die { .. } => {
                StoreError::Unavailable { store, name, source: source("the process is dead") }
            }
        }
    }
}

impl<S: Store> Store for FailingStore<S> {
    fn create(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.call(Verb::Create, name, Some(bytes.len() as u64), || {
            let result = self.inner.create(name, bytes);
            if result.is_ok() {
                self.remember(name, None);
            }
            result
        })
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, StoreError> {
        self.call(Verb::Read, name, None, || self.inner.read(name))
    }

    fn read_range(&self, name: &str, offset: u64, length: usize) -> Result<Vec<u8>, StoreError> {
        self.call(Verb::ReadRange, name, None, || self.inner.read_range(name, offset, length))
    }

    fn stat(&self, name: &str) -> Result<Option<u64>, StoreError> {
        self.call(Verb::Stat, name, None, || self.inner.stat(name))
    }

    fn list(&self, prefix: &str, visit: &mut dyn FnMut(Listed) -> ControlFlow<()>) -> Result<(), StoreError> {
        self.call(Verb::List, prefix, None, || {
            let mut wrong = self.lagging(prefix);
            let mut stopped = false;
            self.inner.list(prefix, &mut |listed| {
                let listed = match wrong.remove(&listed.name) {
                    Some(None) => return ControlFlow::Continue(()),
                    Some(Some(bytes)) => Listed { bytes, ..listed },
                    None => listed,
                };
                let flow = visit(listed);
                stopped = flow.is_break();
                flow
            })?;
            let still_shown =
                wrong.into_iter().filter_map(|(name, size)| size.map(|bytes| Listed { name, bytes }));
            for listed in still_shown {
                if stopped || visit(listed).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.call(Verb::Delete, name, None, || {
            let size = self.inner.stat(name)?;
            self.inner.delete(name)?;
            if size.is_some() {
                self.remember(name, size);
            }
            Ok(())
        })
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}
