//! What the writing threads share, and what each does with a job.

use super::{
    RestoreOptions, Tally, count,
    decide::{Decision, decide},
    jobs::Jobs,
    links::{First, Links, Turn, Waiting},
    metadata::{apply_to_file, apply_to_name},
    remove,
    write::{Big, write_pieces},
};
use crate::files::{
    FilesError,
    names::show_path,
    problems::Problems,
    stat::Stat,
    tree::{Tree, open_in},
};
use mainstay_domain::{
    ByteSize, Failure, Kind, Monitor, Result, Severity,
    listing::{self, Entry, FileKind},
    monitor::Event,
    stream::{Piece, Vault},
};
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{
        AtFlags, FileType, Mode, OFlags, fstatvfs, ftruncate, linkat, mknodat, readlinkat, renameat, statat,
        symlinkat, unlinkat,
    },
    io::Errno,
};
use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

/// A directory that is being restored. Whoever still has work in it holds it; the last to let go gives it its metadata,
/// and then lets go of its parent.
pub(crate) struct Node {
    pub parent: Option<Arc<Node>>,
    pub path: Vec<u8>,
    /// What to apply in the end; `None` where only something below was asked for and the directory was there.
    pub entry: Option<Box<Entry>>,
    /// It has no attributes but those it will get.
    pub new: bool,
    /// What is made in it inherits nothing: it has no default ACL.
    pub plain: bool,
    holders: AtomicUsize,
}

impl Node {
    /// Held by its maker; holds its parent.
    pub fn new(
        parent: Option<Arc<Node>>,
        path: Vec<u8>,
        entry: Option<Box<Entry>>,
        (new, plain): (bool, bool),
    ) -> Arc<Node> {
        if let Some(parent) = &parent {
            parent.hold();
        }
        Arc::new(Node { parent, path, entry, new, plain, holders: AtomicUsize::new(1) })
    }

    pub fn hold(&self) {
        self.holders.fetch_add(1, Ordering::Relaxed);
    }
}

/// An entry and what lies in its place.
pub(crate) struct Item {
    pub entry: Box<Entry>,
    pub existing: Option<Stat>,
}

pub(crate) enum Job {
    /// Each job holds its node.
    Items { node: Arc<Node>, items: Vec<Item> },
    /// A part of a big file.
    Slice { file: Arc<Big>, offset: u64, pieces: Vec<Piece> },
}

pub(crate) struct Worker<'a> {
    pub vault: &'a dyn Vault,
    pub tree: &'a Tree,
    pub options: &'a RestoreOptions,
    pub tally: &'a Tally,
    pub problems: &'a Problems,
    pub monitor: &'a dyn Monitor,
    pub links: Links,
    stop: Mutex<Option<Failure>>,
    temporary: AtomicU64,
}

/// The directory that a thread had open last.
pub(crate) type Opened = Option<(Arc<Node>, OwnedFd)>;

/// Why one entry could not be restored.
pub(crate) enum Trouble {
    /// It is named, and the rest goes on.
    Entry(String),
    /// The whole restore cannot go on.
    All(Failure),
    /// Nor this, because the destination takes nothing more.
    Full(Errno),
}

impl From<Errno> for Trouble {
    fn from(error: Errno) -> Trouble {
        match error {
            Errno::NOSPC | Errno::DQUOT | Errno::ROFS => Trouble::Full(error),
            error => Trouble::Entry(error.to_string()),
        }
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Trouble {
        match failure.kind {
            Kind::Cancelled | Kind::WrongKey | Kind::Busy | Kind::Refused => Trouble::All(failure),
            _ => Trouble::Entry(failure.to_string()),
        }
    }
}

pub(crate) type Done<T> = std::result::Result<T, Trouble>;

impl<'a> Worker<'a> {
    pub fn new(
        vault: &'a dyn Vault,
        tree: &'a Tree,
        options: &'a RestoreOptions,
        tally: &'a Tally,
        problems: &'a Problems,
        monitor: &'a dyn Monitor,
    ) -> Worker<'a> {
        Worker {
            vault,
            tree,
            options,
            tally,
            problems,
            monitor,
            links: Links::default(),
            stop: Mutex::new(None),
            temporary: AtomicU64::new(0),
        }
    }

    /// What thread number `number` does, until there are no more jobs.
    pub fn work(&self, jobs: &Jobs, number: usize) {
        let mut opened = None;
        while let Some(job) = jobs.take(number) {
            match job {
                Job::Items { node, items } => {
                    let mut bytes = 0;
                    let count = items.len() as u64;
                    for item in items {
                        if self.is_stopped() {
                            break;
                        }
                        bytes += if item.entry.kind == FileKind::Regular { item.entry.size } else { 0 };
                        self.item(&mut opened, &node, item);
                    }
                    self.release(node);
                    self.monitor.event(Event::Advance { items: count, bytes });
                }
                Job::Slice { file, offset, pieces } => self.slice(&mut opened, &file, offset, pieces),
            }
        }
    }

    /// Whether everybody is to stop; asked before each entry.
    pub fn is_stopped(&self) -> bool {
        if self.monitor.cancelled() {
            self.stop_with(FilesError::Cancelled.into());
        }
        self.stop.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    pub fn stop_with(&self, failure: Failure) {
        self.stop.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
    }

    /// The reason to stop, if there was one.
    pub fn finish(&self) -> Result<()> {
        match self.stop.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    /// Names what could not be restored, or stops everything.
    pub fn report(&self, node: &Node, name: &[u8], trouble: Trouble) {
        self.report_path(&listing::join(&node.path, name), trouble);
    }

    pub fn report_path(&self, path: &[u8], trouble: Trouble) {
        match trouble {
            Trouble::Entry(message) => self.problems.add(Severity::Error, show_path(path), message),
            Trouble::All(failure) => self.stop_with(failure),
            Trouble::Full(error) => self.stop_with(self.full(error)),
        }
    }

    fn full(&self, error: Errno) -> Failure {
        let at = self.options.destination.display();
        let free = match fstatvfs(self.tree.root()) {
            Ok(of) if error != Errno::ROFS && of.f_files > 0 && of.f_favail == 0 => {
                "; no more files can be made there".to_owned()
            }
            Ok(of) if error != Errno::ROFS => {
                format!("; {} are free there", ByteSize(of.f_bavail.saturating_mul(of.f_frsize)))
            }
            _ => String::new(),
        };
        Failure::failed(format!("{at} cannot take more: {error}{free}")).hint(
            "Make room, and run the same command again: what is whole so far stays and is not written again. Or restore to elsewhere.",
        )
    }

    /// Lets go of a directory; gives it its metadata if nobody else holds it, and goes on with its parent.
    pub fn release(&self, node: Arc<Node>) {
        let mut next = Some(node);
        while let Some(node) = next {
            if node.holders.fetch_sub(1, Ordering::AcqRel) != 1 {
                return;
            }
            if let Some(entry) = &node.entry
                && !self.is_stopped()
            {
                let applied = self
                    .tree
                    .directory(&node.path, OFlags::empty())
                    .and_then(|fd| apply_to_file(&fd, entry, node.new, self.tally));
                if let Err(error) = applied {
                    self.report_path(&node.path, error.into());
                }
            }
            next = node.parent.clone();
        }
    }

    pub fn open<'o>(&self, opened: &'o mut Opened, node: &Arc<Node>) -> rustix::io::Result<BorrowedFd<'o>> {
        if opened.as_ref().is_none_or(|(open, _)| !Arc::ptr_eq(open, node)) {
            *opened = None;
            *opened = Some((node.clone(), self.tree.directory(&node.path, OFlags::empty())?));
        }
        Ok(opened.as_ref().expect("it was just opened").1.as_fd())
    }

    fn item(&self, opened: &mut Opened, node: &Arc<Node>, item: Item) {
        let item = match item.entry.kind {
            FileKind::Regular if item.entry.links.is_some() => match self.links.turn(node, item) {
                Turn::Write(item) => item,
                Turn::Later => return,
                Turn::Link(first, item) => {
                    if let Err(trouble) = self.link(opened, node, &first, &item) {
                        self.report(node, &item.entry.name, trouble);
                    }
                    return;
                }
            },
            _ => item,
        };
        let done = self.write(opened, node, &item);
        self.written(opened, node, &item.entry, done);
    }

    /// What follows when an entry was written or could not be: names that waited for it are linked, or tried themselves.
    pub fn written(
        &self,
        opened: &mut Opened,
        node: &Arc<Node>,
        entry: &Entry,
        done: Done<Option<(u64, u64)>>,
    ) {
        let waiting = match done {
            Ok(Some(identity)) if entry.links.is_some() => {
                let first = First { node: node.clone(), name: entry.name.clone(), identity };
                let waiting = self.links.done(entry, first.clone());
                for Waiting { node, item } in waiting {
                    if let Err(trouble) = self.link(opened, &node, &first, &item) {
                        self.report(&node, &item.entry.name, trouble);
                    }
                    self.release(node);
                }
                return;
            }
            Ok(_) if entry.links.is_some() => self.links.failed(entry),
            Ok(_) => return,
            Err(trouble) => {
                self.report(node, &entry.name, trouble);
                if entry.links.is_some() { self.links.failed(entry) } else { return }
            }
        };
        for Waiting { node, item } in waiting {
            self.item(opened, &node, item);
            self.release(node);
        }
    }

    /// Restores one entry; of a file, says which device and inode it is.
    fn write(&self, opened: &mut Opened, node: &Arc<Node>, item: &Item) -> Done<Option<(u64, u64)>> {
        let directory = self.open(opened, node)?;
        let Item { entry, existing } = item;
        let decision = decide(entry, existing.as_ref());
        match entry.kind {
            FileKind::Socket => {
                count(&self.tally.sockets);
                return Ok(None);
            }
            FileKind::Regular if entry.content.is_none() => {
                count(&self.tally.without_content);
                let path = show_path(&listing::join(&node.path, &entry.name));
                self.problems.add(
                    Severity::Warning,
                    path,
                    "it could not be read when it was captured: there is no content",
                );
                return Ok(None);
            }
            _ => {}
        }
        if self.can_patch(item)
            && let Some(existing) = existing
            && self.patch(directory, entry)?
        {
            return Ok(Some((existing.device, existing.inode)));
        }
        if decision == Decision::Keep
            && let Some(existing) = existing
            && let Some(identity) = self.keep(directory, entry, existing)?
        {
            count(&self.tally.kept);
            return Ok(Some(identity));
        }
        self.clear_way(directory, entry, decision)?;
        match entry.kind {
            FileKind::Regular => self.file(directory, node.plain, entry, existing.is_some()).map(Some),
            FileKind::Symlink => {
                let target = entry.target.as_deref().unwrap_or_default();
                self.make(directory, entry, existing, |name| symlinkat(target, directory, name))?;
                count(&self.tally.symlinks);
                Ok(None)
            }
            FileKind::Fifo | FileKind::CharDevice | FileKind::BlockDevice => {
                let kind = match entry.kind {
                    FileKind::Fifo => FileType::Fifo,
                    FileKind::CharDevice => FileType::CharacterDevice,
                    _ => FileType::BlockDevice,
                };
                let number = entry.device_node.unwrap_or(0);
                let mode = Mode::RUSR | Mode::WUSR;
                match self
                    .make(directory, entry, existing, |name| mknodat(directory, name, kind, mode, number))
                {
                    Err(Errno::PERM) => count(&self.tally.devices),
                    made => {
                        made?;
                        count(&self.tally.specials);
                    }
                }
                Ok(None)
            }
            FileKind::Directory | FileKind::Socket => Ok(None),
        }
    }

    /// Makes sure that a rename to the entry's name can succeed.
    pub fn clear_way(&self, directory: BorrowedFd<'_>, entry: &Entry, decision: Decision) -> Done<()> {
        if decision != Decision::DirectoryInTheWay {
            return Ok(());
        }
        match unlinkat(directory, &entry.name[..], AtFlags::REMOVEDIR) {
            Ok(()) => Ok(()),
            Err(Errno::NOTEMPTY | Errno::EXIST) if self.options.delete => {
                remove::remove_tree(directory, &entry.name, self.tally).map_err(Trouble::from)
            }
            Err(Errno::NOTEMPTY | Errno::EXIST) => {
                Err(Trouble::Entry("a directory with files in it is in the way".to_owned()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whether what lies there is right; its mode and owner are put right. Returns its identity if it can stay.
    fn keep(&self, directory: BorrowedFd<'_>, entry: &Entry, existing: &Stat) -> Done<Option<(u64, u64)>> {
        let identity = (existing.device, existing.inode);
        if entry.kind == FileKind::Symlink
            && self.options.check_content
            && Some(readlinkat(directory, &entry.name[..], Vec::new())?.as_bytes()) != entry.target.as_deref()
        {
            return Ok(None);
        }
        if entry.kind != FileKind::Regular {
            let mode = if entry.kind == FileKind::Symlink { existing.mode } else { entry.mode };
            let right = (existing.mode, existing.uid, existing.gid, existing.modified)
                == (mode, entry.uid, entry.gid, entry.modified);
            if !right {
                apply_to_name(directory, &entry.name, entry, self.tally)?;
            }
            return Ok(Some(identity));
        }
        let content = entry.content.as_ref().expect("files without content were sorted out");
        if self.options.check_content {
            let fd = open_in(directory, &entry.name, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())?;
            let same = crate::files::compare::same_bytes(self.vault, content, &fd, &mut Vec::new())?;
            if !same {
                return Ok(None);
            }
        }
        let right = (existing.mode, existing.uid, existing.gid) == (entry.mode, entry.uid, entry.gid);
        if !right || self.options.check_content {
            let fd = open_in(directory, &entry.name, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())?;
            apply_to_file(&fd, entry, false, self.tally)?;
        }
        Ok(Some(identity))
    }

    /// Opens a new file under a name that nothing else has.
    pub fn temporary(&self, directory: BorrowedFd<'_>) -> rustix::io::Result<(OwnedFd, Vec<u8>)> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        loop {
            let name = self.temporary_name();
            match open_in(directory, &name, flags, Mode::RUSR | Mode::WUSR) {
                Err(Errno::EXIST) => {}
                opened => return opened.map(|fd| (fd, name)),
            }
        }
    }

    fn temporary_name(&self) -> Vec<u8> {
        let n = self.temporary.fetch_add(1, Ordering::Relaxed);
        remove::temporary_name(n)
    }

    fn file(
        &self,
        directory: BorrowedFd<'_>,
        plain: bool,
        entry: &Entry,
        replaces: bool,
    ) -> Done<(u64, u64)> {
        let (fd, temporary) = self.temporary(directory)?;
        let content = entry.content.as_ref().expect("files without content were sorted out");
        let written =
            write_pieces(self.vault, &fd, 0, self.vault.pieces(content)).and_then(|(end, in_hole)| {
                if in_hole {
                    ftruncate(&fd, end)?;
                }
                if replaces {
                    self.keep_safe(&fd)?;
                }
                self.complete(directory, plain, &fd, entry, &temporary, end)
            });
        if written.is_err() {
            let _ = unlinkat(directory, &temporary[..], AtFlags::empty());
        }
        written
    }

    /// What is to take another file's place is on the disk before that goes. New files wait for the end: see
    /// [`unfinished`](super::unfinished).
    pub fn keep_safe(&self, fd: &OwnedFd) -> rustix::io::Result<()> {
        if self.options.sync { rustix::fs::fsync(fd) } else { Ok(()) }
    }

    /// Gives a file that was written its metadata and its name.
    pub fn complete(
        &self,
        directory: BorrowedFd<'_>,
        plain: bool,
        fd: &OwnedFd,
        entry: &Entry,
        temporary: &[u8],
        end: u64,
    ) -> Done<(u64, u64)> {
        if end != entry.size {
            let message = format!("its content has {end} bytes where {} were recorded", entry.size);
            return Err(Trouble::Entry(message));
        }
        apply_to_file(fd, entry, plain, self.tally)?;
        renameat(directory, temporary, directory, &entry.name[..])?;
        count(&self.tally.files);
        self.tally.bytes.fetch_add(end, Ordering::Relaxed);
        if entry.links.is_none() {
            return Ok((0, 0));
        }
        let stat = Stat::new(&rustix::fs::fstat(fd)?);
        Ok((stat.device, stat.inode))
    }

    /// Makes something that is whole as soon as it exists; under a temporary name if something has to give way.
    fn make(
        &self,
        directory: BorrowedFd<'_>,
        entry: &Entry,
        existing: &Option<Stat>,
        make: impl Fn(&[u8]) -> rustix::io::Result<()>,
    ) -> rustix::io::Result<()> {
        let in_the_way = existing.as_ref().is_some_and(|stat| stat.kind != FileKind::Directory);
        if !in_the_way {
            make(&entry.name)?;
            return apply_to_name(directory, &entry.name, entry, self.tally);
        }
        let temporary = self.temporary_name();
        make(&temporary)?;
        let done = apply_to_name(directory, &temporary, entry, self.tally)
            .and_then(|()| renameat(directory, &temporary[..], directory, &entry.name[..]));
        if done.is_err() {
            let _ = unlinkat(directory, &temporary[..], AtFlags::empty());
        }
        done
    }

    /// Makes a further name of a file that is there.
    pub fn link(&self, opened: &mut Opened, node: &Arc<Node>, first: &First, item: &Item) -> Done<()> {
        let from = self.tree.directory(&first.node.path, OFlags::empty())?;
        let directory = self.open(opened, node)?;
        let entry = &item.entry;
        if let Some(existing) = &item.existing {
            if (existing.device, existing.inode) == first.identity {
                count(&self.tally.kept);
                return Ok(());
            }
            self.clear_way(directory, entry, decide(entry, Some(existing)))?;
        }
        // A link set by somebody else in the first name's place must not be linked.
        let stat = Stat::new(&statat(&from, &first.name[..], AtFlags::SYMLINK_NOFOLLOW)?);
        if first.identity != (0, 0) && (stat.device, stat.inode) != first.identity {
            return Err(Trouble::Entry("the file it is linked to was replaced meanwhile".to_owned()));
        }
        let temporary = self.temporary_name();
        linkat(&from, &first.name[..], directory, &temporary[..], AtFlags::empty())?;
        let renamed = renameat(directory, &temporary[..], directory, &entry.name[..]);
        if renamed.is_err() {
            let _ = unlinkat(directory, &temporary[..], AtFlags::empty());
        }
        renamed?;
        count(&self.tally.hard_links);
        Ok(())
    }
}
