//! An index segment as it lies in the store (`doc/format.md` §7).

use crate::{
    envelope::{Envelope, Unsealer},
    error::{RepositoryError, Result},
    trust::Roles,
};
use mainstay_domain::{ChunkId, DomainId, ObjectId, PackId, stream::Pool};

/// Where one chunk lies: `pack` is a position in the segment's list of packs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    pub chunk: ChunkId,
    pub pack: u32,
    pub offset: u32,
    pub length: u32,
    pub plain_length: u32,
}

pub const RECORD: usize = 48;

impl Record {
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.chunk.0);
        for number in [self.pack, self.offset, self.length, self.plain_length] {
            out.extend_from_slice(&number.to_be_bytes());
        }
    }

    /// `bytes` holds at least [`RECORD`] bytes.
    pub fn read(bytes: &[u8]) -> Record {
        let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        Record {
            chunk: ChunkId(bytes[..32].try_into().expect("32 bytes")),
            pack: number(32),
            offset: number(36),
            length: number(40),
            plain_length: number(44),
        }
    }
}

/// The plaintext of a segment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Segment {
    pub packs: Vec<(PackId, Pool)>,
    /// Sorted by chunk.
    pub records: Vec<Record>,
}

impl Segment {
    pub fn sort(&mut self) {
        self.records.sort_unstable_by(|a, b| a.chunk.cmp(&b.chunk).then(a.pack.cmp(&b.pack)));
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(8 + self.packs.len() * 33 + self.records.len() * RECORD);
        out.extend_from_slice(&(self.packs.len() as u32).to_be_bytes());
        out.extend_from_slice(&(self.records.len() as u32).to_be_bytes());
        for (id, pool) in &self.packs {
            out.extend_from_slice(&id.0);
            out.push(if *pool == Pool::Data { 1 } else { 2 });
        }
        self.records.iter().for_each(|record| record.write(&mut out));
        out
    }

    pub fn decode(bytes: &[u8], what: &str) -> Result<Segment> {
        let damaged = |why| RepositoryError::damaged(what, why);
        let number = |at: usize| {
            bytes.get(at..at + 4).map(|b| u32::from_be_bytes(b.try_into().expect("four bytes")) as usize)
        };
        let (Some(packs), Some(records)) = (number(0), number(4)) else {
            return Err(damaged("it is too short"));
        };
        let packs_end = 8 + packs * 33;
        if bytes.len() != packs_end + records * RECORD {
            return Err(damaged("its length is not what it says"));
        }
        let packs: Vec<_> = bytes[8..packs_end]
            .chunks_exact(33)
            .map(|p| {
                (
                    PackId(p[..32].try_into().expect("32 bytes")),
                    if p[32] == 2 { Pool::Tree } else { Pool::Data },
                )
            })
            .collect();
        let records: Vec<_> = bytes[packs_end..].chunks_exact(RECORD).map(Record::read).collect();
        if records.iter().any(|r| r.pack as usize >= packs.len()) {
            return Err(damaged("a record names a pack that is not listed"));
        }
        if records.windows(2).any(|pair| pair[0].chunk > pair[1].chunk) {
            return Err(damaged("its records are not sorted"));
        }
        Ok(Segment { packs, records })
    }
}

const ENVELOPE: Envelope = Envelope {
    magic: b"MSTYIDX1",
    info: b"mainstay v1 index",
    signature: "mainstay v1 index\0",
    hashed: false,
    signers: Roles::BACKUP.and(Roles::PRUNE).and(Roles::ADMIN),
};

/// Seals and signs a segment.
pub fn seal(segment: &Segment, domain: DomainId, writer: &crate::envelope::Writer) -> (ObjectId, Vec<u8>) {
    let bytes = ENVELOPE.seal_to_index(&domain.0, &segment.encode(), writer);
    (ObjectId(*blake3::hash(&bytes).as_bytes()), bytes)
}

/// Opens a segment whose bytes hash to `id`, signed by somebody who may back up or prune.
pub fn open(id: &ObjectId, bytes: &[u8], reader: &Unsealer<'_>) -> Result<Segment> {
    let what = super::object_name(id);
    if blake3::hash(bytes).as_bytes() != &id.0 {
        return Err(RepositoryError::damaged(what, "its bytes are not those its name promises"));
    }
    let plain = ENVELOPE.open_from_index(bytes, reader, &what)?;
    Segment::decode(&plain, &what)
}
