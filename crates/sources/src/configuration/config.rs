//! How a configuration is written down as a source.

use crate::{
    files::FilesConfig,
    postgres::{
        secret::SecretText,
        wire::{ConnectSpec, process_environment, quote_qualified},
    },
};
use mainstay_domain::Failure;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, path::PathBuf};

/// Configuration files, and tables that hold settings.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfigurationConfig {
    /// Files, or folders of files: .env, compose files, the web server's sites; as absolute paths.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<PathBuf>,
    /// What to leave out: gitignore patterns, relative to each path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// Tables of a PostgreSQL database that hold settings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<Table>,
}

/// A table, or what a query says, as lines of JSON.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// The address of its database: postgres://user:password@host:5432/database. Better from the environment than in this file.
    pub url: SecretText,
    /// The table: schema.name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// A query in place of a table; it reads, and changes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// What it is called in recovery points; the table's name by default, and needed for a query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl ConfigurationConfig {
    /// What can be said to be wrong without looking at anything.
    pub fn validate(&self) -> Result<(), Failure> {
        if self.files.is_empty() && self.tables.is_empty() {
            return Err(Failure::usage("names no files and no tables: there is nothing to capture"));
        }
        if !self.files.is_empty() {
            self.of_files().validate()?;
        }
        let mut names = BTreeSet::new();
        for table in &self.tables {
            let name = table.name()?;
            table.statement()?;
            if !names.insert(name.clone()) {
                return Err(Failure::usage(format!("two tables are called {name:?}"))
                    .hint("Give one of them another name with `name:`."));
            }
        }
        Ok(())
    }

    /// The files, as a source of their own.
    pub(super) fn of_files(&self) -> FilesConfig {
        FilesConfig { paths: self.files.clone(), exclude: self.exclude.clone(), ..FilesConfig::default() }
    }
}

impl Table {
    /// What it is called; part of a file's name when it is restored.
    pub fn name(&self) -> Result<String, Failure> {
        let name = self.name.clone().or_else(|| self.table.clone()).unwrap_or_default();
        let fits = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-');
        if name.is_empty() || name.len() > 128 || name.starts_with(['.', '-']) || !name.chars().all(fits) {
            return Err(Failure::usage(format!("{name:?} is no name for a table"))
                .hint("Give it one with `name:`, of letters, digits, '.', '_' or '-'."));
        }
        Ok(name)
    }

    /// What is asked of the server: one column, the rows as JSON, in an order that does not change.
    pub(super) fn statement(&self) -> Result<String, Failure> {
        let from = match (&self.table, &self.query) {
            (Some(table), None) => {
                let (schema, name) = table.split_once('.').unwrap_or(("public", table));
                format!("SELECT * FROM {}", quote_qualified(schema, name))
            }
            (None, Some(query)) => query.trim().trim_end_matches(';').to_owned(),
            _ => {
                return Err(Failure::usage("a table of a configuration has either `table` or `query`")
                    .hint("Write { url: …, table: public.settings }."));
            }
        };
        Ok(format!(
            "SELECT line FROM (SELECT pg_catalog.to_jsonb(captured)::pg_catalog.text AS line FROM ({from}) AS captured) AS lines \
             ORDER BY line COLLATE \"C\""
        ))
    }

    /// Fetches the address, with what the PG* environment adds.
    pub fn connect_spec(&self) -> Result<ConnectSpec, Failure> {
        ConnectSpec::parse(&self.url.resolve(&process_environment)?, &process_environment)
    }
}
