//! End-to-end tests against real servers, and the tidy checks of the workspace, live in `tests/tests/`.
//!
//! This library holds what they share.

use std::path::PathBuf;

/// The folder that holds the workspace's `Cargo.toml`.
pub fn workspace() -> PathBuf {
    let tests = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the tests crate lies inside the workspace").to_owned()
}
