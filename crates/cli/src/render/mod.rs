//! Values as people read them.

pub mod confirm;
pub mod entry;
pub mod failure;
pub mod point;
pub mod table;
pub mod time;

/// `1 file`, `3 files`, `2 repositories`.
pub fn count(number: u64, noun: &str) -> String {
    match (number, noun.strip_suffix('y')) {
        (1, _) => format!("1 {noun}"),
        (n, Some(stem)) => format!("{n} {stem}ies"),
        (n, None) => format!("{n} {noun}s"),
    }
}
