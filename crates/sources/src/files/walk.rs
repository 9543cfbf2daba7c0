//! Reads a tree with several threads, ahead of one consumer, and hands it over in listing order.
//!
//! Every task has a key: its place in the tree as numbers, so that keys sort in listing order. Workers take the first
//! task that nobody has; the consumer takes the first block once nothing before it is still to come. At most [`AHEAD`]
//! entries lie finished and unconsumed (and a part for each worker), whatever the tree; the worker whose task is the
//! very next always goes on. What a directory needs beyond that is its names, as bytes, until its entries were looked at.
//! A directory of more than [`PART`] names is looked at by several workers.

use super::{
    config::Rules,
    dirent::{Names, read_names},
    problems::Problems,
    roots::Roots,
    stat::Stat,
    tree::open_in,
};
use mainstay_domain::{Clock, Severity, Time, listing::FileKind};
use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{Access, AtFlags, Mode, OFlags, accessat, fstatfs, statat},
    io::Errno,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    ops::Range,
    os::unix::ffi::OsStrExt,
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

/// Entries that may wait for the consumer.
pub(crate) const AHEAD: usize = 1 << 16;
/// Entries of one block of a directory.
const PART: usize = 2048;
const TAG: &[u8] = b"CACHEDIR.TAG";
const TAG_SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";

/// Some entries of one directory, in order of their names; all of them, but for directories of many entries.
#[derive(Debug)]
pub(crate) struct Block {
    /// As in the listing.
    pub path: Arc<[u8]>,
    pub place: Place,
    pub found: Vec<Found>,
    /// When it was looked at, or a little before.
    pub now: Time,
    names: Arc<Names>,
}

/// Where a block's entries lie on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The root block of several roots: entry `n` is root `n` in the order of `Found::name`.
    Roots,
    /// The directory `path[below..]` of a root.
    Directory { root: usize, below: usize },
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    /// Which of the names; for `Place::Roots` also which root.
    pub name: u32,
    pub unreadable: bool,
    pub stat: Stat,
}

impl Block {
    pub fn name(&self, found: &Found) -> &[u8] {
        self.names.get(found.name as usize)
    }
}

type Key = Vec<u32>;

fn child_key(key: &[u32], turn: u32, index: u32) -> Key {
    let mut child = Vec::with_capacity(key.len() + 2);
    child.extend_from_slice(key);
    child.extend([turn, index]);
    child
}

/// In a key, the parts of a directory come before what lies below it.
const PARTS: u32 = 0;
const BELOW: u32 = 1;

#[derive(Debug)]
enum Task {
    Directory(Directory),
    Part { listed: Arc<Listed>, range: Range<usize> },
    Children(Children),
}

#[derive(Debug)]
struct Directory {
    path: Vec<u8>,
    root: usize,
    below: usize,
    included: bool,
    /// Another file system than its parent's.
    crossed: bool,
}

/// A directory whose names are known.
#[derive(Debug)]
struct Listed {
    path: Arc<[u8]>,
    root: usize,
    below: usize,
    included: bool,
    fd: OwnedFd,
    device: u64,
    names: Arc<Names>,
}

/// Subdirectories, made tasks of one by one: a directory may have millions.
#[derive(Debug)]
struct Children {
    path: Arc<[u8]>,
    root: usize,
    below: usize,
    names: Arc<Names>,
    list: Vec<Child>,
    next: usize,
}

#[derive(Debug, Clone, Copy)]
struct Child {
    name: u32,
    included: bool,
    crossed: bool,
}

#[derive(Default)]
struct State {
    pending: BTreeMap<Key, Task>,
    active: BTreeSet<Key>,
    done: BTreeMap<Key, Block>,
    ahead: usize,
    most_ahead: usize,
    idle: usize,
    stop: bool,
    lost: bool,
}

impl State {
    /// Whether nothing that is still to come sorts before `key`.
    fn is_next(&self, key: &Key) -> bool {
        self.active.first().is_none_or(|first| key < first)
            && self.pending.keys().next().is_none_or(|first| key <= first)
    }

    fn over(&self) -> bool {
        self.stop || self.pending.is_empty() && self.active.is_empty()
    }
}

/// What a task leaves behind.
#[derive(Default)]
struct Outcome {
    block: Option<Block>,
    tasks: Vec<(Key, Task)>,
}

/// How a tree is walked.
pub(crate) struct Settings<'a> {
    pub roots: &'a Roots,
    pub rules: &'a Rules,
    pub one_file_system: bool,
    /// Entries that may wait for the consumer: [`AHEAD`], but in tests.
    pub ahead: usize,
    pub cachedir_tag: bool,
    pub clock: &'a dyn Clock,
    pub problems: &'a Problems,
}

pub(crate) struct Walk<'a> {
    settings: Settings<'a>,
    /// Without privileges a directory may be closed to us; asking costs a call for each.
    ask_access: bool,
    state: Mutex<State>,
    work: Condvar,
    ready: Condvar,
}

impl<'a> Walk<'a> {
    pub fn new(settings: Settings<'a>) -> Walk<'a> {
        let mut state = State::default();
        let roots = settings.roots;
        if roots.single {
            for root in 0..roots.list.len() {
                let included = settings.rules.root_included();
                let task = Directory { path: Vec::new(), root, below: 0, included, crossed: false };
                state.pending.insert(Vec::new(), Task::Directory(task));
            }
        } else {
            plant_roots(&settings, &mut state);
        }
        let ask_access = !rustix::process::geteuid().is_root();
        Walk { settings, ask_access, state: Mutex::new(state), work: Condvar::new(), ready: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next blocks in listing order, appended to `blocks`; `false` once there are no more.
    pub fn next(&self, blocks: &mut Vec<Block>) -> bool {
        let mut state = self.lock();
        loop {
            let before = blocks.len();
            while blocks.len() - before < 64 {
                match state.done.keys().next() {
                    Some(key) if state.is_next(key) => {}
                    _ => break,
                }
                let (_, block) = state.done.pop_first().expect("it was just looked at");
                state.ahead -= weight(&block);
                blocks.push(block);
            }
            if blocks.len() > before {
                if state.idle > 0 {
                    self.work.notify_all();
                }
                return true;
            }
            if state.over() {
                return false;
            }
            state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Makes all workers return, and `next` say that there is no more.
    pub fn stop(&self) {
        self.lock().stop = true;
        self.work.notify_all();
        self.ready.notify_all();
    }

    /// Whether a worker panicked, so that what was handed over is not the whole tree.
    pub fn is_lost(&self) -> bool {
        self.lock().lost
    }

    /// How many finished entries lay unconsumed at the most.
    pub fn most_ahead(&self) -> usize {
        self.lock().most_ahead
    }

    /// What one worker thread does: tasks, until the tree is read.
    pub fn work(&self) {
        let _guard = StopOnPanic(self);
        let mut scratch = Scratch::default();
        let mut finished = None;
        while let Some((key, task)) = self.exchange(finished.take()) {
            let outcome = self.run(&key, task, &mut scratch);
            finished = Some((key, outcome));
        }
    }

    fn exchange(&self, finished: Option<(Key, Outcome)>) -> Option<(Key, Task)> {
        let mut state = self.lock();
        if let Some((key, outcome)) = finished {
            state.active.remove(&key);
            let more = outcome.tasks.len();
            state.pending.extend(outcome.tasks);
            if let Some(block) = outcome.block {
                state.ahead += weight(&block);
                state.most_ahead = state.most_ahead.max(state.ahead);
                state.done.insert(key, block);
            }
            if state.done.keys().next().is_none_or(|first| state.is_next(first)) {
                self.ready.notify_one();
            }
            if state.idle > 0 && (more > 0 || state.over()) {
                self.work.notify_all();
            }
        }
        loop {
            if state.over() {
                self.ready.notify_all();
                self.work.notify_all();
                return None;
            }
            if let Some(first) = state.pending.keys().next()
                && (state.ahead < self.settings.ahead
                    || state.is_next(first) && state.done.keys().next().is_none_or(|done| first < done))
            {
                let taken = take_first(&mut state.pending);
                state.active.insert(taken.0.clone());
                return Some(taken);
            }
            state.idle += 1;
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }

    fn run(&self, key: &[u32], task: Task, scratch: &mut Scratch) -> Outcome {
        match task {
            Task::Directory(directory) => self.list(key, directory, scratch),
            Task::Part { listed, range } => {
                let (directory, _) = key.split_at(key.len() - 2);
                self.look(directory, &listed, range, scratch)
            }
            Task::Children(_) => unreachable!("taken apart when it is taken"),
        }
    }

    /// Reads the names of a directory; and looks at the entries, if they are not too many.
    fn list(&self, key: &[u32], directory: Directory, scratch: &mut Scratch) -> Outcome {
        let Settings { roots, problems, .. } = &self.settings;
        let root = &roots.list[directory.root];
        let tree = root.tree.as_ref().expect("only roots that are directories are walked");
        let opened = quietly(|flags| tree.directory(&directory.path[directory.below..], flags))
            .and_then(|fd| Ok((rustix::fs::fstat(&fd)?, fd)));
        let (stat, fd) = match opened {
            Ok((stat, fd)) => (Stat::new(&stat), fd),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                problems.add(Severity::Info, roots.shown(&directory.path), "it vanished during the backup");
                return Outcome::default();
            }
            Err(error) => {
                let message = format!("the directory cannot be read: {error}");
                problems.add(Severity::Error, roots.shown(&directory.path), message);
                return Outcome::default();
            }
        };
        if directory.crossed && is_pseudo(&fd) {
            let message = "a file system of the kernel's own is mounted here; it was left out";
            problems.add(Severity::Info, roots.shown(&directory.path), message);
            return Outcome::default();
        }
        let own = directory.path.is_empty().then_some(&b""[..]);
        let mut names = match read_names(&fd, own, &mut scratch.names) {
            Ok(names) => names,
            Err(error) => {
                let message = format!("the directory cannot be read to its end: {error}");
                problems.add(Severity::Error, roots.shown(&directory.path), message);
                return Outcome::default();
            }
        };
        if self.settings.cachedir_tag && names.find(TAG).is_some() && is_tagged(&fd) {
            names.retain(|name| name.is_empty() || name == TAG);
        }
        let listed = Listed {
            path: directory.path.into(),
            root: directory.root,
            below: directory.below,
            included: directory.included,
            fd,
            device: stat.device,
            names: Arc::new(names),
        };
        let count = listed.names.len();
        if count <= 2 * PART {
            return self.look(key, &listed, 0..count, scratch);
        }
        let listed = Arc::new(listed);
        let part = |n: usize| {
            let range = n * PART..count.min((n + 1) * PART);
            (child_key(key, PARTS, n as u32), Task::Part { listed: listed.clone(), range })
        };
        Outcome { block: None, tasks: (0..count.div_ceil(PART)).map(part).collect() }
    }

    /// Looks at some entries of a directory. `key`: the directory's.
    fn look(&self, key: &[u32], listed: &Listed, range: Range<usize>, scratch: &mut Scratch) -> Outcome {
        let settings = &self.settings;
        let now = settings.clock.now();
        let start = range.start;
        let mut found = Vec::with_capacity(range.len());
        let mut children = Vec::new();
        let shown = |name: &[u8]| settings.roots.shown(&mainstay_domain::listing::join(&listed.path, name));
        for index in range {
            let name = listed.names.get(index);
            let looked = match name {
                b"" => rustix::fs::fstat(&listed.fd),
                name => statat(&listed.fd, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT),
            };
            let stat = match looked {
                Ok(stat) => Stat::new(&stat),
                Err(Errno::NOENT) => continue,
                Err(error) => {
                    let message = format!("it cannot be examined: {error}");
                    settings.problems.add(Severity::Error, shown(name), message);
                    continue;
                }
            };
            let mut entry = Found { name: index as u32, unreadable: false, stat };
            if name.is_empty() {
                found.push(entry);
                continue;
            }
            let is_directory = stat.kind == FileKind::Directory;
            let mut included = listed.included;
            if !settings.rules.is_empty() {
                let path = scratch.below(listed, name);
                included = settings.rules.included(path, is_directory, listed.included);
                if settings.rules.excluded(path, is_directory) || !included && !is_directory {
                    continue;
                }
            }
            if is_directory {
                let crossed = stat.device != listed.device;
                let readable = Access::READ_OK | Access::EXEC_OK;
                if crossed && settings.one_file_system {
                    let message = "another file system is mounted here; it was not entered";
                    settings.problems.add(Severity::Info, shown(name), message);
                } else if self.ask_access
                    && accessat(&listed.fd, name, readable, AtFlags::EACCESS) == Err(Errno::ACCESS)
                {
                    entry.unreadable = true;
                    let message = "the directory cannot be read: permission denied";
                    settings.problems.add(Severity::Error, shown(name), message);
                } else {
                    if crossed {
                        let message = "another file system is mounted here";
                        settings.problems.add(Severity::Info, shown(name), message);
                    }
                    children.push(Child { name: index as u32, included, crossed });
                }
            }
            found.push(entry);
        }
        let mut tasks = Vec::new();
        if !children.is_empty() {
            let children = Children {
                path: listed.path.clone(),
                root: listed.root,
                below: listed.below,
                names: listed.names.clone(),
                list: children,
                next: 0,
            };
            tasks.push((child_key(key, BELOW, start as u32), Task::Children(children)));
        }
        let place = Place::Directory { root: listed.root, below: listed.below };
        let block = Block { path: listed.path.clone(), place, found, now, names: listed.names.clone() };
        Outcome { block: Some(block), tasks }
    }
}

struct StopOnPanic<'a, 'b>(&'b Walk<'a>);

impl Drop for StopOnPanic<'_, '_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().lost = true;
            self.0.stop();
        }
    }
}

/// What a block counts against [`AHEAD`].
fn weight(block: &Block) -> usize {
    1 + block.found.len()
}

/// The root block of several roots, and a task for each that is a directory.
fn plant_roots(settings: &Settings<'_>, state: &mut State) {
    let roots = settings.roots;
    let labels: Vec<&[u8]> = roots.list.iter().map(|root| root.label.as_deref().unwrap_or(b"")).collect();
    let names = Names::from_list(&labels);
    let mut found: Vec<Found> = (0..roots.list.len())
        .map(|index| Found { name: index as u32, unreadable: false, stat: roots.list[index].stat })
        .collect();
    found.sort_by_key(|found| labels[found.name as usize]);
    for (turn, entry) in found.iter().enumerate() {
        let root = entry.name as usize;
        if roots.list[root].tree.is_some() {
            let path = labels[root].to_vec();
            let (below, included) = (path.len(), settings.rules.root_included());
            let task = Directory { path, root, below, included, crossed: false };
            state.pending.insert(vec![BELOW, turn as u32], Task::Directory(task));
        }
    }
    let block = Block {
        path: Arc::from(&b""[..]),
        place: Place::Roots,
        found,
        now: settings.clock.now(),
        names: Arc::new(names),
    };
    state.ahead += weight(&block);
    state.done.insert(Vec::new(), block);
}

/// Takes the first task; of children, the first child.
fn take_first(pending: &mut BTreeMap<Key, Task>) -> (Key, Task) {
    let (key, task) = pending.pop_first().expect("the caller saw a first one");
    let Task::Children(mut children) = task else { return (key, task) };
    let child = children.list[children.next];
    let path = mainstay_domain::listing::join(&children.path, children.names.get(child.name as usize));
    // Below a root that has a label, the path on disk begins after the label and its slash.
    let below = if children.path.len() == children.below && children.below > 0 {
        children.below + 1
    } else {
        children.below
    };
    let directory =
        Directory { path, root: children.root, below, included: child.included, crossed: child.crossed };
    children.next += 1;
    if children.next < children.list.len() {
        let (last, directory_key) = key.split_last().expect("a child's key is longer than its parent's");
        let mut rest = directory_key.to_vec();
        rest.push(last + 1);
        pending.insert(rest, Task::Children(children));
    }
    (key, Task::Directory(directory))
}

/// Opens without touching the access time, where that is allowed.
pub(crate) fn quietly(open: impl Fn(OFlags) -> rustix::io::Result<OwnedFd>) -> rustix::io::Result<OwnedFd> {
    match open(OFlags::NOATIME) {
        Err(Errno::PERM) => open(OFlags::empty()),
        opened => opened,
    }
}

fn is_tagged(directory: impl AsFd) -> bool {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let mut start = [0; TAG_SIGNATURE.len()];
    quietly(|quiet| open_in(directory.as_fd(), TAG, flags | quiet, Mode::empty()))
        .and_then(|fd| rustix::io::read(fd, &mut start))
        .is_ok_and(|_| start == TAG_SIGNATURE)
}

/// File systems that hold no one's data: `statfs(2)` lists their numbers.
fn is_pseudo(directory: impl AsFd) -> bool {
    const PROC: u64 = 0x9fa0;
    const SYS: u64 = 0x6265_6572;
    const CGROUP: u64 = 0x0027_e0eb;
    const CGROUP2: u64 = 0x6367_7270;
    const DEVPTS: u64 = 0x1cd1;
    const DEBUG: u64 = 0x6462_6720;
    const TRACE: u64 = 0x7472_6163;
    const SECURITY: u64 = 0x7363_6673;
    const BPF: u64 = 0xcafe_4a11;
    const PSTORE: u64 = 0x6165_676c;
    const CONFIG: u64 = 0x6265_6570;
    const EFIVAR: u64 = 0xde5e_81e4;
    const MQUEUE: u64 = 0x1980_0202;
    let pseudo =
        [PROC, SYS, CGROUP, CGROUP2, DEVPTS, DEBUG, TRACE, SECURITY, BPF, PSTORE, CONFIG, EFIVAR, MQUEUE];
    #[allow(clippy::unnecessary_cast)] // the field's type differs between architectures
    fstatfs(directory).is_ok_and(|stat| pseudo.contains(&(stat.f_type as u64)))
}

/// What a worker keeps from task to task.
#[derive(Default)]
struct Scratch {
    names: Vec<u8>,
    path: Vec<u8>,
}

impl Scratch {
    /// The path of a name of a directory, below its root.
    fn below(&mut self, listed: &Listed, name: &[u8]) -> &Path {
        let directory = &listed.path[listed.below.min(listed.path.len())..];
        self.path.clear();
        if !directory.is_empty() {
            self.path.extend_from_slice(directory);
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
        Path::new(OsStr::from_bytes(&self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::{FilesConfig, testing};

    #[test]
    fn the_walk_waits_for_its_consumer_and_keeps_its_order() {
        let scratch = tempfile::tempdir().unwrap();
        for n in 0..200 {
            let directory = scratch.path().join(format!("d{}/e{n}", n % 20));
            std::fs::create_dir_all(&directory).unwrap();
            (0..20).for_each(|n| std::fs::write(directory.join(format!("f{n}")), "").unwrap());
        }
        let config = testing::config(scratch.path());
        let problems = Problems::default();
        let roots = Roots::open(&config, &problems);
        let rules = Rules::new(&FilesConfig::default()).unwrap();
        const THREADS: usize = 3;
        let walk = Walk::new(Settings {
            roots: &roots,
            rules: &rules,
            one_file_system: false,
            ahead: 100,
            cachedir_tag: false,
            clock: &mainstay_domain::SystemClock,
            problems: &problems,
        });
        let mut paths: Vec<Vec<u8>> = Vec::new();
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| walk.work());
            }
            let mut blocks = Vec::new();
            while walk.next(&mut blocks) {
                paths.extend(blocks.drain(..).map(|block| block.path.to_vec()));
            }
        });
        assert_eq!(paths.len(), 1 + 20 + 200);
        assert!(paths.is_sorted_by(|a, b| mainstay_domain::listing::compare_paths(a, b).is_lt()));
        assert!(walk.most_ahead() < 100 + (THREADS + 1) * 22, "{}", walk.most_ahead());
    }
}
