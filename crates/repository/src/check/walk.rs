//! Following everything that a recovery point refers to, chunk by chunk.

use super::go_on;
use crate::{
    error::{RepositoryError, Result},
    manifest::Manifest,
    reader::Reader,
    stream::Pieces,
};
use mainstay_domain::{
    ChunkId, Monitor,
    listing::{Item, decode_items},
    point::{SourceRecord, Stream},
    stream::{Content, KeyOrder, Piece, Vault},
};
use std::{
    collections::HashSet,
    io::Write,
    sync::{Mutex, MutexGuard},
};

const REMEMBERED_CHUNKS: usize = 500_000;

pub(super) struct Walk<'a, 'r> {
    reader: &'a Reader<'r>,
    monitor: &'a dyn Monitor,
    /// Told of each chunk, of most only once; whether it can be read, and what it leads to be followed. Chunks of lists are
    /// followed before it is told of them.
    visit: &'a mut dyn FnMut(&ChunkId) -> Result<bool>,
    seen: HashSet<ChunkId>,
    /// Whether something was not followed.
    left_out: bool,
}

impl<'a, 'r> Walk<'a, 'r> {
    pub fn new(
        reader: &'a Reader<'r>,
        monitor: &'a dyn Monitor,
        visit: &'a mut dyn FnMut(&ChunkId) -> Result<bool>,
    ) -> Walk<'a, 'r> {
        Walk { reader, monitor, visit, seen: HashSet::new(), left_out: false }
    }

    /// Visits everything that the point refers to. Says whether that was all, or something led further and could not be read.
    pub fn point(mut self, manifest: &Manifest) -> Result<bool> {
        for source in &manifest.point.sources {
            self.source(source)?;
        }
        Ok(!self.left_out)
    }

    /// Visits everything that one stream refers to, as far as it can be followed.
    pub fn stream(mut self, stream: &Stream) -> Result<()> {
        self.content(&stream.content, stream.is_listing())
    }

    fn source(&mut self, source: &SourceRecord) -> Result<()> {
        source.streams.iter().try_for_each(|stream| self.content(&stream.content, stream.is_listing()))
    }

    fn listing(&mut self, chunk: &ChunkId) -> Result<()> {
        let bytes = self.reader.get(chunk)?;
        for item in decode_items(&bytes) {
            let item = item.map_err(|_| {
                RepositoryError::damaged(format!("listing chunk {}", chunk.short()), "it is malformed")
            })?;
            if let Item::Entry(entry) = item {
                for content in entry.content.iter().chain(&entry.pages) {
                    self.content(content, false)?;
                }
            }
        }
        Ok(())
    }

    fn content(&mut self, content: &Content, is_listing: bool) -> Result<()> {
        let lists = Lists { reader: self.reader, read: Mutex::default() };
        for piece in Pieces::new(&lists, content) {
            let piece = piece?;
            for list in std::mem::take(&mut *lists.lock()) {
                self.chunk(&list)?;
            }
            for chunk in piece.chunks() {
                let can_be_read = self.chunk(chunk)?;
                if !is_listing {
                    continue;
                }
                match can_be_read {
                    true => self.listing(chunk)?,
                    false => self.left_out = true,
                }
            }
        }
        Ok(())
    }

    fn chunk(&mut self, chunk: &ChunkId) -> Result<bool> {
        if !self.seen.insert(*chunk) {
            return Ok(true);
        }
        go_on(self.monitor)?;
        if self.seen.len() > REMEMBERED_CHUNKS {
            self.seen.clear(); // looking twice costs time; remembering all would cost memory without bound
        }
        (self.visit)(chunk)
    }
}

/// Remembers the chunks that were read, which are those of lists.
struct Lists<'a, 'r> {
    reader: &'a Reader<'r>,
    read: Mutex<Vec<ChunkId>>,
}

impl Lists<'_, '_> {
    fn lock(&self) -> MutexGuard<'_, Vec<ChunkId>> {
        self.read.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Vault for Lists<'_, '_> {
    fn get(&self, chunk: &ChunkId) -> mainstay_domain::Result<Vec<u8>> {
        let bytes = self.reader.get(chunk)?;
        self.lock().push(*chunk);
        Ok(bytes)
    }

    fn pieces<'a>(
        &'a self,
        content: &Content,
    ) -> Box<dyn Iterator<Item = mainstay_domain::Result<Piece>> + Send + 'a> {
        Box::new(Pieces::new(self, content))
    }

    fn pieces_from<'a>(
        &'a self,
        content: &Content,
        key: &[u8],
        order: KeyOrder,
    ) -> Box<dyn Iterator<Item = mainstay_domain::Result<Piece>> + Send + 'a> {
        Box::new(Pieces::from_key(self, content, key, order))
    }

    fn copy(&self, content: &Content, out: &mut dyn Write) -> mainstay_domain::Result<u64> {
        self.reader.copy(content, out)
    }
}
