//! Where chunks lie: sorted immutable segments in the store, and a local copy that is searched without holding it in memory.
//!
//! The store's segments (`segment`) are sealed and signed. Each is turned once into a local file (`local`) that can be
//! searched by reading a few kilobytes; the directory of those files (`cache`) may be deleted at any time. [`View`] is what
//! a session or a restore sees: the segments live at one log position, without the packs that it must not rely on.

mod cache;
mod local;
mod segment;

pub use cache::{Cache, LIVE_SEGMENTS_BEFORE_MERGE};
pub use local::LocalSegment;
pub use segment::{Record, Segment, open as open_segment, seal as seal_segment};

use crate::{
    error::Result,
    pack::{Blob, Place},
};
use mainstay_domain::{ChunkId, PackId, stream::Pool};
use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, RwLock},
};

/// The object name of an index segment.
pub fn object_name(id: &mainstay_domain::ObjectId) -> String {
    format!("index/{id}")
}

/// Where a chunk was found, with the pack as the number by which the view knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    pub pack: PackNumber,
    pub offset: u32,
    pub length: u32,
    pub plain_length: u32,
}

/// The position of a pack in a view. Stable for the view's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackNumber(u32);

impl PackNumber {
    pub fn get(self) -> u64 {
        self.0.into()
    }
}

/// The index as one session or restore sees it.
pub struct View {
    state: RwLock<ViewState>,
    /// Packs that must be treated as absent (condemned when the session began).
    absent: HashSet<PackId>,
    recent: Mutex<VecDeque<RecentPack>>,
}

#[derive(Default)]
struct ViewState {
    segments: Vec<Arc<ViewSegment>>,
    packs: Vec<(PackId, Pool)>,
    numbers: HashMap<PackId, PackNumber>,
}

struct ViewSegment {
    local: LocalSegment,
    /// The view's number of each of the segment's packs; `None` where the pack is to be treated as absent.
    numbers: Vec<Option<PackNumber>>,
}

/// The chunks of one pack, for adopting many neighbours cheaply: prefixes of their ids, sorted.
struct RecentPack {
    number: PackNumber,
    chunks: Vec<[u8; local::PREFIX]>,
}

/// Packs whose chunk lists are kept at hand.
const RECENT_PACKS: usize = 6;

impl View {
    pub fn new(absent: HashSet<PackId>) -> View {
        View { state: RwLock::default(), absent, recent: Mutex::default() }
    }

    /// Makes a segment's chunks findable.
    pub(crate) fn add(&self, local: LocalSegment) {
        let mut state = self.state.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        let numbers = local
            .packs()
            .iter()
            .map(|(id, pool)| (!self.absent.contains(id)).then(|| state.number(*id, *pool)))
            .collect();
        state.segments.push(Arc::new(ViewSegment { local, numbers }));
    }

    /// A place of the chunk in a pack that may be relied on.
    pub fn find(&self, chunk: &ChunkId) -> Result<Option<Found>> {
        Ok(self.find_in_segments(chunk)?.map(|(found, _, _)| found))
    }

    /// Every place of the chunk, for a reader that looks for an undamaged one.
    pub fn places(&self, chunk: &ChunkId) -> Result<Vec<Place>> {
        let mut places = Vec::new();
        for segment in self.segments() {
            for Record { pack, offset, length, plain_length, .. } in segment.local.find_all(chunk)? {
                if let Some(pack) = segment.numbers[pack as usize] {
                    places.push(self.place(chunk, Found { pack, offset, length, plain_length }));
                }
            }
        }
        Ok(places)
    }

    pub fn place(&self, chunk: &ChunkId, found: Found) -> Place {
        let (pack, pool) = self.pack(found.pack);
        let Found { offset, length, plain_length, .. } = found;
        Place { pack, pool, blob: Blob { chunk: *chunk, offset, length, plain_length } }
    }

    pub fn has_pack(&self, id: &PackId) -> bool {
        self.state.read().unwrap_or_else(|poisoned| poisoned.into_inner()).numbers.contains_key(id)
    }

    /// Whether a pack is one of data or of trees, if any segment names it.
    pub fn pool_of(&self, id: &PackId) -> Option<Pool> {
        let state = self.state.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        state.numbers.get(id).map(|number| state.packs[number.0 as usize].1)
    }

    pub fn pack(&self, number: PackNumber) -> (PackId, Pool) {
        self.state.read().unwrap_or_else(|poisoned| poisoned.into_inner()).packs[number.0 as usize]
    }

    /// The pack that holds the chunk. Cheap for chunks that lie in the same packs as those asked for just before.
    pub fn pack_of(&self, chunk: &ChunkId) -> Result<Option<PackNumber>> {
        let prefix = local::prefix(chunk);
        let mut recent = self.recent.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(at) = recent.iter().position(|pack| pack.chunks.binary_search(&prefix).is_ok()) {
            let number = recent[at].number;
            if at > 0 {
                recent.swap(0, at);
            }
            return Ok(Some(number));
        }
        let Some((found, segment, pack)) = self.find_in_segments(chunk)? else { return Ok(None) };
        let chunks = segment.local.chunks_of_pack(pack)?;
        recent.truncate(RECENT_PACKS - 1);
        recent.push_front(RecentPack { number: found.pack, chunks });
        Ok(Some(found.pack))
    }

    fn find_in_segments(&self, chunk: &ChunkId) -> Result<Option<(Found, Arc<ViewSegment>, u32)>> {
        for segment in self.segments().into_iter().rev() {
            if let Some(record) = segment.local.find(chunk)?
                && let Some(pack) = segment.numbers[record.pack as usize]
            {
                let found = Found {
                    pack,
                    offset: record.offset,
                    length: record.length,
                    plain_length: record.plain_length,
                };
                return Ok(Some((found, segment, record.pack)));
            }
        }
        Ok(None)
    }

    fn segments(&self) -> Vec<Arc<ViewSegment>> {
        self.state.read().unwrap_or_else(|poisoned| poisoned.into_inner()).segments.clone()
    }

    /// Visits every record of every segment, packs that are treated as absent included.
    pub fn for_each(&self, visit: &mut dyn FnMut(PackId, Pool, Blob) -> Result<()>) -> Result<()> {
        for segment in self.segments() {
            let packs = segment.local.packs();
            for record in segment.local.records(0) {
                let record = record?;
                let (pack, pool) = packs[record.pack as usize];
                let Record { chunk, offset, length, plain_length, .. } = record;
                visit(pack, pool, Blob { chunk, offset, length, plain_length })?;
            }
        }
        Ok(())
    }
}

impl ViewState {
    fn number(&mut self, id: PackId, pool: Pool) -> PackNumber {
        *self.numbers.entry(id).or_insert_with(|| {
            self.packs.push((id, pool));
            PackNumber(self.packs.len() as u32 - 1)
        })
    }
}
