//! What an error means for the result: the one table in which single failures are forgiven.

use super::archive::Entry;

/// How much a failed statement takes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// What was to be made is there, or belongs to another: the reason.
    Harmless(&'static str),
    /// An object, or part of it, is missing.
    Missing,
}

/// One line of the table. `None` fits everything.
struct Forgiven {
    kind: &'static str,
    /// How the entry's tag begins.
    tag: &'static str,
    code: &'static str,
    reason: &'static str,
}

const INSUFFICIENT_PRIVILEGE: &str = "42501";
const DUPLICATE_SCHEMA: &str = "42P06";
const DUPLICATE_OBJECT: &str = "42710";

const FORGIVEN: [Forgiven; 5] = [
    Forgiven {
        kind: "COMMENT",
        tag: "EXTENSION ",
        code: INSUFFICIENT_PRIVILEGE,
        reason: "the comment on an extension belongs to whoever installed it",
    },
    Forgiven {
        kind: "COMMENT",
        tag: "SCHEMA public",
        code: INSUFFICIENT_PRIVILEGE,
        reason: "the comment on the schema public belongs to its owner, the server's",
    },
    Forgiven { kind: "SCHEMA", tag: "public", code: DUPLICATE_SCHEMA, reason: "every new database has it" },
    Forgiven { kind: "EXTENSION", tag: "", code: DUPLICATE_OBJECT, reason: "it is installed already" },
    Forgiven {
        kind: "PROCEDURAL LANGUAGE",
        tag: "",
        code: DUPLICATE_OBJECT,
        reason: "it is installed already",
    },
];

/// What exists already: table, object, function, schema, database.
const DUPLICATES: [&str; 5] = ["42P07", DUPLICATE_OBJECT, "42723", DUPLICATE_SCHEMA, "42P04"];

/// Judges the failure of an entry by its SQLSTATE. `borrowed`: the entry was not chosen itself, but is needed by what was, in a
/// database where it may well exist.
pub fn judge(entry: &Entry, borrowed: bool, code: &str) -> Verdict {
    if borrowed && DUPLICATES.contains(&code) {
        return Verdict::Harmless("it was there already and is used as it is");
    }
    let line = FORGIVEN
        .iter()
        .find(|f| f.kind == entry.kind && entry.tag.starts_with(f.tag.as_bytes()) && f.code == code);
    line.map_or(Verdict::Missing, |f| Verdict::Harmless(f.reason))
}

#[cfg(test)]
mod tests {
    use super::super::archive::Section;
    use super::*;

    fn entry(kind: &str, tag: &str) -> Entry {
        Entry {
            id: 1,
            kind: kind.to_owned(),
            tag: tag.into(),
            schema: Vec::new(),
            owner: Vec::new(),
            section: Section::PreData,
            definition: Vec::new(),
            drop: Vec::new(),
            tablespace: None,
            access_method: None,
            relkind: None,
            dependencies: Vec::new(),
        }
    }

    #[test]
    fn only_what_the_table_names_is_forgiven() {
        let missing = |kind, tag, code| judge(&entry(kind, tag), false, code) == Verdict::Missing;
        assert!(!missing("COMMENT", "EXTENSION hstore", "42501"));
        assert!(missing("COMMENT", "EXTENSION hstore", "42704"));
        assert!(missing("COMMENT", "TABLE orders", "42501"));
        assert!(missing("TABLE", "orders", "42P07"), "a table that is there is not the one recorded");
        assert!(missing("EXTENSION", "hstore", "0A000"));
    }

    #[test]
    fn what_is_only_needed_may_be_there_already() {
        assert!(matches!(judge(&entry("TYPE", "mood"), true, "42710"), Verdict::Harmless(_)));
        assert!(matches!(judge(&entry("TYPE", "mood"), true, "42501"), Verdict::Missing));
    }
}
