//! What went wrong with single files: a bounded list of named ones, and how many there were in all.

use mainstay_domain::{Severity, point::Problem};
use std::{collections::BTreeMap, sync::Mutex};

/// How many problems of one severity are named. A million unreadable files must not make a manifest of them.
const NAMED: usize = 200;

#[derive(Debug, Default)]
pub(crate) struct Problems {
    inner: Mutex<BTreeMap<Severity, (u64, Vec<Problem>)>>,
}

impl Problems {
    pub fn add(&self, severity: Severity, object: impl Into<String>, message: impl Into<String>) {
        let mut inner = self.inner.lock().expect("no one panics while holding this lock");
        let (count, named) = inner.entry(severity).or_default();
        *count += 1;
        if named.len() < NAMED {
            named.push(Problem { severity, object: object.into(), message: message.into() });
        }
    }

    pub fn count(&self, severity: Severity) -> u64 {
        self.inner.lock().expect("no one panics while holding this lock").get(&severity).map_or(0, |p| p.0)
    }

    /// Worst first, then by name; what was not named is summed up in a last line of its severity.
    pub fn into_list(self) -> Vec<Problem> {
        let mut list = Vec::new();
        let inner = self.inner.into_inner().expect("no one panics while holding this lock");
        for (severity, (count, mut named)) in inner.into_iter().rev() {
            named.sort_by(|a, b| (&a.object, &a.message).cmp(&(&b.object, &b.message)));
            let more = count - named.len() as u64;
            list.extend(named);
            if more > 0 {
                list.push(Problem { severity, object: String::new(), message: format!("and {more} more") });
            }
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_problems_make_a_short_list_that_counts_them() {
        let problems = Problems::default();
        for n in 0..1_000 {
            problems.add(Severity::Error, format!("{n:04}"), "unreadable");
        }
        problems.add(Severity::Info, "x", "a socket");
        let list = problems.into_list();
        assert_eq!(list.len(), NAMED + 2);
        assert_eq!(list[NAMED].message, "and 800 more");
        assert_eq!(list[NAMED + 1].severity, Severity::Info);
    }
}
