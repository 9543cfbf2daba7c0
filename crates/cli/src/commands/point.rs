//! Which recovery point a user means.
//!
//! `shop` is the latest point of that application; `shop@WORDS` lets the operation decide (`latest`, `latest-complete`, a
//! time, the beginning of an id); anything else is the beginning of an id, looked for in every repository.

use crate::{context::Context, output};
use mainstay_domain::{Failure, Kind, PointId, Result};
use mainstay_operations::{
    access::{self, Named},
    config::Config,
    damage, kit,
    points::{self, PointInfo},
};
use mainstay_repository::{Repository, rescue::Spares};
use std::path::Path;

/// How every command that takes a point explains it.
pub const HELP: &str = "An application (its latest point), APP@latest-complete, APP@2026-11-20T03:00 (the last at or \
                        before then), or the beginning of a point's id";

/// A point, and the open repository that holds it.
pub struct Chosen {
    pub repository: Repository,
    pub info: PointInfo,
}

/// Says what is wrong with a repository, before anything is believed of what it lists.
pub fn warn_of_damage(repository: &Repository) -> Result<()> {
    for wrong in damage::of(repository)? {
        output::note(format_args!("warning: {}: {}. {}", wrong.object, wrong.text, wrong.hint));
    }
    Ok(())
}

/// The objects of the recovery kit in this file.
pub fn spares(path: &Path) -> Result<Spares> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::usage(format!("the recovery kit {} cannot be read", path.display()))
            .hint("Name the text file that `mainstay init` or `mainstay key kit` wrote.")
            .caused_by(error)
    })?;
    kit::spares(&text)
}

/// Finds the point that `words` mean.
pub fn choose(context: &Context, config: &Config, words: &str) -> Result<Chosen> {
    let (app, which) = words.split_once('@').unwrap_or((words, "latest"));
    if config.apps.contains_key(app) {
        return choose_of(context, config, app, which);
    }
    if words.len() < 4
        || words.len() > PointId::LEN * 2
        || !words.bytes().all(|byte| byte.is_ascii_hexdigit())
    {
        // Says which applications there are.
        access::app_of(config, app)?;
    }
    by_id(context, config, words)
}

/// Finds the point of `app` that `which` means.
pub fn choose_of(context: &Context, config: &Config, app: &str, which: &str) -> Result<Chosen> {
    let repository = access::open(config, &access::repository_of(config, app)?, context.clock())?;
    warn_of_damage(&repository)?;
    let info = points::find(&repository, app, which)?;
    Ok(Chosen { repository, info })
}

fn by_id(context: &Context, config: &Config, prefix: &str) -> Result<Chosen> {
    let prefix = prefix.to_ascii_lowercase();
    let mut found: Vec<Chosen> = Vec::new();
    for named in repositories(config) {
        let repository = access::open(config, &named, context.clock())?;
        warn_of_damage(&repository)?;
        let mut matching: Vec<_> = points::list(&repository, None)?
            .into_iter()
            .filter(|p| p.id.to_string().starts_with(&prefix))
            .collect();
        if matching.len() > 1 {
            let ids: Vec<_> = matching.iter().map(|p| p.id.to_string()[..16].to_owned()).collect();
            let message =
                format!("{prefix:?} is the beginning of several recovery points: {}", ids.join(", "));
            return Err(Failure::usage(message).hint("Write more of it."));
        }
        if let Some(info) = matching.pop() {
            found.push(Chosen { repository, info });
        }
    }
    match (found.pop(), found.is_empty()) {
        (Some(chosen), true) => Ok(chosen),
        (Some(_), false) => {
            let message = format!("{prefix:?} is the beginning of points in several repositories");
            Err(Failure::usage(message).hint("Write more of it, or APP@ID."))
        }
        (None, _) => {
            Err(Failure::new(Kind::NoRepository, format!("no recovery point's id begins with {prefix:?}"))
                .hint("`mainstay list` shows what there is."))
        }
    }
}

/// Every repository of the configuration.
pub fn repositories(config: &Config) -> impl Iterator<Item = Named<'_>> {
    config.repositories.iter().map(|(name, config)| Named { name, config })
}

/// The repository that is named, or the only one.
pub fn one_repository<'c>(config: &'c Config, name: Option<&str>) -> Result<Named<'c>> {
    match (name, config.repositories.iter().next()) {
        (Some(name), _) => access::repository_named(config, name),
        (None, Some((name, only))) if config.repositories.len() == 1 => Ok(Named { name, config: only }),
        (None, _) => {
            let names: Vec<_> = config.repositories.keys().map(String::as_str).collect();
            Err(Failure::usage(format!("the configuration names {} repositories", names.len()))
                .hint(format!("Say which one: --repository {}.", names.join("|"))))
        }
    }
}
