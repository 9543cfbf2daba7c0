//! What a file's entry says of what is stored of it, however its bytes were come by.

use super::{
    pages::{Before, FRAME_PAGES, HASH, SLICE_FRAMES, Slice},
    read::Read,
    shared::{Shared, add, damaged},
};
use mainstay_domain::{
    Result, Severity,
    listing::{Doubt, Entry},
    stream::{PAGE, Piece, Pool, Vault},
};

/// Writes into the entry what the file's slices are stored as, in order.
pub fn finish(
    shared: &Shared<'_>,
    entry: &mut Entry,
    slices: impl Iterator<Item = Read>,
    shown: &str,
) -> Result<()> {
    let mut frames = Vec::new();
    let mut hashes = Vec::new();
    for read in slices {
        match read {
            Read::Whole(content, slice) => {
                note(shared, &slice, shown, entry);
                entry.size = content.bytes();
                entry.content = Some(content);
            }
            Read::Slice(slice) => {
                note(shared, &slice, shown, entry);
                let length = slice.hashes.len() as u64;
                hashes.push(Piece::plain(shared.sink.put(Pool::Tree, &slice.hashes)?, length));
                frames.extend(slice.frames);
            }
            Read::Unreadable(error) => {
                let message = format!("it cannot be read: {error}");
                shared.problems.add(Severity::Error, shown, message);
                entry.doubt = Some(Doubt::Unreadable);
            }
        }
    }
    if entry.doubt.is_none() && !frames.is_empty() {
        entry.content = Some(shared.sink.join(&mut frames.into_iter())?);
        entry.pages = Some(shared.sink.join(&mut hashes.into_iter())?);
    }
    Ok(())
}

fn note(shared: &Shared<'_>, slice: &Slice, shown: &str, entry: &mut Entry) {
    add(&shared.tally.changed_bytes, slice.changed_bytes);
    if !slice.bad_blocks.is_empty() || !slice.suspects.is_empty() {
        // Taken over unread, it would be in the next backup without a word of the damage.
        entry.fresh = Some(true);
    }
    for block in &slice.bad_blocks {
        add(&shared.tally.bad_blocks, 1);
        shared.problems.add(Severity::Error, shown, damaged(*block));
    }
    shared.suspects.add(shown, slice);
}

/// The frames and hashes of an earlier capture of the file, cut into so many slices; `None` if they cannot be had: then it is
/// stored anew.
pub fn before(vault: &dyn Vault, old: &Entry, slices: usize) -> Option<Vec<Before>> {
    let (content, pages) = (old.content.as_ref()?, old.pages.as_ref()?);
    let frames = vault.pieces(content).collect::<Result<Vec<Piece>>>().ok()?;
    let mut hashes = Vec::new();
    vault.copy(pages, &mut hashes).ok()?;
    let expected: u64 = frames.iter().map(|piece| piece.bytes.div_ceil(PAGE as u64) * HASH as u64).sum();
    (hashes.len() as u64 == expected).then(|| split(Before { frames, hashes }, slices))
}

/// Cuts what is known of a file into its slices.
fn split(before: Before, count: usize) -> Vec<Before> {
    let Before { frames, hashes } = before;
    (0..count)
        .map(|slot| {
            let some = |length: usize, each: usize| {
                let start = (slot * SLICE_FRAMES * each).min(length);
                start..(start + SLICE_FRAMES * each).min(length)
            };
            Before {
                frames: frames[some(frames.len(), 1)].to_vec(),
                hashes: hashes[some(hashes.len(), FRAME_PAGES * HASH)].to_vec(),
            }
        })
        .collect()
}
