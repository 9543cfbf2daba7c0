//! Where a data directory has its tablespaces: what it says of that itself, and how a restore says it.
//!
//! Two things tell it. The links in `pg_tblspc` are what a server goes by; `tablespace_map` is what it makes them from when its recovery
//! begins, whatever is there. Both stay there, or are made, so early that a restore that broke off finds them when it is repeated:
//! else the tablespaces would go elsewhere, and what lies where they were would be nobody's.

use super::{super::TABLESPACE_MAP, Plan};
use mainstay_domain::{Failure, Result};
use std::{
    ffi::OsStr,
    fmt::Write as _,
    fs, io,
    os::unix::{ffi::OsStrExt, fs::symlink},
    path::{Path, PathBuf},
};

/// Where the cluster in a directory has a tablespace.
pub(super) fn found(data: &Path, oid: u32) -> Option<PathBuf> {
    // A map is there only until a server has gone by it: it is the newer one.
    let mapped = fs::read(data.join(TABLESPACE_MAP)).ok().and_then(|map| mapped(&map, oid));
    mapped.or_else(|| fs::read_link(data.join(link(oid))).ok())
}

/// Its link, by its path from the data directory.
pub(super) fn link(oid: u32) -> String {
    format!("pg_tblspc/{oid}")
}

/// Makes the links of all tablespaces. One that is right already is left.
pub(super) fn make_links(plan: &Plan, data: &Path) -> Result<()> {
    for (oid, _, place) in &plan.tablespaces {
        let link = data.join(link(*oid));
        if fs::read_link(&link).is_ok_and(|there| there == *place) {
            continue;
        }
        let made = match fs::remove_file(&link) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => symlink(place, &link),
        };
        made.map_err(|error| Failure::failed(format!("{} cannot be made", link.display())).caused_by(error))?;
    }
    Ok(())
}

/// The map that a server reads when its recovery begins (`read_tablespace_map` in `xlogrecovery.c`).
pub(super) fn map(plan: &Plan) -> String {
    plan.tablespaces.iter().fold(String::new(), |mut map, (oid, _, path)| {
        let shown = path.display().to_string();
        let escaped = shown.replace('\\', "\\\\").replace('\n', "\\\n").replace('\r', "\\\r");
        let _ = writeln!(map, "{oid} {escaped}");
        map
    })
}

/// The place that a map gives a tablespace.
fn mapped(map: &[u8], oid: u32) -> Option<PathBuf> {
    let (mut line, mut lines, mut bytes) = (Vec::new(), Vec::new(), map.iter());
    while let Some(byte) = bytes.next() {
        match byte {
            // What follows belongs to the path, an end of line, too.
            b'\\' => line.extend(bytes.next()),
            b'\n' => lines.push(std::mem::take(&mut line)),
            byte => line.push(*byte),
        }
    }
    let own = format!("{oid} ");
    let place = lines.iter().find_map(|line| line.strip_prefix(own.as_bytes()))?;
    Some(PathBuf::from(OsStr::from_bytes(place)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_read_as_it_was_written_and_wins_over_a_link() {
        let map = b"16400 /plain place\n16401 /with\\\\back\\\nand more\n";
        assert_eq!(mapped(map, 16400), Some("/plain place".into()));
        assert_eq!(mapped(map, 16401), Some("/with\\back\nand more".into()));
        assert_eq!(mapped(map, 1640), None);
        assert_eq!(mapped(b"16400", 16400), None, "a line that is not whole");

        let data = tempfile::tempdir().unwrap();
        fs::create_dir(data.path().join("pg_tblspc")).unwrap();
        assert_eq!(found(data.path(), 16400), None);
        symlink("/linked", data.path().join(link(16400))).unwrap();
        assert_eq!(found(data.path(), 16400), Some("/linked".into()));
        fs::write(data.path().join(TABLESPACE_MAP), map).unwrap();
        assert_eq!(found(data.path(), 16400), Some("/plain place".into()));
    }
}
