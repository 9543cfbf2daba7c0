//! What the living table has itself: whether the restored one can stand for it, and how it comes by today's constraints, indexes,
//! triggers, policies, rules, grants, comments and sequences. Rows are those of then; all else is as it is now.

use super::{
    Script, Swapped,
    rights::{comments, grants, security},
};
use crate::postgres::wire::{Connection, Row, quote_ident, quote_literal, quote_qualified};
use mainstay_domain::Result;

pub(super) fn rows(connection: &mut Connection, sql: &str) -> Result<Vec<Row>> {
    Ok(connection.query(sql)?.iter().cloned().collect())
}

/// Whether both are tables of the same shape. What is not is refused, by column.
pub(super) fn fits(connection: &mut Connection, one: &Swapped<'_>, script: &mut Script) -> Result<bool> {
    let before = script.refusals.len();
    let table = &one.pair.live;
    let facts = rows(
        connection,
        &format!(
            "SELECT c.relkind, c.relpersistence, c.reloftype <> 0,
                    EXISTS (SELECT FROM pg_catalog.pg_depend WHERE classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND objid = c.oid
                               AND refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND deptype = 'e'),
                    EXISTS (SELECT FROM pg_catalog.pg_seclabel WHERE objoid = c.oid),
                    EXISTS (SELECT FROM pg_catalog.pg_subscription_rel WHERE srrelid = c.oid)
               FROM pg_catalog.pg_class c WHERE c.oid IN ({}, {}) ORDER BY c.oid = {}",
            one.live, one.beside, one.beside
        ),
    )?;
    let alone = "Put the rows back with --merge, or swap it by hand.";
    if facts.iter().any(|row| row.text(0) != "r") {
        let partitions = rows(
            connection,
            &format!(
                "SELECT pg_catalog.string_agg('--table ' || pg_catalog.format('%I.%I', n.nspname, c.relname), ' ' ORDER BY c.relname)
                   FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid AND c.relispartition
                   JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE i.inhparent = {}",
                one.live
            ),
        )?;
        let hint = match partitions.first().and_then(|row| row.opt(0)) {
            Some(all) => {
                format!("Swap its partitions, in one command: {all}. Or put the rows back with --merge.")
            }
            None => "Put the rows back with --merge.".to_owned(),
        };
        script.refuse(format!("{table} is partitioned, or no table"), &hint);
        return Ok(false);
    }
    if let Some(live) = facts.first() {
        for (at, what) in [
            (2, "is a table of a type"),
            (3, "belongs to an extension"),
            (4, "has a security label"),
            (5, "is filled by a subscription"),
        ] {
            if live.bool(at) {
                script.refuse(format!("{table} {what}"), alone);
            }
        }
    }
    let shape = |oid: &str| {
        format!(
            "SELECT a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attidentity::text || a.attgenerated::text,
                    (SELECT n.nspname || '.' || c.collname FROM pg_catalog.pg_collation c
                       JOIN pg_catalog.pg_namespace n ON n.oid = c.collnamespace WHERE c.oid = a.attcollation),
                    a.attnotnull, CASE WHEN a.attgenerated <> '' THEN pg_catalog.pg_get_expr(d.adbin, d.adrelid) END,
                    CASE WHEN a.attgenerated = '' THEN pg_catalog.pg_get_expr(d.adbin, d.adrelid) END
               FROM pg_catalog.pg_attribute a LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
              WHERE a.attrelid = {oid} AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum"
        )
    };
    let live = rows(connection, &shape(&one.live))?;
    let then = rows(connection, &shape(&one.beside))?;
    let of = |columns: &[Row], name: &str| columns.iter().find(|row| row.text(0) == name).cloned();
    let hint = "Alter the restored table so that it has today's columns, or put the rows back with --merge.";
    for column in &live {
        let name = column.text(0);
        match of(&then, &name) {
            None => script.refuse(format!("column {name} of {table} was not there then"), hint),
            Some(other) if (1..=3).any(|at| column.opt(at) != other.opt(at)) => script.refuse(
                format!("column {name} of {table} is {} now and was {} then", column.text(1), other.text(1)),
                hint,
            ),
            Some(other) if other.opt(5).map(|text| one.as_live(&text)) != column.opt(5) => {
                script.refuse(format!("column {name} of {table} was generated in another way then"), hint);
            }
            Some(_) => {}
        }
    }
    for column in then.iter().filter(|column| of(&live, &column.text(0)).is_none()) {
        script.refuse(format!("column {} of {table} is not there any more", column.text(0)), hint);
    }
    let order = |columns: &[Row]| columns.iter().map(|row| row.text(0)).collect::<Vec<_>>();
    if script.refusals.len() == before && order(&live) != order(&then) {
        script.refuse(format!("the columns of {table} are in another order now"), hint);
    }
    if script.refusals.len() > before {
        return Ok(false);
    }
    let name = one.live_name();
    for column in &live {
        let Some(other) = of(&then, &column.text(0)) else { continue };
        let alter = format!("ALTER TABLE {name} ALTER COLUMN {}", quote_ident(&column.text(0)));
        match (column.bool(4), other.bool(4)) {
            (true, false) => script.after.push(format!("{alter} SET NOT NULL")),
            (false, true) => script.after.push(format!("{alter} DROP NOT NULL")),
            _ => {}
        }
        match (column.opt(6), other.opt(6).map(|text| one.as_live(&text))) {
            (Some(now), then) if then.as_ref() != Some(&now) => {
                script.after.push(format!("{alter} SET DEFAULT {now}"));
            }
            (None, Some(_)) => script.after.push(format!("{alter} DROP DEFAULT")),
            _ => {}
        }
    }
    Ok(true)
}

/// Adds what must be done so that the restored table has all that the living one has.
pub(super) fn follow(
    connection: &mut Connection,
    one: &Swapped<'_>,
    all: &[Swapped<'_>],
    kept: &str,
    script: &mut Script,
) -> Result<()> {
    constraints(connection, one, script)?;
    indexes(connection, one, script)?;
    statistics(connection, one, kept, script)?;
    sequences(connection, one, kept, script)?;
    triggers(connection, one, script)?;
    rules(connection, one, script)?;
    security(connection, one, script)?;
    inheritance(connection, one, all, script)?;
    let name = one.live_name();
    script.after.extend(grants(connection, &one.live, "TABLE", &name)?);
    comments(connection, one, script)?;
    let identity = rows(
        connection,
        &format!(
            "SELECT c.relreplident, (SELECT i.relname FROM pg_catalog.pg_index x JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
                                      WHERE x.indrelid = c.oid AND x.indisreplident) FROM pg_catalog.pg_class c WHERE c.oid = {}",
            one.live
        ),
    )?;
    if let Some(row) = identity.first() {
        let how = match row.text(0).as_str() {
            "f" => "FULL".to_owned(),
            "n" => "NOTHING".to_owned(),
            "i" => format!("USING INDEX {}", quote_ident(&row.text(1))),
            _ => "DEFAULT".to_owned(),
        };
        script.after.push(format!("ALTER TABLE {name} REPLICA IDENTITY {how}"));
    }
    Ok(())
}

/// Names and definitions of what both have, compared: what the restored one has too much goes, what it lacks is made.
fn both(
    connection: &mut Connection,
    one: &Swapped<'_>,
    query: &dyn Fn(&str) -> String,
) -> Result<(Vec<Row>, Vec<Row>)> {
    let live = rows(connection, &query(&one.live))?;
    let then = rows(connection, &query(&one.beside))?;
    let same = |a: &Row, b: &Row| a.text(0) == b.text(0) && a.text(1) == one.as_live(&b.text(1));
    let missing = live.iter().filter(|a| !then.iter().any(|b| same(a, b))).cloned().collect();
    let extra = then.iter().filter(|b| !live.iter().any(|a| same(a, b))).cloned().collect();
    Ok((missing, extra))
}

fn constraints(connection: &mut Connection, one: &Swapped<'_>, script: &mut Script) -> Result<()> {
    // Of a partition, what its parent gives it comes with its place.
    let query = |oid: &str| {
        format!(
            "SELECT conname, pg_catalog.pg_get_constraintdef(oid), contype, conparentid = 0 AND conislocal
               FROM pg_catalog.pg_constraint WHERE conrelid = {oid} AND contype IN ('c', 'p', 'u', 'x', 'f')
              ORDER BY contype <> 'p', contype <> 'u', oid"
        )
    };
    let (missing, extra) = both(connection, one, &query)?;
    let (live, beside) = (one.live_name(), one.beside_name());
    for row in &extra {
        script.before.push(format!("ALTER TABLE {beside} DROP CONSTRAINT {}", quote_ident(&row.text(0))));
    }
    for row in missing.iter().filter(|row| row.bool(3)) {
        let not_valid = extra.iter().any(|then| {
            then.text(0) == row.text(0) && one.as_live(&then.text(1)) == format!("{} NOT VALID", row.text(1))
        });
        if not_valid {
            script.refuse(
                format!(
                    "rows of the restored {} refer (by {}) to rows that are not there",
                    one.pair.live,
                    row.text(0)
                ),
                "Take that table back too, in one command (--table for each); or put rows back with --merge.",
            );
        }
        let statement =
            format!("ALTER TABLE {live} ADD CONSTRAINT {} {}", quote_ident(&row.text(0)), row.text(1));
        if row.text(2) == "f" { script.last.push(statement) } else { script.after.push(statement) }
    }
    // A kept table must not hold on to rows that others delete.
    for row in &rows(connection, &query(&one.live))? {
        let oneself = format!("REFERENCES {}(", one.live_name());
        if row.text(2) == "f" && row.bool(3) && !row.text(1).contains(&oneself) {
            script.before.push(format!("ALTER TABLE {live} DROP CONSTRAINT {}", quote_ident(&row.text(0))));
            script.notices.push(format!(
                "the kept {} has no foreign key {} any more",
                one.pair.live,
                row.text(0)
            ));
        }
    }
    Ok(())
}

fn indexes(connection: &mut Connection, one: &Swapped<'_>, script: &mut Script) -> Result<()> {
    let query = |oid: &str| {
        format!(
            "SELECT c.relname, pg_catalog.pg_get_indexdef(i.indexrelid) FROM pg_catalog.pg_index i
               JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
              WHERE i.indrelid = {oid} AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint WHERE conindid = i.indexrelid AND contype IN ('p', 'u', 'x'))
              ORDER BY i.indexrelid"
        )
    };
    let (missing, extra) = both(connection, one, &query)?;
    for row in &extra {
        script.before.push(format!("DROP INDEX {}", quote_qualified(&one.pair.beside.schema, &row.text(0))));
    }
    script.after.extend(missing.iter().map(|row| row.text(1)));
    Ok(())
}

/// Extended statistics do not move with their table.
fn statistics(connection: &mut Connection, one: &Swapped<'_>, kept: &str, script: &mut Script) -> Result<()> {
    let query = |oid: &str| {
        format!(
            "SELECT pg_catalog.format('%I.%I', n.nspname, s.stxname), pg_catalog.pg_get_statisticsobjdef(s.oid)
               FROM pg_catalog.pg_statistic_ext s JOIN pg_catalog.pg_namespace n ON n.oid = s.stxnamespace WHERE s.stxrelid = {oid}"
        )
    };
    for row in &rows(connection, &query(&one.beside))? {
        script.before.push(format!("DROP STATISTICS {}", row.text(0)));
    }
    for row in &rows(connection, &query(&one.live))? {
        script.after.push(format!("ALTER STATISTICS {} SET SCHEMA {}", row.text(0), quote_ident(kept)));
        script.after.push(row.text(1));
    }
    Ok(())
}

/// Sequences that belong to columns go on from where either of the two is further: no value is given twice.
fn sequences(connection: &mut Connection, one: &Swapped<'_>, kept: &str, script: &mut Script) -> Result<()> {
    let query = |oid: &str| {
        format!(
            "SELECT s.relname, s.oid::text, q.seqincrement < 0 FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_class s ON s.oid = d.objid AND s.relkind = 'S'
               JOIN pg_catalog.pg_sequence q ON q.seqrelid = s.oid
              WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refclassid = d.classid AND d.refobjid = {oid}
                AND d.deptype IN ('a', 'i') ORDER BY 1"
        )
    };
    let then = rows(connection, &query(&one.beside))?;
    for row in &rows(connection, &query(&one.live))? {
        let name = row.text(0);
        if !then.iter().any(|other| other.text(0) == name) {
            script.refuse(
                format!("the sequence {name} of {} was not there then", one.pair.live),
                "Put the rows back with --merge.",
            );
            continue;
        }
        let (new, old) = (quote_qualified(&one.pair.live.schema, &name), quote_qualified(kept, &name));
        let further = if row.bool(2) { "<" } else { ">" };
        script.after.push(format!(
            "SELECT pg_catalog.setval({}::pg_catalog.regclass, CASE WHEN o.last_value {further} n.last_value THEN o.last_value ELSE n.last_value END,
                    CASE WHEN o.last_value = n.last_value THEN o.is_called OR n.is_called
                         WHEN o.last_value {further} n.last_value THEN o.is_called ELSE n.is_called END)
               FROM {old} o, {new} n",
            quote_literal(&new)
        ));
        script.after.extend(grants(connection, &row.text(1), "SEQUENCE", &new)?.into_iter().skip(1));
        script.follows.push(format!("sequence {name} of {}", one.pair.live));
    }
    Ok(())
}

fn triggers(connection: &mut Connection, one: &Swapped<'_>, script: &mut Script) -> Result<()> {
    let query = |oid: &str| {
        format!(
            "SELECT t.tgname, pg_catalog.pg_get_triggerdef(t.oid), t.tgenabled FROM pg_catalog.pg_trigger t
              WHERE t.tgrelid = {oid} AND NOT t.tgisinternal AND t.tgparentid = 0 ORDER BY t.tgname"
        )
    };
    for row in &rows(connection, &query(&one.beside))? {
        script.before.push(format!("DROP TRIGGER {} ON {}", quote_ident(&row.text(0)), one.beside_name()));
    }
    let table = one.live_name();
    for row in &rows(connection, &query(&one.live))? {
        let name = quote_ident(&row.text(0));
        script.after.push(row.text(1));
        let state = match row.text(2).as_str() {
            "D" => Some("DISABLE"),
            "A" => Some("ENABLE ALWAYS"),
            "R" => Some("ENABLE REPLICA"),
            _ => None,
        };
        script.after.extend(state.map(|state| format!("ALTER TABLE {table} {state} TRIGGER {name}")));
        script.follows.push(format!("trigger {} of {}", row.text(0), one.pair.live));
    }
    Ok(())
}

fn rules(connection: &mut Connection, one: &Swapped<'_>, script: &mut Script) -> Result<()> {
    let query = |oid: &str| {
        format!(
            "SELECT rulename, pg_catalog.pg_get_ruledef(oid), ev_enabled FROM pg_catalog.pg_rewrite WHERE ev_class = {oid} ORDER BY 1"
        )
    };
    for row in &rows(connection, &query(&one.beside))? {
        script.before.push(format!("DROP RULE {} ON {}", quote_ident(&row.text(0)), one.beside_name()));
    }
    let table = one.live_name();
    for row in &rows(connection, &query(&one.live))? {
        let name = quote_ident(&row.text(0));
        script.last.push(row.text(1));
        if row.text(2) == "D" {
            script.last.push(format!("ALTER TABLE {table} DISABLE RULE {name}"));
        }
        script.follows.push(format!("rule {} of {}", row.text(0), one.pair.live));
    }
    Ok(())
}

/// Its place below a parent, and its own children.
fn inheritance(
    connection: &mut Connection,
    one: &Swapped<'_>,
    all: &[Swapped<'_>],
    script: &mut Script,
) -> Result<()> {
    let table = one.live_name();
    // The restored one may have been made below the same parent, and may stay there; or below one that the living one left since.
    let then = rows(
        connection,
        &format!(
            "SELECT p.oid::text, pg_catalog.format('%I.%I', n.nspname, p.relname) FROM pg_catalog.pg_inherits i
               JOIN pg_catalog.pg_class p ON p.oid = i.inhparent JOIN pg_catalog.pg_namespace n ON n.oid = p.relnamespace
              WHERE i.inhrelid = {}",
            one.beside
        ),
    )?;
    let together = |oid: &str| all.iter().any(|other| other.live == oid);
    let parents = rows(
        connection,
        &format!(
            "SELECT pg_catalog.format('%I.%I', n.nspname, p.relname), p.relkind = 'p', pg_catalog.pg_get_expr(c.relpartbound, c.oid),
                    EXISTS (SELECT FROM pg_catalog.pg_constraint WHERE confrelid = p.oid AND contype = 'f'), p.oid::text
               FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class p ON p.oid = i.inhparent
               JOIN pg_catalog.pg_namespace n ON n.oid = p.relnamespace JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
              WHERE i.inhrelid = {} ORDER BY i.inhseqno",
            one.live
        ),
    )?;
    let beside_of = |oid: &str| all.iter().find(|other| other.live == oid).map(|other| other.beside.clone());
    let stays = |row: &Row| {
        let oid = row.text(0);
        parents
            .iter()
            .any(|parent| parent.text(4) == oid || beside_of(&parent.text(4)).as_ref() == Some(&oid))
    };
    for row in then.iter().filter(|row| !stays(row)) {
        script.before.push(format!("ALTER TABLE {} NO INHERIT {}", one.beside_name(), row.text(1)));
    }
    for row in parents.iter().filter(|row| !together(&row.text(4))) {
        let parent = row.text(0);
        if row.bool(1) && row.bool(3) {
            script.refuse(
                format!("foreign keys refer to {parent}, of which {} is a partition", one.pair.live),
                "Put the rows back with --merge.",
            );
        }
        if row.bool(1) {
            script.before.push(format!("ALTER TABLE {parent} DETACH PARTITION {table}"));
            script.last.push(format!("ALTER TABLE {parent} ATTACH PARTITION {table} {}", row.text(2)));
            script.follows.push(format!("its place as a partition of {parent}"));
        } else {
            script.before.push(format!("ALTER TABLE {table} NO INHERIT {parent}"));
            if !then.iter().any(|other| other.text(0) == row.text(4)) {
                script.last.push(format!("ALTER TABLE {table} INHERIT {parent}"));
                script.notices.push(format!(
                    "the columns that {} has from {parent} are its own too from now on: to drop one there does not drop it here",
                    one.pair.live
                ));
            }
            script.follows.push(format!("its inheritance from {parent}"));
        }
    }
    let children = rows(
        connection,
        &format!(
            "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), c.oid::text FROM pg_catalog.pg_inherits i
               JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
              WHERE i.inhparent = {} ORDER BY 1",
            one.live
        ),
    )?;
    let ours = |oid: &str| together(oid) || all.iter().any(|other| other.beside == oid);
    for row in children.iter().filter(|row| !ours(&row.text(1))) {
        let child = row.text(0);
        script.before.push(format!("ALTER TABLE {child} NO INHERIT {table}"));
        script.last.push(format!("ALTER TABLE {child} INHERIT {table}"));
        script.follows.push(format!("the inheritance of {child}, with its rows of now"));
    }
    Ok(())
}
