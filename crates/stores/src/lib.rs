//! Where a repository's objects lie: a handful of verbs, and the stores that speak them.
//!
//! The contract is on [`Store`]. Every implementation passes the same behavioural suite (`tests/contract.rs`). For tests
//! there are a store in memory, one that records its calls, and one that fails on purpose.

mod address;
mod error;
mod failing;
mod local;
mod memory;
mod name;
mod recording;
mod store;

pub use address::{AddressError, open};
pub use error::StoreError;
pub use failing::{Attempt, FailingStore, Fault, Rule, script};
pub use local::LocalStore;
pub use memory::MemoryStore;
pub use name::{is_valid, is_valid_prefix};
pub use recording::{Call, RecordingStore, Verb};
pub use store::{Listed, Store};
