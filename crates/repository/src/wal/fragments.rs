//! Fragments: what is archived of a segment while the server still writes to it (`doc/format.md` §11).
//!
//! A host numbers the fragments of a segment from 0. Each says where in the segment it begins and which fragment ends there, so
//! the last one leads back to the segment's beginning; one that gathers many small ones leads past them. The last is found by
//! asking for numbers, not by a listing, which may lag: what was acknowledged to a server must be found.
//!
//! The whole segment, once it is archived, takes their place. Until then none is removed or changed.

use super::{Archive, Place};
use crate::{
    error::{RepositoryError, Result},
    log::create_contested,
    pack::chunk_id,
};
use mainstay_domain::{
    Failure, HostId, Kind,
    wal::{Segment, WalFile},
};

/// How far the search for the last fragment looks beyond the first number that is missing: a lost object does not pass for the end.
const LOOK_AHEAD: u32 = 2;

/// A fragment that is to be archived.
#[derive(Debug, Clone, Copy)]
pub struct Fragment<'b> {
    pub segment: Segment,
    pub number: u32,
    /// The offset in the segment at which its bytes begin.
    pub from: u64,
    /// The fragment that ends there; none at the segment's beginning.
    pub after: Option<u32>,
    pub bytes: &'b [u8],
}

impl Archive<'_> {
    /// Archives a fragment. Returns only when it is durable; `false` if this host has another one of that number.
    pub fn ship(&self, fragment: &Fragment<'_>) -> Result<bool> {
        let file = WalFile::Fragment(fragment.segment, fragment.number);
        let place = Place { from: fragment.from, after: fragment.after };
        let id = chunk_id(&self.repository.keyring().current().chunk_id_key(), fragment.bytes);
        let name = self.name(&self.own(), &file);
        let bytes = self.seal(&file, fragment.bytes, id, None, Some(place))?;
        if create_contested(&**self.repository.store(), &name, &bytes, &std::thread::sleep)? {
            return Ok(true);
        }
        let (facts, there) = self.open_whole(&name, &file, self.repository.store().read(&name)?)?;
        Ok(facts.place == Some(place) && there == fragment.bytes)
    }

    /// The beginning of a segment as far as fragments of any host hold it; `None` if there are none.
    ///
    /// # Errors
    /// Damage, which is never the same as absence; `Refused` if two hosts hold different log.
    pub fn beginning(&self, segment: Segment) -> Result<Option<Vec<u8>>> {
        let mut longest: Option<Vec<u8>> = None;
        for host in self.hosts() {
            let Some(last) = self.last_fragment(&host, segment)? else { continue };
            let bytes = self.chain(&host, segment, last)?;
            longest = Some(match longest {
                None => bytes,
                Some(other) => {
                    let (long, short) =
                        if other.len() >= bytes.len() { (other, bytes) } else { (bytes, other) };
                    if long[..short.len()] != short {
                        return Err(self.two_histories(segment));
                    }
                    long
                }
            });
        }
        Ok(longest)
    }

    /// What this host itself archived of a segment: the number of its last fragment, and the bytes that it leads to.
    pub fn own_beginning(&self, segment: Segment) -> Result<Option<(u32, Result<Vec<u8>>)>> {
        let own = self.own();
        let last = self.last_fragment(&own, segment)?;
        Ok(last.map(|last| (last, self.chain(&own, segment, last))))
    }

    /// Removes this host's fragments with numbers below `count`, the last one first: what a removal that breaks off leaves can
    /// still be found by asking. Only for a segment that is archived whole.
    pub fn remove_fragments(&self, segment: Segment, count: u32, go_on: &dyn Fn() -> bool) -> Result<()> {
        let own = self.own();
        for number in (0..count).rev() {
            if !go_on() {
                break;
            }
            self.repository.store().delete(&self.name(&own, &WalFile::Fragment(segment, number)))?;
        }
        Ok(())
    }

    fn own(&self) -> HostId {
        self.repository.writer().signer.host()
    }

    /// The number of a host's last fragment of a segment: by doubling, then halving, then a look beyond.
    fn last_fragment(&self, host: &HostId, segment: Segment) -> Result<Option<u32>> {
        let there = |number: u32| -> Result<bool> {
            let name = self.name(host, &WalFile::Fragment(segment, number));
            Ok(self.repository.store().stat(&name)?.is_some())
        };
        let beyond = |number: u32| -> Result<Option<u32>> {
            for next in number..=number + LOOK_AHEAD {
                if there(next)? {
                    return Ok(Some(next));
                }
            }
            Ok(None)
        };
        let mut last = None;
        // At most once for each number that is missing before the last.
        while let Some(found) = beyond(last.map_or(0, |last| last + 1))? {
            let (mut at, mut step) = (found, 1);
            while there(at + step)? {
                at += step;
                step *= 2;
            }
            while step > 1 {
                step /= 2;
                if there(at + step)? {
                    at += step;
                }
            }
            last = Some(at);
        }
        Ok(last)
    }

    /// The bytes from the segment's beginning to the end of a fragment.
    fn chain(&self, host: &HostId, segment: Segment, last: u32) -> Result<Vec<u8>> {
        let mut parts: Vec<Vec<u8>> = Vec::new();
        let (mut number, mut ends_at) = (last, None);
        loop {
            let file = WalFile::Fragment(segment, number);
            let name = self.name(host, &file);
            let (facts, bytes) = self.open_whole(&name, &file, self.repository.store().read(&name)?)?;
            let damaged = |why| RepositoryError::damaged(&name, why);
            let place = facts.place.ok_or_else(|| damaged("it does not say where it lies"))?;
            let end = place.from.saturating_add(bytes.len() as u64);
            if end > super::LARGEST || ends_at.is_some_and(|wanted| wanted != end) {
                return Err(damaged("it does not end where the next one begins"));
            }
            ends_at = Some(place.from);
            parts.push(bytes);
            match (place.from, place.after) {
                (0, None) => break,
                (1.., Some(after)) if after < number => number = after,
                _ => return Err(damaged("it does not say what it follows")),
            }
        }
        parts.reverse();
        Ok(parts.concat())
    }

    fn two_histories(&self, segment: Segment) -> RepositoryError {
        Failure::new(
            Kind::Refused,
            format!("two hosts have archived different beginnings of {segment} of cluster {}", self.system),
        )
        .hint(
            "Two servers write into one archive: a copy of the machine, or an old primary that still runs. Stop receiving from the \
             one that is not the primary. A restore to a moment before this segment works.",
        )
        .into()
    }
}
