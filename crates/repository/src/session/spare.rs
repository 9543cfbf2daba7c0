//! Buffers that serve again.
//!
//! A chunk lives for milliseconds and has a megabyte or so. Memory of that size goes back to the system when it is freed, and
//! comes back as pages to be cleared: measured, a fifth of a backup's time. So what a chunk or a pack lay in is kept here for
//! the next one, within a bound.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

/// Smaller buffers are left to the allocator, which keeps them itself. A power of two.
const SMALLEST: usize = 64 << 10;
/// Sizes from [`SMALLEST`] to the largest chunk, each the double of the one before.
const SIZES: usize = (mainstay_domain::stream::MAX_CHUNK / SMALLEST).ilog2() as usize + 1;
/// Of packs: two being filled, and one for each of a few threads that seal.
const PACKS: usize = 4;

#[derive(Default)]
pub struct Spare {
    chunks: [Mutex<Vec<Vec<u8>>>; SIZES],
    /// Bytes that `chunks` hold.
    kept: AtomicUsize,
    /// Bytes that they may hold.
    limit: usize,
    packs: Mutex<Vec<Vec<u8>>>,
}

impl Spare {
    /// Keeps up to `limit` bytes of chunks.
    pub fn new(limit: usize) -> Spare {
        Spare { limit, ..Spare::default() }
    }

    /// A buffer with these bytes, at most twice as large as they are.
    pub fn copy(&self, bytes: &[u8]) -> Vec<u8> {
        if !(SMALLEST..=mainstay_domain::stream::MAX_CHUNK).contains(&bytes.len()) {
            return bytes.to_vec();
        }
        let size = bytes.len().next_power_of_two();
        let mut buffer = match lock(&self.chunks[slot(size)]).pop() {
            Some(buffer) => {
                self.kept.fetch_sub(buffer.capacity(), Ordering::Relaxed);
                buffer
            }
            None => Vec::with_capacity(size),
        };
        buffer.extend_from_slice(bytes);
        buffer
    }

    /// Takes back what `copy` gave.
    pub fn give_back(&self, mut buffer: Vec<u8>) {
        let size = buffer.capacity();
        let ours = size.is_power_of_two() && (SMALLEST..=mainstay_domain::stream::MAX_CHUNK).contains(&size);
        if ours && self.kept.load(Ordering::Relaxed) + size <= self.limit {
            buffer.clear();
            self.kept.fetch_add(size, Ordering::Relaxed);
            lock(&self.chunks[slot(size)]).push(buffer);
        }
    }

    /// An empty buffer that a pack may have lain in.
    pub fn pack(&self) -> Vec<u8> {
        lock(&self.packs).pop().unwrap_or_default()
    }

    pub fn give_back_pack(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut packs = lock(&self.packs);
        if packs.len() < PACKS {
            packs.push(buffer);
        }
    }
}

fn slot(size: usize) -> usize {
    (size / SMALLEST).ilog2() as usize
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_serves_again_and_no_more_is_kept_than_allowed() {
        let spare = Spare::new(1 << 20);
        let first = spare.copy(&[1; 300_000]);
        assert_eq!((first.len(), first.capacity()), (300_000, 512 << 10));
        let place = first.as_ptr();
        spare.give_back(first);
        let second = spare.copy(&[2; 400_000]);
        assert_eq!((second.as_ptr(), &second[..]), (place, &[2; 400_000][..]));

        let buffers: Vec<_> = (0..4).map(|n| spare.copy(&[n; 400_000])).collect();
        buffers.into_iter().for_each(|buffer| spare.give_back(buffer));
        assert_eq!(spare.kept.load(Ordering::Relaxed), 1 << 20);
        assert_eq!(spare.copy(b"small").capacity(), 5, "small ones are left to the allocator");
    }
}
