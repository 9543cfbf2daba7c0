//! The configuration: what to protect, where to keep it, for how long.
//!
//! One strict YAML file. Unknown and duplicate keys are refused with line and column, nothing is interpolated, and no
//! secret stands in it: secrets are named by environment variable, file or command. [`Config::load`] reads, parses and
//! checks; what it returns refers only to stores, repositories and sources that exist. It opens none of them.

mod check;
mod error;
mod load;
mod model;
mod schedule;
mod schema;
mod words;

#[cfg(test)]
mod tests;

pub use error::{ConfigError, Invalid};
pub use load::{SEARCHED, find};
pub use model::{
    Algorithm, AppConfig, Compression, Config, Hooks, Media, MigrationConfig, PolicyConfig, Ready,
    ReleaseConfig, RepositoryConfig, SourceConfig, StoreConfig, VerifyAfter,
};
pub use schedule::Schedule;
pub use schema::schema;
