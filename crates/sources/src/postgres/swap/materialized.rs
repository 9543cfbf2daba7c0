//! Materialized views that read the living table are dropped and made anew: there is no other way. Those that read them go along; a view that
//! reads one stays the object that it is, and reads nothing meanwhile. It gets its query back before anything that is filled through it.

use super::{Script, comment, dependants::one, own::rows, rights::grants};
use crate::postgres::wire::{Connection, Row, quote_ident};
use mainstay_domain::Result;
use std::collections::BTreeMap;

/// Adds what must be done so that those in `script.materialized` follow, and what reads them.
pub(super) fn follow(connection: &mut Connection, script: &mut Script) -> Result<()> {
    if script.materialized.is_empty() {
        return Ok(());
    }
    let remade = rows(
        connection,
        &format!(
            "WITH RECURSIVE remade AS (
               SELECT oid, 0 AS level FROM pg_catalog.pg_class WHERE oid IN ({})
               UNION SELECT c.oid, remade.level + 1 FROM remade
                 JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = remade.oid
                  AND d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
                 JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid AND r.ev_class <> remade.oid
                 JOIN pg_catalog.pg_class c ON c.oid = r.ev_class AND c.relkind = 'm' WHERE remade.level < 100)
             SELECT c.oid::text, pg_catalog.format('%I.%I', n.nspname, c.relname), pg_catalog.pg_get_viewdef(c.oid),
                    {OPTIONS}, c.relispopulated, pg_catalog.pg_get_userbyid(c.relowner),
                    pg_catalog.obj_description(c.oid, 'pg_class'), t.spcname
               FROM (SELECT oid, max(level) AS level FROM remade GROUP BY oid) AS all_of_them
               JOIN pg_catalog.pg_class c USING (oid) JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
               LEFT JOIN pg_catalog.pg_tablespace t ON t.oid = c.reltablespace ORDER BY level, 2",
            script.materialized.join(", ")
        ),
    )?;
    let mut hollowed = BTreeMap::new();
    for row in &remade {
        readers(connection, &row.text(0), &row.text(1), &mut hollowed, script)?;
    }
    // The last one reads the others.
    script.before.extend(remade.iter().rev().map(|row| format!("DROP MATERIALIZED VIEW {}", row.text(1))));
    let all: Vec<String> = remade.iter().map(|row| row.text(0)).chain(hollowed.keys().cloned()).collect();
    for row in &in_order(connection, &all)? {
        let oid = row.text(0);
        match hollowed.remove(&oid) {
            Some(again) => script.last.push(again),
            None => {
                if let Some(row) = remade.iter().find(|row| row.text(0) == oid) {
                    make(connection, row, script)?;
                }
            }
        }
    }
    Ok(())
}

/// Those that read the table only through views, or as a part of what it is a partition or a child of, stay the objects that they are; what they
/// keep is of the old table, and they are refreshed when all is in place.
pub(super) fn refresh_others(connection: &mut Connection, lives: &[&str], script: &mut Script) -> Result<()> {
    let reached = rows(
        connection,
        &format!(
            "WITH RECURSIVE parts AS (
               SELECT oid FROM pg_catalog.pg_class WHERE oid IN ({0})
               UNION SELECT i.inhparent FROM parts JOIN pg_catalog.pg_inherits i ON i.inhrelid = parts.oid),
             reached AS (
               SELECT oid, 0 AS level FROM parts
               UNION SELECT c.oid, reached.level + 1 FROM reached
                 JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = reached.oid
                  AND d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
                 JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid AND r.ev_class <> reached.oid
                 JOIN pg_catalog.pg_class c ON c.oid = r.ev_class AND c.relkind IN ('v', 'm') WHERE reached.level < 100)
             SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) FROM reached JOIN pg_catalog.pg_class c USING (oid)
               JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
              WHERE c.relkind = 'm' AND c.relispopulated GROUP BY 1 ORDER BY max(level), 1",
            lives.join(", ")
        ),
    )?;
    for row in &reached {
        let name = row.text(0);
        if !script.remade.contains(&name) {
            script.last.push(format!("REFRESH MATERIALIZED VIEW {name}"));
            script.follows.push(format!("materialized view {name}, refreshed"));
        }
    }
    Ok(())
}

/// Those that read others after them, through whatever views: one that is filled through a hollow view would be filled with nothing.
fn in_order(connection: &mut Connection, oids: &[String]) -> Result<Vec<Row>> {
    let oids = oids.join(", ");
    rows(
        connection,
        &format!(
            "WITH RECURSIVE depth AS (
               SELECT oid, 0 AS level FROM pg_catalog.pg_class WHERE oid IN ({oids})
               UNION SELECT r.ev_class, depth.level + 1 FROM depth
                 JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = depth.oid
                  AND d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
                 JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid AND r.ev_class <> depth.oid WHERE depth.level < 100)
             SELECT oid::text FROM depth WHERE oid IN ({oids}) GROUP BY oid ORDER BY max(level), oid"
        ),
    )
}

/// `WITH (…)` of a view, as its definition does not say it.
const OPTIONS: &str = "(SELECT ' WITH (' || pg_catalog.string_agg(pg_catalog.format('%I=%L', split_part(o, '=', 1), pg_catalog.substr(o, pg_catalog.strpos(o, '=') + 1)), ', ') || ')'
                       FROM pg_catalog.unnest(c.reloptions) AS o)";

fn make(connection: &mut Connection, row: &Row, script: &mut Script) -> Result<()> {
    let (oid, name) = (row.text(0), row.text(1));
    let space = row.opt(7).map(|space| format!(" TABLESPACE {}", quote_ident(&space))).unwrap_or_default();
    let with = row.opt(3).unwrap_or_default();
    let last = &mut script.last;
    last.push(format!(
        "CREATE MATERIALIZED VIEW {name}{with}{space} AS {} WITH NO DATA",
        row.text(2).trim_end_matches(';')
    ));
    for index in &rows(
        connection,
        &format!(
            "SELECT pg_catalog.pg_get_indexdef(indexrelid) FROM pg_catalog.pg_index WHERE indrelid = {oid} ORDER BY indexrelid"
        ),
    )? {
        last.push(index.text(0));
    }
    if let Some(text) = row.opt(6) {
        last.push(comment(&format!("MATERIALIZED VIEW {name}"), Some(&text)));
    }
    last.push(format!("ALTER MATERIALIZED VIEW {name} OWNER TO {}", quote_ident(&row.text(5))));
    last.extend(grants(connection, &oid, "TABLE", &name)?);
    if row.bool(4) {
        // As its owner: its query may call anybody's functions.
        last.push(format!("REFRESH MATERIALIZED VIEW {name}"));
    }
    script.follows.push(format!("materialized view {name}, made anew"));
    script.remade.push(name);
    Ok(())
}

/// What else reads a materialized view. A view is replaced by one of the same columns that reads nothing, and gets its own query back when all is there.
fn readers(
    connection: &mut Connection,
    oid: &str,
    name: &str,
    hollowed: &mut BTreeMap<String, String>,
    script: &mut Script,
) -> Result<()> {
    let found = rows(
        connection,
        &format!(
            "SELECT DISTINCT pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid),
                    CASE WHEN c.relkind = 'v' AND r.rulename = '_RETURN' THEN c.oid::text END
               FROM pg_catalog.pg_depend d
               LEFT JOIN pg_catalog.pg_rewrite r ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND r.oid = d.objid
               LEFT JOIN pg_catalog.pg_class c ON c.oid = r.ev_class
              WHERE d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = {oid} AND d.deptype = 'n'
                AND c.relkind IS DISTINCT FROM 'm'"
        ),
    )?;
    for row in &found {
        match row.opt(1) {
            Some(view) => hollow(connection, view, hollowed, script)?,
            None => script.refuse(
                format!("{} reads the materialized view {name}, which must be made anew", row.text(0)),
                "Drop it and make it anew after the swap; or put the rows back with --merge.",
            ),
        }
    }
    Ok(())
}

/// Adds to `hollowed`, by the view's oid, the statement that gives it its query back.
fn hollow(
    connection: &mut Connection,
    oid: String,
    hollowed: &mut BTreeMap<String, String>,
    script: &mut Script,
) -> Result<()> {
    if hollowed.contains_key(&oid) {
        return Ok(()); // it reads several of them
    }
    let about = one(
        connection,
        &format!(
            "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), pg_catalog.pg_get_viewdef(c.oid), {OPTIONS},
                    (SELECT pg_catalog.string_agg('NULL::' || pg_catalog.format_type(a.atttypid, a.atttypmod)
                              || CASE WHEN a.attcollation <> t.typcollation
                                      THEN (SELECT pg_catalog.format(' COLLATE %I.%I', s.nspname, l.collname) FROM pg_catalog.pg_collation l
                                              JOIN pg_catalog.pg_namespace s ON s.oid = l.collnamespace WHERE l.oid = a.attcollation) ELSE '' END
                              || pg_catalog.format(' AS %I', a.attname), ', ' ORDER BY a.attnum)
                       FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
                      WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)
               FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = {oid}"
        ),
    )?;
    let Some(about) = about else { return Ok(()) };
    let name = about.text(0);
    let again = format!(
        "CREATE OR REPLACE VIEW {name}{} AS {}",
        about.opt(2).unwrap_or_default(),
        about.text(1).trim_end_matches(';')
    );
    script
        .before
        .push(format!("CREATE OR REPLACE VIEW {name} AS SELECT {}", about.opt(3).unwrap_or_default()));
    // What reads the table itself comes with that, too; this is done when the materialized views are there.
    script.last.retain(|statement| *statement != again);
    script.follows.retain(|follows| *follows != format!("view {name}"));
    hollowed.insert(oid, again);
    script.follows.push(format!("view {name}"));
    Ok(())
}
