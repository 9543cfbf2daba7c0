//! From the configuration to an open repository.

use crate::config::{Algorithm, Config, RepositoryConfig, VerifyAfter};
use mainstay_domain::{Clock, Failure, Kind, Result};
use mainstay_repository::{Access, Repository, Tuning, check::Depth, rescue::Spares};
use mainstay_stores::Store;
use std::{path::PathBuf, sync::Arc};

/// The configuration of a repository, with its name.
pub struct Named<'c> {
    pub name: &'c str,
    pub config: &'c RepositoryConfig,
}

/// The repository that holds an application's recovery points.
pub fn repository_of<'c>(config: &'c Config, app: &str) -> Result<Named<'c>> {
    let app = app_of(config, app)?;
    repository_named(config, &app.repository)
}

/// A repository by its name in the configuration.
pub fn repository_named<'c>(config: &'c Config, name: &str) -> Result<Named<'c>> {
    match config.repositories.get_key_value(name) {
        Some((name, config)) => Ok(Named { name, config }),
        None => Err(unknown("repository", name, config.repositories.keys())),
    }
}

/// An application's configuration, or an error that lists those there are.
pub fn app_of<'c>(config: &'c Config, name: &str) -> Result<&'c crate::config::AppConfig> {
    config.apps.get(name).ok_or_else(|| unknown("application", name, config.apps.keys()))
}

fn unknown<'k>(what: &str, name: &str, known: impl Iterator<Item = &'k String>) -> Failure {
    let known: Vec<_> = known.map(String::as_str).collect();
    Failure::usage(format!("the configuration has no {what} named {name:?}"))
        .hint(format!("There is: {}.", if known.is_empty() { "none".into() } else { known.join(", ") }))
}

/// Opens a repository with the key and the first store that the configuration names.
pub fn open(config: &Config, repository: &Named<'_>, clock: Arc<dyn Clock>) -> Result<Repository> {
    open_with(config, repository, &Spares::default(), clock)
}

/// As [`open`], with what a recovery kit holds where the store has lost it.
pub fn open_with(
    config: &Config,
    repository: &Named<'_>,
    spares: &Spares,
    clock: Arc<dyn Clock>,
) -> Result<Repository> {
    let access = access(config, repository, clock)?;
    Repository::open_with(access, None, spares)
        .map_err(|error| Failure::from(error).during(format_args!("repository {}", repository.name)))
}

/// What is needed to get at a repository.
pub fn access(config: &Config, repository: &Named<'_>, clock: Arc<dyn Clock>) -> Result<Access> {
    let secret = repository.config.key.read()?;
    let cache = cache_of(repository.config);
    Ok(Access { store: store_of(config, repository)?, secret, clock, cache })
}

pub fn store_of(config: &Config, repository: &Named<'_>) -> Result<Arc<dyn Store>> {
    let [store] = repository.config.stores.as_slice() else {
        return Err(Failure::usage(format!(
            "repository {} names {} stores",
            repository.name,
            repository.config.stores.len()
        ))
        .hint("This version of Mainstay keeps a repository in exactly one store."));
    };
    let store = config.stores.get(store).ok_or_else(|| unknown("store", store, config.stores.keys()))?;
    Ok(mainstay_stores::open(&store.url)?.into())
}

/// Where the index of a repository is kept at hand.
pub fn cache_of(repository: &RepositoryConfig) -> Option<PathBuf> {
    repository.cache.clone().or_else(default_cache)
}

/// `$MAINSTAY_CACHE`, or `mainstay` in the user's cache directory; `None` where neither can be known.
pub fn default_cache() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("MAINSTAY_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|directory| directory.join("mainstay")))
        .or_else(|| set("HOME").map(|directory| directory.join(".cache/mainstay")))
}

pub fn tuning(config: &RepositoryConfig) -> Tuning {
    let pack_bytes = usize::try_from(config.pack_size.0).unwrap_or(usize::MAX).clamp(16 << 20, 64 << 20);
    let compress = config.compression.algorithm != Algorithm::None;
    Tuning { compress, level: config.compression.level, pack_bytes, ..Tuning::default() }
}

pub fn depth(verify: VerifyAfter) -> Option<Depth> {
    match verify {
        VerifyAfter::None => None,
        VerifyAfter::Objects => Some(Depth::Objects),
        VerifyAfter::Packs => Some(Depth::Packs),
        VerifyAfter::Data => Some(Depth::Data),
    }
}

/// Threads for reading and checking: one for each processor.
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(2, |n| n.get())
}

/// What to do where a repository should be and is not.
pub const NOT_THERE: &str =
    "Is its disk mounted, and the address right? A new repository is made with `mainstay init`.";

/// A point that was asked for, but is not what the operation needs.
pub fn no_points(app: &str) -> Failure {
    Failure::new(Kind::NoRepository, format!("{app} has no recovery point yet"))
        .hint(format!("Make one: `mainstay backup {app}`."))
}
