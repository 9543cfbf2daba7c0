//! What can go wrong with a files source as a whole. Troubles with single files are problems of the record, not errors.

use super::names::show_all;
use mainstay_domain::{Failure, Kind};
use std::path::PathBuf;

/// Inside this module; at the seam it becomes a [`Failure`].
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    #[error("the files source has no paths")]
    NoPaths,
    #[error("the path {} is not absolute", .0.display())]
    RelativePath(PathBuf),
    #[error("the path {} is given twice", .0.display())]
    RepeatedPath(PathBuf),
    #[error("the path {} lies below another one of the source", .0.display())]
    NestedPath(PathBuf),
    #[error("the pattern {pattern:?} cannot be understood")]
    Pattern {
        pattern: String,
        #[source]
        error: ignore::Error,
    },
    #[error("the filter \"{pattern}\" cannot be understood")]
    Filter {
        pattern: String,
        #[source]
        error: globset::Error,
    },
    #[error("the record of {name:?} holds no file listing")]
    NoListing { name: String },
    #[error("the record of {name:?} holds no deleted files")]
    NoDeleted { name: String },
    #[error("nothing in the recovery point matches {}", show_all(.0))]
    NothingMatches(Vec<String>),
    #[error("deleting what is not in the recovery point needs whole directories, not the pattern \"{0}\"")]
    DeleteNeedsDirectories(String),
    #[error("the listing is malformed at {at:?}: {what}")]
    Malformed { at: String, what: &'static str },
    #[error("{action} {path:?} failed")]
    Io {
        action: &'static str,
        path: String,
        #[source]
        error: std::io::Error,
    },
    #[error("the destination {path:?} cannot be used: {reason}")]
    Destination { path: String, reason: String },
    #[error("stopped at the user's wish")]
    Cancelled,
    #[error("a worker thread stopped unexpectedly")]
    WorkerLost,
}

impl From<FilesError> for Failure {
    fn from(error: FilesError) -> Failure {
        let kind = match &error {
            FilesError::NoPaths
            | FilesError::RelativePath(_)
            | FilesError::RepeatedPath(_)
            | FilesError::NestedPath(_)
            | FilesError::Pattern { .. }
            | FilesError::Filter { .. }
            | FilesError::NothingMatches(_)
            | FilesError::DeleteNeedsDirectories(_) => Kind::Usage,
            FilesError::Malformed { .. } => Kind::Verification,
            FilesError::Destination { .. } => Kind::Preflight,
            FilesError::Cancelled => Kind::Cancelled,
            FilesError::NoListing { .. }
            | FilesError::NoDeleted { .. }
            | FilesError::Io { .. }
            | FilesError::WorkerLost => Kind::Failed,
        };
        let hint = match &error {
            FilesError::NoPaths => Some("List the directories to protect under `paths:`."),
            FilesError::RelativePath(_) => {
                Some("Write it in full: a backup run by a scheduler starts in another directory.")
            }
            FilesError::RepeatedPath(_) | FilesError::NestedPath(_) => {
                Some("Remove one of the two: it would be captured twice.")
            }
            FilesError::Pattern { .. } => Some("Patterns are written as in a .gitignore file."),
            FilesError::Filter { .. } => Some(
                "Write a path, or a glob such as `photos/**/*.jpg`; before a bracket or brace that belongs to a name, a backslash.",
            ),
            FilesError::NothingMatches(_) => Some(
                "Paths are relative to the source's root; `mainstay ls POINT` and `mainstay find APP PATTERN` show them.",
            ),
            FilesError::DeleteNeedsDirectories(_) => {
                Some("Name a directory, or leave out either --delete or --path.")
            }
            FilesError::Malformed { .. } => Some(
                "The recovery point was written by something else than Mainstay, or by a broken one; try another point.",
            ),
            FilesError::NoDeleted { .. } => {
                Some("Set `keep_deleted:` for the source; it counts from the next backup on.")
            }
            FilesError::Destination { .. } => {
                Some("Choose another directory, or make room or give permission there.")
            }
            FilesError::Io { .. }
            | FilesError::NoListing { .. }
            | FilesError::Cancelled
            | FilesError::WorkerLost => None,
        };
        let message = error.to_string();
        let failure = Failure::new(kind, message);
        let failure = match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        };
        match error {
            FilesError::Pattern { error, .. } => failure.caused_by(error),
            FilesError::Filter { error, .. } => failure.caused_by(error),
            FilesError::Io { error, .. } => failure.caused_by(error),
            _ => failure,
        }
    }
}
