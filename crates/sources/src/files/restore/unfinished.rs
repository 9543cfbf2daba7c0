//! A mark in the destination from the first file until all of them are on the disk.
//!
//! Waiting for the disk after each new file would take most of a restore's time, so it is waited once, at the end. A machine that
//! loses its power before then may keep a file's size and time, and not its content; the next restore into the same folder would
//! take it for right. So where the mark lies, content is compared.

use super::metadata::times;
use crate::files::stat::Stat;
use rustix::{
    fd::{AsFd, BorrowedFd},
    fs::{AtFlags, Mode, OFlags, fstat, fsync, futimens, openat, unlinkat},
    io::{Errno, Result},
};

pub(crate) const MARK: &str = ".mainstay-restore-unfinished";

/// Sets the mark. Whether an earlier restore had left it.
pub(crate) fn begin(root: BorrowedFd<'_>) -> Result<bool> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(root, MARK, flags, Mode::RUSR | Mode::WUSR) {
        Ok(mark) => {
            fsync(mark.as_fd())?;
            fsync(root)?;
            Ok(false)
        }
        Err(Errno::EXIST) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Takes the mark away; the folder keeps its time.
pub(crate) fn end(root: BorrowedFd<'_>) -> Result<()> {
    let modified = Stat::new(&fstat(root)?).modified;
    match unlinkat(root, MARK, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => futimens(root, &times(modified)),
        Err(error) => Err(error),
    }
}
