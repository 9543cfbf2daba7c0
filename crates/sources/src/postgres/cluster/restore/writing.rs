//! Single files of a restored cluster: each stands there whole or not at all, and belongs to whom the directory does.

use mainstay_domain::{
    Failure, Result,
    stream::{Content, Vault},
};
use std::{
    fs, io,
    os::unix::fs::{MetadataExt, OpenOptionsExt, chown},
    path::{Path, PathBuf},
};

/// Writes single files, for the owner of the data directory.
pub(super) struct Writing<'a> {
    pub vault: &'a dyn Vault,
    pub uid: u32,
    pub gid: u32,
    pub sync: bool,
}

impl Writing<'_> {
    pub fn stream(&self, content: &Content, path: &Path) -> Result<()> {
        self.write(path, &mut |out| self.vault.copy(content, out).map(drop))
    }

    pub fn bytes(&self, bytes: &[u8], path: &Path) -> Result<()> {
        self.write(path, &mut |out| {
            out.write_all(bytes)
                .map_err(|error| Failure::failed("the file could not be written").caused_by(error))
        })
    }

    /// Under a temporary name first: a file stands there whole or not at all.
    pub fn write(&self, path: &Path, fill: &mut dyn FnMut(&mut dyn io::Write) -> Result<()>) -> Result<()> {
        let failed = |error: io::Error| {
            Failure::failed(format!("{} cannot be written", path.display())).caused_by(error)
        };
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".mainstay-new");
        let temporary = PathBuf::from(temporary);
        let mut options = fs::OpenOptions::new();
        options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32);
        let mut file = options.open(&temporary).map_err(failed)?;
        fill(&mut file)?;
        if rustix::process::geteuid().is_root() {
            chown(&temporary, Some(self.uid), Some(self.gid)).map_err(failed)?;
        }
        if self.sync {
            file.sync_all().map_err(failed)?;
        }
        fs::rename(&temporary, path).map_err(failed)?;
        if self.sync {
            sync_directory_of(path).map_err(failed)?;
        }
        Ok(())
    }
}

/// Makes durable which names there are in the directory of this path.
pub(super) fn sync_directory_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => fs::File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// Gives a file to whom its directory belongs, where we may.
pub fn give_to_owner_of(directory: &Path, path: &Path) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    fs::metadata(directory).and_then(|owner| chown(path, Some(owner.uid()), Some(owner.gid()))).map_err(
        |error| Failure::failed(format!("{} cannot be given to its owner", path.display())).caused_by(error),
    )
}
