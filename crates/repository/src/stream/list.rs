//! Long lists of pieces as list chunks, level upon level.

use mainstay_domain::{
    ChunkId, Result,
    stream::{Content, Piece},
};

/// Pieces that a content holds itself; more of them become a list chunk.
const INLINE: usize = 64;
/// A list chunk is cut after a piece whose id says so, so that equal stretches of lists are equal chunks.
const CUT_MODULO: u16 = 512;
const LIST_MINIMUM: usize = 128;
const LIST_MAXIMUM: usize = 4096;

/// Collects the pieces of one stream. `store` puts a list chunk and returns its id.
pub struct ListBuilder<F> {
    levels: Vec<Vec<Piece>>,
    store: F,
}

impl<F: FnMut(Vec<u8>) -> Result<ChunkId>> ListBuilder<F> {
    pub fn new(store: F) -> Self {
        ListBuilder { levels: vec![Vec::new()], store }
    }

    pub fn push(&mut self, piece: Piece) -> Result<()> {
        self.push_at(0, piece)
    }

    fn push_at(&mut self, level: usize, piece: Piece) -> Result<()> {
        if level == self.levels.len() {
            self.levels.push(Vec::new());
        }
        let pieces = &mut self.levels[level];
        let marked = piece.chunk.is_some_and(|id| u16::from_be_bytes([id.0[0], id.0[1]]) % CUT_MODULO == 0);
        pieces.push(piece);
        if (marked && pieces.len() >= LIST_MINIMUM) || pieces.len() >= LIST_MAXIMUM {
            self.cut(level)
        } else {
            Ok(())
        }
    }

    /// Turns what level `level` holds into one list chunk.
    fn cut(&mut self, level: usize) -> Result<()> {
        let mut pieces = std::mem::take(&mut self.levels[level]);
        let chunk = (self.store)(encode_list(&pieces))?;
        let list = Piece {
            chunk: Some(chunk),
            bytes: pieces.iter().map(|p| p.bytes).sum(),
            rows: pieces.iter().map(|p| p.rows).sum(),
            digest: pieces.iter().fold(0, |sum, p| sum.wrapping_add(p.digest)),
            key: std::mem::take(&mut pieces[0].key),
            patch: None,
        };
        self.push_at(level + 1, list)
    }

    pub fn finish(mut self) -> Result<Content> {
        let mut level = 0;
        loop {
            let top = level + 1 == self.levels.len();
            if top && self.levels[level].len() <= INLINE {
                return Ok(Content { level: level as u8, pieces: self.levels.swap_remove(level) });
            }
            if !self.levels[level].is_empty() {
                self.cut(level)?;
            }
            level += 1;
        }
    }
}

fn encode_list(pieces: &[Piece]) -> Vec<u8> {
    minicbor::to_vec(pieces).expect("writing to a Vec cannot fail")
}

pub fn decode_list(bytes: &[u8]) -> Result<Vec<Piece>, minicbor::decode::Error> {
    minicbor::decode(bytes)
}
