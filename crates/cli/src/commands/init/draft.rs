//! A first configuration: from options, or from answers.

use super::New;
use crate::render::confirm::answer;
use mainstay_domain::{Failure, Result};
use mainstay_sources::files::show_path;
use std::{
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// What is typed where there is none.
const NONE: &str = "-";

/// What a first configuration says.
#[derive(Debug, Clone)]
pub struct Draft {
    pub app: String,
    pub database: Option<String>,
    pub folders: Vec<PathBuf>,
    pub store: String,
    pub key: Key,
}

/// Where the key is.
#[derive(Debug, Clone)]
pub enum Key {
    Variable(String),
    File(PathBuf),
}

impl Draft {
    pub fn from_options(new: &New, folder: &Path) -> Result<Draft> {
        let Some(store) = &new.store else {
            return Err(Failure::usage("it is not said where to keep the repository")
                .hint("Add --store: a folder, or an address such as file:///var/lib/mainstay."));
        };
        if new.postgres_url_env.is_none() && new.files.is_empty() {
            return Err(Failure::usage("it is not said what to protect")
                .hint("Add --postgres-url-env, --files, or both."));
        }
        let key = match (&new.key_env, &new.key_file) {
            (Some(name), _) => Key::Variable(name.clone()),
            (None, Some(path)) => Key::File(folder.join(path)),
            (None, None) => Key::File(folder.join("mainstay.key")),
        };
        Ok(Draft {
            app: new.app.clone().unwrap_or_else(|| name_of(folder)),
            database: new.postgres_url_env.clone(),
            folders: new.files.iter().map(|path| folder.join(path)).collect(),
            store: address(store, folder),
            key,
        })
    }

    /// Asks on the terminal.
    pub fn ask(folder: &Path) -> Result<Draft> {
        let app = answer("The application's name", &name_of(folder))?;
        let variable = match std::env::var_os("DATABASE_URL") {
            Some(url) if !url.is_empty() => "DATABASE_URL",
            _ => NONE,
        };
        let database =
            answer("The environment variable with its PostgreSQL address (-: no database)", variable)?;
        let database = Some(database).filter(|name| name != NONE);
        let mut folders = Vec::new();
        loop {
            let more = if folders.is_empty() {
                "A folder with its files (-: none)"
            } else {
                "One more (-: no more)"
            };
            match answer(more, NONE)? {
                end if end == NONE => break,
                path => folders.push(folder.join(path)),
            }
        }
        if database.is_none() && folders.is_empty() {
            return Err(
                Failure::usage("there is nothing to protect").hint("Name a database, a folder, or both.")
            );
        }
        let store = answer("Where to keep the backups (a folder on another disk)", "/var/lib/mainstay")?;
        let key = answer("Where to keep the key (a file; made if it is not there)", "mainstay.key")?;
        Ok(Draft { app, database, folders, store: address(&store, folder), key: Key::File(folder.join(key)) })
    }

    /// What would go wrong at the first backup, or make it useless.
    pub fn check(&self) -> Result<()> {
        for folder in &self.folders {
            if !folder.exists() {
                return Err(Failure::usage(format!("there is no folder {}", folder.display()))
                    .hint("Make it first, or correct the name."));
            }
            if folder.to_str().is_none() {
                let shown = show_path(folder.as_os_str().as_bytes());
                return Err(Failure::usage(format!(
                    "the name of {shown} is no UTF-8, and a configuration cannot hold it"
                ))
                .hint(
                    "Name the folder above it, whose files may have any name, or a link that leads to it.",
                ));
            }
            let within = |path: &Path| path.starts_with(folder);
            if self.store.strip_prefix("file://").is_some_and(|store| within(Path::new(store))) {
                return Err(Failure::usage(format!(
                    "the repository would lie in {}, which it protects",
                    folder.display()
                ))
                .hint("Keep it elsewhere, best on another disk."));
            }
            if let Key::File(key) = &self.key
                && within(key)
            {
                return Err(Failure::usage(format!(
                    "the key would lie in {}, which it protects",
                    folder.display()
                ))
                .hint("Keep it elsewhere: --key-file FILE."));
            }
        }
        Ok(())
    }

    pub fn to_yaml(&self) -> String {
        let key = match &self.key {
            Key::Variable(name) => format!("{{ env: {} }}", quoted(name)),
            Key::File(path) => format!("{{ file: {} }}", quoted(&path.to_string_lossy())),
        };
        let mut sources = String::new();
        if let Some(variable) = &self.database {
            sources
                .push_str(&format!("      db: {{ postgres: {{ url: {{ env: {} }} }} }}\n", quoted(variable)));
        }
        if !self.folders.is_empty() {
            let paths: Vec<_> = self.folders.iter().map(|path| quoted(&path.to_string_lossy())).collect();
            sources.push_str(&format!("      files: {{ files: {{ paths: [{}] }} }}\n", paths.join(", ")));
        }
        format!(
            "# What Mainstay protects. `mainstay config check` says what is wrong with it; every key is explained in\n\
             # doc/reference/config.md.\n\
             version: 1\n\n\
             stores:\n  local: {{ url: {} }}\n\n\
             repositories:\n  main: {{ key: {key}, stores: [local] }}\n\n\
             apps:\n  {}:\n    repository: main\n    sources:\n{sources}    policies:\n      \
             nightly: {{ schedule: \"0 3 * * *\", keep: {{ last: 3, daily: 7, weekly: 4, monthly: 12 }} }}\n",
            quoted(&self.store),
            self.app,
        )
    }
}

/// The folder's name, as far as it can be a name in the configuration.
fn name_of(folder: &Path) -> String {
    let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let fits = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '_' | '-') { c } else { '-' };
    let name: String = name.chars().map(fits).collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "app".to_owned() } else { name.to_owned() }
}

/// A folder becomes an address; an address stays one.
pub fn address(store: &str, folder: &Path) -> String {
    if store.contains("://") { store.to_owned() } else { format!("file://{}", folder.join(store).display()) }
}

/// A text in double quotes means the same in JSON and in YAML.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
