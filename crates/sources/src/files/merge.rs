//! The consumer of a capture: merges the walk with the listing before, hands out what must be read, and writes the new
//! listing in order.

use super::{
    FilesError,
    browse::is_damage,
    deleted::{Deleted, same_content},
    facts::Counts,
    leaf::Leaves,
    pool::{Done, Job, Pool},
    previous::Previous,
    raw::{Match, Scanned, Token, content_into, malformed, scan},
    stat::unreadable,
    walk::{Block, Found, Walk},
};
use crossbeam_channel::{Receiver, Sender};
use mainstay_domain::{
    Failure, Result, Severity,
    listing::{self, Entry, FileKind},
    monitor::Event,
    stream::{Content, Sink},
};
use std::{collections::VecDeque, mem::take, ops::Range, sync::Arc};

/// Entries that may wait for readings.
pub(crate) const WINDOW: usize = 1 << 15;
/// A reader takes up to this many small files at once.
const BATCH_FILES: usize = 32;
const BATCH_BYTES: u64 = 1 << 20;
/// Progress of unread files is reported in steps of this many.
const REPORTED: u64 = 1024;

/// One block of the new listing on its way, or some entries of the one before that are gone.
struct Assembly {
    path: Arc<[u8]>,
    /// The first block of its directory.
    beginning: bool,
    block: Option<Arc<Block>>,
    /// Encoded entries; `Out` says which bytes are what.
    bytes: Vec<u8>,
    outs: Vec<Out>,
    /// Index of the out of each found entry.
    out_of: Vec<u32>,
    waiting: usize,
}

struct Out {
    /// Index of the found entry; of no meaning for what was missed.
    found: u32,
    state: OutState,
    /// The entry of the listing before, where the new one may differ.
    old: Option<Range<usize>>,
}

enum OutState {
    Ready(Range<usize>),
    Waiting,
    /// In the listing before only: `old` is all there is.
    Missed,
}

/// What came of it.
pub(crate) struct Captured {
    pub listing: Content,
    pub deleted: Option<Content>,
    pub counts: Counts,
}

pub(crate) struct Merge<'a, 'p> {
    pool: &'p Pool<'a>,
    full: bool,
    leaves: Leaves<'a>,
    deleted: Option<Deleted<'a>>,
    old: Previous<'a>,
    jobs: Sender<Job>,
    results: Receiver<Result<Done>>,
    window: VecDeque<Assembly>,
    first_id: u64,
    in_window: usize,
    last_path: Option<Arc<[u8]>>,
    scratch: Content,
    counts: Counts,
    adopted: (u64, u64),
}

impl<'a, 'p> Merge<'a, 'p> {
    pub fn new(
        pool: &'p Pool<'a>,
        full: bool,
        old: Previous<'a>,
        deleted: Option<Deleted<'a>>,
        jobs: Sender<Job>,
        results: Receiver<Result<Done>>,
    ) -> Self {
        Merge {
            leaves: Leaves::new(pool.sink),
            pool,
            full,
            deleted,
            old,
            jobs,
            results,
            window: VecDeque::new(),
            first_id: 0,
            in_window: 0,
            last_path: None,
            scratch: Content::default(),
            counts: Counts::default(),
            adopted: (0, 0),
        }
    }

    pub fn run(mut self, walk: &Walk<'_>) -> Result<Captured> {
        let mut blocks = Vec::new();
        loop {
            blocks.clear();
            if !walk.next(&mut blocks) {
                break;
            }
            if self.pool.monitor.cancelled() {
                return Err(FilesError::Cancelled.into());
            }
            for block in blocks.drain(..) {
                self.merge(block)?;
                while let Ok(done) = self.results.try_recv() {
                    self.place(done?);
                }
                self.write_ready()?;
                while self.in_window >= WINDOW {
                    self.wait()?;
                }
            }
        }
        self.miss_until(None)?;
        while !self.window.is_empty() {
            self.wait()?;
        }
        self.report(0)?;
        let (deleted, kept) = self.deleted.map(Deleted::finish).transpose()?.unwrap_or((None, 0));
        self.counts.deleted = kept;
        Ok(Captured { listing: self.leaves.finish()?, deleted, counts: self.counts })
    }

    fn wait(&mut self) -> Result<()> {
        if self.window.front().is_some_and(|assembly| assembly.waiting > 0) {
            let done = self.results.recv().map_err(|_| Failure::from(FilesError::WorkerLost))?;
            self.place(done?);
        }
        self.write_ready()
    }

    /// What the listing before has up to the beginning of `directory` and the walk has passed.
    fn miss_until(&mut self, directory: Option<&[u8]>) -> Result<()> {
        while self.old.is_before(directory) {
            let path: Arc<[u8]> = match self.old.entry() {
                Some((path, _)) => Arc::from(path),
                None => return Ok(()),
            };
            let mut assembly = Assembly::new(path, None);
            while assembly.outs.len() < 1024
                && let Some(entry) = self.old.entry_in(&assembly.path)
            {
                if self.deleted.is_some() {
                    let old = self.old.bytes(&entry.whole);
                    assembly.miss(old);
                }
                self.old.advance();
            }
            self.push(assembly);
            self.write_ready()?;
        }
        Ok(())
    }

    fn merge(&mut self, block: Block) -> Result<()> {
        let block = Arc::new(block);
        let beginning = self.last_path.as_ref().is_none_or(|last| !Arc::ptr_eq(last, &block.path));
        if beginning {
            self.miss_until(Some(&block.path))?;
            self.old.enter(&block.path);
            self.last_path = Some(block.path.clone());
        }
        let id = self.first_id + self.window.len() as u64;
        let mut assembly = Assembly::new(block.path.clone(), Some(block.clone()));
        assembly.beginning = beginning;
        let mut batch = Batch { id, block: &block, entries: Vec::new(), bytes: 0 };
        let (mut items, mut bytes) = (0, 0);
        for (index, found) in block.found.iter().enumerate() {
            let name = block.name(found);
            let candidate = loop {
                let Some(entry) = self.old.entry_in(&block.path) else { break None };
                match self.old.name(entry).cmp(name) {
                    std::cmp::Ordering::Less => {
                        if self.deleted.is_some() {
                            let old = self.old.bytes(&entry.whole);
                            assembly.miss(old);
                        }
                        self.old.advance();
                    }
                    std::cmp::Ordering::Equal => break Some(entry.clone()),
                    std::cmp::Ordering::Greater => break None,
                }
            };
            let mut out = Out { found: index as u32, state: OutState::Waiting, old: None };
            if let Some(entry) = candidate {
                let matched = if self.full { Match::Changed } else { entry.matches(&found.stat) };
                if matched != Match::Changed && self.adopt(&entry)? {
                    out.state = OutState::Ready(self.copy(&mut assembly, &block, found, &entry, matched)?);
                    (items, bytes) = (items + 1, bytes + found.stat.size);
                    self.counts.unchanged += 1;
                } else if entry.is(found.stat.kind) {
                    let start = assembly.bytes.len();
                    assembly.bytes.extend_from_slice(self.old.bytes(&entry.whole));
                    out.old = Some(start..assembly.bytes.len());
                } else if self.deleted.is_some() {
                    let old = self.old.bytes(&entry.whole);
                    assembly.miss(old);
                }
                self.old.advance();
            }
            if found.unreadable {
                let entry = unreadable(&found.stat, name, block.now);
                out.state = OutState::Ready(assembly.encode(&entry));
            }
            if matches!(out.state, OutState::Waiting) {
                assembly.waiting += 1;
                batch.add(index as u32, found, &self.jobs)?;
            }
            assembly.out_of.push(assembly.outs.len() as u32);
            assembly.outs.push(out);
        }
        batch.send(&self.jobs)?;
        self.push(assembly);
        self.adopted = (self.adopted.0 + items, self.adopted.1 + bytes);
        self.report(REPORTED)
    }

    fn report(&mut self, at_least: u64) -> Result<()> {
        if self.adopted.0 > at_least {
            let (items, bytes) = take(&mut self.adopted);
            self.pool.monitor.event(Event::Advance { items, bytes });
        }
        Ok(())
    }

    fn push(&mut self, assembly: Assembly) {
        self.in_window += assembly.outs.len() + 1;
        self.window.push_back(assembly);
    }

    /// Whether the repository still holds the content of an entry, and takes it over.
    fn adopt(&mut self, entry: &Scanned) -> Result<bool> {
        let Some(range) = &entry.content else { return Ok(true) };
        if content_into(self.old.bytes(range), &mut self.scratch).is_err() {
            return Ok(false);
        }
        adopted(self.pool.sink, &self.scratch)
    }

    /// The old entry as the new one; its numbers renewed where they differ.
    fn copy(
        &self,
        assembly: &mut Assembly,
        block: &Block,
        found: &Found,
        entry: &Scanned,
        matched: Match,
    ) -> Result<Range<usize>> {
        let old = self.old.bytes(&entry.whole);
        if matched == Match::Whole {
            let start = assembly.bytes.len();
            assembly.bytes.extend_from_slice(old);
            return Ok(start..assembly.bytes.len());
        }
        let old: Entry = minicbor::decode(old).map_err(malformed)?;
        let new = found.stat.entry(block.name(found), block.now);
        let Entry { target, xattrs, content, size, .. } = old;
        Ok(assembly.encode(&Entry { target, xattrs, content, size, ..new }))
    }

    /// Puts the entries of a job to where they belong.
    fn place(&mut self, done: Done) {
        let assembly = &mut self.window[(done.id - self.first_id) as usize];
        let start = assembly.bytes.len();
        assembly.bytes.extend_from_slice(&done.bytes);
        for (index, range) in done.entries {
            let out = assembly.out_of[index as usize] as usize;
            assembly.waiting -= 1;
            assembly.outs[out].state = match range {
                Some(range) => OutState::Ready(start + range.start..start + range.end),
                None => OutState::Missed,
            };
        }
    }

    fn write_ready(&mut self) -> Result<()> {
        while self.window.front().is_some_and(|assembly| assembly.waiting == 0) {
            let assembly = self.window.pop_front().expect("it was just looked at");
            self.first_id += 1;
            self.in_window -= assembly.outs.len() + 1;
            self.write(&assembly)?;
        }
        Ok(())
    }

    fn write(&mut self, assembly: &Assembly) -> Result<()> {
        if assembly.block.is_some() {
            self.leaves.directory(&assembly.path, assembly.beginning);
        }
        for out in &assembly.outs {
            match &out.state {
                OutState::Ready(range) => {
                    let block = assembly.block.as_ref().expect("what was found is of a block");
                    let found = &block.found[out.found as usize];
                    let (name, bytes) = (block.name(found), &assembly.bytes[range.clone()]);
                    self.leaves.entry(name, bytes)?;
                    self.counts.add(name, found);
                    if self.full
                        && let Some(old) = &out.old
                    {
                        self.compare(assembly, found, name, old, range);
                    }
                }
                OutState::Missed => {
                    if let (Some(deleted), Some(old)) = (&mut self.deleted, &out.old) {
                        deleted.missed(&assembly.path, &assembly.bytes[old.clone()])?;
                    }
                }
                OutState::Waiting => unreachable!("no entry of the assembly waits"),
            }
        }
        Ok(())
    }

    /// A file whose content changed while its metadata did not: a failing disk, or someone who hides.
    fn compare(
        &self,
        assembly: &Assembly,
        found: &Found,
        name: &[u8],
        old: &Range<usize>,
        new: &Range<usize>,
    ) {
        let entry = |range: &Range<usize>| match scan(&assembly.bytes, range.start) {
            Ok((Token::Entry(entry), _)) => Some(entry),
            _ => None,
        };
        let (Some(old), Some(new)) = (entry(old), entry(new)) else { return };
        let (Some(before), Some(after)) = (&old.content, &new.content) else { return };
        if old.matches(&found.stat) != Match::Changed
            && !same_content(&assembly.bytes[before.clone()], &assembly.bytes[after.clone()])
        {
            let path = self.pool.roots.shown(&listing::join(&assembly.path, name));
            let message =
                "its content is another than at the last backup, although its metadata did not change";
            self.pool.problems.add(Severity::Warning, path, message);
        }
    }
}

/// Takes content over. That a list of its pieces is damaged is no failure here: the file is read again.
pub(crate) fn adopted(sink: &dyn Sink, content: &Content) -> Result<bool> {
    match sink.adopt(content) {
        Err(failure) if is_damage(&failure) => Ok(false),
        adopted => adopted,
    }
}

impl Assembly {
    fn new(path: Arc<[u8]>, block: Option<Arc<Block>>) -> Assembly {
        let expected = block.as_ref().map_or(0, |block| block.found.len());
        Assembly {
            path,
            beginning: false,
            block,
            bytes: Vec::with_capacity(expected * 160),
            outs: Vec::with_capacity(expected),
            out_of: Vec::with_capacity(expected),
            waiting: 0,
        }
    }

    fn miss(&mut self, old: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(old);
        self.outs.push(Out { found: 0, state: OutState::Missed, old: Some(start..self.bytes.len()) });
    }

    fn encode(&mut self, entry: &Entry) -> Range<usize> {
        let start = self.bytes.len();
        listing::encode_entry(entry, &mut self.bytes);
        start..self.bytes.len()
    }
}

/// Entries of a block that are read together.
struct Batch<'b> {
    id: u64,
    block: &'b Arc<Block>,
    entries: Vec<u32>,
    bytes: u64,
}

impl Batch<'_> {
    fn add(&mut self, index: u32, found: &Found, jobs: &Sender<Job>) -> Result<()> {
        let size = if found.stat.kind == FileKind::Regular { found.stat.size } else { 0 };
        self.entries.push(index);
        self.bytes += size;
        if self.entries.len() >= BATCH_FILES || self.bytes >= BATCH_BYTES { self.send(jobs) } else { Ok(()) }
    }

    fn send(&mut self, jobs: &Sender<Job>) -> Result<()> {
        if self.entries.is_empty() {
            return Ok(());
        }
        self.bytes = 0;
        let job = Job { id: self.id, block: self.block.clone(), entries: take(&mut self.entries) };
        jobs.send(job).map_err(|_| FilesError::WorkerLost.into())
    }
}
