//! Reading chunks back. Every byte that leaves here was authenticated and hashed against its chunk's id.
//!
//! A chunk that lies in several packs is looked for in each until an undamaged copy is found. Damage is an error that names the
//! object; it is never a wrong byte and never the end of the others.

use crate::{
    error::{RepositoryError, Result},
    index::View,
    pack::{HEADER, Opened, Place, chunk_id, object_name},
    repository::Repository,
    stream::Pieces,
};
use lru::LruCache;
use mainstay_domain::{
    ChunkId, PackId,
    stream::{Content, KeyOrder, Piece, Vault},
};
use std::{
    io::Write,
    num::NonZeroUsize,
    sync::{Arc, Mutex},
};
use zeroize::Zeroizing;

/// Packs whose unsealed keys are kept: a few hundred bytes each.
const OPEN_PACKS: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");

pub struct Reader<'r> {
    repository: &'r Repository,
    view: Arc<View>,
    chunk_id_key: Zeroizing<[u8; 32]>,
    opened: Mutex<LruCache<PackId, Arc<Opened>>>,
}

impl<'r> Reader<'r> {
    pub(crate) fn new(repository: &'r Repository, view: Arc<View>) -> Reader<'r> {
        let chunk_id_key = Zeroizing::new(repository.keyring().current().chunk_id_key());
        Reader { repository, view, chunk_id_key, opened: Mutex::new(LruCache::new(OPEN_PACKS)) }
    }

    pub(crate) fn repository(&self) -> &'r Repository {
        self.repository
    }

    pub fn view(&self) -> &View {
        &self.view
    }

    fn read(&self, chunk: &ChunkId) -> Result<Vec<u8>> {
        let found = self.view.find(chunk)?.ok_or(RepositoryError::MissingChunk(*chunk))?;
        let first = self.view.place(chunk, found);
        match self.read_place(&first) {
            Err(error) if error.is_damage() => {
                let others = self.view.places(chunk)?;
                others
                    .iter()
                    .filter(|place| **place != first)
                    .find_map(|place| self.read_place(place).ok())
                    .ok_or(error)
            }
            result => result,
        }
    }

    fn read_place(&self, place: &Place) -> Result<Vec<u8>> {
        let opened = self.open_pack(place)?;
        let name = object_name(place.pool, &place.pack);
        let sealed = self.repository.store().read_range(
            &name,
            place.blob.offset.into(),
            place.blob.length as usize,
        )?;
        let plain = opened.decode(&place.blob, sealed).map_err(|error| within(&name, error))?;
        if chunk_id(&self.chunk_id_key, &plain) != place.blob.chunk {
            return Err(RepositoryError::damaged(name, "a chunk in it is not what its id promises"));
        }
        Ok(plain)
    }

    fn open_pack(&self, place: &Place) -> Result<Arc<Opened>> {
        let lock = || self.opened.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(opened) = lock().get(&place.pack) {
            return Ok(opened.clone());
        }
        let name = object_name(place.pool, &place.pack);
        let header = self.repository.store().read_range(&name, 0, HEADER)?;
        let opened =
            Arc::new(Opened::open(&header, &self.repository.id(), self.repository.keyring(), &name)?);
        lock().put(place.pack, opened.clone());
        Ok(opened)
    }
}

/// Damage to a chunk, with the pack that it lies in.
fn within(pack: &str, error: RepositoryError) -> RepositoryError {
    match error {
        RepositoryError::Damaged { what, why } => {
            RepositoryError::Damaged { what: format!("{what} in {pack}"), why }
        }
        other => other,
    }
}

impl Vault for Reader<'_> {
    fn get(&self, chunk: &ChunkId) -> mainstay_domain::Result<Vec<u8>> {
        Ok(self.read(chunk)?)
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
        let failed =
            |error| mainstay_domain::Failure::failed("writing out what was read failed").caused_by(error);
        let mut written = 0;
        for piece in self.pieces(content) {
            let piece = piece?;
            match &piece.chunk {
                Some(_) => out.write_all(&self.piece(&piece)?).map_err(failed)?,
                None => {
                    std::io::copy(&mut std::io::Read::take(std::io::repeat(0), piece.bytes), &mut &mut *out)
                        .map_err(failed)?;
                }
            }
            written += piece.bytes;
        }
        Ok(written)
    }
}
