//! The archive of PostgreSQL's write-ahead log (`doc/format.md` §11): segments and what goes with them, one object each.
//!
//! Latency matters here and nothing else does: no packs, no index, no log entry; an object's name says which file of which
//! cluster it is, so fetching is one request and needs no listing. The name is made once, by conditional create: the same file
//! again is success, a different file under the same name is refused (of a `.partial`, the first is kept). An object is signed, sealed, and decoded again before it
//! leaves. What is not needed any more is deleted by name (`operations::wal`), never by age or order of names. Of a segment that is
//! still written to there are [`fragments`].

pub mod fragments;

use crate::{
    envelope::{Envelope, HEADER, KeyRole},
    error::{RepositoryError, Result},
    log::create_contested,
    pack::{CODEC_STORED, CODEC_ZSTD, Compressor, Effort, chunk_id, decompress},
    repository::Repository,
    trust::Roles,
};
use mainstay_domain::{ChunkId, Failure, HostId, Kind, Time, wal::WalFile};
use mainstay_keys::{aead::AeadKey, sign};
use mainstay_stores::StoreError;
use minicbor::{Decode, Encode};
use std::ops::ControlFlow;
use zeroize::Zeroizing;

const ENVELOPE: Envelope = Envelope {
    magic: b"MSTYWAL1",
    info: b"mainstay v1 wal",
    signature: "mainstay v1 wal\0",
    hashed: true,
    signers: Roles::BACKUP.and(Roles::ADMIN),
};
const SIGNATURE: usize = 16 + 64;
/// Largest file taken: a segment has at most 1 GiB.
const LARGEST: u64 = 1 << 30;
/// zstd's level for segments: what PostgreSQL waits for is not compressed at leisure.
const LEVEL: i32 = 1;
/// Enough for the header and the sealed facts.
const HEAD: usize = 1024;

/// What an object says of itself, sealed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct Facts {
    #[n(0)]
    file: String,
    #[n(1)]
    system: u64,
    #[n(2)]
    bytes: u64,
    /// Keyed hash of the content: which of two files under one name this is.
    #[n(3)]
    content: ChunkId,
    #[cbor(n(4), with = "minicbor::bytes")]
    key: [u8; 32],
    #[n(5)]
    archived: Time,
    #[n(6)]
    ends: Option<Ends>,
    /// Where a fragment lies in its segment.
    #[n(7)]
    place: Option<Place>,
}

/// Where a fragment lies in its segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct Place {
    /// The offset of its first byte.
    #[n(0)]
    from: u64,
    /// The number of the fragment that ends there; none at the segment's beginning.
    #[n(1)]
    after: Option<u32>,
}

/// When the first and the last transaction ended whose end is in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Ends {
    #[n(0)]
    pub first: Time,
    #[n(1)]
    pub last: Time,
}

/// A file of the archive, without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archived {
    pub file: WalFile,
    pub host: HostId,
    pub stored_bytes: u64,
}

/// What is known of a file without reading all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub bytes: u64,
    pub archived: Time,
    pub ends: Option<Ends>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// Durable now; so many bytes.
    Stored(u64),
    /// It was there already, with the same content.
    Known,
    /// Another `.partial` has that name, and stays. PostgreSQL asks for none, ever: it is for people. Two recoveries that leave a timeline in the
    /// same segment each send theirs, and an archiver that is refused tries nothing else until it is let.
    KeptFirst,
}

/// What a host has under a file's name.
enum There {
    Nothing,
    This,
    Another,
}

/// The archive of one cluster.
#[derive(Clone)]
pub struct Archive<'r> {
    repository: &'r Repository,
    system: u64,
}

impl<'r> Archive<'r> {
    pub fn of(repository: &'r Repository, system: u64) -> Archive<'r> {
        Archive { repository, system }
    }

    /// The cluster's system identifier.
    pub fn system(&self) -> u64 {
        self.system
    }

    /// Archives a file. Returns only when it is durable.
    ///
    /// # Errors
    /// `Refused` if another file has that name, unless it is a `.partial`.
    pub fn put(&self, file: &WalFile, content: &[u8], ends: Option<Ends>) -> Result<Put> {
        let bundle = self.repository.keyring().current();
        let id = chunk_id(&bundle.chunk_id_key(), content);
        let own = self.repository.writer().signer.host();
        let others = || self.hosts().filter(|host| *host != own);
        for host in others() {
            if self.has_another(&host, file, id)? {
                return self.another(file);
            }
        }
        // Asked first: what PostgreSQL sends again after a crash need not be compressed again.
        match self.what_is_there(&own, file, id)? {
            There::This => return Ok(Put::Known),
            There::Another => return self.another(file),
            There::Nothing => {}
        }
        let name = self.name(&own, file);
        let bytes = self.seal(file, content, id, ends, None)?;
        let created = create_contested(&**self.repository.store(), &name, &bytes, &std::thread::sleep)?;
        // Of two hosts that archive at the same moment, one at least sees the other's now.
        for host in others() {
            if self.has_another(&host, file, id)? {
                return self.another(file);
            }
        }
        if created {
            return Ok(Put::Stored(bytes.len() as u64));
        }
        match self.what_is_there(&own, file, id)? {
            There::This => Ok(Put::Known),
            There::Another => self.another(file),
            There::Nothing => Err(RepositoryError::damaged(&name, "it was there a moment ago and is gone")),
        }
    }

    /// As [`put`](Archive::put), in the place of a copy of this file that is damaged, which is removed: for a person to decide. A
    /// crash in between leaves nothing under the name; the file itself is still where it comes from.
    ///
    /// # Errors
    /// `Refused` if another file has that name, also if that one is damaged and still says so.
    pub fn put_in_place_of_damage(&self, file: &WalFile, content: &[u8], ends: Option<Ends>) -> Result<Put> {
        let id = chunk_id(&self.repository.keyring().current().chunk_id_key(), content);
        let own = self.repository.writer().signer.host();
        // Looked at twice: a bad moment on the way is no damage.
        let is_damaged = || matches!(self.what_is_there(&own, file, id), Err(error) if error.is_damage());
        if is_damaged() && is_damaged() {
            if let Ok(Some(facts)) = self.facts_of(&own, file)
                && facts.content != id
            {
                return self.another(file);
            }
            self.repository.store().delete(&self.name(&own, file))?;
        }
        self.put(file, content, ends)
    }

    /// Whether this very content is in the archive under a host's name, read whole: PostgreSQL removes its own copy on our
    /// word, so a head that promises it is not enough.
    ///
    /// # Errors
    /// Damage if what is there cannot be read.
    fn what_is_there(&self, host: &HostId, file: &WalFile, id: ChunkId) -> Result<There> {
        let name = self.name(host, file);
        let bytes = match self.repository.store().read(&name) {
            Ok(bytes) => bytes,
            Err(StoreError::NotFound { .. }) => return Ok(There::Nothing),
            Err(error) => return Err(error.into()),
        };
        let there = self.open(&name, file, bytes)?;
        match chunk_id(&self.repository.keyring().current().chunk_id_key(), &there) == id {
            true => Ok(There::This),
            false => Ok(There::Another),
        }
    }

    /// Whether a host has archived another content under this name. What is damaged there proves nothing and is no reason
    /// not to archive the file here.
    fn has_another(&self, host: &HostId, file: &WalFile, id: ChunkId) -> Result<bool> {
        match self.what_is_there(host, file, id) {
            Err(RepositoryError::Damaged { .. } | RepositoryError::Untrusted { .. }) => Ok(false),
            there => Ok(matches!(there?, There::Another)),
        }
    }

    /// What comes of a file whose name another one has.
    fn another(&self, file: &WalFile) -> Result<Put> {
        if let WalFile::Partial(_) = file {
            return Ok(Put::KeptFirst);
        }
        Err(Failure::new(
            Kind::Refused,
            format!("another {file} of cluster {} is in the archive already", self.system),
        )
        .hint(format!(
            "Two servers archive into one place: a copy of the machine, or an old primary that still runs. Stop archiving on the \
             one that is not the primary; nothing was overwritten. If it was that one which archived first: `mainstay wal disown {file} \
             --keep-in FOLDER` takes what is its own out of the archive, and the primary goes on."
        ))
        .into())
    }

    /// The whole file; `None` if it is not in the archive.
    ///
    /// # Errors
    /// Damage is an error, and never the same as absence: PostgreSQL would take that for the end of the log.
    pub fn get(&self, file: &WalFile) -> Result<Option<Vec<u8>>> {
        let mut damage = None;
        for host in self.hosts() {
            let name = self.name(&host, file);
            match self.repository.store().read(&name) {
                Ok(bytes) => match self.open(&name, file, bytes) {
                    Ok(content) => return Ok(Some(content)),
                    Err(error) => damage = Some(error),
                },
                Err(StoreError::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        damage.map_or(Ok(None), Err)
    }

    /// What is known of a file; `None` if it is not in the archive.
    pub fn head(&self, file: &WalFile) -> Result<Option<Head>> {
        let mut damage = None;
        for host in self.hosts() {
            match self.facts_of(&host, file) {
                Ok(Some(Facts { bytes, archived, ends, .. })) => {
                    return Ok(Some(Head { bytes, archived, ends }));
                }
                Ok(None) => {}
                Err(error) if error.is_damage() => damage = Some(error),
                Err(error) => return Err(error),
            }
        }
        damage.map_or(Ok(None), Err)
    }

    pub fn has(&self, file: &WalFile) -> Result<bool> {
        for host in self.hosts() {
            if self.repository.store().stat(&self.name(&host, file))?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Every file of this cluster, in order of their names.
    pub fn list(&self) -> Result<Vec<Archived>> {
        let mut found = Vec::new();
        for host in self.hosts() {
            let prefix = format!("wal/{host}/{}/", self.system);
            self.repository.store().list(&prefix, &mut |listed| {
                let file: Option<WalFile> = listed.name.rsplit('/').next().and_then(|file| file.parse().ok());
                // What lies elsewhere than where it is looked for is not there.
                let in_place = file.filter(|file| self.name(&host, file) == listed.name);
                found.extend(in_place.map(|file| Archived { file, host, stored_bytes: listed.bytes }));
                ControlFlow::Continue(())
            })?;
        }
        found.sort_by(|a, b| a.file.cmp(&b.file));
        Ok(found)
    }

    /// Removes a file for good.
    pub fn remove(&self, archived: &Archived) -> Result<()> {
        Ok(self.repository.store().delete(&self.name(&archived.host, &archived.file))?)
    }

    fn hosts(&self) -> impl Iterator<Item = HostId> {
        let writers = ENVELOPE.signers;
        let hosts = self.repository.trust().hosts.iter().filter(move |host| host.roles.overlaps(writers));
        hosts.map(|host| sign::host_of(&host.verify_key)).collect::<Vec<_>>().into_iter()
    }

    /// Segments of one range stand together, so that no folder holds them all.
    fn name(&self, host: &HostId, file: &WalFile) -> String {
        let group = match file {
            WalFile::Segment(segment)
            | WalFile::Partial(segment)
            | WalFile::Backup(segment, _)
            | WalFile::Fragment(segment, _) => segment.group(),
            WalFile::History(_) => "history".to_owned(),
        };
        format!("wal/{host}/{}/{:08X}/{group}/{file}", self.system, file.timeline())
    }

    fn facts_of(&self, host: &HostId, file: &WalFile) -> Result<Option<Facts>> {
        let name = self.name(host, file);
        match self.repository.store().read_range(&name, 0, HEAD) {
            Ok(head) => {
                let unsealer = self.repository.unsealer();
                let (plain, _) = ENVELOPE.section_of_head(&head, &name, KeyRole::Data, &unsealer)?;
                Ok(Some(self.expected(&name, file, &plain)?))
            }
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn expected(&self, name: &str, file: &WalFile, plain: &[u8]) -> Result<Facts> {
        let facts: Facts =
            minicbor::decode(plain).map_err(|_| RepositoryError::damaged(name, "it cannot be parsed"))?;
        if facts.file != file.to_string() || facts.system != self.system {
            return Err(RepositoryError::damaged(name, "it was written for another place"));
        }
        Ok(facts)
    }

    fn seal(
        &self,
        file: &WalFile,
        content: &[u8],
        id: ChunkId,
        ends: Option<Ends>,
        place: Option<Place>,
    ) -> Result<Vec<u8>> {
        let repository = self.repository;
        let writer = repository.writer();
        let key = Zeroizing::new(mainstay_keys::random::<32>());
        let facts = Facts {
            file: file.to_string(),
            system: self.system,
            bytes: content.len() as u64,
            content: id,
            key: *key,
            archived: repository.clock().now(),
            ends,
            place,
        };
        let facts = Zeroizing::new(minicbor::to_vec(&facts).expect("writing to a Vec cannot fail"));
        let mut out = ENVELOPE.header(&[0; 16], &writer);
        ENVELOPE.seal_section(&mut out, KeyRole::Data, ENVELOPE.info, &facts, &writer);
        let start = out.len();
        out.extend_from_slice(Compressor::new(Some(LEVEL)).stage(id, content, &Effort::Given).payload);
        let aad: [u8; HEADER] = *out.first_chunk().expect("it begins with its header");
        AeadKey::new(&key).seal([0; 12], &aad, &mut out, start);
        ENVELOPE.sign(&mut out, &writer.signer);
        // Held against the content itself, of which `id` is the id.
        match self.unpack(&self.name(&writer.signer.host(), file), file, out.clone()) {
            Ok((facts, again)) if facts.content == id && again == content => Ok(out),
            _ => Err(RepositoryError::FaultyMachine),
        }
    }

    fn open(&self, name: &str, file: &WalFile, bytes: Vec<u8>) -> Result<Vec<u8>> {
        Ok(self.open_whole(name, file, bytes)?.1)
    }

    fn open_whole(&self, name: &str, file: &WalFile, bytes: Vec<u8>) -> Result<(Facts, Vec<u8>)> {
        let (facts, content) = self.unpack(name, file, bytes)?;
        let key = self.repository.keyring().current().chunk_id_key();
        if content.len() as u64 != facts.bytes || chunk_id(&key, &content) != facts.content {
            return Err(RepositoryError::damaged(name, "it is not what was archived"));
        }
        Ok((facts, content))
    }

    /// What an object holds, before it is known to be what was archived. Decrypts where it lies: a segment has up to 1 GiB, and several
    /// are read at the same time.
    fn unpack(&self, name: &str, file: &WalFile, mut bytes: Vec<u8>) -> Result<(Facts, Vec<u8>)> {
        let damaged = |why| RepositoryError::damaged(name, why);
        let unsealer = self.repository.unsealer();
        let verified = ENVELOPE.verify(&bytes, &unsealer, name)?;
        let (plain, start) = verified.section(HEADER, KeyRole::Data, ENVELOPE.info, &unsealer)?;
        let facts = self.expected(name, file, &plain)?;
        if facts.bytes > LARGEST {
            return Err(damaged("it claims to be larger than a segment can be"));
        }
        let end = bytes.len() - SIGNATURE;
        let aad: [u8; HEADER] = *bytes.first_chunk().expect("its header was verified");
        let payload = AeadKey::new(&facts.key)
            .open([0; 12], &aad, &mut bytes[start..end])
            .map_err(|_| damaged("its seal is broken"))?;
        let mut content = Vec::new();
        match payload.split_first() {
            Some((&CODEC_STORED, data)) => content.extend_from_slice(data),
            Some((&CODEC_ZSTD, data)) => {
                content.reserve(facts.bytes as usize);
                decompress(data, &mut content).map_err(|_| damaged("it cannot be decompressed"))?;
            }
            _ => return Err(damaged("its codec is unknown")),
        }
        Ok((facts, content))
    }
}

/// The clusters that have an archive in this repository, by their system identifiers.
pub fn systems(repository: &Repository) -> Result<Vec<u64>> {
    let mut systems = std::collections::BTreeSet::new();
    repository.store().list("wal/", &mut |listed| {
        systems.extend(listed.name.split('/').nth(2).and_then(|system| system.parse::<u64>().ok()));
        ControlFlow::Continue(())
    })?;
    Ok(systems.into_iter().collect())
}
