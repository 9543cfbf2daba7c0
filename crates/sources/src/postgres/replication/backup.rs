//! A base backup as a server streams it: `BASE_BACKUP` of PostgreSQL 15 and later.
//!
//! Where it begins, the tablespaces, then one tar archive for each of them and one for the data directory, a manifest that
//! names every file, and where it ends. With it comes the log that makes it consistent.

use super::{
    manifest::{Files, Reader},
    session::{Trouble, lsn},
};
use crate::postgres::wire::{Answers, Connection, Rows, ServerMessage, WireError, quote_literal};
use mainstay_domain::{Failure, Result, wal::Lsn};

/// How much of the files is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    Whole,
    /// The blocks that the server's summaries of its log name as changed since the backup whose manifest was uploaded.
    Changed,
}

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
    manifest: Reader,
    in_manifest: bool,
}

/// How it ended.
#[derive(Debug)]
pub struct Finished {
    /// Where the backup is consistent, and on which timeline that is.
    pub stop: Lsn,
    pub timeline: u32,
    /// The files that the server's manifest lists.
    pub listed: Files,
    /// The server found damaged pages.
    pub damaged: bool,
}

impl<'s> BaseBackup<'s> {
    pub(super) fn begin(
        connection: &'s mut Connection,
        label: &str,
        extent: Extent,
        hear: &mut dyn FnMut(&ServerMessage),
    ) -> Result<BaseBackup<'s>, Trouble> {
        let incremental = if extent == Extent::Changed { ", INCREMENTAL" } else { "" };
        // Checksums of files would cost the server as much again as reading them; pages are judged here.
        let mut answers = connection.ask(&format!(
            "BASE_BACKUP (LABEL {}, CHECKPOINT 'fast', WAL true, WAIT false, TABLESPACE_MAP true, MANIFEST 'yes', \
             MANIFEST_CHECKSUMS 'NONE', TARGET 'client'{incremental})",
            quote_literal(label)
        ))?;
        let begun = answers.rows_heard(hear).map_err(|error| match extent {
            Extent::Whole => error.into(),
            Extent::Changed => refused(error),
        })?;
        let (start, timeline) = position(&begun)?;
        let spaces = answers.rows()?;
        // The data directory stands among them without an oid.
        let tablespaces =
            spaces.iter().filter_map(|row| Some((row.opt(0)?.parse().ok()?, row.text(1)))).collect();
        answers.copy()?;
        Ok(BaseBackup {
            answers,
            start,
            timeline,
            tablespaces,
            manifest: Reader::default(),
            in_manifest: false,
        })
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
                    self.manifest.read(data).map_err(|_| confused("a manifest that makes no sense"))?;
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
        let listed = self.manifest.finish().ok_or_else(|| confused("a manifest without an end"))?;
        Ok(Finished { stop, timeline, listed, damaged })
    }
}

/// Why the server does not build on what it was given: it says so, and the session's user can do without.
pub(super) fn refused(error: WireError) -> Trouble {
    match error {
        WireError::Server(message) if message.severity == "ERROR" => {
            Trouble::Gone(WireError::Server(message).into())
        }
        error => error.into(),
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
