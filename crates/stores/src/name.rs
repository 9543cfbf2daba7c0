//! Which names an object may have. Every store refuses the others, so that a name read from storage can do no harm: it
//! never leaves the store's folder, and means the same on every file system and in every bucket.

use crate::StoreError;

const MAX_NAME_BYTES: usize = 900;
const MAX_COMPONENT_BYTES: usize = 200;

/// Components of ASCII letters, digits and `-_.@=+`, joined by `/`. None is empty or begins with a dot (such names belong
/// to the store itself); a component has at most 200 bytes, the whole at most 900.
pub fn is_valid(name: &str) -> bool {
    name.len() <= MAX_NAME_BYTES && name.split('/').all(is_valid_component)
}

/// A prefix for `list`: empty, or a valid name and a `/`.
pub fn is_valid_prefix(prefix: &str) -> bool {
    prefix.is_empty() || prefix.strip_suffix('/').is_some_and(is_valid)
}

pub(crate) fn is_valid_component(component: &str) -> bool {
    !component.is_empty()
        && component.len() <= MAX_COMPONENT_BYTES
        && !component.starts_with('.')
        && component.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.@=+".contains(&b))
}

pub(crate) fn check(store: &dyn crate::Store, name: &str) -> Result<(), StoreError> {
    if is_valid(name) { Ok(()) } else { Err(bad(store, name)) }
}

pub(crate) fn check_prefix(store: &dyn crate::Store, prefix: &str) -> Result<(), StoreError> {
    if is_valid_prefix(prefix) { Ok(()) } else { Err(bad(store, prefix)) }
}

fn bad(store: &dyn crate::Store, name: &str) -> StoreError {
    StoreError::BadName { store: store.describe(), name: name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_the_store_or_touch_what_is_the_stores_own() {
        for good in
            ["format", "log/00000000000000000001", "wal/h/1/a@0-9-ff", "keys/0000000001/00ff", "a.b_c=d+e"]
        {
            assert!(is_valid(good), "{good}");
        }
        for bad in [
            "", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "../a", ".tmp/x", "a/.b", "a b", "a\nb",
            "a\\b", "ä", "a\0",
        ] {
            assert!(!is_valid(bad), "{bad:?}");
        }
        assert!(!is_valid(&"x".repeat(201)) && !is_valid(&vec!["x".repeat(150); 7].join("/")));
    }

    #[test]
    fn a_prefix_ends_at_a_component() {
        assert!(is_valid_prefix("") && is_valid_prefix("packs/") && is_valid_prefix("packs/data/"));
        assert!(!is_valid_prefix("packs") && !is_valid_prefix("/") && !is_valid_prefix("../"));
    }
}
