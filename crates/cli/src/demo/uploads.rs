//! The company's folder of uploads: some hundreds of pictures, letters and odd names, the same every time.
//!
//! Beside what customers and practitioners upload it holds what backup tools like to lose: links, unusual names, an
//! extended attribute, an executable, private files, empty files and folders, a sparse file.

use super::images::{pdf, png};
use std::{
    fs::{self, File, FileTimes},
    io::{self, Write},
    os::unix::fs::{FileExt, PermissionsExt, symlink},
    path::Path,
    time::{Duration, SystemTime},
};

/// How many files and folders [`make`] leaves, and how many bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Made {
    pub files: u64,
    pub folders: u64,
    pub bytes: u64,
}

/// Fills `root`, which must be an empty folder.
pub fn make(root: &Path) -> io::Result<()> {
    let tree = Tree { root };
    for i in 1..=240u32 {
        tree.file(&format!("products/{}/{i}.png", i % 24), &png(24 + i % 60, i), 0o644)?;
    }
    for i in 1..=90u32 {
        let lines = (0..20 + i % 15)
            .map(|n| format!("Patient HC-{:08}  finding {n}: {}", i * 113 % 20000, n * i % 97));
        tree.file(
            &format!("letters/2026/{:02}/letter-{i:03}.pdf", 1 + i % 12),
            &pdf(&lines.collect::<Vec<_>>()),
            0o640,
        )?;
    }
    for i in 1..=60u32 {
        let line = format!("2026-{:02}-{:02} note {i}: called back, all is well\n", 1 + i % 12, 1 + i % 28);
        tree.file(
            &format!("notes/{}/note-{i}.txt", i % 5),
            line.repeat(1 + i as usize % 40).as_bytes(),
            0o644,
        )?;
    }
    tree.file(
        "config/.env",
        b"APP_ENV=production\nDATABASE_HOST=db.internal\nMAIL_FROM=desk@example.org\n",
        0o600,
    )?;
    tree.file(
        "config/app.json",
        b"{\n  \"locale\": \"nb-NO\",\n  \"features\": [\"letters\", \"shop\"]\n}\n",
        0o644,
    )?;
    tree.file(
        "bin/resize.sh",
        b"#!/bin/sh\n# Makes thumbnails.\nexec convert \"$1\" -resize 64x64 \"$2\"\n",
        0o755,
    )?;
    tree.file("odd/Ünïcödé – 写真 ✓.txt", "grüße, привет, 你好\n".as_bytes(), 0o644)?;
    tree.file("odd/two\nlines", b"a name may hold a line end\n", 0o644)?;
    tree.file("odd/ blank at both ends ", b"\n", 0o644)?;
    tree.file("odd/-rf", b"not an option\n", 0o644)?;
    tree.file("odd/empty", b"", 0o444)?;
    tree.sparse("odd/sparse.img", 8 << 20)?;
    fs::create_dir_all(root.join("incoming/empty"))?;
    symlink("../products/1/1.png", root.join("letters/logo.png"))?;
    symlink("nowhere", root.join("odd/dangling"))?;
    fs::hard_link(root.join("products/2/2.png"), root.join("products/2/cover.png"))?;
    // Not every file system has extended attributes; the demo compares whatever is there.
    drop(xattr::set(root.join("products/1/1.png"), "user.mainstay.origin", b"camera 7"));
    tree.age_folders()
}

/// Counts what is below `root`.
pub fn count(root: &Path) -> io::Result<Made> {
    let mut made = Made::default();
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            let below = count(&entry.path())?;
            made.folders += 1 + below.folders;
            made.files += below.files;
            made.bytes += below.bytes;
        } else {
            made.files += 1;
            made.bytes += entry.metadata()?.len();
        }
    }
    Ok(made)
}

struct Tree<'a> {
    root: &'a Path,
}

impl Tree<'_> {
    fn file(&self, name: &str, content: &[u8], mode: u32) -> io::Result<()> {
        let path = self.root.join(name);
        fs::create_dir_all(path.parent().unwrap_or(self.root))?;
        let mut file = File::create(&path)?;
        file.write_all(content)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.set_times(FileTimes::new().set_modified(modified(content.len() as u64)))
    }

    /// A file of `bytes` bytes with a word at its start and one near its end, and a hole between.
    fn sparse(&self, name: &str, bytes: u64) -> io::Result<()> {
        let file = File::create(self.root.join(name))?;
        file.set_len(bytes)?;
        file.write_all_at(b"begin", 0)?;
        file.write_all_at(b"end", bytes - 4096)?;
        file.set_times(FileTimes::new().set_modified(modified(bytes)))
    }

    /// Folders last: making files in them changes their times.
    fn age_folders(&self) -> io::Result<()> {
        for name in ["products", "letters", "letters/2026", "notes", "config", "odd", "incoming"] {
            File::open(self.root.join(name))?
                .set_times(FileTimes::new().set_modified(modified(name.len() as u64)))?;
        }
        Ok(())
    }
}

/// A time in 2026 with nanoseconds, chosen by `seed`.
fn modified(seed: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH
        + Duration::new(1_767_300_000 + seed % 20_000_000, (seed * 7_919 % 1_000_000_000) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_is_the_same_every_time() {
        let [a, b] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        make(a.path()).unwrap();
        make(b.path()).unwrap();
        let made = count(a.path()).unwrap();
        assert_eq!(made, count(b.path()).unwrap());
        assert!(made.files > 400 && made.folders > 40, "{made:?}");
        for name in ["products/1/1.png", "letters/2026/04/letter-003.pdf", "odd/sparse.img"] {
            let read = |root: &Path| {
                let metadata = fs::metadata(root.join(name)).unwrap();
                (fs::read(root.join(name)).unwrap(), metadata.modified().unwrap(), metadata.permissions())
            };
            assert_eq!(read(a.path()), read(b.path()), "{name}");
        }
    }
}
