//! The first error ends the capture: every session and every child is stopped at once, and nobody hangs.

use crate::postgres::{tools::Killer, wire::Canceller};
use mainstay_domain::{Failure, Kind};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Shared by the threads of one capture.
#[derive(Debug, Default)]
pub(super) struct Abort(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failure: Option<Failure>,
    stopped: bool,
    sessions: Vec<Canceller>,
    children: Vec<Killer>,
}

impl Abort {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops everything. The first failure is the one that is reported; the rest follows from it.
    pub fn fail(&self, failure: Failure) {
        let (sessions, children) = {
            let mut state = self.state();
            if state.stopped {
                return;
            }
            state.stopped = true;
            state.failure = Some(failure);
            (std::mem::take(&mut state.sessions), std::mem::take(&mut state.children))
        };
        children.iter().for_each(Killer::kill);
        sessions.iter().for_each(Canceller::break_off);
        for session in sessions {
            // The server notices a broken connection late when it is busy; an error here changes nothing.
            let _ = session.cancel();
        }
    }

    pub fn stopped(&self) -> bool {
        self.state().stopped
    }

    /// From now on this session ends with the rest.
    pub fn watch_session(&self, session: Canceller) {
        let mut state = self.state();
        if state.stopped {
            session.break_off();
        } else {
            state.sessions.push(session);
        }
    }

    /// From now on this child ends with the rest.
    pub fn watch_child(&self, child: Killer) {
        let mut state = self.state();
        if state.stopped {
            child.kill();
        } else {
            state.children.push(child);
        }
    }

    /// What went wrong, if anything did.
    pub fn outcome(&self) -> Result<(), Failure> {
        let mut state = self.state();
        match (state.failure.take(), state.stopped) {
            (Some(failure), _) => Err(failure),
            (None, true) => Err(cancelled()),
            (None, false) => Ok(()),
        }
    }
}

/// The user wants to stop.
pub(super) fn cancelled() -> Failure {
    Failure::new(Kind::Cancelled, "the capture was cancelled")
}
