//! Streams: cutting bytes into chunks, lists of chunks into list chunks, and walking them again (`doc/format.md` §9).

mod chunker;
mod list;
mod walk;

pub use chunker::{Chunker, Chunking};
pub use list::{ListBuilder, decode_list};
pub use walk::Pieces;
