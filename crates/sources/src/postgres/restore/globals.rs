//! Roles: those that the database needs and the server lacks are made, with attributes, settings and memberships.
//!
//! The source is what `pg_dumpall --globals-only` wrote, taken statement by statement. A role that exists is never altered;
//! a membership is given only to a role that was made here. Tablespaces are named, never made: they are places on a disk.

use super::{Target, Work, sql, vault};
use crate::postgres::wire::{Connection, WireError, text as wire_text};
use mainstay_domain::{Failure, Result, Severity};
use std::{collections::BTreeSet, io::Read};

/// Attributes that only a superuser may mention, even to leave them off. A new role has none of them.
const SUPERUSERS_WORDS: [&str; 3] = ["NOSUPERUSER", "NOREPLICATION", "NOBYPASSRLS"];

/// What a statement of the script is about.
#[derive(Debug, PartialEq, Eq)]
enum About {
    /// A setting of the session.
    Session,
    Create(Vec<u8>),
    /// ALTER, COMMENT, SECURITY LABEL.
    Role(Vec<u8>),
    Membership {
        group: Vec<u8>,
        member: Vec<u8>,
    },
    Tablespace(Vec<u8>),
    Other,
}

fn about(statement: &[u8]) -> About {
    let words = sql::leading_words(statement, 4);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let name = |at| sql::name_at(statement, at).unwrap_or_default();
    match words[..] {
        ["SET", ..] => About::Session,
        ["CREATE", "ROLE", ..] => About::Create(name(2)),
        ["ALTER", "ROLE", ..] => About::Role(name(2)),
        ["COMMENT", "ON", "ROLE", ..] => About::Role(name(3)),
        ["CREATE" | "ALTER", "TABLESPACE", ..] => About::Tablespace(name(2)),
        // GRANT group TO member; privileges on something have ON in place of TO.
        ["GRANT", ..] if sql::name_at(statement, 2).is_some_and(|w| w.eq_ignore_ascii_case(b"to")) => {
            About::Membership { group: name(1), member: name(3) }
        }
        _ => About::Other,
    }
}

/// The names of the roles that were made.
#[derive(Debug, Default)]
pub(super) struct Made {
    pub created: Vec<String>,
    pub with_password: Vec<String>,
}

/// Makes the missing roles, in the database that administers.
pub(super) fn create_missing_roles(work: &Work<'_>, target: &Target) -> Result<Made> {
    if !work.options.selection.is_everything() || work.record.stream("globals").is_none() {
        return Ok(Made::default());
    }
    let mut script = Vec::new();
    let content = vault::content(work.record, "globals")?;
    if let Err(error) = vault::VaultReader::new(work.vault, content).read_to_end(&mut script) {
        let failure = Failure::verification("they cannot be read, and those that are missing are not made")
            .caused_by(error);
        work.problem(Severity::Error, "roles", failure.with_causes());
        return Ok(Made::default());
    }
    let statements = sql::statements(&script)
        .map_err(|e| Failure::verification("the recorded roles cannot be used").caused_by(e))?;
    let parsed: Vec<(About, &[u8])> = statements.into_iter().map(|s| (about(s), s)).collect();

    let mut connection = Connection::connect(&target.server)?;
    let rows = connection.query("SELECT rolname FROM pg_catalog.pg_roles")?;
    let there: BTreeSet<Vec<u8>> = rows.iter().filter_map(|r| r.bytes(0).map(<[u8]>::to_vec)).collect();
    let missing: BTreeSet<Vec<u8>> = needed(work, &parsed).difference(&there).cloned().collect();
    if missing.is_empty() {
        return Ok(Made::default());
    }
    let mut session = Session { work, connection, made: BTreeSet::new(), with_password: BTreeSet::new() };
    for (about, statement) in &parsed {
        session.run(about, statement, &missing)?;
    }
    if !work.facts.role_passwords {
        let with_login: Vec<String> = session.made.iter().map(|r| text(r)).collect();
        let notice = format!("made without password, as none was captured: {}", with_login.join(", "));
        work.problem(Severity::Info, "roles", notice);
    }
    let names = |roles: &BTreeSet<Vec<u8>>| roles.iter().map(|r| text(r)).collect();
    Ok(Made { created: names(&session.made), with_password: names(&session.with_password) })
}

/// Roles that the database names, and the groups that these are in.
fn needed(work: &Work<'_>, parsed: &[(About, &[u8])]) -> BTreeSet<Vec<u8>> {
    let mut needed: BTreeSet<Vec<u8>> =
        work.facts.inventory.roles.iter().map(|r| wire_text::encode(r).into_owned()).collect();
    loop {
        let more: Vec<_> = parsed
            .iter()
            .filter_map(|(about, _)| match about {
                About::Membership { group, member } if needed.contains(member) => Some(group.clone()),
                _ => None,
            })
            .filter(|group| !needed.contains(group))
            .collect();
        if more.is_empty() {
            break needed;
        }
        needed.extend(more);
    }
}

fn text(name: &[u8]) -> String {
    wire_text::decode(name)
}

struct Session<'a> {
    work: &'a Work<'a>,
    connection: Connection,
    made: BTreeSet<Vec<u8>>,
    with_password: BTreeSet<Vec<u8>>,
}

impl Session<'_> {
    fn run(&mut self, about: &About, statement: &[u8], missing: &BTreeSet<Vec<u8>>) -> Result<()> {
        match about {
            About::Session => {
                self.attempt(statement)?;
            }
            About::Create(role) if missing.contains(role) => match self.attempt(statement)? {
                None => {
                    self.made.insert(role.clone());
                }
                Some(error) => self.tell(role, &format!("it could not be made: {error}")),
            },
            About::Role(role) if self.made.contains(role) => {
                // Settings within a database are among that database's properties.
                if sql::before_words(statement, &["IN", "DATABASE"]).len() < statement.len() {
                    return Ok(());
                }
                if self.attempt(statement)?.is_some() {
                    let less = sql::without_words(statement, &SUPERUSERS_WORDS);
                    if let Some(error) = self.attempt(&less)? {
                        self.tell(role, &format!("it lacks an attribute or a setting: {error}"));
                        return Ok(());
                    }
                }
                if sql::before_words(statement, &["PASSWORD"]).len() < statement.len() {
                    self.with_password.insert(role.clone());
                }
            }
            About::Membership { group, member } if self.made.contains(member) => {
                if self.attempt(statement)?.is_some() {
                    let less = sql::before_words(statement, &["GRANTED", "BY"]);
                    if let Some(error) = self.attempt(less)? {
                        self.tell(member, &format!("it is not a member of {}: {error}", text(group)));
                    }
                }
            }
            About::Membership { group, member } if self.made.contains(group) => {
                let notice = format!("{} was a member; roles that exist are not changed", text(member));
                self.work.problem(Severity::Warning, format!("role {}", text(group)), notice);
            }
            About::Create(_) | About::Role(_) | About::Membership { .. } => {}
            About::Tablespace(_) | About::Other => {}
        }
        Ok(())
    }

    /// Runs a statement; returns why the server refused it.
    fn attempt(&mut self, statement: &[u8]) -> Result<Option<String>> {
        match self.connection.execute_bytes(statement) {
            Ok(_) => Ok(None),
            // The text of a statement may hold a password: only what the server says is kept.
            Err(WireError::Server(message)) => Ok(Some(message.message)),
            Err(error) => Err(error.into()),
        }
    }

    fn tell(&self, role: &[u8], message: &str) {
        self.work.problem(Severity::Warning, format!("role {}", text(role)), message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_of_pg_dumpall_are_told_apart() {
        assert_eq!(about(b"CREATE ROLE \"Zoo R\""), About::Create(b"Zoo R".to_vec()));
        assert_eq!(
            about(b"ALTER ROLE app WITH NOSUPERUSER LOGIN PASSWORD 'x'"),
            About::Role(b"app".to_vec())
        );
        assert_eq!(
            about(b"GRANT readers TO app WITH ADMIN OPTION GRANTED BY postgres"),
            About::Membership { group: b"readers".to_vec(), member: b"app".to_vec() }
        );
        assert_eq!(about(b"GRANT CREATE ON TABLESPACE fast TO app"), About::Other);
        assert_eq!(
            about(b"CREATE TABLESPACE fast OWNER a LOCATION '/x'"),
            About::Tablespace(b"fast".to_vec())
        );
        assert_eq!(about(b"SET client_encoding = 'UTF8'"), About::Session);
    }

    #[test]
    fn words_that_only_a_superuser_may_say_are_left_out() {
        assert_eq!(
            sql::without_words(
                b"ALTER ROLE a WITH NOSUPERUSER LOGIN PASSWORD 'NOSUPERUSER'",
                &SUPERUSERS_WORDS
            ),
            b"ALTER ROLE a WITH  LOGIN PASSWORD 'NOSUPERUSER'"
        );
        assert_eq!(sql::before_words(b"GRANT a TO b GRANTED BY c", &["GRANTED", "BY"]), b"GRANT a TO b");
    }
}
