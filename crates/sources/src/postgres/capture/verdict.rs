//! What is to be told of a capture, and how whole it is. Pure functions over what came out.

use super::plan::{Plan, PlannedTable};
use crate::postgres::{
    config::{Expect, PostgresConfig, Rules, Unnamed},
    facts::{Database, Inventory, Priority, QualifiedName, Skipped, Table, TableKind, Unread},
    restore::unfinished::marked,
    wire::quote_ident,
};
use mainstay_domain::{
    ByteSize, Severity,
    point::{Problem, State},
};
use std::collections::{BTreeSet, HashMap};

/// Problems, the state that follows from them, and what is missing, for the facts.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    problems: Vec<Problem>,
    /// Of the objects of which something is missing.
    priorities: HashMap<String, Priority>,
    pub state: Option<State>,
    pub unread: Vec<Unread>,
}

impl Verdict {
    /// Something is missing or wrong; what follows is for the priority to say.
    pub fn lacks(&mut self, priority: Priority, object: impl Into<String>, message: impl Into<String>) {
        let (severity, state) = match priority {
            Priority::Critical => (Severity::Error, State::Failed),
            Priority::Important => (Severity::Error, State::Incomplete),
            Priority::Nice => (Severity::Warning, State::Complete),
        };
        let object = object.into();
        self.state = self.state.max(Some(state));
        let known = self.priorities.entry(object.clone()).or_insert(priority);
        *known = priority.min(*known);
        self.problems.push(Problem { severity, object, message: message.into() });
    }

    /// Something is missing that was asked for, named in the facts too.
    pub fn unread(
        &mut self,
        priority: Priority,
        kind: &str,
        object: impl Into<String>,
        reason: impl Into<String>,
    ) {
        let (object, reason) = (object.into(), reason.into());
        self.unread.push(Unread { kind: kind.to_owned(), object: object.clone(), reason: reason.clone() });
        self.lacks(priority, object, format!("this {kind} is not captured: {reason}"));
    }

    /// Worth knowing; the capture is as whole as before.
    pub fn notes(&mut self, severity: Severity, object: impl Into<String>, message: impl Into<String>) {
        self.problems.push(Problem { severity, object: object.into(), message: message.into() });
    }

    /// All that is to be told: of critical objects first, of nice ones last, otherwise as it was found.
    pub fn into_problems(self) -> Vec<Problem> {
        let Verdict { mut problems, priorities, .. } = self;
        problems.sort_by_key(|p| priorities.get(&p.object).copied().unwrap_or_default());
        problems
    }

    pub fn state(&self) -> State {
        self.state.unwrap_or(State::Complete)
    }
}

/// What was left by a restore is no original, however it is called.
pub(super) fn database(verdict: &mut Verdict, database: &Database) {
    if let Some(of) = marked(database.comment.as_deref()) {
        let message = format!(
            "this database is of a restore that is not finished ({of}), and may lack anything: wait for its end, or drop it \
             and restore again. If it is known to be whole: COMMENT ON DATABASE {} IS NULL",
            quote_ident(&database.name)
        );
        verdict.lacks(Priority::Important, "", message);
    }
}

/// What is to be said of the tables; of their sizes only when they were `copied`.
pub(super) fn tables(
    verdict: &mut Verdict,
    config: &PostgresConfig,
    rules: &Rules<'_>,
    inventory: &Inventory,
    plan: &Plan,
    broken: &[(QualifiedName, String)],
    copied: bool,
) {
    let mut unnamed = BTreeSet::new();
    for table in &plan.tables {
        let name = name(table);
        match &table.data.skipped {
            None | Some(Skipped::Excluded) => {}
            Some(Skipped::Foreign) => {
                verdict.notes(
                    Severity::Info,
                    name.to_string(),
                    "a foreign table: its rows are on another server",
                );
            }
            Some(Skipped::Extension) => {}
            Some(Skipped::Unreadable(reason)) => {
                verdict.unread(table.policy.priority, "table", name.to_string(), reason.clone());
            }
            Some(Skipped::Dropped) => {
                verdict.unread(table.policy.priority, "table", name.to_string(), "it was dropped meanwhile");
            }
        }
        let by_extension = inventory.table(&name.schema, &name.name).is_some_and(|t| t.extension.is_some());
        if !rules.is_empty() && config.unnamed == Unnamed::Notice && !table.policy.named && !by_extension {
            // Partitions are spoken of once, under the name of their table.
            unnamed.insert(table.above.last().unwrap_or(&name).clone());
        }
        if copied && table.data.skipped.is_none() {
            let have = (table.data.rows, table.data.bytes);
            expectation(verdict, table.policy.expect, table.policy.priority, &name, have);
        }
    }
    for name in unnamed {
        verdict.notes(
            Severity::Info,
            name.to_string(),
            "no rule names this table; it is captured as important",
        );
    }
    // A partitioned table is as large as its partitions together.
    for root in inventory.tables.iter().filter(|t| copied && t.kind == TableKind::Partitioned) {
        let name = QualifiedName { schema: root.schema.clone(), name: root.name.clone() };
        let policy = rules.policy(&name, &[]);
        let have = plan
            .tables
            .iter()
            .filter(|t| t.above.contains(&name))
            .fold((0, 0), |(rows, bytes), t| (rows + t.data.rows, bytes + t.data.bytes));
        expectation(verdict, policy.expect, policy.priority, &name, have);
    }
    idle_rules(verdict, rules, inventory);
    for (table, message) in broken {
        verdict.notes(
            Severity::Warning,
            table.to_string(),
            format!("{message}: after a restore this constraint stays NOT VALID"),
        );
    }
}

/// A rule that names a table which is not there: what it asks for cannot be had. A pattern with wildcards may fit nothing.
fn idle_rules(verdict: &mut Verdict, rules: &Rules<'_>, inventory: &Inventory) {
    let name = |t: &Table| QualifiedName { schema: t.schema.clone(), name: t.name.clone() };
    let tables: Vec<QualifiedName> = inventory.tables.iter().map(name).collect();
    for (pattern, rule) in rules.idle(&tables) {
        let asks = rule.exclude != Some(true)
            && (rule.expect.is_some() || matches!(rule.priority, Some(Priority::Critical)));
        let wild = pattern.contains(['*', '?', '[', '{']);
        if asks && !wild {
            let message = "there is no such table, and a rule asks for it: was it renamed or dropped, or is the rule misspelt?";
            verdict.lacks(rule.priority.unwrap_or_default(), pattern, message);
        } else if asks || !wild {
            verdict.notes(Severity::Warning, pattern, "no table is named by this rule");
        }
    }
}

fn expectation(
    verdict: &mut Verdict,
    expect: Expect,
    priority: Priority,
    name: &QualifiedName,
    (rows, bytes): (u64, u64),
) {
    if let Some(least) = expect.min_rows.filter(|least| rows < *least) {
        verdict.lacks(
            priority,
            name.to_string(),
            format!("{rows} rows, where at least {least} are expected"),
        );
    }
    if let Some(least) = expect.min_size.filter(|least| ByteSize(bytes) < *least) {
        let have = ByteSize(bytes);
        verdict.lacks(
            priority,
            name.to_string(),
            format!("{have} of rows, where at least {least} are expected"),
        );
    }
}

/// Something was left out on purpose.
pub(super) fn partial(plan: &Plan) -> bool {
    plan.tables.iter().any(|t| t.data.filter.is_some() || t.data.skipped == Some(Skipped::Excluded))
}

fn name(table: &PlannedTable) -> QualifiedName {
    QualifiedName { schema: table.data.schema.clone(), name: table.data.name.clone() }
}
