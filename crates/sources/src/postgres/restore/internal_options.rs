//! Takes out of definitions what the server that made them keeps for itself.
//!
//! Some minor releases (PostgreSQL 15.20 is one) count a column's versions among its options, `pg_attver`, which nobody may
//! set. A `pg_dump` of a minor release that does not know it writes `ALTER TABLE … ALTER COLUMN … SET (pg_attver=3)`, and
//! every server refuses the whole definition for it. The count means nothing in another database.

use super::sql::{self, Kind};
use std::{borrow::Cow, ops::Range};

/// Options that only a server sets.
const INTERNAL: [&[u8]; 1] = [b"pg_attver"];

/// The definition without internal options; a statement that sets nothing else goes as a whole.
pub(super) fn without_internal_options(definition: &[u8]) -> Cow<'_, [u8]> {
    let named = |text: &[u8]| INTERNAL.iter().any(|name| text.windows(name.len()).any(|w| w == *name));
    if !named(definition) {
        return Cow::Borrowed(definition);
    }
    // What cannot be cut into statements is no definition of pg_dump's: the server says what is wrong with it.
    let Ok(statements) = sql::statements(definition) else { return Cow::Borrowed(definition) };
    let mut out = Vec::with_capacity(definition.len());
    for statement in statements {
        let cleaned = if named(statement) { cleaned(statement) } else { Some(Cow::Borrowed(statement)) };
        if let Some(statement) = cleaned {
            out.extend_from_slice(&statement);
            out.extend_from_slice(b";\n");
        }
    }
    Cow::Owned(out)
}

/// `None`: the statement would set nothing.
fn cleaned(statement: &[u8]) -> Option<Cow<'_, [u8]>> {
    let Some(options) = column_options(statement) else { return Some(Cow::Borrowed(statement)) };
    let kept: Vec<&[u8]> = statement[options.clone()]
        .split(|b| *b == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|option| !INTERNAL.contains(&option.split(|b| *b == b'=').next().unwrap_or_default()))
        .collect();
    if kept.is_empty() {
        return None;
    }
    let (before, after) = (&statement[..options.start], &statement[options.end..]);
    Some(Cow::Owned([before, &kept.join(&b", "[..]), after].concat()))
}

/// What stands in the parentheses of `ALTER [FOREIGN] TABLE … ALTER COLUMN … SET ( … )`. A column's options are numbers, so
/// no comma stands within one.
fn column_options(statement: &[u8]) -> Option<Range<usize>> {
    let all: Vec<_> = sql::tokens(statement).filter(|(kind, _)| *kind != Kind::Space).collect();
    let word = |at: usize, word: &[u8]| {
        all.get(at).is_some_and(|(kind, range)| {
            *kind == Kind::Name && statement[range.clone()].eq_ignore_ascii_case(word)
        })
    };
    let sign = |at: usize, sign: u8| all.get(at).is_some_and(|(kind, _)| *kind == Kind::Sign(sign));
    if !word(0, b"alter") {
        return None;
    }
    let column = (1..all.len()).find(|at| word(*at, b"alter") && word(at + 1, b"column"))?;
    // ALTER COLUMN name SET ( … )
    let open = column + 4;
    if !word(open - 1, b"set") || !sign(open, b'(') || !sign(all.len() - 1, b')') {
        return None;
    }
    Some(all[open].1.end..all[all.len() - 1].1.start)
}

#[cfg(test)]
mod tests {
    use super::without_internal_options;

    fn cleaned(definition: &str) -> String {
        String::from_utf8(without_internal_options(definition.as_bytes()).into_owned()).expect("text")
    }

    #[test]
    fn a_statement_that_sets_only_what_the_server_keeps_for_itself_goes() {
        let definition = "CREATE TABLE public.t (\n    a integer,\n    \"set\" text\n);\n\
            ALTER TABLE ONLY public.t ALTER COLUMN a SET (pg_attver=2);\n\
            ALTER TABLE ONLY public.t ALTER COLUMN \"set\" SET STORAGE EXTERNAL;\n";
        let expected = "CREATE TABLE public.t (\n    a integer,\n    \"set\" text\n);\n\
            ALTER TABLE ONLY public.t ALTER COLUMN \"set\" SET STORAGE EXTERNAL;\n";
        assert_eq!(cleaned(definition), expected);
    }

    #[test]
    fn options_of_the_user_stay_beside_it() {
        let definition = "ALTER TABLE ONLY public.\"alter column\" ALTER COLUMN a \
            SET (n_distinct=-0.5, pg_attver=2, n_distinct_inherited=10);\n";
        let expected = "ALTER TABLE ONLY public.\"alter column\" ALTER COLUMN a \
            SET (n_distinct=-0.5, n_distinct_inherited=10);\n";
        assert_eq!(cleaned(definition), expected);
    }

    #[test]
    fn what_a_user_named_or_wrote_so_stays_as_it_is() {
        for definition in [
            "CREATE TABLE public.pg_attver (\n    pg_attver integer DEFAULT 1\n);\n",
            "ALTER TABLE ONLY public.t ALTER COLUMN a SET DEFAULT 'SET (pg_attver=1)'::text;\n",
            "ALTER TABLE ONLY public.pg_attver ALTER COLUMN pg_attver SET (n_distinct=5);\n",
        ] {
            assert_eq!(cleaned(definition), definition);
        }
    }
}
