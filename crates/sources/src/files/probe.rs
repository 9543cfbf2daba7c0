//! Looks at what a configuration names, without reading it: for `doctor`, `init` and the first step of a backup.

use super::{FilesError, config::FilesConfig, problems::Problems, roots::Roots, stat::Stat};
use mainstay_domain::{Result, listing::FileKind, point::Problem};
use rustix::fs::{Access, AtFlags, accessat};
use std::path::PathBuf;

/// One path of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct RootProbe {
    pub path: PathBuf,
    /// Where it leads, if through a link elsewhere.
    pub resolved: PathBuf,
    pub directory: bool,
    /// Its own name in the listing, where several paths stand beside each other.
    pub label: Option<String>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Probe {
    pub roots: Vec<RootProbe>,
    /// Every file will be readable, as far as rights go: we are root.
    pub privileged: bool,
    /// Paths that are missing or cannot be entered (severity `Error`).
    pub problems: Vec<Problem>,
}

/// An error is a mistake in the configuration; a path that is not there is a problem in the result.
pub fn probe(config: &FilesConfig) -> Result<Probe> {
    config.validate()?;
    let problems = Problems::default();
    let roots = Roots::open(config, &problems);
    let mut probed = Vec::new();
    for root in &roots.list {
        let Stat { kind, .. } = root.stat;
        let directory = kind == FileKind::Directory;
        let wanted = if directory { Access::READ_OK | Access::EXEC_OK } else { Access::READ_OK };
        if let Err(error) = accessat(&root.parent, &root.name[..], wanted, AtFlags::EACCESS) {
            let message = format!("it cannot be read: {error}");
            problems.add(mainstay_domain::Severity::Error, root.path.display().to_string(), message);
        }
        probed.push(RootProbe {
            path: root.path.clone(),
            resolved: root.resolved.clone(),
            directory,
            label: root.label.as_ref().map(|label| String::from_utf8_lossy(label).into_owned()),
        });
    }
    if let (true, Some(root)) = (config.paths.len() > 1, nested(&probed)) {
        return Err(FilesError::NestedPath(root).into());
    }
    Ok(Probe {
        roots: probed,
        privileged: rustix::process::geteuid().is_root(),
        problems: problems.into_list(),
    })
}

/// A path that lies below another one: it would be captured twice.
fn nested(roots: &[RootProbe]) -> Option<PathBuf> {
    roots
        .iter()
        .find(|root| {
            roots.iter().any(|other| other.path != root.path && root.resolved.starts_with(&other.resolved))
        })
        .map(|root| root.path.clone())
}
