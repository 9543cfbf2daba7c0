//! The database itself: made empty with its recorded encoding and locale; its owner, privileges and settings at the end.

use super::{DISK_FULL, Target, Work, archive::Entry, chosen, sql, unfinished};
use crate::postgres::{
    facts::Database,
    wire::{Connection, WireError, quote_ident, quote_literal},
};
use mainstay_domain::{Failure, Kind, Result, Severity};

const DUPLICATE_DATABASE: &str = "42P04";
const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// The statement that makes the database as it was: from template0, so that nothing of the target server comes with it.
fn create_statement(
    name: &str,
    recorded: &Database,
    version: u32,
    with_locale: bool,
    tablespace: Option<&str>,
) -> String {
    let mut sql = format!(
        "CREATE DATABASE {} WITH TEMPLATE = template0 ENCODING = {}",
        quote_ident(name),
        quote_literal(&recorded.encoding)
    );
    if let Some(tablespace) = tablespace {
        sql.push_str(&format!(" TABLESPACE = {}", quote_ident(tablespace)));
    }
    if !with_locale {
        return sql;
    }
    sql.push_str(&format!(
        " LC_COLLATE = {} LC_CTYPE = {}",
        quote_literal(&recorded.collate),
        quote_literal(&recorded.ctype)
    ));
    if version < 150_000 {
        return sql;
    }
    sql.push_str(&format!(" LOCALE_PROVIDER = {}", recorded.locale_provider));
    if let Some(locale) = &recorded.locale {
        let word = if recorded.locale_provider == "builtin" { "BUILTIN_LOCALE" } else { "ICU_LOCALE" };
        sql.push_str(&format!(" {word} = {}", quote_literal(locale)));
    }
    if let Some(rules) = recorded.icu_rules.as_ref().filter(|_| version >= 160_000) {
        sql.push_str(&format!(" ICU_RULES = {}", quote_literal(rules)));
    }
    sql
}

/// Makes the database, marked as not finished.
///
/// # Errors
/// `Preflight` if it exists, may not be made, or its locale is unknown and no other is accepted.
pub(super) fn create(work: &Work<'_>, target: &Target) -> Result<()> {
    let mut connection = Connection::connect(&target.server)?;
    let recorded = &work.facts.inventory.database;
    let version = connection.server_version_num();
    let tablespace = tablespace(work, &mut connection)?;
    let statement = |with_locale| {
        create_statement(&target.database, recorded, version, with_locale, tablespace.as_deref())
    };
    let error = match connection.execute(&statement(true)) {
        Ok(_) => return mark(work, &mut connection, target),
        Err(WireError::Server(message)) => message,
        Err(error) => return Err(error.into()),
    };
    let refused = |text: String| Failure::new(Kind::Preflight, text);
    match error.code.as_str() {
        DUPLICATE_DATABASE => {
            let rest = unfinished::of(&mut connection, &target.database)?;
            return Err(unfinished::exists(&target.database, rest.as_ref()));
        }
        DISK_FULL => {
            return Err(refused(format!("the server has no room for a new database: {error}")).hint(
                "Make room where its data directory or its tablespaces lie, or restore to another server.",
            ));
        }
        INSUFFICIENT_PRIVILEGE => {
            return Err(refused(format!("{} may not create a database", target.server.user))
                .hint("Give it CREATEDB, or create the database and restore into it."));
        }
        _ => {}
    }
    if !work.options.other_locale {
        return Err(refused(format!(
            "the server cannot create a database with the recorded locale (collation {}, characters {}, provider {}): {error}",
            recorded.collate, recorded.ctype, recorded.locale_provider
        ))
        .hint("Install the locale on the server, or accept its own: text may then sort otherwise."));
    }
    connection.execute(&statement(false))?;
    mark(work, &mut connection, target)?;
    let text = format!(
        "the server does not know {} (provider {}); its own locale is used, and text may sort otherwise",
        recorded.locale.as_ref().unwrap_or(&recorded.collate),
        recorded.locale_provider
    );
    work.problem(Severity::Warning, "locale", text);
    Ok(())
}

/// Where the database lay, if that is not where all lie that nobody said anything of, and it can lie there again. It is a place and
/// no content: without it the database is as good.
fn tablespace(work: &Work<'_>, connection: &mut Connection) -> Result<Option<String>> {
    let recorded = &work.facts.inventory.database.tablespace;
    if recorded.is_empty() || recorded == "pg_default" {
        return Ok(None);
    }
    let sql = format!(
        "SELECT pg_catalog.has_tablespace_privilege(oid, 'CREATE') FROM pg_catalog.pg_tablespace WHERE spcname = {}",
        quote_literal(recorded)
    );
    let trouble = match connection.query_text(&sql)?.as_deref() {
        Some("t") => return Ok(Some(recorded.clone())),
        Some(_) => format!("{} may not use", work.spec.user),
        None => "the server does not have".to_owned(),
    };
    let text = format!("{trouble} its tablespace {recorded}: it lies in the default one");
    work.problem(Severity::Warning, "database", text);
    Ok(None)
}

/// A crash between the two leaves an empty database, which nobody takes for a whole one.
fn mark(work: &Work<'_>, connection: &mut Connection, target: &Target) -> Result<()> {
    let statement = |comment| unfinished::mark(&target.database, &work.options.of, comment);
    let comment = work.facts.inventory.database.comment.as_deref();
    match connection.execute(&statement(comment)?) {
        // What the database to administer from has no characters for; the mark itself is plain ASCII but for names.
        Err(WireError::Server(message)) if comment.is_some() => {
            work.problem(Severity::Warning, "comment of the database", message.to_string());
            connection.execute(&statement(None)?)?;
        }
        marked => drop(marked?),
    }
    Ok(())
}

/// Takes the mark off: the database gets the comment that it was captured with. Nothing comes after this.
pub(super) fn finished(work: &Work<'_>, target: &Target) -> Result<()> {
    let mut connection = Connection::connect(&target.server)?;
    let Some(sql) = unfinished::take_off(&mut connection, &target.database, &target.database)? else {
        return Ok(());
    };
    run(work, &mut connection, "comment of the database, which says that it is not finished", sql.as_bytes())
}

/// Gives the new database its owner, privileges, connection limit and settings. Its comment is still the mark.
pub(super) fn properties(work: &Work<'_>, target: &Target) -> Result<()> {
    let mut connection = Connection::connect(&target.server)?;
    connection.execute(&format!("SET client_encoding = {}", quote_literal(&work.archive.encoding)))?;
    let name = work.archive.bytes(&target.database);
    let (owner, options) = (&work.facts.inventory.database.owner, work.options);
    if options.owners && *owner != target.server.user {
        let sql = format!("ALTER DATABASE {} OWNER TO {}", quote_ident(&target.database), quote_ident(owner));
        run(work, &mut connection, "owner of the database", &work.archive.bytes(&sql))?;
    }
    for entry in chosen::of_database(work.archive) {
        let (made, commented) = (entry.kind == "DATABASE", entry.kind == "COMMENT");
        if made || commented || (entry.kind == "ACL" && !options.privileges) {
            continue;
        }
        for statement in statements(entry)? {
            let statement = sql::name_database(statement, &name);
            run(work, &mut connection, &work.archive.describe(entry), &statement)?;
        }
    }
    Ok(())
}

fn statements(entry: &Entry) -> Result<Vec<&[u8]>> {
    sql::statements(&entry.definition).map_err(|e| Failure::verification(e.to_string()))
}

fn run(work: &Work<'_>, connection: &mut Connection, object: &str, statement: &[u8]) -> Result<()> {
    match connection.execute_bytes(statement) {
        Ok(_) => Ok(()),
        Err(WireError::Server(message)) => {
            work.problem(Severity::Warning, object, message.to_string());
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_made_with_what_its_server_version_knows() {
        let recorded = Database {
            encoding: "UTF8".to_owned(),
            collate: "C".to_owned(),
            ctype: "C".to_owned(),
            locale_provider: "icu".to_owned(),
            locale: Some("de-AT".to_owned()),
            ..Database::default()
        };
        assert_eq!(
            create_statement("a\"b", &recorded, 150_004, true, None),
            "CREATE DATABASE \"a\"\"b\" WITH TEMPLATE = template0 ENCODING = 'UTF8' LC_COLLATE = 'C' LC_CTYPE = 'C' LOCALE_PROVIDER = icu ICU_LOCALE = 'de-AT'"
        );
        assert!(create_statement("x", &recorded, 140_000, true, None).ends_with("LC_CTYPE = 'C'"));
        assert!(create_statement("x", &recorded, 150_000, false, None).ends_with("ENCODING = 'UTF8'"));
    }
}
