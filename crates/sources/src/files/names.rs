//! Names may hold any byte: how they are shown on one line, and how they are typed.
//!
//! What [`show_path`] writes can be typed back wherever a path or a pattern is expected: there, `\xNN` stands for the
//! byte NN and for nothing else, even where the byte alone would be a wildcard. Bytes that are no UTF-8 may also be typed
//! as they are.

use super::FilesError;
use globset::{GlobBuilder, GlobMatcher};
use std::{ffi::OsStr, fmt::Write as _, os::unix::ffi::OsStrExt, path::Path};

/// A path as people can read it, on one line, with nothing lost: control characters, backslashes and bytes that are no
/// UTF-8 are written `\xNN`.
pub fn show_path(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    for part in path.utf8_chunks() {
        for c in part.valid().chars() {
            if c.is_control() || c == '\\' {
                let mut bytes = [0; 4];
                for byte in c.encode_utf8(&mut bytes).bytes() {
                    let _ = write!(text, "\\x{byte:02x}");
                }
            } else {
                text.push(c);
            }
        }
        for byte in part.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// The path of an entry in a list of differences or problems, where nothing would name the root.
pub fn show_at(path: &[u8]) -> String {
    if path.is_empty() { ".".to_owned() } else { show_path(path) }
}

/// What was typed, as it can be shown: as it is, where it is text.
pub fn show_typed(typed: &OsStr) -> String {
    typed.to_str().map_or_else(|| show_path(typed.as_bytes()), str::to_owned)
}

/// Each in quotes, as it was typed or listed.
pub(crate) fn show_all(typed: &[String]) -> String {
    let quoted: Vec<String> = typed.iter().map(|text| format!("\"{text}\"")).collect();
    quoted.join(", ")
}

/// The path that was typed.
pub(crate) fn typed_path(typed: &[u8]) -> Vec<u8> {
    unescape(typed, |path, byte| path.push(byte))
}

/// Without `./` and slashes before it, and without slashes after it.
pub(crate) fn trim(typed: &[u8]) -> &[u8] {
    let mut typed = trim_start(typed);
    while let Some(rest) = typed.strip_suffix(b"/") {
        typed = rest;
    }
    typed
}

/// Without `./` and slashes before it.
pub(crate) fn trim_start(mut typed: &[u8]) -> &[u8] {
    while let Some(rest) = typed.strip_prefix(b"./").or_else(|| typed.strip_prefix(b"/")) {
        typed = rest;
    }
    typed
}

/// Whether wildcards stand in it.
pub(crate) fn has_wildcards(typed: &[u8]) -> bool {
    typed.iter().any(|byte| b"*?[{".contains(byte))
}

/// Whether it means something else than the one path.
pub(crate) fn is_pattern(typed: &[u8]) -> bool {
    // A backslash that is left takes the meaning from the next character, which is for the glob to do.
    has_wildcards(typed) || unescape(typed, |_, _| {}).contains(&b'\\')
}

/// Replaces each `\xNN`; another backslash stays, with what it stands before.
fn unescape(typed: &[u8], mut put: impl FnMut(&mut Vec<u8>, u8)) -> Vec<u8> {
    let mut out = Vec::with_capacity(typed.len());
    let mut at = 0;
    while at < typed.len() {
        let rest = &typed[at..];
        if let Some(byte) = escaped(rest) {
            put(&mut out, byte);
            at += 4;
        } else {
            let taken = if rest[0] == b'\\' { rest.len().min(2) } else { 1 };
            out.extend_from_slice(&rest[..taken]);
            at += taken;
        }
    }
    out
}

/// The byte that `\xNN` at the beginning stands for.
fn escaped(typed: &[u8]) -> Option<u8> {
    let digits = str::from_utf8(typed.strip_prefix(b"\\x")?.get(..2)?).ok()?;
    u8::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'))
}

/// A pattern over paths of any bytes.
#[derive(Debug)]
pub(crate) struct Glob {
    matcher: GlobMatcher,
    /// Pattern and paths are compared with a character for each byte, since the pattern is no UTF-8.
    by_bytes: bool,
}

impl Glob {
    /// `*` stays within one directory, and `**` does not.
    pub fn new(typed: &[u8]) -> Result<Glob, FilesError> {
        let bytes = unescape(typed, |glob, byte| {
            if b"*?[]{},!-\\".contains(&byte) {
                glob.push(b'\\');
            }
            glob.push(byte);
        });
        let text = String::from_utf8(bytes);
        let by_bytes = text.is_err();
        let text = text.unwrap_or_else(|error| spread(error.as_bytes()));
        let glob = GlobBuilder::new(&text).literal_separator(true).backslash_escape(true).build();
        let glob = glob
            .map_err(|error| FilesError::Filter { pattern: show_typed(OsStr::from_bytes(typed)), error })?;
        Ok(Glob { matcher: glob.compile_matcher(), by_bytes })
    }

    pub fn is_match(&self, path: &[u8]) -> bool {
        match self.by_bytes {
            false => self.matcher.is_match(Path::new(OsStr::from_bytes(path))),
            true => self.matcher.is_match(spread(path)),
        }
    }
}

/// A character for each byte.
fn spread(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_shown_on_one_line_and_nothing_is_lost() {
        assert_eq!(show_path("grün/a b".as_bytes()), "grün/a b");
        assert_eq!(show_path(b"a\nb\xff\\c\x1b[31m"), "a\\x0ab\\xff\\x5cc\\x1b[31m");
    }

    #[test]
    fn a_path_that_is_shown_can_be_typed_back() {
        for path in
            [&b"caf\xe9/\xff"[..], b"a\nb", b"back\\slash", b"\\x41", b"\\\\x41", "grün".as_bytes(), b"\x00+"]
        {
            let shown = show_path(path);
            assert_eq!(typed_path(shown.as_bytes()), path, "{shown}");
            assert!(!is_pattern(shown.as_bytes()), "{shown}");
            assert_eq!(typed_path(path).is_empty(), path.is_empty());
        }
        assert_eq!(typed_path(b"\\x4"), b"\\x4", "no byte, no escape");
        assert_eq!(typed_path(b"\\x+1"), b"\\x+1");
    }

    #[test]
    fn an_escaped_byte_in_a_pattern_is_that_byte_and_no_wildcard() {
        for (typed, path, matches) in [
            (&b"*/caf\\xe9.*"[..], &b"a/caf\xe9.txt"[..], true),
            (b"*/caf\xe9.*", b"a/caf\xe9.txt", true),
            (b"*/caf\\xe9.*", "a/café.txt".as_bytes(), false),
            (b"*/caf\\xc3\\xa9.*", "a/café.txt".as_bytes(), true),
            (b"\\x2a.*", b"*.txt", true),
            (b"\\x2a.*", b"a.txt", false),
            (b"a\\x5cb*", b"a\\b.txt", true),
            (b"\\*\\x0a*", b"*\nx", true),
            (b"**/\\xff", b"a/b/\xff", true),
            (b"*\\xff", b"a/\xff", false),
        ] {
            assert!(is_pattern(typed));
            assert_eq!(Glob::new(typed).unwrap().is_match(path), matches, "{}", show_path(typed));
        }
    }
}
