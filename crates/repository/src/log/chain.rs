//! The log as a process holds it: opened at a hint, folded to the head, and appended to.
//!
//! **Append.** The next entry is made by conditional create; whoever is second reads what was first and decides again.
//! **Lost answers.** A create whose answer was lost is settled by sending the same bytes again, so that one which arrives late
//! does no harm, and then by reading the entry back: its bytes tell whose it is. **Rollback.** Before each
//! append the head is read again: a store that lost it was rolled back, and nothing more is written to it.

use super::{
    doubt::Doubt,
    entry::{self, Body, EntryHash, object_name},
    event::{Begin, Event, Incarnate},
    facts::Facts,
    reader::{self, Belongs, MAX_GAP, NEXT, WIDE},
    rules::{Ignored, Protocol, Role, Rules, permitted},
    state::State,
};
use crate::error::{RepositoryError, Result};
use mainstay_domain::{Clock, EpochId, Failure, HostId, Incarnation, Kind, RepositoryId, Time};
use mainstay_keys::sign::Signer;
use mainstay_stores::{Store, StoreError};
use std::{collections::BTreeSet, sync::Arc, time::Duration};

/// Entries after a checkpoint that make the next one due.
const CHECKPOINT_EVERY: u64 = 48;
/// Races that an append may lose before it gives up.
const ATTEMPTS: u32 = 40;
/// How often one create is sent when its answers are lost.
const SENDS: u32 = 5;

/// Whom the log believes.
pub trait Trusted: Send + Sync {
    fn verify_key(&self, host: &HostId) -> Option<[u8; 32]>;
    fn may(&self, host: &HostId, role: Role) -> bool;
}

/// Who opens the log, and with what.
pub struct LogContext {
    pub repository: RepositoryId,
    pub epoch: EpochId,
    pub index_public: [u8; 32],
    /// The private index keys of the epochs that this process can open.
    pub index_private: Box<dyn Fn(EpochId) -> Option<[u8; 32]> + Send + Sync>,
    pub signer: Signer,
    pub trust: Arc<dyn Trusted>,
    pub clock: Arc<dyn Clock>,
    /// Waits before another attempt; tests do not.
    pub delay: Box<dyn Fn(Duration) + Send + Sync>,
}

/// What this machine last saw of the log: entry `n`, in this incarnation of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hint {
    pub n: u64,
    pub hash: EntryHash,
    pub incarnation: Incarnation,
}

pub struct Log {
    store: Arc<dyn Store>,
    context: LogContext,
    state: State,
    head_hash: EntryHash,
    /// What this machine had seen and the store no longer has.
    lost: Option<Hint>,
    /// There is no log that could be followed: nothing new is looked for, and nothing appended.
    gone: bool,
}

impl Log {
    /// Writes entry 0. `Exists` if there is a log already.
    pub fn create(store: &dyn Store, context: &LogContext) -> Result<()> {
        let body = Body {
            repository: context.repository,
            incarnation: Incarnation(mainstay_keys::random()),
            n: 0,
            previous: [0; 32],
            time: context.clock.now(),
            event: Event::Open,
            last_checkpoint: None,
        };
        let bytes = entry::encode(&body, context.epoch, &context.index_public, &context.signer);
        if create_settled(store, &object_name(0), &bytes, &*context.delay)? {
            return Ok(());
        }
        Err(RepositoryError::Exists { store: store.describe() })
    }

    /// Finds the head and folds what leads to it, from the last checkpoint on.
    pub fn open(store: Arc<dyn Store>, context: LogContext, hint: Option<Hint>) -> Result<Log> {
        let seen = match hint {
            Some(hint) => is_there(&*store, hint.n, &hint.hash)?,
            None => false,
        };
        let from = hint.filter(|_| seen).map_or(0, |hint| hint.n);
        let head = reader::find_head(&*store, &context, from, WIDE, &Facts::default())?;
        let (state, head_hash) = reader::start(&*store, &context, head)?;
        let mut log = Log { store, context, state, head_hash, lost: None, gone: false };
        log.fold_to(head)?;
        if log.state.facts.is_stray(head) {
            // The search may have run into what does not belong to the log; what was folded says that by now.
            let head = reader::find_head(&*log.store, &log.context, from, WIDE, &log.state.facts)?;
            (log.state, log.head_hash) = reader::start(&*log.store, &log.context, head)?;
            log.fold_to(head)?;
        }
        // Under another incarnation, somebody has noticed before us.
        log.lost = hint.filter(|hint| !seen && hint.incarnation == log.state.incarnation);
        Ok(log)
    }

    /// For a store whose log cannot be read: a log of no entries, which follows nothing and takes nothing.
    pub(crate) fn gone(store: Arc<dyn Store>, context: LogContext) -> Log {
        let state = State::open(Incarnation([0; Incarnation::LEN]));
        Log { store, context, state, head_hash: [0; 32], lost: None, gone: true }
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.gone
    }

    /// What is known from elsewhere of a log that is gone.
    pub(crate) fn assume(&mut self, facts: Facts) {
        debug_assert!(self.gone, "a log that can be read says it itself");
        self.state.facts = facts;
    }

    /// Whether the store shows an entry behind `n`.
    pub(crate) fn has_entries_behind(&self, n: u64) -> Result<bool> {
        match reader::listed_behind(&*self.store, n)?.first() {
            Some(found) => Ok(self.store.stat(&object_name(*found))?.is_some()),
            None => Ok(false),
        }
    }

    /// Whether these are the bytes of the first entry of this repository's log, whatever the store holds.
    pub(crate) fn is_first_entry(&self, bytes: &[u8]) -> bool {
        let examined = reader::examine(bytes, 0, &self.context, None, None);
        examined.is_ok_and(|(_, body, _)| {
            body.event == Event::Open && (self.gone || body.incarnation == self.state.incarnation)
        })
    }

    /// When an entry was written, as its signer says. `None` if it is not there or cannot be relied on.
    pub(crate) fn time_of(&self, n: u64) -> Result<Option<Time>> {
        let Some(bytes) = reader::read_entry(&*self.store, n)? else { return Ok(None) };
        Ok(reader::examine(&bytes, n, &self.context, None, None).ok().map(|(stamp, ..)| stamp.time))
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    /// What to remember for the next time. Of a store that was rolled back: what it had, until that is accepted.
    pub fn hint(&self) -> Hint {
        let now = Hint { n: self.state.head, hash: self.head_hash, incarnation: self.state.incarnation };
        self.lost.unwrap_or(now)
    }

    /// The store has lost entries that this machine had seen: it was restored from an older copy of itself.
    pub fn was_rolled_back(&self) -> bool {
        self.lost.is_some()
    }

    /// Folds what others have written since. An error if the store was rolled back meanwhile.
    pub fn refresh(&mut self) -> Result<()> {
        if self.gone {
            return Ok(());
        }
        if !is_there(&*self.store, self.state.head, &self.head_hash)? {
            return Err(self.rolled_back());
        }
        let head = reader::find_head(&*self.store, &self.context, self.state.head, NEXT, &self.state.facts)?;
        self.fold_to(head)
    }

    /// As [`Log::refresh`], and asks a listing too whether there are entries behind a gap that no probe has crossed. For
    /// whoever is about to give something up: missing entries then are in doubt instead of unknown. An error for a store that
    /// was rolled back.
    pub fn refresh_thoroughly(&mut self) -> Result<()> {
        match self.survey()?.first() {
            None => Ok(()),
            Some(n) => Err(Failure::new(
                Kind::Refused,
                format!("nothing is given up: log entry {n} is in doubt, {}", Doubt::Beyond),
            )
            .hint("Find out where it comes from, then settle it with `mainstay repair --acknowledge`.")
            .into()),
        }
    }

    /// As [`Log::refresh_thoroughly`], and names the entries that lie so far beyond the end of the log that it cannot be made to
    /// reach them, and that nobody has acknowledged.
    pub fn survey(&mut self) -> Result<BTreeSet<u64>> {
        if self.gone {
            return Err(RepositoryError::Impaired("its log cannot be read".into()));
        }
        if self.lost.is_some() {
            return Err(self.rolled_back());
        }
        self.refresh()?;
        let mut beyond = BTreeSet::new();
        let mut astray_until = 0;
        for n in reader::listed_behind(&*self.store, self.state.head)? {
            // A listing may show what is not there.
            if n <= self.state.head
                || self.state.facts.is_stray(n)
                || self.store.stat(&object_name(n))?.is_none()
            {
                continue;
            }
            if n > self.state.head.saturating_add(MAX_GAP) || n <= astray_until {
                beyond.insert(n);
                continue;
            }
            match reader::judge(&*self.store, &self.context, n, self.state.head)? {
                Belongs::No { last, .. } => {
                    beyond.insert(n);
                    astray_until = last;
                }
                Belongs::Yes | Belongs::Unclear => {
                    self.fold_to(reader::find_head(&*self.store, &self.context, n, WIDE, &self.state.facts)?)?
                }
            }
        }
        // What lay before entries of the log is in doubt in its place by now.
        beyond.retain(|n| *n > self.state.head);
        Ok(beyond)
    }

    /// Appends the event that `decide` makes of the newest state, and returns its n.
    ///
    /// `decide` is asked again whenever somebody else was faster. An event that turns out to have no effect is an error.
    pub fn append(&mut self, mut decide: impl FnMut(&State) -> Result<Event>) -> Result<u64> {
        self.append_if(|state| decide(state).map(Some)).map(|n| n.expect("an event was decided upon"))
    }

    /// As [`Log::append`], but `decide` may find that there is nothing to write.
    pub fn append_if(
        &mut self,
        mut decide: impl FnMut(&State) -> Result<Option<Event>>,
    ) -> Result<Option<u64>> {
        Ok(self.append_bytes(&mut decide)?.map(|_| self.state.head))
    }

    /// Appends, and returns the bytes that were written.
    fn append_bytes(
        &mut self,
        decide: &mut dyn FnMut(&State) -> Result<Option<Event>>,
    ) -> Result<Option<Vec<u8>>> {
        for attempt in 0..ATTEMPTS {
            self.refresh()?;
            let Some(event) = decide(&self.state)? else { return Ok(None) };
            self.check_own(&event)?;
            let (name, bytes) = self.next_entry(event);
            if create_settled(&*self.store, &name, &bytes, &*self.context.delay)? {
                match self.fold_bytes(self.state.head + 1, &bytes) {
                    Ok(()) => return Ok(Some(bytes)),
                    // A stray that is no longer there: its place is void all the same.
                    Err(Ignored::Acknowledged) => continue,
                    Err(ignored) => return Err(no_effect(&ignored)),
                }
            }
            (self.context.delay)(back_off(attempt));
        }
        Err(Failure::new(
            Kind::Busy,
            format!("{} is too busy: others were faster {ATTEMPTS} times", self.store.describe()),
        )
        .hint("Run the command again in a minute.")
        .into())
    }

    /// What others would not believe must not get into the log: it would put everything in doubt.
    fn check_own(&self, event: &Event) -> Result<()> {
        if self.gone {
            return Err(RepositoryError::Impaired("its log cannot be read".into()));
        }
        if self.lost.is_some() && !matches!(event, Event::Incarnate(_)) {
            return Err(self.rolled_back());
        }
        let host = self.context.signer.host();
        if permitted(&self.state, event, &host, &|role| self.context.trust.may(&host, role)) {
            return Ok(());
        }
        Err(Failure::new(
            Kind::Refused,
            format!("this host ({host}) has no role that may write {}", event.name()),
        )
        .hint("Give it the role with the repository's root key, or do this on a host that has it.")
        .into())
    }

    fn rolled_back(&self) -> RepositoryError {
        Failure::new(
            Kind::Refused,
            format!(
                "{} has lost entries of its log that were there before: it was restored from an older copy of itself",
                self.store.describe()
            ),
        )
        .hint(
            "Recovery points that it had meanwhile are gone from it. Find out why; restores still work. To go on from what is \
             there, accept it: `mainstay repair --accept-rollback`.",
        )
        .into()
    }

    /// Appends a Begin and makes sure that the store can tell first from second: creating the same entry again must be
    /// refused.
    pub fn begin(&mut self, begin: Begin) -> Result<u64> {
        let written = self.append_bytes(&mut |_| Ok(Some(Event::Begin(begin.clone()))))?;
        let bytes = written.expect("an event was decided upon");
        let n = self.state.head;
        for attempt in 0.. {
            match self.store.create(&object_name(n), &bytes) {
                Err(StoreError::AlreadyExists { .. }) => return Ok(n),
                Err(StoreError::Unclear { .. }) if attempt < SENDS => (self.context.delay)(back_off(attempt)),
                Err(error) => return Err(error.into()),
                Ok(()) => break,
            }
        }
        Err(Failure::new(
            Kind::Preflight,
            format!(
                "{} overwrites what is there, so two writers cannot be told apart",
                self.store.describe()
            ),
        )
        .hint("Only one machine may write to such a store; let the others use a store of their own.")
        .into())
    }

    /// Writes a checkpoint when enough entries have come since the last one, and this host may and can. Losing the race
    /// is fine.
    pub fn checkpoint_if_due(&mut self) -> Result<()> {
        self.append_if_possible(|log| {
            let since = log.state.head - log.state.last_checkpoint.unwrap_or(0);
            (since >= CHECKPOINT_EVERY && Protocol.may_checkpoint(&log.state))
                .then(|| Event::Checkpoint(Box::new(log.state.checkpoint())))
        })
    }

    /// One attempt at an entry that nobody depends on.
    fn append_if_possible(&mut self, decide: impl FnOnce(&Log) -> Option<Event>) -> Result<()> {
        self.refresh()?;
        let Some(event) = decide(self) else { return Ok(()) };
        if self.check_own(&event).is_err() {
            return Ok(());
        }
        let (name, bytes) = self.next_entry(event);
        if create_settled(&*self.store, &name, &bytes, &*self.context.delay)? {
            self.fold_bytes(self.state.head + 1, &bytes).map_err(|ignored| no_effect(&ignored))?;
        }
        Ok(())
    }

    /// After a rollback was noticed: begins a new incarnation, so that nobody takes the two histories for one.
    pub fn incarnate(&mut self) -> Result<u64> {
        let incarnation = Incarnation(mainstay_keys::random());
        let n = self.append(|_| Ok(Event::Incarnate(Incarnate { incarnation })))?;
        self.lost = None;
        Ok(n)
    }

    fn next_entry(&self, event: Event) -> (String, Vec<u8>) {
        let n = self.state.head + 1;
        let body = Body {
            repository: self.context.repository,
            incarnation: self.state.incarnation,
            n,
            previous: self.head_hash,
            time: self.context.clock.now(),
            event,
            last_checkpoint: self.state.last_checkpoint,
        };
        let LogContext { epoch, index_public, signer, .. } = &self.context;
        (object_name(n), entry::encode(&body, *epoch, index_public, signer))
    }

    fn fold_to(&mut self, head: u64) -> Result<()> {
        let store = self.store.clone();
        let first = self.state.head + 1;
        reader::for_each_entry(&*store, first, head, |n, bytes| match bytes {
            // Without effect: it lost a race, which is no trouble.
            Some(bytes) => drop(self.fold_bytes(n, &bytes)),
            None => {
                self.state.apply_doubtful(n, Doubt::Missing);
                self.head_hash = [0; 32];
            }
        })
    }

    fn fold_bytes(&mut self, n: u64, bytes: &[u8]) -> Result<(), Ignored> {
        let intact = reader::is_intact(self.state.doubts.get(&(n - 1))) && !self.state.facts.is_stray(n - 1);
        let chained_to = intact.then_some(self.head_hash);
        self.head_hash = entry::hash(bytes);
        match reader::examine(bytes, n, &self.context, Some(&self.state), chained_to) {
            Ok((stamp, body, _)) => self.state.apply(&stamp, &body.event),
            Err(doubt) => {
                self.state.apply_doubtful(n, doubt);
                if self.state.facts.is_stray(n) { Err(Ignored::Acknowledged) } else { Ok(()) }
            }
        }
    }
}

/// Is entry `n` there as it was seen?
fn is_there(store: &dyn Store, n: u64, hash: &EntryHash) -> Result<bool> {
    match reader::read_entry(store, n)? {
        Some(bytes) => Ok(entry::hash(&bytes) == *hash),
        // An entry that was missing when it was folded has no hash.
        None => Ok(*hash == [0; 32]),
    }
}

/// Creates an object for which several compete. `true`: it is ours. `false`: somebody else's stands there.
///
/// While the answer is unclear, the same bytes are sent again. Reading tells whose an object is, not whether it lasts.
pub(crate) fn create_settled(
    store: &dyn Store,
    name: &str,
    bytes: &[u8],
    delay: &dyn Fn(Duration),
) -> Result<bool> {
    let mut unclear = None;
    for attempt in 0..SENDS {
        match store.create(name, bytes) {
            Ok(()) => return Ok(true),
            Err(StoreError::AlreadyExists { .. }) => match store.read(name) {
                Ok(found) => return Ok(found == bytes),
                Err(StoreError::NotFound { .. }) if attempt + 1 == SENDS => {
                    return Err(RepositoryError::damaged(name, "the store has it and does not show it"));
                }
                // It cannot be read just now, and may be ours: only the same bytes may be sent.
                Err(error) => unclear = unclear.or(Some(error)),
            },
            Err(lost @ StoreError::Unclear { .. }) => unclear = Some(lost),
            // Before, nothing was written. After a lost answer that is not known.
            Err(error) => return Err(unclear.unwrap_or(error).into()),
        }
        delay(back_off(attempt));
    }
    Err(unclear.expect("no answer was clear").into())
}

/// Longer each time, and not the same for two who collided.
fn back_off(attempt: u32) -> Duration {
    let [jitter] = mainstay_keys::random::<1>();
    Duration::from_millis(20 << attempt.min(6)).mul_f64(0.5 + f64::from(jitter) / 256.0)
}

fn no_effect(ignored: &Ignored) -> RepositoryError {
    match ignored {
        Ignored::SessionOver(_) => RepositoryError::Fenced,
        Ignored::PointHeld => Failure::new(Kind::Refused, "a hold is on this recovery point")
            .hint("`mainstay show POINT` names the hold; `mainstay hold release POINT --reason WHY` ends it.")
            .into(),
        other => Failure::new(Kind::Failed, format!("the log did not accept the entry: {other}"))
            .hint("Run the command again.")
            .into(),
    }
}
