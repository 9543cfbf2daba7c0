//! Captures one directory tree of a cluster (the data directory, or a tablespace) as a listing.
//!
//! The calling thread walks the tree in listing order and hands files out in slices; workers read them; the entries are written
//! in order as their slices come back. What waits between the two is bounded. A running server changes files meanwhile: one
//! that vanishes is gone, one that grows is read to the size first seen, one that shrinks is filled up with zeros; replay of
//! the log makes all three right.

use super::{
    entries,
    exclude::{self, Fork, Place, RelationFile},
    old::{OldListing, is_unchanged},
    pages::{FRAME, SLICE},
    read::{Done, File, Job, Read, work},
    shared::{Shared, add},
};
use crate::files::{Leaves, Stat, Tree, open_in};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use mainstay_domain::{
    Failure, Kind, Result, Severity,
    listing::{self, Entry, FileKind},
    stream::Content,
};
use rustix::{
    fd::OwnedFd,
    fs::{AtFlags, Dir, Mode, OFlags, statat},
    io::Errno,
};
use std::{
    collections::VecDeque,
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Entries that may wait for their slices.
const WINDOW: usize = 1024;

/// An entry on its way into the listing, or the beginning of a directory.
enum Pending {
    Directory(Arc<[u8]>),
    Entry { entry: Box<Entry>, slices: Vec<Option<Read>>, waiting: usize, shown: String },
}

/// Captures the tree at `root`: a data directory, or of a tablespace what is one `version`'s.
pub fn capture(
    shared: &Shared<'_>,
    root: &Path,
    version: Option<&str>,
    old: OldListing<'_>,
) -> Result<Content> {
    let unopened = |error: Errno| {
        Failure::preflight(format!("{} cannot be read: {error}", root.display())).hint(
            "Run Mainstay as the user that owns the data directory (postgres), or as root, on the server's own machine.",
        )
    };
    let tree = Tree::open(root).map_err(unopened)?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (jobs, to_do) = bounded::<Job>(shared.threads * 2);
        let (send, results) = unbounded();
        for _ in 0..shared.threads {
            let (to_do, send, stop) = (to_do.clone(), send.clone(), &stop);
            scope.spawn(move || work(shared, &to_do, &send, stop));
        }
        drop((to_do, send));
        let mut walk = Walk {
            shared,
            tree: &tree,
            root,
            in_tablespace: version.is_some(),
            version,
            old,
            jobs,
            results,
            window: VecDeque::new(),
            first_id: 0,
            leaves: Leaves::new(shared.sink),
            behind: Vec::new(),
            within: Vec::new(),
        };
        let walked = walk.root().and_then(|()| walk.drain());
        if walked.is_err() {
            stop.store(true, Ordering::Relaxed);
        }
        let Walk { leaves, .. } = walk;
        walked.and_then(|()| leaves.finish())
    })
}

struct Walk<'a, 'l> {
    shared: &'a Shared<'a>,
    tree: &'a Tree,
    root: &'a Path,
    in_tablespace: bool,
    version: Option<&'a str>,
    old: OldListing<'a>,
    jobs: Sender<Job>,
    results: Receiver<Done>,
    window: VecDeque<Pending>,
    first_id: u64,
    leaves: Leaves<'l>,
    /// Links to directories that the walk is in, by their path in the tree: what they lead to, and is entered from there.
    behind: Vec<(Vec<u8>, Tree)>,
    /// Device and inode of every directory that the walk is in.
    within: Vec<(u64, u64)>,
}

/// What is made of a symbolic link.
enum Linked {
    /// What it leads to takes its place.
    Followed(Stat),
    Kept,
    LeftOut,
}

impl Walk<'_, '_> {
    fn root(&mut self) -> Result<()> {
        let stat = rustix::fs::fstat(self.tree.root()).map_err(|error| {
            Failure::failed(format!("{} cannot be looked at: {error}", self.root.display()))
        })?;
        let entry = Stat::new(&stat).entry(b"", self.shared.clock.now());
        let top: Arc<[u8]> = Arc::from(&b""[..]);
        self.push(Pending::Directory(top.clone()))?;
        self.push_entry(Box::new(entry), String::new())?;
        self.directory(&top)
    }

    /// A directory's entries, then its subdirectories, each in order.
    fn directory(&mut self, path: &Arc<[u8]>) -> Result<()> {
        let Some((fd, mut names)) = self.names(path)? else { return Ok(()) };
        let stat = rustix::fs::fstat(&fd).map_err(|error| self.broken(path, b"", error))?;
        let stat = Stat::new(&stat);
        self.within.push((stat.device, stat.inode));
        if let (Some(version), true) = (self.version, path.is_empty()) {
            names.retain(|name| name == version.as_bytes());
            if names.is_empty() {
                // Dropped: it is there, empty, and what is dropped from it during replay finds it.
                let stat = Stat { mode: 0o700, ..stat };
                let entry = Box::new(stat.entry(version.as_bytes(), self.shared.clock.now()));
                self.push_entry(entry, String::new())?;
                self.push(Pending::Directory(version.as_bytes().into()))?;
            }
        }
        let place = exclude::place_of(path, self.in_tablespace);
        let unlogged = match place {
            Place::Relations => exclude::unlogged(names.iter().map(|name| &name[..])),
            Place::Other => Default::default(),
        };
        let mut below = Vec::new();
        for name in &names {
            if self.shared.monitor.cancelled() {
                return Err(Failure::new(Kind::Cancelled, "the base backup was stopped"));
            }
            let relation = (place == Place::Relations).then(|| RelationFile::parse(name)).flatten();
            let skipped = relation.is_some_and(|file| {
                file.temporary || file.fork != Fork::Init && unlogged.contains(&file.filenode)
            });
            if !self.shared.stopped && (skipped || exclude::is_left_out(path, name, self.in_tablespace)) {
                continue;
            }
            let mut stat = match statat(&fd, &name[..], AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => Stat::new(&stat),
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(self.broken(path, name, error)),
            };
            // The log may lie elsewhere, and so may what else is captured empty; tablespaces do, and have listings of their own.
            let top = path.is_empty() && !self.in_tablespace;
            if stat.kind == FileKind::Symlink && top && self.is_emptied(name) {
                stat.kind = FileKind::Directory;
                stat.mode = 0o700;
            }
            let to_tablespace =
                stat.kind == FileKind::Symlink && path[..] == *b"pg_tblspc" && !self.in_tablespace;
            if to_tablespace && !self.shared.stopped {
                continue;
            }
            let mut followed = false;
            if stat.kind == FileKind::Symlink && !to_tablespace {
                match self.link(&fd, path, name)? {
                    Linked::Followed(found) => (stat, followed) = (found, true),
                    Linked::Kept => {}
                    Linked::LeftOut => continue,
                }
            }
            match stat.kind {
                FileKind::Socket => {}
                FileKind::Directory => {
                    let entry = Box::new(stat.entry(name, self.shared.clock.now()));
                    self.push_entry(entry, String::new())?;
                    add(&self.shared.tally.directories, 1);
                    below.push((listing::join(path, name), followed));
                }
                FileKind::Regular => self.file(&fd, path, name, &stat, relation, followed)?,
                _ => self.other(&fd, path, name, &stat)?,
            }
        }
        drop((fd, names));
        for (path, followed) in below {
            let path: Arc<[u8]> = path.into();
            self.push(Pending::Directory(path.clone()))?;
            if followed {
                self.directory_behind(&path)?;
            } else if self.in_tablespace || !self.is_emptied(&path) {
                self.directory(&path)?;
            } else if path[..] == *b"pg_wal" {
                self.empty_below(&path)?;
            }
        }
        self.within.pop();
        Ok(())
    }

    fn is_emptied(&self, directory: &[u8]) -> bool {
        !self.shared.stopped && exclude::is_emptied(directory)
    }

    /// A link that somebody put into the data directory. Kept as it is, the backup would lack what it leads to, and a server
    /// on a restored copy would write into the original's files: so what it leads to takes its place.
    fn link(&self, directory: &OwnedFd, path: &[u8], name: &[u8]) -> Result<Linked> {
        let target = match rustix::fs::readlinkat(directory, name, Vec::new()) {
            Ok(target) => target.into_bytes(),
            Err(Errno::NOENT) => return Ok(Linked::LeftOut),
            Err(error) => return Err(self.broken(path, name, error)),
        };
        // One that leads further down leads to what is captured anyway.
        let leaves = target.starts_with(b"/") || target.split(|byte| *byte == b'/').any(|part| part == b"..");
        if !leaves {
            return Ok(Linked::Kept);
        }
        let shown = crate::files::show_path(&listing::join(path, name));
        let target = crate::files::show_path(&target);
        let problem = |severity, message| self.shared.problems.add(severity, shown.clone(), message);
        let stat = match statat(directory, name, AtFlags::empty()) {
            Ok(stat) => Stat::new(&stat),
            Err(error) => {
                problem(Severity::Error, format!("it is a link to {target}, which cannot be read: {error}"));
                return Ok(Linked::LeftOut);
            }
        };
        match stat.kind {
            FileKind::Directory if self.within.contains(&(stat.device, stat.inode)) => {
                problem(
                    Severity::Error,
                    format!("it is a link to {target}, a directory that it is in itself"),
                );
                Ok(Linked::LeftOut)
            }
            FileKind::Directory | FileKind::Regular => {
                let message = format!("it is a link to {target}: what lies there is captured in its place");
                problem(Severity::Info, message);
                Ok(Linked::Followed(stat))
            }
            _ => Ok(Linked::Kept),
        }
    }

    /// The directory that a link leads to, as if it lay where the link is.
    fn directory_behind(&mut self, path: &Arc<[u8]>) -> Result<()> {
        match Tree::open(&self.root.join(OsStr::from_bytes(path))) {
            Ok(tree) => {
                self.behind.push((path.to_vec(), tree));
                self.directory(path)?;
                self.behind.pop();
            }
            Err(error) => self.unread_link(path, error),
        }
        Ok(())
    }

    /// What a link leads to may be anybody's: it is named, and the backup goes on without it.
    fn unread_link(&self, path: &[u8], error: Errno) {
        let message = format!("what this link leads to cannot be read: {error}");
        self.shared.problems.add(Severity::Error, crate::files::show_path(path), message);
    }

    /// Opens a directory of the tree.
    fn open_directory(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        let rest_behind = |link: &[u8]| match path.strip_prefix(link)? {
            b"" => Some(path.len()),
            rest => rest.starts_with(b"/").then_some(link.len() + 1),
        };
        for (link, tree) in self.behind.iter().rev() {
            if let Some(start) = rest_behind(link) {
                return tree.directory(&path[start..], OFlags::empty());
            }
        }
        self.tree.directory(path, OFlags::empty())
    }

    /// The directories that the server expects below an emptied one.
    fn empty_below(&mut self, path: &Arc<[u8]>) -> Result<()> {
        let mut made = Vec::new();
        for name in ["archive_status", "summaries"] {
            let inside = self.root.join("pg_wal").join(name);
            let Ok(found) = rustix::fs::stat(&inside) else { continue };
            let entry = Stat::new(&found).entry(name.as_bytes(), self.shared.clock.now());
            self.push_entry(Box::new(entry), String::new())?;
            made.push(listing::join(path, name.as_bytes()));
        }
        made.into_iter().try_for_each(|path| self.push(Pending::Directory(path.into())))
    }

    fn names(&mut self, path: &[u8]) -> Result<Option<(OwnedFd, Vec<Vec<u8>>)>> {
        let fd = match self.open_directory(path) {
            Ok(fd) => fd,
            // A database or a schema's directory that was dropped meanwhile.
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(self.broken(path, b"", error)),
        };
        let mut names = Vec::new();
        for entry in Dir::read_from(&fd).map_err(|error| self.broken(path, b"", error))? {
            let entry = entry.map_err(|error| self.broken(path, b"", error))?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_vec());
            }
        }
        names.sort();
        Ok(Some((fd, names)))
    }

    /// What the server's owner could read and we cannot is no file to pass over: without it there is no backup.
    fn broken(&self, directory: &[u8], name: &[u8], error: Errno) -> Failure {
        let path = listing::join(directory, name);
        let shown = format!("{}/{}", self.root.display(), crate::files::show_path(&path));
        Failure::preflight(format!("{shown} cannot be read: {error}"))
            .hint("Run Mainstay as the user that owns the data directory (postgres), or as root.")
    }

    fn file(
        &mut self,
        directory: &OwnedFd,
        path: &[u8],
        name: &[u8],
        stat: &Stat,
        relation: Option<RelationFile>,
        followed: bool,
    ) -> Result<()> {
        let mut entry = Box::new(stat.entry(name, self.shared.clock.now()));
        let old = self.old.take(path, name);
        add(&self.shared.tally.files, 1);
        add(&self.shared.tally.bytes, stat.size);
        if let Some(old) = &old
            && !self.shared.full
            && is_unchanged(old, stat)
            && self.adopt(old)?
        {
            (entry.content, entry.pages) = (old.content.clone(), old.pages.clone());
            add(&self.shared.tally.unchanged_files, 1);
            self.shared.monitor.advance(1, stat.size);
            return self.push_entry(entry, String::new());
        }
        if stat.size == 0 {
            entry.content = Some(Content::default());
            return self.push_entry(entry, String::new());
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let opened = match followed {
            true => {
                rustix::fs::openat(directory, name, flags | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())
            }
            false => open_in(directory, name, flags, Mode::empty()),
        };
        let fd = match opened {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(()),
            Err(error) if followed => {
                self.unread_link(&listing::join(path, name), error);
                return Ok(());
            }
            Err(error) => return Err(self.broken(path, name, error)),
        };
        let shown = crate::files::show_path(&listing::join(path, name));
        let sliced = relation.is_some() && stat.size > FRAME as u64;
        let file = Arc::new(File { fd, relation, sliced, shown: shown.clone() });
        let length = if sliced { SLICE } else { stat.size };
        let count = stat.size.div_ceil(length) as usize;
        let mut before =
            old.filter(|_| sliced).and_then(|old| entries::before(self.old.vault()?, &old, count));
        let slices = (0..count).map(|_| None).collect();
        self.push(Pending::Entry { entry, slices, waiting: count, shown })?;
        let id = self.first_id + self.window.len() as u64 - 1;
        for slot in 0..count {
            let offset = slot as u64 * length;
            let job = Job {
                id,
                slot,
                file: file.clone(),
                offset,
                length: length.min(stat.size - offset),
                before: before.as_mut().map(|slices| std::mem::take(&mut slices[slot])),
            };
            self.send(job)?;
        }
        Ok(())
    }

    /// Hands a job over; takes results meanwhile, so that nobody waits for the other.
    fn send(&mut self, job: Job) -> Result<()> {
        self.jobs.send(job).map_err(|_| Failure::failed("a reading thread panicked"))?;
        while let Ok(done) = self.results.try_recv() {
            self.place(done)?;
        }
        self.write_ready()
    }

    fn adopt(&self, old: &Entry) -> Result<bool> {
        for content in old.content.iter().chain(&old.pages) {
            if !crate::files::adopted(self.shared.sink, content)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn other(&mut self, directory: &OwnedFd, path: &[u8], name: &[u8], stat: &Stat) -> Result<()> {
        let mut entry = Box::new(stat.entry(name, self.shared.clock.now()));
        if stat.kind == FileKind::Symlink {
            let target = rustix::fs::readlinkat(directory, name, Vec::new())
                .map_err(|error| self.broken(path, name, error))?;
            entry.target = Some(target.into_bytes());
        }
        self.push_entry(entry, String::new())
    }

    fn push_entry(&mut self, entry: Box<Entry>, shown: String) -> Result<()> {
        self.push(Pending::Entry { entry, slices: Vec::new(), waiting: 0, shown })
    }

    fn push(&mut self, pending: Pending) -> Result<()> {
        while self.window.len() >= WINDOW {
            self.wait()?;
        }
        self.window.push_back(pending);
        Ok(())
    }

    fn wait(&mut self) -> Result<()> {
        if let Some(Pending::Entry { waiting: 1.., .. }) = self.window.front() {
            let done = self.results.recv().map_err(|_| Failure::failed("a reading thread panicked"))?;
            self.place(done)?;
        }
        self.write_ready()
    }

    fn drain(&mut self) -> Result<()> {
        while !self.window.is_empty() {
            self.wait()?;
        }
        Ok(())
    }

    fn place(&mut self, done: Done) -> Result<()> {
        let read = done.read?;
        let at = (done.id - self.first_id) as usize;
        if let Some(Pending::Entry { slices, waiting, .. }) = self.window.get_mut(at) {
            slices[done.slot] = Some(read);
            *waiting -= 1;
        }
        Ok(())
    }

    fn write_ready(&mut self) -> Result<()> {
        loop {
            match self.window.front() {
                None | Some(Pending::Entry { waiting: 1.., .. }) => return Ok(()),
                Some(_) => {}
            }
            self.first_id += 1;
            match self.window.pop_front() {
                Some(Pending::Directory(path)) => self.leaves.directory(&path, true),
                Some(Pending::Entry { entry, slices, shown, .. }) => self.write(entry, slices, &shown)?,
                None => return Ok(()),
            }
        }
    }

    fn write(&mut self, mut entry: Box<Entry>, slices: Vec<Option<Read>>, shown: &str) -> Result<()> {
        entries::finish(self.shared, &mut entry, slices.into_iter().flatten(), shown)?;
        let mut encoded = Vec::new();
        listing::encode_entry(&entry, &mut encoded);
        self.leaves.entry(&entry.name, &encoded)
    }
}
