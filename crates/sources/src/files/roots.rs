//! The paths that a source names, opened, and how they stand in one listing.
//!
//! A single directory is the listing's root itself: the entry with the empty name in the block of the empty path is that
//! directory's own metadata. Several paths, or a path that is a single file, stand in the root block under their labels
//! (`config::labels`), and the root block has no entry for itself. The record's facts hold which label is which path.

use super::{
    config::{FilesConfig, labels},
    problems::Problems,
    stat::Stat,
    tree::Tree,
};
use mainstay_domain::{Severity, listing::FileKind};
use rustix::{
    fd::OwnedFd,
    fs::{AtFlags, CWD, Mode, OFlags, openat, statat},
};
use std::{
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

#[derive(Debug)]
pub(crate) struct Root {
    /// As the user wrote it.
    pub path: PathBuf,
    /// Where that leads, if a symbolic link was on the way.
    pub resolved: PathBuf,
    /// `None` where it is the listing's root.
    pub label: Option<Vec<u8>>,
    pub stat: Stat,
    /// The directory itself; `None` for a single file.
    pub tree: Option<Tree>,
    /// The directory in which `name` is found.
    pub parent: OwnedFd,
    pub name: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Roots {
    pub list: Vec<Root>,
    /// The paths that could not be opened, each already a problem of severity `Error`.
    pub missing: Vec<PathBuf>,
    /// The one directory is the listing's root.
    pub single: bool,
}

impl Roots {
    /// Opens what can be opened. A root that is a symbolic link is followed: the user named it.
    pub fn open(config: &FilesConfig, problems: &Problems) -> Roots {
        let mut roots = Roots { list: Vec::new(), missing: Vec::new(), single: config.paths.len() == 1 };
        for (path, label) in config.paths.iter().zip(labels(&config.paths)) {
            match Root::open(path, label) {
                Ok(root) => roots.list.push(root),
                Err(error) => {
                    let message = match error.kind() {
                        std::io::ErrorKind::NotFound => {
                            "there is no such path; is its file system mounted?".to_owned()
                        }
                        _ => format!("cannot be opened: {error}"),
                    };
                    problems.add(Severity::Error, path.display().to_string(), message);
                    roots.missing.push(path.clone());
                }
            }
        }
        roots.single &= roots.list.first().is_none_or(|root| root.tree.is_some());
        if roots.single {
            roots.list.iter_mut().for_each(|root| root.label = None);
        }
        roots
    }

    /// The path that its owner knows for a path of the listing.
    pub fn shown(&self, listed: &[u8]) -> String {
        let show = |root: &Root, below: &[u8]| {
            let mut path = root.path.as_os_str().as_bytes().to_vec();
            if !below.is_empty() {
                if !path.ends_with(b"/") {
                    path.push(b'/');
                }
                path.extend_from_slice(below);
            }
            super::names::show_path(&path)
        };
        for root in &self.list {
            match &root.label {
                None => return show(root, listed),
                Some(label) => match listed.strip_prefix(&label[..]) {
                    Some(b"") => return show(root, b""),
                    Some([b'/', below @ ..]) => return show(root, below),
                    _ => {}
                },
            }
        }
        super::names::show_path(listed)
    }
}

impl Root {
    fn open(path: &Path, label: Vec<u8>) -> std::io::Result<Root> {
        let resolved = std::fs::canonicalize(path)?;
        let (parent, name) = match (resolved.parent(), resolved.file_name()) {
            (Some(parent), Some(name)) => (parent, name.as_bytes().to_vec()),
            _ => (resolved.as_path(), b".".to_vec()),
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent = openat(CWD, parent, flags, Mode::empty())?;
        let stat = Stat::new(&statat(&parent, &name[..], AtFlags::SYMLINK_NOFOLLOW)?);
        let tree = match stat.kind {
            FileKind::Directory => {
                let tree = Tree::open(&resolved)?;
                tree.directory(b"", OFlags::empty())?;
                Some(tree)
            }
            _ => None,
        };
        Ok(Root { path: path.to_owned(), resolved, label: Some(label), stat, tree, parent, name })
    }
}
