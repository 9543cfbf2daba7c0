//! Of a selection: relations that have no captured rows. A view whose table is not there was never made, and no row and no
//! column would tell.

use super::{Comparison, Difference, inventory};
use crate::postgres::{
    facts::{Inventory, Object, ObjectKind, QualifiedName},
    restore::Names,
};

/// Looks for each, and at its definition as far as its names let it be compared.
pub(super) fn compare(
    comparison: &mut Comparison,
    chosen: &Names<'_>,
    (recorded, found): (&Inventory, &Inventory),
    same_version: bool,
    most: usize,
) {
    for (kind, name) in chosen.without_rows() {
        let into = chosen.name_of(&name.schema, &name.name);
        let Some(kind) = kind_of(kind) else {
            let outcome = inventory::columns(
                recorded.table(&name.schema, &name.name),
                found.table(&into.schema, &into.name),
                &into.to_string(),
                |text| chosen.text(&name.schema, text),
            );
            comparison.differ(outcome, most);
            continue;
        };
        *comparison.objects.entry(kind.words().to_owned()).or_default() += 1;
        let difference = |what: &str, recorded: &str, found: &str| Difference {
            kind: kind.words().to_owned(),
            object: into.to_string(),
            what: what.to_owned(),
            recorded: recorded.to_owned(),
            found: found.to_owned(),
        };
        let Some(here) = object(found, kind, &into) else {
            comparison.differ([difference("missing", "", "")], most);
            continue;
        };
        let Some(there) = object(recorded, kind, &name) else { continue };
        if there.valid && !here.valid {
            comparison.differ([difference("content", "there", "not filled")], most);
        }
        // Quotes stand where a name needs them, in a renamed one always.
        let plain = |text: &str| text.replace('"', "");
        if plain(&chosen.text(&name.schema, &there.definition)) == plain(&here.definition) {
            continue;
        }
        if same_version && into == name {
            comparison.differ([difference("definition", &there.definition, &here.definition)], most);
        } else {
            let reason = if same_version { "other names" } else { "another major version of the server" };
            comparison
                .skip(format!("{} {into}", kind.words()), format!("its definition is written with {reason}"));
        }
    }
}

/// Of what is no table.
fn kind_of(entry: &str) -> Option<ObjectKind> {
    match entry {
        "VIEW" => Some(ObjectKind::View),
        "MATERIALIZED VIEW" => Some(ObjectKind::MaterializedView),
        "SEQUENCE" => Some(ObjectKind::Sequence),
        _ => None,
    }
}

fn object<'i>(inventory: &'i Inventory, kind: ObjectKind, name: &QualifiedName) -> Option<&'i Object> {
    inventory.objects_of(kind).find(|o| crate::postgres::restore::named(&o.identity).as_ref() == Some(name))
}
