//! Walking a content's pieces in order, from the beginning or from a key, reading list chunks as they are reached.

use super::decode_list;
use mainstay_domain::{
    Failure, Result,
    stream::{Content, KeyOrder, Piece, Vault},
};
use std::cmp::Ordering;

/// More levels than any stream of this writer can need (4,096⁶ pieces): a list that contains itself must end somewhere.
const MAX_LEVELS: u8 = 6;

/// The level-0 pieces of a content.
pub struct Pieces<'v> {
    vault: &'v dyn Vault,
    /// What is still to be visited at each level, the next one last.
    stack: Vec<(u8, Piece)>,
    from: Option<(Vec<u8>, KeyOrder)>,
    failed: bool,
}

impl<'v> Pieces<'v> {
    pub fn new(vault: &'v dyn Vault, content: &Content) -> Pieces<'v> {
        let mut walk = Pieces { vault, stack: Vec::new(), from: None, failed: false };
        walk.expand(content.level, content.pieces.clone());
        walk
    }

    /// Begins at the last piece whose key is not after `key`.
    pub fn from_key(vault: &'v dyn Vault, content: &Content, key: &[u8], order: KeyOrder) -> Pieces<'v> {
        let mut walk = Pieces { vault, stack: Vec::new(), from: Some((key.to_vec(), order)), failed: false };
        walk.expand(content.level, content.pieces.clone());
        walk
    }

    fn expand(&mut self, level: u8, mut pieces: Vec<Piece>) {
        if let Some((key, order)) = &self.from {
            let after = pieces.partition_point(|piece| order(&piece.key, key) != Ordering::Greater);
            pieces.drain(..after.saturating_sub(1));
            if level == 0 {
                self.from = None;
            }
        }
        self.stack.extend(pieces.into_iter().rev().map(|piece| (level, piece)));
    }

    fn descend(&mut self, level: u8, list: &Piece) -> Result<()> {
        let chunk = list.chunk.ok_or_else(|| Failure::verification("a list of chunks has a hole in it"))?;
        if level > MAX_LEVELS {
            return Err(Failure::verification(format!("list chunk {} is nested too deeply", chunk.short())));
        }
        let bytes = self.vault.get(&chunk)?;
        let malformed =
            |why: &str| Failure::verification(format!("list chunk {} is malformed: {why}", chunk.short()));
        let pieces = decode_list(&bytes).map_err(|error| malformed(&error.to_string()))?;
        let below = Content { level: level - 1, pieces };
        if (below.bytes(), below.rows(), below.digest()) != (list.bytes, list.rows, list.digest) {
            return Err(malformed("it does not span the bytes and rows that it should"));
        }
        if below.pieces.first().is_none_or(|first| first.key != list.key) {
            return Err(malformed("it does not begin where it should"));
        }
        self.expand(below.level, below.pieces);
        Ok(())
    }
}

impl Iterator for Pieces<'_> {
    type Item = Result<Piece>;

    fn next(&mut self) -> Option<Result<Piece>> {
        while !self.failed {
            match self.stack.pop()? {
                (0, piece) => return Some(Ok(piece)),
                (level, list) => {
                    if let Err(error) = self.descend(level, &list) {
                        self.failed = true;
                        return Some(Err(error));
                    }
                }
            }
        }
        None
    }
}
