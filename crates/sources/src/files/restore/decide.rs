//! What to do with a name, given what is recorded and what lies there: one pure function for the plan and for the work.

use crate::files::stat::Stat;
use mainstay_domain::listing::{Entry, FileKind};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Nothing is there.
    Create,
    /// It is right already, as far as size and time tell.
    Keep,
    /// Something else is there and gives way.
    Replace,
    /// A directory lies where something else is to be: it goes only if it is empty, or with everything in it if the user
    /// asked for deletion.
    DirectoryInTheWay,
}

pub(crate) fn decide(entry: &Entry, existing: Option<&Stat>) -> Decision {
    let Some(existing) = existing else { return Decision::Create };
    match (entry.kind, existing.kind) {
        (FileKind::Directory, FileKind::Directory) => Decision::Keep,
        (_, FileKind::Directory) => Decision::DirectoryInTheWay,
        (wanted, there) if wanted != there => Decision::Replace,
        (FileKind::Regular | FileKind::Symlink, _)
            if entry.size == existing.size && entry.modified == existing.modified =>
        {
            Decision::Keep
        }
        (FileKind::CharDevice | FileKind::BlockDevice, _) if entry.device_node == Some(existing.node) => {
            Decision::Keep
        }
        (FileKind::Fifo, _) => Decision::Keep,
        _ => Decision::Replace,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_domain::listing::FileTime;

    #[test]
    fn only_a_file_of_the_right_size_and_time_is_kept() {
        let time = |seconds| FileTime { seconds, nanoseconds: 1 };
        let there = |kind, size, seconds| Stat {
            kind,
            mode: 0,
            uid: 0,
            gid: 0,
            size,
            allocated: 0,
            modified: time(seconds),
            changed: time(0),
            inode: 1,
            device: 1,
            links: 1,
            node: 0,
        };
        let entry = there(FileKind::Regular, 10, 5).entry(b"x", mainstay_domain::Time(0));
        for (existing, expected) in [
            (None, Decision::Create),
            (Some(there(FileKind::Regular, 10, 5)), Decision::Keep),
            (Some(there(FileKind::Regular, 11, 5)), Decision::Replace),
            (Some(there(FileKind::Regular, 10, 6)), Decision::Replace),
            (Some(there(FileKind::Symlink, 10, 5)), Decision::Replace),
            (Some(there(FileKind::Directory, 10, 5)), Decision::DirectoryInTheWay),
        ] {
            assert_eq!(decide(&entry, existing.as_ref()), expected, "{existing:?}");
        }
        let directory = Entry { kind: FileKind::Directory, ..entry };
        assert_eq!(decide(&directory, Some(&there(FileKind::Symlink, 1, 1))), Decision::Replace);
    }
}
