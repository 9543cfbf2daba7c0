//! `mainstay init`: a new repository, and the recovery kit that opens it when everything else is gone.

use crate::{access, config::Config};
use mainstay_domain::{Clock, RepositoryId, Result};
use mainstay_repository::{Repository, stream::Chunking};
use std::sync::Arc;

/// What was made.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub repository: RepositoryId,
    /// The root verify key: its hash is the repository's id, and the kit prints it.
    pub root: [u8; 32],
    pub store: String,
}

/// Makes the repository `name` of the configuration. Never touches one that is there.
pub fn init(config: &Config, name: &str, clock: Arc<dyn Clock>) -> Result<Outcome> {
    let named = access::repository_named(config, name)?;
    let access = access::access(config, &named, clock)?;
    let created = Repository::init(&access, &format!("first key of {name}"), Chunking::default())?;
    Ok(Outcome { repository: created.repository, root: created.root, store: access.store.describe() })
}

/// Whether the repository `name` of the configuration could be made, as far as its store can tell. Changes nothing.
pub fn check(config: &Config, name: &str) -> Result<()> {
    let store = access::store_of(config, &access::repository_named(config, name)?)?;
    Ok(Repository::check_empty(&*store)?)
}
