//! From a file to a checked [`Config`].

use super::{Config, ConfigError, error::nearest};
use serde_saphyr::{DuplicateKeyPolicy, Error as YamlError};
use std::{
    fs::File,
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Where a configuration is looked for, in this order, after `--config` and `MAINSTAY_CONFIG`.
pub const SEARCHED: [&str; 2] = ["mainstay.yaml", "/etc/mainstay/mainstay.yaml"];

/// Far more than any configuration needs: refuses a dump or a log given by mistake.
const MAX_BYTES: u64 = 4 << 20;

/// The configuration file to use: `named` (by `--config` or `MAINSTAY_CONFIG`), else the first of [`SEARCHED`] that is
/// there.
pub fn find(named: Option<&Path>) -> Result<PathBuf, ConfigError> {
    match named {
        Some(path) => Ok(path.to_owned()),
        None => {
            let searched: Vec<_> = SEARCHED.iter().map(PathBuf::from).collect();
            searched.iter().find(|path| path.exists()).cloned().ok_or(ConfigError::NotFound { searched })
        }
    }
}

impl Config {
    /// Reads, parses and checks `path`. A file that other users can write is refused: it names commands to run.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        let mode = metadata.mode() & 0o7777;
        if metadata.is_file() && mode & 0o022 != 0 {
            return Err(ConfigError::WritableByOthers { path: path.to_owned(), mode });
        }
        let mut text = String::new();
        (&mut file).take(MAX_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
        if text.len() as u64 > MAX_BYTES {
            return Err(ConfigError::TooLarge {
                path: path.to_owned(),
                bytes: metadata.len(),
                limit: MAX_BYTES,
            });
        }
        Config::parse(&text, path)
    }

    /// Parses and checks `text`; `path` is what errors call it.
    pub fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
        let options = serde_saphyr::options! {
            with_snippet: false,
            duplicate_keys: DuplicateKeyPolicy::Error,
            strict_booleans: true,
        };
        let mut config: Config =
            serde_saphyr::from_str_with_options(text, options).map_err(|error| malformed(path, &error))?;
        config.path = path.to_owned();
        let problems = config.check();
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError::Invalid { path: path.to_owned(), problems })
        }
    }

    /// The configuration as YAML, defaults written out. It names secrets but holds none.
    pub fn to_yaml(&self) -> String {
        serde_saphyr::to_string(self).expect("a configuration that was read can be written")
    }
}

fn malformed(path: &Path, error: &YamlError) -> ConfigError {
    let place = error.location();
    let shown = error.without_snippet().to_string();
    // The location is shown in front, where editors look for it.
    let message = match shown.rsplit_once(" at line ") {
        Some((message, _)) => message.to_owned(),
        None => shown,
    };
    let (message, suggestion) = match error.without_snippet() {
        YamlError::SerdeUnknownField { field, expected, .. } => (
            format!("unknown key `{field}`, expected {}", one_of(expected)),
            nearest(field, expected.iter().copied()).map(str::to_owned),
        ),
        YamlError::SerdeUnknownVariant { variant, expected, .. } => (
            format!("unknown word `{variant}`, expected {}", one_of(expected)),
            nearest(variant, expected.iter().copied()).map(str::to_owned),
        ),
        YamlError::DuplicateMappingKey { .. } => {
            (message.split(", set ").next().unwrap_or(&message).replace("mapping key", "key"), None)
        }
        _ => (message, None),
    };
    ConfigError::Malformed {
        path: path.to_owned(),
        line: place.map_or(1, |l| l.line()),
        column: place.map_or(1, |l| l.column()),
        message,
        suggestion,
    }
}

fn one_of(words: &[&str]) -> String {
    match words {
        [] => "nothing here".to_owned(),
        [word] => format!("`{word}`"),
        [most @ .., last] => {
            format!("{} or `{last}`", most.iter().map(|w| format!("`{w}`")).collect::<Vec<_>>().join(", "))
        }
    }
}
