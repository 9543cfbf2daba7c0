//! Looks at the server now and then while its log is received: whether it waits for us, and how much its slots keep.

use mainstay_domain::{ByteSize, Monitor, Severity};
use mainstay_sources::postgres::{
    replication::{Standing, slots},
    wire::{ConnectSpec, Connection},
};
use std::{
    collections::BTreeMap,
    sync::{
        Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// How long an answer may stay away: so long, at worst, whoever wants to stop waits for us.
const PATIENCE: Duration = Duration::from_secs(3);

/// Tells the watching thread to end.
#[derive(Default)]
pub struct Bell {
    rung: Mutex<bool>,
    news: Condvar,
}

impl Bell {
    pub fn ring(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.news.notify_all();
    }

    /// Waits; whether it is time to end.
    fn wait(&self, length: Duration) -> bool {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.news.wait_timeout_while(rung, length, |rung| !*rung);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// A session in which a server is asked that may not answer.
pub fn connect(spec: &ConnectSpec) -> mainstay_domain::Result<Connection> {
    let connect_timeout = spec.connect_timeout.min(PATIENCE);
    let mut connection = Connection::connect(&ConnectSpec { connect_timeout, ..spec.clone() })?;
    connection.set_patience(Some(PATIENCE))?;
    Ok(connection)
}

/// What to watch.
pub struct Watch<'a> {
    pub spec: &'a ConnectSpec,
    pub application_name: &'a str,
    pub every: Duration,
    pub slot_warn: ByteSize,
    pub synchronous: &'a AtomicBool,
}

impl Watch<'_> {
    /// Watches until the bell rings. A server that cannot be asked is no failure here: the session that receives says so.
    pub fn run(&self, bell: &Bell, monitor: &dyn Monitor) {
        let mut connection = None;
        let mut told = BTreeMap::new();
        while !bell.wait(self.every) {
            let look = match connection.take() {
                Some(connection) => Some(connection),
                None => connect(self.spec).ok(),
            };
            let Some(mut asked) = look else { continue };
            if self.look(&mut asked, &mut told, monitor).is_ok() {
                connection = Some(asked);
            }
        }
    }

    fn look(
        &self,
        connection: &mut Connection,
        told: &mut BTreeMap<String, Standing>,
        monitor: &dyn Monitor,
    ) -> mainstay_domain::Result<()> {
        if let Some(waits) = slots::is_waited_for(connection, self.application_name)? {
            self.synchronous.store(waits, Ordering::Relaxed);
        }
        for slot in slots::slots(connection)? {
            let standing = slot.standing(self.slot_warn);
            let before = told.insert(slot.name.clone(), standing).unwrap_or(Standing::Good);
            // Said once, and again when it gets worse.
            if let Some(concern) = slot.concern(self.slot_warn).filter(|_| standing > before) {
                monitor.notice(Severity::Warning, &concern);
            }
        }
        Ok(())
    }
}
