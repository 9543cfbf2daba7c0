//! What can go wrong inside a repository.

use mainstay_domain::{ChunkId, Failure, Kind, RepositoryId};
use mainstay_stores::StoreError;

#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Bytes that are not what they claim to be. `what` names the object.
    #[error("{what} is damaged: {why}")]
    Damaged { what: String, why: &'static str },
    #[error("{what} was written by an unknown or unauthorised signer")]
    Untrusted { what: String },
    #[error("there is no repository in {store}")]
    NoRepository { store: String },
    #[error("there is already a repository in {store}")]
    Exists { store: String },
    #[error("{store} holds other things than a repository")]
    NotEmpty { store: String },
    #[error("{store} holds the beginning of a repository whose making was broken off: {}", objects.join(", "))]
    HalfMade { store: String, objects: Vec<String> },
    #[error("{what} was written by a newer version of Mainstay (format {version})")]
    Newer { what: String, version: u64 },
    #[error("a newer version of Mainstay uses this repository in a way that this one must not write to")]
    ReadOnly,
    #[error("nothing is written to this repository while it is damaged: {0}")]
    Impaired(String),
    #[error("{store} has lost the object `format`, which says what its repository is")]
    FormatLost { store: String },
    #[error("the key does not open this repository")]
    WrongKey,
    #[error("{}", keys_lost(store, damaged))]
    KeysLost { store: String, damaged: Vec<String> },
    #[error("the repository in {store} is {found}, not {expected}")]
    AnotherRepository { store: String, found: RepositoryId, expected: RepositoryId },
    #[error("chunk {} is in no pack that can be reached", .0.short())]
    MissingChunk(ChunkId),
    /// Decoding what was about to be stored did not give back what went in.
    #[error("a chunk did not survive its own compression and sealing")]
    FaultyMachine,
    #[error("a chunk of {0} bytes is larger than a repository takes")]
    ChunkTooLarge(usize),
    #[error("this session was ended by a collector because it showed no progress")]
    Fenced,
    #[error("the cache in {path} could not be used")]
    Cache { path: String, source: std::io::Error },
    /// Another thread of the same session failed first.
    #[error("{0}")]
    Session(String),
    #[error("no recovery point matches {0:?}")]
    NoSuchPoint(String),
    #[error("{0:?} matches several recovery points: {1}")]
    AmbiguousPoint(String, String),
    #[error("a key cannot be wrapped or unwrapped: {0}")]
    Recipient(#[from] mainstay_keys::recipient::RecipientError),
    #[error(transparent)]
    Other(Box<Failure>),
}

impl From<Failure> for RepositoryError {
    fn from(failure: Failure) -> Self {
        RepositoryError::Other(Box::new(failure))
    }
}

fn keys_lost(store: &str, damaged: &[String]) -> String {
    match damaged {
        [] => format!("{store} has lost every object that a key could open its repository with (keys/*)"),
        damaged => format!(
            "the key opens no intact object of this repository, and damaged is {}",
            damaged.join(", ")
        ),
    }
}

pub type Result<T, E = RepositoryError> = std::result::Result<T, E>;

impl RepositoryError {
    pub(crate) fn damaged(what: impl Into<String>, why: &'static str) -> Self {
        RepositoryError::Damaged { what: what.into(), why }
    }

    /// The bytes of an object are not what they should be (as opposed to: could not be fetched).
    pub fn is_damage(&self) -> bool {
        match self {
            RepositoryError::Damaged { .. }
            | RepositoryError::MissingChunk(_)
            | RepositoryError::Untrusted { .. } => true,
            RepositoryError::Store(error) => error.is_not_found(),
            RepositoryError::Other(failure) => failure.kind == Kind::Verification,
            _ => false,
        }
    }
}

impl From<RepositoryError> for Failure {
    fn from(error: RepositoryError) -> Failure {
        use RepositoryError as E;
        let (kind, hint) = match &error {
            E::Store(_) => {
                let E::Store(store) = error else { unreachable!("matched above") };
                return store.into();
            }
            E::Other(_) => {
                let E::Other(failure) = error else { unreachable!("matched above") };
                return *failure;
            }
            E::Damaged { .. } | E::MissingChunk(_) => (
                Kind::Verification,
                "Run `mainstay verify APP --level data` to learn which recovery points are affected; the others stay restorable.",
            ),
            E::Untrusted { .. } => (
                Kind::Verification,
                "Do not rely on it. Compare the fingerprint with your recovery kit and find out who could write to the store.",
            ),
            E::NoRepository { .. } => (
                Kind::NoRepository,
                "Is its disk mounted, and the address right? A new repository is made with `mainstay init`.",
            ),
            E::Exists { .. } => {
                (Kind::Usage, "Use it as it is; `mainstay init` never overwrites a repository.")
            }
            E::NotEmpty { .. } => (Kind::Usage, "Choose an empty place for the repository."),
            E::HalfMade { .. } => (
                Kind::NoRepository,
                "No recovery point was ever made there. Remove these objects and run `mainstay init` again; if it has a recovery kit \
                 nevertheless, `mainstay repair --kit FILE` completes it.",
            ),
            E::Newer { .. } => {
                (Kind::Usage, "Use a version of Mainstay at least as new as the one that wrote it.")
            }
            E::ReadOnly => (
                Kind::Usage,
                "Restores work. To write, use a version of Mainstay at least as new as the one that wrote it.",
            ),
            E::Impaired(_) => (
                Kind::Refused,
                "Restores work. `mainstay repair --kit FILE` puts back what the recovery kit holds; without it, go on in a new \
                 repository.",
            ),
            E::FormatLost { .. } | E::KeysLost { .. } => (
                Kind::Verification,
                "The recovery kit holds a copy: restore with `mainstay recover --store URL --kit FILE`, put it back with `mainstay repair --kit \
                 FILE`.",
            ),
            E::WrongKey => (
                Kind::WrongKey,
                "Check which key the configuration names. The recovery kit lists the recipients whose keys open it.",
            ),
            E::AnotherRepository { .. } => {
                (Kind::Usage, "Check the store's address; the fingerprint is in your recovery kit.")
            }
            E::FaultyMachine => {
                (Kind::Failed, "Nothing wrong was stored. Test this machine's memory before you rely on it.")
            }
            E::ChunkTooLarge(_) => (Kind::Failed, "This is a defect of Mainstay; please report it."),
            E::Fenced => (Kind::Failed, "Run the backup again; what was stored already is recognised."),
            E::Cache { .. } => (
                Kind::Failed,
                "Check free space and permissions there, or name another directory with `cache:`.",
            ),
            E::Recipient(_) => (Kind::Failed, "Try another key, or the recovery kit."),
            E::Session(_) => (Kind::Failed, "Run the command again after the cause is removed."),
            E::NoSuchPoint(_) => (Kind::NoRepository, "`mainstay list` shows the recovery points there are."),
            E::AmbiguousPoint(..) => (Kind::Usage, "Give more digits of the id."),
        };
        let failure = Failure::new(kind, error.to_string()).hint(hint);
        match error {
            E::Cache { source, .. } => failure.caused_by(source),
            _ => failure,
        }
    }
}
