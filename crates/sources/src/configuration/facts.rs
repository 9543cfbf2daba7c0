//! What a record says of its tables, beside what `crate::files` says of its files in the same JSON document.

use mainstay_domain::{Failure, Result, point::SourceRecord};
use serde::{Deserialize, Serialize};

/// One table that was captured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableFact {
    pub name: String,
    pub rows: u64,
    pub bytes: u64,
    /// `schema.name` of the table; `None` for what a query said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Tables {
    tables: Vec<TableFact>,
}

/// The tables of a record.
pub fn tables(record: &SourceRecord) -> Result<Vec<TableFact>> {
    let facts: Tables = serde_json::from_str(&record.facts).map_err(|error| {
        Failure::verification("the description of a captured configuration cannot be read").caused_by(error)
    })?;
    Ok(facts.tables)
}

/// Adds the tables to the facts of the files.
pub(super) fn with_tables(facts: &str, tables: &[TableFact]) -> String {
    let mut document = serde_json::from_str(facts).unwrap_or_else(|_| serde_json::json!({ "version": 1 }));
    document["tables"] = serde_json::json!(tables);
    document.to_string()
}
