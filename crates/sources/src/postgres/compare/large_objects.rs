//! Compares large objects: that the same ones are there, with the same bytes and owners, and privileges where there were some.

use super::{Comparison, Difference};
use crate::postgres::{facts::Facts, restore, wire::Connection};
use mainstay_domain::{Failure, Kind, Monitor, Result, point::SourceRecord, stream::Vault};
use std::collections::{BTreeMap, BTreeSet};

/// Bytes read with one statement.
const READ: u64 = 1 << 20;

fn differ(comparison: &mut Comparison, oid: u32, what: &str, recorded: String, found: String, most: usize) {
    let difference = Difference {
        kind: "large object".to_owned(),
        object: oid.to_string(),
        what: what.to_owned(),
        recorded,
        found,
    };
    comparison.differ([difference], most);
}

/// A large object that is there.
struct There {
    owner: String,
    /// Somebody was granted something, or the owner something revoked.
    granted: bool,
}

fn there(connection: &mut Connection) -> Result<BTreeMap<u32, There>> {
    let sql = "SELECT oid, pg_catalog.pg_get_userbyid(lomowner), lomacl IS NOT NULL FROM pg_catalog.pg_largeobject_metadata";
    let rows = connection.query(sql)?;
    let object = |row: &crate::postgres::wire::Row| {
        Some((row.text(0).parse().ok()?, There { owner: row.text(1), granted: row.bool(2) }))
    };
    Ok(rows.iter().filter_map(object).collect())
}

/// When none were captured, there must be none.
pub(super) fn none(
    comparison: &mut Comparison,
    facts: &Facts,
    connection: &mut Connection,
    most: usize,
) -> Result<()> {
    if facts.large_objects.count > 0 {
        comparison.skip("large objects", "they were not captured");
    } else {
        for oid in there(connection)?.into_keys() {
            differ(comparison, oid, "added", String::new(), String::new(), most);
        }
    }
    Ok(())
}

pub(super) fn compare(
    comparison: &mut Comparison,
    vault: &dyn Vault,
    record: &SourceRecord,
    facts: &Facts,
    connection: &mut Connection,
    most: usize,
    monitor: &dyn Monitor,
) -> Result<()> {
    let Some(stream) = &facts.large_objects.stream else { return Ok(()) };
    monitor.step("large objects", None);
    let mut there = there(connection)?;
    let (mut reader, archive) = restore::open_archive(vault, record, stream)?;
    let owners: BTreeMap<u32, String> = archive
        .entries
        .iter()
        .flat_map(|e| restore::large_object_ids(e).into_iter().map(|oid| (oid, archive.text(&e.owner))))
        .collect();
    // Privileges are said in entries of their own, which depend on what they are about.
    let granted: BTreeSet<u32> = archive
        .entries
        .iter()
        .filter(|e| e.kind == "ACL")
        .flat_map(|e| e.dependencies.iter().filter_map(|id| archive.entry(*id)))
        .flat_map(restore::large_object_ids)
        .collect();
    let damaged = |error| Failure::from(error).during("large objects");
    while let Some(oid) = reader.next_large_object().map_err(damaged)? {
        if monitor.cancelled() {
            return Err(Failure::new(Kind::Cancelled, "the comparison was stopped"));
        }
        let mut recorded = blake3::Hasher::new();
        while let Some(part) = reader.content().map_err(damaged)? {
            recorded.update(&part);
        }
        let Some(There { owner, granted: is_granted }) = there.remove(&oid) else {
            differ(comparison, oid, "missing", String::new(), String::new(), most);
            continue;
        };
        comparison.large_objects += 1;
        if let Some(recorded) = owners.get(&oid).filter(|o| **o != owner) {
            differ(comparison, oid, "owner", recorded.clone(), owner, most);
        }
        if granted.contains(&oid) != is_granted {
            let shown = |granted: bool| if granted { "some granted" } else { "the default" }.to_owned();
            differ(comparison, oid, "privileges", shown(granted.contains(&oid)), shown(is_granted), most);
        }
        match content(connection, oid)? {
            Ok(found) if found == recorded.finalize() => {}
            Ok(found) => {
                let (a, b) = (recorded.finalize().to_hex().to_string(), found.to_hex().to_string());
                differ(comparison, oid, "content", a, b, most);
            }
            Err(reason) => comparison.skip(format!("large object {oid}"), reason),
        }
    }
    for oid in there.into_keys() {
        differ(comparison, oid, "added", String::new(), String::new(), most);
    }
    monitor.done("large objects", "");
    Ok(())
}

/// Hash of a large object's bytes, or why it may not be read.
fn content(connection: &mut Connection, oid: u32) -> Result<Result<blake3::Hash, String>> {
    let mut hasher = blake3::Hasher::new();
    let mut offset = 0_u64;
    loop {
        let sql = format!("SELECT pg_catalog.encode(pg_catalog.lo_get({oid}, {offset}, {READ}), 'hex')");
        let hex = match connection.query_text(&sql) {
            Ok(hex) => hex.unwrap_or_default(),
            Err(crate::postgres::wire::WireError::Server(message)) => return Ok(Err(message.to_string())),
            Err(error) => return Err(error.into()),
        };
        let bytes = hex::decode(hex.replace('\n', ""))
            .map_err(|e| Failure::failed("the server's answer is not hexadecimal").caused_by(e))?;
        hasher.update(&bytes);
        offset += bytes.len() as u64;
        if (bytes.len() as u64) < READ {
            return Ok(Ok(hasher.finalize()));
        }
    }
}
