//! No bytes make a decoder panic, overflow its stack or take memory without end.
//!
//! Three sources of bytes: random ones; random CBOR, with lengths that lie; and what real objects hold, changed in a few
//! places. This runs with every test; `PROPTEST_CASES=100000` makes it thorough. And in the same order every time, each real
//! object is changed and put together with others; `MAINSTAY_FUZZ_ROUNDS=1000` makes that thorough. Both need nothing but the
//! usual compiler. `make fuzz` runs the same functions for as long as one likes, guided by coverage.

use crate::{golden, sample, targets::TARGETS};
use mainstay_domain::{
    ChunkId, PackId, Time,
    listing::encode_item,
    stream::{Content, Piece, Pool},
};
use mainstay_keys::kit::Kit;
use mainstay_repository::pack::{object_name, parse_object_name};
use proptest::{collection::vec, prelude::*, test_runner::TestRunner};
use std::{fs, panic::catch_unwind, path::Path};

/// What real objects hold: the objects of the newest golden repository, the bodies of the signed ones, and all the
/// plaintexts of `doc/vectors.json`.
fn corpus() -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for (name, bytes) in golden::load(&golden::directory("v1")).objects() {
        // A few of the log's entries are enough, and the packs' insides are noise to whoever lacks the key.
        if name.starts_with("packs/") {
            found.push(bytes[..208].to_vec());
            continue;
        }
        let length = bytes.get(8..12).map_or(0, |b| u32::from_be_bytes(b.try_into().unwrap()) as usize);
        found.extend(bytes.get(12..12 + length).map(<[u8]>::to_vec));
        found.push(bytes.to_vec());
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../doc/vectors.json");
    collect_hex(&serde_json::from_slice(&fs::read(path).unwrap()).unwrap(), &mut found);
    // The events of the log one after the other, as `log_fold` takes them: an array of two in the body's field 5.
    let events: Vec<u8> = found.iter().filter_map(|body| event_of(body)).flatten().collect();
    found.push(events);
    found.extend(what_lies_sealed());
    found.sort();
    found.dedup();
    found
}

/// A listing, a list of chunks and a kit as their decoders take them.
fn what_lies_sealed() -> [Vec<u8>; 3] {
    let mut listing = Vec::new();
    let content = |_: &[u8], bytes: &[u8]| Content {
        level: 0,
        pieces: vec![Piece::plain(ChunkId(*blake3::hash(bytes).as_bytes()), bytes.len() as u64)],
    };
    sample::items(1, &content).iter().for_each(|item| encode_item(item, &mut listing));
    let marked =
        Piece { rows: 7, digest: 1 << 100, key: b"key".to_vec(), ..Piece::plain(ChunkId([1; 32]), 9) };
    let list = vec![
        Piece::plain(ChunkId([2; 32]), 1 << 20),
        marked,
        Piece { chunk: None, ..Piece::plain(ChunkId([0; 32]), 5) },
    ];
    let objects: Vec<_> = golden::load(&golden::directory("v1"))
        .objects()
        .into_iter()
        .filter(|(name, _)| ["format", "trust/", "keys/"].iter().any(|kind| name.starts_with(kind)))
        .map(|(name, bytes)| (name, bytes.to_vec()))
        .collect();
    let stores = ["file:///srv/backup".to_owned()];
    let kit =
        Kit { name: "main", root: [5; 32], created: Time(0), stores: &stores, objects: &objects, key: None };
    [listing, minicbor::to_vec(list).unwrap(), kit.text().as_bytes().to_vec()]
}

fn event_of(body: &[u8]) -> Option<Vec<u8>> {
    let mut decoder = minicbor::Decoder::new(body);
    for _ in 0..decoder.map().ok()?? {
        let key = decoder.u64().ok()?;
        let start = decoder.position();
        decoder.skip().ok()?;
        if key == 5 && body[start] == 0x82 {
            return Some(body[start..decoder.position()].to_vec());
        }
    }
    None
}

/// Every string of hexadecimal digits in a JSON value, as bytes.
fn collect_hex(value: &serde_json::Value, found: &mut Vec<Vec<u8>>) {
    match value {
        serde_json::Value::String(text) => found.extend(hex::decode(text).ok().filter(|b| b.len() > 16)),
        serde_json::Value::Array(values) => values.iter().for_each(|value| collect_hex(value, found)),
        serde_json::Value::Object(values) => values.values().for_each(|value| collect_hex(value, found)),
        _ => {}
    }
}

/// A CBOR head: major type and number, in the shortest form.
fn head(major: u8, number: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = minicbor::Encoder::new(&mut out);
    encoder.u64(number).unwrap();
    out[0] |= major << 5;
    out
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![4 => 0..24usize, 1 => Just(16), 2 => Just(32), 1 => Just(12), 1 => Just(64)]
}

/// A CBOR item; now and then its length is a lie.
fn cbor() -> impl Strategy<Value = Vec<u8>> {
    let number = prop_oneof![6 => 0..20u64, 2 => any::<u64>(), 1 => Just(u64::MAX), 1 => Just(1u64 << 63)];
    let leaf = prop_oneof![
        4 => number.clone().prop_map(|n| head(0, n)),
        1 => number.prop_map(|n| head(1, n)),
        4 => length().prop_flat_map(|n| vec(any::<u8>(), n)).prop_map(|b| [head(2, b.len() as u64), b].concat()),
        2 => "[a-z/.0-9é]{0,12}".prop_map(|s| [head(3, s.len() as u64), s.into_bytes()].concat()),
        1 => prop_oneof![Just(0xf4), Just(0xf5), Just(0xf6), Just(0xf7), Just(0xff), Just(0x9f)].prop_map(|b| vec![b]),
    ];
    leaf.prop_recursive(5, 60, 12, |inner| {
        let lie = || prop_oneof![30 => Just(0i64), 1 => Just(1), 1 => Just(-1), 1 => Just(i64::MAX)];
        let claim = |length: usize, lie: i64| (length as u64).saturating_add_signed(lie);
        prop_oneof![
            (vec(inner.clone(), 0..8), lie()).prop_map(move |(items, lie)| [
                head(4, claim(items.len(), lie)),
                items.concat()
            ]
            .concat()),
            (vec(inner, 0..14), lie()).prop_map(move |(values, lie)| {
                let mut out = head(5, claim(values.len(), lie));
                for (key, value) in values.into_iter().enumerate() {
                    out.extend(head(0, key as u64));
                    out.extend(value);
                }
                out
            }),
        ]
    })
}

/// One change to some bytes.
#[derive(Debug, Clone)]
enum Change {
    Set(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Remove(prop::sample::Index, usize),
    Insert(prop::sample::Index, Vec<u8>),
    Repeat(prop::sample::Index, usize),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        4 => (at(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        1 => at().prop_map(Change::Cut),
        1 => (at(), 1..40usize).prop_map(|(at, n)| Change::Remove(at, n)),
        2 => (at(), prop_oneof![vec(any::<u8>(), 1..20), cbor()]).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        1 => (at(), 1..60usize).prop_map(|(at, n)| Change::Repeat(at, n)),
    ]
}

fn changed(mut bytes: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for change in changes {
        let place = |at: &prop::sample::Index| at.index(bytes.len() + 1);
        match change {
            Change::Set(at, byte) => {
                let at = place(at).min(bytes.len().saturating_sub(1));
                bytes.get_mut(at).into_iter().for_each(|b| *b = *byte);
            }
            Change::Cut(at) => bytes.truncate(place(at)),
            Change::Remove(at, n) => {
                let at = place(at);
                bytes.drain(at..(at + n).min(bytes.len()));
            }
            Change::Insert(at, new) => {
                let at = place(at);
                bytes.splice(at..at, new.iter().copied());
            }
            Change::Repeat(at, n) => {
                let at = place(at);
                let again = bytes[at..(at + n).min(bytes.len())].to_vec();
                bytes.splice(at..at, again);
            }
        }
    }
    bytes
}

fn hostile_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        2 => vec(any::<u8>(), 0..600),
        3 => cbor(),
        6 => (prop::sample::select(corpus()), vec(change(), 0..6)).prop_map(|(bytes, changes)| changed(bytes, &changes)),
    ]
}

#[test]
fn every_decoder_survives_any_bytes() {
    let usual = ProptestConfig::default();
    let config = ProptestConfig { cases: usual.cases * 4, failure_persistence: None, ..usual };
    let run = TestRunner::new(config).run(&hostile_bytes(), |bytes| {
        for (name, decode) in TARGETS {
            let outcome = catch_unwind(|| decode(&bytes));
            prop_assert!(outcome.is_ok(), "{}", name);
        }
        Ok(())
    });
    run.unwrap_or_else(|error| panic!("{error}"));
}

/// Numbers that look random and are the same in every run (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut n = self.0;
        n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((n ^ (n >> 31)) % end.max(1) as u64) as usize
    }

    /// Flips, cuts, repeats, overwrites with what lengths and types like least, or goes on with a part of another.
    fn mutate(&mut self, bytes: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        const EXTREMES: [u8; 12] = [0, 1, 0x17, 0x1b, 0x3b, 0x5b, 0x7f, 0x80, 0x9b, 0xbb, 0xf6, 0xff];
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            let end = (at + 1 + self.below(48)).min(bytes.len());
            match self.below(7) {
                0 => bytes.get_mut(at).into_iter().for_each(|b| *b ^= 1 << self.below(8)),
                1 => bytes.get_mut(at).into_iter().for_each(|b| *b = EXTREMES[self.below(EXTREMES.len())]),
                2 => bytes.truncate(at),
                3 if at < end => drop(bytes.drain(at..end)),
                4 if at < end => {
                    let again = bytes[at..end].repeat(1 + self.below(8));
                    bytes.splice(at..at, again);
                }
                5 => {
                    let other = &corpus[self.below(corpus.len())];
                    let from = self.below(other.len());
                    let part = &other[from..(from + 1 + self.below(200)).min(other.len())];
                    bytes.splice(at..at, part.iter().copied());
                }
                _ => {
                    let other = &corpus[self.below(corpus.len())];
                    bytes.truncate(at);
                    bytes.extend_from_slice(&other[self.below(other.len())..]);
                }
            }
        }
    }
}

#[test]
fn every_decoder_survives_every_real_object_changed() {
    let rounds = std::env::var("MAINSTAY_FUZZ_ROUNDS").map_or(3, |rounds| rounds.parse::<u64>().unwrap());
    // Large ones are mostly ciphertext or zeros, and slow.
    let corpus: Vec<_> = corpus().into_iter().filter(|bytes| bytes.len() <= 16 << 10).collect();
    assert!(corpus.len() > 50);
    for (round, original) in (0..rounds).flat_map(|round| corpus.iter().map(move |bytes| (round, bytes))) {
        for (target, (name, decode)) in TARGETS.iter().enumerate() {
            let mut numbers =
                Numbers(round << 32 | u64::from(blake3::hash(original).as_bytes()[0]) << 8 | target as u64);
            let mut bytes = original.clone();
            numbers.mutate(&mut bytes, &corpus);
            let outcome = catch_unwind(|| decode(&bytes));
            assert!(outcome.is_ok(), "{name} does not survive {}", hex::encode(&bytes));
        }
    }
}

#[test]
fn every_decoder_survives_deep_nesting_and_lengths_that_lie() {
    let deep = |item: &[u8]| item.repeat(50_000);
    let unknown_field = [&head(5, 1)[..], &head(0, 99), &deep(&[0x81])].concat();
    let many: Vec<Vec<u8>> = (2..6).map(|major| [head(major, u64::MAX), vec![0; 100]].concat()).collect();
    let some: Vec<Vec<u8>> = (2..6).map(|major| [head(major, 1 << 32), vec![0x80; 100]].concat()).collect();
    let endless = [deep(&[0x81]), deep(&[0xa1, 0x00]), deep(&[0x9f]), deep(&[0xc1]), unknown_field];
    for bytes in endless.into_iter().chain(many).chain(some) {
        TARGETS.iter().for_each(|(_, decode)| decode(&bytes));
    }
}

/// The package of fuzz targets needs a nightly compiler, so nothing builds it every day.
#[test]
fn every_decoder_has_its_fuzz_target_and_that_package_names_all_that_they_need() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    let value =
        |line: &str, key: &str| Some(line.strip_prefix(key)?.trim_matches(['"', ' ', '=']).to_owned());
    let bins = manifest.split("[[bin]]").skip(1).map(|bin| {
        let of_bin = |key| bin.lines().find_map(|line| value(line, key)).unwrap();
        (of_bin("name"), of_bin("path"))
    });
    let mut bins: Vec<_> = bins.collect();
    let of_sources = fs::read_to_string(fuzz.join("../crates/sources/tests/sources/decoders.rs")).unwrap();
    let (_, of_sources) = of_sources.split_once("TARGETS: ").unwrap();
    let (of_sources, _) = of_sources.split_once(';').unwrap();
    let of_sources: Vec<&str> =
        of_sources.split("(\"").skip(1).filter_map(|part| part.split('"').next()).collect();
    assert!(of_sources.len() >= 3, "{of_sources:?}");
    let names = TARGETS.iter().map(|(name, _)| *name).chain(of_sources);
    let mut targets: Vec<_> =
        names.map(|name| (name.to_owned(), format!("fuzz_targets/{name}.rs"))).collect();
    bins.sort();
    targets.sort();
    assert_eq!(bins, targets);
    assert_eq!(fs::read_dir(fuzz.join("fuzz_targets")).unwrap().count(), targets.len());
    for (name, path) in targets {
        let called = format!("fuzz_target!(|bytes: &[u8]| mainstay_fuzz::{name}(bytes));");
        assert!(fs::read_to_string(fuzz.join(path)).unwrap().contains(&called), "{name}");
    }
    let used = include_str!("targets.rs").split(|c: char| !c.is_alphanumeric() && !"_:".contains(c));
    let used = used.filter_map(|word| Some(word.split_once("::")?.0.replace('_', "-")));
    let others = ["blake3", "minicbor", "tempfile", "zstd"];
    let mut packages: Vec<_> =
        used.filter(|name| name.starts_with("mainstay-") || others.contains(&name.as_str())).collect();
    packages.push("mainstay-sources".to_owned());
    packages.sort();
    packages.dedup();
    assert_eq!(packages.len(), 5 + others.len(), "{packages:?}");
    for name in packages {
        assert!(
            manifest.lines().any(|line| line.starts_with(&format!("{name} = "))),
            "it does not name {name}"
        );
    }
}

/// What the crates export that takes bytes or text apart: its file, its name, and the target that calls it, or why none does.
const DECODERS: &[(&str, &str, &str)] = &[
    ("domain/src/listing.rs", "decode_items", "listing"),
    ("domain/src/stream.rs", "lay_over", "page_patch"),
    ("domain/src/stream.rs", "patched_pages", "page_patch"),
    ("keys/src/recipient.rs", "parse", "recipient"),
    ("keys/src/secret.rs", "parse_key", "- its owner's own key, not a store's"),
    ("repository/src/format.rs", "decode", "format"),
    ("repository/src/hint.rs", "parse", "hint"),
    ("repository/src/index/segment.rs", "decode", "index_segment"),
    ("repository/src/index/segment.rs", "open", "index_segment"),
    ("repository/src/log/entry.rs", "parse", "log_entry"),
    (
        "repository/src/log/entry.rs",
        "parse_object_name",
        "- a name: no_object_name_is_taken_for_a_packs_but_a_packs",
    ),
    ("repository/src/manifest.rs", "open", "manifest"),
    ("repository/src/manifest.rs", "open_reach", "manifest"),
    (
        "repository/src/pack/mod.rs",
        "parse_object_name",
        "- a name: no_object_name_is_taken_for_a_packs_but_a_packs",
    ),
    ("repository/src/pack/read.rs", "parse", "pack"),
    ("repository/src/pack/read.rs", "decode", "pack"),
    ("repository/src/pack/read.rs", "open", "pack"),
    ("repository/src/stream/list.rs", "decode_list", "list"),
    ("repository/src/trust.rs", "decode", "trust"),
    ("sources/src/command/capture.rs", "from_json", "- two fields, by serde"),
    ("sources/src/postgres/cluster/control.rs", "parse", "- a file of the living server"),
    ("sources/src/postgres/cluster/exclude.rs", "parse", "- a file's name in the living server"),
    ("sources/src/postgres/cluster/facts.rs", "from_json", "cluster_facts"),
    ("sources/src/postgres/facts.rs", "from_json", "database_facts"),
    ("sources/src/postgres/wal/header.rs", "parse", "- twenty bytes, each read by its place"),
    ("sources/src/postgres/wal/timelines.rs", "parse", "- lines of text, in its own tests"),
    ("sources/src/postgres/wire/spec.rs", "parse", "- the configuration's address"),
    ("sources/src/postgres/wire/text.rs", "decode", "- what a server says, in its own tests"),
    ("sources/src/redis/address.rs", "parse", "- the configuration's address"),
    ("sources/src/redis/facts.rs", "from_json", "- a few counts, by serde"),
];

#[test]
fn every_decoder_that_is_exported_has_a_target_or_a_reason() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut folders =
        ["domain", "keys", "repository", "sources"].map(|name| crates.join(name).join("src")).to_vec();
    let mut exported = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let file = path.strip_prefix(crates).unwrap().display().to_string();
            let text = fs::read_to_string(&path).unwrap();
            for after in text.split("pub fn ").skip(1) {
                let (name, rest) = after.split_once('(').unwrap();
                let takes = rest.split_once(')').unwrap().0;
                let takes_apart = ["decode", "parse", "from_json", "lay_over", "patched"]
                    .iter()
                    .any(|w| name.starts_with(w))
                    || (name.starts_with("open")
                        && takes.contains("bytes: &[u8]")
                        && !takes.contains("self"));
                if takes_apart
                    && (takes.contains("&[u8]") || takes.contains("&str") || takes.contains("Vec<u8>"))
                {
                    exported.push((file.clone(), name.to_owned()));
                }
            }
        }
    }
    exported.sort();
    exported.dedup();
    let mut listed: Vec<_> =
        DECODERS.iter().map(|(file, name, _)| ((*file).to_owned(), (*name).to_owned())).collect();
    listed.sort();
    assert_eq!(exported, listed);
    let targets = fs::read_to_string(crates.join("../fuzz/targets.rs")).unwrap();
    for (file, name, target) in DECODERS {
        let known = target.starts_with("- ")
            || TARGETS.iter().any(|(known, _)| known == target)
            || targets.contains(target);
        assert!(known, "{file}: {name} has the target {target}, which there is not");
    }
}

/// Gives `make fuzz` something to begin with.
#[test]
fn the_corpus_is_not_empty() {
    let corpus = corpus();
    assert!(corpus.len() > 50);
    if let Some(folder) = std::env::var_os("MAINSTAY_WRITE_CORPUS") {
        fs::create_dir_all(&folder).unwrap();
        for bytes in corpus {
            fs::write(Path::new(&folder).join(blake3::hash(&bytes).to_hex().as_str()), bytes).unwrap();
        }
    }
}

#[test]
fn no_object_name_is_taken_for_a_packs_but_a_packs() {
    let id = PackId([0xab; 32]);
    let name = object_name(Pool::Tree, &id);
    assert_eq!(parse_object_name(&name), Some((Pool::Tree, id)));
    for wrong in
        [&name[1..], &name[..name.len() - 1], &name.replace("tree", "leaf"), &name.replace("/ab/", "/ac/")]
    {
        assert_eq!(parse_object_name(wrong), None, "{wrong}");
    }
}
