//! The configuration's JSON schema, for editors and for `doc/reference/config.md`.

use super::Config;

/// The schema of `mainstay.yaml`, as a JSON document (draft 2020-12).
pub fn schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(Config);
    schema.insert("title".to_owned(), "Mainstay configuration".into());
    schema.to_value()
}
