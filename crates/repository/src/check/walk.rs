//! Following everything that a recovery point refers to, chunk by chunk.

use super::go_on;
use crate::{
    error::{RepositoryError, Result},
    manifest::Manifest,
    reader::Reader,
};
use mainstay_domain::{
    ChunkId, Monitor,
    listing::{Item, decode_items},
    point::SourceRecord,
    stream::{Content, Vault},
};
use std::collections::HashSet;

const REMEMBERED_CHUNKS: usize = 500_000;

pub(super) struct Walk<'a, 'r> {
    reader: &'a Reader<'r>,
    monitor: &'a dyn Monitor,
    /// Told of each chunk, of most only once; whether it can be read, and what it leads to be followed.
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

    fn source(&mut self, source: &SourceRecord) -> Result<()> {
        for stream in &source.streams {
            let is_listing = stream.is_listing();
            for piece in self.reader.pieces(&stream.content) {
                for chunk in piece?.chunks() {
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
        }
        Ok(())
    }

    fn listing(&mut self, chunk: &ChunkId) -> Result<()> {
        let bytes = self.reader.get(chunk)?;
        for item in decode_items(&bytes) {
            let item = item.map_err(|_| {
                RepositoryError::damaged(format!("listing chunk {}", chunk.short()), "it is malformed")
            })?;
            if let Item::Entry(entry) = item {
                for content in entry.content.iter().chain(&entry.pages) {
                    self.content(content)?;
                }
            }
        }
        Ok(())
    }

    fn content(&mut self, content: &Content) -> Result<()> {
        for piece in self.reader.pieces(content) {
            for chunk in piece?.chunks() {
                self.chunk(chunk)?;
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
