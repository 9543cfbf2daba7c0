//! The beginning of `global/pg_control`: which cluster a data directory is.
//!
//! Source: PostgreSQL, `src/include/catalog/pg_control.h`: `ControlFileData` begins with the system identifier (u64), the
//! format's version (u32) and the catalogue's version (u32), in the machine's own byte order.

use mainstay_domain::{Failure, Result};
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
    let path = data_directory.join("global/pg_control");
    let bytes = fs::read(&path).map_err(|error| {
        Failure::preflight(format!("{} cannot be read", path.display()))
            .hint("Run Mainstay on the server's own machine, as the user that owns the data directory, or as root.")
            .caused_by(error)
    })?;
    parse(&bytes).ok_or_else(|| Failure::failed(format!("{} is too short", path.display())))
}

pub fn parse(bytes: &[u8]) -> Option<Control> {
    let system = u64::from_ne_bytes(*bytes.first_chunk()?);
    let number = |at: usize| Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    Some(Control { system, version: number(8)?, catalog: number(12)? })
}
