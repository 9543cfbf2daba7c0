//! The beginning of `global/pg_control`: which cluster a data directory is.
//!
//! Source: PostgreSQL, `src/include/catalog/pg_control.h`: `ControlFileData` begins with the system identifier (u64), the
//! format's version (u32) and the catalogue's version (u32), in the machine's own byte order; the server's state (u32), padding,
//! the time of the file's last change (i64), and the positions of the last checkpoint and of its redo point (u64 each) follow in
//! every version from 14 to 18.

use crate::postgres::wire::Connection;
use mainstay_domain::{Failure, Kind, Result, wal::Lsn};
use std::{fs, path::Path};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Control {
    pub system: u64,
    /// `PG_CONTROL_VERSION`: 1300 for PostgreSQL 13 to 16, 1700 for 17, 1800 for 18.
    pub version: u32,
    pub catalog: u32,
}

/// Reads which cluster `data_directory` is.
pub fn read(data_directory: &Path) -> Result<Control> {
    parse(&bytes_of(data_directory)?).ok_or_else(|| too_short(data_directory))
}

fn bytes_of(data_directory: &Path) -> Result<Vec<u8>> {
    let path = data_directory.join("global/pg_control");
    fs::read(&path).map_err(|error| {
        Failure::preflight(format!("{} cannot be read", path.display()))
            .hint("Run Mainstay on the server's own machine, as the user that owns the data directory, or as root.")
            .caused_by(error)
    })
}

fn too_short(data_directory: &Path) -> Failure {
    Failure::failed(format!("{} is too short", data_directory.join("global/pg_control").display()))
}

/// How far a server has come, as its control file tells. Every server of a cluster has the same identifier, and only the one
/// that writes the file agrees with it about this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Progress {
    /// Seconds since 1970.
    changed: i64,
    checkpoint: Lsn,
    redo: Lsn,
    in_recovery: bool,
}

/// `DB_IN_PRODUCTION`: not in recovery of any kind.
const IN_PRODUCTION: u32 = 6;

fn progress(bytes: &[u8]) -> Option<Progress> {
    let number = |at: usize| Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    let state = u32::from_ne_bytes(*bytes.get(16..)?.first_chunk()?);
    Some(Progress {
        changed: number(24)?.cast_signed(),
        checkpoint: Lsn(number(32)?),
        redo: Lsn(number(40)?),
        in_recovery: state != IN_PRODUCTION,
    })
}

fn progress_of_server(connection: &mut Connection) -> Result<Option<Progress>> {
    let rows = connection.query(
        "SELECT extract(epoch FROM s.pg_control_last_modified)::bigint, c.checkpoint_lsn, c.redo_lsn, pg_is_in_recovery()
           FROM pg_control_system() AS s, pg_control_checkpoint() AS c",
    )?;
    let Some(row) = rows.iter().next() else { return Ok(None) };
    let position = |column: usize| row.text(column).parse().ok();
    let (Ok(changed), Some(checkpoint), Some(redo)) = (row.text(0).parse(), position(1), position(2)) else {
        return Ok(None);
    };
    Ok(Some(Progress { changed, checkpoint, redo, in_recovery: row.text(3) == "t" }))
}

/// Refuses a data directory that is not that of the server at the other end: of a standby, or of a primary that was replaced.
/// Their files under this server's backup label would pass for a base backup.
pub fn refuse_another_servers(data_directory: &Path, connection: &mut Connection) -> Result<()> {
    // The file may change between the question and the reading. A server that changes it all the time is asked again.
    const ATTEMPTS: usize = 50;
    let mut told = progress_of_server(connection)?;
    for _ in 0..ATTEMPTS {
        let read = progress(&bytes_of(data_directory)?).ok_or_else(|| too_short(data_directory))?;
        if told == Some(read) {
            return Ok(());
        }
        let again = progress_of_server(connection)?;
        if again == Some(read) {
            return Ok(());
        }
        if again == told && told.is_some() {
            break; // nothing has changed on the server meanwhile: it is another file
        }
        told = again;
    }
    Err(Failure::new(
        Kind::Preflight,
        format!(
            "{} is of the same cluster, but not the data directory of the server that was asked",
            data_directory.display()
        ),
    )
    .hint(
        "The address leads to another server of the cluster (after a failover, or a standby). Let `url:` lead to the server on this \
         machine, or take the base backup over the network: `method: replication`.",
    ))
}

pub fn parse(bytes: &[u8]) -> Option<Control> {
    let system = u64::from_ne_bytes(*bytes.first_chunk()?);
    let number = |at: usize| Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    Some(Control { system, version: number(8)?, catalog: number(12)? })
}
