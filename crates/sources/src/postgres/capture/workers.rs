//! The sessions that copy tables, all on the leader's snapshot.
//!
//! A worker that cannot lock a table at once (somebody waits for an exclusive lock behind the leader's shared one) hands
//! it back: the leader, which holds a lock already, copies it itself at the end. What goes wrong with one table is told of
//! that table; what goes wrong with the session ends the capture.

use super::{abort::Abort, cutter::RowCutter, plan::Task};
use crate::postgres::{
    rows::RowSum,
    session,
    wire::{ConnectSpec, Connection, WireError, quote_literal},
};
use mainstay_domain::{
    Failure, Kind, Monitor,
    stream::{Content, Pool, Sink},
};
use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// What became of one part of a table.
#[derive(Debug)]
pub(super) enum Outcome {
    Copied(Content, RowSum),
    /// In words.
    Unreadable(String),
    Dropped,
}

/// The work to do, and what has come of it.
pub(super) struct Queue {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Task>,
    /// For the leader.
    returned: Vec<Task>,
    done: Vec<(Task, Outcome)>,
}

impl Queue {
    pub fn new(tasks: Vec<Task>) -> Queue {
        Queue { state: Mutex::new(State { waiting: tasks.into(), ..State::default() }) }
    }
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn next(&self) -> Option<Task> {
        self.state().waiting.pop_front()
    }
    fn finish(&self, task: Task, outcome: Outcome) {
        self.state().done.push((task, outcome));
    }
    pub fn take_returned(&self) -> Vec<Task> {
        std::mem::take(&mut self.state().returned)
    }
    pub fn take_done(&self) -> Vec<(Task, Outcome)> {
        std::mem::take(&mut self.state().done)
    }
}

/// What all workers of a capture share.
pub(super) struct Shared<'a> {
    pub sink: &'a dyn Sink,
    pub row_key: [u8; 16],
    pub monitor: &'a dyn Monitor,
    pub abort: &'a Abort,
    pub queue: &'a Queue,
}

/// A session on the leader's snapshot.
pub(super) fn open(spec: &ConnectSpec, snapshot_id: &str) -> Result<Connection, WireError> {
    let mut connection = Connection::connect(spec)?;
    session::prepare(&mut connection)?;
    connection.execute(&format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; SET TRANSACTION SNAPSHOT {}",
        quote_literal(snapshot_id)
    ))?;
    Ok(connection)
}

/// Copies tables until none is left.
pub(super) fn work(mut connection: Connection, shared: &Shared<'_>) -> Result<(), Failure> {
    while let Some(task) = shared.queue.next() {
        shared.abort_if_stopped()?;
        let locked = connection.execute(&format!(
            "SAVEPOINT mainstay; LOCK TABLE ONLY {} IN ACCESS SHARE MODE NOWAIT",
            task.name.quoted()
        ));
        match locked {
            Ok(_) => {
                let outcome = copy(&mut connection, &task, shared)?;
                shared.queue.finish(task, outcome);
            }
            Err(error) if error.is("55P03") => {
                connection.execute("ROLLBACK TO mainstay")?;
                shared.queue.state().returned.push(task);
            }
            Err(WireError::Server(message)) => {
                connection.execute("ROLLBACK TO mainstay")?;
                shared.queue.finish(task, Outcome::Unreadable(message.to_string()));
            }
            Err(error) => {
                return Err(Failure::from(error).during(format_args!("locking table {}", task.name)));
            }
        }
    }
    connection.execute("COMMIT").map(|_| ()).map_err(Failure::from)
}

/// Copies, on a session that holds the lock, what no worker could lock.
pub(super) fn work_off_returned(connection: &mut Connection, shared: &Shared<'_>) -> Result<(), Failure> {
    for task in shared.queue.take_returned() {
        connection.execute("SAVEPOINT mainstay")?;
        let outcome = copy(connection, &task, shared)?;
        shared.queue.finish(task, outcome);
    }
    Ok(())
}

/// Copies one part of a table. The session has a savepoint, to which it returns if the table cannot be read.
fn copy(connection: &mut Connection, task: &Task, shared: &Shared<'_>) -> Result<Outcome, Failure> {
    let mut cutter = RowCutter::new(shared.sink.begin(Pool::Data), &shared.row_key, shared.monitor);
    match connection.copy_out(&task.sql, |bytes, ends| cutter.part(bytes, ends)) {
        Ok(stated) => {
            connection.execute("RELEASE mainstay")?;
            let (content, sum) = cutter.finish()?;
            if stated != sum.rows {
                return Err(Failure::new(
                    Kind::Verification,
                    format!("table {}: the server sent {stated} rows and {} came", task.name, sum.rows),
                ));
            }
            Ok(Outcome::Copied(content, sum))
        }
        Err(WireError::Server(message)) if message.severity == "ERROR" && message.code != "57014" => {
            connection.execute("ROLLBACK TO mainstay")?;
            Ok(match message.code.as_str() {
                "42P01" => Outcome::Dropped,
                _ => Outcome::Unreadable(message.to_string()),
            })
        }
        Err(error) => Err(Failure::from(error).during(format_args!("reading table {}", task.name))),
    }
}

impl Shared<'_> {
    fn abort_if_stopped(&self) -> Result<(), Failure> {
        // Why is known to the one who stopped it.
        if self.abort.stopped() { Err(super::abort::cancelled()) } else { Ok(()) }
    }
}
