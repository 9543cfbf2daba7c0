//! Arguments with a form of their own.

use mainstay_domain::{RepositoryId, point::OWN_LABELS};

/// `release=1.4.2`.
pub fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, _)) if name.starts_with(OWN_LABELS) => {
            Err(format!("names that begin with {OWN_LABELS} are the program's own"))
        }
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}

/// A repository's fingerprint as it is printed: in groups, on two lines.
pub fn fingerprint(text: &str) -> Result<RepositoryId, String> {
    let digits: String = text.split_whitespace().collect();
    digits.parse().map_err(|_| "write the 64 digits of the recovery kit".to_owned())
}
