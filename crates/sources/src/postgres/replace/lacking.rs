//! What of a restore's errors and differences the recovery point itself explains, because it never had what is missing.
//!
//! Only that can be accepted (`--accept-partial`). Everything else, damage above all, replaces nothing.

use crate::postgres::{
    compare::{Comparison, Difference},
    facts::{Facts, QualifiedName, Skipped},
    restore::Report,
};
use mainstay_domain::point::Problem;
use std::collections::BTreeSet;

pub(super) struct Lacking<'a> {
    facts: &'a Facts,
    /// Tables of which the point has neither rows nor, where they could not be locked, a definition.
    tables: BTreeSet<QualifiedName>,
    /// Foreign keys are NOT VALID, because rows that they lead to are not in the point.
    keys_not_valid: bool,
    accepted: bool,
}

impl<'a> Lacking<'a> {
    pub fn of(facts: &'a Facts, restored: &Report, accepted: bool) -> Lacking<'a> {
        let unreadable = facts.tables.iter().filter(|t| matches!(t.skipped, Some(Skipped::Unreadable(_))));
        Lacking {
            facts,
            tables: unreadable
                .map(|t| QualifiedName { schema: t.schema.clone(), name: t.name.clone() })
                .collect(),
            keys_not_valid: !restored.not_valid.is_empty(),
            accepted,
        }
    }

    /// The errors that nothing explains, or that are not accepted.
    pub fn errors<'r>(&'r self, restored: &'r Report) -> impl Iterator<Item = &'r Problem> {
        restored
            .errors()
            .filter(|problem| !(self.accepted && restored.not_captured.contains(&problem.object)))
    }

    /// The differences that nothing explains, or that are not accepted.
    pub fn differences<'r>(&'r self, comparison: &'r Comparison) -> impl Iterator<Item = &'r Difference> {
        comparison.differences.iter().filter(|difference| !(self.accepted && self.explains(difference)))
    }

    fn explains(&self, difference: &Difference) -> bool {
        let of_table = |name: &QualifiedName| {
            let (object, table) = (&difference.object, name.to_string());
            let itself = difference.kind == "table" && *object == table;
            let column = difference.kind == "column"
                && object.strip_prefix(&table).is_some_and(|r| r.starts_with('.'));
            itself || column
        };
        let missing = difference.what == "missing";
        if missing
            && (self.tables.iter().any(of_table)
                || self.owner(difference).is_some_and(|t| self.tables.contains(t)))
        {
            return true;
        }
        let not_valid = match difference.what.as_str() {
            "valid" => difference.recorded == "true" && difference.found == "false",
            "definition" => difference.found == format!("{} NOT VALID", difference.recorded),
            _ => false,
        };
        self.keys_not_valid && difference.kind == "constraint" && not_valid
    }

    /// The table that the object of a difference belongs to.
    fn owner(&self, difference: &Difference) -> Option<&QualifiedName> {
        let mut objects = self.facts.inventory.objects.iter();
        let object =
            objects.find(|o| o.kind.words() == difference.kind && o.identity == difference.object)?;
        object.table.as_ref()
    }
}
