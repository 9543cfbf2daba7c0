//! Every decoder of bytes that come from a store, as a function that must return whatever it is given.
//!
//! Each is tried twice where the format signs or seals: with the bytes as they are, as anybody with access to the store
//! could have written them; and signed and sealed around them, as somebody could have who holds the keys. Where a
//! decoder accepts something, writing it and reading it again must give the same. Shared by `hostile.rs` and by the fuzz
//! targets in `fuzz/`.

use mainstay_domain::{
    ChunkId, Clock, EpochId, HoldId, HostId, Incarnation, ObjectId, PointId, RepositoryId, SessionId, Time,
    listing::{decode_items, encode_item},
    point::Point,
    stream::{Content, PAGE, encode_patch, lay_over, patched_pages},
    wal::WalFile,
};
use mainstay_keys::{
    aead::AeadKey, bundle::Bundle, derive, hpke, kit, recipient, secret::Secret, sign::Signer,
};
use mainstay_repository::{
    Access, Repository,
    envelope::{Envelope, HEADER, KeyRole, Unsealer, Writer},
    format::{Format, repository_id},
    hint,
    index::{LocalSegment, Segment, open_segment},
    keyring::Keyring,
    log::{
        Event, State, entry,
        event::{Checkpoint, Commit, DropPoint, PlaceHold, Proved, ReleaseHold},
        state::Stamp,
    },
    manifest,
    pack::{Blob, Opened, chunk_id},
    stream::{Chunking, decode_list},
    trust::{Roles, Trust, TrustedHost},
    wal::Archive,
};
use mainstay_stores::{MemoryStore, Store};
use std::sync::Arc;
use tempfile::TempDir;

/// A decoder and the checks around it, by name.
pub type Target = (&'static str, fn(&[u8]));

pub const TARGETS: &[Target] = &[
    ("format", format),
    ("trust", trust),
    ("recipient", recipient),
    ("kit_objects", kit_objects),
    ("log_entry", log_entry),
    ("log_fold", log_fold),
    ("pack", pack),
    ("index_segment", index_segment),
    ("manifest", manifest),
    ("list", list),
    ("listing", listing),
    ("proof", proof),
    ("wal", wal),
    ("local_index", local_index),
    ("hint", hint),
    ("page_patch", page_patch),
];

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
    Signer::from_seed(&[5; 32])
}

fn repository() -> RepositoryId {
    repository_id(&root().verify_key())
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

fn with_unsealer<T>(body: impl FnOnce(&Unsealer<'_>) -> T) -> T {
    let verify_key = bundle().signer().verify_key();
    let host = TrustedHost { verify_key, name: String::new(), roles: Roles::ALL, domain: None };
    let trust = Trust::first(repository(), Time(0), host);
    body(&Unsealer { repository: repository(), keys: &Keyring::new(bundle()), signers: &trust })
}

/// A root-signed object around a body.
fn root_signed(magic: &[u8; 8], context: &str, body: &[u8]) -> Vec<u8> {
    let mut object = [&magic[..], &(body.len() as u32).to_be_bytes(), body].concat();
    let signature = root().sign(&[context.as_bytes(), &object].concat());
    object.extend_from_slice(&signature);
    object
}

pub fn format(bytes: &[u8]) {
    for object in [bytes.to_vec(), root_signed(b"MSTYFMT1", "mainstay v1 format\0", bytes)] {
        if let Ok(format) = Format::decode(&object)
            && *format.root() == root().verify_key()
        {
            assert_eq!(Format::decode(&format.encode(&root())).ok(), Some(format));
        }
    }
}

pub fn trust(bytes: &[u8]) {
    for object in [bytes.to_vec(), root_signed(b"MSTYTRS1", "mainstay v1 trust\0", bytes)] {
        drop(Trust::decode(&object, &root().verify_key(), &repository(), 1));
    }
}

pub fn recipient(bytes: &[u8]) {
    for object in [bytes.to_vec(), root_signed(b"MSTYKEY1", "mainstay v1 recipient\0", bytes)] {
        if let Ok(recipient) = recipient::parse(&object, &root().verify_key()) {
            // Not with a passphrase: an argon2 of whatever cost was asked for says nothing about decoding.
            drop(recipient.unwrap_with(&Secret::Key([7; 32])));
        }
    }
    if let Ok(bundle) = minicbor::decode::<Bundle>(bytes) {
        bundle.signer();
    }
}

pub fn kit_objects(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        drop(kit::objects(text));
    }
}

pub fn log_entry(bytes: &[u8]) {
    let framed = |body: &[u8], sealed: &[u8]| {
        let length = |part: &[u8]| (part.len() as u32).to_be_bytes();
        [b"MSTYLOG1", &length(body)[..], body, &length(sealed), sealed, &[0; 80]].concat()
    };
    let middle = bytes.len() / 2;
    let sealed = |body: &[u8], plain: &[u8]| {
        let sealed = hpke::seal(&bundle().index_public(), b"mainstay v1 log", body, plain);
        [&1u32.to_be_bytes()[..], &sealed.enc, &sealed.ciphertext].concat()
    };
    for object in [
        bytes.to_vec(),
        framed(bytes, &[]),
        framed(&bytes[..middle], &bytes[middle..]),
        framed(bytes, &sealed(bytes, bytes)),
    ] {
        if let Ok(mut parsed) = entry::parse(&object) {
            drop(parsed.verify(&root().verify_key()));
            parsed.unseal(|_| Some(bundle().index_private));
        }
    }
    for mut event in events_with_a_sealed_part() {
        drop(event.set_sealed_part(bytes));
    }
}

fn events_with_a_sealed_part() -> Vec<Event> {
    let (point, hold) = (PointId([1; 32]), HoldId::default());
    let commit = Commit { session: SessionId([1; 16]), point, index: Vec::new(), summary: None };
    let checkpoint = Checkpoint { tail: 0, facts: Default::default(), details: None };
    vec![
        Event::Commit(commit),
        Event::Drop(DropPoint { point, reason: None }),
        Event::Hold(PlaceHold { hold, point, text: None }),
        Event::Release(ReleaseHold { hold, reason: None }),
        Event::Proved(Proved { point, proof: None }),
        Event::Checkpoint(Box::new(checkpoint)),
    ]
}

/// Events one after the other, whatever they say: a host that is trusted with the log may still write nonsense.
pub fn log_fold(bytes: &[u8]) {
    let mut decoder = minicbor::Decoder::new(bytes);
    let mut state = State::open(Incarnation([1; 16]));
    while let Ok(event) = decoder.decode::<Event>() {
        let n = state.head + 1;
        if let Event::Checkpoint(checkpoint) = &event {
            State::from_checkpoint(n, state.incarnation, (**checkpoint).clone());
        }
        drop(state.apply(&Stamp { n, time: Time(n as i64), signer: HostId([1; 16]) }, &event));
        assert_eq!(state.head, n, "an entry without effect counts too");
    }
}

/// As the header of a pack; as the table of contents of one; and as the payload of a blob.
pub fn pack(bytes: &[u8]) {
    let keys = Keyring::new(bundle());
    drop(Opened::open(bytes, &repository(), &keys, "a pack"));

    let (key, nonce) = ([6; 32], [7; 16]);
    let mut header = [b"MSTYPAK1", &[0, 1, 1, 0, 0, 0, 0, 1][..], &repository().0, &[9; 32], &nonce].concat();
    let sealed = hpke::seal(&bundle().data_public(), b"mainstay v1 pack", &header, &key);
    let commitment = derive("mainstay v1 pack commitment", &[&key[..], &nonce].concat());
    for part in [&sealed.enc[..], &sealed.ciphertext, &commitment] {
        header.extend_from_slice(part);
    }
    let opened = Opened::open(&header, &repository(), &keys, "a pack").expect("it was made as one");

    let seal = |nonce_number: [u8; 12], offset: u64, kind: u8, chunk: &ChunkId, plain: &[u8]| {
        let aad = [&repository().0[..], &nonce, &offset.to_be_bytes(), &[kind], &chunk.0].concat();
        let mut sealed = plain.to_vec();
        AeadKey::new(&key).seal(nonce_number, &aad, &mut sealed, 0);
        sealed
    };
    let contents_nonce = [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    drop(opened.contents(bytes.to_vec(), "a pack"));
    drop(opened.contents(seal(contents_nonce, 0, 0, &ChunkId::default(), bytes), "a pack"));

    let mut blob_nonce = [0; 12];
    blob_nonce[4..].copy_from_slice(&208u64.to_be_bytes());
    let chunk = ChunkId([8; 32]);
    for codec in [0, 1, 2] {
        let payload = [&[codec], bytes].concat();
        let sealed = seal(blob_nonce, 208, 1, &chunk, &payload);
        for plain_length in [bytes.len() as u32, 0, 1 << 20, u32::MAX] {
            let blob = Blob { chunk, offset: 208, length: sealed.len() as u32, plain_length };
            if let Ok(plain) = opened.decode(&blob, sealed.clone()) {
                assert_eq!(plain.len(), plain_length as usize);
            }
        }
    }
}

pub fn index_segment(bytes: &[u8]) {
    if let Ok(segment) = Segment::decode(bytes, "a segment") {
        assert_eq!(Segment::decode(&segment.encode(), "a segment").ok(), Some(segment));
    }
    let envelope = Envelope {
        magic: b"MSTYIDX1",
        info: b"mainstay v1 index",
        signature: "mainstay v1 index\0",
        hashed: false,
        signers: Roles::ALL,
    };
    with_unsealer(|unsealer| {
        for object in [bytes.to_vec(), envelope.seal_to_index(&[9; 16], bytes, &writer())] {
            drop(open_segment(&ObjectId(*blake3::hash(&object).as_bytes()), &object, unsealer));
        }
    });
}

/// As a whole manifest; as its reach; as its point, compressed and not.
pub fn manifest(bytes: &[u8]) {
    let envelope = Envelope {
        magic: b"MSTYMAN1",
        info: b"mainstay v1 reach",
        signature: "mainstay v1 manifest\0",
        hashed: false,
        signers: Roles::ALL,
    };
    let sealed = |reach: &[u8], point: &[u8]| {
        let mut object = envelope.header(&[9; 16], &writer());
        envelope.seal_section(&mut object, KeyRole::Index, b"mainstay v1 reach", reach, &writer());
        envelope.seal_section(&mut object, KeyRole::Data, b"mainstay v1 point", point, &writer());
        envelope.sign(&mut object, &writer().signer);
        object
    };
    let unsealed = [&envelope.header(&[9; 16], &writer())[..], bytes].concat();
    let mut signed = unsealed;
    envelope.sign(&mut signed, &writer().signer);
    let nothing = minicbor::to_vec(manifest::Reach::default()).expect("memory can be written to");
    let compressed = zstd::bulk::compress(bytes, 1).expect("memory can be compressed");
    with_unsealer(|unsealer| {
        for object in [
            bytes.to_vec(),
            signed,
            sealed(bytes, bytes),
            sealed(&nothing, bytes),
            sealed(&nothing, &compressed),
        ] {
            let id = PointId(*blake3::hash(&object).as_bytes());
            drop(manifest::open_reach(&id, &object, unsealer));
            drop(manifest::open(&id, &object, unsealer));
        }
    });
    if let Ok(point) = minicbor::decode::<Point>(bytes) {
        let written = minicbor::to_vec(&point).expect("memory can be written to");
        assert_eq!(minicbor::decode::<Point>(&written).ok(), Some(point));
    }
}

pub fn list(bytes: &[u8]) {
    if let Ok(pieces) = decode_list(bytes) {
        let content = Content { level: 0, pieces: pieces.clone() };
        let _ = (content.bytes(), content.rows(), content.digest());
        let written = minicbor::to_vec(&pieces).expect("memory can be written to");
        assert_eq!(decode_list(&written).ok(), Some(pieces));
    }
}

pub fn listing(bytes: &[u8]) {
    let mut written = Vec::new();
    let items: Vec<_> = decode_items(bytes).map_while(Result::ok).collect();
    items.iter().for_each(|item| encode_item(item, &mut written));
    let again: Result<Vec<_>, _> = decode_items(&written).collect();
    assert_eq!(again.ok(), Some(items));
}

/// A repository in memory, for decoders that read an object by its name.
struct Place {
    memory: MemoryStore,
    repository: Repository,
    writer: Writer,
    /// The name of [`SEGMENT`] in the archive of [`SYSTEM`].
    wal: String,
    folder: TempDir,
}

const SEGMENT: &str = "000000010000000000000003";
const SYSTEM: u64 = 7;

thread_local! {
    static PLACE: Place = Place::new();
}

struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> Time {
        Time(0)
    }
}

impl Place {
    fn new() -> Place {
        let memory = MemoryStore::new();
        let access = || Access {
            store: Arc::new(memory.clone()),
            secret: Secret::Key([7; 32]),
            clock: Arc::new(Stopped),
            cache: None,
        };
        Repository::init(&access(), "fuzz", Chunking::default()).expect("memory can be written to");
        let repository = Repository::open(access(), None).expect("it was made just now");
        let bundle = repository.keyring().current();
        let writer = Writer {
            repository: repository.id(),
            epoch: EpochId(bundle.epoch),
            data_public: bundle.data_public(),
            index_public: bundle.index_public(),
            signer: bundle.signer(),
        };
        let segment = SEGMENT.parse().expect("it is a segment's name");
        Archive::of(&repository, SYSTEM).put(&segment, b"", None).expect("memory can be written to");
        let wal = memory.names().into_iter().find(|name| name.starts_with("wal/")).expect("it was put there");
        let folder = TempDir::new().expect("there is a folder for temporary files");
        Place { memory, repository, writer, wal, folder }
    }
}

/// As a whole proof, and as the report in one.
pub fn proof(bytes: &[u8]) {
    let envelope = Envelope {
        magic: b"MSTYPRF1",
        info: b"mainstay v1 proof",
        signature: "mainstay v1 proof\0",
        hashed: false,
        signers: Roles::ALL,
    };
    PLACE.with(|Place { memory, repository, writer, .. }| {
        let mut sealed = envelope.header(&[0; 16], writer);
        envelope.seal_section(&mut sealed, KeyRole::Data, envelope.info, bytes, writer);
        envelope.sign(&mut sealed, &writer.signer);
        for (object, is_one) in [(bytes, false), (&sealed, true)] {
            let hash = blake3::hash(object).to_hex();
            let name = format!("proofs/{}/{:020}-{}", writer.signer.host(), 1, &hash[..16]);
            memory.overwrite(&name, object);
            assert_eq!(mainstay_repository::proof::check(repository, &name).is_ok(), is_one);
            let read = mainstay_repository::proof::read(repository, &name).ok();
            assert_eq!(read.as_deref(), std::str::from_utf8(bytes).ok().filter(|_| is_one));
            memory.delete(&name).expect("memory can be written to");
        }
    });
}

/// As a whole file of archived log; as what such a one says of itself; and as its content.
pub fn wal(bytes: &[u8]) {
    let envelope = Envelope {
        magic: b"MSTYWAL1",
        info: b"mainstay v1 wal",
        signature: "mainstay v1 wal\0",
        hashed: true,
        signers: Roles::ALL,
    };
    let segment: WalFile = SEGMENT.parse().expect("it is a segment's name");
    PLACE.with(|Place { memory, repository, writer, wal, .. }| {
        let object = |facts: &[u8], payload: Option<&[u8]>| {
            let mut object = envelope.header(&[0; 16], writer);
            envelope.seal_section(&mut object, KeyRole::Data, envelope.info, facts, writer);
            if let Some(payload) = payload {
                let (start, aad) = (object.len(), object[..HEADER].to_vec());
                object.extend_from_slice(payload);
                AeadKey::new(&[6; 32]).seal([0; 12], &aad, &mut object, start);
            }
            envelope.sign(&mut object, &writer.signer);
            object
        };
        let facts = |length: u64| {
            let chunk = chunk_id(&repository.keyring().current().chunk_id_key(), bytes);
            let mut out = Vec::new();
            let mut encoder = minicbor::Encoder::new(&mut out);
            let written =
                encoder.map(6).and_then(|e| e.u8(0)?.str(SEGMENT)?.u8(1)?.u64(SYSTEM)?.u8(2)?.u64(length));
            let written = written.and_then(|e| e.u8(3)?.encode(chunk)?.u8(4)?.bytes(&[6; 32]));
            written.and_then(|e| e.u8(5)?.encode(Time(1))).expect("memory can be written to");
            out
        };
        let length = bytes.len() as u64;
        let content = |codec: u8| [&[codec], bytes].concat();
        let mut objects = vec![bytes.to_vec(), object(bytes, None), object(bytes, Some(bytes))];
        objects.extend([0, 1, 2].map(|codec| object(&facts(length), Some(&content(codec)))));
        objects.extend([0, length + 1, u64::MAX].map(|wrong| object(&facts(wrong), Some(&content(0)))));
        let archive = Archive::of(repository, SYSTEM);
        let mut whole = 0;
        for object in objects {
            memory.overwrite(wal, &object);
            drop(archive.head(&segment));
            if let Ok(found) = archive.get(&segment) {
                assert_eq!(found.as_deref(), Some(bytes));
                whole += 1;
            }
        }
        assert!(whole == 1 || bytes.is_empty(), "the one whose facts and content fit");
    });
}

/// As a file of the local index, with its checksum and without; and as a segment of which one is made.
pub fn local_index(bytes: &[u8]) {
    PLACE.with(|Place { folder, .. }| {
        let path = folder.path().join("x.idx");
        let with_checksum = [&b"MSTYCIX2"[..], blake3::hash(bytes).as_bytes(), bytes].concat();
        for file in [bytes, &with_checksum] {
            std::fs::write(&path, file).expect("a file can be written");
            if let Ok(local) = LocalSegment::open(&path) {
                for record in local.records(0) {
                    let chunk = record.expect("all records are there").chunk;
                    drop((local.find(&chunk), local.find_all(&chunk)));
                }
                let packs = 0..local.packs().len() as u32;
                packs.for_each(|pack| drop(local.chunks_of_pack(pack).expect("all lists are there")));
            }
        }
        if let Ok(segment) = Segment::decode(bytes, "a segment") {
            let made =
                LocalSegment::write(&path, ObjectId([1; 32]), &segment).expect("a file can be written");
            let again = LocalSegment::open(&path).expect("it was written just now");
            let records: Vec<_> = again.records(0).map(|record| record.expect("it is there")).collect();
            assert_eq!((made.packs(), records), (again.packs(), segment.records));
        }
    });
}

pub fn hint(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let sum = &blake3::hash(bytes).to_hex()[..16];
    for text in [text, &format!("{text} {sum}")] {
        if let Some(found) = hint::parse(text) {
            assert_eq!(hint::parse(&hint::text(&found)), Some(found));
        }
    }
}

/// The number of pages in the frame first, then the patch.
pub fn page_patch(bytes: &[u8]) {
    let Some((frame, patch)) = bytes.split_first() else { return };
    let before = vec![0x5a; usize::from(*frame) * PAGE / 4];
    let mut after = before.clone();
    let fits = lay_over(&mut after, patch);
    match patched_pages(patch) {
        Some(pages) => {
            assert_eq!(encode_patch(&pages), patch);
            let inside = |(number, _): &(u16, &[u8])| (usize::from(*number) + 1) * PAGE <= before.len();
            assert_eq!(fits.is_some(), pages.iter().all(inside));
        }
        None => assert!(fits.is_none() && after == before, "what is no patch changes nothing"),
    }
}
