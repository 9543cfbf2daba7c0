//! The log: the one place in a store that orders events (`doc/consistency.md`).
//!
//! **What it is.** Objects `log/0`, `log/1`, …, each made by conditional create, signed, and naming the hash of the one before.
//! They are never changed or removed. The state of a store is a pure fold over them ([`State`]), by rules that stand
//! each for itself ([`Rules`]) and that an exhaustive search has been through (`tests/log_model`).
//!
//! **What it promises.** Two hosts that read the same entries see the same state. An append takes effect once or not at
//! all, and what it says was decided on the very state that it follows. An entry that cannot be relied on changes nothing but
//! that nothing is deleted, and nothing deduplicated, until it is explained. A checkpoint is as good as the log before it.
//!
//! **What it needs.** A store whose create is exclusive and whose reads see what was created; every session probes the
//! first ([`Log::begin`]). No clock; and no listing but as a hint that there is more than was found.
//!
//! **What it leaves to others.** Which packs a point needs is in its manifest; deleting objects is the collector's
//! (`crate::collect`).

pub mod chain;
mod doubt;
pub mod entry;
pub mod event;
pub mod facts;
mod reader;
pub mod rules;
pub mod state;

pub(crate) use chain::create_settled as create_contested;
pub use chain::{Hint, Log, LogContext, Trusted};
pub use doubt::Doubt;
pub use event::Event;
pub use facts::Facts;
pub use rules::{Ignored, Protocol, Role, Rules};
pub use state::State;
