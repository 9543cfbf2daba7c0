//! Values as people read them.

pub mod confirm;
pub mod entry;
pub mod failure;
pub mod point;
pub mod table;
pub mod time;

/// Text that others chose (a name, a label, a reason), which must not break a line or tell the terminal what to do.
pub fn plain(text: &str) -> String {
    let shown = |c: char| match c {
        c if c.is_control() => format!("\\x{:02x}", u32::from(c)),
        c => c.to_string(),
    };
    text.chars().map(shown).collect()
}

/// `1 file`, `3 files`, `2 repositories`, `2 keys`.
pub fn count(number: u64, noun: &str) -> String {
    match (number, noun.strip_suffix('y')) {
        (1, _) => format!("1 {noun}"),
        (n, Some(stem)) if !stem.ends_with(['a', 'e', 'o', 'u']) => format!("{n} {stem}ies"),
        (n, _) => format!("{n} {noun}s"),
    }
}
