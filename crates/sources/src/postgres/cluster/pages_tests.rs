//! How relation files are cut into frames, patched, and judged.

use super::*;
use crate::files::testing::Memory;
use mainstay_domain::stream::Vault;

const KEY: PageKey = [7; 32];

fn pages(count: usize) -> Vec<u8> {
    (0..count).flat_map(|n| vec![(n % 251) as u8 + 1; PAGE]).collect()
}

fn capture(memory: &Memory, bytes: &[u8], before: Option<&Before>) -> Slice {
    let mut read = |out: &mut [u8], at: u64| {
        out.copy_from_slice(&bytes[at as usize..][..out.len()]);
        Ok(())
    };
    capture_slice(memory, &PageHasher::new(&KEY), bytes.len() as u64, 0, before, None, &mut read).unwrap()
}

fn before(slice: &Slice) -> Before {
    Before { frames: slice.frames.clone(), hashes: slice.hashes.clone() }
}

fn restored(memory: &Memory, slice: &Slice) -> Vec<u8> {
    slice.frames.iter().flat_map(|piece| memory.piece(piece).unwrap()).collect()
}

/// From `doc/format.md`, and from another implementation (Python's `cryptography`).
#[test]
fn pages_are_hashed_as_the_format_says() {
    let page: Vec<u8> = (0..PAGE).map(|n| (n % 251) as u8).collect();
    let hash = PageHasher::new(&KEY).hash(&page);
    assert_eq!(hex::encode(hash), "8ce9f2f392b541841813551fce9fae02");
}

#[test]
fn a_changed_page_costs_a_page_and_comes_back_as_it_was() {
    let memory = Memory::default();
    let mut bytes = pages(3 * FRAME_PAGES + 5);
    let first = capture(&memory, &bytes, None);
    assert_eq!(restored(&memory, &first), bytes);

    bytes[40 * PAGE + 17] ^= 0xff;
    let second = capture(&memory, &bytes, Some(&before(&first)));
    assert_eq!(second.changed_bytes, PAGE as u64);
    assert_eq!(second.frames.iter().filter(|f| f.patch.is_some()).count(), 1);
    assert_eq!(second.hashes, first.hashes, "hashes are those of the chunks, and no chunk was replaced");
    assert_eq!(restored(&memory, &second), bytes);

    // Changed back: the patch is gone again.
    bytes[40 * PAGE + 17] ^= 0xff;
    let third = capture(&memory, &bytes, Some(&before(&second)));
    assert_eq!((third.changed_bytes, &third.frames), (0, &first.frames));
}

#[test]
fn patches_lie_on_frames_and_never_on_patches_and_many_changes_refold() {
    let memory = Memory::default();
    let mut bytes = pages(FRAME_PAGES);
    let mut last = capture(&memory, &bytes, None);
    for page in 0..FRAME_PAGES {
        bytes[page * PAGE] ^= 0xff;
        let next = capture(&memory, &bytes, Some(&before(&last)));
        assert_eq!(restored(&memory, &next), bytes, "after {page}");
        let refolded = next.frames[0].patch.is_none();
        assert_eq!(refolded, page % (MOST_PATCHED + 1) == MOST_PATCHED, "after {page}");
        last = next;
    }
}

#[test]
fn a_file_that_grows_or_shrinks_is_what_it_is_now() {
    let memory = Memory::default();
    let bytes = pages(2 * FRAME_PAGES);
    let first = capture(&memory, &bytes, None);
    for length in [FRAME_PAGES + 3, 2 * FRAME_PAGES + 9, 1] {
        let now = pages(length);
        let slice = capture(&memory, &now, Some(&before(&first)));
        assert_eq!(restored(&memory, &slice), now);
    }
    // Not whole pages: stored as it is.
    let odd = &bytes[..FRAME + 100];
    assert_eq!(restored(&memory, &capture(&memory, odd, Some(&before(&first)))), odd);
}

#[test]
fn a_torn_page_is_read_again_and_one_that_stays_wrong_is_named() {
    let memory = Memory::default();
    let mut good = vec![0x11; 4 * PAGE];
    for block in 0..4_u32 {
        let page: &mut [u8; PAGE] = (&mut good[block as usize * PAGE..][..PAGE]).try_into().unwrap();
        let sum = crate::postgres::cluster::checksum::checksum(page, 100 + block).to_ne_bytes();
        page[8..10].copy_from_slice(&sum);
    }
    let mut bad = good.clone();
    bad[PAGE + 5000] ^= 1;
    bad[3 * PAGE + 5000] ^= 1;
    let mut readings = 0;
    let mut read = |out: &mut [u8], at: u64| {
        readings += 1;
        // Block 101 was torn when it was first read; block 103 is bad on the disk.
        let from = if readings == 1 || at == 3 * PAGE as u64 { &bad } else { &good };
        out.copy_from_slice(&from[at as usize..][..out.len()]);
        Ok(())
    };
    let checking = Some(Checking { since: Lsn(u64::MAX) });
    let slice =
        capture_slice(&memory, &PageHasher::new(&KEY), 4 * PAGE as u64, 100, None, checking, &mut read)
            .unwrap();
    assert_eq!(slice.bad_blocks, [103]);
    assert_eq!(restored(&memory, &slice)[..3 * PAGE], good[..3 * PAGE]);
}

#[test]
fn a_page_that_says_it_was_written_meanwhile_is_kept_with_its_position() {
    let memory = Memory::default();
    let garbage = vec![0xff; PAGE];
    let mut read = |out: &mut [u8], at: u64| {
        out.copy_from_slice(&garbage[at as usize..][..out.len()]);
        Ok(())
    };
    let checking = Some(Checking { since: Lsn(1 << 30) });
    let slice =
        capture_slice(&memory, &PageHasher::new(&KEY), PAGE as u64, 7, None, checking, &mut read).unwrap();
    assert_eq!((slice.bad_blocks, slice.suspects), (vec![], vec![(7, Lsn(u64::MAX))]));
}
