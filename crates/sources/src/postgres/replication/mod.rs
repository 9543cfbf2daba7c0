//! A server spoken to by the replication protocol (PostgreSQL manual, *Streaming Replication Protocol*): as a standby speaks to it.
//!
//! It needs a role with REPLICATION and nothing else: no data directory, no right to read a table. What is streamed here is the
//! log, byte for byte as it lies in the server's `pg_wal`; whoever receives it decides when it is durable, and only then says
//! so. [`slots`] is the other side of that promise: what the server keeps for those who have not said so yet.

mod backup;
mod manifest;
mod session;
pub mod slots;
mod stream;

pub use backup::{BaseBackup, Chunk, Extent};
pub use manifest::Files;
pub use session::{Identity, Session, Trouble};
pub use slots::{Slot, Standing};
pub use stream::{LogStream, Message, Status, Streamed};
