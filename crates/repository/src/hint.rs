//! What this machine last saw of a store's log, kept in the cache: it shortens the search for the head, and shows when a store
//! was rolled back (restored from an old snapshot of itself).
//!
//! One small file for each store: text, `n`, the hash of entry n and the store's incarnation in hexadecimal, and a checksum of
//! them: a flipped bit must not look like a store that was rolled back. It is only a hint: without it nothing is lost but the
//! notice.

use crate::log::Hint;
use mainstay_stores::Store;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The file for a store, named after its address.
fn path_of(cache: &Path, store: &dyn Store) -> PathBuf {
    let address = blake3::hash(store.describe().as_bytes()).to_hex();
    cache.join(format!("head-{}", &address[..16]))
}

pub fn load(cache: Option<&Path>, store: &dyn Store) -> Option<Hint> {
    parse(&fs::read_to_string(path_of(cache?, store)).ok()?)
}

/// What such a file says, if it is whole.
pub fn parse(text: &str) -> Option<Hint> {
    let (text, sum) = text.trim_end().rsplit_once(' ')?;
    if sum != checksum(text) {
        return None;
    }
    let mut words = text.split_whitespace();
    let n = words.next()?.parse().ok()?;
    let mut hash = [0; 32];
    hex::decode_to_slice(words.next()?, &mut hash).ok()?;
    Some(Hint { n, hash, incarnation: words.next()?.parse().ok()? })
}

pub fn text(hint: &Hint) -> String {
    let text = format!("{} {} {}", hint.n, hex::encode(hint.hash), hint.incarnation);
    format!("{text} {}\n", checksum(&text))
}

/// Best effort: a cache that cannot be written only makes the next start slower.
pub fn save(cache: Option<&Path>, store: &dyn Store, hint: &Hint) {
    let Some(cache) = cache else { return };
    let path = path_of(cache, store);
    let temporary = path.with_extension(format!("{}", std::process::id()));
    let written = fs::write(&temporary, text(hint)).and_then(|()| fs::rename(&temporary, &path));
    if written.is_err() {
        drop(fs::remove_file(&temporary));
    }
}

fn checksum(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex()[..16].to_owned()
}
