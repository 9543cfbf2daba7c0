//! The rows of two recorded tables, without the chunks that both have.

use super::rows::Side;
use crate::postgres::facts::TableData;
use mainstay_domain::{
    ChunkId, Failure, Result,
    point::SourceRecord,
    stream::{Piece, Vault},
};
use std::collections::HashMap;

/// Pieces that begin and end with a row: one, or as many as a long row takes.
type Group = Vec<ChunkId>;

/// A recorded table, less what the other side has as well.
pub(super) struct Recorded<'a> {
    vault: &'a dyn Vault,
    groups: Vec<Group>,
    rows: u64,
}

impl Side for Recorded<'_> {
    fn expected(&self) -> u64 {
        self.rows
    }

    fn rows(&mut self, each: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        for group in &self.groups {
            let mut bytes = Vec::new();
            for chunk in group {
                bytes.append(&mut self.vault.get(chunk)?);
            }
            // Within a value, newlines are escaped.
            for row in bytes.split_inclusive(|b| *b == b'\n') {
                each(row.strip_suffix(b"\n").unwrap_or(row))?;
            }
        }
        Ok(())
    }
}

/// All of a recorded table.
pub(super) fn whole<'a>(
    vault: &'a dyn Vault,
    record: &SourceRecord,
    table: &TableData,
) -> Result<Recorded<'a>> {
    let groups = groups(vault, record, table)?;
    Ok(Recorded { vault, rows: table.rows, groups: groups.into_iter().map(|(group, _)| group).collect() })
}

/// Both sides, each without the groups that the other has too.
pub(super) fn unshared<'a>(
    before: (&'a dyn Vault, &SourceRecord, &TableData),
    after: (&'a dyn Vault, &SourceRecord, &TableData),
) -> Result<(Recorded<'a>, Recorded<'a>)> {
    let old = groups(before.0, before.1, before.2)?;
    let new = groups(after.0, after.1, after.2)?;
    // Columns in another place: the same bytes are not the same rows.
    let comparable = before.2.columns == after.2.columns;
    let count = |groups: &[(Group, u64)]| {
        let mut counts: HashMap<Group, u64> = HashMap::new();
        for (group, _) in groups.iter().filter(|_| comparable) {
            *counts.entry(group.clone()).or_default() += 1;
        }
        counts
    };
    let (in_old, in_new) = (count(&old), count(&new));
    let less = |vault: &'a dyn Vault, groups: Vec<(Group, u64)>, mut other: HashMap<Group, u64>| {
        let mut left = Recorded { vault, groups: Vec::new(), rows: 0 };
        for (group, rows) in groups {
            match other.get_mut(&group) {
                Some(times @ 1..) => *times -= 1,
                _ => {
                    left.rows += rows;
                    left.groups.push(group);
                }
            }
        }
        left
    };
    Ok((less(before.0, old, in_new), less(after.0, new, in_old)))
}

/// A table's pieces: one that ends no row belongs to the next.
fn groups(vault: &dyn Vault, record: &SourceRecord, table: &TableData) -> Result<Vec<(Group, u64)>> {
    let mut groups = Vec::new();
    for name in &table.streams {
        let stream = record
            .stream(name)
            .ok_or_else(|| Failure::verification(format!("stream {name} is not in the recovery point")))?;
        let mut group = Group::new();
        for piece in vault.pieces(&stream.content) {
            let Piece { chunk, rows, .. } = piece?;
            group.push(chunk.ok_or_else(|| Failure::verification("a table's rows have a hole"))?);
            if rows > 0 {
                groups.push((std::mem::take(&mut group), rows));
            }
        }
    }
    Ok(groups)
}
