//! What changed between two captures of a configuration, line by line, without what looks like a secret.

use super::{
    TABLE,
    facts::tables,
    secrets::{hide_line, hide_row},
};
use crate::files::{self, Change, ChangeKind, show_at};
use mainstay_domain::{
    Result,
    listing::Entry,
    point::SourceRecord,
    stream::{Content, Vault},
};
use std::collections::BTreeMap;

/// Of larger texts it is only said that they changed.
const LARGEST: u64 = 1 << 20;
/// Lines of one text that are shown.
const SHOWN: usize = 20;

/// One file or table that is not the same in both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// A path, or `table NAME`.
    pub object: String,
    pub kind: ChangeKind,
    /// Lines that are gone (`- …`) and that came (`+ …`), secrets hidden.
    pub lines: Vec<String>,
}

/// The changes from `before` to `after`: files in listing order, then tables.
pub fn diff(before: (&dyn Vault, &SourceRecord), after: (&dyn Vault, &SourceRecord)) -> Result<Vec<Changed>> {
    let mut found = Vec::new();
    let both = |name: &str| before.1.stream(name).is_some() && after.1.stream(name).is_some();
    if both(files::LISTING) {
        for change in files::diff(before, after)? {
            let Change { path, kind, before: old, after: new } = change?;
            let lines = match kind {
                ChangeKind::Content => {
                    let old = text(before.0, old.as_deref().and_then(content))?;
                    let new = text(after.0, new.as_deref().and_then(content))?;
                    lines(old, new, hide_line)
                }
                _ => Vec::new(),
            };
            found.push(Changed { object: show_at(&path), kind, lines });
        }
    }
    let names: BTreeMap<String, ()> =
        tables(before.1)?.into_iter().chain(tables(after.1)?).map(|table| (table.name, ())).collect();
    for (name, ()) in names {
        let stream =
            |record: &SourceRecord| record.stream(&format!("{TABLE}{name}")).map(|s| s.content.clone());
        let object = format!("table {name}");
        let (kind, lines) = match (stream(before.1), stream(after.1)) {
            (Some(old), Some(new)) if old == new => continue,
            (Some(old), Some(new)) => (
                ChangeKind::Content,
                lines(text(before.0, Some(&old))?, text(after.0, Some(&new))?, hide_row),
            ),
            (Some(_), None) => (ChangeKind::Removed, Vec::new()),
            (None, _) => (ChangeKind::Added, Vec::new()),
        };
        found.push(Changed { object, kind, lines });
    }
    Ok(found)
}

fn content(entry: &Entry) -> Option<&Content> {
    entry.content.as_ref()
}

/// A text that is small enough to be compared; `None` for others.
fn text(vault: &dyn Vault, content: Option<&Content>) -> Result<Option<String>> {
    let Some(content) = content.filter(|content| content.bytes() <= LARGEST) else { return Ok(None) };
    let mut bytes = Vec::new();
    vault.copy(content, &mut bytes)?;
    Ok(String::from_utf8(bytes).ok().filter(|text| !text.contains('\0')))
}

/// Lines that one has and the other has not, as often as they stand there.
fn lines(before: Option<String>, after: Option<String>, hide: fn(&str) -> String) -> Vec<String> {
    let (Some(before), Some(after)) = (before, after) else { return Vec::new() };
    let mut counts: BTreeMap<&str, i64> = BTreeMap::new();
    before.lines().for_each(|line| *counts.entry(line).or_default() -= 1);
    after.lines().for_each(|line| *counts.entry(line).or_default() += 1);
    let mut shown = Vec::new();
    for (text, mark, sign) in [(&before, '-', -1), (&after, '+', 1)] {
        for line in text.lines() {
            let Some(count) = counts.get_mut(line).filter(|count| **count * sign > 0) else { continue };
            *count -= sign;
            shown.push(format!("{mark} {}", hide(line)));
        }
    }
    let more = shown.len().saturating_sub(SHOWN);
    if more > 0 {
        shown.truncate(SHOWN);
        shown.push(format!("and {more} more lines"));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_lines_are_shown_without_their_secrets() {
        let before = "A=1\nDB_PASSWORD=old\nB=2\n".to_owned();
        let after = "A=1\nDB_PASSWORD=new\nB=3\nB=3\n".to_owned();
        assert_eq!(
            lines(Some(before), Some(after), hide_line),
            ["- DB_PASSWORD=(hidden)", "- B=2", "+ DB_PASSWORD=(hidden)", "+ B=3", "+ B=3"]
        );
    }
}
