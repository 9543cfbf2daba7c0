//! What a repository reads from its log and writes into it.

use crate::{
    envelope::PrivateKeys,
    error::{RepositoryError, Result},
    format::Format,
    hint,
    index::{Cache, View},
    keyring::Keyring,
    log::{
        Event, LogContext, Role, State, Trusted,
        event::{Begin, Commit, DropPoint, Fence, PlaceHold, Proved, Reason, ReleaseHold},
    },
    manifest::Reach,
    repository::Repository,
    trust::{Roles, Trust},
};
use mainstay_domain::{
    Clock, EpochId, HoldId, HostId, ObjectId, PointId, SessionId,
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

    /// Segments in which every pack of every live point is found.
    pub fn live_index(&self) -> Result<BTreeSet<ObjectId>> {
        Ok(self.log().state().readable_index().copied().collect())
    }

    pub(crate) fn append(&self, decide: impl FnMut(&State) -> Result<Event>) -> Result<u64> {
        let n = self.log().append(decide)?;
        self.remember_head();
        Ok(n)
    }

    pub(crate) fn append_if(
        &self,
        decide: impl FnMut(&State) -> Result<Option<Event>>,
    ) -> Result<Option<u64>> {
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
        self.log().incarnate()?;
        self.remember_head();
        Ok(())
    }

    pub(crate) fn remember_head(&self) {
        let hint = self.log().hint();
        hint::save(self.cache_directory(), &**self.store(), &hint);
    }

    pub(crate) fn begin_session(&self, session: SessionId) -> Result<()> {
        if self.format().is_read_only() {
            return Err(RepositoryError::Newer { what: crate::format::NAME.into(), version: 1 });
        }
        self.log().begin(Begin { session, wal_floor: None })?;
        self.remember_head();
        Ok(())
    }

    /// The index that a session may rely on to its end.
    pub(crate) fn session_view(&self, session: SessionId) -> Result<(Arc<View>, Arc<Cache>)> {
        let state = self.state()?;
        let begin =
            state.facts.sessions.get(&session).map(|open| open.begin).ok_or(RepositoryError::Fenced)?;
        if !state.doubts.is_empty() {
            // What cannot be read may have condemned anything: deduplicate against nothing.
            return self.view(&BTreeSet::new(), HashSet::new());
        }
        let live = state.live_index().copied().collect();
        self.view(&live, state.absent_for(begin).into_iter().collect())
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

    /// Ends a session that will not commit. Best effort: a collector fences it otherwise.
    pub(crate) fn end_session(&self, session: SessionId) {
        drop(self.append_if(|state| {
            Ok(state.facts.sessions.contains_key(&session).then_some(Event::Fence(Fence { session })))
        }));
    }

    /// Gives a recovery point up. Its objects are removed by a later collection.
    pub fn drop_point(&self, point: PointId, by: &str, why: &str) -> Result<()> {
        let reason = Reason { by: by.into(), why: why.into() };
        self.append(|_| Ok(Event::Drop(DropPoint { point, reason: Some(reason.clone()) })))?;
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
