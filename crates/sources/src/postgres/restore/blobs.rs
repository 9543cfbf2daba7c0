//! Large objects, from their own archive: made, filled, then given their owners, privileges and comments.

use super::{
    Work,
    archive::{Archive, ArchiveError, Entry, Reader},
    maker::Maker,
    sql, vault,
};
use crate::postgres::wire::WireError;
use mainstay_domain::{Failure, Result, Severity};
use std::{collections::HashSet, io::Read};

/// Bytes that are written with one statement.
const WRITE: usize = 512 << 10;
/// Large objects that are made with one statement.
const MAKE: usize = 500;

/// Restores every large object; returns how many are there in full. Damage is named, and what can be read comes back.
pub(super) fn load(work: &Work<'_>, maker: &mut Maker<'_>) -> Result<u64> {
    let Some(stream) = &work.facts.large_objects.stream else { return Ok(0) };
    work.monitor.step("large objects", None);
    let (mut reader, archive) = match vault::open_archive(work.vault, work.record, stream) {
        Ok(opened) => opened,
        Err(failure) => {
            work.problem(
                Severity::Error,
                "large objects",
                format!("none is restored: {}", failure.with_causes()),
            );
            return Ok(0);
        }
    };
    let mut refused: HashSet<u32> = HashSet::new();
    for entry in &archive.entries {
        let oids = oids(entry);
        for some in oids.chunks(MAKE) {
            let text: String =
                some.iter().map(|oid| format!("SELECT pg_catalog.lo_create({oid});")).collect();
            // In one transaction; where one is there already, each on its own.
            if matches!(maker.connection.execute(&text), Err(WireError::Server(_))) {
                for oid in some {
                    if let Err(error) =
                        maker.connection.execute(&format!("SELECT pg_catalog.lo_create({oid})"))
                    {
                        tell(work, *oid, error)?;
                        refused.insert(*oid);
                    }
                }
            }
        }
    }
    let filled = fill(work, maker, &mut reader, &refused)?;
    for entry in &archive.entries {
        finish(work, maker, &archive, entry, &refused)?;
    }
    work.monitor.done("large objects", &format!("{filled} large objects"));
    Ok(filled)
}

fn tell(work: &Work<'_>, oid: u32, error: WireError) -> Result<()> {
    match error {
        WireError::Server(message) => {
            work.problem(Severity::Error, format!("large object {oid}"), message.to_string());
            Ok(())
        }
        error => Err(error.into()),
    }
}

/// The large objects that an entry makes: up to PostgreSQL 16 one, later a list.
pub fn oids(entry: &Entry) -> Vec<u32> {
    let list = match entry.kind.as_str() {
        "BLOB" => &entry.tag,
        "BLOB METADATA" => &entry.definition,
        _ => return Vec::new(),
    };
    String::from_utf8_lossy(list).split_ascii_whitespace().filter_map(|oid| oid.parse().ok()).collect()
}

fn fill<R: Read>(
    work: &Work<'_>,
    maker: &mut Maker<'_>,
    reader: &mut Reader<R>,
    refused: &HashSet<u32>,
) -> Result<u64> {
    let mut filled = 0;
    let mut in_transaction = 0;
    maker.connection.execute("BEGIN")?;
    loop {
        work.check_cancelled()?;
        let written = match reader.next_large_object() {
            Ok(None) => break,
            Ok(Some(oid)) => {
                fill_one(maker, reader, oid, !refused.contains(&oid)).map(|w| w.map(|bytes| (oid, bytes)))?
            }
            Err(error) => Err(error),
        };
        match written {
            Ok((oid, bytes)) => {
                work.monitor.advance(1, bytes);
                filled += u64::from(!refused.contains(&oid));
                in_transaction += bytes + 1000; // many small ones are work, too
            }
            Err(error) => {
                // Where one part is damaged, the next object cannot be found.
                let text = format!(
                    "{filled} are restored, the others are not: {}",
                    Failure::from(error).with_causes()
                );
                work.problem(Severity::Error, "large objects", text);
                break;
            }
        }
        if in_transaction > 16 << 20 {
            maker.connection.execute("COMMIT; BEGIN")?;
            in_transaction = 0;
        }
    }
    maker.connection.execute("COMMIT")?;
    Ok(filled)
}

/// Writes the current large object; returns its size. The inner error is the archive's.
fn fill_one<R: Read>(
    maker: &mut Maker<'_>,
    reader: &mut Reader<R>,
    oid: u32,
    write: bool,
) -> Result<Result<u64, ArchiveError>> {
    let (mut offset, mut buffer) = (0_u64, Vec::with_capacity(WRITE));
    loop {
        let part = match reader.content() {
            Ok(part) => part,
            Err(error) => return Ok(Err(error)),
        };
        let last = part.is_none();
        buffer.extend(part.unwrap_or_default());
        if !buffer.is_empty() && (last || buffer.len() >= WRITE) {
            if write {
                let sql = format!("SELECT pg_catalog.lo_put({oid}, {offset}, '\\x{}')", hex::encode(&buffer));
                maker.connection.execute(&sql)?;
            }
            offset += buffer.len() as u64;
            buffer.clear();
        }
        if last {
            return Ok(Ok(offset));
        }
    }
}

/// Owner, privileges, comment, label.
fn finish(
    work: &Work<'_>,
    maker: &mut Maker<'_>,
    archive: &Archive,
    entry: &Entry,
    refused: &HashSet<u32>,
) -> Result<()> {
    match entry.kind.as_str() {
        "BLOB" | "BLOB METADATA" => {
            for oid in oids(entry).into_iter().filter(|oid| !refused.contains(oid)) {
                let one =
                    Entry { kind: "BLOB".to_owned(), tag: oid.to_string().into_bytes(), ..entry.clone() };
                maker.own(&one, false)?;
            }
            Ok(())
        }
        "ACL" if !work.options.privileges => Ok(()),
        "ACL" | "COMMENT" | "SECURITY LABEL" if entry.tag.starts_with(b"LARGE OBJECT") => {
            let statements =
                sql::statements(&entry.definition).map_err(|e| Failure::verification(e.to_string()))?;
            let group = entry
                .dependencies
                .iter()
                .filter_map(|id| archive.entry(*id))
                .find(|e| e.kind == "BLOB METADATA" && entry.tag.starts_with(b"LARGE OBJECTS "));
            for statement in statements {
                match group {
                    // One statement, written for the first, stands for the whole group.
                    Some(group) => {
                        for oid in oids(group) {
                            let statement = for_object(statement, oid);
                            maker.grant_statement(entry, &statement)?;
                        }
                    }
                    None => maker.grant_statement(entry, statement)?,
                }
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The statement for another large object: the number behind `LARGE OBJECT` replaced.
fn for_object(statement: &[u8], oid: u32) -> Vec<u8> {
    const WORDS: &[u8] = b" LARGE OBJECT ";
    match statement.windows(WORDS.len()).position(|w| w == WORDS) {
        Some(at) => {
            let number = at + WORDS.len();
            let digits = statement[number..].iter().take_while(|b| b.is_ascii_digit()).count();
            [&statement[..number], oid.to_string().as_bytes(), &statement[number + digits..]].concat()
        }
        None => statement.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_for_a_group_is_written_for_each() {
        let grant = br#"GRANT SELECT ON LARGE OBJECT 500001 TO "a LARGE OBJECT 7""#;
        assert_eq!(for_object(grant, 42), br#"GRANT SELECT ON LARGE OBJECT 42 TO "a LARGE OBJECT 7""#);
    }
}
