//! What can be wrong with a configuration, and what its reader can do about it.

use mainstay_domain::{Failure, Kind};
use std::{fmt, path::PathBuf};

/// One mistake that only shows when the file is looked at as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// Dotted path: `apps.shop.repository`.
    pub place: String,
    pub message: String,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("there is no configuration file (looked for {})", list(.searched))]
    NotFound { searched: Vec<PathBuf> },
    #[error("{} could not be read", .path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{} can be changed by other users (mode {mode:04o})", .path.display())]
    WritableByOthers { path: PathBuf, mode: u32 },
    #[error("{} is not a configuration: {bytes} bytes is more than the {limit} allowed", .path.display())]
    TooLarge { path: PathBuf, bytes: u64, limit: u64 },
    #[error("{}:{line}:{column}: {message}", .path.display())]
    Malformed { path: PathBuf, line: u64, column: u64, message: String, suggestion: Option<String> },
    #[error("{} is not usable\n{}", .path.display(), lines(.problems))]
    Invalid { path: PathBuf, problems: Vec<Invalid> },
    #[error("there is no {what} named {name:?} in {}", .path.display())]
    Unknown { what: &'static str, name: String, path: PathBuf, known: Vec<String> },
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn lines(problems: &[Invalid]) -> String {
    problems.iter().map(|p| format!("  {p}")).collect::<Vec<_>>().join("\n")
}

/// The candidate that `word` was most likely meant to be.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&word.to_lowercase(), candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// ` (did you mean …?)`, or nothing.
pub(super) fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, candidates).map(|c| format!(" (did you mean {c:?}?)")).unwrap_or_default()
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        let hint = match &error {
            ConfigError::NotFound { .. } => {
                "Write one with `mainstay init`, or name yours with --config or MAINSTAY_CONFIG.".to_owned()
            }
            ConfigError::Unreadable { .. } => "Check the path, and that this user may read it.".to_owned(),
            ConfigError::WritableByOthers { path, .. } => {
                format!("It decides what runs and what is kept; run `chmod go-w {}`.", path.display())
            }
            ConfigError::TooLarge { .. } => "Name the right file with --config.".to_owned(),
            ConfigError::Malformed { suggestion: Some(word), .. } => format!("Did you mean `{word}`?"),
            ConfigError::Malformed { .. } | ConfigError::Invalid { .. } => {
                "`mainstay config schema` prints what is allowed; doc/reference/config.md explains it."
                    .to_owned()
            }
            ConfigError::Unknown { what, name, known, .. } => {
                match nearest(name, known.iter().map(String::as_str)) {
                    Some(word) => format!("Did you mean `{word}`?"),
                    None if known.is_empty() => format!("It names no {what} at all."),
                    None => format!("It names {}.", known.join(", ")),
                }
            }
        };
        let message = error.to_string();
        let failure = Failure::new(Kind::Usage, message).hint(hint);
        match error {
            ConfigError::Unreadable { source, .. } => failure.caused_by(source),
            _ => failure,
        }
    }
}
