//! What can go wrong with a store, by what the caller can do about it.

use mainstay_domain::{Failure, Kind};

/// `store` is the address without secrets; `name` the object.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{name} is not in {store}")]
    NotFound { store: String, name: String },
    #[error("{name} is already in {store}")]
    AlreadyExists { store: String, name: String },
    /// The answer was lost: the call may or may not have taken effect.
    #[error("{store} did not say whether {name} was written")]
    Unclear { store: String, name: String, source: std::io::Error },
    #[error("{store} is full ({name} could not be written)")]
    Full { store: String, name: String, source: std::io::Error },
    #[error("{store} refuses access to {name}")]
    Denied { store: String, name: String, source: std::io::Error },
    #[error("{store} could not be reached for {name}")]
    Unavailable { store: String, name: String, source: std::io::Error },
    /// Not a name that an object can have: it came from damaged or hostile storage.
    #[error("{name:?} is no name for an object of {store}")]
    BadName { store: String, name: String },
}

impl StoreError {
    pub fn is_not_found(&self) -> bool {
        matches!(self, StoreError::NotFound { .. })
    }

    pub fn already_exists(&self) -> bool {
        matches!(self, StoreError::AlreadyExists { .. })
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        let (kind, hint) = match &error {
            StoreError::NotFound { .. } => {
                (Kind::Verification, "Run `mainstay verify APP --level objects` to see what else is missing.")
            }
            StoreError::AlreadyExists { .. } => {
                (Kind::Busy, "Another writer was faster; run the command again.")
            }
            StoreError::Unclear { .. } => {
                (Kind::Failed, "Run the command again; what was written is recognised.")
            }
            StoreError::Full { .. } => (
                Kind::Failed,
                "Free some space, or run `mainstay prune`; nothing that was committed is affected.",
            ),
            StoreError::Denied { .. } => (
                Kind::Failed,
                "Check that the user who runs mainstay may read and write there (read-only file system? permissions?).",
            ),
            StoreError::Unavailable { .. } => {
                (Kind::Failed, "Check that the store is mounted and reachable, then run the command again.")
            }
            StoreError::BadName { .. } => (
                Kind::Verification,
                "Something in the repository names it; run `mainstay verify APP --level objects`.",
            ),
        };
        let message = error.to_string();
        let failure = Failure::new(kind, message).hint(hint);
        match error {
            StoreError::Unclear { source, .. }
            | StoreError::Full { source, .. }
            | StoreError::Denied { source, .. }
            | StoreError::Unavailable { source, .. } => failure.caused_by(source),
            StoreError::NotFound { .. } | StoreError::AlreadyExists { .. } | StoreError::BadName { .. } => {
                failure
            }
        }
    }
}
