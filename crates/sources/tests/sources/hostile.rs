//! No bytes make a decoder of the sources panic.

use crate::decoders::TARGETS;
use proptest::{collection::vec, prelude::*};

/// JSON whose names are those of the descriptions, and whose values are of any type.
fn description() -> impl Strategy<Value = Vec<u8>> {
    let value = prop_oneof![
        Just("null".to_owned()),
        any::<i64>().prop_map(|n| n.to_string()),
        Just("1e999".to_owned()),
        "[a-z\\\\u]{0,6}".prop_map(|s| format!("{s:?}")),
        Just("[]".to_owned()),
        Just("{}".to_owned()),
        (1..300_usize).prop_map(|deep| "[".repeat(deep)),
    ];
    let name = prop::sample::select(vec![
        "version",
        "server",
        "snapshot",
        "session",
        "inventory",
        "tables",
        "sequences",
        "large_objects",
        "unread",
        "streams",
        "system_identifier",
        "start_lsn",
        "stop_lsn",
        "timeline",
        "tablespaces",
        "version_num",
    ]);
    vec((name, value), 0..12).prop_map(|fields| {
        let fields: Vec<_> = fields.iter().map(|(name, value)| format!("{name:?}:{value}")).collect();
        format!("{{\"version\":1,{}}}", fields.join(",")).into_bytes()
    })
}

/// The head of an archive, and anything after it.
fn archive() -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![Just(0_u8), Just(1), any::<u8>()], 0..400)
        .prop_map(|rest| [&b"PGDMP\x01\x10\x00\x04\x08\x01\x00"[..], &[0; 35], &rest].concat())
}

proptest! {
    #[test]
    fn every_decoder_survives_any_bytes(
        bytes in prop_oneof![vec(any::<u8>(), 0..300), description(), archive()]
    ) {
        TARGETS.iter().for_each(|(_, decode)| decode(&bytes));
    }
}
