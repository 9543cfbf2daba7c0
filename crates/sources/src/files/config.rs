//! What a files source is asked to capture: its part of the configuration, the patterns compiled, the roots named.
//!
//! Patterns are gitignore lines, matched against the path below each root. An excluded directory is not entered. Where
//! `include` is given, other files are left out; directories on the way stay.

use super::FilesError;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use mainstay_domain::time::Span;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

/// A files source as the configuration writes it.
#[derive(
    Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct FilesConfig {
    /// Directories (or single files) to capture, as absolute paths.
    pub paths: Vec<PathBuf>,
    /// What to leave out: gitignore patterns, relative to each path (`**/cache/**`, `*.tmp`, `!keep.tmp`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// If given, only files that match one of these gitignore patterns are captured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    /// Do not enter directories on which another file system is mounted.
    #[serde(default)]
    pub one_file_system: bool,
    /// How long deleted files stay findable and restorable, whatever becomes of the recovery points that held them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_deleted: Option<Span>,
    /// Leave out the contents of directories that hold a valid `CACHEDIR.TAG` (https://bford.info/cachedir/).
    #[serde(default)]
    pub cachedir_tag: bool,
}

impl FilesConfig {
    /// Says what is wrong with the configuration itself, before any file is looked at.
    pub fn validate(&self) -> Result<(), FilesError> {
        if self.paths.is_empty() {
            return Err(FilesError::NoPaths);
        }
        if let Some(path) = self.paths.iter().find(|p| !p.is_absolute()) {
            return Err(FilesError::RelativePath(path.clone()));
        }
        let mut seen = BTreeSet::new();
        if let Some(path) = self.paths.iter().find(|p| !seen.insert(p.components().collect::<PathBuf>())) {
            return Err(FilesError::RepeatedPath(path.clone()));
        }
        Rules::new(self).map(drop)
    }
}

/// The patterns of one source, compiled.
#[derive(Debug)]
pub(crate) struct Rules {
    exclude: Option<Gitignore>,
    include: Option<Gitignore>,
}

impl Rules {
    pub fn new(config: &FilesConfig) -> Result<Rules, FilesError> {
        Rules::from_patterns(&config.exclude, &config.include)
    }

    pub fn from_patterns(exclude: &[String], include: &[String]) -> Result<Rules, FilesError> {
        Ok(Rules { exclude: compile(exclude)?, include: compile(include)? })
    }

    /// Nothing is filtered: no path needs to be built to ask.
    pub fn is_empty(&self) -> bool {
        self.exclude.is_none() && self.include.is_none()
    }

    /// `path` is relative to its root.
    pub fn excluded(&self, path: &Path, is_directory: bool) -> bool {
        self.exclude.as_ref().is_some_and(|rules| rules.matched(path, is_directory).is_ignore())
    }

    /// Whether `path` is named by `include`, given whether its directory is.
    pub fn included(&self, path: &Path, is_directory: bool, directory_included: bool) -> bool {
        let Some(rules) = &self.include else { return true };
        let matched = rules.matched(path, is_directory);
        matched.is_ignore() || directory_included && !matched.is_whitelist()
    }

    /// What holds at a root, before any pattern was asked.
    pub fn root_included(&self) -> bool {
        self.include.is_none()
    }
}

fn compile(patterns: &[String]) -> Result<Option<Gitignore>, FilesError> {
    if patterns.is_empty() {
        return Ok(None);
    }
    let wrong =
        |pattern: &str, error: ignore::Error| FilesError::Pattern { pattern: pattern.to_owned(), error };
    let mut builder = GitignoreBuilder::new("");
    for pattern in patterns {
        builder.add_line(None, pattern).map_err(|error| wrong(pattern, error))?;
    }
    builder.build().map(Some).map_err(|error| wrong(&patterns.join(", "), error))
}

/// The names under which several roots stand beside each other in one listing: `/srv/shop/uploads` is
/// `srv-shop-uploads`. Two that would be called the same are told apart by `~2`, `~3` in the order of the configuration,
/// so a path added at the end renames nothing.
pub(crate) fn labels(paths: &[PathBuf]) -> Vec<Vec<u8>> {
    use std::os::unix::ffi::OsStrExt;
    let mut taken = BTreeSet::new();
    let mut labels = Vec::with_capacity(paths.len());
    for path in paths {
        let parts: Vec<&[u8]> = path
            .components()
            .filter_map(|part| match part {
                std::path::Component::Normal(name) => Some(name.as_bytes()),
                _ => None,
            })
            .collect();
        let mut base = parts.join(&b'-');
        if base.is_empty() {
            base = b"root".to_vec();
        }
        // A name has at most 255 bytes; the end of a path tells more than its beginning.
        base.drain(..base.len().saturating_sub(240));
        let mut label = base.clone();
        let mut count = 2;
        while !taken.insert(label.clone()) {
            label = [&base[..], format!("~{count}").as_bytes()].concat();
            count += 1;
        }
        labels.push(label);
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(exclude: &[&str], include: &[&str]) -> Rules {
        let owned = |lines: &[&str]| lines.iter().map(|s| s.to_string()).collect::<Vec<_>>();
        Rules::from_patterns(&owned(exclude), &owned(include)).unwrap()
    }

    #[test]
    fn patterns_follow_gitignore() {
        let rules = rules(&["**/cache/**", "*.tmp", "!keep.tmp", "/only-top"], &[]);
        for (path, excluded) in [
            ("a/cache/x", true),
            ("a/cache", false),
            ("deep/down/y.tmp", true),
            ("deep/keep.tmp", false),
            ("only-top", true),
            ("a/only-top", false),
        ] {
            assert_eq!(rules.excluded(Path::new(path), false), excluded, "{path}");
        }
    }

    #[test]
    fn what_lies_below_an_included_directory_is_included() {
        let rules = rules(&[], &["media/", "*.jpg"]);
        assert!(rules.included(Path::new("x.jpg"), false, false));
        assert!(!rules.included(Path::new("x.txt"), false, false));
        assert!(rules.included(Path::new("media"), true, false));
        assert!(rules.included(Path::new("media/x.txt"), false, true));
    }

    #[test]
    fn roots_get_readable_names_that_an_added_path_does_not_change() {
        let paths: Vec<PathBuf> = ["/srv/a-b", "/srv/a/b", "/", "/etc/x.conf"].map(PathBuf::from).into();
        let expected: Vec<Vec<u8>> = ["srv-a-b", "srv-a-b~2", "root", "etc-x.conf"].map(|s| s.into()).into();
        assert_eq!(labels(&paths), expected);
        assert_eq!(labels(&paths[..2]), expected[..2]);
    }

    #[test]
    fn a_wrong_configuration_is_said_so_with_what_is_wrong() {
        let config = |paths: &[&str], exclude: &[&str]| FilesConfig {
            paths: paths.iter().map(PathBuf::from).collect(),
            exclude: exclude.iter().map(|s| s.to_string()).collect(),
            ..FilesConfig::default()
        };
        for (config, needle) in [
            (config(&[], &[]), "no paths"),
            (config(&["srv/a"], &[]), "not absolute"),
            (config(&["/srv/a", "/srv/a/"], &[]), "twice"),
            (config(&["/srv/a"], &["[z-a]"]), "[z-a]"),
        ] {
            let failure = mainstay_domain::Failure::from(config.validate().unwrap_err());
            assert_eq!(failure.kind, mainstay_domain::Kind::Usage);
            assert!(failure.message.contains(needle), "{}", failure.message);
        }
    }
}
