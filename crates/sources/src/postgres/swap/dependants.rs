//! What others have that hangs on the living table, found by PostgreSQL's own record of dependencies (`pg_depend`): what is not known
//! here how to follow is refused by name, never passed over.

use super::{Script, Swapped, comment, materialized};
use crate::postgres::wire::{Connection, Row, quote_ident};
use mainstay_domain::Result;
use std::collections::HashSet;

/// Each object that depends on one of the tables, on their sequences or on their row types; with the relation that it is a part of.
fn query(oids: &str) -> String {
    format!(
        "WITH ours AS (
           SELECT c.oid FROM pg_catalog.pg_class c WHERE c.oid IN ({oids})
           UNION SELECT d.objid FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_class s ON s.oid = d.objid AND s.relkind = 'S'
            WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refclassid = d.classid
              AND d.refobjid IN ({oids}) AND d.deptype IN ('a', 'i')),
         types AS (
           SELECT t.oid FROM pg_catalog.pg_type t WHERE t.typrelid IN ({oids})
           UNION SELECT t.typarray FROM pg_catalog.pg_type t WHERE t.typrelid IN ({oids})),
         found AS (
           SELECT DISTINCT d.classid::pg_catalog.regclass::text AS class, d.classid, d.objid, d.objsubid,
                  d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass AS by_type
             FROM pg_catalog.pg_depend d
            WHERE d.deptype <> 'i' AND (
                  d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid IN (SELECT oid FROM ours)
                  OR d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass AND d.refobjid IN (SELECT oid FROM types)))
         SELECT f.class, f.objid::text, f.by_type, pg_catalog.pg_describe_object(f.classid, f.objid, f.objsubid),
                CASE f.class WHEN 'pg_rewrite' THEN (SELECT ev_class FROM pg_catalog.pg_rewrite WHERE oid = f.objid)
                             WHEN 'pg_attrdef' THEN (SELECT adrelid FROM pg_catalog.pg_attrdef WHERE oid = f.objid)
                             WHEN 'pg_trigger' THEN (SELECT tgrelid FROM pg_catalog.pg_trigger WHERE oid = f.objid)
                             WHEN 'pg_policy' THEN (SELECT polrelid FROM pg_catalog.pg_policy WHERE oid = f.objid)
                             WHEN 'pg_constraint' THEN (SELECT conrelid FROM pg_catalog.pg_constraint WHERE oid = f.objid)
                             WHEN 'pg_statistic_ext' THEN (SELECT stxrelid FROM pg_catalog.pg_statistic_ext WHERE oid = f.objid)
                             WHEN 'pg_class' THEN coalesce((SELECT indrelid FROM pg_catalog.pg_index WHERE indexrelid = f.objid), f.objid)
                END::text,
                f.class = 'pg_class' AND (EXISTS (SELECT FROM pg_catalog.pg_inherits WHERE inhrelid = f.objid AND inhparent IN ({oids}))
                                          OR f.objid IN (SELECT oid FROM ours))
           FROM found f ORDER BY 1, 4"
    )
}

/// Adds what must be done so that what hangs on the tables follows.
pub(super) fn follow(
    connection: &mut Connection,
    swapped: &[Swapped<'_>],
    script: &mut Script,
) -> Result<()> {
    let oids: Vec<&str> = swapped.iter().map(|one| one.live.as_str()).collect();
    if oids.is_empty() {
        return Ok(());
    }
    let mut seen = HashSet::new();
    let found = connection.query(&query(&oids.join(", ")))?;
    for row in &found {
        let (class, objid, what) = (row.text(0), row.text(1), row.text(3));
        // A part of a swapped table, of which its own definition takes care.
        if row.opt(4).is_some_and(|rel| oids.contains(&rel.as_str())) || row.bool(5) {
            continue;
        }
        if row.bool(2) {
            let way = way_around(connection, &class, &objid)?;
            script.refuse(
                format!("{what} uses the row type of the table"),
                &format!("{way} Or put the rows back with --merge."),
            );
            continue;
        }
        if !seen.insert((class.clone(), objid.clone())) {
            continue;
        }
        match class.as_str() {
            "pg_rewrite" => reader(connection, &objid, &what, script)?,
            "pg_attrdef" => default(connection, &objid, &what, script)?,
            "pg_policy" => policy(connection, &objid, &what, script)?,
            "pg_constraint" => foreign_key(connection, &objid, &what, swapped, script)?,
            "pg_proc" => function(connection, &objid, &what, script)?,
            "pg_publication_rel" => publication(connection, &objid, &what, script)?,
            _ => cannot(&what, script)?,
        }
    }
    materialized::follow(connection, script)?;
    materialized::refresh_others(connection, &oids, script)
}

/// What a person would have to do with something that is tied to the old table's row type: the type goes with the table.
fn way_around(connection: &mut Connection, class: &str, oid: &str) -> Result<String> {
    let found = match class {
        "pg_proc" => one(
            connection,
            &format!(
                "SELECT pg_catalog.format('DROP ROUTINE %s;', p.oid::pg_catalog.regprocedure), pg_catalog.pg_get_functiondef(p.oid)
                   FROM pg_catalog.pg_proc p WHERE p.oid = {oid} AND p.prokind IN ('f', 'p')"
            ),
        )?,
        _ => None,
    };
    Ok(match found {
        Some(row) => format!("Before the swap: {} After it: {}.", row.text(0), row.text(1).trim_end()),
        None => "Change that to another type first, such as jsonb: ALTER TABLE … ALTER COLUMN … TYPE jsonb USING to_jsonb(…).".to_owned(),
    })
}

fn cannot(what: &str, script: &mut Script) -> Result<()> {
    script.refuse(
        format!("{what} hangs on the table and cannot be made to follow"),
        "Drop it and make it anew after the swap; or put the rows back with --merge.",
    );
    Ok(())
}

pub(super) fn one(connection: &mut Connection, sql: &str) -> Result<Option<Row>> {
    Ok(connection.query(sql)?.iter().next().cloned())
}

/// A foreign key of another table. Whether it holds is known before anything is changed.
fn foreign_key(
    connection: &mut Connection,
    oid: &str,
    what: &str,
    swapped: &[Swapped<'_>],
    script: &mut Script,
) -> Result<()> {
    let found = one(
        connection,
        &format!(
            "SELECT contype, conparentid <> 0, pg_catalog.format('%I.%I', n.nspname, c.relname), conname,
                    pg_catalog.pg_get_constraintdef(k.oid), pg_catalog.obj_description(k.oid, 'pg_constraint'), convalidated,
                    confrelid::text,
                    (SELECT pg_catalog.string_agg(pg_catalog.format('c.%I = b.%I', a.attname, p.attname), ' AND ')
                       FROM ROWS FROM (pg_catalog.unnest(conkey), pg_catalog.unnest(confkey)) AS keys (own, theirs)
                       JOIN pg_catalog.pg_attribute a ON a.attrelid = conrelid AND a.attnum = keys.own
                       JOIN pg_catalog.pg_attribute p ON p.attrelid = confrelid AND p.attnum = keys.theirs),
                    (SELECT pg_catalog.string_agg(pg_catalog.format('c.%I IS NOT NULL', a.attname), ' AND ')
                       FROM pg_catalog.unnest(conkey) AS keys (own)
                       JOIN pg_catalog.pg_attribute a ON a.attrelid = conrelid AND a.attnum = keys.own)
               FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
               JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE k.oid = {oid}"
        ),
    )?;
    let Some(row) = found else { return cannot(what, script) };
    if row.text(0) != "f" {
        return cannot(what, script);
    }
    if row.bool(1) {
        return Ok(()); // of a partition: its parent's follows, and takes this one along
    }
    let (child, name, definition) = (row.text(2), quote_ident(&row.text(3)), row.text(4));
    let Some(to) = swapped.iter().find(|one| one.live == row.text(7)) else {
        return cannot(what, script);
    };
    if row.bool(6) {
        let orphans = connection.query(&format!(
            "SELECT count(*) FROM {child} c WHERE {} AND NOT EXISTS (SELECT FROM {} b WHERE {})",
            row.text(9),
            to.beside_name(),
            row.text(8)
        ))?;
        let orphans = orphans.iter().next().map_or(Ok(0), |row| row.int(0))?;
        if orphans > 0 {
            script.refuse(
                format!(
                    "{orphans} rows of {child} refer (by {}) to rows that the restored {} does not have",
                    row.text(3),
                    to.pair.live
                ),
                "Take that table back too, in one command (--table for each); or put rows back with --merge.",
            );
        }
    }
    script.before.push(format!("ALTER TABLE {child} DROP CONSTRAINT {name}"));
    script.last.push(format!("ALTER TABLE {child} ADD CONSTRAINT {name} {definition}"));
    if let Some(text) = row.opt(5) {
        script.last.push(comment(&format!("CONSTRAINT {name} ON {child}"), Some(&text)));
    }
    script.follows.push(format!("foreign key {} of {child}", row.text(3)));
    Ok(())
}

/// A view, a materialized view, or a rule on another table.
fn reader(connection: &mut Connection, oid: &str, what: &str, script: &mut Script) -> Result<()> {
    let found = one(
        connection,
        &format!(
            "SELECT c.relkind, pg_catalog.format('%I.%I', n.nspname, c.relname), c.oid::text,
                    CASE WHEN c.relkind IN ('v', 'm') THEN pg_catalog.pg_get_viewdef(c.oid) ELSE pg_catalog.pg_get_ruledef(r.oid) END,
                    (SELECT pg_catalog.string_agg(pg_catalog.format('%I=%L', split_part(o, '=', 1), pg_catalog.substr(o, pg_catalog.strpos(o, '=') + 1)), ', ')
                       FROM pg_catalog.unnest(c.reloptions) AS o)
               FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_class c ON c.oid = r.ev_class
               JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE r.oid = {oid}"
        ),
    )?;
    let Some(row) = found else { return cannot(what, script) };
    let (name, text) = (row.text(1), row.text(3));
    let with = row.opt(4).map(|options| format!(" WITH ({options})")).unwrap_or_default();
    match (row.text(0).as_str(), text.strip_prefix("CREATE RULE ")) {
        // It stays the object that it is, with its grants and all that reads it.
        ("v", _) if what.starts_with("rule _RETURN ") => {
            script
                .last
                .push(format!("CREATE OR REPLACE VIEW {name}{with} AS {}", text.trim_end_matches(';')));
            script.follows.push(format!("view {name}"));
            Ok(())
        }
        // Several may read one another: they come together, in order.
        ("m", _) => {
            script.materialized.push(row.text(2));
            Ok(())
        }
        (_, Some(rule)) => {
            script.last.push(format!("CREATE OR REPLACE RULE {rule}"));
            script.follows.push(what.to_owned());
            Ok(())
        }
        _ => cannot(what, script),
    }
}

/// A column of another table takes its values from one of the table's sequences.
fn default(connection: &mut Connection, oid: &str, what: &str, script: &mut Script) -> Result<()> {
    let found = one(
        connection,
        &format!(
            "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), a.attname, pg_catalog.pg_get_expr(d.adbin, d.adrelid),
                    a.attgenerated = '' AND c.relkind IN ('r', 'p', 'f', 'v')
               FROM pg_catalog.pg_attrdef d JOIN pg_catalog.pg_class c ON c.oid = d.adrelid
               JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
               JOIN pg_catalog.pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum WHERE d.oid = {oid}"
        ),
    )?;
    match found {
        Some(row) if row.bool(3) => {
            let column = quote_ident(&row.text(1));
            script.last.push(format!(
                "ALTER TABLE {} ALTER COLUMN {column} SET DEFAULT {}",
                row.text(0),
                row.text(2)
            ));
            script.follows.push(what.to_owned());
        }
        _ => cannot(what, script)?,
    }
    Ok(())
}

/// A policy of another table that looks into this one.
fn policy(connection: &mut Connection, oid: &str, what: &str, script: &mut Script) -> Result<()> {
    let found = one(
        connection,
        &format!(
            "SELECT p.polname, pg_catalog.format('%I.%I', n.nspname, c.relname), pg_catalog.pg_get_expr(p.polqual, p.polrelid),
                    pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid)
               FROM pg_catalog.pg_policy p JOIN pg_catalog.pg_class c ON c.oid = p.polrelid
               JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE p.oid = {oid}"
        ),
    )?;
    let Some(row) = found else { return cannot(what, script) };
    let using = row.opt(2).map(|text| format!(" USING ({text})")).unwrap_or_default();
    let check = row.opt(3).map(|text| format!(" WITH CHECK ({text})")).unwrap_or_default();
    script.last.push(format!("ALTER POLICY {} ON {}{using}{check}", quote_ident(&row.text(0)), row.text(1)));
    script.follows.push(what.to_owned());
    Ok(())
}

/// A function whose body PostgreSQL keeps in parsed form (`BEGIN ATOMIC`); others find the table by its name anyway.
fn function(connection: &mut Connection, oid: &str, what: &str, script: &mut Script) -> Result<()> {
    let found = one(
        connection,
        &format!(
            "SELECT pg_catalog.pg_get_functiondef(oid) FROM pg_catalog.pg_proc WHERE oid = {oid} AND prokind IN ('f', 'p')"
        ),
    )?;
    match found.and_then(|row| row.opt(0)) {
        Some(text) => {
            script.last.push(text);
            script.follows.push(what.to_owned());
        }
        None => cannot(what, script)?,
    }
    Ok(())
}

fn publication(connection: &mut Connection, oid: &str, what: &str, script: &mut Script) -> Result<()> {
    // Row filters and lists of columns came with PostgreSQL 15.
    let (filter, columns) = match connection.server_version_num() >= 150_000 {
        true => (
            "pg_catalog.pg_get_expr(r.prqual, r.prrelid)",
            "(SELECT pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' ORDER BY a.attnum)
                FROM pg_catalog.unnest(r.prattrs) AS n JOIN pg_catalog.pg_attribute a ON a.attrelid = r.prrelid AND a.attnum = n)",
        ),
        false => ("NULL", "NULL"),
    };
    let found = one(
        connection,
        &format!(
            "SELECT p.pubname, pg_catalog.format('%I.%I', n.nspname, c.relname), {filter}, {columns}
               FROM pg_catalog.pg_publication_rel r JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid
               JOIN pg_catalog.pg_class c ON c.oid = r.prrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
              WHERE r.oid = {oid}"
        ),
    )?;
    let Some(row) = found else { return cannot(what, script) };
    let (name, table) = (quote_ident(&row.text(0)), row.text(1));
    let columns = row.opt(3).map(|columns| format!(" ({columns})")).unwrap_or_default();
    let filter = row.opt(2).map(|filter| format!(" WHERE ({filter})")).unwrap_or_default();
    script.before.push(format!("ALTER PUBLICATION {name} DROP TABLE ONLY {table}"));
    script.last.push(format!("ALTER PUBLICATION {name} ADD TABLE ONLY {table}{columns}{filter}"));
    script.follows.push(format!("publication {}", row.text(0)));
    script.notices.push(format!(
        "subscribers of {} copy the new table after ALTER SUBSCRIPTION … REFRESH PUBLICATION",
        row.text(0)
    ));
    Ok(())
}
