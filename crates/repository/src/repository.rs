//! A repository that was opened: its identity, its keys, its log, and ways to its recovery points.

use crate::{
    envelope::{Unsealer, Writer},
    error::{RepositoryError, Result},
    format::{self, Format},
    history::log_context,
    index::{Cache, Segment, View, open_segment},
    keyring::Keyring,
    log::{Log, create_contested},
    manifest::{self, Manifest},
    reader::Reader,
    rescue::{self, FIRST_ENTRY, Spares},
    stream::Chunking,
    trust::{self, Roles, Trust, TrustedHost},
};
use mainstay_domain::{Clock, EpochId, ObjectId, PackId, PointId, RepositoryId};
use mainstay_keys::{bundle::Bundle, recipient, secret::Secret};
use mainstay_stores::{Store, StoreError};
use std::{
    collections::{BTreeSet, HashSet},
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

/// What is needed to get at a repository.
pub struct Access {
    pub store: Arc<dyn Store>,
    pub secret: Secret,
    pub clock: Arc<dyn Clock>,
    /// Where local index files may be kept; `None`: nowhere, they are made for this process only.
    pub cache: Option<PathBuf>,
}

pub struct Repository {
    store: Arc<dyn Store>,
    format: Format,
    keyring: Keyring,
    writer: Arc<Writer>,
    trust: Arc<Trust>,
    clock: Arc<dyn Clock>,
    cache: Option<PathBuf>,
    /// What is lost or damaged so that nothing may be written.
    impairments: Vec<String>,
    pub(crate) log: Mutex<Log>,
}

/// What `init` made, for the recovery kit.
pub struct Created {
    pub repository: RepositoryId,
    pub root: [u8; 32],
}

impl Repository {
    /// Whether a repository could be made in a store.
    ///
    /// # Errors
    /// There is one, or the beginning of one, or something else.
    pub fn check_empty(store: &dyn Store) -> Result<()> {
        if store.stat(format::NAME)?.is_some() {
            return Err(RepositoryError::Exists { store: store.describe() });
        }
        if !is_empty(store)? {
            let other = RepositoryError::NotEmpty { store: store.describe() };
            return Err(half_made(store)?.unwrap_or(other));
        }
        Ok(())
    }

    /// Makes a new repository in an empty store. `format` is written last: without it there is no repository.
    pub fn init(access: &Access, label: &str, chunking: Chunking) -> Result<Created> {
        let store = &*access.store;
        Repository::check_empty(store)?;
        let bundle = Bundle::generate(1);
        let root = bundle.root().expect("a new bundle holds the root key");
        let now = access.clock.now();
        let format = Format::new(root.verify_key(), now, chunking);
        let repository = format.repository();
        let host = TrustedHost {
            verify_key: bundle.signer().verify_key(),
            name: "holders of the repository key".into(),
            roles: Roles::ALL,
            domain: None,
        };
        let create =
            |name: &str, bytes: &[u8]| match create_contested(store, name, bytes, &std::thread::sleep) {
                Ok(true) => Ok(()),
                Ok(false) => Err(RepositoryError::Exists { store: store.describe() }),
                Err(error) => Err(error),
            };
        create(&trust::object_name(1), &Trust::first(repository, now, host.clone()).encode(&root))?;
        let (name, bytes) = recipient::wrap(&bundle, &access.secret, repository, label, now, &root)?;
        create(&name, &bytes)?;
        let trust = Arc::new(Trust::first(repository, now, host));
        let keyring = Keyring::new(bundle);
        Log::create(store, &log_context(&format, &keyring, &trust, access.clock.clone()))?;
        create(format::NAME, &format.encode(&root))?;
        Ok(Created { repository, root: root.verify_key() })
    }

    /// Opens the repository in a store. With `expected`, another repository in that place is refused.
    pub fn open(access: Access, expected: Option<RepositoryId>) -> Result<Repository> {
        Repository::open_with(access, expected, &Spares::default())
    }

    /// As [`Repository::open`], with what a recovery kit holds where the store has lost it. A store whose log or trust list is
    /// lost all the same is opened for reading only: see [`Repository::impairments`].
    pub fn open_with(access: Access, expected: Option<RepositoryId>, spares: &Spares) -> Result<Repository> {
        let Access { store, secret, clock, cache } = access;
        let (format, format_lost) = rescue::format_or_spare(&*store, spares)?;
        let of_kit = spares.format()?.map(|format| format.repository());
        if let Some(expected) =
            expected.or(of_kit).into_iter().chain(of_kit).find(|id| *id != format.repository())
        {
            return Err(RepositoryError::AnotherRepository {
                store: store.describe(),
                found: format.repository(),
                expected,
            });
        }
        let keyring = Keyring::unlock(&*store, format.root(), &secret, spares)?;
        let holders = || Trust::of_holders(format.repository(), format.created, keyring.verify_keys());
        let (trust, trust_lost) = rescue::newest_trust(&*store, spares, &format, holders)?;
        let (trust, mut impairments) = (Arc::new(trust), Vec::from_iter(trust_lost));
        let context = || log_context(&format, &keyring, &trust, clock.clone());
        let writer = Arc::new(writer_of(&format, &keyring));
        let cache = cache.map(|root| root.join(&format.repository().to_string()[..16]));
        let log = match Log::open(store.clone(), context(), crate::hint::load(cache.as_deref(), &*store)) {
            Ok(log) => log,
            Err(error) if error.is_damage() => {
                impairments.push(format!("its log cannot be read ({error})"));
                Log::gone(store.clone(), context())
            }
            Err(error) => return Err(error),
        };
        let is_gone = log.is_gone();
        if let Some(directory) = &cache {
            drop(Cache::at(directory)); // best effort: what cannot be cached is made again
        }
        let log = Mutex::new(log);
        let repository = Repository { store, format, keyring, writer, trust, clock, cache, impairments, log };
        if is_gone {
            let facts = repository.facts_without_log()?;
            if format_lost && facts.points.is_empty() {
                // Neither says that the kit belongs to this store.
                return Err(RepositoryError::FormatLost { store: repository.store.describe() });
            }
            repository.log().assume(facts);
        }
        repository.remember_head();
        Ok(repository)
    }

    /// What is lost or damaged of the repository itself, so that it is read and not written to. Without a log, every recovery
    /// point counts whose manifest can be read: those that were deleted and not yet collected, too.
    pub fn impairments(&self) -> &[String] {
        &self.impairments
    }

    pub fn id(&self) -> RepositoryId {
        self.format.repository()
    }
    pub fn format(&self) -> &Format {
        &self.format
    }
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }
    pub fn trust(&self) -> &Trust {
        &self.trust
    }
    pub fn clock(&self) -> &dyn Clock {
        &*self.clock
    }
    pub(crate) fn writer(&self) -> Arc<Writer> {
        self.writer.clone()
    }

    pub fn unsealer(&self) -> Unsealer<'_> {
        Unsealer { repository: self.id(), keys: &self.keyring, signers: &*self.trust }
    }

    pub(crate) fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Whether the store still holds this repository with the trust list that was read, for who keeps it open for long.
    pub fn is_current(&self) -> Result<bool> {
        let next = trust::object_name(self.trust.version + 1);
        match read_format(&*self.store) {
            Ok(format) => Ok(format.repository() == self.id() && self.store.stat(&next)?.is_none()),
            Err(RepositoryError::NoRepository { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether the store holds no repository at all now, as one that is not mounted.
    pub fn is_away(&self) -> Result<bool> {
        match read_format(&*self.store) {
            Err(RepositoryError::NoRepository { .. }) => Ok(true),
            other => other.map(|_| false),
        }
    }

    /// Reads and verifies a recovery point.
    pub fn manifest(&self, id: &PointId) -> Result<Manifest> {
        let bytes = self.store.read(&manifest::object_name(id))?;
        manifest::open(id, &bytes, &self.unsealer())
    }

    pub(crate) fn open_segment(&self, id: &ObjectId, bytes: &[u8]) -> Result<Segment> {
        open_segment(id, bytes, &self.unsealer())
    }

    /// A reader over everything that is live now.
    pub fn reader(&self) -> Result<Reader<'_>> {
        let live = self.live_index()?;
        let (view, _) = self.view(&live, HashSet::new())?;
        Ok(Reader::new(self, view))
    }

    /// A reader for one recovery point, which works from its manifest alone: whatever the log or the index have lost, every
    /// pack that the point needs is looked into.
    pub fn reader_for(&self, manifest: &Manifest) -> Result<Reader<'_>> {
        let mut segments = self.live_index()?;
        segments.extend(manifest.reach.index.iter().copied());
        let (view, cache) = self.view_of(&segments, HashSet::new())?;
        crate::salvage::index_from_reach(self, &view, &cache, &manifest.reach.packs)?;
        Ok(Reader::new(self, Arc::new(view)))
    }

    /// Every manifest in the store that can be read and whose point is not live: it was dropped and is not yet collected, or its
    /// Commit was lost.
    pub fn unnamed_manifests(&self) -> Result<Vec<(PointId, Manifest)>> {
        let live = self.state()?.facts.points;
        let mut found = Vec::new();
        self.for_each_manifest(&|id| !live.contains_key(id), &mut |id, manifest| found.push((id, manifest)))?;
        found.sort_by_key(|(id, manifest)| (manifest.point.summary.finished, *id));
        Ok(found)
    }

    /// Visits every wanted manifest in the store that can be read, one at a time.
    pub(crate) fn for_each_manifest(
        &self,
        wanted: &dyn Fn(&PointId) -> bool,
        visit: &mut dyn FnMut(PointId, Manifest),
    ) -> Result<()> {
        let mut names = Vec::new();
        self.store.list("manifests/", &mut |listed| {
            names.extend(listed.name.strip_prefix("manifests/").and_then(|id| id.parse::<PointId>().ok()));
            ControlFlow::Continue(())
        })?;
        for id in names.into_iter().filter(|id| wanted(id)) {
            match self.manifest(&id) {
                Ok(manifest) => visit(id, manifest),
                Err(error) if error.is_damage() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    pub(crate) fn view(
        &self,
        live: &BTreeSet<ObjectId>,
        absent: HashSet<PackId>,
    ) -> Result<(Arc<View>, Arc<Cache>)> {
        let (view, cache) = self.view_of(live, absent)?;
        Ok((Arc::new(view), Arc::new(cache)))
    }

    /// For reading: where segments are damaged, what they named is found by looking into the packs.
    fn view_of(&self, live: &BTreeSet<ObjectId>, absent: HashSet<PackId>) -> Result<(View, Cache)> {
        let (view, cache, whole) = self.strict_view(live, absent)?;
        if !whole {
            crate::salvage::index_from_packs(self, &view, &cache)?;
        }
        Ok((view, cache))
    }

    /// Exactly what the segments that can be read name, and whether that is all of them.
    pub(crate) fn strict_view(
        &self,
        live: &BTreeSet<ObjectId>,
        absent: HashSet<PackId>,
    ) -> Result<(View, Cache, bool)> {
        let cache = match &self.cache {
            Some(directory) => Cache::at(&directory.join("index")).or_else(|_| Cache::temporary())?,
            None => Cache::temporary()?,
        };
        let mut whole = true;
        let view = cache.view(live, absent, &*self.store, &self.unsealer(), &mut |_, _| whole = false)?;
        Ok((view, cache, whole))
    }

    pub(crate) fn cache_directory(&self) -> Option<&Path> {
        self.cache.as_deref()
    }
}

/// Reads the `format` object; `NoRepository` if there is none.
pub fn read_format(store: &dyn Store) -> Result<Format> {
    match store.read(format::NAME) {
        Ok(bytes) => Format::decode(&bytes),
        Err(StoreError::NotFound { .. }) => Err(RepositoryError::NoRepository { store: store.describe() }),
        Err(error) => Err(error.into()),
    }
}

/// What an `init` leaves that was killed: nothing but some of the objects that it makes before `format`. A repository that has lost
/// its `format` holds more than these as soon as anything was ever backed up to it.
pub(crate) fn half_made(store: &dyn Store) -> Result<Option<RepositoryError>> {
    let mut objects = Vec::new();
    let mut is_one = true;
    store.list("", &mut |listed| {
        let name = listed.name;
        is_one = name == trust::object_name(1) || name == FIRST_ENTRY || name.starts_with("keys/");
        objects.push(name);
        if is_one { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    objects.sort();
    let store = store.describe();
    Ok((is_one && !objects.is_empty()).then_some(RepositoryError::HalfMade { store, objects }))
}

pub(crate) fn is_empty(store: &dyn Store) -> Result<bool> {
    let mut empty = true;
    store.list("", &mut |_| {
        empty = false;
        ControlFlow::Break(())
    })?;
    Ok(empty)
}

fn writer_of(format: &Format, keyring: &Keyring) -> Writer {
    let bundle = keyring.current();
    Writer {
        repository: format.repository(),
        epoch: EpochId(bundle.epoch),
        data_public: bundle.data_public(),
        index_public: bundle.index_public(),
        signer: bundle.signer(),
    }
}
