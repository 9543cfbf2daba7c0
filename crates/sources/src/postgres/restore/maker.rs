//! Makes the objects of an archive, one entry at a time, on one connection.
//!
//! Each entry's statements are sent as one message, as pg_restore does. A failure is judged by its SQLSTATE ([`judge`]),
//! recorded with the object's name, and does not stop the rest. Owners that cannot be given yet, because the new owner may not
//! create in the schema before its privileges are there, are given once those are.

use super::{
    Work,
    archive::Entry,
    chosen::{Chosen, ChosenEntry, Stage},
    internal_options::without_internal_options,
    judge::{self, Verdict},
    sql, unfinished,
};
use crate::postgres::{
    facts::ObjectKind,
    wire::{Connection, WireError, quote_ident},
};
use mainstay_domain::{Result, Severity};
use std::collections::{BTreeMap, BTreeSet, HashSet};

pub(super) struct Maker<'a> {
    pub work: &'a Work<'a>,
    pub chosen: &'a Chosen<'a>,
    pub connection: Connection,
    /// Entries that could not be made.
    pub failed: HashSet<u32>,
    user: Vec<u8>,
    roles: HashSet<Vec<u8>>,
    tablespaces: HashSet<Vec<u8>>,
    /// As set on the connection.
    tablespace: Vec<u8>,
    access_method: Vec<u8>,
    /// Owners to give later: entries whose ALTER … OWNER was refused.
    owners_later: Vec<u32>,
    /// Role → objects that it should own or be granted, and does not exist.
    missing_roles: BTreeMap<String, u64>,
    missing_tablespaces: BTreeSet<String>,
    /// Tables that were made with a mark in place of their comment.
    marked: Vec<&'a Entry>,
}

const FOREIGN_KEY_VIOLATION: &str = "23503";
const MISSING_OBJECT: &str = "42704";
const INSUFFICIENT_PRIVILEGE: &str = "42501";
/// Warnings of GRANT and REVOKE that did nothing.
const NOTHING_GRANTED: [&str; 2] = ["01007", "01006"];

/// Whether an entry is what is said about a table as a whole.
fn is_comment_of(entry: &Entry, table: &Entry) -> bool {
    entry.kind == "COMMENT" && entry.tag.starts_with(b"TABLE ") && entry.dependencies.contains(&table.id)
}

impl<'a> Maker<'a> {
    pub fn new(work: &'a Work<'a>, chosen: &'a Chosen<'a>) -> Result<Maker<'a>> {
        Maker::on(work, chosen, work.connect_for_archive()?)
    }

    pub fn on(work: &'a Work<'a>, chosen: &'a Chosen<'a>, mut connection: Connection) -> Result<Maker<'a>> {
        let mut names = |sql: &str| -> Result<Vec<Vec<u8>>> {
            let rows = connection.query(sql)?;
            Ok(rows.iter().filter_map(|row| row.bytes(0).map(<[u8]>::to_vec)).collect())
        };
        let user = names("SELECT current_user")?.pop().unwrap_or_default();
        let roles = names("SELECT rolname FROM pg_catalog.pg_roles")?.into_iter().collect();
        let tablespaces = names("SELECT spcname FROM pg_catalog.pg_tablespace")?.into_iter().collect();
        let access_method = names("SHOW default_table_access_method")?.pop().unwrap_or_default();
        Ok(Maker {
            work,
            chosen,
            connection,
            failed: HashSet::new(),
            user,
            roles,
            tablespaces,
            tablespace: Vec::new(),
            access_method,
            owners_later: Vec::new(),
            missing_roles: BTreeMap::new(),
            missing_tablespaces: BTreeSet::new(),
            marked: Vec::new(),
        })
    }

    /// Everything that must be there before rows.
    pub fn pre_data(&mut self) -> Result<()> {
        for schema in &self.chosen.new_schemas {
            let sql = format!("CREATE SCHEMA IF NOT EXISTS {}", quote_ident(schema));
            self.connection.execute_bytes(&self.work.archive.bytes(&sql))?;
        }
        for chosen in self.chosen.in_stage(Stage::PreData) {
            self.work.check_cancelled()?;
            self.make(chosen)?;
        }
        Ok(())
    }

    /// Makes one entry. What fails is recorded; only a lost connection is an error.
    pub fn make(&mut self, chosen: &ChosenEntry<'a>) -> Result<()> {
        let entry = chosen.entry;
        if entry.kind == "COMMENT" && self.marked.iter().any(|table| is_comment_of(entry, table)) {
            return Ok(()); // it takes the mark's place at the end
        }
        self.place(entry)?;
        let definition = without_internal_options(&entry.definition);
        let definition = self.chosen.renames.apply(&definition, &entry.schema);
        // The schema public of a new database is there; its entry is then a comment. A new name's schema was made first.
        let made = entry.kind == "SCHEMA" && !self.chosen.new_schemas.is_empty() && !chosen.borrowed;
        if !definition.trim_ascii().is_empty() && !definition.starts_with(b"--") && !made {
            let is_marked = self.work.marks_tables && entry.kind == "TABLE" && !chosen.borrowed;
            let marked = is_marked.then(|| -> Result<Vec<u8>> {
                // In one transaction, as all of one message: no table is there without its mark.
                let mark = unfinished::table_mark(&self.work.options.of)?;
                Ok([&definition[..], b"\n;", &self.comment(entry, mark.as_bytes())].concat())
            });
            let marked = marked.transpose()?;
            match self.connection.execute_bytes(marked.as_deref().unwrap_or(&definition)) {
                Ok(_) if is_marked => self.marked.push(entry),
                Ok(_) => {}
                Err(error) if self.work.is_full(&error) => return Err(self.work.broken_off(error)),
                Err(WireError::Server(message)) => {
                    if entry.kind == "FK CONSTRAINT" && message.code == FOREIGN_KEY_VIOLATION {
                        return self.add_not_valid(entry, &definition, &message.to_string());
                    }
                    if !self.forgiven(chosen, &message.code, &message.to_string()) {
                        self.failed.insert(entry.id);
                        return Ok(());
                    }
                    if chosen.borrowed {
                        return Ok(()); // it is another's: neither its owner nor its privileges are ours to set
                    }
                }
                Err(error) => return Err(self.work.broken_off(error)),
            }
        }
        self.own(entry, true)?;
        self.take_from_parents(entry)?;
        self.move_partitioned(entry)
    }

    fn comment(&self, table: &Entry, text: &[u8]) -> Vec<u8> {
        [b"COMMENT ON TABLE ", &self.qualified(table)[..], b" IS ", text].concat()
    }

    /// Gives each table that was made in a living database the comment that belongs there, in place of the mark.
    pub fn take_marks_off(&mut self) -> Result<()> {
        let chosen = self.chosen;
        for table in std::mem::take(&mut self.marked) {
            let own = chosen.in_stage(Stage::PreData).find(|comment| is_comment_of(comment.entry, table));
            let sql = match own {
                Some(own) => self.chosen.renames.apply(&own.entry.definition, &own.entry.schema).into_owned(),
                None => self.comment(table, b"NULL"),
            };
            self.tell(table, Severity::Warning, sql)?;
        }
        Ok(())
    }

    /// A table beside the living one is no child of a living parent: whoever reads that would read the restored rows too.
    fn take_from_parents(&mut self, entry: &Entry) -> Result<()> {
        let (archive, renames) = (self.work.archive, &self.chosen.renames);
        let moved = |schema: &[u8], name: &[u8]| renames.of(schema, name) != (schema.to_vec(), name.to_vec());
        if entry.kind != "TABLE" || !moved(&entry.schema, &entry.tag) {
            return Ok(());
        }
        let inventory = &self.work.facts.inventory;
        let table = inventory.table(&archive.text(&entry.schema), &archive.text(&entry.tag));
        // A partition is made by itself, and attached afterwards where its parent is restored too.
        let Some(table) = table.filter(|table| table.partition_bound.is_none()) else { return Ok(()) };
        for parent in &table.inherits {
            let (schema, name) = (archive.bytes(&parent.schema), archive.bytes(&parent.name));
            if !moved(&schema, &name) {
                let parent = [&sql::quote(&schema)[..], b".", &sql::quote(&name)].concat();
                let sql = [b"ALTER TABLE ", &self.qualified(entry)[..], b" NO INHERIT ", &parent].concat();
                self.tell(entry, Severity::Error, sql)?;
            }
        }
        Ok(())
    }

    /// A foreign key that the rows break: it holds from now on, and is named. That is as it must be where rows were left out.
    fn add_not_valid(&mut self, entry: &Entry, definition: &[u8], text: &str) -> Result<()> {
        let object = self.work.archive.describe(entry);
        let without_end = definition.trim_ascii_end();
        let without_end = without_end.strip_suffix(b";").unwrap_or(without_end);
        let severity = match self.work.rows_left_out() {
            true => Severity::Warning,
            false => Severity::Error,
        };
        match self.connection.execute_bytes(&[without_end, b" NOT VALID"].concat()) {
            Ok(_) => {
                self.work.problem(
                    severity,
                    object.clone(),
                    format!("it is NOT VALID, because rows break it: {text}"),
                );
                self.work.left_not_valid(object);
                Ok(())
            }
            Err(WireError::Server(message)) => {
                self.failed.insert(entry.id);
                let text = format!(
                    "it is left out, because rows break it ({text}) and it cannot be NOT VALID: {message}"
                );
                self.work.problem(Severity::Error, object, text);
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Judges a failure; records it unless it is forgiven.
    fn forgiven(&mut self, chosen: &ChosenEntry<'_>, code: &str, text: &str) -> bool {
        let object = self.work.archive.describe(chosen.entry);
        match judge::judge(chosen.entry, chosen.borrowed, code) {
            Verdict::Harmless(reason) => {
                self.work.problem(Severity::Info, object, reason);
                true
            }
            Verdict::Missing => {
                let owing = chosen.entry.dependencies.iter().any(|id| self.failed.contains(id));
                let text = if owing {
                    format!("{text} (it needs an object that failed before)")
                } else {
                    text.to_owned()
                };
                self.work.problem(Severity::Error, object, text);
                false
            }
        }
    }

    /// Chooses tablespace and access method for what the entry will store.
    fn place(&mut self, entry: &Entry) -> Result<()> {
        if let Some(wanted) = &entry.tablespace {
            let mut wanted = wanted.clone();
            if !wanted.is_empty() && !self.tablespaces.contains(&wanted) {
                let name = self.work.archive.text(&wanted);
                if self.missing_tablespaces.insert(name.clone()) {
                    self.work.problem(
                        Severity::Warning,
                        format!("tablespace {name}"),
                        "it is not on this server; its objects go to the default tablespace",
                    );
                }
                wanted.clear();
            }
            if wanted != self.tablespace {
                let sql = [b"SET default_tablespace = ", &sql::quote(&wanted)[..]].concat();
                self.connection.execute_bytes(if wanted.is_empty() {
                    b"SET default_tablespace = ''"
                } else {
                    &sql
                })?;
                self.tablespace = wanted;
            }
        }
        // A partitioned table stores nothing: its method is set afterwards.
        let storing = entry.access_method.as_ref().filter(|m| !m.is_empty() && entry.relkind != Some(b'p'));
        if let Some(wanted) = storing.filter(|wanted| **wanted != self.access_method) {
            let sql = [b"SET default_table_access_method = ", &sql::quote(wanted)[..]].concat();
            match self.connection.execute_bytes(&sql) {
                Ok(_) => self.access_method = wanted.clone(),
                // Said by the table's own failure, or by the comparison.
                Err(WireError::Server(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn move_partitioned(&mut self, entry: &Entry) -> Result<()> {
        let Some(method) =
            entry.access_method.as_ref().filter(|m| !m.is_empty() && entry.relkind == Some(b'p'))
        else {
            return Ok(());
        };
        let name = self.qualified(entry);
        let sql = [b"ALTER TABLE ", &name[..], b" SET ACCESS METHOD ", &sql::quote(method)].concat();
        self.tell(entry, Severity::Error, sql)
    }

    /// Runs a statement about an entry; a refusal is recorded with this severity.
    fn tell(&mut self, entry: &Entry, severity: Severity, sql: Vec<u8>) -> Result<()> {
        match self.connection.execute_bytes(&sql) {
            Ok(_) => Ok(()),
            Err(WireError::Server(message)) => {
                self.work.problem(severity, self.work.archive.describe(entry), message.to_string());
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Schema and name as they are now, quoted.
    fn qualified(&self, entry: &Entry) -> Vec<u8> {
        let (schema, name) = self.chosen.renames.of(&entry.schema, &entry.tag);
        match &schema[..] {
            b"" => sql::quote(&name),
            schema => [&sql::quote(schema)[..], b".", &sql::quote(&name)].concat(),
        }
    }

    /// Gives an object to its owner. `again`: a refusal may be tried again when privileges are there.
    pub fn own(&mut self, entry: &Entry, again: bool) -> Result<()> {
        let owner = &entry.owner;
        if !self.work.options.owners || owner.is_empty() || *owner == self.user || entry.drop.is_empty() {
            return Ok(());
        }
        let Some(object) = self.ownable(entry) else { return Ok(()) };
        if !self.roles.contains(owner) {
            *self.missing_roles.entry(self.work.archive.text(owner)).or_default() += 1;
            return Ok(());
        }
        let sql = [b"ALTER ", &object[..], b" OWNER TO ", &sql::quote(owner)].concat();
        match self.connection.execute_bytes(&sql) {
            Ok(_) => Ok(()),
            Err(WireError::Server(message)) if message.code == INSUFFICIENT_PRIVILEGE && again => {
                self.owners_later.push(entry.id);
                Ok(())
            }
            Err(WireError::Server(message)) => {
                let text = format!(
                    "it could not be given to its owner {}: {message}",
                    self.work.archive.text(owner)
                );
                self.work.problem(Severity::Warning, self.work.archive.describe(entry), text);
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What stands between ALTER and OWNER TO; `None` for what has no owner of its own.
    fn ownable(&self, entry: &Entry) -> Option<Vec<u8>> {
        match entry.kind.as_str() {
            "COLLATION"
            | "CONVERSION"
            | "DOMAIN"
            | "FOREIGN TABLE"
            | "MATERIALIZED VIEW"
            | "SEQUENCE"
            | "STATISTICS"
            | "TABLE"
            | "TEXT SEARCH DICTIONARY"
            | "TEXT SEARCH CONFIGURATION"
            | "TYPE"
            | "VIEW"
            | "PROCEDURAL LANGUAGE"
            | "EVENT TRIGGER"
            | "FOREIGN DATA WRAPPER"
            | "SERVER"
            | "PUBLICATION"
            | "SUBSCRIPTION" => Some([entry.kind.as_bytes(), b" ", &self.qualified(entry)].concat()),
            "SCHEMA" => {
                let schema = self.chosen.renames.of_schema(&entry.tag);
                Some([b"SCHEMA ", &sql::quote(&schema)[..]].concat())
            }
            "BLOB" => Some([b"LARGE OBJECT ", &entry.tag[..]].concat()),
            // Their arguments stand in the statement that would drop them.
            "AGGREGATE" | "FUNCTION" | "OPERATOR" | "OPERATOR CLASS" | "OPERATOR FAMILY" | "PROCEDURE" => {
                let drop = self.chosen.renames.apply(&entry.drop, &entry.schema).into_owned();
                let object = drop.strip_prefix(b"DROP ")?;
                let end = object.iter().rposition(|b| !matches!(b, b';' | b'\n'))?;
                Some(object[..=end].to_vec())
            }
            _ => None,
        }
    }

    /// Privileges, when all objects are there: first of schemas, then the owners that had to wait, then the rest.
    pub fn privileges(&mut self) -> Result<()> {
        let of_schema = |e: &ChosenEntry<'_>| e.entry.tag.starts_with(b"SCHEMA ");
        let chosen = self.chosen;
        for entry in chosen.in_stage(Stage::Privileges).filter(|e| of_schema(e)) {
            self.grant(entry)?;
        }
        for id in std::mem::take(&mut self.owners_later) {
            if let Some(entry) = self.work.archive.entry(id) {
                self.own(entry, false)?;
            }
        }
        for entry in chosen.in_stage(Stage::Privileges).filter(|e| !of_schema(e)) {
            self.grant(entry)?;
        }
        self.report_missing_roles();
        Ok(())
    }

    /// One entry of privileges: statement by statement, since each names another role.
    pub fn grant(&mut self, chosen: &ChosenEntry<'_>) -> Result<()> {
        let entry = chosen.entry;
        if chosen.borrowed || entry.dependencies.iter().any(|id| self.failed.contains(id)) {
            return Ok(());
        }
        let definition = self.chosen.renames.apply(&entry.definition, &entry.schema).into_owned();
        let statements = sql::statements(&definition)
            .map_err(|e| mainstay_domain::Failure::verification(e.to_string()))?;
        for statement in statements {
            self.grant_statement(entry, statement)?;
        }
        Ok(())
    }

    pub fn grant_statement(&mut self, entry: &Entry, statement: &[u8]) -> Result<()> {
        self.connection.take_notices();
        let outcome = self.connection.execute_bytes(statement);
        let did_nothing =
            self.connection.take_notices().into_iter().find(|n| NOTHING_GRANTED.contains(&n.code.as_str()));
        let object = || self.work.archive.describe(entry);
        match (outcome, did_nothing) {
            (Ok(_), None) => {}
            (Ok(_), Some(notice)) => self.work.problem(Severity::Warning, object(), notice.message),
            (Err(WireError::Server(message)), _) if message.code == MISSING_OBJECT => {
                let role = message.message.split('"').nth(1).unwrap_or("?").to_owned();
                *self.missing_roles.entry(role).or_default() += 1;
            }
            (Err(WireError::Server(message)), _) => {
                let harmless = judge::judge(entry, false, &message.code) != Verdict::Missing;
                let severity = if harmless { Severity::Info } else { Severity::Warning };
                self.work.problem(severity, object(), message.to_string());
            }
            (Err(error), _) => return Err(error.into()),
        }
        Ok(())
    }

    fn report_missing_roles(&mut self) {
        for (role, times) in std::mem::take(&mut self.missing_roles) {
            let text = format!(
                "it does not exist on this server; {times} objects lack it as owner or in their privileges"
            );
            self.work.problem(Severity::Warning, format!("role {role}"), text);
        }
    }

    /// Fills the materialized views that were filled, each after those it reads: the archive's order.
    pub fn refresh_materialized_views(&mut self) -> Result<()> {
        let facts = self.work.facts;
        let filled: HashSet<_> = facts
            .inventory
            .objects_of(ObjectKind::MaterializedView)
            .filter(|o| o.valid)
            .filter_map(|o| super::chosen::named(&o.identity))
            .map(|n| (self.work.archive.bytes(&n.schema), self.work.archive.bytes(&n.name)))
            .collect();
        let chosen = self.chosen;
        let mut open: Vec<&Entry> = chosen
            .entries
            .iter()
            .map(|c| c.entry)
            .filter(|e| e.kind == "MATERIALIZED VIEW" && !self.failed.contains(&e.id))
            .filter(|e| filled.contains(&(e.schema.clone(), e.tag.clone())))
            .collect();
        if open.is_empty() {
            return Ok(());
        }
        self.work.monitor.step("materialized views", None);
        // A function may read a view that no dependency names: as long as a round fills any, another may fill more.
        loop {
            let before = open.len();
            let mut refused = Vec::new();
            for entry in open {
                self.work.check_cancelled()?;
                let sql = [b"REFRESH MATERIALIZED VIEW ", &self.qualified(entry)[..]].concat();
                match self.connection.execute_bytes(&sql) {
                    Ok(_) => {}
                    Err(WireError::Server(message)) => refused.push((entry, message)),
                    Err(error) => return Err(error.into()),
                }
            }
            if refused.is_empty() || refused.len() == before {
                for (entry, message) in refused {
                    let text = format!("it could not be filled: {message}");
                    self.work.problem(Severity::Error, self.work.archive.describe(entry), text);
                }
                break;
            }
            open = refused.into_iter().map(|(entry, _)| entry).collect();
        }
        self.work.monitor.done("materialized views", "");
        Ok(())
    }

    /// Event triggers fire on every command: they come when no other is left.
    pub fn event_triggers(&mut self) -> Result<()> {
        // Making one, and what is said about it, fires none.
        let chosen = self.chosen;
        for entry in chosen.in_stage(Stage::EventTriggers) {
            self.make(entry)?;
        }
        Ok(())
    }
}
