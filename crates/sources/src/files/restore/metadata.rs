//! Owner, attributes, mode and times of what was restored, in the order in which they do not undo each other: a change of
//! owner clears set-id bits and capabilities, an ACL changes the mode, and everything changes the times.

use super::{Tally, count};
use crate::files::attributes;
use mainstay_domain::listing::{Entry, FileKind, FileTime};
use rustix::{
    fd::{AsFd, BorrowedFd},
    fs::{
        AtFlags, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid, chmodat, chownat, fchmod, fchown,
        futimens, utimensat,
    },
    io::{Errno, Result},
};

const SET_ID: u32 = 0o6000;

/// Applies what is recorded to an open file or directory. `new`: it has no attributes but ours. Otherwise those that are
/// not recorded are removed: a file made in a directory with a default ACL inherits one.
pub(crate) fn apply_to_file(fd: impl AsFd, entry: &Entry, new: bool, tally: &Tally) -> Result<()> {
    let fd = fd.as_fd();
    if !new {
        attributes::remove_others(fd, entry.xattrs.as_deref().unwrap_or_default())?;
    }
    let owned = owner(fchown(fd, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid))), tally)?;
    for xattr in entry.xattrs.iter().flatten() {
        attribute(attributes::set_on_file(fd, xattr), tally)?;
    }
    fchmod(fd, mode(entry, owned, tally))?;
    futimens(fd, &times(entry.modified))
}

/// Applies what is recorded to a name that is not opened: a link, a FIFO, a device.
pub(crate) fn apply_to_name(
    directory: BorrowedFd<'_>,
    name: &[u8],
    entry: &Entry,
    tally: &Tally,
) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    let changed = chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW);
    let owned = owner(changed, tally)?;
    for xattr in entry.xattrs.iter().flatten() {
        attribute(attributes::set_on_name(directory, name, xattr), tally)?;
    }
    if entry.kind != FileKind::Symlink {
        // There is no chmod that spares links before Linux 6.6. The name was made by us a moment ago, and a link put in
        // its place must not lead us: look first, through a descriptor that cannot be moved.
        let fd = crate::files::tree::open_in(directory, name, rustix::fs::OFlags::PATH, Mode::empty())?;
        let proc = format!("/proc/self/fd/{}", rustix::fd::AsRawFd::as_raw_fd(&fd));
        chmodat(rustix::fs::CWD, proc, mode(entry, owned, tally), AtFlags::empty())?;
    }
    utimensat(directory, name, &times(entry.modified), AtFlags::SYMLINK_NOFOLLOW)
}

/// Whether owner and group are as recorded. Without privileges they may not be, which is counted, not an error.
fn owner(changed: Result<()>, tally: &Tally) -> Result<bool> {
    match changed {
        Ok(()) => Ok(true),
        Err(Errno::PERM | Errno::INVAL) => {
            count(&tally.owners);
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// A set-user-id program must not become another user's.
fn mode(entry: &Entry, owned: bool, tally: &Tally) -> Mode {
    let set_id = entry.kind != FileKind::Directory && entry.mode & SET_ID != 0;
    if set_id && !owned {
        count(&tally.set_id);
        return Mode::from_raw_mode(entry.mode & 0o1777);
    }
    Mode::from_raw_mode(entry.mode & 0o7777)
}

fn attribute(set: Result<()>, tally: &Tally) -> Result<()> {
    match set {
        Err(Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS | Errno::INVAL | Errno::RANGE | Errno::TOOBIG) => {
            count(&tally.xattrs);
            Ok(())
        }
        set => set,
    }
}

pub(crate) fn times(modified: FileTime) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec {
            tv_sec: modified.seconds,
            tv_nsec: modified.nanoseconds.min(999_999_999) as _,
        },
    }
}
