//! Just enough of SQL's lexical rules to cut a script into statements and to give tables another name in it.
//!
//! The text is what `pg_dump` and `pg_dumpall` write: `standard_conforming_strings` on, every name qualified by its schema
//! because the search path is empty. Quoted text, dollar quotes and comments are passed over whole, so nothing inside a
//! value or a function's body is ever taken for SQL. Bytes above 127 belong to names, in every encoding a server may have.

use std::{borrow::Cow, collections::HashMap, ops::Range};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A name or a keyword, quoted or not.
    Name,
    /// `'…'` without escapes: a candidate for a `regclass` value.
    Plain,
    /// Any other quoted text: `E'…'`, `U&'…'`, `$$…$$`.
    Text,
    /// White space and comments.
    Space,
    /// One byte of anything else.
    Sign(u8),
}

/// Cuts text into tokens that together are the text.
pub(super) struct Tokens<'a> {
    text: &'a [u8],
    at: usize,
}

impl Iterator for Tokens<'_> {
    type Item = (Kind, Range<usize>);

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.at;
        let rest = &self.text[start..];
        let (kind, length) = match (*rest.first()?, rest.get(1)) {
            (b'\'', _) => (Kind::Plain, quoted(rest, b'\'', false)),
            (b'"', _) => (Kind::Name, quoted(rest, b'"', false)),
            (b'e' | b'E', Some(b'\'')) => (Kind::Text, 1 + quoted(&rest[1..], b'\'', true)),
            (b'u' | b'U', Some(b'&')) if matches!(rest.get(2), Some(b'\'')) => {
                (Kind::Text, 2 + quoted(&rest[2..], b'\'', false))
            }
            (b'$', _) => match dollar_quoted(rest) {
                Some(length) => (Kind::Text, length),
                None => (Kind::Sign(b'$'), 1),
            },
            (b'-', Some(b'-')) => (Kind::Space, rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len())),
            (b'/', Some(b'*')) => (Kind::Space, comment(rest)),
            (b, _) if b.is_ascii_whitespace() => {
                (Kind::Space, rest.iter().take_while(|b| b.is_ascii_whitespace()).count())
            }
            (b, _) if begins_name(b) => (Kind::Name, rest.iter().take_while(|b| in_name(**b)).count()),
            (b, _) if b.is_ascii_digit() => {
                // A number; letters that follow belong to it, so that `1e5` is no name.
                (Kind::Sign(b'0'), rest.iter().take_while(|b| in_name(**b)).count())
            }
            (b, _) => (Kind::Sign(b), 1),
        };
        self.at += length;
        Some((kind, start..self.at))
    }
}

pub(super) fn tokens(text: &[u8]) -> Tokens<'_> {
    Tokens { text, at: 0 }
}

fn begins_name(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn in_name(byte: u8) -> bool {
    begins_name(byte) || byte.is_ascii_digit() || byte == b'$'
}

/// Length of quoted text, both quotes included; to the end if it is not closed.
fn quoted(text: &[u8], quote: u8, escapes: bool) -> usize {
    let mut at = 1;
    while at < text.len() {
        match text[at] {
            b'\\' if escapes => at += 2,
            b if b == quote && text.get(at + 1) == Some(&quote) => at += 2,
            b if b == quote => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

/// Length of `$tag$ … $tag$`; `None` if this dollar begins none.
fn dollar_quoted(text: &[u8]) -> Option<usize> {
    let tag_end = 1 + text[1..].iter().position(|b| *b == b'$')?;
    let tag = &text[1..tag_end];
    if tag.first().is_some_and(u8::is_ascii_digit) || !tag.iter().all(|b| in_name(*b) && *b != b'$') {
        return None;
    }
    let mark = &text[..=tag_end];
    let mut at = mark.len();
    while at < text.len() {
        at += text[at..].iter().position(|b| *b == b'$')?;
        if text[at..].starts_with(mark) {
            return Some(at + mark.len());
        }
        at += 1;
    }
    None
}

/// Length of a comment, comments within it included.
fn comment(text: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        match text.get(at..at + 2) {
            Some(b"/*") => (depth, at) = (depth + 1, at + 2),
            Some(b"*/") => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// A line that only `psql` understands stands where a statement should begin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a command for psql stands among the statements: {0}")]
pub struct ShellCommand(pub String);

/// The statements of a script, without the semicolons that end them.
///
/// Commands for `psql` are never obeyed: `\restrict` and `\unrestrict`, which only fence such commands off, and `\connect`
/// to the maintenance database, with which `pg_dumpall` begins a part, are passed over; any other is an error.
pub fn statements(script: &[u8]) -> Result<Vec<&[u8]>, ShellCommand> {
    let mut found = Vec::new();
    let mut begin: Option<usize> = None;
    let mut depth = 0;
    let mut all = tokens(script);
    while let Some((kind, range)) = all.next() {
        match kind {
            Kind::Space => {}
            Kind::Sign(b'\\') if begin.is_none() => {
                let line = script[range.start..].split(|b| *b == b'\n').next().unwrap_or_default();
                let harmless = [&b"\\restrict "[..], b"\\unrestrict ", b"\\connect "];
                if !harmless.iter().any(|h| line.starts_with(h)) {
                    return Err(ShellCommand(String::from_utf8_lossy(line).into_owned()));
                }
                all.at = range.start + line.len();
            }
            Kind::Sign(b';') if depth == 0 => {
                if let Some(start) = begin.take() {
                    found.push(script[start..range.start].trim_ascii_end());
                }
            }
            _ => {
                begin.get_or_insert(range.start);
                match kind {
                    Kind::Sign(b'(') => depth += 1,
                    Kind::Sign(b')') => depth -= 1,
                    _ => {}
                }
            }
        }
    }
    found.extend(begin.map(|start| script[start..].trim_ascii_end()));
    Ok(found)
}

/// The words with which a statement begins, in upper case; names and values end them.
pub fn leading_words(statement: &[u8], most: usize) -> Vec<String> {
    tokens(statement)
        .filter(|(kind, _)| *kind != Kind::Space)
        .take(most)
        .map_while(|(kind, range)| match kind {
            Kind::Name if statement[range.start] != b'"' => {
                Some(String::from_utf8_lossy(&statement[range]).to_ascii_uppercase())
            }
            _ => None,
        })
        .collect()
}

/// The statement without the words given (unquoted, any case).
pub fn without_words(statement: &[u8], words: &[&str]) -> Vec<u8> {
    let mut out = Vec::with_capacity(statement.len());
    for (kind, range) in tokens(statement) {
        let token = &statement[range];
        if kind != Kind::Name || !words.iter().any(|w| token.eq_ignore_ascii_case(w.as_bytes())) {
            out.extend_from_slice(token);
        }
    }
    out
}

/// The statement up to the given sequence of words.
pub fn before_words<'a>(statement: &'a [u8], words: &[&str]) -> &'a [u8] {
    let all: Vec<_> = tokens(statement).filter(|(kind, _)| *kind != Kind::Space).collect();
    let found = all.windows(words.len()).find(|window| {
        window.iter().zip(words).all(|((kind, range), word)| {
            *kind == Kind::Name && statement[range.clone()].eq_ignore_ascii_case(word.as_bytes())
        })
    });
    found.map_or(statement, |window| statement[..window[0].1.start].trim_ascii_end())
}

/// The first name (quoted or not, after quoting is undone) behind the given number of tokens.
pub fn name_at(statement: &[u8], position: usize) -> Option<Vec<u8>> {
    let (kind, range) = tokens(statement).filter(|(kind, _)| *kind != Kind::Space).nth(position)?;
    (kind == Kind::Name).then(|| plain_name(&statement[range]).into_owned())
}

/// The name behind `word = schema.`.
pub fn name_after(statement: &[u8], word: &[u8]) -> Option<Vec<u8>> {
    let all: Vec<_> = tokens(statement).filter(|(kind, _)| *kind != Kind::Space).collect();
    let at = all.iter().position(|(_, range)| statement[range.clone()].eq_ignore_ascii_case(word))?;
    match all.get(at + 1..at + 5)? {
        [(Kind::Sign(b'='), _), (Kind::Name, _), (Kind::Sign(b'.'), _), (Kind::Name, name)] => {
            Some(plain_name(&statement[name.clone()]).into_owned())
        }
        _ => None,
    }
}

/// The names in the first pair of parentheses: `(id, "At") INCLUDE (x)`.
pub fn names_in_parentheses(text: &[u8]) -> Vec<String> {
    tokens(text)
        .skip_while(|(kind, _)| *kind != Kind::Sign(b'('))
        .take_while(|(kind, _)| *kind != Kind::Sign(b')'))
        .filter(|(kind, _)| *kind == Kind::Name)
        .map(|(_, range)| crate::postgres::wire::text::decode(&plain_name(&text[range])))
        .collect()
}

/// A name as the catalogue holds it: quotes undone, or folded to lower case.
fn plain_name(token: &[u8]) -> Cow<'_, [u8]> {
    match token {
        [b'"', inner @ .., b'"'] => undoubled(inner, b'"'),
        _ if token.iter().any(u8::is_ascii_uppercase) => Cow::Owned(token.to_ascii_lowercase()),
        _ => Cow::Borrowed(token),
    }
}

/// A name in double quotes.
pub fn quote(name: &[u8]) -> Vec<u8> {
    [b"\"", &doubled(name, b'"')[..], b"\""].concat()
}

fn doubled(text: &[u8], quote: u8) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for byte in text {
        out.extend(std::iter::repeat_n(*byte, if *byte == quote { 2 } else { 1 }));
    }
    out
}

fn undoubled(text: &[u8], quote: u8) -> Cow<'_, [u8]> {
    if !text.contains(&quote) {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        out.push(*byte);
        if *byte == quote {
            bytes.next();
        }
    }
    Cow::Owned(out)
}

/// Schema and name of an object, as the catalogue holds them.
type Object = (Vec<u8>, Vec<u8>);

/// Which objects get which other schema and name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Renames {
    objects: HashMap<Object, Object>,
    /// Schemas that are renamed as a whole.
    schemas: HashMap<Vec<u8>, Vec<u8>>,
}

impl Renames {
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.schemas.is_empty()
    }

    pub fn object(&mut self, from: (&[u8], &[u8]), to: (&[u8], &[u8])) {
        self.objects.insert((from.0.to_vec(), from.1.to_vec()), (to.0.to_vec(), to.1.to_vec()));
    }

    pub fn schema(&mut self, from: &[u8], to: &[u8]) {
        self.schemas.insert(from.to_vec(), to.to_vec());
    }

    /// Where an object goes.
    pub fn of(&self, schema: &[u8], name: &[u8]) -> Object {
        let key = (schema.to_vec(), name.to_vec());
        self.objects.get(&key).cloned().unwrap_or(key)
    }

    /// What a schema is called.
    pub fn of_schema(&self, schema: &[u8]) -> Vec<u8> {
        self.schemas.get(schema).cloned().unwrap_or_else(|| schema.to_vec())
    }

    /// The text with every `schema.name` of a renamed object replaced, also within literals that hold nothing else
    /// (`'public.orders_id_seq'::regclass`); and every renamed schema behind the word `SCHEMA`. What lies in a renamed schema
    /// and was not renamed itself (the members of an extension) keeps its name. Function bodies are left as they are.
    ///
    /// A relation's alias that is spelled like a renamed schema would be mistaken for it; the server then refuses the
    /// statement, because no relation of that name is in its FROM.
    ///
    /// `schema` is that of the entry: an index or constraint of a renamed table is named without it.
    pub fn apply<'a>(&self, text: &'a [u8], schema: &[u8]) -> Cow<'a, [u8]> {
        if self.is_empty() {
            return Cow::Borrowed(text);
        }
        let all: Vec<_> = tokens(text).collect();
        let mut out = Vec::with_capacity(text.len() + 64);
        let mut at = 0;
        while at < all.len() {
            let (kind, range) = &all[at];
            let token = &text[range.clone()];
            match kind {
                Kind::Plain => match self.literal(token) {
                    Some(renamed) => out.extend(renamed),
                    None => out.extend_from_slice(token),
                },
                Kind::Name => {
                    let after_dot = at > 0 && matches!(all[at - 1].0, Kind::Sign(b'.'));
                    // A name, or an operator: `public.orders`, `public.=~=`.
                    let second = match (all.get(at + 1), all.get(at + 2)) {
                        (Some((Kind::Sign(b'.'), _)), Some((Kind::Name, second))) if !after_dot => {
                            Some((&text[second.clone()], 1))
                        }
                        (Some((Kind::Sign(b'.'), _)), Some((Kind::Sign(_), first))) if !after_dot => {
                            let signs =
                                all[at + 2..].iter().take_while(|(kind, _)| is_operator(*kind)).count();
                            Some((&text[first.start..first.start + signs], signs))
                        }
                        _ => None,
                    };
                    match second {
                        Some((second, length)) => {
                            let (old_schema, old_name) = (plain_name(token), plain_name(second));
                            let (schema, name) = self.of(&old_schema, &old_name);
                            if *schema == *old_schema && *name == *old_name {
                                out.extend_from_slice(token);
                            } else {
                                out.extend(quote(&schema));
                                out.push(b'.');
                                if *name == *old_name {
                                    out.extend_from_slice(second);
                                } else {
                                    out.extend(quote(&name));
                                }
                                at += 1 + length;
                            }
                        }
                        None => {
                            let name = plain_name(token);
                            let new = match word_before(text, &all[..at]).as_deref() {
                                Some(b"SCHEMA") => self.schemas.get(&*name).cloned(),
                                // CREATE INDEX x, ADD CONSTRAINT x, CLUSTER ON x
                                Some(b"INDEX" | b"CONSTRAINT" | b"ON") if !after_dot => {
                                    Some(self.of(schema, &name).1).filter(|new| *new != *name)
                                }
                                _ => None,
                            };
                            match new {
                                Some(new) => out.extend(quote(&new)),
                                None => out.extend_from_slice(token),
                            }
                        }
                    }
                }
                _ => out.extend_from_slice(token),
            }
            at += 1;
        }
        Cow::Owned(out)
    }

    /// A literal that is nothing but the qualified name of a renamed object.
    fn literal(&self, token: &[u8]) -> Option<Vec<u8>> {
        let inner = undoubled(token.strip_prefix(b"'")?.strip_suffix(b"'")?, b'\'');
        let inner = &*inner;
        let mut parts = tokens(inner);
        let (Some((Kind::Name, first)), Some((Kind::Sign(b'.'), _)), Some((Kind::Name, second)), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return None;
        };
        let (old_schema, old_name) = (plain_name(&inner[first]), plain_name(&inner[second]));
        let (schema, name) = self.of(&old_schema, &old_name);
        if *schema == *old_schema && *name == *old_name {
            return None;
        }
        let qualified = [quote(&schema), b".".to_vec(), quote(&name)].concat();
        Some([b"'", &doubled(&qualified, b'\'')[..], b"'"].concat())
    }
}

fn is_operator(kind: Kind) -> bool {
    matches!(kind, Kind::Sign(sign) if b"+-*/<>=~!@#%^&|`?".contains(&sign))
}

/// The word before the last token, in upper case.
fn word_before(text: &[u8], before: &[(Kind, Range<usize>)]) -> Option<Vec<u8>> {
    let (kind, range) = before.iter().rev().find(|(kind, _)| *kind != Kind::Space)?;
    (*kind == Kind::Name).then(|| text[range.clone()].to_ascii_uppercase())
}

/// The statement with the name behind its first `DATABASE` replaced.
pub fn name_database(statement: &[u8], name: &[u8]) -> Vec<u8> {
    let all: Vec<_> = tokens(statement).filter(|(kind, _)| *kind != Kind::Space).collect();
    // ALTER ROLE x IN DATABASE y: a role may itself be named so.
    let from = if leading_words(statement, 2).get(1).is_some_and(|word| word == "ROLE") { 3 } else { 0 };
    let database = all.iter().skip(from).position(|(kind, range)| {
        *kind == Kind::Name && statement[range.clone()].eq_ignore_ascii_case(b"database")
    });
    match database.and_then(|at| all.get(from + at + 1)) {
        Some((Kind::Name, range)) => {
            [&statement[..range.start], &quote(name)[..], &statement[range.end..]].concat()
        }
        _ => statement.to_vec(),
    }
}

#[cfg(test)]
mod tests;
