//! From a file to a checked [`Config`].

use super::{Config, ConfigError, words};
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
        let mut bytes = Vec::new();
        (&mut file).take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(ConfigError::TooLarge {
                path: path.to_owned(),
                bytes: metadata.len(),
                limit: MAX_BYTES,
            });
        }
        match str::from_utf8(&bytes) {
            Ok(text) => Config::parse(text, path),
            Err(error) => {
                let (line, column, message) = words::not_text(&bytes, error.valid_up_to());
                Err(ConfigError::Malformed { path: path.to_owned(), line, column, message, suggestion: None })
            }
        }
    }

    /// Parses and checks `text`; `path` is what errors call it.
    pub fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
        let options = serde_saphyr::options! {
            with_snippet: false,
            duplicate_keys: DuplicateKeyPolicy::Error,
            strict_booleans: true,
        };
        let mut config: Config = serde_saphyr::from_str_with_options(text, options)
            .map_err(|error| malformed(path, &error, text))?;
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

fn malformed(path: &Path, error: &YamlError, text: &str) -> ConfigError {
    let place = error.location();
    let (message, suggestion) = words::of(error.without_snippet(), text);
    ConfigError::Malformed {
        path: path.to_owned(),
        line: place.map_or(1, |l| l.line()),
        column: place.map_or(1, |l| l.column()),
        message,
        suggestion,
    }
}
