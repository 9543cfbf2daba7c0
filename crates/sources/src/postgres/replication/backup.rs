//! A base backup as a server streams it: `BASE_BACKUP` of PostgreSQL 15 and later.
//!
//! Where it begins, the tablespaces, then one tar archive for each of them and one for the data directory, a manifest that
//! names every file, and where it ends. With it comes the log that makes it consistent.

use super::session::{Trouble, lsn};
use crate::postgres::wire::{Answers, Connection, Rows, WireError, quote_literal};
use mainstay_domain::{Failure, Result, wal::Lsn};

/// The manifest may grow to this; a file takes some 120 bytes of it.
const LARGEST_MANIFEST: usize = 1 << 30;

/// What streams in.
#[derive(Debug)]
pub enum Chunk<'a> {
    /// An archive begins: of the tablespace with this oid, or of the data directory.
    Archive(Option<u32>),
    /// Bytes of the archive.
    Data(&'a [u8]),
    /// All archives have come.
    End,
}

pub struct BaseBackup<'s> {
    answers: Answers<'s>,
    /// Where replay begins, and on which timeline.
    pub start: Lsn,
    pub timeline: u32,
    /// Oid and place of each tablespace.
    pub tablespaces: Vec<(u32, String)>,
    manifest: Vec<u8>,
    in_manifest: bool,
}

/// How it ended.
#[derive(Debug)]
pub struct Finished {
    /// Where the backup is consistent, and on which timeline that is.
    pub stop: Lsn,
    pub timeline: u32,
    /// The server's list of all files, as JSON.
    pub manifest: Vec<u8>,
    /// The server found damaged pages.
    pub damaged: bool,
}

impl<'s> BaseBackup<'s> {
    pub(super) fn begin(connection: &'s mut Connection, label: &str) -> Result<BaseBackup<'s>, Trouble> {
        // Checksums of files would cost the server as much again as reading them; pages are judged here.
        let mut answers = connection.ask(&format!(
            "BASE_BACKUP (LABEL {}, CHECKPOINT 'fast', WAL true, WAIT false, TABLESPACE_MAP true, MANIFEST 'yes', \
             MANIFEST_CHECKSUMS 'NONE', TARGET 'client')",
            quote_literal(label)
        ))?;
        let (start, timeline) = position(&answers.rows()?)?;
        let spaces = answers.rows()?;
        // The data directory stands among them without an oid.
        let tablespaces =
            spaces.iter().filter_map(|row| Some((row.opt(0)?.parse().ok()?, row.text(1)))).collect();
        answers.copy()?;
        Ok(BaseBackup { answers, start, timeline, tablespaces, manifest: Vec::new(), in_manifest: false })
    }

    /// What comes next.
    pub fn receive(&mut self) -> Result<Chunk<'_>, Trouble> {
        loop {
            let Some(data) = self.answers.data()? else { return Ok(Chunk::End) };
            match data.split_first() {
                Some((b'n', names)) => {
                    let name = names.split(|byte| *byte == 0).next().unwrap_or_default();
                    let name = String::from_utf8_lossy(name).into_owned();
                    let stem = name.strip_suffix(".tar").unwrap_or(&name);
                    return match (stem, stem.parse()) {
                        ("base", _) => Ok(Chunk::Archive(None)),
                        (_, Ok(oid)) => Ok(Chunk::Archive(Some(oid))),
                        _ => Err(confused(&format!("an archive {name:?}"))),
                    };
                }
                Some((b'm', _)) => self.in_manifest = true,
                Some((b'd', data)) if self.in_manifest => {
                    if self.manifest.len() + data.len() > LARGEST_MANIFEST {
                        return Err(confused("a manifest of over a gigabyte"));
                    }
                    self.manifest.extend_from_slice(data);
                }
                Some((b'd', _)) => return Ok(Chunk::Data(self.answers.last_data(1))),
                Some((b'p', _)) => {}
                _ => return Err(confused("a message that makes no sense")),
            }
        }
    }

    /// Reads to the end.
    pub fn finish(mut self) -> Result<Finished, Trouble> {
        let (stop, timeline) = match self.answers.rows() {
            Ok(rows) => position(&rows)?,
            // A standby that was promoted meanwhile.
            Err(error) => return Err(not_usable(error)),
        };
        let damaged = match self.answers.finish() {
            Ok(()) => false,
            // Data corrupted: all has come, and the server counted pages that are wrong.
            Err(error) if error.is("XX001") => true,
            Err(error) => return Err(not_usable(error)),
        };
        Ok(Finished { stop, timeline, manifest: self.manifest, damaged })
    }
}

fn not_usable(error: WireError) -> Trouble {
    Trouble::Other(
        Failure::failed("the server says that this backup is not to be used")
            .hint("A standby was promoted, or the server restarted, during the backup: run it again.")
            .caused_by(error),
    )
}

fn confused(what: &str) -> Trouble {
    Trouble::Other(WireError::Protocol(format!("{what} in a base backup")).into())
}

fn position(rows: &Rows) -> Result<(Lsn, u32)> {
    let row =
        rows.iter().next().ok_or_else(|| Failure::failed("the server names no position of the backup"))?;
    let timeline =
        row.text(1).parse().map_err(|_| Failure::failed("the server names no timeline of the backup"))?;
    Ok((lsn(&row.text(0))?, timeline))
}
