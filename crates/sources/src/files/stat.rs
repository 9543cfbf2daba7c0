//! What `stat` says of a file, reduced to what is recorded and compared.

use mainstay_domain::{
    Time,
    listing::{Doubt, Entry, FileKind, FileTime},
    time::SECOND,
};

/// A file whose times are younger than this when it is looked at may change again without a trace in its metadata:
/// time stamps have the kernel's tick, and some file systems whole seconds.
const FRESH_NANOSECONDS: i128 = 2 * SECOND as i128;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pub kind: FileKind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    /// Bytes that lie on disk.
    pub allocated: u64,
    pub modified: FileTime,
    pub changed: FileTime,
    pub inode: u64,
    pub device: u64,
    pub links: u64,
    pub node: u64,
}

impl Stat {
    pub fn new(raw: &rustix::fs::Stat) -> Stat {
        use rustix::fs::FileType;
        // The types of the fields differ between architectures.
        #[allow(clippy::unnecessary_cast)]
        Stat {
            kind: match FileType::from_raw_mode(raw.st_mode) {
                FileType::Directory => FileKind::Directory,
                FileType::Symlink => FileKind::Symlink,
                FileType::Fifo => FileKind::Fifo,
                FileType::CharacterDevice => FileKind::CharDevice,
                FileType::BlockDevice => FileKind::BlockDevice,
                FileType::Socket => FileKind::Socket,
                FileType::RegularFile | FileType::Unknown => FileKind::Regular,
            },
            mode: raw.st_mode & 0o7777,
            uid: raw.st_uid,
            gid: raw.st_gid,
            size: raw.st_size as u64,
            allocated: (raw.st_blocks as u64).saturating_mul(512),
            modified: FileTime { seconds: raw.st_mtime as i64, nanoseconds: raw.st_mtime_nsec as u32 },
            changed: FileTime { seconds: raw.st_ctime as i64, nanoseconds: raw.st_ctime_nsec as u32 },
            inode: raw.st_ino as u64,
            device: raw.st_dev as u64,
            links: raw.st_nlink as u64,
            node: raw.st_rdev as u64,
        }
    }

    /// Whether a reading between two looks saw one state: nothing that a write would leave behind differs.
    pub fn same_state(&self, later: &Stat) -> bool {
        (self.kind, self.size, self.modified, self.changed, self.inode)
            == (later.kind, later.size, later.modified, later.changed, later.inode)
    }

    /// Whether a change after `now` could leave the same metadata.
    pub fn fresh(&self, now: Time) -> bool {
        let newest = self.modified.max(self.changed);
        let age = i128::from(now.0) - nanoseconds(newest);
        age < FRESH_NANOSECONDS
    }

    pub fn is_device(&self) -> bool {
        matches!(self.kind, FileKind::CharDevice | FileKind::BlockDevice)
    }

    /// Symbolic links have no mode, and directories no size that would mean anything elsewhere.
    pub fn entry(&self, name: &[u8], now: Time) -> Entry {
        let directory = self.kind == FileKind::Directory;
        Entry {
            name: name.to_vec(),
            kind: self.kind,
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            size: if directory { 0 } else { self.size },
            modified: self.modified,
            changed: self.changed,
            inode: self.inode,
            device: self.device,
            links: (self.links > 1 && !directory).then_some(self.links),
            device_node: self.is_device().then_some(self.node),
            target: None,
            xattrs: None,
            content: None,
            doubt: None,
            fresh: self.fresh(now).then_some(true),
            deleted: None,
            pages: None,
        }
    }
}

pub(crate) fn nanoseconds(time: FileTime) -> i128 {
    i128::from(time.seconds) * i128::from(SECOND) + i128::from(time.nanoseconds)
}

/// An entry that stands for something that could not be read.
pub(crate) fn unreadable(stat: &Stat, name: &[u8], now: Time) -> Entry {
    Entry { doubt: Some(Doubt::Unreadable), ..stat.entry(name, now) }
}

/// `st_rdev` as text, for messages: `8:1`.
pub(crate) fn device_numbers(node: u64) -> String {
    format!("{}:{}", rustix::fs::major(node), rustix::fs::minor(node))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(modified: i64, changed: i64) -> Stat {
        let time = |seconds| FileTime { seconds, nanoseconds: 0 };
        Stat {
            kind: FileKind::Regular,
            mode: 0o644,
            uid: 0,
            gid: 0,
            size: 1,
            allocated: 4096,
            modified: time(modified),
            changed: time(changed),
            inode: 1,
            device: 1,
            links: 1,
            node: 0,
        }
    }

    #[test]
    fn metadata_younger_than_two_seconds_or_from_the_future_proves_nothing() {
        let now = Time(1000 * SECOND);
        for (modified, changed, fresh) in
            [(998, 998, false), (999, 999, true), (10, 999, true), (999, 10, true), (5000, 10, true)]
        {
            assert_eq!(stat(modified, changed).fresh(now), fresh, "{modified} {changed}");
        }
        assert!(!stat(i64::MIN, i64::MIN).fresh(now));
        assert!(stat(i64::MAX, 0).fresh(now));
    }
}
