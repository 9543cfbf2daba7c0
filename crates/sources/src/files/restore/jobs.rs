//! The jobs between the thread that reads the listing and those that write.
//!
//! Each writer takes from its own place in the queue. In a queue in order all would work on neighbouring slices of one big file,
//! and the kernel lets one writer at a time into a file: a tenth of a cluster's restore was spent waiting for that lock.

use super::worker::Job;
use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

/// Jobs that may wait: the slices of some gigabytes, or some thousands of small files.
const MOST: usize = 256;

pub(crate) struct Jobs {
    queue: Mutex<Queue>,
    changed: Condvar,
    writers: usize,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Job>,
    closed: bool,
}

impl Jobs {
    pub fn new(writers: usize) -> Jobs {
        Jobs { queue: Mutex::default(), changed: Condvar::new(), writers: writers.max(1) }
    }

    /// Adds a job; waits while there are too many. Once closed, by a panic that ends the restore, nobody does it any more.
    pub fn send(&self, job: Job) {
        let mut queue = self.lock();
        while queue.waiting.len() >= MOST && !queue.closed {
            queue = self.wait(queue);
        }
        if !queue.closed {
            queue.waiting.push_back(job);
            self.changed.notify_all();
        }
    }

    /// There will be no more.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// The next job for writer number `writer`; `None` once there are no more.
    pub fn take(&self, writer: usize) -> Option<Job> {
        let mut queue = self.lock();
        loop {
            let place = writer % self.writers * queue.waiting.len() / self.writers;
            if let Some(job) = queue.waiting.remove(place) {
                self.changed.notify_all();
                return Some(job);
            }
            if queue.closed {
                return None;
            }
            queue = self.wait(queue);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'q>(&self, queue: MutexGuard<'q, Queue>) -> MutexGuard<'q, Queue> {
        self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes the queue when its owner ends, if only by a panic: the others wait for each other.
pub(crate) struct Closing<'q>(pub &'q Jobs);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}
