//! Sparse files: what lies on disk becomes chunks, what does not becomes holes, and long lists become list chunks.

use super::read::{SMALL, Source, one_piece};
use mainstay_domain::{
    Result,
    stream::{Content, Piece, Pool, Sink},
};
use rustix::{fs::SeekFrom, io::Errno};
use std::io::Read;

/// Pieces of one list chunk, as in `doc/format.md`, *Streams*.
const LIST: usize = 1000;

/// Stores a file of `size` bytes extent by extent.
pub(crate) fn put(sink: &dyn Sink, source: &mut Source<'_>, size: u64) -> Result<Content> {
    let mut pieces = Pieces::new(sink);
    let mut at = 0;
    while at < size {
        let data = match rustix::fs::seek(source.fd(), SeekFrom::Data(at)) {
            Ok(data) => data.min(size),
            // Nothing but a hole up to the end.
            Err(Errno::NXIO) => size,
            Err(error) => return Err(source.fail(error)),
        };
        if data > at {
            pieces.add(Content { level: 0, pieces: vec![Piece::hole(data - at)] })?;
        }
        at = data;
        if at >= size {
            break;
        }
        let end = match rustix::fs::seek(source.fd(), SeekFrom::Hole(at)) {
            Ok(end) => end.clamp(at, size),
            Err(Errno::NXIO) => break,
            Err(error) => return Err(source.fail(error)),
        };
        if let Err(error) = rustix::fs::seek(source.fd(), SeekFrom::Start(at)) {
            return Err(source.fail(error));
        }
        source.limit(end - at);
        let content = if end - at <= SMALL {
            let mut bytes = Vec::with_capacity((end - at) as usize);
            source.read_to_end(&mut bytes).map_err(|error| {
                mainstay_domain::Failure::failed("a file could not be read").caused_by(error)
            })?;
            match bytes.len() as u64 {
                0 => break,
                length => one_piece(sink.put(Pool::Data, &bytes)?, length),
            }
        } else {
            sink.put_reader(Pool::Data, source)?
        };
        let length = content.bytes();
        pieces.add(content)?;
        if length < end - at {
            break; // it was truncated meanwhile; the look afterwards will tell
        }
        at = end;
    }
    pieces.finish()
}

/// Contents one after the other, made into one. Those of a higher level than the rest lift the rest to their own.
struct Pieces<'a> {
    sink: &'a dyn Sink,
    content: Content,
}

impl<'a> Pieces<'a> {
    fn new(sink: &'a dyn Sink) -> Self {
        Pieces { sink, content: Content::default() }
    }

    fn add(&mut self, mut next: Content) -> Result<()> {
        while self.content.level < next.level {
            self.content = lift(self.sink, std::mem::take(&mut self.content))?;
        }
        while next.level < self.content.level {
            next = lift(self.sink, next)?;
        }
        self.content.pieces.append(&mut next.pieces);
        if self.content.pieces.len() > LIST * 16 {
            self.content = lift(self.sink, std::mem::take(&mut self.content))?;
        }
        Ok(())
    }

    /// A handful of pieces stays in the entry; more are put into lists.
    fn finish(mut self) -> Result<Content> {
        while self.content.pieces.len() > 32 {
            self.content = lift(self.sink, self.content)?;
        }
        Ok(self.content)
    }
}

fn lift(sink: &dyn Sink, content: Content) -> Result<Content> {
    let mut lifted = Content { level: content.level + 1, pieces: Vec::new() };
    for pieces in content.pieces.chunks(LIST) {
        let chunk = minicbor::to_vec(pieces).expect("writing to a Vec cannot fail");
        let bytes = pieces.iter().map(|piece| piece.bytes).sum();
        lifted.pieces.push(Piece::plain(sink.put(Pool::Tree, &chunk)?, bytes));
    }
    Ok(lifted)
}
