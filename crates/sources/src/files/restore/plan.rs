//! What a restore would do, as a value: for `--dry-run`, for the question before it, and for the tests. Writes nothing.

use super::{
    RestoreOptions, Sought,
    decide::{Decision, decide},
    remove::for_extras,
};
use crate::files::{browse::Step, names::show_path, stat::Stat, tree::Tree};
use mainstay_domain::{
    Monitor, Result,
    listing::{self, Entry, FileKind},
    point::SourceRecord,
    stream::Vault,
};
use rustix::{
    fd::OwnedFd,
    fs::{Access, AtFlags, CWD, OFlags, accessat, statat, statvfs},
};
use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

/// Named in a plan at the most.
const NAMED: usize = 100;

/// A plan. Names are bounded lists; the counts are of all.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct RestorePlan {
    pub destination: PathBuf,
    pub destination_exists: bool,
    /// Directories, links, FIFOs and devices too.
    pub entries: u64,
    /// That are not there; those on the way to what is restored too, the destination itself not.
    pub directories: u64,
    /// Files that are not there.
    pub create: u64,
    /// Files (and what else) that are there and another.
    pub replace: u64,
    /// Files that are right already by size and time.
    pub keep: u64,
    /// Bytes to be written.
    pub bytes: u64,
    /// Bytes free for this user in the destination.
    pub free_bytes: u64,
    /// Names that will be overwritten.
    pub replaced: Vec<String>,
    /// Directories with files in them where something else is to be.
    pub conflicts: Vec<String>,
    pub conflict_count: u64,
    /// What `delete` takes away (a directory with all in it counts once).
    pub removals: Vec<String>,
    pub removal_count: u64,
    /// Excluded by the source's rules, and so left in place.
    pub protected: u64,
    /// Why it cannot work, one sentence each; empty if it can.
    pub obstacles: Vec<String>,
    /// What will be different, one sentence each.
    pub notices: Vec<String>,
}

/// Looks at everything a restore would do, without doing it.
pub fn plan_restore(
    vault: &dyn Vault,
    record: &SourceRecord,
    options: &RestoreOptions,
    monitor: &dyn Monitor,
) -> Result<RestorePlan> {
    let sought = Sought::new(record, options)?;
    let mut plan = RestorePlan { destination: options.destination.clone(), ..RestorePlan::default() };
    let tree = Tree::open(&options.destination).ok();
    plan.destination_exists = options.destination.symlink_metadata().is_ok();
    plan.look_at_destination(tree.is_some());
    let mut planner = Planner::new(tree.as_ref());
    let mut others = Others::default();
    let mut version: Option<Box<Entry>> = None;
    let mut lost = false;
    for step in sought.steps(vault) {
        if monitor.cancelled() {
            return Err(crate::files::FilesError::Cancelled.into());
        }
        let step = step?;
        // Of a name that was deleted several times, the latest version is restored.
        if let Some(entry) = version.take()
            && !matches!(&step, Step::Entry(next) if next.name == entry.name)
        {
            planner.entry(&entry, &sought, options, &mut plan, &mut others);
        }
        match step {
            Step::Directory(path) => planner.enter(path, &sought),
            Step::Entry(entry) if sought.versions => version = Some(entry),
            Step::Entry(entry) => planner.entry(&entry, &sought, options, &mut plan, &mut others),
            Step::Lost(failure) => {
                lost = true;
                plan.obstacles.push(format!("a part of the listing cannot be read: {failure}"));
            }
        }
    }
    if let Some(entry) = version {
        planner.entry(&entry, &sought, options, &mut plan, &mut others);
    }
    // Whoever names several paths means each of them.
    let unmet = sought.filter.unmet();
    if !lost && !unmet.is_empty() {
        return Err(crate::files::FilesError::NothingMatches(unmet).into());
    }
    if options.delete
        && !lost
        && let Some(tree) = &tree
    {
        for_extras(vault, &sought, tree, &mut |extra| {
            if options.keep.iter().any(|kept| kept.as_bytes() == extra.path) {
                return Ok(());
            }
            if extra.protected {
                plan.protected += 1;
            } else {
                plan.removal_count += 1;
                name(&mut plan.removals, &extra.path);
            }
            Ok(())
        })?;
    }
    plan.judge(options, &others);
    Ok(plan)
}

#[derive(Default)]
struct Others {
    owners: u64,
    devices: u64,
    sockets: u64,
    without_content: u64,
}

struct Planner<'a> {
    tree: Option<&'a Tree>,
    path: Vec<u8>,
    fd: Option<OwnedFd>,
    covered: bool,
    /// The last directory the way to which was counted.
    reached: Vec<u8>,
    /// Deleted directories that were counted under their own names. A deleted file may lie in one that lives.
    counted: HashSet<Vec<u8>>,
}

impl<'a> Planner<'a> {
    fn new(tree: Option<&'a Tree>) -> Self {
        let (path, reached, counted) = (Vec::new(), Vec::new(), HashSet::new());
        Planner { tree, path, fd: None, covered: false, reached, counted }
    }

    /// Counts the directories that must be made so that something can lie in this one.
    fn count_way(&mut self, plan: &mut RestorePlan) {
        if self.fd.is_some() || self.reached == self.path {
            return;
        }
        let ends = self.path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for end in ends.chain([self.path.len()]) {
            let way = &self.path[..end];
            let passed =
                self.reached.strip_prefix(way).is_some_and(|rest| matches!(rest.first(), None | Some(b'/')));
            let there = || self.tree.is_some_and(|tree| tree.directory(way, OFlags::empty()).is_ok());
            if !way.is_empty() && !passed && !self.counted.contains(way) && !there() {
                plan.directories += 1;
            }
        }
        self.reached.clone_from(&self.path);
    }

    fn enter(&mut self, path: Vec<u8>, sought: &Sought<'_>) {
        self.fd = self.tree.and_then(|tree| tree.directory(&path, OFlags::empty()).ok());
        self.covered = sought.filter.covers(&path);
        self.path = path;
    }

    fn entry(
        &mut self,
        entry: &Entry,
        sought: &Sought<'_>,
        options: &RestoreOptions,
        plan: &mut RestorePlan,
        others: &mut Others,
    ) {
        let path = listing::join(&self.path, &entry.name);
        let named = sought.filter.matches(&path);
        if entry.name.is_empty() || !self.covered && !named {
            return;
        }
        plan.entries += 1;
        let euid = rustix::process::geteuid();
        others.owners += u64::from(!euid.is_root() && entry.uid != euid.as_raw());
        match entry.kind {
            FileKind::Socket => {
                others.sockets += 1;
                return;
            }
            FileKind::CharDevice | FileKind::BlockDevice => others.devices += 1,
            FileKind::Regular if entry.content.is_none() => {
                others.without_content += 1;
                return;
            }
            _ => {}
        }
        // The directories of a selected one are entries themselves.
        if !self.covered || sought.versions {
            self.count_way(plan);
        }
        let stat =
            self.fd.as_ref().and_then(|fd| statat(fd, &entry.name[..], AtFlags::SYMLINK_NOFOLLOW).ok());
        let size = if entry.kind == FileKind::Regular { entry.size } else { 0 };
        let decision = decide(entry, stat.map(|stat| Stat::new(&stat)).as_ref());
        if entry.kind == FileKind::Directory && decision != Decision::Keep {
            plan.directories += 1;
            if sought.versions {
                self.counted.insert(path.clone());
            }
        }
        match decision {
            Decision::Keep if entry.kind == FileKind::Directory => {}
            Decision::Keep => plan.keep += 1,
            Decision::Create if entry.kind == FileKind::Directory => {}
            Decision::Create => {
                plan.create += 1;
                plan.bytes += size;
            }
            Decision::Replace => {
                plan.replace += 1;
                plan.bytes += size;
                name(&mut plan.replaced, &path);
            }
            Decision::DirectoryInTheWay => {
                plan.bytes += size;
                plan.conflict_count += u64::from(!options.delete);
                plan.removal_count += u64::from(options.delete);
                name(if options.delete { &mut plan.removals } else { &mut plan.conflicts }, &path);
            }
        }
    }
}

impl RestorePlan {
    fn look_at_destination(&mut self, is_directory: bool) {
        let existing = nearest(&self.destination);
        if self.destination_exists && !is_directory {
            self.obstacles
                .push(format!("{} is not a directory that can be opened", self.destination.display()));
        }
        if accessat(CWD, existing, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS).is_err() {
            self.obstacles.push(format!("{} is not writable", existing.display()));
        }
        if let Ok(stat) = statvfs(existing) {
            self.free_bytes = stat.f_bavail.saturating_mul(stat.f_frsize);
        }
    }

    fn judge(&mut self, options: &RestoreOptions, others: &Others) {
        if self.bytes > self.free_bytes {
            let (need, free) =
                (mainstay_domain::ByteSize(self.bytes), mainstay_domain::ByteSize(self.free_bytes));
            let at = nearest(&self.destination).display();
            self.obstacles.push(format!("{need} are to be written and {free} are free in {at}"));
        }
        if self.conflict_count > 0 {
            let text =
                "directories with files in them are in the way, and will be left (--delete removes them)";
            self.notices.push(format!("{} {text}", self.conflict_count));
        }
        let root = rustix::process::geteuid().is_root();
        for (count, text) in [
            (others.owners, "entries will belong to the user who restores them: only root can set the owner"),
            (if root { 0 } else { others.devices }, "device nodes will not be made: only root can"),
            (others.sockets, "sockets will not be restored: they belong to running processes"),
            (
                others.without_content,
                "files could not be read when they were captured, and have no content to restore",
            ),
        ] {
            if count > 0 {
                self.notices.push(format!("{count} {text}"));
            }
        }
        if options.delete && self.protected > 0 {
            self.notices.push(format!("{} that the source excludes will be left in place", self.protected));
        }
    }
}

fn name(list: &mut Vec<String>, path: &[u8]) {
    if list.len() < NAMED {
        list.push(show_path(path));
    }
}

/// The directory itself, or the nearest above it that is there.
fn nearest(path: &Path) -> &Path {
    path.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"))
}
