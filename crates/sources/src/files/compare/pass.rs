//! One pass over a listing beside the tree that it is compared with.

use super::{Aspect, Comparer, Comparison, Job, Part, Place};
use crate::files::{
    FilesError, attributes,
    browse::{Browse, Step, lookup, split_path},
    dirent::read_names,
    names::show_path,
    restore::is_protected,
    stat::{Stat, device_numbers},
    tree::open_in,
    walk::quietly,
};
use crossbeam_channel::Sender;
use mainstay_domain::{
    Result,
    listing::{self, Entry, FileKind, Xattr},
    stream::Content,
};
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{AtFlags, Mode, OFlags, readlinkat, statat},
    io::Errno,
};
use std::{collections::HashMap, sync::Arc};

struct Linked {
    first: Vec<u8>,
    /// Device and inode here.
    identity: (u64, u64),
    seen: u64,
}

pub(crate) struct Pass<'a, 'c> {
    comparer: &'c Comparer<'a>,
    part: &'c Part,
    send: &'c Sender<Job>,
    path: Vec<u8>,
    fd: Option<Arc<OwnedFd>>,
    /// Names of the directory that were recorded.
    recorded: Vec<Vec<u8>>,
    /// Not all of them are known, because a chunk of the listing is lost: nothing can be called an extra.
    partial: bool,
    /// The same of the directory that comes next.
    partial_next: bool,
    /// Files with several names of which not all were seen, by recorded device and inode.
    links: HashMap<(u64, u64), Linked>,
    attributes: attributes::Reader,
}

impl<'a, 'c> Pass<'a, 'c> {
    pub fn new(comparer: &'c Comparer<'a>, part: &'c Part, send: &'c Sender<Job>) -> Self {
        Pass {
            comparer,
            part,
            send,
            path: Vec::new(),
            fd: None,
            recorded: Vec::new(),
            partial: false,
            partial_next: false,
            links: HashMap::new(),
            attributes: attributes::Reader::default(),
        }
    }

    pub fn run(mut self, content: &Content, result: &mut Comparison) -> Result<()> {
        let (comparer, prefix) = (self.comparer, &self.part.prefix);
        let tree = match &self.part.place {
            Place::Directory(tree) => tree,
            Place::File(tree, name) => {
                let (directory, label) = split_path(prefix);
                for entry in lookup(comparer.vault, content, false, directory, label)? {
                    self.named(tree.root().as_fd(), name, prefix, &entry, result);
                }
                return Ok(());
            }
        };
        for step in Browse::below(comparer.vault, content, false, prefix) {
            if comparer.monitor.cancelled() {
                return Err(FilesError::Cancelled.into());
            }
            match step? {
                Step::Directory(path) => {
                    if self.fd.is_none() || self.path != path {
                        self.extras();
                        let below = path[prefix.len()..].strip_prefix(b"/").unwrap_or(&path[prefix.len()..]);
                        self.fd = tree.directory(below, OFlags::empty()).ok().map(Arc::new);
                        self.path = path;
                        self.partial = std::mem::take(&mut self.partial_next);
                    }
                }
                Step::Entry(entry) => {
                    if let Some(fd) = self.fd.clone() {
                        let path = match &entry.name[..] {
                            b"" => Vec::new(),
                            name => listing::join(&self.path, name),
                        };
                        self.named(fd.as_fd(), &entry.name, &path, &entry, result);
                    }
                    self.recorded.push(entry.name);
                }
                Step::Lost(failure) => {
                    comparer.differs(b"", Aspect::Unreadable, format!("a part of the listing: {failure}"));
                    (self.partial, self.partial_next) = (true, true);
                }
            }
        }
        self.extras();
        Ok(())
    }

    /// What lies in the directory that is over and was not recorded.
    fn extras(&mut self) {
        let recorded = std::mem::take(&mut self.recorded);
        let Some(fd) = self.fd.take().filter(|_| !self.partial) else { return };
        match read_names(fd.as_fd(), None, &mut Vec::new()) {
            Ok(names) => {
                for n in 0..names.len() {
                    let name = names.get(n);
                    let path = listing::join(&self.path, name);
                    let excluded = || {
                        let rules = self.part.rules.as_ref();
                        rules.is_some_and(|rules| {
                            is_protected(rules, &self.part.prefix, &path, fd.as_fd(), name)
                        })
                    };
                    if recorded.binary_search_by(|probe| probe[..].cmp(name)).is_err() && !excluded() {
                        self.comparer.differs(&path, Aspect::Extra, "");
                    }
                }
            }
            Err(error) => self.comparer.differs(&self.path, Aspect::Unreadable, error.to_string()),
        }
    }

    /// Compares an entry with what has its name on disk. `path`: of the listing.
    fn named(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        entry: &Entry,
        result: &mut Comparison,
    ) {
        let comparer = self.comparer;
        if entry.kind == FileKind::Socket {
            result.sockets += 1; // of a running process, and nothing that a backup could bring back
            return;
        }
        let nothing_restored = match entry.kind {
            FileKind::Regular => entry.content.is_none(),
            FileKind::CharDevice | FileKind::BlockDevice => !comparer.privileged,
            _ => false,
        };
        if nothing_restored {
            result.not_compared += 1;
            return;
        }
        result.entries += 1;
        let looked = match name {
            b"" => rustix::fs::fstat(directory),
            name => statat(directory, name, AtFlags::SYMLINK_NOFOLLOW),
        };
        let stat = match looked {
            Ok(stat) => Stat::new(&stat),
            Err(Errno::NOENT) => return comparer.differs(path, Aspect::Missing, ""),
            Err(error) => return comparer.differs(path, Aspect::Unreadable, error.to_string()),
        };
        if stat.kind != entry.kind {
            let detail = format!("{:?}, not {:?}", stat.kind, entry.kind);
            return comparer.differs(path, Aspect::Kind, detail);
        }
        self.metadata(path, entry, &stat);
        self.attributes(directory, name, path, entry);
        match entry.kind {
            FileKind::Regular => self.file(directory, name, path, entry, &stat),
            FileKind::Symlink => match readlinkat(directory, name, Vec::new()) {
                Ok(target) if Some(target.as_bytes()) == entry.target.as_deref() => {}
                Ok(target) => comparer.differs(path, Aspect::Target, show_path(target.as_bytes())),
                Err(error) => comparer.differs(path, Aspect::Unreadable, error.to_string()),
            },
            FileKind::CharDevice | FileKind::BlockDevice if entry.device_node != Some(stat.node) => {
                let detail = format!(
                    "{}, not {}",
                    device_numbers(stat.node),
                    device_numbers(entry.device_node.unwrap_or(0))
                );
                comparer.differs(path, Aspect::Device, detail);
            }
            _ => {}
        }
    }

    fn metadata(&self, path: &[u8], entry: &Entry, stat: &Stat) {
        let comparer = self.comparer;
        // Links have no mode, and set-id bits go with the owner.
        let of_mode = if comparer.privileged { 0o7777 } else { 0o1777 };
        if entry.kind != FileKind::Symlink && (stat.mode ^ entry.mode) & of_mode != 0 {
            comparer.differs(path, Aspect::Mode, format!("{:04o}, not {:04o}", stat.mode, entry.mode));
        }
        if comparer.privileged && (stat.uid, stat.gid) != (entry.uid, entry.gid) {
            let detail = format!("{}:{}, not {}:{}", stat.uid, stat.gid, entry.uid, entry.gid);
            comparer.differs(path, Aspect::Owner, detail);
        }
        // A directory that lives has a new time with every file that comes or goes, and those are named themselves.
        let lives = self.part.rules.is_some() && entry.kind == FileKind::Directory;
        if stat.modified != entry.modified && !lives {
            let detail = format!("{}, not {}", stat.modified, entry.modified);
            comparer.differs(path, Aspect::Modified, detail);
        }
    }

    fn attributes(&mut self, directory: BorrowedFd<'_>, name: &[u8], path: &[u8], entry: &Entry) {
        let name = if name.is_empty() { b"." } else { name };
        match self.attributes.of_name(directory, name) {
            Ok(found) => {
                // Security labels come from the system's policy, and only root may set them.
                let relevant = |list: &Option<Vec<Xattr>>| -> Vec<Xattr> {
                    let counts = |name: &[u8]| {
                        name.starts_with(b"user.")
                            || name.starts_with(b"system.posix_acl_")
                            || self.comparer.privileged && name == b"security.capability"
                    };
                    list.iter().flatten().filter(|xattr| counts(&xattr.name)).cloned().collect()
                };
                if relevant(&found) != relevant(&entry.xattrs) {
                    self.comparer.differs(path, Aspect::Xattrs, "");
                }
            }
            Err(error) => self.comparer.differs(path, Aspect::Unreadable, error.to_string()),
        }
    }

    fn file(&mut self, directory: BorrowedFd<'_>, name: &[u8], path: &[u8], entry: &Entry, stat: &Stat) {
        if stat.size != entry.size {
            let detail = format!("{}, not {}", stat.size, entry.size);
            return self.comparer.differs(path, Aspect::Size, detail);
        }
        if let Some(names) = entry.links {
            let (key, identity) = ((entry.device, entry.inode), (stat.device, stat.inode));
            match self.links.get_mut(&key) {
                None => {
                    self.links.insert(key, Linked { first: path.to_vec(), identity, seen: 1 });
                }
                Some(linked) => {
                    linked.seen += 1;
                    if linked.identity != identity {
                        let detail = format!("it should be one file with {}", show_path(&linked.first));
                        self.comparer.differs(path, Aspect::HardLinks, detail);
                    } else {
                        // Its bytes are compared under the first name.
                        if linked.seen >= names {
                            self.links.remove(&key);
                        }
                        return;
                    }
                }
            }
        } else if stat.links > 1 {
            let detail = "it has other names, and had none";
            self.comparer.differs(path, Aspect::HardLinks, detail);
        }
        if !self.comparer.check_content && stat.modified == entry.modified {
            return;
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        match quietly(|quiet| open_in(directory, name, flags | quiet, Mode::empty())) {
            Ok(fd) => {
                let content = entry.content.clone().unwrap_or_default();
                let _ = self.send.send(Job { path: path.to_vec(), content, fd });
            }
            Err(error) => self.comparer.differs(path, Aspect::Unreadable, error.to_string()),
        }
    }
}
