//! Files and folders of a listing.

use super::time;
use mainstay_domain::{
    ByteSize, Time,
    listing::{Entry, FileKind, FileTime},
};
use mainstay_sources::files::{Listed, show_path};
use serde_json::{Value, json};

/// `-rw-r--r--    0:0      1.50 KiB  2026-11-20 14:02  letters/one.pdf`, with the target of a link.
pub fn line(entry: &Entry, path: &str) -> String {
    let owner = format!("{}:{}", entry.uid, entry.gid);
    let target =
        entry.target.as_deref().map(|target| format!(" -> {}", show_path(target))).unwrap_or_default();
    let size = if entry.kind == FileKind::Regular { ByteSize(entry.size).to_string() } else { String::new() };
    let doubt = if entry.doubt.is_some() { "  (in doubt)" } else { "" };
    let time = moment(entry.modified).map(time::local_short).unwrap_or_default();
    format!("{}  {owner:<11} {size:>10}  {time:<16}  {path}{target}{doubt}", mode(entry))
}

pub fn json(source: &str, listed: &Listed) -> Value {
    let entry = &listed.entry;
    json!({
        "source": source,
        "path": show_path(&listed.path),
        "kind": kind(entry.kind),
        "mode": entry.mode,
        "uid": entry.uid,
        "gid": entry.gid,
        "size": entry.size,
        "modified": moment(entry.modified),
        "target": entry.target.as_deref().map(show_path),
        "deleted": entry.deleted,
        "in_doubt": entry.doubt.is_some(),
    })
}

/// `None` for a time that is farther away than a [`Time`] reaches.
fn moment(time: FileTime) -> Option<Time> {
    time.seconds
        .checked_mul(mainstay_domain::time::SECOND)?
        .checked_add(i64::from(time.nanoseconds))
        .map(Time)
}

fn kind(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Regular => "file",
        FileKind::Directory => "directory",
        FileKind::Symlink => "symlink",
        FileKind::Fifo => "fifo",
        FileKind::CharDevice => "character device",
        FileKind::BlockDevice => "block device",
        FileKind::Socket => "socket",
    }
}

/// As `ls -l` writes it.
fn mode(entry: &Entry) -> String {
    let kind = match entry.kind {
        FileKind::Regular => '-',
        FileKind::Directory => 'd',
        FileKind::Symlink => 'l',
        FileKind::Fifo => 'p',
        FileKind::CharDevice => 'c',
        FileKind::BlockDevice => 'b',
        FileKind::Socket => 's',
    };
    let mut text = String::from(kind);
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = entry.mode >> shift;
        text.push(if bits & 4 == 0 { '-' } else { 'r' });
        text.push(if bits & 2 == 0 { '-' } else { 'w' });
        text.push(match (entry.mode & special != 0, bits & 1 != 0) {
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}
