//! Writes a `backup_manifest`, piece by piece: for whoever checks a restored directory, and for a server that is to send only what
//! changed since that backup.
//!
//! Source: PostgreSQL's manual, "Backup Manifest Format", and `src/backend/backup/backup_manifest.c`: one line for each file, and a last
//! one with the SHA-256 of all before it.

use aws_lc_rs::digest::{Context, SHA256};
use mainstay_domain::wal::Lsn;
use std::{
    fmt::Write as _,
    io::{self, Write},
};

pub struct ManifestWriter<'w> {
    out: &'w mut dyn Write,
    sum: Context,
    first: bool,
}

impl<'w> ManifestWriter<'w> {
    /// Begins one of the second version, which is that of PostgreSQL 17 and names the cluster, or of the first.
    pub fn begin(out: &'w mut dyn Write, system: Option<u64>) -> io::Result<ManifestWriter<'w>> {
        let mut writer = ManifestWriter { out, sum: Context::new(&SHA256), first: true };
        let version = if system.is_some() { 2 } else { 1 };
        writer.put(&format!("{{ \"PostgreSQL-Backup-Manifest-Version\": {version},\n"))?;
        if let Some(system) = system {
            writer.put(&format!("\"System-Identifier\": {system},\n"))?;
        }
        writer.put("\"Files\": [")?;
        Ok(writer)
    }

    /// Names a file; when it was modified (seconds since 1970) and its CRC-32C, for whoever checks it.
    pub fn file(&mut self, path: &[u8], size: u64, checked: Option<(i64, u32)>) -> io::Result<()> {
        let mut line = if std::mem::take(&mut self.first) { "\n{ ".to_owned() } else { ",\n{ ".to_owned() };
        line += &match std::str::from_utf8(path) {
            Ok(path) => format!("\"Path\": {}", serde_json::Value::from(path)),
            Err(_) => format!("\"Encoded-Path\": \"{}\"", hex(path)),
        };
        let _ = write!(line, ", \"Size\": {size}");
        if let Some((modified, crc)) = checked {
            let modified = jiff::Timestamp::from_second(modified)
                .map(|at| at.strftime("%Y-%m-%d %H:%M:%S GMT").to_string())
                .unwrap_or_default();
            // Byte by byte as it lies in memory: `src/common/checksum_helper.c`.
            let _ = write!(
                line,
                ", \"Last-Modified\": \"{modified}\", \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"{}\"",
                hex(&crc.to_ne_bytes())
            );
        }
        line += " }";
        self.put(&line)
    }

    /// Ends it with the log that the backup needs: its timeline, from where and to where.
    pub fn finish(mut self, log: Option<(u32, Lsn, Lsn)>) -> io::Result<()> {
        self.put("\n],\n\"WAL-Ranges\": [\n")?;
        if let Some((timeline, start, stop)) = log {
            let range = format!(
                "{{ \"Timeline\": {timeline}, \"Start-LSN\": \"{start}\", \"End-LSN\": \"{stop}\" }}\n"
            );
            self.put(&range)?;
        }
        self.put("],\n")?;
        let sum = self.sum.finish();
        self.out.write_all(format!("\"Manifest-Checksum\": \"{}\"}}\n", hex(sum.as_ref())).as_bytes())
    }

    fn put(&mut self, text: &str) -> io::Result<()> {
        self.sum.update(text.as_bytes());
        self.out.write_all(text.as_bytes())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
