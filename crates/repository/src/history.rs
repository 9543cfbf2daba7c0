//! What a repository reads from its log and writes into it.

use crate::{
    envelope::PrivateKeys,
    error::{RepositoryError, Result},
    format::Format,
    hint,
    index::{Cache, View},
    keyring::Keyring,
    log::{
        Doubt, Event, LogContext, Role, State, Trusted,
        event::{Acknowledge, Begin, Commit, DropPoint, Fence, Lost, PlaceHold, Proved, Reason, ReleaseHold},
    },
    manifest::Reach,
    repository::Repository,
    trust::{Roles, Trust},
};
use mainstay_domain::{
    Clock, EpochId, Failure, HoldId, HostId, Kind, ObjectId, PackId, PointId, SessionId, Time,
    point::{Hold, Proof, Summary},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

impl Trusted for Trust {
    fn verify_key(&self, host: &HostId) -> Option<[u8; 32]> {
        self.host(host).map(|h| h.verify_key)
    }

    fn may(&self, host: &HostId, role: Role) -> bool {
        let role = match role {
            Role::Backup => Roles::BACKUP,
            Role::Verify => Roles::VERIFY,
            Role::Prune => Roles::PRUNE,
            Role::Admin => Roles::ADMIN,
        };
        Trust::may(self, host, role)
    }
}

pub(crate) fn log_context(
    format: &Format,
    keyring: &Keyring,
    trust: &Arc<Trust>,
    clock: Arc<dyn Clock>,
) -> LogContext {
    let bundle = keyring.current();
    let private: BTreeMap<EpochId, [u8; 32]> =
        keyring.epochs().filter_map(|epoch| Some((epoch, *keyring.index_private(epoch)?))).collect();
    LogContext {
        repository: format.repository(),
        epoch: EpochId(bundle.epoch),
        index_public: bundle.index_public(),
        index_private: Box::new(move |epoch| private.get(&epoch).copied()),
        signer: bundle.signer(),
        trust: trust.clone(),
        clock,
        delay: Box::new(std::thread::sleep),
    }
}

/// What a session sees of the index.
pub(crate) struct SessionViews {
    /// What readable segments name, without what is condemned, swept or lost. Never what was found by looking into packs:
    /// these may be anybody's, and may be deleted at any moment.
    pub relied_on: Arc<View>,
    /// For reading earlier recovery points: the same, or more where the index is damaged.
    pub readable: Arc<View>,
    pub cache: Arc<Cache>,
}

impl Repository {
    /// The state of the log as this process last saw it.
    pub fn state(&self) -> Result<State> {
        Ok(self.log().state().clone())
    }

    /// The state of the log now.
    pub fn refreshed_state(&self) -> Result<State> {
        let mut log = self.log();
        log.refresh()?;
        Ok(log.state().clone())
    }

    /// The state of the log now, for whoever is about to give something up. An error while anything in the log is in doubt:
    /// the entry that cannot be read may have been a hold, or a recovery point.
    pub fn certain_state(&self) -> Result<State> {
        let state = self.thoroughly_refreshed_state()?;
        refuse_in_doubt(&state)?;
        Ok(state)
    }

    /// The state of the log now, with entries that lie behind a gap which no probe crosses.
    pub fn thoroughly_refreshed_state(&self) -> Result<State> {
        self.refuse_impaired()?;
        let mut log = self.log();
        log.refresh_thoroughly()?;
        Ok(log.state().clone())
    }

    /// The state of the log now, and every entry that is in doubt, with those that lie too far beyond its end to be folded.
    pub fn doubts(&self) -> Result<(State, BTreeMap<u64, Doubt>)> {
        self.refuse_impaired()?;
        let mut log = self.log();
        let beyond = log.survey()?;
        let state = log.state().clone();
        let mut doubts = state.doubts.clone();
        doubts.extend(beyond.into_iter().map(|n| (n, Doubt::Beyond)));
        Ok((state, doubts))
    }

    /// When an entry of the log was written, by its writer's clock. `None` if it cannot be relied on.
    pub(crate) fn time_of_entry(&self, n: u64) -> Result<Option<Time>> {
        self.log().time_of(n)
    }

    /// Declares doubtful entries to be looked at: they have no effect and stand in nobody's way any more.
    pub fn acknowledge(&self, entries: &[u64]) -> Result<()> {
        self.append(|_| Ok(Event::Acknowledge(Acknowledge { entries: entries.to_vec() })))?;
        Ok(())
    }

    /// Writes down which packs cannot be relied on, and which that were lost are whole again. Sessions begun later store the
    /// chunks of lost packs again. Says whether there was anything new to write.
    pub fn record_lost(&self, packs: &BTreeSet<PackId>, found: &BTreeSet<PackId>) -> Result<bool> {
        let written = self.append_if(|state| {
            let known = state.facts.lost.clone().unwrap_or_default();
            let event = Lost {
                packs: packs.difference(&known).copied().collect(),
                found: found.intersection(&known).filter(|pack| !packs.contains(pack)).copied().collect(),
            };
            Ok((event != Lost::default()).then_some(Event::Lost(event)))
        })?;
        Ok(written.is_some())
    }

    /// Segments in which every pack of every live point is found.
    pub fn live_index(&self) -> Result<BTreeSet<ObjectId>> {
        Ok(self.log().state().readable_index().copied().collect())
    }

    /// A newer version may have left things in the repository that a writer must know of; reading is safe.
    pub(crate) fn check_writable(&self) -> Result<()> {
        if self.format().is_read_only() {
            return Err(RepositoryError::ReadOnly);
        }
        self.refuse_impaired()
    }

    /// What the lost objects said may have been anything.
    fn refuse_impaired(&self) -> Result<()> {
        match self.impairments() {
            [] => Ok(()),
            wrong => Err(RepositoryError::Impaired(wrong.join("; "))),
        }
    }

    pub(crate) fn append(&self, decide: impl FnMut(&State) -> Result<Event>) -> Result<u64> {
        self.check_writable()?;
        let n = self.log().append(decide)?;
        self.remember_head();
        Ok(n)
    }

    pub(crate) fn append_if(
        &self,
        decide: impl FnMut(&State) -> Result<Option<Event>>,
    ) -> Result<Option<u64>> {
        self.check_writable()?;
        let n = self.log().append_if(decide)?;
        self.remember_head();
        Ok(n)
    }

    /// The store has lost entries that this machine had seen.
    pub fn was_rolled_back(&self) -> bool {
        self.log().was_rolled_back()
    }

    /// Accepts a rollback: from here on the store's history is the one that it shows.
    pub fn accept_rollback(&self) -> Result<()> {
        self.check_writable()?;
        self.log().incarnate()?;
        self.remember_head();
        Ok(())
    }

    pub(crate) fn remember_head(&self) {
        if self.log().is_gone() {
            return;
        }
        let hint = self.log().hint();
        hint::save(self.cache_directory(), &**self.store(), &hint);
    }

    pub(crate) fn begin_session(&self, session: SessionId) -> Result<()> {
        self.check_writable()?;
        self.log().begin(Begin { session, wal_floor: None })?;
        self.remember_head();
        Ok(())
    }

    /// The index that a session may rely on to its end, and the one through which it reads what is there.
    pub(crate) fn session_views(&self, session: SessionId) -> Result<SessionViews> {
        let state = self.state()?;
        let begin =
            state.facts.sessions.get(&session).map(|open| open.begin).ok_or(RepositoryError::Fenced)?;
        if !state.doubts.is_empty() {
            // What cannot be read may have condemned anything: deduplicate against nothing.
            let (readable, cache) = self.view(&self.live_index()?, HashSet::new())?;
            return Ok(SessionViews { relied_on: Arc::new(View::new(HashSet::new())), readable, cache });
        }
        let live = state.live_index().copied().collect();
        let absent = state.absent_for(begin).into_iter().collect();
        let (relied_on, cache, whole) = self.strict_view(&live, absent)?;
        let (relied_on, cache) = (Arc::new(relied_on), Arc::new(cache));
        let readable = match whole {
            true => relied_on.clone(),
            false => self.view(&live, HashSet::new())?.0,
        };
        Ok(SessionViews { relied_on, readable, cache })
    }

    pub(crate) fn commit_session(
        &self,
        session: SessionId,
        point: PointId,
        reach: &Reach,
        summary: &Summary,
    ) -> Result<()> {
        self.append(|state| {
            if !state.facts.sessions.contains_key(&session) {
                return Err(RepositoryError::Fenced);
            }
            Ok(Event::Commit(Commit {
                session,
                point,
                index: reach.index.clone(),
                summary: Some(summary.clone()),
            }))
        })?;
        // The point is safe; a checkpoint only makes later starts faster.
        drop(self.log().checkpoint_if_due());
        self.remember_head();
        Ok(())
    }

    /// Takes a recovery point back into the log that lies in the store and is not live: its Commit was lost, or it was dropped and
    /// is not yet collected.
    ///
    /// A session like any other, which relies on all that the point needs: it must be there, and nothing of it may have been
    /// condemned before the session began. Its packs are found from the manifest until the index is rewritten.
    pub fn adopt_point(&self, point: PointId) -> Result<()> {
        self.certain_state()?;
        self.manifest(&point)?;
        let session = SessionId(mainstay_keys::random());
        self.begin_session(session)?;
        let adopted = self.adopt_in(session, point);
        if adopted.is_err() {
            self.end_session(session);
        }
        adopted
    }

    fn adopt_in(&self, session: SessionId, point: PointId) -> Result<()> {
        let state = self.state()?;
        let begin =
            state.facts.sessions.get(&session).map(|open| open.begin).ok_or(RepositoryError::Fenced)?;
        // A collection may have swept the manifest between the first look and the Begin.
        let manifest = self.manifest(&point)?;
        let absent = state.absent_for(begin);
        if let Some(pack) = manifest.reach.packs.iter().find(|pack| absent.contains(pack)) {
            let message = format!(
                "recovery point {} needs pack {}, which is given up or lost",
                point.short(),
                pack.short()
            );
            return Err(Failure::new(Kind::Refused, message)
                .hint("It cannot be kept whole; restore what is left of it with `mainstay recover --store URL --point ID --to-dir DIR`.")
                .into());
        }
        crate::check::packs_are_there(self, &manifest.reach.packs)?;
        self.append(|state| {
            if !state.facts.sessions.contains_key(&session) {
                return Err(RepositoryError::Fenced);
            }
            let summary = Some(manifest.point.summary.clone());
            Ok(Event::Commit(Commit { session, point, index: Vec::new(), summary }))
        })?;
        Ok(())
    }

    /// Ends a session that will not commit. Best effort: a collector fences it otherwise.
    pub(crate) fn end_session(&self, session: SessionId) {
        drop(self.append_if(|state| {
            Ok(state.facts.sessions.contains_key(&session).then_some(Event::Fence(Fence { session })))
        }));
    }

    /// Gives a recovery point up. Its objects are removed by a later collection.
    pub fn drop_point(&self, point: PointId, by: &str, why: &str) -> Result<()> {
        self.drop_point_if(point, by, why, |_| Ok(()))
    }

    /// As [`Repository::drop_point`], if `judge` agrees to the very state that the Drop follows: of two hosts that each give up
    /// what the other still has, the second is judged on what the first left.
    pub fn drop_point_if(
        &self,
        point: PointId,
        by: &str,
        why: &str,
        mut judge: impl FnMut(&State) -> Result<()>,
    ) -> Result<()> {
        let reason = Reason { by: by.into(), why: why.into() };
        self.append(|state| {
            refuse_in_doubt(state)?;
            judge(state)?;
            Ok(Event::Drop(DropPoint { point, reason: Some(reason.clone()) }))
        })?;
        drop(self.log().checkpoint_if_due());
        Ok(())
    }

    pub fn hold(&self, point: PointId, hold: Hold) -> Result<HoldId> {
        let id = HoldId(mainstay_keys::random());
        self.append(|_| Ok(Event::Hold(PlaceHold { hold: id, point, text: Some(hold.clone()) })))?;
        Ok(id)
    }

    pub fn release_hold(&self, hold: HoldId, by: &str, why: &str) -> Result<()> {
        let reason = Reason { by: by.into(), why: why.into() };
        self.append(|_| Ok(Event::Release(ReleaseHold { hold, reason: Some(reason.clone()) })))?;
        Ok(())
    }

    pub fn record_proof(&self, point: PointId, proof: Proof) -> Result<()> {
        self.append(|_| Ok(Event::Proved(Proved { point, proof: Some(proof.clone()) })))?;
        Ok(())
    }
}

fn refuse_in_doubt(state: &State) -> Result<()> {
    let Some((n, doubt)) = state.doubts.iter().next() else { return Ok(()) };
    let hint = match doubt {
        Doubt::UnknownEvent { .. } => "Use a version of Mainstay at least as new as the one that wrote it.",
        _ => "Find out what happened to it, then settle it with `mainstay repair --acknowledge`.",
    };
    Err(Failure::new(Kind::Refused, format!("nothing is given up: log entry {n} is in doubt, {doubt}"))
        .hint(hint)
        .into())
}
