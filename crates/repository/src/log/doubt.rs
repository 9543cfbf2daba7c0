//! Entries that cannot be relied on.

use mainstay_domain::HostId;
use std::fmt;

/// Something in the log that cannot be relied on. While there is one, nothing is deleted and nothing deduplicated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doubt {
    Missing,
    Malformed(&'static str),
    /// It was written for another repository, place or incarnation.
    Foreign(&'static str),
    /// The entry before it is intact and is not the one that it follows.
    BrokenChain,
    UnknownSigner(HostId),
    BadSignature(HostId),
    Forbidden {
        signer: HostId,
        event: &'static str,
    },
    UnknownEvent {
        tag: u32,
    },
    /// A checkpoint that does not say what the log before it says.
    CheckpointDiffers,
    /// So far beyond the end of the log that it is not taken for a part of it. Never among [`State::doubts`], which are a fold
    /// over the entries before.
    Beyond,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Doubt::Missing => f.write_str("it is missing"),
            Doubt::Malformed(why) => write!(f, "it is damaged ({why})"),
            Doubt::Foreign(what) => write!(f, "it was written for another {what}"),
            Doubt::BrokenChain => f.write_str("it does not follow the entry before it"),
            Doubt::UnknownSigner(host) => write!(f, "its signer {host} is not trusted here"),
            Doubt::BadSignature(host) => write!(f, "it is not what {host} signed"),
            Doubt::Forbidden { signer, event } => write!(f, "its signer {signer} may not write {event}"),
            Doubt::UnknownEvent { tag } => write!(f, "a later version of Mainstay wrote it (event {tag})"),
            Doubt::CheckpointDiffers => f.write_str("it is a checkpoint that differs from the log before it"),
            Doubt::Beyond => f.write_str("it lies far beyond the end of the log"),
        }
    }
}
