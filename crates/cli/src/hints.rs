//! Every command line that the program tells people to type is one that it understands.

use crate::args::Cli;
use clap::Parser;
use std::{fs, path::Path};

/// The sources of the program, without comments and tests, each string that goes over several lines put together.
fn sources(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.display().to_string();
        if path.is_dir() {
            // What the demo types is run by its own test.
            if !name.ends_with("/demo") && !name.ends_with("/tests") {
                sources(&path, found);
            }
        } else if name.ends_with(".rs") && !name.ends_with("tests.rs") && !name.ends_with("/hints.rs") {
            let text = fs::read_to_string(&path).unwrap();
            let code: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
            let code = code.join("\n").replace("\\\n", "\u{0}");
            let mut whole = String::new();
            for (at, part) in code.split('\u{0}').enumerate() {
                whole.push_str(if at == 0 { part } else { part.trim_start() });
            }
            found.push((name, whole));
        }
    }
}

/// The command lines in a text: what stands between backquotes, or after a colon to the end of the sentence.
fn quoted(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (begin, ends) in [("`mainstay ", &['`'][..]), (": mainstay ", &['"', '`', ';', ')', ',', '\n'])] {
        for (at, _) in text.match_indices(begin) {
            let line = &text[at + begin.len()..];
            let end = line.find(ends).unwrap_or(line.len());
            found.push(line[..end].trim_end_matches('.').to_owned());
        }
    }
    found
}

#[test]
fn every_command_line_that_a_hint_quotes_is_understood() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = Vec::new();
    for krate in fs::read_dir(crates).unwrap() {
        sources(&krate.unwrap().path().join("src"), &mut files);
    }
    let mut lines = 0;
    let mut wrong = Vec::new();
    for (file, text) in &files {
        for line in quoted(text) {
            lines += 1;
            // What is filled in at run time stands for one word; a number where only numbers are.
            let words = ["mainstay"].into_iter().chain(line.split_whitespace());
            if let Err(error) = Cli::try_parse_from(words) {
                let why = error.to_string();
                wrong
                    .push(format!("{file}: mainstay {line}\n    {}", why.lines().next().unwrap_or_default()));
            }
        }
    }
    assert!(lines > 50, "only {lines} command lines were found: are they quoted otherwise now?");
    assert!(wrong.is_empty(), "{} of {lines}:\n{}", wrong.len(), wrong.join("\n"));
}
