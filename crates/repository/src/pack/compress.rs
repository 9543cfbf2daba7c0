//! Compression of chunks, with a level that is found out when the user names none.

use super::{CODEC_STORED, CODEC_ZSTD};
use mainstay_domain::ChunkId;
use std::{
    io::Cursor,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use zstd::zstd_safe::{CParameter, compress_bound};

type Zstd = zstd::bulk::Compressor<'static>;

/// A compressed chunk on its way into a pack. Its bytes are the compressor's, until the next one.
pub struct Staged<'c> {
    pub chunk: ChunkId,
    pub plain_length: u32,
    /// Codec byte and data.
    pub payload: &'c [u8],
}

/// Compression contexts, kept by one thread and used again for each chunk.
pub struct Compressor {
    /// At the level that was asked for, or the thorough one.
    first: Zstd,
    quick: Zstd,
    scratch: Vec<u8>,
    other: Vec<u8>,
}

const QUICK: i32 = 1;
const THOROUGH: i32 = 3;

impl Compressor {
    /// `level` as zstd counts them, 1 to 19; `None`: as each chunk's [`Effort`] says.
    pub fn new(level: Option<i32>) -> Compressor {
        let first = context(level.unwrap_or(THOROUGH));
        Compressor { first, quick: context(QUICK), scratch: Vec::new(), other: Vec::new() }
    }

    pub fn stage(&mut self, chunk: ChunkId, plain: &[u8], effort: &Effort) -> Staged<'_> {
        match effort {
            // No compressed form is shorter.
            Effort::None => {
                self.scratch.clear();
                self.scratch.resize(plain.len() + 1, 0);
            }
            Effort::Quick => compress(&mut self.quick, plain, &mut self.scratch),
            Effort::Given => compress(&mut self.first, plain, &mut self.scratch),
            Effort::Trial(choice) => {
                compress(&mut self.first, plain, &mut self.scratch);
                compress(&mut self.quick, plain, &mut self.other);
                choice.learn(self.other.len(), self.scratch.len());
                if self.other.len() < self.scratch.len() {
                    std::mem::swap(&mut self.scratch, &mut self.other);
                }
            }
        }
        if self.scratch.len() > plain.len() {
            self.scratch.clear();
            self.scratch.push(CODEC_STORED);
            self.scratch.extend_from_slice(plain);
        }
        Staged { chunk, plain_length: plain.len() as u32, payload: &self.scratch }
    }
}

/// How hard a chunk is to be compressed.
#[derive(Debug, Clone)]
pub enum Effort {
    /// Not at all: stored as it is.
    None,
    /// At the compressor's own level.
    Given,
    Quick,
    /// At both; the choice learns which pays.
    Trial(Arc<Choice>),
}

/// Which of two levels pays for the chunks that one thread hands over: those of one kind follow each other, so now and then one is
/// compressed at both, and the better serves until the next trial. Programs and prose are smaller by a tenth at level 3; rows and
/// relation pages, whose matches are long, are larger by as much, and take half as long again.
#[derive(Debug, Default)]
pub struct Choice(Mutex<Chosen>);

#[derive(Debug, Default)]
struct Chosen {
    quick_pays: bool,
    /// Chunks until both are tried again, and between the last two trials.
    left: u32,
    pause: u32,
}

impl Choice {
    /// The longest pause between two trials, in chunks.
    const LONGEST_PAUSE: u32 = 32;

    /// The effort for the next chunk.
    pub fn next(self: &Arc<Choice>) -> Effort {
        let mut chosen = self.lock();
        match chosen.left.checked_sub(1) {
            None => {
                chosen.left = chosen.pause.max(1);
                Effort::Trial(self.clone())
            }
            Some(left) => {
                chosen.left = left;
                if chosen.quick_pays { Effort::Quick } else { Effort::Given }
            }
        }
    }

    /// Learns from the sizes of one chunk at both levels: the thorough one must save a fiftieth to be worth its time.
    fn learn(&self, quick: usize, thorough: usize) {
        let quick_pays = quick.saturating_sub(thorough) <= quick / 50;
        let mut chosen = self.lock();
        let same = quick_pays == chosen.quick_pays;
        chosen.pause = if same { (2 * chosen.pause).clamp(1, Choice::LONGEST_PAUSE) } else { 1 };
        (chosen.quick_pays, chosen.left) = (quick_pays, chosen.pause);
    }

    fn lock(&self) -> MutexGuard<'_, Chosen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// At level 3 with smaller tables than zstd's own, which stay in a core's cache: measured on programs, a tenth faster and 1.3 %
/// larger.
fn context(level: i32) -> Zstd {
    let valid = "a zstd context with valid parameters can be made";
    let mut zstd = Zstd::new(level).expect(valid);
    if level == THOROUGH {
        zstd.set_parameter(CParameter::HashLog(16)).expect(valid);
        zstd.set_parameter(CParameter::ChainLog(14)).expect(valid);
    }
    zstd
}

/// A payload of codec and compressed bytes; longer than the plain bytes if it is of no use, as where there is no memory for it.
fn compress(zstd: &mut Zstd, plain: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.reserve(compress_bound(plain.len()) + 1);
    out.push(CODEC_ZSTD);
    let mut tail = Cursor::new(&mut *out);
    tail.set_position(1);
    if zstd.compress_to_buffer(plain, &mut tail).is_err() {
        out.resize(plain.len() + 1, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn staged(compressor: &mut Compressor, plain: &[u8], effort: &Effort) -> usize {
        compressor.stage(ChunkId::default(), plain, effort).payload.len()
    }

    /// Rows with long matches and noise between, as event logs have.
    fn rows(seed: u32) -> Vec<u8> {
        (0..2000_u32)
            .flat_map(|n| {
                let noise = blake3::hash(&(seed * 2000 + n).to_be_bytes()).to_hex();
                format!(
                    "{n}\tMozilla/5.0 (X11; Linux x86_64)\thttps://www.example.com/search?q={}\t{noise}\n",
                    n % 7
                )
                .into_bytes()
            })
            .collect()
    }

    /// What a parser writes: short matches everywhere.
    fn text(seed: u32) -> Vec<u8> {
        let words: Vec<&str> = include_str!("build.rs").split_inclusive(' ').collect();
        let order = blake3::Hasher::new().update(&seed.to_be_bytes()).finalize_xof();
        let mut order = order;
        let mut out = Vec::new();
        while out.len() < 200_000 {
            let mut draw = [0; 4];
            order.fill(&mut draw);
            out.extend_from_slice(words[u32::from_le_bytes(draw) as usize % words.len()].as_bytes());
        }
        out
    }

    #[test]
    fn without_a_level_each_kind_of_content_is_about_as_small_as_at_the_better_of_both() {
        let (mut automatic, choice) = (Compressor::new(None), Arc::new(Choice::default()));
        for make in [rows as fn(u32) -> Vec<u8>, text] {
            let (mut chosen, mut better) = (0, 0);
            for n in 0..100 {
                let plain = make(n);
                chosen += staged(&mut automatic, &plain, &choice.next());
                better += [QUICK, THOROUGH]
                    .map(|level| staged(&mut Compressor::new(Some(level)), &plain, &Effort::Given))
                    .into_iter()
                    .min()
                    .unwrap();
            }
            assert!(chosen < better + better / 25, "{chosen} bytes where {better} would do");
        }
    }

    #[test]
    fn what_does_not_compress_is_stored_as_it_is() {
        let mut noise = vec![0; 5000];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        for effort in [Effort::Given, Effort::Quick, Effort::Trial(Arc::default())] {
            let mut compressor = Compressor::new(None);
            let payload = compressor.stage(ChunkId::default(), &noise, &effort).payload;
            assert_eq!((payload[0], &payload[1..]), (CODEC_STORED, &noise[..]));
        }
    }
}
