//! Records every call to a store, so that a test can assert exactly which storage operations a use case makes.

use crate::{Listed, Store, StoreError};
use std::{
    fmt,
    ops::ControlFlow,
    sync::{Arc, Mutex},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    Create,
    Read,
    ReadRange,
    Stat,
    List,
    Delete,
}

impl Verb {
    /// Whether the call changes what the store holds.
    pub fn writes(self) -> bool {
        matches!(self, Verb::Create | Verb::Delete)
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Verb::Create => "create",
            Verb::Read => "read",
            Verb::ReadRange => "read_range",
            Verb::Stat => "stat",
            Verb::List => "list",
            Verb::Delete => "delete",
        })
    }
}

/// One call. Shown as `create log/1 120` or `read format 40 failed`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub verb: Verb,
    /// The object, or the prefix of a list.
    pub name: String,
    /// Bytes given to `create` or returned by a read; the size that `stat` told; the number of objects that `list` showed.
    pub size: u64,
    /// Whether it returned `Ok`.
    pub ok: bool,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}{}", self.verb, self.name, self.size, if self.ok { "" } else { " failed" })
    }
}

/// Clones share the record.
#[derive(Debug, Clone)]
pub struct RecordingStore<S> {
    inner: S,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl<S: Store> RecordingStore<S> {
    pub fn new(inner: S) -> Self {
        RecordingStore { inner, calls: Arc::default() }
    }

    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// The calls so far, in the order in which they returned.
    pub fn calls(&self) -> Vec<Call> {
        self.lock().clone()
    }

    /// The calls since the last time, and begins a new record.
    pub fn take(&self) -> Vec<Call> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Call>> {
        self.calls.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn record<T>(
        &self,
        verb: Verb,
        name: &str,
        result: Result<T, StoreError>,
        size: impl FnOnce(Option<&T>) -> u64,
    ) -> Result<T, StoreError> {
        let call = Call { verb, name: name.to_owned(), size: size(result.as_ref().ok()), ok: result.is_ok() };
        self.lock().push(call);
        result
    }
}

impl<S: Store> Store for RecordingStore<S> {
    fn create(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.record(Verb::Create, name, self.inner.create(name, bytes), |_| bytes.len() as u64)
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, StoreError> {
        self.record(Verb::Read, name, self.inner.read(name), |bytes| bytes.map_or(0, |b| b.len() as u64))
    }

    fn read_range(&self, name: &str, offset: u64, length: usize) -> Result<Vec<u8>, StoreError> {
        let result = self.inner.read_range(name, offset, length);
        self.record(Verb::ReadRange, name, result, |bytes| bytes.map_or(0, |b| b.len() as u64))
    }

    fn stat(&self, name: &str) -> Result<Option<u64>, StoreError> {
        self.record(Verb::Stat, name, self.inner.stat(name), |size| size.copied().flatten().unwrap_or(0))
    }

    fn list(&self, prefix: &str, visit: &mut dyn FnMut(Listed) -> ControlFlow<()>) -> Result<(), StoreError> {
        let mut shown = 0;
        let result = self.inner.list(prefix, &mut |listed| {
            shown += 1;
            visit(listed)
        });
        self.record(Verb::List, prefix, result, |_| shown)
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.record(Verb::Delete, name, self.inner.delete(name), |_| 0)
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}
