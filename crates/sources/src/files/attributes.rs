//! Extended attributes: read when a file is captured, set when it is restored. POSIX ACLs are two of them.

use mainstay_domain::listing::Xattr;
use rustix::{
    fd::{AsFd, AsRawFd},
    fs::{XattrFlags, fgetxattr, flistxattr, fremovexattr, fsetxattr, lgetxattr, llistxattr, lsetxattr},
    io::{Errno, Result},
};
use std::ffi::CString;

/// Kept between files, so that a file without attributes costs one call and no memory.
#[derive(Debug)]
pub(crate) struct Reader {
    names: Vec<u8>,
    value: Vec<u8>,
}

impl Default for Reader {
    fn default() -> Self {
        Reader { names: vec![0; 1024], value: vec![0; 4096] }
    }
}

impl Reader {
    /// Of an open file, in byte order of their names; `None` if it has none or its file system knows none.
    pub fn of_file(&mut self, fd: impl AsFd) -> Result<Option<Vec<Xattr>>> {
        let fd = fd.as_fd();
        self.read(|names| flistxattr(fd, names), |name, value| fgetxattr(fd, name, value))
    }

    /// Of a name in an open directory, links not followed. Goes through `/proc`, because there is no such call relative
    /// to a descriptor before Linux 6.13.
    pub fn of_name(&mut self, directory: impl AsFd, name: &[u8]) -> Result<Option<Vec<Xattr>>> {
        let path = proc_path(directory, name);
        self.read(|names| llistxattr(&path[..], names), |name, value| lgetxattr(&path[..], name, value))
    }

    fn read(
        &mut self,
        list: impl Fn(&mut [u8]) -> Result<usize>,
        get: impl Fn(&[u8], &mut [u8]) -> Result<usize>,
    ) -> Result<Option<Vec<Xattr>>> {
        let length = loop {
            match list(&mut self.names) {
                Ok(0) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(None),
                Ok(length) => break length,
                Err(Errno::RANGE) => grow(&mut self.names)?,
                Err(error) => return Err(error),
            }
        };
        let mut xattrs = Vec::new();
        for name in self.names[..length].split(|b| *b == 0).filter(|name| !name.is_empty()) {
            loop {
                match get(name, &mut self.value) {
                    Ok(length) => {
                        xattrs.push(Xattr { name: name.to_vec(), value: self.value[..length].to_vec() });
                        break;
                    }
                    // Removed since it was listed, or not for us to see.
                    Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM) => break,
                    Err(Errno::RANGE) => grow(&mut self.value)?,
                    Err(error) => return Err(error),
                }
            }
        }
        xattrs.sort_by(|a, b| a.name.cmp(&b.name));
        Ok((!xattrs.is_empty()).then_some(xattrs))
    }
}

/// The kernel allows 64 KiB for a list and for a value (`xattr(7)`).
fn grow(buffer: &mut Vec<u8>) -> Result<()> {
    if buffer.len() > 1 << 20 {
        return Err(Errno::RANGE);
    }
    buffer.resize(buffer.len() * 4, 0);
    Ok(())
}

fn proc_path(directory: impl AsFd, name: &[u8]) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}/", directory.as_fd().as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    path
}

pub(crate) fn set_on_file(fd: impl AsFd, xattr: &Xattr) -> Result<()> {
    fsetxattr(fd, c_name(xattr)?, &xattr.value, XattrFlags::empty())
}

pub(crate) fn set_on_name(directory: impl AsFd, name: &[u8], xattr: &Xattr) -> Result<()> {
    lsetxattr(proc_path(directory, name), c_name(xattr)?, &xattr.value, XattrFlags::empty())
}

/// Removes the attributes that users and ACLs set and that are not in `keep`. Those of the system (security labels) stay.
pub(crate) fn remove_others(fd: impl AsFd, keep: &[Xattr]) -> Result<()> {
    let fd = fd.as_fd();
    for xattr in Reader::default().of_file(fd)?.into_iter().flatten() {
        let ours = xattr.name.starts_with(b"user.") || xattr.name.starts_with(b"system.posix_acl_");
        if ours && !keep.iter().any(|kept| kept.name == xattr.name) {
            fremovexattr(fd, c_name(&xattr)?)?;
        }
    }
    Ok(())
}

fn c_name(xattr: &Xattr) -> Result<CString> {
    CString::new(xattr.name.clone()).map_err(|_| Errno::INVAL)
}
