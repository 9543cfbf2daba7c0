//! The output, back into a file or into the standard input of a command.

use super::{
    OUTPUT,
    capture::CommandFacts,
    config::{CommandLine, is_file_name},
};
use mainstay_domain::{
    Failure, Result,
    point::{SourceRecord, Stream},
    stream::Vault,
};
use std::{
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::Stdio,
};

fn stream(record: &SourceRecord) -> Result<&Stream> {
    record.stream(OUTPUT).ok_or_else(|| Failure::verification("the record has no output"))
}

/// The file that a restore into `destination` makes.
///
/// # Errors
/// `Preflight` if it is there already: nothing is overwritten.
pub fn plan(record: &SourceRecord, destination: &Path) -> Result<PathBuf> {
    let facts = CommandFacts::from_json(&record.facts)?;
    debug_assert!(is_file_name(&facts.name), "checked when the facts were read");
    let path = destination.join(facts.name);
    match fs::symlink_metadata(&path) {
        Ok(_) => Err(Failure::preflight(format!("{} is there already", path.display()))
            .hint("Restore into another folder; nothing is overwritten.")),
        Err(_) => Ok(path),
    }
}

/// Writes the file; returns its path and size.
pub fn to_directory(vault: &dyn Vault, record: &SourceRecord, destination: &Path) -> Result<(PathBuf, u64)> {
    let path = plan(record, destination)?;
    let unwritten =
        |error: io::Error| Failure::failed(format!("{} cannot be written", path.display())).caused_by(error);
    fs::create_dir_all(destination).map_err(unwritten)?;
    let mut file = tempfile::Builder::new().prefix(".output.").tempfile_in(destination).map_err(unwritten)?;
    let bytes = vault.copy(&stream(record)?.content, &mut file)?;
    file.flush().and_then(|()| file.as_file().sync_all()).map_err(unwritten)?;
    file.persist_noclobber(&path).map_err(|error| unwritten(error.error))?;
    Ok((path, bytes))
}

/// Feeds a command; returns how much it was given.
///
/// # Errors
/// `Failed` if it fails, or stops reading before the end. What it did by then is done.
pub fn to_command(vault: &dyn Vault, record: &SourceRecord, command: &str) -> Result<u64> {
    let line = CommandLine::Shell(command.to_owned());
    let unstarted =
        |error: io::Error| Failure::preflight(format!("{line} cannot be started")).caused_by(error);
    let mut child = line.prepare().stdin(Stdio::piped()).stdout(Stdio::null()).spawn().map_err(unstarted)?;
    let fed = match child.stdin.take() {
        Some(mut input) => vault.copy(&stream(record)?.content, &mut input),
        None => Err(Failure::failed(format!("{line} has no input"))),
    };
    let status = child.wait().map_err(unstarted)?;
    match (fed, status.success()) {
        (Ok(bytes), true) => Ok(bytes),
        (_, false) => Err(Failure::failed(format!("{line} failed ({status})"))
            .hint("What it said stands above; what it did by then is done.")),
        (Err(failure), true) => Err(failure),
    }
}

/// Whether a restored file is what the command wrote; what differs, if it is not.
pub fn compare(record: &SourceRecord, path: &Path) -> Result<Option<String>> {
    let facts = CommandFacts::from_json(&record.facts)?;
    let unread =
        |error: io::Error| Failure::failed(format!("{} cannot be read", path.display())).caused_by(error);
    let mut file = fs::File::open(path).map_err(unread)?;
    let (mut hasher, mut bytes, mut buffer) = (blake3::Hasher::new(), 0, vec![0; 256 << 10]);
    loop {
        match file.read(&mut buffer).map_err(unread)? {
            0 => break,
            read => {
                hasher.update(&buffer[..read]);
                bytes += read as u64;
            }
        }
    }
    let hash = hasher.finalize().to_hex();
    Ok((bytes != facts.bytes || hash.as_str() != facts.hash).then(|| {
        format!(
            "{bytes} bytes with BLAKE3 {hash}, and {} bytes with {} were captured",
            facts.bytes, facts.hash
        )
    }))
}
