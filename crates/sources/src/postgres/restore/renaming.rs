//! The new names of what is restored beside what lives: of every object that has a name in a schema.

use super::{
    archive::{Archive, Entry},
    chosen::{PARTS, RELATIONS, REMARKS, Selection, owner_of},
    sql::{self, Renames},
};
use mainstay_domain::{Failure, Result};
use std::collections::HashSet;

/// New names for all that has a name in a schema.
pub fn renames(archive: &Archive, wanted: &HashSet<u32>, selection: &Selection) -> Result<Renames> {
    let mut renames = Renames::default();
    let mut taken: HashSet<(Vec<u8>, Vec<u8>)> = HashSet::new();
    if selection.to_schema.is_some() && selection.schemas.len() > 1 {
        return Err(Failure::usage("several schemas cannot go into one")
            .hint("Restore them one after the other, or without a new name."));
    }
    if selection.to_table.is_some() && (selection.tables.len() != 1 || !selection.schemas.is_empty()) {
        return Err(Failure::usage("a new table name needs exactly one table that gets it"));
    }
    if selection.to_schema.is_none() && selection.to_table.is_none() && selection.schema_suffix.is_none() {
        return Ok(renames);
    }
    for from in &selection.schemas {
        renames.schema(&archive.bytes(from), &archive.bytes(&selection.schema_for(from)));
    }
    for id in wanted {
        let Some(entry) = archive.entry(*id) else { continue };
        if entry.schema.is_empty() {
            continue;
        }
        for name in names_in_schema(archive, entry) {
            let schema = archive.bytes(&selection.schema_for(&archive.text(&entry.schema)));
            let new_name = match &selection.to_table {
                Some(to) => follow_table(archive, selection, &name, to),
                None => name.clone(),
            };
            let relation = RELATIONS.contains(&entry.kind.as_str());
            if relation && !taken.insert((schema.clone(), new_name.clone())) {
                return Err(Failure::usage(format!(
                    "two of the chosen tables would both be named {}.{}",
                    archive.text(&schema),
                    archive.text(&new_name)
                )));
            }
            renames.object((&entry.schema, &name), (&schema, &new_name));
        }
    }
    Ok(renames)
}

/// The names that an entry puts into its schema.
fn names_in_schema(archive: &Archive, entry: &Entry) -> Vec<Vec<u8>> {
    let tag = &entry.tag[..];
    match entry.kind.as_str() {
        // "table constraint": the constraint's index lies in the schema.
        "CONSTRAINT" => {
            owner_of(archive, entry).map(|owner| tag[owner.tag.len() + 1..].to_vec()).into_iter().collect()
        }
        kind if PARTS.contains(&kind)
            || REMARKS.contains(&kind)
            || kind.contains(' ') && !NAMED.contains(&kind) =>
        {
            Vec::new()
        }
        "FUNCTION" | "PROCEDURE" | "AGGREGATE" => {
            vec![tag.split(|b| *b == b'(').next().unwrap_or(tag).to_vec()]
        }
        // A range makes its multirange, too.
        "TYPE" => std::iter::once(tag.to_vec())
            .chain(sql::name_after(&entry.definition, b"multirange_type_name"))
            .collect(),
        _ => vec![tag.to_vec()],
    }
}

/// Kinds of two or three words that name an object in a schema.
const NAMED: [&str; 9] = [
    "FOREIGN TABLE",
    "MATERIALIZED VIEW",
    "SHELL TYPE",
    "OPERATOR CLASS",
    "OPERATOR FAMILY",
    "TEXT SEARCH CONFIGURATION",
    "TEXT SEARCH DICTIONARY",
    "TEXT SEARCH PARSER",
    "TEXT SEARCH TEMPLATE",
];

/// The name of what belongs to a table that gets a new one: `orders_pkey` of `orders` becomes `archived_pkey`.
fn follow_table(archive: &Archive, selection: &Selection, name: &[u8], to: &str) -> Vec<u8> {
    let old = archive.text(name);
    let new = match selection.tables.first().and_then(|table| old.strip_prefix(table.name.as_str())) {
        Some(rest) => format!("{to}{rest}"),
        None => format!("{to}_{old}"),
    };
    // Names have at most 63 bytes.
    let mut end = new.len().min(63);
    while !new.is_char_boundary(end) {
        end -= 1;
    }
    archive.bytes(&new[..end])
}
