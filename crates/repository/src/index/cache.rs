//! The directory of local index files: brought in line with the segments that are live, merged so that few are searched.
//!
//! It can be deleted at any time, and holds nothing that is not in the store. A file that is damaged, of another version, or
//! made from a segment that is no longer live is thrown away and made again. Several processes may use it at once: files
//! appear whole, and a file that vanishes is made again. A directory that is full or cannot be written only makes the next
//! start slower: what does not fit there is kept in a nameless temporary file for as long as it is used.

use super::{LocalSegment, View, object_name, open_segment};
use crate::{
    envelope::Unsealer,
    error::{RepositoryError, Result},
};
use mainstay_domain::{ObjectId, PackId};
use mainstay_stores::Store;
use std::{
    collections::{BTreeSet, HashSet},
    fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

/// Local files that a lookup may have to search; beyond it the small ones are merged.
const FILES_BEFORE_MERGE: usize = 8;
/// Live segments in a store that make a collector merge them.
pub const LIVE_SEGMENTS_BEFORE_MERGE: usize = 64;

pub struct Cache {
    directory: PathBuf,
    /// Removed on drop, when the cache is only for this process.
    _temporary: Option<tempfile::TempDir>,
}

impl Cache {
    /// A cache in `directory`, which is made if it is not there (0700).
    pub fn at(directory: &Path) -> Result<Cache> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|source| RepositoryError::Cache { path: directory.display().to_string(), source })?;
        Ok(Cache { directory: directory.to_owned(), _temporary: None })
    }

    /// A cache that lives as long as this value.
    pub fn temporary() -> Result<Cache> {
        let temporary = tempfile::Builder::new().prefix("mainstay-cache-").tempdir().map_err(|source| {
            RepositoryError::Cache { path: std::env::temp_dir().display().to_string(), source }
        })?;
        Ok(Cache { directory: temporary.path().to_owned(), _temporary: Some(temporary) })
    }

    /// Writes a segment that this process made itself.
    pub(crate) fn keep(&self, id: ObjectId, segment: &super::Segment) -> Result<LocalSegment> {
        LocalSegment::write(&self.file_of(&id), id, segment).or_else(|_| {
            let elsewhere = Cache::temporary()?; // gone at once; an open file needs no name
            LocalSegment::write(&elsewhere.file_of(&id), id, segment)
        })
    }

    /// The index of the `live` segments. Segments that cannot be read are handed to `on_damage`; the rest is usable.
    pub fn view(
        &self,
        live: &BTreeSet<ObjectId>,
        absent: HashSet<PackId>,
        store: &dyn Store,
        unsealer: &Unsealer<'_>,
        on_damage: &mut dyn FnMut(ObjectId, RepositoryError),
    ) -> Result<View> {
        let mut files = self.usable_files(live)?;
        let covered: HashSet<ObjectId> = files.iter().flat_map(|f| f.sources().iter().copied()).collect();
        for id in live.iter().filter(|id| !covered.contains(*id)) {
            match fetch(id, store, unsealer) {
                Ok(segment) => files.push(self.keep(*id, &segment)?),
                Err(error) if error.is_damage() => on_damage(*id, error),
                Err(error) => return Err(error),
            }
        }
        if files.len() > FILES_BEFORE_MERGE {
            self.merge_small(&mut files);
        }
        let view = View::new(absent);
        files.into_iter().for_each(|file| view.add(file));
        Ok(view)
    }

    /// Opens the files whose sources are all live, each source once; removes the others.
    fn usable_files(&self, live: &BTreeSet<ObjectId>) -> Result<Vec<LocalSegment>> {
        let cache = |source| RepositoryError::Cache { path: self.directory.display().to_string(), source };
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(cache)? {
            let path = entry.map_err(cache)?.path();
            if path.extension().is_some_and(|e| e == "idx") {
                match LocalSegment::open(&path) {
                    Ok(file) if file.sources().iter().all(|source| live.contains(source)) => files.push(file),
                    _ => remove(&path),
                }
            }
        }
        files.sort_by_key(|file| std::cmp::Reverse(file.sources().len()));
        let mut covered = HashSet::new();
        let mut kept = Vec::new();
        for file in files {
            if file.sources().iter().any(|source| covered.contains(source)) {
                remove(file.path()); // left over by a merge that was interrupted
            } else {
                covered.extend(file.sources().iter().copied());
                kept.push(file);
            }
        }
        Ok(kept)
    }

    /// Merges all but the few largest files into one. Where that cannot be written, more files are searched.
    fn merge_small(&self, files: &mut Vec<LocalSegment>) {
        files.sort_by_key(|file| std::cmp::Reverse(file.len()));
        let small = &files[FILES_BEFORE_MERGE / 4..];
        let mut name = blake3::Hasher::new();
        for source in small.iter().flat_map(|file| file.sources()) {
            name.update(&source.0);
        }
        let path = self.directory.join(format!("merged-{}.idx", name.finalize().to_hex()));
        if let Ok(merged) = LocalSegment::merge(&path, small) {
            files.drain(FILES_BEFORE_MERGE / 4..).for_each(|file| remove(file.path()));
            files.push(merged);
        }
    }

    fn file_of(&self, id: &ObjectId) -> PathBuf {
        self.directory.join(format!("{id}.idx"))
    }
}

fn fetch(id: &ObjectId, store: &dyn Store, unsealer: &Unsealer<'_>) -> Result<super::Segment> {
    let bytes = store.read(&object_name(id))?;
    open_segment(id, &bytes, unsealer)
}

/// Best effort: what stays is passed over or thrown away the next time.
fn remove(path: &Path) {
    drop(fs::remove_file(path));
}
