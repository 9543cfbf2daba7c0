//! Swaps tables that a restore put beside the living ones into their places, in one transaction.
//!
//! The restored table takes the living one's name; everything that hangs on the living one (`dependants`: foreign keys of others,
//! views, rules, policies and functions that read it, publications) follows, and so does what it has itself (`own`: triggers,
//! policies, rules, grants, owner, comments, sequences, its place among partitions): PostgreSQL ties all of that to the old table's
//! OID, not to its name. What cannot follow is refused beforehand, by name. The old table moves into a dated schema and stays there
//! until it is let go.
//!
//! The catalogue is read again under the lock: nothing that came to hang on the table since the plan is left behind. Texts are
//! taken under an empty `search_path`, so every name in them is qualified, and run after the renames, so that they mean the new
//! table.

mod count;
mod dependants;
mod materialized;
mod own;
mod partitions;
mod rights;

pub use count::{Counts, count};

use super::{
    facts::QualifiedName,
    merge::Pair,
    restore::Refusal,
    session,
    wire::{ConnectSpec, Connection, quote_ident, quote_literal, quote_qualified},
};
use mainstay_domain::{Failure, Kind, Result, Time};
use serde::Serialize;

/// Before the time in the name of a schema with old tables.
const KEPT: &str = "mainstay_before_";
/// What the comment on such a schema says: only these are dropped.
const MARK: &str = "Tables that mainstay restore --swap replaced";
/// Before the time in the name of a schema that a restore makes for tables beside the living ones, and what its comment says.
const BESIDE: &str = "mainstay_";
const MARK_BESIDE: &str = "Tables that mainstay restore put beside the living ones";
const LOCK_NOT_AVAILABLE: &str = "55P03";

/// What a swap would do, or did.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Plan {
    /// The schema that the old tables are kept in.
    pub kept: String,
    /// The tables that are swapped.
    pub tables: Vec<String>,
    /// What hangs on them and follows.
    pub follows: Vec<String>,
    pub notices: Vec<String>,
    pub refusals: Vec<Refusal>,
}

impl Plan {
    /// The failure that stands for all refusals.
    pub fn refuse(&self) -> Result<()> {
        if self.refusals.is_empty() {
            return Ok(());
        }
        let all: Vec<&str> = self.refusals.iter().map(|refusal| refusal.message.as_str()).collect();
        let mut hints: Vec<&str> = Vec::new();
        for refusal in &self.refusals {
            if !hints.contains(&refusal.hint.as_str()) {
                hints.push(&refusal.hint);
            }
        }
        Err(Failure::new(Kind::Refused, all.join("; "))
            .hint(format!("{} Nothing was swapped.", hints.join(" "))))
    }
}

/// The statements of a swap, before and after the tables have changed their places.
#[derive(Debug, Default)]
struct Script {
    before: Vec<String>,
    after: Vec<String>,
    /// When everything else is in place: what may read several of the tables.
    last: Vec<String>,
    /// Materialized views that read one of the tables, by their oids.
    materialized: Vec<String>,
    /// The names of those that are made anew.
    remade: Vec<String>,
    follows: Vec<String>,
    notices: Vec<String>,
    refusals: Vec<Refusal>,
}

impl Script {
    fn refuse(&mut self, message: String, hint: &str) {
        self.refusals.push(Refusal { message, hint: hint.to_owned() });
    }
}

/// A pair with what the catalogue calls its tables.
#[derive(Debug)]
struct Swapped<'p> {
    pair: &'p Pair,
    live: String,
    beside: String,
}

impl Swapped<'_> {
    fn live_name(&self) -> String {
        quote_qualified(&self.pair.live.schema, &self.pair.live.name)
    }

    fn beside_name(&self) -> String {
        quote_qualified(&self.pair.beside.schema, &self.pair.beside.name)
    }

    /// A text about the restored table, as it would be of the living one.
    fn as_live(&self, text: &str) -> String {
        let schema = |name: &QualifiedName| format!("{}.", quote_ident(&name.schema));
        text.replace(&schema(&self.pair.beside), &schema(&self.pair.live))
    }
}

/// The name of the schema that keeps what is swapped out now.
pub fn kept_schema(now: Time) -> String {
    let stamp = jiff::Timestamp::from_second(now.0.div_euclid(1_000_000_000));
    format!("{KEPT}{}", stamp.map(|at| at.strftime("%Y%m%dt%H%M%S").to_string()).unwrap_or_default())
}

/// Looks at what hangs on the living tables, and changes nothing.
pub fn plan(spec: &ConnectSpec, pairs: &[Pair], kept: &str) -> Result<Plan> {
    let mut connection = Connection::connect(spec)?;
    session::prepare(&mut connection)?;
    // Restored partitions are taken off their parents to be looked at, and are back with the end of the session.
    connection.execute("BEGIN")?;
    let mut script = Script::default();
    let pairs = partitions::flatten(&mut connection, pairs, &mut script)?;
    read(&mut connection, &pairs, kept, &mut script)?;
    connection.execute("ROLLBACK")?;
    Ok(planned(script, &pairs, kept))
}

fn planned(script: Script, pairs: &[Pair], kept: &str) -> Plan {
    Plan {
        kept: kept.to_owned(),
        tables: pairs.iter().map(|pair| pair.live.to_string()).collect(),
        follows: script.follows,
        notices: script.notices,
        refusals: script.refusals,
    }
}

/// Swaps every pair, in one transaction.
///
/// # Errors
/// `Refused`: something cannot follow. `Busy`: somebody holds one of the tables. Whatever the error: nothing was changed.
pub fn swap(spec: &ConnectSpec, pairs: &[Pair], kept: &str) -> Result<Plan> {
    let mut connection = Connection::connect(spec)?;
    session::prepare(&mut connection)?;
    let names: Vec<String> = pairs
        .iter()
        .flat_map(|pair| [&pair.live, &pair.beside])
        .map(|name| quote_qualified(&name.schema, &name.name))
        .collect();
    let locked = format!(
        "BEGIN; SET LOCAL lock_timeout = '10s'; LOCK TABLE {} IN ACCESS EXCLUSIVE MODE",
        names.join(", ")
    );
    connection.execute(&locked).map_err(|error| match error.is(LOCK_NOT_AVAILABLE) {
        true => Failure::new(Kind::Busy, "somebody holds one of the tables that are to be swapped")
            .hint("Nothing was swapped. End what reads or writes them, and try again.")
            .caused_by(error),
        false => Failure::from(error).during("locking the tables"),
    })?;
    let mut script = Script::default();
    let pairs = &partitions::flatten(&mut connection, pairs, &mut script)?;
    read(&mut connection, pairs, kept, &mut script)?;
    let statements: Vec<String> = script
        .before
        .iter()
        .cloned()
        .chain(moves(&mut connection, pairs, kept)?)
        .chain(script.after.iter().cloned())
        .chain(script.last.iter().cloned())
        .collect();
    let plan = planned(script, pairs, kept);
    plan.refuse()?;
    session::allow_other_relations(&mut connection, "")?;
    for statement in statements {
        connection.execute(&statement).map_err(|error| {
            Failure::from(error).during(format!("swapping ({statement})")).hint(
                "Nothing was swapped: it is one transaction. The restored tables are beside the living ones.",
            )
        })?;
    }
    connection.execute("COMMIT").map_err(|error| Failure::from(error).during("ending the swap"))?;
    Ok(plan)
}

/// The exchange of places itself.
fn moves(connection: &mut Connection, pairs: &[Pair], kept: &str) -> Result<Vec<String>> {
    let kept_name = quote_ident(kept);
    let mut moves = vec![
        format!("CREATE SCHEMA {kept_name}"),
        format!("COMMENT ON SCHEMA {kept_name} IS {}", quote_literal(MARK)),
    ];
    for pair in pairs {
        let live = quote_qualified(&pair.live.schema, &pair.live.name);
        moves.push(format!("ALTER TABLE {live} SET SCHEMA {kept_name}"));
    }
    for pair in pairs {
        let beside = quote_qualified(&pair.beside.schema, &pair.beside.name);
        moves.push(format!("ALTER TABLE {beside} SET SCHEMA {}", quote_ident(&pair.live.schema)));
    }
    // What the restore made for them is empty now, unless something else lies in it.
    let mut schemas: Vec<&String> = pairs.iter().map(|pair| &pair.beside.schema).collect();
    schemas.sort();
    schemas.dedup();
    for schema in schemas {
        let others = connection.query_text(&format!(
            "SELECT count(*) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
              WHERE n.nspname = {} AND c.relkind IN ('r','p','v','m','f')",
            quote_literal(schema)
        ))?;
        let ours = pairs.iter().filter(|pair| pair.beside.schema == *schema).count().to_string();
        if others == Some(ours) && schema.starts_with("mainstay_") {
            moves.push(format!("DROP SCHEMA {}", quote_ident(schema)));
        }
    }
    Ok(moves)
}

/// Reads what must be done from the catalogue.
fn read(connection: &mut Connection, pairs: &[Pair], kept: &str, script: &mut Script) -> Result<()> {
    let mut swapped = Vec::new();
    for pair in pairs {
        let (live, beside) = (oid(connection, &pair.live)?, oid(connection, &pair.beside)?);
        match (live, beside) {
            (Some(live), Some(beside)) => swapped.push(Swapped { pair, live, beside }),
            (None, _) => script.refuse(
                format!("{} is not there any more", pair.live),
                "There is nothing to swap with: move the restored table there by ALTER TABLE … SET SCHEMA.",
            ),
            (_, None) => script.refuse(format!("{} is not there", pair.beside), "Restore it again."),
        }
        if pair.live.name != pair.beside.name {
            script.refuse(
                format!("the restored table is named {} and not {}", pair.beside, pair.live.name),
                "Leave --to-table out.",
            );
        }
    }
    for one in &swapped {
        if own::fits(connection, one, script)? {
            own::follow(connection, one, &swapped, kept, script)?;
        }
    }
    dependants::follow(connection, &swapped, script)
}

fn oid(connection: &mut Connection, name: &QualifiedName) -> Result<Option<String>> {
    let text = quote_literal(&quote_qualified(&name.schema, &name.name));
    Ok(connection.query_text(&format!("SELECT pg_catalog.to_regclass({text})::pg_catalog.oid::text"))?)
}

/// A `COMMENT ON …` statement.
fn comment(what: &str, text: Option<&str>) -> String {
    format!("COMMENT ON {what} IS {}", text.map_or_else(|| "NULL".to_owned(), quote_literal))
}

/// Marks a schema that a restore has made for tables beside the living ones, so that it can be let go. One that is not there, or has a comment
/// of its own, is left as it is.
pub fn mark_beside(spec: &ConnectSpec, schema: &str) -> Result<()> {
    let mut connection = Connection::connect(spec)?;
    session::prepare(&mut connection)?;
    let unmarked = connection.query_text(&format!(
        "SELECT pg_catalog.obj_description(oid, 'pg_namespace') IS NULL FROM pg_catalog.pg_namespace WHERE nspname = {}",
        quote_literal(schema)
    ))?;
    if unmarked.as_deref() == Some("t") {
        connection.execute(&comment(&format!("SCHEMA {}", quote_ident(schema)), Some(MARK_BESIDE)))?;
    }
    Ok(())
}

/// Drops a schema of old tables, or of tables that were put beside the living ones.
///
/// # Errors
/// `Usage`: it is none. What somebody made on one of its tables since then keeps it.
pub fn let_go(spec: &ConnectSpec, kept: &str) -> Result<Vec<String>> {
    let mut connection = Connection::connect(spec)?;
    session::prepare(&mut connection)?;
    let schema = quote_literal(kept);
    let mark = connection.query_text(&format!(
        "SELECT pg_catalog.obj_description(oid, 'pg_namespace') FROM pg_catalog.pg_namespace WHERE nspname = {schema}"
    ))?;
    let is_kept = kept.starts_with(KEPT) && mark.as_deref() == Some(MARK);
    let is_beside = kept.starts_with(BESIDE) && mark.as_deref() == Some(MARK_BESIDE);
    if !is_kept && !is_beside {
        return Err(Failure::usage(format!(
            "{kept} is no schema of tables that a swap replaced, or that a restore put beside the living ones"
        ))
        .hint(format!(
            "Their names begin with {KEPT}, or with {BESIDE} and the time; psql lists them with \\dn."
        )));
    }
    let rows = connection.query(&format!(
        "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c
           JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          WHERE n.nspname = {schema} AND c.relkind IN ('r', 'p') ORDER BY 1"
    ))?;
    let tables: Vec<String> = rows.iter().map(|row| row.text(0)).collect();
    let mut sql = "BEGIN;".to_owned();
    if !tables.is_empty() {
        sql += &format!("DROP TABLE {};", tables.join(", "));
    }
    sql += &format!("DROP SCHEMA {}; COMMIT", quote_ident(kept));
    connection.execute(&sql).map_err(|error| {
        Failure::from(error)
            .during("dropping the old tables")
            .hint("Nothing was dropped. Something was made on them since: drop that first.")
    })?;
    Ok(tables)
}
