//! A store in memory, for tests and simulations.
//!
//! Clones share their objects, as two processes share a disk. Beside the verbs of [`Store`] it lets a test damage what is
//! stored, and take a copy of everything as it is at one moment.

use crate::{Listed, Store, StoreError, name};
use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    sync::{Arc, Mutex, MutexGuard},
};

type Objects = BTreeMap<String, Arc<[u8]>>;

#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    objects: Arc<Mutex<Objects>>,
}

impl MemoryStore {
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }

    /// An independent store that holds what this one holds now. The bytes themselves are shared.
    pub fn snapshot(&self) -> MemoryStore {
        MemoryStore { objects: Arc::new(Mutex::new(self.lock().clone())) }
    }

    /// Everything in it, by name.
    pub fn objects(&self) -> BTreeMap<String, Arc<[u8]>> {
        self.lock().clone()
    }

    /// The names of everything in it, in order.
    pub fn names(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// Puts these bytes there whatever was there before: damage, or a store's rollback. No store verb can do this.
    pub fn overwrite(&self, name: &str, bytes: &[u8]) {
        self.lock().insert(name.to_owned(), bytes.into());
    }

    fn lock(&self) -> MutexGuard<'_, Objects> {
        // A panic elsewhere leaves the map whole: every change is one insert or remove.
        self.objects.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn get(&self, name: &str) -> Result<Arc<[u8]>, StoreError> {
        name::check(self, name)?;
        let object = self.lock().get(name).cloned();
        object.ok_or_else(|| StoreError::NotFound { store: self.describe(), name: name.to_owned() })
    }
}

impl Store for MemoryStore {
    fn create(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        name::check(self, name)?;
        let mut objects = self.lock();
        if objects.contains_key(name) {
            return Err(StoreError::AlreadyExists { store: self.describe(), name: name.to_owned() });
        }
        objects.insert(name.to_owned(), bytes.into());
        Ok(())
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, StoreError> {
        Ok(self.get(name)?.to_vec())
    }

    fn read_range(&self, name: &str, offset: u64, length: usize) -> Result<Vec<u8>, StoreError> {
        let object = self.get(name)?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(object.len());
        let end = start.saturating_add(length).min(object.len());
        Ok(object[start..end].to_vec())
    }

    fn stat(&self, name: &str) -> Result<Option<u64>, StoreError> {
        name::check(self, name)?;
        Ok(self.lock().get(name).map(|object| object.len() as u64))
    }

    fn list(&self, prefix: &str, visit: &mut dyn FnMut(Listed) -> ControlFlow<()>) -> Result<(), StoreError> {
        name::check_prefix(self, prefix)?;
        // Collected first: the visitor may call the store.
        let found: Vec<Listed> = self
            .lock()
            .range(prefix.to_owned()..)
            .take_while(|(name, _)| name.starts_with(prefix))
            .map(|(name, object)| Listed { name: name.clone(), bytes: object.len() as u64 })
            .collect();
        for listed in found {
            if visit(listed).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        name::check(self, name)?;
        self.lock().remove(name);
        Ok(())
    }

    fn describe(&self) -> String {
        "memory:".to_owned()
    }
}
