//! Manifests: recovery points as they lie in the store (`doc/format.md` §8).

use crate::{
    envelope::{Envelope, HEADER, KeyRole, Unsealer, Writer},
    error::{RepositoryError, Result},
    trust::Roles,
};
use mainstay_domain::{HostId, ObjectId, PackId, PointId, SessionId, point::Point};
use minicbor::{Decode, Encode};
use std::path::{Component, Path};

const ENVELOPE: Envelope = Envelope {
    magic: b"MSTYMAN1",
    info: b"mainstay v1 reach",
    signature: "mainstay v1 manifest\0",
    hashed: false,
    signers: Roles::BACKUP.and(Roles::ADMIN),
};
const POINT_INFO: &[u8] = b"mainstay v1 point";
/// A manifest's point is never larger decompressed: a bound for hostile input.
const MAX_POINT: usize = 512 << 20;

/// What a recovery point needs: readable without the key to its contents, so that a collector need not hold that.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct Reach {
    /// Sorted.
    #[n(0)]
    pub packs: Vec<PackId>,
    /// Index segments that its session wrote.
    #[n(1)]
    pub index: Vec<ObjectId>,
}

pub fn object_name(id: &PointId) -> String {
    format!("manifests/{id}")
}

pub fn seal(reach: &Reach, point: &Point, session: &SessionId, writer: &Writer) -> (PointId, Vec<u8>) {
    let mut out = ENVELOPE.header(&session.0, writer);
    let reach = minicbor::to_vec(reach).expect("writing to a Vec cannot fail");
    ENVELOPE.seal_section(&mut out, KeyRole::Index, ENVELOPE.info, &reach, writer);
    let point = minicbor::to_vec(point).expect("writing to a Vec cannot fail");
    let point = zstd::bulk::compress(&point, 3).expect("compressing memory to memory cannot fail");
    ENVELOPE.seal_section(&mut out, KeyRole::Data, POINT_INFO, &point, writer);
    ENVELOPE.sign(&mut out, &writer.signer);
    (PointId(*blake3::hash(&out).as_bytes()), out)
}

/// Opens the reach of a manifest: needs the index key only.
pub fn open_reach(id: &PointId, bytes: &[u8], reader: &Unsealer<'_>) -> Result<Reach> {
    let what = object_name(id);
    check_name(id, bytes, &what)?;
    let verified = ENVELOPE.verify(bytes, reader, &what)?;
    let (reach, _) = verified.section(HEADER, KeyRole::Index, ENVELOPE.info, reader)?;
    minicbor::decode(&reach).map_err(|_| RepositoryError::damaged(&what, "its reach cannot be parsed"))
}

/// A manifest opened in full.
pub struct Manifest {
    pub point: Point,
    pub reach: Reach,
    pub session: SessionId,
    pub signer: HostId,
}

pub fn open(id: &PointId, bytes: &[u8], reader: &Unsealer<'_>) -> Result<Manifest> {
    let what = object_name(id);
    check_name(id, bytes, &what)?;
    let damaged = |why| RepositoryError::damaged(&what, why);
    let verified = ENVELOPE.verify(bytes, reader, &what)?;
    let (reach, next) = verified.section(HEADER, KeyRole::Index, ENVELOPE.info, reader)?;
    let (point, _) = verified.section(next, KeyRole::Data, POINT_INFO, reader)?;
    let size = zstd::zstd_safe::get_frame_content_size(&point).ok().flatten().unwrap_or(0);
    let point = zstd::bulk::decompress(&point, (size as usize).min(MAX_POINT))
        .map_err(|_| damaged("its point cannot be decompressed"))?;
    let point: Point = minicbor::decode(&point).map_err(|_| damaged("its point cannot be parsed"))?;
    if !point.sources.iter().all(|source| names_a_folder(&source.name)) {
        return Err(damaged("the name of a source in it leads out of the folder it is restored to"));
    }
    Ok(Manifest {
        point,
        reach: minicbor::decode(&reach).map_err(|_| damaged("its reach cannot be parsed"))?,
        session: SessionId(verified.context()),
        signer: verified.signer,
    })
}

/// Whether a name is that of one folder below another: restores and restore tests put sources there, and a host that may write
/// points must not choose any other place.
fn names_a_folder(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name)
        && !name.contains('\0')
}

fn check_name(id: &PointId, bytes: &[u8], what: &str) -> Result<()> {
    if blake3::hash(bytes).as_bytes() == &id.0 {
        Ok(())
    } else {
        Err(RepositoryError::damaged(what, "its bytes are not those its name promises"))
    }
}
