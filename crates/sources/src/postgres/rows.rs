//! The text of a table's rows: the COPY statements that carry it, and the digest that proves it.
//!
//! A table's digest is the sum, modulo 2^128, of SipHash-1-3-128 (Aumasson and Bernstein, 2012; key: the dedup domain's
//! row key) over each row's text with its newline. It does not depend on the order of rows, adds up over ranges, and can
//! be subtracted from. It does depend on the columns' order and on the session's settings, which the facts record.

use super::wire::{quote_ident, quote_literal, quote_qualified};
use siphasher::sip128::{Hasher128, SipHasher13};
use std::hash::Hasher;

/// Rows, bytes and digest of a set of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RowSum {
    pub rows: u64,
    pub bytes: u64,
    pub digest: u128,
}

impl RowSum {
    pub fn add(&mut self, other: RowSum) {
        self.rows += other.rows;
        self.bytes += other.bytes;
        self.digest = self.digest.wrapping_add(other.digest);
    }
}

/// Hashes rows as they pass, whole or in parts.
#[derive(Debug, Clone)]
pub struct RowHasher {
    fresh: SipHasher13,
    /// The beginning of a row whose end is still to come.
    begun: Option<SipHasher13>,
}

impl RowHasher {
    pub fn new(row_key: &[u8; 16]) -> RowHasher {
        RowHasher { fresh: SipHasher13::new_with_key(row_key), begun: None }
    }

    /// Takes a row, or a part of one. Returns the row's hash when it ends.
    #[inline]
    pub fn part(&mut self, bytes: &[u8], ends: bool) -> Option<u128> {
        if ends && self.begun.is_none() {
            return Some(self.fresh.hash(bytes).as_u128());
        }
        let mut hasher = self.begun.take().unwrap_or(self.fresh);
        hasher.write(bytes);
        if ends {
            return Some(hasher.finish128().as_u128());
        }
        self.begun = Some(hasher);
        None
    }
}

/// `COPY "s"."t" ("a", "b") TO STDOUT`, in `encoding`. The table's own rows only, without those of its children. A
/// `condition` is SQL that follows the table's name: `WHERE …`.
pub fn copy_out_sql<'a>(
    schema: &str,
    name: &str,
    columns: impl IntoIterator<Item = &'a str>,
    condition: Option<&str>,
    encoding: &str,
) -> String {
    let table = quote_qualified(schema, name);
    let columns: Vec<String> = columns.into_iter().map(quote_ident).collect();
    let columns = columns.join(", ");
    let encoding = quote_literal(encoding);
    match condition {
        None if columns.is_empty() => format!("COPY {table} TO STDOUT WITH (ENCODING {encoding})"),
        None => format!("COPY {table} ({columns}) TO STDOUT WITH (ENCODING {encoding})"),
        Some(condition) => {
            format!(
                "COPY (SELECT {columns} FROM ONLY {table} {condition}\n) TO STDOUT WITH (ENCODING {encoding})"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_in_parts_has_the_hash_of_the_row() {
        let row: Vec<u8> = (0..100_000_u32).map(|n| (n * 7) as u8).collect();
        let mut hasher = RowHasher::new(&[7; 16]);
        let whole = hasher.part(&row, true).unwrap();
        for cut in [0, 1, 7, 8, 9, 65_536, row.len()] {
            assert_eq!(hasher.part(&row[..cut], false), None);
            assert_eq!(hasher.part(&row[cut..], true), Some(whole));
        }
    }

    #[test]
    fn the_hash_is_that_of_the_reference_implementation() {
        let key: [u8; 16] = std::array::from_fn(|n| n as u8);
        let message: Vec<u8> = (0..15).collect();
        let hash = RowHasher::new(&key).part(&message, true).unwrap();
        assert_eq!(hash, reference(&key, &message));
    }

    /// SipHash-c-d with 128-bit output, written from the reference implementation: c = 1, d = 3.
    fn reference(key: &[u8; 16], message: &[u8]) -> u128 {
        let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
        let (k0, k1) = (word(&key[..8]), word(&key[8..]));
        let mut v = [
            0x736f_6d65_7073_6575 ^ k0,
            0x646f_7261_6e64_6f6d ^ k1 ^ 0xee,
            0x6c79_6765_6e65_7261 ^ k0,
            0x7465_6462_7974_6573 ^ k1,
        ];
        fn round(v: &mut [u64; 4]) {
            v[0] = v[0].wrapping_add(v[1]);
            v[1] = v[1].rotate_left(13) ^ v[0];
            v[0] = v[0].rotate_left(32);
            v[2] = v[2].wrapping_add(v[3]);
            v[3] = v[3].rotate_left(16) ^ v[2];
            v[0] = v[0].wrapping_add(v[3]);
            v[3] = v[3].rotate_left(21) ^ v[0];
            v[2] = v[2].wrapping_add(v[1]);
            v[1] = v[1].rotate_left(17) ^ v[2];
            v[2] = v[2].rotate_left(32);
        }
        let mut padded = message.to_vec();
        while padded.len() % 8 != 7 {
            padded.push(0);
        }
        padded.push(message.len() as u8);
        for block in padded.chunks(8) {
            v[3] ^= word(block);
            round(&mut v);
            v[0] ^= word(block);
        }
        v[2] ^= 0xee;
        (0..3).for_each(|_| round(&mut v));
        let low = v[0] ^ v[1] ^ v[2] ^ v[3];
        v[1] ^= 0xdd;
        (0..3).for_each(|_| round(&mut v));
        u128::from(low) | u128::from(v[0] ^ v[1] ^ v[2] ^ v[3]) << 64
    }

    #[test]
    fn statements_name_their_columns() {
        assert_eq!(
            copy_out_sql("s", "T", ["a", "b\""], None, "UTF8"),
            r#"COPY "s"."T" ("a", "b""") TO STDOUT WITH (ENCODING 'UTF8')"#
        );
        assert_eq!(
            copy_out_sql("s", "t", [], None, "UTF8"),
            r#"COPY "s"."t" TO STDOUT WITH (ENCODING 'UTF8')"#
        );
        assert_eq!(
            copy_out_sql("s", "t", ["a"], Some("WHERE a > 1 -- recent"), "LATIN1"),
            "COPY (SELECT \"a\" FROM ONLY \"s\".\"t\" WHERE a > 1 -- recent\n) TO STDOUT WITH (ENCODING 'LATIN1')"
        );
    }
}
