//! Streams of a record as readers.

use super::archive::{Archive, Reader};
use mainstay_domain::{
    Failure, Result,
    point::SourceRecord,
    stream::{Content, Piece, Vault},
};
use std::io::{self, BufReader, Read};

/// The bytes of a content, in order. Holes are zeros.
pub struct VaultReader<'a> {
    vault: &'a dyn Vault,
    pieces: Box<dyn Iterator<Item = Result<Piece>> + Send + 'a>,
    chunk: Vec<u8>,
    at: usize,
    /// Zero bytes that are still to come.
    hole: u64,
}

impl<'a> VaultReader<'a> {
    pub fn new(vault: &'a dyn Vault, content: &Content) -> VaultReader<'a> {
        VaultReader { vault, pieces: vault.pieces(content), chunk: Vec::new(), at: 0, hole: 0 }
    }
}

impl Read for VaultReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.at < self.chunk.len() {
                let n = buffer.len().min(self.chunk.len() - self.at);
                buffer[..n].copy_from_slice(&self.chunk[self.at..self.at + n]);
                self.at += n;
                return Ok(n);
            }
            if self.hole > 0 {
                let n = buffer.len().min(usize::try_from(self.hole).unwrap_or(usize::MAX));
                buffer[..n].fill(0);
                self.hole -= n as u64;
                return Ok(n);
            }
            let Some(piece) = self.pieces.next() else { return Ok(0) };
            let piece = piece.map_err(io::Error::other)?;
            match piece.chunk {
                Some(chunk) => {
                    self.chunk = self.vault.get(&chunk).map_err(io::Error::other)?;
                    self.at = 0;
                }
                None => self.hole = piece.bytes,
            }
        }
    }
}

/// The content of a stream that must be there.
pub fn content<'r>(record: &'r SourceRecord, stream: &str) -> Result<&'r Content> {
    record.stream(stream).map(|s| &s.content).ok_or_else(|| {
        Failure::verification(format!("source {} was recorded without its stream {stream}", record.name))
    })
}

/// Opens one of the archives of `pg_dump`.
pub fn open_archive<'a>(
    vault: &'a dyn Vault,
    record: &SourceRecord,
    stream: &str,
) -> Result<(Reader<BufReader<VaultReader<'a>>>, Archive)> {
    let reader = BufReader::with_capacity(1 << 16, VaultReader::new(vault, content(record, stream)?));
    Ok(Reader::open(reader)?)
}

/// Head and table of contents of one of the archives.
pub fn read_archive(vault: &dyn Vault, record: &SourceRecord, stream: &str) -> Result<Archive> {
    Ok(open_archive(vault, record, stream)?.1)
}
