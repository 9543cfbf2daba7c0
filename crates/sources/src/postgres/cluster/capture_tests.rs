//! Segments of the log that a backup takes out of `pg_wal` while the server goes on.

use super::*;
use crate::files::testing::Memory;
use mainstay_domain::{ChunkId, stream::PieceWriter};
use std::io::Read;

const SYSTEM: u64 = 7_000_000_000_000_000_001;
const SIZE: u64 = 1 << 20;

/// A segment's first page begins with its long header.
fn segment_file(name: Segment, system: u64) -> Vec<u8> {
    let mut bytes = vec![0; SIZE as usize];
    let size = SIZE.try_into().unwrap();
    bytes[0..2].copy_from_slice(&0xD110_u16.to_ne_bytes());
    bytes[2..4].copy_from_slice(&2_u16.to_ne_bytes());
    bytes[4..8].copy_from_slice(&name.timeline.to_ne_bytes());
    bytes[8..16].copy_from_slice(&name.start(size).0.to_ne_bytes());
    bytes[24..32].copy_from_slice(&system.to_ne_bytes());
    bytes[32..36].copy_from_slice(&(SIZE as u32).to_ne_bytes());
    bytes[36..40].copy_from_slice(&8192_u32.to_ne_bytes());
    bytes
}

/// A repository that is slow enough for the server to recycle what is read.
struct Recycled<'a> {
    memory: Memory,
    path: &'a Path,
}

impl Sink for Recycled<'_> {
    fn put(&self, pool: Pool, chunk: &[u8]) -> Result<ChunkId> {
        self.memory.put(pool, chunk)
    }
    fn put_reader(&self, pool: Pool, reader: &mut dyn Read) -> Result<Content> {
        let content = self.memory.put_reader(pool, reader)?;
        fs::rename(self.path, self.path.with_file_name("0000000100000000000000FF")).unwrap();
        Ok(content)
    }
    fn begin(&self, pool: Pool) -> Box<dyn PieceWriter + '_> {
        self.memory.begin(pool)
    }
    fn join(&self, pieces: &mut dyn Iterator<Item = Piece>) -> Result<Content> {
        self.memory.join(pieces)
    }
    fn adopt(&self, content: &Content) -> Result<bool> {
        self.memory.adopt(content)
    }
}

#[test]
fn a_segment_that_is_recycled_before_or_while_it_is_read_is_not_taken() {
    let scratch = tempfile::tempdir().unwrap();
    let name: Segment = "000000010000000000000003".parse().unwrap();
    let other: Segment = "000000010000000000000002".parse().unwrap();
    let path = scratch.path().join("pg_wal").join(name.to_string());
    fs::create_dir(scratch.path().join("pg_wal")).unwrap();
    let memory = Memory::default();
    let taken = |sink: &dyn Sink| put_segment(sink, scratch.path(), name, SYSTEM);

    fs::write(&path, segment_file(name, SYSTEM)).unwrap();
    assert_eq!(taken(&memory).unwrap().bytes(), SIZE);
    for wrong in [segment_file(other, SYSTEM), segment_file(name, SYSTEM + 1), vec![0; SIZE as usize]] {
        fs::write(&path, wrong).unwrap();
        let failed = taken(&memory).unwrap_err();
        assert!(failed.message.contains("is not what its name says"), "{failed}");
        assert!(failed.hint.unwrap().contains("wal_keep_size"));
    }
    fs::write(&path, segment_file(name, SYSTEM)).unwrap();
    let failed = taken(&Recycled { memory, path: &path }).unwrap_err();
    assert!(failed.message.contains("was recycled while it was read"), "{failed}");
    assert!(taken(&Memory::default()).unwrap_err().message.contains("cannot be read"));
}
