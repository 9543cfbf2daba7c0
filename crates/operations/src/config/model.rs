//! The shape of the configuration file. Field comments are what the JSON schema and `doc/reference/config.md` say.

use super::schedule::Schedule;
use mainstay_domain::retention::Keep;
use mainstay_domain::{ByteSize, time::Span};
use mainstay_keys::source::KeySpec;
use mainstay_sources::{
    command::{CommandConfig, CommandLine},
    configuration::ConfigurationConfig,
    files::FilesConfig,
    postgres::{cluster::ClusterConfig, config::PostgresConfig, secret::SecretText},
    redis::RedisConfig,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Everything that Mainstay is told about one machine's applications.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The file that this was read from.
    #[serde(skip)]
    pub(super) path: PathBuf,
    /// The version of this format: 1.
    pub version: u32,
    /// Places where repositories are kept, by name.
    pub stores: BTreeMap<String, StoreConfig>,
    /// Repositories, by name. All applications of one repository share its key and its deduplication.
    pub repositories: BTreeMap<String, RepositoryConfig>,
    /// What is protected, by name.
    pub apps: BTreeMap<String, AppConfig>,
}

/// A place that keeps objects.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StoreConfig {
    /// Where it is: `file:///absolute/path` for a folder.
    pub url: String,
    /// What it is made of, for counting copies on different media.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media: Option<Media>,
    /// Where it stands, in your own words, for counting copies at different sites.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// How many bytes Mainstay may fill here. Not built yet: a file that says it is refused, so that nobody relies on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<ByteSize>,
}

/// What a store is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Media {
    Disk,
    Object,
    Tape,
}

/// A repository: one key, one or more stores that each hold a copy.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RepositoryConfig {
    /// Where its key comes from.
    pub key: KeySpec,
    /// The stores that hold it, by name. Restores prefer the first that answers.
    pub stores: Vec<String>,
    /// How many stores must hold a recovery point before the backup counts as done.
    #[serde(default = "one")]
    pub copies_required: u32,
    #[serde(default)]
    pub compression: Compression,
    /// Size of the objects that chunks are gathered into: 16MiB to 64MiB.
    #[serde(default = "default_pack_size")]
    pub pack_size: ByteSize,
    /// How deeply every backup reads back what it wrote; of more than 4 GiB a random sample, and all that describes the data.
    #[serde(default)]
    pub verify_after: VerifyAfter,
    /// Folder for the index cache, which can be deleted at any time. By default `mainstay` in the user's cache folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<PathBuf>,
}

/// How what recovery points hold is compressed. (Archived log always is, by zstd.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Compression {
    #[serde(default)]
    pub algorithm: Algorithm,
    /// zstd level, 1 (fast) to 19 (small). By default 1 or 3, whichever pays: small samples of what is stored are tried at both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<i32>,
}

/// What chunks are compressed with. A repository may hold chunks of both: those that are there already stay as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    #[default]
    Zstd,
    /// Nothing: for a store that compresses by itself.
    None,
}

/// How deeply a backup is read back at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum VerifyAfter {
    /// Not at all.
    None,
    /// That each object is there, in its full size.
    Objects,
    /// That the bytes of each pack are the bytes that were written.
    #[default]
    Packs,
    /// That each chunk decrypts, decompresses and matches its id.
    Data,
}

/// An application: the sources that are captured together, and when.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AppConfig {
    /// The repository that holds its recovery points.
    pub repository: String,
    /// `production`, `staging`, or your own word.
    #[serde(default = "default_environment")]
    pub environment: String,
    /// What is captured, by name.
    pub sources: BTreeMap<String, SourceConfig>,
    /// What says which release of the application runs; recorded as the label `release`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<ReleaseConfig>,
    /// What says how far the database's schema has been migrated; recorded as the label `migration`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration: Option<MigrationConfig>,
    /// How far apart the moments may lie at which the sources are captured; a point that exceeds it carries a warning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_skew: Option<Span>,
    /// What is done around every restore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Hooks>,
    /// Masks for copies that others may see, by name: what becomes of a column (public.users.email) is hash, null, email,
    /// fixed:VALUE, or a SQL expression over the row's columns.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub masks: BTreeMap<String, BTreeMap<String, String>>,
    /// When, and for how long it is kept, by name. A backup that names no policy is kept until it is deleted.
    #[serde(default)]
    pub policies: BTreeMap<String, PolicyConfig>,
}

/// Commands around a restore. They see MAINSTAY_APP, MAINSTAY_POINT, MAINSTAY_SOURCE and MAINSTAY_OUTCOME.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hooks {
    /// Runs when everything is planned and agreed to; if it fails, nothing is restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before_restore: Option<CommandLine>,
    /// Runs at the end, also of a restore that failed or was stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_restore: Option<CommandLine>,
    /// How long each of them may take.
    #[serde(default = "ten_minutes")]
    pub timeout: Span,
    /// Waited for after a restore that was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_ready: Option<Ready>,
}

/// What says that the application is ready: exactly one of command, tcp and http.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ready {
    /// A command that ends well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<CommandLine>,
    /// An address that takes connections: localhost:8080.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<String>,
    /// An address that answers with a status of 2xx or 3xx: http://localhost:8080/health. For https, use a command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    /// How long to wait.
    #[serde(default = "ten_minutes")]
    pub timeout: Span,
}

/// One source: exactly one kind.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SourceConfig {
    /// A PostgreSQL database, captured logically under one snapshot.
    Postgres(Box<PostgresConfig>),
    /// A PostgreSQL server with all of its databases, captured as files, for point-in-time recovery.
    Cluster(Box<ClusterConfig>),
    /// Folders and files.
    Files(Box<FilesConfig>),
    /// A Redis or Valkey server, captured as a replica would be given its data.
    Redis(Box<RedisConfig>),
    /// Configuration files, and tables that hold settings. What looks like a secret is hidden in every comparison.
    Config(Box<ConfigurationConfig>),
    /// What a command writes to its standard output.
    Command(Box<CommandConfig>),
}

impl SourceConfig {
    /// As recovery points record it.
    pub fn kind(&self) -> &'static str {
        match self {
            SourceConfig::Postgres(_) => "postgres",
            SourceConfig::Cluster(_) => "cluster",
            SourceConfig::Files(_) => "files",
            SourceConfig::Redis(_) => "redis",
            SourceConfig::Config(_) => "config",
            SourceConfig::Command(_) => "command",
        }
    }

    /// Whether something is left out of it on purpose, so that no point can have all of it.
    pub fn leaves_something_out(&self) -> bool {
        match self {
            SourceConfig::Postgres(postgres) => {
                postgres.tables.iter().any(|rule| rule.exclude == Some(true) || rule.r#where.is_some())
            }
            _ => false,
        }
    }
}

/// Where the name of the release comes from: exactly one.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReleaseConfig {
    /// The first line that a command writes: ["git", "-C", "/srv/shop", "describe"], or a text for the shell.
    Command(CommandLine),
    /// An environment variable.
    Env(String),
    /// The first line of a file.
    File(PathBuf),
}

/// The query that says how far the schema has been migrated.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MigrationConfig {
    /// The address of the database: postgres://user:password@host:5432/database. Better from the environment than in this file.
    pub url: SecretText,
    /// One row with one column: SELECT max(version) FROM schema_migrations.
    pub query: String,
}

/// When to capture, and for how long to keep it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyConfig {
    /// A cron expression: minute, hour, day of month, month, day of week.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// The time zone of the schedule, and of retention's days: `Europe/Berlin`. UTC by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// The sources that it captures; all by default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
    /// Which of its recovery points are kept.
    pub keep: Keep,
}

fn one() -> u32 {
    1
}
fn ten_minutes() -> Span {
    Span { nanoseconds: 10 * mainstay_domain::time::MINUTE }
}
fn default_pack_size() -> ByteSize {
    ByteSize(16 << 20)
}
fn default_environment() -> String {
    "production".to_owned()
}

impl Config {
    /// The file that this was read from; empty if it was parsed from text.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl PolicyConfig {
    /// The zone in which its schedule and its days are counted.
    pub fn zone(&self) -> Result<jiff::tz::TimeZone, String> {
        let name = self.timezone.as_deref().unwrap_or("UTC");
        jiff::tz::TimeZone::get(name)
            .map_err(|_| format!("{name:?} is not a time zone (write one such as Europe/Berlin)"))
    }
}
