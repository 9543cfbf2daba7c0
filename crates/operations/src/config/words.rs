//! What is wrong with a configuration as YAML, said of the file and not of the parser.
//!
//! The parser knows a place and a rule; its reader sees a line. So the key and the value are taken from the line, and each rule
//! that people really break has a sentence. The others keep the parser's own words.

use super::error::nearest;
use serde_saphyr::{Error as YamlError, Location};

/// The sentence, and the word that was likely meant.
pub(super) fn of(error: &YamlError, text: &str) -> (String, Option<String>) {
    let place = Place::new(text, error.location());
    let shown = error.to_string();
    // The location is shown in front, where editors look for it.
    let said = shown.rsplit_once(" at line ").map_or(shown.as_str(), |(said, _)| said);
    let sentence = match error {
        YamlError::SerdeUnknownField { field, expected, .. } => {
            let meant = nearest(field, expected.iter().copied()).map(str::to_owned);
            return (format!("unknown key `{field}`, expected {}", one_of(expected)), meant);
        }
        YamlError::SerdeUnknownVariant { variant, expected, .. } if variant == "~" || variant.is_empty() => {
            format!("a word is missing here: {}", one_of(expected))
        }
        YamlError::SerdeUnknownVariant { variant, expected, .. } => {
            let meant = nearest(variant, expected.iter().copied()).map(str::to_owned);
            return (format!("unknown word `{variant}`, expected {}", one_of(expected)), meant);
        }
        YamlError::DuplicateMappingKey { key, .. } => match key {
            Some(key) => format!("duplicate key: {key}"),
            None => "a key stands here for the second time".to_owned(),
        },
        YamlError::SerdeMissingField { field, .. } => {
            format!("`{field}` is missing in the group of keys that ends here")
        }
        YamlError::InvalidScalar { ty: "floating point", .. } => place.must_be("a number"),
        YamlError::InvalidScalar { ty: "boolean", .. } | YamlError::InvalidBooleanStrict { .. } => {
            place.must_be("true or false")
        }
        YamlError::InvalidScalar { .. } => place.must_be("a whole number, 0 or more"),
        YamlError::Unexpected { expected: "mapping start", .. } => {
            place.must_be("a group of keys: { key: value }, or a line `key: value` for each")
        }
        YamlError::Unexpected { expected: "sequence start", .. } => {
            place.must_be("a list: [one, two], or a line `- one` for each")
        }
        YamlError::Unexpected { expected: "string scalar" | "scalar", .. } => place.must_be("one value"),
        YamlError::NullIntoString { .. } => "a value is missing here".to_owned(),
        YamlError::Eof { .. } if text.trim().is_empty() => "the file is empty".to_owned(),
        YamlError::Eof { .. } => "the file ends before all that was begun is over".to_owned(),
        YamlError::ExternallyTaggedEnumExpectedScalarOrMapping { .. }
        | YamlError::ExpectedStringKeyForExternallyTaggedEnum { .. } => {
            place.must_be("one kind with its keys, such as { files: { paths: [/srv] } }")
        }
        YamlError::ExpectedMappingEndAfterEnumVariantValue { .. } => {
            "one kind stands here already; a second one needs a name of its own".to_owned()
        }
        YamlError::UnknownAnchor { .. } => place.reserved(),
        YamlError::MultipleDocuments { .. } => {
            "a second document begins here (`---`); one is read".to_owned()
        }
        _ => broken_rule(said, &place).unwrap_or_else(|| said.to_owned()),
    };
    (sentence, None)
}

/// Where and why a file is no text.
pub(super) fn not_text(bytes: &[u8], valid_up_to: usize) -> (u64, u64, String) {
    let before = &bytes[..valid_up_to];
    let line = before.iter().filter(|byte| **byte == b'\n').count() as u64 + 1;
    let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() as u64 + 1;
    (line, column, "this is not UTF-8: save the file as UTF-8, or quote what is meant".to_owned())
}

/// Rules of YAML itself, by the parser's words for them.
fn broken_rule(said: &str, place: &Place<'_>) -> Option<String> {
    let rule = [
        ("tabs disallowed", "a tab stands here; lines are indented by blanks"),
        ("unclosed quote", "a quotation mark is opened here and not closed"),
        (
            "mapping values are not allowed",
            "a `key:` cannot stand here: indent it as the lines around it, or quote a value with `: ` in it",
        ),
        ("untagged enum", ""),
        ("anchor or alias", ""),
        ("unclosed bracket", "a bracket is opened here and not closed"),
    ];
    let (found, sentence) = rule
        .into_iter()
        .find(|(words, _)| said.contains(words))
        .or_else(|| said.contains("mismatched bracket").then_some(("mismatched bracket", "")))?;
    Some(match found {
        // All that may be written in two ways here.
        "untagged enum" => place.must_be("one text, or a list of texts"),
        "anchor or alias" => place.reserved(),
        "mismatched bracket" => match said.split('\'').collect::<Vec<_>>()[..] {
            [_, opened, _, closed, ..] => {
                format!("`{closed}` stands here, but `{opened}` is to be closed first")
            }
            _ => return None,
        },
        _ => sentence.to_owned(),
    })
}

/// What stands where the parser stopped.
struct Place<'t> {
    key: Option<&'t str>,
    value: &'t str,
}

impl<'t> Place<'t> {
    fn new(text: &'t str, location: Option<Location>) -> Place<'t> {
        let nowhere = Place { key: None, value: "" };
        let Some(location) = location else { return nowhere };
        let number = usize::try_from(location.line()).unwrap_or(0).saturating_sub(1);
        let Some(line) = text.lines().nth(number) else { return nowhere };
        let characters = usize::try_from(location.column()).unwrap_or(0).saturating_sub(1);
        let at = line.char_indices().nth(characters).map_or(line.len(), |(at, _)| at);
        let key = line[..at].trim_end().strip_suffix(':').map(|before| {
            let begin = before.rfind([' ', '{', ',', '[']).map_or(0, |begin| begin + 1);
            before[begin..].trim_matches(['"', '\''])
        });
        let rest = &line[at..];
        let end = match rest.chars().next() {
            Some(quote @ ('"' | '\'')) => rest[1..].find(quote).map(|end| end + 2),
            Some('{') => rest.find('}').map(|end| end + 1),
            Some('[') => rest.find(']').map(|end| end + 1),
            _ => rest.find([',', '}', ']', '#']),
        };
        Place { key: key.filter(|key| !key.is_empty()), value: rest[..end.unwrap_or(rest.len())].trim() }
    }

    fn must_be(&self, what: &str) -> String {
        let found = match self.value {
            "" => String::new(),
            // A line that goes on below is no value.
            value if value.ends_with(':') => String::new(),
            value if value.starts_with("- ") => ", not a list".to_owned(),
            value if value.chars().count() > 40 => String::new(),
            value => format!(", not `{value}`"),
        };
        match self.key {
            Some(key) => format!("`{key}` must be {what}{found}"),
            None => format!("here must stand {what}{found}"),
        }
    }

    fn reserved(&self) -> String {
        format!("what begins with * or & must stand in quotes: \"{}\"", self.value)
    }
}

fn one_of(words: &[&str]) -> String {
    match words {
        [] => "nothing here".to_owned(),
        [word] => format!("`{word}`"),
        [most @ .., last] => {
            format!("{} or `{last}`", most.iter().map(|w| format!("`{w}`")).collect::<Vec<_>>().join(", "))
        }
    }
}
