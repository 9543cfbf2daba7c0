//! Which part of a listing is meant: paths and globs, and the reading of no more of the listing than they need.
//!
//! A pattern names a path from the source's root (or the path on the machine where it was captured), or is a glob in
//! which `*` stays within one directory and `**` does not. What it matches is meant with everything below it.

use super::{
    FilesError,
    browse::{Browse, Step, lookup},
    facts::Facts,
    names::{self, Glob},
};
use mainstay_domain::{
    Result,
    listing::{self, FileKind},
    stream::{Content, Vault},
};
use std::{
    collections::{BTreeMap, VecDeque},
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    sync::atomic::{AtomicBool, Ordering},
};

#[derive(Debug)]
struct Pattern {
    /// As it was typed.
    shown: String,
    /// The path that it names if it is none.
    path: Vec<u8>,
    glob: Option<Glob>,
    /// The directory outside of which nothing can match; for a plain path, the path.
    prefix: Vec<u8>,
    /// It has named something.
    met: AtomicBool,
}

impl Pattern {
    fn names(&self, path: &[u8]) -> bool {
        let named = path == self.path || self.glob.as_ref().is_some_and(|glob| glob.is_match(path));
        if named {
            self.met.store(true, Ordering::Relaxed);
        }
        named
    }
}

/// Patterns, compiled. Without any, everything is meant.
#[derive(Debug)]
pub(crate) struct Filter {
    patterns: Vec<Pattern>,
}

impl Filter {
    pub fn new(patterns: &[OsString], facts: &Facts) -> std::result::Result<Filter, FilesError> {
        let patterns =
            patterns.iter().map(|text| Pattern::new(text, facts)).collect::<std::result::Result<_, _>>()?;
        Ok(Filter { patterns })
    }

    pub fn is_everything(&self) -> bool {
        self.patterns.iter().all(|pattern| pattern.path.is_empty())
    }

    /// The first pattern that is no plain path.
    pub fn first_glob(&self) -> Option<String> {
        let glob = self.patterns.iter().find(|pattern| pattern.glob.is_some())?;
        Some(glob.shown.clone())
    }

    /// Whether a pattern names `path` itself (not only a directory above it).
    pub fn matches(&self, path: &[u8]) -> bool {
        // Each is asked, so that those that name nothing are known.
        self.is_everything() || self.patterns.iter().filter(|pattern| pattern.names(path)).count() > 0
    }

    /// All patterns.
    pub fn shown(&self) -> Vec<String> {
        self.patterns.iter().map(|pattern| pattern.shown.clone()).collect()
    }

    /// Patterns that have named nothing of all that was asked for so far.
    pub fn unmet(&self) -> Vec<String> {
        let unmet = self
            .patterns
            .iter()
            .filter(|pattern| !pattern.path.is_empty() && !pattern.met.load(Ordering::Relaxed));
        unmet.map(|pattern| pattern.shown.clone()).collect()
    }

    /// Whether a pattern names `path` or a directory above it.
    pub fn covers(&self, path: &[u8]) -> bool {
        let mut end = path.len();
        loop {
            if self.matches(&path[..end]) {
                return true;
            }
            match path[..end].iter().rposition(|b| *b == b'/') {
                Some(at) => end = at,
                None => return false,
            }
        }
    }
}

impl Pattern {
    fn new(typed: &OsStr, facts: &Facts) -> std::result::Result<Pattern, FilesError> {
        let shown = names::show_typed(typed);
        let text = from_root(typed.as_bytes(), facts);
        let text = names::trim(&text);
        let path = names::typed_path(text);
        let met = AtomicBool::new(false);
        if !names::is_pattern(text) {
            return Ok(Pattern { shown, prefix: path.clone(), path, glob: None, met });
        }
        let plain: Vec<Vec<u8>> = text
            .split(|byte| *byte == b'/')
            .take_while(|part| !names::is_pattern(part))
            .map(names::typed_path)
            .collect();
        Ok(Pattern { shown, prefix: plain.join(&b'/'), path, glob: Some(Glob::new(text)?), met })
    }
}

/// What was typed for a path on the captured machine, as it would be typed for that of the listing.
pub(crate) fn from_root(typed: &[u8], facts: &Facts) -> Vec<u8> {
    for root in &facts.roots {
        for path in [&root.path, &root.resolved].into_iter().filter(|path| path.is_absolute()) {
            let path = path.as_os_str().as_bytes();
            for path in [path, names::show_path(path).as_bytes()] {
                let Some(below) = typed.strip_prefix(path) else { continue };
                if below.is_empty() || below.starts_with(b"/") || path == b"/" {
                    let label = root.label.as_deref().unwrap_or_default().as_bytes();
                    return [label, b"/", names::trim(below)].concat();
                }
            }
        }
    }
    typed.to_owned()
}

/// Plain prefixes as a tree, so that each directory on the way is looked up once and in order.
#[derive(Debug, Default)]
struct Wanted {
    whole: bool,
    below: BTreeMap<Vec<u8>, Wanted>,
}

impl Wanted {
    fn add(&mut self, path: &[u8]) {
        let mut at = self;
        for part in path.split(|b| *b == b'/').filter(|part| !part.is_empty()) {
            at = at.below.entry(part.to_vec()).or_default();
        }
        at.whole = true;
    }
}

/// The steps of a listing that a filter may want, directories on the way included, in listing order.
pub(crate) struct Selected<'a> {
    vault: &'a dyn Vault,
    content: &'a Content,
    versions: bool,
    reading: Option<Browse<'a>>,
    to_do: Vec<(Vec<u8>, Wanted)>,
    steps: VecDeque<Step>,
}

impl<'a> Selected<'a> {
    pub fn new(vault: &'a dyn Vault, content: &'a Content, versions: bool, filter: &Filter) -> Selected<'a> {
        let mut wanted = Wanted::default();
        if filter.is_everything() {
            wanted.whole = true;
        }
        filter.patterns.iter().for_each(|pattern| wanted.add(&pattern.prefix));
        Selected {
            vault,
            content,
            versions,
            reading: None,
            to_do: vec![(Vec::new(), wanted)],
            steps: VecDeque::new(),
        }
    }

    fn advance(&mut self) -> Result<Option<Step>> {
        loop {
            if let Some(step) = self.steps.pop_front() {
                return Ok(Some(step));
            }
            if let Some(reading) = &mut self.reading {
                match reading.next() {
                    Some(step) => return step.map(Some),
                    None => self.reading = None,
                }
            }
            let Some((path, wanted)) = self.to_do.pop() else { return Ok(None) };
            if wanted.whole {
                self.reading = Some(Browse::below(self.vault, self.content, self.versions, &path));
                continue;
            }
            self.steps.push_back(Step::Directory(path.clone()));
            let mut next = Vec::new();
            for (name, wanted) in wanted.below {
                let found = match lookup(self.vault, self.content, self.versions, &path, &name) {
                    Ok(found) => found,
                    Err(failure) if super::browse::is_damage(&failure) => {
                        self.steps.push_back(Step::Lost(failure));
                        Vec::new()
                    }
                    Err(failure) => return Err(failure),
                };
                // What was deleted may lie in a directory that was not.
                let lost = matches!(self.steps.back(), Some(Step::Lost(_)));
                if self.versions || lost || found.iter().any(|entry| entry.kind == FileKind::Directory) {
                    next.push((listing::join(&path, &name), wanted));
                }
                self.steps.extend(found.into_iter().map(|entry| Step::Entry(Box::new(entry))));
            }
            self.to_do.extend(next.into_iter().rev());
        }
    }
}

impl Iterator for Selected<'_> {
    type Item = Result<Step>;

    fn next(&mut self) -> Option<Result<Step>> {
        let step = self.advance();
        if step.is_err() {
            (self.reading, self.to_do) = (None, Vec::new());
        }
        step.transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::facts::RootFact;

    fn filter(patterns: &[&str]) -> Filter {
        let patterns: Vec<OsString> = patterns.iter().map(OsString::from).collect();
        let root = |path: &str, label: Option<&str>| RootFact {
            path: path.into(),
            resolved: path.into(),
            label: label.map(str::to_owned),
        };
        let facts = Facts { roots: vec![root("/srv/up", Some("srv-up"))], ..Facts::default() };
        Filter::new(&patterns, &facts).unwrap()
    }

    #[test]
    fn a_path_means_itself_and_everything_below() {
        let filter = filter(&["a/b", "/c/"]);
        for (path, covered) in
            [("a/b", true), ("a/b/x/y", true), ("a", false), ("a/bc", false), ("c/d", true), ("x/c", false)]
        {
            assert_eq!(filter.covers(path.as_bytes()), covered, "{path}");
        }
    }

    #[test]
    fn a_star_stays_in_its_directory_and_two_do_not() {
        let filter = filter(&["a/*.jpg", "b/**", "**/deep.txt"]);
        for (path, covered) in [
            ("a/x.jpg", true),
            ("a/y/x.jpg", false),
            ("b/c/d", true),
            ("b", false),
            ("deep.txt", true),
            ("q/r/deep.txt", true),
        ] {
            assert_eq!(filter.covers(path.as_bytes()), covered, "{path}");
        }
    }

    #[test]
    fn a_name_is_meant_as_the_listing_shows_it() {
        let filter = filter(&["a[1].txt", "caf\\xe9/b", "\\x2a/*.c", "d/{e}"]);
        for (path, covered) in [
            (&b"a[1].txt"[..], true),
            (b"caf\xe9/b/c", true),
            (b"caf/b", false),
            (b"*/x.c", true),
            (b"y/x.c", false),
            (b"d/{e}/f", true),
        ] {
            assert_eq!(filter.covers(path), covered, "{}", names::show_path(path));
        }
    }

    #[test]
    fn a_path_of_the_captured_machine_is_understood() {
        let filter = filter(&["/srv/up/a/b"]);
        assert!(filter.covers(b"srv-up/a/b/c") && !filter.covers(b"srv-up/a"));
    }
}
