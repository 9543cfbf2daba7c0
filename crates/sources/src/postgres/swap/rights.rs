//! Who may do what with the living table, and what is said about it: the restored one gets the same.

use super::{Script, Swapped, comment, own::rows};
use crate::postgres::wire::{Connection, quote_ident, quote_literal};
use mainstay_domain::Result;

/// Row level security: whether it is on, and every policy.
pub(super) fn security(connection: &mut Connection, one: &Swapped<'_>, script: &mut Script) -> Result<()> {
    let query = |oid: &str| {
        format!(
            "SELECT p.polname, p.polpermissive, p.polcmd, pg_catalog.pg_get_expr(p.polqual, p.polrelid),
                    pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid),
                    CASE WHEN p.polroles = '{{0}}' THEN 'PUBLIC' ELSE (SELECT pg_catalog.string_agg(pg_catalog.quote_ident(rolname), ', ' ORDER BY rolname)
                       FROM pg_catalog.pg_roles WHERE oid = ANY (p.polroles)) END
               FROM pg_catalog.pg_policy p WHERE p.polrelid = {oid} ORDER BY 1"
        )
    };
    for row in &rows(connection, &query(&one.beside))? {
        script.before.push(format!("DROP POLICY {} ON {}", quote_ident(&row.text(0)), one.beside_name()));
    }
    let table = one.live_name();
    let on = rows(
        connection,
        &format!(
            "SELECT relrowsecurity, relforcerowsecurity FROM pg_catalog.pg_class WHERE oid = {}",
            one.live
        ),
    )?;
    for row in &on {
        let word = |on: bool, yes: &'static str, no: &'static str| if on { yes } else { no };
        let enabled = word(row.bool(0), "ENABLE", "DISABLE");
        let forced = word(row.bool(1), "FORCE", "NO FORCE");
        script
            .after
            .push(format!("ALTER TABLE {table} {enabled} ROW LEVEL SECURITY, {forced} ROW LEVEL SECURITY"));
    }
    for row in &rows(connection, &query(&one.live))? {
        let name = quote_ident(&row.text(0));
        let kind = if row.bool(1) { "PERMISSIVE" } else { "RESTRICTIVE" };
        let command = match row.text(2).as_str() {
            "r" => "SELECT",
            "a" => "INSERT",
            "w" => "UPDATE",
            "d" => "DELETE",
            _ => "ALL",
        };
        let using = row.opt(3).map(|text| format!(" USING ({text})")).unwrap_or_default();
        let check = row.opt(4).map(|text| format!(" WITH CHECK ({text})")).unwrap_or_default();
        // It may look into a table that is swapped with it.
        script.last.push(format!(
            "CREATE POLICY {name} ON {table} AS {kind} FOR {command} TO {}{using}{check}",
            row.text(5)
        ));
        script.follows.push(format!("policy {} of {}", row.text(0), one.pair.live));
    }
    Ok(())
}

/// The statements that give `name` the owner and the privileges of the relation `oid`. The owner comes first.
pub(super) fn grants(connection: &mut Connection, oid: &str, kind: &str, name: &str) -> Result<Vec<String>> {
    let owner = rows(
        connection,
        &format!("SELECT pg_catalog.pg_get_userbyid(relowner) FROM pg_catalog.pg_class WHERE oid = {oid}"),
    )?;
    let owner = owner.first().map(|row| quote_ident(&row.text(0))).unwrap_or_default();
    let mut made = vec![format!("ALTER TABLE {name} OWNER TO {owner}")];
    // Whoever had something on the restored one, or has it by default privileges, has nothing any more; also the owner, who may
    // have given rights of his own away.
    made.push(format!(
        "DO $mainstay$ DECLARE r record; BEGIN
           FOR r IN SELECT DISTINCT a.grantee FROM pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) a
                     WHERE c.oid = {0}::pg_catalog.regclass LOOP
             EXECUTE pg_catalog.format('REVOKE ALL ON {kind} %s FROM %s', {0},
               CASE r.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(r.grantee)) END);
           END LOOP;
           FOR r IN SELECT DISTINCT a.grantee, t.attname FROM pg_catalog.pg_attribute t, pg_catalog.aclexplode(t.attacl) a
                     WHERE t.attrelid = {0}::pg_catalog.regclass LOOP
             EXECUTE pg_catalog.format('REVOKE ALL (%I) ON {kind} %s FROM %s', r.attname, {0},
               CASE r.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(r.grantee)) END);
           END LOOP; END $mainstay$",
        quote_literal(name)
    ));
    let given = rows(
        connection,
        &format!(
            "SELECT a.privilege_type, NULL, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END,
                    a.is_grantable
               FROM pg_catalog.pg_class c, pg_catalog.aclexplode(coalesce(c.relacl, pg_catalog.acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::\"char\", c.relowner))) a
              WHERE c.oid = {oid}
             UNION ALL
             SELECT a.privilege_type, pg_catalog.quote_ident(t.attname), CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END,
                    a.is_grantable
               FROM pg_catalog.pg_attribute t, pg_catalog.aclexplode(t.attacl) a WHERE t.attrelid = {oid} AND NOT t.attisdropped"
        ),
    )?;
    for row in &given {
        let column = row.opt(1).map(|column| format!(" ({column})")).unwrap_or_default();
        let option = if row.bool(3) { " WITH GRANT OPTION" } else { "" };
        made.push(format!("GRANT {}{column} ON {kind} {name} TO {}{option}", row.text(0), row.text(2)));
    }
    Ok(made)
}

/// What is said about the table and its parts now.
pub(super) fn comments(connection: &mut Connection, one: &Swapped<'_>, script: &mut Script) -> Result<()> {
    let table = one.live_name();
    let columns = rows(
        connection,
        &format!(
            "SELECT pg_catalog.quote_ident(a.attname), pg_catalog.col_description(a.attrelid, a.attnum) FROM pg_catalog.pg_attribute a
              WHERE a.attrelid = {} AND a.attnum > 0 AND NOT a.attisdropped",
            one.live
        ),
    )?;
    let itself = rows(connection, &format!("SELECT pg_catalog.obj_description({}, 'pg_class')", one.live))?;
    for row in &itself {
        script.after.push(comment(&format!("TABLE {table}"), row.opt(0).as_deref()));
    }
    for row in &columns {
        script.after.push(comment(&format!("COLUMN {table}.{}", row.text(0)), row.opt(1).as_deref()));
    }
    for (word, catalogue, name, owner) in [
        ("CONSTRAINT", "pg_constraint", "conname", "conrelid"),
        ("TRIGGER", "pg_trigger", "tgname", "tgrelid"),
        ("POLICY", "pg_policy", "polname", "polrelid"),
        ("RULE", "pg_rewrite", "rulename", "ev_class"),
    ] {
        let parts = rows(
            connection,
            &format!(
                "SELECT pg_catalog.quote_ident({name}), d.description FROM pg_catalog.{catalogue} p JOIN pg_catalog.pg_description d
                     ON d.objoid = p.oid AND d.classoid = 'pg_catalog.{catalogue}'::pg_catalog.regclass WHERE p.{owner} = {}",
                one.live
            ),
        )?;
        for row in &parts {
            script.last.push(comment(&format!("{word} {} ON {table}", row.text(0)), row.opt(1).as_deref()));
        }
    }
    Ok(())
}
