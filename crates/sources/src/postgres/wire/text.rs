//! Text from a server as Unicode, and back, without loss.
//!
//! A database in SQL_ASCII holds bytes that nobody ever checked, in its names too. Each byte that is no UTF-8 stands as one
//! character of the private use area (U+F780 to U+F7FF), and becomes that byte again when it goes back to the server. A
//! character of that range that the text had itself is taken for its bytes, so that the way there and back is exact.

use std::borrow::Cow;

/// The character for the byte 0x80; those up to 0xFF follow.
const FIRST: u32 = 0xf780;
const LAST: u32 = 0xf7ff;

/// Bytes as text.
pub fn decode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    let escape = |text: &mut String, bytes: &[u8]| {
        text.extend(bytes.iter().filter_map(|byte| char::from_u32(FIRST + u32::from(*byte) - 0x80)));
    };
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match u32::from(c) {
                FIRST..=LAST => escape(&mut text, c.encode_utf8(&mut [0; 4]).as_bytes()),
                _ => text.push(c),
            }
        }
        escape(&mut text, chunk.invalid());
    }
    text
}

/// The bytes that [`decode`] made this text from.
pub fn encode(text: &str) -> Cow<'_, [u8]> {
    let byte_of = |c: char| match u32::from(c) {
        code @ FIRST..=LAST => u8::try_from(code - FIRST + 0x80).ok(),
        _ => None,
    };
    if !text.chars().any(|c| byte_of(c).is_some()) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut bytes = Vec::with_capacity(text.len());
    for c in text.chars() {
        match byte_of(c) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Cow::Owned(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_string_comes_back_as_it_was() {
        let all: Vec<u8> = (0..=255).collect();
        for bytes in
            [&all[..], b"caf\xe9", "Überfluß".as_bytes(), "\u{f7e9}\u{f780}".as_bytes(), b"\xef\x9e\x80\xff"]
        {
            assert_eq!(encode(&decode(bytes)).as_ref(), bytes);
        }
        assert_eq!(decode("Ключ".as_bytes()), "Ключ");
        assert_ne!(decode(b"caf\xe9"), decode(b"caf\xea"), "two names stay two");
    }
}
