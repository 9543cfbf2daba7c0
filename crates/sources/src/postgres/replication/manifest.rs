//! The manifest that ends a base backup, read as it streams in: it names every file, and is held against what came.
//!
//! A million files make 200 MB of it, so none of it is kept but a sum over all files. Source: PostgreSQL,
//! `src/backend/backup/backup_manifest.c`: each file has a line of its own.

use mainstay_domain::wal::WalFile;

/// More than any line of a path's length can have.
const LONGEST_LINE: usize = 64 << 10;

/// A set of files by path and size, in whatever order they were added: how many, and a sum of hashes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Files {
    pub count: u64,
    sum: u128,
}

impl Files {
    /// Adds a file. Segments of the log are in no manifest, and are passed over.
    pub fn add(&mut self, path: &[u8], size: u64) {
        let segment = path.strip_prefix(b"pg_wal/").and_then(|name| std::str::from_utf8(name).ok());
        if matches!(segment.map(str::parse), Some(Ok(WalFile::Segment(_)))) {
            return;
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&size.to_le_bytes()).update(path);
        let hash = hasher.finalize();
        self.count += 1;
        let part = hash.as_bytes().first_chunk().expect("a hash has 32 bytes");
        self.sum = self.sum.wrapping_add(u128::from_le_bytes(*part));
    }
}

#[derive(Debug, Default)]
pub(super) struct Reader {
    line: Vec<u8>,
    files: Files,
    ended: bool,
}

/// It is no manifest.
#[derive(Debug)]
pub(super) struct Malformed;

#[derive(serde::Deserialize)]
struct Listed {
    #[serde(rename = "Path")]
    path: Option<String>,
    #[serde(rename = "Encoded-Path")]
    encoded: Option<String>,
    #[serde(rename = "Size")]
    size: u64,
}

impl Reader {
    /// Takes the next bytes of it.
    pub fn read(&mut self, mut bytes: &[u8]) -> Result<(), Malformed> {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.line.extend_from_slice(&bytes[..end]);
            bytes = &bytes[end + 1..];
            self.take_line()?;
            self.line.clear();
        }
        self.line.extend_from_slice(bytes);
        if self.line.len() > LONGEST_LINE { Err(Malformed) } else { Ok(()) }
    }

    /// The files that it lists; `None` if it has no end.
    pub fn finish(self) -> Option<Files> {
        (self.ended && self.line.is_empty()).then_some(self.files)
    }

    fn take_line(&mut self) -> Result<(), Malformed> {
        let line = self.line.strip_suffix(b",").unwrap_or(&self.line);
        self.ended |= line.starts_with(b"\"Manifest-Checksum\"");
        if !(line.starts_with(b"{ \"Path\"") || line.starts_with(b"{ \"Encoded-Path\"")) {
            return Ok(());
        }
        let listed: Listed = serde_json::from_slice(line).map_err(|_| Malformed)?;
        let path = match (listed.path, listed.encoded) {
            (Some(path), _) => path.into_bytes(),
            (None, Some(hex)) => hex::decode(hex).map_err(|_| Malformed)?,
            (None, None) => return Err(Malformed),
        };
        self.files.add(&path, listed.size);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": 7,\n\"Files\": [\n\
        { \"Path\": \"base/5/INCREMENTAL.1249\", \"Size\": 12, \"Last-Modified\": \"2026-11-25 13:44:24 GMT\" },\n\
        { \"Encoded-Path\": \"ff2f61\", \"Size\": 0, \"Last-Modified\": \"2026-11-25 13:44:24 GMT\" }\n],\n\
        \"WAL-Ranges\": [\n{ \"Timeline\": 1, \"Start-LSN\": \"0/2000028\", \"End-LSN\": \"0/2000120\" }\n],\n\
        \"Manifest-Checksum\": \"00\"}\n";

    #[test]
    fn a_manifest_in_pieces_lists_what_came_in_any_order_and_nothing_else_matches() {
        let mut came = Files::default();
        came.add(b"pg_wal/000000010000000000000002", 16 << 20);
        came.add(b"\xff/a", 0);
        came.add(b"base/5/INCREMENTAL.1249", 12);
        for size in [1, 7, TEXT.len()] {
            let mut reader = Reader::default();
            TEXT.as_bytes().chunks(size).for_each(|part| reader.read(part).unwrap());
            assert_eq!(reader.finish(), Some(came));
        }
        let mut other = Files::default();
        other.add(b"\xff/a", 12);
        other.add(b"base/5/INCREMENTAL.1249", 0);
        assert_ne!(other, came);
        let mut cut = Reader::default();
        cut.read(&TEXT.as_bytes()[..TEXT.len() - 3]).unwrap();
        assert_eq!(cut.finish(), None);
        assert!(Reader::default().read(b"{ \"Path\": 7, \"Size\": 0 }\n").is_err());
    }
}
