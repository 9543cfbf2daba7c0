//! A list chunk that does not add up to what leads to it is damage, whoever made it.

use mainstay_domain::{
    ChunkId, Failure, Result,
    stream::{Content, KeyOrder, Piece, Vault},
};
use mainstay_repository::stream::Pieces;

/// Every chunk is this one.
struct Always(Vec<u8>);

impl Vault for Always {
    fn get(&self, _: &ChunkId) -> Result<Vec<u8>> {
        Ok(self.0.clone())
    }
    fn pieces<'a>(&'a self, content: &Content) -> Box<dyn Iterator<Item = Result<Piece>> + Send + 'a> {
        Box::new(Pieces::new(self, content))
    }
    fn pieces_from<'a>(
        &'a self,
        content: &Content,
        key: &[u8],
        order: KeyOrder,
    ) -> Box<dyn Iterator<Item = Result<Piece>> + Send + 'a> {
        Box::new(Pieces::from_key(self, content, key, order))
    }
    fn copy(&self, _: &Content, _: &mut dyn std::io::Write) -> Result<u64> {
        Err(Failure::failed("only its pieces are asked for"))
    }
}

fn piece(bytes: u64, rows: u64, digest: u128, key: &[u8]) -> Piece {
    Piece { chunk: Some(ChunkId([1; 32])), bytes, rows, digest, key: key.to_vec(), patch: None }
}

fn walked(list: &[Piece], said: Piece) -> Result<Vec<Piece>> {
    let vault = Always(minicbor::to_vec(list).unwrap());
    vault.pieces(&Content { level: 1, pieces: vec![said] }).collect()
}

#[test]
fn a_list_that_does_not_add_up_is_damage() {
    let list = [piece(3, 1, u128::MAX, b"a"), piece(4, 2, 3, b"b")];
    assert_eq!(walked(&list, piece(7, 3, 2, b"a")).unwrap(), list);
    for wrong in [piece(6, 3, 2, b"a"), piece(7, 2, 2, b"a"), piece(7, 3, 3, b"a"), piece(7, 3, 2, b"b")] {
        let error = walked(&list, wrong).unwrap_err();
        assert_eq!(error.kind, mainstay_domain::Kind::Verification, "{error}");
    }
    assert!(walked(&[], piece(0, 0, 0, b"")).is_err(), "nobody writes an empty list");
    let endless = [piece(u64::MAX, 0, 0, b""), piece(u64::MAX, 0, 0, b"")];
    assert!(walked(&endless, piece(1, 0, 0, b"")).is_err(), "no sum runs over");
}
