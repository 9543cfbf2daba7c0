//! What a record says of itself: the roots and their labels, the rules, the counts. JSON, read again by restores.

use super::{config::FilesConfig, roots::Roots, walk::Found};
use mainstay_domain::{listing::FileKind, point::SourceRecord};
use std::path::{Path, PathBuf};

/// How many of what a listing holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Counts {
    pub files: u64,
    pub directories: u64,
    pub symlinks: u64,
    /// FIFOs and device nodes.
    pub specials: u64,
    /// Noted, never restored: they belong to a running process.
    pub sockets: u64,
    /// Names of files that have several.
    pub hard_links: u64,
    /// Sum of the files' sizes.
    pub bytes: u64,
    /// Taken over from the listing before without reading.
    pub unchanged: u64,
    /// Entries in the stream of deleted files.
    pub deleted: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, name: &[u8], found: &Found) {
        if name.is_empty() {
            return; // the root itself
        }
        match found.stat.kind {
            FileKind::Regular => {
                self.files += 1;
                self.bytes += found.stat.size;
                self.hard_links += u64::from(found.stat.links > 1);
            }
            FileKind::Directory => self.directories += 1,
            FileKind::Symlink => self.symlinks += 1,
            FileKind::Socket => self.sockets += 1,
            FileKind::Fifo | FileKind::CharDevice | FileKind::BlockDevice => self.specials += 1,
        }
    }

    pub fn items(&self) -> u64 {
        self.files + self.directories + self.symlinks + self.specials + self.sockets
    }
}

/// A path that was captured.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RootFact {
    /// As configured.
    pub path: PathBuf,
    /// Where it led; with marks for bytes that are no UTF-8, which no text can hold.
    #[serde(serialize_with = "as_text")]
    pub resolved: PathBuf,
    /// Its name in the listing's root; none where it is the root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

fn as_text<S: serde::Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

/// The facts of a files record.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Facts {
    pub version: u32,
    pub roots: Vec<RootFact>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<PathBuf>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    pub one_file_system: bool,
    pub counts: Counts,
    /// Entries that lay between the walk and the writing at the most.
    pub most_ahead: u64,
}

impl Facts {
    pub(crate) fn new(config: &FilesConfig, roots: &Roots) -> Facts {
        let root = |root: &super::roots::Root| RootFact {
            path: root.path.clone(),
            resolved: root.resolved.clone(),
            label: root.label.as_ref().map(|label| String::from_utf8_lossy(label).into_owned()),
        };
        Facts {
            version: 1,
            roots: roots.list.iter().map(root).collect(),
            missing: roots.missing.clone(),
            exclude: config.exclude.clone(),
            include: config.include.clone(),
            one_file_system: config.one_file_system,
            ..Facts::default()
        }
    }

    /// The facts of a listing that is one directory, and that no rules made.
    pub(crate) fn of_tree(path: &Path) -> Facts {
        let root = RootFact { path: path.to_owned(), resolved: path.to_owned(), label: None };
        Facts { version: 1, roots: vec![root], ..Facts::default() }
    }

    /// The facts of a record; what cannot be read of them is left at its default.
    pub fn of(record: &SourceRecord) -> Facts {
        serde_json::from_str(&record.facts).unwrap_or_default()
    }

    /// The path that its owner knows for one of the listing, as both are shown: a label becomes the path that has it.
    pub fn at_home(&self, listed: &str) -> String {
        let home = |root: &RootFact| {
            let below = listed.strip_prefix(root.label.as_deref()?)?;
            (below.is_empty() || below.starts_with('/')).then(|| format!("{}{below}", root.path.display()))
        };
        self.roots.iter().find_map(home).unwrap_or_else(|| listed.to_owned())
    }

    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}
