//! What a restore takes away: files that the recovery point does not have (asked for, at the end, in whole directories),
//! directories in the way, and what an earlier restore that was killed left behind.

use super::{Sought, Tally, count, metadata::times, unfinished::MARK};
use crate::files::{
    FilesError,
    browse::{Step, is_within},
    config::Rules,
    dirent::{Names, read_names},
    facts::Facts,
    names::show_path,
    problems::Problems,
    stat::Stat,
    tree::{Tree, open_in},
};
use mainstay_domain::{
    Result, Severity,
    listing::{self, FileKind},
    stream::Vault,
};
use rustix::{
    fd::{AsFd, BorrowedFd},
    fs::{AtFlags, Mode, OFlags, futimens, statat, unlinkat},
    io::Errno,
};
use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path};

const TEMPORARY: &str = ".mainstay-restore-";

/// A name for a file that is not whole yet.
pub(crate) fn temporary_name(n: u64) -> Vec<u8> {
    format!("{TEMPORARY}{}-{n:x}", rustix::process::getpid().as_raw_nonzero()).into_bytes()
}

/// Whether a name is that of a file not yet whole, of a process that is gone: [`temporary_name`], and no other that begins so.
fn is_leftover(name: &[u8]) -> bool {
    let parts = || {
        let (pid, n) = std::str::from_utf8(name).ok()?.strip_prefix(TEMPORARY)?.split_once('-')?;
        let (pid, n) = (pid.parse::<i32>().ok()?, u64::from_str_radix(n, 16).ok()?);
        (format!("{TEMPORARY}{pid}-{n:x}").as_bytes() == name).then_some(pid)
    };
    let pid = parts().and_then(rustix::process::Pid::from_raw);
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid) == Err(Errno::SRCH))
}

/// Removes leftovers of killed restores, and returns the other names.
pub(crate) fn without_leftovers(directory: BorrowedFd<'_>, mut names: Names) -> Names {
    let prefix = TEMPORARY.as_bytes();
    let leftovers: Vec<Vec<u8>> = (0..names.len())
        .map(|n| names.get(n))
        .filter(|name| name.starts_with(prefix) && is_leftover(name))
        .map(<[u8]>::to_vec)
        .filter(|name| unlinkat(directory, &name[..], AtFlags::empty()).is_ok())
        .collect();
    if !leftovers.is_empty() {
        names.retain(|name| !leftovers.iter().any(|leftover| leftover == name));
    }
    names
}

/// Removes a directory with everything in it. Does not enter other file systems: they make it fail.
pub(crate) fn remove_tree(directory: BorrowedFd<'_>, name: &[u8], tally: &Tally) -> rustix::io::Result<()> {
    let device = Stat::new(&rustix::fs::fstat(directory)?).device;
    let stat = Stat::new(&statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?);
    if stat.kind != FileKind::Directory {
        unlinkat(directory, name, AtFlags::empty())?;
    } else {
        if stat.device != device {
            return Err(Errno::XDEV);
        }
        let fd = open_in(directory, name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        let names = read_names(&fd, None, &mut Vec::new())?;
        for n in 0..names.len() {
            remove_tree(fd.as_fd(), names.get(n), tally)?;
        }
        unlinkat(directory, name, AtFlags::REMOVEDIR)?;
    }
    count(&tally.removed);
    Ok(())
}

/// Something in the destination that the recovery point does not have.
pub(crate) struct Extra<'a> {
    pub directory: BorrowedFd<'a>,
    pub path: Vec<u8>,
    pub name: &'a [u8],
    /// The source's rules exclude it, so the recovery point does not say that it should not be there.
    pub protected: bool,
}

/// Calls `visit` for what lies in the directories that are meant as a whole and is not in the listing.
pub(crate) fn for_extras(
    vault: &dyn Vault,
    sought: &Sought<'_>,
    tree: &Tree,
    visit: &mut dyn FnMut(Extra<'_>) -> Result<()>,
) -> Result<()> {
    let rules = Rules::from_patterns(&sought.facts.exclude, &sought.facts.include)?;
    let mut current: Option<(Vec<u8>, Vec<Vec<u8>>)> = None;
    let mut compare = |current: Option<(Vec<u8>, Vec<Vec<u8>>)>| -> Result<()> {
        let Some((path, recorded)) = current else { return Ok(()) };
        if !sought.filter.covers(&path) {
            return Ok(());
        }
        let Ok(fd) = tree.directory(&path, OFlags::empty()) else { return Ok(()) };
        let names = read_names(&fd, None, &mut Vec::new()).map_err(|error| FilesError::Io {
            action: "reading the directory",
            path: show_path(&path),
            error: error.into(),
        })?;
        for n in 0..names.len() {
            let name = names.get(n);
            let of_ours = path.is_empty() && name == MARK.as_bytes();
            if !of_ours && recorded.binary_search_by(|probe| probe[..].cmp(name)).is_err() {
                let path = listing::join(&path, name);
                let label = label_of(&sought.facts, &path);
                let protected = is_protected(&rules, label, &path, fd.as_fd(), name);
                visit(Extra { directory: fd.as_fd(), path, name, protected })?;
            }
        }
        Ok(())
    };
    for step in sought.steps(vault) {
        match step? {
            Step::Directory(path) => {
                if current.as_ref().is_none_or(|(current, _)| *current != path) {
                    compare(current.take())?;
                    current = Some((path, Vec::new()));
                }
            }
            Step::Entry(entry) => {
                if let Some((_, names)) = &mut current {
                    names.push(entry.name);
                }
            }
            // Unknown what was listed there: nothing is taken for an extra any more.
            Step::Lost(failure) => return Err(failure),
        }
    }
    compare(current)
}

/// The label of the root in which a path of the listing lies; empty where it is the listing's root.
fn label_of<'f>(facts: &'f Facts, path: &[u8]) -> &'f [u8] {
    let labels = facts.roots.iter().filter_map(|root| root.label.as_ref()).map(String::as_bytes);
    labels.into_iter().find(|label| is_within(path, label)).unwrap_or_default()
}

/// Whether the source's rules keep a path of the listing out of it. `label`: the root's name in the listing.
pub(crate) fn is_protected(
    rules: &Rules,
    label: &[u8],
    path: &[u8],
    directory: BorrowedFd<'_>,
    name: &[u8],
) -> bool {
    if rules.is_empty() {
        return false;
    }
    let below = path.strip_prefix(label).map_or(path, |below| below.strip_prefix(b"/").unwrap_or(below));
    let below = Path::new(OsStr::from_bytes(below));
    let is_directory = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| Stat::new(&stat).kind == FileKind::Directory);
    // Of a directory it is not known whether the rules exclude something in it; asking for each would enter it.
    let excluded = below
        .ancestors()
        .enumerate()
        .any(|(up, path)| !path.as_os_str().is_empty() && rules.excluded(path, up > 0 || is_directory));
    let included = below.ancestors().enumerate().any(|(up, path)| {
        !path.as_os_str().is_empty() && rules.included(path, up > 0 || is_directory, false)
    });
    excluded || !included
}

/// The last step of a restore with `delete`.
pub(crate) fn remove_extras(
    vault: &dyn Vault,
    sought: &Sought<'_>,
    tree: &Tree,
    keep: &[String],
    tally: &Tally,
    problems: &Problems,
) -> Result<()> {
    for_extras(vault, sought, tree, &mut |extra| {
        if keep.iter().any(|kept| kept.as_bytes() == extra.path) {
            return Ok(());
        }
        if extra.protected {
            count(&tally.protected);
            return Ok(());
        }
        // The directory has its recorded time already, and is to keep it.
        let stat = rustix::fs::fstat(extra.directory).map(|stat| Stat::new(&stat));
        let removed = remove_tree(extra.directory, extra.name, tally)
            .and_then(|()| futimens(extra.directory, &times(stat?.modified)));
        if let Err(error) = removed {
            let message = format!("it cannot be removed: {error}");
            problems.add(Severity::Error, show_path(&extra.path), message);
        }
        Ok(())
    })
}
