//! Reads the listing in order, makes directories, and hands entries to the workers.
//!
//! A directory of the listing is made only if its parent's block named it as one: a listing that puts files below a link
//! or below a file is refused. Only where a part of the listing is damaged are the directories missing in it taken on
//! trust, and made with plain rights; what is made lies beneath the destination in any case.

use super::{
    Sought, Tally, count,
    decide::{Decision, decide},
    jobs::Jobs,
    links::Turn,
    remove,
    unfinished::MARK,
    worker::{Item, Job, Node, Trouble, Worker},
    write::BIG,
};
use crate::files::{
    FilesError,
    browse::{Step, is_within, split_path},
    dirent::{Names, read_names},
    names::show_path,
    stat::Stat,
};
use mainstay_domain::{
    Result, Severity,
    listing::{self, Entry, FileKind},
};
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{AtFlags, Mode, OFlags, fchmod, mkdirat, statat, unlinkat},
    io::Errno,
};
use std::sync::Arc;

const BATCH_FILES: usize = 32;
const BATCH_BYTES: u64 = 4 << 20;

/// A directory on the way from the root to where the listing is.
struct Frame {
    path: Vec<u8>,
    /// Its own entry, from its parent's block.
    entry: Option<Box<Entry>>,
    /// Meant with everything below.
    covered: bool,
    /// It could not be made, which was reported; what lies below it is passed over.
    failed: bool,
    /// Once it is made.
    made: Option<Made>,
    /// Subdirectories that its block named and whose own blocks did not come yet, encoded one after the other.
    announced: Vec<u8>,
    at: usize,
}

struct Made {
    node: Arc<Node>,
    /// Let go of where the tree is deep, and opened again.
    fd: Option<OwnedFd>,
    /// What it held before; `None` if it is new.
    existing: Option<Names>,
}

/// Frames this far above the last one hold no descriptor: a process has few, and a tree may be deep.
const OPEN_FRAMES: usize = 64;

pub(crate) struct Layout<'a, 'w> {
    worker: &'w Worker<'a>,
    sought: &'w Sought<'a>,
    jobs: &'w Jobs,
    frames: Vec<Frame>,
    batch: Vec<Item>,
    batch_bytes: u64,
    /// The latest version so far of a name of which several were deleted.
    version: Option<Box<Entry>>,
    selected: u64,
    lenient: bool,
    names: Vec<u8>,
}

impl<'a, 'w> Layout<'a, 'w> {
    pub fn new(worker: &'w Worker<'a>, sought: &'w Sought<'a>, jobs: &'w Jobs) -> Self {
        Layout {
            worker,
            sought,
            jobs,
            frames: Vec::new(),
            batch: Vec::new(),
            batch_bytes: 0,
            version: None,
            selected: 0,
            lenient: sought.versions,
            names: Vec::new(),
        }
    }

    /// Restores what the steps say; returns how many entries were selected.
    pub fn run(mut self, steps: impl Iterator<Item = Result<Step>>) -> Result<u64> {
        let read = self.read(steps);
        if read.is_err() {
            for frame in &mut self.frames {
                frame.at = frame.announced.len();
            }
        }
        while !self.frames.is_empty() {
            self.leave();
        }
        read.map(|()| self.selected)
    }

    fn read(&mut self, steps: impl Iterator<Item = Result<Step>>) -> Result<()> {
        for step in steps {
            if self.worker.is_stopped() {
                break;
            }
            match step? {
                Step::Directory(path) => self.enter(&path)?,
                Step::Entry(entry) if self.sought.versions => {
                    if self.version.as_ref().is_some_and(|version| version.name != entry.name) {
                        self.latest_version();
                    }
                    self.version = Some(entry);
                }
                Step::Entry(entry) => self.entry(entry),
                Step::Lost(failure) => {
                    let message = format!(
                        "a part of the listing cannot be read; its files are not restored: {failure}"
                    );
                    self.worker.problems.add(Severity::Error, "", message);
                    self.lenient = true;
                }
            }
        }
        Ok(())
    }

    fn latest_version(&mut self) {
        if let Some(entry) = self.version.take() {
            self.entry(entry);
        }
    }

    fn enter(&mut self, path: &[u8]) -> Result<()> {
        self.latest_version();
        if self.frames.last().is_some_and(|frame| frame.path == path) {
            return Ok(());
        }
        while self.frames.last().is_some_and(|frame| !is_within(path, &frame.path)) {
            self.leave();
        }
        if self.frames.is_empty() {
            self.push(b"", None);
        }
        let mut from = self.frames.last().map_or(0, |frame| frame.path.len());
        while from < path.len() {
            let start = if from == 0 { 0 } else { from + 1 };
            let end = path[start..].iter().position(|b| *b == b'/').map_or(path.len(), |at| start + at);
            let entry = self.announced(&path[start..end]);
            if entry.is_none() && !self.lenient {
                let at = show_path(path);
                let what = "its parent does not name it as a directory";
                return Err(FilesError::Malformed { at, what }.into());
            }
            self.push(&path[..end], entry);
            from = end;
        }
        Ok(())
    }

    fn push(&mut self, path: &[u8], entry: Option<Box<Entry>>) {
        self.flush();
        let parent = self.frames.last();
        let covered = parent.is_some_and(|parent| parent.covered) || self.sought.filter.matches(path);
        self.selected += u64::from(covered && !path.is_empty());
        let failed = parent.is_some_and(|parent| parent.failed);
        let path = path.to_vec();
        self.frames.push(Frame { path, entry, covered, failed, made: None, announced: Vec::new(), at: 0 });
    }

    /// The entry of a subdirectory of the last frame. Those named before it have no block of their own, and are made here.
    fn announced(&mut self, name: &[u8]) -> Option<Box<Entry>> {
        let mut found = None;
        while let Some((entry, next)) = self.frames.last().and_then(Frame::next_announced) {
            match entry.name[..].cmp(name) {
                std::cmp::Ordering::Greater => break,
                std::cmp::Ordering::Equal => found = Some(Box::new(entry)),
                std::cmp::Ordering::Less => self.bare(entry),
            }
            self.frames.last_mut().expect("it was just asked").at = next;
        }
        found
    }

    /// Makes a directory of which nothing but its entry is recorded.
    fn bare(&mut self, entry: Entry) {
        let parent = self.frames.last().expect("its parent is the last frame");
        let path = listing::join(&parent.path, &entry.name);
        if !(parent.covered || self.sought.filter.matches(&path)) {
            return;
        }
        self.push(&path, Some(Box::new(entry)));
        self.leave();
    }

    /// The last frame is over.
    fn leave(&mut self) {
        self.latest_version();
        while let Some((entry, next)) = self.frames.last().and_then(Frame::next_announced) {
            self.frames.last_mut().expect("it was just asked").at = next;
            self.bare(entry);
        }
        self.flush();
        let last = self.frames.len() - 1;
        if self.frames[last].covered {
            self.ensure(last);
        }
        let frame = self.frames.pop().expect("there is a last one");
        if let Some(made) = frame.made {
            self.worker.release(made.node);
        }
    }

    fn entry(&mut self, entry: Box<Entry>) {
        let last = self.frames.len() - 1;
        if entry.name.is_empty() {
            if self.sought.filter.is_everything() {
                self.frames[last].entry = Some(entry);
            }
            return;
        }
        if entry.kind == FileKind::Directory {
            listing::encode_entry(&entry, &mut self.frames[last].announced);
            return;
        }
        let frame = &self.frames[last];
        if !frame.covered && !self.sought.filter.matches(&listing::join(&frame.path, &entry.name)) {
            return;
        }
        self.selected += 1;
        if !self.ensure(last) {
            return;
        }
        let made = self.frames[last].made.as_ref().expect("it was just made");
        let fd = made.fd.as_ref().expect("the last frame's is open");
        let existing = match &made.existing {
            Some(names) if names.find(&entry.name).is_some() => {
                statat(fd, &entry.name[..], AtFlags::SYMLINK_NOFOLLOW).ok().map(|stat| Stat::new(&stat))
            }
            _ => None,
        };
        let size = entry.content.as_ref().map_or(0, |content| content.bytes());
        let item = Item { entry, existing };
        let anew = decide(&item.entry, item.existing.as_ref()) != Decision::Keep;
        if size >= BIG && anew && !self.worker.can_patch(&item) {
            self.flush();
            self.big(last, item);
            return;
        }
        self.batch.push(item);
        self.batch_bytes += size;
        if self.batch.len() >= BATCH_FILES || self.batch_bytes >= BATCH_BYTES {
            self.flush();
        }
    }

    fn big(&mut self, last: usize, item: Item) {
        let made = self.frames[last].made.as_ref().expect("the caller made it");
        let item = match item.entry.links {
            None => item,
            Some(_) => match self.worker.links.turn(&made.node, item) {
                Turn::Write(item) => item,
                Turn::Later => return,
                Turn::Link(first, item) => {
                    let done = self.worker.link(&mut None, &made.node, &first, &item);
                    if let Err(trouble) = done {
                        self.worker.report(&made.node, &item.entry.name, trouble);
                    }
                    return;
                }
            },
        };
        let decision = decide(&item.entry, item.existing.as_ref());
        let fd = made.fd.as_ref().expect("the last frame's is open").as_fd();
        match self.worker.clear_way(fd, &item.entry, decision) {
            Ok(()) => self.worker.big(fd, &made.node, item, self.jobs),
            Err(trouble) => self.worker.written(&mut None, &made.node, &item.entry, Err(trouble)),
        }
    }

    fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        self.batch_bytes = 0;
        let items = std::mem::take(&mut self.batch);
        let frame = self.frames.last().expect("a batch is of the last frame");
        let made = frame.made.as_ref().expect("a batch is of a directory that was made");
        made.node.hold();
        self.jobs.send(Job::Items { node: made.node.clone(), items });
    }

    /// Makes the directory of a frame, and those above it; `false` if that failed, now or before.
    fn ensure(&mut self, index: usize) -> bool {
        if self.frames[index].made.is_some() {
            return true;
        }
        if self.frames[index].failed || index > 0 && !self.ensure(index - 1) {
            self.frames[index].failed = true;
            return false;
        }
        match self.make(index) {
            Ok(made) => {
                self.frames[index].made = Some(made);
                true
            }
            Err(trouble) => {
                let trouble = match trouble {
                    Trouble::Entry(message) => Trouble::Entry(format!(
                        "the directory cannot be made, nothing below it is restored: {message}"
                    )),
                    all => all,
                };
                self.worker.report_path(&self.frames[index].path, trouble);
                self.frames[index].failed = true;
                false
            }
        }
    }

    /// Whether the destination is where the listing's root was captured.
    fn is_captured_root(&self) -> bool {
        let destination = std::fs::canonicalize(&self.worker.options.destination);
        let roots = &self.sought.facts.roots;
        destination.is_ok_and(|path| roots.iter().any(|root| root.label.is_none() && root.resolved == path))
    }

    fn make(&mut self, index: usize) -> std::result::Result<Made, Trouble> {
        let asked = self.worker.options.delete || index == 0 && self.is_captured_root();
        let (above, frame) = self.frames.split_at_mut(index);
        let frame = &mut frame[0];
        let tree = self.worker.tree;
        let Some(parent) = above.last_mut() else {
            let fd = tree.directory(b"", OFlags::empty())?;
            let existing = Some(read_names(&fd, None, &mut self.names)?);
            // Our own mark is nobody living there.
            let lived_in = |names: &Names| (0..names.len()).any(|n| names.get(n) != MARK.as_bytes());
            let empty = !existing.as_ref().is_some_and(lived_in);
            // A directory that is lived in keeps its own mode and owner, unless it is to become what was recorded: who
            // restores three files into /tmp does not mean to change /tmp.
            let own = empty || asked;
            let entry = frame.entry.take().filter(|_| own);
            let node = Node::new(None, Vec::new(), entry, (false, is_plain(&fd)));
            return Ok(Made { node, fd: Some(fd), existing });
        };
        let parent = parent.made.as_mut().expect("the caller made it");
        let parent_fd = match parent.fd.take() {
            Some(fd) => fd,
            None => tree.directory(&parent.node.path, OFlags::empty())?,
        };
        let parent_fd = parent.fd.insert(parent_fd);
        let (_, name) = split_path(&frame.path);
        let new = make_directory(parent_fd.as_fd(), name, frame.covered, self.worker.tally)?;
        let fd = crate::files::tree::open_in(
            &*parent_fd,
            name,
            OFlags::RDONLY | OFlags::DIRECTORY,
            Mode::empty(),
        )?;
        let mut existing = None;
        let plain = if new { parent.node.plain } else { is_plain(&fd) };
        if !new {
            let names = read_names(&fd, None, &mut self.names)?;
            let stat = Stat::new(&rustix::fs::fstat(&fd)?);
            if frame.covered && stat.mode & 0o700 != 0o700 {
                // Ours to write into while we are at it; its own mode comes last.
                let _ = fchmod(&fd, Mode::from_raw_mode(stat.mode | 0o700));
            }
            existing = Some(remove::without_leftovers(fd.as_fd(), names));
        }
        let entry = if new || frame.covered { frame.entry.take() } else { None };
        let new = new && parent.node.plain;
        let node = Node::new(Some(parent.node.clone()), frame.path.clone(), entry, (new, plain));
        if let Some(above) = index.checked_sub(OPEN_FRAMES).and_then(|far| above[far].made.as_mut()) {
            above.fd = None;
        }
        Ok(Made { node, fd: Some(fd), existing })
    }
}

/// Whether what is made in a directory inherits no ACL from it.
fn is_plain(directory: impl AsFd) -> bool {
    rustix::fs::fgetxattr(directory, "system.posix_acl_default", &mut [0u8; 0][..]).is_err()
}

impl Frame {
    /// The next subdirectory whose block did not come, and where the one after it begins.
    fn next_announced(&self) -> Option<(Entry, usize)> {
        let mut decoder = minicbor::Decoder::new(&self.announced);
        decoder.set_position(self.at);
        let entry = decoder.decode().ok()?;
        Some((entry, decoder.position()))
    }
}

/// Whether the directory is new. What is no directory gives way, if the directory itself is meant.
fn make_directory(
    parent: BorrowedFd<'_>,
    name: &[u8],
    covered: bool,
    tally: &Tally,
) -> std::result::Result<bool, Trouble> {
    match mkdirat(parent, name, Mode::RWXU) {
        Ok(()) => {}
        Err(Errno::EXIST) => {
            let there = Stat::new(&statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?);
            if there.kind == FileKind::Directory {
                return Ok(false);
            }
            if !covered {
                return Err(Trouble::Entry("something that is no directory is in the way".to_owned()));
            }
            unlinkat(parent, name, AtFlags::empty())?;
            mkdirat(parent, name, Mode::RWXU)?;
        }
        Err(error) => return Err(error.into()),
    }
    count(&tally.directories);
    Ok(true)
}
