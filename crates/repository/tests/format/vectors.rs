//! `doc/vectors.json`: a whole repository of two kilobytes with everything that lies between its objects and what they say.
//!
//! What follows from fixed inputs (derivations, ids, signed objects) is computed anew and compared. What holds random keys
//! was written once and is opened. `tools/check_vectors.py` checks the same file with the independent reader. The file is
//! written by `MAINSTAY_WRITE_GOLDEN=1` if it is not there, and never again.

use crate::{reader::python, sample};
use mainstay_domain::{
    ChunkId, EpochId, Incarnation, ObjectId, PackId, PointId, RepositoryId, SessionId, Time,
    listing::{Entry, FileKind, FileTime, Item, encode_item},
    point::{Point, SourceRecord, SourceSummary, State, Stream, Summary},
    stream::{Content, Piece, Pool, Vault},
};
use mainstay_keys::{bundle::Bundle, derive, hpke, recipient, secret::Secret, sign::Signer};
use mainstay_repository::{
    Repository,
    envelope::{Unsealer, Writer},
    format::Format,
    index::{Record, Segment, object_name as index_name, open_segment, seal_segment},
    keyring::Keyring,
    log::{
        Event,
        entry::{self, Body},
        event::{Begin, Commit},
    },
    manifest::{self, Reach},
    pack::{self, Builder, Compressor, Effort, Opened, WriteContext, chunk_id},
    stream::Chunking,
    trust::{self, Roles, Trust, TrustedHost},
};
use mainstay_stores::{MemoryStore, Store};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

const NOW: Time = Time(1_700_000_000_000_000_000);
const SESSION: SessionId = SessionId([9; 16]);
const INCARNATION: Incarnation = Incarnation([10; 16]);
const ROWS: &[u8] = b"1\tone\n2\t\\N\n3\tthree\n";
const PHRASE: &str = "correct horse battery staple";

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../doc/vectors.json")
}

fn bundle() -> Bundle {
    Bundle {
        epoch: 1,
        data_private: [1; 32],
        index_private: [2; 32],
        domain_secret: [3; 32],
        signer_seed: [4; 32],
        root_seed: Some([5; 32]),
    }
}

fn root() -> Signer {
    bundle().root().unwrap()
}

fn repository() -> RepositoryId {
    mainstay_repository::format::repository_id(&root().verify_key())
}

fn key() -> [u8; 32] {
    std::array::from_fn(|i| i as u8)
}

fn format() -> Format {
    Format::new(root().verify_key(), NOW, Chunking::default())
}

fn trust() -> Trust {
    let verify_key = bundle().signer().verify_key();
    let host = TrustedHost { verify_key, name: "a host".into(), roles: Roles::ALL, domain: None };
    Trust::first(repository(), NOW, host)
}

fn writer() -> Writer {
    let bundle = bundle();
    Writer {
        repository: repository(),
        epoch: EpochId(1),
        data_public: bundle.data_public(),
        index_public: bundle.index_public(),
        signer: bundle.signer(),
    }
}

/// Plaintexts of the chunks: one that compresses, one that does not, rows; and the listing.
fn data_chunks() -> Vec<Vec<u8>> {
    vec![b"vector ".repeat(40), sample::noise(7, 20), ROWS.to_vec()]
}

fn id_of(plain: &[u8]) -> ChunkId {
    chunk_id(&bundle().chunk_id_key(), plain)
}

fn plain(chunk: &[u8]) -> Piece {
    Piece::plain(id_of(chunk), chunk.len() as u64)
}

fn file_content() -> Content {
    let chunks = data_chunks();
    Content { level: 0, pieces: vec![plain(&chunks[0]), Piece::hole(1000), plain(&chunks[1])] }
}

fn listing_chunk() -> Vec<u8> {
    let entry = Entry {
        name: b"file\xff".to_vec(),
        kind: FileKind::Regular,
        mode: 0o644,
        uid: 1,
        gid: 2,
        size: file_content().bytes(),
        modified: FileTime { seconds: -1, nanoseconds: 500_000_000 },
        changed: FileTime { seconds: 3, nanoseconds: 4 },
        inode: 5,
        device: 6,
        links: None,
        device_node: None,
        target: None,
        xattrs: None,
        content: Some(file_content()),
        doubt: None,
        fresh: None,
        deleted: None,
        pages: None,
    };
    let mut chunk = Vec::new();
    encode_item(&Item::Directory(b"".to_vec()), &mut chunk);
    encode_item(&Item::Entry(Box::new(entry)), &mut chunk);
    chunk
}

fn point() -> Point {
    let (rows, digest) = sample::digest(&bundle().row_key(), ROWS);
    let chunk = listing_chunk();
    let listing = Piece { rows: 1, key: b"\0file\xff".to_vec(), ..plain(&chunk) };
    let table = Piece { rows, digest, ..plain(ROWS) };
    let source = |name: &str, kind: &str, stream: &str, piece| SourceRecord {
        name: name.into(),
        kind: kind.into(),
        state: State::Complete,
        started: NOW,
        finished: NOW,
        consistent_at: None,
        streams: vec![Stream { name: stream.into(), content: Content { level: 0, pieces: vec![piece] } }],
        facts: "{}".into(),
        problems: Vec::new(),
        bytes: 0,
        items: 0,
        partial: false,
    };
    let sources = vec![
        source("files", "files", "listing", listing),
        source("db", "postgres", "table/public.t/0", table),
    ];
    let brief = |s: &SourceRecord| SourceSummary {
        name: s.name.clone(),
        kind: s.kind.clone(),
        state: s.state,
        bytes: s.bytes,
        items: s.items,
        partial: s.partial,
    };
    let summary = Summary {
        app: "app".into(),
        environment: "test".into(),
        policy: None,
        host: "host".into(),
        started: NOW,
        finished: NOW,
        sequence: 1,
        state: State::Complete,
        sources: sources.iter().map(brief).collect(),
        stored_bytes: 0,
        labels: BTreeMap::new(),
        next_expected: None,
        keep_until: None,
    };
    Point { summary, sources, previous: None, supersedes: None, tool: "vectors".into() }
}

/// A log entry after those before it.
fn log_entry(n: u64, before: &[u8], event: Event) -> Vec<u8> {
    let previous = if n == 0 { [0; 32] } else { entry::hash(before) };
    let body = Body {
        repository: repository(),
        incarnation: INCARNATION,
        n,
        previous,
        time: NOW,
        event,
        last_checkpoint: None,
    };
    entry::encode(&body, EpochId(1), &writer().index_public, &writer().signer)
}

/// Objects that the same inputs make again, byte by byte.
fn fixed_objects() -> BTreeMap<String, Vec<u8>> {
    let opened = log_entry(0, &[], Event::Open);
    let begun = log_entry(1, &opened, Event::Begin(Begin { session: SESSION, wal_floor: None }));
    BTreeMap::from([
        ("format".to_owned(), format().encode(&root())),
        (trust::object_name(1), trust().encode(&root())),
        (entry::object_name(0), opened),
        (entry::object_name(1), begun),
    ])
}

/// Everything else, with new random keys.
fn random_objects(fixed: &BTreeMap<String, Vec<u8>>) -> BTreeMap<String, Vec<u8>> {
    let mut objects = BTreeMap::new();
    for secret in [Secret::Key(key()), Secret::Passphrase(PHRASE.into())] {
        let (name, bytes) =
            recipient::wrap(&bundle(), &secret, repository(), "operations", NOW, &root()).unwrap();
        objects.insert(name, bytes);
    }
    let bundle = bundle();
    let context = WriteContext {
        repository: repository(),
        session: SESSION,
        domain: bundle.domain_id(),
        epoch: EpochId(1),
        data_public: bundle.data_public(),
        chunk_id_key: bundle.chunk_id_key().into(),
    };
    let mut segment = Segment::default();
    for (pool, chunks) in [(Pool::Data, data_chunks()), (Pool::Tree, vec![listing_chunk()])] {
        let mut builder = Builder::new(pool, Vec::new());
        chunks.iter().for_each(|plain| {
            builder.push(Compressor::new(Some(1)).stage(id_of(plain), plain, &Effort::Given))
        });
        let built = builder.finish(&context, Vec::new()).unwrap().0;
        let number = segment.packs.len() as u32;
        segment.packs.push((built.id, pool));
        segment.records.extend(built.blobs.iter().map(|blob| Record {
            chunk: blob.chunk,
            pack: number,
            offset: blob.offset,
            length: blob.length,
            plain_length: blob.plain_length,
        }));
        objects.insert(pack::object_name(pool, &built.id), built.bytes);
    }
    segment.sort();
    let (index, bytes) = seal_segment(&segment, bundle.domain_id(), &writer());
    objects.insert(index_name(&index), bytes);
    let mut packs: Vec<_> = segment.packs.iter().map(|(id, _)| *id).collect();
    packs.sort();
    let (id, bytes) = manifest::seal(&Reach { packs, index: vec![index] }, &point(), &SESSION, &writer());
    objects.insert(manifest::object_name(&id), bytes);
    let summary = Some(point().summary);
    let commit = Event::Commit(Commit { session: SESSION, point: id, index: vec![index], summary });
    objects.insert(entry::object_name(2), log_entry(2, &fixed[&entry::object_name(1)], commit));
    objects
}

/// What the objects hold, opened with this code.
fn described(objects: &BTreeMap<String, Vec<u8>>) -> Value {
    let bundle = bundle();
    let keyring = Keyring::new(bundle.clone());
    let trust = trust();
    let unsealer = Unsealer { repository: repository(), keys: &keyring, signers: &trust };
    let chunks: Vec<_> = data_chunks().into_iter().chain([listing_chunk()]).collect();
    let mut packs = Vec::new();
    let mut rest = serde_json::Map::new();
    for (name, bytes) in objects {
        if let Some((_, id)) = pack::parse_object_name(name) {
            assert_eq!(PackId(*blake3::hash(bytes).as_bytes()), id);
            packs.push(describe_pack(name, bytes, &keyring));
        } else if let Some(id) = name.strip_prefix("index/") {
            let id: ObjectId = id.parse().unwrap();
            let segment = open_segment(&id, bytes, &unsealer).unwrap();
            rest.insert("index".into(), json!({ "object": name, "segment": hex::encode(segment.encode()) }));
        } else if let Some(id) = name.strip_prefix("manifests/") {
            let id: PointId = id.parse().unwrap();
            let manifest = manifest::open(&id, bytes, &unsealer).unwrap();
            assert_eq!(manifest.point, point());
            let cbor = |bytes: Vec<u8>| hex::encode(bytes);
            rest.insert(
                "manifest".into(),
                json!({
                    "object": name,
                    "reach": cbor(minicbor::to_vec(&manifest.reach).unwrap()),
                    "point": cbor(minicbor::to_vec(&manifest.point).unwrap()),
                }),
            );
        }
    }
    let (rows, digest) = sample::digest(&bundle.row_key(), ROWS);
    json!({
        "key": hex::encode(key()),
        "passphrase": PHRASE,
        "bundle": {
            "data private": hex::encode(bundle.data_private),
            "index private": hex::encode(bundle.index_private),
            "domain secret": hex::encode(bundle.domain_secret),
            "signing seed": hex::encode(bundle.signer_seed),
            "root seed": hex::encode(bundle.root_seed.unwrap()),
            "cbor": hex::encode(minicbor::to_vec(&bundle).unwrap()),
        },
        "derived": {
            "root verify key": hex::encode(root().verify_key()),
            "repository id": repository().to_string(),
            "host id": bundle.signer().host().to_string(),
            "data public": hex::encode(bundle.data_public()),
            "index public": hex::encode(bundle.index_public()),
            "chunk id key": hex::encode(bundle.chunk_id_key()),
            "chunker seed": bundle.chunker_seed().to_string(),
            "row key": hex::encode(bundle.row_key()),
            "domain id": bundle.domain_id().to_string(),
        },
        "chunks": chunks.iter().map(|plain| json!({
            "plain": hex::encode(plain),
            "id": id_of(plain).to_string(),
        })).collect::<Vec<_>>(),
        "rows": {
            "text": hex::encode(ROWS),
            "count": rows,
            "digest": hex::encode(digest.to_be_bytes()),
        },
        "packs": packs,
        "index": rest["index"],
        "manifest": rest["manifest"],
        "objects": objects.iter().map(|(name, bytes)| (name, hex::encode(bytes))).collect::<BTreeMap<_, _>>(),
    })
}

fn describe_pack(name: &str, bytes: &[u8], keyring: &Keyring) -> Value {
    let opened = Opened::open(bytes, &repository(), keyring, name).unwrap();
    let array = |at: usize| -> [u8; 32] { bytes[at..at + 32].try_into().unwrap() };
    let info = b"mainstay v1 pack";
    let key = hpke::open(&bundle().data_private, &array(96), info, &bytes[..96], &bytes[128..176]).unwrap();
    let commitment = derive("mainstay v1 pack commitment", &[&key, &opened.header.nonce[..]].concat());
    assert_eq!(commitment, array(176));
    let end = bytes.len() - 4;
    let length = u32::from_be_bytes(bytes[end..].try_into().unwrap()) as usize;
    let contents = opened.contents(bytes[end - length..end].to_vec(), name).unwrap();
    let blobs: Vec<_> = contents
        .iter()
        .map(|blob| {
            let sealed = &bytes[blob.offset as usize..][..blob.length as usize];
            assert_eq!(id_of(&opened.decode(blob, sealed.to_vec()).unwrap()), blob.chunk);
            json!({
                "chunk": blob.chunk.to_string(),
                "offset": blob.offset,
                "length": blob.length,
                "plain length": blob.plain_length,
            })
        })
        .collect();
    json!({
        "object": name,
        "key": hex::encode(&key),
        "nonce": hex::encode(opened.header.nonce),
        "commitment": hex::encode(commitment),
        "blobs": blobs,
    })
}

fn vectors() -> (Value, BTreeMap<String, Vec<u8>>) {
    if std::env::var_os("MAINSTAY_WRITE_GOLDEN").is_some() && !path().exists() {
        let mut objects = fixed_objects();
        objects.extend(random_objects(&objects));
        let text = serde_json::to_string_pretty(&described(&objects)).unwrap();
        fs::write(path(), text + "\n").unwrap();
    }
    let written: Value = serde_json::from_str(&fs::read_to_string(path()).unwrap()).unwrap();
    let objects = written["objects"].as_object().unwrap();
    let objects =
        objects.iter().map(|(n, bytes)| (n.clone(), hex::decode(bytes.as_str().unwrap()).unwrap())).collect();
    (written, objects)
}

#[test]
fn the_vectors_are_what_this_version_makes_and_finds() {
    let (written, objects) = vectors();
    for (name, bytes) in fixed_objects() {
        assert_eq!(hex::encode(&objects[&name]), hex::encode(bytes), "{name}");
    }
    let found = described(&objects);
    for (part, value) in found.as_object().unwrap() {
        assert_eq!(written[part], *value, "{part}");
    }
    assert_eq!(written.as_object().unwrap().len(), found.as_object().unwrap().len());
}

#[test]
fn the_objects_of_the_vectors_are_a_repository() {
    let memory = MemoryStore::new();
    vectors().1.iter().for_each(|(name, bytes)| memory.overwrite(name, bytes));
    let store: Arc<dyn Store> = Arc::new(memory);
    for secret in [Secret::Key(key()), Secret::Passphrase(PHRASE.into())] {
        let repository = Repository::open(sample::access(&store, secret), None).unwrap();
        let state = repository.state().unwrap();
        assert!(state.doubts.is_empty() && state.facts.points.len() == 1);
        let (id, live) = state.facts.points.first_key_value().unwrap();
        assert_eq!(live.summary, Some(point().summary));
        let manifest = repository.manifest(id).unwrap();
        let reader = repository.reader_for(&manifest).unwrap();
        let mut rows = Vec::new();
        reader.copy(&manifest.point.sources[1].streams[0].content, &mut rows).unwrap();
        assert_eq!(rows, ROWS);
    }
}

#[test]
fn another_program_computes_the_vectors() {
    vectors();
    let script = path().with_file_name("../tools/check_vectors.py");
    let output = python().arg(script).arg(path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
