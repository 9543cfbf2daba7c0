//! The tables, as files of JSON lines beside the restored files. `crate::files` restores those.

use super::{TABLE, facts::tables};
use mainstay_domain::{Failure, Result, point::SourceRecord, stream::Vault};
use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Which files the tables become below `destination`.
///
/// # Errors
/// `Preflight` if one is there already: nothing is overwritten. `Verification` if a name leads elsewhere.
pub fn plan_tables(record: &SourceRecord, destination: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut plan = Vec::new();
    for table in tables(record)? {
        // The name comes from a recovery point: it names a file in the folder, or nothing.
        if table.name.is_empty() || table.name.starts_with('.') || table.name.contains(['/', '\0']) {
            return Err(Failure::verification(format!("a captured table is called {:?}", table.name)));
        }
        let path = destination.join(format!("{}.jsonl", table.name));
        if fs::symlink_metadata(&path).is_ok() {
            return Err(Failure::preflight(format!("{} is there already", path.display()))
                .hint("Restore into another folder; nothing is overwritten."));
        }
        plan.push((table.name, path));
    }
    Ok(plan)
}

/// Writes what [`plan_tables`] says; returns how many bytes.
pub fn restore_tables(vault: &dyn Vault, record: &SourceRecord, destination: &Path) -> Result<u64> {
    let plan = plan_tables(record, destination)?;
    let mut written = 0;
    if !plan.is_empty() {
        let unmade =
            |error| Failure::failed(format!("{} cannot be made", destination.display())).caused_by(error);
        fs::create_dir_all(destination).map_err(unmade)?;
    }
    for (name, path) in plan {
        let unwritten = |error: io::Error| {
            Failure::failed(format!("{} cannot be written", path.display())).caused_by(error)
        };
        let stream = record
            .stream(&format!("{TABLE}{name}"))
            .ok_or_else(|| Failure::verification(format!("the record has no stream of the table {name}")))?;
        let mut file =
            tempfile::Builder::new().prefix(".table.").tempfile_in(destination).map_err(unwritten)?;
        written += vault.copy(&stream.content, &mut file)?;
        file.flush().and_then(|()| file.as_file().sync_all()).map_err(unwritten)?;
        file.persist_noclobber(&path).map_err(|error| unwritten(error.error))?;
    }
    Ok(written)
}

/// Whether each restored table is what was captured: as many lines, each of them JSON.
pub fn verify_tables(record: &SourceRecord, destination: &Path) -> Result<Vec<String>> {
    let mut differences = Vec::new();
    for table in tables(record)? {
        let path = destination.join(format!("{}.jsonl", table.name));
        let unread = |error| Failure::failed(format!("{} cannot be read", path.display())).caused_by(error);
        let text = fs::read_to_string(&path).map_err(unread)?;
        let valid =
            text.lines().filter(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()).count()
                as u64;
        if valid != table.rows || text.len() as u64 != table.bytes {
            differences.push(format!(
                "table {}: {valid} rows in {} bytes, and {} in {} were captured",
                table.name,
                text.len(),
                table.rows,
                table.bytes
            ));
        }
    }
    Ok(differences)
}
