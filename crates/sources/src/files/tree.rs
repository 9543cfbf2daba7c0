//! A directory tree that is entered only from its root, never through a symbolic link and never upwards.
//!
//! Every directory is opened anew from the root's descriptor with `openat2(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)`, so no
//! descriptor is held for a directory that is not being worked in, and neither a link planted in the tree nor a hostile
//! name leads outside. Kernels before 5.6 (and sandboxes that forbid the call) get a walk of `O_NOFOLLOW` descriptors.

use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2},
    io::{Errno, Result},
};
use std::path::Path;

/// What every open of ours carries.
const BASE: OFlags = OFlags::CLOEXEC.union(OFlags::NOFOLLOW).union(OFlags::NOCTTY);
const BENEATH: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// Longer paths are opened in steps: the kernel takes at most 4,096 bytes at once.
const STEP: usize = 4000;

#[derive(Debug)]
pub(crate) struct Tree {
    root: OwnedFd,
    openat2: bool,
}

impl Tree {
    /// `path` itself may lead through links: it is what the user named.
    pub fn open(path: &Path) -> Result<Tree> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Tree::from_fd(openat(CWD, path, flags, Mode::empty())?))
    }

    pub fn from_fd(root: OwnedFd) -> Tree {
        let probe = openat2(&root, ".", BASE | OFlags::PATH | OFlags::DIRECTORY, Mode::empty(), BENEATH);
        Tree { openat2: probe.is_ok(), root }
    }

    pub fn root(&self) -> &OwnedFd {
        &self.root
    }

    /// Opens the directory at `path` (components joined by `/`, empty for the root). `flags`: `NOATIME` and the like.
    pub fn directory(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
        let flags = flags | OFlags::RDONLY | OFlags::DIRECTORY;
        if path.is_empty() {
            return open_in(&self.root, b".", flags, Mode::empty());
        }
        if self.openat2 && path.len() <= STEP {
            return openat2(&self.root, path, BASE | flags, Mode::empty(), BENEATH);
        }
        self.in_steps(path, flags)
    }

    fn in_steps(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
        let passing = OFlags::PATH | OFlags::DIRECTORY;
        let mut at: Option<OwnedFd> = None;
        let mut rest = path;
        loop {
            let from = at.as_ref().unwrap_or(&self.root).as_fd();
            let (step, after) = next_step(rest, if self.openat2 { STEP } else { 0 });
            let flags = if after.is_empty() { flags } else { passing };
            let next = if self.openat2 {
                openat2(from, step, BASE | flags, Mode::empty(), BENEATH)?
            } else {
                open_in(from, step, flags, Mode::empty())?
            };
            if after.is_empty() {
                return Ok(next);
            }
            (at, rest) = (Some(next), after);
        }
    }
}

/// The longest beginning of `path` of at most `limit` bytes that ends before a `/` (at least one component), and what
/// comes after that `/`.
fn next_step(path: &[u8], limit: usize) -> (&[u8], &[u8]) {
    if path.len() <= limit {
        return (path, b"");
    }
    let within = path[..limit].iter().rposition(|b| *b == b'/');
    match within.or_else(|| path.iter().position(|b| *b == b'/')) {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (path, b""),
    }
}

/// Opens one name in a directory, not following a link. A name with a `/` in it is refused.
pub(crate) fn open_in(directory: impl AsFd, name: &[u8], flags: OFlags, mode: Mode) -> Result<OwnedFd> {
    if name.contains(&b'/') || name == b".." {
        return Err(Errno::INVAL);
    }
    openat(directory, name, BASE | flags, mode)
}

/// Whether `name` may stand in a listing: one component that means nothing else.
pub(crate) fn is_plain_name(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..") && !name.contains(&b'/') && !name.contains(&0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn long_paths_are_taken_in_steps_at_component_ends() {
        assert_eq!(next_step(b"aa/bb/cc", 6), (&b"aa/bb"[..], &b"cc"[..]));
        assert_eq!(next_step(b"aa/bb/cc", 0), (&b"aa"[..], &b"bb/cc"[..]));
        assert_eq!(next_step(b"aaaaaaaa/b", 4), (&b"aaaaaaaa"[..], &b"b"[..]));
        assert_eq!(next_step(b"aa", 6), (&b"aa"[..], &b""[..]));
    }

    #[test]
    fn no_link_is_followed_at_any_place_with_or_without_openat2() {
        let scratch = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(scratch.path().join("inside/deep")).unwrap();
        std::fs::create_dir_all(scratch.path().join("outside/deep")).unwrap();
        symlink("../outside", scratch.path().join("inside/link")).unwrap();
        let mut tree = Tree::open(&scratch.path().join("inside")).unwrap();
        for openat2 in [tree.openat2, false] {
            tree.openat2 = openat2;
            assert!(tree.directory(b"deep", OFlags::empty()).is_ok());
            for path in [&b"link"[..], b"link/deep"] {
                let error = tree.directory(path, OFlags::empty()).unwrap_err();
                assert!(matches!(error, Errno::LOOP | Errno::NOTDIR), "{error}");
            }
            for path in [&b".."[..], b"../outside", b"deep/../../outside", b"/etc"] {
                assert!(tree.directory(path, OFlags::empty()).is_err());
            }
        }
    }

    #[test]
    fn a_directory_deeper_than_any_path_is_reached() {
        let scratch = tempfile::tempdir().unwrap();
        let mut tree = Tree::open(scratch.path()).unwrap();
        let name = "d".repeat(200);
        let mut path = Vec::new();
        let mut at = tree.directory(b"", OFlags::empty()).unwrap();
        for depth in 0..50 {
            rustix::fs::mkdirat(&at, &name[..], Mode::RWXU).unwrap();
            at = open_in(&at, name.as_bytes(), OFlags::DIRECTORY, Mode::empty()).unwrap();
            if depth > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(name.as_bytes());
        }
        for openat2 in [tree.openat2, false] {
            tree.openat2 = openat2;
            assert!(tree.directory(&path, OFlags::empty()).is_ok());
        }
    }
}
