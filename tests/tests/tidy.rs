//! What reviewers would otherwise have to look for in every change: the direction of dependencies, headers, sizes of
//! files, words that must not be left behind, and documents that nobody can find.

use mainstay_tests::workspace;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Each crate, and the crates of ours that it may depend on. A dependency runs downwards only.
const LAYERS: [(&str, &[&str]); 7] = [
    ("domain", &[]),
    ("stores", &["domain"]),
    ("keys", &["domain"]),
    ("repository", &["domain", "stores", "keys"]),
    ("sources", &["domain"]),
    ("operations", &["domain", "stores", "keys", "repository", "sources"]),
    ("cli", &["domain", "stores", "keys", "repository", "sources", "operations"]),
];

/// A file longer than this is two things.
const MAX_LINES: usize = 900;

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every file below `folder` whose name ends so, in order.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.expect("a folder of the workspace can be listed").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn shown(path: &Path) -> String {
    path.strip_prefix(workspace()).unwrap_or(path).display().to_string()
}

/// Every Rust file of the workspace, with its text.
fn rust_files() -> Vec<(String, String)> {
    let root = workspace();
    ["crates", "tests", "benches"]
        .iter()
        .flat_map(|folder| files(&root.join(folder), "rs"))
        .map(|path| (shown(&path), read(&path)))
        .collect()
}

/// The part of a file that ships: what stands before its test module. Tests, examples and benches have none.
fn shipped<'a>(path: &str, text: &'a str) -> &'a str {
    let beside = ["/tests/", "/examples/", "/benches/"].iter().any(|folder| path.contains(folder));
    let of_tests =
        beside || path.ends_with("/tests.rs") || path.starts_with("tests/") || path.starts_with("benches/");
    if of_tests { "" } else { text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or(text) }
}

fn none(found: Vec<String>, rule: &str) {
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}

/// Lines of `text` that hold `needle` outside a comment.
fn lines_with<'a>(text: &'a str, needle: &'a str) -> impl Iterator<Item = usize> + 'a {
    text.lines()
        .enumerate()
        .filter(move |(_, line)| line.contains(needle) && !line.trim_start().starts_with("//"))
        .map(|(number, _)| number + 1)
}

/// The names in one `[section]` of a Cargo.toml that begin with `mainstay-`, without that prefix.
fn own_dependencies(manifest: &str, section: &str) -> Vec<String> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line.trim() == format!("[{section}]");
        } else if inside && let Some(rest) = line.strip_prefix("mainstay-") {
            found.push(rest.split(['.', ' ', '=']).next().unwrap_or(rest).to_owned());
        }
    }
    found
}

#[test]
fn dependencies_between_crates_run_downwards_only() {
    let layers: BTreeMap<_, _> = LAYERS.into_iter().collect();
    let mut found = Vec::new();
    for entry in fs::read_dir(workspace().join("crates")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let Some(allowed) = layers.get(name.as_str()) else {
            found.push(format!("crates/{name} has no place in LAYERS of tests/tests/tidy.rs"));
            continue;
        };
        for dependency in own_dependencies(&read(&path.join("Cargo.toml")), "dependencies") {
            if !allowed.contains(&dependency.as_str()) {
                found.push(format!("crates/{name} depends on crates/{dependency}"));
            }
        }
    }
    none(found, "dependencies that run upwards or sideways");
}

#[test]
fn every_crate_inherits_the_lints_of_the_workspace() {
    let mut manifests = files(&workspace().join("crates"), "toml");
    manifests.push(workspace().join("tests/Cargo.toml"));
    let found = manifests
        .into_iter()
        .filter(|path| path.file_name().is_some_and(|name| name == "Cargo.toml"))
        .filter(|path| !read(path).contains("[lints]\nworkspace = true"))
        .map(|path| shown(&path))
        .collect();
    none(found, "without `[lints] workspace = true`");
}

#[test]
fn only_the_command_line_prints() {
    let mut found = Vec::new();
    for (path, text) in rust_files().iter().filter(|(path, _)| !path.starts_with("crates/cli/")) {
        for word in ["println!", "eprintln!", "print!(", "dbg!"] {
            found.extend(lines_with(shipped(path, text), word).map(|line| format!("{path}:{line}: {word}")));
        }
    }
    none(found, "printing outside crates/cli");
}

#[test]
fn every_file_begins_by_saying_what_it_is() {
    let found =
        rust_files().into_iter().filter(|(_, text)| !text.starts_with("//!")).map(|(path, _)| path).collect();
    none(found, "without a `//!` header on the first line");
}

#[test]
fn no_file_grows_beyond_what_can_be_read_at_once() {
    let found = rust_files()
        .into_iter()
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > MAX_LINES)
        .map(|(path, lines)| format!("{path}: {lines} lines"))
        .collect();
    none(found, "longer than 900 lines");
}

#[test]
fn nothing_is_left_for_later() {
    // Written in two halves, so that this file does not find itself.
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
    ];
    let mut found = Vec::new();
    for (path, text) in rust_files() {
        for (number, line) in text.lines().enumerate() {
            if words.iter().any(|word| line.contains(word)) {
                found.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    none(found, "left for later");
}

#[test]
fn no_path_of_one_persons_machine_is_written_down() {
    let root = workspace();
    let homes = [concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/wo", "rk/"), concat!("/Use", "rs/")];
    let mut found = Vec::new();
    let texts = ["rs", "md", "toml", "sh", "py", "sql", "yaml"].iter().flat_map(|extension| {
        ["crates", "tests", "benches", "doc", "scripts", "tools", "packaging", "examples"]
            .iter()
            .flat_map(move |folder| files(&workspace().join(folder), extension))
    });
    let top = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "Makefile"];
    for path in texts.chain(top.iter().map(|name| root.join(name)).filter(|path| path.exists())) {
        let text = read(&path);
        for home in homes {
            let places = text.lines().enumerate().filter(|(_, line)| line.contains(home));
            found.extend(
                places.map(|(number, line)| format!("{}:{}: {}", shown(&path), number + 1, line.trim())),
            );
        }
    }
    none(found, "absolute paths of a home or work folder");
}

#[test]
fn every_page_can_be_reached_from_the_readme() {
    let root = workspace();
    let mut reached = Vec::new();
    let mut pages = vec![root.join("README.md")];
    while let Some(page) = pages.pop() {
        if reached.contains(&page) || !page.exists() {
            continue;
        }
        let folder = page.parent().unwrap().to_owned();
        for target in links(&read(&page)) {
            match folder.join(&target).canonicalize() {
                // A link to a folder leads to what is in it.
                Ok(target) if target.is_dir() => pages.extend(files(&target, "md")),
                Ok(target) if target.extension().is_some_and(|e| e == "md") => pages.push(target),
                _ => {}
            }
        }
        reached.push(page);
    }
    let reached: Vec<_> = reached.iter().filter_map(|page| page.canonicalize().ok()).collect();
    let found = files(&root.join("doc"), "md")
        .into_iter()
        .filter(|page| !reached.contains(&page.canonicalize().unwrap()))
        .map(|page| shown(&page))
        .collect();
    none(found, "pages that no link leads to");
}

#[test]
fn links_between_pages_lead_somewhere() {
    let root = workspace();
    let mut pages = files(&root.join("doc"), "md");
    pages.extend(
        fs::read_dir(&root)
            .unwrap()
            .map(|e| e.unwrap().path())
            .filter(|p| p.extension().is_some_and(|e| e == "md")),
    );
    let mut found = Vec::new();
    for page in pages {
        let folder = page.parent().unwrap();
        for target in links(&read(&page)) {
            if !folder.join(&target).exists() {
                found.push(format!("{} -> {target}", shown(&page)));
            }
        }
    }
    none(found, "links that lead nowhere");
}

/// The local files that a Markdown page links to: `[text](target)`, without anchors.
fn links(text: &str) -> Vec<String> {
    text.match_indices("](")
        .filter_map(|(at, _)| text[at + 2..].split(')').next())
        .map(|target| target.split('#').next().unwrap_or_default().to_owned())
        .filter(|target| {
            !target.is_empty() && !target.contains("://") && !target.contains(char::is_whitespace)
        })
        .collect()
}
