//! Cuts the rows of a COPY into pieces, and digests them on the way.
//!
//! A piece ends where a row ends. Where, follows from the rows alone: once a piece has [`LEAST`] bytes, each row ends it
//! with a chance in proportion to its length, decided by its hash. So the same rows make the same chunks whatever came
//! before them, and pieces come to about a mebibyte whether rows are long or short. A row longer than [`MOST`] continues
//! in the next piece, which counts it.

use crate::postgres::rows::{RowHasher, RowSum};
use mainstay_domain::{
    Failure, Monitor,
    stream::{Content, Marks, PieceWriter},
};

/// No piece is cut by hash before it has this many bytes.
const LEAST: usize = 256 << 10;
/// On the average so many bytes follow before the cut.
const FURTHER: u64 = 768 << 10;
/// No piece is larger.
const MOST: usize = 4 << 20;

pub(super) struct RowCutter<'a> {
    writer: Box<dyn PieceWriter + 'a>,
    monitor: &'a dyn Monitor,
    hasher: RowHasher,
    chunk: Vec<u8>,
    /// Rows that end in the current chunk.
    marks: Marks,
    within_row: bool,
    row_bytes: u64,
    total: RowSum,
}

impl<'a> RowCutter<'a> {
    pub fn new(
        writer: Box<dyn PieceWriter + 'a>,
        row_key: &[u8; 16],
        monitor: &'a dyn Monitor,
    ) -> RowCutter<'a> {
        RowCutter {
            writer,
            monitor,
            hasher: RowHasher::new(row_key),
            chunk: Vec::new(),
            marks: Marks::default(),
            within_row: false,
            row_bytes: 0,
            total: RowSum::default(),
        }
    }

    /// Takes a row, or a part of one.
    #[inline]
    pub fn part(&mut self, bytes: &[u8], ends: bool) -> Result<(), Failure> {
        if ends && !self.within_row && self.chunk.len() + bytes.len() <= MOST {
            self.chunk.extend_from_slice(bytes);
        } else {
            self.long_row(bytes, ends)?;
        }
        self.row_bytes += bytes.len() as u64;
        let Some(hash) = self.hasher.part(bytes, ends) else { return Ok(()) };
        if bytes.last() != Some(&b'\n') {
            return Err(Failure::failed(
                "a row came without its end; is something between us and the server?",
            ));
        }
        self.marks.rows += 1;
        self.marks.digest = self.marks.digest.wrapping_add(hash);
        // The hash's low 32 bits are a fraction of 1: below length / FURTHER the piece ends.
        let length = std::mem::take(&mut self.row_bytes);
        if self.chunk.len() >= LEAST && u64::from(hash as u32) * FURTHER < length << 32 {
            self.flush()?;
        }
        Ok(())
    }

    /// A row that does not fit behind the others, or that comes in parts: it begins a piece of its own, so that where it is
    /// cut depends on it alone.
    fn long_row(&mut self, mut bytes: &[u8], ends: bool) -> Result<(), Failure> {
        if !self.within_row && !self.chunk.is_empty() {
            self.flush()?;
        }
        self.within_row = !ends;
        while self.chunk.len() + bytes.len() > MOST {
            let (now, rest) = bytes.split_at(MOST - self.chunk.len());
            self.chunk.extend_from_slice(now);
            bytes = rest;
            self.flush()?;
        }
        self.chunk.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Failure> {
        if self.monitor.cancelled() {
            return Err(super::abort::cancelled());
        }
        let size = self.chunk.len();
        let marks = std::mem::take(&mut self.marks);
        self.total.add(RowSum { rows: marks.rows, bytes: size as u64, digest: marks.digest });
        self.monitor.advance(marks.rows, size as u64);
        self.writer.piece(&self.chunk, marks)?;
        self.chunk.clear();
        Ok(())
    }

    /// The end of the rows: where they lie, and their sum.
    pub fn finish(mut self) -> Result<(Content, RowSum), Failure> {
        if !self.chunk.is_empty() {
            self.flush()?;
        }
        Ok((self.writer.finish()?, self.total))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_domain::{Result, Silent};
    use std::sync::{Arc, Mutex};

    type Pieces = Arc<Mutex<Vec<(Vec<u8>, Marks)>>>;
    struct Kept(Pieces);
    impl PieceWriter for Kept {
        fn piece(&mut self, chunk: &[u8], marks: Marks) -> Result<()> {
            self.0.lock().unwrap().push((chunk.to_vec(), marks));
            Ok(())
        }
        fn finish(self: Box<Self>) -> Result<Content> {
            Ok(Content::default())
        }
    }

    fn cut(rows: &[Vec<u8>], part: usize) -> (Vec<(Vec<u8>, Marks)>, RowSum) {
        let kept = Pieces::default();
        let mut cutter = RowCutter::new(Box::new(Kept(kept.clone())), &[3; 16], &Silent);
        for row in rows {
            let parts = row.len().div_ceil(part);
            for (n, bytes) in row.chunks(part).enumerate() {
                cutter.part(bytes, n + 1 == parts).unwrap();
            }
        }
        let (_, sum) = cutter.finish().unwrap();
        let pieces = std::mem::take(&mut *kept.lock().unwrap());
        (pieces, sum)
    }

    fn row(n: u64, length: usize) -> Vec<u8> {
        let mut row = format!("{n}\t").into_bytes();
        row.resize(length.max(row.len() + 1), b'x');
        *row.last_mut().unwrap() = b'\n';
        row
    }

    #[test]
    fn pieces_end_with_rows_and_come_to_about_a_mebibyte_for_short_and_long_rows() {
        for (count, length) in [(400_000, 60), (30_000, 1_000), (300, 100_000)] {
            let rows: Vec<_> = (0..count).map(|n| row(n, length)).collect();
            let (pieces, sum) = cut(&rows, 256 << 10);
            assert_eq!((sum.rows, sum.bytes), (count, rows.iter().map(|r| r.len() as u64).sum()));
            assert_eq!(pieces.iter().flat_map(|p| p.0.clone()).collect::<Vec<u8>>(), rows.concat());
            assert!(pieces.iter().all(|(chunk, _)| chunk.last() == Some(&b'\n') && chunk.len() <= MOST));
            let average = sum.bytes as usize / pieces.len();
            assert!((500 << 10..1600 << 10).contains(&average), "{average} for rows of {length}");
            assert_eq!(pieces.iter().fold(0_u128, |d, p| d.wrapping_add(p.1.digest)), sum.digest);
        }
    }

    #[test]
    fn after_a_change_the_same_rows_make_the_same_pieces() {
        let mut rows: Vec<_> = (0..200_000).map(|n| row(n, 80)).collect();
        let before = cut(&rows, 1 << 20).0;
        rows.insert(1_000, b"a new row\n".to_vec());
        let after = cut(&rows, 1 << 20).0;
        let same = after.iter().filter(|piece| before.contains(piece)).count();
        assert!(same + 3 >= after.len(), "{same} of {}", after.len());
    }

    #[test]
    fn a_row_longer_than_a_piece_continues_in_the_next_and_is_counted_once() {
        let rows = [row(1, 50), row(2, 9 << 20), row(3, 50), row(4, 5 << 20), row(5, 20)];
        let (whole, sum) = cut(&rows, usize::MAX);
        for part in [100_000, 256 << 10] {
            let (pieces, parted) = cut(&rows, part);
            assert_eq!(parted, sum);
            assert_eq!(pieces.iter().flat_map(|p| p.0.clone()).collect::<Vec<u8>>(), rows.concat());
            assert_eq!(pieces.iter().map(|p| p.1.rows).sum::<u64>(), 5);
            assert_eq!(pieces, whole, "where it is cut does not depend on how it came");
        }
    }
}
