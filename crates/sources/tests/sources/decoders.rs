//! What sources read back from recovery points, as functions that must return whatever they are given: the description of a
//! database and of a base backup, and pg_dump's archive. Shared with the fuzz targets in `fuzz/`; those of the repository's own
//! format stand in crates/repository/tests/format/targets.rs, where a test looks that both lists are complete.

use mainstay_sources::postgres::{cluster::ClusterFacts, facts::Facts, restore::archive::Reader};

/// A decoder and the checks around it, by name.
pub type Target = (&'static str, fn(&[u8]));

#[allow(dead_code)] // the fuzz targets call them one by one
pub const TARGETS: &[Target] =
    &[("dump_archive", dump_archive), ("database_facts", database_facts), ("cluster_facts", cluster_facts)];

pub fn dump_archive(bytes: &[u8]) {
    let Ok((mut reader, archive)) = Reader::open(bytes) else { return };
    for entry in &archive.entries {
        assert!(archive.entry(entry.id).is_some());
        let _ = (archive.describe(entry), archive.text(&entry.tag));
    }
    while let Ok(Some(_)) = reader.next_large_object() {
        while let Ok(Some(_)) = reader.content() {}
    }
}

pub fn database_facts(bytes: &[u8]) {
    let Ok(facts) =
        std::str::from_utf8(bytes).map_err(drop).and_then(|text| Facts::from_json(text).map_err(drop))
    else {
        return;
    };
    let written = facts.to_json().expect("what was read can be written");
    let again = Facts::from_json(&written).and_then(|facts| facts.to_json());
    assert_eq!(again.ok(), Some(written));
}

pub fn cluster_facts(bytes: &[u8]) {
    if let Some(facts) = std::str::from_utf8(bytes).ok().and_then(|text| ClusterFacts::from_json(text).ok()) {
        let _ = facts.major();
    }
}
