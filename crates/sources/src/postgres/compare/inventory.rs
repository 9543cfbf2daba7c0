//! Compares two descriptions of a database, field by field.

use super::{Difference, NotCompared};
use crate::postgres::{
    facts::{Database, Facts, Inventory, Object, ObjectKind, Table},
    restore::unfinished::own_comment,
};
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What came out of comparing two inventories.
#[derive(Debug, Default)]
pub struct Outcome {
    pub differences: Vec<Difference>,
    pub not_comparable: Vec<NotCompared>,
    /// Objects of each kind that both have.
    pub compared: BTreeMap<String, u64>,
}

/// Fields that say where or how large, not what.
const NOT_PART_OF_IT: [&str; 1] = ["disk_bytes"];

/// Texts that the server composes; another major version may compose them otherwise.
const COMPOSED: [&str; 5] = ["definition", "default", "generated", "partition_key", "partition_bound"];

/// What other versions of the server do otherwise of themselves: kind, object, field. Empty fits all.
const CHANGED: [(&str, &str, &str); 3] = [
    // The version of an extension is the one that the server brings.
    ("extension", "", "version"),
    // From 17, partitions share the identity of their parent's column.
    ("column", "", "identity"),
    // From 15 it belongs to the database's owner, and not everybody may create in it.
    ("schema", "public", ""),
];

/// Whether the texts of the captured server and of one with this `server_version_num` compare literally.
pub fn same_version(facts: &Facts, version_num: u32) -> bool {
    facts.server.major() == version_num / 10_000
}

/// Compares everything but the databases' names. Without `same_version`, a difference in a text that the server composes is
/// listed as not comparable.
pub fn differences(recorded: &Inventory, found: &Inventory, same_version: bool) -> Outcome {
    let mut outcome = Outcome::default();
    let mut compare = Compare { outcome: &mut outcome, same_version };

    let [mut database, mut here] = [&recorded.database, &found.database].map(|database| {
        // What is compared before it is finished carries its comment in the mark.
        let comment = own_comment(database.comment.clone());
        fields(&Database { comment, ..database.clone() })
    });
    for fields in [&mut database, &mut here] {
        fields.remove("name");
        // A place. The restore says so if it is another.
        fields.remove("tablespace");
    }
    // The version of the operating system's collation: a matter of the machine; a mismatch is the server's to report.
    if let (Some(a), Some(b)) = (database.remove("collation_version"), here.remove("collation_version"))
        && a != b
    {
        compare.outcome.not_comparable.push(NotCompared {
            object: "sorting of text".to_owned(),
            reason: format!("the collation is of version {} there and {} here", text(&a), text(&b)),
        });
    }
    compare.fields("database", &recorded.database.name, &database, &here);

    compare.lists("extension", &recorded.extensions, &found.extensions, |e| e.name.clone());
    compare.tables(&recorded.tables, &found.tables);
    let kinds: BTreeSet<ObjectKind> = recorded.objects.iter().chain(&found.objects).map(|o| o.kind).collect();
    for kind in kinds {
        let of_kind =
            |inventory: &Inventory| -> Vec<Object> { inventory.objects_of(kind).cloned().collect() };
        compare.lists(kind.words(), &of_kind(recorded), &of_kind(found), |o| o.identity.clone());
    }
    outcome.differences.sort();
    outcome
}

/// Only the columns of one table. `renamed` gives the text of a type the names that the restore gave.
pub(super) fn columns(
    recorded: Option<&Table>,
    found: Option<&Table>,
    name: &str,
    renamed: impl Fn(&str) -> String,
) -> Vec<Difference> {
    let mut outcome = Outcome::default();
    match (recorded, found) {
        (_, None) => outcome.differences.push(one("table", name, "missing", "", "")),
        (None, _) => {}
        (Some(recorded), Some(found)) => {
            // Quotes stand where a name needs them, in a renamed one always.
            let names = |table: &Table, renamed: &dyn Fn(&str) -> String| -> Vec<String> {
                table
                    .columns
                    .iter()
                    .map(|c| format!("{} {}", c.name, renamed(&c.r#type).replace('"', "")))
                    .collect()
            };
            let (a, b) = (names(recorded, &renamed), names(found, &str::to_owned));
            if a != b {
                outcome.differences.push(one("table", name, "columns", &a.join(", "), &b.join(", ")));
            }
        }
    }
    outcome.differences
}

fn one(kind: &str, object: &str, what: &str, recorded: &str, found: &str) -> Difference {
    let [kind, object, what, recorded, found] = [kind, object, what, recorded, found].map(str::to_owned);
    Difference { kind, object, what, recorded, found }
}

type Fields = serde_json::Map<String, Value>;

fn fields(value: &impl Serialize) -> Fields {
    match serde_json::to_value(value) {
        Ok(Value::Object(fields)) => fields,
        _ => Fields::new(),
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.iter().all(Value::is_string) => {
            let items: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
            items.join(", ")
        }
        other => other.to_string(),
    }
}

struct Compare<'a> {
    outcome: &'a mut Outcome,
    same_version: bool,
}

impl Compare<'_> {
    fn lists<T: Serialize>(&mut self, kind: &str, recorded: &[T], found: &[T], name: impl Fn(&T) -> String) {
        let here: BTreeMap<String, &T> = found.iter().map(|item| (name(item), item)).collect();
        let mut seen = BTreeSet::new();
        for item in recorded {
            let name = name(item);
            match here.get(&name) {
                Some(other) => {
                    *self.outcome.compared.entry(kind.to_owned()).or_default() += 1;
                    self.fields(kind, &name, &fields(item), &fields(*other));
                }
                None => self.outcome.differences.push(one(kind, &name, "missing", "", "")),
            }
            seen.insert(name);
        }
        for added in here.keys().filter(|name| !seen.contains(*name)) {
            self.outcome.differences.push(one(kind, added, "added", "", ""));
        }
    }

    fn tables(&mut self, recorded: &[Table], found: &[Table]) {
        let without_columns = |tables: &[Table]| -> Vec<Table> {
            tables.iter().cloned().map(|t| Table { columns: Vec::new(), ..t }).collect()
        };
        let name = |t: &Table| format!("{}.{}", t.schema, t.name);
        self.lists("table", &without_columns(recorded), &without_columns(found), name);
        for table in recorded {
            let Some(other) = found.iter().find(|t| t.schema == table.schema && t.name == table.name) else {
                continue;
            };
            let column = |table: &Table, name: &str| format!("{}.{}.{name}", table.schema, table.name);
            self.lists("column", &table.columns, &other.columns, |c| column(table, &c.name));
            let order = |t: &Table| t.columns.iter().map(|c| c.name.clone()).collect::<Vec<_>>();
            let (a, b) = (order(table), order(other));
            if a != b && a.len() == b.len() && a.iter().all(|c| b.contains(c)) {
                let found = one("table", &name(table), "order of columns", &a.join(", "), &b.join(", "));
                self.outcome.differences.push(found);
            }
        }
    }

    fn fields(&mut self, kind: &str, object: &str, recorded: &Fields, found: &Fields) {
        let names: BTreeSet<&String> = recorded.keys().chain(found.keys()).collect();
        for field in names.into_iter().filter(|f| !NOT_PART_OF_IT.contains(&f.as_str())) {
            let (a, b) =
                (recorded.get(field).unwrap_or(&Value::Null), found.get(field).unwrap_or(&Value::Null));
            if a == b {
                continue;
            }
            let version_may_tell = !self.same_version
                && (COMPOSED.contains(&field.as_str())
                    || (field == "acl" && without_maintain(a) == without_maintain(b))
                    || CHANGED.iter().any(|(k, o, f)| {
                        kind == *k && (o.is_empty() || object == *o) && (f.is_empty() || field == f)
                    }));
            if version_may_tell {
                self.outcome.not_comparable.push(NotCompared {
                    object: format!("{kind} {object}"),
                    reason: format!(
                        "its {field} depends on the version of the server: {} there, {} here",
                        text(a),
                        text(b)
                    ),
                });
            } else {
                self.outcome.differences.push(one(kind, object, field, &text(a), &text(b)));
            }
        }
    }
}

/// An ACL without the privilege MAINTAIN, which PostgreSQL 17 added to what ALL means.
fn without_maintain(acl: &Value) -> String {
    let strip = |item: &str| match item.split_once('=') {
        Some((role, rest)) => {
            let (privileges, grantor) = rest.split_once('/').unwrap_or((rest, ""));
            format!("{role}={}/{grantor}", privileges.replace("m*", "").replace('m', ""))
        }
        None => item.to_owned(),
    };
    match acl {
        Value::Array(items) => {
            items.iter().filter_map(Value::as_str).map(strip).collect::<Vec<_>>().join(",")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::facts::Extension;

    fn object(identity: &str, definition: &str) -> Object {
        let json = serde_json::json!({
            "kind": "view", "identity": identity, "schema": "public", "table": null, "definition": definition,
            "owner": "a", "acl": null, "comment": null, "valid": true, "extension": null
        });
        serde_json::from_value(json).unwrap()
    }

    fn inventory(objects: Vec<Object>) -> Inventory {
        Inventory { objects, ..Inventory::default() }
    }

    #[test]
    fn what_is_missing_added_or_changed_is_named() {
        let recorded = inventory(vec![object("public.a", "SELECT 1"), object("public.b", "SELECT 2")]);
        let found = inventory(vec![object("public.b", "SELECT 3"), object("public.c", "SELECT 2")]);
        let outcome = differences(&recorded, &found, true);
        let shown: Vec<String> = outcome.differences.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "view public.a is missing",
                "view public.b: definition was SELECT 2 and is SELECT 3",
                "view public.c was not there when it was captured"
            ]
        );
        assert_eq!(outcome.compared["view"], 1);
    }

    #[test]
    fn another_version_of_the_server_makes_texts_incomparable_never_equal() {
        let recorded = inventory(vec![object("public.a", "SELECT 1")]);
        let found = inventory(vec![object("public.a", "SELECT (1)")]);
        let outcome = differences(&recorded, &found, false);
        assert!(outcome.differences.is_empty());
        assert_eq!(outcome.not_comparable[0].object, "view public.a");
    }

    #[test]
    fn a_new_version_of_an_extension_is_a_difference() {
        let with = |version: &str| Inventory {
            extensions: vec![Extension {
                name: "hstore".to_owned(),
                version: version.to_owned(),
                schema: "public".to_owned(),
            }],
            ..Inventory::default()
        };
        let outcome = differences(&with("1.7"), &with("1.8"), true);
        assert_eq!(outcome.differences[0].to_string(), "extension hstore: version was 1.7 and is 1.8");
        let outcome = differences(&with("1.7"), &with("1.8"), false);
        assert_eq!(outcome.not_comparable.len(), 1, "another server brings another version");
    }

    #[test]
    fn the_privilege_that_version_17_added_is_seen_as_such() {
        let acl = |text: &str| serde_json::json!([text]);
        assert_eq!(without_maintain(&acl("mara=arwdDxtm/mara")), without_maintain(&acl("mara=arwdDxt/mara")));
        assert_ne!(without_maintain(&acl("mara=arwm/x")), without_maintain(&acl("mara=ar/x")));
    }
}
