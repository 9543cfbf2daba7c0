//! Which files of a data directory a base backup leaves out, and which of the rest are relations.
//!
//! Source: PostgreSQL's manual, "Low-Level Base Backup API", and `src/backend/backup/basebackup.c` for the lists.

use std::collections::HashSet;

/// Directories that are kept, empty: what is in them belongs to a running server.
const EMPTIED: [&[u8]; 8] = [
    b"pg_replslot",
    b"pg_dynshmem",
    b"pg_notify",
    b"pg_serial",
    b"pg_snapshots",
    b"pg_subtrans",
    b"pg_stat_tmp",
    b"pg_wal",
];

/// Files at the top of the data directory that belong to the running server, or that a restore makes itself.
const LEFT_OUT: [&[u8]; 11] = [
    b"postmaster.pid",
    b"postmaster.opts",
    b"backup_label",
    b"backup_label.old",
    b"tablespace_map",
    b"tablespace_map.old",
    b"backup_manifest",
    b"recovery.signal",
    b"standby.signal",
    b"postgresql.auto.conf.tmp",
    b"current_logfiles.tmp",
];

/// Captured by itself, last of all.
pub const CONTROL: &str = "global/pg_control";

/// The directory of a tablespace that belongs to one cluster's version; those of others may stand beside it (pg_upgrade).
pub fn version_directory(major: u32, catalog: u32) -> String {
    format!("PG_{major}_{catalog}")
}

/// Whether a directory (by its path in the data directory) is captured without what is in it.
pub fn is_emptied(directory: &[u8]) -> bool {
    EMPTIED.contains(&directory)
}

/// What a directory holds besides plain files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Relations of one database, or those shared by all.
    Relations,
    Other,
}

/// `inside_tablespace`: the path is relative to a tablespace's directory, not to the data directory.
pub fn place_of(directory: &[u8], inside_tablespace: bool) -> Place {
    let parts: Vec<&[u8]> = directory.split(|b| *b == b'/').collect();
    let is_oid = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_digit);
    match (inside_tablespace, parts.as_slice()) {
        (false, [b"global"]) => Place::Relations,
        (false, [b"base", database]) if is_oid(database) => Place::Relations,
        (true, [version, database]) if version.starts_with(b"PG_") && is_oid(database) => Place::Relations,
        // A tablespace that lies in the data directory itself.
        (false, [b"pg_tblspc", _, version, database]) if version.starts_with(b"PG_") && is_oid(database) => {
            Place::Relations
        }
        _ => Place::Other,
    }
}

/// Whether a name is left out wherever it stands.
pub fn is_left_out(directory: &[u8], name: &[u8], inside_tablespace: bool) -> bool {
    let top = directory.is_empty() && !inside_tablespace;
    name.starts_with(b"pgsql_tmp")
        || name.starts_with(b"pg_internal.init")
        || top && LEFT_OUT.contains(&name)
        || !inside_tablespace && directory == b"global" && name == b"pg_control"
}

/// A relation file's name: `[t<backend>_]<filenode>[_<fork>][.<segment>]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelationFile {
    pub filenode: u32,
    pub temporary: bool,
    pub fork: Fork,
    /// 0 for the first gigabyte.
    pub segment: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fork {
    Main,
    FreeSpace,
    Visibility,
    Init,
}

impl RelationFile {
    pub fn parse(name: &[u8]) -> Option<RelationFile> {
        let text = std::str::from_utf8(name).ok()?;
        let number = |digits: &str| {
            (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
                .then(|| digits.parse().ok())
                .flatten()
        };
        let (stem, segment) = match text.split_once('.') {
            Some((stem, segment)) => (stem, number(segment)?),
            None => (text, 0),
        };
        let (stem, temporary) = match stem.strip_prefix('t').and_then(|rest| rest.split_once('_')) {
            Some((backend, rest)) => (number(backend).map(|_| rest)?, true),
            None => (stem, false),
        };
        let (filenode, fork) = match stem.split_once('_') {
            None => (stem, Fork::Main),
            Some((filenode, "fsm")) => (filenode, Fork::FreeSpace),
            Some((filenode, "vm")) => (filenode, Fork::Visibility),
            Some((filenode, "init")) => (filenode, Fork::Init),
            Some(_) => return None,
        };
        Some(RelationFile { filenode: number(filenode)?, temporary, fork, segment })
    }
}

/// The relations of a directory that are unlogged: only their init forks are captured, and recovery makes the rest of them.
pub fn unlogged<'n>(names: impl Iterator<Item = &'n [u8]>) -> HashSet<u32> {
    names
        .filter_map(RelationFile::parse)
        .filter(|file| file.fork == Fork::Init)
        .map(|file| file.filenode)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_relation_files_are_taken_apart() {
        let parse = |name: &str| RelationFile::parse(name.as_bytes());
        let plain = RelationFile { filenode: 16384, temporary: false, fork: Fork::Main, segment: 0 };
        assert_eq!(parse("16384"), Some(plain));
        assert_eq!(parse("16384.3"), Some(RelationFile { segment: 3, ..plain }));
        assert_eq!(parse("16384_vm.1"), Some(RelationFile { fork: Fork::Visibility, segment: 1, ..plain }));
        assert_eq!(parse("t3_16384"), Some(RelationFile { temporary: true, ..plain }));
        for other in ["pg_filenode.map", "PG_VERSION", "16384_old", "16384.", "", ".5", "1x"] {
            assert_eq!(parse(other), None, "{other}");
        }
        let names = [&b"5"[..], b"5_init", b"6", b"7_fsm"];
        assert_eq!(unlogged(names.into_iter()), HashSet::from([5]));
    }

    #[test]
    fn what_belongs_to_the_running_server_is_left_out() {
        assert!(is_left_out(b"", b"postmaster.pid", false));
        assert!(!is_left_out(b"base/1", b"postmaster.pid", false), "only at the top");
        assert!(is_left_out(b"base/1", b"pg_internal.init.77", false));
        assert!(is_left_out(b"base", b"pgsql_tmp", false));
        assert!(is_left_out(b"global", b"pg_control", false), "it comes last");
        assert!(is_emptied(b"pg_wal") && !is_emptied(b"pg_xact"));
        assert_eq!(place_of(b"base/16384", false), Place::Relations);
        assert_eq!(place_of(b"PG_15_202209061/5", true), Place::Relations);
        assert_eq!(place_of(b"pg_xact", false), Place::Other);
    }
}
