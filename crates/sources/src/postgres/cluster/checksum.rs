//! Checksums of pages of relation files, as PostgreSQL computes them.
//!
//! Source: PostgreSQL, `src/include/storage/checksum_impl.h` and `bufpage.h`: 32 interleaved FNV-1a sums over the page with
//! its checksum field zeroed, folded together with the block number.

use mainstay_domain::{Lsn, stream::PAGE};

const LANES: usize = 32;
const PRIME: u32 = 16_777_619;

const OFFSETS: [u32; LANES] = [
    0x5B1F_36E9,
    0xB852_5960,
    0x02AB_50AA,
    0x1DE6_6D2A,
    0x79FF_467A,
    0x9BB9_F8A3,
    0x217E_7CD2,
    0x83E1_3D2C,
    0xF8D4_474F,
    0xE39E_B970,
    0x42C6_AE16,
    0x9932_16FA,
    0x7B09_3B5D,
    0x98DA_FF3C,
    0xF718_902A,
    0x0B1C_9CDB,
    0xE58F_764B,
    0x1876_36BC,
    0x5D7B_3BB1,
    0xE73D_E7DE,
    0x92BE_C979,
    0xCCA6_C0B2,
    0x304A_0979,
    0x85AA_43D4,
    0x7831_25BB,
    0x6CA8_EAA2,
    0xE407_EAC6,
    0x4B5C_FC3E,
    0x9FBF_8C76,
    0x15CA_20BE,
    0xF2CA_9FD3,
    0x959B_D756,
];

/// Where `pd_checksum` lies in a page; the machine's own byte order, as all of a page.
const CHECKSUM: std::ops::Range<usize> = 8..10;
const UPPER: std::ops::Range<usize> = 14..16;

/// What a page says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// Never used: zeros.
    New,
    Good,
    /// Its checksum does not match; when it was written last.
    Bad(Lsn),
}

/// Judges a page that is block `block` of its relation (counted over all of its segment files).
pub fn judge(page: &[u8; PAGE], block: u32) -> Page {
    let short =
        |range: std::ops::Range<usize>| u16::from_ne_bytes([page[range.start], page[range.start + 1]]);
    // As the server judges (`PageIsVerified`): a page without contents must be nothing but zeros.
    let new = short(UPPER) == 0;
    if new && page.iter().all(|byte| *byte == 0) {
        return Page::New;
    }
    if !new && checksum(page, block) == short(CHECKSUM) {
        return Page::Good;
    }
    let word =
        |at: usize| u64::from(u32::from_ne_bytes([page[at], page[at + 1], page[at + 2], page[at + 3]]));
    Page::Bad(Lsn(word(0) << 32 | word(4)))
}

/// The checksum that the page should carry.
pub fn checksum(page: &[u8; PAGE], block: u32) -> u16 {
    let mut sums = OFFSETS;
    let mut row = [0_u32; LANES];
    for (number, bytes) in page.chunks_exact(4 * LANES).enumerate() {
        for (word, bytes) in row.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        if number == 0 {
            // The field itself counts as zero: the low or the high half of the third word.
            let mut field = row[2].to_ne_bytes();
            field[CHECKSUM.start - 8..CHECKSUM.end - 8].fill(0);
            row[2] = u32::from_ne_bytes(field);
        }
        mix(&mut sums, &row);
    }
    mix(&mut sums, &[0; LANES]);
    mix(&mut sums, &[0; LANES]);
    let folded = sums.iter().fold(0, |all, sum| all ^ sum) ^ block;
    (folded % 65_535) as u16 + 1
}

#[inline(always)]
fn mix(sums: &mut [u32; LANES], row: &[u32; LANES]) {
    for (sum, word) in sums.iter_mut().zip(row) {
        let mixed = *sum ^ word;
        *sum = mixed.wrapping_mul(PRIME) ^ (mixed >> 17);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_without_contents_is_new_and_any_flipped_bit_is_noticed() {
        assert_eq!(judge(&[0; PAGE], 7), Page::New);
        let mut half_zeroed = [0; PAGE];
        half_zeroed[PAGE - 1] = 1;
        assert!(matches!(judge(&half_zeroed, 7), Page::Bad(_)));
        let mut page = [0x5a; PAGE];
        let sum = checksum(&page, 9).to_ne_bytes();
        page[CHECKSUM].copy_from_slice(&sum);
        assert_eq!(judge(&page, 9), Page::Good);
        assert!(matches!(judge(&page, 10), Page::Bad(_)), "a page in another's place");
        for at in [0, 7, 8, 20, PAGE - 1] {
            let mut flipped = page;
            flipped[at] ^= 1;
            assert!(matches!(judge(&flipped, 9), Page::Bad(_)), "byte {at}");
        }
    }
}
