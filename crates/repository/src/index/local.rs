//! One index segment, or several merged, as a local file that is searched without loading it.
//!
//! Layout: magic (8) · BLAKE3 of the rest (32) · u32 sources · u32 packs · u32 records · sources × object id · packs × (id, u8
//! pool) · records × 48 bytes, sorted · (packs + 1) × u32 ends of the lists below · for each pack, the first 16 bytes of its
//! chunks' ids, sorted. All of it is checked once, when the file is opened: a flipped bit in a cache must not make a backup
//! rely on a chunk that is not there.

use super::segment::{RECORD, Record, Segment};
use crate::error::{RepositoryError, Result};
use mainstay_domain::{ChunkId, ObjectId, PackId, stream::Pool};
use std::{
    cell::RefCell,
    fs::File,
    io::{self, BufWriter, Read, Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

const MAGIC: &[u8; 8] = b"MSTYCIX2";
/// Bytes of a chunk's id that the lists by pack hold.
pub const PREFIX: usize = 16;
/// Records read by one probe of a search: 4 KiB.
const WINDOW: u64 = 85;

pub fn prefix(chunk: &ChunkId) -> [u8; PREFIX] {
    chunk.0[..PREFIX].try_into().expect("an id is longer than its prefix")
}

pub struct LocalSegment {
    path: PathBuf,
    file: File,
    sources: Vec<ObjectId>,
    packs: Vec<(PackId, Pool)>,
    records: u64,
    records_at: u64,
    ends: Vec<u32>,
    prefixes_at: u64,
}

impl LocalSegment {
    pub fn packs(&self) -> &[(PackId, Pool)] {
        &self.packs
    }
    pub fn sources(&self) -> &[ObjectId] {
        &self.sources
    }
    pub(super) fn len(&self) -> u64 {
        self.records
    }
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a segment as a local file, which appears under its name only when it is whole.
    pub fn write(path: &Path, source: ObjectId, segment: &Segment) -> Result<LocalSegment> {
        let mut by_pack: Vec<(u32, [u8; PREFIX])> =
            segment.records.iter().map(|r| (r.pack, prefix(&r.chunk))).collect();
        by_pack.sort_unstable();
        let mut writer = LocalWriter::begin(path, &[source], &segment.packs, segment.records.len() as u64)?;
        let mut record_bytes = Vec::with_capacity(RECORD);
        for record in &segment.records {
            record_bytes.clear();
            record.write(&mut record_bytes);
            writer.put(&record_bytes)?;
        }
        let mut end = 0;
        writer.put(&0u32.to_be_bytes())?;
        for pack in 0..segment.packs.len() as u32 {
            end += by_pack[end..].iter().take_while(|(p, _)| *p == pack).count();
            writer.put(&(end as u32).to_be_bytes())?;
        }
        for (_, prefix) in &by_pack {
            writer.put(prefix)?;
        }
        writer.finish()
    }

    /// Merges local files into one, reading them as streams.
    pub fn merge(path: &Path, parts: &[LocalSegment]) -> Result<LocalSegment> {
        let sources: Vec<_> = parts.iter().flat_map(|p| p.sources.iter().copied()).collect();
        let packs: Vec<_> = parts.iter().flat_map(|p| p.packs.iter().copied()).collect();
        let total = parts.iter().map(LocalSegment::len).sum();
        let mut writer = LocalWriter::begin(path, &sources, &packs, total)?;
        let mut base = 0;
        let mut streams = Vec::new();
        for part in parts {
            let mut records = part.records(base);
            base += part.packs.len() as u32;
            if let Some(first) = records.next() {
                streams.push((first?, records));
            }
        }
        let mut bytes = Vec::with_capacity(RECORD);
        while let Some(least) = (0..streams.len()).min_by_key(|i| streams[*i].0.chunk) {
            bytes.clear();
            streams[least].0.write(&mut bytes);
            writer.put(&bytes)?;
            match streams[least].1.next() {
                Some(next) => streams[least].0 = next?,
                None => drop(streams.swap_remove(least)),
            }
        }
        // Packs are listed part by part, so the lists by pack simply follow one another.
        writer.put(&0u32.to_be_bytes())?;
        let mut offset = 0;
        for part in parts {
            for end in &part.ends[1..] {
                writer.put(&(offset + end).to_be_bytes())?;
            }
            offset += part.ends.last().copied().unwrap_or(0);
        }
        for part in parts {
            let mut at = part.prefixes_at;
            let end = at + part.records * PREFIX as u64;
            let mut buffer = vec![0; 64 << 10];
            while at < end {
                let length = buffer.len().min((end - at) as usize);
                part.read_at(&mut buffer[..length], at)?;
                writer.put(&buffer[..length])?;
                at += length as u64;
            }
        }
        writer.finish()
    }

    /// Opens and checks a local file.
    pub fn open(path: &Path) -> Result<LocalSegment> {
        let cache = |source| RepositoryError::Cache { path: path.display().to_string(), source };
        let invalid = |what: &str| cache(io::Error::new(io::ErrorKind::InvalidData, what.to_owned()));
        let mut file = File::open(path).map_err(cache)?;
        let mut head = [0; 52];
        file.read_exact(&mut head).map_err(cache)?;
        if &head[..8] != MAGIC {
            return Err(invalid("not an index file of this version"));
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&head[40..]);
        let mut buffer = vec![0; 256 << 10];
        loop {
            match file.read(&mut buffer).map_err(cache)? {
                0 => break,
                n => drop(hasher.update(&buffer[..n])),
            }
        }
        if hasher.finalize().as_bytes() != &head[8..40] {
            return Err(invalid("its checksum does not match"));
        }
        let number = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().expect("four bytes"));
        let (sources, packs, records) = (number(40) as usize, number(44) as usize, number(48));
        // Before anything is made room for: it must hold what it says.
        let tables = sources as u64 * 32 + packs as u64 * 33 + (packs as u64 + 1) * 4;
        let by_record = (RECORD + PREFIX) as u64;
        if file.metadata().map_err(cache)?.len() != 52 + tables + u64::from(records) * by_record {
            return Err(invalid("it is not as long as it says"));
        }
        file.seek(SeekFrom::Start(52)).map_err(cache)?;
        let mut tables = vec![0; sources * 32 + packs * 33];
        file.read_exact(&mut tables).map_err(cache)?;
        let (source_bytes, pack_bytes) = tables.split_at(sources * 32);
        let records_at = 52 + tables.len() as u64;
        let ends_at = records_at + u64::from(records) * RECORD as u64;
        let mut end_bytes = vec![0; (packs + 1) * 4];
        file.read_exact_at(&mut end_bytes, ends_at).map_err(cache)?;
        let ends = end_bytes.chunks_exact(4).map(|e| u32::from_be_bytes(e.try_into().expect("four bytes")));
        let ends: Vec<u32> = ends.collect();
        if !ends.is_sorted() || ends.last() != Some(&records) {
            return Err(invalid("its lists by pack do not follow one another"));
        }
        Ok(LocalSegment {
            sources: source_bytes.chunks_exact(32).filter_map(ObjectId::from_slice).collect(),
            packs: pack_bytes
                .chunks_exact(33)
                .map(|p| {
                    (
                        PackId(p[..32].try_into().expect("32 bytes")),
                        if p[32] == 2 { Pool::Tree } else { Pool::Data },
                    )
                })
                .collect(),
            records: records.into(),
            records_at,
            prefixes_at: ends_at + end_bytes.len() as u64,
            ends,
            path: path.to_owned(),
            file,
        })
    }

    /// A record of the chunk.
    pub fn find(&self, chunk: &ChunkId) -> Result<Option<Record>> {
        Ok(self.search(chunk)?.map(|(_, record)| record))
    }

    /// Every record of the chunk: two writers at once may have stored it twice.
    pub fn find_all(&self, chunk: &ChunkId) -> Result<Vec<Record>> {
        let Some((found, record)) = self.search(chunk)? else { return Ok(Vec::new()) };
        let mut all = vec![record];
        let mut look = |at: u64| -> Result<bool> {
            let mut bytes = [0; RECORD];
            self.read_at(&mut bytes, self.records_at + at * RECORD as u64)?;
            let same = bytes[..32] == chunk.0;
            all.extend(same.then(|| Record::read(&bytes)));
            Ok(same)
        };
        let mut below = found;
        while below > 0 && look(below - 1)? {
            below -= 1;
        }
        let mut above = found + 1;
        while above < self.records && look(above)? {
            above += 1;
        }
        Ok(all)
    }

    /// Interpolation search: ids are uniform, so two probes usually do. Returns the position of a record, and the record.
    fn search(&self, chunk: &ChunkId) -> Result<Option<(u64, Record)>> {
        thread_local! {
            static PROBE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        let key = |id: &[u8]| u64::from_be_bytes(id[..8].try_into().expect("eight bytes"));
        let target = key(&chunk.0);
        let (mut low, mut high) = (0, self.records);
        let (mut low_key, mut high_key) = (0, u64::MAX);
        let mut probes = 0;
        PROBE.with_borrow_mut(|buffer| {
            while low < high {
                let width = high - low;
                let start = if width <= WINDOW {
                    low
                } else {
                    let share = match probes {
                        0..6 => {
                            target.saturating_sub(low_key) as f64
                                / (high_key.saturating_sub(low_key)).max(1) as f64
                        }
                        _ => 0.5,
                    };
                    let guess = low + ((width as f64 * share) as u64).min(width);
                    guess.saturating_sub(WINDOW / 2).clamp(low, high - WINDOW)
                };
                probes += 1;
                let count = WINDOW.min(width) as usize;
                buffer.resize(count * RECORD, 0);
                self.read_at(buffer, self.records_at + start * RECORD as u64)?;
                let id_at = |i: usize| &buffer[i * RECORD..i * RECORD + 32];
                if chunk.0[..] < *id_at(0) {
                    high = start;
                    high_key = key(id_at(0));
                } else if chunk.0[..] > *id_at(count - 1) {
                    low = start + count as u64;
                    low_key = key(id_at(count - 1));
                } else {
                    let (mut a, mut b) = (0, count);
                    while a < b {
                        let middle = (a + b) / 2;
                        match id_at(middle).cmp(&chunk.0[..]) {
                            std::cmp::Ordering::Less => a = middle + 1,
                            std::cmp::Ordering::Greater => b = middle,
                            std::cmp::Ordering::Equal => {
                                return Ok(Some((
                                    start + middle as u64,
                                    Record::read(&buffer[middle * RECORD..]),
                                )));
                            }
                        }
                    }
                    return Ok(None);
                }
            }
            Ok(None)
        })
    }

    /// The prefixes of the ids of one pack's chunks, sorted.
    pub fn chunks_of_pack(&self, pack: u32) -> Result<Vec<[u8; PREFIX]>> {
        let (from, to) = (u64::from(self.ends[pack as usize]), u64::from(self.ends[pack as usize + 1]));
        let mut bytes = vec![0; ((to - from) as usize) * PREFIX];
        self.read_at(&mut bytes, self.prefixes_at + from * PREFIX as u64)?;
        Ok(bytes.chunks_exact(PREFIX).map(|p| p.try_into().expect("a prefix")).collect())
    }

    /// All records in order, the pack numbers raised by `base`.
    pub fn records(&self, base: u32) -> impl Iterator<Item = Result<Record>> + '_ {
        let mut next = 0;
        let mut buffer = Vec::new();
        let mut at = 0;
        std::iter::from_fn(move || {
            if at == buffer.len() {
                let count = (self.records - next).min(1024);
                if count == 0 {
                    return None;
                }
                buffer.resize(count as usize * RECORD, 0);
                if let Err(error) = self.read_at(&mut buffer, self.records_at + next * RECORD as u64) {
                    next = self.records;
                    buffer.clear();
                    at = 0;
                    return Some(Err(error));
                }
                next += count;
                at = 0;
            }
            let mut record = Record::read(&buffer[at..]);
            record.pack += base;
            at += RECORD;
            Some(Ok(record))
        })
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> Result<()> {
        self.file
            .read_exact_at(buffer, at)
            .map_err(|source| RepositoryError::Cache { path: self.path.display().to_string(), source })
    }
}

/// Writes a local file and its checksum, under a temporary name until it is whole.
struct LocalWriter {
    path: PathBuf,
    out: BufWriter<tempfile::NamedTempFile>,
    hasher: blake3::Hasher,
}

impl LocalWriter {
    fn begin(
        path: &Path,
        sources: &[ObjectId],
        packs: &[(PackId, Pool)],
        records: u64,
    ) -> Result<LocalWriter> {
        let directory = path.parent().unwrap_or(Path::new("."));
        let file = tempfile::Builder::new()
            .prefix(".writing-")
            .tempfile_in(directory)
            .map_err(|source| RepositoryError::Cache { path: directory.display().to_string(), source })?;
        let mut writer = LocalWriter {
            path: path.to_owned(),
            out: BufWriter::with_capacity(256 << 10, file),
            hasher: blake3::Hasher::new(),
        };
        writer.raw(MAGIC)?;
        writer.raw(&[0; 32])?;
        for number in [sources.len(), packs.len(), records as usize] {
            writer.put(&(number as u32).to_be_bytes())?;
        }
        sources.iter().try_for_each(|source| writer.put(&source.0))?;
        for (id, pool) in packs {
            writer.put(&id.0)?;
            writer.put(&[if *pool == Pool::Data { 1 } else { 2 }])?;
        }
        Ok(writer)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        self.raw(bytes)
    }

    fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        let path = self.path.display().to_string();
        self.out.write_all(bytes).map_err(|source| RepositoryError::Cache { path, source })
    }

    /// Opened before it gets its name: another process may throw the named file away at any moment.
    fn finish(self) -> Result<LocalSegment> {
        let cache = |source| RepositoryError::Cache { path: self.path.display().to_string(), source };
        let mut file = self.out.into_inner().map_err(|error| cache(error.into_error()))?;
        let checksum = *self.hasher.finalize().as_bytes();
        file.as_file_mut().write_all_at(&checksum, 8).map_err(cache)?;
        let opened = LocalSegment::open(file.path())?;
        file.persist(&self.path).map_err(|error| cache(error.error))?;
        Ok(LocalSegment { path: self.path, ..opened })
    }
}
