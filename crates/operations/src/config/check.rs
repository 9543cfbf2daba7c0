//! What the shape alone cannot say: that names refer to something, and that numbers make sense together.

use super::{
    Config, Invalid,
    error::did_you_mean,
    model::{Algorithm, AppConfig, RepositoryConfig, SourceConfig, StoreConfig},
};
use mainstay_domain::Failure;
use mainstay_sources::postgres::mask::Mask;
use std::collections::BTreeMap;

/// The version of the format that this build reads.
const VERSION: u32 = 1;

impl Config {
    /// Every mistake, in the order of the file's sections.
    pub(super) fn check(&self) -> Vec<Invalid> {
        let mut found = Found(Vec::new());
        if self.version != VERSION {
            let message = format!("this version of Mainstay reads version {VERSION}, not {}", self.version);
            found.add("version", message);
        }
        self.check_stores(&mut found);
        for (name, repository) in &self.repositories {
            let place = format!("repositories.{name}");
            check_name(&place, name, &mut found);
            self.check_repository(&place, repository, &mut found);
        }
        for (name, app) in &self.apps {
            let place = format!("apps.{name}");
            check_name(&place, name, &mut found);
            self.check_app(&place, app, &mut found);
        }
        found.0
    }

    fn check_stores(&self, found: &mut Found) {
        let mut seen = BTreeMap::new();
        for (name, store) in &self.stores {
            let place = format!("stores.{name}");
            check_name(&place, name, found);
            check_url(&place, store, found);
            if store.quota.is_some() {
                let message = "cannot be kept: this version of Mainstay limits no store. Leave it out, and give the store a file system \
                               of its own, or a quota of the file system's";
                found.add(format!("{place}.quota"), message);
            }
            if let Some(other) = seen.insert(store.url.trim_end_matches('/'), name) {
                found.add(
                    format!("{place}.url"),
                    format!("is the same place as store {other:?}: one copy, not two"),
                );
            }
        }
    }

    fn check_repository(&self, place: &str, repository: &RepositoryConfig, found: &mut Found) {
        if repository.stores.is_empty() {
            found.add(format!("{place}.stores"), "names no store");
        }
        for (at, name) in repository.stores.iter().enumerate() {
            let place = format!("{place}.stores[{at}]");
            if !self.stores.contains_key(name) {
                found.unknown(place, "store", name, self.stores.keys());
            } else if repository.stores[..at].contains(name) {
                found.add(place, format!("names store {name:?} twice"));
            }
        }
        let stores = repository.stores.len();
        let required = repository.copies_required as usize;
        if required == 0 || required > stores.max(1) {
            let message = format!("is {required}, but must be from 1 to the number of stores ({stores})");
            found.add(format!("{place}.copies_required"), message);
        }
        if let Some(level) = repository.compression.level
            && !(1..=19).contains(&level)
        {
            let message = format!("is {level}, but must be from 1 to 19");
            found.add(format!("{place}.compression.level"), message);
        }
        if repository.compression.level.is_some() && repository.compression.algorithm == Algorithm::None {
            let message = "is a level of zstd, and the algorithm is none: leave one of them out";
            found.add(format!("{place}.compression.level"), message);
        }
        if !(16 << 20..=64 << 20).contains(&repository.pack_size.0) {
            let message = format!("is {}, but must be from 16MiB to 64MiB", repository.pack_size);
            found.add(format!("{place}.pack_size"), message);
        }
        if repository.cache.as_deref().is_some_and(|path| !path.is_absolute()) {
            found.add(format!("{place}.cache"), "must be an absolute path");
        }
    }

    fn check_app(&self, place: &str, app: &AppConfig, found: &mut Found) {
        if !self.repositories.contains_key(&app.repository) {
            let place = format!("{place}.repository");
            found.unknown(place, "repository", &app.repository, self.repositories.keys());
        }
        if app.sources.is_empty() {
            found.add(format!("{place}.sources"), "names no source: there is nothing to protect");
        }
        for (name, source) in &app.sources {
            let place = format!("{place}.sources.{name}");
            check_name(&place, name, found);
            let verdict = match source {
                SourceConfig::Postgres(config) => config.validate(),
                SourceConfig::Cluster(config) => config.validate(),
                SourceConfig::Files(config) => config.validate().map_err(Failure::from),
                SourceConfig::Redis(config) => config.validate(),
                SourceConfig::Config(config) => config.validate(),
                SourceConfig::Command(config) => config.validate(),
            };
            if let Err(failure) = verdict {
                found.add(format!("{place}.{}", source.kind()), failure.message);
            }
        }
        if let Some(ready) = app.hooks.as_ref().and_then(|hooks| hooks.wait_ready.as_ref()) {
            let place = format!("{place}.hooks.wait_ready");
            let said = [ready.command.is_some(), ready.tcp.is_some(), ready.http.is_some()]
                .iter()
                .filter(|on| **on)
                .count();
            if said != 1 {
                found.add(place, "needs exactly one of command, tcp and http");
            } else if ready.http.as_ref().is_some_and(|url| !url.starts_with("http://")) {
                found.add(format!("{place}.http"), "must begin with http://; for https, use a command");
            }
        }
        for (name, mask) in &app.masks {
            let place = format!("{place}.masks.{name}");
            check_name(&place, name, found);
            if let Err(failure) = Mask::new(mask) {
                found.add(place, failure.message);
            }
        }
        for (name, policy) in &app.policies {
            let place = format!("{place}.policies.{name}");
            check_name(&place, name, found);
            for (at, source) in policy.sources.iter().enumerate() {
                if !app.sources.contains_key(source) {
                    found.unknown(format!("{place}.sources[{at}]"), "source", source, app.sources.keys());
                }
            }
            if let Err(message) = policy.zone() {
                found.add(format!("{place}.timezone"), message);
            }
        }
    }
}

/// Mistakes found so far.
struct Found(Vec<Invalid>);

impl Found {
    fn add(&mut self, place: impl Into<String>, message: impl Into<String>) {
        self.0.push(Invalid { place: place.into(), message: message.into() });
    }

    fn unknown<'a>(
        &mut self,
        place: String,
        what: &str,
        name: &str,
        known: impl IntoIterator<Item = &'a String>,
    ) {
        let suggestion = did_you_mean(name, known.into_iter().map(String::as_str));
        self.add(place, format!("there is no {what} named {name:?}{suggestion}"));
    }
}

/// Names stand in commands, in paths of reports and in tables.
fn check_name(place: &str, name: &str, found: &mut Found) {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.is_empty() || name.len() > 64 || !name.chars().all(fits) || name.starts_with(['-', '.']) {
        found.add(
            place,
            "a name is 1 to 64 letters, digits, '_', '-' or '.', and begins with none of the last two",
        );
    }
}

fn check_url(place: &str, store: &StoreConfig, found: &mut Found) {
    let place = format!("{place}.url");
    match store.url.split_once("://") {
        Some(("file", path)) if path.starts_with('/') && path.len() > 1 => {}
        Some(("file", _)) => found.add(place, "must name an absolute folder: file:///var/lib/mainstay"),
        Some((scheme, _)) => {
            found.add(
                place,
                format!("this version of Mainstay has no store of kind {scheme:?} (it has: file)"),
            );
        }
        None if store.url.contains('$') => {
            found.add(place, format!("is no address: {:?} (variables are not filled in here)", store.url));
        }
        None => found.add(place, format!("is no address; for a folder write \"file://{}\"", store.url)),
    }
}
