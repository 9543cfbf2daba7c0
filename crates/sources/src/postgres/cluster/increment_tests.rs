//! What a server sends of a file, laid over what is stored of it, is held against the file itself.

use super::*;
use crate::{
    files::{Problems, testing::Memory},
    postgres::cluster::{
        pages::{PageHasher, capture_slice},
        shared::{Suspects, Tally},
    },
};
use mainstay_domain::{Silent, SystemClock};
use std::sync::atomic::Ordering;

const KEY: [u8; 32] = [7; 32];

/// A file of the test, with what is stored of it.
struct Stored {
    bytes: Vec<u8>,
    entry: Entry,
}

fn page(fill: u32) -> Vec<u8> {
    fill.to_be_bytes().repeat(PAGE / 4)
}

fn with_shared<T>(memory: &Memory, tally: &Tally, run: impl FnOnce(&Shared<'_>) -> T) -> T {
    let (problems, suspects) = (Problems::default(), Suspects::default());
    run(&Shared {
        sink: memory,
        hasher: PageHasher::new(&KEY),
        stopped: false,
        full: false,
        checking: None,
        threads: 1,
        clock: &SystemClock,
        monitor: &Silent,
        problems: &problems,
        tally,
        suspects: &suspects,
    })
}

fn entry(name: &str) -> Entry {
    let member = super::super::tar::Member {
        path: name.into(),
        kind: super::super::tar::Kind::File,
        mode: 0o600,
        uid: 0,
        gid: 0,
        size: 0,
        modified: 0,
    };
    *super::super::remote::entry_of(&member, name.as_bytes())
}

/// Stores a file of so many pages as a whole backup does.
fn whole(memory: &Memory, bytes: Vec<u8>) -> Stored {
    let mut entry = entry("16384");
    entry.size = bytes.len() as u64;
    let tally = Tally::default();
    let mut fill = |out: &mut [u8], at: u64| {
        out.copy_from_slice(&bytes[at as usize..][..out.len()]);
        Ok(())
    };
    if bytes.is_empty() {
        entry.content = Some(Content::default());
    } else {
        let mut slice =
            capture_slice(memory, &PageHasher::new(&KEY), bytes.len() as u64, 0, None, None, &mut fill)
                .unwrap();
        let read = match bytes.len() > FRAME {
            true => Read::Slice(slice),
            false => {
                let pieces = std::mem::take(&mut slice.frames);
                Read::Whole(Content { level: 0, pieces }, slice)
            }
        };
        with_shared(memory, &tally, |shared| {
            entries::finish(shared, &mut entry, std::iter::once(read), "16384").unwrap();
        });
    }
    Stored { bytes, entry }
}

/// What the server sends: a header, and the blocks.
fn sent(changed: &[(u32, Vec<u8>)], least: u32) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        [MAGIC, changed.len() as u32, least].iter().flat_map(|word| word.to_ne_bytes()).collect();
    bytes.extend(changed.iter().flat_map(|(block, _)| block.to_ne_bytes()));
    if !changed.is_empty() {
        bytes.resize(bytes.len().next_multiple_of(PAGE), 0);
    }
    changed.iter().for_each(|(_, page)| bytes.extend(page));
    bytes
}

/// Lays changes over a file, and holds what is stored then against what it should be.
fn increment(memory: &Memory, old: &Stored, changed: &[(u32, Vec<u8>)], least: u32) -> (Stored, Tally) {
    let length = changed.last().map_or(0, |(block, _)| block + 1).max(least) as usize;
    let mut expected = old.bytes.clone();
    expected.truncate(least as usize * PAGE);
    expected.resize(length * PAGE, 0);
    for (block, page) in changed {
        expected[*block as usize * PAGE..][..PAGE].copy_from_slice(page);
    }
    let (made, tally) = laid(memory, old, &sent(changed, least)).unwrap();
    let mut bytes = Vec::new();
    memory.copy(made.content.as_ref().unwrap(), &mut bytes).unwrap();
    assert!(bytes == expected && made.size == expected.len() as u64, "{} blocks, {least}", changed.len());
    // The hashes are those of the chunks as they are stored, without their patches.
    let mut hashes = Vec::new();
    if let Some(pages) = &made.pages {
        memory.copy(pages, &mut hashes).unwrap();
        let chunks: Vec<u8> = memory
            .pieces(made.content.as_ref().unwrap())
            .flat_map(|piece| memory.get(&piece.unwrap().chunk.unwrap()).unwrap())
            .collect();
        let of_chunks: Vec<u8> =
            chunks.chunks(PAGE).flat_map(|page| PageHasher::new(&KEY).hash(page)).collect();
        assert!(hashes == of_chunks);
    }
    assert_eq!(made.pages.is_some(), made.size > FRAME as u64);
    (Stored { bytes: expected, entry: made }, tally)
}

fn laid(memory: &Memory, old: &Stored, sent: &[u8]) -> Result<(Entry, Tally)> {
    let mut rest = sent;
    let mut read = |out: &mut [u8]| {
        let (now, later) = rest.split_at(out.len());
        out.copy_from_slice(now);
        rest = later;
        Ok(())
    };
    let changes = Changes::read(sent.len() as u64, &mut read)?;
    let mut made = entry("16384");
    let tally = Tally::default();
    with_shared(memory, &tally, |shared| {
        lay_over(shared, memory, &old.entry, &changes, &mut read, &mut made, "16384")
    })?;
    assert!(rest.is_empty(), "all that was sent was read");
    Ok((made, tally))
}

fn filled(pages: u32) -> Vec<u8> {
    (0..pages).flat_map(|number| page(number + 1)).collect()
}

#[test]
fn whatever_changed_grew_or_was_cut_the_file_is_as_it_should_be_increment_upon_increment() {
    let memory = Memory::default();
    // Any sequence will do that is the same in every run.
    let mut state = 1_u32;
    let mut random = |below: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) % below
    };
    for start in [0, 1, 31, 32, 33, 100, 200] {
        let mut file = whole(&memory, filled(start));
        for round in 0..12 {
            let old = (file.bytes.len() / PAGE) as u32;
            let least = match random(4) {
                0 => random(old + 1),
                1 => old + random(40),
                _ => old,
            };
            let many = random(30);
            let mut blocks: Vec<u32> = (0..many).map(|_| random(old + 5)).collect();
            blocks.sort_unstable();
            blocks.dedup();
            let changed: Vec<_> =
                blocks.into_iter().map(|block| (block, page(random(1 << 20) + round))).collect();
            file = increment(&memory, &file, &changed, least).0;
        }
    }
}

#[test]
fn a_changed_page_costs_a_page_and_what_did_not_change_is_not_read() {
    let memory = Memory::default();
    let file = whole(&memory, filled(100));
    let (second, tally) = increment(&memory, &file, &[(40, page(7777))], 100);
    assert_eq!(tally.changed_bytes.into_inner(), PAGE as u64);
    let (third, tally) = increment(&memory, &second, &[(41, page(8888))], 100);
    assert_eq!(tally.changed_bytes.into_inner(), 2 * PAGE as u64, "both stand in the one patch");
    let (fourth, _) = increment(&memory, &third, &[(40, page(41)), (41, page(42))], 100);
    assert_eq!(fourth.entry.content, file.entry.content, "it is as it was at first");

    let before = memory.gets.load(Ordering::Relaxed);
    let (same, tally) = laid(&memory, &third, &sent(&[], 100)).unwrap();
    assert_eq!(memory.gets.load(Ordering::Relaxed), before, "nothing is read");
    assert_eq!((same.content, same.pages), (third.entry.content.clone(), third.entry.pages.clone()));
    assert_eq!(tally.unchanged_files.into_inner(), 1);

    // What must be read and cannot be is damage, and nothing else comes in its place.
    assert!(memory.damage(|chunk| chunk.len() > PAGE) > 0);
    let many: Vec<_> = (32..48).map(|block| (block, page(1))).collect();
    let failed = laid(&memory, &third, &sent(&many, 100)).unwrap_err();
    assert_eq!(failed.kind, mainstay_domain::Kind::Verification, "{failed}");
}

#[test]
fn what_is_no_incremental_file_is_refused() {
    let memory = Memory::default();
    let file = whole(&memory, filled(40));
    let sound = sent(&[(3, page(1)), (9, page(2))], 40);
    assert!(laid(&memory, &file, &sound).is_ok());
    let with = |at: usize, word: u32| {
        let mut bytes = sound.clone();
        bytes[at..at + 4].copy_from_slice(&word.to_ne_bytes());
        bytes
    };
    let descending = with(12, 10);
    let beyond = with(16, SEGMENT_BLOCKS);
    let cases = [with(0, 1), with(4, 3), with(4, u32::MAX), descending, beyond, sound[..8].to_vec()];
    for (number, wrong) in cases.iter().enumerate() {
        assert!(laid(&memory, &file, wrong).is_err(), "{number}");
    }
    // A server may state the length of the whole relation: no segment file is longer than a gigabyte.
    let mut read = |out: &mut [u8]| {
        out.copy_from_slice(&sent(&[], SEGMENT_BLOCKS + 7)[..out.len()]);
        Ok(())
    };
    assert_eq!(Changes::read(12, &mut read).unwrap().length(), SEGMENT_BLOCKS);
}
