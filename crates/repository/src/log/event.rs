//! What a log entry can say, and how it is written down.
//!
//! An event is a CBOR array of its tag and a map of its clear fields: what the protocol needs, readable by every host
//! without a private key. What tells about users travels in the entry's sealed section, and is `None` here where it could
//! not be opened. A tag from a later version is not an error: it becomes [`Event::Unknown`], and unless it is marked as a
//! note nothing is deleted until a version that knows it has spoken.

use super::facts::Facts;
use mainstay_domain::{
    HoldId, Incarnation, ObjectId, PackId, PointId, SessionId,
    point::{Hold, Proof, Summary},
};
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};
use std::collections::BTreeMap;

/// Tags from here on may be passed over by a version that does not know them; smaller ones may mean anything.
pub const FIRST_NOTE_TAG: u32 = 128;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Entry 0, and no other. The store's incarnation is chosen here, in the entry's body.
    Open,
    /// The store was found rolled back: a new incarnation begins, and every open session is over.
    Incarnate(Incarnate),
    Begin(Begin),
    Commit(Commit),
    /// The session may not commit any more.
    Fence(Fence),
    /// Nobody who begins after this entry may rely on these objects.
    Condemn(Condemn),
    /// The condemned objects that nothing needs: from here on they are to be deleted.
    Sweep(Sweep),
    /// The condemned objects are given back.
    Abandon(Abandon),
    /// Everything that the Sweep named has been deleted.
    Swept(Swept),
    /// The recovery point is given up.
    Drop(DropPoint),
    Hold(PlaceHold),
    Release(ReleaseHold),
    Proved(Proved),
    /// Everything that the log before this entry says.
    Checkpoint(Box<Checkpoint>),
    /// An administrator has looked at these doubtful entries: they have no effect and stand in nobody's way.
    Acknowledge(Acknowledge),
    /// Packs that were found missing or damaged: whoever begins later stores their chunks again.
    Lost(Lost),
    /// Written by a later version.
    Unknown {
        tag: u32,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Incarnate {
    #[n(0)]
    pub incarnation: Incarnation,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Begin {
    #[n(0)]
    pub session: SessionId,
    /// The oldest WAL position that this session will need; opaque here.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub wal_floor: Option<Vec<u8>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Commit {
    #[n(0)]
    pub session: SessionId,
    #[n(1)]
    pub point: PointId,
    /// The index segments that this session wrote. They name only packs that it wrote itself.
    #[n(2)]
    pub index: Vec<ObjectId>,
    #[cbor(skip)]
    pub summary: Option<Summary>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Fence {
    #[n(0)]
    pub session: SessionId,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct Condemn {
    /// n of the entry on whose state this was computed. Any other place than the next one makes it void.
    #[n(0)]
    pub tail: u64,
    #[n(1)]
    pub packs: Vec<PackId>,
    #[n(2)]
    pub index: Vec<ObjectId>,
    #[n(3)]
    pub manifests: Vec<PointId>,
    /// Merged segments, already stored, which are live from here on. They name what the condemned segments name, without
    /// the packs that are condemned here or dead already.
    #[n(4)]
    pub added_index: Vec<ObjectId>,
    /// For each open session, how many of its objects the collector has seen.
    #[n(5)]
    pub observed: Vec<(SessionId, u64)>,
    /// n of the entry on whose state `added_index` was made and stored: the same as `tail`, or the entry is void.
    #[n(6)]
    pub merged_on: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct Sweep {
    /// n of the entry on whose state this was computed. Any other place than the next one makes it void.
    #[n(0)]
    pub tail: u64,
    /// n of the Condemn that this ends.
    #[n(1)]
    pub condemn: u64,
    #[n(2)]
    pub packs: Vec<PackId>,
    #[n(3)]
    pub index: Vec<ObjectId>,
    #[n(4)]
    pub manifests: Vec<PointId>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Abandon {
    /// n of the Condemn.
    #[n(0)]
    pub condemn: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Swept {
    /// n of the Sweep.
    #[n(0)]
    pub sweep: u64,
}

/// By whom and why something was done, in the words of the person who asked for it. Always sealed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Reason {
    #[n(0)]
    pub by: String,
    #[n(1)]
    pub why: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct DropPoint {
    #[n(0)]
    pub point: PointId,
    #[cbor(skip)]
    pub reason: Option<Reason>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PlaceHold {
    #[n(0)]
    pub hold: HoldId,
    #[n(1)]
    pub point: PointId,
    #[cbor(skip)]
    pub text: Option<Hold>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ReleaseHold {
    #[n(0)]
    pub hold: HoldId,
    #[cbor(skip)]
    pub reason: Option<Reason>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Proved {
    #[n(0)]
    pub point: PointId,
    #[cbor(skip)]
    pub proof: Option<Proof>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Checkpoint {
    /// n of the entry whose state this is. Any other place than the next one makes it void.
    #[n(0)]
    pub tail: u64,
    #[n(1)]
    pub facts: Facts,
    #[cbor(skip)]
    pub details: Option<Details>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Acknowledge {
    #[n(0)]
    pub entries: Vec<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct Lost {
    #[n(0)]
    pub packs: Vec<PackId>,
    /// Packs that were lost and are there again, whole.
    #[n(1)]
    pub found: Vec<PackId>,
}

/// The sealed half of a checkpoint: what the sealed sections of the entries before it said and still matters.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct Details {
    #[n(0)]
    pub summaries: BTreeMap<PointId, Summary>,
    #[n(1)]
    pub holds: BTreeMap<HoldId, Hold>,
    /// For each point the latest proof of each level, and before them those that passed last where the latest did not.
    #[n(2)]
    pub proofs: BTreeMap<PointId, Vec<Proof>>,
}

impl Event {
    pub fn tag(&self) -> u32 {
        match self {
            Event::Open => 0,
            Event::Incarnate(_) => 1,
            Event::Begin(_) => 2,
            Event::Commit(_) => 3,
            Event::Fence(_) => 4,
            Event::Condemn(_) => 5,
            Event::Sweep(_) => 6,
            Event::Abandon(_) => 7,
            Event::Swept(_) => 8,
            Event::Drop(_) => 9,
            Event::Hold(_) => 10,
            Event::Release(_) => 11,
            Event::Proved(_) => 12,
            Event::Checkpoint(_) => 13,
            Event::Acknowledge(_) => 14,
            Event::Lost(_) => 15,
            Event::Unknown { tag } => *tag,
        }
    }

    /// What messages call it.
    pub fn name(&self) -> &'static str {
        match self {
            Event::Open => "Open",
            Event::Incarnate(_) => "Incarnate",
            Event::Begin(_) => "Begin",
            Event::Commit(_) => "Commit",
            Event::Fence(_) => "Fence",
            Event::Condemn(_) => "Condemn",
            Event::Sweep(_) => "Sweep",
            Event::Abandon(_) => "Abandon",
            Event::Swept(_) => "Swept",
            Event::Drop(_) => "Drop",
            Event::Hold(_) => "Hold",
            Event::Release(_) => "Release",
            Event::Proved(_) => "Proved",
            Event::Checkpoint(_) => "Checkpoint",
            Event::Acknowledge(_) => "Acknowledge",
            Event::Lost(_) => "Lost",
            Event::Unknown { .. } => "an unknown event",
        }
    }

    /// The plaintext of the sealed section; `None` if the event has none.
    pub fn sealed_part(&self) -> Option<Vec<u8>> {
        fn cbor<T: Encode<()>>(value: &Option<T>) -> Option<Vec<u8>> {
            value.as_ref().map(|value| minicbor::to_vec(value).expect("writing to a Vec cannot fail"))
        }
        match self {
            Event::Commit(commit) => cbor(&commit.summary),
            Event::Drop(drop) => cbor(&drop.reason),
            Event::Hold(hold) => cbor(&hold.text),
            Event::Release(release) => cbor(&release.reason),
            Event::Proved(proved) => cbor(&proved.proof),
            Event::Checkpoint(checkpoint) => cbor(&checkpoint.details),
            Event::Open
            | Event::Incarnate(_)
            | Event::Begin(_)
            | Event::Fence(_)
            | Event::Condemn(_)
            | Event::Sweep(_)
            | Event::Abandon(_)
            | Event::Swept(_)
            | Event::Acknowledge(_)
            | Event::Lost(_)
            | Event::Unknown { .. } => None,
        }
    }

    /// Puts back what [`Event::sealed_part`] gave. Events without a sealed part ignore it: a later version may add one.
    pub fn set_sealed_part(&mut self, plaintext: &[u8]) -> Result<(), decode::Error> {
        match self {
            Event::Commit(commit) => commit.summary = Some(minicbor::decode(plaintext)?),
            Event::Drop(drop) => drop.reason = Some(minicbor::decode(plaintext)?),
            Event::Hold(hold) => hold.text = Some(minicbor::decode(plaintext)?),
            Event::Release(release) => release.reason = Some(minicbor::decode(plaintext)?),
            Event::Proved(proved) => proved.proof = Some(minicbor::decode(plaintext)?),
            Event::Checkpoint(checkpoint) => checkpoint.details = Some(minicbor::decode(plaintext)?),
            _ => {}
        }
        Ok(())
    }
}

impl<C> Encode<C> for Event {
    fn encode<W: encode::Write>(
        &self,
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.array(2)?.u32(self.tag())?;
        match self {
            Event::Open | Event::Unknown { .. } => e.map(0)?.ok(),
            Event::Incarnate(fields) => e.encode_with(fields, ctx)?.ok(),
            Event::Begin(fields) => e.encode_with(fields, ctx)?.ok(),
            Event::Commit(fields) => e.encode_with(fields, ctx)?.ok(),
            Event::Fence(fields) => e.encode_with(fields, ctx)?.ok(),
            Event::Condemn(fields) => e.encode_with(fields, ctx)?.ok(),
            Event::Sweep(fields) => e.encode_with(fields, ctx)?.ok(),
            Event::Abandon(fields) => e.encode_with(fields, ctx)?.ok(),
            Event::Swept(fields) => e.encode_with(fields, ctx)?.ok(),
            Event::Drop(fields) => e.encode_with(fields, ctx)?.ok(),
            Event::Hold(fields) => e.encode_with(fields, ctx)?.ok(),
            Event::Release(fields) => e.encode_with(fields, ctx)?.ok(),
            Event::Proved(fields) => e.encode_with(fields, ctx)?.ok(),
            Event::Checkpoint(fields) => e.encode_with(fields, ctx)?.ok(),
            Event::Acknowledge(fields) => e.encode_with(fields, ctx)?.ok(),
            Event::Lost(fields) => e.encode_with(fields, ctx)?.ok(),
        }
    }
}

impl<'b, C> Decode<'b, C> for Event {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, decode::Error> {
        if d.array()? != Some(2) {
            return Err(decode::Error::message("an event is a tag and a map").at(d.position()));
        }
        Ok(match d.u32()? {
            0 => {
                d.skip()?;
                Event::Open
            }
            1 => Event::Incarnate(d.decode_with(ctx)?),
            2 => Event::Begin(d.decode_with(ctx)?),
            3 => Event::Commit(d.decode_with(ctx)?),
            4 => Event::Fence(d.decode_with(ctx)?),
            5 => Event::Condemn(d.decode_with(ctx)?),
            6 => Event::Sweep(d.decode_with(ctx)?),
            7 => Event::Abandon(d.decode_with(ctx)?),
            8 => Event::Swept(d.decode_with(ctx)?),
            9 => Event::Drop(d.decode_with(ctx)?),
            10 => Event::Hold(d.decode_with(ctx)?),
            11 => Event::Release(d.decode_with(ctx)?),
            12 => Event::Proved(d.decode_with(ctx)?),
            13 => Event::Checkpoint(d.decode_with(ctx)?),
            14 => Event::Acknowledge(d.decode_with(ctx)?),
            15 => Event::Lost(d.decode_with(ctx)?),
            tag => {
                d.skip()?;
                Event::Unknown { tag }
            }
        })
    }
}
