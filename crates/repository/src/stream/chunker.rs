//! Content-defined cutting: FastCDC (Wen Xia et al., "The Design of Fast Content-Defined Chunking for Data Deduplication Based
//! Storage Systems", 2020), with the gear table changed by a secret seed so that chunk sizes do not tell known files.

use fastcdc::v2020::{Normalization, cut_gear, get_gear_with_seed, select_masks};
use std::{borrow::Cow, cell::RefCell, io, io::Read};

/// Chunk sizes in bytes; even numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunking {
    pub minimum: usize,
    pub average: usize,
    pub maximum: usize,
}

impl Default for Chunking {
    fn default() -> Self {
        Chunking { minimum: 512 << 10, average: 1 << 20, maximum: 4 << 20 }
    }
}

impl Chunking {
    /// Limits on what a repository may ask for: a hostile `format` must not exhaust memory.
    pub fn is_sane(&self) -> bool {
        let even = [self.minimum, self.average, self.maximum].iter().all(|n| n % 2 == 0);
        even && (1 << 10..=1 << 20).contains(&self.minimum)
            && self.minimum < self.average
            && self.average < self.maximum
            && self.average <= 4 << 20
            && self.maximum <= mainstay_domain::stream::MAX_CHUNK
    }
}

pub struct Chunker {
    chunking: Chunking,
    gear: Cow<'static, [u64]>,
    gear_shifted: Cow<'static, [u64]>,
    masks: (u64, u64),
}

impl Chunker {
    pub fn new(chunking: Chunking, seed: u64) -> Chunker {
        let (gear, gear_shifted) = get_gear_with_seed(seed);
        Chunker { chunking, gear, gear_shifted, masks: select_masks(chunking.average, Normalization::Level1) }
    }

    /// Length of the first chunk of `bytes`, which hold at least a maximal chunk or all that is left.
    pub fn cut(&self, bytes: &[u8]) -> usize {
        let Chunking { minimum, average, maximum } = self.chunking;
        let (small, large) = self.masks;
        let (_, length) = cut_gear(
            bytes,
            minimum,
            average,
            maximum,
            small,
            large,
            small << 1,
            large << 1,
            &self.gear,
            &self.gear_shifted,
        );
        length
    }

    /// Reads to the end and hands out each chunk. Errors of the reader and of `emit` end it.
    pub fn chunks<E: From<io::Error>>(
        &self,
        reader: &mut dyn Read,
        mut emit: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        thread_local! {
            static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        let maximum = self.chunking.maximum;
        // Taken out, not borrowed: `emit` may come back here on the same thread.
        let mut buffer = BUFFER.take();
        buffer.resize(2 * maximum, 0);
        let (mut start, mut end, mut at_end) = (0, 0, false);
        let result = loop {
            while !at_end && end - start < maximum {
                if buffer.len() - start < maximum {
                    buffer.copy_within(start..end, 0);
                    end -= start;
                    start = 0;
                }
                match reader.read(&mut buffer[end..]) {
                    Ok(0) => at_end = true,
                    Ok(count) => end += count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error.into()),
                }
            }
            if start == end {
                break Ok(());
            }
            let length = self.cut(&buffer[start..end]);
            if let Err(error) = emit(&buffer[start..start + length]) {
                break Err(error);
            }
            start += length;
        };
        BUFFER.set(buffer);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    fn cut_all(chunker: &Chunker, mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut chunks = Vec::new();
        chunker
            .chunks::<io::Error>(&mut bytes, |chunk| {
                chunks.push(chunk.to_vec());
                Ok(())
            })
            .unwrap();
        chunks
    }

    const SMALL: Chunking = Chunking { minimum: 1 << 10, average: 4 << 10, maximum: 16 << 10 };

    #[test]
    fn chunks_join_to_what_was_read_whatever_size_the_reads_have() {
        struct Dribble<'a>(&'a [u8]);
        impl Read for Dribble<'_> {
            fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
                let count = out.len().min(777).min(self.0.len());
                out[..count].copy_from_slice(&self.0[..count]);
                self.0 = &self.0[count..];
                Ok(count)
            }
        }
        let bytes = noise(300_000);
        let chunker = Chunker::new(SMALL, 7);
        let whole = cut_all(&chunker, &bytes);
        let mut dribbled = Vec::new();
        chunker
            .chunks::<io::Error>(&mut Dribble(&bytes), |c| {
                dribbled.push(c.to_vec());
                Ok(())
            })
            .unwrap();
        assert_eq!(whole, dribbled);
        assert_eq!(whole.concat(), bytes);
        assert!(whole.iter().all(|c| c.len() <= SMALL.maximum));
        assert!(cut_all(&chunker, &[]).is_empty());
    }

    #[test]
    fn an_insertion_changes_few_chunks_and_a_seed_changes_all() {
        let bytes = noise(1_000_000);
        let mut edited = bytes.clone();
        edited.splice(500_000..500_000, *b"a few bytes more");
        let chunker = Chunker::new(SMALL, 7);
        let before: std::collections::HashSet<_> = cut_all(&chunker, &bytes).into_iter().collect();
        let new = cut_all(&chunker, &edited).into_iter().filter(|c| !before.contains(c)).count();
        assert!(new <= 3, "{new} chunks changed");
        let other = cut_all(&Chunker::new(SMALL, 8), &bytes);
        assert!(other.iter().filter(|c| before.contains(*c)).count() <= 1);
    }
}
