//! The contract between a repository and whatever keeps its objects.

use crate::StoreError;
use std::ops::ControlFlow;

/// One object of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub name: String,
    pub bytes: u64,
}

/// An object store. Names are `/`-separated, ASCII, without empty, `.` or `..` components.
///
/// **Consistency.** After `create` returns, `read` and `stat` of that name see the whole object, from every client. A
/// `list` may lag behind creates and deletes; nothing may be concluded from a name's absence in it.
///
/// **Atomicity and durability.** An object appears whole or not at all, and when `create` has returned `Ok` it survives a
/// power cut. An object is never changed after it was created.
///
/// **Errors.** [`StoreError::Unclear`] means that the call may or may not have taken effect (a lost answer), or that it did
/// and may not last. That an object can be seen then does not settle it: the caller sends the same create again, and
/// believes `Ok` or [`StoreError::AlreadyExists`], which says that what stands there survives a power cut, whoever made it.
/// Every other error means that the call had no effect. Transient faults are retried by the
/// implementation before they are reported.
///
/// **Threads.** All calls block, and may be made from many threads at once.
pub trait Store: Send + Sync {
    /// Creates an object that must not exist yet: `AlreadyExists` if it does, durably, whoever made it.
    fn create(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError>;

    /// The whole object.
    fn read(&self, name: &str) -> Result<Vec<u8>, StoreError>;

    /// `length` bytes from `offset`; fewer if the object ends before.
    fn read_range(&self, name: &str, offset: u64, length: usize) -> Result<Vec<u8>, StoreError>;

    /// The object's size in bytes; `None` if there is no such object.
    fn stat(&self, name: &str) -> Result<Option<u64>, StoreError>;

    /// Every object whose name begins with `prefix` (which ends in `/` or is empty), in no particular order.
    fn list(&self, prefix: &str, visit: &mut dyn FnMut(Listed) -> ControlFlow<()>) -> Result<(), StoreError>;

    /// Removes an object; no error if it was not there.
    fn delete(&self, name: &str) -> Result<(), StoreError>;

    /// What an error message calls this store: its address, without secrets.
    fn describe(&self) -> String;
}

/// A store behind a pointer is a store.
macro_rules! forward {
    ($($pointer:ty),*) => {$(
        impl<S: Store + ?Sized> Store for $pointer {
            fn create(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
                (**self).create(name, bytes)
            }
            fn read(&self, name: &str) -> Result<Vec<u8>, StoreError> {
                (**self).read(name)
            }
            fn read_range(&self, name: &str, offset: u64, length: usize) -> Result<Vec<u8>, StoreError> {
                (**self).read_range(name, offset, length)
            }
            fn stat(&self, name: &str) -> Result<Option<u64>, StoreError> {
                (**self).stat(name)
            }
            fn list(&self, prefix: &str, visit: &mut dyn FnMut(Listed) -> ControlFlow<()>) -> Result<(), StoreError> {
                (**self).list(prefix, visit)
            }
            fn delete(&self, name: &str) -> Result<(), StoreError> {
                (**self).delete(name)
            }
            fn describe(&self) -> String {
                (**self).describe()
            }
        }
    )*};
}

forward!(Box<S>, std::sync::Arc<S>, &S);
