//! Which entries of an archive, and which tables of rows, a restore brings back, and under which names.
//!
//! Without a selection: everything. With one: the tables and schemas named; what belongs to them (partitions, owned
//! sequences, indexes, constraints, triggers, policies, privileges, comments); and, *borrowed*, what they cannot be made
//! without (types, functions, extensions …), which is made only where it is not there yet.

use super::{
    archive::{Archive, Entry, Section},
    renaming,
    sql::{self, Renames},
};
use crate::postgres::{
    facts::{Facts, ObjectKind, QualifiedName, SequenceValue, TableData, TableKind},
    wire::text as wire_text,
};
use mainstay_domain::{Failure, Result};
use std::collections::{BTreeSet, HashMap, HashSet};

/// What to bring back. Empty: everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    pub schemas: Vec<String>,
    /// Tables, views, materialized views, sequences.
    pub tables: Vec<QualifiedName>,
    /// Put it into this schema, which is made if it is not there.
    pub to_schema: Option<String>,
    /// Put each of the schemas into one of its own name with this behind it.
    pub schema_suffix: Option<String>,
    /// Give the one table that is chosen another name.
    pub to_table: Option<String>,
}

impl Selection {
    pub fn is_everything(&self) -> bool {
        self.schemas.is_empty() && self.tables.is_empty()
    }

    /// The schema that what lies in `schema` goes to.
    pub fn schema_for(&self, schema: &str) -> String {
        match (&self.to_schema, &self.schema_suffix) {
            (Some(to), _) => to.clone(),
            (None, Some(suffix)) => format!("{schema}{suffix}"),
            (None, None) => schema.to_owned(),
        }
    }

    /// Schemas that are made for it.
    fn new_schemas(&self) -> Vec<String> {
        match (&self.to_schema, &self.schema_suffix) {
            (Some(to), _) => vec![to.clone()],
            (None, Some(_)) => self.schemas.iter().map(|schema| self.schema_for(schema)).collect(),
            (None, None) => Vec::new(),
        }
    }
}

/// When an entry is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The database itself.
    Database,
    PreData,
    PostData,
    Privileges,
    EventTriggers,
}

#[derive(Debug, Clone)]
pub struct ChosenEntry<'a> {
    pub entry: &'a Entry,
    pub stage: Stage,
    /// Not chosen itself, but needed by what is.
    pub borrowed: bool,
}

#[derive(Debug)]
pub struct Chosen<'a> {
    /// In the archive's order.
    pub entries: Vec<ChosenEntry<'a>>,
    pub renames: Renames,
    /// The schemas to make first.
    pub new_schemas: Vec<String>,
    pub tables: Vec<&'a TableData>,
    pub sequences: Vec<&'a SequenceValue>,
    pub large_objects: bool,
    pub everything: bool,
    /// Tables that were asked for by name, and their partitions: captured or not.
    named: BTreeSet<QualifiedName>,
}

impl Chosen<'_> {
    /// Schema and name that a captured relation gets.
    pub fn name_of(&self, archive: &Archive, schema: &str, name: &str) -> QualifiedName {
        let (schema, name) = self.renames.of(&archive.bytes(schema), &archive.bytes(name));
        QualifiedName { schema: archive.text(&schema), name: archive.text(&name) }
    }

    /// Whether the table was asked for by name, or is a partition of one that was.
    pub fn is_named(&self, table: &TableData) -> bool {
        self.named.contains(&QualifiedName { schema: table.schema.clone(), name: table.name.clone() })
    }

    pub fn in_stage(&self, stage: Stage) -> impl Iterator<Item = &ChosenEntry<'_>> {
        self.entries.iter().filter(move |e| e.stage == stage)
    }
}

/// Relations have rows, or a name in `pg_class` of their own.
pub const RELATIONS: [&str; 5] = ["TABLE", "FOREIGN TABLE", "VIEW", "MATERIALIZED VIEW", "SEQUENCE"];

/// Whether the archive holds a table's definition. Of a table that its user might not even lock it does not.
pub(crate) fn defines(archive: &Archive, schema: &str, name: &str) -> bool {
    let (schema, name) = (archive.bytes(schema), archive.bytes(name));
    archive
        .entries
        .iter()
        .any(|e| RELATIONS.contains(&e.kind.as_str()) && e.schema == schema && e.tag == name)
}

/// Parts of a table; their tag is the table's name, or begins with it.
pub const PARTS: [&str; 8] = [
    "DEFAULT",
    "CONSTRAINT",
    "CHECK CONSTRAINT",
    "FK CONSTRAINT",
    "TRIGGER",
    "RULE",
    "POLICY",
    "ROW SECURITY",
];

/// What is said about other objects, and goes with them.
pub const REMARKS: [&str; 3] = ["COMMENT", "ACL", "SECURITY LABEL"];

fn stages(archive: &Archive) -> impl Iterator<Item = (&Entry, Stage)> {
    let mut current = Section::PreData;
    archive.entries.iter().map(move |entry| {
        if entry.section != Section::Unplaced {
            current = entry.section;
        }
        let of_database = entry.tag.starts_with(b"DATABASE ") && REMARKS.contains(&entry.kind.as_str());
        let stage = match entry.kind.as_str() {
            "DATABASE" | "DATABASE PROPERTIES" => Stage::Database,
            _ if of_database => Stage::Database,
            "ACL" | "DEFAULT ACL" => Stage::Privileges,
            "EVENT TRIGGER" => Stage::EventTriggers,
            "COMMENT" | "SECURITY LABEL" if entry.tag.starts_with(b"EVENT TRIGGER ") => Stage::EventTriggers,
            _ if current == Section::PostData => Stage::PostData,
            _ => Stage::PreData,
        };
        (entry, stage)
    })
}

/// The entries about the database itself.
pub fn of_database(archive: &Archive) -> impl Iterator<Item = &Entry> {
    stages(archive).filter(|(_, stage)| *stage == Stage::Database).map(|(entry, _)| entry)
}

/// # Errors
/// `Usage` for a selection that names what is not there, or asks for names that cannot be given.
pub fn choose<'a>(archive: &'a Archive, facts: &'a Facts, selection: &Selection) -> Result<Chosen<'a>> {
    let captured = |t: &&TableData| t.skipped.is_none();
    if selection.is_everything() {
        if selection.to_schema.is_some() || selection.to_table.is_some() || selection.schema_suffix.is_some()
        {
            return Err(Failure::usage("a new schema or table name needs the table or schema that gets it")
                .hint("Name it with --table or --schema."));
        }
        let entries = stages(archive).filter(|(_, stage)| *stage != Stage::Database);
        return Ok(Chosen {
            entries: entries.map(|(entry, stage)| ChosenEntry { entry, stage, borrowed: false }).collect(),
            renames: Renames::default(),
            new_schemas: Vec::new(),
            tables: facts.tables.iter().filter(captured).collect(),
            sequences: facts.sequences.iter().collect(),
            large_objects: facts.large_objects.stream.is_some(),
            everything: true,
            named: BTreeSet::new(),
        });
    }
    let relations = relations(facts, selection)?;
    let by_name =
        |name: &&QualifiedName| !selection.schemas.contains(&name.schema) || selection.tables.contains(name);
    let named = relations.iter().filter(by_name).cloned().collect();
    let mut choice = Choice { archive, relations, schemas: &selection.schemas, wanted: HashSet::new() };
    let in_order: Vec<_> = stages(archive).filter(|(_, stage)| *stage != Stage::Database).collect();
    for (entry, _) in &in_order {
        if choice.wants(entry) {
            choice.wanted.insert(entry.id);
        }
    }
    let renames = renaming::renames(archive, &choice.wanted, selection)?;
    let borrowed = borrowed(&choice, &in_order, &renames);
    let entries = in_order
        .into_iter()
        .filter(|(entry, _)| choice.wanted.contains(&entry.id) || borrowed.contains(&entry.id))
        .map(|(entry, stage)| ChosenEntry { entry, stage, borrowed: borrowed.contains(&entry.id) })
        .collect();
    // By the entries: what an extension made is not among them, and what it holds in a living database is not ours.
    let made: HashSet<(String, String)> = choice
        .wanted
        .iter()
        .filter_map(|id| archive.entry(*id))
        .filter(|e| RELATIONS.contains(&e.kind.as_str()))
        .map(|e| (archive.text(&e.schema), archive.text(&e.tag)))
        .collect();
    let has = |schema: &String, name: &String| made.contains(&(schema.clone(), name.clone()));
    Ok(Chosen {
        entries,
        renames,
        new_schemas: selection.new_schemas(),
        tables: facts.tables.iter().filter(captured).filter(|t| has(&t.schema, &t.name)).collect(),
        sequences: facts.sequences.iter().filter(|s| has(&s.schema, &s.name)).collect(),
        large_objects: false,
        everything: false,
        named,
    })
}

/// The relations that are named, with their partitions and the sequences that they own.
fn relations(facts: &Facts, selection: &Selection) -> Result<BTreeSet<QualifiedName>> {
    let inventory = &facts.inventory;
    let name = |schema: &str, name: &str| QualifiedName { schema: schema.to_owned(), name: name.to_owned() };
    for schema in &selection.schemas {
        if !inventory.objects_of(ObjectKind::Schema).any(|o| o.schema == *schema) && schema != "public" {
            return Err(Failure::usage(format!("schema {schema} is not in this recovery point")));
        }
    }
    let others = |wanted: &QualifiedName| {
        let kinds = [ObjectKind::View, ObjectKind::MaterializedView, ObjectKind::Sequence];
        let mut objects = inventory.objects.iter();
        objects.any(|o| kinds.contains(&o.kind) && named(&o.identity).as_ref() == Some(wanted))
    };
    let mut found: BTreeSet<QualifiedName> = BTreeSet::new();
    for wanted in &selection.tables {
        if inventory.table(&wanted.schema, &wanted.name).is_none() && !others(wanted) {
            return Err(Failure::usage(format!("table {wanted} is not in this recovery point"))
                .hint("`mainstay ls POINT` shows what is."));
        }
        found.insert(wanted.clone());
    }
    // Partitions of partitions: until nothing new comes.
    loop {
        let more: Vec<_> = inventory
            .tables
            .iter()
            .filter(|t| t.partition_bound.is_some() || t.kind == TableKind::Partition)
            .filter(|t| t.inherits.iter().any(|parent| found.contains(parent)))
            .map(|t| name(&t.schema, &t.name))
            .filter(|t| !found.contains(t))
            .collect();
        if more.is_empty() {
            break;
        }
        found.extend(more);
    }
    let owned: Vec<_> = inventory
        .objects_of(ObjectKind::Sequence)
        .filter(|o| o.table.as_ref().is_some_and(|owner| found.contains(owner)))
        .filter_map(|o| named(&o.identity))
        .collect();
    found.extend(owned);
    // Of whole schemas: so that rows and values are found by the same names.
    let in_schemas = |schema: &String| selection.schemas.contains(schema);
    found.extend(inventory.tables.iter().filter(|t| in_schemas(&t.schema)).map(|t| name(&t.schema, &t.name)));
    found.extend(facts.sequences.iter().filter(|s| in_schemas(&s.schema)).map(|s| name(&s.schema, &s.name)));
    Ok(found)
}

/// Schema and name of an identity such as `public."Orders"`.
pub fn named(identity: &str) -> Option<QualifiedName> {
    let part = |at| sql::name_at(&wire_text::encode(identity), at).map(|name| wire_text::decode(&name));
    Some(QualifiedName { schema: part(0)?, name: part(2)? })
}

struct Choice<'a> {
    archive: &'a Archive,
    relations: BTreeSet<QualifiedName>,
    schemas: &'a [String],
    wanted: HashSet<u32>,
}

impl Choice<'_> {
    fn has_relation(&self, schema: &str, name: &str) -> bool {
        self.relations.contains(&QualifiedName { schema: schema.to_owned(), name: name.to_owned() })
    }

    fn in_schema(&self, schema: &[u8]) -> bool {
        !schema.is_empty() && self.schemas.contains(&self.archive.text(schema))
    }

    fn is_relation(&self, entry: &Entry) -> bool {
        RELATIONS.contains(&entry.kind.as_str())
            && (self.in_schema(&entry.schema)
                || self.has_relation(&self.archive.text(&entry.schema), &self.archive.text(&entry.tag)))
    }

    fn depends_on(&self, entry: &Entry, condition: impl Fn(&Entry) -> bool) -> bool {
        entry.dependencies.iter().filter_map(|id| self.archive.entry(*id)).any(condition)
    }

    /// Whether an entry is chosen, or belongs to what is. Entries come after those they belong to.
    fn wants(&self, entry: &Entry) -> bool {
        let chosen = |e: &Entry| self.wanted.contains(&e.id);
        match entry.kind.as_str() {
            kind if RELATIONS.contains(&kind) => self.is_relation(entry),
            "SCHEMA" => self.schemas.contains(&self.archive.text(&entry.tag)),
            kind if PARTS.contains(&kind) => self.depends_on(entry, |owner| {
                RELATIONS.contains(&owner.kind.as_str())
                    && owner.schema == entry.schema
                    && begins_with_name(&entry.tag, &owner.tag)
                    && chosen(owner)
            }),
            "INDEX" | "STATISTICS" => self.depends_on(entry, |e| {
                ["TABLE", "MATERIALIZED VIEW"].contains(&e.kind.as_str()) && chosen(e)
            }),
            // Both ends must be there.
            "INDEX ATTACH" | "TABLE ATTACH" => !self.depends_on(entry, |e| {
                ["TABLE", "INDEX", "CONSTRAINT"].contains(&e.kind.as_str()) && !chosen(e)
            }),
            "SEQUENCE OWNED BY" => {
                self.has_relation(&self.archive.text(&entry.schema), &self.archive.text(&entry.tag))
                    && !self.depends_on(entry, |e| e.kind == "TABLE" && !chosen(e))
            }
            kind if REMARKS.contains(&kind) => self.depends_on(entry, |e| e.kind != "ACL" && chosen(e)),
            "PUBLICATION TABLE" | "PUBLICATION TABLES IN SCHEMA" => false,
            _ => self.in_schema(&entry.schema),
        }
    }
}

fn begins_with_name(tag: &[u8], name: &[u8]) -> bool {
    tag.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest[0] == b' ')
}

/// What the chosen entries need and is no relation: types, functions, collations, extensions, schemas.
fn borrowed(choice: &Choice<'_>, in_order: &[(&Entry, Stage)], renames: &Renames) -> HashSet<u32> {
    let by_id: HashMap<u32, &Entry> =
        in_order.iter().filter(|(_, s)| *s == Stage::PreData).map(|(e, _)| (e.id, *e)).collect();
    let moved = |e: &Entry| {
        let (schema, _) = renames.of(&e.schema, &e.tag);
        RELATIONS.contains(&e.kind.as_str()) && schema != e.schema
    };
    let mut open: Vec<&Entry> =
        in_order.iter().map(|(e, _)| *e).filter(|e| choice.wanted.contains(&e.id)).collect();
    let mut found = HashSet::new();
    while let Some(entry) = open.pop() {
        for needed in entry.dependencies.iter().filter_map(|id| by_id.get(id)) {
            let own_schema = needed.kind == "SCHEMA" && needed.tag == entry.schema && moved(entry);
            let skip = own_schema
                || choice.wanted.contains(&needed.id)
                || (RELATIONS.contains(&needed.kind.as_str()) && needed.kind != "SEQUENCE")
                || PARTS.contains(&needed.kind.as_str());
            if !skip && found.insert(needed.id) {
                open.push(needed);
            }
        }
    }
    found
}

/// The relation that a part belongs to.
pub fn owner_of<'a>(archive: &'a Archive, entry: &Entry) -> Option<&'a Entry> {
    let owners = entry.dependencies.iter().filter_map(|id| archive.entry(*id));
    owners
        .filter(|o| RELATIONS.contains(&o.kind.as_str()) && o.schema == entry.schema)
        .find(|o| begins_with_name(&entry.tag, &o.tag) && entry.tag.len() > o.tag.len())
}
