//! A `backup_manifest`, by which PostgreSQL's own `pg_verifybackup` checks a restored directory.
//!
//! Checksums are those of what the repository holds, and not of what was read back from the disk: so the check tells whether the disk has
//! it.

use super::{
    super::{
        BACKUP_LABEL, CONTROL, ClusterFacts, LISTING, TABLESPACE, TABLESPACE_MAP, exclude,
        manifest::ManifestWriter,
    },
    Plan, wanted,
};
use crate::files::{Browse, Step};
use crc::{CRC_32_ISCSI, Crc, Table};
use crossbeam_channel::{bounded, unbounded};
use mainstay_domain::{
    Failure, Kind, Monitor, Result,
    listing::{self, FileKind},
    point::SourceRecord,
    stream::{Content, Vault},
};
use std::{fs, io, path::Path, thread};

const NAME: &str = "backup_manifest";
/// Written anew for the recovery; `pg_verifybackup` passes over it, as it does over `pg_wal` and the signal files.
const AUTO: &[u8] = b"postgresql.auto.conf";
/// Where a configuration was elsewhere, these are made.
const STAND_INS: [&str; 3] = ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"];

static CRC: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);

/// A file of the manifest.
struct Listed {
    path: Vec<u8>,
    size: u64,
    /// Seconds since 1970.
    modified: i64,
    crc: u32,
}

/// A file whose content is still to be read.
struct Job {
    path: Vec<u8>,
    modified: i64,
    content: Content,
}

/// The manifest of what was restored into `data`, where everything lies by now but the control file.
pub(super) fn manifest(
    vault: &dyn Vault,
    record: &SourceRecord,
    plan: &Plan,
    data: &Path,
    monitor: &dyn Monitor,
) -> Result<Vec<u8>> {
    monitor.step("manifest", Some(record.bytes));
    let mut listed = checksums(vault, record, plan, monitor)?;
    let seconds = record.finished.0.div_euclid(1_000_000_000);
    let mut control = Vec::new();
    vault.copy(wanted(record, CONTROL)?, &mut control)?;
    listed.push(of_bytes(exclude::CONTROL, &control, seconds));
    for name in [BACKUP_LABEL, TABLESPACE_MAP].into_iter().chain(STAND_INS) {
        if listed.iter().any(|file| file.path == name.as_bytes()) {
            continue;
        }
        match fs::read(data.join(name)) {
            Ok(bytes) => listed.push(of_bytes(name, &bytes, seconds)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let text = format!("{} cannot be read", data.join(name).display());
                return Err(Failure::failed(text).caused_by(error));
            }
        }
    }
    listed.sort_by(|a, b| a.path.cmp(&b.path));
    monitor.done("manifest", "");
    written(&listed, &plan.facts, data)
        .map_err(|error| Failure::failed("the manifest cannot be written").caused_by(error))
}

fn of_bytes(name: &str, bytes: &[u8], modified: i64) -> Listed {
    let crc = CRC.checksum(bytes);
    Listed { path: name.as_bytes().to_vec(), size: bytes.len() as u64, modified, crc }
}

/// Reads the content of every file, by several threads.
fn checksums(
    vault: &dyn Vault,
    record: &SourceRecord,
    plan: &Plan,
    monitor: &dyn Monitor,
) -> Result<Vec<Listed>> {
    let threads = thread::available_parallelism().map_or(2, usize::from).clamp(2, 8);
    let (send, jobs) = bounded::<Job>(threads * 8);
    let (found, results) = unbounded();
    thread::scope(|scope| {
        for _ in 0..threads {
            let (jobs, found) = (jobs.clone(), found.clone());
            scope.spawn(move || {
                for job in jobs {
                    let read = if monitor.cancelled() { Err(stopped()) } else { checksum(vault, job) };
                    if let Ok(listed) = &read {
                        monitor.advance(1, listed.size);
                    }
                    let _ = found.send(read); // who listens has stopped only when it failed itself
                }
            });
        }
        // Ours must go, or the threads and the reader of their results would wait for ever.
        drop(jobs);
        drop(found);
        let mut walked = walk(vault, wanted(record, LISTING)?, b"", &|job| send.send(job).is_ok());
        for (oid, ..) in &plan.tablespaces {
            let below = format!("pg_tblspc/{oid}/");
            let listing = wanted(record, &format!("{TABLESPACE}{oid}"))?;
            walked =
                walked.and_then(|()| walk(vault, listing, below.as_bytes(), &|job| send.send(job).is_ok()));
        }
        drop(send);
        let listed: Result<Vec<Listed>> = results.into_iter().collect();
        walked.and(listed)
    })
}

fn stopped() -> Failure {
    Failure::new(Kind::Cancelled, "the restore was stopped")
}

/// Hands out every file of a listing.
fn walk(vault: &dyn Vault, content: &Content, below: &[u8], give: &dyn Fn(Job) -> bool) -> Result<()> {
    let mut directory = Vec::new();
    for step in Browse::all(vault, content, false) {
        match step? {
            Step::Directory(path) => directory = path,
            Step::Lost(failure) => return Err(failure),
            Step::Entry(entry) if entry.kind == FileKind::Regular => {
                let path = [below, &listing::join(&directory, &entry.name)].concat();
                let Some(content) = entry.content else { continue };
                let job = Job { path, modified: entry.modified.seconds, content };
                if job.path != AUTO && !give(job) {
                    return Err(stopped());
                }
            }
            Step::Entry(_) => {}
        }
    }
    Ok(())
}

fn checksum(vault: &dyn Vault, job: Job) -> Result<Listed> {
    struct Sum<'c> {
        digest: crc::Digest<'c, u32, Table<16>>,
        size: u64,
    }
    impl io::Write for Sum<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.digest.update(bytes);
            self.size += bytes.len() as u64;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut sum = Sum { digest: CRC.digest(), size: 0 };
    vault.copy(&job.content, &mut sum)?;
    Ok(Listed { path: job.path, size: sum.size, modified: job.modified, crc: sum.digest.finalize() })
}

/// The manifest.
fn written(files: &[Listed], facts: &ClusterFacts, data: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // The second version is that of PostgreSQL 17.
    let mut writer = ManifestWriter::begin(&mut bytes, (facts.major() >= 17).then_some(facts.system))?;
    for file in files {
        writer.file(&file.path, file.size, Some((file.modified, file.crc)))?;
    }
    // Only of log that is there.
    let is_there = facts.segments().all(|segment| data.join("pg_wal").join(segment.to_string()).is_file());
    writer.finish(is_there.then_some((facts.timeline, facts.start, facts.stop)))?;
    Ok(bytes)
}

/// Where it lies.
pub(super) fn path(data: &Path) -> std::path::PathBuf {
    data.join(NAME)
}
