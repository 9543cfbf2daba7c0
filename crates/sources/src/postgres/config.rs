//! How a database is configured as a source, and what its rules say about each table.
//!
//! Rules apply in order, and a later one wins where both speak; so the general comes first and the special after. A rule
//! for a partitioned table holds for its partitions.

use super::{
    facts::{Inventory, Priority, QualifiedName, Table},
    secret::SecretText,
    wire::{ConnectSpec, process_environment},
};
use globset::{GlobBuilder, GlobMatcher};
use mainstay_domain::{ByteSize, Failure, time::Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A PostgreSQL database.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostgresConfig {
    /// Its address: postgres://user:password@host:5432/database?sslmode=verify-full
    pub url: SecretText,
    /// The directory of pg_dump, where it is not in one of the usual places.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bin_dir: Option<PathBuf>,
    /// How many tables are read at once.
    #[serde(default = "two")]
    pub parallel: u32,
    /// What is special about tables; later rules win over earlier ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<TableRule>,
    /// Whether tables that no rule names are pointed out (where there are rules). They are captured all the same.
    #[serde(default)]
    pub unnamed: Unnamed,
    /// How long to wait for a table that somebody else holds a lock on.
    #[serde(default = "five_minutes")]
    pub lock_wait: Span,
}

/// What to say of tables that no rule names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Unnamed {
    #[default]
    Notice,
    Ignore,
}

/// A rule about tables.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TableRule {
    /// The tables that it is about: public.orders, public.*, *_log. A name without a dot means that name in any schema.
    pub r#match: Patterns,
    /// Leave their rows out. Their structure is captured all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclude: Option<bool>,
    /// What follows when they cannot be captured: critical fails the source, important makes it incomplete, nice warns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// Capture only the rows for which this SQL condition holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#where: Option<String>,
    /// What there must at least be, for each table (for a partitioned one: in all partitions together).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<Expect>,
    /// Holds data of persons: mainstay diff counts its rows and never shows them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sensitive: Option<bool>,
}

/// One pattern, or several.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Patterns {
    One(String),
    Several(Vec<String>),
}

impl Patterns {
    fn texts(&self) -> &[String] {
        match self {
            Patterns::One(text) => std::slice::from_ref(text),
            Patterns::Several(texts) => texts,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// Rows of one table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_rows: Option<u64>,
    /// Of the rows' text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_size: Option<ByteSize>,
}

fn two() -> u32 {
    2
}

fn five_minutes() -> Span {
    Span { nanoseconds: 5 * mainstay_domain::time::MINUTE }
}

impl PostgresConfig {
    /// For a database without any rule.
    pub fn new(url: SecretText) -> PostgresConfig {
        PostgresConfig {
            url,
            bin_dir: None,
            parallel: two(),
            tables: Vec::new(),
            unnamed: Unnamed::default(),
            lock_wait: five_minutes(),
        }
    }

    /// What can be said to be wrong without a connection.
    pub fn validate(&self) -> Result<(), Failure> {
        if !(1..=64).contains(&self.parallel) {
            return Err(Failure::usage(format!("parallel is {}; it must be from 1 to 64", self.parallel)));
        }
        Rules::new(self).map(|_| ())
    }

    /// Fetches the address, with what the PG* environment adds.
    pub fn connect_spec(&self) -> Result<ConnectSpec, Failure> {
        ConnectSpec::parse(&self.url.resolve(&process_environment)?, &process_environment)
    }
}

/// The rules with their patterns made ready.
#[derive(Debug)]
pub struct Rules<'a>(Vec<(Vec<GlobMatcher>, &'a TableRule)>);

/// What the rules say of one table, taken together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TablePolicy {
    /// Some rule names it, or a table whose partition it is.
    pub named: bool,
    pub exclude: bool,
    pub priority: Priority,
    pub filter: Option<String>,
    pub sensitive: bool,
    /// Only where a rule names this table itself.
    pub expect: Expect,
}

impl<'a> Rules<'a> {
    pub fn new(config: &'a PostgresConfig) -> Result<Rules<'a>, Failure> {
        let mut rules = Vec::new();
        for rule in &config.tables {
            let mut matchers = Vec::new();
            for text in rule.r#match.texts() {
                let whole = if text.contains('.') { text.clone() } else { format!("*.{text}") };
                let glob = GlobBuilder::new(&whole).build().map_err(|e| {
                    Failure::usage(format!("{text:?} is no pattern for tables: {}", e.kind()))
                })?;
                matchers.push(glob.compile_matcher());
            }
            rules.push((matchers, rule));
        }
        Ok(Rules(rules))
    }

    /// Whether there are any.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The patterns that fit none of the tables, each with its rule.
    pub fn idle(&self, tables: &[QualifiedName]) -> Vec<(&'a str, &'a TableRule)> {
        let names: Vec<String> = tables.iter().map(ToString::to_string).collect();
        let mut idle = Vec::new();
        for (matchers, rule) in &self.0 {
            for (matcher, text) in matchers.iter().zip(rule.r#match.texts()) {
                if !names.iter().any(|name| matcher.is_match(name)) {
                    idle.push((text.as_str(), *rule));
                }
            }
        }
        idle
    }

    /// What the rules say of a table, given the partitioned tables above it.
    pub fn policy(&self, own: &QualifiedName, above: &[QualifiedName]) -> TablePolicy {
        let mut policy = TablePolicy::default();
        let names: Vec<String> = above.iter().map(ToString::to_string).collect();
        let own = own.to_string();
        for (matchers, rule) in &self.0 {
            let itself = matchers.iter().any(|m| m.is_match(&own));
            if !itself && !names.iter().any(|name| matchers.iter().any(|m| m.is_match(name))) {
                continue;
            }
            policy.named = true;
            policy.exclude = rule.exclude.unwrap_or(policy.exclude);
            policy.priority = rule.priority.unwrap_or(policy.priority);
            policy.sensitive = rule.sensitive.unwrap_or(policy.sensitive);
            policy.filter = rule.r#where.clone().or(policy.filter);
            if let (true, Some(expect)) = (itself, &rule.expect) {
                policy.expect.min_rows = expect.min_rows.or(policy.expect.min_rows);
                policy.expect.min_size = expect.min_size.or(policy.expect.min_size);
            }
        }
        policy
    }
}

/// The partitioned tables above a partition, nearest first.
pub fn partition_ancestors(inventory: &Inventory, table: &Table) -> Vec<QualifiedName> {
    let mut above = Vec::new();
    let mut at = table;
    // A tree of partitions has no circles; the bound is against a catalogue that does.
    while let (true, Some(parent), true) =
        (at.partition_bound.is_some(), at.inherits.first(), above.len() < 100)
    {
        above.push(parent.clone());
        match inventory.table(&parent.schema, &parent.name) {
            Some(next) => at = next,
            None => break,
        }
    }
    above
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &str) -> PostgresConfig {
        serde_json::from_str(json).unwrap()
    }

    fn name(schema: &str, name: &str) -> QualifiedName {
        QualifiedName { schema: schema.into(), name: name.into() }
    }

    #[test]
    fn later_rules_win_and_partitions_follow_their_table() {
        let config = config(
            r#"{"url": "x", "tables": [
                {"match": "public.*", "priority": "critical", "expect": {"min_rows": 1}},
                {"match": ["*_log", "audit.*"], "exclude": true, "priority": "nice"},
                {"match": "public.keep_log", "exclude": false, "where": "id > 5", "sensitive": true}]}"#,
        );
        let rules = Rules::new(&config).unwrap();
        let orders = rules.policy(&name("public", "orders"), &[]);
        assert_eq!((orders.priority, orders.exclude, orders.named), (Priority::Critical, false, true));
        assert_eq!(orders.expect.min_rows, Some(1));
        let log = rules.policy(&name("public", "a_log"), &[]);
        assert_eq!((log.priority, log.exclude), (Priority::Nice, true));
        let kept = rules.policy(&name("public", "keep_log"), &[]);
        assert_eq!((kept.exclude, kept.filter.as_deref(), kept.sensitive), (false, Some("id > 5"), true));
        let partition = rules.policy(&name("parts", "p1"), &[name("audit", "events")]);
        assert!(partition.exclude && partition.named && partition.expect == Expect::default());
        let other = rules.policy(&name("x", "y"), &[]);
        assert_eq!(other, TablePolicy::default());
    }

    #[test]
    fn a_wrong_configuration_is_named() {
        assert!(serde_json::from_str::<PostgresConfig>(r#"{"url": "x", "paralel": 3}"#).is_err());
        let error = config(r#"{"url": "x", "tables": [{"match": "public.[a"}]}"#).validate().unwrap_err();
        assert!(error.message.contains("public.[a"), "{error}");
        assert!(config(r#"{"url": "x", "parallel": 0}"#).validate().is_err());
    }
}
